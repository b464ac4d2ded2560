-- The feed of tasks: each change once, and what one does not see any more as a
-- tombstone; to others nothing.
\set ECHO none
\i test/lib/database.sql
CALL test.by_hand();
SET client_min_messages = warning;
DROP ROLE IF EXISTS regress_crew, regress_night, regress_anna, regress_emil;
CREATE ROLE regress_crew; CREATE ROLE regress_night;
CREATE ROLE regress_anna IN ROLE regress_crew; CREATE ROLE regress_emil;
GRANT USAGE ON SCHEMA voiding TO regress_crew, regress_emil; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA voiding TO regress_crew, regress_emil;
GRANT SELECT ON voiding.my_task, voiding.task TO regress_crew;
SELECT voiding.create_service('field');
SELECT voiding.create_task_type('visit', '{"roles": ["regress_crew"], "made_by": {"Wanted": {"key": "$.event.id"}}}', 'field');
-- a phone: what it has, and its cursor
CREATE TABLE phone (who name PRIMARY KEY, cursor text);
GRANT ALL ON phone TO regress_crew, regress_emil;
CREATE FUNCTION sync(batch integer DEFAULT 2) RETURNS TABLE (key text, state text) LANGUAGE plpgsql AS $$
DECLARE
  c text := (SELECT p.cursor FROM phone p WHERE p.who = current_user);
  n integer := 1;
  f record;
BEGIN
  WHILE n > 0 LOOP
    n := 0;
    FOR f IN SELECT x.cursor, coalesce((x.task).key, 'gone') AS key, (x.task).state FROM voiding.task_changes(c, batch) x LOOP
      n := n + 1;
      c := f.cursor;
      key := f.key;
      state := f.state;
      RETURN NEXT;
    END LOOP;
  END LOOP;
  INSERT INTO phone VALUES (current_user, c) ON CONFLICT ON CONSTRAINT phone_pkey DO UPDATE SET cursor = c;
END $$;
SELECT count(voiding.emit('Wanted', 'v' || i, jsonb_build_object('id', 'v' || i), 'field')) FROM generate_series(1, 5) i;
SELECT voiding.dispatch();
SET ROLE regress_anna;
SELECT * FROM sync() ORDER BY key;
SELECT * FROM sync() ORDER BY key;
SELECT key FROM voiding.next_task();
SELECT * FROM sync() ORDER BY key;
-- twice changed, told once
SELECT (voiding.complete_task(task_id)).state FROM voiding.my_task;
SELECT (voiding.claim_task(task_id)).state FROM voiding.task WHERE key = 'v2';
SELECT (voiding.release_task(task_id)).state FROM voiding.task WHERE key = 'v2';
SELECT * FROM sync() ORDER BY key;
-- taken away: a tombstone, once; to others nothing at all
RESET ROLE;
SELECT (voiding.assign_task(task_id, 'regress_night')).state FROM voiding.task WHERE key = 'v3';
SET ROLE regress_emil;
SELECT * FROM sync() ORDER BY key;
SET ROLE regress_anna;
SELECT * FROM sync() ORDER BY key;
SELECT * FROM sync() ORDER BY key;
-- what one has never seen has no tombstone: a phone that begins
SELECT f.task IS NULL AS gone, count(*) FROM voiding.task_changes() f GROUP BY 1;
RESET ROLE;
SELECT (voiding.assign_task(task_id, 'regress_crew')).state FROM voiding.task WHERE key = 'v3';
SET ROLE regress_anna;
SELECT * FROM sync() ORDER BY key;
-- no cursors
SELECT * FROM voiding.task_changes('garbage');
SELECT * FROM voiding.task_changes('1:1:/2:2:/3');
SELECT * FROM voiding.task_changes(batch_size => 0);
RESET ROLE;
DROP OWNED BY regress_crew, regress_night, regress_anna, regress_emil;
DROP ROLE regress_crew, regress_night, regress_anna, regress_emil;
