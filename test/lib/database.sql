-- database.sql: for a pg_regress test a database with the extension, by hand
-- or, where SERVED=n is in the environment, with n workers that serve it. It is
-- included with ECHO none. Then the test says
--
--   CALL test.settle()           let everything that can be done now be done
--   CALL test.finish()           and what waits for a later attempt
--   CALL test.set(name, value)   a setting, for whoever does the work
--   CALL test.by_hand()          from here on it is stepped by hand, in every mode
--   CALL test.as_asked()         and from here on no more
SET client_min_messages = warning;
DROP DATABASE IF EXISTS regress_voiding;
CREATE DATABASE regress_voiding;
\c regress_voiding
\set SHOW_CONTEXT never
\set served `echo "${SERVED:-0}"`
\set preload `echo "${PRELOAD:-0}"`
\set busy `cat test/lib/busy.sql`
CREATE EXTENSION voiding;
CREATE SCHEMA test;
CREATE TABLE test.mode AS SELECT :served AS asked, 0 AS workers, :preload > 0 AS launched;
CREATE FUNCTION test.is_busy() RETURNS boolean LANGUAGE sql AS :'busy';

CREATE PROCEDURE test.wait(condition text) LANGUAGE plpgsql AS $$
DECLARE
  end_at timestamptz := clock_timestamp() + interval '30 s';
  holds boolean;
BEGIN
  LOOP
    EXECUTE 'SELECT ' || condition INTO holds;
    EXIT WHEN holds;
    IF clock_timestamp() > end_at THEN
      RAISE EXCEPTION 'not in 30 s: %', condition USING DETAIL = (SELECT coalesce(string_agg(o::text, chr(10)), '') FROM voiding.outbox o);
    END IF;
    COMMIT;
    PERFORM pg_sleep(0.002);
  END LOOP;
END $$;

-- by hand, a transaction for each round
CREATE PROCEDURE test.drain() LANGUAGE plpgsql AS $$
BEGIN
  WHILE voiding.dispatch() > 0 LOOP
    COMMIT;
  END LOOP;
END $$;

CREATE PROCEDURE test.settle() LANGUAGE plpgsql AS $$
BEGIN
  IF (SELECT workers > 0 FROM test.mode) THEN
    CALL test.wait('NOT test.is_busy()');
  ELSE
    CALL test.drain();
  END IF;
END $$;

CREATE PROCEDURE test.finish() LANGUAGE plpgsql AS $$
DECLARE
  clock text := current_setting('voiding.clock_offset');
BEGIN
  IF (SELECT workers > 0 FROM test.mode) THEN
    CALL test.wait($c$voiding.wait_until_idle('30 s')$c$);
    RETURN;
  END IF;
  CALL test.drain();
  WHILE EXISTS (SELECT FROM voiding.outbox) LOOP
    PERFORM set_config('voiding.clock_offset', extract(epoch FROM voiding.now() - now() + interval '10 min')::integer::text, false);
    CALL test.drain();
  END LOOP;
  PERFORM set_config('voiding.clock_offset', clock, false);
END $$;

CREATE PROCEDURE test.serve(n integer) LANGUAGE plpgsql AS $$
BEGIN
  IF n IS NOT DISTINCT FROM (SELECT workers FROM test.mode) THEN
    RETURN;
  END IF;
  PERFORM voiding.stop_workers();
  COMMIT;
  IF n > 0 THEN
    PERFORM voiding.start_workers(n);
  END IF;
  UPDATE test.mode SET workers = n;
END $$;

-- workers read their settings when they start
CREATE PROCEDURE test.set(name text, value text) LANGUAGE plpgsql AS $$
DECLARE
  n integer := (SELECT workers FROM test.mode);
BEGIN
  PERFORM set_config(name, value, false);
  CALL test.serve(0);
  EXECUTE format('ALTER DATABASE %I SET %s = %L', current_database(), name, value);
  COMMIT;
  CALL test.serve(n);
END $$;

CREATE PROCEDURE test.by_hand() LANGUAGE plpgsql AS $$
BEGIN
  CALL test.serve(0);
END $$;

CREATE PROCEDURE test.as_asked() LANGUAGE plpgsql AS $$
DECLARE
  n integer := (SELECT asked FROM test.mode);
BEGIN
  CALL test.serve(n);
END $$;

-- with the library preloaded its launcher starts them, as soon as it sees the extension
CREATE PROCEDURE test.start() LANGUAGE plpgsql AS $$
DECLARE
  n integer := (SELECT asked FROM test.mode);
BEGIN
  IF n > 0 AND (SELECT launched FROM test.mode) THEN
    CALL test.wait(format('(SELECT count(pid) = %s FROM voiding.worker)', n));
    UPDATE test.mode SET workers = n;
  ELSE
    CALL test.serve(n);
  END IF;
END $$;
CALL test.start();
\set ECHO all
