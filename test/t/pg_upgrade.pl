# pg_upgrade: a cluster with the extension in the middle of everything can be
# upgraded, and everything goes on afterwards.

use strict;
use warnings;

use Cwd;
use PostgreSQL::Test::Utils;
use Test::More;
use Voiding::Story;
use Voiding::Test;

my $old = new_node('old');
my $new = new_node('new', alone => 1);

new_database($old, 'busy');
begin_story($old, 'busy', 'billing', 'reports');
my $contents = contents($old, 'busy');
my $objects = objects($old, 'busy');
$_->stop for $old, $new;

# it leaves its files in the directory that it is started from
my $bin = $old->config_data('--bindir');
my $from = getcwd();
my @upgrade = ('pg_upgrade', '--no-sync', '-b', $bin, '-B', $bin, '-d', $old->data_dir, '-D', $new->data_dir,
  '-s', $new->host, '-p', $old->port, '-P', $new->port);

@upgrade = grep { $_ ne '--no-sync' } @upgrade unless `pg_upgrade --help` =~ /--no-sync/;
chdir PostgreSQL::Test::Utils::tempdir() or die "cannot change directory: $!";
command_like([ @upgrade, '--check' ], qr/Clusters are compatible/, 'the clusters are compatible');
command_ok(\@upgrade, 'upgraded');
chdir $from or die "cannot change directory: $!";

$new->start;
same_lines(contents($new, 'busy'), $contents, 'every row, every sequence');
same_lines(objects($new, 'busy'), $objects, 'every object');
goes_on($new, 'busy', 'billing', 'reports');
$new->stop;
done_testing();
