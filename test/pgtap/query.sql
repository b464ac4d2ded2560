-- Queries: functions read by name, arguments by name, with the rights of
-- whoever asks.
BEGIN;
SELECT plan(41);

CREATE SCHEMA films;
SELECT voiding.create_service('films');
CREATE DOMAIN films.code AS text CHECK (VALUE ~ '^[a-z]+$');
CREATE TABLE films.movie (movie_id int PRIMARY KEY, title text, tags text[]);
INSERT INTO films.movie VALUES (1, 'A', '{x,y}'), (2, 'B', NULL);
CREATE FUNCTION films.movie(movie_id int) RETURNS films.movie LANGUAGE sql STABLE
  AS 'SELECT * FROM films.movie m WHERE m.movie_id = movie.movie_id';
CREATE FUNCTION films.found(movie_id int) RETURNS films.movie LANGUAGE plpgsql STABLE
  AS $$ DECLARE m films.movie; BEGIN SELECT * INTO m FROM films.movie x WHERE x.movie_id = found.movie_id; RETURN m; END $$;
CREATE FUNCTION films.movies(title text DEFAULT NULL) RETURNS SETOF films.movie LANGUAGE sql STABLE
  AS 'SELECT * FROM films.movie m WHERE movies.title IS NULL OR m.title = movies.title ORDER BY 1';
CREATE FUNCTION films.titles() RETURNS SETOF text LANGUAGE sql STABLE AS 'SELECT title FROM films.movie ORDER BY 1';
CREATE FUNCTION films.titled() RETURNS TABLE (title text) LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN QUERY SELECT m.title FROM films.movie m ORDER BY 1; END $$;
CREATE FUNCTION films.who(a text[], d date DEFAULT '2020-02-29', source text DEFAULT 'none') RETURNS TABLE (role text, path text, got text[], day date, said text)
  LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN QUERY SELECT current_user::text, current_setting('search_path'), who.a, who.d, who.source; END $$;
CREATE FUNCTION films.strict(a int, b int) RETURNS int LANGUAGE sql STABLE STRICT AS 'SELECT a + b';
CREATE FUNCTION films.coded(code films.code) RETURNS text LANGUAGE sql STABLE AS 'SELECT code::text';
CREATE FUNCTION films.deep(n int) RETURNS jsonb LANGUAGE sql STABLE
  AS $$ SELECT CASE WHEN n = 0 THEN '[]' ELSE voiding.run_query('deep', jsonb_build_object('n', n - 1)) || to_jsonb(n) END $$;
CREATE FUNCTION films.settles() RETURNS text LANGUAGE plpgsql STABLE AS $$ BEGIN PERFORM set_config('search_path', 'pg_temp', false); RETURN 'x'; END $$;
CREATE FUNCTION films.breaks() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1 / (SELECT count(*) - count(*) FROM films.movie)::int';
CREATE FUNCTION films.changing() RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1';
CREATE FUNCTION films.nothing() RETURNS void LANGUAGE sql STABLE AS '';
CREATE FUNCTION films.shapeless() RETURNS record LANGUAGE sql STABLE AS 'SELECT 1, 2';
SELECT lives_ok(format('SELECT voiding.create_query(%L, %L)', n, 'films.' || n), n || ' is a query')
  FROM unnest('{movie,found,movies,titles,titled,who,strict,coded,deep,settles,breaks}'::text[]) n;

-- what a query may be
SELECT throws_ok($$ SELECT voiding.create_query('x', 'films.changing') $$, '22023', NULL, 'a VOLATILE function is no query');
SELECT throws_ok($$ SELECT voiding.create_query('x', 'films.nothing') $$, '22023', NULL, 'nor one that returns nothing');
SELECT throws_ok($$ SELECT voiding.create_query('x', 'films.shapeless') $$, '22023', NULL, 'nor one that returns who knows what');
SELECT throws_ok($$ SELECT voiding.create_query('x', NULL) $$, '22023', NULL, 'nor none');
SELECT throws_ok($$ SELECT voiding.create_query('movie', 'films.movies') $$, '42710', NULL, 'a name is one query');
SELECT is((SELECT string_agg(h.kind || ' ' || h.function, ', ') FROM voiding.handler h WHERE h.type = 'movie'), 'query films.movie(integer)', 'it is a row of handler');

