/*
 * outcome.c
 *	  What becomes of a command. Its row is changed in the commit that changes
 *	  what it tells of.
 *
 *	  accepted -> running -> processed or failed
 *	  accepted -> cancelled or expired
 *
 * A command ends with its handler; if that started a process or returned the
 * id of one, when the process is settled; or, where its type says so, with an
 * event of its conversation. Its id is the correlation id, and the id of the
 * process that it starts.
 *
 * Locks: the row of the command before anything that its handler locks; the
 * row of a process before those of running commands that wait for it.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/xid8.h"

#include "voiding.h"
#include "command.h"
#include "shared.h"

PG_FUNCTION_INFO_V1(voiding_end_command);
PG_FUNCTION_INFO_V1(voiding_sender);
PG_FUNCTION_INFO_V1(voiding_command_failed);

typedef struct Command			/* a row, locked */
{
	Datum		v[Cm_natts];
	bool		n[Cm_natts];
	ItemPointerData tid;
	VdCommandType *type;
	char	   *status;
} Command;

/* was this message sent with send_command()? */
bool
vd_command_is(const VdMessage *m)
{
	return m->sent_in == NULL && vd_uuid_equal(&m->id, &m->correlation) &&
		strcmp(m->source, VD_ENGINE) == 0;
}

static bool
lock(const pg_uuid_t *id, Command *c)
{
	VdKey		key = {UUIDOID, UUIDPGetDatum(id)};

	if (!vd_lock(VD_COMMAND, VdIdx_primary, 1, &key, c->v, c->n, &c->tid))
		return false;
	c->type = vd_command_type(TextDatumGetCString(c->v[Cm_type]));
	c->status = TextDatumGetCString(c->v[Cm_status]);
	return true;
}

static bool
is_open(const Command *c)
{
	return strcmp(c->status, "accepted") == 0 || strcmp(c->status, "running") == 0;
}

/* write a new status, and tell those who wait and listen */
static void
set_status(Command *c, const char *status, Jsonb *result, Jsonb *error)
{
	pg_uuid_t  *id = DatumGetUUIDP(c->v[Cm_id]);

	c->v[Cm_status] = CStringGetTextDatum(status);
	c->v[Cm_xid] = FullTransactionIdGetDatum(GetTopFullTransactionId());
	c->v[Cm_result] = JsonbPGetDatum(result);
	c->n[Cm_result] = result == NULL;
	c->v[Cm_error] = JsonbPGetDatum(error);
	c->n[Cm_error] = error == NULL;
	c->v[Cm_finished_at] = TimestampTzGetDatum(vd_now());
	c->n[Cm_finished_at] = strcmp(status, "running") == 0;
	vd_update(VD_COMMAND, &c->tid, c->v, c->n);
	CommandCounterIncrement();
	vd_notify_add("command", c->type->name, id);
	vd_wake_waiters(id);
}

/*
 * Before the handler runs; false: it is not to. Messages that are no such
 * commands may.
 */
bool
vd_command_begin(const VdMessage *m)
{
	Command		c;

	if (!vd_command_is(m))
		return true;
	CommandCounterIncrement();
	if (!lock(&m->id, &c))
		return true;
	if (strcmp(c.status, "accepted") != 0)
		return false;
	if (c.n[Cm_start_by] || DatumGetTimestampTz(c.v[Cm_start_by]) >= vd_now())
		return true;
	set_status(&c, "expired", NULL, NULL);
	return false;
}

/* wait for a process, or take what has become of it; false: there is none */
static bool
follow(Command *c, const pg_uuid_t *process_id)
{
	VdProcess	p = {0};
	bool		active = vd_process_lock(process_id, &p);

	if (!active && !vd_process_finished(process_id, &p))
		return false;
	c->v[Cm_process_id] = UUIDPGetDatum(process_id);
	c->n[Cm_process_id] = false;
	set_status(c, "running", NULL, NULL);
	if (!active || p.failed)	/* settled already */
		vd_command_settled(&p, NULL, NULL);
	return true;
}

/*
 * The handler is done, in this transaction. answer: what it returned, or
 * empty.
 */
