#include "tests/unit/mini-daemon.h"
#include "tests/unit/cmocka-all.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>
#include "base/aux.h"
#include "base/clock.h"
#include "shm/bucket.h"
#include "tests/unit/splitmix.h"

#define WAIT_NS (30 * NSEC_PER_SEC)
#define PARTICIPANT (&(struct mini_script){ .role = MSG_ROLE_PARTICIPANT })

static struct mini mini;
static llmkit *kit;

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

static int stop(void **state)
{
	(void)state;
	llmkit_close(kit);
	kit = NULL;
	mini_deinit(&mini);
	return 0;
}

static llmkit_limits *limits_of(
	const char *provider, const char *model, const char *user, unsigned count)
{
	llmkit_limits *limits;

	assert_int_equal(llmkit_limits_open(kit, provider, model, user, &limits), 0);
	assert_int_equal(llmkit_limits_count(limits), count);
	return limits;
}

static void restart(const struct mini_script *script)
{
	llmkit_close(kit);
	mini_kill(&mini);
	mini_start(&mini, script);
	assert_int_equal(mini_open(&mini, &kit), 0);
}

static uint64_t admitted_in(uint32_t row)
{
	struct bucket_view view;

	assert_true(bucket_view(&mini.region, row, clock_boottime_ns(), &view));
	return view.admitted;
}

static uint32_t row_of(enum bucket_scope scope, const char *name)
{
	struct bucket_set set = { 0 };

	assert_true(bucket_set_add(&set, &mini.region, scope, str_of(name)));
	return set.index[0];
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
	assert_string_equal(v.limit, "model slow");
	assert_true(v.wait_ns > 0 && v.wait_ns <= NSEC_PER_SEC);
	assert_int_equal(llmkit_acquire(limits, 3, &v), LLMKIT_E_NEVER_FITS);
	assert_string_equal(v.limit, "model slow");
	assert_int_equal(v.wait_ns, 0);
	assert_int_equal(llmkit_acquire(limits, 0, &v), LLMKIT_E_ARGUMENT);
	/* What was refused took nothing from the other levels. */
	assert_int_equal(admitted_in(row_of(BUCKET_SCOPE_USER, "ann")), 2);
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
	assert_int_equal(llmkit_limits_open(kit, "p", "m", "ann", &limits), LLMKIT_E_NO_REGION);
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
		assert_int_equal(
			llmkit_limits_open(kit, "p", "m", "ann", &limits), LLMKIT_E_REGION);
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
	before = admitted_in(row_of(BUCKET_SCOPE_USER, "ann"));
	for (int i = 0; i < 100; i++)
		assert_int_equal(llmkit_acquire(limits, 1, NULL), 0);
	assert_int_equal(admitted_in(row_of(BUCKET_SCOPE_USER, "ann")), before + 100);
	assert_int_equal(llmkit_limits_open(kit, "p", NULL, NULL, &later), 0);
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
	assert_int_equal(admitted_in(row_of(BUCKET_SCOPE_USER, "ann")), 1);
	llmkit_limits_close(limits);
}

/* Whatever another process writes there, calls return, and soon. */
static void garbage_in_the_region_is_survived(void **state)
{
	llmkit_limits *limits = limits_of("p", "m", "ann", 3), *other;
	uint64_t *word = mini.region.map, seed = 7;
	size_t words = mini.region.size / sizeof(*word);

	(void)state;
	for (int round = 0; round < 40; round++) {
		struct llmkit_verdict v;

		for (size_t i = 0; i < words; i++)
			word[i] = round % 4 == 3 ? UINT64_MAX :
						   splitmix_next(&seed) >> (round % 5 * 12);
		for (int i = 0; i < 200; i++) {
			int r = llmkit_acquire(limits, 1 + (uint64_t)i * i * i * i, &v);

			assert_true(r == 0 || r == LLMKIT_E_LIMITED || r == LLMKIT_E_NEVER_FITS ||
				r == LLMKIT_E_REGION);
			assert_true(strlen(v.limit) < sizeof(v.limit));
		}
		if (llmkit_limits_open(kit, "p", "m", "ann", &other) == 0)
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
	assert_int_equal(admitted_in(row_of(BUCKET_SCOPE_USER, "many")), taken);
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
		test_(garbage_in_the_region_is_survived),
		test_(threads_share_one_handle),
	};

	return cmocka_run_group_tests_name("limits", tests, NULL, NULL);
}
