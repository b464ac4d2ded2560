-- billing.sql: the service Billing: it issues documents and voids them.
--
-- An ordinary schema that uses the engine's public calls only. This file is
-- run by voiding.create_document_voiding(); by hand: psql -v billing=NAME.
--
-- A document is issued, then voiding_requested, then voided, or issued again
-- when the voiding was aborted. Each change of status is an event, whoever
-- makes it and however; the functions below are the ways that say why not.

SELECT voiding.create_service(:'billing');

CREATE DOMAIN :"billing".currency AS text CONSTRAINT currency_is_known CHECK (VALUE = ANY (
  '{AED,AFN,ALL,AMD,ANG,AOA,ARS,AUD,AWG,AZN,BAM,BBD,BDT,BGN,BHD,BIF,BMD,BND,BOB,BOV,BRL,BSD,BTN,BWP,BYN,BZD,CAD,CDF,CHE,CHF,CHW,
    CLF,CLP,CNY,COP,COU,CRC,CUP,CVE,CZK,DJF,DKK,DOP,DZD,EGP,ERN,ETB,EUR,FJD,FKP,GBP,GEL,GHS,GIP,GMD,GNF,GTQ,GYD,HKD,HNL,HTG,HUF,
    IDR,ILS,INR,IQD,IRR,ISK,JMD,JOD,JPY,KES,KGS,KHR,KMF,KPW,KRW,KWD,KYD,KZT,LAK,LBP,LKR,LRD,LSL,LYD,MAD,MDL,MGA,MKD,MMK,MNT,MOP,
    MRU,MUR,MVR,MWK,MXN,MXV,MYR,MZN,NAD,NGN,NIO,NOK,NPR,NZD,OMR,PAB,PEN,PGK,PHP,PKR,PLN,PYG,QAR,RON,RSD,RUB,RWF,SAR,SBD,SCR,SDG,
    SEK,SGD,SHP,SLE,SOS,SRD,SSP,STN,SVC,SYP,SZL,THB,TJS,TMT,TND,TOP,TRY,TTD,TWD,TZS,UAH,UGX,USD,USN,UYI,UYU,UYW,UZS,VED,VES,VND,
    VUV,WST,XAF,XCD,XCG,XOF,XPF,YER,ZAR,ZMW,ZWG}'::text[]));
COMMENT ON DOMAIN :"billing".currency IS 'ISO 4217 code of a currency';

CREATE TABLE :"billing".document (
  document_id  text PRIMARY KEY,
  customer_id  text NOT NULL,
  kind         text NOT NULL DEFAULT 'invoice',
  amount       numeric NOT NULL,
  currency     :"billing".currency NOT NULL DEFAULT 'EUR',
  status       text NOT NULL DEFAULT 'issued',
  void_reason  text,
  requested_by text,
  process_id   uuid,
  issued_at    timestamptz NOT NULL DEFAULT now(),
  voided_at    timestamptz
) WITH (fillfactor = 70);            -- room for the changes of status
CREATE INDEX document_customer_id ON :"billing".document (customer_id);
COMMENT ON TABLE :"billing".document IS 'documents: invoices and the like';
COMMENT ON COLUMN :"billing".document.process_id IS 'the last process that was to void it';

CREATE TABLE :"billing".aborted_voiding (
  process_id  uuid PRIMARY KEY,
  document_id text NOT NULL,
  reason      text,
  aborted_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE :"billing".aborted_voiding IS 'voidings that were aborted: what still comes for them is refused';

-- What a document may be and become, however it comes and changes. Triggers, not
-- CHECK constraints: those are read and compiled anew by each statement, which
-- would be a quarter of the cost of asking for a voiding. For the same reason
-- conditions are arguments of the triggers of events, not WHEN clauses.
CREATE FUNCTION :"billing".refuse_document() RETURNS trigger
  LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = :"billing", pg_temp
AS $$
BEGIN
  PERFORM check_issue(NEW.document_id, NEW.customer_id, NEW.amount, NEW.currency, NEW.kind);
  RAISE EXCEPTION 'document "%" cannot begin as %', NEW.document_id, NEW.status
    USING ERRCODE = 'invalid_parameter_value', HINT = 'Issue it, then void it with void_document().';
END $$;

CREATE FUNCTION :"billing".refuse_change() RETURNS trigger
  LANGUAGE plpgsql VOLATILE SET search_path = :"billing", pg_temp
AS $$
BEGIN
  RAISE EXCEPTION 'document "%" has been issued and is not changed any more', OLD.document_id
    USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Void it, and issue another one.';
END $$;

-- The change that clients wait for comes first, in one expression: PL/pgSQL
-- prepares each of them anew in every transaction.
CREATE FUNCTION :"billing".check_document() RETURNS trigger
  LANGUAGE plpgsql VOLATILE SET search_path = :"billing", pg_temp
AS $$
BEGIN
  IF OLD.status = 'issued' AND NEW.status = 'voiding_requested' AND NEW.voided_at IS NULL AND coalesce(length(NEW.void_reason), 0) <= 2000 THEN
    RETURN NEW;
  ELSIF length(NEW.void_reason) > 2000 THEN
    RAISE EXCEPTION 'the reason for voiding document "%" has % characters', OLD.document_id, length(NEW.void_reason)
      USING ERRCODE = 'invalid_parameter_value', HINT = 'It may have 2000.';
  ELSIF OLD.status = 'voiding_requested' AND NEW.status = 'voided' THEN
    NEW.voided_at := coalesce(NEW.voided_at, clock_timestamp());
  ELSIF OLD.status = 'voiding_requested' AND NEW.status = 'issued' THEN
    IF NOT EXISTS (SELECT FROM aborted_voiding a WHERE a.process_id = OLD.process_id) THEN
      RAISE EXCEPTION 'document "%" is being voided', OLD.document_id
        USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'abort_document_voiding() gives that up.';
    END IF;
  ELSIF OLD.status <> NEW.status AND NOT (OLD.status = 'issued' AND NEW.status = 'voiding_requested') THEN
    RAISE EXCEPTION 'document "%" cannot go from % to %', OLD.document_id, OLD.status, NEW.status
      USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'void_document() asks for a voiding.';
  END IF;
  IF (NEW.status = 'voided') <> (NEW.voided_at IS NOT NULL) THEN
    RAISE EXCEPTION 'document "%" is %, but voided_at is %', OLD.document_id, NEW.status, coalesce(NEW.voided_at::text, 'null')
      USING ERRCODE = 'invalid_parameter_value', HINT = 'void_document() asks for a voiding.';
  END IF;
  RETURN NEW;
END $$;

CREATE TRIGGER check_document_insert BEFORE INSERT ON :"billing".document
  FOR EACH ROW WHEN (NOT (NEW.status = 'issued' AND NEW.voided_at IS NULL AND NEW.amount >= 0 AND NEW.amount < 'Infinity'
    AND NEW.document_id <> '' AND length(NEW.document_id) <= 200 AND NEW.customer_id <> '' AND length(NEW.customer_id) <= 200
    AND NEW.kind <> '' AND length(NEW.kind) <= 50))
  EXECUTE FUNCTION :"billing".refuse_document();
CREATE TRIGGER check_document_change BEFORE UPDATE OF document_id, customer_id, kind, amount, currency ON :"billing".document
  FOR EACH ROW WHEN (NEW.document_id IS DISTINCT FROM OLD.document_id OR NEW.customer_id IS DISTINCT FROM OLD.customer_id
    OR NEW.kind IS DISTINCT FROM OLD.kind OR NEW.amount IS DISTINCT FROM OLD.amount OR NEW.currency IS DISTINCT FROM OLD.currency)
  EXECUTE FUNCTION :"billing".refuse_change();
CREATE TRIGGER check_document_update BEFORE UPDATE ON :"billing".document
  FOR EACH ROW EXECUTE FUNCTION :"billing".check_document();
-- a voiding that failed must be seen by a person before the next one
CREATE TRIGGER document_voiding_begins BEFORE UPDATE ON :"billing".document
  FOR EACH ROW EXECUTE FUNCTION voiding.begin_conversation('process_id', '@becomes=status=voiding_requested',
    '@process=document_voiding', '@subject=document_id');

CREATE TRIGGER document_issued AFTER INSERT ON :"billing".document
  FOR EACH ROW EXECUTE FUNCTION voiding.emit_event('DocumentIssued',
    'document_id', 'customer_id', 'kind', 'amount', 'currency', 'issued_at');
CREATE TRIGGER document_voiding_requested AFTER UPDATE ON :"billing".document
  FOR EACH ROW EXECUTE FUNCTION voiding.emit_event('DocumentVoidingRequested', '@becomes=status=voiding_requested', '@correlation=process_id',
    'document_id', 'customer_id', 'currency', 'reason=void_reason', 'requested_by');
CREATE TRIGGER document_voided AFTER UPDATE ON :"billing".document
  FOR EACH ROW EXECUTE FUNCTION voiding.emit_event('DocumentVoided', '@becomes=status=voided', '@correlation=process_id', 'document_id', 'voided_at');
CREATE TRIGGER document_voiding_aborted AFTER INSERT ON :"billing".aborted_voiding
  FOR EACH ROW EXECUTE FUNCTION voiding.emit_event('DocumentVoidingAborted', '@correlation=process_id',
    'document_id', 'reason');

CREATE FUNCTION :"billing".issue_document(document_id text, customer_id text, amount numeric, currency text DEFAULT 'EUR',
    kind text DEFAULT 'invoice', issued_at timestamptz DEFAULT now()) RETURNS :"billing".document
  LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = :"billing", pg_temp
AS $$
#variable_conflict use_column
DECLARE
  d document;
BEGIN
  PERFORM check_issue(issue_document.document_id, issue_document.customer_id, issue_document.amount,
                      issue_document.currency, issue_document.kind);
  INSERT INTO document (document_id, customer_id, kind, amount, currency, issued_at)
  VALUES (issue_document.document_id, issue_document.customer_id, issue_document.kind, issue_document.amount,
          issue_document.currency, coalesce(issue_document.issued_at, now()))
  ON CONFLICT (document_id) DO NOTHING
  RETURNING * INTO d;
  IF NOT FOUND THEN
    SELECT * INTO d FROM document x WHERE x.document_id = issue_document.document_id;
    -- issued_at counts only where the caller gave one
    IF (d.customer_id, d.kind, d.amount, d.currency::text)
       IS DISTINCT FROM (issue_document.customer_id, issue_document.kind, issue_document.amount, issue_document.currency)
       OR issue_document.issued_at NOT IN (d.issued_at, now()) THEN
      RAISE EXCEPTION 'another document "%" has been issued already', d.document_id
        USING ERRCODE = 'unique_violation',
              DETAIL = format('%s of %s %s for customer "%s", issued at %s.', d.kind, d.amount, d.currency, d.customer_id, d.issued_at),
              HINT = 'A document is issued once; the same call again is the same document.';
    END IF;
  END IF;
  RETURN d;
END $$;
COMMENT ON FUNCTION :"billing".issue_document(text, text, numeric, text, text, timestamptz) IS
  'issue a document; the same call again is a no-op';

CREATE FUNCTION :"billing".check_issue(document_id text, customer_id text, amount numeric, currency text, kind text) RETURNS void
  LANGUAGE plpgsql STABLE SET search_path = :"billing", pg_temp
AS $$
DECLARE
  wrong text := CASE
    WHEN coalesce(document_id, '') = '' THEN 'document_id is empty'
    WHEN length(document_id) > 200 THEN format('document_id has %s characters', length(document_id))
    WHEN coalesce(customer_id, '') = '' THEN 'customer_id is empty'
    WHEN length(customer_id) > 200 THEN format('customer_id has %s characters', length(customer_id))
    WHEN amount IS NULL OR amount = 'NaN' OR amount IN ('Infinity', '-Infinity') THEN format('amount is %s', coalesce(amount::text, 'null'))
    WHEN amount < 0 THEN format('amount is negative: %s', amount)
    WHEN coalesce(kind, '') = '' OR length(kind) > 50 THEN 'kind is empty or too long' END;
BEGIN
  IF wrong IS NOT NULL THEN
    RAISE EXCEPTION 'document cannot be issued: %', wrong
      USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Ids have 1 to 200 characters; an amount is a number, 0 or more.';
  END IF;
  BEGIN
    PERFORM currency::currency WHERE currency IS NOT NULL;
    IF currency IS NULL THEN
      RAISE check_violation;
    END IF;
  EXCEPTION WHEN check_violation THEN
    RAISE EXCEPTION 'document cannot be issued: unknown currency "%"', left(currency, 20)
      USING ERRCODE = 'invalid_parameter_value', HINT = 'Give an ISO 4217 code: EUR, GBP, ...';
  END;
END $$;

CREATE FUNCTION :"billing".void_document(document_id text, reason text DEFAULT NULL) RETURNS uuid
  LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = :"billing", pg_temp
AS $$
#variable_conflict use_column
DECLARE
  process uuid;
  d document;
BEGIN
  LOOP
    -- as it mostly is; refused if the last voiding failed and nobody has acknowledged that
    UPDATE document x
       SET status = 'voiding_requested', void_reason = void_document.reason, requested_by = coalesce(voiding.sender(), voiding.caller())
     WHERE x.document_id = void_document.document_id AND x.status = 'issued'
    RETURNING x.process_id INTO process;
    IF FOUND THEN
      RETURN process;
    END IF;
    SELECT * INTO d FROM document x WHERE x.document_id = void_document.document_id FOR UPDATE;
    IF NOT FOUND THEN
      RAISE EXCEPTION 'there is no document "%"', left(void_document.document_id, 200)
        USING ERRCODE = 'VD04A', HINT = 'Issue it first.';
    END IF;
    IF d.status = 'voided' OR EXISTS (SELECT FROM voiding.process_for('document_voiding', d.document_id) p
                                       WHERE p.process_id = d.process_id AND NOT p.failed)
       OR d.status = 'voiding_requested' AND NOT EXISTS (SELECT FROM voiding.process_type t WHERE t.name = 'document_voiding') THEN
      RETURN d.process_id;                      -- (the last: processes are in another database)
    ELSIF d.status = 'voiding_requested' THEN
      -- the old voiding has ended or failed, its abort is still on its way: do it first
      PERFORM abort_document_voiding(d.document_id, d.process_id, 'a new voiding was requested');
    END IF;
  END LOOP;
END $$;
COMMENT ON FUNCTION :"billing".void_document(text, text) IS
  'ask that a document be voided; returns the id of the process that does it';

CREATE FUNCTION :"billing".complete_document_voiding(document_id text, process_id uuid) RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = :"billing", pg_temp
AS $$
#variable_conflict use_column
DECLARE
  d document := lock_for(complete_document_voiding.document_id, complete_document_voiding.process_id);
BEGIN
  IF d.status = 'voiding_requested' THEN
    UPDATE document x SET status = 'voided', voided_at = clock_timestamp() WHERE x.document_id = d.document_id;
  END IF;
END $$;
COMMENT ON FUNCTION :"billing".complete_document_voiding(text, uuid) IS 'void the document, unless that was aborted';

-- For many documents: those where all is as it should be at once; if those are
-- not all, each by itself, which does no harm to what is done. One plan for any
-- number, which must not depend on how small the tables once were.
CREATE FUNCTION :"billing".complete_document_voidings(document_id text[], process_id uuid[]) RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = :"billing", pg_temp SET plan_cache_mode = force_generic_plan
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
  done bigint;
BEGIN
  -- (one that was aborted has not this status with this process any more)
  UPDATE document x SET status = 'voided', voided_at = clock_timestamp()
    FROM unnest(complete_document_voidings.document_id, complete_document_voidings.process_id) m (document_id, process_id)
   WHERE x.document_id = m.document_id AND x.process_id = m.process_id AND x.status = 'voiding_requested';
  GET DIAGNOSTICS done = ROW_COUNT;
  IF done < cardinality(complete_document_voidings.document_id) THEN
    FOR i IN 1 .. cardinality(complete_document_voidings.document_id) LOOP
      PERFORM complete_document_voiding(complete_document_voidings.document_id[i], complete_document_voidings.process_id[i]);
    END LOOP;
  END IF;
END $$;
COMMENT ON FUNCTION :"billing".complete_document_voidings(text[], uuid[]) IS 'handler: void documents, except where that was aborted';

CREATE FUNCTION :"billing".abort_document_voiding(document_id text, process_id uuid, reason text) RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = :"billing", pg_temp
AS $$
#variable_conflict use_column
DECLARE
  d document := lock_for(abort_document_voiding.document_id, abort_document_voiding.process_id);
BEGIN
  IF d.status = 'voiding_requested' THEN
    INSERT INTO aborted_voiding (process_id, document_id, reason)
    VALUES (abort_document_voiding.process_id, d.document_id, abort_document_voiding.reason);
    UPDATE document x SET status = 'issued' WHERE x.document_id = d.document_id;
  END IF;
END $$;
COMMENT ON FUNCTION :"billing".abort_document_voiding(text, uuid, text) IS
  'handler: the document is not voided after all; nothing to do if it has been';

-- Only processes in another database refuse: one here is asked before.
CREATE FUNCTION :"billing".refuse_document_voiding(document_id text, requested_process uuid, reason text) RETURNS void
  LANGUAGE sql VOLATILE SET search_path = :"billing", pg_temp
AS $$ SELECT abort_document_voiding(document_id, requested_process, reason) $$;
COMMENT ON FUNCTION :"billing".refuse_document_voiding(text, uuid, text) IS 'handler: the document is not voided: no process was started';

-- The document, locked, for a process that is voiding it. Nothing (a null row)
-- when that voiding was aborted before; an error for a process that never was.
CREATE FUNCTION :"billing".lock_for(document_id text, process_id uuid) RETURNS :"billing".document
  LANGUAGE plpgsql VOLATILE SET search_path = :"billing", pg_temp
AS $$
#variable_conflict use_column
DECLARE
  d document;
BEGIN
  SELECT * INTO d FROM document x WHERE x.document_id = lock_for.document_id FOR UPDATE;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'there is no document "%"', left(lock_for.document_id, 200) USING ERRCODE = 'VD04A';
  END IF;
  IF EXISTS (SELECT FROM aborted_voiding a WHERE a.process_id = lock_for.process_id) THEN
    RETURN NULL;
  END IF;
  IF d.process_id IS DISTINCT FROM lock_for.process_id THEN
    RAISE EXCEPTION 'document "%" is not being voided by process %', d.document_id, lock_for.process_id
      USING ERRCODE = 'VD09C', DETAIL = format('Its process is %s.', coalesce(d.process_id::text, 'none'));
  END IF;
  RETURN d;
END $$;

-- Who may execute it may read every document.
CREATE FUNCTION :"billing".get_document(document_id text) RETURNS :"billing".document
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = :"billing", pg_temp
AS $$ SELECT d FROM document d WHERE d.document_id = get_document.document_id $$;
COMMENT ON FUNCTION :"billing".get_document(text) IS 'query "document": a document as it is now; null: there is none';

CREATE FUNCTION :"billing".acknowledge_process_failure(process_id uuid, reason text DEFAULT NULL) RETURNS void
  LANGUAGE sql VOLATILE SET search_path = :"billing", pg_temp
AS $$ SELECT voiding.acknowledge_process_failure(process_id, reason) $$;
COMMENT ON FUNCTION :"billing".acknowledge_process_failure(uuid, text) IS 'handler: take note of a failed voiding';

CREATE FUNCTION :"billing".check_invariants() RETURNS TABLE (invariant text, subject text, detail text)
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = :"billing", pg_temp
AS $$
  WITH said AS (
    SELECT e.subject, e.type, e.correlation_id FROM voiding.event e
     WHERE e.source = (SELECT s.name FROM voiding.service s WHERE s.schema = current_schema)),
  told AS (
    SELECT subject, count(*) FILTER (WHERE type = 'DocumentIssued') AS issued,
           count(*) FILTER (WHERE type = 'DocumentVoided') AS voided,
           count(*) FILTER (WHERE type = 'DocumentVoidingRequested') AS requested,
           count(*) FILTER (WHERE type = 'DocumentVoidingAborted') AS aborted
      FROM said GROUP BY subject)
  SELECT 'a document is issued by exactly one event', d.document_id, coalesce(t.issued, 0)::text
    FROM document d LEFT JOIN told t ON t.subject = d.document_id WHERE coalesce(t.issued, 0) <> 1
  UNION ALL
  SELECT 'a document is voided exactly if one event says so', d.document_id, format('%s, %s events', d.status, t.voided)
    FROM document d JOIN told t ON t.subject = d.document_id WHERE t.voided <> (d.status = 'voided')::integer
  UNION ALL
  SELECT 'each request is answered once, or still open', d.document_id,
         format('%s requested, %s voided, %s aborted', t.requested, t.voided, t.aborted)
    FROM document d JOIN told t ON t.subject = d.document_id
   WHERE t.requested <> t.voided + t.aborted + (d.status = 'voiding_requested')::integer
  UNION ALL
  SELECT 'a document that is being voided has a process that does it', d.document_id, d.process_id::text
    FROM document d
   WHERE d.status = 'voiding_requested' AND EXISTS (SELECT FROM voiding.process_type t WHERE t.name = 'document_voiding')
     AND NOT EXISTS (SELECT FROM voiding.ongoing_process o WHERE o.process_id = d.process_id AND o.key = d.document_id)
     AND NOT EXISTS (SELECT FROM voiding.outbox o WHERE o.correlation_id = d.process_id AND o.type = 'AbortDocumentVoiding')
  UNION ALL
  SELECT 'a process that ended well has voided its document', p.key, p.process_id::text
    FROM voiding.process p LEFT JOIN document d ON d.document_id = p.key AND d.status = 'voided' AND d.process_id = p.process_id
   WHERE p.type = 'document_voiding' AND p.state = 'DocumentVoided' AND d.document_id IS NULL
$$;
COMMENT ON FUNCTION :"billing".check_invariants() IS 'a row for each breach of what must always hold in Billing';

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA :"billing" FROM PUBLIC;

SELECT voiding.create_command('IssueDocument', format('%I.issue_document', :'billing')::regproc, resource => '/documents/{document_id}');
SELECT voiding.create_command('VoidDocument', format('%I.void_document', :'billing')::regproc, resource => '/documents/{document_id}');
SELECT voiding.create_command('AcknowledgeProcessFailure', format('%I.acknowledge_process_failure', :'billing')::regproc,
  resource => '/processes/{process_id}');
SELECT voiding.create_command('CompleteDocumentVoiding', format('%I.complete_document_voidings', :'billing')::regproc, takes_set => true);
SELECT voiding.create_command('AbortDocumentVoiding', format('%I.abort_document_voiding', :'billing')::regproc);
SELECT voiding.create_command('RefuseDocumentVoiding', format('%I.refuse_document_voiding', :'billing')::regproc);
SELECT voiding.create_query('document', format('%I.get_document', :'billing')::regproc);
