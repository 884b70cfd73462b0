/*
 * The breaker and its events step by step: before each access to a shared word, its process can
 * die, or another can run. The sources are compiled here, with their accesses led through step().
 */

#include <setjmp.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

static void step(void);

static inline uint64_t step_load(const _Atomic uint64_t *word)
{
	step();
	return atomic_load_explicit(word, memory_order_acquire);
}

static inline void step_store(_Atomic uint64_t *word, uint64_t value)
{
	step();
	atomic_store_explicit(word, value, memory_order_release);
}

static inline uint64_t step_add(_Atomic uint64_t *word, uint64_t n)
{
	step();
	return atomic_fetch_add_explicit(word, n, memory_order_acq_rel);
}

static inline bool step_cas(_Atomic uint64_t *word, uint64_t *seen, uint64_t next)
{
	step();
	return atomic_compare_exchange_strong_explicit(
		word, seen, next, memory_order_acq_rel, memory_order_acquire);
}

#undef atomic_load_explicit
#undef atomic_store_explicit
#undef atomic_fetch_add_explicit
#undef atomic_compare_exchange_strong_explicit
#define atomic_load_explicit(word_, order_) step_load(word_)
#define atomic_store_explicit(word_, value_, order_) step_store(word_, value_)
#define atomic_fetch_add_explicit(word_, n_, order_) step_add(word_, n_)
#define atomic_compare_exchange_strong_explicit(word_, seen_, next_, order_, other_) \
	step_cas(word_, seen_, next_)

#include "shm/breaker.c"
#undef TRIES
#include "shm/breaker_table.c"
#define load stats_load
#define store stats_store
#define add stats_add
#define clamp stats_clamp
#include "shm/breaker_stats.c"
#undef load
#undef store
#undef add
#define load event_load
#define store event_store
#include "shm/event.c"
#undef load
#undef store
#undef AHEAD_MAX
#define load latency_load
#include "shm/latency.c"
#undef load
#include "tests/unit/breaker-helpers.h"

#define STEPS_MAX 200

static struct {
	bool counting;
	unsigned count;
	unsigned at; /* the step before which act comes; UINT32_MAX: none */
	void (*act)(void);
	jmp_buf dead;
} steps = { .at = UINT32_MAX };

static struct kit kit;

static void step(void)
{
	if (!steps.counting || steps.count++ != steps.at)
		return;
	steps.counting = false;
	steps.act();
	steps.counting = true;
}

static void die(void)
{
	longjmp(steps.dead, 1);
}

/* Runs what with act before its n-th step. False: it has no so many. */
static bool run_with(void (*what)(void), unsigned n, void (*act)(void))
{
	bool died;

	steps.count = 0;
	steps.at = n;
	steps.act = act;
	died = setjmp(steps.dead) != 0;
	if (!died) {
		steps.counting = true;
		what();
	}
	steps.counting = false;
	return died || steps.count > n;
}

/* ---- what processes do ---- */

#define VICTIM 1

static struct breaker_ticket victims, others[2];
static enum breaker_verdict verdict;

static void do_allow(void)
{
	verdict = kit_allow(&kit, VICTIM, &victims);
}

static void do_report_ok(void)
{
	kit_report(&kit, &victims, BREAKER_OK, 100 * MS);
}

static void do_report_failed(void)
{
	kit_report(&kit, &victims, BREAKER_FAILED, 0);
}

static void do_force_open(void)
{
	breaker_force_open(&kit.r, ROW, kit.now);
}

static void do_reset(void)
{
	breaker_reset(&kit.r, ROW, kit.now);
}

static void do_adopt(void)
{
	breaker_adopt(&kit.r, kit.now);
}

static void do_reap(void)
{
	breaker_reap(&kit.r, kit_owner(VICTIM));
}

static void begin_closed(void)
{
	kit = kit_production();
	for (int i = 0; i < 4; i++)
		kit_call(&kit, BREAKER_FAILED, 0);
	do_allow();
}

