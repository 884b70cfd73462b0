#pragma once

/* A control region in memory for tests: real file, real mapping, the caller's time. */

#include <sys/mman.h>
#include <unistd.h>
#include "base/str.h"
#include "shm/bucket.h"
#include "shm/region.h"
#include "tests/unit/cmocka-all.h"

#define FIXTURE_NOW (UINT64_C(1000) * 1000000000)
#define FIXTURE_SECOND UINT64_C(1000000000)

static const struct region_owner fixture_owner = { .pid = 4711, .start = 99, .boot_id = { 1, 2 } };

struct fixture {
	int fd;
	struct region r;
};

/* What the region's own clock says: nothing later than the caller's now, unless a test sets it. */
static uint64_t fixture_clock_ns;

static inline uint64_t fixture_clock(void)
{
	return fixture_clock_ns;
}

static inline struct fixture fixture_open(bool conservative)
{
	struct fixture f = { .fd = memfd_create("region", MFD_CLOEXEC) };

	assert_true(f.fd >= 0);
	assert_int_equal(region_create(&f.r, f.fd, &fixture_owner, FIXTURE_NOW, conservative), 0);
	fixture_clock_ns = 0;
	f.r.clock_ns = fixture_clock;
	return f;
}

static inline void fixture_close(struct fixture *f)
{
	region_detach(&f->r);
	close(f->fd);
}

/* units per second, at FIXTURE_NOW. */
static inline uint32_t fixture_limit(struct fixture *f, enum bucket_scope scope, const char *name,
	uint64_t per_second, uint64_t burst)
{
	struct bucket_limit limit = { scope, str_of(name), per_second, FIXTURE_SECOND, burst };
	int row = bucket_configure(&f->r, &limit, FIXTURE_NOW);

	assert_true(row >= 0);
	return (uint32_t)row;
}

static inline void fixture_add(
	struct bucket_set *set, const struct fixture *f, enum bucket_scope scope, const char *name)
{
	assert_true(bucket_set_add(set, &f->r, scope, str_of(name)));
}

static inline struct bucket_set fixture_set(const struct fixture *f, const char *name)
{
	struct bucket_set set = { 0 };

	fixture_add(&set, f, BUCKET_SCOPE_USER, name);
	return set;
}
