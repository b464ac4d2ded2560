-- create_process_type(): what is compiled, versions, and every fault, each
-- with the state and the remedy.
\set ECHO none
\i test/lib/database.sql
-- document_voiding as rows
SELECT from_state, trigger, name, ordinal, guard, to_state, actions FROM voiding.transition
 WHERE process_type = 'document_voiding' ORDER BY from_state COLLATE "C", trigger COLLATE "C", name COLLATE "C", ordinal;
SELECT s.key AS state, s.value - 'task' AS compiled FROM voiding.process_type, jsonb_each(compiled -> 'states') s ORDER BY s.key COLLATE "C";

-- the same definition is the same version, another one the next
SELECT voiding.create_process_type('document_voiding', (SELECT definition FROM voiding.process_type));
CREATE TEMP TABLE d AS SELECT '{"key": "id", "start": {"Begun": "A"},
  "states": {"A": {"on": {"Next": "B"}, "after": {"PT1H": "B"}}, "B": {"type": "final"}}}'::jsonb AS d;
SELECT voiding.create_process_type('t', d) FROM d;
SELECT voiding.create_process_type('t', d) FROM d;
SELECT voiding.create_process_type('t', d || '{"description": "more"}') FROM d;
SELECT voiding.create_process_type('t', d || '{"description": "more"}') FROM d;
SELECT name, version, created_by = current_user AS me FROM voiding.process_type ORDER BY name, version;

-- a running process stays on its version; the next one is of the newest
SELECT voiding.emit('Begun', 'x', '{"id": "old"}', 'billing') IS NOT NULL AS emitted;
SELECT voiding.create_process_type('t', jsonb_set(d, '{states,A}', '{"on": {"Other": "B", "Next": "C"}, "after": {"PT1H": "B"}}') ||
  jsonb_set(d, '{states}', '{"A": {"on": {"Other": "B", "Next": "C"}, "after": {"PT1H": "B"}}, "B": {"type": "final"}, "C": {"type": "final"}}')) FROM d;
SELECT voiding.emit('Begun', 'x', '{"id": "new"}', 'billing') IS NOT NULL AS emitted;
SELECT key, version, state, waits_for FROM voiding.ongoing_process ORDER BY key DESC;
SELECT voiding.emit('Next', 'x', '{"id": "old"}', 'billing') IS NOT NULL AS emitted;
SELECT voiding.emit('Next', 'x', '{"id": "new"}', 'billing') IS NOT NULL AS emitted;
SELECT key, version, state FROM voiding.process ORDER BY key DESC;
-- a type is not dropped while its processes run
SELECT voiding.emit('Begun', 'x', '{"id": "another"}', 'billing') IS NOT NULL AS emitted;
SELECT voiding.drop_process_type('t');
\echo :LAST_ERROR_SQLSTATE
SELECT voiding.emit('Other', 'x', '{"id": "another"}', 'billing') IS NOT NULL AS emitted;
SELECT voiding.drop_process_type('t');
SELECT count(*) FROM voiding.transition WHERE process_type = 't';
SELECT voiding.drop_process_type('t');
\echo :LAST_ERROR_SQLSTATE
SELECT voiding.emit('Begun', 'x', '{"id": "nobody"}', 'billing') IS NOT NULL AS emitted;
SELECT count(*) FROM voiding.ongoing_process;

-- faults. A right definition to spoil:
CREATE TEMP TABLE good AS SELECT '{
  "key": "id",
  "events": {"Next": {"key": "$.event.id", "unmatched": "park", "for": "P1D"}},
  "start": {"Begun": "A"},
  "states": {
    "A": {"entry": {"send": "PublishReport"}, "on": {"Next": [{"guard": "$.event.n > 1", "target": "B"}, "C"]}, "after": {"PT1H": "F"}, "onError": "F"},
    "B": {"on": {"Next": "C"}, "forever": "it is a subscription"},
    "F": {"type": "failed", "on": {"ProcessFailureAcknowledged": "C"}, "task": {"type": "look"}},
    "C": {"type": "final"}}}'::jsonb AS d;
CREATE FUNCTION attempt(path text, change jsonb) RETURNS TABLE (code text, message text, hint text) LANGUAGE plpgsql AS $$
BEGIN
  PERFORM voiding.create_process_type('spoilt', jsonb_set(good.d, path::text[], change)) FROM good;
  code := '00000';
  RETURN NEXT;
EXCEPTION WHEN others THEN
  GET STACKED DIAGNOSTICS hint := PG_EXCEPTION_HINT, message := MESSAGE_TEXT, code := RETURNED_SQLSTATE;
  message := replace(message, 'the definition of process type "spoilt" is refused', '...');
  RETURN NEXT;