void
vd_command_handled(const VdMessage *m, VdAnswer *answer)
{
	Command		c;

	if (!lock(&m->id, &c) || strcmp(c.status, "accepted") != 0)
		return;					/* an event has ended it */
	if (follow(&c, &m->id) || (answer->has_process && follow(&c, &answer->process_id)))
		return;
	if (c.type->completed_by)
		set_status(&c, "running", NULL, NULL);
	else
		set_status(&c, "processed", answer->result, NULL);
}

static Jsonb *
problem_of(const pg_uuid_t *id, const char *sqlstate, const char *detail, const char *hint)
{
	return vd_problem(sqlstate, detail, hint, psprintf("/commands/%s", vd_uuid_text(id)));
}

/* Is it no use to try again? Errors of the message's own doing. */
bool
vd_command_is_hopeless(const VdMessage *m, const ErrorData *e)
{
	static const char *const classes[] = {"VD", "P0", "22", "23", "42", "0A", "2F", "21"};
	const char *sqlstate = unpack_sql_state(e->sqlerrcode);

	for (size_t i = 0; vd_command_is(m) && i < lengthof(classes); i++)
		if (strncmp(sqlstate, classes[i], 2) == 0)
			return true;
	return false;
}

void
vd_command_fail(const pg_uuid_t *id, const char *sqlstate, const char *detail, const char *hint)
{
	Command		c;

	CommandCounterIncrement();
	if (lock(id, &c) && is_open(&c))
		set_status(&c, "failed", NULL, problem_of(id, sqlstate, detail, hint));
}

/* An event of its conversation that its type names ends a command. */
void
vd_command_event(const VdEvent *ev)
{
	Command		c;

	CommandCounterIncrement();
	if (!lock(&ev->correlation, &c) || !is_open(&c))
		return;
	if (c.type->completed_by && strcmp(c.type->completed_by, ev->type) == 0)
		set_status(&c, "processed", ev->data, NULL);
	else if (c.type->failed_by && strcmp(c.type->failed_by, ev->type) == 0)
	{
		char	   *reason = vd_json_text(vd_json_get(ev->data, "reason"));

		set_status(&c, "failed", NULL,
				   problem_of(&ev->correlation, "P0001", reason ? reason : ev->type, NULL));
	}
}

/* ---- processes ---- */

static bool
collect_id(TupleTableSlot *slot, void *arg)
{
	List	  **ids = arg;
	pg_uuid_t  *id = palloc(sizeof(pg_uuid_t));

	slot_getallattrs(slot);
	*id = *DatumGetUUIDP(slot->tts_values[Cm_id]);
	*ids = lappend(*ids, id);
	return true;
}

typedef struct End				/* how a process has ended */
{
	bool		done;
	char	   *reason;
	Jsonb	   *result;
} End;

static bool
read_end(TupleTableSlot *slot, void *arg)
{
	End		   *end = arg;
	Datum	   *v = slot->tts_values;

	slot_getallattrs(slot);
	end->done = strcmp(TextDatumGetCString(v[Fi_outcome]), "failed") != 0;
	end->reason = slot->tts_isnull[Fi_reason] ? NULL : TextDatumGetCString(v[Fi_reason]);
	end->result = slot->tts_isnull[Fi_result] ? NULL : DatumGetJsonbPCopy(v[Fi_result]);
	return false;
}

/* how it stands with a process that is settled; state and event: if it has just come there */
static End
end_of(const VdProcess *p, const VdState *state, Jsonb *event)
{
	End			end = {0};
	VdKey		key = {UUIDOID, UUIDPGetDatum(&p->id)};
	VdScope		scope = vd_scope(p, event);

	vd_scan(VD_FINISHED_PROCESS, VdIdx_primary, 1, &key, read_end, &end);
	if (!p->failed)
		return end;
	if (state == NULL)
		state = vd_definition_state(vd_definition(p->type, p->version), p->state);
	end.reason = vd_state_reason(state, &scope);
	return end;
}

