# Installing where somebody was before: schemas that exist, objects planted to
# be called by mistake, a search_path that finds them first. Dropping the
# extension: what refuses, what stays, and how it comes back.

use strict;
use warnings;

use Test::More;
use Voiding::Test;

my $node = new_node('main', serve => [qw(taken squatted hostile drops)]);

sub database
{
  my ($db) = @_;

  $node->safe_psql('postgres', "CREATE DATABASE $db TEMPLATE template0");
  return $db;
}

sub ask
{
  my ($db, $sql) = @_;
  return row($node, $db, "SET search_path = pg_catalog;\n$sql");
}

# the whole story, under the names given; what comes after it is by hand
sub story
{
  my ($db, $billing, $reports) = @_;
  local $Test::Builder::Level = $Test::Builder::Level + 1;

  subtest "the story with $billing and $reports" => sub {
    serve($node, $db);
    $node->safe_psql($db, "SELECT $billing.issue_document('A', 'c', 10)");
    $node->safe_psql($db, "SELECT $billing.issue_document('B', 'c', 20)");
    settle($node, $db);
    $node->safe_psql($db, "SELECT $billing.void_document('A', 'typo')");
    settle($node, $db);
    is(ask($db, "SELECT status FROM $billing.document WHERE document_id OPERATOR(pg_catalog.=) 'A'"), 'voided', 'voided');
    is(row($node, $db, "SELECT total FROM $reports.publish_report('c')"), '20', 'published without it');
    $node->safe_psql($db, "SELECT $billing.void_document('B', 'too late')");
    settle($node, $db);
    my $process = ask($db, 'SELECT process_id FROM voiding.ongoing_process');
    like(error_of($node, $db, "SELECT $billing.void_document('B')"), qr/^VD09B: /, 'too late: it fails');
    like(row($node, $db, "SELECT voiding.explain('$process')"), qr/acknowledge_voiding_failure/, 'and says what it waits for');
    like(row($node, $db, "SELECT voiding.diagram('document_voiding', '$process')"), qr/VoidingRequested/, 'and is drawn');
    $node->safe_psql($db, "SELECT voiding.acknowledge_process_failure('$process', 'seen')");
    is(ask($db, 'SELECT count(*) FROM voiding.ongoing_process'), '0', 'and is acknowledged');
    invariants_hold($node, $db, 'story', $billing, $reports);
    by_hand($node, $db);
  };
  return;
}

# ---- an existing schema ----

database('taken');
$node->safe_psql('taken', 'CREATE SCHEMA billing; CREATE TABLE billing.document (mine text); INSERT INTO billing.document VALUES (1)');
my (undef, undef, $stderr) = $node->psql('taken', 'CREATE EXTENSION voiding');
like($stderr, qr/NOTICE:  schema "billing" or "reports" exists.*HINT: .*create_document_voiding/s, 'an existing billing: a notice');
is(ask('taken', 'SELECT mine FROM billing.document'), '1', 'what was there is not touched');
is(ask('taken', q{SELECT count(*) FROM pg_namespace WHERE nspname = 'reports'}), '0', 'and no half is made');
is(ask('taken', 'SELECT count(*) FROM voiding.service'), '0', 'no service either');
$node->safe_psql('taken', q{SELECT voiding.create_document_voiding('b2', 'r2')});
story('taken', 'b2', 'r2');
like(error_of($node, 'taken', q{SELECT voiding.create_document_voiding('b2', 'r2')}), qr/^42710: /, 'not twice');
like(error_of($node, 'taken', q{SELECT voiding.create_document_voiding('b3', 'r3')}), qr/^42710: /, 'nor a second pair');
is(ask('taken', q{SELECT count(*) FROM pg_namespace WHERE nspname IN ('b3', 'r3')}), '0', 'of which nothing is left');

database('taken_too');
(undef, undef, $stderr) = $node->psql('taken_too', 'CREATE SCHEMA reports; CREATE EXTENSION voiding');
like($stderr, qr/NOTICE:  schema "billing" or "reports" exists/, 'an existing reports: a notice');
is(ask('taken_too', q{SELECT count(*) FROM pg_namespace WHERE nspname = 'billing'}), '0', 'and no half is made');

# ---- an existing schema voiding ----

