/* Runs one script on the region in a descriptor, for its parent to step through and to kill. */

#include <signal.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include "tests/crash/script.h"
#include "tests/crash/world.h"

static uint64_t now_ns;

static uint64_t victim_clock(void)
{
	return now_ns;
}

int main(int argc, char **argv)
{
	const uint64_t boot_id[2] = { 1, 2 };
	struct region r = REGION_NULL;
	struct script_call c;
	enum script script;

	if (argc != 7)
		return 2;
	script = (enum script)atoi(argv[2]);
	c.owner = strtoull(argv[3], NULL, 10);
	c.dead = strtoull(argv[4], NULL, 10);
	c.now_ns = now_ns = strtoull(argv[5], NULL, 10);
	c.target = (uint32_t)atoi(argv[6]);
	if (region_attach(&r, atoi(argv[1]), true, boot_id) != 0 || !script_init())
		return 3;
	r.clock_ns = victim_clock;
	r.participants = WORLD_PARTICIPANTS;
	r.templates = WORLD_TEMPLATES;
	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
		return 4;
	raise(SIGUSR1);
	script_run(&r, script, &c);
	raise(SIGUSR2);
	return 0;
}
