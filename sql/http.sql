-- http.sql: requests of HTTP as calls of a function: http().
--
-- The view route lists what there is: http() finds its way by it, and the
-- OpenAPI document is made of it (openapi.sql). A route is served by
-- http_<operation>(), called by http() with the rights of whoever calls: who
-- may do what is said by GRANTs on what the route uses. Those of commands,
-- queries and processes are here, those of tasks in http_task.sql.

CREATE TYPE voiding.http_request AS (
  method         text,
  path           text,
  parameters     jsonb,              -- those in the path, by name
  query          jsonb,              -- of a query all of its arguments
  headers        jsonb,              -- names in lower case
  body           jsonb,
  wait           integer,            -- seconds that the client wants to wait
  representation boolean,            -- it wants the resource, not the status
  resources      text[]              -- of a query: where commands will put such a result
);
COMMENT ON TYPE voiding.http_request IS 'a request, as the function of a route is given it';

CREATE TYPE voiding.http_answer AS (
  status  integer,
  headers jsonb,
  body    text,
  wait    jsonb
);
COMMENT ON TYPE voiding.http_answer IS 'an answer; wait: what to wait for after the commit, and what to ask then';

CREATE VIEW voiding.route AS SELECT * FROM (VALUES
  ('POST',   '/commands/{type}', 'command', NULL::text, 'object', '{not_before,start_by}'::text[], '{200,202}'::integer[],
   'send a command; its data is the body'),
  ('POST',   '/commands', 'send_many', NULL, 'array', '{}', '{202,207}',
   'send many commands: objects with type, data, idempotency_key, not_before, start_by'),
  ('GET',    '/commands', 'commands', NULL, NULL, '{status,type,before,limit}', '{200}',
   'the caller''s commands, latest first'),
  ('GET',    '/commands/events', 'changes', NULL, NULL, '{after,limit}', '{200}',
   'the caller''s commands that have changed since a cursor, or as a stream'),
  ('GET',    '/commands/{command_id:uuid}', 'command', NULL, NULL, '{}', '{200,304}',
   'the status of a command'),
  ('DELETE', '/commands/{command_id:uuid}', 'cancel', NULL, NULL, '{reason}', '{200}',
   'take a command back that has not been started'),
  ('GET',    '/commands/{command_id:uuid}/events', 'status_events', NULL, NULL, '{}', '{200,204}',
   'the status of a command and its changes to the end, as a stream'),
  ('GET',    '/commands/{command_id:uuid}/result', 'result', NULL, NULL, '{}', '{200,202,303}',
   'what a command has come to: its resource, its problem, or 202 while it is open'),
  ('GET',    '/queries/{name}', 'query', NULL, NULL, '{}', '{200}',
   'read a query; its arguments are the query string'),
  ('GET',    '/documents/{document_id}', 'query', 'document', NULL, '{}', '{200}',
   'a document'),
  ('GET',    '/reports', 'reports', 'reports', NULL, '{customer_id,currency,status,before,batch_size}', '{200}',
   'reports, latest first'),
  ('GET',    '/reports/{report_id}', 'query', 'report', NULL, '{}', '{200}',
   'a report with its documents'),
  ('GET',    '/processes', 'processes', NULL, NULL, '{type,key,state,failed,ended,before,limit}', '{200}',
   'processes that run, and those that failed until they are acknowledged, latest first; ended: those that have ended'),
  ('GET',    '/processes/{process_id:uuid}', 'process', NULL, NULL, '{}', '{200}',
   'a process with its history'),
  ('GET',    '/processes/{process_id:uuid}/explain', 'explain', NULL, NULL, '{}', '{200}',
   'what a process waits for, and what would move it'),
  ('POST',   '/processes/{process_id:uuid}/acknowledge', 'acknowledge', NULL, 'object', '{}', '{204}',
   'take note of the failure of a process; the body may have a reason'),
  ('GET',    '/process-types/{process_type}', 'process_type', NULL, NULL, '{version}', '{200}',
   'the states of a type of processes and what leads from one to another; of the newest version, if none is named'),
  ('GET',    '/dead-letters', 'dead_letters', NULL, NULL, '{type,key,limit}', '{200}',
   'messages that gave up, oldest first'),
  ('GET',    '/parked-events', 'parked_events', NULL, NULL, '{type,key,limit}', '{200}',
   'events that no process is ready for yet, oldest first'),
  ('POST',   '/messages/{message_id:uuid}/retry', 'retry', NULL, 'object', '{}', '{200}',
   'try a dead letter again, or at once what waits for its next attempt; the body may have a reason'),
  ('POST',   '/messages/{message_id:uuid}/discard', 'discard', NULL, 'object', '{}', '{200}',
   'give a dead letter up, or a message that waits; the body has the reason'),
  ('POST',   '/parked-events/{event_id:uuid}/retry', 'retry_parked', NULL, 'object', '{}', '{200}',
   'let the processes that a parked event is for look at it again'),
  ('POST',   '/parked-events/{event_id:uuid}/discard', 'discard_parked', NULL, 'object', '{}', '{200}',
   'give a parked event up; the body has the reason'),
  ('GET',    '/events', 'events', NULL, NULL, '{types,after,limit}', '{200}',
   'what has happened since a cursor, or as a stream; types: a list with commas'),
  ('GET',    '/metrics', 'metrics', NULL, NULL, '{}', '{200}',
   'figures to watch, as OpenMetrics'),
  ('GET',    '/tasks', 'tasks', 'my_task', NULL, '{type,key,state,after,limit}', '{200}',
   'the open tasks that the caller has, most urgent first'),
  ('GET',    '/tasks/available', 'tasks', 'available_task', NULL, '{type,key,form_factor,after,limit}', '{200}',
   'the tasks that the caller may claim, most urgent first'),
  ('GET',    '/tasks/overdue', 'tasks', 'overdue_task', NULL, '{type,key,state,after,limit}', '{200}',
   'open tasks that should have been done by now, most urgent first'),
  ('GET',    '/tasks/skill-gap', 'tasks', 'skill_gap', NULL, '{type,key,after,limit}', '{200}',
   'tasks of the caller''s services that nobody can do, most urgent first'),
  ('GET',    '/tasks/queues', 'task_queues', NULL, NULL, '{type,role}', '{200}',
   'how many open tasks there are of a type for a role'),
  ('GET',    '/tasks/changes', 'task_changes', NULL, NULL, '{after,limit}', '{200}',
   'tasks that have changed since a cursor; null: not to be seen any more'),
  ('POST',   '/tasks/next', 'next_task', NULL, 'object', '{form_factor}', '{200,204}',
   'choose and claim the most urgent task; the body may have types'),
  ('GET',    '/tasks/{task_id:uuid}', 'task', NULL, NULL, '{form_factor}', '{200,304}',
   'a task, and what the caller may do to it'),
  ('GET',    '/tasks/{task_id:uuid}/actions', 'task_actions', NULL, NULL, '{form_factor}', '{200}',
   'what the caller may do to a task'),
  ('GET',    '/tasks/{task_id:uuid}/why-not', 'why_not', NULL, NULL, '{role,form_factor}', '{200}',
   'why the caller, or a role, may not claim a task'),
  ('POST',   '/tasks/{task_id:uuid}/{action}', 'task_action', NULL, 'object', '{form_factor}', '{200,409,412}',
   'do something to a task; its arguments are the body'),
  ('GET',    '/openapi.json', 'openapi', NULL, NULL, '{}', '{200}',
   'this document'),
  ('GET',    '/healthz', 'health', NULL, NULL, '{}', '{200}',
   'is the database there?')) r (method, path, operation, query, takes, parameters, answers, summary);
