// task.js: tasks that one has, that one may take, and how many there are for
// which role.
import { h } from './dom.js';
import { get, may, part, post } from './api.js';
import { age, at, facts, json, pill, words } from './text.js';
import { askFor } from './talk.js';

const name = (t) => t.title ?? words(t.type);
const button = (t, action, text, kind) => h('button', { 'data-do': 'task', 'data-task': t.task_id, 'data-action': action, 'data-version': t.version, 'data-about': name(t), class: kind,
  'aria-label': `${text}: ${name(t)}` }, text);

const card = (t, actions) => h('li', { class: 'card', 'data-key': t.task_id },
  h('header', {}, h('div', {}, h('h3', {}, h('a', { href: `#/tasks/${t.task_id}` }, name(t))),
    h('p', { class: 'muted' }, `${words(t.type)}, ${t.key}, waiting `, age(t.created_at), t.due_at ? [', due ', at(t.due_at)] : '')),
  h('p', { class: 'state' }, pill(t.state), actions)),
  facts(t.document));

const list = (title, id, tasks, none, actions) => h('section', { 'aria-labelledby': id }, h('h2', { id }, title),
  tasks.length === 0 ? h('p', { class: 'empty' }, none) : h('ul', { class: 'cards', id: `${id}-list` }, tasks.map((t) => card(t, actions(t)))));

const VERBS = { claim: 'Claim', start: 'Begin', complete: 'Complete', fail: 'It cannot be done', release: 'Give back', suspend: 'Put aside', resume: 'Go on', extend: 'Keep it longer', assign: 'Assign', cancel: 'Cancel' };
const reason = (required) => ({ name: 'reason', label: 'Reason', required });
const FIELDS = { complete: [{ name: 'outcome', label: 'Outcome', type: 'long', hint: 'Text, or JSON.' }], fail: [reason(true)], release: [reason(false)],
  suspend: [reason(false)], cancel: [reason(true)], assign: [{ name: 'role', label: 'Role', required: true }, reason(false)] };

function outcomeOf(text) {
  try {
    return JSON.parse(text);
  } catch {
    return { note: text };
  }
}

function detail(t, why) {
  return [
    h('p', { class: 'back' }, h('a', { href: '#/tasks' }, 'All tasks')),
    h('div', { class: 'title' }, h('h1', { tabindex: -1 }, name(t)), pill(t.state)),
    h('p', { class: 'buttons left' }, (t.actions ?? []).map((a) => button(t, a.action, VERBS[a.action] ?? words(a.action), a.action === 'complete' || a.action === 'claim' ? 'main' : null))),
    t.state === 'ready' && why?.reasons?.length ? h('p', { class: 'muted' }, `You may not claim it: ${why.reasons.join('; ')}`) : null,
    h('section', { class: 'card' }, h('h2', {}, 'What is to be done'), facts(t.document)),
    h('section', { class: 'card' }, h('h2', {}, 'About it'), facts({ type: words(t.type), service: t.service, about: t.key, owner: t.owner, roles: t.roles?.join(', '), skills: t.skills?.join(', ') || null,
      priority: t.priority, made: t.created_at, due: t.due_at, ended: t.ended_at, reason: t.reason }),
    t.process_id ? h('p', {}, h('a', { href: `#/processes/${t.process_id}` }, 'Its process')) : null,
    t.outcome ? h('details', {}, h('summary', {}, 'Outcome'), json(t.outcome)) : null),
  ];
}

export const tasks = {
  name: 'tasks',
  title: ([id]) => (id ? 'Task' : 'Tasks'),
  async load([id]) {
    if (id) {
      const [task, why] = await Promise.all([get(`/tasks/${part(id)}`), may(`/tasks/${part(id)}/why-not`)]);
      return { task, why };
    }
    const refused = [];
    const [mine, available, queues] = await Promise.all(['/tasks', '/tasks/available', '/tasks/queues'].map((p) => may(p, refused)));
    return { mine: mine?.tasks ?? [], available: available?.tasks ?? [], queues: queues?.queues ?? [], refused };
  },
  render: ({ task, why, mine, available, queues, refused }) => (task ? detail(task, why) : [
    h('h1', { tabindex: -1 }, 'Tasks'),
    refused.length ? h('p', { class: 'refusal' }, refused[0]) : null,
    list('Yours', 'mine', mine, 'You have none.', (t) => [button(t, 'complete', 'Complete', 'main'), button(t, 'release', 'Give back')]),
    list('For you to take', 'available', available, 'There is none that you may take.', (t) => button(t, 'claim', 'Claim', 'main')),
    h('section', { 'aria-labelledby': 'queues' }, h('h2', { id: 'queues' }, 'By role'),
      queues.length === 0 ? h('p', { class: 'empty' }, 'No task is open.')
        : h('table', { class: 'stack' }, h('thead', {}, h('tr', {}, ['Task', 'Role', 'Ready', 'Taken', 'Overdue', 'Oldest'].map((t, i) => h('th', { scope: 'col', class: i > 1 && i < 5 ? 'number' : null }, t)))),
          h('tbody', {}, queues.map((q) => h('tr', { 'data-key': `${q.type} ${q.role}` }, h('th', { scope: 'row' }, words(q.type)), h('td', { 'data-label': 'Role' }, q.role ?? 'none: see processes'),
            h('td', { class: 'number', 'data-label': 'Ready' }, String(q.ready)), h('td', { class: 'number', 'data-label': 'Taken' }, String(q.taken)),
            h('td', { class: 'number', 'data-label': 'Overdue' }, String(q.overdue)), h('td', { 'data-label': 'Oldest' }, q.oldest ? age(q.oldest) : '')))))),
  ]),
  actions: {
    async task({ task, action, version, about }) {
      let body = {};
      if (FIELDS[action]) {
        const d = await askFor({ title: `${VERBS[action]}: ${about}`, button: VERBS[action], fields: FIELDS[action], danger: action === 'cancel' || action === 'fail' });
        if (!d) return null;
        body = Object.fromEntries(Object.entries(d).filter(([, v]) => v !== '').map(([k, v]) => [k, k === 'outcome' ? outcomeOf(v) : v]));
      }
      const t = await post(`/tasks/${part(task)}/${part(action)}`, body, { 'Idempotency-Key': crypto.randomUUID(), 'If-Match': `"${version}"` });
      return `${name(t)}: ${words(t.state).toLowerCase()}.`;
    },
  },
};
