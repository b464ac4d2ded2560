-- The life of a task: claims, which are leases; deadlines and expiry; the same
-- action twice; status events. With the bugs of others.
\set ECHO none
\i test/lib/database.sql
CALL test.by_hand();
SET client_min_messages = warning;
DROP ROLE IF EXISTS regress_crew, regress_anna, regress_bert, regress_lead;
CREATE ROLE regress_crew; CREATE ROLE regress_lead;
CREATE ROLE regress_anna IN ROLE regress_crew; CREATE ROLE regress_bert IN ROLE regress_crew;
GRANT USAGE ON SCHEMA voiding TO regress_crew; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA voiding TO regress_crew;
GRANT SELECT ON ALL TABLES IN SCHEMA voiding TO regress_crew;
SELECT voiding.create_service('field');
CREATE FUNCTION field.has_hours(outcome jsonb) RETURNS text LANGUAGE sql AS $$ SELECT CASE WHEN NOT outcome ? 'hours' THEN 'say the hours' END $$;
SELECT voiding.create_task_type('visit', '{"title": "$.event.what", "roles": ["regress_crew"], "skills": "$.event.skills", "form_factors": "$.event.form", "excluded": "$.event.not",
  "priority": "$.event.p", "due": "P1D", "expire": "P9D", "lease": "PT15M", "made_by": {"Wanted": {"key": "$.event.id"}}, "check_outcome": "field.has_hours",
  "deadlines": {"PT4H": {"priority": 50}, "PT8H": {"assign_roles": ["regress_lead"], "emit": "VisitLate"}}, "events": {"completed": "VisitDone", "resumed": null}}', 'field');
CREATE FUNCTION wanted(id text, more jsonb DEFAULT '{}') RETURNS uuid LANGUAGE plpgsql AS $$
BEGIN
  PERFORM voiding.emit('Wanted', id, jsonb_build_object('id', id) || more, 'field');
  PERFORM voiding.dispatch();
  RETURN (SELECT task_id FROM voiding.task t WHERE t.key = id AND ended_at IS NULL);
