/*
 * outbox.c
 *	  Messages waiting for their handler.
 *
 * Rows are inserted and deleted, never updated: a retry is the same row again
 * with another transaction id. The ordering key is (destination, aggregateid);
 * order is that of seq, which is drawn while the row that speaks is locked.
 *
 * Buckets are a hash of aggregateid. Whoever works on a bucket holds its
 * lock: a worker (later) for as long as it lives, dispatch() for its
 * transaction. Both use advisory lock tags of a class of our own, so that
 * they never meet a user's advisory locks:
 *	  (bucket, OWNER)  held exclusively by a worker, shared by dispatch()
 *	  (bucket, WORK)   held exclusively by one dispatch() at a time
 * A dispatch() passes over the buckets of a worker. It waits for another
 * dispatch() as long as it has no bucket and its transaction has written
 * nothing, and passes over that one's buckets afterwards: who waits with locks
 * in hand can deadlock. So a client that calls it until it returns 0 has seen
 * all that it was told of.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"
#include "utils/snapmgr.h"
#include "utils/xid8.h"

#include "voiding.h"
#include "queue.h"
#include "shared.h"
#include "worker.h"

#define LOCK_OWNER	1
#define LOCK_WORK	2
#define PATIENCE	5			/* ms that a lock is waited for by who holds others */

/* the bucket of an ordering key: hashtext(key) modulo 64, as SQL computes it */
int16
vd_bucket(const char *key)
{
	return hash_bytes((const unsigned char *) key, strlen(key)) % VD_BUCKETS;
}

/* ---- writing ---- */

static void
to_row(const VdMessage *m, Datum *v, bool *n)
{
	memset(n, false, Ob_natts);
	v[Ob_id] = UUIDPGetDatum(&m->id);
	v[Ob_aggregatetype] = CStringGetTextDatum(m->aggregatetype);
	v[Ob_aggregateid] = CStringGetTextDatum(m->aggregateid);
	v[Ob_type] = CStringGetTextDatum(m->type);
	v[Ob_payload] = JsonbPGetDatum(m->payload);
	v[Ob_source] = CStringGetTextDatum(m->source);
	v[Ob_destination] = CStringGetTextDatum(m->destination);
	v[Ob_correlation] = UUIDPGetDatum(&m->correlation);
	v[Ob_causation] = UUIDPGetDatum(&m->causation);
	n[Ob_causation] = !m->has_causation;
	v[Ob_attempts] = Int32GetDatum(m->attempts);
	v[Ob_available_at] = TimestampTzGetDatum(m->available_at);
	v[Ob_created_at] = TimestampTzGetDatum(m->created_at);
	v[Ob_bucket] = Int16GetDatum(m->bucket);
	v[Ob_xid] = FullTransactionIdGetDatum(GetTopFullTransactionId());
	v[Ob_seq] = Int64GetDatum(m->seq);
	v[Ob_sent_in] = m->sent_in ? CStringGetTextDatum(m->sent_in) : (Datum) 0;
	n[Ob_sent_in] = m->sent_in == NULL;
	v[Ob_error] = m->error ? CStringGetTextDatum(m->error) : (Datum) 0;
	n[Ob_error] = m->error == NULL;
}

/* once a session: a message is queued and nobody will take it out */
static void
warn_unserved(void)
{
	static bool warned = false;

	if (warned || vd_workers == 0 || vd_am_worker || vd_is_served(vd_my_database()))
		return;
	vd_bring_back_workers();
	warned = true;
	if (!vd_autostart)
		ereport(WARNING,
				(errmsg("no worker serves this database: messages wait in voiding.outbox"),
				 errhint("SELECT voiding.start_workers(); or SET voiding.workers = 0 and call voiding.dispatch() yourself.")));
}

/* Write a message as a row. */
void
vd_outbox_write(const VdMessage *m)
{
	Datum		v[Ob_natts];
	bool		n[Ob_natts];

	to_row(m, v, n);
	vd_insert(VD_OUTBOX, v, n);
	warn_unserved();
	vd_wake_buckets(UINT64CONST(1) << m->bucket);
}

/*
 * Put a message into the outbox, or on its way to where its service lives;
 * fills in what the caller left open. Where there is a standby, it leaves from
 * the outbox, in a transaction of its own: replication sends what this server
 * has committed before the standby has it, and it could not be taken back.
 */
void
vd_outbox_add(VdMessage *m)
{
	char	   *known_as = vd_known_as(m->destination);

	if (known_as && !vd_leaves_after_commit(m->destination))
	{
		vd_depart(m, known_as);
		return;
	}
	m->bucket = vd_bucket(m->aggregateid);
	if (m->seq == 0)
		m->seq = vd_next_position();
	if (m->created_at == 0)
		m->created_at = vd_now();
	if (m->available_at == 0)
		m->available_at = m->created_at;
	if (known_as == NULL && vd_queue_keep(m))
		return;					/* there is no work left for others */
	vd_outbox_write(m);
	vd_notify_add(m->destination, m->type, &m->id);
}

