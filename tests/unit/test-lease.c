#include <dlfcn.h>
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include "shm/hold.h"
#include "shm/participant.h"
#include "tests/unit/mini-fixture.h"
#include "tests/unit/splitmix.h"

/* ---- the library's sleep, seen from here: it finds this function before libc's ---- */

static _Atomic int sleeps, woken, timed_out;
static void (*before_sleep)(void);

__attribute__((visibility("default"))) long syscall(long number, ...)
{
	long (*next)(long, ...) = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
	struct timespec *timeout;
	uint32_t *word;
	va_list arguments;
	int what;
	uint32_t value;
	long r;

	va_start(arguments, number);
	word = va_arg(arguments, uint32_t *);
	what = va_arg(arguments, int);
	value = va_arg(arguments, uint32_t);
	timeout = va_arg(arguments, struct timespec *);
	va_end(arguments);
	if (number != SYS_futex || what != FUTEX_WAIT)
		return next(number, word, what, value, timeout, NULL, 0);
	sleeps++;
	if (before_sleep)
		before_sleep();
	r = next(number, word, what, value, timeout, NULL, 0);
	if (r == 0 || errno == EAGAIN)
		woken++;
	else
		timed_out++;
	return r;
}

/* ---- limits of this test: per day, so that next to nothing leaks while it runs ---- */

static void limit(uint64_t scope, enum bucket_resource resource, const char *name, uint64_t burst)
{
	enum bucket_kind kind = bucket_kind_of(resource, false);
	struct bucket_limit l = {
		.scope = scope,
		.resource = resource,
		.kind = kind,
		.name = str_of(name),
		.limit = burst,
		.window_ns = kind == BUCKET_GAUGE ? 0 : DAY_NS,
		.burst = burst,
	};

	mini_limit_of(&mini, &l);
}

static int start(void **state)
{
	(void)state;
	sleeps = woken = timed_out = 0;
	before_sleep = NULL;
	mini_init(&mini);
	limit(BUCKET_SCOPE_MODEL, BUCKET_REQUESTS, "m", 1000);
	limit(BUCKET_SCOPE_MODEL, BUCKET_TOKENS, "m", 1000);
	limit(BUCKET_SCOPE_PROVIDER, BUCKET_CONCURRENCY, "gate", 2);
	limit(BUCKET_SCOPE_USER, BUCKET_MONEY, "ann", 5000);
	mini_start(&mini, PARTICIPANT);
	return mini_open(&mini, &kit);
}

static struct bucket_view tokens(void)
{
	return mini_view(&mini, BUCKET_SCOPE_MODEL, BUCKET_TOKENS, "m");
}

static uint64_t at_gate(void)
{
	return mini_view(&mini, BUCKET_SCOPE_PROVIDER, BUCKET_CONCURRENCY, "gate").held;
}

/* ---- leases ---- */

static void a_lease_holds_until_it_is_settled(void **state)
{
	llmkit_limits *limits = limits_of(NULL, "m", NULL, 2);
	llmkit_lease a = { 0 }, b = { 0 };
	struct llmkit_verdict v;

	(void)state;
	assert_int_equal(
		llmkit_lease_acquire(limits,
			COST(.requests = 1, .input_tokens = 200, .output_tokens = 400), &a, &v),
		0);
	assert_string_equal(v.limit, "");
	assert_int_equal(v.wait_ns + v.asked + v.used + v.held + v.burst, 0);
	assert_int_equal(tokens().held, 600);
	assert_int_equal(
		llmkit_lease_acquire(limits,
			COST(.requests = 1, .input_tokens = 400, .output_tokens = 100), &b, &v),
		LLMKIT_E_LIMITED);
	assert_string_equal(v.limit, "model m tokens");
	assert_int_equal(v.asked, 500);
	assert_int_equal(v.held, 600);
	assert_int_equal(v.used, 0);
	assert_int_equal(v.burst, 1000);
	assert_true(v.wait_ns == LLMKIT_WAIT_SETTLEMENT);
	/* What was refused took nothing, and is no lease. */
	assert_int_equal(mini_view(&mini, BUCKET_SCOPE_MODEL, BUCKET_REQUESTS, "m").admitted, 1);
	assert_int_equal(llmkit_settle(&b, COST(.input_tokens = 5)), 0);
	assert_int_equal(llmkit_settle(&a, COST(.input_tokens = 210, .output_tokens = 40)), 0);
	assert_int_equal(tokens().held, 0);
	assert_int_equal(tokens().owed, 250);
	/* Once is enough. */
	assert_int_equal(llmkit_settle(&a, COST(.input_tokens = 210)), 0);
	assert_int_equal(tokens().owed, 250);
	assert_int_equal(
		llmkit_lease_acquire(limits, COST(.requests = 1, .input_tokens = 700), &b, &v), 0);
	assert_int_equal(llmkit_cancel(&b), 0);
	assert_int_equal(tokens().held, 0);
	assert_int_equal(tokens().owed, 250);
	llmkit_limits_close(limits);
}

