/* The table of targets: rows by name, what is configured and what is learned, garbage in every
 * word. */

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include "shm/event.h"
#include "tests/unit/router-helpers.h"

#define THREADS 4

static bool near(uint64_t value, double truth)
{
	return (double)value > truth * 0.999 - 1 && (double)value < truth * 1.001 + 1;
}

static struct target_view view_of(struct world *w, unsigned i)
{
	struct target_view v;

	assert_true(target_view(&w->r, w->candidate[i].row, &v));
	return v;
}

static void learn(struct world *w, unsigned i, uint64_t tokens, uint64_t first_ms, uint64_t gap_ms)
{
	struct target_sample sample = { tokens, first_ms * NSEC_PER_MSEC, gap_ms * NSEC_PER_MSEC };

	target_learn(&w->r, w->candidate[i].row, &sample, w->now_ns);
}

static void test_configured_is_what_is_seen(void **state)
{
	struct world w;
	struct target_config provider = world_config("openai"), c = world_config("openai/gpt-4o");
	struct target_view v;

	(void)state;
	world_open(&w, 1);
	c.provider = w.candidate[world_add(&w, &provider)].row;
	c.price_input = 2500000;
	c.price_cached = 1250000;
	c.price_output = -1;
	c.context = 128000;
	c.capabilities = TARGET_TOOLS | TARGET_JSON;
	c.available = false;
	world_add(&w, &c);
	v = view_of(&w, 1);
	assert_string_equal(v.name, "openai/gpt-4o");
	assert_int_equal(v.provider, w.candidate[0].row);
	assert_false(v.is_provider);
	assert_false(v.available);
	assert_int_equal(v.price_input, 2500000);
	assert_int_equal(v.price_output, -1);
	assert_int_equal(v.price_cached, 1250000);
	assert_int_equal(v.context, 128000);
	assert_int_equal(v.capabilities, TARGET_TOOLS | TARGET_JSON);
	assert_true(view_of(&w, 0).is_provider);
	assert_true(view_of(&w, 0).available);
	world_close(&w);
}

static void test_refuses_what_cannot_be(void **state)
{
	struct world w;
	struct target_config c = world_config("p");
	char name[LAYOUT_NAME_MAX + 1];

	(void)state;
	world_open(&w, 1);
	memset(name, 'x', sizeof(name));
	c.name = str_make(name, LAYOUT_NAME_MAX);
	assert_int_equal(target_configure(&w.r, &c), -ENAMETOOLONG);
	c.name = str_make(name, LAYOUT_NAME_MAX - 1);
	assert_true(target_configure(&w.r, &c) >= 0);
	assert_true(target_find(&w.r, c.name, NULL) != TARGET_NONE);
	c.name = STR_NULL;
	assert_int_equal(target_configure(&w.r, &c), -EINVAL);
	assert_int_equal(target_find(&w.r, STR_NULL, NULL), TARGET_NONE);
	c = world_config("q");
	c.price_input = TARGET_PRICE_MAX + 1;
	assert_int_equal(target_configure(&w.r, &c), -ERANGE);
	c.price_input = -2;
	assert_int_equal(target_configure(&w.r, &c), -ERANGE);
	c = world_config("q");
	c.provider = w.r.targets;
	assert_int_equal(target_configure(&w.r, &c), -ERANGE);
	world_close(&w);
}

static void test_full_table_says_so_and_finds_all(void **state)
{
	struct world w;
	char name[32];
	struct target_config c;

	(void)state;
	world_open(&w, 1);
	for (unsigned i = 0; i < w.r.targets; i++) {
		snprintf(name, sizeof(name), "t%u", i);
		c = world_config(name);
		assert_true(target_configure(&w.r, &c) >= 0);
	}
	for (unsigned i = 0; i < w.r.targets; i++) {
		snprintf(name, sizeof(name), "t%u", i);
		assert_true(target_find(&w.r, str_of(name), NULL) != TARGET_NONE);
	}
	c = world_config("one more");
	assert_int_equal(target_configure(&w.r, &c), -ENOSPC);
	assert_int_equal(target_find(&w.r, c.name, NULL), TARGET_NONE);
	world_close(&w);
}

