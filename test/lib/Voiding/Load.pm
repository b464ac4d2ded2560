# Voiding/Load.pm: clients that issue, void and publish, each a process of its
# own with a psql that it opens again when the server has gone; and what they
# know compared with what the database says.
#
# A client's record is a file of its own: a line before each request, a line
# after its answer, fields separated by tabs:
#   ?  number  what  document or customer  customer  cents
#   =  number  answer ...                   done
#   !  number  SQLSTATE                     refused
#   x  number                               no answer: the connection was lost
package Voiding::Load;

use strict;
use warnings;

use Exporter 'import';
use IO::Select;
use IPC::Open2;
use List::Util qw(sum0);
use POSIX ();
use PostgreSQL::Test::Utils ();
use Test::More;
use Time::HiRes qw(usleep);
use Voiding::Test;

our @EXPORT = qw(start_clients lead_to stop_clients answers finished records_agree compare_records amount);

use constant CUSTOMERS => 11;
use constant ANSWER_WITHIN => 60;    # seconds

# ---- a client ----

sub connect_to
{
  my ($me) = @_;
  my ($out, $in);

  $me->{pid} = open2($out, $in, 'sh', '-c', 'exec psql -XAtq -v VERBOSITY=sqlstate -d "$1" 2>&1', 'sh',
    PostgreSQL::Test::Utils::slurp_file($me->{server}));
  @$me{qw(in out buffer)} = ($in, $out, '');
  return;
}

sub disconnect
{
  my ($me) = @_;

  close $me->{in};
  close $me->{out};
  waitpid($me->{pid}, 0);
  delete $me->{pid};
  return;
}

