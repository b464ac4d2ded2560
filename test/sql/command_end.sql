-- What ends a command: its handler, the process that it started or joined, or
-- an event of its conversation; and that nothing changes a final status.
\set ECHO none
\i test/lib/database.sql
SET client_min_messages = warning;
CREATE ROLE regress_clerk;
GRANT USAGE ON SCHEMA voiding TO regress_clerk;
GRANT EXECUTE ON FUNCTION voiding.send_command, billing.void_document, billing.acknowledge_process_failure TO regress_clerk;
GRANT SELECT ON voiding.command TO regress_clerk;
CREATE FUNCTION told(id text) RETURNS TABLE (status text, state text, code text, http text, title text, detail text) LANGUAGE sql AS $$
  SELECT c.status, c.result ->> 'state', c.error ->> 'code', c.error ->> 'status', c.error ->> 'title', c.error ->> 'detail'
    FROM voiding.command_status(id::uuid) c $$;

-- ---- a process ----
SELECT voiding.send_command('IssueDocument', jsonb_build_object('document_id', 'D' || i, 'customer_id', 'c' || i, 'amount', 10)) IS NOT NULL AS sent
  FROM generate_series(1, 4) i;
CALL test.settle();
SELECT status, resource, result ->> 'document_id' AS document, result ->> 'status' AS is FROM voiding.command ORDER BY seq;

-- it ends when the process is settled, and not before: by hand
CALL test.by_hand();
SET ROLE regress_clerk;
SELECT voiding.send_command('VoidDocument', '{"document_id": "D1", "reason": "wrong"}', 'v1') AS first \gset
RESET ROLE;
SELECT voiding.dispatch(batch_size => 1);
SELECT status, process_id = command_id AS is_the_process, result, finished_at FROM voiding.command_status(:'first');
SELECT state, data ->> 'requested_by' AS requested_by FROM voiding.process WHERE process_id = :'first';
-- a second command for the same document joins that process
SELECT voiding.send_command('VoidDocument', '{"document_id": "D1", "reason": "wrong too"}') AS second \gset
-- and the first one again is the first one
SET ROLE regress_clerk;
SELECT voiding.send_command('VoidDocument', '{"document_id": "D1", "reason": "wrong"}', 'v1') = :'first' AS same;
RESET ROLE;
SELECT voiding.dispatch('billing', 1);
SELECT status, process_id = :'first' AS joined FROM voiding.command_status(:'second');
SELECT status FROM voiding.cancel_command(:'second');
CALL test.as_asked();
CALL test.settle();
SELECT * FROM told(:'first') UNION ALL SELECT * FROM told(:'second');
SELECT result - 'process_id' AS result FROM voiding.command_status(:'first');
SELECT count(*), bool_and(c.finished_at >= p.finished_at) AS at_its_end, count(DISTINCT c.xid) AS commits FROM voiding.command c JOIN voiding.process p USING (process_id) WHERE process_id = :'first';

-- one that finds it settled
SELECT voiding.send_command('VoidDocument', '{"document_id": "D1"}') AS third \gset
CALL test.settle();
SELECT status, result ->> 'state' AS state, process_id = :'first' AS joined, finished_at IS NOT NULL AS finished FROM voiding.command_status(:'third');