COMMENT ON VIEW voiding.route IS 'what http() serves: one row a route';
COMMENT ON COLUMN voiding.route.query IS 'the query that is read, or the view; the function of the route has it as parameter name';

CREATE FUNCTION voiding.http(method text, path text, query jsonb DEFAULT '{}', headers jsonb DEFAULT '{}', body text DEFAULT NULL)
  RETURNS voiding.http_answer
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_http';
COMMENT ON FUNCTION voiding.http(text, text, jsonb, jsonb, text) IS
  'answer a request of HTTP with the caller''s rights; path as in the request line; never waits: see wait in the answer';

CREATE FUNCTION voiding.url(path text, query jsonb) RETURNS text
  LANGUAGE c IMMUTABLE STRICT AS 'MODULE_PATHNAME', 'voiding_url';
COMMENT ON FUNCTION voiding.url(text, jsonb) IS 'a path with a query string of these names and values, in the encoding of URLs; null ones are left out';

CREATE FUNCTION voiding.command_object(command voiding.command) RETURNS jsonb
  LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'voiding_command_object';
COMMENT ON FUNCTION voiding.command_object(voiding.command) IS 'a command as clients see it: its status, without its data';

CREATE FUNCTION voiding.retry_after(command_id uuid, type text) RETURNS integer
  LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'voiding_retry_after';
COMMENT ON FUNCTION voiding.retry_after(uuid, text) IS
  'seconds until a command is probably done, at least 1; estimated once a second for each type and session';

