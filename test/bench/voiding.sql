-- voiding.sql: what the benchmark needs beside the extension: documents,
-- publications, and what must hold afterwards. search_path is the database's.

CREATE EXTENSION voiding;
CREATE SCHEMA bench;
SET search_path = bench;

CREATE TABLE tick (i integer);

-- documents; Reports hears of them in dispatch()
CREATE FUNCTION issue(first bigint, last bigint, customers integer) RETURNS void LANGUAGE sql AS $$
  INSERT INTO billing.document (document_id, customer_id, amount)
  SELECT 'D' || i, 'C' || i % customers, (i % 100000 / 100.0)::numeric(9, 2) FROM generate_series(first, last) i
$$;

CREATE FUNCTION publish(customer text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM reports.publish_report(customer);
EXCEPTION WHEN SQLSTATE 'VD04C' THEN   -- nothing to publish
  NULL;
END $$;

-- What must hold when everything is done and failures are acknowledged. It
-- compares Billing's tables, Reports' tables and the events with each other.
CREATE FUNCTION breaches(requested integer) RETURNS TABLE (what text, n bigint) LANGUAGE sql STABLE AS $$
  SELECT v.* FROM (VALUES
    ('processes that have not ended', (SELECT count(*) FROM voiding.active_process)),
    ('requests without a process that ended', requested - (SELECT count(*) FROM voiding.finished_process)),
    ('messages left in the outbox', (SELECT count(*) FROM voiding.outbox)),
    ('dead letters', (SELECT count(*) FROM voiding.dead_letter)),
    ('parked events', (SELECT count(*) FROM voiding.parked_event)),
    ('deadlines left', (SELECT count(*) FROM voiding.timer)),
    ('open tasks', (SELECT count(*) FROM voiding.task WHERE state = 'ready')),
    ('breaches that voiding finds', (SELECT count(*) FROM voiding.check_invariants())),
    ('breaches that Billing finds', (SELECT count(*) FROM billing.check_invariants())),
    ('breaches that Reports finds', (SELECT count(*) FROM reports.check_invariants())),
    ('processes done without their document voided',
      (SELECT count(*) FROM voiding.finished_process p LEFT JOIN billing.document d ON d.process_id = p.process_id
        WHERE (p.outcome = 'done') IS DISTINCT FROM (d.status = 'voided'))),
    ('voided documents in a published report',
      (SELECT count(*) FROM billing.document d JOIN reports.report_line l USING (document_id)
                       JOIN reports.customer_report r USING (report_id) WHERE d.status = 'voided')),
    ('documents set aside after their report was published',
      (SELECT count(*) FROM voiding.event m JOIN voiding.event p ON p.type = 'ReportPublished' AND p.subject = m.data ->> 'report_id'
        WHERE m.type = 'MarkingDocumentAsVoidedSucceeded' AND m.position > p.position)),
    ('published reports without the total of Billing''s documents',
      (SELECT count(*) FROM reports.customer_report r
        WHERE r.status = 'published' AND r.total IS DISTINCT FROM (
              SELECT sum(d.amount) FROM reports.report_line l JOIN billing.document d USING (document_id)
               WHERE l.report_id = r.report_id AND d.status = 'issued'))),
    ('customers whose reports and voided documents are not what was issued, to the cent',
      (SELECT count(*) FROM (
         SELECT customer_id, sum(amount) AS issued, sum(amount) FILTER (WHERE status = 'voided') AS voided
           FROM billing.document GROUP BY customer_id) b
         LEFT JOIN (SELECT customer_id, sum(total) AS reported FROM reports.report GROUP BY customer_id) r USING (customer_id)
        WHERE b.issued <> coalesce(b.voided, 0) + coalesce(r.reported, 0)))
  ) v (what, n) WHERE v.n <> 0
$$;
