-- emit_event(): which columns, which subject, which correlation, which rows.
\set ECHO none
\i test/lib/database.sql
SELECT voiding.create_service('shop');
-- what was said since the last look
CREATE VIEW said AS SELECT position, type, source, subject, data FROM voiding.event;
CREATE TABLE seen (position bigint);
CREATE FUNCTION said() RETURNS TABLE (type text, source text, subject text, data jsonb) LANGUAGE sql VOLATILE AS $$
  WITH news AS (SELECT * FROM said WHERE position NOT IN (SELECT position FROM seen)),
  seen AS (INSERT INTO seen SELECT position FROM news)
  SELECT type, source, subject, data FROM news ORDER BY position $$;

CREATE TABLE shop.item (sku text, name text, price numeric, gone boolean, conversation uuid);
-- all columns, when none is named; the subject is the first
CREATE TRIGGER a AFTER INSERT ON shop.item FOR EACH ROW EXECUTE FUNCTION voiding.emit_event('ItemAdded');
-- columns by name, one renamed, another as the subject
CREATE TRIGGER b AFTER UPDATE ON shop.item FOR EACH ROW WHEN (OLD.price IS DISTINCT FROM NEW.price)
  EXECUTE FUNCTION voiding.emit_event('PriceChanged', 'new_price=price', 'sku', '@subject=sku');
-- a deleted row: the old one
CREATE TRIGGER c AFTER DELETE ON shop.item FOR EACH ROW EXECUTE FUNCTION voiding.emit_event('ItemRemoved', 'sku', 'name');
INSERT INTO shop.item (sku, name, price) VALUES ('a', 'Apple', 1.50), ('b', 'Béret "x"', 20);
SELECT * FROM said();
UPDATE shop.item SET price = price * 2;
SELECT * FROM said();
UPDATE shop.item SET name = 'Pear' WHERE sku = 'a';
SELECT * FROM said();
DELETE FROM shop.item WHERE sku = 'a';
SELECT * FROM said();
COPY shop.item (sku, name) FROM stdin;
c	Cap
d	\N
\.
SELECT * FROM said();
-- two triggers of one event: two events, by name
CREATE TRIGGER a2 AFTER INSERT ON shop.item FOR EACH ROW EXECUTE FUNCTION voiding.emit_event('StockNeeded', '@subject=name', 'sku');
INSERT INTO shop.item (sku, name) VALUES ('e', 'Egg');
SELECT * FROM said();
DROP TRIGGER a2 ON shop.item;
-- a column with a uuid gives the correlation; a null one does not
CREATE TRIGGER a3 AFTER INSERT ON shop.item FOR EACH ROW EXECUTE FUNCTION voiding.emit_event('Talk', '@correlation=conversation', 'sku');
INSERT INTO shop.item (sku, name, conversation) VALUES ('f', 'Fig', '11111111-1111-4111-8111-111111111111'), ('g', 'Grape', NULL);
SELECT subject, correlation_id = '11111111-1111-4111-8111-111111111111' AS given, correlation_id = event_id AS own
  FROM voiding.event WHERE type = 'Talk' ORDER BY position;
DROP TRIGGER a3 ON shop.item;
-- begin_conversation(): a new correlation, in the row and in the event
CREATE TRIGGER begin BEFORE INSERT ON shop.item FOR EACH ROW EXECUTE FUNCTION voiding.begin_conversation('conversation');
CREATE TRIGGER a4 AFTER INSERT ON shop.item FOR EACH ROW EXECUTE FUNCTION voiding.emit_event('Begun', '@correlation=conversation', 'sku');
INSERT INTO shop.item (sku, conversation) VALUES ('h', '11111111-1111-4111-8111-111111111111'), ('i', NULL);
SELECT e.subject, e.correlation_id = i.conversation AS in_row, i.conversation <> '11111111-1111-4111-8111-111111111111' AS new
  FROM voiding.event e JOIN shop.item i ON i.sku = e.subject WHERE e.type = 'Begun' ORDER BY e.position;
SELECT count(DISTINCT correlation_id) FROM voiding.event WHERE type = 'Begun';
DROP TRIGGER a4 ON shop.item;
DROP TRIGGER begin ON shop.item;
SELECT count(*) > 0 AS looked FROM said();

-- INSERT ... ON CONFLICT, and UPDATE of many rows from another table
CREATE UNIQUE INDEX ON shop.item (sku);
INSERT INTO shop.item (sku, price) VALUES ('b', 7), ('k', 1) ON CONFLICT (sku) DO UPDATE SET price = EXCLUDED.price;
SELECT * FROM said();
INSERT INTO shop.item (sku, price) VALUES ('b', 8) ON CONFLICT (sku) DO NOTHING;
SELECT count(*) FROM said();
MERGE INTO shop.item i USING (VALUES ('b', 9), ('l', 2)) AS n(sku, price) ON n.sku = i.sku
 WHEN MATCHED THEN UPDATE SET price = n.price WHEN NOT MATCHED THEN INSERT (sku, price) VALUES (n.sku, n.price);