END $$;
SELECT voiding.create_process_type('good', d) FROM good;
-- at the top
SELECT c.n, a.* FROM (VALUES
  (1, '{key}', '""'), (2, '{key}', '7'), (3, '{wibble}', '1'), (4, '{conflict}', '"perhaps"'), (5, '{start}', '{}'), (6, '{start}', '"A"'),
  (7, '{states}', '[]'), (8, '{on}', '"X"'), (9, '{after}', '3'), (10, '{events}', '[]'),
  (11, '{events,Next}', '{"wobble": 1}'), (12, '{events,Next,key}', '"id"'), (13, '{events,Next,key}', '"$.process.id"'), (14, '{events,Next,key}', '"$.event."'),
  (15, '{events,Next,unmatched}', '"lose"'), (16, '{events,Next,for}', '"a while"'), (17, '{events,Never}', '{"unmatched": "park"}'), (18, '{events,Next}', '"park"')
  ) c(n, path, change), attempt(c.path, c.change::jsonb) a ORDER BY c.n;
-- states
SELECT c.n, a.* FROM (VALUES
  (1, '{states,A,wibble}', '1'), (2, '{states,A}', '"B"'), (3, '{states,A,type}', '"normal"'), (4, '{states,A,type}', 'null'),
  (5, '{states,"b c"}', '{"type": "final"}'), (6, '{states,A,on}', '"Next"'), (7, '{states,A,after}', '["PT1H"]'),
  (8, '{states,A,entry,wibble}', '1'), (9, '{states,A,entry}', '"PublishReport"'), (10, '{states,A,task}', '{}'), (11, '{states,A,task}', '{"type": "x", "who": "y"}'),
  (12, '{states,A,task}', '{"type": "x", "with": {"a": "$.nothing.a"}}'), (13, '{states,C,on}', '{"Next": "A"}'), (14, '{states,C,after}', '{"PT1H": "A"}'),
  (15, '{states,C,outcome}', '"bad"'), (16, '{states,C,reason}', '"$.process.["'), (17, '{states,C,result}', '{"a": "$.proces.a"}'),
  (18, '{states,F,on}', '{"Next": "C"}'), (19, '{states,F,after}', '{"PT1H": "C"}'), (20, '{states,B,forever}', '""'), (21, '{states,B,forever}', 'null')
  ) c(n, path, change), attempt(c.path, c.change::jsonb) a ORDER BY c.n;
SELECT * FROM attempt('{states,B}', '{"on": {"Next": "C"}}');
SELECT * FROM attempt('{states,B}', '{"on": {"Next": "C"}, "after": {}}');
-- nothing at all is not "nothing, on purpose", which is written {}
SELECT path, code FROM unnest('{"{states,A,on,Next}","{states,A,after,PT1H}"}'::text[]) path, attempt(path, '[]');
-- transitions
SELECT c.n, a.* FROM (VALUES
  (1, '{states,A,on,Next}', '"Nowhere"'), (2, '{states,A,after,PT1H}', '"Nowhere"'), (3, '{states,A,onError}', '{"target": "Nowhere"}'), (4, '{states,A,always}', '{"target": "Nowhere", "guard": "1 == 2"}'),
  (5, '{start,Begun}', '"Nowhere"'), (6, '{start,Begun}', '{"set": {"a": 1}}'), (7, '{on}', '{"Stop": "Nowhere"}'), (8, '{after}', '{"P1D": "Nowhere"}'),
  (9, '{states,A,on,Next}', '["B", "C"]'), (10, '{states,A,on,Next}', '[{"target": "B"}, {"target": "C", "guard": "1 == 1"}]'),
  (11, '{states,A,on,Next}', '{"guard": "not a path", "target": "B"}'), (12, '{states,A,on,Next}', '{"to": "B"}'), (13, '{states,A,on,Next}', '7'), (14, '{states,A,on,Next}', '{"target": null}'),
  (15, '{states,A,after}', '{"1 hour": "C"}'), (16, '{states,A,after}', '{"PT0S": "C"}'), (17, '{states,A,after}', '{"PT-1H": "C"}'), (18, '{after}', '{"soon": "C"}'),
  (19, '{states,A,on,Next}', '{"target": "B", "set": "x"}'), (20, '{states,A,on,Next}', '{"target": "B", "set": {"a": {"b": ["$.event[x"]}}}'), (21, '{states,A,on,Next}', '{"target": "B", "set": {"a": "$.data.x"}}'),
  (22, '{states,A,on,Next}', '{"target": "B", "set": {"a": "$"}}')
  ) c(n, path, change), attempt(c.path, c.change::jsonb) a ORDER BY c.n;
