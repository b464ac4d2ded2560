-- task_action.sql: what people do to their tasks: claim, complete and the rest.
--
-- act_on_task() is the one way in; the functions with an action in their name
-- are short for it. next_task() chooses and claims.

-- ---- who somebody is ----

CREATE TABLE voiding.worker_profile (
  role         text PRIMARY KEY,
  skills       text[] NOT NULL,
  form_factors text[] NOT NULL,
  capacity     integer CHECK (capacity >= 0)
);
COMMENT ON TABLE voiding.worker_profile IS 'what a role can do, and with what; everybody sees their own';
COMMENT ON COLUMN voiding.worker_profile.form_factors IS 'devices: phone, tablet, desk; a session narrows them with voiding.form_factor';
COMMENT ON COLUMN voiding.worker_profile.capacity IS 'how many tasks it may have at a time; null: any number';
SELECT pg_catalog.pg_extension_config_dump('voiding.worker_profile', '');

CREATE FUNCTION voiding.set_worker_profile(role name, skills text[] DEFAULT '{}', form_factors text[] DEFAULT '{}', capacity integer DEFAULT NULL) RETURNS void
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_as_engine';
COMMENT ON FUNCTION voiding.set_worker_profile(name, text[], text[], integer) IS
  'what a role can do, with which devices, and how many tasks it may have at a time; whoever may call this may say it of everybody';

CREATE FUNCTION voiding.do_set_worker_profile(role name, skills text[], form_factors text[], capacity integer) RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF to_regrole(quote_ident(role)) IS NULL THEN
    RAISE EXCEPTION 'role "%" does not exist', role USING ERRCODE = 'undefined_object';
  ELSIF capacity < 0 THEN
    RAISE EXCEPTION 'capacity must be at least 0' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  INSERT INTO voiding.worker_profile VALUES (role, coalesce(skills, '{}'), coalesce(form_factors, '{}'), capacity)
  ON CONFLICT ON CONSTRAINT worker_profile_pkey
  DO UPDATE SET skills = EXCLUDED.skills, form_factors = EXCLUDED.form_factors, capacity = EXCLUDED.capacity;
END $$;
COMMENT ON FUNCTION voiding.do_set_worker_profile(name, text[], text[], integer) IS 'internal';

CREATE FUNCTION voiding.drop_worker_profile(role name) RETURNS void
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_as_engine';
COMMENT ON FUNCTION voiding.drop_worker_profile(name) IS 'forget what a role can do';

CREATE FUNCTION voiding.do_drop_worker_profile(role name) RETURNS void
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$ DELETE FROM voiding.worker_profile p WHERE p.role = do_drop_worker_profile.role $$;
COMMENT ON FUNCTION voiding.do_drop_worker_profile(name) IS 'internal';

CREATE TYPE voiding.person AS (role text, roles text[], services text[], skills text[], form_factors text[], capacity integer);
COMMENT ON TYPE voiding.person IS 'a role, with all roles that it is a member of, the services that it may speak for, and its profile';

-- Roles are those that it has been given: a superuser is no member of all. The
-- owner of a service is its supervisor, and there a superuser is one.
CREATE FUNCTION voiding.person(role text, form_factor text DEFAULT NULL) RETURNS voiding.person
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  p voiding.person;
BEGIN
  SELECT x.skills, x.form_factors, x.capacity INTO p.skills, p.form_factors, p.capacity
    FROM voiding.worker_profile x WHERE x.role = person.role;
  WITH RECURSIVE m (oid) AS (
    SELECT to_regrole(quote_ident(person.role))::oid UNION SELECT a.roleid FROM pg_auth_members a JOIN m ON a.member = m.oid)
  SELECT array_agg(pg_get_userbyid(m.oid)::text) INTO p.roles FROM m WHERE m.oid IS NOT NULL;
  p.role := person.role;
  p.roles := coalesce(p.roles, '{}');
  p.services := ARRAY(SELECT s.name FROM voiding.service s
                       WHERE pg_has_role(to_regrole(quote_ident(person.role)), to_regrole(quote_ident(s.owner)), 'MEMBER'));
  p.skills := coalesce(p.skills, '{}');
  p.form_factors := ARRAY(SELECT f FROM unnest(p.form_factors) f WHERE coalesce(form_factor, '') IN ('', f));
  RETURN p;
