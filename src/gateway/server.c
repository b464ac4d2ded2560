/*
 * server.c
 *	  Connections and requests of HTTP, with libmicrohttpd.
 *
 * A request is read whole, looked at by guard.c, and suspended while others work
 * for it. Who has its answer calls server_reply(); then libmicrohttpd calls
 * handle() once more, which sends it.
 *
 * A connection on which no whole request comes in time is closed, however
 * busily it drips. What libmicrohttpd itself refuses (a request line that it
 * cannot read) has its words, not a problem.
 */
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gateway.h"

typedef struct Client			/* a connection */
{
	Link		link;
	struct MHD_Connection *connection;
	int64_t		since;			/* it has had no whole request */
	bool		busy;			/* it has one */
	Request    *request;		/* it has begun */
} Client;

static struct MHD_Daemon *http;
static LIST(clients);
static LIST(requests);
static bool is_resumed = false;
static bool is_tls = false;

/* ---- what comes with a request ---- */

const char *
request_header(Request *r, const char *name)
{
	return MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND, name);
}

static enum MHD_Result
add_header(void *object, enum MHD_ValueKind kind, const char *name, const char *value)
{
	(void) kind;
	if (value && strcasecmp(name, "authorization") != 0 && strcasecmp(name, "cookie") != 0)
		json_object_set_new(object, name, json_string(value));	/* skips what is not UTF-8 */
	return MHD_YES;
}

/* its headers as a JSON object, with one of them replaced */
char *
request_headers(Request *r, const char *name, const char *value)
{
	json_t	   *object = json_object();
	const char *other;
	json_t	   *v;
	void	   *next;
	char	   *text;

	MHD_get_connection_values(r->connection, MHD_HEADER_KIND, add_header, object);
	json_object_foreach_safe(object, next, other, v)
		if (name && strcasecmp(other, name) == 0)
			json_object_del(object, other);
	if (value)
		json_object_set_new(object, name, json_string(value));
	text = json_dumps(object, JSON_COMPACT);
	json_decref(object);
	return text;
}

static enum MHD_Result
count_header(void *size, enum MHD_ValueKind kind, const char *name, const char *value)
{
	(void) kind;
	*(size_t *) size += strlen(name) + (value ? strlen(value) : 0) + 4;
	return MHD_YES;
}

/* ---- its answer ---- */

static int
socket_of(struct MHD_Connection *connection)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);

	return info ? info->connect_fd : -1;
}

/* it is answered: or, a stream, has something to send */
void
server_reply(Request *r)
{
	r->answered = true;
	if (!r->suspended)
		return;
	r->suspended = false;
	is_resumed = true;
	MHD_resume_connection(r->connection);
}

/* end it, and its connection, whatever has been sent */
static void
cut(Request *r)
{
	shutdown(socket_of(r->connection), SHUT_RDWR);
	if (r->suspended)
		server_reply(r);
}

void
server_problem(Request *r, int status, const char *title, const char *detail)
{
	answer_problem(&r->answer, status, title, detail);
	server_reply(r);
}

static void
add_headers(struct MHD_Response *response, const Request *r)
{
	const char *name;
	json_t	   *value;

	MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
	MHD_add_response_header(response, "X-Frame-Options", "DENY");
	MHD_add_response_header(response, "Referrer-Policy", "no-referrer");
	MHD_add_response_header(response, "Cross-Origin-Resource-Policy", "same-origin");
	MHD_add_response_header(response, "Content-Security-Policy", r->is_page ?
							"default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'" :
							"default-src 'none'; frame-ancestors 'none'");
	if (is_tls)
		MHD_add_response_header(response, "Strict-Transport-Security", "max-age=31536000");
	if (draining)
		MHD_add_response_header(response, "Connection", "close");
	json_object_foreach(r->answer.headers, name, value)
		if (json_is_string(value))
			MHD_add_response_header(response, name, json_string_value(value));
}

