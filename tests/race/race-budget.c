/*
 * Processes share budgets on a real region file, at several rates at once, killed and started
 * again throughout if wanted. What each admits is counted after the fact, in memory that
 * outlives it. Shown for every rate: never more than burst + rate * t from before the first to
 * after the last, and at least 99 % of it while the budget was wanted.
 *
 *     race-budget                                the matrix: 1, 2, 4, 16 processes, unharmed and
 * killed race-budget --processes N [--rate R] [--seconds S] [--kill]
 *
 * When is a budget wanted? A refusal proves that it was used up at that moment, so as long as
 * refusals follow each other faster than the burst refills, nothing ran over. Where they do not
 * (a machine busy with other things), the lower bound is not asked for and the line says so.
 */

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/aux.h"
#include "base/clock.h"
#include "shm/bucket_table.h"
#include "tests/unit/splitmix.h"

#define PROCESSES_MAX 64
#define LANES_MAX 6
#define KILL_EVERY_NS (7 * NSEC_PER_MSEC)
#define REFUSAL_GRAIN_NS NSEC_PER_MSEC
#define LIMIT_SECONDS 170

/* One rate, and what the processes find out about it. */
struct lane {
	uint64_t rate, burst;
	bool three_levels; /* user and model before the provider; the provider is the bottleneck */
	_Atomic uint64_t refused_ns, gap_ns;
};

/* A cache line of its own per process: counting must not order the processes. */
struct slot {
	_Alignas(64) _Atomic uint64_t admitted[LANES_MAX];
};

enum { PHASE_READY, PHASE_GO, PHASE_OVER };

struct board {
	_Atomic int phase;
	size_t lanes;
	struct lane lane[LANES_MAX];
	struct slot slot[PROCESSES_MAX];
};

struct run {
	struct board *board;
	struct region region;
	char path[64];
	uint64_t boot_id[2];
	int processes, seconds;
	bool kill;
	pid_t pid[PROCESSES_MAX];
	uint64_t kills, start_ns, end_ns;
};

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void lane_name(char *out, size_t size, size_t lane)
{
	snprintf(out, size, "lane-%zu", lane);
}

/* ---- worker ---- */

static void note_refusal(struct lane *l, uint64_t now_ns)
{
	uint64_t last = atomic_load(&l->refused_ns), gap;

	if (now_ns < last + REFUSAL_GRAIN_NS ||
		!atomic_compare_exchange_strong(&l->refused_ns, &last, now_ns))
		return;
	gap = atomic_load(&l->gap_ns);
	while (now_ns - last > gap &&
		!atomic_compare_exchange_weak(&l->gap_ns, &gap, now_ns - last))
		;
}

static void open_sets(
	const struct run *run, const struct region *r, int me, struct bucket_set *sets)
{
	char name[32];

	for (size_t i = 0; i < run->board->lanes; i++) {
		lane_name(name, sizeof(name), i);
		if (run->board->lane[i].three_levels) {
			char user[32];

			snprintf(user, sizeof(user), "user-%d", me);
			if (!bucket_set_add(&sets[i], r, BUCKET_SCOPE_USER, BUCKET_REQUESTS,
				    str_of(user)) ||
				!bucket_set_add(&sets[i], r, BUCKET_SCOPE_MODEL, BUCKET_REQUESTS,
					str_of(name)))
				_exit(2);
		}
		if (!bucket_set_add(
			    &sets[i], r, BUCKET_SCOPE_PROVIDER, BUCKET_REQUESTS, str_of(name)))
			_exit(2);
	}
}

static void work(const struct run *run, int me)
{
	struct bucket_set sets[LANES_MAX] = { 0 };
	struct board *board = run->board;
	struct region r = REGION_NULL;
	int fd = open(run->path, O_RDWR | O_CLOEXEC);

	if (fd < 0 || region_attach(&r, fd, true, run->boot_id) != 0)
		_exit(2);
	open_sets(run, &r, me, sets);
	while (atomic_load(&board->phase) == PHASE_READY)
		sched_yield();
	while (atomic_load_explicit(&board->phase, memory_order_relaxed) == PHASE_GO) {
		for (size_t i = 0; i < board->lanes; i++) {
			uint64_t now = clock_boottime_ns();
			struct bucket_verdict v = bucket_acquire(&r, &sets[i], 1, now);

			if (v.outcome == BUCKET_OK)
				atomic_fetch_add_explicit(
					&board->slot[me].admitted[i], 1, memory_order_relaxed);
			else if (v.outcome == BUCKET_E_WAIT)
				note_refusal(&board->lane[i], now);
			else
				_exit(3);
		}
	}
	_exit(0);
}

