-- '@becomes=column=value': an event for the change to a value, not for being it;
-- and begin_conversation() for such a change, unless a failure is unacknowledged.
\set ECHO none
\i test/lib/database.sql
SELECT voiding.create_service('shop');
CREATE DOMAIN shop.stage AS text CHECK (VALUE IN ('new', 'sold', 'lost'));
CREATE TABLE shop.item (id int PRIMARY KEY, stage shop.stage, price numeric(9,2), sale uuid, point point);
CREATE TRIGGER sold AFTER INSERT OR UPDATE OR DELETE ON shop.item FOR EACH ROW
  EXECUTE FUNCTION voiding.emit_event('ItemSold', '@becomes=stage=sold', 'id');
CREATE TRIGGER free AFTER UPDATE ON shop.item FOR EACH ROW
  EXECUTE FUNCTION voiding.emit_event('ItemFree', 'id', '@becomes=price=0');
-- an insert, changes from another value and from null; not: the same again, another value, null, a delete
INSERT INTO shop.item VALUES (1, 'sold'), (2, 'new'), (3, NULL), (4, 'lost');
UPDATE shop.item SET stage = 'sold';
UPDATE shop.item SET stage = 'sold', price = 1;
UPDATE shop.item SET stage = NULL WHERE id = 2;
UPDATE shop.item SET stage = 'sold' WHERE id = 2;
UPDATE shop.item SET price = 0.00 WHERE id = 1;
UPDATE shop.item SET price = 0 WHERE id IN (1, 3);
DELETE FROM shop.item WHERE id = 4;
SELECT type, subject FROM voiding.event ORDER BY position;
-- what cannot be compared with
CREATE TABLE shop.other (id int, stage shop.stage, p point);
CREATE FUNCTION attempt(fn text, args text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  hint text;
BEGIN
  EXECUTE format('CREATE TRIGGER t %s INSERT ON shop.other FOR EACH ROW EXECUTE FUNCTION voiding.%s(%s)',
                 CASE fn WHEN 'emit_event' THEN 'AFTER' ELSE 'BEFORE' END, fn, args);
  INSERT INTO shop.other VALUES (1, 'new', '(1,1)');
  RETURN 'taken';
EXCEPTION WHEN others THEN
  GET STACKED DIAGNOSTICS hint := PG_EXCEPTION_HINT;
  RETURN concat_ws(' | ', SQLSTATE, SQLERRM, hint);
END $$;
SELECT attempt('emit_event', a) FROM unnest(ARRAY[$$'E', '@becomes=stage'$$, $$'E', '@becomes=nothing=1'$$, $$'E', '@becomes=id=x'$$,
  $$'E', '@becomes=stage=burnt'$$, $$'E', '@becomes=p=(1,1)'$$]) a;
SELECT attempt('begin_conversation', a) FROM unnest(ARRAY[$$'id', '@becomes=stage=sold'$$, $$'sale', 'id'$$,
  $$'sale', '@process=sale'$$, $$'sale', '@subject=id'$$]) a;
-- a process for each sale, by the id that is put into the row; not before its failure is acknowledged
SELECT voiding.create_process_type('sale', '{"key": "id", "start": {"ItemSold": "Sold"}, "states": {
  "Sold": {"forever": true, "on": {"SaleFailed": "Failed"}},
  "Failed": {"type": "failed", "reason": "nobody pays", "on": {"ProcessFailureAcknowledged": "Over"}}, "Over": {"type": "final"}}}');
DROP TRIGGER sold ON shop.item;
CREATE TRIGGER begins BEFORE INSERT OR UPDATE ON shop.item FOR EACH ROW
  EXECUTE FUNCTION voiding.begin_conversation('sale', '@becomes=stage=sold', '@process=sale', '@subject=id');
CREATE TRIGGER sold AFTER INSERT OR UPDATE ON shop.item FOR EACH ROW
  EXECUTE FUNCTION voiding.emit_event('ItemSold', '@becomes=stage=sold', '@correlation=sale', 'id');
INSERT INTO shop.item VALUES (10, 'new'), (11, 'sold');
UPDATE shop.item SET stage = 'sold' WHERE id = 10;
SELECT i.id, p.state, p.process_id = i.sale AS same FROM shop.item i LEFT JOIN voiding.process p ON p.key = i.id::text
 WHERE i.id >= 10 ORDER BY i.id;
SELECT voiding.emit('SaleFailed', '10', '{"id": 10}', 'shop') IS NOT NULL AS said;
UPDATE shop.item SET stage = 'lost' WHERE id = 10;
\set VERBOSITY terse
UPDATE shop.item SET stage = 'sold' WHERE id = 10;
\set VERBOSITY default
\echo :LAST_ERROR_SQLSTATE
SELECT voiding.acknowledge_process_failure(process_id, 'it happens') FROM voiding.process WHERE key = '10';
UPDATE shop.item SET stage = 'sold' WHERE id = 10;
SELECT state, count(*) FROM voiding.process WHERE key = '10' GROUP BY state ORDER BY state;
-- a value that is written with a type that has changed since
ALTER TABLE shop.item DISABLE TRIGGER begins, DISABLE TRIGGER sold, DROP COLUMN price;
ALTER TABLE shop.item ADD price text;
UPDATE shop.item SET price = '0' WHERE id = 11;
UPDATE shop.item SET price = '0.00' WHERE id = 10;
SELECT subject FROM voiding.event WHERE type = 'ItemFree' ORDER BY position;
SELECT * FROM voiding.check_invariants();
CALL test.by_hand();
\c contrib_regression
DROP DATABASE regress_voiding;
