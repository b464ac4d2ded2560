-- service.sql: services, and who handles what.

CREATE TABLE voiding.service (
  name       text PRIMARY KEY,
  owner      text NOT NULL,          -- names, not oids: an oid can be used again
  schema     text UNIQUE,
  known_as   text,
  after_commit boolean NOT NULL DEFAULT false,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  CHECK ((schema IS NULL) = (known_as IS NOT NULL))
);
COMMENT ON TABLE voiding.service IS 'a bounded context: a schema with its tables and functions, and an owner';
COMMENT ON COLUMN voiding.service.known_as IS 'of one in another database, see connection: what this database is called there';
COMMENT ON COLUMN voiding.service.after_commit IS 'of one in another database: what is for it leaves after the commit of who said it, so that a synchronous standby has that';
SELECT pg_catalog.pg_extension_config_dump('voiding.service', '');

CREATE TABLE voiding.handler (
  service    text NOT NULL,
  type       text NOT NULL,
  kind       text NOT NULL CHECK (kind IN ('command', 'event', 'query')),
  function   text,                   -- text: a reg* column would stop pg_upgrade
  takes_set  boolean NOT NULL DEFAULT false,
  key        text,
  resource   text,
  completed_by text,
  failed_by  text,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (service, type)
);
CREATE UNIQUE INDEX handler_command ON voiding.handler (type) WHERE kind = 'command';
CREATE UNIQUE INDEX handler_query ON voiding.handler (type) WHERE kind = 'query';
CREATE INDEX handler_type ON voiding.handler (type);
COMMENT ON TABLE voiding.handler IS 'the function of a service that a message type is given to, or a query is answered by';
COMMENT ON COLUMN voiding.handler.function IS 'signature; null: received outside the database';
COMMENT ON COLUMN voiding.handler.takes_set IS 'its arguments are arrays with an element for each of many messages, of different keys';
COMMENT ON COLUMN voiding.handler.key IS 'of a command: the argument that is the ordering key';
COMMENT ON COLUMN voiding.handler.resource IS 'of a command: where its result will be, with {argument} in it';
COMMENT ON COLUMN voiding.handler.completed_by IS 'of a command: the event that ends it, not its handler';
COMMENT ON COLUMN voiding.handler.failed_by IS 'of a command: the event that makes it a failed one';
SELECT pg_catalog.pg_extension_config_dump('voiding.handler', '');

CREATE FUNCTION voiding.definitions_changed() RETURNS void
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_definitions_changed';
COMMENT ON FUNCTION voiding.definitions_changed() IS 'internal: every backend reads services, handlers and process types again';

-- The name of a message type or service, or an error.
CREATE FUNCTION voiding.check_name(what text, name text, pattern text) RETURNS void
  LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF name IS NULL OR name !~ pattern THEN
    RAISE EXCEPTION '% "%" is not a name that can be used', what, left(name, 100)
      USING ERRCODE = 'invalid_parameter_value',
            DETAIL = format('It must match %s.', pattern);
  END IF;
END $$;
COMMENT ON FUNCTION voiding.check_name(text, text, text) IS 'internal';

-- The caller must be a member of a role.
CREATE FUNCTION voiding.check_member(role text, todo text) RETURNS void
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
    RAISE EXCEPTION 'role "%" does not exist', role USING ERRCODE = 'undefined_object';
  END IF;
  IF NOT pg_has_role(voiding.caller(), role::name, 'MEMBER') THEN
    RAISE EXCEPTION 'permission denied to %', todo
      USING ERRCODE = 'insufficient_privilege',
            DETAIL = format('"%s" is not a member of role "%s".', voiding.caller(), role);
  END IF;
END $$;
COMMENT ON FUNCTION voiding.check_member(text, text) IS 'internal';

