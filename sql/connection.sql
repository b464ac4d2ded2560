-- connection.sql: services in other databases, over logical replication.
--
-- What is for a service elsewhere is a row of voiding.transfer, and arrives
-- there as the same row. A table of its own, since the outbox's rows go when
-- they have been handled: these stay for as long as they may have to be sent
-- again, and over there, to know them again.

CREATE TABLE voiding.transfer (
  id             uuid NOT NULL,
  aggregatetype  text NOT NULL,
  aggregateid    text NOT NULL,
  type           text NOT NULL,
  payload        jsonb NOT NULL,
  source         text NOT NULL,
  origin         text NOT NULL,
  destination    text NOT NULL,
  correlation_id uuid NOT NULL,
  causation_id   uuid,
  sent_in        text,
  created_at     timestamptz NOT NULL,
  xid            xid8 NOT NULL DEFAULT pg_current_xact_id(),
  PRIMARY KEY (destination, origin, id)
);
COMMENT ON TABLE voiding.transfer IS 'messages to services in other databases, and from them; append-only, purged by age';
COMMENT ON COLUMN voiding.transfer.aggregatetype IS 'of an event its source, of a command the service that is to handle it';
COMMENT ON COLUMN voiding.transfer.aggregateid IS 'the ordering key';
COMMENT ON COLUMN voiding.transfer.origin IS 'the database that it left, as it is called over there';
COMMENT ON COLUMN voiding.transfer.destination IS 'the connection: a service over there, or what this database is called by the origin';
COMMENT ON COLUMN voiding.transfer.sent_in IS 'the state of the process that sent it';
COMMENT ON COLUMN voiding.transfer.xid IS 'the transaction that wrote the row here; does not travel';
SELECT pg_catalog.pg_extension_config_dump('voiding.transfer', '');

CREATE FUNCTION voiding.arrive() RETURNS trigger
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_arrive';
COMMENT ON FUNCTION voiding.arrive() IS 'internal: what replication brings is put into the outbox, once; nothing else may come';
CREATE TRIGGER arrive BEFORE INSERT OR UPDATE OR DELETE ON voiding.transfer FOR EACH ROW EXECUTE FUNCTION voiding.arrive();
CREATE TRIGGER refuse BEFORE TRUNCATE ON voiding.transfer FOR EACH STATEMENT EXECUTE FUNCTION voiding.arrive();
ALTER TABLE voiding.transfer ENABLE REPLICA TRIGGER arrive, ENABLE REPLICA TRIGGER refuse;

-- How far a connection's receiver surely is: it has what transactions wrote that
-- the snapshot "confirmed" sees. Written by watch_connections(); apart from the
-- service, whose row everybody reads.
CREATE TABLE voiding.connection_progress (
  service      text PRIMARY KEY,
  home         text NOT NULL,
  timeline     integer NOT NULL,
  heard        boolean NOT NULL,
  missed       boolean NOT NULL,
  noted        pg_snapshot NOT NULL,
  noted_lsn    pg_lsn NOT NULL,
  noted_at     timestamptz NOT NULL,
  confirmed    pg_snapshot NOT NULL,
  confirmed_at timestamptz NOT NULL
);
COMMENT ON TABLE voiding.connection_progress IS 'how far the receivers of connections are';
COMMENT ON COLUMN voiding.connection_progress.home IS 'the cluster and database that it was connected in; a dump restored elsewhere does not send';
COMMENT ON COLUMN voiding.connection_progress.timeline IS 'of the WAL in which its slot was made';
COMMENT ON COLUMN voiding.connection_progress.heard IS 'false: after a promotion the receiver has not said how far it is';
COMMENT ON COLUMN voiding.connection_progress.missed IS 'no slot keeps, or kept, what is not confirmed: it must be sent again';
COMMENT ON COLUMN voiding.connection_progress.noted_lsn IS 'what the receiver must have confirmed, to have all that "noted" sees';
SELECT pg_catalog.pg_extension_config_dump('voiding.connection_progress', '');

