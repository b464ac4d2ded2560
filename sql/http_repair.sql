-- http_repair.sql: routes of http() for those who look after processes: what
-- one waits for, what its type is like, and messages that need a person.

CREATE FUNCTION voiding.http_explain(q voiding.http_request) RETURNS voiding.http_answer
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT 200, NULL::jsonb, jsonb_build_object('explanation', jsonb_agg(to_jsonb(x) - 'ordinality' ORDER BY x.ordinality))::text, NULL::jsonb
    FROM voiding.explain((q.parameters ->> 'process_id')::uuid) WITH ORDINALITY x
$$;
COMMENT ON FUNCTION voiding.http_explain(voiding.http_request) IS 'internal: a route';

CREATE FUNCTION voiding.http_process_type(q voiding.http_request) RETURNS voiding.http_answer
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  wanted integer := q.query ->> 'version';
  t      voiding.process_type;
BEGIN
  SELECT * INTO t FROM voiding.process_type x
   WHERE x.name = q.parameters ->> 'process_type' AND (wanted IS NULL OR x.version = wanted) ORDER BY x.version DESC LIMIT 1;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'process type "%" does not exist', concat_ws(' version ', q.parameters ->> 'process_type', wanted) USING ERRCODE = 'undefined_object';
  END IF;
  RETURN (200, NULL, jsonb_build_object('type', t.name, 'version', t.version, 'description', t.definition ->> 'description',
    'states', (SELECT jsonb_agg(jsonb_build_object('name', s.key, 'kind', coalesce(s.value ->> 'type', 'ordinary'),
                        'sends', (SELECT jsonb_agg(voiding.long_form(i, 'command') ->> 'command') FROM voiding.items(s.value #> '{entry,send}') i)) ORDER BY s.key)
                 FROM jsonb_each(t.definition -> 'states') s),
    'transitions', (SELECT jsonb_agg(to_jsonb(x) - '{process_type,version,ordinal,actions}'::text[] ORDER BY x.from_state, x.trigger, x.name, x.ordinal)
                      FROM voiding.transition x WHERE x.process_type = t.name AND x.version = t.version))::text, NULL)::voiding.http_answer;
END $$;
COMMENT ON FUNCTION voiding.http_process_type(voiding.http_request) IS 'internal: a route';

-- ---- messages ----

CREATE FUNCTION voiding.http_dead_letters(q voiding.http_request) RETURNS voiding.http_answer
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
  WITH d AS MATERIALIZED (
    SELECT x.* FROM voiding.dead_letter x
     WHERE (NOT q.query ? 'type' OR x.type = q.query ->> 'type') AND (NOT q.query ? 'key' OR x.aggregateid = q.query ->> 'key'))
  SELECT 200, NULL::jsonb, jsonb_build_object('total', (SELECT count(*) FROM d), 'dead_letters', coalesce(jsonb_agg(
           jsonb_build_object('message_id', p.id, 'type', p.type, 'key', p.aggregateid, 'source', p.source, 'destination', p.destination,
             'process_type', CASE WHEN p.destination = 'voiding' THEN p.aggregatetype END, 'process_id', p.correlation_id, 'attempts', p.attempts,
             'created_at', p.created_at, 'failed_at', p.failed_at, 'sqlstate', p.sqlstate, 'error', p.error, 'data', p.payload)
           ORDER BY p.seq, p.destination, p.aggregatetype), '[]'))::text, NULL::jsonb
    FROM (SELECT * FROM d ORDER BY d.seq, d.destination, d.aggregatetype
           LIMIT least(greatest(coalesce((q.query ->> 'limit')::integer, 50), 1), 500)) p
$$;
COMMENT ON FUNCTION voiding.http_dead_letters(voiding.http_request) IS 'internal: a route';

CREATE FUNCTION voiding.http_parked_events(q voiding.http_request) RETURNS voiding.http_answer
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
  WITH e AS MATERIALIZED (
    SELECT x.* FROM voiding.parked_event x
     WHERE (NOT q.query ? 'type' OR x.type = q.query ->> 'type') AND (NOT q.query ? 'key' OR x.key = q.query ->> 'key'))
  SELECT 200, NULL::jsonb, jsonb_build_object('total', (SELECT count(*) FROM e), 'parked_events', coalesce(jsonb_agg(
           jsonb_build_object('event_id', p.event_id, 'type', p.type, 'key', p.key, 'source', p.source, 'subject', p.subject,
             'process_type', p.process_type, 'process_id', p.process_id, 'parked_at', p.parked_at, 'expires_at', p.expires_at, 'data', p.data)
           ORDER BY p.position, p.process_type), '[]'))::text, NULL::jsonb
    FROM (SELECT * FROM e ORDER BY e.position, e.process_type
           LIMIT least(greatest(coalesce((q.query ->> 'limit')::integer, 50), 1), 500)) p
$$;
COMMENT ON FUNCTION voiding.http_parked_events(voiding.http_request) IS 'internal: a route';

CREATE FUNCTION voiding.http_retry(q voiding.http_request) RETURNS voiding.http_answer
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT 200, NULL::jsonb, jsonb_build_object('receivers', voiding.retry_message((q.parameters ->> 'message_id')::uuid, q.body ->> 'reason'))::text, NULL::jsonb
$$;
COMMENT ON FUNCTION voiding.http_retry(voiding.http_request) IS 'internal: a route';

CREATE FUNCTION voiding.http_discard(q voiding.http_request) RETURNS voiding.http_answer
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT 200, NULL::jsonb, jsonb_build_object('receivers', voiding.discard_message((q.parameters ->> 'message_id')::uuid, q.body ->> 'reason'))::text, NULL::jsonb
$$;
COMMENT ON FUNCTION voiding.http_discard(voiding.http_request) IS 'internal: a route';

CREATE FUNCTION voiding.http_retry_parked(q voiding.http_request) RETURNS voiding.http_answer
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT 200, NULL::jsonb, jsonb_build_object('taken', voiding.retry_parked_event((q.parameters ->> 'event_id')::uuid))::text, NULL::jsonb
$$;
COMMENT ON FUNCTION voiding.http_retry_parked(voiding.http_request) IS 'internal: a route';

CREATE FUNCTION voiding.http_discard_parked(q voiding.http_request) RETURNS voiding.http_answer
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT 200, NULL::jsonb, jsonb_build_object('discarded', voiding.discard_parked_event((q.parameters ->> 'event_id')::uuid, q.body ->> 'reason'))::text, NULL::jsonb
$$;
COMMENT ON FUNCTION voiding.http_discard_parked(voiding.http_request) IS 'internal: a route';
