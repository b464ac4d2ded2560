// diagram.js: a process type as a state diagram, with the path of one process
// lit. States are in layers, by their distance from the start, from the top down.
import { h, s } from './dom.js';
import { duration, words } from './text.js';

const WIDE = { WIDTH: 190, ACROSS: 92, LETTERS: 24 }, NARROW = { WIDTH: 142, ACROSS: 58, LETTERS: 18 }; // a phone
const HEIGHT = 58, DOWN = 62, START = 34, MARGIN = 14;
let { WIDTH, ACROSS, LETTERS } = WIDE;

// a few lines of words that fit
function lines(text) {
  const out = [''];
  for (const word of text.split(' ')) {
    const last = out[out.length - 1];
    if (last && last.length + word.length + 1 > LETTERS) out.push(word);
    else out[out.length - 1] = last ? `${last} ${word}` : word;
  }
  return out;
}

// what it takes, where that is not said by the state that it leads to
function reason(t) {
  if (t.trigger === 'after') return `after ${duration(t.name)}`;
  if (t.trigger === 'onError') return 'on error';
  if (t.trigger === 'onDone') return 'when done';
  if (t.trigger === 'always') return t.guard ? 'if so' : '';
  return t.name === t.to_state ? '' : words(t.name);
}

// ways from one state to another, all that lead there in one
function waysOf(type) {
  const ways = new Map();
  for (const t of type.transitions) {
    if (!t.to_state || t.to_state === t.from_state) continue;
    const key = `${t.from_state} ${t.to_state}`;
    const way = ways.get(key) ?? { from: t.from_state, to: t.to_state, why: new Set() };
    if (reason(t)) way.why.add(reason(t));
    ways.set(key, way);
  }
  return [...ways.values()];
}

// How many steps it is from the start.
function layersOf(type, ways) {
  const layer = new Map([['(start)', 0]]);
  for (const state of layer.keys()) {
    for (const { to } of ways.filter((w) => w.from === state && !layer.has(w.to))) layer.set(to, layer.get(state) + 1);
  }
  const last = Math.max(...layer.values());
  for (const { name } of type.states) if (!layer.has(name)) layer.set(name, last + 1);
  return layer;
}

function place(type, ways) {
  const layer = layersOf(type, ways);
  const rows = [];
  for (const [state, n] of layer) (rows[n] ??= []).push(state);
  const order = new Map();
  const fails = (state) => Number(type.states.find((x) => x.name === state)?.kind === 'failed');
  for (const row of rows) { // below those that lead there, what fails on the right
    const weight = (state) => {
      const above = ways.filter((w) => w.to === state && order.has(w.from)).map((w) => order.get(w.from));
      return above.length ? above.reduce((a, b) => a + b) / above.length : 0;
    };
    const weights = new Map(row.map((state) => [state, weight(state)]));
    row.sort((a, b) => weights.get(a) - weights.get(b) || fails(a) - fails(b) || (a < b ? -1 : 1)).forEach((state, i) => order.set(state, i - (row.length - 1) / 2));
  }
  const side = ways.some((w) => layer.get(w.to) < layer.get(w.from)) ? 80 : MARGIN;
  const width = Math.max(...rows.map((r) => r.length)) * (WIDTH + ACROSS) - ACROSS + 2 * side;
  const at = new Map();
  rows.forEach((row, n) => row.forEach((state) => at.set(state, { n, i: order.get(state), x: width / 2 + order.get(state) * (WIDTH + ACROSS), right: width - side,
    y: n === 0 ? MARGIN + 7 : MARGIN + 7 + START + HEIGHT / 2 + (n - 1) * (HEIGHT + DOWN) })));
  return { at, width, height: 2 * MARGIN + 7 + START + (rows.length - 1) * (HEIGHT + DOWN) - DOWN };
}

