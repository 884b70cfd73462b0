/* A configuration put in force: limits, targets, routes, breakers, reloads; an operator's commands.
 */

#include <errno.h>
#include "shm/breaker.h"
#include "shm/bucket_table.h"
#include "shm/hold.h"
#include "shm/router.h"
#include "shm/target.h"
#include "tests/unit/control-fixture.h"

/* ---- limits ---- */

static void limits_follow_the_configuration(void **state)
{
	static const struct config none = { 0 };
	struct fixture *f = *state;
	struct region *r = start(f);

	take(r, 1);
	assert_int_equal(left(r), 9);
	assert_int_equal(control_configure(f->control, &none, NULL), 0);
	assert_int_equal(left(r), UINT64_MAX);
	/* What comes back still owes. */
	assert_int_equal(control_configure(f->control, &config, NULL), 0);
	assert_int_equal(left(r), 9);
}

/* Every row in use, then every limit another one: none may be lost, none may be left. */
static void a_full_table_can_be_replaced(void **state)
{
	struct fixture *f = *state;
	const struct region *r = start(f);
	const unsigned count = r->buckets;
	struct config_limit *many = calloc(count + 1, sizeof(*many));
	char(*names)[16] = calloc(count + 1, sizeof(*names));
	struct config full = { .limits = many, .limit_count = count };

	assert_non_null(many);
	assert_non_null(names);
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i <= count; i++) {
			struct bucket_set set = { 0 };

			snprintf(names[i], sizeof(names[i]), "%u-%u", round, i);
			many[i] = limits[0];
			many[i].name = names[i];
			assert_false(bucket_set_add(
				&set, r, BUCKET_SCOPE_PROVIDER, BUCKET_REQUESTS, str_of(names[i])));
		}
		assert_int_equal(control_configure(f->control, &full, NULL), 0);
		for (unsigned i = 0; i < count; i++) {
			struct bucket_set set = { 0 };

			assert_true(bucket_set_add(
				&set, r, BUCKET_SCOPE_PROVIDER, BUCKET_REQUESTS, str_of(names[i])));
		}
	}
	/* One too many changes nothing. */
	full.limit_count = count + 1;
	many[0].name = (char *)"other";
	assert_int_equal(control_configure(f->control, &full, NULL), -ENOSPC);
	assert_true(bucket_set_add(&(struct bucket_set){ 0 }, r, BUCKET_SCOPE_PROVIDER,
		BUCKET_REQUESTS, str_of(names[0])));
	free(many);
	free(names);
}

static void a_limit_out_of_range_changes_nothing(void **state)
{
	struct fixture *f = *state;
	const struct region *r = start(f);
	struct config_limit bad[] = {
		{ .scope = BUCKET_SCOPE_USER,
			.name = (char *)"new",
			.limit = 1,
			.window_ns = NSEC_PER_SEC,
			.burst = 1 },
		{ .scope = BUCKET_SCOPE_USER,
			.name = (char *)"huge",
			.limit = 1,
			.window_ns = 86400 * NSEC_PER_SEC,
			.burst = 1000000000000 },
	};
	const struct config config_bad = { .limits = bad, .limit_count = 2 };

	assert_int_equal(control_configure(f->control, &config_bad, NULL), -ERANGE);
	assert_false(bucket_set_add(
		&(struct bucket_set){ 0 }, r, BUCKET_SCOPE_USER, BUCKET_REQUESTS, str_of("new")));
	assert_true(bucket_set_add(
		&(struct bucket_set){ 0 }, r, BUCKET_SCOPE_PROVIDER, BUCKET_REQUESTS, str_of("p")));
}

/* ---- targets, routes, an operator ---- */

static struct family some_family = { .name = "openai" };
static struct config_provider providers[] = {
	{ .name = (char *)"p", .family = &some_family },
	{ .name = (char *)"q", .family = &some_family },
};
static struct config_model models[] = {
	{ .name = (char *)"m",
		.provider = 0,
		.upstream = (char *)"m",
		.price = { 5, 6, 7 },
		.context = 1000,
		.capabilities = TARGET_TOOLS },
};
static struct config_target route_targets[] = {
	{ .provider = 0, .model = (char *)"m", .weight = 1 },
	{ .provider = 1, .model = (char *)"other", .weight = 3 },
};
static struct config_route routes[] = {
	{ .name = (char *)"r",
		.targets = route_targets,
		.target_count = 2,
		.strategy = ROUTER_WEIGHTED },
};
static const struct config routed = {
	.providers = providers,
	.provider_count = 2,
	.models = models,
	.model_count = 1,
	.routes = routes,
	.route_count = 1,
};