static void test_retired_row_is_gone_and_remembers(void **state)
{
	struct world w;
	struct target_config c = world_config("a");
	bool *keep;
	uint32_t row;

	(void)state;
	world_open(&w, 1);
	world_add(&w, &c);
	learn(&w, 0, 10, 250, 10);
	row = w.candidate[0].row;
	keep = calloc(w.r.targets, sizeof(*keep));
	assert_non_null(keep);
	assert_true(target_is(&w.r, row, w.candidate[0].key));
	target_retire(&w.r, keep);
	assert_false(target_is(&w.r, row, w.candidate[0].key));
	assert_int_equal(target_find(&w.r, str_of("a"), NULL), TARGET_NONE);
	assert_int_equal(target_configure(&w.r, &c), row);
	assert_true(near(view_of(&w, 0).first_token_us[0], 250000));
	/* Marked rows stay. */
	keep[row] = true;
	target_retire(&w.r, keep);
	assert_true(target_is(&w.r, row, w.candidate[0].key));
	free(keep);
	world_close(&w);
}

/* Another name in the row starts with nothing, and an open breaker is not inherited. */
static void test_reused_row_starts_anew(void **state)
{
	struct world w;
	struct target_config c = world_config("a");
	bool none[1] = { false };
	struct target_view v;
	uint64_t wait_ns;

	(void)state;
	world_open(&w, 1);
	w.r.targets = 1;
	world_add(&w, &c);
	learn(&w, 0, 10, 250, 10);
	target_tried(&w.r, 0, w.now_ns);
	breaker_force_open(&w.r, 0, w.now_ns);
	assert_int_equal(breaker_check(&w.r, 0, w.now_ns, &wait_ns), BREAKER_REJECT);
	target_retire(&w.r, none);
	c.name = str_of("b");
	assert_int_equal(target_configure(&w.r, &c), 0);
	assert_true(target_view(&w.r, 0, &v));
	assert_string_equal(v.name, "b");
	assert_int_equal(v.samples, 0);
	assert_int_equal(v.first_token_us[0], 0);
	assert_int_equal(v.gap_us, 0);
	assert_int_equal(v.tried_ns, 0);
	assert_int_equal(breaker_check(&w.r, 0, w.now_ns, &wait_ns), BREAKER_PASS);
	assert_false(target_is(&w.r, 0, w.candidate[0].key));
	world_close(&w);
}

static void test_row_with_requests_in_flight_is_nobody_elses(void **state)
{
	struct world w;
	struct target_config c = world_config("a");
	bool none[1] = { false };

	(void)state;
	world_open(&w, 1);
	w.r.targets = 1;
	world_add(&w, &c);
	w.r.target[0].pending = UINT64_C(7) << 40 | 1;
	assert_int_equal(target_pending(&w.r, 0), 1);
	target_retire(&w.r, none);
	c.name = str_of("b");
	assert_int_equal(target_configure(&w.r, &c), -ENOSPC);
	/* Its own name may come back. */
	c.name = str_of("a");
	assert_int_equal(target_configure(&w.r, &c), 0);
	target_retire(&w.r, none);
	/* The word's other half is the holds', and stays. */
	w.r.target[0].pending = UINT64_C(7) << 40;
	c.name = str_of("b");
	assert_int_equal(target_configure(&w.r, &c), 0);
	assert_true(w.r.target[0].pending == UINT64_C(7) << 40);
	world_close(&w);
}

static void test_prompt_classes_grow_by_four(void **state)
{
	(void)state;
	assert_int_equal(target_prompt_class(0), 0);
	assert_int_equal(target_prompt_class(256), 0);
	assert_int_equal(target_prompt_class(257), 1);
	assert_int_equal(target_prompt_class(1024), 1);
	assert_int_equal(target_prompt_class(1025), 2);
	assert_int_equal(target_prompt_class(4097), 3);
	assert_int_equal(target_prompt_class(16385), 4);
	assert_int_equal(target_prompt_class(65536), 4);
	assert_int_equal(target_prompt_class(65537), 5);
	assert_int_equal(target_prompt_class(UINT64_MAX), 5);
}

