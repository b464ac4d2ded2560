-- Each figure of voiding.stats moves when its cause is made, and goes back. Workers and restarts: test/t/worker.pl
CREATE DATABASE regress_stats TEMPLATE template0;
\c regress_stats
SET client_min_messages = warning;
CREATE EXTENSION voiding;
SET voiding.workers = 0;

CREATE TEMP TABLE before (name text, labels jsonb, value numeric);
CREATE FUNCTION pg_temp.mark() RETURNS void LANGUAGE sql AS $$ DELETE FROM before; INSERT INTO before SELECT * FROM voiding.stats $$;
CREATE FUNCTION pg_temp.moved() RETURNS TABLE (name text, labels jsonb, by numeric) LANGUAGE sql AS $$
  SELECT name, labels, coalesce(s.value, 0) - coalesce(b.value, 0) FROM voiding.stats s FULL JOIN before b USING (name, labels)
   WHERE name !~ '_seconds$' AND coalesce(s.value, 0) <> coalesce(b.value, 0) ORDER BY name, labels $$;

-- a message waits, and is handled
SELECT pg_temp.mark();
SELECT (billing.issue_document('A', 'acme', 10)).status;
SELECT * FROM pg_temp.moved();
SET voiding.clock_offset = '1 s';
SELECT name, labels, value > 0 AS waits FROM voiding.stats WHERE name = 'oldest_pending_seconds' ORDER BY labels;
SELECT voiding.dispatch();
SELECT * FROM pg_temp.moved();
SELECT name, labels, value > 0 AS waits FROM voiding.stats WHERE name = 'oldest_pending_seconds' ORDER BY labels;

-- a process, state by state
SELECT pg_temp.mark();
SELECT billing.void_document('A') IS NOT NULL AS process;
SELECT * FROM pg_temp.moved();
SELECT value > 0 AS late FROM voiding.stats WHERE name = 'timer_lag_seconds';
SET voiding.clock_offset = '61 min';
SELECT value > 0 AS late FROM voiding.stats WHERE name = 'timer_lag_seconds';
SELECT voiding.dispatch('billing');
SELECT value > 0 AS late FROM voiding.stats WHERE name = 'timer_lag_seconds';
RESET voiding.clock_offset;
SELECT * FROM pg_temp.moved();

-- failed, retried, dead
SELECT pg_temp.mark();
SELECT voiding.create_service('shop');
CREATE FUNCTION shop.refuse() RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'never'; END $$;
SELECT voiding.subscribe('Asked', 'shop.refuse');
SET voiding.retry_base = '1 min';
SET voiding.retry_limit = 2;
SELECT voiding.emit('Asked', 'q', '{}', 'shop') IS NOT NULL AS id;
SELECT voiding.dispatch('shop');
SELECT * FROM pg_temp.moved();
SET voiding.clock_offset = '10 min';
SELECT voiding.dispatch('shop');
SELECT * FROM pg_temp.moved();
RESET voiding.clock_offset;
SELECT voiding.discard_message(id, 'tested') FROM voiding.dead_letter;
SELECT * FROM pg_temp.moved();

-- an event that no process is ready for
SELECT pg_temp.mark();
SELECT voiding.emit('DocumentVoided', 'nobody', '{"document_id": "nobody"}', 'billing') IS NOT NULL AS id;
SELECT * FROM pg_temp.moved() WHERE name = 'parked';

\c contrib_regression
DROP DATABASE regress_stats;
