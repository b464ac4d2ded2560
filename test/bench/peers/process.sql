-- process.sql: the voiding process as a user of a queue would write it, in the
-- tables of hand.sql. Step by step in sets, for one process or for many: the
-- queue carries ids of processes, and each peer's own file puts them into it.
--
-- A process is a row, with its state and its deadline. What is left out, to the
-- gain of the peers: a table for ended processes, whatever else than the
-- successful way, somebody who looks at deadlines, the message with which Reports
-- hears of the end (complete() does what Reports does then), and events, unless
-- peer.how is history.

CREATE TABLE process (
  process_id  uuid PRIMARY KEY,
  document_id text NOT NULL,
  state       text NOT NULL DEFAULT 'VoidingRequested',
  data        jsonb NOT NULL,
  started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  since       timestamptz NOT NULL DEFAULT clock_timestamp(),
  due_at      timestamptz NOT NULL DEFAULT clock_timestamp() + interval '1 hour',
  finished_at timestamptz,
  xid         xid8 NOT NULL DEFAULT pg_current_xact_id()    -- who requested it, to know when that was committed
) WITH (fillfactor = 80);
CREATE INDEX ON process (due_at) WHERE finished_at IS NULL;

-- Billing asks; the caller puts the process into the queue
CREATE FUNCTION request_voiding(id text, why text) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
  process uuid := new_id();
  d record;
  j jsonb;
BEGIN
  UPDATE document SET status = 'voiding_requested', void_reason = why, requested_by = session_user, process_id = process
   WHERE document_id = id AND status = 'issued' RETURNING customer_id, currency INTO STRICT d;
  j := jsonb_build_object('document_id', id, 'customer_id', d.customer_id, 'currency', d.currency, 'reason', why,
                          'requested_by', session_user);
  INSERT INTO process (process_id, document_id, data) VALUES (process, id, j);
  IF current_setting('peer.how') = 'history' THEN
    INSERT INTO event
    VALUES (nextval('position'), gen_random_uuid(), 'DocumentVoidingRequested', 'billing', id, process, NULL, j, clock_timestamp(),
            pg_current_xact_id(), session_user, process, NULL);
  END IF;
  RETURN process;
END $$;

-- Reports marks, unless the report has been published, and the processes move.
-- Returns those that moved: a second delivery does nothing.
CREATE FUNCTION mark(ids uuid[]) RETURNS uuid[] LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  marked uuid[];
BEGIN
  PERFORM FROM customer_report r
    WHERE r.status = 'open' AND r.report_id IN (
          SELECT l.report_id FROM process p JOIN report_line l USING (document_id) WHERE p.process_id = ANY (ids))
    ORDER BY r.report_id FOR SHARE;
  WITH l AS (
    UPDATE report_line x SET status = 'reserved', process_id = p.process_id, report_id = NULL, reserved_from = x.report_id
      FROM process p, customer_report r
     WHERE p.process_id = ANY (ids) AND p.state = 'VoidingRequested' AND x.document_id = p.document_id
       AND r.report_id = x.report_id AND r.status = 'open'
    RETURNING p.process_id, x.document_id, x.reserved_from, x.amount),
  e AS (
    INSERT INTO event
    SELECT nextval('position'), gen_random_uuid(), 'MarkingDocumentAsVoidedSucceeded', 'reports', document_id, process_id, NULL,
           jsonb_build_object('document_id', document_id, 'report_id', reserved_from, 'amount', amount), clock_timestamp(),
           pg_current_xact_id(), session_user, process_id, NULL
      FROM l WHERE current_setting('peer.how') = 'history'),
  p AS (
    UPDATE process x SET state = 'MarkingDocumentAsVoidedSucceeded', since = clock_timestamp()
      FROM l WHERE x.process_id = l.process_id AND x.state = 'VoidingRequested'
    RETURNING x.process_id)
  SELECT array_agg(process_id) INTO marked FROM p;
  RETURN marked;
END $$;

-- Billing completes, the processes end
CREATE FUNCTION complete(ids uuid[]) RETURNS void LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  WITH p AS (
    UPDATE process SET state = 'DocumentVoided', since = clock_timestamp(), finished_at = clock_timestamp()
     WHERE process_id = ANY (ids) AND state = 'MarkingDocumentAsVoidedSucceeded'
    RETURNING process_id, document_id),
  e AS (
    INSERT INTO event
    SELECT nextval('position'), gen_random_uuid(), 'DocumentVoided', 'billing', document_id, process_id, NULL,
           jsonb_build_object('document_id', document_id, 'voided_at', clock_timestamp()), clock_timestamp(), pg_current_xact_id(),
           session_user, process_id, NULL
      FROM p WHERE current_setting('peer.how') = 'history'),
  d AS (
    UPDATE document x SET status = 'voided', voided_at = clock_timestamp()
      FROM p WHERE x.document_id = p.document_id AND x.process_id = p.process_id AND x.status = 'voiding_requested')
  UPDATE report_line x SET status = 'voided'
    FROM p WHERE x.document_id = p.document_id AND x.process_id = p.process_id;
END $$;

-- until no process is open; commits, so that nobody's rows are kept for it
CREATE PROCEDURE wait_for_end() LANGUAGE plpgsql AS $$
DECLARE
  enough timestamptz := clock_timestamp() + interval '15 min';
BEGIN
  WHILE EXISTS (SELECT FROM process WHERE finished_at IS NULL) LOOP
    IF clock_timestamp() > enough THEN
      RAISE '% processes have not ended', (SELECT count(*) FROM process WHERE finished_at IS NULL);
    END IF;
    COMMIT;
    PERFORM pg_sleep(0.01);
  END LOOP;
END $$;

-- What must hold in the end, each step done once for each request; left_over()
-- is the peer's: messages that are not done, or not done at once.
CREATE FUNCTION breaches(requested bigint) RETURNS TABLE (what text, n bigint) LANGUAGE plpgsql AS $$
BEGIN
  RETURN QUERY SELECT v.* FROM (VALUES
    ('requests without a process that ended', requested - (SELECT count(DISTINCT document_id) FROM process WHERE state = 'DocumentVoided')),
    ('processes too many', (SELECT count(*) FROM process) - requested),
    ('documents that are not voided', requested - (SELECT count(*) FROM document d JOIN process p USING (process_id)
       WHERE d.status = 'voided' AND d.document_id = p.document_id)),
    ('lines that are not marked', requested - (SELECT count(*) FROM report_line l JOIN process p USING (process_id)
       WHERE l.status = 'voided' AND l.report_id IS NULL AND l.reserved_from IS NOT NULL AND l.document_id = p.document_id)),
    ('events that are missing or too many', (SELECT count(*) FROM event WHERE process_id IS NOT NULL)
       - CASE current_setting('peer.how') WHEN 'history' THEN 3 * requested ELSE 0 END),
    ('messages left over', left_over(requested))
  ) v (what, n) WHERE v.n <> 0;
END $$;

-- milliseconds from the commit of a request to the commit of the end
CREATE FUNCTION latency(first text) RETURNS SETOF numeric LANGUAGE sql AS $$
  SELECT extract(epoch FROM pg_xact_commit_timestamp(xmin) - pg_xact_commit_timestamp(xid::xid)) * 1000
    FROM process WHERE document_id >= first
$$;