static void tokens_settle_while_a_stream_runs(void **state)
{
	llmkit_limits *limits = limits_of(NULL, "m", NULL, 2);
	llmkit_lease a = { 0 };

	(void)state;
	assert_int_equal(
		llmkit_lease_acquire(limits,
			COST(.requests = 1, .input_tokens = 100, .output_tokens = 300), &a, NULL),
		0);
	assert_int_equal(llmkit_progress(&a, COST(.input_tokens = 100, .output_tokens = 50)), 0);
	assert_int_equal(tokens().owed, 150);
	assert_int_equal(tokens().held, 250);
	assert_int_equal(llmkit_progress(&a, COST(.output_tokens = 50)), 0);
	assert_int_equal(tokens().owed, 200);
	assert_int_equal(tokens().held, 200);
	/* More than was asked for is owed all the same. */
	assert_int_equal(llmkit_settle(&a, COST(.output_tokens = 400)), 0);
	assert_int_equal(tokens().owed, 600);
	assert_int_equal(tokens().held, 0);
	assert_int_equal(llmkit_progress(&a, COST(.output_tokens = 400)), 0);
	assert_int_equal(tokens().owed, 600);
	llmkit_limits_close(limits);
}

/* Nobody can say what it used: what it asked for and had not reported yet. */
static void unknown_use_counts_in_full(void **state)
{
	llmkit_limits *limits = limits_of(NULL, "m", NULL, 2);
	llmkit_lease a = { 0 };

	(void)state;
	assert_int_equal(
		llmkit_lease_acquire(limits,
			COST(.requests = 1, .input_tokens = 100, .output_tokens = 300), &a, NULL),
		0);
	assert_int_equal(llmkit_progress(&a, COST(.output_tokens = 120)), 0);
	assert_int_equal(llmkit_settle(&a, NULL), 0);
	assert_int_equal(tokens().owed, 400);
	assert_int_equal(tokens().held, 0);
	llmkit_limits_close(limits);
}

static void concurrency_is_for_leases(void **state)
{
	llmkit_limits *limits = limits_of("gate", NULL, NULL, 1);
	llmkit_lease lease[3] = { 0 };
	struct llmkit_verdict v;

	(void)state;
	assert_int_equal(llmkit_acquire(limits, 1, &v), LLMKIT_E_LEASE);
	assert_int_equal(llmkit_acquire_until(limits, 1, UINT64_MAX, &v), LLMKIT_E_LEASE);
	for (int i = 0; i < 2; i++)
		assert_int_equal(
			llmkit_lease_acquire(limits, COST(.requests = 1), &lease[i], &v), 0);
	assert_int_equal(
		llmkit_lease_acquire(limits, COST(.requests = 1), &lease[2], &v), LLMKIT_E_LIMITED);
	assert_string_equal(v.limit, "provider gate concurrency");
	assert_int_equal(v.asked, 1);
	assert_int_equal(v.held, 2);
	assert_int_equal(v.burst, 2);
	assert_true(v.wait_ns == LLMKIT_WAIT_SETTLEMENT);
	assert_int_equal(llmkit_peek(limits, COST(.requests = 1), &v), LLMKIT_E_LIMITED);
	assert_int_equal(at_gate(), 2);
	assert_int_equal(llmkit_cancel(&lease[0]), 0);
	assert_int_equal(llmkit_peek(limits, COST(.requests = 1), &v), 0);
	assert_int_equal(at_gate(), 1);
	assert_int_equal(llmkit_settle(&lease[1], COST(.requests = 1)), 0);
	assert_int_equal(at_gate(), 0);
	llmkit_limits_close(limits);
}

