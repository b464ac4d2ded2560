/*
 * shared.h
 *	  The one fixed struct in shared memory: who serves which database, what
 *	  waits for it, and where people who wait can be woken.
 *
 * It is made by whoever comes first, preloaded or not, out of the slack of
 * the main segment (as autoprewarm does), and never grows. It is gone with
 * a crash: nothing may be lost with it.
 *
 * The commit callback touches it with atomics, spinlocks, SetLatch() and
 * ConditionVariableBroadcast() only: an ERROR there would be a PANIC.
 */
#ifndef VOIDING_SHARED_H
#define VOIDING_SHARED_H

#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/spin.h"

#define VD_SHARED_MAGIC		0x564F4932
#define VD_DATABASES		8	/* that have workers, or are dispatched by hand */
#define VD_MAX_WORKERS		8	/* of one database */
#define VD_WAITERS			256 /* condition variables, by hash of an id */
#define VD_COUNTED			12	/* services that are counted, of one database */
#define VD_HINTS			64	/* hints that have not been sent yet */
#define VD_NEVER			PG_INT64_MAX

typedef struct VdCounters
{
	char		service[52];
	pg_atomic_uint64 handled;
	pg_atomic_uint64 failed;
	pg_atomic_uint64 retried;
	pg_atomic_uint64 dead;
} VdCounters;

typedef struct VdDatabase
{
	pg_atomic_uint32 dboid;		/* 0: free */
	pg_atomic_uint64 generation;	/* commits that left work */
	pg_atomic_uint64 written;	/* buckets that were written to and not looked at: a bit each */
	pg_atomic_uint64 repaired;	/* buckets with messages that were changed by hand */
	pg_atomic_uint64 timer_due; /* no timer that a worker does not know is due before */
	pg_atomic_uint32 parked;	/* an event was parked since the last sweep */
	pg_atomic_uint32 hints_lost;	/* there was no room for some */
	pg_atomic_uint32 hinting;	/* transactions that commit with hints now; no worker */
	pg_atomic_uint32 sender;	/* pgprocno + 1; 0: none */
	pg_atomic_uint64 sender_tried;	/* when one was started */
	pg_atomic_uint32 launcher;	/* pgprocno + 1; 0: none */
	pg_atomic_uint32 wanted;	/* workers */
	pg_atomic_uint32 stopped;	/* by stop_workers() */
	pg_atomic_uint32 no_slot;	/* the launcher could not get a worker */
	pg_atomic_uint32 absent;	/* a worker did not find the extension */
	pg_atomic_uint32 restarts;
	pg_atomic_uint32 worker[VD_MAX_WORKERS];	/* pgprocno + 1; 0: none */
	pg_atomic_uint32 lives[VD_MAX_WORKERS]; /* how often it has begun to work */
	slock_t		lock;			/* guards the names in counters */
	VdCounters	counters[VD_COUNTED];
} VdDatabase;

typedef struct VdHint
{
	Oid			dboid;
	char		channel[52];	/* voiding_ is put before it */
	char		type[100 + 1];
	pg_uuid_t	id;
} VdHint;

typedef struct VdShared
{
	uint32		magic;
	uint32		size;
	slock_t		hint_lock;		/* guards the two below */
	int			nhints;
	VdHint		hints[VD_HINTS];
	VdDatabase	db[VD_DATABASES];
	pg_atomic_uint32 launcher;	/* the preloaded one: pgprocno + 1 */
	pg_atomic_uint32 look_now;	/* counts: it shall not wait with what has failed */
	ConditionVariable waiters[VD_WAITERS];
} VdShared;

extern VdShared *vd_shared(void);
extern VdDatabase *vd_find_database(Oid dboid);
extern VdDatabase *vd_claim_database(Oid dboid);
extern VdDatabase *vd_my_database(void);
extern bool vd_is_served(VdDatabase *db);
extern VdCounters *vd_counters(const char *service);
extern void vd_wake_process(pg_atomic_uint32 *procno);
extern void vd_wake_launcher(void);

/* ---- sender.c ---- */
extern bool vd_sender_enter(VdDatabase *of);
extern void vd_sender_leave(VdDatabase *of);

/* ---- wake.c: what a commit sets off ---- */
extern void vd_wake_init(void);
extern void vd_wake_workers(void);
extern void vd_wake_buckets(uint64 mask);
extern void vd_wake_waiters(const pg_uuid_t *id);
extern void vd_wake_repaired(void);
extern void vd_wake_timer(TimestampTz due);
extern void vd_wake_parked(void);
extern void vd_wake_definitions(void);
extern ConditionVariable *vd_waiters_of(const pg_uuid_t *id);
extern const pg_uuid_t vd_idle;	/* for those who wait until nothing is left to do */

#endif							/* VOIDING_SHARED_H */
