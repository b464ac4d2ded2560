-- task_type.sql: kinds of work for people: what makes a task, what is in it,
-- who may do it.
--
-- A type belongs to a service. Its definition is checked whole when it is
-- given; events that make or end tasks come to the service like all others.

CREATE TABLE voiding.task_type (
  name       text PRIMARY KEY,
  service    text NOT NULL,
  definition jsonb NOT NULL,
  created_by text NOT NULL,
  created_at timestamptz NOT NULL
);
COMMENT ON TABLE voiding.task_type IS 'kinds of work for people: what makes a task, what is in it, who may do it';
COMMENT ON COLUMN voiding.task_type.service IS 'whose work it is: its owner decides, its status events have it as their source';
SELECT pg_catalog.pg_extension_config_dump('voiding.task_type', '');

-- what may be done to a task, and what is said of it then
CREATE VIEW voiding.task_transition AS
  SELECT v.action, f.state AS from_state, coalesce(v.to_state, f.state) AS to_state, w.who, v.event, v.description
    FROM (VALUES
      ('create',   '{NULL}'::text[],                          'ready',       '{engine}'::text[],          'TaskCreated',   'a process makes it'),
      ('claim',    '{ready}',                                 'claimed',     '{worker}',                  'TaskClaimed',   'take it, for the time of the lease'),
      ('start',    '{claimed}',                               'in_progress', '{owner}',                   'TaskStarted',   'begin the work; the lease begins anew'),
      ('extend',   '{claimed,in_progress}',                   NULL,          '{owner}',                   NULL,            'the lease begins anew'),
      ('suspend',  '{claimed,in_progress}',                   'suspended',   '{owner}',                   'TaskSuspended', 'put it aside, until a time or until it is resumed'),
      ('resume',   '{suspended}',                             'in_progress', '{owner,engine}',            'TaskResumed',   'go on with it; by itself when the time has come'),
      ('release',  '{claimed,in_progress,suspended}',         'ready',       '{owner,supervisor}',        'TaskReleased',  'give it back, or take it away from its owner'),
      ('release',  '{claimed,in_progress}',                   'ready',       '{engine}',                  'TaskReleased',  'the lease has run out'),
      ('complete', '{claimed,in_progress}',                   'completed',   '{owner}',                   'TaskCompleted', 'it is done'),
      ('complete', '{ready,claimed,in_progress,suspended}',   'completed',   '{engine}',                  'TaskCompleted', 'an event says so, or the failure is acknowledged'),
      ('fail',     '{claimed,in_progress}',                   'failed',      '{owner}',                   'TaskFailed',    'it cannot be done'),
      ('assign',   '{ready,claimed,in_progress,suspended}',   'ready',       '{supervisor,engine}',       'TaskAssigned',  'it is for another role from now on'),
      ('cancel',   '{ready,claimed,in_progress,suspended}',   'cancelled',   '{supervisor,engine}',       'TaskCancelled', 'it need not be done'),
      ('withdraw', '{ready,claimed,in_progress,suspended}',   'cancelled',   '{engine}',                  'TaskWithdrawn', 'its process has gone on without it'),
      ('expire',   '{ready,claimed,in_progress,suspended}',   'expired',     '{engine}',                  'TaskExpired',   'nobody did it in time'),
      ('escalate', '{ready,claimed,in_progress,suspended}',   NULL,          '{engine}',                  'TaskEscalated', 'a deadline has passed')
    ) v (action, from_states, to_state, whos, event, description)
   CROSS JOIN unnest(v.from_states) f (state) CROSS JOIN unnest(v.whos) w (who);
COMMENT ON VIEW voiding.task_transition IS 'what may be done to a task in which state, by whom, and the event that says so';

-- Values of a definition as those of processes: "$..." is looked up.
CREATE FUNCTION voiding.fill(template jsonb, event jsonb, process jsonb, key text, process_id uuid) RETURNS jsonb
  LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'voiding_fill';
COMMENT ON FUNCTION voiding.fill(jsonb, jsonb, jsonb, text, uuid) IS 'internal';

-- What a check function of a service says of a document or an outcome. It runs
-- as its owner, and may only read.
CREATE FUNCTION voiding.ask_check(function text, value jsonb) RETURNS text
  LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'voiding_ask_check';
COMMENT ON FUNCTION voiding.ask_check(text, jsonb) IS 'internal: what is wrong with a value; null: nothing, or there is no function';

