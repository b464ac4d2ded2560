-- definition_check.sql: what is wrong with a definition.
--
-- Every fault is a row: where, what, and what to do about it. The shape is
-- checked first; what needs the shape to be right (who reaches whom) only then.

CREATE TYPE voiding.definition_fault AS (place text, fault text, remedy text);
COMMENT ON TYPE voiding.definition_fault IS 'something wrong with a process definition: where, what, what to do';

CREATE FUNCTION voiding.is_path(v text) RETURNS boolean
  LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM v::jsonpath;
  -- there are no variables: "$name" would be an error at run time
  RETURN regexp_replace(v, '"([^"\\]|\\.)*"', '""', 'g') !~ '\$[A-Za-z_"]';
EXCEPTION WHEN others THEN
  RETURN false;
END $$;
COMMENT ON FUNCTION voiding.is_path(text) IS 'internal';

CREATE FUNCTION voiding.is_duration(v text) RETURNS boolean
  LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN v LIKE 'P%' AND v::interval > interval '0' AND v::interval <= interval '100 years';
EXCEPTION WHEN others THEN
  RETURN false;
END $$;
COMMENT ON FUNCTION voiding.is_duration(text) IS 'internal';

-- members that a place may not have
CREATE FUNCTION voiding.unknown_members(place text, v jsonb, known text[]) RETURNS SETOF voiding.definition_fault
  LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT (place, format('unknown member "%s"', k), format('known are: %s', array_to_string(known, ', ')))::voiding.definition_fault
    FROM jsonb_object_keys(CASE jsonb_typeof(v) WHEN 'object' THEN v ELSE '{}' END) k WHERE k <> ALL (known)
  UNION ALL
  SELECT (place, format('must be an object, not %s', coalesce(jsonb_typeof(v), 'missing')), 'write {...}')::voiding.definition_fault
   WHERE jsonb_typeof(v) IS DISTINCT FROM 'object'
$$;
COMMENT ON FUNCTION voiding.unknown_members(text, jsonb, text[]) IS 'internal';

-- strings that begin with "$" must be paths, and begin at something that is there
CREATE FUNCTION voiding.bad_values(place text, v jsonb) RETURNS SETOF voiding.definition_fault
  LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  s text;
  i jsonb;
BEGIN
  IF jsonb_typeof(v) IN ('object', 'array') THEN
    FOR i IN SELECT value FROM jsonb_each(CASE jsonb_typeof(v) WHEN 'object' THEN v ELSE '{}' END)
             UNION ALL SELECT jsonb_array_elements(CASE jsonb_typeof(v) WHEN 'array' THEN v ELSE '[]' END) LOOP
      RETURN QUERY SELECT * FROM voiding.bad_values(place, i);
    END LOOP;
  ELSIF jsonb_typeof(v) = 'string' AND v #>> '{}' LIKE '$%' THEN
    s := v #>> '{}';
    IF NOT voiding.is_path(s) THEN
      RETURN NEXT (place, format('"%s" is not a jsonpath', s), 'a string that begins with $ is a path')::voiding.definition_fault;
    ELSIF s !~ '^\$\.(process|event|item|key|process_id)\M' THEN
      RETURN NEXT (place, format('"%s" begins at nothing', s),
                   'paths begin with $.process, $.event, $.item, $.key or $.process_id')::voiding.definition_fault;
    END IF;
  END IF;
END $$;
COMMENT ON FUNCTION voiding.bad_values(text, jsonb) IS 'internal';

CREATE FUNCTION voiding.bad_actions(place text, a jsonb) RETURNS SETOF voiding.definition_fault
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  s jsonb;
  c text;
