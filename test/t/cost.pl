# What a voiding process costs, and an event from a row, in counts in which
# there is no clock: what makes it dearer is seen at once, on any machine.
#
# When a bound is exceeded: take back what made it dearer, or set it anew and
# say in the commit why it is worth that. When it has become cheaper, lower it.
#   script/unprivileged env TAP_TESTS='-v test/t/cost.pl' script/suites tap
# shows all that is counted, and in which tables and indexes.

use strict;
use warnings;

use Config;
use Test::More;
use Voiding::Cost;
use Voiding::Test;

# For one process, or one row. Measured on PostgreSQL 15, in several runs: these
# counts differ by less than 1 %, and on 17 and 18 buffers by 2 %. So the
# margins are small: what one decides (rows, commits, plans) has none; for the
# rest 5 %, or less where one row, record or index look-up more would be lost in
# that. Instructions have 15 %, for other libraries and processors.
#
# request: by the client. rest: three messages, by dispatch(), 60 in a round.
# alone: the whole of it, a message in a round. worker: the rest by a worker; what
# it does by the clock is left out. .../after: how much more after 20,000
# processes. bulk: a row of a statement with 10,000.
my $bounds = <<'END';
# case           figure           measured     bound
request          inserts                 4         4   active_process, timer, event, outbox
request          updates                 1         1   document
request          deletes                 0         0
request          wal_records          16.5      17.2
request          wal_bytes            2247      2360
request          buffers              38.2        40   an index look-up is 2 or 3
request          entries_read            1       1.1   of indexes
request          rows_scanned            0       0.1   in whole tables
request          plans                   1         1   the client's own statement
request          plans_kept              0         0
request          catalog_scans           0      0.05

rest             commits            0.0525    0.0525   as many as rounds
rest             inserts                 6         6   2 event, 2 outbox, timer, finished_process
rest             updates                 4         4   2 report_line, document, active_process
rest             deletes                 6         6   3 outbox, 2 timer, active_process
rest             wal_records          33.1      33.8
rest             wal_bytes            4260      4470
rest             buffers             112.4       115
rest             entries_read           21        22
rest             rows_scanned            0       0.1
rest             plans               0.225      0.23   a round of dispatch() is four or more, for 20 processes
rest             plans_kept              0         0
rest             catalog_scans           0      0.05

alone            inserts                10        10
alone            updates                 5         5
alone            deletes                 6         6
alone            wal_records          53.4      54.2
alone            wal_bytes            6600      6930
alone            buffers             248.4       254   most of them to look into 64 buckets
alone            entries_read           22        23
alone            rows_scanned            2       2.1   in active_process, by sweep_parked()
alone            plans                  13        13   4 in each round of dispatch()
alone            plans_kept              0         0
alone            catalog_scans           0      0.05

worker           commits              0.01       0.1   as many as batches
worker           inserts                 4         4   2 event, timer, finished_process
worker           updates                 4         4
worker           deletes                 4         4   outbox, 2 timer, active_process
worker           wal_records          26.6      27.3
worker           wal_bytes            3240      3400
worker           buffers              92.4      94.6
worker           entries_read         12.2        13
worker           rows_scanned            0       0.1
worker           plans                   0       0.1
worker           catalog_scans           0       0.5   a worker looks into pg_extension each second

request/after    entries_read            0       0.1
request/after    rows_scanned            0       0.1
request/after    buffers                 0         2   a level more of an index
rest/after       entries_read         0.03       0.5
rest/after       rows_scanned            0       0.1
rest/after       buffers               3.3         6   levels of four indexes
worker/after     entries_read            0       0.5
worker/after     rows_scanned            0       0.1
worker/after     buffers              -0.4         2

captured         inserts                 1         1
captured         updates                 1         1
captured         wal_records          5.02       5.2
captured         wal_bytes             424       445
captured         buffers              14.3      14.9   2 of the index by which read_events() finds its window
captured         plans                   0         0
captured         plans_kept              0         0
captured         catalog_scans           0      0.05
captured/plain   wal_records          1.01      1.04   beside a plain INSERT of the same event; a page of the index of the feed now and then
captured/plain   wal_bytes           0.996      1.02
captured/plain   buffers              1.34       1.4   PostgreSQL fetches rows for any row trigger