END $$;
COMMENT ON FUNCTION voiding.person(text, text) IS 'internal';

CREATE FUNCTION voiding.me() RETURNS voiding.person
  LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'voiding_as_engine';
COMMENT ON FUNCTION voiding.me() IS 'the current role as tasks see it: its roles, services, skills, form factors';

CREATE FUNCTION voiding.do_me() RETURNS voiding.person
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT voiding.person(voiding.caller(), current_setting('voiding.form_factor')) $$;
COMMENT ON FUNCTION voiding.do_me() IS 'internal';

-- ---- who may do what ----

-- Is the task for somebody like that? Those who are excluded are, whatever else they are.
-- (No SET: the planner puts its text in place of the call.)
CREATE FUNCTION voiding.fits(t voiding.task, p voiding.person) RETURNS boolean
  LANGUAGE sql IMMUTABLE PARALLEL SAFE
  RETURN t.roles && p.roles AND t.skills <@ p.skills AND (t.form_factors = '{}' OR t.form_factors && p.form_factors) AND NOT (t.excluded && p.roles);
COMMENT ON FUNCTION voiding.fits(voiding.task, voiding.person) IS 'is a task for such a person: role, skills, form factors, not excluded';

-- Has somebody as many tasks as the profile allows? Two claims at once of a role
-- with a capacity wait for each other; of others, and without, nobody waits.
CREATE FUNCTION voiding.is_full(p voiding.person, for_claim boolean DEFAULT false) RETURNS boolean
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF p.capacity IS NULL THEN
    RETURN false;
  ELSIF for_claim THEN
    PERFORM FROM voiding.worker_profile x WHERE x.role = p.role FOR UPDATE;
  END IF;
  RETURN p.capacity <= (SELECT count(*) FROM voiding.task x WHERE x.owner = p.role AND x.ended_at IS NULL);
END $$;
COMMENT ON FUNCTION voiding.is_full(voiding.person, boolean) IS 'internal';

-- the same in words, and of this very task; none: it may be claimed
CREATE FUNCTION voiding.reasons_against(t voiding.task, p voiding.person) RETURNS text[]
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN ARRAY(SELECT r FROM (
    SELECT 1, CASE WHEN t.ended_at IS NOT NULL THEN format('it is %s', t.state)
                   WHEN t.owner IS NOT NULL THEN format('it is taken by "%s"', t.owner) END
    UNION ALL SELECT 2, format('"%s" is not a member of %s', p.role, coalesce((SELECT string_agg(format('"%s"', x), ' or ') FROM unnest(t.roles) x), 'any role that it is for'))
     WHERE NOT t.roles && p.roles
    UNION ALL SELECT 3, format('"%s" lacks skill "%s"', p.role, s) FROM unnest(t.skills) s WHERE s <> ALL (p.skills)
    UNION ALL SELECT 4, format('"%s" has no %s', p.role, array_to_string(t.form_factors, ' or '))
     WHERE t.form_factors <> '{}' AND NOT t.form_factors && p.form_factors
    UNION ALL SELECT 5, format('"%s" has as many tasks as it may have: %s', p.role, p.capacity) WHERE voiding.is_full(p)
    UNION ALL SELECT 6, format('"%s" is excluded', p.role) WHERE t.excluded && p.roles) x (n, r) WHERE r IS NOT NULL ORDER BY n);
END $$;
COMMENT ON FUNCTION voiding.reasons_against(voiding.task, voiding.person) IS 'internal';

CREATE FUNCTION voiding.may_see(t voiding.task, p voiding.person) RETURNS boolean
  LANGUAGE sql IMMUTABLE PARALLEL SAFE
  RETURN t.service IS NULL OR t.owner = p.role OR t.service = ANY (p.services) OR (t.roles && p.roles AND NOT (t.excluded && p.roles));
