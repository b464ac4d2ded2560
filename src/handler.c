/*
 * handler.c
 *	  Calls a handler: an SQL function of a service, its arguments taken by
 *	  name from the message (argument.c), run as the function's owner. One that
 *	  takes a set is called once for many messages.
 *
 * The role is switched in a way that the handler cannot undo, search_path is
 * the service's schema with temporary objects last, and settings that it
 * changes are put back. Deferred triggers that it leaves are fired before the
 * switch back, as its role: later they would run with the caller's rights.
 * Those of the caller are fired before the first handler, for the same reason.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/regproc.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timeout.h"

#include "voiding.h"
#include "handler.h"

static VdMessage **current = NULL;	/* what the handler that runs was given */
static int	ncurrent = 0;
static bool has_begun = false;	/* a conversation, see vd_take_conversation() */
Oid			vd_current_owner = InvalidOid;

static MemoryContext cache = NULL;
static List *handlers = NIL;
static uint64 cached_generation = 0;
static bool functions_changed = false;
static MemoryContext outdated = NULL;	/* what was in the cache, while somebody runs it */
static int	holders = 0;

static void
function_changed(Datum arg, int cacheid, uint32 hash)
{
	functions_changed = true;
}

/*
 * While a handler runs, what is known of it stays, also when it asks for
 * others and definitions have changed meanwhile. To be released in any case.
 */
void
vd_handlers_hold(void)
{
	holders++;
}

void
vd_handlers_release(void)
{
	if (--holders > 0 || outdated == NULL)
		return;
	MemoryContextDelete(outdated);
	outdated = NULL;
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
	if (holders > 0)
	{
		if (outdated == NULL)
			outdated = AllocSetContextCreate(CacheMemoryContext, "voiding outdated handlers",
											 ALLOCSET_SMALL_SIZES);
		MemoryContextSetParent(cache, outdated);
		cache = AllocSetContextCreate(CacheMemoryContext, "voiding handlers", ALLOCSET_DEFAULT_SIZES);
	}
	else
		MemoryContextReset(cache);
	cached_generation = generation;
	functions_changed = false;
}

static VdHandler *
read_handler(const char *service, const char *type)
{
	VdHandler  *h = MemoryContextAllocZero(cache, sizeof(VdHandler));
	Oid			types[] = {TEXTOID, TEXTOID};
	Datum		args[] = {CStringGetTextDatum(service), CStringGetTextDatum(type)};
	VdIdentity	saved;

	h->service = MemoryContextStrdup(cache, service);
	h->type = MemoryContextStrdup(cache, type);
	vd_read_begin(&saved,
				  "SELECT h.function, quote_ident(s.schema) || ', pg_temp', h.takes_set, h.kind = 'query', h.kind = 'event', s.known_as IS NOT NULL"
				  "  FROM voiding.handler h JOIN voiding.service s ON s.name = h.service"
				  " WHERE h.service = $1 AND h.type = $2",
				  2, types, args);
	h->registered = SPI_processed == 1;
	if (h->registered)
	{
		h->function = vd_read_text(cache, 0, 1);
		h->path = vd_read_text(cache, 0, 2);
		h->takes_set = *SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 3) == 't';
		h->is_query = *SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 4) == 't';
		h->is_event = *SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 5) == 't';
		h->elsewhere = *SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 6) == 't';
	}
	vd_read_end(&saved);
	return h;
}

static VdHandler *
find_handler(const char *service, const char *type)
{
	ListCell   *lc;
	VdHandler  *h;
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
 * May dispatch() take such a message? Not if it is received outside. One for
 * another database is taken, and leaves. One that nobody handles any more is
 * taken, to fail where people can see it.
 */
bool
vd_handler_is_here(const char *service, const char *type)
{
	VdHandler  *h = find_handler(service, type);

	return !h->registered || h->function != NULL || h->elsewhere;
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
 * The first conversation that the handler of a sent command begins is the
 * command's own: the process has its id. NULL: make a new id.
 */
const pg_uuid_t *
vd_take_conversation(void)
{
	if (ncurrent != 1 || has_begun || !vd_command_is(current[0]))
		return NULL;
	has_begun = true;
	return &current[0]->id;
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
bind(VdHandler *h)
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
	h->returns = form->prorettype;
	h->returns_set = form->proretset;
	vd_bind_arguments(h, tup, cache);
	ReleaseSysCache(tup);
	fmgr_info_cxt(oid, &h->fn, cache);
	MemoryContextSwitchTo(old);
	h->bound = true;
}

/*
 * May this role call this function? What PUBLIC may does not count: a
 * handler runs with its owner's rights, and a new function is everybody's.
 */
static bool
is_granted(Oid role, Oid function, Oid owner)
{
	HeapTuple	tup = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	bool		granted = has_privs_of_role(role, owner);
	bool		isnull;
	Datum		acl = SysCacheGetAttr(PROCOID, tup, Anum_pg_proc_proacl, &isnull);
	Datum	   *items;
	int			n = 0;
	int16		len;
	bool		byval;
	char		align;

	get_typlenbyvalalign(ACLITEMOID, &len, &byval, &align);
	if (!isnull)
		deconstruct_array(DatumGetArrayTypePCopy(acl), ACLITEMOID, len, byval, align, &items, NULL, &n);
	for (int i = 0; i < n && !granted; i++)
	{
		AclItem    *item = DatumGetAclItemP(items[i]);

		granted = item->ai_grantee != ACL_ID_PUBLIC && (ACLITEM_GET_PRIVS(*item) & ACL_EXECUTE) &&
			has_privs_of_role(role, item->ai_grantee);
	}
	ReleaseSysCache(tup);
	return granted;
}

/*
 * Who sends a command must have been granted EXECUTE on its handler, and it
 * must be possible to call it with these arguments. One that is received
 * outside is sent by those who may use the service's schema, and not looked
 * into.
 *
 * Errors: 42501; VD22B; 0A000 its service lives elsewhere.
 */
void
vd_handler_check(VdMessage *m)
{
	VdHandler  *h = find_handler(m->destination, m->type);
	char	   *schema;
	NullableDatum values[VD_MAX_ARGS];
	bool		allowed;

	if (h->function)
	{
		bind(h);
		allowed = is_granted(GetUserId(), h->fn.fn_oid, h->owner);
	}
	else if (!vd_service(m->destination, NULL, &schema))
		return;
	else if (schema == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("command \"%s\" is handled in another database, by service \"%s\"", m->type, m->destination),
				 errhint("Send it there; here only processes send it.")));
	else
		allowed = vd_schema_aclcheck(get_namespace_oid(schema, false), GetUserId(),
									 ACL_USAGE) == ACLCHECK_OK;
	if (!allowed)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to send command \"%s\"", m->type),
				 h->function ? errhint("GRANT EXECUTE ON FUNCTION %s to its role; what PUBLIC may does not count.", h->function)
				 : errhint("It needs USAGE on schema \"%s\".", schema)));
	if (h->function)
		vd_check_arguments(h, m, values);
}