-- the process fails: the report was published
SELECT voiding.send_command('PublishReport', '{"customer_id": "c2"}') AS publish \gset
CALL test.settle();
SELECT c.status, c.resource, r ->> 'total' AS total FROM voiding.command_status(:'publish') c, jsonb_array_elements(c.result) r;
SELECT voiding.send_command('VoidDocument', '{"document_id": "D2"}', 'v2') AS failed \gset
CALL test.settle();
SELECT status, state, code, http, title, regexp_replace(detail, '^report \d+ was published on \d{4}-\d\d-\d\d$', 'report N was published on DATE') AS detail FROM told(:'failed');
-- the failure is not acknowledged: refused; then it is, by a command, and can be tried again; the old command has failed
SELECT voiding.send_command('VoidDocument', '{"document_id": "D2"}') AS again \gset
CALL test.settle();
SELECT status, code, http, title FROM told(:'again');
SET ROLE regress_clerk;
SELECT voiding.send_command('AcknowledgeProcessFailure', jsonb_build_object('process_id', :'failed', 'reason', 'seen')) AS ack \gset
RESET ROLE;
CALL test.settle();
SELECT c.status, c.resource = '/processes/' || :'failed' AS resource, p.state FROM voiding.command_status(:'ack') c, voiding.process p WHERE p.process_id = :'failed';
SELECT data ->> 'by' AS by, data ->> 'reason' AS reason FROM voiding.event WHERE type = 'ProcessFailureAcknowledged';
SELECT status, code FROM told(:'failed');
SELECT voiding.send_command('VoidDocument', '{"document_id": "D2"}', 'v2') = :'failed' AS same;
-- nothing to acknowledge; no such document
SELECT voiding.send_command('AcknowledgeProcessFailure', '{"process_id": "11111111-1111-1111-1111-111111111111"}') AS none \gset
SELECT voiding.send_command('VoidDocument', '{"document_id": "D9"}') AS unknown \gset
CALL test.settle();
SELECT status, code, http, title FROM told(:'none') UNION ALL SELECT status, code, http, title FROM told(:'unknown');

