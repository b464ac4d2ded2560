/*
 * wait.c
 *	  Waiting until nothing is left to do; knowing what one cannot see.
 *
 * A wait looks with the latest snapshot, whatever the isolation level. It is
 * refused where it could never end: in a transaction that has written (what
 * it wrote is not visible to whoever would handle it), and in a handler.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/wait_event.h"
#include "utils/xid8.h"

#include "voiding.h"
#include "queue.h"
#include "shared.h"

#define FIRST_LOOK	1			/* ms; each look waits twice as long as the one before */
#define LAST_LOOK	100
#define SLEEP		1000		/* ms between looks of those who will be told */

PG_FUNCTION_INFO_V1(voiding_wait_until_idle);
PG_FUNCTION_INFO_V1(voiding_check_snapshot);
PG_FUNCTION_INFO_V1(voiding_wait_settled);
PG_FUNCTION_INFO_V1(voiding_await);

static void
refuse_in_writer(const char *name)
{
	if (vd_current_message() != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_VD_BAD_WAIT),
				 errmsg("%s() cannot be called inside a handler", name)));
	if (TransactionIdIsValid(GetTopTransactionIdIfAny()))
		ereport(ERROR,
				(errcode(ERRCODE_VD_BAD_WAIT),
				 errmsg("%s() cannot wait in a transaction that has written", name),
				 errdetail("Nobody else can see what this transaction wrote before it commits."),
				 errhint("Commit first, then wait.")));
}

typedef struct Look				/* how far the looks of one wait have come */
{
	uint64		from[VD_BUCKETS];	/* no row of a transaction before this is left */
	Relation	rel;
	Relation	index;
	TupleTableSlot *slot;
	Snapshot	snapshot;
	uint64		xmin;			/* of the snapshot */
} Look;

/*
 * Dead rows are walked over once in a wait, not in each look: somebody may hold
 * a snapshot that keeps millions of them.
 */
static bool
bucket_is_idle(Look *l, int16 bucket)
{
	ScanKeyData key[2];
	IndexScanDesc scan = vd_index_beginscan(l->rel, l->index, l->snapshot, 2);
	Datum	   *v = l->slot->tts_values;
	uint64		first = l->xmin;
	bool		idle = true;

	ScanKeyInit(&key[0], 1, BTEqualStrategyNumber, F_INT2EQ, Int16GetDatum(bucket));
	ScanKeyInit(&key[1], 2, BTGreaterEqualStrategyNumber, F_XID8GE,
				FullTransactionIdGetDatum(FullTransactionIdFromU64(l->from[bucket])));
	index_rescan(scan, key, 2, NULL, 0);
	while (idle && index_getnext_slot(scan, ForwardScanDirection, l->slot))
	{
		slot_getallattrs(l->slot);
		first = Min(first, U64FromFullTransactionId(DatumGetFullTransactionId(v[Ob_xid])));
		idle = !vd_handler_is_here(TextDatumGetCString(v[Ob_destination]),
								   TextDatumGetCString(v[Ob_type]));
	}
	index_endscan(scan);
	l->from[bucket] = first;
	return idle;
}

static bool
is_idle(Look *l)
{
	MemoryContext look = AllocSetContextCreate(CurrentMemoryContext, "voiding look",
											   ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(look);
	bool		idle = true;

	l->rel = table_open(vd_table_oid(VD_OUTBOX), AccessShareLock);
	l->index = index_open(vd_primary_index(l->rel), AccessShareLock);
	l->slot = table_slot_create(l->rel, NULL);
	l->snapshot = RegisterSnapshot(GetLatestSnapshot());
	l->xmin = vd_full_xid(l->snapshot->xmin, ReadNextFullTransactionId());
	for (int16 b = 0; b < VD_BUCKETS && idle; b++)
	{
		CHECK_FOR_INTERRUPTS();
		idle = bucket_is_idle(l, b);
	}
	UnregisterSnapshot(l->snapshot);
	ExecDropSingleTupleTableSlot(l->slot);
	index_close(l->index, NoLock);
	table_close(l->rel, NoLock);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(look);
	return idle;
}

/* sleep until told through cv (NULL: nobody tells), at most ms */
static void
pause_for(ConditionVariable *cv, long ms)
{
	if (cv != NULL)
	{
		(void) ConditionVariableTimedSleep(cv, ms, PG_WAIT_EXTENSION);
		return;
	}
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, ms,
					 PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

static TimestampTz
end_of_wait(FunctionCallInfo fcinfo, int arg)
{
	if (PG_ARGISNULL(arg))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"timeout\" must not be null")));
	return DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
												   TimestampTzGetDatum(GetCurrentTimestamp()),
												   PG_GETARG_DATUM(arg)));
}

static long
left(TimestampTz end)
{
	return Max(0, TimestampDifferenceMilliseconds(GetCurrentTimestamp(), end)) + 1;
}

/*
 * voiding.wait_until_idle(timeout interval) RETURNS boolean: true when no
 * message is left for a handler here, those waiting for their next attempt
 * included; false when that took longer than timeout. Deadlines in the future
 * are not waited for.
 *
 * Errors: VD25A in a transaction that has written, and in a handler; 22004.
 * Holds the caller's snapshot while it waits.
 */
Datum
voiding_wait_until_idle(PG_FUNCTION_ARGS)
{
	TimestampTz end = end_of_wait(fcinfo, 0);
	ConditionVariable *cv = vd_waiters_of(&vd_idle);
	Look		looks = {.from = {0}};
	long		look = FIRST_LOOK;
	bool		idle;

	refuse_in_writer("wait_until_idle");
	if (cv)
		ConditionVariablePrepareToSleep(cv);
	while (!(idle = is_idle(&looks)) && GetCurrentTimestamp() < end)
	{
		pause_for(cv, Min(cv ? LAST_LOOK : look, left(end)));
		look = Min(look * 2, LAST_LOOK);
	}
	ConditionVariableCancelSleep();
	PG_RETURN_BOOL(idle);
}

