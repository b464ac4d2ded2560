# Four databases in two clusters behind a router of PL/Proxy, as example/router
# sets them up. The story of test/sql runs through it and has the same output;
# clients issue, void and publish through it as through a server, and what they
# know is true; commands and tasks by id, with the key and without, as roles
# with rights and without; what a router's transaction does not take back; a
# shard that is dead, and one that dies while clients send the same again.

use strict;
use warnings;

use IPC::Run;
use List::Util qw(sum0);
use POSIX ();
use PostgreSQL::Test::Utils;
use Test::More;
use Voiding::Load;
use Voiding::Test;

my $root = $ENV{VOIDING_ROOT} // '.';
my $seed = $ENV{VOIDING_SEED} // int(rand 1_000_000);

chomp(my $share = `@{[ $ENV{PG_CONFIG} // 'pg_config' ]} --sharedir`);
plan skip_all => 'PL/Proxy is not installed: Debian has it as postgresql-VERSION-plproxy' unless -e "$share/extension/plproxy.control";
diag("VOIDING_SEED=$seed");

my @node = map { new_node($_, max_worker_processes => 20, max_connections => 80, 'voiding.retry_base' => 20, restart_after_crash => 'on') } qw(left right);

# ---- setting it up, as doc/router.md says ----

sub psql_file
{
  my ($node, $db, $file, @variables) = @_;
  my @command = ('psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($db), (map { ('-v', $_) } @variables), '-f', "$root/$file");
  my ($out, $err);

  IPC::Run::run(\@command, '>', \$out, '2>', \$err) or die "$file: $err";
  return $out;
}

# four databases called name0 to name3 in the two clusters, and a router called name in the first
sub set_up
{
  my ($name) = @_;
  my @shards = map { [ $node[ $_ / 2 ], "$name$_" ] } 0 .. 3;
  my $places = join ', ', map { my ($node, $db) = @{ $shards[$_] }; sprintf q{p%d 'host=%s port=%s dbname=%s connect_timeout=3'}, $_, $node->host, $node->port, $db } 0 .. 3;

  for my $i (0 .. 3)
  {
    new_database(@{ $shards[$i] });
    psql_file(@{ $shards[$i] }, 'example/router/shard.sql', "number=$i", 'shards=4');
  }
  $node[0]->safe_psql('postgres', "CREATE DATABASE $name TEMPLATE template0");
  $node[0]->safe_psql($name, "CREATE EXTENSION plproxy; CREATE SERVER voiding FOREIGN DATA WRAPPER plproxy OPTIONS ($places); CREATE USER MAPPING FOR PUBLIC SERVER voiding");
  psql_file($node[0], $name, $_) for 'example/router/router.sql', 'example/router/tables.sql';
  return @shards;
}

my $router = 'shard';
my @shard = set_up($router);

sub ask { return row($node[0], $router, $_[0]); }
sub ask_shard { my ($i, $sql) = @_; return row(@{ $shard[$i] }, $sql); }
sub error { return error_of($node[0], $router, $_[0]); }

is(ask('SELECT * FROM router.check()'), '', 'the shards are what they should be');
ask_shard(1, q{UPDATE router.self SET number = 2; SELECT voiding.create_service('shop')});
ask_shard(1, q{CREATE FUNCTION shop.seen() RETURNS void LANGUAGE sql AS ''; SELECT voiding.subscribe('Seen', 'shop.seen')});
is(ask('SELECT * FROM router.check()'), "1|it calls itself number 2\n1|its process types or handlers are not those of the first one", 'what is not is found');
ask_shard(1, q{UPDATE router.self SET number = 1; SELECT voiding.unsubscribe('Seen', 'shop'), voiding.drop_service('shop')});

# ---- the story, with the output that it has without a router ----

sub story
{
  my ($db) = @_;
  my $story = slurp_file("$root/test/sql/story.sql");
  my $wanted = slurp_file("$root/expected/story.out");
  my $out;

  $story =~ s/^\\i test\/lib\/database\.sql$/\\i $root\/test\/lib\/router.sql/m or die 'the story does not begin as it did';
  $_ =~ s/^CALL test\.by_hand\(\);\n\K.*//ms or die 'the story does not end as it did' for $story, $wanted;
  local $ENV{PGOPTIONS} = '-c client_min_messages=warning';
  IPC::Run::run([ 'psql', '-X', '-a', '-q', '-d', $node[0]->connstr($db) ], '<', \$story, '>&', \$out);
  # who said it, and where, comes before an error's text
  $out =~ s/^(ERROR:  )[\w.]+\(\d+\): \[story\d\] REMOTE ERROR: /$1/mg;
  $out =~ s/^HINT:  Remote hint: /HINT:  /mg;
  $_ =~ s/^\\(?:set|i) .*\n//mg for $out, $wanted;
  return ($out, $wanted);
}
my @story = set_up('story');
my ($out, $wanted) = story('story');
cmp_ok($wanted =~ tr/\n//, '>', 250, 'the story is long');
is($out, $wanted, 'the story through the router has the output that it has without one');
is(join(' ', sort map { row(@$_, 'SELECT count(*) FROM billing.document') } @story), '0 0 0 3', 'all of one customer is in one shard');

# ---- clients, as of a server ----

is(ask('SELECT voiding.start_workers(1)'), '4', 'a worker for each shard');
my $load = start_clients(dir => "$PostgreSQL::Test::Utils::tmp_check/clients", name => 'r', clients => 4, seed => $seed, node => $node[0], db => $router);
ok(poll_until(sub { answers($load) >= 600 }, 120), 'under load');
stop_clients($load, 'load');
finished($node[0], $router, 'load');
cmp_ok(records_agree($node[0], $router, $load, 'load'), '>', 20, 'load: documents were voided');
invariants_hold($node[0], $router, 'load');
is(ask('SELECT count(*) FROM voiding.dead_letter'), '0', 'load: no message gave up');
my @documents = map { ask_shard($_, 'SELECT count(*) FROM billing.document') } 0 .. 3;
is(scalar(grep { $_ > 0 } @documents), 4, "all four shards have some: @documents");
is(ask('SELECT count(*) FROM billing.document'), sum0(@documents), 'and the router shows all');
is(ask(q{SELECT d.customer_id FROM billing.document d JOIN reports.report_line l USING (document_id) WHERE d.customer_id <> l.customer_id}), '', 'a document and its line are of one customer');
is(ask('SELECT report_id FROM reports.report GROUP BY 1 HAVING count(*) > 1'), '', 'no report has a number that another has');
my $total = ask(q{SELECT sum(value) FROM voiding.stats WHERE name = 'handled'});
cmp_ok($total, '>=', 600, 'the figures of all shards');
is(ask('SELECT count(DISTINCT shard), count(*) FROM voiding.worker'), '4|4', 'the workers of all shards');

# the place of a key is for ever: these are those that it has had
is(ask(q{SELECT string_agg((router.place(k) & 3)::text, '' ORDER BY k) FROM unnest('{acme,c0,c1,c2,c3,c4,c5,c6,c7,c8,c9}'::text[]) k}), '30220231120', 'keys are where they were');
is(ask(q{SELECT string_agg(DISTINCT d.customer_id || ' ' || (router.place(d.customer_id) & 3), ', ' ORDER BY d.customer_id || ' ' || (router.place(d.customer_id) & 3)) FROM billing.document d WHERE d.customer_id ~ '^c\d$'}),
  join(', ', sort map { my $i = $_; map { "$_ $i" } split /\n/, ask_shard($i, q{SELECT DISTINCT customer_id FROM billing.document WHERE customer_id ~ '^c\d$'}) } 0 .. 3), 'and documents are where their customer is');

# ---- commands: by id, with the key and without ----

sub command { my ($type, $data, $more) = @_; return ask("SELECT voiding.send_command('$type', '$data'" . ($more // '') . ')'); }

my $id = command('IssueDocument', '{"document_id": "C1", "customer_id": "c1", "amount": 5}', q{, 'k1'});
is(command('IssueDocument', '{"document_id": "C1", "customer_id": "c1", "amount": 5.0}', q{, 'k1'}), $id, 'the same again is the same command');
like(error(q{SELECT voiding.send_command('IssueDocument', '{"document_id": "C1", "customer_id": "c1", "amount": 6}', 'k1')}), qr/^VD09E: .*this idempotency key was used for another command/, 'other content under the key is refused');
is(ask("SELECT status, resource FROM voiding.wait_for_command('$id', '30 s')"), 'processed|/documents/C1', 'a wait by id');
is(ask("SELECT status FROM voiding.command_status('$id', 'c1')"), 'processed', 'the status by id and key');
is(ask(q{SELECT status, result ->> 'state' FROM voiding.execute('VoidDocument', '{"document_id": "C1", "reason": "x"}', '30 s')}), 'processed|DocumentVoided', 'sent, and waited for');
is(ask(q{SELECT status, error ->> 'code' FROM voiding.execute('VoidDocument', '{"document_id": "none"}', '30 s', 'k2', key => 'c1')}), 'failed|VD04A', 'one that fails');
like(error(q{SELECT voiding.command_status('00000000-0000-7000-8000-000000000000')}), qr/^VD04D: .*there is no command/, 'an id that nobody has');
like(error(qq{SELECT voiding.command_status('$id', 'acme and what not')}), qr/^VD04D: /, 'a wrong key: it is not there') if ask(q{SELECT (router.place('acme and what not') & 3) <> (router.place('c1') & 3)}) eq 't';
like(error(q{SELECT voiding.send_command('Unheard', '{}')}), qr/^42704: nobody has said where command "Unheard" goes/, 'a command of which nothing is known');
like(error(q{SELECT voiding.send_command('Unheard', '{}', key => 'c1')}), qr/^42704: .*there is no command "Unheard"/, 'with a key the shard says so');
my $later = command('IssueDocument', '{"document_id": "C2", "customer_id": "c2", "amount": 5}', q{, not_before => now() + interval '1 day'});
is(ask("SELECT status FROM voiding.cancel_command('$later', 'no more')"), 'cancelled', 'taken back');
is(ask(q{SELECT string_agg(item || CASE WHEN command_id IS NULL THEN ' ' || (error ->> 'code') ELSE '' END, ', ' ORDER BY item) FROM voiding.send_commands(
    (SELECT jsonb_agg(jsonb_build_object('type', 'IssueDocument', 'idempotency_key', 'many ' || i,
       'data', jsonb_build_object('document_id', 'M' || i, 'customer_id', 'c' || i, 'amount', CASE i WHEN 7 THEN 'much' ELSE '1' END))) FROM generate_series(1, 20) i))}),
  join(', ', map { $_ == 7 ? '7 VD22B' : $_ } 1 .. 20), 'many at once, each accepted or refused by itself');
is(ask(q{SELECT voiding.wait_until_idle('30 s'), count(*) FROM billing.document WHERE document_id LIKE 'M%'}), 't|19', 'and done');
is(ask(q{SELECT count(*) FROM generate_series(0, 3) s, router.command_changes(s, NULL, 1000) f}), ask('SELECT count(*) FROM voiding.command'), 'a feed for each shard');

# ---- tasks ----

$node[0]->safe_psql($router, qq{SELECT billing.issue_document('T$_', 't$_', 1)}) for 1 .. 8;
is(ask(q{SELECT voiding.wait_until_idle('30 s')}), 't', 'eight documents of eight customers');
$node[0]->safe_psql($router, qq{SELECT reports.publish_report('t$_'); SELECT billing.void_document('T$_', customer_id => 't$_')}) for 1 .. 8;
is(ask(q{SELECT voiding.wait_until_idle('30 s')}), 't', 'published, and voided too late');
is(ask(q{SELECT count(*) FROM voiding.available_task WHERE key ~ '^T\d$'}), '8', 'tasks of all shards');
my $task = ask(q{SELECT task_id FROM voiding.available_task WHERE key = 'T5'});
is(ask("SELECT state FROM voiding.claim_task('$task')"), 'claimed', 'claimed by id');
is(ask("SELECT state FROM voiding.release_task('$task', 'not now', key => 't5')"), 'ready', 'let go of by id and key');
is(ask("SELECT state FROM voiding.claim_task('$task', key => 't5')"), 'claimed', 'claimed again');
is(ask('SELECT string_agg(key, chr(32)) FROM voiding.my_task'), 'T5', 'it is mine');
is(ask("SELECT state FROM voiding.complete_task('$task', '{\"reason\": \"told\"}')"), 'completed', 'completed');
is(ask(q{SELECT state FROM voiding.process WHERE key = 'T5'}), 'FailureAcknowledged', 'and its process goes on');
my @next = map { ask(q{SELECT task_id FROM voiding.next_task(action_id => '01900000-0000-7000-8000-0000000000} . $_ . q{')}) } qw(01 02 01 02);
is("$next[0] $next[1]", "$next[2] $next[3]", 'the next one: the same action again is the same task');
isnt($next[0], $next[1], 'another action another one');
my %seen = map { $_ => 1 } @next;
1 while ($_ = ask(q{SELECT task_id FROM voiding.next_task()})) ne '' && !$seen{$_}++;
is(scalar(keys %seen), ask(q{SELECT count(*) FROM voiding.my_task}), 'until there is none in any shard');
is(ask('SELECT count(*) FROM voiding.available_task'), '0', 'none is left');

# ---- an id that users have chosen is unique in a shard only ----

$node[0]->safe_psql($router, q{SELECT billing.issue_document('A1', 'c0', 1), billing.issue_document('A1', 'c1', 1)});
like(error(q{SELECT billing.void_document('A1')}), qr/^21000: document "A1" is there more than once/, 'a document that two shards have');
is(ask(q{SELECT count(*) FROM voiding.wait_for_process(billing.void_document('A1', 'x', 'c1'), '30 s', 'c1')}), '1', 'is voided if the key is said');
is(ask(q{SELECT string_agg(customer_id || ' ' || status, ', ' ORDER BY customer_id) FROM billing.document WHERE document_id = 'A1'}), 'c0 issued, c1 voided', 'that one and no other');

# ---- what a router's transaction does not take back ----

$node[0]->safe_psql($router, q{BEGIN; SELECT billing.issue_document('B1', 'b1', 1); SELECT billing.issue_document('B2', 'b2', 1); ROLLBACK});
is(ask(q{SELECT count(*) FROM billing.document WHERE document_id IN ('B1', 'B2')}), '2', 'each call is a transaction of its own: ROLLBACK takes nothing back');
my $listener = $node[0]->background_psql($router);
$listener->query_safe('LISTEN voiding_billing');
my $near = $node[0]->background_psql('shard0');
$near->query_safe('LISTEN voiding_event');
my ($here) = grep { ask("SELECT router.place('n$_') & 3") eq '0' } 1 .. 50;
$node[0]->safe_psql($router, "SELECT billing.issue_document('N1', 'n$here', 1)");
my $told = '';
ok(poll_until(sub { ($told .= $near->query('SELECT 1')) =~ /"voiding_event"/ }, 30), 'who listens in the shard is told');
unlike($listener->query('SELECT 1'), qr/notification/, 'who listens in the router is not');
$_->quit for $listener, $near;

# ---- rights are those of the role, in the shards ----

for my $n (@node)
{
  $n->safe_psql('postgres', 'CREATE ROLE clerk LOGIN; CREATE ROLE nobody LOGIN');
}
$node[0]->safe_psql($router, 'GRANT USAGE ON FOREIGN SERVER voiding TO clerk, nobody');
ask_shard($_, q{GRANT USAGE ON SCHEMA billing, voiding TO clerk; GRANT EXECUTE ON FUNCTION billing.issue_document, voiding.send_command, voiding.command_status, voiding.wait_for_command TO clerk}) for 0 .. 3;
is(row($node[0], $router, q{SET ROLE clerk; SELECT document_id FROM billing.issue_document('G1', 'g', 1)}), 'G1', 'a role does what it may in the shard');
like(error(q{SET ROLE nobody; SELECT billing.issue_document('G2', 'g', 1)}), qr/^42501: /, 'and no other does');
my $foreign = row($node[0], $router, q{SET ROLE clerk; SELECT (c).command_id FROM voiding.execute('IssueDocument', '{"document_id": "G3", "customer_id": "g", "amount": 1}', '30 s') c});
is(ask("SELECT caller FROM voiding.command_status('$foreign')"), 'clerk', 'the shard knows who sent a command');
like(error("SET ROLE clerk; SELECT voiding.command_status('$id')"), qr/^42501: .*permission denied for function here/, 'a call by id alone needs a right of its own');
like(error("SET ROLE clerk; SELECT voiding.command_status('$id', 'c1')"), qr/^VD04D: /, q{another's command is not there});
ask_shard($_, 'GRANT EXECUTE ON FUNCTION router.here TO clerk') for 0 .. 3;
is(row($node[0], $router, "SET ROLE clerk; SELECT status FROM voiding.command_status('$foreign')"), ask("SELECT status FROM voiding.command_status('$foreign')"), 'with it one finds what is one\'s own');
is(row($node[0], $router, "SET ROLE clerk; SELECT count(*) FROM router.find('command', '$id')"), '0', q{and is not told of another's});

# ---- a dead letter is repaired where it is ----

ask_shard(2, q{
  ALTER DATABASE shard2 SET voiding.retry_limit = 1;
  SELECT voiding.stop_workers(), voiding.create_service('shop')});
ask_shard(2, q{
  CREATE FUNCTION shop.fall(subject text) RETURNS void LANGUAGE plpgsql AS 'BEGIN RAISE ''not today''; END';
  SELECT voiding.subscribe('Tripped', 'shop.fall');
  SELECT voiding.emit('Tripped', 'over', '{}', 'shop');
  SELECT voiding.start_workers(1)});
ok(poll_until(sub { ask('SELECT count(*) FROM voiding.dead_letter') eq '1' }, 30), 'a message gives up');
my $dead = ask('SELECT id FROM voiding.dead_letter');
ask_shard(2, q{CREATE OR REPLACE FUNCTION shop.fall(subject text) RETURNS void LANGUAGE sql AS ''});
is(ask("SELECT voiding.retry_message('$dead', 'mended')"), '1', 'it is tried again, by id');
ok(poll_until(sub { ask('SELECT count(*) FROM voiding.dead_letter') + ask('SELECT count(*) FROM voiding.outbox') == 0 }, 30), 'and done');
like(error("SELECT voiding.discard_message('$dead', 'no')"), qr/^P0002: .*there is no such message/, 'then there is none');

ask_shard(2, q{SELECT voiding.unsubscribe('Tripped', 'shop'), voiding.drop_service('shop')});

# ---- a database moves ----

my ($mover) = grep { ask("SELECT router.place('y$_') & 3") eq '3' } 1 .. 50;
my $open = $node[0]->background_psql($router, on_error_stop => 0);
is($open->query("SELECT document_id FROM billing.issue_document('Y1', 'y$mover', 1)"), 'Y1', 'a session has a connection to a shard');
ask_shard(3, 'SELECT voiding.stop_workers()');
$node[1]->safe_psql('postgres', $_) for q{SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity WHERE datname = 'shard3'}, 'ALTER DATABASE shard3 RENAME TO moved3';
$shard[3][1] = 'moved3';
$node[0]->safe_psql($router, sprintf q{ALTER SERVER voiding OPTIONS (SET p3 'host=/nowhere,%s port=1,%s dbname=moved3 target_session_attrs=read-write')}, $node[1]->host, $node[1]->port);
is($open->query("SELECT document_id FROM billing.issue_document('Y2', 'y$mover', 1)"), 'Y2', 'it goes on where that is now, at the one of two hosts that is there');
$open->quit;
is(ask('SELECT * FROM router.check()'), '', 'the shards are what they should be');
ask_shard(3, 'SELECT voiding.start_workers(1)');

# ---- a dead shard ----

my ($alive) = grep { ask("SELECT router.place('x$_') & 3") eq '1' } 1 .. 50;
my ($gone) = grep { ask("SELECT router.place('x$_') & 3") eq '2' } 1 .. 50;
my $one = ask("SELECT voiding.send_command('IssueDocument', '{\"document_id\": \"X1\", \"customer_id\": \"x$alive\", \"amount\": 1}')");
my $session = $node[0]->background_psql($router, on_error_stop => 0);
$session->query('SELECT count(*) FROM voiding.ongoing_process');
$node[1]->stop('immediate');
is(ask("SELECT document_id FROM billing.issue_document('X2', 'x$alive', 1)"), 'X2', 'calls with a key of a live shard go on');
is(ask("SELECT count(*) FROM voiding.command_status('$one', 'x$alive')"), '1', 'by id, too, if the key is said');
my $says = error("SELECT billing.issue_document('X3', 'x$gone', 1)");
like($says, qr/^XX000: .*connection/, 'those of the dead one fail');
like(error("SELECT voiding.command_status('$one')"), qr/connection/, 'by id alone fails: nobody knows whether the dead one has it');
like(error('SELECT * FROM voiding.ongoing_process'), qr/connection/, 'what asks all fails');
like(ask('SELECT string_agg(shard::text, chr(32)) FROM router.check()'), qr/^2 3$/, 'the check says which');
$session->query('SELECT count(*) FROM voiding.ongoing_process');
$session->{stderr} = '';
$node[1]->start;
is($session->query("SELECT document_id FROM billing.issue_document('X3', 'x$gone', 1)"), 'X3', 'it is back: the session that met it dead goes on');
$session->quit;
is(ask('SELECT * FROM router.check()'), '', 'and the check is content');
is(ask('SELECT voiding.start_workers(1)'), '4', 'workers');

# ---- a shard that dies while clients send: the same again, until there is an answer ----

my $keys = 400;
my $pid = fork // die "fork: $!";
if ($pid == 0)
{
  my $ok = eval {
    for my $i (1 .. $keys)
    {
      my $sql = qq{SELECT voiding.send_command('IssueDocument', '{"document_id": "Z$i", "customer_id": "z$i", "amount": 1}', 'z$i')};
      poll_until(sub { my ($status) = $node[0]->psql($router, $sql, stdout => \my $answer, stderr => \my $error); defined $status && $status == 0 && $answer =~ /^[0-9a-f-]{36}$/ }, 60) or die "Z$i";
    }
    1 };
  print STDERR "# $@" unless $ok;
  POSIX::_exit($ok ? 0 : 1);
}
for my $third (1, 2)
{
  my $sent = sub { my (undef, $n) = $node[1]->psql('shard2', q{SELECT count(*) FROM voiding.command WHERE idempotency_key ~ '^z\d'}); ($n // '') =~ /^\d+$/ ? $n : 0 };
  ok(poll_until(sub { $sent->() >= $third * 25 }, 60), 'a client sends commands with keys');
  $node[1]->stop('immediate');
  $node[1]->start;
}
waitpid $pid, 0;
is($?, 0, 'it had an answer to each');
is(ask('SELECT voiding.start_workers(1)'), '4', 'workers');
is(ask(q{SELECT voiding.wait_until_idle('60 s')}), 't', 'all is done');
is(ask(q{SELECT count(*), count(DISTINCT idempotency_key), count(*) FILTER (WHERE status = 'processed') FROM voiding.command WHERE idempotency_key ~ '^z\d'}), "$keys|$keys|$keys", 'each key once, whatever died');
is(ask(q{SELECT count(*), count(DISTINCT document_id) FROM billing.document WHERE document_id ~ '^Z\d'}), "$keys|$keys", 'and each document');
invariants_hold($node[0], $router, 'at the end');
$_->stop for @node;
done_testing();
