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
 * Whether a message kills the server cannot be told by a row that dies with
 * the transaction. So the batch that is being run is noted in a small file
 * before; what is found there at start is run alone, its attempt counted and
 * committed first, and dies out like any other message that fails.
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_database.h"
#include "commands/async.h"
#include "commands/extension.h"
#include "commands/prepare.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
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
#define MAX_NOTE	10000		/* messages of a batch that are noted */
#define CRASH_LIMIT	3			/* crashes that a message may cause */

bool		vd_am_worker = false;

static VdWorkerStart me;
static VdDatabase *db;
static bool parked_open = true;
static TimestampTz next_timer = 0;
static TimestampTz next_sweep = 0;

PGDLLEXPORT void voiding_worker_main(Datum arg);

/* ---- coming and going ---- */

static void
leave(int code, Datum arg)
{
	if (db && me.index < VD_MAX_WORKERS)
		pg_atomic_write_u32(&db->worker[me.index], 0);
}

static void
connect_database(void)
{
	if (OidIsValid(me.dboid))
		BackgroundWorkerInitializeConnectionByOid(me.dboid, InvalidOid, 0);
	else
		BackgroundWorkerInitializeConnection(me.dbname, NULL, 0);
}

static void
settings(void)
{
	SetConfigOption("application_name", "voiding worker", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("deadlock_timeout", "50ms", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("lock_timeout", "200ms", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("idle_in_transaction_session_timeout", "0", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_isolation", "read committed", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_read_only", "off", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("synchronous_commit", "on", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_OVERRIDE);
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

/* the version of the extension that is installed, or NULL */
static char *
installed_version(void)
{
	char	   *version = NULL;

	if (!OidIsValid(get_extension_oid("voiding", true)))
		return NULL;
	if (SPI_connect() == SPI_OK_CONNECT &&
		SPI_execute("SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'voiding'",
					true, 1) == SPI_OK_SELECT && SPI_processed == 1)
		version = MemoryContextStrdup(TopTransactionContext,
									  SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1));
	SPI_finish();
	return version;
}

/* ---- the note of what is running ---- */

static char *
note_path(void)
{
	static char path[MAXPGPATH];

	if (path[0] == '\0')
		snprintf(path, sizeof(path), "%s/voiding.%u.%d.running", PG_STAT_TMP_DIR,
				 MyDatabaseId, me.index);
	return path;
}

/* note the batch; with NIL that nothing runs any more */
static void
note_running(List *messages)
{
	static int	fd = -1;
	int64		note[1 + MAX_NOTE];
	int			n = 0;
	ListCell   *lc;

	if (fd < 0)
		fd = BasicOpenFile(note_path(), O_RDWR | O_CREAT | PG_BINARY);
	foreach(lc, messages)
		if (n < MAX_NOTE)
			note[++n] = ((VdMessage *) lfirst(lc))->seq;
	note[0] = n;
	if (fd < 0 || pg_pwrite(fd, note, sizeof(int64) * (n + 1), 0) < 0)
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", note_path())));
}

static List *suspects = NIL;	/* of int64 *: seqs that ran when we died */

static void
read_note(void)
{
	int64		note[1 + MAX_NOTE];
	int			fd = BasicOpenFile(note_path(), O_RDONLY | PG_BINARY);
	int			got;
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	got = fd < 0 ? 0 : pg_pread(fd, note, sizeof(note), 0) / (int) sizeof(int64);
	if (fd >= 0)
		close(fd);
	for (int i = 1; got > 0 && i <= note[0] && i < got; i++)
	{
		int64	   *seq = palloc(sizeof(int64));

		*seq = note[i];
		suspects = lappend(suspects, seq);
	}
	MemoryContextSwitchTo(old);
}

static int64 *
find_suspect(int64 seq)
{
	ListCell   *lc;

	foreach(lc, suspects)
		if (*(int64 *) lfirst(lc) == seq)
			return lfirst(lc);
	return NULL;
}

/* ---- transactions ---- */

static void
begin(const char *activity)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	pgstat_report_activity(STATE_RUNNING, activity);
}

static void
end(void)
{
	if (ActiveSnapshotSet())
		PopActiveSnapshot();
	CommitTransactionCommand();
	pgstat_report_stat(false);
	pgstat_report_activity(STATE_IDLE, NULL);
}

/* what handlers left behind in this session */
static void
clean_session(void)
{
	DropAllPreparedStatements();
	Async_UnlistenAll();
	LockReleaseAll(USER_LOCKMETHOD, true);
	ResetTempTableNamespace();
	PortalHashTableDeleteAll();
}

static void
slow_down(void)
{
	if (vd_slow_down > 0)
		(void) WaitLatch(NULL, WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, vd_slow_down,
						 PG_WAIT_EXTENSION);
	CHECK_FOR_INTERRUPTS();
}

/*
 * Of the messages that were running when this worker or the server died, count
 * an attempt, in a transaction of its own, so that one which kills again is
 * given up in time.
 */
static void
count_suspects(void)
{
	TimestampTz unused = VD_NEVER;
	ListCell   *lc;

	foreach(lc, vd_queue_take(INT_MAX, &unused))
	{
		VdMessage  *m = lfirst(lc);

		if (!find_suspect(m->seq))
		{
			vd_queue_delay(m, 0);
			continue;
		}
		vd_delete(VD_OUTBOX, &m->tid);
		m->attempts++;
		m->error = "57P02: the server or the worker ended while this message was being handled";
		if (m->attempts < Min(vd_retry_limit, CRASH_LIMIT))
			vd_outbox_retry(m, vd_now());
		else
			vd_give_up(m, "57P02");
	}
}

/* of a batch, only the first suspect, if there is one */
static List *
suspect_alone(List *messages)
{
	int64	   *seq = NULL;
	ListCell   *lc;

	foreach(lc, messages)
		if ((seq = find_suspect(((VdMessage *) lfirst(lc))->seq)) != NULL)
			break;
	if (seq == NULL)
		return messages;
	suspects = list_delete_ptr(suspects, seq);
	foreach(lc, messages)
		if (((VdMessage *) lfirst(lc))->seq != *seq)
		{
			vd_queue_delay(lfirst(lc), 0);
			messages = foreach_delete_current(messages, lc);
		}
	return messages;
}

/*
 * One batch and what follows from it, in one transaction; how many messages.
 * next_due is lowered to when a message that has to wait may run.
 */
static int
run_messages(int limit, TimestampTz *next_due)
{
	int			done = 0;

	for (int round = 0; round < (vd_slow_down > 0 ? 1 : MAX_ROUNDS); round++)
	{
		List	   *messages = vd_queue_take(limit, next_due);

		if (messages == NIL)
		{
			if (round == 0)
				suspects = NIL;	/* the rest of them is not there any more */
			break;
		}
		if (suspects != NIL)
			messages = suspect_alone(messages);
		slow_down();
		note_running(messages);
		done += vd_run_batch(messages);
		vd_queue_follow();
		if (suspects != NIL)
			break;
	}
	return done;
}

static bool
timers_are_due(void)
{
	if (me.index != 0)
		return false;
	if (db)
		next_timer = Min(next_timer, (int64) pg_atomic_read_u64(&db->timer_due));
	return next_timer <= vd_now();
}

static TimestampTz
first_timer(void)
{
	TimestampTz first = VD_NEVER;
	bool		isnull = true;

	if (db)
		pg_atomic_write_u64(&db->timer_due, (uint64) VD_NEVER);
	if (SPI_connect() == SPI_OK_CONNECT &&
		SPI_execute("SELECT min(due_at) FROM voiding.timer", true, 1) == SPI_OK_SELECT)
	{
		Datum		d = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);

		if (!isnull)
			first = DatumGetTimestampTz(d);
	}
	SPI_finish();
	return first;
}

/* deadlines and parked events are the first worker's; how many there were */
static int
run_due(void)
{
	int			done = 0;
	bool		flagged = db && pg_atomic_exchange_u32(&db->parked, 0);

	if (timers_are_due())
	{
		next_timer = first_timer();
		done = vd_run_timers(vd_batch_size);
		if (done >= vd_batch_size)
			next_timer = 0;
	}
	if (me.index == 0 && (flagged || (parked_open && next_sweep <= GetCurrentTimestamp())))
	{
		done += vd_run_parked(vd_batch_size);
		parked_open = vd_parked_open();
		next_sweep = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), PARK_EVERY);
	}
	return done;
}

