-- history.sql: documents that were issued and voided long ago, as a void leaves
-- them: the document, its report line, four events, the process that has ended.

-- Written straight into the tables, no trigger fired, with the ids and in the
-- order in which voids would have come. A void draws eight positions: for four
-- events and four messages.
CREATE FUNCTION past(first bigint, last bigint) RETURNS void LANGUAGE sql
  SET session_replication_role = replica SET synchronous_commit = off
AS $$
  WITH h AS MATERIALIZED (
    SELECT i, 'D' || i AS document, 'C' || i % 1000 AS customer, (i % 100000 / 100.0)::numeric(9, 2) AS amount,
           (i - 10000000) * 8 AS position, clock_timestamp() AS t,
           voiding.uuid() AS issued, voiding.uuid() AS process, voiding.uuid() AS requested, voiding.uuid() AS marking,
           voiding.uuid() AS marked, voiding.uuid() AS completing, voiding.uuid() AS voided
      FROM generate_series(first, last) i),
  p AS MATERIALIZED (
    SELECT h.*, jsonb_build_object('document_id', document, 'customer_id', customer, 'currency', 'EUR', 'reason', 'bench',
                                   'requested_by', session_user) AS data
      FROM h),
  d AS (
    INSERT INTO billing.document (document_id, customer_id, amount, status, void_reason, requested_by, process_id, issued_at, voided_at)
    SELECT document, customer, amount, 'voided', 'bench', session_user, process, t, t FROM h),
  l AS (
    INSERT INTO reports.report_line (document_id, customer_id, currency, amount, status, process_id, reserved_from)
    SELECT document, customer, 'EUR', amount, 'voided', process, i % 1000 + 1 FROM h),
  f AS (
    INSERT INTO voiding.finished_process
           (process_id, type, version, key, state, failed, data, started_at, since, updated_at, conversation, finished_at, outcome)
    SELECT process, 'document_voiding', 1, document, 'DocumentVoided', false, data, t, t, t, process, t, 'done' FROM p)
  INSERT INTO voiding.event
  SELECT p.position + e.n, e.id, e.type, e.source, document, e.conversation, e.cause, e.data, t, pg_current_xact_id(),
         session_user, e.process, e.steps::jsonb
    FROM p, LATERAL (VALUES
      (0, issued, 'DocumentIssued', 'billing', issued, NULL::uuid, NULL::uuid,
       jsonb_build_object('document_id', document, 'customer_id', customer, 'kind', 'invoice', 'amount', amount,
                          'currency', 'EUR', 'issued_at', t), NULL),
      (2, requested, 'DocumentVoidingRequested', 'billing', process, NULL, process, data,
       '[{"to": "VoidingRequested", "from": null, "send": ["MarkDocumentAsVoided"],
          "event": "DocumentVoidingRequested", "process_id": "' || process || '"}]'),
      (4, marked, 'MarkingDocumentAsVoidedSucceeded', 'reports', process, marking, process,
       jsonb_build_object('document_id', document, 'report_id', i % 1000 + 1, 'amount', amount),
       '[{"to": "MarkingDocumentAsVoidedSucceeded", "from": "VoidingRequested", "send": ["CompleteDocumentVoiding"],
          "event": "MarkingDocumentAsVoidedSucceeded", "process_id": "' || process || '"}]'),
      (6, voided, 'DocumentVoided', 'billing', process, completing, process,
       jsonb_build_object('document_id', document, 'voided_at', t),
       '[{"to": "DocumentVoided", "from": "MarkingDocumentAsVoidedSucceeded",
          "event": "DocumentVoided", "process_id": "' || process || '"}]')
      ) AS e (n, id, type, source, conversation, cause, process, data, steps)
$$;

-- What is left of a document, without what differs from one to the next. Of one
-- of past() and of one that was voided here it has to be the same.
CREATE FUNCTION traces(document text) RETURNS SETOF text LANGUAGE sql STABLE AS $$
  WITH r (n, what, content) AS (
    SELECT 0, 'document', to_jsonb(d) FROM billing.document d WHERE document_id = document
    UNION ALL SELECT 0, 'report line', to_jsonb(l) FROM reports.report_line l WHERE document_id = document
    UNION ALL SELECT 0, 'process', to_jsonb(p) FROM voiding.process p WHERE key = document
    UNION ALL SELECT 0, 'finished process', to_jsonb(f) FROM voiding.finished_process f WHERE key = document
    UNION ALL SELECT position, 'event', to_jsonb(e) FROM voiding.event e WHERE subject = document
    UNION ALL SELECT step, 'step', to_jsonb(h) FROM voiding.process_history h WHERE key = document)
  SELECT what || ': ' || string_agg(k || CASE WHEN k IN ('status', 'state', 'type', 'source', 'outcome', 'failed', 'version', 'step',
                                                          'event', 'from_state', 'to_state', 'command', 'actor') THEN '=' || (content ->> k)
                                              WHEN k IN ('data', 'steps') THEN '=' || regexp_replace(content ->> k,
                                                '[0-9a-f-]{36}|[0-9T:.+-]{20,}|"amount": [0-9.]+|"report_id": [0-9]+|"[DC][0-9]+"', '...', 'g')
                                              ELSE '' END, ' ' ORDER BY k)
    FROM r, LATERAL (SELECT key AS k FROM jsonb_each(content) WHERE value <> 'null') x
   GROUP BY what, n, content ORDER BY what, n
$$;
