# What happens to a server that is served: it crashes in the middle of a batch;
# it is stopped and started under load; transactions are prepared and committed later; its clock is moved with
# deadlines and retries pending; nobody reads the queue of notifications.

use strict;
use warnings;

use PostgreSQL::Test::Utils ();
use Test::More;
use Time::HiRes qw(time);
use Voiding::Load;
use Voiding::Test;

my $seed = $ENV{VOIDING_SEED} // int(rand 1_000_000);
diag("VOIDING_SEED=$seed");
my $node = new_node('main', restart_after_crash => 'on', max_worker_processes => 20, max_connections => 40, 'voiding.retry_base' => 20);
my $db = new_database($node, 'adversity');

row($node, $db, 'SELECT voiding.start_workers(2)');

sub wait_idle
{
  my ($name) = @_;
  local $Test::Builder::Level = $Test::Builder::Level + 1;
  return is(row($node, $db, "SELECT voiding.wait_until_idle('30 s')"), 't', $name)
    || diag(row($node, $db, 'SELECT type, attempts, available_at - voiding.now(), error FROM voiding.outbox LIMIT 10'));
}

# ---- a crash in the middle of a batch ----

$node->safe_psql($db, q{
  SELECT voiding.create_service('shop');
  CREATE TABLE shop.seen (key text, n integer);
  CREATE TABLE shop.open ();
  CREATE FUNCTION shop.pass(subject text, n integer) RETURNS void LANGUAGE plpgsql AS $$
  BEGIN
    WHILE n = 10 AND NOT EXISTS (SELECT FROM shop.open) LOOP
      PERFORM pg_sleep(0.01);
    END LOOP;
    INSERT INTO shop.seen VALUES (subject, n);
  END $$;
  SELECT voiding.subscribe('Pass', 'shop.pass');
  SELECT voiding.start_workers(1)});

sub at_the_gate
{
  my $pid;
  poll_until(sub { ($pid) = ($node->psql($db, q{SELECT pid FROM pg_stat_activity
      WHERE backend_type = 'voiding worker' AND wait_event = 'PgSleep'}))[1]; $pid }, 40);
  return $pid;
}

sub crash
{
  my ($pid, $name) = @_;
  my $logged = -s $node->logfile;
  my $since = sub { PostgreSQL::Test::Utils::slurp_file($node->logfile, $logged) };

  kill 'KILL', $pid;
  return ok(poll_until(sub { $since->() =~ /reinitializing.*ready to accept connections/s }, 40), $name);
}

for my $who (qw(worker backend))
{
  $node->safe_psql($db, 'TRUNCATE shop.seen, shop.open');
  row($node, $db, q{SELECT voiding.emit('Pass', 'k' || i, jsonb_build_object('n', i), 'shop') FROM generate_series(1, 20) i});
  # the worker's fault it is only once; somebody else's as often as you like
  for my $i (1 .. ($who eq 'worker' ? 1 : 4))
  {
    my $worker = at_the_gate();
    my $other = $node->background_psql($db);

    crash($who eq 'worker' ? $worker : pid_of($other), "a $who is killed while a batch runs: the server restarts");
    eval { $other->quit };
  }
  $node->safe_psql($db, 'INSERT INTO shop.open DEFAULT VALUES');
  wait_idle("a $who was killed: nothing waits");
  is(row($node, $db, 'SELECT count(*), count(DISTINCT key) FROM shop.seen'), '20|20', "a $who was killed: all are handled, once");
  is(row($node, $db, 'SELECT count(*) FROM voiding.dead_letter'), '0', "a $who was killed: none gave up");
}
row($node, $db, 'SELECT voiding.start_workers(2)');

# ---- stopped and started under load ----

my $load = start_clients(dir => "$PostgreSQL::Test::Utils::tmp_check/clients", name => 'a', clients => 3, seed => $seed,
  node => $node, db => $db);
