# The example in example/field_service: three kinds of work for people, each a
# component of its own, in one process. People act over HTTP as their devices
# would: twice, too late, without the right; workers do the rest.

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;
use Voiding::Test;

my $root = $ENV{VOIDING_ROOT} // '.';
my $node = new_node('main', max_worker_processes => 20, 'voiding.retry_base' => 20);
my $db = new_database($node, 'field_service');

$node->safe_psql($db, slurp_file("$root/example/field_service/$_.sql")) for qw(people field_service);
$node->safe_psql($db, q{
  CREATE FUNCTION public.ask(method text, path text, body jsonb DEFAULT NULL, headers jsonb DEFAULT '{}', OUT status integer, OUT said jsonb) LANGUAGE sql
    AS 'SELECT a.status, a.body::jsonb FROM voiding.http(method, path, headers => headers, body => body::text) a';
  SELECT voiding.start_workers(2)});

# as somebody
sub as
{
  my ($who, $sql) = @_;
  return row($node, $db, "SET ROLE $who; $sql");
}

# a request of somebody: status and one member of the answer
sub ask
{
  my ($who, $method, $path, $member, $body, %headers) = @_;
  my $headers = join(', ', map { my $v = $headers{$_} =~ s/"/\\"/gr; qq("$_": "$v") } sort keys %headers);

  $body = defined $body ? "'$body'" : 'NULL';
  return as($who, "SELECT a.status, a.said #>> '{$member}' FROM public.ask('$method', '$path', $body, '{$headers}') a");
}

sub order { my ($id) = @_; $node->safe_psql($db, "INSERT INTO field.installation VALUES ('$id', 'wallbox', 'Mill Lane $id')"); return; }
sub idle { my ($name) = @_; is(row($node, $db, q{SELECT voiding.wait_until_idle('30 s')}), 't', $name); return; }
sub state_of { my ($id) = @_; return row($node, $db, "SELECT state FROM voiding.process WHERE key = '$id'"); }

# the newest task of a type for an installation: its address, or another column
sub task
{
  my ($id, $type, $column) = @_;
  $column //= q{'/tasks/' || task_id};
  return row($node, $db, "SELECT $column FROM voiding.task WHERE key = '$id' AND type = '$type' ORDER BY created_at DESC LIMIT 1");
}

sub comes_to
{
  my ($name, $expected, $look) = @_;
  local $Test::Builder::Level = $Test::Builder::Level + 1;
  poll_until(sub { $look->() eq $expected }, 30);
  return is($look->(), $expected, $name);
}

# the clock of everybody, so many seconds ahead
sub clock
{
  my ($offset) = @_;
  $node->safe_psql('postgres', "LOAD 'voiding'; ALTER SYSTEM SET voiding.clock_offset = $offset");
  $node->reload;
  return;
}

# ---- the warehouse: tasks from events ----

order($_) for qw(A B C D E);
idle('five are ordered');
is(row($node, $db, 'SELECT count(*), count(DISTINCT key), min(service), min(state) FROM voiding.task'), '5|5|warehouse|ready', 'each has made a task in the warehouse');
is(as('pia', q{SELECT count(*) FROM voiding.available_task}), '5', 'which are for Pia');
is(ask('pia', 'GET', '/tasks/available?form_factor=phone', 'tasks'), '200|[]', 'on her tablet, not on a phone');
is(as($_, q{SELECT count(*) FROM voiding.task}), '0', "$_ sees none of them") for qw(theo anna);
my $b = task('B', 'pick_parts');
is(ask('pia', 'POST', "$b/claim", 'state'), '200|claimed', 'Pia takes the one of B');
is(ask('pia', 'POST', "$b/fail", 'state', '{"reason": "sold out"}'), '200|failed', 'and finds no parts');
comes_to('so B comes to nothing', 'Cancelled|failed|sold out', sub { row($node, $db, q{SELECT state, outcome, reason FROM voiding.process WHERE key = 'B'}) });
for my $n (1 .. 3)
{
  my $key = "pia $n";
  my $first = ask('pia', 'POST', '/tasks/next', 'self', undef, 'Idempotency-Key' => $key);
  is(ask('pia', 'POST', '/tasks/next', 'self', undef, 'Idempotency-Key' => $key), $first, "$n: the tablet asks twice and gets one task");
  $first =~ s/^200\|//;
  is(ask('pia', 'POST', "$first/complete", 'state', '{"outcome": {"article": "wallbox", "serial": "W' . $n . '"}}', 'Idempotency-Key' => "$key done"), '200|completed', "$n: picked") for 1 .. 2;
}
is(as('pia', 'SELECT count(*) FROM voiding.my_task'), '0', 'she has not taken more than that');
comes_to('three pieces are out of stock, each once', '7', sub { row($node, $db, 'SELECT pieces FROM warehouse.stock') });
is(row($node, $db, q{SELECT count(*) FROM voiding.ongoing_process WHERE state = 'Picking'}), '1', 'one is still to be picked');

