# streams.pl PORT STREAMS RATE SECONDS PID: open streams, send commands at a
# rate; print what each request took and how old each event was when it came
# (ms), and in the end the memory (kB) of the gateway, PID.
use strict;
use warnings;

use IO::Poll qw(POLLIN POLLHUP POLLERR);
use IO::Socket::INET;
use Time::HiRes qw(time);
use Time::Local qw(timegm);

my ($port, $streams, $rate, $seconds, $pid) = @ARGV;
my $poll = IO::Poll->new;
my (%stream, %sent, @idle);

sub open_one { return IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port) // die "cannot connect: $!" }

sub age
{
  my ($y, $mon, $d, $h, $min, $s, $us) = $_[0] =~ /(\d+)-(\d+)-(\d+)T(\d+):(\d+):(\d+)\.(\d+)Z/;
  return (time - timegm($s, $min, $h, $d, $mon - 1, $y) - "0.$us") * 1000;
}

sub take
{
  my ($socket) = @_;

  sysread $socket, my $text, 65536 or die 'a connection was closed';
  if ($stream{$socket})
  {
    printf "event %.3f\n", age($1) while $text =~ /"time": "([^"]+)"/g;
    return;
  }
  $text =~ m{^HTTP/1.1 202 } or die "refused: $text";
  printf "request %.3f\n", (time - delete $sent{$socket}) * 1000;
  push @idle, $socket;
  return;
}

for (1 .. $streams)
{
  my $socket = open_one();
  $stream{$socket} = $socket;
  print $socket "GET /events?types=DocumentVoidingRequested HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n";
  $socket->flush;
  sysread $socket, my $text, 4096;
  $text =~ m{^HTTP/1.1 200 } or die "no stream: $text";
  $poll->mask($socket => POLLIN);
}
for (1 .. 64)
{
  push @idle, open_one();
  $poll->mask($idle[-1] => POLLIN);
}
my ($n, $start) = (0, time);
my $mark = int $start;
while (time < $start + $seconds)
{
  if (time >= $start + $n / $rate && @idle)
  {
    my $i = $n++;
    # each fiftieth voids the document that was issued 25 before
    my $voids = $i % 50 == 49;
    my $body = $voids ? sprintf('{"document_id": "s%d-%d"}', $mark, $i - 25) : sprintf('{"document_id": "s%d-%d", "customer_id": "C", "amount": 5}', $mark, $i);
    my $socket = shift @idle;
    $sent{$socket} = time;
    syswrite $socket, 'POST /commands/' . ($voids ? 'VoidDocument' : 'IssueDocument') . " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: " . length($body) . "\r\n\r\n$body";
    next;
  }
  my $left = $start + $n / $rate - time;
  $poll->poll($left > 0 ? $left : 0.001);
  take($_) for $poll->handles(POLLIN | POLLHUP | POLLERR);
}
open my $status, '<', "/proc/$pid/status" or die;
/^RssAnon:\s+(\d+)/ and print "rss $1\n" while <$status>;
