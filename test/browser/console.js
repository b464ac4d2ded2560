// console.js URL TOKEN_URL FOLDER: plays with the console in Chromium. A line in
// TAP for each thing that holds; "# do WHAT" asks whoever started it for
// something outside the browser, and a line on stdin says that it is done.
// Screenshots go into FOLDER. The exit status is 0 if all holds.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { chromium } from 'playwright-core';

const [url, tokenUrl, folder] = process.argv.slice(2);
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const LIMIT = 20000;
const said = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const noise = [];
let n = 0, bad = 0;

function ok(right, name, more) {
  console.log(`${right ? 'ok' : 'not ok'} ${++n} - ${name}`);
  if (!right) { bad++; console.log('# ' + JSON.stringify(more ?? null)); }
}

// what get() returns, as soon as that is something
async function until(get, ms = LIMIT) {
  for (const end = Date.now() + ms; Date.now() < end; await new Promise((go) => setTimeout(go, 30))) {
    const found = await get();
    if (found) return found;
  }
  return null;
}

async function outside(what) {
  console.log(`# do ${what}`);
  return (await said.next()).value;
}

const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage'] });

async function open(where, options = {}) {
  const page = await (await browser.newContext({ viewport: { width: 1280, height: 860 }, locale: 'en-GB', timezoneId: 'UTC', ...options })).newPage();
  page.setDefaultTimeout(LIMIT);
  page.on('pageerror', (e) => noise.push(`error: ${e.stack}`));
  page.on('console', (m) => { if (m.type() === 'error' && !/ERR_CONNECTION|ERR_INCOMPLETE|ERR_EMPTY|status of (40[0-9]|50[0-9])/.test(m.text())) noise.push(m.text()); });
  page.on('request', (r) => { if (!r.url().startsWith(url) && !r.url().startsWith(tokenUrl)) noise.push(`asks ${r.url()}`); });
  await page.goto(where);
  return page;
}

const room = (page, hash) => page.evaluate((h) => { location.hash = h; }, hash);
const text = (page) => page.locator('main').innerText();
const has = (page, what, ms) => until(async () => (await text(page)).includes(what), ms);
const hasNot = (page, what) => until(async () => !(await text(page)).includes(what));
const shows = async (page, selector) => !!(await until(() => page.locator(selector).count()));
const live = (page) => until(async () => (await page.locator('#live').getAttribute('data-state')) === 'live');

// every state that is lit while the page is open
const record = (page) => page.evaluate(() => {
  window.states = [];
  const look = () => {
    const now = document.querySelector('.node.present')?.dataset.state;
    if (now && now !== window.states[window.states.length - 1]) window.states.push(now);
  };
  new MutationObserver(look).observe(document.body, { subtree: true, childList: true, attributes: true });
});

async function fill(page, fields, button) {
  for (const [label, value] of Object.entries(fields)) {
    await page.locator('#dialog').getByLabel(label, { exact: false }).first().fill(value);
  }
  await page.locator('#dialog').getByRole('button', { name: button, exact: true }).click();
}

async function issue(page, id, customer, amount) {
  await page.getByRole('button', { name: 'Issue a document' }).click();
  await fill(page, { Document: id, Customer: customer, Amount: amount }, 'Issue');
}

async function sound(page, name) {
  if (!(await page.evaluate('window.axe !== undefined'))) await page.evaluate(axe);
  const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
  ok(found.violations.length === 0 && found.passes.length > 10, `axe-core finds nothing wrong: ${name}`,
    found.violations.map((v) => [v.id, v.nodes.map((x) => [x.html.slice(0, 120), x.any[0]?.message])]));
}

// ---- the story ----

const a = await open(url);
const b = await open(`${url}/#/processes`);

async function issued() {
  ok(await has(a, 'There is no report yet'), 'nothing is there');
  ok(await live(a) && await live(b), 'both windows are live');
  await issue(a, 'D1', 'Acme', '120.50');
  ok(await has(a, 'D1') && await has(a, '€120.50'), 'a document that was issued here appears');
  await outside('issue D2 Acme 80');
  ok(await has(a, 'D2') && await has(a, '€200.50'), 'and one that was issued elsewhere, and the total with it');
  ok(await has(b, 'Nothing runs'), 'no process runs');
}