CREATE FUNCTION voiding.home() RETURNS text
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$ SELECT format('%s/%s', c.system_identifier, d.oid) FROM pg_control_system() c, pg_database d WHERE d.datname = current_database() $$;
COMMENT ON FUNCTION voiding.home() IS 'internal';

CREATE FUNCTION voiding.timeline() RETURNS integer
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$ SELECT ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::integer $$;
COMMENT ON FUNCTION voiding.timeline() IS 'internal: it changes when a standby is promoted';

CREATE FUNCTION voiding.stream_name(sender text, receiver text) RETURNS name
  LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT format('voiding_%s_to_%s', sender, receiver)::name $$;
COMMENT ON FUNCTION voiding.stream_name(text, text) IS 'internal: of the publication and the slot over here, and the subscription over there';

-- ---- looking ----

-- One row a connection. What is unknown to who may not see subscriptions is null.
CREATE VIEW voiding.connection AS
  SELECT s.name AS service, s.known_as, format('voiding_%s_to_%s', s.known_as, s.name) AS slot,
         CASE WHEN r.confirmed_flush_lsn IS NULL THEN 'no slot' WHEN r.wal_status = 'lost' THEN 'lost'
              WHEN r.active THEN 'connected' ELSE 'waiting' END AS sending,
         pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END, r.confirmed_flush_lsn) AS behind_bytes, r.safe_wal_size AS bytes_until_lost,
         p.confirmed_at,
         u.subname AS subscription,
         CASE WHEN u.oid IS NULL THEN 'no subscription' WHEN NOT u.subenabled THEN 'disabled'
              WHEN w.pid IS NULL THEN 'down' ELSE 'running' END AS receiving,
         w.latest_end_time AS heard_at, e.apply_error_count AS apply_errors
    FROM voiding.service s
    LEFT JOIN voiding.connection_progress p ON p.service = s.name
    LEFT JOIN pg_replication_slots r ON r.slot_name = format('voiding_%s_to_%s', s.known_as, s.name) AND r.database = current_database()
    LEFT JOIN (SELECT x.oid, x.subname, x.subenabled FROM pg_subscription x JOIN pg_database d ON d.oid = x.subdbid AND d.datname = current_database()) u
           ON u.subname = format('voiding_%s_to_%s', s.name, s.known_as)
    LEFT JOIN LATERAL (SELECT x.pid, x.latest_end_time FROM pg_stat_subscription x WHERE x.subid = u.oid AND x.relid IS NULL
                        ORDER BY x.latest_end_time DESC NULLS LAST LIMIT 1) w ON true  -- it may have parallel workers
    LEFT JOIN pg_stat_subscription_stats e ON e.subid = u.oid
   WHERE s.known_as IS NOT NULL;
COMMENT ON VIEW voiding.connection IS 'services in other databases: how what leaves for them and what comes from them stands';
COMMENT ON COLUMN voiding.connection.behind_bytes IS 'WAL that the receiver has not confirmed; also what is of no interest to it';
COMMENT ON COLUMN voiding.connection.bytes_until_lost IS 'WAL that may still be written before the slot is lost; null: no limit';
COMMENT ON COLUMN voiding.connection.confirmed_at IS 'what was committed before that has arrived';
COMMENT ON COLUMN voiding.connection.apply_errors IS 'since the figures were reset; the server''s log has the errors';

CREATE VIEW voiding.under_way AS
  SELECT t.destination AS service, t.id, t.type, t.aggregateid AS subject, t.correlation_id, t.created_at, voiding.now() - t.created_at AS age
    FROM voiding.connection c
    JOIN voiding.connection_progress p USING (service)
    JOIN voiding.transfer t ON t.destination = c.service AND t.origin = c.known_as AND NOT pg_visible_in_snapshot(t.xid, p.confirmed)
   WHERE c.behind_bytes > 0 OR c.behind_bytes IS NULL OR p.missed;
COMMENT ON VIEW voiding.under_way IS 'messages that may not have arrived over there yet';

