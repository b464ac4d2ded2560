# Requests that no client would send, over the socket, to a gateway built under
# AddressSanitizer and UBSan: each is answered or cut off, none is a 500, and
# at its end it has leaked nothing. First a corpus by hand, then mutations of
# good requests, the same ones in each run.

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;
use Voiding::Gateway;
use Voiding::Test;

my $root = $ENV{VOIDING_ROOT} // '.';
my $program = $ENV{GATEWAY_ASAN} // "$root/build/gateway-asan";
-x $program or system_or_bail('make', '-s', '-C', $root, 'build/gateway-asan', 'PG_CONFIG=' . ($ENV{PG_CONFIG} // 'pg_config'));
my $node = new_node('main');
my $db = new_database($node, 'web');
my $gateway = Voiding::Gateway->start($node, $db, program => $program, 'request-timeout' => 2, 'idle-timeout' => 1, heartbeat => 1, 'max-body' => 20000);
ok($gateway->is_ready, 'it is ready');
$SIG{PIPE} = 'IGNORE';
my %seen;

# send it, in pieces where there are several; the status of the answer, '' if it is cut off
sub sends
{
  my (@pieces) = @_;
  my $socket = $gateway->socket;
  my $answer = '';

  $socket->autoflush(1);
  for my $piece (@pieces)
  {
    print $socket $piece or last;
  }
  shutdown $socket, 1;
  my $rin = '';
  vec($rin, fileno $socket, 1) = 1;
  while (select(my $r = $rin, undef, undef, 5) > 0 && sysread $socket, my $part, 65536)
  {
    $answer .= $part;
    last if $answer =~ /text\/event-stream/;
  }
  close $socket;
  my @statuses = $answer =~ m{^HTTP/1\.[01] (\d+)}mg;
  $seen{$_}++ for @statuses;
  my %once;
  return join ' ', grep { !$once{$_}++ } @statuses;
}

my $head = "Host: localhost\r\nConnection: close\r\n";
my $post = "POST /commands/IssueDocument HTTP/1.1\r\n${head}Content-Type: application/json\r\n";
for (
  [ 'nothing', '', '' ],
  [ 'newlines', '', "\r\n" x 100 ],
  [ 'zeros', qr/^(400)?$/, "\0" x 1000 ],
  [ 'no version', qr/^\d*$/, "GET /\r\n\r\n" ],
  [ 'bad version', qr/^\d*$/, "GET / HTTP/9.9\r\n\r\n" ],
  [ 'a long method', qr/^\d*$/, 'X' x 10000 . " / HTTP/1.1\r\n\r\n" ],
  [ 'TLS', qr/^(400)?$/, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" . 'x' x 300 ],
  [ 'no host', qr/^400$/, "GET / HTTP/1.1\r\n\r\n" ],
  [ 'two hosts', qr/^[24]\d\d$/, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\nConnection: close\r\n\r\n" ],
  [ 'a host with a bracket only', 421, "GET /healthz HTTP/1.1\r\nHost: [\r\nConnection: close\r\n\r\n" ],
  [ 'an empty host', 421, "GET /healthz HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n" ],
  [ 'bytes in the address', 400, "GET /\xff\xfe HTTP/1.1\r\n$head\r\n" ],
  [ 'a zero byte in the address', qr/^4\d\d$/, "GET /a%00b HTTP/1.1\r\n$head\r\n" ],
  [ 'half an escape', qr/^4\d\d$/, "GET /%e HTTP/1.1\r\n$head\r\n" ],
  [ 'escapes that are no text', qr/^4\d\d$/, "GET /documents/%ff%fe HTTP/1.1\r\n$head\r\n" ],
  [ 'dots', qr/^4\d\d$/, "GET /../../etc/passwd HTTP/1.1\r\n$head\r\n" ],
  [ 'an absolute address', qr/^4\d\d$/, "GET http://localhost/healthz HTTP/1.1\r\n$head\r\n" ],
  [ 'an asterisk', qr/^4\d\d$/, "OPTIONS * HTTP/1.1\r\n$head\r\n" ],
  [ 'CONNECT', qr/^4\d\d$/, "CONNECT localhost:22 HTTP/1.1\r\n$head\r\n" ],
  [ 'TRACE', qr/^4\d\d$/, "TRACE / HTTP/1.1\r\n$head\r\n" ],
  [ 'many question marks', qr/^(4\d\d)?$/, 'GET /reports' . '?a=b&' x 500 . " HTTP/1.1\r\n$head\r\n" ],
  [ 'a header that is no text', qr/^[24]\d\d$/, "GET /reports HTTP/1.1\r\n${head}X-Odd: \xff\xfe\r\n\r\n" ],
  [ 'a header without a colon', qr/^\d*$/, "GET /reports HTTP/1.1\r\n${head}nothing\r\n\r\n" ],
  [ 'a thousand headers', 431, "GET /reports HTTP/1.1\r\n$head" . join('', map { "H$_: x\r\n" } 1 .. 1000) . "\r\n" ],
  [ 'a header of 100 kB', qr/^(431|413|)$/, "GET /reports HTTP/1.1\r\n${head}H: " . 'x' x 100_000 . "\r\n\r\n" ],
  [ 'a cursor with quotes', 422, "GET /commands/events HTTP/1.1\r\n${head}Accept: text/event-stream\r\nLast-Event-ID: '; DROP TABLE x; --\r\n\r\n" ],
  [ 'Prefer, without end', qr/^200$/, "GET /reports HTTP/1.1\r\n${head}Prefer: wait=99999999999999999999, =,;;\"\r\n\r\n" ],
  [ 'a length that is no number', qr/^(400)?$/, "${post}Content-Length: many\r\n\r\n{}" ],
  [ 'a negative length', qr/^(400)?$/, "${post}Content-Length: -5\r\n\r\n{}" ],
  [ 'a huge length', qr/^(400|413)?$/, "${post}Content-Length: 99999999999999999999999\r\n\r\n{}" ],
  [ 'a length that is too large', 413, "${post}Content-Length: 1000000\r\n\r\n" . 'x' x 1000 ],
  [ 'less than it says', qr/^\d*$/, "${post}Content-Length: 100\r\n\r\n{}" ],
  [ 'two lengths', qr/^\d*$/, "${post}Content-Length: 2\r\nContent-Length: 50\r\n\r\n{}" ],
  [ 'length and chunks', qr/^[ 24\d]*$/, "${post}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n" ],
  [ 'chunks', qr/^422$/, "${post}Transfer-Encoding: chunked\r\n\r\n", "1\r\n{\r\n", "1\r\n}\r\n", "0\r\n\r\n" ],
  [ 'a bad chunk', qr/^(400|)$/, "${post}Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n" ],
  [ 'chunks without end', qr/^(413|)$/, "${post}Transfer-Encoding: chunked\r\n\r\n", ("1000\r\n" . 'x' x 4096 . "\r\n") x 20, "0\r\n\r\n" ],
  [ 'a zero byte in the body', 400, "${post}Content-Length: 9\r\n\r\n{\"a\": \0 }" ],
  [ 'bytes in the body', qr/^4\d\d$/, "${post}Content-Length: 9\r\n\r\n{\"a\":\"\xff\"}" ],
  [ 'nesting', 400, "${post}Content-Length: 18000\r\n\r\n" . '[' x 18000 ],
  [ 'a surrogate', qr/^4\d\d$/, "${post}Content-Length: 14\r\n\r\n{\"a\":\"\\ud800\"}" ],
  [ 'one behind the other', 200, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /healthz HTTP/1.1\r\n$head\r\n" ],
  [ 'many behind each other', 200, ("GET /reports HTTP/1.1\r\nHost: localhost\r\n\r\n") x 50, "GET /reports HTTP/1.1\r\n$head\r\n" ],
  [ 'a stream over HTTP/1.0', 200, "GET /commands/events HTTP/1.0\r\nAccept: text/event-stream\r\n\r\n" ],
  [ 'HEAD of a stream', 200, "HEAD /commands/events HTTP/1.1\r\n${head}Accept: text/event-stream\r\n\r\n" ],
  [ 'a stream, and more behind it', 200, "GET /commands/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\nGET /healthz HTTP/1.1\r\n$head\r\n" ],
  [ 'a wait, and gone', qr/^\d*$/, "GET /queries/none?x=1 HTTP/1.1\r\n${head}Prefer: wait=1\r\n\r\n" ],
  [ 'a type with everything in it', qr/^4\d\d$/, "POST /commands/%27%22%3B%00%0d%0a HTTP/1.1\r\n${head}Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}" ])
{
  my ($name, $expected, @pieces) = @$_;
  my $status = sends(@pieces);

  ref $expected ? like($status, $expected, $name) : is($status, $expected, $name);
}

# ---- mutations ----

my @seeds = (
  "GET /reports?customer_id=C&status=open HTTP/1.1\r\n$head\r\n",
  "GET /commands/events?after=1:1:/2:2:/3 HTTP/1.1\r\n${head}Accept: text/event-stream\r\nLast-Event-ID: 1:1:/2:2:/3\r\n\r\n",
  "${post}Prefer: respond-async, wait=0\r\nIdempotency-Key: \"k\"\r\nContent-Length: 52\r\n\r\n{\"document_id\": \"D1\", \"customer_id\": \"C\", \"amount\": 5}",
  "DELETE /commands/01a20257-435c-7d30-b28b-49d69aa1c301?reason=none HTTP/1.1\r\n${head}Origin: http://localhost\r\n\r\n",
  "GET /metrics HTTP/1.1\r\n${head}Authorization: Bearer a.b.c\r\nCookie: a=b\r\n\r\n");
my $state = 20240607;
sub random { $state = ($state * 1103515245 + 12345) % 2**31; return int($state / 2**8) % $_[0] }
my @bytes = ("\0", "\r", "\n", "\r\n", '%', '%00', '"', '{', '}', ':', '/', '?', '&', '=', ' ', "\xff", "\xc3\xa9", 'A' x 300, '-1', '99999999999', ',', ';', "\t");
for my $round (1 .. $ENV{ROUNDS} // 400)
{
  my $request = $seeds[ random(scalar @seeds) ];

  for (1 .. 1 + random(4))
  {
    my $at = random(length $request);
    my $how = random(4);
    if ($how == 0) { substr $request, $at, 1, $bytes[ random(scalar @bytes) ] }
    elsif ($how == 1) { substr $request, $at, 0, $bytes[ random(scalar @bytes) ] }
    elsif ($how == 2) { substr $request, $at, 1 + random(10), '' }
    else { substr $request, $at, 0, substr $request, random(length $request), random(30) }
  }
  my $cut = random(3) ? length $request : random(length $request);
  sends(substr($request, 0, $cut), substr $request, $cut);
}
ok(!$seen{500}, 'no 500') || diag(slurp_file($node->logfile));
cmp_ok($seen{200} // 0, '>', 0, 'some were good all the same');
cmp_ok($seen{400} // 0, '>', 10, 'many were not');
is($gateway->ask('GET', '/reports')->{status}, 200, 'it goes on');
is($gateway->stop, 0, 'it ends, and has leaked nothing');
unlike($gateway->log, qr/AddressSanitizer|runtime error|LeakSanitizer/, 'nothing was found') || diag($gateway->log);
unlike(slurp_file($node->logfile), qr/PANIC|server process .* was terminated/, 'the server has not minded');
$node->stop;
done_testing();
