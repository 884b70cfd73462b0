#include "shm/breaker.h"

#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>
#include "shm/breaker_word.h"
#include "shm/hold.h"
#include "shm/latency.h"
#include "tests/unit/breaker-helpers.h"

static void ok(struct kit *k)
{
	assert_int_equal(kit_call(k, BREAKER_OK, 0), BREAKER_PASS);
}

static void failed(struct kit *k)
{
	assert_int_equal(kit_call(k, BREAKER_FAILED, 0), BREAKER_PASS);
}

static struct breaker_ticket probe(struct kit *k, uint64_t participant)
{
	struct breaker_ticket ticket;

	assert_int_equal(kit_allow(k, participant, &ticket), BREAKER_PROBE);
	return ticket;
}

static struct event next_event(struct kit *k, uint64_t *ticket)
{
	struct event e;

	assert_int_equal(event_next(&k->r, ticket, &e), EVENT_OK);
	assert_int_equal(e.kind, EVENT_BREAKER);
	assert_int_equal(e.row, ROW);
	return e;
}

/* ---- names, settings ---- */

static void names_are_known_and_others_are_not(void **state)
{
	(void)state;
	assert_string_equal(breaker_state_name(BREAKER_HALF_OPEN), "half-open");
	assert_string_equal(breaker_state_name(3), "unknown");
	assert_string_equal(breaker_why_name(BREAKER_WHY_MISSED), "missed");
	assert_string_equal(breaker_why_name(BREAKER_WHY_NONE), "none");
	assert_string_equal(breaker_why_name(UINT64_MAX), "unknown");
	assert_string_equal(breaker_preset_name(BREAKER_PRODUCTION), "production");
	assert_string_equal(breaker_preset_name(BREAKER_AGGRESSIVE), "aggressive");
	assert_string_equal(breaker_preset_name(BREAKER_CONSERVATIVE), "conservative");
	assert_null(breaker_preset_name(BREAKER_PRESETS));
}

/* The deviations and times that the original's users know. */
static void presets_have_the_originals_meaning(void **state)
{
	static const unsigned z[] = { 250, 150, 300 }, timeout_s[] = { 60, 10, 120 };

	(void)state;
	for (unsigned i = 0; i < BREAKER_PRESETS; i++) {
		struct breaker_settings s = breaker_preset((enum breaker_preset)i);

		assert_int_equal(s.z_percent, z[i]);
		assert_int_equal(s.cap_ms, timeout_s[i] * 1000);
	}
	assert_int_equal(breaker_preset((enum breaker_preset)99).z_percent, 250);
}

static void settings_come_back(void **state)
{
	struct breaker_settings s = { .run = 7,
		.ratio_percent = 33,
		.calls = 1234,
		.window_s = 4321,
		.probes = 3,
		.need = 200,
		.lease_ms = 70000,
		.base_ms = 1500,
		.cap_ms = 3000000,
		.z_percent = 275 };
	struct kit k = kit_production();
	struct breaker_settings got;

	(void)state;
	breaker_configure(&k.r, ROW, &s);
	got = kit_view(&k).settings;
	assert_int_equal(got.run, 7);
	assert_int_equal(got.ratio_percent, 33);
	assert_int_equal(got.calls, 1234);
	assert_int_equal(got.window_s, 4321);
	assert_int_equal(got.probes, 3);
	assert_int_equal(got.need, 200);
	assert_int_equal(got.lease_ms, 70000);
	assert_int_equal(got.base_ms, 1500);
	assert_int_equal(got.cap_ms, 3000000);
	assert_int_equal(got.z_percent, 275);
	assert_true(sizeof(struct layout_breaker) <= 256);
	kit_close(&k);
}

/* ---- opening ---- */

static void failures_in_a_row_open(void **state)
{
	struct kit k = kit_production();

	(void)state;
	for (int i = 0; i < 4; i++)
		failed(&k);
	assert_int_equal(kit_state(&k), BREAKER_CLOSED);
	failed(&k);
	assert_int_equal(kit_state(&k), BREAKER_OPEN);
	kit_close(&k);
}

static void one_success_ends_the_row(void **state)
{
	struct kit k = kit_production();

	(void)state;
	for (int round = 0; round < 4; round++) {
		for (int i = 0; i < 4; i++)
			failed(&k);
		ok(&k);
		k.now += 40 * SECOND; /* so that the ratio does not open */
	}
	assert_int_equal(kit_state(&k), BREAKER_CLOSED);
	kit_close(&k);
}

/* The original's "50 % errors", from the least number of calls on. */
static void half_errors_open_at_the_twentieth_call(void **state)
{
	struct kit k = kit_production();

	(void)state;
	for (int i = 0; i < 19; i++) {
		k.now += SECOND;
		kit_call(&k, i % 2 ? BREAKER_FAILED : BREAKER_OK, 0);
		assert_int_equal(kit_state(&k), BREAKER_CLOSED);
	}
	kit_call(&k, BREAKER_FAILED, 0);
	assert_int_equal(kit_state(&k), BREAKER_OPEN);
	kit_close(&k);
}

static void a_third_of_errors_does_not(void **state)
{
	struct kit k = kit_production();

	(void)state;
	for (int i = 0; i < 1000; i++) {
		k.now += SECOND;
		kit_call(&k, i % 3 ? BREAKER_OK : BREAKER_FAILED, 0);
		assert_int_equal(kit_state(&k), BREAKER_CLOSED);
	}
	assert_int_equal(kit_view(&k).requests, 1000);
	assert_int_equal(kit_view(&k).errors, 334);
	assert_int_equal(kit_view(&k).window_ok + kit_view(&k).window_bad, 30);
	kit_close(&k);
}

