-- Who may do what to a task: every action by everybody in every state, tested.
-- And nobody sees a row that is not theirs, wherever they look.
-- By hand: handlers run in the transaction of the test.
BEGIN;
SELECT plan(31);

CREATE ROLE regress_worker; CREATE ROLE regress_supervisor;
\set grants `awk '/^-- (worker|supervisor): /{on=1} !/^(-- |GRANT |  [a-z])/{on=0} on && !/^--/' doc/privilege.md | sed -E 's/ TO ([a-z_]+);/ TO regress_\1;/'`
:grants

-- the service's owner, and its supervisor; two who do such work, of whom one
-- has the task; one who is excluded, one without the skill, one of another trade
CREATE ROLE regress_field; CREATE ROLE regress_fitters;
CREATE ROLE regress_boss IN ROLE regress_field, regress_worker, regress_supervisor;
CREATE ROLE regress_anna IN ROLE regress_fitters, regress_worker, regress_supervisor;
CREATE ROLE regress_bert IN ROLE regress_fitters, regress_worker, regress_supervisor;
CREATE ROLE regress_carl IN ROLE regress_fitters, regress_worker, regress_supervisor;
CREATE ROLE regress_dora IN ROLE regress_fitters, regress_worker, regress_supervisor;
CREATE ROLE regress_emil IN ROLE regress_worker, regress_supervisor;
SELECT voiding.set_worker_profile(r, '{electrician}') FROM unnest('{regress_anna,regress_bert,regress_carl,regress_emil}'::name[]) r;
SELECT voiding.create_service('regress_field', NULL, NULL), voiding.create_service('regress_shop');
SELECT voiding.drop_service('regress_field');
ALTER SCHEMA regress_field OWNER TO regress_field;
SELECT voiding.create_service('regress_field');
SELECT voiding.create_task_type('regress_wire', '{"roles": ["regress_fitters"], "skills": ["electrician"], "excluded": ["regress_carl"],
  "made_by": {"Wanted": {"key": "$.event.id"}}}', 'regress_field');
SELECT voiding.emit('Wanted', 'a', '{"id": "a"}', 'regress_shop');
SELECT voiding.dispatch();
SELECT task_id AS task FROM voiding.task WHERE type = 'regress_wire' \gset

