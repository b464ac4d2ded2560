/*
 * route.c
 *	  Which route of voiding.route a request takes, and the address that a
 *	  query's result has as the resource of a command.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "voiding.h"
#include "http.h"

#define UUID_CHARS 36

typedef struct Member			/* an argument of a query in the address of a resource */
{
	char	   *name;
	char	   *value;
	char	   *filled_from;	/* the argument of the command, or NULL: it is value */
} Member;

typedef struct Address			/* "resource" of a type of commands, read as a query */
{
	char	   *template;
	char	   *query;
	List	   *members;		/* of Member */
} Address;

PG_FUNCTION_INFO_V1(voiding_url);

static MemoryContext cache = NULL;
static List *routes = NIL;
static List *addresses = NIL;
static uint64 cached_generation = 0;
static bool complete = false;

/* ---- texts ---- */

static int
hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
		return (c | 0x20) - 'a' + 10;
	return -1;
}

/* %XX, and in a query string +, undone; NULL: it is no text */
static char *
decode(const char *text, size_t len, bool in_query)
{
	StringInfoData s;

	initStringInfo(&s);
	for (size_t i = 0; i < len; i++)
	{
		char		c = text[i];

		if (c == '%')
		{
			if (i + 2 >= len || hex(text[i + 1]) < 0 || hex(text[i + 2]) < 0)
				return NULL;
			c = (char) (hex(text[i + 1]) * 16 + hex(text[i + 2]));
			i += 2;
		}
		else if (c == '+' && in_query)
			c = ' ';
		if (c == '\0')
			return NULL;
		appendStringInfoChar(&s, c);
	}
	return pg_verifymbstr(s.data, s.len, true) ? s.data : NULL;
}

/* all but letters, digits and -._~ as %XX */
void
vd_http_append_encoded(StringInfo s, const char *text)
{
	for (const unsigned char *c = (const unsigned char *) text; *c; c++)
		if ((isalnum(*c) && *c < 128) || strchr("-._~", *c))
			appendStringInfoChar(s, *c);
		else
			appendStringInfo(s, "%%%02X", *c);
}

/*
 * voiding.url(path text, query jsonb) RETURNS text: the path with a query
 * string of these names and values; those that are null are left out.
 */
Datum
voiding_url(PG_FUNCTION_ARGS)
{
	StringInfoData s;
	Jsonb	   *query = PG_GETARG_JSONB_P(1);
	JsonbIterator *it = JsonbIteratorInit(&query->root);
	JsonbIteratorToken token;
	JsonbValue	v;
	char		before = '?';
	char	   *name = NULL;
	char	   *value;

	initStringInfo(&s);
	appendStringInfoString(&s, text_to_cstring(PG_GETARG_TEXT_PP(0)));
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			name = pnstrdup(v.val.string.val, v.val.string.len);
		else if (token == WJB_VALUE && (value = vd_json_text(&v)) != NULL)
		{
			appendStringInfoChar(&s, before);
			vd_http_append_encoded(&s, name);
			appendStringInfoChar(&s, '=');
			vd_http_append_encoded(&s, value);
			before = '&';
		}
	}
	PG_RETURN_TEXT_P(cstring_to_text_with_len(s.data, s.len));
}

/* the segments of a path, decoded; NIL: it cannot be read */
List *
vd_http_segments(const char *path)
{
	List	   *segments = NIL;
	char	   *segment;

	if (*path != '/')
		return NIL;
	while (*path == '/')
	{
		size_t		len = strcspn(++path, "/");

		segment = decode(path, len, false);
		if (segment == NULL)
			return NIL;
		segments = lappend(segments, segment);
		path += len;
	}
	return segments;
}

/* before and name=value&...; a name that comes again has an array; NULL: it cannot be read */
Jsonb *
vd_http_query_string(const char *text, Jsonb *before)
{
	while (*text)
	{
		size_t		len = strcspn(text, "&");
		const char *equals = memchr(text, '=', len);
		size_t		name_len = equals ? (size_t) (equals - text) : len;
		char	   *name = decode(text, name_len, true);
		char	   *value = equals ? decode(equals + 1, len - name_len - 1, true) : "";
		JsonbParseState *ps = NULL;
		JsonbValue *v;

		if (name == NULL || value == NULL)
			return NULL;
		pushJsonbValue(&ps, WJB_BEGIN_OBJECT, NULL);
		v = vd_json_get(before, name);
		if (v == NULL)
			vd_json_push_text(&ps, name, value);
		else
		{
			JsonbParseState *all = NULL;
			Jsonb	   *one;

			pushJsonbValue(&all, WJB_BEGIN_ARRAY, NULL);
			pushJsonbValue(&all, WJB_ELEM, vd_json_string(value));
			one = JsonbValueToJsonb(pushJsonbValue(&all, WJB_END_ARRAY, NULL));
			one = vd_json_concat(JsonbValueToJsonb(v), one);
			vd_json_push(&ps, name, vd_json_datum(JsonbPGetDatum(one), false, JSONBOID, -1));
		}
		if (len > 0)
			before = vd_json_concat(before, JsonbValueToJsonb(pushJsonbValue(&ps, WJB_END_OBJECT, NULL)));
		text += len + (text[len] == '&');
	}
	return before;
}

