#pragma once

/* Where llmkit top reads: the region's file, looked at again each time, because a daemon may
 * have put a new one in its place. One owner, one thread. */

#include <stdbool.h>
#include "base/paths.h"
#include "tools/command.h"

struct top_source {
	struct region region;
	struct command_file file;
	char path[PATHS_MAX];
	char trouble[PATHS_MAX + 128]; /* why the file of that name cannot be read now; "" */
};

/* What fails is told. A code of tools/command.h. */
int top_source_open(struct top_source *s, const char *region, const char *socket);
void top_source_close(struct top_source *s);
/* Whether another region was taken, because the file is another one. One that is gone or cannot
 * be read leaves what there is, which stays readable, and says so in trouble. */
bool top_source_follow(struct top_source *s);