/*
 * The same message again, not before "when"; its row has been deleted. A command
 * of a process elsewhere goes behind those of its key: what it lacks may be on
 * its way from a third database, and would wait for it.
 */
void
vd_outbox_retry(VdMessage *m, TimestampTz when)
{
	if (m->sent_in && vd_known_as(m->source))
		m->seq = vd_next_position();
	m->available_at = when;
	vd_outbox_write(m);
}

/* The message has given up: keep it where people look. */
void
vd_outbox_dead(VdMessage *m, const char *sqlstate)
{
	Datum		v[Dl_natts];
	bool		n[Dl_natts];

	to_row(m, v, n);
	v[Dl_failed_at] = TimestampTzGetDatum(vd_now());
	n[Dl_failed_at] = false;
	v[Dl_sqlstate] = CStringGetTextDatum(sqlstate);
	n[Dl_sqlstate] = false;
	vd_insert(VD_DEAD_LETTER, v, n);
}

/* ---- reading ---- */

static char *
slot_text(TupleTableSlot *slot, int i)
{
	return slot->tts_isnull[i] ? NULL : TextDatumGetCString(slot->tts_values[i]);
}

/* a whole message from a row, copied to the current context */
void
vd_outbox_read(TupleTableSlot *slot, VdMessage *m)
{
	Datum	   *v = slot->tts_values;

	slot_getallattrs(slot);
	memset(m, 0, sizeof(*m));
	m->id = *DatumGetUUIDP(v[Ob_id]);
	m->aggregatetype = slot_text(slot, Ob_aggregatetype);
	m->aggregateid = slot_text(slot, Ob_aggregateid);
	m->type = slot_text(slot, Ob_type);
	m->payload = DatumGetJsonbPCopy(v[Ob_payload]);
	m->source = slot_text(slot, Ob_source);
	m->destination = slot_text(slot, Ob_destination);
	m->correlation = *DatumGetUUIDP(v[Ob_correlation]);
	m->has_causation = !slot->tts_isnull[Ob_causation];
	if (m->has_causation)
		m->causation = *DatumGetUUIDP(v[Ob_causation]);
	m->attempts = DatumGetInt32(v[Ob_attempts]);
	m->available_at = DatumGetTimestampTz(v[Ob_available_at]);
	m->created_at = DatumGetTimestampTz(v[Ob_created_at]);
	m->bucket = DatumGetInt16(v[Ob_bucket]);
	m->seq = DatumGetInt64(v[Ob_seq]);
	m->sent_in = slot_text(slot, Ob_sent_in);
	m->error = slot_text(slot, Ob_error);
	m->tid = slot->tts_tid;
}

/*
 * When a message may run. One that was not to wait may at once, whatever the
 * clock says now: it may have gone back since.
 */
TimestampTz
vd_outbox_due(TupleTableSlot *slot)
{
	TimestampTz due = DatumGetTimestampTz(slot->tts_values[Ob_available_at]);

	return due <= DatumGetTimestampTz(slot->tts_values[Ob_created_at]) ? 0 : due;
}

typedef struct Waiting			/* as much of a row as the choice needs */
{
	int64		seq;
	TimestampTz available_at;
	char	   *destination;
	char	   *key;
	char	   *type;
	ItemPointerData tid;
} Waiting;

typedef struct Collect
{
	const char *service;		/* NULL: all */
	List	   *rows;			/* of Waiting */
} Collect;

static bool
collect(TupleTableSlot *slot, void *arg)
{
	Collect    *c = arg;
	Waiting    *w;
	char	   *destination;

	slot_getallattrs(slot);
	destination = slot_text(slot, Ob_destination);
	if (c->service && strcmp(c->service, destination) != 0)
		return true;
	w = palloc(sizeof(Waiting));
	w->seq = DatumGetInt64(slot->tts_values[Ob_seq]);
	w->available_at = vd_outbox_due(slot);
	w->destination = destination;
	w->key = slot_text(slot, Ob_aggregateid);
	w->type = slot_text(slot, Ob_type);
	w->tid = slot->tts_tid;
	c->rows = lappend(c->rows, w);
	return true;
}

static int
by_seq(const ListCell *a, const ListCell *b)
{
	int64		x = ((Waiting *) lfirst(a))->seq;
	int64		y = ((Waiting *) lfirst(b))->seq;

	return x < y ? -1 : x > y;
}

static List *
rows_of_bucket(int16 bucket, const char *service)
{
	Collect		c = {.service = service};
	VdKey		key = {INT2OID, Int16GetDatum(bucket)};

	vd_scan(VD_OUTBOX, VdIdx_primary, 1, &key, collect, &c);
	list_sort(c.rows, by_seq);
	return c.rows;
}

/*
 * Lock tags of our own, on "parts" of the table outbox: they never meet a
 * user's advisory locks, and a worker can let go of the session locks that a
 * handler left behind without losing these.
 */
static LOCKTAG
bucket_tag(int16 bucket, int part)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, vd_table_oid(VD_OUTBOX), bucket, part);
	return tag;
}