CREATE FUNCTION voiding.create_service(name text, owner regrole DEFAULT NULL, schema regnamespace DEFAULT NULL) RETURNS void
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_as_engine';
COMMENT ON FUNCTION voiding.create_service(text, regrole, regnamespace) IS
  'make a schema a service, owned by who owns the schema; without schema, the one with the service''s name, created if missing';

CREATE FUNCTION voiding.do_create_service(name text, owner regrole, schema regnamespace) RETURNS void LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  schema_name  name := coalesce((SELECT n.nspname FROM pg_namespace n WHERE n.oid = schema), name::name);
  schema_owner name := (SELECT pg_get_userbyid(n.nspowner) FROM pg_namespace n WHERE n.nspname = schema_name);
  owner_name   name := coalesce((SELECT r.rolname FROM pg_roles r WHERE r.oid = owner), schema_owner, voiding.caller());
  namesake     name := (SELECT pg_get_userbyid(n.nspowner) FROM pg_namespace n WHERE n.nspname = do_create_service.name AND n.nspname <> schema_name);
BEGIN
  PERFORM voiding.check_name('service', name, '^[a-z_][a-z0-9_]{0,49}$');
  IF name IN ('voiding', 'process', 'command', 'task', 'event', 'arrival') THEN
    RAISE EXCEPTION 'service name "%" is reserved', name
      USING ERRCODE = 'reserved_name', HINT = format('The channel voiding_%s is the engine''s own.', name);
  END IF;
  PERFORM voiding.check_member(owner_name, format('make a service of role "%s"', owner_name));
  IF namesake IS NOT NULL THEN
    PERFORM voiding.check_member(namesake, format('name a service like schema "%s"', name));
  END IF;
  IF schema_name = 'voiding' OR schema_name LIKE 'pg\_%' OR schema_name = 'information_schema' THEN
    RAISE EXCEPTION 'schema "%" cannot be a service', schema_name USING ERRCODE = 'invalid_parameter_value';
  ELSIF schema_owner <> owner_name THEN
    -- who owns a schema can replace all that is in it
    RAISE EXCEPTION 'service "%" would belong to "%", but its schema "%" to "%"', name, owner_name, schema_name, schema_owner
      USING ERRCODE = 'insufficient_privilege', HINT = 'A service and its schema have one owner.';
  END IF;
  IF schema_owner IS NULL AND NOT has_database_privilege(voiding.caller(), current_database(), 'CREATE') THEN
    RAISE EXCEPTION 'permission denied to create schema "%"', schema_name USING ERRCODE = 'insufficient_privilege';
  ELSIF schema_owner IS NULL THEN
    EXECUTE format('CREATE SCHEMA %I AUTHORIZATION %I', schema_name, owner_name);
  END IF;
  INSERT INTO voiding.service (name, owner, schema) VALUES (do_create_service.name, owner_name, schema_name);
  PERFORM voiding.definitions_changed();
EXCEPTION WHEN unique_violation THEN
  RAISE EXCEPTION 'service "%" or a service of schema "%" exists already', name, schema_name
    USING ERRCODE = 'duplicate_object';
END $$;
COMMENT ON FUNCTION voiding.do_create_service(text, regrole, regnamespace) IS 'internal';

CREATE FUNCTION voiding.drop_service(name text) RETURNS void
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_as_engine';
COMMENT ON FUNCTION voiding.drop_service(text) IS 'forget a service; its schema stays; refused while it is in use';

