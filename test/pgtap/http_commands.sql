-- Commands over http(): accepted, repeated, watched, waited for, taken back.
-- By hand: handlers run in the transaction of the test.
BEGIN;
SELECT plan(71);

CREATE FUNCTION pg_temp.head(a voiding.http_answer, name text) RETURNS text LANGUAGE sql AS $$ SELECT a.headers ->> name $$;
CREATE FUNCTION pg_temp.part(a voiding.http_answer, VARIADIC path text[]) RETURNS text LANGUAGE sql AS $$ SELECT a.body::jsonb #>> path $$;

-- accepted
SELECT a, a.status, pg_temp.head(a, 'Location') AS location, pg_temp.part(a, 'command_id') AS id
  FROM voiding.http('POST', '/commands/IssueDocument', '{}', '{"Idempotency-Key": "\"k 1\"", "Prefer": "respond-async"}',
                    '{"document_id": "D/1 €", "customer_id": "C1", "amount": 10}') a \gset
SELECT is(:status, 202, 'a command is accepted');
SELECT is(:'location', '/commands/' || :'id', 'its status has an address');
SELECT is(pg_temp.head(:'a', 'Content-Type'), 'application/json', 'the answer is JSON');
SELECT is(pg_temp.head(:'a', 'Cache-Control'), 'no-store', 'and not to be stored');
SELECT is(pg_temp.head(:'a', 'Link'), '</documents/D%2F1%20%E2%82%AC>; rel="related"', 'the resource to come is known');
SELECT matches(pg_temp.head(:'a', 'Retry-After'), '^[1-9][0-9]*$', 'and when to ask again');
SELECT is(pg_temp.head(:'a', 'Preference-Applied'), 'respond-async', 'it was not to wait');
SELECT is((:'a'::voiding.http_answer).wait, NULL, 'and does not');
SELECT is(pg_temp.part(:'a', 'status'), 'accepted', 'the body is the status');
SELECT is(pg_temp.part(:'a', 'resource'), '/documents/D%2F1%20%E2%82%AC', 'with the resource');
SELECT is(pg_temp.part(:'a', 'self'), :'location', 'and its own address');
SELECT is((SELECT c.idempotency_key FROM voiding.command c WHERE c.command_id = :'id'), 'k 1', 'the quotes of the key are syntax');

-- the same again; something else under the key
SELECT is((SELECT (a.status, pg_temp.head(a, 'Location'))::text FROM voiding.http('POST', '/commands/IssueDocument', '{}', '{"idempotency-key": "k 1"}',
             '{"customer_id": "C1", "document_id": "D/1 €", "amount": 10.0}') a), format('(202,%s)', :'location'), 'the same again is the same command');
SELECT is((SELECT (a.status, pg_temp.part(a, 'code'))::text FROM voiding.http('POST', '/commands/IssueDocument', '{}', '{"idempotency-key": "k 1"}',
             '{"customer_id": "C1", "document_id": "D2", "amount": 10}') a), '(409,VD09E)', 'another one under its key is refused');
SELECT is((SELECT count(*)::int FROM voiding.outbox WHERE type = 'IssueDocument'), 1, 'there is one message');

-- the resource is not there yet
SELECT a, a.status FROM voiding.http('GET', '/documents/D%2F1%20%e2%82%ac') a \gset
SELECT is(:status, 404, 'the resource is not there yet');
SELECT matches(pg_temp.head(:'a', 'Retry-After'), '^[1-9][0-9]*$', 'but it is said when to ask again');
SELECT is(pg_temp.head(:'a', 'Link'), format('<%s>; rel="related"', :'location'), 'and what will make it');
SELECT is((SELECT pg_temp.head(a, 'Retry-After') IS NOT NULL FROM voiding.http('GET', '/queries/document', '{"document_id": "D/1 €"}') a), true,
  'the same by its other address');
SELECT is((SELECT a.wait FROM voiding.http('GET', '/queries/document?document_id=D/1+%E2%82%AC', '{}', '{"Prefer": "wait=3"}') a),
  jsonb_build_object('command_id', :'id', 'seconds', 3, 'then', NULL, 'applied', 'wait=3'), 'one may wait for it');
