/*
 * dispatch.c
 *	  Takes messages from the outbox and runs their handlers. Effects and
 *	  removal of a message are one commit.
 *
 * A round takes a batch and tries it in one subtransaction; if a handler
 * fails, the batch is rolled back and halved until the message that fails is
 * alone. That one is put back to be tried later, and what is behind it for
 * its key waits; after the last attempt it is a dead letter.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#include "voiding.h"
#include "queue.h"
#include "shared.h"

#define BEHIND		(30 * 1000)	/* us until what was behind another message is looked at again */

PG_FUNCTION_INFO_V1(voiding_dispatch);

/* ---- failing ---- */

/* errors that are about this session or this transaction, not the message */
static bool
is_ours(const ErrorData *e)
{
	if (IsolationUsesXactSnapshot() &&
		e->sqlerrcode == ERRCODE_T_R_SERIALIZATION_FAILURE)
		return true;
	return !vd_am_worker && e->sqlerrcode == ERRCODE_QUERY_CANCELED && e->funcname &&
		strcmp(e->funcname, "ProcessInterrupts") == 0;
}

/* exponential backoff with jitter: half to one and a half times base * 2^n */
static TimestampTz
next_attempt(int attempts)
{
	double		ms = (double) vd_retry_base * (1L << Min(attempts - 1, 20));

	ms = Min(ms, (double) vd_retry_max);
	ms *= 0.5 + pg_prng_double(&pg_global_prng_state);
	return vd_now() + (TimestampTz) (ms * 1000);
}

typedef enum Outcome
{
	HANDLED, FAILED, RETRIED, DEAD
} Outcome;

static void
count(const VdMessage *m, Outcome outcome)
{
	VdCounters *c = vd_counters(m->destination);

	if (c != NULL)
		pg_atomic_fetch_add_u64(outcome == HANDLED ? &c->handled :
								outcome == FAILED ? &c->failed :
								outcome == RETRIED ? &c->retried : &c->dead, 1);
}

/*
 * Call fn in a subtransaction. Returns its error, the subtransaction rolled
 * back, or NULL; errors that are about this session go on to the caller.
 */
ErrorData *
vd_attempt(void (*fn) (void *), void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		fn(arg);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		if (is_ours(error))
			ReThrowError(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return error;
}

/*
 * The same for what is no message: what one process type makes of it must not
 * stop the others. An error is logged; returns whether there was none.
 */
static bool
attempt_or_warn(void (*fn) (void *), void *arg, const char *what)
{
	ErrorData  *error = vd_attempt(fn, arg);

	if (error)
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("%s failed: %s", what, error->message)));
	return error == NULL;
}

static void
command_failed(void *m)
{
	vd_process_command_failed(m);
}

/* e: NULL when it has no error of its own: it ended the server */
void
vd_give_up(VdMessage *m, const char *sqlstate, const ErrorData *e)
{
	count(m, DEAD);
	if (vd_command_is(m))		/* its sender is told, and repairs it */
		vd_command_fail(&m->id, sqlstate, e ? e->message : m->error, e ? e->hint : NULL);
	else
		vd_outbox_dead(m, sqlstate);
	(void) attempt_or_warn(command_failed, m, "onError of a process");
}

static void
put_back(VdMessage *m, const ErrorData *e)
{
	const char *sqlstate = pstrdup(unpack_sql_state(e->sqlerrcode));

	vd_check_snapshot();		/* it may have failed for what it could not see */
	if (!m->kept && !vd_delete(VD_OUTBOX, &m->tid))
		return;
	count(m, FAILED);
	m->attempts++;
	m->error = psprintf("%s: %s%s%s", sqlstate, e->message,
						e->detail ? " -- " : "", e->detail ? e->detail : "");
	if (m->attempts < vd_retry_limit && !vd_command_is_hopeless(m, e))
	{
		count(m, RETRIED);
		vd_outbox_retry(m, next_attempt(m->attempts));
	}
	else
		vd_give_up(m, sqlstate, e);
	CommandCounterIncrement();
}

/* ---- running ---- */

typedef struct Batch
{
	VdMessage **messages;
	int		   *turn;			/* the how manieth for its key it is */
	bool	   *skip;			/* something before it for its key has failed */
	bool	   *gone;
	int			n;
	int			done;			/* handled or put back */
	bool		in_savepoint;	/* the caller of dispatch() is */
} Batch;

