#include "tests/sim/sim.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define QUEUE_MAX 1024
#define NOTES 40

struct sim sim;

static struct sim_event queue[QUEUE_MAX];
static unsigned queued;
static uint32_t pushed;

static struct {
	uint64_t at_ns, value;
	uint32_t kind, who;
} notes[NOTES];
static unsigned noted;
static const char *const *kinds;

static unsigned tests, failures;

void sim_begin(uint64_t seed, const char *const *names)
{
	sim.start_seed = sim.seed = seed;
	sim.now_ns = SIM_START_NS;
	sim.hash = UINT64_C(0xcbf29ce484222325);
	kinds = names;
	queued = pushed = noted = 0;
}

/* ---- queue: a binary heap ---- */

static inline bool is_before(const struct sim_event *a, const struct sim_event *b)
{
	return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

void sim_push(uint64_t at_ns, uint32_t kind, uint32_t who, uint32_t epoch)
{
	struct sim_event e = { at_ns, pushed++, epoch, kind, who };
	unsigned i = queued++;

	if (i == QUEUE_MAX)
		sim_fail("too many events at once");
	for (; i > 0 && is_before(&e, &queue[(i - 1) / 2]); i = (i - 1) / 2)
		queue[i] = queue[(i - 1) / 2];
	queue[i] = e;
}

bool sim_peek(struct sim_event *out)
{
	if (queued == 0)
		return false;
	*out = queue[0];
	return true;
}

bool sim_pop(struct sim_event *out)
{
	struct sim_event last;
	unsigned i = 0, child;

	if (!sim_peek(out))
		return false;
	last = queue[--queued];
	while ((child = 2 * i + 1) < queued) {
		child += child + 1 < queued && is_before(&queue[child + 1], &queue[child]);
		if (is_before(&last, &queue[child]))
			break;
		queue[i] = queue[child];
		i = child;
	}
	queue[i] = last;
	return true;
}

/* ---- what went on ---- */

void sim_note(uint32_t kind, uint32_t who, uint64_t value)
{
	unsigned i = noted++ % NOTES;

	sim.events++;
	sim.hash = (sim.hash ^ sim.now_ns) * UINT64_C(0x100000001b3);
	sim.hash = (sim.hash ^ (value + ((uint64_t)kind << 56 | (uint64_t)who << 40))) *
		UINT64_C(0x9e3779b97f4a7c15);
	sim.hash ^= sim.hash >> 32;
	notes[i].at_ns = sim.now_ns;
	notes[i].kind = kind;
	notes[i].who = who;
	notes[i].value = value;
}

void sim_fail(const char *format, ...)
{
	va_list arguments;

	for (unsigned i = noted > NOTES ? noted - NOTES : 0; i < noted; i++)
		printf("# %.9f s: %s %u: %llu\n",
			(double)(notes[i % NOTES].at_ns - SIM_START_NS) / 1e9,
			kinds[notes[i % NOTES].kind], notes[i % NOTES].who,
			(unsigned long long)notes[i % NOTES].value);
	printf("not ok %u - ", ++tests);
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	printf("\n# at %.9f s of virtual time; again with: %s --seed %llu\nBail out!\n",
		(double)(sim.now_ns - SIM_START_NS) / 1e9, sim.program,
		(unsigned long long)sim.start_seed);
	fflush(stdout);
	exit(1);
}

/* ---- numbers ---- */

double sim_unit(void)
{
	return ((double)(splitmix_next(&sim.seed) >> 11) + 0.5) / 9007199254740992.0;
}

double sim_normal(void)
{
	double radius = sqrt(-2 * log(sim_unit()));

	return radius * cos(6.283185307179586 * sim_unit());
}

/* -ln of a number with k leading zeros is about k ln 2: good enough, and cheap. */
uint64_t sim_spread(uint64_t mean_ns)
{
	uint64_t bits = splitmix_next(&sim.seed) | 1;
	unsigned zeros = (unsigned)__builtin_clzll(bits);
	double rest = (double)((bits << zeros) >> 11 & ((UINT64_C(1) << 52) - 1)) * 0x1p-52;

	return (uint64_t)((double)mean_ns * 0.6931471805599453 * (zeros + 1 - rest));
}

uint64_t sim_magnitude(double least, double most)
{
	return (uint64_t)(least * pow(most / least, sim_unit()));
}

/* ---- tests ---- */

void sim_ok(bool good, const char *format, ...)
{
	va_list arguments;

	failures += !good;
	printf("%sok %u - ", good ? "" : "not ", ++tests);
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	printf("\n");
	fflush(stdout);
}

int sim_done(void)
{
	printf("1..%u\n", tests);
	return failures != 0;
}
