/*
 * gateway.c
 *	  The gateway under libFuzzer, whole and as it is, between a libmicrohttpd
 *	  and a libpq that are played here: what clients send, what the database
 *	  answers and notifies, who goes away, the clock. An input is a story, a line
 *	  for each thing that happens; test/fuzz/gateway has some to begin with.
 *
 *	  +0 GET /x		client 0 (to 3) begins a request
 *	  :0 Name: value	a header of it; a token that begins with { is signed first
 *	  <0 bytes		of its body
 *	  .0			it is all there
 *	  !0			it was wrong, and libmicrohttpd has answered it
 *	  ?0 100		the client takes 100 bytes of its stream
 *	  -0			it goes away
 *	  =200|headers|wait|body	the database answers
 *	  e42501 message	it raises an error instead
 *	  f			the next statement that is no call of http() fails
 *	  l				a connection to the database is lost
 *	  w				the database goes away, or comes back
 *	  n channel payload	a notification
 *	  t 1000		so many ms pass
 *	  d				SIGTERM
 *
 * Besides what the sanitizers see: a request is answered once, with a status
 * that there is, nothing is resumed that was not suspended, and when all
 * clients have gone nothing is left of them. TOKENS in the environment: the
 * gateway wants tokens.
 */
#include <assert.h>
#include <stdarg.h>
#include <sys/epoll.h>
#include <sys/mman.h>

#include <jwt.h>

static int	epoll_ctl_played(int loop, int what, int fd, struct epoll_event *event);

#define now_ms clock_of_main
#define main main_of_gateway
#define epoll_ctl epoll_ctl_played
#include "../../src/gateway/main.c"
#undef now_ms

#define CLIENTS 4
#define SECRET "a secret that has more than thirty-two bytes"

static int64_t now = 1000;
static int64_t began;			/* of this story */

int64_t
now_ms(void)
{
	return now;
}

/* of tokens: each story begins at the same time */
time_t
time(time_t *to)
{
	(void) to;
	return 2000000000 + (now - began) / 1000;
}

/* ---- libmicrohttpd ---- */

struct MHD_Response
{
	int			users;
	char	   *body;			/* to be freed */
	MHD_ContentReaderCallback read;
	void	   *reader;
};

struct MHD_Connection
{
	int			number;
	bool		open;
	bool		suspended;
	bool		whole;			/* the request has come */
	bool		told;			/* handle() knows of it */
	bool		going;			/* as soon as it is not suspended */
	void	   *socket_context;
	void	   *context;		/* the request */
	char	   *uri;
	char	   *method;
	char	   *names[8];
	char	   *values[8];
	int			nheaders;
	struct MHD_Response *response;
};

static struct MHD_Connection clients[CLIENTS];
static MHD_AccessHandlerCallback handle;
static MHD_RequestCompletedCallback completed;
static MHD_NotifyConnectionCallback notify;
static void *(*begin) (void *, const char *, struct MHD_Connection *);

struct MHD_Daemon *
MHD_start_daemon(unsigned flags, uint16_t port, MHD_AcceptPolicyCallback accept, void *accept_cls,
				 MHD_AccessHandlerCallback handler, void *cls, ...)
{
	va_list		a;

	(void) flags, (void) port, (void) accept, (void) accept_cls, (void) cls;
	handle = handler;
	va_start(a, cls);
	for (int option; (option = va_arg(a, int)) != MHD_OPTION_END;)
	{
		void	   *value = option == MHD_OPTION_CONNECTION_MEMORY_LIMIT ? (void *) va_arg(a, size_t) :
			option == MHD_OPTION_ARRAY || option == MHD_OPTION_EXTERNAL_LOGGER || option == MHD_OPTION_URI_LOG_CALLBACK ||
			option == MHD_OPTION_NOTIFY_COMPLETED || option == MHD_OPTION_NOTIFY_CONNECTION ? va_arg(a, void *) : (va_arg(a, int), NULL);

		if (option == MHD_OPTION_URI_LOG_CALLBACK)
			begin = value;
		else if (option == MHD_OPTION_NOTIFY_COMPLETED)
			completed = value;
		else if (option == MHD_OPTION_NOTIFY_CONNECTION)
			notify = value;
		if (value && option != MHD_OPTION_ARRAY && option != MHD_OPTION_CONNECTION_MEMORY_LIMIT)
			(void) va_arg(a, void *);
	}
	va_end(a);
	return (struct MHD_Daemon *) clients;
}

