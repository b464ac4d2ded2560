# Voiding/Test.pm: what the TAP tests share: servers and databases with the
# extension, running the engine by hand or letting workers do it, and the
# questions that tests end with. SERVED=n and PRELOAD=1 in the environment are
# those of script/suites.
package Voiding::Test;

use strict;
use warnings;

use Exporter 'import';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

our @EXPORT = qw(new_node new_database row try_row drain serve by_hand settle poll_until invariants_hold
  same_lines error_of error_in heard pid_of settings_of
  kill_server);

my $workers = $ENV{SERVED} // 0;
my $preload = $ENV{PRELOAD} // 0;
my %served;     # databases that workers serve now
my %stopped;    # that they served before
$ENV{PGOPTIONS} = '-c voiding.workers=0' if $preload;

# A running server of its own, on a socket. Databases in "serve" are served by
# the preloaded launcher, if there is one; "alone": no busy database beside.
sub new_node
{
  my ($name, %settings) = @_;
  my $node = PostgreSQL::Test::Cluster->new($name);
  my @serve = ('beside', @{ delete $settings{serve} // [] });
  my $alone = delete $settings{alone};

  $node->init(extra => [ '-E', 'UTF8', '--locale=C.UTF-8' ]);
  %settings = (
    log_statement => 'none',
    max_prepared_transactions => 10,
    max_worker_processes => 64,
    timezone => "'UTC'",
    'voiding.workers' => 0,
    $preload
    ? (shared_preload_libraries => "'voiding'",
      'voiding.workers' => $workers,
      'voiding.databases' => "'" . join(',', @serve) . "'")
    : (),
    %settings);
  $node->append_conf('postgresql.conf', settings_of(%settings));
  $node->start;
  start_beside($node) if $workers && !$alone;
  return $node;
}

# A database that keeps workers busy while tests are stepped by hand in others.
sub start_beside
{
  my ($node) = @_;

  $node->safe_psql('postgres', 'CREATE DATABASE beside TEMPLATE template0');
  $node->safe_psql('beside', text_of('busy.sql'));
  serve($node, 'beside');
  return;
}

# a file of test/lib
sub text_of
{
  my ($name) = @_;

  (my $dir = __FILE__) =~ s{Voiding/Test\.pm$}{};
  return PostgreSQL::Test::Utils::slurp_file($dir . $name);
}

sub settings_of
{
  my (%settings) = @_;
  return join("\n", map { "$_ = $settings{$_}" } sort keys %settings);
}

# A database with the extension.
sub new_database
{
  my ($node, $db) = @_;

  $node->safe_psql('postgres', "CREATE DATABASE $db TEMPLATE template0");
  $node->safe_psql($db, 'CREATE EXTENSION voiding');
  return $db;
}

# What a query returns, columns separated by "|".
sub row
{
  my ($node, $db, $sql) = @_;
  return $node->safe_psql($db, $sql);
}

# The same of a server that may be down; undef: it cannot be asked. A psql whose
# server is gone does not read its query, and that ends a run with an error.
sub try_row
{
  my ($node, $db, $sql) = @_;
  my ($status, $stdout) = eval { $node->psql($db, $sql, timeout => 20, timed_out => \my $timed_out) };
  return defined $status && $status == 0 ? $stdout : undef;
}

# dispatch() by hand until it finds nothing to do; how much that was.
sub drain
{
  my ($node, $db, $arguments) = @_;
  my $sum = 0;

  for (1 .. 10_000)
  {
    my $n = $node->safe_psql($db, 'SELECT voiding.dispatch(' . ($arguments // '') . ')');
    return $sum if $n == 0;
    $sum += $n;
  }
  die 'dispatch() does not come to an end';
}

# From here on workers do it, if the environment says so.
sub serve
{
  my ($node, $db) = @_;

  return $db unless $workers;
  # preloaded, they come by themselves where the settings say so
  $node->safe_psql($db, "SET search_path = pg_catalog; SELECT voiding.start_workers($workers)")
    unless $preload && !$stopped{ $node->name . "/$db" } && is_launched($node, $db);
  $served{ $node->name . "/$db" } = 1;
  return $db;
}

# do those of the preloaded launcher come?
sub is_launched
{
  my ($node, $db) = @_;

  return 0 unless row($node, 'postgres', qq{SELECT 'yes' WHERE '$db' = ANY (string_to_array(current_setting('voiding.databases'), ','))});
  return poll_until(sub {
      row($node, $db, 'SET search_path = pg_catalog; SELECT count(pid) FROM voiding.worker') eq $workers }, 30)
    || die "the preloaded launcher does not serve $db";
}

# And from here on dispatch() does.
sub by_hand
{
  my ($node, $db) = @_;

  return unless delete $served{ $node->name . "/$db" };
  $node->safe_psql($db, 'SET search_path = pg_catalog; SELECT voiding.stop_workers()');
  $stopped{ $node->name . "/$db" } = 1;
  return;
}

# Let everything that can be done now be done; by hand in this session, if one is given.
sub settle
{
  my ($node, $db, $session) = @_;
  my $pending = 'SET search_path = pg_catalog; ' . text_of('pending.sql');

  if (!$served{ $node->name . "/$db" })
  {
    return drain($node, $db) unless $session;
    1 while $session->query_safe('SELECT voiding.dispatch()') ne '0';
    return;
  }
  poll_until(sub { row($node, $db, $pending) eq 'f' }, 60)
    or die "$db does not settle: " . row($node, $db, 'SELECT * FROM voiding.outbox');
  return;
}

# Call $condition until it says yes, at most so many seconds.
sub poll_until
{
  my ($condition, $limit) = @_;
  my $end = time + ($limit // $PostgreSQL::Test::Utils::timeout_default);

  while (time < $end)
  {
    return 1 if $condition->();
    usleep(10_000);
  }
  return 0;
}

# No breach of what must always hold, in the engine and these schemas.
sub invariants_hold
{
  my ($node, $db, $name, @schemas) = @_;
  local $Test::Builder::Level = $Test::Builder::Level + 1;

  @schemas = qw(billing reports) unless @schemas;
  my $sql = join "\nUNION ALL\n",
    map { "SELECT '$_', * FROM $_.check_invariants()" } 'voiding', @schemas;
  return is($node->safe_psql($db, $sql), '', "$name: invariants hold");
}

# SQLSTATE and message of the error that a statement ends with, or ''.
sub error_of
{
  my ($node, $db, $sql) = @_;
  my (undef, undef, $stderr) =
    $node->psql($db, $sql, extra_params => [ '-v', 'VERBOSITY=verbose' ]);
  return $stderr =~ /(?:ERROR|FATAL):  (.*)/ ? $1 : '';
}

# The same for a session that lives on (made with on_error_stop => 0).
sub error_in
{
  my ($session, $sql) = @_;

  $session->query($sql);
  my $stderr = $session->{stderr};
  $session->{stderr} = '';
  return $stderr =~ /(?:ERROR|FATAL):  (.*)/ ? $1 : '';
}

# Are two long texts the same? Only the lines in which they differ are shown.
sub same_lines
{
  my ($got, $expected, $name) = @_;
  local $Test::Builder::Level = $Test::Builder::Level + 1;
  my (%got, %expected);

  $got{$_}++ for split /\n/, $got;
  $expected{$_}++ for split /\n/, $expected;
  my @differ = sort grep { ($got{$_} // 0) != ($expected{$_} // 0) } keys %{ { %got, %expected } };
  return ok(@differ == 0 && $got ne '', $name)
    || diag(map { ($got{$_} ? 'got:      ' : 'expected: ') . "$_\n" } @differ);
}

# The notifications in what a psql session printed: [channel, payload] each.
sub heard
{
  my ($output) = @_;
  my @heard;

  while ($output =~ /^Asynchronous notification "([^"]+)"(?: with payload "(.*)")? received from server process/mg)
  {
    push @heard, [ $1, $2 ];
  }
  return @heard;
}

# As if the machine had gone: all processes of a server at once. (Those that
# outlive their postmaster for a moment stop waiting for a standby, and say so.)
sub kill_server
{
  my ($postmaster, @others) = @_;
  my @children;

  for my $stat (glob '/proc/[0-9]*/stat')
  {
    open my $f, '<', $stat or next;
    my ($pid, $parent) = (readline($f) // '') =~ /^(\d+) \(.*\) \S (\d+)/;
    push @children, $pid if defined $parent && $parent == $postmaster;
  }
  return kill 'KILL', @others, @children, $postmaster;
}

sub pid_of
{
  my ($session) = @_;
  return $session->query_safe('SELECT pg_backend_pid()');
}

1;