static void money_is_counted_by_the_day(void **state)
{
	llmkit_limits *limits = limits_of(NULL, NULL, "ann", 1);
	llmkit_lease a = { 0 };
	struct llmkit_limit_view view;
	struct llmkit_verdict v;

	(void)state;
	bucket_roll(&mini.region, clock_boottime_ns(), UINT64_C(1700000000) * NSEC_PER_SEC);
	assert_int_equal(
		llmkit_lease_acquire(limits, COST(.nanousd = 6000), &a, &v), LLMKIT_E_NEVER_FITS);
	assert_string_equal(v.limit, "user ann money");
	assert_int_equal(v.wait_ns, 0);
	assert_int_equal(v.asked, 6000);
	assert_int_equal(llmkit_lease_acquire(limits, COST(.nanousd = 4000), &a, &v), 0);
	assert_int_equal(llmkit_settle(&a, COST(.nanousd = 4100)), 0);
	assert_int_equal(llmkit_limits_view(limits, 0, &view), 0);
	assert_string_equal(view.label, "user ann money");
	assert_string_equal(view.resource, "money");
	assert_int_equal(view.used, 4100);
	assert_int_equal(view.limit, 5000);
	assert_int_equal(
		llmkit_lease_acquire(limits, COST(.nanousd = 1000), &a, &v), LLMKIT_E_LIMITED);
	assert_int_equal(v.used, 4100);
	assert_int_equal(v.burst, 5000);
	llmkit_limits_close(limits);
}

static void mistakes_are_told(void **state)
{
	llmkit_limits *limits = limits_of(NULL, "m", NULL, 2);
	llmkit_lease a = { 0 }, none = { 0 };
	struct llmkit_cost small = { .size = 4, .requests = 1 };
	struct llmkit_verdict v;

	(void)state;
	assert_int_equal(
		llmkit_lease_acquire(NULL, COST(.requests = 1), &a, &v), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_lease_acquire(limits, NULL, &a, &v), LLMKIT_E_ARGUMENT);
	assert_int_equal(
		llmkit_lease_acquire(limits, COST(.requests = 0), &a, &v), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_lease_acquire(limits, &small, &a, &v), LLMKIT_E_ARGUMENT);
	assert_int_equal(
		llmkit_lease_acquire(limits, COST(.requests = 1), NULL, &v), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_lease_acquire(limits, COST(.requests = 1), &a, &v), 0);
	assert_int_equal(
		llmkit_lease_acquire(limits, COST(.requests = 1), &a, &v), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_progress(&a, NULL), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_settle(NULL, NULL), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_cancel(NULL), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_cancel(&a), 0);
	assert_int_equal(llmkit_cancel(&a) | llmkit_cancel(&none), 0);
	assert_int_equal(llmkit_progress(&none, COST(.requests = 1)), 0);
	assert_int_equal(llmkit_settle(&none, NULL), 0);
	llmkit_limits_close(limits);
}

/* A caller built against a header whose struct ended before nanousd. */
static void an_older_cost_is_understood(void **state)
{
	llmkit_limits *limits = limits_of(NULL, NULL, "ann", 1);
	struct llmkit_cost old = {
		.size = offsetof(struct llmkit_cost, nanousd), .requests = 1, .nanousd = 1000000
	};
	llmkit_lease a = { 0 };

	(void)state;
	assert_int_equal(llmkit_lease_acquire(limits, &old, &a, NULL), 0);
	assert_int_equal(mini_view(&mini, BUCKET_SCOPE_USER, BUCKET_MONEY, "ann").held, 0);
	assert_int_equal(llmkit_cancel(&a), 0);
	llmkit_limits_close(limits);
}

/* ---- waiting ---- */

