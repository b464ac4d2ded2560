/*
 * process.c
 *	  The process manager: finds the process that an event is for, takes the
 *	  step under the lock of its row, and writes what the step decided.
 *
 * It runs inside the transaction that writes the event, so that the event,
 * the new state, the timers and the commands are one commit. It must never
 * raise an error for what a process type makes of an event: the service that
 * spoke is not to blame. What cannot be used is parked, late or a dead letter.
 *
 * Invariants: a process is in active_process or in finished_process, never in
 * both; at most one active process has a given type and key; what carries a
 * process's id as correlation moves that process or none.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "voiding.h"

PG_FUNCTION_INFO_V1(voiding_process_for);

#define START "(start)"

/* ---- rows ---- */

static char *
text_of(Datum d)
{
	return TextDatumGetCString(d);
}

static void
from_row(VdProcess *p, const Datum *v, const bool *n, ItemPointer tid)
{
	p->id = *DatumGetUUIDP(v[Pr_id]);
	p->type = text_of(v[Pr_type]);
	p->version = DatumGetInt32(v[Pr_version]);
	p->key = text_of(v[Pr_key]);
	p->state = text_of(v[Pr_state]);
	p->failed = DatumGetBool(v[Pr_failed]);
	p->data = DatumGetJsonbP(v[Pr_data]);
	p->started_at = DatumGetTimestampTz(v[Pr_started_at]);
	p->since = DatumGetTimestampTz(v[Pr_since]);
	p->conversation = *DatumGetUUIDP(v[Pr_conversation]);
	p->task = n[Pr_task] ? NULL : text_of(v[Pr_task]);
	p->tid = *tid;
}

void
vd_process_to_row(const VdProcess *p, Datum *v, bool *n)
{
	memset(n, false, Pr_natts);
	v[Pr_id] = UUIDPGetDatum(&p->id);
	v[Pr_type] = CStringGetTextDatum(p->type);
	v[Pr_version] = Int32GetDatum(p->version);
	v[Pr_key] = CStringGetTextDatum(p->key);
	v[Pr_state] = CStringGetTextDatum(p->state);
	v[Pr_failed] = BoolGetDatum(p->failed);
	v[Pr_data] = JsonbPGetDatum(p->data);
	v[Pr_started_at] = TimestampTzGetDatum(p->started_at);
	v[Pr_since] = TimestampTzGetDatum(p->since);
	v[Pr_updated_at] = TimestampTzGetDatum(vd_now());
	v[Pr_conversation] = UUIDPGetDatum(&p->conversation);
	v[Pr_task] = p->task ? CStringGetTextDatum(p->task) : (Datum) 0;
	n[Pr_task] = p->task == NULL;
}

static bool
lock_by(int indexno, int nkeys, const VdKey *keys, VdProcess *p)
{
	Datum		v[Pr_natts];
	bool		n[Pr_natts];
	ItemPointerData tid;

	if (!vd_lock(VD_ACTIVE_PROCESS, indexno, nkeys, keys, v, n, &tid))
		return false;
	from_row(p, v, n, &tid);
	return true;
}

/* Lock an active process by id, waiting for whoever is moving it. */
bool
vd_process_lock(const pg_uuid_t *id, VdProcess *p)
{
	VdKey		key = {UUIDOID, UUIDPGetDatum(id)};

	return lock_by(VdIdx_primary, 1, &key, p);
}

static bool
lock_by_key(const char *type, const char *key, VdProcess *p)
{
	VdKey		keys[] = {{TEXTOID, CStringGetTextDatum(type)}, {TEXTOID, CStringGetTextDatum(key)}};

	return lock_by(VdIdx_key, 2, keys, p);
}

static bool
read_finished(TupleTableSlot *slot, void *arg)
{
	VdProcess  *p = arg;

	slot_getallattrs(slot);		/* its row begins like that of an active one */
	from_row(p, slot->tts_values, slot->tts_isnull, &slot->tts_tid);
	p->data = DatumGetJsonbPCopy(slot->tts_values[Pr_data]);
	return false;
}

/* Is there such a process that has ended? All of it but where it is. */
bool
vd_process_finished(const pg_uuid_t *id, VdProcess *p)
{
	VdKey		key = {UUIDOID, UUIDPGetDatum(id)};

	p->type = NULL;
	vd_scan(VD_FINISHED_PROCESS, VdIdx_primary, 1, &key, read_finished, p);
	return p->type != NULL;
}

static bool
read_active(TupleTableSlot *slot, void *arg)
{
	VdProcess  *p = arg;

	slot_getallattrs(slot);
	from_row(p, slot->tts_values, slot->tts_isnull, &slot->tts_tid);
	p->data = DatumGetJsonbPCopy(slot->tts_values[Pr_data]);
	return false;
}