void
MHD_stop_daemon(struct MHD_Daemon *daemon)
{
	(void) daemon;
}

MHD_socket
MHD_quiesce_daemon(struct MHD_Daemon *daemon)
{
	(void) daemon;
	return -1;
}

const union MHD_DaemonInfo *
MHD_get_daemon_info(struct MHD_Daemon *daemon, enum MHD_DaemonInfoType type, ...)
{
	static union MHD_DaemonInfo info = {.epoll_fd = 3};

	(void) daemon, (void) type;
	return &info;
}

enum MHD_Result
MHD_get_timeout(struct MHD_Daemon *daemon, MHD_UNSIGNED_LONG_LONG *timeout)
{
	(void) daemon, (void) timeout;
	return MHD_NO;
}

const union MHD_ConnectionInfo *
MHD_get_connection_info(struct MHD_Connection *c, enum MHD_ConnectionInfoType type, ...)
{
	static union MHD_ConnectionInfo info;

	if (type == MHD_CONNECTION_INFO_SOCKET_CONTEXT)
		info.socket_context = c->socket_context;
	else
		info.connect_fd = 1000 + c->number;
	return &info;
}

const char *
MHD_lookup_connection_value(struct MHD_Connection *c, enum MHD_ValueKind kind, const char *name)
{
	(void) kind;
	for (int i = 0; i < c->nheaders; i++)
		if (strcasecmp(c->names[i], name) == 0)
			return c->values[i];
	return NULL;
}

int
MHD_get_connection_values(struct MHD_Connection *c, enum MHD_ValueKind kind, MHD_KeyValueIterator iterator, void *cls)
{
	for (int i = 0; iterator && i < c->nheaders; i++)
		iterator(cls, kind, c->names[i], c->values[i]);
	return c->nheaders;
}

struct MHD_Response *
MHD_create_response_from_buffer(size_t size, void *buffer, enum MHD_ResponseMemoryMode mode)
{
	struct MHD_Response *r = allocate(sizeof(struct MHD_Response));

	if (size > 0)				/* all of it can be read */
		assert(memchr(buffer, 1, size) != (void *) 1);
	r->users = 1;
	r->body = mode == MHD_RESPMEM_MUST_FREE ? buffer : NULL;
	return r;
}

struct MHD_Response *
MHD_create_response_from_callback(uint64_t size, size_t block, MHD_ContentReaderCallback read, void *cls, MHD_ContentReaderFreeCallback free_cls)
{
	struct MHD_Response *r = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);

	(void) size, (void) block, (void) free_cls;
	r->read = read;
	r->reader = cls;
	return r;
}

enum MHD_Result
MHD_add_response_header(struct MHD_Response *response, const char *name, const char *value)
{
	(void) response;
	return strpbrk(name, "\t\r\n ") || *name == '\0' || strpbrk(value, "\r\n") ? MHD_NO : MHD_YES;
}

enum MHD_Result
MHD_queue_response(struct MHD_Connection *c, unsigned status, struct MHD_Response *response)
{
	assert(c->open && !c->suspended && c->response == NULL);
	if (status < 200 || status > 999)
		return MHD_NO;
	response->users++;
	c->response = response;
	return MHD_YES;
}

void
MHD_destroy_response(struct MHD_Response *response)
{
	if (--response->users > 0)
		return;
	free(response->body);
	free(response);
}

void
MHD_suspend_connection(struct MHD_Connection *c)
{
	assert(c->open && !c->suspended);
	c->suspended = true;
}

void
MHD_resume_connection(struct MHD_Connection *c)
{
	assert(c->open && c->suspended);
	c->suspended = false;
}

/* ---- clients ---- */

static void
forget(struct MHD_Connection *c)
{
	for (int i = 0; i < c->nheaders; i++)
	{
		free(c->names[i]);
		free(c->values[i]);
	}
	if (c->response)
		MHD_destroy_response(c->response);
	free(c->uri);
	free(c->method);
	c->uri = c->method = NULL;
	c->response = NULL;
	c->nheaders = 0;
	c->told = c->whole = false;
}

