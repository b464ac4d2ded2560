/*
 * handler.c
 *	  Calls a handler: an SQL function of a service, its arguments taken by
 *	  name from the message, run as the function's owner.
 *
 * The role is switched in a way that the handler cannot undo, search_path is
 * the service's schema with temporary objects last, and settings that it
 * changes are put back. Deferred triggers that it leaves are fired before the
 * switch back, as its role: later they would run with the caller's rights.
 * Those of the caller are fired before the first handler, for the same reason.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "nodes/makefuncs.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timeout.h"

#include "voiding.h"

#define MAX_ARGS 32				/* two bits of a plan's mask each */

typedef struct Call				/* prepared, for one shape of message */
{
	uint64		shape;
	SPIPlanPtr	plan;
} Call;

typedef struct Handler
{
	char	   *service;
	char	   *type;
	char	   *function;		/* signature; NULL: received outside */
	bool		registered;
	bool		bound;			/* the rest is known */
	Oid			oid;
	Oid			owner;
	char	   *path;			/* search_path while it runs */
	int			nargs;
	char	  **names;
	Oid		   *types;
	int			ndefaults;		/* the last n arguments have one */
	List	   *plans;			/* of Call */
} Handler;

const VdMessage *vd_current_message = NULL;
Oid			vd_current_owner = InvalidOid;

static MemoryContext cache = NULL;
static List *handlers = NIL;
static uint64 cached_generation = 0;
static bool functions_changed = false;

static void
function_changed(Datum arg, int cacheid, uint32 hash)
{
	functions_changed = true;
}

/* drop everything when a definition or any function has changed */
static void
refresh(void)
{
	uint64		generation = vd_definitions_generation();
	ListCell   *lc,
			   *p;

	if (cache == NULL)
	{
		cache = AllocSetContextCreate(CacheMemoryContext, "voiding handlers",
									  ALLOCSET_DEFAULT_SIZES);
		CacheRegisterSyscacheCallback(PROCOID, function_changed, (Datum) 0);
	}
	if (generation == cached_generation && !functions_changed)
		return;
	foreach(lc, handlers)
		foreach(p, ((Handler *) lfirst(lc))->plans)
			SPI_freeplan(((Call *) lfirst(p))->plan);
	handlers = NIL;
	MemoryContextReset(cache);
	cached_generation = generation;
	functions_changed = false;
}

static Handler *
read_handler(const char *service, const char *type)
{
	Handler    *h = MemoryContextAllocZero(cache, sizeof(Handler));
	Oid			types[] = {TEXTOID, TEXTOID};
	Datum		args[] = {CStringGetTextDatum(service), CStringGetTextDatum(type)};
	VdIdentity	saved;
	char	   *v;

	h->service = MemoryContextStrdup(cache, service);
	h->type = MemoryContextStrdup(cache, type);
	vd_become(&saved, vd_engine_owner(), "pg_catalog, pg_temp");
	PushActiveSnapshot(GetLatestSnapshot());
	if (SPI_connect() != SPI_OK_CONNECT ||
		SPI_execute_with_args("SELECT h.function, quote_ident(s.schema) || ', pg_temp'"
							  "  FROM voiding.handler h JOIN voiding.service s ON s.name = h.service"
							  " WHERE h.service = $1 AND h.type = $2",
							  2, types, args, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read voiding.handler");
	h->registered = SPI_processed == 1;
	if (h->registered && (v = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1)))
		h->function = MemoryContextStrdup(cache, v);
	if (h->registered)
		h->path = MemoryContextStrdup(cache, SPI_getvalue(SPI_tuptable->vals[0],
														  SPI_tuptable->tupdesc, 2));
	SPI_finish();
	PopActiveSnapshot();
	vd_return(&saved);
	return h;
}

static Handler *
find_handler(const char *service, const char *type)
{
	ListCell   *lc;
	Handler    *h;
	MemoryContext old;

	refresh();
	foreach(lc, handlers)
	{
		h = lfirst(lc);
		if (strcmp(h->type, type) == 0 && strcmp(h->service, service) == 0)
			return h;
	}
	h = read_handler(service, type);
	old = MemoryContextSwitchTo(cache);
	handlers = lappend(handlers, h);
	MemoryContextSwitchTo(old);
	return h;
}

/*
 * May dispatch() take such a message? Not if it is received outside. One that
 * nobody handles any more is taken, to fail where people can see it.
 */
bool
vd_handler_is_here(const char *service, const char *type)
{
	Handler    *h = find_handler(service, type);

	return !h->registered || h->function != NULL;
}

/* ---- binding to the function ---- */

static void
bind_arguments(Handler *h, HeapTuple tup)
{
	Oid		   *types;
	char	  **names;
	char	   *modes;
	int			n = get_func_arg_info(tup, &types, &names, &modes);

	h->names = palloc(sizeof(char *) * (n + 1));
	h->types = palloc(sizeof(Oid) * (n + 1));
	for (int i = 0; i < n; i++)
	{
		if (modes && modes[i] != PROARGMODE_IN && modes[i] != PROARGMODE_INOUT)
			continue;
		h->names[h->nargs] = names ? names[i] : "";
		h->types[h->nargs++] = types[i];
	}
	if (h->nargs > MAX_ARGS)
		ereport(ERROR,
				(errcode(ERRCODE_TOO_MANY_ARGUMENTS),
				 errmsg("handler %s has more than %d arguments", h->function, MAX_ARGS)));
}

static void
bind(Handler *h)
{
	MemoryContext old;
	VdIdentity	saved;
	HeapTuple	tup;

	if (h->bound)
		return;
	if (!h->registered)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("service \"%s\" has no handler for \"%s\" any more", h->service, h->type)));
	old = MemoryContextSwitchTo(cache);
	vd_become(&saved, vd_engine_owner(), "pg_catalog, pg_temp");
	h->oid = DatumGetObjectId(DirectFunctionCall1(regprocedurein, CStringGetDatum(h->function)));
	vd_return(&saved);
	tup = SearchSysCache1(PROCOID, ObjectIdGetDatum(h->oid));
	if (!HeapTupleIsValid(tup))
		elog(ERROR, "cache lookup failed for function %u", h->oid);
	h->owner = ((Form_pg_proc) GETSTRUCT(tup))->proowner;
	h->ndefaults = ((Form_pg_proc) GETSTRUCT(tup))->pronargdefaults;
	h->nargs = 0;
	bind_arguments(h, tup);
	ReleaseSysCache(tup);
	MemoryContextSwitchTo(old);
	h->bound = true;
}

