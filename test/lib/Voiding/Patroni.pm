# Voiding/Patroni.pm: a cluster of two nodes that Patroni runs, with the files of
# example/patroni and shorter times, and the etcd that they share. It is a
# PostgreSQL::Test::Cluster whose psql finds the leader.
package Voiding::Patroni;

use strict;
use warnings;

use Exporter 'import';
use File::Copy ();
use HTTP::Tiny;
use IPC::Run ();
use JSON::PP ();
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils ();
use Voiding::Test;

our @ISA = ('PostgreSQL::Test::Cluster');
our @EXPORT_OK = qw(missing_programs start_etcd);

use constant PASSWORD => 'only for this test';
use constant TIMES => (ttl => 10, loop_wait => 1, retry_timeout => 3);

my ($home, $etcd);
my %running;    # process id => what; ended with this test, at the latest
my @clusters;

# What is not installed here.
sub missing_programs
{
  return grep {
    my $program = $_;
    !grep { -x "$_/$program" } split /:/, $ENV{PATH};
  } qw(etcd patroni setpriv);
}

sub in_background
{
  my ($log, @command) = @_;
  my $pid = fork // die "fork: $!";

  if ($pid == 0)
  {
    open STDOUT, '>>', $log or POSIX::_exit(1);
    open STDERR, '>&', \*STDOUT or POSIX::_exit(1);
    exec 'setpriv', '--pdeathsig', 'KILL', @command or POSIX::_exit(1);
  }
  $running{$pid} = 1;
  return $pid;
}

# One for all, on the loopback.
sub start_etcd
{
  my ($client, $peer) = map { PostgreSQL::Test::Cluster::get_free_port() } 1 .. 2;

  mkdir($home = "$PostgreSQL::Test::Utils::tmp_check/patroni");
  $etcd = "127.0.0.1:$client";
  in_background("$home/etcd.log", 'etcd', '--data-dir', "$home/etcd", '--name', 'e', '--listen-client-urls', "http://$etcd",
    '--advertise-client-urls', "http://$etcd", '--listen-peer-urls', "http://127.0.0.1:$peer",
    '--initial-advertise-peer-urls', "http://127.0.0.1:$peer", '--initial-cluster', "e=http://127.0.0.1:$peer");
  return poll_until(sub { HTTP::Tiny->new(timeout => 2)->get("http://$etcd/health")->{success} }, 30);
}

# Patroni's settings: those that users copy, but sooner, and small.
sub write_settings
{
  my ($self) = @_;
  my %times = TIMES;
  my $text = PostgreSQL::Test::Utils::slurp_file("$ENV{VOIDING_ROOT}/example/patroni/cluster.yml");

  $text =~ s/^(\s+$_:) \d+$/$1 $times{$_}/m or die "cluster.yml has no $_" for keys %times;
  $text =~ s/^(\s+)(fsync: 'on')$/$1$2\n$1shared_buffers: 16MB\n$1max_wal_size: 256MB/m or die 'cluster.yml has no fsync';
  PostgreSQL::Test::Utils::append_to_file("$self->{home}/cluster.yml", $text);
  for my $file (qw(node drop-slots))
  {
    File::Copy::copy("$ENV{VOIDING_ROOT}/example/patroni/$file", "$self->{home}/$file") or die "$file: $!";
    chmod 0755, "$self->{home}/$file";
  }
  return;
}

# Two nodes, started.
sub new
{
  my ($class, $name) = @_;
  my $self = PostgreSQL::Test::Cluster::new($class, $name);

  $self->{home} = "$home/$name";
  mkdir $self->{home};
  write_settings($self);
  $self->{nodes} = [ map { { name => "$name$_", port => PostgreSQL::Test::Cluster::get_free_port(), rest => PostgreSQL::Test::Cluster::get_free_port() } } 1 .. 2 ];
  push @clusters, $self;
  $self->start_node($_) for @{ $self->{nodes} };
  return $self;
}

sub start_node
{
  my ($self, $node) = @_;
  local %ENV = (%ENV, PASSWORD => PASSWORD, ETCD => $etcd, BIN => $self->config_data('--bindir'));

  delete @ENV{qw(PGHOST PGPORT PGDATABASE PGUSER)};
  $node->{pid} = in_background("$self->{home}/$node->{name}.log", "$self->{home}/node", $self->name, $node->{name}, '127.0.0.1',
    $node->{port}, $node->{rest}, "$self->{home}/$node->{name}");
  return;
}

