#pragma once

/* What tests of the control region share: a folder of its own, a loop, and a configuration of one
 * limit: the provider p, 1 request an hour, burst 10. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <linux/magic.h>
#include <sys/vfs.h>
#include "base/clock.h"
#include "base/paths.h"
#include "daemon/control.h"
#include "shm/bucket.h"
#include "tests/unit/cmocka-all.h"

struct fixture {
	struct loop *loop;
	char folder[64], socket[96], region[96], target[PATHS_MAX];
	struct control *control;
};

static struct config_limit limits[] = {
	{
		.scope = BUCKET_SCOPE_PROVIDER,
		.name = (char *)"p",
		.limit = 1,
		.window_ns = 3600 * NSEC_PER_SEC,
		.burst = 10,
	},
};
static const struct config config = { .limits = limits, .limit_count = 1 };

static inline int setup_in(void **state, const char *parent)
{
	struct fixture *f = calloc(1, sizeof(*f));

	if (!f || loop_new(&f->loop, NULL) < 0)
		return -1;
	snprintf(f->folder, sizeof(f->folder), "%s/llmkit-control-XXXXXX", parent);
	if (!mkdtemp(f->folder))
		return -1;
	snprintf(f->socket, sizeof(f->socket), "%s/d.sock", f->folder);
	snprintf(f->region, sizeof(f->region), "%s/d.control", f->folder);
	*state = f;
	return 0;
}

static inline int setup(void **state)
{
	return setup_in(state, "/dev/shm");
}

/* A folder that is not tmpfs; NULL state: there is none. */
static inline int setup_disk(void **state)
{
	struct statfs s;

	if (statfs("/var/tmp", &s) < 0 || s.f_type == TMPFS_MAGIC)
		return 0;
	return setup_in(state, "/var/tmp");
}

static inline int teardown(void **state)
{
	struct fixture *f = *state;
	char path[128];
	static const char *const names[] = { "d.control", "d.control.new", "d.control.unusable",
		"d.control.lock" };

	if (!f)
		return 0;
	control_free(f->control);
	loop_free(f->loop);
	if (f->target[0])
		unlink(f->target);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(path, sizeof(path), "%s/%s", f->folder, names[i]);
		unlink(path);
	}
	rmdir(f->folder);
	free(f);
	return 0;
}

static inline int open_control(struct fixture *f)
{
	return control_new(&f->control, f->loop, f->socket, f->folder, NULL);
}

static inline struct region *start(struct fixture *f)
{
	assert_int_equal(open_control(f), 0);
	assert_int_equal(control_configure(f->control, &config, NULL), 0);
	return control_region(f->control);
}

static inline void stop(struct fixture *f)
{
	f->control = control_free(f->control);
}

static inline void take(const struct region *r, uint64_t n)
{
	struct bucket_set set = { 0 };

	assert_true(bucket_set_add(&set, r, BUCKET_SCOPE_PROVIDER, BUCKET_REQUESTS, str_of("p")));
	assert_int_equal(bucket_acquire(r, &set, n, clock_boottime_ns()).outcome, BUCKET_OK);
}

static inline uint64_t left(const struct region *r)
{
	struct bucket_view v;

	for (uint32_t i = 0; i < r->buckets; i++)
		if (bucket_view(r, i, clock_boottime_ns(), &v))
			return v.available;
	return UINT64_MAX;
}
