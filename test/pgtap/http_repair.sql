-- Routes for those who look after processes: processes that have ended, what one
-- waits for, what its type is like, dead letters and parked events with retry
-- and discard, and that each needs its right.
-- By hand: handlers run in the transaction of the test.
BEGIN;
SELECT plan(45);

CREATE ROLE regress_front_end; CREATE ROLE regress_operator; CREATE ROLE regress_console; CREATE ROLE regress_desk; CREATE ROLE regress_other;
\set grants `awk '/^-- (front_end|operator|console): /{on=1} !/^(-- |GRANT |  [a-z])/{on=0} on && !/^--/' doc/privilege.md | sed -E 's/ TO ([a-z_]+);/ TO regress_\1;/'`
:grants
GRANT regress_front_end TO regress_desk, regress_other;
GRANT regress_operator, regress_console TO regress_desk;
SET LOCAL voiding.retry_limit = 1;
SELECT voiding.create_service('regress_stock');
CREATE FUNCTION regress_stock.reserve(order_id text) RETURNS void LANGUAGE plpgsql AS 'BEGIN PERFORM 1 / 0; END';
SELECT voiding.create_command('regress_Reserve', 'regress_stock.reserve');
SELECT voiding.create_process_type('regress_fulfilment', '{"key": "order_id", "description": "boxes", "start": {"regress_Placed": "Reserving"}, "events": {"regress_Shipped": {"unmatched": "park", "for": "P7D"}},
  "states": {"Reserving": {"entry": {"send": "regress_Reserve"}, "on": {"regress_Reserved": "Packing"}, "after": {"P1D": "Late"}},
             "Packing": {"on": {"regress_Shipped": {"guard": "$.event.whole == true", "target": "Shipped"}}, "after": {"P1D": "Late"}},
             "Late": {"type": "failed", "on": {"ProcessFailureAcknowledged": "Shipped"}}, "Shipped": {"type": "final"}}}');
CREATE FUNCTION pg_temp.ask(method text, path text, body text DEFAULT NULL) RETURNS TABLE (status int, said jsonb) LANGUAGE sql AS
  $$ SELECT a.status, a.body::jsonb FROM voiding.http(method, path, '{}', '{}', body) a $$;
CREATE FUNCTION pg_temp.codes(method text, path text, body text DEFAULT NULL) RETURNS text LANGUAGE sql AS
  $$ SELECT concat_ws(' ', status, said ->> 'code') FROM pg_temp.ask(method, path, body) $$;
CREATE FUNCTION pg_temp.say(type text, id text) RETURNS void LANGUAGE sql AS
  $$ SELECT voiding.emit(type, id, jsonb_build_object('order_id', id, 'whole', true), 'regress_stock') $$;
SELECT pg_temp.say('regress_Placed', 'O1'), pg_temp.say('regress_Placed', 'O2'), pg_temp.say('regress_Shipped', 'O9'), voiding.dispatch();
SELECT process_id AS p FROM voiding.process WHERE key = 'O1' \gset

-- ---- who may not ----

SET LOCAL ROLE regress_other;
SELECT is(pg_temp.codes(m, format(p, gen_random_uuid()), CASE m WHEN 'POST' THEN '{"reason": "r"}' END), '403 42501', format('%s is a matter of rights', p))
  FROM (VALUES ('GET', '/dead-letters'), ('GET', '/parked-events'), ('POST', '/messages/%s/retry'), ('POST', '/messages/%s/discard'), ('POST', '/parked-events/%s/retry'), ('POST', '/parked-events/%s/discard'), ('GET', '/process-types/regress_fulfilment'),
               ('GET', '/processes/%s/explain'), ('GET', '/processes?ended=true')) x (m, p);
RESET ROLE;
SET LOCAL ROLE regress_desk;

-- ---- a process ----

