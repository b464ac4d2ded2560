-- event.sql: the append-only table of events, and the ways into it.
--
-- Partitioned by position. The root has no key and no index of its own, so
-- that partitions made later can be dumped and attached again; the first
-- partition is a member of the extension, later ones are not.

CREATE TABLE voiding.event (
  position       bigint NOT NULL,
  event_id       uuid NOT NULL,
  type           text NOT NULL,
  source         text NOT NULL,
  subject        text NOT NULL,
  correlation_id uuid NOT NULL,
  causation_id   uuid,
  data           jsonb NOT NULL,
  recorded_at    timestamptz NOT NULL,
  xid            xid8 NOT NULL,
  actor          text NOT NULL,
  process_id     uuid,
  steps          jsonb
) PARTITION BY RANGE (position);
COMMENT ON TABLE voiding.event IS 'what happened; append-only';
COMMENT ON COLUMN voiding.event.source IS 'the service that says so; "voiding" is the engine';
COMMENT ON COLUMN voiding.event.subject IS 'what it is about; the ordering key of its messages';
COMMENT ON COLUMN voiding.event.correlation_id IS 'the conversation; of a process its id';
COMMENT ON COLUMN voiding.event.causation_id IS 'the message whose handler said it';
COMMENT ON COLUMN voiding.event.xid IS 'the transaction that wrote it, for readers by snapshot';
COMMENT ON COLUMN voiding.event.process_id IS 'the process that it moved; for each further one there is an event ProcessMoved';
COMMENT ON COLUMN voiding.event.steps IS 'what it did to processes: see process_history';

-- For readers by snapshot: BRIN, which costs a writer next to nothing. There is
-- none for xid8 in PostgreSQL.
CREATE OPERATOR CLASS voiding.xid8_minmax_ops FOR TYPE xid8 USING brin AS
  OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >,
  FUNCTION 1 brin_minmax_opcinfo(internal),
  FUNCTION 2 brin_minmax_add_value(internal, internal, internal, internal),
  FUNCTION 3 brin_minmax_consistent(internal, internal, internal),
  FUNCTION 4 brin_minmax_union(internal, internal, internal);

CREATE TABLE voiding.event_p0 PARTITION OF voiding.event FOR VALUES FROM (MINVALUE) TO (10000000);
ALTER TABLE voiding.event_p0 ADD PRIMARY KEY (position);
CREATE INDEX event_p0_process_id ON voiding.event_p0 (process_id) WHERE process_id IS NOT NULL;
CREATE INDEX event_p0_xid ON voiding.event_p0 USING brin (xid voiding.xid8_minmax_ops) WITH (pages_per_range = 32, autosummarize = on);
SELECT pg_catalog.pg_extension_config_dump('voiding.event_p0', '');

-- The partition for a position. Called ahead of time by maintain(), and by
-- whoever writes an event for which none was made.
CREATE FUNCTION voiding.add_event_partition(pos bigint) RETURNS void
  LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  size CONSTANT bigint := 10000000;
  n    bigint := pos / size;
  name text := format('event_p%s', n);
BEGIN
  PERFORM pg_advisory_xact_lock('voiding.event'::regclass::bigint);
  IF to_regclass('voiding.' || name) IS NULL THEN
    EXECUTE format('CREATE TABLE voiding.%I (LIKE voiding.event INCLUDING DEFAULTS INCLUDING COMMENTS, PRIMARY KEY (position))', name);
    EXECUTE format('CREATE INDEX ON voiding.%I (process_id) WHERE process_id IS NOT NULL', name);
    EXECUTE format('CREATE INDEX ON voiding.%I USING brin (xid voiding.xid8_minmax_ops) WITH (pages_per_range = 32, autosummarize = on)', name);
    EXECUTE format('ALTER TABLE voiding.event ATTACH PARTITION voiding.%I FOR VALUES FROM (%s) TO (%s)', name, n * size, (n + 1) * size);
  END IF;
END $$;
COMMENT ON FUNCTION voiding.add_event_partition(bigint) IS 'internal';

-- Append-only: the guard, and the one door in it.
CREATE FUNCTION voiding.keep_events() RETURNS trigger
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF TG_OP = 'UPDATE' AND current_setting('voiding.redacting', true) = OLD.event_id::text
     AND to_jsonb(NEW) - 'data' = to_jsonb(OLD) - 'data' THEN
    RETURN NEW;
  END IF;
  RAISE EXCEPTION 'events are append-only'
    USING ERRCODE = 'object_not_in_prerequisite_state',
          HINT = 'What may not be kept is taken out with voiding.redact_event().';
