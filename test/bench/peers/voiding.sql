-- voiding.sql: what process.sql has for the peers, for voiding itself.

-- milliseconds from the commit of a request to the commit of the end
CREATE FUNCTION latency(first text) RETURNS SETOF numeric LANGUAGE sql AS $$
  SELECT extract(epoch FROM pg_xact_commit_timestamp(p.xmin) - pg_xact_commit_timestamp(e.xid::xid)) * 1000
    FROM voiding.finished_process p JOIN voiding.event e USING (process_id)
   WHERE p.key >= first AND e.type = 'DocumentVoidingRequested'
$$;
