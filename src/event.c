/*
 * event.c
 *	  Events, captured from row changes (capture.c) or emitted by a call:
 *	  stamped, given to the process manager, written, and put into the outbox
 *	  for those who subscribe to them.
 *
 * This is the only way into voiding.event. Correlation and causation come
 * from the message that is being handled, or from a column that
 * begin_conversation() filled; never from an argument.
 */
#include "postgres.h"

#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/xid8.h"

#include "voiding.h"

PG_FUNCTION_INFO_V1(voiding_emit);
PG_FUNCTION_INFO_V1(voiding_engine_emit);
PG_FUNCTION_INFO_V1(voiding_is_engine_event);

/* the last conversation begun by begin_conversation(): surely nobody's yet */
pg_uuid_t vd_last_begun;

/* ---- appending ---- */

void
vd_event_check_name(const char *what, const char *value, size_t limit)
{
	if (*value == '\0' || strlen(value) > limit)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the %s of an event has %zu bytes; it may have 1 to %zu",
						what, strlen(value), limit)));
}

/* an event type of the engine itself, about one process or task */
bool
vd_event_is_engines(const char *type)
{
	static const char *const reserved[] = {
		"ProcessFailureAcknowledged", "DeadlinePassed", "CommandFailed",
		"ParkedEventDelivered", "ProcessMoved", "MessageRetried", "MessageDiscarded",
		"TaskCreated", "TaskClaimed", "TaskStarted", "TaskSuspended", "TaskResumed",
		"TaskReleased", "TaskAssigned", "TaskEscalated", "TaskCompleted", "TaskFailed",
		"TaskCancelled", "TaskWithdrawn", "TaskExpired"
	};

	for (size_t i = 0; i < lengthof(reserved); i++)
		if (strcmp(type, reserved[i]) == 0)
			return true;
	return false;
}

/* voiding.is_engine_event(type text) RETURNS boolean, internal: the same */
Datum
voiding_is_engine_event(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(vd_event_is_engines(text_to_cstring(PG_GETARG_TEXT_PP(0))));
}

/* a type that a service may use */
void
vd_event_check_type(const char *type)
{
	vd_event_check_name("type", type, VD_MAX_NAME);
	if (vd_event_is_engines(type))
		ereport(ERROR,
				(errcode(ERRCODE_RESERVED_NAME),
				 errmsg("event type \"%s\" is the engine's own", type)));
}

/* stamp correlation and causation; a correlation from a row goes first */
void
vd_event_stamp(VdEvent *ev, const pg_uuid_t *from_row)
{
	const VdMessage *cause = vd_cause_of(from_row, ev->subject);

	ev->event_id = vd_uuid_new();
	ev->has_causation = cause != NULL;
	if (cause)
		ev->causation = cause->id;
	if (from_row)
	{
		ev->correlation = *from_row;
		ev->inherited = !vd_uuid_equal(from_row, &vd_last_begun);
		if (!ev->inherited)		/* the next event with it is an answer */
			memset(&vd_last_begun, 0, sizeof(vd_last_begun));
	}
	else if (cause)
	{
		ev->correlation = cause->correlation;
		ev->inherited = true;
	}
	else
		ev->correlation = ev->event_id;
}

/* draw the position, if that has not been done, and with it the time: what follows from it is later */
void
vd_event_position(VdEvent *ev)
{
	if (ev->position != 0)
		return;
	ev->position = vd_next_position();
	ev->recorded_at = vd_now();
}

static VdSteps *
steps_of(VdEvent *ev, const VdProcess *p)
{
	ListCell   *lc;
	VdSteps    *s;

	foreach(lc, ev->steps)
	{
		s = lfirst(lc);
		if (vd_uuid_equal(&s->process_id, &p->id))
			return s;
	}
	s = palloc0(sizeof(VdSteps));
	s->process_id = p->id;
	pushJsonbValue(&s->array, WJB_BEGIN_ARRAY, NULL);
	ev->steps = lappend(ev->steps, s);
	return s;
}

/*
 * Note on the event what it did to a process. note: NULL for a plain step,
 * else "ignored", "late", "parked", "was parked" or "discarded".
 */
