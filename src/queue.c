/*
 * queue.c
 *	  What a worker remembers of the outbox: for each bucket that it owns the
 *	  messages that wait, in order, without their contents.
 *
 * A round reads only what is new: rows written by transactions that the last
 * round's snapshot did not see and this one does (Skytools' PgQ reads its
 * queues so). Each row is in exactly one such window, whenever its transaction
 * commits; dead rows of the past are not walked over, so that a snapshot held
 * elsewhere costs nothing. At start, or when a bucket has become too long to
 * remember, it is read whole.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/xid8.h"

#include "voiding.h"
#include "queue.h"
#include "shared.h"

#define MAX_WAITING		1000000 /* of a worker: 32 MB; more are read again later */
#define MIN_WAITING		4000	/* of a bucket, whatever the others hold */
#define LOST_FIRST		(INT64CONST(30) * 1000) /* us until a lock is tried for again; doubling */
#define LOST_DOUBLES	6
#define MAX_NEAR		1000	/* transactions below the last xmax, read as a range */

typedef struct Waiting
{
	int64		seq;
	TimestampTz available_at;
	uint32		key;			/* hash of destination and aggregateid */
	ItemPointerData tid;		/* of the row */
	bool		taken;			/* runs in this transaction */
	bool		ours;			/* was written by this transaction */
	uint8		lost;			/* how often it could not have a lock, though alone */
} Waiting;

typedef struct Bucket
{
	bool		owned;
	bool		whole;			/* read it whole at the next look */
	bool		partial;		/* there is more than is remembered */
	Waiting    *waiting;		/* by seq */
	int			n;
	int			room;
} Bucket;

static Bucket buckets[VD_BUCKETS];
static int	remembered = 0;		/* messages of all buckets, at the last look */
static TimestampTz lost_due = PG_INT64_MAX; /* when one that could not have a lock is tried again */
static MemoryContext memory = NULL;

/* the last snapshot: what is below xmax and not in xip has been read */
static uint64 last_xmax = 0;
static uint64 *last_xip = NULL;
static int	last_nxip = 0;

static uint64
full_xid(TransactionId xid, FullTransactionId next)
{
	uint32		epoch = EpochFromFullTransactionId(next);

	if (xid > XidFromFullTransactionId(next))
		epoch--;
	return U64FromFullTransactionId(FullTransactionIdFromEpochAndXid(epoch, xid));
}

static int
compare_u64(const void *a, const void *b)
{
	uint64		x = *(const uint64 *) a;
	uint64		y = *(const uint64 *) b;

	return x < y ? -1 : x > y;
}

static void
remember_snapshot(Snapshot s)
{
	FullTransactionId next = ReadNextFullTransactionId();

	if (last_xip)
		pfree(last_xip);
	last_xip = MemoryContextAlloc(memory, sizeof(uint64) * (s->xcnt + 1));
	last_nxip = s->xcnt;
	last_xmax = full_xid(s->xmax, next);
	for (int i = 0; i < last_nxip; i++)
		last_xip[i] = full_xid(s->xip[i], next);
	qsort(last_xip, last_nxip, sizeof(uint64), compare_u64);
}

static bool
was_read(uint64 xid)
{
	return xid < last_xmax &&
		bsearch(&xid, last_xip, last_nxip, sizeof(uint64), compare_u64) == NULL;
}

/* ---- owning ---- */

/*
 * Try to own the buckets that are this worker's share; those that somebody
 * works on right now are tried again at the next look.
 */
void
vd_queue_own(int worker, int workers)
{
	if (memory == NULL)
		memory = AllocSetContextCreate(TopMemoryContext, "voiding queue", ALLOCSET_DEFAULT_SIZES);
	for (int b = 0; b < VD_BUCKETS; b++)
		if (b % workers == worker && !buckets[b].owned && vd_outbox_own(b))
		{
			buckets[b].owned = true;
			buckets[b].whole = true;
		}
}

bool
vd_queue_owns_all(int worker, int workers)
{
	for (int b = worker; b < VD_BUCKETS; b += workers)
		if (!buckets[b].owned)
			return false;
	return true;
}

/* read everything again: other messages are received outside now */
void
vd_queue_forget(void)
{
	for (int b = 0; b < VD_BUCKETS; b++)
	{
		buckets[b].n = 0;
		buckets[b].whole = buckets[b].owned;
	}
}