static void begin_due(void)
{
	kit = kit_production();
	kit_open_and_wait(&kit);
}

static void begin_half_open(void)
{
	begin_due();
	kit_call(&kit, BREAKER_NEUTRAL, 0);
}

static void begin_probing(void)
{
	begin_due();
	do_allow();
}

static void begin_last_probe(void)
{
	begin_due();
	kit_call(&kit, BREAKER_OK, 0);
	do_allow();
	kit.now += 20 * SECOND;
}

static void begin_lost_probe(void)
{
	begin_probing();
	kit.now += 61 * SECOND;
}

static const struct {
	const char *name;
	void (*begin)(void), (*what)(void);
} scene[] = {
	{ "the last failure", begin_closed, do_report_failed },
	{ "a success", begin_closed, do_report_ok },
	{ "the first probe", begin_due, do_allow },
	{ "another probe", begin_half_open, do_allow },
	{ "a probe that succeeds", begin_probing, do_report_ok },
	{ "a probe that closes", begin_last_probe, do_report_ok },
	{ "a probe that fails", begin_probing, do_report_failed },
	{ "a lost probe", begin_lost_probe, do_allow },
	{ "opened by hand", begin_half_open, do_force_open },
	{ "adoption", begin_probing, do_adopt },
	{ "the death of another", begin_probing, do_reap },
	{ "reset", begin_probing, do_reset },
};

/* ---- death ---- */

/* As many as are told, the missed ones among them. */
static uint64_t events_read(void)
{
	uint64_t ticket = 0, n = 0;
	struct event e;

	for (;;) {
		enum event_outcome outcome = event_next(&kit.r, &ticket, &e);

		if (outcome == EVENT_E_NONE)
			return n;
		assert_int_not_equal(outcome, EVENT_E_LOST);
		n += outcome == EVENT_OK;
	}
}

/* What is left works: its tickets come back, the next ones get all probes, and it closes. */
static void works_after_a_death(void)
{
	int tries = 0;
	uint64_t transitions, told;

	breaker_reap(&kit.r, kit_owner(VICTIM));
	kit.now += 2 * SECOND;
	breaker_tell(&kit.r, kit.now);
	/* The newest event counts only once there is another. */
	event_add(&kit.r, &(struct event){ .kind = EVENT_PAUSE });
	transitions = kit_view(&kit).transitions;
	told = events_read() - 1;
	assert_true(told >= transitions && told <= transitions + 1);
	if (kit_view(&kit).forced)
		breaker_force_close(&kit.r, ROW, kit.now);
	while (kit_state(&kit) != BREAKER_CLOSED && tries++ < 4) {
		kit.now += kit_view(&kit).retry_ns;
		for (int i = 0; i < 2; i++)
			assert_int_equal(
				kit_allow(&kit, 2 + (uint64_t)i, &others[i]), BREAKER_PROBE);
		assert_int_equal(kit_view(&kit).probes_out, 2);
		for (int i = 0; i < 2; i++)
			kit_report(&kit, &others[i], BREAKER_OK, 100 * MS);
	}
	assert_int_equal(kit_state(&kit), BREAKER_CLOSED);
	assert_int_equal(kit_call(&kit, BREAKER_OK, 100 * MS), BREAKER_PASS);
}

static void death_at_any_step_leaves_nothing(void **state)
{
	unsigned deaths = 0;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(scene); i++) {
		for (unsigned n = 0; n < STEPS_MAX; n++) {
			bool died;

			scene[i].begin();
			died = run_with(scene[i].what, n, die);
			/* However it closed, it is ramped. */
			if (scene[i].begin == begin_last_probe &&
				kit.b->state >> 62 == BREAKER_CLOSED)
				assert_int_equal(breaker_ramp(&kit.r, ROW, kit.now), 1);
			works_after_a_death();
			kit_close(&kit);
			if (!died)
				break;
			deaths++;
		}
	}
	print_message("# %u places to die at\n", deaths);
	assert_true(deaths > 100);
}

