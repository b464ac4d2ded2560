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

#define MAX_WAITING		700000	/* of a worker: 34 MB; more are read again later */
#define MIN_WAITING		4000	/* of a bucket, whatever the others hold */
#define LOST_FIRST		(INT64CONST(30) * 1000) /* us until a lock is tried for again; doubling */
#define LOST_DOUBLES	6
#define MAX_NEAR		1000	/* transactions below the last xmax, read as a range */

VdBucket	vd_buckets[VD_BUCKETS];
static int	remembered = 0;		/* messages of all buckets, at the last look */
static TimestampTz lost_due = PG_INT64_MAX; /* when one that could not have a lock is tried again */
static MemoryContext memory = NULL;

/* a transaction of a snapshot; next: read after it */
uint64
vd_full_xid(TransactionId xid, FullTransactionId next)
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
remember_snapshot(VdBucket *b, Snapshot s, FullTransactionId next)
{
	if (b->xip)
		pfree(b->xip);
	b->xip = MemoryContextAlloc(memory, sizeof(uint64) * (s->xcnt + 1));
	b->nxip = s->xcnt;
	b->xmax = vd_full_xid(s->xmax, next);
	for (int i = 0; i < b->nxip; i++)
		b->xip[i] = vd_full_xid(s->xip[i], next);
	qsort(b->xip, b->nxip, sizeof(uint64), compare_u64);
}

static bool
was_read(const VdBucket *b, uint64 xid)
{
	return xid < b->xmax &&
		bsearch(&xid, b->xip, b->nxip, sizeof(uint64), compare_u64) == NULL;
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
	{
		memory = AllocSetContextCreate(TopMemoryContext, "voiding queue", ALLOCSET_DEFAULT_SIZES);
		vd_queue_keep_init();
	}
	for (int b = 0; b < VD_BUCKETS; b++)
		if (b % workers == worker && !vd_buckets[b].owned && vd_outbox_own(b))
		{
			vd_buckets[b].owned = true;
			vd_buckets[b].whole = true;
		}
}

bool
vd_queue_owns_all(int worker, int workers)
{
	for (int b = worker; b < VD_BUCKETS; b += workers)
		if (!vd_buckets[b].owned)
			return false;
	return true;
}

/* the buckets that are owned, a bit each */
uint64
vd_queue_owned(void)
{
	uint64		mask = 0;

	for (int b = 0; b < VD_BUCKETS; b++)
		if (vd_buckets[b].owned)
			mask |= UINT64CONST(1) << b;
	return mask;
}

/* read everything again: other messages are received outside now */
void
vd_queue_forget(void)
{
	for (int b = 0; b < VD_BUCKETS; b++)
	{
		vd_buckets[b].n = 0;
		vd_buckets[b].whole = vd_buckets[b].owned;
	}
}

/* An aborted transaction takes the session's locks with it: own them again. */
void
vd_queue_disown(void)
{
	for (int b = 0; b < VD_BUCKETS; b++)
	{
		vd_buckets[b].n = 0;
		vd_buckets[b].owned = vd_buckets[b].whole = false;
	}
}

/* ---- reading ---- */

