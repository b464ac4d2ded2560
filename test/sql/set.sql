-- Handlers that take a set: one call for many messages of different keys.
\set ECHO none
\i test/lib/database.sql
SET client_min_messages = warning;
-- what fails is seen before it is tried again
CALL test.set('voiding.retry_base', '1 h');
SELECT voiding.create_service('shop');
CREATE TABLE shop.call (n integer GENERATED ALWAYS AS IDENTITY, ids text[], boxes integer[], who uuid[]);
CREATE TABLE shop.done (id text, correlation uuid);
CREATE TRIGGER done AFTER INSERT ON shop.done FOR EACH ROW EXECUTE FUNCTION voiding.emit_event('Done', '@correlation=correlation', 'id');
CREATE FUNCTION shop.pack(id text[], boxes integer[], correlation_id uuid[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF 13 = ANY (boxes) THEN
    RAISE 'no thirteen';
  END IF;
  INSERT INTO shop.call (ids, boxes, who) VALUES (id, boxes, correlation_id);
  INSERT INTO shop.done SELECT * FROM unnest(id, correlation_id) ORDER BY 1 DESC;
END $$;

-- what can be one
CREATE FUNCTION shop.single(id text) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION shop.nothing() RETURNS void LANGUAGE sql AS '';
SELECT voiding.subscribe('Ordered', 'shop.single', takes_set => true);
SELECT voiding.subscribe('Ordered', 'shop.nothing', takes_set => true);
SELECT voiding.subscribe('Ordered', 'shop.pack', takes_set => true);
SELECT type, function, takes_set FROM voiding.handler WHERE service = 'shop';

-- one call for all keys; the second message of a key in the next one: by hand, workers share the keys
CALL test.by_hand();
SELECT count(voiding.emit('Ordered', k, jsonb_build_object('id', k, 'boxes', n), 'shop'))
  FROM (VALUES ('a', 1), ('b', 2), ('a', 3), ('c', 4), ('a', 5), ('d', NULL)) x(k, n);
SELECT voiding.dispatch();
SELECT n, ids, boxes FROM shop.call ORDER BY n;

-- each event belongs to its own message
SELECT e.subject, e.causation_id = o.event_id AS caused_by_its_own, e.correlation_id = o.correlation_id AS in_its_conversation
  FROM voiding.event e JOIN voiding.event o ON o.type = 'Ordered' AND o.correlation_id = e.correlation_id WHERE e.type = 'Done' ORDER BY e.subject;

CALL test.as_asked();
-- one that fails is found and put back, the others are handled, once
TRUNCATE shop.call, shop.done;
SELECT count(voiding.emit('Ordered', k, jsonb_build_object('id', k, 'boxes', n), 'shop'))
  FROM (VALUES ('a', 1), ('b', 2), ('c', 13), ('d', 4), ('c', 5), ('e', 6)) x(k, n);
CALL test.settle();
SELECT array_agg(i ORDER BY i) AS handled FROM shop.call, unnest(ids) i;
SELECT aggregateid, payload ->> 'boxes' AS boxes, attempts, error FROM voiding.outbox ORDER BY seq;
SELECT count(voiding.discard_message(id, 'tested')) FROM voiding.outbox WHERE attempts > 0;
CALL test.settle();
SELECT ids, boxes FROM shop.call ORDER BY n DESC LIMIT 1;

-- a key that one message lacks is null, one that no default covers an error of that message alone
CREATE FUNCTION shop.weigh(id text[], weight numeric[], note text[] DEFAULT NULL) RETURNS void LANGUAGE sql AS
  'INSERT INTO shop.call (ids) SELECT array_agg(concat_ws('':'', i, w, coalesce(t, ''none'')) ORDER BY i) FROM unnest(id, weight, note) x(i, w, t)';
SELECT voiding.subscribe('Weighed', 'shop.weigh', takes_set => true);
TRUNCATE shop.call;
CALL test.set('voiding.retry_limit', '1');
SELECT count(voiding.emit('Weighed', k, d, 'shop'))
  FROM (VALUES ('a', '{"id": "a", "weight": 1.5, "note": "x"}'::jsonb), ('b', '{"id": "b", "weight": 2}'), ('c', '{"id": "c"}'), ('d', '{"id": "d", "weight": null}')) x(k, d);
CALL test.settle();
SELECT i FROM shop.call, unnest(ids) i ORDER BY i;
SELECT aggregateid, error FROM voiding.dead_letter;

-- an event about something else cannot be told apart
CREATE FUNCTION shop.tell(id text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF cardinality(id) > 1 THEN
    PERFORM voiding.emit('Told', 'all of them', '{}');
  END IF;
  PERFORM voiding.emit('Told', i, '{}') FROM unnest(id) i;
END $$;
SELECT voiding.subscribe('Tell', 'shop.tell', takes_set => true);
SELECT count(voiding.emit('Tell', k, jsonb_build_object('id', k), 'shop')) FROM (VALUES ('a'), ('b')) x(k);
CALL test.settle();
SELECT t.subject, o.subject AS caused_by FROM voiding.event t JOIN voiding.event o ON o.event_id = t.causation_id WHERE t.type = 'Told' ORDER BY 1;
CALL test.by_hand();
BEGIN;
SELECT voiding.emit('Tell', 'x', '{"id": "x"}', 'shop') IS NOT NULL AS sent;
CREATE OR REPLACE FUNCTION shop.tell(id text[]) RETURNS void LANGUAGE sql AS $$ SELECT voiding.emit('Told', 'one', '{}') $$;
SELECT voiding.dispatch();
SELECT subject FROM voiding.event WHERE type = 'Told' ORDER BY position DESC LIMIT 1;
ROLLBACK;
\c contrib_regression
DROP DATABASE regress_voiding;
