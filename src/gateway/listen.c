/*
 * listen.c
 *	  The address on which it listens.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gateway.h"

static bool
is_loopback(const struct sockaddr *a)
{
	if (a->sa_family == AF_INET)
		return ntohl(((const struct sockaddr_in *) a)->sin_addr.s_addr) >> 24 == 127;
	return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *) a)->sin6_addr);
}

/* the address, with its port, on the standard output: that it listens */
void
listen_tell(int fd, bool is_tls)
{
	struct sockaddr_storage address;
	socklen_t	size = sizeof(address);
	char		host[INET6_ADDRSTRLEN],
				port[8];

	getsockname(fd, (struct sockaddr *) &address, &size);
	getnameinfo((struct sockaddr *) &address, size, host, sizeof(host), port, sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV);
	printf(strchr(host, ':') ? "listening on %s://[%s]:%s\n" : "listening on %s://%s:%s\n", is_tls ? "https" : "http", host, port);
	fflush(stdout);
}

/* a descriptor for each connection */
static void
allow_descriptors(void)
{
	struct rlimit limit;
	rlim_t		wanted = (rlim_t) (options.connections + options.pool + 64);

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted)
		return;
	limit.rlim_cur = limit.rlim_max == RLIM_INFINITY || limit.rlim_max > wanted ? wanted : limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < wanted)
		say("the limit of open files (ulimit -n) is less than %d connections need", options.connections);
}

/* a socket that listens there, if that is allowed */
int
listen_at(const char *where)
{
	struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICSERV,.ai_socktype = SOCK_STREAM};
	struct addrinfo *a;
	char	   *host = copy(where);
	char	   *port = strrchr(host, ':');
	int			on = 1;

	if (port == NULL)
		fail("listen is HOST:PORT, not \"%s\"", where);
	*port++ = '\0';
	if (*host == '[' && port[-2] == ']')
		port[-2] = '\0';
	int			error = getaddrinfo(*host == '[' ? host + 1 : host, port, &hints, &a);

	if (error)
		fail("cannot listen on %s: %s", where, gai_strerror(error));
	guard_start(is_loopback(a->ai_addr));
	int			fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
		bind(fd, a->ai_addr, a->ai_addrlen) != 0 || listen(fd, 1024) != 0)
		fail("cannot listen on %s: %s", where, strerror(errno));
	freeaddrinfo(a);
	free(host);
	allow_descriptors();
	return fd;
}

