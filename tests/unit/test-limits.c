#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/time.h>
#include "shm/bucket.h"
#include "tests/unit/mini-fixture.h"
#include "tests/unit/splitmix.h"

static int start(void **state)
{
	(void)state;
	mini_init(&mini);
	mini_limit(&mini, BUCKET_SCOPE_USER, "ann", 1000000, 3000000);
	mini_limit(&mini, BUCKET_SCOPE_MODEL, "m", 1000000, 2000000);
	mini_limit(&mini, BUCKET_SCOPE_PROVIDER, "p", 1000000, 5000000);
	mini_start(&mini, PARTICIPANT);
	return mini_open(&mini, &kit);
}

static void restart(const struct mini_script *script)
{
	llmkit_close(kit);
	mini_kill(&mini);
	mini_start(&mini, script);
	assert_int_equal(mini_open(&mini, &kit), 0);
}

static uint32_t row_of(enum bucket_scope scope, const char *name)
{
	uint32_t row = mini_row(&mini, scope, BUCKET_REQUESTS, name);

	assert_true(row != BUCKET_NONE);
	return row;
}

static uint64_t admitted_by(enum bucket_scope scope, const char *name)
{
	return mini_view(&mini, scope, BUCKET_REQUESTS, name).admitted;
}

static void only_configured_levels_limit(void **state)
{
	llmkit_limits *limits;

	(void)state;
	llmkit_limits_close(limits_of("p", "m", "ann", 3));
	llmkit_limits_close(limits_of("p", NULL, "", 1));
	limits = limits_of("nobody", "configured", "these", 0);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(llmkit_acquire(limits, 1000000, NULL), 0);
	llmkit_limits_close(limits);
}

static void a_refusal_says_who_and_how_long(void **state)
{
	struct llmkit_verdict v;
	llmkit_limits *limits;
	int r;

	(void)state;
	mini_limit(&mini, BUCKET_SCOPE_MODEL, "slow", 1, 2);
	limits = limits_of("p", "slow", "ann", 3);
	assert_int_equal(llmkit_acquire(limits, 1, &v), 0);
	assert_string_equal(v.limit, "");
	assert_int_equal(v.wait_ns, 0);
	assert_int_equal(llmkit_acquire(limits, 1, NULL), 0);
	r = llmkit_acquire(limits, 1, &v);
	assert_int_equal(r, LLMKIT_E_LIMITED);
	assert_string_equal(v.limit, "model slow requests");
	assert_true(v.wait_ns > 0 && v.wait_ns <= NSEC_PER_SEC);
	assert_int_equal(llmkit_acquire(limits, 3, &v), LLMKIT_E_NEVER_FITS);
	assert_string_equal(v.limit, "model slow requests");
	assert_int_equal(v.wait_ns, 0);
	assert_int_equal(llmkit_acquire(limits, 0, &v), LLMKIT_E_ARGUMENT);
	/* What was refused took nothing from the other levels. */
	assert_int_equal(admitted_by(BUCKET_SCOPE_USER, "ann"), 2);
	llmkit_limits_close(limits);
}

static void waiting_ends_when_admitted_or_at_once(void **state)
{
	struct llmkit_verdict v;
	llmkit_limits *limits;
	uint64_t before;

	(void)state;
	mini_limit(&mini, BUCKET_SCOPE_USER, "bob", 100, 1);
	limits = limits_of(NULL, NULL, "bob", 1);
	before = llmkit_now_ns();
	for (int i = 0; i < 6; i++)
		assert_int_equal(llmkit_acquire_until(limits, 1, before + WAIT_NS, &v), 0);
	/* Six admissions of a burst of one, ten milliseconds apart. */
	assert_true(llmkit_now_ns() - before >= 50 * NSEC_PER_MSEC);
	mini_limit(&mini, BUCKET_SCOPE_USER, "eve", 1, 100);
	llmkit_limits_close(limits);
	limits = limits_of(NULL, NULL, "eve", 1);
	assert_int_equal(llmkit_acquire(limits, 100, NULL), 0);
	before = llmkit_now_ns();
	assert_int_equal(llmkit_acquire_until(limits, 100, before + WAIT_NS, &v), LLMKIT_E_LIMITED);
	assert_true(v.wait_ns > 90 * NSEC_PER_SEC);
	assert_true(llmkit_now_ns() - before < WAIT_NS);
	assert_int_equal(llmkit_acquire_until(limits, 1, 0, &v), LLMKIT_E_LIMITED);
	assert_int_equal(llmkit_acquire_until(limits, 101, UINT64_MAX, &v), LLMKIT_E_NEVER_FITS);
	llmkit_limits_close(limits);
}

