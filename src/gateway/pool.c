/*
 * pool.c
 *	  Connections to PostgreSQL, and asks that wait for one.
 *
 * An ask is sent as one pipeline: the role, a call of voiding.http() for each
 * part, sync; that is one transaction, and the sync commits it. Where all parts
 * are to see the same there is a BEGIN and a COMMIT around them. Statements are
 * prepared once a connection. When one fails, or the commit, those behind it
 * are skipped and all is rolled back; then an error that http() did not make a
 * problem of is made one by voiding.problem().
 *
 * A connection that is lost is tried again, later and later. While none is up,
 * an ask is answered 503 at once: nobody is to wait for a server that is away.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "gateway.h"

#define FIRST_RETRY 100			/* ms */
#define LAST_RETRY 5000
#define SLOWEST_CONNECT 10000

typedef enum State
{
	DOWN,						/* until retry_at */
	CONNECTING,
	PREPARING,
	IDLE,
	ASKING,
	EXPLAINING,					/* the error of an ask */
	LEAVING						/* rolls back */
} State;

typedef struct Connection
{
	Watch		watch;			/* first: see ready() */
	PGconn	   *pg;
	State		state;
	int64_t		retry_at;
	int64_t		since;			/* it tries to connect */
	int			retry;			/* ms */
	Ask		   *ask;
	int			step;			/* results that have come */
	char		sqlstate[6];	/* of the first error */
	char		error[256];
	int			failed_step;
} Connection;

static const char *const statements[][2] = {
	{"snapshot", "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"},
	{"role", "SELECT set_config('role', $1, true)"},
	{"http", "SELECT status, headers, body, wait FROM voiding.http($1, $2, '{}', $3::jsonb, $4)"},
	{"commit", "COMMIT"},
	{"problem", "SELECT p ->> 'status', p FROM voiding.problem($1, $2, NULL, $3) p"},
};

#define STATEMENTS ((int) (sizeof(statements) / sizeof(statements[0])))

static Connection *connections;
static LIST(waiting);
static int	nwaiting = 0;
static bool said_down = false;

/* ---- answers ---- */

void
answer_free(Answer *answer)
{
	json_decref(answer->headers);
	json_decref(answer->wait);
	free(answer->body);
	*answer = (Answer) {0};
}

/* a problem of the gateway's own (RFC 9457) */
void
answer_problem(Answer *answer, int status, const char *title, const char *detail)
{
	json_t	   *problem = json_pack("{s:s, s:s, s:i, s:s}", "type", "about:blank", "title", title, "status", status, "detail", detail);

	answer_free(answer);
	answer->status = status;
	answer->body = json_dumps(problem, 0);
	answer->length = strlen(answer->body);
	answer->headers = json_pack("{s:s, s:s}", "Content-Type", "application/problem+json", "Cache-Control", "no-store");
	if (status == 503)
		json_object_set_new(answer->headers, "Retry-After", json_string("1"));
	if (status == 401)
		json_object_set_new(answer->headers, "WWW-Authenticate", json_string("Bearer"));
	json_decref(problem);
}

Ask *
ask_new(const char *role, int nparts)
{
	Ask		   *ask = allocate(sizeof(Ask));

	ask->role = role ? copy(role) : NULL;
	ask->nparts = nparts;
	ask->parts = allocate(sizeof(Part) * (size_t) nparts);
	ask->deadline = now_ms() + options.request_timeout * 1000;
	return ask;
}

void
ask_free(Ask *ask)
{
	for (Part *p = ask->parts; p < ask->parts + ask->nparts; p++)
	{
		answer_free(&p->answer);
		free(p->target);
		free(p->headers);
		free(p->body);
	}
	free(ask->parts);
	free(ask->role);
	free(ask);
}

static void
finish(Ask *ask)
{
	ask->done(ask, ask->owner);
}

static void
finish_with_problem(Ask *ask, int status, const char *title, const char *detail)
{
	for (Part *p = ask->parts; p < ask->parts + ask->nparts; p++)
		answer_problem(&p->answer, status, title, detail);
	finish(ask);
}

/* ---- sending ---- */

