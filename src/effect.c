/*
 * effect.c
 *	  Writes what a step decided: the new row of the process, its timers, its
 *	  task, the commands and the events. All of it is in the transaction of the
 *	  event that moved the process, and under the lock of its row.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "voiding.h"
#include "shared.h"

#define MAX_DEPTH 20			/* events that bring about each other */

typedef struct Left				/* a state that has been left */
{
	bool		final;			/* for the end */
	bool		failed;			/* for one that waits for a person */
} Left;

/*
 * A state's timers go when it is left; those of the process ("@...") at its
 * end. They are held while it has failed, and run again if it goes on.
 */
static bool
leave_timer(TupleTableSlot *slot, void *arg)
{
	Left	   *left = arg;
	Datum		v[Tm_natts];
	bool		n[Tm_natts] = {false};

	slot_getallattrs(slot);
	memcpy(v, slot->tts_values, sizeof(v));
	if (left->final || *VARDATA_ANY(v[Tm_name]) != '@')
	{
		vd_delete(VD_TIMER, &slot->tts_tid);
		return true;
	}
	if (DatumGetBool(v[Tm_held]) == left->failed)
		return true;
	v[Tm_held] = BoolGetDatum(left->failed);
	vd_update(VD_TIMER, &slot->tts_tid, v, n);
	if (!left->failed)
		vd_wake_timer(DatumGetTimestampTz(v[Tm_due_at]));
	return true;
}

static void
leave_timers(const VdProcess *p, bool final)
{
	VdKey		key = {UUIDOID, UUIDPGetDatum(&p->id)};
	Left		left = {final, p->failed};

	vd_scan(VD_TIMER, VdIdx_primary, 1, &key, leave_timer, &left);
}

/* let timers run, from when the process came into its state */
void
vd_set_timers(const VdProcess *p, List *timers)
{
	ListCell   *lc;

	foreach(lc, timers)
	{
		VdTimer    *t = lfirst(lc);
		Datum		v[Tm_natts];
		bool		n[Tm_natts] = {false};

		v[Tm_process_id] = UUIDPGetDatum(&p->id);
		v[Tm_name] = CStringGetTextDatum(t->name);
		v[Tm_state] = CStringGetTextDatum(p->state);
		v[Tm_due_at] = DirectFunctionCall2(timestamptz_pl_interval,
										   TimestampTzGetDatum(p->since),
										   IntervalPGetDatum(t->duration));
		v[Tm_held] = BoolGetDatum(*t->name == '@' && p->failed);
		vd_insert(VD_TIMER, v, n);
		vd_wake_timer(DatumGetTimestampTz(v[Tm_due_at]));
	}
}

/*
 * Call a function of sql/task.sql: tasks are rare, and people are slow. What it
 * says as an event may move this very process: its row must be written.
 */
