#include "shm/hold.h"

#include <pthread.h>
#include <string.h>
#include "base/aux.h"
#include "shm/bucket_table.h"
#include "shm/layout.h"
#include "shm/participant.h"
#include "tests/unit/shm-fixture.h"
#include "tests/unit/splitmix.h"

#define NOW FIXTURE_NOW
#define ROW 3 /* of a bucket that nothing else of the test uses */
#define TOTAL HOLD_TOTAL_BUCKET(ROW)
#define SEQUENCES (UINT64_C(1) << 18)

static const uint64_t alice = UINT64_C(1) << 16 | 1, bob = UINT64_C(1) << 16 | 2;

static shared_u64 *total_of(const struct fixture *f)
{
	return &f->r.bucket[ROW].held;
}

static uint32_t units_of(const struct fixture *f)
{
	bool closed;

	return hold_total_units(atomic_load(total_of(f)), &closed);
}

static uint32_t claim(const struct fixture *f, uint64_t owner)
{
	uint32_t hold = hold_claim(&f->r, owner, 0, NOW);

	assert_int_not_equal(hold, HOLD_NONE);
	return hold;
}

static void give(
	const struct fixture *f, uint32_t hold, uint64_t owner, uint32_t total, uint32_t units)
{
	assert_int_equal(hold_move(&f->r, hold, owner, total, units, 0, NULL), HOLD_OK);
}

/* The words as shm/layout.h has them, from the low end. */
static uint64_t word_of(uint32_t units, uint32_t hold, uint64_t number)
{
	return units | (uint64_t)hold << 32 | (number % SEQUENCES) << 46;
}

static uint64_t op_of(uint64_t number, uint32_t total, uint32_t entry, uint64_t state)
{
	return number | (uint64_t)total << 36 | (uint64_t)entry << 58 | state << 62;
}

enum { IDLE, PENDING, DONE };

/* ---- claiming ---- */

static void claim_takes_a_free_row_from_the_hint_on(void **state)
{
	struct fixture f = fixture_open(false);
	struct hold_view v;
	uint32_t a, b;

	(void)state;
	a = hold_claim(&f.r, alice, 17, NOW);
	b = hold_claim(&f.r, bob, 17, NOW + 1);
	assert_int_equal(a, 17);
	assert_int_equal(b, 18);
	assert_true(hold_view(&f.r, b, &v));
	assert_int_equal(v.participant, 2);
	assert_int_equal(v.generation, 1);
	assert_int_equal(v.taken_ns, NOW + 1);
	assert_int_equal(v.count, 0);
	assert_false(hold_view(&f.r, 19, &v));
	assert_false(hold_view(&f.r, UINT32_MAX, &v));
	hold_release(&f.r, a, bob); /* not his */
	assert_true(hold_view(&f.r, a, &v));
	hold_release(&f.r, a, alice);
	assert_false(hold_view(&f.r, a, &v));
	hold_release(&f.r, UINT32_MAX, alice);
	assert_int_equal(hold_claim(&f.r, bob, UINT32_MAX, NOW), 0);
	fixture_close(&f);
}

static void nobody_claims_nothing_and_a_full_table_says_so(void **state)
{
	struct fixture f = fixture_open(false);
	uint32_t n = 0;

	(void)state;
	assert_int_equal(hold_owner(70000, 1), 0);
	assert_int_equal(hold_claim(&f.r, 0, 0, NOW), HOLD_NONE);
	while (hold_claim(&f.r, alice, n, NOW) != HOLD_NONE)
		n++;
	assert_int_equal(n, f.r.holds);
	hold_release(&f.r, 5, alice);
	assert_int_equal(hold_claim(&f.r, bob, 4000, NOW), 5);
	fixture_close(&f);
}

static void claimed_row_is_clean(void **state)
{
	struct fixture f = fixture_open(false);
	struct hold_view v;

	(void)state;
	atomic_store(&f.r.hold[0].entry[4], TOTAL | UINT64_C(9) << 32);
	atomic_store(&f.r.hold[0].op, op_of(7, TOTAL, 4, PENDING));
	assert_int_equal(claim(&f, alice), 0);
	assert_true(hold_view(&f.r, 0, &v));
	assert_int_equal(v.count, 0);
	assert_false(v.pending);
	assert_int_equal(atomic_load(&f.r.hold[0].op), 7);
	fixture_close(&f);
}