-- commands and events sent
SELECT c.n, a.* FROM (VALUES
  (1, '{states,A,entry,send}', '"NoSuchCommand"'), (2, '{states,A,entry,send}', '["PublishReport", {"command": "NoSuchCommand"}]'), (3, '{states,A,entry,send}', '{"with": {}}'),
  (4, '{states,A,entry,send}', '{"command": "PublishReport", "to": "reports"}'), (5, '{states,A,entry,send}', '{"command": "PublishReport", "with": "x"}'),
  (6, '{states,A,entry,send}', '{"command": "PublishReport", "with": {"a": "$.x"}}'), (7, '{states,A,entry,send}', '{"command": "PublishReport", "each": "lines"}'),
  (8, '{states,A,entry,send}', '{"command": "PublishReport", "each": "$.process.["}'), (9, '{states,A,entry,send}', '{"command": "PublishReport", "undo": "NoSuchCommand"}'),
  (10, '{states,A,entry,send}', '5'), (11, '{states,A,entry,emit}', '"not a name"'), (12, '{states,A,entry,emit}', '[{"type": "X"}]'), (13, '{states,A,onError}', '{"target": "F", "send": "NoSuchCommand"}'),
  (14, '{states,A,entry,send}', '"DocumentIssued"')
  ) c(n, path, change), attempt(c.path, c.change::jsonb) a ORDER BY c.n;
-- who reaches whom
SELECT * FROM attempt('{states,Lonely}', '{"on": {"Next": "C"}, "after": {"PT1H": "C"}}');
SELECT * FROM attempt('{states,B,on,Next}', '"B"');
SELECT * FROM attempt('{states,C}', '{"on": {"Next": "A"}, "after": {"PT1H": "A"}}');
-- all faults of one kind are in the detail
SELECT voiding.create_process_type('spoilt', '{"key": "k", "start": {"E": "A"},
  "states": {"A": {"on": {"X": "B"}, "wibble": 1}, "C": {"type": "final", "on": {}}, "D": {"on": {"Y": "C"}, "after": {}}}}');
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM voiding.check_definition('{"key": "k", "start": {"E": "A"},
  "states": {"A": {"on": {"X": "B"}, "after": {"P1D": "Z"}}, "C": {"type": "final"}, "D": {"on": {"Y": "C"}, "after": {"P1D": "A"}}}}');
-- no definition at all, or no name
SELECT voiding.create_process_type('spoilt', NULL);
SELECT voiding.create_process_type('spoilt', '[]');
\echo :LAST_ERROR_SQLSTATE
SELECT voiding.create_process_type('spoilt', '{}');
SELECT voiding.create_process_type('', d) FROM good;
\echo :LAST_ERROR_SQLSTATE
SELECT voiding.create_process_type(NULL, d) FROM good;
SELECT voiding.create_process_type(repeat('x', 101), d) FROM good;
-- right, but not yet
CREATE TEMP TABLE parcel AS SELECT '{
  "key": "parcel_id",
  "start": {"ParcelAccepted": "Packing"},
  "states": {
    "Packing": {"entry": {"send": {"command": "PublishReport", "undo": "IssueDocument"}}, "on": {"Packed": "Travelling"}, "after": {"PT1H": "Undoing"}},
    "Travelling": {"invoke": {"process": "document_voiding", "key": "$.key"}, "onDone": "Arrived", "onError": "Undoing", "after": {"P7D": "Undoing"}},
    "Undoing": {"type": "undo", "onDone": "Undone", "onError": "Stuck"},
    "Stuck": {"type": "failed", "on": {"ProcessFailureAcknowledged": "Undone"}},
    "Arrived": {"type": "final", "result": {"id": "$.key"}},
    "Undone": {"type": "final", "outcome": "failed"}}}'::jsonb AS d;
SELECT voiding.create_process_type('parcel', d) FROM parcel;
\echo :LAST_ERROR_SQLSTATE
SELECT voiding.create_process_type('parcel', d || '{"conflict": "queue"}') FROM good;
-- what is faulty and not yet is faulty first
SELECT voiding.create_process_type('parcel', jsonb_set(d, '{states,Undoing,onDone}', '"Nowhere"')) FROM parcel;
\echo :LAST_ERROR_SQLSTATE
-- nothing of all this was kept
SELECT name, version FROM voiding.process_type ORDER BY name, version;
SELECT count(*) FROM voiding.transition WHERE process_type NOT IN ('document_voiding', 'good');

-- as a picture
SELECT voiding.diagram('good');
SELECT voiding.diagram('nothing');
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM voiding.check_invariants() UNION ALL SELECT * FROM billing.check_invariants() UNION ALL SELECT * FROM reports.check_invariants();
CALL test.by_hand();
\c contrib_regression
DROP DATABASE regress_voiding;
