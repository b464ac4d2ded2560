/*
 * http.c
 *	  voiding.http(): one request of HTTP, answered with the rights of whoever
 *	  calls. It reads the request, finds its route (route.c), calls the function
 *	  of the route and makes a problem of what that raises.
 *
 * The functions of routes are internal, and run as the caller all the same: who
 * may do what is said by the rights on what they use. They are called by oid,
 * in a subtransaction: an error rolls back what the route has done.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/value.h"
#include "parser/parse_func.h"
#include "utils/builtins.h"
#include "utils/formatting.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "voiding.h"
#include "http.h"

#define MAX_BODY (1024 * 1024)	/* bytes */
#define MAX_PATH (8 * 1024)
#define LONGEST_WAIT 300		/* s that a client may ask for */
#define DEFAULT_WAIT 30			/* s for the representation, where it does not say */

PG_FUNCTION_INFO_V1(voiding_http);
PG_FUNCTION_INFO_V1(voiding_retry_after);
PG_FUNCTION_INFO_V1(voiding_command_object);

enum { Rq_method, Rq_path, Rq_parameters, Rq_query, Rq_headers, Rq_body, Rq_wait, Rq_representation, Rq_resources, Rq_natts };
enum { An_status, An_headers, An_body, An_wait, An_natts };

typedef struct Request
{
	char	   *method;
	char	   *path;			/* as it came, without the query string */
	Jsonb	   *query;
	Jsonb	   *headers;		/* names in lower case */
	char	   *body;			/* as it came, or NULL */
	VdHttpRoute *route;
	Jsonb	   *parameters;		/* those in the path */
	bool		reading;		/* the body is being read */
	HeapTupleHeader answer;
} Request;

typedef struct Refusal			/* of a request that is not asked */
{
	int			status;
	const char *title;
	const char *detail;
	char	   *allowed;		/* methods */
} Refusal;

static Refusal *
refuse(int status, const char *title, const char *detail)
{
	Refusal    *no = palloc0(sizeof(Refusal));

	no->status = status;
	no->title = title;
	no->detail = detail;
	return no;
}

/* ---- reading the request ---- */

static Jsonb *
object_argument(FunctionCallInfo fcinfo, int i)
{
	Jsonb	   *object = PG_ARGISNULL(i) ? vd_json_empty() : PG_GETARG_JSONB_P(i);

	return JB_ROOT_IS_OBJECT(object) ? object : NULL;
}

/* header names in lower case, values as texts */
static Jsonb *
lower_names(Jsonb *headers)
{
	JsonbIterator *it = JsonbIteratorInit(&headers->root);
	JsonbIteratorToken token;
	JsonbParseState *ps = NULL;
	JsonbValue	v;
	char	   *name = NULL;

	pushJsonbValue(&ps, WJB_BEGIN_OBJECT, NULL);
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			name = asc_tolower(v.val.string.val, v.val.string.len);
		else if (token == WJB_VALUE)
			vd_json_push_text(&ps, name, vd_json_text(&v));
	}
	return JsonbValueToJsonb(pushJsonbValue(&ps, WJB_END_OBJECT, NULL));
}

static char *
header(const Request *r, const char *name)
{
	return vd_json_text(vd_json_get(r->headers, name));
}

static bool
is_json(const char *content_type)
{
	size_t		len = content_type ? strcspn(content_type, "; \t") : 0;

	return content_type == NULL || (len == 16 && pg_strncasecmp(content_type, "application/json", len) == 0);
}

/* NULL: it can be asked */
static Refusal *
read_request(FunctionCallInfo fcinfo, Request *r)
{
	char	   *mark;

	r->method = PG_ARGISNULL(0) ? "" : text_to_cstring(PG_GETARG_TEXT_PP(0));
	r->path = PG_ARGISNULL(1) ? "" : text_to_cstring(PG_GETARG_TEXT_PP(1));
	r->query = object_argument(fcinfo, 2);
	r->headers = object_argument(fcinfo, 3);
	if (strlen(r->path) > MAX_PATH)
	{
		r->path[0] = '\0';
		return refuse(414, "The address is too long", psprintf("It may have %d bytes.", MAX_PATH));
	}
	if ((mark = strchr(r->path, '?')) != NULL)
	{
		*mark = '\0';
		r->query = r->query ? vd_http_query_string(mark + 1, r->query) : NULL;
	}
	if (r->query == NULL || r->headers == NULL)
		return refuse(400, "The request cannot be read", "The query string, and the headers, are names with values.");
	r->headers = lower_names(r->headers);
	if (PG_ARGISNULL(4))
		return NULL;
	if (toast_raw_datum_size(PG_GETARG_DATUM(4)) - VARHDRSZ > MAX_BODY)
		return refuse(413, "The body is too large", psprintf("It may have %d bytes.", MAX_BODY));
	r->body = text_to_cstring(PG_GETARG_TEXT_PP(4));
	if (*r->body == '\0')
		r->body = NULL;
	return NULL;
}

