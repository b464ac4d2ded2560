# The gateway, with clients that nobody here wrote: commands with their status,
# the resource to come, waits, streams and what is resumed, probes and figures,
# and errors as problems. All as a role that has the duties of doc/privilege.md
# and no others. Then the movie, and its five ways, over HTTP.

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;
use Voiding::Gateway;
use Voiding::Test;

my $root = $ENV{VOIDING_ROOT} // '.';
my $node = new_node('main', 'voiding.retry_base' => 20);
my $db = new_database($node, 'web');
duties($node, $db, qw(front_end reader app event_reader monitor));
$node->safe_psql($db, 'GRANT reader, app, event_reader, monitor TO front_end');
$node->safe_psql($db, "GRANT EXECUTE ON FUNCTION $_ TO front_end") for 'billing.issue_document', 'reports.publish_report';
duties($node, $db, 'gateway');
$node->safe_psql($db, 'ALTER ROLE gateway LOGIN NOINHERIT; GRANT front_end TO gateway');

my $gateway = Voiding::Gateway->start($node, $db, user => 'gateway', role => 'front_end', heartbeat => 1);
my $json = 'Content-Type: application/json';
ok($gateway->is_ready, 'it is ready');
sub work { $node->safe_psql($db, 'SELECT voiding.start_workers(1)'); return; }
sub rest { $node->safe_psql($db, 'SELECT voiding.stop_workers()'); return; }

# ---- a command: accepted, then processed ----

my $said = $gateway->curl('/commands/IssueDocument', '-H', $json, '-d', '{"document_id": "D1", "customer_id": "C", "amount": 5}', '-H', 'Idempotency-Key: k1');
like($said, qr{^HTTP/1.1 202 }, 'a command is accepted');
my ($self) = $said =~ m{^Location: (/commands/[-0-9a-f]{36})$}m;
ok($self, 'Location of its status');
like($said, qr{^Link: </documents/D1>; rel="related"$}m, 'a link to the resource to come');
like($said, qr{^Retry-After: \d+$}m, 'when to ask again');
like($said, qr{^X-Content-Type-Options: nosniff$}m, 'security headers');
like($said, qr{^Cache-Control: no-store$}m, 'not to be stored');
like($gateway->curl('/commands/IssueDocument', '-H', $json, '-d', '{"document_id": "D1", "customer_id": "C", "amount": 5}', '-H', 'Idempotency-Key: k1'),
  qr{^Location: \Q$self\E$}m, 'the same key is the same command');
is($gateway->ask('POST', '/commands/IssueDocument', { document_id => 'D9', customer_id => 'C', amount => 5 }, 'Idempotency-Key' => 'k1')->{json}{code}, 'VD09E', 'with other content it is refused');
is($gateway->ask('GET', $self)->{json}{status}, 'accepted', 'its status');
my $coming = $gateway->ask('GET', '/documents/D1');
is_deeply([ @$coming{qw(status)}, @{ $coming->{headers} }{qw(retry-after link)} ], [ 404, 1, "<$self>; rel=\"related\"" ], 'the resource to come is 404 with Retry-After');
is($gateway->ask('GET', '/documents/none')->{headers}{'retry-after'}, undef, 'what does not come has none');
my $tag = $gateway->ask('GET', $self)->{headers}{etag};
is($gateway->ask('GET', $self, undef, 'If-None-Match' => $tag)->{status}, 304, 'it has not changed');

# ---- waiting: a limit of time is no failure ----

my $short = $gateway->ask('GET', $self, undef, Prefer => 'wait=1');
is_deeply([ $short->{status}, $short->{json}{status}, $short->{headers}{'preference-applied'} ], [ 200, 'accepted', undef ], 'a wait that is over in time has the first answer');
is($gateway->ask('POST', '/commands/IssueDocument', { document_id => 'D2', customer_id => 'C', amount => 7 }, Prefer => 'respond-async')->{headers}{'preference-applied'}, 'respond-async', 'respond-async');
my $stream = $gateway->stream("$self/events");
ok(poll_until(sub { $stream->events == 1 }), 'the stream of a command begins with its status');
my $waits = $gateway->figure('voiding_gateway_waits_total');
my $pid = fork // die;
if (!$pid)
{
  my $status = $gateway->ask('GET', $self, undef, Prefer => 'wait=60')->{json}{status};
  POSIX::_exit($status eq 'processed' ? 0 : 1);
}
ok(poll_until(sub { $gateway->figure('voiding_gateway_waiting') == 1 }), 'somebody waits');
is(row($node, $db, q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'voiding-gateway' AND (xact_start IS NOT NULL OR backend_xmin IS NOT NULL)}), '0',
  'and holds no transaction and no snapshot');
work();
waitpid $pid, 0;
is($?, 0, 'it is told of the end');
ok(poll_until(sub { $stream->has_ended }), 'the stream ends with the command');
my @states = map { $_->[2]{status} } $stream->events;
is_deeply(\@states, [ 'accepted', 'processed' ], 'and told of each status');
is($gateway->ask('GET', "$self/events", undef, Accept => 'text/event-stream', 'Last-Event-ID' => ($stream->events)[-1][0])->{status}, 204,
  'who has seen the end is told not to come again');