my $answers = 0;
for my $how (qw(fast immediate fast immediate))
{
  ok(poll_until(sub { answers($load) >= $answers + 100 }, 60), 'under load');
  $node->stop($how);
  $node->start;
  $answers = answers($load);
}
ok(poll_until(sub { answers($load) >= $answers + 100 }, 60), 'they go on after the last one');
stop_clients($load, 'restarted');
finished($node, $db, 'restarted');
records_agree($node, $db, $load, 'restarted');
is(row($node, $db, 'SELECT type, aggregateid, error FROM voiding.dead_letter'), '', 'restarted: no message gave up');
invariants_hold($node, $db, 'restarted');

# ---- prepared, and committed later, which wakes nobody ----

row($node, $db, q{SELECT billing.issue_document('P' || i, 'p', 1) FROM generate_series(1, 30) i});
wait_idle('the documents are in their report');

sub prepare
{
  my ($n) = @_;
  return row($node, $db, "BEGIN; SELECT billing.void_document('P$n'); PREPARE TRANSACTION 'p$n'");
}

my $waited = 0;
for my $n (1 .. 8)
{
  my $process = prepare($n);
  my $start = time;

  is(error_of($node, $db, "COMMIT PREPARED 'p$n'"), '', "prepared void $n: committed") if $n == 1;
  row($node, $db, "COMMIT PREPARED 'p$n'") if $n > 1;
  ok(poll_until(sub { row($node, $db, "SELECT state FROM voiding.process WHERE process_id = '$process'") eq 'DocumentVoided' }, 20),
    "prepared void $n: voided");
  $waited += time - $start;
}
note(sprintf 'eight of them took %.2f s', $waited);
cmp_ok($waited, '<', 5, 'soon: not by the look that a worker takes every two seconds');

# thousands of transactions later, by workers that were there when it began, and by others
my %process = map { $_ => prepare($_) } 9 .. 13;
$node->safe_psql($db, q{
  CREATE PROCEDURE public.transactions(n integer) LANGUAGE plpgsql AS
    'BEGIN FOR i IN 1 .. n LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END';
  CALL public.transactions(3000)});
row($node, $db, q{SELECT billing.void_document('P14')});
wait_idle('others are voided meanwhile');
row($node, $db, q{ROLLBACK PREPARED 'p9'});
row($node, $db, qq{COMMIT PREPARED 'p$_'}) for 10, 11;
$node->restart;
row($node, $db, q{SELECT billing.void_document('P15')});
ok(poll_until(sub { row($node, $db, 'SELECT count(*) FROM voiding.worker') eq '2' }, 20), 'a restart: workers are there again');
row($node, $db, qq{COMMIT PREPARED 'p$_'}) for 12, 13;
ok(poll_until(sub { row($node, $db, q{SELECT string_agg(document_id, ' ' ORDER BY document_id) FROM billing.document
    WHERE document_id LIKE 'P1_' AND status = 'voided'}) eq 'P10 P11 P12 P13 P14 P15' }, 20), 'whenever it is committed, it is done');
is(row($node, $db, q{SELECT status, process_id FROM billing.document WHERE document_id = 'P9'}), 'issued|', 'what was rolled back is not');
finished($node, $db, 'prepared');

# what it brings in besides messages: a deadline, and an event that met no process
$node->safe_psql($db, q{
  SELECT voiding.create_process_type('wait', '{"key": "id", "start": {"WaitBegun": "Waiting"},
    "states": {"Waiting": {"on": {"WaitEnded": "Ended"}, "after": {"PT1H": "Over"}}, "Ended": {"type": "final"}, "Over": {"type": "final"}}}');
  SELECT voiding.create_process_type('short', '{"key": "id", "start": {"ShortBegun": "Waiting"},
    "states": {"Waiting": {"after": {"PT1S": "Over"}}, "Over": {"type": "final"}}}');
  BEGIN; SELECT voiding.emit('ShortBegun', 's1', '{"id": "s1"}', 'shop'); PREPARE TRANSACTION 'deadline';
  BEGIN; SELECT voiding.emit('WaitEnded', 'w0', '{"id": "w0"}', 'shop'); PREPARE TRANSACTION 'parked';
  SELECT voiding.emit('WaitBegun', 'w0', '{"id": "w0"}', 'shop')});
