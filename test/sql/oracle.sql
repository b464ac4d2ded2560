-- The engine against a model on paper: a small interpreter of the definition
-- format, a pure function, written apart from the engine. Five stories of the
-- voiding process, then random ones of it and of a type that uses more of the
-- format. Compared after each event: state, data, deadlines, task, commands.
-- By hand: the commands are compared while they are in the outbox, none is handled.
CREATE DATABASE regress_oracle;
\c regress_oracle
\set SHOW_CONTEXT never
CREATE EXTENSION voiding;
SET voiding.notify = off;

-- ---- the model. A process is {key, data, state, done, waiting: [events], deadlines: {name: true}}; sent are its commands ----
CREATE SCHEMA model;
CREATE TYPE model.outcome AS (process jsonb, sent jsonb);
-- what a value stands for
CREATE FUNCTION model.meaning(v jsonb, scope jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
  CASE jsonb_typeof(v)
    WHEN 'object' THEN
      RETURN (SELECT coalesce(jsonb_object_agg(k, model.meaning(m, scope)), '{}') FROM jsonb_each(v) o(k, m));
    WHEN 'array' THEN
      RETURN (SELECT coalesce(jsonb_agg(model.meaning(m, scope) ORDER BY n), '[]') FROM jsonb_array_elements(v) WITH ORDINALITY a(m, n));
    WHEN 'string' THEN
      IF v #>> '{}' LIKE '$%' THEN
        RETURN coalesce(jsonb_path_query_first(scope, (v #>> '{}')::jsonpath, '{}', true), 'null');
      END IF;
    ELSE NULL;
  END CASE;
  RETURN v;
END $$;
CREATE FUNCTION model.many(v jsonb, short text) RETURNS SETOF jsonb LANGUAGE sql AS $$
  SELECT CASE WHEN jsonb_typeof(m) = 'string' THEN jsonb_build_object(short, m) ELSE m END
    FROM jsonb_array_elements(CASE WHEN v IS NULL THEN '[]' WHEN jsonb_typeof(v) = 'array' THEN v ELSE jsonb_build_array(v) END) m $$;
CREATE FUNCTION model.scope(p jsonb, event jsonb) RETURNS jsonb LANGUAGE sql AS $$
  SELECT jsonb_build_object('process', p -> 'data', 'key', p -> 'key', 'event', event) $$;
-- the transitions that a state has for something that happens, its own before those of the top
CREATE FUNCTION model.options(def jsonb, state text, kind text, name text) RETURNS jsonb LANGUAGE sql AS $$
  SELECT CASE
    WHEN kind IN ('onError', 'always') THEN s -> kind
    WHEN kind = 'after' AND name LIKE '@%' THEN CASE WHEN NOT s ? 'type' THEN def -> 'after' -> substr(name, 2) END
    WHEN kind = 'after' THEN s -> 'after' -> name
    WHEN s -> 'on' ? name THEN s -> 'on' -> name
    WHEN NOT s ? 'type' THEN def -> 'on' -> name END
    FROM (SELECT def -> 'states' -> state) x(s) $$;
CREATE FUNCTION model.first_open(options jsonb, scope jsonb) RETURNS jsonb LANGUAGE sql AS $$
  SELECT m FROM model.many(options, 'target') WITH ORDINALITY o(m, n)
   WHERE NOT m ? 'guard' OR coalesce(jsonb_path_match(scope, (m ->> 'guard')::jsonpath, '{}', true), false) ORDER BY n LIMIT 1 $$;
-- set, then send
CREATE FUNCTION model.perform(a jsonb, p jsonb, event jsonb, sent jsonb) RETURNS model.outcome LANGUAGE plpgsql AS $$
DECLARE
  s jsonb;
  item jsonb;
BEGIN
  IF a ? 'set' THEN
    p := jsonb_set(p, '{data}', (p -> 'data') || model.meaning(a -> 'set', model.scope(p, event)));
  END IF;
  FOR s IN SELECT model.many(a -> 'send', 'command') LOOP
    FOR item IN SELECT jsonb_path_query(model.scope(p, event), coalesce(s ->> 'each', '$.key')::jsonpath) LOOP
      sent := sent || jsonb_build_array(jsonb_build_object('command', s -> 'command', 'arguments',
        (p -> 'data') || coalesce(model.meaning(s -> 'with', model.scope(p, event) || CASE WHEN s ? 'each' THEN jsonb_build_object('item', item) ELSE '{}' END), '{}')));
    END LOOP;
  END LOOP;
  RETURN (p, sent);
END $$;
-- the deadlines of the old state go, those of the new one begin, those of the process run on
CREATE FUNCTION model.move_into(state jsonb, p jsonb) RETURNS jsonb LANGUAGE sql AS $$
  SELECT p || CASE WHEN state ->> 'type' = 'final' THEN '{"done": true, "deadlines": {}}'::jsonb
    ELSE jsonb_build_object('deadlines', coalesce((SELECT jsonb_object_agg(d, true) FROM (
           SELECT d FROM jsonb_object_keys(p -> 'deadlines') d WHERE d LIKE '@%' UNION SELECT jsonb_object_keys(state -> 'after')) x), '{}')) END $$;
-- a transition and what follows from it by "always"
CREATE FUNCTION model.follow(def jsonb, t jsonb, p jsonb, event jsonb) RETURNS model.outcome LANGUAGE plpgsql AS $$
DECLARE
  o model.outcome := (p, '[]'::jsonb);
BEGIN
  WHILE t IS NOT NULL LOOP
    o := model.perform(t, o.process, event, o.sent);
    IF t ? 'target' THEN
      o.process := model.move_into(def -> 'states' -> (t ->> 'target'), o.process || jsonb_build_object('state', t -> 'target'));
      o := model.perform(coalesce(def #> ARRAY['states', t ->> 'target', 'entry'], '{}'), o.process, event, o.sent);
    END IF;
    t := model.first_open(model.options(def, o.process ->> 'state', 'always', ''), model.scope(o.process, event));
  END LOOP;
  RETURN o;
END $$;
-- what was too early for the states before, oldest first, until nothing fits
CREATE FUNCTION model.catch_up(def jsonb, o model.outcome) RETURNS model.outcome LANGUAGE plpgsql AS $$
DECLARE
  w jsonb;
  n int;
  x model.outcome;
BEGIN
  LOOP
    EXIT WHEN (o.process -> 'done')::boolean;
    SELECT e, i - 1 INTO w, n FROM jsonb_array_elements(o.process -> 'waiting') WITH ORDINALITY a(e, i)
     WHERE model.options(def, o.process ->> 'state', 'on', e ->> 'type') IS NOT NULL ORDER BY i LIMIT 1;
    EXIT WHEN NOT FOUND;
    o.process := jsonb_set(o.process, '{waiting}', (o.process -> 'waiting') - n);
    x := model.follow(def, model.first_open(model.options(def, o.process ->> 'state', 'on', w ->> 'type'), model.scope(o.process, w -> 'data')), o.process, w -> 'data');
    o := (x.process, o.sent || x.sent);
  END LOOP;
  RETURN o;
END $$;
CREATE FUNCTION model.expected_somewhere(def jsonb, event_type text) RETURNS boolean LANGUAGE sql AS $$
  SELECT bool_or(model.options(def, s, 'on', event_type) IS NOT NULL) FROM jsonb_object_keys(def -> 'states') s $$;
CREATE FUNCTION model.start(def jsonb, event_type text, key text, data jsonb) RETURNS model.outcome LANGUAGE sql AS $$
  SELECT model.follow(def, model.first_open(def -> 'start' -> event_type, model.scope(jsonb_build_object('key', key, 'data', data), data)),
                      jsonb_build_object('key', key, 'data', data, 'waiting', '[]'::jsonb, 'done', false, 'deadlines',
                        coalesce((SELECT jsonb_object_agg('@' || d, true) FROM jsonb_object_keys(def -> 'after') d), '{}')), data) $$;
CREATE FUNCTION model.step(def jsonb, p jsonb, kind text, name text, data jsonb) RETURNS model.outcome LANGUAGE plpgsql AS $$
DECLARE
  options jsonb := model.options(def, p ->> 'state', kind, name);
  was text := p ->> 'state';
  o model.outcome;
BEGIN
  IF (p -> 'done')::boolean THEN
    RETURN (p, '[]'::jsonb);
  ELSIF options IS NULL THEN
    IF kind = 'on' AND model.expected_somewhere(def, name) THEN
      p := jsonb_set(p, '{waiting}', (p -> 'waiting') || jsonb_build_array(jsonb_build_object('type', name, 'data', data)));
    END IF;
    RETURN (p, '[]'::jsonb);
  END IF;
  IF kind = 'after' THEN
    p := jsonb_set(p, '{deadlines}', (p -> 'deadlines') - name);
  END IF;
  RETURN model.catch_up(def, model.follow(def, model.first_open(options, model.scope(p, data)), p, data));
END $$;
-- ---- the engine, seen the same way ----
SELECT voiding.create_service('stand');      -- has no messages: dispatch('stand') is deadlines only
CREATE TABLE seen (seq bigint);
CREATE FUNCTION sent_now(p uuid) RETURNS jsonb LANGUAGE sql AS $$
  WITH news AS (SELECT seq, type, payload FROM voiding.outbox WHERE correlation_id = p AND source = 'voiding' AND sent_in IS NOT NULL AND seq NOT IN (SELECT seq FROM seen)),
  noted AS (INSERT INTO seen SELECT seq FROM news)
  SELECT coalesce(jsonb_agg(jsonb_build_object('command', type, 'arguments', payload - 'process_id') ORDER BY seq), '[]') FROM news $$;
CREATE TYPE look AS (state text, done boolean, data jsonb, deadlines text[], waiting text[], task text);
CREATE FUNCTION look_at(p uuid) RETURNS look LANGUAGE sql AS $$
  SELECT (x.state, x.finished_at IS NOT NULL, x.data,
          (SELECT coalesce(array_agg(name ORDER BY name), '{}') FROM voiding.timer t WHERE t.process_id = p),
          (SELECT coalesce(array_agg(type ORDER BY position), '{}') FROM voiding.parked_event e WHERE e.process_id = p),
          (SELECT string_agg(type, ',') FROM voiding.task k WHERE k.process_id = p AND k.state = 'ready'))::look
    FROM voiding.process x WHERE x.process_id = p $$;
-- let it happen: an event with the process's correlation, a deadline, a command that gave up
CREATE FUNCTION happen(p uuid, kind text, name text, data jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF kind = 'after' THEN
    PERFORM voiding.move_timer(p, name, '2000-01-01');
    PERFORM voiding.dispatch('stand', 1);
  ELSIF kind = 'onError' THEN
    PERFORM voiding.discard_message(m.id, data ->> 'reason') FROM (
      SELECT o.id FROM voiding.outbox o JOIN voiding.active_process a ON a.process_id = o.correlation_id AND a.state = o.sent_in AND o.created_at >= a.since
       WHERE a.process_id = p ORDER BY o.seq DESC LIMIT 1) m;
  ELSE
    PERFORM voiding.engine_emit(name, 'oracle', data, p);
  END IF;
END $$;
-- can it happen just now? (a deadline that is not running cannot pass)
CREATE FUNCTION can_happen(p uuid, kind text, name text) RETURNS boolean LANGUAGE sql AS $$
  SELECT CASE kind WHEN 'after' THEN EXISTS (SELECT FROM voiding.timer t WHERE t.process_id = p AND t.name = can_happen.name)
    WHEN 'onError' THEN EXISTS (SELECT FROM voiding.outbox o JOIN voiding.active_process a ON a.process_id = o.correlation_id AND a.state = o.sent_in AND o.created_at >= a.since
                                  JOIN voiding.process_type d ON d.name = a.type AND d.version = a.version AND d.definition #> ARRAY['states', a.state] ? 'onError' WHERE a.process_id = p)
    ELSE true END $$;

-- ---- both, event by event; a row for each, and what differs ----
CREATE TYPE happening AS (kind text, name text, data jsonb);
CREATE FUNCTION compare(process_type text, key text, start happening, events happening[])
  RETURNS TABLE (n int, event text, state text, sent text, differs text) LANGUAGE plpgsql AS $$
DECLARE
  def jsonb := (SELECT definition FROM voiding.process_type t WHERE t.name = process_type);
  p uuid := voiding.emit(start.name, key, start.data, 'stand');
  o model.outcome := model.catch_up(def, model.start(def, start.name, key, start.data));
  h happening := start;
  l look;
  engine_sent jsonb;
BEGIN
  FOR i IN 0 .. cardinality(events) LOOP
    IF i > 0 THEN
      h := events[i];
      CONTINUE WHEN NOT can_happen(p, h.kind, h.name);
      PERFORM happen(p, h.kind, h.name, h.data);
      o := model.step(def, o.process, h.kind, h.name, CASE h.kind WHEN 'onError' THEN jsonb_build_object('error', 'discarded: ' || (h.data ->> 'reason')) ELSE h.data END);
    END IF;
    engine_sent := sent_now(p);
    l := look_at(p);
    n := i;
    event := CASE h.kind WHEN 'on' THEN h.name ELSE concat_ws(' ', h.kind, nullif(h.name, '')) END;
    state := l.state || CASE WHEN l.done THEN ', ended' ELSE '' END;
    sent := (SELECT string_agg(c ->> 'command', ', ') FROM jsonb_array_elements(engine_sent) c);
    differs := concat_ws('; ',
      CASE WHEN l.state IS DISTINCT FROM o.process ->> 'state' THEN format('state, model: %s', o.process ->> 'state') END,
      CASE WHEN l.done IS DISTINCT FROM (o.process -> 'done')::boolean THEN 'end' END,
      CASE WHEN l.data IS DISTINCT FROM o.process -> 'data' THEN format('data %s, model: %s', l.data, o.process -> 'data') END,
      CASE WHEN engine_sent IS DISTINCT FROM o.sent THEN format('sent %s, model: %s', engine_sent, o.sent) END,
      CASE WHEN l.deadlines IS DISTINCT FROM (SELECT coalesce(array_agg(d ORDER BY d), '{}') FROM jsonb_object_keys(o.process -> 'deadlines') d)
           THEN format('deadlines %s, model: %s', l.deadlines, o.process -> 'deadlines') END,
      CASE WHEN NOT l.done AND l.waiting IS DISTINCT FROM (SELECT coalesce(array_agg(w ->> 'type' ORDER BY nth), '{}') FROM jsonb_array_elements(o.process -> 'waiting') WITH ORDINALITY a(w, nth))
           THEN format('parked %s, model: %s', l.waiting, o.process -> 'waiting') END,
      CASE WHEN l.task IS DISTINCT FROM CASE WHEN NOT l.done THEN def #>> ARRAY['states', l.state, 'task', 'type'] END THEN format('task %s', l.task) END);
    differs := nullif(differs, '');
    RETURN NEXT;
  END LOOP;
END $$;

-- ---- five stories ----
CREATE FUNCTION asked(id text) RETURNS happening LANGUAGE sql AS $$
  SELECT ('on', 'DocumentVoidingRequested', jsonb_build_object('document_id', id, 'customer_id', 'acme', 'currency', 'EUR', 'requested_by', 'eve'))::happening $$;
-- done; the last event comes twice
SELECT * FROM compare('document_voiding', 'S-1', asked('S-1'), ARRAY[('on', 'MarkingDocumentAsVoidedSucceeded', '{}'), ('on', 'DocumentVoided', '{}'), ('on', 'DocumentVoided', '{}')]::happening[]);
-- refused, acknowledged
SELECT * FROM compare('document_voiding', 'S-2', asked('S-2'), ARRAY[('on', 'MarkingDocumentAsVoidedFailed', '{"reason": "report 7 was published", "report_id": 7, "published_at": "2024-01-01"}'), ('on', 'ProcessFailureAcknowledged', '{}')]::happening[]);
SELECT data FROM voiding.process WHERE key = 'S-2';
SELECT payload -> 'reason' AS reason FROM voiding.outbox WHERE type = 'AbortDocumentVoiding';
-- Reports is silent for an hour, then answers
SELECT * FROM compare('document_voiding', 'S-3', asked('S-3'), ARRAY[('after', 'PT1H', '{}'), ('on', 'MarkingDocumentAsVoidedSucceeded', '{}'), ('on', 'ProcessFailureAcknowledged', '{}')]::happening[]);
-- Billing is slow, and had completed all the same
SELECT * FROM compare('document_voiding', 'S-4', asked('S-4'), ARRAY[('on', 'MarkingDocumentAsVoidedSucceeded', '{}'), ('after', 'PT1H', '{}'), ('on', 'DocumentVoided', '{}')]::happening[]);
-- the handler gives up
SELECT * FROM compare('document_voiding', 'S-5', asked('S-5'), ARRAY[('onError', '', '{"reason": "division by zero"}'), ('on', 'ProcessFailureAcknowledged', '{}')]::happening[]);
SELECT state, data ->> 'failure' AS failure FROM voiding.process WHERE key = 'S-5';

-- ---- random ones ----
SELECT voiding.create_command('Bake', service => 'stand'), voiding.create_command('Warn', service => 'stand'), voiding.create_command('Bill', service => 'stand');
SELECT voiding.create_process_type('bakery', '{
  "key": "batch",
  "start": {"Ordered": [{"guard": "$.event.n > 3", "target": "Refused", "set": {"why": "too many"}}, {"guard": "$.event.n == 3", "target": "Waiting", "send": "Warn"}, "Baking"]},
  "on": {"Cancelled": {"target": "Refused", "set": {"why": "$.event.text"}, "send": {"command": "Warn", "with": {"text": ["$.event.text", "$.key"]}}}, "Nudged": {"send": {"command": "Warn", "with": {"state": "any"}}}},
  "after": {"P9D": "Refused"},
  "states": {
    "Waiting": {"on": {"Opened": [{"guard": "$.event.n > 2", "target": "Baking", "set": {"from": "$.event.n"}}, {"guard": "$.event.n < 1", "set": {"closed": "$.process.closed + 1"}}]},
                "after": {"PT1H": {"set": {"waited": true}}, "PT2H": "Baking"}},
    "Baking": {"entry": {"set": {"baked": 0, "burnt": 0, "loaves": "$.process.n * 2"}, "send": {"command": "Bake", "each": "$.process.kinds[*]", "with": {"kind": "$.item.kind", "of": "$.process.loaves", "who": "$.event.text"}}},
               "on": {"Baked": {"set": {"baked": "$.process.baked + $.event.n"}}, "Burnt": [{"guard": "$.process.burnt > 0", "target": "Failed"}, {"set": {"burnt": "$.process.burnt + 1"}, "send": "Bake"}], "Nudged": {}},
               "always": [{"guard": "$.process.baked > 4", "target": "Selling", "set": {"plenty": true}}, {"guard": "$.process.baked >= $.process.loaves", "target": "Selling"}],
               "after": {"PT1H": {"target": "Failed", "set": {"why": "cold oven"}}},
               "onError": [{"guard": "$.event.error like_regex \"retry\"", "target": "Baking"}, {"target": "Failed", "set": {"why": "$.event.error"}}]},
    "Selling": {"entry": {"send": ["Bill", {"command": "Bill", "with": {"baked": "$.process.baked"}}]}, "on": {"Sold": "Done", "Opened": "Waiting"}, "always": {"guard": "$.process.n == 2", "target": "Counting"}, "forever": "bread keeps"},
    "Counting": {"on": {"Sold": "Done", "Burnt": "Selling2"}, "after": {"P1D": "Done"}, "task": {"type": "count", "with": {"batch": "$.key"}}},
    "Selling2": {"on": {"Sold": "Done", "Baked": {"target": "Selling2", "set": {"again": "$.event.n"}}}, "forever": "so does this"},
    "Failed": {"type": "failed", "reason": "$.process.why", "task": {"type": "clean"}, "entry": {"send": "Warn"}, "on": {"ProcessFailureAcknowledged": "Refused", "Baked": {}, "Sold": "Done"}},
    "Done": {"type": "final"}, "Refused": {"type": "final", "outcome": "failed"}
  }}');
CREATE FUNCTION pick(VARIADIC a text[]) RETURNS text LANGUAGE sql VOLATILE AS $$ SELECT a[1 + floor(random() * cardinality(a))] $$;
CREATE FUNCTION draw(process_type text) RETURNS happening LANGUAGE plpgsql AS $$
DECLARE
  word text := CASE process_type
    WHEN 'bakery' THEN pick('Opened', 'Baked', 'Baked', 'Baked', 'Burnt', 'Sold', 'Cancelled', 'Nudged', 'ProcessFailureAcknowledged', 'Unheard', 'after PT1H', 'after PT2H', 'after P1D', 'after @P9D', 'onError')
    ELSE pick('MarkingDocumentAsVoidedSucceeded', 'MarkingDocumentAsVoidedFailed', 'DocumentVoided', 'ProcessFailureAcknowledged', 'Unheard', 'after PT1H', 'onError') END;
  data jsonb := jsonb_build_object('n', floor(random() * 4), 'text', pick('a', 'b c', 'retry', '$.key'), 'reason', pick('retry later', 'no'), 'report_id', floor(random() * 9));
BEGIN
  RETURN CASE WHEN word LIKE 'after %' THEN ('after', substr(word, 7), '{}'::jsonb)::happening WHEN word = 'onError' THEN ('onError', '', data)::happening ELSE ('on', word, data)::happening END;
END $$;
CREATE TABLE played (process_type text, story int, n int, event text, state text, sent text, differs text);
CREATE FUNCTION play(process_type text, stories int, length int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  start happening;
BEGIN
  FOR i IN 1 .. stories LOOP
    start := CASE process_type WHEN 'bakery' THEN ('on', 'Ordered', jsonb_build_object('batch', 'B-' || i, 'n', floor(random() * 5), 'kinds', CASE WHEN random() < 0.7 THEN '[{"kind": "rye"}, {"kind": "oat"}]'::jsonb ELSE '[]' END))::happening
                               ELSE asked('R-' || i) END;
    INSERT INTO played SELECT process_type, i, c.* FROM compare(process_type, coalesce(start.data ->> 'batch', start.data ->> 'document_id'), start,
      (SELECT array_agg(draw(process_type) ORDER BY x) FROM generate_series(1, length) x)) c;
  END LOOP;
END $$;
SELECT setseed(0.5);
SELECT play('document_voiding', 100, 6);
SELECT play('bakery', 200, 9);
-- where they differ: nowhere
SELECT process_type, story, n, event, state, differs FROM played WHERE differs IS NOT NULL ORDER BY 1, 2, 3 LIMIT 10;
-- and every state was seen, and every command sent
SELECT process_type, array_agg(DISTINCT split_part(state, ',', 1) ORDER BY split_part(state, ',', 1)) = (
    SELECT array_agg(s ORDER BY s) FROM voiding.process_type t, jsonb_object_keys(t.definition -> 'states') s WHERE t.name = process_type) AS all_states,
  count(DISTINCT story) AS stories, count(*) > 500 AS many_events FROM played GROUP BY process_type ORDER BY process_type;
SELECT count(*) > 10 AS parked_and_taken FROM voiding.process_history WHERE note = 'was parked';
SELECT count(*) > 10 AS late FROM voiding.process_history WHERE note = 'late';
SELECT DISTINCT command FROM played, regexp_split_to_table(sent, ', ') command ORDER BY command;
SELECT * FROM voiding.check_invariants();
\c contrib_regression
DROP DATABASE regress_oracle;