static Refusal *
find_route(Request *r)
{
	List	   *segments = vd_http_segments(r->path);
	char	   *allowed = NULL;
	Refusal    *no;

	if (segments == NIL)
		return refuse(400, "The request cannot be read", "The path begins with / and is text in the encoding of URLs.");
	r->route = vd_http_route(strcmp(r->method, "HEAD") == 0 ? "GET" : r->method, segments, &r->parameters, &allowed);
	if (r->route == NULL && allowed == NULL)
		return refuse(404, "There is nothing at this address", "GET /openapi.json tells what there is.");
	if (r->route == NULL)
	{
		no = refuse(405, "This method is not for this address", psprintf("It has: %s.", allowed));
		no->allowed = allowed;
		return no;
	}
	if (r->route->takes && r->body && !is_json(header(r, "content-type")))
		return refuse(415, "The body is of another type", "It must be application/json.");
	return NULL;
}

static Jsonb *
read_body(Request *r)
{
	Jsonb	   *body;
	bool		array = r->route->takes && strcmp(r->route->takes, "array") == 0;

	if (r->route->takes == NULL)
		return NULL;
	if (r->body == NULL && !array)
		return vd_json_empty();
	r->reading = true;
	body = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(r->body ? r->body : "[]")));
	r->reading = false;
	if (array ? !JB_ROOT_IS_ARRAY(body) || JB_ROOT_IS_SCALAR(body) : !JB_ROOT_IS_OBJECT(body))
		ereport(ERROR,
				(errcode(ERRCODE_VD_BAD_ARGUMENT),
				 errmsg("the body must be a JSON %s", r->route->takes)));
	return body;
}

/* ---- what the client prefers (RFC 7240) ---- */

/* the value of a preference, "" without one, NULL: it is not there */
static char *
preference(const char *prefer, const char *name)
{
	size_t		len = strlen(name);

	while (prefer && *prefer)
	{
		size_t		part;

		prefer += strspn(prefer, ",; \t");
		part = strcspn(prefer, ",;");
		if (part >= len && pg_strncasecmp(prefer, name, len) == 0 && (part == len || strchr("= \t", prefer[len])))
		{
			const char *value = prefer + len + strspn(prefer + len, "= \t\"");

			return pnstrdup(value, strcspn(value, ",; \t\""));
		}
		prefer += part;
	}
	return NULL;
}

static void
read_preferences(const Request *r, int *wait, bool *representation)
{
	char	   *prefer = header(r, "prefer");
	char	   *seconds = preference(prefer, "wait");
	char	   *what = preference(prefer, "return");

	*representation = what && pg_strcasecmp(what, "representation") == 0;
	*wait = seconds ? Max(0, Min(atoi(seconds), LONGEST_WAIT)) : 0;
	if (seconds == NULL && *representation && preference(prefer, "respond-async") == NULL)
		*wait = DEFAULT_WAIT;
}

/* ---- asking ---- */

static Jsonb *
member(const char *name, const char *value)
{
	JsonbParseState *ps = NULL;

	pushJsonbValue(&ps, WJB_BEGIN_OBJECT, NULL);
	vd_json_push_text(&ps, name, value);
	return JsonbValueToJsonb(pushJsonbValue(&ps, WJB_END_OBJECT, NULL));
}

/* a query has its name and its arguments from the path and from the query string */
static char *
merge_arguments(Request *r)
{
	if (r->route->query == NULL)
		return vd_json_text(vd_json_get(r->parameters, "name"));
	r->query = vd_json_concat(r->query, r->parameters);
	r->parameters = member("name", r->route->query);
	return r->route->query;
}

static Datum
resources_of(Request *r, const char *query)
{
	List	   *resources = vd_http_resources(query, r->query);
	Datum	   *values = palloc(sizeof(Datum) * (list_length(resources) + 1));
	int			n = 0;
	ListCell   *lc;

	foreach(lc, resources)
		values[n++] = CStringGetTextDatum(lfirst(lc));
	return PointerGetDatum(construct_array(values, n, TEXTOID, -1, false, TYPALIGN_INT));
}

