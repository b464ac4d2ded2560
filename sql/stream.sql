-- stream.sql: the feed of events, and feeds and figures over HTTP.
--
-- A stream of server-sent events is a request that is asked again: its answer
-- is the next piece of text, and wait says with which Last-Event-ID to go on,
-- and which hint to wait for. Who wants no stream gets the same as JSON.

-- ---- the feed of events ----

CREATE FUNCTION voiding.read_events(after text DEFAULT NULL, batch_size integer DEFAULT 100, types text[] DEFAULT NULL)
  RETURNS TABLE (cursor text, event voiding.event)
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_as_engine';
COMMENT ON FUNCTION voiding.read_events(text, integer, text[]) IS
  'the feed: events since the cursor, of these types; resume with the cursor of the last row; a right to read all of them';

-- Where a window begins is looked for once; from there on, by position.
CREATE FUNCTION voiding.do_read_events(after text, batch_size integer, types text[]) RETURNS TABLE (cursor text, event voiding.event)
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  w     voiding.feed_window := voiding.feed_window(after, batch_size, '^[0-9]{1,18}$');
  start bigint;
  n     integer := 0;
BEGIN
  LOOP
    start := coalesce(w.seen::bigint, 0) + 1;
    IF start = 1 AND w.since IS NOT NULL THEN
      start := (SELECT min(x.position)
                  FROM (SELECT e.position FROM voiding.event e
                         WHERE e.xid >= pg_snapshot_xmin(w.since) AND e.xid < pg_snapshot_xmax(w.until)
                           AND pg_visible_in_snapshot(e.xid, w.until) AND NOT pg_visible_in_snapshot(e.xid, w.since)
                           AND (types IS NULL OR e.type = ANY (types)) OFFSET 0) x);
    END IF;
    FOR event IN
      SELECT e.* FROM voiding.event e
       WHERE e.position >= start
         AND (e.xid >= coalesce(pg_snapshot_xmin(w.since), '0'::xid8) AND e.xid < pg_snapshot_xmax(w.until)
              AND pg_visible_in_snapshot(e.xid, w.until) AND NOT coalesce(pg_visible_in_snapshot(e.xid, w.since), false)
              -- of a server that this is restored from: they were there before all else
              OR w.since IS NULL AND e.xid >= pg_snapshot_xmax(pg_current_snapshot()) AND e.xid IS DISTINCT FROM pg_current_xact_id_if_assigned())
         AND (types IS NULL OR e.type = ANY (types))
       ORDER BY e.position LIMIT batch_size LOOP
      n := n + 1;
      cursor := format('%s/%s/%s', w.since, w.until, event.position);
      RETURN NEXT;
    END LOOP;
    EXIT WHEN n > 0 OR w.is_last;
    w := voiding.next_window(w);
  END LOOP;
END $$;
COMMENT ON FUNCTION voiding.do_read_events(text, integer, text[]) IS 'internal';

CREATE FUNCTION voiding.feed_now() RETURNS text
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_as_engine';
COMMENT ON FUNCTION voiding.feed_now() IS 'a cursor for any feed: what comes from now on';

CREATE FUNCTION voiding.do_feed_now() RETURNS text
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$ SELECT format('%s/%s/0', w.until, w.until) FROM voiding.end_of_window((NULL, NULL, NULL, true)) w $$;
COMMENT ON FUNCTION voiding.do_feed_now() IS 'internal';

-- ---- streams ----

CREATE FUNCTION voiding.stream_text(id text, kind text, data jsonb) RETURNS text
  LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT 'id: ' || id || coalesce(E'\nevent: ' || kind, '') || E'\ndata: ' || data || E'\n\n' $$;
COMMENT ON FUNCTION voiding.stream_text(text, text, jsonb) IS 'a server-sent event; kind: null where it is an ordinary one';

-- feed: a query for (cursor, item), of $1 the cursor, $2 how many, $3 types.
-- item: its name in JSON; NULL: its members stand beside the cursor
CREATE FUNCTION voiding.feed_answer(q voiding.http_request, channel text, item text, feed text) RETURNS voiding.http_answer
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  streams boolean := coalesce(q.headers ->> 'accept' ~* '\mtext/event-stream\M', false);
  after   text := coalesce(q.headers ->> 'last-event-id', q.query ->> 'after');
  n       integer := least(greatest(coalesce((q.query ->> 'limit')::integer, 100), 1), 1000);
  types   text[] := string_to_array(nullif(q.query ->> 'types', ''), ',');
  said    text := '';
  more    text;
  items   jsonb;
  last    text;
  count   integer;