-- ---- what must be set ----

CREATE FUNCTION voiding.check_replication(slot name, subscription name) RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  slots integer := (SELECT count(*) FROM pg_replication_slots r WHERE r.slot_name <> slot);
  free  integer := current_setting('max_replication_slots')::integer - slots;
  workers integer := current_setting('max_logical_replication_workers')::integer - (SELECT count(*) FROM pg_subscription s WHERE s.subenabled AND s.subname <> subscription);
BEGIN
  IF current_setting('wal_level') <> 'logical' THEN
    RAISE EXCEPTION 'wal_level is "%": nothing can be sent', current_setting('wal_level')
      USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'ALTER SYSTEM SET wal_level = logical; then restart the server.';
  ELSIF least(free, current_setting('max_wal_senders')::integer - slots) < 1 THEN
    RAISE EXCEPTION 'no replication slot is free: max_replication_slots is %, max_wal_senders %', current_setting('max_replication_slots'), current_setting('max_wal_senders')
      USING ERRCODE = 'configuration_limit_exceeded', HINT = 'Each connection needs one of both, and one more slot to receive. A change needs a restart.';
  ELSIF EXISTS (SELECT FROM pg_replication_slots r WHERE r.slot_name = slot AND r.database IS DISTINCT FROM current_database()) THEN
    RAISE EXCEPTION 'replication slot "%" is another database''s', slot
      USING ERRCODE = 'duplicate_object', HINT = 'Each database of a cluster is known under a name of its own.';
  ELSIF subscription IS NOT NULL AND workers < 1 THEN
    RAISE EXCEPTION 'no worker is free to receive: max_logical_replication_workers is %', current_setting('max_logical_replication_workers')
      USING ERRCODE = 'configuration_limit_exceeded', HINT = 'One for each connection, out of max_worker_processes.';
  END IF;
  IF current_setting('wal_writer_delay')::interval > '10 ms' THEN
    RAISE NOTICE 'wal_writer_delay is %: what is committed without waiting for the disk leaves that late', current_setting('wal_writer_delay')
      USING HINT = 'ALTER SYSTEM SET wal_writer_delay = ''10ms''; SELECT pg_reload_conf();';
  END IF;
  IF current_setting('max_slot_wal_keep_size') = '-1' THEN
    RAISE NOTICE 'max_slot_wal_keep_size is -1: a receiver that stays away fills this server''s disk'
      USING HINT = 'With a limit its slot is lost instead, and what it missed is sent again.';
  END IF;
END $$;
COMMENT ON FUNCTION voiding.check_replication(name, name) IS 'internal';

-- ---- connecting ----

-- The service, what it takes, and the publication of what is for it.
CREATE FUNCTION voiding.make_connection(name text, known_as text, commands text[], events text[], owner text, after_commit boolean) RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
  s      voiding.service;
  stream name := voiding.stream_name(known_as, name);
  e      text;