# ---- Prefer ----

my $whole = $gateway->ask('POST', '/commands/IssueDocument', { document_id => 'D3', customer_id => 'C', amount => 9 }, Prefer => 'return=representation');
is_deeply([ $whole->{status}, $whole->{json}{document_id}, @{ $whole->{headers} }{qw(preference-applied content-location)} ],
  [ 200, 'D3', 'return=representation, wait=30', '/documents/D3' ], 'return=representation: the resource itself');
is($gateway->ask('GET', '/documents/D1')->{json}{amount}, 5, 'the resource is there');
is($gateway->ask('POST', '/commands/VoidDocument', { document_id => 'none' }, Prefer => 'return=representation')->{json}{code}, 'VD04A', 'or the problem');
my $void = $gateway->ask('POST', '/commands/VoidDocument', { document_id => 'D3', reason => 'entered twice' }, Prefer => 'wait=30');
is_deeply([ $void->{json}{status}, $void->{headers}{'preference-applied'} ], [ 'processed', 'wait=30' ], 'wait=N: the final status');
is($gateway->ask('POST', '/commands/PublishReport', { customer_id => 'C' }, Prefer => 'wait=30')->{json}{status}, 'processed', 'a report is published');
is($gateway->ask('POST', '/commands/VoidDocument', { document_id => 'D1' }, Prefer => 'wait=30')->{json}{error}{code}, 'VD09F', 'and its documents are not voided any more');

# ---- streams: from now on, resumed, and by whom ----

