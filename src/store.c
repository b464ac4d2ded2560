/*
 * store.c
 *	  Reading and writing the engine's own tables, without SPI.
 *
 * Rows are written at executor level: indexes are kept, constraints checked,
 * row triggers of inserts fired. Nobody's rights are asked: who may do what is
 * decided by the function that was called, not here.
 *
 * Memory (slots, index descriptions, expression state) is kept, and made anew
 * after a transaction that failed and when the relation cache says that a table
 * changed; relations themselves are opened and closed in every call, so that
 * DDL on them works later in the same transaction.
 *
 * Reads use the latest snapshot whatever the caller's isolation level: a
 * process is decided on its newest state, under the lock of its row. So a
 * REPEATABLE READ caller's events may move a process that it cannot see yet.
 *
 * Locks: RowExclusiveLock on what is written, AccessShareLock on what is
 * read, to the end of the transaction; FOR UPDATE on the row by vd_lock().
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "voiding.h"

typedef struct TableInfo
{
	const char *name;
	const char *index[2];		/* VdIdx_key and VdIdx_link, or NULL */
	const char *add_partition;	/* partitioned: the function that adds one */
	Oid			relid;
	Oid			index_id[2];
} TableInfo;

static TableInfo tables[VD_NTABLES] = {
	[VD_EVENT] = {.name = "event", .add_partition = "add_event_partition"},
	[VD_OUTBOX] = {.name = "outbox"},
	[VD_DEAD_LETTER] = {.name = "dead_letter"},
	[VD_PARKED_EVENT] = {.name = "parked_event", .index = {"parked_event_key"}},
	[VD_ACTIVE_PROCESS] = {.name = "active_process", .index = {"active_process_key"}},
	[VD_FINISHED_PROCESS] = {.name = "finished_process", .add_partition = "add_finished_partition"},
	[VD_TIMER] = {.name = "timer"},
	[VD_TRANSITION] = {.name = "transition"},
	[VD_COMMAND] = {.name = "command", .index = {"command_key", "command_link"}},
	[VD_TRANSFER] = {.name = "transfer"},
};

static Oid	position_seq = InvalidOid;

/* what is kept of a table */
typedef struct Writer
{
	Oid			relid;
	bool		valid;
	EState	   *estate;
	ResultRelInfo *rri;
	TupleTableSlot *slot;
	int			nindexes;
	Oid		   *indexes;		/* access methods keep things of theirs in rri, too */
	List	   *keys;			/* of them the unique ones but the primary key */
} Writer;

#define MAX_WRITERS 16
static Writer writers[MAX_WRITERS];
static int	nwriters = 0;

/* ---- news ---- */

/*
 * Forget what is known of a relation (InvalidOid: of all). Nothing is freed:
 * the memory may be in use right now.
 */
static void
relation_changed(Datum arg, Oid relid)
{
	for (int i = 0; i < nwriters; i++)
	{
		bool		changed = relid == InvalidOid || writers[i].relid == relid;

		for (int j = 0; j < writers[i].nindexes && !changed; j++)
			changed = writers[i].indexes[j] == relid;
		if (changed)
			writers[i].valid = false;
	}
	for (int i = 0; i < VD_NTABLES; i++)
		if (relid == InvalidOid || tables[i].relid == relid ||
			tables[i].index_id[0] == relid || tables[i].index_id[1] == relid)
			tables[i].relid = tables[i].index_id[0] = tables[i].index_id[1] = InvalidOid;
	if (relid == InvalidOid || relid == position_seq)
		position_seq = InvalidOid;
}

/* an error may have come in the middle of a row */
static void
doubt_writers(void)
{
	for (int i = 0; i < nwriters; i++)
		writers[i].valid = false;
}

static void
on_xact(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_ABORT)
		doubt_writers();
}

static void
on_subxact(SubXactEvent event, SubTransactionId id, SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		doubt_writers();
}

static void
init_once(void)
{
	static bool done = false;

	if (done)
		return;
	CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
	RegisterXactCallback(on_xact, NULL);
	RegisterSubXactCallback(on_subxact, NULL);
	done = true;
}

/* ---- names ---- */

