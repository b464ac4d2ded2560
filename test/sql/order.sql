-- Messages of one key are handled in the order they were written, also past
-- failures and retries; other keys, and the same key elsewhere, do not wait.
\set ECHO none
\i test/lib/database.sql
SELECT voiding.create_service('a');
SELECT voiding.create_service('b');
CREATE TABLE got (n int GENERATED ALWAYS AS IDENTITY, service text, key text, i int);
CREATE FUNCTION a.take(key text, i int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF random() < 0.3 THEN
    RAISE EXCEPTION 'not now';
  END IF;
  INSERT INTO public.got (service, key, i) VALUES ('a', key, i);
END $$;
CREATE FUNCTION b.take(key text, i int) RETURNS void LANGUAGE sql AS $$ INSERT INTO public.got (service, key, i) VALUES ('b', key, i) $$;
SELECT voiding.subscribe('Given', 'a.take');
SELECT voiding.subscribe('Given', 'b.take');
-- keys that share a bucket, too: 200 keys, 64 buckets
CREATE FUNCTION give(k int, i int) RETURNS uuid LANGUAGE sql AS
  $$ SELECT voiding.emit('Given', 'key ' || k, jsonb_build_object('key', 'key ' || k, 'i', i), 'billing') $$;
-- by hand: rounds of different sizes
CALL test.by_hand();
SELECT count(give(k, i)) FROM generate_series(1, 5) i, generate_series(1, 200) k;
SELECT setseed(0.42);
SET voiding.retry_base = 1000;
SET voiding.retry_limit = 100;
-- the first round: b has all, a lacks some
SELECT voiding.dispatch(batch_size => 10000) BETWEEN 1000 AND 2000 AS handled;
SELECT service, count(*) = 1000 AS all FROM got GROUP BY service ORDER BY service;
SELECT count(*) > 20 AS some_failed FROM voiding.outbox WHERE attempts > 0;
-- what waits for a key is behind the one that failed
SELECT count(*) FROM voiding.outbox o WHERE attempts = 0
   AND NOT EXISTS (SELECT FROM voiding.outbox f WHERE f.aggregateid = o.aggregateid AND f.destination = o.destination AND f.attempts > 0 AND f.seq < o.seq);
-- rounds of different sizes, while more is written
DO $$
DECLARE
  done int;
BEGIN
  FOR round IN 1 .. 200 LOOP
    PERFORM set_config('voiding.clock_offset', (round * 1000)::text, false);
    IF round <= 5 THEN
      PERFORM give(k, 5 + round) FROM generate_series(1, 200) k;
    END IF;
    done := voiding.dispatch(CASE round % 3 WHEN 0 THEN 'a' END, 50 + round);
    EXIT WHEN NOT EXISTS (SELECT FROM voiding.outbox);
  END LOOP;
END $$;
SELECT count(*) FROM voiding.outbox;
SELECT count(*) FROM voiding.dead_letter;
-- each exactly once, and in its order
SELECT service, count(*), count(DISTINCT (key, i)) FROM got GROUP BY service ORDER BY service;
SELECT count(*) FROM (SELECT i, lag(i) OVER (PARTITION BY service, key ORDER BY n) AS before FROM got) x WHERE i <> coalesce(before, 0) + 1;
-- as it comes: retried soon, while more is written
RESET voiding.clock_offset;
TRUNCATE got;
CALL test.set('voiding.retry_limit', '100');
CALL test.set('voiding.retry_base', '2ms');
CALL test.as_asked();
SELECT count(give(k, i)) FROM generate_series(1, 5) i, generate_series(1, 200) k;
SELECT count(give(k, 6)) FROM generate_series(1, 200) k;
SELECT count(give(k, i)) FROM generate_series(7, 10) i, generate_series(1, 200) k;
CALL test.finish();
SELECT count(*) FROM voiding.outbox;
SELECT count(*) FROM voiding.dead_letter;
SELECT service, count(*), count(DISTINCT (key, i)) FROM got GROUP BY service ORDER BY service;
SELECT count(*) FROM (SELECT i, lag(i) OVER (PARTITION BY service, key ORDER BY n) AS before FROM got) x WHERE i <> coalesce(before, 0) + 1;
-- a follow-up goes behind what was written before it, for its key
CREATE FUNCTION b.follow(key text, i int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO public.got (service, key, i) VALUES ('follow', key, i);
  IF i < 3 THEN
    PERFORM voiding.emit('Followed', key, jsonb_build_object('key', key, 'i', i + 10));
  END IF;
END $$;
SELECT voiding.subscribe('Followed', 'b.follow');
BEGIN;
SELECT voiding.emit('Followed', 'f', '{"key": "f", "i": 1}', 'b') IS NOT NULL AS id;
SELECT voiding.emit('Followed', 'f', '{"key": "f", "i": 2}', 'b') IS NOT NULL AS id;
COMMIT;
CALL test.settle();
SELECT i FROM got WHERE service = 'follow' ORDER BY n;
SELECT * FROM voiding.check_invariants() UNION ALL SELECT * FROM billing.check_invariants() UNION ALL SELECT * FROM reports.check_invariants();
CALL test.by_hand();
\c contrib_regression
DROP DATABASE regress_voiding;
