-- dispatch(): how a message becomes arguments, and who is called.
\set ECHO none
\i test/lib/database.sql
CREATE ROLE regress_clerk;
CREATE ROLE regress_author;
GRANT USAGE ON SCHEMA voiding TO regress_clerk;
GRANT EXECUTE ON FUNCTION voiding.dispatch(text, integer) TO regress_clerk;
SELECT voiding.create_service('office');
SELECT voiding.create_service('archive');
CREATE TABLE office.log (n int GENERATED ALWAYS AS IDENTITY, what text, args jsonb);
GRANT ALL ON office.log TO regress_author;
CREATE TYPE office.address AS (street text, number int, floors int[]);
CREATE TYPE office.mood AS ENUM ('good', 'bad');
CREATE DOMAIN office.few AS text[] CHECK (cardinality(VALUE) < 3);
CREATE DOMAIN office.small AS int CHECK (VALUE < 10);
-- what came in the last round, in order
CREATE FUNCTION heard() RETURNS TABLE (what text, args jsonb) LANGUAGE sql AS $$
  WITH d AS (DELETE FROM office.log RETURNING *) SELECT what, args FROM d ORDER BY n $$;
CREATE PROCEDURE send(type text, data jsonb, subject text DEFAULT 'k') LANGUAGE plpgsql AS $$
BEGIN
  PERFORM voiding.emit(type, subject, data, 'billing');
  COMMIT;
  CALL test.settle();
END $$;
-- what fails is seen before it is tried again
CALL test.set('voiding.retry_base', '1 h');

-- by name, whatever the order; what the function does not take is left out; a default serves
CREATE FUNCTION office.hire(name text, wage numeric, since date DEFAULT '2020-02-02', manager boolean DEFAULT NULL) RETURNS void LANGUAGE sql AS
  $$ INSERT INTO office.log (what, args) SELECT 'hire', to_jsonb(x) FROM (SELECT name, wage, since, manager) x $$;
SELECT voiding.subscribe('Hired', 'office.hire');
CALL send('Hired', '{"wage": 12.50, "name": "Eve"}');
CALL send('Hired', '{"shoe": 43, "manager": true, "since": "2024-05-06", "name": "Bob", "wage": "7", "x": {"y": []}}');
SELECT * FROM heard();
-- null is a value, not missing
CALL send('Hired', '{"wage": null, "name": null, "since": null}');
SELECT * FROM heard();
-- missing and without a default
CALL send('Hired', '{"name": "Ann"}');
SELECT attempts, error FROM voiding.outbox;
SELECT voiding.discard_message(id, 'tried') FROM voiding.outbox;
-- not of the argument's type
CALL send('Hired', '{"name": "Ann", "wage": "much"}');
SELECT attempts, error FROM voiding.outbox;
SELECT voiding.discard_message(id, 'tried') FROM voiding.outbox;
SELECT * FROM heard();

-- every kind of argument
CREATE FUNCTION office.file(t text, i int, b boolean, ts timestamptz, u uuid, j jsonb, j2 json, arr int[], arr2 text[], a office.address,
                            m office.mood, s office.small, by bytea, iv interval, "Odd Name" text, addresses office.address[] DEFAULT NULL) RETURNS int LANGUAGE sql AS
  $$ INSERT INTO office.log (what, args) SELECT 'file', to_jsonb(x) FROM (SELECT t, i, b, ts AT TIME ZONE 'UTC' AS ts, u, j, j2, arr, arr2, a, m, s, encode(by, 'hex') AS by, extract(minutes FROM iv) + extract(hours FROM iv) * 60 AS iv, "Odd Name") x RETURNING 1 $$;
SELECT voiding.subscribe('Filed', 'office.file');
CALL send('Filed', '{"t": "te\"x\nt", "i": 42, "b": false, "ts": "2024-02-29T12:00:00+02:00", "u": "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "j": {"a": [1, null]},
  "j2": [true], "arr": [1, null, 3], "arr2": ["a,b", "{c}"], "a": {"street": "Main \"St\"", "number": 7, "floors": [1, 2]}, "m": "bad", "s": 9, "by": "\\x00ff", "iv": "PT1H", "Odd Name": "odd"}');
