-- Tasks and processes: a state makes its task and withdraws it, waits for it,
-- and is moved by its own only. The acknowledging of a failed voiding.
\set ECHO none
\i test/lib/database.sql
CALL test.by_hand();
SELECT voiding.create_service('desk');
SELECT voiding.create_task_type('review', '{"title": "$.process.what", "document": {"author": "$.process.author"}, "excluded": ["$.process.author"], "due": "P1D", "expire": "P2D",
  "priority": "$.process.urgency", "events": {"failed": "ReviewRefused"}}', 'desk');
SELECT voiding.create_process_type('article', '{"key": "article_id", "start": {"Written": "Reviewing"},
  "on": {"Retracted": "Gone"},
  "states": {
    "Reviewing": {"forever": "people are slow", "task": {"type": "review", "with": {"article": "$.key"}},
      "on": {"TaskCompleted": [{"guard": "$.event.outcome.good == true", "target": "Publishing"}, {"target": "Reviewing"}], "ReviewRefused": "Gone", "TaskExpired": "Gone"}},
    "Publishing": {"forever": "until it is printed", "on": {"Printed": "Done"}},
    "Done": {"type": "final"}, "Gone": {"type": "final", "outcome": "failed"}}}');
-- another type that hears of the end of tasks, by the same key
SELECT voiding.create_process_type('shelf', '{"key": "article_id", "start": {"Shelved": "Waiting"},
  "states": {"Waiting": {"forever": "a test", "on": {"TaskCompleted": "Hit"}}, "Hit": {"type": "final"}}}');
CREATE FUNCTION written(id text, more jsonb DEFAULT '{}') RETURNS void LANGUAGE sql AS
  $$ SELECT voiding.emit('Written', id, jsonb_build_object('article_id', id) || more, 'desk') $$;
CREATE VIEW tasks AS SELECT t.key, t.state, t.title, t.document, t.excluded, t.priority AS p, t.reason, t.version AS v FROM voiding.task t ORDER BY created_at;
CREATE VIEW processes AS SELECT type, key, state FROM voiding.process ORDER BY started_at;
SELECT voiding.emit('Shelved', 'A1', '{"article_id": "A1"}', 'desk') IS NOT NULL AS shelved;

SELECT written('A1', '{"what": "News", "author": "ida", "urgency": 2}');
SELECT * FROM tasks;
SELECT type, source, data ->> 'state' AS state, correlation_id = (SELECT process_id FROM voiding.process WHERE type = 'article') AS of_process FROM voiding.event WHERE type LIKE 'Task%';
SELECT aspect, what FROM voiding.explain((SELECT process_id FROM voiding.process WHERE type = 'article')) WHERE aspect IN ('task', 'would move it');
-- not good enough: the state is entered again, with a new task
SELECT key FROM voiding.next_task();
SELECT (voiding.complete_task(task_id, '{"good": false}')).state FROM voiding.my_task;
SELECT * FROM tasks;
SELECT aspect, what FROM voiding.explain((SELECT process_id FROM voiding.process WHERE type = 'article')) WHERE aspect IN ('task');
SELECT key FROM voiding.next_task();
SELECT (voiding.complete_task(task_id, '{"good": true}')).state FROM voiding.my_task;
-- that of the same key and another type has not moved: the task is not its own
SELECT * FROM processes;
SELECT count(*) FROM voiding.dead_letter;
-- an own name for the event
SELECT written('A2');
SELECT (voiding.next_task()).key;
SELECT (voiding.fail_task(task_id, 'nonsense')).state FROM voiding.my_task;
SELECT * FROM processes WHERE key = 'A2';
-- withdrawn with its state
SELECT written('A3');
SELECT (voiding.next_task()).key;
SELECT voiding.emit('Retracted', 'A3', '{"article_id": "A3"}', 'desk') IS NOT NULL AS retracted;
SELECT state, reason, owner, wake_at FROM voiding.task WHERE key = 'A3';
SELECT type, data ->> 'state' AS state FROM voiding.event WHERE subject = 'A3' ORDER BY position;
-- nobody did it: an end for the process too
SELECT written('A4');
SET voiding.clock_offset = 180000;
SELECT voiding.dispatch();
SELECT * FROM processes WHERE key = 'A4';
RESET voiding.clock_offset;
-- data that its type cannot use: there is a task all the same
SELECT written('A5', '{"urgency": "very", "what": "Bad"}');
SELECT key, state, title, document, reason FROM tasks WHERE key = 'A5';
-- events of tasks are the engine's: nobody else says them
SELECT voiding.emit('TaskCompleted', 'A5', '{}', 'desk');
CREATE TABLE desk.forger (key text, said text);
CREATE TRIGGER forge AFTER INSERT ON desk.forger FOR EACH ROW EXECUTE FUNCTION voiding.emit_event('@type=said', '@subject=key');
INSERT INTO desk.forger VALUES ('A5', 'TaskCompleted');
INSERT INTO desk.forger VALUES ('A5', NULL), ('A5', 'Forged');
SELECT type, source, subject, data FROM voiding.event WHERE subject = 'A5' AND type NOT LIKE 'Task%' ORDER BY position;
SELECT event, from_state, to_state FROM voiding.process_history WHERE key = 'A1' AND type = 'article' ORDER BY step;
SELECT * FROM voiding.check_invariants();

-- ---- the voiding that failed ----
SELECT count(billing.issue_document('D' || i, 'acme', i)) FROM generate_series(1, 3) i;
SELECT voiding.dispatch();
SELECT total FROM reports.publish_report('acme');
SELECT count(billing.void_document('D' || i, 'wrong')) FROM generate_series(1, 3) i;
CALL test.settle();
SELECT key, service, state, roles = ARRAY[current_user::text] AS of_owner, title = document ->> 'failure' AS titled, document - '{report_id,published_at,failure}'::text[] AS document FROM voiding.task WHERE type LIKE 'ack%' ORDER BY key;
-- its completion is the acknowledgement
SELECT task_id AS t FROM voiding.task WHERE key = 'D1' \gset
SELECT (voiding.claim_task(:'t')).state, (voiding.complete_task(:'t', '{"reason": "told acme"}')).state;
SELECT p.state, p.outcome FROM voiding.process p WHERE key = 'D1';
SELECT type, data ->> 'reason' AS reason, data ->> 'by' = current_user AS by_me FROM voiding.event WHERE subject = 'D1' AND type ~ 'Task|Ack' ORDER BY position;
-- what follows from an event is neither before it nor earlier
SELECT e.type, f.type AS follows, f.position > e.position AND f.recorded_at >= e.recorded_at AS later
  FROM voiding.event e JOIN voiding.event f ON f.subject = e.subject
 WHERE e.subject = 'D1' AND e.type LIKE 'Marking%Failed' AND f.type = 'TaskCreated';
-- the acknowledgement is its completion, whoever has it
SELECT task_id AS t FROM voiding.task WHERE key = 'D2' \gset
SELECT (voiding.claim_task(:'t')).state;
SELECT voiding.acknowledge_process_failure(process_id, 'seen') FROM voiding.task WHERE task_id = :'t';
SELECT state, outcome, wake_at FROM voiding.task WHERE task_id = :'t';
-- three days, and not a minute less
SET voiding.clock_offset = 259190;
SELECT voiding.dispatch();
SET voiding.clock_offset = 259300;
SELECT voiding.dispatch();
SELECT key, state, priority FROM voiding.task WHERE key = 'D3';
SELECT type, source, subject FROM voiding.event WHERE type = 'VoidingFailureUnacknowledged';
RESET voiding.clock_offset;
SELECT * FROM voiding.check_invariants();
