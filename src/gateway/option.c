/*
 * option.c
 *	  Options, from a file and from the command line. One table has their names,
 *	  defaults and meanings; --help is made of it, and the sample configuration,
 *	  the manual and the table are compared by a test.
 *
 * A line of the file is "name = value"; # begins a comment. What the command
 * line says wins.
 */
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway.h"

Options		options;

typedef enum Kind
{
	TEXT,
	NUMBER,
	FLAG
} Kind;

typedef struct Option
{
	const char *name;
	Kind		kind;
	const char *argument;		/* what it is called */
	const char *standard;		/* the default */
	int			least;
	int			most;
	void	   *value;
	const char *help;
} Option;

#define text(name, argument, standard, field, help) {name, TEXT, argument, standard, 0, 0, &options.field, help}
#define number(name, argument, standard, least, most, field, help) {name, NUMBER, argument, standard, least, most, &options.field, help}
#define flag(name, field, help) {name, FLAG, NULL, "no", 0, 0, &options.field, help}

static const Option table[] = {
	text("dsn", "CONNINFO", "", dsn, "the database, as libpq takes it; its role is who logs in"),
	text("listen", "HOST:PORT", "127.0.0.1:8080", listen, "where to listen; port 0: any, printed"),
	text("role", "NAME", "", role, "the role of requests without a token"),
	text("host", "NAME,...", "", host, "names by which clients address it, besides localhost"),
	text("jwt-secret", "FILE", "", jwt_secret, "tokens are signed with this secret, by HS256"),
	text("jwt-key", "FILE", "", jwt_key, "tokens are signed for this public key, by RS256, in PEM"),
	text("jwt-audience", "NAME", "", jwt_audience, "the claim aud that a token must have"),
	text("tls-cert", "FILE", "", tls_cert, "certificate in PEM"),
	text("tls-key", "FILE", "", tls_key, "its private key in PEM"),
	flag("behind-proxy", behind_proxy, "a proxy in front does TLS"),
	number("pool", "N", "8", 1, 200, pool, "connections to the database, besides the one that listens"),
	number("queue", "N", "1000", 1, 100000, queue, "requests that may wait for a connection"),
	number("connections", "N", "2000", 10, 100000, connections, "connections of clients"),
	number("streams", "N", "1500", 0, 100000, streams, "streams of events among them"),
	number("max-body", "BYTES", "1048576", 1024, INT_MAX / 2, max_body, "size of a body"),
	number("max-header", "BYTES", "16384", 1024, 1048576, max_header, "size of all headers of a request"),
	number("request-timeout", "SECONDS", "30", 1, 3600, request_timeout, "for a request to come, and for its answer"),
	number("idle-timeout", "SECONDS", "60", 1, 3600, idle_timeout, "for a connection on which nothing happens"),
	number("wait-limit", "SECONDS", "300", 0, 3600, wait_limit, "how long a request may wait (Prefer: wait)"),
	number("heartbeat", "SECONDS", "15", 1, 600, heartbeat, "between signs of life on a stream"),
	number("stream-buffer", "BYTES", "262144", 4096, INT_MAX / 2, stream_buffer, "what a slow reader may leave unread"),
	number("drain", "SECONDS", "10", 0, 600, drain, "for what is under way, after SIGTERM"),
};

#define OPTIONS ((int) (sizeof(table) / sizeof(table[0])))

static void
help(void)
{
	printf("voiding-gateway answers HTTP requests with voiding.http().\n\n"
		   "usage: voiding-gateway --dsn CONNINFO [OPTION...]\n\n");
	for (const Option *o = table; o < table + OPTIONS; o++)
	{
		char	   *left = print("--%s%s%s", o->name, o->argument ? " " : "", o->argument ? o->argument : "");

		printf("  %-25s %s", left, o->help);
		if (o->kind != FLAG && *o->standard)
			printf(" (%s)", o->standard);
		printf("\n");
		free(left);
	}
	printf("  %-25s %s\n", "--config FILE", "read options from a file: name = value");
	printf("  %-25s %s\n", "--help", "this");
	printf("  %-25s %s\n", "--version", "the version");
}