/* Old errors are not in the window, though nobody cleaned it, whatever the pause. */
static void slices_expire_by_themselves(void **state)
{
	(void)state;
	for (uint64_t pause = 30; pause < 30000; pause = pause * 3 / 2) {
		struct kit k = kit_production();

		for (int i = 0; i < 18; i++)
			kit_call(&k, i % 2 ? BREAKER_FAILED : BREAKER_OK, 0);
		assert_int_equal(kit_view(&k).window_bad, 9);
		k.now += pause * SECOND;
		assert_int_equal(kit_view(&k).window_bad, 0);
		assert_int_equal(kit_view(&k).window_ok, 0);
		kit_call(&k, BREAKER_OK, 0);
		for (int i = 0; i < 3; i++)
			failed(&k);
		assert_int_equal(kit_state(&k), BREAKER_CLOSED);
		assert_int_equal(kit_view(&k).window_bad, 3);
		assert_int_equal(kit_view(&k).requests, 22);
		assert_int_equal(kit_view(&k).errors, 12);
		kit_close(&k);
	}
}

static void limited_and_neutral_are_nothing_when_closed(void **state)
{
	struct kit k = kit_production();

	(void)state;
	for (int i = 0; i < 100; i++) {
		kit_call(&k, BREAKER_LIMITED, 0);
		kit_call(&k, BREAKER_NEUTRAL, 0);
	}
	assert_int_equal(kit_state(&k), BREAKER_CLOSED);
	assert_int_equal(kit_view(&k).requests, 0);
	kit_close(&k);
}

/* ---- open, half-open ---- */

static void open_rejects_until_its_time(void **state)
{
	struct kit k = kit_production();
	struct breaker_ticket ticket;
	uint64_t wait_ns, check_ns;

	(void)state;
	for (int i = 0; i < 5; i++)
		failed(&k);
	assert_int_equal(breaker_allow(&k.r, ROW, kit_owner(1), k.now, 0, &ticket, &wait_ns),
		BREAKER_REJECT);
	assert_int_equal(breaker_check(&k.r, ROW, k.now, &check_ns), BREAKER_REJECT);
	assert_int_equal(wait_ns, check_ns);
	assert_in_range(wait_ns, 2500 * MS, 5100 * MS);
	k.now += wait_ns - 1;
	assert_int_equal(kit_allow(&k, 1, &ticket), BREAKER_REJECT);
	assert_int_equal(breaker_check(&k.r, ROW, k.now, &check_ns), BREAKER_REJECT);
	k.now += 1;
	assert_int_equal(breaker_check(&k.r, ROW, k.now, &check_ns), BREAKER_PROBE);
	assert_int_equal(kit_state(&k), BREAKER_OPEN); /* a look changes nothing */
	assert_int_equal(kit_allow(&k, 1, &ticket), BREAKER_PROBE);
	assert_int_equal(kit_state(&k), BREAKER_HALF_OPEN);
	kit_close(&k);
}

/* LLMKit: one failure opens, and it never leaves open by itself. */
static void llmkit_defect_one_failure_opens(void **state)
{
	(void)state;
	for (unsigned preset = 0; preset < BREAKER_PRESETS; preset++) {
		struct kit k = kit_with(breaker_preset((enum breaker_preset)preset));

		failed(&k);
		assert_int_equal(kit_state(&k), BREAKER_CLOSED);
		kit_close(&k);
	}
}

static void llmkit_defect_open_never_leaves(void **state)
{
	(void)state;
	for (unsigned preset = 0; preset < BREAKER_PRESETS; preset++) {
		struct kit k = kit_with(breaker_preset((enum breaker_preset)preset));
		int calls = 0;

		kit_open_and_wait(&k);
		while (kit_state(&k) != BREAKER_CLOSED && calls++ < 10)
			assert_int_equal(kit_call(&k, BREAKER_OK, 0), BREAKER_PROBE);
		assert_int_equal(kit_state(&k), BREAKER_CLOSED);
		kit_close(&k);
	}
}

/* LLMKit: probes count when they end, so all that wait are let through at once. */
static void llmkit_defect_half_open_lets_the_herd_through(void **state)
{
	struct kit k = kit_production();
	struct breaker_ticket ticket;
	uint64_t wait_ns;
	int probes = 0;

	(void)state;
	kit_open_and_wait(&k);
	for (uint64_t i = 0; i < 1000; i++)
		probes += kit_allow(&k, i, &ticket) == BREAKER_PROBE;
	assert_int_equal(probes, 2);
	assert_int_equal(kit_view(&k).probes_out, 2);
	assert_int_equal(breaker_check(&k.r, ROW, k.now, &wait_ns), BREAKER_REJECT);
	assert_true(wait_ns > 0);
	kit_close(&k);
}

