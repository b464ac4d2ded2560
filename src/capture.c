/*
 * capture.c
 *	  Events from row changes: the trigger functions emit_event() and
 *	  begin_conversation().
 *
 * What a trigger captures is worked out once for each trigger and backend, and
 * again when its table or a service changes. Nothing here depends on how many
 * rows a statement has: each row's memory is gone before the next one.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/partition.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

#include "voiding.h"

PG_FUNCTION_INFO_V1(voiding_emit_event);
PG_FUNCTION_INFO_V1(voiding_begin_conversation);

typedef struct CaptureColumn
{
	char	   *name;			/* in the event's data */
	int			attno;
	Oid			type;
	int32		typmod;
} CaptureColumn;

typedef struct Capture			/* what a trigger captures; one per trigger */
{
	Oid			trigger;		/* hash key */
	Oid			relid;
	uint64		generation;		/* of the definitions, when it was made */
	bool		valid;
	char	   *type;			/* of the event (NULL: as type_column says), or of the process that is to begin */
	char	   *source;			/* NULL: as source_column says */
	Oid			owner;			/* of the table */
	int			type_column;	/* attno */
	int			source_column;	/* attno */
	int			ncolumns;
	CaptureColumn *columns;
	MemoryContext memory;		/* of the strings and columns */
	int			subject;		/* attno */
	int			correlation;	/* attno, or 0 */
	int			becomes;		/* attno; it counts only when this column becomes ... */
	Datum		wanted;			/* ... this value */
	TypeCacheEntry *wanted_type;	/* (the backend keeps it) */
} Capture;

static HTAB *captures = NULL;

static void
capture_changed(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS seq;
	Capture    *c;

	hash_seq_init(&seq, captures);
	while ((c = hash_seq_search(&seq)) != NULL)
		if (relid == InvalidOid || c->relid == relid)
			c->valid = false;
}

static int
column_number(Relation rel, const char *name)
{
	int			attno = get_attnum(RelationGetRelid(rel), name);

	if (attno <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of relation \"%s\" does not exist",
						name, RelationGetRelationName(rel)),
				 errdetail("A trigger of emit_event() or begin_conversation() names it."),
				 errhint("Arguments are the event type or \"@type=column\", then columns (\"name\" or \"name=column\"), \"@subject=column\", \"@correlation=column\", \"@source=column\" and \"@becomes=column=value\".")));
	return attno;
}

static int
uuid_column(Relation rel, const char *name)
{
	int			attno = column_number(rel, name);

	if (get_atttype(RelationGetRelid(rel), attno) != UUIDOID)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" cannot hold a correlation id: it is not of type uuid",
						name)));
	return attno;
}

static void
add_column(Capture *c, Relation rel, const char *name, const char *column)
{
	CaptureColumn *col = &c->columns[c->ncolumns++];
	Form_pg_attribute att;

	col->name = pstrdup(name);
	col->attno = column_number(rel, column);
	att = TupleDescAttr(RelationGetDescr(rel), col->attno - 1);
	col->type = getBaseType(att->atttypid);
	col->typmod = att->atttypmod;
}

/* "column=value" */
static void
capture_becomes(Capture *c, Relation rel, const char *arg)
{
	const char *equals = strchr(arg, '=');
	char	   *value = equals ? pstrdup(equals + 1) : NULL;
	Form_pg_attribute att;
	Oid			input,
				param;

	c->becomes = column_number(rel, equals ? pnstrdup(arg, equals - arg) : arg);
	att = TupleDescAttr(RelationGetDescr(rel), c->becomes - 1);
	c->wanted_type = lookup_type_cache(att->atttypid, TYPECACHE_EQ_OPR_FINFO);
	if (value == NULL || !OidIsValid(c->wanted_type->eq_opr_finfo.fn_oid))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"@becomes=%s\" names no value that column \"%s\" can be compared with",
						arg, NameStr(att->attname)),
				 errhint("\"@becomes=column=value\"")));
	getTypeInputInfo(att->atttypid, &input, &param);
	c->wanted = OidInputFunctionCall(input, value, param, att->atttypmod);
}

