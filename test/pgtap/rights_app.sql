-- The duties app, publisher and loader of doc/privilege.md at work.
-- By hand: handlers run in the transaction of the test.
BEGIN;
SELECT plan(21);

CREATE ROLE regress_app; CREATE ROLE regress_publisher; CREATE ROLE regress_loader;
\set grants `awk '/^-- (app|publisher|loader): /{on=1} !/^(-- |GRANT |  [a-z])/{on=0} on && !/^--/' doc/privilege.md | sed -E 's/ TO ([a-z_]+);/ TO regress_\1;/'`
:grants

SET LOCAL ROLE regress_app;
SELECT is((billing.issue_document('D1', 'C1', 10)).status, 'issued', 'app issues');
SELECT lives_ok($$ SELECT billing.issue_document('D2', 'C1', 5) $$, 'and issues another one');
SELECT lives_ok($$ SELECT billing.void_document('D1', 'wrong') $$, 'app voids');
SELECT throws_ok($$ SELECT * FROM billing.document $$, '42501', NULL, 'app does not read documents');
SELECT throws_ok($$ UPDATE billing.document SET status = 'voided' $$, '42501', NULL, 'app does not change documents');
SELECT throws_ok($$ SELECT billing.complete_document_voiding('D1', gen_random_uuid()) $$, '42501', NULL, 'app does not call a handler');
SELECT throws_ok($$ SELECT billing.abort_document_voiding('D1', gen_random_uuid(), 'x') $$, '42501', NULL, 'nor the other one');
SELECT throws_ok($$ SELECT billing.lock_for('D1', gen_random_uuid()) $$, '42501', NULL, 'nor a helper');
SELECT throws_ok($$ SELECT reports.publish_report('C1') $$, '42501', NULL, 'app does not publish');
SELECT throws_ok($$ SELECT * FROM voiding.event $$, '42501', NULL, 'app does not read the engine''s tables');
SELECT throws_ok($$ SELECT voiding.dispatch() $$, '42501', NULL, 'app does not dispatch');
RESET ROLE;
SELECT is((SELECT requested_by FROM billing.document WHERE document_id = 'D1'), 'regress_app',
  'who asked for the voiding is app, not the owner of the function');
SELECT is((SELECT count(*)::int FROM voiding.event WHERE actor = 'regress_app'), 3, 'app is the actor of the three events');
SELECT cmp_ok(voiding.dispatch(), '>', 0, 'the messages are handled');
SELECT is((SELECT status FROM billing.document WHERE document_id = 'D1'), 'voided', 'and the document is voided');

SET LOCAL ROLE regress_publisher;
SELECT is((SELECT total FROM reports.publish_report('C1')), 5::numeric, 'publisher publishes');
SELECT throws_ok($$ SELECT reports.release_document('D2', gen_random_uuid()) $$, '42501', NULL, 'publisher does not call handlers');
SELECT throws_ok($$ SELECT * FROM reports.report_line $$, '42501', NULL, 'publisher does not read the lines');

SET LOCAL ROLE regress_loader;
SELECT lives_ok($$ INSERT INTO billing.document (document_id, customer_id, amount) SELECT 'L' || i, 'C2', i FROM generate_series(1, 3) i $$,
  'loader inserts');
SELECT throws_ok($$ INSERT INTO billing.document (document_id, customer_id, amount, status, voided_at) VALUES ('L9', 'C2', 1, 'voided', now()) $$,
  '22023', NULL, 'but no document that is voided already');
RESET ROLE;
SELECT is((SELECT count(*)::int FROM voiding.event WHERE actor = 'regress_loader' AND type = 'DocumentIssued'), 3,
  'and events are written, with loader as actor');

SELECT * FROM finish();
ROLLBACK;