# it is not wanted any more
my ($unpicked) = split /\n/, row($node, $db, q{SELECT key FROM voiding.ongoing_process WHERE state = 'Picking'});
$node->safe_psql($db, "UPDATE field.installation SET status = 'withdrawn' WHERE installation_id = '$unpicked'");
comes_to('and is withdrawn: its task ends by the event that the process emits', 'cancelled', sub { task($unpicked, 'pick_parts', 'state') });

# ---- the field: skill, device, lease, capacity ----

my @ids = split /\n/, row($node, $db, q{SELECT key FROM voiding.ongoing_process ORDER BY key});
is(scalar @ids, 3, 'three go on');
my ($x, $y, $z) = map { task($_, 'install') } @ids;
is(ask('tina', 'POST', "$x/claim", 'detail') =~ s/task \S+:/task:/r, '403|permission denied to claim task: "tina" lacks skill "electrician"', 'Tina is no electrician');
is(ask('theo', 'GET', "$x/why-not?form_factor=desk", 'reasons'), '200|["\"theo\" has no phone"]', 'Theo is, and needs his phone');
is(as('lea', 'SELECT count(*) FROM voiding.skill_gap'), '0', 'somebody can do it');
$node->safe_psql($db, q{SELECT voiding.drop_worker_profile('theo')});
is(as('lea', 'SELECT count(*) FROM voiding.skill_gap'), '3', 'without Theo nobody, and Lea sees it');
$node->safe_psql($db, q{SELECT voiding.set_worker_profile('theo', '{electrician}', '{phone}', 2)});
is(ask('theo', 'POST', '/tasks/next?form_factor=phone', 'state'), '200|claimed', 'he takes one') for 1 .. 2;
is(ask('theo', 'POST', '/tasks/next?form_factor=phone', 'state'), '204|', 'and no more than two at a time');
my @his = split /\n/, as('theo', q{SELECT '/tasks/' || task_id FROM voiding.my_task ORDER BY task_id});
my ($free) = grep { my $t = $_; !grep { $_ eq $t } @his } $x, $y, $z;
$node->safe_psql($db, q{SELECT voiding.set_worker_profile('tina', '{plumber,electrician}', '{phone}')});
is(ask('tina', 'POST', "$his[0]/claim", 'task,owner'), '409|theo', 'Tina has learnt it, and comes too late for the first: she is told who has it');
is(ask('tina', 'POST', "$free/claim", 'state'), '200|claimed', 'one is left for her');
is(ask('tina', 'POST', "$his[0]/complete", 'code', '{"outcome": {"megohms": 9}}'), '409|VD09C', 'what is his she does not complete');

