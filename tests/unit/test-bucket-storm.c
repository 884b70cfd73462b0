#include "shm/bucket.h"

#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include "tests/unit/bucket-lease.h"
#include "tests/unit/splitmix.h"

/* Leases against the provider's own bucket, which may count at any instant of a call: random
 * histories, where others act before every store; threads; processes. */

/* ---- random histories ---- */

enum { ITEMS = 96, LIVE = 6, DEPTH = 3, LIMITS = 6 };

/* What the provider may charge for at any time from start to end, and how much of it was more than
 * was held. */
struct item {
	uint64_t units, asked_ns, start_ns, end_ns, over, over_ns;
};

static struct storm {
	struct fixture f;
	struct bucket_set set;
	uint64_t seed;
	struct item items[ITEMS];
	unsigned count, depth, limit_count;
	struct {
		struct bucket_lease lease;
		uint64_t asked_ns, start_ns, left; /* of the estimate */
		bool live;
	} slots[LIVE];
	struct {
		uint64_t rate, burst, from_ns, to_ns;
	} limits[LIMITS];
	uint64_t paused_ns;
	bool changes, overshoots;
	bool changing; /* there is one daemon */
} storm;

static uint64_t pick(uint64_t below)
{
	return splitmix_below(&storm.seed, below);
}

/* The part is over for the provider before it is settled. */
static void storm_note(unsigned slot, uint64_t units)
{
	uint64_t held = min_u64(units, storm.slots[slot].left);

	storm.slots[slot].left -= held;
	if (units > 0 && storm.count < ITEMS)
		storm.items[storm.count++] = (struct item){ units, storm.slots[slot].asked_ns,
			storm.slots[slot].start_ns, fixture_clock_ns, units - held, UINT64_MAX };
}

/* A slot whose lease has no set is in somebody's hands. */
static void storm_settle(unsigned slot)
{
	struct bucket_lease l = storm.slots[slot].lease;
	uint64_t units = pick(storm.slots[slot].left + 1), now = fixture_clock_ns;
	bool end = pick(3) > 0;
	unsigned item;

	if (storm.count == ITEMS)
		return;
	if (storm.overshoots && pick(3) == 0)
		units += pick(15);
	storm_note(slot, units);
	item = storm.count - 1;
	storm.slots[slot].lease.set = NULL;
	if (end)
		bucket_settle(&storm.f.r, &l, TOKENS(units), now);
	else
		bucket_progress(&storm.f.r, &l, TOKENS(units), now);
	storm.slots[slot].lease = l;
	storm.slots[slot].live = !end;
	if (units > 0)
		storm.items[item].over_ns = fixture_clock_ns;
}

static void storm_lease(unsigned slot)
{
	uint64_t n = 1 + pick(12), now = fixture_clock_ns;
	bool paused_now = storm.paused_ns > now;
	struct bucket_lease l;

	storm.slots[slot].live = true;
	storm.slots[slot].lease.set = NULL;
	if (lease(&storm.f, &storm.set, n, now, &l).outcome != BUCKET_OK) {
		storm.slots[slot].live = false;
		return;
	}
	assert_false(paused_now);
	if (pick(6) == 0) {
		bucket_cancel(&storm.f.r, &l, fixture_clock_ns);
		storm.slots[slot].live = false;
		return;
	}
	storm.slots[slot].lease = l;
	storm.slots[slot].asked_ns = now;
	storm.slots[slot].start_ns = fixture_clock_ns;
	storm.slots[slot].left = n;
}

static void storm_change(void)
{
	unsigned n = storm.limit_count;

	if (n == LIMITS || storm.changing)
		return;
	storm.changing = true;
	storm.limits[n].rate = 1000 / (1 + pick(10));
	storm.limits[n].burst = 10 + pick(20);
	storm.limits[n].from_ns = fixture_clock_ns;
	storm.limits[n].to_ns = UINT64_MAX;
	storm.limit_count++;
	fixture_limit_of(&storm.f, BUCKET_SCOPE_USER, BUCKET_TOKENS, "u", storm.limits[n].rate,
		storm.limits[n].burst);
	if (n > 0)
		storm.limits[n - 1].to_ns = fixture_clock_ns;
	storm.changing = false;
}

