// dom.js: elements, and how a page becomes another one without losing what the
// reader is doing in it: focus, what is open, what is being typed.

const SVG = 'http://www.w3.org/2000/svg';

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === true) node.setAttribute(name, '');
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((c) => c != null && c !== false));
  return node;
}

export const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
export const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

const key = (node) => (node.nodeType === 1 ? node.getAttribute('data-key') : null);

function patch(have, want) {
  if (have.nodeType !== 1) {
    if (have.nodeValue !== want.nodeValue) have.nodeValue = want.nodeValue;
    return;
  }
  if (have.hasAttribute('data-keep') && want.hasAttribute('data-keep')) return; // somebody types in it
  for (const { name } of [...have.attributes]) {
    if (!want.hasAttribute(name) && !(name === 'open' && have.localName === 'details')) have.removeAttribute(name);
  }
  for (const { name, value } of want.attributes) {
    if (have.getAttribute(name) !== value) have.setAttribute(name, value);
  }
  morph(have, want);
}

// The children of have become those of want. What has the same data-key stays
// the same element, and so does what is of the same kind at the same place.
export function morph(have, want) {
  const wanted = new Set([...want.childNodes].map(key).filter(Boolean));
  for (const child of [...have.childNodes]) if (key(child) && !wanted.has(key(child))) child.remove();
  const keyed = new Map([...have.childNodes].filter(key).map((c) => [key(c), c]));
  let at = have.firstChild;

  for (const next of [...want.childNodes]) {
    const fits = at && !key(at) && !key(next) && at.nodeType === next.nodeType && at.nodeName === next.nodeName;
    const same = key(next) ? keyed.get(key(next)) : fits ? at : null;
    if (!same) {
      have.insertBefore(next, at);
      continue;
    }
    if (same === at) at = at.nextSibling;
    else have.insertBefore(same, at);
    patch(same, next);
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}
