# Background workers: nobody calls dispatch(), and things go on: messages,
# deadlines, retries, hints. Waiting for it, starting and stopping it, what
# it shows of itself; with the library preloaded and without.

use strict;
use warnings;

use JSON::PP;
use Test::More;
use Voiding::Test;

my $node = new_node('main', max_worker_processes => 20, 'voiding.retry_base' => 10);
my $db = new_database($node, 'worker');

sub state_when_settled
{
  my ($process) = @_;
  return row($node, $db, "SELECT state FROM voiding.wait_for_process('$process', '30 s')");
}

sub wait_idle
{
  my ($name) = @_;
  local $Test::Builder::Level = $Test::Builder::Level + 1;
  return is(row($node, $db, "SELECT voiding.wait_until_idle('30 s')"), 't', $name);
}

sub void
{
  my ($document) = @_;
  return row($node, $db, "SELECT billing.void_document('$document', 'typo')");
}

sub issue
{
  my ($document, $customer) = @_;
  row($node, $db, "SELECT billing.issue_document('$document', '$customer', 10)");
  return;
}

sub voided_as_before
{
  my ($n, $name) = @_;
  local $Test::Builder::Level = $Test::Builder::Level + 1;
  issue("X$n", 'x');
  return is(state_when_settled(void("X$n")), 'DocumentVoided', $name);
}

sub workers_are
{
  my ($n, $name) = @_;
  local $Test::Builder::Level = $Test::Builder::Level + 1;
  return is(row($node, $db, 'SELECT count(DISTINCT pid), count(started_at) FROM voiding.worker'), "$n|$n", $name);
}

# every bucket belongs to a worker, or none does
sub buckets_owned
{
  my ($n, $name) = @_;
  local $Test::Builder::Level = $Test::Builder::Level + 1;
  return ok(poll_until(sub {
        row($node, $db, q{SELECT count(*) FROM pg_locks WHERE locktype = 'object' AND classid = 'voiding.outbox'::regclass
          AND mode = 'ExclusiveLock' AND granted}) eq $n }, 5), $name);
}

# keep somebody from a row until the session ends
sub hold
{
  my ($sql) = @_;
  my $holder = $node->background_psql($db);

  $holder->query_safe("BEGIN; $sql");
  return $holder;
}

sub set_system
{
  my ($name, $value) = @_;
  $node->safe_psql('postgres', "LOAD 'voiding'; ALTER SYSTEM SET $name = $value");
  $node->reload;
  return;
}

# ---- one, two and four ----

for my $n (1, 2, 4)
{
  is(row($node, $db, "SELECT voiding.start_workers($n)"), $n, "start_workers($n)");
  workers_are($n, "$n show themselves");
  buckets_owned(64, "$n own all buckets");
  issue("A$n", "c$n");
  my $process = void("A$n");
  is(state_when_settled($process), 'DocumentVoided', "$n: voided");
  is(row($node, $db, "SELECT status FROM billing.document WHERE document_id = 'A$n'"), 'voided', "$n: and Billing says so");
  issue("B$n", "c$n");
  wait_idle("$n: idle");
  is(row($node, $db, "SELECT total FROM reports.publish_report('c$n')"), '10', "$n: published");
  is(state_when_settled(void("B$n")), 'MarkingDocumentAsVoidedFailed', "$n: too late to void");
  $node->safe_psql($db, qq{SELECT billing.issue_document('$n/' || i, 'm' || i % 7, i) FROM generate_series(1, 200) i});
  $node->safe_psql($db, qq{SELECT billing.void_document('$n/' || i, 'all') FROM generate_series(1, 200) i});
  wait_idle("$n: idle again");
  is(row($node, $db, qq{SELECT count(*) FROM billing.document WHERE document_id LIKE '$n/%' AND status = 'voided'}), '200',
    "$n: 200 at once");
  invariants_hold($node, $db, "$n workers");
}
is(row($node, $db, 'SELECT voiding.start_workers(4)'), 4, 'start_workers() again');
my $pids = row($node, $db, 'SELECT pid FROM voiding.worker ORDER BY 1');
row($node, $db, 'SELECT voiding.start_workers(4)');
is(row($node, $db, 'SELECT pid FROM voiding.worker ORDER BY 1'), $pids, 'as many as there are: they stay');
like(error_of($node, $db, 'SELECT voiding.start_workers(0)'), qr/^22023/, 'none cannot be started');
like(error_of($node, $db, 'SELECT voiding.start_workers(9)'), qr/^22023/, 'nor nine');

# ---- waiting ----

