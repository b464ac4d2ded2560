-- Everything that a user can see in psql says what it is. Partitions are
-- exempt: their root says it; so are the helpers of Billing and Reports.
BEGIN;
SELECT plan(4);

SELECT is_empty($$
  SELECT c.relname, c.relkind FROM pg_class c
   WHERE c.relnamespace = 'voiding'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'S') AND NOT c.relispartition
     AND coalesce(obj_description(c.oid, 'pg_class'), '') = '' $$,
  'every table, view and sequence of schema voiding has a comment');
SELECT is_empty($$
  SELECT p.oid::regprocedure FROM pg_proc p
   WHERE p.pronamespace = 'voiding'::regnamespace AND coalesce(obj_description(p.oid, 'pg_proc'), '') = '' $$,
  'every function of schema voiding has a comment');
SELECT is_empty($$
  SELECT t.typname FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
   WHERE t.typnamespace = 'voiding'::regnamespace AND t.typelem = 0 AND coalesce(c.relkind, 'c') = 'c'
     AND coalesce(obj_description(t.oid, 'pg_type'), obj_description(t.typrelid, 'pg_class'), '') = ''
  UNION ALL SELECT 'schema voiding' WHERE coalesce(obj_description('voiding'::regnamespace, 'pg_namespace'), '') = '' $$,
  'every type made for its own sake has a comment, and so has the schema');
SELECT is_empty($$
  SELECT c.oid::regclass::text FROM pg_class c
   WHERE c.relnamespace IN ('billing'::regnamespace, 'reports'::regnamespace) AND c.relkind IN ('r', 'v')
     AND coalesce(obj_description(c.oid, 'pg_class'), '') = ''
  UNION ALL
  SELECT t.typname FROM pg_type t
   WHERE t.typnamespace IN ('billing'::regnamespace, 'reports'::regnamespace) AND t.typtype = 'd'
     AND coalesce(obj_description(t.oid, 'pg_type'), '') = ''
  UNION ALL
  SELECT p.oid::regprocedure::text FROM pg_proc p
   WHERE p.pronamespace IN ('billing'::regnamespace, 'reports'::regnamespace)
     AND p.proname IN ('issue_document', 'void_document', 'complete_document_voiding', 'abort_document_voiding', 'check_invariants',
                       'publish_report', 'mark_document_as_voided', 'include_document', 'confirm_voided', 'release_document')
     AND coalesce(obj_description(p.oid, 'pg_proc'), '') = '' $$,
  'so has everything public of Billing and Reports');

SELECT * FROM finish();
ROLLBACK;
