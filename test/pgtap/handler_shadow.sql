-- A temporary table of the session does not shadow a service's table, and a
-- temporary table or type does not shadow the engine's.
-- By hand: handlers run in the transaction of the test.
BEGIN;
SELECT plan(9);

SELECT billing.issue_document('D1', 'C1', 10);
CREATE TEMP TABLE document (LIKE billing.document);
CREATE TEMP TABLE report_line (LIKE reports.report_line);
CREATE TEMP TABLE customer_report (LIKE reports.customer_report);
CREATE TEMP TABLE refusal (LIKE reports.refusal);
CREATE TEMP TABLE outbox (LIKE voiding.outbox);
CREATE TEMP TABLE handler (LIKE voiding.handler);
CREATE TEMP TABLE transition (LIKE voiding.transition);
CREATE TEMP TABLE pg_proc (LIKE pg_catalog.pg_proc);
CREATE TEMP TABLE pg_roles (LIKE pg_catalog.pg_roles);
SET LOCAL search_path = pg_temp, pg_catalog, public;

SELECT cmp_ok(voiding.dispatch(), '>', 0, 'messages are handled');
SELECT lives_ok($$ SELECT billing.void_document('D1') $$, 'a document is voided');
SELECT cmp_ok(voiding.dispatch(), '>', 0, 'messages are handled');
SELECT is((SELECT status FROM billing.document WHERE document_id = 'D1'), 'voided', 'the document is voided');
SELECT is((SELECT status FROM reports.report_line WHERE document_id = 'D1'), 'voided', 'in Reports too');
SELECT is_empty('SELECT 1 FROM pg_temp.document UNION ALL SELECT 1 FROM pg_temp.report_line UNION ALL SELECT 1 FROM pg_temp.customer_report
                 UNION ALL SELECT 1 FROM pg_temp.refusal UNION ALL SELECT 1 FROM pg_temp.outbox',
  'the temporary tables are empty');
SELECT is_empty('SELECT * FROM voiding.check_invariants()', 'the engine holds');
SELECT is_empty('SELECT * FROM billing.check_invariants()', 'Billing holds');
SELECT is_empty('SELECT * FROM reports.check_invariants()', 'Reports holds');

SELECT * FROM finish();
ROLLBACK;
