/*
 * json.c
 *	  Values: from columns to JSON, and what a "$..." of a definition means.
 *
 * PostgreSQL's own jsonb and jsonpath do the work. A path that only names
 * members ("$.event.reason") is followed directly; all others go to the
 * jsonpath executor. Errors inside a path give null, never an error, because
 * they would hit the service whose row change is being looked at.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/jsonpath.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"

#include "voiding.h"

static JsonbValue null_value = {.type = jbvNull};

JsonbValue *
vd_json_string(const char *s)
{
	JsonbValue *v = palloc(sizeof(JsonbValue));

	v->type = jbvString;
	v->val.string.val = (char *) s;
	v->val.string.len = strlen(s);
	return v;
}

/* member of a JSON object, or NULL */
JsonbValue *
vd_json_get(Jsonb *object, const char *name)
{
	if (object == NULL || !JB_ROOT_IS_OBJECT(object))
		return NULL;
	return getKeyJsonValueFromContainer(&object->root, name, strlen(name), NULL);
}

/* the value as text, or NULL for null */
char *
vd_json_text(const JsonbValue *v)
{
	switch (v == NULL ? jbvNull : v->type)
	{
		case jbvNull:
			return NULL;
		case jbvString:
			return pnstrdup(v->val.string.val, v->val.string.len);
		case jbvNumeric:
			return DatumGetCString(DirectFunctionCall1(numeric_out,
													   NumericGetDatum(v->val.numeric)));
		case jbvBool:
			return pstrdup(v->val.boolean ? "true" : "false");
		default:
			{
				Jsonb	   *jb = JsonbValueToJsonb((JsonbValue *) v);

				return JsonbToCString(NULL, &jb->root, VARSIZE(jb));
			}
	}
}

Jsonb *
vd_json_empty(void)
{
	JsonbParseState *ps = NULL;

	pushJsonbValue(&ps, WJB_BEGIN_OBJECT, NULL);
	return JsonbValueToJsonb(pushJsonbValue(&ps, WJB_END_OBJECT, NULL));
}

/* the members of a, then those of b; b wins */
Jsonb *
vd_json_concat(Jsonb *a, Jsonb *b)
{
	return DatumGetJsonbP(DirectFunctionCall2(jsonb_concat, JsonbPGetDatum(a),
											  JsonbPGetDatum(b)));
}

void
vd_json_push(JsonbParseState **ps, const char *name, JsonbValue *v)
{
	pushJsonbValue(ps, WJB_KEY, vd_json_string(name));
	pushJsonbValue(ps, WJB_VALUE, v ? v : &null_value);
}

void
vd_json_push_text(JsonbParseState **ps, const char *name, const char *s)
{
	vd_json_push(ps, name, s ? vd_json_string(s) : NULL);
}

/* ---- paths ---- */

static JsonbValue *
jsonb_as_value(Jsonb *jb)
{
	JsonbValue *v = palloc(sizeof(JsonbValue));

	if (jb == NULL)
		return NULL;
	if (JB_ROOT_IS_SCALAR(jb))
	{
		JsonbExtractScalar(&jb->root, v);
		return v;
	}
	v->type = jbvBinary;
	v->val.binary.data = &jb->root;
	v->val.binary.len = VARSIZE(jb) - VARHDRSZ;
	return v;
}

static JsonbValue *
scope_member(const VdScope *scope, const char *name, int len)
{
#define IS(word) (len == (int) strlen(word) && strncmp(name, word, len) == 0)
	if (IS("process"))
		return jsonb_as_value(scope->process);
	if (IS("event"))
		return jsonb_as_value(scope->event);
	if (IS("item"))
		return scope->item;
	if (IS("key"))
		return scope->key ? vd_json_string(scope->key) : NULL;
	if (IS("process_id"))
		return scope->process_id ? vd_json_string(vd_uuid_text(scope->process_id)) : NULL;
#undef IS
	return NULL;
}

/*
 * Follow "$.a.b.c". Returns false where the path is more than that, or meets
 * an array on its way (jsonpath would look into it).
 */
