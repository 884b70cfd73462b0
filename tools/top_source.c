#include "tools/top_source.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include "base/aux.h"

int top_source_open(struct top_source *s, const char *region, const char *socket)
{
	int code;

	*s = (struct top_source){ .region = REGION_NULL };
	code = command_region_path(region, socket, s->path, sizeof(s->path), "top");
	if (code != COMMAND_OK)
		return code;
	code = command_map(&s->region, s->path, &s->file, s->trouble, sizeof(s->trouble));
	if (code != COMMAND_OK)
		fprintf(stderr, "llmkit top: %s\n", s->trouble);
	return code;
}

void top_source_close(struct top_source *s)
{
	region_detach(&s->region);
}

bool top_source_follow(struct top_source *s)
{
	struct region fresh = REGION_NULL;
	struct command_file file;
	struct stat status;

	s->trouble[0] = '\0';
	if (stat(s->path, &status) < 0) {
		snprintf(s->trouble, sizeof(s->trouble), "the region's file is gone: %s",
			strerror(errno));
		return false;
	}
	if (status.st_dev == s->file.device && status.st_ino == s->file.inode)
		return false;
	if (command_map(&fresh, s->path, &file, s->trouble, sizeof(s->trouble)) != COMMAND_OK)
		return false;
	region_detach(&s->region);
	s->region = fresh;
	s->file = file;
	return true;
}