static void on_alarm(int number)
{
	(void)number;
}

static void a_signal_ends_the_wait(void **state)
{
	struct sigaction action = { .sa_handler = on_alarm }, before;
	struct itimerval soon = { { 0, 1000 }, { 0, 1000 } }, never = { 0 };
	llmkit_limits *limits;

	(void)state;
	mini_limit(&mini, BUCKET_SCOPE_USER, "eve", 1, 100);
	limits = limits_of(NULL, NULL, "eve", 1);
	assert_int_equal(llmkit_acquire(limits, 100, NULL), 0);
	assert_int_equal(sigaction(SIGALRM, &action, &before), 0);
	assert_int_equal(setitimer(ITIMER_REAL, &soon, NULL), 0);
	assert_int_equal(llmkit_acquire_until(limits, 100, UINT64_MAX, NULL), LLMKIT_E_SYSTEM);
	assert_int_equal(errno, EINTR);
	setitimer(ITIMER_REAL, &never, NULL);
	sigaction(SIGALRM, &before, NULL);
	llmkit_limits_close(limits);
}

static void observers_are_told(void **state)
{
	llmkit_limits *limits;
	char *json;

	(void)state;
	restart(&(struct mini_script){ .role = MSG_ROLE_OBSERVER });
	assert_string_equal(llmkit_region_text(kit), "");
	assert_int_equal(open_limits("p", "m", "ann", &limits), LLMKIT_E_NO_REGION);
	assert_null(limits);
	assert_int_equal(llmkit_status(kit, -1, &json), 0);
	free(json);
}

static void without_a_region_requests_still_work(void **state)
{
	static const enum mini_region kind[] = { MINI_REGION_NONE, MINI_REGION_GARBAGE };
	llmkit_limits *limits;
	char *json;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(kind); i++) {
		restart(&(struct mini_script){ .role = MSG_ROLE_PARTICIPANT, .region = kind[i] });
		assert_true(strlen(llmkit_region_text(kit)) > 10);
		assert_int_equal(open_limits("p", "m", "ann", &limits), LLMKIT_E_REGION);
		assert_int_equal(llmkit_status(kit, -1, &json), 0);
		free(json);
	}
}

static void budgets_outlive_the_daemon(void **state)
{
	llmkit_limits *limits = limits_of("p", "m", "ann", 3), *later;
	uint64_t before;

	(void)state;
	mini_kill(&mini);
	before = admitted_by(BUCKET_SCOPE_USER, "ann");
	for (int i = 0; i < 100; i++)
		assert_int_equal(llmkit_acquire(limits, 1, NULL), 0);
	assert_int_equal(admitted_by(BUCKET_SCOPE_USER, "ann"), before + 100);
	assert_int_equal(open_limits("p", NULL, NULL, &later), 0);
	llmkit_limits_close(later);
	llmkit_limits_close(limits);
}

static void a_limit_that_went_or_came_is_noticed(void **state)
{
	llmkit_limits *limits = limits_of("p", "new", "ann", 2);
	uint64_t until = clock_boottime_ns() + WAIT_NS;
	bool *keep;

	(void)state;
	mini_limit(&mini, BUCKET_SCOPE_MODEL, "new", 1000, 1000);
	while (llmkit_limits_count(limits) != 3 && clock_boottime_ns() < until)
		llmkit_acquire(limits, 1, NULL);
	assert_int_equal(llmkit_limits_count(limits), 3);
	/* A row that went is noticed by the acquire itself. */
	keep = calloc(mini.region.buckets, sizeof(*keep));
	keep[row_of(BUCKET_SCOPE_USER, "ann")] = true;
	bucket_retire(&mini.region, keep);
	free(keep);
	assert_int_equal(llmkit_acquire_until(limits, 1, until, NULL), 0);
	assert_int_equal(llmkit_limits_count(limits), 1);
	llmkit_limits_close(limits);
}

