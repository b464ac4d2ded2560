# The story that make demo tells: it goes well with its own documents and with
# anybody's file, however small and as spreadsheets write it; it adds up right;
# a file that cannot be used is refused with a reason; what goes wrong shows in
# the exit status. What goes on afterwards: all kinds of things happen, each is
# shown once, it goes on where it was, the console is served, and Ctrl-C leaves
# nothing behind.

use strict;
use warnings;

use File::Basename qw(dirname);
use HTTP::Tiny;
use IPC::Run;
use POSIX ();
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
like($out, qr/ERROR:  the last process "document_voiding" of "2026-4401" has failed and is not acknowledged/, 'a refusal');
is(row($node, 'demo', q{SELECT string_agg(format('%s %s %s', currency, voided, in_reports), ', ' ORDER BY currency) FROM demo.total}),
  'CHF 0 8118.35, EUR 3493.93 25171.48, GBP 88.00 1382.09', 'the totals that a person has added up');

# ---- it goes on ----

# run a command as the leader of a process group; its id
my ($said, $complained) = ("$dir/said", "$dir/complained");
sub start_group
{
  my ($env, @command) = @_;
  my $pid = fork() // die "fork: $!";

  return $pid if $pid;
  setpgrp(0, 0);
  $SIG{INT} = 'DEFAULT';    # whoever runs us may ignore it
  %ENV = (%ENV, %$env);
  open(STDIN, '<', '/dev/null');
  open(STDOUT, '>', $said);
  open(STDERR, '>', $complained);
  exec(@command) or POSIX::_exit(127);
}

# how a command has ended, as $?; undef if it does not
sub end_of
{
  my ($pid) = @_;
  my $status;

  return $status if poll_until(sub { waitpid($pid, POSIX::WNOHANG) == $pid and $status = $?, 1 }, 60);
  kill('KILL', -$pid);
  return undef;
}

sub go_on
{
  my (%env) = @_;
  return start_group({ PGHOST => $node->host, PGPORT => $node->port, DEMO_EVERY => 0.1, %env },
    "$ENV{VOIDING_ROOT}/script/story/go_on");
}

# documents of what goes on, by how their processes ended
sub ended
{
  my ($state) = @_;
  return split /\n/, row($node, 'demo', "SELECT key FROM voiding.finished_process WHERE key LIKE 'demo-%' AND state = '$state'");
}

sub lines_about
{
  my ($document) = @_;
  return join "\n", grep { /^\S+ +(?:billing|reports|process|voiding) +\w+ +\Q$document\E / } split /\n/, slurp_file($said);
}

$node->safe_psql('demo', q{SELECT billing.issue_document('demo-000003', 'somebody else', 1)});
my $pid = go_on();
ok(poll_until(sub { ended('DocumentVoided') > 2 && ended('FailureAcknowledged') > 0 }, 60),
  'documents are voided, and one is not: that is acknowledged');
my @voided = ended('DocumentVoided');
my @too_late = ended('FailureAcknowledged');
ok(poll_until(sub { !grep { lines_about($_) !~ /-> (?:DocumentVoided|FailureAcknowledged)$/m } @voided, @too_late }, 10), 'all of it is shown');
kill('TERM', -$pid);
is(end_of($pid), 130 << 8, 'a signal ends it');
is(slurp_file($complained), '', 'without noise');
for my $document (@voided, @too_late)
{
  is(lines_about($document), row($node, 'demo',
      qq{SET timezone = 'UTC'; SELECT l FROM voiding.event e, demo.lines(e) WITH ORDINALITY x(l, n)
         WHERE e.subject = '$document' AND e.position > (SELECT after FROM demo.cursor) ORDER BY e.position, n}), "$document: each line once, in order");
}
my $shown = slurp_file($said);
like($shown, qr/^\S+ +demo +calls +SELECT billing\.issue_document\('demo-000004', 'Cotswold Interiors', 326\.76, 'GBP'\)\n/m, 'what is called');
like($shown, qr/^\S+ +demo +refused +another document "demo-000003" has been issued already\n/m, 'what is refused');
is(row($node, 'demo', q{SELECT count(DISTINCT customer_id) FROM billing.document WHERE document_id ~ '^demo-00000[126]'}), '3', 'three customers in turn');
is(row($node, 'demo', qq{SELECT bool_and(l.status = 'included' AND r.status = 'published') FROM reports.report_line l JOIN reports.report r USING (report_id)
  WHERE document_id = ANY ('{@{[ join ',', @too_late ]}}')}), 't', 'what was voided too late is in a published report');
invariants_hold($node, 'demo', 'it went on');

