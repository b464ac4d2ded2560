-- document_voiding.sql: the voiding process, made of billing.sql, reports.sql
-- and document_voiding.json, which the build puts in here.
--
-- What it makes are ordinary objects, no members of the extension: they are
-- dumped whole, and DROP EXTENSION refuses as long as they use the engine.

CREATE FUNCTION voiding.make_document_voiding(parts text[], billing name, reports name) RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $create$
DECLARE
  part   text;
  script text;
BEGIN
  FOREACH part IN ARRAY parts LOOP
    script := CASE part
    WHEN 'billing' THEN
$billing$
@@billing.sql@@
$billing$
    WHEN 'reports' THEN
$reports$
@@reports.sql@@
$reports$
    WHEN 'process' THEN
$process$
SELECT voiding.create_task_type('acknowledge_voiding_failure', '{
  "title": "$.process.failure", "deadlines": {"P3D": {"priority": 100, "emit": "VoidingFailureUnacknowledged"}}}', :'billing');
SELECT voiding.create_process_type('document_voiding',
$definition$
@@document_voiding.json@@
$definition$);
$process$
    WHEN 'far billing' THEN  -- from its processes: it says which one it asks for, so that this can be refused, and hears of its end by events
$far$
CREATE OR REPLACE TRIGGER document_voiding_requested AFTER UPDATE ON :"billing".document
  FOR EACH ROW EXECUTE FUNCTION voiding.emit_event('DocumentVoidingRequested', '@becomes=status=voiding_requested', '@correlation=process_id',
    'document_id', 'customer_id', 'currency', 'reason=void_reason', 'requested_by', 'requested_process=process_id');
SELECT voiding.drop_command('VoidDocument');
SELECT voiding.create_command('VoidDocument', format('%I.void_document', :'billing')::regproc, resource => '/documents/{document_id}',
  completed_by => 'DocumentVoided', failed_by => 'DocumentVoidingAborted');
$far$
    END;
    -- the variables of psql that the two files are written with
    script := replace(script, ':"billing"', quote_ident(billing));
    script := replace(script, ':''billing''', quote_literal(billing));
    script := replace(script, ':"reports"', quote_ident(reports));
    script := replace(script, ':''reports''', quote_literal(reports));
    EXECUTE script;
  END LOOP;
END $create$;
COMMENT ON FUNCTION voiding.make_document_voiding(text[], name, name) IS 'internal';

CREATE FUNCTION voiding.create_document_voiding(billing name DEFAULT 'billing', reports name DEFAULT 'reports') RETURNS void
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$ SELECT voiding.make_document_voiding('{billing,reports,process}', billing, reports) $$;
COMMENT ON FUNCTION voiding.create_document_voiding(name, name) IS
  'make the services Billing and Reports and the process that voids documents, in schemas of these names';

CREATE FUNCTION voiding.create_document_voiding_part(part text, billing name DEFAULT 'billing', reports name DEFAULT 'reports') RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF part IS NULL OR part NOT IN ('billing', 'reports', 'process') THEN
    RAISE EXCEPTION 'the voiding process has no part "%"', left(part, 100)
      USING ERRCODE = 'invalid_parameter_value', HINT = 'Its parts are billing, reports and process.';
  END IF;
  PERFORM voiding.make_document_voiding(CASE part WHEN 'billing' THEN '{billing,far billing}' ELSE ARRAY[part] END, billing, reports);
END $$;
COMMENT ON FUNCTION voiding.create_document_voiding_part(text, name, name) IS
  'make one part of it, billing, reports or process, where the others are in databases that connect_service() connects';

-- Made with the extension where nothing is in the way, and then detached from
-- it. Not if voiding.example is off. Not during a restore (whose session has set xmloption, as all scripts of
-- pg_dump do): there the dump brings the schemas and the rows.
DO $install$
DECLARE
  o record;
BEGIN
  IF (SELECT s.source FROM pg_settings s WHERE s.name = 'xmloption') = 'session' OR NOT current_setting('voiding.example')::boolean THEN
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
