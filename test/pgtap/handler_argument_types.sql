-- A message's JSON becomes the handler's arguments: types whose bare name
-- means something shorter keep their length, and a domain takes what the type
-- below it takes.
-- By hand: handlers run in the transaction of the test.
BEGIN;
SELECT plan(7);

CREATE SCHEMA regress_svc;
SELECT voiding.create_service('regress_svc');
CREATE DOMAIN regress_svc.list AS text[];
CREATE DOMAIN regress_svc.doc AS jsonb;
CREATE TABLE regress_svc.seen (a text, b text, c text, d text, e text[], f jsonb);
CREATE FUNCTION regress_svc.h(a char(5), b bit(3), c varchar(5), d char(5)[]) RETURNS void LANGUAGE sql
  AS $$ INSERT INTO regress_svc.seen VALUES (rtrim(a), b, c, d) $$;
CREATE FUNCTION regress_svc.lists(e regress_svc.list) RETURNS void LANGUAGE sql AS $$ INSERT INTO regress_svc.seen (e) VALUES (e) $$;
CREATE FUNCTION regress_svc.docs(f regress_svc.doc) RETURNS void LANGUAGE sql AS $$ INSERT INTO regress_svc.seen (f) VALUES (f) $$;
SELECT voiding.subscribe('RegressShort', 'regress_svc.h');
SELECT voiding.subscribe('RegressList', 'regress_svc.lists');
SELECT voiding.subscribe('RegressDoc', 'regress_svc.docs');

SELECT voiding.emit('RegressShort', 'a', '{"a": "abc", "b": "101", "c": "xyz", "d": ["abc"]}', 'regress_svc');
SELECT voiding.emit('RegressList', 'b', '{"e": ["x", "y"]}', 'regress_svc');
SELECT voiding.emit('RegressDoc', 'c', '{"f": "plain"}', 'regress_svc');
SELECT voiding.dispatch();
SELECT is((SELECT a FROM regress_svc.seen WHERE c IS NOT NULL), 'abc', 'char(5)');
SELECT is((SELECT b FROM regress_svc.seen WHERE c IS NOT NULL), '101', 'bit(3)');
SELECT is((SELECT c FROM regress_svc.seen WHERE c IS NOT NULL), 'xyz', 'varchar(5)');
SELECT is((SELECT d FROM regress_svc.seen WHERE c IS NOT NULL), '{abc}', 'char(5)[]');
SELECT is((SELECT e FROM regress_svc.seen WHERE e IS NOT NULL), '{x,y}', 'a domain over an array takes a JSON array');
SELECT is((SELECT f FROM regress_svc.seen WHERE f IS NOT NULL), '"plain"', 'a domain over jsonb takes a JSON string');
SELECT is_empty($$ SELECT type, error FROM voiding.outbox WHERE destination = 'regress_svc' $$, 'none of them failed');

SELECT * FROM finish();
ROLLBACK;
