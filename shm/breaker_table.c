#include "shm/breaker.h"

#include <math.h>
#include "base/aux.h"
#include "shm/breaker_stats.h"
#include "shm/breaker_word.h"
#include "shm/event.h"
#include "shm/latency.h"
#include "shm/layout.h"

/* A transition that was not told for so long has lost its writer. */
#define TELL_AFTER_NS NSEC_PER_SEC

/* ---- names, presets ---- */

const char *breaker_state_name(uint64_t state)
{
	static const char *const name[] = { "closed", "open", "half-open" };

	return state < ARRAY_SIZE(name) ? name[state] : "unknown";
}

const char *breaker_why_name(uint64_t why)
{
	static const char *const name[] = { "none", "failures in a row", "error ratio", "latency",
		"probe failed", "probe lost", "time", "recovered", "by hand", "missed" };

	return why < ARRAY_SIZE(name) ? name[why] : "unknown";
}

static const struct {
	const char *name;
	struct breaker_settings settings;
} preset_table[BREAKER_PRESETS] = {
	[BREAKER_PRODUCTION] = { "production",
		{ .run = 5,
			.ratio_percent = 50,
			.calls = 20,
			.window_s = 30,
			.probes = 2,
			.need = 2,
			.lease_ms = 60000,
			.base_ms = 5000,
			.cap_ms = 60000,
			.z_percent = 250 } },
	[BREAKER_AGGRESSIVE] = { "aggressive",
		{ .run = 3,
			.ratio_percent = 30,
			.calls = 10,
			.window_s = 30,
			.probes = 3,
			.need = 2,
			.lease_ms = 30000,
			.base_ms = 1000,
			.cap_ms = 10000,
			.z_percent = 150 } },
	[BREAKER_CONSERVATIVE] = { "conservative",
		{ .run = 10,
			.ratio_percent = 70,
			.calls = 50,
			.window_s = 60,
			.probes = 1,
			.need = 5,
			.lease_ms = 60000,
			.base_ms = 10000,
			.cap_ms = 120000,
			.z_percent = 300 } },
};

const char *breaker_preset_name(unsigned preset)
{
	return preset < BREAKER_PRESETS ? preset_table[preset].name : NULL;
}

struct breaker_settings breaker_preset(enum breaker_preset preset)
{
	return preset_table[(unsigned)preset < BREAKER_PRESETS ? preset : BREAKER_PRODUCTION]
		.settings;
}

struct breaker_settings breaker_never(struct breaker_settings settings)
{
	settings.run = settings.ratio_percent = 0;
	settings.z_percent = 0;
	return settings;
}

void breaker_tell_one(const struct region *r, uint32_t row, unsigned from, struct breaker_word now,
	enum breaker_why why, uint64_t now_ns)
{
	struct event e = {
		.time_ns = now_ns,
		.kind = EVENT_BREAKER,
		.from = (uint8_t)breaker_public_state(from),
		.to = (uint8_t)breaker_public_state(now.state),
		.why = (uint8_t)why,
		.row = row,
	};

	if (now.state == BREAKER_OPEN)
		e.value = breaker_deadline_left(now.deadline, now_ns, UINT32_MAX);
	event_add(r, &e);
}

void breaker_configure(struct region *r, uint32_t row, const struct breaker_settings *settings)
{
	if (row < r->targets)
		breaker_settings_store(&r->breaker[row], settings);
}

/* The generation goes on, so that results of the target before count for nothing. */
void breaker_init(struct region *r, uint32_t row, const struct breaker_settings *settings)
{
	struct layout_breaker *b;
	unsigned generation;

	if (row >= r->targets)
		return;
	b = &r->breaker[row];
	generation =
		(breaker_unpack(breaker_state_load(b)).generation + 1) & BREAKER_GENERATION_MASK;
	breaker_settings_store(b, settings);
	atomic_store_explicit(&b->state,
		breaker_pack(
			(struct breaker_word){ .state = BREAKER_CLOSED, .generation = generation }),
		memory_order_release);
	for (unsigned i = 0; i < LAYOUT_PROBES; i++)
		breaker_set(&b->probe[i], 0);
	breaker_stats_reset(b);
	latency_reset(r, row);
	breaker_set(&b->requests, 0);
	breaker_set(&b->errors, 0);
	breaker_set(&b->latency_us, 0);
	breaker_set(&b->untimed, 0);
	breaker_set(&b->changed_ns, 0);
	breaker_set(&b->told, generation);
	breaker_set(&b->born, generation);
}

uint32_t breaker_reap(struct region *r, uint64_t owner)
{
	uint32_t freed = 0;

	if (owner == 0)
		return 0;
	for (uint32_t row = 0; row < r->targets; row++) {
		for (uint32_t i = 0; i < LAYOUT_PROBES; i++) {
			uint64_t word = breaker_get(&r->breaker[row].probe[i]);

			if (word != 0 && word >> 24 == breaker_ticket_owner(owner))
				freed += breaker_ticket_free(&r->breaker[row], i, word);
		}
	}
	return freed;
}

