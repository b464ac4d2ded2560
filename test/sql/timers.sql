-- Deadlines: both of the voiding process, moved and passed; answers that come
-- after them; timers that are stale.
\set ECHO none
\i test/lib/database.sql
-- a service that is silent: by hand, only the other one is dispatched
CALL test.by_hand();
CREATE VIEW doc AS SELECT d.document_id, d.status, l.status AS line, l.report_id IS NOT NULL AS in_report FROM billing.document d LEFT JOIN reports.report_line l USING (document_id);
CREATE FUNCTION history(p uuid) RETURNS TABLE (step int, event text, from_state text, to_state text, command text, note text) LANGUAGE sql AS
  $$ SELECT step, event, from_state, to_state, command, note FROM voiding.process_history WHERE process_id = p ORDER BY step $$;
SELECT count(billing.issue_document('INV-' || i, 'acme', i)) FROM generate_series(1, 7) i;
SELECT voiding.dispatch();

-- Reports is silent for an hour
SELECT billing.void_document('INV-1') AS p \gset
SELECT name, state, date_trunc('second', due_at - (SELECT since FROM voiding.active_process)) AS after FROM voiding.timer;
SET voiding.clock_offset = 3590;
SELECT voiding.dispatch('billing');
SELECT state FROM voiding.ongoing_process;
SET voiding.clock_offset = 3601;
SELECT voiding.dispatch('billing');
SELECT state, data ->> 'failure' AS failure FROM voiding.process WHERE process_id = :'p';
SELECT * FROM doc WHERE document_id = 'INV-1';
SELECT count(*) FROM voiding.timer;
SELECT type, state FROM voiding.task WHERE process_id = :'p';
-- then it comes to know of both: the abort is not what marks it
SELECT voiding.dispatch() > 0 AS some;
SELECT * FROM doc WHERE document_id = 'INV-1';
SELECT * FROM history(:'p');
SELECT voiding.acknowledge_process_failure(:'p');
SELECT * FROM history(:'p');

-- Billing is silent for an hour: aborted, released
SELECT billing.void_document('INV-2') AS p \gset
SELECT voiding.dispatch('reports');
SELECT * FROM doc WHERE document_id = 'INV-2';
SELECT name, state FROM voiding.timer;
SET voiding.clock_offset = 7300;
-- the deadline fires first, then the completion finds the abort behind it in the order of its key:
-- Billing completes, and the abort finds nothing to do
SELECT voiding.dispatch('billing') > 0 AS some;
SELECT * FROM history(:'p');
SELECT voiding.dispatch() > 0 AS some;
SELECT * FROM doc WHERE document_id = 'INV-2';
SELECT state, outcome FROM voiding.process WHERE process_id = :'p';
SELECT type, state FROM voiding.task WHERE process_id = :'p';
-- the same where the completion never came: taken out by hand
SELECT billing.void_document('INV-3') AS p \gset
SELECT voiding.dispatch('reports');
DELETE FROM voiding.outbox WHERE type = 'CompleteDocumentVoiding';
SET voiding.clock_offset = 11000;
SELECT voiding.dispatch() > 0 AS some;
SELECT * FROM doc WHERE document_id = 'INV-3';
SELECT state, data ->> 'failure' AS failure FROM voiding.process WHERE process_id = :'p';
SELECT count(*) FROM voiding.event WHERE correlation_id = :'p' AND type = 'DocumentVoidingAborted';
SELECT voiding.acknowledge_process_failure(:'p', 'seen');

