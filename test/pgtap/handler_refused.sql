-- What a handler may not do at all fails that message alone; others of the
-- same round are handled.
-- By hand: handlers run in the transaction of the test.
BEGIN;
SELECT plan(13);

CREATE ROLE regress_mal;
GRANT USAGE ON SCHEMA voiding TO regress_mal;
GRANT EXECUTE ON FUNCTION voiding.create_service, voiding.subscribe, voiding.emit, voiding.dispatch, voiding.wait_until_idle TO regress_mal;
CREATE SCHEMA regress_mal AUTHORIZATION regress_mal;

SET LOCAL ROLE regress_mal;
SELECT voiding.create_service('regress_mal');
CREATE TABLE regress_mal.seen (what text, error text);
CREATE FUNCTION regress_mal.do(what text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO seen VALUES (what);
  EXECUTE what;
END $$;
CREATE PROCEDURE regress_mal.commits() LANGUAGE plpgsql AS $$ BEGIN COMMIT; END $$;
CREATE PROCEDURE regress_mal.rolls_back() LANGUAGE plpgsql AS $$ BEGIN ROLLBACK; END $$;
SELECT voiding.subscribe('RegressDo', 'regress_mal.do');
SELECT voiding.emit('RegressDo', 's' || n, jsonb_build_object('what', w), 'regress_mal')
  FROM unnest(ARRAY['SELECT 1', 'SELECT voiding.dispatch()', 'CALL regress_mal.commits()', 'CALL regress_mal.rolls_back()', 'COMMIT', 'ROLLBACK',
                    'SAVEPOINT s', 'VACUUM', 'DISCARD ALL', $$SELECT voiding.wait_until_idle('1s')$$,
                    'PREPARE TRANSACTION ''x''', 'SELECT 2']) WITH ORDINALITY u(w, n);
RESET ROLE;
SET LOCAL voiding.retry_base = '5 min';

SELECT is(voiding.dispatch(), 12, 'all messages of the round are dealt with');
SELECT set_eq('SELECT what FROM regress_mal.seen', ARRAY['SELECT 1', 'SELECT 2'], 'the two good ones are handled, the others left nothing');
SELECT is((SELECT count(*)::int FROM voiding.outbox WHERE destination = 'regress_mal' AND attempts = 1), 10, 'the others are to be tried again');
SELECT is((SELECT left(error, 5) FROM voiding.outbox WHERE payload ->> 'what' ~ 'dispatch'), '55000', 'dispatch() is refused');
SELECT is((SELECT left(error, 5) FROM voiding.outbox WHERE payload ->> 'what' ~ 'wait'), 'VD25A', 'a wait is refused');
SELECT is((SELECT left(error, 5) FROM voiding.outbox WHERE payload ->> 'what' ~ 'commits'), '2D000', 'COMMIT in a procedure is refused');
SELECT is((SELECT left(error, 5) FROM voiding.outbox WHERE payload ->> 'what' ~ 'rolls_back'), '2D000', 'ROLLBACK in a procedure is refused');
SELECT is((SELECT left(error, 5) FROM voiding.outbox WHERE payload ->> 'what' = 'COMMIT'), '0A000', 'COMMIT is refused');
SELECT isnt_empty($$ SELECT 1 FROM voiding.outbox WHERE payload ->> 'what' = 'VACUUM' $$, 'VACUUM is refused');
SELECT isnt_empty($$ SELECT 1 FROM voiding.outbox WHERE payload ->> 'what' = 'DISCARD ALL' $$, 'DISCARD ALL is refused');
SELECT is(current_user, session_user, 'the session has its role');
SELECT is(voiding.dispatch(), 0, 'nothing is due at once');
SELECT is_empty('SELECT * FROM voiding.check_invariants()', 'the engine holds');

SELECT * FROM finish();
ROLLBACK;
