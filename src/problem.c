/*
 * problem.c
 *	  What went wrong, as a problem of RFC 9457: type, title, status, detail,
 *	  instance, and beside them the SQLSTATE ("code") and the hint.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/builtins.h"

#include "voiding.h"
#include "http.h"

PG_FUNCTION_INFO_V1(voiding_problem);

typedef struct Kind
{
	const char *sqlstate;		/* or its class */
	int			status;			/* of HTTP */
	const char *title;
} Kind;

static const Kind kinds[] = {
	{"VD04A", 404, "There is no such document"},
	{"VD04B", 404, "There is no such process"},
	{"VD04C", 404, "There is nothing to publish"},
	{"VD04D", 404, "There is no such command"},
	{"VD04E", 404, "There is no such task"},
	{"VD09B", 409, "A failure is not acknowledged"},
	{"VD09C", 409, "It has changed meanwhile"},
	{"VD09D", 409, "Somebody else has it"},
	{"VD09E", 409, "This key was used for other content"},
	{"VD09F", 409, "The process failed"},
	{"VD10A", 410, "It is gone"},
	{"VD22B", 422, "An argument is missing, unknown or cannot be read"},
	{"42501", 403, "Not allowed"},
	{"42704", 404, "There is no such thing"},
	{"42883", 404, "There is no such function"},
	{"57014", 504, "It took too long or was given up"},
	{"P0002", 404, "It is not there"},
	{"VD", 422, "It was refused"},
	{"22", 422, "A value cannot be used"},
	{"23", 409, "It contradicts what is there"},
	{"P0", 422, "It was refused"},
	{"55", 409, "It is not possible in this state"},
	{"40", 503, "Others were faster; try again"},
	{"53", 503, "The server has no room"},
	{"57", 503, "The server was stopped"},
	{"08", 503, "The connection was lost"},
	{"", 500, "An error"}
};

static const Kind *
kind_of(const char *sqlstate)
{
	const Kind *k = kinds;

	while (strncmp(k->sqlstate, sqlstate, strlen(k->sqlstate)) != 0)
		k++;
	return k;
}

int
vd_problem_status(const char *sqlstate)
{
	return kind_of(sqlstate)->status;
}

Jsonb *
vd_problem(const char *sqlstate, const char *detail, const char *hint, const char *instance)
{
	const Kind *k = kind_of(sqlstate);
	JsonbParseState *ps = NULL;

	pushJsonbValue(&ps, WJB_BEGIN_OBJECT, NULL);
	vd_json_push_text(&ps, "type", psprintf("urn:voiding:error:%s", sqlstate));
	vd_json_push_text(&ps, "title", k->title);
	vd_json_push(&ps, "status", vd_json_datum(Int32GetDatum(k->status), false, INT4OID, -1));
	vd_json_push_text(&ps, "detail", detail);
	if (instance)
		vd_json_push_text(&ps, "instance", instance);
	vd_json_push_text(&ps, "code", sqlstate);
	if (hint)
		vd_json_push_text(&ps, "hint", hint);
	return JsonbValueToJsonb(pushJsonbValue(&ps, WJB_END_OBJECT, NULL));
}

/* what is wrong with a request, before anything is asked */
Jsonb *
vd_http_problem(int status, const char *title, const char *detail, const char *instance)
{
	JsonbParseState *ps = NULL;

	pushJsonbValue(&ps, WJB_BEGIN_OBJECT, NULL);
	vd_json_push_text(&ps, "type", "about:blank");
	vd_json_push_text(&ps, "title", title);
	vd_json_push(&ps, "status", vd_json_datum(Int32GetDatum(status), false, INT4OID, -1));
	vd_json_push_text(&ps, "detail", detail);
	vd_json_push_text(&ps, "instance", instance);
	return JsonbValueToJsonb(pushJsonbValue(&ps, WJB_END_OBJECT, NULL));
}

static char *
text_or_null(FunctionCallInfo fcinfo, int i)
{
	return PG_ARGISNULL(i) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(i));
}

/*
 * voiding.problem(sqlstate text, detail text, hint text, instance text)
 * RETURNS jsonb. Errors: 22004 without an SQLSTATE.
 */
Datum
voiding_problem(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"sqlstate\" must not be null")));
	PG_RETURN_JSONB_P(vd_problem(text_to_cstring(PG_GETARG_TEXT_PP(0)), text_or_null(fcinfo, 1), text_or_null(fcinfo, 2),
								 text_or_null(fcinfo, 3)));
}
