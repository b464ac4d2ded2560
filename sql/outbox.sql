-- outbox.sql: messages on their way, and those that gave up.
--
-- The first five columns are those of Debezium's outbox router. Rows are
-- inserted and deleted, never updated.

CREATE TABLE voiding.outbox (
  id             uuid NOT NULL,
  aggregatetype  text NOT NULL,
  aggregateid    text NOT NULL,
  type           text NOT NULL,
  payload        jsonb NOT NULL,
  source         text NOT NULL,
  destination    text NOT NULL,
  correlation_id uuid NOT NULL,
  causation_id   uuid,
  attempts       integer NOT NULL,
  available_at   timestamptz NOT NULL,
  created_at     timestamptz NOT NULL,
  bucket         smallint NOT NULL,
  xid            xid8 NOT NULL,
  seq            bigint NOT NULL,
  sent_in        text,
  error          text,
  PRIMARY KEY (bucket, xid, seq)
);
COMMENT ON TABLE voiding.outbox IS 'messages waiting for their handler';
COMMENT ON COLUMN voiding.outbox.id IS 'of a command its own, of an event the event''s';
COMMENT ON COLUMN voiding.outbox.aggregateid IS 'ordering key: one at a time for each destination, by seq';
COMMENT ON COLUMN voiding.outbox.destination IS 'the service that handles it';
COMMENT ON COLUMN voiding.outbox.bucket IS 'hash of the ordering key, to share the work out';
COMMENT ON COLUMN voiding.outbox.xid IS 'the transaction that wrote the row, for readers by snapshot';
COMMENT ON COLUMN voiding.outbox.sent_in IS 'the state of the process that sent it';
COMMENT ON COLUMN voiding.outbox.error IS 'of the last attempt';
SELECT pg_catalog.pg_extension_config_dump('voiding.outbox', '');

CREATE TABLE voiding.dead_letter (
  LIKE voiding.outbox INCLUDING COMMENTS,
  failed_at timestamptz NOT NULL,
  sqlstate  text NOT NULL,
  PRIMARY KEY (seq, destination, aggregatetype)
);
COMMENT ON TABLE voiding.dead_letter IS 'messages that gave up, until retry_message() or discard_message()';
COMMENT ON COLUMN voiding.dead_letter.destination IS 'the service; "voiding": an event for processes of the type that aggregatetype names';
SELECT pg_catalog.pg_extension_config_dump('voiding.dead_letter', '');

CREATE FUNCTION voiding.repaired() RETURNS void
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_repaired';
COMMENT ON FUNCTION voiding.repaired() IS 'internal: workers read again what waits';

-- Repairs are written down as events of the engine, and workers are told.
CREATE FUNCTION voiding.note_repair(type text, m voiding.outbox, reason text) RETURNS void
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT voiding.repaired();
  SELECT voiding.engine_emit(type, m.aggregateid, jsonb_build_object('message_id', m.id, 'type', m.type,
           'destination', m.destination, 'by', voiding.caller(), 'reason', reason), m.correlation_id)
$$;
COMMENT ON FUNCTION voiding.note_repair(text, voiding.outbox, text) IS 'internal';

-- Back into the outbox, with the same seq: before all that was sent later.
CREATE FUNCTION voiding.retry_message(id uuid, reason text DEFAULT NULL) RETURNS integer
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_as_engine';
COMMENT ON FUNCTION voiding.retry_message(uuid, text) IS
  'try a dead letter again, or one that waits for its next attempt at once; returns for how many receivers';

CREATE FUNCTION voiding.do_retry_message(id uuid, reason text) RETURNS integer
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  d voiding.dead_letter;
  n integer := 0;
BEGIN
  FOR d IN WITH dead AS (DELETE FROM voiding.dead_letter x WHERE x.id = do_retry_message.id RETURNING x.*),
                waiting AS (DELETE FROM voiding.outbox x WHERE x.id = do_retry_message.id AND x.attempts > 0 RETURNING x.*)
           SELECT * FROM dead UNION ALL SELECT *, NULL, NULL FROM waiting LOOP
    n := n + 1;
    PERFORM voiding.note_repair('MessageRetried', voiding.as_message(d), reason);
    IF d.destination = 'voiding' THEN
      PERFORM voiding.park_again(d);
    ELSE
      INSERT INTO voiding.outbox
      VALUES (d.id, d.aggregatetype, d.aggregateid, d.type, d.payload, d.source, d.destination, d.correlation_id,
              d.causation_id, 0, voiding.now(), d.created_at, d.bucket, pg_current_xact_id(), d.seq, d.sent_in, d.error);
      PERFORM voiding.hint(d.destination, d.type, d.id);
    END IF;
  END LOOP;
  IF n = 0 THEN
    PERFORM voiding.no_message(id);
  END IF;
  RETURN n;
