-- One event starts processes of two types: each has its own id, both run, and
-- both have a history.
\set ECHO none
\i test/lib/database.sql
SET statement_timeout = '10s';
SELECT voiding.create_service('shop');
CREATE TABLE shop.done (n int GENERATED ALWAYS AS IDENTITY, what text, order_id text, process uuid);
CREATE FUNCTION shop.pack(order_id text, process_id uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO shop.done (what, order_id, process) VALUES ('pack', order_id, process_id);
  PERFORM voiding.emit('Packed', order_id, jsonb_build_object('order', order_id));
END $$;
CREATE FUNCTION shop.bill(order_id text, process_id uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO shop.done (what, order_id, process) VALUES ('bill', order_id, process_id);
  PERFORM voiding.emit('Billed', order_id, jsonb_build_object('order', order_id));
END $$;
SELECT voiding.create_command('Pack', 'shop.pack');
SELECT voiding.create_command('Bill', 'shop.bill');
SELECT voiding.create_process_type('parcel', '{"key": "order", "start": {"Ordered": "Packing"}, "after": {"P1D": "Done"}, "states": {
  "Packing": {"entry": {"send": {"command": "Pack", "with": {"order_id": "$.key"}}}, "on": {"Packed": "Waiting"}},
  "Waiting": {"on": {"Billed": {"set": {"billed": true}}, "Shipped": "Done", "Cancelled": "Done"}}, "Done": {"type": "final"}}}');
SELECT voiding.create_process_type('invoice', '{"key": "order", "start": {"Ordered": "Billing"}, "after": {"P2D": "Done"}, "states": {
  "Billing": {"entry": {"send": {"command": "Bill", "with": {"order_id": "$.key"}}}, "on": {"Billed": "Open"}},
  "Open": {"on": {"Paid": "Done", "Cancelled": "Done"}}, "Done": {"type": "final"}}}');
-- a third and a fourth type have another key
SELECT voiding.create_process_type('customer', '{"key": "customer", "start": {"Ordered": "Known"}, "states": {
  "Known": {"on": {"Ordered": {"set": {"orders": "$.process.orders + 1"}}, "Left": "Gone"}, "forever": "as long as the customer stays"}, "Gone": {"type": "final"}}}');
SELECT voiding.create_process_type('visitor', definition) FROM voiding.process_type WHERE name = 'customer';
CREATE FUNCTION history(k text) RETURNS TABLE (type text, step int, event text, from_state text, to_state text, command text, note text) LANGUAGE sql AS
  $$ SELECT type, step, event, from_state, to_state, command, note FROM voiding.process_history WHERE key = k ORDER BY type, step $$;
BEGIN;
SELECT voiding.emit('Ordered', '1', '{"order": "1", "customer": "eve", "orders": 1}', 'shop') AS id \gset
SELECT type, key, state, process_id = :'id' AS own_id, conversation = :'id' AS same_conversation FROM voiding.active_process ORDER BY type;
SELECT count(DISTINCT process_id) FROM voiding.active_process;
-- each command carries the id of its own process, as correlation too
SELECT o.type, a.type AS of FROM voiding.outbox o JOIN voiding.active_process a ON a.process_id = o.correlation_id AND a.process_id::text = o.payload ->> 'process_id' ORDER BY o.type;
COMMIT;
CALL test.settle();
SELECT * FROM history('1');
SELECT * FROM history('eve');
SELECT what, a.type AS process FROM shop.done d LEFT JOIN voiding.process a ON a.process_id = d.process ORDER BY what;
-- again for the same customer: two start anew, two have it
BEGIN;
SELECT voiding.emit('Ordered', '2', '{"order": "2", "customer": "eve"}', 'shop') IS NOT NULL AS id;
SELECT type, key, state FROM voiding.active_process ORDER BY type, key;
SELECT type, data -> 'orders' AS orders FROM voiding.active_process WHERE key = 'eve' ORDER BY type;
SELECT count(DISTINCT process_id) FROM voiding.process;
COMMIT;
CALL test.settle();
SELECT * FROM history('2');
-- an event by the key moves all that wait for it
SELECT voiding.emit('Cancelled', '2', '{"order": "2"}', 'shop') IS NOT NULL AS id;
SELECT type, key, state FROM voiding.process WHERE key = '2' ORDER BY type;
SELECT * FROM history('2');
SELECT type, key, state FROM voiding.process WHERE key = '1' ORDER BY type;
SELECT voiding.emit('Shipped', '1', '{"order": "1"}', 'shop') IS NOT NULL AS id;
SELECT voiding.emit('Paid', '1', '{"order": "1"}', 'shop') IS NOT NULL AS id;
SELECT type, state FROM voiding.process WHERE key = '1' ORDER BY type;
-- both anew for an order that was there before, in the same conversation as the customer
BEGIN;
SELECT voiding.emit('Ordered', '1', '{"order": "1", "customer": "eve"}', 'shop') IS NOT NULL AS id;
SELECT type, state FROM voiding.active_process WHERE key = '1' ORDER BY type;
-- explain and the deadlines of both
SELECT a.type, t.name FROM voiding.timer t JOIN voiding.active_process a USING (process_id) WHERE a.key = '1' ORDER BY a.type;
SELECT x.type, e.aspect, e.what FROM (SELECT type, process_id FROM voiding.active_process WHERE key = '1') x, voiding.explain(x.process_id) e WHERE e.aspect IN ('state', 'message') ORDER BY x.type, e.aspect, e.what;
COMMIT;
CALL test.settle();
CALL test.set('voiding.clock_offset', '100000');
CALL test.settle();
CALL test.set('voiding.clock_offset', '200000');
CALL test.settle();
SELECT type, state, count(DISTINCT process_id) FROM voiding.process WHERE key = '1' GROUP BY type, state ORDER BY type, state;
SELECT type, step, event, from_state, to_state, note FROM voiding.process_history h
 WHERE key = '1' AND (SELECT count(*) FROM voiding.process p WHERE p.type = h.type AND p.key = '1' AND p.started_at > h.at) = 0 ORDER BY type, at, step;
SELECT count(*) FROM voiding.parked_event;
SELECT * FROM voiding.check_invariants() UNION ALL SELECT * FROM billing.check_invariants() UNION ALL SELECT * FROM reports.check_invariants();
CALL test.by_hand();
\c contrib_regression
DROP DATABASE regress_voiding;
