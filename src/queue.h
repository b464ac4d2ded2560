/*
 * queue.h
 *	  A worker's memory of the outbox: queue.c, and kept.c for what has no row.
 */
#ifndef VOIDING_QUEUE_H
#define VOIDING_QUEUE_H

typedef struct VdWaiting
{
	int64		seq;
	TimestampTz available_at;
	uint32		key;			/* hash of destination and aggregateid */
	ItemPointerData tid;		/* of the row */
	bool		taken;			/* runs in this transaction */
	uint8		lost;			/* how often it could not have a lock, though alone */
	VdMessage  *kept;			/* sent in this transaction: it has no row */
	SubTransactionId sent_by;
} VdWaiting;

typedef struct VdBucket
{
	bool		owned;
	bool		whole;			/* read it whole at the next look */
	bool		partial;		/* there is more than is remembered */
	bool		has_kept;		/* messages without a row */
	VdWaiting  *waiting;		/* by seq */
	int			n;
	int			room;
	/* the snapshot it was read with: what is below xmax and not in xip has been */
	uint64		xmax;
	uint64	   *xip;
	int			nxip;
} VdBucket;

typedef enum VdTake
{
	VD_NEXT, VD_AGAIN, VD_KEPT
} VdTake;

extern VdBucket vd_buckets[VD_BUCKETS];

/* ---- queue.c ---- */
extern uint64 vd_full_xid(TransactionId xid, FullTransactionId next);
extern void vd_queue_own(int worker, int workers);
extern bool vd_queue_owns_all(int worker, int workers);
extern uint64 vd_queue_owned(void);
extern void vd_queue_disown(void);
extern void vd_queue_forget(void);
extern bool vd_queue_look(uint64 mask);
extern VdWaiting *vd_queue_new(VdBucket *b);
extern int	vd_queue_by_seq(const void *a, const void *b);
extern List *vd_queue_take(int limit, VdTake which, TimestampTz *next_due);
extern List *vd_queue_pick(bool (*wanted) (int64 seq));
extern void vd_queue_delay(const VdMessage *m, TimestampTz when);
extern void vd_queue_lost(const VdMessage *m);
extern bool vd_queue_is_lost(const VdMessage *m);
extern void vd_queue_end(void);

/* ---- kept.c ---- */
extern void vd_queue_keep_init(void);
extern void vd_queue_keeping(bool on);
extern bool vd_queue_keep(const VdMessage *m);
extern void vd_queue_write_kept(void);

#endif							/* VOIDING_QUEUE_H */
