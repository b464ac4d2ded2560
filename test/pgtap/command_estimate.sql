-- command_estimate: when a command will be done moves with the past of its
-- type and with the queue in front of it.
-- By hand: messages are handled in the transaction of the test.

BEGIN;
SELECT plan(8);

CREATE SCHEMA regress_wash;
CREATE FUNCTION regress_wash.wash(n integer) RETURNS void LANGUAGE sql AS 'SELECT';
SELECT voiding.create_service('regress_wash');
SELECT voiding.create_command('RegressWash', 'regress_wash.wash');

-- the past: 100 that took so many seconds, so far apart
CREATE FUNCTION pg_temp.past(took double precision, gap double precision) RETURNS void LANGUAGE sql AS $$
  DELETE FROM voiding.command WHERE type = 'RegressWash' AND seq < 0;
  INSERT INTO voiding.command (command_id, type, status, data, accepted_at, finished_at, caller, bucket, seq, xid, gone)
  SELECT voiding.uuid(), 'RegressWash', 'processed', '{}', t - make_interval(secs => took), t, current_user, 0, -i, '3', false
    FROM generate_series(1, 100) i, LATERAL (SELECT voiding.now() - interval '1 day' + make_interval(secs => i * gap)) x(t)
$$;

-- seconds from now, rounded
CREATE FUNCTION pg_temp.seconds(command_id uuid) RETURNS integer LANGUAGE sql AS $$
  SELECT round(extract(epoch FROM voiding.estimate_command(command_id) - voiding.now()))::integer
$$;

SELECT voiding.send_command('RegressWash', '{"n": 1}') AS first \gset
SELECT is(voiding.estimate_command(:'first'), NULL, 'nothing is known of the first of its type');
SELECT pg_temp.past(40, 0);
SELECT is(pg_temp.seconds(:'first'), 40, 'it takes as long as those before it');
SELECT pg_temp.past(400, 0);
SELECT is(pg_temp.seconds(:'first'), 400, 'it moves with the past');

SELECT count(voiding.send_command('RegressWash', jsonb_build_object('n', i))) FROM generate_series(2, 30) i;
SELECT voiding.send_command('RegressWash', '{"n": 31}') AS last \gset
SELECT pg_temp.past(40, 10);
SELECT is(pg_temp.seconds(:'first'), 40, 'nothing is in front of the first');
SELECT is(pg_temp.seconds(:'last'), 40 + 30 * 10, 'thirty are in front of the last');
SELECT count(voiding.cancel_command(command_id)) FROM voiding.command WHERE type = 'RegressWash' AND (data ->> 'n')::integer BETWEEN 11 AND 30;
SELECT is(pg_temp.seconds(:'last'), 40 + 10 * 10, 'it moves with the queue');

SET LOCAL voiding.clock_offset = 3600;
SELECT ok(pg_temp.seconds(:'last') >= 0, 'it is never in the past');
RESET voiding.clock_offset;
SELECT voiding.dispatch();
SELECT is(voiding.estimate_command(:'first'), (voiding.command_status(:'first')).finished_at, 'of one that is done it is when it was');

SELECT * FROM finish();
ROLLBACK;
