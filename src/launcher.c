/*
 * launcher.c
 *	  Starts workers and keeps them running.
 *
 * A launcher has no database connection, so that it never is in the way of
 * DROP DATABASE. With the library preloaded there is one, for the databases
 * of voiding.databases; start_workers() without preload starts one for its
 * database. Both come back after a crash of the server (the postmaster does
 * that); after a restart without preload the first message that is queued
 * brings them back.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/dbcommands.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/varlena.h"
#include "utils/wait_event.h"

#include "voiding.h"
#include "shared.h"
#include "worker.h"

#define FIRST_BACKOFF	500		/* ms before a worker that has ended is started again */
#define LAST_BACKOFF	30000
#define LOOK_EVERY		1000	/* ms */
#define GIVE_UP_AFTER	8		/* ends in a row, for a database that may be gone */
#define START_TIMEOUT	10000	/* ms that start_workers() waits */

PG_FUNCTION_INFO_V1(voiding_launch);
PG_FUNCTION_INFO_V1(voiding_stop);
PGDLLEXPORT void voiding_launcher_main(Datum arg);

typedef struct Place			/* of one worker */
{
	VdWorkerStart start;
	BackgroundWorkerHandle *handle;
	TimestampTz started_at;
	TimestampTz again_at;
	int			backoff;
	int			ends;			/* in a row */
} Place;

static Place *places = NULL;
static int	nplaces = 0;
static bool one_database = false;	/* started by start_workers() */

/* ---- starting workers ---- */

static bool
register_worker(Place *p)
{
	BackgroundWorker w = {0};

	snprintf(w.bgw_name, BGW_MAXLEN, "voiding worker %d", p->start.index + 1);
	snprintf(w.bgw_type, BGW_MAXLEN, "voiding worker");
	snprintf(w.bgw_library_name, BGW_MAXLEN, "voiding");
	snprintf(w.bgw_function_name, BGW_MAXLEN, "voiding_worker_main");
	w.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	w.bgw_start_time = BgWorkerStart_RecoveryFinished;
	w.bgw_restart_time = BGW_NEVER_RESTART;
	w.bgw_notify_pid = MyProcPid;
	memcpy(w.bgw_extra, &p->start, sizeof(p->start));
	return RegisterDynamicBackgroundWorker(&w, &p->handle);
}

static VdDatabase *
database_of(const Place *p)
{
	Oid			dboid = p->start.dboid;

	if (p->start.place >= 0 && vd_shared())
		dboid = pg_atomic_read_u32(&vd_shared()->place[p->start.place]);
	return OidIsValid(dboid) ? vd_shared_database(dboid, true) : NULL;
}

static void
start_place(Place *p)
{
	VdDatabase *db = database_of(p);

	p->started_at = GetCurrentTimestamp();
	if (register_worker(p))
	{
		if (db)
			pg_atomic_write_u32(&db->no_slot, 0);
		return;
	}
	p->handle = NULL;
	p->again_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LAST_BACKOFF / 3);
	if (db == NULL || pg_atomic_exchange_u32(&db->no_slot, 1) == 0)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no background worker slot is free for voiding"),
				 errhint("Increase max_worker_processes, and restart the server.")));
}

/* a worker has ended: when to start it again */
static void
note_end(Place *p)
{
	VdDatabase *db = database_of(p);
	TimestampTz now = GetCurrentTimestamp();

	pfree(p->handle);
	p->handle = NULL;
	if (now - p->started_at > 10 * USECS_PER_SEC)
		p->ends = p->backoff = 0;
	p->ends++;
	p->backoff = Min(Max(p->backoff * 2, FIRST_BACKOFF), LAST_BACKOFF);
	p->again_at = TimestampTzPlusMilliseconds(now, p->backoff);
	if (db)
		pg_atomic_fetch_add_u32(&db->restarts, 1);
}

static bool
is_stopped(const Place *p)
{
	VdDatabase *db = database_of(p);

	return db && pg_atomic_read_u32(&db->stopped);
}

static void
tend(Place *p)
{
	pid_t		pid;

	if (p->handle && GetBackgroundWorkerPid(p->handle, &pid) == BGWH_STOPPED)
		note_end(p);
	if (p->handle == NULL && !is_stopped(p) && GetCurrentTimestamp() >= p->again_at)
		start_place(p);
}

