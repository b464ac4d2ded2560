-- A function replaced, or given to another owner, after it was registered
-- runs with its owner's rights; one of another owner's that takes its name
-- from a cached plan does not run with the first one's.
-- By hand: handlers run in the transaction of the test.
BEGIN;
SELECT plan(7);

CREATE ROLE regress_ann; CREATE ROLE regress_bob;
GRANT USAGE ON SCHEMA voiding TO regress_ann, regress_bob;
GRANT EXECUTE ON FUNCTION voiding.create_service, voiding.subscribe, voiding.emit TO regress_ann, regress_bob;
CREATE SCHEMA regress_ann AUTHORIZATION regress_ann;
CREATE TABLE seen (who text, what text);
GRANT INSERT ON seen TO PUBLIC;

SET LOCAL ROLE regress_ann;
SELECT voiding.create_service('regress_ann');
GRANT CREATE, USAGE ON SCHEMA regress_ann TO regress_bob;
CREATE FUNCTION regress_ann.h(a text) RETURNS void LANGUAGE sql AS $$ INSERT INTO public.seen VALUES (current_user, 'first ' || a) $$;
SELECT voiding.subscribe('RegressE', 'regress_ann.h');
SELECT voiding.emit('RegressE', 's', '{"a": "1"}', 'regress_ann');
RESET ROLE;
SELECT voiding.dispatch();
SELECT results_eq('SELECT who || what FROM seen', ARRAY['regress_annfirst 1'], 'ann''s function runs as ann');

-- replaced by its owner
TRUNCATE seen;
SET LOCAL ROLE regress_ann;
CREATE OR REPLACE FUNCTION regress_ann.h(a text) RETURNS void LANGUAGE sql AS $$ INSERT INTO public.seen VALUES (current_user, 'second ' || a) $$;
SELECT voiding.emit('RegressE', 's', '{"a": "2"}', 'regress_ann');
SET LOCAL ROLE regress_bob;
SELECT throws_ok($$ CREATE OR REPLACE FUNCTION regress_ann.h(a text) RETURNS void LANGUAGE sql AS 'SELECT' $$, '42501', NULL,
  'bob does not replace it');
RESET ROLE;
SELECT voiding.dispatch();
SELECT results_eq('SELECT who || what FROM seen', ARRAY['regress_annsecond 2'], 'replaced by ann it runs as ann');

-- bob plants functions of the same name, one of which fits better
TRUNCATE seen;
SET LOCAL ROLE regress_bob;
CREATE FUNCTION regress_ann.h(a varchar) RETURNS void LANGUAGE sql AS $$ INSERT INTO public.seen VALUES (current_user, 'planted') $$;
CREATE FUNCTION regress_ann.h(a text, b text DEFAULT 'b') RETURNS void LANGUAGE sql AS $$ INSERT INTO public.seen VALUES (current_user, 'planted') $$;
SET LOCAL ROLE regress_ann;
SELECT voiding.emit('RegressE', 's', '{"a": "3"}', 'regress_ann');
SELECT voiding.emit('RegressE', 's', '{"a": "4", "b": "b"}', 'regress_ann');
RESET ROLE;
SELECT voiding.dispatch();
SELECT results_eq('SELECT who || what FROM seen', ARRAY['regress_annsecond 3', 'regress_annsecond 4'],
  'others of its name are not called instead, nor do they stop it');

-- another owner
TRUNCATE seen;
DROP FUNCTION regress_ann.h(varchar), regress_ann.h(text, text);
ALTER FUNCTION regress_ann.h(text) OWNER TO regress_bob;
SET LOCAL ROLE regress_ann;
SELECT voiding.emit('RegressE', 't', '{"a": "5"}', 'regress_ann');
RESET ROLE;
SELECT voiding.dispatch();
SELECT results_eq('SELECT who || what FROM seen', ARRAY['regress_bobsecond 5'], 'given to bob it runs as bob');

-- dropped, and made again by another owner
TRUNCATE seen;
SET LOCAL ROLE regress_ann;
DROP FUNCTION regress_ann.h(text);
SET LOCAL ROLE regress_bob;
CREATE FUNCTION regress_ann.h(a text) RETURNS void LANGUAGE sql AS $$ INSERT INTO public.seen VALUES (current_user, 'made again') $$;
SET LOCAL ROLE regress_ann;
SELECT voiding.emit('RegressE', 'u', '{"a": "6"}', 'regress_ann');
RESET ROLE;
SELECT voiding.dispatch();
SELECT is_empty($$ SELECT * FROM seen WHERE who <> 'regress_bob' $$, 'made again by bob it does not run as ann');
SELECT is_empty('SELECT * FROM voiding.check_invariants()', 'the engine holds');

SELECT * FROM finish();
ROLLBACK;