/* ---- another runs between ---- */

/* From whatever state to a half-open of a later generation with both probes out. */
static void others_go_round(void)
{
	struct breaker_ticket t;

	if (kit_state(&kit) == BREAKER_HALF_OPEN) {
		if (kit_allow(&kit, 2, &t) == BREAKER_PROBE)
			kit_report(&kit, &t, BREAKER_FAILED, 0);
		else
			breaker_force_close(&kit.r, ROW, kit.now);
	}
	for (int i = 0; i < 10 && kit_state(&kit) == BREAKER_CLOSED; i++)
		kit_call(&kit, BREAKER_FAILED, 0);
	if (kit_view(&kit).forced)
		return;
	kit.now += kit_view(&kit).retry_ns;
	for (int i = 0; i < 2; i++)
		kit_allow(&kit, 3 + (uint64_t)i, &others[i]);
}

static void others_open_by_hand(void)
{
	breaker_force_open(&kit.r, ROW, kit.now);
}

static void others_close_by_hand(void)
{
	breaker_force_close(&kit.r, ROW, kit.now);
}

static void others_take_a_probe(void)
{
	kit_allow(&kit, 2, &others[0]);
}

static void others_take_all_probes(void)
{
	kit_allow(&kit, 2, &others[0]);
	kit_allow(&kit, 3, &others[1]);
}

static void (*const other[])(void) = { others_go_round, others_open_by_hand, others_close_by_hand,
	others_take_a_probe, others_take_all_probes };

/* A probe was let through only if its ticket is in its slot and of the present generation: the
 * last thing that happened before it was let through. */
static void check_verdict(void)
{
	uint64_t word = victims.slot < LAYOUT_PROBES ? kit.b->probe[victims.slot] : 0;
	struct breaker_word w = breaker_unpack(kit.b->state);

	assert_int_equal(verdict == BREAKER_PROBE, victims.slot < LAYOUT_PROBES);
	if (verdict == BREAKER_PROBE) {
		assert_int_equal(word, victims.word);
		assert_int_equal(w.state, BREAKER_HALF_OPEN);
		assert_int_equal(breaker_ticket_generation(word), w.generation);
	}
	assert_true(breaker_tickets_out(kit.b, w.generation) <= 2);
}

/* Nobody took the tickets of the others while their generation lasts. */
static void check_others(void)
{
	struct breaker_word w = breaker_unpack(kit.b->state);

	for (int i = 0; i < 2; i++)
		if (w.state == BREAKER_HALF_OPEN && others[i].slot < LAYOUT_PROBES &&
			breaker_ticket_generation(others[i].word) == w.generation)
			assert_int_equal(kit.b->probe[others[i].slot], others[i].word);
}

static void others_between_any_two_steps(void **state)
{
	unsigned runs = 0;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(scene); i++) {
		for (size_t o = 0; o < ARRAY_SIZE(other); o++) {
			for (unsigned n = 0; n < STEPS_MAX; n++) {
				bool ran;
				uint64_t told;

				scene[i].begin();
				others[0].slot = others[1].slot = LAYOUT_PROBES;
				ran = run_with(scene[i].what, n, other[o]);
				check_others();
				if (scene[i].what == do_allow)
					check_verdict();
				/* One event for each transition. */
				told = kit_view(&kit).transitions;
				assert_int_equal(events_read(), told);
				assert_int_equal(told, kit.b->told - kit.b->born);
				kit_close(&kit);
				if (!ran)
					break;
				runs++;
			}
		}
	}
	print_message("# %u interleavings\n", runs);
	assert_true(runs > 500);
}

/* By hand wins over whatever happens meanwhile, at any step. */
static void open_by_hand_is_not_undone(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(scene); i++) {
		if (scene[i].what == do_reset)
			continue; /* by hand, too */
		for (unsigned n = 0; n < STEPS_MAX; n++) {
			bool ran;

			scene[i].begin();
			ran = run_with(scene[i].what, n, others_open_by_hand);
			assert_true(!ran || kit_view(&kit).forced);
			kit_close(&kit);
			if (!ran)
				break;
		}
	}
}

