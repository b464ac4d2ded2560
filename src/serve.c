/*
 * serve.c
 *	  What a session does about workers: start_workers(), stop_workers(), and
 *	  bringing back those that a restart of the server has ended.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "commands/dbcommands.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/varlena.h"
#include "utils/wait_event.h"

#include "voiding.h"
#include "shared.h"
#include "worker.h"

#define START_TIMEOUT	10000	/* ms that start_workers() waits */
#define ONCE_A_MINUTE	(60 * USECS_PER_SEC)

PG_FUNCTION_INFO_V1(voiding_launch);
PG_FUNCTION_INFO_V1(voiding_stop);

/*
 * Workers were wanted for this database and none is there, as after a restart
 * of the server without preload: start them. Called when something has been
 * queued; tries once a minute and session.
 */
void
vd_bring_back_workers(void)
{
	static TimestampTz tried = 0;
	VdDatabase *db = vd_my_database();
	TimestampTz now = GetCurrentTimestamp();

	if (!vd_autostart || vd_workers == 0 || db == NULL || vd_is_served(db) ||
		pg_atomic_read_u32(&db->launcher) || pg_atomic_read_u32(&db->stopped) ||
		RecoveryInProgress() || (tried != 0 && now - tried < ONCE_A_MINUTE))
		return;
	tried = now;
	pg_atomic_write_u32(&db->wanted, vd_workers);
	(void) vd_launch(vd_workers);
}

static int
serving(VdDatabase *db)
{
	int			n = 0;

	for (int i = 0; i < VD_MAX_WORKERS; i++)
		n += pg_atomic_read_u32(&db->worker[i]) != 0;
	return n;
}

/* n: workers; 0: also no launcher of this database alone */
static bool
is_so(VdDatabase *db, int n, bool preloaded)
{
	return serving(db) == n && (n > 0 || preloaded || !pg_atomic_read_u32(&db->launcher));
}

static bool
wait_for_workers(VdDatabase *db, int n, bool preloaded)
{
	TimestampTz end = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), START_TIMEOUT);

	while (!is_so(db, n, preloaded))
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
	VdDatabase *db = vd_claim_database(MyDatabaseId);

	if (db == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("voiding has no room in shared memory for this database"),
				 errdetail("It serves up to %d databases.", VD_DATABASES),
				 errhint("Stop the workers of another one; or, if that is not why, add voiding to shared_preload_libraries and restart the server.")));
	return db;
}

/* does the preloaded launcher serve this database? */
static bool
is_preloaded(void)
{
	VdShared   *s = vd_shared();
	List	   *list;
	ListCell   *lc;

	if (s == NULL || pg_atomic_read_u32(&s->launcher) == 0 || vd_databases == NULL ||
		!SplitIdentifierString(pstrdup(vd_databases), ',', &list))
		return false;
	foreach(lc, list)
		if (strcmp(lfirst(lc), get_database_name(MyDatabaseId)) == 0)
			return true;
	return false;
}

static void
stop_all(VdDatabase *db)
{
	pg_atomic_write_u32(&db->stopped, 1);
	vd_wake_process(&db->launcher);
	for (int i = 0; i < VD_MAX_WORKERS; i++)
		vd_wake_process(&db->worker[i]);
	(void) wait_for_workers(db, 0, is_preloaded());
}

static bool
start_all(VdDatabase *db, int n)
{
	bool		preloaded = is_preloaded();

	pg_atomic_write_u32(&db->no_slot, 0);
	pg_atomic_write_u32(&db->wanted, n);
	pg_atomic_write_u32(&db->stopped, 0);
	if (preloaded)
		vd_wake_launcher();
	else if (!vd_launch(n))
		return false;
	return wait_for_workers(db, n, preloaded);
}

/* the version of the extension that is installed, or NULL */
char *
vd_installed_version(void)
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
	VdDatabase *db;

	PreventCommandDuringRecovery("start_workers()");
	if (n < 1 || n > VD_MAX_WORKERS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the number of workers must be 1 to %d", VD_MAX_WORKERS)));
	db = my_database_or_error();
	if (serving(db) == n && !pg_atomic_read_u32(&db->stopped))
		PG_RETURN_INT32(n);
	if (serving(db) > 0 || pg_atomic_read_u32(&db->launcher))
		stop_all(db);
	if (!start_all(db, n))
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
