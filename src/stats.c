/*
 * stats.c
 *	  What the shared memory knows, as rows: who serves this database, and how
 *	  many messages were handled since the server started.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

#include "voiding.h"
#include "shared.h"

PG_FUNCTION_INFO_V1(voiding_counters);
PG_FUNCTION_INFO_V1(voiding_serving);

static void
put(FunctionCallInfo fcinfo, Datum *values, bool *nulls)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/*
 * voiding.counters() RETURNS SETOF (service text, handled bigint, failed
 * bigint, retried bigint, dead bigint): of this database, since the server
 * started.
 */
Datum
voiding_counters(PG_FUNCTION_ARGS)
{
	VdDatabase *db = vd_my_database();
	bool		nulls[5] = {false};

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; db && i < VD_COUNTED && db->counters[i].service[0]; i++)
	{
		VdCounters *c = &db->counters[i];
		Datum		values[5] = {
			CStringGetTextDatum(c->service),
			Int64GetDatum(pg_atomic_read_u64(&c->handled)),
			Int64GetDatum(pg_atomic_read_u64(&c->failed)),
			Int64GetDatum(pg_atomic_read_u64(&c->retried)),
			Int64GetDatum(pg_atomic_read_u64(&c->dead)),
		};

		put(fcinfo, values, nulls);
	}
	return (Datum) 0;
}

/*
 * voiding.serving() RETURNS SETOF (worker int, pid int, restarts int, problem
 * text): the workers of this database; a row without pid: one that could not
 * be started.
 */
Datum
voiding_serving(PG_FUNCTION_ARGS)
{
	VdDatabase *db = vd_my_database();

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; db && i < VD_MAX_WORKERS; i++)
	{
		uint32		n = pg_atomic_read_u32(&db->worker[i]);
		bool		nulls[4] = {false, false, false, true};
		Datum		values[4] = {Int32GetDatum(i + 1), (Datum) 0,
			Int32GetDatum(pg_atomic_read_u32(&db->restarts))
		};

		if (n == 0)
			continue;
		values[1] = Int32GetDatum(ProcGlobal->allProcs[n - 1].pid);
		put(fcinfo, values, nulls);
	}
	if (db && pg_atomic_read_u32(&db->no_slot))
	{
		bool		nulls[4] = {true, true, false, false};
		Datum		values[4] = {(Datum) 0, (Datum) 0,
			Int32GetDatum(pg_atomic_read_u32(&db->restarts)),
			CStringGetTextDatum("no background worker slot is free (max_worker_processes)")
		};

		put(fcinfo, values, nulls);
	}
	return (Datum) 0;
}
