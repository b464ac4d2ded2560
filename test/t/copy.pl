# COPY of many documents in one statement: an event and a message each, and
# memory that does not grow with their number beyond the trigger queue of
# PostgreSQL itself. Rolled back, such a COPY leaves nothing.
# By hand: what waits in the outbox is counted.

use strict;
use warnings;

use Test::More;
use Time::HiRes qw(time usleep);
use Voiding::Test;

my $node = new_node('main', max_wal_size => "'4GB'", shared_buffers => "'256MB'", autovacuum => 'off',
  full_page_writes => 'off');
my $db = new_database($node, 'copy');
my $queue_per_row = 20;    # bytes: a deferred or not yet fired row trigger, generously
my $allowance = 4 * 1024;  # kB, besides the queue

# private memory of a backend, in kB
sub anonymous
{
  my ($pid) = @_;

  open my $status, '<', "/proc/$pid/status" or return 0;
  my ($kb) = map { /^RssAnon:\s+(\d+) kB/ ? $1 : () } <$status>;
  close $status;
  return $kb // 0;
}

# COPY so many documents, the ids prefixed, then $end; how many kB the backend
# grew by at most, and by how many it is larger afterwards
sub copied
{
  my ($prefix, $rows, $end) = @_;
  my $session = $node->background_psql($db);

  # what a first event costs is not counted
  $session->query_safe("SELECT billing.issue_document('${prefix}0', 'first', 1)");
  my $pid = pid_of($session);
  my ($before, $peak) = (anonymous($pid), 0);
  my $program = qq{awk 'BEGIN { for (i = 1; i <= $rows; i++) printf "$prefix%d\\t%d\\t%d.%02d\\n", i, i % 1000, i % 500, i % 100 }'};

  $program =~ s/'/''/g;
  $session->{stdin} = "BEGIN;\nCOPY billing.document (document_id, customer_id, amount) FROM PROGRAM '$program';\n$end;\n\\echo done\n";
  while ($session->{stdout} !~ /^done$/m && $session->{run}->pumpable && !$session->{timeout}->is_expired)
  {
    my $now = anonymous($pid);

    $peak = $now if $now > $peak;
    $session->{run}->pump_nb;
    usleep(10_000);
  }
  is($session->{stderr}, '', "$rows rows copied, $end");
  my $after = anonymous($pid);
  $session->quit;
  return ($peak - $before, $after - $before);
}

sub counts
{
  return row($node, $db, q{SELECT (SELECT count(*) FROM billing.document), (SELECT count(*) FROM voiding.event),
    (SELECT count(*) FROM voiding.outbox)});
}

# ---- rolled back ----

my ($peak) = copied('r', 100_000, 'ROLLBACK');
is(counts(), '1|1|1', 'a COPY that is rolled back leaves nothing');
cmp_ok($peak, '<', 100_000 * $queue_per_row / 1024 + $allowance, 'a hundred thousand rows: memory');

# ---- a million ----

my $start = time;
my ($large, $kept) = copied('m', 1_000_000, 'COMMIT');
note sprintf 'a million rows in %.1f s; %d kB, %d kB kept', time - $start, $large, $kept;
is(counts(), '1000002|1000002|1000002', 'a million rows: an event and a message each');
cmp_ok($large, '<', 1_000_000 * $queue_per_row / 1024 + $allowance, 'a million rows: memory is that of the trigger queue');
cmp_ok($kept, '<', $allowance, 'and is given back');

is(row($node, $db, q{
    SELECT count(*), count(DISTINCT event_id), count(DISTINCT correlation_id), max(position) - min(position) + 1
      FROM voiding.event WHERE subject LIKE 'm%' AND subject <> 'm0'}),
  '1000000|1000000|1000000|1000000', 'each event is one, with its own id and position');
is(row($node, $db, q{
    SELECT count(*) FROM voiding.event e JOIN billing.document d ON d.document_id = e.subject
     WHERE (e.type, e.source) = ('DocumentIssued', 'billing')
       AND e.data @> jsonb_build_object('document_id', d.document_id, 'customer_id', d.customer_id, 'amount', d.amount,
                                        'currency', d.currency::text)}),
  '1000002', 'and says what is in the row');
is(row($node, $db, q{
    SELECT count(*), min(o.bucket), max(o.bucket) FROM voiding.outbox o JOIN voiding.event e ON e.event_id = o.id
     WHERE o.destination = 'reports' AND o.payload = e.data AND o.aggregateid = e.subject}),
  '1000002|0|63', 'and so does each message');

# ---- some of it is handled ----

is(row($node, $db, q{SELECT voiding.dispatch('reports', 200)}), '200', 'a batch of it is handled');
is(row($node, $db, q{SELECT count(*) FROM reports.report_line}), '200', 'and done');
is(counts(), '1000002|1000002|999802', 'the rest waits');
is(row($node, $db, q{
    SELECT count(*) FROM reports.report_line l JOIN billing.document d USING (document_id)
     WHERE l.amount = d.amount AND l.customer_id = d.customer_id}), '200', 'with the right amounts');
$node->stop;
done_testing();