END $$;
COMMENT ON FUNCTION voiding.keep_events() IS 'internal';
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON voiding.event
  FOR EACH ROW EXECUTE FUNCTION voiding.keep_events();

CREATE FUNCTION voiding.redact_event(event_id uuid, reason text) RETURNS void
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_as_engine';
COMMENT ON FUNCTION voiding.redact_event(uuid, text) IS
  'replace an event''s data by who redacted it, when and why; the event itself stays';

CREATE FUNCTION voiding.do_redact_event(event_id uuid, reason text) RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  note jsonb := jsonb_build_object('redacted', jsonb_build_object('by', voiding.caller(), 'at', voiding.now(), 'reason', reason));
  e    record;
  copy record;  -- itself, and what it did to further processes
BEGIN
  IF coalesce(reason, '') = '' THEN
    RAISE EXCEPTION 'a redaction needs a reason' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  PERFORM voiding.lock_archive();   -- else it is copied there meanwhile, with its data
  SELECT x.subject, x.position INTO e FROM voiding.event x WHERE x.event_id = do_redact_event.event_id;
  IF NOT FOUND THEN
    SELECT a.subject, a.position INTO e FROM voiding.archive a WHERE a.event_id = do_redact_event.event_id;
  END IF;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'there is no event %', event_id USING ERRCODE = 'no_data_found';
  END IF;
  FOR copy IN
    SELECT x.event_id, x.position FROM voiding.event x WHERE x.position >= e.position
       AND (x.event_id = do_redact_event.event_id OR x.type = 'ProcessMoved' AND x.causation_id = do_redact_event.event_id)
    UNION
    SELECT a.event_id, a.position FROM voiding.archive a WHERE a.subject = e.subject AND a.position >= e.position
       AND (a.event_id = do_redact_event.event_id OR a.type = 'ProcessMoved' AND a.causation_id = do_redact_event.event_id) LOOP
    PERFORM set_config('voiding.redacting', copy.event_id::text, true);
    UPDATE voiding.event x SET data = note WHERE x.position = copy.position;
    UPDATE voiding.archive a SET data = note WHERE a.subject = e.subject AND a.position = copy.position;
    UPDATE voiding.transfer t SET payload = note FROM voiding.service s
     WHERE t.id = copy.event_id AND (t.destination, t.origin) IN ((s.name, s.known_as), (s.known_as, s.name));
  END LOOP;
  PERFORM set_config('voiding.redacting', '', true);
END $$;
COMMENT ON FUNCTION voiding.do_redact_event(uuid, text) IS 'internal';

CREATE FUNCTION voiding.emit_event() RETURNS trigger
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_emit_event';
COMMENT ON FUNCTION voiding.emit_event() IS
  'capture trigger: emit_event(''EventType'', ''column'' or ''name=column'', ..., ''@subject=column'', ''@correlation=column'', ''@source=column'', ''@becomes=column=value''); ''@type=column'' for ''EventType''';

CREATE FUNCTION voiding.begin_conversation() RETURNS trigger
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_begin_conversation';
COMMENT ON FUNCTION voiding.begin_conversation() IS
  'BEFORE trigger: puts a new correlation id, the id of the process that will start, into a column: begin_conversation(''column'', ''@becomes=column=value'', ''@process=type'', ''@subject=column'')';

CREATE FUNCTION voiding.emit(type text, subject text, data jsonb, source text DEFAULT NULL) RETURNS uuid
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_emit';
COMMENT ON FUNCTION voiding.emit(text, text, jsonb, text) IS
  'say that something happened, as a service whose owner the caller is a member of; returns the event''s id';

CREATE FUNCTION voiding.engine_emit(type text, subject text, data jsonb, process_id uuid) RETURNS uuid
  LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'voiding_engine_emit';
COMMENT ON FUNCTION voiding.engine_emit(text, text, jsonb, uuid) IS 'internal: an event of the engine about a process';

CREATE FUNCTION voiding.is_engine_event(type text) RETURNS boolean
  LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'voiding_is_engine_event';
COMMENT ON FUNCTION voiding.is_engine_event(text) IS 'internal: a type that no service may use';

CREATE FUNCTION voiding.cloudevent(e voiding.event) RETURNS jsonb
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT jsonb_strip_nulls(jsonb_build_object(
    'specversion', '1.0', 'id', e.event_id, 'source', e.source, 'type', e.type, 'subject', e.subject,
    'time', to_char(e.recorded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
    'datacontenttype', 'application/json', 'correlationid', e.correlation_id, 'causationid', e.causation_id))
    || jsonb_build_object('data', e.data)
$$;
COMMENT ON FUNCTION voiding.cloudevent(voiding.event) IS 'an event in the CloudEvents 1.0 JSON format';
