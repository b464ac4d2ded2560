# Billing, Reports and the manager, two nodes each, run by Patroni with the files
# of example/patroni. Under load a leader dies, with its Patroni: the standby
# takes over, clients and connections find it; nothing that was acknowledged is
# lost, nothing happens twice, everything comes to its end; the old leader comes
# back as the standby.
#
# VOIDING_FAILOVERS: whose leaders die, one after the other; without it
# billing,reports,manager. The gap in service is said.

use strict;
use warnings;

use PostgreSQL::Test::Utils ();
use Test::More;
use Time::HiRes qw(time);
use Voiding::Load;
use Voiding::Patroni qw(missing_programs start_etcd);
use Voiding::Test;
use Voiding::Three;

my @missing = missing_programs();
plan(skip_all => "not installed: @missing (make test installs patroni and etcd-server)") if @missing;

my $seed = $ENV{VOIDING_SEED} // int(rand 1_000_000);
diag("VOIDING_SEED=$seed");
my @names = qw(billing reports manager);
my @dying = split /,/, $ENV{VOIDING_FAILOVERS} // join(',', @names);

# ---- three clusters of two ----

ok(start_etcd(), 'etcd is there') or BAIL_OUT('no etcd');
my $three = { map { $_ => Voiding::Patroni->new($_) } @names };
my ($billing, $reports, $manager) = @$three{@names};

ok(poll_until(sub { !grep { !$_->is_safe } values %$three }, 120), 'each cluster has a leader and a synchronous standby');
make_part($three->{$_}, $_) for @names;
connect_all($three);

# ---- under load ----

my $load = start_clients(dir => "$PostgreSQL::Test::Utils::tmp_check/clients", name => 'p', clients => 3, seed => $seed, pause => 30_000,
  again => 200_000, node => $billing, reports => $reports, db => 'postgres');

sub finished_processes
{
  return $manager->ask_leader('SELECT count(*) FROM voiding.finished_process');
}

sub slots_of
{
  my ($cluster) = @_;
  return join ' ', map { $cluster->ask_node($_, q{SELECT pg_is_in_recovery() || ':' || count(*) FROM pg_replication_slots WHERE slot_type = 'logical'}) // '' } @{ $cluster->{nodes} };
}

sub is_whole
{
  my ($cluster, $name) = @_;
  local $Test::Builder::Level = $Test::Builder::Level + 1;

  ok(poll_until(sub { $cluster->is_safe }, 90), "$name: the old leader is there, as the standby");
  return ok(poll_until(sub { slots_of($cluster) =~ /^(?:true:0 false:2|false:2 true:0)$/ }, 60), "$name: the slots are the new leader's, and no others")
    || diag(slots_of($cluster));
}

sub is_under_load
{
  my ($name) = @_;
  local $Test::Builder::Level = $Test::Builder::Level + 1;
  my ($answers, $ended) = (answers($load), finished_processes());

  return ok(poll_until(sub { answers($load) >= $answers + 100 && finished_processes() >= $ended + 10 }, 60), "$name: under load");
}

# The leader changes, by what is called; how long nobody can write, and no process ends.
sub changes_leader
{
  my ($cluster, $name, $change) = @_;
  my $began = time;
  my $outcome = $change->();

  ok(poll_until(sub { defined $cluster->ask_leader(q{SELECT pg_logical_emit_message(true, 'test', '')}) }, 60), "$name: the standby takes over");
  my $gap = time - $began;
  my $ended;
  poll_until(sub { defined($ended = finished_processes()) }, 60);
  ok(poll_until(sub { (finished_processes() // 0) > $ended }, 60), "$name: processes go on to their end");
  diag(sprintf '%s: %.1f s until its new leader wrote, %.1f s until a process ended', $name, $gap, time - $began);
  return $outcome;
}

for my $name (@dying)
{
  my $cluster = $three->{$name};

  is_under_load($name);
  $cluster->start_node(changes_leader($cluster, $name, sub { $cluster->kill_leader }));
  is_whole($cluster, $name);
}

my $by_hand = "$dying[0] by hand";
is_under_load($by_hand);
is(changes_leader($three->{ $dying[0] }, $by_hand, sub { $three->{ $dying[0] }->switch_over }), '', "$by_hand: that is possible");
is_whole($three->{ $dying[0] }, $by_hand);

# ---- the end ----

stop_clients($load, 'failover');
ok(poll_until(sub { connected($three) }, 60), 'all are connected');
ok(all_arrived($three, 120), 'everything has come to its end');
agree($three, 'after failover');

# a voiding that is asked for again after it has failed is accepted by Billing, and then refused
sub table
{
  my ($node, $sql) = @_;
  return map { my ($key, @rest) = split /\|/, $_, -1; ($key => \@rest) } split /\n/, row($node, 'postgres', $sql);
}
my %process = table($manager, 'SELECT process_id, state FROM voiding.process');
my %last = table($manager, 'SELECT DISTINCT ON (key) key, state FROM voiding.process ORDER BY key, process_id DESC');
my %refused = map { $_ => 1 } split /\n/, row($billing, 'postgres', 'SELECT process_id FROM billing.aborted_voiding');
my %line = table($reports, 'SELECT l.document_id, l.status, r.status FROM reports.report_line l LEFT JOIN reports.report r USING (report_id)');
my %there = table($billing, 'SELECT document_id, customer_id, amount, status, process_id FROM billing.document');
for my $id (keys %there)
{
  my $process = $there{$id}[-1];
  push @{ $there{$id} }, ($process{$process} // ($refused{$process} ? $last{$id} : undef) // [ '' ])->[0], @{ $line{$id} // [ '', '' ] };
}

cmp_ok(compare_records($load, \%there, \%refused, $reports, 'postgres', 'failover'), '>', 20, 'and many voids were accepted');
is(row($_, 'postgres', 'SELECT type, error FROM voiding.dead_letter'), '', $_->name . ': nothing gave up') for values %$three;
my @twice = map { row($_, 'postgres', 'SELECT count(*) - count(DISTINCT event_id) FROM voiding.event') } @$three{@names};
is("@twice", '0 0 0', 'nothing has happened twice');
is(row($billing, 'postgres', q{SELECT type, subject, count(*) FROM voiding.event WHERE type IN ('DocumentIssued', 'DocumentVoided') GROUP BY 1, 2 HAVING count(*) > 1}), '',
  'nor was said twice');
diag("repeat it with VOIDING_SEED=$seed") unless Test::More->builder->is_passing;
done_testing();