/* ---- the loop ---- */

typedef struct Look
{
	uint64		generation;		/* of the database, when we looked last */
	uint64		definitions;
	bool		running;		/* transactions were in progress then */
	int			soon;			/* ms until the next look for their sake */
	TimestampTz next_due;		/* of messages that wait */
	int			limit;			/* messages to a batch */
} Look;

static void
look(Look *l)
{
	uint64		definitions = vd_definitions_generation();

	if (definitions != l->definitions)
	{
		vd_queue_forget();
		l->definitions = definitions;
	}
	vd_queue_own(me.index, me.workers);
	if (db)
		l->generation = pg_atomic_read_u64(&db->generation);
	l->running = vd_queue_look();
}

/* one transaction; how much was done */
static int
turn(Look *l)
{
	int			done;

	l->next_due = VD_NEVER;
	begin("voiding: looking");
	look(l);
	if (suspects != NIL)
	{
		count_suspects();
		end();
		vd_queue_end(true);
		begin("voiding: looking");
		look(l);
	}
	done = run_due();
	done += run_messages(l->limit, &l->next_due);
	end();
	vd_queue_end(true);
	if (done > 0)
	{
		note_running(NIL);
		begin("voiding: cleaning up");
		clean_session();
		end();
		l->limit = Min(l->limit * 2, vd_slow_down > 0 ? 1 : vd_batch_size);
	}
	vd_send_hints();
	return done;
}

