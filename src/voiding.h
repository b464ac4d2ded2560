/*
 * voiding.h
 *	  What the rooms of the engine share. The vocabulary is fixed here.
 *
 *	  event    something that happened; a row of voiding.event
 *	  process  one running instance of a process type, a row of
 *	           voiding.active_process; that row is also its lock
 *	  message  an event or a command on its way to a handler, a row of
 *	           voiding.outbox; its key (aggregateid) gives the order
 *	  handler  an SQL function of a service, bound to a message type
 *
 * Data flows one way: row change -> event -> process -> outbox -> dispatch ->
 * handler -> row change. A room calls only the rooms to its right.
 *
 * Lock order: the service's own row (held by whoever changed it), then the
 * process row, then anything that hangs on the process.
 */
#ifndef VOIDING_H
#define VOIDING_H

#include "access/tableam.h"
#include "executor/tuptable.h"
#include "nodes/execnodes.h"
#include "utils/jsonb.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "compat.h"

/* Our SQLSTATEs; doc/errors.md lists them and a test compares. */
#define ERRCODE_VD_NO_PROCESS			MAKE_SQLSTATE('V','D','0','4','B')
#define ERRCODE_VD_UNACKNOWLEDGED		MAKE_SQLSTATE('V','D','0','9','B')
#define ERRCODE_VD_OTHER_CONTENT		MAKE_SQLSTATE('V','D','0','9','E')
#define ERRCODE_VD_GONE					MAKE_SQLSTATE('V','D','1','0','A')
#define ERRCODE_VD_BAD_ARGUMENT			MAKE_SQLSTATE('V','D','2','2','B')
#define ERRCODE_VD_BAD_WAIT				MAKE_SQLSTATE('V','D','2','5','A')

#define VD_MAX_KEY_BYTES	1024	/* subject, key and names, in bytes */
#define VD_MAX_NAME			100		/* message types and services, in bytes */
#define VD_BUCKETS			64		/* hash buckets of ordering keys */
#define VD_ENGINE			"voiding"	/* source of the engine's own events */
#define VD_ARRIVAL			"arrival"	/* destination of what comes from other databases */

/* ---- module (voiding.c) ---- */
extern int	vd_batch_size;
extern int	vd_retry_limit;
extern int	vd_retry_base;		/* ms */
extern int	vd_retry_max;		/* ms */
extern int	vd_park_for;		/* s */
extern int	vd_clock_offset;	/* s */
extern bool vd_notify;
extern int	vd_workers;
extern bool vd_autostart;
extern char *vd_databases;
extern int	vd_slow_down;		/* ms */
extern int	vd_handler_timeout;	/* ms */
extern int	vd_look_every;		/* ms */
extern int	vd_transfer_retention;	/* days */

extern TimestampTz vd_now(void);

/* ---- uuid.c ---- */
extern pg_uuid_t vd_uuid_new(void);
extern pg_uuid_t vd_uuid_derive(const pg_uuid_t *from, const char *type, const char *key);
extern uint64 vd_uuid_ms(const pg_uuid_t *u);
extern bool vd_uuid_has_time(const pg_uuid_t *u);
extern bool vd_uuid_equal(const pg_uuid_t *a, const pg_uuid_t *b);
extern char *vd_uuid_text(const pg_uuid_t *u);

/* ---- json.c ---- */
typedef struct VdScope			/* what a value of a definition may look at */
{
	Jsonb	   *process;		/* process data, or NULL */
	Jsonb	   *event;			/* event data, or NULL */
	JsonbValue *item;			/* element of "each", or NULL */
	const char *key;
	const pg_uuid_t *process_id;
} VdScope;

extern JsonbValue *vd_json_get(Jsonb *object, const char *name);
extern char *vd_json_text(const JsonbValue *v);
extern JsonbValue *vd_json_string(const char *s);
extern Jsonb *vd_json_empty(void);
extern Jsonb *vd_json_concat(Jsonb *a, Jsonb *b);
extern void vd_json_push(JsonbParseState **ps, const char *name, JsonbValue *v);
extern void vd_json_push_text(JsonbParseState **ps, const char *name, const char *s);
extern JsonbValue *vd_json_value(JsonbValue *v, const VdScope *scope);
extern bool vd_json_guard(const char *guard, const VdScope *scope);
extern List *vd_json_each(const char *path, const VdScope *scope);
extern Jsonb *vd_json_object(JsonbValue *object, const VdScope *scope);
extern JsonbValue *vd_json_datum(Datum value, bool isnull, Oid type, int32 typmod);

