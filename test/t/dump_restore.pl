# Dump and restore into another server: the same rows, objects and numbers, no
# event said again, and everything that was under way goes on. Plain in one
# transaction and in parallel; with Billing and Reports under other names; and
# without them.

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;
use Voiding::Story;
use Voiding::Test;

my $old = new_node('old');
my $new = new_node('new');
my $dir = PostgreSQL::Test::Utils::tempdir();

# the old server has seen many more transactions than the new one
$old->safe_psql('postgres', q{
  DO $$ BEGIN FOR i IN 1 .. 5000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$});

sub restored
{
  my ($from, $to, $format, @options) = @_;
  my @psql = ('psql', '-X', '-q', '-1', '--set', 'ON_ERROR_STOP=1', '-d', $new->connstr($to));

  $new->safe_psql('postgres', "CREATE DATABASE $to TEMPLATE template0");
  if ($format eq 'plain')
  {
    $old->command_ok([ 'pg_dump', @options, '-f', "$dir/$to", $from ], "$to: dumped, plain");
    $new->command_ok([ @psql, '-f', "$dir/$to" ], "$to: restored in one transaction");
  }
  else
  {
    $old->command_ok([ 'pg_dump', '-Fc', '-f', "$dir/$to", $from ], "$to: dumped, custom");
    $new->command_ok([ 'pg_restore', '-j2', '--exit-on-error', @options, '-d', $to, "$dir/$to" ], "$to: restored in parallel");
  }
  # a restore that failed in one transaction has left nothing to compare
  return fail("$to: nothing was restored")
    unless row($new, $to, q{SELECT count(*) FROM pg_extension WHERE extname = 'voiding'});
  same_lines(contents($new, $to), contents($old, $from), "$to: every row, every sequence");
  same_lines(objects($new, $to), objects($old, $from), "$to: every object");
  return 1;
}

sub lines_like
{
  my ($pattern, $text) = @_;
  return scalar(grep { /$pattern/ } split /\n/, $text);
}

# ---- a database in the middle of everything ----

new_database($old, 'busy');
begin_story($old, 'busy', 'billing', 'reports');
invariants_hold($old, 'busy', 'before');
my $before = contents($old, 'busy');
is(lines_like(qr/^voiding\.event_p\d+\|[1-9]/, $before), 4, 'there are events in four partitions');
is(lines_like(qr/^voiding\.archive_p\d+\|[1-9]/, $before), 4, 'they are archived in as many');
is(lines_like(qr/^voiding\.finished_process_\w+\|[1-9]/, $before), 2, 'and ended processes in two');
is(lines_like(qr/^voiding\.(outbox|dead_letter|parked_event|active_process|timer|task)\|[1-9]/, $before), 6,
  'and something of everything else');

restored('busy', 'plain', 'plain');
restored('busy', 'parallel', 'custom');
subtest 'plain: it goes on' => sub { goes_on($new, 'plain', 'billing', 'reports') };
subtest 'parallel: it goes on' => sub { goes_on($new, 'parallel', 'billing', 'reports') };
same_lines(contents($old, 'busy'), $before, 'the dumped database is as it was');
subtest 'and where it came from' => sub { goes_on($old, 'busy', 'billing', 'reports') };

# a dump of the restored one is as good
restored('busy', 'again', 'custom');

# ---- other names: no second Billing appears ----

$old->safe_psql('postgres', 'CREATE DATABASE named TEMPLATE template0');
$old->safe_psql('named', q{
  CREATE SCHEMA billing;
  CREATE EXTENSION voiding;
  DROP SCHEMA billing;
  SELECT voiding.create_document_voiding('b2', 'r2');
});
begin_story($old, 'named', 'b2', 'r2');
restored('named', 'named_plain', 'plain');
restored('named', 'named_parallel', 'custom');
restored('named', 'named_rls', 'plain', '--enable-row-security');
restored('named', 'named_rls_parallel', 'custom', '--enable-row-security');
is(row($new, 'named_plain', q{SELECT count(*) FROM pg_namespace WHERE nspname IN ('billing', 'reports')}),
  '0', 'nothing was made besides what was dumped');
subtest 'under other names: it goes on' => sub { goes_on($new, 'named_plain', 'b2', 'r2') };

# ---- both at once ----

new_database($old, 'pair');
$old->safe_psql('pair', q{ALTER TABLE billing.document ADD COLUMN extra text});
is(error_of($old, 'pair', q{SELECT voiding.create_document_voiding('b2', 'r2')}) =~ /^42710: / ? 'refused' : 'allowed',
  'refused', 'a command has one handler: there is one pair');

# ---- without the example ----

new_database($old, 'bare');
$old->safe_psql('bare', q{
  SELECT voiding.drop_process_type('document_voiding');
  SELECT voiding.drop_command(type) FROM voiding.handler WHERE kind = 'command';
  SELECT voiding.drop_query(type) FROM voiding.handler WHERE kind = 'query';
  SELECT voiding.unsubscribe(type, service) FROM voiding.handler WHERE kind = 'event';
  SELECT voiding.drop_task_type(name) FROM voiding.task_type;
  SELECT voiding.drop_service('billing'), voiding.drop_service('reports');
  DROP SCHEMA billing, reports CASCADE;
});
restored('bare', 'bare_plain', 'plain');
restored('bare', 'bare_parallel', 'custom');
is(row($new, 'bare_plain', q{SELECT count(*) FROM pg_namespace WHERE nspname IN ('billing', 'reports')}),
  '0', 'what was dropped does not come back');
$new->safe_psql('bare_plain', 'SELECT voiding.create_document_voiding()');
serve($new, 'bare_plain');
$new->safe_psql('bare_plain', q{SELECT billing.issue_document('D1', 'c', 1); SELECT billing.void_document('D1')});
settle($new, 'bare_plain');
is(row($new, 'bare_plain', 'SELECT status FROM billing.document'), 'voided', 'and can be made again');
invariants_hold($new, 'bare_plain', 'made again');

$_->stop for $old, $new;
done_testing();
