-- router.sql: one database in front of many, for processes that are spread by
-- the customer. It has no rows of its own but the list of commands below, so
-- there may be as many routers as one likes. Before it, in an empty database:
--
--   CREATE EXTENSION plproxy;
--   CREATE SERVER voiding FOREIGN DATA WRAPPER plproxy OPTIONS (
--     p0 'host=a dbname=shard0 connect_timeout=3', p1 'host=a dbname=shard1 connect_timeout=3',
--     p2 'host=b dbname=shard2 connect_timeout=3', p3 'host=b dbname=shard3 connect_timeout=3');
--   CREATE USER MAPPING FOR PUBLIC SERVER voiding;
--
-- and in each of those databases shard.sql. Their number is a power of two. Then
-- SELECT * FROM router.check(): no row, all is well.
--
-- Calls have the names and arguments of the engine's own, and a last one more:
-- the key. With it a call goes to one shard at once; without it all shards are
-- asked first which of them has the id. Functions of schema router are run
-- elsewhere, by PL/Proxy; the others say where.

CREATE SCHEMA router;
CREATE SCHEMA voiding;
CREATE SCHEMA billing;
CREATE SCHEMA reports;
GRANT USAGE ON SCHEMA router, voiding, billing, reports TO PUBLIC;

-- ---- where ----

-- Of a key, for ever: what hashtext() returns is not promised to stay. PL/Proxy
-- takes as many of the lowest bits as there are shards.
CREATE FUNCTION router.place(key text) RETURNS integer
  LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT get_byte(h, 0) << 8 | get_byte(h, 1) FROM sha256(convert_to(coalesce(key, ''), 'UTF8')) h $$;

CREATE FUNCTION router.find(kind text, id text) RETURNS SETOF integer
  LANGUAGE plproxy
AS $$ CLUSTER 'voiding'; RUN ON ALL; SELECT h.n FROM router.here(kind, id) h(n); $$;

-- Of an id, if the key is not known. An id that no shard has: one of them
-- answers as it would.
CREATE FUNCTION router.place_of(kind text, id text, key text) RETURNS integer
  LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
  found integer[];
BEGIN
  IF key IS NOT NULL THEN
    RETURN router.place(key);
  END IF;
  found := ARRAY (SELECT f.n FROM router.find(kind, id) f(n));
  IF cardinality(found) > 1 THEN
    RAISE EXCEPTION '% "%" is there more than once', kind, id
      USING ERRCODE = 'cardinality_violation', DETAIL = format('Shards %s have it.', found), HINT = 'Say the key.';
  END IF;
  RETURN coalesce(found[1], router.place(id));
END $$;

CREATE FUNCTION router.shards() RETURNS integer
  LANGUAGE sql STABLE
AS $$ SELECT count(*)::integer FROM pg_foreign_server s, unnest(s.srvoptions) o WHERE s.srvname = 'voiding' AND o ~ '^p\d+=' $$;

CREATE FUNCTION router.describe(shard integer) RETURNS TABLE (number integer, shards integer, version text, definitions text)
  LANGUAGE plproxy
AS $$ CLUSTER 'voiding'; RUN ON shard; SELECT d.number, d.shards, d.version, d.definitions FROM router.describe() d; $$;

-- ---- keyed calls: of a customer ----

CREATE TYPE router.document AS (document_id text, customer_id text, kind text, amount numeric, currency text, status text,
  void_reason text, requested_by text, process_id uuid, issued_at timestamptz, voided_at timestamptz);
CREATE TYPE router.report AS (report_id bigint, customer_id text, currency text, status text, total numeric,
  published_at timestamptz, opened_at timestamptz);

-- (issued_at: null is now, and counts as not said)
CREATE FUNCTION billing.issue_document(document_id text, customer_id text, amount numeric, currency text DEFAULT 'EUR', kind text DEFAULT 'invoice',
    issued_at timestamptz DEFAULT NULL) RETURNS router.document
  LANGUAGE plproxy
AS $$ CLUSTER 'voiding'; RUN ON router.place(customer_id); $$;

