-- An error in a route rolls back what the route did, and nothing else; what is
-- about the session goes on to the caller.
BEGIN;
SELECT plan(9);

CREATE SCHEMA shop;
SELECT voiding.create_service('shop');
CREATE TABLE shop.seen (n int);
CREATE FUNCTION shop.look() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1';
CREATE FUNCTION shop.sneak(n int) RETURNS int LANGUAGE plpgsql STABLE AS $$ BEGIN EXECUTE 'INSERT INTO shop.seen VALUES (1)'; RETURN 1; END $$;
CREATE FUNCTION shop.sleep() RETURNS int LANGUAGE plpgsql STABLE AS $$ BEGIN PERFORM pg_sleep(60); RETURN 1; END $$;
CREATE FUNCTION shop.crash() RETURNS int LANGUAGE plpgsql STABLE AS $$ BEGIN RAISE EXCEPTION 'boom' USING ERRCODE = 'internal_error', DETAIL = 'why', HINT = 'how'; END $$;
CREATE FUNCTION shop.busy() RETURNS int LANGUAGE plpgsql STABLE AS $$ BEGIN RAISE EXCEPTION 'wait' USING ERRCODE = 'too_many_connections'; END $$;
SELECT voiding.create_query(q, ('shop.' || q)::regproc) FROM unnest('{look,sneak,sleep,crash,busy}'::text[]) q;
CREATE FUNCTION pg_temp.cancelled() RETURNS text LANGUAGE plpgsql AS
  $$ BEGIN RETURN voiding.http('GET', '/queries/sleep'); EXCEPTION WHEN query_canceled THEN RETURN 'cancelled'; END $$;
SET LOCAL TimeZone = 'Asia/Tokyo';
SET LOCAL search_path = shop, public;

INSERT INTO shop.seen VALUES (0);
SELECT is((SELECT (a.status, a.body)::text FROM voiding.http('GET', '/queries/look') a), '(200,1)', 'a query');
SELECT is((SELECT (a.status, a.body::jsonb ->> 'code')::text FROM voiding.http('GET', '/queries/sneak?n=1') a), '(500,0A000)', 'one that writes is refused');
SELECT is((SELECT (a.status, a.body::jsonb ->> 'detail', a.body::jsonb ->> 'hint')::text FROM voiding.http('GET', '/queries/crash') a), '(500,"boom: why",how)', 'an error has its text');
SELECT is((SELECT (a.status, a.headers ->> 'Retry-After')::text FROM voiding.http('GET', '/queries/busy') a), '(503,1)', 'where it may help, it says to try again');
SELECT is((SELECT array_agg(n) FROM shop.seen), '{0}', 'what was before stays');
SET LOCAL statement_timeout = '50ms';
SELECT is(pg_temp.cancelled(), 'cancelled', 'the time limit of the session is that of the session');
SET LOCAL statement_timeout = 0;
SELECT is(current_setting('TimeZone') || ' ' || current_setting('search_path'), 'Asia/Tokyo shop, public', 'settings are as before');
SELECT voiding.http('POST', '/commands/IssueDocument', '{}', '{}', '{"document_id": "T", "customer_id": "C", "amount": 1, "issued_at": "2026-01-01 12:00"}') AS a \gset
SELECT is((SELECT c.data ->> 'issued_at' FROM voiding.command c), '2026-01-01 12:00', 'data is what was sent');
SELECT matches((SELECT a.body::jsonb #>> '{commands,0,accepted_at}' FROM voiding.http('GET', '/commands') a), '\+00:00$', 'times are told in UTC');

SELECT * FROM finish();
ROLLBACK;
