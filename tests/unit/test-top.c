/* llmkit top without a terminal: samples of a region, pictures of samples, and what keys do. */

#include <locale.h>
#include <stdio.h>
#include "base/aux.h"
#include "proto/json.h"
#include "proto/utf8.h"
#include "shm/hold.h"
#include "shm/layout.h"
#include "tests/unit/shm-fixture.h"
#include "tests/unit/splitmix.h"
#include "tools/keyboard.h"
#include "tools/top_json.h"
#include "tools/top_view.h"

#define SECOND FIXTURE_SECOND

struct world {
	struct fixture f;
	struct top_model *m;
	struct top_view view;
	struct canvas canvas;
	uint64_t now_ns;
	char text[65536];
};

static struct world *world_open(void)
{
	struct world *w = calloc(1, sizeof(*w));

	assert_non_null(w);
	w->f = fixture_open(false);
	w->m = top_model_new();
	assert_non_null(w->m);
	w->view = TOP_VIEW_INIT;
	w->now_ns = FIXTURE_NOW;
	return w;
}

static void world_close(struct world *w)
{
	canvas_deinit(&w->canvas);
	top_model_free(w->m);
	fixture_close(&w->f);
	free(w);
}

static void sample(struct world *w, uint64_t later_ns)
{
	w->now_ns += later_ns;
	assert_int_equal(top_model_sample(w->m, &w->f.r, COMMAND_DAEMON_RUNNING, w->now_ns, 0), 0);
}

/* The picture as text. */
static const char *picture(struct world *w, unsigned width, unsigned height)
{
	size_t n = 0;

	canvas_clear(&w->canvas, width, height);
	w->canvas.utf8 = true;
	top_view_draw(&w->view, w->m, &w->canvas);
	w->text[0] = '\0';
	for (unsigned i = 0; i < w->canvas.lines; i++)
		n += (size_t)snprintf(w->text + n, sizeof(w->text) - n, "%.*s\n",
			STR_ARG(buffer_str(&w->canvas.line[i])));
	assert_true(n < sizeof(w->text));
	assert_true(height == 0 || w->canvas.lines == height);
	return w->text;
}

static void shows(struct world *w, const char *text)
{
	if (!strstr(picture(w, 140, 0), text))
		fail_msg("\"%s\" is not in:\n%s", text, w->text);
}

static void shows_not(struct world *w, const char *text)
{
	if (strstr(picture(w, 140, 0), text))
		fail_msg("\"%s\" is in:\n%s", text, w->text);
}

static uint32_t target(struct world *w, const char *name)
{
	const struct target_config config = {
		.name = str_of(name),
		.provider = TARGET_NONE,
		.price_input = -1,
		.price_output = -1,
		.price_cached = -1,
		.available = true,
	};
	int row = target_configure(&w->f.r, &config);

	assert_true(row >= 0);
	return (uint32_t)row;
}

static void answer(struct world *w, uint32_t row, bool good, uint64_t first_token_ns)
{
	const struct breaker_ticket ticket = { .row = row, .slot = BREAKER_NO_PROBE };
	const struct breaker_report report = {
		.outcome = good ? BREAKER_OK : BREAKER_FAILED,
		.first_token_ns = first_token_ns,
	};
	const struct target_sample learned = { .first_token_ns = first_token_ns };

	breaker_record(&w->f.r, &ticket, &report, w->now_ns, 0);
	if (good)
		target_learn(&w->f.r, row, &learned, w->now_ns);
}

static void press(struct world *w, const char *keys)
{
	for (; *keys; keys++)
		top_view_key(&w->view, (unsigned char)*keys);
}

/* ---- the model ---- */