static bool
is_failed(TupleTableSlot *slot, void *arg)
{
	slot_getallattrs(slot);
	*(int *) arg = DatumGetBool(slot->tts_values[Pr_failed]);
	return false;
}

/* is the process settled: ended, or failed and waiting for a person? */
static bool
is_settled(const pg_uuid_t *id)
{
	VdKey		key = {UUIDOID, UUIDPGetDatum(id)};
	int			failed = -1;

	vd_scan(VD_ACTIVE_PROCESS, VdIdx_primary, 1, &key, is_failed, &failed);
	if (failed == -1)
	{
		VdProcess	p;

		if (!vd_process_finished(id, &p))
			ereport(ERROR,
					(errcode(ERRCODE_VD_NO_PROCESS),
					 errmsg("there is no process %s", vd_uuid_text(id))));
	}
	return failed != 0;
}

static bool
wait_settled(const pg_uuid_t *id, TimestampTz end)
{
	ConditionVariable *cv = vd_waiters_of(id);
	long		look = FIRST_LOOK;
	bool		settled;

	if (cv)
		ConditionVariablePrepareToSleep(cv);
	while (!(settled = is_settled(id)) && GetCurrentTimestamp() < end)
	{
		pause_for(cv, Min(cv ? SLEEP : look, left(end)));
		look = Min(look * 2, LAST_LOOK);
	}
	ConditionVariableCancelSleep();
	return settled;
}

/*
 * voiding.wait_settled(process_id uuid, timeout interval) RETURNS boolean:
 * what wait_for_process() waits with. Holds the caller's snapshot.
 *
 * Errors: VD25A, VD04B, 22004.
 */
Datum
voiding_wait_settled(PG_FUNCTION_ARGS)
{
	refuse_in_writer("wait_for_process");
	PG_RETURN_BOOL(wait_settled(PG_GETARG_UUID_P(0), end_of_wait(fcinfo, 1)));
}

/*
 * CALL voiding.await(process_id uuid, timeout interval): commits, then waits
 * until the process is settled, without a snapshot while it sleeps.
 *
 * Errors: 2D000 inside a transaction block; VD04B, 22004; 57014 when it took
 * longer than timeout.
 */
Datum
voiding_await(PG_FUNCTION_ARGS)
{
	pg_uuid_t	id = *PG_GETARG_UUID_P(0);
	TimestampTz end = end_of_wait(fcinfo, 1);
	ConditionVariable *cv = vd_waiters_of(&id);
	long		look = FIRST_LOOK;
	CallContext *context = castNode(CallContext, fcinfo->context);

	if (context->atomic)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				 errmsg("await() cannot be called in a transaction block"),
				 errdetail("It commits before it sleeps."),
				 errhint("Use wait_for_process() there.")));
	if (cv)
		ConditionVariablePrepareToSleep(cv);
	for (;;)
	{
		bool		settled;

		SPI_connect_ext(SPI_OPT_NONATOMIC);
		PushActiveSnapshot(GetLatestSnapshot());
		settled = is_settled(&id);
		PopActiveSnapshot();
		if (!settled && GetCurrentTimestamp() >= end)
			ereport(ERROR,
					(errcode(ERRCODE_QUERY_CANCELED),
					 errmsg("process %s was not settled in time", vd_uuid_text(&id)),
					 errdetail("It goes on.")));
		SPI_commit();
		SPI_finish();
		if (settled)
			break;
		pause_for(cv, Min(cv ? SLEEP : look, left(end)));
		look = Min(look * 2, LAST_LOOK);
	}
	ConditionVariableCancelSleep();
	PG_RETURN_VOID();
}

static bool
running_in(TransactionId xid, Snapshot s)
{
	for (uint32 i = 0; i < s->xcnt; i++)
		if (TransactionIdEquals(s->xip[i], xid))
			return true;
	return false;
}

/* has it, as this snapshot sees it? Those that rolled back and our own have not. */
static bool
has_committed(TransactionId xid, Snapshot s)
{
	return !TransactionIdIsCurrentTransactionId(xid) && !running_in(xid, s) &&
		TransactionIdDidCommit(xid);
}

/*
 * For a decision that needs all that is committed, after its lock is held:
 * error 40001 when a transaction has committed since the snapshot of this
 * (REPEATABLE READ or SERIALIZABLE) transaction. Under READ COMMITTED the
 * next statement sees everything, and there is nothing to check.
 */
void
vd_check_snapshot(void)
{
	Snapshot	ours;
	Snapshot	latest;
	bool		stale = false;

	if (!IsolationUsesXactSnapshot())
		return;
	ours = GetTransactionSnapshot();
	latest = GetLatestSnapshot();
	for (uint32 i = 0; i < ours->xcnt && !stale; i++)
		stale = has_committed(ours->xip[i], latest);
	for (TransactionId xid = ours->xmax; !stale && TransactionIdPrecedes(xid, latest->xmax);)
	{
		stale = has_committed(xid, latest);
		TransactionIdAdvance(xid);
	}
	if (stale)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access: other transactions have committed since the snapshot"),
				 errhint("The transaction might succeed if retried.")));
}

/*
 * voiding.check_snapshot() RETURNS void: the same for services.
 */
Datum
voiding_check_snapshot(PG_FUNCTION_ARGS)
{
	vd_check_snapshot();
	PG_RETURN_VOID();
}
