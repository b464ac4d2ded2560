# 500 sessions sleep in await(): none of them holds a snapshot, so that VACUUM
# removes what others delete meanwhile; each is told when its process is
# settled, soon after that commit.

use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Utils ();
use Test::More;
use Voiding::Test;

my $many = 500;
my $few = 20;
my $node = new_node('main', max_connections => $many + 30, max_worker_processes => 20, shared_buffers => "'64MB'");
my $db = new_database($node, 'sleepers');

$node->safe_psql($db, qq{
  SELECT voiding.start_workers(2);
  SELECT billing.issue_document(d || i, 's' || i % 7, i) FROM generate_series(0, $many - 1) i, unnest('{each,few1/,few2/,few3/}'::text[]) d;
  SELECT billing.issue_document('all', 'a', 1);
  CREATE TABLE public.waste (n integer) WITH (autovacuum_enabled = off)});
is(row($node, $db, "SELECT voiding.wait_until_idle('60 s')"), 't', 'the documents are in their reports');

# So many sessions that wait for the voiding of a document; $document is an
# expression in which client_id is the number of the session.
sub sleepers_on
{
  my ($name, $document, $n) = @_;
  my $prefix = "$PostgreSQL::Test::Utils::tmp_check/$name";
  my $s = { prefix => $prefix, document => $document, n => $n };

  PostgreSQL::Test::Utils::append_to_file("$prefix.sql", qq{
    SELECT process_id FROM billing.document WHERE document_id = @{[ $document =~ s/client_id/:client_id/r ]} \\gset
    CALL voiding.await(':process_id', '100 s');
  });
  local $ENV{PGAPPNAME} = 'sleeper';
  $s->{run} = IPC::Run::start([ 'pgbench', '-n', '-c', $n, '-t', 1, '-l', '--log-prefix', $prefix, '-f', "$prefix.sql",
      '-h', $node->host, '-p', $node->port, $db ], '<', \undef, '>', \$s->{out}, '2>', \$s->{err}, IPC::Run::timeout(120));
  return $s;
}

sub asleep
{
  my ($name, $n) = @_;
  local $Test::Builder::Level = $Test::Builder::Level + 1;
  return ok(poll_until(sub { row($node, $db, q{SELECT count(*), count(backend_xmin), count(backend_xid) FROM pg_stat_activity
      WHERE application_name = 'sleeper' AND wait_event_type = 'Extension'}) eq "$n|0|0" }, 60),
    "$name: all $n sleep, and hold neither snapshot nor transaction");
}

# they are not in VACUUM's way
sub vacuum_works
{
  my ($name) = @_;
  local $Test::Builder::Level = $Test::Builder::Level + 1;

  $node->safe_psql($db, 'INSERT INTO public.waste SELECT generate_series(1, 1000)');
  $node->safe_psql($db, 'DELETE FROM public.waste');
  return ok(poll_until(sub { $node->safe_psql($db, 'VACUUM public.waste'); row($node, $db, q{SELECT pg_relation_size('public.waste')}) eq '0' }, 20),
    "$name: VACUUM removes what was deleted meanwhile");
}

# How long after its process was settled each was told, in ms, sorted.
sub delays
{
  my ($s) = @_;
  my %told = map { my @f = split; ($f[0] => $f[4] * 1000 + $f[5] / 1000) }
    map { split /\n/, PostgreSQL::Test::Utils::slurp_file($_) } glob "$s->{prefix}.[0-9]*";
  my %settled = split /[|\n]/, row($node, $db, qq{
    SELECT client_id, extract(epoch FROM p.finished_at) * 1000
      FROM generate_series(0, $s->{n} - 1) client_id JOIN billing.document d ON d.document_id = $s->{document}
      JOIN voiding.process p USING (process_id)});

  return sort { $a <=> $b } map { $told{$_} - $settled{$_} } grep { defined $settled{$_} } keys %told;
}

# They go to sleep before a worker begins; how late they are told.
sub sleep_and_wake
{
  my ($name, $document, $n) = @_;
  local $Test::Builder::Level = $Test::Builder::Level + 1;

  row($node, $db, 'SELECT voiding.stop_workers()');
  row($node, $db, qq{SELECT billing.void_document(d) FROM (SELECT DISTINCT $document FROM generate_series(0, $n - 1) client_id) x(d)});
  my $s = sleepers_on($name, $document, $n);
  asleep($name, $n);
  vacuum_works($name);
  row($node, $db, 'SELECT voiding.start_workers(2)');
  ok($s->{run}->finish, "$name: all are told") or diag($s->{err});
  my @delays = delays($s);
  is(scalar(@delays), $n, "$name: each of them");
  note(sprintf '%s: told %.0f ms after the commit (median; %.0f to %.0f)', $name, @delays[ $#delays / 2, 0, $#delays ]);
  return @delays;
}

for my $case ([ each => q{'each' || client_id} ], [ all => q{'all'} ])
{
  my @delays = sleep_and_wake(@$case, $many);
  cmp_ok($delays[-1], '<', 3000, "$case->[0]: soon");
}

# a session looks by itself once a second: half of them would be later than this
my @delays = sort { $a <=> $b } map { sleep_and_wake("few$_", "'few$_/' || client_id", $few) } 1 .. 3;
cmp_ok($delays[ $#delays / 2 ], '<', 250, 'a few are told at once, not when they look themselves');
invariants_hold($node, $db, 'in the end');
$node->stop;
done_testing();
