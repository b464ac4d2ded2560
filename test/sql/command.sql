-- Commands that somebody waits for: what is refused at once, keys, results and
-- problems, attempts, cancelled and expired ones, and who sees what.
-- command_end and command_feed have the rest.
\set ECHO none
\i test/lib/database.sql
SET client_min_messages = warning;
-- what fails is seen before it is tried again
CALL test.set('voiding.retry_base', '5 min');
CREATE ROLE regress_alice;
CREATE ROLE regress_bob;
CREATE ROLE regress_team;
GRANT USAGE ON SCHEMA voiding TO regress_alice, regress_bob, regress_team;
GRANT EXECUTE ON FUNCTION voiding.send_command, voiding.command_status, voiding.wait_for_command, voiding.command_changes, voiding.send_commands,
  voiding.cancel_command, voiding.estimate_command, voiding.problem TO regress_alice, regress_bob, regress_team;
GRANT SELECT ON voiding.command TO regress_alice, regress_bob, regress_team;
-- what became of a command, in a line
CREATE FUNCTION told(id text) RETURNS TABLE (status text, result jsonb, code text, http text, title text, detail text, hint text) LANGUAGE sql AS $$
  SELECT c.status, c.result, c.error ->> 'code', c.error ->> 'status', c.error ->> 'title', c.error ->> 'detail', c.error ->> 'hint'
    FROM voiding.command_status(id::uuid) c $$;

SELECT voiding.create_service('shop');
CREATE TABLE shop.sale (id integer PRIMARY KEY, item text, price numeric, at timestamptz, sender text, seen integer NOT NULL DEFAULT 0);
CREATE FUNCTION shop.sell(id integer, item text, price numeric DEFAULT 1.50, tags text[] DEFAULT '{}') RETURNS jsonb LANGUAGE sql
  RETURN jsonb_build_object('sold', item, 'for', price);
REVOKE ALL ON FUNCTION shop.sell FROM PUBLIC;
SELECT voiding.create_command('Sell', 'shop.sell', resource => '/sales/{id}?item={item}');
-- what a resource and a key may name; how a command may end
SELECT voiding.create_command('Wrong', 'shop.sell', resource => '/sales/{nr}');
SELECT voiding.create_command('Wrong', 'shop.sell', key => 'nr');
SELECT voiding.create_command('Wrong', 'shop.sell', failed_by => 'SaleFailed');

-- what would stop it from starting is said at once, and leaves nothing
\set VERBOSITY sqlstate
SELECT voiding.send_command('Steal', '{}');
SELECT voiding.send_command(NULL, '{}');
SELECT voiding.send_command('DocumentIssued', '{}');
\set VERBOSITY default
SELECT voiding.send_command('Sell', '[1]');
SELECT voiding.send_command('Sell', '{"id": 1}');
SELECT voiding.send_command('Sell', NULL);
SELECT voiding.send_command('Sell', '{"id": 1, "item": "hat", "colour": "red"}');
SELECT voiding.send_command('Sell', '{"id": "one", "item": "hat"}');
SELECT voiding.send_command('Sell', '{"id": 99999999999, "item": "hat"}');
SELECT voiding.send_command('Sell', '{"id": 1, "item": "hat", "tags": "{"}');
SELECT voiding.send_command('Sell', '{"id": 1, "item": "hat"}', '');
SELECT voiding.send_command('Sell', '{"id": 1, "item": "hat"}', repeat('x', 201));
SET ROLE regress_alice;
SELECT voiding.send_command('Sell', '{"id": 1, "item": "hat"}');
RESET ROLE;
-- what PUBLIC may is no permission
GRANT EXECUTE ON FUNCTION shop.sell TO PUBLIC;
SET ROLE regress_alice;
SELECT voiding.send_command('Sell', '{"id": 1, "item": "hat"}');
RESET ROLE;
REVOKE EXECUTE ON FUNCTION shop.sell FROM PUBLIC;
SELECT count(*) FROM voiding.command;
SELECT count(*) FROM voiding.outbox;

-- accepted, and the resource is named, encoded; then processed with what the handler returned
BEGIN;
SELECT voiding.send_command('Sell', '{"id": 1, "item": "a/b ü"}') AS c \gset
SELECT status, resource, result, error, caller, process_id, finished_at FROM voiding.command_status(:'c');
SELECT o.id = c.command_id AND o.correlation_id = c.command_id AS is_its_message, o.aggregateid FROM voiding.outbox o, voiding.command c;
COMMIT;
CALL test.settle();
SELECT status, resource, result, error, finished_at >= accepted_at AS in_time FROM voiding.command_status(:'c');
SELECT count(*) FROM voiding.outbox;
-- a value of the resource is missing: it has none
SELECT voiding.send_command('Sell', '{"id": 1, "item": null}') AS c \gset
SELECT resource FROM voiding.command_status(:'c');
CALL test.settle();

