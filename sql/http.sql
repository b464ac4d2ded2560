-- http.sql: requests of HTTP as calls of a function: http().
--
-- The view route lists what there is: http() finds its way by it, and the
-- OpenAPI document is made of it. A route is served by http_<operation>(),
-- called by http() with the rights of whoever calls: who may do what is said
-- by GRANTs on what the route uses.

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
  ('GET',    '/reports', 'query', 'reports', NULL, '{customer_id,currency,status,before,batch_size}', '{200}',
   'reports, latest first'),
  ('GET',    '/reports/{report_id}', 'query', 'report', NULL, '{}', '{200}',
   'a report with its documents'),
  ('GET',    '/processes', 'processes', NULL, NULL, '{type,key,state,failed,before,limit}', '{200}',
   'processes that run, and those that failed until they are acknowledged, latest first'),
  ('GET',    '/processes/{process_id:uuid}', 'process', NULL, NULL, '{}', '{200}',
   'a process with its history'),
  ('POST',   '/processes/{process_id:uuid}/acknowledge', 'acknowledge', NULL, 'object', '{}', '{204}',
   'take note of the failure of a process; the body may have a reason'),
  ('GET',    '/events', 'events', NULL, NULL, '{types,after,limit}', '{200}',
   'what has happened since a cursor, or as a stream; types: a list with commas'),
  ('GET',    '/metrics', 'metrics', NULL, NULL, '{}', '{200}',
   'figures to watch, as OpenMetrics'),
  ('GET',    '/openapi.json', 'openapi', NULL, NULL, '{}', '{200}',
   'this document'),
  ('GET',    '/healthz', 'health', NULL, NULL, '{}', '{200}',
   'is the database there?')) r (method, path, operation, query, takes, parameters, answers, summary);
COMMENT ON VIEW voiding.route IS 'what http() serves: one row a route';

CREATE FUNCTION voiding.http(method text, path text, query jsonb DEFAULT '{}', headers jsonb DEFAULT '{}', body text DEFAULT NULL)
  RETURNS voiding.http_answer
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_http';
COMMENT ON FUNCTION voiding.http(text, text, jsonb, jsonb, text) IS
  'answer a request of HTTP with the caller''s rights; path as in the request line; never waits: see wait in the answer';

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
  c             voiding.command;
  commands      jsonb := '[]';
  next          text;
BEGIN
  FOR c IN SELECT x.* FROM voiding.command x
            WHERE NOT x.gone AND (wanted_status IS NULL OR x.status = wanted_status) AND (wanted_type IS NULL OR x.type = wanted_type)
              AND (before IS NULL OR x.command_id < before)
            ORDER BY x.command_id DESC LIMIT n + 1 LOOP
    IF jsonb_array_length(commands) = n THEN
      next := format('/commands?before=%s&limit=%s', before, n) || coalesce('&status=' || wanted_status, '') || coalesce('&type=' || wanted_type, '');
      EXIT;
    END IF;
    commands := commands || voiding.command_object(c);
    before := c.command_id;
  END LOOP;
  RETURN (200, CASE WHEN next IS NOT NULL THEN jsonb_build_object('Link', format('<%s>; rel="next"', next)) END,
          jsonb_build_object('commands', commands, 'next', next)::text, NULL)::voiding.http_answer;
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

-- ---- processes ----

CREATE FUNCTION voiding.http_processes(q voiding.http_request) RETURNS voiding.http_answer
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  n         integer := least(greatest(coalesce((q.query ->> 'limit')::integer, 50), 1), 500);
  only_failed boolean := q.query ->> 'failed';
  before    uuid := q.query ->> 'before';
  processes jsonb;
BEGIN
  SELECT coalesce(jsonb_agg(to_jsonb(x) ORDER BY x.process_id DESC), '[]') INTO processes
    FROM (SELECT o.* FROM voiding.ongoing_process o
           WHERE (q.query ->> 'type' IS NULL OR o.type = q.query ->> 'type') AND (q.query ->> 'key' IS NULL OR o.key = q.query ->> 'key')
             AND (q.query ->> 'state' IS NULL OR o.state = q.query ->> 'state') AND (only_failed IS NULL OR o.failed = only_failed)
             AND (before IS NULL OR o.process_id < before)
           ORDER BY o.process_id DESC LIMIT n) x;
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