SELECT is((SELECT jsonb_path_query_array(said, '$.explanation[*].aspect') FROM pg_temp.ask('GET', format('/processes/%s/explain', :'p'))), '["process", "state", "dead letter", "deadline", "would move it"]', 'what it waits for, in order');
SELECT is(pg_temp.codes('GET', format('/processes/%s/explain', gen_random_uuid())), '404 VD04B', 'of none');
SELECT is((SELECT said - '{states,transitions}'::text[] FROM pg_temp.ask('GET', '/process-types/regress_fulfilment')), '{"type": "regress_fulfilment", "version": 1, "description": "boxes"}', 'a type');
SELECT is((SELECT said -> 'states' FROM pg_temp.ask('GET', '/process-types/regress_fulfilment')), '[{"kind": "failed", "name": "Late", "sends": null}, {"kind": "ordinary", "name": "Packing", "sends": null},
  {"kind": "ordinary", "name": "Reserving", "sends": ["regress_Reserve"]}, {"kind": "final", "name": "Shipped", "sends": null}]', 'its states');
SELECT set_eq($$ SELECT t ->> 'from_state' AS f, t ->> 'trigger' AS t, t ->> 'name' AS n, t ->> 'to_state' AS s, t ->> 'guard' AS g FROM pg_temp.ask('GET', '/process-types/regress_fulfilment?version=1'), jsonb_array_elements(said -> 'transitions') t $$,
  $$ SELECT from_state, trigger, name, to_state, guard FROM voiding.transition WHERE process_type = 'regress_fulfilment' $$, 'and what leads from one to another');
SELECT is(pg_temp.codes('GET', '/process-types/regress_fulfilment?version=2'), '404 42704', 'no such version');
SELECT is(pg_temp.codes('GET', '/process-types/regress_none'), '404 42704', 'no such type');
SELECT is(pg_temp.codes('GET', '/process-types/regress_fulfilment?version=x'), '422 22P02', 'no number');

-- ---- dead letters ----

SELECT is((SELECT (said ->> 'total', jsonb_path_query_array(said, '$.dead_letters[*].key'))::text FROM pg_temp.ask('GET', '/dead-letters')), '(2,"[""O1"", ""O2""]")', 'dead letters, oldest first');
SELECT is((SELECT (said ->> 'total', jsonb_array_length(said -> 'dead_letters'))::text FROM pg_temp.ask('GET', '/dead-letters?limit=1')), '(2,1)', 'some of them, and how many there are');
SELECT is((SELECT (d ->> 'type', d ->> 'destination', d ->> 'process_id' = :'p', d ->> 'sqlstate', d ->> 'error', d ->> 'process_type', d -> 'data' ->> 'order_id')::text
             FROM pg_temp.ask('GET', '/dead-letters?type=regress_Reserve&key=O1'), jsonb_array_elements(said -> 'dead_letters') d), '(regress_Reserve,regress_stock,t,22012,"22012: division by zero",,O1)', 'one of them');
SELECT is((SELECT said FROM pg_temp.ask('GET', '/dead-letters?type=none')), '{"total": 0, "dead_letters": []}', 'none');
SELECT id AS m1 FROM voiding.dead_letter WHERE aggregateid = 'O1' \gset
SELECT id AS m2 FROM voiding.dead_letter WHERE aggregateid = 'O2' \gset
SELECT is(pg_temp.codes('POST', format('/messages/%s/discard', :'m2')), '422 22023', 'to discard needs a reason');
SELECT is(pg_temp.codes('POST', format('/messages/%s/retry', gen_random_uuid())), '404 P0002', 'no such message');
SELECT is(pg_temp.codes('POST', format('/messages/%s/discard', gen_random_uuid()), '{"reason": "r"}'), '404 P0002', 'neither to discard');
SELECT is((SELECT said FROM pg_temp.ask('POST', format('/messages/%s/retry', :'m1'), '{"reason": "repaired"}')), '{"receivers": 1}', 'tried again');
SELECT is((SELECT said FROM pg_temp.ask('POST', format('/messages/%s/discard', :'m2'), '{"reason": "ordered twice"}')), '{"receivers": 1}', 'discarded');
SELECT is((SELECT said ->> 'total' FROM pg_temp.ask('GET', '/dead-letters')), '0', 'both are gone');
RESET ROLE;
SELECT is((SELECT string_agg(concat_ws(' ', type, data ->> 'by', data ->> 'reason'), ', ' ORDER BY position) FROM voiding.event WHERE type LIKE 'Message%'),
  'MessageRetried regress_desk repaired, MessageDiscarded regress_desk ordered twice', 'who did it, and why');
