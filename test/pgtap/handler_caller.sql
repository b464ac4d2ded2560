-- voiding.caller() is on whose behalf: the role that was set or logged in, in
-- a handler its owner. It is not lent to whoever's SECURITY DEFINER function
-- happens to be called: that would be a way to act as the one who calls it.
-- By hand: handlers run in the transaction of the test.
BEGIN;
SELECT plan(12);

CREATE ROLE regress_ann; CREATE ROLE regress_mal;
GRANT USAGE ON SCHEMA voiding TO regress_ann, regress_mal;
GRANT EXECUTE ON FUNCTION voiding.create_service, voiding.create_command, voiding.subscribe, voiding.emit, voiding.caller TO regress_ann, regress_mal;
CREATE SCHEMA regress_ann AUTHORIZATION regress_ann;
CREATE SCHEMA regress_mal AUTHORIZATION regress_mal;
GRANT USAGE ON SCHEMA regress_mal TO PUBLIC;

SELECT is(voiding.caller()::text, session_user::text, 'at the top: who logged in');
SET LOCAL ROLE regress_ann;
SELECT is(voiding.caller()::text, 'regress_ann', 'with SET ROLE: the role that was set');

-- in a handler, also through a SECURITY DEFINER function of another role
CREATE TABLE regress_ann.seen (who text, definer text);
SELECT voiding.create_service('regress_ann');
RESET ROLE;
CREATE FUNCTION public.regress_definer() RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS $$ SELECT voiding.caller()::text || ' ' || current_user $$;
SELECT format('%s %s', 'regress_ann', session_user) AS expected \gset
SET LOCAL ROLE regress_ann;
CREATE FUNCTION regress_ann.h() RETURNS void LANGUAGE sql AS $$ INSERT INTO regress_ann.seen VALUES (voiding.caller(), public.regress_definer()) $$;
SELECT voiding.subscribe('RegressE', 'regress_ann.h');
SELECT voiding.emit('RegressE', 's', '{}', 'regress_ann');
RESET ROLE;
SELECT voiding.dispatch();
SELECT is((SELECT who FROM regress_ann.seen), 'regress_ann', 'in a handler: its owner');
SELECT is((SELECT definer FROM regress_ann.seen), :'expected', 'also inside a SECURITY DEFINER function, which itself runs as its own owner');
SELECT is(voiding.caller()::text, session_user::text, 'after it: who logged in');
SELECT results_eq($$ SELECT actor FROM voiding.event WHERE type = 'RegressE' $$, ARRAY['regress_ann'], 'an event says who acted');

-- a trap: a SECURITY DEFINER trigger function on mal's table, which runs as
-- mal, and registers the superuser's query_to_xml() when he inserts a row
SET LOCAL ROLE regress_mal;
SELECT voiding.create_service('regress_mal');
CREATE TABLE regress_mal.t (x text);
CREATE FUNCTION regress_mal.trap() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  PERFORM voiding.create_command('RegressEvil', 'query_to_xml', 'regress_mal');
  RETURN NEW;
EXCEPTION WHEN others THEN
  NEW.x := sqlstate;
  RETURN NEW;
END $$;
CREATE TRIGGER trap BEFORE INSERT ON regress_mal.t FOR EACH ROW EXECUTE FUNCTION regress_mal.trap();
CREATE FUNCTION regress_mal.take() RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  PERFORM voiding.create_service('regress_taken', 'postgres');
  RETURN 'taken';
EXCEPTION WHEN others THEN
  RETURN sqlstate;
END $$;
GRANT INSERT ON regress_mal.t TO PUBLIC;
SELECT is(regress_mal.take(), '42501', 'mal cannot make a service of the superuser');
INSERT INTO regress_mal.t VALUES ('by mal');
SELECT is((SELECT x FROM regress_mal.t), '42501', 'mal cannot register a function of the superuser');
RESET ROLE;
INSERT INTO regress_mal.t VALUES ('by the superuser');
SELECT is_empty($$ SELECT * FROM voiding.handler WHERE type = 'RegressEvil' $$,
  'nor can mal when the superuser inserts into a table of mal''s');
SELECT isnt(regress_mal.take(), 'taken', 'nor when the superuser calls a function that runs as mal');
SET LOCAL ROLE regress_ann;
INSERT INTO regress_mal.t VALUES ('by ann');
RESET ROLE;
SELECT is_empty($$ SELECT * FROM voiding.service WHERE owner = session_user AND name LIKE 'regress%' $$, 'the superuser has got no service');
-- where PostgreSQL runs somebody else's expression there is no caller
SET LOCAL ROLE regress_mal;
CREATE FUNCTION regress_mal.indexed(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN voiding.caller(); END $$;
RESET ROLE;
SELECT throws_ok($$ CREATE INDEX ON regress_mal.t (regress_mal.indexed(x)) $$, '42501', NULL, 'an index expression has no caller');

SELECT * FROM finish();
ROLLBACK;
