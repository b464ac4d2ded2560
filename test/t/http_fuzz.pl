# http() under libFuzzer, in a backend that loads the library built for it, with
# UBSan: paths, query strings, headers, bodies. Some seconds, the same requests
# each time; FUZZ=SECONDS: new ones, for so long.

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;
use Voiding::Test;

my $root = $ENV{VOIDING_ROOT} // '.';
my $seconds = $ENV{FUZZ} // '';
plan skip_all => 'FUZZ=0' if $seconds eq '0';    # where there is no clang, and modes in which it would be the same once more
my $corpus = "$PostgreSQL::Test::Utils::tmp_check/corpus";
my $library = "$root/build/fuzz-http.so";
system_or_bail('make', '-s', '-C', $root, 'build/fuzz-http.so', 'PG_CONFIG=' . ($ENV{PG_CONFIG} // 'pg_config'));
mkdir $corpus;

# something to read
my $node = new_node('main');
my $db = new_database($node, 'fuzz');
$node->safe_psql($db, q{SELECT billing.issue_document('D' || i, 'C', i) FROM generate_series(1, 5) i;
  SELECT voiding.send_command('IssueDocument', '{"document_id": "E1", "customer_id": "C", "amount": 1}')});
drain($node, $db);
$node->safe_psql($db, q{SELECT reports.publish_report('C'); SELECT billing.void_document('D1')});
drain($node, $db);

$node->safe_psql($db, qq{UPDATE pg_proc SET probin = '$library' WHERE probin = '\$libdir/voiding';
  CREATE FUNCTION fuzz_http(arguments text[]) RETURNS void LANGUAGE c AS '$library'});
my @arguments = (($seconds ? "-max_total_time=$seconds" : ('-runs=60000', '-seed=7')), "-artifact_prefix=$corpus.",
  map({ "-$_=0" } qw(timeout rss_limit_mb detect_leaks handle_usr1 handle_usr2 handle_int handle_term)),    # those are PostgreSQL's
  $corpus, "$root/test/fuzz/http");
$node->psql($db, "SELECT fuzz_http('{" . join(',', @arguments) . "}')");

my $log = slurp_file($node->logfile);
my ($reached) = $log =~ /DONE +cov: (\d+)/;
cmp_ok($reached // 0, '>', 700, 'it gets around, and nothing is found') || diag($log =~ /^(BREACH.*?|==.*?)^(?:artifact|Base64)/ms ? $1 : substr($log, -2000));
unlike($log, qr/BREACH|PANIC|was terminated/, 'no breach');
note($log =~ /^(Done .*)/m);
$node->stop;
done_testing();
