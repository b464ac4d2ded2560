// command.js: commands that were sent here, and what became of them.
import { h } from './dom.js';
import { get, part, post, Problem } from './api.js';
import { at, pill, words } from './text.js';

const open = new Map(); // self -> what it is about

// Send it; what becomes of it is told later, by openCommands().
export async function send(type, data, about) {
  const status = await post(`/commands/${part(type)}`, data, { 'Idempotency-Key': crypto.randomUUID(), Prefer: 'respond-async' });
  open.set(status.self, about);
  return status;
}

const OVER = { processed: ['done', 'good'], failed: ['refused', 'failed'], cancelled: ['cancelled', 'failed'], expired: ['expired', 'failed'] };

export async function openCommands(toast) {
  await Promise.all([...open].map(async ([self, about]) => {
    try {
      const c = await get(self);
      if (!OVER[c.status] || !open.delete(self)) return;
      const [said, kind] = OVER[c.status];
      toast(`${about}: ${said}${c.error ? `. ${c.error.detail ?? c.error.title}` : ''}`, kind);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if (error.status === 404 || error.status === 410) open.delete(self);
    }
  }));
}

const place = (resource) => {
  const found = /^\/documents\/(.+)$/.exec(resource ?? '');
  const customer = /^\/reports\?customer_id=([^&]+)/.exec(resource ?? '');
  if (customer) return decodeURIComponent(customer[1]);
  return found ? h('a', { href: `#/documents/${found[1]}` }, decodeURIComponent(found[1])) : resource ?? '';
};

export const commands = {
  name: 'commands',
  title: () => 'Commands',
  load: () => get('/commands?limit=50'),
  render: ({ commands: all }) => [
    h('h1', { tabindex: -1 }, 'Commands'),
    h('p', { class: 'lead' }, 'What you have asked for, latest first, and what became of it.'),
    all.length === 0 ? h('p', { class: 'empty' }, 'You have not sent any yet.')
      : h('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'Commands' }, h('table', { class: 'stack' },
        h('thead', {}, h('tr', {}, ['Command', 'About', 'Status', 'Sent', 'What was said'].map((t) => h('th', { scope: 'col' }, t)))),
        h('tbody', {}, all.map((c) => h('tr', { 'data-key': c.command_id },
          h('th', { scope: 'row' }, words(c.type)), h('td', { 'data-label': 'About' }, place(c.resource)), h('td', { 'data-label': 'Status' }, pill(c.status)),
          h('td', { 'data-label': 'Sent' }, at(c.accepted_at)),
          h('td', { 'data-label': 'Said' }, c.error ? c.error.detail ?? c.error.title : c.process_id ? h('a', { href: `#/processes/${c.process_id}` }, 'its process') : '')))))),
  ],
};