static void rates_are_differences_by_time(void **state)
{
	struct world *w = world_open();
	struct bucket_set set;

	(void)state;
	fixture_limit(&w->f, BUCKET_SCOPE_USER, "u", 100, 10);
	set = fixture_set(&w->f, "u");
	counter_add(&w->f.r, COUNTER_tokens_output, 1000);
	sample(w, 0);
	/* What was before the first sample has no time that it took. */
	assert_true(w->m->elapsed == 0);
	assert_true(w->m->rate[COUNTER_tokens_output] == 0);
	counter_add(&w->f.r, COUNTER_tokens_output, 500);
	assert_int_equal(bucket_acquire(&w->f.r, &set, 4, w->now_ns).outcome, BUCKET_OK);
	assert_int_equal(bucket_acquire(&w->f.r, &set, 9, w->now_ns).outcome, BUCKET_E_WAIT);
	sample(w, 2 * SECOND);
	assert_true(w->m->rate[COUNTER_tokens_output] == 250);
	assert_int_equal(w->m->limits, 1);
	assert_string_equal(w->m->limit[0].label, "user u requests");
	assert_true(w->m->limit[0].admitted == 2);
	assert_true(w->m->limit[0].rejected == 0.5);
	sample(w, SECOND);
	assert_true(w->m->limit[0].admitted == 0);
	assert_true(w->m->rate[COUNTER_tokens_output] == 0);
	/* A counter that goes backwards is broken, not fast. */
	counter_sub(&w->f.r, COUNTER_tokens_output, 700);
	sample(w, SECOND);
	assert_true(w->m->rate[COUNTER_tokens_output] == 0);
	world_close(w);
}

static void another_limit_in_the_same_row_has_no_past(void **state)
{
	struct world *w = world_open();
	uint32_t row = fixture_limit(&w->f, BUCKET_SCOPE_USER, "u", 100, 10);

	(void)state;
	sample(w, 0);
	snprintf(w->f.r.bucket_name[row].name, LAYOUT_NAME_MAX, "other");
	atomic_store(&w->f.r.bucket[row].admitted, 1000000);
	sample(w, SECOND);
	assert_string_equal(w->m->limit[0].label, "user other requests");
	assert_true(w->m->limit[0].admitted == 0);
	atomic_store(&w->f.r.bucket[row].admitted, 1000005);
	sample(w, SECOND);
	assert_true(w->m->limit[0].admitted == 5);
	/* Nor has anything in a region that took another's place. */
	atomic_store(&w->f.r.bucket[row].admitted, 2000000);
	counter_add(&w->f.r, COUNTER_tokens_output, 1000);
	top_model_restart(w->m);
	sample(w, SECOND);
	assert_true(w->m->limit[0].admitted == 0);
	assert_true(w->m->rate[COUNTER_tokens_output] == 0);
	world_close(w);
}

static void latency_history_has_gaps_where_nobody_answered(void **state)
{
	struct world *w = world_open();
	uint32_t row = target(w, "p");
	const uint64_t *h;

	(void)state;
	sample(w, 0);
	answer(w, row, true, 100 * NSEC_PER_MSEC);
	sample(w, SECOND);
	sample(w, SECOND);
	/* The same again is an answer too. */
	answer(w, row, true, 100 * NSEC_PER_MSEC);
	sample(w, SECOND);
	answer(w, row, true, 900 * NSEC_PER_MSEC);
	sample(w, SECOND);
	assert_int_equal(w->m->targets, 1);
	h = w->m->target[0].history;
	assert_true(h[TOP_HISTORY - 5] == 0 && h[TOP_HISTORY - 3] == 0);
	assert_in_range(h[TOP_HISTORY - 4], 99000, 101000);
	assert_in_range(h[TOP_HISTORY - 2], 99000, 101000);
	assert_true(h[TOP_HISTORY - 1] > 2 * h[TOP_HISTORY - 2]);
	assert_true(w->m->target[0].requests == 1);
	for (int i = 0; i < TOP_HISTORY; i++)
		sample(w, SECOND);
	for (int i = 0; i < TOP_HISTORY; i++)
		assert_int_equal(w->m->target[0].history[i], 0);
	world_close(w);
}

