#include "shm/participant.h"

#include <errno.h>
#include "base/aux.h"
#include "shm/hold.h"
#include "shm/layout.h"
#include "tests/unit/adopt.h"
#include "tests/unit/shm-fixture.h"

static struct participant_view view_of(const struct fixture *f, int row)
{
	struct participant_view v;

	assert_true(participant_view(&f->r, (uint32_t)row, &v));
	return v;
}

static void claim_fills_a_row(void **state)
{
	struct fixture f = fixture_open(false);
	struct participant_view v;
	int row = participant_claim(&f.r, 100, 7, 1000, FIXTURE_NOW);

	(void)state;
	v = view_of(&f, row);
	assert_int_equal(v.state, PARTICIPANT_ATTACHED);
	assert_int_equal(v.pid, 100);
	assert_int_equal(v.start, 7);
	assert_int_equal(v.uid, 1000);
	assert_int_equal(v.attached_ns, FIXTURE_NOW);
	assert_int_equal(v.generation, 1);
	/* The same process may open several handles: each has its row. */
	assert_int_not_equal(participant_claim(&f.r, 100, 7, 1000, FIXTURE_NOW), row);
	fixture_close(&f);
}

static void released_row_is_used_again_with_a_new_generation(void **state)
{
	struct fixture f = fixture_open(false);
	int row = participant_claim(&f.r, 100, 7, 1000, FIXTURE_NOW);

	(void)state;
	participant_release(&f.r, (uint32_t)row);
	assert_int_equal(view_of(&f, row).state, PARTICIPANT_FREE);
	assert_int_equal(participant_claim(&f.r, 101, 8, 1000, FIXTURE_NOW), row);
	assert_int_equal(view_of(&f, row).generation, 2);
	assert_int_equal(view_of(&f, row).pid, 101);
	participant_release(&f.r, UINT32_MAX); /* out of range: nothing */
	fixture_close(&f);
}

static void full_table_refuses(void **state)
{
	struct fixture f = fixture_open(false);

	(void)state;
	for (uint32_t i = 0; i < LAYOUT_PARTICIPANTS; i++)
		assert_int_equal(participant_claim(&f.r, i + 1, 1, 0, FIXTURE_NOW), (int)i);
	assert_int_equal(participant_claim(&f.r, 9999, 1, 0, FIXTURE_NOW), -ENOSPC);
	participant_release(&f.r, 17);
	assert_int_equal(participant_claim(&f.r, 9999, 1, 0, FIXTURE_NOW), 17);
	fixture_close(&f);
}

static bool is_alive(uint64_t pid, uint64_t start)
{
	return pid == 100 && start == 7;
}

/* After the daemon's death: who lives is kept as an orphan and finds its row again; a pid that
 * was used again (other start) does not count as alive. */
static void adoption_keeps_the_living(void **state)
{
	struct fixture f = fixture_open(false);
	int living = participant_claim(&f.r, 100, 7, 1000, FIXTURE_NOW);
	int dead = participant_claim(&f.r, 100, 6, 1000, FIXTURE_NOW);

	(void)state;
	adopt_participants(&f.r, is_alive, FIXTURE_NOW);
	assert_int_equal(view_of(&f, living).state, PARTICIPANT_ORPHAN);
	assert_int_equal(view_of(&f, dead).state, PARTICIPANT_FREE);
	/* A second death before it came back. */
	adopt_participants(&f.r, is_alive, FIXTURE_NOW);
	assert_int_equal(view_of(&f, living).state, PARTICIPANT_ORPHAN);
	/* Another process does not get the orphan's row; its owner does. */
	assert_int_equal(participant_claim(&f.r, 200, 1, 1000, FIXTURE_NOW + 1), dead);
	assert_int_equal(participant_claim(&f.r, 100, 7, 1000, FIXTURE_NOW + 2), living);
	assert_int_equal(view_of(&f, living).state, PARTICIPANT_ATTACHED);
	assert_int_equal(view_of(&f, living).generation, 1); /* its holds are marked with it */
	fixture_close(&f);
}

