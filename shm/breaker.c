#include "shm/breaker.h"

#include "base/aux.h"
#include "shm/breaker_stats.h"
#include "shm/breaker_word.h"
#include "shm/latency.h"
#include "shm/layout.h"

#define TRIES 16
/* How long to wait for others' probes, of which nobody knows when they end. */
#define PROBE_WAIT_NS (500 * NSEC_PER_MSEC)
#define RAMP_STEPS 10
#define RAMP_STEP_NS NSEC_PER_SEC

/* Equal jitter: half of the backoff, and up to another half. */
static uint64_t backoff_ns(const struct breaker_settings *s, unsigned exponent, uint64_t jitter)
{
	uint64_t ms = (uint64_t)s->base_ms << (exponent & BREAKER_EXPONENT_MAX);

	ms = ms < s->cap_ms ? ms : s->cap_ms;
	return (ms / 2 + jitter % (ms - ms / 2 + 1)) * NSEC_PER_MSEC;
}

/* The only way from one state to another. changed_ns is stored before, so that none that was made
 * by a process that died then is without its ramp. */
static bool transit(const struct region *r, uint32_t row, uint64_t seen, struct breaker_word next,
	enum breaker_why why, uint64_t now_ns)
{
	struct layout_breaker *b = &r->breaker[row];
	struct breaker_word from = breaker_unpack(seen);

	next.generation = (from.generation + 1) & BREAKER_GENERATION_MASK;
	breaker_set(&b->changed_ns, now_ns);
	breaker_unwell_until(b, now_ns + RAMP_STEPS * RAMP_STEP_NS, now_ns);
	if (!breaker_cas(&b->state, &seen, breaker_pack(next)))
		return false;
	breaker_tell_one(r, row, from.state, next, why, now_ns);
	atomic_fetch_add_explicit(&b->told, 1, memory_order_relaxed);
	return true;
}

static struct breaker_word opened(
	const struct breaker_settings *s, unsigned exponent, uint64_t now_ns, uint64_t jitter)
{
	exponent = exponent < BREAKER_EXPONENT_MAX ? exponent : BREAKER_EXPONENT_MAX;
	return (struct breaker_word){
		.state = BREAKER_OPEN,
		.exponent = exponent,
		.deadline = breaker_deadline_in(now_ns, backoff_ns(s, exponent, jitter)),
	};
}

static struct breaker_word half_open(
	const struct breaker_settings *s, struct breaker_word from, uint64_t now_ns)
{
	return (struct breaker_word){
		.state = BREAKER_HALF_OPEN,
		.exponent = from.exponent,
		.deadline = breaker_deadline_in(now_ns, s->lease_ms * NSEC_PER_MSEC),
	};
}

/* ---- tickets ---- */

/* Of a call that is no probe. Not 0: that is one that nobody asked for. */
static uint64_t ticket_passed(unsigned generation)
{
	return (uint64_t)generation << 8 | 1;
}

/* Never 0: the nonce is not. */
static uint64_t ticket_make(uint64_t owner, unsigned generation, uint64_t jitter)
{
	return breaker_ticket_owner(owner) << 24 | (uint64_t)generation << 8 | (jitter % 255 + 1);
}

static bool is_half_open(const struct layout_breaker *b, unsigned generation)
{
	struct breaker_word w = breaker_unpack(breaker_state_load(b));

	return w.state == BREAKER_HALF_OPEN && w.generation == generation;
}

/* One of the first probes slots; LAYOUT_PROBES: none is free. */
static uint32_t ticket_take(
	struct layout_breaker *b, unsigned probes, unsigned generation, uint64_t word)
{
	for (uint32_t i = 0; i < probes; i++) {
		uint64_t seen = breaker_ticket_load(b, i);

		/* After the slot: were there a ticket of a later generation in it, which is not
		 * for us to replace, the state would be of that generation by now. */
		if (!is_half_open(b, generation))
			break;
		if (!breaker_ticket_is_live(seen, generation) &&
			breaker_cas(&b->probe[i], &seen, word))
			return i;
	}
	return LAYOUT_PROBES;
}

