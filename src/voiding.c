/*
 * voiding.c
 *	  The module: settings, and the clock that everything else looks at.
 */
#include "postgres.h"

#include <limits.h>

#include "fmgr.h"
#include "utils/guc.h"

#include "voiding.h"

VD_MODULE_MAGIC;

int			vd_batch_size = 100;
int			vd_retry_limit = 8;
int			vd_retry_base = 200;
int			vd_retry_max = 5 * 60 * 1000;
int			vd_park_for = 24 * 3600;
int			vd_clock_offset = 0;
bool		vd_notify = true;
static char *redacting = NULL;

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

void
_PG_init(void)
{
	define_dispatch_settings();
	DefineCustomIntVariable("voiding.park_for",
							"How long an event waits for its process before it is a dead letter.",
							"A process type can say otherwise: events, for.",
							&vd_park_for, 24 * 3600, 1, INT_MAX,
							PGC_SUSET, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("voiding.clock_offset",
							"Seconds that the engine's clock is ahead, for tests of deadlines.",
							NULL, &vd_clock_offset, 0, -INT_MAX, INT_MAX,
							PGC_SUSET, GUC_UNIT_S, NULL, NULL, NULL);
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
	vd_notify_init();
}
