# Killed at random: backends, workers, the launcher and the postmaster, with
# SIGKILL, under load, with the library preloaded and without. What clients
# were told is true, what they asked for is finished, nothing was done twice.
#
# VOIDING_SEED=n repeats the choices of a run: who is killed, after how many
# more answers to clients, and what the clients ask for.

use strict;
use warnings;

use List::Util qw(shuffle);
use PostgreSQL::Test::Utils ();
use Test::More;
use Voiding::Load;
use Voiding::Test;

my $seed = $ENV{VOIDING_SEED} // int(rand 1_000_000);
diag("VOIDING_SEED=$seed");
srand $seed;
my @plan = map { { who => $_, after => 5 + int(rand 150), nth => int(rand 1000), preload => int(rand 2) } }
  shuffle(('worker') x 8, ('backend') x 8, ('launcher') x 4, ('postmaster') x 4);

my $node = new_node('main', restart_after_crash => 'on', max_worker_processes => 20, max_connections => 40,
  'voiding.retry_base' => 20);
my $db = new_database($node, 'kill');

row($node, $db, 'SELECT voiding.start_workers(2)');

# while the server may be down: what it says, or ''
sub ask
{
  my ($sql) = @_;
  return try_row($node, $db, $sql) // '';
}

my %is = (
  worker => q{backend_type = 'voiding worker'},
  launcher => q{backend_type = 'voiding launcher'},
  backend => q{backend_type = 'client backend' AND pid <> pg_backend_pid()});

sub victim
{
  my ($kill) = @_;
  my @pids;

  poll_until(sub { @pids = split /\n/, ask("SELECT pid FROM pg_stat_activity WHERE $is{$kill->{who}} ORDER BY pid") }, 40)
    or return;
  return $pids[ $kill->{nth} % @pids ];
}

# The server has noticed, and begins anew.
sub has_crashed
{
  my ($from) = @_;
  return poll_until(sub { PostgreSQL::Test::Utils::slurp_file($node->logfile, $from) =~ /all server processes terminated; reinitializing/ }, 40);
}

# The postmaster is killed, its children go; the next one finds the library
# preloaded or not.
sub kill_postmaster
{
  my ($preload) = @_;
  my ($pid) = split /\n/, PostgreSQL::Test::Utils::slurp_file($node->data_dir . '/postmaster.pid');

  $node->kill9;
  return 0 unless poll_until(sub { !kill 0, $pid }, 20);
  $node->adjust_conf('postgresql.conf', 'shared_preload_libraries', $preload ? "'voiding'" : "''");
  $node->adjust_conf('postgresql.conf', 'voiding.databases', "'$db'");
  return poll_until(sub { $node->start(fail_ok => 1) }, 40);
}

my $load = start_clients(dir => "$PostgreSQL::Test::Utils::tmp_check/clients", name => 'k', clients => 4, seed => $seed,
  node => $node, db => $db);
my $answers = 0;
for my $i (0 .. $#plan)
{
  my $kill = $plan[$i];
  my $name = sprintf '%d of %d: %s', $i + 1, scalar @plan, $kill->{who};

  ok(poll_until(sub { answers($load) >= $answers + $kill->{after} }, 60), "$name: after $kill->{after} more answers") or last;
  if ($kill->{who} eq 'postmaster')
  {
    ok(kill_postmaster($kill->{preload}), "$name: killed, started again" . ($kill->{preload} ? ', preloaded' : '')) or last;
  }
  else
  {
    my $pid = victim($kill);
    my $logged = -s $node->logfile;

    ok(defined $pid && kill('KILL', $pid) && has_crashed($logged), "$name: killed") or last;
  }
  $answers = answers($load);
}
ok(poll_until(sub { answers($load) >= $answers + 50 }, 60), 'they go on after the last one');
stop_clients($load, 'in the end');
finished($node, $db, 'in the end');
cmp_ok(records_agree($node, $db, $load, 'in the end'), '>', 100, 'there was something to do');
is(row($node, $db, 'SELECT type, aggregateid, error FROM voiding.dead_letter'), '', 'no message gave up');
invariants_hold($node, $db, 'in the end');
ok(poll_until(sub { row($node, $db, 'SELECT count(*) FROM voiding.worker') eq '2' }, 40), 'both workers are there');
$node->stop;
diag("repeat it with VOIDING_SEED=$seed") unless Test::More->builder->is_passing;
done_testing();
