#include "daemon/config/keys_source.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/aux.h"
#include "base/error.h"

/* As the environment is the process's, so is the memory of what was taken from it: a reload must
 * find the same providers as the start. */
static struct keys_taken {
	struct keys_taken *next;
	char name[];
} * keys_taken;

static bool keys_source_was_taken(const char *name)
{
	for (const struct keys_taken *t = keys_taken; t; t = t->next)
		if (strcmp(t->name, name) == 0)
			return true;
	return false;
}

static int keys_source_remember(const char *name)
{
	size_t length = strlen(name) + 1;
	struct keys_taken *t;

	if (keys_source_was_taken(name))
		return 0;
	t = malloc(sizeof(*t) + length);
	if (!t)
		return error_origin(-ENOMEM);
	memcpy(t->name, name, length);
	t->next = keys_taken;
	keys_taken = t;
	return 0;
}

bool keys_source_env_present(const char *name)
{
	const char *value = getenv(name);

	return (value && *value) || keys_source_was_taken(name);
}

ssize_t keys_source_env_take(const char *name, char *out, size_t size)
{
	char *value = getenv(name);
	size_t length = value ? strlen(value) : 0;
	int r;

	if (length == 0)
		return 0;
	r = keys_source_remember(name);
	if (r < 0)
		return error_trace(r);
	if (length <= size)
		memcpy(out, value, length);
	explicit_bzero(value, length);
	unsetenv(name);
	return length <= size ? (ssize_t)length : -E2BIG;
}

int keys_source_credential(const char *name, char *out, size_t size)
{
	const char *folder = getenv("CREDENTIALS_DIRECTORY");
	int n;

	if (!folder || !*folder)
		return -ENOENT;
	n = snprintf(out, size, "%s/%s", folder, name);
	return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

static void keys_fault_set(struct keys_fault *fault, const char *format, ...) aux_printf(2, 3);

static void keys_fault_set(struct keys_fault *fault, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(fault->text, sizeof(fault->text), format, args);
	va_end(args);
}

/* A key becomes part of a header line, so nothing but visible ASCII may pass. */
static int keys_source_measure(const char *key, size_t n, const char *source, const char *name,
	size_t *length, struct keys_fault *fault)
{
	const char *why = NULL;

	while (n > 0 && (key[n - 1] == '\n' || key[n - 1] == '\r'))
		n--;
	if (n == 0)
		why = "it is empty";
	else if (n > KEYS_LENGTH_MAX)
		why = "it is longer than 4096 characters";
	for (size_t i = 0; i < n && !why; i++)
		if (key[i] <= ' ' || key[i] >= 0x7f)
			why = "it holds a space, a line break or another character that keys do "
			      "not have";
	*length = n;
	if (!why)
		return 0;
	keys_fault_set(fault, "the key in %s %s cannot be used: %s", source, name, why);
	return error_origin(-EINVAL);
}

ssize_t keys_source_accept(
	char *key, size_t n, const char *source, const char *name, struct keys_fault *fault)
{
	size_t length;
	int r = keys_source_measure(key, n, source, name, &length, fault);

	if (r < 0)
		length = 0;
	explicit_bzero(key + length, n - length);
	return r < 0 ? error_trace(r) : (ssize_t)length;
}

/* Whether nobody else can read the file. systemd gives a service its credentials by an ACL,
 * which shows as group bits: there, others alone count. */
static int keys_source_check_file(
	int fd, const char *path, bool credential, struct keys_fault *fault)
{
	mode_t forbidden = credential ? 07 : 077;
	struct stat st;

	if (fstat(fd, &st) < 0) {
		keys_fault_set(fault, "%s cannot be read: %s", path, strerror(errno));
		return error_origin(-errno);
	}
	if (!S_ISREG(st.st_mode)) {
		keys_fault_set(fault, "%s is not a regular file", path);
		return error_origin(-EINVAL);
	}
	if (st.st_uid != geteuid() && st.st_uid != 0) {
		keys_fault_set(fault,
			"%s belongs to user %u: give it to user %u or to root (chown)", path,
			(unsigned)st.st_uid, (unsigned)geteuid());
		return error_origin(-EACCES);
	}
	if (st.st_mode & forbidden) {
		keys_fault_set(fault,
			"%s can be read by others (mode %04o): chmod 600 %s, and replace the key "
			"if others had it",
			path, (unsigned)st.st_mode & 07777, path);
		return error_origin(-EACCES);
	}
	return 0;
}

static ssize_t keys_source_read_fd(int fd, char *out)
{
	size_t n = 0;
	ssize_t got;

	do {
		got = read(fd, out + n, KEYS_ROOM - n);
		if (got < 0 && errno != EINTR)
			return -errno;
		n += got > 0 ? (size_t)got : 0;
	} while (got != 0 && n < KEYS_ROOM);
	return (ssize_t)n;
}

ssize_t keys_source_file(const char *path, bool credential, char *out, struct keys_fault *fault)
{
	int fd aux_cleanup(closep) = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	ssize_t n;
	int r;

	if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
		return 0;
	if (fd < 0) {
		r = -errno;
		keys_fault_set(fault, "%s cannot be opened: %s", path, strerror(-r));
		return error_origin(r);
	}
	r = keys_source_check_file(fd, path, credential, fault);
	if (r < 0)
		return error_trace(r);
	n = keys_source_read_fd(fd, out);
	if (n < 0) {
		explicit_bzero(out, KEYS_ROOM);
		keys_fault_set(fault, "%s cannot be read: %s", path, strerror((int)-n));
		return error_origin((int)n);
	}
	return error_trace((int)keys_source_accept(out, (size_t)n, "file", path, fault));
}

int keys_source_probe_file(const char *path, bool credential, struct keys_fault *fault)
{
	char key[KEYS_ROOM];
	ssize_t length = keys_source_file(path, credential, key, fault);

	if (length > 0)
		explicit_bzero(key, (size_t)length);
	return length < 0 ? error_trace((int)length) : 0;
}

int keys_source_probe_env(const char *name, struct keys_fault *fault)
{
	const char *value = getenv(name);
	size_t length;

	if (!value || !*value)
		return 0;
	return error_trace(
		keys_source_measure(value, strlen(value), "variable", name, &length, fault));
}
