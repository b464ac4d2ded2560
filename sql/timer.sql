-- timer.sql: deadlines of processes, as rows: to be listed, moved, cancelled.
-- They go when the state is left, in the same commit.

CREATE TABLE voiding.timer (
  process_id uuid NOT NULL,
  name       text NOT NULL,
  state      text NOT NULL,
  due_at     timestamptz NOT NULL,
  PRIMARY KEY (process_id, name)
);
CREATE INDEX timer_due_at ON voiding.timer (due_at);
COMMENT ON TABLE voiding.timer IS 'deadlines that are running';
COMMENT ON COLUMN voiding.timer.name IS 'the duration, as in the definition; with "@" that of the whole process';
SELECT pg_catalog.pg_extension_config_dump('voiding.timer', '');

CREATE FUNCTION voiding.due_timers(batch_size integer) RETURNS TABLE (process_id uuid, name text)
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT t.process_id, t.name FROM voiding.timer t
   WHERE t.due_at <= (SELECT voiding.now())
     -- a failed process is exempt; its own deadline counts again when it goes on
     AND NOT (t.name LIKE '@%' AND EXISTS (SELECT FROM voiding.active_process a WHERE a.process_id = t.process_id AND a.failed))
   ORDER BY t.due_at LIMIT batch_size
$$;
COMMENT ON FUNCTION voiding.due_timers(integer) IS 'internal';

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
END $$;
COMMENT ON FUNCTION voiding.move_timer(uuid, text, timestamptz) IS 'let a deadline pass earlier or later';

CREATE FUNCTION voiding.cancel_timer(process_id uuid, name text) RETURNS void
  LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ SELECT voiding.move_timer(process_id, name, 'infinity') $$;
COMMENT ON FUNCTION voiding.cancel_timer(uuid, text) IS 'a deadline that shall never pass';
