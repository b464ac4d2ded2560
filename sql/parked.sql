-- parked.sql: events that no process is ready for yet.

CREATE TABLE voiding.parked_event (
  position       bigint NOT NULL,
  process_type   text NOT NULL,
  key            text NOT NULL,
  event_id       uuid NOT NULL,
  type           text NOT NULL,
  source         text NOT NULL,
  subject        text NOT NULL,
  correlation_id uuid NOT NULL,
  causation_id   uuid,
  data           jsonb NOT NULL,
  parked_at      timestamptz NOT NULL,
  expires_at     timestamptz NOT NULL,
  process_id     uuid,
  watch          xid8,
  PRIMARY KEY (position, process_type)
);
CREATE INDEX parked_event_key ON voiding.parked_event (process_type, key);
CREATE INDEX parked_event_expires_at ON voiding.parked_event (expires_at);
CREATE INDEX parked_event_watch ON voiding.parked_event (position) WHERE process_id IS NULL AND watch IS DISTINCT FROM '0'::xid8;
COMMENT ON TABLE voiding.parked_event IS 'events that wait for a process, or for a state of one';
COMMENT ON COLUMN voiding.parked_event.process_id IS 'the process that it waits for; null: any with this type and key';
COMMENT ON COLUMN voiding.parked_event.watch IS 'a process started meanwhile may not have seen it: transactions below this one; 0: all have';
SELECT pg_catalog.pg_extension_config_dump('voiding.parked_event', '');

CREATE FUNCTION voiding.deliver_parked(process_id uuid) RETURNS boolean
  LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'voiding_deliver_parked';
COMMENT ON FUNCTION voiding.deliver_parked(uuid) IS 'internal: let a process look again at what is parked for it';

CREATE FUNCTION voiding.next_xid() RETURNS xid8
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_next_xid';
COMMENT ON FUNCTION voiding.next_xid() IS 'internal: above all transactions that are running';

-- A start and a parking that run at the same time do not see each other's
-- rows. So a parked event is joined with the active processes again until
-- every transaction has ended that was running when it was first looked at:
-- any start that missed it is one of those. They are all below the next
-- transaction id; a snapshot's xmax would not do, since running ones can be
-- above it. No lock is needed for that.
CREATE FUNCTION voiding.sweep_parked(batch_size integer) RETURNS TABLE (process_id uuid)
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  now_running pg_snapshot := pg_current_snapshot();
  late record;
BEGIN
  FOR late IN DELETE FROM voiding.parked_event e
               WHERE e.ctid IN (SELECT x.ctid FROM voiding.parked_event x WHERE x.expires_at <= voiding.now()
                                 ORDER BY x.expires_at LIMIT batch_size FOR UPDATE SKIP LOCKED)
              RETURNING e.* LOOP
    PERFORM voiding.expire_parked(late.position, late.process_type, late.key, late.event_id, late.type, late.source,
                                  late.subject, late.correlation_id, late.causation_id, late.data, late.parked_at);
  END LOOP;
  RETURN QUERY
    WITH open AS (
      SELECT e.position, e.process_type, e.key, e.watch FROM voiding.parked_event e
       WHERE e.process_id IS NULL AND e.watch IS DISTINCT FROM '0'::xid8
       ORDER BY e.position LIMIT 1000 FOR UPDATE SKIP LOCKED),
    looked AS (
      UPDATE voiding.parked_event e
         SET watch = CASE WHEN o.watch IS NULL THEN voiding.next_xid() ELSE '0'::xid8 END
        FROM open o
       WHERE e.position = o.position AND e.process_type = o.process_type
         AND (o.watch IS NULL OR o.watch <= pg_snapshot_xmin(now_running)))
    SELECT DISTINCT a.process_id FROM open o
      JOIN voiding.active_process a ON a.type = o.process_type AND a.key = o.key
     LIMIT batch_size;
END $$;
COMMENT ON FUNCTION voiding.sweep_parked(integer) IS 'internal: processes to look again at what is parked for them; expires what is too old';