static void
lose(Connection *c, const char *why)
{
	Ask		   *ask = c->ask;

	if (c->state != DOWN && !draining && !said_down)
		say("no connection to the database: %.200s", why ? why : "lost");
	said_down = true;
	unwatch(&c->watch);
	PQfinish(c->pg);
	c->pg = NULL;
	c->ask = NULL;
	c->state = DOWN;
	c->retry = c->retry ? c->retry * 2 : FIRST_RETRY;
	if (c->retry > LAST_RETRY)
		c->retry = LAST_RETRY;
	c->retry_at = now_ms() + c->retry;
	if (ask)
		finish_with_problem(ask, 503, "The connection to the database was lost",
							"Whether the request was carried out is not known. Send it again, with the same Idempotency-Key.");
}

static void
flush(Connection *c)
{
	int			left = PQflush(c->pg);

	if (left < 0)
		lose(c, PQerrorMessage(c->pg));
	else
		watch(&c->watch, PQsocket(c->pg), EPOLLIN | (left ? EPOLLOUT : 0));
}

static bool
run(Connection *c, const char *statement, int n, const char *const *values)
{
	return PQsendQueryPrepared(c->pg, statement, n, values, NULL, NULL, 0) == 1;
}

static void
send_ask(Connection *c, Ask *ask)
{
	const char *role[] = {ask->role};
	bool		sent = !ask->snapshot || run(c, "snapshot", 0, NULL);

	c->ask = ask;
	c->state = ASKING;
	c->step = c->failed_step = 0;
	c->sqlstate[0] = '\0';
	if (ask->role)
		sent = sent && run(c, "role", 1, role);
	for (Part *p = ask->parts; p < ask->parts + ask->nparts; p++)
	{
		const char *values[] = {p->method, p->target, p->headers, p->body};

		sent = sent && run(c, "http", 4, values);
	}
	sent = sent && (!ask->snapshot || run(c, "commit", 0, NULL)) && PQpipelineSync(c->pg) == 1;
	if (sent)
		flush(c);
	else
		lose(c, PQerrorMessage(c->pg));
}

static void
send_next(Connection *c)
{
	c->state = IDLE;
	if (list_empty(&waiting))
		return;
	Ask		   *ask = ITEM(Ask, link, waiting.next);

	list_remove(&ask->link);
	nwaiting--;
	send_ask(c, ask);
}

void
pool_ask(Ask *ask)
{
	if (!pool_is_up())
	{
		finish_with_problem(ask, 503, "The database is away", "It is tried again.");
		return;
	}
	for (Connection *c = connections; c < connections + options.pool && list_empty(&waiting); c++)
		if (c->state == IDLE)
		{
			send_ask(c, ask);
			return;
		}
	if (nwaiting >= options.queue)
	{
		metrics.refused++;
		finish_with_problem(ask, 503, "Too many requests wait", "Ask again.");
		return;
	}
	list_append(&waiting, &ask->link);
	nwaiting++;
}

/* ---- receiving ---- */

static json_t *
json_column(const PGresult *r, int column)
{
	return PQgetisnull(r, 0, column) ? NULL : json_loads(PQgetvalue(r, 0, column), 0, NULL);
}

static void
take_answer(Answer *a, const PGresult *r)
{
	a->status = atoi(PQgetvalue(r, 0, 0));
	a->headers = json_column(r, 1);
	a->wait = json_column(r, 3);
	if (PQgetisnull(r, 0, 2))
		return;
	a->length = (size_t) PQgetlength(r, 0, 2);
	a->body = allocate(a->length + 1);
	memcpy(a->body, PQgetvalue(r, 0, 2), a->length);
}

static void
note_error(Connection *c, const PGresult *r)
{
	const char *sqlstate = PQresultErrorField(r, PG_DIAG_SQLSTATE);

	if (c->sqlstate[0])
		return;
	const char *error = PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY);

	snprintf(c->sqlstate, sizeof(c->sqlstate), "%s", sqlstate ? sqlstate : "08006");
	snprintf(c->error, sizeof(c->error), "%s", error ? error : "");
	c->failed_step = c->step;
}

