-- Which tasks maintain() removes, what holds the others, and that none goes
-- before all that was said about it is in the archive.
-- By hand: the clock is moved between rounds of maintain().
\set ECHO none
\i test/lib/database.sql
\set ECHO none
CALL test.by_hand();
SET voiding.workers = 0;
CREATE ROLE regress_packer;
GRANT USAGE ON SCHEMA voiding TO regress_packer;
GRANT EXECUTE ON FUNCTION voiding.next_task, voiding.act_on_task, voiding.complete_task, voiding.claim_task TO regress_packer;
SELECT voiding.create_service('shop') \gset
CREATE FUNCTION say(type text, id text) RETURNS void LANGUAGE sql AS
  $$ SELECT voiding.emit(type, id, jsonb_build_object('id', id), 'shop') $$;
-- so many days later
CREATE FUNCTION later(days numeric) RETURNS text LANGUAGE sql AS $$
  SELECT set_config('voiding.clock_offset', (extract(epoch FROM voiding.now() - now()) + days * 86400)::bigint::text, false) $$;
-- of the feed, at its end
CREATE FUNCTION cursor() RETURNS text LANGUAGE sql AS
  $$ SELECT c.cursor FROM voiding.task_changes() WITH ORDINALITY c ORDER BY c.ordinality DESC LIMIT 1 $$;
CREATE VIEW purge AS
  SELECT t.key, p.type, p.state, round(extract(epoch FROM p.purge_at - voiding.now()) / 86400) AS days_left, p.held_by
    FROM voiding.task_purge p JOIN voiding.task t USING (task_id);
\set ECHO all
SELECT voiding.create_task_type('pack', '{"service": "shop", "roles": ["regress_packer"], "ttl": "P10D",
  "made_by": {"OrderPlaced": {"key": "$.event.id"}}, "ended_by": {"OrderGone": {"key": "$.event.id"}}}');
SELECT voiding.create_task_type('praise', '{"service": "shop", "roles": ["regress_packer"],
  "made_by": {"OrderPraised": {"key": "$.event.id"}}, "ended_by": {"OrderGone": {"key": "$.event.id"}}}');
SELECT say('OrderPlaced', 'O1'), say('OrderPlaced', 'O2'), say('OrderPraised', 'O1');
CALL test.settle();
SELECT * FROM purge ORDER BY 1, 2;
SELECT cursor() AS old \gset
-- one is done, with an action that has an id; one is cancelled; one is open
SET ROLE regress_packer;
SELECT (voiding.next_task('{pack}', action_id => '00000000-0000-0000-0000-000000000001')).task_id AS id \gset
SELECT state, version FROM voiding.complete_task(:'id', action_id => '00000000-0000-0000-0000-000000000002');
RESET ROLE;
SELECT voiding.emit('OrderGone', 'O1', '{"id": "O1"}', 'shop') IS NOT NULL AS said;
CALL test.settle();
SELECT * FROM purge ORDER BY 1, 2;
SELECT cursor() AS new \gset
SELECT (task).key, (task).type, (task).state FROM voiding.task_changes(:'old') ORDER BY 1, 2;
-- what a type says later is for later tasks
SELECT voiding.create_task_type('pack', '{"service": "shop", "roles": ["regress_packer"], "ttl": "P1D",
  "made_by": {"OrderPlaced": {"key": "$.event.id"}}, "ended_by": {"OrderGone": {"key": "$.event.id"}}}');