static Oid
relation_by_name(const char *name)
{
	Oid			oid = get_relname_relid(name, vd_schema_oid());

	if (!OidIsValid(oid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation \"voiding.%s\" does not exist", name),
				 errhint("Is the extension \"voiding\" installed, and of this library's version?")));
	return oid;
}

Oid
vd_table_oid(VdTable table)
{
	init_once();
	if (!OidIsValid(tables[table].relid))
		tables[table].relid = relation_by_name(tables[table].name);
	return tables[table].relid;
}

/* the next position: one order for events and messages */
int64
vd_next_position(void)
{
	init_once();
	if (!OidIsValid(position_seq))
		position_seq = relation_by_name("position");
	return nextval_internal(position_seq, false);
}

/* ---- writers ---- */

static void
make_writer(Writer *w, Relation rel, MemoryContext memory)
{
	MemoryContext old = MemoryContextSwitchTo(memory);

	w->relid = RelationGetRelid(rel);
	w->estate = CreateExecutorState();
	MemoryContextSwitchTo(w->estate->es_query_cxt);
	w->rri = makeNode(ResultRelInfo);
	InitResultRelInfo(w->rri, rel, 0, NULL, 0);	/* 0: no range table */
	w->estate->es_opened_result_relations = list_make1(w->rri);
	ExecOpenIndices(w->rri, true);
	w->indexes = palloc(sizeof(Oid) * (w->rri->ri_NumIndices + 1));
	for (int i = 0; i < w->rri->ri_NumIndices; i++)
	{
		Relation	index = w->rri->ri_IndexRelationDescs[i];

		vd_index_insert_begin(index, w->rri->ri_IndexRelationInfo[i]);
		w->indexes[i] = RelationGetRelid(index);
		if (index->rd_index->indisunique && !index->rd_index->indisprimary)
			w->keys = lappend_oid(w->keys, w->indexes[i]);
	}
	w->nindexes = w->rri->ri_NumIndices;
	w->slot = MakeSingleTupleTableSlot(CreateTupleDescCopyConstr(RelationGetDescr(rel)), &TTSOpsVirtual);
	w->valid = true;
	MemoryContextSwitchTo(old);
}

static bool
needs_own_writer(Relation rel)
{
	return rel->trigdesc && (rel->trigdesc->trig_insert_before_row ||
							 rel->trigdesc->trig_insert_after_row);
}

/*
 * The writer of a table, its relation and indexes open. A table with triggers
 * for inserts gets one of its own for each row: such a trigger may come back
 * here while the row is still in the slot, and keeps things in the state.
 */
static Writer *
open_writer(Relation rel)
{
	Writer	   *w = NULL;

	if (needs_own_writer(rel))
	{
		w = palloc(sizeof(Writer));
		make_writer(w, rel, CurrentMemoryContext);
		return w;
	}
	for (int i = 0; i < nwriters && w == NULL; i++)
		if (writers[i].relid == RelationGetRelid(rel))
			w = &writers[i];
	if (w != NULL && w->valid)
	{
		w->rri->ri_RelationDesc = rel;
		for (int i = 0; i < w->rri->ri_NumIndices; i++)
			w->rri->ri_IndexRelationDescs[i] = index_open(w->indexes[i], RowExclusiveLock);
		ExecClearTuple(w->slot);
		return w;
	}
	if (w == NULL)
	{
		if (nwriters == MAX_WRITERS)
			nwriters--;
		else
			memset(&writers[nwriters], 0, sizeof(Writer));
		w = &writers[nwriters++];
	}
	if (w->estate != NULL)
		FreeExecutorState(w->estate);
	memset(w, 0, sizeof(*w));	/* should the next line fail */
	make_writer(w, rel, TopMemoryContext);
	return w;
}

static void
close_writer(Writer *w, Relation rel)
{
	for (int i = 0; i < w->rri->ri_NumIndices; i++)
	{
		vd_index_insert_cleanup(w->rri->ri_IndexRelationDescs[i], w->rri->ri_IndexRelationInfo[i]);
		index_close(w->rri->ri_IndexRelationDescs[i], NoLock);
	}
	ResetPerTupleExprContext(w->estate);
	if (needs_own_writer(rel))
	{
		ExecResetTupleTable(w->estate->es_tupleTable, false);
		FreeExecutorState(w->estate);
	}
	table_close(rel, NoLock);
}