/* ---- moving ---- */

static void moves_are_entered(void **state)
{
	struct fixture f = fixture_open(false);
	uint32_t a = claim(&f, alice), b = claim(&f, bob), target = HOLD_TOTAL_TARGET(2);
	struct hold_view v;

	(void)state;
	give(&f, a, alice, TOTAL, 10);
	give(&f, b, bob, TOTAL, 5);
	give(&f, a, alice, target, 1);
	give(&f, a, alice, TOTAL, 3);
	assert_int_equal(units_of(&f), 18);
	assert_int_equal(hold_units(&f.r, a, TOTAL), 13);
	assert_int_equal(hold_units(&f.r, b, TOTAL), 5);
	assert_int_equal((uint32_t)atomic_load(&f.r.target[2].pending), 1);
	assert_true(hold_view(&f.r, a, &v));
	assert_int_equal(v.count, 2);
	assert_int_equal(v.entry[1].total, target);
	assert_int_equal(v.entry[1].units, 1);
	assert_int_equal(hold_move(&f.r, a, alice, TOTAL, 0, 13, NULL), HOLD_OK);
	assert_int_equal(hold_move(&f.r, a, alice, target, 0, 1, NULL), HOLD_OK);
	assert_int_equal(units_of(&f), 5);
	assert_int_equal(hold_units(&f.r, a, TOTAL), 0);
	assert_true(hold_view(&f.r, a, &v));
	assert_int_equal(v.count, 0);
	assert_int_equal(hold_units(&f.r, UINT32_MAX, TOTAL), 0);
	assert_int_equal(hold_units(&f.r, a, 0), 0);
	fixture_close(&f);
}

static void expected_word_decides(void **state)
{
	struct fixture f = fixture_open(false);
	uint32_t a = claim(&f, alice), b = claim(&f, bob);
	uint64_t seen = atomic_load(total_of(&f));

	(void)state;
	give(&f, b, bob, TOTAL, 5);
	assert_int_equal(hold_move(&f.r, a, alice, TOTAL, 1, 0, &seen), HOLD_E_MOVED);
	/* Also when the value is the same again. */
	assert_int_equal(hold_move(&f.r, b, bob, TOTAL, 0, 5, NULL), HOLD_OK);
	assert_int_equal(hold_move(&f.r, a, alice, TOTAL, 1, 0, &seen), HOLD_E_MOVED);
	assert_int_equal(hold_units(&f.r, a, TOTAL), 0);
	seen = atomic_load(total_of(&f));
	assert_int_equal(hold_move(&f.r, a, alice, TOTAL, 1, 0, &seen), HOLD_OK);
	assert_int_equal(units_of(&f), 1);
	fixture_close(&f);
}

static void no_room_is_told(void **state)
{
	struct fixture f = fixture_open(false);
	uint32_t a = claim(&f, alice), b = claim(&f, bob);
	uint64_t seen;

	(void)state;
	give(&f, a, alice, TOTAL, UINT32_MAX - 1);
	assert_int_equal(units_of(&f), UINT32_MAX - 1);
	assert_int_equal(hold_move(&f.r, a, alice, TOTAL, 1, 0, NULL), HOLD_E_FULL);
	assert_int_equal(hold_move(&f.r, b, bob, TOTAL, 1, 0, NULL), HOLD_E_FULL);
	assert_int_equal(hold_move(&f.r, b, bob, TOTAL, 0, 1, NULL), HOLD_E_FULL);
	seen = atomic_load(total_of(&f));
	assert_int_equal(hold_move(&f.r, b, bob, TOTAL, 1, 0, &seen), HOLD_E_FULL);
	assert_int_equal(hold_move(&f.r, a, alice, TOTAL, 0, UINT32_MAX - 1, NULL), HOLD_OK);
	for (uint32_t i = 0; i < HOLD_ENTRIES; i++)
		give(&f, a, alice, HOLD_TOTAL_BUCKET(10 + i), 1);
	assert_int_equal(hold_move(&f.r, a, alice, TOTAL, 1, 0, NULL), HOLD_E_FULL);
	assert_int_equal(units_of(&f), 0);
	fixture_close(&f);
}

