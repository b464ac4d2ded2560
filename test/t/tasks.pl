# 64 clients call next_task() and complete what they get, while backends and
# workers are killed with SIGKILL: every task is done once, none twice, none is
# lost. What a killed client had claimed comes back by the end of its lease. And
# the rate of next_task(), beside that of the bare statements it is made of.
#
# VOIDING_TASKS=n: so many tasks (10000: the full one); VOIDING_SEED=n: a run's
# choices again.

use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Utils ();
use Test::More;
use Time::HiRes ();
use Voiding::Test;

my $many = $ENV{VOIDING_TASKS} // 1000;
my $seed = $ENV{VOIDING_SEED} // int(rand 1_000_000);
my $clients = $many >= 10_000 ? 64 : 16;
my $kills = $many >= 10_000 ? 12 : 4;
diag("VOIDING_SEED=$seed");
srand $seed;

my $node = new_node('main', restart_after_crash => 'on', fsync => 'on', max_worker_processes => 20, max_connections => 100);
my $db = new_database($node, 'tasks');

# a lease that is short, so that those of the dead come back during the test
$node->safe_psql($db, qq{
  SELECT voiding.create_service('field');
  CREATE TABLE field.done (task_id uuid, by text, at timestamptz DEFAULT clock_timestamp());
  CREATE ROLE crew; GRANT USAGE ON SCHEMA voiding, field TO crew;
  GRANT EXECUTE ON FUNCTION voiding.next_task, voiding.complete_task, voiding.act_on_task TO crew;
  GRANT INSERT ON field.done TO crew;
  DO \$\$ BEGIN
    FOR i IN 1 .. 64 LOOP
      EXECUTE format('CREATE ROLE c%s LOGIN IN ROLE crew', i);
    END LOOP;
  END \$\$;
  SELECT voiding.create_task_type('pick', '{"roles": ["crew"], "priority": "\$.event.p", "lease": "PT3S", "made_by": {"Wanted": {"key": "\$.event.id"}}}', 'field');
  SELECT count(voiding.emit('Wanted', i::text, jsonb_build_object('id', i, 'p', i % 7), 'field')) FROM generate_series(1, $many) i;
  SELECT voiding.start_workers(1)});
ok(poll_until(sub { row($node, $db, 'SELECT count(*) FROM voiding.task') eq $many }, 120), "$many tasks are there");

# Each is claimed in a transaction of its own, and completed in another one, with
# its work: a kill between them leaves a claim behind. Ids of actions make it
# safe to do again what may have been done. Ends when none is left.
my $work = <<'SQL';
CREATE OR REPLACE PROCEDURE pg_temp.work() LANGUAGE plpgsql AS $$
DECLARE
  t voiding.task;
BEGIN
  FOR i IN 1 .. 40 LOOP
    t := voiding.next_task(action_id => gen_random_uuid());
    EXIT WHEN t.task_id IS NULL;
    COMMIT;
    BEGIN
      INSERT INTO field.done VALUES (t.task_id, current_user);
      PERFORM voiding.complete_task(t.task_id, '{"good": true}', gen_random_uuid());
    EXCEPTION WHEN SQLSTATE 'VD09C' THEN
      NULL;  -- the lease has run out: it is not ours any more
    END;
    COMMIT;
  END LOOP;
END $$;
CALL pg_temp.work();
SQL

my $connection = $node->connstr($db);
my $over = "$PostgreSQL::Test::Utils::tmp_check/over";

