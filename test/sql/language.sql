-- What a definition can say: guards, set with arithmetic, joins with always,
-- each, emit, on and after for the whole process. Trips of a ferry.
\set ECHO none
\i test/lib/database.sql
SELECT voiding.create_service('ferry');
CREATE TABLE ferry.told (n int GENERATED ALWAYS AS IDENTITY, command text, arguments jsonb);
CREATE FUNCTION ferry.load(trip text, car text DEFAULT NULL, length numeric DEFAULT NULL, deck jsonb DEFAULT NULL) RETURNS void LANGUAGE sql AS
  $$ INSERT INTO ferry.told (command, arguments) VALUES ('Load', jsonb_strip_nulls(jsonb_build_object('trip', trip, 'car', car, 'length', length, 'deck', deck))) $$;
CREATE FUNCTION ferry.depart(trip text, process_id uuid, captain text DEFAULT NULL, loaded int DEFAULT NULL, note text DEFAULT 'none') RETURNS void LANGUAGE sql AS
  $$ INSERT INTO ferry.told (command, arguments) VALUES ('Depart', jsonb_strip_nulls(jsonb_build_object('trip', trip, 'captain', captain, 'loaded', loaded, 'note', note))) $$;
CREATE FUNCTION ferry.refund(trip text, percent numeric) RETURNS void LANGUAGE sql AS
  $$ INSERT INTO ferry.told (command, arguments) VALUES ('Refund', jsonb_build_object('trip', trip, 'percent', percent)) $$;
SELECT voiding.create_command('Load', 'ferry.load');
SELECT voiding.create_command('Depart', 'ferry.depart');
SELECT voiding.create_command('Refund', 'ferry.refund');
SELECT voiding.create_process_type('trip', '{
  "key": "trip",
  "events": {"WeatherReport": {"key": "$.event.about.trip"}},
  "start": {
    "TripPlanned": [
      {"guard": "$.event.cars.size() == 0", "target": "Cancelled", "set": {"why": "empty"}},
      {"guard": "$.event.wind > 10", "target": "Waiting", "set": {"why": "wind"}},
      {"target": "Loading"}
    ]
  },
  "on": {"TripCancelled": {"target": "Cancelled", "set": {"why": "$.event.why"}, "send": {"command": "Refund", "with": {"percent": 100}}}},
  "after": {"P2D": {"target": "Cancelled", "set": {"why": "two days have passed"}}},
  "states": {
    "Waiting": {
      "on": {"WeatherReport": [
        {"guard": "$.event.wind <= 10", "target": "Loading"},
        {"guard": "$.event.wind > 30", "target": "Cancelled", "set": {"why": "storm"}},
        {"set": {"reports": "$.process.reports + 1", "wind": "$.event.wind", "last": {"wind": "$.event.wind", "list": ["$.event.wind", "x", 1, null, true]}}}]},
      "after": {"PT6H": "Cancelled"}
    },
    "Loading": {
      "entry": {
        "set": {"loaded": 0, "all": "$.process.cars.size()", "first": "$.process.cars[0].car", "half": "$.process.cars[*].length / 2", "gone": "$.process.nothing.at.all", "id": "$.process_id", "k": "$.key"},
        "send": {"command": "Load", "each": "$.process.cars[*] ? (@.length < 10)", "with": {"car": "$.item.car", "length": "$.item.length + 0.5", "deck": {"name": "$.key", "of": "$.item"}}}
      },
      "on": {
        "CarLoaded": {"set": {"loaded": "$.process.loaded + 1"}},
        "CarRefused": {"set": {"all": "$.process.all - 1", "refused": "$.event.car"}, "emit": ["CarLeftBehind", "TripChanged"]},
        "Doodle": {}
      },
      "always": [
        {"guard": "$.process.all == 0", "target": "Cancelled", "set": {"why": "nobody came"}},
        {"guard": "$.process.loaded >= $.process.all", "target": "Sailing"}
      ]
    },
    "Sailing": {
      "entry": {"emit": "TripStarted", "send": ["Depart", {"command": "Depart", "with": {"note": "again", "captain": "$.event.captain"}}]},
      "on": {"TripCancelled": {}, "Arrived": "Done", "Diverted": [{"guard": "$.event.port starts with \"H\"", "target": "Diverted"}]},
      "forever": "a ship at sea"
    },
    "Diverted": {"always": "Done", "forever": "is left at once"},
    "Done": {"type": "final", "outcome": "done", "result": {"loaded": "$.process.loaded", "trip": "$.key"}, "reason": "$.event.port"},
    "Cancelled": {"type": "final", "outcome": "failed", "reason": "$.process.why", "entry": {"send": {"command": "Refund", "with": {"percent": 50}}}}
  }
}');
CREATE FUNCTION say(type text, data jsonb) RETURNS TABLE (state text, note text) LANGUAGE plpgsql AS $$
DECLARE
  id uuid := voiding.emit(type, 'ferry', data, 'ferry');
