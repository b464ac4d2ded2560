-- five_ways.sql: five ways to know when the movie of movie.sql can be shown.
--
-- Each is a procedure, or for the third a function, as a program in front of
-- the database would do it with single statements. Run movie.sql first. Workers
-- must serve the database: SELECT voiding.start_workers();

CREATE SCHEMA front_end;

-- 1. Poll the future resource. The command has named it when it was accepted;
-- the page asks for it until it is there. It never learns of a failure.
CREATE PROCEDURE front_end.poll_resource(movie_id text, title text, year integer, timeout interval, INOUT movie jsonb DEFAULT NULL)
  LANGUAGE plpgsql
AS $$
DECLARE
  ends timestamptz := clock_timestamp() + timeout;
BEGIN
  PERFORM voiding.send_command('CreateMovie', jsonb_build_object('movie_id', movie_id, 'title', title, 'year', year));
  COMMIT;
  LOOP
    movie := voiding.run_query('movie', jsonb_build_object('movie_id', movie_id));
    EXIT WHEN movie IS NOT NULL OR clock_timestamp() > ends;
    COMMIT;
    PERFORM pg_sleep(0.02);
  END LOOP;
END $$;

-- 2. Poll the status: command-processed, with the resource, or command-failed,
-- with a sentence for people.
CREATE PROCEDURE front_end.poll_status(movie_id text, title text, year integer, timeout interval, INOUT answer jsonb DEFAULT NULL)
  LANGUAGE plpgsql
AS $$
DECLARE
  ends timestamptz := clock_timestamp() + timeout;
  id   uuid := voiding.send_command('CreateMovie', jsonb_build_object('movie_id', movie_id, 'title', title, 'year', year));
  c    voiding.command;
BEGIN
  COMMIT;
  LOOP
    c := voiding.command_status(id);
    EXIT WHEN c.finished_at IS NOT NULL OR clock_timestamp() > ends;
    COMMIT;
    PERFORM pg_sleep(0.02);
  END LOOP;
  answer := CASE c.status
    WHEN 'processed' THEN jsonb_build_object('status', 'command-processed', 'resource', c.resource)
    WHEN 'failed' THEN jsonb_build_object('status', 'command-failed', 'message', c.error ->> 'detail')
    ELSE jsonb_build_object('status', c.status) END;
END $$;

-- 3. Be pushed. One connection does LISTEN voiding_command. A notification is a
-- hint: whoever gets one, or connects anew, reads the feed on from the cursor
-- that it has kept. Nothing is lost while it is away.
CREATE TABLE front_end.reader (name text PRIMARY KEY, cursor text);

CREATE FUNCTION front_end.news(reader text) RETURNS TABLE (movie_id text, status text)
  LANGUAGE plpgsql
AS $$
DECLARE
  r    front_end.reader;
  last text;
BEGIN
  INSERT INTO front_end.reader (name) VALUES (reader) ON CONFLICT DO NOTHING;
  SELECT * INTO r FROM front_end.reader x WHERE x.name = reader FOR UPDATE;
  last := r.cursor;
  FOR last, movie_id, status IN
    SELECT f.cursor, (f.command).data ->> 'movie_id', (f.command).status FROM voiding.command_changes(last) f LOOP
    IF status IN ('processed', 'failed', 'cancelled', 'expired') THEN
      RETURN NEXT;
    END IF;
  END LOOP;
  UPDATE front_end.reader x SET cursor = coalesce(last, r.cursor) WHERE x.name = reader;
END $$;

-- 4. A gateway that blocks, and answers with the whole resource.
CREATE PROCEDURE front_end.block(movie_id text, title text, year integer, timeout interval, INOUT answer jsonb DEFAULT NULL)
  LANGUAGE plpgsql
AS $$
DECLARE
  c voiding.command;
BEGIN
  CALL voiding.execute('CreateMovie', jsonb_build_object('movie_id', movie_id, 'title', title, 'year', year), timeout, NULL, c);
  answer := CASE c.status
    WHEN 'processed' THEN voiding.run_query('movie', jsonb_build_object('movie_id', movie_id))
    WHEN 'failed' THEN c.error
    ELSE jsonb_build_object('status', c.status, 'instance', '/commands/' || c.command_id) END;
END $$;

-- 5. A back end for the front end, with a limit of time: silence is failure. The
-- command goes on all the same. Who asks again with the same key gets the late
-- success, and no second movie.
CREATE PROCEDURE front_end.bff(key text, movie_id text, title text, year integer, timeout interval, INOUT answer text DEFAULT NULL)
  LANGUAGE plpgsql
AS $$
DECLARE
  c voiding.command;
BEGIN
  CALL voiding.execute('CreateMovie', jsonb_build_object('movie_id', movie_id, 'title', title, 'year', year), timeout, key, c);
  answer := CASE c.status
    WHEN 'processed' THEN voiding.run_query('movie', jsonb_build_object('movie_id', movie_id)) ->> 'label'
    WHEN 'failed' THEN 'failed: ' || (c.error ->> 'detail')
    ELSE 'failed: no answer in time' END;
END $$;