/* the end of a request; how: 0 it is answered, else it is not */
static void
complete(struct MHD_Connection *c, int how)
{
	if (c->told)
		completed(NULL, c, &c->context, how == 0 ? MHD_REQUEST_TERMINATED_COMPLETED_OK :
				  how == 1 ? MHD_REQUEST_TERMINATED_CLIENT_ABORT : MHD_REQUEST_TERMINATED_TIMEOUT_REACHED);
	forget(c);
}

static void
go_away(struct MHD_Connection *c, int how)
{
	c->going = c->open && c->suspended;		/* libmicrohttpd does not look at it before it goes on */
	if (!c->open || c->suspended)
		return;
	complete(c, how);
	notify(NULL, c, &c->socket_context, MHD_CONNECTION_NOTIFY_CLOSED);
	c->open = false;
}

int
shutdown(int fd, int how)
{
	(void) how;
	if (fd >= 1000)
		clients[fd - 1000].going = true;
	return 0;
}

static void
tell(struct MHD_Connection *c, const char *data, size_t size)
{
	size_t		left = size;

	if (c->response || c->suspended)
		return;
	if (handle(NULL, c, "/", c->method, "HTTP/1.1", data, &left, &c->context) != MHD_YES)
		go_away(c, 1);
	else
		assert(left == 0 && (size == 0 || !c->suspended));
}

static void
tell_headers(struct MHD_Connection *c)
{
	if (c->told)
		return;
	c->told = true;
	tell(c, NULL, 0);
}

static void
take(struct MHD_Connection *c, size_t room)
{
	char	   *to = allocate(room);
	ssize_t		n = c->response->read(c->response->reader, 0, to, room);

	free(to);
	assert(n <= (ssize_t) room && (n != 0 || c->suspended));
	if (n == MHD_CONTENT_READER_END_OF_STREAM)
		complete(c, 0);
}

/* what libmicrohttpd does by itself */
enum MHD_Result
MHD_run(struct MHD_Daemon *daemon)
{
	(void) daemon;
	for (struct MHD_Connection *c = clients; c < clients + CLIENTS; c++)
	{
		if (c->open && c->whole && !c->suspended && c->response == NULL)
			tell(c, NULL, 0);
		if (c->open && !c->suspended && c->response && !c->response->read)
			complete(c, 0);
		if (c->going)
			go_away(c, 2);
	}
	return MHD_YES;
}

/* METHOD TARGET */
static void
open_request(struct MHD_Connection *c, const char *text)
{
	size_t		n = strcspn(text, " ");

	if (c->open && c->uri)
		return;
	if (!c->open)
	{
		c->open = true;
		notify(NULL, c, &c->socket_context, MHD_CONNECTION_NOTIFY_STARTED);
	}
	c->method = strndup(text, n);
	c->uri = copy(text + n + (text[n] != '\0'));
	c->context = begin(NULL, c->uri, c);
}

static char *
signed_token(const char *claims)
{
	jwt_t	   *jwt;
	char	   *token = NULL;
	char	   *header = NULL;

	jwt_new(&jwt);
	if (jwt_add_grants_json(jwt, claims) == 0 && jwt_set_alg(jwt, JWT_ALG_HS256, (const unsigned char *) SECRET, strlen(SECRET)) == 0)
		token = jwt_encode_str(jwt);
	jwt_free(jwt);
	header = print("Bearer %s", token ? token : claims);
	free(token);
	return header;
}

static void
add_header(struct MHD_Connection *c, char *text)
{
	char	   *value = strstr(text, ": ");

	if (c->uri == NULL || c->told || c->nheaders == 8 || value == NULL)
		return;
	*value = '\0';
	value += 2;
	c->names[c->nheaders] = copy(text);
	c->values[c->nheaders++] = *value == '{' && strcasecmp(text, "authorization") == 0 ? signed_token(value) : copy(value);
}

static void
act(struct MHD_Connection *c, char what, char *text, size_t length)
{
	if (what == '+')
		open_request(c, text);
	else if (what == '-')
		go_away(c, 1);
	else if (what == ':')
		add_header(c, text);
	else if (what == '?' && c->response && c->response->read && !c->suspended)
		take(c, (size_t) (atoi(text) & 0xffff) + 1);
	else if (what == '!' && c->uri && !c->told)
		forget(c);
	else if (what == '<' && c->uri && !c->whole)
	{
		tell_headers(c);
		if (length > 0 && c->open && c->uri)
			tell(c, text, length);
	}
	else if (what == '.' && c->uri && !c->whole)
	{
		tell_headers(c);
		c->whole = c->open && c->uri;
	}
}