/* An aborted transaction takes the session's locks with it: own them again. */
void
vd_queue_disown(void)
{
	for (int b = 0; b < VD_BUCKETS; b++)
	{
		buckets[b].n = 0;
		buckets[b].owned = buckets[b].whole = false;
	}
}

/* ---- reading ---- */

static Waiting *
new_waiting(Bucket *b)
{
	if (b->n == b->room)
	{
		b->room = Max(64, b->room * 2);
		b->waiting = b->waiting
			? repalloc_huge(b->waiting, sizeof(Waiting) * b->room)
			: MemoryContextAllocHuge(memory, sizeof(Waiting) * b->room);
	}
	return &b->waiting[b->n++];
}

static uint32
hash_text(Datum d)
{
	return hash_bytes((unsigned char *) VARDATA_ANY(d), VARSIZE_ANY_EXHDR(d));
}

/* remember a row, unless it is received outside the database */
static void
add_row(Bucket *b, TupleTableSlot *slot, bool ours)
{
	Datum	   *v = slot->tts_values;
	Waiting    *w;

	if (!vd_handler_is_here(TextDatumGetCString(v[Ob_destination]),
							TextDatumGetCString(v[Ob_type])))
		return;
	w = new_waiting(b);
	w->seq = DatumGetInt64(v[Ob_seq]);
	w->available_at = DatumGetTimestampTz(v[Ob_available_at]);
	w->key = hash_combine(hash_text(v[Ob_aggregateid]), hash_text(v[Ob_destination]));
	w->tid = slot->tts_tid;
	w->taken = false;
	w->ours = ours;
	w->lost = 0;
}

typedef struct Reader
{
	Relation	rel;
	Relation	index;
	TupleTableSlot *slot;
	Snapshot	snapshot;
} Reader;

typedef enum Which
{
	ALL, SINCE, OF
} Which;						/* which transactions' rows */

static void
read_rows(Reader *r, int16 number, Which which, uint64 xid, bool ours)
{
	Bucket	   *b = &buckets[number];
	ScanKeyData key[2];
	int			nkeys = which == ALL ? 1 : 2;
	IndexScanDesc scan = vd_index_beginscan(r->rel, r->index, r->snapshot, nkeys);

	ScanKeyInit(&key[0], 1, BTEqualStrategyNumber, F_INT2EQ, Int16GetDatum(number));
	ScanKeyInit(&key[1], 2,
				which == OF ? BTEqualStrategyNumber : BTGreaterEqualStrategyNumber,
				which == OF ? F_XID8EQ : F_XID8GE,
				FullTransactionIdGetDatum(FullTransactionIdFromU64(xid)));
	index_rescan(scan, key, nkeys, NULL, 0);
	while (index_getnext_slot(scan, ForwardScanDirection, r->slot))
	{
		slot_getallattrs(r->slot);
		if (which != SINCE ||
			!was_read(U64FromFullTransactionId(DatumGetFullTransactionId(r->slot->tts_values[Ob_xid]))))
			add_row(b, r->slot, ours);
	}
	index_endscan(scan);
}

static int
by_seq(const void *a, const void *b)
{
	int64		x = ((const Waiting *) a)->seq;
	int64		y = ((const Waiting *) b)->seq;

	return x < y ? -1 : x > y;
}

/* where the range of a window begins: at the oldest of the recent transactions */
static uint64
window_start(void)
{
	uint64		start = last_xmax;

	for (int i = last_nxip - 1; i >= 0 && last_xip[i] + MAX_NEAR >= last_xmax; i--)
		start = last_xip[i];
	return start;
}

/* a bucket that is too long is cut, and read again when it has been emptied */
static void
sort_and_cut(Bucket *b, int others)
{
	int			limit = Max(MIN_WAITING, MAX_WAITING - others);

	qsort(b->waiting, b->n, sizeof(Waiting), by_seq);
	if (b->n > limit)
	{
		b->n = limit;
		b->partial = true;
	}
}

/* do not keep the memory of a backlog that is over */
static void
release_memory(Bucket *b)
{
	if (b->n > 0 || b->room <= MIN_WAITING)
		return;
	pfree(b->waiting);
	b->waiting = NULL;
	b->room = 0;
}

static void
read_bucket(Reader *r, int16 number)
{
	Bucket	   *b = &buckets[number];
	int			had = b->n;
	int			before = b->n;

	if (b->partial && b->n == 0)
		b->whole = true;
	if (b->whole)
	{
		b->n = before = 0;
		b->whole = b->partial = false;
		read_rows(r, number, ALL, 0, false);
	}
	else if (!b->partial)
	{
		uint64		start = window_start();

		read_rows(r, number, SINCE, start, false);
		for (int i = 0; i < last_nxip && last_xip[i] < start; i++)
			read_rows(r, number, OF, last_xip[i], false);
	}
	remembered += b->n - had;
	if (b->n > before)
		sort_and_cut(b, remembered - b->n);
	release_memory(b);
}

