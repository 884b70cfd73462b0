#include "base/error.h"

#include "base/log.h"

int error_note(int r, const char *kind, const char *function, const char *file, int line)
{
	if (r < 0)
		log_debug("error %s errno=%d where=%s:%d in=%s", kind, -r, file, line, function);
	return r;
}
