-- The archive: what happened to one subject, in one order, whether it is
-- archived yet or not; append-only, redacted with the event; in partitions.
-- By hand: how far each round gets is what is looked at.
\set ECHO none
\i test/lib/database.sql
\set ECHO none
CALL test.by_hand();
SET voiding.workers = 0;
SELECT voiding.create_service('shop') \gset
CREATE FUNCTION say(subject text, VARIADIC types text[]) RETURNS void LANGUAGE sql AS
  $$ SELECT voiding.emit(t, subject, jsonb_build_object('by', 'Anna'), 'shop') FROM unnest(types) t $$;
CREATE VIEW progress AS
  SELECT (SELECT count(*) FROM voiding.archive) AS archived, (SELECT count(*) FROM voiding.event) AS events,
         (SELECT p.position FROM voiding.archive_progress p) - (SELECT max(position) FROM voiding.event) AS ahead;
\set ECHO all
-- before anything is archived
SELECT say('apple', 'Grown', 'Picked'), say('pear', 'Grown');
SELECT type FROM voiding.history_of('apple');
SELECT * FROM progress;
-- what is archived and what is not, in one order
SELECT voiding.maintain();
SELECT * FROM progress;
SELECT say('apple', 'Washed'), say('pear', 'Picked'), say('apple', 'Eaten');
SELECT type FROM voiding.history_of('apple');
SELECT * FROM progress;
-- again: nothing twice
SELECT voiding.maintain();
SELECT voiding.maintain();
SELECT type FROM voiding.history_of('apple');
SELECT * FROM progress;
-- page by page
SELECT array_agg(type), max(position) AS position FROM voiding.history_of('apple', batch_size => 3) \gset
\echo :array_agg
SELECT type FROM voiding.history_of('apple', after => :position, batch_size => 3);
SELECT count(*) FROM voiding.history_of('plum');
-- all that an event says is there, but for its transaction
SELECT to_jsonb(e) - 'xid' = to_jsonb(a) AS same, count(*) FROM voiding.event e JOIN voiding.archive a USING (position) GROUP BY 1;
-- in steps, the oldest first
SELECT say('cherry', 'A', 'B', 'C', 'D', 'E');
SELECT voiding.archive_events(2);
SELECT string_agg(type, ' ' ORDER BY position) FROM voiding.archive WHERE subject = 'cherry';
SELECT string_agg(type, ' ') FROM voiding.history_of('cherry');
SELECT voiding.archive_events(2);
SELECT voiding.archive_events(2);
SELECT voiding.archive_events(2);
SELECT string_agg(type, ' ' ORDER BY position) FROM voiding.archive WHERE subject = 'cherry';
SELECT * FROM progress;
-- a round that is rolled back has not been
SELECT say('cherry', 'F');
BEGIN;
SELECT voiding.maintain();
SELECT * FROM progress;
ROLLBACK;
SELECT * FROM progress;
SELECT voiding.maintain();
SELECT * FROM progress;
-- append-only
UPDATE voiding.archive SET type = 'Other';
DELETE FROM voiding.archive;
-- redaction: of what is archived, and of what is not
SELECT say('pear', 'Eaten');
SELECT voiding.redact_event(event_id, 'asked by Anna') FROM voiding.event WHERE subject = 'pear';
SELECT type, data #- '{redacted,at}' AS data FROM voiding.history_of('pear');
SELECT voiding.maintain();
SELECT type, data #- '{redacted,at}' AS data FROM voiding.history_of('pear');
SELECT type FROM voiding.history_of('apple') WHERE data ? 'redacted';
UPDATE voiding.archive SET data = '{}' WHERE subject = 'pear';
-- a process: what moved it, and how
SELECT count(billing.issue_document('D1', 'c1', 10));
CALL test.settle();
SELECT billing.void_document('D1') AS id \gset
CALL test.settle();
SELECT voiding.maintain();
SELECT source, type, correlation_id = :'id' AS of_process, s.step ->> 'from' AS from_state, s.step ->> 'to' AS to_state
  FROM voiding.history_of('D1') h LEFT JOIN jsonb_array_elements(h.steps) s(step) ON true;
-- further partitions are made as they are needed; old parts can be taken away
SELECT setval('voiding.position', 10000007);
SELECT say('apple', 'Sown');
SELECT setval('voiding.position', 30000000);
SELECT say('apple', 'Grown again');
SELECT voiding.maintain();
SELECT string_agg(type, ' ') FROM voiding.history_of('apple');
SELECT count(*), tableoid::regclass FROM voiding.archive GROUP BY 2 ORDER BY tableoid::regclass::text;
SELECT * FROM progress;
SELECT * FROM voiding.check_invariants();
-- the events of a part go: the archive has them, and can be redacted
ALTER TABLE voiding.event DETACH PARTITION voiding.event_p1;
DROP TABLE voiding.event_p1;
SELECT string_agg(type, ' ') FROM voiding.history_of('apple');
SELECT voiding.redact_event(event_id, 'asked by Anna') FROM voiding.archive WHERE type = 'Sown';
SELECT type, data #- '{redacted,at}' AS data FROM voiding.history_of('apple', 10000000);
SELECT voiding.redact_event('00000000-0000-0000-0000-000000000000', 'no such');
-- a part of the archive goes: what is left is still right, and goes on
ALTER TABLE voiding.archive DETACH PARTITION voiding.archive_p0;
SELECT voiding.maintain();
SELECT say('apple', 'Picked');
SELECT string_agg(type, ' ') FROM voiding.history_of('apple');
SELECT voiding.maintain();
SELECT string_agg(type, ' ') FROM voiding.history_of('apple');
SELECT * FROM voiding.check_invariants();
ALTER TABLE voiding.archive ATTACH PARTITION voiding.archive_p0 FOR VALUES FROM (MINVALUE) TO (10000000);
SELECT string_agg(type, ' ') FROM voiding.history_of('apple');
-- what is missing is seen
ALTER TABLE voiding.archive DISABLE TRIGGER append_only;
DELETE FROM voiding.archive WHERE type = 'Washed';
UPDATE voiding.archive SET data = '{}' WHERE type = 'Eaten' AND subject = 'apple';
SELECT invariant, subject FROM voiding.check_invariants() ORDER BY 1;
\c contrib_regression
DROP DATABASE regress_voiding;