CREATE FUNCTION voiding.expire_parked(pos bigint, process_type text, key text, event_id uuid, type text, source text,
    subject text, correlation_id uuid, causation_id uuid, data jsonb, parked_at timestamptz) RETURNS void
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
  INSERT INTO voiding.dead_letter (id, aggregatetype, aggregateid, type, payload, source, destination, correlation_id,
      causation_id, attempts, available_at, created_at, bucket, xid, seq, error, failed_at, sqlstate)
  VALUES (event_id, process_type, subject, type, data, source, 'voiding', correlation_id, causation_id, 0, parked_at,
          parked_at, (hashtext(subject)::bigint & 4294967295) % 64, pg_current_xact_id(), pos,
          format('no process of type %s with key "%s" was ready for this event in time', process_type, key),
          voiding.now(), 'VD04B')
  ON CONFLICT (seq, destination, aggregatetype) DO NOTHING
$$;
COMMENT ON FUNCTION voiding.expire_parked(bigint, text, text, uuid, text, text, text, uuid, uuid, jsonb, timestamptz) IS 'internal';

-- ---- by hand ----

CREATE FUNCTION voiding.retry_parked_event(event_id uuid) RETURNS integer
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_as_engine';
COMMENT ON FUNCTION voiding.retry_parked_event(uuid) IS
  'let the processes that a parked event is for look at it again; returns by how many of them it was taken';

CREATE FUNCTION voiding.do_retry_parked_event(event_id uuid) RETURNS integer
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  n integer := (SELECT count(*) FROM voiding.parked_event x WHERE x.event_id = do_retry_parked_event.event_id);
BEGIN
  IF n = 0 THEN
    PERFORM voiding.no_parked_event(event_id);
  END IF;
  PERFORM voiding.deliver_parked(a.process_id)
     FROM voiding.parked_event x
     JOIN voiding.active_process a ON a.type = x.process_type AND a.key = x.key AND (x.process_id IS NULL OR a.process_id = x.process_id)
    WHERE x.event_id = do_retry_parked_event.event_id;
  RETURN n - (SELECT count(*) FROM voiding.parked_event x WHERE x.event_id = do_retry_parked_event.event_id);
END $$;
COMMENT ON FUNCTION voiding.do_retry_parked_event(uuid) IS 'internal';

CREATE FUNCTION voiding.discard_parked_event(event_id uuid, reason text) RETURNS integer
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_as_engine';
COMMENT ON FUNCTION voiding.discard_parked_event(uuid, text) IS
  'give a parked event up, with a reason; returns for how many types of processes it was parked';

CREATE FUNCTION voiding.do_discard_parked_event(event_id uuid, reason text) RETURNS integer
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  e voiding.parked_event;
  n integer := 0;
BEGIN
  IF coalesce(reason, '') = '' THEN
    RAISE EXCEPTION 'to discard an event needs a reason' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  FOR e IN DELETE FROM voiding.parked_event x WHERE x.event_id = do_discard_parked_event.event_id RETURNING x.* LOOP
    n := n + 1;
    PERFORM voiding.engine_emit('MessageDiscarded', e.subject, jsonb_build_object('message_id', e.event_id, 'type', e.type,
              'destination', 'voiding', 'by', voiding.caller(), 'reason', reason), e.correlation_id);
  END LOOP;
  IF n = 0 THEN
    PERFORM voiding.no_parked_event(event_id);
  END IF;
  RETURN n;
END $$;
COMMENT ON FUNCTION voiding.do_discard_parked_event(uuid, text) IS 'internal';

CREATE FUNCTION voiding.no_parked_event(event_id uuid) RETURNS void
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RAISE EXCEPTION 'there is no such parked event: %', event_id
    USING ERRCODE = 'no_data_found', HINT = 'Look in voiding.parked_event; a process may have taken it meanwhile.';
END $$;
COMMENT ON FUNCTION voiding.no_parked_event(uuid) IS 'internal';