-- a key and its content: the same command in any spelling and at any time
SELECT voiding.send_command('Sell', '{"id": 2, "item": "cap", "price": 10, "tags": ["a", "b"]}', 'k1') AS c \gset
SELECT voiding.send_command('Sell', '{"tags": ["a", "b"], "price": 10.00, "item": "x", "item": "cap", "id": 2}', 'k1') = :'c' AS same;
CALL test.settle();
SELECT voiding.send_command('Sell', '{"price": 1e1, "tags": ["a","b"], "item": "cap", "id": 2}', 'k1') = :'c' AS same;
SELECT (SELECT count(*) FROM voiding.command WHERE idempotency_key = 'k1') AS commands, (SELECT count(*) FROM voiding.outbox) AS messages;
SELECT result FROM told(:'c');
-- other content, also when only a list's order or a type differs
\set VERBOSITY sqlstate
SELECT voiding.send_command('Sell', '{"id": 2, "item": "cap", "price": 10, "tags": ["b", "a"]}', 'k1');
SELECT voiding.send_command('Sell', '{"id": "2", "item": "cap", "price": 10, "tags": ["a", "b"]}', 'k1');
SELECT voiding.send_command('Sell', '{"id": 2, "item": "cap", "tags": ["a", "b"]}', 'k1');
SELECT voiding.send_command('IssueDocument', '{"document_id": "d", "customer_id": "c", "amount": 1}', 'k1');
\set VERBOSITY default
-- in one transaction; and what is rolled back leaves its key
BEGIN;
SELECT voiding.send_command('Sell', '{"id": 3, "item": "cap"}', 'k2') = voiding.send_command('Sell', '{"id": 3, "item": "cap"}', 'k2') AS same;
SAVEPOINT s;
SELECT voiding.send_command('Sell', '{"id": 4, "item": "cap"}', 'k3') IS NOT NULL AS sent;
ROLLBACK TO s;
SELECT voiding.send_command('Sell', '{"id": 5, "item": "cap"}', 'k3') IS NOT NULL AS sent;
ROLLBACK;
SELECT count(*) FROM voiding.command WHERE idempotency_key IN ('k2', 'k3');
-- two callers may use one key for different things
GRANT USAGE ON SCHEMA shop TO regress_alice, regress_bob;
GRANT EXECUTE ON FUNCTION shop.sell TO regress_alice, regress_bob;
SET ROLE regress_alice;
SELECT voiding.send_command('Sell', '{"id": 6, "item": "hers"}', 'k1') AS hers \gset
SET ROLE regress_bob;
SELECT voiding.send_command('Sell', '{"id": 7, "item": "his"}', 'k1') AS his \gset
SELECT voiding.send_command('Sell', '{"id": 7, "item": "his"}', 'k1') = :'his' AS same;
RESET ROLE;
CALL test.settle();

-- one sees one's own, and those of roles that one is a member of
SET ROLE regress_alice;
SELECT caller, data ->> 'item' AS item, status FROM voiding.command;
SELECT (command).caller FROM voiding.command_changes();
SELECT status FROM voiding.command_status(:'hers');
\set VERBOSITY sqlstate
SELECT voiding.command_status(:'his');
SELECT voiding.wait_for_command(:'his', '1 s');
SELECT voiding.cancel_command(:'his');
SELECT voiding.estimate_command(:'his');
SELECT voiding.command_status('00000000-0000-0000-0000-000000000000');
UPDATE voiding.command SET status = 'processed';
\set VERBOSITY default
RESET ROLE;
GRANT regress_alice TO regress_team;
SET ROLE regress_team;
SELECT caller FROM voiding.command;
SELECT status FROM voiding.command_status(:'hers');
RESET ROLE;
REVOKE regress_alice FROM regress_team;

-- a handler knows who sent it, and it is the owner whose rights it has
CREATE FUNCTION shop.note(id integer) RETURNS shop.sale LANGUAGE sql AS $$
  INSERT INTO shop.sale (id, sender, item) VALUES (id, voiding.sender(), current_user) RETURNING * $$;
CREATE FUNCTION shop.note_event(id integer) RETURNS void LANGUAGE sql AS $$ INSERT INTO shop.sale (id, sender) VALUES (id, voiding.sender()) $$;
SELECT voiding.create_command('Note', 'shop.note');
SELECT voiding.subscribe('Noted', 'shop.note_event');
REVOKE ALL ON FUNCTION shop.note FROM PUBLIC;
GRANT EXECUTE ON FUNCTION shop.note TO regress_alice;
SET ROLE regress_alice;
SELECT voiding.send_command('Note', '{"id": 10}') AS c \gset
RESET ROLE;
SELECT voiding.emit('Noted', 'n', '{"id": 11}', 'shop') IS NOT NULL AS emitted;
CALL test.settle();
SELECT id, sender, item = current_user AS as_owner FROM shop.sale ORDER BY id;
SELECT result - 'at' AS result FROM told(:'c');
SELECT voiding.sender() IS NULL AS outside;

