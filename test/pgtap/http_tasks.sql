-- Tasks over http(): lists in pages, one task with its tag, actions that may
-- come twice or too late, what is refused and how, the feed.
-- By hand: handlers run in the transaction of the test.
BEGIN;
SELECT plan(111);

CREATE ROLE regress_front_end; CREATE ROLE regress_worker; CREATE ROLE regress_supervisor;
\set grants `awk '/^-- (front_end|worker|supervisor): /{on=1} !/^(-- |GRANT |  [a-z])/{on=0} on && !/^--/' doc/privilege.md | sed -E 's/ TO ([a-z_]+);/ TO regress_\1;/'`
:grants
CREATE ROLE regress_field; CREATE ROLE regress_fitters;
CREATE ROLE regress_boss IN ROLE regress_field, regress_worker, regress_supervisor, regress_front_end;
CREATE ROLE regress_anna IN ROLE regress_fitters, regress_worker, regress_front_end;
CREATE ROLE regress_bert IN ROLE regress_fitters, regress_worker, regress_front_end;
CREATE ROLE regress_web IN ROLE regress_fitters, regress_front_end;
CREATE ROLE regress_emil IN ROLE regress_worker, regress_front_end;
SELECT voiding.set_worker_profile('regress_anna', '{electrician}', '{phone,desk}'), voiding.set_worker_profile('regress_bert', '{}', '{phone}');
SELECT voiding.create_service('regress_field', 'regress_field');
SELECT voiding.create_task_type('regress_wire', '{"title": "$.event.title", "document": {"id": "$.event.id"}, "roles": ["regress_fitters"], "skills": "$.event.skills",
  "form_factors": "$.event.devices", "priority": "$.event.priority", "due": "$.event.due", "made_by": {"regress_Wanted": {"key": "$.event.id"}}}', 'regress_field');
CREATE FUNCTION pg_temp.want(id text, more jsonb DEFAULT '{}') RETURNS void LANGUAGE sql AS
  $$ SELECT voiding.emit('regress_Wanted', id, jsonb_build_object('id', id, 'title', 'wire ' || id) || more, 'regress_field') $$;
CREATE FUNCTION pg_temp.ask(method text, path text, body text DEFAULT NULL, headers jsonb DEFAULT '{}') RETURNS TABLE (status int, said jsonb, headers jsonb)
  LANGUAGE sql AS $$ SELECT a.status, a.body::jsonb, a.headers FROM voiding.http(method, path, '{}', headers, body) a $$;
CREATE FUNCTION pg_temp.codes(method text, path text, body text DEFAULT NULL, headers jsonb DEFAULT '{}') RETURNS text LANGUAGE sql AS
  $$ SELECT concat_ws(' ', status, said ->> 'code') FROM pg_temp.ask(method, path, body, headers) $$;
CREATE FUNCTION pg_temp.keys(path text) RETURNS text LANGUAGE sql AS
  $$ SELECT coalesce((SELECT string_agg(t ->> 'key', ' ') FROM jsonb_array_elements(said -> 'tasks') t), said ->> 'code', 'none') FROM pg_temp.ask('GET', path) $$;