/* The breaker may have moved on between the look at it and the slot: only a ticket that is in its
 * slot while its generation is current counts. Renews the lease. */
static bool ticket_verify(struct layout_breaker *b, const struct breaker_settings *s,
	unsigned generation, uint64_t now_ns)
{
	uint64_t seen = breaker_state_load(b);

	for (int i = 0; i < TRIES; i++) {
		struct breaker_word w = breaker_unpack(seen);

		if (w.state != BREAKER_HALF_OPEN || w.generation != generation)
			return false;
		w.deadline = breaker_deadline_in(now_ns, s->lease_ms * NSEC_PER_MSEC);
		if (breaker_cas(&b->state, &seen, breaker_pack(w)))
			return true;
	}
	return false;
}

/* ---- allow ---- */

struct asking {
	const struct region *r;
	struct breaker_settings settings;
	uint64_t owner, now_ns, jitter;
	struct breaker_ticket *ticket;
	uint64_t *wait_ns;
};

enum step { STEP_PROBE, STEP_REJECT, STEP_AGAIN };

static enum step reject(const struct asking *a, uint64_t wait_ns)
{
	*a->wait_ns = wait_ns;
	return STEP_REJECT;
}

static enum step step_open(const struct asking *a, uint64_t seen)
{
	struct breaker_word w = breaker_unpack(seen);
	uint64_t left = breaker_deadline_left(w.deadline, a->now_ns, a->settings.cap_ms);

	if (left > 0 || a->owner == 0)
		return reject(a, left > 0 ? left : PROBE_WAIT_NS);
	transit(a->r, a->ticket->row, seen, half_open(&a->settings, w, a->now_ns),
		BREAKER_WHY_TIMER, a->now_ns);
	return STEP_AGAIN;
}

static enum step step_half_open(const struct asking *a, uint64_t seen)
{
	struct layout_breaker *b = &a->r->breaker[a->ticket->row];
	struct breaker_word w = breaker_unpack(seen);
	unsigned out = breaker_tickets_out(b, w.generation);
	uint64_t left = breaker_deadline_left(w.deadline, a->now_ns, a->settings.lease_ms);
	uint64_t word = ticket_make(a->owner, w.generation, a->jitter);

	if (left == 0 && out > 0) {
		transit(a->r, a->ticket->row, seen,
			opened(&a->settings, w.exponent + 1, a->now_ns, a->jitter),
			BREAKER_WHY_LEASE, a->now_ns);
		return STEP_AGAIN;
	}
	if (a->owner == 0 || out >= a->settings.probes)
		return reject(a, PROBE_WAIT_NS);
	a->ticket->slot = ticket_take(b, a->settings.probes, w.generation, word);
	if (a->ticket->slot == LAYOUT_PROBES)
		return is_half_open(b, w.generation) ? reject(a, PROBE_WAIT_NS) : STEP_AGAIN;
	a->ticket->word = word;
	if (ticket_verify(b, &a->settings, w.generation, a->now_ns))
		return STEP_PROBE;
	breaker_ticket_free(b, a->ticket->slot, word);
	a->ticket->slot = LAYOUT_PROBES;
	return STEP_AGAIN;
}

static enum breaker_verdict allow_not_closed(const struct asking *a)
{
	struct layout_breaker *b = &a->r->breaker[a->ticket->row];

	for (int i = 0; i < TRIES; i++) {
		uint64_t seen = breaker_state_load(b);
		struct breaker_word w = breaker_unpack(seen);
		enum step step;

		a->ticket->word = ticket_passed(w.generation);
		if (w.state == BREAKER_CLOSED)
			return BREAKER_PASS;
		if (w.state == BREAKER_FORCED)
			step = reject(a, BREAKER_WAIT_FOREVER);
		else
			step = w.state == BREAKER_OPEN ? step_open(a, seen) :
							 step_half_open(a, seen);
		if (step != STEP_AGAIN)
			return step == STEP_PROBE ? BREAKER_PROBE : BREAKER_REJECT;
	}
	*a->wait_ns = PROBE_WAIT_NS;
	return BREAKER_REJECT;
}