BEGIN
  -- without the word "to": where a name ends must be seen in voiding_a_to_b
  PERFORM voiding.check_name('service', x, '^(?!(.*_)?to(_|$))[a-z_][a-z0-9_]{0,24}$') FROM unnest(ARRAY[name, known_as]) x;
  IF name = known_as OR name IN ('voiding', 'process', 'command', 'task', 'event', 'arrival') THEN
    RAISE EXCEPTION 'service name "%" is reserved', name
      USING ERRCODE = 'reserved_name', HINT = 'known_as is what this database is called over there, another name than that of the service.';
  END IF;
  INSERT INTO voiding.service (name, owner, known_as) VALUES (name, coalesce(owner, session_user), known_as) ON CONFLICT DO NOTHING;
  SELECT * INTO s FROM voiding.service x WHERE x.name = make_connection.name;
  IF s.known_as IS DISTINCT FROM known_as THEN
    RAISE EXCEPTION 'service "%" %', name, CASE WHEN s.known_as IS NULL THEN 'lives here' ELSE format('knows this database as "%s"', s.known_as) END
      USING ERRCODE = 'duplicate_object', HINT = 'Connect it with another name, or disconnect_service() it first.';
  END IF;
  UPDATE voiding.service x SET owner = coalesce(make_connection.owner, x.owner), after_commit = make_connection.after_commit WHERE x.name = make_connection.name;
  FOREACH e IN ARRAY events LOOP
    IF voiding.is_engine_event(e) THEN
      RAISE EXCEPTION 'event type "%" is the engine''s own and stays here', e USING ERRCODE = 'reserved_name';
    END IF;
  END LOOP;
  PERFORM voiding.definitions_changed();
  PERFORM voiding.remove_handler(h.kind, h.type, name) FROM voiding.handler h
    WHERE h.service = name AND h.type <> ALL (CASE h.kind WHEN 'command' THEN commands ELSE events END);
  PERFORM voiding.register_handler(x.kind, x.type, NULL, name, false)
    FROM (SELECT 'command', unnest(commands) UNION SELECT 'event', unnest(events)) x (kind, type)
   WHERE NOT EXISTS (SELECT FROM voiding.handler h WHERE (h.service, h.kind, h.type) = (name, x.kind, x.type));
  INSERT INTO voiding.connection_progress
  VALUES (name, voiding.home(), voiding.timeline(), true, true, pg_current_snapshot(), '0/0', now(), pg_current_snapshot(), now()) ON CONFLICT DO NOTHING;
  -- transaction ids of another cluster mean nothing here
  UPDATE voiding.connection_progress p SET home = voiding.home(), timeline = voiding.timeline(), heard = true, missed = true, noted = '1:1:', noted_lsn = '0/0', confirmed = '1:1:'
   WHERE p.service = make_connection.name AND p.home <> voiding.home();
  -- (a dump has the publication, but not that a table of an extension is in it)
  IF NOT EXISTS (SELECT FROM pg_publication_tables p WHERE (p.pubname, p.schemaname, p.tablename) = (stream, 'voiding', 'transfer')) THEN
    IF NOT EXISTS (SELECT FROM pg_publication p WHERE p.pubname = stream) THEN
      PERFORM voiding.drop_slot(stream);  -- it would look for it where it was not
      EXECUTE format('CREATE PUBLICATION %I WITH (publish = ''insert'')', stream);
    END IF;
    EXECUTE format('ALTER PUBLICATION %I SET TABLE voiding.transfer (id, aggregatetype, aggregateid, type, payload, source, origin,
                      destination, correlation_id, causation_id, sent_in, created_at) WHERE (origin = %L AND destination = %L)', stream, known_as, name);
    UPDATE voiding.connection_progress p SET missed = true WHERE p.service = make_connection.name;
  END IF;
  PERFORM voiding.note_missed(ARRAY[name]);
END $$;
COMMENT ON FUNCTION voiding.make_connection(text, text, text[], text[], text, boolean) IS 'internal';

-- Connections without a slot, or with one from before a promotion, have missed
-- something. That is committed before there is another, so that it is not
-- forgotten between that and sending again.
CREATE FUNCTION voiding.note_missed(services text[]) RETURNS void
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
  UPDATE voiding.connection_progress p SET missed = true FROM voiding.connection c
   WHERE p.service = ANY (services) AND c.service = p.service AND (c.sending IN ('lost', 'no slot') OR p.timeline <> voiding.timeline()) AND NOT p.missed
$$;
COMMENT ON FUNCTION voiding.note_missed(text[]) IS 'internal';

