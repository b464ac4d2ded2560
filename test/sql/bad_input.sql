-- Bad input: an error with the right SQLSTATE and a hint, and nothing is left
-- behind of it.
\set ECHO none
\i test/lib/database.sql
SELECT document_id FROM billing.issue_document('INV-1', 'acme', 10);
SELECT document_id FROM billing.issue_document('INV-2', 'acme', 20);
CALL test.settle();
CREATE FUNCTION attempt(sql text) RETURNS TABLE (code text, message text, hint text) LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE sql;
  code := '00000';
  RETURN NEXT;
EXCEPTION WHEN others THEN
  GET STACKED DIAGNOSTICS code := RETURNED_SQLSTATE, message := MESSAGE_TEXT, hint := PG_EXCEPTION_HINT;
  message := left(message, 110);
  RETURN NEXT;
END $$;
-- everything there is, to compare
CREATE FUNCTION everything() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  t text;
  n text;
  all_of text := '';
BEGIN
  FOR t IN SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace
            WHERE s.nspname IN ('voiding', 'billing', 'reports') AND c.relkind = 'r' ORDER BY 1 LOOP
    EXECUTE format('SELECT md5(string_agg(x::text, chr(10) ORDER BY x::text)) FROM %s x', t) INTO n;
    all_of := all_of || t || coalesce(n, '-');
  END LOOP;
  RETURN md5(all_of);
END $$;
SELECT everything() AS before \gset

-- documents
SELECT x.n, a.* FROM (VALUES
  (1, $$SELECT billing.issue_document('', 'acme', 1)$$),
  (2, $$SELECT billing.issue_document(NULL, 'acme', 1)$$),
  (3, $$SELECT billing.issue_document(repeat('x', 201), 'acme', 1)$$),
  (4, $$SELECT billing.issue_document(repeat('x', 10000000), 'acme', 1)$$),
  (5, $$SELECT billing.issue_document('N-1', '', 1)$$),
  (6, $$SELECT billing.issue_document('N-1', NULL, 1)$$),
  (7, $$SELECT billing.issue_document('N-1', repeat('x', 10000000), 1)$$),
  (8, $$SELECT billing.issue_document('N-1', 'acme', -0.01)$$),
  (9, $$SELECT billing.issue_document('N-1', 'acme', 'NaN')$$),
  (10, $$SELECT billing.issue_document('N-1', 'acme', 'Infinity')$$),
  (11, $$SELECT billing.issue_document('N-1', 'acme', '-Infinity')$$),
  (12, $$SELECT billing.issue_document('N-1', 'acme', NULL)$$),
  (13, $$SELECT billing.issue_document('N-1', 'acme', 1, 'XYZ')$$),
  (14, $$SELECT billing.issue_document('N-1', 'acme', 1, 'eur')$$),
  (15, $$SELECT billing.issue_document('N-1', 'acme', 1, '')$$),
  (16, $$SELECT billing.issue_document('N-1', 'acme', 1, NULL)$$),
  (17, $$SELECT billing.issue_document('N-1', 'acme', 1, repeat('E', 10000000))$$),
  (18, $$SELECT billing.issue_document('N-1', 'acme', 1, 'EUR', '')$$),
  (19, $$SELECT billing.issue_document('N-1', 'acme', 1, 'EUR', repeat('k', 51))$$),
  (20, $$SELECT billing.issue_document('N-1', 'acme', 1, 'EUR', NULL)$$),
  -- another document under an id that is taken
  (21, $$SELECT billing.issue_document('INV-1', 'acme', 11)$$),
  (22, $$SELECT billing.issue_document('INV-1', 'other', 10)$$),
  (23, $$SELECT billing.issue_document('INV-1', 'acme', 10, 'USD')$$),
  (24, $$SELECT billing.issue_document('INV-1', 'acme', 10, 'EUR', 'credit note')$$),
  (25, $$SELECT billing.issue_document('INV-1', 'acme', 10, 'EUR', 'invoice', '2001-01-01')$$)
  ) x(n, sql), attempt(x.sql) a ORDER BY x.n;
