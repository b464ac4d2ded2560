# Voiding/Story.pm: a database in the middle of everything, what is in it, and
# whether all of it goes on: for dumps, upgrades, whatever moves a database.
package Voiding::Story;

use strict;
use warnings;

use Exporter 'import';
use Test::More;
use Voiding::Test;

our @EXPORT = qw(begin_story contents objects goes_on);

# Events in four partitions, most of them archived, processes in every state, what is parked, what
# gave up, tasks, deadlines, and what a user has added to the tables; by hand,
# so that it stays so. The services Billing and Reports have the schemas given, and a service "shop"
# has a process type of its own.
sub begin_story
{
  my ($node, $db, $billing, $reports) = @_;
  my $run = sub { $node->safe_psql($db, $_[0]) };

  $run->("SELECT $billing.issue_document('D' || i, 'c' || i % 4, i * 1.25) FROM generate_series(1, 24) i");
  users_own($run, $billing);
  shop($run);
  drain($node, $db);

  # parked, a day ago, and given up: nobody placed such an order
  $run->(q{SELECT voiding.emit('ParcelShipped', 'S0', '{"order_id": "S0"}', 'shop')});
  $run->(q{SET voiding.clock_offset = 90000; SELECT voiding.dispatch('shop')});
  # ended: voided
  $run->("SELECT $billing.void_document('D1', 'typo'), $billing.void_document('D2')");
  drain($node, $db);
  # ended: failed and acknowledged; failed, not acknowledged
  $run->("SELECT $reports.publish_report('c3')");
  $run->("SELECT $billing.void_document('D3', 'too late')");
  $run->("SELECT $billing.void_document('D7', 'too late too')");
  drain($node, $db);
  $run->("SELECT voiding.acknowledge_process_failure(process_id, 'seen') FROM voiding.ongoing_process WHERE key = 'D3'");
  drain($node, $db);

  # the events from here on are in the second partition, later ones in the third
  $run->("SELECT setval('voiding.position', 10000007)");
  $run->("SELECT $billing.void_document('D5')");
  drain($node, $db);
  # one that waits for Billing, one that waits for Reports
  $run->("SELECT $billing.void_document('D6')");
  $run->("SELECT voiding.dispatch((SELECT name FROM voiding.service WHERE schema = '$reports'))");
  $run->("SELECT $billing.void_document('D9')");
  $run->("SELECT setval('voiding.position', 29999990)");

  orders($node, $db, $run);
  $run->('SELECT voiding.maintain()');
  later_month($run);
  $run->("SELECT $billing.issue_document('D30', 'c1', 7)");
  return;
}

sub users_own
{
  my ($run, $billing) = @_;

  $run->(qq{
    ALTER TABLE $billing.document ADD COLUMN branch text DEFAULT 'north';
    CREATE INDEX document_branch ON $billing.document (branch, issued_at);
    CREATE TABLE public.seen (n bigserial PRIMARY KEY, document_id text, status text);
    CREATE FUNCTION public.see() RETURNS trigger LANGUAGE plpgsql AS
      'BEGIN INSERT INTO public.seen (document_id, status) VALUES (NEW.document_id, NEW.status); RETURN NULL; END';
    CREATE TRIGGER seen AFTER INSERT OR UPDATE ON $billing.document FOR EACH ROW EXECUTE FUNCTION public.see();
  });
  return;
}