void
vd_event_step(VdEvent *ev, const VdProcess *p, const char *event_type,
			  const char *from, List *commands, const char *note)
{
	JsonbParseState **ps = &steps_of(ev, p)->array;
	ListCell   *lc;

	pushJsonbValue(ps, WJB_BEGIN_OBJECT, NULL);
	vd_json_push_text(ps, "process_id", vd_uuid_text(&p->id));
	vd_json_push_text(ps, "event", event_type);
	vd_json_push_text(ps, "from", from);
	vd_json_push_text(ps, "to", p->state);
	if (commands)
	{
		pushJsonbValue(ps, WJB_KEY, vd_json_string("send"));
		pushJsonbValue(ps, WJB_BEGIN_ARRAY, NULL);
		foreach(lc, commands)
			pushJsonbValue(ps, WJB_ELEM,
						   vd_json_string(((VdCommand *) lfirst(lc))->send->command));
		pushJsonbValue(ps, WJB_END_ARRAY, NULL);
	}
	if (note)
		vd_json_push_text(ps, "note", note);
	pushJsonbValue(ps, WJB_END_OBJECT, NULL);
}

/* who acts: over there, the owner of the handler that runs, else the role that was set */
static Datum
actor(const VdEvent *ev)
{
	Oid			role = OidIsValid(ev->actor) ? ev->actor
		: OidIsValid(vd_current_owner) ? vd_current_owner : GetOuterUserId();

	return CStringGetTextDatum(GetUserNameFromId(role, false));
}

static void
tell_subscribers(const VdEvent *ev, const VdRoute *route)
{
	int64		seq = ev->position;
	ListCell   *lc;

	foreach(lc, route->subscribers)
	{
		VdMessage	m = {.id = ev->event_id,.type = (char *) ev->type,.payload = ev->data};

		if (ev->arrived && vd_known_as(lfirst(lc)))
			continue;			/* it is told where the event was said */
		m.aggregatetype = m.source = (char *) ev->source;
		m.aggregateid = (char *) ev->subject;
		m.destination = lfirst(lc);
		m.correlation = ev->correlation;
		m.causation = ev->causation;
		m.has_causation = ev->has_causation;
		m.seq = seq;
		vd_outbox_add(&m);
		seq = 0;				/* the next one draws its own */
	}
}

static void
write_row(VdEvent *ev, VdSteps *steps)
{
	Datum		v[Ev_natts];
	bool		n[Ev_natts] = {false};

	vd_event_position(ev);
	v[Ev_position] = Int64GetDatum(ev->position);
	v[Ev_event_id] = UUIDPGetDatum(&ev->event_id);
	v[Ev_type] = CStringGetTextDatum(ev->type);
	v[Ev_source] = CStringGetTextDatum(ev->source);
	v[Ev_subject] = CStringGetTextDatum(ev->subject);
	v[Ev_correlation] = UUIDPGetDatum(&ev->correlation);
	v[Ev_causation] = UUIDPGetDatum(&ev->causation);
	n[Ev_causation] = !ev->has_causation;
	v[Ev_data] = JsonbPGetDatum(ev->data);
	v[Ev_recorded_at] = TimestampTzGetDatum(ev->recorded_at);
	v[Ev_xid] = FullTransactionIdGetDatum(GetTopFullTransactionId());
	v[Ev_actor] = actor(ev);
	n[Ev_process_id] = n[Ev_steps] = steps == NULL;
	if (steps)
	{
		v[Ev_process_id] = UUIDPGetDatum(&steps->process_id);
		v[Ev_steps] = JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&steps->array,
																	  WJB_END_ARRAY, NULL)));
	}
	vd_insert(VD_EVENT, v, n);
	vd_notify_add("event", ev->type, &ev->event_id);
}

/*
 * Write the row, and messages for those who subscribe. A row says what was
 * done to one process; for each further one there is another row, an event of
 * the engine.
 */
void
vd_event_write(VdEvent *ev)
{
	ListCell   *lc;

	write_row(ev, ev->steps ? linitial(ev->steps) : NULL);
	for_each_from(lc, ev->steps, 1)
	{
		VdSteps    *steps = lfirst(lc);
		VdEvent		more;

		vd_engine_event(&more, "ProcessMoved", ev->subject, ev->data, &steps->process_id,
						&ev->event_id);
		write_row(&more, steps);
	}
	tell_subscribers(ev, vd_route(ev->type));
}

