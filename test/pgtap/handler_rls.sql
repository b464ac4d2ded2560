-- Row level security of a service's tables holds for handlers: they are their
-- owner, not the dispatcher, who as a superuser would see every row.
-- By hand: handlers run in the transaction of the test.
BEGIN;
SELECT plan(5);

CREATE ROLE regress_ann; CREATE ROLE regress_bob;
GRANT USAGE ON SCHEMA voiding TO regress_ann, regress_bob;
GRANT EXECUTE ON FUNCTION voiding.create_service, voiding.subscribe, voiding.emit TO regress_ann, regress_bob;
CREATE SCHEMA regress_ann AUTHORIZATION regress_ann;
CREATE SCHEMA regress_bob AUTHORIZATION regress_bob;

SET LOCAL ROLE regress_ann;
CREATE TABLE regress_ann.t (x int, whose text);
INSERT INTO regress_ann.t VALUES (1, 'regress_ann'), (2, 'regress_bob');
ALTER TABLE regress_ann.t ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON regress_ann.t USING (whose = current_user);
GRANT USAGE ON SCHEMA regress_ann TO regress_bob;
GRANT SELECT, DELETE ON regress_ann.t TO regress_bob;

SET LOCAL ROLE regress_bob;
SELECT voiding.create_service('regress_bob');
CREATE TABLE regress_bob.seen (x int);
CREATE FUNCTION regress_bob.h() RETURNS void LANGUAGE sql AS $$
  INSERT INTO regress_bob.seen SELECT x FROM regress_ann.t;
  DELETE FROM regress_ann.t
$$;
SELECT voiding.subscribe('RegressE', 'regress_bob.h');
SELECT voiding.emit('RegressE', 's', '{}', 'regress_bob');
RESET ROLE;
SELECT is((SELECT count(*)::int FROM regress_ann.t), 2, 'the superuser sees two rows');
SELECT is(voiding.dispatch(), 1, 'he dispatches');
SELECT results_eq('SELECT x FROM regress_bob.seen', ARRAY[2], 'bob''s handler sees bob''s row');
SELECT results_eq('SELECT x FROM regress_ann.t', ARRAY[1], 'and deletes bob''s row');
SELECT is((SELECT count(*)::int FROM voiding.outbox WHERE destination = 'regress_bob'), 0, 'it did not fail');

SELECT * FROM finish();
ROLLBACK;
