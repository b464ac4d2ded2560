# Handlers that do what they should not, with a worker: it fails by itself and
# gives up; what is beside it is handled, once; the next handler finds the
# session as it was, and the worker lives.

use strict;
use warnings;

use Test::More;
use Voiding::Test;

my $node = new_node('main', max_worker_processes => 20, 'voiding.retry_base' => 1, 'voiding.retry_limit' => 3);
my $db = new_database($node, 'bad');

$node->safe_psql($db, q{
  SELECT voiding.create_service('shop');
  CREATE TABLE shop.seen (id bigint GENERATED ALWAYS AS IDENTITY, tag text, key text, n integer);
  CREATE TABLE shop.session (id bigint GENERATED ALWAYS AS IDENTITY, what text);
  CREATE TABLE shop.lockable (name text PRIMARY KEY, value integer NOT NULL DEFAULT 0);
  INSERT INTO shop.lockable VALUES ('a'), ('b');
  CREATE FUNCTION shop.see(tag text, subject text, n integer) RETURNS void LANGUAGE sql AS
    'INSERT INTO shop.seen (tag, key, n) VALUES (tag, subject, n)';
  CREATE FUNCTION shop.run(what text) RETURNS void LANGUAGE plpgsql AS 'BEGIN EXECUTE what; END';
  -- lock_timeout is what a worker changes itself
  CREATE FUNCTION shop.look() RETURNS void LANGUAGE sql AS $$
    INSERT INTO shop.session (what)
    SELECT string_agg(x, E'\n' ORDER BY x) FROM (
      SELECT name || '=' || setting FROM pg_settings WHERE name <> 'lock_timeout'
      UNION ALL SELECT 'user=' || current_user || ' ' || session_user
      UNION ALL SELECT 'own=' || coalesce(current_setting('shop.own', true), '')
      UNION ALL SELECT 'schemas=' || current_schemas(true)::text
      UNION ALL SELECT 'temporary=' || pg_my_temp_schema()
      UNION ALL SELECT 'cursor=' || name FROM pg_cursors
      UNION ALL SELECT 'prepared=' || name FROM pg_prepared_statements
      UNION ALL SELECT 'listening=' || c FROM pg_listening_channels() c) s(x) $$;
  CREATE FUNCTION shop.deep(n integer) RETURNS integer LANGUAGE plpgsql AS 'BEGIN RETURN shop.deep(n + 1); END';
  CREATE FUNCTION shop.commit() RETURNS void LANGUAGE plpgsql AS 'BEGIN INSERT INTO shop.lockable VALUES (''c''); COMMIT; END';
  CREATE FUNCTION shop.roll_back() RETURNS void LANGUAGE plpgsql AS 'BEGIN INSERT INTO shop.lockable VALUES (''c''); ROLLBACK; END';
  CREATE PROCEDURE shop.committing() LANGUAGE plpgsql AS 'BEGIN INSERT INTO shop.lockable VALUES (''c''); COMMIT; END';
  CREATE FUNCTION shop.leave_cursor() RETURNS void LANGUAGE plpgsql AS $$
  DECLARE
    open_one CURSOR FOR SELECT * FROM shop.lockable;
    one record;
  BEGIN
    OPEN open_one;
    FETCH open_one INTO one;
  END $$;
  CREATE FUNCTION shop.lock_both() RETURNS void LANGUAGE plpgsql AS $$
  BEGIN
    UPDATE shop.lockable SET value = value + 1 WHERE name = 'a';
    UPDATE shop.lockable SET value = value + 1 WHERE name = 'b';
  END $$;
  SELECT voiding.subscribe('Said', 'shop.see');
  SELECT voiding.subscribe('Look', 'shop.look');
  SELECT voiding.subscribe('Run', 'shop.run');
  SELECT voiding.subscribe('LeaveCursor', 'shop.leave_cursor');
  SELECT voiding.subscribe('LockBoth', 'shop.lock_both');
  SELECT voiding.start_workers(1)});
my $worker = row($node, $db, 'SELECT pid FROM voiding.worker');

# what the handlers that look have found since the last time, each line once
sub session_of_worker
{
  return row($node, $db, q{WITH s AS (DELETE FROM shop.session RETURNING what)
    SELECT DISTINCT regexp_split_to_table(what, E'\n') FROM s ORDER BY 1});
}

sub wait_idle
{
  my ($name) = @_;
  local $Test::Builder::Level = $Test::Builder::Level + 1;
  return is(row($node, $db, "SELECT voiding.wait_until_idle('30 s')"), 't', $name)
    || diag(row($node, $db, 'SELECT type, attempts, left(error, 200) FROM voiding.outbox'));
}

sub dead
{
  return row($node, $db, q{SELECT string_agg(DISTINCT sqlstate, ' ') FROM voiding.dead_letter});
}

my $tag = 0;

