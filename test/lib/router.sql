-- router.sql: what test/sql/story.sql needs in a router, in place of database.sql.
CREATE SCHEMA test;
CREATE PROCEDURE test.settle() LANGUAGE plpgsql AS $$
BEGIN
  WHILE voiding.dispatch() > 0 LOOP
    COMMIT;
  END LOOP;
END $$;
CREATE PROCEDURE test.by_hand() LANGUAGE plpgsql AS $$ BEGIN END $$;
\set SHOW_CONTEXT never
\set ECHO all
