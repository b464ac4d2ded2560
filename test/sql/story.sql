-- One void: a document is issued, voided, its report published, the
-- next one voided too late, the failure acknowledged.
\set ECHO none
\i test/lib/database.sql
BEGIN;
SELECT document_id, customer_id, kind, amount, currency, status FROM billing.issue_document('INV-1', 'acme', 100);
SELECT document_id, amount, currency FROM billing.issue_document('INV-2', 'acme', 50.50);
SELECT document_id, amount, currency FROM billing.issue_document('INV-3', 'acme', 7, 'USD', 'credit note');
-- the same call again is the same document
SELECT document_id, amount FROM billing.issue_document('INV-1', 'acme', 100);
SELECT type, source, subject FROM voiding.event ORDER BY position;
SELECT type, source, destination, aggregateid FROM voiding.outbox ORDER BY seq;
COMMIT;
CALL test.settle();
SELECT customer_id, currency, status, total FROM reports.report ORDER BY currency;
-- void one; the engine waits for Reports
BEGIN;
SELECT billing.void_document('INV-1', 'typo') AS p \gset
SELECT status, void_reason, requested_by = current_user AS by_me, process_id = :'p' AS same FROM billing.document WHERE document_id = 'INV-1';
SELECT type, key, state, failed, waits_for, process_id = :'p' AS same FROM voiding.ongoing_process;
SELECT aspect, what, detail, at IS NOT NULL AS at FROM voiding.explain(:'p');
SELECT type, destination, aggregateid, payload - 'process_id' AS payload, payload ->> 'process_id' = :'p' AS same,
       correlation_id = :'p' AS correlated, sent_in FROM voiding.outbox ORDER BY seq;
-- the command is caused by the event that moved the process
SELECT e.type FROM voiding.event e JOIN voiding.outbox o ON o.causation_id = e.event_id;
-- again while it runs: the same process
SELECT billing.void_document('INV-1', 'again') = :'p' AS same;
COMMIT;
-- Reports sets it aside, then Billing completes, then Reports confirms
CALL test.settle();
SELECT status, voided_at IS NOT NULL AS voided FROM billing.document WHERE document_id = 'INV-1';
SELECT state, finished_at IS NOT NULL AS finished, outcome FROM voiding.process WHERE process_id = :'p';
SELECT count(*) FROM voiding.ongoing_process;
SELECT document_id, status FROM reports.report_line ORDER BY document_id;
SELECT step, event, from_state, to_state, command, source, actor = current_user AS me, note FROM voiding.process_history WHERE process_id = :'p' ORDER BY step;
SELECT aspect, what, detail FROM voiding.explain(:'p');
-- voided already: the process that did it
SELECT billing.void_document('INV-1') = :'p' AS same;
-- only the request was nobody's doing: the others answer a command
SELECT type, causation_id IS NOT NULL AS caused FROM voiding.event WHERE correlation_id = :'p' ORDER BY position;
-- publish: what was voided is not in it
SELECT customer_id, currency, status, total FROM reports.publish_report('acme') ORDER BY currency;
SELECT reports.publish_report('acme');
\echo :LAST_ERROR_SQLSTATE
-- void too late
SELECT billing.void_document('INV-2', 'too late') AS p \gset
CALL test.settle();
SELECT status FROM billing.document WHERE document_id = 'INV-2';
SELECT key, state, failed, waits_for FROM voiding.ongoing_process;
SELECT data ->> 'failure' ~ '^report \d+ was published on \d{4}-\d\d-\d\d$' AS failure FROM voiding.ongoing_process;
SELECT type, state, document ->> 'document_id' AS document_id, document ->> 'requested_by' = current_user AS by_me,
       (document ->> 'report_id')::bigint = (SELECT report_id FROM reports.report_line WHERE document_id = 'INV-2') AS report,
       document ->> 'failure' LIKE 'report % was published on %' AS failure, document ? 'published_at' AS published_at
  FROM voiding.task WHERE process_id = :'p';
SELECT aspect, what, CASE WHEN aspect <> 'task' THEN detail END AS detail FROM voiding.explain(:'p')
 WHERE detail <> 'is ignored';
-- asking again is refused until somebody has seen it
\set VERBOSITY terse
SELECT billing.void_document('INV-2', 'again');
\set VERBOSITY default
\echo :LAST_ERROR_SQLSTATE
SELECT voiding.acknowledge_process_failure(:'p', 'the customer was told');
SELECT state, failed, outcome FROM voiding.process WHERE process_id = :'p';
SELECT type, state FROM voiding.task WHERE process_id = :'p';
SELECT step, event, from_state, to_state, command, source, note FROM voiding.process_history WHERE process_id = :'p' ORDER BY step;
SELECT data ->> 'by' = current_user AS by, data ->> 'reason' AS reason, data ->> 'process_id' = :'p' AS process, at IS NOT NULL AS at
  FROM voiding.process_history WHERE process_id = :'p' AND event = 'ProcessFailureAcknowledged';
-- once is enough; it is no error to do it again
SELECT voiding.acknowledge_process_failure(:'p', 'twice');
SELECT count(*) FROM voiding.event WHERE type = 'ProcessFailureAcknowledged';
-- now it may be asked again, and is refused again
SELECT billing.void_document('INV-2', 'once more') <> :'p' AS another;
CALL test.settle();
SELECT state FROM voiding.ongoing_process;
SELECT state, count(*) FROM voiding.process GROUP BY state ORDER BY state;
-- nothing is left to do
SELECT voiding.dispatch();
SELECT voiding.wait_until_idle('0 s');
SELECT * FROM voiding.check_invariants() UNION ALL SELECT * FROM billing.check_invariants() UNION ALL SELECT * FROM reports.check_invariants();
CALL test.by_hand();
\c contrib_regression
DROP DATABASE regress_voiding;
