# The gateway under libFuzzer, with AddressSanitizer and UBSan: test/fuzz tells
# it stories of clients and a database, without and with tokens, and gives it
# files of options. So many of them that it takes some seconds, the same ones
# each time; FUZZ=SECONDS: new ones, so long for each of the three.

use strict;
use warnings;

use File::Copy 'copy';
use PostgreSQL::Test::Utils;
use Test::More;

my $root = $ENV{VOIDING_ROOT} // '.';
my $seconds = $ENV{FUZZ} // '';
plan skip_all => 'FUZZ=0' if $seconds eq '0';    # where there is no clang, and modes in which it would be the same once more
my $dir = $PostgreSQL::Test::Utils::tmp_check;

sub fuzz
{
  my ($name, $target, $seeds, $runs, $reaches, %env) = @_;
  my $program = "$root/build/fuzz-$target";
  my @how = $seconds ? "-max_total_time=$seconds" : ("-runs=$runs", '-seed=7');
  local %ENV = (%ENV, ASAN_OPTIONS => 'quarantine_size_mb=16', %env);
  my ($out, $err);

  system_or_bail('make', '-s', '-C', $root, "build/fuzz-$target", 'PG_CONFIG=' . ($ENV{PG_CONFIG} // 'pg_config'));
  mkdir "$dir/$name";
  IPC::Run::run([ $program, '-close_fd_mask=3', "-artifact_prefix=$dir/$name.", @how, "$dir/$name", $seeds ], '>', \$out, '2>', \$err);
  is($?, 0, "$name: nothing is found") || diag($err =~ /^((?:==|\S+:\d+:\d+: runtime error).*)/ms ? $1 : $err);
  my ($reached) = $err =~ /DONE +cov: (\d+)/;
  cmp_ok($reached // 0, '>', $reaches, "$name: it gets around");
  note($err =~ /^(Done .*)/m);
  return;
}

mkdir "$dir/sample";
copy("$root/src/gateway/voiding-gateway.conf", "$dir/sample/sample") or die;
fuzz('stories', 'gateway', "$root/test/fuzz/gateway", 15000, 800);
fuzz('tokens', 'gateway', "$root/test/fuzz/gateway", 15000, 700, TOKENS => 1);
fuzz('options', 'options', "$dir/sample", 100_000, 35);

done_testing();
