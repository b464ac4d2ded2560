-- Tasks made by events: what is in them, later and older events, the end by an
-- event; definitions that are refused.
\set ECHO none
\i test/lib/database.sql
CALL test.by_hand();
SET timezone = 'UTC';
CREATE VIEW made AS SELECT key, state, title, document, roles, skills, form_factors AS form, excluded AS ex, priority AS p, due_at - created_at AS due, expires_at, version AS v
  FROM voiding.task ORDER BY key, position;
SELECT voiding.create_service('shop');
SELECT voiding.create_service('field');
CREATE FUNCTION field.check_it(document jsonb) RETURNS text LANGUAGE sql AS
  $$ SELECT CASE WHEN NOT document ? 'order' OR document -> 'order' = 'null' THEN 'it has no order' END $$;

SELECT voiding.create_task_type('install', '{
  "title": "$.event.what", "document": {"order": "$.event.order_id", "key": "$.key", "lines": "$.event.lines"},
  "roles": ["fitters", "$.event.helpers"], "skills": "$.event.skills", "form_factors": ["phone"], "excluded": ["$.event.sold_by"],
  "priority": "$.event.urgency", "due": "P2D", "expire": "$.event.until", "lease": "PT1H", "check_document": "field.check_it",
  "made_by": {"Sold": {"if": "$.event.what != \"advice\"", "key": "$.event.order_id"}},
  "ended_by": {"Returned": {"key": "$.event.order_id"}, "InstalledBySelf": {"key": "$.event.order_id", "state": "completed", "if": "$.event.sure == true"}}
}', 'field');
SELECT type, kind, function FROM voiding.handler WHERE service = 'field';

CREATE FUNCTION sold(o text, more jsonb DEFAULT '{}') RETURNS void LANGUAGE sql AS $$ SELECT voiding.emit('Sold', o, jsonb_build_object('order_id', o) || more, 'shop') $$;
SELECT sold('O1', '{"what": "lamp", "skills": ["electrician", "ladder"], "helpers": "movers", "sold_by": "anna", "urgency": 3, "until": "2030-01-01 00:00+00", "lines": [1, 2]}');
SELECT sold('O2', '{"what": "advice"}'), sold('O3', '{"what": "desk"}');
SELECT voiding.dispatch();
SELECT * FROM made;
-- a further event changes the open task; what its worker has reached stays
UPDATE voiding.task SET state = 'claimed', owner = 'postgres', until = 'infinity', said = NULL WHERE key = 'O1';
SELECT sold('O1', '{"what": "two lamps"}'), voiding.dispatch();
SELECT key, state, owner, title, skills, version FROM voiding.task WHERE key = 'O1';
-- an older one, which comes late, changes nothing
SELECT sold('O3', '{"what": "newest desk"}');
UPDATE voiding.task SET position = 1000000 WHERE key = 'O3';
SELECT voiding.dispatch();
SELECT key, title, version FROM voiding.task WHERE key = 'O3';
UPDATE voiding.task SET position = 1 WHERE key = 'O3';

-- the end by an event; after it there is a new task, which is another one
SELECT voiding.emit('Returned', 'O1', '{"order_id": "O1"}', 'shop') IS NOT NULL, voiding.emit('InstalledBySelf', 'O3', '{"order_id": "O3"}', 'shop') IS NOT NULL,
       voiding.emit('Returned', 'O9', '{"order_id": "O9"}', 'shop') IS NOT NULL;
SELECT voiding.dispatch();
SELECT voiding.emit('InstalledBySelf', 'O3', '{"order_id": "O3", "sure": true}', 'shop') IS NOT NULL;
SELECT sold('O1', '{"what": "lamp again"}'), voiding.dispatch();
SELECT key, state, title, ended_at IS NOT NULL AS ended, wake_at FROM voiding.task ORDER BY key, position;
-- what comes late for a task that has ended makes none
UPDATE voiding.task SET position = 1000000 WHERE key = 'O3';
SELECT sold('O3', '{"what": "late"}'), voiding.dispatch();
SELECT key, state, title FROM voiding.task WHERE key = 'O3';
-- the same event makes the same task: its id is from the event, the type and the key
SELECT count(*) FROM voiding.task t JOIN voiding.event e ON t.task_id = voiding.derive_uuid(e.event_id, 'install', t.key) AND e.type = 'Sold';
-- what events have changed is not said again
SELECT count(*) FROM voiding.event WHERE source = 'field';