static bool
follow_names(const char *path, const VdScope *scope, JsonbValue **result)
{
	const char *p = path + 1;
	JsonbValue *v = NULL;
	bool		first = true;

	while (*p == '.')
	{
		const char *start = ++p;

		if (!(isalpha((unsigned char) *p) || *p == '_'))
			return false;
		while (isalnum((unsigned char) *p) || *p == '_')
			p++;
		if (first)
			v = scope_member(scope, start, p - start);
		else if (v != NULL && v->type == jbvBinary)
		{
			if (!JsonContainerIsObject(v->val.binary.data))
				return false;
			v = getKeyJsonValueFromContainer(v->val.binary.data, start, p - start, NULL);
		}
		else
			v = NULL;
		first = false;
	}
	*result = v;
	return *p == '\0' && !first;
}

static Jsonb *
scope_json(const VdScope *scope)
{
	static const char *const names[] = {"process", "event", "item", "key", "process_id"};
	JsonbParseState *ps = NULL;

	pushJsonbValue(&ps, WJB_BEGIN_OBJECT, NULL);
	for (size_t i = 0; i < lengthof(names); i++)
	{
		JsonbValue *v = scope_member(scope, names[i], strlen(names[i]));

		if (v != NULL)
			vd_json_push(&ps, names[i], v);
	}
	return JsonbValueToJsonb(pushJsonbValue(&ps, WJB_END_OBJECT, NULL));
}

/* settings that decide how values are read and written: nothing may depend on them */
static void
pin_settings(void)
{
	static const char *const pinned[][2] = {
		{"TimeZone", "UTC"}, {"DateStyle", "ISO, MDY"}, {"IntervalStyle", "postgres"},
		{"extra_float_digits", "1"}, {"bytea_output", "hex"}
	};

	for (size_t i = 0; i < lengthof(pinned); i++)
		if (strcmp(GetConfigOption(pinned[i][0], false, false), pinned[i][1]) != 0)
			(void) set_config_option(pinned[i][0], pinned[i][1], PGC_USERSET, PGC_S_SESSION,
									 GUC_ACTION_SAVE, true, 0, false);
}

