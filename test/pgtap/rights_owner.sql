-- The duty owner of doc/privilege.md: who may make what a service, and what
-- may be registered as its handler. Two owners who do not trust each other.
BEGIN;
SELECT plan(31);

CREATE ROLE regress_owner; CREATE ROLE regress_ann; CREATE ROLE regress_bob;
CREATE ROLE regress_team; GRANT regress_team TO regress_ann;
\set grants `awk '/^-- owner: /{on=1} !/^(-- |GRANT |  [a-z])/{on=0} on && !/^--/' doc/privilege.md | sed -E 's/ TO ([a-z_]+);/ TO regress_\1;/'`
:grants
GRANT regress_owner TO regress_ann, regress_bob;
SELECT format('GRANT CREATE ON DATABASE %I TO regress_ann', current_database()) AS g \gset
:g;
CREATE SCHEMA regress_bobs AUTHORIZATION regress_bob;

-- services
SET LOCAL ROLE regress_ann;
SELECT lives_ok($$ SELECT voiding.create_service('regress_ann') $$, 'who may create schemas makes a service, and its schema');
SELECT lives_ok($$ SELECT voiding.create_service('regress_team', 'regress_team') $$, 'a member makes one for the group');
SELECT throws_ok($$ SELECT voiding.create_service('regress_x', 'regress_bob') $$, '42501', NULL, 'not for somebody else');
SELECT throws_ok($$ SELECT voiding.create_service('regress_x', 'postgres') $$, '42501', NULL, 'nor for a superuser');
SELECT throws_ok($$ SELECT voiding.create_service('regress_x', schema => 'regress_bobs') $$, '42501', NULL, 'not of somebody else''s schema');
SELECT throws_ok($$ SELECT voiding.create_service('regress_x', schema => 'billing') $$, '42501', NULL, 'nor of a superuser''s');
SELECT throws_ok($$ SELECT voiding.create_service('regress_x', schema => 'pg_catalog') $$, NULL, NULL, 'pg_catalog is no service');
SELECT throws_ok($$ SELECT voiding.create_service('regress_x', schema => 'voiding') $$, NULL, NULL, 'the engine''s schema is no service');
SELECT throws_ok($$ SELECT voiding.drop_service('billing') $$, '42501', NULL, 'a service is dropped by its owner only');
CREATE SCHEMA regress_spare;
SELECT throws_ok($$ SELECT voiding.create_service('regress_bobs', schema => 'regress_spare') $$, NULL, NULL,
  'a service cannot take the name of somebody else''s schema, whose events it would silence');
SET LOCAL ROLE regress_bob;
SELECT throws_ok($$ SELECT voiding.create_service('regress_new') $$, '42501', NULL, 'who may not create schemas gets none made');
SELECT lives_ok($$ SELECT voiding.create_service('regress_bob', schema => 'regress_bobs') $$, 'but may use the one that he has');
RESET ROLE;
SELECT results_eq(
  $$ SELECT format('%s: %s, %s', s.name, s.owner, n.nspowner::regrole) FROM voiding.service s JOIN pg_namespace n ON n.nspname = s.schema
      WHERE s.name LIKE 'regress%' ORDER BY s.name $$,
  ARRAY['regress_ann: regress_ann, regress_ann', 'regress_bob: regress_bob, regress_bob', 'regress_team: regress_team, regress_team'],
  'services and their schemas belong to those roles');
CREATE SCHEMA regress_foreign AUTHORIZATION regress_bob;
SELECT throws_ok($$ SELECT voiding.create_service('regress_foreign', 'regress_ann') $$, '42501', NULL,
  'nobody owns a service in a schema where somebody else can replace every object');

-- handlers
CREATE FUNCTION regress_ann.planted() RETURNS void LANGUAGE sql BEGIN ATOMIC SELECT; END;  -- of the superuser
SET LOCAL ROLE regress_bob;
CREATE FUNCTION regress_bobs.h() RETURNS void LANGUAGE sql BEGIN ATOMIC SELECT; END;
CREATE FUNCTION regress_bobs.anys(a anyelement) RETURNS void LANGUAGE sql AS 'SELECT';
CREATE FUNCTION regress_bobs.outs(OUT a text) LANGUAGE sql AS $$ SELECT '' $$;
CREATE FUNCTION regress_bobs.variadics(VARIADIC a text[]) RETURNS void LANGUAGE sql AS 'SELECT';
CREATE PROCEDURE regress_bobs.p() LANGUAGE sql AS 'SELECT';
SELECT lives_ok($$ SELECT voiding.create_command('RegressBob', 'regress_bobs.h') $$, 'a function of one''s own becomes a handler');
SELECT throws_ok($$ SELECT voiding.create_command('RegressX', 'regress_bobs.anys') $$, '22023', NULL, 'not a polymorphic one');
SELECT throws_ok($$ SELECT voiding.create_command('RegressX', 'regress_bobs.outs') $$, '22023', NULL, 'not one with OUT arguments');
SELECT throws_ok($$ SELECT voiding.create_command('RegressX', 'regress_bobs.variadics') $$, '22023', NULL, 'not a variadic one');
SELECT throws_ok($$ SELECT voiding.create_command('RegressX', 'regress_bobs.p') $$, '22023', NULL, 'not a procedure');
SELECT throws_ok($$ SELECT voiding.create_command('RegressX', 'query_to_xml', 'regress_bob') $$, '42501', NULL,
  'not a function of the superuser, which would run with his rights');
SELECT throws_ok($$ SELECT voiding.create_command('RegressX', 'lo_import(text)'::regprocedure::oid::regproc, 'regress_bob') $$, '42501', NULL,
  'nor another one');
SELECT throws_ok($$ SELECT voiding.subscribe('RegressE', 'regress_bobs.h', 'regress_ann') $$, '42501', NULL,
  'not for somebody else''s service');
SELECT throws_ok($$ SELECT voiding.drop_command('IssueDocument') $$, '42501', NULL, 'nobody else drops its commands');
SELECT throws_ok($$ SELECT voiding.unsubscribe('DocumentIssued', 'reports') $$, '42501', NULL, 'nor ends its subscriptions');
SET LOCAL ROLE regress_ann;
GRANT USAGE ON SCHEMA regress_ann TO regress_bob;
SELECT throws_ok($$ SELECT voiding.create_command('RegressX', 'regress_bobs.h') $$, '42501', NULL, 'bob''s function is not registered by ann');
SELECT throws_ok($$ SELECT voiding.subscribe('RegressE', 'regress_ann.planted') $$, '42501', NULL,
  'a function that somebody else made in ann''s schema is not registered by ann');
SELECT throws_ok($$ SELECT voiding.drop_command('RegressBob') $$, '42501', NULL, 'ann does not drop bob''s command');

-- emit() speaks for one's own services
SELECT lives_ok($$ SELECT voiding.emit('RegressHappened', 's', '{}', 'regress_ann') $$, 'ann speaks for her service');
SELECT lives_ok($$ SELECT voiding.emit('RegressHappened', 's', '{}', 'regress_team') $$, 'and for that of her group');
SELECT throws_ok($$ SELECT voiding.emit('RegressHappened', 's', '{}', 'regress_bob') $$, '42501', NULL, 'not for bob''s');
SELECT throws_ok($$ SELECT voiding.emit('RegressHappened', 's', '{}', 'voiding') $$, '42704', NULL, 'nor for the engine');

RESET ROLE;
SELECT * FROM finish();
ROLLBACK;
