-- dispatch.sql: running handlers by hand, and waiting.

CREATE FUNCTION voiding.dispatch(service text DEFAULT NULL, batch_size integer DEFAULT NULL) RETURNS integer
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_dispatch';
COMMENT ON FUNCTION voiding.dispatch(text, integer) IS
  'one round by hand: deadlines, parked events, then up to batch_size messages and what follows from them; returns how many';

CREATE FUNCTION voiding.command_failed(process_id uuid, message_id uuid, command text, sent_in text, sent_at timestamptz, error text,
    source text, key text) RETURNS void
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_command_failed';
COMMENT ON FUNCTION voiding.command_failed(uuid, uuid, text, text, timestamptz, text, text, text) IS 'internal: a command was given up by hand';

CREATE FUNCTION voiding.wait_until_idle(timeout interval) RETURNS boolean
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_wait_until_idle';
COMMENT ON FUNCTION voiding.wait_until_idle(interval) IS
  'wait until others have handled every message; false: not in this time';

CREATE PROCEDURE voiding.await_idle(timeout interval)
  LANGUAGE c AS 'MODULE_PATHNAME', 'voiding_await_idle';
COMMENT ON PROCEDURE voiding.await_idle(interval) IS
  'the same, but commits first and holds no snapshot while it sleeps; 57014 after timeout';

CREATE FUNCTION voiding.check_snapshot() RETURNS void
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_check_snapshot';
COMMENT ON FUNCTION voiding.check_snapshot() IS
  'under REPEATABLE READ and SERIALIZABLE: error 40001 if anything was committed since the transaction''s snapshot';
