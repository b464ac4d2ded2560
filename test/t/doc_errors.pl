# doc/errors.md and the code agree: every SQLSTATE of class VD that the code
# can raise is in its table, and every one in the table is in the code. So are
# the codes of PostgreSQL that the SQL files name.

use strict;
use warnings;

use Test::More;

my $root = $ENV{VOIDING_ROOT} // '.';

sub text_of
{
  my (@files) = @_;
  my $text = '';

  for my $file (@files)
  {
    open my $in, '<', $file or die "$file: $!";
    local $/ = undef;
    $text .= <$in>;
  }
  return $text;
}

my $header = text_of("$root/src/voiding.h");
my $c = text_of(glob("$root/src/*.c"));
my $sql = text_of(glob("$root/sql/*.sql"));
my $page = text_of("$root/doc/errors.md");

# ---- class VD ----

my (%in_code, %in_page, %name);

while ($header =~ /#define\s+(\w+)\s+MAKE_SQLSTATE\('(.)','(.)','(.)','(.)','(.)'\)/g)
{
  $name{$1} = "$2$3$4$5$6";
}
for my $macro (sort keys %name)
{
  my $used = $c =~ /\b$macro\b/;

  ok($used, "$macro, which the header defines, is used");
  $in_code{ $name{$macro} } = 1 if $used;
}
$in_code{$_} = 1 for $sql =~ /'(VD\d\d[A-Z])'/g, $c =~ /"(VD\d\d[A-Z])"/g;
$in_page{$_}++ for $page =~ /^\| (VD\d\d[A-Z]) \|/mg;

cmp_ok(scalar keys %in_code, '>', 5, 'the codes are found');
is_deeply([ sort keys %in_page ], [ sort keys %in_code ], 'the table has the codes of class VD that the code has, and no others');
is_deeply([ grep { $in_page{$_} > 1 } sort keys %in_page ], [], 'each of them once');
unlike($c, qr/MAKE_SQLSTATE/, 'codes are made in the header only');
is_deeply([ sort grep { !/^VD(04|09|10|22|25|29)[A-Z]$/ } keys %in_code ], [], 'all are of the digits that the page explains');
for my $line (grep { /^\| VD/ } split /\n/, $page)
{
  my @cells = split /\s*\|\s*/, $line;

  is(scalar @cells, 5, "$cells[1] has a meaning, who raises it, and what to do");
}

# ---- PostgreSQL's own ----

my %condition = map { $_ => 1 } $page =~ /^\| [0-9A-Z]{5} \| (\w+) \|/mg;
my %used = map { $_ => 1 } $sql =~ /ERRCODE = '([a-z_]+)'/g;
is_deeply([ grep { !$condition{$_} } sort keys %used ], [], 'every condition that the SQL files raise is on the page');

# those of C, whose macros have other names than the conditions
my %macro = (
  ERRCODE_FEATURE_NOT_SUPPORTED => '0A000',
  ERRCODE_NULL_VALUE_NOT_ALLOWED => '22004',
  ERRCODE_INVALID_PARAMETER_VALUE => '22023',
  ERRCODE_T_R_SERIALIZATION_FAILURE => '40001',
  ERRCODE_INSUFFICIENT_PRIVILEGE => '42501',
  ERRCODE_UNDEFINED_COLUMN => '42703',
  ERRCODE_RESERVED_NAME => '42939',
  ERRCODE_UNDEFINED_OBJECT => '42704',
  ERRCODE_DATATYPE_MISMATCH => '42804',
  ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE => '55000',
  ERRCODE_CONFIGURATION_LIMIT_EXCEEDED => '53400',
  ERRCODE_INVALID_TRANSACTION_TERMINATION => '2D000',
  ERRCODE_QUERY_CANCELED => '57014',
  ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED => '39P01');
# cannot happen, or are explained by their text alone
my %unlisted = map { $_ => 1 } qw(ERRCODE_INTERNAL_ERROR ERRCODE_UNDEFINED_TABLE ERRCODE_PROGRAM_LIMIT_EXCEEDED ERRCODE_TOO_MANY_ARGUMENTS);
my %raised = map { $_ => 1 } $c =~ /errcode\((ERRCODE_\w+)\)/g;
delete @raised{ keys %name };
is_deeply([ grep { !$macro{$_} && !$unlisted{$_} } sort keys %raised ], [], 'every code that C raises is known here');
for my $code (sort map { $macro{$_} // () } keys %raised)
{
  like($page, qr/^\| $code \|/m, "$code is on the page");
}

done_testing();
