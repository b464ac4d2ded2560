# What a handler could leave behind in the session of the superuser who
# dispatches, to be run by him later: a temporary view or table that comes
# before his own, a prepared statement in the place of his, a cursor; and what
# it could take from him: what he listens to.
# By hand: the session that dispatches is looked at afterwards.

use strict;
use warnings;

use Test::More;
use Voiding::Test;

my $node = new_node('main');
my $db = new_database($node, 'hostile');

$node->safe_psql($db, q{
  CREATE ROLE regress_mal;
  GRANT USAGE ON SCHEMA voiding TO regress_mal;
  GRANT EXECUTE ON FUNCTION voiding.create_service, voiding.subscribe, voiding.emit TO regress_mal;
  CREATE SCHEMA regress_mal AUTHORIZATION regress_mal;
  CREATE TABLE public.seen (what text, who text DEFAULT current_user);
  GRANT INSERT ON public.seen TO PUBLIC;
  CREATE TABLE public.mine (x int);
  SET ROLE regress_mal;
  SELECT voiding.create_service('regress_mal');
  CREATE FUNCTION regress_mal.evil(what text) RETURNS text LANGUAGE plpgsql AS
    'BEGIN INSERT INTO public.seen VALUES (what); RETURN current_user; END';
  CREATE FUNCTION regress_mal.note() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM regress_mal.evil(''trigger''); RETURN NEW; END';
  CREATE FUNCTION regress_mal.h(what text) RETURNS void LANGUAGE plpgsql AS 'BEGIN EXECUTE what; END';
  SELECT voiding.subscribe('RegressDo', 'regress_mal.h');
});

# One session of the superuser: before; then dispatch() runs a handler of mal's
# that does $what; then after. What the last statement says, and as whom any
# code of mal's ran.
sub session
{
  my ($what, $before, $after) = @_;

  $node->safe_psql($db, qq{TRUNCATE public.seen; DELETE FROM voiding.outbox;
    SET ROLE regress_mal; SELECT voiding.emit('RegressDo', 's', jsonb_build_object('what', \$q\$$what\$q\$), 'regress_mal')});
  my ($rc, $out) = $node->psql($db, "$before;\nSELECT 'handled ' || voiding.dispatch();\n$after;", on_error_stop => 0);
  my @lines = split /\n/, $out;
  ok((grep { $_ eq 'handled 1' } @lines), 'the message is dealt with');
  return ($lines[-1], row($node, $db, q{SELECT string_agg(DISTINCT who, ' ') FROM public.seen}));
}

sub harmless
{
  my ($name, $expected, @arguments) = @_;
  my ($last, $who) = session(@arguments);

  is($last, $expected, "$name: the session is what it was");
  unlike($who, qr/postgres/, "$name: no code of mal's has run as the superuser");
  return;
}

harmless('a temporary view', '0',
  q{CREATE TEMP VIEW mine AS SELECT regress_mal.evil('view') AS x}, 'SELECT 1', 'SELECT count(x) FROM mine');
harmless('a temporary table with a trigger', 'INSERTED',
  q{CREATE TEMP TABLE mine (x int); CREATE TRIGGER t BEFORE INSERT ON pg_temp.mine FOR EACH ROW EXECUTE FUNCTION regress_mal.note();
    GRANT ALL ON mine TO PUBLIC},
  'SELECT 1', q{WITH i AS (INSERT INTO mine VALUES (1) RETURNING x) SELECT 'INSERTED' FROM i});
$node->safe_psql($db, 'TRUNCATE public.mine');
harmless('a prepared statement', 'mine',
  q{DEALLOCATE tick; PREPARE tick AS SELECT regress_mal.evil('prepared')}, q{PREPARE tick AS SELECT 'mine'}, 'EXECUTE tick');
harmless('all prepared statements', 'mine', 'DEALLOCATE ALL', q{PREPARE tick AS SELECT 'mine'}, 'EXECUTE tick');
harmless('a cursor', 'mine',
  q{CLOSE c; DECLARE c CURSOR FOR SELECT regress_mal.evil('cursor')},
  q{BEGIN; DECLARE c CURSOR FOR SELECT 'mine'}, 'FETCH c; COMMIT');
harmless('LISTEN and UNLISTEN', 'voiding_billing',
  'UNLISTEN *; LISTEN elsewhere', 'LISTEN voiding_billing', 'SELECT pg_listening_channels()');

invariants_hold($node, $db, 'in the end');
$node->stop;
done_testing();
