# Voiding/Cost.pm: what work costs, in counts in which there is no clock: WAL,
# rows, buffer accesses, plans, all counted by PostgreSQL; and instructions,
# counted by valgrind. They are compared with a table of bounds.
package Voiding::Cost;

use strict;
use warnings;

use Exporter 'import';
use PostgreSQL::Test::Utils ();
use Test::More;

our @EXPORT = qw(read_bounds keeps_bounds bounds_left settings_for_counting run counters cost_of difference divided ratio
  no_instructions instructions);

# ---- bounds ----

# From a table with a line a bound: case, figure, what was measured, bound, remark.
sub read_bounds
{
  my ($table) = @_;
  my @bounds;

  for (grep { /^\s*[^#\s]/ } split /\n/, $table)
  {
    my ($case, $figure, $measured, $bound) = split;

    die "not a bound: $_\n" unless defined $bound && $bound =~ /^[0-9.]+$/ && $bound >= $measured;
    push @bounds, { case => $case, figure => $figure, measured => $measured, bound => $bound };
  }
  return @bounds;
}

sub short
{
  my ($number) = @_;
  return abs $number < 1000 ? 0 + sprintf '%.3f', $number : sprintf '%.0f', $number;
}

sub list_of
{
  my ($buffers) = @_;
  return join '', map { sprintf "%12s  %s\n", short($buffers->{$_}), $_ }
    sort { $buffers->{$b} <=> $buffers->{$a} } grep { $buffers->{$_} >= 0.05 } keys %$buffers;
}

# A test for each bound of a case: is it kept? And what there is to be known.
sub keeps_bounds
{
  my ($case, $cost, @bounds) = @_;
  local $Test::Builder::Level = $Test::Builder::Level + 1;
  my $exceeded = 0;

  note("$case: " . join ', ', map { "$_ " . short($cost->{$_}) } sort grep { !ref $cost->{$_} } keys %$cost);
  for my $b (grep { $_->{case} eq $case } @bounds)
  {
    my $got = $cost->{ $b->{figure} } // die "$case: nobody has counted $b->{figure}\n";

    $b->{tested} = 1;
    next if ok($got <= $b->{bound}, sprintf '%s: %s %s, at most %s', $case, $b->{figure}, short($got), $b->{bound});
    diag(sprintf 'measured: %s; bound: %s; when that was set: %s', short($got), @$b{qw(bound measured)});
    $exceeded++;
  }
  if ($cost->{where})
  {
    my $list = "$case: where the buffers were\n" . list_of($cost->{where});

    $exceeded ? diag($list) : note($list);
  }
  return $exceeded == 0;
}

# the bounds that nothing was compared with
sub bounds_left
{
  return join ', ', map { "$_->{case} $_->{figure}" } grep { !$_->{tested} } @_;
}

# ---- PostgreSQL's counters ----

# Settings of a server whose counters depend on the work alone.
sub settings_for_counting
{
  return (
    autovacuum => 'off',
    checkpoint_timeout => "'1h'",
    full_page_writes => 'off',
    jit => 'off',
    max_wal_size => "'4GB'",
    wal_level => 'replica',
    shared_preload_libraries => "'pg_stat_statements'",
    'pg_stat_statements.track' => 'all',
    'pg_stat_statements.track_planning' => 'on');
}

my $figures = q{
  SELECT f.* FROM pg_stat_wal w, pg_stat_database d, LATERAL (VALUES
    ('wal_bytes', w.wal_bytes), ('wal_records', w.wal_records), ('commits', d.xact_commit),
    ('inserts', d.tup_inserted), ('updates', d.tup_updated), ('deletes', d.tup_deleted),
    ('buffers', d.blks_hit + d.blks_read),
    ('rows_scanned', (SELECT sum(seq_tup_read) FROM pg_stat_user_tables)),
    ('entries_read', (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes)),
    ('catalog_scans', (SELECT sum(coalesce(seq_scan, 0) + coalesce(idx_scan, 0)) FROM pg_stat_sys_tables)),
    ('plans', (SELECT sum(plans) FROM public.pg_stat_statements)),
    ('plans_kept', (SELECT count(*) FROM pg_backend_memory_contexts WHERE name LIKE 'CachedPlan%'))) f
   WHERE d.datname = current_database()};

my $where = q{
  SELECT schemaname || '.' || relname, heap_blks_hit + heap_blks_read FROM pg_statio_user_tables
  UNION ALL SELECT schemaname || '.' || indexrelname, idx_blks_hit + idx_blks_read FROM pg_statio_user_indexes
  UNION ALL SELECT schemaname || '.' || relname, blks_hit + blks_read FROM pg_statio_user_sequences};

# What has been counted so far. A session writes its own down when it is told to.
sub counters
{
  my ($session) = @_;

  $session->query_safe('SELECT pg_stat_force_next_flush()');
  my $now = { map { split /\|/ } split /\n/, $session->query_safe($figures) };
  $now->{where} = { map { split /\|/ } split /\n/, $session->query_safe($where) };
  return $now;
}

# do something with each figure and the same one of another cost
sub each_figure
{
  my ($do, $cost, $other) = @_;
  return { map { $_ => ref $cost->{$_} ? each_figure($do, $cost->{$_}, $other->{$_}) : $do->($cost->{$_}, $other->{$_} // 0) } keys %$cost };
}

sub difference
{
  my ($more, $less) = @_;
  return each_figure(sub { $_[0] - $_[1] }, $more, $less);
}

sub divided
{
  my ($cost, $n) = @_;
  return each_figure(sub { $_[0] / $n }, $cost, {});
}

sub ratio
{
  my ($cost, $other) = @_;
  return each_figure(sub { $_[1] == 0 ? ($_[0] == 0 ? 1 : 1e9) : $_[0] / $_[1] }, $cost, $other);
}

# A session runs statements, each a transaction. Psql is not given more than a pipe holds.
sub run
{
  my ($session, @statements) = @_;

  $session->query_safe(join ";\n", splice @statements, 0, 500) while @statements;
  return;
}

# A session does some work; the cost of each of n parts of it, without that of counting.
sub cost_of
{
  my ($session, $n, $work) = @_;
  my @at = map { counters($session) } 1 .. 3;

  $work->();
  push @at, counters($session);
  return divided(difference(difference(@at[ 3, 2 ]), difference(@at[ 2, 1 ])), $n);
}

# ---- instructions ----

# Why they are not counted here, if so.
sub no_instructions
{
  return 'valgrind does not go together with a sanitizer' if $ENV{VOIDING_SANITIZE};
  return 'valgrind is not installed' if system('valgrind --version >/dev/null 2>&1') != 0;
  return '';
}

# Those of a backend that is alone: of each part [name, n, statements] for one
# of n. The server has been stopped.
sub instructions
{
  my ($node, $db, @parts) = @_;
  my $out = $node->basedir . '/callgrind';
  my %count;

  # before each call of this function, which nobody else calls, the counts go to a file
  open my $input, '>', "$out.in" or die "$out.in: $!";
  print $input map { "$_\n" } map { (@$_[ 2 .. $#$_ ], 'SELECT pg_backend_pid()') } @parts;
  close $input;
  system('sh', '-c', 'exec valgrind --tool=callgrind --dump-before=pg_backend_pid --callgrind-out-file="$1" \
    postgres --single -D "$2" -c shared_preload_libraries= "$3" <"$1.in" >"$1.log" 2>&1', 'sh', $out, $node->data_dir, $db) == 0
    or die "valgrind: see $out.log\n";
  for my $i (1 .. @parts)
  {
    my ($name, $n) = @{ $parts[ $i - 1 ] };

    PostgreSQL::Test::Utils::slurp_file("$out.$i") =~ /^summary: (\d+)/m or die "$out.$i has no sum\n";
    $count{$name} = $1 / $n;
  }
  return \%count;
}

1;
