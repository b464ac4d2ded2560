-- The blocks of doc/privilege.md, run as they stand there: each role gets the
-- rights that its block names, on functions and on tables, and no others.
-- The blocks are cut out of the page with awk; roles get the prefix regress_.
BEGIN;
SELECT plan(57);

CREATE ROLE regress_app; CREATE ROLE regress_publisher; CREATE ROLE regress_loader; CREATE ROLE regress_operator;
CREATE ROLE regress_redactor; CREATE ROLE regress_dispatcher; CREATE ROLE regress_owner; CREATE ROLE regress_designer;
CREATE ROLE regress_monitor; CREATE ROLE regress_voiding_owner; CREATE ROLE regress_front_end; CREATE ROLE regress_reader; CREATE ROLE regress_console;
CREATE ROLE regress_event_reader; CREATE ROLE regress_gateway;
CREATE ROLE regress_sender; CREATE ROLE regress_worker; CREATE ROLE regress_supervisor; CREATE ROLE regress_personnel; CREATE ROLE regress_archivist;
\set grants `awk '/^-- [a-z_]+: /{on=1} !/^(-- |GRANT |  [a-z])/{on=0} on && !/^--/' doc/privilege.md | sed -E 's/ TO ([a-z_]+);/ TO regress_\1;/'`
:grants

CREATE TEMP TABLE duty (role text, functions text[], relations text[]);
INSERT INTO duty VALUES
  ('app', '{billing.issue_document,billing.void_document}', '{}'),
  ('sender', '{billing.issue_document,billing.void_document,voiding.cancel_command,voiding.command_changes,voiding.command_status,voiding.estimate_command,voiding.execute,voiding.problem,voiding.send_command,voiding.send_commands,voiding.wait_for_command}',
     '{voiding.command:SELECT}'),
  ('publisher', '{reports.publish_report}', '{reports.report:SELECT}'),
  ('loader', '{}', '{billing.document:INSERT}'),
  ('operator', '{voiding.acknowledge_process_failure,voiding.cancel_timer,voiding.diagram,voiding.discard_message,voiding.discard_parked_event,voiding.explain,voiding.me,voiding.move_timer,voiding.retry_message,voiding.retry_parked_event,voiding.waits_for}',
     '{voiding.dead_letter:SELECT,voiding.ongoing_process:SELECT,voiding.outbox:SELECT,voiding.process_history:SELECT,voiding.task:SELECT,voiding.timer:SELECT,voiding.transition:SELECT}'),
  ('front_end', '{voiding.action_id,voiding.cancel_command,voiding.command_changes,voiding.command_object,voiding.command_status,voiding.estimate_command,voiding.feed_answer,voiding.feed_now,voiding.http,voiding.problem,voiding.resource_of,voiding.retry_after,voiding.run_query,voiding.send_command,voiding.send_commands,voiding.stream_text,voiding.url,voiding.wait_for_command}',
     '{voiding.command:SELECT,voiding.handler:SELECT,voiding.route:SELECT,voiding.task_transition:SELECT}'),
  ('worker', '{voiding.act_on_task,voiding.claim_task,voiding.complete_task,voiding.extend_claim,voiding.fail_task,voiding.fits,voiding.me,voiding.next_task,voiding.now,voiding.release_task,voiding.resume_task,voiding.start_task,voiding.suspend_task,voiding.task_actions,voiding.task_changes,voiding.task_object,voiding.why_not}',
     '{voiding.available_task:SELECT,voiding.my_task:SELECT,voiding.overdue_task:SELECT,voiding.task:SELECT,voiding.task_queue:SELECT,voiding.task_transition:SELECT,voiding.worker_profile:SELECT}'),
  ('supervisor', '{voiding.assign_task,voiding.cancel_task,voiding.gap_tasks}', '{voiding.skill_gap:SELECT}'),
  ('personnel', '{voiding.drop_worker_profile,voiding.set_worker_profile}', '{}'),
  ('reader', '{billing.get_document,reports.get_report,reports.get_reports}', '{}'),
  ('event_reader', '{voiding.cloudevent,voiding.feed_now,voiding.read_events}', '{}'),
  ('gateway', '{voiding.problem}', '{}'),
  ('console', '{voiding.items,voiding.long_form,voiding.metrics}', '{voiding.parked_event:SELECT,voiding.process:SELECT,voiding.process_type:SELECT}'),
  ('redactor', '{voiding.redact_event}', '{}'),
  ('archivist', '{voiding.history_of}', '{voiding.archive:SELECT}'),
  ('dispatcher', '{voiding.await_idle,voiding.dispatch,voiding.wait_until_idle}', '{}'),
  ('owner', '{voiding.begin_conversation,voiding.caller,voiding.check_snapshot,voiding.create_command,voiding.create_query,voiding.create_service,voiding.create_task_type,voiding.drop_command,voiding.drop_query,voiding.drop_service,voiding.drop_task_type,voiding.emit,voiding.emit_event,voiding.now,voiding.sender,voiding.subscribe,voiding.unsubscribe,voiding.uuid}', '{}'),
  ('designer', '{voiding.check_definition,voiding.create_process_type,voiding.diagram,voiding.drop_process_type}', '{}'),
  ('monitor', '{voiding.check_invariants,voiding.diagram,voiding.explain,voiding.me,voiding.metrics,voiding.now,voiding.waits_for}',
     '{voiding.connection:SELECT,voiding.dead_letter:SELECT,voiding.handler:SELECT,voiding.ongoing_process:SELECT,voiding.outbox:SELECT,voiding.parked_event:SELECT,voiding.process:SELECT,voiding.process_history:SELECT,voiding.service:SELECT,voiding.task:SELECT,voiding.task_purge:SELECT,voiding.timer:SELECT,voiding.transition:SELECT}');

CREATE TEMP TABLE ours AS SELECT oid, nspname FROM pg_namespace WHERE nspname IN ('voiding', 'billing', 'reports');

SELECT is((SELECT coalesce(array_agg(n.nspname || '.' || p.proname ORDER BY (n.nspname || '.' || p.proname) COLLATE "C"), '{}')
             FROM pg_proc p JOIN ours n ON n.oid = p.pronamespace
            WHERE has_function_privilege('regress_' || d.role, p.oid, 'EXECUTE')),
          d.functions, d.role || ': these functions')
  FROM duty d;
SELECT is((SELECT coalesce(array_agg(n.nspname || '.' || c.relname || ':' || r ORDER BY (n.nspname || '.' || c.relname || ':' || r) COLLATE "C"), '{}')
             FROM pg_class c JOIN ours n ON n.oid = c.relnamespace,
                  unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) r
            WHERE c.relkind IN ('r', 'p', 'v') AND has_table_privilege('regress_' || d.role, c.oid, r)),
          d.relations, d.role || ': these tables')
  FROM duty d;
SELECT is((SELECT coalesce(array_agg(n.nspname::text ORDER BY n.nspname::text), '{}') FROM ours n WHERE has_schema_privilege('regress_' || d.role, n.oid, 'USAGE')),
          (SELECT coalesce(array_agg(DISTINCT split_part(o, '.', 1) ORDER BY split_part(o, '.', 1)), '{}') FROM unnest(d.functions || d.relations) o),
          d.role || ': these schemas')
  FROM duty d;

SELECT * FROM finish();
ROLLBACK;
