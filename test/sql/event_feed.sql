-- The feed of events: resumed anywhere, of some types, from now on, across
-- partitions; the same over http(), as JSON and as pieces of a stream.
\set ECHO none
\i test/lib/database.sql
SET client_min_messages = warning;
SELECT voiding.create_service('shop');
CREATE FUNCTION say(type text, n int) RETURNS void LANGUAGE sql AS $$ SELECT voiding.emit(type, n::text, '{}', 'shop') $$;
CREATE FUNCTION news(after text, batch_size integer DEFAULT 100, types text[] DEFAULT NULL) RETURNS TABLE (type text, subject text, cursor text) LANGUAGE sql AS $$
  SELECT (e.event).type, (e.event).subject, e.cursor FROM voiding.read_events(after, batch_size, types) e $$;

SELECT count(*) FROM voiding.read_events();
SELECT voiding.feed_now() AS now \gset
SELECT count(*) FROM voiding.read_events(:'now');
SELECT say(CASE i % 2 WHEN 0 THEN 'Even' ELSE 'Odd' END, i) FROM generate_series(1, 6) i;
SELECT type, subject FROM news(NULL);
SELECT type, subject FROM news(:'now', 2);
-- of some types
SELECT subject FROM news(:'now', 100, '{Even}');
SELECT subject FROM news(:'now', 100, '{Even,Odd,None}');
SELECT count(*) FROM news(:'now', 100, '{None}');
SELECT count(*) FROM news(:'now', 100, '{}');
-- resumed in a window, with more behind it
SELECT cursor FROM news(:'now', 2) OFFSET 1 \gset
SELECT say('Odd', 7);
SELECT subject FROM news(:'cursor', 3);
SELECT cursor FROM news(:'cursor', 4) OFFSET 3 \gset
SELECT subject FROM news(:'cursor');
SELECT cursor FROM news(:'cursor') \gset
SELECT count(*) FROM news(:'cursor');
-- what is rolled back never was; one's own comes when it is over
BEGIN; SELECT say('Odd', 8); ROLLBACK;
BEGIN; SELECT say('Odd', 9); SELECT count(*) FROM news(:'cursor'); COMMIT;
SELECT subject FROM news(:'cursor');
-- in the next partition
SELECT voiding.add_event_partition(10000000);
SELECT setval('voiding.position', 9999998) \gset
SELECT say('Odd', i) FROM generate_series(10, 13) i;
SELECT subject, position > 9999999 AS behind FROM voiding.read_events(:'cursor') e, LATERAL (SELECT (e.event).subject, (e.event).position) x;
SELECT indexdef FROM pg_indexes WHERE tablename = 'event_p1' AND indexdef LIKE '%brin%';
-- no cursors
\set VERBOSITY sqlstate
SELECT * FROM voiding.read_events('garbage');
SELECT * FROM voiding.read_events('/9000000:9000000:/3');
SELECT * FROM voiding.read_events(NULL, 0);
\set VERBOSITY default

-- a large feed is not read as a whole, but from where its window begins
INSERT INTO voiding.event SELECT 10001000 + i, voiding.uuid(), 'Old', 'shop', 'x', voiding.uuid(), NULL, '{}', now(), pg_current_xact_id(), 'x' FROM generate_series(1, 100000) i;
SELECT setval('voiding.position', 11000000) \gset
VACUUM ANALYZE voiding.event;
SELECT voiding.feed_now() AS now \gset
SELECT say('Odd', 14);
SELECT pg_stat_force_next_flush() \gset
BEGIN;
SELECT subject FROM news(:'now');
SELECT seq_tup_read + idx_tup_fetch < 20000 AS few FROM pg_stat_xact_user_tables WHERE relid = 'voiding.event_p1'::regclass;
COMMIT;