COMMENT ON FUNCTION voiding.may_see(voiding.task, voiding.person) IS 'internal: as the policy of the table';

-- what somebody is to a task: worker, owner, supervisor
CREATE FUNCTION voiding.standing(t voiding.task, p voiding.person) RETURNS text[]
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT array_remove(ARRAY[CASE WHEN voiding.reasons_against(t, p) = '{}' THEN 'worker' END, CASE WHEN t.owner = p.role THEN 'owner' END,
                            CASE WHEN t.service = ANY (p.services) THEN 'supervisor' END], NULL)
$$;
COMMENT ON FUNCTION voiding.standing(voiding.task, voiding.person) IS 'internal';

-- a task that somebody may see; for_action: locked, its process before it
CREATE FUNCTION voiding.get_task(task_id uuid, p voiding.person, for_action boolean DEFAULT false) RETURNS voiding.task
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  t voiding.task;
BEGIN
  SELECT * INTO t FROM voiding.task x WHERE x.task_id = get_task.task_id AND voiding.may_see(x, p);
  IF FOUND AND for_action THEN
    PERFORM FROM voiding.active_process a WHERE a.process_id = t.process_id FOR UPDATE;
    SELECT * INTO t FROM voiding.task x WHERE x.task_id = get_task.task_id AND voiding.may_see(x, p) FOR UPDATE;
  END IF;
  IF t.task_id IS NULL THEN
    RAISE EXCEPTION 'there is no task %', task_id USING ERRCODE = 'VD04E';
  END IF;
  RETURN t;
END $$;
COMMENT ON FUNCTION voiding.get_task(uuid, voiding.person, boolean) IS 'internal';

CREATE FUNCTION voiding.task_actions(task_id uuid) RETURNS TABLE (action text, to_state text)
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_as_engine';
COMMENT ON FUNCTION voiding.task_actions(uuid) IS 'what the caller may do to a task now, and the state that it has then';

CREATE FUNCTION voiding.do_task_actions(task_id uuid) RETURNS TABLE (action text, to_state text)
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  p voiding.person := voiding.do_me();
  t voiding.task := voiding.get_task(task_id, p);
BEGIN
  RETURN QUERY SELECT x.action, x.to_state FROM voiding.task_transition x
                WHERE x.from_state = t.state AND x.who = ANY (voiding.standing(t, p)) GROUP BY x.action, x.to_state ORDER BY x.action;
END $$;
COMMENT ON FUNCTION voiding.do_task_actions(uuid) IS 'internal';

CREATE FUNCTION voiding.why_not(task_id uuid, role name DEFAULT NULL) RETURNS text[]
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_as_engine';
COMMENT ON FUNCTION voiding.why_not(uuid, name) IS
  'why a role, by default the caller, may not claim a task: none, it may; of others a supervisor may ask';

CREATE FUNCTION voiding.do_why_not(task_id uuid, role name) RETURNS text[]
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  p voiding.person := voiding.do_me();
  t voiding.task := voiding.get_task(task_id, p);
BEGIN
  IF role IS NULL OR role = p.role THEN
    RETURN voiding.reasons_against(t, p);
  ELSIF NOT coalesce(t.service = ANY (p.services), false) THEN
    RAISE EXCEPTION 'permission denied to ask about role "%"', role
      USING ERRCODE = 'insufficient_privilege', DETAIL = format('"%s" is no supervisor of service "%s".', p.role, t.service);
  END IF;
  RETURN voiding.reasons_against(t, voiding.person(role));
END $$;
COMMENT ON FUNCTION voiding.do_why_not(uuid, name) IS 'internal';

CREATE FUNCTION voiding.task_object(t voiding.task) RETURNS jsonb
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT to_jsonb(t) - '{position,former,said,xid,wake_at,deadlines}'::text[]
         || jsonb_build_object('due_at', nullif(t.due_at, 'infinity'), 'self', '/tasks/' || t.task_id)