static llmkit_lease other;

static void settle_other(void)
{
	before_sleep = NULL;
	assert_int_equal(llmkit_settle(&other, COST(.requests = 1)), 0);
}

/* Between the last try and the sleep somebody settles: the sleep is none. */
static void a_settlement_before_the_sleep_is_not_missed(void **state)
{
	llmkit_limits *limits;
	llmkit_lease a = { 0 };

	(void)state;
	limit(BUCKET_SCOPE_PROVIDER, BUCKET_CONCURRENCY, "one", 1);
	limits = limits_of("one", NULL, NULL, 1);
	for (int i = 1; i <= 20; i++) {
		assert_int_equal(
			llmkit_lease_acquire(limits, COST(.requests = 1), &other, NULL), 0);
		before_sleep = settle_other;
		assert_int_equal(llmkit_lease_acquire_until(
					 limits, COST(.requests = 1), UINT64_MAX, &a, NULL),
			0);
		assert_int_equal(sleeps, i);
		assert_int_equal(woken, i);
		assert_int_equal(llmkit_cancel(&a), 0);
	}
	assert_int_equal(timed_out, 0);
	llmkit_limits_close(limits);
}

static uint32_t paused_row;

static void lift(void)
{
	before_sleep = NULL;
	bucket_unpause(&mini.region, paused_row);
}

static void a_lifted_pause_wakes(void **state)
{
	llmkit_limits *limits = limits_of(NULL, "m", NULL, 2);
	struct llmkit_verdict v;

	(void)state;
	paused_row = mini_row(&mini, BUCKET_SCOPE_MODEL, BUCKET_TOKENS, "m");
	bucket_pause(&mini.region, paused_row, clock_boottime_ns() + 600 * NSEC_PER_SEC,
		clock_boottime_ns());
	/* Tokens are not what is asked for, and yet they are paused. */
	assert_int_equal(llmkit_acquire(limits, 1, &v), LLMKIT_E_LIMITED);
	assert_string_equal(v.limit, "model m tokens");
	assert_true(v.wait_ns > 500 * NSEC_PER_SEC && v.wait_ns <= 600 * NSEC_PER_SEC);
	assert_int_equal(llmkit_limits_available(limits), 0);
	before_sleep = lift;
	assert_int_equal(llmkit_acquire_until(limits, 1, UINT64_MAX, &v), 0);
	assert_int_equal(llmkit_limits_available(limits), 999);
	assert_int_equal(woken, 1);
	assert_int_equal(sleeps, 1);
	llmkit_limits_close(limits);
}

static void a_deadline_is_not_slept_for_in_vain(void **state)
{
	llmkit_limits *limits = limits_of(NULL, "m", NULL, 2);
	uint64_t soon = llmkit_now_ns() + 3600 * NSEC_PER_SEC;
	llmkit_lease a = { 0 }, b = { 0 };
	struct llmkit_verdict v;

	(void)state;
	assert_int_equal(llmkit_lease_acquire(limits, COST(.input_tokens = 1000), &a, NULL), 0);
	assert_int_equal(llmkit_settle(&a, NULL), 0);
	/* Owed, not in flight: nothing but time helps, and there is too little. */
	assert_int_equal(
		llmkit_lease_acquire_until(limits, COST(.input_tokens = 900), soon, &b, &v),
		LLMKIT_E_LIMITED);
	assert_int_equal(sleeps, 0);
	assert_true(v.wait_ns > 3600 * NSEC_PER_SEC && v.wait_ns != LLMKIT_WAIT_SETTLEMENT);
	llmkit_limits_close(limits);
}

/* What is in flight may settle for less than it holds, so the deadline is waited for. */
static void what_is_in_flight_is_waited_for(void **state)
{
	llmkit_limits *limits = limits_of(NULL, "m", NULL, 2);
	llmkit_lease b = { 0 };
	struct llmkit_verdict v;

	(void)state;
	assert_int_equal(llmkit_lease_acquire(limits, COST(.input_tokens = 1000), &other, NULL), 0);
	assert_int_equal(llmkit_lease_acquire_until(limits, COST(.input_tokens = 900),
				 llmkit_now_ns() + 20 * NSEC_PER_MSEC, &b, &v),
		LLMKIT_E_LIMITED);
	assert_true(sleeps > 0);
	before_sleep = settle_other;
	assert_int_equal(llmkit_lease_acquire_until(limits, COST(.input_tokens = 900),
				 llmkit_now_ns() + WAIT_NS, &b, &v),
		0);
	assert_int_equal(llmkit_cancel(&b), 0);
	llmkit_limits_close(limits);
}