/* Less in the total than is given back: it was broken. The hold must still become free. */
static void broken_total_takes_what_is_given_back(void **state)
{
	struct fixture f = fixture_open(false);
	uint32_t a = claim(&f, alice);
	uint64_t seen;

	(void)state;
	give(&f, a, alice, TOTAL, 10);
	atomic_store(total_of(&f), 4);
	seen = 4;
	assert_int_equal(hold_move(&f.r, a, alice, TOTAL, 0, 10, &seen), HOLD_E_FULL);
	assert_int_equal(hold_move(&f.r, a, alice, TOTAL, 0, 10, NULL), HOLD_OK);
	assert_int_equal(units_of(&f), 0);
	assert_int_equal(hold_units(&f.r, a, TOTAL), 0);
	fixture_close(&f);
}

static void what_is_not_ours_is_lost(void **state)
{
	struct fixture f = fixture_open(false);
	uint32_t a = claim(&f, alice);

	(void)state;
	assert_int_equal(hold_move(&f.r, a, bob, TOTAL, 1, 0, NULL), HOLD_E_LOST);
	assert_int_equal(hold_move(&f.r, a, 0, TOTAL, 1, 0, NULL), HOLD_E_LOST);
	assert_int_equal(hold_move(&f.r, a + 1, 0, TOTAL, 1, 0, NULL), HOLD_E_LOST);
	assert_int_equal(hold_move(&f.r, f.r.holds, alice, TOTAL, 1, 0, NULL), HOLD_E_LOST);
	assert_int_equal(hold_move(&f.r, a, alice, 0, 1, 0, NULL), HOLD_E_LOST);
	assert_int_equal(
		hold_move(&f.r, a, alice, HOLD_TOTAL_BUCKET(f.r.buckets), 1, 0, NULL), HOLD_E_LOST);
	assert_int_equal(
		hold_move(&f.r, a, alice, HOLD_TOTAL_TARGET(f.r.targets), 1, 0, NULL), HOLD_E_LOST);
	hold_release(&f.r, a, alice);
	assert_int_equal(hold_move(&f.r, a, alice, TOTAL, 1, 0, NULL), HOLD_E_LOST);
	fixture_close(&f);
}

/* ---- who died in the midst of a move ---- */

/* One hold of alice with 10 units, in the midst of making that 14. */
static uint32_t amid_a_move(struct fixture *f, uint64_t *number)
{
	uint32_t a = claim(f, alice);

	give(f, a, alice, TOTAL, 10);
	*number = atomic_load(&f->r.hold[a].op) + 1;
	atomic_store(&f->r.hold[a].op_value, 14);
	atomic_store(&f->r.hold[a].op, op_of(*number, TOTAL, 0, PENDING));
	return a;
}

static void death_before_the_swap_takes_nothing(void **state)
{
	struct fixture f = fixture_open(false);
	uint32_t b = claim(&f, bob);
	uint64_t number;

	(void)state;
	give(&f, b, bob, TOTAL, 5);
	amid_a_move(&f, &number);
	assert_int_equal(units_of(&f), 15);
	assert_int_equal(hold_reap(&f.r, alice, NOW), 1);
	assert_int_equal(units_of(&f), 5);
	assert_int_equal(hold_reap(&f.r, alice, NOW), 0);
	fixture_close(&f);
}

static void death_after_the_swap_gives_all_back(void **state)
{
	struct fixture f = fixture_open(false);
	uint32_t b = claim(&f, bob), a;
	uint64_t number;

	(void)state;
	give(&f, b, bob, TOTAL, 5);
	a = amid_a_move(&f, &number);
	atomic_store(total_of(&f), word_of(19, a, number));
	assert_int_equal(hold_reap(&f.r, alice, NOW), 1);
	assert_int_equal(units_of(&f), 5);
	fixture_close(&f);
}

