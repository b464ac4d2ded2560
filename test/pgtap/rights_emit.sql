-- Who speaks for whom: emit() and the capture trigger, with the rights of a
-- service owner and without.
-- By hand: handlers run in the transaction of the test.
BEGIN;
SELECT plan(12);

CREATE ROLE regress_owner; CREATE ROLE regress_ann; CREATE ROLE regress_kid; CREATE ROLE regress_bob;
GRANT regress_ann TO regress_kid;
\set grants `awk '/^-- owner: /{on=1} !/^(-- |GRANT |  [a-z])/{on=0} on && !/^--/' doc/privilege.md | sed -E 's/ TO ([a-z_]+);/ TO regress_\1;/'`
:grants
GRANT regress_owner TO regress_ann, regress_kid, regress_bob;
CREATE SCHEMA regress_ann AUTHORIZATION regress_ann;
CREATE SCHEMA regress_bob AUTHORIZATION regress_bob;

SET LOCAL ROLE regress_ann;
SELECT voiding.create_service('regress_ann');
SET LOCAL ROLE regress_kid;
SELECT lives_ok($$ SELECT voiding.emit('RegressA', 's', '{}', 'regress_ann') $$, 'a member of the owner speaks for the service');
SELECT throws_ok($$ SELECT voiding.emit('RegressA', 's', '{}') $$, '22023', NULL, 'outside a handler the source must be said');
SET LOCAL ROLE regress_bob;
SELECT throws_ok($$ SELECT voiding.emit('RegressA', 's', '{}', 'regress_ann') $$, '42501', NULL, 'another role does not');
SELECT throws_ok($$ SELECT voiding.emit('RegressA', 's', '{}', 'regress_bob') $$, '42704', NULL, 'a schema alone is no service');

-- the trigger speaks for the schema of its table
CREATE TABLE regress_bob.t (x int);
CREATE TRIGGER t AFTER INSERT ON regress_bob.t FOR EACH ROW EXECUTE FUNCTION voiding.emit_event('RegressB', 'x');
INSERT INTO regress_bob.t VALUES (1);
SELECT throws_ok($$ CREATE TRIGGER t AFTER INSERT ON billing.document FOR EACH ROW EXECUTE FUNCTION voiding.emit_event('RegressB', 'x') $$,
  '42501', NULL, 'nobody else puts a trigger on a service''s table');
RESET ROLE;
SELECT results_eq($$ SELECT source, actor FROM voiding.event WHERE type = 'RegressB' $$, $$ VALUES ('regress_bob', 'regress_bob') $$,
  'the event''s source is the schema, where that is no service');

-- a schema that has the name of a service, but is not its schema, is refused
CREATE SCHEMA regress_elsewhere AUTHORIZATION regress_ann;
SET LOCAL ROLE regress_ann;
SELECT voiding.create_service('regress_late', schema => 'regress_elsewhere');
RESET ROLE;
CREATE SCHEMA regress_late AUTHORIZATION regress_bob;
SET LOCAL ROLE regress_bob;
CREATE TABLE regress_late.t (x int);
CREATE TRIGGER t AFTER INSERT ON regress_late.t FOR EACH ROW EXECUTE FUNCTION voiding.emit_event('RegressB', 'x');
SELECT throws_ok($$ INSERT INTO regress_late.t VALUES (1) $$, '42501', NULL, 'a schema made later with a service''s name does not speak for it');
RESET ROLE;

-- the engine's own events are said by the engine only
SELECT billing.issue_document('D1', 'C1', 10);
SELECT voiding.dispatch();
SELECT reports.publish_report('C1');
SELECT billing.void_document('D1') AS p \gset
SELECT voiding.dispatch();
SELECT is((SELECT state FROM voiding.process WHERE process_id = :'p'), 'MarkingDocumentAsVoidedFailed', 'a process has failed');
SET LOCAL ROLE regress_ann;
SELECT throws_ok($$ SELECT voiding.emit('ProcessFailureAcknowledged', 's', '{"document_id": "D1"}', 'regress_ann') $$, NULL, NULL,
  'a service cannot say ProcessFailureAcknowledged');
CREATE TABLE regress_ann.f (document_id text);
CREATE TRIGGER f AFTER INSERT ON regress_ann.f FOR EACH ROW
  EXECUTE FUNCTION voiding.emit_event('ProcessFailureAcknowledged', 'document_id');
SELECT throws_ok($$ INSERT INTO regress_ann.f VALUES ('D1') $$, NULL, NULL, 'nor can its table');
RESET ROLE;
SELECT is((SELECT state FROM voiding.process WHERE process_id = :'p'), 'MarkingDocumentAsVoidedFailed', 'it still waits for a person');
SELECT is((SELECT state FROM voiding.task WHERE process_id = :'p'), 'ready', 'and its task is still open');

SELECT * FROM finish();
ROLLBACK;
