/*
 * worker.c
 *	  A background worker: takes what is due from the outbox, runs it, fires
 *	  deadlines, delivers parked events, sends hints, sleeps until woken.
 *
 * It is one of N for its database and owns every Nth bucket of ordering keys,
 * so that it is alone with its messages. A batch and what it brings about are
 * one transaction. Nothing that it needs is kept but in tables: it may die at
 * any instruction.
 *
 * The first worker also lets deadlines pass and joins parked events, in
 * transactions of their own.
 */
#include "postgres.h"

#include "access/twophase.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "replication/slot.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/pmsignal.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "utils/wait_event.h"

#include "voiding.h"
#include "queue.h"
#include "shared.h"
#include "worker.h"

#define SOON_FIRST	2			/* ms; looking again while transactions are running */
#define SOON_LAST	200
#define PARK_EVERY	200			/* ms between sweeps while parked events are new */
#define MAX_ROUNDS	8			/* of follow-ups in one transaction */
#define HINT_EVERY	20			/* ms between NOTIFYs while there is much to do */
#define LOCKED		200			/* ms until deadlines of locked processes are tried again */
#define AFTER_ERROR	1000		/* ms */
#define PATIENCE	200			/* ms that a lock is waited for */
#define CAUTIOUS	50			/* the same, after one was not to be had */
#define IMPATIENCE	20			/* and by a message that could not have one before */
#define FORGET_EVERY	(60 * USECS_PER_SEC)	/* between looks at all deadlines */
#define LOOK_EVERY	Min(vd_look_every, 2 * CHECK_EVERY)	/* ms */
#define CHECK_EVERY	1000		/* ms; is this worker wanted? */

bool		vd_am_worker = false;

static VdWorkerStart me;
static VdDatabase *db;
static bool parked_open = true;
static TimestampTz next_timer = 0;	/* no deadline and no expiry is due before */
static TimestampTz first_timer = DT_NOBEGIN;	/* no deadline is left before */
static TimestampTz next_sweep = 0;
static bool unsure = false;		/* a transaction was prepared: it may bring in what was missed */

PGDLLEXPORT void voiding_worker_main(Datum arg);

/* ---- coming and going ---- */

/* The locks of the buckets would outlive this process if it did not give them back. */
static void
leave(int code, Datum arg)
{
	AbortOutOfAnyTransaction();
	LockReleaseAll(DEFAULT_LOCKMETHOD, true);
	if (db)
		pg_atomic_write_u32(&db->worker[me.index], 0);
}

/* take this worker's place; false: another set of workers is there */
static bool
arrive(void)
{
	uint32		none = 0;

	db = vd_claim_database(MyDatabaseId);
	if (db && !pg_atomic_compare_exchange_u32(&db->worker[me.index], &none, vd_my_procno() + 1))
		return false;
	before_shmem_exit(leave, (Datum) 0);
	if (db)
		pg_atomic_fetch_add_u32(&db->lives[me.index], 1);
	return true;
}

static void
wait_for_locks(int ms)
{
	static int	set = 0;

	if (ms != set)
		SetConfigOption("lock_timeout", psprintf("%d", set = ms), PGC_USERSET, PGC_S_OVERRIDE);
}