SELECT is((SELECT (a.status, pg_temp.head(a, 'Retry-After'))::text FROM voiding.http('GET', '/documents/D1') a), '(404,)', 'of another one nothing is known');

-- what to wait for
SELECT is((SELECT a.wait FROM voiding.http('POST', '/commands/IssueDocument', '{}', '{"idempotency-key": "k 1", "Prefer": "wait=7, return=representation"}',
             '{"customer_id": "C1", "document_id": "D/1 €", "amount": 10}') a),
  jsonb_build_object('command_id', :'id', 'seconds', 7, 'then', :'location' || '/result', 'applied', 'return=representation, wait=7'),
  'who wants the resource is told what to wait for, and where it is then');
SELECT is((SELECT a.wait ->> 'seconds' FROM voiding.http('POST', '/commands/IssueDocument', '{}', '{"idempotency-key": "k 1", "Prefer": "return=representation"}',
             '{"customer_id": "C1", "document_id": "D/1 €", "amount": 10}') a), '30', 'for a while, if it does not say how long');
SELECT is((SELECT a.wait FROM voiding.http('GET', :'location', '{}', '{"Prefer": "foo; wait=\"9\""}') a),
  jsonb_build_object('command_id', :'id', 'seconds', 9, 'then', :'location', 'applied', 'wait=9'), 'so is who looks at the status');
SELECT is((SELECT a.wait ->> 'seconds' FROM voiding.http('GET', :'location', '{}', '{"Prefer": "wait=99999"}') a), '300', 'not longer than that');
SELECT is((SELECT a.wait FROM voiding.http('GET', :'location', '{}', '{"Prefer": "wait=-1, await=3"}') a), NULL, 'nonsense is no preference');
SELECT is((SELECT (a.status, pg_temp.part(a, 'status'))::text FROM voiding.http('GET', :'location' || '/result') a), '(202,accepted)', 'the result is not there yet');
SELECT is(voiding.resource_of(:'id'), NULL, 'nor the resource');

-- the status, and what has not changed
SELECT a, a.status, pg_temp.head(a, 'ETag') AS etag FROM voiding.http('GET', :'location') a \gset
SELECT is(:status, 200, 'the status is there');
SELECT matches(pg_temp.head(:'a', 'Retry-After'), '^[1-9][0-9]*$', 'it is open');
SELECT is((SELECT (a.status, a.body)::text FROM voiding.http('GET', :'location', '{}', jsonb_build_object('If-None-Match', :'etag')) a), '(304,)', 'it has not changed');

SELECT voiding.dispatch();
SELECT a, a.status FROM voiding.http('GET', :'location', '{}', jsonb_build_object('If-None-Match', :'etag')) a \gset
SELECT is((:status, pg_temp.part(:'a', 'status'))::text, '(200,processed)', 'it is processed');
SELECT is(pg_temp.head(:'a', 'Retry-After'), NULL, 'nothing is to come');
SELECT is(pg_temp.head(:'a', 'Link'), '</documents/D%2F1%20%E2%82%AC>; rel="related"', 'the resource is there');
SELECT is((SELECT (a.status, pg_temp.part(a, 'document_id'))::text FROM voiding.http('GET', '/documents/D%2F1%20%E2%82%AC') a), '(200,"D/1 €")', 'and is read');
SELECT is((SELECT (a.status, pg_temp.part(a, 'amount'), pg_temp.head(a, 'Content-Location'))::text FROM voiding.http('GET', :'location' || '/result') a),
  '(200,10,/documents/D%2F1%20%E2%82%AC)', 'the result is the resource');
SELECT is(voiding.resource_of(:'id') ->> 'customer_id', 'C1', 'as one may have it in SQL');
SELECT is((SELECT (a.status, pg_temp.part(a, 'status'), pg_temp.head(a, 'Location') = :'location', a.wait)::text FROM voiding.http('POST', '/commands/IssueDocument', '{}',
             '{"idempotency-key": "k 1", "prefer": "wait=5"}', '{"customer_id": "C1", "document_id": "D/1 €", "amount": 10}') a), '(200,processed,t,)', 'sent again it is done already');

