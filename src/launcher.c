/*
 * launcher.c
 *	  Starts workers and keeps them running.
 *
 * With the library preloaded there is one launcher, for the databases of
 * voiding.databases; without, start_workers() starts one for its database.
 * Both come back after a crash of the server (the postmaster does that);
 * after a restart without preload the first message that is queued brings
 * them back. A launcher is connected to no database, so that it never is in
 * the way of DROP DATABASE; it only reads which there are.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/varlena.h"
#include "utils/wait_event.h"

#include "voiding.h"
#include "shared.h"
#include "worker.h"

#define AGAIN			500		/* ms until a worker that has worked is started again */
#define LAST_BACKOFF	30000	/* and one that cannot even begin; doubling */
#define LOOK_EVERY		1000	/* ms */
#define ABSENT			10000	/* ms until a database that is not there is looked for */

PGDLLEXPORT void voiding_launcher_main(Datum arg);

typedef struct Slot				/* of one worker */
{
	BackgroundWorkerHandle *handle;
	TimestampTz again_at;
	int			backoff;
	uint32		lives;			/* how often it had begun to work */
} Slot;

typedef struct Served			/* a database */
{
	char		name[NAMEDATALEN];	/* of the settings; "": dboid says which */
	Oid			dboid;			/* InvalidOid: not there */
	TimestampTz again_at;		/* when to look whether it is there */
	int			workers;
	Slot		slot[VD_MAX_WORKERS];
} Served;

static Served served[VD_DATABASES];
static int	nserved = 0;
static bool one_database = false;	/* started by start_workers() */

static VdDatabase *
entry_of(const Served *d)
{
	return OidIsValid(d->dboid) ? vd_find_database(d->dboid) : NULL;
}

/* ---- databases ---- */

static Oid
look_up(const Served *d)
{
	Oid			dboid;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	dboid = d->name[0] ? get_database_oid(d->name, true)
		: get_database_name(d->dboid) ? d->dboid : InvalidOid;
	CommitTransactionCommand();
	pgstat_report_stat(true);
	return dboid;
}

static void
let_go(const Served *d)
{
	VdDatabase *db = entry_of(d);
	uint32		me = vd_my_procno() + 1;

	if (db)
		(void) pg_atomic_compare_exchange_u32(&db->launcher, &me, 0);
}

/* is the database there? Then its entry in shared memory is ours. */
static bool
find_database(Served *d)
{
	VdDatabase *db;
	Oid			dboid;
	uint32		none = 0;

	if (GetCurrentTimestamp() < d->again_at)
		return false;
	dboid = look_up(d);
	if (dboid != d->dboid)
		let_go(d);
	d->dboid = dboid;
	if (!OidIsValid(dboid))
	{
		d->again_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ABSENT);
		return false;
	}
	db = vd_claim_database(dboid);
	if (db == NULL || !pg_atomic_compare_exchange_u32(&db->launcher, &none, vd_my_procno() + 1))
		return true;
	none = 0;
	(void) pg_atomic_compare_exchange_u32(&db->wanted, &none, d->workers);
	pg_atomic_write_u32(&db->absent, 0);
	return true;
}

/* ---- workers ---- */

static bool
register_worker(Served *d, int index, int workers)
{
	BackgroundWorker w;
	VdWorkerStart start = {.dboid = d->dboid,.index = index,.workers = workers};

	vd_fill_worker(&w, "worker");
	snprintf(w.bgw_name, BGW_MAXLEN, "voiding worker %d", index + 1);
	w.bgw_notify_pid = MyProcPid;
	memcpy(w.bgw_extra, &start, sizeof(start));
	return RegisterDynamicBackgroundWorker(&w, &d->slot[index].handle);
}

static void
start_worker(Served *d, int index, int workers)
{
	VdDatabase *db = entry_of(d);
	Slot	   *s = &d->slot[index];

	s->lives = db ? pg_atomic_read_u32(&db->lives[index]) : 0;
	if (register_worker(d, index, workers))
	{
		if (db)
			pg_atomic_write_u32(&db->no_slot, 0);
		return;
	}
	s->handle = NULL;
	s->again_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LAST_BACKOFF / 3);
	if (db == NULL || pg_atomic_exchange_u32(&db->no_slot, 1) == 0)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no background worker slot is free for voiding"),
				 errhint("Increase max_worker_processes, and restart the server.")));
}

/* a worker has ended: when to start it again */
static void
note_end(Served *d, int index)
{
	VdDatabase *db = entry_of(d);
	Slot	   *s = &d->slot[index];

	pfree(s->handle);
	s->handle = NULL;
	if (db && pg_atomic_read_u32(&db->lives[index]) != s->lives)
		s->backoff = AGAIN;
	else
		s->backoff = Min(Max(s->backoff * 2, AGAIN), LAST_BACKOFF);
	s->again_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), s->backoff);
	d->again_at = 0;
	if (db && !pg_atomic_read_u32(&db->stopped))
		pg_atomic_fetch_add_u32(&db->restarts, 1);
}

static int
running(const Served *d)
{
	int			n = 0;

	for (int i = 0; i < VD_MAX_WORKERS; i++)
		n += d->slot[i].handle != NULL;
	return n;
}

static bool
is_stopped(const Served *d)
{
	VdDatabase *db = entry_of(d);

	return db && (pg_atomic_read_u32(&db->stopped) ||
				  (one_database && pg_atomic_read_u32(&db->absent)));
}

