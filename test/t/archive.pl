# Nothing is missing in the archive, whoever commits when: with writers that
# roll back, dawdle and are prepared, over restarts, and when a round of
# maintain() dies.
# By hand: sessions are held and killed.

use strict;
use warnings;

use Test::More;
use Voiding::Test;

my $node = new_node('main', restart_after_crash => 'on', alone => 1, 'voiding.task_retention' => 0);
my $db = new_database($node, 'archive');

$node->safe_psql($db, q{
  SELECT voiding.create_service('shop');
  CREATE FUNCTION public.say(type text, subject text DEFAULT 'x') RETURNS void LANGUAGE sql AS
    $$ SELECT voiding.emit(type, subject, jsonb_build_object('pid', pg_backend_pid()), 'shop') $$;
  SELECT voiding.create_task_type('errand', '{"service": "shop"}');
  CREATE FUNCTION public.task(key text) RETURNS void LANGUAGE plpgsql AS $$
  DECLARE
    t voiding.task := voiding.draft_task('errand', '{}', NULL, key, NULL);
  BEGIN
    t.task_id := voiding.uuid();
    t.correlation_id := voiding.uuid();
    PERFORM voiding.add_task(t);
    PERFORM voiding.cancel_task(t.task_id);
  END $$;
  -- some events each, in their order but not that of commits; one in five not at all
  CREATE PROCEDURE public.talk(rounds integer) LANGUAGE plpgsql AS $$
  BEGIN
    FOR i IN 1 .. rounds LOOP
      FOR j IN 1 .. 1 + i % 3 LOOP
        PERFORM public.say('Said', 'x' || i % 7);
        PERFORM public.task('y' || i % 7);
        BEGIN
          PERFORM public.say('Never');
          RAISE division_by_zero;
        EXCEPTION WHEN division_by_zero THEN
        END;
        PERFORM pg_sleep(random() * 0.004);
      END LOOP;
      IF random() < 0.2 THEN
        ROLLBACK;
      ELSE
        COMMIT;
      END IF;
    END LOOP;
  END $$;
  -- tasks that went before what was said of them came into the archive
  CREATE VIEW public.too_early AS
    SELECT u.* FROM voiding.unarchived_event u
     WHERE u.type = 'TaskCancelled' AND NOT EXISTS (SELECT FROM voiding.task t WHERE t.task_id = (u.data ->> 'task_id')::uuid);
  -- what the archive lacks, or has too much
  CREATE VIEW public.differs AS
    SELECT e.position, e.type FROM voiding.event e FULL JOIN voiding.archive a USING (position, subject, event_id)
     WHERE a.position IS NULL OR e.position IS NULL});

sub archived
{
  return row($node, $db, q{SELECT string_agg(type, ' ' ORDER BY position) FROM voiding.archive WHERE subject = 'x'});
}

sub complete
{
  my ($name) = @_;
  local $Test::Builder::Level = $Test::Builder::Level + 1;

  is(row($node, $db, 'SELECT * FROM public.differs'), '', "$name: the archive has each event, once");
  invariants_hold($node, $db, $name);
  return;
}

# ---- many at once ----

my @writers = map { $node->background_psql($db) } 1 .. 6;
my $rounds = 0;
my $too_early = '';
for my $w (@writers)
{
  $w->{stdin} .= "CALL public.talk(150);\n\\echo done\n";
  $w->{run}->pump_nb;
}
ok(poll_until(sub {
      $node->safe_psql($db, 'SELECT voiding.maintain()');
      $too_early .= $node->safe_psql($db, 'SELECT * FROM public.too_early');
      $rounds++;
      $_->{run}->pump_nb for @writers;
      return !grep { $_->{stdout} !~ /done/ } @writers;
    }, 120), 'writers have written');
cmp_ok(row($node, $db, 'SELECT position FROM voiding.archive_progress'), '>',
  row($node, $db, 'SELECT max(position) / 2 FROM voiding.event'), 'while they did, the archive has got on');
cmp_ok($rounds, '>', 10, 'in many rounds');
is($too_early, '', 'no task went before its events were archived');
cmp_ok(row($node, $db, q{SELECT count(*) FROM voiding.event WHERE type = 'TaskCancelled'}), '>',
  row($node, $db, 'SELECT count(*) FROM voiding.task') + 100, 'tasks went');
$node->safe_psql($db, 'SELECT voiding.maintain()');
is(row($node, $db, 'SELECT count(*) FROM voiding.task'), '0', 'and in the end all of them');
is(row($node, $db, q{SELECT count(*) FROM voiding.event WHERE type = 'Never'}), '0', 'what was rolled back never was');
complete('six writers');
$_->quit for @writers;

# ---- prepared, over a restart ----

sub restarted
{
  my ($how) = @_;

  $node->stop($how);
  $node->start;
  return;
}

for my $how (qw(fast immediate))
{
  my $before = archived() // '';
  $node->safe_psql($db, qq{BEGIN; SELECT public.say('Prepared'); PREPARE TRANSACTION 'p';});
  $node->safe_psql($db, q{SELECT public.say('Later')});
  $node->safe_psql($db, 'SELECT voiding.maintain()');
  is(archived(), ($before && "$before ") . 'Later', "$how: what can be seen is archived");
  restarted($how);
  $node->safe_psql($db, q{SELECT public.say('After')});
  $node->safe_psql($db, 'SELECT voiding.maintain()') for 1 .. 2;
  $node->safe_psql($db, q{COMMIT PREPARED 'p'});
  $node->safe_psql($db, 'SELECT voiding.maintain()');
  is(archived(), ($before && "$before ") . 'Prepared Later After', "$how: what was prepared follows");
  complete("prepared, and restarted ($how)");
}

# ---- a round that dies ----

my $before = archived();
$node->safe_psql($db, q{SELECT public.say('Died'); SELECT public.say('Died'); SELECT public.task('died')});
for my $how (qw(terminated killed))
{
  my $session = $node->background_psql($db);
  my $pid = pid_of($session);
  $session->query_safe('BEGIN');
  $session->query_safe('SELECT voiding.maintain()');
  is($session->query_safe(q{SELECT count(*) FROM voiding.archive WHERE type = 'Died'}), '2', "$how: it was done");
  is($session->query_safe('SELECT count(*) FROM voiding.task'), '0', "$how: and the task was purged");
  my $logged = -s $node->logfile;
  if ($how eq 'killed')
  {
    kill 'KILL', $pid;
    $node->wait_for_log(qr/database system is ready to accept connections/, $logged);
  }
  else
  {
    $node->safe_psql($db, "SELECT pg_terminate_backend($pid, 10000)");
  }
  # psql has lost its connection: that it says so is all that there is to say
  eval { $session->quit };
  is(archived(), $before, "$how: as if it had not been");
  is(row($node, $db, 'SELECT state, held_by FROM voiding.task_purge'), 'cancelled|events that are not archived', "$how: and the task is there");
}
$node->safe_psql($db, 'SELECT voiding.maintain()');
is(archived(), "$before Died Died", 'the next one does it');
is(row($node, $db, 'SELECT count(*) FROM voiding.task'), '0', 'and purges the task');
complete('after all');
$node->stop;
done_testing();
