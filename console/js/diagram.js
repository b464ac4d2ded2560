// diagram.js: a process type as a state diagram, with the path of one process
// lit. States are in layers, by their distance from the start, from the top down.
import { h, s } from './dom.js';
import { duration, words } from './text.js';

const WIDTH = 190, HEIGHT = 58, ACROSS = 46, DOWN = 62, MARGIN = 14;

// a few lines of words that fit
function lines(text, most = 24) {
  const out = [''];
  for (const word of text.split(' ')) {
    const last = out[out.length - 1];
    if (last && last.length + word.length + 1 > most) out.push(word);
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

// The longest way from the start, but no way is gone in a circle.
function layersOf(ways) {
  const layer = new Map([['(start)', 0]]);
  const visit = (state, trail) => {
    for (const { to } of ways.filter((w) => w.from === state)) {
      if (trail.includes(to) || (layer.get(to) ?? -1) >= trail.length) continue;
      layer.set(to, trail.length);
      visit(to, [...trail, to]);
    }
  };
  visit('(start)', ['(start)']);
  return layer;
}

function place(type, ways) {
  const layer = layersOf(ways);
  for (const { name } of type.states) if (!layer.has(name)) layer.set(name, Math.max(...layer.values()) + 1);
  const rows = [];
  for (const [state, n] of layer) (rows[n] ??= []).push(state);
  const order = new Map();
  for (const row of rows.filter(Boolean)) { // below those that lead there
    const weight = (state) => {
      const above = ways.filter((w) => w.to === state && order.has(w.from)).map((w) => order.get(w.from));
      return above.length ? above.reduce((a, b) => a + b) / above.length : 0;
    };
    row.sort((a, b) => weight(a) - weight(b) || (a < b ? -1 : 1)).forEach((state, i) => order.set(state, i - (row.length - 1) / 2));
  }
  const widest = Math.max(...rows.filter(Boolean).map((r) => r.length));
  const width = Math.max(widest * (WIDTH + ACROSS) - ACROSS, WIDTH + 2 * 110) + 2 * MARGIN;
  const at = new Map();
  rows.filter(Boolean).forEach((row, n) => row.forEach((state) => at.set(state, { n,
    x: width / 2 + order.get(state) * (WIDTH + ACROSS), y: n === 0 ? MARGIN + 8 : MARGIN + 8 + (n - 1) * (HEIGHT + DOWN) + 40 + HEIGHT / 2 })));
  return { at, width, height: MARGIN * 2 + 8 + (rows.filter(Boolean).length - 1) * (HEIGHT + DOWN) - DOWN + 40 };
}

function edge(way, at, lit, width) {
  const a = at.get(way.from), b = at.get(way.to);
  const top = way.from === '(start)' ? a.y + 7 : a.y + HEIGHT / 2;
  const bottom = b.y - HEIGHT / 2;
  const text = [...way.why];
  let path, label;

  if (b.n === a.n + 1) {
    const mid = (top + bottom) / 2;
    path = `M${a.x} ${top}C${a.x} ${mid} ${b.x} ${mid} ${b.x} ${bottom - 3}`;
    label = { x: (a.x + b.x) / 2, y: mid };
  } else { // past other layers, or back: round the outside
    const right = a.x + b.x >= width;
    const side = right ? Math.max(a.x, b.x) + WIDTH / 2 + 30 : Math.min(a.x, b.x) - WIDTH / 2 - 30;
    const out = right ? WIDTH / 2 : -WIDTH / 2;
    path = `M${a.x + out} ${a.y}C${side + (right ? 24 : -24)} ${a.y} ${side + (right ? 24 : -24)} ${b.y} ${b.x + out + (right ? 3 : -3)} ${b.y}`;
    label = { x: side + (right ? 8 : -8), y: (a.y + b.y) / 2 };
  }
  return { path: s('path', { d: path, class: lit ? 'way lit' : 'way', 'marker-end': lit ? 'url(#lit)' : 'url(#arrow)' }),
    label: text.length ? s('text', { x: label.x, y: label.y - (text.length - 1) * 7 + 4, class: lit ? 'why lit' : 'why' }, text.map((t, i) => s('tspan', { x: label.x, dy: i ? 14 : 0 }, t))) : null };
}

function box(state, { x, y }, kind) {
  const text = lines(words(state.name));
  return s('g', { class: `node ${state.kind} ${kind}`, 'data-state': state.name, 'data-lit': kind || null },
    s('rect', { x: x - WIDTH / 2, y: y - HEIGHT / 2, width: WIDTH, height: HEIGHT, rx: state.kind === 'final' ? HEIGHT / 2 : 10 }),
    s('text', { x, y: y - (text.length - 1) * 8 + 4.5 }, text.map((t, i) => s('tspan', { x, dy: i ? 16 : 0 }, t))));
}

const head = (id) => s('marker', { id, viewBox: '0 0 8 8', refX: 6, refY: 4, markerWidth: 8, markerHeight: 8, orient: 'auto-start-reverse', markerUnits: 'userSpaceOnUse', class: id }, s('path', { d: 'M0 0L8 4L0 8z' }));

export function diagram(type, p) {
  const ways = waysOf(type);
  const { at, width, height } = place(type, ways);
  const steps = p.history.filter((e) => e.to_state && e.to_state !== e.from_state);
  const gone = new Set(steps.map((e) => `${e.from_state ?? '(start)'} ${e.to_state}`));
  const been = new Set(steps.map((e) => e.to_state));
  const edges = ways.map((w) => edge(w, at, gone.has(`${w.from} ${w.to}`), width));
  const said = `State diagram of ${words(type.type)}. The path so far: ${steps.map((e) => words(e.to_state)).join(', then ') || 'none'}.`;

  return h('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'State diagram' },
    s('svg', { viewBox: `0 0 ${width} ${height}`, width, height, class: 'diagram', role: 'img', 'aria-label': said },
      s('defs', {}, head('arrow'), head('lit')),
      edges.map((e) => e.path),
      s('circle', { cx: at.get('(start)').x, cy: at.get('(start)').y, r: 7, class: 'start' }),
      type.states.map((state) => box(state, at.get(state.name), state.name === p.state ? 'present' : been.has(state.name) ? 'passed' : '')),
      edges.map((e) => e.label)));
}