-- failed
SELECT pg_temp.head(a, 'Location') AS failed FROM voiding.http('POST', '/commands/VoidDocument', '{}', '{}', '{"document_id": "no"}') a \gset
SELECT voiding.dispatch();
SELECT is((SELECT (a.status, pg_temp.part(a, 'status'), pg_temp.part(a, 'error', 'code'))::text FROM voiding.http('GET', :'failed') a), '(200,failed,VD04A)', 'a status tells of a failure');
SELECT is((SELECT (a.status, pg_temp.head(a, 'Content-Type'), pg_temp.part(a, 'code'))::text FROM voiding.http('GET', :'failed' || '/result') a),
  '(404,application/problem+json,VD04A)', 'the result is the problem');

-- taken back; times
SELECT pg_temp.head(a, 'Location') AS later FROM voiding.http('POST', '/commands/VoidDocument?not_before=2100-01-01T00:00:00Z', '{}', '{}', '{"document_id": "D/1 €"}') a \gset
SELECT is((SELECT pg_temp.part(a, 'not_before') FROM voiding.http('GET', :'later') a), '2100-01-01T00:00:00+00:00', 'it is for later');
SELECT is((SELECT (a.status, pg_temp.part(a, 'status'))::text FROM voiding.http('DELETE', :'later' || '?reason=no') a), '(200,cancelled)', 'it is taken back');
SELECT is((SELECT a.status FROM voiding.http('DELETE', :'later') a), 200, 'and again');
SELECT is((SELECT a.status FROM voiding.http('GET', :'later' || '/result') a), 409, 'it has no result');
SELECT is((SELECT (a.status, pg_temp.part(a, 'code'))::text FROM voiding.http('DELETE', :'failed') a), '(409,55000)', 'what has ended cannot be taken back');
SELECT is((SELECT a.status FROM voiding.http('POST', '/commands/VoidDocument?start_by=tomorrowish', '{}', '{}', '{"document_id": "D/1 €"}') a), 422, 'a time that is none');

-- many
SELECT a, a.status FROM voiding.http('POST', '/commands', '{}', '{}',
  '[{"type": "VoidDocument", "data": {"document_id": "D/1 €"}, "idempotency_key": "v"}, {"type": "Nothing"}, 7]') a \gset
SELECT is(:status, 207, 'of many some are refused');
SELECT is(pg_temp.part(:'a', 'commands', '0', 'status'), '202', 'each has its status');
SELECT is(pg_temp.part(:'a', 'commands', '1', 'error', 'code'), '42704', 'or its problem');
SELECT is((SELECT (a.status, jsonb_array_length(a.body::jsonb -> 'commands'))::text FROM voiding.http('POST', '/commands', '{}', '{}',
  '[{"type": "VoidDocument", "data": {"document_id": "D/1 €"}, "idempotency_key": "v"}]') a), '(202,1)', 'or none');
SELECT is((SELECT (a.status, pg_temp.part(a, 'commands'))::text FROM voiding.http('POST', '/commands') a), '(202,[])', 'of none nothing');

-- listed
SELECT voiding.dispatch(), voiding.dispatch(), voiding.dispatch();
SELECT is((SELECT string_agg(c ->> 'status', ' ' ORDER BY n) FROM voiding.http('GET', '/commands') a, jsonb_array_elements(a.body::jsonb -> 'commands') WITH ORDINALITY x (c, n)),
  'processed cancelled failed processed', 'the latest come first');