-- OpenAPI 3.1. The commands and queries in it are those that the caller may use.
CREATE FUNCTION voiding.http_openapi(q voiding.http_request) RETURNS voiding.http_answer
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
  WITH function AS (
    SELECT h.kind, h.type, h.takes_set, p.pronargs, p.pronargdefaults, p.proargnames, p.proargtypes::oid[] AS types,
           h.kind || '.' || regexp_replace(h.type, '[^A-Za-z0-9._-]', '_', 'g') AS schema, obj_description(p.oid, 'pg_proc') AS description
      FROM voiding.handler h
      JOIN pg_proc p ON p.pronamespace <> 'pg_catalog'::regnamespace AND p.oid::regprocedure::text = h.function
     WHERE h.kind IN ('command', 'query') AND has_function_privilege(p.oid, 'EXECUTE')
  ), argument AS (
    SELECT f.schema, f.proargnames[i + 1] AS name, i < f.pronargs - f.pronargdefaults AS required,
           CASE WHEN t.typname IN ('int2', 'int4', 'int8') THEN '{"type": "integer"}'
                WHEN t.typcategory = 'N' THEN '{"type": "number"}'
                WHEN t.typname = 'bool' THEN '{"type": "boolean"}'
                WHEN t.typname IN ('json', 'jsonb') THEN '{}'
                WHEN t.typname = 'uuid' THEN '{"type": "string", "format": "uuid"}'
                WHEN t.typname = 'date' THEN '{"type": "string", "format": "date"}'
                WHEN t.typname = 'timestamptz' THEN '{"type": "string", "format": "date-time"}'
                WHEN t.typcategory = 'A' THEN '{"type": "array"}'
                WHEN t.typcategory = 'C' THEN '{"type": "object"}'
                ELSE '{"type": "string"}' END::jsonb AS schema_of_it
      FROM function f, generate_series(0, f.pronargs - 1) i
      JOIN pg_type a ON true
      JOIN pg_type e ON e.oid = coalesce(nullif(a.typelem, 0), a.oid)
      JOIN pg_type t ON true
     WHERE a.oid = f.types[i] AND t.oid = CASE WHEN f.takes_set THEN coalesce(nullif(e.typbasetype, 0), e.oid) ELSE coalesce(nullif(a.typbasetype, 0), a.oid) END
       AND NOT (f.kind = 'command' AND f.proargnames[i + 1] IN ('correlation_id', 'message_id', 'causation_id', 'source', 'subject'))
  ), arguments AS (
    SELECT f.kind, f.type, f.schema, jsonb_strip_nulls(jsonb_build_object('type', 'object', 'description', f.description,
             'properties', coalesce((SELECT jsonb_object_agg(a.name, a.schema_of_it) FROM argument a WHERE a.schema = f.schema), '{}'),
             'required', (SELECT jsonb_agg(a.name) FROM argument a WHERE a.schema = f.schema AND a.required),
             'additionalProperties', false)) AS document
      FROM function f
  ), choice AS (                     -- of a command, of a query
    SELECT k.kind, coalesce((SELECT jsonb_build_object('anyOf', jsonb_agg(jsonb_build_object('$ref', '#/components/schemas/' || a.schema) ORDER BY a.type))
                               FROM arguments a WHERE a.kind = k.kind HAVING count(*) > 0), '{"type": "object"}') AS data,
           coalesce((SELECT jsonb_build_object('type', 'string', 'enum', jsonb_agg(a.type ORDER BY a.type))
                       FROM arguments a WHERE a.kind = k.kind HAVING count(*) > 0), '{"type": "string"}') AS name
      FROM (VALUES ('command'), ('query')) k (kind)
  ), operation AS (
    SELECT r.method, r.path, regexp_replace(r.path, ':uuid', '', 'g') AS address, jsonb_strip_nulls(jsonb_build_object(
        'operationId', lower(r.method) || regexp_replace(replace(r.path, ':uuid', ''), '[^A-Za-z0-9]+', '_', 'g'),
        'summary', r.summary,
        'parameters', (SELECT coalesce(jsonb_agg(p.p), '[]') FROM (
          SELECT jsonb_build_object('name', m[1], 'in', 'path', 'required', true, 'schema',
                   CASE WHEN m[1] = 'type' THEN (SELECT c.name FROM choice c WHERE c.kind = 'command')
                        WHEN m[1] = 'name' THEN (SELECT c.name FROM choice c WHERE c.kind = 'query')
                        WHEN m[2] <> '' THEN '{"type": "string", "format": "uuid"}'
                        ELSE '{"type": "string"}' END) AS p
            FROM regexp_matches(r.path, '\{([a-z_]+)(:uuid)?\}', 'g') m
          UNION ALL
          SELECT jsonb_build_object('name', n, 'in', 'query', 'schema', '{"type": "string"}'::jsonb) FROM unnest(r.parameters) n
          UNION ALL
          SELECT jsonb_build_object('name', 'arguments', 'in', 'query', 'style', 'form', 'explode', true, 'schema', c.data)
            FROM choice c WHERE c.kind = 'query' AND r.operation = 'query' AND r.query IS NULL
          UNION ALL
          SELECT jsonb_build_object('name', h, 'in', 'header', 'schema', '{"type": "string"}'::jsonb)
            FROM unnest(CASE WHEN r.operation = 'command' AND r.method = 'POST' THEN '{Idempotency-Key,Prefer}'
                             WHEN r.operation = 'command' THEN '{If-None-Match,Prefer}' WHEN r.operation IN ('result', 'query') THEN '{Prefer}'
                             WHEN r.operation IN ('changes', 'events', 'status_events') THEN '{Last-Event-ID}' END::text[]) h) p),
        'requestBody', CASE WHEN r.takes IS NOT NULL THEN jsonb_build_object('required', r.takes = 'array', 'content',
          jsonb_build_object('application/json', jsonb_build_object('schema',
            CASE WHEN r.operation = 'command' THEN (SELECT c.data FROM choice c WHERE c.kind = 'command')
                 ELSE jsonb_build_object('type', r.takes) END))) END,
        'responses', (SELECT jsonb_object_agg(s::text, jsonb_strip_nulls(jsonb_build_object('description',
             CASE s WHEN 200 THEN 'as it is' WHEN 202 THEN 'accepted: ask again after Retry-After' WHEN 204 THEN 'done' WHEN 207 THEN 'some were refused'
                    WHEN 303 THEN 'it is elsewhere' WHEN 304 THEN 'it has not changed' END,
             'content', CASE WHEN s IN (200, 202, 207) THEN
               CASE WHEN r.operation NOT IN ('metrics', 'status_events') THEN jsonb_build_object('application/json', jsonb_build_object('schema',
                          CASE WHEN r.operation IN ('command', 'cancel') THEN '{"$ref": "#/components/schemas/status"}' ELSE '{}' END::jsonb)) ELSE '{}' END
               || CASE WHEN r.operation LIKE '%events' OR r.operation = 'changes' THEN '{"text/event-stream": {"schema": {"type": "string"}}}'::jsonb
                       WHEN r.operation = 'metrics' THEN '{"application/openmetrics-text": {"schema": {"type": "string"}}}' ELSE '{}' END END)))
             FROM unnest(r.answers) s)
          || '{"default": {"description": "a problem", "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/problem"}}}}}'
      )) AS document
      FROM voiding.route r
  )
  SELECT 200, NULL::jsonb, jsonb_build_object(
    'openapi', '3.1.0',
    'info', jsonb_build_object('title', 'voiding', 'version', '1', 'description', 'Commands with a status, queries, and processes.'),
    'paths', (SELECT jsonb_object_agg(p.address, p.operations)
                FROM (SELECT o.address, jsonb_object_agg(lower(o.method), o.document) AS operations FROM operation o GROUP BY o.address) p),
    'components', jsonb_build_object('schemas', coalesce((SELECT jsonb_object_agg(a.schema, a.document) FROM arguments a), '{}')
      || '{"problem": {"type": "object", "required": ["type", "title", "status"], "properties": {"type": {"type": "string"}, "title": {"type": "string"},
            "status": {"type": "integer"}, "detail": {"type": "string"}, "instance": {"type": "string"}, "code": {"type": "string"}, "hint": {"type": "string"}}},
           "status": {"type": "object", "required": ["command_id", "type", "status", "self"], "properties": {
            "command_id": {"type": "string", "format": "uuid"}, "type": {"type": "string"},
            "status": {"type": "string", "enum": ["accepted", "running", "processed", "failed", "cancelled", "expired"]},
            "resource": {"type": ["string", "null"]}, "result": {}, "error": {"anyOf": [{"$ref": "#/components/schemas/problem"}, {"type": "null"}]},
            "process_id": {"type": ["string", "null"]}, "accepted_at": {"type": "string", "format": "date-time"},
            "finished_at": {"type": ["string", "null"]}, "self": {"type": "string"}}}}'::jsonb))::text, NULL::jsonb
$$;
COMMENT ON FUNCTION voiding.http_openapi(voiding.http_request) IS 'internal: a route';