# In one commit, so that they are one batch: others before it and after it, one
# of them for the same key, and some that look at the session.
sub around
{
  my ($type, $data) = @_;

  $tag++;
  $data =~ s/'/''/g;
  $node->safe_psql($db, qq{
    BEGIN;
    SELECT voiding.emit('Said', 'before' || i, jsonb_build_object('tag', '$tag', 'n', i), 'shop') FROM generate_series(1, 5) i;
    SELECT voiding.emit('$type', 'bad', '$data', 'shop');
    SELECT voiding.emit('Said', 'bad', '{"tag": "$tag", "n": 0}', 'shop');
    SELECT voiding.emit('Said', 'after' || i, jsonb_build_object('tag', '$tag', 'n', i), 'shop') FROM generate_series(1, 5) i;
    SELECT voiding.emit('Look', 'look' || i, '{}', 'shop') FROM generate_series(1, 5) i;
    COMMIT});
  return;
}

around('Look', '{}');
wait_idle('nothing has happened yet');
my $before = session_of_worker();
unlike($before, qr/^(?:cursor|prepared|listening)=/m, 'a worker has nothing open in the beginning');

sub is_harmless
{
  my ($name, $sqlstate) = @_;
  local $Test::Builder::Level = $Test::Builder::Level + 1;

  wait_idle("$name: nothing waits");
  is(row($node, $db, qq{SELECT (SELECT string_agg(DISTINCT sqlstate, ' ') FROM voiding.dead_letter),
      (SELECT count(*) FROM shop.seen WHERE tag = '$tag'), (SELECT count(DISTINCT key) FROM shop.seen WHERE tag = '$tag'),
      (SELECT count(*) FROM shop.lockable), (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'), (SELECT pid FROM voiding.worker)}),
    "$sqlstate|11|11|2|0|$worker", "$name: " . ($sqlstate eq '' ? 'handled' : "gives up with $sqlstate")
      . '; others are handled, once; nothing is left of it; the worker lives');
  same_lines(session_of_worker(), $before, "$name: the next one finds the session as it was");
  $node->safe_psql($db, q{SELECT voiding.discard_message(id, 'tested') FROM voiding.dead_letter}) if $sqlstate ne '';
  return;
}

# ---- what a handler does, and how that ends ----

for my $bad (
  [ 'an error', q{DO 'BEGIN RAISE ''no''; END'}, 'P0001' ],
  [ 'an error of ten megabytes', q{DO 'BEGIN RAISE ''%'', repeat(''no'', 5000000); END'}, 'P0001' ],
  [ 'recursion without an end', 'SELECT shop.deep(1)', '54001' ],
  [ 'a string of two gigabytes', q{SELECT length(repeat('x', 1 << 30) || repeat('x', 1 << 30))}, '54000' ],
  [ 'an array that is too large', 'SELECT array_fill(0, ARRAY[1 << 29])', '54000' ],
  [ 'COMMIT', 'SELECT shop.commit()', '2D000' ],
  [ 'ROLLBACK', 'SELECT shop.roll_back()', '2D000' ],
  [ 'a procedure that commits', 'CALL shop.committing()', '2D000' ],
  [ 'SAVEPOINT', 'SAVEPOINT s', '0A000' ],
  [ 'its own cancelling', 'SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(9)', '57014' ],
  [ 'dispatch()', 'SELECT voiding.dispatch()', '55000' ],
  [ 'SET ROLE', 'SET ROLE pg_monitor', '42501' ],
  [ 'SET SESSION AUTHORIZATION', 'SET SESSION AUTHORIZATION pg_monitor', '42501' ],
  [ 'a temporary table', 'CREATE TEMP TABLE t (x int)', '42501' ],
  [ 'a temporary table by SELECT', 'CREATE TEMP TABLE t AS SELECT 1', '42501' ],
  [ 'a prepared statement', 'PREPARE p AS SELECT 1', '42501' ],
  [ 'a cursor', 'DECLARE c CURSOR WITH HOLD FOR SELECT 1', '42501' ],
  [ 'LISTEN', 'LISTEN elsewhere', '42501' ],
  [ 'DISCARD', 'DISCARD PLANS', '42501' ],
  [ 'NOTIFY', 'NOTIFY elsewhere', '' ],
  [ 'an advisory lock of the session', 'SELECT pg_advisory_lock(7)', '' ],
  [ 'an advisory lock, and an error', q{SELECT pg_advisory_lock(8), 1 / 0}, '22012' ],
  [ 'a sequence of its own', 'SELECT setseed(0.5)', '' ])
{
  my ($name, $what, $sqlstate) = @$bad;

  around('Run', '{"what": "' . $what =~ s/"/\\"/gr . '"}');
  is_harmless($name, $sqlstate);
}

for my $setting ('work_mem = 64', 'search_path = pg_temp', 'session_replication_role = replica', 'statement_timeout = 1',
  'deadlock_timeout = 60000', 'transaction_read_only = on', 'default_transaction_read_only = on', 'client_min_messages = error',
  'synchronous_commit = off', 'timezone = "Asia/Tokyo"', 'shop.own = 1', 'voiding.retry_limit = 1', 'voiding.notify = off',
  'row_security = off', 'check_function_bodies = off')
{
  around('Run', qq({"what": "SET @{[ $setting =~ s/"/\\"/gr ]}"}));
  is_harmless("SET $setting", '');
}

# ---- a cursor that is not closed, by many ----

around('LeaveCursor', '{}');
is_harmless('an open cursor', '');
row($node, $db, q{SELECT voiding.emit('LeaveCursor', 'k' || i, '{}', 'shop') FROM generate_series(1, 200) i});
wait_idle('200 open cursors: nothing waits');
is(dead(), '', '200 open cursors: none gave up') or $node->safe_psql($db, 'DELETE FROM voiding.dead_letter');

# ---- dropped while messages wait ----

$node->safe_psql($db, q{
  CREATE TABLE shop.gate ();
  CREATE FUNCTION shop.pass(n integer) RETURNS void LANGUAGE sql AS
    $$ INSERT INTO shop.seen (tag, n) VALUES ('pass', n); SELECT FROM shop.gate $$;
  SELECT voiding.subscribe('Pass', 'shop.pass')});
my $holder = $node->background_psql($db);
$holder->query_safe('BEGIN; LOCK TABLE shop.gate');
row($node, $db, q{SELECT voiding.emit('Pass', 'p' || i, jsonb_build_object('n', i), 'shop') FROM generate_series(1, 20) i});
is(error_of($node, $db, 'DROP FUNCTION shop.pass'), '', 'a handler is dropped while its messages wait');
$holder->quit;
around('Said', qq({"tag": "$tag", "n": 1}));
ok(poll_until(sub { row($node, $db, q{SELECT count(*) FROM voiding.dead_letter WHERE type = 'Pass' AND sqlstate = '42883'}) eq '20' }, 20),
  'they give up') or diag(row($node, $db, 'SELECT type, attempts, error, sqlstate FROM voiding.dead_letter'));
is(row($node, $db, "SELECT count(*) FROM shop.seen WHERE tag = '$tag' AND key <> 'bad'"), '10', 'others are handled');
$node->safe_psql($db, q{CREATE FUNCTION shop.pass(n integer) RETURNS void LANGUAGE sql AS
  $$ INSERT INTO shop.seen (tag, n) VALUES ('pass', n) $$;
  SELECT voiding.retry_message(id, 'it is back') FROM voiding.dead_letter});
wait_idle('the handler is back');
is(row($node, $db, q{SELECT count(*), count(DISTINCT n) FROM shop.seen WHERE tag = 'pass'}), '20|20', 'and they are handled, once');

# ---- locks that deadlock with a client ----

sub waits_for_lock
{
  return poll_until(sub { row($node, $db, "SELECT wait_event_type FROM pg_stat_activity WHERE pid = $worker") eq 'Lock' }, 20);
}

my $failed = row($node, $db, q{SELECT value FROM voiding.stats WHERE name = 'failed' AND labels @> '{"service": "shop"}'});
for my $i (1 .. 5)
{
  my $client = $node->background_psql($db, on_error_stop => 0);

  $client->query("BEGIN; UPDATE shop.lockable SET value = value + 1 WHERE name = 'b'");
  around('LockBoth', '{}');
  ok(waits_for_lock(), "deadlock $i: the handler waits for the client");
  is(error_in($client, q{UPDATE shop.lockable SET value = value + 1 WHERE name = 'a'}), '', "deadlock $i: the client gets its lock");
  is(error_in($client, 'COMMIT'), '', "deadlock $i: and commits");
  $client->quit;
  is_harmless("deadlock $i", '');
}
is(row($node, $db, q{SELECT string_agg(value::text, ' ' ORDER BY name) FROM shop.lockable}), '10 10', 'deadlocks: both sides have done all');
is(row($node, $db, q{SELECT value FROM voiding.stats WHERE name = 'failed' AND labels @> '{"service": "shop"}'}), $failed,
  'deadlocks: none counts as a failure');

# ---- a client keeps a row locked: that one waits, nobody else does ----

row($node, $db, q{SELECT billing.issue_document('H' || i, 'h' || i % 10, 1) FROM generate_series(1, 500) i});
wait_idle('500 documents are in their reports');
$holder = $node->background_psql($db);
$holder->query_safe("BEGIN; SELECT FROM reports.report_line WHERE document_id = 'H77' FOR UPDATE");
row($node, $db, q{SELECT billing.void_document('H' || i) FROM generate_series(1, 500) i});
ok(poll_until(sub { row($node, $db, q{SELECT count(*) FROM billing.document WHERE document_id LIKE 'H%' AND status = 'voided'}) eq '499' }, 20),
  'one row is locked: the other 499 are voided');
my ($attempts) = row($node, $db, q{SELECT attempts FROM voiding.outbox WHERE aggregateid = 'H77'});
is($attempts, '0', 'and it has not failed');
$holder->quit;
wait_idle('the lock is gone: nothing waits');
is(row($node, $db, q{SELECT status FROM billing.document WHERE document_id = 'H77'}), 'voided', 'it is voided too');

is(row($node, $db, 'SELECT pid FROM voiding.worker'), $worker, 'in the end: the worker lives');
invariants_hold($node, $db, 'in the end');
$node->stop;
done_testing();