CREATE FUNCTION reports.publish_report(customer_id text, currency text DEFAULT NULL) RETURNS SETOF router.report
  LANGUAGE plproxy
AS $$ CLUSTER 'voiding'; RUN ON router.place(customer_id); $$;

CREATE FUNCTION router.void_document(shard integer, document_id text, reason text) RETURNS uuid
  LANGUAGE plproxy
AS $$ CLUSTER 'voiding'; RUN ON shard; SELECT v.id FROM billing.void_document(document_id, reason) v(id); $$;

CREATE FUNCTION billing.void_document(document_id text, reason text DEFAULT NULL, customer_id text DEFAULT NULL) RETURNS uuid
  LANGUAGE sql VOLATILE
AS $$ SELECT router.void_document(router.place_of('document', document_id, customer_id), document_id, reason) $$;

-- ---- commands ----

-- Which member of a command's data is the key; or, with a kind, the id of
-- something that is where the command has to go.
CREATE TABLE router.command_key (type text PRIMARY KEY, member text NOT NULL, kind text);
GRANT SELECT ON router.command_key TO PUBLIC;
INSERT INTO router.command_key VALUES
  ('IssueDocument', 'customer_id', NULL),
  ('PublishReport', 'customer_id', NULL),
  ('VoidDocument', 'document_id', 'document'),
  ('AcknowledgeProcessFailure', 'process_id', 'process');

CREATE TYPE router.command AS (command_id uuid, type text, status text, data jsonb, result jsonb, error jsonb, resource text, process_id uuid,
  accepted_at timestamptz, finished_at timestamptz, caller text, idempotency_key text, not_before timestamptz, start_by timestamptz,
  bucket smallint, seq bigint, xid xid8, gone boolean);

CREATE FUNCTION router.place_of_command(type text, data jsonb, key text) RETURNS integer
  LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
  k router.command_key;
BEGIN
  IF key IS NOT NULL THEN
    RETURN router.place(key);
  END IF;
  SELECT * INTO k FROM router.command_key x WHERE x.type = place_of_command.type;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'nobody has said where command "%" goes', left(type, 100)
      USING ERRCODE = 'undefined_object', HINT = 'Say the key in the call, or which member of its data is the key in router.command_key.';
  END IF;
  RETURN CASE WHEN k.kind IS NULL THEN router.place(data ->> k.member) ELSE router.place_of(k.kind, data ->> k.member, NULL) END;
END $$;

CREATE FUNCTION router.send_command(shard integer, type text, data jsonb, idempotency_key text, not_before timestamptz, start_by timestamptz) RETURNS uuid
  LANGUAGE plproxy
AS $$ CLUSTER 'voiding'; RUN ON shard; SELECT s.id FROM voiding.send_command(type, data, idempotency_key, not_before, start_by) s(id); $$;

CREATE FUNCTION voiding.send_command(type text, data jsonb, idempotency_key text DEFAULT NULL, not_before timestamptz DEFAULT NULL,
    start_by timestamptz DEFAULT NULL, key text DEFAULT NULL) RETURNS uuid
  LANGUAGE sql VOLATILE
AS $$ SELECT router.send_command(router.place_of_command(type, data, key), type, data, idempotency_key, not_before, start_by) $$;

CREATE FUNCTION router.send_commands(shard integer[], item integer[], command jsonb[]) RETURNS TABLE (n integer, command_id uuid, error jsonb)
  LANGUAGE plproxy
AS $$ CLUSTER 'voiding'; SPLIT shard, item, command; RUN ON shard; $$;

-- a transaction for each shard, all at the same time; an item may have a member "key"
CREATE FUNCTION voiding.send_commands(commands jsonb) RETURNS TABLE (item integer, command_id uuid, error jsonb)
  LANGUAGE sql VOLATILE
