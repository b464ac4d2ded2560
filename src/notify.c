/*
 * notify.c
 *	  Hints for listeners: NOTIFY on voiding_<service>, voiding_process,
 *	  voiding_event and voiding_task.
 *
 * They are collected during the transaction. Where a worker serves the
 * database they are left in shared memory after the commit, and the worker
 * sends them in a small asynchronous transaction of its own: NOTIFY takes a
 * lock that all databases share and holds it through the flush. Where none
 * does, who commits alone queues them just before, and who does not leaves
 * them to a sender (sender.c). PREPARE TRANSACTION forgets them (it cannot
 * carry notifications).
 *
 * A channel says {"type": ..., "id": ...} for each message, above 100 of them
 * {} once. A hint may be missing or too many; whoever listens also looks.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/async.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/memutils.h"

#include "voiding.h"
#include "shared.h"

PG_FUNCTION_INFO_V1(voiding_hint);
PG_FUNCTION_INFO_V1(voiding_repaired);

#define MAX_HINTS	100
#define NEARLY_FULL	0.9			/* of the queue of notifications */

typedef struct Hint
{
	char	   *type;			/* NULL: of several */
	pg_uuid_t	id;
} Hint;

typedef struct Channel
{
	char	   *name;
	int			count;
	List	   *hints;			/* of Hint, not more than MAX_HINTS */
} Channel;

static List *channels = NIL;	/* in TopTransactionContext */
static bool leave_them = false;	/* to a worker or a sender */
static VdDatabase *counted = NULL;	/* where this transaction is, as one that commits with hints */

/* ---- sending ---- */

static void
send(const char *name, const char *type, const pg_uuid_t *id)
{
	StringInfoData buf;
	char	   *channel = psprintf("voiding_%s", name);

	if (type == NULL || *type == '\0')
	{
		Async_Notify(channel, "{}");
		return;
	}
	initStringInfo(&buf);
	appendStringInfoString(&buf, "{\"type\": ");
	escape_json(&buf, type);
	appendStringInfo(&buf, ", \"id\": \"%s\"}", vd_uuid_text(id));
	Async_Notify(channel, buf.data);
}

/*
 * When nobody has read the queue of notifications for long, it is full, and a
 * commit that adds to it fails. A hint is not worth that.
 */
static bool
queue_is_full(void)
{
	return DatumGetFloat8(DirectFunctionCall1(pg_notification_queue_usage, (Datum) 0)) > NEARLY_FULL;
}

static void
send_now(void)
{
	ListCell   *lc,
			   *h;

	foreach(lc, channels)
	{
		Channel    *c = lfirst(lc);

		if (c->count > MAX_HINTS)
			send(c->name, NULL, NULL);
		else
			foreach(h, c->hints)
				send(c->name, ((Hint *) lfirst(h))->type, &((Hint *) lfirst(h))->id);
	}
}

/* ---- leaving them: in the commit callback, nothing may fail ---- */

static void
leave_one(VdShared *s, const char *channel, const char *type, const pg_uuid_t *id)
{
	if (s->nhints < VD_HINTS)
	{
		VdHint	   *h = &s->hints[s->nhints];

		h->dboid = MyDatabaseId;
		strlcpy(h->channel, channel, sizeof(h->channel));
		strlcpy(h->type, type ? type : "", sizeof(h->type));
		if (id)
			h->id = *id;
		s->nhints++;
	}
	else
		pg_atomic_write_u32(&vd_my_database()->hints_lost, 1);
}

static void
leave_all(void)
{
	VdShared   *s = vd_shared();
	ListCell   *lc,
			   *h;

	foreach(lc, channels)
	{
		Channel    *c = lfirst(lc);

		SpinLockAcquire(&s->hint_lock);
		if (c->count > VD_HINTS / 2)
			leave_one(s, c->name, NULL, NULL);
		else
			foreach(h, c->hints)
				leave_one(s, c->name, ((Hint *) lfirst(h))->type, &((Hint *) lfirst(h))->id);
		SpinLockRelease(&s->hint_lock);
	}
	if (counted)
		vd_wake_process(&counted->sender);
}

