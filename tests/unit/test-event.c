#include "shm/event.h"

#include <pthread.h>
#include <sched.h>
#include "tests/unit/breaker-helpers.h"

static void add(struct kit *k, uint64_t n)
{
	event_add(&k->r,
		&(struct event){ .time_ns = n * 3,
			.kind = EVENT_BREAKER,
			.from = (uint8_t)n,
			.to = (uint8_t)(n >> 8),
			.why = 7,
			.row = (uint32_t)(n ^ 0x55555555),
			.value = ~n });
}

static bool is_whole(const struct event *e)
{
	uint64_t n = ~e->value;

	return e->time_ns == n * 3 && e->kind == EVENT_BREAKER && e->from == (uint8_t)n &&
		e->to == (uint8_t)(n >> 8) && e->why == 7 && e->row == (uint32_t)(n ^ 0x55555555);
}

static void events_come_back_in_order(void **state)
{
	struct kit k = kit_open();
	uint64_t ticket = event_head(&k.r);
	struct event e;

	(void)state;
	assert_int_equal(ticket, 0);
	assert_int_equal(event_next(&k.r, &ticket, &e), EVENT_E_NONE);
	for (uint64_t i = 0; i < 10; i++)
		add(&k, i);
	for (uint64_t i = 0; i < 10; i++) {
		assert_int_equal(event_next(&k.r, &ticket, &e), EVENT_OK);
		assert_true(is_whole(&e));
		assert_int_equal(e.ticket, i);
		assert_int_equal(~e.value, i);
	}
	assert_int_equal(event_next(&k.r, &ticket, &e), EVENT_E_NONE);
	assert_int_equal(ticket, event_head(&k.r));
	kit_close(&k);
}

static void overtaken_reader_is_told(void **state)
{
	struct kit k = kit_open();
	uint64_t ticket = 0;
	struct event e;

	(void)state;
	for (uint64_t i = 0; i < KIT_EVENTS + 5; i++)
		add(&k, i);
	assert_int_equal(event_next(&k.r, &ticket, &e), EVENT_E_LOST);
	assert_int_equal(ticket, 5);
	for (uint64_t i = 5; i < KIT_EVENTS + 5; i++) {
		assert_int_equal(event_next(&k.r, &ticket, &e), EVENT_OK);
		assert_int_equal(~e.value, i);
	}
	/* A ticket from another region. */
	ticket = 1000000;
	assert_int_equal(event_next(&k.r, &ticket, &e), EVENT_E_LOST);
	assert_int_equal(ticket, 5);
	kit_close(&k);
}

/* A writer that died with its ticket: a hole once there is a newer one, nothing before. */
static void dead_writer_leaves_a_hole(void **state)
{
	struct kit k = kit_open();
	uint64_t ticket = 0;
	struct event e;

	(void)state;
	for (uint64_t i = 0; i < KIT_EVENTS; i++)
		add(&k, i);
	ticket = KIT_EVENTS;
	k.bytes->header.events_head++;
	assert_int_equal(event_next(&k.r, &ticket, &e), EVENT_E_NONE);
	add(&k, 77);
	assert_int_equal(event_next(&k.r, &ticket, &e), EVENT_E_HOLE);
	assert_int_equal(event_next(&k.r, &ticket, &e), EVENT_OK);
	assert_int_equal(~e.value, 77);
	kit_close(&k);
}

/* Every word of a row on its own: it is refused, not believed. */
static void torn_rows_are_refused(void **state)
{
	(void)state;
	for (unsigned word = 0; word < 5; word++) {
		for (unsigned bit = 0; bit < 64; bit += 7) {
			struct kit k = kit_open();
			uint64_t ticket = 0;
			struct event e;

			add(&k, 1);
			add(&k, 2);
			((uint64_t *)&k.bytes->event[0])[word] ^= UINT64_C(1) << bit;
			assert_int_equal(event_next(&k.r, &ticket, &e), EVENT_E_HOLE);
			assert_int_equal(event_next(&k.r, &ticket, &e), EVENT_OK);
			assert_int_equal(~e.value, 2);
			kit_close(&k);
		}
	}
}

/* Two in one row, the first late by a turn: every mixture of their words is refused. */
static void two_writers_in_one_row_are_refused(void **state)
{
	(void)state;
	for (unsigned mix = 1; mix < 31; mix++) {
		struct kit k = kit_open();
		struct layout_event old;
		uint64_t *now = (uint64_t *)&k.bytes->event[0], ticket = KIT_EVENTS;
		struct event e;
		enum event_outcome outcome;

		add(&k, 0);
		memcpy(&old, now, sizeof(old));
		for (uint64_t i = 1; i <= KIT_EVENTS + 1; i++)
			add(&k, i);
		for (unsigned word = 0; word < 5; word++)
			if (mix & 1u << word)
				now[word] = ((uint64_t *)&old)[word];
		outcome = event_next(&k.r, &ticket, &e);
		assert_int_equal(outcome, EVENT_E_HOLE);
		kit_close(&k);
	}
}

