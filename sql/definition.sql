-- definition.sql: process types are data.
--
-- A definition is checked whole (definition_check.sql) and compiled: what
-- happens on an event, a deadline or a failure is a row of transition, what a
-- state does on entry is in process_type.compiled. Definitions are never
-- changed: a new one is a new version, a running process stays on its own.

CREATE TABLE voiding.process_type (
  name       text NOT NULL,
  version    integer NOT NULL,
  definition jsonb NOT NULL,
  compiled   jsonb NOT NULL,
  created_by text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (name, version)
);
COMMENT ON TABLE voiding.process_type IS 'process definitions, a row for each version; the newest is started';
SELECT pg_catalog.pg_extension_config_dump('voiding.process_type', '');

CREATE TABLE voiding.transition (
  process_type text NOT NULL,
  version      integer NOT NULL,
  from_state   text NOT NULL,
  trigger      text NOT NULL CHECK (trigger IN ('start', 'on', 'after', 'onError', 'onDone', 'always')),
  name         text NOT NULL,
  ordinal      integer NOT NULL,
  guard        text,
  to_state     text,
  actions      jsonb NOT NULL,
  PRIMARY KEY (process_type, version, from_state, trigger, name, ordinal)
);
CREATE INDEX transition_name ON voiding.transition (name);
COMMENT ON TABLE voiding.transition IS 'compiled definitions: in a state, on an event or deadline, the first whose guard holds';
COMMENT ON COLUMN voiding.transition.name IS 'event type or duration; "@" before it: counted from the start of the process';
COMMENT ON COLUMN voiding.transition.to_state IS 'null: inside the state';
SELECT pg_catalog.pg_extension_config_dump('voiding.transition', '');

-- "x" is ["x"]: one or many, short or long form
CREATE FUNCTION voiding.items(v jsonb) RETURNS SETOF jsonb
  LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp
AS $$ SELECT jsonb_array_elements(CASE jsonb_typeof(v) WHEN 'array' THEN v ELSE jsonb_build_array(v) END) $$;
COMMENT ON FUNCTION voiding.items(jsonb) IS 'internal';

CREATE FUNCTION voiding.long_form(v jsonb, member text) RETURNS jsonb
  LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp
AS $$ SELECT CASE jsonb_typeof(v) WHEN 'string' THEN jsonb_build_object(member, v) ELSE v END $$;
COMMENT ON FUNCTION voiding.long_form(jsonb, text) IS 'internal';

-- Everything that a definition can do next, one row a transition; what the top
-- says of all ordinary states is written out for each of them.
CREATE FUNCTION voiding.transitions_of(definition jsonb)
  RETURNS TABLE (from_state text, trigger text, name text, ordinal integer, body jsonb)
  LANGUAGE sql IMMUTABLE SET jit = off SET search_path = pg_catalog, pg_temp
AS $$
  WITH state AS (SELECT key AS name, value AS s FROM jsonb_each(definition -> 'states')),
  said AS (
    SELECT '(start)' AS from_state, 'start' AS trigger, e.key AS name, e.value AS body
      FROM jsonb_each(definition -> 'start') e
    UNION ALL
    SELECT s.name, t.trigger, e.key, e.value
      FROM state s, (VALUES ('on'), ('after')) t(trigger),
           jsonb_each(CASE jsonb_typeof(s.s -> t.trigger) WHEN 'object' THEN s.s -> t.trigger ELSE '{}' END) e
    UNION ALL
    SELECT s.name, t.trigger, '', s.s -> t.trigger
      FROM state s, (VALUES ('always'), ('onDone'), ('onError')) t(trigger)
     WHERE s.s ? t.trigger
    UNION ALL
    SELECT s.name, 'on', e.key, e.value
      FROM state s, jsonb_each(coalesce(definition -> 'on', '{}')) e
     WHERE NOT s.s ? 'type' AND NOT coalesce(s.s -> 'on' ? e.key, false)
    UNION ALL
    SELECT s.name, 'after', '@' || e.key, e.value
      FROM state s, jsonb_each(coalesce(definition -> 'after', '{}')) e
     WHERE NOT s.s ? 'type')
  SELECT said.from_state, said.trigger, said.name, i.n::integer, voiding.long_form(i.body, 'target')
    FROM said, voiding.items(said.body) WITH ORDINALITY AS i(body, n)
$$;
COMMENT ON FUNCTION voiding.transitions_of(jsonb) IS 'internal';

-- set, send and emit in their long forms, each command with who handles it
CREATE FUNCTION voiding.compile_actions(a jsonb) RETURNS jsonb
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT jsonb_strip_nulls(jsonb_build_object('set', a -> 'set',
    'send', (SELECT jsonb_agg(x.c || jsonb_build_object('service', h.service) ORDER BY x.n)
               FROM (SELECT voiding.long_form(i, 'command') AS c, n
                       FROM voiding.items(a -> 'send') WITH ORDINALITY AS i(i, n)) x
               LEFT JOIN voiding.handler h ON h.kind = 'command' AND h.type = x.c ->> 'command'),
    'emit', (SELECT jsonb_agg(i ORDER BY n) FROM voiding.items(a -> 'emit') WITH ORDINALITY AS i(i, n))))
$$;
COMMENT ON FUNCTION voiding.compile_actions(jsonb) IS 'internal';