static void enough_probes_close(void **state)
{
	struct kit k = kit_production();
	struct breaker_ticket a, b;

	(void)state;
	kit_open_and_wait(&k);
	a = probe(&k, 1);
	b = probe(&k, 2);
	kit_report(&k, &a, BREAKER_OK, 0);
	assert_int_equal(kit_state(&k), BREAKER_HALF_OPEN);
	assert_int_equal(kit_view(&k).probes_out, 1);
	kit_report(&k, &b, BREAKER_OK, 0);
	assert_int_equal(kit_state(&k), BREAKER_CLOSED);
	/* The window of before does not open it again. */
	for (int i = 0; i < 4; i++)
		failed(&k);
	assert_int_equal(kit_state(&k), BREAKER_CLOSED);
	kit_close(&k);
}

/* Errors of before it opened, still within the window's time, are not held against it. */
static void closing_forgets_the_window(void **state)
{
	struct breaker_settings s = breaker_preset(BREAKER_PRODUCTION);
	struct kit k;

	(void)state;
	s.run = 0;
	s.base_ms = 1000;
	k = kit_with(s);
	kit_open_and_wait(&k);
	kit_call(&k, BREAKER_OK, 0);
	kit_call(&k, BREAKER_OK, 0);
	assert_int_equal(kit_state(&k), BREAKER_CLOSED);
	assert_int_equal(kit_view(&k).window_bad, 20); /* as health still seen */
	assert_true(breaker_error_ratio(&k.r, ROW, k.now) <= 0);
	for (int i = 0; i < 6; i++) {
		k.now += SECOND;
		failed(&k);
	}
	assert_int_equal(kit_state(&k), BREAKER_CLOSED);
	assert_true(breaker_error_ratio(&k.r, ROW, k.now) > 0);
	kit_close(&k);
}

static void failed_or_limited_probe_opens(void **state)
{
	static const enum breaker_outcome outcome[] = { BREAKER_FAILED, BREAKER_LIMITED };

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct kit k = kit_production();
		struct breaker_ticket a, b;

		kit_open_and_wait(&k);
		a = probe(&k, 1);
		b = probe(&k, 2);
		kit_report(&k, &a, outcome[i], 0);
		assert_int_equal(kit_state(&k), BREAKER_OPEN);
		assert_int_equal(kit_view(&k).exponent, 1);
		/* The other one is of before. */
		kit_report(&k, &b, BREAKER_OK, 0);
		assert_int_equal(kit_state(&k), BREAKER_OPEN);
		kit_close(&k);
	}
}

static void neutral_probe_returns_its_ticket(void **state)
{
	struct kit k = kit_production();
	struct breaker_ticket a, other;

	(void)state;
	kit_open_and_wait(&k);
	a = probe(&k, 1);
	probe(&k, 2);
	assert_int_equal(kit_allow(&k, 3, &other), BREAKER_REJECT);
	kit_report(&k, &a, BREAKER_NEUTRAL, 0);
	assert_int_equal(kit_state(&k), BREAKER_HALF_OPEN);
	probe(&k, 3);
	assert_int_equal(kit_view(&k).requests, 5);
	kit_close(&k);
}

static void second_report_counts_for_nothing(void **state)
{
	struct kit k = kit_production();
	struct breaker_ticket a;

	(void)state;
	kit_open_and_wait(&k);
	a = probe(&k, 1);
	kit_report(&k, &a, BREAKER_OK, 0);
	kit_report(&k, &a, BREAKER_OK, 0);
	kit_report(&k, &a, BREAKER_FAILED, 0);
	assert_int_equal(kit_state(&k), BREAKER_HALF_OPEN);
	kit_close(&k);
}

static void nobody_gets_no_probe(void **state)
{
	struct kit k = kit_production();
	struct breaker_ticket ticket;
	uint64_t wait_ns;

	(void)state;
	kit_open_and_wait(&k);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(
			breaker_allow(&k.r, ROW, 0, k.now, 5, &ticket, &wait_ns), BREAKER_REJECT);
		assert_true(wait_ns > 0);
		probe(&k, 1);
	}
	kit_close(&k);
}

/* Longer by each failed probe, up to the cap; between half and all of it, and not always the same.
 */
static void backoff_doubles_with_jitter(void **state)
{
	struct kit k = kit_production();
	uint64_t least[6], most[6];

	(void)state;
	memset(least, 0xff, sizeof(least));
	memset(most, 0, sizeof(most));
	for (int run = 0; run < 200; run++) {
		breaker_reset(&k.r, ROW, k.now);
		k.now += SECOND;
		kit_open_and_wait(&k);
		for (unsigned e = 1; e < 6; e++) {
			struct breaker_ticket t = probe(&k, 1);
			uint64_t ns;

			kit_report(&k, &t, BREAKER_FAILED, 0);
			ns = kit_view(&k).retry_ns;
			least[e] = ns < least[e] ? ns : least[e];
			most[e] = ns > most[e] ? ns : most[e];
			k.now += ns;
		}
	}
	for (unsigned e = 1; e < 6; e++) {
		uint64_t full = 5000 * MS << e;

		full = full < 60000 * MS ? full : 60000 * MS;
		assert_in_range(least[e], full / 2, full * 55 / 100);
		assert_in_range(most[e], full * 95 / 100, full + 100 * MS);
	}
	kit_close(&k);
}

static void exponent_decays_by_closing_and_by_health(void **state)
{
	struct kit k = kit_production();

	(void)state;
	kit_open_and_wait(&k);
	for (int i = 0; i < 3; i++) {
		struct breaker_ticket t = probe(&k, 1);

		kit_report(&k, &t, BREAKER_FAILED, 0);
		k.now += kit_view(&k).retry_ns;
	}
	assert_int_equal(kit_view(&k).exponent, 3);
	kit_call(&k, BREAKER_OK, 0);
	kit_call(&k, BREAKER_OK, 0);
	assert_int_equal(kit_view(&k).exponent, 2);
	k.now += 61 * SECOND;
	kit_open_and_wait(&k);
	assert_int_equal(kit_view(&k).exponent, 1);
	kit_close(&k);
}