SELECT attempts, error FROM voiding.outbox;
SELECT jsonb_pretty(args) FROM heard();
-- an object or a list where text is wanted; text, number and null where jsonb is; null and empty lists
CALL send('Filed', '{"t": {"an": "object"}, "i": "42", "b": "yes", "ts": null, "u": null, "j": "text", "j2": null, "arr": [], "arr2": null, "a": null,
  "m": null, "s": null, "by": null, "iv": null, "Odd Name": [1, "2"]}');
SELECT attempts, error FROM voiding.outbox;
SELECT jsonb_pretty(args) FROM heard();
-- null is null for jsonb too
CREATE FUNCTION office.nulls(j jsonb, j2 json, a int[], c office.address, d jsonb DEFAULT '{}') RETURNS void LANGUAGE sql AS
  $$ INSERT INTO office.log (what, args) SELECT 'nulls', jsonb_build_object('j', j IS NULL, 'j2', j2 IS NULL, 'a', a IS NULL, 'c', c IS NULL, 'd', d) $$;
SELECT voiding.subscribe('Nulled', 'office.nulls');
CALL send('Nulled', '{"j": null, "j2": null, "a": null, "c": null}');
SELECT * FROM heard();
-- the domain's check is asked
CALL send('Filed', '{"t": "", "i": 1, "b": true, "ts": null, "u": null, "j": null, "j2": null, "arr": null, "arr2": null, "a": null, "m": "good", "s": 10, "by": null, "iv": null, "Odd Name": ""}');
SELECT attempts, error FROM voiding.outbox;
SELECT voiding.discard_message(id, 'tried') FROM voiding.outbox;
-- a list of rows, of two-dimensional arrays, of dates
CREATE FUNCTION office.lists(addresses office.address[] DEFAULT NULL, grid int[] DEFAULT NULL, days date[] DEFAULT NULL, docs jsonb[] DEFAULT NULL, texts text[] DEFAULT NULL,
    few office.few DEFAULT NULL) RETURNS void LANGUAGE sql AS
  $$ INSERT INTO office.log (what, args) SELECT 'lists', jsonb_strip_nulls(to_jsonb(x)) FROM (SELECT addresses, grid, days, docs, texts, few) x $$;
SELECT voiding.subscribe('Listed', 'office.lists');
CALL send('Listed', '{"days": ["2024-02-29", null], "texts": ["a", "b \"c\"", {"d": 1}]}', 'l1');
CALL send('Listed', '{"docs": [{"a": 1}, "x", null, [2]]}', 'l2');
CALL send('Listed', '{"addresses": [{"street": "A", "number": 1}, {"street": "B, \"C\"", "floors": [3]}]}', 'l3');
CALL send('Listed', '{"grid": [[1, 2], [3, 4]]}', 'l4');
CALL send('Listed', '{"few": ["one", "two"]}', 'l5');
CALL send('Listed', '{"few": ["one", "two", "three"]}', 'l6');
SELECT aggregateid, attempts, error FROM voiding.outbox ORDER BY seq;
SELECT * FROM heard();
SELECT count(voiding.discard_message(id, 'tried')) FROM voiding.outbox;

-- the envelope, where the data does not say otherwise
CREATE FUNCTION office.envelope(correlation_id uuid, message_id uuid, source text, subject text, causation_id uuid DEFAULT NULL, data text DEFAULT 'none') RETURNS void LANGUAGE sql AS
  $$ INSERT INTO office.log (what, args) SELECT 'envelope', jsonb_build_object('correlated', envelope.correlation_id = e.correlation_id, 'message', message_id = e.event_id,
       'source', envelope.source, 'subject', envelope.subject, 'cause', envelope.causation_id, 'data', envelope.data)
       FROM (SELECT * FROM voiding.event ORDER BY position DESC LIMIT 1) e $$;