-- late answers to the first voiding do not move the second
SELECT billing.void_document('INV-4') AS first \gset
SET voiding.clock_offset = 15000;
SELECT voiding.dispatch('billing') > 0 AS some;
SELECT type FROM voiding.outbox WHERE correlation_id = :'first' ORDER BY seq;
SELECT voiding.acknowledge_process_failure(:'first', 'again, please');
SELECT billing.void_document('INV-4') AS second \gset
SELECT :'second' <> :'first' AS another;
SELECT type, correlation_id = :'first' AS of_first FROM voiding.outbox WHERE aggregateid = 'INV-4' ORDER BY seq;
SELECT voiding.dispatch() > 0 AS some;
SELECT * FROM doc WHERE document_id = 'INV-4';
SELECT * FROM history(:'first');
SELECT * FROM history(:'second');
-- a completion of the first that comes now does nothing any more, and neither does an abort
SELECT billing.complete_document_voiding('INV-4', :'first');
SELECT billing.abort_document_voiding('INV-4', :'first', 'late');
SELECT * FROM doc WHERE document_id = 'INV-4';
-- an abort of the first that is under way while the second is asked for is done before it
SELECT billing.void_document('INV-5') AS first \gset
SELECT voiding.dispatch('reports');
DELETE FROM voiding.outbox WHERE type = 'CompleteDocumentVoiding';
SELECT voiding.move_timer(:'first', 'PT1H', voiding.now());
SELECT voiding.dispatch('reports');
SELECT voiding.acknowledge_process_failure(:'first', 'again, please');
SELECT type FROM voiding.outbox WHERE correlation_id = :'first' ORDER BY seq;
SELECT * FROM doc WHERE document_id = 'INV-5';
SELECT billing.void_document('INV-5') AS second \gset
SELECT type, correlation_id = :'first' AS of_first FROM voiding.event WHERE subject = 'INV-5' ORDER BY position DESC LIMIT 2;
SELECT voiding.dispatch() > 0 AS some;
SELECT * FROM doc WHERE document_id = 'INV-5';
SELECT * FROM history(:'first');
SELECT * FROM history(:'second');

-- moved: earlier, later, never
SELECT billing.void_document('INV-6') AS p \gset
SELECT voiding.move_timer(:'p', 'PT1H', voiding.now() + interval '2 hours');
SET voiding.clock_offset = 20000;
SELECT voiding.dispatch('billing');
SELECT state FROM voiding.ongoing_process WHERE process_id = :'p';
SELECT voiding.cancel_timer(:'p', 'PT1H');
SET voiding.clock_offset = 100000000;
SELECT voiding.dispatch('billing');
SELECT state FROM voiding.ongoing_process WHERE process_id = :'p';
SELECT voiding.move_timer(:'p', 'PT1H', '2000-01-01');
SELECT voiding.dispatch('billing');
SELECT state FROM voiding.ongoing_process WHERE process_id = :'p';
\set VERBOSITY sqlstate
SELECT voiding.move_timer(:'p', 'PT1H', now());
\set VERBOSITY default
SELECT voiding.move_timer('00000000-0000-0000-0000-000000000000', 'PT1H', now());
SELECT voiding.acknowledge_process_failure(:'p');
SET voiding.clock_offset = 20000;
SELECT voiding.dispatch() > 0 AS some;

-- a stale timer does nothing: it is gone with its state, in the same commit
SELECT billing.void_document('INV-7') AS p \gset
SELECT voiding.dispatch('reports');
SELECT name, state FROM voiding.timer WHERE process_id = :'p';
SELECT voiding.dispatch();
SELECT count(*) FROM voiding.timer;
SET voiding.clock_offset = 30000;
SELECT voiding.dispatch();
SELECT * FROM history(:'p');
-- one that is rolled back is not left behind, one whose firing is rolled back is
SELECT document_id FROM billing.issue_document('INV-8', 'acme', 8);
SELECT voiding.dispatch();
BEGIN;
SELECT billing.void_document('INV-8') IS NOT NULL AS voiding;
SELECT count(*) FROM voiding.timer;
ROLLBACK;
SELECT count(*) FROM voiding.timer;
SELECT billing.void_document('INV-8') AS p \gset
SET voiding.clock_offset = 40000;
BEGIN;
SELECT voiding.dispatch('billing', 1) > 0 AS fired;
SELECT count(*) FROM voiding.timer;
ROLLBACK;
SELECT count(*) FROM voiding.timer;
SELECT voiding.dispatch() > 0 AS fired;
SELECT state FROM voiding.process WHERE process_id = :'p';