/* ---- arguments ---- */

enum
{
	Arg_absent = 0, Arg_text = 1, Arg_json = 2
};

/* what the envelope gives where the payload says nothing */
static char *
envelope(const VdMessage *m, const char *name)
{
	if (strcmp(name, "correlation_id") == 0)
		return vd_uuid_text(&m->correlation);
	if (strcmp(name, "message_id") == 0)
		return vd_uuid_text(&m->id);
	if (strcmp(name, "causation_id") == 0)
		return m->has_causation ? vd_uuid_text(&m->causation) : NULL;
	if (strcmp(name, "source") == 0)
		return m->source;
	if (strcmp(name, "subject") == 0)
		return m->aggregateid;
	return NULL;
}

static int
argument(const VdMessage *m, const char *name, Oid type, Datum *value, char *isnull)
{
	JsonbValue *v = vd_json_get(m->payload, name);
	char	   *text = NULL;

	*isnull = ' ';
	if (v == NULL)
	{
		text = envelope(m, name);
		if (text == NULL)
			return Arg_absent;
	}
	else if (type == JSONBOID || type == JSONOID || v->type == jbvBinary)
	{
		*value = JsonbPGetDatum(JsonbValueToJsonb(v));
		return Arg_json;
	}
	else
		text = vd_json_text(v);
	if (text == NULL)
		*isnull = 'n';
	else
		*value = CStringGetTextDatum(text);
	return Arg_text;
}

/* how the n-th parameter, text or jsonb, becomes an argument of this type */
static char *
conversion(Oid type, int kind, int n)
{
	char	   *name = format_type_be_qualified(type);
	Oid			element = get_element_type(type);

	if (kind == Arg_json && OidIsValid(element))
		return psprintf("CASE WHEN $%d = 'null' THEN NULL ELSE"
						" ARRAY(SELECT pg_catalog.jsonb_array_elements_text($%d))::%s END",
						n, n, name);
	if (kind == Arg_json && type_is_rowtype(type))
		return psprintf("pg_catalog.jsonb_populate_record(NULL::%s, $%d)", name, n);
	if (kind == Arg_json && type != JSONBOID && type != JSONOID)
		return psprintf("$%d::text::%s", n, name);
	return psprintf("$%d::%s", n, name);
}