/* ---- what a call costs ---- */

/* LLMKit: each record goes over all samples again. */
static void llmkit_defect_record_grows_with_the_samples(void **state)
{
	unsigned most[2] = { 0, 0 };

	(void)state;
	kit = kit_production();
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < 2000; i++) {
			kit.now += MS;
			do_allow();
			run_with(do_report_ok, UINT32_MAX - 1, die);
			/* The first of a slice or row clears it. */
			if (i > 0 && i % 10 != 0 && steps.count < 60 && steps.count > most[round])
				most[round] = steps.count;
		}
		for (int i = 0; i < 20000; i++)
			kit_call(&kit, BREAKER_OK, 100 * MS);
	}
	print_message("# %u accesses at the most\n", most[1]);
	assert_true(most[1] <= 24);
	assert_true(most[1] <= most[0]);
	kit_close(&kit);
}

/* ---- events ---- */

static void add_event(uint64_t n)
{
	event_add(&kit.r, &(struct event){ .time_ns = n, .kind = EVENT_PAUSE, .value = n * 7 });
}

static void do_add(void)
{
	add_event(1000);
}

/* At any step of writing: nothing is seen of it before all is. */
static void look_at_the_newest(void)
{
	uint64_t ticket = KIT_EVENTS, sequence = kit.bytes->event[0].sequence;
	struct event e;
	enum event_outcome outcome = event_next(&kit.r, &ticket, &e);

	assert_int_equal(outcome, sequence == KIT_EVENTS + 1 ? EVENT_OK : EVENT_E_NONE);
	if (outcome == EVENT_OK)
		assert_int_equal(e.value, 7000);
}

static void event_is_seen_whole_or_not(void **state)
{
	bool more = true;

	(void)state;
	for (unsigned n = 0; more; n++) {
		kit = kit_open();
		for (uint64_t i = 0; i < KIT_EVENTS; i++)
			add_event(i);
		more = run_with(do_add, n, look_at_the_newest);
		look_at_the_newest();
		kit_close(&kit);
		assert_true(n < STEPS_MAX);
	}
}

static void add_a_whole_turn(void)
{
	for (uint64_t i = 1; i <= KIT_EVENTS + 3; i++)
		add_event(i);
}

/* A writer that comes back after a whole turn: what is read is whole and its own; when it had not
 * begun to write, it gives way and nothing is missed. */
static void late_writer_gives_way(void **state)
{
	bool more = true;

	(void)state;
	for (unsigned n = 0; more; n++) {
		uint64_t ticket = 0, read = 0;
		struct event e;
		enum event_outcome outcome;

		kit = kit_open();
		more = run_with(do_add, n, add_a_whole_turn);
		add_event(KIT_EVENTS + 4);
		while ((outcome = event_next(&kit.r, &ticket, &e)) != EVENT_E_NONE) {
			if (outcome != EVENT_OK)
				continue;
			read++;
			if (more && n > 0)
				assert_int_equal(e.time_ns, e.ticket);
			assert_int_equal(e.value, e.time_ns * 7);
		}
		if (more)
			assert_int_equal(read, KIT_EVENTS - (n > 1));
		kit_close(&kit);
		assert_true(n < STEPS_MAX);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(death_at_any_step_leaves_nothing),
		cmocka_unit_test(others_between_any_two_steps),
		cmocka_unit_test(open_by_hand_is_not_undone),
		cmocka_unit_test(llmkit_defect_record_grows_with_the_samples),
		cmocka_unit_test(event_is_seen_whole_or_not),
		cmocka_unit_test(late_writer_gives_way),
	};

	return cmocka_run_group_tests_name("breaker-steps", tests, NULL, NULL);
}