/* ---- libpq ---- */

typedef enum Statement
{
	NOTHING,
	ORDINARY,					/* succeeds by itself */
	CALL,						/* has a row that the input says */
	SYNC
} Statement;

struct pg_conn
{
	int			fd;
	bool		up;
	bool		lost;
	bool		between;		/* behind a result: there comes a NULL */
	bool		aborted;		/* the rest of the pipeline */
	bool		snapshot;		/* it has begun with BEGIN */
	PGTransactionStatusType transaction;
	Statement	statements[64];
	int			nstatements;
	PGresult   *given;			/* of the next one */
	PGnotify   *notification;
};

static PGconn *servers[16];
static Watch *watches[16];
static bool away = false;
static bool fails = false;
static char error_code[6];
static char error_text[300];

static int
epoll_ctl_played(int l, int what, int fd, struct epoll_event *event)
{
	(void) l;
	if (fd >= 100 && fd < 116)
		watches[fd - 100] = what == EPOLL_CTL_DEL ? NULL : event->data.ptr;
	return 0;
}

PGconn *
PQconnectStartParams(const char *const *names, const char *const *values, int expand)
{
	int			n = 0;

	(void) names, (void) values, (void) expand;
	while (servers[n])
		assert(++n < 16);
	servers[n] = allocate(sizeof(PGconn));
	servers[n]->fd = 100 + n;
	return servers[n];
}

PostgresPollingStatusType
PQconnectPoll(PGconn *pg)
{
	pg->up = !away;
	return away ? PGRES_POLLING_FAILED : PGRES_POLLING_OK;
}

void
PQfinish(PGconn *pg)
{
	if (pg == NULL)
		return;
	servers[pg->fd - 100] = NULL;
	PQclear(pg->given);
	PQfreemem(pg->notification);
	free(pg);
}

static int
send_statement(PGconn *pg, Statement statement)
{
	if (pg->lost || pg->nstatements == 64)
		return 0;
	pg->statements[pg->nstatements++] = statement;
	return 1;
}

int
PQsendQuery(PGconn *pg, const char *text)
{
	assert(strlen(text) < 200);
	return send_statement(pg, ORDINARY);
}

int
PQsendQueryParams(PGconn *pg, const char *text, int n, const Oid *types, const char *const *values, const int *lengths, const int *formats, int format)
{
	(void) n, (void) types, (void) values, (void) lengths, (void) formats, (void) format;
	if (strcmp(text, "ROLLBACK") == 0)
		pg->transaction = PQTRANS_IDLE;
	return PQsendQuery(pg, text);
}

int
PQsendPrepare(PGconn *pg, const char *name, const char *text, int n, const Oid *types)
{
	(void) name, (void) text, (void) n, (void) types;
	return send_statement(pg, ORDINARY);
}

int
PQsendQueryPrepared(PGconn *pg, const char *name, int n, const char *const *values, const int *lengths, const int *formats, int format)
{
	(void) lengths, (void) formats, (void) format;
	for (int i = 0; i < n; i++)
		assert(values[i] == NULL || strlen(values[i]) < 1000000);
	pg->snapshot |= strcmp(name, "snapshot") == 0;
	return send_statement(pg, strcmp(name, "http") == 0 || strcmp(name, "problem") == 0 ? CALL : ORDINARY);
}

int
PQpipelineSync(PGconn *pg)
{
	return send_statement(pg, SYNC);
}

static void
next_statement(PGconn *pg)
{
	pg->between = pg->statements[0] != SYNC;
	memmove(pg->statements, pg->statements + 1, sizeof(pg->statements) - sizeof(pg->statements[0]));
	pg->nstatements--;
}

int
PQisBusy(PGconn *pg)
{
	return !pg->between && (pg->nstatements == 0 || (pg->statements[0] == CALL && !pg->given && !pg->aborted));
}