static void test_learns_by_prompt_size(void **state)
{
	struct world w;
	struct target_config c = world_config("a");
	struct target_view v;

	(void)state;
	world_open(&w, 1);
	world_add(&w, &c);
	learn(&w, 0, 100, 200, 20);
	learn(&w, 0, 100000, 4000, 0);
	learn(&w, 0, 100, 0, 0);
	v = view_of(&w, 0);
	assert_true(near(v.first_token_us[0], 200000));
	assert_true(near(v.first_token_us[5], 4000000));
	assert_int_equal(v.first_token_us[2], 0);
	assert_true(near(v.gap_us, 20000));
	assert_int_equal(v.samples, 2);
	world_close(&w);
}

static void test_rows_out_of_range_do_nothing(void **state)
{
	struct world w;
	struct target_sample sample = { 1, 1, 1 };
	struct target_view v;

	(void)state;
	world_open(&w, 1);
	target_learn(&w.r, w.r.targets, &sample, w.now_ns);
	target_learn(&w.r, TARGET_NONE, &sample, w.now_ns);
	target_tried(&w.r, TARGET_NONE, w.now_ns);
	target_pause(&w.r, TARGET_NONE, w.now_ns + 1, w.now_ns);
	assert_int_equal(target_paused(&w.r, TARGET_NONE, w.now_ns), 0);
	assert_int_equal(target_pending(&w.r, TARGET_NONE), 0);
	assert_false(target_view(&w.r, TARGET_NONE, &v));
	assert_false(target_is(&w.r, TARGET_NONE, 5));
	assert_false(target_is(&w.r, 0, 0));
	world_close(&w);
}

static void test_pause_is_only_raised_and_its_providers_counts(void **state)
{
	struct world w;
	struct target_config provider = world_config("p"), c = world_config("p/m");
	uint32_t above, row;

	(void)state;
	world_open(&w, 1);
	above = w.candidate[world_add(&w, &provider)].row;
	c.provider = above;
	row = w.candidate[world_add(&w, &c)].row;
	target_pause(&w.r, row, w.now_ns + 5 * NSEC_PER_SEC, w.now_ns);
	target_pause(&w.r, row, w.now_ns + 2 * NSEC_PER_SEC, w.now_ns);
	assert_int_equal(target_paused(&w.r, row, w.now_ns), 5 * NSEC_PER_SEC);
	assert_int_equal(target_paused(&w.r, above, w.now_ns), 0);
	target_pause(&w.r, above, w.now_ns + 9 * NSEC_PER_SEC, w.now_ns);
	assert_int_equal(target_paused(&w.r, row, w.now_ns), 9 * NSEC_PER_SEC);
	target_unpause(&w.r, above);
	assert_int_equal(target_paused(&w.r, row, w.now_ns), 5 * NSEC_PER_SEC);
	assert_int_equal(target_paused(&w.r, row, w.now_ns + 5 * NSEC_PER_SEC), 0);
	/* At most a day, garbage too. */
	target_pause(&w.r, row, UINT64_MAX, w.now_ns);
	assert_int_equal(target_paused(&w.r, row, w.now_ns), TARGET_PAUSE_MAX_NS);
	w.r.target[row].pause_ns = UINT64_MAX;
	assert_true(target_paused(&w.r, row, w.now_ns) <= TARGET_PAUSE_MAX_NS);
	world_close(&w);
}

/* The next event must be that pause, of now. */
static void assert_told(struct world *w, uint64_t *ticket, uint64_t until_ns)
{
	struct event e;

	assert_int_equal(event_next(&w->r, ticket, &e), EVENT_OK);
	assert_int_equal(e.kind, EVENT_PAUSE_TARGET);
	assert_int_equal(e.row, w->candidate[1].row);
	assert_int_equal(e.value, until_ns);
	assert_int_equal(e.time_ns, w->now_ns);
}

