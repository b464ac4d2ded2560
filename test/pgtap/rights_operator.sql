-- The duties operator, redactor and monitor of doc/privilege.md at work.
-- By hand: handlers run in the transaction of the test.
BEGIN;
SELECT plan(28);

CREATE ROLE regress_operator; CREATE ROLE regress_redactor; CREATE ROLE regress_monitor;
\set grants `awk '/^-- (operator|redactor|monitor): /{on=1} !/^(-- |GRANT |  [a-z])/{on=0} on && !/^--/' doc/privilege.md | sed -E 's/ TO ([a-z_]+);/ TO regress_\1;/'`
:grants

-- a process that failed, one that runs, and a dead letter
SELECT billing.issue_document('D1', 'C1', 10), billing.issue_document('D3', 'C3', 1);
SELECT voiding.dispatch();
SELECT reports.publish_report('C1');
SELECT billing.void_document('D1') AS failed \gset
SELECT voiding.emit('DocumentVoided', 'D7', '{"document_id": "D7"}', 'billing') AS dead \gset
SET LOCAL voiding.retry_limit = 1;
SELECT voiding.dispatch();
SELECT is((SELECT count(*)::int FROM voiding.dead_letter WHERE id = :'dead' AND destination = 'reports'), 1, 'there is a dead letter');
SELECT billing.void_document('D3') AS running \gset

SET LOCAL ROLE regress_operator;
SELECT is((SELECT waits_for FROM voiding.ongoing_process WHERE key = 'D1'), 'acknowledgement', 'operator sees what failed');
SELECT isnt_empty(format('SELECT * FROM voiding.explain(%L)', :'failed'), 'operator asks why');
SELECT isnt_empty(format('SELECT * FROM voiding.process_history WHERE process_id = %L', :'failed'), 'operator reads the history');
SELECT alike(voiding.diagram('document_voiding', :'failed'), 'stateDiagram%', 'operator draws it');
SELECT lives_ok(format('SELECT voiding.move_timer(%L, name, due_at + %L) FROM voiding.timer WHERE process_id = %1$L', :'running', '1 hour'), 'operator moves a deadline');
SELECT lives_ok(format('SELECT voiding.cancel_timer(%L, name) FROM voiding.timer WHERE process_id = %1$L', :'running'), 'operator cancels one');
SELECT is(voiding.retry_message(:'dead', 'again'), 1, 'operator retries');
RESET ROLE;
SELECT voiding.dispatch();
SET LOCAL ROLE regress_operator;
SELECT is(voiding.discard_message(:'dead', 'nobody needs it'), 1, 'operator discards');
SELECT lives_ok(format('SELECT voiding.acknowledge_process_failure(%L, %L)', :'failed', 'seen'), 'operator acknowledges');
SELECT throws_ok($$ UPDATE voiding.task SET state = 'completed' $$, '42501', NULL, 'operator does not change rows');
SELECT throws_ok($$ DELETE FROM voiding.dead_letter $$, '42501', NULL, 'operator does not delete rows');
SELECT throws_ok($$ SELECT voiding.dispatch() $$, '42501', NULL, 'operator does not dispatch');
SELECT throws_ok($$ SELECT voiding.redact_event(gen_random_uuid(), 'x') $$, '42501', NULL, 'operator does not redact');
SELECT throws_ok($$ SELECT * FROM billing.document $$, '42501', NULL, 'operator has no rights on services');
SELECT throws_ok($$ SELECT voiding.close_task(gen_random_uuid(), 'completed') $$, '42501', NULL, 'operator calls nothing internal');
RESET ROLE;
SELECT results_eq(
  $$ SELECT type, data ->> 'by', data ->> 'reason' FROM voiding.event WHERE actor = 'regress_operator' ORDER BY position $$,
  $$ VALUES ('MessageRetried', 'regress_operator', 'again'), ('MessageDiscarded', 'regress_operator', 'nobody needs it'),
            ('TaskCompleted', NULL, 'seen'), ('ProcessFailureAcknowledged', 'regress_operator', 'seen') $$,
  'what operator did is written down, with name and reason');

SET LOCAL ROLE regress_monitor;
SELECT is_empty($$ SELECT * FROM voiding.check_invariants() $$, 'monitor checks the engine');
SELECT lives_ok($$ SELECT * FROM voiding.ongoing_process, voiding.parked_event, voiding.handler, voiding.service $$, 'monitor looks');
SELECT lives_ok($$ SELECT count(*) FROM voiding.process_history $$, 'monitor reads histories');
SELECT throws_ok($$ SELECT * FROM voiding.event $$, '42501', NULL, 'monitor does not read the events themselves');
SELECT throws_ok(format('SELECT voiding.retry_message(%L)', :'dead'), '42501', NULL, 'monitor repairs nothing');
SELECT throws_ok(format('SELECT voiding.acknowledge_process_failure(%L)', :'running'), '42501', NULL, 'monitor acknowledges nothing');

SET LOCAL ROLE regress_redactor;
SELECT throws_ok($$ SELECT * FROM voiding.event $$, '42501', NULL, 'redactor does not read events');
SELECT throws_ok($$ UPDATE voiding.event SET data = '{}' $$, '42501', NULL, 'redactor does not change them by hand');
SELECT lives_ok(format('SELECT voiding.redact_event(%L, %L)', :'dead', 'a person asked for it'), 'redactor redacts');
SELECT throws_ok(format('SELECT voiding.redact_event(%L, %L)', :'dead', ''), '22023', NULL, 'and says why');
RESET ROLE;
SELECT is((SELECT data #>> '{redacted,by}' FROM voiding.event WHERE event_id = :'dead'), 'regress_redactor',
  'the event says by whom');

SELECT * FROM finish();
ROLLBACK;
