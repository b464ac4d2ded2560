# Hints where no worker is: clients that commit at the same time leave them to a
# sender. Whoever listens is told after the last commit; the sender stays while
# a hint may come, is in nobody's way, and ends.
# By hand: there is no worker.

use strict;
use warnings;

use Test::More;
use Voiding::Test;

my ($clients, $each) = (20, 50);
my $node = new_node('main', alone => 1, wal_level => 'replica', max_wal_senders => 5);
my $db = new_database($node, 'sender');

$node->safe_psql($db, q{CREATE TABLE item (item_id int PRIMARY KEY);
  CREATE TRIGGER listed AFTER INSERT ON item FOR EACH ROW EXECUTE FUNCTION voiding.emit_event('ItemListed')});
my $listener = $node->background_psql($db);
$listener->query_safe('LISTEN voiding_event');

sub senders
{
  my ($more) = @_;
  return row($node, 'postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'voiding sender' } . ($more // ''));
}

# ---- all at once ----

# The listener looks when it was told something, and only then. What comes with
# the answer may have come after the look.
my ($told, $seen) = (0, 0);

sub look_if_told
{
  my ($expected) = @_;

  $told ||= heard($listener->query_safe('SELECT 1'));
  return $seen == $expected unless $told;
  my $answer = $listener->query_safe(q{SELECT 'events ' || count(*) FROM voiding.event});
  $told = heard($answer);
  ($seen) = $answer =~ /^events (\d+)/m;
  return $seen == $expected;
}

my $script = $node->basedir . '/item.pgbench';
PostgreSQL::Test::Utils::append_to_file($script, "\\set i :i + 1\nINSERT INTO item VALUES (:first + :client_id * 1000 + :i);\n");
for my $round (1 .. 5)
{
  $node->command_ok([ qw(pgbench -n -M prepared -c), $clients, '-t', $each, '-D', "first=${round}00000", '-D', 'i=0', '-f', $script, $db ],
    "round $round: $clients clients commit");
  ok(poll_until(sub { look_if_told($round * $clients * $each) }, 20), 'the listener is told after the last commit')
    || diag("it has seen $seen");
}
ok(poll_until(sub { senders() eq '0' }, 20), 'the sender ends by itself');

# ---- a commit that takes long: it waits for a standby that is not there ----

sub commit_slowly
{
  my ($id) = @_;
  my $session = $node->background_psql($db);

  $session->query_safe('SET synchronous_commit = on');
  $session->query_until(qr/^begun/m, "\\echo begun\nINSERT INTO item VALUES ($id);\n");
  ok(poll_until(sub { row($node, 'postgres', qq{SELECT count(*) FROM pg_stat_activity
      WHERE state = 'active' AND query LIKE '%($id);' AND wait_event IN ('SyncRep', 'object')}) eq '1' }, 20),
    "item $id is being committed");
  return $session;
}

# whom it was told of
sub ids_told
{
  return map { /"id": "([^"]+)"/ ? $1 : () } map { $_->[1] } heard($listener->query_safe('SELECT 1'));
}

sub is_told_of
{
  my ($id) = @_;
  my $event = row($node, $db, "SELECT event_id FROM voiding.event WHERE subject = '$id'");

  return ok(poll_until(sub { grep { $_ eq $event } ids_told() }, 20), "the listener is told of item $id");
}

$ENV{PGOPTIONS} = join ' ', $ENV{PGOPTIONS} // (), '-c synchronous_commit=local';
$node->append_conf('postgresql.conf', "synchronous_standby_names = 'nobody'");
$node->reload;
my @slow = (commit_slowly(1), commit_slowly(2));    # alone; and not alone, before there is a sender
ok(poll_until(sub { senders() eq '1' }, 20), 'a sender comes');
push @slow, commit_slowly(3);                       # leaves its hint
ok(poll_until(sub { senders(q{AND clock_timestamp() - backend_start > interval '4 s'}) eq '1' || senders() eq '0' }, 20)
    && senders() eq '1', 'it stays while a hint may come');
is(senders(q{AND wait_event = 'object'}), '0', 'and sends nothing of what is not yet to be seen');    # it would wait for the first
is(row($node, $db, 'SELECT count(*) FROM voiding.worker'), '0', 'it is no worker');
$node->safe_psql($db, 'SELECT voiding.stop_workers()');
is(senders(), '1', 'stop_workers() is not about it');

$node->append_conf('postgresql.conf', "synchronous_standby_names = ''");
$node->reload;
is_told_of(3);
$_->quit for @slow, $listener;
is($node->psql('postgres', "DROP DATABASE $db"), 0, 'DROP DATABASE');
is(senders(), '0', 'the sender has gone');

$node->stop;
done_testing();