/* one of the jsonb_path_ functions over the scope, silent; NULL for no result */
static Datum
path_call(PGFunction fn, const char *path, const VdScope *scope, bool *isnull)
{
	LOCAL_FCINFO(fcinfo, 4);
	int			level = NewGUCNestLevel();
	Datum		result;

	pin_settings();
	InitFunctionCallInfoData(*fcinfo, NULL, 4, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = JsonbPGetDatum(scope_json(scope));
	fcinfo->args[1].value = DirectFunctionCall1(jsonpath_in, CStringGetDatum(path));
	fcinfo->args[2].value = JsonbPGetDatum(vd_json_empty());
	fcinfo->args[3].value = BoolGetDatum(true);
	for (int i = 0; i < 4; i++)
		fcinfo->args[i].isnull = false;
	result = fn(fcinfo);
	AtEOXact_GUC(false, level);
	*isnull = fcinfo->isnull;
	return result;
}

static JsonbValue *
path_value(const char *path, const VdScope *scope)
{
	JsonbValue *v = NULL;
	bool		isnull;
	Datum		d;

	if (follow_names(path, scope, &v))
		return v ? v : &null_value;
	d = path_call(jsonb_path_query_first_tz, path, scope, &isnull);
	return isnull ? &null_value : jsonb_as_value(DatumGetJsonbP(d));
}

/* does the guard hold? No guard always does, a guard in error never. */
bool
vd_json_guard(const char *guard, const VdScope *scope)
{
	bool		isnull;
	Datum		d;

	if (guard == NULL)
		return true;
	d = path_call(jsonb_path_match_tz, guard, scope, &isnull);
	return !isnull && DatumGetBool(d);
}

/* the items that "each" stands for, as a list of JsonbValue */
List *
vd_json_each(const char *path, const VdScope *scope)
{
	bool		isnull;
	Datum		d = path_call(jsonb_path_query_array_tz, path, scope, &isnull);
	JsonbIterator *it;
	JsonbValue	v;
	List	   *items = NIL;
	JsonbIteratorToken tok;

	if (isnull)
		return NIL;
	it = JsonbIteratorInit(&DatumGetJsonbP(d)->root);
	while ((tok = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
		if (tok == WJB_ELEM)
		{
			JsonbValue *copy = palloc(sizeof(JsonbValue));

			*copy = v;
			items = lappend(items, copy);
		}
	return items;
}

static void push_evaluated(JsonbParseState **ps, JsonbContainer *c, const VdScope *scope,
						   JsonbValue **result);

/* a value of a definition: "$..." is looked up, anything else stands for itself */
JsonbValue *
vd_json_value(JsonbValue *v, const VdScope *scope)
{
	if (v->type == jbvString && v->val.string.len > 0 && v->val.string.val[0] == '$')
		return path_value(pnstrdup(v->val.string.val, v->val.string.len), scope);
	if (v->type == jbvBinary)
	{
		JsonbParseState *ps = NULL;
		JsonbValue *result = NULL;

		push_evaluated(&ps, v->val.binary.data, scope, &result);
		return result;
	}
	return v;
}

static void
push_evaluated(JsonbParseState **ps, JsonbContainer *c, const VdScope *scope,
			   JsonbValue **result)
{
	JsonbIterator *it = JsonbIteratorInit(c);
	JsonbIteratorToken tok;
	JsonbValue	v;

	check_stack_depth();
	while ((tok = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (tok == WJB_VALUE || tok == WJB_ELEM)
			*result = pushJsonbValue(ps, tok, vd_json_value(&v, scope));
		else
			*result = pushJsonbValue(ps, tok, tok == WJB_KEY ? &v : NULL);
	}
}

/* an object of a definition with its values looked up */
Jsonb *
vd_json_object(JsonbValue *object, const VdScope *scope)
{
	return JsonbValueToJsonb(vd_json_value(object, scope));
}

/* ---- columns ---- */

static JsonbValue *
numeric_value(Numeric n)
{
	JsonbValue *v;

	if (numeric_is_nan(n) || numeric_is_inf(n))
		return vd_json_string(DatumGetCString(DirectFunctionCall1(numeric_out,
																  NumericGetDatum(n))));
	v = palloc(sizeof(JsonbValue));
	v->type = jbvNumeric;
	v->val.numeric = n;
	return v;
}

/* any other type: what to_jsonb() makes of it */
static JsonbValue *
other_value(Datum value, Oid type, int32 typmod)
{
	int			level = NewGUCNestLevel();
	JsonbValue *result;
	LOCAL_FCINFO(fcinfo, 1);
	FmgrInfo	flinfo;
	Const	   *arg = makeConst(type, typmod, get_typcollation(type), -1, (Datum) 0, true, false);

	fmgr_info(F_TO_JSONB, &flinfo);
	fmgr_info_set_expr((Node *) makeFuncExpr(F_TO_JSONB, JSONBOID, list_make1(arg),
											 InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL),
					   &flinfo);
	InitFunctionCallInfoData(*fcinfo, &flinfo, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = value;
	fcinfo->args[0].isnull = false;
	pin_settings();
	result = jsonb_as_value(DatumGetJsonbP(FunctionCallInvoke(fcinfo)));
	AtEOXact_GUC(false, level);
	return result;
}

/*
 * A column's value in JSON. Times are written in UTC, so that an event does
 * not depend on the time zone of the session that made it.
 */
JsonbValue *
vd_json_datum(Datum value, bool isnull, Oid type, int32 typmod)
{
	const int	utc = 0;
	JsonbValue *v;

	if (isnull)
		return &null_value;
	switch (type)
	{
		case TEXTOID:
		case VARCHAROID:
			return vd_json_string(TextDatumGetCString(value));
		case UUIDOID:
			return vd_json_string(vd_uuid_text(DatumGetUUIDP(value)));
		case NUMERICOID:
			return numeric_value(DatumGetNumeric(value));
		case INT2OID:
			return numeric_value(int64_to_numeric(DatumGetInt16(value)));
		case INT4OID:
			return numeric_value(int64_to_numeric(DatumGetInt32(value)));
		case INT8OID:
			return numeric_value(int64_to_numeric(DatumGetInt64(value)));
		case BOOLOID:
			v = palloc(sizeof(JsonbValue));
			v->type = jbvBool;
			v->val.boolean = DatumGetBool(value);
			return v;
		case TIMESTAMPTZOID:
			return vd_json_string(JsonEncodeDateTime(NULL, value, type, &utc));
		case JSONBOID:
			return jsonb_as_value(DatumGetJsonbP(value));
		default:
			return other_value(value, type, typmod);
	}
}
