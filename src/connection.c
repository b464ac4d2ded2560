/*
 * connection.c
 *	  Messages to and from services in other databases, carried by logical
 *	  replication of the table voiding.transfer.
 *
 * What is for a service that lives elsewhere is written there instead of into
 * the outbox. The same row arrives in the table of that name over there, where
 * a trigger does nothing but put it into the outbox, for VD_ARRIVAL, once; the
 * worker that takes it finds out what it is: an event, which is appended here
 * as it was said there, or a command, which goes to its service. So the apply
 * worker of PostgreSQL never waits and never fails.
 *
 * A row that was there before is passed over: what is sent again has no effect.
 * An event goes elsewhere only from where it was said, so nothing goes round.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "replication/worker_internal.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/fmgrprotos.h"
#include "utils/xid8.h"

#include "voiding.h"
#include "command.h"

PG_FUNCTION_INFO_V1(voiding_arrive);

#define FAILED "CommandFailed"

/* ---- leaving ---- */

/*
 * For a service elsewhere, that knows this database as known_as. What the
 * engine itself says is said over there in that name.
 */
void
vd_depart(const VdMessage *m, const char *known_as)
{
	Datum		v[Tr_natts];
	bool		n[Tr_natts] = {false};
	bool		is_event = strcmp(m->aggregatetype, m->source) == 0;
	const char *source = strcmp(m->source, VD_ENGINE) == 0 ? known_as : m->source;

	v[Tr_id] = UUIDPGetDatum(&m->id);
	v[Tr_aggregatetype] = CStringGetTextDatum(is_event ? source : m->aggregatetype);
	v[Tr_aggregateid] = CStringGetTextDatum(m->aggregateid);
	v[Tr_type] = CStringGetTextDatum(m->type);
	v[Tr_payload] = JsonbPGetDatum(m->payload);
	v[Tr_source] = CStringGetTextDatum(source);
	v[Tr_origin] = CStringGetTextDatum(known_as);
	v[Tr_destination] = CStringGetTextDatum(m->destination);
	v[Tr_correlation] = UUIDPGetDatum(&m->correlation);
	v[Tr_causation] = UUIDPGetDatum(&m->causation);
	n[Tr_causation] = !m->has_causation;
	v[Tr_sent_in] = m->sent_in ? CStringGetTextDatum(m->sent_in) : (Datum) 0;
	n[Tr_sent_in] = m->sent_in == NULL;
	v[Tr_created_at] = TimestampTzGetDatum(m->created_at ? m->created_at : vd_now());
	v[Tr_xid] = FullTransactionIdGetDatum(GetTopFullTransactionId());
	vd_insert(VD_TRANSFER, v, n);
}

/* the same for what has waited in the outbox; false: its service is here */
bool
vd_depart_late(VdMessage **set, int n)
{
	char	   *known_as = vd_known_as(set[0]->destination);

	for (int i = 0; known_as && i < n; i++)
		vd_depart(set[i], known_as);
	return known_as != NULL;
}

/* A command that came from elsewhere gave up: its process is told, over there. */
void
vd_depart_failure(const VdMessage *m, char *known_as)
{
	VdMessage	failure = {.type = FAILED,.aggregateid = m->aggregateid,.destination = m->source};
	JsonbParseState *ps = NULL;

	pushJsonbValue(&ps, WJB_BEGIN_OBJECT, NULL);
	vd_json_push_text(&ps, "command", m->type);
	vd_json_push_text(&ps, "message_id", vd_uuid_text(&m->id));
	vd_json_push_text(&ps, "sent_in", m->sent_in);
	vd_json_push(&ps, "sent_at", vd_json_datum(TimestampTzGetDatum(m->created_at), false, TIMESTAMPTZOID, -1));
	vd_json_push_text(&ps, "error", m->error);
	failure.payload = JsonbValueToJsonb(pushJsonbValue(&ps, WJB_END_OBJECT, NULL));
	failure.id = vd_uuid_new();
	failure.aggregatetype = failure.source = known_as;
	failure.correlation = m->correlation;
	failure.causation = m->id;
	failure.has_causation = true;
	vd_outbox_add(&failure);
}

/* ---- arriving ---- */