static void
settings(void)
{
	SetConfigOption("application_name", "voiding worker", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("deadlock_timeout", "50ms", PGC_SUSET, PGC_S_OVERRIDE);
	wait_for_locks(PATIENCE);
	SetConfigOption("idle_in_transaction_session_timeout", "0", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_isolation", "read committed", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_read_only", "off", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("synchronous_commit", "on", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("jit", "off", PGC_USERSET, PGC_S_OVERRIDE);
}

/*
 * Somebody wants this database for himself (DROP DATABASE, or CREATE DATABASE
 * with it as template): those hold a lock that keeps new sessions out.
 */
static bool
is_in_the_way(void)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, InvalidOid, DatabaseRelationId, MyDatabaseId, 0);
	if (LockAcquire(&tag, RowExclusiveLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
		return true;
	LockRelease(&tag, RowExclusiveLock, false);
	return false;
}

/* ---- transactions ---- */

void
vd_worker_begin(const char *activity)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	pgstat_report_activity(STATE_RUNNING, activity);
}

void
vd_worker_end(void)
{
	if (ActiveSnapshotSet())
		PopActiveSnapshot();
	CommitTransactionCommand();
	pgstat_report_stat(false);
	pgstat_report_activity(STATE_IDLE, NULL);
}

/* so that a person can watch */
static void
slow_down(void)
{
	TimestampTz end = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), vd_slow_down);

	while (GetCurrentTimestamp() < end)
	{
		CHECK_FOR_INTERRUPTS();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 TimestampDifferenceMilliseconds(GetCurrentTimestamp(), end) + 1,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}

/*
 * One batch and what follows from it, in one transaction; how many messages.
 * next_due is lowered to when a message that has to wait may run.
 */
static int
run_messages(int limit, TimestampTz *next_due)
{
	bool		cautious = limit < vd_batch_size && vd_slow_down == 0;
	int			done = 0;
	List	   *ran = NIL;

	for (int round = 0; round < MAX_ROUNDS; round++)
	{
		VdTake		which = round > 0 ? VD_KEPT : cautious ? VD_AGAIN : VD_NEXT;
		List	   *messages = vd_suspects_alone(vd_queue_take(limit, which, next_due));
		bool		alone = vd_suspects_left() || vd_slow_down > 0;

		if (messages == NIL)
			break;
		slow_down();
		ran = list_concat(ran, messages);
		vd_note_running(ran);
		wait_for_locks(vd_queue_is_lost(linitial(messages)) ? IMPATIENCE :
					   cautious ? CAUTIOUS : PATIENCE);
		if (round == 0 && !alone)
			vd_queue_keeping(true);
		done += vd_run_batch(messages);
		done += vd_contended;	/* which that call has set */
		if (alone || vd_contended > 0)
			break;				/* commit that */
	}
	vd_queue_write_kept();
	return done;
}

static TimestampTz
read_next_due(void)
{
	TimestampTz next = VD_NEVER;
	Oid			type = TIMESTAMPTZOID;
	Datum		since = TimestampTzGetDatum(first_timer);
	bool		isnull = true;
	Datum		d;

	if (SPI_connect() != SPI_OK_CONNECT ||
		SPI_execute_with_args("SELECT voiding.next_due($1)", 1, &type, &since, NULL, false,
							  1) != SPI_OK_SELECT)
		elog(ERROR, "could not look for the next deadline");
	d = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (!isnull && !TIMESTAMP_IS_NOEND(DatumGetTimestampTz(d)))
		next = DatumGetTimestampTz(d);
	SPI_finish();
	return next;
}

/* When the next deadline passes or parked event expires. */
static TimestampTz
find_next_due(void)
{
	TimestampTz next;

	vd_worker_begin("voiding: looking for deadlines");
	next = read_next_due();
	vd_worker_end();
	if (!unsure)
		first_timer = next;
	return next;
}

/*
 * Deadlines that others have set they put into shared memory after their
 * commit, or with PREPARE: taken out before the snapshot, so that they are in
 * the one or in the other.
 */
static void
hear_of_deadlines(void)
{
	static TimestampTz forgot = 0;
	TimestampTz told = db ? pg_atomic_exchange_u64(&db->timer_due, (uint64) VD_NEVER) : VD_NEVER;

	next_timer = Min(next_timer, told);
	first_timer = Min(first_timer, told);
	if (db == NULL || GetCurrentTimestamp() - forgot > FORGET_EVERY)
	{
		first_timer = DT_NOBEGIN;	/* those that nobody told of, too: a restore */
		forgot = GetCurrentTimestamp();
	}
}

/* is a transaction of this database prepared? */
static bool
any_prepared(void)
{
	bool		any;

	if (max_prepared_xacts == 0)
		return false;
	vd_worker_begin("voiding: looking for prepared transactions");
	if (SPI_connect() != SPI_OK_CONNECT ||
		SPI_execute("SELECT FROM pg_catalog.pg_prepared_xacts WHERE database = current_database()",
					true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not look for prepared transactions");
	any = SPI_processed > 0;
	SPI_finish();
	vd_worker_end();
	return any;
}

/*
 * COMMIT PREPARED tells nobody of the deadlines and parked events that it
 * brings in: look at them again, though not all the time.
 */
static bool
may_have_missed(void)
{
	static TimestampTz looked = 0;
	TimestampTz now = GetCurrentTimestamp();

	if (!unsure || now - looked < CHECK_EVERY * 1000)
		return false;
	looked = now;
	return true;
}

/* deadlines and parked events, which are the first worker's; how many */
static int
run_due(void)
{
	int			done = 0;
	bool		due;
	bool		sweep;

	if (me.index != 0)
		return 0;
	if (may_have_missed())
		next_timer = 0;
	hear_of_deadlines();
	due = next_timer <= vd_now();
	sweep = db && pg_atomic_exchange_u32(&db->parked, 0);
	if (due || sweep)
		unsure = any_prepared();	/* before the snapshots of what follows */
	if (due)
	{
		vd_worker_begin("voiding: deadlines");
		done += vd_run_timers(vd_batch_size, first_timer);
		vd_worker_end();
	}
	if (due || sweep || (parked_open && next_sweep <= GetCurrentTimestamp()))
	{
		vd_worker_begin("voiding: parked events");
		done += vd_run_parked(vd_batch_size);
		parked_open = vd_parked_open();
		vd_worker_end();
		next_sweep = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), PARK_EVERY);
	}
	if (due)
	{
		next_timer = find_next_due();
		if (done == 0 && next_timer <= vd_now())	/* somebody has them locked */
			next_timer = TimestampTzPlusMilliseconds(vd_now(), LOCKED);
	}
	return done;
}

/* ---- the loop ---- */

typedef struct Look
{
	uint64		generation;		/* of the database, when we looked last */
	uint64		definitions;
	TimestampTz everywhere_at;	/* when to look also where nobody has told us to */
	int			soon;			/* ms until then, while transactions are in progress */
	TimestampTz next_due;		/* of messages that wait */
	int			limit;			/* messages to a batch */
} Look;

/* what was remembered to be looked at later, would be much later */
static void
notice_clock_back(Look *l)
{
	static TimestampTz last = 0;
	TimestampTz now = vd_now();

	if (now < last)
	{
		vd_queue_forget();
		next_timer = next_sweep = l->everywhere_at = 0;
	}
	last = now;
}

/*
 * Look where somebody has written; and now and then everywhere, since COMMIT
 * PREPARED tells nobody: soon while transactions are in progress.
 */
static void
look_for_messages(Look *l)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		everywhere = db == NULL || l->everywhere_at <= now;
	uint64		written = db ? pg_atomic_fetch_and_u64(&db->written, ~vd_queue_owned()) : 0;
	bool		running = vd_queue_look(everywhere ? PG_UINT64_MAX : written);

	if (!everywhere && (!running || l->soon > 0))
		return;
	l->soon = running ? Min(Max(l->soon * 2, SOON_FIRST), SOON_LAST) : 0;
	l->everywhere_at = TimestampTzPlusMilliseconds(now, running ? Min(l->soon, LOOK_EVERY) : LOOK_EVERY);
}