/* ---- store.c ---- */
typedef enum VdTable
{
	VD_EVENT,
	VD_OUTBOX,
	VD_DEAD_LETTER,
	VD_PARKED_EVENT,
	VD_ACTIVE_PROCESS,
	VD_FINISHED_PROCESS,
	VD_TIMER,
	VD_TRANSITION,
	VD_COMMAND,
	VD_TRANSFER,
	VD_NTABLES
} VdTable;

typedef struct VdKey			/* one equality of an index look-up */
{
	Oid			type;			/* TEXTOID, UUIDOID, INT2OID, INT8OID */
	Datum		value;
} VdKey;

extern Oid	vd_schema_oid(void);
extern Oid	vd_engine_owner(void);
extern Oid	vd_table_oid(VdTable table);
extern int64 vd_next_position(void);
extern Oid	vd_primary_index(Relation rel);
extern void vd_insert(VdTable table, Datum *values, bool *nulls);
extern bool vd_insert_new(VdTable table, Datum *values, bool *nulls);
extern void vd_update(VdTable table, ItemPointer tid, Datum *values, bool *nulls);
extern bool vd_delete(VdTable table, ItemPointer tid);
extern bool vd_lock(VdTable table, int indexno, int nkeys, const VdKey *keys,
					Datum *values, bool *nulls, ItemPointer tid);

typedef bool (*VdRowFn) (TupleTableSlot *slot, void *arg);
extern void vd_scan(VdTable table, int indexno, int nkeys, const VdKey *keys,
					VdRowFn fn, void *arg);

/* the role and the path that engine SQL runs with */
typedef struct VdIdentity
{
	Oid			user;
	int			sec;
	int			guc_level;
} VdIdentity;

extern void vd_become(VdIdentity *saved, Oid user, const char *path);
extern void vd_return(const VdIdentity *saved);
extern void vd_read_begin(VdIdentity *saved, const char *sql, int nargs, Oid *types, Datum *values);
extern void vd_read_end(const VdIdentity *saved);
extern char *vd_read_text(MemoryContext memory, uint64 row, int column);

/* ---- columns of the engine's tables; the order is that of sql/ ---- */
enum
{
	Ev_position, Ev_event_id, Ev_type, Ev_source, Ev_subject, Ev_correlation,
	Ev_causation, Ev_data, Ev_recorded_at, Ev_xid, Ev_actor, Ev_process_id, Ev_steps,
	Ev_natts
};
enum
{
	Ob_id, Ob_aggregatetype, Ob_aggregateid, Ob_type, Ob_payload, Ob_source,
	Ob_destination, Ob_correlation, Ob_causation, Ob_attempts, Ob_available_at,
	Ob_created_at, Ob_bucket, Ob_xid, Ob_seq, Ob_sent_in, Ob_error, Ob_natts,
	Dl_failed_at = Ob_natts, Dl_sqlstate, Dl_natts
};
enum
{
	Pr_id, Pr_type, Pr_version, Pr_key, Pr_state, Pr_failed, Pr_data,
	Pr_started_at, Pr_since, Pr_updated_at, Pr_conversation, Pr_task, Pr_natts,
	Fi_finished_at = Pr_natts, Fi_outcome, Fi_reason, Fi_result, Fi_natts
};
enum
{
	Pk_position, Pk_process_type, Pk_key, Pk_event_id, Pk_type, Pk_source,
	Pk_subject, Pk_correlation, Pk_causation, Pk_data, Pk_parked_at,
	Pk_expires_at, Pk_process_id, Pk_watch, Pk_natts
};
enum
{
	Tm_process_id, Tm_name, Tm_state, Tm_due_at, Tm_held, Tm_natts
};
enum
{
	Cm_id, Cm_type, Cm_status, Cm_data, Cm_result, Cm_error, Cm_resource, Cm_process_id,
	Cm_accepted_at, Cm_finished_at, Cm_caller, Cm_idempotency_key, Cm_not_before,
	Cm_start_by, Cm_bucket, Cm_seq, Cm_xid, Cm_gone, Cm_natts
};

