-- Commands as one looks at them: the feed and its cursors, waits, and what is
-- left of old ones.
\set ECHO none
\i test/lib/database.sql
SET client_min_messages = warning;
SELECT voiding.create_service('shop');
CREATE FUNCTION shop.sell(id text) RETURNS text LANGUAGE sql AS $$ SELECT 'sold ' || id $$;
CREATE FUNCTION shop.slow(id text) RETURNS void LANGUAGE sql AS $$ SELECT $$;
SELECT voiding.create_command('Sell', 'shop.sell', resource => '/sales/{id}'), voiding.create_command('Slow', 'shop.slow', completed_by => 'SlowDone');
CREATE FUNCTION changes(after text, batch_size integer DEFAULT 100) RETURNS TABLE (id text, status text, cursor text) LANGUAGE sql AS $$
  SELECT (c.command).data ->> 'id', (c.command).status, c.cursor FROM voiding.command_changes(after, batch_size) c $$;

-- ---- the feed: what changes when is decided by hand ----
CALL test.by_hand();
SELECT count(*) FROM voiding.command_changes();
SELECT count(voiding.send_command('Sell', jsonb_build_object('id', i))) FROM generate_series(1, 5) i;
SELECT id, status FROM changes(NULL);
-- resumed in the first window; a change meanwhile comes later
SELECT cursor FROM changes(NULL, 2) OFFSET 1 \gset
SELECT id, status FROM changes(:'cursor');
SELECT cursor FROM changes(:'cursor', 1) \gset
SELECT count(voiding.send_command('Sell', '{"id": "6"}'));
SELECT id, status FROM changes(:'cursor');
SELECT cursor FROM changes(:'cursor', 1) \gset
SELECT cursor FROM changes(:'cursor') \gset
SELECT id, status FROM changes(:'cursor');
SELECT cursor FROM changes(:'cursor') \gset
SELECT count(*) FROM changes(:'cursor');
-- all of them have changed: once more, each once
SELECT voiding.dispatch();
SELECT id, status FROM changes(:'cursor');
SELECT cursor FROM changes(:'cursor') OFFSET 5 \gset
SELECT count(*) FROM changes(:'cursor');
-- two by two to the end, in the order in which they were sent
CREATE FUNCTION pages() RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
  at text;
  page text;
BEGIN
  FOR i IN 1 .. 10 LOOP
    SELECT string_agg(c.id, ',' ORDER BY n), (array_agg(c.cursor ORDER BY n DESC))[1] INTO page, at
      FROM changes(at, 2) WITH ORDINALITY c(id, status, cursor, n);
    EXIT WHEN page IS NULL;
    RETURN NEXT page;
  END LOOP;
END $$;
SELECT * FROM pages();
-- running is a change too, and so are the ends
SELECT voiding.send_command('Slow', '{"id": "slow"}') AS slow, voiding.send_command('Sell', '{"id": "later"}', not_before => now() + interval '1 d') AS later \gset
SELECT voiding.dispatch();
SELECT status FROM voiding.cancel_command(:'later');
SELECT id, status FROM changes(:'cursor');
SELECT cursor FROM changes(:'cursor') OFFSET 1 \gset
-- what is rolled back never was
BEGIN;
SELECT voiding.send_command('Sell', '{"id": "never"}') IS NOT NULL AS sent;
ROLLBACK;
SELECT id, status FROM changes(:'cursor');
-- one's own transaction comes when it is over, whatever was read in it
BEGIN;
SELECT voiding.send_command('Sell', '{"id": "own 1"}') IS NOT NULL AS sent;
SELECT id, status FROM changes(:'cursor');
SELECT voiding.send_command('Sell', '{"id": "own 2"}') IS NOT NULL AS sent;
COMMIT;
SELECT id, status FROM changes(:'cursor');
-- no cursors
SELECT * FROM voiding.command_changes('');
SELECT * FROM voiding.command_changes('garbage');
SELECT * FROM voiding.command_changes('1:1:/2:2:/x');
SELECT * FROM voiding.command_changes('1:1:/2:2:/99999999999999999999');
SELECT * FROM voiding.command_changes('1:1:/2:2:');
SELECT * FROM voiding.command_changes('1:1:/2:2:/3/4');
SELECT * FROM voiding.command_changes('//3');
SELECT * FROM voiding.command_changes('3:1:/2:2:/3');
SELECT * FROM voiding.command_changes(NULL, 0);
-- of a server that has gone further
\set VERBOSITY sqlstate
SELECT * FROM voiding.command_changes('/9000000:9000000:/3');
\set VERBOSITY default

