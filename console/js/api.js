// api.js: requests, the token if there is one, and the stream of events.

let token = sessionStorage.getItem('token');

export function signIn(text) {
  token = text;
  sessionStorage.setItem('token', text);
}

export class Problem extends Error {
  constructor(status, problem) {
    super(problem?.detail ?? problem?.title ?? `The server says ${status}.`);
    this.status = status;
    this.problem = problem ?? {};
  }
}

const headersOf = (more) => ({ ...(token ? { Authorization: `Bearer ${token}` } : {}), ...more });

async function fetched(method, path, body, headers = {}) {
  let answer;
  try {
    answer = await fetch(path, {
      method, cache: 'no-store',
      headers: headersOf(body === undefined ? headers : { 'Content-Type': 'application/json', ...headers }),
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw new Problem(0, { title: 'The server cannot be reached.' });
  }
  const text = await answer.text();
  const is = answer.headers.get('Content-Type') ?? '';
  const said = text && is.includes('json') ? JSON.parse(text) : text;
  if (!answer.ok) throw new Problem(answer.status, said || null);
  return { said, answer };
}

export const get = async (path) => (await fetched('GET', path)).said;
export const post = async (path, body, headers) => (await fetched('POST', path, body ?? {}, headers)).said;
export const part = (text) => encodeURIComponent(text);

// a page of a list, and the address of the next one if there is one
export async function page(path) {
  const { said, answer } = await fetched('GET', path);
  return { list: said, next: /<([^>]*)>; rel="next"/.exec(answer.headers.get('Link'))?.[1] };
}

// null where it is not there, or not for this caller; refused: what was
export async function may(path, refused) {
  try {
    return await get(path);
  } catch (error) {
    if (![403, 404].includes(error.status)) throw error;
    if (error.status === 403) refused?.push(error.message);
    return null;
  }
}

// ---- the stream ----

const SILENCE = 40000; // ms without a sign of life: the connection is dead

// Read /events for ever. told(event): something has happened; anew(): from here
// on nothing is missed, what came before is to be read; state(text).
export async function follow({ told, anew, state }) {
  let last = null;
  let wait = 500;

  for (;;) {
    const abort = new AbortController();
    let timer = setTimeout(() => abort.abort(), SILENCE);
    try {
      const answer = await fetch('/events', { signal: abort.signal, cache: 'no-store',
        headers: headersOf({ Accept: 'text/event-stream', ...(last ? { 'Last-Event-ID': last } : {}) }) });
      if (!answer.ok) throw new Problem(answer.status, await answer.json().catch(() => null));
      state('live');
      wait = 500;
      if (last) anew();
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = '';
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        clearTimeout(timer);
        timer = setTimeout(() => abort.abort(), SILENCE);
        text += value.replace(/\r/g, '');
        for (let end; (end = text.indexOf('\n\n')) >= 0; text = text.slice(end + 2)) {
          const said = Object.fromEntries(text.slice(0, end).split('\n').map((line) => line.split(/: ?(.*)/s).slice(0, 2)));
          if (said.id) last = said.id;
          if (said.event) anew();
          else if (said.data) told(JSON.parse(said.data));
        }
      }
    } catch (error) {
      if (error.status === 403 || error.status === 401) {
        state(error.status === 401 ? 'signed out' : 'by the clock', error);
        wait = 5000;
      }
    } finally {
      clearTimeout(timer);
      abort.abort();
    }
    if (wait < 5000) state('reconnecting');
    await new Promise((go) => setTimeout(go, wait));
    wait = Math.min(wait * 1.5, 5000);
  }
}

// ---- figures ----

// OpenMetrics as a list of { name, labels, value }
export async function metrics() {
  return (await get('/metrics')).split('\n').filter((line) => line && !line.startsWith('#')).map((line) => {
    const [, name, labels, value] = line.match(/^([a-z_]+)(?:\{(.*)\})? (\S+)$/i) ?? [];
    return { name, value: Number(value), labels: Object.fromEntries([...(labels ?? '').matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map((m) => [m[1], m[2]])) };
  }).filter((m) => m.name);
}