enum
{
	Tr_id, Tr_aggregatetype, Tr_aggregateid, Tr_type, Tr_payload, Tr_source,
	Tr_origin, Tr_destination, Tr_correlation, Tr_causation, Tr_sent_in,
	Tr_created_at, Tr_xid, Tr_natts
};

/* which index of a table; see store.c */
enum
{
	VdIdx_primary = 0, VdIdx_key = 1, VdIdx_link = 2
};

/* ---- a row of the outbox ---- */
typedef struct VdMessage
{
	pg_uuid_t	id;
	char	   *aggregatetype;
	char	   *aggregateid;
	char	   *type;
	Jsonb	   *payload;
	char	   *source;
	char	   *destination;
	pg_uuid_t	correlation;
	pg_uuid_t	causation;
	bool		has_causation;
	int			attempts;
	TimestampTz available_at;
	TimestampTz created_at;
	int16		bucket;
	int64		seq;
	char	   *sent_in;
	char	   *error;
	ItemPointerData tid;
	bool		kept;			/* in memory: it has no row */
} VdMessage;

/* ---- definition.c ---- */
typedef struct VdSend
{
	char	   *command;
	char	   *service;		/* who handles it */
	JsonbValue *with;			/* object or NULL */
	char	   *each;			/* jsonpath or NULL */
} VdSend;

typedef struct VdActions
{
	JsonbValue *set;			/* object or NULL */
	List	   *send;			/* of VdSend */
	List	   *emit;			/* of char * */
} VdActions;

typedef struct VdTimer
{
	char	   *name;			/* the ISO 8601 duration, as in the definition */
	Interval   *duration;
} VdTimer;

typedef struct VdState
{
	char	   *name;
	bool		final;
	bool		failed;
	VdActions	entry;
	List	   *timers;			/* of VdTimer */
	JsonbValue *task;			/* object or NULL */
	char	   *outcome;
	JsonbValue *reason;
	JsonbValue *result;
} VdState;

typedef struct VdTransition
{
	char	   *from;			/* NULL: the start */
	char	   *via;			/* on, after, onError, always, start */
	char	   *name;			/* event type or duration, else "" */
	char	   *guard;
	VdState    *target;			/* NULL: stay inside */
	VdActions	own;
} VdTransition;

typedef struct VdDefinition
{
	char	   *type;
	int			version;
	char	   *key;			/* default key: a member of the event's data */
	List	   *transitions;	/* of VdTransition, in order */
	List	   *states;			/* of VdState */
	List	   *timers;			/* of VdTimer: those of the whole process */
	Jsonb	   *events;			/* per event: key, unmatched, for */
} VdDefinition;

typedef struct VdListener		/* a process type that knows an event type */
{
	VdDefinition *def;			/* newest version */
	bool		starts;
} VdListener;

typedef struct VdRoute
{
	char		type[VD_MAX_NAME + 1];	/* hash key */
	List	   *listeners;		/* of VdListener, by name */
	List	   *subscribers;	/* of char *: services */
	bool		ends_commands;	/* it is the end of commands of some type */
} VdRoute;

extern const VdRoute *vd_route(const char *event_type);
extern VdDefinition *vd_definition(const char *type, int version);
extern VdState *vd_definition_state(VdDefinition *def, const char *name);
extern uint64 vd_definitions_generation(void);
extern bool vd_service(const char *name, char **owner, char **schema);
extern char *vd_service_of_schema(const char *schema);
extern char *vd_known_as(const char *service);
extern bool vd_leaves_after_commit(const char *service);
extern bool vd_is_connected(void);
extern List *vd_service_names(void);

/* ---- event.c ---- */
typedef struct VdProcess VdProcess;

typedef struct VdSteps			/* of one process */
{
	pg_uuid_t	process_id;
	JsonbParseState *array;		/* open */
} VdSteps;

