# Contention: 16 clients void 2,000 documents while reports are published, with
# four workers: nothing is stuck, nothing is voided that was published, totals
# to the cent, and no client meets an error that it should not. And more workers
# are not slower than one, on documents of few customers in random order.

use strict;
use warnings;

use IPC::Run;
use List::Util qw(shuffle sum0 max);
use Test::More;
use Time::HiRes qw(time);
use Voiding::Load qw(finished amount);
use Voiding::Test;

my $seed = $ENV{VOIDING_SEED} // int(rand 1_000_000);
diag("VOIDING_SEED=$seed");
srand $seed;
my $node = new_node('main', max_worker_processes => 20, max_connections => 60, 'voiding.retry_base' => 20);
my $db = new_database($node, 'contend');
my ($documents, $customers, $clients) = (2000, 50, 16);

row($node, $db, 'SELECT voiding.start_workers(4)');

sub wait_idle
{
  my ($name) = @_;
  local $Test::Builder::Level = $Test::Builder::Level + 1;
  return is(row($node, $db, "SELECT voiding.wait_until_idle('60 s')"), 't', $name);
}

# ---- 16 clients ----

my @all = map { { id => "D$_", customer => 'c' . int(rand $customers), cents => 1 + int(rand 100_000) } } 1 .. $documents;
my %cents = map { $_->{id} => $_->{cents} } @all;
$node->safe_psql($db, join ";\n", map { sprintf q{SELECT billing.issue_document('%s', '%s', %s)}, $_->{id}, $_->{customer}, amount($_->{cents}) } @all);
wait_idle('all documents are in their reports');

sub void_of
{
  return map { "SELECT 'void', '$_->{id}', billing.void_document('$_->{id}', 'load');" } @_;
}

sub publications
{
  my ($n) = @_;
  return map { sprintf q{SELECT 'published', report_id, total FROM reports.publish_report('c%s');}, int(rand $customers) } 1 .. $n;
}

# Its own share, some of what others void too, some publications. The last one
# does several things in a transaction, so that it holds locks while it waits;
# only one does, since two such clients can be in each other's way themselves.
sub script_of
{
  my ($i) = @_;
  my @own = map { $all[ $_ * $clients + $i ] } 0 .. $documents / $clients - 1;

  return shuffle(void_of(@own), void_of(map { $all[ rand @all ] } 1 .. 20), publications(4)) if $i > 0;
  my @script;
  while (my @few = splice @own, 0, 5)
  {
    push @script, 'BEGIN;', shuffle(void_of(@few), @own % 10 == 0 ? publications(3) : ()), 'COMMIT;';
  }
  return @script;
}

my @running;
for my $i (0 .. $clients - 1)
{
  my $c = { in => join("\n", '\set ON_ERROR_ROLLBACK on', script_of($i), ''), out => '', err => '' };

  $c->{psql} = IPC::Run::start([ 'psql', '-XAtq', '-v', 'VERBOSITY=sqlstate', '-d', $node->connstr($db) ],
    '<', \$c->{in}, '>', \$c->{out}, '2>', \$c->{err}, IPC::Run::timeout(120));
  push @running, $c;
}
my $ended = grep { eval { $_->{psql}->finish } } @running;
is($ended, $clients, 'all clients come to their end');
finished($node, $db, '16 clients');

