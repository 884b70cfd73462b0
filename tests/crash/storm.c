/*
 * Real processes lease and settle on one region, as fast as the limits let them, while one of them
 * after the other is killed at whatever instruction it is at, reaped and started again, and others
 * are stopped for a while. Shown: never more requests and tokens than burst + rate * t, never more
 * at once than the limit of concurrency, what a stopped process holds stays its own, no total ever
 * differs from what the holds say, and nothing is held at the end.
 *
 *     storm [--seconds N] [--admissions N]
 *
 * With LLMKIT_LONG=1 until ten million were admitted.
 */

#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/aux.h"
#include "base/clock.h"
#include "base/process.h"
#include "shm/breaker.h"
#include "shm/bucket_table.h"
#include "shm/hold.h"
#include "shm/layout.h"
#include "shm/participant.h"
#include "shm/region.h"
#include "tests/unit/splitmix.h"

enum {
	PROCESSES = 8,
	FLIGHTS = 4, /* of one process */
	SLOTS = 12,
	REQUESTS = 150000, /* a second */
	REQUESTS_BURST = 500,
	TOKENS = 20000000, /* a second */
	TOKENS_BURST = 100000,
	TOKENS_MOST = 300, /* of one request */
};
#define KILL_EVERY_NS (3 * NSEC_PER_MSEC)
#define STOP_NS (20 * NSEC_PER_MSEC)
#define STOP_EVERY 40 /* kills */
#define HANGS_NS (60 * NSEC_PER_SEC)

enum { PHASE_GO, PHASE_OVER };

/* A cache line of its own per process. */
struct slot {
	_Alignas(64) _Atomic uint64_t requests, tokens;
};

/* What the processes tell, in memory that outlives them. */
static struct board {
	_Atomic int phase;
	_Atomic uint64_t at_once; /* a bit for every request in flight */
	_Atomic uint64_t most;    /* of them at once */
	struct slot slot[PROCESSES];
} * board;

static struct storm {
	struct region r;
	int fd;
	uint64_t boot_id[2];
	pid_t pid[PROCESSES];
	uint32_t row[PROCESSES];
	uint64_t owner[PROCESSES];
	uint64_t start_ns, end_ns, kills, stops, mended, lost, slowest_ns;
} storm;

static _Noreturn void die(const char *what)
{
	printf("Bail out! %s\n", what);
	exit(1);
}

/* ---- a process ---- */

struct request {
	struct bucket_lease lease;
	struct bucket_cost used;
	bool on;
};

static void note_at_once(unsigned bit)
{
	uint64_t mask = atomic_fetch_or(&board->at_once, UINT64_C(1) << bit) | UINT64_C(1) << bit;
	uint64_t n = (uint64_t)__builtin_popcountll(mask), most = atomic_load(&board->most);

	while (n > most && !atomic_compare_exchange_weak(&board->most, &most, n))
		;
}

static void request_begin(const struct region *r, struct request *q, const struct bucket_set *set,
	unsigned me, unsigned number, uint64_t *seed)
{
	struct bucket_cost cost = { 1, 1 + splitmix_below(seed, TOKENS_MOST),
		1 + splitmix_below(seed, TOKENS_MOST), 1000 };

	if (bucket_lease(r, storm.owner[me], set, &cost, clock_boottime_ns(), &q->lease).outcome !=
		BUCKET_OK) {
		sched_yield();
		return;
	}
	note_at_once(me * FLIGHTS + number);
	q->on = true;
	/* The provider counts it all at once: the worst that it may. */
	q->used = (struct bucket_cost){ 0, cost.input_tokens - splitmix_below(seed, 2),
		splitmix_below(seed, cost.output_tokens + 1), 900 };
	atomic_fetch_add_explicit(&board->slot[me].requests, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&board->slot[me].tokens,
		q->used.input_tokens + q->used.output_tokens, memory_order_relaxed);
	hold_move(r, q->lease.hold, storm.owner[me], HOLD_TOTAL_TARGET(0), 1, 0, NULL);
}

static void request_end(const struct region *r, struct request *q, unsigned me, unsigned number)
{
	struct bucket_cost part = { 0, q->used.input_tokens, 0, 0 };

	bucket_progress(r, &q->lease, &part, clock_boottime_ns());
	q->used.input_tokens = 0;
	hold_move(r, q->lease.hold, storm.owner[me], HOLD_TOTAL_TARGET(0), 0, 1, NULL);
	atomic_fetch_and(&board->at_once, ~(UINT64_C(1) << (me * FLIGHTS + number)));
	bucket_settle(r, &q->lease, &q->used, clock_boottime_ns());
	q->on = false;
}

