-- http_task.sql: the routes of tasks, listed with all others in http.sql.
--
-- They run as whoever calls, and use what the duty worker of doc/privilege.md
-- grants. form_factor in a query is voiding.form_factor for that request.

-- The list is a view; pages are cut where the order of urgency goes on.
CREATE FUNCTION voiding.http_tasks(q voiding.http_request) RETURNS voiding.http_answer
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  after text := q.query ->> 'after';
  n     integer := least(greatest(coalesce((q.query ->> 'limit')::integer, 50), 1), 500);
  page  jsonb[];
  next  text;
BEGIN
  IF after !~ '^-?[0-9]{1,10},[^,]+,[0-9a-f-]{36}$' THEN
    RAISE EXCEPTION 'after is no cursor of this list' USING ERRCODE = 'VD22B', HINT = 'Take it from next of the page before.';
  END IF;
  PERFORM set_config('voiding.form_factor', q.query ->> 'form_factor', true) WHERE q.query ? 'form_factor';
  EXECUTE format('SELECT array_agg(voiding.task_object(ROW(p.*)::voiding.task) ORDER BY -p.priority, p.due_at, p.task_id) FROM (
                    SELECT x.* FROM voiding.%I x WHERE ($1 IS NULL OR x.type = $1) AND ($2 IS NULL OR x.key = $2) AND ($3 IS NULL OR x.state = $3)%s
                     ORDER BY -x.priority, x.due_at, x.task_id LIMIT $7) p',
                 q.parameters ->> 'name', CASE WHEN after IS NOT NULL THEN ' AND (-x.priority, x.due_at, x.task_id) > ($4, $5, $6)' ELSE '' END)
    INTO page USING q.query ->> 'type', q.query ->> 'key', q.query ->> 'state', split_part(after, ',', 1)::integer,
                    split_part(after, ',', 2)::timestamptz, split_part(after, ',', 3)::uuid, n + 1;
  IF cardinality(page) > n THEN
    next := voiding.url(q.path, q.query || jsonb_build_object('after',
              concat_ws(',', -(page[n] ->> 'priority')::integer, coalesce(page[n] ->> 'due_at', 'infinity'), page[n] ->> 'task_id')));
  END IF;
  RETURN (200, CASE WHEN next IS NOT NULL THEN jsonb_build_object('Link', format('<%s>; rel="next"', next)) END,
          jsonb_build_object('tasks', coalesce(to_jsonb(page[:n]), '[]'), 'next', next)::text, NULL)::voiding.http_answer;
END $$;
COMMENT ON FUNCTION voiding.http_tasks(voiding.http_request) IS 'internal: a route';

CREATE FUNCTION voiding.http_task_queues(q voiding.http_request) RETURNS voiding.http_answer
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT 200, NULL::jsonb, jsonb_build_object('queues', coalesce(jsonb_agg(to_jsonb(x) ORDER BY x.type, x.role), '[]'))::text, NULL::jsonb
    FROM voiding.task_queue x
   WHERE coalesce(x.type = q.query ->> 'type', NOT q.query ? 'type') AND (NOT q.query ? 'role' OR x.role = q.query ->> 'role')
$$;
COMMENT ON FUNCTION voiding.http_task_queues(voiding.http_request) IS 'internal: a route';