-- A transaction of its own: a slot is made only before anything is written, and
-- after its publication, which it could never find otherwise. One that a server
-- has from before its promotion is not trusted: it may have stood still there
-- for days, or be the work of somebody who has skipped what was not received.
CREATE FUNCTION voiding.make_slot(service text) RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  slot name := (SELECT voiding.stream_name(s.known_as, s.name) FROM voiding.service s WHERE s.name = service);
BEGIN
  LOCK TABLE voiding.connection_progress IN SHARE UPDATE EXCLUSIVE MODE;  -- one at a time
  PERFORM voiding.drop_slot(slot) FROM voiding.connection_progress p
    WHERE p.service = make_slot.service AND (p.timeline <> voiding.timeline()
       OR EXISTS (SELECT FROM pg_replication_slots r WHERE r.slot_name = slot AND r.database = current_database() AND r.wal_status = 'lost'));
  -- (one that is being made, and may fail, is none yet: an error)
  IF NOT EXISTS (SELECT FROM pg_replication_slots r WHERE r.slot_name = slot AND r.confirmed_flush_lsn IS NOT NULL) THEN
    PERFORM pg_create_logical_replication_slot(slot, 'pgoutput');
  END IF;
END $$;
COMMENT ON FUNCTION voiding.make_slot(text) IS 'internal';

-- Once more what may not have arrived: deleting rows does not travel, but their
-- coming again does. Over there those that have arrived are passed over.
CREATE FUNCTION voiding.resend(service text, since timestamptz DEFAULT NULL) RETURNS bigint
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
  n bigint;
BEGIN
  since := CASE WHEN since IS NOT NULL THEN greatest(since, 'epoch') END;
  WITH again AS (DELETE FROM voiding.transfer t USING voiding.service s, voiding.connection_progress p
                  WHERE s.name = service AND p.service = s.name AND t.destination = s.name AND t.origin = s.known_as
                    AND (NOT pg_visible_in_snapshot(t.xid, p.confirmed) OR t.id >= voiding.uuid_from(since))
                 RETURNING t.*)
  INSERT INTO voiding.transfer
    (id, aggregatetype, aggregateid, type, payload, source, origin, destination, correlation_id, causation_id, sent_in, created_at)
  SELECT a.id, a.aggregatetype, a.aggregateid, a.type, a.payload, a.source, a.origin, a.destination, a.correlation_id, a.causation_id, a.sent_in, a.created_at
    FROM again a ORDER BY a.id;
  GET DIAGNOSTICS n = ROW_COUNT;
  -- so that these are noted, too
  UPDATE voiding.connection_progress p SET confirmed_at = least(p.confirmed_at, since), noted_at = least(p.noted_at, p.confirmed_at, since)
   WHERE p.service = resend.service AND n > 0;
  RETURN n;
END $$;
COMMENT ON FUNCTION voiding.resend(text, timestamptz) IS
  'send again what has left for a service and may not have arrived, and what has left since then; what has arrived there has no effect; returns how many';

-- After make_slot(). After a promotion the receiver must have been heard of first.
CREATE FUNCTION voiding.send_missed(service text) RETURNS bigint
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  UPDATE voiding.connection_progress p SET timeline = voiding.timeline(), heard = false
    WHERE p.service = send_missed.service AND p.timeline <> voiding.timeline();
  UPDATE voiding.connection_progress p SET missed = false WHERE p.service = send_missed.service AND p.heard;
  RETURN CASE WHEN FOUND THEN voiding.resend(service) END;
END $$;
COMMENT ON FUNCTION voiding.send_missed(text) IS 'internal: how many messages; null: later';

CREATE FUNCTION voiding.tables_of(stream name) RETURNS oid[]
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT array_agg(r.srrelid) FROM pg_subscription s JOIN pg_subscription_rel r ON r.srsubid = s.oid JOIN pg_database d ON d.oid = s.subdbid
   WHERE s.subname = stream AND d.datname = current_database()
$$;
COMMENT ON FUNCTION voiding.tables_of(name) IS 'internal: what a subscription may write into';

-- False: the other side does not send to us yet.
CREATE FUNCTION voiding.make_subscription(service text, known_as text, conninfo text, synchronous_commit text) RETURNS boolean
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET client_min_messages = error
AS $$
DECLARE
  stream name := voiding.stream_name(service, known_as);
  tables oid[] := voiding.tables_of(stream);
