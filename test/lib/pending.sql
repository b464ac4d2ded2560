-- pending.sql: is anything left that can be done now? A message that is next for its key and may run; a deadline that has
-- passed; a parked event that has expired, or that its process has not looked at. The tests ask this while workers serve.
SELECT EXISTS (SELECT FROM (SELECT DISTINCT ON (o.destination, o.aggregateid) o.available_at, o.created_at FROM voiding.outbox o
                             WHERE NOT EXISTS (SELECT FROM voiding.handler h
                                                WHERE h.service = o.destination AND h.type = o.type AND h.function IS NULL)
                             ORDER BY o.destination, o.aggregateid, o.seq) next
                WHERE next.available_at <= greatest(voiding.now(), next.created_at))
    OR EXISTS (SELECT FROM voiding.timer t WHERE NOT t.held AND t.due_at <= voiding.now())
    OR EXISTS (SELECT FROM voiding.parked_event e WHERE e.expires_at <= voiding.now())
    OR EXISTS (SELECT FROM voiding.parked_event e JOIN voiding.active_process a ON (a.type, a.key) = (e.process_type, e.key)
                WHERE e.process_id IS NULL AND e.watch IS DISTINCT FROM '0'::xid8)