CREATE FUNCTION voiding.do_drop_service(name text) RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  used text;
BEGIN
  PERFORM voiding.check_member((SELECT s.owner FROM voiding.get_service(do_drop_service.name) s),
                               format('drop service "%s"', name));
  SELECT INTO used CASE
    WHEN EXISTS (SELECT FROM voiding.service s WHERE s.name = do_drop_service.name AND s.known_as IS NOT NULL) THEN 'it is elsewhere; disconnect_service() it'
    WHEN EXISTS (SELECT FROM voiding.task_type t WHERE t.service = do_drop_service.name) THEN 'it has types of tasks'
    WHEN EXISTS (SELECT FROM voiding.handler h WHERE h.service = do_drop_service.name) THEN 'it handles messages or answers queries'
    WHEN EXISTS (SELECT FROM voiding.outbox o WHERE o.destination = do_drop_service.name) THEN 'messages wait for it' END;
  IF used IS NOT NULL THEN
    RAISE EXCEPTION 'service "%" is in use: %', name, used
      USING ERRCODE = 'dependent_objects_still_exist',
            HINT = 'Drop its commands with drop_command(), its queries with drop_query(), its subscriptions with unsubscribe(), its tasks with drop_task_type().';
  END IF;
  DELETE FROM voiding.service s WHERE s.name = do_drop_service.name;
  PERFORM voiding.definitions_changed();
END $$;
COMMENT ON FUNCTION voiding.do_drop_service(text) IS 'internal';

CREATE FUNCTION voiding.get_service(name text) RETURNS voiding.service
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  s voiding.service;
BEGIN
  SELECT * INTO s FROM voiding.service x WHERE x.name = get_service.name;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'service "%" does not exist', name
      USING ERRCODE = 'undefined_object', HINT = 'SELECT voiding.create_service(...) makes one.';
  END IF;
  RETURN s;
END $$;
COMMENT ON FUNCTION voiding.get_service(text) IS 'internal';

-- A function as a handler: what it must be, and who may say so. Only somebody
-- with the rights of its owner may register it, since it runs with those; and
-- only the service's owner decides what the service handles.
CREATE FUNCTION voiding.register_handler(kind text, type text, handler regproc, service text, takes_set boolean) RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  f  pg_proc;
  s  voiding.service;
  is_wrong text;
BEGIN
  PERFORM voiding.check_name(kind, type, '^[A-Za-z_][A-Za-z0-9_.:/-]{0,99}$');
  SELECT * INTO f FROM pg_proc p WHERE p.oid = handler;
  IF service IS NULL THEN
    SELECT x.name INTO service FROM voiding.service x JOIN pg_namespace n ON n.nspname = x.schema
     WHERE n.oid = f.pronamespace;
    IF service IS NULL THEN
      RAISE EXCEPTION 'the schema of % is not a service', coalesce(handler::text, 'the handler')
        USING ERRCODE = 'undefined_object', HINT = 'Make it one with create_service(), or name the service.';
    END IF;
  END IF;
  s := voiding.get_service(service);
  PERFORM voiding.check_member(s.owner, format('register a handler of service "%s"', service));
  IF s.known_as IS NOT NULL AND handler IS NOT NULL THEN
    RAISE EXCEPTION 'service "%" lives in another database', service
      USING ERRCODE = 'invalid_parameter_value', HINT = 'Register its handlers there; here it has none.';
  END IF;
  IF handler IS NOT NULL THEN
    PERFORM voiding.check_member(pg_get_userbyid(f.proowner), format('register function %s', handler));
    is_wrong := CASE
      WHEN f.prokind <> 'f' THEN 'it is not a plain function'
      WHEN f.prorettype IN ('trigger'::regtype, 'event_trigger'::regtype) THEN 'it is a trigger function'
      WHEN f.provariadic <> 0 THEN 'it is variadic'
      WHEN f.pronargs > 32 THEN 'it has more than 32 arguments'
      WHEN EXISTS (SELECT FROM unnest(f.proargtypes) a(t) JOIN pg_type y ON y.oid = t AND y.typtype = 'p') THEN 'it has an argument of a pseudo-type'
      WHEN f.pronargs > 0 AND (f.proargnames IS NULL OR '' = ANY (f.proargnames[1:f.pronargs])) THEN 'it has an argument without a name'
      WHEN f.proargmodes && CASE kind WHEN 'query' THEN '{o,b}'::"char"[] ELSE '{o,b,t}' END THEN 'it has OUT arguments'
      WHEN takes_set AND f.pronargs = 0 THEN 'it is to take a set, but has no argument'
      WHEN takes_set AND EXISTS (SELECT FROM unnest(f.proargtypes) a(t) JOIN pg_type y ON y.oid = t AND y.typcategory <> 'A')
        THEN 'it is to take a set, but has an argument that is no array' END;
    IF is_wrong IS NOT NULL THEN
      RAISE EXCEPTION '% cannot be a handler: %', handler, is_wrong
        USING ERRCODE = 'invalid_parameter_value',
              HINT = 'A handler is a function whose arguments have the names of the message''s keys; one that takes a set has arrays of them.';
    END IF;
  END IF;
  INSERT INTO voiding.handler (service, type, kind, function, takes_set)
  VALUES (s.name, register_handler.type, register_handler.kind,
          CASE WHEN handler IS NOT NULL THEN handler::regprocedure::text END, coalesce(takes_set AND handler IS NOT NULL, false));
  PERFORM voiding.definitions_changed();
