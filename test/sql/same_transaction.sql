-- After events were written, in the same transaction: nothing of the engine's
-- tables stays open, so everything can still be done to them and to others.
-- By hand: dispatch() is part of the transactions.
CREATE DATABASE regress_same_transaction;
\c regress_same_transaction
\set SHOW_CONTEXT never
CREATE EXTENSION voiding;
SELECT count(billing.issue_document('INV-' || i, 'acme', i)) FROM generate_series(1, 3) i;
SELECT voiding.dispatch();
CREATE TABLE other (id int);
INSERT INTO other VALUES (1);

-- indexes on the tables just written, used for what is written next
BEGIN;
SELECT billing.void_document('INV-1') AS p \gset
CREATE INDEX event_type ON voiding.event_p0 (type);
CREATE INDEX outbox_type ON voiding.outbox (type);
CREATE INDEX active_state ON voiding.active_process (state);
CREATE UNIQUE INDEX timer_twice ON voiding.timer (process_id, name);
SELECT document_id FROM billing.issue_document('INV-4', 'acme', 4);
SELECT voiding.dispatch();
SET LOCAL enable_seqscan = off;
SET LOCAL enable_bitmapscan = off;
SELECT count(*) FROM voiding.event_p0 WHERE type = 'DocumentIssued';
SELECT count(*) FROM voiding.event_p0 WHERE type = 'DocumentVoided';
REINDEX INDEX voiding.event_type;
SELECT document_id FROM billing.issue_document('INV-5', 'acme', 5);
SELECT count(*) FROM voiding.event_p0 WHERE type = 'DocumentIssued';
DROP INDEX voiding.event_type, voiding.outbox_type, voiding.active_state, voiding.timer_twice;
SELECT document_id FROM billing.issue_document('INV-6', 'acme', 6);
COMMIT;
SELECT count(*) FROM voiding.event WHERE type = 'DocumentIssued';
SELECT state FROM voiding.process WHERE process_id = :'p';

-- ALTER of engine tables and of one's own, between events
BEGIN;
SELECT billing.void_document('INV-2') AS p \gset
ALTER TABLE billing.document ADD colour text DEFAULT 'blue';
ALTER TABLE voiding.event ADD CONSTRAINT type_short CHECK (length(type) < 90);
ALTER TABLE voiding.outbox SET (fillfactor = 90);
ALTER TABLE voiding.active_process ALTER data SET STATISTICS 0;
SELECT document_id, colour FROM billing.issue_document('INV-7', 'acme', 7);
SELECT voiding.dispatch();
ALTER TABLE voiding.event DROP CONSTRAINT type_short;
SELECT document_id FROM billing.issue_document('INV-8', 'acme', 8);
COMMIT;
SELECT state FROM voiding.process WHERE process_id = :'p';
-- a column that a user adds to an engine table stays empty, and in the way of nobody
ALTER TABLE voiding.active_process ADD extra int;
SELECT billing.void_document('INV-3') AS p \gset
SELECT key, extra FROM voiding.active_process;
SELECT voiding.dispatch();
SELECT state FROM voiding.process WHERE process_id = :'p';
ALTER TABLE voiding.active_process DROP extra;

-- TRUNCATE, DROP, LOCK, CLUSTER, CREATE TABLE AS
BEGIN;
SELECT billing.void_document('INV-4') AS p \gset
TRUNCATE other;
DROP TABLE other;
CREATE TABLE kept AS SELECT type FROM voiding.event;
LOCK TABLE voiding.event, voiding.outbox IN ACCESS EXCLUSIVE MODE;
CLUSTER voiding.outbox USING outbox_pkey;
SELECT voiding.dispatch();
DROP TABLE kept;
SELECT voiding.add_event_partition(10000000);
SELECT document_id FROM billing.issue_document('INV-9', 'acme', 9);
COMMIT;
SELECT state FROM voiding.process WHERE process_id = :'p';
-- a trigger and its table dropped right after it spoke, its service too
BEGIN;
SELECT voiding.create_service('shortlived');
CREATE TABLE shortlived.t (id int);
CREATE TRIGGER t AFTER INSERT ON shortlived.t FOR EACH ROW EXECUTE FUNCTION voiding.emit_event('Lived');
INSERT INTO shortlived.t VALUES (1);
DROP TRIGGER t ON shortlived.t;
CREATE TRIGGER t AFTER INSERT ON shortlived.t FOR EACH ROW EXECUTE FUNCTION voiding.emit_event('LivedAgain', 'id');
INSERT INTO shortlived.t VALUES (2);
SELECT voiding.drop_service('shortlived');
INSERT INTO shortlived.t VALUES (3);
DROP SCHEMA shortlived CASCADE;
COMMIT;
SELECT type, source, data FROM voiding.event WHERE type LIKE 'Lived%' ORDER BY position;

