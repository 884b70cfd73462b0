/* Results that come late, probes whose lease ends, and owners that die on theirs. */

#include "shm/breaker.h"

#include "shm/breaker_word.h"
#include "shm/hold.h"
#include "shm/latency.h"
#include "tests/unit/breaker-helpers.h"

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
	lost = kit_probe(&k, 1);
	k.now += 60 * SECOND + 200 * MS;
	/* Routers that only look must not keep it from ending. */
	assert_int_equal(breaker_check(&k.r, ROW, k.now, &wait_ns), BREAKER_PROBE);
	assert_int_equal(kit_allow(&k, 2, &ticket), BREAKER_REJECT);
	assert_int_equal(kit_state(&k), BREAKER_OPEN);
	assert_int_equal(kit_view(&k).exponent, 1);
	/* Its ticket, still in the slot, is in nobody's way. */
	k.now += kit_view(&k).retry_ns;
	kit_probe(&k, 2);
	kit_probe(&k, 3);
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
	kit_probe(&k, 1);
	k.now -= 30 * SECOND;
	kit_probe(&k, 2);
	assert_int_equal(kit_allow(&k, 3, &ticket), BREAKER_REJECT);
	assert_int_equal(kit_state(&k), BREAKER_HALF_OPEN);
	kit_close(&k);
	k = kit_production();
	for (int i = 0; i < 5; i++)
		kit_failed(&k);
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
	a = kit_probe(&k, 1);
	k.now += 50 * SECOND;
	b = kit_probe(&k, 2);
	k.now += 50 * SECOND;
	kit_report(&k, &a, BREAKER_NEUTRAL, 0);
	c = kit_probe(&k, 3);
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
	a = kit_probe(&k, 1);
	b = kit_probe(&k, 2);
	assert_int_equal(breaker_reap(&k.r, kit_owner(3)), 0);
	assert_int_equal(breaker_reap(&k.r, 0), 0);
	assert_int_equal(breaker_reap(&k.r, kit_owner(1) + (1 << 16)), 0); /* its row's next */
	assert_int_equal(breaker_reap(&k.r, kit_owner(1)), 1);
	assert_int_equal(breaker_reap(&k.r, kit_owner(1)), 0);
	assert_int_equal(kit_state(&k), BREAKER_HALF_OPEN);
	assert_int_equal(kit_view(&k).probes_out, 1);
	kit_probe(&k, 4);
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
	kit_probe(&k, 0);
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
	a = kit_probe(&k, 1);
	kit_probe(&k, 2);
	s.probes = 1;
	breaker_configure(&k.r, ROW, &s);
	kit_report(&k, &a, BREAKER_NEUTRAL, 0);
	assert_int_equal(kit_allow(&k, 3, &ticket), BREAKER_REJECT);
	kit_close(&k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
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
	};

	return cmocka_run_group_tests_name("breaker-probes", tests, NULL, NULL);
}