static void test_a_pause_is_told_once(void **state)
{
	struct world w;
	struct target_config a = world_config("a"), b = world_config("b");
	uint64_t ticket;
	struct event e;
	uint32_t row;

	(void)state;
	world_open(&w, 1);
	world_add(&w, &a);
	row = w.candidate[world_add(&w, &b)].row;
	ticket = event_head(&w.r);
	target_pause(&w.r, row, w.now_ns, w.now_ns);
	assert_int_equal(event_next(&w.r, &ticket, &e), EVENT_E_NONE);
	target_pause(&w.r, row, w.now_ns + 5 * NSEC_PER_SEC, w.now_ns);
	assert_told(&w, &ticket, w.now_ns + 5 * NSEC_PER_SEC);
	/* Neither raised nor lowered. */
	target_pause(&w.r, row, w.now_ns + 2 * NSEC_PER_SEC, w.now_ns);
	target_pause(&w.r, row, w.now_ns + 7 * NSEC_PER_SEC, w.now_ns);
	assert_int_equal(event_next(&w.r, &ticket, &e), EVENT_E_NONE);
	/* It has ended. */
	w.now_ns += 7 * NSEC_PER_SEC;
	target_pause(&w.r, row, UINT64_MAX, w.now_ns);
	assert_told(&w, &ticket, w.now_ns + TARGET_PAUSE_MAX_NS);
	target_unpause(&w.r, row);
	target_pause(&w.r, row, w.now_ns + 1, w.now_ns);
	assert_told(&w, &ticket, w.now_ns + 1);
	assert_int_equal(event_next(&w.r, &ticket, &e), EVENT_E_NONE);
	world_close(&w);
}

static void test_adopt_retires_nonsense(void **state)
{
	struct world w;
	struct target_config a = world_config("a"), b = world_config("b");

	(void)state;
	world_open(&w, 1);
	world_add(&w, &a);
	world_add(&w, &b);
	world_row(&w, 0)->name[0] = 'z';
	world_row(&w, 1)->tried_ns = UINT64_MAX;
	target_adopt(&w.r, w.now_ns);
	assert_false(target_is(&w.r, w.candidate[0].row, w.candidate[0].key));
	assert_true(target_is(&w.r, w.candidate[1].row, w.candidate[1].key));
	assert_int_equal(world_row(&w, 1)->tried_ns, 0);
	world_close(&w);
}

static void test_garbage_in_every_word_is_survived(void **state)
{
	struct world w;
	struct target_config c = world_config("a");
	struct target_view v;

	(void)state;
	world_open(&w, 3);
	world_add(&w, &c);
	for (int i = 0; i < 20000; i++) {
		uint64_t *words = (uint64_t *)(void *)world_row(&w, 0);
		size_t at = splitmix_below(&w.seed, sizeof(struct layout_target) / 8);

		words[at] = i % 5 == 0 ? UINT64_MAX : splitmix_next(&w.seed);
		learn(&w, 0, splitmix_next(&w.seed), 100 + i % 100, 10);
		target_tried(&w.r, w.candidate[0].row, w.now_ns);
		target_view(&w.r, w.candidate[0].row, &v);
		target_paused(&w.r, w.candidate[0].row, w.now_ns);
		target_find(&w.r, c.name, NULL);
		assert_true(strnlen(v.name, sizeof(v.name)) < sizeof(v.name));
		if (i % 100 == 0) {
			target_adopt(&w.r, w.now_ns);
			assert_true(target_configure(&w.r, &c) >= 0);
		}
	}
	/* Heals. */
	w.candidate[0].row = (uint32_t)target_configure(&w.r, &c);
	world_row(&w, 0)->first_token[0] = UINT64_MAX;
	learn(&w, 0, 10, 250, 0);
	assert_true(near(view_of(&w, 0).first_token_us[0], 250000));
	world_close(&w);
}

static void *learn_many(void *arg)
{
	struct world *w = arg;

	for (unsigned i = 0; i < 20000; i++) {
		learn(w, 0, 10, 200 + i % 100, 10);
		target_tried(&w->r, w->candidate[0].row, w->now_ns + i * NSEC_PER_MSEC);
	}
	return NULL;
}