/* ---- late results, leases, deaths ---- */

static void late_results_count_in_health_alone(void **state)
{
	struct kit k = kit_production();
	struct breaker_ticket late[30];
	struct breaker_view before, after;

	(void)state;
	for (int i = 0; i < 30; i++)
		assert_int_equal(kit_allow(&k, 1, &late[i]), BREAKER_PASS);
	kit_open_and_wait(&k);
	kit_call(&k, BREAKER_OK, 0);
	kit_call(&k, BREAKER_OK, 0);
	before = kit_view(&k);
	assert_int_equal(before.state, BREAKER_CLOSED);
	k.now += 4 * SECOND;
	for (int i = 0; i < 30; i++)
		kit_report(&k, &late[i], i % 3 ? BREAKER_FAILED : BREAKER_OK, 100 * MS);
	after = kit_view(&k);
	assert_int_equal(after.state, BREAKER_CLOSED);
	assert_int_equal(after.requests, before.requests + 30);
	assert_int_equal(after.errors, before.errors + 20);
	assert_int_equal(after.transitions, before.transitions);
	assert_int_equal(latency_count(&k.r, ROW, k.now), 10);
	kit_close(&k);
}

static void lost_probe_opens_when_its_lease_ends(void **state)
{
	struct kit k = kit_production();
	struct breaker_ticket lost, ticket;
	uint64_t wait_ns;

	(void)state;
	kit_open_and_wait(&k);
	lost = probe(&k, 1);
	k.now += 60 * SECOND + 200 * MS;
	/* Routers that only look must not keep it from ending. */
	assert_int_equal(breaker_check(&k.r, ROW, k.now, &wait_ns), BREAKER_PROBE);
	assert_int_equal(kit_allow(&k, 2, &ticket), BREAKER_REJECT);
	assert_int_equal(kit_state(&k), BREAKER_OPEN);
	assert_int_equal(kit_view(&k).exponent, 1);
	/* Its ticket, still in the slot, is in nobody's way. */
	k.now += kit_view(&k).retry_ns;
	probe(&k, 2);
	probe(&k, 3);
	kit_report(&k, &lost, BREAKER_FAILED, 0);
	assert_int_equal(kit_state(&k), BREAKER_HALF_OPEN);
	assert_int_equal(kit_view(&k).probes_out, 2);
	kit_close(&k);
}

/* Whose now is old sees times that are further ahead than any; they are not nonsense for it. */
static void late_caller_ends_nothing(void **state)
{
	struct kit k = kit_production();
	struct breaker_ticket ticket;
	uint64_t wait_ns;

	(void)state;
	kit_open_and_wait(&k);
	k.now += 30 * SECOND;
	probe(&k, 1);
	k.now -= 30 * SECOND;
	probe(&k, 2);
	assert_int_equal(kit_allow(&k, 3, &ticket), BREAKER_REJECT);
	assert_int_equal(kit_state(&k), BREAKER_HALF_OPEN);
	kit_close(&k);
	k = kit_production();
	for (int i = 0; i < 5; i++)
		failed(&k);
	k.now -= 10 * SECOND;
	assert_int_equal(breaker_check(&k.r, ROW, k.now, &wait_ns), BREAKER_REJECT);
	kit_close(&k);
}

/* A deadline that nobody can have set does not keep it open. */
static void nonsense_deadline_is_due(void **state)
{
	(void)state;
	for (uint32_t bits = 0; bits < 1u << 26; bits += 4999) {
		struct kit k = kit_production();
		struct breaker_ticket ticket;

		k.b->state = breaker_pack(
			(struct breaker_word){ .state = BREAKER_OPEN, .deadline = bits });
		k.now += 181 * SECOND;
		assert_int_not_equal(kit_allow(&k, 1, &ticket),
			kit_view(&k).retry_ns > 0 ? BREAKER_PROBE : BREAKER_REJECT);
		assert_true(kit_view(&k).retry_ns <= 180 * SECOND);
		kit_close(&k);
	}
}

/* Few calls: nobody failed, so there is nothing to open for. */
static void quiet_half_open_stays(void **state)
{
	struct kit k = kit_production();

	(void)state;
	kit_open_and_wait(&k);
	kit_call(&k, BREAKER_OK, 0);
	k.now += 1000 * SECOND;
	assert_int_equal(kit_call(&k, BREAKER_OK, 0), BREAKER_PROBE);
	assert_int_equal(kit_state(&k), BREAKER_CLOSED);
	kit_close(&k);
}

/* A lease runs from when the probe was taken. */
static void later_probe_has_its_whole_lease(void **state)
{
	struct kit k = kit_production();
	struct breaker_ticket a, b, c;

	(void)state;
	kit_open_and_wait(&k);
	a = probe(&k, 1);
	k.now += 50 * SECOND;
	b = probe(&k, 2);
	k.now += 50 * SECOND;
	kit_report(&k, &a, BREAKER_NEUTRAL, 0);
	c = probe(&k, 3);
	kit_report(&k, &c, BREAKER_OK, 0);
	kit_report(&k, &b, BREAKER_OK, 0);
	assert_int_equal(kit_state(&k), BREAKER_CLOSED);
	kit_close(&k);
}

