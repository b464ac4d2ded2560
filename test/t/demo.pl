# The story that make demo tells: it goes well with its own documents and with
# anybody's file, however small and as spreadsheets write it; it adds up right;
# a file that cannot be used is refused with a reason; what goes wrong shows in
# the exit status.

use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Voiding::Test;

my $node = new_node('main');
my $dir = PostgreSQL::Test::Utils::tempdir();
my $header = 'document_id,customer_id,amount,currency,issued_at';

# tell the story; exit status, output, errors
sub tell_story
{
  my (@files) = @_;
  local $ENV{PGHOST} = $node->host;
  local $ENV{PGPORT} = $node->port;
  my ($out, $err) = ('', '');

  $node->safe_psql('postgres', 'DROP DATABASE IF EXISTS demo');
  IPC::Run::run([ "$ENV{VOIDING_ROOT}/script/story/tell", @files ], '>', \$out, '2>', \$err,
    IPC::Run::timeout(180));
  return ($? >> 8, $out, $err);
}

sub file
{
  my ($name, $text) = @_;

  open(my $fh, '>:raw', "$dir/$name") or die "$name: $!";
  print $fh $text;
  close($fh);
  return "$dir/$name";
}

sub holds
{
  my ($what, @files) = @_;
  my ($status, $out, $err) = tell_story(@files);

  is($status, 0, "$what: it ends well");
  like($out, qr/\ndemo: all checks hold\n\z/, "$what: and says so");
  unlike($out, qr/FAILED/, "$what: no check failed");
  is($err, '', "$what: no noise");
  invariants_hold($node, 'demo', $what);
  return $out;
}

# ---- its own documents ----

my $out = holds('its own documents');
my ($widest) = sort { $b <=> $a } map { my $l = $_; utf8::decode($l); length($l) } split /\n/, $out;
cmp_ok($widest, '<=', 100, 'a hundred columns are enough');
like($out, qr/^ +new +status voiding_requested\b.*?^ +event +DocumentVoidingRequested of billing\n +process +begins: VoidingRequested\n +command +MarkDocumentAsVoided/ms,
  'a row, its event, the process and the command that followed');
like($out, qr/ERROR:  the last voiding of document "2026-4401" has failed and is not acknowledged/, 'a refusal');
is(row($node, 'demo', q{SELECT string_agg(format('%s %s %s', currency, voided, in_reports), ', ' ORDER BY currency) FROM demo.total}),
  'CHF 0 8118.35, EUR 3493.93 25171.48, GBP 88.00 1382.09', 'the totals that a person has added up');

# ---- anybody's file ----

my $spreadsheet = qq{\xef\xbb\xbf$header\r\nA 1,"Smith, ""Jo""",0.10,GBP,2026-01-31\r\nA 2,"Smith, ""Jo""",0.2,GBP,2026-01-31\r\n} .
  qq{A 3,x,7.335,JPY,2026-02-01T00:00:00+09:00\r\n};
holds('a spreadsheet', file('spreadsheet.csv', $spreadsheet));
is(row($node, 'demo', q{SELECT string_agg(format('%s %s %s', currency, trim_scale(voided), trim_scale(in_reports)), ', ' ORDER BY currency) FROM demo.total}),
  'GBP 0 0.3, JPY 7.335 0', 'three documents: the last is voided, the others are published');
holds('one document', file('one.csv', "$header\n1,1,1,EUR,2026-01-01\n"));
is(row($node, 'demo', 'SELECT state FROM voiding.process'), 'FailureAcknowledged', 'one document: too late');

# ---- files that cannot be used ----

my %refused = (
  'no header' => [ "1,1,1,EUR,2026-01-01\n", qr/line 1: the first line must be \Q$header\E/ ],
  'nothing' => [ '', qr/there are no documents/ ],
  'a header alone' => [ "$header\n", qr/there are no documents/ ],
  'a column too few' => [ "$header\n1,1,1,EUR\n", qr/line 2: there are 4 columns, not 5/ ],
  'a negative amount' => [ "$header\n1,1,1,EUR,2026-01-01\n2,1,-1,EUR,2026-01-01\n", qr/line 3: the amount "-1" is not a number/ ],
  'no number' => [ "$header\n1,1,NaN,EUR,2026-01-01\n", qr/line 2: the amount "NaN" is not a number/ ],
  'no customer' => [ "$header\n1,,1,EUR,2026-01-01\n", qr/line 2: document_id or customer_id is empty/ ],
  'an open quote' => [ "$header\n1,\"1,1,EUR,2026-01-01\n", qr/line 2: a quoted field does not end/ ],
  'an unknown currency' => [ "$header\n1,1,1,XQX,2026-01-01\n", qr/cannot be loaded.*currency.*line 2/s ],
  'no time' => [ "$header\n1,1,1,EUR,soon\n", qr/cannot be loaded.*timestamp.*line 2/s ],
  'twice the same' => [ "$header\n1,1,1,EUR,2026-01-01\n1,1,1,EUR,2026-01-01\n", qr/cannot be loaded.*already exists.*line 3/s ],
  'bytes that are no text' => [ "$header\n1,\xff,1,EUR,2026-01-01\n", qr/cannot be loaded.*encoding.*line 2/s ]);

for my $what (sort keys %refused)
{
  my ($status, $said, $err) = tell_story(file('refused.csv', $refused{$what}[0]));

  is($status, 1, "$what: refused");
  like($err, $refused{$what}[1], "$what: and why");
  unlike($said, qr/all checks hold/, "$what: no good word");
}
my ($status, undef, $err) = tell_story("$dir/not there.csv");
is($status, 1, 'no file: refused');
like($err, qr/cannot read .*not there\.csv/, 'no file: and why');

# ---- what goes wrong shows ----

# a total that is off by a cent, in every database that is made from now on
$node->safe_psql('template1', q{
  CREATE FUNCTION public.off_by_a_cent() RETURNS event_trigger LANGUAGE plpgsql AS $$
  BEGIN
    IF to_regclass('demo.file') IS NOT NULL AND to_regclass('demo.off') IS NULL THEN
      CREATE TABLE demo.off ();
      UPDATE reports.customer_report SET total = total + 0.01 WHERE report_id = (SELECT min(report_id) FROM demo.published);
    END IF;
  END $$;
  CREATE EVENT TRIGGER off_by_a_cent ON ddl_command_end EXECUTE FUNCTION public.off_by_a_cent();
});
($status, $out) = tell_story();
is($status, 1, 'a cent too much: the exit status says so');
like($out, qr/FAILED   in reports \+ voided = the sum of the file/, 'a cent too much: the sum');
like($out, qr/FAILED   reports\.check_invariants\(\)/, 'a cent too much: the invariant');
unlike($out, qr/all checks hold/, 'a cent too much: no good word');

$node->stop;
done_testing();