$$;
COMMENT ON FUNCTION voiding.task_object(voiding.task) IS 'a task as clients see it, also in the detail of errors; self: its address';

-- ---- the same call twice ----

CREATE TABLE voiding.task_action (
  caller    text,
  action_id uuid,
  task_id   uuid NOT NULL,
  action    text NOT NULL,
  arguments jsonb NOT NULL,
  version   integer NOT NULL,
  at        timestamptz NOT NULL,
  PRIMARY KEY (caller, action_id)
);
CREATE INDEX task_action_task_id ON voiding.task_action (task_id);
COMMENT ON TABLE voiding.task_action IS 'actions that came with an id: the same one again does nothing; goes with its task';
COMMENT ON COLUMN voiding.task_action.version IS 'of the task, after the action';
SELECT pg_catalog.pg_extension_config_dump('voiding.task_action', '');

-- The task that this action was taken on, if it has been. Waits for the same
-- one that is under way.
CREATE FUNCTION voiding.repeated_action(caller text, action_id uuid, action text, arguments jsonb) RETURNS uuid
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  a voiding.task_action;
BEGIN
  IF action_id IS NULL THEN
    RETURN NULL;
  END IF;
  PERFORM pg_advisory_xact_lock(hashtextextended(caller || action_id, 1));
  SELECT * INTO a FROM voiding.task_action x WHERE x.caller = repeated_action.caller AND x.action_id = repeated_action.action_id;
  IF (a.action, a.arguments) IS DISTINCT FROM (repeated_action.action, repeated_action.arguments) AND FOUND THEN
    RAISE EXCEPTION 'action % was another one: %', action_id, a.action
      USING ERRCODE = 'VD09E', DETAIL = format('It was taken on task %s at %s.', a.task_id, a.at), HINT = 'Take a new id for a new action.';
  END IF;
  RETURN a.task_id;
END $$;
COMMENT ON FUNCTION voiding.repeated_action(text, uuid, text, jsonb) IS 'internal';

-- ---- actions ----

CREATE FUNCTION voiding.act_on_task(task_id uuid, action text, arguments jsonb DEFAULT '{}', action_id uuid DEFAULT NULL, version integer DEFAULT NULL)
  RETURNS voiding.task
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_as_engine';
COMMENT ON FUNCTION voiding.act_on_task(uuid, text, jsonb, uuid, integer) IS
  'do to a task what task_transition has; the same action_id again does nothing; version: only if the task has this one';

CREATE FUNCTION voiding.do_act_on_task(task_id uuid, action text, arguments jsonb, action_id uuid, version integer) RETURNS voiding.task
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  p     voiding.person := voiding.do_me();
  given jsonb := coalesce(arguments, '{}') || jsonb_build_object('task_id', task_id);
  t     voiding.task;
  moved voiding.task;
BEGIN
  IF voiding.repeated_action(p.role, action_id, action, given) IS NOT NULL THEN
    RETURN voiding.get_task(task_id, p);
  END IF;
  t := voiding.get_task(task_id, p, true);
  IF version = t.version OR version IS NULL THEN
    PERFORM voiding.check_action(t, p, action, given);
    moved := voiding.move_task(t, action, voiding.standing(t, p), given, p.role);
  END IF;
  IF moved.task_id IS NULL THEN
    PERFORM voiding.refuse_action(t, p, action, version);
  END IF;
  IF action = 'complete' AND EXISTS (SELECT FROM voiding.active_process a WHERE a.process_id = t.process_id AND a.failed) THEN
    PERFORM voiding.engine_emit('ProcessFailureAcknowledged', t.key,
              jsonb_build_object('process_id', t.process_id, 'by', p.role, 'reason', moved.outcome ->> 'reason'), t.process_id);
  END IF;
  PERFORM voiding.note_action(p.role, action_id, moved, action, given);
  RETURN moved;