SELECT voiding.subscribe('Sealed', 'office.envelope');
CALL send('Sealed', '{}', 'the subject');
CALL send('Sealed', '{"source": "me", "subject": null, "data": "d"}', 'another');
SELECT * FROM heard();

-- handlers that return something, rows, nothing; STRICT with a null; a handler without arguments
CREATE FUNCTION office.rows(n int) RETURNS SETOF int LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO office.log (what) VALUES ('rows begins');
  RETURN QUERY SELECT generate_series(1, n);
  INSERT INTO office.log (what) VALUES ('rows ends');
END $$;
CREATE FUNCTION office.strict(n int) RETURNS void STRICT LANGUAGE sql AS $$ INSERT INTO office.log (what) VALUES ('strict') $$;
CREATE FUNCTION office.noargs() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE FUNCTION office.none() RETURNS void LANGUAGE sql AS $$ INSERT INTO office.log (what) VALUES ('none') $$;
SELECT voiding.subscribe('Rows', 'office.rows');
SELECT voiding.subscribe('Strict', 'office.strict');
SELECT voiding.subscribe('None', 'office.none');
CALL send('Rows', '{"n": 3}');
CALL send('Strict', '{"n": null}');
CALL send('Strict', '{"n": 1}');
CALL send('None', '{"n": 1}');
SELECT * FROM heard();
-- what cannot be a handler
CREATE PROCEDURE office.proc() LANGUAGE sql AS '';
CREATE FUNCTION office.unnamed(int) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION office.out(a int, OUT b int) LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION office.variadic(VARIADIC a int[]) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION office.pseudo(a anyelement) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION office.twice() RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION office.twice(a int) RETURNS void LANGUAGE sql AS '';
SELECT voiding.subscribe('Wrong', 'office.proc');
SELECT voiding.subscribe('Wrong', 'office.unnamed');
SELECT voiding.subscribe('Wrong', 'office.out');
SELECT voiding.subscribe('Wrong', 'office.variadic');
SELECT voiding.subscribe('Wrong', 'office.pseudo');
\echo :LAST_ERROR_SQLSTATE
\set VERBOSITY sqlstate
SELECT voiding.subscribe('Wrong', 'office.noargs');
\set VERBOSITY default
SELECT voiding.subscribe('Wrong', 'office.twice');
SELECT voiding.subscribe('Wrong', 'office.nothing');
\echo :LAST_ERROR_SQLSTATE
SELECT voiding.subscribe('Wrong', 'pg_catalog.now');
\echo :LAST_ERROR_SQLSTATE
SELECT voiding.subscribe('Hired', 'office.none');
\echo :LAST_ERROR_SQLSTATE
SELECT voiding.subscribe('bad name', 'office.none');
\echo :LAST_ERROR_SQLSTATE
SELECT voiding.create_command('MarkDocumentAsVoided', 'office.none');
\echo :LAST_ERROR_SQLSTATE
SELECT voiding.unsubscribe('Wrong', 'office');
\echo :LAST_ERROR_SQLSTATE
SELECT voiding.unsubscribe('Hired', 'archive');
SELECT voiding.drop_command('NoSuch');
SELECT voiding.drop_command('MarkDocumentAsVoided');
\echo :LAST_ERROR_SQLSTATE