static void a_new_region_is_moved_to(void **state)
{
	llmkit_limits *limits = limits_of("p", "m", "ann", 3);
	char *json;

	(void)state;
	mini_kill(&mini);
	mini_new_region(&mini);
	mini_limit(&mini, BUCKET_SCOPE_USER, "ann", 1, 2);
	mini_start(&mini, PARTICIPANT);
	assert_int_equal(llmkit_acquire(limits, 1000, NULL), 0);
	assert_int_equal(llmkit_status(kit, -1, &json), LLMKIT_OK);
	free(json);
	assert_int_equal(llmkit_acquire(limits, 1000, NULL), LLMKIT_E_NEVER_FITS);
	assert_int_equal(llmkit_acquire(limits, 1, NULL), 0);
	assert_int_equal(llmkit_limits_count(limits), 1);
	assert_int_equal(admitted_by(BUCKET_SCOPE_USER, "ann"), 1);
	llmkit_limits_close(limits);
}

/* ---- templates: limits that the daemon makes on demand ---- */

static const struct bucket_limit per_user = {
	.scope = BUCKET_SCOPE_USER,
	.resource = BUCKET_REQUESTS,
	.kind = BUCKET_RATE,
	.origin = BUCKET_ORIGIN_TEMPLATE,
	.limit = 10,
	.window_ns = DAY_NS,
	.burst = 10,
};

static void a_template_limits_every_name(void **state)
{
	struct llmkit_limit_view view;
	struct llmkit_verdict v;
	llmkit_limits *limits;

	(void)state;
	mini_templates(&mini, &per_user, 1);
	limits = limits_of(NULL, NULL, "zoe", 1);
	assert_int_equal(llmkit_acquire(limits, 10, NULL), 0);
	assert_int_equal(llmkit_acquire(limits, 1, &v), LLMKIT_E_LIMITED);
	assert_string_equal(v.limit, "user zoe requests");
	assert_int_equal(llmkit_limits_view(limits, 0, &view), 0);
	assert_string_equal(view.label, "user zoe requests");
	assert_int_equal(view.used, 10);
	llmkit_limits_close(limits);
	/* Another's is another, and who has a limit of his own keeps it. */
	llmkit_limits_close(limits_of(NULL, NULL, "max", 1));
	assert_int_equal(admitted_by(BUCKET_SCOPE_USER, "max"), 0);
	limits = limits_of(NULL, NULL, "ann", 1);
	assert_int_equal(llmkit_acquire(limits, 1000, NULL), 0);
	llmkit_limits_close(limits);
}

/* A name of which nobody knows whether it is limited is not let through. */
static void without_a_daemon_a_template_is_an_error(void **state)
{
	llmkit_limits *limits, *new_one;

	(void)state;
	mini_templates(&mini, &per_user, 1);
	limits = limits_of(NULL, NULL, "zoe", 1);
	mini_kill(&mini);
	assert_int_equal(open_limits(NULL, NULL, "max", &new_one), LLMKIT_E_NO_DAEMON);
	assert_null(new_one);
	assert_int_equal(llmkit_acquire(limits, 1, NULL), 0);
	llmkit_limits_close(limits);
}

static void a_template_that_comes_later_is_noticed(void **state)
{
	llmkit_limits *limits = limits_of(NULL, NULL, "zoe", 0);
	uint64_t until = clock_boottime_ns() + WAIT_NS;

	(void)state;
	mini_templates(&mini, &per_user, 1);
	while (llmkit_limits_count(limits) != 1 && clock_boottime_ns() < until)
		assert_int_equal(llmkit_acquire(limits, 1, NULL), 0);
	assert_int_equal(llmkit_limits_count(limits), 1);
	assert_int_equal(llmkit_acquire(limits, 11, NULL), LLMKIT_E_NEVER_FITS);
	/* Its rows go with it, which the next call notices by itself. */
	mini_templates(&mini, NULL, 0);
	assert_int_equal(llmkit_acquire(limits, 11, NULL), 0);
	assert_int_equal(llmkit_limits_count(limits), 0);
	llmkit_limits_close(limits);
}

