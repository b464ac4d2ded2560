# The gateway when things go wrong: the database is away, restarts in the
# middle, is slow or fails at COMMIT; clients that are half open, drip, do not
# read, or are too many; and its own end. Who resumes loses nothing.

use strict;
use warnings;

use IO::Socket::INET;
use PostgreSQL::Test::Utils;
use Socket qw(SOL_SOCKET SO_RCVBUF);
use Test::More;
use Time::HiRes qw(time);
use Voiding::Gateway;
use Voiding::Test;

my $node = new_node('main', 'voiding.retry_base' => 20);
my $db = new_database($node, 'web');
$node->safe_psql($db, q{
  CREATE FUNCTION billing.nap(seconds float8) RETURNS text LANGUAGE plpgsql STABLE AS $$ BEGIN PERFORM pg_sleep(seconds); RETURN 'rested'; END $$;
  SELECT voiding.create_query('nap', 'billing.nap')});
my $json = 'Content-Type: application/json';
sub issue { my ($gateway, $id, %headers) = @_; return $gateway->ask('POST', '/commands/IssueDocument', { document_id => $id, customer_id => 'C', amount => 1 }, %headers) }
sub issued { my ($id) = @_; $node->safe_psql($db, "SELECT billing.issue_document('$id', 'C', 1)"); return; }
sub subjects { return join ' ', map { $_->[2]{subject} } grep { !$_->[1] } $_[0]->events }
# ask in a process of its own; a function that waits for it, and returns the answer
sub meanwhile
{
  my ($gateway, @arguments) = @_;
  my $file = "$PostgreSQL::Test::Utils::tmp_check/meanwhile." . time;
  my $pid = fork // die;

  if (!$pid)
  {
    my $answer = $gateway->ask(@arguments);
    append_to_file("$file.new", "$answer->{status} " . ($answer->{headers}{'retry-after'} // '-') . " $answer->{content}");
    rename "$file.new", $file;
    POSIX::_exit(0);
  }
  return sub { waitpid $pid, 0; return slurp_file($file) };
}

# ---- the database is away, comes, goes, and comes again ----

$node->stop;
my $gateway = Voiding::Gateway->start($node, $db, heartbeat => 1);
is($gateway->ask('GET', '/healthz')->{status}, 200, 'it lives without a database');
is($gateway->ask('GET', '/readyz')->{status}, 503, 'but is not ready');
my $away = issue($gateway, 'A0');
is_deeply([ $away->{status}, $away->{headers}{'retry-after'}, $away->{headers}{'content-type'} ], [ 503, 1, 'application/problem+json' ], 'a request: 503, with Retry-After');
like($gateway->ask('GET', '/metrics')->{content}, qr/^voiding_gateway_connections 0$/m, 'its own figures are there');
$node->start;
ok($gateway->is_ready, 'the database comes: ready');
my $stream = $gateway->stream('/events');
ok(poll_until(sub { $stream->events == 1 }), 'a stream is open');
issued("A$_") for 1 .. 3;
ok(poll_until(sub { subjects($stream) eq 'A1 A2 A3' }), 'and has the events');
my $sent = issue($gateway, 'A4');
my $waits = meanwhile($gateway, 'GET', $sent->{headers}{location}, undef, Prefer => 'wait=60');
ok(poll_until(sub { ($gateway->figure('voiding_gateway_waiting') // '') eq '1' }), 'a request waits');
my $works = meanwhile($gateway, 'GET', '/queries/nap?seconds=20');
ok(poll_until(sub { row($node, $db, q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND application_name = 'voiding-gateway'}) eq '1' }), 'another is under way');
$node->restart;
like($works->(), qr/^503 1 .*whether the request was carried out is not known/i, 'the server restarts: what was under way is answered 503');
issued("A$_") for 5 .. 6;
ok($gateway->is_ready, 'it is connected again');
issued("A$_") for 7 .. 8;
$node->safe_psql($db, 'SELECT voiding.start_workers(1)');
like($waits->(), qr/^200 .*"status": "processed"/, 'who waited is told');
my @all = map { "A$_" } 1 .. 8;
ok(poll_until(sub { join(' ', sort split / /, subjects($stream)) eq "@all" }), 'the stream has lost nothing, and has nothing twice') || diag($stream->said);
$node->safe_psql($db, 'SELECT voiding.stop_workers()');

# ---- the gateway is killed: another one goes on where the client was ----

my @events = grep { !$_->[1] } $stream->events;
is($gateway->stop('KILL'), 9, 'killed');
ok(poll_until(sub { $stream->has_ended }), 'the stream is cut');
issued("B$_") for 1 .. 2;
$gateway = Voiding::Gateway->start($node, $db, heartbeat => 1);
$gateway->is_ready;
$stream = $gateway->stream('/events', '-H', "Last-Event-ID: $events[5][0]");
ok(poll_until(sub { join(' ', sort split / /, subjects($stream)) eq join(' ', sort map({ $_->[2]{subject} } @events[ 6, 7 ]), 'B1', 'B2') }), 'resumed: all that came after')
  || diag($stream->said);
is($gateway->stop, 0, 'stopped');
ok(poll_until(sub { $stream->has_ended }), 'SIGTERM ends a stream');

# ---- the database is slow, or fails ----

$gateway = Voiding::Gateway->start($node, $db, pool => 1, queue => 1, 'request-timeout' => 2, streams => 2, heartbeat => 1);
$gateway->is_ready;
my $slow = meanwhile($gateway, 'GET', '/queries/nap?seconds=60');
ok(poll_until(sub { ($gateway->ask('GET', '/readyz'), row($node, $db, q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND application_name = 'voiding-gateway'}))[1] eq '1' }), 'the only connection is at work');
my @queued = map { meanwhile($gateway, 'GET', '/reports') } 1 .. 2;
my @answers = sort map { substr $_->(), 0, 5 } @queued;
is($answers[1], '503 1', 'the queue is full: 503 with Retry-After') || diag("@answers");
like($slow->(), qr/^504 .*"code": "57014"/, 'a request that takes too long is 504');
is($gateway->ask('GET', '/reports')->{status}, 200, 'and the connection goes on');

$node->safe_psql($db, q{
  CREATE TABLE public.late (id int PRIMARY KEY, other int REFERENCES public.late DEFERRABLE INITIALLY DEFERRED);
  ALTER FUNCTION voiding.http(text, text, jsonb, jsonb, text) RENAME TO http_itself;
  CREATE FUNCTION voiding.http(method text, path text, query jsonb DEFAULT '{}', headers jsonb DEFAULT '{}', body text DEFAULT NULL) RETURNS voiding.http_answer
    LANGUAGE plpgsql AS $$
  BEGIN
    IF path = '/late' THEN INSERT INTO public.late VALUES (1, 2); RETURN (202, '{}', 'done', NULL)::voiding.http_answer;
    ELSIF path = '/serial' THEN RAISE serialization_failure;
    ELSIF path = '/null' THEN RETURN NULL;
    ELSIF path = '/odd' THEN RETURN (200, '{"X-Odd": "a\r\nX-Worse: b", "X-Number": 5}', 'odd', '{"command_id": 5, "seconds": "x"}')::voiding.http_answer;
    END IF;
    RETURN voiding.http_itself(method, path, query, headers, body);
  END $$});
my $late = $gateway->ask('POST', '/late', {});
is_deeply([ $late->{status}, $late->{json}{code} ], [ 409, '23503' ], 'COMMIT fails: that is the answer');
is(row($node, $db, 'SELECT count(*) FROM late'), '0', 'and nothing was done');
is($gateway->ask('GET', '/serial')->{status}, 503, 'an error that http() raises is a problem');
is($gateway->ask('GET', '/null')->{status}, 500, 'no answer at all is one');
unlike($gateway->curl('/odd'), qr/^X-Worse/m, 'a header cannot become two');
is($gateway->ask('GET', '/reports')->{status}, 200, 'it goes on');
$node->safe_psql($db, 'DROP FUNCTION voiding.http; ALTER FUNCTION voiding.http_itself(text, text, jsonb, jsonb, text) RENAME TO http');

# ---- limits ----

my @streams = map { $gateway->stream('/events') } 1 .. 2;
ok(poll_until(sub { 2 == grep { $_->events } @streams }), 'as many streams as it takes');
like($gateway->stream('/events')->said . $gateway->curl('/events', '-H', 'Accept: text/event-stream'), qr{^HTTP/1.1 503 .*^Retry-After: 1$}ms, 'one more: 503');
$_->stop for @streams;
ok(poll_until(sub { $gateway->figure('voiding_gateway_streams') == 0 }), 'they have gone');
is($gateway->stop, 0, 'stopped');

$gateway = Voiding::Gateway->start($node, $db, connections => 10, 'request-timeout' => 1, 'idle-timeout' => 1, 'max-header' => 2000, heartbeat => 1, 'stream-buffer' => 4096);
$gateway->is_ready;
my $large = $gateway->ask('GET', '/reports', undef, map { ("X-Header-$_" => 'x' x 50) } 1 .. 50);
is_deeply([ $large->{status}, $large->{headers}{'content-type'} ], [ 431, 'application/problem+json' ], 'headers that are too large');
my @sockets = map { $gateway->socket } 1 .. 40;
is(scalar(grep { $_ } @sockets), 40, 'more connections than it takes');
ok(poll_until(sub { ($gateway->ask('GET', '/healthz')->{status}) == 200 }, 30), 'those that say nothing are closed, and others come');
close $_ for @sockets;
sub is_closed { my ($socket) = @_; $socket->blocking(0); my $n = sysread $socket, my $buffer, 65536; return defined $n && $n == 0 || !defined $n && !$!{EAGAIN}; }
my $half = $gateway->socket;
print $half "POST /commands/IssueDocument HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
$half->flush;
ok(poll_until(sub { is_closed($half) }, 20), 'a request that does not go on is given up');
my $drip = $gateway->socket;
my $start = time;
$SIG{PIPE} = 'IGNORE';
ok(poll_until(sub { syswrite $drip, 'G'; is_closed($drip) }, 20), 'a request that drips, too');
cmp_ok(time - $start, '<', 15, 'before long');

# ---- a reader that does not read is cut off, and resumes; others are not held up ----

sub lazy
{
  my $socket = IO::Socket::INET->new(Proto => 'tcp') or die;
  setsockopt $socket, SOL_SOCKET, SO_RCVBUF, 4096;
  connect $socket, Socket::pack_sockaddr_in($gateway->{port}, Socket::inet_aton('127.0.0.1')) or die "cannot connect: $!";
  syswrite $socket, "GET /events?types=Big HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n";
  return $socket;
}
# the text in a chunked answer, as far as it has come
sub text_in
{
  my ($answer) = @_;
  my $at = index($answer, "\r\n\r\n") + 4;
  my $text = '';

  while (substr($answer, $at, 20) =~ /^([0-9a-fA-F]+)\r\n/)
  {
    $text .= substr $answer, $at + length($1) + 2, hex $1;
    $at += length($1) + hex($1) + 4;
  }
  return $text;
}
sub big { $node->safe_psql($db, q{SELECT voiding.emit('Big', i::text, jsonb_build_object('i', i, 'text', repeat(md5(i::text), 3000)), 'billing') FROM generate_series(1, 10) i}) for 1 .. 10; return; }
sub two_streams
{
  my @two = ($gateway->stream('/events?types=Big'), lazy());
  ok(poll_until(sub { $gateway->figure('voiding_gateway_streams') == 2 }), 'one that reads, and one that does not');
  return @two;
}
my ($reader, $lazy) = two_streams();
big();
ok(poll_until(sub { $gateway->figure('voiding_gateway_cut_off_total') == 1 }, 30), 'it is cut off');
ok(poll_until(sub { scalar($reader->events) == 101 }, 60), 'the other one has all of them');
my $got = '';
$got .= $_ while sysread $lazy, $_, 65536;
my @got = text_in($got) =~ /^id: (\S+)\n(?:event: start\n)?data: \{.*\}\n\n/mg;
my $last = $got[-1];
my $missed = 101 - @got;
cmp_ok($missed, '>', 0, 'it has missed some');
my $resumed = $gateway->stream('/events?types=Big', '-H', "Last-Event-ID: $last");
ok(poll_until(sub { scalar($resumed->events) == $missed }, 60), 'and gets them when it comes again') || diag(scalar($resumed->events) . " of $missed");
$_->stop for $reader, $resumed;
is($gateway->stop, 0, 'stopped');

# ---- one that is only slow falls behind, and catches up ----

$gateway = Voiding::Gateway->start($node, $db, 'stream-buffer' => 4096, heartbeat => 1);
$gateway->is_ready;
($reader, $lazy) = two_streams();
big() for 1 .. 2;
ok(poll_until(sub { scalar($reader->events) == 201 }, 60), 'the other one has all of them');
cmp_ok($gateway->figure('voiding_gateway_fallen_behind_total'), '>=', 1, 'it has fallen behind');
$got = '';
$lazy->blocking(0);
ok(poll_until(sub { $got .= $_ while sysread $lazy, $_, 1 << 20; @got = text_in($got) =~ /^id: (\S+)\n(?:event: start\n)?data: \{.*\}\n\n/mg; @got == 201 }, 60),
  'it has all of them in the end, once') || diag(scalar @got);
is(join(' ', map { s/.*\///r } @got), join(' ', map { $_->[0] =~ s/.*\///r } $reader->events), 'in the same order');
close $lazy;
$reader->stop;

# ---- its end: what is under way is finished ----

is($gateway->stop, 0, 'stopped');
$gateway = Voiding::Gateway->start($node, $db);
$gateway->is_ready;
$sent = issue($gateway, 'Z1');
$waits = meanwhile($gateway, 'GET', $sent->{headers}{location}, undef, Prefer => 'wait=60');
ok(poll_until(sub { $gateway->figure('voiding_gateway_waiting') == 1 }), 'one waits');
$stream = $gateway->stream('/events');
$works = meanwhile($gateway, 'GET', '/queries/nap?seconds=1');
ok(poll_until(sub { row($node, $db, q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND application_name = 'voiding-gateway'}) eq '1' }), 'one is under way');
my $idle = $gateway->socket;
is($gateway->stop, 0, 'it ends in good order');
like($works->(), qr/^200 .*rested/, 'what was under way has its answer');
like($waits->(), qr/^200 .*"accepted"/, 'who waited has the first one');
ok(poll_until(sub { $stream->has_ended }), 'streams end');
ok(!IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $gateway->{port}), 'nobody listens any more');

$gateway = Voiding::Gateway->start($node, $db, drain => 1);
$gateway->is_ready;
$works = meanwhile($gateway, 'GET', '/queries/nap?seconds=30');
ok(poll_until(sub { row($node, $db, q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND application_name = 'voiding-gateway'}) eq '1' }), 'one that takes long');
$start = time;
is($gateway->stop, 0, 'it does not wait for ever');
cmp_ok(time - $start, '<', 15, 'but for its time');
like($works->(), qr/^503 /, 'and says so to who is under way');
$node->stop;
done_testing();