wait_idle('a process began after the event that ends it, which is not committed');
row($node, $db, q{COMMIT PREPARED 'parked'});
ok(poll_until(sub { row($node, $db, q{SELECT state FROM voiding.process WHERE key = 'w0'}) eq 'Ended' }, 10), 'committed, the event ends it');
row($node, $db, q{COMMIT PREPARED 'deadline'});
ok(poll_until(sub { row($node, $db, q{SELECT state FROM voiding.process WHERE key = 's1'}) eq 'Over' }, 10), 'a deadline that was prepared passes');

# ---- the clock is moved, with a deadline and a retry pending ----

$node->safe_psql($db, q{
  CREATE TABLE shop.closed ();
  CREATE FUNCTION shop.see(subject text, n integer) RETURNS void LANGUAGE plpgsql AS $$
  BEGIN
    IF n = 0 AND EXISTS (SELECT FROM shop.closed) THEN
      RAISE 'closed';
    END IF;
    INSERT INTO shop.seen VALUES (subject, n);
  END $$;
  SELECT voiding.subscribe('Said', 'shop.see')});

sub set_system
{
  my ($name, $value) = @_;
  $node->safe_psql('postgres', "LOAD 'voiding'; ALTER SYSTEM SET $name = $value");
  $node->reload;
  return;
}

# the clock is so many seconds ahead; whoever connects from now on knows
sub clock
{
  my ($offset) = @_;

  set_system('voiding.clock_offset', $offset);
  ok(poll_until(sub { row($node, $db, 'SHOW voiding.clock_offset') eq $offset }, 20),
    "the clock is $offset seconds ahead");
  return;
}

# Begin a wait of an hour, and a message that fails and is tried again a minute later.
sub begin
{
  my ($n) = @_;

  $node->safe_psql($db, qq{
    INSERT INTO shop.closed DEFAULT VALUES;
    SELECT voiding.emit('WaitBegun', 'w$n', '{"id": "w$n"}', 'shop');
    SELECT voiding.emit('Said', 'retry$n', '{"n": 0}', 'shop')});
  ok(poll_until(sub { row($node, $db, "SELECT attempts FROM voiding.outbox WHERE aggregateid = 'retry$n'") eq '1' }, 20), "$n: it has failed once");
  $node->safe_psql($db, 'DELETE FROM shop.closed');
  return;
}

sub still_waits
{
  my ($n, $name) = @_;
  local $Test::Builder::Level = $Test::Builder::Level + 1;
  return is(row($node, $db, qq{SELECT (SELECT state FROM voiding.process WHERE key = 'w$n'),
      (SELECT attempts FROM voiding.outbox WHERE aggregateid = 'retry$n')}), 'Waiting|1', $name);
}

sub is_over
{
  my ($n, $name) = @_;
  local $Test::Builder::Level = $Test::Builder::Level + 1;
  return ok(poll_until(sub { row($node, $db, qq{SELECT (SELECT state FROM voiding.process WHERE key = 'w$n'),
      (SELECT count(*) FROM shop.seen WHERE key = 'retry$n')}) eq 'Over|1' }, 20), $name);
}

# what is new is handled at once, whatever the clock says
my $new = 0;
sub new_is_handled
{
  my ($name) = @_;
  local $Test::Builder::Level = $Test::Builder::Level + 1;

  $new++;
  row($node, $db, qq{SELECT voiding.emit('Said', 'new$new', '{"n": 1}', 'shop')});
  row($node, $db, qq{SELECT billing.issue_document('C$new', 'c', 1), billing.void_document('C$new')});
  return ok(poll_until(sub { row($node, $db, qq{SELECT (SELECT count(*) FROM shop.seen WHERE key = 'new$new'),
      (SELECT status FROM billing.document WHERE document_id = 'C$new')}) eq '1|voided' }, 20), $name);
}