-- all pages of a list, by next
CREATE FUNCTION pg_temp.pages(path text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  a record;
  pages text[];
BEGIN
  WHILE path IS NOT NULL AND coalesce(cardinality(pages), 0) < 20 LOOP
    SELECT * INTO a FROM pg_temp.ask('GET', path);
    pages := pages || coalesce((SELECT string_agg(t ->> 'key', ' ') FROM jsonb_array_elements(a.said -> 'tasks') t), 'none');
    ASSERT coalesce(a.headers ->> 'Link' = format('<%s>; rel="next"', a.said ->> 'next'), a.said ->> 'next' IS NULL);
    path := a.said ->> 'next';
  END LOOP;
  RETURN array_to_string(pages, ' | ');
END $$;

SELECT pg_temp.want('a', '{"priority": 5, "due": "2030-01-02T00:00:00Z"}'), pg_temp.want('b', '{"priority": 5, "due": "2030-01-01T00:00:00.123456Z"}'),
       pg_temp.want('c', '{"priority": -1, "due": "2019-01-01T00:00:00Z"}'), pg_temp.want('d', '{"due": "2020-01-01T00:00:00Z"}'), pg_temp.want('e', '{"skills": ["electrician"]}'),
       pg_temp.want('f', '{"skills": ["diver"]}'), pg_temp.want('g', '{"devices": ["desk"]}');
SELECT voiding.dispatch();
SELECT pg_temp.want('a&b%ü c'), voiding.dispatch();
SELECT task_id AS a FROM voiding.task WHERE key = 'a' \gset
SELECT task_id AS b FROM voiding.task WHERE key = 'b' \gset
SELECT task_id AS e FROM voiding.task WHERE key = 'e' \gset
SELECT task_id AS g FROM voiding.task WHERE key = 'g' \gset
SELECT task_id AS f FROM voiding.task WHERE key = 'f' \gset

-- ---- lists ----

SET LOCAL ROLE regress_anna;
SELECT is(pg_temp.keys('/tasks'), 'none', 'anna has no task');
SELECT is(replace(pg_temp.keys('/tasks/available'), 'a&b%ü c', 'h') ~ '^b a d [egh] [egh] [egh] c$', true, 'she may take these, most urgent first: priority, then due, then any order');
SELECT is(pg_temp.pages('/tasks/available?limit=1'), replace(replace(pg_temp.keys('/tasks/available'), ' ', ' | '), 'a&b%ü | c', 'a&b%ü c'), 'in pages of one they are the same');
SELECT is(length(pg_temp.pages('/tasks/available?limit=3')), length(pg_temp.keys('/tasks/available')) + 4, 'in pages of three too');
SELECT is(pg_temp.pages('/tasks/available?type=none'), 'none', 'none is of another type');
SELECT is(pg_temp.pages('/tasks/available?type=regress_wire&key=a%26b%25%C3%BC+c&limit=1'), 'a&b%ü c', 'one of a key');
SELECT is((SELECT count(*)::int FROM regexp_matches(pg_temp.pages('/tasks/available?type=regress_wire&form_factor=phone&limit=2'), '\|', 'g')), 2,
  'with a phone there are fewer, and each page keeps the filter');
SELECT is(pg_temp.keys('/tasks/available?form_factor=phone') ~ '\mg\M', false, 'what is for a desk is not among them');
SELECT is(current_setting('voiding.form_factor'), '', 'the setting of the session is as before');
SELECT is(pg_temp.keys('/tasks/overdue'), 'd c', 'two are overdue, the urgent one first');
SELECT is(pg_temp.codes('GET', '/tasks/skill-gap'), '403 42501', 'what nobody can do is for supervisors');
SELECT is(pg_temp.codes('GET', '/tasks/available?' || p), w, p)
  FROM (VALUES ('limit=x', '422 22P02'), ('after=x', '422 VD22B'), ('after=1,now', '422 VD22B'), ('after=1,x,' || :'a', '422 22007'), ('limit=0', '200'), ('limit=99999', '200')) v (p, w);
SELECT is((SELECT (t ->> 'due_at', t ->> 'self' = '/tasks/' || :'e', t ? 'former', t ? 'xid')::text FROM pg_temp.ask('GET', '/tasks/available?key=e'), jsonb_array_elements(said -> 'tasks') t),
  '(,t,f,f)', 'a task without a date to be due at has none, and it has an address');
SELECT is((SELECT (q ->> 'type', q ->> 'role', q ->> 'ready', q ->> 'taken', q ->> 'overdue')::text FROM pg_temp.ask('GET', '/tasks/queues'), jsonb_array_elements(said -> 'queues') q),
  '(regress_wire,regress_fitters,8,0,2)', 'a queue has its figures');
SELECT is((SELECT said FROM pg_temp.ask('GET', '/tasks/queues?' || p)), '{"queues": []}', p || ': there is none') FROM unnest('{role=x,type=x}'::text[]) p;
RESET ROLE;
SET LOCAL ROLE regress_boss;
SELECT is(pg_temp.keys('/tasks/skill-gap'), 'f', 'a supervisor sees what nobody can do');
RESET ROLE;

-- ---- one task ----

SET LOCAL ROLE regress_anna;
SELECT said, headers ->> 'ETag' AS tag FROM pg_temp.ask('GET', '/tasks/' || :'e') \gset
SELECT is((:'said'::jsonb) - '{actions,links,self}'::text[] - 'due_at'::text, (SELECT voiding.task_object(t) - 'self' - 'due_at' FROM voiding.task t WHERE task_id = :'e'), 'a task is as task_object() has it');
SELECT is((:'said'::jsonb) -> 'actions', jsonb_build_array(jsonb_build_object('action', 'claim', 'to_state', 'claimed', 'href', format('/tasks/%s/claim', :'e'))), 'with what she may do');
SELECT is((:'said'::jsonb) -> 'links', jsonb_build_object('actions', format('/tasks/%s/actions', :'e'), 'why_not', format('/tasks/%s/why-not', :'e')), 'and where to look on');
SELECT matches(:'tag'::text, '^"1-[0-9a-f]+"$', 'its tag begins with the version');
SELECT is(pg_temp.codes('GET', '/tasks/' || :'e', NULL, jsonb_build_object('If-None-Match', h)), w, 'If-None-Match ' || h)
  FROM (VALUES (:'tag', '304'), ('W/' || :'tag', '304'), ('"x", ' || :'tag', '304'), ('*', '304'), ('"1"', '200')) v (h, w);
SELECT is((SELECT said FROM pg_temp.ask('GET', format('/tasks/%s/actions', :'e'))) -> 'actions', (:'said'::jsonb) -> 'actions', 'the actions alone');
SELECT is((SELECT said FROM pg_temp.ask('GET', format('/tasks/%s/why-not', :'e'))), '{"reasons": []}', 'nothing is against her');
SELECT is((SELECT said FROM pg_temp.ask('GET', format('/tasks/%s/why-not', :'f'))), '{"reasons": ["\"regress_anna\" lacks skill \"diver\""]}', 'another one she may not claim, and is told why');
SELECT is(pg_temp.codes('GET', format('/tasks/%s/why-not?role=regress_bert', :'f')), '403 42501', 'she may not ask about others');
SELECT is((SELECT said FROM pg_temp.ask('GET', format('/tasks/%s/why-not?form_factor=phone', :'g'))), '{"reasons": ["\"regress_anna\" has no desk"]}', 'on her way she has no desk');
SELECT is((SELECT said -> 'actions' FROM pg_temp.ask('GET', format('/tasks/%s%s?form_factor=phone', :'g', p))), '[]', 'so there is nothing to be done: ' || p) FROM unnest('{"",/actions}'::text[]) p;
SELECT is(pg_temp.codes('POST', format('/tasks/%s/claim?form_factor=phone', :'g')), '403 42501', 'nor to be claimed');
SELECT is(pg_temp.codes('POST', '/tasks/next?form_factor=watch', '{}', '{"Idempotency-Key": "watch"}'), '200', 'what is for any device is for a watch too');
SELECT is(pg_temp.codes('POST', format('/tasks/%s/release', (SELECT task_id FROM voiding.my_task))), '200', 'it is given back');
RESET ROLE;
SELECT voiding.set_worker_profile('regress_anna', '{}', '{phone,desk}');
SET LOCAL ROLE regress_anna;
SELECT is(pg_temp.codes('GET', '/tasks/' || :'e', NULL, jsonb_build_object('If-None-Match', :'tag')), '200', 'when she may do something else, the tag is another, although the task is the same');
RESET ROLE;
SELECT voiding.set_worker_profile('regress_anna', '{electrician}', '{phone,desk}');
SET LOCAL ROLE regress_boss;
SELECT is((SELECT said FROM pg_temp.ask('GET', format('/tasks/%s/why-not?role=regress_bert', :'e'))), '{"reasons": ["\"regress_bert\" lacks skill \"electrician\""]}', 'a supervisor may');
RESET ROLE;

-- ---- actions ----

SET LOCAL ROLE regress_anna;
SELECT status, said, headers ->> 'ETag' AS tag FROM pg_temp.ask('POST', format('/tasks/%s/claim', :'a'), NULL, '{"Idempotency-Key": "\"phone 1\"", "If-Match": "\"1\""}') \gset
SELECT is((:'status', (:'said'::jsonb) ->> 'state', (:'said'::jsonb) ->> 'owner', (:'said'::jsonb) ->> 'version')::text, '(200,claimed,regress_anna,2)', 'claimed');
SELECT is(jsonb_path_query_array(:'said', '$.actions[*].action'), '["complete", "extend", "fail", "release", "start", "suspend"]', 'and told what comes next');
SELECT is(pg_temp.codes('POST', format('/tasks/%s/claim', :'a'), '{}', '{"Idempotency-Key": "phone 1", "If-Match": "\"1\""}'), '200', 'the same again: the phone has not heard the answer');
SELECT is((SELECT version FROM voiding.task WHERE task_id = :'a'), 2, 'and nothing has happened');
SELECT is(pg_temp.codes('POST', format('/tasks/%s/start', :'a'), '{}', '{"Idempotency-Key": "phone 1"}'), '409 VD09E', 'another action under this key');
SELECT is(pg_temp.codes('POST', format('/tasks/%s/claim', :'b'), '{}', '{"Idempotency-Key": "phone 1"}'), '409 VD09E', 'or another task');
SELECT is(pg_temp.codes('POST', format('/tasks/%s/start', :'a'), '{}', jsonb_build_object('Idempotency-Key', k)), '422 22023', 'a key that is none') FROM unnest(ARRAY['', '""', repeat('x', 201)]) k;
SELECT is((voiding.claim_task(:'b', 'C0FFEE00-0000-4000-8000-000000000001')).state, 'claimed', 'claimed in SQL with an id');
SELECT is(pg_temp.codes('POST', format('/tasks/%s/claim', :'b'), NULL, '{"Idempotency-Key": "c0ffee00-0000-4000-8000-000000000001"}'), '200', 'which is the same key here');
SELECT is(voiding.action_id('phone 1')::text ~ '^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-8', true, 'other keys are made a uuid');
SELECT is(pg_temp.keys('/tasks'), 'b a', 'these two are hers');
SELECT is(pg_temp.keys('/tasks?state=claimed&limit=1'), 'b', 'in pages too');
SELECT is(pg_temp.keys('/tasks?state=suspended'), 'none', 'none is put aside');
RESET ROLE;

-- too late
SET LOCAL ROLE regress_bert;
SELECT status, said, headers FROM pg_temp.ask('POST', format('/tasks/%s/claim', :'a')) \gset
SELECT is((:'status', (:'said'::jsonb) ->> 'code', (:'said'::jsonb) ->> 'status', (:'headers'::jsonb) ->> 'Content-Type')::text, '(409,VD09D,409,application/problem+json)', 'somebody else has it');
SELECT is((:'said'::jsonb) #>> '{task,owner}', 'regress_anna', 'and the problem has the task as it is');
SELECT is((:'said'::jsonb) #>> '{task,self}', '/tasks/' || :'a', 'with its address');
SELECT is((:'headers'::jsonb) ->> 'ETag', '"2"', 'and tag');
SELECT is(pg_temp.codes('POST', format('/tasks/%s/complete', :'a'), '{"outcome": {}}'), '409 VD09C', 'what is not his he does not complete');
SELECT is((SELECT (status, said ->> 'detail' LIKE '%lacks skill "electrician"%')::text FROM pg_temp.ask('POST', format('/tasks/%s/claim', :'e'))), '(403,t)', 'nor claim what he cannot do: and is told why');
SELECT is(pg_temp.codes('POST', format('/tasks/%s/cancel', :'e')), '403 42501', 'nor cancel');
RESET ROLE;
SET LOCAL ROLE regress_anna;
SELECT status, said, headers FROM pg_temp.ask('POST', format('/tasks/%s/start', :'a'), NULL, '{"If-Match": "\"1-abc\""}') \gset
SELECT is((:'status', (:'said'::jsonb) ->> 'code', (:'said'::jsonb) ->> 'status', (:'said'::jsonb) #>> '{task,version}', (:'headers'::jsonb) ->> 'ETag')::text, '(412,VD09C,412,2,"""2""")',
  'by If-Match it has changed: 412, with the task');
SELECT is(pg_temp.codes('POST', format('/tasks/%s/start', :'a'), '{}', jsonb_build_object('If-Match', h)), '412 VD09C', 'If-Match ' || h) FROM unnest('{"\"3\"","W/\"2\"","x","\"\"","\"1\", \"3\"",""}'::text[]) h;
SELECT is(pg_temp.codes('POST', format('/tasks/%s/start', :'a'), '{}', jsonb_build_object('If-Match', :'tag')), '200', 'with the tag that GET has told it goes on');
SELECT is(pg_temp.codes('POST', format('/tasks/%s/start', :'a'), '{}', '{"If-Match": "\"3\""}'), '409 VD09C', 'with the right version, and in the wrong state: 409');
SELECT is(pg_temp.codes('POST', format('/tasks/%s/extend', :'a'), '{"lease": "PT1H"}', '{"If-Match": "\"1\", \"3\""}'), '200', 'one of several will do');
SELECT is(pg_temp.codes('POST', format('/tasks/%s/extend', :'a'), '{}', '{"If-Match": "*"}'), '200', 'and any');

-- what is no action, no argument, no task
SELECT is(pg_temp.codes('POST', format('/tasks/%s/%s', :'a', v), b), w, format('%s %s', v, b))
  FROM (VALUES ('fly', '{}', '404 42704'), ('withdraw', '{}', '404 42704'), ('actions', '{}', '404 42704'), ('complete', '{"outcom": {}}', '422 VD22B'),
               ('complete', '{"version": 1}', '422 VD22B'), ('complete', '[]', '422 VD22B'), ('extend', '{"lease": "soon"}', '422 22007'), ('claim', '{"outcome": 1}', '422 VD22B')) v (v, b, w);
SELECT is(pg_temp.codes(m, format('/tasks/00000000-0000-0000-0000-000000000000%s', p)), '404 VD04E', m || p)
  FROM (VALUES ('GET', ''), ('GET', '/actions'), ('GET', '/why-not'), ('POST', '/claim')) v (m, p);
SELECT is((SELECT (status, said ->> 'state', said #>> '{outcome,volts}')::text FROM pg_temp.ask('POST', format('/tasks/%s/complete', :'a'), '{"outcome": {"volts": 230}}')), '(200,completed,230)', 'completed');
SELECT is(pg_temp.keys('/tasks'), 'b', 'it is off her list');
RESET ROLE;

-- next
SET LOCAL ROLE regress_bert;
SELECT status, said, headers FROM pg_temp.ask('POST', '/tasks/next', '{"types": ["regress_wire"]}', '{"Idempotency-Key": "n"}') \gset
SELECT is((:'status', (:'said'::jsonb) ->> 'key', (:'said'::jsonb) ->> 'owner', (:'headers'::jsonb) ->> 'Content-Location' = (:'said'::jsonb) ->> 'self')::text, '(200,d,regress_bert,t)', 'the next that he can do');
SELECT is((SELECT said ->> 'key' FROM pg_temp.ask('POST', '/tasks/next', '{"types": ["regress_wire"]}', '{"Idempotency-Key": "n"}')), 'd', 'the same again is the same');
SELECT is(pg_temp.codes('POST', '/tasks/next', b), w, b)
  FROM (VALUES ('{"types": []}', '204'), ('{"form_factor": "watch", "types": ["none"]}', '204'), ('{"typ": []}', '422 VD22B'), ('{"types": "x"}', '422 22023')) v (b, w);
RESET ROLE;

-- an action after which one sees the task no more
REVOKE regress_fitters FROM regress_bert;
SET LOCAL ROLE regress_bert;
SELECT is((SELECT (status, said ->> 'state', said -> 'actions')::text FROM pg_temp.ask('POST', format('/tasks/%s/release', (:'said'::jsonb) ->> 'task_id'))), '(200,ready,)', 'given back');
SELECT is(pg_temp.codes('GET', '/tasks/' || ((:'said'::jsonb) ->> 'task_id')), '404 VD04E', 'and gone');
RESET ROLE;

-- ---- rights ----

SET LOCAL ROLE regress_emil;
SELECT is(pg_temp.keys('/tasks/' || l), 'none', 'who is of another trade has nothing ' || l) FROM unnest('{available,overdue}'::text[]) l;
SELECT is(pg_temp.codes('GET', '/tasks/' || :'e'), '404 VD04E', 'nor sees it');
SELECT is(pg_temp.codes('POST', format('/tasks/%s/claim', :'e')), '404 VD04E', 'nor takes it');
SELECT is((SELECT said -> 'events' FROM pg_temp.ask('GET', '/tasks/changes')), '[]', 'nor hears of it');
RESET ROLE;
SET LOCAL ROLE regress_web;
SELECT is(pg_temp.codes(m, p), '403 42501', 'without the duty worker: ' || p)
  FROM (VALUES ('GET', '/tasks'), ('GET', '/tasks/changes'), ('GET', '/tasks/' || :'e'), ('POST', '/tasks/next'), ('POST', format('/tasks/%s/claim', :'e'))) v (m, p);
SELECT is(pg_temp.codes('GET', '/openapi.json'), '200', 'the document is there for everybody');
RESET ROLE;

-- ---- the document ----

SELECT said AS doc FROM pg_temp.ask('GET', '/openapi.json') \gset
SELECT is(jsonb_path_query_first(:'doc', '$.paths."/tasks/{task_id}/{action}".post.parameters[*] ? (@.name == "action").schema.enum'),
  '["assign", "cancel", "claim", "complete", "extend", "fail", "release", "resume", "start", "suspend"]', 'it has the actions');
SELECT is(jsonb_path_query_first(:'doc', '$.paths."/tasks/{task_id}/{action}".post.requestBody.**.anyOf[*] ? (@.title == "suspend").properties'),
  '{"until": {"type": "string"}, "reason": {"type": "string"}}', 'with their arguments');

SELECT * FROM finish();
ROLLBACK;