static void targets_and_routes_follow_the_configuration(void **state)
{
	static const bool usable[] = { true, false };
	static const struct config none = { 0 };
	struct fixture *f = *state;
	struct region *r = start(f);
	struct router_route route;
	struct target_view v;
	_Atomic uint64_t *turn;

	assert_int_equal(control_configure(f->control, &routed, usable), 0);
	assert_true(target_view(r, target_find(r, str_of("p/m"), NULL), &v));
	assert_int_equal(v.price_output, 6);
	assert_int_equal(v.context, 1000);
	assert_int_equal(v.capabilities, TARGET_TOOLS);
	assert_true(v.available);
	assert_int_equal(v.provider, target_find(r, str_of("p"), NULL));
	assert_true(target_view(r, target_find(r, str_of("q/other"), NULL), &v));
	assert_false(v.available);
	assert_true(router_find(r, str_of("r"), &route, &turn));
	assert_int_equal(route.strategy, ROUTER_WEIGHTED);
	assert_int_equal(route.count, 2);
	assert_int_equal(route.target[0].row, target_find(r, str_of("p/m"), NULL));
	assert_int_equal(route.target[1].weight, 3);
	assert_int_equal(control_configure(f->control, &none, NULL), 0);
	assert_int_equal(target_find(r, str_of("p/m"), NULL), TARGET_NONE);
	assert_false(router_find(r, str_of("r"), &route, &turn));
}

static enum status act(struct fixture *f, const char *verb, const char *name)
{
	aux_cleanup(buffer_deinit) struct buffer why = BUFFER_NULL;
	enum status status = control_act(f->control, str_of(verb), str_of(name), &why);

	/* A refusal always says why. */
	assert_int_equal(status != STATUS_OK, buffer_length(&why) > 0);
	return status;
}

static void an_operator_acts_on_breakers_and_limits(void **state)
{
	struct fixture *f = *state;
	struct region *r = start(f);
	uint64_t wait_ns, now_ns = clock_boottime_ns();
	uint32_t row;

	take(r, 10);
	assert_int_equal(act(f, "limit-reset", "provider p requests"), STATUS_OK);
	assert_int_equal(left(r), 10);
	assert_int_equal(act(f, "limit-resume", "provider p requests"), STATUS_OK);
	assert_int_equal(act(f, "limit-reset", "provider p tokens"), STATUS_BAD_REQUEST);
	assert_int_equal(control_configure(f->control, &routed, NULL), 0);
	row = target_find(r, str_of("p/m"), NULL);
	assert_int_equal(act(f, "breaker-open", "p/m"), STATUS_OK);
	assert_int_equal(breaker_check(r, row, now_ns, &wait_ns), BREAKER_REJECT);
	assert_int_equal(act(f, "breaker-close", "p/m"), STATUS_OK);
	assert_int_equal(breaker_check(r, row, now_ns, &wait_ns), BREAKER_PASS);
	assert_int_equal(act(f, "breaker-reset", "p/m"), STATUS_OK);
	assert_int_equal(act(f, "breaker-open", "nobody"), STATUS_UNKNOWN_MODEL);
	assert_int_equal(act(f, "dance", "p/m"), STATUS_BAD_REQUEST);
}

static uint64_t available(
	const struct region *r, uint64_t scope, enum bucket_resource resource, const char *name)
{
	struct bucket_set set = { 0 };
	struct bucket_view v;

	if (!bucket_set_add(&set, r, scope, resource, str_of(name)))
		return UINT64_MAX;
	assert_int_equal(set.count, 1);
	assert_true(bucket_view(r, set.index[0], clock_boottime_ns(), &v));
	return v.available;
}