static Jsonb *
process_result(const VdProcess *p)
{
	JsonbParseState *ps = NULL;

	pushJsonbValue(&ps, WJB_BEGIN_OBJECT, NULL);
	vd_json_push_text(&ps, "process_id", vd_uuid_text(&p->id));
	vd_json_push_text(&ps, "type", p->type);
	vd_json_push_text(&ps, "key", p->key);
	vd_json_push_text(&ps, "state", p->state);
	vd_json_push(&ps, "data", vd_json_datum(JsonbPGetDatum(p->data), false, JSONBOID, -1));
	return JsonbValueToJsonb(pushJsonbValue(&ps, WJB_END_OBJECT, NULL));
}

/*
 * A process is settled, and its row locked or gone: so are the commands that
 * wait for it. state, event: what it has just entered and why, or NULL.
 */
void
vd_command_settled(const VdProcess *p, const VdState *state, Jsonb *event)
{
	VdKey		key = {UUIDOID, UUIDPGetDatum(&p->id)};
	List	   *ids = NIL;
	ListCell   *lc;
	End			end;

	vd_scan(VD_COMMAND, VdIdx_link, 1, &key, collect_id, &ids);
	if (ids == NIL)
		return;
	end = end_of(p, state, event);
	foreach(lc, ids)
	{
		pg_uuid_t  *id = lfirst(lc);
		Command		c;

		if (!lock(id, &c) || strcmp(c.status, "running") != 0)
			continue;
		if (end.done && c.type->completed_by)
			continue;			/* it waits for its event */
		if (end.done)
			set_status(&c, "processed", end.result ? end.result : process_result(p), NULL);
		else
			set_status(&c, "failed", NULL,
					   problem_of(id, "VD09F", end.reason ? end.reason : p->state, NULL));
	}
}

/* ---- calls from SQL ---- */

/*
 * voiding.end_command(command_id uuid, status text) RETURNS boolean, internal:
 * a final status for a command that is accepted; false: it is not any more.
 */
Datum
voiding_end_command(PG_FUNCTION_ARGS)
{
	Command		c;

	if (!lock(PG_GETARG_UUID_P(0), &c) || strcmp(c.status, "accepted") != 0)
		PG_RETURN_BOOL(false);
	set_status(&c, text_to_cstring(PG_GETARG_TEXT_PP(1)), NULL, NULL);
	PG_RETURN_BOOL(true);
}

static bool
read_caller(TupleTableSlot *slot, void *arg)
{
	slot_getallattrs(slot);
	*(char **) arg = TextDatumGetCString(slot->tts_values[Cm_caller]);
	return false;
}

/*
 * voiding.sender() RETURNS text: in the handler of a command that was sent
 * with send_command(), the role that sent it; else null.
 */
Datum
voiding_sender(PG_FUNCTION_ARGS)
{
	const VdMessage *m = vd_current_message();
	char	   *caller = NULL;

	if (m != NULL && vd_command_is(m))
	{
		VdKey		key = {UUIDOID, UUIDPGetDatum(&m->id)};

		vd_scan(VD_COMMAND, VdIdx_primary, 1, &key, read_caller, &caller);
	}
	if (caller == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(caller));
}

/*
 * voiding.command_failed(process_id uuid, message_id uuid, command text,
 * sent_in text, sent_at timestamptz, error text, source text, key text)
 * RETURNS void,
 * internal: tell a process that a command of it was given up by hand.
 */
Datum
voiding_command_failed(PG_FUNCTION_ARGS)
{
	VdMessage	m = {0};

	m.correlation = *PG_GETARG_UUID_P(0);
	m.id = *PG_GETARG_UUID_P(1);
	if (PG_ARGISNULL(3))		/* it was no process that sent it */
	{
		if (vd_uuid_equal(&m.correlation, &m.id))
			vd_command_fail(&m.id, "57014", text_to_cstring(PG_GETARG_TEXT_PP(5)), NULL);
		PG_RETURN_VOID();
	}
	m.type = text_to_cstring(PG_GETARG_TEXT_PP(2));
	m.sent_in = text_to_cstring(PG_GETARG_TEXT_PP(3));
	m.created_at = PG_GETARG_TIMESTAMPTZ(4);
	m.error = text_to_cstring(PG_GETARG_TEXT_PP(5));
	m.source = text_to_cstring(PG_GETARG_TEXT_PP(6));
	m.aggregateid = text_to_cstring(PG_GETARG_TEXT_PP(7));
	vd_process_command_failed(&m);
	PG_RETURN_VOID();
}
