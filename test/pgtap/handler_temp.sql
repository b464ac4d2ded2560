-- A handler cannot plant temporary types and functions, which the session that
-- dispatches would find before PostgreSQL's own.
-- By hand: handlers run in the transaction of the test.
BEGIN;
SELECT plan(4);

CREATE ROLE regress_mal;
GRANT USAGE ON SCHEMA voiding TO regress_mal;
GRANT EXECUTE ON FUNCTION voiding.create_service, voiding.subscribe, voiding.emit TO regress_mal;
CREATE SCHEMA regress_mal AUTHORIZATION regress_mal;

SET LOCAL ROLE regress_mal;
SELECT voiding.create_service('regress_mal');
CREATE FUNCTION regress_mal.h(x text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE x; END $$;
SELECT voiding.subscribe('RegressE', 'regress_mal.h');
SELECT voiding.emit('RegressE', 'domain', '{"x": "CREATE DOMAIN pg_temp.date AS pg_catalog.date CHECK (true)"}', 'regress_mal');
SELECT voiding.emit('RegressE', 'type', '{"x": "CREATE TYPE pg_temp.regress AS (a int)"}', 'regress_mal');
SELECT voiding.emit('RegressE', 'function', '{"x": "CREATE FUNCTION pg_temp.regress() RETURNS int LANGUAGE sql AS ''SELECT 1''"}', 'regress_mal');
RESET ROLE;

SELECT is(voiding.dispatch(), 3, 'three messages are tried');
SELECT results_eq($$ SELECT aggregateid, left(error, 5) FROM voiding.outbox WHERE destination = 'regress_mal' ORDER BY 1 $$,
  $$ VALUES ('domain', '42501'), ('function', '42501'), ('type', '42501') $$, 'each is refused');
SELECT is_empty($$ SELECT typname FROM pg_type WHERE typnamespace = pg_my_temp_schema() AND typname IN ('date', 'regress') $$, 'no temporary type is left');
SELECT is_empty($$ SELECT proname FROM pg_proc WHERE pronamespace = pg_my_temp_schema() AND proname = 'regress' $$, 'and no function');

SELECT * FROM finish();
ROLLBACK;