bulk             inserts                 2         2
bulk             updates                 0         0
bulk             wal_records          4.04       4.2
bulk             wal_bytes             465       488
bulk             buffers             10.13      10.5
bulk             plans                   0      0.01
bulk             plans_kept              0         0
bulk             catalog_scans           0      0.01
bulk/plain       wal_records             1      1.02   beside a statement trigger by hand
bulk/plain       wal_bytes               1      1.02
bulk/plain       buffers              1.14      1.17

instructions     request            440000    506000
instructions     rest               771000    887000
instructions     alone             5090000   5850000
instructions     captured           169000    194000
instructions     captured/plain       0.79      0.91
END

use constant {
  CUSTOMERS => 20,
  WARM => 200,         # processes after which a session has made its plans
  PROCESSES => 400,    # whose cost is measured at a time
  BATCH => 60,         # messages in a round of dispatch()
  ALONE => 100,        # processes one at a time
  SHORT => 1000,       # processes that a worker does before it goes
  LONG => 2000,
  HISTORY => 4,        # times 5,000 processes that have ended
  CHANGES => 400,      # of captured rows
  ROWS => 10_000,      # captured in one statement
};

my $node = new_node('main', settings_for_counting());
# from 17 on a BRIN index keeps what it needs to insert to the end of a statement; here each row is one
$bounds =~ s{^(bulk/plain +buffers).*}{$1  1.418  1.45}m if row($node, 'postgres', 'SHOW server_version_num') >= 170000;
my @bounds = read_bounds($bounds);
my $db = new_database($node, 'cost');
my $session;
my ($issued, $voided) = (0, 0);

# begin with plans of our own, for tables that are known
sub new_session
{
  my $tables = row($node, $db, q{SELECT string_agg(format('%I.%I', schemaname, relname), ', ') FROM pg_stat_user_tables});

  $session->quit if $session;
  $node->safe_psql($db, $_) for "VACUUM ANALYZE $tables", 'CHECKPOINT';
  $session = $node->background_psql($db);
  return;
}

sub keeps
{
  my ($case, $cost) = @_;
  local $Test::Builder::Level = $Test::Builder::Level + 1;
  return keeps_bounds($case, $cost, @bounds);
}

# ---- the work ----

# everything that is to be done, by hand
sub finish
{
  $session->query_safe('DO $$ BEGIN WHILE voiding.dispatch(batch_size => 1000) > 0 LOOP COMMIT; END LOOP; END $$');
  return;
}

# so many more documents, of which Reports knows
sub issue
{
  my ($n) = @_;

  $session->query_safe(sprintf q{INSERT INTO billing.document (document_id, customer_id, amount)
    SELECT 'D' || i, 'C' || i %% %d, 10 FROM generate_series(%d, %d) i}, CUSTOMERS, $issued + 1, $issued + $n);
  $issued += $n;
  finish();
  return;
}

# requests to void the next n of them
sub requests
{
  my ($n) = @_;

  $voided += $n;
  return map { "SELECT billing.void_document('D$_', 'entered twice')" } $voided - $n + 1 .. $voided;
}

# rounds that do the rest of n processes, three messages each
sub rounds
{
  my ($n) = @_;
  return ('SELECT voiding.dispatch(batch_size => ' . BATCH . ')') x ($n * 3 / BATCH);
}

# n processes, one after the other, a round for each message
sub one_at_a_time
{
  my ($n) = @_;
  return map { ($_, ('SELECT voiding.dispatch(batch_size => 1)') x 3) } requests($n);
}

# The cost of the request and of the rest, in a session that has done it before.
sub cost_of_process
{
  my ($name) = @_;
  my ($round) = rounds(PROCESSES);

  issue(WARM + PROCESSES);
  new_session();
  run($session, requests(WARM), rounds(WARM));
  my @requests = requests(PROCESSES);
  my @cost = map { cost_of($session, PROCESSES, $_) } sub { run($session, @requests) },
    sub { 1 while $session->query_safe($round) ne '0' };
  nothing_is_left($name);
  return @cost;
}

