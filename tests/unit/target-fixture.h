#pragma once

/* What tests of targets share: two providers of the model "m", the routes "fast" and "both" over
 * them, and the library opened on them. */

#include "shm/target.h"
#include "tests/unit/mini-fixture.h"

#define OUTCOME(...) \
	(&(struct llmkit_outcome){ .size = sizeof(struct llmkit_outcome), __VA_ARGS__ })
#define QUERY(...) (&(struct llmkit_query){ .size = sizeof(struct llmkit_query), __VA_ARGS__ })

/* Rows of cheap/m, dear/m and dear/other. */
static uint32_t cheap, dear, other;

static inline int start(void **state)
{
	static const char *const names[] = { "dear/m", "cheap/m", NULL };

	(void)state;
	mini_init(&mini);
	cheap = mini_target(&mini, "cheap/m", 1000000, 2000000);
	dear = mini_target(&mini, "dear/m", 10000000, 20000000);
	other = mini_target(&mini, "dear/other", -1, -1);
	mini_route(&mini, "fast", ROUTER_ORDER, names);
	mini_route(&mini, "both", ROUTER_BALANCED, names);
	mini_start(&mini, PARTICIPANT);
	return mini_open(&mini, &kit);
}

static inline llmkit_targets *targets_of(const char *name)
{
	llmkit_targets *targets = NULL;

	assert_int_equal(llmkit_targets_open(kit, name, NULL, &targets), 0);
	return targets;
}

/* The choice for a provider in a decision. */
static inline const struct llmkit_choice *choice_of(
	const struct llmkit_decision *d, const char *provider)
{
	for (unsigned i = 0; i < d->count; i++)
		if (strcmp(d->choice[i].provider, provider) == 0)
			return &d->choice[i];
	fail_msg("%s is not among the choices", provider);
	return NULL;
}

/* The number of a provider's target. */
static inline unsigned target_of(llmkit_targets *targets, const char *provider)
{
	struct llmkit_decision d = { 0 };

	llmkit_route(targets, NULL, &d);
	return choice_of(&d, provider)->target;
}

static inline void fail_until_open(
	llmkit_targets *targets, unsigned target, struct llmkit_outcome *outcome)
{
	struct llmkit_health h = { .state = "" };

	for (int i = 0; i < 1000 && strcmp(h.state, "open") != 0; i++) {
		llmkit_ticket ticket = { 0 };

		assert_int_equal(llmkit_allow(targets, target, &ticket, NULL), 0);
		assert_int_equal(llmkit_report(&ticket, outcome), 0);
		assert_int_equal(llmkit_health(targets, target, &h), 0);
	}
	assert_string_equal(h.state, "open");
}
