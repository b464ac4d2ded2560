-- Every message twice, then every message twice and in any order: the same
-- end as once and in order.
-- By hand: messages are copied and shuffled in the outbox, one at a time.
CREATE DATABASE regress_delivered_twice;
\c regress_delivered_twice
\set SHOW_CONTEXT never
CREATE EXTENSION voiding;
SET voiding.retry_limit = 1000;
SET voiding.notify = off;
CREATE TABLE copied (id uuid, destination text, PRIMARY KEY (id, destination));
CREATE TABLE too_early (id uuid PRIMARY KEY);
-- once more each message that has not been copied yet, at the end of its queue
CREATE FUNCTION copy_messages() RETURNS void LANGUAGE sql AS $$
  WITH fresh AS (INSERT INTO copied SELECT id, destination FROM voiding.outbox ON CONFLICT DO NOTHING RETURNING *)
  INSERT INTO voiding.outbox
  SELECT id, aggregatetype, aggregateid, type, payload, source, destination, correlation_id, causation_id, 0, available_at, created_at, bucket,
         pg_current_xact_id(), nextval('voiding.position'), sent_in, NULL
    FROM voiding.outbox JOIN fresh USING (id, destination)
$$;
-- bring one message, which is chosen by lot, before all others, and hold these back
CREATE FUNCTION draw_one() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  s bigint := (SELECT seq FROM voiding.outbox ORDER BY random(), seq LIMIT 1);
BEGIN
  UPDATE voiding.outbox SET available_at = 'infinity';
  UPDATE voiding.outbox SET available_at = '-infinity', seq = (SELECT min(seq) - 1 FROM voiding.outbox) WHERE seq = s;
