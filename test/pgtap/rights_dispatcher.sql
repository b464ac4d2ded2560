-- The duty dispatcher of doc/privilege.md at work: with no right but to listen
-- and to dispatch, it moves the voiding process from beginning to end.
-- By hand: handlers run in the transaction of the test.
BEGIN;
SELECT plan(12);

CREATE ROLE regress_dispatcher;
\set grants `awk '/^-- dispatcher: /{on=1} !/^(-- |GRANT |  [a-z])/{on=0} on && !/^--/' doc/privilege.md | sed -E 's/ TO ([a-z_]+);/ TO regress_\1;/'`
:grants

SELECT billing.issue_document('D1', 'C1', 10);
SELECT billing.void_document('D1');

SET LOCAL ROLE regress_dispatcher;
LISTEN voiding_billing;
LISTEN voiding_reports;
SELECT set_eq('SELECT pg_listening_channels()', '{}'::text[], 'LISTEN needs no right; it begins at commit');
SELECT cmp_ok(voiding.dispatch('reports'), '>', 0, 'dispatcher runs the handlers of Reports');
SELECT cmp_ok(voiding.dispatch('billing'), '>', 0, 'and those of Billing');
SELECT cmp_ok(voiding.dispatch(), '>', 0, 'and of all');
SELECT is(voiding.dispatch(), 0, 'until there is nothing more');
SELECT is(current_user::text, 'regress_dispatcher', 'and is still itself');
SELECT throws_ok($$ SELECT * FROM voiding.outbox $$, '42501', NULL, 'dispatcher does not read the outbox');
SELECT throws_ok($$ DELETE FROM voiding.outbox $$, '42501', NULL, 'nor delete from it');
SELECT throws_ok($$ SELECT reports.mark_document_as_voided('D1', gen_random_uuid()) $$, '42501', NULL, 'dispatcher does not call handlers');
SELECT throws_ok($$ SELECT voiding.discard_message(gen_random_uuid(), 'x') $$, '42501', NULL, 'dispatcher repairs nothing');
SELECT throws_ok($$ SELECT voiding.emit('T', 's', '{}', 'billing') $$, '42501', NULL, 'dispatcher says nothing');
RESET ROLE;
SELECT is((SELECT status FROM billing.document WHERE document_id = 'D1'), 'voided', 'the document is voided');

SELECT * FROM finish();
ROLLBACK;
