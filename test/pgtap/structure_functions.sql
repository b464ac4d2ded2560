-- The functions that are public: names, arguments with their names and
-- defaults, results. Whatever else is in the schema says "internal" in its
-- comment, so that nothing becomes public by accident.
BEGIN;
SELECT plan(4);

CREATE TEMP TABLE wanted (schema text, name text, arguments text, result text);
INSERT INTO wanted VALUES
  ('billing', 'issue_document', $$document_id text, customer_id text, amount numeric, currency text DEFAULT 'EUR'::text, kind text DEFAULT 'invoice'::text, issued_at timestamp with time zone DEFAULT now()$$, 'billing.document'),
  ('billing', 'void_document', 'document_id text, reason text DEFAULT NULL::text', 'uuid'),
  ('billing', 'complete_document_voiding', 'document_id text, process_id uuid', 'void'),
  ('billing', 'abort_document_voiding', 'document_id text, process_id uuid, reason text', 'void'),
  ('billing', 'check_invariants', '', 'TABLE(invariant text, subject text, detail text)'),
  ('reports', 'publish_report', 'customer_id text, currency text DEFAULT NULL::text', 'SETOF reports.report'),
  ('reports', 'mark_document_as_voided', 'document_id text, process_id uuid', 'void'),
  ('reports', 'include_document', 'document_id text, customer_id text, amount numeric, currency text', 'void'),
  ('reports', 'confirm_voided', 'document_id text, correlation_id uuid', 'void'),
  ('reports', 'release_document', 'document_id text, correlation_id uuid', 'void'),
  ('reports', 'check_invariants', '', 'TABLE(invariant text, subject text, detail text)'),
  ('voiding', 'check_invariants', '', 'TABLE(invariant text, subject text, detail text)'),
  -- services
  ('voiding', 'create_service', 'name text, owner regrole DEFAULT NULL::regrole, schema regnamespace DEFAULT NULL::regnamespace', 'void'),
  ('voiding', 'drop_service', 'name text', 'void'),
  ('voiding', 'create_command', $$name text, handler regproc DEFAULT NULL::regproc, service text DEFAULT NULL::text, takes_set boolean DEFAULT false, key text DEFAULT NULL::text, resource text DEFAULT NULL::text, completed_by text DEFAULT NULL::text, failed_by text DEFAULT NULL::text$$, 'void'),
  ('voiding', 'drop_command', 'name text', 'void'),
  ('voiding', 'subscribe', 'event_type text, handler regproc, service text DEFAULT NULL::text, takes_set boolean DEFAULT false', 'void'),
  ('voiding', 'process_for', 'process_type text, key text, OUT process_id uuid, OUT state text, OUT failed boolean, OUT data jsonb', 'record'),
  ('voiding', 'unsubscribe', 'event_type text, service text', 'void'),
  ('voiding', 'create_document_voiding', $$billing name DEFAULT 'billing'::name, reports name DEFAULT 'reports'::name$$, 'void'),
  ('voiding', 'create_document_voiding_part', $$part text, billing name DEFAULT 'billing'::name, reports name DEFAULT 'reports'::name$$, 'void'),
  -- connections
  ('voiding', 'connect_service', $$IN name text, IN conninfo text, IN known_as text, IN commands text[] DEFAULT '{}'::text[], IN events text[] DEFAULT '{}'::text[], IN owner regrole DEFAULT NULL::regrole, IN synchronous_commit text DEFAULT 'off'::text$$, NULL),
  ('voiding', 'disconnect_service', $$IN name text, IN discard boolean DEFAULT false, IN timeout interval DEFAULT '00:00:10'::interval$$, NULL),
  ('voiding', 'resend', 'service text, since timestamp with time zone DEFAULT NULL::timestamp with time zone', 'bigint'),
  -- events
  ('voiding', 'emit_event', '', 'trigger'),
  ('voiding', 'begin_conversation', '', 'trigger'),
  ('voiding', 'emit', 'type text, subject text, data jsonb, source text DEFAULT NULL::text', 'uuid'),
  ('voiding', 'cloudevent', 'e voiding.event', 'jsonb'),
  ('voiding', 'read_events', 'after text DEFAULT NULL::text, batch_size integer DEFAULT 100, types text[] DEFAULT NULL::text[]', 'TABLE(cursor text, event voiding.event)'),
  ('voiding', 'feed_now', '', 'text'),
  ('voiding', 'feed_answer', 'q voiding.http_request, channel text, item text, feed text', 'voiding.http_answer'),
  ('voiding', 'stream_text', 'id text, kind text, data jsonb', 'text'),
  ('voiding', 'metrics', '', 'text'),
  ('voiding', 'redact_event', 'event_id uuid, reason text', 'void'),
  ('voiding', 'history_of', 'subject text, after bigint DEFAULT 0, batch_size integer DEFAULT NULL::integer', 'SETOF voiding.archive'),
  -- processes
  ('voiding', 'create_process_type', 'name text, definition jsonb', 'integer'),
  ('voiding', 'drop_process_type', 'name text', 'void'),
  ('voiding', 'check_definition', 'definition jsonb', 'SETOF voiding.definition_fault'),
  ('voiding', 'acknowledge_process_failure', 'process_id uuid, reason text DEFAULT NULL::text', 'void'),
  ('voiding', 'wait_for_process', 'process_id uuid, timeout interval', 'voiding.process'),
  ('voiding', 'await', 'IN process_id uuid, IN timeout interval', NULL),
  ('voiding', 'start_workers', 'n integer DEFAULT NULL::integer', 'integer'),
  ('voiding', 'stop_workers', '', 'void'),
  ('voiding', 'explain', 'process_id uuid', 'TABLE(aspect text, what text, detail text, at timestamp with time zone)'),
  ('voiding', 'diagram', 'process_type text, process_id uuid DEFAULT NULL::uuid', 'text'),
  ('voiding', 'move_timer', 'process_id uuid, name text, due_at timestamp with time zone', 'void'),
  ('voiding', 'cancel_timer', 'process_id uuid, name text', 'void'),
  -- commands
  ('voiding', 'send_command', $$type text, data jsonb, idempotency_key text DEFAULT NULL::text, not_before timestamp with time zone DEFAULT NULL::timestamp with time zone, start_by timestamp with time zone DEFAULT NULL::timestamp with time zone$$, 'uuid'),
  ('voiding', 'send_commands', $$commands jsonb$$, 'TABLE(item integer, command_id uuid, error jsonb)'),
  ('voiding', 'sender', '', 'text'),
  ('voiding', 'command_status', $$command_id uuid$$, 'voiding.command'),
  ('voiding', 'wait_for_command', $$command_id uuid, timeout interval, seen_by text[] DEFAULT NULL::text[]$$, 'voiding.command'),
  ('voiding', 'cancel_command', $$command_id uuid, reason text DEFAULT NULL::text$$, 'voiding.command'),
  ('voiding', 'estimate_command', $$command_id uuid$$, 'timestamp with time zone'),
  ('voiding', 'command_changes', $$after text DEFAULT NULL::text, batch_size integer DEFAULT 100$$, 'TABLE(cursor text, command voiding.command)'),
  ('voiding', 'execute', $$IN type text, IN data jsonb, IN timeout interval, IN idempotency_key text DEFAULT NULL::text, INOUT command voiding.command DEFAULT NULL::voiding.command$$, NULL),
  -- tasks
  ('voiding', 'create_task_type', $$name text, definition jsonb, service text DEFAULT NULL::text$$, 'void'),
  ('voiding', 'drop_task_type', 'name text', 'void'),
  ('voiding', 'act_on_task', $$task_id uuid, action text, arguments jsonb DEFAULT '{}'::jsonb, action_id uuid DEFAULT NULL::uuid, version integer DEFAULT NULL::integer$$, 'voiding.task'),
  ('voiding', 'next_task', $$types text[] DEFAULT NULL::text[], form_factor text DEFAULT NULL::text, action_id uuid DEFAULT NULL::uuid$$, 'voiding.task'),
  ('voiding', 'claim_task', $$task_id uuid, action_id uuid DEFAULT NULL::uuid, version integer DEFAULT NULL::integer$$, 'voiding.task'),
  ('voiding', 'start_task', $$task_id uuid, action_id uuid DEFAULT NULL::uuid, version integer DEFAULT NULL::integer$$, 'voiding.task'),
  ('voiding', 'extend_claim', $$task_id uuid, lease interval DEFAULT NULL::interval, action_id uuid DEFAULT NULL::uuid, version integer DEFAULT NULL::integer$$, 'voiding.task'),
  ('voiding', 'suspend_task', $$task_id uuid, until timestamp with time zone DEFAULT NULL::timestamp with time zone, reason text DEFAULT NULL::text, action_id uuid DEFAULT NULL::uuid, version integer DEFAULT NULL::integer$$, 'voiding.task'),
  ('voiding', 'resume_task', $$task_id uuid, action_id uuid DEFAULT NULL::uuid, version integer DEFAULT NULL::integer$$, 'voiding.task'),
  ('voiding', 'release_task', $$task_id uuid, reason text DEFAULT NULL::text, action_id uuid DEFAULT NULL::uuid, version integer DEFAULT NULL::integer$$, 'voiding.task'),
  ('voiding', 'complete_task', $$task_id uuid, outcome jsonb DEFAULT '{}'::jsonb, action_id uuid DEFAULT NULL::uuid, version integer DEFAULT NULL::integer$$, 'voiding.task'),
  ('voiding', 'fail_task', $$task_id uuid, reason text, action_id uuid DEFAULT NULL::uuid, version integer DEFAULT NULL::integer$$, 'voiding.task'),
  ('voiding', 'cancel_task', $$task_id uuid, reason text DEFAULT NULL::text, action_id uuid DEFAULT NULL::uuid, version integer DEFAULT NULL::integer$$, 'voiding.task'),
  ('voiding', 'assign_task', $$task_id uuid, role name, reason text DEFAULT NULL::text, action_id uuid DEFAULT NULL::uuid, version integer DEFAULT NULL::integer$$, 'voiding.task'),
  ('voiding', 'task_actions', 'task_id uuid', 'TABLE(action text, to_state text)'),
  ('voiding', 'why_not', 'task_id uuid, role name DEFAULT NULL::name', 'text[]'),
  ('voiding', 'task_changes', 'after text DEFAULT NULL::text, batch_size integer DEFAULT 100', 'TABLE(cursor text, task_id uuid, task voiding.task)'),
  ('voiding', 'task_object', 't voiding.task', 'jsonb'),
  ('voiding', 'me', '', 'voiding.person'),
  ('voiding', 'fits', 't voiding.task, p voiding.person', 'boolean'),
  ('voiding', 'gap_tasks', '', 'SETOF voiding.task'),
  ('voiding', 'set_worker_profile', $$role name, skills text[] DEFAULT '{}'::text[], form_factors text[] DEFAULT '{}'::text[], capacity integer DEFAULT NULL::integer$$, 'void'),
  ('voiding', 'drop_worker_profile', 'role name', 'void'),
  -- queries, HTTP
  ('voiding', 'create_query', $$name text, function regproc, service text DEFAULT NULL::text$$, 'void'),
  ('voiding', 'drop_query', $$name text$$, 'void'),
  ('voiding', 'run_query', $$name text, arguments jsonb DEFAULT '{}'::jsonb$$, 'jsonb'),
  ('voiding', 'http', $$method text, path text, query jsonb DEFAULT '{}'::jsonb, headers jsonb DEFAULT '{}'::jsonb, body text DEFAULT NULL::text$$, 'voiding.http_answer'),
  ('voiding', 'problem', $$sqlstate text, detail text, hint text DEFAULT NULL::text, instance text DEFAULT NULL::text$$, 'jsonb'),
  ('voiding', 'command_object', $$command voiding.command$$, 'jsonb'),
  ('voiding', 'url', $$path text, query jsonb$$, 'text'),
  ('voiding', 'retry_after', $$command_id uuid, type text$$, 'integer'),
  ('voiding', 'resource_of', $$command_id uuid$$, 'jsonb'),
  ('voiding', 'action_id', $$key text$$, 'uuid'),
  ('billing', 'get_document', 'document_id text', 'billing.document'),
  ('reports', 'get_report', 'report_id bigint', 'jsonb'),
  ('reports', 'get_reports', 'customer_id text DEFAULT NULL::text, currency text DEFAULT NULL::text, status text DEFAULT NULL::text, before bigint DEFAULT NULL::bigint, batch_size integer DEFAULT 100', 'SETOF reports.report'),
  -- running
  ('voiding', 'dispatch', 'service text DEFAULT NULL::text, batch_size integer DEFAULT NULL::integer', 'integer'),
  ('voiding', 'wait_until_idle', 'timeout interval', 'boolean'),
  ('voiding', 'await_idle', 'IN timeout interval', NULL),
  ('voiding', 'maintain', '', 'void'),
  ('voiding', 'retry_message', 'id uuid, reason text DEFAULT NULL::text', 'integer'),
  ('voiding', 'retry_parked_event', 'event_id uuid', 'integer'),
  ('voiding', 'discard_parked_event', 'event_id uuid, reason text', 'integer'),
  ('voiding', 'discard_message', 'id uuid, reason text', 'integer'),
  -- commands that somebody waits for
  -- small ones
  ('voiding', 'now', '', 'timestamp with time zone'),
  ('voiding', 'uuid', '', 'uuid'),
  ('voiding', 'uuid_from', 't timestamp with time zone', 'uuid'),
  ('voiding', 'uuid_time', 'id uuid', 'timestamp with time zone'),
  ('voiding', 'caller', '', 'name'),
  ('voiding', 'check_snapshot', '', 'void');

CREATE TEMP TABLE present AS
  SELECT n.nspname AS schema, p.proname AS name, pg_get_function_arguments(p.oid) AS arguments,
         pg_get_function_result(p.oid) AS result, obj_description(p.oid, 'pg_proc') AS comment
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
   WHERE n.nspname IN ('voiding', 'billing', 'reports');

SELECT is_empty(
  $$ TABLE wanted EXCEPT SELECT schema, name, arguments, result FROM present $$,
  'every public function is there: arguments, defaults and result are what the design says');
SELECT is_empty(
  $$ SELECT schema, name FROM wanted EXCEPT SELECT schema, name FROM present $$,
  'every public function is there by name');
SELECT is_empty(
  $$ SELECT p.schema, p.name FROM present p JOIN wanted USING (schema, name) GROUP BY 1, 2 HAVING count(*) > 1 $$,
  'no public function is overloaded');
SELECT is_empty(
  $$ SELECT name FROM present WHERE schema = 'voiding' AND (comment LIKE 'internal%') IS NOT TRUE
     EXCEPT SELECT name FROM wanted WHERE schema = 'voiding' $$,
  'whatever else is in schema voiding says that it is internal');

SELECT * FROM finish();
ROLLBACK;