/* who has just committed lets go of it in a moment */
static bool
lock_soon(LOCKTAG *tag)
{
	for (int i = 0; i < PATIENCE; i++)
	{
		if (LockAcquire(tag, ExclusiveLock, false, true) != LOCKACQUIRE_NOT_AVAIL)
			return true;
		CHECK_FOR_INTERRUPTS();
		pg_usleep(1000);
	}
	return false;
}

static bool
lock_bucket(int16 bucket, bool may_wait)
{
	LOCKTAG		owner = bucket_tag(bucket, LOCK_OWNER);
	LOCKTAG		work = bucket_tag(bucket, LOCK_WORK);

	if (LockAcquire(&owner, ShareLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
		return false;
	if (LockAcquire(&work, ExclusiveLock, false, true) != LOCKACQUIRE_NOT_AVAIL)
		return true;
	if (!may_wait)
		return lock_soon(&work);
	(void) LockAcquire(&work, ExclusiveLock, false, false);
	vd_check_snapshot();		/* what the other one did must be visible */
	return true;
}

/* for a worker: own a bucket until the session ends; false: not now */
bool
vd_outbox_own(int16 bucket)
{
	LOCKTAG		owner = bucket_tag(bucket, LOCK_OWNER);

	return LockAcquire(&owner, ExclusiveLock, true, true) != LOCKACQUIRE_NOT_AVAIL;
}

static void
unlock_bucket(int16 bucket)
{
	LOCKTAG		work = bucket_tag(bucket, LOCK_WORK);

	(void) LockRelease(&work, ExclusiveLock, false);
}

/* two keys of one hash only wait for each other */
static uint64
hash_of(const Waiting *w)
{
	return hash_combine64(hash_bytes_extended((const unsigned char *) w->key, strlen(w->key), 0),
						  hash_bytes_extended((const unsigned char *) w->destination,
											  strlen(w->destination), 0));
}

static HTAB *
new_key_set(void)
{
	HASHCTL		ctl = {.keysize = sizeof(uint64),.entrysize = sizeof(uint64),.hcxt = CurrentMemoryContext};

	return hash_create("voiding blocked keys", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

static VdMessage *
fetch(Relation rel, TupleTableSlot *slot, Snapshot snapshot, Waiting *w)
{
	VdMessage  *m = NULL;

	if (table_tuple_fetch_row_version(rel, &w->tid, snapshot, slot))
	{
		m = palloc(sizeof(VdMessage));
		vd_outbox_read(slot, m);
	}
	return m;
}

/* what may run now: due, for a handler here, and nothing before it for its key */
static List *
choose(List *rows, int limit)
{
	HTAB	   *blocked = NULL;	/* keys that wait */
	List	   *chosen = NIL;
	TimestampTz now = vd_now();
	ListCell   *lc;

	foreach(lc, rows)
	{
		Waiting    *w = lfirst(lc);
		uint64		key = hash_of(w);

		if (list_length(chosen) >= limit)
			break;
		if (blocked && hash_search(blocked, &key, HASH_FIND, NULL))
			continue;
		if (w->available_at <= now && vd_handler_is_here(w->destination, w->type))
		{
			chosen = lappend(chosen, w);
			continue;
		}
		if (blocked == NULL)
			blocked = new_key_set();
		(void) hash_search(blocked, &key, HASH_ENTER, NULL);
	}
	if (blocked)
		hash_destroy(blocked);
	return chosen;
}

static List *
take_from_bucket(int16 bucket, const char *service, int limit, bool may_wait)
{
	List	   *chosen = choose(rows_of_bucket(bucket, service), limit);
	List	   *messages = NIL;
	Relation	rel;
	TupleTableSlot *slot;
	Snapshot	snapshot;
	ListCell   *lc;

	if (chosen == NIL || !lock_bucket(bucket, may_wait))
		return NIL;
	/* look again: whoever had the lock has changed what is there */
	chosen = choose(rows_of_bucket(bucket, service), limit);
	rel = table_open(vd_table_oid(VD_OUTBOX), AccessShareLock);
	slot = table_slot_create(rel, NULL);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	foreach(lc, chosen)
	{
		VdMessage  *m = fetch(rel, slot, snapshot, lfirst(lc));

		if (m != NULL)
			messages = lappend(messages, m);
	}
	UnregisterSnapshot(snapshot);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
	if (messages == NIL)
		unlock_bucket(bucket);
	return messages;
}

/*
 * Up to limit messages that may be handled now, in the order in which they
 * must be, their buckets locked to the end of the transaction. Each round
 * begins one bucket further, so that no backlog starves the rest.
 */
List *
vd_outbox_take(const char *service, int limit)
{
	static int	first = 0;
	List	   *messages = NIL;
	int			begin = first++ % VD_BUCKETS;
	bool		has_written = TransactionIdIsValid(GetTopTransactionIdIfAny());

	for (int i = 0; i < VD_BUCKETS && list_length(messages) < limit; i++)
	{
		CHECK_FOR_INTERRUPTS();
		messages = list_concat(messages,
							   take_from_bucket((begin + i) % VD_BUCKETS, service,
												limit - list_length(messages),
												messages == NIL && !has_written));
	}
	return messages;
}
