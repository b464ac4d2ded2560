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
#include "access/twophase.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "utils/array.h"
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
#define SLEEP		1000		/* ms until the first look of those who will be told; doubling */
#define LAST_SLEEP	32000

PG_FUNCTION_INFO_V1(voiding_wait_until_idle);
PG_FUNCTION_INFO_V1(voiding_check_snapshot);
PG_FUNCTION_INFO_V1(voiding_wait_settled);
PG_FUNCTION_INFO_V1(voiding_await);
PG_FUNCTION_INFO_V1(voiding_await_idle);
PG_FUNCTION_INFO_V1(voiding_wait_final);
PG_FUNCTION_INFO_V1(voiding_execute);

extern Datum voiding_send_command(PG_FUNCTION_ARGS);

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

typedef struct Pause			/* between two looks of somebody who waits */
{
	ConditionVariable *cv;		/* through which one is told; NULL: nobody tells */
	long		ms;
	long		longest;
} Pause;

/* longest: of those who will be told, in ms. COMMIT PREPARED tells nobody. */
static Pause
begin_pauses(ConditionVariable *cv, long longest)
{
	Pause		p = {cv, Min(SLEEP, longest), longest};

	if (cv == NULL)
		p = (Pause) {NULL, FIRST_LOOK, LAST_LOOK};
	else if (max_prepared_xacts > 0)
		p.longest = p.ms;
	if (cv)
		ConditionVariablePrepareToSleep(cv);
	return p;
}

/* sleep until told, or until the next look; not beyond the end */
static void
take_pause(Pause *p, TimestampTz end)
{
	long		left = Max(0, TimestampDifferenceMilliseconds(GetCurrentTimestamp(), end)) + 1;
	long		ms = Min(p->ms, left);

	p->ms = Min(p->ms * 2, p->longest);
	if (p->cv != NULL)
	{
		(void) ConditionVariableTimedSleep(p->cv, ms, PG_WAIT_EXTENSION);
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
	Pause		pause;
	Look		looks = {.from = {0}};
	bool		idle;

	refuse_in_writer("wait_until_idle");
	pause = begin_pauses(vd_waiters_of(&vd_idle), LAST_LOOK);
	while (!(idle = is_idle(&looks)) && GetCurrentTimestamp() < end)
		take_pause(&pause, end);
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

/* ---- commands ---- */

static bool
read_status(TupleTableSlot *slot, void *arg)
{
	slot_getallattrs(slot);
	*(char **) arg = TextDatumGetCString(slot->tts_values[Cm_status]);
	return false;
}

static char *
command_status(const pg_uuid_t *id)
{
	VdKey		key = {UUIDOID, UUIDPGetDatum(id)};
	char	   *status = NULL;

	vd_scan(VD_COMMAND, VdIdx_primary, 1, &key, read_status, &status);
	return status;
}

typedef struct Unseen
{
	const pg_uuid_t *conversation;
	List	   *services;		/* of char * */
	bool		found;
} Unseen;

static bool
find_unseen(TupleTableSlot *slot, void *arg)
{
	Unseen	   *u = arg;
	ListCell   *lc;

	slot_getallattrs(slot);
	if (!vd_uuid_equal(DatumGetUUIDP(slot->tts_values[Ob_correlation]), u->conversation))
		return true;
	foreach(lc, u->services)
		u->found |= strcmp(TextDatumGetCString(slot->tts_values[Ob_destination]), lfirst(lc)) == 0;
	return !u->found;
}

/* ---- waiting ---- */

typedef struct Subject			/* what is waited for */
{
	pg_uuid_t	id;				/* of a command or a process; or vd_idle */
	List	   *seen_by;		/* services that shall have handled all that belongs to it */
	Look	   *looks;			/* until nothing is left to do */
} Subject;

/* is a command final, or a process settled? */
static bool
is_over(const Subject *s)
{
	char	   *status = s->looks ? NULL : command_status(&s->id);
	Unseen		unseen = {&s->id, s->seen_by, false};

	if (s->looks)
		return is_idle(s->looks);
	if (status == NULL)
		return is_settled(&s->id);
	if (strcmp(status, "accepted") == 0 || strcmp(status, "running") == 0)
		return false;
	if (s->seen_by != NIL)
		vd_scan(VD_OUTBOX, VdIdx_primary, 0, NULL, find_unseen, &unseen);
	return !unseen.found;
}

static bool
wait_until_over(const Subject *s, TimestampTz end)
{
	Pause		pause = begin_pauses(vd_waiters_of(&s->id), s->seen_by ? LAST_LOOK : LAST_SLEEP);
	bool		over;

	while (!(over = is_over(s)) && GetCurrentTimestamp() < end)
		take_pause(&pause, end);
	ConditionVariableCancelSleep();
	return over;
}

/*
 * The same, without a snapshot while it sleeps: commits first, and again after
 * each look. The last look's transaction is left open.
 */
static bool
commit_and_wait(const Subject *s, TimestampTz end)
{
	Pause		pause;
	bool		over;

	SPI_commit();
	pause = begin_pauses(vd_waiters_of(&s->id), s->looks ? LAST_LOOK : LAST_SLEEP);
	for (;;)
	{
		PushActiveSnapshot(GetLatestSnapshot());
		over = is_over(s);
		PopActiveSnapshot();
		if (over || GetCurrentTimestamp() >= end)
			break;
		SPI_commit();
		take_pause(&pause, end);
	}
	ConditionVariableCancelSleep();
	return over;
}

static void
refuse_in_block(FunctionCallInfo fcinfo, const char *name, const char *instead)
{
	if (castNode(CallContext, fcinfo->context)->atomic)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				 errmsg("%s() cannot be called in a transaction block", name),
				 errdetail("It commits before it sleeps."),
				 errhint("Use %s there.", instead)));
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
	Subject		s = {.id = *PG_GETARG_UUID_P(0)};

	refuse_in_writer("wait_for_process");
	PG_RETURN_BOOL(wait_until_over(&s, end_of_wait(fcinfo, 1)));
}