-- ROLLBACK TO takes back event, process, timer and command, and what was made after
BEGIN;
SELECT billing.void_document('INV-5') AS p \gset
SAVEPOINT a;
SELECT voiding.dispatch('reports', 1);
SELECT state FROM voiding.ongoing_process;
ROLLBACK TO a;
SELECT state FROM voiding.ongoing_process;
SELECT type FROM voiding.outbox WHERE correlation_id = :'p';
SAVEPOINT b;
CREATE INDEX event_type ON voiding.event_p0 (type);
SELECT voiding.create_process_type('short', '{"key": "id", "start": {"DocumentIssued": "End"}, "states": {"End": {"type": "final"}}}');
SELECT document_id FROM billing.issue_document('INV-10', 'acme', 10);
ROLLBACK TO b;
SELECT document_id FROM billing.issue_document('INV-10', 'acme', 10);
SELECT voiding.dispatch();
COMMIT;
SELECT state FROM voiding.process WHERE process_id = :'p';
SELECT count(*) FROM voiding.process WHERE type = 'short';
-- many savepoints in one transaction
DO $$ BEGIN
  FOR i IN 1 .. 200 LOOP
    BEGIN
      PERFORM billing.issue_document('S-' || i, 'savepoint', i);
      IF i % 2 = 0 THEN
        RAISE EXCEPTION 'no';
      END IF;
    EXCEPTION WHEN raise_exception THEN
      NULL;
    END;
  END LOOP;
END $$;
SELECT count(*) FROM voiding.event WHERE subject LIKE 'S-%';
SELECT voiding.dispatch(NULL, 1000);
SELECT count(*), sum(amount) FROM reports.report_line WHERE customer_id = 'savepoint';

-- triggers of a user on the event table, when emit() is called from SELECT
CREATE TABLE heard (type text, data jsonb);
CREATE FUNCTION hear() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
  INSERT INTO heard VALUES (NEW.type, NEW.data);
  RETURN NEW;
END $$;
CREATE TRIGGER hear AFTER INSERT ON voiding.event FOR EACH ROW EXECUTE FUNCTION hear();
SELECT voiding.emit('Spoken', 'x', '{"n": 1}', 'billing') IS NOT NULL AS id;
DO $$ BEGIN PERFORM voiding.emit('Spoken', 'x', '{"n": 2}', 'billing'); END $$;
SELECT document_id FROM billing.issue_document('INV-11', 'acme', 11);
SELECT type, data -> 'n' AS n FROM heard ORDER BY data -> 'n';
-- one that speaks itself
CREATE FUNCTION echo() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM voiding.emit('Echo', NEW.subject, NEW.data, 'billing');
  RETURN NEW;
END $$;
CREATE TRIGGER echo AFTER INSERT ON voiding.event FOR EACH ROW WHEN (NEW.type = 'Spoken') EXECUTE FUNCTION echo();
SELECT voiding.emit('Spoken', 'x', '{"n": 3}', 'billing') IS NOT NULL AS id;
-- a BEFORE trigger that speaks itself while the row is being written
CREATE TRIGGER before_echo BEFORE INSERT ON voiding.event FOR EACH ROW WHEN (NEW.type = 'Spoken') EXECUTE FUNCTION echo();
SELECT voiding.emit('Spoken', 'x', '{"n": 4}', 'billing') IS NOT NULL AS id;
SELECT type, data FROM voiding.event WHERE data ->> 'n' > '2' ORDER BY position;
SELECT type, data -> 'n' AS n FROM heard WHERE data ->> 'n' > '2' ORDER BY data -> 'n', type COLLATE "C";
DROP TRIGGER before_echo ON voiding.event;
-- and one that refuses
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not today'; END $$;
CREATE TRIGGER refuse AFTER INSERT ON voiding.event FOR EACH ROW WHEN (NEW.type = 'Spoken') EXECUTE FUNCTION refuse();
SELECT voiding.emit('Spoken', 'x', '{"n": 5}', 'billing');
SELECT count(*) FROM voiding.event WHERE data -> 'n' = '5';
DROP TRIGGER hear ON voiding.event;
DROP TRIGGER echo ON voiding.event;
DROP TRIGGER refuse ON voiding.event;
SELECT voiding.dispatch();

-- an index made on an engine table is complete: the same rows by index and without
CREATE INDEX subject ON voiding.event_p0 (subject);
BEGIN;
SELECT document_id FROM billing.issue_document('INV-12', 'acme', 12);
DROP INDEX voiding.subject;
CREATE INDEX subject ON voiding.event_p0 (subject, position);
SELECT document_id FROM billing.issue_document('INV-13', 'acme', 13);
COMMIT;
SELECT document_id FROM billing.issue_document('INV-14', 'acme', 14);
SET enable_seqscan = off;
SELECT subject FROM voiding.event_p0 WHERE subject IN ('INV-12', 'INV-13', 'INV-14') ORDER BY subject;
RESET enable_seqscan;
DROP INDEX voiding.subject;
SELECT voiding.dispatch();
SELECT * FROM voiding.check_invariants() UNION ALL SELECT * FROM billing.check_invariants() UNION ALL SELECT * FROM reports.check_invariants();
\c contrib_regression
DROP DATABASE regress_same_transaction;