static void pause_for_a_day(struct region *r, const char *target, const struct bucket_set *set)
{
	uint64_t now_ns = clock_boottime_ns();

	target_pause(r, target_find(r, str_of(target), NULL), now_ns + NSEC_PER_DAY, now_ns);
	for (uint32_t i = 0; set && i < set->count; i++)
		bucket_pause(r, set->index[i], now_ns + NSEC_PER_DAY, now_ns);
}

static bool is_paused(const struct region *r, const char *target)
{
	uint32_t row = target_find(r, str_of(target), NULL);

	assert_int_not_equal(row, TARGET_NONE);
	return target_paused(r, row, clock_boottime_ns()) > 0;
}

/* A 429 pauses the target as well as its limits: what ends the one ends the other. */
static void resuming_a_limit_ends_the_pause_of_its_targets(void **state)
{
	struct config_limit by[] = { limits[0], limits[0], limits[0], limits[0] };
	const char *label[] = { "provider p requests", "model m requests", "key k requests",
		"user+provider u@p requests" };
	struct config_provider keyed[] = { routed.providers[0], routed.providers[1] };
	struct config all = routed;
	struct fixture *f = *state;
	struct region *r = start(f);
	struct bucket_set set = { 0 };

	by[1].scope = BUCKET_SCOPE_MODEL;
	by[1].name = (char *)"m";
	by[2].scope = BUCKET_SCOPE_KEY;
	by[2].name = (char *)"k";
	by[3].scope = BUCKET_SCOPE_USER | BUCKET_SCOPE_PROVIDER;
	by[3].name = (char *)"u\x1fp";
	keyed[0].key.credential = (char *)"k";
	keyed[1].key.credential = (char *)"other";
	all.providers = keyed;
	all.limits = by;
	all.limit_count = ARRAY_SIZE(by);
	assert_int_equal(control_configure(f->control, &all, NULL), 0);
	assert_true(bucket_set_add(&set, r, BUCKET_SCOPE_PROVIDER, BUCKET_REQUESTS, str_of("p")));
	for (size_t i = 0; i < ARRAY_SIZE(by); i++) {
		pause_for_a_day(r, "p/m", &set);
		pause_for_a_day(r, "q/other", NULL);
		assert_int_equal(act(f, "limit-resume", label[i]), STATUS_OK);
		/* No provider knows of users: such a limit is only itself. */
		assert_int_equal(is_paused(r, "p/m"), i == 3);
		assert_true(is_paused(r, "q/other"));
		assert_int_equal(
			available(r, BUCKET_SCOPE_PROVIDER, BUCKET_REQUESTS, "p") > 0, i == 0);
	}
	assert_int_equal(act(f, "breaker-reset", "p/m"), STATUS_OK);
	assert_false(is_paused(r, "p/m"));
	assert_true(is_paused(r, "q/other"));
	pause_for_a_day(r, "p", NULL);
	assert_true(is_paused(r, "p/m"));
	assert_int_equal(act(f, "limit-resume", label[0]), STATUS_OK);
	assert_false(is_paused(r, "p/m"));
}

static void names_get_the_limits_of_templates(void **state)
{
	struct config_limit templates[] = {
		{ .scope = BUCKET_SCOPE_USER, .limit = 1, .window_ns = NSEC_PER_SEC, .burst = 2 },
	};
	const struct config with = { .templates = templates, .template_count = 1 };
	const struct bucket_names names = { .user = str_of("alice") };
	struct fixture *f = *state;
	struct region *r = start(f);
	struct bucket_set set = { 0 };

	assert_int_equal(control_configure(f->control, &with, NULL), 0);
	assert_int_equal(bucket_resolve(r, &names, clock_boottime_ns(), &set), BUCKET_E_MISSING);
	assert_int_equal(control_resolve(f->control, &names), 0);
	assert_int_equal(bucket_resolve(r, &names, clock_boottime_ns(), &set), BUCKET_OK);
	assert_int_equal(set.count, 1);
}

/* ---- reloads ---- */