# Theo is away for three hours; Tina goes on working
clock(7000);
comes_to('the clock is ahead', '7000', sub { row($node, $db, 'SHOW voiding.clock_offset') });
is(ask('tina', 'POST', "$free/start", 'state'), '200|in_progress', 'Tina starts, which is a new lease');
my $cursor = as('theo', q{SELECT a.said ->> 'cursor' FROM public.ask('GET', '/tasks/changes') a});
clock(7300);
comes_to('what Theo had is there for others', '2', sub { row($node, $db, q{SELECT count(*) FROM voiding.task WHERE type = 'install' AND state = 'ready' AND reason = 'the lease has run out'}) });
is(ask('theo', 'POST', "$his[0]/complete", 'task,state', '{"outcome": {"megohms": 9}}'), '409|ready', 'he has lost it, and is told so');
is(as('theo', qq{SELECT count(*), min(e #>> '{task,state}') FROM public.ask('GET', '/tasks/changes', NULL, '{"Last-Event-ID": "$cursor"}') a, jsonb_array_elements(a.said -> 'events') e}),
  '2|ready', 'his phone hears it, too');
is(ask('tina', 'POST', "$free/complete", 'status', '{"outcome": {"megohms": 0.5}}'), '422|422', 'too weak');
is(ask('tina', 'POST', "$free/complete", 'state', '{"outcome": {"megohms": 5}}', 'If-Match' => '"1"'), '412|', 'not what she has seen');
is(ask('tina', 'POST', "$free/complete", 'state', '{"outcome": {"megohms": 5}}'), '200|completed', 'done');

# ---- escalation and expiry ----

clock(14_500);
comes_to('after four hours they are urgent, and their processes know it', '2', sub {
    row($node, $db, q{SELECT count(*) FROM voiding.ongoing_process p JOIN voiding.task t USING (process_id) WHERE t.type = 'install' AND t.priority = 10 AND p.data ->> 'late' = 'true'}) });
clock(5 * 86_400 + 100);
comes_to('after five days they have expired, and there are new ones', 'expired|2|ready|2', sub {
    row($node, $db, q{SELECT string_agg(format('%s|%s', state, n), '|' ORDER BY state) FROM (SELECT state, count(*) AS n FROM voiding.task WHERE type = 'install' AND state <> 'completed' GROUP BY state) x}) });
is(row($node, $db, q{SELECT count(*) FROM voiding.task WHERE ended_at IS NOT NULL AND (wake_at IS NOT NULL OR deadlines <> '[]')}), '0', 'what has ended has no deadline left');

# one is taken back while Theo has it
my ($one, $other) = split /\n/, row($node, $db, q{SELECT key FROM voiding.task WHERE type = 'install' AND state = 'ready' ORDER BY key});
my ($gone, $kept) = map { task($_, 'install') } $one, $other;
is(ask('theo', 'POST', "$_/claim?form_factor=phone", 'state'), '200|claimed', 'Theo comes again') for $gone, $kept;
$node->safe_psql($db, "UPDATE field.installation SET status = 'withdrawn' WHERE installation_id = '$one'");
comes_to('the customer has changed her mind', 'Cancelled', sub { state_of($one) });
is(ask('theo', 'POST', "$gone/complete", 'task,state', '{"outcome": {"megohms": 8}}'), '409|cancelled', 'his task went with the process');
is(ask('theo', 'POST', "$kept/complete", 'state', '{"outcome": {"megohms": 8}}'), '200|completed', 'the other one is done');
comes_to('the customers have it', '2', sub { row($node, $db, q{SELECT count(*) FROM field.installation WHERE status = 'installed'}) });

# ---- the editors: four eyes ----

is(row($node, $db, q{SELECT count(*) FROM voiding.ongoing_process WHERE state = 'Writing'}), '2', 'two reports are to be written');
is(ask('anna', 'POST', '/tasks/next?form_factor=phone', 'type'), '204|', 'on her way Anna has nothing to do');
for (1 .. 2)
{
  my $self = ask('anna', 'POST', '/tasks/next', 'self') =~ s/^200\|//r;
  is(ask('anna', 'POST', "$self/complete", 'state', '{"outcome": {"text": "It works."}}'), '200|completed', 'Anna writes');
}
is(as('anna', q{SELECT count(*) FROM voiding.task WHERE type = 'review_report'}), '0', 'what she has written she does not see');
my ($review, $second) = map { "/tasks/$_" } split /\n/, row($node, $db, q{SELECT task_id FROM voiding.task WHERE type = 'review_report' ORDER BY task_id});
is(ask('anna', 'POST', "$review/claim", 'code'), '404|VD04E', 'nor takes');
$node->safe_psql($db, 'GRANT editorial_lead TO anna');
is(ask('anna', 'POST', "$review/claim", 'detail') =~ s/task \S+:/task:/r, '403|permission denied to claim task: "anna" is excluded', 'even as the lead she does not, although she sees it');
is(ask('anna', 'POST', "$review/assign", 'code', '{"role": "anna"}'), '403|42501', 'nor gives it to herself');
$node->safe_psql($db, 'REVOKE editorial_lead FROM anna');
is(ask('bert', 'POST', "$_/claim", 'state'), '200|claimed', 'Bert takes it') for $review, $second;
is(ask('bert', 'POST', "$review/complete", 'state', '{"outcome": {"approved": true}}'), '200|completed', 'and says yes');
is(ask('bert', 'POST', "$second/complete", 'state', '{"outcome": {"approved": false, "remark": "How well?"}}'), '200|completed', 'and of the second no');
is(as('anna', q{SELECT (voiding.next_task()).document ->> 'remark'}), 'How well?', 'Anna is told why');
is(as('anna', q{SELECT (voiding.release_task(task_id)).state FROM voiding.my_task}), 'ready', 'and has no time');
is(as('bert', q{SELECT (voiding.next_task()).type}), 'write_report', 'so Bert writes it');
is(as('bert', q{SELECT (voiding.complete_task(task_id, '{"text": "8 megohms"}')).state FROM voiding.my_task}), 'completed', 'that is done');
is(as('bert', q{SELECT (voiding.next_task()).type}), '', 'this time he is the author');
is(as('anna', q{SELECT (voiding.next_task()).type}), 'review_report', 'and Anna the reviewer');
is(as('anna', q{SELECT (voiding.complete_task(task_id, '{"approved": true}')).state FROM voiding.my_task}), 'completed', 'who says yes');

# ---- the end ----

idle('nothing is left to do');
is(row($node, $db, q{SELECT state, outcome, count(*) FROM voiding.process GROUP BY 1, 2 ORDER BY 1}), "Cancelled|failed|3\nDocumented|done|2", 'every process has come to its end');
is(row($node, $db, q{SELECT author, reviewer FROM editorial.report ORDER BY author}), "anna|bert\nbert|anna", 'four eyes each');
is(row($node, $db, q{SELECT count(*) FROM voiding.process p WHERE p.outcome = 'done' AND (p.result ->> 'author') = (p.result ->> 'reviewer')}), '0', 'as the processes have it');
is(row($node, $db, q{SELECT count(*) FROM voiding.task WHERE ended_at IS NULL}), '0', 'no task is open');
is(row($node, $db, q{SELECT string_agg(DISTINCT source, ',' ORDER BY source) FROM voiding.event WHERE type IN ('PartsPicked', 'PartsMissing', 'InstallationDone', 'InstallationMissed', 'ReportWritten', 'ReportReviewed')}),
  'editorial,field,warehouse', 'each component has said its own');
is(row($node, $db, 'SELECT count(*) FROM voiding.dead_letter'), '0', 'no message was given up');
is(row($node, $db, 'SELECT * FROM voiding.check_invariants()'), '', 'invariants hold');
$node->stop;
done_testing();
