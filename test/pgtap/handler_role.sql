-- A handler runs as the owner of its function and cannot get at the rights of
-- the role that dispatches, here a superuser.
-- By hand: handlers run in the transaction of the test.
BEGIN;
SELECT plan(14);

CREATE ROLE regress_mal;
GRANT USAGE ON SCHEMA voiding TO regress_mal;
GRANT EXECUTE ON FUNCTION voiding.create_service, voiding.create_command, voiding.subscribe, voiding.emit TO regress_mal;
CREATE SCHEMA regress_mal AUTHORIZATION regress_mal;
CREATE TABLE regress_secret (x int);  -- of the superuser

SET LOCAL ROLE regress_mal;
SELECT voiding.create_service('regress_mal');
CREATE TABLE regress_mal.seen (what text, who text DEFAULT current_user, error text);
-- does what the message says, then writes down as whom, and with which error
CREATE FUNCTION regress_mal.h(what text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  BEGIN
    EXECUTE what;
    INSERT INTO regress_mal.seen (what) VALUES (what);
  EXCEPTION WHEN others THEN
    INSERT INTO regress_mal.seen (what, error) VALUES (what, sqlstate);
  END;
END $$;
SELECT voiding.subscribe('RegressDo', 'regress_mal.h');
SELECT voiding.emit('RegressDo', 's' || n, jsonb_build_object('what', w), 'regress_mal')
  FROM unnest(ARRAY[
    'SELECT 1', 'RESET ROLE', 'SET ROLE NONE', 'SET ROLE postgres', 'SET LOCAL ROLE postgres', 'SET SESSION AUTHORIZATION DEFAULT',
    'SET SESSION AUTHORIZATION postgres', 'RESET SESSION AUTHORIZATION', $$SELECT set_config('role', 'postgres', false)$$,
    $$SELECT set_config('role', 'none', true)$$, $$SELECT set_config('session_authorization', 'postgres', false)$$,
    'RESET ALL', 'INSERT INTO public.regress_secret VALUES (1)', 'ALTER ROLE regress_mal SUPERUSER',
    'DELETE FROM voiding.outbox', 'SET voiding.retry_limit = 1', 'SET session_replication_role = replica',
    'CREATE FUNCTION regress_mal.r() RETURNS int LANGUAGE sql SET role = postgres AS $x$ INSERT INTO public.regress_secret VALUES (1) RETURNING 1 $x$; SELECT regress_mal.r()'
  ]) WITH ORDINALITY u(w, n);
RESET ROLE;

SELECT is(voiding.dispatch(), 18, 'all are handled');
SELECT is((SELECT count(*)::int FROM regress_mal.seen), 18, 'and have left their row');
SELECT is_empty($$ SELECT what, who FROM regress_mal.seen WHERE who <> 'regress_mal' $$, 'whatever it did, it stayed its owner');
SELECT is((SELECT error FROM regress_mal.seen WHERE what = 'SELECT 1'), NULL, 'the harmless one did what it was to do');
SELECT is_empty($$ SELECT what FROM regress_mal.seen WHERE what ~ '(ROLE|AUTHORIZATION|set_config)' AND error IS NULL $$,
  'no way to another role');
SELECT is_empty('SELECT * FROM regress_secret', 'nothing of the superuser''s was written');
SELECT is((SELECT error FROM regress_mal.seen WHERE what ~ '^INSERT'), '42501', 'a table of the superuser''s is refused');
SELECT is((SELECT error FROM regress_mal.seen WHERE what ~ '^DELETE'), '42501', 'a table of the engine is refused');
SELECT is((SELECT error FROM regress_mal.seen WHERE what ~ 'retry_limit'), '42501', 'a superuser''s setting is refused');
SELECT is((SELECT error FROM regress_mal.seen WHERE what ~ 'replication_role'), '42501', 'and another one');
SELECT is((SELECT rolsuper FROM pg_roles WHERE rolname = 'regress_mal'), false, 'it is no superuser');
SELECT is(current_user, session_user, 'and the session is what it was');

-- dispatched by another role, it is still its owner
CREATE ROLE regress_dispatcher;
GRANT USAGE ON SCHEMA voiding TO regress_dispatcher;
GRANT EXECUTE ON FUNCTION voiding.dispatch TO regress_dispatcher;
TRUNCATE regress_mal.seen;
SET LOCAL ROLE regress_mal;
SELECT voiding.emit('RegressDo', 's', '{"what": "SELECT 1"}', 'regress_mal');
SET LOCAL ROLE regress_dispatcher;
SELECT voiding.dispatch();
SELECT is(current_user, 'regress_dispatcher', 'a dispatcher stays what it is');
RESET ROLE;
SELECT is((SELECT who FROM regress_mal.seen), 'regress_mal', 'a handler runs as its owner, whoever dispatches');

SELECT * FROM finish();
ROLLBACK;