-- a document that is refused, an event without a key: the message is tried again, and people can see why
SELECT voiding.create_task_type('install', '{"made_by": {"Sold": {"key": "$.event.order_id"}}, "check_document": "field.check_it", "document": {"of": "$.key"}}', 'field');
SELECT sold('O4'), voiding.emit('Sold', 'O5', '{}', 'shop') IS NOT NULL AS nothing;
SELECT voiding.dispatch();
SELECT error FROM voiding.outbox ORDER BY seq;
SELECT voiding.discard_message(id, 'a test') FROM voiding.outbox;
-- without a key each event makes a task of its own
SELECT voiding.create_task_type('look', '{"made_by": {"Seen": {}}}', 'field');
SELECT count(voiding.emit('Seen', 'x', '{}', 'shop')) FROM generate_series(1, 3);
SELECT voiding.dispatch();
SELECT count(*), count(DISTINCT key), min(roles::text) FROM voiding.task WHERE type = 'look';
-- a check may only read
CREATE TABLE field.log (x text);
CREATE FUNCTION field.writes(document jsonb) RETURNS text LANGUAGE sql AS $$ INSERT INTO field.log VALUES ('x') RETURNING NULL $$;
SELECT voiding.create_task_type('look', '{"made_by": {"Seen": {}}, "check_document": "field.writes"}', 'field');
SELECT voiding.emit('Seen', 'x', '{}', 'shop') IS NOT NULL, voiding.dispatch();
SELECT error FROM voiding.outbox;
SELECT voiding.discard_message(id, 'a test') FROM voiding.outbox;

-- ---- definitions that are refused: each with its place ----
CREATE FUNCTION fault(d jsonb, name text DEFAULT 'bad', service text DEFAULT 'field') RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  PERFORM voiding.create_task_type(name, d, service);
  RETURN 'made';
EXCEPTION WHEN OTHERS THEN
  RETURN SQLSTATE || ': ' || regexp_replace(SQLERRM, '^the definition of task type "bad" is refused: ', '');
END $$;
SELECT n, fault(d) FROM (VALUES
  (1, '{"wibble": 1}'::jsonb), (2, '[]'), (3, '{"made_by": []}'), (4, '{"roles": [1]}'), (5, '{"title": "$.nothing.x"}'), (6, '{"title": "$.event.("}'),
  (7, '{"due": "2 days"}'), (8, '{"lease": "$.event.x"}'), (9, '{"priority": "high"}'), (10, '{"deadlines": {"soon": {}}}'), (11, '{"deadlines": {"PT1H": {"priority": "x"}}}'),
  (12, '{"deadlines": {"PT1H": {"emit": "TaskCompleted"}}}'), (13, '{"deadlines": {"PT1H": {"assign_roles": "x"}}}'), (14, '{"deadlines": {"PT1H": {"what": 1}}}'),
  (15, '{"made_by": {"E": {"wibble": 1}}}'), (16, '{"made_by": {"E": {"if": "x"}}}'), (17, '{"ended_by": {"E": {}}}'), (18, '{"ended_by": {"E": {"key": "$.event.x", "state": "failed"}}}'),
  (19, '{"made_by": {"no such": {}}}'), (20, '{"events": {"finished": "X"}}'), (21, '{"events": {"completed": "ProcessMoved"}}'), (22, '{"events": {"completed": 1}}'),
  (23, '{"check_outcome": "field.nothing"}'), (24, '{"check_outcome": "pg_catalog.jsonb_array_length"}'), (25, '{"ttl": "long"}'), (26, NULL)) v (n, d) ORDER BY n;
SELECT fault('{}', 'a name'), fault('{}', 'ok', 'nobody'), fault('{}', 'look', 'shop'), fault('{"service": "field"}', 'fine', NULL);
-- a service gives an event to one handler
CREATE FUNCTION shop.seen() RETURNS void LANGUAGE sql AS '';
SELECT voiding.subscribe('Seen', 'shop.seen');
SELECT fault('{"made_by": {"Seen": {}}}', 'other', 'shop');
SELECT voiding.unsubscribe('Seen', 'field');
SELECT voiding.drop_service('field');
-- types are dropped when nothing is open; their events are given up with them
SELECT voiding.drop_task_type('look');
UPDATE voiding.task SET state = 'cancelled', ended_at = now(), wake_at = NULL, said = NULL WHERE type = 'look';
SELECT voiding.drop_task_type('look'), voiding.drop_task_type('nothing');
SELECT voiding.drop_task_type('look');
SELECT type FROM voiding.handler WHERE service = 'field' ORDER BY type;
SELECT * FROM voiding.check_invariants();