END $$;
COMMENT ON FUNCTION voiding.do_act_on_task(uuid, text, jsonb, uuid, integer) IS 'internal';

-- what task_transition cannot say
CREATE FUNCTION voiding.check_action(t voiding.task, p voiding.person, action text, arguments jsonb) RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  fault text;
BEGIN
  IF action = 'complete' AND t.owner = p.role THEN
    IF t.excluded && p.roles THEN
      RAISE EXCEPTION 'permission denied to complete task %', t.task_id
        USING ERRCODE = 'insufficient_privilege', DETAIL = format('"%s" is excluded.', p.role);
    END IF;
    fault := voiding.ask_check((SELECT d.definition ->> 'check_outcome' FROM voiding.task_type d WHERE d.name = t.type),
                               coalesce(arguments -> 'outcome', '{}'));
    IF fault IS NOT NULL THEN
      RAISE EXCEPTION 'the outcome of task % is refused: %', t.task_id, fault USING ERRCODE = 'invalid_parameter_value';
    END IF;
  ELSIF action = 'claim' THEN
    PERFORM voiding.is_full(p, true);  -- and standing() looks once more
  ELSIF action = 'assign' AND t.service = ANY (p.services) THEN
    IF to_regrole(quote_ident(arguments ->> 'role')) IS NULL THEN
      RAISE EXCEPTION 'role "%" does not exist', arguments ->> 'role' USING ERRCODE = 'undefined_object';
    ELSIF t.excluded && (voiding.person(arguments ->> 'role')).roles THEN
      RAISE EXCEPTION 'permission denied to assign task % to "%"', t.task_id, arguments ->> 'role'
        USING ERRCODE = 'insufficient_privilege', DETAIL = format('"%s" is excluded.', arguments ->> 'role');
    END IF;
  END IF;
END $$;
COMMENT ON FUNCTION voiding.check_action(voiding.task, voiding.person, text, jsonb) IS 'internal';

CREATE FUNCTION voiding.refuse_action(t voiding.task, p voiding.person, action text, version integer) RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  now_it_is text := voiding.task_object(t)::text;
  whos      text[] := ARRAY(SELECT x.who FROM voiding.task_transition x WHERE x.action = refuse_action.action AND x.from_state = t.state AND x.who <> 'engine');
BEGIN
  IF NOT EXISTS (SELECT FROM voiding.task_transition x WHERE x.action = refuse_action.action AND x.who <> 'engine') THEN
    RAISE EXCEPTION 'there is no action "%"', action
      USING ERRCODE = 'invalid_parameter_value', HINT = 'SELECT * FROM voiding.task_transition shows them.';
  ELSIF version <> t.version THEN
    RAISE EXCEPTION 'task % has changed: its version is %', t.task_id, t.version USING ERRCODE = 'VD09C', DETAIL = now_it_is;
  ELSIF action = 'claim' AND t.owner IS NOT NULL AND t.ended_at IS NULL THEN
    RAISE EXCEPTION 'task % is taken by "%"', t.task_id, t.owner USING ERRCODE = 'VD09D', DETAIL = now_it_is;
  ELSIF whos = '{}' THEN
    RAISE EXCEPTION 'task % is %: % is not possible', t.task_id, t.state, action
      USING ERRCODE = 'VD09C', DETAIL = now_it_is, HINT = 'SELECT * FROM voiding.task_transition shows what is.';
  ELSIF 'owner' = ANY (whos) THEN
    RAISE EXCEPTION 'task % is not, or no longer, that of "%"', t.task_id, p.role USING ERRCODE = 'VD09C', DETAIL = now_it_is;
  END IF;
  RAISE EXCEPTION 'permission denied to % task %', action, t.task_id
    USING ERRCODE = 'insufficient_privilege',
          DETAIL = CASE action WHEN 'claim' THEN array_to_string(voiding.reasons_against(t, p), E'\n')
                               ELSE format('"%s" is no supervisor of service "%s".', p.role, t.service) END;
