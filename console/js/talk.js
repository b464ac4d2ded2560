// talk.js: what the page asks and says: one dialog, and notes that go away.
import { h } from './dom.js';

const dialog = document.getElementById('dialog');
const toasts = document.getElementById('toasts');
const NOTE = 9000; // ms

export function toast(text, kind = 'plain', link) {
  const note = h('p', { class: `toast ${kind}` }, h('span', {}, text), link ? h('a', { href: link.href }, link.text) : null);
  toasts.append(note);
  while (toasts.childElementCount > 4) toasts.firstElementChild.remove();
  setTimeout(() => note.remove(), NOTE);
}

function field({ name, label, hint, required, value, type }) {
  const id = `field-${name}`;
  const common = { id, name, required, 'aria-describedby': hint ? `${id}-hint` : null, autocomplete: 'off' };
  return h('p', { class: 'field' }, h('label', { for: id }, label, required ? null : h('span', { class: 'muted' }, ' (optional)')),
    type === 'long' ? h('textarea', { ...common, rows: 4 }, value ?? '')
      : h('input', { ...common, value, inputmode: type === 'number' ? 'decimal' : null, pattern: type === 'number' ? '[0-9]+([.][0-9]+)?' : null }),
    hint ? h('span', { class: 'muted', id: `${id}-hint` }, hint) : null);
}

// What was put in, by name; null where it was dismissed. One asks after the other.
export async function askFor({ title, text, fields = [], button, danger }) {
  while (dialog.open) await new Promise((closed) => dialog.addEventListener('close', closed, { once: true }));
  return new Promise((answer) => {
    dialog.replaceChildren(h('form', {}, h('h2', { id: 'dialog-title' }, title), text ? h('p', {}, text) : null, fields.map(field),
      h('p', { class: 'buttons' }, h('button', { type: 'button', class: 'quiet' }, 'Not now'), h('button', { class: danger ? 'danger' : 'main' }, button))));
    const form = dialog.firstElementChild;
    let given = null;
    form.addEventListener('submit', () => {
      given = Object.fromEntries(new FormData(form));
      dialog.close();
    });
    form.querySelector('[type=button]').addEventListener('click', () => dialog.close());
    dialog.addEventListener('close', () => answer(given), { once: true });
    dialog.showModal();
    form.querySelector('input, textarea, select, button.main, button.danger')?.focus();
  });
}