my (%process, %published, %error);
for my $line (map { split /\n/ } map { $_->{out} } @running)
{
  my ($what, $id, $answer) = split /\|/, $line;
  $what eq 'void' ? $process{$id}{$answer}++ : ($published{$id} = $answer);
}
$error{$_}++ for map { /ERROR:  (\w+)/g } map { $_->{err} } @running;
is(join(' ', grep { !/^VD0(?:4C|9B)$/ } sort keys %error), '', 'no error but nothing to publish, and failed before')
  or diag(map { $_->{err} =~ s/^(?:psql:[^\n]*)?ERROR:  VD0(?:4C|9B)\n//mgr } @running);
is(scalar(keys %process), $documents, 'every document was asked for');
is(join(' ', grep { keys %{ $process{$_} } != 1 } sort keys %process), '', 'whoever asked was told the same process');
cmp_ok(scalar(keys %published), '>=', 20, 'reports were published meanwhile');

my @there = map { [ split /\|/, $_, -1 ] } split /\n/, row($node, $db, q{
  SELECT d.document_id, d.customer_id, d.status, d.process_id, p.state, l.status, l.report_id, r.status
    FROM billing.document d JOIN voiding.process p USING (process_id)
    JOIN reports.report_line l ON l.document_id = d.document_id
    LEFT JOIN reports.report r ON r.report_id = l.report_id});
is(scalar(@there), $documents, 'each has a process and a line');
my (@wrong, %total, %ended);
for my $d (@there)
{
  my ($id, $customer, $status, $process, $state, $line, $report, $published) = @$d;
  my $is = "$status $state $line $published";

  push @wrong, "$id: $is" unless $is eq 'voided DocumentVoided voided ' || $is eq 'issued MarkingDocumentAsVoidedFailed included published';
  push @wrong, "$id: $process" unless $process{$id}{$process};
  $total{$report} += $cents{$id} if $report ne '';
  $ended{$status}++;
}
is(join("\n", @wrong), '', 'each is voided, or in a report that was published before');
ok($ended{voided} && $ended{issued}, 'and there are both') or diag(explain(\%ended));
is(row($node, $db, q{SELECT report_id, total FROM reports.report WHERE status = 'published' ORDER BY 1}),
  join("\n", map { "$_|" . amount($total{$_}) } sort { $a <=> $b } keys %total), 'totals to the cent');
is(join(' ', map { "$_=$published{$_}" } sort keys %published), join(' ', map { "$_=" . amount($total{$_}) } sort keys %published),
  'those who published were told so');
is(row($node, $db, 'SELECT type, aggregateid, error FROM voiding.dead_letter'), '', 'no message gave up');
invariants_hold($node, $db, '16 clients');

# ---- two and four workers against one ----

my $n = $ENV{VOIDING_CONTEND} // 3000;
my %rate;

# so many workers do what is waiting; the best rate of this kind of work
sub measure
{
  my ($what, $workers, $name) = @_;
  local $Test::Builder::Level = $Test::Builder::Level + 1;
  my $start = time;

  row($node, $db, "SELECT voiding.start_workers($workers)");
  wait_idle($name);
  $rate{$what}{$workers} = max($rate{$what}{$workers} // 0, $n / (time - $start));
  row($node, $db, 'SELECT voiding.stop_workers(); ANALYZE');
  return;
}

row($node, $db, 'SELECT voiding.stop_workers()');
for my $round (1, 2)
{
  for my $workers (1, 2, 4)
  {
    my $run = "w$round.$workers";

    # the customers are new: their reports are made by whoever comes first
    row($node, $db, qq{SELECT billing.issue_document('$run/' || i, '$run/' || i % $customers, i) FROM generate_series(1, $n) i ORDER BY random()});
    measure('put into reports', $workers, "$run: all documents are in their reports");
    row($node, $db, qq{SELECT billing.void_document('$run/' || i, 'all') FROM generate_series(1, $n) i ORDER BY random()});
    measure('voided', $workers, "$run: voided");
  }
}
for my $what (sort keys %rate)
{
  my %r = %{ $rate{$what} };
  note(sprintf '%d documents of %d customers %s: %.0f/s with one worker, %.2f times that with two, %.2f with four',
    $n, $customers, $what, $r{1}, $r{2} / $r{1}, $r{4} / $r{1});
  # they meet while they make the reports of customers: few documents make that weigh more
  cmp_ok($r{$_}, '>', $r{1} * ($what eq 'voided' ? 0.5 : 0.2), "$what: $_ workers do not collapse") for 2, 4;
}
is(row($node, $db, q{SELECT count(*) FROM billing.document WHERE document_id LIKE 'w%' AND status = 'voided'}), 6 * $n, 'all of them');
is(row($node, $db, 'SELECT type, aggregateid, error FROM voiding.dead_letter'), '', 'no message gave up');
invariants_hold($node, $db, 'in the end');
$node->stop;
done_testing();