AS $$
  SELECT s.n, s.command_id, s.error
    FROM (SELECT array_agg(router.place_of_command(c.value ->> 'type', c.value -> 'data', c.value ->> 'key') ORDER BY c.ordinality) AS places,
                 array_agg(c.ordinality::integer ORDER BY c.ordinality) AS items, array_agg(c.value - 'key' ORDER BY c.ordinality) AS bodies
            FROM jsonb_array_elements(commands) WITH ORDINALITY c) x,
         router.send_commands(x.places, x.items, x.bodies) s
   ORDER BY s.n
$$;

CREATE FUNCTION router.command_status(shard integer, command_id uuid) RETURNS router.command
  LANGUAGE plproxy
AS $$ CLUSTER 'voiding'; RUN ON shard; SELECT c.* FROM voiding.command_status(command_id) c; $$;

CREATE FUNCTION voiding.command_status(command_id uuid, key text DEFAULT NULL) RETURNS router.command
  LANGUAGE sql VOLATILE
AS $$ SELECT router.command_status(router.place_of('command', command_id::text, key), command_id) $$;

CREATE FUNCTION router.wait_for_command(shard integer, command_id uuid, timeout interval, seen_by text[]) RETURNS router.command
  LANGUAGE plproxy
AS $$ CLUSTER 'voiding'; RUN ON shard; SELECT c.* FROM voiding.wait_for_command(command_id, timeout, seen_by) c; $$;

CREATE FUNCTION voiding.wait_for_command(command_id uuid, timeout interval, seen_by text[] DEFAULT NULL, key text DEFAULT NULL) RETURNS router.command
  LANGUAGE sql VOLATILE
AS $$ SELECT router.wait_for_command(router.place_of('command', command_id::text, key), command_id, timeout, seen_by) $$;

-- A function, not a procedure: what it sends is committed there at once.
CREATE FUNCTION voiding.execute(type text, data jsonb, timeout interval, idempotency_key text DEFAULT NULL, key text DEFAULT NULL) RETURNS router.command
  LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
  shard integer := router.place_of_command(type, data, key);
  id uuid := router.send_command(shard, type, data, idempotency_key, NULL, NULL);
BEGIN
  RETURN router.wait_for_command(shard, id, timeout, NULL);
END $$;

CREATE FUNCTION router.cancel_command(shard integer, command_id uuid, reason text) RETURNS router.command
  LANGUAGE plproxy
AS $$ CLUSTER 'voiding'; RUN ON shard; SELECT c.* FROM voiding.cancel_command(command_id, reason) c; $$;

CREATE FUNCTION voiding.cancel_command(command_id uuid, reason text DEFAULT NULL, key text DEFAULT NULL) RETURNS router.command
  LANGUAGE sql VOLATILE
AS $$ SELECT router.cancel_command(router.place_of('command', command_id::text, key), command_id, reason) $$;

CREATE FUNCTION router.estimate_command(shard integer, command_id uuid) RETURNS timestamptz
  LANGUAGE plproxy
AS $$ CLUSTER 'voiding'; RUN ON shard; SELECT e.at FROM voiding.estimate_command(command_id) e(at); $$;

CREATE FUNCTION voiding.estimate_command(command_id uuid, key text DEFAULT NULL) RETURNS timestamptz
  LANGUAGE sql VOLATILE
AS $$ SELECT router.estimate_command(router.place_of('command', command_id::text, key), command_id) $$;

-- A feed is one for each shard: a cursor of one is no cursor of another.
CREATE FUNCTION router.command_changes(shard integer, after text, batch_size integer) RETURNS TABLE (cursor text, command_id uuid, type text, status text)
  LANGUAGE plproxy
AS $$ CLUSTER 'voiding'; RUN ON shard; SELECT f.cursor, (f.command).command_id, (f.command).type, (f.command).status FROM voiding.command_changes(after, batch_size) f; $$;

-- ---- processes ----

CREATE TYPE router.process AS (process_id uuid, type text, version integer, key text, state text, data jsonb, started_at timestamptz,
  updated_at timestamptz, finished_at timestamptz, since timestamptz, failed boolean, outcome text, reason text, result jsonb, conversation uuid);

CREATE FUNCTION router.wait_for_process(shard integer, process_id uuid, timeout interval) RETURNS router.process
  LANGUAGE plproxy
