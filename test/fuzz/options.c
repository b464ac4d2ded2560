/*
 * options.c
 *	  The options of the gateway under libFuzzer: an input is a file of
 *	  options; the sample is there to begin with.
 *
 * A file with a mistake ends the program; here it ends the input.
 */
#include <assert.h>
#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>

#include "../../src/gateway/option.c"

static jmp_buf mistake;
static char *text;			/* outlives the jump */

void
fail(const char *format, ...)
{
	char		said[200];
	va_list		arguments;

	va_start(arguments, format);
	assert(vsnprintf(said, sizeof(said), format, arguments) > 0);
	va_end(arguments);
	longjmp(mistake, 1);
}

char *
copy(const char *t)
{
	return strdup(t);
}

/* for --help */
char *
print(const char *format, ...)
{
	return copy(format);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char	   *nothing[] = {"options", NULL};
	char	   *rest;
	char	   *line;

	text = calloc(1, size + 1);
	memcpy(text, data, size);
	rest = text;
	read_options(1, nothing);	/* the defaults */
	if (setjmp(mistake) == 0)
		for (int number = 1; (line = strsep(&rest, "\n")) != NULL; number++)
			read_line(line, "options", number);
	for (const Option *o = table; o < table + OPTIONS; o++)
		assert(o->kind != NUMBER || (*(int *) o->value >= o->least && *(int *) o->value <= o->most));
	free(text);
	return 0;
}