static void what_the_daemon_says_of_a_template_is_passed_on(void **state)
{
	static const struct {
		struct mini_script script;
		int error;
	} cases[] = {
		{ { .role = MSG_ROLE_PARTICIPANT, .resolve = STATUS_BUSY }, LLMKIT_E_BUSY },
		{ { .role = MSG_ROLE_PARTICIPANT, .resolve = STATUS_NO_MEMORY },
			LLMKIT_E_NO_MEMORY },
		{ { .role = MSG_ROLE_PARTICIPANT, .odd = true }, LLMKIT_E_PROTOCOL },
	};
	llmkit_limits *limits;

	(void)state;
	mini_templates(&mini, &per_user, 1);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		restart(&cases[i].script);
		assert_int_equal(open_limits(NULL, NULL, "zoe", &limits), cases[i].error);
	}
}

/* It says that it did, and did not: no endless questions. */
static void a_daemon_that_makes_nothing_is_not_asked_for_ever(void **state)
{
	llmkit_limits *limits;

	(void)state;
	mini_templates(&mini, &per_user, 1);
	restart(&(struct mini_script){ .role = MSG_ROLE_PARTICIPANT, .lazy = true });
	assert_int_equal(open_limits(NULL, NULL, "zoe", &limits), LLMKIT_E_BUSY);
}

static void a_daemon_that_does_not_answer_is_waited_for_so_long(void **state)
{
	struct llmkit_options o = {
		.size = sizeof(o), .socket = mini.socket, .connect_timeout_ms = 50
	};
	llmkit_limits *limits;
	char *message;

	(void)state;
	mini_templates(&mini, &per_user, 1);
	restart(&(struct mini_script){ .role = MSG_ROLE_PARTICIPANT, .deaf = true });
	llmkit_close(kit);
	assert_int_equal(llmkit_open(&kit, &o), 0);
	assert_int_equal(open_limits(NULL, NULL, "zoe", &limits), LLMKIT_E_WAIT_TIMEOUT);
	assert_int_equal(llmkit_command(kit, "reload", NULL, 10, &message), LLMKIT_E_WAIT_TIMEOUT);
	assert_null(message);
}

/* ---- looking and acting ---- */

static void pairs_have_limits(void **state)
{
	char name[BUCKET_NAME_TEXT];
	struct llmkit_limit_view view;
	struct llmkit_verdict v;
	llmkit_limits *limits;
	struct bucket_limit l = {
		.scope = BUCKET_SCOPE_USER | BUCKET_SCOPE_MODEL,
		.resource = BUCKET_REQUESTS,
		.kind = BUCKET_RATE,
		.limit = 5,
		.window_ns = DAY_NS,
		.burst = 5,
	};

	(void)state;
	assert_true(bucket_join(l.scope,
		&(struct bucket_names){ .user = str_of("zoe"), .model = str_of("m") }, name));
	l.name = str_of(name);
	mini_limit_of(&mini, &l);
	llmkit_limits_close(limits_of(NULL, NULL, "zoe", 0));
	limits = limits_of(NULL, "m", "zoe", 2);
	assert_int_equal(llmkit_acquire(limits, 6, &v), LLMKIT_E_NEVER_FITS);
	assert_string_equal(v.limit, "user+model zoe@m requests");
	assert_int_equal(v.asked, 6);
	assert_int_equal(v.burst, 5);
	assert_int_equal(llmkit_limits_view(limits, 0, &view), 0);
	assert_string_equal(view.label, "user+model zoe@m requests");
	assert_int_equal(llmkit_limits_view(limits, 2, &view), LLMKIT_E_ARGUMENT);
	llmkit_limits_close(limits);
}