SELECT later(9) \gset
SELECT voiding.purge_tasks(100);
SELECT * FROM purge ORDER BY 1, 2;
SELECT later(2) \gset
SELECT * FROM purge ORDER BY 1, 2;
-- not before its events are in the archive: purging alone does nothing
SELECT voiding.purge_tasks(100);
SELECT * FROM purge ORDER BY 1, 2;
-- nor when not all of them are
SELECT voiding.archive_events(1);
SELECT voiding.purge_tasks(100);
SELECT * FROM purge ORDER BY 1, 2;
-- maintain() archives, then purges; all of it or nothing
BEGIN;
SELECT voiding.maintain();
SELECT * FROM purge ORDER BY 1, 2;
ROLLBACK;
SELECT * FROM purge ORDER BY 1, 2;
SELECT count(*) FROM voiding.archive;
SELECT count(*) FROM voiding.task_action;
SELECT voiding.maintain();
SELECT * FROM purge ORDER BY 1, 2;
SELECT count(*) FROM voiding.task_action;
-- who was offline for so long begins again
SELECT count(*) FROM voiding.task_changes(:'new');
SELECT count(*) FROM voiding.task_changes();
SELECT count(*) FROM voiding.task_changes(:'old');
\echo :LAST_ERROR_SQLSTATE
-- what was restored from a server that had gone further says nothing of them
UPDATE voiding.archive_progress SET purged = '999999999999';
SELECT count(*) FROM voiding.task_changes(:'old');
SELECT type, data ->> 'state' AS state FROM voiding.history_of('O1');
-- without a time of its own: the setting
SET voiding.task_retention = 20;
SELECT * FROM purge ORDER BY 1, 2;
SET voiding.task_retention = 1;
SELECT * FROM purge ORDER BY 1, 2;
SELECT voiding.maintain();
SELECT * FROM purge ORDER BY 1, 2;
RESET voiding.task_retention;
-- what is open stays, however old; what is said about it again counts from its end
SELECT later(1000) \gset
SELECT voiding.maintain();
SELECT * FROM purge ORDER BY 1, 2;
SELECT say('OrderGone', 'O2');
CALL test.settle();
SELECT voiding.maintain();
SELECT * FROM purge ORDER BY 1, 2;
SELECT later(11) \gset
SELECT voiding.maintain();
SELECT * FROM purge ORDER BY 1, 2;
-- of a process: from its end on
SELECT voiding.create_process_type('order', '{"key": "id",
  "start": {"OrderSent": "Packing"},
  "states": {
    "Packing": {"task": {"type": "pack"}, "on": {"TaskCompleted": "Sending"}, "after": {"P5000D": "Lost"}},
    "Sending": {"on": {"OrderArrived": "Arrived"}, "after": {"P5000D": "Lost"}},
    "Arrived": {"type": "final"}, "Lost": {"type": "final", "outcome": "failed"}}}');
SELECT say('OrderSent', 'O3');
CALL test.settle();
SELECT * FROM purge ORDER BY 1, 2;
SET ROLE regress_packer;
SELECT (voiding.next_task('{pack}')).task_id AS id \gset
SELECT state FROM voiding.complete_task(:'id');
RESET ROLE;
SELECT key, state FROM voiding.ongoing_process;
SELECT later(1000) \gset
SELECT voiding.maintain();
SELECT * FROM purge ORDER BY 1, 2;
SELECT say('OrderArrived', 'O3');
CALL test.settle();
SELECT * FROM purge ORDER BY 1, 2;
SELECT later(0.5) \gset
SELECT voiding.maintain();
SELECT * FROM purge ORDER BY 1, 2;
SELECT later(0.6) \gset
-- something was said in its conversation that is not archived
SELECT voiding.engine_emit('MessageRetried', 'O3', '{}', process_id) IS NOT NULL AS said FROM voiding.finished_process;
SELECT voiding.purge_tasks(100);
SELECT * FROM purge ORDER BY 1, 2;
-- in steps
SELECT say('OrderPlaced', 'O' || i), say('OrderGone', 'O' || i) FROM generate_series(4, 6) i;
CALL test.settle();
SELECT later(2) \gset
SELECT voiding.archive_events(1000) > 0 AS archived;
SELECT voiding.purge_tasks(3);
SELECT count(*) FROM purge;
SELECT voiding.purge_tasks(3);
SELECT count(*) FROM purge;
SELECT type FROM voiding.history_of('O3');
SELECT purged < pg_snapshot_xmax(pg_current_snapshot()) AS of_this_server FROM voiding.archive_progress;
SELECT * FROM voiding.check_invariants();
\c contrib_regression
DROP DATABASE regress_voiding;
DROP ROLE regress_packer;
