# What README.md and the pages of doc/ show is what happens: the psql sessions in
# each of them are run in a fresh database, one after the other, and compared.
# README.md has one right after the line with "five minutes".
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

# ---- README.md, and the manual: each page in a database of its own ----

my $node = new_node('main', max_worker_processes => 20);

sub page_is_true
{
  my ($page, $db) = @_;
  my @steps = map { steps($_->[0], $_->[1]) } blocks(slurp_file("$ENV{VOIDING_ROOT}/$page"));
  my $input = '\set VERBOSITY default' . "\n\\pset pager off\n\\encoding UTF8\n";

  $node->safe_psql('postgres', "CREATE DATABASE $db TEMPLATE template0");
  $input .= "$steps[$_][1]\n\\echo '$mark$_'\n" for 0 .. $#steps;
  # both streams into one file, as on a screen
  my $dir = PostgreSQL::Test::Utils::tempdir();
  append_to_file("$dir/in.sql", $input);
  IPC::Run::run([ 'sh', '-c', 'exec psql -X -d "$0" <"$1" >"$2" 2>&1', $node->connstr($db), "$dir/in.sql", "$dir/out" ]);
  my $output = slurp_file("$dir/out");
  $output =~ s/\A.*?Pager usage is off\.\n//s;
  for my $i (0 .. $#steps)
  {
    my ($line, $text, $expected) = @{ $steps[$i] };
    my $got = $output =~ s/\A(.*?)^\Q$mark$i\E\n//ms ? $1 : "(psql has ended)\n";
    my ($title) = split /\n/, $text;
    my $match = join('', map { "$_\n" } plain($got)) =~ pattern($expected);

    ok($match, "$page, line $line: $title") || diag("printed:\n$got\n$page:\n$expected");
  }
  is(row($node, $db, q{SELECT count(*) FROM pg_extension WHERE extname = 'voiding'}), '1', "$page: the extension is there");
  return scalar @steps;
}

my @first = blocks(slurp_file("$ENV{VOIDING_ROOT}/README.md"));
ok(@first && $first[0][2], 'the first block marked psql of README.md stands after "five minutes"');
cmp_ok(page_is_true('README.md', 'readme'), '>=', 6, 'README.md does something');
invariants_hold($node, 'readme', 'after the README');
my $n = 0;
for my $page (sort glob "$ENV{VOIDING_ROOT}/doc/*.md")
{
  next unless slurp_file($page) =~ /^```psql/m;
  page_is_true($page =~ s{.*/doc/}{doc/}r, 'page' . $n++);
}
$node->stop;
done_testing();
