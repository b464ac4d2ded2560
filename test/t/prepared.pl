# PREPARE TRANSACTION after events, messages and process steps: COMMIT PREPARED
# brings them in, also after a restart, ROLLBACK PREPARED leaves nothing; NOTIFY
# is never in the way, and everybody else goes on meanwhile. By hand in parts: what waits is counted.

use strict;
use warnings;

use Test::More;
use Voiding::Test;

my $node = new_node('main', serve => ['prepared']);
my $db = serve($node, new_database($node, 'prepared'));

sub counts
{
  return row($node, $db, q{SELECT (SELECT count(*) FROM voiding.event), (SELECT count(*) FROM voiding.outbox),
    (SELECT count(*) FROM voiding.active_process), (SELECT count(*) FROM voiding.timer), (SELECT count(*) FROM billing.document)});
}

sub runs
{
  my ($sql, $name) = @_;
  is(error_of($node, $db, $sql), '', $name);
  return;
}

sub nothing_to_do
{
  my ($name) = @_;
  local $Test::Builder::Level = $Test::Builder::Level + 1;
  my $before = counts();

  settle($node, $db);
  return is(counts(), $before, $name);
}

$node->safe_psql($db, q{SELECT billing.issue_document(d, 'c', 10) FROM unnest('{A,B,C,I}'::text[]) d});
settle($node, $db);
my $before = counts();

# ---- prepared: nobody sees it, nothing is handled ----

runs(q{BEGIN; SELECT billing.void_document('A', 'typo'); SELECT billing.issue_document('D', 'c', 5);
  PREPARE TRANSACTION 'a'}, 'a voiding can be prepared');
is(counts(), $before, 'nobody sees it');
nothing_to_do('there is nothing to do');

# others, their process of the same type included, are not held up
$node->safe_psql($db, q{SELECT billing.void_document('B', 'typo'), billing.issue_document('E', 'c2', 5)});
settle($node, $db);
is(row($node, $db, q{SELECT status FROM billing.document WHERE document_id = 'B'}), 'voided', 'another voiding goes on');
is(row($node, $db, q{SELECT customer_id FROM reports.report_line WHERE document_id = 'E'}), 'c2', 'another document too');
invariants_hold($node, $db, 'while one is prepared');

$node->restart;
by_hand($node, $db);
nothing_to_do('after a restart still nothing to do');
runs(q{COMMIT PREPARED 'a'}, 'committed later');
is(row($node, $db, q{SELECT string_agg(key || ' ' || state, ',') FROM voiding.ongoing_process}),
  'A VoidingRequested', 'then the process runs');
is(row($node, $db, q{SELECT string_agg(type, ' ' ORDER BY seq) FROM voiding.outbox}),
  'MarkDocumentAsVoided DocumentIssued', 'and its messages wait');
serve($node, $db);
settle($node, $db);
is(row($node, $db, q{SELECT status FROM billing.document WHERE document_id = 'A'}), 'voided', 'then all the rest is done');
is(row($node, $db, q{SELECT status FROM reports.report_line WHERE document_id = 'D'}), 'included', 'of all of it');

# ---- the positions of what came in late are smaller than what has been handled ----

is(row($node, $db, q{SELECT (SELECT max(position) FROM voiding.event WHERE correlation_id IN
      (SELECT process_id FROM billing.document WHERE document_id = 'A') AND type = 'DocumentVoidingRequested')
    < (SELECT position FROM voiding.event WHERE type = 'DocumentVoided' AND subject = 'B')}),
  't', 'though it was written before what has been handled since');

# ---- rolled back: nothing ----

$before = counts();
runs(q{BEGIN; SELECT billing.void_document('C'); SELECT billing.issue_document('F', 'c', 5);
  SAVEPOINT s; SELECT billing.issue_document('G', 'c', 5); ROLLBACK TO s; PREPARE TRANSACTION 'b'},
  'prepared with a savepoint');
runs(q{ROLLBACK PREPARED 'b'}, 'rolled back');
is(counts(), $before, 'nothing is left');
is(row($node, $db, q{SELECT status FROM billing.document WHERE document_id = 'C'}), 'issued', 'the document is as it was');
nothing_to_do('there is nothing to do');

# ---- committed while somebody waits for work, whom nobody tells ----

runs(q{BEGIN; SELECT billing.void_document('I', 'typo'); SELECT billing.issue_document('J', 'c', 5);
  PREPARE TRANSACTION 'i'}, 'another one prepared');
nothing_to_do('nobody sees that either');
runs(q{COMMIT PREPARED 'i'}, 'committed');
settle($node, $db);
is(row($node, $db, q{SELECT d.status, l.status FROM billing.document d JOIN reports.report_line l USING (document_id)
  WHERE document_id IN ('I', 'J') ORDER BY document_id}), "voided|voided\nissued|included", 'and done');

# ---- other things that speak ----

by_hand($node, $db);

runs(q{BEGIN; SELECT billing.void_document('C'); SELECT voiding.dispatch(); PREPARE TRANSACTION 'c'},
  'dispatch() can be prepared');
runs(q{COMMIT PREPARED 'c'}, 'and committed');
is(row($node, $db, q{SELECT status FROM billing.document WHERE document_id = 'C'}), 'voided', 'with what the handlers did');

serve($node, $db);
$node->safe_psql($db, q{SELECT reports.publish_report('c2'); SELECT billing.void_document('E')});
settle($node, $db);
runs(q{BEGIN; SELECT voiding.acknowledge_process_failure(process_id, 'seen') FROM voiding.ongoing_process;
  PREPARE TRANSACTION 'd'}, 'an acknowledgement can be prepared');
runs(q{COMMIT PREPARED 'd'}, 'and committed');
is(row($node, $db, 'SELECT count(*) FROM voiding.ongoing_process'), '0', 'the failure is acknowledged');

by_hand($node, $db);
$node->safe_psql($db, q{
  SELECT voiding.create_service('deaf');
  CREATE FUNCTION deaf.hear(document_id text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'what?'; END $$;
  SELECT voiding.subscribe('DocumentIssued', 'deaf.hear');
  SELECT billing.issue_document('H', 'c', 1);
  SET voiding.retry_limit = 1;
  SELECT voiding.dispatch('deaf')});
is(row($node, $db, 'SELECT count(*) FROM voiding.dead_letter'), '1', 'a message gave up');
runs(q{BEGIN; SELECT voiding.retry_message(id, 'again') FROM voiding.dead_letter; PREPARE TRANSACTION 'e'},
  'a repair can be prepared');
runs(q{COMMIT PREPARED 'e'}, 'and committed');
$node->safe_psql($db, q{CREATE OR REPLACE FUNCTION deaf.hear(document_id text) RETURNS void LANGUAGE sql AS ''});
is(row($node, $db, 'SELECT count(*) FROM voiding.outbox'), '2', 'the message waits again, with one for Reports');
serve($node, $db);
settle($node, $db);
is(row($node, $db, 'SELECT count(*) FROM pg_prepared_xacts'), '0', 'nothing is prepared any more');
is(row($node, $db, 'SELECT count(*) FROM voiding.outbox'), '0', 'nothing is left to do');
invariants_hold($node, $db, 'at the end');
$node->stop;
done_testing();