-- what a handler returns: nothing, rows, a uuid that is no process
CREATE FUNCTION shop.nothing() RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION shop.none(i integer) RETURNS integer STRICT LANGUAGE sql AS 'SELECT i';
CREATE FUNCTION shop.rows() RETURNS SETOF shop.sale LANGUAGE plpgsql AS $$ BEGIN RETURN QUERY VALUES (1, 'a', 2.50, NULL::timestamptz, 'b', 0); END $$;
CREATE FUNCTION shop.sql_rows() RETURNS SETOF integer LANGUAGE sql AS 'VALUES (1), (2)';
CREATE FUNCTION shop.id() RETURNS uuid LANGUAGE sql AS $$ SELECT '11111111-1111-1111-1111-111111111111'::uuid $$;
SELECT voiding.create_command('Nothing', 'shop.nothing'), voiding.create_command('None', 'shop.none'), voiding.create_command('Rows', 'shop.rows'),
       voiding.create_command('SqlRows', 'shop.sql_rows'), voiding.create_command('Id', 'shop.id');
SELECT count(voiding.send_command(t, d)) FROM (VALUES ('Nothing', '{}'::jsonb), ('None', '{"i": null}'), ('Rows', '{}'), ('SqlRows', '{}'), ('Id', '{}')) x(t, d);
CALL test.settle();
SELECT type, status, result FROM voiding.command WHERE type IN ('Nothing', 'None', 'Rows', 'SqlRows', 'Id') ORDER BY type;