/* ---- processes ---- */

static int in_child(void (*body)(void))
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		alarm(60);
		body();
		_exit(0);
	}
	return waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static llmkit_limits *gate;

static void die_holding(void)
{
	llmkit_lease own = { 0 };

	child_check(llmkit_progress(&other, COST(.requests = 1)) == LLMKIT_E_FORKED);
	child_check(llmkit_settle(&other, NULL) == LLMKIT_E_FORKED);
	child_check(llmkit_cancel(&other) == LLMKIT_E_FORKED);
	child_check(llmkit_lease_acquire(gate, COST(.requests = 1), &own, NULL) == 0);
	child_check(at_gate() == 2);
}

static uint32_t row_of_others(void)
{
	struct participant_view v;

	for (uint32_t row = 0; participant_view(&mini.region, row, &v); row++)
		if (v.state != PARTICIPANT_FREE && v.pid != (uint64_t)getpid())
			return row;
	return UINT32_MAX;
}

/* A child's holds are its own: its death gives back what it held, and nothing of its parent's. */
static void what_a_dead_child_held_comes_back(void **state)
{
	uint32_t row;

	(void)state;
	gate = limits_of("gate", NULL, NULL, 1);
	assert_int_equal(llmkit_lease_acquire(gate, COST(.requests = 1), &other, NULL), 0);
	assert_int_equal(in_child(die_holding), 0);
	assert_int_equal(at_gate(), 2);
	row = row_of_others();
	assert_true(row != UINT32_MAX);
	assert_int_equal(
		hold_reap(&mini.region, participant_owner(&mini.region, row), clock_boottime_ns()),
		1);
	assert_int_equal(at_gate(), 1);
	assert_int_equal(llmkit_settle(&other, NULL), 0);
	assert_int_equal(at_gate(), 0);
	llmkit_limits_close(gate);
}

static void hold_without_a_daemon(void)
{
	llmkit_lease own = { 0 };

	child_check(
		llmkit_lease_acquire(gate, COST(.requests = 1), &own, NULL) == LLMKIT_E_NO_DAEMON);
	child_check(llmkit_lease_acquire_until(gate, COST(.requests = 1), UINT64_MAX, &own, NULL) ==
		LLMKIT_E_NO_DAEMON);
	child_check(llmkit_peek(gate, COST(.requests = 1), NULL) == 0);
	child_check(at_gate() == 0);
}

static void without_a_daemon_only_who_attached_holds(void **state)
{
	llmkit_lease a = { 0 };

	(void)state;
	gate = limits_of("gate", NULL, NULL, 1);
	mini_kill(&mini);
	assert_int_equal(in_child(hold_without_a_daemon), 0);
	assert_int_equal(llmkit_lease_acquire(gate, COST(.requests = 1), &a, NULL), 0);
	assert_int_equal(at_gate(), 1);
	assert_int_equal(llmkit_settle(&a, NULL), 0);
	llmkit_limits_close(gate);
}