sub client
{
  my ($i) = @_;
  my $errors = '';

  until (-e $over)
  {
    my ($out, $err) = ('', '');

    # a psql that cannot connect does not read: a broken pipe, like all that is no ERROR a crash
    eval { IPC::Run::run([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', "$connection user=c$i" ], '<', \$work, '>', \$out, '2>', \$err, IPC::Run::timeout(180)) };
    $errors .= $err if $err =~ /ERROR/;
    Time::HiRes::usleep(100_000);
    return 1 if getppid == 1;
  }
  print STDERR "# client $i: $errors\n" if $errors;
  return $errors ne '';
}

my @pids;
for my $i (1 .. $clients)
{
  my $pid = fork // die "fork: $!";
  POSIX::_exit(eval { client($i) } // 1) if $pid == 0;
  push @pids, $pid;
}

sub ask
{
  my ($sql) = @_;
  return try_row($node, $db, $sql) // '';
}

my %is = (worker => q{backend_type = 'voiding worker'}, backend => qq{backend_type = 'client backend' AND datname = '$db' AND usename ~ '^c[0-9]'});
my $killed = 0;
for my $k (1 .. $kills)
{
  my $who = $k % 3 ? 'backend' : 'worker';
  my $after = int($many * $k / ($kills + 1));
  my $pid;

  poll_until(sub { my $n = ask('SELECT count(*) FROM field.done'); $n ne '' && $n >= $after }, 300) or last;
  poll_until(sub { ($pid) = split /\n/, ask("SELECT pid FROM pg_stat_activity WHERE $is{$who} ORDER BY random()"); $pid }, 20) or next;
  my $logged = -s $node->logfile;
  next unless kill 'KILL', $pid;
  $killed++ if poll_until(sub { PostgreSQL::Test::Utils::slurp_file($node->logfile, $logged) =~ /all server processes terminated; reinitializing/ }, 40);
}
cmp_ok($killed, '>=', $kills / 2, "$killed backends and workers were killed");
ok(poll_until(sub { ask(q{SELECT count(*) FROM voiding.task WHERE ended_at IS NULL}) eq '0' }, 300), 'in the end nothing is left to do')
  || diag(ask('SELECT state, count(*), min(until) - now() FROM voiding.task GROUP BY 1'));
open my $flag, '>', $over or die "$over: $!";
close $flag;
my $bad = grep { waitpid($_, 0); $? != 0 } @pids;
is($bad, 0, 'no client had an error but the crashes');

is(row($node, $db, q{SELECT count(*), count(DISTINCT task_id) FROM field.done}), "$many|$many", 'every task was done once, none twice');
is(row($node, $db, q{SELECT count(*) FROM voiding.task t LEFT JOIN field.done d ON d.task_id = t.task_id AND d.by = t.owner WHERE t.state <> 'completed' OR d.task_id IS NULL}), '0',
  'each by the one who has it in the end');
is(row($node, $db, q{SELECT count(*) FROM voiding.event WHERE type = 'TaskCompleted'}), $many, 'and is said to be done once');
is(row($node, $db, q{SELECT count(*) FROM voiding.event WHERE type = 'TaskClaimed'}),
  $many + row($node, $db, q{SELECT count(*) FROM voiding.event WHERE type = 'TaskReleased'}), 'every claim that was not completed has come back');
is(row($node, $db, q{SELECT count(*) FROM voiding.check_invariants()}), '0', 'invariants hold');

# ---- the worker tells by itself: a lease ends without anybody calling dispatch() ----

row($node, $db, q{SELECT voiding.emit('Wanted', 'last', '{"id": "last"}', 'field')});
ok(poll_until(sub { ask(q{SELECT state FROM voiding.task WHERE key = 'last'}) eq 'ready' }, 20), 'one more task');
is(ask('SET ROLE c1; SELECT key FROM voiding.next_task()'), 'last', 'is claimed');
ok(poll_until(sub { ask(q{SELECT state, reason FROM voiding.task WHERE key = 'last'}) eq 'ready|the lease has run out' }, 30), 'and given back by the worker');

# ---- the rate, beside the bare statements: a transaction each, 16 clients ----

$node->safe_psql($db, q{
  SELECT voiding.create_task_type('rate', '{"roles": ["crew"], "made_by": {"RateWanted": {"key": "$.event.id"}}}', 'field');
  SELECT count(voiding.emit('RateWanted', i::text, jsonb_build_object('id', i), 'field')) FROM generate_series(1, 4000) i;
  SELECT voiding.wait_until_idle('60 s');
  CREATE TABLE bare_task (LIKE voiding.task INCLUDING INDEXES INCLUDING DEFAULTS);
  CREATE TABLE bare_event (LIKE voiding.event_p0 INCLUDING INDEXES);
  CREATE SEQUENCE bare_position CACHE 1;
  INSERT INTO bare_task SELECT * FROM voiding.task WHERE type = 'rate';
  GRANT ALL ON bare_task, bare_event, bare_position TO crew;
  ANALYZE});
my $dir = PostgreSQL::Test::Utils::tempdir();
PostgreSQL::Test::Utils::append_to_file("$dir/next.pgbench", "SELECT task_id FROM voiding.next_task('{rate}');\n");
PostgreSQL::Test::Utils::append_to_file("$dir/bare.pgbench", <<'SQL');
BEGIN;
SELECT task_id FROM bare_task WHERE state = 'ready' AND type = 'rate' AND roles && '{crew}' AND skills <@ '{}' AND NOT excluded && '{crew}' ORDER BY -priority, due_at, task_id LIMIT 1 FOR UPDATE SKIP LOCKED \gset
UPDATE bare_task SET state = 'claimed', owner = current_user, version = version + 1, until = now() + lease, wake_at = now() + lease, updated_at = now(), said = 'TaskClaimed', xid = pg_current_xact_id() WHERE task_id = :task_id;
INSERT INTO bare_event (position, event_id, type, source, subject, correlation_id, data, recorded_at, xid, actor)
  SELECT nextval('bare_position'), gen_random_uuid(), said, service, key, correlation_id, jsonb_build_object('task_id', task_id, 'type', type, 'key', key, 'state', state, 'owner', owner,
         'outcome', outcome, 'reason', reason, 'process_id', process_id, 'version', version), now(), xid, owner FROM bare_task WHERE task_id = :task_id;
COMMIT;
SQL

sub rate
{
  my ($script) = @_;
  my ($out, $err) = ('', '');

  IPC::Run::run([ 'pgbench', '-n', '-M', 'prepared', '-c', 16, '-j', 2, '-t', 80, '-f', "$dir/$script.pgbench", "$connection user=c1" ], '>', \$out, '2>', \$err)
    or die "pgbench: $err";
  return $out =~ /tps = ([0-9.]+)/ ? $1 : 0;
}
my (@next, @bare);
for my $round (1 .. 3)
{
  push @bare, rate('bare');
  push @next, rate('next');
}
my ($next, $plain) = map { (sort { $a <=> $b } @$_)[1] } \@next, \@bare;
diag(sprintf 'next_task(): %.0f/s, the bare statements: %.0f/s, ratio %.2f', $next, $plain, $next / $plain);
cmp_ok($next / $plain, '>=', 0.5, 'next_task() has at least half the rate of the bare statements');
is(row($node, $db, q{SELECT count(*), count(*) FILTER (WHERE owner = 'c1' AND state = 'claimed') FROM voiding.task WHERE type = 'rate' AND state <> 'ready'}), '3840|3840', 'and claimed as many as it was called');
$node->stop;
diag("repeat it with VOIDING_SEED=$seed") unless Test::More->builder->is_passing;
done_testing();
