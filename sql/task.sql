-- task.sql: work for people. So far as data: a process state makes a task and
-- withdraws it; acknowledging a failure completes it.

CREATE TABLE voiding.task (
  task_id    uuid PRIMARY KEY,
  type       text NOT NULL,
  service    text,
  state      text NOT NULL CHECK (state IN ('ready', 'completed', 'cancelled')),
  document   jsonb NOT NULL,
  owner      text,
  priority   integer NOT NULL DEFAULT 0,
  due_at     timestamptz,
  version    integer NOT NULL DEFAULT 1,
  process_id uuid NOT NULL,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL
);
CREATE INDEX task_process_id ON voiding.task (process_id);
COMMENT ON TABLE voiding.task IS 'work for people';
SELECT pg_catalog.pg_extension_config_dump('voiding.task', '');

-- called by the process manager
CREATE FUNCTION voiding.open_task(process_id uuid, task jsonb) RETURNS uuid
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
  INSERT INTO voiding.task (task_id, type, state, document, process_id, created_at, updated_at)
  SELECT voiding.uuid(), task ->> 'type', 'ready', coalesce(task -> 'with', '{}'), process_id, n, n FROM voiding.now() n
  RETURNING task_id
$$;
COMMENT ON FUNCTION voiding.open_task(uuid, jsonb) IS 'internal';

CREATE FUNCTION voiding.close_task(process_id uuid, state text) RETURNS void
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
  UPDATE voiding.task t SET state = close_task.state, version = t.version + 1, updated_at = voiding.now()
   WHERE t.process_id = close_task.process_id AND t.state = 'ready'
$$;
COMMENT ON FUNCTION voiding.close_task(uuid, text) IS 'internal';