-- over http(): a page, a piece of a stream
CREATE FUNCTION ask(path text, headers jsonb DEFAULT '{}') RETURNS TABLE (status int, type text, body text, wait jsonb) LANGUAGE sql AS $$
  SELECT a.status, a.headers ->> 'Content-Type', a.body, a.wait FROM voiding.http('GET', path, '{}', headers) a $$;
SELECT status, body::jsonb #>> '{events,0,event,subject}' AS subject, body::jsonb ->> 'cursor' = body::jsonb #>> '{events,0,cursor}' AS last, wait FROM ask('/events?after=' || :'now');
SELECT status, type, regexp_replace(regexp_replace(body, 'id: \S+', 'id: ...'), '"id": .*', '...') AS piece, wait - 'cursor' AS wait
  FROM ask('/events', jsonb_build_object('Accept', 'text/event-stream', 'Last-Event-ID', :'now'));
SELECT status, body LIKE E'retry: 1000\nid: %\nevent: start\ndata: {}\n\n' AS starts, wait ->> 'then' AS then FROM ask('/events?types=Odd,Even,Odd', '{"Accept": "text/event-stream"}');
SELECT status, body = '' AS nothing, wait ->> 'more' AS more FROM ask('/events', jsonb_build_object('Accept', 'text/event-stream', 'Last-Event-ID', voiding.feed_now()));
SELECT (ask('/events?limit=1&after=' || :'now', '{"Accept": "text/event-stream"}')).wait ->> 'more' AS more;
SELECT status, (body LIKE E'id: %\nevent: stale-cursor\ndata: %"VD10A"%') AS stale, wait ->> 'then' AS goes_on FROM ask('/events', '{"Accept": "text/event-stream", "Last-Event-ID": "/9000000:9000000:/3"}');
SELECT status FROM ask('/events', '{"Last-Event-ID": "/9000000:9000000:/3"}');
SELECT status, type FROM ask('/events?types=a%20b');
-- of one command: its status, and the end
CREATE FUNCTION shop.sell(id text) RETURNS text LANGUAGE sql AS $$ SELECT 'sold ' || id $$;
SELECT voiding.create_command('Sell', 'shop.sell');
CALL test.by_hand();
SELECT voiding.send_command('Sell', '{"id": "1"}') AS c \gset
SELECT status, body LIKE 'id: accepted-%"accepted"%' AS said, wait ->> 'channel' AS channel, wait ->> 'command_id' = :'c' AS its FROM ask('/commands/' || :'c' || '/events');
SELECT wait ->> 'cursor' AS tag FROM ask('/commands/' || :'c' || '/events') \gset
SELECT status, body, wait IS NOT NULL AS goes_on FROM ask('/commands/' || :'c' || '/events', jsonb_build_object('Last-Event-ID', :'tag'));
SELECT voiding.dispatch();
SELECT status, body LIKE 'id: processed-%"processed"%' AS said, wait FROM ask('/commands/' || :'c' || '/events', jsonb_build_object('Last-Event-ID', :'tag'));
SELECT substring(body FROM 'id: (\S+)') AS tag FROM ask('/commands/' || :'c' || '/events') \gset
SELECT status, body, wait FROM ask('/commands/' || :'c' || '/events', jsonb_build_object('Last-Event-ID', :'tag'));
SELECT status FROM ask('/commands/00000000-0000-0000-0000-000000000000/events');
-- from another server, of which this one was restored: a feed that begins has them
BEGIN;
ALTER TABLE voiding.event DISABLE TRIGGER append_only;
UPDATE voiding.event SET xid = '999999999999' WHERE position = (SELECT min(e.position) FROM voiding.event e);
SELECT count(*) = (SELECT count(*) FROM voiding.event) AS all_of_them FROM voiding.read_events(NULL, 1000000);
ROLLBACK;
-- figures
SELECT status, body ~ E'# TYPE voiding_messages_handled counter\nvoiding_messages_handled_total\\{service="shop"\\} [0-9]+\n' AS figures FROM ask('/metrics');
\c contrib_regression
DROP DATABASE regress_voiding;
