/*
 * guard.c
 *	  What a handler may not do, because it would outlive the handler and run
 *	  later with the rights of whoever dispatches: cursors, prepared
 *	  statements, temporary objects, LISTEN, deferred triggers that defer again.
 *
 * A handler shares its session with other services' handlers and with the
 * client that dispatches by hand.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_class.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "tcop/utility.h"
#include "utils/guc.h"

#include "voiding.h"

static ProcessUtility_hook_type next_utility = NULL;
static object_access_hook_type next_access = NULL;

static const char *
leaves_something(const Node *statement)
{
	switch (nodeTag(statement))
	{
		case T_PrepareStmt:
			return "PREPARE";
		case T_DeallocateStmt:
			return "DEALLOCATE";
		case T_DeclareCursorStmt:
			return "DECLARE CURSOR";
		case T_ClosePortalStmt:
			return "CLOSE";
		case T_ListenStmt:
			return "LISTEN";
		case T_UnlistenStmt:
			return "UNLISTEN";
		case T_DiscardStmt:
			return "DISCARD";
		default:
			return NULL;
	}
}

static void
on_utility(PlannedStmt *pstmt, const char *query, bool read_only, ProcessUtilityContext context,
		   ParamListInfo params, QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	const char *what = OidIsValid(vd_current_owner) ? leaves_something(pstmt->utilityStmt) : NULL;

	if (what)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("%s cannot be used inside a handler", what),
				 errdetail("It would outlive the handler.")));
	(next_utility ? next_utility : standard_ProcessUtility)
		(pstmt, query, read_only, context, params, env, dest, qc);
}

static void
on_access(ObjectAccessType access, Oid class, Oid object, int sub, void *arg)
{
	ObjectAddress address;

	if (next_access)
		next_access(access, class, object, sub, arg);
	if (access != OAT_POST_CREATE || sub != 0 || !OidIsValid(vd_current_owner) ||
		!(class == RelationRelationId || class == TypeRelationId ||
		  class == ProcedureRelationId || class == OperatorRelationId))
		return;
	CommandCounterIncrement();	/* to see the new object */
	ObjectAddressSet(address, class, object);
	if (isAnyTempNamespace(get_object_namespace(&address)))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("a handler cannot make temporary tables, views, types or functions"),
				 errdetail("They would outlive the handler.")));
}

void
vd_guard_init(void)
{
	next_utility = ProcessUtility_hook;
	ProcessUtility_hook = on_utility;
	next_access = object_access_hook;
	object_access_hook = on_access;
}

/*
 * Fire the deferred triggers that are waiting, as the present role.
 *
 * The plain way is what COMMIT does. PostgreSQL means it for use outside of
 * queries, but it does no harm inside as long as no event is left of an outer
 * level, and those are fired before the first handler. In a caller's savepoint
 * that is not so (ROLLBACK TO must bring them back), and there SET CONSTRAINTS
 * is used; constraints that can be are deferred from then on.
 */
static void
fire(bool in_savepoint)
{
	ConstraintsSetStmt *set = makeNode(ConstraintsSetStmt);

#ifdef USE_ASSERT_CHECKING
	in_savepoint = true;
#endif
	if (!in_savepoint)
	{
		AfterTriggerFireDeferred();
		return;
	}
	AfterTriggerSetState(set);
	set->deferred = true;
	AfterTriggerSetState(set);
}

/* those of the handler that has run, as its role; they may not defer others */
void
vd_fire_handlers_triggers(bool in_savepoint)
{
	Oid			user;
	int			sec;

	GetUserIdAndSecContext(&user, &sec);
	SetUserIdAndSecContext(user, sec | SECURITY_RESTRICTED_OPERATION);
	fire(in_savepoint);
	SetUserIdAndSecContext(user, sec);
}

/* those of the caller of dispatch(), as the role that COMMIT would fire them as */
void
vd_fire_callers_triggers(bool in_savepoint)
{
	VdIdentity	saved;

	vd_become(&saved, GetOuterUserId(), GetConfigOption("search_path", false, false));
	fire(in_savepoint);
	vd_return(&saved);
}
