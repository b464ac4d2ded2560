-- PUBLIC has no rights, and a new role can do nothing.
BEGIN;
SELECT plan(14);

CREATE TEMP TABLE ours AS SELECT oid, nspname AS schema FROM pg_namespace WHERE nspname IN ('voiding', 'billing', 'reports');
SELECT voiding.add_event_partition(20000000), voiding.add_finished_partition(voiding.uuid_from('2031-05-05'));

SELECT is_empty($$
  SELECT n.nspname, a.privilege_type FROM pg_namespace n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
   WHERE n.oid IN (SELECT oid FROM ours) AND a.grantee = 0 $$,
  'PUBLIC has no right on the schemas');
SELECT is_empty($$
  SELECT p.oid::regprocedure FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
   WHERE p.pronamespace IN (SELECT oid FROM ours) AND a.grantee = 0 $$,
  'PUBLIC may execute no function');
SELECT is_empty($$
  SELECT c.oid::regclass, a.privilege_type
    FROM pg_class c, aclexplode(coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner))) a
   WHERE c.relnamespace IN (SELECT oid FROM ours) AND a.grantee = 0
  UNION ALL
  SELECT t.attrelid::regclass, a.privilege_type FROM pg_attribute t JOIN pg_class c ON c.oid = t.attrelid, aclexplode(t.attacl) a
   WHERE c.relnamespace IN (SELECT oid FROM ours) AND a.grantee = 0 $$,
  'PUBLIC has no right on a table, view, sequence or column, on partitions made later neither');
SELECT is_empty($$
  SELECT p.oid::regprocedure, a.grantee::regrole FROM pg_proc p, aclexplode(p.proacl) a
   WHERE p.pronamespace IN (SELECT oid FROM ours) AND a.grantee <> p.proowner $$,
  'nobody else has been granted a function');

CREATE ROLE regress_nobody;
SELECT is_empty($$
  SELECT schema FROM ours WHERE has_schema_privilege('regress_nobody', oid, 'USAGE, CREATE')
  UNION ALL SELECT c.relname FROM pg_class c JOIN ours ON ours.oid = c.relnamespace
   WHERE CASE WHEN c.relkind = 'S' THEN has_sequence_privilege('regress_nobody', c.oid, 'USAGE, SELECT, UPDATE')
              WHEN c.relkind IN ('r', 'p', 'v') THEN has_any_column_privilege('regress_nobody', c.oid, 'SELECT, INSERT, UPDATE, REFERENCES')
                OR has_table_privilege('regress_nobody', c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER') END
  UNION ALL SELECT p.proname FROM pg_proc p JOIN ours ON ours.oid = p.pronamespace WHERE has_function_privilege('regress_nobody', p.oid, 'EXECUTE') $$,
  'a new role has no right anywhere');

-- and really cannot
SET LOCAL ROLE regress_nobody;
SELECT throws_ok($$ SELECT billing.issue_document('d', 'c', 1) $$, '42501', NULL, 'it cannot issue');
SELECT throws_ok($$ SELECT billing.void_document('d') $$, '42501', NULL, 'it cannot void');
SELECT throws_ok($$ INSERT INTO billing.document (document_id, customer_id, amount) VALUES ('d', 'c', 1) $$, '42501', NULL, 'it cannot insert');
SELECT throws_ok($$ SELECT * FROM voiding.event $$, '42501', NULL, 'it cannot read events');
SELECT throws_ok($$ SELECT voiding.dispatch() $$, '42501', NULL, 'it cannot dispatch');
SELECT throws_ok($$ SELECT voiding.emit('T', 's', '{}', 'billing') $$, '42501', NULL, 'it cannot emit');

-- USAGE alone is not enough either
RESET ROLE;
GRANT USAGE ON SCHEMA voiding, billing, reports TO regress_nobody;
SET LOCAL ROLE regress_nobody;
SELECT throws_ok($$ SELECT voiding.dispatch() $$, '42501', NULL, 'with USAGE it cannot dispatch');
SELECT throws_ok($$ SELECT voiding.engine_emit('ProcessFailureAcknowledged', 's', '{}', gen_random_uuid()) $$, '42501', NULL,
  'with USAGE it cannot call what is internal');
CREATE TEMP TABLE t (x int);
SELECT throws_ok($$ CREATE TRIGGER t AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION voiding.emit_event('DocumentVoided', 'x') $$,
  '42501', NULL, 'with USAGE it cannot put the capture trigger on a table of its own');

RESET ROLE;
SELECT * FROM finish();
ROLLBACK;
