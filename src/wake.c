/*
 * wake.c
 *	  What a commit sets off: workers are woken, people who wait are told.
 *
 * What is to be woken is remembered during the transaction, in fixed memory;
 * the commit callback does nothing that can fail. COMMIT PREPARED sets off
 * nothing: PREPARE TRANSACTION wakes the workers, so that they see it running,
 * and they look again soon while a transaction that they have seen is not over.
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "miscadmin.h"

#include "voiding.h"
#include "shared.h"

PG_FUNCTION_INFO_V1(voiding_wake_timer);

const pg_uuid_t vd_idle = {{0}};

static bool work_left = false;	/* in this transaction */
static uint64 written = 0;
static bool repaired = false;
static bool parked = false;
static bool definitions = false;
static int64 timer_due = VD_NEVER;
static uint64 told[VD_WAITERS / 64];	/* a bit for each condition variable */

static int
waiter_number(const pg_uuid_t *id)
{
	return hash_bytes(id->data, UUID_LEN) % VD_WAITERS;
}

ConditionVariable *
vd_waiters_of(const pg_uuid_t *id)
{
	VdShared   *s = vd_shared();

	return s ? &s->waiters[waiter_number(id)] : NULL;
}

/* messages were queued in these buckets */
void
vd_wake_buckets(uint64 mask)
{
	written |= mask;
	vd_wake_workers();
}

/* there is something that a worker must see */
void
vd_wake_workers(void)
{
	work_left = true;
	(void) vd_my_database();	/* now, since it may not be looked for at commit */
}

/* those who wait for this process (or command) shall look */
void
vd_wake_waiters(const pg_uuid_t *id)
{
	int			n = waiter_number(id);

	told[n / 64] |= UINT64CONST(1) << (n % 64);
	(void) vd_shared();
}

void
vd_wake_timer(TimestampTz due)
{
	timer_due = Min(timer_due, due);
	vd_wake_workers();
}

/* messages that wait were changed or taken out by hand: workers read all again */
void
vd_wake_repaired(void)
{
	repaired = true;
	vd_wake_workers();
}

/*
 * voiding.wake_timer(due timestamptz) RETURNS void, internal: a deadline has
 * been moved by SQL.
 */
Datum
voiding_wake_timer(PG_FUNCTION_ARGS)
{
	vd_wake_timer(PG_GETARG_TIMESTAMPTZ(0));
	PG_RETURN_VOID();
}

void
vd_wake_parked(void)
{
	parked = true;
	vd_wake_workers();
}

/* the extension may just have come: a launcher may have been waiting for it */
void
vd_wake_definitions(void)
{
	definitions = true;
	vd_wake_workers();
}

static void
lower(pg_atomic_uint64 *due, int64 value)
{
	uint64		now = pg_atomic_read_u64(due);

	while (value < (int64) now &&
		   !pg_atomic_compare_exchange_u64(due, &now, (uint64) value))
		;
}

static void
wake_database(void)
{
	VdDatabase *db = vd_my_database();

	if (db == NULL)
		return;
	if (timer_due != VD_NEVER)
		lower(&db->timer_due, timer_due);
	if (parked)
		pg_atomic_write_u32(&db->parked, 1);
	if (repaired)
		pg_atomic_fetch_or_u64(&db->repaired, PG_UINT64_MAX);
	if (written)
		pg_atomic_fetch_or_u64(&db->written, written);
	pg_atomic_fetch_add_u64(&db->generation, 1);
	for (int i = 0; i < VD_MAX_WORKERS; i++)
		vd_wake_process(&db->worker[i]);
	if (definitions && !vd_is_served(db))
		vd_wake_launcher();
}

static void
tell_waiters(void)
{
	VdShared   *s = vd_shared();

	for (int i = 0; s && i < VD_WAITERS; i++)
		if (told[i / 64] & (UINT64CONST(1) << (i % 64)))
			ConditionVariableBroadcast(&s->waiters[i]);
}

static bool
anyone_told(void)
{
	for (size_t i = 0; i < lengthof(told); i++)
		if (told[i])
			return true;
	return false;
}

static void
on_xact(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	if (event != XACT_EVENT_ABORT && work_left)
		wake_database();
	if (event == XACT_EVENT_COMMIT && anyone_told())
		tell_waiters();
	work_left = parked = definitions = repaired = false;
	written = 0;
	timer_due = VD_NEVER;
	memset(told, 0, sizeof(told));
}

void
vd_wake_init(void)
{
	RegisterXactCallback(on_xact, NULL);
}