VdWaiting *
vd_queue_new(VdBucket *b)
{
	if (b->n == b->room)
	{
		b->room = Max(64, b->room * 2);
		b->waiting = b->waiting
			? repalloc_huge(b->waiting, sizeof(VdWaiting) * b->room)
			: MemoryContextAllocHuge(memory, sizeof(VdWaiting) * b->room);
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
add_row(VdBucket *b, TupleTableSlot *slot)
{
	Datum	   *v = slot->tts_values;
	VdWaiting  *w;

	if (!vd_handler_is_here(TextDatumGetCString(v[Ob_destination]),
							TextDatumGetCString(v[Ob_type])))
		return;
	w = vd_queue_new(b);
	w->seq = DatumGetInt64(v[Ob_seq]);
	w->available_at = vd_outbox_due(slot);
	w->key = hash_combine(hash_text(v[Ob_aggregateid]), hash_text(v[Ob_destination]));
	w->tid = slot->tts_tid;
	w->taken = false;
	w->kept = NULL;
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
read_rows(Reader *r, int16 number, Which which, uint64 xid)
{
	VdBucket   *b = &vd_buckets[number];
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
			!was_read(b, U64FromFullTransactionId(DatumGetFullTransactionId(r->slot->tts_values[Ob_xid]))))
			add_row(b, r->slot);
	}
	index_endscan(scan);
}

int
vd_queue_by_seq(const void *a, const void *b)
{
	int64		x = ((const VdWaiting *) a)->seq;
	int64		y = ((const VdWaiting *) b)->seq;

	return x < y ? -1 : x > y;
}

/* where the range of a window begins: at the oldest of the recent transactions */
static uint64
window_start(const VdBucket *b)
{
	uint64		start = b->xmax;

	for (int i = b->nxip - 1; i >= 0 && b->xip[i] + MAX_NEAR >= b->xmax; i--)
		start = b->xip[i];
	return start;
}

/* a bucket that is too long is cut, and read again when it has been emptied */
static void
sort_and_cut(VdBucket *b, int others)
{
	int			limit = Max(MIN_WAITING, MAX_WAITING - others);

	qsort(b->waiting, b->n, sizeof(VdWaiting), vd_queue_by_seq);
	if (b->n > limit)
	{
		b->n = limit;
		b->partial = true;
	}
}

/* do not keep the memory of a backlog that is over */
static void
release_memory(VdBucket *b)
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
	VdBucket   *b = &vd_buckets[number];
	int			had = b->n;
	int			before = b->n;

	if (b->partial && b->n == 0)
		b->whole = true;
	if (b->whole)
	{
		b->n = before = 0;
		b->whole = b->partial = false;
		read_rows(r, number, ALL, 0);
	}
	else if (!b->partial)
	{
		uint64		start = window_start(b);

		read_rows(r, number, SINCE, start);
		for (int i = 0; i < b->nxip && b->xip[i] < start; i++)
			read_rows(r, number, OF, b->xip[i]);
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
 * Read what is new in the buckets of a mask, and those that have to be read
 * whole. Returns whether transactions were running whose rows can come without
 * anybody telling: look everywhere again soon.
 */
bool
vd_queue_look(uint64 mask)
{
	FullTransactionId next;
	Reader		r;
	bool		running;

	open_reader(&r);
	remembered = 0;
	for (int b = 0; b < VD_BUCKETS; b++)
		remembered += vd_buckets[b].n;
	next = ReadNextFullTransactionId();
	for (int b = 0; b < VD_BUCKETS; b++)
	{
		VdBucket   *bucket = &vd_buckets[b];

		if (!bucket->owned || !(bucket->whole || (bucket->partial && bucket->n == 0) ||
								(mask & (UINT64CONST(1) << b))))
			continue;
		read_bucket(&r, b);
		remember_snapshot(bucket, r.snapshot, next);
	}
	/* those at or above xmax are not listed in a snapshot */
	running = r.snapshot->xcnt > 0 || ReadNextTransactionId() != r.snapshot->xmax;
	close_reader(&r);
	return running;
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
fetch(Reader *r, const VdWaiting *w)
{
	ItemPointerData tid = w->tid;
	VdMessage  *m;

	if (w->kept)
		return w->kept;
	if (!table_tuple_fetch_row_version(r->rel, &tid, r->snapshot, r->slot))
		return NULL;
	m = palloc(sizeof(VdMessage));
	vd_outbox_read(r->slot, m);
	return m->seq == w->seq ? m : NULL;
}

static List *
take_from(Reader *r, VdBucket *b, int limit, VdTake which, TimestampTz now, TimestampTz *next_due)
{
	List	   *messages = NIL;
	HTAB	   *blocked = NULL;

	for (int i = 0; i < b->n && list_length(messages) < limit; i++)
	{
		VdWaiting  *w = &b->waiting[i];
		VdMessage  *m;

		if (w->taken || is_blocked(blocked, w->key))
			continue;
		if (w->available_at > now || w->lost > 0 || (which == VD_KEPT && !w->kept))
		{
			if (w->available_at > now || w->lost > 0)
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
is_first(VdBucket *b, VdWaiting *w)
{
	for (VdWaiting *x = b->waiting; x < w; x++)
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
	VdWaiting  *found = NULL;
	VdMessage  *m;

	if (lost_due > now)
		return NIL;
	lost_due = VD_NEVER;
	for (int n = 0; n < VD_BUCKETS; n++)
		for (int i = 0; i < vd_buckets[n].n; i++)
		{
			VdWaiting  *w = &vd_buckets[n].waiting[i];

			if (w->lost == 0 || w->taken)
				continue;
			if (!is_first(&vd_buckets[n], w))
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
 * VD_NEXT: from where the last ones end; VD_AGAIN: from where they came, to
 * find out which of them it was that could not have a lock; VD_KEPT: only what
 * was kept. next_due: lowered to when the first of those that may not yet will.
 */
List *
vd_queue_take(int limit, VdTake which, TimestampTz *next_due)
{
	static int	first = 0;
	static bool lost_before = false;
	List	   *messages = NIL;
	int			begin = (which == VD_NEXT ? ++first : first) % VD_BUCKETS;
	TimestampTz now = vd_now();
	Reader		r;

	open_reader(&r);
	if (which != VD_KEPT && !lost_before)	/* every other time, so that they stop nobody */
		messages = take_lost(&r, now);
	lost_before = messages != NIL;
	if (messages != NIL)
		limit = 1;				/* it alone */
	for (int i = 0; i < VD_BUCKETS && list_length(messages) < limit; i++)
	{
		VdBucket   *b = &vd_buckets[(begin + i) % VD_BUCKETS];

		if (b->n > 0 && (which != VD_KEPT || b->has_kept))
			messages = list_concat(messages,
								   take_from(&r, b, limit - list_length(messages), which, now,
											 next_due));
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
		for (int i = 0; i < vd_buckets[b].n; i++)
		{
			VdWaiting  *w = &vd_buckets[b].waiting[i];
			VdMessage  *m = wanted(w->seq) ? fetch(&r, w) : NULL;

			if (m == NULL)
				continue;
			w->taken = true;
			messages = lappend(messages, m);
		}
	close_reader(&r);
	return messages;
}

static VdWaiting *
waiting_of(const VdMessage *m)
{
	VdBucket   *b = &vd_buckets[m->bucket];
	VdWaiting	key = {.seq = m->seq};

	return b->n == 0 ? NULL : bsearch(&key, b->waiting, b->n, sizeof(VdWaiting), vd_queue_by_seq);
}

/* a message that could not be run now for no fault of its own */
void
vd_queue_delay(const VdMessage *m, TimestampTz when)
{
	VdWaiting  *w = waiting_of(m);

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
	VdWaiting  *w = waiting_of(m);

	if (w == NULL)
		return;
	w->available_at = vd_now() + (LOST_FIRST << Min(w->lost, LOST_DOUBLES));
	w->lost = Min(w->lost + 1, 100);
	lost_due = Min(lost_due, w->available_at);
}

bool
vd_queue_is_lost(const VdMessage *m)
{
	VdWaiting  *w = waiting_of(m);

	return w != NULL && w->lost > 0;
}

/*
 * The transaction is committed. What was taken is gone (or comes again as a new
 * row); what it wrote itself is read as everything else, by the next look.
 */
void
vd_queue_end(void)
{
	for (int n = 0; n < VD_BUCKETS; n++)
	{
		VdBucket   *b = &vd_buckets[n];
		int			kept = 0;

		for (int i = 0; i < b->n; i++)
		{
			VdWaiting  *w = &b->waiting[i];

			if (w->kept || w->taken)
				continue;
			b->waiting[kept++] = *w;
		}
		b->n = kept;
		b->has_kept = false;
	}
}
