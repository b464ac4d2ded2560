# Voiding/Test.pm: what the TAP tests share: servers and databases with the
# extension, running the engine by hand, and the questions that tests end with.
package Voiding::Test;

use strict;
use warnings;

use Exporter 'import';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

our @EXPORT = qw(new_node new_database row drain poll_until invariants_hold
  same_lines error_of error_in heard pid_of settings_of);

# A running server of its own, on a socket.
sub new_node
{
  my ($name, %settings) = @_;
  my $node = PostgreSQL::Test::Cluster->new($name);

  $node->init(extra => [ '-E', 'UTF8', '--locale=C.UTF-8' ]);
  %settings = (
    log_statement => 'none',
    max_prepared_transactions => 10,
    timezone => "'UTC'",
    'voiding.workers' => 0,
    %settings);
  $node->append_conf('postgresql.conf', settings_of(%settings));
  $node->start;
  return $node;
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

sub pid_of
{
  my ($session) = @_;
  return $session->query_safe('SELECT pg_backend_pid()');
}

1;