static _Noreturn void work(unsigned me, uint64_t seed)
{
	struct request requests[FLIGHTS] = { 0 };
	struct bucket_names names = { str_of("u"), str_of("m"), str_of("p"), STR_NULL };
	struct region r = REGION_NULL;
	struct bucket_set set;

	if (region_attach(&r, storm.fd, true, storm.boot_id) != 0 ||
		bucket_resolve(&r, &names, clock_boottime_ns(), &set) != BUCKET_OK)
		_exit(2);
	while (atomic_load_explicit(&board->phase, memory_order_relaxed) == PHASE_GO) {
		unsigned i = (unsigned)splitmix_below(&seed, FLIGHTS);

		if (requests[i].on)
			request_end(&r, &requests[i], me, i);
		else
			request_begin(&r, &requests[i], &set, me, i, &seed);
	}
	for (unsigned i = 0; i < FLIGHTS; i++)
		if (requests[i].on)
			request_end(&r, &requests[i], me, i);
	_exit(0);
}

/* ---- the daemon ---- */

static void process_start(unsigned i)
{
	static uint64_t seed;
	pid_t parent = getpid();

	/* The row is claimed by the number of the start: the pid is not known yet. */
	storm.row[i] = (uint32_t)participant_claim(&storm.r, ++seed, 1, 0, clock_boottime_ns());
	storm.owner[i] = participant_owner(&storm.r, storm.row[i]);
	storm.pid[i] = fork();
	if (storm.pid[i] < 0)
		die("fork");
	if (storm.pid[i] > 0)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(4);
	work(i, seed);
}

static void reap(unsigned i)
{
	for (unsigned bit = 0; bit < FLIGHTS; bit++)
		atomic_fetch_and(&board->at_once, ~(UINT64_C(1) << (i * FLIGHTS + bit)));
	participant_release(&storm.r, storm.row[i]);
	hold_reap(&storm.r, storm.owner[i], clock_boottime_ns());
}

static void kill_one(unsigned i)
{
	uint64_t begin = clock_boottime_ns();
	int status;

	kill(storm.pid[i], SIGKILL);
	if (waitpid(storm.pid[i], &status, 0) != storm.pid[i] || !WIFSIGNALED(status))
		die("a process ended by itself");
	reap(i);
	storm.slowest_ns = max_u64(storm.slowest_ns, clock_boottime_ns() - begin);
	storm.kills++;
	process_start(i);
}

/* What a process holds: its holds' rows and entries, as one number. */
static uint64_t held_by(uint64_t owner)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < storm.r.holds; i++) {
		const struct layout_hold *h = &storm.r.hold[i];

		if (atomic_load(&h->owner) != owner)
			continue;
		for (unsigned e = 0; e < LAYOUT_HOLD_ENTRIES; e++)
			sum = (sum + atomic_load(&h->entry[e])) * 31 + i + 1;
	}
	return sum;
}

/* Another dies and is reaped meanwhile. */
static void stop_one(unsigned i)
{
	uint64_t before, held;
	int status;

	kill(storm.pid[i], SIGSTOP);
	if (waitpid(storm.pid[i], &status, WUNTRACED) != storm.pid[i] || !WIFSTOPPED(status))
		die("a process does not stop");
	held = held_by(storm.owner[i]);
	before = atomic_load(&board->slot[i].requests);
	clock_sleep_until(clock_boottime_ns() + STOP_NS / 2);
	kill_one((i + 1) % PROCESSES);
	hold_reap_strays(&storm.r, clock_boottime_ns());
	clock_sleep_until(clock_boottime_ns() + STOP_NS / 2);
	storm.lost += held_by(storm.owner[i]) != held;
	storm.stops++;
	kill(storm.pid[i], SIGCONT);
	/* It goes on, or the alarm ends this program. */
	while (atomic_load(&board->slot[i].requests) == before)
		clock_sleep_until(clock_boottime_ns() + NSEC_PER_MSEC);
}

static uint64_t admitted(void)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < PROCESSES; i++)
		sum += atomic_load(&board->slot[i].requests);
	return sum;
}

static void weather(uint64_t seconds, uint64_t admissions)
{
	uint64_t until = storm.start_ns + seconds * NSEC_PER_SEC, seed = 5;
	int status;

	while (clock_boottime_ns() < until || admitted() < admissions) {
		unsigned i = (unsigned)splitmix_below(&seed, PROCESSES);

		alarm(HANGS_NS / NSEC_PER_SEC);
		clock_sleep_until(clock_boottime_ns() + KILL_EVERY_NS);
		if (storm.kills % STOP_EVERY == STOP_EVERY - 1)
			stop_one(i);
		kill_one(i);
		storm.mended += hold_audit(&storm.r);
	}
	atomic_store(&board->phase, PHASE_OVER);
	for (unsigned i = 0; i < PROCESSES; i++)
		if (waitpid(storm.pid[i], &status, 0) != storm.pid[i] || status != 0)
			die("a process failed");
	storm.end_ns = clock_boottime_ns();
}

/* ---- */