static void who_overwrites_a_total_tells_its_writer(void **state)
{
	struct fixture f = fixture_open(false);
	uint32_t b = claim(&f, bob), a;
	uint64_t number;

	(void)state;
	a = amid_a_move(&f, &number);
	atomic_store(total_of(&f), word_of(14, a, number));
	give(&f, b, bob, TOTAL, 5);
	assert_int_equal(atomic_load(&f.r.hold[a].op), op_of(number, TOTAL, 0, DONE));
	assert_int_equal(units_of(&f), 19);
	assert_int_equal(hold_reap(&f.r, alice, NOW), 1);
	assert_int_equal(units_of(&f), 5);
	fixture_close(&f);
}

/* A word that names another operation of the hold, or one on another total, proves nothing. */
static void only_the_operation_named_is_told(void **state)
{
	struct fixture f = fixture_open(false);
	uint32_t b = claim(&f, bob), a;
	uint64_t number;

	(void)state;
	a = amid_a_move(&f, &number); /* the total names the one before */
	give(&f, b, bob, TOTAL, 5);
	assert_int_equal(atomic_load(&f.r.hold[a].op), op_of(number, TOTAL, 0, PENDING));
	atomic_store(&f.r.bucket[ROW + 1].held, word_of(1, a, number));
	give(&f, b, bob, TOTAL + 1, 5);
	assert_int_equal(atomic_load(&f.r.hold[a].op), op_of(number, TOTAL, 0, PENDING));
	assert_int_equal(hold_reap(&f.r, alice, NOW), 1);
	assert_int_equal(units_of(&f), 5);
	fixture_close(&f);
}

/* The number that a total names already from 2^18 operations ago is not used for it. */
static void stale_name_is_skipped(void **state)
{
	struct fixture f = fixture_open(false);
	uint32_t a = claim(&f, alice);
	uint64_t number = 1234567;

	(void)state;
	atomic_store(&f.r.hold[a].op, number);
	atomic_store(total_of(&f), word_of(0, a, number + 1));
	give(&f, a, alice, TOTAL, 10);
	assert_int_equal(atomic_load(&f.r.hold[a].op), number + 2);
	assert_int_equal(atomic_load(total_of(&f)), word_of(10, a, number + 2));
	/* And where it is not named, the next one. */
	give(&f, a, alice, TOTAL + 1, 10);
	assert_int_equal(atomic_load(&f.r.hold[a].op), number + 3);
	/* The last number of 36 bits is followed by 0, and the sequence goes on. */
	atomic_store(&f.r.hold[a].op, (UINT64_C(1) << 36) - 1);
	give(&f, a, alice, TOTAL, 1);
	assert_int_equal(atomic_load(&f.r.hold[a].op), 0);
	assert_int_equal(units_of(&f), 11);
	fixture_close(&f);
}

/* A thread that finds its own hold amid a move (an earlier one was cancelled) ends it first. */
static void own_half_move_is_ended_first(void **state)
{
	struct fixture f = fixture_open(false);
	uint64_t number;
	uint32_t a = amid_a_move(&f, &number);

	(void)state;
	atomic_store(total_of(&f), word_of(14, a, number));
	give(&f, a, alice, TOTAL + 1, 1);
	assert_int_equal(hold_units(&f.r, a, TOTAL), 14);
	fixture_close(&f);
}

/* ---- reaping ---- */

static struct bucket_view limit_view(const struct fixture *f, uint32_t row)
{
	struct bucket_view v;

	assert_true(bucket_view(&f->r, row, NOW, &v));
	return v;
}

