-- Code that hides in types and defaults, while a handler's arguments are made
-- and while a row is captured, runs as the handler's owner, or as the role
-- that changes the row: never as the engine or as the dispatcher.
-- By hand: handlers run in the transaction of the test.
BEGIN;
SELECT plan(8);

CREATE ROLE regress_mal;
GRANT USAGE ON SCHEMA voiding TO regress_mal;
GRANT EXECUTE ON FUNCTION voiding.create_service, voiding.subscribe, voiding.emit, voiding.emit_event TO regress_mal;
CREATE SCHEMA regress_mal AUTHORIZATION regress_mal;
CREATE TABLE seen (what text, who text DEFAULT current_user);
GRANT INSERT ON seen TO PUBLIC;

SET LOCAL ROLE regress_mal;
SELECT voiding.create_service('regress_mal');
-- notes as whom it runs; says yes
CREATE FUNCTION regress_mal.note(what text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO public.seen VALUES (what);
  RETURN true;
END $$;
CREATE DOMAIN regress_mal.d AS text CHECK (regress_mal.note('domain'));
CREATE TYPE regress_mal.r AS (a regress_mal.d, b int);
CREATE FUNCTION regress_mal.from_text(text) RETURNS regress_mal.r LANGUAGE plpgsql AS $$
BEGIN
  PERFORM regress_mal.note('cast from text');
  RETURN ROW('x'::regress_mal.d, 1)::regress_mal.r;
END $$;
CREATE CAST (text AS regress_mal.r) WITH FUNCTION regress_mal.from_text(text);
CREATE TYPE regress_mal.e AS ENUM ('one');
CREATE FUNCTION regress_mal.to_json(regress_mal.e) RETURNS json LANGUAGE plpgsql AS $$
BEGIN
  PERFORM regress_mal.note('cast to json');
  RETURN '{}';
END $$;
CREATE CAST (regress_mal.e AS json) WITH FUNCTION regress_mal.to_json(regress_mal.e);

CREATE FUNCTION regress_mal.h(a regress_mal.d, r regress_mal.r, t regress_mal.r,
    b boolean DEFAULT regress_mal.note('default')) RETURNS void
  LANGUAGE sql AS $$ SELECT regress_mal.note('handler') $$;
SELECT voiding.subscribe('RegressTypes', 'regress_mal.h');
SELECT voiding.emit('RegressTypes', 's', '{"a": "x", "r": {"a": "z", "b": 1}, "t": "(q,1)"}', 'regress_mal');
RESET ROLE;
SELECT voiding.dispatch();
SELECT is((SELECT error FROM voiding.outbox WHERE destination = 'regress_mal'), NULL, 'the handler was called');
SELECT set_eq('SELECT what FROM seen', ARRAY['domain', 'default', 'handler'],
  'its arguments'' domains and defaults have run, a planted cast from text has not');
SELECT is_empty($$ SELECT * FROM seen WHERE who <> 'regress_mal' $$, 'all of them as the handler''s owner');

-- while a row is captured
TRUNCATE seen;
SET LOCAL ROLE regress_mal;
CREATE TABLE regress_mal.t (id regress_mal.d, r regress_mal.r, e regress_mal.e);
CREATE TRIGGER t AFTER INSERT ON regress_mal.t FOR EACH ROW EXECUTE FUNCTION voiding.emit_event('RegressCaptured');
INSERT INTO regress_mal.t VALUES ('i', ROW('a', 1), 'one');
RESET ROLE;
SELECT isnt_empty($$ SELECT 1 FROM voiding.event WHERE type = 'RegressCaptured' $$, 'a row of such types is captured');
SELECT isnt_empty($$ SELECT 1 FROM seen WHERE what = 'cast to json' $$, 'its cast to json has run');
SELECT is_empty($$ SELECT * FROM seen WHERE who <> 'regress_mal' $$, 'as the role that inserted the row');

-- what was captured goes to a handler of somebody else, as text
TRUNCATE seen;
CREATE FUNCTION reports.regress_h(id text, r jsonb) RETURNS void LANGUAGE sql AS 'SELECT';
SELECT voiding.subscribe('RegressCaptured', 'reports.regress_h');
SET LOCAL ROLE regress_mal;
INSERT INTO regress_mal.t VALUES ('j', ROW('a', 1), 'one');
RESET ROLE;
TRUNCATE seen;
SELECT cmp_ok(voiding.dispatch(), '>', 0, 'a handler of somebody else takes the event');
SELECT is_empty('SELECT * FROM seen', 'and no code of the first one runs');

SELECT * FROM finish();
ROLLBACK;