EXCEPTION WHEN unique_violation THEN
  RAISE EXCEPTION '% "%" has a handler already', kind, type
    USING ERRCODE = 'duplicate_object',
          DETAIL = (SELECT format('Service "%s": %s.', h.service, coalesce(h.function, 'received outside'))
                      FROM voiding.handler h
                     WHERE h.type = register_handler.type
                       AND (h.service = register_handler.service OR register_handler.kind IN ('command', 'query')) LIMIT 1);
END $$;
COMMENT ON FUNCTION voiding.register_handler(text, text, regproc, text, boolean) IS 'internal';

CREATE FUNCTION voiding.create_command(name text, handler regproc DEFAULT NULL, service text DEFAULT NULL, takes_set boolean DEFAULT false,
    key text DEFAULT NULL, resource text DEFAULT NULL, completed_by text DEFAULT NULL, failed_by text DEFAULT NULL) RETURNS void
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_as_engine';
COMMENT ON FUNCTION voiding.create_command(text, regproc, text, boolean, text, text, text, text) IS
  'a command and its handler; no handler: received outside; takes_set: one call for many messages; key: the argument that gives the order (default: the first); resource: where its result will be, with {argument} in it; completed_by, failed_by: events that end it';

CREATE FUNCTION voiding.do_create_command(name text, handler regproc, service text, takes_set boolean, key text, resource text,
    completed_by text, failed_by text) RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  arguments text[] := (SELECT p.proargnames[1:p.pronargs] FROM pg_proc p WHERE p.oid = handler);
  unknown text;
BEGIN
  IF handler IS NOT NULL THEN
    SELECT m[1] INTO unknown FROM regexp_matches(resource, '\{([^}]*)\}', 'g') m WHERE m[1] <> ALL (coalesce(arguments, '{}'))
    UNION ALL SELECT do_create_command.key WHERE do_create_command.key <> ALL (coalesce(arguments, '{}')) LIMIT 1;
    IF unknown IS NOT NULL THEN
      RAISE EXCEPTION 'function % has no argument "%"', handler, unknown
        USING ERRCODE = 'invalid_parameter_value', HINT = 'The key of a command and what stands in {} in its resource are arguments of its handler.';
    END IF;
  END IF;
  IF failed_by IS NOT NULL AND completed_by IS NULL THEN
    RAISE EXCEPTION 'command "%" would end with an event only if it fails', name
      USING ERRCODE = 'invalid_parameter_value', HINT = 'Say completed_by too.';
  END IF;
  PERFORM voiding.register_handler('command', name, handler, service, takes_set);
  UPDATE voiding.handler h
     SET key = coalesce(do_create_command.key, arguments[1]), resource = do_create_command.resource,
         completed_by = do_create_command.completed_by, failed_by = do_create_command.failed_by
   WHERE h.kind = 'command' AND h.type = do_create_command.name;
END $$;
COMMENT ON FUNCTION voiding.do_create_command(text, regproc, text, boolean, text, text, text, text) IS 'internal';