BEGIN
  IF tables IS NULL THEN  -- nor is there any in one that was restored
    PERFORM voiding.remove_subscription(stream);
    EXECUTE format('CREATE SUBSCRIPTION %I CONNECTION %L PUBLICATION %I WITH (create_slot = false, copy_data = false, slot_name = %L, streaming = off, synchronous_commit = %L)',
                   stream, conninfo, stream, stream, synchronous_commit);
    tables := voiding.tables_of(stream);
  END IF;
  IF tables <> ARRAY['voiding.transfer'::regclass::oid] THEN
    RAISE EXCEPTION 'service "%" would write into other tables than voiding.transfer', service
      USING ERRCODE = 'insufficient_privilege', HINT = format('Publication "%s" over there must have this table only.', stream);
  ELSIF tables IS NOT NULL THEN
    EXECUTE format('ALTER SUBSCRIPTION %I CONNECTION %L', stream, conninfo);
    EXECUTE format('ALTER SUBSCRIPTION %I SET (synchronous_commit = %L)', stream, synchronous_commit);
    RETURN true;
  END IF;
  PERFORM voiding.remove_subscription(stream);
  RETURN false;
END $$;
COMMENT ON FUNCTION voiding.make_subscription(text, text, text, text) IS 'internal';

CREATE FUNCTION voiding.remove_subscription(stream name) RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF EXISTS (SELECT FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid WHERE s.subname = stream AND d.datname = current_database()) THEN
    EXECUTE format('ALTER SUBSCRIPTION %I DISABLE', stream);
    EXECUTE format('ALTER SUBSCRIPTION %I SET (slot_name = NONE)', stream);  -- the slot is the other side's
    EXECUTE format('DROP SUBSCRIPTION %I', stream);
  END IF;
END $$;
COMMENT ON FUNCTION voiding.remove_subscription(name) IS 'internal';

CREATE PROCEDURE voiding.connect_service(name text, conninfo text, known_as text, commands text[] DEFAULT '{}', events text[] DEFAULT '{}',
    owner regrole DEFAULT NULL, synchronous_commit text DEFAULT 'off')
  LANGUAGE plpgsql
AS $$
BEGIN
  PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
  PERFORM voiding.check_replication(voiding.stream_name(known_as, name), CASE WHEN conninfo IS NOT NULL THEN voiding.stream_name(name, known_as) END);
  PERFORM voiding.make_connection(name, known_as, coalesce(commands, '{}'), coalesce(events, '{}'), pg_get_userbyid(owner),
    synchronous_commit NOT IN ('off', 'local'));
  COMMIT;
  PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
  PERFORM voiding.make_slot(name);
  COMMIT;
  PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
  PERFORM voiding.send_missed(name) FROM voiding.connection_progress p WHERE p.service = name AND p.missed;
  IF conninfo IS NOT NULL AND NOT voiding.make_subscription(name, known_as, conninfo, synchronous_commit) THEN
    RAISE NOTICE 'service "%" does not send to "%" yet', name, known_as
      USING HINT = 'Connect this database over there, then call connect_service() here once more.';
  END IF;
END $$;
COMMENT ON PROCEDURE voiding.connect_service(text, text, text, text[], text[], regrole, text) IS
  'connect a service in another database, which connects this one: name: what it is called here; known_as: what this database is called there; commands, events: what it takes; owner: whose rights its commands have here (first: who connects); synchronous_commit: on, if this database has a synchronous standby; conninfo null: it only takes; again: change it, mend it';

-- ---- disconnecting ----

CREATE FUNCTION voiding.remove_connection(service text, known_as text) RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM voiding.drop_command(h.type) FROM voiding.handler h WHERE h.service = remove_connection.service AND h.kind = 'command';
  PERFORM voiding.unsubscribe(h.type, h.service) FROM voiding.handler h WHERE h.service = remove_connection.service;
  PERFORM voiding.remove_subscription(voiding.stream_name(service, known_as));
  EXECUTE format('DROP PUBLICATION IF EXISTS %I', voiding.stream_name(known_as, service));
  DELETE FROM voiding.connection_progress p WHERE p.service = remove_connection.service;
  DELETE FROM voiding.outbox o WHERE o.destination = remove_connection.service;
  DELETE FROM voiding.service s WHERE s.name = remove_connection.service;
  PERFORM voiding.definitions_changed();
