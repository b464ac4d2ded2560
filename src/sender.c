/*
 * sender.c
 *	  A short-lived background process that sends hints where no worker does.
 *
 * NOTIFY takes a lock that all databases share and holds it through the flush:
 * those who commit at the same time would flush one after the other. So only
 * who is alone sends in his commit. Others have a sender started, and once it
 * is there leave their hints to it. It does nothing else, and ends when there
 * has been nothing to send for a while: soon enough for DROP DATABASE, which
 * waits five seconds.
 *
 * Whoever may leave hints is counted, from before he looks for a sender until
 * he has left them. A sender takes itself out and looks at that count after,
 * so that one of the two sees the other.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/wait_event.h"

#include "voiding.h"
#include "shared.h"
#include "worker.h"

#define AGAIN		1000		/* ms until another one is started: there may be no slot */
#define SEND_EVERY	20			/* ms between NOTIFYs */
#define IDLE		1000		/* ms */

static VdDatabase *db;

PGDLLEXPORT void voiding_sender_main(Datum arg);

static void
start(VdDatabase *of)
{
	BackgroundWorker w;
	uint64		now = (uint64) GetCurrentTimestamp();
	uint64		tried = pg_atomic_read_u64(&of->sender_tried);

	if (now - tried < AGAIN * 1000 ||
		!pg_atomic_compare_exchange_u64(&of->sender_tried, &tried, now))
		return;
	vd_fill_worker(&w, "sender");
	w.bgw_main_arg = ObjectIdGetDatum(MyDatabaseId);
	(void) RegisterDynamicBackgroundWorker(&w, NULL);
}

/*
 * This transaction is about to commit, with hints; vd_sender_leave() has to
 * follow. Is there a sender to leave them to?
 */
bool
vd_sender_enter(VdDatabase *of)
{
	if (pg_atomic_fetch_add_u32(&of->hinting, 1) == 0)
		return false;			/* nobody would wait for us */
	if (pg_atomic_read_u32(&of->sender) != 0)
		return true;
	start(of);
	return false;
}

/* It has ended, and has left its hints. */
void
vd_sender_leave(VdDatabase *of)
{
	pg_atomic_fetch_sub_u32(&of->hinting, 1);
}

/* ---- the sender ---- */

static void
send_until_idle(void)
{
	TimestampTz sent = GetCurrentTimestamp();

	while (GetCurrentTimestamp() - sent < IDLE * 1000)
	{
		CHECK_FOR_INTERRUPTS();
		ResetLatch(MyLatch);
		if (vd_send_hints())
		{
			sent = GetCurrentTimestamp();
			pg_usleep(SEND_EVERY * 1000);
		}
		else
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, IDLE,
							 PG_WAIT_EXTENSION);
	}
}

static bool
take_place(void)
{
	uint32		none = 0;

	return pg_atomic_compare_exchange_u32(&db->sender, &none, vd_my_procno() + 1);
}

static void
give_place(int code, Datum arg)
{
	uint32		me = vd_my_procno() + 1;

	(void) pg_atomic_compare_exchange_u32(&db->sender, &me, 0);
}

/*
 * Entry point. bgw_main_arg: the database.
 */
void
voiding_sender_main(Datum arg)
{
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(arg), InvalidOid, 0);
	db = vd_my_database();
	if (db == NULL || !take_place())
		proc_exit(0);
	before_shmem_exit(give_place, (Datum) 0);
	do
	{
		send_until_idle();
		give_place(0, (Datum) 0);
	} while (pg_atomic_read_u32(&db->hinting) > 0 && take_place());
	vd_send_hints();
	proc_exit(0);
}