SELECT is((SELECT string_agg(c ->> 'type', ' ') FROM voiding.http('GET', '/commands?status=failed') a, jsonb_array_elements(a.body::jsonb -> 'commands') c), 'VoidDocument', 'those of a status');
SELECT is((SELECT jsonb_array_length(a.body::jsonb -> 'commands') FROM voiding.http('GET', '/commands', '{"type": "VoidDocument"}') a), 3, 'those of a type');
SELECT a, pg_temp.part(a, 'next') AS next FROM voiding.http('GET', '/commands?type=VoidDocument&limit=2') a \gset
SELECT is(pg_temp.head(:'a', 'Link'), format('<%s>; rel="next"', :'next'), 'a page says where the next one is');
SELECT is((SELECT (jsonb_array_length(a.body::jsonb -> 'commands'), pg_temp.part(a, 'commands', '0', 'status'), pg_temp.part(a, 'next'))::text FROM voiding.http('GET', :'next') a),
  '(1,failed,)', 'and that is the last');
SELECT is(:'next', '/commands?type=VoidDocument&limit=2&before=' || pg_temp.part(:'a', 'commands', '1', 'command_id'), 'of the same list');
SELECT is(voiding.url('/x', '{"a": "1&2=3", "b": null, "c d": "é/~"}'), '/x?a=1%262%3D3&c%20d=%C3%A9%2F~', 'an address is in the encoding of URLs');
SELECT is(voiding.url('/x', '{}'), '/x', 'without arguments it is the path');
SELECT is((SELECT (a.status, pg_temp.part(a, 'commands'))::text FROM voiding.http('GET', $$/commands?type=x'%20OR%20true--&status=%22$$) a), '(200,[])', 'a filter is a value');
SELECT is((SELECT a.status FROM voiding.http('GET', '/commands?before=x') a), 422, 'and must be one');
SELECT is((SELECT a.status FROM voiding.http('GET', '/commands?limit=9999999999') a), 422, 'that can be read');

-- the feed (it has what is committed: test/sql/http_feed.sql)
SELECT is((SELECT (a.status, a.body::jsonb)::text FROM voiding.http('GET', '/commands/events') a), '(200,"{""cursor"": null, ""events"": []}")', 'nothing is committed');
SELECT is((SELECT a.status FROM voiding.http('GET', '/commands/events?after=nonsense') a), 422, 'a cursor that is none');
SELECT is((SELECT (a.status, pg_temp.part(a, 'code'))::text FROM voiding.http('GET', '/commands/events?after=999999999:999999999:/999999999:999999999:/1') a), '(410,VD10A)', 'one of another server');

-- gone
UPDATE voiding.command SET gone = true, data = '{}', result = NULL, resource = NULL WHERE command_id = :'id';
SELECT is((SELECT (a.status, pg_temp.part(a, 'code'))::text FROM voiding.http('GET', :'location') a), '(410,VD10A)', 'one that is not kept any more is gone');
SELECT is((SELECT (a.status, pg_temp.part(a, 'code'))::text FROM voiding.http('GET', '/commands/' || gen_random_uuid()) a), '(404,VD04D)', 'one that never was is not there');

-- reports, in pages
INSERT INTO billing.document (document_id, customer_id, amount) SELECT 'P' || i, 'pages&' || i % 3, 1 FROM generate_series(1, 4) i;
SELECT voiding.dispatch();
SELECT a, substring(pg_temp.head(a, 'Link') FROM '^<(.*)>; rel="next"$') AS next FROM voiding.http('GET', '/reports?status=open&batch_size=2') a \gset
SELECT is((SELECT count(*)::int FROM jsonb_array_elements((:'a'::voiding.http_answer).body::jsonb)), 2, 'a page of reports is as large as it is to be');
SELECT is(:'next', format('/reports?before=%s&status=open&batch_size=2', pg_temp.part(:'a', '1', 'report_id')), 'and says where the next one is');
SELECT is((SELECT pg_temp.part(a, '0', 'report_id')::int - pg_temp.part(:'a', '1', 'report_id')::int FROM voiding.http('GET', :'next') a), -1, 'which goes on from there');
SELECT is((SELECT (jsonb_array_length(a.body::jsonb), pg_temp.head(a, 'Link'))::text FROM voiding.http('GET', '/reports?batch_size=1&customer_id=pages%261') a), '(1,)', 'the last one says nothing');

SELECT * FROM finish();
ROLLBACK;