static void
look(Look *l)
{
	uint64		definitions = vd_definitions_generation();

	notice_clock_back(l);
	if (definitions != l->definitions)
	{
		vd_queue_forget();
		l->definitions = definitions;
	}
	vd_queue_own(me.index, me.workers);
	if (db && (pg_atomic_fetch_and_u64(&db->repaired, ~vd_queue_owned()) & vd_queue_owned()))
		vd_queue_forget();
	if (db)
		l->generation = pg_atomic_read_u64(&db->generation);
	look_for_messages(l);
}

/* at once when there is nothing else to do, else now and then */
static void
send_hints(bool busy)
{
	static TimestampTz sent = 0;
	TimestampTz now = GetCurrentTimestamp();

	if (busy && now - sent < HINT_EVERY * 1000)
		return;
	vd_send_hints();
	sent = now;
}

/* one transaction; how much was done */
static int
turn(Look *l)
{
	int			due;
	int			done;

	if (vd_suspects_uncounted())
	{
		vd_worker_begin("voiding: repairing");
		look(l);
		vd_suspects_count();
		vd_worker_end();
		vd_queue_end();
	}
	due = run_due();
	l->next_due = VD_NEVER;
	vd_worker_begin("voiding: handling");
	look(l);
	done = run_messages(vd_slow_down > 0 ? 1 : l->limit, &l->next_due);
	vd_worker_end();
	vd_queue_end();
	if (done > 0)
	{
		vd_note_running(NIL);
		LockReleaseAll(USER_LOCKMETHOD, true);	/* session locks of handlers */
		if (vd_contended > 0)
			l->limit = Max(1, vd_contended / 2);
		else
			l->limit = Min(l->limit + l->limit / 4 + 1, vd_batch_size);
	}
	send_hints(due + done > 0);
	return due + done;
}

