-- Events that nobody is ready for: parked, delivered, discarded, expired; and
-- those that come too late.
\set ECHO none
\i test/lib/database.sql
SELECT voiding.create_service('post');
CREATE TABLE post.answer (id int GENERATED ALWAYS AS IDENTITY, letter text, conversation uuid, word text);
CREATE TRIGGER answered AFTER INSERT ON post.answer FOR EACH ROW EXECUTE FUNCTION voiding.emit_event('Answered', '@subject=letter', '@correlation=conversation', 'letter', 'word');
SELECT voiding.create_process_type('letter', '{
  "key": "letter",
  "events": {"Stamped": {"for": "P2D"}, "Smudged": {"unmatched": "discard"}, "Torn": {"unmatched": "fail"}, "Weighed": {"key": "$.event.what.letter", "unmatched": "park", "for": "PT1H"}},
  "start": {"Written": "Open"},
  "after": {"P30D": "Lost"},
  "states": {
    "Open": {"on": {"Stamped": "Posted", "Torn": "Lost", "Weighed": {"set": {"weight": "$.event.weight"}}}},
    "Posted": {"on": {"Answered": [{"guard": "$.event.word == \"yes\"", "target": "Done"}, {"guard": "$.event.word == \"lost\"", "target": "Lost"}], "Smudged": {"set": {"smudged": true}}}},
    "Done": {"type": "final"},
    "Lost": {"type": "final", "outcome": "failed"}
  }}');
CREATE FUNCTION say(type text, data jsonb) RETURNS TABLE (step_of text, state text, note text) LANGUAGE plpgsql AS $$
DECLARE
  id uuid := voiding.emit(type, 'letter', data, 'post');
BEGIN
  RETURN QUERY SELECT h.event, h.to_state, h.note FROM voiding.process_history h WHERE h.event_id = id ORDER BY h.step;
END $$;
CREATE VIEW parked AS SELECT type, key, process_id IS NOT NULL AS bound, date_trunc('second', expires_at - parked_at) AS for FROM voiding.parked_event ORDER BY position;

-- before its process: parked for the key, delivered by the start, in the same commit
SELECT * FROM say('Stamped', '{"letter": "a"}');
SELECT * FROM say('Answered', '{"letter": "a", "word": "maybe"}');
SELECT * FROM say('Answered', '{"letter": "a", "word": "yes"}');
SELECT * FROM parked;
SELECT * FROM say('Written', '{"letter": "a"}');
SELECT * FROM parked;
SELECT state, outcome FROM voiding.process WHERE key = 'a';
SELECT step, event, from_state, to_state, note FROM voiding.process_history WHERE key = 'a' ORDER BY step;
-- for a later state: parked for this process, delivered by the transition
SELECT * FROM say('Written', '{"letter": "b"}');
SELECT * FROM say('Answered', '{"letter": "b", "word": "yes"}');
SELECT * FROM parked;
SELECT aspect, what FROM voiding.explain((SELECT process_id FROM voiding.active_process WHERE key = 'b')) WHERE aspect = 'parked';
SELECT * FROM say('Stamped', '{"letter": "b"}');
SELECT * FROM parked;
SELECT step, event, from_state, to_state, note FROM voiding.process_history WHERE key = 'b' ORDER BY step;
-- one that waits for a process that ends another way is late, and in its history
SELECT * FROM say('Written', '{"letter": "c"}');
SELECT * FROM say('Answered', '{"letter": "c", "word": "yes"}');
SELECT * FROM say('Torn', '{"letter": "c"}');
SELECT * FROM parked;
SELECT step, event, from_state, to_state, note FROM voiding.process_history WHERE key = 'c' ORDER BY step;
-- discard: only the event is kept; in a state that knows it it counts
SELECT * FROM say('Smudged', '{"letter": "d"}');
SELECT * FROM say('Written', '{"letter": "d"}');
SELECT * FROM say('Smudged', '{"letter": "d"}');
SELECT * FROM say('Stamped', '{"letter": "d"}');
SELECT * FROM say('Smudged', '{"letter": "d"}');
SELECT data FROM voiding.process WHERE key = 'd';
SELECT * FROM parked;
SELECT count(*) FROM voiding.dead_letter;
-- fail: a dead letter at once
SELECT * FROM say('Torn', '{"letter": "e"}');
SELECT * FROM say('Torn', '{"letter": "d"}');
SELECT destination, aggregatetype, aggregateid, type, payload, sqlstate, error FROM voiding.dead_letter ORDER BY seq;
SELECT count(voiding.discard_message(id, 'seen')) FROM voiding.dead_letter;
-- a key of its own, and how long
SELECT * FROM say('Weighed', '{"what": {"letter": "f"}, "weight": 20}');
SELECT * FROM parked;
SELECT * FROM say('Written', '{"letter": "f"}');
SELECT data FROM voiding.process WHERE key = 'f';
-- several that are taken inside one state: all of them, at once
SELECT count(voiding.emit('Weighed', 'p', jsonb_build_object('what', '{"letter": "p"}'::jsonb, 'weight', w), 'post')) FROM generate_series(1, 4) w;
SELECT * FROM say('Written', '{"letter": "p"}');
SELECT data FROM voiding.process WHERE key = 'p';
SELECT * FROM parked;
-- a number is a key too; a missing, null, empty or too long one is a dead letter, not an error
SELECT * FROM say('Written', '{"letter": 7}');
SELECT * FROM say('Stamped', '{"letter": "7"}');
SELECT state FROM voiding.process WHERE key = '7';
SELECT * FROM say('Written', '{"liter": "a"}');
SELECT * FROM say('Written', '{"letter": null}');
SELECT * FROM say('Stamped', '{"letter": ""}');
SELECT * FROM say('Weighed', '{"what": 3}');
SELECT * FROM say('Written', jsonb_build_object('letter', repeat('x', 1025)));
SELECT type, sqlstate FROM voiding.dead_letter ORDER BY seq;
SELECT count(voiding.discard_message(id, 'seen')) FROM voiding.dead_letter;