static ssize_t
read_stream(void *request, uint64_t at, char *to, size_t room)
{
	Request    *r = request;
	ssize_t		n = stream_read(r, to, room);

	(void) at;
	if (n == 0)
	{
		r->suspended = true;
		MHD_suspend_connection(r->connection);
	}
	return n;
}

static enum MHD_Result
send_answer(Request *r)
{
	struct MHD_Response *response;
	enum MHD_Result result;

	if (r->stream)
		response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 4096, read_stream, r, NULL);
	else
	{
		response = MHD_create_response_from_buffer(r->answer.length, r->answer.body,
												   r->is_page ? MHD_RESPMEM_PERSISTENT : MHD_RESPMEM_MUST_FREE);
		r->answer.body = NULL;
	}
	if (response == NULL)
		return MHD_NO;
	add_headers(response, r);
	result = MHD_queue_response(r->connection, (unsigned) r->answer.status, response);
	MHD_destroy_response(response);
	return result;
}

/* ---- asking ---- */

static void
take_answer(Ask *ask, void *owner)
{
	Request    *r = owner;
	Part	   *p = ask->parts;
	const char *type;

	if (p->answer.status < 300 && strcmp(p->method, "GET") != 0)
		stream_sent();
	if (r)
	{
		r->ask = NULL;
		r->answer = p->answer;
		p->answer = (Answer) {0};
		type = json_string_value(json_object_get(r->answer.headers, "Content-Type"));
		if (type && strcmp(type, "text/event-stream") == 0)
			stream_begin(r);
		else if (strcmp(p->target, "/metrics") == 0)
			metrics_answer(r);
		else if (r->answer.wait == NULL || !wait_begin(r))
			server_reply(r);
	}
	ask_free(ask);
}

static void
ask(Request *r)
{
	Ask		   *a = ask_new(r->role, 1);
	Part	   *p = a->parts;

	p->method = strcmp(r->method, "HEAD") == 0 ? "GET" : r->method; /* libmicrohttpd leaves out the body */
	p->target = copy(r->target);
	p->headers = request_headers(r, NULL, NULL);
	p->body = r->body;
	r->body = NULL;
	a->done = take_answer;
	a->owner = r;
	r->ask = a;
	pool_ask(a);
}

/* what the gateway says itself: is it alive, and does it work? */
static bool
answer_probe(Request *r)
{
	bool		is_ready = pool_is_up() && hint_is_up() && !draining;

	if (strcmp(r->target, "/healthz") != 0 && strcmp(r->target, "/readyz") != 0)
		return false;
	if (strcmp(r->target, "/readyz") == 0 && !is_ready)
	{
		answer_problem(&r->answer, 503, "Not ready", draining ? "It is being stopped." : "The database is away.");
		return true;
	}
	r->answer.status = 200;
	r->answer.body = copy("{\"status\": \"ok\"}");
	r->answer.length = strlen(r->answer.body);
	r->answer.headers = json_pack("{s:s, s:s}", "Content-Type", "application/json", "Cache-Control", "no-store");
	return true;
}

static void
start(Request *r)
{
	if (!guard_admits(r))
		metrics.refused++;
	else if (!page_serves(r) && !answer_probe(r))
	{
		if (guard_identifies(r))
		{
			ask(r);
			return;
		}
		metrics.refused++;
	}
	r->answered = true;
}

/* ---- the callbacks of libmicrohttpd ---- */

static Client *
client_of(struct MHD_Connection *connection)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

	return info ? info->socket_context : NULL;
}

static void
free_request(Request *r)
{
	if (r->ask)
		r->ask->owner = NULL;
	wait_end(r);
	stream_end(r);
	list_remove(&r->link);
	if (r->is_page)
		r->answer.body = NULL;
	answer_free(&r->answer);
	free(r->target);
	free(r->role);
	free(r->body);
	free(r);
}

/* libmicrohttpd does not tell the end of each that it has found wrong itself */
static void
forget_request(Client *client)
{
	if (client->request)
		free_request(client->request);
	client->request = NULL;
	client->busy = false;
	client->since = now_ms();
}

