-- hand.sql: the same process written by hand in PL/pgSQL, as well as we can.
--
-- It writes the rows that voiding writes, with the same columns: document,
-- event, process, outbox, timer, report line. Tables have the indexes, checks
-- and fill factors that voiding's have; event and finished_process are no
-- partitions, which is cheaper, and the key of the outbox is seq, which is all
-- that is needed to find a message here. No triggers; each function says as
-- much as it can in one statement; search_path is the database's.
--
-- request(), mark_message() and complete_message() are the three transactions
-- that a process through two services needs. Each but the first takes its
-- message out of the outbox by the number that the one before returned: nobody
-- has to look for work or to be woken. all_in_one() squeezes them into one
-- transaction; what follows from the first message is then called and not
-- sent, as voiding does it.
--
-- What is left out, to the gain of this side: the ways in which a voiding
-- fails, retries, order of messages, deadlines that pass, roles, hints.

CREATE SCHEMA hand;
SET search_path = hand;

CREATE DOMAIN currency AS text CHECK (VALUE = ANY ('{CHF,EUR,GBP,USD}'::text[]));

-- without CHECK constraints, as billing.document: each statement would compile them
CREATE TABLE document (
  document_id  text PRIMARY KEY,
  customer_id  text NOT NULL,
  kind         text NOT NULL DEFAULT 'invoice',
  amount       numeric NOT NULL,
  currency     currency NOT NULL DEFAULT 'EUR',
  status       text NOT NULL DEFAULT 'issued',
  void_reason  text,
  requested_by text,
  process_id   uuid,
  issued_at    timestamptz NOT NULL DEFAULT now(),
  voided_at    timestamptz
) WITH (fillfactor = 70);
CREATE INDEX ON document (customer_id);

CREATE TABLE customer_report (
  report_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  customer_id  text NOT NULL,
  currency     text NOT NULL,
  status       text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'published')),
  total        numeric,
  opened_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  published_at timestamptz,
  CHECK ((status = 'published') = (total IS NOT NULL AND published_at IS NOT NULL))
);
CREATE UNIQUE INDEX ON customer_report (customer_id, currency) WHERE status = 'open';

CREATE TABLE report_line (
  document_id   text PRIMARY KEY,
  report_id     bigint,
  customer_id   text NOT NULL,
  currency      text NOT NULL,
  amount        numeric NOT NULL,
  status        text NOT NULL DEFAULT 'included' CHECK (status IN ('included', 'reserved', 'voided')),
  process_id    uuid,
  reserved_from bigint,
  CHECK ((status = 'included') = (report_id IS NOT NULL))
) WITH (fillfactor = 70);
CREATE INDEX ON report_line (report_id);

CREATE SEQUENCE position;
CREATE TABLE event (
  position       bigint PRIMARY KEY,
  event_id       uuid NOT NULL,
  type           text NOT NULL,
  source         text NOT NULL,
  subject        text NOT NULL,
  correlation_id uuid NOT NULL,
  causation_id   uuid,
  data           jsonb NOT NULL,
  recorded_at    timestamptz NOT NULL,
  xid            xid8 NOT NULL,
  actor          text NOT NULL,
  process_id     uuid,
  steps          jsonb
);
CREATE INDEX ON event (process_id) WHERE process_id IS NOT NULL;
-- the same for readers by snapshot
CREATE OPERATOR CLASS xid8_minmax_ops FOR TYPE xid8 USING brin AS
  OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >,
  FUNCTION 1 brin_minmax_opcinfo(internal), FUNCTION 2 brin_minmax_add_value(internal, internal, internal, internal),
  FUNCTION 3 brin_minmax_consistent(internal, internal, internal), FUNCTION 4 brin_minmax_union(internal, internal, internal);
CREATE INDEX ON event USING brin (xid xid8_minmax_ops) WITH (pages_per_range = 32, autosummarize = on);

