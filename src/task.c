/*
 * task.c
 *	  What SQL cannot do for tasks (sql/task_type.sql, sql/task.sql): look up
 *	  the values of a definition, derive ids, ask a service's check function.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_proc.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "voiding.h"

PG_FUNCTION_INFO_V1(voiding_fill);
PG_FUNCTION_INFO_V1(voiding_derive_uuid);
PG_FUNCTION_INFO_V1(voiding_is_own_event);
PG_FUNCTION_INFO_V1(voiding_ask_check);

/*
 * voiding.fill(template jsonb, event jsonb, process jsonb, key text,
 * process_id uuid) RETURNS jsonb, internal: the template with its paths looked
 * up. What is null is not there.
 */
Datum
voiding_fill(PG_FUNCTION_ARGS)
{
	VdScope		scope = {
		.event = PG_ARGISNULL(1) ? NULL : PG_GETARG_JSONB_P(1),
		.process = PG_ARGISNULL(2) ? NULL : PG_GETARG_JSONB_P(2),
		.key = PG_ARGISNULL(3) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(3)),
		.process_id = PG_ARGISNULL(4) ? NULL : PG_GETARG_UUID_P(4)
	};

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(vd_json_object(vd_json_datum(PG_GETARG_DATUM(0), false, JSONBOID, -1),
									 &scope));
}

/*
 * voiding.derive_uuid(origin uuid, type text, key text) RETURNS uuid,
 * internal: see vd_uuid_derive().
 */
Datum
voiding_derive_uuid(PG_FUNCTION_ARGS)
{
	pg_uuid_t  *id = palloc(sizeof(pg_uuid_t));

	*id = vd_uuid_derive(PG_GETARG_UUID_P(0), text_to_cstring(PG_GETARG_TEXT_PP(1)),
						 text_to_cstring(PG_GETARG_TEXT_PP(2)));
	PG_RETURN_UUID_P(id);
}

/*
 * voiding.is_own_event(type text) RETURNS boolean, internal: may a service
 * emit events of this type?
 */
Datum
voiding_is_own_event(PG_FUNCTION_ARGS)
{
	char	   *type = PG_ARGISNULL(0) ? "" : text_to_cstring(PG_GETARG_TEXT_PP(0));

	PG_RETURN_BOOL(*type && strlen(type) <= VD_MAX_NAME && !vd_event_is_engines(type));
}

/* Call f(jsonb) as its owner, who may read only: so nothing is left for later. */
static char *
ask(Oid oid, Oid owner, const char *path, Datum value)
{
	LOCAL_FCINFO(fcinfo, 1);
	FmgrInfo	flinfo;
	Oid			before = vd_current_owner;
	VdIdentity	saved;
	Datum		answer;
	char	   *fault;

	vd_become(&saved, owner, path);
	(void) set_config_option("transaction_read_only", "on", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	PG_TRY();
	{
		vd_current_owner = owner;
		fmgr_info(oid, &flinfo);
		InitFunctionCallInfoData(*fcinfo, &flinfo, 1, InvalidOid, NULL, NULL);
		fcinfo->args[0].value = value;
		fcinfo->args[0].isnull = false;
		answer = FunctionCallInvoke(fcinfo);
		fault = fcinfo->isnull ? NULL : TextDatumGetCString(answer);
	}
	PG_FINALLY();
	{
		vd_current_owner = before;
	}
	PG_END_TRY();
	vd_return(&saved);
	return fault;
}

/*
 * voiding.ask_check(function text, value jsonb) RETURNS text, internal: what
 * "function"(jsonb) says is wrong with the value; null: nothing, or no function
 * is named. Errors: 42883; 25006 where it writes; its own.
 */
Datum
voiding_ask_check(PG_FUNCTION_ARGS)
{
	Oid			oid;
	HeapTuple	tup;
	Form_pg_proc form;
	Oid			owner;
	char	   *path;
	char	   *fault;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	oid = DatumGetObjectId(DirectFunctionCall1(regprocedurein,
											   CStringGetDatum(psprintf("%s(jsonb)", text_to_cstring(PG_GETARG_TEXT_PP(0))))));
	tup = SearchSysCache1(PROCOID, ObjectIdGetDatum(oid));
	if (!HeapTupleIsValid(tup))
		elog(ERROR, "cache lookup failed for function %u", oid);
	form = (Form_pg_proc) GETSTRUCT(tup);
	owner = form->proowner;
	path = psprintf("%s, pg_temp", quote_identifier(get_namespace_name(form->pronamespace)));
	ReleaseSysCache(tup);
	fault = ask(oid, owner, path, PG_GETARG_DATUM(1));
	if (fault == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(fault));
}
