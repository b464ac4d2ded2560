-- The duty archivist of doc/privilege.md at work; nobody else reads the archive.
-- By hand: what is emitted here is in the transaction of the test.
BEGIN;
SELECT plan(17);

CREATE ROLE regress_archivist; CREATE ROLE regress_stranger; CREATE ROLE regress_redactor; CREATE ROLE regress_operator; CREATE ROLE regress_monitor;
\set grants `awk '/^-- (archivist|redactor|operator|monitor): /{on=1} !/^(-- |GRANT |  [a-z])/{on=0} on && !/^--/' doc/privilege.md | sed -E 's/ TO ([a-z_]+);/ TO regress_\1;/'`
:grants
GRANT USAGE ON SCHEMA voiding TO regress_stranger;

SELECT voiding.create_service('shop');
SELECT voiding.emit('Opened', 'X', '{"secret": 1}', 'shop') AS opened \gset
SELECT voiding.maintain();
SELECT voiding.emit('Closed', 'X', '{"secret": 2}', 'shop') AS closed \gset

SET LOCAL ROLE regress_archivist;
SELECT results_eq($$ SELECT type FROM voiding.history_of('X') $$, $$ VALUES ('Opened'), ('Closed') $$,
  'archivist reads a history, archived or not');
SELECT results_eq($$ SELECT type FROM voiding.archive WHERE subject = 'X' $$, $$ VALUES ('Opened') $$, 'and the archive');
SELECT throws_ok($$ SELECT * FROM voiding.event $$, '42501', NULL, 'but not the events themselves');
SELECT throws_ok($$ SELECT * FROM voiding.archive_p0 $$, '42501', NULL, 'nor the archive past its root');
SELECT throws_ok($$ INSERT INTO voiding.archive SELECT * FROM voiding.archive $$, '42501', NULL, 'archivist does not write');
SELECT throws_ok($$ UPDATE voiding.archive SET data = '{}' $$, '42501', NULL, 'nor change');
SELECT throws_ok($$ DELETE FROM voiding.archive $$, '42501', NULL, 'nor delete');
SELECT throws_ok($$ SELECT voiding.archive_events(1) $$, '42501', NULL, 'archivist does not archive');
SELECT throws_ok($$ SELECT voiding.lock_archive() $$, '42501', NULL, 'nor lock the archive');
SELECT throws_ok(format('SELECT voiding.redact_event(%L, %L)', :'opened', 'x'), '42501', NULL, 'nor redact');

SET LOCAL ROLE regress_stranger;
SELECT throws_ok($$ SELECT * FROM voiding.archive $$, '42501', NULL, 'a stranger does not read the archive');
SELECT throws_ok($$ SELECT * FROM voiding.history_of('X') $$, '42501', NULL, 'nor a history');
SET LOCAL ROLE regress_operator;
SELECT throws_ok($$ SELECT * FROM voiding.history_of('X') $$, '42501', NULL, 'an operator does not either');
SET LOCAL ROLE regress_monitor;
SELECT throws_ok($$ SELECT * FROM voiding.archive $$, '42501', NULL, 'nor does a monitor');

SET LOCAL ROLE regress_redactor;
SELECT throws_ok($$ SELECT * FROM voiding.archive $$, '42501', NULL, 'redactor does not read the archive');
SELECT lives_ok(format('SELECT voiding.redact_event(%L, %L)', :'opened', 'a person asked for it'), 'but redacts it');
RESET ROLE;
SELECT results_eq($$ SELECT data #>> '{redacted,by}' FROM voiding.history_of('X') $$, $$ VALUES ('regress_redactor'), (NULL) $$,
  'the archive says by whom');

SELECT * FROM finish();
ROLLBACK;