static void storm_act(void)
{
	unsigned slot = (unsigned)pick(LIVE);

	fixture_clock_ns += pick(3) == 0 ? pick(8 * SECOND / 1000) : 0;
	if (storm.changes && pick(20) == 0)
		storm_change();
	else if (storm.changes && pick(40) == 0) {
		uint64_t until_ns = max_u64(storm.paused_ns, fixture_clock_ns + SECOND / 100);

		bucket_pause(&storm.f.r, storm.set.index[0], until_ns, fixture_clock_ns);
		storm.paused_ns = max_u64(storm.paused_ns, until_ns);
	} else if (!storm.slots[slot].live)
		storm_lease(slot);
	else if (storm.slots[slot].lease.set)
		storm_settle(slot);
}

static void storm_others(void)
{
	if (storm.depth >= DEPTH)
		return;
	storm.depth++;
	for (uint64_t acts = pick(3); acts > 0; acts--)
		storm_act();
	storm.depth--;
}

/* What may have been charged from a to b, where the last call began that was asked for at asked,
 * against the loosest limit since the first was asked for. */
static bool window_is_within_bounds(uint64_t a_ns, uint64_t b_ns, uint64_t asked_ns)
{
	uint64_t sum = 0, over = 0, from_ns = a_ns, rate = 0, burst = 0;

	for (unsigned i = 0; i < storm.count; i++) {
		const struct item *item = &storm.items[i];

		if (item->start_ns > b_ns || item->end_ns < a_ns)
			continue;
		sum += item->units;
		/* Not known here when the last was admitted. */
		if (item->over_ns >= asked_ns)
			over += item->over;
		from_ns = min_u64(from_ns, item->asked_ns);
	}
	for (unsigned i = 0; i < storm.limit_count; i++) {
		if (storm.limits[i].from_ns > b_ns || storm.limits[i].to_ns < from_ns)
			continue;
		rate = max_u64(rate, storm.limits[i].rate);
		burst = max_u64(burst, storm.limits[i].burst);
	}
	return (sum - min_u64(sum, over + burst)) * SECOND <= rate * (b_ns - a_ns);
}

/* The worst windows begin where a call ends and end where one starts; and the instants. */
static bool storm_is_within_bounds(void)
{
	for (unsigned i = 0; i < storm.count; i++)
		for (unsigned j = 0; j < storm.count; j++) {
			uint64_t b = storm.items[j].start_ns;

			if (!window_is_within_bounds(
				    min_u64(storm.items[i].end_ns, b), b, storm.items[j].asked_ns))
				return false;
		}
	return true;
}

static void storms_stay_within_bounds(unsigned histories, bool changes, bool overshoots)
{
	struct region_sizes sizes = { .limits = 16, .holds = 16, .targets = 1 };
	unsigned settled = 0;

	for (unsigned history = 0; history < histories; history++) {
		storm = (struct storm){ .f = fixture_open_sized(&sizes, false),
			.seed = history,
			.changes = changes,
			.overshoots = overshoots };
		fixture_clock_ns = NOW;
		storm_change();
		fixture_add_of(&storm.set, &storm.f, BUCKET_SCOPE_USER, BUCKET_TOKENS, "u");
		if (history % 2) {
			fixture_limit(&storm.f, BUCKET_SCOPE_USER, "u", 900, 9);
			fixture_limit_of(&storm.f, BUCKET_SCOPE_MODEL, BUCKET_TOKENS, "m", 900, 25);
			fixture_add(&storm.set, &storm.f, BUCKET_SCOPE_USER, "u");
			fixture_add_of(
				&storm.set, &storm.f, BUCKET_SCOPE_MODEL, BUCKET_TOKENS, "m");
		}
		others = storm_others;
		for (int i = 0; i < 150; i++)
			storm_act();
		others = NULL;
		settled += storm.count;
		if (!storm_is_within_bounds())
			fail_msg("history %u", history);
		fixture_close(&storm.f);
	}
	assert_true(settled > 20 * histories);
}

#ifdef __SANITIZE_THREAD__
#define HISTORIES 60
#else
#define HISTORIES 600
#endif

static void provider_never_refuses_what_is_estimated(void **state)
{
	(void)state;
	storms_stay_within_bounds(HISTORIES, false, false);
}

static void overshoot_costs_no_more_than_itself(void **state)
{
	(void)state;
	storms_stay_within_bounds(HISTORIES, false, true);
}

static void changes_and_pauses_stay_within_the_bound(void **state)
{
	(void)state;
	storms_stay_within_bounds(HISTORIES, true, false);
	storms_stay_within_bounds(HISTORIES, true, true);
}

/* ---- threads and processes ---- */

