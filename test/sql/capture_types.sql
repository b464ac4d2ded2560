-- emit_event(): what a value of each type is in JSON. Times are in UTC,
-- whatever the session's time zone; numbers keep their digits.
\set ECHO none
\i test/lib/database.sql
SET TimeZone = 'America/New_York';
SET DateStyle = 'German';
CREATE SCHEMA kinds;
CREATE TYPE kinds.colour AS ENUM ('red', 'green');
CREATE TYPE kinds.pair AS (x int, y text);
CREATE DOMAIN kinds.percent AS numeric(5, 2) CHECK (VALUE <= 100);
CREATE DOMAIN kinds.note AS text;
CREATE DOMAIN kinds.pairs AS kinds.pair[];
CREATE TABLE kinds.everything (
  id text, small smallint, i int, big bigint, n numeric, n2 numeric(10, 2), f4 real, f8 double precision, m money,
  b boolean, c char(5), vc varchar(10), nm name, by bytea,
  d date, t time, tt timetz, ts timestamp, tz timestamptz, iv interval,
  u uuid, j json, jb jsonb, arr int[], arr2 text[][], comp kinds.pair, comps kinds.pair[], en kinds.colour,
  dom kinds.percent, dom2 kinds.note, dom3 kinds.pairs, r int4range, ip inet, p point, x xml, bits bit(3), ft tsvector, o oid, rc regclass);
CREATE TRIGGER t AFTER INSERT ON kinds.everything FOR EACH ROW EXECUTE FUNCTION voiding.emit_event('Kind');
INSERT INTO kinds.everything VALUES (
  'one', -32768, 2147483647, 9223372036854775807, 12345678901234567890.00000000000000000010, 1.5, 0.1, 1e100 / 3, '12.34',
  true, 'ab', 'vc', 'nm', '\x00ff',
  '2024-02-29', '23:59:59.123456', '12:00:00+02', '2024-02-29 12:00:00', '2024-02-29 12:00:00.5+02', '1 year 2 days 03:04:05',
  'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', '{"b": 1, "a": [null]}', '{"b": 1, "a": [null]}', '{1,NULL,3}', '{{a,b},{c,d}}',
  '(1,"a b")', '{"(1,a)","(2,)"}', 'green', 99.5, 'note', '{"(1,a)"}', '[1,5)', '10.0.0.1/8', '(1,2)', '<a>1</a>', '101', 'a b', 42, 'pg_class');
SELECT k.key, jsonb_typeof(k.value), k.value FROM voiding.event e, jsonb_each(e.data) k
 WHERE subject = 'one' ORDER BY array_position((SELECT array_agg(attname::text ORDER BY attnum) FROM pg_attribute
                                                 WHERE attrelid = 'kinds.everything'::regclass AND attnum > 0), k.key);
-- what JSON has no number or time for is a string
INSERT INTO kinds.everything (id, n, n2, f4, f8, d, ts, tz) VALUES ('odd', 'NaN', 'NaN', 'NaN', '-Infinity', 'infinity', '-infinity', 'infinity');
INSERT INTO kinds.everything (id, n, d, tz) VALUES ('odd2', '-Infinity', '0044-03-15 BC', '0044-03-15 12:00:00+00 BC');
INSERT INTO kinds.everything (id, d, tz) VALUES ('odd3', '5874897-12-31', '294276-12-31 23:59:59.999999+00');
SELECT e.subject, k.key, k.value FROM voiding.event e, jsonb_each(e.data) k
 WHERE subject LIKE 'odd%' AND k.value <> 'null' AND k.key <> 'id' ORDER BY e.position, k.key;
-- nulls are null, and there
INSERT INTO kinds.everything (id) VALUES ('nulls');
SELECT count(*) AS keys, count(*) FILTER (WHERE k.value = 'null') AS nulls FROM voiding.event e, jsonb_each(e.data) k WHERE subject = 'nulls';
-- a value that is kept out of line
INSERT INTO kinds.everything (id, vc, jb, dom2) VALUES ('long', 'x', jsonb_build_object('k', repeat('y', 100000)), repeat('z', 1000000));
SELECT length(data #>> '{jb,k}') AS jb, length(data ->> 'dom2') AS dom2 FROM voiding.event WHERE subject = 'long';
-- the same row gives the same event, whatever the session's settings are
CREATE TYPE kinds.when AS (at timestamptz, d date);
CREATE TABLE kinds.same (id int, tz timestamptz, d date, f double precision, iv interval, by bytea, tza timestamptz[], comp kinds.when,
                         tzr tstzrange, dr daterange);
CREATE TRIGGER t AFTER INSERT ON kinds.same FOR EACH ROW EXECUTE FUNCTION voiding.emit_event('Same');
CREATE TABLE one AS SELECT 1 AS id, '2024-02-01 12:00:00+00'::timestamptz AS tz, '2024-02-01'::date AS d, (1.0 / 3)::double precision AS f, '1 year 2 days -3 hours'::interval AS iv,
  '\x00ff'::bytea AS by, ARRAY['2024-02-01 12:00:00+00'::timestamptz] AS tza, ROW('2024-02-01 12:00:00+00', '2024-02-01')::kinds.when AS comp,
  tstzrange('2024-02-01 12:00:00+00', NULL) AS tzr, daterange('2024-02-01', '2024-03-01') AS dr;
SET IntervalStyle = 'sql_standard';
SET extra_float_digits = 0;
SET bytea_output = 'escape';
INSERT INTO kinds.same TABLE one;
SET TimeZone = 'UTC';
SET DateStyle = 'ISO, MDY';
SET IntervalStyle = 'postgres';
SET extra_float_digits = 1;
SET bytea_output = 'hex';
INSERT INTO kinds.same TABLE one;
SELECT a.key, a.value, b.value = a.value AS same
  FROM (SELECT data FROM voiding.event WHERE type = 'Same' ORDER BY position DESC LIMIT 1) x, jsonb_each(x.data) a
  JOIN LATERAL (SELECT data -> a.key AS value FROM voiding.event WHERE type = 'Same' ORDER BY position LIMIT 1) b ON true
 ORDER BY a.key;
-- a generated column and an identity
CREATE TABLE kinds.made (id int GENERATED ALWAYS AS IDENTITY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED);
CREATE TRIGGER t AFTER INSERT ON kinds.made FOR EACH ROW EXECUTE FUNCTION voiding.emit_event('Made');
INSERT INTO kinds.made (a) VALUES (21);
SELECT subject, data FROM voiding.event WHERE type = 'Made';
-- the subject as text of any type
CREATE TABLE kinds.subject (d date, tz timestamptz, n numeric, b boolean, u uuid, e kinds.colour, c kinds.pair);
CREATE FUNCTION subject_of(col text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('CREATE TRIGGER t AFTER INSERT ON kinds.subject FOR EACH ROW EXECUTE FUNCTION voiding.emit_event(''Subject'', %L)', col);
  INSERT INTO kinds.subject VALUES ('2024-02-29', '2024-02-29 12:00:00+02', 1.50, true, 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', 'red', '(1,a)');
  DROP TRIGGER t ON kinds.subject;
  RETURN (SELECT subject FROM voiding.event ORDER BY position DESC LIMIT 1);
END $$;
SELECT c AS column, subject_of(c) AS subject FROM unnest('{d,tz,n,b,u,e,c}'::text[]) c;
SELECT * FROM voiding.check_invariants();
CALL test.by_hand();
\c contrib_regression
DROP DATABASE regress_voiding;