AS $$ CLUSTER 'voiding'; RUN ON shard; SELECT p.* FROM voiding.wait_for_process(process_id, timeout) p; $$;

CREATE FUNCTION voiding.wait_for_process(process_id uuid, timeout interval, key text DEFAULT NULL) RETURNS router.process
  LANGUAGE sql VOLATILE
AS $$ SELECT router.wait_for_process(router.place_of('process', process_id::text, key), process_id, timeout) $$;

CREATE FUNCTION router.explain(shard integer, process_id uuid) RETURNS TABLE (aspect text, what text, detail text, at timestamptz)
  LANGUAGE plproxy
AS $$ CLUSTER 'voiding'; RUN ON shard; SELECT e.aspect, e.what, e.detail, e.at FROM voiding.explain(process_id) e; $$;

CREATE FUNCTION voiding.explain(process_id uuid, key text DEFAULT NULL) RETURNS TABLE (aspect text, what text, detail text, at timestamptz)
  LANGUAGE sql VOLATILE
AS $$ SELECT e.* FROM router.explain(router.place_of('process', process_id::text, key), process_id) e $$;

CREATE FUNCTION router.acknowledge_process_failure(shard integer, process_id uuid, reason text) RETURNS integer
  LANGUAGE plproxy
AS $$ CLUSTER 'voiding'; RUN ON shard; SELECT 1 AS done FROM voiding.acknowledge_process_failure(process_id, reason); $$;

CREATE FUNCTION voiding.acknowledge_process_failure(process_id uuid, reason text DEFAULT NULL, key text DEFAULT NULL) RETURNS void
  LANGUAGE plpgsql VOLATILE
AS $$ BEGIN PERFORM router.acknowledge_process_failure(router.place_of('process', process_id::text, key), process_id, reason); END $$;

-- ---- tasks ----

CREATE TYPE router.task AS (task_id uuid, type text, service text, state text, title text, document jsonb, key text, roles text[], skills text[],
  form_factors text[], excluded text[], owner text, priority integer, due_at timestamptz, expires_at timestamptz, until timestamptz,
  lease interval, ttl interval, deadlines jsonb, wake_at timestamptz, outcome jsonb, reason text, version integer, process_id uuid,
  correlation_id uuid, "position" bigint, created_at timestamptz, updated_at timestamptz, ended_at timestamptz, former text[], said text, xid xid8);

CREATE FUNCTION router.act_on_task(shard integer, task_id uuid, action text, arguments jsonb, action_id uuid, version integer) RETURNS router.task
  LANGUAGE plproxy
AS $$ CLUSTER 'voiding'; RUN ON shard; SELECT t.* FROM voiding.act_on_task(task_id, action, arguments, action_id, version) t; $$;

CREATE FUNCTION voiding.act_on_task(task_id uuid, action text, arguments jsonb DEFAULT '{}', action_id uuid DEFAULT NULL, version integer DEFAULT NULL,
    key text DEFAULT NULL) RETURNS router.task
  LANGUAGE sql VOLATILE
AS $$ SELECT router.act_on_task(router.place_of('task', task_id::text, key), task_id, action, arguments, action_id, version) $$;

CREATE FUNCTION voiding.claim_task(task_id uuid, action_id uuid DEFAULT NULL, version integer DEFAULT NULL, key text DEFAULT NULL) RETURNS router.task
  LANGUAGE sql VOLATILE
AS $$ SELECT voiding.act_on_task(task_id, 'claim', '{}', action_id, version, key) $$;

CREATE FUNCTION voiding.complete_task(task_id uuid, outcome jsonb DEFAULT '{}', action_id uuid DEFAULT NULL, version integer DEFAULT NULL,
    key text DEFAULT NULL) RETURNS router.task
  LANGUAGE sql VOLATILE
AS $$ SELECT voiding.act_on_task(task_id, 'complete', jsonb_build_object('outcome', outcome), action_id, version, key) $$;