# ---- where it is ----

sub conninfo
{
  my ($self) = @_;
  return sprintf q{host=%s port=%s user=postgres password='%s' target_session_attrs=primary connect_timeout=3},
    join(',', map { '127.0.0.1' } @{ $self->{nodes} }), join(',', map { $_->{port} } @{ $self->{nodes} }), PASSWORD;
}

sub connstr
{
  my ($self, $db) = @_;
  return $self->conninfo . ' dbname=' . ($db // 'postgres');
}

# What a query returns; undef: there is nobody to ask. (psql() cannot bear that.)
sub ask_at
{
  my ($connstr, $sql) = @_;
  my ($out, $err) = ('', '');

  IPC::Run::run([ 'psql', '-XAtq', '-d', $connstr, '-c', $sql ], '<', \undef, '>', \$out, '2>', \$err) or return;
  chomp $out;
  return $out;
}

sub ask_leader
{
  my ($self, $sql) = @_;
  return ask_at($self->connstr, $sql);
}

# a node alone, whatever it is
sub ask_node
{
  my ($self, $node, $sql) = @_;
  return ask_at(sprintf(q{host=127.0.0.1 port=%s user=postgres password='%s' dbname=postgres}, $node->{port}, PASSWORD), $sql);
}

# what Patroni says: name => role, of those that run
sub roles
{
  my ($self) = @_;

  for my $node (@{ $self->{nodes} })
  {
    my $answer = HTTP::Tiny->new(timeout => 2)->get("http://127.0.0.1:$node->{rest}/cluster");

    next unless $answer->{success};
    return map { ($_->{name} => $_->{role}) } grep { $_->{state} =~ /^(?:running|streaming)$/ } @{ JSON::PP::decode_json($answer->{content})->{members} };
  }
  return;
}

# a leader, and a standby without which nothing is acknowledged
sub is_safe
{
  my ($self) = @_;
  my %roles = $self->roles;

  return join(' ', sort values %roles) eq 'leader sync_standby';
}

# ---- what is done to it ----

sub postmaster
{
  my ($self, $node) = @_;
  my $file = "$self->{home}/$node->{name}/data/postmaster.pid";

  return unless -s $file;
  my ($pid) = split /\n/, PostgreSQL::Test::Utils::slurp_file($file);
  return kill(0, $pid) ? $pid : ();
}

# The leader's Patroni and its server die together.
sub kill_leader
{
  my ($self) = @_;
  my %roles = $self->roles;
  my ($node) = grep { ($roles{ $_->{name} } // '') eq 'leader' } @{ $self->{nodes} };
  my ($postmaster) = $self->postmaster($node);

  kill_server($postmaster, $node->{pid});
  waitpid $node->{pid}, 0;
  delete $running{ $node->{pid} };
  return $node;
}

# By hand: the standby becomes the leader, in good order.
sub switch_over
{
  my ($self) = @_;
  my %roles = $self->roles;
  my ($leader) = grep { $roles{$_} eq 'leader' } keys %roles;
  my ($standby) = grep { $roles{$_} eq 'sync_standby' } keys %roles;
  my $answer = HTTP::Tiny->new(timeout => 60)->post("http://127.0.0.1:$self->{nodes}[0]{rest}/switchover",
    { content => JSON::PP::encode_json({ leader => $leader, candidate => $standby }), headers => { 'Content-Type' => 'application/json' } });

  return $answer->{success} ? '' : "$answer->{status} $answer->{content}";
}

# the end: nobody starts a server again, then there is none
sub stop_all
{
  kill 'KILL', keys %running;
  waitpid $_, 0 for keys %running;
  %running = ();
  for my $self (@clusters)
  {
    kill 'QUIT', $_ for map { $self->postmaster($_) } @{ $self->{nodes} };
    my $cluster = $self;
    poll_until(sub { !grep { $cluster->postmaster($_) } @{ $cluster->{nodes} } }, 20);
  }
  @clusters = ();
  return;
}

END
{
  local $?;
  stop_all();
}

1;