/* a launcher of one database ends with it, or when it is told to */
static bool
nothing_left(void)
{
	if (!one_database)
		return false;
	for (int i = 0; i < nplaces; i++)
		if (places[i].handle || (!is_stopped(&places[i]) && places[i].ends < GIVE_UP_AFTER))
			return false;
	return true;
}

/* ---- the launcher ---- */

static void
add_places(const VdWorkerStart *like)
{
	int			n = Min(like->workers, VD_MAX_WORKERS);

	places = places ? repalloc(places, sizeof(Place) * (nplaces + n)) : palloc(sizeof(Place) * n);
	for (int i = 0; i < n; i++)
	{
		Place	   *p = &places[nplaces++];

		memset(p, 0, sizeof(*p));
		p->start = *like;
		p->start.index = i;
		p->start.workers = n;
		p->start.place = one_database ? -1 : nplaces - 1;
	}
}

static void
places_from_settings(void)
{
	char	   *names = pstrdup(vd_databases);
	List	   *list;
	ListCell   *lc;

	if (!SplitIdentifierString(names, ',', &list))
	{
		ereport(LOG,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("voiding.databases is not a list of database names: \"%s\"", vd_databases)));
		return;
	}
	foreach(lc, list)
	{
		VdWorkerStart start = {.workers = vd_workers};

		if (nplaces + vd_workers > VD_PLACES)
		{
			ereport(LOG,
					(errmsg("voiding.databases and voiding.workers ask for more than %d workers",
							VD_PLACES)));
			break;
		}

		strlcpy(start.dbname, lfirst(lc), NAMEDATALEN);
		add_places(&start);
	}
}

static void
leave(int code, Datum arg)
{
	for (int i = 0; i < nplaces; i++)
	{
		VdDatabase *db = database_of(&places[i]);

		if (db)
			pg_atomic_write_u32(&db->launcher, 0);
	}
}

/*
 * Entry point. bgw_main_arg: 0 for the databases of the settings; else
 * bgw_extra says which.
 */
void
voiding_launcher_main(Datum arg)
{
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	one_database = DatumGetInt32(arg) != 0;
	if (one_database)
	{
		VdWorkerStart start;
		VdDatabase *db;

		memcpy(&start, MyBgworkerEntry->bgw_extra, sizeof(start));
		add_places(&start);
		db = vd_shared_database(start.dboid, true);
		if (db)
		{
			pg_atomic_write_u32(&db->launcher, vd_my_procno() + 1);
			pg_atomic_write_u32(&db->wanted, start.workers);
		}
		before_shmem_exit(leave, (Datum) 0);
	}
	else
	{
		places_from_settings();
		if (vd_shared())
			pg_atomic_write_u32(&vd_shared()->launcher, vd_my_procno() + 1);
	}

	while (!ShutdownRequestPending && !nothing_left())
	{
		for (int i = 0; i < nplaces; i++)
			tend(&places[i]);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, LOOK_EVERY,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
	for (int i = 0; i < nplaces; i++)
		if (places[i].handle)
			TerminateBackgroundWorker(places[i].handle);
	proc_exit(ShutdownRequestPending ? 1 : 0);
}

static void
fill_launcher(BackgroundWorker *w)
{
	memset(w, 0, sizeof(*w));
	snprintf(w->bgw_name, BGW_MAXLEN, "voiding launcher");
	snprintf(w->bgw_type, BGW_MAXLEN, "voiding launcher");
	snprintf(w->bgw_library_name, BGW_MAXLEN, "voiding");
	snprintf(w->bgw_function_name, BGW_MAXLEN, "voiding_launcher_main");
	w->bgw_flags = BGWORKER_SHMEM_ACCESS;
	w->bgw_start_time = BgWorkerStart_RecoveryFinished;
	w->bgw_restart_time = 1;
}

/* at preload */
void
vd_launcher_init(void)
{
	BackgroundWorker w;

	if (vd_databases == NULL || *vd_databases == '\0' || vd_workers == 0)
		return;
	fill_launcher(&w);
	RegisterBackgroundWorker(&w);
}

static bool
launch(int workers)
{
	BackgroundWorker w;
	VdWorkerStart start = {.dboid = MyDatabaseId,.workers = workers};

	fill_launcher(&w);
	w.bgw_main_arg = Int32GetDatum(1);
	memcpy(w.bgw_extra, &start, sizeof(start));
	return RegisterDynamicBackgroundWorker(&w, NULL);
}

/*
 * Workers were wanted for this database and none is there, as after a restart
 * of the server without preload: start them. Called before a commit that has
 * queued something; tries once a minute and session.
 */
void
vd_launcher_bring_back(void)
{
	static TimestampTz tried = 0;
	VdDatabase *db = vd_my_database();
	TimestampTz now = GetCurrentTimestamp();

	if (!vd_autostart || vd_workers == 0 || db == NULL || vd_is_served(db) ||
		pg_atomic_read_u32(&db->launcher) || pg_atomic_read_u32(&db->stopped) ||
		RecoveryInProgress() || (tried != 0 && now - tried < 60 * USECS_PER_SEC))
		return;
	tried = now;
	(void) launch(vd_workers);
}

/* ---- start_workers(), stop_workers() ---- */

static int
serving(VdDatabase *db)
{
	int			n = 0;

	for (int i = 0; i < VD_MAX_WORKERS; i++)
		n += pg_atomic_read_u32(&db->worker[i]) != 0;
	return n;
}

static bool
wait_for_workers(VdDatabase *db, int n)
{
	TimestampTz end = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), START_TIMEOUT);

	while (serving(db) != n || (n == 0 && pg_atomic_read_u32(&db->launcher)))
	{
		if (GetCurrentTimestamp() > end || (n > 0 && pg_atomic_read_u32(&db->no_slot)))
			return false;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 10,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	return true;
}