typedef struct VdEvent
{
	pg_uuid_t	event_id;
	int64		position;		/* 0 until drawn */
	TimestampTz recorded_at;	/* drawn with it */
	const char *type;
	const char *source;
	const char *subject;
	pg_uuid_t	conversation;	/* the correlation it came with */
	pg_uuid_t	correlation;
	bool		inherited;		/* the correlation came with a message or a row */
	pg_uuid_t	causation;
	bool		has_causation;
	Jsonb	   *data;
	bool		arrived;		/* from another database */
	Oid			actor;			/* then: who owns its source; else InvalidOid */
	List	   *steps;			/* of VdSteps: what it did to processes */
} VdEvent;

extern pg_uuid_t vd_last_begun;
extern bool vd_event_is_engines(const char *type);
extern void vd_event_check_type(const char *type);
extern void vd_event_check_source(const char *source, Oid speaker);
extern void vd_event_check_name(const char *what, const char *value, size_t limit);
extern void vd_event_stamp(VdEvent *ev, const pg_uuid_t *from_row);
extern void vd_event_append(VdEvent *ev);
extern void vd_event_write(VdEvent *ev);
extern void vd_event_position(VdEvent *ev);
extern void vd_event_step(VdEvent *ev, const VdProcess *p, const char *event_type,
						  const char *from, List *commands, const char *note);
extern void vd_engine_event(VdEvent *ev, const char *type, const char *subject, Jsonb *data,
							const pg_uuid_t *correlation, const pg_uuid_t *causation);

/* ---- step.c: decides, writes nothing ---- */
struct VdProcess
{
	pg_uuid_t	id;
	char	   *type;
	int			version;
	char	   *key;
	char	   *state;			/* NULL: not started yet */
	bool		failed;
	Jsonb	   *data;
	TimestampTz started_at;
	TimestampTz since;			/* when it came into its state */
	pg_uuid_t	conversation;	/* of its start event; its id unless it is a second one */
	char	   *task;			/* type of the open task, or NULL */
	ItemPointerData tid;
};

typedef struct VdCommand		/* a command decided, not yet sent */
{
	VdSend	   *send;
	Jsonb	   *payload;
	char	   *state;			/* the state that sends it */
} VdCommand;

typedef struct VdEffects		/* what a step decided */
{
	List	   *commands;		/* of VdCommand */
	List	   *emits;			/* of char * */
	VdState    *entered;		/* the state it is in now, if it entered one */
	bool		left;			/* a state was left: its timers and task go */
	bool		tasks;			/* a task was made or withdrawn */
} VdEffects;

extern char *vd_state_reason(const VdState *state, const VdScope *scope);
extern VdScope vd_scope(const VdProcess *p, Jsonb *event);
extern bool vd_step_knows(VdDefinition *def, const char *state, const char *via,
						  const char *name);
extern VdTransition *vd_step_pick(VdDefinition *def, const char *state, const char *via,
								  const char *name, const VdScope *scope);
extern void vd_step_take(VdDefinition *def, VdProcess *p, VdTransition *t,
						 Jsonb *event, VdEffects *fx);

/* ---- process.c ---- */
extern void vd_process_react(VdEvent *ev, const VdRoute *route);
extern bool vd_process_fire_timer(const pg_uuid_t *process_id, const char *timer);
extern void vd_process_command_failed(const VdMessage *m);
extern bool vd_process_finished(const pg_uuid_t *id, VdProcess *p);
extern bool vd_process_lock(const pg_uuid_t *id, VdProcess *p);
extern bool vd_process_step(VdDefinition *def, VdProcess *p, VdTransition *t, VdEvent *ev,
							const char *event_type, Jsonb *event_data, const char *note);
extern bool vd_process_goes_on(VdProcess *p, VdEffects *fx, VdEvent *ev);
extern void vd_process_check_acknowledged(const char *type, const char *key);
extern void vd_process_to_row(const VdProcess *p, Datum *v, bool *n);