static void holds_are_counted_to_their_process(void **state)
{
	struct world *w = world_open();
	int a = participant_claim(&w->f.r, 11, 1, 1000, FIXTURE_NOW),
	    b = participant_claim(&w->f.r, 12, 1, 1001, FIXTURE_NOW);
	uint64_t owner = participant_owner(&w->f.r, (uint32_t)b);

	(void)state;
	assert_true(a >= 0 && b >= 0);
	assert_true(hold_claim(&w->f.r, owner, 0, w->now_ns) != HOLD_NONE);
	assert_true(hold_claim(&w->f.r, owner, 0, w->now_ns + SECOND) != HOLD_NONE);
	/* Of a process that had the row before. */
	assert_true(hold_claim(&w->f.r, hold_owner((uint32_t)a, 77), 0, w->now_ns) != HOLD_NONE);
	sample(w, 3 * SECOND);
	assert_int_equal(w->m->participants, 2);
	assert_int_equal(w->m->participant[0].holds, 0);
	assert_int_equal(w->m->participant[1].holds, 2);
	assert_int_equal(w->m->participant[1].oldest_ns, 3 * SECOND);
	shows(w, "      12     1001 attached      2     3.0 s");
	world_close(w);
}

static void tell(struct world *w, enum event_kind kind, uint32_t row, uint64_t value)
{
	event_add(&w->f.r,
		&(struct event){ .time_ns = w->now_ns,
			.kind = kind,
			.from = BREAKER_CLOSED,
			.to = BREAKER_OPEN,
			.why = BREAKER_WHY_RUN,
			.row = row,
			.value = value });
}

static void events_are_told_once_and_in_order(void **state)
{
	struct world *w = world_open();
	uint32_t p = target(w, "p"), u = fixture_limit(&w->f, BUCKET_SCOPE_USER, "u", 10, 10);

	(void)state;
	tell(w, EVENT_BREAKER, p, 5 * SECOND);
	sample(w, 0);
	assert_int_equal(w->m->events, 1);
	assert_string_equal(top_model_event(w->m, 1)->text,
		"breaker p: closed -> open, failures in a row, again after 5.0 s");
	sample(w, SECOND);
	assert_int_equal(w->m->events, 1);
	tell(w, EVENT_PAUSE, u, w->now_ns + 60 * SECOND);
	tell(w, EVENT_LIMIT, u, 20);
	tell(w, EVENT_EVICTED, u, 0);
	tell(w, EVENT_PARTICIPANT, 3, 4711);
	tell(w, EVENT_BREAKER, 99, 0);
	sample(w, SECOND);
	assert_int_equal(w->m->events, 6);
	assert_string_equal(
		top_model_event(w->m, 2)->text, "limit user u requests: paused for 1 m 0 s");
	assert_string_equal(top_model_event(w->m, 3)->text, "limit user u requests: now 20");
	assert_string_equal(
		top_model_event(w->m, 4)->text, "limit user u requests: made room for another");
	assert_string_equal(top_model_event(w->m, 5)->text, "participant pid 4711: came");
	assert_string_equal(top_model_event(w->m, 6)->text,
		"breaker target in row 99: closed -> open, failures in a row");
	assert_null(top_model_event(w->m, 7));
	assert_null(top_model_event(w->m, 0));
	tell(w, EVENT_PAUSE_TARGET, p, w->now_ns + 7 * SECOND);
	sample(w, SECOND);
	assert_string_equal(
		top_model_event(w->m, 7)->text, "target p: its provider asks for a pause of 7.0 s");
	world_close(w);
}

static void lost_events_are_counted_and_told(void **state)
{
	struct world *w = world_open();

	(void)state;
	sample(w, 0);
	for (unsigned i = 0; i < LAYOUT_EVENTS + 7; i++)
		tell(w, EVENT_PARTICIPANT, 0, i);
	/* One more whose writer died. */
	atomic_store(&w->f.r.event[100].sequence, 0);
	sample(w, SECOND);
	assert_int_equal(w->m->lost, 8);
	assert_int_equal(w->m->events, LAYOUT_EVENTS - 1 + 2);
	assert_string_equal(top_model_event(w->m, w->m->events - 1)->text,
		"events lost, because more came than the region keeps: 7");
	assert_string_equal(top_model_event(w->m, w->m->events)->text,
		"events whose writer died while telling: 1");
	world_close(w);
}

/* What is in the JSON, by the numbers of its events. */
static uint64_t told(struct world *w)
{
	aux_cleanup(buffer_deinit) struct buffer out = BUFFER_NULL;
	uint64_t count = 0;

	assert_int_equal(top_json_print(w->m, "r", "", &out), 0);
	assert_int_equal(buffer_append(&out, "", 1), 0);
	for (const char *at = buffer_head(&out); (at = strstr(at, "{\"number\":")); at++)
		count++;
	return count;
}