static void all_four_names_are_looked_up(void **state)
{
	const struct llmkit_scope scope = { .size = sizeof(scope), .key = "team" };
	struct bucket_limit l = per_user;
	struct llmkit_scope bad = scope;
	llmkit_limits *limits;
	char name[300];

	(void)state;
	l.scope = BUCKET_SCOPE_KEY;
	l.origin = BUCKET_ORIGIN_CONFIG;
	l.name = str_of("team");
	mini_limit_of(&mini, &l);
	assert_int_equal(llmkit_limits_open(kit, &scope, &limits), 0);
	assert_int_equal(llmkit_limits_count(limits), 1);
	llmkit_limits_close(limits);
	assert_int_equal(llmkit_limits_open(kit, NULL, &limits), 0);
	assert_int_equal(llmkit_limits_count(limits), 0);
	llmkit_limits_close(limits);
	memset(name, 'n', sizeof(name));
	name[299] = '\0';
	bad.user = name;
	assert_int_equal(llmkit_limits_open(kit, &bad, &limits), LLMKIT_E_ARGUMENT);
	bad.user = "new\nline";
	assert_int_equal(llmkit_limits_open(kit, &bad, &limits), LLMKIT_E_ARGUMENT);
	bad = scope;
	bad.size = 3;
	assert_int_equal(llmkit_limits_open(kit, &bad, &limits), LLMKIT_E_ARGUMENT);
	assert_null(limits);
}

static void what_is_left_is_told_and_can_be_reset(void **state)
{
	llmkit_limits *none = limits_of(NULL, "nothing", NULL, 0), *limits;
	struct bucket_limit l = per_user;

	(void)state;
	assert_true(llmkit_limits_available(none) == UINT64_MAX);
	assert_true(llmkit_limits_capacity(none) == UINT64_MAX);
	assert_int_equal(llmkit_limits_reset(none), 0);
	llmkit_limits_close(none);
	l.origin = BUCKET_ORIGIN_CONFIG;
	l.name = str_of("zoe");
	mini_limit_of(&mini, &l);
	limits = limits_of("p", NULL, "zoe", 2);
	assert_int_equal(llmkit_limits_capacity(limits), 10);
	assert_int_equal(llmkit_limits_available(limits), 10);
	assert_int_equal(llmkit_acquire(limits, 7, NULL), 0);
	assert_int_equal(llmkit_limits_available(limits), 3);
	bucket_pause(&mini.region, row_of(BUCKET_SCOPE_PROVIDER, "p"),
		clock_boottime_ns() + 60 * NSEC_PER_SEC, clock_boottime_ns());
	assert_int_equal(llmkit_limits_available(limits), 0);
	assert_int_equal(llmkit_command(kit, "limit-resume", "provider p requests", -1, NULL), 0);
	assert_int_equal(llmkit_limits_available(limits), 3);
	assert_int_equal(llmkit_limits_reset(limits), 0);
	assert_int_equal(llmkit_limits_available(limits), 10);
	mini_kill(&mini);
	assert_int_equal(llmkit_limits_reset(limits), LLMKIT_E_NO_DAEMON);
	llmkit_limits_close(limits);
}

static void commands_are_answered(void **state)
{
	char *message;

	(void)state;
	assert_int_equal(llmkit_command(kit, "reload", NULL, -1, &message), LLMKIT_E_INTERNAL);
	assert_string_equal(message, "llmkitd.yaml:3:1: no");
	free(message);
	assert_int_equal(llmkit_command(kit, "dance", "x", -1, &message), LLMKIT_E_BAD_REQUEST);
	assert_string_equal(message, "no such verb");
	free(message);
	assert_int_equal(llmkit_command(kit, "limit-reset", "user bob requests", -1, NULL),
		LLMKIT_E_BAD_REQUEST);
	assert_int_equal(llmkit_command(kit, "limit-reset", "user ann requests", -1, &message), 0);
	assert_null(message);
	assert_int_equal(llmkit_command(kit, NULL, NULL, -1, &message), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_command(kit, "a\nb", NULL, -1, &message), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_command(NULL, "reload", NULL, -1, &message), LLMKIT_E_ARGUMENT);
	restart(&(struct mini_script){ .role = MSG_ROLE_OBSERVER });
	assert_int_equal(llmkit_command(kit, "reload", NULL, -1, &message), LLMKIT_E_REFUSED);
	free(message);
}

