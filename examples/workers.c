/*
 * Worker processes that share one rate budget, exactly.
 *
 *     workers [--provider P] [--model M] [--user U] [--workers 4] [--seconds 3]
 *             [--rate R --burst B]
 *
 * Attaches to llmkitd once, forks the workers (as a prefork server would), and lets each ask for
 * admission as fast as it can. The budgets that apply to provider, model and user are those of
 * the daemon's configuration; --rate (per second) and --burst only say what they are, so that
 * the total can be compared with the bound: no matter how many processes, and whenever they are
 * killed, at most burst + rate * t requests are admitted in t seconds.
 */

#include <getopt.h>
#include <llmkit.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORKERS_MAX 1024
#define NSEC_PER_SEC UINT64_C(1000000000)

/* What one worker did; in memory shared with the parent, written by that worker only. */
struct result {
	uint64_t asked;
	uint64_t admitted;
	int error;
};

struct plan {
	struct llmkit_scope scope;
	unsigned workers;
	double seconds, rate, burst;
};

/*
 * In a worker. The handle was opened before the fork: the library notices, and attaches this
 * process for itself at the first call.
 */
static void work(llmkit_limits *limits, uint64_t until_ns, struct result *result)
{
	while (llmkit_now_ns() < until_ns) {
		int r = llmkit_acquire(limits, 1, NULL);

		result->asked++;
		if (r == LLMKIT_OK) {
			/* Here a real worker sends its request to the provider. It would rather
			 * sleep than spin: llmkit_acquire_until() wakes at the exact time. */
			result->admitted++;
		} else if (r != LLMKIT_E_LIMITED) {
			result->error = r;
			return;
		}
	}
}

/*
 * In a worker: end with the parent, however that ends, or an interrupted server leaves workers
 * behind that spend the budget. The signal comes when the thread that forked ends, so fork from
 * one that lives as long as the process. A parent that ended before prctl() is noticed after it.
 */
static void end_with(pid_t parent)
{
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
		_exit(1);
}

static bool start_workers(
	const struct plan *plan, llmkit_limits *limits, struct result *results, pid_t *pids)
{
	uint64_t until_ns = llmkit_now_ns() + (uint64_t)(plan->seconds * 1e9);
	pid_t parent = getpid();

	fflush(NULL); /* or each child would print what is buffered again */
	for (unsigned i = 0; i < plan->workers; i++) {
		pids[i] = fork();
		if (pids[i] < 0) {
			perror("fork");
			return false;
		}
		if (pids[i] == 0) {
			end_with(parent);
			work(limits, until_ns, &results[i]);
			_exit(results[i].error ? 1 : 0);
		}
	}
	return true;
}

/* Prints the figures; false when more was admitted than the budget allows. */
static bool report(
	const struct plan *plan, const struct result *results, const pid_t *pids, double elapsed)
{
	double bound = plan->burst + plan->rate * elapsed;
	uint64_t asked = 0, admitted = 0;

	for (unsigned i = 0; i < plan->workers; i++) {
		const struct result *r = &results[i];

		printf("worker %u (pid %d): %llu admitted of %llu asked%s%s\n", i + 1, (int)pids[i],
			(unsigned long long)r->admitted, (unsigned long long)r->asked,
			r->error ? ": " : "", r->error ? llmkit_strerror(r->error) : "");
		asked += r->asked;
		admitted += r->admitted;
	}
	printf("all together: %llu admitted of %llu asked in %.3f s\n",
		(unsigned long long)admitted, (unsigned long long)asked, elapsed);
	if (plan->rate <= 0)
		return true;
	printf("exact bound: %.0f + %g/s * %.3f s = %.3f: %s\n", plan->burst, plan->rate, elapsed,
		bound, (double)admitted <= bound ? "kept" : "BROKEN");
	return (double)admitted <= bound;
}

static bool run_workers(const struct plan *plan, llmkit_limits *limits)
{
	struct result *results = mmap(NULL, plan->workers * sizeof(*results),
		PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t *pids = calloc(plan->workers, sizeof(*pids));
	uint64_t began_ns = llmkit_now_ns();
	bool good;

	if (results == MAP_FAILED || !pids) {
		perror("memory");
		free(pids);
		return false;
	}
	good = start_workers(plan, limits, results, pids);
	for (unsigned i = 0; i < plan->workers; i++)
		if (pids[i] > 0)
			waitpid(pids[i], NULL, 0);
	if (good)
		good = report(plan, results, pids,
			(double)(llmkit_now_ns() - began_ns) / (double)NSEC_PER_SEC);
	munmap(results, plan->workers * sizeof(*results));
	free(pids);
	return good;
}

static bool parse(int argc, char **argv, struct plan *plan)
{
	static const struct option options[] = {
		{ "provider", required_argument, NULL, 'p' },
		{ "model", required_argument, NULL, 'm' },
		{ "user", required_argument, NULL, 'u' },
		{ "workers", required_argument, NULL, 'w' },
		{ "seconds", required_argument, NULL, 's' },
		{ "rate", required_argument, NULL, 'r' },
		{ "burst", required_argument, NULL, 'b' },
		{ NULL, 0, NULL, 0 },
	};
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		switch (option) {
		case 'p':
			plan->scope.provider = optarg;
			break;
		case 'm':
			plan->scope.model = optarg;
			break;
		case 'u':
			plan->scope.user = optarg;
			break;
		case 'w':
			plan->workers = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 's':
			plan->seconds = strtod(optarg, NULL);
			break;
		case 'r':
			plan->rate = strtod(optarg, NULL);
			break;
		case 'b':
			plan->burst = strtod(optarg, NULL);
			break;
		default:
			return false;
		}
	}
	return optind == argc && plan->workers >= 1 && plan->workers <= WORKERS_MAX &&
		plan->seconds > 0 && plan->seconds < 86400;
}

int main(int argc, char **argv)
{
	struct plan plan = { .scope.size = sizeof(plan.scope), .workers = 4, .seconds = 3 };
	llmkit *kit = NULL;
	llmkit_limits *limits = NULL;
	bool good = false;
	int r;

	if (!parse(argc, argv, &plan)) {
		fprintf(stderr,
			"usage: %s [--provider P] [--model M] [--user U] [--workers N] "
			"[--seconds S] [--rate R --burst B]\n",
			argv[0]);
		return 2;
	}
	r = llmkit_open(&kit, NULL);
	if (r == LLMKIT_OK)
		r = llmkit_limits_open(kit, &plan.scope, &limits);
	if (r < 0)
		fprintf(stderr, "workers: %s\n", llmkit_strerror(r));
	else if (llmkit_limits_count(limits) == 0)
		fprintf(stderr, "workers: no limit is configured for these names\n");
	else
		good = run_workers(&plan, limits);
	llmkit_limits_close(limits);
	llmkit_close(kit);
	return good ? 0 : 1;
}