static bool
same_key(const VdMessage *a, const VdMessage *b)
{
	return strcmp(a->aggregateid, b->aggregateid) == 0 &&
		strcmp(a->destination, b->destination) == 0;
}

static void
skip_behind(Batch *b, int failed)
{
	for (int i = failed + 1; i < b->n; i++)
		if (same_key(b->messages[i], b->messages[failed]))
			b->skip[i] = true;
}

/* false: somebody has taken the message away meanwhile */
static bool
take_out(Batch *b, int i)
{
	if (b->messages[i]->kept || vd_delete(VD_OUTBOX, &b->messages[i]->tid))
		return true;
	b->gone[i] = true;
	skip_behind(b, i);			/* it may be back, before those behind it */
	return false;
}

/* may messages i and i + 1 be given to one call of their handler? */
static bool
goes_with_next(Batch *b, int i)
{
	VdMessage  *m = b->messages[i];
	VdMessage  *next = b->messages[i + 1];

	return b->turn[i] == b->turn[i + 1] && strcmp(m->type, next->type) == 0 &&
		strcmp(m->destination, next->destination) == 0 &&
		vd_handler_takes_set(m->destination, m->type);
}

typedef struct Range			/* messages lo .. hi - 1 of a batch */
{
	Batch	   *batch;
	int			lo;
	int			hi;
} Range;

static void
run_handler(VdMessage **set, int n, bool in_savepoint)
{
	VdAnswer	answer = {0};

	if (vd_depart_late(set, n))
		return;
	if (strcmp(set[0]->destination, VD_ARRIVAL) == 0)
	{
		vd_take_arrival(set[0]);
		CommandCounterIncrement();
		return;
	}
	vd_handler_run(set, n, in_savepoint, n == 1 && vd_command_is(set[0]) ? &answer : NULL);
	CommandCounterIncrement();
	for (int i = 0; i < n; i++)
		if (vd_command_is(set[i]))
			vd_command_handled(set[i], &answer);
}

static void
run_all(void *arg)
{
	Range	   *r = arg;
	Batch	   *b = r->batch;

	for (int i = r->lo; i < r->hi; i++)
	{
		VdMessage **set = palloc(sizeof(VdMessage *) * (r->hi - i));
		int			n = 0;
		bool		more = true;

		CHECK_FOR_INTERRUPTS();
		for (int j = i; j < r->hi && more; i = j++)
		{
			if (!b->skip[j] && take_out(b, j) && vd_command_begin(b->messages[j]))
				set[n++] = b->messages[j];
			more = j + 1 < r->hi && goes_with_next(b, j);
		}
		if (n > 0)
			run_handler(set, n, b->in_savepoint);
		CommandCounterIncrement();
	}
}

/*
 * A worker waits for locks and deadlocks only briefly. That it cannot have one
 * is no message's fault and does not count as an attempt. What it holds others
 * may be waiting for: it commits what it has done, and comes back with smaller
 * batches. A message that loses alone is tried again later.
 */
int			vd_contended = 0;	/* messages that were given back together; 0: none */

static bool
lost_a_lock(const ErrorData *e)
{
	return vd_am_worker && (e->sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED ||
							e->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE);
}

static void
run_range(Batch *b, int lo, int hi)
{
	Range		range = {b, lo, hi};
	ErrorData  *error;

	if (vd_contended > 0)
	{
		memset(&b->skip[lo], true, hi - lo);
		return;
	}
	error = vd_attempt(run_all, &range);
	if (error == NULL)
	{
		for (int i = lo; i < hi; i++)
			if (!b->skip[i] && !b->gone[i])
			{
				b->done++;
				count(b->messages[i], HANDLED);
			}
		return;
	}
	if (lost_a_lock(error))
	{
		memset(&b->skip[lo], true, hi - lo);
		vd_contended = hi - lo;
		if (vd_contended == 1)
			vd_queue_lost(b->messages[lo]);
		return;
	}
	if (hi - lo == 1)
	{
		put_back(b->messages[lo], error);
		skip_behind(b, lo);
		b->done++;
		return;
	}
	run_range(b, lo, lo + (hi - lo) / 2);
	run_range(b, lo + (hi - lo) / 2, hi);
}