database('squatted');
$node->safe_psql('squatted', 'CREATE SCHEMA voiding; CREATE TABLE voiding.event (mine text)');
like(error_of($node, 'squatted', 'CREATE EXTENSION voiding'), qr/^42P06: schema "voiding" already exists/,
  'an existing schema voiding: refused');
is(ask('squatted', q{SELECT (SELECT count(*) FROM pg_extension WHERE extname = 'voiding'),
    (SELECT count(*) FROM pg_namespace WHERE nspname IN ('billing', 'reports')), (SELECT count(*) FROM pg_class c
      JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = 'voiding' AND relkind = 'r')}), '0|0|1', 'nothing is left of the attempt');
$node->safe_psql('squatted', 'DROP SCHEMA voiding CASCADE; CREATE EXTENSION voiding');
story('squatted', 'billing', 'reports');

# ---- hostile objects ----

# Whoever owns the database, no superuser, plants a twin of whatever the
# installation calls, where a search_path finds it before the real one.
database('hostile');
$node->safe_psql('postgres', q{CREATE ROLE regress_mallory LOGIN; ALTER DATABASE hostile OWNER TO regress_mallory});
open my $script, '<', "$ENV{VOIDING_ROOT}/voiding--" . $node->safe_psql('postgres',
  q{SELECT default_version FROM pg_available_extensions WHERE name = 'voiding'}) . '.sql' or die "no install script: $!";
my $words = do { local $/; <$script> };
close $script;
my %words = map { lc $_ => 1 } $words =~ /\b[a-z_][a-z0-9_]*\b/gi;
my $names = join ',', sort keys %words;

$node->safe_psql('hostile', qq{
  SET SESSION AUTHORIZATION regress_mallory;
  SET search_path = pg_catalog;
  CREATE SEQUENCE public.ran;
  CREATE TABLE public.planted (what text);
  DO \$plant\$
  DECLARE
    x record;
    names text[] := '{$names}';
    n integer := 0;
  BEGIN
    -- functions with the same name and arguments
    FOR x IN SELECT p.oid, p.proname, pg_get_function_arguments(p.oid) AS args, pg_get_function_result(p.oid) AS result
               FROM pg_proc p
              WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.proname = ANY (names) AND p.prokind IN ('f', 'a') LOOP
      BEGIN
        EXECUTE format('CREATE FUNCTION public.%I(%s) RETURNS %s LANGUAGE plpgsql SET search_path = pg_catalog AS '
          '\$f\$ BEGIN PERFORM nextval(''public.ran''); RAISE EXCEPTION ''hijacked: %s''; END \$f\$', x.proname, x.args, x.result, x.proname);
        INSERT INTO public.planted VALUES ('function ' || x.proname);
      EXCEPTION WHEN others THEN
        NULL;               -- pseudo-types and the like
      END;
    END LOOP;
    -- operators with the same name and arguments
    FOR x IN SELECT o.oprname, o.oprleft::regtype AS l, o.oprright::regtype AS r, o.oprresult::regtype AS result, o.oid
               FROM pg_operator o
              WHERE o.oprleft IN ('text'::regtype, 'name'::regtype, 'jsonb'::regtype, 'uuid'::regtype, 'int4'::regtype, 'int8'::regtype,
                                  'numeric'::regtype, 'timestamptz'::regtype, 'interval'::regtype, 'bool'::regtype, 'oid'::regtype, 'xid8'::regtype) LOOP
      BEGIN
        n := n + 1;
        EXECUTE format('CREATE FUNCTION public.op_%s(%s, %s) RETURNS %s LANGUAGE plpgsql SET search_path = pg_catalog AS '
          '\$f\$ BEGIN PERFORM nextval(''public.ran''); RAISE EXCEPTION ''hijacked: operator %s''; END \$f\$', n, x.l, x.r, x.result, replace(x.oprname, '%', '%%'));
        EXECUTE format('CREATE OPERATOR public.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = public.op_%s)', x.oprname, x.l, x.r, n);
        INSERT INTO public.planted VALUES ('operator ' || x.oprname);
      EXCEPTION WHEN others THEN
        NULL;
      END;
    END LOOP;
    -- tables and types with the names of the catalog's and ours
    FOR x IN SELECT unnest('{pg_namespace,pg_proc,pg_roles,pg_class,pg_depend,pg_extension,pg_type,pg_attribute,event,outbox,document,
                             service,handler,transition,process_type,report,report_line,customer_report}'::text[]) AS name LOOP
      EXECUTE format('CREATE TABLE public.%I (i integer)', x.name);
      INSERT INTO public.planted VALUES ('table');
    END LOOP;
    FOR x IN SELECT unnest('{text,uuid,jsonb,bigint,integer,timestamptz,xid8,smallint,numeric,boolean,currency,name,regproc,jsonpath}'::text[]) AS name LOOP
      EXECUTE format('CREATE TYPE public.%I AS (i pg_catalog.int4)', x.name);
      INSERT INTO public.planted VALUES ('type');
    END LOOP;
  END \$plant\$;
  -- casts: of types of its own, to what everybody uses
  CREATE TYPE public.bait AS ENUM ('a');
  CREATE FUNCTION public.bite(public.bait) RETURNS pg_catalog.json LANGUAGE plpgsql SET search_path = pg_catalog AS
    'BEGIN PERFORM nextval(''public.ran''); RETURN ''{}''; END';
  CREATE CAST (public.bait AS pg_catalog.json) WITH FUNCTION public.bite(public.bait) AS IMPLICIT;
  ALTER DATABASE hostile SET search_path = public, pg_catalog;
});
is(ask('hostile', q{SELECT count(*) FILTER (WHERE what LIKE 'function %') > 100, count(*) FILTER (WHERE what LIKE 'operator %') > 100,
    count(*) FILTER (WHERE what = 'table') > 10, count(*) FILTER (WHERE what = 'type') > 10 FROM public.planted}), 't|t|t|t',
  'plenty was planted');