-- one try, taken back: what became of it. The task is put into the state by the
-- engine, as anna's where that state has an owner.
CREATE FUNCTION pg_temp.try(who name, task uuid, in_state text, action text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  become text;
  made voiding.task;
BEGIN
  UPDATE voiding.task t SET state = in_state, said = NULL, owner = CASE WHEN in_state NOT IN ('ready', 'cancelled', 'expired') THEN 'regress_anna' END,
         until = voiding.now() + t.lease, ended_at = CASE WHEN in_state IN ('completed', 'failed', 'cancelled', 'expired') THEN voiding.now() END
   WHERE task_id = task;
  PERFORM set_config('role', who, true);
  BEGIN
    made := voiding.act_on_task(task, action, CASE action WHEN 'assign' THEN '{"role": "regress_bert", "reason": "x"}' ELSE '{}' END::jsonb);
    RAISE EXCEPTION '%', format('%s%s', made.state, ':' || made.owner) USING ERRCODE = 'ZZ000';
  EXCEPTION WHEN OTHERS THEN
    become := CASE SQLSTATE WHEN 'ZZ000' THEN SQLERRM ELSE SQLSTATE END;
  END;
  PERFORM set_config('role', 'none', true);
  RETURN become;
END $$;

-- by action: what it becomes for the one who may, in which states; who may
CREATE TEMP TABLE allowed (who name, action text, states text[], becomes text);
INSERT INTO allowed VALUES
  ('regress_anna', 'claim',    '{ready}',                               'claimed:regress_anna'),
  ('regress_bert', 'claim',    '{ready}',                               'claimed:regress_bert'),
  ('regress_anna', 'start',    '{claimed}',                             'in_progress:regress_anna'),
  ('regress_anna', 'suspend',  '{claimed,in_progress}',                 'suspended:regress_anna'),
  ('regress_anna', 'resume',   '{suspended}',                           'in_progress:regress_anna'),
  ('regress_anna', 'release',  '{claimed,in_progress,suspended}',       'ready'),
  ('regress_boss', 'release',  '{claimed,in_progress,suspended}',       'ready'),
  ('regress_anna', 'complete', '{claimed,in_progress}',                 'completed:regress_anna'),
  ('regress_anna', 'fail',     '{claimed,in_progress}',                 'failed:regress_anna'),
  ('regress_boss', 'assign',   '{ready,claimed,in_progress,suspended}', 'ready'),
  ('regress_anna', 'extend',   '{claimed}',                             'claimed:regress_anna'),
  ('regress_anna', 'extend',   '{in_progress}',                         'in_progress:regress_anna'),
  ('regress_boss', 'cancel',   '{ready}',                               'cancelled'),
  ('regress_boss', 'cancel',   '{claimed,in_progress,suspended}',       'cancelled:regress_anna');
CREATE TEMP TABLE tried AS
  SELECT w.who, a.action, s.state, coalesce(l.becomes, '-') AS wanted, pg_temp.try(w.who, :'task', s.state, a.action) AS became
    FROM unnest('{regress_boss,regress_anna,regress_bert,regress_carl,regress_dora,regress_emil}'::name[]) w (who)
   CROSS JOIN (SELECT DISTINCT action FROM voiding.task_transition UNION VALUES ('wibble')) a
   CROSS JOIN unnest('{ready,claimed,in_progress,suspended,completed,failed,cancelled,expired}'::text[]) s (state)
    LEFT JOIN allowed l ON l.who = w.who AND l.action = a.action AND s.state = ANY (l.states);

SELECT is((SELECT count(*)::int FROM tried), 6 * 15 * 8, 'every action by everybody in every state');
SELECT is_empty($$ SELECT * FROM tried WHERE wanted <> '-' AND became <> wanted $$, 'what is allowed is done');
SELECT is_empty($$ SELECT * FROM tried WHERE wanted = '-' AND became !~ '^(VD04E|VD09C|VD09D|42501|22023)$' $$, 'all else is refused');
SELECT set_eq($$ SELECT became FROM tried WHERE who IN ('regress_carl', 'regress_emil') $$, ARRAY['VD04E'], 'for one who is excluded, and one of another trade, there is no such task');
SELECT is((SELECT became FROM tried WHERE (who, action, state) = ('regress_dora', 'claim', 'ready')), '42501', 'without the skill it is there, and cannot be claimed');
SELECT set_eq($$ SELECT became FROM tried WHERE who IN ('regress_bert', 'regress_boss') AND action = 'claim' AND state IN ('claimed', 'in_progress', 'suspended') $$,
  ARRAY['VD09D'], 'one that is taken says so, to those who see it');
SELECT set_eq($$ SELECT became FROM tried WHERE who = 'regress_bert' AND action IN ('complete', 'fail', 'start', 'extend') AND state IN ('claimed', 'in_progress')
  AND (action, state) <> ('start', 'in_progress') $$, ARRAY['VD09C'], 'somebody else''s cannot be completed');
SELECT set_eq($$ SELECT became FROM tried WHERE who IN ('regress_anna', 'regress_bert') AND action IN ('cancel', 'assign') AND state IN ('ready', 'claimed') $$,
  ARRAY['42501'], 'assigning and cancelling are the supervisor''s');
SELECT set_eq($$ SELECT became FROM tried WHERE who = 'regress_boss' AND action IN ('expire', 'escalate', 'withdraw', 'create', 'wibble') $$, ARRAY['22023'],
  'what only the engine does nobody can call');

-- ---- who sees it ----

SELECT pg_temp.try('regress_anna', :'task', 'ready', 'wibble');  -- ready again, whichever was tried last
SET LOCAL ROLE regress_anna;
SELECT is((voiding.claim_task(:'task')).owner, 'regress_anna', 'anna has it');
SELECT throws_ok(format('SELECT voiding.why_not(%L, %L)', :'task', 'regress_bert'), '42501', NULL, 'a worker asks about herself only');
SELECT results_eq($$ SELECT role FROM voiding.worker_profile $$, ARRAY['regress_anna'], 'and sees her own profile only');
SELECT throws_ok($$ UPDATE voiding.task SET owner = NULL $$, '42501', NULL, 'nobody changes rows');
SELECT throws_ok($$ SELECT voiding.set_worker_profile('regress_anna', '{pilot}') $$, '42501', NULL, 'or gives herself skills');
SELECT throws_ok($$ SELECT voiding.create_task_type('regress_mine', '{}', 'regress_field') $$, '42501', NULL, 'or makes types');
RESET ROLE;

CREATE FUNCTION pg_temp.looks(who name) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  found text;
BEGIN
  PERFORM set_config('role', who, true);
  found := concat_ws(' ', (SELECT 'table' FROM voiding.task WHERE type = 'regress_wire'), (SELECT 'feed' FROM voiding.task_changes() WHERE (task).type = 'regress_wire'),
    (SELECT 'mine' FROM voiding.my_task), (SELECT 'available' FROM voiding.available_task), (SELECT 'overdue' FROM voiding.overdue_task),
    (SELECT 'gap' FROM voiding.skill_gap), (SELECT 'queue' FROM voiding.task_queue WHERE type = 'regress_wire'));
  PERFORM set_config('role', 'none', true);
  RETURN found;
END $$;
CREATE FUNCTION pg_temp.all_look() RETURNS TABLE (who text, sees text) LANGUAGE sql AS
  $$ SELECT substr(w, 9), pg_temp.looks(w) FROM unnest('{regress_anna,regress_bert,regress_boss,regress_carl,regress_dora,regress_emil}'::name[]) w $$;
-- what this very transaction has written is not in the feed
SELECT set_eq('SELECT * FROM pg_temp.all_look()',
  $$ VALUES ('anna', 'table mine queue'), ('bert', 'table queue'), ('boss', 'table queue'), ('carl', ''), ('dora', 'table queue'), ('emil', '') $$,
  'claimed: those of the role and the supervisor see it, the owner has it');
UPDATE voiding.task SET owner = NULL, state = 'ready', due_at = '2020-01-01', said = NULL WHERE task_id = :'task';
SELECT set_eq('SELECT * FROM pg_temp.all_look()',
  $$ VALUES ('anna', 'table available overdue queue'), ('bert', 'table available overdue queue'), ('boss', 'table overdue queue'), ('carl', ''),
            ('dora', 'table overdue queue'), ('emil', '') $$, 'ready: those who fit may take it; an excluded one sees nothing, though of the role');
UPDATE voiding.task SET skills = '{welder}', said = NULL WHERE task_id = :'task';
SELECT set_eq('SELECT * FROM pg_temp.all_look()',
  $$ VALUES ('anna', 'table overdue queue'), ('bert', 'table overdue queue'), ('boss', 'table overdue gap queue'), ('carl', ''),
            ('dora', 'table overdue queue'), ('emil', '') $$, 'a gap is shown to the supervisor');

-- the policy of the table and may_see() are one rule
SELECT is_empty(format($$ SELECT w FROM unnest('{regress_anna,regress_bert,regress_boss,regress_carl,regress_dora,regress_emil}'::name[]) w
  WHERE (pg_temp.looks(w) LIKE 'table%%') <> (SELECT voiding.may_see(t, voiding.person(w)) FROM voiding.task t WHERE task_id = %L) $$, :'task'), 'functions see what the policy shows');

-- ---- exclusion beats the group (four eyes), also of those who have it already ----

UPDATE voiding.task SET skills = '{}', state = 'claimed', owner = 'regress_carl', due_at = 'infinity', said = NULL WHERE task_id = :'task';
SET LOCAL ROLE regress_carl;
SELECT is((SELECT count(*)::int FROM voiding.my_task), 1, 'one who was excluded when he had it still sees it');
SELECT throws_ok(format('SELECT voiding.complete_task(%L)', :'task'), '42501', NULL, 'but cannot complete it');
SELECT is((voiding.release_task(:'task')).state, 'ready', 'and gives it back');
SELECT is((SELECT count(*)::int FROM voiding.task WHERE type = 'regress_wire'), 0, 'then it is gone from his sight');
SELECT is((voiding.next_task()).task_id, NULL, 'and is not chosen for him');
RESET ROLE;
UPDATE voiding.task SET excluded = '{regress_fitters}', said = NULL WHERE task_id = :'task';
SET LOCAL ROLE regress_anna;
SELECT is((SELECT count(*)::int FROM voiding.task WHERE type = 'regress_wire') + (SELECT count(*)::int FROM voiding.available_task), 0, 'a group can be excluded');
RESET ROLE;
SET LOCAL ROLE regress_boss;
SELECT is(voiding.why_not(:'task', 'regress_anna'), '{"\"regress_anna\" is excluded"}', 'the supervisor is told why');
SELECT throws_ok(format('SELECT voiding.assign_task(%L, %L)', :'task', 'regress_anna'), '42501', NULL, 'and cannot assign it to her');
SELECT throws_ok(format('SELECT voiding.assign_task(%L, %L)', :'task', 'regress_nobody'), '42704', NULL, 'nor to nobody');
RESET ROLE;

-- ---- a superuser is no member of everything ----

UPDATE voiding.task SET excluded = '{}', said = NULL WHERE task_id = :'task';
SELECT is((SELECT count(*)::int FROM voiding.available_task), 0, 'a superuser is no fitter');
SELECT is((voiding.cancel_task(:'task', 'no need')).reason, 'no need', 'but a supervisor');
SELECT throws_ok($$ SELECT voiding.act_on_task(gen_random_uuid(), 'claim') $$, 'VD04E', NULL, 'there is no such task');

SELECT * FROM finish();
ROLLBACK;
