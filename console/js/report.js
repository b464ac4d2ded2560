// report.js: reports with their documents and totals; one document.
import { h } from './dom.js';
import { get, may, page, part } from './api.js';
import { at, facts, money, pill, plural, words } from './text.js';
import { askFor } from './talk.js';
import { send } from './command.js';
import { processParts, processView, stateOf } from './process.js';

const SHOWN = 40;
let customer = '';
let pages = []; // addresses of those behind the first, to the one that is shown
let first = null; // the one that is shown where none is named: it does not change under the reader

const row = (r, chosen) => h('li', { 'data-key': `r${r.report_id}` },
  h('a', { href: `#/reports/${r.report_id}`, class: 'choice', 'aria-current': r.report_id === chosen ? 'true' : null },
    h('span', { class: 'what' }, r.customer_id), h('span', { class: 'sum' }, money(r.total, r.currency)),
    h('span', { class: 'muted' }, `Report ${r.report_id}`), pill(r.status, r.status === 'open' ? 'plain' : 'good')));

const line = (l, r) => h('tr', { 'data-key': l.document_id },
  h('th', { scope: 'row' }, h('a', { href: `#/documents/${part(l.document_id)}` }, l.document_id)),
  h('td', { 'data-label': 'Status' }, pill(l.status, l.status === 'included' ? 'plain' : null)),
  h('td', { class: 'number', 'data-label': 'Amount' }, money(l.amount, r.currency)),
  h('td', { class: 'act' }, h('button', { 'data-do': 'void', 'data-document': l.document_id, 'aria-label': `Void ${l.document_id}` }, 'Void')));

const report = (r) => h('section', { 'aria-labelledby': 'report', class: 'card', 'data-key': `report${r.report_id}` },
  h('header', {}, h('div', {}, h('h2', { id: 'report' }, r.customer_id),
    h('p', { class: 'muted' }, `Report ${r.report_id}, `, r.status === 'published' ? ['published ', at(r.published_at)] : ['open since ', at(r.opened_at)])),
  h('p', { class: 'total' }, money(r.total, r.currency), h('span', { class: 'muted' }, plural(r.lines.length, 'document')))),
  r.status === 'open' ? h('p', { class: 'buttons left' }, h('button', { class: 'main', disabled: r.lines.length === 0, 'data-do': 'publish', 'data-customer': r.customer_id,
    'data-currency': r.currency, 'data-total': money(r.total, r.currency) }, 'Publish this report')) : h('p', {}, pill('published'), ' A void of its documents comes too late.'),
  r.lines.length === 0 ? h('p', { class: 'empty' }, 'There is no document in it.')
    : h('table', { class: 'stack' }, h('caption', { class: 'hidden' }, `Documents of report ${r.report_id}`),
      h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'Document'), h('th', { scope: 'col' }, 'Status'), h('th', { scope: 'col', class: 'number' }, 'Amount'), h('td', {}))),
      h('tbody', {}, r.lines.map((l) => line(l, r)))));