static bool
read_failed(TupleTableSlot *slot, void *arg)
{
	bool		isnull;

	return DatumGetBool(slot_getattr(slot, Pr_failed + 1, &isnull)) && read_active(slot, arg);
}

/* A failed process of this type and key must be acknowledged before another is asked for. */
void
vd_process_check_acknowledged(const char *type, const char *key)
{
	VdKey		keys[] = {{TEXTOID, CStringGetTextDatum(type)}, {TEXTOID, CStringGetTextDatum(key)}};
	VdProcess	p = {.type = NULL};
	VdScope		scope;
	char	   *reason;

	vd_scan(VD_ACTIVE_PROCESS, VdIdx_key, 2, keys, read_failed, &p);
	if (p.type == NULL)
		return;
	scope = vd_scope(&p, NULL);
	reason = vd_state_reason(vd_definition_state(vd_definition(p.type, p.version), p.state), &scope);
	ereport(ERROR,
			(errcode(ERRCODE_VD_UNACKNOWLEDGED),
			 errmsg("the last process \"%s\" of \"%s\" has failed and is not acknowledged", type, key),
			 reason ? errdetail("%s", reason) : 0,
			 errhint("SELECT voiding.acknowledge_process_failure('%s', 'reason');", vd_uuid_text(&p.id))));
}

/*
 * voiding.process_for(process_type text, key text, OUT process_id uuid, OUT
 * state text, OUT failed boolean, OUT data jsonb): the active process of this
 * type and key, or nulls. By index, without a plan: what a service asks for
 * each row must not depend on what the planner last knew of a table that is
 * empty most of the time. Locks nothing.
 */
Datum
voiding_process_for(PG_FUNCTION_ARGS)
{
	VdKey		keys[] = {{TEXTOID, PG_GETARG_DATUM(0)}, {TEXTOID, PG_GETARG_DATUM(1)}};
	VdProcess	p = {.type = NULL};
	TupleDesc	desc;
	Datum		v[4] = {0};
	bool		n[4] = {true, true, true, true};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	vd_scan(VD_ACTIVE_PROCESS, VdIdx_key, 2, keys, read_active, &p);
	if (p.type != NULL)
	{
		memset(n, false, sizeof(n));
		v[0] = UUIDPGetDatum(&p.id);
		v[1] = CStringGetTextDatum(p.state);
		v[2] = BoolGetDatum(p.failed);
		v[3] = JsonbPGetDatum(p.data);
	}
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), v, n)));
}

/* ---- steps ---- */

/*
 * Take a transition of an active, locked process, write it and note it on ev.
 * event_type and event_data differ from ev's for an event that was parked.
 * Returns whether p is still what the row says: not when it has ended, or when
 * an event that the step emitted has moved it on.
 */
bool
vd_process_step(VdDefinition *def, VdProcess *p, VdTransition *t, VdEvent *ev,
				const char *event_type, Jsonb *event_data, const char *note)
{
	VdEffects	fx = {0};
	char	   *from = p->state;

	vd_step_take(def, p, t, event_data, &fx);
	vd_effects_write(p, &fx, ev, event_data, false);
	vd_event_step(ev, p, event_type, from, fx.commands, note);
	return vd_process_goes_on(p, &fx, ev);
}

/* the same question, after a step that has been written */
bool
vd_process_goes_on(VdProcess *p, VdEffects *fx, VdEvent *ev)
{
	char	   *state = p->state;
	TimestampTz since = p->since;

	if (fx->entered && fx->entered->final)
	{
		vd_parked_late(p, ev);
		return false;
	}
	if (fx->emits == NIL && !fx->tasks)
		return true;
	return vd_process_lock(&p->id, p) && strcmp(p->state, state) == 0 && p->since == since;
}

/* ---- reacting ---- */

/* does some state of this type wait for such an event? */
static bool
expects(VdDefinition *def, const char *event_type)
{
	ListCell   *lc;

	foreach(lc, def->transitions)
	{
		VdTransition *t = lfirst(lc);

		if (strcmp(t->via, "on") == 0 && strcmp(t->name, event_type) == 0)
			return true;
	}
	return false;
}

