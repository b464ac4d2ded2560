-- price_hand.sql: a table whose changes are put down as events by hand, in
-- statements of the client's (item), or by a statement trigger (captured_item),
-- and the insert alone (plain_item). search_path is the database's.

\ir price_item.sql
CREATE TABLE plain_item (LIKE item INCLUDING ALL);
CREATE TABLE captured_item (LIKE item INCLUDING ALL);

-- one scan; the one inner query is cheaper than a second random id for each row
CREATE FUNCTION write_events() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO event
  SELECT nextval('position'), id, 'ItemAdded', 'bench', item_id::text, id, NULL,
         jsonb_build_object('item_id', item_id, 'name', name, 'amount', amount, 'state', state, 'changed_at', changed_at),
         clock_timestamp(), pg_current_xact_id(), session_user, NULL, NULL
    FROM (SELECT gen_random_uuid() AS id, * FROM added) a;
  RETURN NULL;
END $$;
CREATE TRIGGER write_events AFTER INSERT ON captured_item REFERENCING NEW TABLE AS added
  FOR EACH STATEMENT EXECUTE FUNCTION write_events();
