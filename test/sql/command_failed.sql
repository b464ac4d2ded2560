-- A command that gives up takes the onError of the state that sent it; one
-- that comes too late for that is only written down.
CREATE DATABASE regress_command_failed;
\c regress_command_failed
\set SHOW_CONTEXT never
CREATE EXTENSION voiding;
CREATE FUNCTION history(p uuid) RETURNS TABLE (step int, event text, from_state text, to_state text, command text, note text) LANGUAGE sql AS
  $$ SELECT step, event, from_state, to_state, command, note FROM voiding.process_history WHERE process_id = p ORDER BY step $$;
CREATE VIEW doc AS SELECT d.document_id, d.status, l.status AS line FROM billing.document d LEFT JOIN reports.report_line l USING (document_id);
SET voiding.retry_limit = 2;
SELECT count(billing.issue_document('INV-' || i, 'acme', i)) FROM generate_series(1, 6) i;
SELECT voiding.dispatch();
-- Reports is broken: a constraint that no mark can keep
ALTER TABLE reports.report_line ADD CONSTRAINT broken CHECK (status <> 'reserved') NOT VALID;
SELECT billing.void_document('INV-1') AS p \gset
SELECT voiding.dispatch();
SELECT type, attempts, error LIKE '23514: new row for relation "report_line" violates check constraint "broken" --%' AS error FROM voiding.outbox;
SELECT detail LIKE 'failed 1 times: 23514:%' AS explained FROM voiding.explain(:'p') WHERE aspect = 'message';
SELECT state FROM voiding.ongoing_process;
SET voiding.clock_offset = 10;
SELECT voiding.dispatch();
SELECT state, data ->> 'failure' LIKE '23514: new row %' AS failure FROM voiding.process WHERE process_id = :'p';
SELECT * FROM doc WHERE document_id = 'INV-1';
SELECT * FROM history(:'p');
SELECT source, data ->> 'command' AS command, (data ->> 'message_id')::uuid = causation_id AS caused FROM voiding.event WHERE type = 'CommandFailed';
SELECT aggregateid, type, destination, attempts, sqlstate FROM voiding.dead_letter;
SELECT aspect, what FROM voiding.explain(:'p') WHERE aspect = 'dead letter';
-- mended and retried after all: the mark comes after the abort, and is refused quietly
ALTER TABLE reports.report_line DROP CONSTRAINT broken;
SELECT voiding.retry_message(id, 'mended') FROM voiding.dead_letter;
SELECT voiding.dispatch();
SELECT * FROM doc WHERE document_id = 'INV-1';
SELECT * FROM history(:'p');
SELECT voiding.acknowledge_process_failure(:'p');
-- Billing is broken: set aside, cannot be completed, released again
ALTER TABLE billing.document ADD CONSTRAINT broken CHECK (status <> 'voided') NOT VALID;
SELECT billing.void_document('INV-2') AS p \gset
SELECT voiding.dispatch();
SELECT * FROM doc WHERE document_id = 'INV-2';
SET voiding.clock_offset = 20;
SELECT voiding.dispatch();
SELECT * FROM doc WHERE document_id = 'INV-2';
SELECT * FROM history(:'p');
-- the completion is retried after the abort: it does nothing
ALTER TABLE billing.document DROP CONSTRAINT broken;
SELECT voiding.retry_message(id, 'mended') FROM voiding.dead_letter;
SELECT voiding.dispatch();
SELECT * FROM doc WHERE document_id = 'INV-2';
SELECT voiding.acknowledge_process_failure(:'p');
-- discarded by hand while it waits: as if it had given up
SELECT billing.void_document('INV-3') AS p \gset
SELECT voiding.discard_message(id, 'not this one') FROM voiding.outbox WHERE type = 'MarkDocumentAsVoided';
SELECT state, data ->> 'failure' AS failure FROM voiding.process WHERE process_id = :'p';
SELECT * FROM history(:'p');
SELECT voiding.dispatch();
SELECT * FROM doc WHERE document_id = 'INV-3';
SELECT voiding.acknowledge_process_failure(:'p');
-- gives up when the process has gone on: written down, no more
ALTER TABLE reports.report_line ADD CONSTRAINT broken CHECK (status <> 'reserved') NOT VALID;
SELECT billing.void_document('INV-4') AS p \gset
SELECT voiding.dispatch();
SELECT voiding.move_timer(:'p', 'PT1H', '2000-01-01');
SELECT voiding.dispatch('billing');
SET voiding.clock_offset = 30;
SELECT voiding.dispatch();
SELECT * FROM history(:'p');
SELECT voiding.acknowledge_process_failure(:'p');
-- or when it has ended: only the dead letter says so
SELECT billing.void_document('INV-5') AS p \gset
SELECT voiding.dispatch();
SELECT voiding.move_timer(:'p', 'PT1H', '2000-01-01');
SELECT voiding.dispatch('billing');
SELECT voiding.acknowledge_process_failure(:'p');
SET voiding.clock_offset = 40;
SELECT voiding.dispatch();
SELECT * FROM history(:'p');
SELECT type FROM voiding.dead_letter WHERE correlation_id = :'p';
ALTER TABLE reports.report_line DROP CONSTRAINT broken;
-- a state entered anew does not hear of the command of its former visit
SELECT voiding.create_process_type('visit', '{"key": "id", "start": {"Came": "In"}, "after": {"P1D": "Gone"}, "states": {
  "In": {"entry": {"send": {"command": "PublishReport", "with": {"customer_id": "$.key"}}}, "on": {"Left": "Out"}, "onError": {"target": "Gone", "set": {"why": "$.event.error"}}},
  "Out": {"on": {"Back": "In"}}, "Gone": {"type": "final", "reason": "$.process.why"}}}');
SELECT voiding.emit('Came', 'v', '{"id": "nobody"}', 'billing') IS NOT NULL AS id;
SELECT voiding.dispatch();
SELECT voiding.emit('Left', 'v', '{"id": "nobody"}', 'billing') IS NOT NULL AS id, voiding.emit('Back', 'v', '{"id": "nobody"}', 'billing') IS NOT NULL AS id;
SET voiding.clock_offset = 50;
SELECT voiding.dispatch(batch_size => 1);
SELECT state FROM voiding.process WHERE key = 'nobody';
SELECT count(*) FROM voiding.dead_letter WHERE type = 'PublishReport';
-- its own one it does
SELECT voiding.dispatch() > 0 AS some;
SET voiding.clock_offset = 60;
SELECT voiding.dispatch() > 0 AS some;
SELECT state, reason FROM voiding.process WHERE key = 'nobody';
SELECT * FROM voiding.check_invariants() UNION ALL SELECT * FROM billing.check_invariants() UNION ALL SELECT * FROM reports.check_invariants();
\c contrib_regression
DROP DATABASE regress_command_failed;