/* One limit, not two; and what was used stays used. */
static void a_limit_that_counts_in_another_way_replaces_the_old(void **state)
{
	struct config_limit limit = { .scope = BUCKET_SCOPE_PROVIDER,
		.resource = BUCKET_TOKENS,
		.kind = BUCKET_HELD,
		.name = (char *)"p",
		.limit = 1000,
		.window_ns = 86400 * NSEC_PER_SEC,
		.burst = 1000 };
	const struct config one = { .limits = &limit, .limit_count = 1 };
	struct fixture *f = *state;
	struct region *r = start(f);
	struct bucket_set set = { 0 };

	assert_int_equal(control_configure(f->control, &one, NULL), 0);
	assert_true(bucket_set_add(&set, r, BUCKET_SCOPE_PROVIDER, BUCKET_TOKENS, str_of("p")));
	bucket_charge(r, set.index[0], 400, clock_boottime_ns());
	for (int i = 0; i < 3; i++) {
		limit.kind = i % 2 ? BUCKET_HELD : BUCKET_RATE;
		assert_int_equal(control_configure(f->control, &one, NULL), 0);
		assert_in_range(available(r, BUCKET_SCOPE_PROVIDER, BUCKET_TOKENS, "p"), 590, 601);
	}
}

/* The last step is the one that fails: all before it is undone. */
static void a_reload_that_fails_half_way_leaves_what_was_in_force(void **state)
{
	static struct config_limit new_limits[] = {
		{ .scope = BUCKET_SCOPE_USER,
			.name = (char *)"new",
			.limit = 1,
			.window_ns = NSEC_PER_SEC,
			.burst = 1 },
	};
	static struct config_limit templates[] = {
		{ .scope = BUCKET_SCOPE_MODEL, .limit = 1, .window_ns = NSEC_PER_SEC, .burst = 2 },
	};
	char name[200];
	struct config_route route = { .name = name };
	const struct config good = { .limits = limits,
		.limit_count = 1,
		.providers = providers,
		.provider_count = 2,
		.models = models,
		.model_count = 1,
		.routes = routes,
		.route_count = 1 };
	const struct config bad = { .limits = new_limits,
		.limit_count = 1,
		.templates = templates,
		.template_count = 1,
		.providers = providers,
		.provider_count = 1,
		.routes = &route,
		.route_count = 1 };
	const struct bucket_names names = { .model = str_of("m") };
	struct fixture *f = *state;
	struct region *r = start(f);
	struct router_route found;
	struct bucket_set set;
	_Atomic uint64_t *turn;

	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	assert_int_equal(control_configure(f->control, &good, NULL), 0);
	take(r, 4);
	assert_int_equal(control_configure(f->control, &bad, NULL), -ENAMETOOLONG);
	assert_int_equal(available(r, BUCKET_SCOPE_PROVIDER, BUCKET_REQUESTS, "p"), 6);
	assert_int_equal(available(r, BUCKET_SCOPE_USER, BUCKET_REQUESTS, "new"), UINT64_MAX);
	assert_int_equal(bucket_resolve(r, &names, clock_boottime_ns(), &set), BUCKET_OK);
	assert_int_equal(set.count, 0);
	assert_int_not_equal(target_find(r, str_of("q/other"), NULL), TARGET_NONE);
	assert_true(router_find(r, str_of("r"), &found, &turn));
	assert_int_equal(found.count, 2);
}

/* Rows that nobody configured are the first to go. */
static void a_table_full_of_clients_names_takes_a_new_configuration(void **state)
{
	struct fixture *f = *state;
	struct region *r = start(f);
	struct target_config t = { .provider = TARGET_NONE };
	char name[16];
	int row = 0;

	for (int i = 0; row >= 0; i++) {
		snprintf(name, sizeof(name), "x/%d", i);
		t.name = str_of(name);
		row = target_configure(r, &t);
	}
	assert_int_equal(row, -ENOSPC);
	assert_int_equal(control_configure(f->control, &routed, NULL), 0);
	assert_int_not_equal(target_find(r, str_of("p/m"), NULL), TARGET_NONE);
}

static void hear(struct region *r, uint64_t limit)
{
	struct bucket_set set = { 0 };

	assert_true(bucket_set_add(&set, r, BUCKET_SCOPE_PROVIDER, BUCKET_REQUESTS, str_of("p")));
	for (int i = 0; i < 3; i++)
		bucket_hear(r, set.index[0], limit);
}

