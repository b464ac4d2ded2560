-- What http() refuses, and how: problems of RFC 9457, with nothing left behind.
BEGIN;
SELECT plan(61);

CREATE FUNCTION pg_temp.codes(method text, path text, query jsonb DEFAULT '{}', headers jsonb DEFAULT '{}', body text DEFAULT NULL) RETURNS text LANGUAGE sql AS
  $$ SELECT concat_ws(' ', a.status, a.body::jsonb ->> 'code') FROM voiding.http(method, path, query, headers, body) a $$;

-- the shape of a problem
SELECT a FROM voiding.http('GET', '/documents/no') a \gset
SELECT is((:'a'::voiding.http_answer).headers ->> 'Content-Type', 'application/problem+json', 'a problem says what it is');
SELECT is((:'a'::voiding.http_answer).body::jsonb - 'detail', '{"type": "urn:voiding:error:P0002", "title": "It is not there", "status": 404, "code": "P0002", "instance": "/documents/no"}',
  'and has the members of RFC 9457');
SELECT is((SELECT a.body::jsonb - 'detail' - 'title' FROM voiding.http('GET', '/no?x=1') a), '{"type": "about:blank", "status": 404, "instance": "/no"}',
  'so has one that is of HTTP alone');

-- where and how
SELECT is(pg_temp.codes('GET', p), '404', coalesce(p, 'null') || ' is nowhere')
  FROM unnest('{/,/Commands,/commands/,/commands//result,/documents/,/documents/a/b,//commands,/commands/x/result,/processes/x,/queries}'::text[]) p;
SELECT is(pg_temp.codes('GET', p), '400', quote_nullable(p) || ' is no address') FROM unnest(ARRAY['', NULL, 'commands', '/%', '/%4', '/%zz', '/%00', '/%ff', '/a/%c3%28']) p;
SELECT is(pg_temp.codes('GET', '/documents/x?' || q), '400', q || ' is no query string') FROM unnest('{a=%,%ff=1,a=%00}'::text[]) q;
SELECT is(pg_temp.codes('GET', '/healthz', q, h), '400', format('%s and %s are no query and headers', q, h))
  FROM (VALUES ('[]'::jsonb, '{}'::jsonb), ('{}', '"x"'), ('1', 'null')) v (q, h);
SELECT is(pg_temp.codes('GET', '/' || repeat('a', 10000)), '414', 'an address is too long');
SELECT is((SELECT (a.status, a.headers ->> 'Allow')::text FROM voiding.http(m, p) a), format('(405,%s)', w), m || ' ' || p)
  FROM (VALUES ('PUT', '/commands', '"POST, GET"'), ('POST', '/healthz', 'GET'), ('PATCH', '/commands/' || gen_random_uuid(), '"POST, GET, DELETE"'),
               ('get', '/healthz', 'GET'), (NULL, '/healthz', 'GET'), ('OPTIONS', '/queries/x', 'GET'), ('GET', '/commands/VoidDocument', 'POST')) v (m, p, w);
SELECT is((SELECT (a.status, a.body IS NULL)::text FROM voiding.http('HEAD', '/openapi.json') a), '(200,t)', 'HEAD is GET without a body');

-- bodies
SELECT is(pg_temp.codes('POST', '/commands/VoidDocument', '{}', '{}', b), w, format('body %s', left(b, 30)))
  FROM (VALUES ('{', '400'), ('{"document_id": "x"}}', '400'), ('{"document_id": "\u0000"}', '400'), ('nul', '400'), (repeat('[', 500), '400'),
               ('[]', '422 VD22B'), ('"x"', '422 VD22B'), ('null', '422 VD22B'), ('{}', '422 VD22B'), ('', '422 VD22B'),
               ('{"document_id": "x", "\"; DROP TABLE voiding.event; --": 1}', '422 VD22B'), ('{"document_id": {"x": 1}, "y": []}', '422 VD22B')) v (b, w);
SELECT is(pg_temp.codes('POST', '/commands', '{}', '{}', '{}'), '422 VD22B', 'many commands are an array');
SELECT is(pg_temp.codes('POST', '/commands/VoidDocument', '{}', '{}', repeat(' ', 1048577)), '413', 'a body is too large');
SELECT is(pg_temp.codes('POST', '/commands/VoidDocument', '{}', jsonb_build_object('Content-Type', t), '{}'), w, t)
  FROM (VALUES ('text/plain', '415'), ('application/jsonp', '415'), ('Application/JSON; charset=utf-8', '422 VD22B')) v (t, w);
SELECT is(pg_temp.codes('POST', '/commands/No%22Such', '{}', '{}', '{}'), '404 42704', 'no such command');
SELECT is(pg_temp.codes('GET', '/queries/No%2FSuch'), '404 42704', 'no such query');
SELECT is(pg_temp.codes('GET', '/documents/x?document_id=y&other=1'), '422 VD22B', 'an argument that the query has not');
SELECT is(pg_temp.codes('GET', '/reports?customer_id=a&customer_id=b'), '200', 'a name twice is a list, which is a text here');
SELECT is(pg_temp.codes('POST', format('/processes/%s/acknowledge', gen_random_uuid())), '404 VD04B', 'no such process');
SELECT is(pg_temp.codes('GET', format('/processes/%s', gen_random_uuid())), '404 VD04B', 'nor to look at');
SELECT is(pg_temp.codes('POST', '/commands/VoidDocument', '{}', '{"Idempotency-Key": "\"\""}', '{"document_id": "x"}'), '422 22023', 'a key that is none');

SELECT * FROM finish();
ROLLBACK;
