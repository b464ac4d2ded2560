-- The voiding process made and owned by an ordinary role, as doc/privilege.md
-- says: the whole story, and no right that it does not need.
-- By hand: handlers run in the transaction of the test.
BEGIN;
SELECT plan(17);

CREATE ROLE regress_owner; CREATE ROLE regress_designer; CREATE ROLE regress_voiding_owner; CREATE ROLE regress_app;
CREATE ROLE regress_dispatcher;
\set grants `awk '/^-- (owner|designer|voiding_owner|dispatcher): /{on=1} !/^(-- |GRANT |  [a-z])/{on=0} on && !/^--/' doc/privilege.md | sed -E 's/ TO ([a-z_]+);/ TO regress_\1;/'`
:grants
GRANT regress_owner, regress_designer TO regress_voiding_owner;
SELECT format('GRANT CREATE ON DATABASE %I TO regress_voiding_owner', current_database()) AS g \gset
:g;

-- the superuser's own goes first: a command has one handler
SELECT voiding.drop_process_type('document_voiding');
SELECT voiding.unsubscribe(type, service) FROM voiding.handler WHERE kind = 'event';
SELECT voiding.drop_command(type) FROM voiding.handler WHERE kind = 'command';
SELECT voiding.drop_query(type) FROM voiding.handler WHERE kind = 'query';
SELECT voiding.drop_task_type(name) FROM voiding.task_type;
SELECT voiding.drop_service(name) FROM voiding.service;
SET LOCAL client_min_messages = warning;
DROP SCHEMA billing CASCADE;
DROP SCHEMA reports CASCADE;

SET LOCAL ROLE regress_voiding_owner;
SELECT lives_ok($$ SELECT voiding.create_document_voiding('regress_billing', 'regress_reports') $$, 'an ordinary role makes the voiding process');
GRANT USAGE ON SCHEMA regress_billing TO regress_app;
GRANT EXECUTE ON FUNCTION regress_billing.issue_document, regress_billing.void_document TO regress_app;
RESET ROLE;
SELECT set_eq($$ SELECT owner FROM voiding.service $$, ARRAY['regress_voiding_owner'], 'it owns the services');
SELECT is_empty($$
  SELECT p.oid::regprocedure::text FROM pg_proc p
   WHERE p.pronamespace IN ('regress_billing'::regnamespace, 'regress_reports'::regnamespace)
     AND p.proowner <> 'regress_voiding_owner'::regrole
  UNION ALL
  SELECT c.oid::regclass::text FROM pg_class c
   WHERE c.relnamespace IN ('regress_billing'::regnamespace, 'regress_reports'::regnamespace)
     AND c.relowner <> 'regress_voiding_owner'::regrole $$,
  'and every object in them');

SET LOCAL ROLE regress_app;
SELECT lives_ok($$ SELECT regress_billing.issue_document('D1', 'C1', 10), regress_billing.issue_document('D2', 'C1', 7) $$, 'app issues');
SET LOCAL ROLE regress_dispatcher;
SELECT cmp_ok(voiding.dispatch(), '>', 0, 'dispatcher dispatches');
SET LOCAL ROLE regress_app;
SELECT isnt(regress_billing.void_document('D1'), NULL, 'app voids');
SET LOCAL ROLE regress_dispatcher;
SELECT cmp_ok(voiding.dispatch(), '>', 0, 'dispatcher dispatches');
SET LOCAL ROLE regress_voiding_owner;
SELECT is((SELECT status FROM regress_billing.document WHERE document_id = 'D1'), 'voided', 'the document is voided');
SELECT is((SELECT total FROM regress_reports.publish_report('C1')), 7::numeric, 'the owner publishes');
SET LOCAL ROLE regress_app;
SELECT lives_ok($$ SELECT regress_billing.void_document('D2', 'too late') $$, 'app voids what has been published');
SET LOCAL ROLE regress_dispatcher;
SELECT cmp_ok(voiding.dispatch(), '>', 0, 'dispatcher dispatches');
SET LOCAL ROLE regress_app;
SELECT throws_ok($$ SELECT regress_billing.void_document('D2') $$, 'VD09B', NULL, 'that failed, and must be acknowledged first');
SET LOCAL ROLE regress_voiding_owner;
SELECT is_empty($$ SELECT * FROM regress_billing.check_invariants() $$, 'Billing holds');
SELECT is_empty($$ SELECT * FROM regress_reports.check_invariants() $$, 'Reports holds');
SELECT throws_ok($$ SELECT voiding.acknowledge_process_failure(gen_random_uuid()) $$, '42501', NULL, 'the owner is no operator');
SELECT throws_ok($$ UPDATE voiding.active_process SET state = 'x' $$, '42501', NULL, 'and does not write the engine''s tables');
RESET ROLE;
SELECT is_empty($$ SELECT * FROM voiding.check_invariants() $$, 'the engine holds');

SELECT * FROM finish();
ROLLBACK;