END $$;
COMMENT ON FUNCTION voiding.do_retry_message(uuid, text) IS 'internal';

CREATE FUNCTION voiding.discard_message(id uuid, reason text) RETURNS integer
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_as_engine';
COMMENT ON FUNCTION voiding.discard_message(uuid, text) IS
  'take a dead letter or a waiting message out, with a reason; a process whose command it was takes its onError';

CREATE FUNCTION voiding.do_discard_message(id uuid, reason text) RETURNS integer
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  d voiding.dead_letter;
  n integer := 0;
BEGIN
  IF coalesce(reason, '') = '' THEN
    RAISE EXCEPTION 'to discard a message needs a reason' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  FOR d IN DELETE FROM voiding.dead_letter x WHERE x.id = do_discard_message.id RETURNING x.* LOOP
    n := n + 1;
    PERFORM voiding.note_repair('MessageDiscarded', voiding.as_message(d), reason);
  END LOOP;
  FOR d IN DELETE FROM voiding.outbox x WHERE x.id = do_discard_message.id
           RETURNING x.*, NULL::timestamptz, NULL::text LOOP
    n := n + 1;
    PERFORM voiding.note_repair('MessageDiscarded', voiding.as_message(d), reason);
    PERFORM voiding.command_failed(d.correlation_id, d.id, d.type, d.sent_in, d.created_at, 'discarded: ' || reason,
                                   d.source, d.aggregateid);
  END LOOP;
  IF n = 0 THEN
    PERFORM voiding.no_message(id);
  END IF;
  RETURN n;
END $$;
COMMENT ON FUNCTION voiding.do_discard_message(uuid, text) IS 'internal';

CREATE FUNCTION voiding.no_message(id uuid) RETURNS void
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RAISE EXCEPTION 'there is no such message: %', id
    USING ERRCODE = 'no_data_found', HINT = 'Look in voiding.dead_letter and voiding.outbox; it may have been handled meanwhile.';
END $$;
COMMENT ON FUNCTION voiding.no_message(uuid) IS 'internal';

CREATE FUNCTION voiding.as_message(d voiding.dead_letter) RETURNS voiding.outbox
  LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT d.id, d.aggregatetype, d.aggregateid, d.type, d.payload, d.source, d.destination, d.correlation_id, d.causation_id,
             d.attempts, d.available_at, d.created_at, d.bucket, d.xid, d.seq, d.sent_in, d.error $$;
COMMENT ON FUNCTION voiding.as_message(voiding.dead_letter) IS 'internal';

-- a dead letter of the process manager: the event is parked once more
CREATE FUNCTION voiding.park_again(d voiding.dead_letter) RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  definition jsonb := (SELECT p.definition FROM voiding.process_type p WHERE p.name = d.aggregatetype ORDER BY p.version DESC LIMIT 1);
  key text := jsonb_path_query_first(jsonb_build_object('event', d.payload),
                coalesce(definition #>> ARRAY['events', d.type, 'key'], format('$.event."%s"', definition ->> 'key'))::jsonpath) #>> '{}';
BEGIN
  IF key IS NULL THEN
    RAISE EXCEPTION 'the event has no key for process type "%"', d.aggregatetype
      USING ERRCODE = 'invalid_parameter_value', HINT = 'Discard it with discard_message(), and emit a right one.';
  END IF;
  IF EXISTS (SELECT FROM voiding.finished_process f WHERE f.process_id = d.correlation_id AND f.type = d.aggregatetype) THEN
    RAISE EXCEPTION 'the process that the event was for has ended'
      USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Discard it with discard_message().';
  END IF;
  INSERT INTO voiding.parked_event (position, process_type, key, event_id, type, source, subject, correlation_id, causation_id, data, parked_at, expires_at, process_id)
  VALUES (d.seq, d.aggregatetype, key, d.id, d.type, d.source, d.aggregateid, d.correlation_id, d.causation_id, d.payload, voiding.now(),
          voiding.now() + coalesce((definition #>> ARRAY['events', d.type, 'for'])::interval, current_setting('voiding.park_for')::interval),
          (SELECT a.process_id FROM voiding.active_process a WHERE a.process_id = d.correlation_id AND a.type = d.aggregatetype));
  PERFORM voiding.wake_timer(e.expires_at) FROM voiding.parked_event e WHERE e.position = d.seq AND e.process_type = d.aggregatetype;
  PERFORM voiding.deliver_parked(d.correlation_id);  -- if it is that process's
END $$;
COMMENT ON FUNCTION voiding.park_again(voiding.dead_letter) IS 'internal';

-- what C does for the messages that it writes
CREATE FUNCTION voiding.hint(service text, type text, id uuid) RETURNS void
  LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'voiding_hint';
COMMENT ON FUNCTION voiding.hint(text, text, uuid) IS 'internal: NOTIFY at commit';