CREATE FUNCTION voiding.release_task(task_id uuid, reason text DEFAULT NULL, action_id uuid DEFAULT NULL, version integer DEFAULT NULL,
    key text DEFAULT NULL) RETURNS router.task
  LANGUAGE sql VOLATILE
AS $$ SELECT voiding.act_on_task(task_id, 'release', jsonb_strip_nulls(jsonb_build_object('reason', reason)), action_id, version, key) $$;

CREATE FUNCTION router.next_task(shard integer, types text[], form_factor text, action_id uuid) RETURNS router.task
  LANGUAGE plproxy
AS $$ CLUSTER 'voiding'; RUN ON shard; SELECT t.* FROM voiding.next_task(types, form_factor, action_id) t; $$;

-- One shard after the other, from any of them on, until one has a task. The
-- same action again is asked of the shard that knows it.
CREATE FUNCTION voiding.next_task(types text[] DEFAULT NULL, form_factor text DEFAULT NULL, action_id uuid DEFAULT NULL) RETURNS router.task
  LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
  known integer := (SELECT min(f.n) FROM router.find('action', action_id::text) f(n) WHERE action_id IS NOT NULL);
  n     integer := router.shards();
  first integer := coalesce(known, (random() * n)::integer);
  t     router.task;
BEGIN
  FOR i IN 0 .. CASE WHEN known IS NULL THEN n - 1 ELSE 0 END LOOP
    t := router.next_task((first + i) % n, types, form_factor, action_id);
    EXIT WHEN t.task_id IS NOT NULL;
  END LOOP;
  RETURN t;
END $$;

CREATE FUNCTION router.set_worker_profile(role name, skills text[], form_factors text[], capacity integer) RETURNS SETOF integer
  LANGUAGE plproxy
AS $$ CLUSTER 'voiding'; RUN ON ALL; SELECT 1 AS done FROM voiding.set_worker_profile(role, skills, form_factors, capacity); $$;

CREATE FUNCTION voiding.set_worker_profile(role name, skills text[] DEFAULT '{}', form_factors text[] DEFAULT '{}', capacity integer DEFAULT NULL) RETURNS void
  LANGUAGE plpgsql VOLATILE
AS $$ BEGIN PERFORM router.set_worker_profile(role, skills, form_factors, capacity); END $$;

-- ---- repair ----

CREATE FUNCTION router.retry_message(shard integer, id uuid, reason text) RETURNS integer
  LANGUAGE plproxy
AS $$ CLUSTER 'voiding'; RUN ON shard; SELECT r.n FROM voiding.retry_message(id, reason) r(n); $$;

CREATE FUNCTION voiding.retry_message(id uuid, reason text DEFAULT NULL, key text DEFAULT NULL) RETURNS integer
  LANGUAGE sql VOLATILE
AS $$ SELECT router.retry_message(router.place_of('message', id::text, key), id, reason) $$;

CREATE FUNCTION router.discard_message(shard integer, id uuid, reason text) RETURNS integer
  LANGUAGE plproxy
AS $$ CLUSTER 'voiding'; RUN ON shard; SELECT r.n FROM voiding.discard_message(id, reason) r(n); $$;

CREATE FUNCTION voiding.discard_message(id uuid, reason text, key text DEFAULT NULL) RETURNS integer
  LANGUAGE sql VOLATILE
AS $$ SELECT router.discard_message(router.place_of('message', id::text, key), id, reason) $$;

CREATE FUNCTION router.retry_parked_event(shard integer, event_id uuid) RETURNS integer
  LANGUAGE plproxy
AS $$ CLUSTER 'voiding'; RUN ON shard; SELECT r.n FROM voiding.retry_parked_event(event_id) r(n); $$;

CREATE FUNCTION voiding.retry_parked_event(event_id uuid, key text DEFAULT NULL) RETURNS integer
  LANGUAGE sql VOLATILE
AS $$ SELECT router.retry_parked_event(router.place_of('parked event', event_id::text, key), event_id) $$;

-- ---- all shards: work ----

CREATE FUNCTION router.start_workers(n integer) RETURNS SETOF integer
  LANGUAGE plproxy