static void test_threads_lose_no_sample_count(void **state)
{
	struct world w;
	struct target_config c = world_config("a");
	pthread_t thread[THREADS];
	struct target_view v;

	(void)state;
	world_open(&w, 1);
	world_add(&w, &c);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, learn_many, &w), 0);
	/* The daemon reconfigures meanwhile. */
	for (int i = 0; i < 200; i++)
		assert_true(target_configure(&w.r, &c) >= 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	v = view_of(&w, 0);
	assert_int_equal(v.samples, THREADS * 20000);
	assert_true(v.first_token_us[0] > 200000 && v.first_token_us[0] < 300000);
	world_close(&w);
}

/* ---- what a model's name means ---- */

static uint32_t add_model(struct world *w, const char *name, uint64_t traits)
{
	struct target_config c = world_config(name);
	const char *slash = strchr(name, '/');

	c.provider = target_find(&w->r, str_make(name, (size_t)(slash - name)), NULL);
	c.traits = traits;
	return w->candidate[world_add(w, &c)].row;
}

static uint32_t named(struct world *w, const char *name)
{
	return target_resolve(&w->r, str_of(name));
}

static void test_a_name_means_what_the_daemon_makes_of_it(void **state)
{
	struct world w;
	struct target_config p = world_config("p"), q = world_config("q");
	uint32_t made, configured, slashed;

	(void)state;
	world_open(&w, 1);
	assert_int_equal(named(&w, "m"), TARGET_NONE);
	world_add(&w, &p);
	made = add_model(&w, "p/m", 0);
	/* Of the one provider there is any model will do. */
	assert_int_equal(named(&w, "m"), made);
	assert_int_equal(named(&w, "p/m"), made);
	assert_int_equal(named(&w, "p"), TARGET_NONE);
	assert_int_equal(named(&w, "n"), TARGET_NONE);
	/* Of several only what is configured by that name. */
	world_add(&w, &q);
	assert_int_equal(named(&w, "m"), TARGET_NONE);
	assert_int_equal(named(&w, "p/m"), made);
	configured = add_model(&w, "q/m", TARGET_PLAIN);
	assert_int_equal(named(&w, "m"), configured);
	assert_int_equal(named(&w, "p/m"), made);
	/* That goes before PROVIDER/MODEL. */
	slashed = add_model(&w, "q/p/m", TARGET_PLAIN);
	assert_int_equal(named(&w, "p/m"), slashed);
	add_model(&w, "q/p/m", 0);
	assert_int_equal(named(&w, "p/m"), made);
	world_row(&w, 1)->key = LAYOUT_KEY_RETIRED;
	assert_int_equal(named(&w, "p/m"), TARGET_NONE);
	world_close(&w);
}

static void test_what_is_held_is_as_configured(void **state)
{
	struct world w;
	struct target_config p = world_config("p"), m = world_config("p/m");
	uint32_t row;

	(void)state;
	world_open(&w, 1);
	m.provider = w.candidate[world_add(&w, &p)].row;
	m.max_tokens = 300;
	row = w.candidate[world_add(&w, &m)].row;
	assert_int_equal(target_output(&w.r, row, str_of("m"), STR_NULL, 64000), 300);
	p.traits = TARGET_RESERVE;
	assert_int_equal(target_configure(&w.r, &p), (int)m.provider);
	assert_int_equal(target_output(&w.r, row, str_of("m"), STR_NULL, 64000), 64000);
	assert_int_equal(target_output(&w.r, TARGET_NONE, str_of("m"), STR_NULL, 64000), 1024);
	assert_true(target_is_available(&w.r, row));
	m.available = false;
	assert_int_equal(target_configure(&w.r, &m), (int)row);
	assert_false(target_is_available(&w.r, row));
	assert_false(target_is_available(&w.r, TARGET_NONE));
	world_close(&w);
}

/* ---- the label of a key ---- */

static void set_label(struct world *w, const char *label)
{
	struct target_config p = world_config("p");

	p.label = str_of(label);
	assert_true(target_configure(&w->r, &p) >= 0);
}

static bool has_label(struct world *w, uint32_t row, const char *label)
{
	char text[TARGET_LABEL_TEXT];

	return str_is(target_label(&w->r, row, text), label);
}

