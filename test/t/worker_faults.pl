# Workers that are ended, killed or stuck, with and without the whole server,
# under load: all that was accepted is finished, nothing is done twice. And
# what is in nobody's way: DROP EXTENSION, DROP DATABASE, a poison message.

use strict;
use warnings;

use IPC::Run;
use Test::More;
use Voiding::Test;

my $node = new_node('main', restart_after_crash => 'on', max_worker_processes => 20, max_connections => 40,
  'voiding.retry_base' => 20);
my $db = new_database($node, 'faults');

sub set_system
{
  my (%settings) = @_;
  $node->safe_psql('postgres', "LOAD 'voiding'; ALTER SYSTEM SET $_ = $settings{$_}") for keys %settings;
  $node->reload;
  return;
}

# while the server may be down: what it says, or ''
sub ask
{
  my ($sql, $where) = @_;
  my ($status, $stdout) = $node->psql($where // $db, $sql);
  return $status == 0 ? $stdout : '';
}

# ---- load: clients that issue and void, one that publishes, until told to stop ----

$node->safe_psql($db, q{
  CREATE TABLE public.stop ();
  CREATE TABLE public.accepted (document_id text PRIMARY KEY, voided boolean);
  CREATE PROCEDURE public.issue_and_void(who text) LANGUAGE plpgsql AS $$
  BEGIN
    FOR i IN 1 .. 100000 LOOP
      EXIT WHEN EXISTS (SELECT FROM public.stop);
      PERFORM billing.issue_document(who || '/' || i, 'c' || i % 11, i);
      INSERT INTO public.accepted VALUES (who || '/' || i, false);
      COMMIT;
      BEGIN
        IF i > 5 AND i % 3 > 0 THEN
          PERFORM billing.void_document(who || '/' || i - i % 5, 'load');
          UPDATE public.accepted SET voided = true WHERE document_id = who || '/' || i - i % 5;
        END IF;
      EXCEPTION WHEN SQLSTATE 'VD09B' THEN
        NULL;                    -- it has failed before
      END;
      COMMIT;
      PERFORM pg_sleep(0.002);   -- and notices that the postmaster has gone
    END LOOP;
  END $$;
  CREATE PROCEDURE public.publish() LANGUAGE plpgsql AS $$
  BEGIN
    FOR i IN 1 .. 100000 LOOP
      EXIT WHEN EXISTS (SELECT FROM public.stop);
      BEGIN
        PERFORM reports.publish_report('c' || i % 11);
      EXCEPTION WHEN SQLSTATE 'VD04C' THEN NULL;
      END;
      COMMIT;
      PERFORM pg_sleep(0.02);
    END LOOP;
  END $$});

my $runs = 0;
sub start_load
{
  $runs++;
  $node->safe_psql($db, 'DELETE FROM public.stop');
  return map {
    my $call = $_ == 3 ? 'public.publish()' : "public.issue_and_void('r$runs.$_')";
    my ($in, $out, $err) = ('', '', '');
    IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr($db), '-c', "CALL $call" ], '<', \$in, '>', \$out, '2>', \$err)
  } 1 .. 3;
}

sub under_way
{
  my ($more) = @_;
  my $from = row($node, $db, q{SELECT count(*) FROM voiding.finished_process});
  return poll_until(sub { (ask('SELECT count(*) FROM voiding.finished_process') || 0) >= $from + $more }, 20);
}

sub stop_load
{
  my (@load) = @_;
  $node->safe_psql($db, 'INSERT INTO public.stop DEFAULT VALUES');
  $_->finish for @load;
  return;
}