static void dead_owners_tickets_come_back_once(void **state)
{
	struct kit k = kit_production();
	struct breaker_ticket a, b;

	(void)state;
	kit_open_and_wait(&k);
	a = probe(&k, 1);
	b = probe(&k, 2);
	assert_int_equal(breaker_reap(&k.r, kit_owner(3)), 0);
	assert_int_equal(breaker_reap(&k.r, 0), 0);
	assert_int_equal(breaker_reap(&k.r, kit_owner(1) + (1 << 16)), 0); /* its row's next */
	assert_int_equal(breaker_reap(&k.r, kit_owner(1)), 1);
	assert_int_equal(breaker_reap(&k.r, kit_owner(1)), 0);
	assert_int_equal(kit_state(&k), BREAKER_HALF_OPEN);
	assert_int_equal(kit_view(&k).probes_out, 1);
	probe(&k, 4);
	kit_report(&k, &a, BREAKER_OK, 0); /* as if it had lived */
	assert_int_equal(kit_view(&k).probes_out, 2);
	kit_report(&k, &b, BREAKER_OK, 0);
	assert_int_equal(kit_state(&k), BREAKER_HALF_OPEN);
	kit_close(&k);
}

/* Participant and generation both are in a ticket, as hold_owner() makes them. */
static void owners_are_told_apart(void **state)
{
	struct kit k = kit_production();
	struct breaker_ticket ticket;
	uint64_t wait_ns, owner = hold_owner(65535, 0xabcdef);

	(void)state;
	kit_open_and_wait(&k);
	assert_int_equal(
		breaker_allow(&k.r, ROW, owner, k.now, 3, &ticket, &wait_ns), BREAKER_PROBE);
	for (unsigned bit = 0; bit < 24; bit++) {
		uint64_t generation = 0xabcdef ^ (UINT64_C(1) << bit);

		assert_int_equal(breaker_reap(&k.r, hold_owner(65535, generation)), 0);
		if (bit < 16)
			assert_int_equal(
				breaker_reap(&k.r, hold_owner(65535 ^ (1u << bit), 0xabcdef)), 0);
	}
	assert_int_equal(breaker_reap(&k.r, owner), 1);
	kit_close(&k);
}

/* Results of calls that no breaker was asked for count as of now. */
static void results_without_a_ticket_count(void **state)
{
	struct kit k = kit_production();
	struct breaker_ticket none = { .row = ROW, .slot = BREAKER_NO_PROBE };

	(void)state;
	breaker_force_open(&k.r, ROW, k.now);
	kit_report(&k, &none, BREAKER_FAILED, 0);
	assert_int_equal(kit_view(&k).window_bad, 1);
	breaker_force_close(&k.r, ROW, k.now);
	for (int i = 0; i < 5; i++)
		kit_report(&k, &none, BREAKER_FAILED, 0);
	assert_int_equal(kit_state(&k), BREAKER_OPEN);
	kit_close(&k);
}

/* Whatever is in the first row and slot, of participant 0 too. */
static void owner_of_row_0_is_reaped(void **state)
{
	struct kit k = kit_production();

	(void)state;
	kit_open_and_wait(&k);
	probe(&k, 0);
	assert_int_equal(breaker_reap(&k.r, kit_owner(0)), 1);
	assert_int_equal(kit_view(&k).probes_out, 0);
	kit_close(&k);
}

static void fewer_probes_by_configuration(void **state)
{
	struct breaker_settings s = breaker_preset(BREAKER_PRODUCTION);
	struct breaker_ticket a, ticket;
	struct kit k = kit_production();

	(void)state;
	kit_open_and_wait(&k);
	a = probe(&k, 1);
	probe(&k, 2);
	s.probes = 1;
	breaker_configure(&k.r, ROW, &s);
	kit_report(&k, &a, BREAKER_NEUTRAL, 0);
	assert_int_equal(kit_allow(&k, 3, &ticket), BREAKER_REJECT);
	kit_close(&k);
}

/* ---- ramp ---- */

static void close_it(struct kit *k)
{
	kit_open_and_wait(k);
	kit_call(k, BREAKER_OK, 0);
	kit_call(k, BREAKER_OK, 0);
	assert_int_equal(kit_state(k), BREAKER_CLOSED);
}

static void ramp_doubles_by_successes(void **state)
{
	struct kit k = kit_production();

	(void)state;
	assert_int_equal(breaker_ramp(&k.r, ROW, k.now), UINT32_MAX);
	close_it(&k);
	for (unsigned i = 0; i < 10; i++) {
		assert_int_equal(breaker_ramp(&k.r, ROW, k.now), 1u << i);
		ok(&k);
	}
	assert_int_equal(breaker_ramp(&k.r, ROW, k.now), UINT32_MAX);
	kit_close(&k);
}

static void ramp_doubles_by_seconds(void **state)
{
	struct kit k = kit_production();

	(void)state;
	close_it(&k);
	for (unsigned i = 0; i < 10; i++) {
		assert_int_equal(breaker_ramp(&k.r, ROW, k.now), 1u << i);
		k.now += SECOND;
	}
	assert_int_equal(breaker_ramp(&k.r, ROW, k.now), UINT32_MAX);
	assert_int_equal(breaker_ramp(&k.r, UINT32_MAX, k.now), UINT32_MAX);
	/* Over by time: successes change nothing any more. */
	ok(&k);
	assert_int_equal(breaker_ramp(&k.r, ROW, k.now), UINT32_MAX);
	assert_int_equal(breaker_unpack(k.b->state).ok, 0);
	kit_close(&k);
}