static void what_may_be_spent_is_owed(void **state)
{
	struct fixture f = fixture_open(false);
	uint32_t tokens = fixture_limit_of(&f, BUCKET_SCOPE_USER, BUCKET_TOKENS, "u", 1, 1000);
	uint32_t slots = fixture_limit_of(&f, BUCKET_SCOPE_USER, BUCKET_CONCURRENCY, "u", 10, 10);
	uint32_t money = fixture_limit_of(
		&f, BUCKET_SCOPE_USER, BUCKET_MONEY, "u", UINT64_C(1) << 40, UINT64_C(1) << 40);
	uint32_t a = claim(&f, alice), second = claim(&f, alice), b = claim(&f, bob);

	(void)state;
	give(&f, a, alice, HOLD_TOTAL_BUCKET(tokens), 300);
	give(&f, second, alice, HOLD_TOTAL_BUCKET(tokens), 200);
	give(&f, b, bob, HOLD_TOTAL_BUCKET(tokens), 7);
	give(&f, a, alice, HOLD_TOTAL_BUCKET(slots), 1);
	give(&f, b, bob, HOLD_TOTAL_BUCKET(slots), 1);
	give(&f, a, alice, HOLD_TOTAL_BUCKET(money), 50);
	give(&f, a, alice, HOLD_TOTAL_TARGET(0), 1);
	assert_int_equal(hold_reap(&f.r, alice, NOW), 2);
	assert_int_equal(limit_view(&f, tokens).owed, 500);
	assert_int_equal(limit_view(&f, tokens).held, 7);
	assert_int_equal(limit_view(&f, slots).held, 1);
	assert_int_equal(limit_view(&f, money).owed, 50 * 4096);
	assert_int_equal(limit_view(&f, money).held, 0);
	assert_int_equal((uint32_t)atomic_load(&f.r.target[0].pending), 0);
	assert_false(hold_view(&f.r, a, &(struct hold_view){ 0 }));
	assert_true(hold_view(&f.r, b, &(struct hold_view){ 0 }));
	assert_int_equal(hold_reap(&f.r, alice, NOW), 0);
	assert_int_equal(hold_reap(&f.r, 0, NOW), 0);
	assert_int_equal(limit_view(&f, tokens).owed, 500);
	fixture_close(&f);
}

/* The short way of settling leaves what is unusual to hold_move(). */
static void settling_amid_broken_words(void **state)
{
	enum { LESS, CLOSED, AMID, WAYS };

	(void)state;
	for (int way = 0; way < WAYS; way++) {
		struct fixture f = fixture_open(false);
		uint32_t row =
			fixture_limit_of(&f, BUCKET_SCOPE_USER, BUCKET_CONCURRENCY, "u", 10, 10);
		const struct bucket_cost one = { .requests = 1 };
		struct bucket_set set = { 0 };
		struct bucket_lease l;
		struct layout_hold *h;

		fixture_add_of(&set, &f, BUCKET_SCOPE_USER, BUCKET_CONCURRENCY, "u");
		assert_int_equal(bucket_lease(&f.r, alice, &set, &one, NOW, &l).outcome, BUCKET_OK);
		h = &f.r.hold[l.hold];
		if (way == LESS)
			f.r.bucket[row].held -= 1;
		if (way == CLOSED)
			f.r.bucket[row].held |= UINT32_MAX;
		/* Of an entry that is not this one, and done. */
		if (way == AMID) {
			h->op_value = 3;
			h->op = 1 | (uint64_t)HOLD_TOTAL_TARGET(0) << 36 | UINT64_C(5) << 58 |
				UINT64_C(2) << 62;
		}
		bucket_settle(&f.r, &l, &one, NOW);
		assert_int_equal((uint32_t)f.r.bucket[row].held, way == CLOSED ? UINT32_MAX : 0);
		assert_int_equal(h->entry[0], 0);
		assert_int_equal(h->entry[5] >> 32, way == AMID ? 3 : 0);
		fixture_close(&f);
	}
}

/* Who waits for a slot that a dead process had is told. */
static void reaping_wakes_who_waits(void **state)
{
	struct fixture f = fixture_open(false);
	uint32_t slots = fixture_limit_of(&f, BUCKET_SCOPE_USER, BUCKET_CONCURRENCY, "u", 1, 1);
	const uint32_t *word = bucket_wait_word(&f.r, slots, NOW + FIXTURE_SECOND);
	uint32_t before = *word;

	(void)state;
	give(&f, claim(&f, alice), alice, HOLD_TOTAL_BUCKET(slots), 1);
	assert_int_equal(*word, before);
	assert_int_equal(hold_reap(&f.r, alice, NOW), 1);
	assert_int_not_equal(*word, before);
	fixture_close(&f);
}

