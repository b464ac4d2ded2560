/*
 * gateway.h
 *	  What the files of voiding-gateway share.
 *
 * The gateway is bytes, roles and streams: a request is one call of
 * voiding.http() as the client's role, and routes stay in SQL. It is one
 * thread with one epoll loop (main.c), and nothing in it blocks.
 *
 *	  server.c	 connections and requests of HTTP (libmicrohttpd)
 *	  guard.c	 who may ask: hosts, origins, tokens (libjwt)
 *	  pool.c	 connections to PostgreSQL, and asks that wait for one (libpq)
 *	  hint.c	 the connection that LISTENs
 *	  wait.c	 requests that wait for a command, without a connection
 *	  stream.c	 server-sent events
 *
 * A request (Request) asks the database (Ask), is answered, and may then wait
 * (Wait) or become a stream (Stream). An Ask holds a connection; a Wait and a
 * Stream hold none.
 */
#ifndef GATEWAY_H
#define GATEWAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <jansson.h>
#include <libpq-fe.h>
#include <microhttpd.h>

/* ---- lists: a ring through its head ---- */

typedef struct Link
{
	struct Link *prev;
	struct Link *next;
} Link;

#define LIST(name) Link name = {&name, &name}

/* the body may remove and free the item that it is given, but no other */
#define LIST_EACH(l, head) \
	for (Link *l = (head)->next, *l##_next; l != (head) && (l##_next = l->next) != NULL; l = l##_next)

#define ITEM(type, member, link) ((type *) ((char *) (link) - offsetof(type, member)))

static inline void
list_append(Link *head, Link *link)
{
	link->prev = head->prev;
	link->next = head;
	head->prev->next = link;
	head->prev = link;
}

static inline void
list_remove(Link *link)
{
	if (link->next == NULL)
		return;
	link->prev->next = link->next;
	link->next->prev = link->prev;
	link->prev = link->next = NULL;
}

static inline bool
list_empty(const Link *head)
{
	return head->next == head;
}

/* ---- option.c ---- */

typedef struct Options
{
	char	   *dsn;
	char	   *listen;
	char	   *role;			/* of requests without a token; empty: see is_open() */
	char	   *host;
	char	   *jwt_secret;
	char	   *jwt_key;
	char	   *jwt_audience;
	char	   *tls_cert;
	char	   *tls_key;
	bool		behind_proxy;
	int			pool;
	int			queue;
	int			connections;
	int			streams;
	int			max_body;
	int			max_header;
	int			request_timeout;
	int			idle_timeout;
	int			wait_limit;
	int			heartbeat;
	int			stream_buffer;
	int			drain;
} Options;

extern Options options;

void		read_options(int argc, char **argv);
char	   *read_file(const char *path, size_t *size);

/* ---- main.c ---- */

typedef struct Watch			/* a descriptor of the loop */
{
	int			fd;				/* -1: none */
	uint32_t	events;
	void		(*ready)(struct Watch *watch);
} Watch;

extern bool draining;

int64_t		now_ms(void);
void		watch(Watch *watch, int fd, uint32_t events);
void		unwatch(Watch *watch);
void		say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void		fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
void	   *allocate(size_t size);
char	   *copy(const char *text);
char	   *print(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- pool.c ---- */

typedef struct Answer			/* of voiding.http() */
{
	int			status;
	json_t	   *headers;		/* an object, or NULL */
	char	   *body;			/* or NULL */
	size_t		length;
	json_t	   *wait;			/* an object, or NULL */
} Answer;

typedef struct Part				/* one call of voiding.http() */
{
	const char *method;
	char	   *target;			/* path with query string, as it came */
	char	   *headers;		/* a JSON object */
	char	   *body;			/* or NULL */
	Answer		answer;
} Part;

typedef struct Ask				/* calls in one transaction, as one role */
{
	Link		link;
	char	   *role;			/* NULL: the role of the connection */
	bool		snapshot;		/* they read, and all see the same */
	int			nparts;
	Part	   *parts;
	int64_t		deadline;
	void		(*done)(struct Ask *ask, void *owner);	/* frees the ask */
	void	   *owner;
} Ask;

Ask		   *ask_new(const char *role, int nparts);
void		ask_free(Ask *ask);
void		pool_start(void);
void		pool_ask(Ask *ask);
PGconn	   *pool_connect(void);
bool		pool_is_up(void);
void		pool_tick(int64_t now);
void		pool_stop(void);
void		pool_counts(int *up, int *busy, int *waiting);
void		answer_problem(Answer *answer, int status, const char *title, const char *detail);
void		answer_free(Answer *answer);

/* ---- hint.c ---- */

void		hint_start(void);
void		hint_stop(void);
void		hint_tick(int64_t now);
bool		hint_is_up(void);
void		hint_listen(const char *channel);
bool		hint_was_seen(const char *id);

/* ---- server.c ---- */

typedef struct Request
{
	Link		link;			/* of those under way */
	struct MHD_Connection *connection;
	char	   *target;			/* as in the request line */
	const char *method;
	char	   *role;
	time_t		expires;		/* of the token; 0: never */
	char	   *body;
	size_t		length;
	size_t		room;
	bool		begun;			/* its headers have come */
	bool		started;		/* all of it has come */
	bool		suspended;
	bool		answered;		/* answer is there */
	int64_t		began;			/* 0: it has waited */
	Answer		answer;
	bool		is_page;		/* the body is not to be freed */
	struct Ask *ask;			/* is asked just now */
	struct Wait *wait;
	struct Stream *stream;
} Request;

void		server_start(void);
void		server_run(void);
int64_t		server_timeout(void);
void		server_tick(int64_t now);
void		server_drain(void);
bool		server_is_idle(void);
void		server_stop(void);
void		server_reply(Request *request);
void		server_problem(Request *request, int status, const char *title, const char *detail);
const char *request_header(Request *request, const char *name);
char	   *request_headers(Request *request, const char *name, const char *value);

/* ---- listen.c ---- */

int			listen_at(const char *where);
void		listen_tell(int fd, bool is_tls);

/* ---- guard.c ---- */

void		guard_start(bool loopback);
bool		guard_admits(Request *request);
bool		guard_identifies(Request *request);

/* ---- wait.c ---- */

bool		wait_begin(Request *request);
void		wait_hint(const char *id);
void		wait_end(Request *request);
void		wait_tick(int64_t now);
int			wait_count(void);

/* ---- stream.c ---- */

void		stream_begin(Request *request);
ssize_t		stream_read(Request *request, char *to, size_t room);
void		stream_end(Request *request);
void		stream_hint(const char *channel, const char *id);
void		stream_sent(void);
void		stream_tick(int64_t now);
void		stream_close_all(void);
int			stream_count(void);

/* ---- page.c ---- */

bool		page_serves(Request *request);

/* ---- metric.c ---- */

typedef struct Metrics
{
	uint64_t	requests[6];	/* by the first digit of the status */
	uint64_t	refused;		/* by the guard or a limit */
	uint64_t	reconnects;
	uint64_t	hints;
	uint64_t	waits;
	uint64_t	streams;
	uint64_t	fallen_behind;	/* streams, since they are read too slowly */
	uint64_t	cut_off;		/* streams, since they are not read */
	uint64_t	pieces;			/* of text, sent to streams */
	uint64_t	waited;			/* ms that requests took which did not wait */
} Metrics;

extern Metrics metrics;

void		metrics_answer(Request *request);

#endif