-- two services hear one event; each alone; batch_size; the order of a key: by hand
CALL test.by_hand();
CREATE FUNCTION archive.keep(n int) RETURNS void LANGUAGE sql AS $$ INSERT INTO office.log (what, args) VALUES ('archive', to_jsonb(n)) $$;
CREATE FUNCTION office.note(n int) RETURNS void LANGUAGE sql AS $$ INSERT INTO office.log (what, args) VALUES ('office', to_jsonb(n)) $$;
SELECT voiding.subscribe('Noted', 'archive.keep');
SELECT voiding.subscribe('Noted', 'office.note');
SELECT count(voiding.emit('Noted', 'one key', jsonb_build_object('n', i), 'billing')) FROM generate_series(1, 5) i;
SELECT voiding.dispatch('archive', 2);
SELECT * FROM heard();
SELECT voiding.dispatch('archive');
SELECT * FROM heard();
SELECT voiding.dispatch(batch_size => 1), voiding.dispatch(batch_size => 3);
SELECT * FROM heard();
SELECT voiding.dispatch('office', 1000), voiding.dispatch('office', 1000);
SELECT * FROM heard();
SET voiding.batch_size = 1;
SELECT count(voiding.emit('Noted', 'key ' || i, jsonb_build_object('n', i), 'billing')) FROM generate_series(1, 3) i;
SELECT voiding.dispatch(), voiding.dispatch('office');
RESET voiding.batch_size;
SELECT voiding.dispatch();
SELECT what, count(*) FROM heard() GROUP BY what ORDER BY what;
SELECT voiding.dispatch('nobody');
\echo :LAST_ERROR_SQLSTATE
SELECT voiding.dispatch(NULL, 0);
\echo :LAST_ERROR_SQLSTATE
SELECT voiding.dispatch(NULL, -1);
SET voiding.batch_size = 0;
RESET voiding.batch_size;

-- handlers run as their owner, with their service's path, whoever dispatches; settings are put back
CREATE FUNCTION office.whoami() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO log (what, args) VALUES ('whoami', jsonb_build_object('user', current_user, 'path', current_setting('search_path')));
  SET work_mem = '123MB';
END $$;
ALTER FUNCTION office.whoami OWNER TO regress_author;
GRANT USAGE ON SCHEMA office TO regress_author;
SELECT voiding.subscribe('Who', 'office.whoami');
SELECT voiding.emit('Who', 'k', '{}', 'billing') IS NOT NULL AS id;
SHOW work_mem;
SET ROLE regress_clerk;
SELECT voiding.dispatch();
SELECT current_user;
RESET ROLE;
SHOW work_mem;
SELECT * FROM heard();
CALL test.as_asked();
-- dispatch inside a handler is refused, and so is a wait
CREATE FUNCTION office.nested() RETURNS void LANGUAGE sql AS $$ SELECT voiding.dispatch() $$;
CREATE FUNCTION office.waiting() RETURNS void LANGUAGE sql AS $$ SELECT voiding.wait_until_idle('1 s') $$;
SELECT voiding.subscribe('Nested', 'office.nested');
SELECT voiding.subscribe('Waiting', 'office.waiting');
CALL send('Nested', '{}', 'n');
CALL send('Waiting', '{}', 'w');
SELECT attempts, error FROM voiding.outbox ORDER BY seq;
SELECT count(voiding.discard_message(id, 'tried')) FROM voiding.outbox;
-- a function that is received outside is left alone, and does not hold up others
SELECT voiding.create_command('Deliver', service => 'archive');
SELECT type, function FROM voiding.handler WHERE type = 'Deliver';
SELECT voiding.create_process_type('delivery', '{"key": "id", "start": {"Ordered": "A"}, "states": {"A": {"entry": {"send": ["Deliver", "Deliver"]}, "forever": "a test", "on": {"Done": "B"}}, "B": {"type": "final"}}}');
SELECT voiding.emit('Ordered', 'o', '{"id": "k"}', 'billing') IS NOT NULL AS id;
CALL send('None', '{}');
SELECT * FROM heard();
SELECT type, attempts, payload ->> 'id' AS id FROM voiding.outbox;
SELECT voiding.wait_until_idle('0 s');
SELECT * FROM voiding.check_invariants() UNION ALL SELECT * FROM billing.check_invariants() UNION ALL SELECT * FROM reports.check_invariants();
CALL test.by_hand();
\c contrib_regression
DROP DATABASE regress_voiding;
DROP ROLE regress_clerk;
DROP ROLE regress_author;
