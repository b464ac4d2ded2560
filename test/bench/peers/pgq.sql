-- pgq.sql: the process on PgQ: two queues, reports and billing, each with a
-- consumer that handles a batch in one transaction, inside the database.

CREATE EXTENSION pgq;
SELECT pgq.create_queue(q), pgq.register_consumer(q, 'worker'), pgq.set_queue_config(q, 'ticker_max_lag', '10 ms')
  FROM unnest('{reports,billing}'::text[]) q;

CREATE FUNCTION void_document(id text, why text) RETURNS void LANGUAGE sql AS $$
  SELECT pgq.insert_event('reports', 'MarkDocumentAsVoided', request_voiding(id, why)::text)
$$;

-- the next batch, if there is one
CREATE FUNCTION handle(queue text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  batch bigint := pgq.next_batch(queue, 'worker');
  ids uuid[];
BEGIN
  IF batch IS NULL THEN
    RETURN false;
  END IF;
  SELECT array_agg(ev_data::uuid) INTO ids FROM pgq.get_batch_events(batch);
  IF ids IS NULL THEN                 -- a tick without events
    NULL;
  ELSIF queue = 'reports' THEN
    PERFORM pgq.insert_event('billing', 'CompleteDocumentVoiding', id::text) FROM unnest(mark(ids)) id;
  ELSE
    PERFORM complete(ids);
  END IF;
  RETURN pgq.finish_batch(batch) = 1;
END $$;

CREATE PROCEDURE consume() LANGUAGE plpgsql AS $$
DECLARE
  found boolean;
BEGIN
  LOOP
    found := handle('reports');
    COMMIT;
    found := handle('billing') OR found;
    COMMIT;
    IF NOT found THEN
      PERFORM pg_sleep(0.005);
    END IF;
  END LOOP;
END $$;

CREATE FUNCTION left_over(requested bigint) RETURNS bigint LANGUAGE sql AS $$
  SELECT sum(pending_events)::bigint + (SELECT count(*) FROM pgq.retry_queue) FROM pgq.get_consumer_info()
$$;
