-- shard.sql: what a database of the engine needs to be one of many behind a
-- router (router.sql). Run it in each of them, as superuser, after CREATE
-- EXTENSION voiding and before the first row:
--
--   psql -d shard0 -v number=0 -v shards=4 -f shard.sql

CREATE SCHEMA router;
GRANT USAGE ON SCHEMA router TO PUBLIC;
COMMENT ON SCHEMA router IS 'this database is one of many behind a router';

CREATE TABLE router.self AS SELECT :number::integer AS number, :shards::integer AS shards;

-- numbers that a service makes are different in each shard
ALTER TABLE reports.customer_report ALTER COLUMN report_id SET INCREMENT BY 1024;
SELECT setval(pg_get_serial_sequence('reports.customer_report', 'report_id'), 1024 + :number, false) AS first_report;

-- Is what has this id in this shard? Its number, or nothing. For roles that call
-- by an id alone: it says of anything whether it is there, but of commands only
-- to those who may see them.
CREATE FUNCTION router.here(kind text, id text) RETURNS SETOF integer
  LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  is_here boolean;
BEGIN
  CASE kind
    WHEN 'document' THEN is_here := EXISTS (SELECT FROM billing.document d WHERE d.document_id = here.id);
    WHEN 'process' THEN is_here := EXISTS (SELECT FROM voiding.process p WHERE p.process_id = here.id::uuid);
    WHEN 'command' THEN is_here := EXISTS (SELECT FROM voiding.command c WHERE c.command_id = here.id::uuid
                                 AND pg_has_role(session_user, to_regrole(quote_ident(c.caller)), 'MEMBER'));
    WHEN 'task' THEN is_here := EXISTS (SELECT FROM voiding.task t WHERE t.task_id = here.id::uuid);
    WHEN 'action' THEN is_here := EXISTS (SELECT FROM voiding.task_action a WHERE a.action_id = here.id::uuid AND a.caller = session_user);
    WHEN 'message' THEN is_here := EXISTS (SELECT FROM voiding.dead_letter d WHERE d.id = here.id::uuid)
                                OR EXISTS (SELECT FROM voiding.outbox o WHERE o.id = here.id::uuid);
    WHEN 'parked event' THEN is_here := EXISTS (SELECT FROM voiding.parked_event e WHERE e.event_id = here.id::uuid);
  END CASE;
  RETURN QUERY SELECT s.number FROM router.self s WHERE is_here;
END $$;
COMMENT ON FUNCTION router.here(text, text) IS 'the number of this shard, if it has what has this id';
REVOKE ALL ON FUNCTION router.here(text, text) FROM PUBLIC;

-- many commands, those of this shard: one transaction
CREATE FUNCTION router.send_commands(shard integer[], item integer[], command jsonb[]) RETURNS TABLE (n integer, command_id uuid, error jsonb)
  LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$ SELECT send_commands.item[r.item], r.command_id, r.error FROM voiding.send_commands(to_jsonb(command)) r $$;
COMMENT ON FUNCTION router.send_commands(integer[], integer[], jsonb[]) IS 'send_commands() for what a router has sorted out';

-- what the router compares
CREATE FUNCTION router.describe(OUT number integer, OUT shards integer, OUT version text, OUT definitions text)
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
  SELECT s.number, s.shards, (SELECT e.extversion FROM pg_extension e WHERE e.extname = 'voiding'),
         md5((SELECT coalesce(string_agg(concat_ws(' ', p.name, p.version, p.definition), chr(10) ORDER BY p.name, p.version), '') FROM voiding.process_type p)
             || (SELECT coalesce(string_agg(concat_ws(' ', h.service, h.kind, h.type, h.function), chr(10) ORDER BY h.service, h.kind, h.type), '') FROM voiding.handler h))
    FROM router.self s
$$;
COMMENT ON FUNCTION router.describe() IS 'the number of this shard, and what must be the same in all';