static void test_a_label_is_its_providers(void **state)
{
	struct world w;
	struct target_config p = world_config("p"), m = world_config("p/m");
	char most[TARGET_LABEL_TEXT + 1] = "";
	uint32_t row;

	(void)state;
	world_open(&w, 1);
	m.provider = w.candidate[world_add(&w, &p)].row;
	row = w.candidate[world_add(&w, &m)].row;
	assert_true(has_label(&w, row, ""));
	set_label(&w, "A_KEY");
	assert_true(has_label(&w, row, "A_KEY"));
	assert_true(has_label(&w, m.provider, "A_KEY"));
	set_label(&w, "B");
	set_label(&w, "B");
	assert_true(has_label(&w, row, "B"));
	set_label(&w, "");
	assert_true(has_label(&w, row, ""));
	memset(most, 'x', TARGET_LABEL_TEXT);
	p.label = str_of(most);
	assert_int_equal(target_configure(&w.r, &p), -ENAMETOOLONG);
	most[TARGET_LABEL_TEXT - 1] = '\0';
	set_label(&w, most);
	assert_true(has_label(&w, row, most));
	assert_true(has_label(&w, TARGET_NONE, ""));
	world_row(&w, 1)->provider = w.r.targets;
	assert_true(has_label(&w, row, ""));
	world_close(&w);
}

static _Atomic bool finished;

static void *read_label(void *arg)
{
	struct world *w = arg;
	char text[TARGET_LABEL_TEXT];
	struct str label;

	while (!atomic_load(&finished)) {
		label = target_label(&w->r, w->candidate[0].row, text);
		for (size_t i = 1; i < label.length; i++)
			assert_int_equal(label.data[i], label.data[0]);
	}
	return NULL;
}

/* As the daemon does it, but faster than any daemon: the slot not in force, then which is. */
static void flip_label(struct layout_target *t, uint64_t k)
{
	uint64_t labels = t->labels + 1;

	for (unsigned i = 0; i < LAYOUT_LABEL_WORDS; i++)
		atomic_store_explicit(&t->label[labels % 2][i],
			(k % 26 + 'a') * UINT64_C(0x0101010101010101), memory_order_release);
	atomic_store_explicit(&t->labels, labels, memory_order_release);
}

static void test_nobody_reads_half_a_label(void **state)
{
	struct world w;
	struct target_config p = world_config("p");
	char text[TARGET_LABEL_TEXT] = "";
	pthread_t thread[THREADS];

	(void)state;
	world_open(&w, 1);
	world_add(&w, &p);
	atomic_store(&finished, false);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, read_label, &w), 0);
	for (int k = 0; k < 20000; k++) {
		memset(text, 'a' + k % 26, TARGET_LABEL_TEXT - 1);
		set_label(&w, text);
	}
	for (uint64_t k = 0; k < 1000000; k++)
		flip_label(world_row(&w, 0), k);
	atomic_store(&finished, true);
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	world_close(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_configured_is_what_is_seen),
		cmocka_unit_test(test_refuses_what_cannot_be),
		cmocka_unit_test(test_full_table_says_so_and_finds_all),
		cmocka_unit_test(test_retired_row_is_gone_and_remembers),
		cmocka_unit_test(test_reused_row_starts_anew),
		cmocka_unit_test(test_row_with_requests_in_flight_is_nobody_elses),
		cmocka_unit_test(test_prompt_classes_grow_by_four),
		cmocka_unit_test(test_learns_by_prompt_size),
		cmocka_unit_test(test_rows_out_of_range_do_nothing),
		cmocka_unit_test(test_pause_is_only_raised_and_its_providers_counts),
		cmocka_unit_test(test_a_pause_is_told_once),
		cmocka_unit_test(test_adopt_retires_nonsense),
		cmocka_unit_test(test_garbage_in_every_word_is_survived),
		cmocka_unit_test(test_threads_lose_no_sample_count),
		cmocka_unit_test(test_a_name_means_what_the_daemon_makes_of_it),
		cmocka_unit_test(test_what_is_held_is_as_configured),
		cmocka_unit_test(test_a_label_is_its_providers),
		cmocka_unit_test(test_nobody_reads_half_a_label),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
