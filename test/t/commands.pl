# Commands while backends and workers are killed with SIGKILL: clients send the
# same ones again until they have an answer, 30 % of them are sent twice on
# purpose. Each key is handled exactly once, every command gets its final
# status, nobody who waits is left hanging, the feed tells of each.
#
# VOIDING_COMMANDS=n: so many sends; VOIDING_SEED=n: a run's choices again.

use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Utils ();
use Test::More;
use Time::HiRes qw(time);
use Voiding::Test;

my $many = $ENV{VOIDING_COMMANDS} // 2000;
my $seed = $ENV{VOIDING_SEED} // int(rand 1_000_000);
my $clients = $many > 10_000 ? 16 : 8;
my $kills = $many > 10_000 ? 40 : 8;
my $keys = int($many * 0.7);
diag("VOIDING_SEED=$seed");
srand $seed;

my $node = new_node('main', restart_after_crash => 'on', max_worker_processes => 20, max_connections => 60, 'voiding.retry_base' => 20);
my $db = new_database($node, 'commands');

$node->safe_psql($db, q{
  SELECT voiding.create_service('shop');
  CREATE TABLE shop.handled (key integer, command_id uuid);
  CREATE TABLE shop.stage (key integer, conversation uuid);
  CREATE TRIGGER staged AFTER INSERT ON shop.stage FOR EACH ROW EXECUTE FUNCTION voiding.emit_event('Staged', 'key', '@correlation=conversation');
  -- a third ends with its handler, a third with an event, a ninth of all fails
  CREATE FUNCTION shop.one(key integer, message_id uuid) RETURNS integer LANGUAGE plpgsql AS $$
  BEGIN
    INSERT INTO shop.handled VALUES (key, message_id);
    IF key % 9 = 0 THEN
      RAISE 'no nines';
    END IF;
    RETURN key;
  END $$;
  CREATE FUNCTION shop.two(key integer, message_id uuid) RETURNS void LANGUAGE sql AS
    $$ INSERT INTO shop.handled VALUES (key, message_id); INSERT INTO shop.stage VALUES (key, message_id) $$;
  CREATE FUNCTION shop.ready(key integer) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM voiding.emit('Ready', key::text, jsonb_build_object('key', key)); END $$;
  SELECT voiding.create_service('other'), voiding.subscribe('Staged', 'shop.ready', 'other');
  SELECT voiding.create_command('One', 'shop.one'), voiding.create_command('Two', 'shop.two', completed_by => 'Ready');
  SELECT voiding.start_workers(2)});

# ---- clients: each sends its share of the keys, with others' keys among them ----

sub type_of { return $_[0] % 3 == 2 ? 'Two' : 'One'; }

