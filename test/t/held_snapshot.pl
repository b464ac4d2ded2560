# Somebody holds a snapshot, so that dead rows stay: a worker that waits for
# deadlines, and whoever waits until all is done, do not walk over them again and
# again. Counted in entries that were read of an index.

use strict;
use warnings;

use Test::More;
use Voiding::Test;

my $node = new_node('main', autovacuum => 'off', max_prepared_transactions => 0, 'voiding.retry_base' => 600_000);
my $db = new_database($node, 'held');

$node->safe_psql($db, q{
  SELECT voiding.create_service('shop');
  CREATE FUNCTION shop.see(subject text) RETURNS void LANGUAGE plpgsql AS $$
  BEGIN IF subject LIKE 'not yet %' THEN RAISE 'not yet'; END IF; END $$;
  SELECT voiding.subscribe('Said', 'shop.see');
  SELECT voiding.create_process_type('brief', '{"key": "id", "start": {"Begun": "Waiting"},
    "states": {"Waiting": {"on": {"Ended": "Ended"}, "after": {"PT1S": "Over"}}, "Ended": {"type": "final"}, "Over": {"type": "final"}}}')});
my $holder = $node->background_psql($db);
$holder->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM voiding.event');

sub read_of
{
  my ($index) = @_;
  return row($node, $db, "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = '$index'");
}

sub over
{
  return row($node, $db, q{SELECT count(*) FROM voiding.finished_process WHERE state = 'Over'});
}

# ---- deadlines ----

use constant { DEAD => 1000, PASS => 20 };

$node->safe_psql($db, qq{
  SELECT voiding.emit('Begun', 'd' || i, jsonb_build_object('id', 'd' || i), 'shop') FROM generate_series(1, @{[DEAD]}) i;
  SELECT voiding.emit('Ended', 'd' || i, jsonb_build_object('id', 'd' || i), 'shop') FROM generate_series(1, @{[DEAD]}) i});
is(row($node, $db, 'SELECT count(*) FROM voiding.timer'), '0', 'deadlines that were cancelled');
my $before = read_of('timer_due_at');
row($node, $db, 'SELECT voiding.start_workers(1)');
row($node, $db, qq{SELECT voiding.emit('Begun', 'p$_', '{"id": "p$_"}', 'shop')}) for 1 .. PASS;
ok(poll_until(sub { over() eq PASS }, 30), 'deadlines that pass one after the other');
row($node, $db, 'SELECT voiding.stop_workers()');
ok(poll_until(sub { row($node, $db, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'voiding worker'}) eq '0' }, 10),
  'the worker has ended and written down what it read');
cmp_ok(read_of('timer_due_at') - $before, '>=', PASS, 'it looked for them in the index');
cmp_ok(read_of('timer_due_at') - $before, '<', 3 * DEAD + 20 * PASS, 'and did not walk over the dead ones for each');

# ---- waiting until all is done ----

# the buckets are looked through in order: one of the last ones
my $key = row($node, $db, q{SELECT k FROM (SELECT 'not yet ' || i AS k FROM generate_series(1, 1000) i) x WHERE hashtext(k) & 63 = 63 LIMIT 1});
$node->safe_psql($db, qq{SELECT voiding.emit('Said', 'm' || i, '{}', 'shop') FROM generate_series(1, @{[DEAD]}) i});
drain($node, $db);
row($node, $db, qq{SELECT voiding.emit('Said', '$key', '{}', 'shop')});
drain($node, $db);
is(row($node, $db, 'SELECT attempts FROM voiding.outbox'), '1', 'one message is left, for later');
my ($idle, $read) = split /\n/, $node->safe_psql($db, q{
  SELECT idx_tup_read AS before FROM pg_stat_user_indexes WHERE indexrelname = 'outbox_pkey' \gset
  SELECT voiding.wait_until_idle('3 s');
  SELECT FROM pg_stat_force_next_flush() \g /dev/null
  SELECT idx_tup_read - :before FROM pg_stat_user_indexes WHERE indexrelname = 'outbox_pkey'});
is($idle, 'f', 'a wait for it looks now and then');
cmp_ok($read, '>=', DEAD, 'over the dead rows');
cmp_ok($read, '<', 3 * DEAD, 'but not each time');

$holder->quit;
invariants_hold($node, $db, 'at the end');
$node->stop;
done_testing();