static void
open_reader(Reader *r)
{
	r->rel = table_open(vd_table_oid(VD_OUTBOX), AccessShareLock);
	r->index = index_open(vd_primary_index(r->rel), AccessShareLock);
	r->slot = table_slot_create(r->rel, NULL);
	r->snapshot = RegisterSnapshot(GetLatestSnapshot());
}

static void
close_reader(Reader *r)
{
	UnregisterSnapshot(r->snapshot);
	ExecDropSingleTupleTableSlot(r->slot);
	index_close(r->index, NoLock);
	table_close(r->rel, NoLock);
}

/*
 * Read what is new in all buckets. Returns whether transactions were running
 * whose rows can come without anybody telling: look again soon.
 */
bool
vd_queue_look(void)
{
	Reader		r;
	bool		running;

	open_reader(&r);
	remembered = 0;
	for (int b = 0; b < VD_BUCKETS; b++)
		remembered += buckets[b].n;
	for (int b = 0; b < VD_BUCKETS; b++)
		if (buckets[b].owned)
			read_bucket(&r, b);
	remember_snapshot(r.snapshot);
	running = r.snapshot->xcnt > 0;
	close_reader(&r);
	return running;
}

static void
drop_ours(Bucket *b)
{
	int			kept = 0;

	for (int i = 0; i < b->n; i++)
		if (!b->waiting[i].ours)
			b->waiting[kept++] = b->waiting[i];
	b->n = kept;
}

/* read what this transaction has written into buckets that are owned */
void
vd_queue_follow(void)
{
	uint64		mask = vd_outbox_written();
	uint64		xid;
	Reader		r;

	if (mask == 0)
		return;
	xid = U64FromFullTransactionId(GetTopFullTransactionId());
	open_reader(&r);
	for (int b = 0; b < VD_BUCKETS; b++)
		if (buckets[b].owned && (mask & (UINT64CONST(1) << b)))
		{
			drop_ours(&buckets[b]);
			read_rows(&r, b, OF, xid, true);
			qsort(buckets[b].waiting, buckets[b].n, sizeof(Waiting), by_seq);
		}
	close_reader(&r);
}

/* ---- taking ---- */

static bool
is_blocked(HTAB *blocked, uint32 key)
{
	return blocked && hash_search(blocked, &key, HASH_FIND, NULL) != NULL;
}