static void *
begin_request(void *cls, const char *uri, struct MHD_Connection *connection)
{
	Client	   *client = client_of(connection);
	Request    *r = allocate(sizeof(Request));

	(void) cls;
	forget_request(client);
	client->request = r;
	r->connection = connection;
	r->target = copy(uri);
	r->began = now_ms();
	list_append(&requests, &r->link);
	return r;
}

static void
refuse_body(Request *r)
{
	if (r->answer.status == 0)
		answer_problem(&r->answer, 413, "The body is too large", "It has more bytes than this server takes.");
}

/*
 * Its headers have come. What is refused now is not read, and its connection
 * is closed; a body that is a little too large is read all the same, or the
 * client would be cut off while it writes, and not see the answer.
 */
static bool
refuse_headers(Request *r)
{
	const char *length = request_header(r, "content-length");
	unsigned long long body = length ? strtoull(length, NULL, 10) : 0;
	size_t		size = strlen(r->target);

	MHD_get_connection_values(r->connection, MHD_HEADER_KIND, count_header, &size);
	if (size > (size_t) options.max_header)
		answer_problem(&r->answer, 431, "The headers are too large", "The address and the headers have too many bytes together.");
	else if (body > (unsigned long long) options.max_body)
		refuse_body(r);
	return r->answer.status != 0 && (r->answer.status != 413 || body / 4 > (unsigned long long) options.max_body ||
									 request_header(r, "expect"));
}

static void
take_body(Request *r, const char *data, size_t size)
{
	if (r->answer.status != 0 || r->length + size > (size_t) options.max_body)
	{
		refuse_body(r);
		return;
	}
	if (r->length + size >= r->room)
	{
		r->room = (r->length + size) * 2 + 1;
		r->body = realloc(r->body, r->room);
		if (r->body == NULL)
			fail("out of memory");
	}
	memcpy(r->body + r->length, data, size);
	r->length += size;
	r->body[r->length] = '\0';
}

static enum MHD_Result
handle(void *cls, struct MHD_Connection *connection, const char *url, const char *method, const char *version,
	   const char *data, size_t *size, void **context)
{
	Request    *r = *context;

	(void) cls, (void) url, (void) version;
	if (!r->begun)
	{
		r->begun = true;
		r->method = method;
		if (refuse_headers(r))
		{
			metrics.refused++;
			return send_answer(r);
		}
		return MHD_YES;
	}
	if (*size > 0)
	{
		take_body(r, data, *size);
		*size = 0;
		return MHD_YES;
	}
	if (!r->started)
	{
		r->started = true;
		client_of(connection)->busy = true;
		if (r->answer.status != 0)
			r->answered = true;
		else
			start(r);
	}
	if (r->answered)
		return send_answer(r);
	r->suspended = true;
	MHD_suspend_connection(connection);
	return MHD_YES;
}

static void
end_request(void *cls, struct MHD_Connection *connection, void **context, enum MHD_RequestTerminationCode code)
{
	Request    *r = *context;
	int			kind;

	(void) cls;
	if (r == NULL)
		return;
	kind = r->answer.status / 100;
	if (kind >= 1 && kind <= 5)
		metrics.requests[kind]++;
	if (r->began && !r->stream)
		metrics.waited += (uint64_t) (now_ms() - r->began);
	metrics.cut_off += r->stream && code == MHD_REQUEST_TERMINATED_TIMEOUT_REACHED;
	forget_request(client_of(connection));
	*context = NULL;
}

static void
on_connection(void *cls, struct MHD_Connection *connection, void **context, enum MHD_ConnectionNotificationCode code)
{
	Client	   *client = *context;

	(void) cls;
	if (code == MHD_CONNECTION_NOTIFY_STARTED)
	{
		*context = client = allocate(sizeof(Client));
		client->connection = connection;
		client->since = now_ms();
		list_append(&clients, &client->link);
	}
	else if (client)
	{
		forget_request(client);
		list_remove(&client->link);
		free(client);
		*context = NULL;
	}
}