BEGIN
  RETURN QUERY SELECT h.to_state, h.note FROM voiding.process_history h WHERE h.event_id = id ORDER BY h.step;
END $$;
CREATE FUNCTION told() RETURNS TABLE (command text, arguments jsonb) LANGUAGE sql AS $$
  WITH d AS (DELETE FROM ferry.told RETURNING *) SELECT d.command, d.arguments FROM d ORDER BY n $$;

-- guards of the start: the first that holds
SELECT * FROM say('TripPlanned', '{"trip": "1", "cars": []}');
CALL test.settle();
SELECT * FROM told();
SELECT state, outcome, reason, data FROM voiding.process WHERE key = '1';
SELECT * FROM say('TripPlanned', '{"trip": "2", "wind": 20, "reports": 0, "cars": [{"car": "a", "length": 4}]}');
-- inside the state: set, with a value, a path, an object, a list; its deadlines run on
SELECT due_at AS before FROM voiding.timer WHERE name = 'PT6H' \gset
SELECT * FROM say('WeatherReport', '{"about": {"trip": "2"}, "wind": 15}');
SELECT * FROM say('WeatherReport', '{"about": {"trip": "2"}, "wind": 12.5}');
SELECT data FROM voiding.process WHERE key = '2';
SELECT name, due_at = :'before' OR name <> 'PT6H' AS same FROM voiding.timer ORDER BY name;
-- a guard in error does not hold, and no error reaches who spoke
SELECT * FROM say('WeatherReport', '{"about": {"trip": "2"}, "wind": "strong"}');
SELECT data -> 'wind' AS wind, data -> 'reports' AS reports FROM voiding.process WHERE key = '2';
SELECT * FROM say('WeatherReport', '{"about": {"trip": "2"}, "wind": 9}');
CALL test.settle();
SELECT * FROM told();
SELECT data -> 'loaded' AS loaded, data -> 'all' AS all, data -> 'first' AS first, data -> 'half' AS half, data -> 'gone' AS gone, (data ->> 'id')::uuid = process_id AS id, data -> 'k' AS k
  FROM voiding.process WHERE key = '2';
SELECT * FROM say('CarLoaded', '{"trip": "2", "captain": "Ahab"}');
CALL test.settle();
SELECT * FROM told();
-- the state's own {} goes before the top: ignored on purpose
SELECT * FROM say('TripCancelled', '{"trip": "2", "why": "no"}');
-- no guard of the list holds: ignored
SELECT * FROM say('Diverted', '{"trip": "2", "port": "Aberdeen"}');
-- always without a guard: at once through the state
SELECT * FROM say('Diverted', '{"trip": "2", "port": "Hull"}');
SELECT state, outcome, reason, result FROM voiding.process WHERE key = '2';
SELECT * FROM say('Arrived', '{"trip": "2"}');

-- a join: three cars, one too long for each, one refused
SELECT * FROM say('TripPlanned', '{"trip": "3", "cars": [{"car": "a", "length": 4}, {"car": "bus", "length": 12}, {"car": "c", "length": 5}]}');
CALL test.settle();
SELECT * FROM told();
SELECT * FROM say('Doodle', '{"trip": "3"}');
SELECT * FROM say('CarLoaded', '{"trip": "3"}');
SELECT * FROM say('CarRefused', '{"trip": "3", "car": "bus"}');
-- what it emits is of the engine, about the process, with its data; in the order written
SELECT type, source, subject, data -> 'refused' AS refused, correlation_id = (SELECT process_id FROM voiding.process WHERE key = '3') AS of_it
  FROM voiding.event WHERE type IN ('CarLeftBehind', 'TripChanged') ORDER BY position;
SELECT * FROM say('CarLoaded', '{"trip": "3"}');
SELECT type FROM voiding.event WHERE type = 'TripStarted' AND subject = '3';
CALL test.settle();
SELECT * FROM told();
SELECT state FROM voiding.process WHERE key = '3';
-- always may follow a start at once
SELECT * FROM say('TripPlanned', '{"trip": "4", "cars": [{"car": "a", "length": 4}, {"car": "b", "length": 4}]}');
SELECT * FROM say('CarRefused', '{"trip": "4", "car": "a"}');
SELECT * FROM say('CarRefused', '{"trip": "4", "car": "b"}');
SELECT state, outcome, reason FROM voiding.process WHERE key = '4';
CALL test.settle();
SELECT * FROM told();

