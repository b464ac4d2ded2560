// repair.js: messages that need a person: dead letters and parked events.
import { h } from './dom.js';
import { may, post } from './api.js';
import { age, at, json, plural, words } from './text.js';
import { askFor } from './talk.js';

const buttons = (m) => h('p', { class: 'state' },
  ['retry', 'discard'].map((verb) => h('button', { 'data-do': verb, 'data-address': m.event_id ? `/parked-events/${m.event_id}` : `/messages/${m.message_id}`, 'data-about': words(m.type),
    'aria-label': `${words(verb)} ${words(m.type)} of ${m.key}` }, words(verb))));

const card = (m, said) => h('li', { class: 'card', 'data-key': `${m.message_id ?? m.event_id} ${m.destination ?? m.process_type}` },
  h('header', {}, h('div', {}, h('h3', {}, words(m.type), ' ', h('span', { class: 'muted' }, m.key)), h('p', { class: 'muted' }, said)), buttons(m)),
  m.error ? h('p', { class: 'refusal' }, m.error) : null,
  h('details', {}, h('summary', {}, 'Message'), json(m.data)));

const list = (title, id, messages, total, none, said) => h('section', { 'aria-labelledby': id }, h('h2', { id }, title),
  messages.length === 0 ? h('p', { class: 'empty' }, none) : h('ul', { class: 'cards', id: `${id}-list` }, messages.map((m) => card(m, said(m)))),
  total > messages.length ? h('p', { class: 'muted' }, `These are the oldest ${messages.length} of ${total}.`) : null);

export const repair = {
  name: 'repair',
  title: () => 'Repair',
  async load() {
    const refused = [];
    const [dead, parked] = await Promise.all(['/dead-letters', '/parked-events'].map((p) => may(p, refused)));
    return { dead, parked, refused };
  },
  render: ({ dead, parked, refused }) => [
    h('h1', { tabindex: -1 }, 'Repair'),
    refused.length ? h('p', { class: 'refusal' }, refused[0]) : null,
    list('Dead letters', 'dead', dead?.dead_letters ?? [], dead?.total ?? 0, 'No message has given up.',
      (m) => [`${m.source} to ${m.process_type ?? m.destination}, gave up `, at(m.failed_at), ` after ${plural(m.attempts, 'attempt')}`]),
    list('Parked events', 'parked', parked?.parked_events ?? [], parked?.total ?? 0, 'No event waits for its process.',
      (m) => [`for ${words(m.process_type).toLowerCase()}, since `, age(m.parked_at), ', a dead letter from ', at(m.expires_at)]),
  ],
  actions: {
    async retry({ address, about }) {
      const { taken } = await post(`${address}/retry`, {});
      return taken === 0 ? `${about}: no process is ready for it yet.` : `${about} is tried again.`;
    },
    async discard({ address, about }) {
      const d = await askFor({ title: `Discard ${about}?`, text: 'Nobody will handle it. The reason is written down.', button: 'Discard', danger: true, fields: [{ name: 'reason', label: 'Reason', required: true }] });
      if (!d) return null;
      await post(`${address}/discard`, d);
      return `${about} is discarded.`;
    },
  },
};