/* ---- feedback ---- */

static uint64_t pause_of(enum bucket_scope scope, const char *name)
{
	uint64_t until = mini_view(&mini, scope, BUCKET_REQUESTS, name).pause_ns;
	uint64_t now = clock_boottime_ns();

	return until > now ? until - now : 0;
}

static void a_429_pauses_the_narrowest_but_users(void **state)
{
	static const struct llmkit_header headers[] = { { "content-type", "text/html" },
		{ "Retry-After", "90" } };
	llmkit_limits *limits = limits_of("p", "m", "ann", 3);
	struct llmkit_verdict v;
	uint64_t wait;

	(void)state;
	assert_int_equal(llmkit_feedback(limits, 429, headers, 2, "slow down", &wait), 0);
	assert_true(wait == 90 * NSEC_PER_SEC);
	assert_in_range(pause_of(BUCKET_SCOPE_MODEL, "m"), 30 * NSEC_PER_SEC, 90 * NSEC_PER_SEC);
	/* Its other models may go on. */
	assert_int_equal(pause_of(BUCKET_SCOPE_PROVIDER, "p"), 0);
	assert_int_equal(pause_of(BUCKET_SCOPE_USER, "ann"), 0);
	assert_int_equal(llmkit_acquire(limits, 1, &v), LLMKIT_E_LIMITED);
	assert_in_range(v.wait_ns, 30 * NSEC_PER_SEC, 90 * NSEC_PER_SEC);
	/* Raise-only: a shorter one changes nothing, nor does a good answer. */
	assert_int_equal(llmkit_feedback(limits, 200, NULL, 0, NULL, &wait), 0);
	assert_int_equal(wait, 0);
	assert_in_range(pause_of(BUCKET_SCOPE_MODEL, "m"), 30 * NSEC_PER_SEC, 90 * NSEC_PER_SEC);
	llmkit_limits_close(limits);
}

static void other_errors_pause_when_they_say_so(void **state)
{
	static const struct llmkit_header retry[] = { { "retry-after-ms", "30000" } };
	llmkit_limits *limits = limits_of("p", "m", "ann", 3);
	uint64_t wait = 1;

	(void)state;
	assert_int_equal(llmkit_feedback(limits, 503, NULL, 0, NULL, &wait), 0);
	assert_int_equal(wait, 0);
	assert_int_equal(llmkit_feedback(limits, 500, retry, 1, NULL, &wait), 0);
	assert_int_equal(wait, 0);
	assert_int_equal(pause_of(BUCKET_SCOPE_MODEL, "m"), 0);
	assert_int_equal(llmkit_feedback(limits, 529, retry, 1, NULL, &wait), 0);
	assert_true(wait == 30 * NSEC_PER_SEC);
	assert_true(pause_of(BUCKET_SCOPE_MODEL, "m") > 0);
	llmkit_limits_close(limits);
}

/* Without a hint it gets longer by the number of 429s in a row; a good answer begins anew. */
static void silent_429s_back_off(void **state)
{
	uint32_t target = mini_target(&mini, "p/m", -1, -1);
	llmkit_limits *limits = limits_of("p", "m", NULL, 2);
	uint64_t wait = 0;

	(void)state;
	for (uint64_t second = NSEC_PER_SEC; second <= 32 * NSEC_PER_SEC; second *= 2) {
		/* Those of other threads, under way when the pause began, are one with it. */
		for (int i = 0; i < 3; i++) {
			assert_int_equal(llmkit_feedback(limits, 429, NULL, 0, NULL, &wait), 0);
			assert_in_range(wait, second / 2, second);
		}
		target_unpause(&mini.region, target);
	}
	assert_int_equal(llmkit_feedback(limits, 200, NULL, 0, NULL, NULL), 0);
	assert_int_equal(llmkit_feedback(limits, 429, NULL, 0, NULL, &wait), 0);
	assert_in_range(wait, NSEC_PER_SEC / 2, NSEC_PER_SEC);
	llmkit_limits_close(limits);
}

