# Who may ask the gateway, and as whom: addresses, tokens, origins, hosts, and
# streams of somebody else.

use strict;
use warnings;

use Digest::SHA qw(hmac_sha256);
use JSON::PP;
use MIME::Base64 qw(encode_base64url);
use PostgreSQL::Test::Utils;
use Test::More;
use Voiding::Gateway;
use Voiding::Test;

my $dir = $PostgreSQL::Test::Utils::tmp_check;
my $node = new_node('main');
my $db = new_database($node, 'web');
duties($node, $db, qw(front_end app gateway));
$node->safe_psql($db, q{
  CREATE ROLE alice; CREATE ROLE bob; CREATE ROLE mallory; CREATE ROLE nobody; CREATE ROLE boss SUPERUSER;
  GRANT front_end, app TO alice, bob, mallory;
  ALTER ROLE gateway LOGIN NOINHERIT; GRANT alice, bob, nobody TO gateway;
  GRANT EXECUTE ON FUNCTION billing.issue_document TO alice, bob});
my $secret = 'a secret of no fewer than thirty-two bytes';
append_to_file("$dir/secret", "$secret\n");
append_to_file("$dir/short", "short\n");
system_or_bail('openssl', 'genrsa', '-out', "$dir/key.pem", '2048');
system_or_bail('openssl', 'rsa', '-in', "$dir/key.pem", '-pubout', '-out', "$dir/public.pem");
system_or_bail('openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', "$dir/tls.key", '-out', "$dir/tls.pem", '-days', '1', '-subj', '/CN=localhost');

# ---- what it refuses to start as ----

sub refusal
{
  my (%options) = @_;
  my @arguments = map { $options{$_} eq 'yes' ? "--$_" : ("--$_", $options{$_}) } sort keys %options;
  my ($out, $err);

  IPC::Run::run([ "$ENV{VOIDING_ROOT}/voiding-gateway", '--dsn', 'dbname=none', @arguments ], '>', \$out, '2>', \$err);
  return $err =~ s/^voiding-gateway: //r =~ s/\n\z//r;
}
my %jwt = ('jwt-secret' => "$dir/secret", 'jwt-audience' => 'void');
is(refusal(listen => '0.0.0.0:0'), 'an address that is not loopback needs tokens: jwt-secret or jwt-key', 'not loopback: no tokens');
is(refusal(listen => '[::]:0'), 'an address that is not loopback needs tokens: jwt-secret or jwt-key', 'nor over IPv6');
is(refusal(listen => '0.0.0.0:0', %jwt), 'an address that is not loopback needs TLS: tls-cert and tls-key, or behind-proxy', 'not loopback: no TLS');
is(refusal('jwt-secret' => "$dir/secret"), 'tokens need jwt-audience', 'tokens without an audience');
is(refusal(%jwt, 'jwt-secret' => "$dir/short"), 'the secret of jwt-secret must have 32 bytes or more', 'a short secret');
is(refusal(%jwt, 'jwt-key' => "$dir/public.pem"), 'jwt-secret or jwt-key, not both', 'two kinds of tokens');
is(refusal('tls-cert' => "$dir/tls.pem"), 'tls-cert and tls-key belong together', 'a certificate without its key');
like(refusal('jwt-secret' => "$dir/none", 'jwt-audience' => 'x'), qr/^cannot read .*none: /, 'no such file');
like(refusal(pool => 'many'), qr/^pool is a number from 1 to 200, not "many"/, 'no number');

# ---- tokens ----

