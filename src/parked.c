/*
 * parked.c
 *	  Events that no process is ready for yet, and those that never will be
 *	  used.
 *
 * An event is parked for a process type and a key, or for one process that is
 * not in the right state. It is taken out by the start or the transition that
 * makes it useful, in that same commit. A start and a parking that run at the
 * same time cannot see each other; sweep_parked() (sql/parked.sql) joins them
 * afterwards. What expires becomes a dead letter, what waits for a process
 * that ends is late: nothing disappears.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/xid8.h"

#include "voiding.h"
#include "shared.h"

PG_FUNCTION_INFO_V1(voiding_deliver_parked);
PG_FUNCTION_INFO_V1(voiding_next_xid);

typedef struct Parked
{
	int64		position;
	char	   *type;
	Jsonb	   *data;
	bool		bound;			/* waits for one process only */
	pg_uuid_t	process_id;
	ItemPointerData tid;
	bool		taken;
} Parked;

/* an option of an event in the definition: "unmatched" or "for" */
static char *
event_option(VdDefinition *def, const char *event_type, const char *option)
{
	JsonbValue *o = vd_json_get(def->events, event_type);

	if (o == NULL || o->type != jbvBinary)
		return NULL;
	return vd_json_text(getKeyJsonValueFromContainer(o->val.binary.data, option,
													 strlen(option), NULL));
}

static TimestampTz
expiry(VdDefinition *def, const char *event_type)
{
	char	   *duration = event_option(def, event_type, "for");

	if (duration == NULL)
		return vd_now() + vd_park_for * USECS_PER_SEC;
	return DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
												   TimestampTzGetDatum(vd_now()),
												   DirectFunctionCall3(interval_in,
																	   CStringGetDatum(duration),
																	   ObjectIdGetDatum(InvalidOid),
																	   Int32GetDatum(-1))));
}

static void
write_parked(VdEvent *ev, VdDefinition *def, const char *key, const VdProcess *p)
{
	Datum		v[Pk_natts];
	bool		n[Pk_natts] = {false};

	v[Pk_position] = Int64GetDatum(ev->position);
	v[Pk_process_type] = CStringGetTextDatum(def->type);
	v[Pk_key] = CStringGetTextDatum(key);
	v[Pk_event_id] = UUIDPGetDatum(&ev->event_id);
	v[Pk_type] = CStringGetTextDatum(ev->type);
	v[Pk_source] = CStringGetTextDatum(ev->source);
	v[Pk_subject] = CStringGetTextDatum(ev->subject);
	v[Pk_correlation] = UUIDPGetDatum(&ev->correlation);
	v[Pk_causation] = UUIDPGetDatum(&ev->causation);
	n[Pk_causation] = !ev->has_causation;
	v[Pk_data] = JsonbPGetDatum(ev->data);
	v[Pk_parked_at] = TimestampTzGetDatum(vd_now());
	v[Pk_expires_at] = TimestampTzGetDatum(expiry(def, ev->type));
	v[Pk_process_id] = p ? UUIDPGetDatum(&p->id) : (Datum) 0;
	n[Pk_process_id] = p == NULL;
	n[Pk_watch] = true;
	vd_insert(VD_PARKED_EVENT, v, n);
	vd_wake_timer(DatumGetTimestampTz(v[Pk_expires_at]));
}

/*
 * Keep an event that cannot be used now, as the definition says: "park" (the
 * default), "discard" (only the event itself is kept) or "fail" (a dead letter
 * at once). p: the process that is not ready, or NULL when there is none.
 */
void
vd_park(VdEvent *ev, VdDefinition *def, const char *key, const VdProcess *p)
{
	char	   *policy = event_option(def, ev->type, "unmatched");

	if (policy && strcmp(policy, "discard") == 0)
	{
		if (p)
			vd_event_step(ev, p, ev->type, p->state, NIL, "discarded");
		return;
	}
	if (policy && strcmp(policy, "fail") == 0)
	{
		vd_dead_event(ev, def->type,
					  psprintf("no process of type %s with key \"%s\" waits for this event",
							   def->type, key));
		return;
	}
	vd_event_position(ev);
	write_parked(ev, def, key, p);
	vd_wake_parked();
	if (p)
		vd_event_step(ev, p, ev->type, p->state, NIL, "parked");
	CommandCounterIncrement();
}

/* An event that no process can ever use: kept as a dead letter, to be seen. */
void
vd_dead_event(const VdEvent *ev, const char *process_type, const char *error)
{
	VdMessage	m = {.id = ev->event_id,.type = (char *) ev->type,.payload = ev->data};

	m.aggregatetype = (char *) process_type;
	m.aggregateid = (char *) ev->subject;
	m.source = (char *) ev->source;
	m.destination = VD_ENGINE;
	m.correlation = ev->correlation;
	m.causation = ev->causation;
	m.has_causation = ev->has_causation;
	m.bucket = vd_bucket(ev->subject);
	m.seq = vd_next_position();
	m.created_at = m.available_at = vd_now();
	m.error = (char *) error;
	vd_outbox_dead(&m, "22023");
}

