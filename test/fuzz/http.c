/*
 * http.c
 *	  voiding.http() under libFuzzer, in a backend: the library is built for it
 *	  as a whole, with UBSan, and this is put beside it. test/fuzz/http has
 *	  requests to begin with: METHOD TARGET, headers, an empty line, the body.
 *
 * Each request is a subtransaction, which is rolled back. It has an answer with
 * a status that there is, which is text, and JSON where it says so; none is a
 * 500, and nothing is raised but what doc/http.md says.
 *
 * CREATE FUNCTION fuzz_http(arguments text[]): the arguments of libFuzzer. The
 * backend ends with it.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/value.h"
#include "parser/parse_func.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "voiding.h"

extern int	LLVMFuzzerRunDriver(int *argc, char ***argv, int (*one) (const uint8_t *data, size_t size));
extern size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most);
extern size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed);

PG_FUNCTION_INFO_V1(fuzz_http);

static FmgrInfo http;

static void
breach(const char *what)
{
	fprintf(stderr, "BREACH: %s\n", what);
	abort();
}

/* "Name: value" lines up to an empty one, or to the end; what is behind that */
static char *
read_headers(char *text, JsonbParseState **ps)
{
	char	   *line;

	while (text && (line = strsep(&text, "\n")) != NULL && *line)
	{
		char	   *value = strstr(line, ": ");

		if (value == NULL)
			continue;
		*value = '\0';
		vd_json_push_text(ps, line, value + 2);
	}
	return text;
}

static void
check(HeapTupleHeader answer)
{
	bool		isnull;
	int			status = DatumGetInt32(GetAttributeByName(answer, "status", &isnull));
	Datum		headers;
	Datum		body;
	char	   *type;

	if (isnull || status < 200 || status > 599 || status == 500)
		breach(psprintf("status %d", status));
	headers = GetAttributeByName(answer, "headers", &isnull);
	type = isnull ? NULL : vd_json_text(vd_json_get(DatumGetJsonbP(headers), "Content-Type"));
	body = GetAttributeByName(answer, "body", &isnull);
	if (isnull)
		return;
	if (!pg_verifymbstr(VARDATA_ANY(DatumGetTextPP(body)), VARSIZE_ANY_EXHDR(DatumGetTextPP(body)), true))
		breach("a body that is no text");
	if (type && strstr(type, "json"))
		DirectFunctionCall1(jsonb_in, CStringGetDatum(TextDatumGetCString(body)));
}

static void
ask(char *text)
{
	LOCAL_FCINFO(call, 5);
	JsonbParseState *ps = NULL;
	char	   *method = strsep(&text, " \n");
	char	   *path = strsep(&text, "\n");
	char	   *body;

	InitFunctionCallInfoData(*call, &http, 5, InvalidOid, NULL, NULL);
	pushJsonbValue(&ps, WJB_BEGIN_OBJECT, NULL);
	body = read_headers(text, &ps);
	call->args[0].value = CStringGetTextDatum(method);
	call->args[1].value = CStringGetTextDatum(path ? path : "");
	call->args[2].value = JsonbPGetDatum(vd_json_empty());
	call->args[3].value = JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&ps, WJB_END_OBJECT, NULL)));
	call->args[4].isnull = body == NULL;
	call->args[4].value = body ? CStringGetTextDatum(body) : (Datum) 0;
	for (int i = 0; i < 4; i++)
		call->args[i].isnull = false;
	check(DatumGetHeapTupleHeader(FunctionCallInvoke(call)));
}

static int
one(const uint8_t *data, size_t size)
{
	MemoryContext outside = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	MemoryContext inside;

	CHECK_FOR_INTERRUPTS();
	if (!pg_verifymbstr((const char *) data, size, true))
		return 0;				/* PostgreSQL takes no such text */
	inside = AllocSetContextCreate(outside, "request", ALLOCSET_DEFAULT_SIZES);
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(inside);
	PG_TRY();
	{
		ask(pnstrdup((const char *) data, size));
	}
	PG_CATCH();
	{
		ErrorData  *e;

		MemoryContextSwitchTo(inside);
		e = CopyErrorData();
		FlushErrorState();
		if (e->sqlerrcode != ERRCODE_QUERY_CANCELED && e->sqlerrcode != ERRCODE_T_R_SERIALIZATION_FAILURE)
			breach(psprintf("it raises %s: %s", unpack_sql_state(e->sqlerrcode), e->message));
	}
	PG_END_TRY();
	RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(outside);
	CurrentResourceOwner = owner;
	MemoryContextDelete(inside);
	return 0;
}

/* mostly what is behind method and path, or each would be a 404 */
size_t
LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed)
{
	size_t		kept = 0;

	if (seed % 8 > 0)
		while (kept < size && data[kept] != '?' && data[kept] != '\n')
			kept++;
	return kept + LLVMFuzzerMutate(data + kept, size - kept, most - kept);
}

Datum
fuzz_http(PG_FUNCTION_ARGS)
{
	Oid			types[] = {TEXTOID, TEXTOID, JSONBOID, JSONBOID, TEXTOID};
	Datum	   *arguments;
	int			argc;
	char	  **argv;

	fmgr_info(LookupFuncName(list_make2(makeString("voiding"), makeString("http")), 5, types, false), &http);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), TEXTOID, -1, false, TYPALIGN_INT, &arguments, NULL, &argc);
	argv = palloc(sizeof(char *) * (argc + 2));
	argv[0] = "http";
	for (int i = 0; i < argc; i++)
		argv[i + 1] = TextDatumGetCString(arguments[i]);
	argv[++argc] = NULL;
	LLVMFuzzerRunDriver(&argc, &argv, one);
	PG_RETURN_VOID();
}