static void start_worker(struct run *run, int i)
{
	pid_t parent = getpid();

	run->pid[i] = fork();
	if (run->pid[i] < 0)
		die("fork");
	if (run->pid[i] > 0)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(4);
	work(run, i);
}

/* ---- parent ---- */

static void configure(
	struct run *run, uint64_t scope, const char *name, uint64_t rate, uint64_t burst)
{
	struct bucket_limit limit = { scope, BUCKET_REQUESTS, BUCKET_RATE, BUCKET_ORIGIN_CONFIG,
		str_of(name), rate, NSEC_PER_SEC, burst };

	if (bucket_configure(&run->region, &limit, run->start_ns) < 0)
		die("bucket_configure");
}

static void configure_all(struct run *run)
{
	char name[32];

	for (size_t i = 0; i < run->board->lanes; i++) {
		struct lane *l = &run->board->lane[i];

		l->burst = max_u64(2, l->rate / 2);
		atomic_store(&l->refused_ns, run->start_ns);
		lane_name(name, sizeof(name), i);
		configure(run, BUCKET_SCOPE_PROVIDER, name, l->rate, l->burst);
		configure(run, BUCKET_SCOPE_MODEL, name, l->rate * 2, l->burst * 2);
	}
	for (int i = 0; i < run->processes; i++) {
		snprintf(name, sizeof(name), "user-%d", i);
		configure(run, BUCKET_SCOPE_USER, name, 10000000, 10000000);
	}
}

