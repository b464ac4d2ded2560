-- The duty designer of doc/privilege.md at work.
BEGIN;
SELECT plan(8);

CREATE ROLE regress_designer;
\set grants `awk '/^-- designer: /{on=1} !/^(-- |GRANT |  [a-z])/{on=0} on && !/^--/' doc/privilege.md | sed -E 's/ TO ([a-z_]+);/ TO regress_\1;/'`
:grants

SET LOCAL ROLE regress_designer;
SELECT is(voiding.create_process_type('regress_type',
  '{"key": "id", "start": {"RegressStarted": "Open"},
    "states": {"Open": {"on": {"RegressClosed": "Closed"}, "after": {"P1D": "Closed"}}, "Closed": {"type": "final"}}}'), 1, 'designer makes a process type');
SELECT throws_ok($$ SELECT voiding.create_process_type('regress_bad', '{"key": "id"}') $$, 'VD22A', NULL, 'a wrong one is refused');
SELECT lives_ok($$ SELECT * FROM voiding.check_definition('{"key": "id"}') $$, 'designer checks a definition');
SELECT alike(voiding.diagram('regress_type'), 'stateDiagram%', 'designer draws it');
SELECT throws_ok($$ INSERT INTO voiding.transition SELECT * FROM voiding.transition $$, '42501', NULL, 'designer does not write the tables');
SELECT throws_ok($$ SELECT voiding.definitions_changed() $$, '42501', NULL, 'designer calls nothing internal');
RESET ROLE;
SELECT is((SELECT created_by FROM voiding.process_type WHERE name = 'regress_type'), 'regress_designer', 'who made it is written down');
SET LOCAL ROLE regress_designer;
SELECT lives_ok($$ SELECT voiding.drop_process_type('regress_type') $$, 'designer drops it');

RESET ROLE;
SELECT * FROM finish();
ROLLBACK;
