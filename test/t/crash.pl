# The server dies in the middle of dispatch(): nothing is lost, nothing is done
# twice, and whoever comes next finishes it.
# By hand: the session that dispatches is killed.

use strict;
use warnings;

use Test::More;
use Voiding::Test;

# a backend that dies takes the others with it, and the server comes back
my $node = new_node('main', restart_after_crash => 'on');
my $db = new_database($node, 'crash');
my $documents = 600;

# A gate in Reports: who comes to document D<n> waits while the test holds n.
$node->safe_psql($db, q{
  CREATE FUNCTION public.gate() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN
    PERFORM pg_advisory_xact_lock(substr(NEW.document_id, 2)::bigint);
    RETURN NEW;
  END $$;
  CREATE TRIGGER gate BEFORE INSERT OR UPDATE ON reports.report_line FOR EACH ROW EXECUTE FUNCTION public.gate()});

sub issue
{
  $node->safe_psql($db, qq{SELECT billing.issue_document('D' || i, 'c' || i % 7, i) FROM generate_series(1, $documents) i});
  return;
}

# dispatch() in a session of its own, up to the document that is held
sub stopped_at
{
  my ($document, $batch_size) = @_;
  my $holder = $node->background_psql($db);
  my $worker = $node->background_psql($db);

  $holder->query_safe("SELECT pg_advisory_lock($document)");
  my $pid = pid_of($worker);
  $worker->{stdin} .= "SELECT voiding.dispatch(NULL, $batch_size);\n" x 200;
  $worker->{run}->pump_nb;
  ok(poll_until(sub {
        $worker->{run}->pump_nb if $worker->{run}->pumpable;
        row($node, $db, "SELECT wait_event FROM pg_stat_activity WHERE pid = $pid") eq 'advisory';
      }, 60), "dispatch() is at document $document");
  return ($pid, $holder, $worker);
}

sub comes_back
{
  my ($logged, @sessions) = @_;

  $node->wait_for_log(qr/database system is ready to accept connections/, $logged);
  # psql has lost its connection: that it says so is all that there is to say
  eval { $_->quit } for @sessions;
  return;
}

sub state_of
{
  return row($node, $db, q{SELECT (SELECT count(*) FROM voiding.outbox), (SELECT count(*) FROM voiding.event),
    (SELECT count(*) FROM reports.report_line), (SELECT count(*) FROM reports.report_line WHERE status = 'voided')});
}

# ---- one large batch, which had done most of its work ----

issue();
my $before = state_of();
my ($pid, @sessions) = stopped_at($documents - 5, 10_000);
my $logged = -s $node->logfile;
kill 'KILL', $pid;
comes_back($logged, @sessions);
is(state_of(), $before, 'a backend is killed in its batch: as if it had never begun');
invariants_hold($node, $db, 'after the crash');

# ---- many small batches: those that were committed stay ----

($pid, @sessions) = stopped_at($documents - 5, 25);
$logged = -s $node->logfile;
kill 'KILL', $pid;
comes_back($logged, @sessions);
my ($waiting, $events, $lines) = split /\|/, state_of();
cmp_ok($lines, '>', 0, 'batches that were committed stay');
cmp_ok($waiting, '>', 0, 'the others wait');
is($waiting + $lines, $documents, 'none is lost, none is there twice');
invariants_hold($node, $db, 'after the second crash');

# ---- the whole server, stopped dead, with voidings under way ----

drain($node, $db);
is(state_of(), "0|$documents|$documents|0", 'every document is in a report, once');
$node->safe_psql($db, qq{SELECT billing.void_document('D' || i, 'wrong') FROM generate_series(1, $documents, 2) i});
my $half = $documents / 2;

for my $how (qw(backend postmaster immediate))
{
  my $mode = { backend => 40, postmaster => 30, immediate => 20 }->{$how};

  ($pid, @sessions) = stopped_at($half + 1, $mode);
  $logged = -s $node->logfile;
  if ($how eq 'backend')
  {
    kill 'KILL', $pid;
  }
  else
  {
    $how eq 'postmaster' ? $node->kill9 : $node->stop('immediate');
    ok(poll_until(sub { !kill 0, $pid }, 60), 'no backend is left');
    $node->start;
  }
  comes_back($logged, @sessions);
  invariants_hold($node, $db, "$how killed");
}

# ---- and then it is finished ----

drain($node, $db, 'NULL, 1000');
is(row($node, $db, q{SELECT count(*), count(*) FILTER (WHERE status = 'voided'), count(DISTINCT process_id) FROM billing.document}),
  "$documents|$half|$half", 'each voiding is done');
is(row($node, $db, q{SELECT status, count(*), sum(amount) FROM reports.report_line GROUP BY 1 ORDER BY 1}),
  row($node, $db, q{SELECT CASE status WHEN 'issued' THEN 'included' ELSE status END, count(*), sum(amount) FROM billing.document GROUP BY 1 ORDER BY 1}),
  'and Reports agrees with Billing');
is(row($node, $db, q{SELECT type, count(*), count(DISTINCT subject) FROM voiding.event GROUP BY 1 ORDER BY 1}),
  join("\n", "DocumentIssued|$documents|$documents", map { "$_|$half|$half" }
      qw(DocumentVoided DocumentVoidingRequested MarkingDocumentAsVoidedSucceeded)), 'each thing was said once');
is(row($node, $db, q{SELECT state, count(*) FROM voiding.process GROUP BY 1}), "DocumentVoided|$half", 'each process has ended');
is(row($node, $db, q{SELECT (SELECT count(*) FROM voiding.outbox), (SELECT count(*) FROM voiding.dead_letter),
    (SELECT count(*) FROM voiding.timer), (SELECT count(*) FROM voiding.active_process)}), '0|0|0|0', 'and nothing is left over');
invariants_hold($node, $db, 'at the end');
$node->stop;
done_testing();