static List *
names_argument(FunctionCallInfo fcinfo, int i)
{
	Datum	   *names;
	bool	   *nulls;
	int			n;
	List	   *list = NIL;

	if (PG_ARGISNULL(i))
		return NIL;
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(i), TEXTOID, -1, false, TYPALIGN_INT, &names, &nulls, &n);
	for (int k = 0; k < n; k++)
		if (!nulls[k])
			list = lappend(list, TextDatumGetCString(names[k]));
	return list;
}

/*
 * voiding.wait_final(command_id uuid, timeout interval, seen_by text[])
 * RETURNS boolean: what wait_for_command() waits with. Holds the caller's
 * snapshot.
 *
 * Errors: VD25A, 22004.
 */
Datum
voiding_wait_final(PG_FUNCTION_ARGS)
{
	Subject		s = {.id = *PG_GETARG_UUID_P(0),.seen_by = names_argument(fcinfo, 2)};

	refuse_in_writer("wait_for_command");
	PG_RETURN_BOOL(wait_until_over(&s, end_of_wait(fcinfo, 1)));
}

/*
 * CALL voiding.await(id uuid, timeout interval): commits, then waits until the
 * process is settled, or the command final, without a snapshot while it sleeps.
 *
 * Errors: 2D000 inside a transaction block; VD04B, 22004; 57014 when it took
 * longer than timeout.
 */
Datum
voiding_await(PG_FUNCTION_ARGS)
{
	Subject		s = {.id = *PG_GETARG_UUID_P(0)};
	TimestampTz end = end_of_wait(fcinfo, 1);

	refuse_in_block(fcinfo, "await", "wait_for_process() or wait_for_command()");
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	if (!commit_and_wait(&s, end))
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("%s %s in time", vd_uuid_text(&s.id),
						command_status(&s.id) ? "had no final status" : "was not settled"),
				 errdetail("It goes on.")));
	SPI_finish();
	PG_RETURN_VOID();
}

/*
 * CALL voiding.await_idle(timeout interval): what wait_until_idle() waits for,
 * without a snapshot while it sleeps.
 *
 * Errors: 2D000 inside a transaction block; 22004; 57014 when it took longer
 * than timeout.
 */
Datum
voiding_await_idle(PG_FUNCTION_ARGS)
{
	Look		looks = {.from = {0}};
	Subject		s = {.id = vd_idle,.looks = &looks};
	TimestampTz end = end_of_wait(fcinfo, 0);

	refuse_in_block(fcinfo, "await_idle", "wait_until_idle()");
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	if (!commit_and_wait(&s, end))
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("messages were still left at the end of the time")));
	SPI_finish();
	PG_RETURN_VOID();
}

/* the row of a command, as a value in the current context */
static Datum
command_row(const pg_uuid_t *id)
{
	MemoryContext caller = CurrentMemoryContext;
	Oid			type = UUIDOID;
	Datum		arg = UUIDPGetDatum(id);
	HeapTuple	row;
	Datum		result;
	bool		isnull;

	PushActiveSnapshot(GetLatestSnapshot());
	if (SPI_execute_with_args("SELECT voiding.command_status($1)", 1, &type, &arg, NULL, true, 1) != SPI_OK_SELECT ||
		SPI_processed != 1)
		elog(ERROR, "could not read voiding.command");
	MemoryContextSwitchTo(caller);
	row = SPI_copytuple(SPI_tuptable->vals[0]);
	result = SPI_getbinval(row, SPI_tuptable->tupdesc, 1, &isnull);
	PopActiveSnapshot();
	return result;
}

/*
 * CALL voiding.execute(type text, data jsonb, timeout interval,
 * idempotency_key text, INOUT command voiding.command): sends, commits, waits
 * without a snapshot, returns the row as it is then.
 *
 * Errors: those of send_command(); 2D000 inside a transaction block; 22004.
 */
Datum
voiding_execute(PG_FUNCTION_ARGS)
{
	LOCAL_FCINFO(send, 5);
	MemoryContext caller = CurrentMemoryContext;
	TimestampTz end = end_of_wait(fcinfo, 2);
	Subject		s = {0};
	TupleDesc	desc;
	HeapTuple	row;
	Datum		value;
	bool		isnull = false;

	refuse_in_block(fcinfo, "execute", "send_command(), and wait_for_command() after the commit");
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "execute() returns a row");
	InitFunctionCallInfoData(*send, fcinfo->flinfo, 5, InvalidOid, NULL, NULL);
	send->args[0] = fcinfo->args[0];
	send->args[1] = fcinfo->args[1];
	send->args[2] = fcinfo->args[3];
	send->args[3].isnull = send->args[4].isnull = true;
	s.id = *DatumGetUUIDP(voiding_send_command(send));
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	(void) commit_and_wait(&s, end);
	value = command_row(&s.id);
	MemoryContextSwitchTo(caller);
	row = heap_form_tuple(BlessTupleDesc(desc), &value, &isnull);
	SPI_finish();
	return HeapTupleGetDatum(row);
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