CREATE FUNCTION voiding.resource_of(command_id uuid) RETURNS jsonb
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  c voiding.command := voiding.command_status(command_id);
BEGIN
  RETURN (SELECT a.body::jsonb FROM voiding.http('GET', c.resource) a WHERE c.status = 'processed' AND a.status = 200);
END $$;
COMMENT ON FUNCTION voiding.resource_of(uuid) IS
  'the resource that a processed command names, as http() answers it; null: not processed, none named, or it is not there';

-- ---- commands ----

-- POST /commands/{type} and GET /commands/{command_id}: the same answer. Few
-- expressions, since PL/pgSQL prepares each anew in every transaction.
CREATE FUNCTION voiding.http_command(q voiding.http_request) RETURNS voiding.http_answer
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  id      uuid;
  c       voiding.command;
  headers jsonb;
BEGIN
  IF q.method = 'POST' THEN
    id := voiding.send_command(q.parameters ->> 'type', q.body, btrim(q.headers ->> 'idempotency-key', '" '),
                               (q.query ->> 'not_before')::timestamptz, (q.query ->> 'start_by')::timestamptz);
  END IF;
  c := voiding.command_status(coalesce(id, (q.parameters ->> 'command_id')::uuid));
  headers := jsonb_strip_nulls(jsonb_build_object(
    'ETag', '"' || c.status || '-' || c.xid || '"',
    'Link', '<' || c.resource || '>; rel="related"',
    'Retry-After', CASE WHEN c.finished_at IS NULL THEN voiding.retry_after(c.command_id, c.type)::text END,
    'Location', '/commands/' || id,
    'Preference-Applied', CASE WHEN id IS NOT NULL AND q.headers ->> 'prefer' ~* '\mrespond-async\M' THEN 'respond-async' END));
  IF id IS NULL AND q.headers ? 'if-none-match'
     AND (q.headers ->> 'if-none-match' = '*' OR position(headers ->> 'ETag' IN q.headers ->> 'if-none-match') > 0) THEN
    RETURN (304, headers, NULL, NULL)::voiding.http_answer;
  END IF;
  RETURN (CASE WHEN id IS NOT NULL AND c.finished_at IS NULL THEN 202 ELSE 200 END, headers, voiding.command_object(c)::text,
    CASE WHEN q.wait > 0 AND (c.finished_at IS NULL OR q.representation) THEN
      jsonb_build_object('command_id', c.command_id, 'seconds', q.wait,
        'then', '/commands/' || c.command_id || CASE WHEN q.representation THEN '/result' ELSE '' END,
        'applied', CASE WHEN q.representation THEN 'return=representation, ' ELSE '' END || 'wait=' || q.wait) END)::voiding.http_answer;
END $$;
COMMENT ON FUNCTION voiding.http_command(voiding.http_request) IS 'internal: a route';

CREATE FUNCTION voiding.http_result(q voiding.http_request) RETURNS voiding.http_answer
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  c       voiding.command := voiding.command_status((q.parameters ->> 'command_id')::uuid);
  a       voiding.http_answer;
  problem jsonb := c.error;
BEGIN
  IF c.status IN ('accepted', 'running') THEN
    RETURN (202, jsonb_build_object('Retry-After', voiding.retry_after(c.command_id, c.type)::text), voiding.command_object(c)::text,
            CASE WHEN q.wait > 0 THEN jsonb_build_object('command_id', c.command_id, 'seconds', q.wait, 'then', q.path, 'applied', 'wait=' || q.wait) END)::voiding.http_answer;
  ELSIF c.status <> 'processed' THEN
    problem := coalesce(problem, voiding.problem('55000', format('the command was %s', c.status), NULL, '/commands/' || c.command_id));
    RETURN ((problem ->> 'status')::integer, '{"Content-Type": "application/problem+json"}'::jsonb, problem::text, NULL)::voiding.http_answer;
  ELSIF c.resource LIKE '/%' THEN
    a := voiding.http('GET', c.resource);
    a.headers := a.headers || jsonb_build_object('Content-Location', c.resource);
    RETURN a;
  ELSIF c.resource IS NOT NULL THEN
    RETURN (303, jsonb_build_object('Location', c.resource), NULL, NULL)::voiding.http_answer;
  END IF;
  RETURN (200, NULL, coalesce(c.result, '{}')::text, NULL)::voiding.http_answer;
END $$;
COMMENT ON FUNCTION voiding.http_result(voiding.http_request) IS 'internal: a route';

