/*
 * voiding.c
 *	  The module: settings, and the clock that everything else looks at.
 */
#include "postgres.h"

#include <limits.h>

#include "fmgr.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/guc.h"

#include "voiding.h"
#include "shared.h"
#include "worker.h"

VD_MODULE_MAGIC;

int			vd_batch_size = 100;
int			vd_retry_limit = 8;
int			vd_retry_base = 200;
int			vd_retry_max = 5 * 60 * 1000;
int			vd_park_for = 24 * 3600;
int			vd_clock_offset = 0;
bool		vd_notify = true;
int			vd_workers = 1;
bool		vd_autostart = false;
char	   *vd_databases = NULL;
int			vd_slow_down = 0;
int			vd_handler_timeout = 30000;
int			vd_look_every = 2000;
int			vd_transfer_retention = 7;
static int	command_retention = 30;
static int	task_retention = 30;
static bool example = true;
static char *redacting = NULL;
static char *form_factor = NULL;

void		_PG_init(void);

/* now, on the clock that deadlines and retries go by */
TimestampTz
vd_now(void)
{
	return GetCurrentTimestamp() + (TimestampTz) vd_clock_offset * USECS_PER_SEC;
}

PG_FUNCTION_INFO_V1(voiding_now);

/*
 * voiding.now() RETURNS timestamptz: the engine's clock.
 */
Datum
voiding_now(PG_FUNCTION_ARGS)
{
	PG_RETURN_TIMESTAMPTZ(vd_now());
}

static void
define_dispatch_settings(void)
{
	DefineCustomIntVariable("voiding.batch_size",
							"Messages that dispatch() takes in one round.",
							NULL, &vd_batch_size, 100, 1, 10000,
							PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("voiding.retry_limit",
							"Attempts after which a message is a dead letter.",
							NULL, &vd_retry_limit, 8, 1, 1000,
							PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("voiding.retry_base",
							"Wait before the second attempt; it doubles with each one, with jitter.",
							NULL, &vd_retry_base, 200, 1, INT_MAX,
							PGC_SUSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("voiding.retry_max",
							"Longest wait between two attempts.",
							NULL, &vd_retry_max, 5 * 60 * 1000, 1, INT_MAX,
							PGC_SUSET, GUC_UNIT_MS, NULL, NULL, NULL);
}

static void
define_worker_settings(void)
{
	DefineCustomIntVariable("voiding.workers",
							"Background workers for each database; 0: messages are dispatched by hand.",
							NULL, &vd_workers, 1, 0, VD_MAX_WORKERS,
							PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("voiding.autostart",
							 "Bring the workers of start_workers() back after a restart of the server.",
							 "Set for a database by start_workers() and stop_workers().",
							 &vd_autostart, false,
							 PGC_SUSET, 0, NULL, NULL, NULL);
	if (process_shared_preload_libraries_in_progress)
		DefineCustomStringVariable("voiding.databases",
								   "Databases that workers serve from the start of the server.",
								   NULL, &vd_databases, "",
								   PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("voiding.slow_down",
							"Wait before each message, so that a person can watch.",
							NULL, &vd_slow_down, 0, 0, 60000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("voiding.handler_timeout",
							"Longest time that a worker lets a handler run; 0: for ever.",
							"After twice that time the worker itself ends.",
							&vd_handler_timeout, 30000, 0, INT_MAX / 2,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("voiding.look_every",
							"How often a worker looks though nobody has woken it.",
							NULL, &vd_look_every, 2000, 10, 3600000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
}

static shmem_request_hook_type previous_shmem_request = NULL;

static void
request_shared_memory(void)
{
	if (previous_shmem_request)
		previous_shmem_request();
	RequestAddinShmemSpace(MAXALIGN(sizeof(VdShared)));
}

void
_PG_init(void)
{
	define_dispatch_settings();
	define_worker_settings();
	DefineCustomIntVariable("voiding.park_for",
							"How long an event waits for its process before it is a dead letter.",
							"A process type can say otherwise: events, for.",
							&vd_park_for, 24 * 3600, 1, INT_MAX,
							PGC_SUSET, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("voiding.clock_offset",
							"Seconds that the engine's clock is ahead, for tests of deadlines.",
							NULL, &vd_clock_offset, 0, -INT_MAX, INT_MAX,
							PGC_SUSET, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("voiding.command_retention",
							"Days that maintain() keeps commands that have ended.",
							"Then ten times as long a tombstone.",
							&command_retention, 30, 1, 36500,
							PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("voiding.task_retention",
							"Days that maintain() keeps tasks after the end of their process.",
							"A task type can say otherwise: ttl.",
							&task_retention, 30, 0, 36500,
							PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("voiding.transfer_retention",
							"Days that maintain() keeps messages to other databases that have arrived there.",
							"Twice as long those from there.",
							&vd_transfer_retention, 7, 1, 36500,
							PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("voiding.example",
							 "CREATE EXTENSION makes the voiding process, with Billing and Reports.",
							 NULL, &example, true,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("voiding.form_factor",
							   "The device of this session: of its role's form factors only this one.",
							   NULL, &form_factor, "",
							   PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("voiding.notify",
							 "Send hints with NOTIFY.",
							 NULL, &vd_notify, true,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("voiding.redacting",
							   "The event that redact_event() is redacting.",
							   NULL, &redacting, "",
							   PGC_SUSET, GUC_NO_SHOW_ALL | GUC_NOT_IN_SAMPLE | GUC_DISALLOW_IN_FILE,
							   NULL, NULL, NULL);
	MarkGUCPrefixReserved("voiding");
	vd_guard_init();
	vd_wake_init();
	vd_notify_init();			/* after that: the last one comes first at commit, and
								 * hints have to be there before workers look */
	if (process_shared_preload_libraries_in_progress)
	{
		previous_shmem_request = shmem_request_hook;
		shmem_request_hook = request_shared_memory;
		vd_launcher_init();
	}
}
