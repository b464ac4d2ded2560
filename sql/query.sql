-- query.sql: queries: functions that are read by name, with the rights of
-- whoever asks.
--
-- A query is a row of voiding.handler, kind 'query': no table of its own.

CREATE FUNCTION voiding.create_query(name text, function regproc, service text DEFAULT NULL) RETURNS void
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_as_engine';
COMMENT ON FUNCTION voiding.create_query(text, regproc, text) IS
  'a query and the STABLE function that answers it; run_query() and GET /queries/{name} read it';

CREATE FUNCTION voiding.do_create_query(name text, function regproc, service text) RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  f        pg_proc;
  is_wrong text;
BEGIN
  SELECT * INTO f FROM pg_proc p WHERE p.oid = function;
  is_wrong := CASE
    WHEN function IS NULL THEN 'there is none'
    WHEN f.provolatile = 'v' THEN 'it is VOLATILE'
    WHEN f.prorettype = 'void'::regtype THEN 'it returns nothing'
    WHEN f.prorettype IN (SELECT t.oid FROM pg_type t WHERE t.typtype = 'p') AND (f.proargmodes && '{t}') IS NOT TRUE
      THEN 'it returns a pseudo-type'
    WHEN f.proretset AND f.prolang IN (SELECT l.oid FROM pg_language l WHERE l.lanname IN ('c', 'internal'))
      THEN 'it returns a set and is written in C' END;
  IF is_wrong IS NOT NULL THEN
    RAISE EXCEPTION '% cannot answer a query: %', coalesce(function::text, 'the function'), is_wrong
      USING ERRCODE = 'invalid_parameter_value', HINT = 'A query is answered by a STABLE or IMMUTABLE function that returns something.';
  END IF;
  PERFORM voiding.register_handler('query', name, function, service, false);
END $$;
COMMENT ON FUNCTION voiding.do_create_query(text, regproc, text) IS 'internal';

CREATE FUNCTION voiding.drop_query(name text) RETURNS void
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_as_engine';
COMMENT ON FUNCTION voiding.drop_query(text) IS 'forget a query; its function stays';

CREATE FUNCTION voiding.do_drop_query(name text) RETURNS void
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$ SELECT voiding.remove_handler('query', name, NULL) $$;
COMMENT ON FUNCTION voiding.do_drop_query(text) IS 'internal';

CREATE FUNCTION voiding.run_query(name text, arguments jsonb DEFAULT '{}') RETURNS jsonb
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_run_query';
COMMENT ON FUNCTION voiding.run_query(text, jsonb) IS
  'read a query, arguments by name, with the caller''s rights; of a function that returns a set an array';
