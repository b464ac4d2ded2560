-- The OpenAPI document and the routes are the same list, and each route is
-- served.
BEGIN;
SELECT plan(18);

SELECT a.status, a.body AS doc FROM voiding.http('GET', '/openapi.json') a \gset
CREATE TEMP TABLE doc AS SELECT :'doc'::jsonb AS doc;
CREATE TEMP TABLE operation AS
  SELECT upper(m.key) AS method, p.key AS path, m.value AS o FROM doc, jsonb_each(doc -> 'paths') p, jsonb_each(p.value) m;

SELECT is(:status, 200, 'there is one');
SELECT is((SELECT (doc ->> 'openapi', doc #>> '{info,title}', doc #>> '{info,version}' <> '')::text FROM doc), '(3.1.0,voiding,t)', 'of version 3.1');
SELECT set_eq($$ SELECT method, path FROM operation $$, $$ SELECT method, replace(path, ':uuid', '') FROM voiding.route $$, 'it has every route, and no other');
SELECT is_empty($$ SELECT o ->> 'operationId' FROM operation GROUP BY 1 HAVING count(*) > 1 OR (o ->> 'operationId') IS NULL $$, 'each has a name of its own');
SELECT is_empty($$ SELECT method, path FROM operation WHERE coalesce(o ->> 'summary', '') = '' OR jsonb_typeof(o -> 'responses') <> 'object' $$, 'and says what it is');
SELECT is_empty($$ SELECT path, r.key FROM operation, jsonb_each(o -> 'responses') r WHERE coalesce(r.value ->> 'description', '') = '' OR r.key !~ '^([1-5]\d\d|default)$' $$,
  'each answer has a description');
SELECT set_eq($$ SELECT method, path, p ->> 'name' FROM operation, jsonb_array_elements(o -> 'parameters') p WHERE p ->> 'in' = 'path' AND p -> 'required' = 'true' $$,
  $$ SELECT method, path, m[1] FROM operation, regexp_matches(path, '\{(\w+)\}', 'g') m $$, 'the parameters of a path are those in its address');
SELECT is_empty($$ SELECT path, p FROM operation, jsonb_array_elements(o -> 'parameters') p
                    WHERE p ->> 'in' NOT IN ('path', 'query', 'header') OR jsonb_typeof(p -> 'schema') <> 'object' OR (p ->> 'name') IS NULL $$, 'parameters are well-formed');
SELECT is_empty($$ SELECT path, p -> 'name' FROM operation, jsonb_array_elements(o -> 'parameters') p GROUP BY method, path, p -> 'name', p -> 'in' HAVING count(*) > 1 $$, 'none is there twice');
SELECT is_empty($$ SELECT r #>> '{}' FROM doc, jsonb_path_query(doc, '$.**."$ref"') r
                    WHERE doc #> string_to_array(substr(r #>> '{}', 3), '/') IS NULL $$, 'every reference leads somewhere');
SELECT set_eq($$ SELECT o ->> 'requestBody' IS NOT NULL, method, path FROM operation $$,
  $$ SELECT takes IS NOT NULL, method, replace(path, ':uuid', '') FROM voiding.route $$, 'what takes a body says so');
SELECT is((SELECT (doc #> '{components,schemas,command.IssueDocument}') - 'description'::text FROM doc),
  '{"type": "object", "additionalProperties": false, "required": ["document_id", "customer_id", "amount"], "properties": {"document_id": {"type": "string"},
    "customer_id": {"type": "string"}, "amount": {"type": "number"}, "currency": {"type": "string"}, "kind": {"type": "string"}, "issued_at": {"type": "string", "format": "date-time"}}}',
  'a command has its arguments');

-- who may send a command or read a query is shown it: by name, and for a query as PUBLIC
CREATE ROLE reader;
GRANT USAGE ON SCHEMA voiding, billing TO reader;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA voiding TO reader;
GRANT SELECT ON voiding.route, voiding.handler, voiding.service, voiding.task_transition TO reader;
GRANT EXECUTE ON FUNCTION billing.issue_document, billing.get_document TO PUBLIC;
GRANT EXECUTE ON FUNCTION billing.void_document TO reader;
SET ROLE reader;
CREATE FUNCTION pg_temp.shown(schema text) RETURNS boolean LANGUAGE sql AS $$
  SELECT a.body::jsonb #> ARRAY['components', 'schemas', schema] IS NOT NULL FROM voiding.http('GET', '/openapi.json') a $$;
SELECT ok(pg_temp.shown('query.document'), 'a query that PUBLIC may read');
SELECT ok(pg_temp.shown('command.VoidDocument'), 'a command that was granted by name');
SELECT ok(NOT pg_temp.shown('command.IssueDocument'), 'not a command that only PUBLIC has');
SELECT throws_ok($$ SELECT voiding.send_command('IssueDocument', '{"document_id": "x", "customer_id": "c", "amount": 1}') $$, '42501', NULL, 'which cannot be sent');
RESET ROLE;

-- each route has its function, and each function its route
SELECT set_eq($$ SELECT DISTINCT 'http_' || operation FROM voiding.route $$,
  $$ SELECT proname::text FROM pg_proc WHERE pronamespace = 'voiding'::regnamespace AND pronargs = 1 AND proargtypes[0] = 'voiding.http_request'::regtype $$,
  'each route has its function, and each function its route');
SELECT is_empty($$
  SELECT r.method, r.path, a.status, a.body
    FROM voiding.route r,
         LATERAL voiding.http(r.method, regexp_replace(replace(r.path, '{name}', 'document'), '\{[a-z_]+(:uuid)?\}', '01a201aa-93fa-790b-93d0-65d3c3b78501', 'g'),
                              CASE WHEN r.path = '/queries/{name}' THEN '{"document_id": "x"}' ELSE '{}' END::jsonb) a
   WHERE a.status IN (405, 500) OR CASE WHEN a.headers ->> 'Content-Type' LIKE '%json' THEN a.body::jsonb ->> 'type' = 'about:blank' END $$, 'each route is served');

SELECT * FROM finish();
ROLLBACK;