static void strays_have_no_participant(void **state)
{
	struct fixture f = fixture_open(false);
	uint64_t first, again;
	int row = participant_claim(&f.r, 100, 7, 0, NOW);

	(void)state;
	first = participant_owner(&f.r, (uint32_t)row);
	give(&f, claim(&f, first), first, TOTAL, 10);
	participant_orphan(&f.r, (uint32_t)row);
	assert_int_equal(hold_reap_strays(&f.r, NOW), 0);
	participant_release(&f.r, (uint32_t)row);
	assert_int_equal(participant_claim(&f.r, 101, 8, 0, NOW), row);
	again = participant_owner(&f.r, (uint32_t)row);
	assert_int_not_equal(first, again);
	give(&f, claim(&f, again), again, TOTAL, 3);
	assert_int_equal(hold_reap_strays(&f.r, NOW), 1);
	assert_int_equal(units_of(&f), 3);
	assert_int_equal(hold_reap_strays(&f.r, NOW), 0);
	fixture_close(&f);
}

/* ---- closing, mending ---- */

static void closed_total_is_nobodys(void **state)
{
	struct fixture f = fixture_open(false);
	uint32_t a = claim(&f, alice);
	uint64_t seen, number;

	(void)state;
	give(&f, a, alice, TOTAL, 1);
	assert_false(hold_close(&f.r, ROW));
	assert_int_equal(hold_move(&f.r, a, alice, TOTAL, 0, 1, NULL), HOLD_OK);
	seen = atomic_load(total_of(&f));
	assert_true(hold_close(&f.r, ROW));
	assert_true(hold_close(&f.r, ROW));
	assert_int_equal(hold_move(&f.r, a, alice, TOTAL, 1, 0, NULL), HOLD_E_CLOSED);
	assert_int_equal(hold_move(&f.r, a, alice, TOTAL, 1, 0, &seen), HOLD_E_CLOSED);
	atomic_store(&f.r.hold[a].entry[0], TOTAL | UINT64_C(5) << 32); /* had been broken */
	assert_int_equal(hold_move(&f.r, a, alice, TOTAL, 0, 5, NULL), HOLD_E_CLOSED);
	assert_int_equal(hold_units(&f.r, a, TOTAL), 0);
	number = atomic_load(&f.r.hold[a].op);
	/* As if its last move were not ended yet: opening tells it. */
	atomic_store(&f.r.hold[a].op, op_of(number, TOTAL, 0, PENDING));
	hold_open(&f.r, ROW);
	assert_int_equal(atomic_load(&f.r.hold[a].op), op_of(number, TOTAL, 0, DONE));
	atomic_store(&f.r.hold[a].op, number);
	assert_int_equal(units_of(&f), 0);
	assert_int_equal(hold_move(&f.r, a, alice, TOTAL, 1, 0, &seen), HOLD_E_MOVED);
	give(&f, a, alice, TOTAL, 1);
	hold_open(&f.r, ROW); /* open already */
	assert_int_equal(units_of(&f), 1);
	assert_false(hold_close(&f.r, UINT32_MAX - 1));
	hold_open(&f.r, UINT32_MAX - 1);
	fixture_close(&f);
}

static void audit_mends_what_nobody_holds(void **state)
{
	struct fixture f = fixture_open(false);
	uint32_t a = claim(&f, alice), b = claim(&f, bob);
	uint64_t broken, op;

	(void)state;
	give(&f, a, alice, TOTAL, 10);
	give(&f, b, bob, TOTAL, 5);
	give(&f, b, bob, HOLD_TOTAL_TARGET(1), 2);
	assert_int_equal(hold_audit(&f.r), 0);
	broken = atomic_load(total_of(&f)) + 100;
	atomic_store(total_of(&f), broken);
	atomic_store(&f.r.target[1].pending, 1);
	atomic_store(&f.r.bucket[ROW + 1].held, 77);
	assert_int_equal(hold_audit(&f.r), 3);
	assert_int_equal(units_of(&f), 15);
	assert_int_equal((uint32_t)atomic_load(&f.r.target[1].pending), 2);
	assert_int_equal(hold_move(&f.r, a, alice, TOTAL, 1, 0, &broken), HOLD_E_MOVED);
	/* Not while one of its holds is in the midst of moving it, nor when closed. */
	atomic_store(total_of(&f), 100);
	op = atomic_load(&f.r.hold[a].op);
	atomic_store(&f.r.hold[a].op, op_of(op + 1, TOTAL, 0, PENDING));
	assert_int_equal(hold_audit(&f.r), 0);
	atomic_store(&f.r.hold[a].op, op);
	atomic_store(total_of(&f), UINT32_MAX);
	assert_int_equal(hold_audit(&f.r), 0);
	atomic_store(total_of(&f), 100);
	assert_int_equal(hold_audit(&f.r), 1);
	assert_int_equal(units_of(&f), 15);
	fixture_close(&f);
}