sub token
{
  my ($claims, %how) = @_;
  my $alg = $how{alg} // 'HS256';
  my $text = join '.', map { encode_base64url(encode_json($_)) } { alg => $alg, typ => 'JWT' }, $claims;
  my $signature = $how{signature} // hmac_sha256($text, $how{secret} // $secret);

  if ($alg eq 'RS256' && !$how{secret})
  {
    append_to_file("$dir/text", '') unless -e "$dir/text";
    open my $out, '>', "$dir/text" or die;
    print $out $text;
    close $out;
    system_or_bail('openssl', 'dgst', '-sha256', '-sign', $how{key} // "$dir/key.pem", '-out', "$dir/signature", "$dir/text");
    $signature = slurp_file("$dir/signature");
  }
  return "$text." . encode_base64url($signature);
}
my %alice = (role => 'alice', aud => 'void', exp => time + 600);
sub with { my (%claims) = @_; my %all = (%alice, %claims); delete @all{ grep { !defined $all{$_} } keys %all }; return \%all; }

my $gateway = Voiding::Gateway->start($node, $db, user => 'gateway', %jwt, listen => '0.0.0.0:0', 'behind-proxy' => 'yes');
$gateway->{url} =~ s/0\.0\.0\.0/127.0.0.1/;
ok($gateway->is_ready, 'with tokens it listens anywhere; the probes need none');
sub status_with
{
  my ($token, $path) = @_;
  my $answer = $gateway->ask('GET', $path // '/commands', undef, defined $token ? (Authorization => "Bearer $token") : ());

  return $answer->{status} . ($answer->{status} == 200 ? '' : ' ' . ($answer->{json}{detail} // ''));
}
is(status_with(token(\%alice)), '200', 'a good token');
is(status_with(token(with(aud => [ 'other', 'void' ]))), '200', 'one for several audiences');
for (
  [ undef, 401, 'none', 'A token is needed.' ],
  [ token(with(exp => time - 1)), 401, 'expired', 'The token has expired.' ],
  [ token(with(exp => undef)), 401, 'without exp', 'The token has no claim exp.' ],
  [ token(with(nbf => time + 100)), 401, 'not valid yet', 'The token is not valid yet.' ],
  [ token(with(aud => 'other')), 401, 'wrong audience', 'The token is for another audience.' ],
  [ token(with(aud => undef)), 401, 'no audience', 'The token is for another audience.' ],
  [ token(with(role => undef)), 401, 'no role', 'The token has no claim role.' ],
  [ token(with(role => 'none')), 401, 'role none, which is who logs in', 'The token has no claim role.' ],
  [ token(\%alice, secret => 'another secret, of many bytes as well'), 401, 'wrong signature', 'The token cannot be read, or its signature is wrong.' ],
  [ token(\%alice, alg => 'none', signature => ''), 401, 'unsigned', 'The token cannot be read, or its signature is wrong.' ],
  [ token(\%alice, alg => 'RS256'), 401, 'of the other kind', 'The token cannot be read, or its signature is wrong.' ],
  [ 'a.b.c', 401, 'garbage', 'The token cannot be read, or its signature is wrong.' ],
  [ token(with(role => 'mallory')), 403, 'a role that the gateway is no member of', 'There is no such role, or the gateway may not act for it.' ],
  [ token(with(role => 'boss')), 403, 'a superuser', 'There is no such role, or the gateway may not act for it.' ],
  [ token(with(role => 'unknown')), 403, 'no such role', 'There is no such role, or the gateway may not act for it.' ],
  [ token(with(role => q{alice'; DROP TABLE billing.document; --})), 403, 'SQL', 'There is no such role, or the gateway may not act for it.' ])
{
  my ($token, $status, $name, $detail) = @$_;
  is(status_with($token), "$status $detail", "token: $name");
}
is($gateway->ask('GET', '/commands')->{headers}{'www-authenticate'}, 'Bearer', 'a 401 says what is needed');
like(status_with(token(with(role => 'nobody'))), qr/^403 permission denied/, 'a role without rights is refused by the server');
is($gateway->ask('GET', '/metrics')->{status}, 401, 'figures need a token');

# ---- each their own ----

my %as = map { $_ => [ Authorization => 'Bearer ' . token(with(role => $_)) ] } qw(alice bob);
my $sent = $gateway->ask('POST', '/commands/IssueDocument', { document_id => 'D1', customer_id => 'C', amount => 1 }, @{ $as{alice} });
is($sent->{status}, 202, 'alice sends');
is(row($node, $db, 'SELECT caller FROM voiding.command'), 'alice', 'as herself');
is($gateway->ask('GET', $sent->{headers}{location}, undef, @{ $as{bob} })->{status}, 404, 'her command is none of bob');
is($gateway->ask('GET', "$sent->{headers}{location}/events", undef, @{ $as{bob} })->{status}, 404, 'nor is its stream');
my $mine = $gateway->stream('/commands/events', '-H', "Authorization: $as{alice}[1]", '-H', 'Last-Event-ID: 3:3:/3:3:/0');
my $his = $gateway->stream('/commands/events', '-H', "Authorization: $as{bob}[1]", '-H', 'Last-Event-ID: 3:3:/3:3:/0');
ok(poll_until(sub { grep { ($_->[2]{self} // '') eq $sent->{headers}{location} } $mine->events }), 'a stream is replayed to its owner');
$gateway->ask('POST', '/commands/IssueDocument', { document_id => 'D2', customer_id => 'C', amount => 1 }, @{ $as{bob} });
ok(poll_until(sub { $his->events == 1 }), 'bob hears of his own');
is(($his->events)[0][2]{self} eq $sent->{headers}{location} ? 'hers' : 'his', 'his', 'and of nothing else');
is($gateway->ask('GET', '/events', undef, @{ $as{alice} }, Accept => 'text/event-stream')->{status}, 403, 'events are a right of their own');
$_->stop for $mine, $his;
my $short = token(with(exp => time + 2));
my $ends = $gateway->stream('/commands/events', '-H', "Authorization: Bearer $short");
ok(poll_until(sub { $ends->has_ended }, 20), 'a stream ends with its token');
like($ends->said, qr/^event: start$/m, 'and has been one');
is($gateway->stop, 0, 'stopped');

# ---- RS256: with the public key ----

$gateway = Voiding::Gateway->start($node, $db, user => 'gateway', 'jwt-key' => "$dir/public.pem", 'jwt-audience' => 'void');
$gateway->is_ready;
is(status_with(token(\%alice, alg => 'RS256')), '200', 'RS256: a good token');
is(status_with(token(\%alice, secret => slurp_file("$dir/public.pem"))), '401 The token is signed in another way.', 'RS256: the public key is no secret of HS256');
system_or_bail('openssl', 'genrsa', '-out', "$dir/other.pem", '2048');
like(status_with(token(\%alice, alg => 'RS256', key => "$dir/other.pem")), qr/^401/, 'RS256: of another key');
is($gateway->stop, 0, 'stopped');

# ---- TLS ----

$gateway = Voiding::Gateway->start($node, $db, user => 'gateway', role => 'alice', 'tls-cert' => "$dir/tls.pem", 'tls-key' => "$dir/tls.key");
ok(poll_until(sub { $gateway->curl('-k', '/readyz') =~ /200 OK/ }), 'over TLS');
like($gateway->curl('-k', '/commands'), qr/^Strict-Transport-Security: /m, 'and it stays there');
is($gateway->stop, 0, 'stopped');

# ---- without tokens: pages of elsewhere ----

$gateway = Voiding::Gateway->start($node, $db, user => 'gateway', role => 'alice', host => 'gateway.example, other.example');
$gateway->is_ready;
sub post
{
  my (@headers) = @_;
  my ($status) = $gateway->curl('/commands/IssueDocument', '-d', '{"document_id": "D3", "customer_id": "C", "amount": 1}', map { ('-H', $_) } @headers) =~ m{\AHTTP/1.1 (?:100[^\n]*\n\nHTTP/1.1 )?(\d+)};
  return $status;
}
my $json = 'Content-Type: application/json';
is(post($json), 202, 'a client that is no page');
is(post(), 415, 'a form of any page');
is(post('Content-Type: text/plain'), 415, 'a text of any page');
is(post('Content-Type: application/jsonp'), 415, 'something like JSON');
is(post("$json; charset=utf-8", "Origin: $gateway->{url}"), 202, 'its own page');
is(post($json, 'Origin: http://evil.example'), 403, 'a page of elsewhere');
is(post($json, 'Origin: null'), 403, 'a page without an origin');
is(post($json, 'Sec-Fetch-Site: cross-site'), 403, 'one whose browser says so');
is(post($json, 'Host: evil.example'), 421, 'a name that was bent to this address');
is(post($json, 'Host: gateway.example:8080', 'Origin: http://gateway.example:8080'), 202, 'a name that was given');
like($gateway->curl('-X', 'DELETE', '/commands/01a20257-435c-7d30-b28b-49d69aa1c301', '-H', 'Origin: http://evil.example'), qr{^HTTP/1.1 403}, 'DELETE as well');
unlike($gateway->curl('-X', 'OPTIONS', '/commands/IssueDocument', '-H', 'Origin: http://evil.example', '-H', 'Access-Control-Request-Method: POST'), qr/Access-Control-Allow/i, 'who asks first is not let in');
is($gateway->ask('GET', '/commands', undef, Authorization => 'Bearer x')->{status}, 401, 'a token where there are none');
is($gateway->stop, 0, 'stopped');
unlike(slurp_file($node->logfile), qr/PANIC|server process .* was terminated/, 'the server has not minded');
$node->stop;
done_testing();
