# Voiding/Gateway.pm: voiding-gateway for the TAP tests: start it on any port,
# ask it, read its streams with curl, stop it. GATEWAY in the environment is
# another build of it.
package Voiding::Gateway;

use strict;
use warnings;

use Exporter 'import';
use HTTP::Tiny;
use IO::Socket::INET;
use JSON::PP;
use POSIX ();
use PostgreSQL::Test::Utils;
use Test::More;
use Voiding::Test;

our @EXPORT = qw(duties json_of);

my $root = $ENV{VOIDING_ROOT} // '.';
my $count = 0;

# Give duties of doc/privilege.md, as they stand there, to roles of their names.
sub duties
{
  my ($node, $db, @duties) = @_;
  my $page = slurp_file("$root/doc/privilege.md");

  for my $duty (@duties)
  {
    $node->safe_psql($db, "DO 'BEGIN CREATE ROLE $duty; EXCEPTION WHEN duplicate_object THEN NULL; END'");
    my @grants = $page =~ /^(GRANT [^;]* TO $duty;)$/mg;
    die "no grants for $duty" unless @grants;
    $node->safe_psql($db, join "\n", @grants);
  }
  return;
}

sub start
{
  my ($class, $node, $db, %options) = @_;
  my $user = delete $options{user} // 'postgres';
  my $program = delete $options{program} // $ENV{GATEWAY} // "$root/voiding-gateway";
  my $out = "$PostgreSQL::Test::Utils::tmp_check/gateway." . $$ . '.' . ++$count;
  my @arguments = ('--dsn', delete $options{dsn} // 'host=' . $node->host . ' port=' . $node->port . " dbname=$db user=$user");
  my $self = bless { out => $out, http => HTTP::Tiny->new(timeout => 90, max_redirect => 0, keep_alive => 0) }, $class;

  $options{listen} //= '127.0.0.1:0';
  push @arguments, $options{$_} eq 'yes' ? "--$_" : ("--$_", $options{$_}) for sort keys %options;
  $self->{pid} = fork;
  if (!$self->{pid})
  {
    open STDOUT, '>', $out or die;
    open STDERR, '>', "$out.log" or die;
    delete @ENV{qw(PGAPPNAME PGOPTIONS)};
    exec $program, @arguments or POSIX::_exit(127);
  }
  poll_until(sub { -s $out || waitpid($self->{pid}, POSIX::WNOHANG) > 0 }, 30) or die 'the gateway does not start';
  (my $said = slurp_file($out)) =~ /^listening on ((https?):\/\/\S+:(\d+))$/m or die 'the gateway has not started: ' . $self->log;
  @$self{qw(url port)} = ($1, $3);
  return $self;
}

sub is_ready
{
  my ($self) = @_;
  return poll_until(sub { $self->ask('GET', '/readyz')->{status} == 200 }, 30);
}

sub log
{
  my ($self) = @_;
  return slurp_file("$self->{out}.log");
}

# end it in good order; its exit status
sub stop
{
  my ($self, $signal) = @_;
  my $pid = delete $self->{pid} or return;

  kill $signal // 'TERM', $pid;
  poll_until(sub { waitpid($pid, POSIX::WNOHANG) > 0 }, 30) or do { kill 'KILL', $pid; waitpid $pid, 0; return 'it does not end' };
  return $?;
}

sub DESTROY
{
  my ($self) = @_;
  local $? = $?;
  kill 'KILL', $self->{pid} if $self->{pid};
  waitpid $self->{pid}, 0 if $self->{pid};
  kill 'KILL', $_ for @{ $self->{curls} // [] };
  waitpid $_, 0 for @{ $self->{curls} // [] };
  return;
}

# One request. Body: data, sent as JSON, or a text. The answer of HTTP::Tiny,
# and in "json" its body.
sub ask
{
  my ($self, $method, $path, $body, %headers) = @_;
  my %options = (headers => { ref $body ? ('Content-Type' => 'application/json') : (), %headers });

  $options{content} = ref $body ? encode_json($body) : $body if defined $body;
  my $answer = $self->{http}->request($method, $self->{url} . $path, \%options);
  $answer->{json} = eval { JSON::PP->new->utf8->allow_nonref->decode($answer->{content}) } if ($answer->{headers}{'content-type'} // '') =~ /json/;
  return $answer;
}

sub json_of
{
  my ($text) = @_;
  return JSON::PP->new->utf8->allow_nonref->decode($text);
}

# A figure of /metrics, or undef.
sub figure
{
  my ($self, $name) = @_;
  return $self->ask('GET', '/metrics')->{content} =~ /^\Q$name\E (\S+)$/m ? $1 : undef;
}

# What curl, another client, says; headers and body.
sub curl
{
  my ($self, @arguments) = @_;
  my ($path) = grep { m{^/} } @arguments;
  my @command = ('curl', '-sS', '-i', '--max-time', 60, map { $_ eq $path ? $self->{url} . $path : $_ } @arguments);
  my ($out, $err);

  IPC::Run::run(\@command, '>', \$out, '2>', \$err);
  $out =~ s/\r//g;
  return $out . $err;
}

# Read a stream with curl until it ends; a function that returns what has come.
sub stream
{
  my ($self, $path, @arguments) = @_;
  my $file = "$self->{out}.stream" . ++$count;
  my $pid = fork;

  if (!$pid)
  {
    open STDOUT, '>', $file or die;
    open STDERR, '>', "$file.err" or die;
    exec 'curl', '-sS', '-i', '-N', '-H', 'Accept: text/event-stream', @arguments, $self->{url} . $path or POSIX::_exit(127);
  }
  push @{ $self->{curls} }, $pid;
  return bless { file => $file, pid => $pid }, 'Voiding::Gateway::Stream';
}

# A connection with nothing said yet.
sub socket
{
  my ($self) = @_;
  return IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->{port}, Timeout => 10) // die "cannot connect: $!";
}

package Voiding::Gateway::Stream;

sub said
{
  my ($self) = @_;
  return -e $self->{file} ? PostgreSQL::Test::Utils::slurp_file($self->{file}) : '';
}

# the events in it: [id, kind, data] each
sub events
{
  my ($self) = @_;
  my @events;

  my $said = $self->said =~ s/\r//gr;

  while ($said =~ /\G(.*?)\n\n/gs)    # what is whole
  {
    my $part = $1;
    my ($id) = $part =~ /^id: (.*)$/m;
    my ($kind) = $part =~ /^event: (.*)$/m;
    my ($data) = $part =~ /^data: (.*)$/m;
    push @events, [ $id, $kind, Voiding::Gateway::json_of($data) ] if defined $data;
  }
  return @events;
}

sub has_ended
{
  my ($self) = @_;
  return waitpid($self->{pid}, POSIX::WNOHANG()) != 0;
}

sub stop
{
  my ($self) = @_;
  kill 'TERM', $self->{pid};
  waitpid $self->{pid}, 0;
  return;
}

1;
