-- process.sql: processes that run, processes that have ended.
--
-- A running one is a row of active_process; that row is also its lock. In the
-- commit that ends it it moves to finished_process, where it answers for
-- duplicates until its partition is dropped.

CREATE TABLE voiding.active_process (
  process_id   uuid PRIMARY KEY,
  type         text NOT NULL,
  version      integer NOT NULL,
  key          text NOT NULL,
  state        text NOT NULL,
  failed       boolean NOT NULL,
  data         jsonb NOT NULL,
  started_at   timestamptz NOT NULL,
  since        timestamptz NOT NULL,
  updated_at   timestamptz NOT NULL,
  conversation uuid NOT NULL,
  task         text
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX active_process_key ON voiding.active_process (type, key);
COMMENT ON TABLE voiding.active_process IS 'processes that have not ended; at most one for a type and key';
COMMENT ON COLUMN voiding.active_process.failed IS 'settled, and waiting for a person';
COMMENT ON COLUMN voiding.active_process.since IS 'when it came into its state';
COMMENT ON COLUMN voiding.active_process.conversation IS 'correlation id of its first event: its own id, but for the second process of one event';
SELECT pg_catalog.pg_extension_config_dump('voiding.active_process', '');

CREATE TABLE voiding.finished_process (
  process_id   uuid NOT NULL,
  type         text NOT NULL,
  version      integer NOT NULL,
  key          text NOT NULL,
  state        text NOT NULL,
  failed       boolean NOT NULL,
  data         jsonb NOT NULL,
  started_at   timestamptz NOT NULL,
  since        timestamptz NOT NULL,
  updated_at   timestamptz NOT NULL,
  conversation uuid NOT NULL,
  task         text,
  finished_at  timestamptz NOT NULL,
  outcome      text NOT NULL,
  reason       text,
  result       jsonb
) PARTITION BY RANGE (process_id);
COMMENT ON TABLE voiding.finished_process IS 'processes that have ended; partitioned by id, which carries the time';

-- ids made before 2027; then a partition a month
CREATE TABLE voiding.finished_process_p0 PARTITION OF voiding.finished_process
  FOR VALUES FROM (MINVALUE) TO ('01a2ce8b-d400-0000-0000-000000000000');
ALTER TABLE voiding.finished_process_p0 ADD PRIMARY KEY (process_id);
CREATE INDEX finished_process_p0_key ON voiding.finished_process_p0 (type, key);
SELECT pg_catalog.pg_extension_config_dump('voiding.finished_process_p0', '');

CREATE FUNCTION voiding.uuid_from(t timestamptz) RETURNS uuid
  LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$ SELECT (lpad(to_hex((extract(epoch FROM t) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid $$;
COMMENT ON FUNCTION voiding.uuid_from(timestamptz) IS 'the smallest id that was made at this time';

CREATE FUNCTION voiding.uuid_time(id uuid) RETURNS timestamptz
  LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$ SELECT to_timestamp(('x' || left(replace(id::text, '-', ''), 12))::bit(48)::bigint / 1000.0) $$;
COMMENT ON FUNCTION voiding.uuid_time(uuid) IS 'when an id was made';

CREATE FUNCTION voiding.add_finished_partition(id uuid) RETURNS void
  LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  month timestamp := date_trunc('month', voiding.uuid_time(id) AT TIME ZONE 'UTC');
  name  text := to_char(month, '"finished_process_"YYYY_MM');
BEGIN
  PERFORM pg_advisory_xact_lock('voiding.finished_process'::regclass::bigint);
  IF to_regclass('voiding.' || name) IS NULL THEN
    EXECUTE format('CREATE TABLE voiding.%I (LIKE voiding.finished_process INCLUDING DEFAULTS INCLUDING COMMENTS, PRIMARY KEY (process_id))', name);
    EXECUTE format('CREATE INDEX ON voiding.%I (type, key)', name);
    EXECUTE format('ALTER TABLE voiding.finished_process ATTACH PARTITION voiding.%I FOR VALUES FROM (%L) TO (%L)', name,
                   voiding.uuid_from(month AT TIME ZONE 'UTC'), voiding.uuid_from((month + interval '1 month') AT TIME ZONE 'UTC'));
  END IF;
END $$;
COMMENT ON FUNCTION voiding.add_finished_partition(uuid) IS 'internal';

CREATE FUNCTION voiding.maintain() RETURNS void
  LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  next bigint := (SELECT last_value + 5000000 FROM voiding.position);
BEGIN
  IF next >= 10000000 THEN
    PERFORM voiding.add_event_partition(next);
  END IF;
  IF voiding.now() + interval '1 week' >= '2027-01-01 00:00:00+00' THEN
    PERFORM voiding.add_finished_partition(voiding.uuid_from(voiding.now() + interval '1 week'));
  END IF;
  PERFORM voiding.forget_commands();
  -- twice: who was under way the first time has mostly ended by the second
  PERFORM voiding.archive_events(500000);
  PERFORM voiding.archive_events(500000);
  PERFORM voiding.purge_tasks(100000);
  PERFORM voiding.watch_connections();
  PERFORM voiding.purge_transfers();
END $$;
COMMENT ON FUNCTION voiding.maintain() IS 'make partitions ahead of time, forget old commands, archive at most a million events, purge tasks and transfers; call it daily';

CREATE VIEW voiding.process AS
  SELECT process_id, type, version, key, state, data, started_at, updated_at, NULL::timestamptz AS finished_at,
         since, failed, NULL::text AS outcome, NULL::text AS reason, NULL::jsonb AS result, conversation
    FROM voiding.active_process
  UNION ALL
  SELECT process_id, type, version, key, state, data, started_at, updated_at, finished_at,
         since, failed, outcome, reason, result, conversation
    FROM voiding.finished_process;
COMMENT ON VIEW voiding.process IS 'all processes, running and ended';

CREATE FUNCTION voiding.process_for(process_type text, key text, OUT process_id uuid, OUT state text, OUT failed boolean, OUT data jsonb)
  LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'voiding_process_for';
COMMENT ON FUNCTION voiding.process_for(text, text) IS 'the active process of this type and key, or nulls';

-- A person has seen a failure. Once is enough: again does nothing.
CREATE FUNCTION voiding.acknowledge_process_failure(process_id uuid, reason text DEFAULT NULL) RETURNS void
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_as_engine';
COMMENT ON FUNCTION voiding.acknowledge_process_failure(uuid, text) IS
  'take note of a failed process, with a reason; it is the completion of its task too';

CREATE FUNCTION voiding.do_acknowledge_process_failure(process_id uuid, reason text) RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  p voiding.active_process;
BEGIN
  SELECT * INTO p FROM voiding.active_process a
   WHERE a.process_id = do_acknowledge_process_failure.process_id FOR UPDATE;
  IF NOT FOUND THEN
    IF EXISTS (SELECT FROM voiding.finished_process f WHERE f.process_id = do_acknowledge_process_failure.process_id) THEN
      RETURN;
    END IF;
    RAISE EXCEPTION 'there is no process %', process_id
      USING ERRCODE = 'VD04B', HINT = 'SELECT * FROM voiding.ongoing_process shows those that run.';
  END IF;
  IF NOT p.failed THEN
    RAISE EXCEPTION 'process % has not failed: it is in state "%"', process_id, p.state
      USING ERRCODE = 'object_not_in_prerequisite_state',
            HINT = format('SELECT * FROM voiding.explain(''%s'') says what it waits for.', process_id);
  END IF;
  PERFORM voiding.close_task(process_id, 'complete', jsonb_build_object('reason', reason, 'outcome', jsonb_build_object('reason', reason)));
  PERFORM voiding.engine_emit('ProcessFailureAcknowledged', p.key,
            jsonb_build_object('process_id', process_id, 'by', coalesce(voiding.sender(), voiding.caller()), 'reason', reason), process_id);
END $$;
COMMENT ON FUNCTION voiding.do_acknowledge_process_failure(uuid, text) IS 'internal';
