-- tables.sql: what the tables of a process are like, to compare both sides.
-- Left out is what may differ: names of indexes, partitions (only the first
-- leaf counts), defaults, and the key of the outbox.

WITH t AS (
  SELECT c.oid, regexp_replace(c.relname, '_p0$', '') AS name, c.reloptions
    FROM pg_class c
   WHERE c.relnamespace::regnamespace::text IN ('hand', 'billing', 'reports', 'voiding') AND c.relkind = 'r'
     AND regexp_replace(c.relname, '_p0$', '') IN ('document', 'customer_report', 'report_line', 'event', 'outbox', 'timer',
                                                   'active_process', 'finished_process'))
SELECT t.name || ' column ' || a.attname || ' ' || format_type(coalesce(nullif(y.typbasetype, 0), y.oid), NULL)
       || CASE WHEN a.attnotnull THEN ' not null' ELSE '' END
  FROM t JOIN pg_attribute a ON a.attrelid = t.oid JOIN pg_type y ON y.oid = a.atttypid
 WHERE a.attnum > 0 AND NOT a.attisdropped
UNION ALL
SELECT t.name || ' option ' || o FROM t, unnest(t.reloptions) o
UNION ALL
SELECT t.name || ' ' || pg_get_constraintdef(k.oid) FROM t JOIN pg_constraint k ON k.conrelid = t.oid WHERE k.contype = 'c'
UNION ALL
SELECT t.name || ' index' || CASE WHEN i.indisunique THEN ' unique' ELSE '' END
       || regexp_replace(pg_get_indexdef(i.indexrelid), '.* USING|voiding\.', '', 'g')
  FROM t JOIN pg_index i ON i.indrelid = t.oid WHERE NOT (t.name = 'outbox' AND i.indisprimary)
 ORDER BY 1