# it is shown once, whenever it is committed, also while nobody looks
my $late = $node->background_psql('demo');
$late->query_safe(q{BEGIN; SELECT billing.issue_document('late', 'x', 1)});
$node->safe_psql('demo', q{SELECT billing.issue_document('unseen', 'x', 1)});
like(row($node, 'demo', 'SELECT demo.news()'), qr/ unseen +DocumentIssued/, 'what happened meanwhile');
$late->query_safe('COMMIT');
$late->quit;
my %before = map { $_ => 1 } ended('DocumentVoided');
$pid = go_on(SLOW_DOWN => 150);
ok(poll_until(sub { ended('DocumentVoided') > keys %before }, 60), 'started again, it goes on');
ok(poll_until(sub { lines_about('late') =~ /DocumentIssued/ }, 10), 'with what was written before and committed late');
my ($slow) = grep { !$before{$_} } ended('DocumentVoided');
is(lines_about($_), '', "$_ is not shown twice") for 'unseen', $voided[0];
cmp_ok(row($node, 'demo', qq{SELECT extract(epoch FROM min(e.at - e.before)) * 1000
    FROM (SELECT at, lag(at) OVER (ORDER BY step) AS before FROM voiding.process_history WHERE key = '$slow') e}),
  '>=', 150, 'SLOW_DOWN: so long from step to step');
$node->safe_psql('demo', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%demo.news()%' AND pid <> pg_backend_pid()});
is(end_of($pid), 1 << 8, 'when nothing can be shown any more it ends');
$node->safe_psql('demo', 'ALTER SYSTEM RESET voiding.slow_down');
$node->reload;

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

# ---- all of it, and Ctrl-C ----

for my $bad ([ SLOW_DOWN => 'x' ], [ SLOW_DOWN => 60001 ], [ DEMO_EVERY => 'soon' ])
{
  my $pid = start_group({@$bad}, "$ENV{VOIDING_ROOT}/script/demo");
  is(end_of($pid), 1 << 8, "@$bad: refused");
  like(slurp_file($complained), qr/\Ademo: $bad->[0] is .*\n\z/, "@$bad: and why");
}

# PGHOSTADDR: libpq would go there, whatever the host
my $short = PostgreSQL::Test::Utils::tempdir_short();
delete local @ENV{ grep { /^(?:MAKE|MFLAGS|PG_CONFIG|VOIDING_SANITIZE)/ } keys %ENV };
$pid = start_group({ TMPDIR => $short, DEMO_EVERY => 0.1, SLOW_DOWN => 150, PGHOSTADDR => '192.0.2.1' },
  'make', '-C', $ENV{VOIDING_ROOT}, 'demo');
my (@psql, $ended);
ok(poll_until(sub { @psql = split ' ', $1 if slurp_file($said) =~ /^ +(psql -h .*)$/m; @psql || ($ended = waitpid($pid, POSIX::WNOHANG)) }) && @psql,
  'make demo says how to look') or diag(slurp_file($said), slurp_file($complained));
like(slurp_file($said), qr/\ndemo: all checks hold\n/, 'after the checks');
my ($console) = slurp_file($said) =~ m{^ +(http://127\.0\.0\.1:\d+) +the console}m;
my $http = HTTP::Tiny->new(timeout => 30);
is($http->get("$console/")->{status}, 200, 'and where the console is');
is(scalar(() = $http->get("$console/reports")->{content} =~ /"report_id"/g) > 5, 1, 'which may read what it shows');
my $data = "$psql[2]/data";
my $server = -e "$data/postmaster.pid" ? (split /\n/, slurp_file("$data/postmaster.pid"))[0] : 0;

sub ask
{
  my ($sql) = @_;
  my ($answer, $err) = ('', '');

  IPC::Run::run([ @psql, '-XAtqc', $sql ], '>', \$answer, '2>', \$err);
  return $answer;
}
ok($ended || poll_until(sub { ask(q{SELECT count(*) > 0 FROM voiding.finished_process WHERE key LIKE 'demo-%'}) eq "t\n" }, 60),
  'that way one sees what happens');
cmp_ok(ask(q{SELECT extract(epoch FROM min(e.at - e.before)) * 1000 FROM (SELECT at, lag(at) OVER (PARTITION BY process_id ORDER BY step) AS before
    FROM voiding.process_history WHERE key LIKE 'demo-%') e}) || 0, '>=', 150, 'SLOW_DOWN');
kill('INT', -$pid);
my $status_of_make = $ended ? undef : end_of($pid);
ok(defined $status_of_make && (($status_of_make & 127) == POSIX::SIGINT || $status_of_make >> 8 == 130), 'Ctrl-C ends it: 130 for a shell')
  or diag($status_of_make);
like(slurp_file($complained), qr/\A(?:make.*\n)*\z/, 'without noise');
ok($server && !-e "/proc/$server/exe", 'the server has stopped');    # a zombie has no exe
is($http->get("$console/")->{status}, 599, 'so has the console');
is(join(' ', glob("$short/*")), '', 'nothing is left');
done_testing();
