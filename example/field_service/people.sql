-- people.sql: who works in the example of field_service.sql, and with what.
--
-- Roles are PostgreSQL's own and belong to the whole cluster: those that are
-- there already are taken. A person is a role; a trade is a role that persons
-- are members of; a lead owns a service, and so looks after its tasks.

SELECT format('CREATE ROLE %I', r)
  FROM unnest('{worker,picker,technician,editor,warehouse_lead,field_lead,editorial_lead,pia,theo,tina,anna,bert,lea}'::text[]) r
 WHERE to_regrole(r) IS NULL \gexec

GRANT picker TO pia;
GRANT technician TO theo, tina;
GRANT editor TO anna, bert;
GRANT warehouse_lead, field_lead, editorial_lead TO lea;
GRANT worker TO picker, technician, editor, lea;

-- the duties worker and supervisor of doc/privilege.md, and front_end for what is done over HTTP
GRANT USAGE ON SCHEMA voiding TO worker;
GRANT SELECT ON voiding.task, voiding.my_task, voiding.available_task, voiding.overdue_task, voiding.task_queue,
  voiding.task_transition, voiding.worker_profile TO worker;
GRANT EXECUTE ON FUNCTION voiding.next_task, voiding.act_on_task, voiding.claim_task, voiding.start_task, voiding.extend_claim,
  voiding.suspend_task, voiding.resume_task, voiding.release_task, voiding.complete_task, voiding.fail_task,
  voiding.task_actions, voiding.why_not, voiding.task_changes, voiding.task_object, voiding.me, voiding.fits, voiding.now TO worker;
GRANT EXECUTE ON FUNCTION voiding.http, voiding.problem, voiding.action_id, voiding.url, voiding.feed_answer, voiding.feed_now,
  voiding.stream_text TO worker;
GRANT SELECT ON voiding.skill_gap TO lea;
GRANT EXECUTE ON FUNCTION voiding.cancel_task, voiding.assign_task, voiding.gap_tasks TO lea;

-- Tina is no electrician. Lea has said who can do what.
SELECT voiding.set_worker_profile('pia', form_factors => '{tablet}');
SELECT voiding.set_worker_profile('theo', skills => '{electrician}', form_factors => '{phone}', capacity => 3);
SELECT voiding.set_worker_profile('tina', skills => '{plumber}', form_factors => '{phone}');
SELECT voiding.set_worker_profile('anna', form_factors => '{desk,phone}');
SELECT voiding.set_worker_profile('bert', form_factors => '{desk}');
