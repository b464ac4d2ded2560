# What leaves PostgreSQL through Debezium, as example/debezium sets it up: a
# reader of the replication protocol stands for the connector, and is told by
# the connector's own settings which slot, publication and columns there are.
# The columns are those of the outbox router; each message comes, in the order
# of the commits, until it is confirmed, and its row is purged after that and
# not before; nothing comes that is handled here. A process whose command is
# done outside; a slot that is lost, mended by a worker and by hand; a server
# that is killed; events straight from their table, over a new partition.

use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Voiding::Test;

my $root = $ENV{VOIDING_ROOT} // '.';
my $node = new_node('main', wal_level => 'logical', max_wal_senders => 4, max_worker_processes => 20, 'voiding.retry_base' => 20);
my $db = new_database($node, 'billing');
my $reader = "$root/build/pgoutput";
system_or_bail('make', '-s', '-C', $root, 'build/pgoutput', 'PG_CONFIG=' . ($ENV{PG_CONFIG} // 'pg_config'));

# types as the messages of the protocol say them
my %type = (uuid => 2950, text => 25, jsonb => 3802, timestamptz => 1184);

sub ask { return row($node, $db, $_[0]); }
sub properties
{
  my ($file) = @_;
  return map { /^([^#=]+)=(.*)$/ ? ($1 => $2) : () } split /\n/, slurp_file("$root/example/debezium/$file");
}

# the columns that the router is told to read, or those it reads untold
sub router_columns
{
  my (%is) = @_;
  my $of = sub { $is{"transforms.outbox.$_[0]"} // $_[1] };
  my @more = map { (split /:/)[0] } split /,/, $of->('table.fields.additional.placement', '');

  return (id => $of->('table.field.event.id', 'id'), key => $of->('table.field.event.key', 'aggregateid'),
    payload => $of->('table.field.event.payload', 'payload'), route => $of->('route.by.field', 'aggregatetype'), more => \@more);
}

my %seen;       # ids that came

# All that comes now, up to what has been written: the relation, rows as
# hashes, messages, the number of transactions, and what should not come.
sub listen_to
{
  my ($is, @confirm) = @_;
  my $until = ask('SELECT pg_current_wal_insert_lsn()');
  my %came = (rows => [], messages => [], other => [], commits => 0);
  my ($out, $err) = ('', '');

  IPC::Run::run([ $reader, $node->connstr($db) . " user=$is->{'database.user'}", $is->{'slot.name'}, $is->{'publication.name'}, $until, @confirm ],
    '>', \$out, '2>', \$err) or die "pgoutput: $err";
  for (split /\n/, $out)
  {
    my ($what, $of, @fields) = split /\t/, $_, -1;

    if ($what eq 'relation') { shift @fields; $came{relation}{$of} = { map { split /:/ } @fields }; }
    elsif ($what eq 'insert') { push @{ $came{rows} }, { table => $of, map { /^([^=]+)=(.*)$/s; ($1 => $2 eq '\N' ? undef : unescape($2)) } @fields }; }
    elsif ($what eq 'message') { push @{ $came{messages} }, $of; }
    elsif ($what eq 'commit') { $came{commits}++; }
    elsif ($what ne 'begin') { push @{ $came{other} }, $_; }
  }
  $seen{ $_->{id} // $_->{event_id} } = 1 for @{ $came{rows} };
  return \%came;
}

sub unescape
{
  my %is = (n => "\n", r => "\r", t => "\t", '\\' => '\\');
  return $_[0] =~ s/\\(.)/$is{$1}/gr;
}

# a line for each row, to be compared
sub lines
{
  my ($came, @columns) = @_;
  return join "\n", map { my $r = $_; join '|', map { $_ // '' } @$r{@columns} } @{ $came->{rows} };
}

sub sorted { return join "\n", sort split /\n/, $_[0]; }

# ---- the settings and what is there are the same ----

my %outbox = properties('outbox.properties');
$node->safe_psql($db, slurp_file("$root/example/debezium/outbox.sql"));
my %router = router_columns(%outbox);
my @columns = qw(id aggregatetype aggregateid type payload correlation_id causation_id source origin destination sent_in created_at);
is($outbox{'plugin.name'}, 'pgoutput', 'the plug-in of PostgreSQL itself');
is(ask("SELECT plugin FROM pg_replication_slots WHERE slot_name = '$outbox{'slot.name'}'"), 'pgoutput', 'the slot is there, for this plug-in');
is(ask("SELECT schemaname || '.' || tablename FROM pg_publication_tables WHERE pubname = '$outbox{'publication.name'}'"),
  $outbox{'table.include.list'}, 'the publication is of the table that the connector includes');
is(ask("SELECT pubinsert, pubupdate, pubdelete, pubtruncate FROM pg_publication WHERE pubname = '$outbox{'publication.name'}'"), 't|f|f|f', 'it publishes inserts only');
is_deeply([ @router{qw(id key payload route)} ], [qw(id aggregateid payload aggregatetype)], 'the router reads the columns that it would read untold');
is($outbox{'predicates.isTransfer.pattern'} =~ s/\[\.\]/./gr, "$outbox{'topic.prefix'}.$outbox{'table.include.list'}", 'and what comes of this table only');

# ---- what is handled here stays; what is for outside comes ----

my $story = q{
  SELECT billing.issue_document('D' || i, 'c' || i, i * 10, 'EUR', E'a "kind"\t\\\\ of\nünusual') FROM generate_series(1, 3) i;
  SELECT voiding.start_workers(1)};
$node->safe_psql($db, $story);
my $process = ask(q{SELECT billing.void_document('D1', 'typo')});
is(ask("SELECT state FROM voiding.wait_for_process('$process', '30 s')"), 'DocumentVoided', 'workers void a document');
is(ask(q{SELECT voiding.wait_until_idle('30 s')}), 't', 'nobody here waits for what is done outside');
is(ask(q{SELECT total FROM reports.publish_report('c2')}), '20', 'and a report is published');
$node->safe_psql($db, q{BEGIN; SELECT billing.issue_document('undone', 'c4', 1); ROLLBACK});
is(ask(q{SELECT count(*), count(*) FILTER (WHERE destination <> 'kafka') FROM voiding.transfer}), '5|0', 'what is for outside is in the table of transfers, and nothing else');
is(ask(q{SELECT service, known_as, sending, receiving FROM voiding.connection}), 'kafka|shop|waiting|no subscription', 'the connection is seen');

my $came = listen_to(\%outbox);
is(join(' ', sort keys %{ $came->{relation} }), $outbox{'table.include.list'}, 'changes of one table come');
my $described = $came->{relation}{ $outbox{'table.include.list'} };
is_deeply($described, { map { $_ => $type{ /id$/ && !/aggregate/ ? 'uuid' : $_ eq 'payload' ? 'jsonb' : $_ eq 'created_at' ? 'timestamptz' : 'text' } } @columns }, 'its columns, and their types');
is(join(' ', grep { !exists $described->{$_} } @router{qw(id key payload route)}, @{ $router{more} }), '', 'each column that the router is told of comes');
my $events = q{SELECT e.event_id, e.source, e.subject, e.type, e.data, e.correlation_id, e.causation_id, e.recorded_at FROM voiding.event e
  WHERE e.type IN (SELECT h.type FROM voiding.handler h WHERE h.service = 'kafka')};
is(ask("SELECT string_agg(DISTINCT type, ' ') FROM ($events) e"), 'DocumentIssued DocumentVoided ReportPublished', 'events of these types were written');
my @values = @columns[ 0 .. 9 ];
is(sorted(lines($came, @values)), sorted(ask("SELECT event_id, source, subject, type, data, correlation_id, causation_id, source, 'shop', 'kafka' FROM ($events) e")),
  'what comes is these events, each once, with their values');
is(sorted(lines($came, 'id')), sorted(ask(q{SELECT id FROM voiding.under_way WHERE service = 'kafka'})), 'they are what is under way');
is(lines($came, 'type', 'aggregateid') =~ s/\n/ /gr, 'DocumentIssued|D1 DocumentIssued|D2 DocumentIssued|D3 DocumentVoided|D1 ReportPublished|' . ask('SELECT report_id FROM reports.report WHERE total = 20'), 'in the order of the commits');
is(join("\n", @{ $came->{other} }), '', 'inserts and nothing else');
like($came->{rows}[0]{payload}, qr/"kind": "a \\"kind\\"\\t\\\\ of\\nünusual"/, 'JSON comes as it is, with whatever is in it');

# ---- until it is confirmed; then its row may go ----

# note how far the reader is, then look what is left when all is old
my $purge = q{SET voiding.clock_offset = '8d'; SELECT voiding.maintain(); SELECT count(*) FROM voiding.transfer};
sub left { return (split /\n/, ask($purge))[-1]; }

is(lines(listen_to(\%outbox), @values), lines($came, @values), 'not confirmed: it comes again, with the same ids');
is(left() . left(), '55', 'nothing is removed, however old, as long as nothing was confirmed');
is(error_of($node, $db, q{SELECT voiding.drop_service('kafka')}) =~ s/:.*//r, '2BP01', 'a service outside is in use like any other');
is(lines(listen_to(\%outbox, 'confirm'), 'id'), lines($came, 'id'), 'the reader confirms');
is(scalar @{ listen_to(\%outbox)->{rows} }, 0, 'confirmed: it does not come again');
$node->safe_psql($db, q{SELECT billing.issue_document('D4', 'c1', 40)});
ask('SELECT voiding.watch_connections()');      # notes that these were confirmed
is(ask('SELECT voiding.maintain(); SELECT count(*) FROM voiding.transfer') =~ s/\s//gr, '6', 'what is not old stays');
is(ask(q{SELECT count(*) FROM voiding.under_way WHERE subject = 'D4'}), '1', 'what was not confirmed is under way');
my $later = listen_to(\%outbox, 'confirm');
is(lines($later, 'aggregateid'), 'D4', 'and comes');
is(ask('SELECT count(*) FROM voiding.under_way'), '0', 'and is no more');
ok(poll_until(sub { listen_to(\%outbox, 'confirm'); left() == 0 }, 60), 'what was confirmed is purged by age');
is(join("\n", @{ listen_to(\%outbox)->{rows} }, @{ listen_to(\%outbox, 'confirm')->{other} }), '', 'which does not come');

# a transaction that has not ended is not confirmed with what came after it
my $slow = $node->background_psql($db);
$slow->query_safe('BEGIN');
$slow->query_safe(q{SELECT billing.issue_document('slow', 'c1', 50)});
$node->safe_psql($db, q{SELECT billing.issue_document('quick', 'c1', 50)});
is(lines(listen_to(\%outbox, 'confirm'), 'aggregateid'), 'quick', 'the reader confirms a place behind the row of a transaction under way');
ask('SELECT voiding.watch_connections()') for 1 .. 3;
$slow->query_safe('COMMIT');
$slow->quit;
left();
is(ask(q{SELECT count(*) FROM voiding.transfer WHERE aggregateid = 'slow'}), '1', 'its row stays');
is(lines(listen_to(\%outbox, 'confirm'), 'aggregateid'), 'slow', 'and comes');

# ---- a command that is done outside ----

$node->safe_psql($db, q{
  SELECT voiding.create_service('post');
  CALL voiding.connect_service('kafka', NULL, 'shop', commands => '{PrintLetter}',
    events => '{DocumentIssued, DocumentVoided, DocumentVoidingAborted, ReportPublished}');
  CREATE TABLE post.letter (letter_id text PRIMARY KEY, process_id uuid, printed boolean NOT NULL DEFAULT false);
  CREATE TRIGGER begins BEFORE INSERT ON post.letter FOR EACH ROW EXECUTE FUNCTION voiding.begin_conversation('process_id');
  CREATE TRIGGER wanted AFTER INSERT ON post.letter FOR EACH ROW EXECUTE FUNCTION voiding.emit_event('LetterWanted', 'letter_id', '@correlation=process_id');
  CREATE TRIGGER printed AFTER UPDATE ON post.letter FOR EACH ROW EXECUTE FUNCTION voiding.emit_event('LetterPrinted', 'letter_id', '@becomes=printed=true', '@correlation=process_id');
  SELECT voiding.create_process_type('letter', '{"key": "letter_id", "start": {"LetterWanted": "Printing"}, "states": {
    "Printing": {"entry": {"send": "PrintLetter"}, "on": {"LetterPrinted": "Printed"}, "forever": "printers are slow"}, "Printed": {"type": "final"}}}');
  INSERT INTO post.letter VALUES ('L1')});
ask(q{SELECT voiding.wait_until_idle('30 s')});
my $letter = listen_to(\%outbox, 'confirm');
is(lines($letter, qw(aggregatetype aggregateid type)), 'kafka|L1|PrintLetter', q{a process's command comes, to the topic of its receiver});
my ($printing) = map { $_->{correlation_id} } @{ $letter->{rows} };
is($printing, ask('SELECT process_id FROM post.letter'), 'with the process as its conversation');
is($letter->{rows}[0]{payload}, qq({"letter_id": "L1", "process_id": "$printing"}), 'and its arguments');
$node->safe_psql($db, q{UPDATE post.letter SET printed = true});       # the answer, as a consumer writes it
is(ask(q{SELECT state FROM voiding.process WHERE type = 'letter'}), 'Printed', 'the answer goes on here');
like(error_of($node, $db, q{SELECT voiding.send_command('PrintLetter', '{}')}), qr/^0A000: /, 'only processes send it');

# ---- a quiet outbox does not hold the WAL ----

ask('SELECT count(voiding.emit(\'Noise\', \'n\', \'{}\', \'shop\')) FROM (SELECT voiding.create_service(\'shop\')) s, generate_series(1, 1000)');
my $place = ask('SELECT pg_current_wal_insert_lsn()');
is(row($node, $db, "SET ROLE debezium; $outbox{'heartbeat.action.query'}") ne '', 1, 'the heartbeat, by the role of the connector');
is(join(' ', @{ listen_to(\%outbox, 'confirm')->{messages} }), 'heartbeat', 'it comes, though no row does');
is(ask("SELECT confirmed_flush_lsn > '$place' FROM pg_replication_slots WHERE slot_name = '$outbox{'slot.name'}'"), 't', 'and the slot goes on');

# ---- the server is killed ----

$node->safe_psql($db, q{SELECT billing.issue_document('K1', 'c1', 1)});
my $before = lines(listen_to(\%outbox), 'id');
$node->stop('immediate');
$node->start;
# a slot remembers on disk, at checkpoints, how far it was confirmed: more may come again
$came = listen_to(\%outbox);
is($came->{rows}[-1]{id}, $before, 'after a crash what was not confirmed comes again');
is(join(' ', grep { $_ ne $before && !$seen{$_} } map { $_->{id} } @{ $came->{rows} }), '', 'and of the rest only what came before');

# ---- the slot is lost ----

$node->safe_psql($db, 'SELECT voiding.start_workers(1)');
$node->safe_psql($db, "BEGIN; SELECT pg_drop_replication_slot('$outbox{'slot.name'}'); SELECT billing.issue_document('K2', 'c1', 1); COMMIT");
ok(poll_until(sub { ask("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '$outbox{'slot.name'}'") eq '1' }, 60), 'the slot is gone: a worker makes another');
my $again = '';      # and what it did not know to be confirmed
ok(poll_until(sub { $again = lines(listen_to(\%outbox), 'id', 'aggregateid'); $again =~ /\|K2/ }, 60), 'and sends again what was not confirmed');
like($again, qr/$before\|K1\n.*\|K2$/, 'with the same ids, in their order');
is(join(' ', grep { !/\|K2$/ && !$seen{ s/\|.*//r } } split /\n/, $again), '', 'and of the rest only what came before');
listen_to(\%outbox, 'confirm');

# a slot that was lost by its limit, and is not gone; without workers
$node->safe_psql($db, 'SELECT voiding.stop_workers()');
$node->safe_psql('postgres', q{ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'});
$node->reload;
$node->safe_psql($db, q{SELECT billing.issue_document('K3', 'c1', 1)});
ok(poll_until(sub {
    $node->safe_psql($db, q{SELECT pg_logical_emit_message(false, 'fill', repeat('x', 1000000)) FROM generate_series(1, 20)});
    $node->safe_psql($db, $_) for 'SELECT pg_switch_wal()', 'CHECKPOINT';
    ask("SELECT wal_status FROM pg_replication_slots WHERE slot_name = '$outbox{'slot.name'}'") eq 'lost' }, 60), 'a slot is lost by its limit');
is(ask('SELECT sending FROM voiding.connection'), 'lost', 'that is seen, too');
left();
is(ask(q{SELECT count(*) FROM voiding.transfer WHERE aggregateid = 'K3'}), '1', 'nothing is removed when the slot is lost');
$node->safe_psql('postgres', 'ALTER SYSTEM RESET max_slot_wal_keep_size');
$node->reload;
$node->safe_psql($db, slurp_file("$root/example/debezium/outbox.sql"));
is((split /\n/, lines(listen_to(\%outbox, 'confirm'), 'aggregateid'))[-1], 'K3', 'the file is run again: nothing was lost');
is(ask(q{SELECT string_agg(type, ' ' ORDER BY type) FROM voiding.handler WHERE service = 'kafka' AND kind = 'event'}),
  'DocumentIssued DocumentVoided DocumentVoidingAborted ReportPublished', 'the same leaves as before');

# ---- all events, from their own table ----

my %events = properties('events.properties');
$node->safe_psql($db, slurp_file("$root/example/debezium/events.sql"));
%router = router_columns(%events);
is(ask("SELECT schemaname || '.' || tablename FROM pg_publication_tables WHERE pubname = '$events{'publication.name'}'"), $events{'table.include.list'},
  'events: the publication is of the table that the connector includes');
isnt($events{'topic.prefix'}, $outbox{'topic.prefix'}, 'the two connectors have prefixes of their own');
is($events{'predicates.isEvent.pattern'} =~ s/\[\.\]/./gr, "$events{'topic.prefix'}.$events{'table.include.list'}", 'the router takes what comes of this table only');
$node->safe_psql($db, 'SELECT voiding.start_workers(1)');
my $from = ask('SELECT max(position) FROM voiding.event');
$node->safe_psql($db, q{BEGIN; SELECT billing.void_document('D3', 'over a border'); SELECT setval('voiding.position', 10000000); COMMIT});
is(ask(q{SELECT voiding.wait_until_idle('30 s')}), 't', 'a process goes on in the next partition');
$came = listen_to(\%events, 'confirm');
my %tables = map { $_->{table} => 1 } @{ $came->{rows} };
is(join(' ', sort keys %tables), $events{'table.include.list'}, 'rows of all partitions come as those of one table');
is(join(' ', grep { !exists $came->{relation}{'voiding.event'}{$_} } @router{qw(id key payload route)}, @{ $router{more} }), '', 'each column that the router is told of comes');
is(lines($came, @router{qw(id route key)}, 'type', $router{payload}), ask("SELECT event_id, source, subject, type, data FROM voiding.event WHERE position > $from AND source <> 'voiding' ORDER BY position"),
  'every event, once, with its values');
cmp_ok(ask("SELECT count(*) FROM voiding.event_p1"), '>', 0, 'some are of the new partition');
is(scalar @{ listen_to(\%events)->{rows} }, 0, 'confirmed: they do not come again');

# ---- the end ----

$node->safe_psql($db, q{SELECT billing.issue_document('E1', 'c1', 1)});
like(error_of($node, $db, q{CALL voiding.disconnect_service('kafka', timeout => '100 ms')}), qr/^55006: /, 'a connection ends when all that left has arrived');
invariants_hold($node, $db, 'at the end');
$node->stop;
done_testing();
