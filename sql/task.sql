-- task.sql: work for people: a row for each task, how it is made, changed and
-- ended.
--
-- All changes go through move_task(): task_transition says what may be done,
-- and write_task() writes it. The trigger on the table says it as an event of
-- the service, with the correlation of the process: so processes go on. What
-- an event has changed is not said again (said is null).
--
-- Locks: the process that made a task before the task.

CREATE TABLE voiding.task (
  task_id        uuid PRIMARY KEY,
  type           text NOT NULL,
  service        text,
  state          text NOT NULL CHECK (state IN ('ready', 'claimed', 'in_progress', 'suspended', 'completed', 'failed', 'cancelled', 'expired')),
  title          text,
  document       jsonb NOT NULL,
  key            text NOT NULL,
  roles          text[] NOT NULL,
  skills         text[] NOT NULL,
  form_factors   text[] NOT NULL,
  excluded       text[] NOT NULL,
  owner          text,
  priority       integer NOT NULL,
  due_at         timestamptz NOT NULL,
  expires_at     timestamptz,
  until          timestamptz,
  lease          interval NOT NULL,
  ttl            interval,
  deadlines      jsonb NOT NULL,
  wake_at        timestamptz,
  outcome        jsonb,
  reason         text,
  version        integer NOT NULL,
  process_id     uuid,
  correlation_id uuid NOT NULL,
  position       bigint,
  created_at     timestamptz NOT NULL,
  updated_at     timestamptz NOT NULL,
  ended_at       timestamptz,
  former         text[] NOT NULL,
  said           text,
  xid            xid8 NOT NULL
);
CREATE INDEX task_ready ON voiding.task ((-priority), due_at, task_id) WHERE state = 'ready';
CREATE INDEX task_owner ON voiding.task (owner) WHERE owner IS NOT NULL;
CREATE INDEX task_wake_at ON voiding.task (wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX task_process_id ON voiding.task (process_id) WHERE process_id IS NOT NULL;
CREATE INDEX task_key ON voiding.task (type, key) WHERE process_id IS NULL;
CREATE INDEX task_changed ON voiding.task (xid);
COMMENT ON TABLE voiding.task IS 'work for people; everybody sees what is theirs to do';
COMMENT ON COLUMN voiding.task.service IS 'whose work it is; null: of a type that nobody has made, to look at only';
COMMENT ON COLUMN voiding.task.key IS 'what it is about: the key of its process, or what its type reads from the event';
COMMENT ON COLUMN voiding.task.roles IS 'members of one of these may do it, with all of the skills and one of the form factors';
COMMENT ON COLUMN voiding.task.excluded IS 'roles whose members may not, whatever else they are';
COMMENT ON COLUMN voiding.task.due_at IS 'infinity: at no time';
COMMENT ON COLUMN voiding.task.until IS 'the end of the lease; of a suspended one when it goes on';
COMMENT ON COLUMN voiding.task.ttl IS 'how long it is kept after the end of its process; null: voiding.task_retention';
COMMENT ON COLUMN voiding.task.wake_at IS 'when something happens to it by itself: null when it has ended';
COMMENT ON COLUMN voiding.task.process_id IS 'the process whose state wants it; null: an event has made it';
COMMENT ON COLUMN voiding.task.correlation_id IS 'the conversation that it belongs to: its status events move that process';
COMMENT ON COLUMN voiding.task.position IS 'of the event that made or changed it last: an older one does not change it';
COMMENT ON COLUMN voiding.task.former IS 'roles that may have seen it and may not any more';
COMMENT ON COLUMN voiding.task.said IS 'the event that the last change was said as';
COMMENT ON COLUMN voiding.task.xid IS 'the transaction that changed it last, for task_changes()';
SELECT pg_catalog.pg_extension_config_dump('voiding.task', '');

CREATE TRIGGER say AFTER UPDATE ON voiding.task FOR EACH ROW WHEN (NEW.said IS NOT NULL)
  EXECUTE FUNCTION voiding.emit_event('@type=said', '@source=service', '@subject=key', '@correlation=correlation_id',
    'task_id', 'type', 'key', 'state', 'owner', 'outcome', 'reason', 'process_id', 'version');

-- ---- writing ----

-- what follows from the rest of a row
CREATE FUNCTION voiding.stamp_task(t voiding.task, said text) RETURNS voiding.task
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  t.updated_at := voiding.now();
  t.version := coalesce(t.version, 0) + 1;
  t.said := CASE WHEN t.service IS NOT NULL THEN stamp_task.said END;
  t.xid := pg_current_xact_id();
  IF t.state IN ('completed', 'failed', 'cancelled', 'expired') THEN
    t.ended_at := t.updated_at;
    t.deadlines := '[]';
    t.wake_at := NULL;
  ELSE
    t.wake_at := least(t.expires_at, t.until, (t.deadlines #>> '{0,at}')::timestamptz);
  END IF;
  IF t.wake_at < 'infinity' THEN
    PERFORM voiding.wake_timer(t.wake_at);
  END IF;
  RETURN t;
END $$;
COMMENT ON FUNCTION voiding.stamp_task(voiding.task, text) IS 'internal';

CREATE FUNCTION voiding.add_task(t voiding.task) RETURNS voiding.task
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  t := voiding.stamp_task(t, NULL);
  INSERT INTO voiding.task VALUES (t.*);
  PERFORM voiding.hint('task', t.type, t.task_id);
  RETURN t;
END $$;
COMMENT ON FUNCTION voiding.add_task(voiding.task) IS 'internal';

CREATE FUNCTION voiding.write_task(t voiding.task, said text) RETURNS voiding.task
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  t := voiding.stamp_task(t, said);
  UPDATE voiding.task x
     SET state = t.state, title = t.title, document = t.document, roles = t.roles, skills = t.skills, form_factors = t.form_factors,
         excluded = t.excluded, owner = t.owner, priority = t.priority, due_at = t.due_at, expires_at = t.expires_at, until = t.until,
         lease = t.lease, deadlines = t.deadlines, wake_at = t.wake_at, outcome = t.outcome, reason = t.reason, version = t.version,
         position = t.position, updated_at = t.updated_at, ended_at = t.ended_at, former = t.former, said = t.said, xid = t.xid
   WHERE x.task_id = t.task_id;
  RETURN t;
END $$;
COMMENT ON FUNCTION voiding.write_task(voiding.task, text) IS 'internal';

-- The status event of an action: as the type's definition has it ("events"), else the usual one.
CREATE FUNCTION voiding.status_event(type text, event text) RETURNS text
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  named jsonb := (SELECT d.definition #> ARRAY['events', lower(substr(event, 5))] FROM voiding.task_type d WHERE d.name = status_event.type);
BEGIN
  RETURN CASE WHEN named IS NULL THEN event ELSE named #>> '{}' END;
END $$;
COMMENT ON FUNCTION voiding.status_event(text, text) IS 'internal';

-- those who may have seen it, before it changes hands
CREATE FUNCTION voiding.former_roles(t voiding.task) RETURNS text[]
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT coalesce(array_agg(DISTINCT r), '{}') FROM unnest(t.former || t.roles || t.owner) r WHERE r IS NOT NULL $$;
COMMENT ON FUNCTION voiding.former_roles(voiding.task) IS 'internal';

-- Take an action on a locked task, by somebody who is one of "who" to it; null:
-- it is not allowed. caller: who becomes the owner. said: another event than
-- the type's own, or '' for none.
CREATE FUNCTION voiding.move_task(t voiding.task, action text, who text[], arguments jsonb DEFAULT '{}', caller text DEFAULT NULL, said text DEFAULT NULL)
  RETURNS voiding.task
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  step voiding.task_transition;
BEGIN
  SELECT * INTO step FROM voiding.task_transition x
   WHERE x.action = move_task.action AND x.from_state = t.state AND x.who = ANY (move_task.who) LIMIT 1;
  IF NOT FOUND THEN
    RETURN NULL;
  END IF;
  t.state := step.to_state;
  IF action = 'assign' THEN
    t.former := voiding.former_roles(t);
    t.roles := voiding.texts(arguments -> 'role');
  ELSIF action = 'complete' THEN
    t.outcome := coalesce(arguments -> 'outcome', '{}');
  END IF;
  t.owner := CASE t.state WHEN 'ready' THEN NULL WHEN 'claimed' THEN coalesce(t.owner, caller) ELSE t.owner END;
  t.until := CASE WHEN t.state IN ('claimed', 'in_progress') AND action <> 'escalate'
                  THEN voiding.now() + coalesce((arguments ->> 'lease')::interval, t.lease)
                  WHEN action = 'suspend' THEN (arguments ->> 'until')::timestamptz
                  WHEN action = 'escalate' THEN t.until END;
  t.reason := arguments ->> 'reason';
  RETURN voiding.write_task(t, nullif(coalesce(said, voiding.status_event(t.type, step.event)), ''));
END $$;
COMMENT ON FUNCTION voiding.move_task(voiding.task, text, text[], jsonb, text, text) IS 'internal';

-- ---- making ----

-- A task of this type, with all that its definition says looked up.
CREATE FUNCTION voiding.draft_task(type text, event jsonb, process jsonb, key text, process_id uuid) RETURNS voiding.task
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  d voiding.task_type;
  f jsonb;
  t voiding.task;
BEGIN
  SELECT * INTO d FROM voiding.task_type x WHERE x.name = draft_task.type;
  f := coalesce(voiding.fill(d.definition - '{made_by,ended_by}'::text[], event, process, key, process_id), '{}');
  t.created_at := voiding.now();
  t.type := draft_task.type;
  t.service := d.service;
  t.state := 'ready';
  t.title := f ->> 'title';
  t.document := coalesce(f -> 'document', '{}');
  t.key := draft_task.key;
  t.roles := CASE WHEN f ? 'roles' THEN voiding.texts(f -> 'roles') ELSE ARRAY(SELECT s.owner FROM voiding.service s WHERE s.name = d.service) END;
  t.skills := voiding.texts(f -> 'skills');
  t.form_factors := voiding.texts(f -> 'form_factors');
  t.excluded := voiding.texts(f -> 'excluded');
  t.priority := coalesce((f ->> 'priority')::integer, 0);
  t.due_at := coalesce(voiding.moment(f ->> 'due', t.created_at), 'infinity');
  t.expires_at := voiding.moment(f ->> 'expire', t.created_at);
  t.lease := coalesce(f ->> 'lease', 'PT15M')::interval;
  t.ttl := (f ->> 'ttl')::interval;
  t.deadlines := (SELECT coalesce(jsonb_agg(x.value || jsonb_build_object('at', voiding.moment(x.key, t.created_at)) ORDER BY x.key::interval), '[]')
                    FROM jsonb_each(f -> 'deadlines') x);
  t.process_id := draft_task.process_id;
  t.former := '{}';
  RETURN t;
END $$;
COMMENT ON FUNCTION voiding.draft_task(text, jsonb, jsonb, text, uuid) IS 'internal';

CREATE FUNCTION voiding.derive_uuid(origin uuid, type text, key text) RETURNS uuid
  LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'voiding_derive_uuid';
COMMENT ON FUNCTION voiding.derive_uuid(uuid, text, text) IS 'internal: the same id for the same origin, type and key';

-- Called by the process manager, for a state that wants a task. It must not
-- fail: what its type cannot make of the data is said in the task's reason.
CREATE FUNCTION voiding.open_task(process_id uuid, task jsonb, event_id uuid, event jsonb, process jsonb, key text) RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  t voiding.task;
BEGIN
  IF NOT EXISTS (SELECT FROM voiding.active_process a WHERE a.process_id = open_task.process_id AND a.task = open_task.task ->> 'type') THEN
    RETURN;  -- the event that withdrew the last one has moved it on
  END IF;
  BEGIN
    t := voiding.draft_task(task ->> 'type', event, process, key, process_id);
    t.document := t.document || coalesce(task -> 'with', '{}');
    t.reason := voiding.ask_check((SELECT d.definition ->> 'check_document' FROM voiding.task_type d WHERE d.name = t.type), t.document);
  EXCEPTION WHEN OTHERS THEN
    t := voiding.draft_task(task ->> 'type', NULL, NULL, key, process_id);
    t.document := coalesce(task -> 'with', '{}');
    t.reason := SQLERRM;
  END;
  t.correlation_id := process_id;
  t.task_id := voiding.derive_uuid(event_id, t.type, process_id::text);
  WHILE EXISTS (SELECT FROM voiding.task x WHERE x.task_id = t.task_id) LOOP  -- the event has brought it here twice
    t.task_id := voiding.derive_uuid(t.task_id, t.type, process_id::text);
  END LOOP;
  t := voiding.add_task(t);
  IF t.service IS NOT NULL THEN  -- no trigger acts on INSERT, since a restore would fire it
    t.version := 0;
    PERFORM voiding.write_task(t, voiding.status_event(t.type, 'TaskCreated'));
  END IF;
END $$;
COMMENT ON FUNCTION voiding.open_task(uuid, jsonb, uuid, jsonb, jsonb, text) IS 'internal';

-- Called by the process manager when it leaves the state, and when a person
-- acknowledges a failure.
CREATE FUNCTION voiding.close_task(process_id uuid, action text, arguments jsonb DEFAULT '{}') RETURNS void
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT voiding.move_task(t, action, '{engine}', arguments) FROM voiding.task t
   WHERE t.process_id = close_task.process_id AND t.ended_at IS NULL FOR UPDATE
$$;
COMMENT ON FUNCTION voiding.close_task(uuid, text, jsonb) IS 'internal';

-- The handler of events that make or end tasks: "@..." is of the message itself.
CREATE FUNCTION voiding.task_event("@destination" text, "@type" text, "@position" bigint, "@message_id" uuid, "@correlation_id" uuid, "@data" jsonb)
  RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  r   record;
  key text;
  old voiding.task;
  new voiding.task;
BEGIN
  FOR r IN SELECT t.name, k.kind, t.definition #> ARRAY[k.kind, "@type"] AS rule
             FROM voiding.task_type t, unnest('{made_by,ended_by}'::text[]) k(kind)
            WHERE t.service = "@destination" AND t.definition #> ARRAY[k.kind, "@type"] IS NOT NULL ORDER BY t.name, k.kind LOOP
    CONTINUE WHEN r.rule ? 'if' AND voiding.fill(r.rule -> 'if', "@data", NULL, NULL, NULL) IS DISTINCT FROM 'true';
    key := CASE WHEN r.rule ? 'key' THEN voiding.fill(r.rule -> 'key', "@data", NULL, NULL, NULL) #>> '{}' ELSE "@message_id"::text END;
    IF key IS NULL THEN
      RAISE EXCEPTION 'the event has no key for task type "%"', r.name
        USING ERRCODE = 'invalid_parameter_value', HINT = format('The type looks for it in %s.', r.rule -> 'key');
    END IF;
    -- one at a time for a key, also of those that are not there yet
    PERFORM pg_advisory_xact_lock(hashtextextended(r.name || ' ' || key, 0));
    old := voiding.task_for(r.name, key);
    CONTINUE WHEN old.position >= "@position";  -- a newer one has been here
    IF r.kind = 'made_by' THEN
      new := voiding.draft_task(r.name, "@data", NULL, key, NULL);
      new.position := "@position";
      new.correlation_id := "@correlation_id";
      PERFORM voiding.make_task(old, new, "@message_id");
    ELSE
      old.position := "@position";
      PERFORM voiding.move_task(old, CASE r.rule ->> 'state' WHEN 'completed' THEN 'complete' ELSE 'cancel' END, '{engine}', said => '');
    END IF;
  END LOOP;
END $$;
COMMENT ON FUNCTION voiding.task_event(text, text, bigint, uuid, uuid, jsonb) IS 'internal: the handler of events that make or end tasks';

-- the newest task that events made for this key, locked
CREATE FUNCTION voiding.task_for(type text, key text) RETURNS voiding.task
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT t.* FROM voiding.task t WHERE t.type = task_for.type AND t.key = task_for.key AND t.process_id IS NULL
   ORDER BY t.position DESC LIMIT 1 FOR UPDATE
$$;
COMMENT ON FUNCTION voiding.task_for(text, text) IS 'internal';

-- A later event changes an open task; after its end there is a new one. What
-- its worker has reached stays.
CREATE FUNCTION voiding.make_task(old voiding.task, t voiding.task, event_id uuid) RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  fault text := voiding.ask_check((SELECT d.definition ->> 'check_document' FROM voiding.task_type d WHERE d.name = t.type), t.document);
BEGIN
  IF fault IS NOT NULL THEN
    RAISE EXCEPTION 'the document of a task "%" about "%" is refused: %', t.type, t.key, fault USING ERRCODE = 'invalid_parameter_value';
  ELSIF old.task_id IS NULL OR old.ended_at IS NOT NULL THEN
    t.task_id := voiding.derive_uuid(event_id, t.type, t.key);
    PERFORM voiding.add_task(t);
  ELSE
    t.task_id := old.task_id;
    t.state := old.state;
    t.owner := old.owner;
    t.until := old.until;
    t.version := old.version;
    t.former := voiding.former_roles(old);
    PERFORM voiding.write_task(t, NULL);
  END IF;
END $$;
COMMENT ON FUNCTION voiding.make_task(voiding.task, voiding.task, uuid) IS 'internal';

-- ---- what happens by itself ----

-- The earliest of what is due; false: there is nothing, or somebody is at work
-- on it. Nobody waits for locks here.
CREATE FUNCTION voiding.wake_task(task_id uuid) RETURNS boolean
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  t voiding.task;
  n timestamptz := voiding.now();
  d jsonb;
BEGIN
  SELECT * INTO t FROM voiding.task x WHERE x.task_id = wake_task.task_id AND x.wake_at <= n FOR UPDATE SKIP LOCKED;
  IF NOT FOUND OR NOT voiding.has_process(t.process_id) THEN
    RETURN false;
  END IF;
  IF t.expires_at <= n THEN
    PERFORM voiding.move_task(t, 'expire', '{engine}');
  ELSIF t.until <= n THEN
    PERFORM voiding.move_task(t, CASE t.state WHEN 'suspended' THEN 'resume' ELSE 'release' END, '{engine}',
                              CASE WHEN t.state <> 'suspended' THEN '{"reason": "the lease has run out"}'::jsonb ELSE '{}' END);
  ELSE
    d := t.deadlines -> 0;
    t.deadlines := t.deadlines - 0;
    t.priority := coalesce((d ->> 'priority')::integer, t.priority);
    PERFORM voiding.move_task(t, CASE WHEN d ? 'assign_roles' THEN 'assign' ELSE 'escalate' END, '{engine}',
                              jsonb_build_object('role', d -> 'assign_roles', 'reason', 'a deadline has passed'),
                              said => coalesce(d ->> 'emit', voiding.status_event(t.type, 'TaskEscalated'), ''));
  END IF;
  RETURN true;
END $$;
COMMENT ON FUNCTION voiding.wake_task(uuid) IS 'internal';

-- Lock the process of a task that is locked already, where that is free: whoever
-- moves it may be waiting for the task.
CREATE FUNCTION voiding.has_process(process_id uuid) RETURNS boolean
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF process_id IS NULL THEN
    RETURN true;
  END IF;
  PERFORM FROM voiding.active_process a WHERE a.process_id = has_process.process_id FOR UPDATE SKIP LOCKED;
  RETURN FOUND;
END $$;
COMMENT ON FUNCTION voiding.has_process(uuid) IS 'internal';
