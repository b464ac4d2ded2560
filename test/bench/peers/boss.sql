-- boss.sql: the process on pg-boss: two queues, mark and complete. A client puts
-- its job into the table, as pg-boss's documentation lets one do; when workers
-- listen, with the hint that send() would give.

SET check_function_bodies = off;      -- the tables come with the first worker

CREATE FUNCTION void_document(id text, why text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO pgboss.job (name, data) VALUES ('mark', jsonb_build_object('process', request_voiding(id, why)));
  IF current_setting('peer.how') = 'notify' THEN
    PERFORM pg_notify('pgboss_' || left(encode(sha224('pgboss'), 'hex'), 24), 'mark');
  END IF;
END $$;

CREATE FUNCTION left_over(requested bigint) RETURNS bigint LANGUAGE sql AS $$
  SELECT 2 * requested - count(*) FILTER (WHERE state = 'completed' AND retry_count = 0) FROM pgboss.job
   WHERE name IN ('mark', 'complete')
$$;
