// clients.js URL: plays with a gateway as fetch and EventSource of others do,
// and has its OpenAPI document validated. A line for each thing that holds, in
// TAP; the exit status is 0 if all do.
import { EventSource } from 'eventsource';
import { Validator } from '@seriousme/openapi-schema-validator';

const base = process.argv[2];
let n = 0, bad = 0;

function ok(right, name, more) {
  console.log(`${right ? 'ok' : 'not ok'} ${++n} - ${name}`);
  if (!right) { bad++; console.log('# ' + JSON.stringify(more)); }
}

function post(type, data, headers = {}) {
  return fetch(`${base}/commands/${type}`,
    { method: 'POST', headers: { 'Content-Type': 'application/json', ...headers }, body: JSON.stringify(data) });
}

// resolves with what get() returns, as soon as that is something
async function until(get, ms = 30000) {
  for (const end = Date.now() + ms; Date.now() < end; await new Promise(done => setTimeout(done, 10))) {
    const found = get();
    if (found) return found;
  }
}

function listen(path) {
  const source = new EventSource(base + path);
  source.heard = [];
  source.started = source.errors = 0;
  source.addEventListener('start', () => source.started++);
  source.onmessage = e => source.heard.push(JSON.parse(e.data));
  source.onerror = () => source.errors++;
  return source;
}

async function openapi() {
  const answer = await fetch(base + '/openapi.json');
  const result = await new Validator().validate(await answer.json());
  ok(result.valid, 'the OpenAPI document is valid', result.errors);
}

async function command() {
  const events = listen('/events'), commands = listen('/commands/events');
  ok(await until(() => events.started && commands.started), 'EventSource: two streams begin');
  const accepted = await post('IssueDocument', { document_id: 'N1', customer_id: 'C', amount: 12.5 });
  ok(accepted.status === 202, 'fetch: accepted', accepted.status);
  const status = listen(accepted.headers.get('location') + '/events');
  ok(await until(() => status.heard.find(s => s.status === 'processed')), 'EventSource: the stream of a command tells its end');
  ok(await until(() => status.readyState === EventSource.CLOSED), 'EventSource: and does not connect for ever');
  const resource = await fetch(base + status.heard.at(-1).resource);
  ok(resource.status === 200 && (await resource.json()).amount === 12.5, 'fetch: the resource is there');
  const whole = await post('VoidDocument', { document_id: 'N1' }, { Prefer: 'return=representation' });
  ok((await whole.json()).status === 'voided', 'fetch: return=representation');
  ok(await until(() => events.heard.find(e => e.type === 'DocumentVoided' && e.subject === 'N1')), 'EventSource: the event comes');
  ok(await until(() => commands.heard.find(c => c.type === 'VoidDocument' && c.status === 'processed')), 'EventSource: the command comes');
  commands.close();
  return events;
}

// the caller kills the gateway's streams between these; see gateway_clients.pl
async function resume(events) {
  console.log('# ready');
  ok(await until(() => events.errors > 0), 'EventSource: the gateway goes away', events.errors);
  ok(await until(() => events.heard.filter(e => /^R/.test(e.subject) && e.type === 'DocumentIssued').length === 5, 60000),
    'EventSource: comes again by itself, and has lost nothing', events.heard.map(e => e.subject));
  const ids = events.heard.map(e => e.id);
  ok(new Set(ids).size === ids.length, 'EventSource: nothing came twice');
  events.close();
}

await openapi();
await resume(await command());
console.log(`1..${n}`);
process.exit(bad ? 1 : 0);