SELECT is((SELECT count(*)::int FROM voiding.outbox WHERE id = :'m1'), 1, 'the one waits for its handler');
CREATE OR REPLACE FUNCTION regress_stock.reserve(order_id text) RETURNS void LANGUAGE sql AS $$ SELECT voiding.emit('regress_Reserved', order_id, jsonb_build_object('order_id', order_id), 'regress_stock') $$;
SELECT voiding.dispatch();
SELECT is((SELECT state FROM voiding.process WHERE process_id = :'p'), 'Packing', 'which does it');

-- ---- parked events ----

SELECT pg_temp.say('regress_Shipped', 'O2');
SET LOCAL ROLE regress_desk;
SELECT is((SELECT (said ->> 'total', jsonb_path_query_array(said, '$.parked_events[*].key'))::text FROM pg_temp.ask('GET', '/parked-events')), '(2,"[""O9"", ""O2""]")', 'parked events, oldest first');
SELECT is((SELECT (e ->> 'type', e ->> 'process_type', date_trunc('minute', (e ->> 'expires_at')::timestamptz - (e ->> 'parked_at')::timestamptz + '1 s'), e ->> 'source', e ->> 'process_id' IS NULL)::text
             FROM pg_temp.ask('GET', '/parked-events?key=O9&type=regress_Shipped'), jsonb_array_elements(said -> 'parked_events') e), '(regress_Shipped,regress_fulfilment,"7 days",regress_stock,t)', 'one of them');
SELECT is((SELECT (said ->> 'total', jsonb_array_length(said -> 'parked_events'))::text FROM pg_temp.ask('GET', '/parked-events?limit=1')), '(2,1)', 'some of them');
SELECT event_id AS e9 FROM voiding.parked_event WHERE key = 'O9' \gset
SELECT event_id AS e2 FROM voiding.parked_event WHERE key = 'O2' \gset
SELECT is((SELECT said FROM pg_temp.ask('POST', format('/parked-events/%s/retry', :'e9'))), '{"taken": 0}', 'to be looked at again');
SELECT is((SELECT said ->> 'total' FROM pg_temp.ask('GET', '/parked-events?key=O9')), '1', 'without a process it stays');
SELECT is(pg_temp.codes('POST', format('/parked-events/%s/discard', :'e9')), '422 22023', 'to discard it needs a reason too');
SELECT is((SELECT said FROM pg_temp.ask('POST', format('/parked-events/%s/discard', :'e9'), '{"reason": "no such order"}')), '{"discarded": 1}', 'and discards');
SELECT is((SELECT said ->> 'total' FROM pg_temp.ask('GET', '/parked-events?key=O9')), '0', 'it is gone');
SELECT is(pg_temp.codes('POST', format('/parked-events/%s/discard', :'e9'), '{"reason": "r"}'), '404 P0002', 'once');
SELECT is(pg_temp.codes('POST', format('/parked-events/%s/retry', :'e9')), '404 P0002', 'then there is nothing to look at');
RESET ROLE;
SELECT is((SELECT (data ->> 'destination', data ->> 'type', subject)::text FROM voiding.event WHERE type = 'MessageDiscarded' AND data ->> 'message_id' = :'e9'), '(voiding,regress_Shipped,O9)', 'written down');
-- a process that is in the state that waits for it, and was not told: as after a crash of what would have
UPDATE voiding.active_process SET state = 'Packing' WHERE key = 'O2';
SET LOCAL ROLE regress_desk;
SELECT is((SELECT said FROM pg_temp.ask('POST', format('/parked-events/%s/retry', :'e2'))), '{"taken": 1}', 'where a process is ready');
SELECT is((SELECT state FROM voiding.process WHERE key = 'O2'), 'Shipped', 'it takes the event');

-- ---- those that have ended ----

SELECT is((SELECT (jsonb_array_length(said -> 'processes'), said #>> '{processes,0,key}', said #>> '{processes,0,state}', said #>> '{processes,0,outcome}', said #>> '{processes,0,finished_at}' IS NOT NULL)::text
             FROM pg_temp.ask('GET', '/processes?ended=true&type=regress_fulfilment')), '(1,O2,Shipped,done,t)', 'those that have ended');
SELECT is((SELECT jsonb_path_query_array(said, '$.processes[*].key') FROM pg_temp.ask('GET', '/processes?type=regress_fulfilment')), '["O1"]', 'are not among the others');
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
