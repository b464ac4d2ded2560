-- The feed and the stages of a command over http(), each request a
-- transaction of its own, as a gateway asks.
\set ECHO none
\i test/lib/database.sql
SET client_min_messages = warning;
CREATE FUNCTION ask(method text, path text, body text DEFAULT NULL, headers jsonb DEFAULT '{}') RETURNS TABLE (status int, said jsonb, headers jsonb, wait jsonb)
  LANGUAGE sql AS $$ SELECT a.status, a.body::jsonb, a.headers, a.wait FROM voiding.http(method, path, '{}', headers, body) a $$;
CREATE FUNCTION changes(after text, n int DEFAULT 100) RETURNS TABLE (type text, status text, cursor text) LANGUAGE sql AS $$
  SELECT e #>> '{command,type}', e #>> '{command,status}', e ->> 'cursor'
    FROM ask('GET', '/commands/events?limit=' || n, NULL, jsonb_strip_nulls(jsonb_build_object('Last-Event-ID', after))) a,
         jsonb_array_elements(a.said -> 'events') e $$;
CALL test.by_hand();

SELECT status, said ->> 'status' AS said, headers ->> 'Link' AS link FROM ask('POST', '/commands/IssueDocument', '{"document_id": "D1", "customer_id": "C1", "amount": 5}');
SELECT status FROM ask('POST', '/commands/IssueDocument', '{"document_id": "D2", "customer_id": "C1", "amount": 7}');
SELECT type, status FROM changes(NULL);
SELECT cursor FROM changes(NULL, 1) \gset
SELECT type, status FROM changes(:'cursor');
SELECT cursor FROM changes(:'cursor') \gset
SELECT type, status FROM changes(:'cursor');
SELECT (said ->> 'cursor') = :'cursor' AS stays FROM ask('GET', '/commands/events', NULL, jsonb_build_object('Last-Event-ID', :'cursor'));
CALL test.settle();
SELECT type, status FROM changes(:'cursor');

-- the whole story: voided with the report open, refused once it is published
SELECT status, said ->> 'self' AS self FROM ask('POST', '/commands/VoidDocument', '{"document_id": "D1", "reason": "wrong"}', '{"Prefer": "return=representation, wait=5"}') \gset
SELECT status, said ->> 'status' AS said, headers ? 'Retry-After' AS open FROM ask('GET', :'self' || '/result');
CALL test.settle();
SELECT status, said ->> 'status' AS document, headers ->> 'Content-Location' AS "where" FROM ask('GET', :'self' || '/result');
SELECT status FROM ask('POST', '/commands/PublishReport', '{"customer_id": "C1"}');
CALL test.settle();
SELECT status, r ->> 'status' AS report, r ->> 'total' AS total FROM ask('GET', '/reports?customer_id=C1') a, jsonb_array_elements(a.said) r;
SELECT status, said -> 'lines' AS lines FROM ask('GET', '/reports/1');
SELECT said ->> 'self' AS self FROM ask('POST', '/commands/VoidDocument', '{"document_id": "D2"}') \gset
CALL test.settle();
SELECT status, said ->> 'status' AS said, said #>> '{error,code}' AS code, said #>> '{error,title}' AS title, said ->> 'process_id' = substr(:'self', 11) AS its_process FROM ask('GET', :'self');
SELECT status, said ->> 'code' AS code FROM ask('GET', :'self' || '/result');
SELECT said -> 'processes' -> 0 ->> 'process_id' AS process FROM ask('GET', '/processes?failed=true') \gset
SELECT status, said ->> 'state' AS state FROM ask('GET', '/processes/' || :'process');
SELECT status FROM ask('POST', format('/processes/%s/acknowledge', :'process'), '{"reason": "seen"}');
SELECT status, said ->> 'state' AS state, said #>> '{history,-1,event}' AS last FROM ask('GET', '/processes/' || :'process');
SELECT * FROM voiding.check_invariants();

-- tasks: what a phone hears that asks again with the last id that it has, and
-- of what it may not see any more only that
DROP ROLE IF EXISTS regress_crew, regress_night, regress_anna;
CREATE ROLE regress_crew; CREATE ROLE regress_night; CREATE ROLE regress_anna IN ROLE regress_crew;
GRANT USAGE ON SCHEMA voiding TO regress_crew; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA voiding TO regress_crew;
GRANT SELECT ON voiding.task, voiding.task_transition TO regress_crew;
SELECT voiding.create_service('field');
SELECT voiding.create_task_type('visit', '{"roles": ["regress_crew"], "made_by": {"Wanted": {"key": "$.event.id"}}}', 'field');
SELECT count(voiding.emit('Wanted', 'v' || i, jsonb_build_object('id', 'v' || i), 'field')) FROM generate_series(1, 3) i;
SELECT voiding.dispatch();
CREATE FUNCTION heard(after text, n int DEFAULT 100) RETURNS TABLE (key text, state text, its_own boolean, cursor text) LANGUAGE sql AS $$
  SELECT coalesce(e #>> '{task,key}', 'gone'), e #>> '{task,state}', e ->> 'task_id' = coalesce(e #>> '{task,task_id}', e ->> 'task_id'), e ->> 'cursor'
    FROM ask('GET', '/tasks/changes?limit=' || n, NULL, jsonb_strip_nulls(jsonb_build_object('Last-Event-ID', after))) a,
         jsonb_array_elements(a.said -> 'events') e $$;
SET ROLE regress_anna;
SELECT count(*) FROM heard(NULL, 2);
SELECT said ->> 'cursor' AS cursor FROM ask('GET', '/tasks/changes?limit=2') \gset
SELECT count(*) FROM heard(:'cursor');
SELECT cursor FROM heard(:'cursor') \gset
SELECT count(*) FROM heard(:'cursor');
SELECT (said ->> 'cursor') = :'cursor' AS stays FROM ask('GET', '/tasks/changes', NULL, jsonb_build_object('Last-Event-ID', :'cursor'));
SELECT status, said ->> 'key' AS key, said ->> 'state' AS state FROM ask('POST', format('/tasks/%s/claim', (SELECT task_id FROM voiding.task WHERE key = 'v1')));
SELECT key, state, its_own FROM heard(:'cursor');
RESET ROLE;
SELECT status, said ->> 'state' AS state FROM ask('POST', format('/tasks/%s/assign', (SELECT task_id FROM voiding.task WHERE key = 'v2')), '{"role": "regress_night"}');
SET ROLE regress_anna;
SELECT key, state, its_own FROM heard(:'cursor') ORDER BY key;
SELECT status, said ->> 'code' AS code FROM ask('GET', '/tasks/changes?after=x');
SELECT status, jsonb_array_length(said -> 'events') AS events FROM ask('GET', '/tasks/changes?after=x', NULL, jsonb_build_object('Last-Event-ID', :'cursor'));
-- and as a stream
CREATE TEMP TABLE piece AS SELECT * FROM voiding.http('GET', '/tasks/changes', '{}', jsonb_build_object('Accept', 'text/event-stream', 'Last-Event-ID', :'cursor'));
SELECT status, headers ->> 'Content-Type' AS type, wait - 'cursor' AS wait, wait ->> 'cursor' <> :'cursor' AS further FROM piece;
SELECT coalesce(d #>> '{task,key}', 'gone') AS key, d ? 'task_id' AS its_own FROM (SELECT (regexp_matches(body, '^data: (.*)$', 'gn'))[1]::jsonb AS d FROM piece) x ORDER BY key;
RESET ROLE;
\c contrib_regression
DROP DATABASE regress_voiding;
DROP ROLE regress_crew, regress_night, regress_anna;