static bool
note_found(TupleTableSlot *slot, void *found)
{
	*(bool *) found = true;
	return false;
}

static bool
is_known(const Datum *v)
{
	VdKey		keys[] = {{TEXTOID, v[Tr_destination]}, {TEXTOID, v[Tr_origin]}, {UUIDOID, v[Tr_id]}};
	bool		found = false;

	vd_scan(VD_TRANSFER, VdIdx_primary, 3, keys, note_found, &found);
	return found;
}

/* would it have been purged, had it been here? See purge_transfers(). */
static bool
is_forgotten(const pg_uuid_t *id)
{
	int64		age = vd_now() / 1000 - ((int64) vd_uuid_ms(id) - (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * INT64CONST(86400000));

	return age > 2 * vd_transfer_retention * INT64CONST(86400000);
}

/* a dead letter, before it has been in the outbox */
static void
refuse(VdMessage *m, const char *sqlstate)
{
	m->bucket = vd_bucket(m->aggregateid);
	m->seq = vd_next_position();
	m->available_at = m->created_at;
	vd_outbox_dead(m, sqlstate);
}

/*
 * What is wrong with who says it, or NULL: it must come over the subscription
 * that it names; another database that is connected here speaks for itself; and
 * commands are sent by processes only, in the name of their database.
 */
static char *
forgery(const VdMessage *m, const char *origin, const char *destination)
{
	bool		is_command = strcmp(m->aggregatetype, m->source) != 0;

	if (MySubscription && strcmp(MySubscription->name, psprintf("voiding_%s_to_%s", origin, destination)) != 0)
		return psprintf("42501: it did not come from \"%s\" for \"%s\"", origin, destination);
	if (strcmp(m->source, origin) != 0 && (is_command || vd_known_as(m->source)))
		return psprintf("42501: \"%s\" said it in the name of \"%s\"", origin, m->source);
	return NULL;
}

static void
from_transfer(VdMessage *m, const Datum *v, const bool *n)
{
	m->id = *DatumGetUUIDP(v[Tr_id]);
	m->aggregatetype = TextDatumGetCString(v[Tr_aggregatetype]);
	m->aggregateid = TextDatumGetCString(v[Tr_aggregateid]);
	m->type = TextDatumGetCString(v[Tr_type]);
	m->payload = DatumGetJsonbP(v[Tr_payload]);
	m->source = TextDatumGetCString(v[Tr_source]);
	m->correlation = *DatumGetUUIDP(v[Tr_correlation]);
	m->has_causation = !n[Tr_causation];
	if (m->has_causation)
		m->causation = *DatumGetUUIDP(v[Tr_causation]);
	m->sent_in = n[Tr_sent_in] ? NULL : TextDatumGetCString(v[Tr_sent_in]);
	m->created_at = DatumGetTimestampTz(v[Tr_created_at]);
	m->destination = VD_ARRIVAL;
}

/*
 * voiding.arrive(): BEFORE trigger of voiding.transfer, ENABLE REPLICA: it
 * fires for what replication brings. Puts the message into the outbox and lets
 * the row in, or passes over one that is there already. Raises no error for
 * what a row says: one that is forged is a dead letter, and not let in; one that is
 * so old that it may have been purged here is a dead letter, too. Rows
 * that are there do not change or go because others say so; a TRUNCATE cannot
 * be passed over, and is an error.
 */
Datum
voiding_arrive(PG_FUNCTION_ARGS)
{
	TriggerData *td = (TriggerData *) fcinfo->context;
	Datum	   *v;
	bool	   *n;
	VdMessage	m = {0};

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BEFORE(td->tg_event) ||
		RelationGetRelid(td->tg_relation) != vd_table_oid(VD_TRANSFER))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("arrive() is the trigger of voiding.transfer only")));
	if (TRIGGER_FIRED_BY_TRUNCATE(td->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("another database must not empty voiding.transfer")));
	if (!TRIGGER_FIRED_BY_INSERT(td->tg_event))
		return PointerGetDatum(NULL);
	v = palloc(sizeof(Datum) * RelationGetDescr(td->tg_relation)->natts);	/* somebody may have added a column */
	n = palloc(sizeof(bool) * RelationGetDescr(td->tg_relation)->natts);
	heap_deform_tuple(td->tg_trigtuple, RelationGetDescr(td->tg_relation), v, n);
	if (is_known(v))
		return PointerGetDatum(NULL);
	from_transfer(&m, v, n);
	m.error = forgery(&m, TextDatumGetCString(v[Tr_origin]), TextDatumGetCString(v[Tr_destination]));
	if (m.error)
	{
		m.sent_in = NULL;		/* nobody is told when it is discarded */
		refuse(&m, "42501");
		return PointerGetDatum(NULL);
	}
	if (is_forgotten(&m.id))
	{
		m.error = "55000: it is older than what is remembered here, and may have been taken before";
		refuse(&m, "55000");
	}
	else
		vd_outbox_add(&m);
	return PointerGetDatum(td->tg_trigtuple);
}

