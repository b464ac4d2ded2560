/*
 * metric.c
 *	  What the gateway has counted, as OpenMetrics, behind what the database says.
 *	  Where that is away, or the role may not know it, there is ours alone.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway.h"

Metrics		metrics;

static void
counter(FILE *out, const char *name, const char *help, uint64_t value)
{
	fprintf(out, "# TYPE voiding_gateway_%s counter\n# HELP voiding_gateway_%s %s\nvoiding_gateway_%s_total %llu\n",
			name, name, help, name, (unsigned long long) value);
}

static void
gauge(FILE *out, const char *name, const char *help, int value)
{
	fprintf(out, "# TYPE voiding_gateway_%s gauge\n# HELP voiding_gateway_%s %s\nvoiding_gateway_%s %d\n", name, name, help, name, value);
}

static void
write_all(FILE *out)
{
	int			up,
				busy,
				waiting;

	pool_counts(&up, &busy, &waiting);
	fprintf(out, "# TYPE voiding_gateway_requests counter\n# HELP voiding_gateway_requests answered, by the first digit of the status\n");
	for (int i = 2; i <= 5; i++)
		fprintf(out, "voiding_gateway_requests_total{status=\"%dxx\"} %llu\n", i, (unsigned long long) metrics.requests[i]);
	fprintf(out, "# TYPE voiding_gateway_seconds counter\n# HELP voiding_gateway_seconds spent on requests that did not wait\n"
			"voiding_gateway_seconds_total %.3f\n", (double) metrics.waited / 1000);
	counter(out, "refused", "requests refused by a limit or a rule", metrics.refused);
	counter(out, "waits", "requests that have waited for a command", metrics.waits);
	counter(out, "streams_opened", "streams that have been opened", metrics.streams);
	counter(out, "pieces", "pieces of text put into streams", metrics.pieces);
	counter(out, "fallen_behind", "times that a stream was read too slowly and fell behind", metrics.fallen_behind);
	counter(out, "cut_off", "streams cut off since they were not read", metrics.cut_off);
	counter(out, "hints", "notifications", metrics.hints);
	counter(out, "connects", "connections made to the database", metrics.reconnects);
	gauge(out, "waiting", "requests that wait for a command", wait_count());
	gauge(out, "streams", "streams that are open", stream_count());
	gauge(out, "connections", "connections to the database that are up", up);
	gauge(out, "connections_busy", "of them, at work", busy);
	gauge(out, "queue", "requests that wait for a connection", waiting);
	gauge(out, "listening", "whether hints are heard", hint_is_up());
}

void
metrics_answer(Request *r)
{
	char	   *text = NULL;
	size_t		size = 0;
	FILE	   *out = open_memstream(&text, &size);

	if (out == NULL)
		fail("out of memory");
	if (r->answer.status == 200 && r->answer.body)
		fputs(r->answer.body, out);
	write_all(out);
	fputs("# EOF\n", out);
	fclose(out);
	answer_free(&r->answer);
	r->answer.status = 200;
	r->answer.body = text;
	r->answer.length = size;
	r->answer.headers = json_pack("{s:s, s:s}", "Content-Type", "application/openmetrics-text; version=1.0.0; charset=utf-8",
								  "Cache-Control", "no-store");
	server_reply(r);
}
