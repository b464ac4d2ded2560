-- emit_event() and begin_conversation(): what is wrong is said when the row
-- is written, and then neither the row nor the event is there.
\set ECHO none
\i test/lib/database.sql
CREATE SCHEMA shop;
CREATE TABLE shop.item (id text, note text, n int, u uuid);
CREATE FUNCTION attempt(args text, timing text DEFAULT 'AFTER INSERT', level text DEFAULT 'ROW', fn text DEFAULT 'emit_event',
                        row_values text DEFAULT '''i'', ''x'', 1, NULL') RETURNS TABLE (code text, message text, hint text)
  LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('CREATE TRIGGER t %s ON shop.item FOR EACH %s EXECUTE FUNCTION voiding.%s(%s)', timing, level, fn, args);
  EXECUTE format('INSERT INTO shop.item VALUES (%s)', row_values);
  code := '00000';
  RETURN NEXT;
EXCEPTION WHEN others THEN
  code := SQLSTATE;
  message := SQLERRM;
  GET STACKED DIAGNOSTICS hint := PG_EXCEPTION_HINT;
  RETURN NEXT;
END $$;
\x on
SELECT * FROM attempt('');
SELECT * FROM attempt('''E'', ''nothing''');
SELECT * FROM attempt('''E'', ''a=nothing''');
SELECT * FROM attempt('''E'', ''@subject=nothing''');
SELECT * FROM attempt('''E'', ''@correlation=nothing''');
SELECT * FROM attempt('''E'', ''ctid''');
SELECT * FROM attempt('''E'', ''id'', ''@correlation=note''');
SELECT * FROM attempt('''''');
SELECT * FROM attempt(quote_literal(repeat('E', 101)), row_values => '''i''');
SELECT * FROM attempt('''E''', 'AFTER INSERT', 'STATEMENT');
SELECT * FROM attempt('''E''', 'BEFORE INSERT');
SELECT * FROM attempt('''E'', ''@subject=note''', row_values => '''i'', NULL');
SELECT * FROM attempt('''E''', row_values => '''''');
SELECT * FROM attempt('''E''', row_values => 'repeat(''x'', 1025)');
SELECT * FROM attempt('''E''', row_values => 'repeat(''é'', 513)');
SELECT * FROM attempt('''u''', fn => 'begin_conversation');
SELECT * FROM attempt('''note''', 'BEFORE INSERT', fn => 'begin_conversation');
SELECT * FROM attempt('''nothing''', 'BEFORE INSERT', fn => 'begin_conversation');
SELECT * FROM attempt('', 'BEFORE INSERT', fn => 'begin_conversation');
\x off
-- not as triggers: refused, not a crash
SELECT voiding.emit_event();
SELECT voiding.begin_conversation();
-- the longest subject is taken
SELECT * FROM attempt('''E''', row_values => 'repeat(''x'', 1024)');
-- of all these attempts one row and one event are left
SELECT count(*) AS rows FROM shop.item;
SELECT type, length(subject) FROM voiding.event;
-- a good trigger that was bad before works, in the same session
DROP TRIGGER t ON shop.item;
CREATE TRIGGER t AFTER INSERT ON shop.item FOR EACH ROW EXECUTE FUNCTION voiding.emit_event('Later', 'id', 'colour');
INSERT INTO shop.item VALUES ('a');
ALTER TABLE shop.item ADD colour text;
INSERT INTO shop.item (id, colour) VALUES ('b', 'red');
SELECT subject, data FROM voiding.event WHERE type = 'Later';
SELECT * FROM voiding.check_invariants();
CALL test.by_hand();
\c contrib_regression
DROP DATABASE regress_voiding;