sub nothing_is_left
{
  my ($name) = @_;
  local $Test::Builder::Level = $Test::Builder::Level + 1;
  return is(row($node, $db, q{SELECT (SELECT count(*) FROM voiding.outbox), (SELECT count(*) FROM voiding.ongoing_process),
    (SELECT count(*) FROM billing.document WHERE status = 'issued' AND process_id IS NULL)}), '0|0|0', "$name: that was all of it");
}

# ---- a process, by hand ----

new_session();
$session->query_safe('CREATE EXTENSION pg_stat_statements SCHEMA public');
my ($request, $rest) = cost_of_process('by hand');
keeps('request', $request);
keeps('rest', $rest);

issue(ALONE + 20);
new_session();
run($session, one_at_a_time(20));
my @alone = one_at_a_time(ALONE);
keeps('alone', cost_of($session, ALONE, sub { run($session, @alone) }));
nothing_is_left('one at a time');

# ---- the rest of it, by a worker ----

# What a worker has counted is there when it has gone. How often it is asked how
# far it is does not count: that is up to the clock.
sub life
{
  my ($n) = @_;
  my $others = qq{SELECT count(*) FROM pg_stat_activity WHERE datname = '$db' AND backend_type <> 'client backend'};
  my $questions = 0;

  run($session, requests($n));
  new_session();
  $session->query_safe('PREPARE handled AS SELECT coalesce(sum(handled), 0) FROM voiding.counters()');
  my $before = counters($session);
  my $handled = $session->query_safe('EXECUTE handled');
  $session->query_safe('SELECT voiding.start_workers(1)');
  ok(poll_until(sub { $questions++; $session->query_safe('EXECUTE handled') >= $handled + 3 * $n }), "a worker does $n processes");
  $session->query_safe('SELECT voiding.stop_workers()');
  poll_until(sub { row($node, 'postgres', $others) eq '0' }) or die "the worker does not go\n";
  my $cost = difference(counters($session), $before);
  $cost->{commits} -= $questions;
  return $cost;
}

# What it costs to come, to learn and to go is the same in two lives, one longer
# than the other. No hints: those are sent by the clock.
sub cost_by_worker
{
  my ($name) = @_;

  issue(SHORT + LONG);
  $session->query_safe("ALTER DATABASE $db SET voiding.notify = off");
  my ($short, $long) = map { life($_) } SHORT, LONG;
  $session->query_safe("ALTER DATABASE $db RESET voiding.notify");
  nothing_is_left($name);
  return divided(difference($long, $short), LONG - SHORT);
}

my $worker = cost_by_worker('by a worker');
keeps('worker', $worker);

# ---- the same after many ----

# 5,000 processes that have ended, 500 of them in failure: their reports were published
sub make_history
{
  issue(5000);
  run($session, requests(4500));
  finish();
  $session->query_safe(sprintf q{SELECT count(r) FROM generate_series(0, %d) i, reports.publish_report('C' || i) r}, CUSTOMERS - 1);
  run($session, requests(500));
  finish();
  $session->query_safe('SELECT voiding.acknowledge_process_failure(process_id) FROM voiding.ongoing_process');
  finish();
  new_session();
  return;
}

make_history() for 1 .. HISTORY;
cmp_ok(row($node, $db, 'SELECT count(*) FROM voiding.finished_process'), '>=', 20_000, 'there is a history');
my ($request_then, $rest_then) = cost_of_process('after many');
keeps('request/after', difference($request_then, $request));
keeps('rest/after', difference($rest_then, $rest));
keeps('worker/after', difference(cost_by_worker('by a worker after many'), $worker));

# ---- an event from a row, and a plain INSERT of the same ----

