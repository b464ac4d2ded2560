/*
 * worker.h
 *	  What a launcher tells a worker that it starts.
 */
#ifndef VOIDING_WORKER_H
#define VOIDING_WORKER_H

#include "datatype/timestamp.h"

typedef struct VdWorkerStart
{
	Oid			dboid;			/* or InvalidOid and a name */
	char		dbname[NAMEDATALEN];
	int16		index;			/* 0 .. workers - 1 */
	int16		workers;
	int16		place;			/* of a preloaded launcher, or -1 */
} VdWorkerStart;				/* fits bgw_extra */

extern void vd_launcher_init(void);
extern void vd_launcher_bring_back(void);

#endif							/* VOIDING_WORKER_H */