typedef struct Turn				/* a message and its place in a batch */
{
	VdMessage  *m;
	int			n;				/* the how manieth for its key */
	int			at;				/* where it stood */
} Turn;

static int
compare_key(const VdMessage *a, const VdMessage *b)
{
	int			c = strcmp(a->destination, b->destination);

	return c ? c : strcmp(a->aggregateid, b->aggregateid);
}

static int
by_key(const void *a, const void *b)
{
	const Turn *x = a;
	const Turn *y = b;
	int			c = compare_key(x->m, y->m);

	return c ? c : x->at - y->at;
}

static int
by_turn(const void *a, const void *b)
{
	const Turn *x = a;
	const Turn *y = b;
	int			c = x->n - y->n;

	if (c == 0)
		c = strcmp(x->m->type, y->m->type);
	return c ? c : compare_key(x->m, y->m);
}

/*
 * Messages of different keys may run in any order: first the first one of each
 * key, then the second. So those of one type come together, and locks are
 * taken in the order of the keys.
 */
static void
arrange(Batch *b, List *messages)
{
	Turn	   *turns = palloc(sizeof(Turn) * b->n);

	for (int i = 0; i < b->n; i++)
		turns[i] = (Turn) {list_nth(messages, i), 0, i};
	qsort(turns, b->n, sizeof(Turn), by_key);
	for (int i = 1; i < b->n; i++)
		if (compare_key(turns[i].m, turns[i - 1].m) == 0)
			turns[i].n = turns[i - 1].n + 1;
	qsort(turns, b->n, sizeof(Turn), by_turn);
	for (int i = 0; i < b->n; i++)
	{
		b->messages[i] = turns[i].m;
		b->turn[i] = turns[i].n;
	}
}

/*
 * Run messages, in a transaction that the caller has. Returns how many were
 * handled, put back or given up. Those that had to wait behind a failure are
 * left in the outbox, and a worker's queue is told.
 */
int
vd_run_batch(List *messages)
{
	Batch		b = {.n = list_length(messages),.in_savepoint = IsSubTransaction()};

	b.messages = palloc(sizeof(VdMessage *) * b.n);
	b.turn = palloc(sizeof(int) * b.n);
	b.skip = palloc0(sizeof(bool) * b.n);
	b.gone = palloc0(sizeof(bool) * b.n);
	arrange(&b, messages);
	vd_contended = 0;
	run_range(&b, 0, b.n);
	for (int i = 0; i < b.n; i++)
		if (b.skip[i])
			vd_queue_delay(b.messages[i], vd_am_worker && !vd_contended ? vd_now() + BEHIND : 0);
	vd_wake_waiters(&vd_idle);
	return b.done;
}

/* ---- what is due besides messages ---- */

typedef struct Due				/* a deadline, a task, or a process with parked events */
{
	pg_uuid_t	process_id;		/* or of the task */
	char	   *timer;			/* NULL: a task */
	bool		done;			/* there was something to do */
} Due;