static void
before_commit(void)
{
	VdDatabase *db = vd_my_database();

	leave_them = vd_am_worker || vd_is_served(db);
	if (!leave_them && db)
		leave_them = vd_sender_enter(counted = db);
	if (!leave_them && !queue_is_full())
		send_now();
}

static void
forget_all(void)
{
	channels = NIL;
	if (counted)
		vd_sender_leave(counted);
	counted = NULL;
}

static void
on_xact(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			if (channels != NIL)
				before_commit();
			break;
		case XACT_EVENT_COMMIT:
			if (channels != NIL && leave_them)
				leave_all();
			forget_all();
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			forget_all();
			break;
		default:
			break;
	}
}

void
vd_notify_init(void)
{
	RegisterXactCallback(on_xact, NULL);
}

/* ---- collecting ---- */

static Channel *
channel_of(const char *name)
{
	ListCell   *lc;
	Channel    *c;

	foreach(lc, channels)
	{
		c = lfirst(lc);
		if (strcmp(c->name, name) == 0)
			return c;
	}
	c = palloc0(sizeof(Channel));
	c->name = pstrdup(name);
	channels = lappend(channels, c);
	return c;
}

/* Remember a hint on channel voiding_<name>. */
void
vd_notify_add(const char *name, const char *type, const pg_uuid_t *id)
{
	MemoryContext old;
	Channel    *c;

	vd_wake_workers();
	if (!vd_notify)
		return;
	old = MemoryContextSwitchTo(TopTransactionContext);
	c = channel_of(name);
	if (c->count++ < MAX_HINTS)
	{
		Hint	   *h = palloc(sizeof(Hint));

		h->type = pstrdup(type);
		h->id = *id;
		c->hints = lappend(c->hints, h);
	}
	MemoryContextSwitchTo(old);
}

/* ---- sending what was left ---- */

/* take the hints of this database out of shared memory */
static int
take_hints(VdHint *taken)
{
	VdShared   *s = vd_shared();
	int			n = 0;
	int			kept = 0;

	SpinLockAcquire(&s->hint_lock);
	for (int i = 0; i < s->nhints; i++)
	{
		if (s->hints[i].dboid == MyDatabaseId)
			taken[n++] = s->hints[i];
		else
			s->hints[kept++] = s->hints[i];
	}
	s->nhints = kept;
	SpinLockRelease(&s->hint_lock);
	return n;
}

/*
 * Send what is to be hinted, in a transaction of its own that does not wait
 * for its flush. Some were lost: every channel is told to look. Returns
 * whether there was anything.
 */
bool
vd_send_hints(void)
{
	VdShared   *s = vd_shared();
	VdHint		taken[VD_HINTS];
	VdDatabase *db = vd_my_database();
	bool		lost;
	int			n;

	if (s == NULL || db == NULL)
		return false;
	lost = pg_atomic_exchange_u32(&db->hints_lost, 0) != 0;
	n = s->nhints > 0 ? take_hints(taken) : 0;
	if ((n == 0 && !lost) || queue_is_full())
		return false;
	StartTransactionCommand();
	(void) set_config_option("synchronous_commit", "off", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
	for (int i = 0; i < n; i++)
		send(taken[i].channel, taken[i].type, &taken[i].id);
	if (lost)
	{
		ListCell   *lc;

		foreach(lc, vd_service_names())
			send(lfirst(lc), NULL, NULL);
		send("event", NULL, NULL);
		send("process", NULL, NULL);
		send("task", NULL, NULL);
		send("command", NULL, NULL);
	}
	CommitTransactionCommand();
	return true;
}

/*
 * voiding.hint(service text, type text, id uuid) RETURNS void, internal: the
 * same for messages that SQL puts into the outbox.
 */
Datum
voiding_hint(PG_FUNCTION_ARGS)
{
	vd_notify_add(text_to_cstring(PG_GETARG_TEXT_PP(0)), text_to_cstring(PG_GETARG_TEXT_PP(1)),
				  PG_GETARG_UUID_P(2));
	PG_RETURN_VOID();
}

/*
 * voiding.repaired() RETURNS void, internal: tell the workers that messages
 * were changed or taken out by hand.
 */
Datum
voiding_repaired(PG_FUNCTION_ARGS)
{
	vd_wake_repaired();
	PG_RETURN_VOID();
}