/* A socket that ended proves no death: what the process holds stays its own. */
static void orphan_keeps_its_holds_and_comes_back(void **state)
{
	struct fixture f = fixture_open(false);
	uint32_t row = (uint32_t)participant_claim(&f.r, 100, 7, 1000, FIXTURE_NOW), other;
	uint64_t owner = participant_owner(&f.r, row);

	(void)state;
	assert_int_equal(owner, hold_owner(row, 1));
	assert_int_not_equal(owner, 0);
	participant_orphan(&f.r, row);
	assert_int_equal(view_of(&f, (int)row).state, PARTICIPANT_ORPHAN);
	assert_int_equal(participant_owner(&f.r, row), owner);
	/* Neither another process nor the same pid used again. */
	assert_int_not_equal(participant_claim(&f.r, 101, 7, 1000, FIXTURE_NOW), row);
	assert_int_not_equal(participant_claim(&f.r, 100, 8, 1000, FIXTURE_NOW), row);
	assert_int_equal(participant_claim(&f.r, 100, 7, 1001, FIXTURE_NOW + 1), row);
	assert_int_equal(view_of(&f, (int)row).uid, 1001);
	assert_int_equal(view_of(&f, (int)row).attached_ns, FIXTURE_NOW + 1);
	assert_int_equal(participant_owner(&f.r, row), owner);
	/* One of two handles is back: the next claim of the process gets another row. */
	other = (uint32_t)participant_claim(&f.r, 100, 7, 1000, FIXTURE_NOW);
	assert_int_not_equal(other, row);
	participant_orphan(&f.r, other);
	participant_orphan(&f.r, row);
	assert_int_equal(participant_claim(&f.r, 100, 7, 1000, FIXTURE_NOW), min_u64(row, other));
	assert_int_equal(participant_claim(&f.r, 100, 7, 1000, FIXTURE_NOW), max_u64(row, other));
	fixture_close(&f);
}

static void free_row_is_nobodys(void **state)
{
	struct fixture f = fixture_open(false);
	uint32_t row = (uint32_t)participant_claim(&f.r, 100, 7, 1000, FIXTURE_NOW);
	uint64_t owner = participant_owner(&f.r, row);

	(void)state;
	participant_release(&f.r, row);
	assert_int_equal(participant_owner(&f.r, row), 0);
	participant_orphan(&f.r, row);
	assert_int_equal(view_of(&f, (int)row).state, PARTICIPANT_FREE);
	assert_int_equal(participant_claim(&f.r, 200, 7, 1000, FIXTURE_NOW), row);
	assert_int_not_equal(participant_owner(&f.r, row), owner);
	assert_int_equal(participant_owner(&f.r, UINT32_MAX), 0);
	participant_orphan(&f.r, UINT32_MAX);
	/* All bits of a generation used up: an owner is never 0, and never the one before. */
	atomic_store(&f.r.participant[row].word, UINT64_MAX << 8);
	participant_claim(&f.r, 300, 7, 1000, FIXTURE_NOW);
	assert_int_equal(participant_owner(&f.r, row), hold_owner(row, 1));
	fixture_close(&f);
}

/* A daemon killed between two stores of a claim: the word is stored last, the row is still free. */
static void half_claimed_row_is_free(void **state)
{
	struct fixture f = fixture_open(false);

	(void)state;
	f.r.participant[0].pid = 100;
	f.r.participant[0].start = 7;
	adopt_participants(&f.r, is_alive, FIXTURE_NOW);
	assert_int_equal(participant_owner(&f.r, 0), 0);
	assert_int_equal(view_of(&f, 0).state, PARTICIPANT_FREE);
	assert_int_equal(participant_claim(&f.r, 300, 1, 0, FIXTURE_NOW), 0);
	fixture_close(&f);
}

static void unknown_states_are_free(void **state)
{
	struct fixture f = fixture_open(false);

	(void)state;
	atomic_store(&f.r.participant[0].word, UINT64_MAX);
	f.r.participant[0].pid = 100;
	f.r.participant[0].start = 7;
	assert_int_equal(view_of(&f, 0).state, PARTICIPANT_FREE);
	adopt_participants(&f.r, is_alive, FIXTURE_NOW);
	assert_int_equal(participant_owner(&f.r, 0), 0);
	assert_int_equal(participant_claim(&f.r, 1, 1, 0, FIXTURE_NOW), 0);
	assert_false(participant_view(&f.r, LAYOUT_PARTICIPANTS, &(struct participant_view){ 0 }));
	fixture_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(claim_fills_a_row),
		cmocka_unit_test(released_row_is_used_again_with_a_new_generation),
		cmocka_unit_test(full_table_refuses),
		cmocka_unit_test(adoption_keeps_the_living),
		cmocka_unit_test(orphan_keeps_its_holds_and_comes_back),
		cmocka_unit_test(free_row_is_nobodys),
		cmocka_unit_test(half_claimed_row_is_free),
		cmocka_unit_test(unknown_states_are_free),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
