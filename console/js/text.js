// text.js: how things are written for people.
import { h } from './dom.js';

// MarkingDocumentAsVoidedFailed, acknowledge_voiding_failure: as words
export function words(name) {
  const text = String(name ?? '').replace(/_/g, ' ').replace(/([a-z0-9])([A-Z])/g, '$1 $2').toLowerCase();
  return text.charAt(0).toUpperCase() + text.slice(1);
}

export function money(amount, currency) {
  try {
    return new Intl.NumberFormat(undefined, { style: 'currency', currency }).format(amount);
  } catch {
    return `${amount} ${currency ?? ''}`;
  }
}

export const plural = (n, one, many = one + 's') => `${n} ${n === 1 ? one : many}`;

export function span(seconds) {
  if (seconds < 1) return `${Math.max(Math.round(seconds * 1000), 0)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

export const since = (time) => span(Math.max(Math.floor((Date.now() - new Date(time)) / 1000), 1));

// PT1H as "1 h"
export const duration = (iso) => iso.replace(/^@?P(?:(\d+)D)?T?(?:(\d+)H)?(?:(\d+)M)?(?:([\d.]+)S)?$/,
  (_, d, hours, m, sec) => [d && `${d} d`, hours && `${hours} h`, m && `${m} min`, sec && `${sec} s`].filter(Boolean).join(' '));

const clock = new Intl.DateTimeFormat(undefined, { timeStyle: 'medium' });
const moment = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit', fractionalSecondDigits: 3 });
const day = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'short' });

export function at(time, exact = false) {
  if (!time) return '';
  const date = new Date(time);
  const text = date.toDateString() === new Date().toDateString() ? (exact ? moment : clock).format(date) : day.format(date);
  return h('time', { datetime: date.toISOString(), title: date.toISOString() }, text);
}

export const age = (time) => h('time', { datetime: time, 'data-age': true, title: time }, since(time));

const KINDS = { failed: /failed|fail|cancelled|expired|dead/i, good: /^(voided|processed|completed|published|DocumentVoided)$|acknowledged/i,
  busy: /request|reserved|accepted|running|succeeded|claimed|progress|suspended/i };

// a state with a colour, and always with its name
export function pill(state, kind) {
  const of = kind ?? Object.keys(KINDS).find((k) => KINDS[k].test(state)) ?? 'plain';
  return h('span', { class: `pill ${of}`, 'data-state': state }, words(state));
}

export const json = (data) => h('pre', { tabindex: 0, role: 'region', 'aria-label': 'Data' }, JSON.stringify(data, null, 2));

// the members of an object, for people
export function facts(data) {
  return h('dl', { class: 'facts' }, Object.entries(data ?? {}).filter(([, v]) => v != null).map(([k, v]) =>
    h('div', {}, h('dt', {}, words(k)), h('dd', {}, typeof v === 'object' ? JSON.stringify(v) : /^\d{4}-\d\d-\d\dT/.test(v) ? at(v) : String(v)))));
}