/* ---- by hand ---- */

static void forced_open_stays_until_closed_by_hand(void **state)
{
	struct kit k = kit_production();
	struct breaker_ticket ticket, early;
	uint64_t wait_ns;

	(void)state;
	kit_allow(&k, 1, &early);
	breaker_force_open(&k.r, ROW, k.now);
	kit_report(&k, &early, BREAKER_OK, 0);
	assert_true(kit_view(&k).forced);
	assert_int_equal(kit_state(&k), BREAKER_OPEN);
	for (int i = 0; i < 50; i++) {
		k.now += 1000000 * SECOND;
		assert_int_equal(
			breaker_allow(&k.r, ROW, kit_owner(1), k.now, 0, &ticket, &wait_ns),
			BREAKER_REJECT);
		assert_true(wait_ns == BREAKER_WAIT_FOREVER && k.now + wait_ns > k.now);
		assert_int_equal(breaker_check(&k.r, ROW, k.now, &wait_ns), BREAKER_REJECT);
		assert_true(wait_ns == BREAKER_WAIT_FOREVER);
		kit_report(&k, &ticket, BREAKER_OK, 0); /* one that called all the same */
		breaker_tell(&k.r, k.now);
		breaker_adopt(&k.r, k.now);
	}
	assert_true(kit_view(&k).forced);
	breaker_force_close(&k.r, ROW, k.now);
	assert_false(kit_view(&k).forced);
	ok(&k);
	kit_close(&k);
}

static void force_from_every_state(void **state)
{
	struct kit k = kit_production();
	struct breaker_ticket a;

	(void)state;
	kit_open_and_wait(&k);
	breaker_force_close(&k.r, ROW, k.now);
	assert_int_equal(kit_state(&k), BREAKER_CLOSED);
	kit_open_and_wait(&k);
	a = probe(&k, 1);
	breaker_force_open(&k.r, ROW, k.now);
	breaker_force_open(&k.r, ROW, k.now);
	kit_report(&k, &a, BREAKER_OK, 0);
	assert_true(kit_view(&k).forced);
	breaker_force_close(&k.r, ROW, k.now);
	breaker_force_close(&k.r, ROW, k.now);
	assert_int_equal(kit_view(&k).transitions, 6);
	breaker_force_open(&k.r, UINT32_MAX, k.now);
	breaker_force_close(&k.r, UINT32_MAX, k.now);
	kit_close(&k);
}

static void reset_forgets_and_closes(void **state)
{
	struct kit k = kit_production();
	struct breaker_ticket late;
	struct breaker_view v;

	(void)state;
	for (int i = 0; i < 100; i++)
		kit_call(&k, BREAKER_OK, 300 * MS);
	for (int i = 0; i < 4; i++)
		failed(&k);
	kit_allow(&k, 1, &late);
	breaker_reset(&k.r, ROW, k.now);
	breaker_reset(&k.r, UINT32_MAX, k.now);
	v = kit_view(&k);
	assert_int_equal(v.state, BREAKER_CLOSED);
	assert_true(v.baseline_us <= 0 && v.cusum <= 0);
	assert_int_equal(v.window_ok + v.window_bad, 0);
	assert_int_equal(v.p50_us, 0);
	assert_int_equal(v.requests, 104);
	assert_int_equal(v.errors, 4);
	/* The fifth in a row, had it not been reset. */
	kit_report(&k, &late, BREAKER_FAILED, 0);
	failed(&k);
	assert_int_equal(kit_state(&k), BREAKER_CLOSED);
	breaker_force_open(&k.r, ROW, k.now);
	breaker_reset(&k.r, ROW, k.now);
	assert_int_equal(kit_state(&k), BREAKER_CLOSED);
	kit_close(&k);
}

static void new_target_starts_anew(void **state)
{
	struct breaker_settings s = breaker_preset(BREAKER_AGGRESSIVE);
	struct kit k = kit_production();
	struct breaker_ticket a;
	struct breaker_view v;

	(void)state;
	for (int i = 0; i < 100; i++)
		kit_call(&k, BREAKER_OK, 300 * MS);
	kit_open_and_wait(&k);
	a = probe(&k, 1);
	breaker_init(&k.r, ROW, &s);
	breaker_init(&k.r, UINT32_MAX, &s);
	breaker_configure(&k.r, UINT32_MAX, &s);
	v = kit_view(&k);
	assert_int_equal(v.state, BREAKER_CLOSED);
	assert_int_equal(v.requests + v.errors + v.transitions + v.mean_us + v.p99_us, 0);
	assert_true(v.baseline_us <= 0);
	assert_int_equal(v.settings.cap_ms, 10000);
	assert_int_equal(breaker_ramp(&k.r, ROW, k.now), UINT32_MAX);
	kit_report(&k, &a, BREAKER_FAILED, 0);
	assert_int_equal(kit_state(&k), BREAKER_CLOSED);
	kit_close(&k);
}