static void
capture_argument(Capture *c, Relation rel, const char *arg)
{
	const char *equals = strchr(arg, '=');

	if (strncmp(arg, "@subject=", 9) == 0)
		c->subject = column_number(rel, arg + 9);
	else if (strncmp(arg, "@source=", 8) == 0)
		c->source_column = column_number(rel, arg + 8);
	else if (strncmp(arg, "@correlation=", 13) == 0)
		c->correlation = uuid_column(rel, arg + 13);
	else if (strncmp(arg, "@becomes=", 9) == 0)
		capture_becomes(c, rel, arg + 9);
	else if (equals)
		add_column(c, rel, pnstrdup(arg, equals - arg), equals + 1);
	else
		add_column(c, rel, arg, arg);
}

static void
capture_all_columns(Capture *c, Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);

	for (int i = 0; i < desc->natts; i++)
	{
		char	   *name = NameStr(TupleDescAttr(desc, i)->attname);

		if (!TupleDescAttr(desc, i)->attisdropped)
			add_column(c, rel, name, name);
	}
}

/* the service that owns the table's schema; without one, the schema's name */
static char *
source_of(Relation rel)
{
	Oid			relid = RelationGetRelid(rel);
	char	   *schema;
	char	   *service;

	if (rel->rd_rel->relispartition)
		relid = llast_oid(get_partition_ancestors(relid));
	schema = get_namespace_name(get_rel_namespace(relid));
	service = vd_service_of_schema(schema);
	if (service != NULL)
		return service;
	if (strcmp(schema, VD_ENGINE) == 0 || vd_service(schema, NULL, NULL))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("a table of schema \"%s\" cannot speak for the service of that name",
						schema),
				 errhint("Make the schema a service of its own with create_service().")));
	vd_event_check_name("source", schema, VD_MAX_NAME);
	return schema;
}

static void
fill_capture(Capture *c, TriggerData *td)
{
	Relation	rel = td->tg_relation;
	Trigger    *trg = td->tg_trigger;

	if (trg->tgnargs < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("trigger \"%s\" of relation \"%s\" does not say which event it emits",
						trg->tgname, RelationGetRelationName(rel)),
				 errhint("CREATE TRIGGER ... EXECUTE FUNCTION voiding.emit_event('EventType', 'column', ...)")));
	c->owner = rel->rd_rel->relowner;
	if (strncmp(trg->tgargs[0], "@type=", 6) == 0)
		c->type_column = column_number(rel, trg->tgargs[0] + 6);
	else
		vd_event_check_type(c->type = pstrdup(trg->tgargs[0]));
	c->columns = palloc(sizeof(CaptureColumn) *
						(trg->tgnargs + RelationGetDescr(rel)->natts));
	for (int i = 1; i < trg->tgnargs; i++)
		capture_argument(c, rel, trg->tgargs[i]);
	if (c->source_column == 0)
		c->source = source_of(rel);
	if (c->ncolumns == 0)
		capture_all_columns(c, rel);
	if (c->subject == 0)
		c->subject = c->columns[0].attno;
}

/* the same for begin_conversation(): where the id goes, and for what */
static void
fill_begin(Capture *c, TriggerData *td)
{
	Relation	rel = td->tg_relation;
	Trigger    *trg = td->tg_trigger;
	bool		wrong = trg->tgnargs < 1 || TRIGGER_FIRED_BY_DELETE(td->tg_event);

	for (int i = 1; i < trg->tgnargs && !wrong; i++)
		if (strncmp(trg->tgargs[i], "@process=", 9) == 0)
			c->type = pstrdup(trg->tgargs[i] + 9);
		else if (strncmp(trg->tgargs[i], "@becomes=", 9) == 0 || strncmp(trg->tgargs[i], "@subject=", 9) == 0)
			capture_argument(c, rel, trg->tgargs[i]);
		else
			wrong = true;
	if (wrong || (c->type != NULL) != (c->subject != 0))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("begin_conversation() takes a column, and no DELETE"),
				 errhint("More arguments can be \"@becomes=column=value\", and \"@process=type\" with \"@subject=column\".")));
	c->correlation = uuid_column(rel, trg->tgargs[0]);
}