PGresult *
PQgetResult(PGconn *pg)
{
	PGresult   *r = pg->given;
	Statement	statement = pg->statements[0];

	if (pg->between || pg->nstatements == 0 || PQisBusy(pg))
	{
		pg->between = false;
		return NULL;
	}
	next_statement(pg);
	pg->given = NULL;
	if (statement == SYNC)
	{
		pg->transaction = pg->aborted && pg->snapshot ? PQTRANS_INERROR : PQTRANS_IDLE;
		pg->aborted = pg->snapshot = false;
	}
	if (r)
		pg->aborted = PQresultStatus(r) == PGRES_FATAL_ERROR;
	else if (statement == SYNC)
		r = PQmakeEmptyPGresult(NULL, PGRES_PIPELINE_SYNC);
	else if (pg->aborted)
		r = PQmakeEmptyPGresult(NULL, PGRES_PIPELINE_ABORTED);
	else
	{
		r = PQmakeEmptyPGresult(NULL, fails ? PGRES_FATAL_ERROR : PGRES_COMMAND_OK);
		pg->aborted = fails;
		fails = false;
	}
	return r;
}

char *
PQresultErrorField(const PGresult *r, int field)
{
	(void) r;
	return field == PG_DIAG_SQLSTATE ? error_code : error_text;
}

PGnotify *
PQnotifies(PGconn *pg)
{
	PGnotify   *n = pg->notification;

	pg->notification = NULL;
	return n;
}

int PQconsumeInput(PGconn *pg) { return !pg->lost; }
int PQflush(PGconn *pg) { return pg->lost ? -1 : 0; }
int PQsocket(const PGconn *pg) { return pg->fd; }
int PQsetnonblocking(PGconn *pg, int yes) { (void) pg, (void) yes; return 0; }
int PQenterPipelineMode(PGconn *pg) { (void) pg; return 1; }
char *PQerrorMessage(const PGconn *pg) { (void) pg; return "gone"; }
char *PQresultErrorMessage(const PGresult *r) { (void) r; return "an error"; }
char *PQescapeIdentifier(PGconn *pg, const char *text, size_t length) { (void) pg; return strndup(text, length); }
void PQfreemem(void *memory) { free(memory); }
ConnStatusType PQstatus(const PGconn *pg) { return pg->lost ? CONNECTION_BAD : CONNECTION_OK; }
PGTransactionStatusType PQtransactionStatus(const PGconn *pg) { return pg->transaction; }

/* ---- the database ---- */

static PGresult *
row(char *text)
{
	static PGresAttDesc columns[] = {{.name = "status"}, {.name = "headers"}, {.name = "body"}, {.name = "wait"}};
	PGresult   *r = PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK);
	static const int order[] = {0, 1, 3, 2};

	PQsetResultAttrs(r, 4, columns);
	for (int i = 0; i < 4; i++)
	{
		char	   *value = i < 3 ? strsep(&text, "|") : text;

		PQsetvalue(r, 0, order[i], value && *value ? value : NULL, value && *value ? (int) strlen(value) : -1);
	}
	return r;
}

static void
answer(PGresult *r)
{
	for (int i = 0; i < 16; i++)
		if (servers[i] && servers[i]->up && servers[i]->nstatements > 0 && servers[i]->statements[0] == CALL && !servers[i]->given)
		{
			servers[i]->given = r;
			return;
		}
	PQclear(r);
}

/* channel payload: to each connection, the gateway has one that LISTENs; the others ignore it */
static void
say_notification(char *text)
{
	char	   *payload = strchr(text, ' ');
	size_t		size = sizeof(PGnotify) + strlen(text) + 1;

	for (int i = 0; i < 16; i++)
		if (payload && servers[i] && servers[i]->up && servers[i]->notification == NULL)
		{
			PGnotify   *n = servers[i]->notification = allocate(size);

			n->relname = strcpy((char *) (n + 1), text);
			n->relname[payload - text] = '\0';
			n->extra = n->relname + (payload - text) + 1;
		}
}

static void
raise_error(const char *text)
{
	snprintf(error_code, sizeof(error_code), "%s", text);
	snprintf(error_text, sizeof(error_text), "%s", text + strnlen(text, 5));
	answer(PQmakeEmptyPGresult(NULL, PGRES_FATAL_ERROR));
}

