/*
 * command.c
 *	  Sending a command that somebody waits for. send_command() writes one row
 *	  and one message; the row is the record of the idempotency key, the status,
 *	  the link to the process and the result. outcome.c tells what becomes of it.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/xid8.h"

#include "voiding.h"
#include "command.h"
#include "http.h"

#define MAX_KEY_BYTES 200		/* of an idempotency key */

PG_FUNCTION_INFO_V1(voiding_send_command);

/* ---- types ---- */

static MemoryContext cache = NULL;
static List *types = NIL;
static uint64 cached_generation = 0;

static VdCommandType *
read_type(const char *name)
{
	VdCommandType *t = MemoryContextAllocZero(cache, sizeof(VdCommandType));
	Oid			argtype = TEXTOID;
	Datum		arg = CStringGetTextDatum(name);
	VdIdentity	saved;

	t->name = MemoryContextStrdup(cache, name);
	vd_read_begin(&saved,
				  "SELECT service, key, resource, completed_by, failed_by"
				  " FROM voiding.handler WHERE kind = 'command' AND type = $1",
				  1, &argtype, &arg);
	if (SPI_processed == 1)
	{
		t->service = vd_read_text(cache, 0, 1);
		t->key = vd_read_text(cache, 0, 2);
		t->resource = vd_read_text(cache, 0, 3);
		t->completed_by = vd_read_text(cache, 0, 4);
		t->failed_by = vd_read_text(cache, 0, 5);
	}
	vd_read_end(&saved);
	return t;
}

VdCommandType *
vd_command_type(const char *name)
{
	uint64		generation = vd_definitions_generation();
	VdCommandType *t;
	ListCell   *lc;
	MemoryContext old;

	if (cache == NULL)
		cache = AllocSetContextCreate(CacheMemoryContext, "voiding command types",
									  ALLOCSET_SMALL_SIZES);
	if (generation != cached_generation)
	{
		MemoryContextReset(cache);
		types = NIL;
		cached_generation = generation;
	}
	foreach(lc, types)
	{
		t = lfirst(lc);
		if (strcmp(t->name, name) == 0)
			return t;
	}
	t = read_type(name);
	if (t->service == NULL)		/* not remembered: anybody may ask for anything */
	{
		pfree(t->name);
		pfree(t);
		t = palloc0(sizeof(VdCommandType));
		t->name = pstrdup(name);
		return t;
	}
	old = MemoryContextSwitchTo(cache);
	types = lappend(types, t);
	MemoryContextSwitchTo(old);
	return t;
}

/* ---- sending ---- */

/* the template with {name} filled in from the data; NULL if one is missing */
char *
vd_fill_resource(const char *template, Jsonb *data)
{
	StringInfoData s;

	if (template == NULL)
		return NULL;
	initStringInfo(&s);
	for (const char *c = template; *c;)
	{
		const char *end = *c == '{' ? strchr(c, '}') : NULL;
		char	   *value;

		if (end == NULL)
		{
			appendStringInfoChar(&s, *c++);
			continue;
		}
		value = vd_json_text(vd_json_get(data, pnstrdup(c + 1, end - c - 1)));
		if (value == NULL)
			return NULL;
		vd_http_append_encoded(&s, value);
		c = end + 1;
	}
	return s.data;
}

static Jsonb *
data_argument(FunctionCallInfo fcinfo)
{
	Jsonb	   *data = PG_ARGISNULL(1) ? vd_json_empty() : PG_GETARG_JSONB_P(1);

	if (!JB_ROOT_IS_OBJECT(data))
		ereport(ERROR,
				(errcode(ERRCODE_VD_BAD_ARGUMENT),
				 errmsg("the data of a command must be a JSON object"),
				 errhint("Its members are the arguments of the handler, by name.")));
	return data;
}

static VdCommandType *
type_argument(FunctionCallInfo fcinfo)
{
	char	   *name;
	VdCommandType *t;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"type\" must not be null")));
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	t = vd_command_type(name);
	if (t->service == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("there is no command \"%.100s\"", name),
				 errhint("SELECT voiding.create_command(...) makes one.")));
	return t;
}

static void
check_key(const char *key)
{
	if (*key == '\0' || strlen(key) > MAX_KEY_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("an idempotency key has 1 to %d bytes, not %zu", MAX_KEY_BYTES, strlen(key))));
}

/*
 * The message that takes the command to its handler. One that is to be started
 * later has no place in the order of its key: nothing waits behind it.
 */
static VdMessage
make_message(VdCommandType *t, Jsonb *data, TimestampTz not_before)
{
	VdMessage	m = {.id = vd_uuid_new(),.type = t->name,.payload = data,.source = VD_ENGINE};
	const VdMessage *cause = vd_current_message();
	char	   *key = t->key && not_before <= vd_now() ? vd_json_text(vd_json_get(data, t->key)) : NULL;

	m.aggregatetype = m.destination = t->service;
	m.aggregateid = key && *key && strlen(key) <= VD_MAX_KEY_BYTES ? key : vd_uuid_text(&m.id);
	m.correlation = m.id;
	m.has_causation = cause != NULL;
	if (cause)
		m.causation = cause->id;
	m.created_at = vd_now();
	m.available_at = not_before;
	m.bucket = vd_bucket(m.aggregateid);
	m.seq = vd_next_position();
	return m;
}