enum breaker_verdict breaker_allow(const struct region *r, uint32_t row, uint64_t owner,
	uint64_t now_ns, uint64_t jitter, struct breaker_ticket *ticket, uint64_t *wait_ns)
{
	uint64_t w;

	*ticket = (struct breaker_ticket){ .row = row, .slot = LAYOUT_PROBES };
	*wait_ns = 0;
	if (row >= r->targets)
		return BREAKER_PASS;
	w = breaker_state_load(&r->breaker[row]);
	if (aux_likely(w >> 62 == BREAKER_CLOSED)) {
		ticket->word = ticket_passed((unsigned)(w >> 46 & BREAKER_GENERATION_MASK));
		return BREAKER_PASS;
	}
	return allow_not_closed(&(struct asking){
		.r = r,
		.settings = breaker_settings_load(&r->breaker[row]),
		.owner = owner,
		.now_ns = now_ns,
		.jitter = jitter,
		.ticket = ticket,
		.wait_ns = wait_ns,
	});
}

static enum breaker_verdict check_not_closed(
	const struct layout_breaker *b, struct breaker_word w, uint64_t now_ns, uint64_t *wait_ns)
{
	struct breaker_settings s = breaker_settings_load(b);
	unsigned out;

	if (w.state == BREAKER_FORCED) {
		*wait_ns = BREAKER_WAIT_FOREVER;
		return BREAKER_REJECT;
	}
	if (w.state == BREAKER_OPEN) {
		*wait_ns = breaker_deadline_left(w.deadline, now_ns, s.cap_ms);
		return *wait_ns > 0 ? BREAKER_REJECT : BREAKER_PROBE;
	}
	out = breaker_tickets_out(b, w.generation);
	/* breaker_allow() sees to probes that are overdue. */
	if (out >= s.probes && breaker_deadline_left(w.deadline, now_ns, s.lease_ms) > 0) {
		*wait_ns = PROBE_WAIT_NS;
		return BREAKER_REJECT;
	}
	return BREAKER_PROBE;
}

enum breaker_verdict breaker_check(
	const struct region *r, uint32_t row, uint64_t now_ns, uint64_t *wait_ns)
{
	uint64_t w;

	*wait_ns = 0;
	if (row >= r->targets)
		return BREAKER_PASS;
	w = breaker_state_load(&r->breaker[row]);
	if (aux_likely(w >> 62 == BREAKER_CLOSED))
		return BREAKER_PASS;
	return check_not_closed(&r->breaker[row], breaker_unpack(w), now_ns, wait_ns);
}

/* Since the last transition; UINT64_MAX: there was none, or its time is later than now could be.
 */
static uint64_t since_change(const struct layout_breaker *b, uint64_t now_ns)
{
	uint64_t changed = breaker_get(&b->changed_ns);

	if (changed == 0 || (changed > now_ns && changed - now_ns > RAMP_STEPS * RAMP_STEP_NS))
		return UINT64_MAX;
	return changed < now_ns ? now_ns - changed : 0;
}

uint32_t breaker_ramp(const struct region *r, uint32_t row, uint64_t now_ns)
{
	struct breaker_word w;
	uint64_t steps;

	if (row >= r->targets)
		return UINT32_MAX;
	w = breaker_unpack(breaker_state_load(&r->breaker[row]));
	if (w.state != BREAKER_CLOSED)
		return UINT32_MAX;
	steps = since_change(&r->breaker[row], now_ns) / RAMP_STEP_NS;
	if (steps < RAMP_STEPS)
		steps += w.ok;
	return steps < RAMP_STEPS ? UINT32_C(1) << steps : UINT32_MAX;
}

/* ---- record ---- */

struct result {
	const struct region *r;
	struct layout_breaker *b;
	const struct breaker_ticket *ticket;
	uint64_t us, now_ns, jitter;
	unsigned generation; /* the ticket's */
	bool ok;
};

