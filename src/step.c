/*
 * step.c
 *	  One step of a process: a pure function from (definition, process, event)
 *	  to (process, effects). It writes nothing and locks nothing.
 *
 * The order of things is that of the definition format: the transition's own
 * set, send and emit; then the old state is left; then set, send and emit of
 * the state that is entered; then "always", until no guard holds.
 */
#include "postgres.h"

#include "voiding.h"

#define MAX_ALWAYS 100

VdScope
vd_scope(const VdProcess *p, Jsonb *event)
{
	VdScope		scope = {.process = p->data,.event = event,.key = p->key,
		.process_id = &p->id
	};

	return scope;
}

/* why a process has come to an end of this kind, or NULL */
char *
vd_state_reason(const VdState *state, const VdScope *scope)
{
	return state->reason ? vd_json_text(vd_json_value(state->reason, scope)) : NULL;
}

static bool
is_for(const VdTransition *t, const char *state, const char *via, const char *name)
{
	return strcmp(t->from, state) == 0 && strcmp(t->via, via) == 0 &&
		strcmp(t->name, name) == 0;
}

/* does the state say anything about this, whatever the guards? */
bool
vd_step_knows(VdDefinition *def, const char *state, const char *via, const char *name)
{
	ListCell   *lc;

	foreach(lc, def->transitions)
		if (is_for(lfirst(lc), state, via, name))
			return true;
	return false;
}

/* the first transition whose guard holds, or NULL */
VdTransition *
vd_step_pick(VdDefinition *def, const char *state, const char *via, const char *name,
			 const VdScope *scope)
{
	ListCell   *lc;

	foreach(lc, def->transitions)
	{
		VdTransition *t = lfirst(lc);

		if (is_for(t, state, via, name) && vd_json_guard(t->guard, scope))
			return t;
	}
	return NULL;
}

/* a command's arguments: process data, then what "with" says, then process_id */
static Jsonb *
payload_of(const VdProcess *p, const VdSend *send, const VdScope *scope)
{
	JsonbParseState *ps = NULL;
	Jsonb	   *payload = p->data;

	if (send->with)
		payload = vd_json_concat(payload, vd_json_object(send->with, scope));
	pushJsonbValue(&ps, WJB_BEGIN_OBJECT, NULL);
	vd_json_push_text(&ps, "process_id", vd_uuid_text(&p->id));
	return vd_json_concat(payload,
						  JsonbValueToJsonb(pushJsonbValue(&ps, WJB_END_OBJECT, NULL)));
}

static void
send_one(const VdProcess *p, VdSend *send, const VdScope *scope, const char *state,
		 VdEffects *fx)
{
	VdCommand  *c = palloc(sizeof(VdCommand));

	c->send = send;
	c->payload = payload_of(p, send, scope);
	c->state = pstrdup(state);
	fx->commands = lappend(fx->commands, c);
}

static void
act(VdActions *a, VdProcess *p, Jsonb *event, const char *state, VdEffects *fx)
{
	VdScope		scope = vd_scope(p, event);
	ListCell   *lc;

	if (a->set)
		scope.process = p->data = vd_json_concat(p->data, vd_json_object(a->set, &scope));
	foreach(lc, a->send)
	{
		VdSend	   *send = lfirst(lc);
		ListCell   *item;

		if (send->each == NULL)
		{
			send_one(p, send, &scope, state, fx);
			continue;
		}
		foreach(item, vd_json_each(send->each, &scope))
		{
			scope.item = lfirst(item);
			send_one(p, send, &scope, state, fx);
		}
		scope.item = NULL;
	}
	foreach(lc, a->emit)
		fx->emits = lappend(fx->emits, lfirst(lc));
}

static void
enter(VdState *state, VdProcess *p, Jsonb *event, VdEffects *fx)
{
	fx->left = fx->left || p->state != NULL;
	fx->entered = state;
	p->state = state->name;
	p->failed = state->failed;
	act(&state->entry, p, event, state->name, fx);
}

/* take a transition, and those of "always" behind it */
void
vd_step_take(VdDefinition *def, VdProcess *p, VdTransition *t, Jsonb *event, VdEffects *fx)
{
	for (int n = 0; t != NULL; n++)
	{
		VdScope		scope;

		if (n == MAX_ALWAYS)
		{
			ereport(WARNING,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("\"always\" of state \"%s\" of process type %s does not end",
							p->state, def->type),
					 errdetail("It was followed %d times and then left as it is.", MAX_ALWAYS)));
			return;
		}
		act(&t->own, p, event, t->target ? t->target->name : p->state, fx);
		if (t->target)
			enter(t->target, p, event, fx);
		scope = vd_scope(p, event);
		t = vd_step_pick(def, p->state, "always", "", &scope);
	}
}
