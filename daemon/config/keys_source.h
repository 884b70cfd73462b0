#pragma once

/*
 * Where keys come from: environment variables, which are taken once, files, and systemd
 * credentials; and what a key may be. Keeps no key. Main thread only, at start and reload, before
 * anything else reads the environment.
 */

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include "base/paths.h"

#define KEYS_LENGTH_MAX 4096
/* A byte more than a key may have shows that one is too long; a few more take a line ending. */
#define KEYS_ROOM (KEYS_LENGTH_MAX + 4)

/* What is wrong with a source and what to do; never the key. */
struct keys_fault {
	char text[2 * PATHS_MAX + 256];
};

/* Whether the variable holds a key, or held one that was taken. */
bool keys_source_env_present(const char *name);

/* Copies the value to out, overwrites it in place (/proc/PID/environ shows that memory) and removes
 * the variable. Its length; 0 when it is not set or empty; -E2BIG above size: removed all the
 * same; -ENOMEM. */
ssize_t keys_source_env_take(const char *name, char *out, size_t size);

/* $CREDENTIALS_DIRECTORY/NAME. -ENOENT: the variable is not set; -ENAMETOOLONG. */
int keys_source_credential(const char *name, char *out, size_t size);

/* The length of the key in n bytes, without its line ending; what follows is wiped. -EINVAL and
 * *fault when the bytes are no key: all are wiped. source and name say where they are from. */
ssize_t keys_source_accept(
	char *key, size_t n, const char *source, const char *name, struct keys_fault *fault);

/* Reads the key in a file to out, which has KEYS_ROOM bytes. Its length; 0: there is no such file;
 * or with *fault -EACCES when others can read it, -EINVAL when it holds no key, -errno. */
ssize_t keys_source_file(const char *path, bool credential, char *out, struct keys_fault *fault);

/* Whether what is there can be used, without taking it. 0, also when there is nothing, or -errno
 * and *fault. */
int keys_source_probe_file(const char *path, bool credential, struct keys_fault *fault);
int keys_source_probe_env(const char *name, struct keys_fault *fault);