AS $$ CLUSTER 'voiding'; RUN ON ALL; SELECT w.started FROM voiding.start_workers(n) w(started); $$;

CREATE FUNCTION voiding.start_workers(n integer DEFAULT NULL) RETURNS bigint
  LANGUAGE sql VOLATILE
AS $$ SELECT sum(w) FROM router.start_workers(n) w $$;

CREATE FUNCTION router.stop_workers() RETURNS SETOF integer
  LANGUAGE plproxy
AS $$ CLUSTER 'voiding'; RUN ON ALL; SELECT 1 AS done FROM voiding.stop_workers(); $$;

CREATE FUNCTION voiding.stop_workers() RETURNS void
  LANGUAGE plpgsql VOLATILE
AS $$ BEGIN PERFORM router.stop_workers(); END $$;

CREATE FUNCTION router.dispatch(service text, batch_size integer) RETURNS SETOF integer
  LANGUAGE plproxy
AS $$ CLUSTER 'voiding'; RUN ON ALL; SELECT d.n FROM voiding.dispatch(service, batch_size) d(n); $$;

CREATE FUNCTION voiding.dispatch(service text DEFAULT NULL, batch_size integer DEFAULT NULL) RETURNS bigint
  LANGUAGE sql VOLATILE
AS $$ SELECT sum(d) FROM router.dispatch(service, batch_size) d $$;

CREATE FUNCTION router.wait_until_idle(timeout interval) RETURNS SETOF boolean
  LANGUAGE plproxy
AS $$ CLUSTER 'voiding'; RUN ON ALL; SELECT w.idle FROM voiding.wait_until_idle(timeout) w(idle); $$;

CREATE FUNCTION voiding.wait_until_idle(timeout interval) RETURNS boolean
  LANGUAGE sql VOLATILE
AS $$ SELECT bool_and(w) FROM router.wait_until_idle(timeout) w $$;

CREATE FUNCTION router.maintain() RETURNS SETOF integer
  LANGUAGE plproxy
AS $$ CLUSTER 'voiding'; RUN ON ALL; SELECT 1 AS done FROM voiding.maintain(); $$;

CREATE FUNCTION voiding.maintain() RETURNS void
  LANGUAGE plpgsql VOLATILE
AS $$ BEGIN PERFORM router.maintain(); END $$;

-- ---- all shards: looking ----
--
-- A view is read whole from each shard, whatever its WHERE says, so there is
-- none here of a table that grows: see tables.sql.

CREATE FUNCTION router.ongoing_process() RETURNS TABLE (process_id uuid, type text, key text, state text, failed boolean, since timestamptz,
    waits_for text, started_at timestamptz, version integer, data jsonb)
  LANGUAGE plproxy
AS $$ CLUSTER 'voiding'; RUN ON ALL; SELECT v.* FROM voiding.ongoing_process v; $$;
CREATE VIEW voiding.ongoing_process AS SELECT * FROM router.ongoing_process();

CREATE FUNCTION router.outbox() RETURNS TABLE (id uuid, aggregatetype text, aggregateid text, type text, payload jsonb, source text, destination text,
    correlation_id uuid, causation_id uuid, attempts integer, available_at timestamptz, created_at timestamptz, bucket smallint, xid xid8,
    seq bigint, sent_in text, error text)
  LANGUAGE plproxy
AS $$ CLUSTER 'voiding'; RUN ON ALL; SELECT v.* FROM voiding.outbox v; $$;
CREATE VIEW voiding.outbox AS SELECT * FROM router.outbox();

CREATE FUNCTION router.dead_letter() RETURNS TABLE (id uuid, aggregatetype text, aggregateid text, type text, payload jsonb, source text,
    destination text, correlation_id uuid, causation_id uuid, attempts integer, available_at timestamptz, created_at timestamptz, bucket smallint,
    xid xid8, seq bigint, sent_in text, error text, failed_at timestamptz, sqlstate text)
  LANGUAGE plproxy
AS $$ CLUSTER 'voiding'; RUN ON ALL; SELECT v.* FROM voiding.dead_letter v; $$;
CREATE VIEW voiding.dead_letter AS SELECT * FROM router.dead_letter();

