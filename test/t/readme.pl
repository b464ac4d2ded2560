# What README.md shows is what happens: the psql sessions in it, the first of
# them after the line with "five minutes", are run in a fresh database, one
# after the other, and compared.
#
# A session is a fenced block marked psql: "=# " begins an input, "-# " goes on
# with it, what follows up to the next "=# " is what psql prints. "..." stands
# for anything in a line, in a line of its own for any number of lines. Blank
# lines, widths of columns and a prompt's database name do not count.

use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Voiding::Test;

my $mark = 'end of output ';

# the blocks of a text marked psql: [line, text, does "five minutes" stand before it]
sub blocks
{
  my ($text) = @_;
  my (@blocks, $at, $marked);
  my $n = 0;

  for my $line (split /\n/, $text)
  {
    $n++;
    if (!defined $at)
    {
      $marked = 1 if $line =~ /five minutes/i;
      if ($line =~ /^```psql\s*$/)
      {
        push @blocks, [ $n, '', $marked ];
        $at = $n;
      }
    }
    elsif ($line =~ /^```\s*$/)
    {
      undef $at;
    }
    else
    {
      $blocks[-1][1] .= "$line\n";
    }
  }
  die "README.md: the block at line $at has no end\n" if defined $at;
  return @blocks;
}

# the steps of a session: [line, input, output]
sub steps
{
  my ($line, $text) = @_;
  my @steps;

  for my $l (split /\n/, $text)
  {
    $line++;
    if ($l =~ /^\w*=[#>] ?(.*)/)
    {
      push @steps, [ $line, "$1\n", '' ];
    }
    elsif ($l =~ /^\w*[-('"][#>] ?(.*)/ && @steps && $steps[-1][2] eq '')
    {
      $steps[-1][1] .= "$1\n";
    }
    else
    {
      die "README.md, line $line: output before any input\n" unless @steps;
      $steps[-1][2] .= "$l\n";
    }
  }
  return @steps;
}

# lines without what does not count
sub plain
{
  my ($text) = @_;
  my @lines;

  for my $line (split /\n/, $text)
  {
    $line =~ s/-{3,}/-/g;
    $line =~ s/\s+/ /g;
    $line =~ s/^ | $//g;
    push @lines, $line if $line ne '';
  }
  return @lines;
}

sub pattern
{
  my $all = '';

  for my $line (plain($_[0]))
  {
    $all .= $line eq '...' ? '(?:.*\n)*?'
      : join('.*?', map { quotemeta } split /\.\.\./, $line, -1) . '\n';
  }
  return qr/\A$all\z/;
}

# ---- the test can tell right from wrong ----

like(join('', map { "$_\n" } plain(" a  |  b\n---+-----\n 17 | x\n(1 row)\n\n")),
  pattern("  a | b\n----+---\n ... | x\n(1 row)\n"), 'the same, but for an id and widths');
unlike("a\nb\n", pattern("a\n"), 'a line too many');
unlike("a\n", pattern("a\nb\n"), 'a line too few');
unlike("a 1\n", pattern("a 2\n"), 'another line');
like("a\nb\nc\nd\n", pattern("a\n...\nd\n"), 'lines left out');
is(scalar(blocks("five minutes\n```psql\n=# a\n```\n```sql\nb\n```\n```psql\n=# c\n```\n")), 2, 'blocks are found');

# ---- README.md ----

my $node = new_node('main');
$node->safe_psql('postgres', 'CREATE DATABASE readme TEMPLATE template0');
my $readme = -e "$ENV{VOIDING_ROOT}/README.md" ? slurp_file("$ENV{VOIDING_ROOT}/README.md") : '';
my @blocks = blocks($readme);
my @steps = map { steps($_->[0], $_->[1]) } @blocks;

ok(scalar(grep { $_->[2] } @blocks), 'README.md has a block marked psql after "five minutes"');
ok(@blocks && $blocks[0][2], 'and it is the first one');
cmp_ok(scalar(@steps), '>=', 6, 'that does something');

my $input = '\set VERBOSITY default' . "\n\\pset pager off\n\\encoding UTF8\n";
$input .= "$steps[$_][1]\n\\echo '$mark$_'\n" for 0 .. $#steps;
# both streams into one file, as on a screen
my $dir = PostgreSQL::Test::Utils::tempdir();
append_to_file("$dir/in.sql", $input);
IPC::Run::run([ 'sh', '-c', 'exec psql -X -d "$0" <"$1" >"$2" 2>&1', $node->connstr('readme'), "$dir/in.sql", "$dir/out" ]);
my $output = slurp_file("$dir/out");
$output =~ s/\A.*?Pager usage is off\.\n//s;
for my $i (0 .. $#steps)
{
  my ($line, $text, $expected) = @{ $steps[$i] };
  my $got = $output =~ s/\A(.*?)^\Q$mark$i\E\n//ms ? $1 : "(psql has ended)\n";
  my ($title) = split /\n/, $text;
  my $match = join('', map { "$_\n" } plain($got)) =~ pattern($expected);

  ok($match, "README.md, line $line: $title") || diag("printed:\n$got\nREADME.md:\n$expected");
}

my $installed = row($node, 'readme', q{SELECT count(*) FROM pg_extension WHERE extname = 'voiding'});
is($installed, '1', 'the extension is there');
invariants_hold($node, 'readme', 'after the README') if $installed;
$node->stop;
done_testing();