-- one or many, without nulls
CREATE FUNCTION voiding.texts(v jsonb) RETURNS text[]
  LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT coalesce(array_agg(i #>> '{}') FILTER (WHERE i <> 'null'), '{}') FROM voiding.items(v) i $$;
COMMENT ON FUNCTION voiding.texts(jsonb) IS 'internal';

-- a time, or a duration from another one on
CREATE FUNCTION voiding.moment(v text, since timestamptz) RETURNS timestamptz
  LANGUAGE sql STABLE SET TimeZone = 'UTC' SET search_path = pg_catalog, pg_temp
AS $$ SELECT CASE WHEN v LIKE 'P%' THEN since + v::interval ELSE v::timestamptz END $$;
COMMENT ON FUNCTION voiding.moment(text, timestamptz) IS 'internal';

-- ---- what is wrong with a definition ----

CREATE FUNCTION voiding.bad_task_rules(kind text, rules jsonb) RETURNS SETOF voiding.definition_fault
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  r record;
  place text;
BEGIN
  FOR r IN SELECT key, value FROM jsonb_each(rules) LOOP
    place := format('%s "%s"', kind, r.key);
    RETURN QUERY SELECT * FROM voiding.unknown_members(place, r.value, CASE kind WHEN 'made_by' THEN '{if,key}' ELSE '{if,key,state}' END::text[]);
    RETURN QUERY SELECT * FROM voiding.bad_values(place, r.value);
    IF r.key !~ '^[A-Za-z_][A-Za-z0-9_.:/-]{0,99}$' THEN
      RETURN NEXT (place, 'is not an event type', 'write "EventType"')::voiding.definition_fault;
    END IF;
    IF r.value ? 'if' AND coalesce(r.value ->> 'if' NOT LIKE '$%', true) THEN
      RETURN NEXT (place, format('"if" %s is not a jsonpath predicate', r.value -> 'if'), 'write "$.event.total > 100"')::voiding.definition_fault;
    END IF;
    IF kind = 'ended_by' AND NOT r.value ? 'key' THEN
      RETURN NEXT (place, '"key" is missing', 'say of which task: "$.event.name"')::voiding.definition_fault;
    END IF;
    IF r.value ? 'state' AND coalesce(r.value ->> 'state' NOT IN ('completed', 'cancelled'), true) THEN
      RETURN NEXT (place, format('unknown state %s', r.value -> 'state'), 'completed or cancelled')::voiding.definition_fault;
    END IF;
  END LOOP;
END $$;
COMMENT ON FUNCTION voiding.bad_task_rules(text, jsonb) IS 'internal';

CREATE FUNCTION voiding.bad_task_deadlines(deadlines jsonb) RETURNS SETOF voiding.definition_fault
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT f.* FROM jsonb_each(deadlines) d, LATERAL (
    SELECT * FROM voiding.unknown_members(format('deadline "%s"', d.key), d.value, '{priority,assign_roles,emit}')
    UNION ALL SELECT 'deadlines', format('"%s" is not a duration', d.key), 'write an ISO 8601 duration: "PT4H", "P3D"' WHERE NOT voiding.is_duration(d.key)
    UNION ALL SELECT format('deadline "%s"', d.key), '"priority" must be a whole number', 'write 10'
      WHERE d.value ? 'priority' AND coalesce(d.value ->> 'priority', '') !~ '^-?[0-9]{1,9}$'
    UNION ALL SELECT format('deadline "%s"', d.key), '"assign_roles" must be a list of roles', 'write ["role"]'
      WHERE d.value ? 'assign_roles' AND coalesce(jsonb_typeof(d.value -> 'assign_roles') <> 'array', true)
    UNION ALL SELECT format('deadline "%s"', d.key), '"emit" is not an event type that a service may use', 'write "EventType"'
      WHERE d.value ? 'emit' AND NOT voiding.is_own_event(d.value ->> 'emit')) f
$$;
COMMENT ON FUNCTION voiding.bad_task_deadlines(jsonb) IS 'internal';

CREATE FUNCTION voiding.is_own_event(type text) RETURNS boolean
  LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'voiding_is_own_event';
COMMENT ON FUNCTION voiding.is_own_event(text) IS 'internal: may a service emit such events? not those of the engine';

CREATE FUNCTION voiding.bad_task_type(d jsonb) RETURNS SETOF voiding.definition_fault
  LANGUAGE plpgsql STABLE SET jit = off SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  m text;
BEGIN
  RETURN QUERY SELECT * FROM voiding.unknown_members('task type', d, '{title,description,service,document,roles,skills,form_factors,excluded,priority,
    due,expire,lease,ttl,deadlines,check_document,check_outcome,made_by,ended_by,events}');
  FOREACH m IN ARRAY '{document,deadlines,made_by,ended_by,events}'::text[] LOOP
    IF d ? m AND jsonb_typeof(d -> m) <> 'object' AND coalesce(d ->> m NOT LIKE '$%' OR m <> 'document', true) THEN
      RETURN NEXT ('task type', format('"%s" must be an object', m), 'see the manual, task')::voiding.definition_fault;
      RETURN;
    END IF;
  END LOOP;
  FOREACH m IN ARRAY '{title,document,roles,skills,form_factors,excluded,priority,due,expire}'::text[] LOOP
    RETURN QUERY SELECT * FROM voiding.bad_values(format('"%s"', m), d -> m);
  END LOOP;
  FOREACH m IN ARRAY '{roles,skills,form_factors,excluded}'::text[] LOOP
    IF EXISTS (SELECT FROM voiding.items(d -> m) i WHERE jsonb_typeof(i) <> 'string') THEN
      RETURN NEXT ('task type', format('"%s" must be a list of strings', m), 'write ["name"]')::voiding.definition_fault;
    END IF;
  END LOOP;
  FOREACH m IN ARRAY '{due,expire,lease,ttl}'::text[] LOOP
    IF d ? m AND NOT voiding.is_duration(d ->> m) AND coalesce(d ->> m NOT LIKE '$%' OR m IN ('lease', 'ttl'), true) THEN
      RETURN NEXT ('task type', format('"%s" %s is not a duration', m, d -> m), 'write an ISO 8601 duration: "PT15M", "P2D"')::voiding.definition_fault;
    END IF;
  END LOOP;
  IF d ? 'priority' AND coalesce(d ->> 'priority', '') !~ '^(-?[0-9]{1,9}|\$.*)$' THEN
    RETURN NEXT ('task type', '"priority" must be a whole number', 'write 10, or a path: the highest is done first')::voiding.definition_fault;
  END IF;
  RETURN QUERY SELECT 'task type', format('"events" cannot have "%s": %s', e.key, e.value), 'each is the past of an action, with an event type of yours or null: {"completed": "InstallationDone"}'
    FROM jsonb_each(d -> 'events') e
   WHERE NOT EXISTS (SELECT FROM voiding.task_transition x WHERE x.event = 'Task' || initcap(e.key))
      OR e.value <> 'null' AND (jsonb_typeof(e.value) <> 'string' OR NOT voiding.is_own_event(e.value #>> '{}'));
  RETURN QUERY SELECT * FROM voiding.bad_task_deadlines(coalesce(d -> 'deadlines', '{}'));
  RETURN QUERY SELECT * FROM voiding.bad_task_rules('made_by', coalesce(d -> 'made_by', '{}'));
  RETURN QUERY SELECT * FROM voiding.bad_task_rules('ended_by', coalesce(d -> 'ended_by', '{}'));
END $$;
COMMENT ON FUNCTION voiding.bad_task_type(jsonb) IS 'internal';

-- who may let a function check: only somebody with the rights of its owner
CREATE FUNCTION voiding.check_check(function text) RETURNS void
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  f pg_proc;
BEGIN
  SELECT * INTO f FROM pg_proc p WHERE p.oid = to_regprocedure(function || '(jsonb)') AND p.prokind = 'f' AND p.prorettype = 'text'::regtype AND NOT p.proretset;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'there is no function %(jsonb) that returns text', function
      USING ERRCODE = 'undefined_object', HINT = 'A check function returns what is wrong, or null; name it with its schema.';
  END IF;
  PERFORM voiding.check_member(pg_get_userbyid(f.proowner), format('register function %s', function));
END $$;
COMMENT ON FUNCTION voiding.check_check(text) IS 'internal';

-- ---- making types ----

CREATE FUNCTION voiding.create_task_type(name text, definition jsonb, service text DEFAULT NULL) RETURNS void
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_as_engine';
COMMENT ON FUNCTION voiding.create_task_type(text, jsonb, text) IS
  'a kind of work for people, of a service; again: the new definition is that of the tasks made from then on';

CREATE FUNCTION voiding.do_create_task_type(name text, definition jsonb, service text) RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  s voiding.service := voiding.get_service(coalesce(service, definition ->> 'service'));
  faults voiding.definition_fault[];
  old text;
BEGIN
  PERFORM voiding.check_name('task type', name, '^[A-Za-z_][A-Za-z0-9_.-]{0,99}$');
  PERFORM voiding.check_member(s.owner, format('make a task type of service "%s"', s.name));
  SELECT array_agg(f) INTO faults FROM voiding.bad_task_type(definition) f;
  IF faults IS NOT NULL THEN
    RAISE EXCEPTION 'the definition of task type "%" is refused: %: %', name, faults[1].place, faults[1].fault
      USING ERRCODE = 'VD22A', HINT = faults[1].remedy,
            DETAIL = (SELECT string_agg(format('%s: %s (%s)', f.place, f.fault, f.remedy), E'\n') FROM unnest(faults) f);
  END IF;
  PERFORM voiding.check_check(definition ->> c) FROM unnest('{check_document,check_outcome}'::text[]) c WHERE definition ? c;
  LOCK TABLE voiding.task_type IN SHARE ROW EXCLUSIVE MODE;
  SELECT t.service INTO old FROM voiding.task_type t WHERE t.name = do_create_task_type.name;
  IF old <> s.name THEN
    RAISE EXCEPTION 'task type "%" is of service "%" already', name, old USING ERRCODE = 'duplicate_object', HINT = 'Drop it with drop_task_type() first.';
  END IF;
  INSERT INTO voiding.task_type AS t VALUES (do_create_task_type.name, s.name, do_create_task_type.definition, voiding.caller(), voiding.now())
  ON CONFLICT ON CONSTRAINT task_type_pkey DO UPDATE SET definition = EXCLUDED.definition;
  PERFORM voiding.bind_task_events(s.name);
END $$;
COMMENT ON FUNCTION voiding.do_create_task_type(text, jsonb, text) IS 'internal';

-- The service subscribes to the events that its task types name, with a handler
-- of the engine.
CREATE FUNCTION voiding.bind_task_events(service text) RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  wanted text[] := ARRAY(SELECT DISTINCT jsonb_object_keys(coalesce(t.definition -> 'made_by', '{}') || coalesce(t.definition -> 'ended_by', '{}'))
                           FROM voiding.task_type t WHERE t.service = bind_task_events.service);
  bound text[] := ARRAY(SELECT h.type FROM voiding.handler h WHERE h.service = bind_task_events.service AND h.function LIKE 'voiding.task_event(%');
  e text;
BEGIN
  FOREACH e IN ARRAY bound LOOP
    IF e <> ALL (wanted) THEN
      PERFORM voiding.remove_handler('event', e, service);
    END IF;
  END LOOP;
  FOREACH e IN ARRAY wanted LOOP
    IF e <> ALL (bound) THEN
      INSERT INTO voiding.handler (service, type, kind, function)
      VALUES (bind_task_events.service, e, 'event', 'voiding.task_event'::regproc::regprocedure::text);
    END IF;
  END LOOP;
  PERFORM voiding.definitions_changed();
EXCEPTION WHEN unique_violation THEN
  RAISE EXCEPTION 'event "%" has a handler already', e
    USING ERRCODE = 'duplicate_object', DETAIL = format('Service "%s" subscribes to it with a function of its own.', service),
          HINT = 'Let another service have the task type.';
END $$;
COMMENT ON FUNCTION voiding.bind_task_events(text) IS 'internal';

CREATE FUNCTION voiding.drop_task_type(name text) RETURNS void
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_as_engine';
COMMENT ON FUNCTION voiding.drop_task_type(text) IS 'forget a kind of work; refused while tasks of it are open';

CREATE FUNCTION voiding.do_drop_task_type(name text) RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  of_service text := (SELECT t.service FROM voiding.task_type t WHERE t.name = do_drop_task_type.name);
BEGIN
  IF of_service IS NULL THEN
    RAISE EXCEPTION 'task type "%" does not exist', name USING ERRCODE = 'undefined_object';
  END IF;
  PERFORM voiding.check_member((voiding.get_service(of_service)).owner, format('drop a task type of service "%s"', of_service));
  IF EXISTS (SELECT FROM voiding.task t WHERE t.type = do_drop_task_type.name AND t.service IS NOT NULL AND t.ended_at IS NULL) THEN
    RAISE EXCEPTION 'task type "%" is in use: tasks of it are open', name
      USING ERRCODE = 'dependent_objects_still_exist', HINT = 'Complete or cancel them.';
  END IF;
  DELETE FROM voiding.task_type t WHERE t.name = do_drop_task_type.name;
  PERFORM voiding.bind_task_events(of_service);
END $$;
COMMENT ON FUNCTION voiding.do_drop_task_type(text) IS 'internal';