-- ---- waiting ----
CALL test.as_asked();
CALL test.settle();
-- at once when it is over; a limit of time is no error
SELECT status, result FROM voiding.wait_for_command((SELECT command_id FROM voiding.command WHERE data ->> 'id' = '1'), '10 s');
SELECT status, result FROM voiding.wait_for_command(:'slow', '20 ms');
SELECT status FROM voiding.wait_for_command(:'slow', '-1 s');
SELECT voiding.wait_for_command(:'slow', NULL);
SELECT voiding.wait_for_command('00000000-0000-0000-0000-000000000000', '1 s');
-- it could never end
BEGIN;
SELECT voiding.send_command('Sell', '{"id": "x"}') AS x \gset
SELECT voiding.wait_for_command(:'x', '1 s');
ROLLBACK;
BEGIN;
CALL voiding.execute('Sell', '{"id": "x"}', '1 s');
ROLLBACK;
CREATE FUNCTION shop.wait(id uuid) RETURNS void LANGUAGE sql AS $$ SELECT voiding.wait_for_command(id, '1 s') $$;
SELECT voiding.create_command('Wait', 'shop.wait');
SELECT voiding.send_command('Wait', jsonb_build_object('id', :'slow')) AS c \gset
CALL test.settle();
SELECT status, error ->> 'code' AS code FROM voiding.command_status(:'c');
-- execute: what send_command refuses, it refuses; nobody serves: it is accepted, and found again
CALL test.by_hand();
CALL voiding.execute('Sell', '{}', '1 s');
CALL voiding.execute('Sell', '{"id": "e"}', '20 ms', 'e') \gset
SELECT (:'command'::voiding.command).status, (:'command'::voiding.command).resource;
SELECT voiding.dispatch();
CALL voiding.execute('Sell', '{"id": "e"}', '20 ms', 'e') \gset
SELECT (:'command'::voiding.command).status, (:'command'::voiding.command).result;
SELECT count(*) FROM voiding.command WHERE idempotency_key = 'e';
\set VERBOSITY sqlstate
CALL voiding.await(:'slow', '20 ms');
\set VERBOSITY default

-- read your own writes: a subscriber has seen what the command said
CREATE TABLE shop.seen (id text);
CREATE FUNCTION shop.tell(id text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM voiding.emit('Told', id, jsonb_build_object('id', id)); END $$;
CREATE FUNCTION shop.see(id text) RETURNS void LANGUAGE sql AS $$ INSERT INTO shop.seen VALUES (id) $$;
SELECT voiding.create_service('eyes'), voiding.create_service('ears'), voiding.create_command('Tell', 'shop.tell'), voiding.subscribe('Told', 'shop.see', 'eyes');
SELECT voiding.send_command('Tell', '{"id": "t"}') AS t \gset
SELECT voiding.dispatch(batch_size => 1);
CREATE FUNCTION seen(by text[]) RETURNS TABLE (status text, waited boolean, rows bigint) LANGUAGE sql AS $$
  SELECT c.status, clock_timestamp() - now() > interval '0.2 s', (SELECT count(*) FROM shop.seen) FROM voiding.wait_for_command((SELECT command_id FROM voiding.command WHERE type = 'Tell'), '0.2 s', by) c $$;
SELECT * FROM seen(NULL);
SELECT * FROM seen('{}');
SELECT * FROM seen('{ears}');
SELECT * FROM seen('{ears,eyes}');
SELECT voiding.dispatch();
SELECT * FROM seen('{ears,eyes}');

-- ---- of another server, from which this one was restored: a feed that begins has them ----
BEGIN;
UPDATE voiding.command SET xid = '999999999999' WHERE command_id = (SELECT c.command_id FROM voiding.command c WHERE NOT c.gone ORDER BY c.command_id LIMIT 1);
SELECT count(*) = (SELECT count(*) FROM voiding.command WHERE NOT gone) AS all_of_them FROM voiding.command_changes(NULL, 100000);
ROLLBACK;

-- ---- old ones: a tombstone, then nothing; what is not over stays ----
BEGIN;
TRUNCATE voiding.command;
SELECT voiding.send_command('Sell', '{"id": "k"}', 'old') AS old \gset
SELECT voiding.dispatch();
SELECT voiding.send_command('Slow', '{"id": "open"}') AS open \gset
SELECT voiding.dispatch();
SET LOCAL voiding.clock_offset = '29 d';
SELECT voiding.maintain();
SELECT status, data FROM voiding.command_status(:'old');
SET LOCAL voiding.clock_offset = '31 d';
SELECT voiding.maintain();
SAVEPOINT s;
\set VERBOSITY sqlstate
SELECT voiding.command_status(:'old');
ROLLBACK TO s;
SELECT voiding.send_command('Sell', '{"id": "k"}', 'old');
\set VERBOSITY default
ROLLBACK TO s;
SELECT status, gone, data, result, idempotency_key FROM voiding.command WHERE command_id = :'old';
SELECT status FROM voiding.command_status(:'open');
SET LOCAL voiding.clock_offset = '301 d';
SELECT voiding.maintain();
SELECT status, gone FROM voiding.command;
SELECT voiding.send_command('Sell', '{"id": "k"}', 'old') <> :'old' AS new;
ROLLBACK;
SELECT * FROM voiding.check_invariants();
\c contrib_regression
DROP DATABASE regress_voiding;
