#include "base/paths.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int paths_format(char *out, size_t size, const char *head, const char *tail)
{
	int n = snprintf(out, size, "%s%s", head, tail);

	return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

static const char *paths_env(const char *name)
{
	const char *value = getenv(name);

	return value && *value ? value : NULL;
}

int paths_socket(const char *explicit_path, char *out, size_t size)
{
	const char *runtime = paths_env("XDG_RUNTIME_DIR");

	if (explicit_path)
		return paths_format(out, size, explicit_path, "");
	if (paths_env("LLMKIT_SOCKET"))
		return paths_format(out, size, paths_env("LLMKIT_SOCKET"), "");
	if (runtime)
		return paths_format(out, size, runtime, "/llmkit/llmkit.sock");
	return paths_format(out, size, "/run/llmkit/llmkit.sock", "");
}

int paths_region(const char *socket, char *out, size_t size)
{
	size_t length = strlen(socket);

	if (length > 5 && strcmp(socket + length - 5, ".sock") == 0)
		length -= 5;
	if (length >= size)
		return -ENAMETOOLONG;
	memcpy(out, socket, length);
	return paths_format(out + length, size - length, ".control", "");
}