/* Append a stamped event: processes react first, then it is written. */
void
vd_event_append(VdEvent *ev)
{
	const VdRoute *route = vd_route(ev->type);

	check_stack_depth();
	if (route->listeners != NIL)
		vd_process_react(ev, route);
	vd_event_write(ev);
	if (route->ends_commands)
		vd_command_event(ev);
}

/* an event of the engine itself, stamped with a process's id */
void
vd_engine_event(VdEvent *ev, const char *type, const char *subject, Jsonb *data,
				const pg_uuid_t *correlation, const pg_uuid_t *causation)
{
	memset(ev, 0, sizeof(*ev));
	ev->event_id = vd_uuid_new();
	ev->type = type;
	ev->source = VD_ENGINE;
	ev->subject = subject;
	ev->data = data;
	ev->correlation = *correlation;
	ev->inherited = true;
	ev->has_causation = causation != NULL || vd_current_message() != NULL;
	if (causation)
		ev->causation = *causation;
	else if (ev->has_causation)
		ev->causation = vd_current_message()->id;
}

/* ---- emit ---- */

/* May this role speak for this service? Errors: 42704 no such service; 42501. */
void
vd_event_check_source(const char *source, Oid speaker)
{
	char	   *owner = NULL;
	Oid			role;

	if (!vd_service(source, &owner, NULL))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("service \"%s\" does not exist", source),
				 errhint("SELECT voiding.create_service(...) makes one.")));
	if (vd_known_as(source))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("service \"%s\" lives in another database, and speaks there", source)));
	role = get_role_oid(owner, true);
	if (!OidIsValid(role) || !has_privs_of_role(speaker, role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to emit events of service \"%s\"", source),
				 errdetail("Only members of its owner \"%s\" may.", owner)));
}

static char *
argument_text(FunctionCallInfo fcinfo, int i, const char *name)
{
	if (PG_ARGISNULL(i))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", name)));
	return text_to_cstring(PG_GETARG_TEXT_PP(i));
}

/*
 * voiding.emit(type text, subject text, data jsonb, source text) RETURNS uuid:
 * the id of the event. source: a service whose owner the caller is a member
 * of; null: in a handler its service. data: an object.
 *
 * Errors: 22004, 22023; 42704 no such service; 42501 not a member.
 */
Datum
voiding_emit(PG_FUNCTION_ARGS)
{
	VdEvent		ev = {0};
	pg_uuid_t  *id = palloc(sizeof(pg_uuid_t));

	ev.type = argument_text(fcinfo, 0, "type");
	ev.subject = argument_text(fcinfo, 1, "subject");
	vd_event_check_type(ev.type);
	vd_event_check_name("subject", ev.subject, VD_MAX_KEY_BYTES);
	ev.data = PG_ARGISNULL(2) ? vd_json_empty() : PG_GETARG_JSONB_P(2);
	if (!JB_ROOT_IS_OBJECT(ev.data))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the data of an event must be a JSON object")));
	if (!PG_ARGISNULL(3))
		ev.source = text_to_cstring(PG_GETARG_TEXT_PP(3));
	else if (vd_current_message())
		ev.source = vd_current_message()->destination;
	else
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("outside a handler an event needs a source"),
				 errhint("emit(type, subject, data, source => 'your service')")));
	vd_event_check_source(ev.source, GetUserId());
	vd_event_stamp(&ev, NULL);
	vd_event_append(&ev);
	*id = ev.event_id;
	PG_RETURN_UUID_P(id);
}

/*
 * voiding.engine_emit(type text, subject text, data jsonb, process_id uuid)
 * RETURNS uuid, internal: an event of the engine about a process, which may
 * react to it.
 */
Datum
voiding_engine_emit(PG_FUNCTION_ARGS)
{
	VdEvent		ev;
	pg_uuid_t  *id = palloc(sizeof(pg_uuid_t));

	vd_engine_event(&ev, argument_text(fcinfo, 0, "type"), argument_text(fcinfo, 1, "subject"),
					PG_GETARG_JSONB_P(2), PG_GETARG_UUID_P(3), NULL);
	vd_event_append(&ev);
	*id = ev.event_id;
	PG_RETURN_UUID_P(id);
}
