-- Settings that a handler changes are put back after it, whether it succeeds
-- or fails; what the caller's session looks names up in does not matter to it.
-- By hand: handlers run in the transaction of the test.
BEGIN;
SELECT plan(12);

CREATE ROLE regress_mal;
GRANT USAGE ON SCHEMA voiding TO regress_mal;
GRANT EXECUTE ON FUNCTION voiding.create_service, voiding.subscribe, voiding.emit TO regress_mal;
CREATE SCHEMA regress_mal AUTHORIZATION regress_mal;
CREATE SCHEMA regress_trap;
GRANT USAGE ON SCHEMA regress_trap TO PUBLIC;

SET LOCAL ROLE regress_mal;
SELECT voiding.create_service('regress_mal');
CREATE TABLE regress_mal.seen (what text, path text DEFAULT current_setting('search_path'), value text);
CREATE TABLE regress_mal.item (x text);
CREATE FUNCTION regress_mal.change(fail boolean) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO seen (what, value) VALUES ('before', current_setting('TimeZone'));
  SET TimeZone = 'Asia/Tokyo';
  SET search_path = regress_trap, public;
  SET LOCAL work_mem = '123kB';
  PERFORM set_config('DateStyle', 'German', false);
  PERFORM set_config('regress.placeholder', 'changed', false);
  IF fail THEN
    RAISE EXCEPTION 'as told';
  END IF;
END $$;
CREATE FUNCTION regress_mal.look() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO seen (what, value) VALUES ('after', current_setting('TimeZone'));
  INSERT INTO item VALUES (lower('A'));
END $$;
SELECT voiding.subscribe('RegressChange', 'regress_mal.change');
SELECT voiding.subscribe('RegressLook', 'regress_mal.look');
SELECT voiding.emit('RegressChange', 'a', '{"fail": false}', 'regress_mal');
SELECT voiding.emit('RegressLook', 'a', '{}', 'regress_mal');
RESET ROLE;

-- the caller's own path leads to traps: a table, a function, an operator
CREATE TABLE regress_trap.seen (what text, path text, value text);
CREATE TABLE regress_trap.item (x text);
CREATE FUNCTION regress_trap.lower(text) RETURNS text LANGUAGE sql AS $$ SELECT 'trapped' $$;
GRANT ALL ON ALL TABLES IN SCHEMA regress_trap TO PUBLIC;
SET LOCAL TimeZone = 'Europe/Berlin';
SET LOCAL DateStyle = 'ISO, MDY';
SET LOCAL work_mem = '4MB';
SELECT set_config('regress.placeholder', 'mine', true);
SELECT set_config('search_path', 'regress_trap, pg_catalog, ' || current_setting('search_path'), true);
SELECT voiding.dispatch();
SELECT is(current_setting('TimeZone'), 'Europe/Berlin', 'SET is put back');
SELECT is(current_setting('work_mem'), '4MB', 'SET LOCAL is put back');
SELECT is(current_setting('DateStyle'), 'ISO, MDY', 'set_config() is put back');
SELECT is(current_setting('regress.placeholder'), 'mine', 'a setting of the caller''s own is put back');
SELECT alike(current_setting('search_path'), 'regress_trap, pg_catalog%', 'search_path is put back');
SELECT is((SELECT value FROM regress_mal.seen WHERE what = 'after'), 'Europe/Berlin', 'the next handler does not see them');
SELECT is_empty($$ SELECT what, path FROM regress_mal.seen WHERE path <> 'regress_mal, pg_temp' $$,
  'a handler looks in its service''s schema, with temporary objects last');
SELECT is_empty('SELECT 1 FROM regress_trap.seen UNION ALL SELECT 1 FROM regress_trap.item', 'nothing went into the caller''s tables');
SELECT results_eq('SELECT x FROM regress_mal.item', ARRAY['a'], 'nor was a function of the caller''s called');

-- the same for one that fails
SET LOCAL ROLE regress_mal;
SELECT voiding.emit('RegressChange', 'b', '{"fail": true}', 'regress_mal');
RESET ROLE;
SELECT voiding.dispatch();
SELECT is(current_setting('TimeZone') || current_setting('work_mem') || current_setting('DateStyle'), 'Europe/Berlin4MBISO, MDY',
  'a handler that fails leaves no setting behind');
SELECT is(current_user, session_user, 'nor its role');
SELECT is((SELECT attempts FROM voiding.outbox WHERE destination = 'regress_mal'), 1, 'it is put back, to be tried again');

SELECT * FROM finish();
ROLLBACK;
