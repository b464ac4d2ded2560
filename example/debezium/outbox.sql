-- outbox.sql: messages that leave PostgreSQL through Debezium: a service that is
-- outside, its publication, its slot, and what takes away the rows that have
-- been read. Run it with psql as superuser, in the database of the engine, with
-- wal_level = logical; say in the list below which events shall leave.
--
--   kafka.forget_sent()   removes what the connector has confirmed; call it every minute
--   kafka.begin_again()   after the slot was lost: a new one, and all that was not confirmed is sent again

-- ---- which messages: those of a service that nobody handles here ----

SELECT voiding.create_service('kafka');

SELECT voiding.subscribe(type, NULL, 'kafka')
  FROM unnest(ARRAY['DocumentIssued', 'DocumentVoided', 'DocumentVoidingAborted', 'ReportPublished']) type;

-- a command that processes send, and that is handled outside:
-- SELECT voiding.create_command('PrintLetter', service => 'kafka');

-- ---- who reads them ----

DO $$
BEGIN
  IF to_regrole('debezium') IS NULL THEN
    CREATE ROLE debezium LOGIN REPLICATION;
  END IF;
END $$;
GRANT USAGE ON SCHEMA voiding TO debezium;
GRANT SELECT (id, aggregatetype, aggregateid, type, payload, correlation_id, causation_id, created_at) ON voiding.outbox TO debezium;

CREATE PUBLICATION voiding_kafka
  FOR TABLE voiding.outbox (id, aggregatetype, aggregateid, type, payload, correlation_id, causation_id, created_at)
  WHERE (destination = 'kafka')
  WITH (publish = 'insert');

-- from here on nothing is missed
SELECT pg_create_logical_replication_slot('voiding_kafka', 'pgoutput') IS NOT NULL AS slot;

-- ---- what has been read is removed ----

-- All that this snapshot sees was in the WAL at this place.
CREATE TABLE kafka.mark (
  one      boolean PRIMARY KEY DEFAULT true CHECK (one),
  snapshot pg_snapshot NOT NULL,
  lsn      pg_lsn NOT NULL
);

CREATE FUNCTION kafka.forget_sent() RETURNS bigint
  LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  confirmed pg_lsn;
  n bigint;
BEGIN
  LOCK TABLE kafka.mark IN SHARE ROW EXCLUSIVE MODE;
  SELECT s.confirmed_flush_lsn INTO confirmed FROM pg_replication_slots s
   WHERE s.slot_name = 'voiding_kafka' AND s.wal_status IS DISTINCT FROM 'lost';
  IF NOT FOUND THEN
    RAISE EXCEPTION 'the slot "voiding_kafka" is lost: what has not been read waits in voiding.outbox'
      USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'SELECT kafka.begin_again(), while the connector is stopped.';
  END IF;
  -- a command that somebody waits for has its row until it has ended
  DELETE FROM voiding.outbox o USING kafka.mark m
   WHERE m.lsn <= confirmed AND o.destination = 'kafka' AND pg_visible_in_snapshot(o.xid, m.snapshot)
     AND NOT EXISTS (SELECT FROM voiding.command c WHERE c.command_id = o.id AND c.status = 'accepted');
  GET DIAGNOSTICS n = ROW_COUNT;
  INSERT INTO kafka.mark AS m (snapshot, lsn) VALUES (pg_current_snapshot(), pg_current_wal_insert_lsn())
  ON CONFLICT (one) DO UPDATE SET snapshot = excluded.snapshot, lsn = excluded.lsn WHERE m.lsn <= confirmed;
  RETURN n;
END $$;
COMMENT ON FUNCTION kafka.forget_sent() IS 'remove the messages that the connector has confirmed; returns how many';

CREATE FUNCTION kafka.begin_again() RETURNS bigint
  LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  n bigint;
BEGIN
  -- (a slot is made before the transaction writes anything)
  LOCK TABLE kafka.mark IN SHARE ROW EXCLUSIVE MODE;
  PERFORM pg_drop_replication_slot(s.slot_name) FROM pg_replication_slots s WHERE s.slot_name = 'voiding_kafka';
  PERFORM pg_create_logical_replication_slot('voiding_kafka', 'pgoutput');
  DELETE FROM kafka.mark;
  WITH waiting AS (DELETE FROM voiding.outbox o WHERE o.destination = 'kafka' RETURNING o.*)
  INSERT INTO voiding.outbox
  SELECT w.id, w.aggregatetype, w.aggregateid, w.type, w.payload, w.source, w.destination, w.correlation_id, w.causation_id, w.attempts,
         w.available_at, w.created_at, w.bucket, pg_current_xact_id(), w.seq, w.sent_in, w.error
    FROM waiting w ORDER BY w.seq;
  GET DIAGNOSTICS n = ROW_COUNT;
  RETURN n;
END $$;
COMMENT ON FUNCTION kafka.begin_again() IS 'make the slot anew and send again all that was not confirmed, with the same ids; returns how many';

REVOKE ALL ON FUNCTION kafka.forget_sent(), kafka.begin_again() FROM PUBLIC;
