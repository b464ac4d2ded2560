# Clients from npm, that nobody here wrote: fetch and EventSource against the
# gateway, which is killed and started anew under them; and a validator of its
# OpenAPI document. They are installed into the private build folder.

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;
use Voiding::Gateway;
use Voiding::Test;

my $root = $ENV{VOIDING_ROOT} // '.';
plan skip_all => 'npm is not installed' unless `sh -c 'command -v npm'`;
my $clients = "$PostgreSQL::Test::Utils::tmp_check/clients";
mkdir $clients;
system_or_bail('cp', map({ "$root/test/clients/$_" } qw(package.json package-lock.json clients.js)), $clients);
system_or_bail('npm', 'ci', '--prefix', $clients, '--no-audit', '--no-fund', '--loglevel=error');

my $node = new_node('main');
my $db = new_database($node, 'web');
$node->safe_psql($db, 'SELECT voiding.start_workers(1)');
my $gateway = Voiding::Gateway->start($node, $db);
ok($gateway->is_ready, 'it is ready');

my ($out, $err) = ('', '');
my $run = IPC::Run::start([ 'node', "$clients/clients.js", $gateway->{url} ], '>', \$out, '2>', \$err, IPC::Run::timeout(170));
ok(poll_until(sub { $run->pump_nb; $out =~ /^# ready$/m || !$run->pumpable }), 'the clients have played') || diag("$out\n$err");
my $listen = "127.0.0.1:$gateway->{port}";
$node->safe_psql($db, "SELECT billing.issue_document('R1', 'C', 1), billing.issue_document('R2', 'C', 1)");
is($gateway->stop('KILL'), 9, 'the gateway is killed');
$node->safe_psql($db, "SELECT billing.issue_document('R3', 'C', 1)");
$gateway = Voiding::Gateway->start($node, $db, listen => $listen);
$node->safe_psql($db, "SELECT billing.issue_document('R4', 'C', 1), billing.issue_document('R5', 'C', 1)");
$run->finish;
is($run->result(0), 0, 'all holds') || diag("$out\n$err");
my ($count) = $out =~ /^1\.\.(\d+)$/m;
is(scalar(() = $out =~ /^ok /mg), $count // 'no plan', 'each of it') || diag("$out\n$err");
is($gateway->stop, 0, 'stopped');
$node->safe_psql($db, 'SELECT voiding.stop_workers()');
$node->stop;
done_testing();