static void headers_raise_what_is_owed(void **state)
{
	static const struct llmkit_header headers[] = { { "x-ratelimit-limit-requests", "600" },
		{ "x-ratelimit-remaining-requests", "200" } };
	struct bucket_limit l = {
		.scope = BUCKET_SCOPE_MODEL,
		.resource = BUCKET_REQUESTS,
		.kind = BUCKET_RATE,
		.name = str_of("slow"),
		.limit = 500,
		.window_ns = 60 * NSEC_PER_SEC,
		.burst = 500,
	};
	llmkit_limits *limits;
	uint32_t row;

	(void)state;
	mini_limit_of(&mini, &l);
	l.scope = BUCKET_SCOPE_USER;
	mini_limit_of(&mini, &l);
	limits = limits_of(NULL, "slow", "slow", 2);
	row = row_of(BUCKET_SCOPE_MODEL, "slow");
	assert_int_equal(llmkit_feedback(limits, 200, headers, 2, NULL, NULL), 0);
	/* No more is left here than there; some seconds may have passed. */
	assert_in_range(
		mini_view(&mini, BUCKET_SCOPE_MODEL, BUCKET_REQUESTS, "slow").owed, 200, 300);
	assert_int_equal(mini_view(&mini, BUCKET_SCOPE_USER, BUCKET_REQUESTS, "slow").owed, 0);
	assert_int_equal(bucket_heard(&mini.region, row), 0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(llmkit_feedback(limits, 200, headers, 2, NULL, NULL), 0);
	assert_int_equal(bucket_heard(&mini.region, row), 600);
	assert_int_equal(bucket_heard(&mini.region, row_of(BUCKET_SCOPE_USER, "slow")), 0);
	llmkit_limits_close(limits);
}

/* What one model has left says nothing of the provider's limit, which adds up several. */
static void the_narrowest_limits_follow(void **state)
{
	static const struct llmkit_header headers[] = {
		{ "x-ratelimit-remaining-requests", "1000000" },
		{ "x-ratelimit-remaining-requests-day", "3" },
		{ "x-ratelimit-limit-requests-day", "1000" },
	};
	struct bucket_limit daily = {
		.scope = BUCKET_SCOPE_KEY,
		.resource = BUCKET_REQUESTS,
		.kind = BUCKET_RATE,
		.name = str_of("k"),
		.limit = 500,
		.window_ns = NSEC_PER_DAY,
		.burst = 500,
	};
	const struct llmkit_scope scope = {
		.size = sizeof(scope), .provider = "p", .model = "m", .key = "k"
	};
	llmkit_limits *limits;

	(void)state;
	mini_limit_of(&mini, &daily);
	assert_int_equal(llmkit_limits_open(kit, &scope, &limits), 0);
	assert_int_equal(llmkit_limits_count(limits), 3);
	assert_int_equal(llmkit_feedback(limits, 200, headers, 3, NULL, NULL), 0);
	assert_in_range(
		mini_view(&mini, BUCKET_SCOPE_MODEL, BUCKET_REQUESTS, "m").owed, 1, 1000000);
	assert_int_equal(mini_view(&mini, BUCKET_SCOPE_PROVIDER, BUCKET_REQUESTS, "p").owed, 0);
	assert_in_range(mini_view(&mini, BUCKET_SCOPE_KEY, BUCKET_REQUESTS, "k").owed, 490, 497);
	llmkit_limits_close(limits);
}

static void feedback_mistakes_are_told(void **state)
{
	static const struct llmkit_header bad[] = { { "retry-after", NULL } };
	llmkit_limits *limits = limits_of("p", "m", NULL, 2);

	(void)state;
	assert_int_equal(llmkit_feedback(NULL, 429, NULL, 0, NULL, NULL), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_feedback(limits, 429, NULL, 1, NULL, NULL), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_feedback(limits, 429, bad, 1, NULL, NULL), LLMKIT_E_ARGUMENT);
	assert_int_equal(pause_of(BUCKET_SCOPE_MODEL, "m"), 0);
	assert_true(llmkit_estimate_tokens(350) >= 100);
	llmkit_limits_close(limits);
}

/* Whatever another process writes there, calls return, and soon. */
static void garbage_in_the_region_is_survived(void **state)
{
	llmkit_limits *limits = limits_of("p", "m", "ann", 3), *other;
	uint64_t *word = mini.region.map, seed = 7;
	size_t words = mini.region.size / sizeof(*word);

	(void)state;
	for (int round = 0; round < 20; round++) {
		struct llmkit_verdict v;

		for (size_t i = 0; i < words; i++)
			word[i] = round % 4 == 3 ? UINT64_MAX :
						   splitmix_next(&seed) >> (round % 5 * 12);
		for (int i = 0; i < 60; i++) {
			int r = llmkit_acquire(limits, 1 + (uint64_t)i * i * i * i, &v);

			/* A template may seem to apply: the daemon is asked, and answers. */
			assert_true(r == 0 || r == LLMKIT_E_LIMITED || r == LLMKIT_E_NEVER_FITS ||
				r == LLMKIT_E_REGION || r == LLMKIT_E_LEASE || r == LLMKIT_E_BUSY ||
				r == LLMKIT_E_BAD_REQUEST);
			assert_true(strlen(v.limit) < sizeof(v.limit));
		}
		if (open_limits("p", "m", "ann", &other) == 0)
			llmkit_limits_close(other);
	}
	llmkit_limits_close(limits);
}

#define THREADS 8
#define EACH 3000
#define BURST 10000

static _Atomic unsigned taken;

static void *take(void *arg)
{
	for (int i = 0; i < EACH; i++)
		taken += llmkit_acquire(arg, 1, NULL) == 0;
	return NULL;
}

/* One handle, while the daemon reconfigures and moves to other regions. */
static void threads_share_one_handle(void **state)
{
	llmkit_limits *limits;
	pthread_t thread[THREADS];
	uint64_t began = clock_boottime_ns();

	(void)state;
	mini_limit(&mini, BUCKET_SCOPE_USER, "many", 1, BURST);
	limits = limits_of(NULL, "passing", "many", 1);
	taken = 0;
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, take, limits), 0);
	for (int i = 0; i < 100; i++) {
		bool *keep = calloc(mini.region.buckets, sizeof(*keep));

		keep[row_of(BUCKET_SCOPE_USER, "many")] = true;
		mini_limit(&mini, BUCKET_SCOPE_MODEL, "passing", 1000000, 1000000);
		bucket_retire(&mini.region, keep);
		free(keep);
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	assert_true(taken >= BURST);
	assert_true(taken <= BURST + 1 + (clock_boottime_ns() - began) / NSEC_PER_SEC);
	assert_int_equal(admitted_by(BUCKET_SCOPE_USER, "many"), taken);
	llmkit_limits_close(limits);
}

