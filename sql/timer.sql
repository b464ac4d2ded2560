-- timer.sql: deadlines of processes, as rows: to be listed, moved, cancelled.
-- They go when the state is left, in the same commit. Tasks have their own time
-- (wake_at), and are found here too.

CREATE TABLE voiding.timer (
  process_id uuid NOT NULL,
  name       text NOT NULL,
  state      text NOT NULL,
  due_at     timestamptz NOT NULL,
  held       boolean NOT NULL,
  PRIMARY KEY (process_id, name)
);
CREATE INDEX timer_due_at ON voiding.timer (due_at) WHERE NOT held;
COMMENT ON TABLE voiding.timer IS 'deadlines that are running';
COMMENT ON COLUMN voiding.timer.name IS 'the duration, as in the definition; with "@" that of the whole process';
COMMENT ON COLUMN voiding.timer.held IS 'the process has failed and is exempt; it counts again when the process goes on';
SELECT pg_catalog.pg_extension_config_dump('voiding.timer', '');

CREATE FUNCTION voiding.due_timers(batch_size integer) RETURNS TABLE (process_id uuid, name text)
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT t.process_id, t.name FROM voiding.timer t
   WHERE NOT t.held AND t.due_at <= (SELECT voiding.now()) ORDER BY t.due_at LIMIT batch_size
$$;
COMMENT ON FUNCTION voiding.due_timers(integer) IS 'internal';

-- A worker does not wait for whoever has a process locked. It knows that no
-- deadline is left before "not_before", and does not walk over the dead rows there:
-- while somebody holds a snapshot there may be millions.
CREATE FUNCTION voiding.free_timers(batch_size integer, not_before timestamptz) RETURNS TABLE (process_id uuid, name text)
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT t.process_id, t.name FROM voiding.timer t JOIN voiding.active_process a USING (process_id)
   WHERE NOT t.held AND t.due_at >= not_before AND t.due_at <= (SELECT voiding.now())
   ORDER BY t.due_at LIMIT batch_size FOR UPDATE OF a SKIP LOCKED
$$;
COMMENT ON FUNCTION voiding.free_timers(integer, timestamptz) IS 'internal: the same, without those whose process is locked; locks the others';

-- Tasks that are due and free, which it locks. A plan that is kept: to plan it in
-- each round would cost processes that have no tasks.
CREATE FUNCTION voiding.due_tasks(batch_size integer, not_before timestamptz) RETURNS SETOF uuid
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
  RETURN QUERY SELECT t.task_id FROM voiding.task t WHERE t.wake_at >= not_before AND t.wake_at <= (SELECT voiding.now())
                ORDER BY t.wake_at LIMIT batch_size FOR UPDATE SKIP LOCKED;
END $$;
COMMENT ON FUNCTION voiding.due_tasks(integer, timestamptz) IS 'internal';

CREATE FUNCTION voiding.next_due(not_before timestamptz) RETURNS timestamptz
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT least((SELECT min(t.due_at) FROM voiding.timer t WHERE NOT t.held AND t.due_at >= not_before),
               (SELECT min(t.wake_at) FROM voiding.task t WHERE t.wake_at >= not_before),
               (SELECT min(e.expires_at) FROM voiding.parked_event e))
$$;
COMMENT ON FUNCTION voiding.next_due(timestamptz) IS 'internal: when the next deadline passes, a task wakes, or a parked event expires';

CREATE FUNCTION voiding.postpone(id uuid, name text) RETURNS boolean
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
  UPDATE voiding.timer t SET due_at = voiding.now() + interval '1 minute'
   WHERE t.process_id = postpone.id AND t.name = postpone.name AND t.due_at <= voiding.now();
  UPDATE voiding.task t SET wake_at = voiding.now() + interval '1 minute', said = NULL
   WHERE t.task_id = postpone.id AND postpone.name IS NULL AND t.wake_at <= voiding.now();
  SELECT true
$$;
COMMENT ON FUNCTION voiding.postpone(uuid, text) IS 'internal: what failed when it was due is tried again in a minute';

CREATE FUNCTION voiding.wake_timer(due timestamptz) RETURNS void
  LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'voiding_wake_timer';
COMMENT ON FUNCTION voiding.wake_timer(timestamptz) IS 'internal: tell the worker of a deadline that SQL has set';

CREATE FUNCTION voiding.move_timer(process_id uuid, name text, due_at timestamptz) RETURNS void
  LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM FROM voiding.active_process a WHERE a.process_id = move_timer.process_id FOR UPDATE;
  UPDATE voiding.timer t SET due_at = move_timer.due_at
   WHERE t.process_id = move_timer.process_id AND t.name = move_timer.name;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'process % has no timer "%"', process_id, name USING ERRCODE = 'undefined_object',
      HINT = 'SELECT * FROM voiding.timer shows those that run.';
  END IF;
  PERFORM voiding.wake_timer(due_at);
END $$;
COMMENT ON FUNCTION voiding.move_timer(uuid, text, timestamptz) IS 'let a deadline pass earlier or later';

CREATE FUNCTION voiding.cancel_timer(process_id uuid, name text) RETURNS void
  LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ SELECT voiding.move_timer(process_id, name, 'infinity') $$;
COMMENT ON FUNCTION voiding.cancel_timer(uuid, text) IS 'a deadline that shall never pass';
