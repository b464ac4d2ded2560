/*
 * query.c
 *	  Reads a query: a function of a service that is known by name, called with
 *	  arguments by name and with the rights of whoever asks.
 *
 * The function is called by its oid, with search_path the service's schema.
 * Who may ask is who may execute it; nothing of the engine's rights is in it.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/tupmacs.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "voiding.h"
#include "handler.h"

PG_FUNCTION_INFO_V1(voiding_run_query);

/* RETURNS TABLE (name type) with one column: that name, else NULL */
static char *
only_column(Oid function)
{
	HeapTuple	tup = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Oid		   *types;
	char	  **names;
	char	   *modes;
	char	   *name = NULL;
	int			n;

	if (!HeapTupleIsValid(tup))
		elog(ERROR, "cache lookup failed for function %u", function);
	n = get_func_arg_info(tup, &types, &names, &modes);
	for (int i = 0; modes && names && i < n; i++)
		if (modes[i] == PROARGMODE_TABLE)
			name = names[i];
	ReleaseSysCache(tup);
	return name;
}

/* a row as an object; of a function whose rows are no rows, the value */
static JsonbValue *
row_as_json(TupleTableSlot *slot, TypeFuncClass class, Oid type, const char *name)
{
	JsonbParseState *ps = NULL;
	JsonbValue *v;
	Datum		value;
	bool		isnull;

	if (class != TYPEFUNC_SCALAR)
		return vd_json_datum(ExecFetchSlotHeapTupleDatum(slot), false, RECORDOID, -1);
	value = slot_getattr(slot, 1, &isnull);
	v = vd_json_datum(value, isnull, type, -1);
	if (name == NULL)
		return v;
	pushJsonbValue(&ps, WJB_BEGIN_OBJECT, NULL);
	vd_json_push(&ps, name, v);
	return pushJsonbValue(&ps, WJB_END_OBJECT, NULL);
}

/*
 * Call a function that returns a set: an array of its rows. (Both modes are
 * allowed since functions in SQL insist on it.)
 */
JsonbValue *
vd_call_for_set(FunctionCallInfo fcinfo)
{
	Oid			function = fcinfo->flinfo->fn_oid;
	EState	   *estate = CreateExecutorState();
	ReturnSetInfo set = {.type = T_ReturnSetInfo,.allowedModes = SFRM_ValuePerCall | SFRM_Materialize | SFRM_Materialize_Preferred};
	JsonbParseState *ps = NULL;
	TypeFuncClass class;
	TupleTableSlot *slot;
	char	   *name;
	Oid			type;

	class = get_func_result_type(function, &type, &set.expectedDesc);
	name = class == TYPEFUNC_SCALAR ? only_column(function) : NULL;
	if (class == TYPEFUNC_SCALAR)
	{
		set.expectedDesc = CreateTemplateTupleDesc(1);
		TupleDescInitEntry(set.expectedDesc, 1, "value", type, -1, 0);
	}
	set.econtext = CreateExprContext(estate);
	set.returnMode = SFRM_ValuePerCall;
	fcinfo->resultinfo = (Node *) &set;
	(void) FunctionCallInvoke(fcinfo);
	pushJsonbValue(&ps, WJB_BEGIN_ARRAY, NULL);
	if (set.returnMode == SFRM_Materialize && set.setResult)
	{
		slot = MakeSingleTupleTableSlot(set.setDesc, &TTSOpsMinimalTuple);
		while (tuplestore_gettupleslot(set.setResult, true, false, slot))
			pushJsonbValue(&ps, WJB_ELEM, row_as_json(slot, class, type, name));
		ExecDropSingleTupleTableSlot(slot);
	}
	FreeExecutorState(estate);
	return pushJsonbValue(&ps, WJB_END_ARRAY, NULL);
}

/* a row of nulls only: what a function in PL/pgSQL returns that has found nothing */
static bool
is_null_row(Datum value, Oid type)
{
	HeapTupleHeader row;

	if (!type_is_rowtype(type))
		return false;
	row = DatumGetHeapTupleHeader(value);
	if (!(row->t_infomask & HEAP_HASNULL))
		return false;
	for (int i = 0; i < HeapTupleHeaderGetNatts(row); i++)
		if (!att_isnull(i, row->t_bits))
			return false;
	return true;
}

/* NULL: it returned null */
static Jsonb *
call(VdHandler *h, VdMessage *m)
{
	LOCAL_FCINFO(fcinfo, VD_MAX_ARGS);
	FmgrInfo	fn;
	bool		has_null = false;
	Datum		value;

	/* not the one of the cache: a query may ask for itself */
	fmgr_info(h->fn.fn_oid, &fn);
	InitFunctionCallInfoData(*fcinfo, &fn, h->nargs, InvalidOid, NULL, NULL);
	vd_check_arguments(h, m, fcinfo->args);
	for (int i = 0; i < h->nargs; i++)
		has_null |= fcinfo->args[i].isnull;
	if (has_null && fn.fn_strict)
		return h->returns_set ? JsonbValueToJsonb(&(JsonbValue) {.type = jbvArray}) : NULL;
	if (h->returns_set)
		return JsonbValueToJsonb(vd_call_for_set(fcinfo));
	value = FunctionCallInvoke(fcinfo);
	if (fcinfo->isnull || is_null_row(value, h->returns))
		return NULL;
	return JsonbValueToJsonb(vd_json_datum(value, false, h->returns, -1));
}

/*
 * voiding.run_query(name text, arguments jsonb) RETURNS jsonb: what the
 * function of this query returns; of one that returns a set an array.
 *
 * Errors: 42704 no such query; 42501 no right to execute its function; VD22B
 * arguments missing, unknown or unreadable; 22004; what the function raises.
 */
Datum
voiding_run_query(PG_FUNCTION_ARGS)
{
	VdMessage	m = {0};
	VdHandler  *h;
	VdIdentity	saved;
	Jsonb	   *volatile result = NULL;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"name\" must not be null")));
	m.type = text_to_cstring(PG_GETARG_TEXT_PP(0));
	m.payload = PG_ARGISNULL(1) ? vd_json_empty() : PG_GETARG_JSONB_P(1);
	if (!JB_ROOT_IS_OBJECT(m.payload))
		ereport(ERROR,
				(errcode(ERRCODE_VD_BAD_ARGUMENT),
				 errmsg("the arguments of a query must be a JSON object"),
				 errhint("Its members are the arguments of the function, by name.")));
	h = vd_query_handler(m.type);
	if (vd_function_aclcheck(h->fn.fn_oid, GetUserId(), ACL_EXECUTE) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to read query \"%s\"", m.type),
				 errhint("It needs EXECUTE on function %s.", h->function)));
	vd_become(&saved, GetUserId(), h->path);
	vd_handlers_hold();
	PG_TRY();
	{
		result = call(h, &m);
	}
	PG_FINALLY();
	{
		vd_handlers_release();
	}
	PG_END_TRY();
	vd_return(&saved);
	if (result == NULL)
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(result);
}
