# The console, in a real browser: Debian's Chromium, driven by playwright-core
# from npm (test/browser). The whole story in two windows, a restart of the
# gateway in the middle, tasks, repairs, all by keyboard, axe-core, screenshots
# (build/console), tokens. Here is what happens outside the browser.

use strict;
use warnings;

use Digest::SHA qw(hmac_sha256_base64);
use MIME::Base64 qw(encode_base64url);
use PostgreSQL::Test::Utils;
use Test::More;
use Voiding::Gateway;
use Voiding::Test;

my $root = $ENV{VOIDING_ROOT} // '.';
plan skip_all => 'BROWSER=0' if ($ENV{BROWSER} // '') eq '0';    # the modes in which it would be the same once more
-x '/usr/bin/chromium' or die "chromium is not installed: script/setup chromium\n";
`sh -c 'command -v npm'` or die "npm is not installed: script/setup nodejs npm\n";
my $browser = "$PostgreSQL::Test::Utils::tmp_check/browser";
my $pictures = "$root/build/console";
mkdir $_ for $browser, "$root/build", $pictures;
system_or_bail('cp', map({ "$root/test/browser/$_" } qw(package.json package-lock.json console.js)), $browser);
system_or_bail('npm', 'ci', '--prefix', $browser, '--no-audit', '--no-fund', '--loglevel=error');

my $node = new_node('main', 'voiding.slow_down' => 500, 'voiding.retry_limit' => 1);
my $db = new_database($node, 'web');
my @duties = qw(front_end reader publisher app event_reader operator console worker);
duties($node, $db, @duties, 'gateway');
$node->safe_psql($db, 'CREATE ROLE clerk IN ROLE ' . join(', ', @duties) . ';
  CREATE ROLE guest IN ROLE front_end, reader, event_reader;
  GRANT EXECUTE ON FUNCTION billing.issue_document TO clerk;
  ALTER ROLE gateway LOGIN NOINHERIT; GRANT clerk, guest TO gateway');
$node->safe_psql($db, q{SELECT voiding.create_task_type(name, definition || '{"roles": ["clerk"]}', 'billing') FROM voiding.task_type WHERE name = 'acknowledge_voiding_failure'});
$node->safe_psql($db, q{SELECT voiding.create_service('stock');
  CREATE FUNCTION stock.reserve(order_id text) RETURNS void LANGUAGE plpgsql AS 'BEGIN PERFORM 1 / 0; END';
  SELECT voiding.create_command('Reserve', 'stock.reserve');
  SELECT voiding.create_process_type('fulfilment', '{"key": "order_id", "start": {"OrderPlaced": "Reserving"}, "events": {"ParcelShipped": {"unmatched": "park", "for": "P7D"}},
    "states": {"Reserving": {"entry": {"send": "Reserve"}, "on": {"ParcelShipped": "Shipped"}, "after": {"P1D": "Shipped"}}, "Shipped": {"type": "final"}}}')});
$node->safe_psql($db, 'SELECT voiding.start_workers(2)');

my $gateway = Voiding::Gateway->start($node, $db, user => 'gateway', role => 'clerk', drain => 1);
my $listen = "127.0.0.1:$gateway->{port}";
my $secret = 'a secret of more than thirty-two bytes';
append_to_file("$browser/secret", $secret);
my $strict = Voiding::Gateway->start($node, $db, user => 'gateway', 'jwt-secret' => "$browser/secret", 'jwt-audience' => 'console');
ok($_->is_ready, 'it is ready') for $gateway, $strict;

sub token
{
  my ($role, $seconds) = @_;
  my $claims = join '.', map { encode_base64url($_) } '{"alg":"HS256","typ":"JWT"}', sprintf('{"role":"%s","aud":"console","exp":%d}', $role, time + $seconds);
  return "$claims." . (hmac_sha256_base64($claims, $secret) =~ tr{+/}{-_}r);
}

# each is asked for by the browser, and what it returns is told there
my %outside = (
  token => \&token,
  issue => sub { my ($id, $customer, $amount) = @_; $node->safe_psql($db, "SELECT billing.issue_document('$id', '$customer', $amount)") },
  stop => sub { is($gateway->stop, 0, 'the gateway is stopped') },
  start => sub { $gateway = Voiding::Gateway->start($node, $db, user => 'gateway', role => 'clerk', listen => $listen) },
  break => sub { $node->safe_psql($db, qq{SELECT voiding.emit('OrderPlaced', '$_', '{"order_id": "$_"}', 'stock')}) for 'O1', 'O2';
    $node->safe_psql($db, q{SELECT voiding.emit('ParcelShipped', 'O9', '{"order_id": "O9"}', 'stock')}) },
  mend => sub { $node->safe_psql($db, q{CREATE OR REPLACE FUNCTION stock.reserve(order_id text) RETURNS void LANGUAGE sql AS ''}) },
  many => sub { $node->safe_psql($db, q{INSERT INTO reports.customer_report (customer_id, currency) SELECT 'Customer ' || i, 'EUR' FROM generate_series(1, 90) i}) },
  # something to look at in each room
  leave => sub { $node->safe_psql($db, q{CREATE OR REPLACE FUNCTION stock.reserve(order_id text) RETURNS void LANGUAGE plpgsql AS 'BEGIN PERFORM 1 / 0; END';
      SELECT voiding.emit('OrderPlaced', 'O5', '{"order_id": "O5"}', 'stock'), voiding.emit('ParcelShipped', 'O8', '{"order_id": "O8"}', 'stock');
      SELECT billing.void_document('K2', 'wrong amount')});
    poll_until(sub { row($node, $db, 'SELECT count(*) FROM voiding.task WHERE ended_at IS NULL') == 1 }) },
);

my ($in, $out, $err, $done) = ('', '', '', 0);
my $run = IPC::Run::start([ 'node', "$browser/console.js", $gateway->{url}, $strict->{url}, $pictures ], '<', \$in, '>', \$out, '2>', \$err, IPC::Run::timeout(500));
while ($run->pumpable)
{
  $run->pump;
  my @wishes = $out =~ /^# do (.*)\n/mg;
  for my $wish (@wishes[ $done .. $#wishes ])
  {
    my ($what, @arguments) = split ' ', $wish;
    my $said = ($outside{$what} // die "what is $what?")->(@arguments);
    $done++;
    $in .= ($what eq 'token' ? $said : 'done') . "\n";
  }
}
$run->finish;
is($run->result(0), 0, 'the browser: all holds') || diag("$out\n$err");
my ($count) = $out =~ /^1\.\.(\d+)$/m;
is(scalar(() = $out =~ /^ok /mg), $count // 'no plan', 'each of it') || diag($out);
note($out);
is(scalar(() = glob("$pictures/*.png")), 32, 'the screenshots are there');
is($_->stop, 0, 'stopped') for $gateway, $strict;
$node->safe_psql($db, 'SELECT voiding.stop_workers()');
invariants_hold($node, $db, 'at the end');
$node->stop;
done_testing();
