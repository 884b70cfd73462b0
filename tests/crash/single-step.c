/*
 * Proves that the hooks of tests/crash/hooked.h miss nothing. A process built as everywhere else is
 * stepped through single instructions; whatever state it leaves the region in, had it been killed
 * there, is one of those that a death before a hooked access leaves. Then processes are killed for
 * good, at instructions drawn by chance (all of them with LLMKIT_LONG=1), and reaped.
 *
 *     single-step PATH-OF-VICTIM
 */

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/clock.h"
#include "shm/layout.h"
#include "tests/crash/hook.h"
#include "tests/crash/script.h"
#include "tests/crash/world.h"

#define STATES_MAX 8192
#define KILL_NS (3 * NSEC_PER_SEC) /* for one script */
#define INSTRUCTIONS_MAX 1000000

static const char *victim;
static uint8_t *before, *last;
static uint64_t states[STATES_MAX];
static unsigned state_count;
static struct script_call call;
static enum script script;

/* ---- states ---- */

/* Names are written as bytes, in rows that nobody finds yet. */
static void blank_names(void)
{
	for (uint32_t i = 0; i < WORLD_ROWS; i++) {
		size_t at =
			(size_t)((uint8_t *)world.r.bucket_name[i].name - (uint8_t *)world.r.map);

		memset(last + at, 0, LAYOUT_NAME_MAX);
	}
}

/* Of the whole region. */
static uint64_t state_now(void)
{
	uint64_t hash = 1, word;

	memcpy(last, world.r.map, world.r.size);
	blank_names();
	for (size_t i = 0; i < world.r.size; i += sizeof(word)) {
		memcpy(&word, last + i, sizeof(word));
		hash = (hash ^ word) * UINT64_C(0x9e3779b97f4a7c15);
		hash ^= hash >> 29;
	}
	memcpy(last, world.r.map, world.r.size);
	return hash;
}

static bool state_is_known(uint64_t state)
{
	for (unsigned i = state_count; i > 0; i--)
		if (states[i - 1] == state)
			return true;
	return false;
}

static void state_add(void)
{
	uint64_t state = state_now();

	if (!state_is_known(state) && state_count < STATES_MAX)
		states[state_count++] = state;
}

static void from_the_start(void)
{
	memcpy(world.r.map, before, world.r.size);
}

/* ---- by hooks ---- */

static void perform(void *argument)
{
	(void)argument;
	script_run(&world.r, script, &call);
}

/* How many accesses there are. */
static unsigned die_at_every_access(void)
{
	struct hook h = { .dies_at = 0, .limit = STATES_MAX };
	bool lived = false;

	state_count = 0;
	while (!lived) {
		from_the_start();
		h.dies_at++;
		lived = hook_run(&h, perform, NULL);
		state_add();
	}
	return h.dies_at - 1;
}

/* ---- by instructions ---- */

static pid_t victim_start(void)
{
	char arguments[5][24];
	pid_t pid;
	int status;

	from_the_start();
	pid = fork();
	if (pid == 0) {
		snprintf(arguments[0], 24, "%d", world.fd);
		snprintf(arguments[1], 24, "%d", (int)script);
		snprintf(arguments[2], 24, "%llu", (unsigned long long)call.owner);
		snprintf(arguments[3], 24, "%llu", (unsigned long long)call.dead);
		snprintf(arguments[4], 24, "%llu", (unsigned long long)call.now_ns);
		execl(victim, victim, arguments[0], arguments[1], arguments[2], arguments[3],
			arguments[4], call.target ? "1" : "0", NULL);
		_exit(5);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		world_fail("no victim");
	if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGUSR1) {
		printf("1..0 # SKIP processes cannot be traced here (%d)\n", status >> 8);
		exit(0);
	}
	return pid;
}

/* False: it has come to the script's end. */
static bool victim_step(pid_t pid)
{
	int status;

	if (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) != 0 || waitpid(pid, &status, 0) != pid ||
		!WIFSTOPPED(status))
		world_fail("the victim ended");
	return WSTOPSIG(status) != SIGUSR2;
}

static void victim_kill(pid_t pid)
{
	kill(pid, SIGKILL);
	if (waitpid(pid, NULL, 0) != pid)
		world_fail("the victim does not end");
}