/* Transitions that are not in the ring, modulo the generation's 16 bits. */
static unsigned untold(const struct layout_breaker *b, uint64_t told)
{
	return (breaker_unpack(breaker_state_load(b)).generation - (unsigned)told) &
		BREAKER_GENERATION_MASK;
}

/* A writer that was only slow tells of its transition once more: rather twice than never. Then
 * told is ahead, and is set back. */
void breaker_tell(struct region *r, uint64_t now_ns)
{
	for (uint32_t row = 0; row < r->targets; row++) {
		struct layout_breaker *b = &r->breaker[row];
		uint64_t told = breaker_get(&b->told), changed = breaker_get(&b->changed_ns);
		unsigned missed = untold(b, told);
		struct breaker_word w = breaker_unpack(breaker_state_load(b));

		if (aux_likely(missed == 0) ||
			(changed <= now_ns && now_ns - changed < TELL_AFTER_NS))
			continue;
		if (missed > BREAKER_GENERATION_MASK / 2) {
			breaker_cas(
				&b->told, &told, told - (BREAKER_GENERATION_MASK + 1u - missed));
			continue;
		}
		if (breaker_cas(&b->told, &told, told + missed))
			breaker_tell_one(r, row, w.state, w, BREAKER_WHY_MISSED, now_ns);
	}
}

void breaker_adopt(struct region *r, uint64_t now_ns)
{
	for (uint32_t row = 0; row < r->targets; row++) {
		struct layout_breaker *b = &r->breaker[row];

		if (breaker_get(&b->changed_ns) > now_ns)
			breaker_set(&b->changed_ns, now_ns);
		for (uint32_t i = 0; i < LAYOUT_PROBES; i++) {
			uint64_t word = breaker_ticket_load(b, i);
			struct breaker_word w = breaker_unpack(breaker_state_load(b));

			if (word != 0 &&
				(w.state != BREAKER_HALF_OPEN ||
					!breaker_ticket_is_live(word, w.generation)))
				breaker_ticket_free(b, i, word);
		}
	}
}

/* ---- health ---- */

/* Also those not told. */
static uint64_t transitions_of(const struct layout_breaker *b)
{
	uint64_t told = breaker_get(&b->told);
	unsigned missed = untold(b, told);

	return missed > BREAKER_GENERATION_MASK / 2 ?
		told - (BREAKER_GENERATION_MASK + 1u - missed) :
		told + missed;
}

static double ratio_of(uint64_t part, uint64_t whole)
{
	return whole > 0 ? (double)part / (double)whole : 0;
}

bool breaker_view(const struct region *r, uint32_t row, uint64_t now_ns, struct breaker_view *out)
{
	const struct layout_breaker *b;
	struct breaker_window window, all;
	struct breaker_baseline base;
	struct breaker_word w;
	uint64_t timed;

	if (row >= r->targets)
		return false;
	b = &r->breaker[row];
	w = breaker_unpack(breaker_state_load(b));
	*out = (struct breaker_view){
		.state = breaker_public_state(w.state),
		.forced = w.state == BREAKER_FORCED,
		.exponent = w.exponent,
		.changed_ns = breaker_get(&b->changed_ns),
		.settings = breaker_settings_load(b),
		.transitions = transitions_of(b) - breaker_get(&b->born),
	};
	if (w.state == BREAKER_HALF_OPEN)
		out->probes_out = breaker_tickets_out(b, w.generation);
	if (w.state == BREAKER_OPEN)
		out->retry_ns = breaker_deadline_left(w.deadline, now_ns, out->settings.cap_ms);
	window = breaker_window_sum(b, out->settings.window_s, now_ns, 0);
	out->window_ok = window.ok;
	out->window_bad = window.bad;
	out->error_ratio = ratio_of(window.bad, window.ok + window.bad);
	all = breaker_window_all(b);
	out->requests = breaker_get(&b->requests) + all.ok + all.bad;
	out->errors = breaker_get(&b->errors) + all.bad;
	timed = out->requests - out->errors - breaker_get(&b->untimed);
	if (timed > 0)
		out->mean_us = breaker_get(&b->latency_us) / timed;
	out->p50_us = latency_percentile(r, row, 50, now_ns);
	out->p99_us = latency_percentile(r, row, 99, now_ns);
	base = breaker_baseline_load(b, w.generation);
	if (base.samples > 0) {
		out->baseline_us = exp((double)base.mean);
		out->deviation = sqrt((double)base.variance);
		out->cusum = (double)base.cusum;
	}
	return true;
}

float breaker_error_ratio(const struct region *r, uint32_t row, uint64_t now_ns)
{
	const struct layout_breaker *b;
	struct breaker_window n;

	if (row >= r->targets)
		return 0;
	b = &r->breaker[row];
	n = breaker_window_sum(b, breaker_window_s(b), now_ns, breaker_get(&b->changed_ns));
	return (float)n.bad / (float)(n.ok + n.bad + 1);
}
