-- commands.sql: a command that does nothing, a plain table like the engine's
-- one, and what waiters measure.

CREATE SCHEMA ping;
CREATE FUNCTION ping.ping(n bigint, note text DEFAULT NULL) RETURNS bigint LANGUAGE sql AS 'SELECT n';
SELECT voiding.create_service('ping');
SELECT voiding.create_command('Ping', 'ping.ping');

CREATE TABLE bench.command (LIKE voiding.command INCLUDING ALL);
CREATE UNLOGGED TABLE bench.told (ms double precision);

-- how long it took from the end of a command's work, before its commit, to here
CREATE FUNCTION bench.tell(id uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  c voiding.command := voiding.wait_for_command(id, '30 s');
BEGIN
  IF c.status <> 'processed' THEN
    RAISE EXCEPTION 'command % is %', id, c.status;
  END IF;
  INSERT INTO bench.told VALUES (extract(epoch FROM clock_timestamp() - c.finished_at) * 1000);
END $$;