static void programs_are_told_all_or_that_some_are_lost(void **state)
{
	struct world *w = world_open();

	(void)state;
	static_assert(TOP_EVENTS > LAYOUT_EVENTS + 2, "what a region keeps, and two notes");
	sample(w, 0);
	assert_int_equal(told(w), 0);
	for (unsigned i = 0; i < LAYOUT_EVENTS; i++)
		tell(w, EVENT_PARTICIPANT, 0, i);
	sample(w, SECOND);
	assert_int_equal(told(w), LAYOUT_EVENTS);
	assert_int_equal(told(w), 0);
	assert_int_equal(w->m->lost, 0);
	/* More samples than are told. */
	for (unsigned i = 0; i < 2 * TOP_EVENTS; i++) {
		tell(w, EVENT_PARTICIPANT, 0, i);
		if (i % 1000 == 999)
			sample(w, SECOND);
	}
	sample(w, SECOND);
	assert_int_equal(told(w), TOP_EVENTS);
	assert_int_equal(w->m->lost, TOP_EVENTS);
	assert_null(top_model_event(w->m, w->m->events - TOP_EVENTS));
	assert_non_null(top_model_event(w->m, w->m->events - TOP_EVENTS + 1));
	/* The screen has fewer. */
	picture(w, 140, 0);
	assert_int_equal(w->canvas.lines, 2 + 4 * 2 + TOP_EVENTS_SHOWN);
	world_close(w);
}

static void each_kind_of_event_has_a_name(void **state)
{
	(void)state;
	for (unsigned i = 0; i <= EVENT_PAUSE_TARGET; i++) {
		assert_string_not_equal(
			top_event_kind(&(struct top_event){ .kind = i }), "unknown");
		for (unsigned k = 0; k < i; k++)
			assert_string_not_equal(top_event_kind(&(struct top_event){ .kind = i }),
				top_event_kind(&(struct top_event){ .kind = k }));
	}
	assert_string_equal(
		top_event_kind(&(struct top_event){ .kind = EVENT_PAUSE_TARGET + 1 }), "unknown");
}

/* A provider has in flight what its models have: it does not count twice. */
static void flight_is_the_sum_of_the_models(void **state)
{
	struct world *w = world_open();
	struct target_config model = { .name = str_of("p/m"),
		.price_input = -1,
		.price_output = -1,
		.price_cached = -1,
		.available = true };
	int row;

	(void)state;
	model.provider = target(w, "p");
	row = target_configure(&w->f.r, &model);
	assert_true(row >= 0);
	atomic_store(&w->f.r.target[row].pending, 3);
	sample(w, 0);
	assert_int_equal(w->m->targets, 2);
	assert_int_equal(target_pending(&w->f.r, (uint32_t)row), 3);
	assert_int_equal(w->m->in_flight, 3);
	shows(w, "flight 3 ");
	world_close(w);
}

/* ---- the picture ---- */

static void bars_show_used_held_and_left(void **state)
{
	struct world *w = world_open();
	uint32_t row = fixture_limit_of(&w->f, BUCKET_SCOPE_USER, BUCKET_TOKENS, "u", 1, 1000);
	struct layout_bucket *b = &w->f.r.bucket[row];

	(void)state;
	sample(w, 0);
	shows(w, "················      1k");
	atomic_store(&b->tat, w->now_ns + 500 * SECOND);
	sample(w, 0);
	shows(w, "████████········");
	atomic_store(&b->held, 250);
	sample(w, 0);
	shows(w, "████████▒▒▒▒····");
	/* The smallest part is to be seen. */
	atomic_store(&b->tat, w->now_ns + 1 * SECOND);
	atomic_store(&b->held, 1);
	sample(w, 0);
	shows(w, "█▒··············");
	/* Full, and more than that. */
	atomic_store(&b->tat, w->now_ns + 1000 * SECOND);
	atomic_store(&b->held, 1);
	sample(w, 0);
	shows(w, "███████████████▒       0");
	atomic_store(&b->held, 100000);
	sample(w, 0);
	shows(w, "▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒       0");
	atomic_store(&b->held, 0);
	atomic_store(&b->pause_ns, w->now_ns + 90 * SECOND);
	sample(w, 0);
	shows(w, "paused 1 m 30 s");
	world_close(w);
}

