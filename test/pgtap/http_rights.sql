-- The duties front_end, reader and console of doc/privilege.md at work: http()
-- gives nobody rights that they have not.
-- By hand: handlers run in the transaction of the test.
BEGIN;
SELECT plan(29);

CREATE ROLE regress_front_end; CREATE ROLE regress_reader; CREATE ROLE regress_app; CREATE ROLE regress_operator; CREATE ROLE regress_console;
CREATE ROLE regress_other; CREATE ROLE regress_web; CREATE ROLE regress_desk;
\set grants `awk '/^-- (front_end|reader|app|operator|console): /{on=1} !/^(-- |GRANT |  [a-z])/{on=0} on && !/^--/' doc/privilege.md | sed -E 's/ TO ([a-z_]+);/ TO regress_\1;/'`
:grants
GRANT regress_front_end TO regress_web, regress_other, regress_desk;
GRANT regress_app, regress_reader TO regress_web;
GRANT regress_operator, regress_console TO regress_desk;
CREATE FUNCTION pg_temp.codes(method text, path text, body text DEFAULT NULL) RETURNS text LANGUAGE sql AS
  $$ SELECT concat_ws(' ', a.status, a.body::jsonb ->> 'code') FROM voiding.http(method, path, '{}', '{}', body) a $$;

SET LOCAL ROLE regress_web;
SELECT is(pg_temp.codes('POST', '/commands/IssueDocument', '{"document_id": "D1", "customer_id": "C1", "amount": 1}'), '202', 'web sends');
SELECT command_id AS id FROM voiding.command \gset
SELECT is((SELECT a.headers ? 'Retry-After' FROM voiding.http('GET', '/documents/D1') a), true, 'and is told that it is coming');
SELECT is(pg_temp.codes('GET', '/commands/' || :'id'), '200', 'looks at it');
RESET ROLE;
SELECT is((SELECT caller FROM voiding.command), 'regress_web', 'it is the command of web');

SET LOCAL ROLE regress_other;
SELECT is(pg_temp.codes('GET', '/commands/' || :'id'), '404 VD04D', 'another one does not see it');
SELECT is(pg_temp.codes('DELETE', '/commands/' || :'id'), '404 VD04D', 'nor takes it back');
SELECT is(pg_temp.codes('GET', format('/commands/%s/result', :'id')), '404 VD04D', 'nor reads its result');
SELECT is((SELECT a.body::jsonb -> 'commands' FROM voiding.http('GET', '/commands') a), '[]', 'nor is it listed');
SELECT is(pg_temp.codes('GET', '/commands/events'), '200', 'the feed is its own');
SELECT is(pg_temp.codes('GET', '/documents/D1'), '403 42501', 'it does not read documents');
SELECT is(pg_temp.codes('GET', '/queries/document?document_id=D1'), '403 42501', 'by no address');
SELECT is(pg_temp.codes('GET', '/reports'), '403 42501', 'nor reports');
SELECT is(pg_temp.codes('POST', '/commands/VoidDocument', '{"document_id": "D1"}'), '403 42501', 'it sends nothing');
SELECT is((SELECT a.body::jsonb #>> '{commands,0,error,code}' FROM voiding.http('POST', '/commands', '{}', '{}', '[{"type": "VoidDocument", "data": {"document_id": "D1"}}]') a),
  '42501', 'among many neither');
SELECT is((SELECT a.body::jsonb #> '{components,schemas}' ? 'command.VoidDocument' FROM voiding.http('GET', '/openapi.json') a), false, 'it is not offered what it may not send');
SELECT throws_ok($$ SELECT voiding.http_health(NULL) $$, '42501', NULL, 'the functions of routes are not for calling');
SELECT throws_ok($$ SELECT voiding.do_command_status(gen_random_uuid()) $$, '42501', NULL, 'nor are those with the engine''s rights');
RESET ROLE;

SELECT voiding.dispatch();
SET LOCAL ROLE regress_web;
SELECT is(pg_temp.codes('GET', '/documents/D1'), '200', 'web reads the document');
SELECT is(pg_temp.codes('GET', '/reports?customer_id=C1'), '200', 'and the reports');
SELECT is(pg_temp.codes('GET', '/processes'), '403 42501', 'but not the processes');
SELECT is((SELECT a.body::jsonb #> '{components,schemas}' ? 'command.VoidDocument' FROM voiding.http('GET', '/openapi.json') a), true, 'it is offered what it may send');
RESET ROLE;
SELECT reports.publish_report('C1');
SELECT billing.void_document('D1') AS process \gset
SELECT voiding.dispatch();

SET LOCAL ROLE regress_desk;
SELECT is((SELECT a.body::jsonb #>> '{processes,0,waits_for}' FROM voiding.http('GET', '/processes?failed=true') a), 'acknowledgement', 'desk sees what failed');
SELECT is((SELECT a.body::jsonb -> 'processes' FROM voiding.http('GET', '/processes?failed=false') a), '[]', 'and that nothing runs');
SELECT is((SELECT (a.body::jsonb ->> 'state', jsonb_array_length(a.body::jsonb -> 'history') > 1)::text FROM voiding.http('GET', '/processes/' || :'process') a),
  '(MarkingDocumentAsVoidedFailed,t)', 'how it came there');
SELECT is(pg_temp.codes('POST', format('/processes/%s/acknowledge', :'process'), '{"reason": "seen"}'), '204', 'and takes note of it');
SELECT is(pg_temp.codes('POST', format('/processes/%s/acknowledge', :'process')), '204', 'again changes nothing');
SELECT is(pg_temp.codes('GET', '/documents/D1'), '403 42501', 'documents are not for desk');
RESET ROLE;
SELECT is((SELECT actor || ': ' || (data ->> 'reason') FROM voiding.event WHERE type = 'ProcessFailureAcknowledged'), 'regress_desk: seen', 'it is known who did');

CREATE ROLE regress_nobody;
GRANT USAGE ON SCHEMA voiding TO regress_nobody;
SET LOCAL ROLE regress_nobody;
SELECT throws_ok($$ SELECT voiding.http('GET', '/healthz') $$, '42501', NULL, 'without EXECUTE nothing is answered');
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
