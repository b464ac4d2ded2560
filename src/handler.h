/*
 * handler.h
 *	  A handler and its arguments: handler.c calls it, argument.c fills them;
 *	  query.c calls queries.
 */
#ifndef VOIDING_HANDLER_H
#define VOIDING_HANDLER_H

#include "access/htup.h"

#define VD_MAX_ARGS 32			/* create_command() and subscribe() see to it */

typedef struct VdArgument
{
	char	   *name;
	Oid			type;
	Oid			base;			/* the type below a domain */
	FmgrInfo	in;				/* its input function */
	Oid			ioparam;
} VdArgument;						/* of one that takes a set: of the elements */

typedef struct VdHandler
{
	char	   *service;
	char	   *type;
	char	   *function;		/* signature; NULL: received outside */
	bool		registered;
	bool		takes_set;
	bool		is_query;
	bool		is_event;
	bool		elsewhere;		/* in another database */
	bool		bound;			/* the rest is known */
	FmgrInfo	fn;
	Oid			owner;
	Oid			returns;
	bool		returns_set;
	char	   *path;			/* search_path while it runs */
	int			nargs;
	VdArgument	args[VD_MAX_ARGS];
	int			ndefaults;		/* the last n arguments have one */
} VdHandler;

/* ---- argument.c ---- */
extern void vd_bind_arguments(VdHandler *h, HeapTuple function, MemoryContext memory);
extern Datum vd_argument(VdHandler *h, int i, VdMessage **messages, int n, bool *isnull);
extern void vd_check_arguments(VdHandler *h, VdMessage *m, NullableDatum *values);

/* ---- handler.c ---- */
extern VdHandler *vd_query_handler(const char *name);
extern void vd_handlers_hold(void);
extern void vd_handlers_release(void);

/* ---- query.c ---- */
extern JsonbValue *vd_call_for_set(FunctionCallInfo fcinfo);

#endif							/* VOIDING_HANDLER_H */
