/*
 * handler.c
 *	  Calls a handler: an SQL function of a service, its arguments taken by
 *	  name from the message, run as the function's owner. One that takes a set
 *	  gets arrays, an element for each message, and is called once for many.
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
#include "executor/executor.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/regproc.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timeout.h"

#include "voiding.h"

#define MAX_ARGS 32				/* create_command() and subscribe() see to it */

typedef struct Argument
{
	char	   *name;
	Oid			type;
	Oid			base;			/* the type below a domain */
	FmgrInfo	in;				/* its input function */
	Oid			ioparam;
} Argument;						/* of one that takes a set: of the elements */

typedef struct Handler
{
	char	   *service;
	char	   *type;
	char	   *function;		/* signature; NULL: received outside */
	bool		registered;
	bool		takes_set;
	bool		bound;			/* the rest is known */
	FmgrInfo	fn;
	Oid			owner;
	bool		returns_set;
	char	   *path;			/* search_path while it runs */
	int			nargs;
	Argument	args[MAX_ARGS];
	int			ndefaults;		/* the last n arguments have one */
} Handler;

static VdMessage **current = NULL;	/* what the handler that runs was given */
static int	ncurrent = 0;
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

	if (cache == NULL)
	{
		cache = AllocSetContextCreate(CacheMemoryContext, "voiding handlers",
									  ALLOCSET_DEFAULT_SIZES);
		CacheRegisterSyscacheCallback(PROCOID, function_changed, (Datum) 0);
	}
	if (generation == cached_generation && !functions_changed)
		return;
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
		SPI_execute_with_args("SELECT h.function, quote_ident(s.schema) || ', pg_temp', h.takes_set"
							  "  FROM voiding.handler h JOIN voiding.service s ON s.name = h.service"
							  " WHERE h.service = $1 AND h.type = $2",
							  2, types, args, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read voiding.handler");
	h->registered = SPI_processed == 1;
	if (h->registered && (v = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1)))
		h->function = MemoryContextStrdup(cache, v);
	if (h->registered)
	{
		h->path = MemoryContextStrdup(cache, SPI_getvalue(SPI_tuptable->vals[0],
														  SPI_tuptable->tupdesc, 2));
		h->takes_set = *SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 3) == 't';
	}
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

/* May messages of different keys be given to it at once? */
bool
vd_handler_takes_set(const char *service, const char *type)
{
	return find_handler(service, type)->takes_set;
}

/* ---- the messages that a handler has ---- */

/* the one message that is being handled; of a set the first; NULL outside */
const VdMessage *
vd_current_message(void)
{
	return ncurrent > 0 ? current[0] : NULL;
}

/*
 * The message that an event belongs to: of a set the one with its correlation
 * (NULL: it has none), or else the one with its subject. NULL outside handlers.
 */
const VdMessage *
vd_cause_of(const pg_uuid_t *correlation, const char *subject)
{
	if (ncurrent <= 1)
		return vd_current_message();
	for (int i = 0; correlation && i < ncurrent; i++)
		if (vd_uuid_equal(&current[i]->correlation, correlation))
			return current[i];
	for (int i = 0; i < ncurrent; i++)
		if (strcmp(current[i]->aggregateid, subject) == 0)
			return current[i];
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("cannot tell which of %d messages an event about \"%s\" belongs to",
					ncurrent, subject),
			 errhint("In a handler that takes a set an event has the subject of its message, or its correlation: '@correlation=column'.")));
}

/* ---- binding to the function ---- */

static void
bind_argument(Argument *a, char *name, Oid type, bool takes_set)
{
	Oid			in;

	if (takes_set)
		type = get_base_element_type(type);
	a->name = name;
	a->type = type;
	a->base = getBaseType(type);
	getTypeInputInfo(type, &in, &a->ioparam);
	fmgr_info_cxt(in, &a->in, cache);
}

static void
bind_arguments(Handler *h, HeapTuple tup)
{
	Oid		   *types;
	char	  **names;
	char	   *modes;
	int			n = get_func_arg_info(tup, &types, &names, &modes);

	h->nargs = 0;
	for (int i = 0; i < n && h->nargs < MAX_ARGS; i++)
		if (modes == NULL || modes[i] == PROARGMODE_IN)
			bind_argument(&h->args[h->nargs++], names ? names[i] : "", types[i], h->takes_set);
}

