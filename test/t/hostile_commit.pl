# Code that a handler, or another session's table, leaves to be run at COMMIT:
# a superuser dispatches, and none of it may run as that superuser.

use strict;
use warnings;

use Test::More;
use Voiding::Test;

my $node = new_node('main', serve => ['hostile'], 'voiding.retry_base' => "'5 min'");
my $db = serve($node, new_database($node, 'hostile'));

$node->safe_psql($db, q{
  CREATE ROLE regress_mal LOGIN;
  GRANT USAGE ON SCHEMA voiding TO regress_mal;
  GRANT EXECUTE ON FUNCTION voiding.create_service, voiding.subscribe, voiding.emit TO regress_mal;
  CREATE SCHEMA regress_mal AUTHORIZATION regress_mal;
  CREATE TABLE public.seen (what text, who text DEFAULT current_user);
  GRANT INSERT ON public.seen TO PUBLIC;
  SET ROLE regress_mal;
  SELECT voiding.create_service('regress_mal');
  GRANT USAGE ON SCHEMA regress_mal TO PUBLIC;
  CREATE FUNCTION regress_mal.evil(what text) RETURNS text LANGUAGE plpgsql AS
    'BEGIN INSERT INTO public.seen VALUES (what); RETURN current_user; END';
  CREATE FUNCTION regress_mal.note() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM regress_mal.evil(TG_ARGV[0]); RETURN NULL; END';
  CREATE FUNCTION regress_mal.chain() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN
    PERFORM regress_mal.evil('first of the chain');
    SET CONSTRAINTS ALL DEFERRED;
    INSERT INTO regress_mal.plain VALUES (2);
    RETURN NULL;
  END $$;
  CREATE TABLE regress_mal.plain (x int);
  CREATE TABLE regress_mal.chained (x int);
  CREATE CONSTRAINT TRIGGER t AFTER INSERT ON regress_mal.plain DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION regress_mal.note('deferred');
  CREATE CONSTRAINT TRIGGER t AFTER INSERT ON regress_mal.chained DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION regress_mal.chain();
  CREATE FUNCTION regress_mal.h(what text) RETURNS void LANGUAGE plpgsql AS 'BEGIN EXECUTE what; END';
  SELECT voiding.subscribe('RegressDo', 'regress_mal.h');
});

# A handler of mal's does this; the superuser dispatches and commits, or a worker
# does. As whom did mal's code run? What failed is thrown away.
sub ran_as
{
  my ($what) = @_;

  $node->safe_psql($db, qq{TRUNCATE public.seen; SELECT voiding.discard_message(id, 'tried') FROM voiding.outbox;
    SET ROLE regress_mal; SELECT voiding.emit('RegressDo', 's', jsonb_build_object('what', \$q\$$what\$q\$), 'regress_mal')});
  settle($node, $db);
  return row($node, $db, q{SELECT string_agg(DISTINCT who, ' ') FROM public.seen});
}

is(ran_as(q{SELECT regress_mal.evil('x')}), 'regress_mal', 'a handler runs as its owner');
is(ran_as('INSERT INTO regress_mal.plain VALUES (1)'), 'regress_mal', 'a deferred trigger');
is(ran_as('SET CONSTRAINTS ALL DEFERRED; INSERT INTO regress_mal.plain VALUES (1)'), 'regress_mal',
  'a deferred trigger, deferred once more');
unlike(ran_as('INSERT INTO regress_mal.chained VALUES (1)'), qr/postgres/,
  'a deferred trigger that defers another one');
unlike(ran_as(q{DECLARE c CURSOR WITH HOLD FOR SELECT regress_mal.evil('cursor')}), qr/postgres/,
  'a cursor that would be run at COMMIT to be held');

# ---- the caller's own, by hand ----

by_hand($node, $db);

$node->safe_psql($db, q{
  CREATE ROLE regress_dispatcher;
  GRANT USAGE ON SCHEMA voiding TO regress_dispatcher;
  GRANT EXECUTE ON FUNCTION voiding.dispatch TO regress_dispatcher;
  GRANT INSERT ON regress_mal.plain TO regress_dispatcher;
  CREATE FUNCTION public.tick() RETURNS int LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'SELECT voiding.dispatch()';
});

$node->safe_psql($db, q{TRUNCATE public.seen; DELETE FROM voiding.outbox;
  SET ROLE regress_mal;
  SELECT voiding.emit('RegressDo', 's', '{"what": "SELECT 1"}', 'regress_mal')});
$node->safe_psql($db, q{SET ROLE regress_dispatcher;
  BEGIN;
  INSERT INTO regress_mal.plain VALUES (3);
  SELECT voiding.dispatch();
  COMMIT});
is(row($node, $db, 'SELECT * FROM public.seen'), 'deferred|regress_dispatcher',
  'a deferred trigger of the caller is fired as the caller, not as the handler');

$node->safe_psql($db, q{TRUNCATE public.seen; DELETE FROM voiding.outbox;
  SET ROLE regress_mal;
  BEGIN;
  INSERT INTO regress_mal.plain VALUES (4);
  SELECT public.tick();
  COMMIT});
is(row($node, $db, 'SELECT * FROM public.seen'), 'deferred|regress_mal',
  'also where dispatch() is called by a SECURITY DEFINER function of the superuser');

invariants_hold($node, $db, 'in the end');
$node->stop;
done_testing();