static void configure_keeps_state(void **state)
{
	struct breaker_settings s = breaker_preset(BREAKER_AGGRESSIVE);
	struct kit k = kit_production();

	(void)state;
	failed(&k);
	failed(&k);
	breaker_configure(&k.r, ROW, &s);
	assert_int_equal(kit_view(&k).requests, 2);
	failed(&k); /* the third, of three that are now enough */
	assert_int_equal(kit_state(&k), BREAKER_OPEN);
	breaker_configure(&k.r, ROW, &s);
	assert_int_equal(kit_state(&k), BREAKER_OPEN);
	kit_close(&k);
}

/* ---- events, adoption, health ---- */

static void every_transition_is_an_event(void **state)
{
	static const struct {
		uint8_t from, to, why;
	} want[] = {
		{ BREAKER_CLOSED, BREAKER_OPEN, BREAKER_WHY_RUN },
		{ BREAKER_OPEN, BREAKER_HALF_OPEN, BREAKER_WHY_TIMER },
		{ BREAKER_HALF_OPEN, BREAKER_OPEN, BREAKER_WHY_PROBE },
		{ BREAKER_OPEN, BREAKER_HALF_OPEN, BREAKER_WHY_TIMER },
		{ BREAKER_HALF_OPEN, BREAKER_CLOSED, BREAKER_WHY_RECOVERED },
		{ BREAKER_CLOSED, BREAKER_OPEN, BREAKER_WHY_HAND },
		{ BREAKER_OPEN, BREAKER_CLOSED, BREAKER_WHY_HAND },
	};
	struct kit k = kit_production();
	uint64_t ticket = 0;
	struct event e;

	(void)state;
	kit_open_and_wait(&k);
	kit_call(&k, BREAKER_FAILED, 0);
	k.now += kit_view(&k).retry_ns;
	kit_call(&k, BREAKER_OK, 0);
	kit_call(&k, BREAKER_OK, 0);
	breaker_force_open(&k.r, ROW, k.now);
	breaker_force_close(&k.r, ROW, k.now);
	for (size_t i = 0; i < ARRAY_SIZE(want); i++) {
		e = next_event(&k, &ticket);
		assert_int_equal(e.from, want[i].from);
		assert_int_equal(e.to, want[i].to);
		assert_int_equal(e.why, want[i].why);
		assert_true((e.value > 0) == (e.to == BREAKER_OPEN && e.why != BREAKER_WHY_HAND));
	}
	assert_int_equal(event_next(&k.r, &ticket, &e), EVENT_E_NONE);
	breaker_tell(&k.r, k.now + 10 * SECOND);
	assert_int_equal(event_next(&k.r, &ticket, &e), EVENT_E_NONE);
	assert_int_equal(kit_view(&k).transitions, ARRAY_SIZE(want));
	assert_int_equal(kit_view(&k).changed_ns, k.now);
	kit_close(&k);
}

/* The writer died after its transition and before it told. */
static void missed_transitions_are_told_once(void **state)
{
	struct kit k = kit_production();
	uint64_t ticket;
	struct event e;

	(void)state;
	kit_open_and_wait(&k);
	k.b->told -= 1;
	ticket = event_head(&k.r);
	assert_int_equal(kit_view(&k).transitions, 1);
	k.now = k.b->changed_ns + SECOND - 1;
	breaker_tell(&k.r, k.now); /* it may still be about to */
	assert_int_equal(event_next(&k.r, &ticket, &e), EVENT_E_NONE);
	k.now++;
	breaker_tell(&k.r, k.now);
	breaker_tell(&k.r, k.now);
	e = next_event(&k, &ticket);
	assert_int_equal(e.to, BREAKER_OPEN);
	assert_int_equal(e.why, BREAKER_WHY_MISSED);
	assert_int_equal(event_next(&k.r, &ticket, &e), EVENT_E_NONE);
	/* It was only slow, after all. */
	k.b->told += 1;
	assert_int_equal(kit_view(&k).transitions, 1);
	breaker_tell(&k.r, k.now);
	assert_int_equal(event_next(&k.r, &ticket, &e), EVENT_E_NONE);
	assert_int_equal(kit_view(&k).transitions, 1);
	breaker_force_close(&k.r, ROW, k.now);
	assert_int_equal(kit_view(&k).transitions, 2);
	kit_close(&k);
}

static void generations_wrap(void **state)
{
	struct kit k = kit_production();

	(void)state;
	for (int i = 0; i < 70000; i++) {
		breaker_force_open(&k.r, ROW, k.now);
		breaker_force_close(&k.r, ROW, k.now);
	}
	assert_int_equal(kit_view(&k).transitions, 140000);
	breaker_tell(&k.r, k.now + 10 * SECOND);
	assert_int_equal(kit_view(&k).transitions, 140000);
	kit_close(&k);
}

static void adoption_frees_what_is_not_live(void **state)
{
	struct kit k = kit_production();
	struct breaker_ticket a;

	(void)state;
	kit_open_and_wait(&k);
	a = probe(&k, 1);
	k.b->probe[1] = 0x123456;
	k.b->changed_ns = k.now + 1000 * SECOND;
	breaker_adopt(&k.r, k.now);
	assert_int_equal(k.b->probe[1], 0);
	assert_int_equal(k.b->changed_ns, k.now);
	assert_int_equal(k.b->probe[a.slot], a.word);
	kit_report(&k, &a, BREAKER_FAILED, 0);
	k.b->probe[0] = 99;
	breaker_adopt(&k.r, k.now);
	assert_int_equal(k.b->probe[0], 0);
	kit_close(&k);
}