/* What is held stays held over daemons, and is given back to where it was taken. */
static void a_lease_outlives_the_daemon(void **state)
{
	llmkit_lease kept = { 0 }, moved = { 0 }, b = { 0 };
	char *json;

	(void)state;
	gate = limits_of("gate", NULL, NULL, 1);
	assert_int_equal(llmkit_lease_acquire(gate, COST(.requests = 1), &kept, NULL), 0);
	assert_int_equal(llmkit_lease_acquire(gate, COST(.requests = 1), &moved, NULL), 0);
	mini_kill(&mini);
	mini_start(&mini, PARTICIPANT);
	assert_int_equal(llmkit_status(kit, -1, &json), 0);
	free(json);
	assert_int_equal(at_gate(), 2);
	assert_int_equal(llmkit_settle(&kept, NULL), 0);
	assert_int_equal(llmkit_lease_acquire(gate, COST(.requests = 1), &b, NULL), 0);
	assert_int_equal(at_gate(), 2);
	assert_int_equal(llmkit_settle(&b, NULL), 0);
	assert_int_equal(at_gate(), 1);
	mini_kill(&mini);
	mini_new_region(&mini);
	limit(BUCKET_SCOPE_PROVIDER, BUCKET_CONCURRENCY, "gate", 2);
	mini_start(&mini, PARTICIPANT);
	assert_int_equal(llmkit_status(kit, -1, &json), 0);
	free(json);
	assert_int_equal(llmkit_lease_acquire(gate, COST(.requests = 1), &b, NULL), 0);
	assert_int_equal(at_gate(), 1);
	assert_int_equal(llmkit_progress(&moved, COST(.input_tokens = 1)), 0);
	assert_int_equal(llmkit_settle(&moved, NULL), 0);
	assert_int_equal(at_gate(), 1);
	assert_int_equal(llmkit_settle(&b, NULL), 0);
	assert_int_equal(at_gate(), 0);
	llmkit_limits_close(gate);
}

/* Two handles are two participants; what one holds does not depend on the other. */
static void handles_hold_for_themselves(void **state)
{
	llmkit_lease a = { 0 }, b = { 0 };
	llmkit_limits *second;
	llmkit *two;

	(void)state;
	gate = limits_of("gate", NULL, NULL, 1);
	assert_int_equal(mini_open(&mini, &two), 0);
	assert_int_equal(llmkit_limits_open(two,
				 &(struct llmkit_scope){
					 .size = sizeof(struct llmkit_scope), .provider = "gate" },
				 &second),
		0);
	assert_int_equal(llmkit_lease_acquire(gate, COST(.requests = 1), &a, NULL), 0);
	assert_int_equal(llmkit_lease_acquire(second, COST(.requests = 1), &b, NULL), 0);
	assert_int_equal(at_gate(), 2);
	assert_int_equal(llmkit_settle(&b, NULL), 0);
	llmkit_limits_close(second);
	llmkit_close(two);
	assert_int_equal(at_gate(), 1);
	assert_int_equal(llmkit_lease_acquire(gate, COST(.requests = 1), &b, NULL), 0);
	assert_int_equal(llmkit_settle(&b, NULL), 0);
	assert_int_equal(llmkit_settle(&a, NULL), 0);
	assert_int_equal(at_gate(), 0);
	llmkit_limits_close(gate);
}

static void without_a_row_nothing_is_held(void **state)
{
	llmkit_limits *limits;
	llmkit_lease a = { 0 };

	(void)state;
	llmkit_close(kit);
	mini_kill(&mini);
	mini_start(&mini, &(struct mini_script){ .role = MSG_ROLE_PARTICIPANT, .no_owner = true });
	assert_int_equal(mini_open(&mini, &kit), 0);
	limits = limits_of("gate", NULL, NULL, 1);
	assert_int_equal(
		llmkit_lease_acquire(limits, COST(.requests = 1), &a, NULL), LLMKIT_E_BUSY);
	llmkit_limits_close(limits);
	/* Where nothing has to be held, nothing is missed. */
	limit(BUCKET_SCOPE_USER, BUCKET_REQUESTS, "bob", 10);
	limits = limits_of(NULL, NULL, "bob", 1);
	assert_int_equal(llmkit_lease_acquire(limits, COST(.requests = 1), &a, NULL), 0);
	assert_int_equal(llmkit_cancel(&a), 0);
	llmkit_limits_close(limits);
}

/* ---- threads ---- */

#define THREADS 8
#define ROUNDS 300

static _Atomic int inside, most_inside;

