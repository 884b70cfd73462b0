#pragma once

/* A control region in memory for tests: real file, real mapping, the caller's time. */

#include <sys/mman.h>
#include <unistd.h>
#include "base/str.h"
#include "shm/bucket_table.h"
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

static inline struct fixture fixture_open_sized(const struct region_sizes *sizes, bool conservative)
{
	struct fixture f = { .fd = memfd_create("region", MFD_CLOEXEC) };

	assert_true(f.fd >= 0);
	assert_int_equal(
		region_create(&f.r, f.fd, &fixture_owner, sizes, FIXTURE_NOW, conservative), 0);
	fixture_clock_ns = 0;
	f.r.clock_ns = fixture_clock;
	return f;
}

static inline struct fixture fixture_open(bool conservative)
{
	return fixture_open_sized(NULL, conservative);
}

static inline void fixture_close(struct fixture *f)
{
	region_detach(&f->r);
	close(f->fd);
}

/* Requests per second. */
static inline struct bucket_limit fixture_requests(
	uint64_t scope, struct str name, uint64_t per_second, uint64_t burst)
{
	return (struct bucket_limit){
		.scope = scope,
		.resource = BUCKET_REQUESTS,
		.kind = BUCKET_RATE,
		.name = name,
		.limit = per_second,
		.window_ns = FIXTURE_SECOND,
		.burst = burst,
	};
}

static inline uint32_t fixture_configure(struct fixture *f, const struct bucket_limit *limit)
{
	int row = bucket_configure(&f->r, limit, FIXTURE_NOW);

	assert_true(row >= 0);
	return (uint32_t)row;
}

/* Requests per second, at FIXTURE_NOW. */
static inline uint32_t fixture_limit(
	struct fixture *f, uint64_t scope, const char *name, uint64_t per_second, uint64_t burst)
{
	struct bucket_limit limit = fixture_requests(scope, str_of(name), per_second, burst);

	return fixture_configure(f, &limit);
}

/* Of any resource, in its usual kind: per second, at most limit at a time, or a day's. */
static inline uint32_t fixture_limit_of(struct fixture *f, uint64_t scope,
	enum bucket_resource resource, const char *name, uint64_t per_second, uint64_t burst)
{
	struct bucket_limit limit = fixture_requests(scope, str_of(name), per_second, burst);

	limit.resource = resource;
	limit.kind = bucket_kind_of(resource, false);
	if (limit.kind == BUCKET_GAUGE)
		limit.window_ns = 0;
	if (limit.kind == BUCKET_WINDOW)
		limit.window_ns = 86400 * FIXTURE_SECOND;
	return fixture_configure(f, &limit);
}

static inline void fixture_add_of(struct bucket_set *set, const struct fixture *f, uint64_t scope,
	enum bucket_resource resource, const char *name)
{
	assert_true(bucket_set_add(set, &f->r, scope, resource, str_of(name)));
}

static inline void fixture_add(
	struct bucket_set *set, const struct fixture *f, uint64_t scope, const char *name)
{
	fixture_add_of(set, f, scope, BUCKET_REQUESTS, name);
}

static inline struct bucket_set fixture_set(const struct fixture *f, const char *name)
{
	struct bucket_set set = { 0 };

	fixture_add(&set, f, BUCKET_SCOPE_USER, name);
	return set;
}