enum { CREW = 4, CREW_BURST = 100 };

struct crew {
	struct fixture *f;
	struct bucket_set set;
	_Atomic uint64_t in_flight, used, admitted, next;
};

/* Time stands still: what is in flight and what was used never exceed the burst together. */
static void crew_work(struct crew *c, uint64_t owner, int rounds)
{
	uint64_t seed = owner;

	for (int i = 0; i < rounds; i++) {
		uint64_t n = 1 + splitmix_below(&seed, 40), use = 0;
		struct bucket_lease l;

		if (bucket_lease(&c->f->r, owner, &c->set, TOKENS(n), NOW, &l).outcome != BUCKET_OK)
			continue;
		atomic_fetch_add(&c->admitted, 1);
		if (atomic_fetch_add(&c->in_flight, n) + n > CREW_BURST)
			atomic_store(&c->used, UINT64_MAX / 2);
		if (splitmix_below(&seed, 200) == 0)
			use = splitmix_below(&seed, 2);
		atomic_fetch_add(&c->used, use);
		/* in_flight keeps what was used. */
		atomic_fetch_sub(&c->in_flight, n - use);
		if (use == 0 && splitmix_below(&seed, 2))
			bucket_cancel(&c->f->r, &l, NOW);
		else
			bucket_settle(
				&c->f->r, &l, &(struct bucket_cost){ .input_tokens = use }, NOW);
	}
}

static void crew_check(struct crew *c)
{
	struct bucket_view v = view_at(c->f, c->set.index[0], NOW);

	assert_in_range(atomic_load(&c->used), 0, CREW_BURST);
	assert_int_equal(atomic_load(&c->in_flight), atomic_load(&c->used));
	assert_int_equal(v.owed, atomic_load(&c->used));
	assert_int_equal(v.held, 0);
	assert_int_equal(holds_in_use(c->f), 0);
	assert_true(atomic_load(&c->admitted) > 100);
}

static void *crew_thread(void *arg)
{
	struct crew *c = arg;

	crew_work(c, (UINT64_C(1) << 16) + atomic_fetch_add(&c->next, 1), 20000);
	return NULL;
}

static void crew_open(struct crew *c, struct fixture *f)
{
	*c = (struct crew){ .f = f, .set = token_set(f, 1000, CREW_BURST) };
	fixture_limit_of(f, BUCKET_SCOPE_MODEL, BUCKET_TOKENS, "m", 1000, CREW_BURST + 20);
	fixture_limit_of(f, BUCKET_SCOPE_MODEL, BUCKET_CONCURRENCY, "m", 3, 3);
	fixture_add_of(&c->set, f, BUCKET_SCOPE_MODEL, BUCKET_TOKENS, "m");
	fixture_add_of(&c->set, f, BUCKET_SCOPE_MODEL, BUCKET_CONCURRENCY, "m");
}

static void threads_share_a_limit_exactly(void **state)
{
	struct fixture f = fixture_open(false);
	struct crew c;
	pthread_t threads[CREW];

	(void)state;
	crew_open(&c, &f);
	for (int i = 0; i < CREW; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, crew_thread, &c), 0);
	for (int i = 0; i < CREW; i++)
		pthread_join(threads[i], NULL);
	crew_check(&c);
	fixture_close(&f);
}

static void processes_share_a_limit_exactly(void **state)
{
	struct fixture f = fixture_open(false);
	struct crew *c =
		mmap(NULL, sizeof(*c), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t child[CREW];
	int status;

	(void)state;
	assert_true(c != MAP_FAILED);
	crew_open(c, &f);
	for (unsigned i = 0; i < CREW; i++) {
		child[i] = fork();
		assert_true(child[i] >= 0);
		if (child[i] == 0) {
			crew_work(c, (UINT64_C(1) << 16) + i, 20000);
			_exit(0);
		}
	}
	for (unsigned i = 0; i < CREW; i++) {
		assert_int_equal(waitpid(child[i], &status, 0), child[i]);
		assert_int_equal(status, 0);
	}
	crew_check(c);
	munmap(c, sizeof(*c));
	fixture_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(provider_never_refuses_what_is_estimated),
		cmocka_unit_test(overshoot_costs_no_more_than_itself),
		cmocka_unit_test(changes_and_pauses_stay_within_the_bound),
		cmocka_unit_test(threads_share_a_limit_exactly),
		cmocka_unit_test(processes_share_a_limit_exactly),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
