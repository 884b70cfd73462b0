#pragma once

/* What tests of the library share: a small daemon and the library opened on it, one of each per
 * program. A test's own start() makes the daemon's limits and targets, stop() ends both. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/aux.h"
#include "base/clock.h"
#include "tests/unit/mini-daemon.h"
#include "tests/unit/cmocka-all.h"

/* Bounds against hanging. */
#define WAIT_MS 30000
#define WAIT_NS (WAIT_MS * NSEC_PER_MSEC)
#define DAY_NS (86400 * NSEC_PER_SEC)
#define PARTICIPANT (&(struct mini_script){ .role = MSG_ROLE_PARTICIPANT })
#define COST(...) (&(struct llmkit_cost){ .size = sizeof(struct llmkit_cost), __VA_ARGS__ })

/* In children cmocka's assertions would run the parent's teardown: they report by exit status. */
#define child_check(x_) \
	do { \
		if (!(x_)) { \
			fprintf(stderr, "child: %s:%d: %s\n", __FILE__, __LINE__, #x_); \
			_exit(1); \
		} \
	} while (0)

static struct mini mini;
static llmkit *kit;

static inline int stop(void **state)
{
	(void)state;
	llmkit_close(kit);
	kit = NULL;
	mini_deinit(&mini);
	return 0;
}

static inline int open_limits(
	const char *provider, const char *model, const char *user, llmkit_limits **out)
{
	const struct llmkit_scope scope = {
		.size = sizeof(scope), .provider = provider, .model = model, .user = user
	};

	return llmkit_limits_open(kit, &scope, out);
}

/* The handle, which is of so many limits. */
static inline llmkit_limits *limits_of(
	const char *provider, const char *model, const char *user, unsigned count)
{
	llmkit_limits *limits = NULL;

	assert_int_equal(open_limits(provider, model, user, &limits), 0);
	assert_int_equal(llmkit_limits_count(limits), count);
	return limits;
}