-- the top: cancelled in any ordinary state; its own send, then the state's
SELECT * FROM say('TripPlanned', '{"trip": "5", "cars": [{"car": "a", "length": 4}]}');
SELECT * FROM say('TripCancelled', '{"trip": "5", "why": "fog"}');
SELECT step, event, from_state, to_state, command FROM voiding.process_history WHERE key = '5' ORDER BY step;
CALL test.settle();
SELECT * FROM told();
SELECT state, reason FROM voiding.process WHERE key = '5';
-- the deadline of the process runs from its start, through its states
SELECT * FROM say('TripPlanned', '{"trip": "6", "wind": 11, "cars": [{"car": "a", "length": 4}]}');
SELECT due_at AS before FROM voiding.timer WHERE name = '@P2D' AND process_id = (SELECT process_id FROM voiding.active_process WHERE key = '6') \gset
SELECT * FROM say('WeatherReport', '{"about": {"trip": "6"}, "wind": 1}');
SELECT name, due_at = :'before' AS same FROM voiding.timer WHERE process_id = (SELECT process_id FROM voiding.active_process WHERE key = '6');
CALL test.set('voiding.clock_offset', '172000');
CALL test.settle();
SELECT state FROM voiding.process WHERE key = '6';
CALL test.set('voiding.clock_offset', '172900');
CALL test.settle();
CALL test.set('voiding.clock_offset', '0');
SELECT state, reason FROM voiding.process WHERE key = '6';
-- a ship at sea is in an ordinary state too, and the top holds there
SELECT state, reason FROM voiding.process WHERE key = '3';
SELECT count(*) FROM voiding.timer;

-- always that never ends is left after a while, with a warning, not an error
SELECT voiding.create_process_type('round', '{"key": "trip", "start": {"Roundabout": "A"}, "after": {"P1D": "C"},
  "states": {"A": {"always": {"set": {"n": "$.process.n + 1"}}, "on": {"Off": "C"}}, "C": {"type": "final"}}}');
SELECT * FROM say('Roundabout', '{"trip": "7", "n": 0}');
SELECT state, data FROM voiding.process WHERE key = '7';

-- what a process emits may move another, and itself, in the same commit
SELECT voiding.create_process_type('chain', '{"key": "trip", "start": {"ChainBegun": "A"}, "after": {"P1D": "End"},
  "states": {"A": {"entry": {"emit": "LinkMade"}, "on": {"LinkMade": "B"}},
             "B": {"entry": {"emit": ["LinkMade", "ChainEnded"]}, "on": {"LinkMade": {"set": {"again": true}}, "ChainEnded": "End"}},
             "End": {"type": "final"}}}');
SELECT voiding.create_process_type('watcher', '{"key": "trip", "start": {"ChainEnded": "Seen"}, "states": {"Seen": {"type": "final", "result": {"again": "$.process.again"}}}}');
SELECT * FROM say('ChainBegun', '{"trip": "8"}');
SELECT type, state, result FROM voiding.process WHERE key = '8' ORDER BY type;
SELECT type, step, event, from_state, to_state FROM voiding.process_history WHERE key = '8' ORDER BY type, step;

-- and that goes before what is parked: X, parked, was for A, and nobody is in A any more
SELECT voiding.create_process_type('hurry', '{"key": "trip", "start": {"HurryBegun": "A"}, "after": {"P1D": "End"},
  "states": {"A": {"entry": {"emit": "Go"}, "on": {"Go": "B", "X": "Wrong"}},
             "B": {"on": {"Go": {}, "Finish": "End"}},
             "Wrong": {"on": {"Finish": "End"}},
             "End": {"type": "final"}}}');
SELECT * FROM say('X', '{"trip": "9"}');
SELECT * FROM say('HurryBegun', '{"trip": "9"}');
SELECT state FROM voiding.process WHERE key = '9';
SELECT type, key FROM voiding.parked_event;
SELECT * FROM say('Finish', '{"trip": "9"}');
SELECT step, event, from_state, to_state, note FROM voiding.process_history WHERE key = '9' ORDER BY step;
-- the same where what it emits ends it at once
SELECT voiding.create_process_type('flash', '{"key": "trip", "start": {"FlashBegun": "A"}, "after": {"P1D": "End"},
  "states": {"A": {"entry": {"emit": "Ended"}, "on": {"Ended": "End", "Y": "Wrong"}}, "Wrong": {"on": {"Ended": "End"}}, "End": {"type": "final"}}}');
SELECT * FROM say('Y', '{"trip": "10"}');
SELECT * FROM say('FlashBegun', '{"trip": "10"}');
SELECT state FROM voiding.process WHERE key = '10';
SELECT step, event, from_state, to_state, note FROM voiding.process_history WHERE key = '10' ORDER BY step;

CALL test.settle();
SELECT * FROM told();
SELECT * FROM voiding.check_invariants() UNION ALL SELECT * FROM billing.check_invariants() UNION ALL SELECT * FROM reports.check_invariants();
CALL test.by_hand();
\c contrib_regression
DROP DATABASE regress_voiding;