async function voided() {
  await record(a);
  await a.getByRole('button', { name: 'Void D1', exact: true }).click();
  await fill(a, { Reason: 'entered twice' }, 'Void');
  ok(await has(b, 'Voiding requested') && await has(b, 'Waits for'), 'the other window sees its process, and what it waits for');
  ok(await shows(a, '.node.present[data-state=DocumentVoided]'), 'the process comes to its end');
  const states = await a.evaluate('window.states');
  ok(states.join() === 'VoidingRequested,MarkingDocumentAsVoidedSucceeded,DocumentVoided', 'the states were seen to pass', states);
  ok(await a.locator('.node.passed').count() === 2 && await a.locator('.way.lit').count() === 3, 'the path is lit');
  ok(await a.locator('.timeline li').count() === 3 && await has(a, 'sends Mark document as voided'), 'the timeline has its messages');
  ok(await shows(a, '.title .pill[data-state=voided]'), 'the document is voided');
  ok(await has(b, 'Nothing runs') && await shows(b, '#ended [data-state=DocumentVoided]'), 'in step: it has ended in the other window');
  await room(a, '#/reports');
  ok(await has(a, '€80.00') && !(await text(a)).includes('D1'), 'the report is without it');
}

async function tooLate() {
  await a.getByRole('button', { name: 'Publish this report' }).click();
  await a.locator('#dialog').getByRole('button', { name: 'Publish', exact: true }).click();
  ok(await has(a, 'comes too late'), 'the report is published');
  await a.getByRole('button', { name: 'Void D2', exact: true }).click();
  await fill(a, { Reason: 'wrong customer' }, 'Void');
  ok(await shows(a, '.node.present.failed'), 'too late: the process has failed');
  ok(await shows(a, '.refusal') && (await a.locator('.refusal').first().innerText()).includes('was published on'), 'the refusal says why');
  ok(await until(async () => (await a.locator('#toasts').innerText()).includes('Void D2: refused')), 'and so does the command');
  ok(await shows(b, '#running .pill.failed') && await has(b, 'Acknowledgement'), 'the other window sees it wait for a person');
  ok(await until(async () => (await b.locator('nav [href="#/processes"] .count').count()) === 1), 'and the navigation counts it');
}

// ---- nothing is lost ----

async function again() {
  const before = await text(a);
  await a.reload();
  ok(await shows(a, '.node.present.failed') && await has(a, 'was published on') && before.includes('was published on'), 'a reload shows the same');
  await room(a, '#/commands');
  ok(await shows(a, 'main td [data-state=failed]') && await has(a, 'D2'), 'what was asked and refused is in the list of commands');
  await room(a, '#/reports');
  ok(await has(a, '€80.00'), 'and the report');
  await outside('stop');
  ok(await until(async () => (await a.locator('#live').getAttribute('data-state')) === 'reconnecting'), 'the gateway is gone: it says so');
  ok((await text(a)).includes('€80.00'), 'and shows what it knew');
  await outside('issue D3 Acme 7');
  await outside('start');
  ok(await live(a) && await live(b), 'it connects again');
  await a.locator('.choice', { hasText: '€7.00' }).click();
  ok(await has(a, 'D3'), 'what happened meanwhile is there');
  ok(await shows(b, '#running .pill.failed'), 'and what there was');
}

async function acknowledged() {
  await b.getByRole('button', { name: 'Acknowledge D2' }).click();
  await fill(b, { 'What was done about it': 'credit note sent' }, 'Acknowledge');
  ok(await has(b, 'Nothing runs') && await shows(b, '#ended [data-state=FailureAcknowledged]'), 'acknowledged, it goes');
  await room(a, '#/documents/D2');
  ok(await shows(a, '.node.present[data-state=FailureAcknowledged]'), 'in the other window too');
}

// ---- tasks ----