#define test_(name_) cmocka_unit_test_setup_teardown(name_, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_(only_configured_levels_limit),
		test_(a_refusal_says_who_and_how_long),
		test_(waiting_ends_when_admitted_or_at_once),
		test_(a_signal_ends_the_wait),
		test_(observers_are_told),
		test_(without_a_region_requests_still_work),
		test_(budgets_outlive_the_daemon),
		test_(a_limit_that_went_or_came_is_noticed),
		test_(a_new_region_is_moved_to),
		test_(a_template_limits_every_name),
		test_(without_a_daemon_a_template_is_an_error),
		test_(a_template_that_comes_later_is_noticed),
		test_(what_the_daemon_says_of_a_template_is_passed_on),
		test_(a_daemon_that_makes_nothing_is_not_asked_for_ever),
		test_(a_daemon_that_does_not_answer_is_waited_for_so_long),
		test_(pairs_have_limits),
		test_(all_four_names_are_looked_up),
		test_(what_is_left_is_told_and_can_be_reset),
		test_(commands_are_answered),
		test_(a_429_pauses_the_narrowest_but_users),
		test_(other_errors_pause_when_they_say_so),
		test_(silent_429s_back_off),
		test_(headers_raise_what_is_owed),
		test_(the_narrowest_limits_follow),
		test_(feedback_mistakes_are_told),
		test_(garbage_in_the_region_is_survived),
		test_(threads_share_one_handle),
	};

	return cmocka_run_group_tests_name("limits", tests, NULL, NULL);
}
