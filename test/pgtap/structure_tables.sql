-- The tables and views that are public, and the columns that outside checks
-- read, with their types. More columns may be added; none may go or change.
BEGIN;
SELECT plan(6);

CREATE TEMP TABLE wanted (schema text, relation text, kind "char", columns text);
INSERT INTO wanted VALUES
  ('billing', 'document', 'r', 'document_id text, customer_id text, kind text, amount numeric, currency billing.currency, status text,
     void_reason text, process_id uuid, issued_at timestamptz, voided_at timestamptz'),
  ('reports', 'report', 'v', 'report_id bigint, customer_id text, currency text, status text, total numeric, published_at timestamptz'),
  ('reports', 'report_line', 'r', 'document_id text, report_id bigint, amount numeric, status text, process_id uuid'),
  ('reports', 'refusal', 'r', 'process_id uuid, document_id text, report_id bigint, reason text'),
  ('voiding', 'event', 'p', 'position bigint, event_id uuid, type text, source text, subject text, correlation_id uuid,
     causation_id uuid, data jsonb, recorded_at timestamptz'),
  ('voiding', 'archive', 'p', 'subject text, position bigint, recorded_at timestamptz, source text, type text, data jsonb, actor text,
     event_id uuid, correlation_id uuid, causation_id uuid, process_id uuid, steps jsonb'),
  ('voiding', 'unarchived_event', 'v', 'subject text, position bigint, type text, data jsonb'),
  ('voiding', 'task_purge', 'v', 'task_id uuid, type text, state text, process_id uuid, purge_at timestamptz, held_by text'),
  ('voiding', 'archive_progress', 'r', 'position bigint'),
  ('voiding', 'process', 'v', 'process_id uuid, type text, version integer, key text, state text, data jsonb,
     started_at timestamptz, updated_at timestamptz, finished_at timestamptz'),
  ('voiding', 'active_process', 'r', 'process_id uuid, type text, version integer, key text, state text, data jsonb'),
  ('voiding', 'finished_process', 'p', 'process_id uuid, type text, version integer, key text, state text, data jsonb, finished_at timestamptz'),
  ('voiding', 'outbox', 'r', 'id uuid, aggregatetype text, aggregateid text, type text, payload jsonb, source text, destination text,
     correlation_id uuid, causation_id uuid, attempts integer, available_at timestamptz, created_at timestamptz'),
  ('voiding', 'dead_letter', 'r', 'id uuid, aggregatetype text, aggregateid text, type text, payload jsonb, source text, destination text,
     correlation_id uuid, causation_id uuid, attempts integer, available_at timestamptz, created_at timestamptz,
     error text, failed_at timestamptz'),
  ('voiding', 'transfer', 'r', 'id uuid, aggregatetype text, aggregateid text, type text, payload jsonb, source text, origin text, destination text,
     correlation_id uuid, causation_id uuid, created_at timestamptz'),
  ('voiding', 'connection', 'v', 'service text, known_as text, sending text, behind_bytes numeric, receiving text, confirmed_at timestamptz'),
  ('voiding', 'connection_progress', 'r', 'service text, confirmed_at timestamptz'),
  ('voiding', 'under_way', 'v', 'service text, id uuid, type text, age interval'),
  ('voiding', 'parked_event', 'r', 'event_id uuid, type text, source text, subject text, correlation_id uuid, data jsonb'),
  ('voiding', 'task', 'r', 'task_id uuid, type text, service text, state text, document jsonb, owner text, priority integer,
     due_at timestamptz, version integer, process_id uuid, title text, key text, roles text[], skills text[], form_factors text[], excluded text[],
     expires_at timestamptz, until timestamptz, outcome jsonb, reason text, correlation_id uuid, created_at timestamptz, updated_at timestamptz,
     ended_at timestamptz'),
  ('voiding', 'task_type', 'r', 'name text, service text, definition jsonb'),
  ('voiding', 'task_action', 'r', 'caller text, action_id uuid, task_id uuid, action text, version integer'),
  ('voiding', 'worker_profile', 'r', 'role text, skills text[], form_factors text[], capacity integer'),
  ('voiding', 'task_transition', 'v', 'action text, from_state text, to_state text, who text, event text, description text'),
  ('voiding', 'my_task', 'v', 'task_id uuid, type text, state text'),
  ('voiding', 'available_task', 'v', 'task_id uuid, type text, state text'),
  ('voiding', 'overdue_task', 'v', 'task_id uuid, type text, state text'),
  ('voiding', 'skill_gap', 'v', 'task_id uuid, type text, state text'),
  ('voiding', 'task_queue', 'v', 'type text, role text, ready bigint, taken bigint, overdue bigint, oldest timestamptz'),
  ('voiding', 'timer', 'r', 'process_id uuid, name text, due_at timestamptz'),
  ('voiding', 'process_type', 'r', 'name text, version integer, definition jsonb'),
  ('voiding', 'transition', 'r', 'process_type text, version integer, from_state text, trigger text, name text, guard text, to_state text'),
  ('voiding', 'service', 'r', 'name text, owner text, schema text'),
  ('voiding', 'handler', 'r', 'service text, type text, kind text, function text'),
  ('voiding', 'command', 'r', 'command_id uuid, type text, status text, data jsonb, result jsonb, error jsonb, resource text, process_id uuid,
     accepted_at timestamptz, finished_at timestamptz, caller text, idempotency_key text'),
  ('voiding', 'route', 'v', 'method text, path text, operation text, query text, takes text, parameters text[], answers integer[], summary text'),
  ('voiding', 'ongoing_process', 'v', 'process_id uuid, type text, key text, state text, since timestamptz, waits_for text'),
  ('voiding', 'process_history', 'v', 'process_id uuid, type text, key text, step integer, event text, from_state text, to_state text,
     command text, at timestamptz, actor text'),
  ('voiding', 'worker', 'v', 'worker integer, pid integer, started_at timestamptz, state text'),
  ('voiding', 'stats', 'v', 'name text, labels jsonb, value numeric');

CREATE TEMP TABLE relation AS
  SELECT n.nspname AS schema, c.relname AS relation, c.relkind AS kind, c.oid
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE n.nspname IN ('voiding', 'billing', 'reports') AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition;

SELECT is_empty(
  $$ SELECT w.schema, w.relation, w.kind FROM wanted w EXCEPT SELECT schema, relation, kind FROM relation $$,
  'every public table and view is there, and of its kind');
SELECT set_eq(
  $$ SELECT schema || '.' || relation FROM relation WHERE schema = 'voiding' $$,
  $$ SELECT schema || '.' || relation FROM wanted WHERE schema = 'voiding' $$,
  'schema voiding has no table or view besides them');
SELECT is_empty($$
  SELECT w.schema, w.relation, c.column_and_type
    FROM wanted w, LATERAL regexp_split_to_table(w.columns, ',\s*') AS c(column_and_type)
   WHERE NOT EXISTS (SELECT FROM relation r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
                      WHERE (r.schema, r.relation) = (w.schema, w.relation)
                        AND a.attname = split_part(c.column_and_type, ' ', 1)
                        AND a.atttypid = to_regtype(split_part(c.column_and_type, ' ', 2))) $$,
  'every column that outside checks read is there, with its type');

SELECT col_is_pk('billing', 'document', ARRAY['document_id'], 'a document is known by its id');
SELECT results_eq(
  $$ SELECT relid::regclass::text, pg_get_partkeydef(relid)
       FROM (VALUES ('voiding.archive'::regclass), ('voiding.event'), ('voiding.finished_process')) v(relid) ORDER BY 1 $$,
  $$ VALUES ('voiding.archive', 'RANGE ("position")'), ('voiding.event', 'RANGE ("position")'), ('voiding.finished_process', 'RANGE (process_id)') $$,
  'events are partitioned by position, ended processes by id');
SELECT is_empty($$
  SELECT i.indrelid::regclass FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
   WHERE c.relkind = 'p' AND c.relnamespace = 'voiding'::regnamespace $$,
  'a partitioned root has no index of its own: later partitions can be dumped and attached again');

SELECT * FROM finish();
ROLLBACK;