-- hopeless errors fail at once, with a problem; one that may pass is tried again
CREATE FUNCTION shop.fail(sqlstate text, text text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO shop.sale (id) VALUES (99);
  RAISE EXCEPTION USING ERRCODE = sqlstate, MESSAGE = text, HINT = 'Try ' || text;
END $$;
SELECT voiding.create_command('Fail', 'shop.fail');
SELECT voiding.send_command('Fail', '{"sqlstate": "P0001", "text": "the shop is closed"}') AS c \gset
CALL test.settle();
SELECT * FROM told(:'c');
SELECT error ->> 'instance' = '/commands/' || :'c' AS instance, error ->> 'type' AS type FROM voiding.command_status(:'c');
SELECT (SELECT count(*) FROM shop.sale WHERE id = 99) AS effects, (SELECT count(*) FROM voiding.outbox) AS messages, (SELECT count(*) FROM voiding.dead_letter) AS dead;
SELECT count(voiding.send_command('Fail', jsonb_build_object('sqlstate', s, 'text', s)))
  FROM unnest('{22012,23505,42501,VD04A,0A000,40001,53100,57014,58030,XX000}'::text[]) s;
CALL test.settle();
SELECT data ->> 'sqlstate' AS sqlstate, status, c.error ->> 'status' AS http, c.error ->> 'title' AS title, attempts
  FROM voiding.command c LEFT JOIN voiding.outbox o ON o.id = c.command_id WHERE c.type = 'Fail' AND data ->> 'text' <> 'the shop is closed' ORDER BY 2 DESC, 1;
-- not for ever: after voiding.retry_limit attempts
CALL test.set('voiding.retry_limit', '2');
CALL test.set('voiding.clock_offset', '3600');
CALL test.settle();
SELECT data ->> 'sqlstate' AS sqlstate, status, error ->> 'code' AS code, error ->> 'status' AS http, error ->> 'hint' AS hint
  FROM voiding.command c WHERE c.type = 'Fail' AND data ->> 'sqlstate' >= '40' AND data ->> 'sqlstate' NOT IN ('42501', 'P0001', 'VD04A') ORDER BY 1;
SELECT (SELECT count(*) FROM voiding.outbox) AS messages, (SELECT count(*) FROM voiding.dead_letter) AS dead;
CALL test.set('voiding.retry_limit', '10');
CALL test.set('voiding.clock_offset', '0');

-- a message that waits for its next attempt is taken out by hand: its command has failed
SELECT voiding.send_command('Fail', '{"sqlstate": "40001", "text": "busy"}') AS c \gset
CALL test.settle();
SELECT status FROM told(:'c');
SELECT voiding.discard_message(:'c', 'nobody wants it');
SELECT * FROM told(:'c');

-- a handler that takes a set: one that fails does not harm the others
CREATE FUNCTION shop.sell_all(id integer[], item text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF 'bad' = ANY (item) THEN
    RAISE 'this is bad';
  END IF;
  INSERT INTO shop.sale (id, item) SELECT * FROM unnest(id, item);
END $$;
SELECT voiding.create_command('SellAll', 'shop.sell_all', takes_set => true);
SELECT count(voiding.send_command('SellAll', jsonb_build_object('id', i, 'item', CASE i WHEN 23 THEN 'bad' ELSE 'good' END))) FROM generate_series(20, 26) i;
SELECT voiding.send_command('SellAll', '{"id": [20], "item": "good"}');
CALL test.settle();
SELECT status, count(*), min(error ->> 'detail') AS detail, count(result) AS results FROM voiding.command WHERE type = 'SellAll' GROUP BY 1 ORDER BY 1;
SELECT count(*), count(*) FILTER (WHERE item = 'bad') AS bad FROM shop.sale WHERE id BETWEEN 20 AND 26;

-- commands that a handler sends are commands too; they fail by themselves
CREATE FUNCTION shop.send(id integer) RETURNS uuid[] LANGUAGE sql AS $$
  SELECT ARRAY[voiding.send_command('Note', jsonb_build_object('id', id)), voiding.send_command('Fail', '{"sqlstate": "P0001", "text": "not now"}', 'inner')] $$;
SELECT voiding.create_command('Send', 'shop.send');
SELECT voiding.send_command('Send', '{"id": 30}') AS c \gset
CALL test.settle();
SELECT c.type, c.status, c.caller = current_user AS of_the_owner FROM voiding.command_status(:'c') x, jsonb_array_elements_text(x.result) r, voiding.command c
 WHERE c.command_id = r::uuid ORDER BY 1;
SELECT status FROM told(:'c');
SELECT sender = current_user AS sent_by_owner FROM shop.sale WHERE id = 30;

-- not before; by then; cancelled; each is a status that stays
BEGIN;
SELECT voiding.send_command('Note', '{"id": 40}', not_before => voiding.now() + interval '1 h') AS later \gset
SELECT voiding.send_command('Note', '{"id": 41}', start_by => voiding.now() - interval '1 s') AS late \gset
SELECT voiding.send_command('Note', '{"id": 42}', start_by => voiding.now() + interval '1 h') AS in_time \gset
SELECT voiding.send_command('Note', '{"id": 43}', 'k9') AS gone \gset
SELECT status FROM voiding.cancel_command(:'gone', 'changed my mind');
COMMIT;
-- what has its key goes on before it
SELECT voiding.send_command('Sell', '{"id": 40, "item": "now"}', not_before => voiding.now() + interval '1 d') AS tomorrow \gset
SELECT voiding.send_command('Sell', '{"id": 40, "item": "now"}') AS now \gset
CALL test.settle();
SELECT (SELECT status FROM told(:'later')) AS later, (SELECT status FROM told(:'late')) AS late, (SELECT status FROM told(:'in_time')) AS in_time,
       (SELECT status FROM told(:'gone')) AS gone, (SELECT status FROM told(:'tomorrow')) AS tomorrow, (SELECT status FROM told(:'now')) AS now;
SELECT id FROM shop.sale WHERE id BETWEEN 40 AND 43;
CALL test.set('voiding.clock_offset', '4000');
CALL test.settle();
SELECT status FROM told(:'later');
CALL test.set('voiding.clock_offset', '0');
SELECT status FROM voiding.cancel_command(:'later');
SELECT status FROM voiding.cancel_command(:'late');
SELECT status FROM voiding.cancel_command(:'tomorrow');
-- the key of a cancelled one is its own still
SELECT voiding.send_command('Note', '{"id": 43}', 'k9') = :'gone' AS same;
SELECT data ->> 'reason' AS reason FROM voiding.event WHERE type = 'MessageDiscarded' ORDER BY position DESC LIMIT 1;

-- many at once, each by itself
SELECT item, command_id IS NOT NULL AS sent, error FROM voiding.send_commands('[{"type": "Note", "data": {"id": 50}}, {"type": "Steal"}, {"type": "Note"},
  {"type": "Note", "data": {"id": 51}, "idempotency_key": "m", "start_by": "soon"}, {"type": "Note", "data": {"id": 51}, "idempotency_key": "m"},
  {"type": "Note", "data": {"id": 51}, "idempotency_key": "m"}, {"type": "Note", "data": {"id": 52}, "idempotency_key": "m"}, 7]');
SELECT voiding.send_commands('{}');
CALL test.settle();
SELECT data, status FROM voiding.command WHERE type = 'Note' AND (data ->> 'id')::integer BETWEEN 50 AND 52 ORDER BY 1;
SELECT * FROM voiding.check_invariants();
CALL test.by_hand();
\c contrib_regression
DROP DATABASE regress_voiding;
DROP ROLE regress_alice, regress_bob, regress_team;