static void sparklines_step_by_factors(void **state)
{
	struct world *w = world_open();
	struct top_target *t;

	(void)state;
	target(w, "p");
	sample(w, 0);
	t = &w->m->target[0];
	for (unsigned i = 0; i < 9; i++)
		t->history[TOP_HISTORY - 9 + i] = (uint64_t)1000 << i;
	t->history[TOP_HISTORY - 5] = 0;
	shows(w, "▁▃▅▇ ████");
	world_close(w);
}

static void it_fits_any_size(void **state)
{
	struct world *w = world_open();
	char name[24];

	(void)state;
	for (unsigned i = 0; i < 40; i++) {
		snprintf(name, sizeof(name), "user%02u", i);
		fixture_limit(&w->f, BUCKET_SCOPE_USER, name, 1 + i, 1 + i);
		target(w, name);
		tell(w, EVENT_PARTICIPANT, 0, i);
	}
	sample(w, 0);
	for (unsigned width = 1; width < 220; width += 3)
		for (unsigned height = 1; height < 70; height += 2) {
			w->view.focus = (width + height) % TOP_SECTIONS;
			picture(w, width, height);
			assert_int_equal(w->canvas.lines, height);
			assert_true(height < 8 || w->view.focus == TOP_PARTICIPANTS ||
				w->view.page > 0);
		}
	/* The room is used, and by the focus first. */
	w->view.focus = TOP_TARGETS;
	picture(w, 100, 40);
	assert_in_range(w->view.page, 15, 30);
	/* With room for all, all is there. */
	picture(w, 100, 0);
	assert_int_equal(w->canvas.lines, 2 + 4 * 2 + 40 + 40 + 0 + 40);
	world_close(w);
}

static void names_that_are_garbage_are_shown_as_such(void **state)
{
	static const char garbage[] = "\033[2J\033]0;x\a\xc2\x9b\xff\n\r\x01";
	struct world *w = world_open();
	uint32_t u = fixture_limit(&w->f, BUCKET_SCOPE_USER, "uuuuuuuuuuuuuuuuuuuuuuuuuuu", 1, 1),
		 p = target(w, "pppppppppppppppppppppppppppppppp");

	(void)state;
	memcpy(w->f.r.bucket_name[u].name, garbage, sizeof(garbage) - 1);
	memcpy(w->f.r.target[p].name, garbage, sizeof(garbage) - 1);
	tell(w, EVENT_BREAKER, p, 0);
	tell(w, EVENT_LIMIT, u, 0);
	sample(w, 0);
	picture(w, 140, 0);
	for (const char *s = w->text; *s; s++)
		assert_true(*s == '\n' || (unsigned char)*s >= 0x20);
	assert_true(utf8_is_valid(str_of(w->text)));
	assert_null(strstr(w->text, "\xc2\x9b"));
	shows(w, "user ?[2J?]0;x???????uuuuu");
	shows(w, "breaker ?[2J?]0;x");
	world_close(w);
}

/* Whatever is in the region: no crash, and a picture. */
static void any_bytes_make_a_picture(void **state)
{
	struct world *w = world_open();
	uint64_t seed = 3;

	(void)state;
	for (unsigned i = 0; i < 20; i++) {
		char name[8];

		snprintf(name, sizeof(name), "n%u", i);
		fixture_limit_of(
			&w->f, BUCKET_SCOPE_USER, (enum bucket_resource)(i % 6), name, 5, 5);
		target(w, name);
	}
	for (int round = 0; round < 300; round++) {
		aux_cleanup(buffer_deinit) struct buffer out = BUFFER_NULL;
		size_t from = w->f.r.header->section[0].offset, position;

		for (int i = 0; i < 20000; i++)
			((volatile unsigned char *)w->f.r
					.map)[from + splitmix_below(&seed, w->f.r.size - from)] =
				(unsigned char)splitmix_next(&seed);
		atomic_store(&w->f.r.header->events_head, splitmix_next(&seed) >> (round % 64));
		sample(w, SECOND);
		picture(w, 60, 30);
		assert_true(utf8_is_valid(str_of(w->text)));
		if (round % 30 == 0) {
			assert_int_equal(top_json_print(w->m, "r", "", &out), 0);
			assert_true(json_is_object(buffer_str(&out), &position));
		}
	}
	world_close(w);
}