-- what it answers
SELECT is(voiding.run_query('movie', '{"movie_id": "1"}'), '{"movie_id": 1, "title": "A", "tags": ["x", "y"]}', 'a row is an object');
SELECT is(voiding.run_query('movie', '{"movie_id": 3}'), NULL, 'no row is null');
SELECT is(voiding.run_query('found', '{"movie_id": 3}'), NULL, 'so is a row of nulls');
SELECT is(voiding.run_query('movies') -> 1 ->> 'title', 'B', 'a set is an array of objects');
SELECT is(voiding.run_query('movies', '{"title": "no"}'), '[]', 'an empty one too');
SELECT is(voiding.run_query('titles', NULL), '["A", "B"]', 'a set of values is an array of values');
SELECT is(voiding.run_query('titled'), '[{"title": "A"}, {"title": "B"}]', 'a table of one column is one of objects');
SELECT is(voiding.run_query('strict', '{"a": 1, "b": null}'), NULL, 'a STRICT function is not called with a null');
SELECT is(voiding.run_query('deep', '{"n": 3}'), '[1, 2, 3]', 'a query may ask for itself');

-- arguments
SELECT is(voiding.run_query('who', '{"a": ["1", "b\"\\,{"]}') -> 0, jsonb_build_object('role', current_user, 'path', 'films, pg_temp',
  'got', '["1", "b\"\\,{"]'::jsonb, 'day', '2020-02-29', 'said', 'none'), 'defaults, arrays, the path of the service, and nothing of an envelope');
SELECT throws_ok($$ SELECT voiding.run_query('movie') $$, 'VD22B', 'query "movie" needs argument "movie_id"', 'an argument is missing');
SELECT throws_ok($$ SELECT voiding.run_query('movie', '{"movie_id": 1, "\"; DROP TABLE films.movie; --": 2}') $$, 'VD22B', NULL, 'one is unknown');
SELECT throws_ok($$ SELECT voiding.run_query('movie', '{"movie_id": "1; DROP TABLE films.movie"}') $$, 'VD22B',
  'argument "movie_id" of query "movie" cannot be read', 'one cannot be read');
SELECT throws_ok($$ SELECT voiding.run_query('coded', '{"code": "A1"}') $$, 'VD22B', NULL, 'one is not of its domain');
SELECT throws_ok($$ SELECT voiding.run_query('movie', '[1]') $$, 'VD22B', NULL, 'arguments are an object');
SELECT throws_ok($$ SELECT voiding.run_query('Movie') $$, '42704', NULL, 'there is no such query');
SELECT throws_ok($$ SELECT voiding.run_query('breaks') $$, '22012', NULL, 'what the function raises is raised');
SELECT set_config('search_path', 'public, films', true);
SELECT voiding.run_query('settles');
SELECT is(current_setting('search_path'), 'public, films', 'its settings are put back');

-- rights: those of the caller
CREATE ROLE regress_reader;
GRANT USAGE ON SCHEMA voiding TO regress_reader;
GRANT EXECUTE ON FUNCTION voiding.run_query TO regress_reader;
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA films FROM PUBLIC;
GRANT EXECUTE ON FUNCTION films.who, films.titles TO regress_reader;
SET LOCAL ROLE regress_reader;
SELECT throws_ok($$ SELECT voiding.run_query('movie', '{"movie_id": 1}') $$, '42501', 'permission denied to read query "movie"', 'without EXECUTE it is refused');
SELECT is(voiding.run_query('who', '{"a": []}') #>> '{0,role}', 'regress_reader', 'it runs as the caller');
SELECT throws_ok($$ SELECT voiding.run_query('titles') $$, '42501', NULL, 'and reads only what the caller may read');
RESET ROLE;

SELECT lives_ok($$ SELECT voiding.drop_query('movie') $$, 'it is forgotten');
SELECT throws_ok($$ SELECT voiding.run_query('movie', '{"movie_id": 1}') $$, '42704', NULL, 'and is not there any more');
SELECT throws_ok($$ SELECT voiding.drop_query('movie') $$, '42704', NULL, 'nor to be forgotten again');

SELECT * FROM finish();
ROLLBACK;
