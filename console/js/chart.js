// chart.js: figures of the last minutes, as small charts.
import { h, s } from './dom.js';
import { may, metrics } from './api.js';
import { plural, span } from './text.js';

const KEPT = 120; // samples, one in 2 s
const W = 300, H = 72;
const samples = [];

const sum = (all, name) => all.filter((m) => m.name === name).reduce((n, m) => n + m.value, 0);

// One look at /metrics. stamp changes when something has been done.
export async function sample() {
  const all = await metrics();
  const now = { at: performance.now() / 1000, all, handled: sum(all, 'voiding_messages_handled_total'), pending: sum(all, 'voiding_pending'),
    oldest: Math.max(0, ...all.filter((m) => m.name === 'voiding_oldest_pending_seconds').map((m) => m.value)),
    requests: sum(all, 'voiding_gateway_requests_total'), seconds: sum(all, 'voiding_gateway_seconds_total'),
    running: sum(all, 'voiding_processes'), dead: sum(all, 'voiding_dead_letters'), parked: sum(all, 'voiding_parked'), workers: sum(all, 'voiding_workers') };
  const last = samples[samples.length - 1];
  const time = last ? now.at - last.at : 0;
  now.rate = last && now.handled >= last.handled ? (now.handled - last.handled) / time : 0;
  now.latency = last && now.requests > last.requests ? (now.seconds - last.seconds) / (now.requests - last.requests) : 0;
  samples.push(now);
  samples.splice(0, Math.max(samples.length - KEPT, 0));
  now.stamp = [now.handled, now.pending, now.dead, now.parked, sum(all, 'voiding_messages_failed_total'), now.running].join();
  return now;
}

function spark(all) {
  const values = all.length > 1 ? all : [all[0] ?? 0, all[0] ?? 0];
  const most = Math.max(...values, 1e-9) * 1.1;
  const x = (i) => (W * i) / Math.max(values.length - 1, 1);
  const y = (v) => H - 2 - ((H - 6) * v) / most;
  const points = values.map((v, i) => `${x(i).toFixed(1)} ${y(v).toFixed(1)}`);
  return s('svg', { viewBox: `0 0 ${W} ${H}`, class: 'spark', preserveAspectRatio: 'none', 'aria-hidden': 'true' },
    s('path', { class: 'area', d: `M0 ${H}L${points.join('L')}L${x(values.length - 1)} ${H}z` }), s('path', { class: 'line', d: `M${points.join('L')}` }));
}

const chart = (title, values, write, note) => h('figure', { class: 'card', 'data-key': title },
  h('figcaption', {}, title), h('p', { class: 'big' }, write(values[values.length - 1] ?? 0)), spark(values),
  h('p', { class: 'muted' }, note ?? `highest ${write(Math.max(0, ...values))}`));

const at = (sorted, part) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))];

export const figures = {
  name: 'figures',
  title: () => 'Figures',
  async load() {
    const ended = (await may('/processes?ended=true&limit=200'))?.processes ?? [];
    return ended.filter((p) => p.outcome !== 'failed').map((p) => (new Date(p.finished_at) - new Date(p.started_at)) / 1000).reverse();
  },
  render(took) {
    const last = samples[samples.length - 1];
    const sorted = [...took].sort((a, b) => a - b);
    const of = (name) => samples.map((x) => x[name]);
    const services = [...new Set((last?.all ?? []).map((m) => m.labels.service).filter(Boolean))].sort();
    const value = (service, name) => String((last?.all ?? []).find((m) => m.name === name && m.labels.service === service)?.value ?? 0);
    return [
      h('h1', { tabindex: -1 }, 'Figures'),
      h('p', { class: 'lead' }, `Of the last minutes, while this page has been open. ${last ? plural(last.workers, 'worker serves', 'workers serve') + ' this database.' : 'They cannot be read yet, or not by you.'}`),
      h('div', { class: 'charts' },
        chart('Messages handled', of('rate'), (v) => `${v < 10 ? v.toFixed(1) : Math.round(v)}/s`),
        chart('Messages waiting', of('pending'), (v) => String(v)),
        chart('The oldest waits', of('oldest'), (v) => span(v)),
        chart('Processes that run', of('running'), (v) => String(v)),
        chart('A request takes', of('latency'), (v) => span(v), 'without those that wait for a command'),
        chart('A process took', took, (v) => span(v), sorted.length ? `of the last ${sorted.length}: half under ${span(at(sorted, 0.5))}, 95 % under ${span(at(sorted, 0.95))}` : 'none has ended yet')),
      services.length ? h('section', { 'aria-labelledby': 'services' }, h('h2', { id: 'services' }, 'Services'), h('table', { class: 'stack' },
        h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'Service'), ['Handled', 'Failed', 'Tried again', 'Gave up', 'Waiting'].map((t) => h('th', { scope: 'col', class: 'number' }, t)))),
        h('tbody', {}, services.map((service) => h('tr', { 'data-key': service }, h('th', { scope: 'row' }, service),
          [['Handled', 'voiding_messages_handled_total'], ['Failed', 'voiding_messages_failed_total'], ['Tried again', 'voiding_messages_retried_total'], ['Gave up', 'voiding_messages_dead_total'], ['Waiting', 'voiding_pending']]
            .map(([label, n]) => h('td', { class: 'number', 'data-label': label }, value(service, n)))))))) : null,
    ];
  },
};