issue('W', 'w');
wait_idle('W is in its report');
my $holder = hold("SELECT FROM reports.report_line WHERE document_id = 'W' FOR UPDATE");
my $process = void('W');
like(error_of($node, $db, "SELECT voiding.wait_for_process('$process', '50 ms')"), qr/^57014/, 'not in time: 57014');
like(error_of($node, $db, "CALL voiding.await('$process', '50 ms')"), qr/^57014/, 'await() too');
like(error_of($node, $db, "BEGIN; SELECT billing.issue_document('no', 'w', 1); SELECT voiding.wait_for_process('$process', '9 s')"),
  qr/^VD25A/, 'no wait in a transaction that has written');
like(error_of($node, $db, "SELECT voiding.wait_for_process(gen_random_uuid(), '9 s')"), qr/^VD04B/, 'no such process');
like(error_of($node, $db, "CALL voiding.await(gen_random_uuid(), '9 s')"), qr/^VD04B/, 'await() too');
like(error_of($node, $db, "BEGIN; CALL voiding.await('$process', '9 s')"), qr/^2D000/, 'no await() in a transaction block');

my %waiter = map { $_ => $node->background_psql($db) } qw(await wait);
my %pid = map { $_ => pid_of($waiter{$_}) } keys %waiter;
$waiter{await}->{stdin} .= "CALL voiding.await('$process', '60 s');\n";
$waiter{wait}->{stdin} .= "SELECT state FROM voiding.wait_for_process('$process', '60 s');\n";
for my $how (qw(await wait))
{
  my $xmin = $how eq 'await' ? 'IS NULL' : 'IS NOT NULL';
  $waiter{$how}->{run}->pump_nb;
  ok(poll_until(sub {
        $waiter{$how}->{run}->pump_nb;
        row($node, $db, qq{SELECT count(*) FROM pg_stat_activity WHERE pid = $pid{$how} AND wait_event_type = 'Extension'
          AND backend_xid IS NULL AND backend_xmin $xmin}) eq '1';
      }, 20), "a sleeping $how() " . ($how eq 'await' ? 'holds no snapshot' : 'does'));
}
$holder->quit;
like($waiter{wait}->query_safe('SELECT 1'), qr/DocumentVoided/, 'who waits is told');
is($waiter{await}->query_safe('SELECT 1'), '1', 'await() returns');
$_->quit for values %waiter;
is(state_when_settled($process), 'DocumentVoided', 'the result came before the wait');
is(error_of($node, $db, "CALL voiding.await('$process', '0 s')"), '', 'and before await()');

# ---- order, also past retries; keys in parallel ----

$node->safe_psql($db, q{
  SELECT voiding.create_service('shop');
  CREATE SEQUENCE shop.failures;
  CREATE TABLE shop.seen (id bigint GENERATED ALWAYS AS IDENTITY, key text, n integer, pid integer);
  CREATE FUNCTION shop.see(subject text, n integer) RETURNS void LANGUAGE plpgsql AS $$
  BEGIN
    IF n % 100 = 7 AND nextval('shop.failures') % 3 > 0 THEN
      RAISE 'not yet';
    END IF;
    INSERT INTO shop.seen (key, n, pid) VALUES (subject, n, pg_backend_pid());
  END $$;
  SELECT voiding.subscribe('Said', 'shop.see')});
my @speakers = map { $node->background_psql($db) } 1 .. 4;
for my $i (0 .. 3)
{
  $speakers[$i]->{stdin} .= qq{SELECT voiding.emit('Said', 's$i/' || k, jsonb_build_object('n', $_ * 10 + k), 'shop') FROM generate_series(0, 9) k;\n}
    for 1 .. 50;
  $speakers[$i]->{run}->pump_nb;
}
$_->query_safe('SELECT 1'), $_->quit for @speakers;
ok(poll_until(sub { row($node, $db, 'SELECT count(*) FROM shop.seen') eq '2000' }, 30), '2,000 messages for 40 keys')
  or diag(row($node, $db, 'SELECT type, attempts, error, count(*) FROM voiding.outbox GROUP BY 1, 2, 3'));
is(row($node, $db, q{SELECT count(*) FROM (SELECT n, lag(n) OVER (PARTITION BY key ORDER BY id) before FROM shop.seen) x WHERE n <= before}),
  '0', 'each key in order');
is(row($node, $db, 'SELECT count(DISTINCT pid) FROM shop.seen'), '4', 'by four workers');
cmp_ok(row($node, $db, 'SELECT last_value FROM shop.failures'), '>', 20, 'and some failed before');
is(row($node, $db, 'SELECT count(*) FROM voiding.dead_letter'), '0', 'none for good');