/* From closed: the exponent has one less for each cap_ms of health. */
static void open_closed(const struct result *t, enum breaker_why why)
{
	struct breaker_settings s = breaker_settings_load(t->b);
	uint64_t healthy = since_change(t->b, t->now_ns) / (s.cap_ms * NSEC_PER_MSEC);
	uint64_t seen = breaker_state_load(t->b);

	for (int i = 0; i < TRIES; i++) {
		struct breaker_word w = breaker_unpack(seen);
		unsigned exponent = w.exponent > healthy ? w.exponent - (unsigned)healthy : 0;

		if (w.state != BREAKER_CLOSED || w.generation != t->generation)
			return;
		if (transit(t->r, t->ticket->row, seen, opened(&s, exponent, t->now_ns, t->jitter),
			    why, t->now_ns))
			return;
		seen = breaker_state_load(t->b);
	}
}

/* One more failure in a row; returns how many. */
static uint32_t run_add(struct layout_breaker *b, unsigned generation)
{
	uint64_t seen = breaker_get(&b->run);

	for (int i = 0; i < TRIES; i++) {
		uint32_t n = seen >> 32 == generation ? (uint32_t)seen : 0;

		n += n < UINT32_MAX;
		if (breaker_cas(&b->run, &seen, (uint64_t)generation << 32 | n))
			return n;
	}
	return 0;
}

static void run_end(struct layout_breaker *b, unsigned generation)
{
	uint64_t seen = breaker_get(&b->run);

	if ((uint32_t)seen != 0 && seen >> 32 == generation)
		breaker_cas(&b->run, &seen, (uint64_t)generation << 32);
}

static bool ratio_is_bad(const struct result *t, const struct breaker_settings *s)
{
	struct breaker_window n;

	if (s->ratio_percent == 0)
		return false;
	n = breaker_window_sum(t->b, s->window_s, t->now_ns, breaker_get(&t->b->changed_ns));
	return n.ok + n.bad >= s->calls && n.bad * 100 >= s->ratio_percent * (n.ok + n.bad);
}

static void closed_failed(const struct result *t)
{
	struct breaker_settings s = breaker_settings_load(t->b);
	uint32_t run = run_add(t->b, t->generation);

	if (s.run > 0 && run >= s.run)
		open_closed(t, BREAKER_WHY_RUN);
	else if (ratio_is_bad(t, &s))
		open_closed(t, BREAKER_WHY_RATIO);
}

/* A success raises the ramp; one that another's got in the way of is not missed. */
static void ramp_up(const struct result *t, uint64_t seen)
{
	struct breaker_word w = breaker_unpack(seen);

	if (w.ok >= RAMP_STEPS || since_change(t->b, t->now_ns) >= RAMP_STEPS * RAMP_STEP_NS)
		return;
	w.ok++;
	breaker_cas(&t->b->state, &seen, breaker_pack(w));
}

static void closed_result(const struct result *t, uint64_t seen)
{
	if (!t->ok) {
		closed_failed(t);
		return;
	}
	run_end(t->b, t->generation);
	ramp_up(t, seen);
	if (t->us > 0 && breaker_latency_rule(t->b, t->generation, breaker_z_percent(t->b), t->us))
		open_closed(t, BREAKER_WHY_LATENCY);
}

static void probe_result(const struct result *t)
{
	struct breaker_settings s = breaker_settings_load(t->b);
	uint64_t seen = breaker_state_load(t->b);

	for (int i = 0; i < TRIES; i++) {
		struct breaker_word w = breaker_unpack(seen), next = w;
		enum breaker_why why = t->ok ? BREAKER_WHY_RECOVERED : BREAKER_WHY_PROBE;
		bool moves = !t->ok || w.ok + 1u >= s.need;

		if (w.state != BREAKER_HALF_OPEN || w.generation != t->generation)
			return;
		if (!t->ok) {
			next = opened(&s, w.exponent + 1, t->now_ns, t->jitter);
		} else if (moves) {
			next = (struct breaker_word){ .state = BREAKER_CLOSED,
				.exponent = w.exponent > 0 ? w.exponent - 1 : 0 };
		} else {
			next.ok++;
			next.deadline = breaker_deadline_in(t->now_ns, s.lease_ms * NSEC_PER_MSEC);
		}
		if (moves ? transit(t->r, t->ticket->row, seen, next, why, t->now_ns) :
			    breaker_cas(&t->b->state, &seen, breaker_pack(next)))
			return;
		seen = breaker_state_load(t->b);
	}
}

