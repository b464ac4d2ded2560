-- outbox.sql: messages that leave PostgreSQL through Debezium: a connection to
-- what is outside, and the role that reads it. Run it with psql as superuser, in
-- the database of the engine, with wal_level = logical; say in the list below
-- which events shall leave, and in "commands" what processes have done outside.
-- Run again, it changes what leaves, and makes good a slot that was lost.

CALL voiding.connect_service('kafka', NULL, 'shop',
  events => '{DocumentIssued, DocumentVoided, DocumentVoidingAborted, ReportPublished}',
  commands => '{}');

DO $$
BEGIN
  IF to_regrole('debezium') IS NULL THEN
    CREATE ROLE debezium LOGIN REPLICATION;
  END IF;
END $$;
GRANT USAGE ON SCHEMA voiding TO debezium;
GRANT SELECT ON voiding.transfer TO debezium;
