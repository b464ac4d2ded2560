/*
 * stream.c
 *	  Server-sent events. The text of a stream is made by voiding.http(): an
 *	  answer of type text/event-stream is a piece of it, and its wait says with
 *	  which cursor, and upon which hint, to ask for the next.
 *
 * Streams that ask the same as the same role share a topic, which asks once for
 * all of them. A new stream has a cursor of its own and catches up; topic and
 * those who catch up are asked in one snapshot, and who has nothing left to read
 * in it is where the topic is: it has joined. So nobody misses anything, and
 * nobody is told twice, and cursors mean nothing to us.
 *
 * A reader that is slower than its stream falls behind: it has its own cursor
 * again, and is asked for when it has read what it has. One that reads nothing
 * at all is cut off by the time limit of its connection, and resumes with its
 * Last-Event-ID.
 */
#include <stdlib.h>
#include <string.h>

#include "gateway.h"

#define AT_ONCE 16				/* cursors that a topic asks for together */
#define GAP 20					/* ms between two asks of a topic */
#define AWAY 500				/* ms until the next, when the database is away */

typedef struct Text				/* shared by streams */
{
	int			users;
	size_t		length;
	char	   *text;
} Text;

typedef struct Piece
{
	Link		link;
	Text	   *text;
} Piece;

typedef struct Topic
{
	Link		link;
	char	   *role;			/* or NULL */
	char	   *then;			/* what is asked */
	char	   *channel;		/* of hints */
	char	   *id;				/* what they are about, or NULL: anything */
	char	   *cursor;			/* of those who have joined */
	Link		streams;
	bool		dirty;
	Ask		   *ask;
	char	   *asked[AT_ONCE];	/* cursors of those who catch up */
	int			nasked;
	bool		asked_joined;	/* the first part is for those who have joined */
	int64_t		not_before;
	int64_t		look_at;		/* without a hint */
	bool		kept;			/* somebody goes through its streams */
} Topic;

typedef struct Stream
{
	Link		link;
	Request    *request;
	Topic	   *topic;			/* NULL: it comes to its end */
	char	   *cursor;			/* NULL: it has joined */
	bool		has_read;		/* all of the last snapshot */
	Link		pieces;
	size_t		offset;			/* in the first of them */
	size_t		unread;
	int64_t		beat_at;
} Stream;

static LIST(topics);
static int	count = 0;

int
stream_count(void)
{
	return count;
}

/* ---- text ---- */

static Text *
text_new(char *text, size_t length)
{
	Text	   *t = allocate(sizeof(Text));

	t->users = 1;
	t->text = text;
	t->length = length;
	return t;
}

static void
text_free(Text *t)
{
	if (--t->users > 0)
		return;
	free(t->text);
	free(t);
}

static void
push(Stream *s, Text *t)
{
	Piece	   *piece;

	if (t->length == 0)
		return;
	piece = allocate(sizeof(Piece));
	piece->text = t;
	t->users++;
	list_append(&s->pieces, &piece->link);
	s->unread += t->length;
	s->beat_at = now_ms() + options.heartbeat * 1000;
	metrics.pieces++;
	if (s->request->suspended)
		server_reply(s->request);
}

static void
pop(Stream *s)
{
	Piece	   *piece = ITEM(Piece, link, s->pieces.next);

	list_remove(&piece->link);
	text_free(piece->text);
	free(piece);
	s->offset = 0;
}

/* what libmicrohttpd is to send next; 0: nothing just now */
ssize_t
stream_read(Request *r, char *to, size_t room)
{
	Stream	   *s = r->stream;
	size_t		n = 0;

	while (n < room && !list_empty(&s->pieces))
	{
		Text	   *t = ITEM(Piece, link, s->pieces.next)->text;
		size_t		part = t->length - s->offset < room - n ? t->length - s->offset : room - n;

		memcpy(to + n, t->text + s->offset, part);
		n += part;
		s->offset += part;
		s->unread -= part;
		if (s->offset == t->length)
			pop(s);
	}
	if (s->topic && s->cursor && list_empty(&s->pieces))
		s->topic->dirty = true;
	return n == 0 && s->topic == NULL ? MHD_CONTENT_READER_END_OF_STREAM : (ssize_t) n;
}

/* ---- topics ---- */