/* ---- effect.c ---- */
extern void vd_set_timers(const VdProcess *p, List *timers);
extern void vd_effects_write(VdProcess *p, VdEffects *fx, VdEvent *ev, Jsonb *event,
							 bool written);

/* ---- parked.c ---- */
extern void vd_park(VdEvent *ev, VdDefinition *def, const char *key, const VdProcess *p);
extern void vd_unpark(VdDefinition *def, VdProcess *p, VdEvent *ev);
extern bool vd_parked_open(void);
extern bool vd_deliver_parked(const pg_uuid_t *process_id);
extern void vd_parked_late(const VdProcess *p, VdEvent *ev);
extern void vd_dead_event(const VdEvent *ev, const char *process_type, const char *error);

/* ---- outbox.c ---- */

extern int16 vd_bucket(const char *key);
extern void vd_outbox_add(VdMessage *m);
extern void vd_outbox_read(TupleTableSlot *slot, VdMessage *m);
extern void vd_outbox_dead(VdMessage *m, const char *sqlstate);
extern List *vd_outbox_take(const char *service, int limit);
extern bool vd_outbox_own(int16 bucket);
extern void vd_outbox_write(const VdMessage *m);
extern TimestampTz vd_outbox_due(TupleTableSlot *slot);
extern void vd_outbox_retry(VdMessage *m, TimestampTz when);

/* ---- connection.c: to and from services elsewhere ---- */
extern void vd_depart(const VdMessage *m, const char *known_as);
extern bool vd_depart_late(VdMessage **set, int n);
extern void vd_depart_failure(const VdMessage *m, char *known_as);
extern void vd_take_arrival(const VdMessage *m);

/* ---- notify.c ---- */
extern void vd_notify_init(void);
extern bool vd_send_hints(void);
extern void vd_notify_add(const char *name, const char *type, const pg_uuid_t *id);

/* ---- outcome.c: of commands that somebody waits for ---- */
typedef struct VdAnswer			/* what a handler returned */
{
	Jsonb	   *result;			/* NULL: nothing */
	bool		has_process;
	pg_uuid_t	process_id;		/* a uuid that may be the id of a process */
} VdAnswer;

extern bool vd_command_is(const VdMessage *m);
extern bool vd_command_begin(const VdMessage *m);
extern void vd_command_handled(const VdMessage *m, VdAnswer *answer);
extern bool vd_command_is_hopeless(const VdMessage *m, const ErrorData *e);
extern void vd_command_fail(const pg_uuid_t *id, const char *sqlstate, const char *detail,
							const char *hint);
extern void vd_command_event(const VdEvent *ev);
extern void vd_command_settled(const VdProcess *p, const VdState *state, Jsonb *event);

/* ---- problem.c ---- */
extern Jsonb *vd_problem(const char *sqlstate, const char *detail, const char *hint,
						 const char *instance);

/* ---- dispatch.c ---- */
extern ErrorData *vd_attempt(void (*fn) (void *), void *arg);
extern void vd_give_up(VdMessage *m, const char *sqlstate, const ErrorData *e);
extern int	vd_run_batch(List *messages);
extern int	vd_contended;
extern int	vd_run_timers(int limit, TimestampTz since);
extern int	vd_run_parked(int limit);

/* ---- worker.c ---- */
extern bool vd_am_worker;

/* ---- wait.c ---- */
extern void vd_check_snapshot(void);

/* ---- handler.c ---- */
extern const VdMessage *vd_current_message(void);
extern const VdMessage *vd_cause_of(const pg_uuid_t *correlation, const char *subject);
extern Oid	vd_current_owner;	/* of the handler that runs, or InvalidOid */
extern bool vd_handler_is_here(const char *service, const char *type);
extern bool vd_handler_takes_set(const char *service, const char *type);
extern const pg_uuid_t *vd_take_conversation(void);
extern void vd_handler_check(VdMessage *m);
extern void vd_handler_run(VdMessage **messages, int n, bool in_savepoint, VdAnswer *answer);

/* ---- guard.c ---- */
extern void vd_guard_init(void);
extern void vd_fire_handlers_triggers(bool in_savepoint);
extern void vd_fire_callers_triggers(bool in_savepoint);

#endif							/* VOIDING_H */