/* A command from another database is sent by who owns the service there. */
static void
check_sender(const VdHandler *h, const VdMessage *m)
{
	char	   *owner = NULL;
	Oid			role;

	if (h->is_event || strcmp(m->source, VD_ENGINE) == 0)
		return;
	role = vd_service(m->source, &owner, NULL) ? get_role_oid(owner, true) : InvalidOid;
	if (!OidIsValid(role) || !is_granted(role, h->fn.fn_oid, h->owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("service \"%s\" may not send command \"%s\"", m->source, m->type),
				 errhint("GRANT EXECUTE ON FUNCTION %s to the owner of that service.", h->function)));
}

static char *
service_of_query(const char *name)
{
	Oid			type = TEXTOID;
	Datum		arg = CStringGetTextDatum(name);
	MemoryContext context = CurrentMemoryContext;
	VdIdentity	saved;
	char	   *service;

	vd_read_begin(&saved, "SELECT service FROM voiding.handler WHERE kind = 'query' AND type = $1",
				  1, &type, &arg);
	if (SPI_processed != 1)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("there is no query \"%.100s\"", name),
				 errhint("SELECT voiding.create_query(...) makes one.")));
	service = vd_read_text(context, 0, 1);
	vd_read_end(&saved);
	return service;
}

/* the function that answers a query. Errors: 42704. */
VdHandler *
vd_query_handler(const char *name)
{
	VdHandler  *h;
	ListCell   *lc;
	char	   *service;

	refresh();
	foreach(lc, handlers)
	{
		h = lfirst(lc);
		if (h->is_query && strcmp(h->type, name) == 0)
		{
			bind(h);
			return h;
		}
	}
	service = service_of_query(name);
	h = find_handler(service, name);
	bind(h);
	return h;
}

/* ---- calling ---- */

static void
take_answer(VdHandler *h, Datum value, VdAnswer *answer)
{
	answer->result = JsonbValueToJsonb(vd_json_datum(value, false, h->returns, -1));
	if (h->returns == UUIDOID)
	{
		answer->process_id = *DatumGetUUIDP(value);
		answer->has_process = true;
	}
}

/*
 * The function is called by its oid: a call in SQL could find another one of
 * the same name, planted by somebody who may create functions there.
 */
static void
call(VdHandler *h, VdMessage **messages, int n, VdAnswer *answer)
{
	LOCAL_FCINFO(fcinfo, VD_MAX_ARGS);
	JsonbValue *set;
	bool		has_null = false;
	Datum		value;

	InitFunctionCallInfoData(*fcinfo, &h->fn, h->nargs, InvalidOid, NULL, NULL);
	for (int i = 0; i < h->nargs; i++)
	{
		fcinfo->args[i].value = vd_argument(h, i, messages, n, &fcinfo->args[i].isnull);
		has_null |= fcinfo->args[i].isnull;
	}
	if (has_null && h->fn.fn_strict)
		return;
	if (h->returns_set)
	{
		set = vd_call_for_set(fcinfo);
		if (answer)
			answer->result = JsonbValueToJsonb(set);
		return;
	}
	value = FunctionCallInvoke(fcinfo);
	if (answer && h->returns != VOIDOID && !fcinfo->isnull)
		take_answer(h, value, answer);
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
 * settings as they were. answer: where to put what it returns, or NULL.
 */
void
vd_handler_run(VdMessage **messages, int n, bool in_savepoint, VdAnswer *answer)
{
	VdHandler  *h = find_handler(messages[0]->destination, messages[0]->type);
	VdIdentity	saved;

	bind(h);
	for (int i = 0; i < n; i++)
		check_sender(h, messages[i]);
	vd_become(&saved, h->owner, h->path);
	vd_handlers_hold();
	PG_TRY();
	{
		current = messages;
		ncurrent = n;
		has_begun = false;
		vd_current_owner = h->owner;
		limit_time();
		PushActiveSnapshot(GetTransactionSnapshot());
		call(h, messages, n, answer);
		PopActiveSnapshot();
		vd_fire_handlers_triggers(in_savepoint);
		if (vd_am_worker)
			PortalHashTableDeleteAll(); /* cursors left open: the next one may want the name */
	}
	PG_FINALLY();
	{
		unlimit_time();
		vd_handlers_release();
		ncurrent = 0;
		vd_current_owner = InvalidOid;
	}
	PG_END_TRY();
	vd_return(&saved);
}
