# The example in example/movie: one command with a write side and a read side,
# and five ways to know when the movie can be shown. Each way says "processed"
# only when the resource is there, and tells of a failure as far as it can.

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;
use Voiding::Test;

my $root = $ENV{VOIDING_ROOT} // '.';
my $node = new_node('main', max_worker_processes => 20, 'voiding.retry_base' => 20);
my $db = new_database($node, 'movie');

$node->safe_psql($db, slurp_file("$root/example/movie/$_.sql")) for qw(movie five_ways);

sub work { $node->safe_psql($db, 'SELECT voiding.start_workers(2)'); return; }
sub rest { $node->safe_psql($db, 'SELECT voiding.stop_workers()'); return; }

sub status_of
{
  my ($movie) = @_;
  return row($node, $db, "SELECT string_agg(status, ',' ORDER BY seq) FROM voiding.command WHERE data ->> 'movie_id' = '$movie'");
}

# ---- 1: the future resource ----

is(row($node, $db, q{CALL front_end.poll_resource('m1', 'Alien', 1979, '100 ms')}), '', '1: nobody works: it is not there, and silence says nothing');
is(status_of('m1'), 'accepted', '1: the command is accepted');
is(row($node, $db, q{SELECT resource FROM voiding.command}), '/queries/movie?movie_id=m1', '1: and names the resource that will be there');
is(row($node, $db, q{SELECT (voiding.http('GET', '/queries/movie?movie_id=m1')).status}), '404', '1: over HTTP it is not found');
work();
is(row($node, $db, q{CALL front_end.poll_resource('m2', 'Solaris', 1972, '30 s')}),
  '{"year": 1972, "label": "Solaris (1972)", "title": "Solaris", "movie_id": "m2"}', '1: then it is there');
is(row($node, $db, q{SELECT (h).status, (h).body::jsonb ->> 'label' FROM (SELECT voiding.http('GET', resource) AS h FROM voiding.command WHERE data ->> 'movie_id' = 'm2') x}),
  '200|Solaris (1972)', '1: and over HTTP, at the address that the command has named');

# ---- 2: the status ----

is(row($node, $db, q{CALL front_end.poll_status('m3', 'Stalker', 1979, '30 s')}),
  '{"status": "command-processed", "resource": "/queries/movie?movie_id=m3"}', '2: processed, with the resource');
is(row($node, $db, q{SELECT label FROM catalogue.movie('m3')}), 'Stalker (1979)', '2: and it is there');
is(row($node, $db, q{CALL front_end.poll_status('m4', 'Stalker', 1979, '30 s')}),
  '{"status": "command-failed", "message": "Stalker (1979) is in the catalogue already"}', '2: failed: the read side says why');
is(row($node, $db, q{SELECT voiding.wait_until_idle('30 s'); SELECT status FROM movies.movie WHERE movie_id = 'm4'}), "t\nrefused", '2: and the write side knows');
is(row($node, $db, q{CALL front_end.poll_status('m5', 'Roundhay', 1788, '30 s')}),
  '{"status": "command-failed", "message": "in 1788 there were no movies"}', '2: failed: the write side says why');

# ---- 3: pushed ----

my $listener = $node->background_psql($db, on_error_stop => 0);
sub told_of
{
  my ($movies, $name) = @_;
  my $news = '';
  my %wanted = map { $_ => 1 } split /\n/, $movies;

  ok(poll_until(sub { $news .= $listener->query(q{SELECT * FROM front_end.news('page')}) . "\n"; !grep { $news !~ /^\Q$_\E$/m } keys %wanted }, 30), $name)
    || diag($news);
  return $news;
}
$listener->query('LISTEN voiding_command');
told_of("m1|processed\nm2|processed\nm3|processed\nm4|failed\nm5|failed", '3: who connects reads what has been');
my $sent = row($node, $db, q{SELECT voiding.send_command('CreateMovie', '{"movie_id": "m6", "title": "Brazil", "year": 1985}')});
my $output = '';
ok(poll_until(sub { $output .= $listener->query('SELECT 1'); grep { $_->[0] eq 'voiding_command' && $_->[1] =~ /\Q$sent\E/ } heard($output) }, 30),
  '3: a notification with its id comes');
is(told_of('m6|processed', '3: and the feed says what has become of it'), "m6|processed\n", '3: nothing else, and nothing twice');
$listener->quit;
row($node, $db, q{SELECT voiding.send_command('CreateMovie', '{"movie_id": "m7", "title": "Brazil", "year": 1985}'); SELECT voiding.wait_until_idle('30 s')});
is(row($node, $db, q{SELECT * FROM front_end.news('page')}), 'm7|failed', '3: it was away: the cursor has kept its place');

# ---- 4: a gateway that blocks ----

is(row($node, $db, q{CALL front_end.block('m8', 'Ran', 1985, '30 s')}),
  '{"year": 1985, "label": "Ran (1985)", "title": "Ran", "movie_id": "m8"}', '4: the answer is the whole resource');
like(row($node, $db, q{CALL front_end.block('m9', 'Ran', 1985, '30 s')}), qr/"detail": "Ran \(1985\) is in the catalogue already", "status": 422/,
  '4: or the problem');

# ---- 5: a limit of time ----

rest();
is(row($node, $db, q{CALL front_end.bff('key', 'm10', 'Ikiru', 1952, '50 ms')}), 'failed: no answer in time', '5: silence is failure');
is(row($node, $db, q{CALL front_end.bff('key', 'm10', 'Ikiru', 1952, '50 ms')}), 'failed: no answer in time', '5: again, and it is one command still');
is(status_of('m10'), 'accepted', '5: which goes on');
work();
is(row($node, $db, q{CALL front_end.bff('key', 'm10', 'Ikiru', 1952, '30 s')}), 'Ikiru (1952)', '5: the late success is there under the same key');
is(status_of('m10'), 'processed', '5: of the one command');
like(error_of($node, $db, q{CALL front_end.bff('key', 'm10', 'Ikiru', 1953, '1 s')}), qr/^VD09E/, '5: another movie under this key is refused');

# ---- what is true of all of them ----

is(row($node, $db, q{SELECT voiding.wait_until_idle('30 s')}), 't', 'nothing is left to do');
is(row($node, $db, q{SELECT c.data ->> 'movie_id', c.status, m.status, e.label FROM voiding.command c
    LEFT JOIN movies.movie m ON m.movie_id = c.data ->> 'movie_id' LEFT JOIN catalogue.entry e ON e.movie_id = m.movie_id
    WHERE (c.status = 'processed') IS DISTINCT FROM (m.status IS NOT DISTINCT FROM 'created') OR (c.status = 'processed') IS DISTINCT FROM (e.label IS NOT NULL)}), '',
  'write side, read side and commands agree');
is(row($node, $db, q{SELECT count(*) FROM voiding.check_invariants()}), '0', 'invariants hold');
$node->stop;
done_testing();