static uint32_t limit(uint64_t scope, const char *name, enum bucket_resource resource,
	uint64_t rate, uint64_t burst)
{
	enum bucket_kind kind = bucket_kind_of(resource, false);
	const struct bucket_limit l = { .scope = scope,
		.resource = resource,
		.kind = kind,
		.name = str_of(name),
		.limit = rate,
		.window_ns = kind == BUCKET_GAUGE ? 0 :
			kind == BUCKET_WINDOW     ? UINT64_C(86400) * NSEC_PER_SEC :
						    NSEC_PER_SEC,
		.burst = burst };
	int row = bucket_configure(&storm.r, &l, storm.start_ns);

	if (row < 0)
		die("a limit is not made");
	return (uint32_t)row;
}

static void begin(void)
{
	struct region_owner owner = { .pid = (uint64_t)getpid(), .start = 1, .boot_id = { 1, 2 } };
	struct region_sizes sizes = { 64, 64, 4 };

	storm.fd = memfd_create("storm", 0);
	storm.start_ns = clock_boottime_ns();
	memcpy(storm.boot_id, owner.boot_id, sizeof(storm.boot_id));
	board = mmap(
		NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (board == MAP_FAILED || storm.fd < 0 ||
		region_create(&storm.r, storm.fd, &owner, &sizes, storm.start_ns, false) != 0)
		die("no region");
	limit(BUCKET_SCOPE_PROVIDER, "p", BUCKET_REQUESTS, REQUESTS, REQUESTS_BURST);
	limit(BUCKET_SCOPE_PROVIDER, "p", BUCKET_TOKENS, TOKENS, TOKENS_BURST);
	limit(BUCKET_SCOPE_PROVIDER, "p", BUCKET_CONCURRENCY, SLOTS, SLOTS);
	limit(BUCKET_SCOPE_PROVIDER, "p", BUCKET_MONEY, UINT64_C(1) << 45, UINT64_C(1) << 45);
	limit(BUCKET_SCOPE_USER, "u", BUCKET_REQUESTS, 2 * REQUESTS, 2 * REQUESTS_BURST);
	bucket_roll(&storm.r, storm.start_ns, storm.start_ns);
	for (unsigned i = 0; i < PROCESSES; i++)
		process_start(i);
}

static bool is_empty(void)
{
	bool closed;

	for (uint32_t i = 0; i < storm.r.buckets; i++)
		if (hold_total_units(atomic_load(&storm.r.bucket[i].held), &closed) != 0)
			return false;
	for (uint32_t i = 0; i < storm.r.holds; i++)
		if (atomic_load(&storm.r.hold[i].owner) != 0)
			return false;
	return hold_total_units(atomic_load(&storm.r.target[0].pending), &closed) == 0;
}

static int number;

static bool tell(bool good, const char *what, uint64_t is, double of)
{
	printf("%sok %d - %s: %llu of %.0f\n", good ? "" : "not ", ++number, what,
		(unsigned long long)is, of);
	return good;
}

static bool judge(void)
{
	double seconds = (double)(storm.end_ns - storm.start_ns) / 1e9;
	double requests = REQUESTS_BURST + REQUESTS * seconds;
	double tokens = TOKENS_BURST + TOKENS * seconds;
	uint64_t most = atomic_load(&board->most), used = 0;
	bool good;

	for (unsigned i = 0; i < PROCESSES; i++)
		used += atomic_load(&board->slot[i].tokens);
	good = tell((double)admitted() <= requests, "requests", admitted(), requests);
	good &= tell((double)used <= tokens, "tokens", used, tokens);
	good &= tell(most <= SLOTS, "at once", most, SLOTS);
	good &= tell(storm.mended == 0, "totals that differed from the holds", storm.mended, 0);
	good &= tell(storm.lost == 0, "stopped processes that lost something", storm.lost,
		(double)storm.stops);
	good &= tell(is_empty(), "nothing is held at the end, after so many deaths", storm.kills,
		(double)storm.kills);
	printf("# %.1f s, %llu stops, slowest from the kill until all was back: %.2f ms\n", seconds,
		(unsigned long long)storm.stops, (double)storm.slowest_ns / 1e6);
	return good;
}

int main(int argc, char **argv)
{
	const char *mode = getenv("LLMKIT_LONG");
	uint64_t seconds = 10, admissions = mode && mode[0] == '1' ? 10000000 : 0;

	for (int i = 1; i + 1 < argc; i += 2) {
		if (strcmp(argv[i], "--seconds") == 0)
			seconds = strtoull(argv[i + 1], NULL, 10);
		else if (strcmp(argv[i], "--admissions") == 0)
			admissions = strtoull(argv[i + 1], NULL, 10);
	}
	printf("1..6\n");
	fflush(stdout);
	begin();
	weather(seconds, admissions);
	return judge() ? 0 : 1;
}