CALL test.set('voiding.clock_offset', '40000');
CALL test.as_asked();
-- a deadline whose guards do not hold; one inside a state; two in one state; several due at once
SELECT voiding.create_process_type('egg', '{"key": "egg", "start": {"Laid": "Cooking"}, "states": {
  "Cooking": {"after": {"PT3M": {"set": {"soft": true}}, "PT5M": [{"guard": "$.process.size == \"small\"", "target": "Hard"}], "PT9M": "Hard"}},
  "Hard": {"after": {"P1D": "Eaten"}}, "Eaten": {"type": "final"}}}');
SELECT voiding.emit('Laid', e, jsonb_build_object('egg', e, 'size', size), 'billing') IS NOT NULL AS id FROM (VALUES ('1', 'small'), ('2', 'large')) x(e, size);
CALL test.set('voiding.clock_offset', '40200');
CALL test.settle();
SELECT key, state, data -> 'soft' AS soft FROM voiding.active_process ORDER BY key;
CALL test.set('voiding.clock_offset', '40400');
CALL test.settle();
SELECT key, state FROM voiding.active_process ORDER BY key;
SELECT name, count(*) FROM voiding.timer GROUP BY name ORDER BY name;
CALL test.set('voiding.clock_offset', '40700');
CALL test.settle();
SELECT key, step, event, from_state, to_state, note, data ->> 'timer' AS timer FROM voiding.process_history WHERE type = 'egg' ORDER BY key, step;
CALL test.set('voiding.clock_offset', '1000000');
CALL test.settle();
SELECT key, state FROM voiding.process WHERE type = 'egg' ORDER BY key;
-- an engine that slept through all of them takes them in their order
CALL test.set('voiding.clock_offset', '0');
SELECT voiding.emit('Laid', '3', '{"egg": "3", "size": "small"}', 'billing') IS NOT NULL AS id;
CALL test.set('voiding.clock_offset', '500');
CALL test.settle();
SELECT step, event, from_state, to_state, data ->> 'timer' AS timer FROM voiding.process_history WHERE type = 'egg' AND key = '3' ORDER BY step;
CALL test.set('voiding.clock_offset', '1000000');
CALL test.settle();
-- a deadline of the whole process that passes while it waits for a person is not lost:
-- it holds again when the process goes on
SELECT voiding.create_process_type('trial', '{"key": "id", "start": {"Tried": "Trying"}, "after": {"P1D": "Ended"}, "states": {
  "Trying": {"on": {"Broke": "Broken", "Worked": "Ended"}}, "Broken": {"type": "failed", "on": {"Mended": "Trying", "ProcessFailureAcknowledged": "Ended"}}, "Ended": {"type": "final"}}}');
CALL test.set('voiding.clock_offset', '0');
SELECT voiding.emit('Tried', 't', '{"id": "t"}', 'billing') IS NOT NULL AS id, voiding.emit('Broke', 't', '{"id": "t"}', 'billing') IS NOT NULL AS id;
CALL test.set('voiding.clock_offset', '100000');
CALL test.settle();
SELECT state, (SELECT count(*) FROM voiding.timer t WHERE t.process_id = a.process_id) AS timers FROM voiding.active_process a WHERE key = 't';
SELECT voiding.emit('Mended', 't', '{"id": "t"}', 'billing') IS NOT NULL AS id;
CALL test.settle();
SELECT state FROM voiding.process WHERE key = 't';
SELECT * FROM voiding.check_invariants() UNION ALL SELECT * FROM billing.check_invariants() UNION ALL SELECT * FROM reports.check_invariants();
CALL test.by_hand();
\c contrib_regression
DROP DATABASE regress_voiding;
