-- stats.sql: figures to watch.

CREATE FUNCTION voiding.counters()
  RETURNS TABLE (service text, handled bigint, failed bigint, retried bigint, dead bigint)
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_counters';
COMMENT ON FUNCTION voiding.counters() IS 'internal: see stats';

CREATE FUNCTION voiding.serving()
  RETURNS TABLE (worker integer, pid integer, restarts integer, problem text)
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_serving';
COMMENT ON FUNCTION voiding.serving() IS 'internal: see worker';

CREATE VIEW voiding.worker AS
  SELECT s.worker, s.pid, a.backend_start AS started_at, a.state, a.query AS activity, s.restarts, s.problem
    FROM voiding.serving() s LEFT JOIN pg_stat_activity a USING (pid);
COMMENT ON VIEW voiding.worker IS 'background workers that serve this database';

-- Of what comes from other databases nobody knows yet for which service it is.
CREATE VIEW voiding.stats AS
  WITH queue (name) AS (
    SELECT s.name FROM voiding.service s WHERE s.known_as IS NULL
    UNION ALL SELECT 'arrival'::text AS name WHERE EXISTS (SELECT FROM voiding.service s WHERE s.known_as IS NOT NULL))
  SELECT c.name, jsonb_build_object('service', s.service) AS labels, c.value::numeric
    FROM voiding.counters() s,
         LATERAL (VALUES ('handled', s.handled), ('failed', s.failed), ('retried', s.retried), ('dead', s.dead)) c(name, value)
  UNION ALL
  SELECT 'pending', jsonb_build_object('service', s.name), count(o.id)
    FROM queue s LEFT JOIN voiding.outbox o ON o.destination = s.name GROUP BY s.name
  UNION ALL
  SELECT 'oldest_pending_seconds', jsonb_build_object('service', s.name),
         coalesce(round(extract(epoch FROM voiding.now() - min(o.created_at)), 3), 0)
    FROM queue s LEFT JOIN voiding.outbox o ON o.destination = s.name GROUP BY s.name
  UNION ALL
  SELECT 'connection_' || c.name, jsonb_build_object('service', x.service), c.value
    FROM voiding.connection x,
         LATERAL (VALUES ('sending', (x.sending = 'connected')::integer), ('receiving', (x.receiving = 'running')::integer), ('behind_bytes', x.behind_bytes)) c(name, value)
   WHERE c.value IS NOT NULL
  UNION ALL
  SELECT 'dead_letters', '{}', count(*) FROM voiding.dead_letter
  UNION ALL
  SELECT 'parked', '{}', count(*) FROM voiding.parked_event
  UNION ALL
  SELECT 'processes', jsonb_build_object('type', a.type, 'state', a.state), count(*)
    FROM voiding.active_process a GROUP BY a.type, a.state
  UNION ALL
  SELECT 'timer_lag_seconds', '{}',
         coalesce(round(extract(epoch FROM greatest(voiding.now() - min(t.due_at), interval '0')), 3), 0) FROM voiding.timer t WHERE NOT t.held
  UNION ALL
  SELECT 'workers', '{}', count(w.pid) FROM voiding.serving() w
  UNION ALL
  SELECT 'worker_restarts', '{}', coalesce(max(w.restarts), 0) FROM voiding.serving() w;
COMMENT ON VIEW voiding.stats IS
  'figures: handled, failed, retried, dead since the server started; what waits, how old it is, timer lag, workers';

CREATE FUNCTION voiding.metrics() RETURNS text
  LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'voiding_as_engine';
COMMENT ON FUNCTION voiding.metrics() IS 'the view stats as text of OpenMetrics, without its last line # EOF';

CREATE FUNCTION voiding.do_metrics() RETURNS text
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
  WITH figure AS (
    SELECT CASE WHEN s.name IN ('handled', 'failed', 'retried', 'dead') THEN 'voiding_messages_' ELSE 'voiding_' END || s.name AS name,
           CASE WHEN s.name IN ('handled', 'failed', 'retried', 'dead') THEN 'counter' ELSE 'gauge' END AS type, s.value,
           (SELECT '{' || string_agg(format('%s="%s"', l.key, replace(replace(replace(l.value, '\', '\\'), '"', '\"'), E'\n', '\n')), ',' ORDER BY l.key) || '}'
              FROM jsonb_each_text(s.labels) l) AS labels
      FROM voiding.stats s
  )
  SELECT string_agg(m.lines, '' ORDER BY m.name)
    FROM (SELECT f.name, format(E'# TYPE %s %s\n', f.name, f.type)
                 || string_agg(f.name || CASE f.type WHEN 'counter' THEN '_total' ELSE '' END || coalesce(f.labels, '') || ' ' || f.value || E'\n', '' ORDER BY f.labels) AS lines
            FROM figure f GROUP BY f.name, f.type) m
$$;
COMMENT ON FUNCTION voiding.do_metrics() IS 'internal';
