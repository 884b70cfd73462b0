#pragma once

/* Configurations written by a test, in a folder of its own and an environment without a key. */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include "base/paths.h"
#include "daemon/config/config.h"
#include "daemon/config/config_check.h"
#include "daemon/config/config_units.h"
#include "tests/unit/cmocka-all.h"

/* Two providers whose keys have labels; the second charges at submission. */
#define TWO_PROVIDERS \
	"providers: [{name: a, family: openai, key: {env: KEY_A}}, {name: b, family: openai, " \
	"key: {credential: cb}, tokens: reserve}]\n"

/* Everything in the environment that configuration looks at. */
static const char *const variables[] = {
	"LLMKIT_CONFIG",
	"LLMKIT_SOCKET",
	"XDG_CONFIG_HOME",
	"XDG_RUNTIME_DIR",
	"HOME",
	"OPENAI_BASE_URL",
	"ANTHROPIC_BASE_URL",
	"CREDENTIALS_DIRECTORY",
};

struct fixture {
	char folder[64], path[96];
	struct buffer error;
	struct config *c;
};

static inline int fixture_new(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	size_t count;
	const struct family *families = family_table(&count);

	assert_non_null(f);
	for (size_t i = 0; i < ARRAY_SIZE(variables); i++)
		unsetenv(variables[i]);
	for (size_t i = 0; i < count; i++)
		if (families[i].key_env)
			unsetenv(families[i].key_env);
	snprintf(f->folder, sizeof(f->folder), "/tmp/test-config-XXXXXX");
	assert_non_null(mkdtemp(f->folder));
	snprintf(f->path, sizeof(f->path), "%s/c.yaml", f->folder);
	*state = f;
	return 0;
}

static inline int fixture_free(void **state)
{
	struct fixture *f = *state;

	unlink(f->path);
	rmdir(f->folder);
	config_free(f->c);
	buffer_deinit(&f->error);
	free(f);
	return 0;
}

static inline void put_file(const char *path, const void *data, size_t length)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, length), length);
	close(fd);
}

/* Loads text as a file. */
static inline int load_bytes(struct fixture *f, const void *data, size_t length)
{
	put_file(f->path, data, length);
	buffer_reset(&f->error, 0);
	f->c = config_free(f->c);
	return config_load(&f->c, f->path, &f->error);
}

static inline int load(struct fixture *f, const char *text)
{
	int r = load_bytes(f, text, strlen(text));

	buffer_append(&f->error, "", 1);
	return r;
}

static inline const char *error_text(const struct fixture *f)
{
	return f->error.data ? buffer_head(&f->error) : "";
}

static inline void load_good(struct fixture *f, const char *text)
{
	int r = load(f, text);

	if (r)
		fail_msg("%d for:\n%s\n%s", r, text, error_text(f));
}

static inline bool has(const char *family)
{
	return family_find(str_of(family));
}

static inline void load_example(struct fixture *f)
{
	char path[PATHS_MAX];
	int r;

	snprintf(path, sizeof(path), "%s/examples/llmkitd.yaml", getenv("PROJECT_SOURCE"));
	r = config_load(&f->c, path, &f->error);
	buffer_append(&f->error, "", 1);
	if (r)
		fail_msg("%d: %s", r, error_text(f));
}

/* What config_print() writes, loaded and printed again, is the same but for the first line: it
 * names the file. */
static inline void round_trip(struct fixture *f)
{
	struct buffer first = BUFFER_NULL, second = BUFFER_NULL;
	const char *a, *b;
	char *copy;

	assert_int_equal(config_print(f->c, &first), 0);
	copy = strndup(buffer_head(&first), buffer_length(&first));
	load_good(f, copy);
	assert_int_equal(config_print(f->c, &second), 0);
	assert_int_equal(buffer_append(&second, "", 1), 0);
	a = strchr(copy, '\n');
	b = strchr(buffer_head(&second), '\n');
	assert_non_null(a);
	assert_string_equal(a, b);
	assert_null(strstr(copy, "canary"));
	free(copy);
	buffer_deinit(&first);
	buffer_deinit(&second);
}
