-- reports.sql: the service Reports: it collects documents, a report for each
-- customer and currency, and publishes it.
--
-- An ordinary schema that uses the engine's public calls only. This file is
-- run by voiding.create_document_voiding(); by hand: psql -v reports=NAME.
--
-- The rule that must never break: no document is voided once a report that
-- contains it has been published. Marking a document is a reservation, made
-- under a share lock of its report: it takes the line out of the report.
-- Publication locks the report for update, and no line (what is set aside may
-- be coming back, and wait for that very lock). Only Billing's word ends a reservation. No message updates a row that many
-- documents share: the total of an open report is a sum over its lines.

SELECT voiding.create_service(:'reports');

CREATE TABLE :"reports".customer_report (
  report_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  customer_id  text NOT NULL,
  currency     text NOT NULL,
  status       text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'published')),
  total        numeric,
  opened_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  published_at timestamptz,
  CHECK ((status = 'published') = (total IS NOT NULL AND published_at IS NOT NULL))
);
CREATE UNIQUE INDEX customer_report_open ON :"reports".customer_report (customer_id, currency) WHERE status = 'open';
COMMENT ON TABLE :"reports".customer_report IS 'reports; one open for a customer and currency; look at them in "report"';

CREATE TABLE :"reports".report_line (
  document_id text PRIMARY KEY,
  report_id   bigint,
  customer_id text NOT NULL,
  currency    text NOT NULL,
  amount      numeric NOT NULL,
  status      text NOT NULL DEFAULT 'included' CHECK (status IN ('included', 'reserved', 'voided')),
  process_id  uuid,
  reserved_from bigint,
  CHECK ((status = 'included') = (report_id IS NOT NULL))
) WITH (fillfactor = 70);
CREATE INDEX report_line_report_id ON :"reports".report_line (report_id);
COMMENT ON TABLE :"reports".report_line IS 'documents in reports';
COMMENT ON COLUMN :"reports".report_line.status IS 'reserved: set aside, it is being voided';
COMMENT ON COLUMN :"reports".report_line.report_id IS 'the report that contains it; null: set aside';
COMMENT ON COLUMN :"reports".report_line.reserved_from IS 'the report that it was set aside from';
COMMENT ON COLUMN :"reports".report_line.process_id IS 'the process that set it aside';