/* a result of an ask: perhaps begin, perhaps role, a part each, perhaps commit; or an error of the sync */
static void
take_result(Connection *c, const PGresult *r)
{
	int			part = c->step - (c->ask->role != NULL) - c->ask->snapshot;
	ExecStatusType status = PQresultStatus(r);

	if (status == PGRES_FATAL_ERROR)
		note_error(c, r);
	else if (status == PGRES_TUPLES_OK && part >= 0 && part < c->ask->nparts && PQntuples(r) == 1)
		take_answer(&c->ask->parts[part].answer, r);
	c->step++;
}

/* nothing of it has been done: let the server make a problem of its error */
static void
explain(Connection *c)
{
	const char *values[] = {c->sqlstate, c->error, c->ask->parts[0].target};

	for (Part *p = c->ask->parts; p < c->ask->parts + c->ask->nparts; p++)
		answer_free(&p->answer);
	if (c->ask->role && c->failed_step == c->ask->snapshot)
	{
		Ask		   *ask = c->ask;

		c->ask = NULL;
		finish_with_problem(ask, 403, "Not allowed", "There is no such role, or the gateway may not act for it.");
		return;
	}
	c->state = EXPLAINING;
	if (run(c, "problem", 3, values) && PQpipelineSync(c->pg) == 1)
		flush(c);
	else
		lose(c, PQerrorMessage(c->pg));
}

static void
take_explanation(Connection *c, const PGresult *r)
{
	if (PQresultStatus(r) != PGRES_TUPLES_OK || c->ask == NULL)
		return;
	for (Part *p = c->ask->parts; p < c->ask->parts + c->ask->nparts; p++)
	{
		answer_problem(&p->answer, atoi(PQgetvalue(r, 0, 0)), "", "");
		free(p->answer.body);
		p->answer.body = copy(PQgetvalue(r, 0, 1));
		p->answer.length = strlen(p->answer.body);
	}
}

static void
leave(Connection *c)
{
	c->state = LEAVING;
	if (PQsendQueryParams(c->pg, "ROLLBACK", 0, NULL, NULL, NULL, NULL, 0) && PQpipelineSync(c->pg))
		flush(c);
	else
		lose(c, PQerrorMessage(c->pg));
}

/* all results of a pipeline have come */
static void
at_sync(Connection *c)
{
	Ask		   *ask = c->ask;

	if (PQtransactionStatus(c->pg) != PQTRANS_IDLE)
	{
		leave(c);
		return;
	}
	if (c->state == PREPARING)
	{
		if (said_down)
			say("connected to the database");
		said_down = false;
		c->retry = 0;
		metrics.reconnects++;
	}
	else if (ask && c->sqlstate[0] && c->state != EXPLAINING)
	{
		explain(c);
		if (c->ask || c->state == DOWN)
			return;
		ask = NULL;
	}
	c->ask = NULL;
	c->state = IDLE;
	if (ask && ask->parts[ask->nparts - 1].answer.status == 0)
		finish_with_problem(ask, 500, "An error", "The database gave no answer.");
	else if (ask)
		finish(ask);
	if (c->state == IDLE)		/* or it has been given something by finish() */
		send_next(c);
}

static void
take(Connection *c, PGresult *r)
{
	ExecStatusType status = PQresultStatus(r);

	if (status == PGRES_PIPELINE_SYNC)
		at_sync(c);
	else if (c->state == PREPARING && status == PGRES_FATAL_ERROR)
		lose(c, PQresultErrorMessage(r));
	else if (c->state == ASKING)
		take_result(c, r);
	else if (c->state == EXPLAINING)
		take_explanation(c, r);
	PQclear(r);
}

static void
receive(Connection *c)
{
	int			nothing = 0;	/* a statement's results end with one; more: there are none */

	if (PQconsumeInput(c->pg) != 1)
	{
		lose(c, PQerrorMessage(c->pg));
		return;
	}
	while (c->pg && nothing < 3 && !PQisBusy(c->pg))
	{
		PGresult   *r = PQgetResult(c->pg);

		nothing = r ? 0 : nothing + 1;
		if (r)
			take(c, r);
	}
	if (c->pg && PQstatus(c->pg) == CONNECTION_BAD)
		lose(c, PQerrorMessage(c->pg));
	else if (c->pg)
		flush(c);
}

/* ---- connecting ---- */