$node->safe_psql('hostile', q{
  DO $$ BEGIN EXECUTE pg_catalog.format('ALTER ROLE %I IN DATABASE hostile SET search_path = public, pg_catalog', current_user); END $$});
like(error_of($node, 'hostile', q{SELECT replace('a', 'b', 'c')}), qr/hijacked: replace/, 'and is found by whoever calls without care');
like(error_of($node, 'hostile', q{SELECT 'a'::pg_catalog.text || 'b'::pg_catalog.text}), qr/hijacked: operator/, 'operators too');
my $ran = ask('hostile', 'SELECT last_value FROM public.ran');

is(error_of($node, 'hostile', q{CREATE TEMP TABLE pg_extension (extname pg_catalog.text);
  CREATE TEMP TABLE pg_depend (i pg_catalog.int4); CREATE EXTENSION voiding}), '', 'the installation goes through');
story('hostile', 'billing', 'reports');
is(error_of($node, 'hostile', q{SELECT voiding.maintain(); SELECT voiding.create_service('shop');
  SELECT voiding.create_process_type('p', '{"key": "id", "start": {"Begun": "On"}, "states": {
    "On": {"on": {"Ended": {"guard": "$.event.n > 1", "target": "Off", "set": {"n": "$.event.n"}}}, "after": {"P1D": "Off"}}, "Off": {"type": "final"}}}');
  SELECT voiding.emit('Begun', 'i', '{"id": "i"}', 'shop');
  SELECT voiding.emit('Ended', 'i', '{"id": "i", "n": 2}', 'shop');
  SELECT voiding.emit('Ended', 'j', '{"id": "j", "n": 2}', 'shop');
  SET voiding.clock_offset = 100000;
  SELECT voiding.dispatch();
  SELECT voiding.retry_message(id, 'again') FROM voiding.dead_letter;
  SELECT voiding.wait_until_idle('1s');
  SELECT voiding.drop_process_type('p');
  SELECT voiding.cloudevent(e) FROM voiding.event e;
  TABLE voiding.process_history;
  TABLE voiding.ongoing_process}), '', 'everything else too');
is(error_of($node, 'hostile', q{SELECT voiding.redact_event(event_id, 'private') FROM voiding.event LIMIT 1}), '', 'and a redaction');
is(ask('hostile', 'SELECT last_value FROM public.ran'), $ran, 'nothing that was planted ever ran');
is(ask('hostile', q{
    SELECT (SELECT count(*) FROM pg_depend d JOIN pg_proc p ON d.refclassid = 'pg_proc'::regclass AND d.refobjid = p.oid
                    JOIN pg_namespace n ON n.oid = d.objid WHERE p.pronamespace = 'public'::regnamespace AND n.nspname IN ('voiding', 'billing', 'reports')),
           (SELECT count(*) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_type t ON t.oid = a.atttypid
             WHERE c.relnamespace IN ('voiding'::regnamespace, 'billing'::regnamespace, 'reports'::regnamespace)
               AND t.typnamespace = 'public'::regnamespace)}), '0|0', 'nothing is made of it');
