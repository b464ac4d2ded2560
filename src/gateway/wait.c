/*
 * wait.c
 *	  Requests that wait for a command. They have been answered and committed, and
 *	  hold no connection: when a hint names the command, or now and then since a
 *	  hint can be lost, what the answer says is asked. An answer in which there
 *	  is no wait any more is the final one. When the time is over the client gets
 *	  the first answer.
 */
#include <stdlib.h>
#include <string.h>

#include "gateway.h"

#define FIRST_LOOK 1000			/* ms without a hint */
#define LAST_LOOK 5000

typedef struct Wait
{
	Link		link;
	Request    *request;		/* its answer is the first one */
	char	   *id;
	char	   *then;
	char	   *applied;
	int64_t		until;
	int64_t		look_at;
	int			pause;			/* ms */
	bool		again;			/* a hint came while it was asked */
} Wait;

static LIST(waits);
static int	count = 0;

int
wait_count(void)
{
	return count;
}

static void look(Wait *w);

/* the request goes on without it; what it is asked just now is not waited for */
void
wait_end(Request *r)
{
	Wait	   *w = r->wait;

	if (w == NULL)
		return;
	if (r->ask)
		r->ask->owner = NULL;
	r->ask = NULL;
	r->wait = NULL;
	list_remove(&w->link);
	count--;
	free(w->id);
	free(w->then);
	free(w->applied);
	free(w);
}

static void
take_answer(Ask *ask, void *owner)
{
	Request    *r = owner;
	Answer	   *a = &ask->parts[0].answer;

	if (r && r->wait)
	{
		Wait	   *w = r->wait;

		r->ask = NULL;
		if (a->wait == NULL && a->status != 503)
		{
			answer_free(&r->answer);
			r->answer = *a;
			*a = (Answer) {0};
			if (w->applied && r->answer.headers)
				json_object_set_new(r->answer.headers, "Preference-Applied", json_string(w->applied));
			wait_end(r);
			server_reply(r);
		}
		else if (w->again && a->status != 503)
			look(w);
	}
	ask_free(ask);
}

static void
look(Wait *w)
{
	Request    *r = w->request;
	Ask		   *ask;

	w->again = r->ask != NULL;
	w->pause = w->pause * 2 > LAST_LOOK ? LAST_LOOK : w->pause * 2;
	w->look_at = now_ms() + w->pause;
	if (w->again)
		return;
	ask = ask_new(r->role, 1);
	ask->parts[0].method = "GET";
	ask->parts[0].target = copy(w->then);
	ask->parts[0].headers = request_headers(r, "Prefer", "wait=1");	/* is there still something to wait for? */
	ask->done = take_answer;
	ask->owner = r;
	r->ask = ask;
	pool_ask(ask);
}

/* false: there is nothing to wait for */
bool
wait_begin(Request *r)
{
	const json_t *wait = r->answer.wait;
	const char *id = json_string_value(json_object_get(wait, "command_id"));
	const char *then = json_string_value(json_object_get(wait, "then"));
	const char *applied = json_string_value(json_object_get(wait, "applied"));
	json_int_t	seconds = json_integer_value(json_object_get(wait, "seconds"));
	Wait	   *w;

	if (seconds > options.wait_limit)
		seconds = options.wait_limit;
	if (id == NULL || seconds <= 0 || draining)
		return false;
	w = allocate(sizeof(Wait));
	w->request = r;
	w->id = copy(id);
	w->then = copy(then ? then : r->target);
	w->applied = applied ? copy(applied) : NULL;
	w->until = now_ms() + seconds * 1000;
	w->pause = FIRST_LOOK;
	w->look_at = now_ms() + w->pause;
	r->wait = w;
	list_append(&waits, &w->link);
	count++;
	metrics.waits++;
	r->began = 0;				/* it is not timed */
	if (hint_was_seen(id))
		look(w);
	return true;
}

/* NULL: of any command */
void
wait_hint(const char *id)
{
	LIST_EACH(l, &waits)
	{
		Wait	   *w = ITEM(Wait, link, l);

		if (id == NULL || strcmp(id, w->id) == 0)
			look(w);
	}
}

void
wait_tick(int64_t now)
{
	LIST_EACH(l, &waits)
	{
		Wait	   *w = ITEM(Wait, link, l);
		Request    *r = w->request;

		if (now >= w->until)
		{
			wait_end(r);
			server_reply(r);
		}
		else if (now >= w->look_at && r->ask == NULL)
			look(w);
	}
}