/* Results of another generation only count since creation. */
static void count(const struct result *t, bool is_current)
{
	if (is_current) {
		breaker_window_count(t->b, breaker_window_s(t->b), !t->ok, t->now_ns);
	} else {
		atomic_fetch_add_explicit(&t->b->requests, 1, memory_order_relaxed);
		if (!t->ok)
			atomic_fetch_add_explicit(&t->b->errors, 1, memory_order_relaxed);
	}
	if (t->ok && t->us == 0)
		atomic_fetch_add_explicit(&t->b->untimed, 1, memory_order_relaxed);
	if (t->ok && t->us > 0) {
		atomic_fetch_add_explicit(&t->b->latency_us, t->us, memory_order_relaxed);
		latency_record(t->r, t->ticket->row, t->us, t->now_ns);
	}
}

void breaker_record(const struct region *r, const struct breaker_ticket *ticket,
	const struct breaker_report *report, uint64_t now_ns, uint64_t jitter)
{
	bool is_probe = ticket->slot < LAYOUT_PROBES, counts = true, is_current;
	struct layout_breaker *b;
	struct breaker_word w;
	uint64_t seen;

	if (ticket->row >= r->targets)
		return;
	b = &r->breaker[ticket->row];
	/* Freed first: a process that dies now has returned it; and nobody counts twice. */
	if (is_probe)
		counts = breaker_ticket_free(b, ticket->slot, ticket->word);
	if (report->outcome == BREAKER_NEUTRAL || (report->outcome == BREAKER_LIMITED && !is_probe))
		return;
	seen = breaker_state_load(b);
	w = breaker_unpack(seen);
	struct result t = {
		.r = r,
		.b = b,
		.ticket = ticket,
		.us = report->first_token_ns / NSEC_PER_USEC,
		.now_ns = now_ns,
		.jitter = jitter,
		.generation = ticket->word ? breaker_ticket_generation(ticket->word) : w.generation,
		.ok = report->outcome == BREAKER_OK,
	};
	is_current = counts && w.generation == t.generation;
	if (report->outcome != BREAKER_LIMITED)
		count(&t, is_current);
	if (is_current && is_probe)
		probe_result(&t);
	else if (is_current && w.state == BREAKER_CLOSED)
		closed_result(&t, seen);
}

/* ---- by hand ---- */

static void force(const struct region *r, uint32_t row, struct breaker_word next, bool always,
	uint64_t now_ns)
{
	if (row >= r->targets)
		return;
	for (int i = 0; i < TRIES; i++) {
		uint64_t seen = breaker_state_load(&r->breaker[row]);

		if (!always && seen >> 62 == next.state)
			return;
		if (transit(r, row, seen, next, BREAKER_WHY_HAND, now_ns))
			return;
	}
}

void breaker_force_open(const struct region *r, uint32_t row, uint64_t now_ns)
{
	force(r, row, (struct breaker_word){ .state = BREAKER_FORCED }, false, now_ns);
}

void breaker_force_close(const struct region *r, uint32_t row, uint64_t now_ns)
{
	force(r, row, (struct breaker_word){ .state = BREAKER_CLOSED }, false, now_ns);
}

void breaker_reset(const struct region *r, uint32_t row, uint64_t now_ns)
{
	if (row >= r->targets)
		return;
	breaker_stats_reset(&r->breaker[row]);
	latency_reset(r, row);
	force(r, row, (struct breaker_word){ .state = BREAKER_CLOSED }, true, now_ns);
}