END $$;
COMMENT ON FUNCTION voiding.remove_connection(text, text) IS 'internal';

-- also while the other side, that does not know yet, comes for it again and again
CREATE FUNCTION voiding.drop_slot(slot name) RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  FOR i IN 1 .. 200 LOOP
    BEGIN
      PERFORM pg_terminate_backend(r.active_pid) FROM pg_replication_slots r WHERE r.slot_name = slot AND r.database = current_database() AND r.active;
      PERFORM pg_drop_replication_slot(r.slot_name) FROM pg_replication_slots r WHERE r.slot_name = slot AND r.database = current_database();
      RETURN;
    EXCEPTION WHEN object_in_use THEN
      PERFORM pg_sleep(0.05);
    END;
  END LOOP;
  RAISE EXCEPTION 'replication slot "%" is in use', slot
    USING ERRCODE = 'object_in_use', HINT = 'disconnect_service() over there, then pg_drop_replication_slot() here.';
END $$;
COMMENT ON FUNCTION voiding.drop_slot(name) IS 'internal';

CREATE PROCEDURE voiding.disconnect_service(name text, discard boolean DEFAULT false, timeout interval DEFAULT '10 s')
  LANGUAGE plpgsql
AS $$
DECLARE
  s    voiding.service := voiding.get_service(name);
  slot pg_catalog.name;  -- qualified: search_path is the caller's as yet
  sent pg_catalog.pg_lsn;
  till pg_catalog.timestamptz := pg_catalog.clock_timestamp();
BEGIN
  PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
  IF s.known_as IS NULL THEN
    RAISE EXCEPTION 'service "%" lives here', name USING ERRCODE = 'wrong_object_type', HINT = 'drop_service() forgets it.';
  END IF;
  slot := voiding.stream_name(s.known_as, name);
  till := till + timeout;
  WHILE NOT discard LOOP
    IF sent IS NULL AND NOT EXISTS (SELECT FROM voiding.outbox o WHERE o.destination = name) THEN
      PERFORM pg_logical_emit_message(true, 'voiding', '');  -- so that there is something to confirm, behind all that was sent
      COMMIT;
      PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
      sent := pg_current_wal_insert_lsn();
    END IF;
    EXIT WHEN sent IS NOT NULL AND NOT EXISTS (SELECT FROM pg_replication_slots r WHERE r.slot_name = slot AND r.confirmed_flush_lsn < sent);
    IF clock_timestamp() > till THEN
      RAISE EXCEPTION 'service "%" has not confirmed all that was sent to it', name
        USING ERRCODE = 'object_in_use', HINT = 'voiding.connection says how far it is. With discard => true what it has not got is given up.';
    END IF;
    PERFORM pg_sleep(0.02);
  END LOOP;
  PERFORM voiding.remove_connection(name, s.known_as);
  COMMIT;
  PERFORM voiding.drop_slot(slot);
END $$;
COMMENT ON PROCEDURE voiding.disconnect_service(text, boolean, interval) IS
  'end a connection: waits until what left has arrived, unless it may be discarded; over there, end it too';

-- ---- keeping ----

-- After a promotion. A receiver may be ahead: it may have been sent what the
-- server that died did not bring to this one. What it has seen the end of it
-- asks for from there on, and what this server writes before that position is
-- passed over, unseen by anybody. So WAL goes beyond it, then what it may lack
-- is sent. A receiver says how far it is as soon as it is connected.
CREATE FUNCTION voiding.hear_receivers(services text[]) RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  c record;
  n bigint;