/* What this trigger captures: worked out once, and again when something changes. */
static Capture *
capture_of(TriggerData *td, void (*fill) (Capture *, TriggerData *))
{
	Oid			id = td->tg_trigger->tgoid;
	Capture		fresh = {0};
	Capture    *c;
	bool		found;
	MemoryContext old;

	if (captures == NULL)
	{
		HASHCTL		ctl = {.keysize = sizeof(Oid),.entrysize = sizeof(Capture)};

		captures = hash_create("voiding captures", 32, &ctl, HASH_ELEM | HASH_BLOBS);
		CacheRegisterRelcacheCallback(capture_changed, (Datum) 0);
	}
	c = hash_search(captures, &id, HASH_FIND, NULL);
	if (c != NULL && c->valid && c->generation == vd_definitions_generation())
		return c;
	fill(&fresh, td);			/* may fail; then nothing is remembered */
	fresh.relid = RelationGetRelid(td->tg_relation);
	fresh.generation = vd_definitions_generation();
	fresh.valid = true;
	c = hash_search(captures, &id, HASH_ENTER, &found);
	if (found)					/* a row further out may be using it */
		MemoryContextSetParent(c->memory, TopTransactionContext);
	fresh.trigger = id;
	fresh.memory = AllocSetContextCreate(TopMemoryContext, "voiding capture",
										 ALLOCSET_SMALL_SIZES);
	*c = fresh;
	old = MemoryContextSwitchTo(c->memory);
	c->type = fresh.type ? pstrdup(fresh.type) : NULL;
	c->source = fresh.source ? pstrdup(fresh.source) : NULL;
	if (fresh.becomes)
		c->wanted = datumCopy(fresh.wanted, fresh.wanted_type->typbyval, fresh.wanted_type->typlen);
	c->columns = palloc(sizeof(CaptureColumn) * fresh.ncolumns);
	for (int i = 0; i < fresh.ncolumns; i++)
	{
		c->columns[i] = fresh.columns[i];
		c->columns[i].name = pstrdup(fresh.columns[i].name);
	}
	MemoryContextSwitchTo(old);
	return c;
}

static Jsonb *
captured_data(const Capture *c, HeapTuple tuple, TupleDesc desc)
{
	JsonbParseState *ps = NULL;

	pushJsonbValue(&ps, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < c->ncolumns; i++)
	{
		CaptureColumn *col = &c->columns[i];
		bool		isnull;
		Datum		d = heap_getattr(tuple, col->attno, desc, &isnull);

		vd_json_push(&ps, col->name, vd_json_datum(d, isnull, col->type, col->typmod));
	}
	return JsonbValueToJsonb(pushJsonbValue(&ps, WJB_END_OBJECT, NULL));
}

static char *
captured_subject(const Capture *c, HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;
	Datum		d = heap_getattr(tuple, c->subject, desc, &isnull);
	Form_pg_attribute att = TupleDescAttr(desc, c->subject - 1);
	char	   *subject = NULL;

	if (!isnull)				/* a JSON null is none either */
		subject = vd_json_text(vd_json_datum(d, false, getBaseType(att->atttypid),
											 att->atttypmod));
	if (subject == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("an event needs a subject, but column \"%s\" is null",
						NameStr(att->attname))));
	return subject;
}

/* a column of type text, or NULL */
static char *
text_column(int attno, HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;
	Datum		d = heap_getattr(tuple, attno, desc, &isnull);
	Oid			type = getBaseType(TupleDescAttr(desc, attno - 1)->atttypid);

	return isnull ? NULL : vd_json_text(vd_json_datum(d, false, type, -1));
}

/*
 * Type and source, where columns say them: false: there is no event. Of the
 * engine's own types only its own tables speak; for a service those whose owner
 * may.
 */
static bool
read_type_and_source(const Capture *c, VdEvent *ev, HeapTuple tuple, TupleDesc desc)
{
	ev->type = c->type;
	ev->source = c->source;
	if (c->type == NULL && (ev->type = text_column(c->type_column, tuple, desc)) == NULL)
		return false;
	if (c->source == NULL && (ev->source = text_column(c->source_column, tuple, desc)) == NULL)
		return false;
	if (c->type == NULL && get_rel_namespace(c->relid) != vd_schema_oid())
		vd_event_check_type(ev->type);
	if (c->source == NULL)
		vd_event_check_source(ev->source, c->owner);
	return true;
}

static void
capture_row(const Capture *c, HeapTuple tuple, TupleDesc desc)
{
	VdEvent		ev = {0};
	bool		isnull = true;
	Datum		row = (Datum) 0;

	if (!read_type_and_source(c, &ev, tuple, desc))
		return;
	ev.subject = captured_subject(c, tuple, desc);
	vd_event_check_name("subject", ev.subject, VD_MAX_KEY_BYTES);
	ev.data = captured_data(c, tuple, desc);
	if (c->correlation)
		row = heap_getattr(tuple, c->correlation, desc, &isnull);
	vd_event_stamp(&ev, isnull ? NULL : DatumGetUUIDP(row));
	vd_event_append(&ev);
}

