-- price_voiding.sql: the same table, captured by voiding, and one whose events
-- a service hears. search_path is the database's.

\ir price_item.sql
CREATE TABLE captured_item (LIKE item INCLUDING ALL);

CREATE TRIGGER item_changed AFTER UPDATE ON item FOR EACH ROW EXECUTE FUNCTION voiding.emit_event('ItemChanged');
CREATE TRIGGER item_added AFTER INSERT ON item FOR EACH ROW EXECUTE FUNCTION voiding.emit_event('ItemAdded');
CREATE TRIGGER item_added AFTER INSERT ON captured_item FOR EACH ROW EXECUTE FUNCTION voiding.emit_event('ItemAdded');

SELECT voiding.create_service('audience');
CREATE TABLE audience.heard (item_id bigint);
CREATE FUNCTION audience.hear(item_id bigint[]) RETURNS void LANGUAGE sql AS
  'INSERT INTO audience.heard SELECT unnest(item_id)';