BEGIN
  IF a ? 'set' AND jsonb_typeof(a -> 'set') <> 'object' THEN
    RETURN NEXT (place, '"set" must be an object', 'write {"name": value}')::voiding.definition_fault;
  END IF;
  RETURN QUERY SELECT * FROM voiding.bad_values(place || ', set', a -> 'set');
  FOR s IN SELECT voiding.items(a -> 'emit') LOOP
    IF jsonb_typeof(s) <> 'string' OR s #>> '{}' !~ '^[A-Za-z_][A-Za-z0-9_.:/-]{0,99}$' THEN
      RETURN NEXT (place, format('"emit" %s is not an event type', s), 'write "EventType" or a list of them')::voiding.definition_fault;
    END IF;
  END LOOP;
  FOR s IN SELECT voiding.long_form(i, 'command') FROM voiding.items(a -> 'send') i LOOP
    RETURN QUERY SELECT * FROM voiding.unknown_members(place || ', send', s, '{command,with,each,undo}');
    CONTINUE WHEN jsonb_typeof(s) <> 'object';
    FOREACH c IN ARRAY ARRAY[s ->> 'command', s ->> 'undo'] LOOP
      IF c IS NOT NULL AND NOT EXISTS (SELECT FROM voiding.handler h WHERE h.kind = 'command' AND h.type = c) THEN
        RETURN NEXT (place, format('no service handles command "%s"', c),
                     format('SELECT voiding.create_command(''%s'', handler)', c))::voiding.definition_fault;
      END IF;
    END LOOP;
    IF NOT s ? 'command' THEN
      RETURN NEXT (place, '"send" without "command"', 'write "Command" or {"command": "Command", ...}')::voiding.definition_fault;
    END IF;
    IF s ? 'with' AND jsonb_typeof(s -> 'with') <> 'object' THEN
      RETURN NEXT (place, '"with" must be an object', 'write {"argument": value}')::voiding.definition_fault;
    END IF;
    RETURN QUERY SELECT * FROM voiding.bad_values(place || ', with', s -> 'with');
    RETURN QUERY SELECT * FROM voiding.bad_values(place || ', each', s -> 'each');
    IF s ? 'each' AND s ->> 'each' NOT LIKE '$%' THEN
      RETURN NEXT (place, format('"each" %s is not a path', s -> 'each'), 'write "$.process.lines[*]"')::voiding.definition_fault;
    END IF;
  END LOOP;
END $$;
COMMENT ON FUNCTION voiding.bad_actions(text, jsonb) IS 'internal';

CREATE FUNCTION voiding.bad_transitions(definition jsonb) RETURNS SETOF voiding.definition_fault
  LANGUAGE plpgsql STABLE SET jit = off SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  t record;
  place text;
BEGIN
  FOR t IN SELECT *, count(*) OVER (PARTITION BY x.from_state, x.trigger, x.name) AS of
             FROM voiding.transitions_of(definition) x LOOP
    place := format('state "%s", %s', t.from_state, trim(t.trigger || ' ' || t.name));
    RETURN QUERY SELECT * FROM voiding.unknown_members(place, t.body, '{target,guard,set,send,emit}');
    CONTINUE WHEN jsonb_typeof(t.body) <> 'object';
    IF t.body ? 'target' AND NOT coalesce(definition -> 'states' ? (t.body ->> 'target'), false) THEN
      RETURN NEXT (place, format('there is no state "%s"', t.body ->> 'target'), 'name one of "states"')::voiding.definition_fault;
    END IF;
    IF t.trigger = 'start' AND NOT t.body ? 'target' THEN
      RETURN NEXT (place, 'a start needs a target', 'name the first state')::voiding.definition_fault;
    END IF;
    IF t.body ? 'guard' AND NOT voiding.is_path(t.body ->> 'guard') THEN
      RETURN NEXT (place, format('guard %s is not a jsonpath predicate', t.body -> 'guard'), 'write "$.event.total > 100"')::voiding.definition_fault;
    END IF;
    IF NOT t.body ? 'guard' AND t.ordinal < t.of THEN
      RETURN NEXT (place, format('ambiguous: transition %s has no guard, so that those behind it are never taken', t.ordinal),
                   'give it a guard, or put it last')::voiding.definition_fault;
    END IF;
    IF t.trigger = 'after' AND NOT voiding.is_duration(ltrim(t.name, '@')) THEN
      RETURN NEXT (place, format('"%s" is not a duration', ltrim(t.name, '@')), 'write an ISO 8601 duration: "PT1H", "P2D"')::voiding.definition_fault;
    END IF;
    RETURN QUERY SELECT * FROM voiding.bad_actions(place, t.body);
  END LOOP;
END $$;
COMMENT ON FUNCTION voiding.bad_transitions(jsonb) IS 'internal';