static void unknown_kind_is_refused(void **state)
{
	struct kit k = kit_open();
	uint64_t ticket = 0;
	struct event e;

	(void)state;
	event_add(&k.r, &(struct event){ .kind = (enum event_kind)0 });
	event_add(&k.r, &(struct event){ .kind = (enum event_kind)99 });
	event_add(&k.r, &(struct event){ .kind = EVENT_EVICTED });
	assert_int_equal(event_next(&k.r, &ticket, &e), EVENT_E_HOLE);
	assert_int_equal(event_next(&k.r, &ticket, &e), EVENT_E_HOLE);
	assert_int_equal(event_next(&k.r, &ticket, &e), EVENT_OK);
	kit_close(&k);
}

static void garbage_is_survived(void **state)
{
	struct kit k = kit_open();
	uint64_t random = 5, ticket = 0;
	struct event e;

	(void)state;
	for (int i = 0; i < 2000; i++) {
		uint64_t *word = (uint64_t *)k.bytes->event;

		for (size_t w = 0; w < sizeof(k.bytes->event) / (sizeof(*word)); w++)
			word[w] = splitmix_next(&random) >> splitmix_below(&random, 64);
		k.bytes->header.events_head = splitmix_next(&random) >> splitmix_below(&random, 64);
		ticket = i % 2 ? splitmix_next(&random) : event_head(&k.r) - 3;
		for (int n = 0; n < 8; n++)
			event_next(&k.r, &ticket, &e);
		/* And it works again at once. */
		ticket = event_head(&k.r);
		add(&k, 5);
		assert_int_equal(event_next(&k.r, &ticket, &e), EVENT_OK);
		assert_true(is_whole(&e));
	}
	kit_close(&k);
}

#define WRITERS 3
#define EACH 20000

struct running {
	struct kit *k;
	_Atomic int left;
};

static void *write_many(void *arg)
{
	struct running *t = arg;

	for (uint64_t i = 0; i < EACH; i++) {
		add(t->k, i + 1);
		if (i % 16 == 0)
			sched_yield();
	}
	atomic_fetch_sub(&t->left, 1);
	return NULL;
}

/* What is read is whole, in the order of tickets, and every ticket is read, a hole, or lost. */
static void threads_write_while_one_reads(void **state)
{
	struct kit k = kit_open();
	struct running t = { .k = &k, .left = WRITERS };
	pthread_t thread[WRITERS];
	uint64_t ticket = 0, read = 0, passed = 0, last = 0;

	(void)state;
	for (int i = 0; i < WRITERS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, write_many, &t), 0);
	for (;;) {
		uint64_t before = ticket;
		bool over = atomic_load(&t.left) == 0;
		struct event e;
		enum event_outcome outcome = event_next(&k.r, &ticket, &e);

		if (outcome == EVENT_OK) {
			assert_true(is_whole(&e));
			assert_int_equal(e.ticket, before);
			assert_true(read == 0 || e.ticket > last);
			last = e.ticket;
			read++;
		} else if (outcome == EVENT_E_NONE) {
			assert_int_equal(ticket, before);
			if (over)
				break;
		} else {
			assert_true(ticket > before);
			passed += ticket - before;
		}
	}
	for (int i = 0; i < WRITERS; i++)
		pthread_join(thread[i], NULL);
	assert_int_equal(read + passed, WRITERS * EACH);
	assert_true(read > 0);
	kit_close(&k);
}

/* One writer, a reader that keeps up: no holes at all. */
static void reader_that_keeps_up_misses_none(void **state)
{
	struct kit k = kit_open();
	struct running t = { .k = &k, .left = 1 };
	pthread_t thread;
	uint64_t ticket = 0, holes = 0;
	struct event e;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, write_many, &t), 0);
	while (ticket < EACH) {
		enum event_outcome outcome = event_next(&k.r, &ticket, &e);

		if (outcome == EVENT_OK)
			assert_true(is_whole(&e));
		holes += outcome == EVENT_E_HOLE;
	}
	pthread_join(thread, NULL);
	assert_int_equal(holes, 0);
	kit_close(&k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(events_come_back_in_order),
		cmocka_unit_test(overtaken_reader_is_told),
		cmocka_unit_test(dead_writer_leaves_a_hole),
		cmocka_unit_test(torn_rows_are_refused),
		cmocka_unit_test(two_writers_in_one_row_are_refused),
		cmocka_unit_test(unknown_kind_is_refused),
		cmocka_unit_test(garbage_is_survived),
		cmocka_unit_test(threads_write_while_one_reads),
		cmocka_unit_test(reader_that_keeps_up_misses_none),
	};

	return cmocka_run_group_tests_name("event", tests, NULL, NULL);
}