static uint64_t limit_of(const struct region *r)
{
	struct bucket_view v;

	for (uint32_t i = 0; i < r->buckets; i++)
		if (bucket_view(r, i, clock_boottime_ns(), &v))
			return v.limit;
	return 0;
}

struct wait {
	struct loop_timer timer;
	struct loop *loop;
};

static void on_stop(struct loop_timer *t)
{
	loop_stop(container_of(t, struct wait, timer)->loop);
}

static void run_for(struct fixture *f, uint64_t ns)
{
	struct wait w = { .timer = { .fn = on_stop }, .loop = f->loop };

	assert_int_equal(loop_timer_start(f->loop, &w.timer, loop_now(f->loop) + ns), 0);
	assert_int_equal(loop_run(f->loop), 0);
}

/* Down as the provider says, and up again, but not above what is configured. */
static void a_limit_follows_its_provider_down_and_back(void **state)
{
	struct config_limit limit = limits[0];
	const struct config one = { .limits = &limit, .limit_count = 1 };
	struct fixture *f = *state;
	struct region *r = start(f);

	limit.limit = 10;
	assert_int_equal(control_configure(f->control, &one, NULL), 0);
	hear(r, 4);
	for (int i = 0; i < 500 && limit_of(r) == 10; i++)
		run_for(f, 20 * NSEC_PER_MSEC);
	assert_int_equal(limit_of(r), 4);
	hear(r, 500);
	for (int i = 0; i < 500 && limit_of(r) == 4; i++)
		run_for(f, 20 * NSEC_PER_MSEC);
	assert_int_equal(limit_of(r), 10);
	/* The control may not keep the test's own. */
	assert_int_equal(control_configure(f->control, &config, NULL), 0);
}

static void where_breakers_are_off_none_opens_and_all_close(void **state)
{
	static const struct breaker_report failed = { .outcome = BREAKER_FAILED };
	struct config with = routed, without = routed;
	struct breaker_ticket ticket = { .slot = BREAKER_NO_PROBE };
	struct fixture *f = *state;
	struct region *r = start(f);
	uint64_t wait_ns, now_ns = clock_boottime_ns();

	providers[0].breaker = models[0].breaker = breaker_preset(BREAKER_PRODUCTION);
	with.features.breaker = true;
	assert_int_equal(control_configure(f->control, &with, NULL), 0);
	ticket.row = target_find(r, str_of("p/m"), NULL);
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < 50; i++)
			breaker_record(r, &ticket, &failed, now_ns, 1);
		assert_int_equal(breaker_check(r, ticket.row, now_ns, &wait_ns),
			round ? BREAKER_PASS : BREAKER_REJECT);
		assert_int_equal(control_configure(f->control, &without, NULL), 0);
		assert_int_equal(breaker_check(r, ticket.row, now_ns, &wait_ns), BREAKER_PASS);
	}
	/* What an operator opened is his. */
	breaker_force_open(r, ticket.row, now_ns);
	assert_int_equal(control_configure(f->control, &without, NULL), 0);
	assert_int_equal(breaker_check(r, ticket.row, now_ns, &wait_ns), BREAKER_REJECT);
}

/* "a@b" of one name or of two. */
static void an_operator_names_limits_of_two_names(void **state)
{
	struct config_limit pairs[] = { limits[0], limits[0] };
	const struct config two = { .limits = pairs, .limit_count = 2 };
	struct fixture *f = *state;

	start(f);
	pairs[0].scope = BUCKET_SCOPE_USER | BUCKET_SCOPE_MODEL;
	pairs[0].name = (char *)"al@ice\x1f"
				"gpt 4";
	pairs[1].scope = BUCKET_SCOPE_USER;
	pairs[1].name = (char *)"bob@home";
	assert_int_equal(control_configure(f->control, &two, NULL), 0);
	assert_int_equal(act(f, "limit-reset", "user+model al@ice@gpt 4 requests"), STATUS_OK);
	assert_int_equal(act(f, "limit-reset", "user bob@home requests"), STATUS_OK);
	assert_int_equal(act(f, "limit-reset", "user bob requests"), STATUS_BAD_REQUEST);
	assert_int_equal(act(f, "limit-reset", "user  requests"), STATUS_BAD_REQUEST);
	assert_int_equal(act(f, "limit-reset", "user requests"), STATUS_BAD_REQUEST);
	assert_int_equal(act(f, "limit-reset", ""), STATUS_BAD_REQUEST);
	assert_int_equal(control_configure(f->control, &config, NULL), 0);
}