/* ---- matching ---- */

static bool
is_uuid(const char *text)
{
	if (strlen(text) != UUID_CHARS)
		return false;
	for (int i = 0; i < UUID_CHARS; i++)
		if (i == 8 || i == 13 || i == 18 || i == 23 ? text[i] != '-' : hex(text[i]) < 0)
			return false;
	return true;
}

/* is it a parameter, {name} or {name:uuid}? Its name. */
static char *
parameter(const char *segment)
{
	return *segment == '{' ? pnstrdup(segment + 1, strcspn(segment + 1, ":}")) : NULL;
}

static bool
segment_matches(const char *pattern, const char *segment)
{
	if (*pattern != '{')
		return strcmp(pattern, segment) == 0;
	if (strchr(pattern, ':'))
		return is_uuid(segment);
	return *segment != '\0';
}

static bool
path_matches(const VdHttpRoute *r, List *segments)
{
	ListCell   *p;
	ListCell   *s;

	if (list_length(r->segments) != list_length(segments))
		return false;
	forboth(p, r->segments, s, segments)
	{
		if (!segment_matches(lfirst(p), lfirst(s)))
			return false;
	}
	return true;
}

static Jsonb *
parameters_of(const VdHttpRoute *r, List *segments)
{
	JsonbParseState *ps = NULL;
	ListCell   *p;
	ListCell   *s;

	pushJsonbValue(&ps, WJB_BEGIN_OBJECT, NULL);
	forboth(p, r->segments, s, segments)
	{
		char	   *name = parameter(lfirst(p));

		if (name)
			vd_json_push_text(&ps, name, lfirst(s));
	}
	return JsonbValueToJsonb(pushJsonbValue(&ps, WJB_END_OBJECT, NULL));
}

/* ---- reading ---- */

static List *
kept_segments(const char *path)
{
	List	   *segments = NIL;
	ListCell   *lc;

	foreach(lc, vd_http_segments(path))
		segments = lappend(segments, MemoryContextStrdup(cache, lfirst(lc)));
	return segments;
}

static void
keep(List **list, void *what)
{
	MemoryContext old = MemoryContextSwitchTo(cache);

	*list = lappend(*list, what);
	MemoryContextSwitchTo(old);
}

static void
add_member(Address *a, char *name, char *value)
{
	Member	   *m = MemoryContextAllocZero(cache, sizeof(Member));
	size_t		len = strlen(value);

	m->name = MemoryContextStrdup(cache, name);
	m->value = MemoryContextStrdup(cache, value);
	if (len > 2 && value[0] == '{' && value[len - 1] == '}')
		m->filled_from = MemoryContextStrdup(cache, pnstrdup(value + 1, len - 2));
	keep(&a->members, m);
}

/* the members of an object whose values are texts */
static void
add_members(Address *a, Jsonb *object, const char *but)
{
	JsonbIterator *it = JsonbIteratorInit(&object->root);
	JsonbIteratorToken token;
	JsonbValue	v;
	char	   *name = NULL;

	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			name = pnstrdup(v.val.string.val, v.val.string.len);
		else if (token == WJB_VALUE && (but == NULL || strcmp(name, but) != 0))
			add_member(a, name, vd_json_text(&v));
	}
}

/* where a command's result will be, if that is a query here */
static void
read_address(char *template)
{
	Address    *a = MemoryContextAllocZero(cache, sizeof(Address));
	size_t		len = strcspn(template, "?");
	List	   *segments = vd_http_segments(pnstrdup(template, len));
	Jsonb	   *query = template[len] ? vd_http_query_string(template + len + 1, vd_json_empty()) : vd_json_empty();
	ListCell   *lc;

	foreach(lc, routes)
	{
		VdHttpRoute *r = lfirst(lc);
		Jsonb	   *parameters;

		if (strcmp(r->operation, "query") != 0 || query == NULL || !path_matches(r, segments))
			continue;
		parameters = parameters_of(r, segments);
		a->template = template;
		a->query = r->query ? r->query : MemoryContextStrdup(cache, vd_json_text(vd_json_get(parameters, "name")));
		add_members(a, parameters, r->query ? NULL : "name");
		add_members(a, query, NULL);
		keep(&addresses, a);
		return;
	}
}

