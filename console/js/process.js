// process.js: processes that run, have failed, have ended; one with its diagram
// and its timeline.
import { h } from './dom.js';
import { get, may, part, post } from './api.js';
import { age, at, duration, facts, json, pill, span, words } from './text.js';
import { askFor } from './talk.js';
import { diagram } from './diagram.js';

let onlyFailed = false;

export const stateOf = (p) => pill(p.state, p.finished_at ? (p.outcome === 'failed' ? 'plain' : 'good') : p.failed ? 'failed' : 'busy');
const about = (p) => h('th', { scope: 'row' }, h('a', { href: `#/processes/${p.process_id}` }, p.key), h('span', { class: 'muted under' }, words(p.type)));
const acknowledge = (p) => h('button', { 'data-do': 'acknowledge', 'data-process': p.process_id, 'data-about': p.key, 'aria-label': `Acknowledge ${p.key}` }, 'Acknowledge');
const heads = (...texts) => h('thead', {}, h('tr', {}, texts.map((t) => (t ? h('th', { scope: 'col' }, t) : h('td', {})))));

const running = (p) => h('tr', { 'data-key': p.process_id }, about(p),
  h('td', { 'data-label': 'State' }, stateOf(p)), h('td', { 'data-label': 'Age' }, age(p.started_at)),
  h('td', { 'data-label': 'Waits for' }, words(p.waits_for), ' ', h('span', { class: 'muted' }, 'since ', age(p.since))),
  h('td', { class: 'act' }, p.failed ? acknowledge(p) : null));

const ended = (p) => h('tr', { 'data-key': p.process_id }, about(p),
  h('td', { 'data-label': 'State' }, stateOf(p)), h('td', { 'data-label': 'Ended' }, at(p.finished_at)),
  h('td', { 'data-label': 'Took' }, span((new Date(p.finished_at) - new Date(p.started_at)) / 1000)), h('td', { 'data-label': 'Reason' }, p.reason ?? ''));

// ---- one ----

const types = new Map(); // definitions never change

async function typeOf(type, version) {
  const name = `/process-types/${part(type)}?version=${version}`;
  if (!types.has(name)) types.set(name, await may(name));
  return types.get(name);
}

export async function processParts(id) {
  const process = await get(`/processes/${part(id)}`);
  const [type, explained] = await Promise.all([typeOf(process.type, process.version),
    process.finished_at ? null : may(`/processes/${part(id)}/explain`)]);
  return { process, type, explanation: explained?.explanation ?? [] };
}

const step = (e) => h('li', { 'data-key': `s${e.step}`, class: e.to_state && e.to_state !== e.from_state ? 'moves' : null },
  h('p', {}, at(e.at, true), h('strong', {}, words(e.event)), h('span', { class: 'muted' }, ` from ${e.source}`, e.actor ? ` by ${e.actor}` : '')),
  e.to_state && e.to_state !== e.from_state ? h('p', {}, h('span', { 'aria-hidden': 'true' }, '→ '), h('span', { class: 'hidden' }, 'goes to '), words(e.to_state)) : null,
  e.command ? h('p', { class: 'muted' }, `sends ${words(e.command)}`) : null,
  e.note ? h('p', { class: 'muted' }, e.note) : null,
  e.data && Object.keys(e.data).length ? h('details', {}, h('summary', {}, 'Data'), json(e.data)) : null);

function waiting(explanation) {
  const rows = explanation.filter((e) => !['process', 'state', 'would move it'].includes(e.aspect));
  const moves = explanation.filter((e) => e.aspect === 'would move it' && e.detail !== 'is ignored');
  if (rows.length + moves.length === 0) return null;
  return h('section', { 'aria-labelledby': 'waits' }, h('h3', { id: 'waits' }, 'What it waits for'), h('ul', { class: 'plain' },
    rows.map((e) => h('li', {}, h('strong', {}, words(e.aspect)), ` ${e.aspect === 'deadline' ? duration(e.what) : words(e.what)} `,
      h('span', { class: 'muted' }, e.aspect === 'task' ? '' : e.detail, e.at ? [' ', at(e.at)] : ''))),
    moves.map((e) => h('li', {}, words(e.what), ' ', h('span', { class: 'muted' }, `would move it ${(e.detail ?? '').replace(/[A-Z]\w+/g, words)}`)))));
}