/* ---- what others see meanwhile ---- */

/* Another process looks up its limits whenever the region's clock is read. */
static struct onlooker {
	struct region *r;
	struct bucket_names names;
	uint32_t charge; /* a row that somebody settles late, once; BUCKET_NONE: none */
	unsigned looks, without;
} onlooker;

static uint64_t look(void)
{
	uint64_t now_ns = clock_boottime_ns();
	struct bucket_set set;

	onlooker.looks++;
	onlooker.without +=
		bucket_resolve(onlooker.r, &onlooker.names, now_ns, &set) == BUCKET_OK &&
		set.count == 0;
	if (onlooker.charge != BUCKET_NONE)
		bucket_charge(onlooker.r, onlooker.charge, 1, now_ns);
	onlooker.charge = BUCKET_NONE;
	return now_ns;
}

static void watch(struct region *r, const char *provider)
{
	onlooker = (struct onlooker){
		.r = r, .names.provider = str_of(provider), .charge = BUCKET_NONE
	};
	r->clock_ns = look;
}

static void no_limit_is_away_while_its_kind_changes(void **state)
{
	struct config_limit limit = { .scope = BUCKET_SCOPE_PROVIDER,
		.resource = BUCKET_TOKENS,
		.kind = BUCKET_HELD,
		.name = (char *)"p",
		.limit = 1000,
		.window_ns = 60 * NSEC_PER_SEC,
		.burst = 1000 };
	const struct config one = { .limits = &limit, .limit_count = 1 };
	struct fixture *f = *state;
	struct region *r = start(f);

	assert_int_equal(control_configure(f->control, &one, NULL), 0);
	watch(r, "p");
	for (int i = 0; i < 4; i++) {
		limit.kind = i % 2 ? BUCKET_HELD : BUCKET_RATE;
		assert_int_equal(control_configure(f->control, &one, NULL), 0);
	}
	assert_true(onlooker.looks > 4);
	assert_int_equal(onlooker.without, 0);
}

/* A limit of one's own that gives way to a template's. */
static void no_limit_is_away_while_a_template_takes_its_place(void **state)
{
	struct config_limit template = limits[0];
	const struct config with = { .templates = &template, .template_count = 1 };
	struct fixture *f = *state;

	template.name = NULL;
	watch(start(f), "p");
	assert_int_equal(control_configure(f->control, &with, NULL), 0);
	assert_true(onlooker.looks > 0);
	assert_int_equal(onlooker.without, 0);
}

/* Targets that have requests in flight keep their rows: that is not known before. */
static void no_limit_is_away_while_targets_fail(void **state)
{
	const struct config other = { .providers = providers, .provider_count = 2 };
	struct fixture *f = *state;
	struct region *r = start(f);
	uint64_t owner = control_owner(f->control), now_ns = clock_boottime_ns();
	struct target_config t = { .provider = TARGET_NONE };
	char name[16];

	for (uint32_t i = 0; i < r->targets; i++) {
		uint32_t hold = hold_claim(r, owner, i, now_ns);
		int row;

		snprintf(name, sizeof(name), "x/%u", i);
		t.name = str_of(name);
		row = target_configure(r, &t);
		assert_true(row >= 0);
		assert_int_equal(
			hold_move(r, hold, owner, HOLD_TOTAL_TARGET((uint32_t)row), 1, 0, NULL),
			HOLD_OK);
	}
	take(r, 4);
	watch(r, "p");
	assert_int_equal(control_configure(f->control, &other, NULL), -ENOSPC);
	assert_int_equal(onlooker.without, 0);
	assert_int_equal(left(r), 6);
}

struct many {
	struct config_limit *limit;
	char (*name)[16];
	struct config config;
};

static struct many many_new(const struct region *r, const char *prefix, unsigned count)
{
	struct many m = { calloc(count, sizeof(*m.limit)), calloc(count, sizeof(*m.name)), { 0 } };

