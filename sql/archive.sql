-- archive.sql: all that ever happened, by what it happened to.
--
-- maintain() copies events here. Those of one subject stand together in the
-- index, so that its history is read in one go, however much there is of
-- others. Partitioned like voiding.event, and append-only with the same door.

CREATE TABLE voiding.archive (
  subject        text NOT NULL,
  position       bigint NOT NULL,
  recorded_at    timestamptz NOT NULL,
  source         text NOT NULL,
  type           text NOT NULL,
  data           jsonb NOT NULL,
  actor          text NOT NULL,
  event_id       uuid NOT NULL,
  correlation_id uuid NOT NULL,
  causation_id   uuid,
  process_id     uuid,
  steps          jsonb
) PARTITION BY RANGE (position);
COMMENT ON TABLE voiding.archive IS 'events by subject, in order; append-only; see history_of()';
COMMENT ON COLUMN voiding.archive.process_id IS 'the process that it moved';
COMMENT ON COLUMN voiding.archive.steps IS 'what it did to that process';

CREATE TABLE voiding.archive_p0 PARTITION OF voiding.archive FOR VALUES FROM (MINVALUE) TO (10000000);
ALTER TABLE voiding.archive_p0 ADD PRIMARY KEY (subject, position);
SELECT pg_catalog.pg_extension_config_dump('voiding.archive_p0', '');

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON voiding.archive
  FOR EACH ROW EXECUTE FUNCTION voiding.keep_events();

CREATE FUNCTION voiding.add_archive_partition(n bigint) RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  size CONSTANT bigint := 10000000;
  name text := format('archive_p%s', n);
BEGIN
  IF to_regclass('voiding.' || name) IS NULL THEN
    EXECUTE format('CREATE TABLE voiding.%I (LIKE voiding.archive INCLUDING DEFAULTS INCLUDING COMMENTS, PRIMARY KEY (subject, position))', name);
    EXECUTE format('ALTER TABLE voiding.archive ATTACH PARTITION voiding.%I FOR VALUES FROM (%s) TO (%s)', name, n * size, (n + 1) * size);
  END IF;
END $$;
COMMENT ON FUNCTION voiding.add_archive_partition(bigint) IS 'internal';

-- How far the archive is: one row, made when it is first needed. Positions, not
-- transaction ids: those mean something else after a restore.
CREATE TABLE voiding.archive_progress (
  one       boolean PRIMARY KEY CHECK (one),
  position  bigint NOT NULL,
  next      bigint NOT NULL,
  waits_for text[] NOT NULL,
  purged    xid8 NOT NULL
);
COMMENT ON TABLE voiding.archive_progress IS 'how far the archive is';
COMMENT ON COLUMN voiding.archive_progress.position IS 'every event up to here is in the archive, and none will come any more; of later ones some may be';
COMMENT ON COLUMN voiding.archive_progress.next IS 'what position will be when all of waits_for have ended';
COMMENT ON COLUMN voiding.archive_progress.waits_for IS 'transactions that may still write an event up to next';
COMMENT ON COLUMN voiding.archive_progress.purged IS 'the highest xid of the tasks that were purged: task_changes() has nothing to say of them to older cursors';
SELECT pg_catalog.pg_extension_config_dump('voiding.archive_progress', '');

CREATE VIEW voiding.unarchived_event AS
  SELECT e.subject, e.position, e.recorded_at, e.source, e.type, e.data, e.actor, e.event_id, e.correlation_id, e.causation_id,
         e.process_id, e.steps
    FROM voiding.event e
   WHERE e.position > coalesce((SELECT p.position FROM voiding.archive_progress p), 0)
     -- no join: what that does depends on statistics
     AND (SELECT true FROM voiding.archive a WHERE a.subject = e.subject AND a.position = e.position) IS NULL;
COMMENT ON VIEW voiding.unarchived_event IS 'events that are not in the archive yet';

-- One archives or redacts at a time. The row is written, not just locked, so
-- that under REPEATABLE READ who has an older snapshot is refused.
CREATE FUNCTION voiding.lock_archive() RETURNS voiding.archive_progress
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
  INSERT INTO voiding.archive_progress AS a VALUES (true, 0, 0, '{}', '0')
  ON CONFLICT (one) DO UPDATE SET position = a.position RETURNING a.*
$$;
COMMENT ON FUNCTION voiding.lock_archive() IS 'internal';

-- Positions are drawn long before their rows can be seen, also before their
-- transaction has an id. But whoever draws one has locked the sequence before,
-- and keeps it so until the transaction ends, also when it is prepared: once
-- all who hold it now are gone, nothing more comes up to the position that the
-- sequence has now. Until then what can be seen is archived all the same, and
-- the range is looked through once more.
--
-- A prepared transaction has another virtual id after a restart: each counts
-- as one that was there.
CREATE FUNCTION voiding.archive_events(batch_size integer) RETURNS integer
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
  SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off  -- in the order of the index, and no further than need be
