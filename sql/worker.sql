-- worker.sql: background workers, and waiting for what they do.

CREATE FUNCTION voiding.launch(n integer) RETURNS integer
  LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'voiding_launch';
COMMENT ON FUNCTION voiding.launch(integer) IS 'internal: start_workers()';

CREATE FUNCTION voiding.stop() RETURNS void
  LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'voiding_stop';
COMMENT ON FUNCTION voiding.stop() IS 'internal: stop_workers()';

-- What was asked for is kept as a setting of the database, so that the first
-- message after a restart of the server can bring the workers back.
CREATE FUNCTION voiding.start_workers(n integer DEFAULT NULL) RETURNS integer
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_as_engine';
COMMENT ON FUNCTION voiding.start_workers(integer) IS
  'let background workers serve this database, n of them (default: voiding.workers); returns how many run';

CREATE FUNCTION voiding.do_start_workers(n integer) RETURNS integer
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  wanted integer := coalesce(n, nullif(current_setting('voiding.workers')::integer, 0), 1);
BEGIN
  wanted := voiding.launch(wanted);
  EXECUTE format('ALTER DATABASE %I SET voiding.workers = %s', current_database(), wanted);
  EXECUTE format('ALTER DATABASE %I SET voiding.autostart = on', current_database());
  RETURN wanted;
END $$;
COMMENT ON FUNCTION voiding.do_start_workers(integer) IS 'internal';

CREATE FUNCTION voiding.stop_workers() RETURNS void
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_as_engine';
COMMENT ON FUNCTION voiding.stop_workers() IS 'stop the workers of this database; messages wait, or are dispatched by hand';

CREATE FUNCTION voiding.do_stop_workers() RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM voiding.stop();
  EXECUTE format('ALTER DATABASE %I RESET voiding.workers', current_database());
  EXECUTE format('ALTER DATABASE %I RESET voiding.autostart', current_database());
END $$;
COMMENT ON FUNCTION voiding.do_stop_workers() IS 'internal';

CREATE FUNCTION voiding.wait_settled(process_id uuid, timeout interval) RETURNS boolean
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_wait_settled';
COMMENT ON FUNCTION voiding.wait_settled(uuid, interval) IS 'internal: wait_for_process()';

CREATE FUNCTION voiding.wait_for_process(process_id uuid, timeout interval) RETURNS voiding.process
  LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  p voiding.process;
BEGIN
  IF NOT voiding.wait_settled(process_id, timeout) THEN
    RAISE EXCEPTION 'process % was not settled in time', process_id
      USING ERRCODE = 'query_canceled', DETAIL = 'It goes on.',
            HINT = format('SELECT * FROM voiding.explain(''%s'') says what it waits for.', process_id);
  END IF;
  SELECT * INTO p FROM voiding.process x WHERE x.process_id = wait_for_process.process_id;
  RETURN p;
END $$;
COMMENT ON FUNCTION voiding.wait_for_process(uuid, interval) IS
  'wait until a process is settled (ended, or failed and waiting for a person) and return it; 57014 after timeout';

CREATE PROCEDURE voiding.await(process_id uuid, timeout interval)
  LANGUAGE c AS 'MODULE_PATHNAME', 'voiding_await';
COMMENT ON PROCEDURE voiding.await(uuid, interval) IS
  'wait until a process is settled; commits first and holds no snapshot while it sleeps';