static void
block(HTAB **blocked, uint32 key)
{
	HASHCTL		ctl = {.keysize = sizeof(uint32),.entrysize = sizeof(uint32),.hcxt = CurrentMemoryContext};

	if (*blocked == NULL)
		*blocked = hash_create("voiding blocked", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	(void) hash_search(*blocked, &key, HASH_ENTER, NULL);
}

/* the message itself; NULL: discarded meanwhile */
static VdMessage *
fetch(Reader *r, const Waiting *w)
{
	ItemPointerData tid = w->tid;
	VdMessage  *m;

	if (!table_tuple_fetch_row_version(r->rel, &tid, r->snapshot, r->slot))
		return NULL;
	m = palloc(sizeof(VdMessage));
	vd_outbox_read(r->slot, m);
	return m->seq == w->seq ? m : NULL;
}

static List *
take_from(Reader *r, Bucket *b, int limit, TimestampTz now, TimestampTz *next_due)
{
	List	   *messages = NIL;
	HTAB	   *blocked = NULL;

	for (int i = 0; i < b->n && list_length(messages) < limit; i++)
	{
		Waiting    *w = &b->waiting[i];
		VdMessage  *m;

		if (w->taken || is_blocked(blocked, w->key))
			continue;
		if (w->available_at > now || w->lost > 0)
		{
			*next_due = Min(*next_due, w->available_at);
			block(&blocked, w->key);
			continue;
		}
		w->taken = true;
		if ((m = fetch(r, w)) != NULL)
			messages = lappend(messages, m);
	}
	if (blocked)
		hash_destroy(blocked);
	return messages;
}

/* is this one, of those that wait for its key, the first? */
static bool
is_first(Bucket *b, Waiting *w)
{
	for (Waiting *x = b->waiting; x < w; x++)
		if (x->key == w->key && !x->taken)
			return false;
	return true;
}

/*
 * One of those that could not have a lock, when its time has come; NIL: none.
 * Looks through everything, but seldom.
 */
static List *
take_lost(Reader *r, TimestampTz now)
{
	Waiting    *found = NULL;
	VdMessage  *m;

	if (lost_due > now)
		return NIL;
	lost_due = VD_NEVER;
	for (int n = 0; n < VD_BUCKETS; n++)
		for (int i = 0; i < buckets[n].n; i++)
		{
			Waiting    *w = &buckets[n].waiting[i];

			if (w->lost == 0 || w->taken)
				continue;
			if (!is_first(&buckets[n], w))
				w->lost = 0;	/* one that came late goes before it */
			else if (found == NULL && w->available_at <= now)
				found = w;
			else
				lost_due = Min(lost_due, w->available_at);
		}
	if (found == NULL)
		return NIL;
	found->taken = true;
	return (m = fetch(r, found)) ? list_make1(m) : NIL;
}

/*
 * Up to limit messages that may run now, in an order in which they may.
 * again: from where the last ones came, to find out which of them it was that
 * could not have a lock. next_due: lowered to when the first of those that may
 * not yet will.
 */
List *
vd_queue_take(int limit, bool again, TimestampTz *next_due)
{
	static int	first = 0;
	List	   *messages = NIL;
	int			begin = (again ? first : ++first) % VD_BUCKETS;
	TimestampTz now = vd_now();
	Reader		r;

	open_reader(&r);
	messages = take_lost(&r, now);
	if (messages != NIL)
		limit = 1;				/* it alone */
	for (int i = 0; i < VD_BUCKETS && list_length(messages) < limit; i++)
	{
		Bucket	   *b = &buckets[(begin + i) % VD_BUCKETS];

		if (b->n > 0)
			messages = list_concat(messages,
								   take_from(&r, b, limit - list_length(messages), now, next_due));
	}
	close_reader(&r);
	return messages;
}

/* those that are wanted, due or not, to be written anew: their rows here are no more */
List *
vd_queue_pick(bool (*wanted) (int64 seq))
{
	List	   *messages = NIL;
	Reader		r;

	open_reader(&r);
	for (int b = 0; b < VD_BUCKETS; b++)
		for (int i = 0; i < buckets[b].n; i++)
		{
			Waiting    *w = &buckets[b].waiting[i];
			VdMessage  *m = wanted(w->seq) ? fetch(&r, w) : NULL;

			if (m == NULL)
				continue;
			w->taken = true;
			messages = lappend(messages, m);
		}
	close_reader(&r);
	return messages;
}

static Waiting *
waiting_of(const VdMessage *m)
{
	Bucket	   *b = &buckets[m->bucket];
	Waiting		key = {.seq = m->seq};

	return b->n == 0 ? NULL : bsearch(&key, b->waiting, b->n, sizeof(Waiting), by_seq);
}

/* a message that could not be run now for no fault of its own */
void
vd_queue_delay(const VdMessage *m, TimestampTz when)
{
	Waiting    *w = waiting_of(m);

	if (w == NULL)
		return;
	w->taken = false;
	if (w->lost == 0)
		w->available_at = when;
}

/*
 * A message that could not have a lock, alone: it is not in a batch any more,
 * where others would wait with it, but tried later and later by itself.
 */
void
vd_queue_lost(const VdMessage *m)
{
	Waiting    *w = waiting_of(m);

	if (w == NULL)
		return;
	w->available_at = vd_now() + (LOST_FIRST << Min(w->lost, LOST_DOUBLES));
	w->lost = Min(w->lost + 1, 100);
	lost_due = Min(lost_due, w->available_at);
}

bool
vd_queue_is_lost(const VdMessage *m)
{
	Waiting    *w = waiting_of(m);

	return w != NULL && w->lost > 0;
}

/*
 * The transaction is over. What was taken is gone (or comes again as a new
 * row); what it wrote itself is read as everything else, by the next look.
 */
void
vd_queue_end(bool committed)
{
	for (int n = 0; n < VD_BUCKETS; n++)
	{
		Bucket	   *b = &buckets[n];
		int			kept = 0;

		for (int i = 0; i < b->n; i++)
		{
			Waiting    *w = &b->waiting[i];

			if (w->ours || (committed && w->taken))
				continue;
			w->taken = false;
			b->waiting[kept++] = *w;
		}
		b->n = kept;
	}
}