CREATE FUNCTION voiding.http_task_changes(q voiding.http_request) RETURNS voiding.http_answer
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT a.* FROM voiding.feed_answer(q, 'voiding_task', NULL,
    'SELECT c.cursor, jsonb_build_object(''task_id'', c.task_id, ''task'', CASE WHEN (c.task).task_id IS NOT NULL THEN voiding.task_object(c.task) END)
       FROM voiding.task_changes($1, $2) c') a
$$;
COMMENT ON FUNCTION voiding.http_task_changes(voiding.http_request) IS 'internal: a route';

-- The tag is the version, and behind it what the caller may do: that can change
-- without the task. If-Match looks at the version only.
CREATE FUNCTION voiding.http_task(q voiding.http_request) RETURNS voiding.http_answer
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  id      uuid := q.parameters ->> 'task_id';
  t       voiding.task;
  actions jsonb;
  tag     text;
BEGIN
  SELECT * INTO t FROM voiding.task x WHERE x.task_id = id;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'there is no task %', id USING ERRCODE = 'VD04E';
  END IF;
  PERFORM set_config('voiding.form_factor', q.query ->> 'form_factor', true) WHERE q.query ? 'form_factor';
  SELECT coalesce(jsonb_agg(jsonb_build_object('action', a.action, 'to_state', a.to_state, 'href', format('/tasks/%s/%s', id, a.action)) ORDER BY a.action), '[]')
    INTO actions FROM voiding.task_actions(id) a;
  tag := format('"%s-%s"', t.version, to_hex(hashtext(actions::text)));
  IF position(tag IN q.headers ->> 'if-none-match') > 0 OR q.headers ->> 'if-none-match' = '*' THEN
    RETURN (304, jsonb_build_object('ETag', tag), NULL, NULL)::voiding.http_answer;
  END IF;
  RETURN (200, jsonb_build_object('ETag', tag),
          (voiding.task_object(t) || jsonb_build_object('actions', actions, 'links', jsonb_strip_nulls(jsonb_build_object(
             'actions', format('/tasks/%s/actions', id), 'why_not', format('/tasks/%s/why-not', id), 'process', '/processes/' || t.process_id))))::text,
          NULL)::voiding.http_answer;
END $$;
COMMENT ON FUNCTION voiding.http_task(voiding.http_request) IS 'internal: a route';

CREATE FUNCTION voiding.http_task_actions(q voiding.http_request) RETURNS voiding.http_answer
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  id      uuid := q.parameters ->> 'task_id';
  actions jsonb;
BEGIN
  PERFORM set_config('voiding.form_factor', q.query ->> 'form_factor', true) WHERE q.query ? 'form_factor';
  SELECT jsonb_agg(jsonb_build_object('action', a.action, 'to_state', a.to_state, 'href', format('/tasks/%s/%s', id, a.action)) ORDER BY a.action)
    INTO actions FROM voiding.task_actions(id) a;
  RETURN (200, NULL, jsonb_build_object('actions', coalesce(actions, '[]'))::text, NULL)::voiding.http_answer;
END $$;
COMMENT ON FUNCTION voiding.http_task_actions(voiding.http_request) IS 'internal: a route';

CREATE FUNCTION voiding.http_why_not(q voiding.http_request) RETURNS voiding.http_answer
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM set_config('voiding.form_factor', q.query ->> 'form_factor', true) WHERE q.query ? 'form_factor';
  RETURN (200, NULL, jsonb_build_object('reasons', voiding.why_not((q.parameters ->> 'task_id')::uuid, (q.query ->> 'role')::name))::text, NULL)::voiding.http_answer;
END $$;
COMMENT ON FUNCTION voiding.http_why_not(voiding.http_request) IS 'internal: a route';

-- ---- actions ----

CREATE FUNCTION voiding.action_id(key text) RETURNS uuid
  LANGUAGE plpgsql STABLE STRICT SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  hash text := encode(sha256(convert_to(key, getdatabaseencoding())), 'hex');
BEGIN
  IF octet_length(key) NOT BETWEEN 1 AND 200 THEN
    RAISE EXCEPTION 'an idempotency key has 1 to 200 bytes, not %', octet_length(key) USING ERRCODE = 'invalid_parameter_value';
  END IF;
  RETURN CASE WHEN key ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN key
              ELSE substr(hash, 1, 12) || '8' || substr(hash, 14, 3) || '8' || substr(hash, 18, 15) END;
END $$;
COMMENT ON FUNCTION voiding.action_id(text) IS 'the action id that an idempotency key stands for: itself, if it is a uuid, else one made of it (version 8)';

CREATE FUNCTION voiding.http_next_task(q voiding.http_request) RETURNS voiding.http_answer
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  types text[] := CASE WHEN jsonb_typeof(q.body -> 'types') <> 'null' THEN ARRAY(SELECT jsonb_array_elements_text(q.body -> 'types')) END;
  t     voiding.task;
  a     voiding.http_answer;
BEGIN
  IF q.body - '{types,form_factor}'::text[] <> '{}' THEN
    RAISE EXCEPTION 'the body has types and form_factor, and nothing else' USING ERRCODE = 'VD22B';
  END IF;
  t := voiding.next_task(types, coalesce(q.body ->> 'form_factor', q.query ->> 'form_factor'), voiding.action_id(btrim(q.headers ->> 'idempotency-key', '" ')));
  IF t.task_id IS NULL THEN
    RETURN (204, NULL, NULL, NULL)::voiding.http_answer;
  END IF;
  a := voiding.http('GET', '/tasks/' || t.task_id);
  a.headers := a.headers || jsonb_build_object('Content-Location', '/tasks/' || t.task_id);
  RETURN a;
END $$;
COMMENT ON FUNCTION voiding.http_next_task(voiding.http_request) IS 'internal: a route';

-- Where somebody was faster, the problem has the task as it is now: the client
-- goes on from there. Stale by If-Match is 412, not 409.
CREATE FUNCTION voiding.http_task_action(q voiding.http_request) RETURNS voiding.http_answer
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  id       uuid := q.parameters ->> 'task_id';
  verb     text := q.parameters ->> 'action';
  if_match text := nullif(btrim(q.headers ->> 'if-match'), '*');
  versions integer[] := ARRAY(SELECT m[1]::integer FROM regexp_matches(if_match, '(?:^|,)\s*"([0-9]{1,9})(?:-[0-9a-f]+)?"', 'g') m);
  -- of several the one that it has, if any; none that can be read: one that it never has
  version  integer := CASE WHEN if_match IS NOT NULL THEN coalesce((SELECT x.version FROM voiding.task x WHERE x.task_id = id AND x.version = ANY (versions)), versions[1], -1) END;
  t        voiding.task;
  a        voiding.http_answer;
  code     text; message text; now_it_is jsonb; remedy text;
  problem  jsonb;
BEGIN
  IF NOT EXISTS (SELECT FROM voiding.task_transition x WHERE x.action = verb AND x.who <> 'engine') THEN
    RAISE EXCEPTION 'there is no action "%"', verb USING ERRCODE = 'undefined_object', HINT = format('GET /tasks/%s/actions shows what is possible.', id);
  END IF;
  PERFORM set_config('voiding.form_factor', q.query ->> 'form_factor', true) WHERE q.query ? 'form_factor';
  BEGIN
    t := voiding.act_on_task(id, verb, q.body, voiding.action_id(btrim(q.headers ->> 'idempotency-key', '" ')), version);
  EXCEPTION WHEN SQLSTATE 'VD09C' OR SQLSTATE 'VD09D' THEN
    GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, now_it_is = PG_EXCEPTION_DETAIL, remedy = PG_EXCEPTION_HINT;
    problem := voiding.problem(code, message, nullif(remedy, ''), q.path) || jsonb_build_object('task', now_it_is)
               || CASE WHEN (now_it_is ->> 'version')::integer <> version THEN '{"status": 412}' ELSE '{}' END::jsonb;
    RETURN ((problem ->> 'status')::integer, jsonb_build_object('Content-Type', 'application/problem+json', 'ETag', format('"%s"', now_it_is ->> 'version')),
            problem::text, NULL)::voiding.http_answer;
  END;
  a := voiding.http('GET', '/tasks/' || id);
  IF a.status = 404 THEN  -- it is done, and the caller sees it no more
    RETURN (200, NULL, voiding.task_object(t)::text, NULL)::voiding.http_answer;
  END IF;
  RETURN a;
END $$;
COMMENT ON FUNCTION voiding.http_task_action(voiding.http_request) IS 'internal: a route';