END $$;
COMMENT ON FUNCTION voiding.refuse_action(voiding.task, voiding.person, text, integer) IS 'internal';

CREATE FUNCTION voiding.note_action(caller text, action_id uuid, t voiding.task, action text, arguments jsonb) RETURNS void
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
  INSERT INTO voiding.task_action
  SELECT caller, action_id, t.task_id, action, arguments, t.version, t.updated_at WHERE action_id IS NOT NULL
$$;
COMMENT ON FUNCTION voiding.note_action(text, uuid, voiding.task, text, jsonb) IS 'internal';

-- The first that fits and that nobody else has just now in hand: highest
-- priority, then earliest due. It waits for nobody.
CREATE FUNCTION voiding.next_task(types text[] DEFAULT NULL, form_factor text DEFAULT NULL, action_id uuid DEFAULT NULL) RETURNS voiding.task
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_as_engine';
COMMENT ON FUNCTION voiding.next_task(text[], text, uuid) IS
  'choose and claim the most urgent task that the caller may do; null: there is none';

-- One plan for any number of tasks: the queue is read by its index.
CREATE FUNCTION voiding.pick_task(p voiding.person, types text[], seen uuid[]) RETURNS voiding.task
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan SET enable_sort = off SET jit = off
AS $$
DECLARE
  t voiding.task;
BEGIN
  SELECT * INTO t FROM voiding.task x
   WHERE x.state = 'ready' AND voiding.fits(x, p) AND (types IS NULL OR x.type = ANY (types)) AND x.task_id <> ALL (seen)
   ORDER BY -x.priority, x.due_at, x.task_id LIMIT 1 FOR UPDATE SKIP LOCKED;
  RETURN t;
END $$;
COMMENT ON FUNCTION voiding.pick_task(voiding.person, text[], uuid[]) IS 'internal';

CREATE FUNCTION voiding.do_next_task(types text[], form_factor text, action_id uuid) RETURNS voiding.task
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  p     voiding.person := voiding.person(voiding.caller(), coalesce(form_factor, current_setting('voiding.form_factor')));
  given jsonb := jsonb_build_object('types', types, 'form_factor', form_factor);
  done  uuid;
  seen  uuid[] := '{}';
  t     voiding.task;
BEGIN
  -- a call of a function that pins its settings costs as much as a look-up: none that does nothing
  IF action_id IS NOT NULL THEN
    done := voiding.repeated_action(p.role, action_id, 'next', given);
  END IF;
  IF done IS NOT NULL THEN
    RETURN voiding.get_task(done, p);
  ELSIF p.capacity IS NOT NULL AND voiding.is_full(p, true) THEN
    RETURN NULL;
  END IF;
  LOOP
    t := voiding.pick_task(p, types, seen);
    EXIT WHEN t.process_id IS NULL OR voiding.has_process(t.process_id);
    seen := seen || t.task_id;
  END LOOP;
  IF t.task_id IS NOT NULL THEN
    t := voiding.move_task(t, 'claim', '{worker}', caller => p.role);
  END IF;
  IF t.task_id IS NOT NULL AND action_id IS NOT NULL THEN
    PERFORM voiding.note_action(p.role, action_id, t, 'next', given);
  END IF;
  RETURN t;
END $$;
COMMENT ON FUNCTION voiding.do_next_task(text[], text, uuid) IS 'internal';

-- ---- each action by its name ----

CREATE FUNCTION voiding.claim_task(task_id uuid, action_id uuid DEFAULT NULL, version integer DEFAULT NULL) RETURNS voiding.task
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$ SELECT voiding.act_on_task(task_id, 'claim', '{}', action_id, version) $$;
COMMENT ON FUNCTION voiding.claim_task(uuid, uuid, integer) IS 'take a task, for the time of its lease; VD09D: somebody has it';

CREATE FUNCTION voiding.start_task(task_id uuid, action_id uuid DEFAULT NULL, version integer DEFAULT NULL) RETURNS voiding.task
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$ SELECT voiding.act_on_task(task_id, 'start', '{}', action_id, version) $$;
COMMENT ON FUNCTION voiding.start_task(uuid, uuid, integer) IS 'begin the work on a task of ones own';

