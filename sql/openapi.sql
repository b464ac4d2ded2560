-- openapi.sql: GET /openapi.json: what http() serves, as an OpenAPI document.
--
-- It is made of the view route, of the functions behind commands and queries,
-- and of the table of what may be done to a task.

-- OpenAPI 3.1. The commands and queries in it are those that the caller may use.
CREATE FUNCTION voiding.http_openapi(q voiding.http_request) RETURNS voiding.http_answer
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
  WITH function AS (
    SELECT h.kind, h.type, h.takes_set, p.pronargs, p.pronargdefaults, p.proargnames, p.proargtypes::oid[] AS types,
           h.kind || '.' || regexp_replace(h.type, '[^A-Za-z0-9._-]', '_', 'g') AS schema, obj_description(p.oid, 'pg_proc') AS description
      FROM voiding.handler h
      JOIN pg_proc p ON p.pronamespace <> 'pg_catalog'::regnamespace AND p.oid::regprocedure::text = h.function
     WHERE CASE h.kind WHEN 'query' THEN has_function_privilege(p.oid, 'EXECUTE')
                       WHEN 'command' THEN pg_has_role(p.proowner, 'USAGE') OR EXISTS (  -- as send_command() asks
                         SELECT FROM aclexplode(p.proacl) a
                          WHERE a.grantee <> 0 AND a.privilege_type = 'EXECUTE' AND pg_has_role(a.grantee, 'USAGE')) END
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
  ), action AS (                     -- what may be done to a task: its arguments are those of the function of this name
    SELECT DISTINCT t.action, a.name FROM voiding.task_transition t
      JOIN pg_proc p ON p.pronamespace = 'voiding'::regnamespace AND p.proname IN (t.action || '_task', t.action || '_claim')
      LEFT JOIN unnest(p.proargnames) a (name) ON a.name NOT IN ('task_id', 'action_id', 'version')
     WHERE t.who <> 'engine'
  ), operation AS (
    SELECT r.method, r.path, regexp_replace(r.path, ':uuid', '', 'g') AS address, jsonb_strip_nulls(jsonb_build_object(
        'operationId', lower(r.method) || regexp_replace(replace(r.path, ':uuid', ''), '[^A-Za-z0-9]+', '_', 'g'),
        'summary', r.summary,
        'parameters', (SELECT coalesce(jsonb_agg(p.p), '[]') FROM (
          SELECT jsonb_build_object('name', m[1], 'in', 'path', 'required', true, 'schema',
                   CASE WHEN m[1] = 'type' THEN (SELECT c.name FROM choice c WHERE c.kind = 'command')
                        WHEN m[1] = 'name' THEN (SELECT c.name FROM choice c WHERE c.kind = 'query')
                        WHEN m[1] = 'action' THEN (SELECT jsonb_build_object('type', 'string', 'enum', jsonb_agg(DISTINCT t.action)) FROM action t)
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
                             WHEN r.operation = 'task' THEN '{If-None-Match}' WHEN r.operation = 'task_action' THEN '{Idempotency-Key,If-Match}'
                             WHEN r.operation = 'next_task' THEN '{Idempotency-Key}'
                             WHEN r.operation IN ('changes', 'task_changes', 'events', 'status_events') THEN '{Last-Event-ID}' END::text[]) h) p),
        'requestBody', CASE WHEN r.takes IS NOT NULL THEN jsonb_build_object('required', r.takes = 'array', 'content',
          jsonb_build_object('application/json', jsonb_build_object('schema',
            CASE WHEN r.operation = 'command' THEN (SELECT c.data FROM choice c WHERE c.kind = 'command')
                 WHEN r.operation = 'task_action' THEN (SELECT jsonb_build_object('anyOf', jsonb_agg(x.schema ORDER BY x.action)) FROM (
                   SELECT t.action, jsonb_build_object('type', 'object', 'title', t.action, 'additionalProperties', false,
                            'properties', coalesce(jsonb_object_agg(t.name, CASE t.name WHEN 'outcome' THEN '{}' ELSE '{"type": "string"}' END::jsonb)
                                                     FILTER (WHERE t.name IS NOT NULL), '{}')) AS schema
                     FROM action t GROUP BY t.action) x)
                 ELSE jsonb_build_object('type', r.takes) END))) END,
        'responses', (SELECT jsonb_object_agg(s::text, jsonb_strip_nulls(jsonb_build_object('description',
             CASE s WHEN 200 THEN 'as it is' WHEN 202 THEN 'accepted: ask again after Retry-After' WHEN 204 THEN 'done, or nothing to do' WHEN 207 THEN 'some were refused'
                    WHEN 303 THEN 'it is elsewhere' WHEN 304 THEN 'it has not changed'
                    WHEN 409 THEN 'somebody else has it, or it is in another state: see task' WHEN 412 THEN 'it has another version: see task' END,
             'content', CASE WHEN s IN (200, 202, 207) THEN
               CASE WHEN r.operation NOT IN ('metrics', 'status_events') THEN jsonb_build_object('application/json', jsonb_build_object('schema',
                          CASE WHEN r.operation IN ('command', 'cancel') THEN '{"$ref": "#/components/schemas/status"}'
                               WHEN r.operation IN ('task', 'task_action', 'next_task') THEN '{"$ref": "#/components/schemas/task"}' ELSE '{}' END::jsonb)) ELSE '{}' END
               || CASE WHEN r.operation LIKE '%events' OR r.operation LIKE '%changes' THEN '{"text/event-stream": {"schema": {"type": "string"}}}'::jsonb
                       WHEN r.operation = 'metrics' THEN '{"application/openmetrics-text": {"schema": {"type": "string"}}}' ELSE '{}' END
                             WHEN s IN (409, 412) THEN '{"application/problem+json": {"schema": {"$ref": "#/components/schemas/problem"}}}' END)))
             FROM unnest(r.answers) s)
          || '{"default": {"description": "a problem", "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/problem"}}}}}'
      )) AS document
      FROM voiding.route r
  )
  SELECT 200, NULL::jsonb, jsonb_build_object(
    'openapi', '3.1.0',
    'info', jsonb_build_object('title', 'voiding', 'version', '1', 'description', 'Commands with a status, queries, tasks, and processes.'),
    'paths', (SELECT jsonb_object_agg(p.address, p.operations)
                FROM (SELECT o.address, jsonb_object_agg(lower(o.method), o.document) AS operations FROM operation o GROUP BY o.address) p),
    'components', jsonb_build_object('schemas', coalesce((SELECT jsonb_object_agg(a.schema, a.document) FROM arguments a), '{}')
      || '{"problem": {"type": "object", "required": ["type", "title", "status"], "properties": {"type": {"type": "string"}, "title": {"type": "string"},
            "status": {"type": "integer"}, "detail": {"type": "string"}, "instance": {"type": "string"}, "code": {"type": "string"}, "hint": {"type": "string"},
            "task": {"$ref": "#/components/schemas/task"}}},
           "task": {"type": "object", "required": ["task_id", "type", "state", "version", "self"], "properties": {
            "task_id": {"type": "string", "format": "uuid"}, "type": {"type": "string"}, "service": {"type": ["string", "null"]},
            "state": {"type": "string", "enum": ["ready", "claimed", "in_progress", "suspended", "completed", "failed", "cancelled", "expired"]},
            "title": {"type": ["string", "null"]}, "document": {}, "key": {"type": "string"}, "owner": {"type": ["string", "null"]},
            "priority": {"type": "integer"}, "due_at": {"type": ["string", "null"]}, "outcome": {}, "version": {"type": "integer"},
            "actions": {"type": "array", "items": {"type": "object"}}, "links": {"type": "object"}, "self": {"type": "string"}}},
           "status": {"type": "object", "required": ["command_id", "type", "status", "self"], "properties": {
            "command_id": {"type": "string", "format": "uuid"}, "type": {"type": "string"},
            "status": {"type": "string", "enum": ["accepted", "running", "processed", "failed", "cancelled", "expired"]},
            "resource": {"type": ["string", "null"]}, "result": {}, "error": {"anyOf": [{"$ref": "#/components/schemas/problem"}, {"type": "null"}]},
            "process_id": {"type": ["string", "null"]}, "accepted_at": {"type": "string", "format": "date-time"},
            "finished_at": {"type": ["string", "null"]}, "self": {"type": "string"}}}}'::jsonb))::text, NULL::jsonb
$$;
COMMENT ON FUNCTION voiding.http_openapi(voiding.http_request) IS 'internal: a route';