-- expiry: a dead letter, from where it can be parked again
SELECT * FROM say('Weighed', '{"what": {"letter": "g"}, "weight": 1}');
SELECT * FROM say('Stamped', '{"letter": "g"}');
CALL test.set('voiding.clock_offset', '3500');
CALL test.settle();
SELECT * FROM parked;
CALL test.set('voiding.clock_offset', '3700');
CALL test.settle();
SELECT * FROM parked;
SELECT type, destination, aggregatetype, sqlstate, error FROM voiding.dead_letter;
SELECT * FROM say('Written', '{"letter": "g"}');
SELECT state, data FROM voiding.process WHERE key = 'g';
-- what expires while its process is not ready
SELECT * FROM say('Written', '{"letter": "h"}');
SELECT * FROM say('Answered', '{"letter": "h", "word": "yes"}');
CALL test.set('voiding.clock_offset', '100000');
CALL test.settle();
SELECT * FROM parked;
SELECT type, error FROM voiding.dead_letter ORDER BY seq;
-- retried, it waits again; the process takes it when it is ready for it
SELECT voiding.retry_message(id, 'again') FROM voiding.dead_letter WHERE type = 'Answered';
SELECT * FROM parked;
SELECT * FROM say('Stamped', '{"letter": "h"}');
SELECT state FROM voiding.process WHERE key = 'h';
-- retried when the process is ready already: the next round delivers it
SELECT * FROM say('Written', '{"letter": "i"}');
SELECT * FROM say('Answered', '{"letter": "i", "word": "yes"}');
CALL test.set('voiding.clock_offset', '200000');
CALL test.settle();
SELECT * FROM say('Stamped', '{"letter": "i"}');
SELECT voiding.retry_message(id, 'again') FROM voiding.dead_letter WHERE type = 'Answered';
CALL test.settle();
SELECT state FROM voiding.process WHERE key = 'i';
SELECT * FROM parked;
CALL test.set('voiding.clock_offset', '0');
-- one whose key is bad is not parked again, it stays
SELECT count(voiding.discard_message(id, 'seen')) FROM voiding.dead_letter;
SELECT * FROM say('Written', '{"liter": "a"}');
SELECT voiding.retry_message(id, 'again') FROM voiding.dead_letter;
\echo :LAST_ERROR_SQLSTATE
SELECT count(*) FROM voiding.dead_letter;
SELECT count(voiding.discard_message(id, 'seen')) FROM voiding.dead_letter;

