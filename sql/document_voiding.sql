-- document_voiding.sql: the voiding process, made of billing.sql, reports.sql
-- and document_voiding.json, which the build puts in here.
--
-- What it makes are ordinary objects, no members of the extension: they are
-- dumped whole, and DROP EXTENSION refuses as long as they use the engine.

CREATE FUNCTION voiding.create_document_voiding(billing name DEFAULT 'billing', reports name DEFAULT 'reports') RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $create$
DECLARE
  script text;
BEGIN
  FOREACH script IN ARRAY ARRAY[
$billing$
@@billing.sql@@
$billing$,
$reports$
@@reports.sql@@
$reports$] LOOP
    -- the variables of psql that the two files are written with
    script := replace(script, ':"billing"', quote_ident(billing));
    script := replace(script, ':''billing''', quote_literal(billing));
    script := replace(script, ':"reports"', quote_ident(reports));
    script := replace(script, ':''reports''', quote_literal(reports));
    EXECUTE script;
  END LOOP;
  PERFORM voiding.create_process_type('document_voiding',
$definition$
@@document_voiding.json@@
$definition$);
END $create$;
COMMENT ON FUNCTION voiding.create_document_voiding(name, name) IS
  'make the services Billing and Reports and the process that voids documents, in schemas of these names';

-- Made with the extension where nothing is in the way, and then detached from
-- it. Not during a restore (whose session has set xmloption, as all scripts of
-- pg_dump do): there the dump brings the schemas and the rows.
DO $install$
DECLARE
  o record;
BEGIN
  IF (SELECT s.source FROM pg_settings s WHERE s.name = 'xmloption') = 'session' THEN
    RETURN;
  ELSIF to_regnamespace('billing') IS NOT NULL OR to_regnamespace('reports') IS NOT NULL THEN
    -- CREATE EXTENSION keeps notices to itself
    PERFORM set_config('client_min_messages', 'notice', true);
    RAISE NOTICE 'schema "billing" or "reports" exists: the voiding process was not made'
      USING HINT = 'SELECT voiding.create_document_voiding(''my_billing'', ''my_reports'');';
    RETURN;
  END IF;
  PERFORM voiding.create_document_voiding();
  FOR o IN SELECT d.classid, d.objid, i.type, i.identity
             FROM pg_depend d
             JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e',
                  LATERAL pg_identify_object(d.classid, d.objid, d.objsubid) i
            WHERE e.extname = 'voiding' AND coalesce(i.schema, i.name) IN ('billing', 'reports')
            ORDER BY d.classid = 'pg_type'::regclass, i.identity LIKE '%[]' LOOP
    -- from PostgreSQL 17 on, a type goes with its table and an array with its type
    CONTINUE WHEN NOT EXISTS (SELECT FROM pg_depend d
                               WHERE d.classid = o.classid AND d.objid = o.objid AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e');
    EXECUTE format('ALTER EXTENSION voiding DROP %s %s', o.type, o.identity);
  END LOOP;
END $install$;
