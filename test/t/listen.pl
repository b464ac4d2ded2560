# No worker: two plain clients, one for each service, that LISTEN and call
# dispatch() when they are told to. They finish what a third client begins.
# And what is told, to whom, and when nothing is.
# By hand: two clients dispatch, there is no worker.

use strict;
use warnings;

use JSON::PP;
use Test::More;
use Voiding::Test;

my $node = new_node('main');
my $db = new_database($node, 'listen');

# ---- the services' clients ----

my %client = map { $_ => $node->background_psql($db) } qw(billing reports);
my @told;
$client{$_}->query_safe("LISTEN voiding_$_") for keys %client;

# Psql shows notifications after a statement. Only a client that was told
# something on its channel looks, and then until nothing is left for it.
sub react
{
  my $done = 0;

  for my $service (sort keys %client)
  {
    my @heard = heard($client{$service}->query_safe('SELECT 1'));

    push @told, @heard;
    next unless grep { $_->[0] eq "voiding_$service" } @heard;
    while (1)
    {
      my $output = $client{$service}->query_safe("SELECT voiding.dispatch('$service')");

      push @told, heard($output);
      last if $output =~ /^0$/m;
      $done++;
    }
  }
  return $done;
}

sub is_quiet
{
  react();
  return row($node, $db, q{SELECT (SELECT count(*) FROM voiding.outbox) = 0
    AND NOT EXISTS (SELECT FROM voiding.ongoing_process WHERE NOT failed)}) eq 't';
}

# ---- the third client ----

$node->safe_psql($db, q{
  SELECT billing.issue_document('D' || i, 'c' || i % 3, i * 10) FROM generate_series(1, 20) i;
});
ok(poll_until(\&is_quiet, 60), 'documents get into their reports');
is(row($node, $db, 'SELECT count(*), sum(amount) FROM reports.report_line'), '20|2100', 'all of them');

$node->safe_psql($db, "SELECT reports.publish_report('c0')");
$node->safe_psql($db, "SELECT billing.void_document('D$_', 'typo')") for 1 .. 9;
ok(poll_until(\&is_quiet, 60), 'nothing is left to do');

is(row($node, $db, q{SELECT status, count(*) FROM billing.document GROUP BY 1 ORDER BY 1}),
  "issued|14\nvoided|6", 'voided, but for those whose report was published');
is(row($node, $db, q{SELECT string_agg(key, ' ' ORDER BY key) FROM voiding.ongoing_process WHERE failed}),
  'D3 D6 D9', 'those have failed');
is(row($node, $db, q{SELECT status, count(*) FROM reports.report_line GROUP BY 1 ORDER BY 1}),
  "included|14\nvoided|6", 'the lines of the others are voided');
is(row($node, $db, 'SELECT count(*) FROM voiding.dead_letter'), '0', 'no message gave up');

# ---- what they were told ----

my %channels = map { $_->[0] => 1 } @told;
is_deeply([ sort keys %channels ], [ 'voiding_billing', 'voiding_reports' ], 'each heard of its service');
my $bad = 0;
for my $payload (map { $_->[1] } @told)
{
  my $hint = eval { decode_json($payload) } // {};

  $bad++ unless join(' ', sort keys %$hint) eq 'id type'
    && $hint->{id} =~ /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
}
is($bad, 0, 'each payload is JSON with type and id, nothing else');

sub ids_told
{
  my ($channel, $type) = @_;
  return join "\n", sort map { $_->{id} } grep { $_->{type} eq $type }
    map { decode_json($_->[1]) } grep { $_->[0] eq $channel } @told;
}
is(ids_told('voiding_reports', 'DocumentIssued'),
  row($node, $db, q{SELECT event_id FROM voiding.event WHERE type = 'DocumentIssued' ORDER BY event_id::text COLLATE "C"}),
  'of an event its id is told');
is(ids_told('voiding_billing', 'CompleteDocumentVoiding'),
  row($node, $db, q{SELECT causation_id FROM voiding.event WHERE type = 'DocumentVoided' ORDER BY causation_id::text COLLATE "C"}),
  'of a command its id is told');
$_->quit for values %client;

# ---- the engine's own channels ----

my $watcher = $node->background_psql($db);
$watcher->query_safe("LISTEN $_")
  for qw(voiding_process voiding_event voiding_task voiding_reports);

sub watch
{
  return heard($watcher->query_safe('SELECT 1'));
}

sub hints
{
  my ($channel, @heard) = @_;
  return join "\n", sort map { "$_->{type} $_->{id}" }
    map { decode_json($_->[1]) } grep { $_->[0] eq $channel } @heard;
}

watch();
my $after = row($node, $db, 'SELECT max(position) FROM voiding.event');
my $process = row($node, $db, q{SELECT billing.void_document('D12', 'too late')});
drain($node, $db);
my @heard = watch();
is(hints('voiding_process', @heard),
  join("\n", map { "$_ $process" } sort qw(VoidingRequested MarkingDocumentAsVoidedFailed)),
  'voiding_process: each state that a process came into, with its id');
is(hints('voiding_event', @heard),
  row($node, $db, qq{SELECT (type || ' ' || event_id) COLLATE "C" FROM voiding.event WHERE position > $after ORDER BY 1}),
  'voiding_event: every event');
is(hints('voiding_task', @heard),
  row($node, $db, qq{SELECT type || ' ' || task_id FROM voiding.task WHERE process_id = '$process'}),
  'voiding_task: the task, with its id');

sub issue
{
  my ($from, $to, $setting) = @_;

  $node->safe_psql($db, ($setting // '') . qq{
    INSERT INTO billing.document (document_id, customer_id, amount)
    SELECT 'M' || i, 'many', 1 FROM generate_series($from, $to) i});
  return watch();
}

sub payloads
{
  my ($channel, @notes) = @_;
  return grep { $_->[0] eq $channel } @notes;
}

@heard = issue(1, 100);
is(scalar(payloads('voiding_reports', @heard)), 100, 'a hundred messages in a transaction: a hint each');
is(scalar(payloads('voiding_event', @heard)), 100, 'a hundred events: a hint each');
@heard = issue(101, 201);
is_deeply([ map { $_->[1] } payloads('voiding_reports', @heard) ], ['{}'], 'one more: a single {}');
is_deeply([ map { $_->[1] } payloads('voiding_event', @heard) ], ['{}'], 'for events too');

is(scalar(issue(202, 203, "SET voiding.notify = off;\n")), 0, 'voiding.notify = off: not a word');
drain($node, $db);
watch();
$node->safe_psql($db, q{BEGIN; SELECT billing.issue_document('gone', 'many', 1); ROLLBACK});
is(scalar(watch()), 0, 'nothing is told of what was rolled back');
$watcher->quit;

drain($node, $db);
invariants_hold($node, $db, 'at the end');
$node->stop;
done_testing();