AS $$
DECLARE
  a       voiding.archive_progress := voiding.lock_archive();
  upto    bigint := (SELECT last_value - (NOT is_called)::integer FROM voiding.position);  -- first this, then who holds it
  holders text[];
  holds   boolean;
  n       integer;
  last    bigint;
BEGIN
  SELECT coalesce(array_agg(l.virtualtransaction), '{}'),
         coalesce(bool_or(l.virtualtransaction = ANY (a.waits_for) OR l.pid IS NULL AND a.waits_for <> '{}'), false)
    INTO holders, holds
    FROM pg_locks l
   WHERE l.locktype = 'relation' AND l.relation = 'voiding.position'::regclass AND l.mode = 'RowExclusiveLock'
     AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database());
  IF holders = '{}' THEN
    a.next := upto;
  END IF;
  IF NOT holds THEN
    a.waits_for := '{}';
  END IF;
  FOR i IN a.position / 10000000 .. upto / 10000000 LOOP
    PERFORM voiding.add_archive_partition(i);
  END LOOP;
  WITH copied AS (
    INSERT INTO voiding.archive
    SELECT * FROM voiding.unarchived_event u WHERE u.position <= upto ORDER BY u.position LIMIT batch_size
    RETURNING position)
  SELECT count(*), max(c.position) INTO n, last FROM copied c;
  -- a snapshot that is older than "holders" may lack what they have written
  IF a.waits_for = '{}' AND current_setting('transaction_isolation') LIKE 'read%' THEN
    a.position := CASE WHEN n < batch_size THEN a.next ELSE least(a.next, last) END;
  END IF;
  IF a.position = a.next THEN
    a.next := upto;
    a.waits_for := holders;
  END IF;
  UPDATE voiding.archive_progress p SET position = a.position, next = a.next, waits_for = a.waits_for;
  RETURN n;
END $$;
COMMENT ON FUNCTION voiding.archive_events(integer) IS 'internal: copy at most so many events into the archive, oldest first; returns how many';

CREATE FUNCTION voiding.history_of(subject text, after bigint DEFAULT 0, batch_size integer DEFAULT NULL) RETURNS SETOF voiding.archive
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
AS $$
  SELECT a.* FROM voiding.archive a WHERE a.subject = history_of.subject AND a.position > after
  UNION ALL
  SELECT u.* FROM voiding.unarchived_event u WHERE u.subject = history_of.subject AND u.position > after
   ORDER BY position LIMIT batch_size
$$;
COMMENT ON FUNCTION voiding.history_of(text, bigint, integer) IS
  'all that ever happened to a subject, in order: the archive and what is not in it yet; after: a position';

-- ---- what is purged ----

-- The rule, in one place: a task goes when the process of its conversation has
-- ended, or without one the task itself, longer ago than its time to live, and
-- all that was said in that conversation is in the archive.
CREATE VIEW voiding.task_purge AS
  SELECT x.task_id, x.type, x.state, x.process_id, x.purge_at,
         CASE WHEN x.ended_at IS NULL THEN 'it is open'
              WHEN x.is_active THEN 'its process goes on'
              WHEN x.purge_at > (SELECT voiding.now()) THEN 'its time to live'
              WHEN x.correlation_id IN (SELECT u.correlation_id FROM voiding.unarchived_event u) THEN 'events that are not archived'
         END AS held_by
    FROM (SELECT t.*, a.process_id IS NOT NULL AS is_active,
                 CASE WHEN a.process_id IS NULL THEN greatest(t.ended_at, f.finished_at) END
                   + coalesce(t.ttl, make_interval(days => current_setting('voiding.task_retention')::integer)) AS purge_at
            FROM voiding.task t
            LEFT JOIN voiding.active_process a ON a.process_id = t.correlation_id
            LEFT JOIN voiding.finished_process f ON f.process_id = t.correlation_id) x;
COMMENT ON VIEW voiding.task_purge IS 'which tasks maintain() removes: those that nothing holds; what holds the others, and when they may go';

-- with its actions; who has locked one comes next time
CREATE FUNCTION voiding.purge_tasks(batch_size integer) RETURNS void
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
  WITH due AS MATERIALIZED (
    SELECT t.task_id FROM voiding.task t
     WHERE t.task_id IN (SELECT p.task_id FROM voiding.task_purge p WHERE p.held_by IS NULL)
     LIMIT batch_size FOR UPDATE SKIP LOCKED),
  action AS (DELETE FROM voiding.task_action a USING due d WHERE a.task_id = d.task_id),
  gone AS (DELETE FROM voiding.task t USING due d WHERE t.task_id = d.task_id RETURNING t.xid)
  UPDATE voiding.archive_progress p SET purged = g.xid FROM (SELECT xid FROM gone ORDER BY xid DESC LIMIT 1) g
   WHERE g.xid > p.purged OR p.purged >= pg_snapshot_xmax(pg_current_snapshot())
$$;
COMMENT ON FUNCTION voiding.purge_tasks(integer) IS 'internal';