CREATE FUNCTION router.parked_event() RETURNS TABLE ("position" bigint, process_type text, key text, event_id uuid, type text, source text,
    subject text, correlation_id uuid, causation_id uuid, data jsonb, parked_at timestamptz, expires_at timestamptz, process_id uuid, watch xid8)
  LANGUAGE plproxy
AS $$ CLUSTER 'voiding'; RUN ON ALL; SELECT v.* FROM voiding.parked_event v; $$;
CREATE VIEW voiding.parked_event AS SELECT * FROM router.parked_event();

CREATE FUNCTION router.my_task() RETURNS SETOF router.task
  LANGUAGE plproxy
AS $$ CLUSTER 'voiding'; RUN ON ALL; SELECT v.* FROM voiding.my_task v; $$;
CREATE VIEW voiding.my_task AS SELECT * FROM router.my_task();

CREATE FUNCTION router.available_task() RETURNS SETOF router.task
  LANGUAGE plproxy
AS $$ CLUSTER 'voiding'; RUN ON ALL; SELECT v.* FROM voiding.available_task v; $$;
CREATE VIEW voiding.available_task AS SELECT * FROM router.available_task();

-- figures of each shard, with its number among the labels
CREATE FUNCTION router.stats() RETURNS TABLE (name text, labels jsonb, value numeric)
  LANGUAGE plproxy
AS $$ CLUSTER 'voiding'; RUN ON ALL; SELECT v.name, v.labels || jsonb_build_object('shard', s.number) AS labels, v.value FROM voiding.stats v, router.self s; $$;
CREATE VIEW voiding.stats AS SELECT * FROM router.stats();

CREATE FUNCTION router.worker() RETURNS TABLE (shard integer, worker integer, pid integer, started_at timestamptz, state text, restarts integer, problem text)
  LANGUAGE plproxy
AS $$ CLUSTER 'voiding'; RUN ON ALL; SELECT s.number AS shard, w.worker, w.pid, w.started_at, w.state, w.restarts, w.problem FROM voiding.worker w, router.self s; $$;
CREATE VIEW voiding.worker AS SELECT * FROM router.worker();

CREATE FUNCTION voiding.check_invariants() RETURNS TABLE (invariant text, subject text, detail text)
  LANGUAGE plproxy AS $$ CLUSTER 'voiding'; RUN ON ALL; $$;
CREATE FUNCTION billing.check_invariants() RETURNS TABLE (invariant text, subject text, detail text)
  LANGUAGE plproxy AS $$ CLUSTER 'voiding'; RUN ON ALL; $$;
CREATE FUNCTION reports.check_invariants() RETURNS TABLE (invariant text, subject text, detail text)
  LANGUAGE plproxy AS $$ CLUSTER 'voiding'; RUN ON ALL; $$;

-- ---- are they what they should be? ----

CREATE FUNCTION router.check() RETURNS TABLE (shard integer, fault text)
  LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
  n     integer := router.shards();
  first record;
  d     record;
BEGIN
  FOR i IN 0 .. n - 1 LOOP
    shard := i;
    BEGIN
      SELECT * INTO STRICT d FROM router.describe(shard);
    EXCEPTION WHEN OTHERS THEN
      fault := SQLERRM;
      RETURN NEXT;
      CONTINUE;
    END;
    first := coalesce(first, d);
    FOREACH fault IN ARRAY ARRAY[
      CASE WHEN d.number <> shard THEN format('it calls itself number %s', d.number) END,
      CASE WHEN d.shards <> n THEN format('it knows of %s shards, there are %s', d.shards, n) END,
      CASE WHEN d.version <> first.version THEN format('it has version %s of the engine, the first one %s', d.version, first.version) END,
      CASE WHEN d.definitions <> first.definitions THEN 'its process types or handlers are not those of the first one' END] LOOP
      IF fault IS NOT NULL THEN
        RETURN NEXT;
      END IF;
    END LOOP;
  END LOOP;
END $$;
