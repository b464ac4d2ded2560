# A standby is promoted while its primary is under load and dies: no worker on
# it before, work goes on there afterwards; all that clients were told is true.
# With the library preloaded, and without.

use strict;
use warnings;

use PostgreSQL::Test::Utils ();
use Test::More;
use Voiding::Load;
use Voiding::Test;

my $seed = $ENV{VOIDING_SEED} // int(rand 1_000_000);
diag("VOIDING_SEED=$seed");

sub serves_nobody
{
  my ($node, $name) = @_;
  local $Test::Builder::Level = $Test::Builder::Level + 1;
  return is(row($node, 'postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'voiding %'}), '0', $name);
}

for my $preload (0, 1)
{
  my $how = $preload ? 'preloaded' : 'not preloaded';
  my %settings = $preload ? (shared_preload_libraries => "'voiding'", 'voiding.databases' => "'served'", 'voiding.workers' => 2) : ();
  my $primary = new_node("primary$preload", %settings, max_worker_processes => 20, max_connections => 40,
    'voiding.retry_base' => 20, wal_level => 'replica', max_wal_senders => 5);
  my $standby = PostgreSQL::Test::Cluster->new("standby$preload");
  my $db = new_database($primary, 'served');

  # all of the standby's: what a client is told has been written there too
  row($primary, $db, 'SELECT voiding.start_workers(2)') unless $preload;
  $primary->backup('b');
  $standby->init_from_backup($primary, 'b', has_streaming => 1);
  $standby->start;
  $primary->wait_for_catchup($standby, 'replay');
  $primary->safe_psql('postgres', q{ALTER SYSTEM SET synchronous_standby_names = '*'});
  $primary->reload;
  ok(poll_until(sub { row($primary, 'postgres', q{SELECT sync_state FROM pg_stat_replication}) eq 'sync' }, 20), "$how: the standby has all that is committed");

  my $load = start_clients(dir => "$PostgreSQL::Test::Utils::tmp_check/clients$preload", name => 'p', clients => 4, seed => $seed,
    node => $primary, db => $db);
  ok(poll_until(sub { answers($load) >= 200 }, 60), "$how: under load");
  serves_nobody($standby, "$how: no worker on the standby");
  like(error_of($standby, $db, 'SELECT voiding.start_workers(1)'), qr/^25006/, "$how: nor can one be started there");
  like(error_of($standby, $db, 'SELECT voiding.dispatch()'), qr/^25006/, "$how: nor messages be dispatched by hand");
  is(row($standby, $db, q{SELECT count(*) > 20 FROM billing.document}), 't', "$how: it can be read");
  # slow workers, so that much is under way when the primary dies
  $primary->safe_psql('postgres', q{LOAD 'voiding'; ALTER SYSTEM SET voiding.slow_down = 50});
  $primary->reload;
  ok(poll_until(sub { row($standby, $db, 'SELECT count(*) FROM voiding.outbox') >= 40 }, 60), "$how: messages are waiting there");
  $primary->kill9;
  serves_nobody($standby, "$how: no worker on the standby, though its primary is dead");
  my $answers = answers($load);
  $standby->promote;
  lead_to($load, $standby, $db);
  ok(poll_until(sub { answers($load) >= $answers + 300 }, 60), "$how: clients go on there");
  is(row($standby, $db, 'SELECT count(*) FROM voiding.worker'), '2', "$how: promoted, it has workers");
  stop_clients($load, $how);
  finished($standby, $db, $how);
  records_agree($standby, $db, $load, $how);
  is(row($standby, $db, 'SELECT type, aggregateid, error FROM voiding.dead_letter'), '', "$how: no message gave up");
  invariants_hold($standby, $db, $how);
  $standby->stop;
}
done_testing();