async function worked() {
  await room(b, '#/tasks');
  await a.getByRole('button', { name: 'Void', exact: true }).click();
  await fill(a, {}, 'Void');
  ok(await shows(b, '#available-list li'), 'a failure is a task');
  ok(await until(async () => (await text(b)).includes('clerk')), 'of a role');
  await b.getByRole('button', { name: /^Claim/ }).click();
  ok(await shows(b, '#mine-list li') && await has(b, 'none that you may take'), 'it is claimed');
  await b.locator('#mine-list a').click();
  ok(await has(b, 'What is to be done') && await shows(b, 'button[data-action=suspend]'), 'its page says what may be done to it');
  await b.getByRole('button', { name: /^Complete/ }).click();
  await fill(b, { Outcome: 'credit note 7' }, 'Complete');
  ok(await shows(b, '.title [data-state=completed]'), 'it is completed');
  ok(await until(async () => (await a.locator('.node.present').first().getAttribute('data-state')) === 'FailureAcknowledged'), 'and the process goes on');
}

// ---- repair ----

async function repaired() {
  await outside('break');
  await room(b, '#/repair');
  ok(await until(async () => (await b.locator('#dead-list li').count()) === 2), 'messages that gave up are there, without asking');
  ok(await has(b, 'division by zero') && await until(async () => (await b.locator('#parked-list li').count()) === 1), 'with their error; and an event that is parked');
  await outside('mend');
  await b.getByRole('button', { name: 'Retry Reserve of O1' }).click();
  ok(await until(async () => (await b.locator('#dead-list li').count()) === 1), 'tried again, it goes');
  await b.getByRole('button', { name: 'Discard Reserve of O2' }).click();
  await b.locator('#dialog').getByRole('button', { name: 'Discard', exact: true }).click();
  ok(await b.locator('#dialog').evaluate((d) => d.open), 'without a reason nothing is discarded');
  await fill(b, { Reason: 'ordered twice' }, 'Discard');
  ok(await has(b, 'No message has given up'), 'with one it is');
  await b.getByRole('button', { name: /^Retry Parcel/ }).click();
  ok(await until(async () => (await b.locator('#toasts').innerText()).includes('no process is ready for it yet')) && await b.locator('#parked-list li').count() === 1, 'a parked event for which no process is there stays');
  await b.getByRole('button', { name: /^Discard Parcel/ }).click();
  await fill(b, { Reason: 'no such order' }, 'Discard');
  ok(await has(b, 'No event waits'), 'and can be discarded');
}

// ---- by keyboard alone ----

async function tabTo(page, name) {
  for (let i = 0; i < 80; i++) {
    await page.keyboard.press('Tab');
    const at = await page.evaluate(() => {
      const e = document.activeElement, s = getComputedStyle(e);
      return { name: e.getAttribute('aria-label') ?? e.labels?.[0]?.innerText ?? e.innerText ?? '', seen: s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2 };
    });
    if (at.name.trim().startsWith(name)) return at.seen;
  }
  return null;
}