static VdDatabase *
my_database_or_error(void)
{
	VdDatabase *db = vd_my_database();

	if (db == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("voiding has no room in shared memory for this database"),
				 errdetail("It serves up to %d databases.", VD_DATABASES),
				 errhint("Add voiding to shared_preload_libraries, and restart the server.")));
	return db;
}

/* how many workers the preloaded launcher has for this database */
static int
preloaded(void)
{
	VdShared   *s = vd_shared();
	int			n = 0;

	for (int i = 0; s && i < VD_PLACES; i++)
		n += pg_atomic_read_u32(&s->place[i]) == MyDatabaseId;
	return n;
}

static void
stop_all(VdDatabase *db)
{
	pg_atomic_write_u32(&db->stopped, 1);
	vd_wake_process(&db->launcher);
	for (int i = 0; i < VD_MAX_WORKERS; i++)
		vd_wake_process(&db->worker[i]);
	(void) wait_for_workers(db, 0);
}

/*
 * voiding.launch(n int) RETURNS int, internal (start_workers() calls it): run
 * n workers for this database; those that run are stopped first if they are
 * not as many. Returns how many run.
 *
 * Errors: 22023; 53400 no room in shared memory, no worker slot free; 25006
 * on a standby.
 */
Datum
voiding_launch(PG_FUNCTION_ARGS)
{
	int			n = PG_GETARG_INT32(0);
	VdDatabase *db = my_database_or_error();

	if (n < 1 || n > VD_MAX_WORKERS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the number of workers must be 1 to %d", VD_MAX_WORKERS)));
	if (preloaded() > 0)
	{
		n = preloaded();		/* voiding.workers decides */
		pg_atomic_write_u32(&db->stopped, 0);
		vd_wake_process(&vd_shared()->launcher);
		(void) wait_for_workers(db, n);
		PG_RETURN_INT32(serving(db));
	}
	if (serving(db) == n)
		PG_RETURN_INT32(n);
	if (serving(db) > 0 || pg_atomic_read_u32(&db->launcher))
		stop_all(db);
	pg_atomic_write_u32(&db->no_slot, 0);
	pg_atomic_write_u32(&db->stopped, 0);
	if (!launch(n) || !wait_for_workers(db, n))
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("the workers did not start: %d of %d run", serving(db), n),
				 errhint("Look into the server's log; there may be no free worker slot (max_worker_processes; one for the launcher, one for each worker).")));
	PG_RETURN_INT32(n);
}

/*
 * voiding.stop() RETURNS void, internal (stop_workers() calls it).
 */
Datum
voiding_stop(PG_FUNCTION_ARGS)
{
	stop_all(my_database_or_error());
	PG_RETURN_VOID();
}