SELECT * FROM said();

-- a partitioned table: the trigger of the parent, the service of its schema
CREATE TABLE shop.sale (id bigint, at date, amount numeric) PARTITION BY RANGE (at);
CREATE TABLE public.sale_2025 PARTITION OF shop.sale FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TRIGGER sold AFTER INSERT OR UPDATE OR DELETE ON shop.sale FOR EACH ROW EXECUTE FUNCTION voiding.emit_event('Sold', 'id', 'at', 'amount');
-- attached later, its columns in another order
CREATE TABLE public.sale_2026 (amount numeric, extra text, at date, id bigint);
ALTER TABLE public.sale_2026 DROP COLUMN extra;
ALTER TABLE shop.sale ATTACH PARTITION public.sale_2026 FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
INSERT INTO shop.sale VALUES (1, '2025-05-05', 10), (2, '2026-06-06', 20);
SELECT * FROM said();
-- a row that moves to another partition: PostgreSQL makes it a delete and an insert
UPDATE shop.sale SET at = '2026-07-07' WHERE id = 1;
SELECT * FROM said();
UPDATE shop.sale SET amount = 21 WHERE id = 2;
SELECT * FROM said();

-- a table that changes: the next row is captured as the table is then
CREATE TABLE shop.changing (id int, a int);
CREATE TRIGGER t AFTER INSERT ON shop.changing FOR EACH ROW EXECUTE FUNCTION voiding.emit_event('Changing');
INSERT INTO shop.changing VALUES (1, 1);
ALTER TABLE shop.changing ADD b text DEFAULT 'x', DROP COLUMN a;
INSERT INTO shop.changing VALUES (2, 'y');
ALTER TABLE shop.changing RENAME b TO c;
INSERT INTO shop.changing VALUES (3, 'z');
ALTER TABLE shop.changing ALTER c DROP DEFAULT, ALTER c TYPE int USING 7;
INSERT INTO shop.changing VALUES (4, 8);
SELECT * FROM said();

-- savepoints and exception blocks: what was rolled back was never said
BEGIN;
INSERT INTO shop.changing VALUES (10, 0);
SAVEPOINT a;
INSERT INTO shop.changing VALUES (11, 0);
ROLLBACK TO a;
INSERT INTO shop.changing VALUES (12, 0);
SAVEPOINT b;
INSERT INTO shop.changing VALUES (13, 0);
RELEASE b;
DO $$ BEGIN
  BEGIN
    INSERT INTO shop.changing VALUES (14, 0);
    PERFORM 1 / 0;
  EXCEPTION WHEN division_by_zero THEN
    INSERT INTO shop.changing VALUES (15, 0);
  END;
END $$;
COMMIT;
SELECT * FROM said();
BEGIN;
INSERT INTO shop.changing VALUES (16, 0);
ROLLBACK;
SELECT * FROM said();
-- a deferred constraint trigger speaks at COMMIT
CREATE TABLE shop.deferred (id int);
CREATE CONSTRAINT TRIGGER t AFTER INSERT ON shop.deferred DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION voiding.emit_event('Deferred');
BEGIN;
INSERT INTO shop.deferred VALUES (1);
SELECT count(*) FROM said();
COMMIT;
SELECT * FROM said();

-- a table in a schema that is no service: the schema's name is the source
CREATE SCHEMA attic;
CREATE TABLE attic.box (id int);
CREATE TRIGGER t AFTER INSERT ON attic.box FOR EACH ROW EXECUTE FUNCTION voiding.emit_event('Boxed');
INSERT INTO attic.box VALUES (1);
SELECT * FROM said();
-- made a service, it speaks as that
SELECT voiding.create_service('storage', schema => 'attic');
INSERT INTO attic.box VALUES (2);
SELECT * FROM said();
-- a schema named as a service that has another one cannot speak for it
CREATE SCHEMA storage;
CREATE TABLE storage.box (id int);
CREATE TRIGGER t AFTER INSERT ON storage.box FOR EACH ROW EXECUTE FUNCTION voiding.emit_event('Boxed');
INSERT INTO storage.box VALUES (1);
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM said();

SELECT * FROM voiding.check_invariants() UNION ALL SELECT * FROM billing.check_invariants() UNION ALL SELECT * FROM reports.check_invariants();
CALL test.by_hand();
\c contrib_regression
DROP DATABASE regress_voiding;