# the keys of the sends: each at least once, the rest again
my @sends = (1 .. $keys, map { 1 + int rand $keys } $keys + 1 .. $many);
for my $i (reverse 1 .. $#sends)
{
  my $j = int rand($i + 1);
  @sends[ $i, $j ] = @sends[ $j, $i ];
}

my $server = $node->connstr($db);
my $stop = "$PostgreSQL::Test::Utils::tmp_check/stop";
my @files;
my @pids;

# One psql after the other, until each send has had its answer: the id. Every
# tenth is executed: it waits, and the answer has the status too.
sub client
{
  my ($i, @mine) = @_;
  my %answer;

  while (@mine)
  {
    my @part = @mine > 50 ? @mine[ 0 .. 49 ] : @mine;
    my $script = join '', map {
      my $args = sprintf q{'%s', '{"key": %d}'}, type_of($_), $_;
      $_ % 10 == 0 ? "CALL voiding.execute($args, '60 s', 'k$_') \\gset\nSELECT $_, (:'command'::voiding.command).command_id, (:'command'::voiding.command).status;\n"
        : "SELECT $_, voiding.send_command($args, 'k$_'), '';\n" } @part;
    my $out = '';
    # a psql whose server is gone does not read what it is given: that is an error of the run
    eval { IPC::Run::run([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $server ], '<', \$script, '>', \$out, '2>', \my $err, IPC::Run::timeout(180)); 1 }
      or $@ =~ /Broken pipe/ or die $@;
    my @lines = split /\n/, $out;
    print { $files[$i] } "$_\n" for @lines;
    splice @mine, 0, scalar @lines;
    Time::HiRes::usleep(50_000) if @lines < @part;       # the connection was lost
    return 1 if getppid == 1;
  }
  return 0;
}

for my $i (0 .. $clients - 1)
{
  my $file = "$PostgreSQL::Test::Utils::tmp_check/client$i";

  open $files[$i], '>', $file or die "$file: $!";
  $files[$i]->autoflush;
  my $pid = fork // die "fork: $!";
  if ($pid == 0)
  {
    $SIG{PIPE} = 'IGNORE';
    my $bad = eval { client($i, @sends[ grep { $_ % $clients == $i } 0 .. $#sends ]) } // 1;
    print STDERR "# client $i: $@" if $@;
    POSIX::_exit($bad);
  }
  push @pids, $pid;
}
sub answers
{
  my $n = 0;

  for my $i (0 .. $clients - 1)
  {
    open my $in, '<', "$PostgreSQL::Test::Utils::tmp_check/client$i" or next;
    $n++ while <$in>;
  }
  return $n;
}

# ---- kills, spread over the sends ----

sub ask
{
  my ($sql) = @_;
  return try_row($node, $db, $sql) // '';
}

my %is = (worker => q{backend_type = 'voiding worker'}, backend => qq{backend_type = 'client backend' AND datname = '$db' AND pid <> pg_backend_pid()});
my $killed = 0;
for my $k (1 .. $kills)
{
  my $who = $k % 2 ? 'worker' : 'backend';
  my $after = int($many * $k / ($kills + 1));
  my $pid;

  poll_until(sub { answers() >= $after }, 600) or last;
  poll_until(sub { ($pid) = split /\n/, ask("SELECT pid FROM pg_stat_activity WHERE $is{$who} ORDER BY random()"); $pid }, 20) or next;
  my $logged = -s $node->logfile;
  next unless kill 'KILL', $pid;
  $killed++ if poll_until(sub { PostgreSQL::Test::Utils::slurp_file($node->logfile, $logged) =~ /all server processes terminated; reinitializing/ }, 40);
}
cmp_ok($killed, '>=', $kills / 2, "$killed backends and workers were killed");

# ---- all have their answers, and the answers are true ----

my $bad = grep { waitpid($_, 0); $? != 0 } @pids;
is($bad, 0, 'every client had an answer to each of its sends: nobody was left waiting');
ok(poll_until(sub { ask(q{SELECT count(*) FROM voiding.command WHERE finished_at IS NULL}) eq '0' }, 120), 'every command has its final status')
  || diag(ask('SELECT type, status, count(*) FROM voiding.command GROUP BY 1, 2'));
is(row($node, $db, 'SELECT count(*), count(DISTINCT idempotency_key), min((data ->> \'key\')::integer), max((data ->> \'key\')::integer) FROM voiding.command'), "$keys|$keys|1|$keys", 'one command for each key');
is(row($node, $db, q{SELECT key, count(*) FROM shop.handled GROUP BY key HAVING count(*) > 1 LIMIT 5}), '', 'no key was handled twice');
is(row($node, $db, q{SELECT c.data, c.status, h.key FROM voiding.command c LEFT JOIN shop.handled h ON h.key = (c.data ->> 'key')::integer AND h.command_id = c.command_id
    WHERE c.status <> CASE WHEN c.type = 'One' AND (c.data ->> 'key')::integer % 9 = 0 THEN 'failed' ELSE 'processed' END
       OR (h.key IS NOT NULL) <> (c.status = 'processed') OR (c.status = 'failed' AND c.error ->> 'detail' <> 'no nines') LIMIT 5}), '',
  'each that succeeded was handled, each that failed left nothing');

my %command = map { split /\|/ } split /\n/, row($node, $db, q{SELECT data ->> 'key', command_id || ' ' || status FROM voiding.command});
my @lies;
my $told = 0;
for my $i (0 .. $clients - 1)
{
  open my $in, '<', "$PostgreSQL::Test::Utils::tmp_check/client$i" or die $!;
  while (<$in>)
  {
    chomp;
    my ($key, $id, $status) = split /\|/, $_, -1;
    my ($is, $ended) = split / /, $command{$key} // '';

    $told++;
    push @lies, "$_, is $command{$key}" if $id ne $is || ($status ne '' && $status ne $ended);
  }
}
is(join("\n", @lies[ 0 .. ($#lies > 4 ? 4 : $#lies) ]), '', 'what clients were told is true');
is($told, $many, 'and they were told all of it');
is(row($node, $db, qq{
  CREATE FUNCTION shop.read_all() RETURNS TABLE (id uuid, status text) LANGUAGE plpgsql AS \$\$
  DECLARE
    at text;
    n integer := 1;
  BEGIN
    WHILE n > 0 LOOP
      n := 0;
      FOR at, id, status IN SELECT f.cursor, (f.command).command_id, (f.command).status FROM voiding.command_changes(at, 500) f LOOP
        n := n + 1;
        RETURN NEXT;
      END LOOP;
    END LOOP;
  END \$\$;
  SELECT count(*), count(DISTINCT id), count(*) FILTER (WHERE status IN ('processed', 'failed')) FROM shop.read_all()}), "$keys|$keys|$keys", 'the feed has each of them once');
is(row($node, $db, q{SELECT * FROM voiding.check_invariants()}), '', 'invariants hold');
is(row($node, $db, q{SELECT count(*) FROM voiding.dead_letter}), '0', 'no message gave up');

# ---- a waiter that sleeps is woken by the commit that ends the command ----

row($node, $db, 'SELECT voiding.stop_workers()');
my $id = row($node, $db, q{SELECT voiding.send_command('One', '{"key": 1}', 'last')});
my $handler = $node->background_psql($db);
my @waiters = map { $node->background_psql($db) } 1 .. 3;
$handler->query('BEGIN');
is($handler->query('SELECT voiding.dispatch()'), '1', 'it has been handled, and is not committed');
my %done;
my @waits = ("SELECT status FROM voiding.wait_for_command('$id', '60 s')", "CALL voiding.await('$id', '60 s')",
  qq{CALL voiding.execute('One', '{"key": 1}', '60 s', 'last') \\gset\nSELECT (:'command'::voiding.command).status});
my @awake = map { my ($w, $sql) = ($waiters[$_], $waits[$_]); $w->query_until(qr/asleep/, "\\echo asleep\n$sql;\n\\echo awake\n"); $w } 0 .. 2;
ok(poll_until(sub { row($node, $db, q{SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND wait_event_type = 'Extension'
    AND query ~ 'wait_for_command|await|execute' AND pid <> pg_backend_pid()}) eq '3' }, 20), 'three ways to wait: all sleep');
is(row($node, $db, qq{SELECT status FROM voiding.command_status('$id')}), 'accepted', 'there is nothing to see yet');
$handler->query('COMMIT');
like($_->query('SELECT 1'), qr/\n?1\z/, 'after the commit it goes on') for @awake;
is(row($node, $db, qq{SELECT status FROM voiding.command_status('$id')}), 'processed', 'the command is done');
$_->quit for $handler, @waiters;
$node->stop;
diag("repeat it with VOIDING_SEED=$seed") unless Test::More->builder->is_passing;
done_testing();
