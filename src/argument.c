/*
 * argument.c
 *	  The arguments of a handler: by name from a message's payload, from its
 *	  envelope, or their defaults. One that takes a set gets arrays.
 */
#include "postgres.h"

#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "voiding.h"
#include "handler.h"

/* ---- binding to the function ---- */

static void
bind_argument(VdArgument *a, char *name, Oid type, bool takes_set, MemoryContext memory)
{
	Oid			in;

	if (takes_set)
		type = get_base_element_type(type);
	a->name = name;
	a->type = type;
	a->base = getBaseType(type);
	getTypeInputInfo(type, &in, &a->ioparam);
	fmgr_info_cxt(in, &a->in, memory);
}

/* memory: where it stays */
void
vd_bind_arguments(VdHandler *h, HeapTuple tup, MemoryContext memory)
{
	Oid		   *types;
	char	  **names;
	char	   *modes;
	int			n = get_func_arg_info(tup, &types, &names, &modes);

	h->nargs = 0;
	for (int i = 0; i < n && h->nargs < VD_MAX_ARGS; i++)
		if (modes == NULL || modes[i] == PROARGMODE_IN)
			bind_argument(&h->args[h->nargs++], names ? names[i] : "", types[i], h->takes_set, memory);
}

/* ---- values ---- */

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
evaluate(const char *expression, const VdArgument *a, Jsonb *parameter, bool *isnull)
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

/* "@...": the message itself, for handlers of the engine */
static char *
whole(const VdMessage *m, const char *name)
{
	if (strcmp(name, "destination") == 0)
		return m->destination;
	if (strcmp(name, "type") == 0)
		return m->type;
	if (strcmp(name, "position") == 0)
		return psprintf(INT64_FORMAT, m->seq);
	if (strcmp(name, "message_id") == 0)
		return vd_uuid_text(&m->id);
	if (strcmp(name, "correlation_id") == 0)
		return vd_uuid_text(&m->correlation);
	return JsonbToCString(NULL, &m->payload->root, VARSIZE(m->payload));
}

/* what the envelope gives where the payload says nothing */
static char *
envelope(const VdHandler *h, const VdMessage *m, const char *name)
{
	if (h->is_query)
		return NULL;
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
default_value(VdHandler *h, int i, const VdMessage *m, bool *isnull)
{
	LOCAL_FCINFO(fcinfo, 2);
	Datum		d;

	if (i < h->nargs - h->ndefaults && h->is_query)
		ereport(ERROR,
				(errcode(ERRCODE_VD_BAD_ARGUMENT),
				 errmsg("query \"%s\" needs argument \"%s\"", m->type, h->args[i].name),
				 errhint("Its arguments are those of %s.", h->function)));
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
from_json(VdArgument *a, JsonbValue *v, bool *isnull)
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
argument(VdHandler *h, int i, const VdMessage *m, bool *isnull)
{
	VdArgument *a = &h->args[i];
	bool		is_whole = *a->name == '@' && !h->is_query;
	JsonbValue *v = is_whole ? NULL : vd_json_get(m->payload, a->name);
	char	   *text = is_whole ? whole(m, a->name + 1) : v ? NULL : envelope(h, m, a->name);

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
array_argument(VdHandler *h, int i, VdMessage **messages, int n)
{
	VdArgument *a = &h->args[i];
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

/* argument i of a call for n messages; of one that takes no set, for the first */
Datum
vd_argument(VdHandler *h, int i, VdMessage **messages, int n, bool *isnull)
{
	*isnull = false;
	return h->takes_set ? array_argument(h, i, messages, n)
		: argument(h, i, messages[0], isnull);
}

/* ---- checking what is sent ---- */

static const char *
kind_of(const VdHandler *h)
{
	return h->is_query ? "query" : "command";
}

/* what an input function, or the constraint of a domain, says no with */
static bool
is_unreadable(const ErrorData *e)
{
	return ERRCODE_TO_CATEGORY(e->sqlerrcode) == ERRCODE_DATA_EXCEPTION ||
		e->sqlerrcode == ERRCODE_CHECK_VIOLATION || e->sqlerrcode == ERRCODE_NOT_NULL_VIOLATION;
}

static bool
has_argument(VdHandler *h, const char *name, int len)
{
	for (int i = 0; i < h->nargs; i++)
		if ((int) strlen(h->args[i].name) == len && strncmp(h->args[i].name, name, len) == 0)
			return true;
	return false;
}

static void
refuse_unknown(VdHandler *h, VdMessage *m)
{
	JsonbIterator *it = JsonbIteratorInit(&m->payload->root);
	JsonbValue	v;
	JsonbIteratorToken token;

	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
		if (token == WJB_KEY && !has_argument(h, v.val.string.val, v.val.string.len))
			ereport(ERROR,
					(errcode(ERRCODE_VD_BAD_ARGUMENT),
					 errmsg("%s \"%s\" has no argument \"%.*s\"", kind_of(h), m->type,
							Min(v.val.string.len, 100), v.val.string.val),
					 errhint("Its arguments are those of %s.", h->function)));
}

/*
 * Could the handler be called with this message? values: where to put what it
 * would be called with. Errors: VD22B, with what the type's own input function
 * says in the detail.
 */
void
vd_check_arguments(VdHandler *h, VdMessage *m, NullableDatum *values)
{
	MemoryContext context = CurrentMemoryContext;
	volatile int i = 0;

	refuse_unknown(h, m);
	PG_TRY();
	{
		for (; i < h->nargs; i++)
		{
			values[i].isnull = false;
			values[i].value = argument(h, i, m, &values[i].isnull);
		}
	}
	PG_CATCH();
	{
		ErrorData  *e;

		MemoryContextSwitchTo(context);
		e = CopyErrorData();
		if (e->sqlerrcode == ERRCODE_VD_BAD_ARGUMENT || !is_unreadable(e))
			PG_RE_THROW();
		FlushErrorState();
		ereport(ERROR,
				(errcode(ERRCODE_VD_BAD_ARGUMENT),
				 errmsg("argument \"%s\" of %s \"%s\" cannot be read", h->args[i].name, kind_of(h), m->type),
				 errdetail_internal("%s", e->message)));
	}
	PG_END_TRY();
}