-- it ends in its first step, in a state with a result; or in one that is a failure
SELECT voiding.create_service('shop');
CREATE FUNCTION shop.open(id text, kind text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM voiding.emit('Begun', id, jsonb_build_object('id', id, 'kind', kind)); END $$;
SELECT voiding.create_command('Begin', 'shop.open');
SELECT voiding.create_process_type('quick', '{"key": "id", "start": {"Begun": [{"target": "Good", "guard": "$.event.kind == \"good\""}, {"target": "Bad", "guard": "$.event.kind == \"bad\""}, "Odd"]},
  "states": {"Good": {"type": "final", "result": {"answer": "$.event.id"}}, "Bad": {"type": "final", "outcome": "failed", "reason": "it was bad"},
             "Odd": {"type": "failed", "reason": "$.event.kind", "on": {"ProcessFailureAcknowledged": "Bad"}}}}');
SELECT voiding.send_command('Begin', '{"id": "q1", "kind": "good"}') AS good, voiding.send_command('Begin', '{"id": "q2", "kind": "bad"}') AS bad,
       voiding.send_command('Begin', '{"id": "q3", "kind": "odd"}') AS odd \gset
CALL test.settle();
SELECT c.status, c.result, c.error ->> 'code' AS code, c.error ->> 'detail' AS detail, c.process_id = c.command_id AS is_process
  FROM unnest(ARRAY[:'good', :'bad', :'odd']::uuid[]) WITH ORDINALITY i(id, n), voiding.command_status(i.id) c ORDER BY n;

-- ---- an event ----
CREATE TABLE shop.parcel (id text PRIMARY KEY, conversation uuid, state text NOT NULL);
CREATE TRIGGER sent AFTER INSERT ON shop.parcel FOR EACH ROW EXECUTE FUNCTION voiding.emit_event('ParcelSent', 'id', '@correlation=conversation');
CREATE TRIGGER came AFTER UPDATE ON shop.parcel FOR EACH ROW WHEN (NEW.state = 'here') EXECUTE FUNCTION voiding.emit_event('ParcelCame', 'id', '@correlation=conversation');
CREATE TRIGGER lost AFTER UPDATE ON shop.parcel FOR EACH ROW WHEN (NEW.state LIKE 'lost%') EXECUTE FUNCTION voiding.emit_event('ParcelLost', 'id', 'reason=state', '@correlation=conversation');
CREATE FUNCTION shop.send(id text, correlation_id uuid, at_once boolean DEFAULT false, fail boolean DEFAULT false) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO shop.parcel VALUES (id, correlation_id, 'sent');
  IF at_once THEN
    UPDATE shop.parcel p SET state = 'here' WHERE p.id = send.id;
  END IF;
  IF fail THEN
    RAISE 'no more parcels';
  END IF;
  RETURN 'sent it';
END $$;
SELECT voiding.create_command('SendParcel', 'shop.send', resource => '/parcels/{id}', completed_by => 'ParcelCame', failed_by => 'ParcelLost');
-- the handler is done, the parcel is on its way
SELECT voiding.send_command('SendParcel', '{"id": "p1"}') AS p1, voiding.send_command('SendParcel', '{"id": "p2"}') AS p2 \gset
CALL test.settle();
SELECT status, result, process_id, finished_at, resource FROM voiding.command_status(:'p1');
-- evidence
UPDATE shop.parcel SET state = 'here' WHERE id = 'p1';
UPDATE shop.parcel SET state = 'lost at sea' WHERE id = 'p2';
SELECT c.status, c.result, c.error ->> 'detail' AS detail, c.error ->> 'code' AS code
  FROM unnest(ARRAY[:'p1', :'p2']::uuid[]) WITH ORDINALITY i(id, n), voiding.command_status(i.id) c ORDER BY n;
-- what comes later changes nothing
SELECT finished_at AS p1_at FROM voiding.command_status(:'p1') \gset
UPDATE shop.parcel SET state = 'lost';
UPDATE shop.parcel SET state = 'here';
SELECT c.status, c.result, c.error ->> 'detail' AS detail
  FROM unnest(ARRAY[:'p1', :'p2']::uuid[]) WITH ORDINALITY i(id, n), voiding.command_status(i.id) c ORDER BY n;
SELECT finished_at = :'p1_at' AS same FROM voiding.command_status(:'p1');
-- the event comes inside the handler; the handler fails after it
SELECT voiding.send_command('SendParcel', '{"id": "p3", "at_once": true}') AS p3, voiding.send_command('SendParcel', '{"id": "p4", "at_once": true, "fail": true}') AS p4 \gset
CALL test.settle();
SELECT c.status, c.result, c.error ->> 'detail' AS detail
  FROM unnest(ARRAY[:'p3', :'p4']::uuid[]) WITH ORDINALITY i(id, n), voiding.command_status(i.id) c ORDER BY n;
-- it comes from another service before the handler's commit: all in one round, by hand
CALL test.by_hand();
CREATE FUNCTION shop.deliver(id text, correlation_id uuid) RETURNS void LANGUAGE sql AS $$ UPDATE shop.parcel p SET state = 'here' WHERE p.id = deliver.id $$;
SELECT voiding.create_service('post');
SELECT voiding.subscribe('ParcelSent', 'shop.deliver', 'post');
SELECT voiding.send_command('SendParcel', '{"id": "p5"}') AS p5 \gset
BEGIN;
SELECT voiding.dispatch(batch_size => 1);
SELECT status FROM told(:'p5');
SELECT voiding.dispatch();
SELECT status FROM told(:'p5');
COMMIT;
SELECT status, result FROM voiding.command_status(:'p5');
-- an event of another conversation ends nothing
SELECT voiding.unsubscribe('ParcelSent', 'post');
SELECT voiding.send_command('SendParcel', '{"id": "p6"}') AS p6 \gset
SELECT voiding.dispatch();
SELECT voiding.emit('ParcelCame', 'p6', '{"id": "p6"}', 'shop') IS NOT NULL AS emitted;
SELECT status FROM told(:'p6');
-- nor is it there if it is rolled back
BEGIN;
UPDATE shop.parcel SET state = 'here' WHERE id = 'p6';
SELECT status FROM told(:'p6');
ROLLBACK;
SELECT status FROM told(:'p6');
-- both: a process, whose end is not the end if an event is to come, but whose failure is
CREATE FUNCTION shop.open_parcel(id text, kind text) RETURNS void LANGUAGE sql AS $$ SELECT shop.open(id, kind) $$;
SELECT voiding.create_command('BeginParcel', 'shop.open_parcel', completed_by => 'ParcelCame');
SELECT voiding.send_command('BeginParcel', '{"id": "q4", "kind": "good"}') AS good, voiding.send_command('BeginParcel', '{"id": "q5", "kind": "odd"}') AS odd \gset
SELECT voiding.dispatch();
SELECT status, code FROM told(:'good') UNION ALL SELECT status, code FROM told(:'odd');
INSERT INTO shop.parcel VALUES ('q4', :'good', 'sent');
UPDATE shop.parcel SET state = 'here' WHERE id = 'q4';
SELECT status, result FROM voiding.command_status(:'good');
SELECT * FROM voiding.check_invariants() UNION ALL SELECT * FROM billing.check_invariants() UNION ALL SELECT * FROM reports.check_invariants();
\c contrib_regression
DROP DATABASE regress_voiding;
DROP ROLE regress_clerk;
