/*
 * page.c
 *	  The files of console/, put into the program when it is built, by
 *	  script/embed. console/index.html is /, the others have their own names.
 *
 * They are the same for everybody and need no token.
 */
#include <string.h>

#include "gateway.h"

typedef struct Page
{
	const char *path;
	const char *type;
	const char *tag;			/* ETag */
	const unsigned char *text;
	size_t		length;
} Page;

#include "page_files.h"			/* static const Page pages[]; ends with an empty path */

bool
page_serves(Request *r)
{
	const char *known = request_header(r, "if-none-match");
	size_t		length = strcspn(r->target, "?");

	if (strcmp(r->method, "GET") != 0 && strcmp(r->method, "HEAD") != 0)
		return false;
	for (const Page *p = pages; p->path; p++)
	{
		if (strlen(p->path) != length || strncmp(p->path, r->target, length) != 0)
			continue;
		r->is_page = true;
		r->answer.status = known && strstr(known, p->tag) ? 304 : 200;
		r->answer.body = (char *) p->text;
		r->answer.length = r->answer.status == 304 ? 0 : p->length;
		r->answer.headers = json_pack("{s:s, s:s, s:s}", "Content-Type", p->type, "ETag", p->tag, "Cache-Control", "no-cache");
		return true;
	}
	return false;
}