sub finished_and_right
{
  my ($name) = @_;
  local $Test::Builder::Level = $Test::Builder::Level + 1;

  ok(poll_until(sub { row($node, $db, q{SELECT (SELECT count(*) FROM voiding.outbox) = 0
        AND NOT EXISTS (SELECT FROM voiding.ongoing_process WHERE NOT failed)}) eq 't' }, 30), "$name: everything is finished")
    or diag(row($node, $db, 'SELECT destination, type, attempts, error, count(*) FROM voiding.outbox GROUP BY 1, 2, 3, 4')
      . "\n" . row($node, $db, 'SELECT state, count(*) FROM voiding.ongoing_process GROUP BY 1'));
  is(row($node, $db, q{SELECT type, error, count(*) FROM voiding.dead_letter GROUP BY 1, 2}), '', "$name: no message gave up");
  is(row($node, $db, q{SELECT type, subject FROM voiding.event WHERE type IN ('DocumentIssued', 'DocumentVoidingRequested', 'DocumentVoided',
      'MarkingDocumentAsVoidedSucceeded', 'MarkingDocumentAsVoidedFailed') GROUP BY 1, 2 HAVING count(*) > 1 LIMIT 5}),
    '', "$name: nothing was said twice");
  is(row($node, $db, q{SELECT count(*) FROM public.accepted a FULL JOIN billing.document d USING (document_id)
      WHERE a.document_id IS NULL OR d.document_id IS NULL
         OR (a.voided AND d.status <> 'voided' AND NOT EXISTS (SELECT FROM voiding.process p WHERE p.process_id = d.process_id AND p.failed))
         OR (NOT a.voided AND d.process_id IS NOT NULL)}), '0', "$name: what the clients know is true");
  is(row($node, $db, q{SELECT count(*) FROM billing.document d FULL JOIN reports.report_line l USING (document_id)
      WHERE (d.status = 'voided') IS DISTINCT FROM (l.status = 'voided') OR d.amount IS DISTINCT FROM l.amount}), '0',
    "$name: Reports agrees with Billing");
  invariants_hold($node, $db, $name);
  # what follows stands for itself
  row($node, $db, q{SELECT voiding.retry_message(id, 'tested') FROM (SELECT DISTINCT id FROM voiding.dead_letter) d});
  return;
}

sub a_worker
{
  return row($node, $db, 'SELECT pid FROM voiding.worker ORDER BY random() LIMIT 1');
}

$node->safe_psql($db, 'SELECT voiding.start_workers(2)');

# ---- a worker is ended ----

my @load = start_load();
for (1 .. 3)
{
  ok(under_way(30), 'under load');
  my $pid = a_worker();
  row($node, $db, "SELECT pg_terminate_backend($pid)");
  ok(poll_until(sub { row($node, $db, "SELECT count(*), count(*) FILTER (WHERE pid = $pid) FROM voiding.worker") eq '2|0' }, 20),
    'a worker that was ended is replaced');
}
stop_load(@load);
finished_and_right('terminated');

# ---- a worker is killed, and the server restarts ----

for (1, 2)
{
  @load = start_load();
  ok(under_way(30), 'under load');
  my $logged = -s $node->logfile;
  kill 'KILL', a_worker();
  $_->finish for @load;
  $node->wait_for_log(qr/database system is ready to accept connections/, $logged);
  ok(poll_until(sub { ask('SELECT count(*) FROM voiding.worker') eq '2' }, 20), 'a worker is killed: they come back with the server');
}
finished_and_right('worker killed');

# ---- so is the postmaster ----

@load = start_load();
ok(under_way(30), 'under load');
my @pids = split /\n/, row($node, $db, 'SELECT pid FROM voiding.worker');
$node->kill9;
$_->finish for @load;
ok(poll_until(sub { !grep { kill 0, $_ } @pids }, 20), 'the postmaster is killed: the workers go');
$node->start;
row($node, $db, q{SELECT billing.issue_document('first', 'c1', 1)});
row($node, $db, q{INSERT INTO public.accepted VALUES ('first', false)});
finished_and_right('postmaster killed');
is(row($node, $db, 'SELECT count(*) FROM voiding.worker'), '2', 'the first message has brought the workers back');

# ---- handlers that end their worker, or do not end ----

$node->safe_psql($db, q{
  SELECT voiding.create_service('shop');
  CREATE TABLE shop.seen (id bigint GENERATED ALWAYS AS IDENTITY, key text, n integer);
  CREATE TABLE shop.poison (n integer);
  CREATE FUNCTION shop.see(subject text, n integer) RETURNS void LANGUAGE plpgsql AS $$
  BEGIN
    IF EXISTS (SELECT FROM shop.poison p WHERE p.n = see.n) THEN
      RAISE 'poison';
    END IF;
    INSERT INTO shop.seen (key, n) VALUES (subject, n);
  END $$;
  CREATE FUNCTION shop.die() RETURNS void LANGUAGE plpgsql AS $$
  BEGIN
    PERFORM pg_terminate_backend(pg_backend_pid());
    PERFORM pg_sleep(10);
  END $$;
  CREATE FUNCTION shop.loop() RETURNS void LANGUAGE plpgsql AS $$
  BEGIN
    LOOP
      PERFORM 1;
    END LOOP;
  END $$;
  CREATE FUNCTION shop.loop_on() RETURNS void LANGUAGE plpgsql AS $$
  BEGIN
    LOOP
      BEGIN
        PERFORM pg_sleep(10);
      EXCEPTION WHEN query_canceled THEN
        NULL;
      END;
    END LOOP;
  END $$;
  SELECT voiding.subscribe('Said', 'shop.see');
  SELECT voiding.subscribe('Die', 'shop.die');
  SELECT voiding.subscribe('Loop', 'shop.loop');
  SELECT voiding.subscribe('LoopOn', 'shop.loop_on')});
