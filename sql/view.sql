-- view.sql: what people look at.

CREATE FUNCTION voiding.waits_for(type text, version integer, state text, failed boolean) RETURNS text
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT CASE WHEN failed THEN 'acknowledgement'
         ELSE string_agg(DISTINCT t.name, ' or ') FILTER (WHERE t.trigger = 'on') END
    FROM voiding.transition t
   WHERE t.process_type = waits_for.type AND t.version = waits_for.version AND t.from_state = waits_for.state
     AND (t.to_state IS NOT NULL OR t.actions <> '{}')
$$;
COMMENT ON FUNCTION voiding.waits_for(text, integer, text, boolean) IS 'internal';

CREATE VIEW voiding.ongoing_process AS
  SELECT a.process_id, a.type, a.key, a.state, a.failed, a.since,
         voiding.waits_for(a.type, a.version, a.state, a.failed) AS waits_for,
         a.started_at, a.version, a.data
    FROM voiding.active_process a;
COMMENT ON VIEW voiding.ongoing_process IS 'processes that run, and those that failed until they are acknowledged';

CREATE VIEW voiding.process_history AS
  SELECT p.process_id, p.type, p.key,
         row_number() OVER (PARTITION BY p.process_id ORDER BY e.position, s.n)::integer AS step,
         s.step ->> 'event' AS event, s.step ->> 'from' AS from_state, s.step ->> 'to' AS to_state,
         (SELECT string_agg(c, ', ') FROM jsonb_array_elements_text(s.step -> 'send') c) AS command,
         e.recorded_at AS at, e.actor, s.step ->> 'note' AS note, e.source, e.data, e.event_id, e.position
    FROM voiding.process p
    JOIN voiding.event e ON e.process_id = p.process_id
   CROSS JOIN LATERAL jsonb_array_elements(e.steps) WITH ORDINALITY AS s(step, n);
COMMENT ON VIEW voiding.process_history IS
  'a row for each step: the event, from which state to which, the commands sent; note: ignored, late, parked, was parked, discarded';