BEGIN
  IF q.query ->> 'types' !~ '^[A-Za-z0-9_.,-]*$' THEN
    RAISE EXCEPTION 'types are names with commas between them' USING ERRCODE = 'invalid_parameter_value';
  ELSIF streams AND after IS NULL THEN
    after := voiding.feed_now();
    said := E'retry: 1000\n' || voiding.stream_text(after, 'start', '{}');
  END IF;
  BEGIN
    EXECUTE format('SELECT count(*), (array_agg(x.cursor))[count(*)], CASE WHEN $4 THEN string_agg(voiding.stream_text(x.cursor, NULL, x.item), '''') END,
                           CASE WHEN NOT $4 THEN jsonb_agg(jsonb_build_object(''cursor'', x.cursor) || %s) END FROM (%s) x (cursor, item)',
                   CASE WHEN item IS NULL THEN 'x.item' ELSE format('jsonb_build_object(%L, x.item)', item) END, feed)
      INTO count, last, more, items USING after, n, types, streams;
  EXCEPTION WHEN SQLSTATE 'VD10A' THEN
    IF NOT streams THEN
      RAISE;
    END IF;
    after := voiding.feed_now();
    more := voiding.stream_text(after, 'stale-cursor', voiding.problem('VD10A', SQLERRM, 'Read what there is anew; the stream goes on from now.'));
  END;
  IF NOT streams THEN
    RETURN (200, NULL, jsonb_build_object('events', coalesce(items, '[]'), 'cursor', coalesce(last, after))::text, NULL)::voiding.http_answer;
  END IF;
  RETURN (200, '{"Content-Type": "text/event-stream"}'::jsonb, said || coalesce(more, ''),
    jsonb_build_object('then', q.path || coalesce('?types=' || (SELECT string_agg(DISTINCT t, ',' ORDER BY t) FROM unnest(types) t), ''),
      'cursor', coalesce(last, after), 'channel', channel, 'more', coalesce(count = n, false)))::voiding.http_answer;
END $$;
COMMENT ON FUNCTION voiding.feed_answer(voiding.http_request, text, text, text) IS 'the answer of a route that is a feed, as JSON or as a stream';

CREATE FUNCTION voiding.http_changes(q voiding.http_request) RETURNS voiding.http_answer
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT a.* FROM voiding.feed_answer(q, 'voiding_command', 'command',
    'SELECT c.cursor, voiding.command_object(c.command) FROM voiding.command_changes($1, $2) c') a
$$;
COMMENT ON FUNCTION voiding.http_changes(voiding.http_request) IS 'internal: a route';

CREATE FUNCTION voiding.http_events(q voiding.http_request) RETURNS voiding.http_answer
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT a.* FROM voiding.feed_answer(q, 'voiding_event', 'event',
    'SELECT e.cursor, voiding.cloudevent(e.event) FROM voiding.read_events($1, $2, $3) e') a
$$;
COMMENT ON FUNCTION voiding.http_events(voiding.http_request) IS 'internal: a route';

-- The cursor is the ETag of the status. Who has seen the last one is told that
-- there is nothing more to come (204): a browser does not connect again.
CREATE FUNCTION voiding.http_status_events(q voiding.http_request) RETURNS voiding.http_answer
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  c    voiding.command := voiding.command_status((q.parameters ->> 'command_id')::uuid);
  tag  text := c.status || '-' || c.xid;
  seen boolean := coalesce(q.headers ->> 'last-event-id' = tag, false);
  over boolean := c.status NOT IN ('accepted', 'running');
BEGIN
  IF over AND seen THEN
    RETURN (204, NULL, NULL, NULL)::voiding.http_answer;
  END IF;
  RETURN (200, '{"Content-Type": "text/event-stream"}'::jsonb,
    CASE WHEN seen THEN '' ELSE voiding.stream_text(tag, NULL, voiding.command_object(c)) END,
    CASE WHEN NOT over THEN jsonb_build_object('then', q.path, 'cursor', tag, 'channel', 'voiding_command', 'command_id', c.command_id) END)::voiding.http_answer;
END $$;
COMMENT ON FUNCTION voiding.http_status_events(voiding.http_request) IS 'internal: a route';

-- ---- figures ----

CREATE FUNCTION voiding.http_metrics(q voiding.http_request) RETURNS voiding.http_answer
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$ SELECT 200, '{"Content-Type": "application/openmetrics-text; version=1.0.0; charset=utf-8"}'::jsonb, voiding.metrics(), NULL::jsonb $$;
COMMENT ON FUNCTION voiding.http_metrics(voiding.http_request) IS 'internal: a route';
