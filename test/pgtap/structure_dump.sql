-- What pg_dump and pg_upgrade depend on: tables and sequences that hold rows
-- are registered, no column holds an oid in disguise, and the services are
-- no members of the extension.
BEGIN;
SELECT plan(5);

CREATE TEMP TABLE member AS
  SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON d.refobjid = e.oid
   WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'voiding';

SELECT set_eq($$
    SELECT c.oid::regclass::text FROM member m JOIN pg_class c ON c.oid = m.objid
     WHERE m.classid = 'pg_class'::regclass AND c.relkind IN ('r', 'S') $$,
  $$ SELECT o::regclass::text FROM pg_extension e, unnest(e.extconfig) o WHERE e.extname = 'voiding' $$,
  'every member table and sequence that holds rows is registered for pg_dump, and nothing else');
SELECT is_empty($$ SELECT 1 FROM pg_extension e, unnest(e.extcondition) c WHERE e.extname = 'voiding' AND c <> '' $$,
  'and is dumped whole');
SELECT is_empty($$
  SELECT c.oid::regclass, a.attname, a.atttypid::regtype FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE n.nspname IN ('voiding', 'billing', 'reports') AND c.relkind IN ('r', 'p', 'v', 'm') AND a.attnum > 0
     AND a.atttypid IN ('oid'::regtype, 'regproc'::regtype, 'regprocedure'::regtype, 'regoper'::regtype, 'regoperator'::regtype,
                        'regclass'::regtype, 'regtype'::regtype, 'regrole'::regtype, 'regnamespace'::regtype, 'regconfig'::regtype,
                        'regdictionary'::regtype, 'regcollation'::regtype) $$,
  'no column is of a type that stops pg_upgrade');
SELECT is_empty($$
  SELECT pg_describe_object(m.classid, m.objid, 0) FROM member m
   CROSS JOIN LATERAL pg_identify_object(m.classid, m.objid, 0) i
   WHERE coalesce(i.schema, i.name) IN ('billing', 'reports') $$,
  'nothing of Billing and Reports is a member of the extension');
SELECT is_empty($$
  SELECT t.tgrelid::regclass, t.tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
   WHERE c.relnamespace = 'voiding'::regnamespace AND NOT t.tgisinternal AND t.tgtype & 4 <> 0 AND t.tgenabled <> 'R' $$,
  'no trigger of an engine table acts on INSERT: a restore''s COPY must not start anything');

SELECT * FROM finish();
ROLLBACK;