-- the table itself, without the function
SELECT x.n, a.* FROM (VALUES
  (1, $$INSERT INTO billing.document (document_id, customer_id, amount) VALUES ('', 'acme', 1)$$),
  (2, $$INSERT INTO billing.document (document_id, customer_id, amount) VALUES (repeat('x', 10000000), 'acme', 1)$$),
  (3, $$INSERT INTO billing.document (document_id, customer_id, amount) VALUES ('N-1', 'acme', -1)$$),
  (4, $$INSERT INTO billing.document (document_id, customer_id, amount) VALUES ('N-1', 'acme', 'NaN')$$),
  (5, $$INSERT INTO billing.document (document_id, customer_id, amount) VALUES ('N-1', 'acme', 'Infinity')$$),
  (6, $$INSERT INTO billing.document (document_id, customer_id, amount, currency) VALUES ('N-1', 'acme', 1, 'XYZ')$$),
  (7, $$INSERT INTO billing.document (document_id, customer_id, amount, currency) VALUES ('N-1', 'acme', 1, NULL)$$),
  (8, $$INSERT INTO billing.document (document_id, customer_id, amount, status, voided_at) VALUES ('N-1', 'acme', 1, 'voided', now())$$),
  (9, $$INSERT INTO billing.document (document_id, customer_id, amount, status) VALUES ('N-1', 'acme', 1, 'voiding_requested')$$),
  (10, $$INSERT INTO billing.document (document_id, customer_id, amount, status) VALUES ('N-1', 'acme', 1, 'lost')$$),
  (11, $$UPDATE billing.document SET amount = 11 WHERE document_id = 'INV-1'$$),
  (12, $$UPDATE billing.document SET document_id = 'INV-9' WHERE document_id = 'INV-1'$$),
  (13, $$UPDATE billing.document SET status = 'voided', voided_at = now() WHERE document_id = 'INV-1'$$),
  (14, $$UPDATE billing.document SET currency = 'USD' WHERE document_id = 'INV-1'$$)
  ) x(n, sql), attempt(x.sql) a ORDER BY x.n;
-- voiding, publishing, acknowledging
SELECT x.n, a.* FROM (VALUES
  (1, $$SELECT billing.void_document('INV-9')$$),
  (2, $$SELECT billing.void_document('')$$),
  (3, $$SELECT billing.void_document(NULL)$$),
  (4, $$SELECT billing.void_document(repeat('x', 10000000))$$),
  (5, $$SELECT billing.void_document('INV-1', repeat('x', 2001))$$),
  (6, $$SELECT reports.publish_report('nobody')$$),
  (7, $$SELECT reports.publish_report('')$$),
  (8, $$SELECT reports.publish_report(NULL)$$),
  (9, $$SELECT reports.publish_report(repeat('x', 10000000))$$),
  (10, $$SELECT reports.publish_report('acme', 'USD')$$),
  (11, $$SELECT reports.publish_report('acme', 'XYZ')$$),
  (12, $$SELECT reports.publish_report('acme', '')$$),
  (13, $$SELECT voiding.acknowledge_process_failure('00000000-0000-0000-0000-000000000000')$$),
  (14, $$SELECT voiding.acknowledge_process_failure(NULL)$$),
  (15, $$SELECT * FROM voiding.explain('00000000-0000-0000-0000-000000000000')$$),
  (16, $$SELECT billing.complete_document_voiding('INV-1', '00000000-0000-0000-0000-000000000000')$$),
  (17, $$SELECT billing.complete_document_voiding('INV-9', '00000000-0000-0000-0000-000000000000')$$),
  (18, $$SELECT billing.complete_document_voiding('INV-1', NULL)$$),
  (19, $$SELECT billing.abort_document_voiding('INV-1', '00000000-0000-0000-0000-000000000000', 'x')$$),
  (20, $$SELECT reports.mark_document_as_voided('INV-9', '00000000-0000-0000-0000-000000000000')$$),
  (21, $$SELECT reports.confirm_voided('INV-1', '00000000-0000-0000-0000-000000000000')$$),
  (22, $$SELECT voiding.wait_until_idle(NULL)$$),
  (23, $$SELECT voiding.diagram('document_voiding', '00000000-0000-0000-0000-000000000000')$$)
  ) x(n, sql), attempt(x.sql) a ORDER BY x.n;
