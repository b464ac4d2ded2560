-- task_view.sql: who sees which tasks, the lists that people work from, and the
-- feed for those who were offline.

-- One sees the tasks that one has, those that are for a role of one's own unless
-- one is excluded, and all of a service that one may speak for.
ALTER TABLE voiding.task ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON voiding.task FOR SELECT
  USING (service IS NULL OR owner = current_user OR service = ANY ((SELECT m.services FROM voiding.me() m)::text[])
         OR (roles && (SELECT m.roles FROM voiding.me() m) AND NOT (excluded && (SELECT m.roles FROM voiding.me() m))));
ALTER TABLE voiding.worker_profile ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON voiding.worker_profile FOR SELECT USING (role = current_user);

CREATE VIEW voiding.my_task WITH (security_invoker) AS
  SELECT t.* FROM voiding.task t WHERE t.owner = current_user AND t.ended_at IS NULL;
COMMENT ON VIEW voiding.my_task IS 'open tasks that the current role has';

CREATE VIEW voiding.available_task WITH (security_invoker) AS
  SELECT t.* FROM voiding.me() m CROSS JOIN voiding.task t WHERE t.state = 'ready' AND voiding.fits(t, m);
COMMENT ON VIEW voiding.available_task IS 'tasks that the current role may claim; the order of urgency is -priority, due_at, task_id';

CREATE VIEW voiding.overdue_task WITH (security_invoker) AS
  SELECT t.* FROM voiding.task t WHERE t.ended_at IS NULL AND t.due_at < voiding.now();
COMMENT ON VIEW voiding.overdue_task IS 'open tasks that should have been done by now, of those that one sees';

CREATE VIEW voiding.task_queue WITH (security_invoker) AS
  SELECT t.type, r.role, count(*) FILTER (WHERE t.state = 'ready') AS ready, count(*) FILTER (WHERE t.state <> 'ready') AS taken,
         count(*) FILTER (WHERE t.due_at < voiding.now()) AS overdue, min(t.created_at) FILTER (WHERE t.state = 'ready') AS oldest
    FROM voiding.task t LEFT JOIN LATERAL unnest(t.roles) r (role) ON true WHERE t.ended_at IS NULL GROUP BY t.type, r.role;
COMMENT ON VIEW voiding.task_queue IS 'how many open tasks there are of a type for a role, of those that one sees';

-- it looks at the profiles of all
CREATE FUNCTION voiding.gap_tasks() RETURNS SETOF voiding.task
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_as_engine';
COMMENT ON FUNCTION voiding.gap_tasks() IS 'the rows of skill_gap';

CREATE FUNCTION voiding.do_gap_tasks() RETURNS SETOF voiding.task
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  me voiding.person := voiding.do_me();
BEGIN
  RETURN QUERY
    WITH somebody AS MATERIALIZED (SELECT p AS person FROM voiding.worker_profile w CROSS JOIN voiding.person(w.role) p)
    SELECT t.* FROM voiding.task t
     WHERE t.state = 'ready' AND t.service = ANY (me.services) AND (t.skills <> '{}' OR t.form_factors <> '{}')
       AND NOT EXISTS (SELECT FROM somebody s WHERE voiding.fits(t, s.person));
END $$;
COMMENT ON FUNCTION voiding.do_gap_tasks() IS 'internal';

CREATE VIEW voiding.skill_gap WITH (security_invoker) AS SELECT * FROM voiding.gap_tasks();
COMMENT ON VIEW voiding.skill_gap IS 'ready tasks of one''s services that nobody has the skills, the device and the role for';

-- ---- the feed ----

-- As command_changes(): each change is in exactly one window of the cursor. A
-- task that one may have seen and cannot see any more comes without its row.
CREATE FUNCTION voiding.task_changes(after text DEFAULT NULL, batch_size integer DEFAULT 100)
  RETURNS TABLE (cursor text, task_id uuid, task voiding.task)
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_as_engine';
COMMENT ON FUNCTION voiding.task_changes(text, integer) IS
  'the feed: tasks that one sees and that have changed since the cursor; task is null: it is not to be seen any more; resume with the cursor of the last row';

CREATE FUNCTION voiding.do_task_changes(after text, batch_size integer) RETURNS TABLE (cursor text, task_id uuid, task voiding.task)
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  p    voiding.person := voiding.do_me();
  w    voiding.feed_window := voiding.feed_window(after, batch_size, '^[0-9a-f-]{36}$');
  seen uuid := coalesce(w.seen, '00000000-0000-0000-0000-000000000000');
  n    integer := 0;
  r    record;
BEGIN
  -- (a value from before a restore may be too high: it says nothing)
  IF EXISTS (SELECT FROM voiding.archive_progress a
              WHERE after IS NOT NULL AND a.purged >= pg_snapshot_xmin(coalesce(w.since, w.until)) AND a.purged < pg_snapshot_xmax(pg_current_snapshot())) THEN
    RAISE EXCEPTION 'tasks that have changed since the cursor are gone' USING ERRCODE = 'VD10A', HINT = 'Begin again without a cursor.';
  END IF;
  LOOP
    FOR r IN
      SELECT t AS task, voiding.may_see(t, p) AS is_seen FROM voiding.task t
       WHERE t.xid >= coalesce(pg_snapshot_xmin(w.since), '0'::xid8) AND t.xid < pg_snapshot_xmax(w.until)
         AND pg_visible_in_snapshot(t.xid, w.until) AND NOT coalesce(pg_visible_in_snapshot(t.xid, w.since), false)
         AND t.task_id > seen AND (voiding.may_see(t, p) OR w.since IS NOT NULL AND t.former && p.roles)
       ORDER BY t.task_id LIMIT batch_size LOOP
      n := n + 1;
      task_id := (r.task).task_id;
      cursor := format('%s/%s/%s', w.since, w.until, task_id);
      task := CASE WHEN r.is_seen THEN r.task END;
      RETURN NEXT;
    END LOOP;
    EXIT WHEN n > 0 OR w.is_last;
    w := voiding.next_window(w);
    seen := '00000000-0000-0000-0000-000000000000';
  END LOOP;
END $$;
COMMENT ON FUNCTION voiding.do_task_changes(text, integer) IS 'internal';