CREATE FUNCTION voiding.http_cancel(q voiding.http_request) RETURNS voiding.http_answer
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  c voiding.command := voiding.cancel_command((q.parameters ->> 'command_id')::uuid, q.query ->> 'reason');
BEGIN
  IF c.status <> 'cancelled' THEN
    RAISE EXCEPTION 'command % is % and cannot be cancelled', c.command_id, c.status
      USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'What has been started goes on to its end.';
  END IF;
  RETURN (200, NULL, voiding.command_object(c)::text, NULL)::voiding.http_answer;
END $$;
COMMENT ON FUNCTION voiding.http_cancel(voiding.http_request) IS 'internal: a route';

CREATE FUNCTION voiding.http_send_many(q voiding.http_request) RETURNS voiding.http_answer
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT CASE WHEN count(s.error) > 0 THEN 207 ELSE 202 END, NULL::jsonb,
         jsonb_build_object('commands', coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
           'item', s.item, 'status', coalesce((s.error ->> 'status')::integer, 202), 'command_id', s.command_id,
           'self', '/commands/' || s.command_id, 'error', s.error)) ORDER BY s.item), '[]'))::text, NULL::jsonb
    FROM voiding.send_commands(q.body) s
$$;
COMMENT ON FUNCTION voiding.http_send_many(voiding.http_request) IS 'internal: a route';

CREATE FUNCTION voiding.http_commands(q voiding.http_request) RETURNS voiding.http_answer
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  wanted_status text := q.query ->> 'status';
  wanted_type   text := q.query ->> 'type';
  before        uuid := q.query ->> 'before';
  n             integer := least(greatest(coalesce((q.query ->> 'limit')::integer, 50), 1), 500);
  page          jsonb[];
  next          text;
BEGIN
  SELECT array_agg(voiding.command_object(p.command) ORDER BY (p.command).command_id DESC) INTO page
    FROM (SELECT x AS command FROM voiding.command x
           WHERE NOT x.gone AND (wanted_status IS NULL OR x.status = wanted_status) AND (wanted_type IS NULL OR x.type = wanted_type)
             AND (before IS NULL OR x.command_id < before)
           ORDER BY x.command_id DESC LIMIT n + 1) p;
  IF cardinality(page) > n THEN
    next := voiding.url(q.path, q.query || jsonb_build_object('before', page[n] -> 'command_id'));
  END IF;
  RETURN (200, CASE WHEN next IS NOT NULL THEN jsonb_build_object('Link', format('<%s>; rel="next"', next)) END,
          jsonb_build_object('commands', coalesce(to_jsonb(page[:n]), '[]'), 'next', next)::text, NULL)::voiding.http_answer;
END $$;
COMMENT ON FUNCTION voiding.http_commands(voiding.http_request) IS 'internal: a route';

-- ---- queries ----

-- What is not there yet, but is the result of a command that is open, is worth
-- asking for again.
CREATE FUNCTION voiding.http_query(q voiding.http_request) RETURNS voiding.http_answer
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  result  jsonb := voiding.run_query(q.parameters ->> 'name', q.query);
  headers jsonb := '{"Content-Type": "application/problem+json"}';
  c       record;
  coming  boolean := false;
BEGIN
  IF result IS NOT NULL THEN
    RETURN (200, NULL, result::text, NULL)::voiding.http_answer;
  END IF;
  IF q.resources <> '{}' AND has_table_privilege('voiding.command', 'SELECT') THEN
    SELECT x.command_id, x.type INTO c FROM voiding.command x
     WHERE x.resource = ANY (q.resources) AND x.status IN ('accepted', 'running') ORDER BY x.command_id LIMIT 1;
    coming := FOUND;
  END IF;
  IF NOT coming THEN
    RETURN (404, headers, voiding.problem('P0002', 'there is nothing here', NULL, q.path)::text, NULL)::voiding.http_answer;
  END IF;
  RETURN (404, headers || jsonb_build_object('Retry-After', voiding.retry_after(c.command_id, c.type)::text,
                                             'Link', format('</commands/%s>; rel="related"', c.command_id)),
          voiding.problem('P0002', format('there is nothing here yet: command %s is under way', c.command_id), 'Ask again.', q.path)::text,
          CASE WHEN q.wait > 0 THEN jsonb_build_object('command_id', c.command_id, 'seconds', q.wait, 'then', NULL, 'applied', 'wait=' || q.wait) END)::voiding.http_answer;
END $$;
COMMENT ON FUNCTION voiding.http_query(voiding.http_request) IS 'internal: a route';

-- The query "reports", in pages: a list of reports, and in Link the next one.
CREATE FUNCTION voiding.http_reports(q voiding.http_request) RETURNS voiding.http_answer
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  n       integer := least(greatest(coalesce((q.query ->> 'batch_size')::integer, 100), 1), 500);
  reports jsonb := voiding.run_query(q.parameters ->> 'name', q.query || jsonb_build_object('batch_size', n + 1));
  next    text;