CREATE FUNCTION voiding.subscribe(event_type text, handler regproc, service text DEFAULT NULL, takes_set boolean DEFAULT false) RETURNS void
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_as_engine';
COMMENT ON FUNCTION voiding.subscribe(text, regproc, text, boolean) IS
  'give events of this type to a function of a service; one handler a service and type; takes_set: one call for many events';

CREATE FUNCTION voiding.do_subscribe(event_type text, handler regproc, service text, takes_set boolean) RETURNS void
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$ SELECT voiding.register_handler('event', event_type, handler, service, takes_set) $$;
COMMENT ON FUNCTION voiding.do_subscribe(text, regproc, text, boolean) IS 'internal';

CREATE FUNCTION voiding.remove_handler(kind text, type text, service text) RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  h voiding.handler;
BEGIN
  SELECT * INTO h FROM voiding.handler x
   WHERE x.type = remove_handler.type AND x.kind = remove_handler.kind
     AND (remove_handler.service IS NULL OR x.service = remove_handler.service)
   ORDER BY x.service LIMIT 1;
  IF NOT FOUND THEN
    RAISE EXCEPTION '% "%" has no handler%', kind, left(type, 100), coalesce(' in service "' || service || '"', '')
      USING ERRCODE = 'undefined_object';
  END IF;
  PERFORM voiding.check_member((voiding.get_service(h.service)).owner, format('remove a handler of service "%s"', h.service));
  IF EXISTS (SELECT FROM voiding.outbox o WHERE o.destination = h.service AND o.type = h.type) THEN
    RAISE EXCEPTION '% "%" is in use: messages wait for it', kind, type
      USING ERRCODE = 'dependent_objects_still_exist', HINT = 'Let dispatch() handle them, or discard_message() them.';
  END IF;
  DELETE FROM voiding.handler x WHERE x.service = h.service AND x.type = h.type;
  PERFORM voiding.definitions_changed();
END $$;
COMMENT ON FUNCTION voiding.remove_handler(text, text, text) IS 'internal';

CREATE FUNCTION voiding.drop_command(name text) RETURNS void
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_as_engine';
COMMENT ON FUNCTION voiding.drop_command(text) IS 'forget a command; refused while a process type sends it or messages wait';

CREATE FUNCTION voiding.do_drop_command(name text) RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  sender text := (SELECT format('%s version %s', p.name, p.version) FROM voiding.process_type p
                   WHERE do_drop_command.name = ANY (voiding.commands_of(p.definition)) LIMIT 1);
BEGIN
  IF sender IS NOT NULL THEN
    RAISE EXCEPTION 'command "%" is in use: process type % sends it', name, sender
      USING ERRCODE = 'dependent_objects_still_exist';
  END IF;
  PERFORM voiding.remove_handler('command', name, NULL);
END $$;
COMMENT ON FUNCTION voiding.do_drop_command(text) IS 'internal';

CREATE FUNCTION voiding.unsubscribe(event_type text, service text) RETURNS void
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_as_engine';
COMMENT ON FUNCTION voiding.unsubscribe(text, text) IS 'end a subscription; refused while messages wait for it';

CREATE FUNCTION voiding.do_unsubscribe(event_type text, service text) RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF EXISTS (SELECT FROM voiding.task_type t WHERE t.service = do_unsubscribe.service
                AND (t.definition -> 'made_by' ? event_type OR t.definition -> 'ended_by' ? event_type)) THEN
    RAISE EXCEPTION 'event "%" is in use: types of tasks name it', event_type
      USING ERRCODE = 'dependent_objects_still_exist', HINT = 'Give them other definitions with create_task_type(), or drop_task_type() them.';
  END IF;
  PERFORM voiding.remove_handler('event', event_type, service);
END $$;
COMMENT ON FUNCTION voiding.do_unsubscribe(text, text) IS 'internal';
