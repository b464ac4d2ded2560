-- events.sql: every event leaves PostgreSQL through Debezium, from the table of
-- events itself: nothing is written twice, nothing has to be removed. Run it
-- with psql as superuser, in the database of the engine, with wal_level =
-- logical. For some types only: ... AND type IN ('DocumentIssued', ...).

DO $$
BEGIN
  IF to_regrole('debezium') IS NULL THEN
    CREATE ROLE debezium LOGIN REPLICATION;
  END IF;
END $$;
GRANT USAGE ON SCHEMA voiding TO debezium;
GRANT SELECT (event_id, type, source, subject, data, correlation_id, causation_id, recorded_at) ON voiding.event TO debezium;

-- one table to those who read, however many partitions it has; without what the
-- engine says of itself
CREATE PUBLICATION voiding_events
  FOR TABLE voiding.event (event_id, type, source, subject, data, correlation_id, causation_id, recorded_at)
  WHERE (source <> 'voiding')
  WITH (publish = 'insert', publish_via_partition_root = true);

SELECT pg_create_logical_replication_slot('voiding_events', 'pgoutput') IS NOT NULL AS slot;
