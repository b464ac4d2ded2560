# Sessions that live long, and workers, notice what others change: columns,
# triggers, handlers, definitions, the extension itself; and do not grow.

use strict;
use warnings;

use Test::More;
use Voiding::Test;

my $node = new_node('main', serve => ['long'], 'voiding.retry_base' => "'5 min'");
my $db = serve($node, new_database($node, 'long'));

# the session that lives long; the changes are made by others
my $s = $node->background_psql($db, on_error_stop => 0);

# what is to be done is done by it, or by the workers, who live as long
sub work
{
  settle($node, $db, $s);
  return;
}

sub here
{
  return $s->query_safe($_[0]);
}

sub elsewhere
{
  return $node->safe_psql($db, $_[0]);
}

# ---- the table that is captured ----

here(q{SELECT billing.issue_document('A1', 'c', 1)});
work();
elsewhere(q{ALTER TABLE billing.document ADD COLUMN first text});
here(q{INSERT INTO billing.document (document_id, customer_id, amount, first) VALUES ('A2', 'c', 2, 'x')});
elsewhere(q{ALTER TABLE billing.document ADD COLUMN second integer DEFAULT 7, DROP COLUMN first});
here(q{SELECT billing.issue_document('A3', 'c', 3)});
work();
is(elsewhere(q{SELECT string_agg(document_id, ' ' ORDER BY document_id) FROM reports.report_line}), 'A1 A2 A3',
  'a column more, a column less: capture and handlers go on');
is(elsewhere(q{SELECT data - 'issued_at' FROM voiding.event WHERE subject = 'A3'}),
  '{"kind": "invoice", "amount": 3, "currency": "EUR", "customer_id": "c", "document_id": "A3"}', 'the data is as before');

elsewhere(q{CREATE OR REPLACE TRIGGER document_issued AFTER INSERT ON billing.document FOR EACH ROW
  EXECUTE FUNCTION voiding.emit_event('DocumentIssued', 'document_id', 'customer_id', 'kind', 'amount', 'currency', 'issued_at', 'extra=second')});
here(q{SELECT billing.issue_document('A4', 'c', 4)});
is(elsewhere(q{SELECT data -> 'extra' FROM voiding.event WHERE subject = 'A4'}), '7', 'a trigger with other arguments is noticed');
elsewhere(q{ALTER TABLE billing.document ALTER COLUMN second TYPE text USING 'n' || second});
here(q{INSERT INTO billing.document (document_id, customer_id, amount, second) VALUES ('A5', 'c', 5, 'n8')});
is(elsewhere(q{SELECT data -> 'extra' FROM voiding.event WHERE subject = 'A5'}), '"n8"', 'a column of another type too');
elsewhere(q{ALTER TABLE billing.document RENAME COLUMN second TO third});
like(error_in($s, q{INSERT INTO billing.document (document_id, customer_id, amount) VALUES ('A6', 'c', 6)}),
  qr/column "second" of relation "document" does not exist/, 'a column that was renamed is missed');
elsewhere(q{ALTER TABLE billing.document RENAME COLUMN third TO second});
here(q{INSERT INTO billing.document (document_id, customer_id, amount) VALUES ('A6', 'c', 6)});

# the engine's own tables
elsewhere(q{CREATE INDEX ON voiding.event_p0 (subject); CREATE INDEX ON voiding.outbox (type)});
here(q{SELECT billing.issue_document('A7', 'c', 7)});
is(elsewhere(q{SET enable_seqscan = off; SELECT count(*) FROM voiding.event WHERE subject = 'A7'}), '1', 'a new index is kept');
elsewhere(q{VACUUM FULL voiding.event_p0; TRUNCATE voiding.parked_event; CLUSTER voiding.outbox USING outbox_pkey; REINDEX TABLE voiding.active_process});
here(q{SELECT billing.void_document('A7')});
work();
is(elsewhere(q{SELECT status FROM billing.document WHERE document_id = 'A7'}), 'voided', 'tables that were rewritten are found');
invariants_hold($node, $db, 'tables');