/* after an error: everything is read again, and smaller batches are tried */
static void
recover(Look *l)
{
	HOLD_INTERRUPTS();
	EmitErrorReport();
	AbortCurrentTransaction();
	FlushErrorState();
	vd_queue_end(false);
	vd_queue_forget();
	pgstat_report_activity(STATE_IDLE, NULL);
	l->limit = Max(1, l->limit / 2);
	RESUME_INTERRUPTS();
}

static long
until(TimestampTz when)
{
	return when == VD_NEVER ? PG_INT32_MAX
		: Max(0, TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
												 when - (vd_now() - GetCurrentTimestamp())));
}

static void
rest(Look *l, long at_most)
{
	long		ms = Min(vd_look_every, at_most);

	if (!vd_queue_owns_all(me.index, me.workers) || db == NULL)
		ms = Min(ms, 100);
	if (l->running)
	{
		l->soon = Min(Max(l->soon * 2, SOON_FIRST), SOON_LAST);
		ms = Min(ms, l->soon);
	}
	else
		l->soon = 0;
	if (parked_open && me.index == 0)
		ms = Min(ms, PARK_EVERY);
	ms = Min(ms, Min(until(l->next_due), me.index == 0 ? until(next_timer) : ms));
	if (db && pg_atomic_read_u64(&db->generation) != l->generation)
		return;
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, ms,
					 PG_WAIT_EXTENSION);
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
	if (ShutdownRequestPending || (db && pg_atomic_read_u32(&db->stopped)))
		proc_exit(0);
	if (checked != 0 && GetCurrentTimestamp() - checked < USECS_PER_SEC)
		return;
	checked = GetCurrentTimestamp();
	begin("voiding: checking");
	if (is_in_the_way())
		proc_exit(0);
	now = installed_version();
	if (now == NULL || (version && strcmp(version, now) != 0))
		proc_exit(0);			/* dropped or updated: the launcher decides */
	if (version == NULL)
		version = MemoryContextStrdup(TopMemoryContext, now);
	end();
}

static void
work(void)
{
	Look		l = {.limit = vd_batch_size};
	MemoryContext loop = AllocSetContextCreate(TopMemoryContext, "voiding worker",
											   ALLOCSET_DEFAULT_SIZES);

	for (;;)
	{
		int			done = 0;
		volatile bool failed = false;

		MemoryContextSwitchTo(loop);
		MemoryContextReset(loop);
		PG_TRY();
		{
			check_still_wanted();
			done = turn(&l);
		}
		PG_CATCH();
		{
			recover(&l);
			failed = true;
		}
		PG_END_TRY();
		if (done == 0)
			rest(&l, failed ? 1000 : vd_look_every);
	}
}

/*
 * Entry point of a worker. bgw_extra: a VdWorkerStart.
 */
void
voiding_worker_main(Datum arg)
{
	memcpy(&me, MyBgworkerEntry->bgw_extra, sizeof(me));
	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	connect_database();
	settings();
	vd_am_worker = true;
	begin("voiding: starting");
	if (installed_version() == NULL)
		proc_exit(0);
	end();
	db = vd_my_database();
	before_shmem_exit(leave, (Datum) 0);
	if (db)
		pg_atomic_write_u32(&db->worker[me.index], vd_my_procno() + 1);
	if (db && me.place >= 0)
		pg_atomic_write_u32(&vd_shared()->place[me.place], MyDatabaseId);
	read_note();
	work();
}