my @open = map { $gateway->stream($_) } ('/events', '/commands/events', '/events?types=DocumentVoided');
ok(poll_until(sub { 3 == grep { my ($first) = $_->events; $first && $first->[1] eq 'start' } @open }), 'a stream begins with the id of now');
$gateway->ask('POST', '/commands/IssueDocument', { document_id => "E$_", customer_id => 'C2', amount => $_ }, Prefer => 'wait=30') for 1 .. 3;
$gateway->ask('POST', '/commands/VoidDocument', { document_id => 'E2' }, Prefer => 'wait=30');
my $types = sub { join ' ', map { "$_->[2]{subject}:$_->[2]{type}" } grep { !$_->[1] } $_[0]->events };
my $expected = 'E1:DocumentIssued E2:DocumentIssued E3:DocumentIssued E2:DocumentVoidingRequested E2:MarkingDocumentAsVoidedSucceeded E2:DocumentVoided';
ok(poll_until(sub { $types->($open[0]) eq $expected }), 'the stream of events has them all, in order, once') || diag($types->($open[0]));
ok(poll_until(sub { $types->($open[2]) eq 'E2:DocumentVoided' }), 'a stream of some types has those');
my $last = sub { my %status; $status{ $_->[2]{self} } = $_->[2]{status} for grep { !$_->[1] } $_[0]->events; join ',', sort values %status };
ok(poll_until(sub { $last->($open[1]) eq 'processed,processed,processed,processed' }), 'the stream of commands ends with their last status') || diag($open[1]->said);
ok(poll_until(sub { $open[0]->said =~ /^:\n\n/m }), 'signs of life');
my @events = grep { !$_->[1] } $open[0]->events;
my $resumed = $gateway->stream('/events', '-H', "Last-Event-ID: $events[1][0]");
ok(poll_until(sub { $types->($resumed) eq $expected =~ s/^\S+ \S+ //r }), 'resumed with Last-Event-ID: what came after it') || diag($resumed->said);
my $joined = $gateway->figure('voiding_gateway_streams');
is($joined, 4, 'four streams are open');
$_->stop for @open, $resumed;
ok(poll_until(sub { $gateway->figure('voiding_gateway_streams') == 0 }), 'who has gone is found out');

my $stale = $gateway->stream('/events', '-H', 'Last-Event-ID: 900000000:900000000:/900000000:900000000:/5');
ok(poll_until(sub { my ($first) = $stale->events; $first && $first->[1] eq 'stale-cursor' && $first->[2]{code} eq 'VD10A' }), 'a cursor of another server: stale-cursor');
$gateway->ask('POST', '/commands/IssueDocument', { document_id => 'F1', customer_id => 'C2', amount => 1 }, Prefer => 'wait=30');
ok(poll_until(sub { $types->($stale) eq 'F1:DocumentIssued' }), 'and the stream goes on from now');
$stale->stop;
is($gateway->ask('GET', '/events', undef, 'Last-Event-ID' => 'garbage')->{status}, 422, 'what is no cursor is refused');
is($gateway->ask('GET', '/commands/events?limit=2')->{json}{events}[1]{command}{type}, 'IssueDocument', 'without Accept a feed is a page of JSON');
is($gateway->ask('GET', '/events?types=DocumentVoided')->{json}{events}[0]{event}{specversion}, '1.0', 'events are CloudEvents');

# ---- about itself ----

is($gateway->ask('GET', '/healthz')->{json}{status}, 'ok', '/healthz');
my $metrics = $gateway->ask('GET', '/metrics');
like($metrics->{content}, qr/^voiding_messages_handled_total\{service="billing"\} [1-9]\d*$/m, '/metrics: of the database');
like($metrics->{content}, qr/^voiding_gateway_requests_total\{status="2xx"\} [1-9]\d*\n.*^# EOF\n\z/ms, '/metrics: of the gateway');
is($gateway->ask('GET', '/openapi.json')->{json}{openapi}, '3.1.0', '/openapi.json');
like($gateway->ask('GET', '/')->{content}, qr/<title>voiding/, 'a page');
like($gateway->ask('GET', '/')->{headers}{'content-security-policy'}, qr/default-src 'self'/, 'with a policy');
is($gateway->ask('GET', '/', undef, 'If-None-Match' => $gateway->ask('GET', '/')->{headers}{etag})->{status}, 304, 'that has not changed');
like($gateway->curl('-I', '/documents/D1'), qr/^Content-Length: [1-9]/m, 'HEAD has the length that GET has');

# ---- errors are problems ----

for (
  [ 'GET', '/nope', undef, 404, 'unknown route' ],
  [ 'PUT', '/commands', { a => 1 }, 405, 'wrong method' ],
  [ 'POST', '/commands/IssueDocument', '{"a": ', 400, 'bad JSON' ],
  [ 'POST', '/commands/IssueDocument', '[]', 422, 'no object' ],
  [ 'POST', '/commands/IssueDocument', '{"document_id": "' . 'x' x 1_100_000 . '"}', 413, 'too large a body' ],
  [ 'GET', '/' . 'x' x 9000, undef, 414, 'too long an address' ],
  [ 'GET', '/commands/01a20257-435c-7d30-b28b-49d69aa1c301', undef, 404, 'no such command' ],
  [ 'POST', '/processes/01a20257-435c-7d30-b28b-49d69aa1c301/acknowledge', {}, 403, 'not allowed' ],
  [ 'POST', '/commands/Nonsense', {}, 404, 'no such type' ])
{
  my ($method, $path, $body, $status, $name) = @$_;
  my $answer = $gateway->ask($method, $path, $body, 'Content-Type' => 'application/json');

  is_deeply([ $answer->{status}, $answer->{headers}{'content-type'}, $answer->{json}{status} ], [ $status, 'application/problem+json', $status ], "$name: a problem");
}

# ---- the movie: all five ways ----

$node->safe_psql($db, slurp_file("$root/example/movie/movie.sql"));
$node->safe_psql($db, 'GRANT USAGE ON SCHEMA movies, catalogue TO front_end; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA movies, catalogue TO front_end; GRANT SELECT ON ALL TABLES IN SCHEMA movies, catalogue TO front_end');
my $movie = sub { my ($id, $title, %headers) = @_; $gateway->ask('POST', '/commands/CreateMovie', { movie_id => $id, title => $title, year => 1979 }, %headers) };
my $accepted = $movie->('m1', 'Alien');
my ($future) = $accepted->{headers}{link} =~ /<(.*)>/;
is($future, '/queries/movie?movie_id=m1', '1: the resource to come has an address');
ok(poll_until(sub { $gateway->ask('GET', $future)->{status} == 200 }), '1: asked again until it is there');
is($gateway->ask('GET', $future)->{json}{label}, 'Alien (1979)', '1: it is whole');
$accepted = $movie->('m2', 'Alien');
ok(poll_until(sub { $gateway->ask('GET', $accepted->{headers}{location})->{json}{status} eq 'failed' }), '2: the status is asked: it has failed');
is($gateway->ask('GET', $accepted->{headers}{location})->{json}{error}{detail}, 'Alien (1979) is in the catalogue already', '2: and says why');
my $pushed = $gateway->stream('/commands/events');
ok(poll_until(sub { $pushed->events == 1 }), '3: a stream is open');
$movie->('m3', 'Stalker');
ok(poll_until(sub { my ($end) = ($pushed->events)[-1]; ($end->[2]{status} // '') eq 'processed' && $end->[2]{resource} =~ /m3/ }), '3: it is pushed');
$pushed->stop;
is($movie->('m4', 'Nostalgia', Prefer => 'return=representation')->{json}{label}, 'Nostalgia (1979)', '4: the gateway blocks: the whole resource');
is($movie->('m5', 'Nostalgia', Prefer => 'return=representation')->{status}, 422, '4: or the problem');
rest();
is($movie->('m6', 'Mirror', Prefer => 'return=representation, wait=1', 'Idempotency-Key' => 'm6')->{status}, 202, '5: a limit of time');
work();
is($movie->('m6', 'Mirror', Prefer => 'return=representation, wait=30', 'Idempotency-Key' => 'm6')->{json}{label}, 'Mirror (1979)', '5: the late success is there under the same key');

is($gateway->stop, 0, 'it ends when it is told');
is($gateway->log =~ /signal 15/ ? 1 : 0, 1, 'and says so');
rest();
invariants_hold($node, $db, 'after all of it');
$node->stop;
done_testing();