# ---- handlers ----

elsewhere(q{
  SELECT voiding.create_service('shop');
  CREATE TABLE shop.heard (what text, message text);
  CREATE FUNCTION shop.hear(what text) RETURNS void LANGUAGE sql AS $$ INSERT INTO shop.heard VALUES (what, 'first') $$;
  SELECT voiding.subscribe('Said', 'shop.hear')});

sub said
{
  my ($what) = @_;

  here(qq{SELECT voiding.emit('Said', '$what', '{"what": "$what", "more": 5}', 'shop')});
  work();
  return elsewhere(qq{SELECT string_agg(message, ' ') FROM shop.heard WHERE what = '$what'});
}

is(said('a'), 'first', 'a service that another session has made');
elsewhere(q{CREATE OR REPLACE FUNCTION shop.hear(what text) RETURNS void LANGUAGE sql AS $$ INSERT INTO shop.heard VALUES (what, 'second') $$});
is(said('b'), 'second', 'a function that was replaced');
elsewhere(q{DROP FUNCTION shop.hear(text);
  CREATE FUNCTION shop.hear(what text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN INSERT INTO shop.heard VALUES (what, 'third'); END $$});
is(said('c'), 'third', 'one that was dropped and made again');
elsewhere(q{
  CREATE FUNCTION shop.listen(what text, more integer) RETURNS void LANGUAGE sql AS $$ INSERT INTO shop.heard VALUES (what, 'fourth ' || more) $$;
  SELECT voiding.unsubscribe('Said', 'shop');
  SELECT voiding.subscribe('Said', 'shop.listen')});
is(said('d'), 'fourth 5', 'another function');
elsewhere(q{CREATE ROLE regress_shop; GRANT USAGE ON SCHEMA shop TO regress_shop; ALTER FUNCTION shop.listen(text, integer) OWNER TO regress_shop});
is(said('e'), '', 'another owner, who may not');
like(elsewhere(q{SELECT error FROM voiding.outbox}), qr/^42501: permission denied for table heard/, 'its rights are asked');
elsewhere(q{GRANT INSERT ON shop.heard TO regress_shop; SELECT voiding.retry_message(id) FROM voiding.outbox});
work();
is(elsewhere(q{SELECT message FROM shop.heard WHERE what = 'e'}), 'fourth 5', 'its new rights too');
elsewhere(q{DROP FUNCTION shop.listen(text, integer)});
is(said('f'), '', 'a function that is gone');
is(elsewhere(q{SELECT attempts, error ~ '^42883: ' FROM voiding.outbox}), '1|t', 'fails, and will be tried again');
elsewhere(q{SELECT voiding.discard_message(id, 'nobody listens') FROM voiding.outbox; SELECT voiding.unsubscribe('Said', 'shop')});
is(said('g'), '', 'nobody subscribes any more');
is(elsewhere(q{SELECT count(*) FROM voiding.outbox}), '0', 'so that no message is written');

# ---- definitions ----

sub define
{
  my ($middle) = @_;
  return elsewhere(qq{SELECT voiding.create_process_type('walk', '{"key": "id", "start": {"Begun": "$middle"},
    "states": {"$middle": {"on": {"Ended": "There"}, "after": {"P1D": "There"}}, "There": {"type": "final"}}}')});
}

sub begin
{
  my ($id) = @_;

  here(qq{SELECT voiding.emit('Begun', '$id', '{"id": "$id"}', 'shop')});
  return elsewhere(qq{SELECT version, state FROM voiding.process WHERE type = 'walk' AND key = '$id'});
}

is(begin('w0'), '', 'no process type yet');
define('Walking');
is(begin('w1'), '1|Walking', 'a process type that another session has made');
define('Running');
is(begin('w2'), '2|Running', 'its next version');
is(elsewhere(q{SELECT version, state FROM voiding.process WHERE key = 'w1'}), '1|Walking', 'what runs stays on its own');
here(q{SELECT voiding.emit('Ended', id, jsonb_build_object('id', id), 'shop') FROM unnest('{w1,w2}'::text[]) id});
is(elsewhere(q{SELECT string_agg(version || ' ' || state, ',' ORDER BY version) FROM voiding.finished_process WHERE type = 'walk'}),
  '1 There,2 There', 'both come to their end');

# a transaction that began before the change
here('BEGIN');
here(q{SELECT voiding.emit('Begun', 'w3', '{"id": "w3"}', 'shop')});
define('Flying');
here(q{SELECT voiding.emit('Begun', 'w4', '{"id": "w4"}', 'shop')});
here('COMMIT');
like(elsewhere(q{SELECT string_agg(version::text, ',' ORDER BY key) FROM voiding.active_process}), qr/^2,[23]$/,
  'in the middle of a transaction: the old or the new one');
is(begin('w5'), '3|Flying', 'in the next one the new');
elsewhere(q{SELECT voiding.emit('Ended', id, jsonb_build_object('id', id), 'shop') FROM unnest('{w3,w4,w5}'::text[]) id;
  SELECT voiding.drop_process_type('walk')});
is(begin('w6'), '', 'a process type that was dropped');
invariants_hold($node, $db, 'definitions');

# ---- memory of the session, which works by hand ----

by_hand($node, $db);

sub memory
{
  return here(q{SELECT sum(used_bytes) FROM pg_backend_memory_contexts});
}

# $again many times over; how many bytes the session grew from then on
sub growth
{
  my ($times, $again) = @_;

  $again->($_) for 1 .. 20;
  my $before = memory();
  $again->($_) for 21 .. 20 + $times;
  return memory() - $before;
}

cmp_ok(growth(300, sub {
      here(qq{SELECT billing.issue_document('m$_[0]', 'c', 1)});
      here(q{SELECT voiding.dispatch()});
    }), '<=', 32 * 1024, 'a long life does not cost memory');
cmp_ok(growth(200, sub {
      elsewhere('ALTER TABLE billing.document SET (fillfactor = ' . (50 + $_[0] % 50) . ')');
      here(qq{SELECT billing.issue_document('t$_[0]', 'c', 1)});
      here(q{SELECT voiding.dispatch()});
    }), '<=', 32 * 1024, 'nor do changes of the table');
cmp_ok(growth(200, sub {
      elsewhere(q{SELECT voiding.definitions_changed()});
      here(qq{SELECT billing.issue_document('d$_[0]', 'c', 1)});
      here(q{SELECT voiding.dispatch()});
    }), '<=', 32 * 1024, 'nor do changes of definitions');

# ---- the extension itself ----

# one that has written, and one that has only looked
my $looker = $node->background_psql($db, on_error_stop => 0);
$looker->query_safe(q{SELECT voiding.dispatch()});
$looker->query_safe(q{SELECT voiding.wait_until_idle('1s')});
elsewhere(q{DROP EXTENSION voiding CASCADE; DROP SCHEMA billing, reports CASCADE});
like(error_in($s, q{SELECT voiding.dispatch()}), qr/schema "voiding" does not exist/, 'the extension is gone');
elsewhere(q{CREATE EXTENSION voiding});
here(q{SELECT billing.issue_document('again', 'c', 1)});
here(q{SELECT billing.void_document('again')});
is(here(q{SELECT voiding.dispatch()}), '4', 'and is there again');
is(elsewhere(q{SELECT status FROM billing.document}), 'voided', 'with everything that it does');
elsewhere(q{SELECT billing.issue_document('looked', 'c', 1)});
is(error_in($looker, q{SELECT voiding.wait_until_idle('1ms')}), '', 'who has only looked finds it too');
is(error_in($looker, q{SELECT voiding.dispatch()}), '', 'and can work');
is(elsewhere(q{SELECT count(*) FROM reports.report_line WHERE document_id = 'looked'}), '1', 'which is done');
$looker->quit;
invariants_hold($node, $db, 'made again');

$s->quit;
$node->stop;
done_testing();
