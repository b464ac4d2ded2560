/*
 * pgoutput.c
 *	  A reader of logical replication, as Debezium is one: over libpq's
 *	  replication protocol, with PostgreSQL's own plug-in pgoutput. Prints what
 *	  comes, a line for each message, fields separated by tabs and escaped as
 *	  COPY does, and ends when the server has sent all up to a place in the WAL.
 *
 *	  pgoutput CONNINFO SLOT PUBLICATION LSN [confirm]
 *
 * With "confirm" the server is told that all that came has been kept; without,
 * as if the reader had died before.
 */
#include <arpa/inet.h>
#include <endian.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <libpq-fe.h>

#define LIMIT 60				/* s */
#define MAX_RELATIONS 100
#define MAX_COLUMNS 100

typedef struct Relation
{
	uint32_t	oid;
	char		name[200];
	int			ncolumns;
	char		column[MAX_COLUMNS][64];
} Relation;

typedef struct In				/* a message that is being read */
{
	const char *at;
	const char *end;
} In;

static Relation relations[MAX_RELATIONS];
static int	nrelations = 0;

static void
die(const char *format, ...)
{
	va_list		args;

	fflush(stdout);
	fprintf(stderr, "pgoutput: ");
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, "\n");
	exit(1);
}

/* ---- reading ---- */

static const char *
take(In *in, size_t n)
{
	const char *at = in->at;

	if ((size_t) (in->end - in->at) < n)
		die("a message is too short");
	in->at += n;
	return at;
}

static uint64_t
take_int(In *in, int bytes)
{
	const unsigned char *b = (const unsigned char *) take(in, bytes);
	uint64_t	v = 0;

	for (int i = 0; i < bytes; i++)
		v = v << 8 | b[i];
	return v;
}

static const char *
take_string(In *in)
{
	size_t		n = strnlen(in->at, in->end - in->at);

	return take(in, n + 1);
}

/* ---- printing ---- */

static void
print_escaped(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		switch (s[i])
		{
			case '\\': fputs("\\\\", stdout); break;
			case '\t': fputs("\\t", stdout); break;
			case '\n': fputs("\\n", stdout); break;
			case '\r': fputs("\\r", stdout); break;
			default: putchar(s[i]);
		}
}

static void
print_lsn(const char *what, uint64_t lsn)
{
	printf("%s\t%X/%X\n", what, (unsigned) (lsn >> 32), (unsigned) lsn);
}

/* relation: name, replica identity, then column:type oid */
static void
print_relation(In *in)
{
	Relation   *r = relations;
	uint32_t	oid = take_int(in, 4);
	const char *schema = take_string(in);
	const char *name = take_string(in);
	char		identity = *take(in, 1);

	while (r < relations + nrelations && r->oid != oid)
		r++;
	if (r == relations + nrelations && nrelations++ == MAX_RELATIONS)
		die("too many relations");
	r->oid = oid;
	snprintf(r->name, sizeof(r->name), "%s.%s", schema, name);
	r->ncolumns = take_int(in, 2);
	if (r->ncolumns > MAX_COLUMNS)
		die("too many columns");
	printf("relation\t%s\t%c", r->name, identity);
	for (int i = 0; i < r->ncolumns; i++)
	{
		take(in, 1);			/* is it of the key? */
		snprintf(r->column[i], sizeof(r->column[i]), "%s", take_string(in));
		printf("\t%s:%" PRIu64, r->column[i], take_int(in, 4));
		take(in, 4);			/* typmod */
	}
	printf("\n");
}

/* insert: name, then column=value; a null is \N */
static void
print_insert(In *in)
{
	Relation   *r = relations;
	uint32_t	oid = take_int(in, 4);
	int			n;

	while (r < relations + nrelations && r->oid != oid)
		r++;
	if (r == relations + nrelations || *take(in, 1) != 'N' || (n = take_int(in, 2)) != r->ncolumns)
		die("a row of a relation that was not described");
	printf("insert\t%s", r->name);
	for (int i = 0; i < n; i++)
	{
		char		kind = *take(in, 1);
		size_t		length;

		printf("\t%s=", r->column[i]);
		if (kind == 'n')
			fputs("\\N", stdout);
		else if (kind == 't')
		{
			length = take_int(in, 4);
			print_escaped(take(in, length), length);
		}
		else
			die("a value of kind \"%c\"", kind);
	}
	printf("\n");
}

/* message: prefix, content */
static void
print_message(In *in)
{
	const char *prefix;
	size_t		length;

	take(in, 1 + 8);			/* flags, place */
	prefix = take_string(in);
	length = take_int(in, 4);
	printf("message\t%s\t", prefix);
	print_escaped(take(in, length), length);
	printf("\n");
}