static void
lose_one(void)
{
	for (int i = 15; i >= 0; i--)
		if (servers[i] && !servers[i]->lost)
		{
			servers[i]->lost = true;
			return;
		}
}

/* ---- the story ---- */

static bool
something_to_read(const PGconn *pg)
{
	return pg->lost || !pg->up || pg->notification || pg->between || !PQisBusy((PGconn *) pg);
}

/* rounds of the loop of main.c, until nothing happens any more */
static void
go_on(void)
{
	bool		something = true;

	for (int round = 0; something && round < 50; round++)
	{
		something = false;
		server_run();
		for (int i = 0; i < 16; i++)
			if (servers[i] && watches[i] && something_to_read(servers[i]))
			{
				something = true;
				watches[i]->ready(watches[i]);
			}
	}
}

static void
pass(int64_t ms)
{
	now += ms;
	tick(now);
}

static void
happen(char *line, size_t length)
{
	if (strchr("+-:<.!?", line[0]) && line[0] && line[1] >= '0' && line[1] < '0' + CLIENTS)
	{
		size_t		from = length > 2 && line[2] == ' ' ? 3 : 2;

		act(&clients[line[1] - '0'], line[0], line + from, length - from);
	}
	else if (line[0] == '=')
		answer(row(line + 1));
	else if (line[0] == 'e')
		raise_error(line + 1);
	else if (line[0] == 'f')
		fails = true;
	else if (line[0] == 'l')
		lose_one();
	else if (line[0] == 'w')
		away = !away;
	else if (line[0] == 'n' && line[1] == ' ')
		say_notification(line + 2);
	else if (line[0] == 't')
		pass(atoi(line + 1) & 0xfffff);
	else if (line[0] == 'd' && !draining)
	{
		draining = true;
		server_drain();
	}
	go_on();
}

/* as main() ends; somebody still comes when the database has gone. Nobody goes
 * without an answer, and nothing is left of anybody. */
static void
end(void)
{
	if (!draining)
		happen("d", 1);
	pool_stop();
	hint_stop();
	act(&clients[0], '+', "GET /metrics", 12);
	act(&clients[0], '.', NULL, 0);
	go_on();
	for (struct MHD_Connection *c = clients; c < clients + CLIENTS; c++)
		assert(!c->open || !c->whole || c->response);
	server_stop();
	for (int i = 0; i < CLIENTS; i++)
		go_away(&clients[i], 1);
	assert(server_is_idle() && wait_count() == 0 && stream_count() == 0);
}

int
listen_at(const char *where)
{
	(void) where;
	guard_start(true);
	return 3;
}

void
listen_tell(int fd, bool is_tls)
{
	(void) fd, (void) is_tls;
}

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
	char		secret[40] = "";
	char	   *arguments[] = {"gateway", "--pool", "2", "--queue", "2", "--streams", "3", "--max-body", "1024",
		"--host", "there.example", "--role", "client", "--jwt-secret", secret, "--jwt-audience", "us"};
	int			fd = memfd_create("secret", 0);

	(void) argc, (void) argv;
	if (getenv("TOKENS"))
	{
		assert(write(fd, SECRET, strlen(SECRET)) > 0);
		arguments[12] = "";		/* of requests without a token: none */
		snprintf(secret, sizeof(secret), "/proc/self/fd/%d", fd);
	}
	read_options(sizeof(arguments) / sizeof(arguments[0]), arguments);
	options.stream_buffer = 200;	/* so that stories can be short */
	options.max_header = 600;
	for (int i = 0; i < CLIENTS; i++)
		clients[i].number = i;
	server_start();
	hint_start();
	pool_start();
	go_on();
	return 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char	   *story = allocate(size + 1);
	char	   *rest = story;

	memcpy(story, data, size);
	draining = away = fails = false;
	pass(100000);
	began = now;
	go_on();
	while (rest)
	{
		char	   *line = rest;
		char	   *stop = memchr(line, '\n', size - (size_t) (line - story));

		rest = stop ? stop + 1 : NULL;
		if (stop)
			*stop = '\0';
		/* in memory of its own: what is read behind it is seen */
		size_t		length = (size_t) ((stop ? stop : story + size) - line);
		char	   *alone = allocate(length + 1);

		memcpy(alone, line, length);
		happen(alone, length);
		free(alone);
	}
	end();
	free(story);
	return 0;
}
