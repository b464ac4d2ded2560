/*
 * shared.c
 *	  Attaching to the struct of shared.h, and finding one's database in it.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/elog.h"

#include "voiding.h"
#include "shared.h"

static VdShared *shared = NULL;

static void
init_database(VdDatabase *db)
{
	pg_atomic_init_u32(&db->dboid, 0);
	pg_atomic_init_u64(&db->generation, 1);
	pg_atomic_init_u64(&db->written, 0);
	pg_atomic_init_u64(&db->repaired, 0);
	pg_atomic_init_u64(&db->timer_due, 0);
	pg_atomic_init_u32(&db->parked, 1);
	pg_atomic_init_u32(&db->hints_lost, 0);
	pg_atomic_init_u32(&db->hinting, 0);
	pg_atomic_init_u32(&db->sender, 0);
	pg_atomic_init_u64(&db->sender_tried, 0);
	pg_atomic_init_u32(&db->launcher, 0);
	pg_atomic_init_u32(&db->wanted, 0);
	pg_atomic_init_u32(&db->stopped, 0);
	pg_atomic_init_u32(&db->no_slot, 0);
	pg_atomic_init_u32(&db->absent, 0);
	pg_atomic_init_u32(&db->restarts, 0);
	for (int i = 0; i < VD_MAX_WORKERS; i++)
	{
		pg_atomic_init_u32(&db->worker[i], 0);
		pg_atomic_init_u32(&db->lives[i], 0);
	}
	SpinLockInit(&db->lock);
	for (int i = 0; i < VD_COUNTED; i++)
	{
		VdCounters *c = &db->counters[i];

		c->service[0] = '\0';
		pg_atomic_init_u64(&c->handled, 0);
		pg_atomic_init_u64(&c->failed, 0);
		pg_atomic_init_u64(&c->retried, 0);
		pg_atomic_init_u64(&c->dead, 0);
	}
}

static void
init_shared(VdShared *s)
{
	memset(s, 0, sizeof(*s));
	SpinLockInit(&s->hint_lock);
	for (int i = 0; i < VD_DATABASES; i++)
		init_database(&s->db[i]);
	pg_atomic_init_u32(&s->launcher, 0);
	pg_atomic_init_u32(&s->look_now, 0);
	for (int i = 0; i < VD_WAITERS; i++)
		ConditionVariableInit(&s->waiters[i]);
	s->size = sizeof(*s);
	s->magic = VD_SHARED_MAGIC;
}

static void
attach(void)
{
	bool		found;
	VdShared   *s;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	s = ShmemInitStruct("voiding", sizeof(VdShared), &found);
	if (!found)
		init_shared(s);
	LWLockRelease(AddinShmemInitLock);
	if (s->magic == VD_SHARED_MAGIC && s->size == sizeof(VdShared))
		shared = s;
}

/*
 * The struct, or NULL where there is no room for it or another version of
 * this library has made it. Then workers look every second and waiters poll.
 */
VdShared *
vd_shared(void)
{
	static bool tried = false;
	MemoryContext context = CurrentMemoryContext;

	if (tried)
		return shared;
	tried = true;
	PG_TRY();
	{
		attach();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		if (LWLockHeldByMe(AddinShmemInitLock))
			LWLockRelease(AddinShmemInitLock);
		FlushErrorState();
	}
	PG_END_TRY();
	if (shared == NULL)
		ereport(LOG,
				(errmsg("voiding has no shared memory: waking is slow"),
				 errhint("Add voiding to shared_preload_libraries, and restart the server.")));
	return shared;
}

/* the entry of a database, or NULL */
VdDatabase *
vd_find_database(Oid dboid)
{
	VdShared   *s = vd_shared();

	for (int i = 0; s && i < VD_DATABASES; i++)
		if (pg_atomic_read_u32(&s->db[i].dboid) == dboid)
			return &s->db[i];
	return NULL;
}

static bool
take_entry(VdDatabase *db, uint32 from, Oid dboid)
{
	if (!pg_atomic_compare_exchange_u32(&db->dboid, &from, dboid))
		return from == dboid;
	pg_atomic_write_u64(&db->timer_due, 0);
	pg_atomic_write_u32(&db->parked, 1);
	pg_atomic_write_u32(&db->wanted, 0);
	pg_atomic_write_u32(&db->stopped, 0);
	pg_atomic_write_u32(&db->restarts, 0);
	SpinLockAcquire(&db->lock);
	for (int i = 0; i < VD_COUNTED; i++)
		db->counters[i].service[0] = '\0';
	SpinLockRelease(&db->lock);
	return true;
}

static VdDatabase *
find_or_take(Oid dboid)
{
	VdShared   *s = vd_shared();
	VdDatabase *db = vd_find_database(dboid);

	for (int i = 0; s && db == NULL && i < VD_DATABASES; i++)
		if (take_entry(&s->db[i], 0, dboid))
			db = &s->db[i];
	return db;
}

/*
 * The entry of a database, NULL if there is none. When none is free, one is
 * taken from a database that has no workers: it may be gone, and loses no more
 * than its counters.
 */
VdDatabase *
vd_claim_database(Oid dboid)
{
	VdShared   *s = vd_shared();
	VdDatabase *db = find_or_take(dboid);

	for (int i = 0; s && db == NULL && i < VD_DATABASES; i++)
	{
		VdDatabase *other = &s->db[i];

		if (!vd_is_served(other) && pg_atomic_read_u32(&other->launcher) == 0 &&
			pg_atomic_read_u32(&other->sender) == 0 &&
			take_entry(other, pg_atomic_read_u32(&other->dboid), dboid))
			db = other;
	}
	return db;
}

VdDatabase *
vd_my_database(void)
{
	static VdDatabase *mine = NULL;

	if (mine == NULL || pg_atomic_read_u32(&mine->dboid) != MyDatabaseId)
		mine = vd_claim_database(MyDatabaseId);
	return mine;
}

/* does a worker serve this database now? */
bool
vd_is_served(VdDatabase *db)
{
	for (int i = 0; db && i < VD_MAX_WORKERS; i++)
		if (pg_atomic_read_u32(&db->worker[i]) != 0)
			return true;
	return false;
}

/* the counters of a service, or NULL when there are too many services */
VdCounters *
vd_counters(const char *service)
{
	VdDatabase *db = vd_my_database();
	VdCounters *found = NULL;

	if (db == NULL)
		return NULL;
	SpinLockAcquire(&db->lock);
	for (int i = 0; i < VD_COUNTED && found == NULL; i++)
	{
		VdCounters *c = &db->counters[i];

		if (c->service[0] == '\0')
		{
			strlcpy(c->service, service, sizeof(c->service));
			pg_atomic_write_u64(&c->handled, 0);
			pg_atomic_write_u64(&c->failed, 0);
			pg_atomic_write_u64(&c->retried, 0);
			pg_atomic_write_u64(&c->dead, 0);
		}
		if (strcmp(c->service, service) == 0)
			found = c;
	}
	SpinLockRelease(&db->lock);
	return found;
}

/* set the latch of a process by its number + 1; one that has gone is no harm */
void
vd_wake_process(pg_atomic_uint32 *procno)
{
	uint32		n = pg_atomic_read_u32(procno);

	if (n != 0)
		SetLatch(&ProcGlobal->allProcs[n - 1].procLatch);
}

/* let the preloaded launcher look at once, also at what has failed before */
void
vd_wake_launcher(void)
{
	VdShared   *s = vd_shared();

	if (s == NULL)
		return;
	pg_atomic_fetch_add_u32(&s->look_now, 1);
	vd_wake_process(&s->launcher);
}