static void
set(const Option *o, const char *value)
{
	char	   *end;
	long		n;

	switch (o->kind)
	{
		case TEXT:
			free(*(char **) o->value);
			*(char **) o->value = copy(value);
			break;
		case NUMBER:
			errno = 0;
			n = strtol(value, &end, 10);
			if (errno || end == value || *end || n < o->least || n > o->most)
				fail("%s is a number from %d to %d, not \"%s\"", o->name, o->least, o->most, value);
			*(int *) o->value = (int) n;
			break;
		case FLAG:
			if (strcmp(value, "yes") != 0 && strcmp(value, "no") != 0)
				fail("%s is yes or no, not \"%s\"", o->name, value);
			*(bool *) o->value = *value == 'y';
			break;
	}
}

char *
read_file(const char *path, size_t *size)
{
	FILE	   *file = fopen(path, "r");
	char	   *text = NULL;
	size_t		length = 0;

	if (file == NULL)
		fail("cannot read %s: %s", path, strerror(errno));
	for (;;)
	{
		text = realloc(text, length + 4097);
		if (text == NULL)
			fail("out of memory");
		size_t		n = fread(text + length, 1, 4096, file);

		length += n;
		if (n == 0)
			break;
	}
	if (ferror(file))
		fail("cannot read %s: %s", path, strerror(errno));
	fclose(file);
	text[length] = '\0';
	if (size)
		*size = length;
	return text;
}

static char *
trim(char *text)
{
	char	   *end = text + strlen(text);

	while (isspace((unsigned char) *text))
		text++;
	while (end > text && isspace((unsigned char) end[-1]))
		*--end = '\0';
	return text;
}

static void
read_line(char *line, const char *path, int number)
{
	char	   *name = trim(line);
	char	   *equal = strchr(name, '=');

	if (*name == '\0' || *name == '#')
		return;
	if (equal == NULL)
		fail("%s, line %d: it must be name = value", path, number);
	*equal = '\0';
	name = trim(name);
	for (const Option *o = table; o < table + OPTIONS; o++)
		if (strcmp(o->name, name) == 0)
		{
			set(o, trim(equal + 1));
			return;
		}
	fail("%s, line %d: there is no option \"%s\"", path, number, name);
}

static void
read_config(const char *path)
{
	char	   *text = read_file(path, NULL);
	char	   *rest = text;
	char	   *line;

	for (int number = 1; (line = strsep(&rest, "\n")) != NULL; number++)
		read_line(line, path, number);
	free(text);
}

void
read_options(int argc, char **argv)
{
	struct option names[OPTIONS + 4] = {0};
	int			which;
	int			c;

	for (int i = 0; i < OPTIONS; i++)
	{
		names[i] = (struct option) {table[i].name, table[i].kind == FLAG ? no_argument : required_argument, NULL, 'o'};
		set(&table[i], table[i].standard);
	}
	names[OPTIONS] = (struct option) {"config", required_argument, NULL, 'c'};
	names[OPTIONS + 1] = (struct option) {"help", no_argument, NULL, 'h'};
	names[OPTIONS + 2] = (struct option) {"version", no_argument, NULL, 'v'};
	while ((c = getopt_long(argc, argv, "", names, &which)) != -1)
	{
		if (c == 'h')
			help();
		else if (c == 'v')
			printf("voiding-gateway %s\n", VOIDING_VERSION);
		else if (c == 'c')
			read_config(optarg);
		else if (c != 'o')
			fail("try voiding-gateway --help");
		if (c == 'h' || c == 'v')
			exit(0);
	}
	if (optind < argc)
		fail("what is \"%s\"? try voiding-gateway --help", argv[optind]);
	optind = 1;					/* once more: these win over those of the file */
	while ((c = getopt_long(argc, argv, "", names, &which)) != -1)
		if (c == 'o')
			set(&table[which], optarg ? optarg : "yes");
}