static void
bind(Handler *h)
{
	MemoryContext old;
	VdIdentity	saved;
	HeapTuple	tup;
	Form_pg_proc form;
	Oid			oid;

	if (h->bound)
		return;
	if (!h->registered)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("service \"%s\" has no handler for \"%s\" any more", h->service, h->type)));
	old = MemoryContextSwitchTo(cache);
	vd_become(&saved, vd_engine_owner(), "pg_catalog, pg_temp");
	oid = DatumGetObjectId(DirectFunctionCall1(regprocedurein, CStringGetDatum(h->function)));
	vd_return(&saved);
	tup = SearchSysCache1(PROCOID, ObjectIdGetDatum(oid));
	if (!HeapTupleIsValid(tup))
		elog(ERROR, "cache lookup failed for function %u", oid);
	form = (Form_pg_proc) GETSTRUCT(tup);
	h->owner = form->proowner;
	h->ndefaults = form->pronargdefaults;
	h->returns_set = form->proretset;
	bind_arguments(h, tup);
	ReleaseSysCache(tup);
	fmgr_info_cxt(oid, &h->fn, cache);
	MemoryContextSwitchTo(old);
	h->bound = true;
}

/* ---- arguments ---- */

/* a type's own name: "character" would mean character(1) */
static char *
type_name(Oid type)
{
	HeapTuple	tup = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
	Form_pg_type form;
	char	   *name;

	if (!HeapTupleIsValid(tup))
		elog(ERROR, "cache lookup failed for type %u", type);
	form = (Form_pg_type) GETSTRUCT(tup);
	name = psprintf("%s.%s", quote_identifier(get_namespace_name(form->typnamespace)),
					quote_identifier(NameStr(form->typname)));
	ReleaseSysCache(tup);
	return name;
}