CREATE FUNCTION voiding.bad_state(name text, s jsonb, has_deadline boolean) RETURNS SETOF voiding.definition_fault
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  place text := format('state "%s"', name);
  m text;
BEGIN
  RETURN QUERY SELECT * FROM voiding.unknown_members(place, s,
    '{type,description,entry,on,after,always,onDone,onError,task,invoke,forever,outcome,result,reason}');
  IF jsonb_typeof(s) <> 'object' THEN
    RETURN;
  END IF;
  IF name !~ '^[A-Za-z_][A-Za-z0-9_.-]{0,99}$' THEN
    RETURN NEXT (place, 'is not a name that can be used', 'letters, digits, "_", "." and "-"')::voiding.definition_fault;
  END IF;
  IF s ? 'type' AND coalesce(s ->> 'type' NOT IN ('final', 'failed', 'undo'), true) THEN
    RETURN NEXT (place, format('unknown type %s', s -> 'type'), 'final, failed or undo; an ordinary state has none')::voiding.definition_fault;
  END IF;
  FOREACH m IN ARRAY '{on,after}'::text[] LOOP
    IF s ? m AND jsonb_typeof(s -> m) <> 'object' THEN
      RETURN NEXT (place, format('"%s" must be an object', m), format('write {"%s": {"name": "Target"}}', m))::voiding.definition_fault;
    END IF;
  END LOOP;
  IF s ? 'entry' THEN
    RETURN QUERY SELECT * FROM voiding.unknown_members(place || ', entry', s -> 'entry', '{set,send,emit}');
    RETURN QUERY SELECT * FROM voiding.bad_actions(place || ', entry', s -> 'entry');
  END IF;
  IF s ? 'task' THEN
    RETURN QUERY SELECT * FROM voiding.unknown_members(place || ', task', s -> 'task', '{type,with}');
    RETURN QUERY SELECT * FROM voiding.bad_values(place || ', task', s -> 'task');
    IF coalesce(s #>> '{task,type}', '') !~ '^[A-Za-z_][A-Za-z0-9_.-]{0,99}$' THEN
      RETURN NEXT (place, '"task" without "type"', 'name the type of task')::voiding.definition_fault;
    END IF;
  END IF;
  IF s ? 'invoke' THEN
    RETURN QUERY SELECT * FROM voiding.unknown_members(place || ', invoke', s -> 'invoke', '{process,key,with}');
    RETURN QUERY SELECT * FROM voiding.bad_values(place || ', invoke', s -> 'invoke');
  END IF;
  RETURN QUERY SELECT f.* FROM jsonb_each(s) v, voiding.bad_values(place || ', ' || v.key, v.value) f
                WHERE v.key IN ('reason', 'result');
  IF s ? 'outcome' AND coalesce(s ->> 'outcome' NOT IN ('done', 'failed'), true) THEN
    RETURN NEXT (place, format('unknown outcome %s', s -> 'outcome'), 'done or failed')::voiding.definition_fault;
  END IF;
  IF s ->> 'type' = 'final' THEN
    RETURN QUERY SELECT place, format('a final state cannot have "%s"', k), 'take it away, or the type'
                   FROM jsonb_object_keys(s) k WHERE k IN ('on', 'after', 'always', 'onDone', 'onError', 'task', 'invoke', 'forever');
  ELSIF s ->> 'type' = 'failed' THEN
    IF NOT coalesce(s -> 'on' ? 'ProcessFailureAcknowledged', false) THEN
      RETURN NEXT (place, 'cannot be acknowledged', 'give it "on": {"ProcessFailureAcknowledged": ...}')::voiding.definition_fault;
    END IF;
    IF s ? 'after' THEN
      RETURN NEXT (place, 'a failed state waits for a person and has no deadlines', 'take "after" away')::voiding.definition_fault;
    END IF;
  ELSIF NOT s ? 'type' AND coalesce(s -> 'after', '{}') = '{}' AND NOT has_deadline AND coalesce(s ->> 'forever', '') = '' THEN
    RETURN NEXT (place, 'may wait for ever', 'give it "after", or say why with "forever"')::voiding.definition_fault;
  END IF;
END $$;
COMMENT ON FUNCTION voiding.bad_state(text, jsonb, boolean) IS 'internal';

CREATE FUNCTION voiding.bad_reach(definition jsonb) RETURNS SETOF voiding.definition_fault
  LANGUAGE sql STABLE SET jit = off SET search_path = pg_catalog, pg_temp
AS $$
  WITH RECURSIVE edge AS (
    SELECT from_state, body ->> 'target' AS target FROM voiding.transitions_of(definition) WHERE body ? 'target'),
  ahead(state) AS (
    SELECT target FROM edge WHERE from_state = '(start)'
    UNION SELECT e.target FROM edge e JOIN ahead a ON e.from_state = a.state),
  back(state) AS (
    SELECT key FROM jsonb_each(definition -> 'states') WHERE value ->> 'type' = 'final'
    UNION SELECT e.from_state FROM edge e JOIN back b ON e.target = b.state)
  SELECT format('state "%s"', key), 'is never reached', 'name it as a target, or take it away'
    FROM jsonb_object_keys(definition -> 'states') key WHERE key NOT IN (SELECT state FROM ahead)
  UNION ALL
  SELECT format('state "%s"', key), 'has no way to an end', 'give it a way to a state of type "final"'
    FROM jsonb_object_keys(definition -> 'states') key WHERE key NOT IN (SELECT state FROM back)
$$;
COMMENT ON FUNCTION voiding.bad_reach(jsonb) IS 'internal';

CREATE FUNCTION voiding.bad_top(definition jsonb) RETURNS SETOF voiding.definition_fault
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  m text;
  e record;
BEGIN
  RETURN QUERY SELECT * FROM voiding.unknown_members('top', definition,
    '{key,description,conflict,events,start,on,after,states}');
  IF coalesce(definition ->> 'key', '') = '' OR jsonb_typeof(definition -> 'key') <> 'string' THEN
    RETURN NEXT ('top', '"key" is missing', 'name the member of the event''s data that the process is about')::voiding.definition_fault;
  END IF;
  FOREACH m IN ARRAY '{start,states}'::text[] LOOP
    IF jsonb_typeof(definition -> m) IS DISTINCT FROM 'object' OR definition -> m = '{}' THEN
      RETURN NEXT ('top', format('"%s" must be an object that is not empty', m), 'see the manual, definition')::voiding.definition_fault;
    END IF;
  END LOOP;
  FOREACH m IN ARRAY '{on,after,events}'::text[] LOOP
    IF definition ? m AND jsonb_typeof(definition -> m) <> 'object' THEN
      RETURN NEXT ('top', format('"%s" must be an object', m), 'see the manual, definition')::voiding.definition_fault;
    END IF;
  END LOOP;
  IF definition ? 'conflict' AND coalesce(definition ->> 'conflict' NOT IN ('return', 'refuse', 'queue'), true) THEN
    RETURN NEXT ('top', format('unknown conflict %s', definition -> 'conflict'), 'return, refuse or queue')::voiding.definition_fault;
  END IF;
  FOR e IN SELECT key, value FROM jsonb_each(CASE jsonb_typeof(definition -> 'events') WHEN 'object' THEN definition -> 'events' ELSE '{}' END) LOOP
    m := format('event "%s"', e.key);
    RETURN QUERY SELECT * FROM voiding.unknown_members(m, e.value, '{key,unmatched,for}');
    RETURN QUERY SELECT * FROM voiding.bad_values(m, e.value -> 'key');
    IF e.value ? 'key' AND e.value ->> 'key' NOT LIKE '$.event.%' THEN
      RETURN NEXT (m, format('"key" %s is not a path into the event', e.value -> 'key'), 'write "$.event.name"')::voiding.definition_fault;
    END IF;
    IF e.value ? 'unmatched' AND coalesce(e.value ->> 'unmatched' NOT IN ('park', 'discard', 'fail'), true) THEN
      RETURN NEXT (m, format('unknown policy %s for "unmatched"', e.value -> 'unmatched'), 'park, discard or fail')::voiding.definition_fault;
    END IF;
    IF e.value ? 'for' AND NOT voiding.is_duration(e.value ->> 'for') THEN
      RETURN NEXT (m, format('%s is not a duration', e.value -> 'for'), 'write an ISO 8601 duration: "P7D"')::voiding.definition_fault;
    END IF;
    IF NOT EXISTS (SELECT FROM jsonb_path_query(definition, 'lax $.**.on') o WHERE jsonb_typeof(o) = 'object' AND o ? e.key)
       AND NOT coalesce(definition -> 'start' ? e.key, false) THEN
      RETURN NEXT (m, 'no state waits for it', 'take it away, or name it in "on"')::voiding.definition_fault;
    END IF;
  END LOOP;
END $$;
COMMENT ON FUNCTION voiding.bad_top(jsonb) IS 'internal';

-- Parts of the format that are checked but do not run yet.
CREATE FUNCTION voiding.not_yet(definition jsonb) RETURNS SETOF text
  LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT format('"conflict": "%s"', definition ->> 'conflict') WHERE definition ->> 'conflict' <> 'return'
  UNION ALL SELECT format('a state of type "undo" ("%s")', key) FROM jsonb_each(definition -> 'states') WHERE value ->> 'type' = 'undo'
  UNION ALL SELECT format('"invoke" (state "%s")', key) FROM jsonb_each(definition -> 'states') WHERE value ? 'invoke'
  UNION ALL SELECT format('"onDone" (state "%s")', key) FROM jsonb_each(definition -> 'states') WHERE value ? 'onDone'
  UNION ALL SELECT '"undo" of a command' WHERE jsonb_path_exists(definition, '$.**.send ? (exists (@.undo))')
$$;
COMMENT ON FUNCTION voiding.not_yet(jsonb) IS 'internal';

CREATE FUNCTION voiding.check_definition(definition jsonb) RETURNS SETOF voiding.definition_fault
  LANGUAGE plpgsql STABLE SECURITY DEFINER SET jit = off SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN QUERY SELECT * FROM voiding.bad_top(definition);
  IF FOUND THEN
    RETURN;
  END IF;
  RETURN QUERY SELECT f.* FROM jsonb_each(definition -> 'states') s, voiding.bad_state(s.key, s.value, coalesce(definition -> 'after', '{}') <> '{}') f;
  IF FOUND THEN
    RETURN;
  END IF;
  RETURN QUERY SELECT format('state "%s", %s', s.key, e.key), 'an empty list', 'write {} to ignore it on purpose'
    FROM jsonb_each(definition -> 'states') s, jsonb_each(coalesce(s.value -> 'on', '{}') || coalesce(s.value -> 'after', '{}')) e WHERE e.value = '[]';
  IF FOUND THEN
    RETURN;
  END IF;
  RETURN QUERY SELECT * FROM voiding.bad_transitions(definition);
  IF FOUND THEN
    RETURN;
  END IF;
  RETURN QUERY SELECT * FROM voiding.bad_reach(definition);
END $$;
COMMENT ON FUNCTION voiding.check_definition(jsonb) IS 'every fault of a process definition: where, what, and the remedy; no row: it is right';

CREATE FUNCTION voiding.refuse_definition(name text, definition jsonb) RETURNS void
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  faults voiding.definition_fault[];
  missing text;
BEGIN
  IF definition IS NULL OR jsonb_typeof(definition) <> 'object' THEN
    RAISE EXCEPTION 'the definition of process type "%" must be a JSON object', name USING ERRCODE = 'VD22A';
  END IF;
  SELECT array_agg(f) INTO faults FROM voiding.check_definition(definition) f;
  IF faults IS NOT NULL THEN
    RAISE EXCEPTION 'the definition of process type "%" is refused: %: %', name, faults[1].place, faults[1].fault
      USING ERRCODE = 'VD22A', HINT = faults[1].remedy,
            DETAIL = (SELECT string_agg(format('%s: %s (%s)', f.place, f.fault, f.remedy), E'\n') FROM unnest(faults) f);
  END IF;
  SELECT string_agg(n, ', ') INTO missing FROM voiding.not_yet(definition) n;
  IF missing IS NOT NULL THEN
    RAISE EXCEPTION 'the definition of process type "%" is right, but this version cannot run %, not yet', name, missing
      USING ERRCODE = 'feature_not_supported';
  END IF;
END $$;
COMMENT ON FUNCTION voiding.refuse_definition(text, jsonb) IS 'internal';