static bool
same(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

static const char *
member(const json_t *wait, const char *name)
{
	return json_string_value(json_object_get(wait, name));
}

static char *
copy_or_null(const char *text)
{
	return text ? copy(text) : NULL;
}

static Topic *
topic_for(const char *role, const json_t *wait)
{
	Topic	   *t;

	LIST_EACH(l, &topics)
	{
		t = ITEM(Topic, link, l);
		if (same(t->role, role) && same(t->then, member(wait, "then")))
			return t;
	}
	t = allocate(sizeof(Topic));
	t->role = copy_or_null(role);
	t->then = copy(member(wait, "then"));
	t->channel = copy(member(wait, "channel"));
	t->id = copy_or_null(member(wait, "command_id"));
	t->streams = (Link) {&t->streams, &t->streams};
	list_append(&topics, &t->link);
	hint_listen(t->channel);
	return t;
}

static void
forget_asked(Topic *t)
{
	for (int i = 0; i < t->nasked; i++)
		free(t->asked[i]);
	t->nasked = 0;
	t->asked_joined = false;
}

static void
topic_free_if_unused(Topic *t)
{
	if (!list_empty(&t->streams) || t->ask || t->kept)
		return;
	list_remove(&t->link);
	forget_asked(t);
	free(t->role);
	free(t->then);
	free(t->channel);
	free(t->id);
	free(t->cursor);
	free(t);
}

static void
leave(Stream *s)
{
	Topic	   *t = s->topic;

	if (t == NULL)
		return;
	list_remove(&s->link);
	s->topic = NULL;
	topic_free_if_unused(t);
}

/* what it still has is sent, then it ends; the client may come again */
static void
finish(Stream *s)
{
	leave(s);
	if (s->request->suspended)
		server_reply(s->request);
}

/* ---- asking ---- */

static void
add_part(Ask *ask, const Topic *t, const char *cursor)
{
	Part	   *p = &ask->parts[ask->nparts++];
	json_t	   *headers = json_pack("{s:s, s:s}", "Accept", "text/event-stream", "Last-Event-ID", cursor);

	p->method = "GET";
	p->target = copy(t->then);
	p->headers = json_dumps(headers, JSON_COMPACT);
	json_decref(headers);
}

static void take_answers(Ask *ask, void *owner);

/* with this cursor, and ready for what comes after it */
static bool
is_at(const Stream *s, const char *cursor)
{
	return s->cursor && list_empty(&s->pieces) && strcmp(s->cursor, cursor) == 0;
}

static bool
is_asked(const Topic *t, const Stream *s)
{
	for (int i = 0; i < t->nasked; i++)
		if (is_at(s, t->asked[i]))
			return true;
	return false;
}

/* for whom to ask: those who have joined, and who catches up and has read what it has */
static void
choose(Topic *t)
{
	forget_asked(t);
	LIST_EACH(l, &t->streams)
	{
		Stream	   *s = ITEM(Stream, link, l);

		if (s->cursor == NULL)
			t->asked_joined = true;
		else if (list_empty(&s->pieces) && t->nasked < AT_ONCE && !is_asked(t, s))
			t->asked[t->nasked++] = copy(s->cursor);
	}
}

static void
look(Topic *t)
{
	int64_t		now = now_ms();
	Ask		   *ask;

	t->dirty = true;
	if (t->ask || now < t->not_before || draining)
		return;
	t->dirty = false;
	choose(t);
	if (!t->asked_joined && t->nasked == 0)
		return;
	ask = ask_new(t->role, AT_ONCE + 1);
	ask->nparts = 0;
	if (t->asked_joined)
		add_part(ask, t, t->cursor);
	for (int i = 0; i < t->nasked; i++)
		add_part(ask, t, t->asked[i]);
	t->not_before = now + GAP;
	t->look_at = now + options.heartbeat * 1000;
	ask->snapshot = true;
	ask->done = take_answers;
	ask->owner = t;
	t->ask = ask;
	pool_ask(ask);
}

static Text *
text_of(Answer *a)
{
	Text	   *t = text_new(a->body, a->length);

	a->body = NULL;
	a->length = 0;
	return t;
}

/* the same for all who have joined; true: there is more */
static bool
tell_joined(Topic *t, Answer *a)
{
	const char *cursor = member(a->wait, "cursor");
	Text	   *text = text_of(a);

	LIST_EACH(l, &t->streams)
	{
		Stream	   *s = ITEM(Stream, link, l);

		if (s->cursor)
			continue;
		if (s->unread > (size_t) options.stream_buffer)
		{
			s->cursor = copy(t->cursor);	/* it falls behind */
			metrics.fallen_behind++;
			continue;
		}
		push(s, text);
		if (cursor == NULL)
			finish(s);
	}
	text_free(text);
	if (cursor)
	{
		free(t->cursor);
		t->cursor = copy(cursor);
	}
	return json_is_true(json_object_get(a->wait, "more"));
}

/* the same for all who were at this cursor */
static void
tell_those_at(Topic *t, const char *asked, Answer *a)
{
	const char *cursor = member(a->wait, "cursor");
	Text	   *text = text_of(a);

	LIST_EACH(l, &t->streams)
	{
		Stream	   *s = ITEM(Stream, link, l);

		if (!is_at(s, asked))
			continue;
		push(s, text);
		if (cursor == NULL)
		{
			finish(s);
			continue;
		}
		free(s->cursor);
		s->cursor = copy(cursor);
		s->has_read = !json_is_true(json_object_get(a->wait, "more"));
	}
	text_free(text);
}

/* it has read all of the snapshot, as those have who have joined */
static void
join(Topic *t, Stream *s, bool *joined)
{
	if (!*joined)
	{
		free(t->cursor);
		t->cursor = copy(s->cursor);
		*joined = true;
	}
	free(s->cursor);
	s->cursor = NULL;
}

static void
take_answers(Ask *ask, void *owner)
{
	Topic	   *t = owner;
	int			first;
	bool		joined = false;
	bool		more = false;

	if (t == NULL)				/* everybody has gone */
	{
		ask_free(ask);
		return;
	}
	if (ask->parts[0].answer.status == 503)
	{
		ask_free(ask);
		t->ask = NULL;
		t->dirty = true;
		t->not_before = now_ms() + AWAY;
		topic_free_if_unused(t);
		return;
	}
	first = t->asked_joined;
	if (first)
		more = tell_joined(t, &ask->parts[0].answer);	/* t->ask keeps the topic */
	LIST_EACH(l, &t->streams)
		ITEM(Stream, link, l)->has_read = false;
	for (int i = 0; i < t->nasked; i++)
		tell_those_at(t, t->asked[i], &ask->parts[first + i].answer);
	LIST_EACH(l, &t->streams)
		joined |= ITEM(Stream, link, l)->cursor == NULL;
	LIST_EACH(l, &t->streams)
		if (ITEM(Stream, link, l)->cursor && ITEM(Stream, link, l)->has_read && !more)
			join(t, ITEM(Stream, link, l), &joined);
	LIST_EACH(l, &t->streams)
		t->dirty |= ITEM(Stream, link, l)->cursor != NULL && list_empty(&ITEM(Stream, link, l)->pieces);
	t->dirty |= more;
	forget_asked(t);
	t->ask = NULL;
	topic_free_if_unused(t);
	ask_free(ask);
}

/* ---- beginning and ending ---- */

/* the answer of the request is the first piece */
void
stream_begin(Request *r)
{
	const json_t *wait = r->answer.wait;
	Stream	   *s;
	Text	   *text;

	if (strcmp(r->method, "HEAD") == 0)
	{
		server_reply(r);
		return;
	}
	if (count >= options.streams || draining)
	{
		metrics.refused++;
		server_problem(r, 503, "Too many streams", "Come again later.");
		return;
	}
	s = allocate(sizeof(Stream));
	s->request = r;
	s->pieces = (Link) {&s->pieces, &s->pieces};
	r->stream = s;
	count++;
	metrics.streams++;
	text = text_of(&r->answer);
	json_object_set_new(r->answer.headers, "X-Accel-Buffering", json_string("no"));
	push(s, text);
	text_free(text);
	if (member(wait, "cursor") && member(wait, "then") && member(wait, "channel"))
	{
		s->cursor = copy(member(wait, "cursor"));
		s->topic = topic_for(r->role, wait);
		s->beat_at = now_ms() + options.heartbeat * 1000;
		list_append(&s->topic->streams, &s->link);
		look(s->topic);
	}
	server_reply(r);
}

/* the client has gone */
void
stream_end(Request *r)
{
	Stream	   *s = r->stream;

	if (s == NULL)
		return;
	leave(s);
	while (!list_empty(&s->pieces))
		pop(s);
	free(s->cursor);
	free(s);
	r->stream = NULL;
	count--;
}

/* id: NULL, of anything */
void
stream_hint(const char *channel, const char *id)
{
	LIST_EACH(l, &topics)
	{
		Topic	   *t = ITEM(Topic, link, l);

		if (strcmp(t->channel, channel) == 0 && (id == NULL || t->id == NULL || strcmp(id, t->id) == 0))
			look(t);
	}
}

/* commands have been sent from here: there is no hint of that */
void
stream_sent(void)
{
	stream_hint("voiding_command", NULL);
}

static void
beat(Stream *s)
{
	Text	   *text;

	if (s->request->expires && s->request->expires <= time(NULL))
		finish(s);
	else if (now_ms() >= s->beat_at && list_empty(&s->pieces))
	{
		text = text_new(copy(":\n\n"), 3);
		push(s, text);
		text_free(text);
	}
}

static void
for_each(Topic *t, void (*act)(Stream *s))
{
	t->kept = true;
	LIST_EACH(l, &t->streams)
		act(ITEM(Stream, link, l));
	t->kept = false;
	topic_free_if_unused(t);
}

void
stream_tick(int64_t now)
{
	LIST_EACH(l, &topics)
	{
		Topic	   *t = ITEM(Topic, link, l);

		if (t->dirty || now >= t->look_at)
			look(t);
		for_each(t, beat);
	}
}

void
stream_close_all(void)
{
	while (!list_empty(&topics))
	{
		Topic	   *t = ITEM(Topic, link, topics.next);

		if (t->ask)
			t->ask->owner = NULL;
		t->ask = NULL;
		for_each(t, finish);
	}
}
