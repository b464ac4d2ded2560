/*
 * command.h
 *	  What is known of a type of commands: command.c reads it.
 */
#ifndef VOIDING_COMMAND_H
#define VOIDING_COMMAND_H

typedef struct VdCommandType
{
	char	   *name;
	char	   *service;		/* NULL: there is no such command */
	char	   *key;			/* the member of the data that is the ordering key */
	char	   *resource;		/* template, or NULL */
	char	   *completed_by;	/* types of events, or NULL */
	char	   *failed_by;
} VdCommandType;

extern VdCommandType *vd_command_type(const char *name);

#endif							/* VOIDING_COMMAND_H */
