-- graphile.sql: the process on graphile-worker: two tasks, mark and complete.
-- A task's rows and the job of the next one are a commit; the end of its own job
-- is another: when a worker dies in between, the task runs again.

SET check_function_bodies = off;      -- the tables come with the first worker

CREATE FUNCTION void_document(id text, why text) RETURNS void LANGUAGE sql AS $$
  SELECT graphile_worker.add_job('mark', json_build_object('process', request_voiding(id, why)))
$$;

CREATE FUNCTION mark_and_send(ids uuid[]) RETURNS void LANGUAGE sql AS $$
  SELECT graphile_worker.add_jobs(array_agg(
           ('complete', json_build_object('process', id), NULL, NULL, NULL, NULL, NULL, NULL)::graphile_worker.job_spec))
    FROM unnest(mark(ids)) id
$$;

CREATE FUNCTION left_over(requested bigint) RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM graphile_worker.jobs';