set_system('voiding.retry_base', 60_000);
begin(1);
clock(-7200);
new_is_handled('two hours back: what is new is handled');
still_waits(1, 'two hours back: what waits waits on');
begin(2);
clock(-3600 + 300);
new_is_handled('an hour on: what is new is handled');
is_over(2, 'an hour on: what began then is over');
still_waits(1, 'an hour on: what began before is not');
clock(7200);
is_over(1, 'in two hours: it is');
begin(3);

# written while the clock was ahead, handled when it is right again
my $line = $node->background_psql($db);
$line->query_safe('BEGIN; LOCK TABLE shop.seen, reports.report_line');
row($node, $db, q{SELECT voiding.emit('Said', 'ahead', '{"n": 1}', 'shop')});
row($node, $db, q{SELECT billing.void_document('P16')});
clock(0);
new_is_handled('back again: what is new is handled') if $line->quit || 1;
ok(poll_until(sub { row($node, $db, q{SELECT (SELECT count(*) FROM shop.seen WHERE key = 'ahead'),
    (SELECT status FROM billing.document WHERE document_id = 'P16')}) eq '1|voided' }, 10), 'back again: what was written in the future too');
still_waits(3, 'back again: a deadline and a retry of the future wait');
clock(14_400);
is_over(3, 'in four hours: they are over');
clock(0);
set_system('voiding.retry_base', 20);
finished($node, $db, 'the clock has been moved');
is(row($node, $db, 'SELECT type, aggregateid, error FROM voiding.dead_letter'), '', 'no message gave up');

# ---- nobody reads the queue of notifications ----

# 17 can be told to have a small one. Before, it has 8 GB: then only that it
# grows behind a listener that does not read, while everything goes on.
my $small = $node->pg_version >= 17;
if ($small)
{
  $node->append_conf('postgresql.conf', 'max_notify_queue_pages = 64');
  $node->restart;
  row($node, $db, q{SELECT voiding.emit('Said', 'back', '{"n": 1}', 'shop')});
}
my $deaf = $node->background_psql($db);
$deaf->query_safe('LISTEN voiding_process');
$deaf->query_safe('BEGIN');
my $error = '';
for (1 .. ($small ? 1000 : 1))
{
  last if $error ne '';
  $error = error_of($node, $db, q{SELECT pg_notify('elsewhere', repeat('x', 7900) || i) FROM generate_series(1, 20) i});
}
like($error, $small ? qr/too many notifications/ : qr/^$/, 'the queue of notifications is full, or at least long');
my $usage = row($node, $db, 'SELECT pg_notification_queue_usage()');
my $logged = -s $node->logfile;
row($node, $db, q{SELECT billing.issue_document('Q' || i, 'q' || i % 5, 1) FROM generate_series(1, 300) i});
row($node, $db, q{SELECT billing.void_document('Q' || i) FROM generate_series(1, 300) i});
wait_idle('all is handled');
is(row($node, $db, q{SELECT count(*) FROM billing.document WHERE document_id LIKE 'Q%' AND status = 'voided'}), '300', 'and voided');
cmp_ok($usage, '>', 0, 'nobody reads what is said');
cmp_ok(row($node, $db, 'SELECT pg_notification_queue_usage()'), '>=', $usage, 'and nobody has');
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile, $logged), qr/ERROR|too many notifications/, 'no worker meets an error');
$deaf->query_safe('COMMIT');
my $process = row($node, $db, q{SELECT billing.issue_document('Q', 'q', 1); SELECT billing.void_document('Q')});
$process =~ s/.*\n//s;
my $heard = '';
ok(poll_until(sub { $heard .= "\n" . $deaf->query_safe('SELECT 1'); $heard =~ /DocumentVoided.*$process/ }, 20), 'who listens again hears again');
$deaf->quit;

invariants_hold($node, $db, 'in the end');
$node->stop;
done_testing();
