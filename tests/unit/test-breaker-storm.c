/* A breaker under garbage, under threads, and under processes that die on its probes. */

#include "shm/breaker.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>
#include "shm/breaker_word.h"
#include "tests/unit/breaker-helpers.h"

/* ---- garbage ---- */

static void scramble(struct kit *k, uint64_t *random)
{
	uint64_t *word = (uint64_t *)k->b;

	for (size_t w = 0; w < sizeof(*k->b) / (sizeof(*word)); w++)
		if (splitmix_below(random, 3) != 0)
			word[w] = splitmix_next(random) >> splitmix_below(random, 64);
}

static void do_anything(struct kit *k, uint64_t *random)
{
	struct breaker_ticket ticket;
	struct breaker_view view;
	uint64_t wait_ns;

	kit_allow(k, splitmix_below(random, 9), &ticket);
	kit_report(k, &ticket, (enum breaker_outcome)splitmix_below(random, 4),
		splitmix_next(random) >> splitmix_below(random, 64));
	ticket.slot = (uint32_t)splitmix_below(random, 6);
	ticket.word = splitmix_next(random);
	kit_report(k, &ticket, (enum breaker_outcome)splitmix_below(random, 4), 5 * MS);
	breaker_check(&k->r, ROW, k->now, &wait_ns);
	breaker_ramp(&k->r, ROW, k->now);
	breaker_error_ratio(&k->r, ROW, k->now);
	breaker_view(&k->r, ROW, k->now, &view);
	breaker_reap(&k->r, kit_owner(splitmix_below(random, 9)));
	breaker_tell(&k->r, k->now);
	if (splitmix_below(random, 4) == 0)
		breaker_adopt(&k->r, k->now);
}

/* Any bits in every word, at any time: it answers, and closes again when calls succeed. */
static void garbage_is_survived(void **state)
{
	struct breaker_settings s = breaker_preset(BREAKER_PRODUCTION);
	uint64_t random = 77;

	(void)state;
	for (int i = 0; i < 20000; i++) {
		struct kit k = kit_production();
		int tries = 0;

		scramble(&k, &random);
		k.now = splitmix_next(&random) >> splitmix_below(&random, 64);
		for (int n = 0; n < 4; n++) {
			do_anything(&k, &random);
			k.now += splitmix_next(&random) >> splitmix_below(&random, 64);
		}
		k.now = T0 + splitmix_next(&random) % T0;
		breaker_configure(&k.r, ROW, &s);
		if (kit_view(&k).forced)
			breaker_force_close(&k.r, ROW, k.now);
		while (kit_state(&k) != BREAKER_CLOSED && tries++ < 20) {
			k.now += 181 * SECOND;
			kit_call(&k, BREAKER_OK, 0);
		}
		assert_int_equal(kit_state(&k), BREAKER_CLOSED);
		kit_close(&k);
	}
}

/* ---- many at once ---- */

#define WORKERS 6
#define THREAD_CALLS 60000
#define KILLS 120

/* has: a field for each worker, of the generation of its probe, set after it got the ticket and
 * cleared before it reports; one word, so that whoever sets it sees all at one instant. */
struct storm {
	struct kit k;
	_Atomic uint64_t has;
	_Atomic uint64_t now_ns, probes, broken, calls;
};

static void storm_open(struct storm *s)
{
	struct breaker_settings settings = breaker_preset(BREAKER_PRODUCTION);

	settings.lease_ms = 2000;
	settings.base_ms = 100;
	settings.cap_ms = 400;
	s->k = kit_with(settings);
	atomic_store(&s->now_ns, T0);
}

#define FIELD_BITS 10
#define FIELD_MASK ((UINT64_C(1) << FIELD_BITS) - 1)

static uint64_t storm_field(uint64_t has, int who)
{
	return has >> (who * FIELD_BITS) & FIELD_MASK;
}

/* Never more than the configured probes of one generation. */
static void storm_take(struct storm *s, int who, unsigned generation)
{
	uint64_t field = generation % FIELD_MASK + 1;
	uint64_t has = field << (who * FIELD_BITS);
	unsigned out = 0;

	has += atomic_fetch_add(&s->has, has);
	for (int i = 0; i < WORKERS; i++)
		out += storm_field(has, i) == field;
	if (out > 2)
		atomic_fetch_add(&s->broken, 1);
}

static void storm_drop(struct storm *s, int who)
{
	uint64_t field = storm_field(atomic_load(&s->has), who);

	atomic_fetch_sub(&s->has, field << (who * FIELD_BITS));
}

/* One call; a process with dies set may die at any place of it where it has a ticket. */
static void storm_call(struct storm *s, int who, uint64_t owner, uint64_t *random, bool dies)
{
	uint64_t now_ns = atomic_fetch_add(&s->now_ns, splitmix_below(random, 3) * MS);
	struct breaker_report report = { splitmix_below(random, 3) == 0 ? BREAKER_FAILED :
									  BREAKER_OK,
		splitmix_below(random, 1000) * MS };
	struct breaker_ticket ticket;
	enum breaker_verdict verdict;
	uint64_t wait_ns;

	verdict = breaker_allow(
		&s->k.r, ROW, owner, now_ns, splitmix_next(random), &ticket, &wait_ns);
	atomic_fetch_add(&s->calls, 1);
	if (verdict == BREAKER_REJECT)
		return;
	if (verdict == BREAKER_PROBE) {
		atomic_fetch_add(&s->probes, 1);
		storm_take(s, who, breaker_ticket_generation(ticket.word));
		if (dies && splitmix_below(random, 20) == 0)
			raise(SIGKILL);
		sched_yield();
		/* Some forget to report: the lease is for them. */
		storm_drop(s, who);
		if (splitmix_below(random, 50) == 0)
			return;
	}
	breaker_record(&s->k.r, &ticket, &report, now_ns, splitmix_next(random));
}

