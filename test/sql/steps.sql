-- One void step by step, and all that can be seen of it between the steps.
-- By hand: each step is one message.
CREATE DATABASE regress_steps;
\c regress_steps
\set SHOW_CONTEXT never
CREATE EXTENSION voiding;
SELECT count(billing.issue_document('INV-' || i, 'acme', i * 10)) FROM generate_series(1, 3) i;
SELECT voiding.dispatch();
SELECT billing.void_document('INV-1', 'typo') AS p \gset
SELECT state, waits_for FROM voiding.ongoing_process;
-- Reports sets it aside
SELECT voiding.dispatch('reports', 1);
SELECT document_id, status, process_id = :'p' AS same FROM reports.report_line ORDER BY document_id;
SELECT state, waits_for FROM voiding.ongoing_process;
SELECT type, destination, sent_in FROM voiding.outbox;
-- Billing completes
SELECT voiding.dispatch('billing', 1);
SELECT status, voided_at IS NOT NULL AS voided FROM billing.document WHERE document_id = 'INV-1';
SELECT state, finished_at IS NOT NULL AS finished, outcome FROM voiding.process WHERE process_id = :'p';
SELECT count(*) FROM voiding.ongoing_process;
-- Reports confirms
SELECT voiding.dispatch();
SELECT document_id, status FROM reports.report_line ORDER BY document_id;
-- too late: refused and aborted in one round, then nothing is left to do
SELECT customer_id, total FROM reports.publish_report('acme');
SELECT billing.void_document('INV-2', 'too late') IS NOT NULL AS asked;
SELECT voiding.dispatch();
SELECT key, state, failed, waits_for FROM voiding.ongoing_process;
SELECT voiding.dispatch();
SELECT voiding.wait_until_idle('0 s');
SELECT * FROM voiding.check_invariants() UNION ALL SELECT * FROM billing.check_invariants() UNION ALL SELECT * FROM reports.check_invariants();
\c contrib_regression
DROP DATABASE regress_steps;