export const reports = {
  name: 'reports',
  title: () => 'Reports',
  async load([id]) {
    const { list, next } = await page(pages.at(-1) ?? `/reports?batch_size=${SHOWN}${customer ? `&customer_id=${part(customer)}` : ''}`);
    if (!list.some((r) => r.report_id === first)) first = list[0]?.report_id;
    const chosen = id ?? first;
    return { list, next, one: chosen ? await may(`/reports/${part(chosen)}`) : null };
  },
  render: ({ list, next, one }) => [
    h('div', { class: 'title' }, h('h1', { tabindex: -1 }, 'Reports'),
      h('form', { 'data-do': 'find', role: 'search', 'data-keep': true }, h('label', { for: 'find', class: 'hidden' }, 'Document or customer'),
        h('input', { id: 'find', name: 'find', type: 'search', placeholder: 'Document or customer', autocomplete: 'off' }), h('button', {}, 'Find')),
      h('button', { class: 'main', 'data-do': 'issue' }, 'Issue a document')),
    customer ? h('p', {}, `Of ${customer} only. `, h('button', { 'data-do': 'all' }, 'Show all customers')) : null,
    list.length === 0 ? h('p', { class: 'empty' }, 'There is no report yet. Issue a document: it goes into its customer’s open report.')
      : h('div', { class: 'split' },
        h('nav', { 'aria-label': 'Reports, latest first' }, h('ul', { class: 'choices' }, list.map((r) => row(r, one?.report_id))),
          h('p', { class: 'buttons' }, pages.length ? h('button', { 'data-do': 'newer', 'data-key': 'newer' }, 'Newer') : null,
            next ? h('button', { 'data-do': 'older', 'data-key': 'older', 'data-page': next }, 'Older') : null)),
        one ? report(one) : h('p', { class: 'empty' }, 'There is no such report.')),
  ],
  actions: {
    async find(_, form) {
      const text = form.elements.find.value.trim();
      if (!text) return null;
      if (await may(`/documents/${part(text)}`)) {
        location.hash = `#/documents/${part(text)}`;
        return null;
      }
      if ((await get(`/reports?customer_id=${part(text)}&batch_size=1`)).length === 0) return `There is no document and no customer "${text}".`;
      customer = text;
      pages = [];
      location.hash = '#/reports';
      return null;
    },
    all() {
      customer = '';
      pages = [];
    },
    older({ page: next }) {
      pages.push(next);
    },
    newer() {
      pages.pop();
    },
    async issue() {
      const d = await askFor({ title: 'Issue a document', button: 'Issue', fields: [
        { name: 'document_id', label: 'Document', required: true }, { name: 'customer_id', label: 'Customer', required: true, value: customer },
        { name: 'amount', label: 'Amount', required: true, type: 'number' },
        { name: 'currency', label: 'Currency', value: 'EUR', required: true }] });
      if (!d) return null;
      await send('IssueDocument', { ...d, amount: Number(d.amount) }, `Issue ${d.document_id}`);
      return null;
    },
    async publish({ customer: id, currency, total }) {
      if (!await askFor({ title: `Publish the report of ${id}?`, text: `It says ${total}. Its documents cannot be voided any more.`, button: 'Publish' })) return null;
      await send('PublishReport', { customer_id: id, currency }, `Publish ${id}`);
      return null;
    },
    async void({ document: id }) {
      const d = await askFor({ title: `Void ${id}?`, button: 'Void', danger: true, fields: [{ name: 'reason', label: 'Reason' }] });
      if (!d) return null;
      await send('VoidDocument', { document_id: id, ...(d.reason ? { reason: d.reason } : {}) }, `Void ${id}`);
      location.hash = `#/documents/${part(id)}`;
      return null;
    },
  },
};

export const documents = {
  name: 'documents',
  within: 'reports',
  title: ([id]) => `Document ${id}`,
  async load([id]) {
    const refused = [];
    const document = await may(`/documents/${part(id)}`, refused);
    const [running, ended] = await Promise.all([`/processes?key=${part(id)}`, `/processes?ended=true&key=${part(id)}`].map((p) => may(p, refused)));
    const processes = [...(running?.processes ?? []), ...(ended?.processes ?? [])].sort((a, b) => (a.process_id < b.process_id ? 1 : -1));
    return { document, processes, refused, latest: processes[0] ? await processParts(processes[0].process_id) : null };
  },
  render: ({ document: d, processes, refused, latest }, [id]) => [
    h('p', { class: 'back' }, h('a', { href: '#/reports' }, 'All reports')),
    h('div', { class: 'title' }, h('h1', { tabindex: -1 }, `Document ${id}`), d ? pill(d.status, d.status === 'issued' ? 'plain' : null) : null,
      d?.status === 'issued' ? h('button', { 'data-do': 'void', 'data-document': id, class: 'danger' }, 'Void') : null),
    d ? facts({ customer: d.customer_id, kind: d.kind, amount: money(d.amount, d.currency), issued: d.issued_at, reason: d.void_reason, requested_by: d.requested_by, voided: d.voided_at })
      : h('p', { class: 'empty' }, 'It is not there, or not yet.'),
    latest ? processView(latest, 'h2') : h('p', { class: refused.length ? 'refusal' : 'empty' }, refused[0] ?? 'Nobody has asked to void it.'),
    processes.length > 1 ? h('section', {}, h('h2', {}, 'Earlier'), h('ul', {}, processes.slice(1).map((p) =>
      h('li', {}, h('a', { href: `#/processes/${p.process_id}` }, words(p.type)), ' ', stateOf(p), ' ', at(p.started_at))))) : null,
  ],
};
