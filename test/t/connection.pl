# Billing, Reports and the manager in three clusters, connected by logical
# replication: the voiding process as in one, what is refused, what is sent
# again, and how connections end.

use strict;
use warnings;

use PostgreSQL::Test::Utils ();
use Test::More;
use Voiding::Test;
use Voiding::Three;

# ---- what must be set ----

my $plain = new_node('plain', alone => 1);
new_database($plain, 'shop');
like(error_of($plain, 'shop', q{CALL voiding.connect_service('stock', NULL, 'shop')}), qr/^55000: wal_level is "minimal"/,
  'without wal_level = logical nothing can be sent');
$plain->stop;

# ---- the story ----

my $three = three_clusters();
my ($billing, $reports, $manager) = map { $three->{$_} } qw(billing reports manager);

sub say_in { my ($node, $sql) = @_; return $node->safe_psql('postgres', $sql) }

sub comes
{
  my ($node, $sql, $expected, $name) = @_;
  local $Test::Builder::Level = $Test::Builder::Level + 1;
  return ok(poll_until(sub { (try_row($node, 'postgres', $sql) // '') eq $expected }, 60), $name) || diag(say_in($node, $sql));
}

my (undef, undef, $said) = $billing->psql('postgres', connection($three, 'billing', 'manager', q{events => '{DocumentVoidingRequested}'}));
like($said, qr/service "manager" does not send to "billing" yet/, 'who connects first is told that the other side is missing');
is(say_in($billing, q{SELECT sending, receiving FROM voiding.connection}), 'waiting|no subscription', '... and sees it');
connect_all($three);

say_in($billing, q{SELECT billing.issue_document('D' || i, 'C1', i) FROM generate_series(1, 5) i});
comes($reports, 'SELECT count(*) FROM reports.report_line', '5', 'documents come to Reports');
my $process = say_in($billing, q{SELECT billing.void_document('D1', 'wrong')});
is(say_in($billing, q{SELECT billing.void_document('D1', 'wrong')}), $process, 'asked twice, it is the same process');
comes($billing, q{SELECT status FROM billing.document WHERE document_id = 'D1'}, 'voided', 'a document is voided');
comes($manager, qq{SELECT state FROM voiding.process WHERE process_id = '$process'}, 'DocumentVoided', 'by the process whose id Billing gave out');
is(say_in($manager, qq{SELECT (voiding.wait_for_process('$process', '1 s')).state}), 'DocumentVoided', 'it can be waited for where it is');
is(say_in($manager, qq{SELECT string_agg(source, ',' ORDER BY position) FROM voiding.event WHERE correlation_id = '$process'}),
  'billing,reports,billing', 'its history there has the events of all');
is(say_in($reports, q{SELECT total FROM reports.publish_report('C1')}), '14', 'the report is published without it');
say_in($billing, q{SELECT billing.void_document('D2', 'too late')});
comes($manager, q{SELECT state FROM voiding.process WHERE key = 'D2'}, 'MarkingDocumentAsVoidedFailed', 'one that is published cannot be voided');
comes($billing, q{SELECT status FROM billing.document WHERE document_id = 'D2'}, 'issued', 'and is as before');
say_in($billing, q{SELECT billing.void_document('D2', 'once more')});
comes($billing, q{SELECT reason FROM billing.aborted_voiding ORDER BY process_id DESC LIMIT 1}, 'the last voiding failed, which nobody has acknowledged',
  'asked again before anybody has seen that, it is refused');
comes($billing, q{SELECT status FROM billing.document WHERE document_id = 'D2'}, 'issued', '... and the document is as before');
say_in($manager, q{SELECT voiding.acknowledge_process_failure(process_id, 'seen') FROM voiding.active_process WHERE failed});
ok(all_arrived($three), 'all has arrived');
agree($three, 'after the story');


# ---- sent again ----

sub known
{
  return join "\n", map { say_in($_, q{SELECT count(*) FROM voiding.event}) . ' ' . say_in($_, q{SELECT count(*) FROM voiding.transfer}) }
    $billing, $reports, $manager;
}
my $before = known();
cmp_ok(say_in($billing, q{SELECT voiding.resend('manager', '-infinity')}), '>=', 4, 'all is sent again');
cmp_ok(say_in($manager, q{SELECT voiding.resend('reports', '-infinity')}), '>=', 2, '... and commands');
say_in($billing, q{INSERT INTO billing.document (document_id, customer_id, amount) VALUES ('D6', 'C2', 6)});
say_in($manager, q{SELECT voiding.emit('Nothing', 'x', '{}', 'billing') WHERE false});
comes($reports, q{SELECT count(*) FROM reports.report_line WHERE document_id = 'D6'}, '1', 'what was sent after it has arrived');
ok(all_arrived($three), 'all has arrived');
my @events = map { say_in($_, q{SELECT count(*) - count(DISTINCT event_id) FROM voiding.event}) } $billing, $reports, $manager;
is("@events", '0 0 0', 'and nothing has happened twice');
is(say_in($manager, q{SELECT count(*) FROM voiding.process}), '2', 'no process was started again');

# ---- a slot is lost ----

say_in($manager, q{ALTER SUBSCRIPTION voiding_billing_to_manager DISABLE});
say_in($billing, q{SELECT billing.void_document('D6', 'behind a lost slot')});
my $logged = -s $billing->logfile;
comes($billing, q{SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'voiding_billing_to_manager' AND NOT active}, '1', 'nobody comes for it');
say_in($billing, q{SELECT pg_drop_replication_slot('voiding_billing_to_manager')});
ok(poll_until(sub { PostgreSQL::Test::Utils::slurp_file($billing->logfile, $logged) =~ /the replication slot for service "manager" was lost: [1-9]\d* messages are sent again/ }, 60),
  'a worker notices that a slot is gone, makes another and sends again');
say_in($manager, q{ALTER SUBSCRIPTION voiding_billing_to_manager ENABLE});
comes($billing, q{SELECT status FROM billing.document WHERE document_id = 'D6'}, 'voided', 'what was in the gap goes on');
ok(all_arrived($three), 'all has arrived');
agree($three, 'after a lost slot');

# ---- one way is slower than another ----

say_in($reports, q{LOAD 'voiding'; ALTER SYSTEM SET voiding.retry_limit = 20});
$reports->reload;
say_in($reports, q{ALTER SUBSCRIPTION voiding_billing_to_reports DISABLE});
say_in($billing, q{SELECT billing.issue_document('D7', 'C3', 7)});
say_in($billing, q{SELECT billing.void_document('D7', 'at once')});
comes($reports, q{SELECT attempts > 1 FROM voiding.outbox WHERE type = 'MarkDocumentAsVoided'}, 't', 'a command comes before the event that it is about');
say_in($reports, q{ALTER SUBSCRIPTION voiding_billing_to_reports ENABLE});
comes($billing, q{SELECT status FROM billing.document WHERE document_id = 'D7'}, 'voided', '... and does not keep that from being handled');
is(say_in($reports, q{SELECT count(*) FROM voiding.dead_letter}), '0', '... nothing gave up');
say_in($reports, q{LOAD 'voiding'; ALTER SYSTEM RESET voiding.retry_limit});
$reports->reload;
ok(all_arrived($three), 'all has arrived');

# ---- what one may not say ----

sub forge
{
  my ($type, $source, %columns) = @_;
  my $origin = $columns{origin} // 'billing';

  $columns{aggregatetype} //= $source;
  $columns{payload} //= '{"document_id": "F"}';
  return say_in($billing, qq{INSERT INTO voiding.transfer VALUES
    (voiding.uuid(), '$columns{aggregatetype}', 'F', '$type', '$columns{payload}', '$source', '$origin', 'manager', voiding.uuid(), NULL, NULL, now())
    RETURNING id});
}

sub is_dead
{
  my ($node, $id, $error, $name) = @_;
  local $Test::Builder::Level = $Test::Builder::Level + 1;
  return comes($node, qq{SELECT error ~ '$error' FROM voiding.dead_letter WHERE id = '$id'}, 't', $name);
}

say_in($manager, q{SELECT voiding.create_service('desk'), voiding.create_command('Tidy', NULL, 'desk')});
is_dead($manager, forge('TaskCompleted', 'billing'), '^42939', 'an event of the engine itself from elsewhere is a dead letter');
is_dead($manager, forge('DeskTidied', 'desk'), '^42501.*lives here', '... and one of a service that lives here');
is_dead($manager, forge('Untidy', 'billing', aggregatetype => 'manager'), '^42704: no service here handles', '... and a command that nobody handles');
is_dead($manager, forge('DocumentVoided', 'reports'), '^42501.*in the name of', '... and an event of another connected database');
is_dead($manager, forge('Untidy', $_, aggregatetype => 'manager'), '^42501.*in the name of', "... and a command in the name of $_") for qw(voiding desk reports);
is_dead($manager, forge('DocumentVoided', 'billing', payload => '[]'), '^22023', '... and an event whose data is no object');
is(say_in($manager, q{SELECT count(*) FROM voiding.transfer WHERE source IN ('voiding', 'reports') AND origin = 'billing'}), '0',
  'what is forged does not take the place of what is to come');
say_in($billing, q{ALTER PUBLICATION voiding_billing_to_manager SET (publish = 'insert, update, delete')});
say_in($billing, q{UPDATE voiding.transfer SET payload = '{}' WHERE destination = 'manager' AND type = 'DeskTidied';
  DELETE FROM voiding.transfer WHERE destination = 'manager' AND type = 'TaskCompleted'});
say_in($billing, q{ALTER PUBLICATION voiding_billing_to_manager SET (publish = 'insert')});
is_dead($manager, forge('DocumentVoided', 'billing', payload => '[]'), '^22023', 'changes of rows come');
is(say_in($manager, q{SELECT string_agg(type || payload, ' ' ORDER BY type) FROM voiding.transfer WHERE type IN ('DeskTidied', 'TaskCompleted')}),
  'DeskTidied{"document_id": "F"} TaskCompleted{"document_id": "F"}', '... and change nothing');
like(error_of($manager, 'postgres', 'SET session_replication_role = replica; TRUNCATE voiding.transfer'), qr/^42501: /, 'nor is all removed by another database');
say_in($billing, q{ALTER PUBLICATION voiding_billing_to_manager SET TABLE voiding.transfer});
is_dead($manager, forge('DocumentVoided', 'reports', origin => 'reports'), '^42501: it did not come from', '... and what did not come over the connection that it names');
say_in($billing, q{ALTER PUBLICATION voiding_billing_to_manager SET TABLE voiding.transfer WHERE (origin = 'billing' AND destination = 'manager')});
is(error_of($manager, 'postgres', q{SELECT voiding.send_command('MarkDocumentAsVoided', '{}')}),
  '0A000: command "MarkDocumentAsVoided" is handled in another database, by service "reports"', 'a command is sent where its service lives');
like(error_of($manager, 'postgres', q{SELECT voiding.emit('DocumentVoided', 'D4', '{}', 'billing')}), qr/^42501: service "billing" lives in another database/,
  'nobody speaks here for a service elsewhere');
say_in($manager, q{SELECT voiding.discard_message(id, 'forged') FROM voiding.dead_letter});
say_in($_, q{DELETE FROM voiding.transfer WHERE aggregateid = 'F'}) for $manager, $billing;

# ---- a command that gives up over there ----

say_in($billing, q{SELECT billing.issue_document('E' || i, 'C9', 1) FROM generate_series(1, 2) i});
comes($reports, q{SELECT count(*) FROM reports.report_line WHERE customer_id = 'C9'}, '2', 'more documents');
say_in($reports, q{CREATE ROLE peer; UPDATE voiding.service SET owner = 'peer' WHERE name = 'manager'; SELECT voiding.definitions_changed()});
say_in($billing, q{SELECT billing.void_document('E1', 'not allowed')});
comes($manager, q{SELECT data ->> 'failure' ~ 'may not send' FROM voiding.active_process WHERE key = 'E1' AND failed}, 't',
  'a command that its sender may not send fails, and its process is told');
is(say_in($reports, q{SELECT sqlstate, type, source FROM voiding.dead_letter}), '42501|MarkDocumentAsVoided|manager', 'it is a dead letter over there');
say_in($reports, q{GRANT EXECUTE ON FUNCTION reports.mark_documents_as_voided TO peer});
say_in($billing, q{SELECT billing.void_document('E2', 'allowed')});
comes($billing, q{SELECT status FROM billing.document WHERE document_id = 'E2'}, 'voided', 'one who was granted it may');
say_in($reports, q{SELECT voiding.discard_message(id, 'was refused') FROM voiding.dead_letter});
ok(all_arrived($three), 'all has arrived');
agree($three, 'after a command that failed');

# ---- kept, and purged ----

say_in($billing, q{SELECT voiding.watch_connections(); SELECT billing.issue_document('G1', 'C9', 1)});
comes($reports, q{SELECT count(*) FROM reports.report_line WHERE document_id = 'G1'}, '1', 'another document');
my $sent = say_in($billing, 'SELECT count(*) FROM voiding.transfer');
say_in($billing, 'SELECT voiding.maintain()');
is(say_in($billing, 'SELECT count(*) FROM voiding.transfer'), $sent, 'maintain() keeps what is not old');
say_in($reports, q{SET voiding.clock_offset = '10d'; SELECT voiding.maintain()});
is(say_in($reports, q{SELECT count(*) > 0 FROM voiding.transfer WHERE destination = 'reports'}), 't', 'what arrived is kept for twice as long');
ok(poll_until(sub { say_in($billing, q{SET voiding.clock_offset = '20d'; SELECT voiding.maintain()});
    say_in($billing, q{SELECT count(*) FROM voiding.transfer WHERE destination = 'manager'}) eq '0' }, 60),
  'what has arrived over there is purged here by age');
say_in($reports, q{SET voiding.clock_offset = '20d'; SELECT voiding.maintain()});
is(say_in($reports, q{SELECT count(*) FROM voiding.transfer WHERE destination = 'reports'}), '0', '... and there later');
say_in($reports, q{SELECT voiding.now(); ALTER SYSTEM SET voiding.clock_offset = '20d'; SELECT pg_reload_conf()});
ok(poll_until(sub { say_in($reports, q{SELECT voiding.now() > now() + interval '19 days'}) =~ /t/ }, 60), 'weeks later');
say_in($manager, q{SELECT voiding.resend('reports', '-infinity')});
comes($reports, q{SELECT DISTINCT sqlstate, destination FROM voiding.dead_letter}, '55000|arrival', 'what may have been forgotten there is a dead letter, not taken again');
say_in($reports, q{SELECT voiding.now(); ALTER SYSTEM RESET voiding.clock_offset; SELECT pg_reload_conf()});
say_in($reports, q{SELECT voiding.discard_message(id, 'was taken long ago') FROM voiding.dead_letter});

# ---- the end of a connection ----

like(error_of($manager, 'postgres', q{CALL voiding.disconnect_service('reports')}), qr/^2BP01: command "MarkDocumentAsVoided" is in use/,
  'a connection that a process type needs stays');
like(error_of($billing, 'postgres', q{CALL voiding.disconnect_service('billing')}), qr/^42809: service "billing" lives here/, 'a service that lives here is none');
$reports->stop;
say_in($billing, q{SELECT billing.issue_document('H1', 'C9', 1)});
like(error_of($billing, 'postgres', q{CALL voiding.disconnect_service('reports', timeout => '100 ms')}), qr/^55006: service "reports" has not confirmed/,
  'while something is under way it stays');
is(say_in($billing, q{SELECT type, subject FROM voiding.under_way WHERE service = 'reports' AND subject = 'H1'}), 'DocumentIssued|H1', '... which can be seen');
$reports->start;
comes($reports, q{SELECT count(*) FROM reports.report_line WHERE document_id = 'H1'}, '1', 'when it is back it gets it');
say_in($billing, q{CALL voiding.disconnect_service('reports'); CALL voiding.disconnect_service('manager')});
is(say_in($billing, q{SELECT (SELECT count(*) FROM pg_replication_slots), (SELECT count(*) FROM pg_publication), (SELECT count(*) FROM pg_subscription),
  (SELECT count(*) FROM voiding.connection), (SELECT count(*) FROM voiding.handler WHERE function IS NULL)}), '0|0|0|0|0', 'nothing is left of connections that ended');
say_in($billing, q{SELECT billing.issue_document('H2', 'C9', 1)});
is(say_in($billing, q{SELECT count(*) FROM voiding.transfer WHERE aggregateid = 'H2'}), '0', 'and nothing leaves any more');

# ---- two databases of one cluster: what is odd, what is hostile ----

my $connect = q{CALL voiding.connect_service('two', NULL, 'one', events => '{Said}')};
sub in { my ($db, $sql) = @_; return $manager->safe_psql($db, $sql) }
sub arrives
{
  my ($subject, $name) = @_;
  local $Test::Builder::Level = $Test::Builder::Level + 1;
  return ok(poll_until(sub { in('two', qq{SELECT count(*) FROM voiding.transfer WHERE aggregateid = '$subject'}) eq '1' }, 60), $name);
}
sub is_confirmed
{
  my ($subject, $name) = @_;
  local $Test::Builder::Level = $Test::Builder::Level + 1;
  return ok(poll_until(sub { in('one', q{SELECT voiding.watch_connections()});
      in('one', qq{SELECT pg_visible_in_snapshot(t.xid, p.confirmed) FROM voiding.transfer t, voiding.connection_progress p WHERE aggregateid = '$subject'}) eq 't' }, 60), $name);
}
sub emit { in('one', "SELECT voiding.emit('Said', '$_[0]', '{}', 'here')"); return; }
sub lose_slot   # after the receiver has stopped to read
{
  in('two', 'ALTER SUBSCRIPTION voiding_one_to_two DISABLE');
  poll_until(sub { in('one', q{SELECT active FROM pg_replication_slots WHERE slot_name = 'voiding_one_to_two'}) eq 'f' }, 60) or die 'the slot is in use';
  $_->() for @_;
  in('one', q{SELECT pg_drop_replication_slot('voiding_one_to_two')});
  return;
}
sub make_good { in('one', $connect); in('two', 'ALTER SUBSCRIPTION voiding_one_to_two ENABLE'); return; }

for my $db (qw(one two))
{
  in('postgres', "CREATE DATABASE $db TEMPLATE template0");
  in($db, 'SET voiding.example = off; CREATE EXTENSION voiding');
}
in('one', q{SELECT voiding.create_service('here')});
like(error_of($manager, 'one', "CALL voiding.connect_service('$_', NULL, 'one')"), qr/^22023: /, "a connection cannot be called $_") for qw(to a_to_b to_b a_to);
in('one', $connect);
is(error_of($manager, 'two', q{CALL voiding.connect_service('two', NULL, 'one')}), '42710: replication slot "voiding_one_to_two" is another database\'s',
  'two databases of one cluster cannot be the same to others');
my $subscribe = sprintf q{CALL voiding.connect_service('one', 'host=%s port=%s user=%s dbname=one', 'two')}, $manager->host, $manager->port, (getpwuid $<)[0];
in('one', 'ALTER PUBLICATION voiding_one_to_two ADD TABLE voiding.service');
like(error_of($manager, 'two', $subscribe), qr/^42501: service "one" would write into other tables/, 'who would write into other tables is not connected');
is(in('two', 'SELECT count(*) FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid WHERE datname = current_database()'), '0', '... and has no subscription');
in('one', 'ALTER PUBLICATION voiding_one_to_two DROP TABLE voiding.service');
in('two', $subscribe);
is(in('two', 'SELECT substream FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid WHERE datname = current_database()'), 'f', 'what is long is applied by one worker, in all versions');
emit('first');
arrives('first', 'two databases of one cluster are connected');
is_confirmed('first', 'and what has arrived is confirmed');
in('one', q{SELECT voiding.redact_event(event_id, 'law') FROM voiding.event WHERE subject = 'first'});
is(in('one', q{SELECT payload #>> '{redacted,reason}' FROM voiding.transfer WHERE aggregateid = 'first'}), 'law', 'what is redacted is not sent again as it was');
in('one', q{SELECT voiding.resend('two', '-infinity')});
is_confirmed('first', '... also what was sent again and is not followed by anything');

# a row whose id is older than what has been confirmed, as after the clock was set back
lose_slot(sub { in('one', q{INSERT INTO voiding.transfer
  SELECT voiding.uuid_from(now() - interval '1 h'), aggregatetype, 'early', type, payload, source, origin, destination, correlation_id, causation_id, sent_in, now()
    FROM voiding.transfer WHERE aggregateid = 'first'}); });
make_good();
arrives('early', 'what was written later is not taken for confirmed, though its id is older');

# the server dies between making a slot and sending again
lose_slot(sub { emit('between'); });
is(in('one', 'SELECT voiding.watch_connections()'), 'two', 'a lost slot is noted');
in('one', q{SELECT voiding.make_slot('two')});
in('one', 'SELECT voiding.watch_connections()') for 1 .. 3;
make_good();
arrives('between', 'what was missed is sent when the slot has been made but nothing sent');

# a dump has the publication, but not what is in it
in('one', 'ALTER PUBLICATION voiding_one_to_two DROP TABLE voiding.transfer');
emit('unpublished');
in('one', $connect);
arrives('unpublished', 'an empty publication is filled again, and what it missed is sent');

# who holds a transaction open holds up a new slot, but not the workers
in('one', q{CREATE TABLE here.heard (subject text); CREATE FUNCTION here.hear(subject text) RETURNS void LANGUAGE sql AS 'INSERT INTO here.heard VALUES ($1)';
  SELECT voiding.subscribe('Whispered', 'here.hear'); SELECT voiding.start_workers(1)});
my $open = $manager->background_psql('one');
$open->query_safe('BEGIN');
$open->query_safe('SELECT pg_current_xact_id()');
$logged = -s $manager->logfile;
lose_slot(sub { emit('held up'); });
ok(poll_until(sub { PostgreSQL::Test::Utils::slurp_file($manager->logfile, $logged) =~ /canceling statement due to lock timeout/ }, 60), 'a new slot has to wait');
in('one', q{SELECT voiding.emit('Whispered', 's', '{"subject": "s"}', 'here')});
ok(poll_until(sub { in('one', 'SELECT count(*) FROM here.heard') eq '1' }, 60), 'what is to be handled is handled meanwhile');
my @mend = map { $manager->background_psql('one', timeout => 120) } 1 .. 2;
$_->query_until(qr/started/, "\\echo started\n$connect;\n") for @mend;
ok(poll_until(sub { in('one', q{SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CALL%' AND wait_event_type = 'Lock'}) eq '2' }, 60), 'who mends it by hand waits, too');
$open->query_safe('COMMIT');
$_->query_safe('SELECT 1') for @mend;
pass('then all of them have done it, one after the other');
$_->quit for $open, @mend;
in('two', 'ALTER SUBSCRIPTION voiding_one_to_two ENABLE');
arrives('held up', 'then there is a slot, and what was missed is sent');
in('one', 'SELECT voiding.stop_workers()');

# rights: kept when it is called again; a caller whose search_path is hostile
in('one', q{CREATE ROLE peer; UPDATE voiding.service SET owner = 'peer' WHERE name = 'two'});
in('one', $connect);
is(in('one', q{SELECT owner FROM voiding.service WHERE name = 'two'}), 'peer', 'called again, it leaves the owner as it is');
in('one', q{CREATE SCHEMA evil;
  CREATE FUNCTION evil.pwn(anyelement) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'pwned'; END $$;
  CREATE FUNCTION evil.pwn(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'pwned'; END $$;
  CREATE FUNCTION evil.set_config(text, text, boolean) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'pwned'; END $$;
  CREATE FUNCTION evil.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN RAISE 'pwned'; END $$;
  CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, PROCEDURE = evil.pwn);
  CREATE DOMAIN evil.name AS pg_catalog.name CHECK (evil.pwn(VALUE));
  CREATE DOMAIN evil.pg_lsn AS pg_catalog.pg_lsn CHECK (evil.pwn(VALUE));
  CREATE DOMAIN evil.timestamptz AS pg_catalog.timestamptz CHECK (evil.pwn(VALUE))});
in('one', "SET search_path = evil, pg_catalog; $connect");
in('one', q{SET search_path = evil, pg_catalog; CALL voiding.disconnect_service('two', true)});
is(in('one', q{SELECT count(*) FROM pg_replication_slots WHERE database = current_database()}), '0', 'a hostile search_path changes nothing');

$_->stop for $billing, $reports, $manager;
done_testing();