-- services
SELECT x.n, a.* FROM (VALUES
  (1, $$SELECT voiding.create_service('billing')$$),
  (2, $$SELECT voiding.create_service('event')$$),
  (3, $$SELECT voiding.create_service('Voiding')$$),
  (4, $$SELECT voiding.create_service('voiding')$$),
  (5, $$SELECT voiding.create_service('')$$),
  (6, $$SELECT voiding.create_service(NULL)$$),
  (7, $$SELECT voiding.create_service(repeat('x', 51))$$),
  (8, $$SELECT voiding.create_service('mine', schema => 'pg_catalog')$$),
  (9, $$SELECT voiding.create_service('mine', schema => 'billing')$$),
  (10, $$SELECT voiding.create_service('mine', schema => 'voiding')$$),
  (11, $$SELECT voiding.drop_service('billing')$$),
  (12, $$SELECT voiding.drop_service('nobody')$$),
  (13, $$SELECT voiding.create_document_voiding()$$)
  ) x(n, sql), attempt(x.sql) a ORDER BY x.n;
SELECT everything() = :'before' AS nothing_changed;
-- the longest ids there may be, in characters of four bytes
SELECT length(document_id) AS length FROM billing.issue_document(repeat('😀', 200), repeat('😀', 200), 0);
SELECT billing.void_document(repeat('😀', 200)) IS NOT NULL AS voiding;
CALL test.settle();
SELECT status FROM billing.document WHERE length(document_id) = 200;
-- a document that was not yet in its report is not published
BEGIN;
SELECT document_id FROM billing.issue_document('INV-3', 'late', 30);
SELECT * FROM attempt($$SELECT reports.publish_report('late')$$);
COMMIT;
CALL test.settle();
SELECT total FROM reports.publish_report('late');

-- events: what is missing in them stops a message, never the one who spoke
CALL test.set('voiding.retry_limit', '1');
BEGIN;
SELECT voiding.emit('DocumentIssued', 'E-1', '{}', 'billing') IS NOT NULL AS id;
SELECT voiding.emit('DocumentIssued', 'E-2', '{"document_id": "E-2", "customer_id": null, "amount": 1, "currency": "EUR"}', 'billing') IS NOT NULL AS id;
SELECT voiding.emit('DocumentIssued', 'E-3', '{"document_id": "E-3", "customer_id": "c", "amount": "lots", "currency": "EUR"}', 'billing') IS NOT NULL AS id;
SELECT voiding.emit('DocumentVoidingRequested', 'E-4', '{}', 'billing') IS NOT NULL AS id;
SELECT voiding.emit('DocumentVoidingRequested', 'E-6', '{"document_id": "E-6"}', 'billing') IS NOT NULL AS id;
SELECT voiding.emit('MarkingDocumentAsVoidedFailed', 'E-6', '{"document_id": "E-6"}', 'reports') IS NOT NULL AS id;
SELECT voiding.emit('MarkingDocumentAsVoidedSucceeded', 'E-7', '{}', 'reports') IS NOT NULL AS id;
SELECT voiding.emit('NobodyWaitsForThis', 'E-8', '{"x": "y"}', 'billing') IS NOT NULL AS id;
SELECT voiding.emit('DocumentVoided', repeat('E', 1024), jsonb_build_object('document_id', repeat('E', 1024)), 'billing') IS NOT NULL AS id;
COMMIT;
CALL test.settle();
SELECT left(aggregateid, 10) AS subject, type, destination, left(error, 100) AS error FROM voiding.dead_letter ORDER BY seq;
SELECT key, state, data FROM voiding.ongoing_process ORDER BY key;
SELECT left(key, 5) AS key, type FROM voiding.parked_event;
-- everybody else goes on
CALL test.set('voiding.retry_limit', '8');
SELECT billing.void_document('INV-1') AS p \gset
CALL test.settle();
SELECT state FROM voiding.process WHERE process_id = :'p';
SELECT count(*) FROM voiding.outbox;
SELECT * FROM voiding.check_invariants();
CALL test.by_hand();
\c contrib_regression
DROP DATABASE regress_voiding;