static void the_head_says_what_became_of_the_daemon(void **state)
{
	struct world *w = world_open();

	(void)state;
	region_heartbeat(&w->f.r, FIXTURE_NOW + SECOND);
	sample(w, 3 * SECOND);
	shows(w, "llmkit top running pid 4711 up 3.0 s");
	assert_int_equal(
		top_model_sample(w->m, &w->f.r, COMMAND_DAEMON_DEAD, w->now_ns + SECOND, 0), 0);
	shows(w, "llmkit top DEAD pid 4711, 3.0 s ago");
	w->view.trouble = "the region's file is gone";
	shows(w, "the region's file is gone");
	world_close(w);
}

/* ---- keys ---- */

static const char *first_limit(struct world *w)
{
	unsigned count;
	uint64_t *row = top_view_rows(&w->view, w->m, TOP_LIMITS, &count);
	const char *label = count ? w->m->limit[row[0]].label : "";

	free(row);
	return label;
}

static void keys_sort_and_filter(void **state)
{
	struct world *w = world_open();
	struct bucket_set set;
	unsigned count;

	(void)state;
	for (unsigned i = 0; i < 10; i++) {
		char name[8];

		snprintf(name, sizeof(name), "U%u", i);
		fixture_limit(&w->f, BUCKET_SCOPE_USER, name, 10, 10 + i);
	}
	set = fixture_set(&w->f, "U3");
	sample(w, 0);
	assert_string_equal(first_limit(w), "user U0 requests");
	press(w, "r");
	assert_string_equal(first_limit(w), "user U9 requests");
	press(w, "r");
	assert_string_equal(first_limit(w), "user U0 requests");
	/* By USED, from the most. */
	assert_int_equal(bucket_acquire(&w->f.r, &set, 5, w->now_ns).outcome, BUCKET_OK);
	sample(w, 0);
	press(w, "s");
	assert_string_equal(first_limit(w), "user U3 requests");
	press(w, "r");
	assert_string_equal(first_limit(w), "user U9 requests");
	sample(w, 10 * SECOND);
	w->view.sort[TOP_LIMITS] = 0;
	/* To LEFT, from the least; each key goes on, and all the way round is where it began. */
	press(w, "ss");
	assert_string_equal(first_limit(w), "user U0 requests");
	press(w, "r");
	assert_string_equal(first_limit(w), "user U9 requests");
	for (unsigned i = 2; i < top_view_columns(TOP_LIMITS); i++)
		press(w, "s");
	assert_int_equal(w->view.sort[TOP_LIMITS], 0);
	assert_false(w->view.reverse[TOP_LIMITS]);
	press(w, "/u7x");
	assert_string_equal(first_limit(w), "");
	top_view_key(&w->view, KEY_BACKSPACE);
	assert_string_equal(first_limit(w), "user U7 requests");
	top_view_key(&w->view, 0xe9);
	top_view_key(&w->view, 0x6771);
	top_view_key(&w->view, 0x9b);
	assert_string_equal(w->view.filter, "u7é東");
	top_view_key(&w->view, KEY_BACKSPACE);
	top_view_key(&w->view, KEY_BACKSPACE);
	top_view_key(&w->view, KEY_ENTER);
	assert_false(w->view.types_filter);
	shows(w, "with \"u7\"");
	top_view_key(&w->view, KEY_ESCAPE);
	free(top_view_rows(&w->view, w->m, TOP_LIMITS, &count));
	assert_int_equal(count, 10);
	/* More than there is room for. */
	press(w, "/");
	for (int i = 0; i < 1000; i++)
		top_view_key(&w->view, 0x6771);
	assert_true(utf8_is_valid(str_of(w->view.filter)));
	shows_not(w, "user U1");
	world_close(w);
}