CREATE TABLE active_process (
  process_id   uuid PRIMARY KEY,
  type         text NOT NULL,
  version      integer NOT NULL,
  key          text NOT NULL,
  state        text NOT NULL,
  failed       boolean NOT NULL,
  data         jsonb NOT NULL,
  started_at   timestamptz NOT NULL,
  since        timestamptz NOT NULL,
  updated_at   timestamptz NOT NULL,
  conversation uuid NOT NULL,
  task         text
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX ON active_process (type, key);

CREATE TABLE finished_process (
  LIKE active_process,
  finished_at timestamptz NOT NULL,
  outcome     text NOT NULL,
  reason      text,
  result      jsonb,
  PRIMARY KEY (process_id)
);
CREATE INDEX ON finished_process (type, key);

CREATE TABLE outbox (
  id             uuid NOT NULL,
  aggregatetype  text NOT NULL,
  aggregateid    text NOT NULL,
  type           text NOT NULL,
  payload        jsonb NOT NULL,
  source         text NOT NULL,
  destination    text NOT NULL,
  correlation_id uuid NOT NULL,
  causation_id   uuid,
  attempts       integer NOT NULL,
  available_at   timestamptz NOT NULL,
  created_at     timestamptz NOT NULL,
  bucket         smallint NOT NULL,
  xid            xid8 NOT NULL,
  seq            bigint PRIMARY KEY,
  sent_in        text,
  error          text
);

CREATE TABLE timer (
  process_id uuid NOT NULL,
  name       text NOT NULL,
  state      text NOT NULL,
  due_at     timestamptz NOT NULL,
  held       boolean NOT NULL DEFAULT false,
  PRIMARY KEY (process_id, name)
);
CREATE INDEX ON timer (due_at) WHERE NOT held;

CREATE TABLE tick (i integer);

-- documents that Reports has in its open reports
CREATE FUNCTION issue(first bigint, last bigint, customers integer) RETURNS void LANGUAGE sql AS $$
  WITH d AS (
    INSERT INTO document (document_id, customer_id, amount)
    SELECT 'D' || i, 'C' || i % customers, (i % 100000 / 100.0)::numeric(9, 2) FROM generate_series(first, last) i
    RETURNING *),
  r AS (
    INSERT INTO customer_report (customer_id, currency) SELECT DISTINCT customer_id, 'EUR' FROM d
    ON CONFLICT (customer_id, currency) WHERE status = 'open' DO UPDATE SET status = excluded.status
    RETURNING *),
  l AS (
    INSERT INTO report_line (document_id, report_id, customer_id, currency, amount)
    SELECT document_id, report_id, customer_id, d.currency, amount FROM d JOIN r USING (customer_id))
  INSERT INTO event
  SELECT nextval('position'), gen_random_uuid(), 'DocumentIssued', 'billing', document_id, gen_random_uuid(), NULL,
         jsonb_build_object('document_id', document_id, 'customer_id', customer_id, 'kind', kind, 'amount', amount,
                            'currency', currency, 'issued_at', issued_at),
         clock_timestamp(), pg_current_xact_id(), session_user, NULL, NULL FROM d
$$;

-- version 7: ids made later sort behind, which is kinder to the indexes
CREATE FUNCTION new_id() RETURNS uuid LANGUAGE sql VOLATILE AS $$
  SELECT encode(set_byte(substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
                         || substring(uuid_send(gen_random_uuid()) FROM 7), 6,
                112 + (random() * 15)::integer), 'hex')::uuid
$$;

-- Billing asks
CREATE FUNCTION request(id text, why text, OUT process uuid, OUT message bigint) LANGUAGE plpgsql AS $$
DECLARE
  d record;
  j jsonb;
  e uuid := gen_random_uuid();
  t timestamptz := clock_timestamp();
BEGIN
  process := new_id();
  UPDATE document SET status = 'voiding_requested', void_reason = why, requested_by = session_user, process_id = process
   WHERE document_id = id AND status = 'issued' RETURNING customer_id, currency INTO d;
  IF NOT FOUND THEN
    SELECT process_id INTO STRICT process FROM document WHERE document_id = id;
    RETURN;
  END IF;
  j := jsonb_build_object('document_id', id, 'customer_id', d.customer_id, 'currency', d.currency, 'reason', why,
                          'requested_by', session_user);
  INSERT INTO active_process
  VALUES (process, 'document_voiding', 1, id, 'VoidingRequested', false, j, t, t, t, process, NULL);
  INSERT INTO timer VALUES (process, 'PT1H', 'VoidingRequested', t + interval '1 hour');
  INSERT INTO event
  VALUES (nextval('position'), e, 'DocumentVoidingRequested', 'billing', id, process, NULL, j, t, pg_current_xact_id(),
          session_user, process,
          '[{"event": "DocumentVoidingRequested", "from": null, "to": "VoidingRequested", "send": ["MarkDocumentAsVoided"]}]');
  INSERT INTO outbox
  VALUES (gen_random_uuid(), 'reports', id, 'MarkDocumentAsVoided', j || jsonb_build_object('process_id', process), 'voiding',
          'reports', process, e, 0, t, t, hashtext(id) & 63, pg_current_xact_id(), nextval('position'), 'VoidingRequested', NULL)
  RETURNING seq INTO message;
END $$;

-- Reports marks, unless the report has been published, and the process moves;
-- the command that it sends is put into the outbox if that is asked for
CREATE FUNCTION mark(document text, process uuid, cause uuid, send boolean, OUT command uuid, OUT message bigint) LANGUAGE plpgsql AS $$
DECLARE
  l record;
  j jsonb;
  e uuid := gen_random_uuid();
  t timestamptz := clock_timestamp();
BEGIN
  command := gen_random_uuid();
  UPDATE report_line x SET status = 'reserved', process_id = process, report_id = NULL, reserved_from = x.report_id
    FROM (SELECT r.report_id FROM report_line y JOIN customer_report r USING (report_id)
           WHERE y.document_id = document AND r.status = 'open' FOR SHARE OF r) o
   WHERE x.document_id = document AND x.report_id = o.report_id
  RETURNING x.reserved_from, x.amount INTO STRICT l;
  UPDATE active_process SET state = 'MarkingDocumentAsVoidedSucceeded', since = t, updated_at = t
   WHERE process_id = process AND state = 'VoidingRequested' RETURNING data INTO STRICT j;
  UPDATE timer SET state = 'MarkingDocumentAsVoidedSucceeded', due_at = t + interval '1 hour'
   WHERE process_id = process AND name = 'PT1H';
  INSERT INTO event
  VALUES (nextval('position'), e, 'MarkingDocumentAsVoidedSucceeded', 'reports', document, process, cause,
          jsonb_build_object('document_id', document, 'report_id', l.reserved_from, 'amount', l.amount), t,
          pg_current_xact_id(), session_user, process,
          '[{"event": "MarkingDocumentAsVoidedSucceeded", "from": "VoidingRequested", "to": "MarkingDocumentAsVoidedSucceeded", "send": ["CompleteDocumentVoiding"]}]');
  IF send THEN
    INSERT INTO outbox
    VALUES (command, 'billing', document, 'CompleteDocumentVoiding', j || jsonb_build_object('process_id', process), 'voiding',
            'billing', process, e, 0, t, t, hashtext(document) & 63, pg_current_xact_id(), nextval('position'),
            'MarkingDocumentAsVoidedSucceeded', NULL)
    RETURNING seq INTO message;
  END IF;
END $$;

-- Billing completes, the process ends; what Reports does when it hears of it,
-- a transaction of its own otherwise, is done here too
CREATE FUNCTION complete(document text, process uuid, cause uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  t timestamptz := clock_timestamp();
BEGIN
  UPDATE document x SET status = 'voided', voided_at = t
   WHERE x.document_id = document AND x.process_id = process AND x.status = 'voiding_requested';
  WITH a AS (DELETE FROM active_process WHERE process_id = process RETURNING *)
  INSERT INTO finished_process
  SELECT process_id, type, version, key, 'DocumentVoided', failed, data, started_at, t, t, conversation, task, t, 'done' FROM a;
  DELETE FROM timer WHERE process_id = process;
  INSERT INTO event
  VALUES (nextval('position'), gen_random_uuid(), 'DocumentVoided', 'billing', document, process, cause,
          jsonb_build_object('document_id', document, 'voided_at', t), t, pg_current_xact_id(), session_user, process,
          '[{"event": "DocumentVoided", "from": "MarkingDocumentAsVoidedSucceeded", "to": "DocumentVoided"}]');
  UPDATE report_line SET status = 'voided' WHERE document_id = document AND process_id = process;
END $$;

CREATE FUNCTION mark_message(INOUT message bigint) LANGUAGE plpgsql AS $$
DECLARE
  m record;
BEGIN
  DELETE FROM outbox WHERE seq = message RETURNING aggregateid, correlation_id, id INTO STRICT m;
  SELECT k.message INTO message FROM mark(m.aggregateid, m.correlation_id, m.id, true) k;
END $$;

CREATE FUNCTION complete_message(message bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  m record;
BEGIN
  DELETE FROM outbox WHERE seq = message RETURNING aggregateid, correlation_id, id INTO STRICT m;
  PERFORM complete(m.aggregateid, m.correlation_id, m.id);
END $$;

-- a message and what follows from it, in one transaction
CREATE FUNCTION handle(message bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  m record;
  k record;
BEGIN
  DELETE FROM outbox WHERE seq = message RETURNING aggregateid, correlation_id, id INTO STRICT m;
  k := mark(m.aggregateid, m.correlation_id, m.id, false);
  PERFORM complete(m.aggregateid, m.correlation_id, k.command);
END $$;

CREATE FUNCTION all_in_one(id text, why text) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
  r record := request(id, why);
BEGIN
  PERFORM handle(r.message);
  RETURN r.process;
END $$;

-- A worker for a backlog of requests: a hundred in a transaction, each with
-- what follows from it, one after the other.
CREATE PROCEDURE drain() LANGUAGE plpgsql AS $$
DECLARE
  m bigint;
BEGIN
  LOOP
    FOR m IN SELECT seq FROM outbox ORDER BY seq LIMIT 100 LOOP
      PERFORM handle(m);
    END LOOP;
    EXIT WHEN NOT FOUND;
    COMMIT;
  END LOOP;
END $$;

-- The same in sets: handle() as statements for a hundred messages.
CREATE TYPE marked AS (document text, process uuid, command uuid);

CREATE FUNCTION mark_all(m outbox[]) RETURNS marked[] LANGUAGE plpgsql AS $$
DECLARE
  t timestamptz := clock_timestamp();
  done marked[];
BEGIN
  PERFORM FROM customer_report r
    WHERE r.status = 'open' AND r.report_id IN (
          SELECT l.report_id FROM report_line l JOIN unnest(m) u ON l.document_id = u.aggregateid)
    ORDER BY r.report_id FOR SHARE;
  WITH l AS (
    UPDATE report_line x SET status = 'reserved', process_id = u.correlation_id, report_id = NULL, reserved_from = x.report_id
      FROM unnest(m) u, customer_report r
     WHERE x.document_id = u.aggregateid AND r.report_id = x.report_id AND r.status = 'open'
    RETURNING u.id, u.aggregateid, u.correlation_id, x.reserved_from, x.amount),
  p AS (
    UPDATE active_process x SET state = 'MarkingDocumentAsVoidedSucceeded', since = t, updated_at = t
      FROM l WHERE x.process_id = l.correlation_id AND x.state = 'VoidingRequested'),
  d AS (
    UPDATE timer x SET state = 'MarkingDocumentAsVoidedSucceeded', due_at = t + interval '1 hour'
      FROM l WHERE x.process_id = l.correlation_id AND x.name = 'PT1H'),
  e AS (
    INSERT INTO event
    SELECT nextval('position'), gen_random_uuid(), 'MarkingDocumentAsVoidedSucceeded', 'reports', aggregateid, correlation_id, id,
           jsonb_build_object('document_id', aggregateid, 'report_id', reserved_from, 'amount', amount), t,
           pg_current_xact_id(), session_user, correlation_id,
           '[{"event": "MarkingDocumentAsVoidedSucceeded", "from": "VoidingRequested", "to": "MarkingDocumentAsVoidedSucceeded", "send": ["CompleteDocumentVoiding"]}]'
      FROM l)
  SELECT array_agg(ROW (aggregateid, correlation_id, gen_random_uuid())::marked) INTO done FROM l;
  RETURN done;
END $$;

CREATE FUNCTION complete_all(m marked[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  t timestamptz := clock_timestamp();
BEGIN
  WITH x AS (
    UPDATE document y SET status = 'voided', voided_at = t
      FROM unnest(m) u WHERE y.document_id = u.document AND y.process_id = u.process AND y.status = 'voiding_requested'
    RETURNING u.*),
  a AS (
    DELETE FROM active_process y USING x WHERE y.process_id = x.process RETURNING y.*),
  d AS (
    DELETE FROM timer y USING x WHERE y.process_id = x.process),
  l AS (
    UPDATE report_line y SET status = 'voided' FROM x WHERE y.document_id = x.document AND y.process_id = x.process),
  e AS (
    INSERT INTO event
    SELECT nextval('position'), gen_random_uuid(), 'DocumentVoided', 'billing', document, process, command,
           jsonb_build_object('document_id', document, 'voided_at', t), t, pg_current_xact_id(), session_user, process,
           '[{"event": "DocumentVoided", "from": "MarkingDocumentAsVoidedSucceeded", "to": "DocumentVoided"}]' FROM x)
  INSERT INTO finished_process
  SELECT process_id, type, version, key, 'DocumentVoided', failed, data, started_at, t, t, conversation, task, t, 'done' FROM a;
END $$;

CREATE PROCEDURE drain_sets() LANGUAGE plpgsql AS $$
DECLARE
  m outbox[];
BEGIN
  LOOP
    WITH gone AS (
      DELETE FROM outbox WHERE seq = ANY (ARRAY(SELECT seq FROM outbox ORDER BY seq LIMIT 100)) RETURNING outbox)
    SELECT array_agg(outbox ORDER BY (outbox).seq) INTO m FROM gone;
    EXIT WHEN m IS NULL;
    PERFORM complete_all(mark_all(m));
    COMMIT;
  END LOOP;
END $$;
