// main.js: which room is shown, when it is read again, and who acts on a click.
//
// A room is { name, title(path), load(path), render(data, path), actions }. What it
// shows is read from the server each time; nothing is kept here that a reload
// would lose, but for the figures of the last minutes.
import { h, morph } from './dom.js';
import { follow, may, Problem, signIn } from './api.js';
import { since } from './text.js';
import { askFor, toast } from './talk.js';
import { figures, sample } from './chart.js';
import { openCommands, commands } from './command.js';
import { reports, documents } from './report.js';
import { processes } from './process.js';
import { tasks } from './task.js';
import { repair } from './repair.js';

const rooms = { reports, documents, processes, tasks, repair, commands, figures };
const main = document.getElementById('main');
const room = () => (path()[0] === 'documents' && path().length < 2 ? reports : rooms[path()[0]] ?? reports);

function path() {
  try {
    return location.hash.replace(/^#\/?/, '').split('/').filter(Boolean).map(decodeURIComponent);
  } catch { // not the encoding of URLs
    return [];
  }
}

// ---- reading ----

let reading = null;
let again = false;

// Read and show the room. Asked while it reads, it reads once more: what is
// shown at the end is no older than the last time it was asked. A page that
// nobody sees waits until it is seen.
export function refresh() {
  again = true;
  reading ??= (async () => {
    while (again && !document.hidden) {
      again = false;
      const where = location.hash;
      const began = performance.now();
      try {
        const data = await room().load(path().slice(1));
        if (where === location.hash) show(room().render(data, path().slice(1)));
        else again = true;
      } catch (error) {
        fault(error);
      }
      navigation();
      // rest at least as long as it took: a slow server is not asked more for that
      await new Promise((go) => setTimeout(go, Math.min(Math.max(150, performance.now() - began), 3000)));
    }
    reading = null;
  })();
  return reading;
}

let arriving = false; // in a room: its heading is read first, once

function show(nodes) {
  const inside = main.contains(document.activeElement);
  morph(main, h('main', {}, nodes));
  main.removeAttribute('aria-busy');
  // where somebody arrives, and where what had the focus is gone
  if (arriving || inside && !main.contains(document.activeElement)) main.querySelector('h1')?.focus({ preventScroll: true });
  if (arriving) scrollTo(0, 0);
  arriving = false;
}

function fault(error) {
  if (!(error instanceof Problem)) throw error;
  if (error.status === 401) return signedOut();
  if (error.status === 0 || error.status === 503) {
    state('reconnecting');
    if (!main.querySelector('h1')) show([h('h1', { tabindex: -1 }, room().title(path().slice(1))), h('p', { class: 'empty' }, 'Waiting for the server.')]);
    return null;
  }
  return show([h('h1', { tabindex: -1 }, room().title(path().slice(1))), h('p', { class: 'empty' }, error.status === 404 ? 'There is nothing here.' : error.message)]);
}

// ---- where we are ----

let counts = {};
const links = [['reports', 'Reports'], ['processes', 'Processes'], ['tasks', 'Tasks'], ['repair', 'Repair'], ['commands', 'Commands'], ['figures', 'Figures']];

function navigation() {
  const here = room().within ?? room().name;
  morph(document.getElementById('nav'), h('nav', {}, h('ul', {}, links.map(([name, text]) => h('li', {},
    h('a', { href: `#/${name}`, 'aria-current': name === here ? 'page' : null }, text,
      counts[name] ? h('span', { class: 'count' }, h('span', { class: 'hidden' }, ', '), String(counts[name]), h('span', { class: 'hidden' }, ' to look at')) : null))))));
}

// on a phone the rooms are a row that scrolls. Some browsers let Tab go on from
// what scrollIntoView() has shown, and past the link to the content
function keepInSight(link) {
  if (!link) return;
  const nav = document.getElementById('nav');
  const [row, here] = [nav, link].map((e) => e.getBoundingClientRect());
  nav.scrollLeft += here.left - row.left - (row.width - here.width) / 2;
}

function go(event) {
  arriving = Boolean(event);
  main.setAttribute('aria-busy', 'true');
  document.title = `${room().title(path().slice(1))} - voiding`;
  navigation();
  keepInSight(document.querySelector('#nav [aria-current]'));
  refresh();
}

// ---- acting ----

document.addEventListener('click', (event) => {
  const button = event.target.closest?.('[data-do]');
  if (button && button.localName !== 'form') act(button.dataset.do, button, event);
});

document.addEventListener('submit', (event) => {
  event.preventDefault();
  if (event.target.dataset.do) act(event.target.dataset.do, event.target, event);
});

async function act(name, element, event) {
  if (name === 'skip') {
    event.preventDefault();
    return main.focus();
  }
  if (name === 'sign-in') return askToken();
  const action = Object.values(rooms).map((r) => r.actions?.[name]).find(Boolean);
  if (!action) return;
  try {
    const said = await action(element.dataset, element);
    if (said) toast(said);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (error.status === 401) await signedOut();
    else toast([error.message, error.problem.hint].filter(Boolean).join(' '), 'failed');
  }
  refresh();
}

// ---- who we are ----

let asking = false;
let dismissed = false; // it is not asked again and again

function signedOut() {
  show([h('h1', { tabindex: -1 }, room().title(path().slice(1))), h('p', { class: 'empty' }, 'You are not signed in.'),
    h('p', { class: 'buttons left' }, h('button', { class: 'main', 'data-do': 'sign-in' }, 'Sign in'))]);
  return dismissed ? null : askToken();
}

async function askToken() {
  if (asking) return;
  asking = true;
  const given = await askFor({ title: 'Who are you?', text: 'This server wants a token (JWT). It is kept until this window is closed.', button: 'Sign in',
    fields: [{ name: 'token', label: 'Token', required: true }] });
  asking = false;
  dismissed = !given;
  if (given) {
    signIn(given.token.trim());
    refresh();
  }
}

// ---- live ----

function state(text, error) {
  document.getElementById('live').dataset.state = text;
  document.getElementById('live-text').textContent = text;
  if (error?.status === 401) signedOut();
}

// what no event tells of (a report has taken a document in, a message gave up)
// shows in the counters
let handled = null;
async function tick() {
  try {
    const now = await sample();
    if (handled !== now.stamp) {
      const failed = await may('/processes?failed=true&limit=100');
      counts = { processes: failed?.processes.length, repair: now.dead };
      navigation();
    }
    if (handled !== null && handled !== now.stamp || room().name === 'figures') refresh();
    handled = now.stamp;
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (error.status === 403 && document.getElementById('live').dataset.state === 'by the clock') refresh();
  }
  await openCommands(toast);
  setTimeout(tick, 2000);
}

setInterval(() => {
  for (const time of document.querySelectorAll('[data-age]')) {
    const text = since(time.getAttribute('datetime'));
    if (time.textContent !== text) time.textContent = text;
  }
}, 1000);

document.addEventListener('visibilitychange', () => again && refresh());
addEventListener('hashchange', go);
go();
tick();
follow({ told: () => { refresh(); openCommands(toast); }, anew: refresh, state });