CREATE TABLE :"reports".refusal (
  process_id   uuid PRIMARY KEY,
  document_id  text NOT NULL,
  report_id    bigint,
  published_at timestamptz,
  reason       text NOT NULL,
  aborted      boolean NOT NULL DEFAULT false,
  refused_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE :"reports".refusal IS 'processes that may not (any more) mark their document: the answer to a mark that comes again';
COMMENT ON COLUMN :"reports".refusal.aborted IS 'Billing gave the voiding up: nobody is told';

CREATE VIEW :"reports".report AS
  SELECT r.report_id, r.customer_id, r.currency, r.status,
         CASE r.status WHEN 'published' THEN r.total
           ELSE coalesce((SELECT sum(l.amount) FROM :"reports".report_line l
                           WHERE l.report_id = r.report_id), 0) END AS total,
         r.published_at, r.opened_at
    FROM :"reports".customer_report r;
COMMENT ON VIEW :"reports".report IS 'reports with their totals: of an open one computed, of a published one as it was sent';

CREATE TRIGGER report_published AFTER UPDATE ON :"reports".customer_report
  FOR EACH ROW EXECUTE FUNCTION voiding.emit_event('ReportPublished', '@becomes=status=published', 'report_id', 'customer_id', 'currency', 'total');
CREATE TRIGGER marking_succeeded AFTER UPDATE ON :"reports".report_line
  FOR EACH ROW EXECUTE FUNCTION voiding.emit_event('MarkingDocumentAsVoidedSucceeded', '@becomes=status=reserved', '@correlation=process_id',
    'document_id', 'report_id=reserved_from', 'amount');
CREATE TRIGGER marking_failed AFTER INSERT ON :"reports".refusal
  FOR EACH ROW WHEN (NOT NEW.aborted)
  EXECUTE FUNCTION voiding.emit_event('MarkingDocumentAsVoidedFailed', '@correlation=process_id',
    'document_id', 'report_id', 'published_at', 'reason');

-- The open report of a customer and currency, made if need be, share-locked:
-- it cannot be published before this transaction ends.
CREATE FUNCTION :"reports".open_report(customer_id text, currency text) RETURNS bigint
  LANGUAGE plpgsql VOLATILE SET search_path = :"reports", pg_temp
AS $$
#variable_conflict use_column
DECLARE
  id bigint;
BEGIN
  LOOP
    SELECT r.report_id INTO id FROM customer_report r
     WHERE r.customer_id = open_report.customer_id AND r.currency = open_report.currency AND r.status = 'open'
       FOR SHARE;
    EXIT WHEN FOUND;
    INSERT INTO customer_report (customer_id, currency) VALUES (open_report.customer_id, open_report.currency)
    ON CONFLICT (customer_id, currency) WHERE status = 'open' DO NOTHING
    RETURNING report_id INTO id;
    EXIT WHEN FOUND;
  END LOOP;
  RETURN id;
END $$;

CREATE FUNCTION :"reports".include_document(document_id text, customer_id text, amount numeric, currency text) RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = :"reports", pg_temp
AS $$
#variable_conflict use_column
BEGIN
  IF NOT EXISTS (SELECT FROM report_line l WHERE l.document_id = include_document.document_id) THEN
    INSERT INTO report_line (document_id, report_id, customer_id, currency, amount)
    VALUES (include_document.document_id, open_report(include_document.customer_id, include_document.currency),
            include_document.customer_id, include_document.currency, include_document.amount);
  END IF;
END $$;
COMMENT ON FUNCTION :"reports".include_document(text, text, numeric, text) IS 'put a document into the customer''s open report';

-- For many documents, here and below: those where all is as it should be at
-- once; if those are not all, each by itself, which does no harm to what is
-- done. One plan for any number, which must not depend on how small the tables
-- once were.
CREATE FUNCTION :"reports".include_documents(document_id text[], customer_id text[], amount numeric[], currency text[]) RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = :"reports", pg_temp SET plan_cache_mode = force_generic_plan
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
BEGIN
  INSERT INTO report_line (document_id, report_id, customer_id, currency, amount)
  SELECT m.document_id, r.report_id, m.customer_id, m.currency, m.amount
    FROM unnest(include_documents.document_id, include_documents.customer_id, include_documents.amount,
                include_documents.currency) m (document_id, customer_id, amount, currency)
    JOIN (SELECT x.customer_id, x.currency, open_report(x.customer_id, x.currency) AS report_id
            FROM (SELECT DISTINCT c.customer_id, c.currency
                    FROM unnest(include_documents.customer_id, include_documents.currency) c (customer_id, currency)
                   ORDER BY 1, 2 OFFSET 0) x) r USING (customer_id, currency)
  ON CONFLICT (document_id) DO NOTHING;
END $$;
COMMENT ON FUNCTION :"reports".include_documents(text[], text[], numeric[], text[]) IS
  'handler of DocumentIssued: put documents into their customers'' open reports';

CREATE FUNCTION :"reports".mark_document_as_voided(document_id text, process_id uuid) RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = :"reports", pg_temp
AS $$
#variable_conflict use_column
DECLARE
  l report_line;
  r customer_report;
BEGIN
  IF EXISTS (SELECT FROM refusal x WHERE x.process_id = mark_document_as_voided.process_id) THEN
    RETURN;                      -- answered before
  END IF;
  SELECT * INTO l FROM report_line x WHERE x.document_id = mark_document_as_voided.document_id FOR UPDATE;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'Reports has not heard of document "%" yet', mark_document_as_voided.document_id
      USING ERRCODE = 'VD04A', HINT = 'It is tried again later.';
  ELSIF l.status <> 'included' AND l.process_id = mark_document_as_voided.process_id THEN
    RETURN;                      -- done before
  ELSIF l.status = 'reserved' THEN
    RAISE EXCEPTION 'document "%" is still set aside by process %', l.document_id, l.process_id
      USING ERRCODE = 'object_in_use', HINT = 'It is tried again later.';
  END IF;
  SELECT * INTO r FROM customer_report x WHERE x.report_id = coalesce(l.report_id, l.reserved_from) FOR SHARE;
  IF l.status = 'included' AND r.status = 'open' THEN
    UPDATE report_line x
       SET status = 'reserved', process_id = mark_document_as_voided.process_id, report_id = NULL, reserved_from = l.report_id
     WHERE x.document_id = l.document_id;
  ELSE
    INSERT INTO refusal (process_id, document_id, report_id, published_at, reason)
    VALUES (mark_document_as_voided.process_id, l.document_id, r.report_id, r.published_at,
            CASE WHEN l.status = 'voided' THEN format('document %s has been voided by another process', l.document_id)
                 ELSE format('report %s was published on %s', r.report_id, to_char(r.published_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')) END);
  END IF;
END $$;
COMMENT ON FUNCTION :"reports".mark_document_as_voided(text, uuid) IS
  'set a document aside, or refuse because its report has been published';

CREATE FUNCTION :"reports".mark_documents_as_voided(document_id text[], process_id uuid[]) RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = :"reports", pg_temp SET plan_cache_mode = force_generic_plan
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
  done bigint;
BEGIN
  -- keep their reports from being published
  PERFORM FROM customer_report r
    WHERE r.report_id IN (SELECT l.report_id FROM report_line l
                           WHERE l.document_id = ANY (mark_documents_as_voided.document_id) AND l.status = 'included')
    ORDER BY r.report_id FOR SHARE;
  UPDATE report_line x SET status = 'reserved', process_id = m.process_id, report_id = NULL, reserved_from = x.report_id
    FROM unnest(mark_documents_as_voided.document_id, mark_documents_as_voided.process_id) m (document_id, process_id),
         customer_report r
   WHERE x.document_id = m.document_id AND x.status = 'included' AND r.report_id = x.report_id AND r.status = 'open'
     AND NOT EXISTS (SELECT FROM refusal f WHERE f.process_id = m.process_id);
  GET DIAGNOSTICS done = ROW_COUNT;
  IF done < cardinality(mark_documents_as_voided.document_id) THEN
    FOR i IN 1 .. cardinality(mark_documents_as_voided.document_id) LOOP
      PERFORM mark_document_as_voided(mark_documents_as_voided.document_id[i], mark_documents_as_voided.process_id[i]);
    END LOOP;
  END IF;
END $$;
COMMENT ON FUNCTION :"reports".mark_documents_as_voided(text[], uuid[]) IS
  'handler: set documents aside; refuse those whose report has been published';

CREATE FUNCTION :"reports".confirm_voided(document_id text, correlation_id uuid) RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = :"reports", pg_temp
AS $$
#variable_conflict use_column
BEGIN
  UPDATE report_line x SET status = 'voided'
   WHERE x.document_id = confirm_voided.document_id AND x.process_id = confirm_voided.correlation_id;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'document "%" was not set aside by process %', confirm_voided.document_id, confirm_voided.correlation_id
      USING ERRCODE = 'VD09C', HINT = 'It is tried again later.';
  END IF;
END $$;
COMMENT ON FUNCTION :"reports".confirm_voided(text, uuid) IS 'a document that was set aside is voided';

CREATE FUNCTION :"reports".confirm_all_voided(document_id text[], correlation_id uuid[]) RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = :"reports", pg_temp SET plan_cache_mode = force_generic_plan
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
  done bigint;
BEGIN
  UPDATE report_line x SET status = 'voided'
    FROM unnest(confirm_all_voided.document_id, confirm_all_voided.correlation_id) m (document_id, process_id)
   WHERE x.document_id = m.document_id AND x.process_id = m.process_id;
  GET DIAGNOSTICS done = ROW_COUNT;
  IF done < cardinality(confirm_all_voided.document_id) THEN
    FOR i IN 1 .. cardinality(confirm_all_voided.document_id) LOOP
      PERFORM confirm_voided(confirm_all_voided.document_id[i], confirm_all_voided.correlation_id[i]);
    END LOOP;
  END IF;
END $$;
COMMENT ON FUNCTION :"reports".confirm_all_voided(text[], uuid[]) IS 'handler of DocumentVoided: what was set aside is voided';

CREATE FUNCTION :"reports".release_document(document_id text, correlation_id uuid) RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = :"reports", pg_temp
AS $$
#variable_conflict use_column
DECLARE
  l report_line;
BEGIN
  -- whatever comes of this process from now on is too late
  INSERT INTO refusal (process_id, document_id, reason, aborted)
  VALUES (release_document.correlation_id, release_document.document_id, 'the voiding was aborted', true)
  ON CONFLICT (process_id) DO NOTHING;
  SELECT * INTO l FROM report_line x
   WHERE x.document_id = release_document.document_id AND x.process_id = release_document.correlation_id AND x.status = 'reserved'
     FOR UPDATE;
  IF FOUND THEN
    UPDATE report_line x
       SET status = 'included', process_id = NULL, reserved_from = NULL, report_id = open_report(l.customer_id, l.currency)
     WHERE x.document_id = l.document_id;
  END IF;
END $$;
COMMENT ON FUNCTION :"reports".release_document(text, uuid) IS
  'handler of DocumentVoidingAborted: back into the customer''s open report';

-- Lock a customer's open reports against marks, all or none: a batch of marks
-- holds several reports, in any order, and whoever waits for one of them with
-- another one in hand can meet a deadlock.
CREATE FUNCTION :"reports".lock_open_reports(customer_id text, currency text) RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = :"reports", pg_temp
AS $$
DECLARE
  id bigint;
BEGIN
  LOOP
    BEGIN
      PERFORM FROM customer_report x
        WHERE x.customer_id = lock_open_reports.customer_id AND x.status = 'open'
          AND (lock_open_reports.currency IS NULL OR x.currency = lock_open_reports.currency)
          FOR UPDATE NOWAIT;
      RETURN;
    EXCEPTION WHEN lock_not_available THEN
      NULL;                      -- what was locked is free again
    END;
    FOR id IN SELECT x.report_id FROM customer_report x
               WHERE x.customer_id = lock_open_reports.customer_id AND x.status = 'open' LOOP
      BEGIN                      -- wait until it is free, and let go of it
        PERFORM FROM customer_report x WHERE x.report_id = id FOR UPDATE;
        RAISE SQLSTATE 'VD000';
      EXCEPTION WHEN SQLSTATE 'VD000' THEN
        NULL;
      END;
    END LOOP;
  END LOOP;
END $$;

CREATE FUNCTION :"reports".publish_report(customer_id text, currency text DEFAULT NULL) RETURNS SETOF :"reports".report
  LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = :"reports", pg_temp
AS $$
#variable_conflict use_column
DECLARE
  r     customer_report;
  found_one boolean := false;
BEGIN
  PERFORM lock_open_reports(publish_report.customer_id, publish_report.currency);
  PERFORM voiding.check_snapshot();  -- under REPEATABLE READ: do we see all lines?
  FOR r IN SELECT * FROM customer_report x
            WHERE x.customer_id = publish_report.customer_id AND x.status = 'open'
              AND (publish_report.currency IS NULL OR x.currency = publish_report.currency)
            ORDER BY x.report_id FOR UPDATE LOOP
    CONTINUE WHEN NOT EXISTS (SELECT FROM report_line l WHERE l.report_id = r.report_id);
    found_one := true;
    UPDATE customer_report x
       SET status = 'published', published_at = clock_timestamp(),
           total = (SELECT sum(l.amount) FROM report_line l WHERE l.report_id = r.report_id)
     WHERE x.report_id = r.report_id;
    RETURN QUERY SELECT * FROM report x WHERE x.report_id = r.report_id;
  END LOOP;
  IF NOT found_one THEN
    RAISE EXCEPTION 'customer "%" has nothing to publish%', left(publish_report.customer_id, 200),
                    coalesce(' in ' || left(publish_report.currency, 20), '')
      USING ERRCODE = 'VD04C',
            HINT = 'Its documents are published already, being voided, or not yet in its report.';
  END IF;
END $$;
COMMENT ON FUNCTION :"reports".publish_report(text, text) IS
  'publish a customer''s open reports, of one currency or all; what is being voided is not in them';

-- Who may execute these may read every report.
CREATE FUNCTION :"reports".get_report(report_id bigint) RETURNS jsonb
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = :"reports", pg_temp
AS $$
  SELECT to_jsonb(r) || jsonb_build_object('lines', coalesce((
           SELECT jsonb_agg(jsonb_build_object('document_id', l.document_id, 'amount', l.amount, 'status', l.status) ORDER BY l.document_id)
             FROM report_line l WHERE l.report_id = r.report_id), '[]'))
    FROM report r WHERE r.report_id = get_report.report_id
$$;
COMMENT ON FUNCTION :"reports".get_report(bigint) IS 'query "report": a report with its documents; null: there is none';

CREATE FUNCTION :"reports".get_reports(customer_id text DEFAULT NULL, currency text DEFAULT NULL, status text DEFAULT NULL,
    before bigint DEFAULT NULL, batch_size integer DEFAULT 100) RETURNS SETOF :"reports".report
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = :"reports", pg_temp
AS $$
  SELECT * FROM report r
   WHERE (get_reports.customer_id IS NULL OR r.customer_id = get_reports.customer_id)
     AND (get_reports.currency IS NULL OR r.currency = get_reports.currency)
     AND (get_reports.status IS NULL OR r.status = get_reports.status)
     AND (get_reports.before IS NULL OR r.report_id < get_reports.before)
   ORDER BY r.report_id DESC LIMIT least(greatest(batch_size, 1), 1000)
$$;
COMMENT ON FUNCTION :"reports".get_reports(text, text, text, bigint, integer) IS
  'query "reports": the latest reports, those before one that is known';

CREATE FUNCTION :"reports".check_invariants() RETURNS TABLE (invariant text, subject text, detail text)
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = :"reports", pg_temp
AS $$
  SELECT 'a published report has the total of its lines', r.report_id::text, format('%s, lines %s', r.total, s.total)
    FROM customer_report r
    LEFT JOIN (SELECT report_id, sum(amount) AS total FROM report_line WHERE status = 'included' GROUP BY report_id) s USING (report_id)
   WHERE r.status = 'published' AND r.total IS DISTINCT FROM s.total
  UNION ALL
  SELECT 'a published report contains only lines that are included', l.document_id, l.status
    FROM report_line l JOIN customer_report r USING (report_id) WHERE r.status = 'published' AND l.status <> 'included'
  UNION ALL
  SELECT 'no document of a published report is voided', l.document_id, format('report %s', l.report_id)
    FROM report_line l JOIN customer_report r USING (report_id)
    JOIN voiding.event e ON e.type = 'DocumentVoided' AND e.subject = l.document_id
   WHERE r.status = 'published'
  UNION ALL
  SELECT 'a document is in a report of its customer and currency', l.document_id, l.report_id::text
    FROM report_line l JOIN customer_report r USING (report_id) WHERE (l.customer_id, l.currency) <> (r.customer_id, r.currency)
  UNION ALL
  SELECT 'a line is the document that was issued', l.document_id, l.amount::text
    FROM report_line l
    LEFT JOIN voiding.event e ON e.type = 'DocumentIssued' AND e.subject = l.document_id
   WHERE (e.data ->> 'amount')::numeric IS DISTINCT FROM l.amount OR e.data ->> 'customer_id' IS DISTINCT FROM l.customer_id
  UNION ALL
  SELECT 'an issued document is in a report, or on its way', e.subject, e.event_id::text
    FROM voiding.event e
   WHERE e.type = 'DocumentIssued'
     AND NOT EXISTS (SELECT FROM report_line l WHERE l.document_id = e.subject)
     AND NOT EXISTS (SELECT FROM voiding.outbox o WHERE o.id = e.event_id)
     AND NOT EXISTS (SELECT FROM voiding.dead_letter d WHERE d.id = e.event_id)
  UNION ALL
  SELECT 'a voided document is voided here, or that is on its way', e.subject, e.event_id::text
    FROM voiding.event e
   WHERE e.type = 'DocumentVoided'
     AND NOT EXISTS (SELECT FROM report_line l WHERE l.document_id = e.subject AND l.status = 'voided')
     AND NOT EXISTS (SELECT FROM voiding.outbox o WHERE o.id = e.event_id)
     AND NOT EXISTS (SELECT FROM voiding.dead_letter d WHERE d.id = e.event_id)
  UNION ALL
  SELECT 'what is set aside will be heard of again', l.document_id, l.process_id::text
    FROM report_line l
   WHERE l.status = 'reserved' AND EXISTS (SELECT FROM voiding.process_type t WHERE t.name = 'document_voiding')
     AND NOT EXISTS (SELECT FROM voiding.ongoing_process o WHERE o.process_id = l.process_id)
     AND NOT EXISTS (SELECT FROM voiding.outbox o WHERE o.correlation_id = l.process_id)
     AND NOT EXISTS (SELECT FROM voiding.dead_letter d WHERE d.correlation_id = l.process_id)
$$;
COMMENT ON FUNCTION :"reports".check_invariants() IS 'a row for each breach of what must always hold in Reports';

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA :"reports" FROM PUBLIC;

SELECT voiding.create_command('MarkDocumentAsVoided', format('%I.mark_documents_as_voided', :'reports')::regproc, takes_set => true);
SELECT voiding.create_command('PublishReport', format('%I.publish_report', :'reports')::regproc, resource => '/reports?customer_id={customer_id}');
SELECT voiding.subscribe('DocumentIssued', format('%I.include_documents', :'reports')::regproc, takes_set => true);
SELECT voiding.subscribe('DocumentVoided', format('%I.confirm_all_voided', :'reports')::regproc, takes_set => true);
SELECT voiding.subscribe('DocumentVoidingAborted', format('%I.release_document', :'reports')::regproc);
SELECT voiding.create_query('report', format('%I.get_report', :'reports')::regproc);
SELECT voiding.create_query('reports', format('%I.get_reports', :'reports')::regproc);
