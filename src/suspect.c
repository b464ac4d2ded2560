/*
 * suspect.c
 *	  Messages that were running when a worker ended in the middle of them.
 *
 * Whether a message kills the server cannot be told by a row that dies with
 * the transaction. So a worker notes the batch that it runs in a small file.
 * What is found there at the next start is suspect: an attempt is counted for
 * each, in a transaction of its own, and each is run alone. One that kills
 * again and again dies out like any other message that fails; the others are
 * handled.
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "miscadmin.h"
#include "pgstat.h"
#include "storage/fd.h"
#include "utils/memutils.h"

#include "voiding.h"
#include "queue.h"
#include "shared.h"
#include "worker.h"

#define MAX_NOTE	10000		/* messages of a batch that are noted */
#define CRASH_LIMIT	3			/* crashes that a message may cause */

static int	me = 0;				/* number of this worker */
static int	note_fd = -1;
static int64 *suspects = NULL;	/* seqs, in order */
static int	nsuspects = 0;
static bool uncounted = false;
static bool alone_now = false;	/* the batch that runs may hold the last one */

static char *
note_path(int worker)
{
	static char path[MAXPGPATH];

	snprintf(path, sizeof(path), "%s/voiding.%u.%d.running", PG_STAT_TMP_DIR, MyDatabaseId, worker);
	return path;
}

/* Note the batch that runs now; with NIL that nothing does. */
void
vd_note_running(List *messages)
{
	int64		note[1 + MAX_NOTE];
	int			n = 0;
	ListCell   *lc;

	if (note_fd < 0)
		note_fd = BasicOpenFile(note_path(me), O_RDWR | O_CREAT | PG_BINARY);
	foreach(lc, messages)
		if (n < MAX_NOTE)
			note[++n] = ((VdMessage *) lfirst(lc))->seq;
	note[0] = n;
	if (note_fd < 0 || pg_pwrite(note_fd, note, sizeof(int64) * (n + 1), 0) < 0)
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", note_path(me))));
}

/*
 * SIGQUIT: another process has crashed, or the server is stopped at once. What
 * this worker runs is not why, so no note of it is left; and out.
 */
void
vd_note_innocent(SIGNAL_ARGS)
{
	int64		none = 0;

	if (note_fd >= 0)
		none = pwrite(note_fd, &none, sizeof(none), 0);
	_exit(2);
}

static void
read_note(int worker)
{
	int64		note[1 + MAX_NOTE];
	int			fd = BasicOpenFile(note_path(worker), O_RDONLY | PG_BINARY);
	int			got;

	if (fd < 0)
		return;
	got = pg_pread(fd, note, sizeof(note), 0) / (int) sizeof(int64);
	close(fd);
	for (int i = 1; got > 0 && i <= note[0] && i < got; i++)
		suspects[nsuspects++] = note[i];
}

static int
compare(const void *a, const void *b)
{
	int64		x = *(const int64 *) a;
	int64		y = *(const int64 *) b;

	return x < y ? -1 : x > y;
}

/*
 * At the start of a worker: what all notes say, since there may have been more
 * workers before. What is not in a bucket of this one is not looked for here.
 */
void
vd_suspects_read(int worker, int workers)
{
	me = worker;
	suspects = MemoryContextAlloc(TopMemoryContext, sizeof(int64) * MAX_NOTE * VD_MAX_WORKERS);
	for (int i = 0; i < VD_MAX_WORKERS; i++)
		read_note(i);
	for (int i = worker + workers; i < VD_MAX_WORKERS; i += workers)
		(void) unlink(note_path(i));
	qsort(suspects, nsuspects, sizeof(int64), compare);
	uncounted = nsuspects > 0;
	if (nsuspects == 0)
	{
		pfree(suspects);
		suspects = NULL;
	}
}

static bool
is_suspect(int64 seq)
{
	return bsearch(&seq, suspects, nsuspects, sizeof(int64), compare) != NULL;
}

static void
acquit(int64 seq)
{
	int64	   *s = bsearch(&seq, suspects, nsuspects, sizeof(int64), compare);
	int			behind;

	if (s == NULL)
		return;
	behind = suspects + nsuspects - (s + 1);
	memmove(s, s + 1, sizeof(int64) * behind);
	nsuspects--;
}

/* Are there any whose attempt has not been counted? Asked once. */
bool
vd_suspects_uncounted(void)
{
	bool		result = uncounted;

	uncounted = false;
	return result;
}

/*
 * Count an attempt for each suspect that this worker's buckets hold. To be
 * committed before any of them runs again.
 */
void
vd_suspects_count(void)
{
	List	   *messages = vd_queue_pick(is_suspect);
	ListCell   *lc;

	nsuspects = 0;
	foreach(lc, messages)
	{
		VdMessage  *m = lfirst(lc);

		if (!vd_delete(VD_OUTBOX, &m->tid))
			continue;
		m->attempts++;
		m->error = "57P02: the server or the worker ended while this message was being handled";
		if (m->attempts >= Min(vd_retry_limit, CRASH_LIMIT))
		{
			vd_give_up(m, "57P02", NULL);
			continue;
		}
		vd_outbox_retry(m, vd_now());
		suspects[nsuspects++] = m->seq;
	}
	qsort(suspects, nsuspects, sizeof(int64), compare);
}

/* Are there any that have not run alone? The one that does just now counts. */
bool
vd_suspects_left(void)
{
	return nsuspects > 0 || alone_now;
}

/* the first of a batch that has the key of m, or m itself */
static VdMessage *
first_of_its_key(List *messages, VdMessage *m)
{
	ListCell   *lc;

	foreach(lc, messages)
	{
		VdMessage  *other = lfirst(lc);

		if (strcmp(other->aggregateid, m->aggregateid) == 0 &&
			strcmp(other->destination, m->destination) == 0)
			return other;
	}
	return m;
}

/*
 * Of a batch, only the first suspect, if there is one (or what has to run
 * before it); it is one no more.
 */
List *
vd_suspects_alone(List *messages)
{
	VdMessage  *alone = NULL;
	ListCell   *lc;

	alone_now = nsuspects > 0;
	if (nsuspects == 0)
		return messages;
	if (messages == NIL)
		nsuspects = 0;			/* the rest of them has gone */
	foreach(lc, messages)
		if (is_suspect(((VdMessage *) lfirst(lc))->seq))
		{
			alone = first_of_its_key(messages, lfirst(lc));
			break;
		}
	if (alone == NULL)
		return messages;
	foreach(lc, messages)
		if (lfirst(lc) != alone)
			vd_queue_delay(lfirst(lc), 0);
	acquit(alone->seq);
	return list_make1(alone);
}