static bool
collect(TupleTableSlot *slot, void *arg)
{
	List	  **list = arg;
	Parked	   *k = palloc0(sizeof(Parked));

	slot_getallattrs(slot);
	k->position = DatumGetInt64(slot->tts_values[Pk_position]);
	k->type = TextDatumGetCString(slot->tts_values[Pk_type]);
	k->data = DatumGetJsonbPCopy(slot->tts_values[Pk_data]);
	k->bound = !slot->tts_isnull[Pk_process_id];
	if (k->bound)
		k->process_id = *DatumGetUUIDP(slot->tts_values[Pk_process_id]);
	k->tid = slot->tts_tid;
	*list = lappend(*list, k);
	return true;
}

static int
by_position(const ListCell *a, const ListCell *b)
{
	int64		x = ((Parked *) lfirst(a))->position;
	int64		y = ((Parked *) lfirst(b))->position;

	return x < y ? -1 : x > y;
}

/* mostly the table has no page at all; to ask that is much cheaper than to look for a row */
static bool
nothing_parked(void)
{
	Relation	rel = table_open(vd_table_oid(VD_PARKED_EVENT), AccessShareLock);
	bool		empty = RelationGetNumberOfBlocks(rel) == 0;

	table_close(rel, NoLock);
	return empty;
}

/* what is parked for this process or for its key, oldest first */
static List *
parked_for(const VdProcess *p)
{
	VdKey		keys[] = {{TEXTOID, CStringGetTextDatum(p->type)}, {TEXTOID, CStringGetTextDatum(p->key)}};
	List	   *all = NIL;
	List	   *mine = NIL;
	ListCell   *lc;

	if (nothing_parked())
		return NIL;
	vd_scan(VD_PARKED_EVENT, VdIdx_key, 2, keys, collect, &all);
	foreach(lc, all)
	{
		Parked	   *k = lfirst(lc);

		if (!k->bound || vd_uuid_equal(&k->process_id, &p->id))
			mine = lappend(mine, k);
	}
	list_sort(mine, by_position);
	return mine;
}

/* hand one parked event to a process; false: it has moved or ended meanwhile */
static bool
deliver_one(VdDefinition *def, VdProcess *p, Parked *k, VdEvent *ev)
{
	VdScope		scope = vd_scope(p, k->data);
	VdTransition *t = vd_step_pick(def, p->state, "on", k->type, &scope);

	CommandCounterIncrement();
	if (t == NULL)
	{
		vd_event_step(ev, p, k->type, p->state, NIL, "ignored");
		return true;
	}
	/* the row has a newer version than p knows */
	if (!vd_process_lock(&p->id, p))
		elog(ERROR, "process %s is gone under our lock", vd_uuid_text(&p->id));
	return vd_process_step(def, p, t, ev, k->type, k->data, "was parked");
}

/*
 * Hand a process, which is locked, the parked events that its state waits for,
 * oldest first; from the beginning again in each new state.
 */
void
vd_unpark(VdDefinition *def, VdProcess *p, VdEvent *ev)
{
	List	   *parked = parked_for(p);
	ListCell   *lc = list_head(parked);

	while (lc != NULL)
	{
		Parked	   *k = lfirst(lc);
		char	   *state = p->state;

		lc = lnext(parked, lc);
		if (k->taken || !vd_step_knows(def, p->state, "on", k->type) ||
			!vd_delete(VD_PARKED_EVENT, &k->tid))
			continue;
		k->taken = true;
		if (!deliver_one(def, p, k, ev))
			return;
		if (strcmp(p->state, state) != 0)
			lc = list_head(parked);
	}
}

/* The process has ended: what waited for it, and for nothing else, is late. */
void
vd_parked_late(const VdProcess *p, VdEvent *ev)
{
	ListCell   *lc;

	foreach(lc, parked_for(p))
	{
		Parked	   *k = lfirst(lc);

		if (k->bound && vd_delete(VD_PARKED_EVENT, &k->tid))
			vd_event_step(ev, p, k->type, p->state, NIL, "late");
	}
}

/*
 * Let a process look again at what is parked for it; was there anything?
 * Locks the process.
 */
bool
vd_deliver_parked(const pg_uuid_t *process_id)
{
	VdProcess	p;
	VdEvent		ev;

	if (!vd_process_lock(process_id, &p))
		return false;
	vd_engine_event(&ev, "ParkedEventDelivered", p.key, vd_json_empty(), &p.id, NULL);
	vd_unpark(vd_definition(p.type, p.version), &p, &ev);
	if (ev.steps == NIL)
		return false;
	vd_event_write(&ev);
	return true;
}

/* is there a parked event that a start may have missed, or one that expires? */
bool
vd_parked_open(void)
{
	bool		found = false;

	if (SPI_connect() == SPI_OK_CONNECT &&
		SPI_execute("SELECT FROM voiding.parked_event"
					" WHERE (process_id IS NULL AND watch IS DISTINCT FROM '0'::xid8)"
					"    OR expires_at <= voiding.now() LIMIT 1", true, 1) == SPI_OK_SELECT)
		found = SPI_processed > 0;
	SPI_finish();
	return found;
}

/*
 * voiding.next_xid() RETURNS xid8, internal: the next transaction id.
 */
Datum
voiding_next_xid(PG_FUNCTION_ARGS)
{
	PG_RETURN_FULLTRANSACTIONID(ReadNextFullTransactionId());
}

/*
 * voiding.deliver_parked(process_id uuid) RETURNS boolean, internal: the same
 * for repairs.
 */
Datum
voiding_deliver_parked(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(vd_deliver_parked(PG_GETARG_UUID_P(0)));
}