/* the argument of a route's function */
static Datum
as_row(Request *r, TupleDesc desc)
{
	Datum		v[Rq_natts];
	bool		n[Rq_natts] = {false};
	Jsonb	   *body = read_body(r);
	int			wait;
	bool		representation;

	read_preferences(r, &wait, &representation);
	n[Rq_resources] = strcmp(r->route->operation, "query") != 0;
	if (!n[Rq_resources])
		v[Rq_resources] = resources_of(r, merge_arguments(r));
	else if (r->route->query)
		r->parameters = vd_json_concat(r->parameters, member("name", r->route->query));
	v[Rq_method] = CStringGetTextDatum(r->method);
	v[Rq_path] = CStringGetTextDatum(r->path);
	v[Rq_parameters] = JsonbPGetDatum(r->parameters);
	v[Rq_query] = JsonbPGetDatum(r->query);
	v[Rq_headers] = JsonbPGetDatum(r->headers);
	v[Rq_body] = JsonbPGetDatum(body);
	n[Rq_body] = body == NULL;
	v[Rq_wait] = Int32GetDatum(wait);
	v[Rq_representation] = BoolGetDatum(representation);
	return HeapTupleGetDatum(heap_form_tuple(desc, v, n));
}

static void
ask(void *arg)
{
	Request    *r = arg;
	Oid			type = GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid, CStringGetDatum("http_request"),
								   ObjectIdGetDatum(vd_schema_oid()));
	TupleDesc	desc = lookup_rowtype_tupdesc_copy(type, -1);
	List	   *name = list_make2(makeString("voiding"), makeString(psprintf("http_%s", r->route->operation)));
	Datum		request = as_row(r, BlessTupleDesc(desc));

	r->answer = DatumGetHeapTupleHeaderCopy(OidFunctionCall1(LookupFuncName(name, 1, &type, false), request));
}

/* ---- answering ---- */

static Jsonb *
with_header(Jsonb *headers, const char *name, const char *value)
{
	return vd_json_concat(member(name, value), headers);
}

static Datum
answer(FunctionCallInfo fcinfo, Datum *v, bool *n)
{
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "http() returns a row");
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), v, n));
}

static Datum
answer_problem(FunctionCallInfo fcinfo, Jsonb *problem, int status, const char *allowed)
{
	Jsonb	   *headers = with_header(vd_json_empty(), "Content-Type", "application/problem+json");
	Datum		v[An_natts];
	bool		n[An_natts] = {[An_wait] = true};

	headers = with_header(headers, "Cache-Control", "no-store");
	if (allowed)
		headers = with_header(headers, "Allow", allowed);
	if (status == 503 || status == 429)
		headers = with_header(headers, "Retry-After", "1");
	v[An_status] = Int32GetDatum(status);
	v[An_headers] = JsonbPGetDatum(headers);
	v[An_body] = CStringGetTextDatum(JsonbToCString(NULL, &problem->root, VARSIZE(problem)));
	return answer(fcinfo, v, n);
}

static Datum
answer_error(FunctionCallInfo fcinfo, const Request *r, const ErrorData *e)
{
	const char *sqlstate = unpack_sql_state(e->sqlerrcode);
	char	   *detail = e->detail ? psprintf("%s: %s", e->message, e->detail) : e->message;
	int			status = vd_problem_status(sqlstate);

	if (r->reading && (ERRCODE_TO_CATEGORY(e->sqlerrcode) == ERRCODE_DATA_EXCEPTION ||
					   ERRCODE_TO_CATEGORY(e->sqlerrcode) == ERRCODE_PROGRAM_LIMIT_EXCEEDED))
		return answer_problem(fcinfo, vd_http_problem(400, "The body is not JSON", detail, r->path), 400, NULL);
	if (status == 500)
		ereport(LOG,
				(errcode(e->sqlerrcode),
				 errmsg("%s %s failed: %s", r->method, r->path, detail)));
	return answer_problem(fcinfo, vd_problem(sqlstate, detail, e->hint, r->path), status, NULL);
}

/* what the function of a route has answered, with the headers that all have */
static Datum
answer_row(FunctionCallInfo fcinfo, const Request *r)
{
	TupleDesc	desc;
	HeapTupleData row = {.t_len = HeapTupleHeaderGetDatumLength(r->answer),.t_data = r->answer};
	Datum		v[An_natts];
	bool		n[An_natts];
	Jsonb	   *headers;

	desc = lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(r->answer), HeapTupleHeaderGetTypMod(r->answer));
	heap_deform_tuple(&row, desc, v, n);
	ReleaseTupleDesc(desc);
	headers = n[An_headers] ? vd_json_empty() : DatumGetJsonbP(v[An_headers]);
	if (!n[An_body])
		headers = with_header(headers, "Content-Type", "application/json");
	headers = with_header(headers, "Cache-Control", "no-store");
	v[An_headers] = JsonbPGetDatum(headers);
	n[An_headers] = false;
	n[An_body] |= strcmp(r->method, "HEAD") == 0;
	return answer(fcinfo, v, n);
}

/*
 * voiding.http(method text, path text, query jsonb, headers jsonb, body text)
 * RETURNS voiding.http_answer (status, headers, body, wait). doc/http.md says
 * what the routes are, and what wait asks for.
 *
 * Errors: those that are about the session or the transaction as a whole:
 * 57014, and 40001 under REPEATABLE READ and SERIALIZABLE. Times are in UTC.
 */
