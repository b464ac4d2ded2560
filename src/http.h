/*
 * http.h
 *	  The routes of voiding.http(): route.c knows them, http.c serves.
 */
#ifndef VOIDING_HTTP_H
#define VOIDING_HTTP_H

typedef struct VdHttpRoute		/* a row of voiding.route */
{
	char	   *method;
	List	   *segments;		/* of char *: of the path; {name} or {name:uuid} is a parameter */
	char	   *operation;		/* voiding.http_<operation>() serves it */
	char	   *query;			/* the query or view that it reads, or NULL */
	char	   *takes;			/* what its body is: object, array; NULL: none */
} VdHttpRoute;

extern VdHttpRoute *vd_http_route(const char *method, List *segments, Jsonb **parameters, char **allowed);
extern List *vd_http_resources(const char *query, Jsonb *arguments);
extern List *vd_http_segments(const char *path);
extern Jsonb *vd_http_query_string(const char *text, Jsonb *before);
extern void vd_http_append_encoded(StringInfo s, const char *text);

/* ---- command.c ---- */
extern char *vd_fill_resource(const char *template, Jsonb *data);

/* ---- problem.c ---- */
extern int	vd_problem_status(const char *sqlstate);
extern Jsonb *vd_http_problem(int status, const char *title, const char *detail, const char *instance);

#endif							/* VOIDING_HTTP_H */