	assert_true(m.limit && m.name && count <= r->buckets);
	for (unsigned i = 0; i < count; i++) {
		snprintf(m.name[i], sizeof(m.name[i]), "%s%u", prefix, i);
		m.limit[i] = limits[0];
		m.limit[i].name = m.name[i];
	}
	m.config = (struct config){ .limits = m.limit, .limit_count = count };
	return m;
}

static void many_free(struct many *m)
{
	free(m->limit);
	free(m->name);
}

static uint32_t row_of(const struct region *r, const char *name)
{
	struct bucket_set set = { 0 };

	return bucket_set_add(&set, r, BUCKET_SCOPE_PROVIDER, BUCKET_REQUESTS, str_of(name)) ?
		set.index[0] :
		BUCKET_NONE;
}

/* Every row is needed, and one that goes still owes: nothing is touched. */
static void limits_that_find_no_room_are_refused_first(void **state)
{
	struct fixture *f = *state;
	struct region *r = start(f);
	struct many old = many_new(r, "old", r->buckets), new = many_new(r, "new", r->buckets);

	assert_int_equal(control_configure(f->control, &old.config, NULL), 0);
	bucket_charge(r, row_of(r, "old7"), 1, clock_boottime_ns());
	watch(r, "old7");
	assert_int_equal(control_configure(f->control, &new.config, NULL), -ENOSPC);
	assert_int_equal(onlooker.looks, 0);
	/* One less has room. */
	new.config.limit_count--;
	assert_int_equal(control_configure(f->control, &new.config, NULL), 0);
	assert_int_not_equal(row_of(r, "new7"), BUCKET_NONE);
	assert_int_equal(control_configure(f->control, &config, NULL), 0);
	many_free(&old);
	many_free(&new);
}

/* There was room, but the last that was taken by a limit is settled once the limit is gone. */
static void limits_that_turn_out_to_have_no_room_are_undone(void **state)
{
	struct fixture *f = *state;
	struct region *r = start(f);
	struct many old = many_new(r, "old", r->buckets), new = many_new(r, "new", r->buckets);

	assert_int_equal(control_configure(f->control, &old.config, NULL), 0);
	watch(r, "old0");
	onlooker.charge = row_of(r, "old7");
	assert_int_equal(control_configure(f->control, &new.config, NULL), -ENOSPC);
	assert_int_equal(onlooker.charge, BUCKET_NONE);
	assert_int_equal(onlooker.without, 0);
	for (unsigned i = 0; i < old.config.limit_count; i++)
		assert_int_not_equal(row_of(r, old.name[i]), BUCKET_NONE);
	assert_int_equal(row_of(r, "new0"), BUCKET_NONE);
	/* Names without a limit are free of them again. */
	onlooker.names.provider = str_of("nobody");
	look();
	assert_int_equal(onlooker.without, 1);
	assert_int_equal(control_configure(f->control, &config, NULL), 0);
	many_free(&old);
	many_free(&new);
}

/* Found before anything changes. */
static void targets_that_find_no_room_are_refused_first(void **state)
{
	struct fixture *f = *state;
	struct region *r = start(f);
	const unsigned count = r->targets;
	struct config_model *model = calloc(count, sizeof(*model));
	char(*name)[16] = calloc(count, sizeof(*name));
	struct target_config named = { .name = str_of("p/named") };
	struct config full = routed;

	assert_true(model && name);
	for (unsigned i = 0; i < count; i++) {
		snprintf(name[i], sizeof(name[i]), "%u", i);
		model[i] = models[0];
		model[i].name = name[i];
	}
	assert_int_equal(control_configure(f->control, &routed, NULL), 0);
	full.models = model;
	assert_true(target_configure(r, &named) >= 0);
	/* Two providers, and the targets of the route, which are of both configurations. */
	full.model_count = count - 3;
	assert_int_equal(control_configure(f->control, &full, NULL), -ENOSPC);
	assert_int_not_equal(target_find(r, named.name, NULL), TARGET_NONE);
	assert_int_equal(target_find(r, str_of("p/0"), NULL), TARGET_NONE);
	assert_int_not_equal(target_find(r, str_of("p/m"), NULL), TARGET_NONE);
	full.model_count--;
	assert_int_equal(control_configure(f->control, &full, NULL), 0);
	assert_int_not_equal(target_find(r, str_of("p/0"), NULL), TARGET_NONE);
	assert_int_equal(control_configure(f->control, &routed, NULL), 0);
	free(model);
	free(name);
}