BEGIN
  FOR c IN SELECT p.service, r.confirmed_flush_lsn AS lsn FROM voiding.connection_progress p
             JOIN voiding.service s ON s.name = p.service
             JOIN pg_replication_slots r ON r.slot_name = voiding.stream_name(s.known_as, s.name)
             JOIN pg_stat_replication w ON w.pid = r.active_pid
            WHERE p.service = ANY (services) AND NOT p.heard AND p.timeline = voiding.timeline() AND w.reply_time IS NOT NULL LOOP
    IF pg_wal_lsn_diff(c.lsn, pg_current_wal_insert_lsn()) > 1024 * 1024 * 1024 THEN
      RAISE WARNING 'service "%" says that it has more than this server has written', c.service
        USING HINT = 'disconnect_service() over there, and connect it again: it is not the server that it was connected to.';
      CONTINUE;
    END IF;
    WHILE pg_current_wal_insert_lsn() <= c.lsn LOOP
      PERFORM pg_logical_emit_message(false, 'voiding', ''), pg_switch_wal();
    END LOOP;
    UPDATE voiding.connection_progress p SET heard = true WHERE p.service = c.service;
    n := voiding.send_missed(c.service);
    RAISE LOG 'after a promotion % messages for service "%" are sent again', n, c.service;
  END LOOP;
END $$;
COMMENT ON FUNCTION voiding.hear_receivers(text[]) IS 'internal';

-- Note how far receivers are; returns services that have missed something (see
-- make_slot, send_missed), and null for those that have not been heard of. What a snapshot sees is in WAL before the place that
-- is read after it; who is locked is noted the next time.
CREATE FUNCTION voiding.watch_connections() RETURNS SETOF text
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  seen pg_snapshot := pg_current_snapshot();
  lsn  pg_lsn := pg_current_wal_insert_lsn();
  free text[] := (SELECT array_agg(x.service) FROM (SELECT p.service FROM voiding.connection_progress p WHERE p.home = voiding.home() FOR UPDATE SKIP LOCKED) x);
BEGIN
  PERFORM voiding.note_missed(free);
  PERFORM voiding.hear_receivers(free);
  UPDATE voiding.connection_progress p
     SET confirmed = p.noted, confirmed_at = p.noted_at, noted = seen, noted_at = now(), noted_lsn = lsn
    FROM voiding.service s JOIN pg_replication_slots r ON r.slot_name = voiding.stream_name(s.known_as, s.name)
   WHERE p.service = ANY (free) AND NOT p.missed AND s.name = p.service AND r.confirmed_flush_lsn >= p.noted_lsn
     -- has anything left since? The last one is found by the index, at once
     AND (SELECT t.id FROM voiding.transfer t WHERE t.destination = s.name AND t.origin = s.known_as ORDER BY t.id DESC LIMIT 1) >= voiding.uuid_from(p.confirmed_at);
  RETURN QUERY SELECT CASE WHEN p.heard OR p.timeline <> voiding.timeline() OR c.sending IN ('lost', 'no slot') THEN p.service END
                 FROM voiding.connection_progress p JOIN voiding.connection c USING (service) WHERE p.service = ANY (free) AND p.missed;
END $$;
COMMENT ON FUNCTION voiding.watch_connections() IS 'internal';

-- maintain() calls it. Over there they are kept for twice as long, so that what
-- is sent again is known again.
CREATE FUNCTION voiding.purge_transfers() RETURNS void
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
  DELETE FROM voiding.transfer t USING voiding.service s JOIN voiding.connection_progress p ON p.service = s.name
   WHERE t.destination = s.name AND t.origin = s.known_as AND pg_visible_in_snapshot(t.xid, p.confirmed) AND p.home = (SELECT voiding.home())
     AND t.id < voiding.uuid_from(voiding.now() - make_interval(days => current_setting('voiding.transfer_retention')::integer));
  DELETE FROM voiding.transfer t
   WHERE t.id < voiding.uuid_from(voiding.now() - 2 * make_interval(days => current_setting('voiding.transfer_retention')::integer))
     AND NOT EXISTS (SELECT FROM voiding.service s WHERE t.destination = s.name AND t.origin = s.known_as);
$$;
COMMENT ON FUNCTION voiding.purge_transfers() IS 'internal';