/* ---- taking what has arrived ---- */

static char *
member(const VdMessage *m, const char *name)
{
	JsonbValue *v = vd_json_get(m->payload, name);

	if (v == NULL || v->type != jbvString)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" from \"%s\" has no \"%s\"", m->type, m->source, name)));
	return vd_json_text(v);
}

/* a command of ours has given up over there */
static void
take_failure(const VdMessage *m)
{
	VdMessage	command = {.source = VD_ENGINE,.correlation = m->correlation};
	VdCommandType *type;

	command.type = member(m, "command");
	command.sent_in = member(m, "sent_in");
	command.error = member(m, "error");
	command.id = *DatumGetUUIDP(DirectFunctionCall1(uuid_in, CStringGetDatum(member(m, "message_id"))));
	command.created_at = DatumGetTimestampTz(DirectFunctionCall3(timestamptz_in, CStringGetDatum(member(m, "sent_at")),
																 ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
	type = vd_command_type(command.type);
	if (type->service == NULL || strcmp(type->service, m->source) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("\"%s\" says that command \"%s\" failed, but does not handle it", m->source, command.type)));
	vd_process_command_failed(&command);
}

static void
take_event(const VdMessage *m)
{
	VdEvent		ev = {0};
	char	   *owner = NULL;

	vd_event_check_type(m->type);
	vd_event_check_name("subject", m->aggregateid, VD_MAX_KEY_BYTES);
	if (!JB_ROOT_IS_OBJECT(m->payload))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the data of an event must be a JSON object")));
	if (strcmp(m->source, VD_ENGINE) == 0 ||
		(vd_service(m->source, &owner, NULL) && vd_known_as(m->source) == NULL))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("an event of \"%s\", which lives here, came from another database", m->source)));
	ev.arrived = true;
	ev.actor = owner ? get_role_oid(owner, true) : InvalidOid;
	ev.event_id = m->id;
	ev.type = m->type;
	ev.source = m->source;
	ev.subject = m->aggregateid;
	ev.data = m->payload;
	ev.correlation = m->correlation;
	ev.inherited = !vd_uuid_equal(&m->correlation, &m->id);
	ev.causation = m->causation;
	ev.has_causation = m->has_causation;
	vd_event_append(&ev);
}

/* it goes on to its service, with the id that it has */
static void
take_command(const VdMessage *m)
{
	VdCommandType *type = vd_command_type(m->type);
	VdMessage	command = *m;

	if (vd_known_as(m->source) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("a command of \"%s\", which is no connected database, came from another one", m->source)));
	if (type->service == NULL || vd_known_as(type->service) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("no service here handles command \"%.100s\", which \"%s\" has sent", m->type, m->source),
				 errhint("SELECT voiding.create_command(...) makes one; then retry_message().")));
	command.aggregatetype = command.destination = type->service;
	command.seq = 0;
	command.attempts = 0;
	command.error = NULL;
	command.kept = false;
	vd_outbox_add(&command);
}

/*
 * A message for VD_ARRIVAL. Errors are about the message: it is tried again,
 * and then a dead letter: 42501 it says what its sender may not; 42704 nobody
 * handles it; 22023.
 */
void
vd_take_arrival(const VdMessage *m)
{
	if (strcmp(m->aggregatetype, m->source) != 0)
		take_command(m);
	else if (strcmp(m->type, FAILED) == 0)
		take_failure(m);
	else
		take_event(m);
}
