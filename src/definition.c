/*
 * definition.c
 *	  What each backend remembers of the process types and of who listens to
 *	  what: read from voiding.process_type, transition, handler and service,
 *	  and forgotten when one of those changes.
 *
 * Whoever changes them calls voiding.definitions_changed(), which invalidates
 * the relation cache entry of voiding.transition; that reaches every backend
 * at commit. What is forgotten lives on to the end of the transaction, since
 * a step may be in the middle of using it.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"

#include "voiding.h"
#include "shared.h"

PG_FUNCTION_INFO_V1(voiding_definitions_changed);

static MemoryContext cache = NULL;
static HTAB *routes = NULL;
static List *definitions = NIL;
static List *services = NIL;
static bool services_known = false;
static uint64 generation = 1;

static void
forget(Datum arg, Oid relid)
{
	if (relid != InvalidOid && relid != *(Oid *) DatumGetPointer(arg))
		return;
	generation++;
	if (cache == NULL)
		return;
	if (IsTransactionState())
		MemoryContextSetParent(cache, TopTransactionContext);
	else
		MemoryContextDelete(cache);
	cache = NULL;
	routes = NULL;
	definitions = NIL;
	services = NIL;
	services_known = false;
}

static void
open_cache(void)
{
	static Oid	watched = InvalidOid;
	static bool registered = false;
	HASHCTL		ctl = {.keysize = VD_MAX_NAME + 1,.entrysize = sizeof(VdRoute)};

	watched = vd_table_oid(VD_TRANSITION);
	if (!registered)
		CacheRegisterRelcacheCallback(forget, PointerGetDatum(&watched));
	registered = true;
	if (cache != NULL)
		return;
	cache = AllocSetContextCreate(CacheMemoryContext, "voiding definitions",
								  ALLOCSET_DEFAULT_SIZES);
	ctl.hcxt = cache;
	routes = hash_create("voiding routes", 64, &ctl, HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
}

/* changes with every change of a definition, handler or service */
uint64
vd_definitions_generation(void)
{
	open_cache();
	return generation;
}

/*
 * voiding.definitions_changed() RETURNS void: every backend forgets what it
 * knows, this one now, the others when this transaction commits.
 */
Datum
voiding_definitions_changed(PG_FUNCTION_ARGS)
{
	open_cache();
	CacheInvalidateRelcacheByRelid(vd_table_oid(VD_TRANSITION));
	forget((Datum) 0, InvalidOid);
	vd_wake_definitions();
	PG_RETURN_VOID();
}

/* ---- reading ---- */

static void
read_begin(VdIdentity *saved, const char *sql, int nargs, Oid *types, Datum *values)
{
	vd_read_begin(saved, sql, nargs, types, values);
	open_cache();				/* reading may have brought news of a change */
}

/* column of the current result, copied to the cache, or NULL */
static char *
column_text(uint64 row, int col)
{
	return vd_read_text(cache, row, col);
}

static Jsonb *
column_jsonb(uint64 row, int col)
{
	bool		isnull;
	Datum		d = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, col, &isnull);
	MemoryContext old;
	Jsonb	   *copy;

	if (isnull)
		return NULL;
	old = MemoryContextSwitchTo(cache);
	copy = DatumGetJsonbPCopy(d);
	MemoryContextSwitchTo(old);
	return copy;
}

static bool
column_bool(uint64 row, int col)
{
	bool		isnull;

	return DatumGetBool(SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc,
									  col, &isnull)) && !isnull;
}

/* ---- compiled definitions ---- */

static JsonbValue *
member(Jsonb *object, const char *name)
{
	JsonbValue *v = vd_json_get(object, name);

	return v && v->type != jbvNull ? v : NULL;
}

static char *
member_text(Jsonb *object, const char *name)
{
	return vd_json_text(member(object, name));
}

