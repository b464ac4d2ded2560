-- emit(): who may say something for which service, and what.
\set ECHO none
\i test/lib/database.sql
-- what fails is seen before it is tried again
CALL test.set('voiding.retry_base', '1 h');
CREATE ROLE regress_owner;
CREATE ROLE regress_member IN ROLE regress_owner;
CREATE ROLE regress_stranger;
GRANT USAGE ON SCHEMA voiding TO regress_owner, regress_stranger;
GRANT EXECUTE ON FUNCTION voiding.emit(text, text, jsonb, text) TO regress_owner, regress_stranger;
SELECT voiding.create_service('shop', owner => 'regress_owner');
-- the owner, a member of the owner and a superuser may
SET ROLE regress_owner;
SELECT voiding.emit('ShopOpened', 'main street', '{"at": 8}', 'shop') IS NOT NULL AS id;
SET ROLE regress_member;
SELECT voiding.emit('ShopClosed', 'main street', '{"at": 20}', source => 'shop') IS NOT NULL AS id;
-- of another service, or by somebody else: no
SELECT voiding.emit('DocumentVoided', 'INV-1', '{"document_id": "INV-1"}', 'billing');
\echo :LAST_ERROR_SQLSTATE
SET ROLE regress_stranger;
SELECT voiding.emit('ShopOpened', 'x', '{}', 'shop');
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
SELECT voiding.emit('ShopMoved', 'main street', NULL, 'shop') IS NOT NULL AS id;
-- each is one row, with an own correlation, no cause, and who did it
SELECT type, source, subject, data, actor = current_user AS me, actor, correlation_id = event_id AS own, causation_id FROM voiding.event ORDER BY position;
-- the id that is returned is the event's
SELECT voiding.emit('Returned', 's', '{}', 'shop') AS id \gset
SELECT type FROM voiding.event WHERE event_id = :'id';
-- the engine is no service, and a schema is none
SELECT voiding.emit('Something', 'INV-1', '{}', 'voiding');
\echo :LAST_ERROR_SQLSTATE
SELECT voiding.emit('Something', 'x', '{}', 'public');
\echo :LAST_ERROR_SQLSTATE
-- the engine's own types are not for services
SELECT voiding.emit('ProcessFailureAcknowledged', 'x', '{}', 'shop');
\echo :LAST_ERROR_SQLSTATE
-- outside a handler the source must be given
SELECT voiding.emit('Something', 'x', '{}');
\echo :LAST_ERROR_SQLSTATE
-- data is an object, type and subject are there and short enough
SELECT voiding.emit('Something', 'x', '[1]', 'shop');
SELECT voiding.emit('Something', 'x', '"text"', 'shop');
SELECT voiding.emit('Something', 'x', 'null', 'shop');
\echo :LAST_ERROR_SQLSTATE
SELECT voiding.emit(NULL, 'x', '{}', 'shop');
\echo :LAST_ERROR_SQLSTATE
SELECT voiding.emit('Something', NULL, '{}', 'shop');
SELECT voiding.emit('Something', '', '{}', 'shop');
\echo :LAST_ERROR_SQLSTATE
SELECT voiding.emit('', 'x', '{}', 'shop');
SELECT voiding.emit(repeat('x', 101), 'x', '{}', 'shop');
SELECT voiding.emit('Something', repeat('x', 1025), '{}', 'shop');
SELECT voiding.emit('Something', repeat('x', 10000000), '{}', 'shop');
SELECT count(*) FROM voiding.event WHERE type = 'Something';
-- in a handler the source is its service, correlation and causation are those of the message
CREATE FUNCTION shop.ring(name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM voiding.emit('BellRung', name, jsonb_build_object('name', name));
  PERFORM voiding.emit('BellHeard', name, '{}', 'shop');
END $$;
ALTER FUNCTION shop.ring OWNER TO regress_owner;
SELECT voiding.subscribe('DoorOpened', 'shop.ring');
SELECT voiding.emit('DoorOpened', 'front', '{"name": "bell"}', 'billing') AS id \gset
CALL test.settle();
SELECT type, source, subject, data, actor, correlation_id = :'id' AS same_conversation, causation_id = :'id' AS caused
  FROM voiding.event WHERE type LIKE 'Bell%' ORDER BY position;
-- a handler speaks for its own service only
CREATE OR REPLACE FUNCTION shop.ring(name text) RETURNS void LANGUAGE sql AS $$ SELECT voiding.emit('DocumentVoided', name, '{}', 'billing') $$;
SELECT voiding.emit('DoorOpened', 'back', '{"name": "bell"}', 'billing') AS id \gset
CALL test.settle();
SELECT attempts, error FROM voiding.outbox;
SELECT count(*) FROM voiding.event WHERE type = 'DocumentVoided';
-- events are append-only; redaction takes the data out and says so
UPDATE voiding.event SET type = 'Other';
\echo :LAST_ERROR_SQLSTATE
DELETE FROM voiding.event;
UPDATE voiding.event SET data = '{}' WHERE type = 'ShopMoved';
SELECT event_id AS id FROM voiding.event WHERE type = 'ShopOpened' \gset
SELECT voiding.redact_event(:'id', '');
SELECT voiding.redact_event(:'id', 'asked by the customer');
SELECT type, data #>> '{redacted,by}' = current_user AS by, data #>> '{redacted,reason}' AS reason, data ? 'at' AS old_data FROM voiding.event WHERE event_id = :'id';
UPDATE voiding.event SET data = '{}' WHERE event_id = :'id';
SELECT voiding.redact_event('00000000-0000-0000-0000-000000000000', 'no such');
\echo :LAST_ERROR_SQLSTATE
-- an event in the CloudEvents format
SELECT voiding.cloudevent(e) - '{id,time,correlationid}'::text[] AS cloudevent, (voiding.cloudevent(e) ->> 'id')::uuid = event_id AS id,
       (voiding.cloudevent(e) ->> 'time')::timestamptz = recorded_at AS time FROM voiding.event e WHERE type = 'ShopClosed';
SELECT voiding.discard_message(id, 'end of test') FROM voiding.outbox;
SELECT * FROM voiding.check_invariants() UNION ALL SELECT * FROM billing.check_invariants() UNION ALL SELECT * FROM reports.check_invariants();
CALL test.by_hand();
\c contrib_regression
DROP DATABASE regress_voiding;
DROP ROLE regress_member;
DROP ROLE regress_stranger;
DROP ROLE regress_owner;