# what "shop" does with capture, "hand" does without
$session->query_safe(q{
  SELECT voiding.create_service('shop');
  CREATE TABLE shop.thing (id text PRIMARY KEY, n integer NOT NULL, note text) WITH (fillfactor = 70);
  CREATE TRIGGER added AFTER INSERT ON shop.thing FOR EACH ROW
    EXECUTE FUNCTION voiding.emit_event('ThingAdded', 'id', 'n', 'note');
  CREATE TRIGGER changed AFTER UPDATE ON shop.thing FOR EACH ROW
    EXECUTE FUNCTION voiding.emit_event('ThingChanged', 'id', 'n');

  CREATE SCHEMA hand;
  CREATE TABLE hand.thing (LIKE shop.thing INCLUDING ALL) WITH (fillfactor = 70);
  CREATE TABLE hand.event (LIKE voiding.event_p0 INCLUDING ALL);
  CREATE SEQUENCE hand.position;
  CREATE FUNCTION hand.added() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN
    INSERT INTO hand.event
    SELECT nextval('hand.position'), e, 'ThingAdded', 'shop', id, e, NULL, jsonb_build_object('id', id, 'n', n, 'note', note),
           clock_timestamp(), pg_current_xact_id(), session_user, NULL, NULL
      FROM (SELECT gen_random_uuid() AS e, * FROM added) a;
    RETURN NULL;
  END $$;
  CREATE TRIGGER added AFTER INSERT ON hand.thing REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION hand.added();
});

my @prepare = (
  (map { "PREPARE add_$_(integer, integer) AS INSERT INTO $_.thing"
      . q{ SELECT 'T' || i, i, 'a thing that is captured' FROM generate_series($1, $2) i} } qw(shop hand)),
  q{PREPARE change_shop(text) AS UPDATE shop.thing SET n = n + 1 WHERE id = $1},
  q{PREPARE change_hand(text) AS WITH changed AS (UPDATE hand.thing SET n = n + 1 WHERE id = $1 RETURNING id, n)
    INSERT INTO hand.event
    SELECT nextval('hand.position'), e, 'ThingChanged', 'shop', id, e, NULL, jsonb_build_object('id', id, 'n', n),
           clock_timestamp(), pg_current_xact_id(), session_user, NULL, NULL
      FROM changed, gen_random_uuid() e});
s{\n\s*}{ }g for @prepare;    # a backend that is alone reads line by line

sub changes { my ($by, @n) = @_; return map { "EXECUTE change_$by('T$_')" } @n }

run($session, @prepare, map { "EXECUTE add_$_(1, 1000)" } qw(shop hand));
my ($added, $added_plain) = map {
  my $statement = "EXECUTE add_$_(1001, 1000 + " . ROWS . ')';
  cost_of($session, ROWS, sub { run($session, $statement) })
} qw(shop hand);
keeps('bulk', $added);
keeps('bulk/plain', ratio($added, $added_plain));

run($session, 'VACUUM ANALYZE', changes('shop', 1 .. 10), changes('hand', 1 .. 10));
my ($changed, $changed_plain) = map {
  my @statements = changes($_, 1001 .. 1000 + CHANGES);
  cost_of($session, CHANGES, sub { run($session, @statements) })
} qw(shop hand);
keeps('captured', $changed);
keeps('captured/plain', ratio($changed, $changed_plain));

invariants_hold($node, $db, 'at the end');

# ---- instructions: those depend on the compiler and the version too ----

SKIP: {
  my $reason = row($node, $db, 'SHOW server_version_num') !~ /^15/ || $Config{archname} !~ /^x86_64/
    ? 'bounds are known for PostgreSQL 15 on x86-64' : no_instructions();

  if ($reason)
  {
    @bounds = grep { $_->{case} ne 'instructions' } @bounds;
    skip("instructions: $reason", 1);
  }
  issue(260);
  new_session();
  $session->quit;
  $node->stop;
  my $n = instructions($node, $db,
    [ 'warm', 1, requests(40), ('SELECT voiding.dispatch(batch_size => 12)') x 10, @prepare, changes('shop', 1 .. 10), changes('hand', 1 .. 10) ],
    [ 'request', 100, requests(100) ],
    [ 'rest', 100, rounds(100) ],
    [ 'warm again', 1, one_at_a_time(20) ],
    [ 'alone', 100, one_at_a_time(100) ],
    [ 'captured', 100, changes('shop', 2001 .. 2100) ],
    [ 'plain', 100, changes('hand', 2001 .. 2100) ]);
  keeps('instructions', { %$n, 'captured/plain' => $n->{captured} / $n->{plain} });
}

is(bounds_left(@bounds), '', 'every bound has been looked at');
done_testing();
