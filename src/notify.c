/*
 * notify.c
 *	  Hints for listeners: NOTIFY on voiding_<service>, voiding_process,
 *	  voiding_event and voiding_task.
 *
 * They are collected during the transaction and queued just before its commit;
 * PREPARE TRANSACTION forgets them (it cannot carry notifications). A channel
 * says {"type": ..., "id": ...} for each message, above 100 of them {} once.
 * A hint may be missing or too many; whoever listens also looks.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/async.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/memutils.h"

#include "voiding.h"

PG_FUNCTION_INFO_V1(voiding_hint);

#define MAX_HINTS 100

typedef struct Channel
{
	char	   *name;
	int			count;
	List	   *payloads;		/* of char * */
} Channel;

static List *channels = NIL;	/* in TopTransactionContext */

static void
send_hints(void)
{
	ListCell   *lc,
			   *p;

	foreach(lc, channels)
	{
		Channel    *c = lfirst(lc);
		char	   *channel = psprintf("voiding_%s", c->name);

		if (c->count > MAX_HINTS)
			Async_Notify(channel, "{}");
		else
			foreach(p, c->payloads)
				Async_Notify(channel, lfirst(p));
	}
}

static void
on_xact(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			send_hints();
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			channels = NIL;
			break;
		default:
			break;
	}
}

void
vd_notify_init(void)
{
	RegisterXactCallback(on_xact, NULL);
}

static Channel *
channel_of(const char *name)
{
	ListCell   *lc;
	Channel    *c;

	foreach(lc, channels)
	{
		c = lfirst(lc);
		if (strcmp(c->name, name) == 0)
			return c;
	}
	c = palloc0(sizeof(Channel));
	c->name = pstrdup(name);
	channels = lappend(channels, c);
	return c;
}

/* Remember a hint on channel voiding_<name>. */
void
vd_notify_add(const char *name, const char *type, const pg_uuid_t *id)
{
	MemoryContext old;
	Channel    *c;
	StringInfoData buf;

	if (!vd_notify)
		return;
	old = MemoryContextSwitchTo(TopTransactionContext);
	c = channel_of(name);
	if (c->count++ < MAX_HINTS)
	{
		initStringInfo(&buf);
		appendStringInfoString(&buf, "{\"type\": ");
		escape_json(&buf, type);
		appendStringInfo(&buf, ", \"id\": \"%s\"}", vd_uuid_text(id));
		c->payloads = lappend(c->payloads, buf.data);
	}
	MemoryContextSwitchTo(old);
}

/*
 * voiding.hint(service text, type text, id uuid) RETURNS void, internal: the
 * same for messages that SQL puts into the outbox.
 */
Datum
voiding_hint(PG_FUNCTION_ARGS)
{
	vd_notify_add(text_to_cstring(PG_GETARG_TEXT_PP(0)), text_to_cstring(PG_GETARG_TEXT_PP(1)),
				  PG_GETARG_UUID_P(2));
	PG_RETURN_VOID();
}
