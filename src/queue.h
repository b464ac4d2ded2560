/*
 * queue.h
 *	  A worker's memory of the outbox.
 */
#ifndef VOIDING_QUEUE_H
#define VOIDING_QUEUE_H

extern void vd_queue_own(int worker, int workers);
extern bool vd_queue_owns_all(int worker, int workers);
extern void vd_queue_disown(void);
extern void vd_queue_forget(void);
extern bool vd_queue_look(void);
extern void vd_queue_follow(void);
extern List *vd_queue_take(int limit, bool again, TimestampTz *next_due);
extern List *vd_queue_pick(bool (*wanted) (int64 seq));
extern void vd_queue_delay(const VdMessage *m, TimestampTz when);
extern void vd_queue_lost(const VdMessage *m);
extern bool vd_queue_is_lost(const VdMessage *m);
extern void vd_queue_end(bool committed);

#endif							/* VOIDING_QUEUE_H */