# ---- deadlines ----

for my $how (qw(moved clock))
{
  issue("T$how", 't');
  wait_idle("T$how is in its report");
  $holder = hold("SELECT FROM reports.report_line WHERE document_id = 'T$how' FOR UPDATE");
  $process = void("T$how");
  is(row($node, $db, "SELECT name FROM voiding.timer WHERE process_id = '$process'"), 'PT1H', 'a deadline runs');
  if ($how eq 'moved')
  {
    row($node, $db, "SELECT voiding.move_timer('$process', 'PT1H', voiding.now() + '20 ms')");
  }
  else
  {
    set_system('voiding.clock_offset', 7200);
  }
  is(error_of($node, $db, "SELECT voiding.wait_for_process('$process', '10 s')"), '', "$how: the deadline passes");
  is(row($node, $db, "SELECT state, data ->> 'failure' FROM voiding.process WHERE process_id = '$process'"),
    'MarkingDocumentAsVoidedFailed|Reports did not answer in an hour', "$how: it has failed");
  $holder->quit;
  wait_idle("$how: what was held comes to its end");
  is(row($node, $db, "SELECT d.status, l.status FROM billing.document d JOIN reports.report_line l USING (document_id) WHERE document_id = 'T$how'"),
    'issued|included', "$how: and the document is what it was");
}
set_system('voiding.clock_offset', 0);

