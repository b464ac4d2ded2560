-- Deferred triggers that a handler leaves are fired right after it, as its
-- owner; a violation belongs to its message; the caller's own triggers are
-- not fired as the handler's owner, and the caller's constraints keep their
-- mode. (What would fire at COMMIT: test/t/hostile_commit.pl.)
-- By hand: handlers run in the transaction of the test.
BEGIN;
SELECT plan(11);

CREATE ROLE regress_mal;
GRANT USAGE ON SCHEMA voiding TO regress_mal;
GRANT EXECUTE ON FUNCTION voiding.create_service, voiding.subscribe, voiding.emit TO regress_mal;
CREATE SCHEMA regress_mal AUTHORIZATION regress_mal;
CREATE TABLE seen (what text, who text DEFAULT current_user);
GRANT INSERT ON seen TO PUBLIC;

SET LOCAL ROLE regress_mal;
SELECT voiding.create_service('regress_mal');
CREATE FUNCTION regress_mal.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.x < 0 THEN
    RAISE EXCEPTION 'negative';
  END IF;
  INSERT INTO public.seen (what) VALUES (TG_ARGV[0]);
  RETURN NULL;
END $$;
CREATE TABLE regress_mal.t (x int);
CREATE CONSTRAINT TRIGGER t AFTER INSERT ON regress_mal.t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION regress_mal.note('handler');
CREATE FUNCTION regress_mal.h(x int) RETURNS void LANGUAGE sql AS $$
  INSERT INTO regress_mal.t VALUES (x);
  INSERT INTO public.seen (what) SELECT 'end' || count(*) FROM regress_mal.t
$$;
SELECT voiding.subscribe('RegressE', 'regress_mal.h');
SELECT voiding.emit('RegressE', 'a', '{"x": 1}', 'regress_mal');
SELECT voiding.emit('RegressE', 'b', '{"x": -1}', 'regress_mal');
RESET ROLE;
GRANT USAGE ON SCHEMA regress_mal TO PUBLIC;

-- the caller has a pending trigger of its own
CREATE TABLE regress_own (x int);
CREATE CONSTRAINT TRIGGER t AFTER INSERT ON regress_own DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION regress_mal.note('caller');
CREATE TABLE regress_unique (x int UNIQUE DEFERRABLE INITIALLY IMMEDIATE);
CREATE TABLE regress_late (x int UNIQUE DEFERRABLE INITIALLY DEFERRED);
INSERT INTO regress_own VALUES (1);
SELECT voiding.dispatch();
SELECT is((SELECT array_agg(who) FROM seen WHERE what = 'handler'), ARRAY['regress_mal'], 'the handler''s trigger was fired once, as its owner');
SELECT is((SELECT array_agg(who) FROM seen WHERE what = 'caller'), ARRAY[session_user::text], 'the caller''s was fired once, as the caller');
SELECT is((SELECT array_agg(what ORDER BY ctid) FROM seen WHERE what <> 'caller'), ARRAY['end1', 'handler'], 'a deferred trigger waits for the end of its handler');
SELECT is((SELECT left(error, 5) FROM voiding.outbox WHERE aggregateid = 'b'), 'P0001', 'a violation fails its message');
SELECT results_eq('SELECT x FROM regress_mal.t', ARRAY[1], 'and takes back what that one did');

-- nothing is left for later
SET CONSTRAINTS ALL IMMEDIATE;
SELECT is((SELECT count(*)::int FROM seen WHERE what IN ('handler', 'caller')), 2, 'no trigger is left');
SET CONSTRAINTS ALL DEFERRED;
SELECT voiding.dispatch();
INSERT INTO regress_unique VALUES (1), (1);
SELECT throws_ok('SET CONSTRAINTS ALL IMMEDIATE', '23505', NULL, 'what the caller deferred stays deferred');
DELETE FROM regress_unique;
SET CONSTRAINTS ALL IMMEDIATE;
SELECT voiding.dispatch();
SELECT throws_ok('INSERT INTO regress_late VALUES (1), (1)', '23505', NULL, 'what the caller made immediate stays immediate');

SELECT is_empty('SELECT * FROM voiding.check_invariants()', 'the engine holds');
SELECT is_empty('SELECT * FROM billing.check_invariants()', 'Billing holds');
SELECT is_empty('SELECT * FROM reports.check_invariants()', 'Reports holds');

SELECT * FROM finish();
ROLLBACK;