static void
tend(Served *d)
{
	VdDatabase *db = entry_of(d);
	int			workers = db && pg_atomic_read_u32(&db->launcher)
		? (int) pg_atomic_read_u32(&db->wanted) : d->workers;
	bool		there = false;
	pid_t		pid;

	for (int i = 0; i < VD_MAX_WORKERS; i++)
		if (d->slot[i].handle && GetBackgroundWorkerPid(d->slot[i].handle, &pid) == BGWH_STOPPED)
			note_end(d, i);
	for (int i = 0; i < workers && !is_stopped(d); i++)
	{
		if (d->slot[i].handle || GetCurrentTimestamp() < d->slot[i].again_at)
			continue;
		if (!there && !(there = find_database(d)))
			break;
		start_worker(d, i, workers);
	}
}

/* ---- the launcher ---- */

static void
serve(const char *name, Oid dboid, int workers)
{
	Served	   *d = &served[nserved++];

	strlcpy(d->name, name, NAMEDATALEN);
	d->dboid = dboid;
	d->workers = workers;
}

static void
serve_settings(void)
{
	List	   *list;
	ListCell   *lc;

	if (!SplitIdentifierString(pstrdup(vd_databases), ',', &list))
		ereport(LOG,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("voiding.databases is not a list of database names: \"%s\"", vd_databases)));
	foreach(lc, list)
	{
		if (nserved == VD_DATABASES)
		{
			ereport(LOG,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("voiding.databases names more than %d databases", VD_DATABASES),
					 errdetail("The first %d are served.", VD_DATABASES)));
			break;
		}
		serve(lfirst(lc), InvalidOid, vd_workers);
	}
}

static void
leave(int code, Datum arg)
{
	for (int i = 0; i < nserved; i++)
		let_go(&served[i]);
	if (!one_database && vd_shared())
		pg_atomic_write_u32(&vd_shared()->launcher, 0);
}

/* somebody knows that what has failed would not fail now */
static void
look_now(void)
{
	static uint32 seen = 0;
	VdShared   *s = vd_shared();

	if (one_database || s == NULL || pg_atomic_read_u32(&s->look_now) == seen)
		return;
	seen = pg_atomic_read_u32(&s->look_now);
	for (int i = 0; i < nserved; i++)
	{
		served[i].again_at = 0;
		for (int j = 0; j < VD_MAX_WORKERS; j++)
			served[i].slot[j].again_at = served[i].slot[j].backoff = 0;
		if (running(&served[i]) == 0)	/* it may be another database of that name */
			(void) find_database(&served[i]);
	}
}

/* a launcher of one database ends with it, and when it is told to stop */
static bool
is_done(void)
{
	return one_database && running(&served[0]) == 0 &&
		(is_stopped(&served[0]) || !OidIsValid(served[0].dboid));
}

static void
launch_and_tend(void)
{
	while (!ShutdownRequestPending)
	{
		CHECK_FOR_INTERRUPTS(); /* others wait until we have taken note of a barrier */
		look_now();
		for (int i = 0; i < nserved; i++)
			tend(&served[i]);
		if (is_done())
			break;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, LOOK_EVERY,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
	for (int i = 0; i < nserved; i++)
		for (int j = 0; j < VD_MAX_WORKERS; j++)
			if (served[i].slot[j].handle)
				TerminateBackgroundWorker(served[i].slot[j].handle);
}

/*
 * Entry point. bgw_main_arg: 0 for the databases of the settings; else
 * bgw_extra says which.
 */
void
voiding_launcher_main(Datum arg)
{
	VdWorkerStart start;
	VdDatabase *db;

	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	MemoryContextSwitchTo(TopMemoryContext);
	before_shmem_exit(leave, (Datum) 0);
	one_database = DatumGetInt32(arg) != 0;
	if (one_database)
	{
		memcpy(&start, MyBgworkerEntry->bgw_extra, sizeof(start));
		db = vd_find_database(start.dboid);
		if (db && pg_atomic_read_u32(&db->launcher))
			proc_exit(0);		/* two were started at once */
		serve("", start.dboid, start.workers);
	}
	else
	{
		serve_settings();
		if (vd_shared())
			pg_atomic_write_u32(&vd_shared()->launcher, vd_my_procno() + 1);
	}
	launch_and_tend();
	proc_exit(ShutdownRequestPending ? 1 : 0);
}

/* what: launcher, worker, sender; one that is not started again */
void
vd_fill_worker(BackgroundWorker *w, const char *what)
{
	memset(w, 0, sizeof(*w));
	snprintf(w->bgw_name, BGW_MAXLEN, "voiding %s", what);
	snprintf(w->bgw_type, BGW_MAXLEN, "voiding %s", what);
	snprintf(w->bgw_library_name, BGW_MAXLEN, "voiding");
	snprintf(w->bgw_function_name, BGW_MAXLEN, "voiding_%s_main", what);
	w->bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	w->bgw_start_time = BgWorkerStart_RecoveryFinished;
	w->bgw_restart_time = BGW_NEVER_RESTART;
}

/* at preload */
void
vd_launcher_init(void)
{
	BackgroundWorker w;

	if (vd_databases == NULL || *vd_databases == '\0' || vd_workers == 0)
		return;
	vd_fill_worker(&w, "launcher");
	w.bgw_restart_time = 1;
	RegisterBackgroundWorker(&w);
}

/* Start a launcher for this database; false: no worker slot is free. */
bool
vd_launch(int workers)
{
	BackgroundWorker w;
	VdWorkerStart start = {.dboid = MyDatabaseId,.workers = workers};

	/* what the last one found: who calls this has the extension */
	pg_atomic_write_u32(&vd_my_database()->absent, 0);
	vd_fill_worker(&w, "launcher");
	w.bgw_restart_time = 1;
	w.bgw_main_arg = Int32GetDatum(1);
	memcpy(w.bgw_extra, &start, sizeof(start));
	return RegisterDynamicBackgroundWorker(&w, NULL);
}
