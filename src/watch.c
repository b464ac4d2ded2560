/*
 * watch.c
 *	  The first worker of a database looks after its connections: it notes how
 *	  far their receivers are, and where a replication slot has been lost, or
 *	  is from before a promotion, it makes another and sends again what may have
 *	  been in it. Each step is a transaction, since a slot is made only before
 *	  anything is written.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "voiding.h"
#include "worker.h"

#define WATCH_EVERY	(5 * USECS_PER_SEC)
#define WATCH_SOON	(USECS_PER_SEC / 5)	/* while a receiver has not been heard of */

/* the texts that a query of the engine returns, in a transaction of its own */
static List *
ask(const char *sql, const char *service)
{
	MemoryContext caller = CurrentMemoryContext;
	Oid			type = TEXTOID;
	Datum		arg;
	List	   *answers = NIL;
	VdIdentity	saved;

	vd_worker_begin("voiding: watching connections");
	arg = service ? CStringGetTextDatum(service) : (Datum) 0;
	vd_become(&saved, vd_engine_owner(), "pg_catalog, pg_temp");
	if (SPI_connect() != SPI_OK_CONNECT ||
		SPI_execute_with_args(sql, service ? 1 : 0, &type, &arg, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not watch connections");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(caller);

		answers = lappend(answers, SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1));
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	vd_return(&saved);
	vd_worker_end();
	MemoryContextSwitchTo(caller);
	return answers;
}

static bool
has_connections(void)
{
	bool		has;

	vd_worker_begin("voiding: watching connections");
	has = vd_is_connected();
	vd_worker_end();
	return has;
}

static void
mend(const char *service)
{
	char	   *sent;

	/* who is under way holds a new slot up: it is tried again, not waited for */
	(void) ask("SELECT voiding.make_slot($1) FROM set_config('lock_timeout', '1s', true)", service);
	sent = linitial(ask("SELECT voiding.send_missed($1)", service));
	if (sent)
		ereport(LOG,
				(errmsg("the replication slot for service \"%s\" was lost: %s messages are sent again", service, sent)));
	else
		ereport(LOG,
				(errmsg("a new replication slot for service \"%s\": this server was promoted", service)));
}

/*
 * To be called often, outside a transaction; an error is the caller's to
 * report, and it is tried again after a while.
 */
void
vd_watch_connections(void)
{
	static TimestampTz next = 0;
	MemoryContext caller = CurrentMemoryContext;
	ListCell   *lc;

	if (GetCurrentTimestamp() < next)
		return;
	next = GetCurrentTimestamp() + WATCH_EVERY;
	if (has_connections())
	{
		MemoryContextSwitchTo(caller);
		foreach(lc, ask("SELECT voiding.watch_connections()", NULL))
		{
			if (lfirst(lc))
				mend(lfirst(lc));
			next = GetCurrentTimestamp() + WATCH_SOON;
		}
	}
	MemoryContextSwitchTo(caller);
}
