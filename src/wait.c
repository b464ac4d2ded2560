/*
 * wait.c
 *	  Waiting until nothing is left to do; knowing what one cannot see.
 *
 * A wait looks with the latest snapshot, whatever the isolation level. It is
 * refused where it could never end: in a transaction that has written (what
 * it wrote is not visible to whoever would handle it), and in a handler.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/wait_event.h"

#include "voiding.h"

#define FIRST_LOOK	2			/* ms; each look waits twice as long as the one before */
#define LAST_LOOK	50

PG_FUNCTION_INFO_V1(voiding_wait_until_idle);
PG_FUNCTION_INFO_V1(voiding_check_snapshot);

static void
refuse_in_writer(const char *name)
{
	if (vd_current_message != NULL)
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

static bool
found(TupleTableSlot *slot, void *arg)
{
	slot_getallattrs(slot);
	*(bool *) arg = vd_handler_is_here(TextDatumGetCString(slot->tts_values[Ob_destination]),
									   TextDatumGetCString(slot->tts_values[Ob_type]));
	return !*(bool *) arg;
}

static bool
is_idle(void)
{
	MemoryContext look = AllocSetContextCreate(CurrentMemoryContext, "voiding look",
											   ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(look);
	bool		busy = false;

	vd_scan(VD_OUTBOX, VdIdx_primary, 0, NULL, found, &busy);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(look);
	return !busy;
}

static void
pause_for(long ms)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, ms,
					 PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
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
	TimestampTz start = GetCurrentTimestamp();
	TimestampTz end;
	long		look = FIRST_LOOK;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"timeout\" must not be null")));
	refuse_in_writer("wait_until_idle");
	end = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
												  TimestampTzGetDatum(start),
												  PG_GETARG_DATUM(0)));
	while (!is_idle())
	{
		if (GetCurrentTimestamp() >= end)
			PG_RETURN_BOOL(false);
		pause_for(look);
		look = Min(look * 2, LAST_LOOK);
	}
	PG_RETURN_BOOL(true);
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