static void
move(VdProcess *p, VdEvent *ev)
{
	VdDefinition *def = vd_definition(p->type, p->version);
	VdScope		scope = vd_scope(p, ev->data);
	VdTransition *t = vd_step_pick(def, p->state, "on", ev->type, &scope);

	if (t == NULL && expects(def, ev->type) &&
		!vd_step_knows(def, p->state, "on", ev->type))
		vd_park(ev, def, p->key, p);
	else if (t == NULL || (t->target == NULL && !t->own.set && !t->own.send && !t->own.emit))
		vd_event_step(ev, p, ev->type, p->state, NIL, "ignored");
	else if (vd_process_step(def, p, t, ev, ev->type, ev->data, NULL))
		vd_unpark(def, p, ev);
}

/* let the active process of this key react, if there is one */
static bool
move_by_key(VdDefinition *def, const char *key, VdEvent *ev)
{
	VdProcess	p;

	if (!lock_by_key(def->type, key, &p))
		return false;
	if (!ev->inherited)
		ev->correlation = p.id;
	move(&p, ev);
	return true;
}

/*
 * Start a process. It is decided first and then inserted; should another one
 * with its type and key be there by then, nothing has been written, and the
 * event belongs to that one ("conflict": "return"). Returns whether a process
 * has been started.
 */
static bool
start(VdDefinition *def, const char *key, VdEvent *ev, const pg_uuid_t *id)
{
	VdProcess	p = {.id = *id,.type = def->type,.version = def->version,.key = (char *) key,
		.data = ev->data,.conversation = ev->conversation
	};
	VdScope		scope = vd_scope(&p, ev->data);
	VdTransition *t = vd_step_pick(def, START, "start", ev->type, &scope);
	VdEffects	fx = {0};
	Datum		v[Pr_natts];
	bool		n[Pr_natts];
	bool		written;

	if (t == NULL)				/* a guard does not hold */
	{
		(void) move_by_key(def, key, ev);
		return false;
	}
	p.started_at = p.since = vd_now();
	vd_step_take(def, &p, t, ev->data, &fx);
	vd_process_to_row(&p, v, n);
	while (!vd_insert_new(VD_ACTIVE_PROCESS, v, n))
	{
		CHECK_FOR_INTERRUPTS();
		if (move_by_key(def, key, ev))
			return false;
	}
	CommandCounterIncrement();
	written = !fx.entered->final && fx.entered->task == NULL;
	if (!written && !vd_process_lock(&p.id, &p))
		elog(ERROR, "process %s is gone right after its start", vd_uuid_text(&p.id));
	if (!fx.entered->final)
		vd_set_timers(&p, def->timers);
	vd_effects_write(&p, &fx, ev, ev->data, written);
	vd_event_step(ev, &p, ev->type, NULL, fx.commands, NULL);
	if (vd_process_goes_on(&p, &fx, ev))
		vd_unpark(def, &p, ev);
	return true;
}

/* the business key that a type reads from this event, or NULL */
static char *
key_of(VdDefinition *def, const VdEvent *ev)
{
	JsonbValue *options = vd_json_get(def->events, ev->type);
	JsonbValue *path = NULL;
	VdScope		scope = {.event = ev->data};
	char	   *key;

	if (options && options->type == jbvBinary)
		path = getKeyJsonValueFromContainer(options->val.binary.data, "key", 3, NULL);
	key = path ? vd_json_text(vd_json_value(path, &scope))
		: vd_json_text(vd_json_get(ev->data, def->key));
	return key && *key && strlen(key) <= VD_MAX_KEY_BYTES ? key : NULL;
}

/*
 * The process of this type that the event's correlation names: true if it is
 * active (and then locked) or has ended (then *late).
 */
static bool
by_correlation(VdDefinition *def, const char *key, const VdEvent *ev, VdProcess *p,
			   bool *late, bool *taken)
{
	pg_uuid_t	second;

	*late = false;
	if (vd_process_lock(&ev->conversation, p) ||
		(*late = vd_process_finished(&ev->conversation, p)))
	{
		*taken = true;
		if (strcmp(p->type, def->type) == 0)
			return true;
	}
	*late = false;
	if (key == NULL)
		return false;
	second = vd_uuid_derive(&ev->conversation, def->type, key);
	return vd_process_lock(&second, p) || (*late = vd_process_finished(&second, p));
}

static void
react(VdListener *l, VdEvent *ev, bool *taken)
{
	VdDefinition *def = l->def;
	char	   *key = key_of(def, ev);
	VdProcess	p = {0};
	bool		late = false;

	if (ev->inherited && by_correlation(def, key, ev, &p, &late, taken))
	{
		if (late)
			vd_event_step(ev, &p, ev->type, p.state, NIL, "late");
		else
			move(&p, ev);
	}
	else if (vd_event_is_engines(ev->type))
		return;					/* it is about a process of another type */
	else if (key == NULL)
		vd_dead_event(ev, def->type,
					  psprintf("the event has no key: process type %s looks for it in \"%s\"",
							   def->type, def->key));
	else if (!l->starts && move_by_key(def, key, ev))
		return;
	else if (l->starts)
	{
		pg_uuid_t	id = *taken || !vd_uuid_has_time(&ev->conversation)
			? vd_uuid_derive(&ev->conversation, def->type, key)
			: ev->conversation;

		*taken |= start(def, key, ev, &id);
	}
	else
		vd_park(ev, def, key, NULL);
}