CREATE FUNCTION voiding.compile_states(definition jsonb) RETURNS jsonb
  LANGUAGE sql STABLE SET jit = off SET search_path = pg_catalog, pg_temp
AS $$
  SELECT jsonb_strip_nulls(jsonb_build_object(
    'timers', (SELECT jsonb_agg('@' || k ORDER BY k) FROM jsonb_object_keys(definition -> 'after') k),
    'states', (SELECT jsonb_object_agg(s.key, voiding.compile_actions(coalesce(s.value -> 'entry', '{}'))
        || jsonb_build_object('type', s.value -> 'type', 'task', s.value -> 'task', 'reason', s.value -> 'reason',
                              'outcome', s.value -> 'outcome', 'result', s.value -> 'result',
                              'timers', (SELECT jsonb_agg(k ORDER BY k) FROM jsonb_object_keys(s.value -> 'after') k)))
      FROM jsonb_each(definition -> 'states') s)))
$$;
COMMENT ON FUNCTION voiding.compile_states(jsonb) IS 'internal';

-- the commands that a definition sends, those that undo included
CREATE FUNCTION voiding.commands_of(definition jsonb) RETURNS text[]
  LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
  WITH actions AS (
    SELECT t.body AS a FROM voiding.transitions_of(definition) t
    UNION ALL SELECT s.value -> 'entry' FROM jsonb_each(definition -> 'states') s),
  sent AS (
    SELECT voiding.long_form(i, 'command') AS c FROM actions, voiding.items(a -> 'send') i)
  SELECT coalesce(array_agg(DISTINCT x.name ORDER BY x.name), '{}')
    FROM sent, LATERAL (VALUES (c ->> 'command'), (c ->> 'undo')) x(name) WHERE x.name IS NOT NULL
$$;
COMMENT ON FUNCTION voiding.commands_of(jsonb) IS 'internal';

CREATE FUNCTION voiding.create_process_type(name text, definition jsonb) RETURNS integer
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_as_engine';
COMMENT ON FUNCTION voiding.create_process_type(text, jsonb) IS
  'check, compile and keep a definition; returns its version; the same definition again is the same version';

CREATE FUNCTION voiding.do_create_process_type(name text, definition jsonb) RETURNS integer
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  newest voiding.process_type;
  following integer;
BEGIN
  PERFORM voiding.check_name('process type', name, '^[A-Za-z_][A-Za-z0-9_.-]{0,99}$');
  -- definitions are made one at a time: versions have no gaps and no doubles
  LOCK TABLE voiding.process_type IN SHARE ROW EXCLUSIVE MODE;
  SELECT * INTO newest FROM voiding.process_type p
   WHERE p.name = do_create_process_type.name ORDER BY p.version DESC LIMIT 1;
  IF newest.definition = definition THEN
    RETURN newest.version;
  END IF;
  PERFORM voiding.refuse_definition(name, definition);
  -- after drop_process_type() too a version is never used again
  following := 1 + greatest(coalesce(newest.version, 0),
    (SELECT coalesce(max(f.version), 0) FROM voiding.finished_process f WHERE f.type = do_create_process_type.name));
  INSERT INTO voiding.process_type (name, version, definition, compiled, created_by)
  VALUES (do_create_process_type.name, following, do_create_process_type.definition,
          voiding.compile_states(do_create_process_type.definition), voiding.caller());
  INSERT INTO voiding.transition (process_type, version, from_state, trigger, name, ordinal, guard, to_state, actions)
  SELECT do_create_process_type.name, following, t.from_state, t.trigger, t.name, t.ordinal,
         t.body ->> 'guard', t.body ->> 'target', voiding.compile_actions(t.body)
    FROM voiding.transitions_of(do_create_process_type.definition) t;
  PERFORM voiding.definitions_changed();
  RETURN following;
END $$;
COMMENT ON FUNCTION voiding.do_create_process_type(text, jsonb) IS 'internal';

CREATE FUNCTION voiding.drop_process_type(name text) RETURNS void
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_as_engine';
COMMENT ON FUNCTION voiding.drop_process_type(text) IS 'forget a process type, all versions; refused while processes run';

CREATE FUNCTION voiding.do_drop_process_type(name text) RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  running bigint;
BEGIN
  LOCK TABLE voiding.process_type IN SHARE ROW EXCLUSIVE MODE;
  IF NOT EXISTS (SELECT FROM voiding.process_type p WHERE p.name = do_drop_process_type.name) THEN
    RAISE EXCEPTION 'process type "%" does not exist', name USING ERRCODE = 'undefined_object';
  END IF;
  LOCK TABLE voiding.active_process IN SHARE MODE;  -- those who are starting one have written it
  SELECT count(*) INTO running FROM voiding.active_process a WHERE a.type = do_drop_process_type.name;
  IF running > 0 THEN
    RAISE EXCEPTION 'process type "%" is in use: % of its processes have not ended', name, running
      USING ERRCODE = 'dependent_objects_still_exist', HINT = 'SELECT * FROM voiding.ongoing_process shows them.';
  END IF;
  DELETE FROM voiding.transition t WHERE t.process_type = do_drop_process_type.name;
  DELETE FROM voiding.process_type p WHERE p.name = do_drop_process_type.name;
  PERFORM voiding.definitions_changed();
END $$;
COMMENT ON FUNCTION voiding.do_drop_process_type(text) IS 'internal';