-- late: what carries the correlation of a process that has ended never moves another one
SELECT * FROM say('Written', '{"letter": "j"}');
SELECT process_id AS first FROM voiding.active_process WHERE key = 'j' \gset
SELECT * FROM say('Torn', '{"letter": "j"}');
SELECT * FROM say('Written', '{"letter": "j"}');
SELECT * FROM say('Stamped', '{"letter": "j"}');
SELECT process_id AS second FROM voiding.active_process WHERE key = 'j' \gset
SELECT :'first' <> :'second' AS another;
INSERT INTO post.answer (letter, conversation, word) VALUES ('j', :'first', 'yes');
SELECT state FROM voiding.process WHERE process_id = :'second';
SELECT step, event, to_state, note FROM voiding.process_history WHERE process_id = :'first' ORDER BY step;
SELECT step, event, to_state, note FROM voiding.process_history WHERE process_id = :'second' ORDER BY step;
SELECT * FROM parked;
INSERT INTO post.answer (letter, conversation, word) VALUES ('j', :'second', 'yes');
SELECT state FROM voiding.process WHERE process_id = :'second';
-- the key says one, the correlation another: the correlation counts
SELECT * FROM say('Written', '{"letter": "k"}');
SELECT * FROM say('Stamped', '{"letter": "k"}');
SELECT process_id AS k FROM voiding.active_process WHERE key = 'k' \gset
SELECT * FROM say('Written', '{"letter": "l"}');
SELECT * FROM say('Stamped', '{"letter": "l"}');
INSERT INTO post.answer (letter, conversation, word) VALUES ('l', :'k', 'yes');
SELECT key, state FROM voiding.process WHERE key IN ('k', 'l') ORDER BY key;
-- a correlation that is nobody's: by the key
INSERT INTO post.answer (letter, conversation, word) VALUES ('l', '11111111-1111-4111-8111-111111111111', 'yes');
SELECT key, state FROM voiding.process WHERE key = 'l';
SELECT count(*) FROM voiding.parked_event;

-- also when it was parked for the first, expired, and is retried while the second runs
SELECT * FROM say('Written', '{"letter": "o"}');
SELECT process_id AS first FROM voiding.active_process WHERE key = 'o' \gset
INSERT INTO post.answer (letter, conversation, word) VALUES ('o', :'first', 'yes');
CALL test.set('voiding.clock_offset', '100000');
CALL test.settle();
SELECT count(*) FROM voiding.dead_letter WHERE correlation_id = :'first';
SELECT * FROM say('Torn', '{"letter": "o"}');
SELECT * FROM say('Written', '{"letter": "o"}');
SELECT * FROM say('Stamped', '{"letter": "o"}');
-- (whether that is refused or noted as late is not what this is about)
DO $$ BEGIN
  PERFORM voiding.retry_message(id, 'again') FROM voiding.dead_letter WHERE type = 'Answered';
EXCEPTION WHEN others THEN
  NULL;
END $$;
CALL test.settle();
CALL test.set('voiding.clock_offset', '0');
SELECT state FROM voiding.active_process WHERE key = 'o';
SELECT count(voiding.discard_message(id, 'seen')) <= 1 AS tidied FROM voiding.dead_letter;

-- start while it runs: the running one has it, nothing new is started
SELECT * FROM say('Written', '{"letter": "m"}');
SELECT * FROM say('Written', '{"letter": "m"}');
SELECT count(*) FROM voiding.active_process WHERE key = 'm';
SELECT step, event, from_state, to_state, note FROM voiding.process_history WHERE key = 'm' ORDER BY step;
-- a start that is rolled back leaves what is parked where it is
SELECT * FROM say('Stamped', '{"letter": "n"}');
BEGIN;
SELECT * FROM say('Written', '{"letter": "n"}');
SELECT count(*) FROM parked;
ROLLBACK;
SELECT * FROM parked;
SELECT * FROM say('Written', '{"letter": "n"}');
SELECT * FROM parked;
SELECT * FROM voiding.check_invariants() UNION ALL SELECT * FROM billing.check_invariants() UNION ALL SELECT * FROM reports.check_invariants();
CALL test.by_hand();
\c contrib_regression
DROP DATABASE regress_voiding;
