# Voiding/Three.pm: Billing, Reports and the manager of their processes in a
# cluster each, connected; and links between them that can be cut.
package Voiding::Three;

use strict;
use warnings;

use Exporter 'import';
use PostgreSQL::Test::Utils ();
use Test::More;
use Voiding::Test;

our @EXPORT = qw(three_clusters make_part connect_all connection connected cut_link mend_link all_arrived agree);

my %part = (billing => 'billing', reports => 'reports', manager => 'process');

# who takes what from whom: (here, there, arguments of connect_service() here)
my @connections = (
  [ 'billing', 'manager', q{events => '{DocumentVoidingRequested, DocumentVoided, DocumentVoidingAborted}'} ],
  [ 'billing', 'reports', q{events => '{DocumentIssued, DocumentVoided, DocumentVoidingAborted}'} ],
  [ 'reports', 'billing', '' ],
  [ 'reports', 'manager', q{events => '{MarkingDocumentAsVoidedSucceeded, MarkingDocumentAsVoidedFailed}'} ],
  [ 'manager', 'billing', q{commands => '{CompleteDocumentVoiding, AbortDocumentVoiding, RefuseDocumentVoiding}'} ],
  [ 'manager', 'reports', q{commands => '{MarkDocumentAsVoided}'} ]);

# Servers with the extension and its workers, and on each its part; not connected yet.
sub three_clusters
{
  my (%settings) = @_;
  my %three;

  for my $name (qw(billing reports manager))
  {
    my $node = $three{$name} = new_node($name, alone => 1, wal_level => 'logical', wal_writer_delay => '10ms',
      max_slot_wal_keep_size => '512MB', wal_retrieve_retry_interval => '100ms', max_logical_replication_workers => 8,
      max_wal_senders => 10, max_replication_slots => 10, 'voiding.retry_base' => 20, serve => ['postgres'], %settings);

    make_part($node, $name);
    $node->safe_psql('postgres', 'SELECT voiding.start_workers(1)');
  }
  return \%three;
}

# What a server is for. The manager's definition comes when it knows the others.
sub make_part
{
  my ($node, $name) = @_;

  $node->safe_psql('postgres', 'SET voiding.example = off; CREATE EXTENSION voiding');
  $node->safe_psql('postgres', "SELECT voiding.create_document_voiding_part('$part{$name}')") if $name ne 'manager';
  return;
}

# the socket of a server as one other sees it: a link that can be cut
sub link_of
{
  my ($three, $here, $there) = @_;
  my $dir = $three->{$there}->host;
  my $link = "$dir/$here";

  symlink '.', $link unless -l $link;
  return $link;
}

sub connection
{
  my ($three, $here, $there, $arguments) = @_;
  my $is_safe = $three->{$here}->can('is_safe');    # Patroni runs it
  my $conninfo = $is_safe ? $three->{$there}->connstr('postgres')
    : sprintf 'host=%s port=%s user=%s dbname=postgres', link_of($three, $here, $there), $three->{$there}->port, (getpwuid $<)[0];
  my @arguments = ($arguments || (), $is_safe ? q{synchronous_commit => 'on'} : ());

  $conninfo =~ s/'/''/g;
  return "CALL voiding.connect_service('$there', '$conninfo', '$here'" . join('', map { ", $_" } @arguments) . ')';
}

# Each connects to each, twice: the first time the other side does not send yet.
sub connect_all
{
  my ($three) = @_;

  for (1 .. 2)
  {
    $three->{ $_->[0] }->safe_psql('postgres', connection($three, @$_)) for @connections;
  }
  $three->{manager}->safe_psql('postgres', "SELECT voiding.create_document_voiding_part('process')");
  return ok(poll_until(sub { connected($three) }, 60), 'all are connected');
}

sub connected
{
  my ($three) = @_;
  my $sql = q{SELECT bool_and(sending = 'connected' AND receiving = 'running') FROM voiding.connection};

  return !grep { (try_row($three->{$_}, 'postgres', $sql) // '') ne 't' } keys %$three;
}

# What one has from another does not reach it any more, until that is mended.
sub cut_link
{
  my ($three, $here, $there) = @_;

  unlink link_of($three, $here, $there);
  try_row($three->{$there}, 'postgres', "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 'voiding_${there}_to_$here'");
  return;
}

sub mend_link
{
  my ($three, $here, $there) = @_;
  return link_of($three, $here, $there);
}

# Everything that was asked for has been answered, everywhere.
sub all_arrived
{
  my ($three, $limit) = @_;
  my %open = (
    billing => q{SELECT (SELECT count(*) FROM billing.document WHERE status = 'voiding_requested') + (SELECT count(*) FROM voiding.outbox)},
    reports => q{SELECT (SELECT count(*) FROM reports.report_line WHERE status = 'reserved') + (SELECT count(*) FROM voiding.outbox)},
    manager => q{SELECT (SELECT count(*) FROM voiding.active_process WHERE NOT failed) + (SELECT count(*) FROM voiding.outbox)});

  return poll_until(sub {
      # one after the other can look quiet while something is between them: what left must have arrived, too
      return 0 if grep { (try_row($three->{$_}, 'postgres', $open{$_}) // '') ne '0' } keys %open;
      return same_transfers($three);
    }, $limit // 60);
}

# has what left arrived, all of it, and nothing else?
sub same_transfers
{
  my ($three) = @_;
  my %seen;

  for my $name (keys %$three)
  {
    my $rows = try_row($three->{$name}, 'postgres',
      q{SELECT origin, destination, count(*), sum(hashtextextended(id::text, 0)) FROM voiding.transfer GROUP BY 1, 2 ORDER BY 1, 2});
    $seen{$_}++ for split /\n/, $rows // return 0;
  }
  return !grep { $_ != 2 } values %seen;
}

# What must hold between the three, besides what must hold in each.
sub agree
{
  my ($three, $name) = @_;
  local $Test::Builder::Level = $Test::Builder::Level + 1;
  my ($billing, $reports, $manager) = map { $three->{$_} } qw(billing reports manager);

  invariants_hold($billing, 'postgres', "$name, Billing", 'billing');
  invariants_hold($reports, 'postgres', "$name, Reports", 'reports');
  is(row($manager, 'postgres', 'SELECT * FROM voiding.check_invariants()'), '', "$name, manager: invariants hold");
  same_lines(row($billing, 'postgres', q{SELECT document_id FROM billing.document WHERE status = 'voided' UNION ALL SELECT ''}),
    row($reports, 'postgres', q{SELECT document_id FROM reports.report_line WHERE status = 'voided' UNION ALL SELECT ''}),
    "$name: what is voided here is voided there");
  same_lines(row($billing, 'postgres', q{SELECT document_id, amount FROM billing.document}),
    row($reports, 'postgres', q{SELECT document_id, amount FROM reports.report_line}), "$name: each document is in a report, once");
  same_lines(row($billing, 'postgres', q{SELECT correlation_id, subject FROM voiding.event WHERE type = 'DocumentVoided' UNION ALL SELECT NULL, ''}),
    row($manager, 'postgres', q{SELECT process_id, key FROM voiding.process WHERE state = 'DocumentVoided' UNION ALL SELECT NULL, ''}),
    "$name: each process that ended well voided its document, once");
  return;
}

1;
