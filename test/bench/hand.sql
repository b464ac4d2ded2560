-- hand.sql: the same process written by hand in PL/pgSQL, with the rows that
-- voiding writes: document, event, process, outbox, timer, report line. As the
-- three transactions that an asynchronous process needs (request; Reports
-- marks; Billing completes), and squeezed into one.

CREATE SCHEMA hand;
SET search_path = hand;

CREATE TABLE document (document_id text PRIMARY KEY, customer_id text NOT NULL, amount numeric NOT NULL,
  currency text NOT NULL DEFAULT 'EUR', status text NOT NULL DEFAULT 'issued', void_reason text, process_id uuid,
  issued_at timestamptz NOT NULL DEFAULT now(), voided_at timestamptz);
CREATE INDEX ON document (customer_id);
CREATE TABLE report (report_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer_id text NOT NULL, status text NOT NULL DEFAULT 'open');
CREATE TABLE report_line (document_id text PRIMARY KEY, report_id bigint, amount numeric NOT NULL,
  status text NOT NULL DEFAULT 'included', process_id uuid);
CREATE INDEX ON report_line (report_id);
CREATE TABLE event (position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, event_id uuid NOT NULL DEFAULT gen_random_uuid(),
  type text NOT NULL, source text NOT NULL, subject text NOT NULL, correlation_id uuid NOT NULL, causation_id uuid,
  data jsonb NOT NULL, recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(), process_id uuid, steps jsonb);
CREATE INDEX ON event (process_id) WHERE process_id IS NOT NULL;
CREATE TABLE active_process (process_id uuid PRIMARY KEY, type text NOT NULL, key text NOT NULL, state text NOT NULL,
  data jsonb NOT NULL, started_at timestamptz NOT NULL, updated_at timestamptz NOT NULL, UNIQUE (type, key)) WITH (fillfactor = 80);
CREATE TABLE finished_process (LIKE active_process, finished_at timestamptz NOT NULL, PRIMARY KEY (process_id));
CREATE INDEX ON finished_process (type, key);
CREATE TABLE outbox (seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id uuid NOT NULL DEFAULT gen_random_uuid(), type text NOT NULL,
  key text NOT NULL, payload jsonb NOT NULL, destination text NOT NULL, correlation_id uuid NOT NULL, created_at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE TABLE timer (process_id uuid, name text, due_at timestamptz NOT NULL, PRIMARY KEY (process_id, name));
CREATE INDEX ON timer (due_at);

CREATE FUNCTION request(id text) RETURNS uuid LANGUAGE plpgsql SET search_path = hand AS $$
DECLARE d document; p uuid := gen_random_uuid(); data jsonb; e uuid;
BEGIN
  SELECT * INTO d FROM document WHERE document_id = id FOR UPDATE;
  IF d.status <> 'issued' OR EXISTS (SELECT FROM active_process WHERE type = 'document_voiding' AND key = id) THEN RETURN d.process_id; END IF;
  UPDATE document SET status = 'voiding_requested', void_reason = 'bench', process_id = p WHERE document_id = id;
  data := jsonb_build_object('document_id', id, 'customer_id', d.customer_id, 'currency', d.currency, 'reason', 'bench', 'requested_by', session_user);
  INSERT INTO event (type, source, subject, correlation_id, data, process_id, steps)
  VALUES ('DocumentVoidingRequested', 'billing', id, p, data, p, '[{"to": "VoidingRequested"}]') RETURNING event_id INTO e;
  INSERT INTO active_process VALUES (p, 'document_voiding', id, 'VoidingRequested', data, now(), now());
  INSERT INTO timer VALUES (p, 'PT1H', now() + interval '1 hour');
  INSERT INTO outbox (type, key, payload, destination, correlation_id) VALUES ('MarkDocumentAsVoided', id, data || jsonb_build_object('process_id', p), 'reports', p);
  RETURN p;
END $$;

CREATE FUNCTION mark(id text, p uuid) RETURNS void LANGUAGE plpgsql SET search_path = hand AS $$
DECLARE l report_line; s text; d jsonb; a active_process;
BEGIN
  SELECT * INTO l FROM report_line WHERE document_id = id FOR UPDATE;
  SELECT status INTO s FROM report WHERE report_id = l.report_id FOR SHARE;
  IF s <> 'open' THEN RETURN; END IF;
  UPDATE report_line SET status = 'reserved', process_id = p WHERE document_id = id;
  SELECT * INTO a FROM active_process WHERE process_id = p FOR UPDATE;
  INSERT INTO event (type, source, subject, correlation_id, data, process_id, steps)
  VALUES ('MarkingDocumentAsVoidedSucceeded', 'reports', id, p, jsonb_build_object('document_id', id, 'report_id', l.report_id, 'amount', l.amount), p, '[{"to": "MarkingDocumentAsVoidedSucceeded"}]');
  UPDATE active_process SET state = 'MarkingDocumentAsVoidedSucceeded', updated_at = now() WHERE process_id = p;
  DELETE FROM timer WHERE process_id = p;
  INSERT INTO timer VALUES (p, 'PT1H', now() + interval '1 hour');
  INSERT INTO outbox (type, key, payload, destination, correlation_id) VALUES ('CompleteDocumentVoiding', id, a.data || jsonb_build_object('process_id', p), 'billing', p);
END $$;

CREATE FUNCTION complete(id text, p uuid) RETURNS void LANGUAGE plpgsql SET search_path = hand AS $$
DECLARE d document; a active_process;
BEGIN
  SELECT * INTO d FROM document WHERE document_id = id FOR UPDATE;
  IF d.process_id <> p OR d.status <> 'voiding_requested' THEN RETURN; END IF;
  UPDATE document SET status = 'voided', voided_at = clock_timestamp() WHERE document_id = id;
  SELECT * INTO a FROM active_process WHERE process_id = p FOR UPDATE;
  INSERT INTO event (type, source, subject, correlation_id, data, process_id, steps)
  VALUES ('DocumentVoided', 'billing', id, p, jsonb_build_object('document_id', id, 'voided_at', now()), p, '[{"to": "DocumentVoided"}]');
  DELETE FROM active_process WHERE process_id = p;
  INSERT INTO finished_process VALUES (a.process_id, a.type, a.key, 'DocumentVoided', a.data, a.started_at, now(), now());
  DELETE FROM timer WHERE process_id = p;
  UPDATE report_line SET status = 'voided' WHERE document_id = id;
END $$;

-- the second and third transaction take their message out of the outbox
CREATE FUNCTION next_step(p uuid, id text, message text) RETURNS void LANGUAGE plpgsql SET search_path = hand AS $$
DECLARE m outbox;
BEGIN
  DELETE FROM outbox o WHERE o.seq = (SELECT x.seq FROM outbox x WHERE x.correlation_id = p AND x.type = message FOR UPDATE SKIP LOCKED) RETURNING * INTO m;
  IF message = 'MarkDocumentAsVoided' THEN PERFORM mark(id, p); ELSE PERFORM complete(id, p); END IF;
END $$;
CREATE INDEX ON outbox (correlation_id);

CREATE FUNCTION all_in_one(id text) RETURNS uuid LANGUAGE plpgsql SET search_path = hand AS $$
DECLARE p uuid := request(id);
BEGIN
  PERFORM next_step(p, id, 'MarkDocumentAsVoided');
  PERFORM next_step(p, id, 'CompleteDocumentVoiding');
  RETURN p;
END $$;
