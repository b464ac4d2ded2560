/*
 * identity.c
 *	  Going on as another role for a while: as the engine's owner for engine
 *	  SQL, as a handler's owner for a handler.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_namespace.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/syscache.h"

#include "voiding.h"

PG_FUNCTION_INFO_V1(voiding_caller);

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

/*
 * voiding.caller() RETURNS name: on whose behalf a SECURITY DEFINER function
 * of the engine runs: in a handler the handler's owner, else the role that was
 * set (SET ROLE) or logged in. Errors: 42501 where PostgreSQL runs somebody
 * else's expression (index, materialized view), since neither is the caller.
 */
Datum
voiding_caller(PG_FUNCTION_ARGS)
{
	if (InSecurityRestrictedOperation())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("cannot be called within a security-restricted operation")));
	return DirectFunctionCall1(namein,
							   CStringGetDatum(GetUserNameFromId(OidIsValid(vd_current_owner)
																 ? vd_current_owner
																 : GetOuterUserId(), false)));
}
