/*
 * identity.c
 *	  Going on as another role for a while: as the engine's owner for engine
 *	  SQL, as a handler's owner for a handler.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/value.h"
#include "parser/parse_func.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "voiding.h"

PG_FUNCTION_INFO_V1(voiding_caller);
PG_FUNCTION_INFO_V1(voiding_as_engine);

Oid
vd_schema_oid(void)
{
	return get_namespace_oid("voiding", false);
}

/* the owner of the engine's schema: engine SQL runs with this role */
Oid
vd_engine_owner(void)
{
	HeapTuple	tup = SearchSysCache1(NAMESPACEOID, ObjectIdGetDatum(vd_schema_oid()));
	Oid			owner;

	if (!HeapTupleIsValid(tup))
		elog(ERROR, "cache lookup failed for schema voiding");
	owner = ((Form_pg_namespace) GETSTRUCT(tup))->nspowner;
	ReleaseSysCache(tup);
	return owner;
}

/*
 * Go on as another role with a pinned search_path, in a way that SET ROLE and
 * SET SESSION AUTHORIZATION cannot undo. An error on the way is undone by the
 * (sub)transaction's abort.
 */
void
vd_become(VdIdentity *saved, Oid user, const char *path)
{
	GetUserIdAndSecContext(&saved->user, &saved->sec);
	SetUserIdAndSecContext(user, saved->sec | SECURITY_LOCAL_USERID_CHANGE);
	saved->guc_level = NewGUCNestLevel();
	(void) set_config_option("search_path", path, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

void
vd_return(const VdIdentity *saved)
{
	AtEOXact_GUC(false, saved->guc_level);
	SetUserIdAndSecContext(saved->user, saved->sec);
}

/* ---- reading definitions: with SPI, as the engine, in the newest snapshot ---- */

/* Run a query; its rows are in SPI_tuptable until vd_read_end(). */
void
vd_read_begin(VdIdentity *saved, const char *sql, int nargs, Oid *types, Datum *values)
{
	vd_become(saved, vd_engine_owner(), "pg_catalog, pg_temp");
	PushActiveSnapshot(GetLatestSnapshot());
	if (SPI_connect() != SPI_OK_CONNECT ||
		SPI_execute_with_args(sql, nargs, types, values, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the definitions");
}

void
vd_read_end(const VdIdentity *saved)
{
	SPI_finish();
	PopActiveSnapshot();
	vd_return(saved);
}

/* a column of a row that was read, copied to memory; NULL for null */
char *
vd_read_text(MemoryContext memory, uint64 row, int column)
{
	char	   *v = SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);

	return v ? MemoryContextStrdup(memory, v) : NULL;
}

/* ---- on whose behalf ---- */

static Oid	entered_by = InvalidOid;	/* who called the function below */

/*
 * voiding.caller() RETURNS name: on whose behalf the engine acts: who called
 * the function of the engine that runs; in a handler the handler's owner; else
 * the role that was set (SET ROLE) or logged in. Errors: 42501 where
 * PostgreSQL runs somebody else's expression (index, materialized view).
 */
Datum
voiding_caller(PG_FUNCTION_ARGS)
{
	Oid			role = entered_by;

	if (!OidIsValid(role))
		role = vd_current_owner;
	if (!OidIsValid(role) && InSecurityRestrictedOperation())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("cannot be called within a security-restricted operation")));
	if (!OidIsValid(role))
		role = GetOuterUserId();
	return DirectFunctionCall1(namein, CStringGetDatum(GetUserNameFromId(role, false)));
}

/* voiding.do_<name> with the arguments of voiding.<name> */
static void
find_inner(FmgrInfo *outer)
{
	HeapTuple	tup = SearchSysCache1(PROCOID, ObjectIdGetDatum(outer->fn_oid));
	Form_pg_proc form;
	char	   *name;
	Oid			inner;

	if (!HeapTupleIsValid(tup))
		elog(ERROR, "cache lookup failed for function %u", outer->fn_oid);
	form = (Form_pg_proc) GETSTRUCT(tup);
	name = psprintf("do_%s", NameStr(form->proname));
	inner = LookupFuncName(list_make2(makeString("voiding"), makeString(name)),
						   form->pronargs, form->proargtypes.values, false);
	ReleaseSysCache(tup);
	outer->fn_extra = MemoryContextAllocZero(outer->fn_mcxt, sizeof(FmgrInfo));
	fmgr_info_cxt(inner, outer->fn_extra, outer->fn_mcxt);
}

/*
 * The body of every function that does something with the engine's rights on
 * behalf of its caller: remembers who that is and calls voiding.do_<name> as
 * the engine's owner. SECURITY DEFINER would not do: inside such a function
 * nobody can tell the caller from whoever called the caller.
 */
Datum
voiding_as_engine(PG_FUNCTION_ARGS)
{
	LOCAL_FCINFO(inner, FUNC_MAX_ARGS);
	Oid			before = entered_by;
	VdIdentity	saved;
	Datum		result;

	if (fcinfo->flinfo->fn_extra == NULL)
		find_inner(fcinfo->flinfo);
	InitFunctionCallInfoData(*inner, fcinfo->flinfo->fn_extra, fcinfo->nargs,
							 fcinfo->fncollation, NULL, fcinfo->resultinfo);
	memcpy(inner->args, fcinfo->args, sizeof(NullableDatum) * fcinfo->nargs);
	PG_TRY();
	{
		entered_by = GetUserId();
		vd_become(&saved, vd_engine_owner(), "pg_catalog, pg_temp");
		result = FunctionCallInvoke(inner);
		vd_return(&saved);
	}
	PG_FINALLY();
	{
		entered_by = before;
	}
	PG_END_TRY();
	fcinfo->isnull = inner->isnull;
	return result;
}