export function processView({ process: p, type, explanation }, heading) {
  return h('div', { class: 'process', 'data-key': p.process_id },
    h('section', { 'aria-labelledby': 'path', class: 'card' },
      h('header', {}, h('div', {}, h(heading, { id: 'path' }, words(p.type)), h('p', { class: 'muted' }, 'begun ', at(p.started_at),
        p.finished_at ? [', ended ', at(p.finished_at), `, took ${span((new Date(p.finished_at) - new Date(p.started_at)) / 1000)}`] : [', in this state for ', age(p.since)])),
      h('p', { class: 'state' }, stateOf(p), p.failed && !p.finished_at ? acknowledge(p) : null)),
      p.data?.failure ?? p.reason ? h('p', { class: 'refusal' }, p.data?.failure ?? p.reason) : null,
      type ? diagram(type, p) : null, waiting(explanation)),
    h('section', { 'aria-labelledby': 'line', class: 'card' }, h('h3', { id: 'line' }, 'Timeline'), h('ol', { class: 'timeline' }, p.history.map(step))));
}

export const processes = {
  name: 'processes',
  title: ([id]) => (id ? 'Process' : 'Processes'),
  async load([id]) {
    if (id) return { parts: await processParts(id) };
    const [list, over] = await Promise.all([get(`/processes?limit=100${onlyFailed ? '&failed=true' : ''}`), may(`/processes?ended=true&limit=20${onlyFailed ? '&failed=true' : ''}`)]);
    return { list: list.processes, more: list.last, over: over?.processes ?? [] };
  },
  render: ({ parts, list, more, over }) => (parts ? [
    h('p', { class: 'back' }, h('a', { href: '#/processes' }, 'All processes')),
    h('div', { class: 'title' }, h('h1', { tabindex: -1 }, parts.process.key)),
    processView(parts, 'h2'),
    h('section', { class: 'card' }, h('h2', {}, 'Data'), facts(parts.process.data)),
  ] : [
    h('div', { class: 'title' }, h('h1', { tabindex: -1 }, 'Processes'),
      h('button', { 'data-do': 'onlyFailed', 'aria-pressed': String(onlyFailed) }, 'Only those that failed')),
    h('section', { 'aria-labelledby': 'now' }, h('h2', { id: 'now' }, 'Now'),
      list.length === 0 ? h('p', { class: 'empty' }, onlyFailed ? 'None has failed.' : 'Nothing runs, and nothing waits for you.')
        : h('table', { class: 'stack' }, heads('About', 'State', 'Age', 'Waits for', ''), h('tbody', { id: 'running' }, list.map(running))),
      more ? h('p', { class: 'muted' }, 'These are the latest 100.') : null),
    h('section', { 'aria-labelledby': 'over' }, h('h2', { id: 'over' }, 'Ended lately'),
      over.length === 0 ? h('p', { class: 'empty' }, 'None.')
        : h('table', { class: 'stack' }, heads('About', 'State', 'Ended', 'Took', 'Reason'), h('tbody', { id: 'ended' }, over.map(ended)))),
  ]),
  actions: {
    onlyFailed() {
      onlyFailed = !onlyFailed;
    },
    async acknowledge({ process, about: key }) {
      const d = await askFor({ title: `Acknowledge ${key}?`, text: 'Its process has failed. Acknowledging ends it.', button: 'Acknowledge', fields: [{ name: 'reason', label: 'What was done about it' }] });
      if (!d) return null;
      await post(`/processes/${part(process)}/acknowledge`, d.reason ? { reason: d.reason } : {});
      return `${key} is acknowledged.`;
    },
  },
};