sub shop
{
  my ($run) = @_;

  $run->(q{
    SELECT voiding.create_service('shop');
    CREATE TABLE shop.payment (order_id text PRIMARY KEY, amount numeric);
    CREATE TRIGGER paid AFTER INSERT ON shop.payment FOR EACH ROW
      EXECUTE FUNCTION voiding.emit_event('PaymentTaken', 'order_id', 'amount');
    CREATE FUNCTION shop.take_payment(order_id text, total numeric) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
      IF total > 1000 THEN
        RAISE EXCEPTION 'not so much' USING ERRCODE = 'P0099';
      END IF;
      INSERT INTO shop.payment VALUES (order_id, total);
    END $$;
    CREATE FUNCTION shop.pack(order_id text) RETURNS void LANGUAGE sql AS
      $$ SELECT voiding.emit('OrderPacked', order_id, jsonb_build_object('order_id', order_id)) $$;
    SELECT voiding.create_command('TakePayment', 'shop.take_payment');
    SELECT voiding.create_command('PackOrder', 'shop.pack');
    SELECT voiding.create_process_type('sale', '{
      "key": "order_id",
      "start": {"OrderPlaced": "Paying"},
      "after": {"P60D": "GivenUp"},
      "states": {
        "Paying": {"entry": {"send": "TakePayment"}, "on": {"PaymentTaken": "Packing"},
                   "after": {"PT1H": "Unpaid"}, "onError": "Unpaid"},
        "Packing": {"entry": {"send": "PackOrder"}, "on": {"OrderPacked": "Shipping"}},
        "Shipping": {"on": {"ParcelShipped": "Shipped"}},
        "Shipped": {"type": "final"},
        "GivenUp": {"type": "final", "outcome": "failed"},
        "Unpaid": {"type": "failed", "task": {"type": "call_customer", "with": {"order_id": "$.key"}},
                   "on": {"ProcessFailureAcknowledged": "GivenUp", "PaymentTaken": "Packing"}}}}');
  });
  return;
}

sub orders
{
  my ($node, $db, $run) = @_;
  my $say = sub {
    my ($type, $order, $total) = @_;
    $run->(qq{SELECT voiding.emit('$type', '$order', jsonb_build_object('order_id', '$order', 'total', $total), 'shop')});
  };

  # waits for its parcel; has ended; has failed, with a dead letter and a task
  $say->('OrderPlaced', 'S1', 10);
  $say->('OrderPlaced', 'S2', 20);
  $say->('OrderPlaced', 'S3', 3000);
  $run->(q{SET voiding.retry_limit = 1; SELECT voiding.dispatch('shop')});
  $say->('ParcelShipped', 'S2', 0);
  # has failed twice so far, and waits for its third attempt
  $say->('OrderPlaced', 'S4', 4000);
  $run->(q{SET voiding.retry_base = 1; SELECT voiding.dispatch('shop')});
  $run->(q{SET voiding.clock_offset = 30; SET voiding.retry_base = '60s'; SELECT voiding.dispatch('shop')});
  # parked for a state of a process, and for a process that is not there yet
  $say->('OrderPlaced', 'S5', 50);
  $say->('ParcelShipped', 'S5', 0);
  $say->('ParcelShipped', 'S6', 0);
  return;
}

# A process that ended in another month, as if made then.
sub later_month
{
  my ($run) = @_;

  $run->(q{
    DO $$
    DECLARE
      made timestamptz := '2027-03-15 12:00:00+00';
      old  uuid := (SELECT process_id FROM voiding.finished_process WHERE key = 'S2');
      new  uuid := voiding.uuid_from('2027-03-15 12:00:00+00');
    BEGIN
      PERFORM voiding.add_finished_partition(new);
      INSERT INTO voiding.finished_process
      SELECT (jsonb_populate_record(f, jsonb_build_object('process_id', new, 'conversation', new, 'key', 'S2b'))).*
        FROM voiding.finished_process f WHERE f.process_id = old;
      INSERT INTO voiding.event
      SELECT (jsonb_populate_record(e, jsonb_build_object('position', nextval('voiding.position'),
               'event_id', voiding.uuid(), 'process_id', new, 'correlation_id', new, 'subject', 'S2b',
               'steps', replace(e.steps::text, old::text, new::text)::jsonb))).*
        FROM voiding.event e WHERE e.process_id = old;
    END $$;
  });
  return;
}

# Every table and sequence: how many rows, and a checksum of them.
sub contents
{
  my ($node, $db) = @_;
  my $queries = $node->safe_psql($db, q{
    SET search_path = pg_catalog;
    SELECT format(CASE c.relkind
             WHEN 'S' THEN 'SELECT %L, last_value, is_called::text FROM %s'
             ELSE 'SELECT %L, count(*), md5(string_agg(t::text, chr(10) ORDER BY t::text COLLATE "C")) FROM ONLY %s t' END,
             c.oid::regclass, c.oid::regclass)
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'S') AND n.nspname NOT LIKE 'pg\_%' AND n.nspname <> 'information_schema'
     ORDER BY c.oid::regclass::text COLLATE "C"});

  return $node->safe_psql($db, "SET search_path = pg_catalog; SET timezone = 'UTC';\n"
      . join("\nUNION ALL\n", map { "($_)" } split /\n/, $queries) . "\nORDER BY 1");
}