BEGIN
  IF jsonb_array_length(reports) > n THEN
    next := voiding.url(q.path, q.query || jsonb_build_object('before', reports -> n - 1 -> 'report_id'));
  END IF;
  RETURN (200, CASE WHEN next IS NOT NULL THEN jsonb_build_object('Link', format('<%s>; rel="next"', next)) END, (reports - n)::text, NULL)::voiding.http_answer;
END $$;
COMMENT ON FUNCTION voiding.http_reports(voiding.http_request) IS 'internal: a route';

-- ---- processes ----

CREATE FUNCTION voiding.http_processes(q voiding.http_request) RETURNS voiding.http_answer
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  n         integer := least(greatest(coalesce((q.query ->> 'limit')::integer, 50), 1), 500);
  only_failed boolean := q.query ->> 'failed';
  ended     boolean := coalesce((q.query ->> 'ended')::boolean, false);
  before    uuid := q.query ->> 'before';
  processes jsonb;
BEGIN
  IF ended THEN
    SELECT coalesce(jsonb_agg(to_jsonb(x) ORDER BY x.process_id DESC), '[]') INTO processes
      FROM (SELECT e.process_id, e.type, e.key, e.state, e.failed, e.outcome, e.reason, e.started_at, e.finished_at, e.version, e.data FROM voiding.process e
             WHERE e.finished_at IS NOT NULL AND (q.query ->> 'type' IS NULL OR e.type = q.query ->> 'type') AND (q.query ->> 'key' IS NULL OR e.key = q.query ->> 'key')
               AND (q.query ->> 'state' IS NULL OR e.state = q.query ->> 'state') AND (only_failed IS NULL OR (e.outcome = 'failed') = only_failed)
               AND (before IS NULL OR e.process_id < before)
             ORDER BY e.process_id DESC LIMIT n) x;
  ELSE
    SELECT coalesce(jsonb_agg(to_jsonb(x) ORDER BY x.process_id DESC), '[]') INTO processes
      FROM (SELECT o.* FROM voiding.ongoing_process o
             WHERE (q.query ->> 'type' IS NULL OR o.type = q.query ->> 'type') AND (q.query ->> 'key' IS NULL OR o.key = q.query ->> 'key')
               AND (q.query ->> 'state' IS NULL OR o.state = q.query ->> 'state') AND (only_failed IS NULL OR o.failed = only_failed)
               AND (before IS NULL OR o.process_id < before)
             ORDER BY o.process_id DESC LIMIT n) x;
  END IF;
  RETURN (200, NULL, jsonb_build_object('processes', processes,
            'last', CASE WHEN jsonb_array_length(processes) = n THEN processes #>> '{-1,process_id}' END)::text, NULL)::voiding.http_answer;
END $$;
COMMENT ON FUNCTION voiding.http_processes(voiding.http_request) IS 'internal: a route';

CREATE FUNCTION voiding.http_process(q voiding.http_request) RETURNS voiding.http_answer
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  id uuid := q.parameters ->> 'process_id';
  p  jsonb;
BEGIN
  SELECT to_jsonb(x) INTO p FROM voiding.process x WHERE x.process_id = id;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'there is no process %', id USING ERRCODE = 'VD04B';
  END IF;
  p := p || jsonb_build_object('history', coalesce((
         SELECT jsonb_agg(to_jsonb(h) - '{process_id,type,key,position}'::text[] ORDER BY h.step)
           FROM voiding.process_history h WHERE h.process_id = id), '[]'));
  RETURN (200, NULL, p::text, NULL)::voiding.http_answer;
END $$;
COMMENT ON FUNCTION voiding.http_process(voiding.http_request) IS 'internal: a route';

CREATE FUNCTION voiding.http_acknowledge(q voiding.http_request) RETURNS voiding.http_answer
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM voiding.acknowledge_process_failure((q.parameters ->> 'process_id')::uuid, q.body ->> 'reason');
  RETURN (204, NULL, NULL, NULL)::voiding.http_answer;
END $$;
COMMENT ON FUNCTION voiding.http_acknowledge(voiding.http_request) IS 'internal: a route';

-- ---- about the service itself ----

CREATE FUNCTION voiding.http_health(q voiding.http_request) RETURNS voiding.http_answer
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT 200, NULL::jsonb, '{"status": "ok"}', NULL::jsonb $$;
COMMENT ON FUNCTION voiding.http_health(voiding.http_request) IS 'internal: a route';
