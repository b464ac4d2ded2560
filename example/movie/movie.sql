-- movie.sql: CreateMovie, with a write side and a read side.
--
-- A front end sends CreateMovie. The service "movies" handles it and says
-- MovieRequested. The service "catalogue", which answers all questions, hears
-- that, writes its own row and says MovieCreated. Only that is the evidence
-- that the page can be shown, so that is what ends the command.
--
--   front end -> CreateMovie -> movies -> MovieRequested -> catalogue -> MovieCreated
--                                                       or MovieCreationFailed

-- ---- the write side ----

SELECT voiding.create_service('movies');

CREATE TABLE movies.movie (
  movie_id text PRIMARY KEY,            -- the front end makes it: so it knows the address before the movie is there
  title    text NOT NULL CHECK (title <> ''),
  year     integer NOT NULL,
  status   text NOT NULL DEFAULT 'requested' CHECK (status IN ('requested', 'created', 'refused'))
);

CREATE TRIGGER requested AFTER INSERT ON movies.movie FOR EACH ROW
  EXECUTE FUNCTION voiding.emit_event('MovieRequested', 'movie_id', 'title', 'year');

CREATE FUNCTION movies.create_movie(movie_id text, title text, year integer) RETURNS void
  LANGUAGE plpgsql SET search_path = movies, pg_temp
AS $$
BEGIN
  IF year < 1888 THEN
    RAISE EXCEPTION 'in % there were no movies', year USING HINT = 'The first one is of 1888.';
  END IF;
  INSERT INTO movie VALUES (movie_id, title, year);
END $$;

CREATE FUNCTION movies.note_created(movie_id text) RETURNS void
  LANGUAGE sql SET search_path = movies, pg_temp
AS $$ UPDATE movie m SET status = 'created' WHERE m.movie_id = note_created.movie_id $$;

CREATE FUNCTION movies.note_refused(movie_id text) RETURNS void
  LANGUAGE sql SET search_path = movies, pg_temp
AS $$ UPDATE movie m SET status = 'refused' WHERE m.movie_id = note_refused.movie_id $$;

SELECT voiding.create_command('CreateMovie', 'movies.create_movie', resource => '/queries/movie?movie_id={movie_id}',
                              completed_by => 'MovieCreated', failed_by => 'MovieCreationFailed');
SELECT voiding.subscribe('MovieCreated', 'movies.note_created');
SELECT voiding.subscribe('MovieCreationFailed', 'movies.note_refused');

-- ---- the read side ----

SELECT voiding.create_service('catalogue');

CREATE TABLE catalogue.entry (
  movie_id text PRIMARY KEY,
  title    text NOT NULL,
  year     integer NOT NULL,
  label    text NOT NULL,
  UNIQUE (title, year)
);

CREATE TRIGGER created AFTER INSERT ON catalogue.entry FOR EACH ROW
  EXECUTE FUNCTION voiding.emit_event('MovieCreated', 'movie_id', 'label');

CREATE FUNCTION catalogue.add_movie(movie_id text, title text, year integer) RETURNS void
  LANGUAGE plpgsql SET search_path = catalogue, pg_temp
AS $$
BEGIN
  INSERT INTO entry VALUES (movie_id, title, year, format('%s (%s)', title, year)) ON CONFLICT DO NOTHING;
  IF NOT FOUND THEN
    PERFORM voiding.emit('MovieCreationFailed', movie_id,
                         jsonb_build_object('movie_id', movie_id, 'reason', format('%s (%s) is in the catalogue already', title, year)));
  END IF;
END $$;

SELECT voiding.subscribe('MovieRequested', 'catalogue.add_movie');

-- the resource: what run_query('movie', ...) and GET /queries/movie?movie_id=... answer; null, or 404, until it is there
CREATE FUNCTION catalogue.movie(movie_id text) RETURNS catalogue.entry
  LANGUAGE sql STABLE SET search_path = catalogue, pg_temp
AS $$ SELECT * FROM entry e WHERE e.movie_id = movie.movie_id $$;

SELECT voiding.create_query('movie', 'catalogue.movie');
