-- command.sql: commands that somebody waits for: accepted, then processed or
-- failed.
--
-- One row is the record of the idempotency key, the status, the link to the
-- process and the result; its id is the correlation id of all that follows,
-- and the id of the process that it starts. The final status is written in
-- the commit that ends the work. Commands that processes send have no row.

CREATE TABLE voiding.command (
  command_id      uuid PRIMARY KEY,
  type            text NOT NULL,
  status          text NOT NULL,
  data            jsonb NOT NULL,
  result          jsonb,
  error           jsonb,
  resource        text,
  process_id      uuid,
  accepted_at     timestamptz NOT NULL,
  finished_at     timestamptz,
  caller          text NOT NULL,
  idempotency_key text,
  not_before      timestamptz,
  start_by        timestamptz,
  bucket          smallint NOT NULL,
  seq             bigint NOT NULL,
  xid             xid8 NOT NULL,
  gone            boolean NOT NULL
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX command_key ON voiding.command (caller, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX command_link ON voiding.command (process_id) WHERE status = 'running';
CREATE INDEX command_changed ON voiding.command (xid);
-- for those who poll the resource itself (hash: an address may be long)
CREATE INDEX command_resource ON voiding.command USING hash (resource) WHERE status IN ('accepted', 'running') AND resource IS NOT NULL;
COMMENT ON TABLE voiding.command IS 'commands that were sent with send_command(), and what became of them; everybody sees their own';
COMMENT ON COLUMN voiding.command.command_id IS 'correlation id of what follows from it, and the id of the process that it starts';
COMMENT ON COLUMN voiding.command.status IS 'accepted, running; processed, failed, cancelled, expired, which never change';
COMMENT ON COLUMN voiding.command.error IS 'of a failed one: a problem (RFC 9457)';
COMMENT ON COLUMN voiding.command.resource IS 'where its result can be read once it is processed';
COMMENT ON COLUMN voiding.command.process_id IS 'the process whose end it waits for';
COMMENT ON COLUMN voiding.command.caller IS 'the role that sent it; keys are each caller''s own';
COMMENT ON COLUMN voiding.command.not_before IS 'it is not started before';
COMMENT ON COLUMN voiding.command.start_by IS 'it expires if it has not been started by then';
COMMENT ON COLUMN voiding.command.xid IS 'the transaction that changed it last, for command_changes()';
COMMENT ON COLUMN voiding.command.gone IS 'a tombstone: data and result are no more';
SELECT pg_catalog.pg_extension_config_dump('voiding.command', '');

-- A role sees its own commands, and those of roles that it is a member of.
ALTER TABLE voiding.command ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON voiding.command
  USING (caller = current_user OR pg_has_role(current_user, to_regrole(quote_ident(caller)), 'MEMBER'));

CREATE FUNCTION voiding.send_command(type text, data jsonb, idempotency_key text DEFAULT NULL, not_before timestamptz DEFAULT NULL,
    start_by timestamptz DEFAULT NULL) RETURNS uuid
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_send_command';
COMMENT ON FUNCTION voiding.send_command(text, jsonb, text, timestamptz, timestamptz) IS
  'send a command to the service that handles it; returns its id; the same key and content again: the same command';

CREATE FUNCTION voiding.problem(sqlstate text, detail text, hint text DEFAULT NULL, instance text DEFAULT NULL) RETURNS jsonb
  LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'voiding_problem';
COMMENT ON FUNCTION voiding.problem(text, text, text, text) IS 'an error as a problem of RFC 9457; its member status is that of HTTP';

CREATE FUNCTION voiding.sender() RETURNS text
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_sender';
COMMENT ON FUNCTION voiding.sender() IS 'in the handler of a command that was sent with send_command(): the role that sent it; else null';

CREATE FUNCTION voiding.end_command(command_id uuid, status text) RETURNS boolean
  LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'voiding_end_command';
COMMENT ON FUNCTION voiding.end_command(uuid, text) IS 'internal';

-- ---- looking ----

CREATE FUNCTION voiding.command_status(command_id uuid) RETURNS voiding.command
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_as_engine';
COMMENT ON FUNCTION voiding.command_status(uuid) IS
  'a command as it is now: accepted, running, processed, failed, cancelled or expired; VD04D: no such command, VD10A: gone';

CREATE FUNCTION voiding.do_command_status(command_id uuid) RETURNS voiding.command
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  c voiding.command;
BEGIN
  SELECT * INTO c FROM voiding.command x WHERE x.command_id = do_command_status.command_id;
  -- whose id one has guessed one is not told of
  IF NOT FOUND OR NOT (c.caller = voiding.caller() OR coalesce(pg_has_role(voiding.caller(), to_regrole(quote_ident(c.caller)), 'MEMBER'), false)) THEN
    RAISE EXCEPTION 'there is no command %', command_id USING ERRCODE = 'VD04D';
  ELSIF c.gone THEN
    RAISE EXCEPTION 'command % is gone', command_id
      USING ERRCODE = 'VD10A', DETAIL = format('It was %s at %s.', c.status, c.finished_at), HINT = 'voiding.command_retention says how long commands are kept.';
  END IF;
  RETURN c;
END $$;
COMMENT ON FUNCTION voiding.do_command_status(uuid) IS 'internal';

CREATE FUNCTION voiding.wait_final(command_id uuid, timeout interval, seen_by text[]) RETURNS boolean
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_wait_final';
COMMENT ON FUNCTION voiding.wait_final(uuid, interval, text[]) IS 'internal: wait_for_command()';

CREATE FUNCTION voiding.wait_for_command(command_id uuid, timeout interval, seen_by text[] DEFAULT NULL) RETURNS voiding.command
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_as_engine';
COMMENT ON FUNCTION voiding.wait_for_command(uuid, interval, text[]) IS
  'wait until a command has its final status, and return it as it is then or after timeout; seen_by: services whose handlers shall have seen all events of it';

CREATE FUNCTION voiding.do_wait_for_command(command_id uuid, timeout interval, seen_by text[]) RETURNS voiding.command
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM voiding.do_command_status(command_id);
  PERFORM voiding.wait_final(command_id, timeout, seen_by);
  RETURN voiding.do_command_status(command_id);
END $$;
COMMENT ON FUNCTION voiding.do_wait_for_command(uuid, interval, text[]) IS 'internal';

CREATE PROCEDURE voiding.execute(type text, data jsonb, timeout interval, idempotency_key text DEFAULT NULL, INOUT command voiding.command DEFAULT NULL)
  LANGUAGE c AS 'MODULE_PATHNAME', 'voiding_execute';
COMMENT ON PROCEDURE voiding.execute(text, jsonb, interval, text, voiding.command) IS
  'send a command, commit, wait for its final status without a snapshot, and return it as it is then or after timeout';

-- ---- more of sending ----

CREATE FUNCTION voiding.send_commands(commands jsonb) RETURNS TABLE (item integer, command_id uuid, error jsonb)
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  c jsonb;
  hint text;
BEGIN
  IF jsonb_typeof(commands) IS DISTINCT FROM 'array' THEN
    RAISE EXCEPTION 'commands are an array of objects' USING ERRCODE = 'VD22B',
      HINT = '[{"type": ..., "data": {...}, "idempotency_key": ..., "not_before": ..., "start_by": ...}, ...]';
  END IF;
  FOR c, item IN SELECT x.value, x.ordinality FROM jsonb_array_elements(commands) WITH ORDINALITY x LOOP
    BEGIN
      error := NULL;
      command_id := voiding.send_command(c ->> 'type', c -> 'data', c ->> 'idempotency_key',
                                         (c ->> 'not_before')::timestamptz, (c ->> 'start_by')::timestamptz);
    EXCEPTION WHEN OTHERS THEN
      GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
      command_id := NULL;
      error := voiding.problem(SQLSTATE, SQLERRM, nullif(hint, ''));
    END;
    RETURN NEXT;
  END LOOP;
END $$;
COMMENT ON FUNCTION voiding.send_commands(jsonb) IS
  'send many: an array of objects with the arguments of send_command(); each is accepted or refused by itself';

-- Best effort: what is being handled, or has moved a process, goes on.
CREATE FUNCTION voiding.cancel_command(command_id uuid, reason text DEFAULT NULL) RETURNS voiding.command
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_as_engine';
COMMENT ON FUNCTION voiding.cancel_command(uuid, text) IS
  'take a command back that has not been started; returns it as it is then: cancelled, or what it was';

CREATE FUNCTION voiding.do_cancel_command(command_id uuid, reason text) RETURNS voiding.command
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  c voiding.command := voiding.do_command_status(command_id);
  m voiding.outbox;
BEGIN
  -- whoever handles it holds its message first and then its row: never wait for that here
  SELECT * INTO m FROM voiding.outbox o
   WHERE o.bucket = c.bucket AND o.seq = c.seq AND o.id = c.command_id FOR UPDATE SKIP LOCKED;
  IF FOUND AND voiding.end_command(command_id, 'cancelled') THEN
    DELETE FROM voiding.outbox o WHERE o.bucket = m.bucket AND o.xid = m.xid AND o.seq = m.seq;
    PERFORM voiding.note_repair('MessageDiscarded', m, 'cancelled: ' || coalesce(reason, 'no reason given'));
  END IF;
  RETURN voiding.do_command_status(command_id);
END $$;
COMMENT ON FUNCTION voiding.do_cancel_command(uuid, text) IS 'internal';

-- ---- how long it will take ----

-- From the type's own past: the median time of its last 100 that were
-- processed. And from the queue: how many messages of its service are in front
-- of it, times the time between two that ended while there was a queue, which
-- is taken to be the lower quartile of the times between the last 100.
CREATE FUNCTION voiding.estimate_command(command_id uuid) RETURNS timestamptz
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_as_engine';
COMMENT ON FUNCTION voiding.estimate_command(uuid) IS
  'when a command will probably be done, from the past of its type and the queue in front of it; null: nothing is known yet';

CREATE FUNCTION voiding.do_estimate_command(command_id uuid) RETURNS timestamptz
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  c voiding.command := voiding.do_command_status(command_id);
  ahead bigint;
  took  double precision;
  gap   double precision;
BEGIN
  IF c.finished_at IS NOT NULL THEN
    RETURN c.finished_at;
  END IF;
  SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY x.took), percentile_cont(0.25) WITHIN GROUP (ORDER BY x.gap)
    INTO took, gap
    FROM (SELECT extract(epoch FROM p.finished_at - greatest(p.accepted_at, p.not_before)) AS took,
                 extract(epoch FROM p.finished_at - lag(p.finished_at) OVER (ORDER BY p.finished_at)) AS gap
            FROM (SELECT r.* FROM (SELECT * FROM voiding.command y ORDER BY y.command_id DESC LIMIT 2000) r
                   WHERE r.type = c.type AND r.status = 'processed' ORDER BY r.command_id DESC LIMIT 100) p) x;
  SELECT count(*) INTO ahead
    FROM voiding.outbox o
    JOIN voiding.handler h ON h.service = o.destination AND h.kind = 'command' AND h.type = c.type
   WHERE c.status = 'accepted' AND o.seq < c.seq AND o.available_at <= voiding.now();
  IF took IS NULL THEN
    RETURN NULL;
  END IF;
  RETURN greatest(c.accepted_at + make_interval(secs => took), voiding.now(), c.not_before)
         + make_interval(secs => ahead * coalesce(gap, 0));
END $$;
COMMENT ON FUNCTION voiding.do_estimate_command(uuid) IS 'internal';

-- ---- the feed ----

-- A cursor is a window between two snapshots, and how far one has come in it.
-- Every change is in exactly one window, whenever its transaction commits; what
-- has changed twice comes once, as it is by now. The changes of the reader's
-- own transaction are in a later window, with what it does next.
CREATE TYPE voiding.feed_window AS (since pg_snapshot, until pg_snapshot, seen text, is_last boolean);
COMMENT ON TYPE voiding.feed_window IS 'a cursor of a feed, read';

CREATE FUNCTION voiding.feed_window(after text, batch_size integer, pattern text) RETURNS voiding.feed_window
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  part text[] := string_to_array(after, '/');
  w    voiding.feed_window;
BEGIN
  BEGIN
    w.since := nullif(part[1], '');
    w.until := part[2];
    w.seen := part[3];
    IF after = '' OR w.until IS NULL AND after IS NOT NULL OR cardinality(part) <> 3 OR w.seen !~ pattern THEN
      RAISE invalid_text_representation;
    END IF;
  EXCEPTION WHEN invalid_text_representation OR numeric_value_out_of_range THEN
    RAISE EXCEPTION 'this is not a cursor: "%"', left(after, 100)
      USING ERRCODE = 'invalid_parameter_value', HINT = 'Give the last one that the feed has returned.';
  END;
  IF pg_snapshot_xmax(w.until) > pg_snapshot_xmax(pg_current_snapshot()) THEN
    RAISE EXCEPTION 'the cursor is not of this server' USING ERRCODE = 'VD10A', HINT = 'Begin again without a cursor.';
  ELSIF batch_size < 1 THEN
    RAISE EXCEPTION 'batch_size must be at least 1' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  w.is_last := after IS NULL;
  RETURN voiding.end_of_window(w);
END $$;
COMMENT ON FUNCTION voiding.feed_window(text, integer, text) IS 'internal';

CREATE FUNCTION voiding.end_of_window(w voiding.feed_window) RETURNS voiding.feed_window
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  own xid8 := pg_current_xact_id_if_assigned();
BEGIN
  w.until := coalesce(w.until, pg_current_snapshot());
  IF pg_visible_in_snapshot(own, w.until) THEN  -- it is not over
    w.until := (SELECT format('%s:%s:%s', min(x::text::bigint), pg_snapshot_xmax(w.until), string_agg(x::text, ',' ORDER BY x))
                  FROM (SELECT own UNION SELECT pg_snapshot_xip(w.until)) r(x));
  END IF;
  RETURN w;
END $$;
COMMENT ON FUNCTION voiding.end_of_window(voiding.feed_window) IS 'internal';

-- that window is done: the one from there to now, which is the last
CREATE FUNCTION voiding.next_window(w voiding.feed_window) RETURNS voiding.feed_window
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$ SELECT voiding.end_of_window((w.until, NULL, NULL, true)) $$;
COMMENT ON FUNCTION voiding.next_window(voiding.feed_window) IS 'internal';

CREATE FUNCTION voiding.command_changes(after text DEFAULT NULL, batch_size integer DEFAULT 100)
  RETURNS TABLE (cursor text, command voiding.command)
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_as_engine';
COMMENT ON FUNCTION voiding.command_changes(text, integer) IS
  'the feed: commands of one''s own whose status has changed since the cursor; resume with the cursor of the last row';

CREATE FUNCTION voiding.do_command_changes(after text, batch_size integer) RETURNS TABLE (cursor text, command voiding.command)
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  me   name := voiding.caller();
  w    voiding.feed_window := voiding.feed_window(after, batch_size, '^[0-9]{1,18}$');
  seen bigint;
  n    integer := 0;
BEGIN
  LOOP
    seen := coalesce(w.seen, '0');
    FOR command IN
      SELECT c.* FROM voiding.command c
       WHERE c.xid >= coalesce(pg_snapshot_xmin(w.since), '0'::xid8) AND c.xid < pg_snapshot_xmax(w.until)
         AND pg_visible_in_snapshot(c.xid, w.until) AND NOT coalesce(pg_visible_in_snapshot(c.xid, w.since), false)
         AND c.seq > seen AND NOT c.gone AND (c.caller = me OR pg_has_role(me, to_regrole(quote_ident(c.caller)), 'MEMBER'))
       ORDER BY c.seq LIMIT batch_size LOOP
      n := n + 1;
      cursor := format('%s/%s/%s', w.since, w.until, command.seq);
      RETURN NEXT;
    END LOOP;
    EXIT WHEN n > 0 OR w.is_last;
    w := voiding.next_window(w);
  END LOOP;
END $$;
COMMENT ON FUNCTION voiding.do_command_changes(text, integer) IS 'internal';

-- ---- keeping ----

-- maintain() calls it. A tombstone answers for the key, and says when it was
-- what; it goes after ten times the time.
CREATE FUNCTION voiding.forget_commands() RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  keep interval := make_interval(days => current_setting('voiding.command_retention')::integer);
BEGIN
  UPDATE voiding.command c SET gone = true, data = '{}', result = NULL, error = NULL, resource = NULL
   WHERE c.command_id < voiding.uuid_from(voiding.now() - keep) AND c.finished_at < voiding.now() - keep AND NOT c.gone;
  DELETE FROM voiding.command c
   WHERE c.command_id < voiding.uuid_from(voiding.now() - 10 * keep) AND c.finished_at < voiding.now() - 10 * keep AND c.gone;
END $$;
COMMENT ON FUNCTION voiding.forget_commands() IS 'internal';