/* after an error: buckets are owned and read again, and smaller batches tried */
static void
recover(Look *l)
{
	HOLD_INTERRUPTS();
	EmitErrorReport();
	AbortCurrentTransaction();
	if (MyReplicationSlot)
		ReplicationSlotRelease();	/* that was being made: no abort does that */
	FlushErrorState();
	vd_queue_keeping(false);
	vd_queue_disown();
	pgstat_report_activity(STATE_IDLE, NULL);
	l->limit = Max(1, l->limit / 2);
	RESUME_INTERRUPTS();
}

static long
until(TimestampTz when)
{
	return when == VD_NEVER ? PG_INT32_MAX : Max(0, TimestampDifferenceMilliseconds(GetCurrentTimestamp(), when - (vd_now() - GetCurrentTimestamp())));
}

static void
rest(Look *l, bool failed)
{
	long		ms = Min(TimestampDifferenceMilliseconds(GetCurrentTimestamp(), l->everywhere_at), LOOK_EVERY);

	if (!vd_queue_owns_all(me.index, me.workers) || db == NULL)
		ms = Min(ms, 100);
	if (parked_open && me.index == 0)
		ms = Min(ms, PARK_EVERY);
	ms = Min(ms, Min(until(l->next_due), me.index == 0 ? until(next_timer) : ms));
	if (failed)
	{
		ms = AFTER_ERROR;		/* what is due stays due, and is not met in a circle */
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	if (!failed && db && pg_atomic_read_u64(&db->generation) != l->generation)
		return;
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, ms, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
}

static void
check_still_wanted(void)
{
	static char *version = NULL;
	static TimestampTz checked = 0;
	char	   *now;

	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
	if (!PostmasterIsAlive())
		proc_exit(1);
	if (db && pg_atomic_read_u32(&db->stopped))
		proc_exit(0);
	if (checked != 0 && GetCurrentTimestamp() - checked < CHECK_EVERY * 1000)
		return;
	checked = GetCurrentTimestamp();
	vd_worker_begin("voiding: checking");
	if (is_in_the_way())
		proc_exit(0);
	now = vd_installed_version();
	if (now == NULL || (version && strcmp(version, now) != 0))
		proc_exit(0);			/* dropped or updated: the launcher decides */
	if (version == NULL)
		version = MemoryContextStrdup(TopMemoryContext, now);
	vd_worker_end();
}

static void
work(void)
{
	Look		l = {.limit = vd_batch_size};
	MemoryContext loop = AllocSetContextCreate(TopMemoryContext, "voiding worker", ALLOCSET_DEFAULT_SIZES);

	for (;;)
	{
		int			done = 0;
		volatile bool failed = false;

		MemoryContextSwitchTo(loop);
		MemoryContextReset(loop);
		PG_TRY();
		{
			check_still_wanted();
			if (me.index == 0)
				vd_watch_connections();
			done = turn(&l);
		}
		PG_CATCH();
		{
			recover(&l);
			failed = true;
		}
		PG_END_TRY();
		if (done == 0)
			rest(&l, failed);
	}
}

/* is the extension there? If not, a launcher of this database alone ends. */
static bool
is_installed(void)
{
	bool		installed;

	vd_worker_begin("voiding: starting");
	installed = vd_installed_version() != NULL;
	vd_worker_end();
	if (!installed && vd_my_database())
		pg_atomic_write_u32(&vd_my_database()->absent, 1);
	return installed;
}

/*
 * Entry point of a worker. bgw_extra: a VdWorkerStart.
 */
void
voiding_worker_main(Datum arg)
{
	memcpy(&me, MyBgworkerEntry->bgw_extra, sizeof(me));
	pqsignal(SIGTERM, die);
	pqsignal(SIGQUIT, vd_note_innocent);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(me.dboid, InvalidOid, 0);
	settings();
	vd_am_worker = true;
	if (!is_installed() || !arrive())
		proc_exit(0);
	vd_suspects_read(me.index, me.workers);
	work();
}