/* the elements of a list, each as a Jsonb */
static List *
elements(JsonbValue *array)
{
	List	   *result = NIL;
	JsonbIterator *it;
	JsonbValue	v;
	JsonbIteratorToken tok;

	if (array == NULL)
		return NIL;
	it = JsonbIteratorInit(array->val.binary.data);
	while ((tok = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
		if (tok == WJB_ELEM)
			result = lappend(result, JsonbValueToJsonb(&v));
	return result;
}

static char *
scalar_text(Jsonb *jb)
{
	JsonbValue	v;

	JsonbExtractScalar(&jb->root, &v);
	return vd_json_text(&v);
}

static void
read_actions(VdActions *a, Jsonb *from)
{
	ListCell   *lc;

	a->set = member(from, "set");
	a->send = a->emit = NIL;
	foreach(lc, elements(member(from, "send")))
	{
		Jsonb	   *item = lfirst(lc);
		VdSend	   *send = palloc(sizeof(VdSend));

		send->command = member_text(item, "command");
		send->service = member_text(item, "service");
		send->with = member(item, "with");
		send->each = member_text(item, "each");
		a->send = lappend(a->send, send);
	}
	foreach(lc, elements(member(from, "emit")))
		a->emit = lappend(a->emit, scalar_text(lfirst(lc)));
}

/* "PT1H" belongs to a state, "@P60D" to the process as a whole */
static List *
read_timers(Jsonb *from)
{
	List	   *timers = NIL;
	ListCell   *lc;

	foreach(lc, elements(member(from, "timers")))
	{
		VdTimer    *t = palloc(sizeof(VdTimer));
		char	   *duration;

		t->name = scalar_text(lfirst(lc));
		duration = t->name[0] == '@' ? t->name + 1 : t->name;
		t->duration = DatumGetIntervalP(DirectFunctionCall3(interval_in,
															CStringGetDatum(duration),
															ObjectIdGetDatum(InvalidOid),
															Int32GetDatum(-1)));
		timers = lappend(timers, t);
	}
	return timers;
}

static VdState *
read_state(const char *name, Jsonb *from)
{
	VdState    *st = palloc0(sizeof(VdState));
	char	   *type = member_text(from, "type");

	st->name = pstrdup(name);
	st->final = type && strcmp(type, "final") == 0;
	st->failed = type && strcmp(type, "failed") == 0;
	read_actions(&st->entry, from);
	st->timers = read_timers(from);
	st->task = member(from, "task");
	st->outcome = member_text(from, "outcome");
	st->reason = member(from, "reason");
	st->result = member(from, "result");
	return st;
}

static void
read_states(VdDefinition *def, Jsonb *compiled)
{
	JsonbIterator *it = JsonbIteratorInit(member(compiled, "states")->val.binary.data);
	JsonbValue	v;
	JsonbIteratorToken tok;
	char	   *name = NULL;

	while ((tok = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (tok == WJB_KEY)
			name = vd_json_text(&v);
		else if (tok == WJB_VALUE)
			def->states = lappend(def->states, read_state(name, JsonbValueToJsonb(&v)));
	}
}

VdState *
vd_definition_state(VdDefinition *def, const char *name)
{
	ListCell   *lc;

	foreach(lc, def->states)
		if (strcmp(((VdState *) lfirst(lc))->name, name) == 0)
			return lfirst(lc);
	elog(ERROR, "process type %s, version %d, has no state \"%s\"", def->type, def->version, name);
}

static VdTransition *
read_transition(VdDefinition *def, uint64 row)
{
	VdTransition *t = palloc0(sizeof(VdTransition));
	char	   *target = column_text(row, 5);

	t->from = column_text(row, 1);
	t->via = column_text(row, 2);
	t->name = column_text(row, 3);
	t->guard = column_text(row, 4);
	t->target = target ? vd_definition_state(def, target) : NULL;
	read_actions(&t->own, column_jsonb(row, 6));
	return t;
}

static VdDefinition *
read_definition(const char *type, int version)
{
	VdDefinition *def;
	VdIdentity	saved;
	Oid			types[] = {TEXTOID, INT4OID};
	Datum		args[] = {CStringGetTextDatum(type), Int32GetDatum(version)};
	uint64		before = generation;
	MemoryContext old;

	read_begin(&saved,
			   "SELECT definition ->> 'key', definition -> 'events', compiled"
			   " FROM voiding.process_type WHERE name = $1 AND version = $2",
			   2, types, args);
	if (SPI_processed != 1)
		elog(ERROR, "there is no version %d of process type %s", version, type);
	old = MemoryContextSwitchTo(cache);
	def = palloc0(sizeof(VdDefinition));
	def->type = pstrdup(type);
	def->version = version;
	def->key = column_text(0, 1);
	def->events = column_jsonb(0, 2);
	read_states(def, column_jsonb(0, 3));
	def->timers = read_timers(column_jsonb(0, 3));
	MemoryContextSwitchTo(old);
	vd_read_end(&saved);

	read_begin(&saved,
			   "SELECT from_state, trigger, name, guard, to_state, actions"
			   " FROM voiding.transition WHERE process_type = $1 AND version = $2"
			   " ORDER BY from_state, trigger, name, ordinal",
			   2, types, args);
	old = MemoryContextSwitchTo(cache);
	for (uint64 i = 0; i < SPI_processed; i++)
		def->transitions = lappend(def->transitions, read_transition(def, i));
	if (generation == before)
		definitions = lappend(definitions, def);
	MemoryContextSwitchTo(old);
	vd_read_end(&saved);
	return def;
}

VdDefinition *
vd_definition(const char *type, int version)
{
	ListCell   *lc;

	open_cache();
	foreach(lc, definitions)
	{
		VdDefinition *def = lfirst(lc);

		if (def->version == version && strcmp(def->type, type) == 0)
			return def;
	}
	return read_definition(type, version);
}

/* ---- routes: who listens to an event type ---- */

static void
read_listeners(VdRoute *route)
{
	VdIdentity	saved;
	Oid			argtype = TEXTOID;
	Datum		arg = CStringGetTextDatum(route->type);
	int			n;
	char	  **names;
	int		   *versions;
	bool	   *starts;

	read_begin(&saved,
			   "SELECT t.process_type, p.version,"
			   "       bool_or(t.trigger = 'start' AND t.version = p.version)"
			   "  FROM voiding.transition t"
			   "  JOIN (SELECT name, max(version) AS version"
			   "          FROM voiding.process_type GROUP BY name) p ON p.name = t.process_type"
			   " WHERE t.name = $1 AND t.trigger IN ('on', 'start')"
			   " GROUP BY t.process_type, p.version ORDER BY t.process_type COLLATE \"C\"",
			   1, &argtype, &arg);
	n = (int) SPI_processed;
	names = MemoryContextAlloc(cache, sizeof(char *) * (n + 1));
	versions = MemoryContextAlloc(cache, sizeof(int) * (n + 1));
	starts = MemoryContextAlloc(cache, sizeof(bool) * (n + 1));
	for (int i = 0; i < n; i++)
	{
		names[i] = column_text(i, 1);
		versions[i] = pg_strtoint32(SPI_getvalue(SPI_tuptable->vals[i],
												 SPI_tuptable->tupdesc, 2));
		starts[i] = column_bool(i, 3);
	}
	vd_read_end(&saved);

	for (int i = 0; i < n; i++)
	{
		VdDefinition *def = vd_definition(names[i], versions[i]);
		MemoryContext old = MemoryContextSwitchTo(cache);
		VdListener *l = palloc(sizeof(VdListener));

		l->def = def;
		l->starts = starts[i];
		route->listeners = lappend(route->listeners, l);
		MemoryContextSwitchTo(old);
	}
}

static void
read_subscribers(VdRoute *route)
{
	VdIdentity	saved;
	Oid			argtype = TEXTOID;
	Datum		arg = CStringGetTextDatum(route->type);
	MemoryContext old;

	read_begin(&saved,
			   "SELECT service FROM voiding.handler WHERE kind = 'event' AND type = $1"
			   " ORDER BY service COLLATE \"C\"",
			   1, &argtype, &arg);
	old = MemoryContextSwitchTo(cache);
	for (uint64 i = 0; i < SPI_processed; i++)
		route->subscribers = lappend(route->subscribers, column_text(i, 1));
	MemoryContextSwitchTo(old);
	vd_read_end(&saved);
	read_begin(&saved,
			   "SELECT FROM voiding.handler WHERE $1 IN (completed_by, failed_by) LIMIT 1",
			   1, &argtype, &arg);
	route->ends_commands = SPI_processed > 0;
	vd_read_end(&saved);
}

/*
 * Who listens to this event type. The result is good to the end of the
 * transaction. Should a definition change while it is being read, it is read
 * again.
 */
const VdRoute *
vd_route(const char *event_type)
{
	for (;;)
	{
		VdRoute		fresh = {0};
		VdRoute    *route;
		bool		found;
		uint64		before;

		open_cache();
		route = hash_search(routes, event_type, HASH_FIND, NULL);
		if (route != NULL)
			return route;
		before = generation;
		strlcpy(fresh.type, event_type, sizeof(fresh.type));
		read_listeners(&fresh);
		read_subscribers(&fresh);
		if (generation != before)
			continue;
		route = hash_search(routes, event_type, HASH_ENTER, &found);
		*route = fresh;
		return route;
	}
}

/* ---- services ---- */

typedef struct Service
{
	char	   *name;
	char	   *owner;
	char	   *schema;			/* NULL: it lives elsewhere */
	char	   *known_as;		/* then: what this database is called there */
	bool		after_commit;	/* and what is for it leaves after the commit */
} Service;

static List *
read_services(void)
{
	VdIdentity	saved;
	List	   *all = NIL;
	MemoryContext old;

	read_begin(&saved, "SELECT name, owner, schema, known_as, nullif(after_commit, false) FROM voiding.service ORDER BY name", 0, NULL, NULL);
	old = MemoryContextSwitchTo(cache);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		Service    *s = palloc(sizeof(Service));

		s->name = column_text(i, 1);
		s->owner = column_text(i, 2);
		s->schema = column_text(i, 3);
		s->known_as = column_text(i, 4);
		s->after_commit = column_text(i, 5) != NULL;
		all = lappend(all, s);
	}
	MemoryContextSwitchTo(old);
	vd_read_end(&saved);
	return all;
}

/* all of them: there are few */
static List *
known_services(void)
{
	for (open_cache(); !services_known; open_cache())
	{
		uint64		before = generation;
		List	   *all = read_services();

		if (generation != before)
			continue;
		services = all;
		services_known = true;
	}
	return services;
}

/* is there such a service? If so, its owner and schema, in the current context */
bool
vd_service(const char *name, char **owner, char **schema)
{
	ListCell   *lc;

	foreach(lc, known_services())
	{
		Service    *s = lfirst(lc);

		if (strcmp(s->name, name) != 0)
			continue;
		if (owner)
			*owner = pstrdup(s->owner);
		if (schema)
			*schema = s->schema ? pstrdup(s->schema) : NULL;
		return true;
	}
	return false;
}

/* the service that owns a schema, or NULL */
char *
vd_service_of_schema(const char *schema)
{
	ListCell   *lc;

	foreach(lc, known_services())
	{
		Service    *s = lfirst(lc);

		if (s->schema && strcmp(s->schema, schema) == 0)
			return pstrdup(s->name);
	}
	return NULL;
}

/* of a service in another database: what this one is called there; else NULL */
char *
vd_known_as(const char *service)
{
	ListCell   *lc;

	foreach(lc, known_services())
	{
		Service    *s = lfirst(lc);

		if (strcmp(s->name, service) == 0)
			return s->known_as ? pstrdup(s->known_as) : NULL;
	}
	return NULL;
}

/* does what is for a service in another database leave in a transaction of its own? */
bool
vd_leaves_after_commit(const char *service)
{
	ListCell   *lc;

	foreach(lc, known_services())
	{
		Service    *s = lfirst(lc);

		if (strcmp(s->name, service) == 0)
			return s->after_commit;
	}
	return false;
}

/* is a service in another database? */
bool
vd_is_connected(void)
{
	ListCell   *lc;

	foreach(lc, known_services())
		if (((Service *) lfirst(lc))->known_as)
			return true;
	return false;
}

/* the names of all services, in the current context */
List *
vd_service_names(void)
{
	List	   *names = NIL;
	ListCell   *lc;

	foreach(lc, known_services())
		names = lappend(names, pstrdup(((Service *) lfirst(lc))->name));
	return names;
}