// where it runs, and where its reason is written
function course(a, b) {
  const toRight = Math.sign(b.x - a.x);
  if (a.n === 0) return { path: `M${a.x} ${a.y + 7}C${a.x} ${a.y + 30} ${b.x} ${a.y + 20} ${b.x} ${b.y - HEIGHT / 2 - 3}`, x: a.x + 18, y: a.y + 4, start: true };
  if (b.n === a.n + 1) {
    const top = a.y + HEIGHT / 2, bottom = b.y - HEIGHT / 2 - 3, mid = (top + bottom) / 2;
    return { path: `M${a.x} ${top}C${a.x} ${mid} ${b.x} ${mid} ${b.x} ${bottom}`, x: (a.x + b.x) / 2, y: mid };
  }
  if (b.n === a.n && Math.abs(a.i - b.i) <= 1) {
    const y = a.y + 9 * toRight;
    return { path: `M${a.x + (WIDTH / 2) * toRight} ${y}L${b.x - (WIDTH / 2 + 3) * toRight} ${y}`, x: (a.x + b.x) / 2, y: y - 20 * toRight };
  }
  if (b.n === a.n) {
    const y = a.y - HEIGHT / 2;
    return { path: `M${a.x} ${y}C${a.x} ${y - 45} ${b.x} ${y - 45} ${b.x} ${y - 3}`, x: (a.x + b.x) / 2, y: y - 34 };
  }
  const out = a.right + 80; // back: round the outside
  return { path: `M${a.x + WIDTH / 2} ${a.y}C${out} ${a.y} ${out} ${b.y} ${b.x + WIDTH / 2 + 3} ${b.y}`, x: a.right + 38, y: (a.y + b.y) / 2 };
}

// The reason that is written at a way that was gone is the one that it was.
function edge(way, at, taken) {
  const { path, x, y, start } = course(at.get(way.from), at.get(way.to));
  const text = taken ? (taken.event && taken.event !== way.to ? [words(taken.event)] : []) : [...way.why];
  const lit = taken ? ' lit' : '';
  return { path: s('path', { d: path, class: `way${lit}`, 'marker-end': taken ? 'url(#lit)' : 'url(#arrow)' }),
    label: text.length ? s('text', { y: y - (text.length - 1) * 7 + 4, class: `why${lit}${start ? ' after' : ''}` }, text.map((t, i) => s('tspan', { x, dy: i ? 14 : 0 }, t))) : null };
}

function box(state, { x, y }, kind) {
  const text = lines(words(state.name));
  return s('g', { class: `node ${state.kind} ${kind}`, 'data-state': state.name, 'data-lit': kind || null },
    s('rect', { x: x - WIDTH / 2, y: y - HEIGHT / 2, width: WIDTH, height: HEIGHT, rx: state.kind === 'final' ? HEIGHT / 2 : 10 }),
    s('text', { x, y: y - (text.length - 1) * 8 + 4.5 }, text.map((t, i) => s('tspan', { x, dy: i ? 16 : 0 }, t))));
}

const head = (id) => s('marker', { id, viewBox: '0 0 8 8', refX: 6, refY: 4, markerWidth: 8, markerHeight: 8, orient: 'auto-start-reverse', markerUnits: 'userSpaceOnUse', class: id }, s('path', { d: 'M0 0L8 4L0 8z' }));

export function diagram(type, p) {
  ({ WIDTH, ACROSS, LETTERS } = matchMedia('(max-width: 44rem)').matches ? NARROW : WIDE);
  const ways = waysOf(type);
  const { at, width, height } = place(type, ways);
  const steps = p.history.filter((e) => e.to_state && e.to_state !== e.from_state);
  const taken = new Map(steps.map((e) => [`${e.from_state ?? '(start)'} ${e.to_state}`, e]));
  const been = new Set(steps.map((e) => e.to_state));
  const edges = ways.map((w) => edge(w, at, taken.get(`${w.from} ${w.to}`)));
  const said = `State diagram of ${words(type.type)}. The path so far: ${steps.map((e) => words(e.to_state)).join(', then ') || 'none'}.`;

  return h('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'State diagram' },
    s('svg', { viewBox: `0 0 ${width} ${height}`, width, height, class: 'diagram', role: 'img', 'aria-label': said },
      s('defs', {}, head('arrow'), head('lit')),
      edges.map((e) => e.path),
      s('circle', { cx: at.get('(start)').x, cy: at.get('(start)').y, r: 7, class: 'start' }),
      type.states.map((state) => box(state, at.get(state.name), state.name === p.state ? 'present' : been.has(state.name) ? 'passed' : '')),
      edges.map((e) => e.label)));
}