/* How many instructions there are; *seen: how many states they went through. */
static unsigned step_through(unsigned *seen)
{
	pid_t pid = victim_start();
	unsigned n = 0;

	*seen = 1;
	memcpy(last, world.r.map, world.r.size);
	while (victim_step(pid)) {
		if (++n > INSTRUCTIONS_MAX)
			world_fail("the script does not end");
		if (memcmp(last, world.r.map, world.r.size) == 0)
			continue;
		++*seen;
		if (!state_is_known(state_now()))
			world_fail("a state that no hook shows");
	}
	victim_kill(pid);
	return n;
}

/* ---- killed for good ---- */

static uint32_t units(const shared_u64 *word)
{
	bool closed;

	return hold_total_units(atomic_load(word), &closed);
}

/* After both are reaped, what is held is what others hold. */
static void reap_and_check(void)
{
	bucket_adopt(&world.r, call.now_ns);
	hold_reap(&world.r, call.owner, call.now_ns);
	hold_reap(&world.r, call.dead, call.now_ns);
	breaker_reap(&world.r, call.owner);
	breaker_reap(&world.r, call.dead);
	world_check_still();
	if (units(&world.r.target[call.target].pending) != 0)
		world_fail("a request is still counted");
}

static unsigned kill_at_instructions(unsigned instructions, bool all)
{
	uint64_t until = clock_boottime_ns() + KILL_NS, seed = instructions;
	unsigned kills = 0;

	while (all ? kills < instructions : clock_boottime_ns() < until) {
		unsigned at = all ? kills : (unsigned)splitmix_below(&seed, instructions);
		pid_t pid = victim_start();

		for (unsigned i = 0; i < at; i++)
			victim_step(pid);
		victim_kill(pid);
		kills++;
		if (!state_is_known(state_now()))
			world_fail("a death leaves what no hook shows");
		reap_and_check();
	}
	return kills;
}

/* ---- */

/* Somebody living has a request in flight, and somebody dead. */
static void begin(void)
{
	const struct bucket_cost cost = { 1, 100, 50, 100000 };

	world_open(1);
	for (unsigned i = 0; i < 3; i++) {
		struct actor *a = &world.actor[i];
		struct flight *f = &a->flight[0];
		struct bucket_names names = world_names(i);

		a->row = (uint32_t)participant_claim(&world.r, 100 + i, 1, 0, world.now_ns);
		a->owner = participant_owner(&world.r, a->row);
		a->alive = true;
		bucket_instantiate(&world.r, &names, world.now_ns);
		if (i == 0 || bucket_resolve(&world.r, &names, world.now_ns, &f->set) != BUCKET_OK)
			continue;
		if (bucket_lease(&world.r, a->owner, &f->set, &cost, world.now_ns, &f->lease)
				.outcome != BUCKET_OK)
			world_fail("no lease");
		hold_move(&world.r, f->lease.hold, a->owner, HOLD_TOTAL_TARGET(i % WORLD_TARGETS),
			1, 0, NULL);
	}
	call = (struct script_call){ world.actor[0].owner, world.actor[1].owner, world.now_ns, 1 };
	/* The third lives. */
	world.actor[2].flight[0].state = FLIGHT_ON;
	memcpy(before, world.r.map, world.r.size);
}

int main(int argc, char **argv)
{
	const char *mode = getenv("LLMKIT_LONG");
	bool all = mode && mode[0] == '1';

#ifdef SANITIZED
	printf("1..0 # SKIP a sanitizer's instructions are too many\n");
	return 0;
#endif
	if (argc != 2)
		return 2;
	victim = argv[1];
	before = malloc(1 << 24);
	last = malloc(1 << 24);
	if (!before || !last || !script_init())
		return 2;
	printf("1..%d\n", SCRIPTS);
	begin();
	for (unsigned i = 0; i < SCRIPTS; i++) {
		unsigned accesses, instructions, seen, kills;

		script = (enum script)i;
		world_what = script_names[i];
		accesses = die_at_every_access();
		instructions = step_through(&seen);
		kills = kill_at_instructions(instructions, all);
		printf("ok %u - %s: %u instructions, %u states of %u that %u accesses show; %u "
		       "killed\n",
			i + 1, script_names[i], instructions, seen, state_count, accesses, kills);
		fflush(stdout);
	}
	world_close();
	return 0;
}