$node->safe_psql($db, 'SELECT voiding.start_workers(1)');
set_system('voiding.handler_timeout' => 150, 'voiding.retry_limit' => 3);

sub say_around
{
  my ($type, $n) = @_;
  $node->safe_psql($db, qq{
    SELECT voiding.emit('Said', 'k' || i, jsonb_build_object('n', i), 'shop') FROM generate_series(1, $n) i;
    SELECT voiding.emit('$type', 'bad', '{}', 'shop');
    SELECT voiding.emit('Said', 'k' || i, jsonb_build_object('n', i), 'shop') FROM generate_series(1, $n) i});
  return;
}

for my $bad ([ Die => '57P02' ], [ Loop => '57014' ], [ LoopOn => '57P02' ])
{
  my ($type, $sqlstate) = @$bad;

  # a launcher that has not seen the last one
  row($node, $db, 'SELECT voiding.stop_workers()');
  row($node, $db, 'SELECT voiding.start_workers(1)');
  $node->safe_psql($db, 'TRUNCATE shop.seen');
  say_around($type, 50);
  ok(poll_until(sub { row($node, $db, qq{SELECT sqlstate, attempts FROM voiding.dead_letter WHERE type = '$type'}) eq "$sqlstate|3" }, 20),
    "$type: it gives up after three attempts")
    or diag(row($node, $db, 'SELECT type, sqlstate, attempts, error, count(*) FROM voiding.dead_letter GROUP BY 1, 2, 3, 4'));
  ok(poll_until(sub { row($node, $db, 'SELECT count(*) FROM voiding.outbox') eq '0' }, 20), "$type: nothing waits");
  is(row($node, $db, 'SELECT count(*), count(DISTINCT key) FROM shop.seen'), '100|50', "$type: all the others were handled, once");
  is(row($node, $db, "SELECT count(*) FROM voiding.dead_letter WHERE type <> '$type'"), '0', "$type: and none of them gave up");
  row($node, $db, q{SELECT voiding.discard_message(id, 'tested') FROM voiding.dead_letter});
}
set_system('voiding.handler_timeout' => 30000);

# ---- a poison message ----

$node->safe_psql($db, 'SELECT voiding.start_workers(2)');
set_system('voiding.retry_base' => 60000);
$node->safe_psql($db, 'TRUNCATE shop.seen; INSERT INTO shop.poison VALUES (-1)');
$node->safe_psql($db, q{
  SELECT voiding.emit('Said', 'poisoned', '{"n": -1}', 'shop');
  SELECT voiding.emit('Said', 'poisoned', jsonb_build_object('n', i), 'shop') FROM generate_series(1, 100) i;
  SELECT voiding.emit('Said', 'beside' || i % 50, jsonb_build_object('n', i), 'shop') FROM generate_series(1, 1000) i});
ok(poll_until(sub { row($node, $db, q{SELECT count(*) FROM shop.seen WHERE key LIKE 'beside%'}) eq '1000' }, 20),
  'a poison message: the thousand beside it are handled');
is(row($node, $db, q{SELECT count(*) FROM shop.seen WHERE key = 'poisoned'}), '0', 'the hundred behind it are not');
is(row($node, $db, q{SELECT count(*), max(attempts) FROM voiding.outbox}), '101|1', 'they wait');
$node->safe_psql($db, 'DELETE FROM shop.poison');
set_system('voiding.clock_offset' => 3600);
ok(poll_until(sub { row($node, $db, q{SELECT count(*) FROM shop.seen WHERE key = 'poisoned'}) eq '101' }, 20), 'mended, it is handled');
is(row($node, $db, q{SELECT string_agg(n::text, ' ' ORDER BY id) FROM shop.seen WHERE key = 'poisoned'}), join(' ', -1, 1 .. 100),
  'and they behind it, in order');