static void open_region(struct run *run)
{
	struct region_owner owner = { .pid = (uint64_t)getpid(), .boot_id = { 1, 2 } };
	int fd;

	strncpy(run->path,
		access("/dev/shm", W_OK) == 0 ? "/dev/shm/race-XXXXXX" : "/tmp/race-XXXXXX",
		sizeof(run->path) - 1);
	memcpy(run->boot_id, owner.boot_id, sizeof(run->boot_id));
	fd = mkostemp(run->path, O_CLOEXEC);
	run->start_ns = clock_boottime_ns();
	if (fd < 0 || region_create(&run->region, fd, &owner, NULL, run->start_ns, false) < 0)
		die(run->path);
	close(fd);
	run->board = mmap(NULL, sizeof(*run->board), PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (run->board == MAP_FAILED)
		die("mmap");
}

static void kill_one(struct run *run, uint64_t *seed)
{
	int i = (int)splitmix_below(seed, (uint64_t)run->processes), status;

	kill(run->pid[i], SIGKILL);
	if (waitpid(run->pid[i], &status, 0) != run->pid[i] || !WIFSIGNALED(status))
		die("a worker ended by itself");
	run->kills++;
	start_worker(run, i);
}

static void let_them_work(struct run *run)
{
	uint64_t until = run->start_ns + (uint64_t)run->seconds * NSEC_PER_SEC, seed = 5, now;
	int status;

	atomic_store(&run->board->phase, PHASE_GO);
	while ((now = clock_boottime_ns()) < until) {
		clock_sleep_until(run->kill ? min_u64(until, now + KILL_EVERY_NS) : until);
		if (run->kill)
			kill_one(run, &seed);
	}
	atomic_store(&run->board->phase, PHASE_OVER);
	for (int i = 0; i < run->processes; i++)
		if (waitpid(run->pid[i], &status, 0) != run->pid[i] || status != 0)
			die("a worker failed");
	run->end_ns = clock_boottime_ns();
}

static uint64_t bucket_admitted(const struct run *run, size_t lane)
{
	struct bucket_set set = { 0 };
	struct bucket_view view;
	char name[32];

	lane_name(name, sizeof(name), lane);
	if (!bucket_set_add(
		    &set, &run->region, BUCKET_SCOPE_PROVIDER, BUCKET_REQUESTS, str_of(name)) ||
		!bucket_view(&run->region, set.index[0], run->end_ns, &view))
		die("bucket_view");
	return view.admitted;
}

static bool judge(const struct run *run, size_t lane, int number)
{
	struct lane *l = &run->board->lane[lane];
	uint64_t counted = 0, admitted = bucket_admitted(run, lane),
		 refused = atomic_load(&l->refused_ns);
	double rate = (double)l->rate, burst = (double)l->burst;
	double upper = burst + rate * (double)(run->end_ns - run->start_ns) / 1e9;
	double wanted = burst + rate * (double)(refused - run->start_ns) / 1e9;
	/* Between two refusals nothing leaks over if the burst cannot refill meanwhile. */
	bool starved = (double)max_u64(atomic_load(&l->gap_ns), run->end_ns - refused) / 1e9 >
		(burst - 1) / rate;
	bool below, above, miscounted;

	for (int i = 0; i < run->processes; i++)
		counted += atomic_load(&run->board->slot[i].admitted[lane]);
	above = (double)counted > upper || (double)admitted > upper;
	below = !starved && (double)(counted + run->kills) < 0.99 * wanted - 1;
	/* Who was killed may have taken without counting, or counted in one place. */
	miscounted = counted > admitted + run->kills || admitted > counted + run->kills;
	printf("%sok %d - %d processes%s, %g/s%s: %llu of %.1f admitted%s%s%s%s\n",
		above || below || miscounted ? "not " : "", number, run->processes,
		run->kill ? " killed throughout" : "", rate,
		l->three_levels ? " in three levels" : "", (unsigned long long)counted, upper,
		above ? ", too many" : "", below ? ", too few" : "",
		miscounted ? ", miscounted" : "", starved ? " (not wanted all the time)" : "");
	fflush(stdout);
	return !above && !below && !miscounted;
}

static bool run_once(struct run *run, const uint64_t *rates, size_t count, bool three, int *number)
{
	bool good = true;

	open_region(run);
	for (size_t i = 0; i < count; i++)
		run->board->lane[run->board->lanes++].rate = rates[i];
	if (three) {
		run->board->lane[run->board->lanes].three_levels = true;
		run->board->lane[run->board->lanes++].rate = 1500;
	}
	configure_all(run);
	for (int i = 0; i < run->processes; i++)
		start_worker(run, i);
	let_them_work(run);
	for (size_t i = 0; i < run->board->lanes; i++)
		good &= judge(run, i, ++*number);
	printf("# %llu kills\n", (unsigned long long)run->kills);
	region_detach(&run->region);
	munmap(run->board, sizeof(*run->board));
	unlink(run->path);
	return good;
}

static const uint64_t all_rates[] = { 1, 10, 100, 1500, 100000 };

static bool run_matrix(void)
{
	static const int processes[] = { 1, 2, 4, 16 };
	bool good = true;
	int number = 0;

	printf("1..%zu\n", ARRAY_SIZE(processes) * 2 * LANES_MAX);
	for (size_t i = 0; i < 2 * ARRAY_SIZE(processes); i++) {
		struct run run = { .processes = processes[i / 2], .seconds = 3, .kill = i % 2 };

		good &= run_once(&run, all_rates, ARRAY_SIZE(all_rates), true, &number);
	}
	return good;
}

int main(int argc, char **argv)
{
	struct run run = { .seconds = 3 };
	uint64_t rate = 0;
	int number = 0;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--kill") == 0)
			run.kill = true;
		else if (i + 1 < argc && strcmp(argv[i], "--processes") == 0)
			run.processes = atoi(argv[++i]);
		else if (i + 1 < argc && strcmp(argv[i], "--seconds") == 0)
			run.seconds = atoi(argv[++i]);
		else if (i + 1 < argc && strcmp(argv[i], "--rate") == 0)
			rate = strtoull(argv[++i], NULL, 10);
		else
			run.processes = -1;
	}
	if (run.processes < 0 || run.processes > PROCESSES_MAX || run.seconds < 1 ||
		rate > 1000000000 || (argc > 1 && run.processes == 0)) {
		fprintf(stderr,
			"usage: race-budget [--processes N [--rate R] [--seconds S] [--kill]]\n");
		return 2;
	}
	alarm(LIMIT_SECONDS);
	if (argc == 1)
		return run_matrix() ? 0 : 1;
	return run_once(&run, rate ? &rate : all_rates, rate ? 1 : ARRAY_SIZE(all_rates), !rate,
		       &number) ?
		0 :
		1;
}
