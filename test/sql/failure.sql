-- A handler that fails: the rest of the batch goes on, what is behind it for
-- its key waits, it is tried again later and later, then it is a dead letter,
-- and its process hears of it.
\set ECHO none
\i test/lib/database.sql
SELECT voiding.create_service('mill');
CREATE TABLE mill.ground (n int GENERATED ALWAYS AS IDENTITY, key text, i int);
CREATE TABLE mill.broken (key text PRIMARY KEY, code text DEFAULT 'P0001');
CREATE FUNCTION mill.grind(key text, i int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  b mill.broken;
BEGIN
  INSERT INTO mill.ground (key, i) VALUES (grind.key, grind.i);
  SELECT * INTO b FROM mill.broken x WHERE x.key = grind.key;
  IF FOUND THEN
    RAISE EXCEPTION 'the stone is broken' USING ERRCODE = b.code, DETAIL = 'It must be mended.';
  END IF;
END $$;
SELECT voiding.subscribe('Harvested', 'mill.grind');
CREATE FUNCTION harvest(key text, i int) RETURNS boolean LANGUAGE sql AS
  $$ SELECT voiding.emit('Harvested', key, jsonb_build_object('key', key, 'i', i), 'billing') IS NOT NULL $$;
CREATE VIEW waiting AS SELECT aggregateid AS key, payload -> 'i' AS i, attempts, error, available_at > voiding.now() AS later FROM voiding.outbox ORDER BY seq;
-- 3 of 30 keys are broken, in between
INSERT INTO mill.broken VALUES ('key 7', 'P0001'), ('key 8', '40001'), ('key 23', '57014');
CALL test.set('voiding.retry_limit', '3');
CALL test.set('voiding.retry_base', '1 min');
SELECT count(harvest('key ' || k, i)) FROM generate_series(1, 2) i, generate_series(1, 30) k;
CALL test.settle();
SELECT count(*), count(DISTINCT key) FROM mill.ground;
SELECT * FROM waiting;
-- nothing is left of the attempt, and it is not tried before its time
SELECT count(*) FROM mill.ground WHERE key IN ('key 7', 'key 8', 'key 23');
CALL test.settle();
-- half a minute to one and a half, then twice as long
SELECT count(*) FROM voiding.outbox WHERE attempts = 1 AND available_at - created_at BETWEEN '29 s' AND '92 s';
CALL test.set('voiding.clock_offset', '100');
CALL test.settle();
SELECT * FROM waiting;
SELECT count(*) FROM voiding.outbox WHERE attempts = 2 AND available_at - voiding.now() BETWEEN '55 s' AND '181 s';
-- one is mended meanwhile: it goes on, in its order
DELETE FROM mill.broken WHERE key = 'key 8';
CALL test.set('voiding.clock_offset', '300');
CALL test.settle();
SELECT key, i FROM mill.ground WHERE key IN ('key 7', 'key 8', 'key 23') ORDER BY n;
-- the others have given up: dead letters, and what was behind them is next
SELECT aggregateid, payload -> 'i' AS i, destination, type, attempts, sqlstate, error, failed_at IS NOT NULL AS at FROM voiding.dead_letter ORDER BY seq;
SELECT * FROM waiting;
DELETE FROM mill.broken WHERE key = 'key 23';
-- by hand: the message that waits at once, the dead one again
SELECT id FROM voiding.outbox WHERE aggregateid = 'key 23' \gset
BEGIN;
SELECT voiding.retry_message(:'id', 'mended');
SELECT * FROM waiting;
SELECT id FROM voiding.dead_letter WHERE aggregateid = 'key 23' \gset
SELECT voiding.retry_message(:'id', 'mended');
COMMIT;
CALL test.settle();
-- it came back to its old place in the order
SELECT key, i FROM mill.ground WHERE key = 'key 23' ORDER BY n;
-- who repaired what and why is an event of the engine
SELECT type, source, subject, data ->> 'by' = current_user AS by, data ->> 'reason' AS reason, data ->> 'type' AS of FROM voiding.event WHERE source = 'voiding' ORDER BY position;
-- discarding needs a reason
SELECT id FROM voiding.dead_letter WHERE aggregateid = 'key 7' \gset
SELECT voiding.discard_message(:'id', '');
SELECT voiding.discard_message(:'id', NULL);
SELECT voiding.discard_message(:'id', 'cannot be mended');
\set VERBOSITY sqlstate
SELECT voiding.discard_message(:'id', 'again');
SELECT voiding.retry_message(:'id');
\set VERBOSITY default
SELECT count(*) FROM voiding.dead_letter;
DELETE FROM mill.broken;
CALL test.set('voiding.clock_offset', '1000');
CALL test.settle();
SELECT key, i FROM mill.ground WHERE key = 'key 7' ORDER BY n;
SELECT count(*) FROM voiding.outbox;
-- what has not failed is not retried
\set ON_ERROR_ROLLBACK on
BEGIN;
SELECT harvest('fresh', 1);
SELECT id FROM voiding.outbox \gset
\set VERBOSITY sqlstate
SELECT voiding.retry_message(:'id');
\set VERBOSITY default
SELECT * FROM waiting;
SELECT voiding.discard_message(:'id', 'not wanted');
COMMIT;
SELECT * FROM waiting;

-- the wait has a longest; twelve attempts by hand
CALL test.by_hand();
SET voiding.retry_limit = 20;
SET voiding.retry_max = '10 min';
INSERT INTO mill.broken VALUES ('k');
SELECT harvest('k', 1);
DO $$ BEGIN
  FOR i IN 1 .. 12 LOOP
    PERFORM set_config('voiding.clock_offset', (1000 + i * 1000)::text, false);
    PERFORM voiding.dispatch();
  END LOOP;
END $$;
SELECT attempts, available_at - voiding.now() BETWEEN '4.9 min' AND '15 min' AS capped FROM voiding.outbox;
SELECT count(voiding.discard_message(id, 'enough')) FROM voiding.outbox;
DELETE FROM mill.broken;

-- a handler that was dropped, replaced, or taken off the list while messages wait
CALL test.set('voiding.retry_limit', '2');
CALL test.set('voiding.clock_offset', '0');
CALL test.as_asked();
BEGIN;
SELECT harvest('dropped', 1);
SELECT voiding.unsubscribe('Harvested', 'mill');
\echo :LAST_ERROR_SQLSTATE
DROP FUNCTION mill.grind(text, int);
COMMIT;
CALL test.settle();
SELECT * FROM waiting;
CREATE FUNCTION mill.grind(key text, i int, extra text DEFAULT 'x') RETURNS void LANGUAGE sql AS $$ INSERT INTO mill.ground (key, i) VALUES (key || ' other signature', i) $$;
CALL test.set('voiding.clock_offset', '100');
CALL test.settle();
SELECT aggregateid, sqlstate, error FROM voiding.dead_letter;
DROP FUNCTION mill.grind(text, int, text);
CREATE FUNCTION mill.grind(key text, i int) RETURNS void LANGUAGE sql AS $$ INSERT INTO mill.ground (key, i) VALUES (key || ' new', i) $$;
SELECT voiding.retry_message(id, 'made again') FROM voiding.dead_letter;
CALL test.settle();
SELECT key, i FROM mill.ground WHERE key LIKE 'dropped%';
-- replaced in the same session: the new one runs
CREATE OR REPLACE FUNCTION mill.grind(key text, i int) RETURNS void LANGUAGE sql AS $$ INSERT INTO mill.ground (key, i) VALUES (key || ' newer', i) $$;
SELECT harvest('replaced', 1);
CALL test.settle();
SELECT key FROM mill.ground WHERE key LIKE 'replaced%';
-- the row of the handler is gone: such a message fails where people can see it
BEGIN;
SELECT harvest('orphan', 1);
DELETE FROM voiding.handler WHERE type = 'Harvested';
SELECT voiding.definitions_changed();
COMMIT;
CALL test.settle();
SELECT * FROM waiting;
SELECT count(voiding.discard_message(id, 'nobody wants it')) FROM voiding.outbox;

-- rights: who may register what
CREATE ROLE regress_miller;
CREATE ROLE regress_thief;
GRANT USAGE ON SCHEMA voiding, mill TO regress_miller, regress_thief;
GRANT EXECUTE ON FUNCTION voiding.subscribe TO regress_miller, regress_thief;
CREATE FUNCTION mill.theirs(key text) RETURNS void LANGUAGE sql AS $$ INSERT INTO mill.ground (key) VALUES (current_user) $$;
ALTER FUNCTION mill.theirs OWNER TO regress_thief;
-- not one's own service
SET ROLE regress_thief;
SELECT voiding.subscribe('Harvested', 'mill.theirs');
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
SELECT voiding.create_service('wind_mill', 'regress_miller');
-- one's own service, but somebody else's function
SET ROLE regress_miller;
SELECT voiding.subscribe('Harvested', 'mill.theirs', 'wind_mill');
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
-- a handler runs as whoever owns it when it runs, with that one's rights only
SELECT voiding.subscribe('Harvested', 'mill.theirs');
SELECT harvest('rights', 1);
CALL test.settle();
SELECT error FROM waiting;
GRANT INSERT ON mill.ground TO regress_miller;
ALTER FUNCTION mill.theirs OWNER TO regress_miller;
SELECT count(voiding.retry_message(id)) FROM voiding.outbox;
CALL test.settle();
SELECT key FROM mill.ground ORDER BY n DESC LIMIT 1;

SELECT * FROM voiding.check_invariants() UNION ALL SELECT * FROM billing.check_invariants() UNION ALL SELECT * FROM reports.check_invariants();
CALL test.by_hand();
\c contrib_regression
DROP DATABASE regress_voiding;
DROP ROLE regress_miller;
DROP ROLE regress_thief;
