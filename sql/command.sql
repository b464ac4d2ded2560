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

-- A cursor is a window between two snapshots, and how far one has come in it.
-- Every change is in exactly one window, whenever its transaction commits; a
-- command that has changed twice comes once, as it is by now.
CREATE FUNCTION voiding.command_changes(after text DEFAULT NULL, batch_size integer DEFAULT 100)
  RETURNS TABLE (cursor text, command voiding.command)
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  part  text[] := string_to_array(coalesce(after, ''), '/');
  since pg_snapshot := nullif(part[1], '')::pg_snapshot;
  until pg_snapshot := nullif(part[2], '')::pg_snapshot;
  seen  bigint := coalesce(nullif(part[3], '')::bigint, 0);
  n     integer := 0;
BEGIN
  IF after IS NOT NULL AND (since IS NULL OR cardinality(part) > 3) THEN
    RAISE invalid_text_representation;
  ELSIF pg_snapshot_xmax(since) > pg_snapshot_xmax(pg_current_snapshot()) THEN
    RAISE EXCEPTION 'the cursor is not of this server' USING ERRCODE = 'VD10A', HINT = 'Begin again without a cursor.';
  ELSIF batch_size < 1 THEN
    RAISE EXCEPTION 'batch_size must be at least 1' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  LOOP
    until := coalesce(until, pg_current_snapshot());
    FOR command IN
      SELECT c.* FROM voiding.command c
       WHERE c.xid >= coalesce(pg_snapshot_xmin(since), '0'::xid8) AND c.xid < pg_snapshot_xmax(until)
         AND pg_visible_in_snapshot(c.xid, until) AND NOT coalesce(pg_visible_in_snapshot(c.xid, since), false)
         AND c.seq > seen AND NOT c.gone
       ORDER BY c.seq LIMIT batch_size LOOP
      n := n + 1;
      cursor := format('%s/%s/%s', since, until, command.seq);
      RETURN NEXT;
    END LOOP;
    EXIT WHEN n > 0 OR part[2] IS NULL;
    since := until;              -- that window is done: the next one
    until := NULL;
    seen := 0;
    part[2] := NULL;
  END LOOP;
EXCEPTION WHEN invalid_text_representation OR numeric_value_out_of_range THEN
  RAISE EXCEPTION 'this is not a cursor: "%"', left(after, 100)
    USING ERRCODE = 'invalid_parameter_value', HINT = 'Give the last one that command_changes() returned.';
END $$;
COMMENT ON FUNCTION voiding.command_changes(text, integer) IS
  'the feed: commands of one''s own whose status has changed since the cursor; resume with the cursor of the last row';