set_system('voiding.clock_offset' => 0, 'voiding.retry_base' => 20);

# ---- an exempt deadline that has passed does not keep a worker awake ----

$node->safe_psql($db, q{
  SELECT voiding.create_process_type('overdue', '{"key": "id", "start": {"Overdue": "Failed"},
    "after": {"PT1H": "Over"},
    "states": {"Failed": {"type": "failed", "forever": true, "on": {"ProcessFailureAcknowledged": "Over"}}, "Over": {"type": "final", "outcome": "failed"}}}');
  SELECT voiding.emit('Overdue', 'o1', '{"id": "o1"}', 'shop')});
set_system('voiding.clock_offset' => 7200);
row($node, $db, q{SELECT voiding.emit('Said', 'after', '{"n": 1}', 'shop')});
ok(poll_until(sub { row($node, $db, q{SELECT count(*) FROM shop.seen WHERE key = 'after'}) eq '1' }, 20), 'the clock has gone on');
is(row($node, $db, q{SELECT count(*) FROM voiding.ongoing_process WHERE type = 'overdue' AND failed}), '1', 'a failed process is exempt from its deadline');
my $worker = row($node, $db, 'SELECT pid FROM voiding.worker WHERE worker = 1');
sub cpu_of
{
  my ($pid) = @_;
  open(my $f, '<', "/proc/$pid/stat") or return 0;
  my @fields = split / /, (split /\) /, <$f>)[1];
  close $f;
  return $fields[11] + $fields[12];
}
SKIP: {
  skip 'no /proc here', 1 unless -r "/proc/$worker/stat";
  my $used = cpu_of($worker);
  ok(!poll_until(sub { cpu_of($worker) > $used + 25 }, 1), 'and its worker sleeps');
}
set_system('voiding.clock_offset' => 0);

# ---- in nobody's way ----

finished_and_right('before it is dropped');
is(error_of($node, 'postgres', "CREATE DATABASE copied TEMPLATE $db"), '', 'CREATE DATABASE with a served one as template');
is(row($node, 'copied', 'SELECT count(*) FROM voiding.event'), row($node, $db, 'SELECT count(*) FROM voiding.event'), 'is a copy');
ok(poll_until(sub { row($node, $db, 'SELECT count(*) FROM voiding.worker') eq '2' }, 20), 'and workers are back');
is(row($node, $db, q{SELECT voiding.emit('Said', 'again', '{"n": 1}', 'shop') IS NOT NULL}), 't', 'where');
ok(poll_until(sub { row($node, $db, q{SELECT count(*) FROM shop.seen WHERE key = 'again'}) eq '1' }, 20), 'they serve');
is(error_of($node, $db, 'DROP EXTENSION voiding CASCADE'), '', 'DROP EXTENSION while workers serve');
ok(poll_until(sub { row($node, $db, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'voiding worker'}) eq '0' }, 20), 'they leave');
# one that it starts again finds nothing; that must not be remembered
ok(poll_until(sub { row($node, $db, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'voiding launcher'}) eq '0' }, 40), 'and their launcher');
$node->safe_psql($db, 'DROP SCHEMA billing, reports, shop CASCADE; CREATE EXTENSION voiding; SELECT voiding.start_workers(2)');
row($node, $db, q{SELECT billing.issue_document('N', 'n', 1)});
my $process = row($node, $db, q{SELECT billing.void_document('N', 'new')});
is(row($node, $db, "SELECT state FROM voiding.wait_for_process('$process', '20 s')"), 'DocumentVoided', 'made again, it works');
is(error_of($node, 'postgres', "DROP DATABASE $db"), '', 'DROP DATABASE while workers serve');

# one database after another is served
for my $i (1 .. 9)
{
  $node->safe_psql('postgres', "CREATE DATABASE d$i TEMPLATE copied");
  my (undef, $n, $stderr) = $node->psql("d$i", 'SELECT voiding.start_workers(1)');
  is($n, '1', "database $i after those that were dropped") or diag($stderr), last;
  $node->safe_psql('postgres', "DROP DATABASE d$i");
}
$node->stop;
done_testing();