static void health_is_what_happened(void **state)
{
	struct kit k = kit_production();
	struct breaker_view v;

	(void)state;
	for (unsigned i = 1; i <= 100; i++) {
		k.now += 100 * MS;
		if (i % 10 == 0)
			failed(&k);
		else
			kit_call(&k, BREAKER_OK, i * 10 * MS);
	}
	v = kit_view(&k);
	assert_int_equal(v.requests, 100);
	assert_int_equal(v.errors, 10);
	assert_true(fabs(v.error_ratio - 0.1) < 1e-9);
	assert_int_equal(v.mean_us, 500000);
	assert_in_range(v.p50_us, 460000, 540000);
	assert_in_range(v.p99_us, 920000, 1050000);
	assert_int_equal(v.window_ok, 90);
	assert_int_equal(v.window_bad, 10);
	assert_true(fabsf(breaker_error_ratio(&k.r, ROW, k.now) - 10.0f / 101) < 1e-6f);
	assert_true(breaker_error_ratio(&k.r, UINT32_MAX, k.now) <= 0);
	assert_false(breaker_view(&k.r, UINT32_MAX, k.now, &v));
	kit_close(&k);
}

static void row_that_is_none_lets_pass(void **state)
{
	struct kit k = kit_production();
	struct breaker_ticket ticket;
	uint64_t wait_ns = 9;

	(void)state;
	assert_int_equal(
		breaker_allow(&k.r, KIT_TARGETS, kit_owner(1), k.now, 0, &ticket, &wait_ns),
		BREAKER_PASS);
	assert_int_equal(wait_ns, 0);
	kit_report(&k, &ticket, BREAKER_FAILED, 0);
	assert_int_equal(breaker_check(&k.r, KIT_TARGETS, k.now, &wait_ns), BREAKER_PASS);
	kit_close(&k);
}

/* A row that nobody configured: zeroes. */
static void unconfigured_row_never_opens(void **state)
{
	struct kit k = kit_open();

	(void)state;
	for (int i = 0; i < 1000; i++)
		failed(&k);
	assert_int_equal(kit_view(&k).errors, 1000);
	kit_close(&k);
}

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
		cmocka_unit_test(names_are_known_and_others_are_not),
		cmocka_unit_test(presets_have_the_originals_meaning),
		cmocka_unit_test(settings_come_back),
		cmocka_unit_test(failures_in_a_row_open),
		cmocka_unit_test(one_success_ends_the_row),
		cmocka_unit_test(half_errors_open_at_the_twentieth_call),
		cmocka_unit_test(a_third_of_errors_does_not),
		cmocka_unit_test(slices_expire_by_themselves),
		cmocka_unit_test(limited_and_neutral_are_nothing_when_closed),
		cmocka_unit_test(open_rejects_until_its_time),
		cmocka_unit_test(llmkit_defect_one_failure_opens),
		cmocka_unit_test(llmkit_defect_open_never_leaves),
		cmocka_unit_test(llmkit_defect_half_open_lets_the_herd_through),
		cmocka_unit_test(enough_probes_close),
		cmocka_unit_test(closing_forgets_the_window),
		cmocka_unit_test(failed_or_limited_probe_opens),
		cmocka_unit_test(neutral_probe_returns_its_ticket),
		cmocka_unit_test(second_report_counts_for_nothing),
		cmocka_unit_test(nobody_gets_no_probe),
		cmocka_unit_test(backoff_doubles_with_jitter),
		cmocka_unit_test(exponent_decays_by_closing_and_by_health),
		cmocka_unit_test(late_results_count_in_health_alone),
		cmocka_unit_test(lost_probe_opens_when_its_lease_ends),
		cmocka_unit_test(late_caller_ends_nothing),
		cmocka_unit_test(nonsense_deadline_is_due),
		cmocka_unit_test(quiet_half_open_stays),
		cmocka_unit_test(later_probe_has_its_whole_lease),
		cmocka_unit_test(dead_owners_tickets_come_back_once),
		cmocka_unit_test(owners_are_told_apart),
		cmocka_unit_test(results_without_a_ticket_count),
		cmocka_unit_test(owner_of_row_0_is_reaped),
		cmocka_unit_test(fewer_probes_by_configuration),
		cmocka_unit_test(ramp_doubles_by_successes),
		cmocka_unit_test(ramp_doubles_by_seconds),
		cmocka_unit_test(forced_open_stays_until_closed_by_hand),
		cmocka_unit_test(force_from_every_state),
		cmocka_unit_test(reset_forgets_and_closes),
		cmocka_unit_test(new_target_starts_anew),
		cmocka_unit_test(configure_keeps_state),
		cmocka_unit_test(every_transition_is_an_event),
		cmocka_unit_test(missed_transitions_are_told_once),
		cmocka_unit_test(generations_wrap),
		cmocka_unit_test(adoption_frees_what_is_not_live),
		cmocka_unit_test(health_is_what_happened),
		cmocka_unit_test(row_that_is_none_lets_pass),
		cmocka_unit_test(unconfigured_row_never_opens),
		cmocka_unit_test(garbage_is_survived),
		cmocka_unit_test(threads_never_have_too_many_probes),
		cmocka_unit_test(processes_that_die_on_probes_leave_nothing),
		cmocka_unit_test(threads_count_exactly),
	};

	return cmocka_run_group_tests_name("breaker", tests, NULL, NULL);
}