END $$;
CREATE FUNCTION deliver(mode text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  FOR i IN 1 .. 5000 LOOP
    IF mode <> 'plain' THEN
      PERFORM copy_messages();
    END IF;
    IF mode = 'shuffled' THEN
      PERFORM draw_one();
    ELSE
      UPDATE voiding.outbox SET available_at = '-infinity' WHERE available_at > voiding.now();
    END IF;
    PERFORM voiding.dispatch(NULL, 1);
    INSERT INTO too_early SELECT id FROM voiding.outbox WHERE attempts > 0 ON CONFLICT DO NOTHING;
    EXIT WHEN NOT EXISTS (SELECT FROM voiding.outbox);
  END LOOP;
  IF EXISTS (SELECT FROM voiding.outbox) THEN
    RAISE EXCEPTION 'messages are left after 5000 rounds';
  END IF;
END $$;
-- one story, with documents and customers of its own
CREATE FUNCTION play(mode text, run text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  -- issued, and some voided before Reports has heard of them
  PERFORM billing.issue_document(run || i, run || ' customer ' || i % 4, i + 0.25, CASE WHEN i % 3 = 0 THEN 'USD' ELSE 'EUR' END) FROM generate_series(1, 24) i;
  PERFORM billing.void_document(run || i) FROM unnest('{3,9,14}'::int[]) i;
  PERFORM deliver(mode);
  -- published, and then more voided: some too late
  PERFORM reports.publish_report(run || ' customer 1'), reports.publish_report(run || ' customer 2', 'EUR');
  PERFORM billing.void_document(run || i) FROM unnest('{1,2,4,5,6,12}'::int[]) i;
  PERFORM billing.issue_document(run || i, run || ' customer ' || i % 4, i) FROM generate_series(25, 28) i;
  PERFORM deliver(mode);
  -- acknowledged, asked again: refused again; and one whose deadline passes while Reports sleeps
  PERFORM voiding.acknowledge_process_failure(process_id, 'seen') FROM voiding.ongoing_process WHERE failed AND starts_with(key, run);
  PERFORM billing.void_document(run || i) FROM unnest('{1,8}'::int[]) i;
  PERFORM voiding.move_timer(process_id, 'PT1H', '2000-01-01') FROM voiding.ongoing_process WHERE key = run || 8;
  PERFORM deliver(mode);
  PERFORM voiding.acknowledge_process_failure(process_id, 'seen') FROM voiding.ongoing_process WHERE failed AND key = run || 8;
  PERFORM billing.void_document(run || 8);
  PERFORM reports.publish_report(run || ' customer 3');
  PERFORM deliver(mode);
END $$;
-- how it ended
CREATE FUNCTION ending(run text) RETURNS TABLE (what text) LANGUAGE sql AS $$
  SELECT format('document %s %s %s', substr(document_id, length(run) + 1), status, amount) FROM billing.document WHERE starts_with(document_id, run)
  UNION ALL
  SELECT format('line %s %s %s in %s', substr(l.document_id, length(run) + 1), l.status, l.amount, r.status)
    FROM reports.report_line l LEFT JOIN reports.report r USING (report_id) WHERE starts_with(document_id, run)
  UNION ALL
  SELECT format('report of%s %s %s %s', substr(customer_id, length(run) + 1), currency, status, total) FROM reports.report
   WHERE starts_with(customer_id, run) AND (status = 'published' OR total > 0)
  UNION ALL
  SELECT format('process %s %s %s', substr(key, length(run) + 1), state, count(*)) FROM voiding.process WHERE starts_with(key, run) GROUP BY key, state
  UNION ALL
  SELECT format('%s events %s', count(*), type) FROM voiding.event WHERE starts_with(subject, run) AND source <> 'voiding'
     AND type <> 'MarkingDocumentAsVoidedSucceeded'  -- not if the abort was there before
   GROUP BY type
$$;
SELECT play('plain', 'a');
SELECT * FROM ending('a') ORDER BY what COLLATE "C";
SELECT play('twice', 'b');
(SELECT * FROM ending('a') EXCEPT ALL SELECT * FROM ending('b')) UNION ALL (SELECT * FROM ending('b') EXCEPT ALL SELECT * FROM ending('a'));
SELECT setseed(0.1);
SELECT play('shuffled', 'c' || i) FROM generate_series(1, 3) i;
SELECT i, what FROM generate_series(1, 3) i, LATERAL (
  (SELECT * FROM ending('a') EXCEPT ALL SELECT * FROM ending('c' || i)) UNION ALL (SELECT * FROM ending('c' || i) EXCEPT ALL SELECT * FROM ending('a'))) x;
-- each message was indeed copied, and the shuffled runs did meet messages that were too early
SELECT count(*) > 200 AS copied FROM copied;
SELECT count(*) > 0 AS too_early FROM too_early;
SELECT * FROM voiding.check_invariants() UNION ALL SELECT * FROM billing.check_invariants() UNION ALL SELECT * FROM reports.check_invariants();

-- where the order decides the end (publication and deadlines while messages are under way), what must hold holds
CREATE FUNCTION storm(run text, steps int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  die int;
BEGIN
  PERFORM billing.issue_document(run || i, run, i) FROM generate_series(1, 12) i;
  FOR i IN 1 .. steps LOOP
    die := floor(random() * 12);
    BEGIN
      CASE
        WHEN die = 0 THEN
          PERFORM billing.void_document(run || 1 + floor(random() * 12));
        WHEN die = 1 THEN
          PERFORM reports.publish_report(run) WHERE random() < 0.2;
        WHEN die = 2 THEN
          PERFORM voiding.move_timer(t.process_id, t.name, '2000-01-01') FROM (SELECT * FROM voiding.timer ORDER BY random(), process_id LIMIT 1) t;
        WHEN die = 3 THEN
          PERFORM voiding.acknowledge_process_failure(process_id) FROM (SELECT * FROM voiding.ongoing_process WHERE failed ORDER BY random(), process_id LIMIT 1) p;
        ELSE
          PERFORM copy_messages() WHERE random() < 0.5;
          PERFORM draw_one();
          PERFORM voiding.dispatch(NULL, 1);
      END CASE;
    EXCEPTION WHEN SQLSTATE 'VD09B' OR SQLSTATE 'VD04C' THEN
      NULL;
    END;
  END LOOP;
  PERFORM deliver('shuffled');
END $$;
SELECT setseed(0.7);
SELECT storm('s' || i || '.', 150) FROM generate_series(1, 4) i;
-- both ends, failures and published reports did come up
SELECT bool_or(status = 'voided') AS voided, bool_or(status = 'issued' AND process_id IS NOT NULL) AS kept FROM billing.document WHERE starts_with(document_id, 's');
SELECT count(*) > 0 AS published FROM reports.report WHERE starts_with(customer_id, 's') AND status = 'published';
SELECT count(*) > 0 AS deadlines FROM voiding.event WHERE type = 'DeadlinePassed' AND starts_with(subject, 's');
-- no document is stuck
SELECT status, count(*) FROM billing.document WHERE status NOT IN ('issued', 'voided') GROUP BY status;
SELECT state, count(*) FROM voiding.ongoing_process WHERE NOT failed GROUP BY state;
SELECT * FROM voiding.check_invariants() UNION ALL SELECT * FROM billing.check_invariants() UNION ALL SELECT * FROM reports.check_invariants();
\c contrib_regression
DROP DATABASE regress_delivered_twice;
