-- invariant.sql: what must always hold of the engine's own tables. Written
-- from the rules, not from the code: it reads tables and definitions only.

CREATE FUNCTION voiding.check_invariants() RETURNS TABLE (invariant text, subject text, detail text)
  LANGUAGE sql STABLE SECURITY DEFINER SET jit = off SET search_path = pg_catalog, pg_temp
AS $$
  SELECT 'a process is active or finished, not both', a.process_id::text, f.state
    FROM voiding.active_process a JOIN voiding.finished_process f USING (process_id)
  UNION ALL
  SELECT 'a process is in a state of its definition', p.process_id::text, p.state
    FROM voiding.process p
    LEFT JOIN voiding.process_type t ON t.name = p.type AND t.version = p.version
   WHERE p.finished_at IS NULL AND NOT coalesce(t.definition -> 'states' ? p.state, false)
  UNION ALL
  SELECT 'a process has ended exactly if its state is final', p.process_id::text, p.state
    FROM voiding.process p
    JOIN voiding.process_type t ON t.name = p.type AND t.version = p.version
   WHERE (p.finished_at IS NOT NULL) <> (t.definition #>> ARRAY['states', p.state, 'type'] IS NOT DISTINCT FROM 'final')
  UNION ALL
  SELECT 'a process is where its last step took it', p.process_id::text, format('%s, not %s', p.state, h.to_state)
    FROM voiding.process p
    LEFT JOIN (SELECT DISTINCT ON (process_id) process_id, to_state FROM voiding.process_history
                ORDER BY process_id, step DESC) h USING (process_id)
   WHERE h.to_state IS DISTINCT FROM p.state
  UNION ALL
  SELECT 'each step begins where the one before ended', h.process_id::text, format('step %s', h.step)
    FROM (SELECT process_id, step, from_state,
                 lag(to_state) OVER (PARTITION BY process_id ORDER BY step) AS before FROM voiding.process_history) h
   WHERE h.from_state IS DISTINCT FROM h.before
  UNION ALL
  SELECT 'a step that was taken is one of the definition', h.process_id::text, format('step %s: %s from %s to %s', h.step, h.event, h.from_state, h.to_state)
    FROM voiding.process_history h JOIN voiding.process p USING (process_id)
   WHERE h.from_state IS DISTINCT FROM h.to_state
     AND EXISTS (SELECT FROM voiding.process_type d WHERE d.name = p.type AND d.version = p.version)
     AND NOT EXISTS (SELECT FROM voiding.transition t
                      WHERE t.process_type = p.type AND t.version = p.version
                        AND t.from_state = coalesce(h.from_state, '(start)'))
  UNION ALL
  SELECT 'no event is written twice', e.event_id::text, format('%s times', count(*))
    FROM voiding.event e GROUP BY e.event_id HAVING count(*) > 1
  UNION ALL
  SELECT 'the archive has every event up to its position', e.subject, e.position::text
    FROM voiding.event e
   WHERE e.position <= (SELECT p.position FROM voiding.archive_progress p)
     AND e.position / 10000000 IN (SELECT substr(c.relname, 10)::bigint FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                                    WHERE i.inhparent = 'voiding.archive'::regclass)
     AND NOT EXISTS (SELECT FROM voiding.archive a WHERE a.subject = e.subject AND a.position = e.position)
  UNION ALL
  SELECT 'the archive says what the events say', e.subject, e.position::text
    FROM voiding.event e JOIN voiding.archive a USING (subject, position)
   WHERE (a.data, a.event_id, a.type) IS DISTINCT FROM (e.data, e.event_id, e.type)
  UNION ALL
  SELECT 'a running process waits for something that will come', a.process_id::text, a.state
    FROM voiding.active_process a
    JOIN voiding.process_type t ON t.name = a.type AND t.version = a.version
   WHERE NOT a.failed AND NOT t.definition #> ARRAY['states', a.state] ? 'forever'
     AND NOT EXISTS (SELECT FROM voiding.timer x WHERE x.process_id = a.process_id)
  UNION ALL
  SELECT 'a process that asks for a task has one', a.process_id::text, a.task
    FROM voiding.active_process a
   WHERE a.task IS NOT NULL
     AND NOT EXISTS (SELECT FROM voiding.task x WHERE x.process_id = a.process_id AND x.type = a.task)
  UNION ALL
  SELECT 'an open task belongs to a process that wants it', t.task_id::text, t.type
    FROM voiding.task t LEFT JOIN voiding.active_process a USING (process_id)
   WHERE t.ended_at IS NULL AND t.process_id IS NOT NULL AND a.task IS DISTINCT FROM t.type
  UNION ALL
  SELECT 'a task has an owner exactly while somebody is at work on it', t.task_id::text, t.state
    FROM voiding.task t WHERE t.ended_at IS NULL AND (t.owner IS NULL) <> (t.state = 'ready')
  UNION ALL
  SELECT 'what has ended never wakes', t.task_id::text, t.wake_at::text
    FROM voiding.task t WHERE t.ended_at IS NOT NULL AND t.wake_at IS NOT NULL
  UNION ALL
  SELECT 'a timer belongs to an active process and its state', t.process_id::text, t.name
    FROM voiding.timer t LEFT JOIN voiding.active_process a USING (process_id)
   WHERE a.process_id IS NULL OR (t.name NOT LIKE '@%' AND a.state <> t.state)
  UNION ALL
  SELECT 'a message is for a service that exists', o.id::text, o.destination
    FROM voiding.outbox o LEFT JOIN voiding.service s ON s.name = o.destination WHERE s.name IS NULL AND o.destination <> 'arrival'
  UNION ALL
  SELECT 'a message is in the bucket of its key', o.id::text, o.bucket::text
    FROM voiding.outbox o WHERE o.bucket <> (hashtext(o.aggregateid)::bigint & 4294967295) % 64
  UNION ALL
  SELECT 'a message is waiting or dead, not both', o.id::text, o.destination
    FROM voiding.outbox o JOIN voiding.dead_letter d USING (id, destination)
  UNION ALL
  SELECT 'a parked event that waits for one process finds it active', e.event_id::text, e.process_id::text
    FROM voiding.parked_event e LEFT JOIN voiding.active_process a USING (process_id)
   WHERE e.process_id IS NOT NULL AND a.process_id IS NULL
  UNION ALL
  SELECT 'a command has ended exactly if its status is final', c.command_id::text, c.status
    FROM voiding.command c WHERE (c.finished_at IS NULL) <> (c.status IN ('accepted', 'running'))
  UNION ALL
  SELECT 'a command has a message exactly while it is accepted', c.command_id::text, c.status
    FROM voiding.command c LEFT JOIN voiding.outbox o ON (o.bucket, o.seq, o.id) = (c.bucket, c.seq, c.command_id)
   WHERE (c.status = 'accepted') <> (o.id IS NOT NULL)
  UNION ALL
  SELECT 'a running command waits for an event, or for a process that is not settled', c.command_id::text, a.state
    FROM voiding.command c
    LEFT JOIN voiding.active_process a USING (process_id)
    LEFT JOIN voiding.handler h ON h.kind = 'command' AND h.type = c.type
   WHERE c.status = 'running' AND h.completed_by IS NULL AND (a.process_id IS NULL OR a.failed)
$$;
COMMENT ON FUNCTION voiding.check_invariants() IS 'a row for each breach of what must always hold; no row: all is well';