static void
to_row(const VdCommandType *t, const VdMessage *m, const char *caller, Datum *v, bool *n)
{
	char	   *resource = vd_fill_resource(t->resource, m->payload);

	memset(n, false, Cm_natts);
	v[Cm_id] = UUIDPGetDatum(&m->id);
	v[Cm_type] = CStringGetTextDatum(t->name);
	v[Cm_status] = CStringGetTextDatum("accepted");
	v[Cm_data] = JsonbPGetDatum(m->payload);
	n[Cm_result] = n[Cm_error] = n[Cm_process_id] = n[Cm_finished_at] = true;
	v[Cm_resource] = resource ? CStringGetTextDatum(resource) : (Datum) 0;
	n[Cm_resource] = resource == NULL;
	v[Cm_accepted_at] = TimestampTzGetDatum(m->created_at);
	v[Cm_caller] = CStringGetTextDatum(caller);
	v[Cm_bucket] = Int16GetDatum(m->bucket);
	v[Cm_seq] = Int64GetDatum(m->seq);
	v[Cm_xid] = FullTransactionIdGetDatum(GetTopFullTransactionId());
	v[Cm_gone] = BoolGetDatum(false);
}

typedef struct Earlier			/* the command that has the key */
{
	VdCommandType *type;
	Jsonb	   *data;
	bool		found;
	bool		same;
	bool		gone;
	pg_uuid_t	id;
} Earlier;

static bool
compare_earlier(TupleTableSlot *slot, void *arg)
{
	Earlier    *e = arg;
	Datum	   *v = slot->tts_values;

	slot_getallattrs(slot);
	e->found = true;
	e->id = *DatumGetUUIDP(v[Cm_id]);
	e->gone = DatumGetBool(v[Cm_gone]);
	e->same = strcmp(TextDatumGetCString(v[Cm_type]), e->type->name) == 0 &&
		compareJsonbContainers(&DatumGetJsonbP(v[Cm_data])->root, &e->data->root) == 0;
	return false;
}

/* the command that was sent with this key before; false: it is gone right now */
static bool
find_earlier(VdCommandType *t, Datum caller, Datum key, Jsonb *data, pg_uuid_t *id)
{
	VdKey		keys[] = {{TEXTOID, caller}, {TEXTOID, key}};
	Earlier		e = {.type = t,.data = data};

	vd_scan(VD_COMMAND, VdIdx_key, 2, keys, compare_earlier, &e);
	if (!e.found)
		return false;
	if (e.gone)
		ereport(ERROR,
				(errcode(ERRCODE_VD_GONE),
				 errmsg("the command with this idempotency key was sent long ago"),
				 errdetail("It was command %s; what became of it is not kept any more.", vd_uuid_text(&e.id))));
	if (!e.same)
		ereport(ERROR,
				(errcode(ERRCODE_VD_OTHER_CONTENT),
				 errmsg("this idempotency key was used for another command"),
				 errdetail("It was command %s.", vd_uuid_text(&e.id)),
				 errhint("A key stands for one content. Send the same again, or take a new key.")));
	*id = e.id;
	return true;
}

/*
 * Write the row and the message; the id of the command, an earlier one if the
 * key is known.
 */
static pg_uuid_t
send(FunctionCallInfo fcinfo, VdCommandType *t, VdMessage *m)
{
	Datum		v[Cm_natts];
	bool		n[Cm_natts];
	pg_uuid_t	earlier;

	to_row(t, m, GetUserNameFromId(GetUserId(), false), v, n);
	v[Cm_idempotency_key] = PG_GETARG_DATUM(2);
	n[Cm_idempotency_key] = PG_ARGISNULL(2);
	v[Cm_not_before] = PG_GETARG_DATUM(3);
	n[Cm_not_before] = PG_ARGISNULL(3);
	v[Cm_start_by] = PG_GETARG_DATUM(4);
	n[Cm_start_by] = PG_ARGISNULL(4);
	if (n[Cm_idempotency_key])
		vd_insert(VD_COMMAND, v, n);
	else
		do
		{						/* look first: an insert would wait for its handler's commit */
			CHECK_FOR_INTERRUPTS();
			if (find_earlier(t, v[Cm_caller], v[Cm_idempotency_key], m->payload, &earlier))
				return earlier;
		} while (!vd_insert_new(VD_COMMAND, v, n));
	vd_outbox_add(m);
	CommandCounterIncrement();
	return m->id;
}

/*
 * voiding.send_command(type text, data jsonb, idempotency_key text, not_before
 * timestamptz, start_by timestamptz) RETURNS uuid: the id of the command.
 * data: an object, the arguments of the handler by name. The same key and
 * content from the same role is the same command, whatever its status; waits
 * for a transaction that is sending it right now.
 *
 * Errors: 42704 no such command; 42501 not allowed; VD22B argument missing,
 * unknown or unreadable; VD09E other content under this key; VD10A the key is
 * old; 22004, 22023; 40001.
 */
Datum
voiding_send_command(PG_FUNCTION_ARGS)
{
	VdCommandType *t = type_argument(fcinfo);
	Jsonb	   *data = data_argument(fcinfo);
	VdMessage	m = make_message(t, data, PG_ARGISNULL(3) ? 0 : PG_GETARG_TIMESTAMPTZ(3));
	pg_uuid_t  *id = palloc(sizeof(pg_uuid_t));

	if (!PG_ARGISNULL(2))
		check_key(text_to_cstring(PG_GETARG_TEXT_PP(2)));
	vd_handler_check(&m);
	*id = send(fcinfo, t, &m);
	PG_RETURN_UUID_P(id);
}
