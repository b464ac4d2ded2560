-- price_item.sql: the table whose rows change, of both sides.

CREATE TABLE item (
  item_id    bigint PRIMARY KEY,
  name       text NOT NULL,
  amount     numeric NOT NULL,
  state      text NOT NULL DEFAULT 'new',
  changed_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 70);
INSERT INTO item (item_id, name, amount) SELECT i, 'item ' || i, i % 100000 / 100.0 FROM generate_series(1, 100000) i;