static void
call_task(const char *sql, const VdProcess *p, Jsonb *task, const VdEvent *ev, Jsonb *event)
{
	VdIdentity	saved;
	Oid			types[] = {UUIDOID, JSONBOID, UUIDOID, JSONBOID, JSONBOID, TEXTOID};
	Datum		args[] = {
		UUIDPGetDatum(&p->id), JsonbPGetDatum(task), UUIDPGetDatum(&ev->event_id),
		JsonbPGetDatum(event), JsonbPGetDatum(p->data), CStringGetTextDatum(p->key)
	};

	vd_become(&saved, vd_engine_owner(), "pg_catalog, voiding, pg_temp");
	if (SPI_connect() != SPI_OK_CONNECT ||
		SPI_execute_with_args(sql, task ? 6 : 1, types, args, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not change a task");
	SPI_finish();
	vd_return(&saved);
}

/* the task that a state wants, or NULL */
static Jsonb *
wanted_task(VdProcess *p, VdState *state, Jsonb *event)
{
	VdScope		scope = vd_scope(p, event);
	Jsonb	   *task;

	if (state->task == NULL)
		return NULL;
	task = vd_json_object(state->task, &scope);
	p->task = vd_json_text(vd_json_get(task, "type"));
	return task;
}

static void
send_commands(const VdProcess *p, List *commands, const VdEvent *ev)
{
	ListCell   *lc;

	foreach(lc, commands)
	{
		VdCommand  *c = lfirst(lc);
		VdMessage	m = {.id = vd_uuid_new(),.type = c->send->command,.payload = c->payload};

		m.aggregatetype = m.destination = c->send->service;
		m.aggregateid = p->key;
		m.source = VD_ENGINE;
		m.correlation = p->id;
		m.causation = ev->event_id;
		m.has_causation = true;
		m.sent_in = c->state;
		vd_outbox_add(&m);
	}
}

/*
 * What a process emits can move processes, which emit again: after MAX_DEPTH of
 * that the event is written down, and a dead letter, but nobody reacts.
 */
static void
emit_events(const VdProcess *p, List *emits, const VdEvent *cause)
{
	static int	depth = 0;
	ListCell   *lc;

	foreach(lc, emits)
	{
		VdEvent		ev;

		vd_engine_event(&ev, lfirst(lc), p->key, p->data, &p->id, &cause->event_id);
		if (depth == MAX_DEPTH)
		{
			vd_dead_event(&ev, p->type, "events that processes emit go round in a circle");
			vd_event_write(&ev);
			continue;
		}
		depth++;
		PG_TRY();
		{
			vd_event_append(&ev);
		}
		PG_FINALLY();
		{
			depth--;
		}
		PG_END_TRY();
	}
}

/* move a process that has ended to where history is kept */
static void
finish(VdProcess *p, VdState *state, Jsonb *event, Datum *row, bool *row_nulls)
{
	VdScope		scope = vd_scope(p, event);
	Datum		v[Fi_natts];
	bool		n[Fi_natts] = {false};
	char	   *reason = vd_state_reason(state, &scope);

	memcpy(v, row, sizeof(Datum) * Pr_natts);
	memcpy(n, row_nulls, sizeof(bool) * Pr_natts);
	v[Fi_finished_at] = TimestampTzGetDatum(vd_now());
	v[Fi_outcome] = CStringGetTextDatum(state->outcome ? state->outcome : "done");
	v[Fi_reason] = reason ? CStringGetTextDatum(reason) : (Datum) 0;
	n[Fi_reason] = reason == NULL;
	n[Fi_result] = state->result == NULL;
	v[Fi_result] = state->result ? JsonbPGetDatum(vd_json_object(state->result, &scope)) : (Datum) 0;
	vd_insert(VD_FINISHED_PROCESS, v, n);
	if (!vd_delete(VD_ACTIVE_PROCESS, &p->tid))
		elog(ERROR, "process %s was moved by another session under our lock",
			 vd_uuid_text(&p->id));
}

/*
 * Write a decided step. The process row exists and is locked; "written" says
 * that it holds the step already, as it does right after the start.
 */
void
vd_effects_write(VdProcess *p, VdEffects *fx, VdEvent *ev, Jsonb *event, bool written)
{
	bool		final = fx->entered && fx->entered->final;
	bool		withdraw = fx->left && p->task != NULL;
	Jsonb	   *task = NULL;
	Datum		v[Pr_natts];
	bool		n[Pr_natts];

	if (fx->left)
	{
		leave_timers(p, final);
		p->task = NULL;
	}
	if (fx->entered)
	{
		if (!written)
			p->since = vd_now();
		task = wanted_task(p, fx->entered, event);
	}
	fx->tasks = withdraw || task != NULL;
	vd_process_to_row(p, v, n);
	if (final)
		finish(p, fx->entered, event, v, n);
	else if (!written)
		vd_update(VD_ACTIVE_PROCESS, &p->tid, v, n);
	if (fx->entered)
		vd_set_timers(p, fx->entered->timers);
	vd_event_position(ev);
	send_commands(p, fx->commands, ev);
	vd_notify_add("process", p->state, &p->id);
	CommandCounterIncrement();
	if (withdraw)
		call_task("SELECT voiding.close_task($1, 'withdraw')", p, NULL, ev, NULL);
	if (task)
		call_task("SELECT voiding.open_task($1, $2, $3, $4, $5, $6)", p, task, ev, event);
	if (fx->entered && (final || p->failed))
	{
		vd_wake_waiters(&p->id);
		vd_command_settled(p, fx->entered, event);
	}
	emit_events(p, fx->emits, ev);
}
