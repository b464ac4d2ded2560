/*
 * compat.h
 *	  What differs between PostgreSQL 15, 16, 17 and 18, in one place.
 *
 * Nothing else in the tree may test PG_VERSION_NUM.
 */
#ifndef VOIDING_COMPAT_H
#define VOIDING_COMPAT_H

#if PG_VERSION_NUM < 150000
#error "voiding needs PostgreSQL 15 or newer"
#endif

#if PG_VERSION_NUM >= 180000
#define vd_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan(heap, index, snapshot, NULL, nkeys, 0)
#define VD_MODULE_MAGIC PG_MODULE_MAGIC_EXT(.name = "voiding", .version = VOIDING_VERSION)
#else
#define vd_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan(heap, index, snapshot, nkeys, 0)
#define VD_MODULE_MAGIC PG_MODULE_MAGIC
#endif

#if PG_VERSION_NUM >= 160000
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#define vd_function_aclcheck(oid, role, mode) object_aclcheck(ProcedureRelationId, oid, role, mode)
#define vd_schema_aclcheck(oid, role, mode) object_aclcheck(NamespaceRelationId, oid, role, mode)
typedef TU_UpdateIndexes VdUpdateIndexes;
#define vd_update_index_tuples(rri, slot, estate, indexes) \
	ExecInsertIndexTuples(rri, slot, estate, true, false, NULL, NIL, \
						  (indexes) == TU_Summarizing)
#define vd_insert_index_tuples(rri, slot, estate, nodup, conflict, arbiters) \
	ExecInsertIndexTuples(rri, slot, estate, false, nodup, conflict, arbiters, false)
#else
#define vd_function_aclcheck(oid, role, mode) pg_proc_aclcheck(oid, role, mode)
#define vd_schema_aclcheck(oid, role, mode) pg_namespace_aclcheck(oid, role, mode)
typedef bool VdUpdateIndexes;
#define vd_update_index_tuples(rri, slot, estate, indexes) \
	ExecInsertIndexTuples(rri, slot, estate, true, false, NULL, NIL)
#define vd_insert_index_tuples(rri, slot, estate, nodup, conflict, arbiters) \
	ExecInsertIndexTuples(rri, slot, estate, false, nodup, conflict, arbiters)
#endif

#if PG_VERSION_NUM >= 180000
#define vd_check_index_constraints(rri, slot, estate, tid, arbiters) \
	ExecCheckIndexConstraints(rri, slot, estate, tid, NULL, arbiters)
#else
#define vd_check_index_constraints(rri, slot, estate, tid, arbiters) \
	ExecCheckIndexConstraints(rri, slot, estate, tid, arbiters)
#endif

/* BRIN leaves memory in its ii_Context when the rows are inserted: it gets one of its own, emptied then */
#if PG_VERSION_NUM >= 170000
#define vd_index_insert_begin(index, info) \
	do { \
		if ((index)->rd_indam->aminsertcleanup) \
			(info)->ii_Context = AllocSetContextCreate(CurrentMemoryContext, "voiding index insert", ALLOCSET_SMALL_SIZES); \
	} while (0)
#define vd_index_insert_cleanup(index, info) \
	do { \
		index_insert_cleanup(index, info); \
		if ((index)->rd_indam->aminsertcleanup) \
			MemoryContextReset((info)->ii_Context); \
	} while (0)
#else
#define vd_index_insert_begin(index, info)	((void) 0)
#define vd_index_insert_cleanup(index, info)	((void) 0)
#endif

#if PG_VERSION_NUM >= 170000
#define vd_my_procno()	((uint32) MyProcNumber)
#else
#define vd_my_procno()	((uint32) MyProc->pgprocno)
#endif

#endif							/* VOIDING_COMPAT_H */
