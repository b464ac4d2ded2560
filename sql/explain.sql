-- explain.sql: why is it waiting?

CREATE FUNCTION voiding.explain(process_id uuid)
  RETURNS TABLE (aspect text, what text, detail text, at timestamptz)
  LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  p voiding.process;
BEGIN
  SELECT * INTO p FROM voiding.process x WHERE x.process_id = explain.process_id;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'there is no process %', process_id USING ERRCODE = 'VD04B';
  END IF;
  RETURN QUERY SELECT 'process', p.type || ' ' || p.key, format('version %s', p.version), p.started_at;
  RETURN QUERY SELECT 'state', p.state,
    CASE WHEN p.finished_at IS NOT NULL THEN format('ended: %s%s', p.outcome, coalesce(', ' || p.reason, ''))
         WHEN p.failed THEN 'failed, waits for acknowledgement' ELSE 'running' END,
    coalesce(p.finished_at, p.since);
  IF p.finished_at IS NOT NULL THEN
    RETURN;
  END IF;
  RETURN QUERY SELECT 'message', format('%s to %s', o.type, o.destination),
    CASE WHEN o.attempts = 0 THEN 'in the outbox' ELSE format('failed %s times: %s', o.attempts, o.error) END, o.available_at
    FROM voiding.outbox o WHERE o.correlation_id = p.process_id ORDER BY o.seq;
  RETURN QUERY SELECT 'dead letter', format('%s to %s', d.type, d.destination),
    format('%s; retry_message(''%s'') or discard_message(''%s'', reason)', d.error, d.id, d.id), d.failed_at
    FROM voiding.dead_letter d WHERE d.correlation_id = p.process_id ORDER BY d.seq;
  RETURN QUERY SELECT 'task', concat_ws(' ', t.type, nullif(t.state, 'ready'), 'by ' || t.owner), t.document::text, t.created_at
    FROM voiding.task t WHERE t.process_id = p.process_id AND t.ended_at IS NULL;
  RETURN QUERY SELECT 'deadline', ltrim(t.name, '@'), voiding.explain_transition(p, 'after', t.name), t.due_at
    FROM voiding.timer t WHERE t.process_id = p.process_id ORDER BY t.due_at;
  RETURN QUERY SELECT 'would move it', n.name, voiding.explain_transition(p, 'on', n.name), NULL::timestamptz
    FROM (SELECT DISTINCT t.name FROM voiding.transition t
           WHERE t.process_type = p.type AND t.version = p.version AND t.from_state = p.state AND t.trigger = 'on') n
   ORDER BY n.name;
  RETURN QUERY SELECT 'parked', e.type, format('since %s', e.parked_at), e.expires_at
    FROM voiding.parked_event e WHERE e.process_type = p.type AND e.key = p.key ORDER BY e.position;
END $$;
COMMENT ON FUNCTION voiding.explain(uuid) IS
  'what a process waits for and since when, what would move it, and what comes next';

CREATE FUNCTION voiding.explain_transition(p voiding.process, trigger text, name text) RETURNS text
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT string_agg(concat_ws(' ', CASE WHEN t.guard IS NOT NULL THEN 'if ' || t.guard || ':' END,
           CASE WHEN t.to_state IS NOT NULL THEN 'to ' || t.to_state WHEN t.actions = '{}' THEN 'is ignored' ELSE 'inside the state' END,
           CASE WHEN s.sent IS NOT NULL THEN 'sends ' || s.sent END), '; ' ORDER BY t.ordinal)
    FROM voiding.transition t
    JOIN voiding.process_type d ON d.name = t.process_type AND d.version = t.version
    LEFT JOIN LATERAL (
      SELECT string_agg(c ->> 'command', ', ') AS sent
        FROM jsonb_array_elements(coalesce(t.actions -> 'send', '[]') ||
                                  coalesce(d.compiled #> ARRAY['states', t.to_state, 'send'], '[]')) c) s ON true
   WHERE t.process_type = p.type AND t.version = p.version AND t.from_state = p.state
     AND t.trigger = explain_transition.trigger AND t.name = explain_transition.name
$$;
COMMENT ON FUNCTION voiding.explain_transition(voiding.process, text, text) IS 'internal';