async function keyboard() {
  const page = await open(url);
  const type = (what) => page.keyboard.type(what);
  const press = async (name) => { const seen = await tabTo(page, name); await page.keyboard.press('Enter'); return seen; };
  const asks = () => until(() => page.locator('#dialog[open]').count());
  await live(page);
  await page.evaluate(() => document.activeElement.blur());
  await page.keyboard.press('Tab');
  ok(await page.evaluate(() => document.activeElement.className) === 'skip' || await tabTo(page, 'Skip'), 'the first stop leads past the navigation');
  ok(await press('Issue a document') && await asks(), 'a button is reached, and seen to be');
  await type('K1');
  await page.keyboard.press('Tab');
  await type('Keys');
  await page.keyboard.press('Tab');
  await type('9.99');
  await page.keyboard.press('Enter');
  ok(await until(() => page.locator('.choice', { hasText: 'Keys' }).count()), 'a document is issued');
  await press('Keys');
  await has(page, 'K1');
  ok(await press('Void K1') && await asks(), 'a dialog opens');
  await page.keyboard.press('Escape');
  ok(await until(async () => !(await page.locator('#dialog[open]').count())) && await until(() => page.evaluate(() => document.activeElement.getAttribute('aria-label') === 'Void K1')), 'Escape leaves it, and one is where one was');
  await outside('issue K2 Keys 5');
  await has(page, 'K2');
  ok(await page.evaluate(() => document.activeElement.getAttribute('aria-label') === 'Void K1'), 'and stays there, whatever appears');
  await page.keyboard.press('Enter');
  await asks();
  await type('typo');
  await page.keyboard.press('Enter');
  ok(await shows(page, '.node.present[data-state=DocumentVoided]'), 'it is voided');
  await press('All reports');
  await has(page, 'Publish this report');
  await press('Keys');
  await has(page, 'K2');
  await press('Publish this report');
  await asks();
  await page.keyboard.press('Enter');
  ok(await has(page, 'comes too late'), 'a report is published');
  await press('Void K2');
  await asks();
  await page.keyboard.press('Enter');
  ok(await shows(page, '.node.present.failed'), 'too late');
  ok(await press('Acknowledge K2') && await asks(), 'its failure');
  await type('noted');
  await page.keyboard.press('Enter');
  ok(await shows(page, '.node.present[data-state=FailureAcknowledged]'), 'is acknowledged');
  ok(await until(() => page.evaluate(() => document.activeElement.localName === 'h1')), 'the button is gone, and one is in the same room');
  await page.context().close();
}

// ---- a list in pages ----

async function paged() {
  const rows = () => a.locator('.choice').count();
  const click = (name) => a.getByRole('button', { name, exact: true }).click();
  await room(a, '#/reports');
  ok(await shows(a, '.choice') && await a.locator('[data-do=older], [data-do=newer]').count() === 0, 'few reports are on one page');
  const few = await rows();
  await outside('many'); // of which no event tells
  await a.reload();
  ok(await until(async () => (await rows()) === 40) && await has(a, 'Customer 90'), 'of many the latest are shown');
  ok(await a.locator('[data-do=newer]').count() === 0, 'and there is nothing newer');
  await click('Older');
  ok(await has(a, 'Customer 50') && await hasNot(a, 'Customer 51') && (await rows()) === 40, 'older ones are on the next page');
  await click('Older');
  ok(await has(a, 'Customer 10') && await has(a, 'Acme') && await until(async () => (await rows()) === 10 + few), 'to the first of all');
  ok(await a.locator('[data-do=older]').count() === 0 && await until(() => a.evaluate(() => document.activeElement.localName === 'h1')), 'behind which there is nothing');
  await outside('issue D9 Acme 1');
  ok(await has(a, '€8.00') && await hasNot(a, 'Customer 11'), 'what happens shows there, and the page stays');
  await sound(a, 'older reports');
  await click('Newer');
  await click('Newer');
  ok(await has(a, 'Customer 90') && await a.locator('[data-do=newer]').count() === 0, 'and back');
  await a.getByRole('searchbox').fill('Acme');
  await click('Older');
  await a.getByRole('searchbox').press('Enter');
  ok(await has(a, 'Of Acme only') && await hasNot(a, 'Customer'), 'a customer has pages of his own');
  await click('Show all customers');
  ok(await has(a, 'Customer 90'), 'and all begin with the latest');
}

// ---- the looks ----

const ROOMS = { reports: '#/reports', document: '#/documents/D2', processes: '#/processes', tasks: '#/tasks', repair: '#/repair', commands: '#/commands', figures: '#/figures' };

