/*
 * main.c
 *	  voiding-gateway: start, the loop, the end.
 *
 * The loop waits for descriptors (Watch) and calls what is theirs; ten times a
 * second the ticks of the other files look at the clock. SIGTERM drains: no
 * new connections, streams are closed, waits are answered, what is under way
 * is finished. A second one, or the time for it, ends that too.
 */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "gateway.h"

#define TICK 100				/* ms */
#define BATCH 64

bool		draining = false;

static int	loop = -1;
static bool ended = false;
static int64_t drained_by = INT64_MAX;

/* ---- what everybody needs ---- */

static void
say_list(const char *format, va_list arguments)
{
	fprintf(stderr, "voiding-gateway: ");
	vfprintf(stderr, format, arguments);
	fprintf(stderr, "\n");
}

void
say(const char *format, ...)
{
	va_list		arguments;

	va_start(arguments, format);
	say_list(format, arguments);
	va_end(arguments);
}

void
fail(const char *format, ...)
{
	va_list		arguments;

	va_start(arguments, format);
	say_list(format, arguments);
	va_end(arguments);
	exit(1);
}

void *
allocate(size_t size)
{
	void	   *memory = calloc(1, size);

	if (memory == NULL)
		fail("out of memory");
	return memory;
}

char *
copy(const char *text)
{
	char	   *made = strdup(text);

	if (made == NULL)
		fail("out of memory");
	return made;
}

char *
print(const char *format, ...)
{
	va_list		arguments;
	char	   *text;

	va_start(arguments, format);
	if (vasprintf(&text, format, arguments) < 0)
		fail("out of memory");
	va_end(arguments);
	return text;
}

int64_t
now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64_C(1000) + t.tv_nsec / 1000000;
}

/* ---- the loop ---- */

void
watch(Watch *w, int fd, uint32_t events)
{
	struct epoll_event e = {.events = events,.data.ptr = w};

	if (w->fd == fd && w->events == events)
		return;
	if (w->fd != fd)
		unwatch(w);
	if (epoll_ctl(loop, w->fd == fd ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &e) != 0)
		fail("epoll: %s", strerror(errno));
	w->fd = fd;
	w->events = events;
}

void
unwatch(Watch *w)
{
	if (w->fd >= 0)
		epoll_ctl(loop, EPOLL_CTL_DEL, w->fd, NULL);
	w->fd = -1;
	w->events = 0;
}

static void
tick(int64_t now)
{
	pool_tick(now);
	hint_tick(now);
	wait_tick(now);
	stream_tick(now);
	server_tick(now);
	if (now >= drained_by)
		ended = true;
}

static void
run(void)
{
	struct epoll_event events[BATCH];
	int64_t		next_tick = now_ms();
	int64_t		now;

	while (!ended && !(draining && server_is_idle()))
	{
		int64_t		timeout = server_timeout();

		now = now_ms();
		if (timeout < 0 || timeout > next_tick - now)
			timeout = next_tick > now ? next_tick - now : 0;
		int			n = epoll_wait(loop, events, BATCH, (int) timeout);

		for (int i = 0; i < n; i++)
		{
			Watch	   *w = events[i].data.ptr;

			if (w->fd >= 0)		/* one before may have closed it */
				w->ready(w);
		}
		server_run();
		now = now_ms();
		if (now >= next_tick)
		{
			tick(now);
			next_tick = now + TICK;
		}
	}
}

/* ---- signals ---- */

static void
on_signal(Watch *w)
{
	struct signalfd_siginfo info;

	if (read(w->fd, &info, sizeof(info)) != sizeof(info))
		return;
	if (draining)
	{
		ended = true;
		return;
	}
	say("signal %u: finishing what is under way", info.ssi_signo);
	draining = true;
	drained_by = now_ms() + options.drain * 1000;
	server_drain();
}

static void
watch_signals(void)
{
	static Watch w = {.fd = -1,.ready = on_signal};
	sigset_t	set;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	watch(&w, signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC), EPOLLIN);
}

int
main(int argc, char **argv)
{
	read_options(argc, argv);
	loop = epoll_create1(EPOLL_CLOEXEC);
	if (loop < 0)
		fail("epoll: %s", strerror(errno));
	watch_signals();
	server_start();				/* refuses what is not safe before anything is asked */
	hint_start();
	pool_start();
	run();
	pool_stop();
	hint_stop();
	server_stop();
	return 0;
}
