-- price_voiding.sql: the same table, captured by voiding, and one whose events
-- a service hears. search_path is the database's.

CREATE TABLE item (
  item_id    bigint PRIMARY KEY,
  name       text NOT NULL,
  amount     numeric NOT NULL,
  state      text NOT NULL DEFAULT 'new',
  changed_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 70);
INSERT INTO item (item_id, name, amount) SELECT i, 'item ' || i, i % 100000 / 100.0 FROM generate_series(1, 100000) i;
CREATE TABLE captured_item (LIKE item INCLUDING ALL);

CREATE TRIGGER item_changed AFTER UPDATE ON item FOR EACH ROW EXECUTE FUNCTION voiding.emit_event('ItemChanged');
CREATE TRIGGER item_added AFTER INSERT ON item FOR EACH ROW EXECUTE FUNCTION voiding.emit_event('ItemAdded');
CREATE TRIGGER item_added AFTER INSERT ON captured_item FOR EACH ROW EXECUTE FUNCTION voiding.emit_event('ItemAdded');

SELECT voiding.create_service('audience');
CREATE TABLE audience.heard (item_id bigint);
CREATE FUNCTION audience.hear(item_id bigint[]) RETURNS void LANGUAGE sql AS
  'INSERT INTO audience.heard SELECT unnest(item_id)';