static void
print_change(In *in)
{
	char		kind = *take(in, 1);

	switch (kind)
	{
		case 'B': print_lsn("begin", take_int(in, 8)); break;
		case 'C':
			take(in, 1 + 8);	/* flags, place of the commit */
			print_lsn("commit", take_int(in, 8));
			break;
		case 'R': print_relation(in); break;
		case 'I': print_insert(in); break;
		case 'M': print_message(in); break;
		case 'Y': case 'O': break;	/* a type's name, an origin */
		default: printf("other\t%c\n", kind);
	}
}

/* ---- the protocol ---- */

/* what has been kept, and: say how far you are */
static void
send_status(PGconn *conn, uint64_t kept)
{
	char		b[1 + 4 * 8 + 1] = {'r'};
	uint64_t	be = htobe64(kept);

	for (int i = 0; i < 3; i++)	/* written, flushed, applied; then the time, which may be any */
		memcpy(b + 1 + 8 * i, &be, 8);
	b[sizeof(b) - 1] = 1;
	if (PQputCopyData(conn, b, sizeof(b)) != 1 || PQflush(conn) != 0)
		die("%s", PQerrorMessage(conn));
}

/* One message of the server; how far it has sent. */
static uint64_t
handle(const char *data, int length)
{
	In			in = {data, data + length};
	char		kind = *take(&in, 1);
	uint64_t	at = take_int(&in, 8);

	if (kind == 'k')
		return at;
	if (kind != 'w')
		die("a message of kind \"%c\"", kind);
	take(&in, 8 + 8);			/* end of the WAL, time */
	print_change(&in);
	return 0;					/* more of this transaction may come */
}

/* Read until all up to "until" has come; how far that was. */
static uint64_t
read_until(PGconn *conn, uint64_t until)
{
	time_t		end = time(NULL) + LIMIT;
	uint64_t	sent = 0;

	while (sent < until)
	{
		char	   *data;
		int			length = PQgetCopyData(conn, &data, 1);

		if (length > 0)
		{
			uint64_t	at = handle(data, length);

			sent = at > sent ? at : sent;
			PQfreemem(data);
			continue;
		}
		if (length < 0)
			die("the stream has ended: %s", PQerrorMessage(conn));
		if (time(NULL) > end)
			die("%d s are over", LIMIT);
		send_status(conn, 0);
		poll(&(struct pollfd) {.fd = PQsocket(conn), .events = POLLIN}, 1, 100);
		if (!PQconsumeInput(conn))
			die("%s", PQerrorMessage(conn));
	}
	return sent;
}

static void
start(PGconn *conn, const char *slot, const char *publication)
{
	char		command[500];
	PGresult   *res;

	snprintf(command, sizeof(command),
			 "START_REPLICATION SLOT \"%s\" LOGICAL 0/0 (proto_version '1', publication_names '\"%s\"', messages 'true')",
			 slot, publication);
	res = PQexec(conn, command);
	if (PQresultStatus(res) != PGRES_COPY_BOTH)
		die("%s", PQerrorMessage(conn));
	PQclear(res);
}

/* end it in order, so that the server has read the last status when we go */
static void
stop(PGconn *conn)
{
	char	   *data;
	PGresult   *res;

	if (PQputCopyEnd(conn, NULL) != 1 || PQflush(conn) != 0)
		die("%s", PQerrorMessage(conn));
	while (PQgetCopyData(conn, &data, 0) > 0)
		PQfreemem(data);
	while ((res = PQgetResult(conn)) != NULL)
	{
		if (PQresultStatus(res) == PGRES_FATAL_ERROR)
			die("%s", PQerrorMessage(conn));
		PQclear(res);
	}
}

int
main(int argc, char **argv)
{
	unsigned	high,
				low;
	char		conninfo[1000];
	PGconn	   *conn;
	uint64_t	sent;

	if (argc < 5 || sscanf(argv[4], "%X/%X", &high, &low) != 2)
		die("pgoutput CONNINFO SLOT PUBLICATION LSN [confirm]");
	snprintf(conninfo, sizeof(conninfo), "%s replication=database", argv[1]);
	conn = PQconnectdb(conninfo);
	if (PQstatus(conn) != CONNECTION_OK)
		die("%s", PQerrorMessage(conn));
	start(conn, argv[2], argv[3]);
	sent = read_until(conn, (uint64_t) high << 32 | low);
	if (argc > 5)
		send_status(conn, sent);
	stop(conn);
	PQfinish(conn);
	return 0;
}
