/*
 * kept.c
 *	  What a worker's batch sends to a handler here is kept in memory and run
 *	  in the same transaction. It never becomes a row of the outbox, unless the
 *	  batch ends before its turn.
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "utils/datum.h"
#include "utils/memutils.h"

#include "voiding.h"
#include "queue.h"

static MemoryContext kept_memory = NULL;	/* of this transaction; NULL: nothing is kept */
static SubTransactionId last_sent_by = 0;

static VdMessage *
copy_message(const VdMessage *m)
{
	MemoryContext old = MemoryContextSwitchTo(kept_memory);
	VdMessage  *copy = palloc(sizeof(VdMessage));

	*copy = *m;
	copy->aggregatetype = pstrdup(m->aggregatetype);
	copy->aggregateid = pstrdup(m->aggregateid);
	copy->type = pstrdup(m->type);
	copy->source = pstrdup(m->source);
	copy->destination = pstrdup(m->destination);
	copy->sent_in = m->sent_in ? pstrdup(m->sent_in) : NULL;
	copy->payload = (Jsonb *) DatumGetPointer(datumCopy(JsonbPGetDatum(m->payload), false, -1));
	copy->kept = true;
	MemoryContextSwitchTo(old);
	return copy;
}

static uint32
hash_string(const char *s)
{
	return hash_bytes((const unsigned char *) s, strlen(s));
}

/* From now to the end of the transaction, keep what can be; or no more. */
void
vd_queue_keeping(bool on)
{
	kept_memory = on ? AllocSetContextCreate(TopTransactionContext, "voiding kept messages",
											 ALLOCSET_DEFAULT_SIZES) : NULL;
}

/* Keep a message that is being sent; false: it has to become a row. */
bool
vd_queue_keep(const VdMessage *m)
{
	VdBucket   *b = &vd_buckets[m->bucket];
	VdWaiting  *w;

	if (kept_memory == NULL || !b->owned || b->partial ||
		!vd_handler_is_here(m->destination, m->type))
		return false;
	w = vd_queue_new(b);
	w->seq = m->seq;
	w->available_at = m->available_at;
	w->key = hash_combine(hash_string(m->aggregateid), hash_string(m->destination));
	w->taken = false;
	w->lost = 0;
	w->kept = copy_message(m);
	b->has_kept = true;
	w->sent_by = last_sent_by = GetCurrentSubTransactionId();
	if (b->n > 1 && w[-1].seq > w->seq)
		qsort(b->waiting, b->n, sizeof(VdWaiting), vd_queue_by_seq);
	return true;
}

/* a subtransaction is rolled back, and what it sent with it */
static void
on_subxact(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	if (event != SUBXACT_EVENT_ABORT_SUB || kept_memory == NULL || last_sent_by < mine)
		return;
	for (int n = 0; n < VD_BUCKETS; n++)
	{
		VdBucket   *b = &vd_buckets[n];
		int			left = 0;

		for (int i = 0; i < b->n; i++)
			if (!b->waiting[i].kept || b->waiting[i].sent_by < mine)
				b->waiting[left++] = b->waiting[i];
		b->n = left;
	}
}

/* make rows of those whose turn has not come */
void
vd_queue_write_kept(void)
{
	vd_queue_keeping(false);
	for (int n = 0; n < VD_BUCKETS; n++)
		for (int i = 0; i < vd_buckets[n].n; i++)
		{
			VdWaiting  *w = &vd_buckets[n].waiting[i];

			if (w->kept && !w->taken)
				vd_outbox_write(w->kept);
		}
}

void
vd_queue_keep_init(void)
{
	RegisterSubXactCallback(on_subxact, NULL);
}