static SPIPlanPtr
make_plan(Handler *h, const int *kinds)
{
	StringInfoData sql;
	Oid			types[MAX_ARGS];
	int			n = 0;
	SPIPlanPtr	plan;

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT %s.%s(",
					 quote_identifier(get_namespace_name(get_func_namespace(h->oid))),
					 quote_identifier(get_func_name(h->oid)));
	for (int i = 0; i < h->nargs; i++)
	{
		if (kinds[i] == Arg_absent)
			continue;
		types[n++] = kinds[i] == Arg_text ? TEXTOID : JSONBOID;
		appendStringInfo(&sql, "%s%s => %s", n > 1 ? ", " : "",
						 quote_identifier(h->names[i]), conversion(h->types[i], kinds[i], n));
	}
	appendStringInfoChar(&sql, ')');
	plan = SPI_prepare(sql.data, n, types);
	if (plan == NULL || SPI_keepplan(plan) != 0)
		elog(ERROR, "could not prepare handler %s", h->function);
	return plan;
}

static SPIPlanPtr
plan_for(Handler *h, const int *kinds)
{
	uint64		shape = 0;
	ListCell   *lc;
	Call	   *p;
	MemoryContext old;

	for (int i = 0; i < h->nargs; i++)
		shape |= (uint64) kinds[i] << (2 * i);
	foreach(lc, h->plans)
	{
		p = lfirst(lc);
		if (p->shape == shape)
			return p->plan;
	}
	p = MemoryContextAlloc(cache, sizeof(Call));
	p->shape = shape;
	p->plan = make_plan(h, kinds);
	old = MemoryContextSwitchTo(cache);
	h->plans = lappend(h->plans, p);
	MemoryContextSwitchTo(old);
	return p->plan;
}

static void
call(Handler *h, const VdMessage *m)
{
	Datum		values[MAX_ARGS];
	char		nulls[MAX_ARGS];
	int			kinds[MAX_ARGS];
	int			n = 0;
	SPIPlanPtr	plan;

	for (int i = 0; i < h->nargs; i++)
	{
		kinds[i] = argument(m, h->names[i], h->types[i], &values[n], &nulls[n]);
		if (kinds[i] != Arg_absent)
			n++;
		else if (i < h->nargs - h->ndefaults)
			ereport(ERROR,
					(errcode(ERRCODE_VD_BAD_ARGUMENT),
					 errmsg("message \"%s\" has no \"%s\", which its handler %s needs",
							m->type, h->names[i], h->function),
					 errhint("Give the argument a default, or send it: \"with\" of the command, a column of the event.")));
	}
	plan = plan_for(h, kinds);
	if (SPI_execute_plan(plan, values, nulls, false, 0) < 0)
		elog(ERROR, "could not run handler %s", h->function);
}

/*
 * Fire the deferred triggers that are waiting, as the present role. Deferred
 * constraints stay deferred for what comes next.
 */
void
vd_fire_deferred(void)
{
	ConstraintsSetStmt *set = makeNode(ConstraintsSetStmt);

	AfterTriggerSetState(set);
	set->deferred = true;
	AfterTriggerSetState(set);
}

/*
 * In a worker a handler has a time limit. One that catches the cancellation
 * and goes on is ended with the worker, after twice the time.
 */
static TimeoutId last_resort = MAX_TIMEOUTS;

static void
end_worker(void)
{
	ProcDiePending = true;
	InterruptPending = true;
	SetLatch(MyLatch);
}

static void
limit_time(void)
{
	if (!vd_am_worker || vd_handler_timeout == 0)
		return;
	if (last_resort == MAX_TIMEOUTS)
		last_resort = RegisterTimeout(USER_TIMEOUT, end_worker);
	enable_timeout_after(STATEMENT_TIMEOUT, vd_handler_timeout);
	enable_timeout_after(last_resort, vd_handler_timeout * 2);
}

static void
unlimit_time(void)
{
	if (!vd_am_worker || last_resort == MAX_TIMEOUTS)
		return;
	disable_timeout(STATEMENT_TIMEOUT, false);
	disable_timeout(last_resort, false);
}

/*
 * Run the handler of a message. An error is the caller's to catch, in a
 * subtransaction; it leaves role and settings as they were.
 */
void
vd_handler_run(const VdMessage *m)
{
	Handler    *h = find_handler(m->destination, m->type);
	VdIdentity	saved;

	bind(h);
	vd_become(&saved, h->owner, h->path);
	PG_TRY();
	{
		vd_current_message = m;
		vd_current_owner = h->owner;
		limit_time();
		if (SPI_connect() != SPI_OK_CONNECT)
			elog(ERROR, "SPI_connect failed");
		call(h, m);
		SPI_finish();
		vd_fire_deferred();
	}
	PG_FINALLY();
	{
		unlimit_time();
		vd_current_message = NULL;
		vd_current_owner = InvalidOid;
	}
	PG_END_TRY();
	vd_return(&saved);
}
