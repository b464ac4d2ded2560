/*
 * worker.h
 *	  What a launcher tells a worker that it starts, and the parts of a worker
 *	  that have a file of their own.
 */
#ifndef VOIDING_WORKER_H
#define VOIDING_WORKER_H

#include "datatype/timestamp.h"
#include "postmaster/bgworker.h"

typedef struct VdWorkerStart
{
	Oid			dboid;
	int16		index;			/* 0 .. workers - 1 */
	int16		workers;
} VdWorkerStart;				/* fits bgw_extra */

/* ---- worker.c ---- */
extern void vd_worker_begin(const char *activity);
extern void vd_worker_end(void);

/* ---- watch.c ---- */
extern void vd_watch_connections(void);

/* ---- launcher.c ---- */
extern void vd_launcher_init(void);
extern bool vd_launch(int workers);
extern void vd_fill_worker(BackgroundWorker *w, const char *what);

/* ---- serve.c ---- */
extern char *vd_installed_version(void);
extern void vd_bring_back_workers(void);

/* ---- suspect.c ---- */
extern void vd_suspects_read(int worker, int workers);
extern bool vd_suspects_uncounted(void);
extern void vd_suspects_count(void);
extern List *vd_suspects_alone(List *messages);
extern bool vd_suspects_left(void);
extern void vd_note_running(List *messages);
extern void vd_note_innocent(SIGNAL_ARGS);

#endif							/* VOIDING_WORKER_H */