Datum
voiding_http(PG_FUNCTION_ARGS)
{
	Request		r = {0};
	Refusal    *no = read_request(fcinfo, &r);
	ErrorData  *error = NULL;
	VdIdentity	saved;

	if (no == NULL)
		no = find_route(&r);
	if (no != NULL)
		return answer_problem(fcinfo, vd_http_problem(no->status, no->title, no->detail, r.path), no->status, no->allowed);
	vd_become(&saved, GetUserId(), "pg_catalog, pg_temp");
	(void) set_config_option("TimeZone", "UTC", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	error = vd_attempt(ask, &r);
	vd_return(&saved);
	return error ? answer_error(fcinfo, &r, error) : answer_row(fcinfo, &r);
}

/* ---- commands ---- */

#define KEEP_ESTIMATE 1000000	/* us */
#define MAX_ESTIMATES 64

typedef struct Estimate			/* of a type of commands, as of lately */
{
	char		type[VD_MAX_NAME + 1];
	TimestampTz at;
	int			seconds;
} Estimate;

/*
 * voiding.retry_after(command_id uuid, type text) RETURNS integer: whole
 * seconds until a command that is open will probably be done, 1 to 3600. An
 * estimate looks at many rows; one for each type and second must do.
 */
Datum
voiding_retry_after(PG_FUNCTION_ARGS)
{
	static Estimate estimates[MAX_ESTIMATES];
	Oid			type = UUIDOID;
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(1));
	Estimate   *e = &estimates[hash_bytes((unsigned char *) name, strlen(name)) % MAX_ESTIMATES];
	TimestampTz now = vd_now();
	LOCAL_FCINFO(call, 1);
	FmgrInfo	fn;
	Datum		at;

	if (strcmp(e->type, name) == 0 && now >= e->at && now - e->at < KEEP_ESTIMATE)
		PG_RETURN_INT32(e->seconds);
	fmgr_info(LookupFuncName(list_make2(makeString("voiding"), makeString("estimate_command")), 1, &type, false), &fn);
	InitFunctionCallInfoData(*call, &fn, 1, InvalidOid, NULL, NULL);
	call->args[0].value = PG_GETARG_DATUM(0);
	call->args[0].isnull = false;
	at = FunctionCallInvoke(call);
	e->seconds = call->isnull ? 1
		: (int) Max(1, Min(3600, (DatumGetTimestampTz(at) - now + USECS_PER_SEC - 1) / USECS_PER_SEC));
	strlcpy(e->type, name, sizeof(e->type));
	e->at = now;
	PG_RETURN_INT32(e->seconds);
}

/*
 * voiding.command_object(command voiding.command) RETURNS jsonb: a command as
 * clients see it. Times are in UTC.
 */
Datum
voiding_command_object(PG_FUNCTION_ARGS)
{
	static const struct
	{
		int			column;
		Oid			type;
		const char *name;
	}			members[] = {
		{Cm_id, UUIDOID, "command_id"}, {Cm_type, TEXTOID, "type"}, {Cm_status, TEXTOID, "status"},
		{Cm_resource, TEXTOID, "resource"}, {Cm_result, JSONBOID, "result"}, {Cm_error, JSONBOID, "error"},
		{Cm_process_id, UUIDOID, "process_id"}, {Cm_accepted_at, TIMESTAMPTZOID, "accepted_at"},
		{Cm_finished_at, TIMESTAMPTZOID, "finished_at"}, {Cm_not_before, TIMESTAMPTZOID, "not_before"},
		{Cm_start_by, TIMESTAMPTZOID, "start_by"}, {Cm_idempotency_key, TEXTOID, "idempotency_key"}
	};
	HeapTupleHeader c = PG_GETARG_HEAPTUPLEHEADER(0);
	JsonbParseState *ps = NULL;
	Datum		id = (Datum) 0;

	pushJsonbValue(&ps, WJB_BEGIN_OBJECT, NULL);
	for (size_t i = 0; i < lengthof(members); i++)
	{
		bool		isnull;
		Datum		v = GetAttributeByNum(c, members[i].column + 1, &isnull);

		if (members[i].column == Cm_id)
			id = v;
		if (!isnull || i < 7 || members[i].column == Cm_finished_at)
			vd_json_push(&ps, members[i].name, vd_json_datum(v, isnull, members[i].type, -1));
	}
	vd_json_push_text(&ps, "self", psprintf("/commands/%s", vd_uuid_text(DatumGetUUIDP(id))));
	PG_RETURN_JSONB_P(JsonbValueToJsonb(pushJsonbValue(&ps, WJB_END_OBJECT, NULL)));
}