is(error_of($node, 'hostile', 'DROP EXTENSION voiding CASCADE'), '', 'it can be dropped');
is(ask('hostile', 'SELECT last_value FROM public.ran'), $ran, 'still nothing ran');

# whoever owns the database gets nothing by that
$node->safe_psql('postgres', 'CREATE DATABASE owned TEMPLATE template0 OWNER regress_mallory');
like(error_of($node, 'owned', 'SET SESSION AUTHORIZATION regress_mallory; CREATE EXTENSION voiding'), qr/^42501: /,
  'only a superuser installs it');
$node->safe_psql('owned', 'CREATE EXTENSION voiding');
like(error_of($node, 'owned', "SET SESSION AUTHORIZATION regress_mallory; $_"), qr/^42501: /, "refused to the owner of the database: $_")
  for 'SELECT voiding.dispatch()', 'SELECT * FROM voiding.event', 'SELECT * FROM billing.document', q{SELECT billing.void_document('A')},
  'DROP EXTENSION voiding', 'CREATE TABLE voiding.mine ()', q{SELECT voiding.create_document_voiding('b2', 'r2')},
  q{SELECT nextval('voiding.position')};

# ---- dropping, in one session ----

database('drops');
my $s = $node->background_psql('drops', on_error_stop => 0);
$s->query('CREATE EXTENSION voiding');
story('drops', 'billing', 'reports');
$s->query(q{SELECT billing.issue_document('D', 'c', 5)});
$s->query_safe('SELECT voiding.dispatch()');
my $kept = q{SELECT (SELECT md5(string_agg(d::text, '' ORDER BY document_id)) FROM billing.document d),
  (SELECT md5(string_agg(l::text, '' ORDER BY document_id)) FROM reports.report_line l),
  (SELECT md5(string_agg(r::text, '' ORDER BY report_id)) FROM reports.report r)};
my $before = ask('drops', $kept);
like(error_in($s, 'DROP EXTENSION voiding'), qr/cannot drop extension voiding because other objects depend on it/,
  'DROP EXTENSION refuses');
is(ask('drops', $kept), $before, 'and changes nothing');
$s->query_safe(q{SET client_min_messages = warning});
$s->query_safe('DROP EXTENSION voiding CASCADE');
is(ask('drops', $kept), $before, 'with CASCADE the documents and reports are kept, every row');
is(ask('drops', q{SELECT count(*) FROM pg_namespace WHERE nspname = 'voiding'}), '0', 'and the engine is gone');

is(error_in($s, 'CREATE EXTENSION voiding'), '', 'and can be made again');
$s->query_safe(q{SELECT voiding.create_document_voiding('b2', 'r2')});
$s->query_safe(q{SELECT b2.issue_document('A', 'c', 10), b2.void_document('A')});
is($s->query_safe('SELECT voiding.dispatch()'), '4', 'made again, the same session works with it');
is($s->query_safe('SELECT status FROM b2.document'), 'voided', 'to the end');
is(ask('drops', $kept), $before, 'and what was kept is still there');
invariants_hold($node, 'drops', 'made again', 'b2', 'r2');

# in one transaction, and rolled back
$s->query_safe('BEGIN');
$s->query_safe(q{SELECT b2.issue_document('B', 'c', 10)});
$s->query_safe('DROP EXTENSION voiding CASCADE');
is(error_in($s, 'CREATE EXTENSION voiding'), '', 'and can be made again');
$s->query_safe(q{SELECT voiding.create_document_voiding('b3', 'r3')});
$s->query_safe(q{SELECT b3.issue_document('A', 'c', 10), b3.void_document('A')});
is($s->query_safe('SELECT voiding.dispatch()'), '4', 'dropped and made in one transaction');
$s->query_safe('ROLLBACK');
$s->query_safe(q{SELECT b2.issue_document('C', 'c', 10), b2.void_document('C')});
is($s->query_safe('SELECT voiding.dispatch()'), '4', 'and after its rollback the old one is used');
is($s->query_safe(q{SELECT status FROM b2.document WHERE document_id = 'C'}), 'voided', 'to the end');
invariants_hold($node, 'drops', 'after the rollback', 'b2', 'r2');

$s->quit;
$node->stop;
done_testing();