END $$;
-- what an error says, without ids
CREATE FUNCTION try(sql text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  detail text;
BEGIN
  EXECUTE 'SELECT ' || sql;
  RETURN 'done';
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
  RETURN regexp_replace(concat_ws(': ', SQLSTATE, SQLERRM, CASE WHEN detail LIKE '{%' THEN (SELECT jsonb_build_object('owner', d -> 'owner', 'state', d -> 'state') FROM (SELECT detail::jsonb) x (d))::text
                                                               WHEN detail NOT LIKE '% at %' THEN nullif(detail, '') END), '[0-9a-f-]{36}', 'ID', 'g');
END $$;
CREATE VIEW said AS SELECT type, source, subject, data - '{task_id,version,type,process_id}'::text[] AS data FROM voiding.event WHERE type ~ '^(Task|Visit)' ORDER BY position;
GRANT SELECT ON said TO regress_crew;

-- ---- from hand to hand ----
SELECT wanted('v1') AS t \gset
SET ROLE regress_anna;
SELECT state, owner, version, until - updated_at BETWEEN '14 min' AND '16 min' AS lease FROM voiding.claim_task(:'t');
SELECT * FROM voiding.task_actions(:'t');
SELECT state, until - updated_at > '29 min' AS longer FROM voiding.extend_claim(:'t', '30 min');
SELECT state, owner FROM voiding.start_task(:'t');
SELECT state, owner, until FROM voiding.suspend_task(:'t', reason => 'no parts');
SELECT state, reason, until IS NOT NULL AS lease FROM voiding.resume_task(:'t');
SELECT state, owner, until FROM voiding.release_task(:'t', 'too far away');
SELECT * FROM voiding.task_actions(:'t');
SET ROLE regress_bert;
SELECT state, owner FROM voiding.claim_task(:'t');
SELECT try(format($$voiding.complete_task(%L, '{"x": 1}')$$, :'t'));
SELECT state, owner, outcome, ended_at IS NOT NULL AS ended, wake_at, deadlines FROM voiding.complete_task(:'t', '{"hours": 2, "x": null}');
SELECT try(format($$voiding.complete_task(%L, '{"hours": 2}')$$, :'t'));
SELECT try(format($$voiding.claim_task(%L)$$, :'t'));
SELECT * FROM voiding.task_actions(:'t');
RESET ROLE;
SELECT * FROM said;

-- ---- the same action twice, another content, an old version ----
SELECT wanted('v2') AS t \gset
\set a '11111111-1111-1111-1111-111111111111'
\set b '22222222-2222-2222-2222-222222222222'
SET ROLE regress_anna;
SELECT state, version FROM voiding.claim_task(:'t', :'a');
SELECT state, version FROM voiding.claim_task(:'t', :'a');
SELECT try(format($$voiding.fail_task(%L, 'x', %L)$$, :'t', :'a'));
SELECT state, version FROM voiding.start_task(:'t', :'b', 2);
SELECT state, version FROM voiding.claim_task(:'t', :'a');
SELECT try(format($$voiding.fail_task(%L, 'x', version => 2)$$, :'t'));
SELECT state, reason FROM voiding.fail_task(:'t', 'no such house', version => 3);
SET ROLE regress_bert;
-- ids are everybody's own
SELECT try(format($$voiding.claim_task(%L, %L)$$, :'t', :'a'));
-- next_task() too
RESET ROLE;
SELECT count(wanted('n' || i)) FROM generate_series(1, 2) i;
SET ROLE regress_bert;
SELECT key FROM voiding.next_task(action_id => :'b');
SELECT key FROM voiding.next_task(action_id => :'b');
SELECT key FROM voiding.next_task();
SELECT task_id FROM voiding.next_task();
SELECT count(voiding.fail_task(task_id, 'x')) FROM voiding.my_task;
RESET ROLE;
SELECT action, version FROM voiding.task_action ORDER BY at;

-- ---- the order of urgency; skills, devices (dynamics#2834: choosing looks at skills too), capacity ----
SELECT wanted('s1', '{"p": 9, "skills": ["welder"]}') IS NOT NULL, wanted('s2', '{"p": 8, "form": ["tablet"]}') IS NOT NULL, wanted('s3', '{"p": 1}') IS NOT NULL, wanted('s4', '{"p": 2}') IS NOT NULL;
SELECT key, voiding.why_not(task_id, 'regress_anna') FROM voiding.task WHERE key LIKE 's%' ORDER BY key;
SELECT voiding.set_worker_profile('regress_anna', '{cook}', '{phone,tablet}', 2);
SET ROLE regress_anna;
SET voiding.form_factor = 'phone';
SELECT key FROM voiding.available_task ORDER BY -priority, due_at, task_id;
SELECT key FROM voiding.next_task();
RESET voiding.form_factor;
SELECT key FROM voiding.available_task ORDER BY -priority, due_at, task_id;
SELECT key FROM voiding.next_task(types => '{other}');
SELECT key FROM voiding.next_task(form_factor => 'desk');
SELECT task_id FROM voiding.next_task();
SELECT try(format('voiding.claim_task(%L)', task_id)) FROM voiding.task WHERE key = 's2';
SELECT voiding.why_not(task_id) FROM voiding.task WHERE key = 's2';
-- pages of a list
SELECT key FROM voiding.task WHERE key LIKE 's%' AND (-priority, due_at, task_id) > (SELECT -priority, due_at, task_id FROM voiding.task WHERE key = 's2') ORDER BY -priority, due_at, task_id LIMIT 1;
RESET ROLE;
SELECT key FROM voiding.skill_gap;
SELECT type, role, ready, taken, overdue FROM voiding.task_queue ORDER BY 1, 2;
SELECT voiding.drop_worker_profile('regress_anna');
SELECT voiding.set_worker_profile('regress_nobody');
SELECT voiding.set_worker_profile('regress_anna', capacity => -1);

-- ---- kie-issues#2059: who is excluded may not, though a member of the group ----
SELECT wanted('x1', '{"not": ["regress_anna"]}') AS t \gset
SET ROLE regress_anna;
SELECT try(format($$voiding.claim_task(%L)$$, :'t'));
RESET ROLE;
SET ROLE regress_bert;
SELECT state FROM voiding.claim_task(:'t');
RESET ROLE;

-- ---- camunda-bpm-platform#4865: who has lost a claim cannot complete ----
SELECT wanted('c1') AS t \gset
SET ROLE regress_anna;
SELECT state, version FROM voiding.claim_task(:'t');
RESET ROLE;
SET voiding.clock_offset = 901;
SELECT voiding.dispatch() > 0 AS some;
SELECT state, owner, reason FROM voiding.task WHERE key = 'c1';
SET ROLE regress_bert;
SELECT state, owner FROM voiding.claim_task(:'t');
SET ROLE regress_anna;
SELECT try(format($$voiding.complete_task(%L, '{"hours": 1}')$$, :'t'));
SELECT try(format($$voiding.complete_task(%L, '{"hours": 1}', version => 2)$$, :'t'));
SET ROLE regress_bert;
SELECT state, owner FROM voiding.complete_task(:'t', '{"hours": 1}');
RESET ROLE;
SELECT type, data ->> 'owner' AS owner, data ->> 'reason' AS reason FROM said WHERE subject = 'c1';

-- ---- by itself: suspended until, deadlines, expiry ----
SELECT count(voiding.cancel_task(task_id)) FROM voiding.task WHERE ended_at IS NULL;
SET voiding.clock_offset = 0;
SELECT wanted('d1') AS t \gset
SET ROLE regress_anna;
SELECT state FROM voiding.claim_task(:'t');
SELECT state FROM voiding.suspend_task(:'t', voiding.now() + interval '3 hours', 'closed for lunch');
RESET ROLE;
SET voiding.clock_offset = 10900;
SELECT voiding.dispatch();
SELECT state, owner, priority FROM voiding.task WHERE key = 'd1';
SET voiding.clock_offset = 14500;
-- the lease has run out, and then the first deadline
SELECT voiding.dispatch();
SELECT state, owner, priority, jsonb_array_length(deadlines) AS more FROM voiding.task WHERE key = 'd1';
SET ROLE regress_anna;
SELECT state FROM voiding.claim_task(:'t');
SELECT state FROM voiding.extend_claim(:'t', '10 hours');
RESET ROLE;
SET voiding.clock_offset = 28900;
SELECT voiding.dispatch();
-- it was taken away and given to the lead
SELECT state, owner, roles, priority, deadlines FROM voiding.task WHERE key = 'd1';
SELECT key FROM voiding.overdue_task;
SET voiding.clock_offset = 90000;
SELECT key FROM voiding.overdue_task;
SET voiding.clock_offset = 800000;
SELECT voiding.dispatch();
SELECT state, wake_at FROM voiding.task WHERE key = 'd1';
SELECT type, data ->> 'state' AS state, data ->> 'reason' AS reason FROM said WHERE subject = 'd1';

-- ---- JBPM-3661: what is done has no deadlines any more ----
SET voiding.clock_offset = 0;
SELECT wanted('j1') AS t \gset
SET ROLE regress_anna;
SELECT (voiding.claim_task(:'t')).wake_at IS NOT NULL AS wakes;
SELECT wake_at, deadlines, until FROM voiding.complete_task(:'t', '{"hours": 1}');
RESET ROLE;
SET voiding.clock_offset = 800000;
SELECT voiding.dispatch();
SELECT type FROM said WHERE subject = 'j1';
RESET voiding.clock_offset;

-- ---- one that cannot be woken does not stop the others ----
SELECT count(wanted('w' || i)) FROM generate_series(1, 3) i;
ALTER TABLE voiding.task ADD CONSTRAINT trap CHECK (key <> 'w2' OR priority <> 50);
SET voiding.clock_offset = 14500;
SELECT voiding.dispatch();
SELECT key, priority, wake_at > voiding.now() AS later FROM voiding.task WHERE key LIKE 'w%' ORDER BY key;
ALTER TABLE voiding.task DROP CONSTRAINT trap;
SET voiding.clock_offset = 14600;
SELECT voiding.dispatch();
SELECT key, priority FROM voiding.task WHERE key = 'w2';
SELECT * FROM voiding.check_invariants();
DROP OWNED BY regress_crew, regress_anna, regress_bert, regress_lead;
DROP ROLE regress_crew, regress_anna, regress_bert, regress_lead;
