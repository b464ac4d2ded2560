-- look.sql: what the demo looks with. Nothing of this is needed to use the
-- extension: it notes row changes, and tells what one step brought about.

CREATE SCHEMA demo;

-- documents in the order of the file
CREATE VIEW demo.input AS
  SELECT row_number() OVER (ORDER BY e.position) AS n, d.document_id, d.customer_id, d.currency, d.amount
    FROM voiding.event e JOIN billing.document d ON d.document_id = e.subject
   WHERE e.type = 'DocumentIssued';

CREATE TABLE demo.chosen (document_id text PRIMARY KEY, batch text NOT NULL, n bigint NOT NULL);

CREATE TABLE demo.row_change (
  id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name    text NOT NULL,
  old_row jsonb NOT NULL,
  new_row jsonb NOT NULL
);

CREATE FUNCTION demo.note_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO demo.row_change (name, old_row, new_row)
  VALUES (format('%I.%I', TG_TABLE_SCHEMA, TG_TABLE_NAME),
          CASE TG_OP WHEN 'INSERT' THEN '{}' ELSE to_jsonb(OLD) END, to_jsonb(NEW));
  RETURN NULL;
END $$;

-- what had been told when the last step was over
CREATE TABLE demo.mark (row_change bigint NOT NULL, position bigint NOT NULL, told timestamptz NOT NULL);

CREATE FUNCTION demo.set_mark() RETURNS void LANGUAGE sql AS $$
  DELETE FROM demo.mark;
  INSERT INTO demo.mark
  SELECT (SELECT coalesce(max(id), 0) FROM demo.row_change), (SELECT coalesce(max(position), 0) FROM voiding.event), voiding.now();
$$;

CREATE FUNCTION demo.shown(v jsonb) RETURNS text LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE
    WHEN v = 'null' THEN '-'
    WHEN v #>> '{}' ~ '^[0-9a-f]{8}-[0-9a-f-]{27}$' THEN '..' || right(v #>> '{}', 6)
    WHEN v #>> '{}' ~ '^\d{4}-\d\d-\d\dT' THEN left(replace(v #>> '{}', 'T', ' '), 16)
    WHEN length(v #>> '{}') > 44 THEN left(v #>> '{}', 42) || '..'
    ELSE v #>> '{}' END
$$;

-- the columns that differ, as they are in one of the two rows
CREATE FUNCTION demo.columns(r jsonb, other jsonb) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT string_agg(c.key || ' ' || demo.shown(c.value), ', ' ORDER BY c.key <> 'status', c.key)
    FROM jsonb_each(r) c
   WHERE c.value IS DISTINCT FROM other -> c.key AND NOT (other = '{}' AND c.value = 'null')
     AND c.key !~ '_at$'
$$;

-- one label to a line; what is too long for a line goes on in the next
CREATE FUNCTION demo.wrapped(label text, what text) RETURNS SETOF text LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  line text := rpad('       ' || label, 17);
  word text;
BEGIN
  FOREACH word IN ARRAY string_to_array(what, ', ') LOOP
    IF length(line) > 17 AND length(line) + length(word) > 96 THEN
      RETURN NEXT line || ',';
      line := repeat(' ', 17);
    END IF;
    line := line || CASE WHEN length(line) > 17 THEN ', ' ELSE '' END || word;
  END LOOP;
  RETURN NEXT line;
END $$;

CREATE FUNCTION demo.to_whom(kind text, type text) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT coalesce(' -> message to ' || string_agg(h.service, ', ' ORDER BY h.service), '')
    FROM voiding.handler h WHERE h.kind = to_whom.kind AND h.type = to_whom.type
$$;

-- what the last step brought about, and a new mark
CREATE FUNCTION demo.told() RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
  m demo.mark;
  r record;
BEGIN
  SELECT * INTO m FROM demo.mark;
  FOR r IN SELECT * FROM demo.row_change c WHERE c.id > m.row_change ORDER BY c.id LOOP
    RETURN QUERY SELECT * FROM demo.wrapped('row', r.name || CASE WHEN r.old_row = '{}' THEN ' (new)' ELSE '' END
                                                   || coalesce(' ' || (r.new_row ->> 'document_id'), ''));
    IF r.old_row <> '{}' THEN
      RETURN QUERY SELECT * FROM demo.wrapped('  old', demo.columns(r.old_row, r.new_row));
    END IF;
    RETURN QUERY SELECT * FROM demo.wrapped('  new', demo.columns(r.new_row, r.old_row));
  END LOOP;
  FOR r IN SELECT e.type, e.source, e.position, s.step
             FROM voiding.event e LEFT JOIN LATERAL jsonb_array_elements(e.steps) s(step) ON true
            WHERE e.position > m.position ORDER BY e.position LOOP
    RETURN QUERY SELECT * FROM demo.wrapped('event', r.type || ' of ' || r.source || demo.to_whom('event', r.type));
    IF r.step ->> 'from' IS DISTINCT FROM r.step ->> 'to' THEN
      RETURN QUERY SELECT * FROM demo.wrapped('process', coalesce((r.step ->> 'from') || ' -> ', 'begins: ') || (r.step ->> 'to'));
    END IF;
    RETURN QUERY SELECT w.* FROM jsonb_array_elements_text(r.step -> 'send') c, demo.wrapped('command', c || demo.to_whom('command', c)) w;
  END LOOP;
  RETURN QUERY SELECT w.* FROM voiding.task t, demo.wrapped('task', t.type || ', for a person') w WHERE t.created_at > m.told;
  IF NOT EXISTS (SELECT FROM demo.row_change c WHERE c.id > m.row_change) THEN
    RETURN NEXT '       row       none: there is nothing to change';
  END IF;
  RETURN NEXT '';
  PERFORM demo.set_mark();
END $$;

-- the message that dispatch() will take next
CREATE FUNCTION demo.next_message() RETURNS text LANGUAGE sql STABLE AS $$
  SELECT format('%s handles %s', o.destination, o.type) FROM voiding.outbox o ORDER BY o.seq LIMIT 1
$$;

CREATE VIEW demo.report AS
  SELECT r.report_id AS report, CASE WHEN length(r.customer_id) > 28 THEN left(r.customer_id, 26) || '..' ELSE r.customer_id END AS customer,
         r.status, count(l.document_id) AS documents, r.total, r.currency
    FROM reports.report r LEFT JOIN reports.report_line l ON l.report_id = r.report_id AND l.status = 'included'
   GROUP BY r.report_id, r.customer_id, r.status, r.total, r.currency;

CREATE VIEW demo.total AS
  SELECT d.currency, count(*) AS documents, sum(d.amount) AS issued,
         coalesce(sum(d.amount) FILTER (WHERE d.status = 'voided'), 0) AS voided,
         (SELECT coalesce(sum(r.total), 0) FROM reports.report r WHERE r.currency = d.currency) AS in_reports
    FROM billing.document d GROUP BY d.currency;