/* Clients name it, nobody configured it: but an operator opened it. */
static void what_an_operator_opened_outlives_reloads(void **state)
{
	static const bool usable[] = { false, true };
	const struct config just_q = { .providers = &providers[1], .provider_count = 1 };
	struct target_config t = { .name = str_of("p/bad"), .available = true };
	struct fixture *f = *state;
	struct region *r = start(f);
	struct breaker_view b;
	struct target_view v;

	assert_int_equal(control_configure(f->control, &routed, NULL), 0);
	t.provider = target_find(r, str_of("p"), NULL);
	assert_true(target_configure(r, &t) >= 0);
	assert_int_equal(act(f, "breaker-open", "p/bad"), STATUS_OK);
	assert_int_equal(control_configure(f->control, &routed, usable), 0);
	assert_true(target_view(r, target_find(r, str_of("p/bad"), NULL), &v));
	assert_false(v.available);
	assert_true(breaker_view(r, target_find(r, t.name, NULL), clock_boottime_ns(), &b));
	assert_true(b.forced);
	/* Until he closes it, or its provider is gone. */
	assert_int_equal(act(f, "breaker-close", "p/bad"), STATUS_OK);
	assert_int_equal(control_configure(f->control, &routed, NULL), 0);
	assert_int_equal(target_find(r, t.name, NULL), TARGET_NONE);
	assert_int_equal(act(f, "breaker-open", "p/m"), STATUS_OK);
	assert_int_equal(control_configure(f->control, &just_q, NULL), 0);
	assert_int_equal(target_find(r, str_of("p/m"), NULL), TARGET_NONE);
}

/* What is configured as half a second's is so at the rate that is heard, too. */
static void a_limit_that_follows_keeps_its_burst_in_proportion(void **state)
{
	struct config_limit limit = limits[0];
	const struct config one = { .limits = &limit, .limit_count = 1 };
	struct fixture *f = *state;
	struct region *r = start(f);
	struct bucket_view v;

	limit.window_ns = NSEC_PER_SEC;
	limit.limit = 10;
	limit.burst = 5;
	limit.automatic = true;
	assert_int_equal(control_configure(f->control, &one, NULL), 0);
	hear(r, 40);
	for (int i = 0; i < 500 && limit_of(r) == 10; i++)
		run_for(f, 20 * NSEC_PER_MSEC);
	assert_true(bucket_view(r, row_of(r, "p"), clock_boottime_ns(), &v));
	assert_int_equal(v.limit, 40);
	assert_int_equal(v.burst, 20);
	assert_int_equal(control_configure(f->control, &config, NULL), 0);
}

#define CASE(fn_) cmocka_unit_test_setup_teardown(fn_, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(limits_follow_the_configuration),
		CASE(a_full_table_can_be_replaced),
		CASE(a_limit_out_of_range_changes_nothing),
		CASE(targets_and_routes_follow_the_configuration),
		CASE(an_operator_acts_on_breakers_and_limits),
		CASE(resuming_a_limit_ends_the_pause_of_its_targets),
		CASE(names_get_the_limits_of_templates),
		CASE(a_limit_that_counts_in_another_way_replaces_the_old),
		CASE(a_reload_that_fails_half_way_leaves_what_was_in_force),
		CASE(a_table_full_of_clients_names_takes_a_new_configuration),
		CASE(a_limit_follows_its_provider_down_and_back),
		CASE(where_breakers_are_off_none_opens_and_all_close),
		CASE(an_operator_names_limits_of_two_names),
		CASE(no_limit_is_away_while_its_kind_changes),
		CASE(no_limit_is_away_while_a_template_takes_its_place),
		CASE(no_limit_is_away_while_targets_fail),
		CASE(limits_that_find_no_room_are_refused_first),
		CASE(limits_that_turn_out_to_have_no_room_are_undone),
		CASE(targets_that_find_no_room_are_refused_first),
		CASE(what_an_operator_opened_outlives_reloads),
		CASE(a_limit_that_follows_keeps_its_burst_in_proportion),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
