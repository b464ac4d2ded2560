# Two connected databases whose servers have a standby each, step by step: what
# is acknowledged is there after a promotion, on either side; what was not does
# not leave; a receiver that is ahead of the server that was promoted misses
# nothing; and what helps where receipts were lost.

use strict;
use warnings;

use PostgreSQL::Test::Utils ();
use Test::More;
use Voiding::Test;

my %settings = (alone => 1, serve => ['postgres'], shared_preload_libraries => "'voiding'", 'voiding.databases' => "'postgres'",
  'voiding.workers' => 1, restart_after_crash => 'on', wal_level => 'logical', wal_writer_delay => '10ms', max_wal_senders => 10,
  max_replication_slots => 10, max_logical_replication_workers => 8, wal_retrieve_retry_interval => '100ms', max_slot_wal_keep_size => '1GB');

sub say_in { my ($node, $sql) = @_; return $node->safe_psql('postgres', $sql) }

sub comes
{
  my ($node, $sql, $expected, $name) = @_;
  local $Test::Builder::Level = $Test::Builder::Level + 1;
  return ok(poll_until(sub { (try_row($node, 'postgres', $sql) // '') eq $expected }, 60), $name) || diag(say_in($node, $sql));
}

# what has been said, here or over there: x, or x twice as x x
sub heard_in
{
  my ($node) = @_;
  return try_row($node, 'postgres', q{SELECT string_agg(subject, ' ' ORDER BY subject) FROM voiding.event WHERE type = 'Said'}) // '';
}

sub comes_to
{
  my ($node, $expected, $name) = @_;
  local $Test::Builder::Level = $Test::Builder::Level + 1;
  return ok(poll_until(sub { heard_in($node) eq $expected }, 60), $name) || diag(heard_in($node));
}

# a standby, without which nothing is acknowledged
sub standby_of
{
  my ($primary, $name) = @_;
  my $standby = PostgreSQL::Test::Cluster->new($name);

  $primary->backup($name);
  $standby->init_from_backup($primary, $name, has_streaming => 1);
  $standby->start;
  $primary->wait_for_catchup($standby, 'replay');
  say_in($primary, qq{ALTER SYSTEM SET synchronous_standby_names = '$name'});
  $primary->reload;
  comes($primary, 'SELECT sync_state FROM pg_stat_replication WHERE application_name = ' . "'$name'", 'sync', "$name has all that is committed");
  return $standby;
}

# The standby hears of nothing any more, though it is connected.
sub deafen
{
  my ($standby) = @_;
  my $receiver = say_in($standby, q{SELECT pid FROM pg_stat_wal_receiver});

  kill 'STOP', $receiver;
  return $receiver;
}

# The primary is gone, and with it what it had not brought to the standby.
sub fail_over
{
  my ($primary, $standby, $receiver) = @_;

  kill_server(PostgreSQL::Test::Utils::slurp_file($primary->data_dir . '/postmaster.pid') =~ /^(\d+)/);
  $primary->kill9;
  kill 'KILL', $receiver;
  # it recovers: then there is nobody to connect to
  poll_until(sub { (try_row($standby, 'postgres', 'SELECT count(*) FROM pg_stat_wal_receiver') // '') eq '0' }, 60);
  say_in($standby, q{ALTER SYSTEM SET synchronous_standby_names = ''});
  return $standby->promote;
}

sub conninfo_of
{
  my (@nodes) = @_;
  return sprintf 'host=%s port=%s user=%s dbname=postgres target_session_attrs=primary', join(',', map { $_->host } @nodes),
    join(',', map { $_->port } @nodes), (getpwuid $<)[0];
}

sub say_it
{
  my ($node, $what, $before) = @_;
  return say_in($node, ($before // '') . qq{SELECT voiding.emit('Said', '$what', '{}', 'mouth')});
}

# ---- two servers and their standbys ----

my ($left, $right) = map { new_node($_, %settings) } qw(left right);
say_in($_, 'SET voiding.example = off; CREATE EXTENSION voiding') for $left, $right;
say_in($left, q{SELECT voiding.create_service('mouth')});
my ($left2, $right2) = (standby_of($left, 'left2'), standby_of($right, 'right2'));

sub receive
{
  my ($node, $synchronous_commit, @from) = @_;
  return say_in($node, sprintf q{CALL voiding.connect_service('left', '%s', 'right', synchronous_commit => '%s')}, conninfo_of(@from), $synchronous_commit);
}
say_in($left, q{CALL voiding.connect_service('right', NULL, 'left', events => '{Said}', synchronous_commit => 'on')});
receive($right, 'on', $left, $left2);
say_it($left, 'a');
comes_to($right, 'a', 'what is said on the left is heard on the right');

# ---- the receiver's server dies ----

my $slot = q{SELECT confirmed_flush_lsn > '%s' FROM pg_replication_slots WHERE slot_name = 'voiding_left_to_right'};
my $deaf = deafen($right2);
say_it($left, 'b');
my $lsn = say_in($left, 'SELECT pg_current_wal_flush_lsn()');
comes($right, q{SELECT wait_event FROM pg_stat_activity WHERE backend_type ~ '^logical replication (apply )?worker$' AND wait_event = 'SyncRep'}, 'SyncRep',
  'a receiver waits for its standby');
is(say_in($left, sprintf $slot, $lsn), 'f', '... and confirms nothing before');
fail_over($right, $right2, $deaf);
comes_to($right2, 'a b', 'what its standby had not got comes to it after its promotion');

# with synchronous_commit => 'off' it confirms what can be lost
receive($right2, 'off', $left, $left2);
my $right3 = standby_of($right2, 'right3');
$deaf = deafen($right3);
my $since = say_in($left, 'SELECT clock_timestamp()');
say_it($left, 'c');
$lsn = say_in($left, 'SELECT pg_current_wal_flush_lsn()');
comes($left, sprintf($slot, $lsn), 't', 'one that does not wait for its standby confirms at once');
fail_over($right2, $right3, $deaf);
receive($right3, 'on', $left, $left2);
say_it($left, 'd');
comes_to($right3, 'a b d', '... and when its server dies that is lost');
cmp_ok(say_in($left, qq{SELECT voiding.resend('right', '$since')}), '>=', 1, 'sent again by hand');
comes_to($right3, 'a b c d', '... it comes');

# ---- the sender's server dies ----

say_in($left, 'CREATE TABLE filler (x text)');
$deaf = deafen($left2);
my $client = $left->background_psql('postgres', on_error_stop => 0);
$client->query_until(qr/asked/, qq{\\echo asked\nSELECT voiding.emit('Said', 'e', '{}', 'mouth');\n});
comes($left, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND wait_event = 'SyncRep'}, '1', 'a client waits for the standby');
# who does not wait leaves, and is far ahead of the standby
say_in($left, q{SET synchronous_commit = local; INSERT INTO filler SELECT repeat(md5(i::text), 30) FROM generate_series(1, 30000) i});
say_it($left, 'hasty', 'SET synchronous_commit = local; ');
comes_to($right3, 'a b c d hasty', 'what has no standby yet does not leave, unless who said it did not want to wait');
my $ahead = say_in($left, 'SELECT pg_current_wal_flush_lsn()');
fail_over($left, $left2, $deaf);
is(heard_in($left2), 'a b c d', 'the new server has what was acknowledged');
is(say_in($left2, "SELECT pg_current_wal_lsn() < pg_lsn '$ahead' - 10000000"), 't', 'its receiver is ahead of it')
  or diag("$ahead, now " . say_in($left2, 'SELECT pg_current_wal_lsn()'));
say_it($left2, 'f');
comes_to($right3, 'a b c d f hasty', 'what is said there is not passed over');
comes($left2, q{SELECT count(*) FROM voiding.under_way WHERE age > '5 s'}, '0', '... and nothing is under way any more');
is(say_in($left2, "SELECT pg_current_wal_lsn() > '$ahead'"), 't', '... since it has written beyond what its receiver had');
like(PostgreSQL::Test::Utils::slurp_file($left2->logfile), qr/after a promotion \d+ messages for service "right" are sent again/, '... and sent again what may have been lost');
say_it($left2, 'g');
comes_to($right3, 'a b c d f g hasty', 'it goes on');

# ---- who counts as a standby ----

say_in($left2, q{ALTER SYSTEM SET synchronous_standby_names = '*'});
$left2->reload;
comes($left2, q{SELECT application_name || ' ' || sync_state FROM pg_stat_replication}, 'voiding_left_to_right sync',
  q{with '*' a connection is taken for a standby: name the standbys});
say_in($left2, q{ALTER SYSTEM SET synchronous_standby_names = ''});
$left2->reload;

# ---- a slot that has stood still ----

# one of before a promotion, as a standby may have it that was the primary once
my $left3 = standby_of($left2, 'left3');
receive($right3, 'on', $left2, $left3);
$left2->stop('fast');
$left3->promote;
say_it($left3, 'h');
comes_to($right3, 'a b c d f g h hasty', 'after one more promotion it goes on, too');
$left2->append_conf('postgresql.conf', "primary_conninfo = '" . $left3->connstr . " application_name=left2'");
$left2->set_standby_mode;
$left2->start;
is(say_in($left2, 'SELECT count(*) FROM pg_replication_slots'), '1', 'the old primary still has its slot');
comes($left3, q{SELECT state FROM pg_stat_replication WHERE application_name = 'left2'}, 'streaming', '... as a standby');
say_it($left3, 'i');
$left3->wait_for_catchup($left2, 'replay');
say_in($left2, q{ALTER SYSTEM SET synchronous_standby_names = ''});
$left2->reload;
$left3->stop('fast');
$left2->promote;
say_it($left2, 'j');
comes_to($right3, 'a b c d f g h hasty i j', 'promoted again it makes another');
is(row($_, 'postgres', 'SELECT type, error FROM voiding.dead_letter'), '', 'nothing gave up') for $left2, $right3;
is(row($_, 'postgres', 'SELECT * FROM voiding.check_invariants()'), '', 'invariants hold') for $left2, $right3;
$_->stop for $left2, $right3;
done_testing();