/* the value of an expression, in the current context */
static Datum
evaluate(const char *expression, const Argument *a, Jsonb *parameter, bool *isnull)
{
	Oid			type = JSONBOID;
	Datum		value = JsonbPGetDatum(parameter);
	char	   *sql = psprintf("SELECT (%s)::%s", expression, type_name(a->type));
	Datum		result;
	int16		typlen;
	bool		byval;

	get_typlenbyval(a->type, &typlen, &byval);
	if (SPI_connect() != SPI_OK_CONNECT ||
		SPI_execute_with_args(sql, parameter ? 1 : 0, &type, &value, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not evaluate an argument");
	result = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, isnull);
	if (!*isnull)
		result = SPI_datumTransfer(result, byval, typlen);
	SPI_finish();
	return result;
}

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

static Datum
default_value(Handler *h, int i, const VdMessage *m, bool *isnull)
{
	LOCAL_FCINFO(fcinfo, 2);
	Datum		d;

	if (i < h->nargs - h->ndefaults)
		ereport(ERROR,
				(errcode(ERRCODE_VD_BAD_ARGUMENT),
				 errmsg("message \"%s\" has no \"%s\", which its handler %s needs",
						m->type, h->args[i].name, h->function),
				 errhint("Give the argument a default, or send it: \"with\" of the command, a column of the event.")));
	if (h->takes_set)
	{
		*isnull = true;
		return (Datum) 0;
	}
	InitFunctionCallInfoData(*fcinfo, NULL, 2, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = ObjectIdGetDatum(h->fn.fn_oid);
	fcinfo->args[1].value = Int32GetDatum(i + 1);
	fcinfo->args[0].isnull = fcinfo->args[1].isnull = false;
	d = pg_get_function_arg_default(fcinfo);
	return evaluate(TextDatumGetCString(d), &h->args[i], NULL, isnull);
}

static Datum
from_json(Argument *a, JsonbValue *v, bool *isnull)
{
	Jsonb	   *jb = JsonbValueToJsonb(v);

	*isnull = false;
	if (a->type == JSONBOID)
		return JsonbPGetDatum(jb);
	if (v->type == jbvBinary && (OidIsValid(get_element_type(a->base)) || type_is_rowtype(a->base)))
		return evaluate(psprintf("(SELECT x FROM pg_catalog.jsonb_to_record(pg_catalog.jsonb_build_object('x', $1)) AS r(x %s))",
								 type_name(a->base)), a, jb, isnull);
	return InputFunctionCall(&a->in, JsonbToCString(NULL, &jb->root, VARSIZE(jb)), a->ioparam, -1);
}

/* argument i from the message: its payload, the envelope, or its default */
static Datum
argument(Handler *h, int i, const VdMessage *m, bool *isnull)
{
	Argument   *a = &h->args[i];
	JsonbValue *v = vd_json_get(m->payload, a->name);
	char	   *text = v ? NULL : envelope(m, a->name);

	if (v == NULL && text == NULL)
		return default_value(h, i, m, isnull);
	if (v && v->type != jbvNull &&
		(v->type == jbvBinary || a->base == JSONBOID || a->base == JSONOID))
		return from_json(a, v, isnull);
	if (v)
		text = vd_json_text(v);
	*isnull = text == NULL;
	return InputFunctionCall(&a->in, text, a->ioparam, -1);
}

/* argument i of a set: an array with an element for each message */
static Datum
array_argument(Handler *h, int i, VdMessage **messages, int n)
{
	Argument   *a = &h->args[i];
	Datum	   *values = palloc(sizeof(Datum) * n);
	bool	   *nulls = palloc(sizeof(bool) * n);
	int			lower = 1;
	int16		typlen;
	bool		byval;
	char		align;

	get_typlenbyvalalign(a->type, &typlen, &byval, &align);
	for (int k = 0; k < n; k++)
		values[k] = argument(h, i, messages[k], &nulls[k]);
	return PointerGetDatum(construct_md_array(values, nulls, 1, &n, &lower, a->type,
											  typlen, byval, align));
}

/* ---- calling ---- */

/* a function that returns a set must be given a place for it; it is not looked at */
static void
expect_set(FunctionCallInfo fcinfo, ReturnSetInfo *set, EState *estate)
{
	Oid			type;
	TupleDesc	desc = NULL;

	if (get_func_result_type(fcinfo->flinfo->fn_oid, &type, &desc) == TYPEFUNC_SCALAR)
	{
		desc = CreateTemplateTupleDesc(1);
		TupleDescInitEntry(desc, 1, "value", type, -1, 0);
	}
	memset(set, 0, sizeof(*set));
	set->type = T_ReturnSetInfo;
	set->econtext = CreateExprContext(estate);
	set->expectedDesc = desc;
	set->allowedModes = SFRM_Materialize;
	set->returnMode = SFRM_ValuePerCall;
	fcinfo->resultinfo = (Node *) set;
}

/*
 * The function is called by its oid: a call in SQL could find another one of
 * the same name, planted by somebody who may create functions there.
 */
static void
call(Handler *h, VdMessage **messages, int n)
{
	LOCAL_FCINFO(fcinfo, MAX_ARGS);
	ReturnSetInfo set;
	EState	   *estate = NULL;
	bool		has_null = false;

	InitFunctionCallInfoData(*fcinfo, &h->fn, h->nargs, InvalidOid, NULL, NULL);
	for (int i = 0; i < h->nargs; i++)
	{
		fcinfo->args[i].isnull = false;
		fcinfo->args[i].value = h->takes_set ? array_argument(h, i, messages, n)
			: argument(h, i, messages[0], &fcinfo->args[i].isnull);
		has_null |= fcinfo->args[i].isnull;
	}
	if (has_null && h->fn.fn_strict)
		return;
	if (h->returns_set)
		expect_set(fcinfo, &set, estate = CreateExecutorState());
	(void) FunctionCallInvoke(fcinfo);
	if (estate)
		FreeExecutorState(estate);
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
 * Run the handler of a message, or of n that go to one that takes a set. An
 * error is the caller's to catch, in a subtransaction; it leaves role and
 * settings as they were.
 */
void
vd_handler_run(VdMessage **messages, int n, bool in_savepoint)
{
	Handler    *h = find_handler(messages[0]->destination, messages[0]->type);
	VdIdentity	saved;

	bind(h);
	vd_become(&saved, h->owner, h->path);
	PG_TRY();
	{
		current = messages;
		ncurrent = n;
		vd_current_owner = h->owner;
		limit_time();
		PushActiveSnapshot(GetTransactionSnapshot());
		call(h, messages, n);
		PopActiveSnapshot();
		vd_fire_handlers_triggers(in_savepoint);
		if (vd_am_worker)
			PortalHashTableDeleteAll(); /* cursors left open: the next one may want the name */
	}
	PG_FINALLY();
	{
		unlimit_time();
		ncurrent = 0;
		vd_current_owner = InvalidOid;
	}
	PG_END_TRY();
	vd_return(&saved);
}
