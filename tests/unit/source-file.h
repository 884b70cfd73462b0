#pragma once

/* Files of the source tree, for tests that hold documents to what the code says. */

#include <stdio.h>
#include <stdlib.h>

/* The whole file, NUL-terminated; the caller frees it. NULL when it cannot be read. */
static inline char *source_file_read(const char *path)
{
	const char *root = getenv("PROJECT_SOURCE");
	char name[4096], *text = NULL;
	size_t capacity = 1u << 20, length;
	FILE *file;

	snprintf(name, sizeof(name), "%s/%s", root ? root : ".", path);
	file = fopen(name, "re");
	if (!file)
		return NULL;
	text = malloc(capacity);
	length = text ? fread(text, 1, capacity - 1, file) : 0;
	if (text)
		text[length] = '\0';
	fclose(file);
	return text;
}