async function looks() {
  await outside('leave');
  await room(a, '#/figures');
  ok(await until(async () => (await a.locator('.spark').count()) === 6) && await until(async () => /[1-9]/.test(await a.locator('table .number').nth(5).innerText())), 'figures with charts');
  for (const [kind, options] of [['light', {}], ['dark', { colorScheme: 'dark' }], ['phone', { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true }],
    ['phone-dark', { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true, colorScheme: 'dark' }]]) {
    const page = await open(url, { reducedMotion: 'reduce', ...options });
    const wide = [];
    const hidden = [];
    await live(page);
    for (const [name, hash] of Object.entries(ROOMS)) {
      await room(page, hash);
      await until(() => page.evaluate((h) => location.hash === h && !document.querySelector('main').hasAttribute('aria-busy'), hash));
      await page.screenshot({ path: `${folder}/${kind}-${name}.png`, fullPage: true });
      await sound(page, `${kind}, ${name}`);
      if (await page.evaluate(() => document.documentElement.scrollWidth > innerWidth)) wide.push(name);
      if (await page.evaluate(() => { const b = document.querySelector('nav [aria-current]').getBoundingClientRect(); return b.left < 0 || b.right > innerWidth; })) hidden.push(name);
    }
    ok(wide.length === 0, `${kind}: nothing is wider than the window`, wide);
    ok(hidden.length === 0, `${kind}: the present room is in sight`, hidden);
    await room(page, ROOMS.document);
    await page.locator('.title button').click();
    await page.screenshot({ path: `${folder}/${kind}-dialog.png` });
    await sound(page, `${kind}, a dialog`);
    await page.context().close();
  }
}

// ---- who may not, and who has a token ----

async function strangers() {
  const page = await open(tokenUrl);
  const asks = () => until(() => page.locator('#dialog[open]').count());
  ok(await asks() && (await page.locator('#dialog').innerText()).includes('token'), 'where tokens are needed it asks for one');
  await page.keyboard.press('Escape');
  await page.waitForResponse((r) => r.url().endsWith('/events') && r.status() === 401);
  ok(await has(page, 'You are not signed in') && (await page.locator('#dialog[open]').count()) === 0, 'dismissed, it does not ask again by itself');
  await sound(page, 'signed out');
  await page.getByRole('button', { name: 'Sign in' }).click();
  await fill(page, { Token: await outside('token guest 3600') }, 'Sign in');
  ok(await live(page) && await has(page, 'Reports'), 'signed in, the stream is open');
  ok(await shows(page, '.choice'), 'and reports are there');
  await page.reload();
  ok(await live(page) && await shows(page, '.choice'), 'also after a reload');
  await room(page, '#/repair');
  ok(await has(page, 'permission denied'), 'what its role may not see is said to be so');
  await room(page, '#/processes');
  ok(await has(page, 'permission denied'), 'in each room');
  ok((await page.context().cookies()).length === 0 && await page.evaluate(() => localStorage.length) === 0, 'the token is in this tab only');
  await page.context().close();
}

async function expired() {
  const page = await open(tokenUrl);
  await fill(page, { Token: await outside('token clerk 12') }, 'Sign in');
  ok(await live(page), 'a token for some seconds');
  await issue(page, 'T1', 'Tokens', '3');
  ok(await has(page, '€3.00'), 'with it one may do what its role may');
  ok(await until(async () => (await page.locator('#live').getAttribute('data-state')) === 'signed out') && await until(() => page.locator('#dialog[open]').count()),
    'its time is over: the stream ends, and it asks for another');
  ok(!(await text(page)).includes('€3.00'), 'and shows no more');
  await outside('issue T2 Tokens 4');
  await fill(page, { Token: await outside('token clerk 3600') }, 'Sign in');
  ok(await live(page) && await has(page, '€7.00'), 'signed in again it goes on, and what happened meanwhile is there');
  await page.context().close();
}

for (const part of [issued, voided, tooLate, again, acknowledged, worked, repaired, keyboard, paged, looks, strangers, expired]) {
  try {
    await part();
  } catch (error) {
    ok(false, `${part.name} comes to its end`, error.stack);
    await a.screenshot({ path: `${folder}/failed-${part.name}-a.png` }).catch(() => null);
    await b.screenshot({ path: `${folder}/failed-${part.name}-b.png` }).catch(() => null);
    break;
  }
}
ok(noise.length === 0, 'no error, no breach of the policy, no request to elsewhere', noise);
console.log(`1..${n}`);
await browser.close();
process.exit(bad ? 1 : 0);
