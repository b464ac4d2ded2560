-- How functions run: search_path is pinned, with temporary objects last; who
-- runs with other rights than the caller's, and what is written in C, is
-- listed here, so that an addition is a decision.
BEGIN;
SELECT plan(9);

CREATE TEMP TABLE f AS
  SELECT p.oid, n.nspname AS schema, p.proname::text AS name, l.lanname AS language, p.prosqlbody IS NOT NULL AS parsed, p.prosecdef, p.prokind, p.provolatile,
         (SELECT substr(s, 13) FROM unnest(p.proconfig) s WHERE s LIKE 'search_path=%') AS path
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
   WHERE n.nspname IN ('voiding', 'billing', 'reports');

SELECT is_empty($$ SELECT oid::regprocedure FROM f WHERE language <> 'c' AND path IS NULL AND NOT parsed
                      AND name NOT IN ('connect_service', 'disconnect_service') $$,
  'every function that is not in C, or bound to its objects when it was made, pins search_path; two that commit cannot, and set it themselves');
SELECT is_empty($$ SELECT oid::regprocedure, path FROM f WHERE schema = 'voiding' AND path <> 'pg_catalog, pg_temp' $$,
  'in schema voiding to pg_catalog, temporary objects last');
SELECT is_empty($$ SELECT oid::regprocedure, path FROM f WHERE schema <> 'voiding' AND path <> schema || ', pg_temp' $$,
  'in a service to its own schema, temporary objects last');
SELECT set_eq($$ SELECT name FROM f WHERE language = 'c' $$,
  ARRAY['now', 'uuid', 'caller', 'definitions_changed', 'emit_event', 'begin_conversation', 'emit', 'engine_emit',
        'dispatch', 'command_failed', 'wait_until_idle', 'await_idle', 'check_snapshot', 'hint', 'next_xid', 'deliver_parked', 'wait_settled', 'await',
        'launch', 'stop', 'wake_timer', 'repaired', 'process_for', 'counters', 'serving',
        'send_command', 'problem', 'sender', 'end_command', 'wait_final', 'execute', 'run_query', 'http', 'url', 'command_object', 'retry_after',
        'fill', 'ask_check', 'is_own_event', 'derive_uuid', 'is_engine_event', 'arrive',
        -- these call do_NAME as the engine's owner, on behalf of their caller
        'create_service', 'drop_service', 'create_command', 'drop_command', 'subscribe', 'unsubscribe',
        'create_process_type', 'drop_process_type', 'acknowledge_process_failure', 'retry_message', 'discard_message', 'retry_parked_event', 'discard_parked_event',
        'redact_event', 'start_workers', 'stop_workers', 'command_status', 'wait_for_command', 'cancel_command', 'estimate_command',
        'create_query', 'drop_query', 'command_changes', 'read_events', 'feed_now', 'metrics',
        'create_task_type', 'drop_task_type', 'act_on_task', 'next_task', 'task_actions', 'why_not', 'task_changes', 'gap_tasks', 'me',
        'set_worker_profile', 'drop_worker_profile'],
  'these functions, and no others, are in C and look names up by schema');
SELECT is_empty($$ SELECT oid::regprocedure FROM f WHERE language NOT IN ('c', 'sql', 'plpgsql') $$,
  'no other language is used');
SELECT set_eq($$ SELECT schema || '.' || name FROM f WHERE prosecdef $$,
  ARRAY['voiding.add_event_partition', 'voiding.add_finished_partition', 'voiding.maintain', 'voiding.move_timer',
        'voiding.cancel_timer', 'voiding.explain', 'voiding.diagram', 'voiding.check_definition', 'voiding.check_invariants',
        'voiding.wait_for_process', 'voiding.history_of',
        'billing.issue_document', 'billing.void_document', 'billing.refuse_document', 'billing.check_invariants', 'billing.get_document',
        'reports.publish_report', 'reports.check_invariants', 'reports.get_report', 'reports.get_reports'],
  'these functions, and no others, run with the rights of their owner');
SELECT is_empty($$ SELECT oid::regprocedure FROM f WHERE language = 'c' AND provolatile = 'i' AND name NOT IN ('problem', 'url') $$,
  'no other function in C is IMMUTABLE: all of them look at the session or at tables');
SELECT is_empty($$ SELECT oid::regprocedure FROM f WHERE name ~ '^(create|drop|add|move|cancel|retry|discard|redact|acknowledge|dispatch|emit|maintain|open_task|close_task|send_|end_|forget|archive|lock|purge)'
                      AND provolatile <> 'v' $$,
  'what writes is VOLATILE');

-- the catalog cannot tell a default from a decision: the files can
\set unstated `awk 'BEGIN { RS = "CREATE FUNCTION " } FNR > 1 { head = $0; sub(/\$\$.*|\$create\$.*|AS .MODULE_PATHNAME.*/, "", head); if (head !~ /VOLATILE|STABLE|IMMUTABLE/) print $1 }' sql/*.sql`
\set functions `cat sql/*.sql | grep -c '^CREATE FUNCTION '`
SELECT ok(:functions > 50 AND :'unstated' = '', 'every function says whether it is VOLATILE, STABLE or IMMUTABLE: ' || :'unstated');

SELECT * FROM finish();
ROLLBACK;