# The lines that a statement prints; undef when the connection is lost.
sub say_to_server
{
  my ($me, $sql) = @_;
  my ($select, $lines);

  connect_to($me) unless $me->{pid};
  local $SIG{PIPE} = 'IGNORE';
  syswrite($me->{in}, "$sql;\n\\echo .\n");
  $select = IO::Select->new($me->{out});
  while (!defined $lines)
  {
    $lines = $1 if $me->{buffer} =~ s/^(.*?)^\.\n//ms;
    last if defined $lines;
    die "no answer in time: $sql\n" unless $select->can_read(ANSWER_WITHIN);
    next if sysread($me->{out}, $me->{buffer}, 65536, length $me->{buffer});
    disconnect($me);
    usleep($me->{again} // 20_000);
    return;
  }
  return [ split /\n/, $lines ];
}

# A request: noted, sent, its answer noted; returns '=', '!' or 'x'.
sub request
{
  my ($me, $sql, @what) = @_;
  my $n = ++$me->{requests};
  my $server = $what[0] eq 'publish' && $me->{reports} || $me;

  print { $me->{record} } join("\t", '?', $n, @what), "\n";
  my @lines = grep { !/^(?:WARNING|NOTICE):/ } @{ say_to_server($server, $sql) // [ 'FATAL' ] };
  my $lost = grep { /^FATAL|server closed the connection|connection to server was lost/ } @lines;
  my ($sqlstate) = map { /^ERROR:  (\w+)/ } @lines;
  my @answer = $lost ? ('x', $n) : $sqlstate ? ('!', $n, $sqlstate) : ('=', $n, @lines);
  print { $me->{record} } join("\t", @answer), "\n";
  disconnect($server) if $lost && $server->{pid};
  return $answer[0];
}

sub amount
{
  my ($cents) = @_;
  return sprintf('%d.%02d', $cents / 100, $cents % 100);
}

sub issue
{
  my ($me) = @_;
  my $document = "$me->{name}/" . ++$me->{documents};
  my $customer = 'c' . int(rand CUSTOMERS);
  my $cents = int(rand 100_000);
  my $patient = rand() < 0.5;
  my $outcome;

  do
  {
    $outcome = request($me, sprintf("SELECT document_id FROM billing.issue_document('%s', '%s', %s)", $document, $customer, amount($cents)),
      'issue', $document, $customer, $cents);
  } while ($outcome eq 'x' && $patient && !$me->{stopping}->());
  push @{ $me->{mine} }, $document if $outcome eq '=';
  return;
}

sub void
{
  my ($me) = @_;
  my $i = int rand @{ $me->{mine} };
  my $document = $me->{mine}[$i];
  my $patient = rand() < 0.5;
  my $outcome;

  do
  {
    $outcome = request($me, "SELECT billing.void_document('$document', 'load')", 'void', $document);
  } while ($outcome eq 'x' && $patient && !$me->{stopping}->());
  splice @{ $me->{mine} }, $i, 1 if $outcome eq '!';    # it has failed before
  return;
}

sub publish
{
  my ($me) = @_;
  my $customer = 'c' . int(rand CUSTOMERS);

  request($me, "SELECT report_id, total FROM reports.publish_report('$customer')", 'publish', $customer);
  return;
}

sub client
{
  my ($me, $seed, $pause) = @_;

  srand $seed;
  open $me->{record}, '>', $me->{file} or die "$me->{file}: $!";
  $me->{record}->autoflush;
  until ($me->{stopping}->())
  {
    my $dice = rand;

    $dice < 0.5 || !@{ $me->{mine} } ? issue($me) : $dice < 0.92 ? void($me) : publish($me);
    usleep($pause);
  }
  $_->{pid} && disconnect($_) for $me, $me->{reports} // ();
  return;
}

# ---- all of them ----

# Where clients connect to, from now on.
sub lead_to
{
  my ($load, $node, $db) = @_;

  open my $server, '>', "$load->{server}.new" or die "$load->{server}: $!";
  print $server $node->connstr($db);
  close $server;
  rename "$load->{server}.new", $load->{server} or die "$load->{server}: $!";
  return;
}

# Begin: so many clients, with files in dir, whose documents are called name;
# reports: the node where they publish, if it is another one; again: us before
# they connect again.
sub start_clients
{
  my (%o) = @_;
  my $stop = "$o{dir}/stop";
  my $load = { stop => $stop, server => "$o{dir}/server", files => [], pids => [] };
  my $parent = $$;

  mkdir $o{dir};
  unlink $stop;
  lead_to($load, $o{node}, $o{db});
  lead_to({ server => "$load->{server}.reports" }, $o{reports}, $o{db}) if $o{reports};
  for my $i (1 .. $o{clients})
  {
    my $me = { name => "$o{name}$i", file => "$o{dir}/$o{name}$i", mine => [], stopping => sub { -e $stop || getppid != $parent }, server => $load->{server},
      again => $o{again} };

    $me->{reports} = { server => "$load->{server}.reports", again => $o{again} } if $o{reports};
    push @{ $load->{files} }, $me->{file};
    my $pid = fork // die "fork: $!";
    if ($pid == 0)
    {
      my $ok = eval { client($me, $o{seed} * 100 + $i, $o{pause} // 1000); 1 };
      print STDERR "# client $i: $@" unless $ok;
      POSIX::_exit($ok ? 0 : 1);
    }
    push @{ $load->{pids} }, $pid;
  }
  return $load;
}

# how many answers they have had so far
sub answers
{
  my ($load) = @_;
  my $n = 0;

  for my $file (@{ $load->{files} })
  {
    open my $record, '<', $file or next;
    $n += grep { /^[=!]/ } <$record>;
    close $record;
  }
  return $n;
}

# Let them end; whether each did as it should.
sub stop_clients
{
  my ($load, $name) = @_;
  local $Test::Builder::Level = $Test::Builder::Level + 1;

  open my $stop, '>', $load->{stop} or die "$load->{stop}: $!";
  close $stop;
  my $bad = grep { waitpid($_, 0); $? != 0 } @{ $load->{pids} };
  return is($bad, 0, "$name: each client had an answer in time, or none because the connection was lost");
}

# ---- the end of it ----

# Nothing is under way any more.
sub finished
{
  my ($node, $db, $name, $limit) = @_;
  local $Test::Builder::Level = $Test::Builder::Level + 1;

  return ok(poll_until(sub { row($node, $db, q{SELECT NOT EXISTS (SELECT FROM voiding.outbox)
        AND NOT EXISTS (SELECT FROM voiding.ongoing_process WHERE NOT failed)}) eq 't' }, $limit // 60), "$name: everything is finished")
    || diag(row($node, $db, 'SELECT destination, type, attempts, error, available_at - voiding.now(), count(*) FROM voiding.outbox GROUP BY 1, 2, 3, 4, 5 LIMIT 20')
      . "\n" . row($node, $db, 'SELECT state, count(*) FROM voiding.ongoing_process GROUP BY 1')
      . "\n" . row($node, $db, 'SELECT * FROM voiding.worker'));
}

# All that the clients wrote down: each request with its answer.
sub read_records
{
  my ($load) = @_;
  my @all;

  for my $file (@{ $load->{files} })
  {
    my %request;

    open my $record, '<', $file or die "$file: $!";
    while (<$record>)
    {
      chomp;
      my ($mark, $n, @rest) = split /\t/;
      if ($mark eq '?')
      {
        push @all, $request{$n} = { what => \@rest, mark => '?', answer => [] };
        next;
      }
      @{ $request{$n} }{qw(mark answer)} = ($mark, \@rest);
    }
    close $record;
  }
  return @all;
}

# What was asked for and answered, by document and by customer.
sub by_subject
{
  my ($load, $complaints) = @_;
  my (%document, %customer);
  my %permitted = (issue => '', void => 'VD09B', publish => 'VD04C');

  for my $r (read_records($load))
  {
    my ($what, $subject, $owner, $cents) = @{ $r->{what} };
    my $s = $what eq 'publish' ? ($customer{$subject} //= {}) : ($document{$subject} //= {});

    $s->{"$what asked"}++;
    @$s{qw(customer cents)} = ($owner, $cents) if $what eq 'issue';
    push @{ $s->{"$what done"} }, @{ $r->{answer} } if $r->{mark} eq '=';
    push @$complaints, "$what $subject: $r->{answer}[0]" if $r->{mark} eq '!' && $r->{answer}[0] ne $permitted{$what};
    push @$complaints, "$what $subject: the client ended in the middle" if $r->{mark} eq '?';
  }
  return (\%document, \%customer);
}

sub check_document
{
  my ($complain, $known, $there, $given_up) = @_;
  my %processes = map { $_ => 1 } grep { !$given_up->{$_} } @{ $known->{'void done'} // [] };

  if (!$there)
  {
    $complain->('issued, and not there') if $known->{'issue done'};
    return;
  }
  return $complain->('nobody has issued it') unless $known && $known->{'issue asked'};
  my ($customer, $amount, $status, $process, $state, $line, $report) = @$there;
  $complain->("customer $customer") if $customer ne $known->{customer};
  $complain->("amount $amount") if $amount ne amount($known->{cents});
  $complain->("accepted by two processes: @{[ keys %processes ]}") if keys %processes > 1;
  $complain->("accepted by $_, is with $process") for grep { $_ ne $process && !$given_up->{$process} } keys %processes;
  $complain->("nobody wanted process $process") if $process ne '' && !$known->{'void asked'};
  my $is = "$status $state $line $report";
  my $wanted = $process eq '' ? qr/^issued  included (?:open|published)$/
    : qr/^(?:voided DocumentVoided voided |issued MarkingDocumentAsVoidedFailed included published)$/;
  $complain->($is) unless $is =~ $wanted;
  return;
}

sub check_reports
{
  my ($complaints, $customers, $published) = @_;

  for my $customer (sort keys %$customers)
  {
    my $known = $customers->{$customer};
    my %there = map { $_->[0] => $_->[1] } @{ $published->{$customer} // [] };

    for (@{ $known->{'publish done'} // [] })
    {
      my ($report, $total) = split /\|/;
      push @$complaints, "report $report of $customer: told $total, is " . ($there{$report} // 'not published')
        if ($there{$report} // '') ne $total;
    }
    push @$complaints, "customer $customer: more reports published than asked for"
      if keys %there > ($known->{'publish asked'} // 0);
  }
  return;
}

# Does what the clients know agree with the database? Everything is finished.
sub records_agree
{
  my ($node, $db, $load, $name) = @_;
  local $Test::Builder::Level = $Test::Builder::Level + 1;
  my %there = map { my ($id, @rest) = split /\|/, $_, -1; ($id => \@rest) } split /\n/, row($node, $db, q{
    SELECT d.document_id, d.customer_id, d.amount, d.status, d.process_id, p.state, l.status, r.status
      FROM billing.document d LEFT JOIN voiding.process p USING (process_id)
      LEFT JOIN reports.report_line l ON l.document_id = d.document_id
      LEFT JOIN reports.report r ON r.report_id = l.report_id});
  my $accepted = compare_records($load, \%there, {}, $node, $db, $name);
  is(row($node, $db, q{SELECT type, subject, count(*) FROM voiding.event
      WHERE type IN ('DocumentIssued', 'DocumentVoidingRequested', 'DocumentVoided', 'MarkingDocumentAsVoidedSucceeded',
        'MarkingDocumentAsVoidedFailed', 'ReportPublished') GROUP BY 1, 2 HAVING count(*) > 1 LIMIT 5}), '', "$name: nothing was said twice");
  is(row($node, $db, q{SELECT sum(amount) FROM billing.document}),
    row($node, $db, q{SELECT sum(amount) FROM reports.report_line}), "$name: Reports has all that Billing has");
  return $accepted;
}

# What clients know, and what is there: of each document its customer, amount,
# status, process, that one's state, and the status of its line and report.
# given_up: processes that were accepted, and then refused by their manager.
sub compare_records
{
  my ($load, $there, $given_up, $reports, $db, $name) = @_;
  local $Test::Builder::Level = $Test::Builder::Level + 1;
  my @complaints;
  my ($documents, $customers) = by_subject($load, \@complaints);
  my %published;

  push @{ $published{ $_->[0] } }, [ @$_[ 1, 2 ] ]
    for map { [ split /\|/ ] } split /\n/, row($reports, $db, q{SELECT customer_id, report_id, total FROM reports.report WHERE status = 'published'});
  for my $id (sort keys %{ { %$documents, %$there } })
  {
    check_document(sub { push @complaints, "$id: @_" }, $documents->{$id}, $there->{$id}, $given_up);
  }
  check_reports(\@complaints, $customers, \%published);
  my $accepted = grep { $_->{'void done'} } values %$documents;
  note(sprintf '%s: %d documents, %d voids accepted, %d publications', $name, scalar keys %$there, $accepted,
    sum0(map { scalar @{ $_->{'publish done'} // [] } } values %$customers));
  splice @complaints, 20, @complaints - 20, sprintf('... %d in all', scalar @complaints) if @complaints > 20;
  is(join("\n", @complaints), '', "$name: what the clients know is true, and they met no other error than they should");
  return $accepted;
}

1;