/* a row that someone added columns to gets nulls there */
static TupleTableSlot *
fill_slot(Writer *w, int natts, const Datum *values, const bool *nulls)
{
	TupleTableSlot *slot = w->slot;

	ExecClearTuple(slot);
	for (int i = 0; i < slot->tts_tupleDescriptor->natts; i++)
	{
		slot->tts_isnull[i] = i >= natts || nulls[i];
		slot->tts_values[i] = slot->tts_isnull[i] ? (Datum) 0 : values[i];
	}
	return ExecStoreVirtualTuple(slot);
}

static int
natts_of(VdTable table)
{
	static const int natts[VD_NTABLES] = {
		[VD_EVENT] = Ev_natts,[VD_OUTBOX] = Ob_natts,[VD_DEAD_LETTER] = Dl_natts,
		[VD_PARKED_EVENT] = Pk_natts,[VD_ACTIVE_PROCESS] = Pr_natts,
		[VD_FINISHED_PROCESS] = Fi_natts,[VD_TIMER] = Tm_natts,[VD_COMMAND] = Cm_natts,[VD_TRANSFER] = Tr_natts,
	};

	return natts[table];
}

/* ---- partitions ---- */

static int
compare_bound(const PartitionBoundInfoData *bounds, int i, Datum value, bool is_uuid)
{
	if (bounds->kind[i][0] == PARTITION_RANGE_DATUM_MINVALUE)
		return -1;
	if (bounds->kind[i][0] == PARTITION_RANGE_DATUM_MAXVALUE)
		return 1;
	if (is_uuid)
		return memcmp(DatumGetUUIDP(bounds->datums[i][0])->data,
					  DatumGetUUIDP(value)->data, UUID_LEN);
	return DatumGetInt64(bounds->datums[i][0]) <= DatumGetInt64(value) ? -1 : 1;
}

/* the partition for a value of the partition key, or InvalidOid */
static Oid
find_partition(VdTable table, Datum value)
{
	Relation	root = table_open(vd_table_oid(table), RowExclusiveLock);
	PartitionDesc desc = RelationGetPartitionDesc(root, true);
	PartitionBoundInfo bounds = desc->boundinfo;
	bool		is_uuid = table == VD_FINISHED_PROCESS;
	int			at = 0;
	Oid			leaf = InvalidOid;

	if (bounds != NULL)
	{
		for (int i = bounds->ndatums; i > 0 && at == 0; i--)
			if (compare_bound(bounds, i - 1, value, is_uuid) <= 0)
				at = i;
		if (bounds->indexes[at] >= 0)
			leaf = desc->oids[bounds->indexes[at]];
	}
	table_close(root, NoLock);
	return leaf;
}

/*
 * Make the partition that is missing, in the caller's transaction. maintain()
 * makes them ahead of time; this is for whoever comes before it.
 */