# an event that nobody has been ready for, in time; nothing else is due, and nothing prepared
$node->safe_psql($db, q{
  SELECT voiding.create_process_type('patient', '{"key": "id", "start": {"Begun": "Waiting"}, "events": {"Continued": {"for": "PT1S"}},
    "states": {"Waiting": {"forever": true, "on": {"Continued": "Ended"}}, "Ended": {"type": "final"}}}')});
wait_idle('a new process type is known');
row($node, $db, q{SELECT voiding.emit('Continued', 'x', '{"id": "x"}', 'shop')});
is(row($node, $db, 'SELECT key FROM voiding.parked_event'), 'x', 'an event is parked');
ok(poll_until(sub { row($node, $db, q{SELECT sqlstate FROM voiding.dead_letter WHERE type = 'Continued'}) eq 'VD04B' }, 10),
  'and a dead letter when its time is over');
row($node, $db, q{SELECT voiding.discard_message(id, 'tested') FROM voiding.dead_letter});

# a deadline that cannot pass now, since somebody has the process locked
$node->safe_psql($db, 'SELECT voiding.start_workers(1)');
issue('L', 'l');
wait_idle('L is in its report');
my $line = hold("SELECT FROM reports.report_line WHERE document_id = 'L' FOR UPDATE");
$process = void('L');
$holder = hold("SELECT FROM voiding.active_process WHERE process_id = '$process' FOR UPDATE");
set_system('voiding.clock_offset', 7200);
row($node, $db, q{SELECT voiding.emit('Said', 'beside', '{"n": 1}', 'shop')});
ok(poll_until(sub { row($node, $db, q{SELECT count(*) FROM shop.seen WHERE key = 'beside'}) eq '1' }, 10),
  'a deadline of a process that is locked keeps nobody else waiting');
$_->quit for $holder, $line;
buckets_owned(64, 'a worker that met an error owns its buckets again');
ok(poll_until(sub { row($node, $db, "SELECT count(*) FROM voiding.ongoing_process WHERE process_id = '$process' AND NOT failed") eq '0' }, 10),
  'and it is settled afterwards');
set_system('voiding.clock_offset', 0);

# ---- hints come from a worker ----

$node->safe_psql($db, 'SELECT voiding.start_workers(2)');
issue('N', 'n');
wait_idle('N is in its report');
my $listener = $node->background_psql($db);
$listener->query_safe("LISTEN $_") for qw(voiding_process voiding_billing);
$process = void('N');
state_when_settled($process);
my $said = '';
my @states = qw(VoidingRequested MarkingDocumentAsVoidedSucceeded DocumentVoided);
sub told
{
  $said .= "\n" . $listener->query_safe('SELECT 1');
  return { map { ("$_->[0] $_->[1]{type} $_->[1]{id}" => 1) }
    map { [ $_->[0], decode_json($_->[1]) ] } heard($said) };
}
ok(poll_until(sub { my $told = told(); !grep { !$told->{"voiding_process $_ $process"} } @states }, 10),
  'voiding_process says each state that it came into') or diag($said);
my %senders = map { $_ => 1 } $said =~ /received from server process with PID (\d+)/g;
my %workers = map { $_ => 1 } split /\n/, row($node, $db, 'SELECT pid FROM voiding.worker');
is(join(' ', grep { !$workers{$_} } keys %senders), '', 'and a worker said it');
$listener->quit;

# ---- by hand beside them ----

issue('H', 'h');
is(row($node, $db, 'SELECT voiding.dispatch()'), '0', 'dispatch() leaves it to the workers');
$process = void('H');
is(row($node, $db, 'SELECT voiding.dispatch()'), '0', 'again');
is(state_when_settled($process), 'DocumentVoided', 'who do it');

# ---- figures ----

sub stat_of
{
  my ($name, $labels) = @_;
  return row($node, $db, qq{SELECT sum(value) FROM voiding.stats WHERE name = '$name' AND labels @> '} . ($labels // '{}') . q{'});
}
my $shop = '{"service": "shop"}';
my %before = map { $_ => stat_of($_, $shop) } qw(handled failed retried dead);
set_system('voiding.retry_limit', 3);
$node->safe_psql($db, q{
  CREATE FUNCTION shop.refuse() RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'never'; END $$;
  CREATE FUNCTION shop.wait() RETURNS void LANGUAGE plpgsql AS $$
  BEGIN PERFORM voiding.wait_until_idle('9 s'); END $$;
  SELECT voiding.subscribe('Asked', 'shop.refuse');
  SELECT voiding.subscribe('Waited', 'shop.wait')});
row($node, $db, q{SELECT voiding.emit('Said', 'f' || i, '{"n": 1}', 'shop') FROM generate_series(1, 5) i});
row($node, $db, q{SELECT voiding.emit('Asked', 'f', '{}', 'shop')});
ok(poll_until(sub { row($node, $db, q{SELECT attempts FROM voiding.dead_letter WHERE type = 'Asked'}) eq '3' }, 10),
  'what fails is tried again, and given up in the end');
wait_idle('the rest is done');
is(join(' ', map { stat_of($_, $shop) - $before{$_} } qw(handled failed retried dead)), '5 3 2 1',
  'handled, failed, retried, dead');
is(stat_of('dead_letters'), '1', 'dead_letters');
is(stat_of('workers'), '2', 'workers');
my $restarts = stat_of('worker_restarts');
row($node, $db, 'SELECT pg_terminate_backend(pid) FROM voiding.worker WHERE worker = 1');
ok(poll_until(sub { stat_of('worker_restarts') > $restarts && stat_of('workers') == 2 }, 10), 'worker_restarts');
row($node, $db, q{SELECT voiding.emit('Waited', 'w', '{}', 'shop')});
ok(poll_until(sub { row($node, $db, q{SELECT sqlstate FROM voiding.dead_letter WHERE type = 'Waited'}) eq 'VD25A' }, 10),
  'no handler can wait');
set_system('voiding.retry_limit', 8);

# ---- an error of the engine's own: it is met once a second, not in a circle, and then all goes on ----

my $logged = -s $node->logfile;
sub times_of_errors
{
  return map { my ($h, $m, $s) = /^\S+ (\d+):(\d+):([\d.]+) .*ERROR: .*free_timers/ ? ($1, $2, $3) : (); defined $h ? ($h * 60 + $m) * 60 + $s : () }
    split /\n/, PostgreSQL::Test::Utils::slurp_file($node->logfile, $logged);
}
$node->safe_psql($db, q{
  SELECT voiding.stop_workers();
  ALTER FUNCTION voiding.free_timers(integer, timestamptz) RENAME TO nothing});
$node->safe_psql($db, 'SELECT voiding.start_workers(1)');
ok(poll_until(sub { my @n = times_of_errors(); @n >= 3 }, 30), 'a worker meets it again');
my @met = times_of_errors();
is_deeply([grep { my $d = $met[$_] - $met[$_ - 1]; $d >= 0 && $d < 0.9 } 1 .. $#met], [], 'with a pause each time');
$node->safe_psql($db, 'ALTER FUNCTION voiding.nothing(integer, timestamptz) RENAME TO free_timers');
row($node, $db, "SELECT billing.issue_document('mended', 'm', 1)");
is(state_when_settled(void('mended')), 'DocumentVoided', 'mended: all goes on');

# ---- stopped ----

row($node, $db, 'SELECT voiding.stop_workers()');
workers_are(0, 'stop_workers()');
buckets_owned(0, 'no bucket is owned any more');
is(row($node, $db, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'voiding %'}), '0', 'nor is a launcher left');
row($node, $db, q{SELECT voiding.emit('Said', 'p' || i, '{"n": 1}', 'shop') FROM generate_series(1, 4) i});
is(stat_of('pending', $shop), '4', 'pending');
ok(poll_until(sub { stat_of('oldest_pending_seconds', $shop) > 0.02 }, 10), 'oldest_pending_seconds');
issue('P', 'p');
drain($node, $db);
is(stat_of('pending'), '0', 'by hand instead');
$process = void('P');
is(stat_of('processes', '{"state": "VoidingRequested"}'), '1', 'processes');
row($node, $db, "SELECT voiding.move_timer('$process', 'PT1H', voiding.now() - '1 min'::interval)");
cmp_ok(stat_of('timer_lag_seconds'), '>', 59, 'timer_lag_seconds');
drain($node, $db);
cmp_ok(stat_of('timer_lag_seconds'), '==', 0, 'none afterwards');

# ---- nobody serves: a WARNING, once a session ----

sub warnings_of
{
  my ($sql) = @_;
  my (undef, undef, $stderr) = $node->psql($db, $sql);
  my @warnings = $stderr =~ /WARNING:  (no worker serves this database.*)/g;
  return scalar @warnings;
}
my $two = q{SELECT voiding.emit('Said', 'v', '{"n": 1}', 'shop'); SELECT voiding.emit('Said', 'v', '{"n": 2}', 'shop');};
is(warnings_of("SET voiding.workers = 1; $two"), 1, 'no worker: a session is warned once');
is(warnings_of($two), 0, 'voiding.workers = 0: not at all');
row($node, $db, 'SELECT voiding.start_workers(1)');
is(warnings_of("SET voiding.workers = 1; $two"), 0, 'nor when one serves');

# ---- what start_workers() began comes back with the first message ----

row($node, $db, 'SELECT voiding.start_workers(2)');
$node->restart;
is(row($node, $db, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'voiding worker'}), '0', 'a restart: no worker');
is(warnings_of('SELECT 1'), 0, 'to look does not bring them back');
voided_as_before(1, 'the first void does');
ok(poll_until(sub { row($node, $db, 'SELECT count(*) FROM voiding.worker') eq '2' }, 10), 'all of them');
row($node, $db, 'SELECT voiding.stop_workers()');
$node->restart;
issue('Y', 'y');
void('Y');
ok(!poll_until(sub { row($node, $db, 'SELECT count(*) FROM voiding.worker') ne '0' }, 1), 'not those that were stopped');
drain($node, $db);
invariants_hold($node, $db, 'at the end');
$node->stop;

# ---- preloaded ----

$node = new_node('preloaded', max_worker_processes => 20, shared_preload_libraries => "'voiding'",
  'voiding.databases' => "'early, late'", 'voiding.workers' => 2);
$node->safe_psql('postgres', 'CREATE DATABASE late TEMPLATE template0');
$db = new_database($node, 'early');
ok(poll_until(sub { row($node, $db, 'SELECT count(*) FROM voiding.worker') eq '2' }, 20), 'preloaded: served once the extension is there');
voided_as_before(1, 'preloaded: voided');
$node->restart;
ok(poll_until(sub { row($node, 'postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'voiding worker' AND datname = 'early'}) eq '2' }, 10),
  'preloaded: served from the start');
voided_as_before(2, 'preloaded: voided after a restart');
is(row($node, $db, 'SELECT voiding.start_workers(4)'), '4', 'preloaded: more of them');
workers_are(4, 'and no other set');
row($node, $db, 'SELECT voiding.stop_workers()');
workers_are(0, 'preloaded: stopped');
is(row($node, $db, 'SELECT voiding.start_workers(2)'), '2', 'and started again');
workers_are(2, 'as many as asked for');
voided_as_before(3, 'preloaded: voided again');
invariants_hold($node, $db, 'preloaded');

# start_workers() before the launcher has found the extension: not two sets
$db = 'late';
$node->safe_psql($db, 'CREATE EXTENSION voiding');
is(row($node, $db, 'SELECT voiding.start_workers()'), '2', 'preloaded: asked for before they come');
ok(!poll_until(sub {
      row($node, $db, q{SELECT count(*) > 2 FROM pg_stat_activity WHERE backend_type = 'voiding worker' AND datname = 'late' AND wait_event IS NOT NULL}) eq 't'
    }, 4), 'preloaded: two, not four');
voided_as_before(1, 'preloaded: and they serve');
$node->stop;
done_testing();