static void
prepare(Connection *c)
{
	char	   *set = print("SELECT set_config('statement_timeout', '%ds', false),"
							" set_config('default_transaction_isolation', 'read committed', false)", options.request_timeout);
	bool		sent = PQsetnonblocking(c->pg, 1) == 0 && PQenterPipelineMode(c->pg) == 1 &&
		PQsendQueryParams(c->pg, set, 0, NULL, NULL, NULL, NULL, 0) == 1;

	c->state = PREPARING;
	for (int i = 0; i < STATEMENTS; i++)
		sent = sent && PQsendPrepare(c->pg, statements[i][0], statements[i][1], 0, NULL) == 1;
	sent = sent && PQpipelineSync(c->pg) == 1;
	free(set);
	if (sent)
		flush(c);
	else
		lose(c, PQerrorMessage(c->pg));
}

static void
go_on_connecting(Connection *c)
{
	switch (PQconnectPoll(c->pg))
	{
		case PGRES_POLLING_READING:
			unwatch(&c->watch);	/* it may be another socket with the same number */
			watch(&c->watch, PQsocket(c->pg), EPOLLIN);
			break;
		case PGRES_POLLING_WRITING:
			unwatch(&c->watch);
			watch(&c->watch, PQsocket(c->pg), EPOLLOUT);
			break;
		case PGRES_POLLING_OK:
			prepare(c);
			break;
		default:
			lose(c, PQerrorMessage(c->pg));
	}
}

static void
ready(Watch *w)
{
	Connection *c = (Connection *) w;

	if (c->state == CONNECTING)
		go_on_connecting(c);
	else
		receive(c);
}

PGconn *
pool_connect(void)
{
	static const char *const names[] = {"dbname", "fallback_application_name", "client_encoding", "tcp_user_timeout",
		"keepalives_idle", "keepalives_interval", "keepalives_count", NULL};
	const char *const values[] = {options.dsn, "voiding-gateway", "UTF8", "20000", "20", "5", "3", NULL};

	return PQconnectStartParams(names, values, 1);
}

static void
connect_one(Connection *c)
{
	c->since = now_ms();
	c->state = CONNECTING;
	c->pg = pool_connect();
	if (c->pg == NULL || PQstatus(c->pg) == CONNECTION_BAD)
		lose(c, c->pg ? PQerrorMessage(c->pg) : "out of memory");
	else
		watch(&c->watch, PQsocket(c->pg), EPOLLOUT);
}

void
pool_start(void)
{
	connections = allocate(sizeof(Connection) * (size_t) options.pool);
	for (Connection *c = connections; c < connections + options.pool; c++)
	{
		c->watch = (Watch) {.fd = -1,.ready = ready};
		connect_one(c);
	}
}

bool
pool_is_up(void)
{
	for (Connection *c = connections; c < connections + options.pool; c++)
		if (c->state >= IDLE)
			return true;
	return false;
}

void
pool_counts(int *up, int *busy, int *queued)
{
	*up = *busy = 0;
	for (Connection *c = connections; c < connections + options.pool; c++)
	{
		*up += c->state >= IDLE;
		*busy += c->state > IDLE;
	}
	*queued = nwaiting;
}

static void
give_up_late_ones(int64_t now)
{
	bool		up = pool_is_up();

	while (!list_empty(&waiting))
	{
		Ask		   *ask = ITEM(Ask, link, waiting.next);

		if (up && ask->deadline > now)
			return;				/* they stand in the order of time */
		list_remove(&ask->link);
		nwaiting--;
		finish_with_problem(ask, 503, "The database has not answered in time", "Ask again.");
	}
}

void
pool_tick(int64_t now)
{
	for (Connection *c = connections; c < connections + options.pool; c++)
	{
		if (c->state == DOWN && now >= c->retry_at && !draining)
			connect_one(c);
		else if ((c->state == CONNECTING || c->state == PREPARING) && now > c->since + SLOWEST_CONNECT)
			lose(c, "it takes too long to connect");
		else if (c->ask && now > c->ask->deadline + options.request_timeout * 1000)
			lose(c, "it does not answer");
	}
	give_up_late_ones(now);
}

/* they are down from here on: who still asks is told so */
void
pool_stop(void)
{
	for (Connection *c = connections; c < connections + options.pool; c++)
		if (c->pg)
			lose(c, "the end");
	give_up_late_ones(INT64_MAX);
}