static void
read_all(void)
{
	VdIdentity	saved;

	vd_read_begin(&saved, "SELECT method, path, operation, query, takes FROM voiding.route", 0, NULL, NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		VdHttpRoute *r = MemoryContextAllocZero(cache, sizeof(VdHttpRoute));
		MemoryContext old;
		char	   *path = vd_read_text(cache, i, 2);

		r->method = vd_read_text(cache, i, 1);
		r->operation = vd_read_text(cache, i, 3);
		r->query = vd_read_text(cache, i, 4);
		r->takes = vd_read_text(cache, i, 5);
		old = MemoryContextSwitchTo(cache);
		r->segments = kept_segments(path);
		MemoryContextSwitchTo(old);
		keep(&routes, r);
	}
	vd_read_end(&saved);
	vd_read_begin(&saved,
				  "SELECT DISTINCT resource FROM voiding.handler WHERE kind = 'command' AND resource IS NOT NULL",
				  0, NULL, NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
		read_address(vd_read_text(cache, i, 1));
	vd_read_end(&saved);
}

static void
refresh(void)
{
	uint64		generation = vd_definitions_generation();

	if (complete && generation == cached_generation)
		return;
	if (cache == NULL)
		cache = AllocSetContextCreate(CacheMemoryContext, "voiding http routes", ALLOCSET_SMALL_SIZES);
	MemoryContextReset(cache);
	routes = addresses = NIL;
	complete = false;
	read_all();
	cached_generation = generation;
	complete = true;
}

/* ---- asked by http.c ---- */

/*
 * The route of a request; NULL: there is none, and allowed is the methods that
 * there are for this path, or NULL. It is a copy: serving may change routes.
 */
VdHttpRoute *
vd_http_route(const char *method, List *segments, Jsonb **parameters, char **allowed)
{
	StringInfoData methods;
	ListCell   *lc;

	refresh();
	initStringInfo(&methods);
	foreach(lc, routes)
	{
		VdHttpRoute *r = lfirst(lc);
		VdHttpRoute *copy;

		if (!path_matches(r, segments))
			continue;
		if (strcmp(r->method, method) != 0)
		{
			appendStringInfo(&methods, "%s%s", methods.len ? ", " : "", r->method);
			continue;
		}
		*parameters = parameters_of(r, segments);
		copy = palloc0(sizeof(VdHttpRoute));
		copy->operation = pstrdup(r->operation);
		copy->query = r->query ? pstrdup(r->query) : NULL;
		copy->takes = r->takes ? pstrdup(r->takes) : NULL;
		return copy;
	}
	*allowed = methods.len ? methods.data : NULL;
	return NULL;
}

/* the arguments of a command whose result is there; NULL: it is not */
static Jsonb *
arguments_at(const Address *a, Jsonb *arguments)
{
	JsonbParseState *ps = NULL;
	ListCell   *lc;

	if ((int) JsonContainerSize(&arguments->root) != list_length(a->members))
		return NULL;
	pushJsonbValue(&ps, WJB_BEGIN_OBJECT, NULL);
	foreach(lc, a->members)
	{
		Member	   *m = lfirst(lc);
		char	   *value = vd_json_text(vd_json_get(arguments, m->name));

		if (value == NULL || (m->filled_from == NULL && strcmp(value, m->value) != 0))
			return NULL;
		if (m->filled_from)
			vd_json_push_text(&ps, m->filled_from, value);
	}
	return JsonbValueToJsonb(pushJsonbValue(&ps, WJB_END_OBJECT, NULL));
}

/*
 * What column resource of a command is whose result will be read by this query
 * with these arguments: one text for each such type of commands.
 */
List *
vd_http_resources(const char *query, Jsonb *arguments)
{
	List	   *resources = NIL;
	ListCell   *lc;

	refresh();
	foreach(lc, addresses)
	{
		Address    *a = lfirst(lc);
		Jsonb	   *data;
		char	   *resource;

		if (strcmp(a->query, query) != 0)
			continue;
		data = arguments_at(a, arguments);
		resource = data ? vd_fill_resource(a->template, data) : NULL;
		if (resource)
			resources = lappend(resources, resource);
	}
	return resources;
}