static void
on_log(void *cls, const char *format, va_list arguments)
{
	(void) cls, (void) format, (void) arguments;	/* it tells of each client that goes away */
}

/* ---- starting ---- */

static void
ready(Watch *w)
{
	(void) w;					/* the loop runs it after each round */
}

void
server_start(void)
{
	static Watch w = {.fd = -1,.ready = ready};
	unsigned	flags = MHD_USE_EPOLL | MHD_USE_TURBO | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG;
	static struct MHD_OptionItem tls[] = {{MHD_OPTION_END, 0, NULL}, {MHD_OPTION_END, 0, NULL}, {MHD_OPTION_END, 0, NULL}};
	int			fd = listen_at(options.listen);

	if (*options.tls_cert)
	{
		is_tls = true;
		flags |= MHD_USE_TLS;
		tls[0] = (struct MHD_OptionItem) {MHD_OPTION_HTTPS_MEM_CERT, 0, read_file(options.tls_cert, NULL)};
		tls[1] = (struct MHD_OptionItem) {MHD_OPTION_HTTPS_MEM_KEY, 0, read_file(options.tls_key, NULL)};
	}
	http = MHD_start_daemon(flags, 0, NULL, NULL, handle, NULL,
							MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL,
							MHD_OPTION_LISTEN_SOCKET, fd,
							MHD_OPTION_CONNECTION_LIMIT, (unsigned) options.connections,
							MHD_OPTION_CONNECTION_TIMEOUT, (unsigned) options.idle_timeout,
							MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t) options.max_header + 8192,
							MHD_OPTION_URI_LOG_CALLBACK, begin_request, NULL,
							MHD_OPTION_NOTIFY_COMPLETED, end_request, NULL,
							MHD_OPTION_NOTIFY_CONNECTION, on_connection, NULL,
							MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1,
							MHD_OPTION_STRICT_FOR_CLIENT, 1,
							MHD_OPTION_ARRAY, tls,
							MHD_OPTION_END);
	if (http == NULL)
		fail("cannot start the HTTP server%s", is_tls ? ": are certificate and key right?" : "");
	listen_tell(fd, is_tls);
	watch(&w, MHD_get_daemon_info(http, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd, EPOLLIN);
}

/* ---- in the loop ---- */

void
server_run(void)
{
	is_resumed = false;
	MHD_run(http);
}

int64_t
server_timeout(void)
{
	MHD_UNSIGNED_LONG_LONG timeout;

	if (is_resumed)
		return 0;
	return MHD_get_timeout(http, &timeout) == MHD_YES ? (int64_t) timeout : -1;
}

void
server_tick(int64_t now)
{
	static int64_t next = 0;
	int64_t		limit = options.request_timeout > options.idle_timeout ? options.request_timeout : options.idle_timeout;

	if (now < next)
		return;
	next = now + 1000;
	LIST_EACH(l, &clients)
	{
		Client	   *c = ITEM(Client, link, l);

		if (!c->busy && now > c->since + limit * 1000)
			shutdown(socket_of(c->connection), SHUT_RDWR);
	}
}

/* no new connections; those that do nothing are closed */
void
server_drain(void)
{
	int			fd = MHD_quiesce_daemon(http);

	if (fd >= 0)
		close(fd);
	wait_tick(INT64_MAX);
	stream_close_all();
	LIST_EACH(l, &clients)
		if (!ITEM(Client, link, l)->busy)
			shutdown(socket_of(ITEM(Client, link, l)->connection), SHUT_RD);
}

bool
server_is_idle(void)
{
	return list_empty(&requests);
}

/* asks have been given up: let what is answered go out, and end the rest */
void
server_stop(void)
{
	for (int i = 0; i < 10; i++)
		MHD_run(http);
	LIST_EACH(l, &requests)
		cut(ITEM(Request, link, l));
	MHD_run(http);
	MHD_stop_daemon(http);
}
