-- busy.sql: a database that keeps its workers busy, nobody calls anything: wheels that turn when their deadline has
-- passed. They run beside the tests that are stepped by hand in another database.
CREATE EXTENSION voiding;
SELECT voiding.create_service('mill');
CREATE TABLE mill.wheel (name text PRIMARY KEY, turns integer NOT NULL);
CREATE TRIGGER turned AFTER UPDATE ON mill.wheel FOR EACH ROW EXECUTE FUNCTION voiding.emit_event('Turned', 'wheel=name');
CREATE FUNCTION mill.turn(wheel text) RETURNS void LANGUAGE sql AS 'UPDATE mill.wheel SET turns = turns + 1 WHERE name = turn.wheel';
SELECT voiding.create_command('Turn', 'mill.turn');
SELECT voiding.create_process_type('wheel', '{"key": "wheel", "start": {"Set": "Turning"}, "states": {
  "Turning": {"entry": {"send": "Turn"}, "on": {"Turned": "Resting"}, "after": {"PT1H": "Broken"}},
  "Resting": {"on": {"Turned": {}}, "after": {"PT1S": "Turning"}},
  "Broken": {"type": "final"}}}');
INSERT INTO mill.wheel SELECT 'wheel ' || i, 0 FROM generate_series(1, 200) i;
SELECT voiding.emit('Set', name, jsonb_build_object('wheel', name), 'mill') FROM mill.wheel;

-- Nothing is committed any more, and its workers have nothing to do; and on again.
CREATE PROCEDURE mill.rest() LANGUAGE plpgsql AS $$
BEGIN
  FOR i IN 1 .. 1000 LOOP
    EXIT WHEN NOT EXISTS (SELECT FROM voiding.process p LEFT JOIN voiding.timer t USING (process_id)
                           WHERE p.state <> 'Resting' OR t.due_at IS DISTINCT FROM 'infinity');
    BEGIN
      PERFORM voiding.cancel_timer(process_id, name) FROM voiding.timer WHERE state = 'Resting' AND due_at < 'infinity';
    EXCEPTION WHEN undefined_object THEN
      NULL;                 -- it has passed meanwhile
    END;
    COMMIT;
    PERFORM pg_sleep(0.01);
  END LOOP;
END $$;
CREATE PROCEDURE mill.go_on() LANGUAGE sql AS
  'SELECT voiding.move_timer(process_id, name, voiding.now()) FROM voiding.timer WHERE state = ''Resting''';