# Every object, described: what a dump must bring back besides the rows.
sub objects
{
  my ($node, $db) = @_;

  return $node->safe_psql($db, q{
    SET search_path = pg_catalog;
    WITH own AS (
      SELECT n.oid, n.nspname, n.nspacl, n.nspowner FROM pg_namespace n
       WHERE n.nspname NOT LIKE 'pg\_%' AND n.nspname <> 'information_schema'),
    acl(kind, name, acl) AS (
      SELECT 'schema', nspname::text, coalesce(nspacl, acldefault('n', nspowner)) FROM own WHERE nspname <> 'public'
      UNION ALL SELECT 'table', c.oid::regclass::text, coalesce(relacl, acldefault('r', relowner)) FROM pg_class c JOIN own ON own.oid = relnamespace
                 WHERE relkind IN ('r', 'p', 'v')
      UNION ALL SELECT 'function', p.oid::regprocedure::text, coalesce(proacl, acldefault('f', proowner)) FROM pg_proc p JOIN own ON own.oid = pronamespace)
    SELECT format('acl of %s %s: %s', kind, name, (SELECT string_agg(a::text, ',' ORDER BY a::text) FROM unnest(acl) a)) FROM acl
    UNION ALL
    SELECT format('%s %s, owner %s%s', c.relkind, c.oid::regclass, pg_get_userbyid(c.relowner),
                  CASE WHEN EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e') THEN ', member' END)
      FROM pg_class c JOIN own ON own.oid = c.relnamespace
    UNION ALL
    SELECT format('column %s.%s %s%s %s', c.oid::regclass, a.attname, format_type(a.atttypid, a.atttypmod),
                  CASE WHEN a.attnotnull THEN ' not null' END, pg_get_expr(d.adbin, d.adrelid))
      FROM pg_class c JOIN own ON own.oid = c.relnamespace
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
      LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum WHERE c.relkind IN ('r', 'p', 'v')
    UNION ALL
    SELECT format('bound %s %s', c.oid::regclass, pg_get_expr(c.relpartbound, c.oid)) FROM pg_class c WHERE c.relispartition
    UNION ALL
    SELECT pg_get_indexdef(i.indexrelid) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN own ON own.oid = c.relnamespace
    UNION ALL
    SELECT format($$%s %s$$, pg_get_triggerdef(t.oid), t.tgenabled) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN own ON own.oid = c.relnamespace
     WHERE NOT t.tgisinternal
    UNION ALL
    SELECT format('%s %s %s', k.conrelid::regclass, k.conname, pg_get_constraintdef(k.oid)) FROM pg_constraint k JOIN own ON own.oid = k.connamespace
     WHERE k.contype <> 'n' -- NOT NULL, since 18: the columns tell it, and pg_upgrade may change its name
    UNION ALL
    SELECT format('view %s %s', c.oid::regclass, md5(pg_get_viewdef(c.oid))) FROM pg_class c JOIN own ON own.oid = c.relnamespace WHERE c.relkind = 'v'
    UNION ALL
    SELECT format('function %s %s%s', p.oid::regprocedure, md5(pg_get_functiondef(p.oid)),
                  CASE WHEN EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e') THEN ', member' END)
      FROM pg_proc p JOIN own ON own.oid = p.pronamespace
    UNION ALL
    SELECT format('schema %s%s', nspname,
                  CASE WHEN EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_namespace'::regclass AND d.objid = own.oid AND d.deptype = 'e') THEN ', member' END)
      FROM own
    ORDER BY 1});
}

# In the moved database everything that was under way comes to its end, what
# is new gets new numbers, and what the user added works.
sub goes_on
{
  my ($node, $db, $billing, $reports) = @_;
  local $Test::Builder::Level = $Test::Builder::Level + 1;
  my $ask = sub { $node->safe_psql($db, $_[0]) };
  my ($position, $report) = split /\|/,
    $ask->("SELECT (SELECT max(position) FROM voiding.event), (SELECT max(report_id) FROM $reports.report)");
  my $archived = 'SELECT count(*), count(a.position) FROM voiding.event e LEFT JOIN voiding.archive a USING (position, subject, event_id)';
  my ($events, $copies) = split /\|/, $ask->($archived);

  invariants_hold($node, $db, 'as it arrived', $billing, $reports);
  serve($node, $db);
  settle($node, $db);
  is($ask->("SELECT document_id, status FROM $billing.document WHERE document_id IN ('D5', 'D6', 'D9') ORDER BY 1"),
    "D5|voided\nD6|voided\nD9|voided", 'voidings that were under way are done');
  is($ask->("SELECT string_agg(key || ' ' || state, ', ' ORDER BY key) FROM voiding.ongoing_process"),
    'D7 MarkingDocumentAsVoidedFailed, S1 Shipping, S3 Unpaid, S4 Paying', 'the others wait as before');
  is($ask->("SELECT string_agg(key, ' ' ORDER BY key) FROM voiding.process WHERE type = 'sale' AND state = 'Shipped'"),
    'S2 S2b S5', 'an event that was parked for a state was taken');

  # the one that was tried before is tried again, and gets its answer this time
  $ask->('ALTER TABLE shop.payment ADD COLUMN note text');
  $ask->(q{CREATE OR REPLACE FUNCTION shop.take_payment(order_id text, total numeric) RETURNS void LANGUAGE sql AS
             'INSERT INTO shop.payment VALUES (order_id, total)'});
  $ask->("SELECT voiding.retry_message(id) FROM voiding.outbox WHERE attempts > 0");
  $ask->("SELECT voiding.retry_message(id, 'allowed now') FROM voiding.dead_letter WHERE type = 'TakePayment'");
  $ask->(q{SELECT voiding.emit('OrderPlaced', 'S6', '{"order_id": "S6", "total": 6}', 'shop')});
  $ask->(q{SELECT voiding.emit('ParcelShipped', o, jsonb_build_object('order_id', o), 'shop') FROM unnest('{S1,S3,S4}'::text[]) o});
  settle($node, $db);
  is($ask->("SELECT string_agg(key, ' ' ORDER BY key) FROM voiding.process WHERE type = 'sale' AND state = 'Shipped'"),
    'S1 S2 S2b S3 S4 S5 S6', 'each sale comes to its end');
  is($ask->("SELECT count(*) FROM voiding.parked_event"), '0', 'what was parked is taken');
  $ask->("SELECT voiding.acknowledge_process_failure(process_id, 'seen at last') FROM voiding.ongoing_process WHERE key = 'D7'");

  # new ones
  $ask->("SELECT $billing.issue_document('N' || i, 'new', 1) FROM generate_series(1, 3) i");
  settle($node, $db);
  is($ask->("SELECT bool_and(position > $position) FROM voiding.event WHERE subject IN ('N1', 'N2', 'N3')"),
    't', 'new events are behind the old ones');
  is($ask->("SELECT bool_and(report_id > $report), count(*) FROM $reports.report WHERE customer_id = 'new'"),
    't|1', 'a new report has a new number');
  is($ask->("SELECT billing.branch, count(seen.n) FROM $billing.document billing JOIN public.seen USING (document_id)
              WHERE document_id = 'N1' GROUP BY 1"), 'north|1', q{the user's column and trigger work});
  is($ask->('SELECT count(*) FROM voiding.ongoing_process'), '0', 'nothing is left under way');
  $ask->('SELECT voiding.maintain()');
  my ($now, $copies_now) = split /\|/, $ask->($archived);
  ok($copies > 0 && $copies < $events && $now > $events && $copies_now == $now, 'the archive goes on from where it was')
    || diag("events $events, archived $copies; then $now, $copies_now");
  invariants_hold($node, $db, 'in the end', $billing, $reports);
  return;
}

1;
