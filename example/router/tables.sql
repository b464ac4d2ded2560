-- tables.sql: whole tables of all shards, in a router (after router.sql). Each
-- look reads all of their rows: for tests, and for small data.

CREATE FUNCTION router.event() RETURNS TABLE ("position" bigint, event_id uuid, type text, source text, subject text, correlation_id uuid,
    causation_id uuid, data jsonb, recorded_at timestamptz, xid xid8, actor text, process_id uuid, steps jsonb)
  LANGUAGE plproxy
AS $$ CLUSTER 'voiding'; RUN ON ALL; SELECT v.* FROM voiding.event v; $$;
CREATE VIEW voiding.event AS SELECT * FROM router.event();

CREATE FUNCTION router.process_history() RETURNS TABLE (process_id uuid, type text, key text, step integer, event text, from_state text,
    to_state text, command text, at timestamptz, actor text, note text, source text, data jsonb, event_id uuid, "position" bigint)
  LANGUAGE plproxy
AS $$ CLUSTER 'voiding'; RUN ON ALL; SELECT v.* FROM voiding.process_history v; $$;
CREATE VIEW voiding.process_history AS SELECT * FROM router.process_history();

CREATE FUNCTION router.report_line() RETURNS TABLE (document_id text, report_id bigint, customer_id text, currency text, amount numeric, status text,
    process_id uuid, reserved_from bigint)
  LANGUAGE plproxy
AS $$ CLUSTER 'voiding'; RUN ON ALL; SELECT v.* FROM reports.report_line v; $$;
CREATE VIEW reports.report_line AS SELECT * FROM router.report_line();

CREATE FUNCTION router.process() RETURNS SETOF router.process
  LANGUAGE plproxy
AS $$ CLUSTER 'voiding'; RUN ON ALL; SELECT v.* FROM voiding.process v; $$;
CREATE VIEW voiding.process AS SELECT * FROM router.process();

CREATE FUNCTION router.command() RETURNS SETOF router.command
  LANGUAGE plproxy
AS $$ CLUSTER 'voiding'; RUN ON ALL; SELECT v.* FROM voiding.command v; $$;
CREATE VIEW voiding.command AS SELECT * FROM router.command();

CREATE FUNCTION router.task() RETURNS SETOF router.task
  LANGUAGE plproxy
AS $$ CLUSTER 'voiding'; RUN ON ALL; SELECT v.* FROM voiding.task v; $$;
CREATE VIEW voiding.task AS SELECT * FROM router.task();

CREATE FUNCTION router.document() RETURNS SETOF router.document
  LANGUAGE plproxy
AS $$ CLUSTER 'voiding'; RUN ON ALL; SELECT v.* FROM billing.document v; $$;
CREATE VIEW billing.document AS SELECT * FROM router.document();

CREATE FUNCTION router.report() RETURNS SETOF router.report
  LANGUAGE plproxy
AS $$ CLUSTER 'voiding'; RUN ON ALL; SELECT v.* FROM reports.report v; $$;
CREATE VIEW reports.report AS SELECT * FROM router.report();
