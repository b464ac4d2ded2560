-- go_on.sql: what goes on after the story: what is done next, and what is new.
-- Run again on the same database it goes on where it was.

CREATE SEQUENCE IF NOT EXISTS demo.tick;

CREATE TABLE IF NOT EXISTS demo.customer (turn integer PRIMARY KEY, customer_id text NOT NULL, currency text NOT NULL);
INSERT INTO demo.customer
VALUES (0, 'Albrecht Lagertechnik', 'EUR'), (1, 'Cotswold Interiors', 'GBP'), (2, 'Engadiner Holzbau', 'CHF')
ON CONFLICT DO NOTHING;

-- its documents that no published report contains and nobody is voiding, the
-- oldest report first, in it the newest document
CREATE OR REPLACE VIEW demo.candidate AS
  SELECT l.document_id, r.report_id, r.customer_id, r.currency
    FROM reports.report_line l JOIN reports.report r USING (report_id)
   WHERE l.document_id LIKE 'demo-%' AND l.status = 'included' AND r.status = 'open'
   ORDER BY r.report_id, l.document_id DESC;

-- The next statements: always a document, and now and then one is voided; or a
-- report is published and one of its documents voided at once, which is too
-- late; or that failure is acknowledged.
CREATE OR REPLACE FUNCTION demo.next_calls() RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
  n     bigint := nextval('demo.tick');
  calls text[];
BEGIN
  IF n % 10 IN (2, 4, 8) THEN
    SELECT ARRAY[format('SELECT billing.void_document(%L, %L)', max(document_id), 'entered twice')] INTO calls
      FROM demo.candidate HAVING count(*) > 0;
  ELSIF n % 10 = 6 THEN
    SELECT ARRAY[format('SELECT total FROM reports.publish_report(%L, %L)', customer_id, currency),
                 format('SELECT billing.void_document(%L, %L)', document_id, 'wrong customer')] INTO calls
      FROM demo.candidate LIMIT 1;
  ELSIF n % 10 = 9 THEN
    SELECT array_agg(format('SELECT voiding.acknowledge_process_failure(%L, %L)', process_id, 'a credit note was sent')) INTO calls
      FROM voiding.ongoing_process WHERE failed AND key LIKE 'demo-%' AND data ->> 'reason' = 'wrong customer';
  END IF;
  RETURN QUERY SELECT format('SELECT billing.issue_document(%L, %L, %s, %L)', 'demo-' || to_char(n, 'FM000000'), customer_id,
                             round(10 + n * 7919 % 90000 / 100.0, 2), currency)
                 FROM demo.customer c WHERE c.turn = n % 3;
  RETURN QUERY SELECT unnest(calls);
END $$;

-- ---- what is new ----

-- what the demo called, and what was refused
CREATE TABLE IF NOT EXISTS demo.call (
  at     timestamptz NOT NULL DEFAULT clock_timestamp(),
  what   text NOT NULL,
  detail text NOT NULL,
  xid    xid8 NOT NULL DEFAULT pg_current_xact_id()
);

-- What was shown: all that this snapshot sees. Positions are not in the order
-- of commits, a cursor on them alone would lose what commits late; they only
-- spare us the events of the story.
CREATE TABLE IF NOT EXISTS demo.cursor (snapshot pg_snapshot NOT NULL, after bigint NOT NULL);
INSERT INTO demo.cursor
SELECT pg_current_snapshot(), (SELECT coalesce(max(position), 0) FROM voiding.event)
 WHERE NOT EXISTS (SELECT FROM demo.cursor);

CREATE OR REPLACE FUNCTION demo.line(at timestamptz, who text, what text, detail text) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT format('%s  %-8s %-8s %s', to_char(at, 'HH24:MI:SS.MS'), who, what, detail)
$$;

CREATE OR REPLACE FUNCTION demo.line(e voiding.event, who text, what text, detail text) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT demo.line(e.recorded_at, who, what, format('%-11s %s', e.subject, detail))
$$;

-- an event, and what it did to a process: its state, a task, commands
CREATE OR REPLACE FUNCTION demo.lines(e voiding.event) RETURNS SETOF text LANGUAGE plpgsql STABLE AS $$
DECLARE
  step jsonb;
BEGIN
  RETURN NEXT demo.line(e, e.source, 'event', concat_ws(', ', e.type, e.data ->> 'customer_id',
    coalesce(e.data ->> 'amount', e.data ->> 'total') || ' ' || (e.data ->> 'currency'), e.data ->> 'reason')
    || demo.to_whom('event', e.type));
  FOR step IN SELECT jsonb_array_elements(e.steps) LOOP
    IF step ->> 'from' IS DISTINCT FROM step ->> 'to' THEN
      RETURN NEXT demo.line(e, 'process', 'state', concat_ws(' ', step ->> 'from', '->', step ->> 'to'));
      RETURN QUERY SELECT demo.line(e, 'process', 'task', format('%s, for a person', t.definition #>> task.path))
                     FROM voiding.process p JOIN voiding.process_type t ON (t.name, t.version) = (p.type, p.version),
                          LATERAL (SELECT ARRAY['states', step ->> 'to', 'task', 'type'] AS path) task
                    WHERE p.process_id = (step ->> 'process_id')::uuid AND t.definition #> task.path IS NOT NULL;
    END IF;
    RETURN QUERY SELECT demo.line(e, 'process', 'command', c || demo.to_whom('command', c))
                   FROM jsonb_array_elements_text(step -> 'send') c;
  END LOOP;
END $$;

-- What was not shown yet. One statement, so that what it reads and where it
-- goes on next time are one snapshot.
CREATE OR REPLACE FUNCTION demo.news() RETURNS SETOF text LANGUAGE sql SET jit = off AS $$
  WITH event AS MATERIALIZED (
    SELECT e, e.recorded_at AS at, e.position FROM voiding.event e, demo.cursor c
     WHERE e.position > c.after AND NOT pg_visible_in_snapshot(e.xid, c.snapshot)),
  news AS MATERIALIZED (
    SELECT x.at, x.position, l.n, l.line FROM event x, demo.lines(x.e) WITH ORDINALITY AS l(line, n)
    UNION ALL
    SELECT x.at, 0, 0, demo.line(x.at, 'demo', x.what, x.detail) FROM demo.call x, demo.cursor c
     WHERE NOT pg_visible_in_snapshot(x.xid, c.snapshot)),
  moved AS (UPDATE demo.cursor SET snapshot = pg_current_snapshot() WHERE EXISTS (SELECT FROM news))
  SELECT line FROM news ORDER BY at, position, n
$$;
