/*
 * guard.c
 *	  Who may ask, and as which role. PostgreSQL's GRANTs decide what they may do.
 *
 * - It listens on loopback only, unless there are tokens, and TLS or a proxy.
 * - Without tokens it answers to loopback's names (and those of --host) only: a
 *	 page of elsewhere cannot reach it under a name of its own (DNS rebinding).
 * - What may change something needs application/json and no foreign Origin: no
 *	 page of elsewhere can send that without being asked first, and is refused.
 * - A token is a JWT: HS256 or RS256, as configured, whatever the token says of
 *	 itself; claims exp, aud and role.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <jwt.h>

#include "gateway.h"

static unsigned char *key = NULL;	/* NULL: there are no tokens */
static size_t key_size;
static jwt_alg_t algorithm;

void
guard_start(bool loopback)
{
	if (*options.jwt_secret && *options.jwt_key)
		fail("jwt-secret or jwt-key, not both");
	if (!*options.tls_cert != !*options.tls_key)
		fail("tls-cert and tls-key belong together");
	if (*options.jwt_secret || *options.jwt_key)
	{
		key = (unsigned char *) read_file(*options.jwt_secret ? options.jwt_secret : options.jwt_key, &key_size);
		algorithm = *options.jwt_secret ? JWT_ALG_HS256 : JWT_ALG_RS256;
		while (*options.jwt_secret && key_size > 0 && strchr("\r\n", key[key_size - 1]))
			key[--key_size] = '\0';
		if (algorithm == JWT_ALG_HS256 && key_size < 32)
			fail("the secret of jwt-secret must have 32 bytes or more");
		if (!*options.jwt_audience)
			fail("tokens need jwt-audience");
	}
	if (!loopback && key == NULL)
		fail("an address that is not loopback needs tokens: jwt-secret or jwt-key");
	if (!loopback && !*options.tls_cert && !options.behind_proxy)
		fail("an address that is not loopback needs TLS: tls-cert and tls-key, or behind-proxy");
}

static bool
refuse(Request *r, int status, const char *title, const char *detail)
{
	answer_problem(&r->answer, status, title, detail);
	return false;
}

/* ---- tokens ---- */

static bool
audience_is_right(jwt_t *jwt)
{
	char	   *text = jwt_get_grants_json(jwt, "aud");
	json_t	   *aud = text ? json_loads(text, JSON_DECODE_ANY, NULL) : NULL;
	const char *one = json_string_value(aud);
	bool		found = one && strcmp(one, options.jwt_audience) == 0;
	size_t		i;
	json_t	   *item;

	json_array_foreach(aud, i, item)
		if (json_is_string(item) && strcmp(json_string_value(item), options.jwt_audience) == 0)
			found = true;
	json_decref(aud);
	free(text);
	return found;
}

/* NULL: it is right */
static const char *
fault_of(jwt_t *jwt, Request *r)
{
	time_t		now = time(NULL);
	const char *role = jwt_get_grant(jwt, "role");
	long		expires = jwt_get_grant_int(jwt, "exp");
	long		from = jwt_get_grant_int(jwt, "nbf");

	if (jwt_get_alg(jwt) != algorithm)
		return "The token is signed in another way.";
	if (expires <= 0)
		return "The token has no claim exp.";
	if (expires <= now)
		return "The token has expired.";
	if (from > now)
		return "The token is not valid yet.";
	if (!audience_is_right(jwt))
		return "The token is for another audience.";
	if (role == NULL || *role == '\0' || strcmp(role, "none") == 0) /* to SET ROLE, none is who logs in */
		return "The token has no claim role.";
	r->role = copy(role);
	r->expires = expires;
	return NULL;
}

static bool
read_token(Request *r, const char *token)
{
	jwt_t	   *jwt = NULL;
	const char *fault = "The token cannot be read, or its signature is wrong.";

	if (jwt_decode(&jwt, token, key, (int) key_size) == 0)
		fault = fault_of(jwt, r);
	jwt_free(jwt);
	return fault == NULL || refuse(r, 401, "Who are you?", fault);
}

/* false: its answer says why not */
bool
guard_identifies(Request *r)
{
	const char *authorization = request_header(r, "authorization");

	if (authorization && key && strncasecmp(authorization, "Bearer ", 7) == 0)
		return read_token(r, authorization + 7 + strspn(authorization + 7, " "));
	if (authorization)
		return refuse(r, 401, "Who are you?", key ? "It must be Authorization: Bearer, and a token." : "This server has no tokens.");
	if (key && !*options.role)
		return refuse(r, 401, "Who are you?", "A token is needed.");
	if (*options.role)
		r->role = copy(options.role);
	return true;
}

/* ---- where it comes from ---- */

static size_t
length_of_name(const char *host)
{
	return *host == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":");
}

static bool
is_listed(const char *list, const char *name, size_t length)
{
	for (const char *p = list; *p; p += strcspn(p, ","), p += *p == ',')
	{
		p += strspn(p, " ");
		if (strcspn(p, ", ") == length && strncasecmp(p, name, length) == 0)
			return true;
	}
	return false;
}

static bool
host_is_ours(Request *r)
{
	const char *host = request_header(r, "host");

	if (key)
		return true;
	if (host == NULL)			/* HTTP/1.0: no browser */
		return true;
	return is_listed("localhost,127.0.0.1,[::1]", host, length_of_name(host)) ||
		is_listed(options.host, host, length_of_name(host));
}

static bool
origin_is_ours(Request *r)
{
	const char *origin = request_header(r, "origin");
	const char *site = request_header(r, "sec-fetch-site");
	const char *host = request_header(r, "host");
	const char *name = origin ? strstr(origin, "://") : NULL;

	if (site && strcasecmp(site, "same-origin") != 0 && strcasecmp(site, "none") != 0)
		return false;
	return origin == NULL || (name && host && strcasecmp(name + 3, host) == 0);
}

static bool
is_json(const char *type)
{
	return type && strncasecmp(type, "application/json", 16) == 0 && strchr("; \t", type[16]);
}

static bool
is_readable(const Request *r)
{
	for (const char *p = r->target; *p; p++)
		if ((unsigned char) *p <= ' ' || (unsigned char) *p > '~')
			return false;
	return r->length == 0 || memchr(r->body, '\0', r->length) == NULL;
}

/* false: its answer says why not */
bool
guard_admits(Request *r)
{
	bool		reads = strcmp(r->method, "GET") == 0 || strcmp(r->method, "HEAD") == 0;

	if (!is_readable(r))
		return refuse(r, 400, "The request cannot be read", "The address is in the encoding of URLs, and the body is text.");
	if (!host_is_ours(r))
		return refuse(r, 421, "This is not that host", "See the option host.");
	if (!reads && !origin_is_ours(r))
		return refuse(r, 403, "Not allowed", "It comes from a page of another origin.");
	if ((strcmp(r->method, "POST") == 0 || r->length > 0) && !reads && !is_json(request_header(r, "content-type")))
		return refuse(r, 415, "The body is of another type", "It must be application/json.");
	return true;
}