static void *pass_the_gate(void *limits)
{
	for (int i = 0; i < ROUNDS; i++) {
		llmkit_lease a = { 0 };
		int now;

		if (llmkit_lease_acquire_until(limits, COST(.requests = 1, .input_tokens = 2),
			    UINT64_MAX, &a, NULL) != 0)
			return (void *)"not admitted";
		now = ++inside;
		if (now > most_inside)
			most_inside = now;
		inside--;
		if (i % 3 == 0 ? llmkit_cancel(&a) : llmkit_settle(&a, COST(.input_tokens = 0)))
			return (void *)"not ended";
	}
	return NULL;
}

static void threads_share_a_gate(void **state)
{
	llmkit_limits *limits = limits_of("gate", "m", NULL, 3);
	pthread_t thread[THREADS];

	(void)state;
	inside = most_inside = 0;
	limit(BUCKET_SCOPE_MODEL, BUCKET_REQUESTS, "m", 1000000);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, pass_the_gate, limits), 0);
	for (int i = 0; i < THREADS; i++) {
		void *wrong;

		pthread_join(thread[i], &wrong);
		if (wrong)
			fail_msg("%s", (const char *)wrong);
	}
	assert_in_range(most_inside, 1, 2);
	assert_int_equal(at_gate(), 0);
	assert_int_equal(tokens().held, 0);
	llmkit_limits_close(limits);
}

/* ---- garbage ---- */

static bool is_known(int r)
{
	return r == 0 || (r <= -1 && r >= -99) || r == LLMKIT_E_REGION || r == LLMKIT_E_LEASE ||
		r == LLMKIT_E_DAEMON_LOST || r == LLMKIT_E_NO_DAEMON || r == LLMKIT_E_ARGUMENT;
}

/* Whatever another process writes there, calls return, and soon. */
static void garbage_in_the_region_is_survived(void **state)
{
	llmkit_limits *limits = limits_of("gate", "m", "ann", 4);
	uint64_t *word = mini.region.map, seed = 11;
	size_t words = mini.region.size / sizeof(*word);
	llmkit_lease held = { 0 };

	(void)state;
	assert_int_equal(
		llmkit_lease_acquire(limits, COST(.requests = 1, .input_tokens = 9), &held, NULL),
		0);
	for (int round = 0; round < 10; round++) {
		for (size_t i = 0; i < words; i++)
			word[i] = round % 4 == 3 ? UINT64_MAX :
						   splitmix_next(&seed) >> (round % 5 * 12);
		for (uint64_t i = 1; i <= 50; i++) {
			llmkit_lease a = { 0 };
			struct llmkit_verdict v;
			struct llmkit_limit_view view;

			assert_true(is_known(llmkit_lease_acquire(limits,
				COST(.requests = i, .input_tokens = i * i * i * i), &a, &v)));
			assert_true(is_known(llmkit_progress(&a, COST(.input_tokens = i * i))));
			assert_true(is_known(llmkit_progress(&held, COST(.output_tokens = i))));
			assert_true(is_known(llmkit_limits_view(limits, 0, &view)));
			assert_true(is_known(i % 2 ? llmkit_settle(&a, NULL) : llmkit_cancel(&a)));
		}
	}
	assert_int_equal(llmkit_settle(&held, NULL), 0);
	llmkit_limits_close(limits);
}

#define test_(name_) cmocka_unit_test_setup_teardown(name_, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_(a_lease_holds_until_it_is_settled),
		test_(tokens_settle_while_a_stream_runs),
		test_(unknown_use_counts_in_full),
		test_(concurrency_is_for_leases),
		test_(money_is_counted_by_the_day),
		test_(mistakes_are_told),
		test_(an_older_cost_is_understood),
		test_(a_settlement_before_the_sleep_is_not_missed),
		test_(a_lifted_pause_wakes),
		test_(a_deadline_is_not_slept_for_in_vain),
		test_(what_is_in_flight_is_waited_for),
		test_(what_a_dead_child_held_comes_back),
		test_(without_a_daemon_only_who_attached_holds),
		test_(a_lease_outlives_the_daemon),
		test_(handles_hold_for_themselves),
		test_(without_a_row_nothing_is_held),
		test_(threads_share_a_gate),
		test_(garbage_in_the_region_is_survived),
	};

	return cmocka_run_group_tests_name("lease", tests, NULL, NULL);
}