/* ---- nonsense ---- */

static uint64_t nonsense(uint64_t *seed)
{
	uint64_t word = splitmix_next(seed);

	switch (splitmix_below(seed, 4)) {
	case 0:
		return word;
	case 1: /* an operation on something that exists */
		return op_of(
			word & 0xff, (uint32_t)splitmix_below(seed, 8), word >> 60, word >> 62);
	case 2:
		return word_of(word & 7, word >> 32 & 3, word >> 50);
	default:
		return splitmix_below(seed, 3) == 0 ? UINT64_MAX : word & 7;
	}
}

static void nonsense_does_no_harm(void **state)
{
	struct fixture f = fixture_open(false);
	uint64_t seed = 3;

	(void)state;
	f.r.holds = 8;
	f.r.targets = f.r.buckets = 4;
	for (int round = 0; round < 20000; round++) {
		uint64_t owner = splitmix_below(&seed, 3) ? alice : 0;
		uint64_t *words = (uint64_t *)(void *)f.r.hold;
		uint32_t hold;

		for (size_t i = 0; i < 8 * sizeof(struct layout_hold) / 8; i++)
			words[i] = nonsense(&seed);
		for (unsigned i = 0; i < 8; i++)
			atomic_store(&f.r.hold[i].owner, owner);
		for (unsigned i = 0; i < 4; i++) {
			atomic_store(&f.r.bucket[i].held, nonsense(&seed));
			atomic_store(&f.r.target[i].pending, nonsense(&seed));
			atomic_store(&f.r.bucket_name[i].kind, splitmix_below(&seed, 5));
		}
		hold = (uint32_t)splitmix_below(&seed, 9);
		hold_move(&f.r, hold, alice, (uint32_t)splitmix_below(&seed, 6), 3, 0, NULL);
		hold_move(
			&f.r, hold, alice, HOLD_TOTAL_TARGET(splitmix_below(&seed, 5)), 0, 3, NULL);
		hold_view(&f.r, hold, &(struct hold_view){ 0 });
		hold_close(&f.r, (uint32_t)splitmix_below(&seed, 5));
		hold_open(&f.r, (uint32_t)splitmix_below(&seed, 5));
		hold_audit(&f.r);
		hold_reap(&f.r, alice, NOW);
		assert_int_equal(hold_reap(&f.r, alice, NOW), 0);
		hold_reap_strays(&f.r, NOW);
		/* Nobody holds anything: so the totals say, when they are not closed. */
		hold_audit(&f.r);
		for (uint32_t i = 0; i < 4; i++) {
			hold_open(&f.r, i);
			assert_int_equal((uint32_t)atomic_load(&f.r.bucket[i].held), 0);
		}
		hold = hold_claim(&f.r, bob, 0, NOW);
		assert_int_equal(hold, 0);
		give(&f, hold, bob, 1, 1);
		hold_move(&f.r, hold, bob, 1, 0, 1, NULL);
		hold_release(&f.r, hold, bob);
	}
	fixture_close(&f);
}

/* ---- threads ---- */

enum { THREADS = 4, TOTALS = 3, STRIDE = 7 };
#ifdef __SANITIZE_THREAD__
enum { MOVES = 20000 };
#else
enum { MOVES = 200000 };
#endif

struct mover {
	struct fixture *f;
	uint32_t number;
	_Atomic unsigned *running;
	unsigned lost; /* moves of a hold that another has, too */
};

static uint32_t total_at(uint64_t i)
{
	return i == 0 ? HOLD_TOTAL_TARGET(0) : HOLD_TOTAL_BUCKET(i);
}