static void storm_ends_well(struct storm *s)
{
	int tries = 0;

	assert_int_equal(atomic_load(&s->broken), 0);
	assert_true(atomic_load(&s->probes) > 100);
	s->k.now = atomic_load(&s->now_ns);
	while (kit_state(&s->k) != BREAKER_CLOSED && tries++ < 20) {
		s->k.now += 3 * SECOND;
		kit_call(&s->k, BREAKER_OK, 0);
	}
	assert_int_equal(kit_state(&s->k), BREAKER_CLOSED);
}

struct storm_thread {
	struct storm *storm;
	int who;
};

static void *storm_thread(void *arg)
{
	struct storm_thread *t = arg;
	uint64_t random = (uint64_t)t->who * 31 + 5;

	for (int i = 0; i < THREAD_CALLS; i++)
		storm_call(t->storm, t->who, kit_owner((uint64_t)t->who + 1), &random, false);
	return NULL;
}

static void threads_never_have_too_many_probes(void **state)
{
	struct storm s = { 0 };
	struct storm_thread t[WORKERS];
	pthread_t thread[WORKERS];

	(void)state;
	storm_open(&s);
	for (int i = 0; i < WORKERS; i++) {
		t[i] = (struct storm_thread){ &s, i };
		assert_int_equal(pthread_create(&thread[i], NULL, storm_thread, &t[i]), 0);
	}
	for (int i = 0; i < WORKERS; i++)
		pthread_join(thread[i], NULL);
	storm_ends_well(&s);
	kit_close(&s.k);
}

static pid_t storm_fork(struct storm *s, int who, uint64_t generation)
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid > 0)
		return pid;
	uint64_t random = (uint64_t)who * 1000003 + generation;

	for (int i = 0; i < 1000000; i++)
		storm_call(s, who, ((uint64_t)who + 1) | generation << 16, &random, true);
	_exit(1);
}

/* Processes that die on their probes, again and again: never too many, never stuck. The parent is
 * the daemon: it reaps. */
static void processes_that_die_on_probes_leave_nothing(void **state)
{
	struct storm *s =
		mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t pid[WORKERS];
	uint64_t generation[WORKERS];
	int left = KILLS;

	(void)state;
	assert_ptr_not_equal(s, MAP_FAILED);
	storm_open(s);
	for (int i = 0; i < WORKERS; i++) {
		generation[i] = 1;
		pid[i] = storm_fork(s, i, generation[i]);
	}
	while (left-- > 0) {
		pid_t dead = wait(NULL);

		for (int i = 0; i < WORKERS; i++) {
			if (pid[i] != dead)
				continue;
			storm_drop(s, i);
			breaker_reap(&s->k.r, ((uint64_t)i + 1) | generation[i] << 16);
			pid[i] = storm_fork(s, i, ++generation[i]);
		}
	}
	for (int i = 0; i < WORKERS; i++) {
		kill(pid[i], SIGKILL);
		waitpid(pid[i], NULL, 0);
		storm_drop(s, i);
		breaker_reap(&s->k.r, ((uint64_t)i + 1) | generation[i] << 16);
	}
	breaker_tell(&s->k.r, atomic_load(&s->now_ns) + 10 * SECOND);
	storm_ends_well(s);
	kit_close(&s->k);
	munmap(s, sizeof(*s));
}

/* Nothing is lost while nobody dies: counts are exact. */
static void *count_calls(void *arg)
{
	struct kit k = *(struct kit *)arg;

	k.random = (uint64_t)(uintptr_t)&k;
	for (int i = 0; i < THREAD_CALLS; i++) {
		k.now += MS;
		kit_call(&k, i % 3 ? BREAKER_OK : BREAKER_FAILED, 100 * MS);
	}
	return NULL;
}

static void threads_count_exactly(void **state)
{
	struct kit k = kit_open();
	pthread_t thread[4];
	struct breaker_view v;

	(void)state;
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, count_calls, &k), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(thread[i], NULL);
	k.now += THREAD_CALLS * MS;
	v = kit_view(&k);
	assert_int_equal(v.requests, 4 * THREAD_CALLS);
	assert_int_equal(v.errors, 4 * THREAD_CALLS / 3);
	assert_int_equal(v.mean_us, 100000);
	kit_close(&k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(garbage_is_survived),
		cmocka_unit_test(threads_never_have_too_many_probes),
		cmocka_unit_test(processes_that_die_on_probes_leave_nothing),
		cmocka_unit_test(threads_count_exactly),
	};

	return cmocka_run_group_tests_name("breaker-storm", tests, NULL, NULL);
}