CREATE FUNCTION voiding.extend_claim(task_id uuid, lease interval DEFAULT NULL, action_id uuid DEFAULT NULL, version integer DEFAULT NULL) RETURNS voiding.task
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$ SELECT voiding.act_on_task(task_id, 'extend', jsonb_build_object('lease', lease), action_id, version) $$;
COMMENT ON FUNCTION voiding.extend_claim(uuid, interval, uuid, integer) IS 'let the lease begin anew, of this length or as the task has it';

CREATE FUNCTION voiding.suspend_task(task_id uuid, until timestamptz DEFAULT NULL, reason text DEFAULT NULL, action_id uuid DEFAULT NULL, version integer DEFAULT NULL) RETURNS voiding.task
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$ SELECT voiding.act_on_task(task_id, 'suspend', jsonb_build_object('until', until, 'reason', reason), action_id, version) $$;
COMMENT ON FUNCTION voiding.suspend_task(uuid, timestamptz, text, uuid, integer) IS 'put a task aside, until a time or until it is resumed';

CREATE FUNCTION voiding.resume_task(task_id uuid, action_id uuid DEFAULT NULL, version integer DEFAULT NULL) RETURNS voiding.task
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$ SELECT voiding.act_on_task(task_id, 'resume', '{}', action_id, version) $$;
COMMENT ON FUNCTION voiding.resume_task(uuid, uuid, integer) IS 'go on with a suspended task';

CREATE FUNCTION voiding.release_task(task_id uuid, reason text DEFAULT NULL, action_id uuid DEFAULT NULL, version integer DEFAULT NULL) RETURNS voiding.task
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$ SELECT voiding.act_on_task(task_id, 'release', jsonb_build_object('reason', reason), action_id, version) $$;
COMMENT ON FUNCTION voiding.release_task(uuid, text, uuid, integer) IS 'give a task back; a supervisor: take it away from its owner';

CREATE FUNCTION voiding.complete_task(task_id uuid, outcome jsonb DEFAULT '{}', action_id uuid DEFAULT NULL, version integer DEFAULT NULL) RETURNS voiding.task
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$ SELECT voiding.act_on_task(task_id, 'complete', jsonb_build_object('outcome', coalesce(outcome, '{}')), action_id, version) $$;
COMMENT ON FUNCTION voiding.complete_task(uuid, jsonb, uuid, integer) IS 'a task is done, with this outcome; VD09C: it is no longer the callers';

CREATE FUNCTION voiding.fail_task(task_id uuid, reason text, action_id uuid DEFAULT NULL, version integer DEFAULT NULL) RETURNS voiding.task
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$ SELECT voiding.act_on_task(task_id, 'fail', jsonb_build_object('reason', reason), action_id, version) $$;
COMMENT ON FUNCTION voiding.fail_task(uuid, text, uuid, integer) IS 'a task cannot be done, for this reason';

CREATE FUNCTION voiding.cancel_task(task_id uuid, reason text DEFAULT NULL, action_id uuid DEFAULT NULL, version integer DEFAULT NULL) RETURNS voiding.task
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$ SELECT voiding.act_on_task(task_id, 'cancel', jsonb_build_object('reason', reason), action_id, version) $$;
COMMENT ON FUNCTION voiding.cancel_task(uuid, text, uuid, integer) IS 'as a supervisor: a task need not be done';

CREATE FUNCTION voiding.assign_task(task_id uuid, role name, reason text DEFAULT NULL, action_id uuid DEFAULT NULL, version integer DEFAULT NULL) RETURNS voiding.task
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$ SELECT voiding.act_on_task(task_id, 'assign', jsonb_build_object('role', role, 'reason', reason), action_id, version) $$;
COMMENT ON FUNCTION voiding.assign_task(uuid, name, text, uuid, integer) IS 'as a supervisor: a task is for this role from now on';