/* the rows of an engine query; its arguments are a limit and a time */
static List *
find_due(const char *sql, int limit, TimestampTz since)
{
	MemoryContext caller = CurrentMemoryContext;
	Oid			types[] = {INT4OID, TIMESTAMPTZOID};
	Datum		args[] = {Int32GetDatum(limit), TimestampTzGetDatum(since)};
	VdIdentity	saved;
	List	   *due = NIL;

	vd_become(&saved, vd_engine_owner(), "pg_catalog, voiding, pg_temp");
	PushActiveSnapshot(GetLatestSnapshot());
	if (SPI_connect() != SPI_OK_CONNECT ||
		SPI_execute_with_args(sql, 2, types, args, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not look for what is due");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		MemoryContext old = MemoryContextSwitchTo(caller);
		Due		   *d = palloc0(sizeof(Due));
		bool		isnull;

		d->process_id = *DatumGetUUIDP(SPI_getbinval(row, desc, 1, &isnull));
		d->timer = SPI_getvalue(row, desc, 2);
		d->timer = d->timer ? pstrdup(d->timer) : NULL;
		due = lappend(due, d);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	PopActiveSnapshot();
	vd_return(&saved);
	CommandCounterIncrement();
	return due;
}

/* run a query for one that is due; what it returns */
static bool
ask(const char *sql, const Due *d)
{
	Oid			types[] = {UUIDOID, TEXTOID};
	Datum		args[] = {UUIDPGetDatum(&d->process_id), d->timer ? CStringGetTextDatum(d->timer) : (Datum) 0};
	VdIdentity	saved;
	bool		isnull;
	bool		answer;

	vd_become(&saved, vd_engine_owner(), "pg_catalog, voiding, pg_temp");
	if (SPI_connect() != SPI_OK_CONNECT ||
		SPI_execute_with_args(sql, 2, types, args, d->timer ? NULL : " n", false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not deal with what is due");
	answer = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	vd_return(&saved);
	CommandCounterIncrement();
	return answer;
}

static void
fire(void *arg)
{
	Due		   *d = arg;

	d->done = d->timer ? vd_process_fire_timer(&d->process_id, d->timer)
		: ask("SELECT voiding.wake_task($1)", d);
}

static void
deliver(void *arg)
{
	Due		   *d = arg;

	d->done = vd_deliver_parked(&d->process_id);
}


/*
 * Let deadlines pass that are due, of processes and tasks; returns how many.
 * One whose step fails is tried again later, and does not starve others. since: none is left before,
 * as a worker knows.
 */
int
vd_run_timers(int limit, TimestampTz since)
{
	int			done = 0;
	ListCell   *lc;

	foreach(lc, find_due(vd_am_worker ? "SELECT process_id, name FROM voiding.free_timers($1, $2)"
						 " UNION ALL SELECT t, NULL FROM voiding.due_tasks($1, $2) t"
						 : "SELECT process_id, name FROM voiding.due_timers($1)"
						 " UNION ALL SELECT t, NULL FROM voiding.due_tasks($1, $2) t", limit, since))
	{
		Due		   *d = lfirst(lc);

		if (!attempt_or_warn(fire, d, "a deadline"))
			(void) ask("SELECT voiding.postpone($1, $2)", d);
		else
			done += d->done;
	}
	CommandCounterIncrement();
	return done;
}

/* Deliver what is parked for processes that are there by now; how many. */
int
vd_run_parked(int limit)
{
	int			done = 0;
	ListCell   *lc;

	foreach(lc, find_due("SELECT process_id, NULL FROM voiding.sweep_parked($1)", limit, 0))
	{
		Due		   *d = lfirst(lc);

		if (attempt_or_warn(deliver, d, "delivery of a parked event"))
			done += d->done;
	}
	CommandCounterIncrement();
	return done;
}

/*
 * One round: deadlines that have passed, parked events that can be delivered,
 * then messages, with what they bring about, until nothing is due or the
 * batch is full. Returns how many it dealt with.
 */
static int
dispatch(const char *service, int batch_size)
{
	MemoryContext round = AllocSetContextCreate(CurrentMemoryContext, "voiding round",
												ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(round);
	int			done = 0;

	vd_fire_callers_triggers(IsSubTransaction());
	for (;;)
	{
		List	   *messages;
		int			before = done;

		done += vd_run_timers(batch_size, DT_NOBEGIN) + vd_run_parked(batch_size);
		if (done < batch_size)
		{
			messages = vd_outbox_take(service, batch_size - done);
			if (messages != NIL)
				done += vd_run_batch(messages);
		}
		MemoryContextReset(round);
		if (done == before || done >= batch_size)
			break;
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(round);
	return done;
}

/*
 * voiding.dispatch(service text, batch_size int) RETURNS int: one round by
 * hand, for one service or (null) for all; the number of messages handled,
 * put back or given up, and of deadlines.
 *
 * Errors: 42704 no such service; 22023 batch_size below 1; 55000 inside a
 * handler; 40001 under REPEATABLE READ and SERIALIZABLE. Waits for another
 * dispatch() on the same bucket; locks what the handlers lock.
 */
Datum
voiding_dispatch(PG_FUNCTION_ARGS)
{
	char	   *service = PG_ARGISNULL(0) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(0));
	int			batch_size = PG_ARGISNULL(1) ? vd_batch_size : PG_GETARG_INT32(1);

	if (service && !vd_service(service, NULL, NULL))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("service \"%s\" does not exist", service)));
	if (batch_size < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("batch_size must be at least 1")));
	if (vd_current_message() != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("dispatch() cannot be called inside a handler"),
				 errhint("What the handler sends is handled after it.")));
	PG_RETURN_INT32(dispatch(service, batch_size));
}