/*
 * Let every process type that knows this event react. ev is not written yet:
 * its position is drawn under the lock of the process that it moves, so that
 * the history of a process is in the order of positions.
 */
void
vd_process_react(VdEvent *ev, const VdRoute *route)
{
	bool		taken = false;	/* is the correlation some process's id? */
	ListCell   *lc;

	ev->conversation = ev->correlation;
	foreach(lc, route->listeners)
		react(lfirst(lc), ev, &taken);
}

/* ---- what moves a process besides events ---- */

static JsonbParseState *
begin_data(void)
{
	JsonbParseState *ps = NULL;

	pushJsonbValue(&ps, WJB_BEGIN_OBJECT, NULL);
	return ps;
}

static Jsonb *
end_data(JsonbParseState *ps)
{
	return JsonbValueToJsonb(pushJsonbValue(&ps, WJB_END_OBJECT, NULL));
}

/*
 * The deadline of a state has passed. Stale timers do nothing: the row is
 * looked for again under the lock of the process. Returns whether it fired.
 */
bool
vd_process_fire_timer(const pg_uuid_t *process_id, const char *timer)
{
	VdProcess	p;
	VdKey		keys[] = {{UUIDOID, UUIDPGetDatum(process_id)}, {TEXTOID, CStringGetTextDatum(timer)}};
	Datum		v[Tm_natts];
	bool		n[Tm_natts];
	ItemPointerData tid;
	JsonbParseState *ps;
	VdDefinition *def;
	VdTransition *t;
	VdScope		scope;
	VdEvent		ev;

	if (!vd_process_lock(process_id, &p))
		return false;			/* it has just ended, its timers with it */
	if (!vd_lock(VD_TIMER, VdIdx_primary, 2, keys, v, n, &tid) ||
		DatumGetTimestampTz(v[Tm_due_at]) > vd_now())
		return false;
	vd_delete(VD_TIMER, &tid);
	ps = begin_data();
	vd_json_push_text(&ps, "timer", timer);
	vd_json_push_text(&ps, "state", p.state);
	vd_engine_event(&ev, "DeadlinePassed", p.key, end_data(ps), &p.id, NULL);

	def = vd_definition(p.type, p.version);
	scope = vd_scope(&p, ev.data);
	t = vd_step_pick(def, p.state, "after", timer, &scope);
	CommandCounterIncrement();
	if (t == NULL)
		vd_event_step(&ev, &p, ev.type, p.state, NIL, "ignored");
	else if (vd_process_step(def, &p, t, &ev, ev.type, ev.data, NULL))
		vd_unpark(def, &p, &ev);
	vd_event_write(&ev);
	return true;
}

/*
 * A command gave up. If the process is still in the state that sent it, that
 * state's onError is taken; else it is only written down. A process in another
 * database is told there.
 */
void
vd_process_command_failed(const VdMessage *m)
{
	char	   *known_as;
	VdProcess	p;
	JsonbParseState *ps;
	VdDefinition *def;
	VdTransition *t = NULL;
	VdEvent		ev;

	known_as = m->sent_in && m->source ? vd_known_as(m->source) : NULL;
	if (known_as)
		vd_depart_failure(m, known_as);
	if (known_as || m->sent_in == NULL || !vd_process_lock(&m->correlation, &p))
		return;
	ps = begin_data();
	vd_json_push_text(&ps, "command", m->type);
	vd_json_push_text(&ps, "error", m->error);
	vd_json_push_text(&ps, "message_id", vd_uuid_text(&m->id));
	vd_engine_event(&ev, "CommandFailed", p.key, end_data(ps), &p.id, &m->id);

	def = vd_definition(p.type, p.version);
	if (strcmp(p.state, m->sent_in) == 0 && m->created_at >= p.since)
	{
		VdScope		scope = vd_scope(&p, ev.data);

		t = vd_step_pick(def, p.state, "onError", "", &scope);
	}
	if (t == NULL)
		vd_event_step(&ev, &p, ev.type, p.state, NIL, "ignored");
	else if (vd_process_step(def, &p, t, &ev, ev.type, ev.data, NULL))
		vd_unpark(def, &p, &ev);
	vd_event_write(&ev);
}
