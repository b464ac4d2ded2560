-- schema.sql: the engine's schema, its clock and its ids.
--
-- The schema is made here, not by the control file: were there one already,
-- somebody else would own it and what is in it.

CREATE SCHEMA voiding;
COMMENT ON SCHEMA voiding IS 'process manager: events, processes, outbox, commands, tasks';

CREATE SEQUENCE voiding.position;
COMMENT ON SEQUENCE voiding.position IS 'one order for events and messages; has gaps';
SELECT pg_catalog.pg_extension_config_dump('voiding.position', '');

CREATE FUNCTION voiding.now() RETURNS timestamptz
  LANGUAGE c VOLATILE PARALLEL SAFE AS 'MODULE_PATHNAME', 'voiding_now';
COMMENT ON FUNCTION voiding.now() IS 'the engine''s clock: the server''s, moved by voiding.clock_offset';

CREATE FUNCTION voiding.uuid() RETURNS uuid
  LANGUAGE c VOLATILE PARALLEL SAFE AS 'MODULE_PATHNAME', 'voiding_uuid';
COMMENT ON FUNCTION voiding.uuid() IS 'a new id, version 7: ids made later sort behind';

CREATE FUNCTION voiding.caller() RETURNS name
  LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'voiding_caller';
COMMENT ON FUNCTION voiding.caller() IS
  'who calls, also inside SECURITY DEFINER functions: in a handler its owner, else the role that was set or logged in';
