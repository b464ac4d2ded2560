/*
 * hint.c
 *	  The connection that LISTENs. What it hears goes to those who wait (wait.c)
 *	  and to the streams (stream.c). A hint can be lost: whenever the connection
 *	  is made anew, everybody looks.
 *
 * Ids of late are remembered: a command may have ended before its request has
 * begun to wait.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "gateway.h"

#define CHANNELS 16
#define RECENT 4096
#define FIRST_RETRY 100			/* ms */
#define LAST_RETRY 5000
#define SLOWEST 10000			/* to connect, and to answer */
#define PROBE 20000				/* between signs that the server is there */

static void ready(Watch *w);

static PGconn *pg = NULL;
static Watch connection = {.fd = -1,.ready = ready};
static bool is_connected = false;
static int64_t retry_at = 0;
static int	retry = 0;
static int64_t since;			/* it tries to connect, or has been asked something */
static int64_t heard_at;
static bool is_asked = false;
static char channels[CHANNELS][64];
static int	nchannels = 0;
static int	nlistened = 0;		/* of them, on this connection */
static char recent[RECENT][37];

static char *
place_of(const char *id)
{
	uint32_t	h = 2166136261u;

	for (const char *p = id; *p; p++)
		h = (h ^ (unsigned char) *p) * 16777619u;
	return recent[h % RECENT];
}

bool
hint_was_seen(const char *id)
{
	return strcmp(place_of(id), id) == 0;
}

static void
lose(void)
{
	unwatch(&connection);
	PQfinish(pg);
	pg = NULL;
	is_connected = is_asked = false;
	nlistened = 0;
	retry = retry ? retry * 2 : FIRST_RETRY;
	if (retry > LAST_RETRY)
		retry = LAST_RETRY;
	retry_at = now_ms() + retry;
}

static void
flush(void)
{
	int			left = PQflush(pg);

	if (left < 0)
		lose();
	else
		watch(&connection, PQsocket(pg), EPOLLIN | (left ? EPOLLOUT : 0));
}

static void
ask(const char *statement)
{
	is_asked = true;
	since = now_ms();
	if (PQsendQuery(pg, statement) == 1)
		flush();
	else
		lose();
}

static void
listen_next(void)
{
	char	   *name;
	char	   *statement;

	if (!is_connected || is_asked || nlistened >= nchannels)
		return;
	name = PQescapeIdentifier(pg, channels[nlistened], strlen(channels[nlistened]));
	statement = print("LISTEN %s", name ? name : "voiding_command");
	nlistened++;
	ask(statement);
	PQfreemem(name);
	free(statement);
}

/* also on this channel, from now on */
void
hint_listen(const char *channel)
{
	for (int i = 0; i < nchannels; i++)
		if (strcmp(channels[i], channel) == 0)
			return;
	if (nchannels == CHANNELS || strlen(channel) >= sizeof(channels[0]))
		return;					/* its streams look at each heartbeat */
	strcpy(channels[nchannels++], channel);
	listen_next();
}

static void
hear(const PGnotify *n)
{
	json_t	   *payload = json_loads(n->extra, 0, NULL);
	const char *id = json_string_value(json_object_get(payload, "id"));

	metrics.hints++;
	if (id && strlen(id) == 36)
		strcpy(place_of(id), id);
	if (strcmp(n->relname, "voiding_command") == 0)
		wait_hint(id);
	stream_hint(n->relname, id);
	json_decref(payload);
}

static void
receive(void)
{
	PGnotify   *n;
	PGresult   *r;

	if (PQconsumeInput(pg) != 1)
	{
		lose();
		return;
	}
	while (is_asked && !PQisBusy(pg))
	{
		if ((r = PQgetResult(pg)) != NULL)
		{
			PQclear(r);
			continue;
		}
		is_asked = false;
		if (nlistened > 0)		/* what came before it was listened to */
		{
			if (strcmp(channels[nlistened - 1], "voiding_command") == 0)
				wait_hint(NULL);
			stream_hint(channels[nlistened - 1], NULL);
		}
		listen_next();
		if (pg == NULL)
			return;
	}
	while ((n = PQnotifies(pg)) != NULL)
	{
		hear(n);
		PQfreemem(n);
	}
	heard_at = now_ms();
	flush();
}

static void
go_on_connecting(void)
{
	PostgresPollingStatusType status = PQconnectPoll(pg);

	unwatch(&connection);
	if (status == PGRES_POLLING_OK && PQsetnonblocking(pg, 1) == 0)
	{
		is_connected = true;
		retry = 0;
		heard_at = now_ms();
		watch(&connection, PQsocket(pg), EPOLLIN);
		listen_next();
	}
	else if (status == PGRES_POLLING_READING || status == PGRES_POLLING_WRITING)
		watch(&connection, PQsocket(pg), status == PGRES_POLLING_READING ? EPOLLIN : EPOLLOUT);
	else
		lose();
}

static void
ready(Watch *w)
{
	(void) w;
	if (is_connected)
		receive();
	else
		go_on_connecting();
}

bool
hint_is_up(void)
{
	return is_connected && nlistened > 0;
}

void
hint_tick(int64_t now)
{
	if (pg == NULL && now >= retry_at && !draining)
	{
		since = now;
		pg = pool_connect();
		if (pg == NULL || PQstatus(pg) == CONNECTION_BAD)
			lose();
		else
			watch(&connection, PQsocket(pg), EPOLLOUT);
	}
	else if (pg && (!is_connected || is_asked) && now > since + SLOWEST)
		lose();
	else if (is_connected && !is_asked && now > heard_at + PROBE)
		ask("");				/* a connection that is half open is found out */
}

void
hint_start(void)
{
	hint_listen("voiding_command");
	hint_tick(now_ms());
}

void
hint_stop(void)
{
	if (pg)
		lose();
}
