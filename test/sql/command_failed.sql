-- A command that gives up takes the onError of the state that sent it; one
-- that comes too late for that is only written down.
\set ECHO none
\i test/lib/database.sql
CREATE FUNCTION history(p uuid) RETURNS TABLE (step int, event text, from_state text, to_state text, command text, note text) LANGUAGE sql AS
  $$ SELECT step, event, from_state, to_state, command, note FROM voiding.process_history WHERE process_id = p ORDER BY step $$;
CREATE VIEW doc AS SELECT d.document_id, d.status, l.status AS line FROM billing.document d LEFT JOIN reports.report_line l USING (document_id);
CALL test.set('voiding.retry_limit', '2');
CALL test.set('voiding.retry_base', '1 min');
SELECT count(billing.issue_document('INV-' || i, 'acme', i)) FROM generate_series(1, 6) i;
CALL test.settle();
-- Reports is broken: a constraint that no mark can keep
ALTER TABLE reports.report_line ADD CONSTRAINT broken CHECK (status <> 'reserved') NOT VALID;
SELECT billing.void_document('INV-1') AS p \gset
CALL test.settle();
SELECT type, attempts, error LIKE '23514: new row for relation "report_line" violates check constraint "broken" --%' AS error FROM voiding.outbox;
SELECT detail LIKE 'failed 1 times: 23514:%' AS explained FROM voiding.explain(:'p') WHERE aspect = 'message';
SELECT state FROM voiding.ongoing_process;
CALL test.set('voiding.clock_offset', '100');
CALL test.settle();
SELECT state, data ->> 'failure' LIKE '23514: new row %' AS failure FROM voiding.process WHERE process_id = :'p';
SELECT * FROM doc WHERE document_id = 'INV-1';
SELECT * FROM history(:'p');
SELECT source, data ->> 'command' AS command, (data ->> 'message_id')::uuid = causation_id AS caused FROM voiding.event WHERE type = 'CommandFailed';
SELECT aggregateid, type, destination, attempts, sqlstate FROM voiding.dead_letter;
SELECT aspect, what FROM voiding.explain(:'p') WHERE aspect = 'dead letter';
-- mended and retried after all: the mark comes after the abort, and is refused quietly
ALTER TABLE reports.report_line DROP CONSTRAINT broken;
SELECT voiding.retry_message(id, 'mended') FROM voiding.dead_letter;
CALL test.settle();
SELECT * FROM doc WHERE document_id = 'INV-1';
SELECT * FROM history(:'p');
SELECT voiding.acknowledge_process_failure(:'p');
-- Billing is broken: set aside, cannot be completed, released again
ALTER TABLE billing.document ADD CONSTRAINT broken CHECK (status <> 'voided') NOT VALID;
SELECT billing.void_document('INV-2') AS p \gset
CALL test.settle();
SELECT * FROM doc WHERE document_id = 'INV-2';
CALL test.set('voiding.clock_offset', '200');
CALL test.settle();
SELECT * FROM doc WHERE document_id = 'INV-2';
SELECT * FROM history(:'p');
-- the completion is retried after the abort: it does nothing
ALTER TABLE billing.document DROP CONSTRAINT broken;
SELECT voiding.retry_message(id, 'mended') FROM voiding.dead_letter;
CALL test.settle();
SELECT * FROM doc WHERE document_id = 'INV-2';
SELECT voiding.acknowledge_process_failure(:'p');
-- discarded while it waits: as if it had given up
BEGIN;
SELECT billing.void_document('INV-3') AS p \gset
SELECT voiding.discard_message(id, 'not this one') FROM voiding.outbox WHERE type = 'MarkDocumentAsVoided';
SELECT state, data ->> 'failure' AS failure FROM voiding.process WHERE process_id = :'p';
SELECT * FROM history(:'p');
COMMIT;
CALL test.settle();
SELECT * FROM doc WHERE document_id = 'INV-3';
SELECT voiding.acknowledge_process_failure(:'p');
-- gives up when the process has gone on: written down, no more
ALTER TABLE reports.report_line ADD CONSTRAINT broken CHECK (status <> 'reserved') NOT VALID;
SELECT billing.void_document('INV-4') AS p \gset
CALL test.settle();
SELECT voiding.move_timer(:'p', 'PT1H', '2000-01-01');
CALL test.settle();
CALL test.set('voiding.clock_offset', '300');
CALL test.settle();
SELECT * FROM history(:'p');
SELECT voiding.acknowledge_process_failure(:'p');
-- or when it has ended: only the dead letter says so
SELECT billing.void_document('INV-5') AS p \gset
CALL test.settle();
SELECT voiding.move_timer(:'p', 'PT1H', '2000-01-01');
CALL test.settle();
SELECT voiding.acknowledge_process_failure(:'p');
CALL test.set('voiding.clock_offset', '400');
CALL test.settle();
SELECT * FROM history(:'p');
SELECT type FROM voiding.dead_letter WHERE correlation_id = :'p';
ALTER TABLE reports.report_line DROP CONSTRAINT broken;
-- a state entered anew does not hear of the command of its former visit: by hand, one message at a time
CALL test.by_hand();
SELECT voiding.create_process_type('visit', '{"key": "id", "start": {"Came": "In"}, "after": {"P1D": "Gone"}, "states": {
  "In": {"entry": {"send": {"command": "PublishReport", "with": {"customer_id": "$.key"}}}, "on": {"Left": "Out"}, "onError": {"target": "Gone", "set": {"why": "$.event.error"}}},
  "Out": {"on": {"Back": "In"}}, "Gone": {"type": "final", "reason": "$.process.why"}}}');
SELECT voiding.emit('Came', 'v', '{"id": "nobody"}', 'billing') IS NOT NULL AS id;
SELECT voiding.dispatch();
SELECT voiding.emit('Left', 'v', '{"id": "nobody"}', 'billing') IS NOT NULL AS id, voiding.emit('Back', 'v', '{"id": "nobody"}', 'billing') IS NOT NULL AS id;
SET voiding.clock_offset = 500;
SELECT voiding.dispatch(batch_size => 1);
SELECT state FROM voiding.process WHERE key = 'nobody';
SELECT count(*) FROM voiding.dead_letter WHERE type = 'PublishReport';
-- its own one it does
SELECT voiding.dispatch() > 0 AS some;
SET voiding.clock_offset = 600;
SELECT voiding.dispatch() > 0 AS some;
SELECT state, reason FROM voiding.process WHERE key = 'nobody';
SELECT * FROM voiding.check_invariants() UNION ALL SELECT * FROM billing.check_invariants() UNION ALL SELECT * FROM reports.check_invariants();
CALL test.by_hand();
\c contrib_regression
DROP DATABASE regress_voiding;