static bool
is_wanted(const Capture *c, HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;
	Datum		d = heap_getattr(tuple, c->becomes, desc, &isnull);
	Oid			collation = TupleDescAttr(desc, c->becomes - 1)->attcollation;

	return !isnull && DatumGetBool(FunctionCall2Coll(&c->wanted_type->eq_opr_finfo, collation, d, c->wanted));
}

/* Does the change count? Cheaper than WHEN, which each statement reads and compiles anew. */
static bool
counts(const Capture *c, TriggerData *td)
{
	TupleDesc	desc = RelationGetDescr(td->tg_relation);

	if (c->becomes == 0)
		return true;
	if (TRIGGER_FIRED_BY_UPDATE(td->tg_event))
		return is_wanted(c, td->tg_newtuple, desc) && !is_wanted(c, td->tg_trigtuple, desc);
	return TRIGGER_FIRED_BY_INSERT(td->tg_event) && is_wanted(c, td->tg_trigtuple, desc);
}

static void
check_trigger(FunctionCallInfo fcinfo, bool after, const char *name)
{
	TriggerData *td = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_FOR_ROW(td->tg_event) ||
		TRIGGER_FIRED_AFTER(td->tg_event) != after)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("%s() must be the function of %s ... FOR EACH ROW trigger",
						name, after ? "an AFTER" : "a BEFORE")));
}

/*
 * voiding.emit_event(type | @type=column, [column | name=column |
 * @subject=column | @correlation=column | @source=column |
 * @becomes=column=value] ...): AFTER ROW trigger on any table. The event's data
 * are the columns named (all, when none is); its subject is the first of them
 * unless @subject says otherwise. No type, no event. For DELETE it is the old
 * row. With @becomes only when a row is inserted with this value, or updated to
 * it from another.
 *
 * Errors: 42703 unknown column; 22023 no or too long type or subject, nothing
 * to compare with; 22004 null subject; 39P01 not an AFTER ROW trigger. Locks
 * the process it moves.
 */
Datum
voiding_emit_event(PG_FUNCTION_ARGS)
{
	TriggerData *td = (TriggerData *) fcinfo->context;
	MemoryContext old,
				row;
	HeapTuple	tuple;
	Capture    *c;

	check_trigger(fcinfo, true, "emit_event");
	c = capture_of(td, fill_capture);
	if (!counts(c, td))
		return PointerGetDatum(NULL);
	tuple = TRIGGER_FIRED_BY_UPDATE(td->tg_event) ? td->tg_newtuple : td->tg_trigtuple;
	row = AllocSetContextCreate(CurrentMemoryContext, "voiding event", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(row);
	capture_row(c, tuple, RelationGetDescr(td->tg_relation));
	MemoryContextSwitchTo(old);
	MemoryContextDelete(row);
	return PointerGetDatum(NULL);
}

/*
 * voiding.begin_conversation(column, [@becomes=column=value], [@process=type,
 * @subject=column]): BEFORE ROW trigger; puts a new correlation id into the
 * column (uuid). Give emit_event() the same column as @correlation: a process
 * that its event starts has this id. @process and @subject: a failed process
 * of this type and key must have been acknowledged first.
 *
 * Errors: as above; VD09B the failure is not acknowledged.
 */
Datum
voiding_begin_conversation(PG_FUNCTION_ARGS)
{
	TriggerData *td = (TriggerData *) fcinfo->context;
	TupleDesc	desc;
	HeapTuple	tuple;
	const pg_uuid_t *id;
	Datum		value;
	bool		isnull = false;
	Capture    *c;

	check_trigger(fcinfo, false, "begin_conversation");
	desc = RelationGetDescr(td->tg_relation);
	tuple = TRIGGER_FIRED_BY_UPDATE(td->tg_event) ? td->tg_newtuple : td->tg_trigtuple;
	c = capture_of(td, fill_begin);
	if (!counts(c, td))
		return PointerGetDatum(tuple);
	if (c->type != NULL)
		vd_process_check_acknowledged(c->type, captured_subject(c, tuple, desc));
	id = vd_take_conversation();
	vd_last_begun = id ? *id : vd_uuid_new();
	value = UUIDPGetDatum(&vd_last_begun);
	return PointerGetDatum(heap_modify_tuple_by_cols(tuple, desc, 1, &c->correlation, &value, &isnull));
}