static void *move_to_and_fro(void *arg)
{
	struct mover *me = arg;
	const struct region *r = &me->f->r;
	uint64_t owner = hold_owner(me->number, 1), seed = me->number;
	uint32_t hold = HOLD_NONE;

	for (int i = 0; i < MOVES; i++) {
		uint32_t total = total_at(splitmix_below(&seed, TOTALS)), add = 0, sub = 0;

		if (hold == HOLD_NONE)
			hold = hold_claim(r, owner, 0, NOW);
		if (splitmix_below(&seed, 2))
			add = 1 + (uint32_t)splitmix_below(&seed, STRIDE);
		else
			sub = hold_units(r, hold, total);
		me->lost += hold_move(r, hold, owner, total, add, sub, NULL) != HOLD_OK;
		if (i % 4 != 0)
			continue;
		for (unsigned t = 0; t < TOTALS; t++)
			me->lost += hold_move(r, hold, owner, total_at(t), 0,
					    hold_units(r, hold, total_at(t)), NULL) != HOLD_OK;
		hold_release(r, hold, owner);
		hold = HOLD_NONE;
	}
	atomic_fetch_sub(me->running, 1);
	return NULL;
}

/* Whoever looks meanwhile finds nothing to mend, and what is left at the end is what the holds say.
 * */
static void racing_moves_add_up(void **state)
{
	struct fixture f = fixture_open(false);
	_Atomic unsigned running = THREADS;
	struct mover movers[THREADS];
	pthread_t threads[THREADS];
	uint64_t sums[TOTALS] = { 0 };

	(void)state;
	for (uint32_t i = 0; i < THREADS; i++) {
		movers[i] = (struct mover){ &f, i + 1, &running, 0 };
		assert_int_equal(pthread_create(&threads[i], NULL, move_to_and_fro, &movers[i]), 0);
	}
	while (atomic_load(&running) > 0)
		assert_int_equal(hold_audit(&f.r), 0);
	for (uint32_t i = 0; i < THREADS; i++)
		assert_int_equal((pthread_join(threads[i], NULL), movers[i].lost), 0);
	for (uint32_t h = 0; h < f.r.holds; h++)
		for (unsigned t = 0; t < TOTALS; t++)
			sums[t] += hold_units(&f.r, h, total_at(t));
	assert_int_equal((uint32_t)atomic_load(&f.r.target[0].pending), sums[0]);
	assert_int_equal((uint32_t)atomic_load(&f.r.bucket[1].held), sums[1]);
	assert_int_equal((uint32_t)atomic_load(&f.r.bucket[2].held), sums[2]);
	for (uint32_t i = 0; i < THREADS; i++)
		hold_reap(&f.r, hold_owner(i + 1, 1), NOW);
	assert_int_equal((uint32_t)atomic_load(&f.r.bucket[1].held), 0);
	assert_int_equal((uint32_t)atomic_load(&f.r.bucket[2].held), 0);
	fixture_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(claim_takes_a_free_row_from_the_hint_on),
		cmocka_unit_test(nobody_claims_nothing_and_a_full_table_says_so),
		cmocka_unit_test(claimed_row_is_clean),
		cmocka_unit_test(moves_are_entered),
		cmocka_unit_test(expected_word_decides),
		cmocka_unit_test(no_room_is_told),
		cmocka_unit_test(broken_total_takes_what_is_given_back),
		cmocka_unit_test(what_is_not_ours_is_lost),
		cmocka_unit_test(death_before_the_swap_takes_nothing),
		cmocka_unit_test(death_after_the_swap_gives_all_back),
		cmocka_unit_test(who_overwrites_a_total_tells_its_writer),
		cmocka_unit_test(only_the_operation_named_is_told),
		cmocka_unit_test(stale_name_is_skipped),
		cmocka_unit_test(own_half_move_is_ended_first),
		cmocka_unit_test(what_may_be_spent_is_owed),
		cmocka_unit_test(settling_amid_broken_words),
		cmocka_unit_test(reaping_wakes_who_waits),
		cmocka_unit_test(strays_have_no_participant),
		cmocka_unit_test(closed_total_is_nobodys),
		cmocka_unit_test(audit_mends_what_nobody_holds),
		cmocka_unit_test(nonsense_does_no_harm),
		cmocka_unit_test(racing_moves_add_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