static void
add_partition(VdTable table, Datum value)
{
	VdIdentity	saved;
	Oid			type = table == VD_FINISHED_PROCESS ? UUIDOID : INT8OID;
	char	   *sql = psprintf("SELECT voiding.%s($1)", tables[table].add_partition);

	vd_become(&saved, vd_engine_owner(), "pg_catalog, voiding, pg_temp");
	if (SPI_connect() != SPI_OK_CONNECT ||
		SPI_execute_with_args(sql, 1, &type, &value, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not add a partition to voiding.%s", tables[table].name);
	SPI_finish();
	vd_return(&saved);
}

static Oid
leaf_of(VdTable table, Datum value)
{
	Oid			leaf;

	if (tables[table].add_partition == NULL)
		return vd_table_oid(table);
	leaf = find_partition(table, value);
	if (!OidIsValid(leaf))
	{
		add_partition(table, value);
		leaf = find_partition(table, value);
	}
	if (!OidIsValid(leaf))
		elog(ERROR, "voiding.%s has no partition for its next row", tables[table].name);
	return leaf;
}

/* ---- writing ---- */

/*
 * Insert a row, with indexes, constraints and triggers. After triggers need a
 * query around them, and there may be none (emit() in a plain SELECT).
 */
void
vd_insert(VdTable table, Datum *values, bool *nulls)
{
	Relation	rel = table_open(leaf_of(table, values[0]), RowExclusiveLock);
	Writer	   *w = open_writer(rel);
	bool		triggers = w->rri->ri_TrigDesc && w->rri->ri_TrigDesc->trig_insert_after_row;

	if (triggers)
		AfterTriggerBeginQuery();
	ExecSimpleRelationInsert(w->rri, w->estate,
							 fill_slot(w, natts_of(table), values, nulls));
	if (triggers)
		AfterTriggerEndQuery(w->estate);
	close_writer(w, rel);
}

/*
 * Insert a row unless one of its unique keys is taken; waits for whoever is
 * inserting the same key. Returns false and writes nothing if it is taken.
 * The algorithm is PostgreSQL's speculative insertion (INSERT ... ON CONFLICT
 * DO NOTHING). Triggers are not fired. The primary key, an id that is mostly
 * new, is not looked at before, only when the row is inserted.
 */
bool
vd_insert_new(VdTable table, Datum *values, bool *nulls)
{
	Relation	rel = table_open(leaf_of(table, values[0]), RowExclusiveLock);
	Writer	   *w = open_writer(rel);
	TupleTableSlot *slot = fill_slot(w, natts_of(table), values, nulls);
	ItemPointerData conflict;
	bool		inserted = false;

	ExecConstraints(w->rri, slot, w->estate);
	while (vd_check_index_constraints(w->rri, slot, w->estate, &conflict, w->keys))
	{
		uint32		token = SpeculativeInsertionLockAcquire(GetCurrentTransactionId());
		bool		spec_conflict = false;

		table_tuple_insert_speculative(rel, slot, GetCurrentCommandId(true), 0, NULL, token);
		vd_insert_index_tuples(w->rri, slot, w->estate, true, &spec_conflict, NIL);
		table_tuple_complete_speculative(rel, slot, token, !spec_conflict);
		SpeculativeInsertionLockRelease(GetCurrentTransactionId());
		inserted = !spec_conflict;
		if (inserted)
			break;
	}
	close_writer(w, rel);
	return inserted;
}

/*
 * Replace the row at tid, which the caller has locked with vd_lock(). Triggers
 * are not fired: what happens to a process is told by its events.
 */
void
vd_update(VdTable table, ItemPointer tid, Datum *values, bool *nulls)
{
	Relation	rel = table_open(vd_table_oid(table), RowExclusiveLock);
	Writer	   *w = open_writer(rel);
	TupleTableSlot *slot = fill_slot(w, natts_of(table), values, nulls);
	VdUpdateIndexes indexes;

	ExecConstraints(w->rri, slot, w->estate);
	simple_table_tuple_update(rel, tid, slot, GetActiveSnapshot(), &indexes);
	if (w->rri->ri_NumIndices > 0 && indexes)
		vd_update_index_tuples(w->rri, slot, w->estate, indexes);
	close_writer(w, rel);
}

/*
 * Delete the row at tid, or its newest version if somebody has changed it
 * meanwhile (a sweep notes something on a parked event); false when somebody
 * else has deleted it.
 */
bool
vd_delete(VdTable table, ItemPointer tid)
{
	Relation	rel = table_open(vd_table_oid(table), RowExclusiveLock);
	ItemPointerData at = *tid;
	TM_FailureData failure;
	TM_Result	result;

	while ((result = table_tuple_delete(rel, &at, GetCurrentCommandId(true), GetActiveSnapshot(),
										InvalidSnapshot, true, &failure, false)) == TM_Updated)
		at = failure.ctid;
	table_close(rel, NoLock);
	return result == TM_Ok;
}

/* ---- reading ---- */

Oid
vd_primary_index(Relation rel)
{
	list_free(RelationGetIndexList(rel));
	return rel->rd_pkindex;
}

static Oid
index_of(VdTable table, Relation rel, int indexno)
{
	TableInfo  *t = &tables[table];

	if (indexno == VdIdx_primary)
		return vd_primary_index(rel);
	if (!OidIsValid(t->index_id[indexno - 1]))
		t->index_id[indexno - 1] = relation_by_name(t->index[indexno - 1]);
	return t->index_id[indexno - 1];
}

static void
make_scan_key(ScanKey sk, int attno, const VdKey *key)
{
	RegProcedure eq = key->type == TEXTOID ? F_TEXTEQ :
		key->type == UUIDOID ? F_UUID_EQ :
		key->type == INT2OID ? F_INT2EQ : F_INT8EQ;

	ScanKeyInit(sk, attno, BTEqualStrategyNumber, eq, key->value);
}

typedef struct Search
{
	Relation	rel;
	Relation	index;
	IndexScanDesc scan;
	Snapshot	snapshot;
	TupleTableSlot *slot;
} Search;

static bool
search_begin(Search *s, VdTable table, int indexno, int nkeys, const VdKey *keys)
{
	ScanKeyData sk[3];
	Oid			relid = vd_table_oid(table);

	if (tables[table].add_partition != NULL)
		relid = find_partition(table, keys[0].value);
	if (!OidIsValid(relid))
		return false;
	s->rel = table_open(relid, AccessShareLock);
	s->index = index_open(index_of(table, s->rel, indexno), AccessShareLock);
	s->snapshot = RegisterSnapshot(GetLatestSnapshot());
	s->slot = table_slot_create(s->rel, NULL);
	for (int i = 0; i < nkeys; i++)
	{
		make_scan_key(&sk[i], i + 1, &keys[i]);
		sk[i].sk_collation = s->index->rd_indcollation[i];
	}
	s->scan = vd_index_beginscan(s->rel, s->index, s->snapshot, nkeys);
	index_rescan(s->scan, sk, nkeys, NULL, 0);
	return true;
}

static void
search_end(Search *s)
{
	index_endscan(s->scan);
	ExecDropSingleTupleTableSlot(s->slot);
	UnregisterSnapshot(s->snapshot);
	index_close(s->index, NoLock);
	table_close(s->rel, NoLock);
}

/* Call fn for each row with these keys, in index order, until it says no. */
void
vd_scan(VdTable table, int indexno, int nkeys, const VdKey *keys, VdRowFn fn, void *arg)
{
	Search		s;

	if (!search_begin(&s, table, indexno, nkeys, keys))
		return;
	while (index_getnext_slot(s.scan, ForwardScanDirection, s.slot))
		if (!fn(s.slot, arg))
			break;
	search_end(&s);
}

/*
 * Find the row with these keys and lock it FOR UPDATE, waiting for whoever
 * holds it; then hand out its newest version, copied to the current context.
 * Returns false when there is none (any more).
 */
bool
vd_lock(VdTable table, int indexno, int nkeys, const VdKey *keys,
		Datum *values, bool *nulls, ItemPointer tid)
{
	Search		s;
	TM_FailureData failure;
	TM_Result	result = TM_Deleted;

	if (!search_begin(&s, table, indexno, nkeys, keys))
		return false;
	if (index_getnext_slot(s.scan, ForwardScanDirection, s.slot))
	{
		ItemPointerData found = s.slot->tts_tid;

		result = table_tuple_lock(s.rel, &found, s.snapshot, s.slot,
								  GetCurrentCommandId(false), LockTupleExclusive,
								  LockWaitBlock, TUPLE_LOCK_FLAG_FIND_LAST_VERSION, &failure);
	}
	if (result == TM_Ok)
	{
		HeapTuple	copy = ExecCopySlotHeapTuple(s.slot);
		int			natts = natts_of(table);
		Datum	   *v = palloc(sizeof(Datum) * s.slot->tts_tupleDescriptor->natts);
		bool	   *n = palloc(sizeof(bool) * s.slot->tts_tupleDescriptor->natts);

		heap_deform_tuple(copy, s.slot->tts_tupleDescriptor, v, n);
		memcpy(values, v, sizeof(Datum) * natts);
		memcpy(nulls, n, sizeof(bool) * natts);
		*tid = s.slot->tts_tid;
	}
	else if (result != TM_Deleted)
		elog(ERROR, "could not lock a row of voiding.%s: %d", tables[table].name, result);
	search_end(&s);
	return result == TM_Ok;
}