static void keys_move_and_change(void **state)
{
	struct world *w = world_open();
	struct top_view *v = &w->view;

	(void)state;
	for (unsigned i = 0; i < 50; i++) {
		char name[8];

		snprintf(name, sizeof(name), "u%02u", i);
		fixture_limit(&w->f, BUCKET_SCOPE_USER, name, 10, 10);
	}
	sample(w, 0);
	picture(w, 80, 24);
	top_view_key(v, KEY_DOWN);
	assert_int_equal(v->first[0], 1);
	/* Several at once, before anything is drawn: what is beyond the end is not remembered. */
	top_view_key(v, KEY_END);
	top_view_key(v, KEY_DOWN);
	assert_int_equal(v->first[0], 50 - v->page);
	top_view_key(v, KEY_PAGE_UP);
	assert_int_equal(v->first[0], 50 - 2 * v->page);
	/* A screen that grew: the end is higher up then. */
	top_view_key(v, KEY_END);
	assert_non_null(strstr(picture(w, 80, 60), "user u49"));
	assert_int_equal(v->first[0], 50 - v->page);
	top_view_key(v, KEY_HOME);
	top_view_key(v, KEY_UP);
	assert_int_equal(v->first[0], 0);
	press(w, "3");
	assert_int_equal(v->focus, TOP_PARTICIPANTS);
	top_view_key(v, KEY_TAB);
	top_view_key(v, KEY_TAB);
	assert_int_equal(v->focus, TOP_LIMITS);
	top_view_key(v, KEY_BACK_TAB);
	assert_int_equal(v->focus, TOP_EVENT_LIST);
	press(w, "5");
	assert_int_equal(v->focus, TOP_EVENT_LIST);
	press(w, "+");
	assert_int_equal(v->interval_ns, 2 * SECOND);
	press(w, "--");
	assert_int_equal(v->interval_ns, SECOND / 2);
	press(w, "----------");
	assert_int_equal(v->interval_ns, SECOND / 10);
	press(w, "++++++++++++++");
	assert_int_equal(v->interval_ns, 60 * SECOND);
	/* One of the command line's own. */
	v->interval_ns = 3 * SECOND;
	press(w, "+");
	assert_int_equal(v->interval_ns, 5 * SECOND);
	v->interval_ns = 3 * SECOND;
	press(w, "-");
	assert_int_equal(v->interval_ns, 2 * SECOND);
	press(w, "p");
	assert_true(v->is_paused);
	press(w, "?");
	assert_non_null(strstr(picture(w, 80, 24), "any key goes back"));
	press(w, "x");
	assert_null(strstr(picture(w, 80, 24), "any key goes back"));
	assert_int_equal(top_view_key(v, 'x'), TOP_NOTHING);
	assert_int_equal(top_view_key(v, 's'), TOP_REDRAW);
	assert_int_equal(top_view_key(v, 'q'), TOP_QUIT);
	world_close(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rates_are_differences_by_time),
		cmocka_unit_test(another_limit_in_the_same_row_has_no_past),
		cmocka_unit_test(latency_history_has_gaps_where_nobody_answered),
		cmocka_unit_test(holds_are_counted_to_their_process),
		cmocka_unit_test(events_are_told_once_and_in_order),
		cmocka_unit_test(lost_events_are_counted_and_told),
		cmocka_unit_test(programs_are_told_all_or_that_some_are_lost),
		cmocka_unit_test(each_kind_of_event_has_a_name),
		cmocka_unit_test(flight_is_the_sum_of_the_models),
		cmocka_unit_test(bars_show_used_held_and_left),
		cmocka_unit_test(sparklines_step_by_factors),
		cmocka_unit_test(it_fits_any_size),
		cmocka_unit_test(names_that_are_garbage_are_shown_as_such),
		cmocka_unit_test(any_bytes_make_a_picture),
		cmocka_unit_test(the_head_says_what_became_of_the_daemon),
		cmocka_unit_test(keys_sort_and_filter),
		cmocka_unit_test(keys_move_and_change),
	};

	setlocale(LC_CTYPE, "C.UTF-8");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
