-- What an odd definition, row or name may not do: crash the server, raise an
-- error into the transaction of the service that spoke, stop dispatch() for
-- others, or make an event disappear.
\set VERBOSITY terse
\set ECHO none
\i test/lib/database.sql
SET client_min_messages = warning;
SELECT voiding.create_service('odd');

-- a JSON null is no subject
CREATE TABLE odd.thing (id jsonb);
CREATE TRIGGER thing AFTER INSERT ON odd.thing FOR EACH ROW EXECUTE FUNCTION voiding.emit_event('Thing', 'id');
INSERT INTO odd.thing VALUES ('null');
INSERT INTO odd.thing VALUES ('7');
SELECT subject FROM voiding.event WHERE type = 'Thing';

-- events that processes emit go round in a circle: it ends, and can be seen
SELECT voiding.create_process_type('circle', '{"key": "id", "start": {"Begin": "A"}, "states": {
  "A": {"after": {"P3Y": "Z"}, "on": {"Ping": {"emit": "Ping"}, "Stop": "Z"}}, "Z": {"type": "final"}}}');
SELECT count(voiding.emit('Begin', 'c', '{"id": "c"}', 'odd'));
SELECT count(voiding.emit('Ping', 'c', '{"id": "c"}', 'odd'));
SELECT count(*) FROM voiding.event WHERE type = 'Ping';
SELECT type, aggregatetype, error FROM voiding.dead_letter;
DELETE FROM voiding.dead_letter;

-- paths with variables, endless durations, tasks without a name of their own
SELECT fault FROM voiding.check_definition('{"key": "id", "start": {"S": "A"}, "states": {
  "A": {"after": {"PT1S": {"target": "Z", "guard": "$foo == 1"}}}, "Z": {"type": "final"}}}');
SELECT fault FROM voiding.check_definition('{"key": "id", "start": {"S": "A"}, "states": {
  "A": {"after": {"P300000Y": "Z"}}, "Z": {"type": "final"}}}');
SELECT fault FROM voiding.check_definition('{"key": "id", "start": {"S": "A"}, "states": {
  "A": {"after": {"P1D": "Z"}, "task": {"type": "$.process.t"}}, "Z": {"type": "final"}}}');

-- times with and without a zone are compared, not an error for who speaks
SELECT voiding.create_process_type('times', '{"key": "id", "start": {"Timed": [
    {"guard": "$.event.a.datetime() < $.event.b.datetime()", "target": "Early"}, {"target": "Late"}]}, "states": {
  "Early": {"after": {"P1D": "Z"}}, "Late": {"after": {"P1D": "Z"}}, "Z": {"type": "final"}}}');
SET timezone = 'Asia/Tokyo';
SELECT count(voiding.emit('Timed', 't', '{"id": "t", "a": "2020-01-01 10:00:00", "b": "2020-01-01 10:00:00-02"}', 'odd'));
RESET timezone;
SELECT state FROM voiding.ongoing_process WHERE type = 'times';

-- a service and a process type of one name: both dead letters of an event are kept
CREATE FUNCTION odd.fails() RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
SELECT voiding.subscribe('Both', 'odd.fails');
SELECT voiding.create_process_type('odd', '{"key": "id", "start": {"Never": "A"}, "states": {
  "A": {"after": {"P1D": "Z"}, "on": {"Both": "Z"}}, "Z": {"type": "final"}}}');
SELECT count(voiding.emit('Both', 'b', '{"id": "b"}', 'odd'));
CALL test.set('voiding.retry_limit', '1');
CALL test.settle();
CALL test.set('voiding.clock_offset', '2d');
CALL test.settle();
CALL test.set('voiding.clock_offset', '0');
SELECT type, destination, aggregatetype FROM voiding.dead_letter ORDER BY destination;
SELECT count(*) FROM voiding.parked_event;

-- many events parked for one process
SELECT voiding.create_process_type('many', '{"key": "id", "start": {"Open": "A"}, "states": {
  "A": {"after": {"P1D": "Z"}, "on": {"One": {"set": {"n": "$.event.n"}}, "End": "Z"}}, "Z": {"type": "final"}}}');
SELECT count(voiding.emit('One', 'm', jsonb_build_object('id', 'm', 'n', i), 'odd')) FROM generate_series(1, 1000) i;
SELECT count(voiding.emit('Open', 'm', '{"id": "m"}', 'odd'));
SELECT data ->> 'n' AS n, (SELECT count(*) FROM voiding.process_history h WHERE h.process_id = p.process_id) AS steps
  FROM voiding.process p WHERE type = 'many';

-- ids of processes that carry no time do not scatter over partitions
CREATE TABLE odd.stamped (id text, c uuid);
CREATE TRIGGER stamped AFTER INSERT ON odd.stamped FOR EACH ROW EXECUTE FUNCTION voiding.emit_event('Quick', 'id', '@correlation=c');
SELECT voiding.create_process_type('quick', '{"key": "id", "start": {"Quick": "Z"}, "states": {"Z": {"type": "final"}}}');
INSERT INTO odd.stamped VALUES ('a', 'ffffffff-ffff-4fff-bfff-ffffffffffff'), ('b', '9b2e1f5c-7a31-4c7e-8f43-0d0d4b7c1a11');
SELECT key, state FROM voiding.process WHERE type = 'quick' ORDER BY key;
SELECT count(*) FROM pg_inherits WHERE inhparent = 'voiding.finished_process'::regclass;

-- a reservation is given up by the service's function, not by hand
SELECT count(billing.issue_document('H1', 'h', 1));
CALL test.settle();
CALL test.by_hand();
SELECT count(billing.void_document('H1'));
SELECT voiding.dispatch('reports', 1);
UPDATE billing.document SET status = 'issued' WHERE document_id = 'H1';
SELECT voiding.dispatch();
SELECT status FROM billing.document;
CALL test.as_asked();

-- an acknowledgement is about one process, and nothing to other types
SELECT voiding.create_process_type('failing', '{"key": "id", "start": {"Fail": "F"}, "states": {
  "F": {"type": "failed", "on": {"ProcessFailureAcknowledged": "Z"}}, "Z": {"type": "final"}}}');
SELECT count(voiding.emit('Fail', 'f', '{"id": "f"}', 'odd'));
SELECT voiding.acknowledge_process_failure(process_id, 'seen') FROM voiding.ongoing_process WHERE type = 'failing';
SELECT state FROM voiding.process WHERE type = 'failing';
SELECT count(*) FROM voiding.dead_letter WHERE type = 'ProcessFailureAcknowledged';

SELECT * FROM voiding.check_invariants();
SELECT * FROM billing.check_invariants();
SELECT * FROM reports.check_invariants();
CALL test.by_hand();
\c contrib_regression
DROP DATABASE regress_voiding;
