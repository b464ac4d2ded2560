# The options of the gateway: --help, the table in the code, the sample
# configuration, the manual page, doc/gateway.md and the systemd unit agree,
# also when they are installed; the sample is read; the command line wins over it; mistakes are told.

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;

my $root = $ENV{VOIDING_ROOT} // '.';
my $dir = $PostgreSQL::Test::Utils::tmp_check;

sub run_it
{
  my ($out, $err) = ('', '');
  IPC::Run::run([ "$root/voiding-gateway", @_ ], '>', \$out, '2>', \$err);
  return $out . $err;
}

# name => [argument, meaning, default]
my %help = map { /^  --(\S+)(?: (\S+))? +(.*?)(?: \(([^()]*)\))?$/ ? ($1 => [ $2 // '', $3, $4 // '' ]) : () } split /\n/, run_it('--help');
my %of_all = map { $_ => delete $help{$_} } qw(config help version);
my $code = slurp_file("$root/src/gateway/option.c");
my %code = map { $_ => 1 } $code =~ /^\t(?:text|number|flag)\("([^"]+)"/mg;
cmp_ok(scalar keys %help, '>', 15, 'there are options');
is_deeply([ sort keys %help ], [ sort keys %code ], '--help has those of the table');

my (%sample, $says);
for (split /\n/, slurp_file("$root/src/gateway/voiding-gateway.conf"))
{
  $says = $_ if /^# /;
  $sample{$1} = [ $2, $says ] if /^(\S+) =(?: (.*))?$/;
}
is_deeply([ sort keys %sample ], [ sort keys %help ], 'the sample has each of them');
my $man = slurp_file("$root/src/gateway/voiding-gateway.1") =~ s/\\-/-/gr;
my $page = slurp_file("$root/doc/gateway.md");
for my $name (sort keys %help)
{
  my ($argument, $meaning, $default) = @{ $help{$name} };
  my $kept = $default ne '' ? $default : $argument eq '' ? 'no' : '';

  is($sample{$name}[0] // '', $kept, "sample: $name has its default");
  like($sample{$name}[1], qr/\Q$meaning\E/, "sample: and its meaning");
  like($man, qr/^\.B --\Q$name\E\Q@{[ $argument && " $argument" ]}\E\n\Q$meaning\E/m, "manual page: $name");
  like($man, qr/^\.B --\Q$name\E.*\n.*\(\Q$default\E\)$/m, "manual page: its default") if $default ne '';
  like($page, qr/^\| $name \| \Q$argument\E *\| \Q$default\E *\|/m, "doc/gateway.md: $name");
}
my @listed = grep { /[a-z]/ && $_ ne "option" } $page =~ /^\| ([a-z-]+) \| [^|]* \| [^|]* \| [^|]+ \|$/mg;
is_deeply([ sort @listed ], [ sort keys %help ], 'doc/gateway.md has no others');
my @manual = $man =~ /^\.B --(\S+)/mg;
is_deeply([ sort @manual ], [ sort(keys %help, keys %of_all), ], 'nor has the manual page');


# ---- what make install installs ----

my @make = ('make', '-s', '-C', $root, "DESTDIR=$dir/root", 'PG_CONFIG=' . ($ENV{PG_CONFIG} // 'pg_config'));
sub installed { my %at = map { m{([^/]+)$} ? ($1 => $_) : () } split /\n/, `find $dir/root -type f`; return \%at }
system_or_bail(@make, 'install-gateway');
my %at = %{ installed() };
is_deeply([ sort keys %at ], [ 'voiding-gateway', map { "voiding-gateway.$_" } qw(1 conf service) ], 'program, manual page, sample and unit are installed');
is(slurp_file($at{"voiding-gateway.$_"}), slurp_file("$root/src/gateway/voiding-gateway.$_"), "as they are: $_") for qw(1 conf);
my $unit = slurp_file($at{'voiding-gateway.service'});
my ($starts, $with) = $unit =~ /^ExecStart=(\S+) (.*)$/m;
is("$dir/root$starts", $at{'voiding-gateway'}, 'the unit starts the program where that is');
ok(-x "$dir/root$starts", 'and it can be started');
is_deeply([ grep { !$help{$_} && !$of_all{$_} } $with =~ /--(\S+)/g ], [], 'with options that there are');
like($at{'voiding-gateway.service'}, qr{/lib/systemd/system/}, 'where systemd looks');
like($unit, qr/^Documentation=man:voiding-gateway\(1\)$/m, 'and it names the manual page');
system_or_bail(@make, 'uninstall-gateway');
is_deeply(installed(), {}, 'and nothing of it stays');

my ($version) = slurp_file("$root/voiding.control") =~ /default_version = '(.*)'/;
is(run_it('--version'), "voiding-gateway $version\n", 'the version');

# ---- reading ----

my $sample = "$root/src/gateway/voiding-gateway.conf";
like(run_it('--config', $sample, '--pool', '0'), qr/^voiding-gateway: pool is a number from 1 to 200, not "0"$/, 'the sample is read, and the command line is, after it');
append_to_file("$dir/some.conf", "# a comment\n\n  pool = 7  \nlisten=0.0.0.0:1\nbehind-proxy = yes\n");
like(run_it('--config', "$dir/some.conf"), qr/needs tokens/, 'a file of options');
like(run_it('--listen', '127.0.0.1:x', '--config', "$dir/some.conf"), qr/cannot listen on 127\.0\.0\.1:x/, 'the command line wins, wherever it stands');
append_to_file("$dir/$_->[0].conf", $_->[1]) for [ odd => "pool = 7\nodd = 5\n" ], [ none => "pool\n" ], [ bad => "behind-proxy = perhaps\n" ];
like(run_it('--config', "$dir/odd.conf"), qr/odd\.conf, line 2: there is no option "odd"$/, 'an unknown name');
like(run_it('--config', "$dir/none.conf"), qr/line 1: it must be name = value$/, 'no value');
like(run_it('--config', "$dir/bad.conf"), qr/behind-proxy is yes or no, not "perhaps"$/, 'neither yes nor no');
like(run_it('--odd'), qr/try voiding-gateway --help$/, 'an unknown option');
like(run_it('odd'), qr/what is "odd"\?/, 'something that is no option');

done_testing();
