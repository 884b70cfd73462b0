#pragma once

/*
 * Providers in virtual time: calls come at a rate, the router says where to, breakers may refuse,
 * answers take as long as a lognormal says, and everything that a process would report is
 * reported. Failed calls go on to the next of the chain. Seeded.
 */

#include <math.h>
#include <stdbool.h>
#include "base/aux.h"
#include "shm/breaker.h"
#include "shm/layout.h"
#include "shm/router.h"
#include "shm/target.h"
#include "tests/unit/splitmix.h"

#define SIM_FLIGHTS 4096
#define SIM_OWNER ((UINT64_C(1) << 16) | 1)

struct sim_provider {
	double first_ms, sigma;   /* time to first token: median and spread of ln */
	double gap_ms;            /* between tokens */
	double fails, fails_ms;   /* part of calls, and how long a failing one takes */
	uint64_t calls, failures; /* seen */
};

struct sim_flight {
	uint64_t end_ns, first_ns, input_tokens;
	unsigned to;
	bool ok, used;
	struct breaker_ticket ticket;
};

struct sim {
	struct region *r;
	struct router_candidate *candidate;
	unsigned count;
	struct sim_provider provider[ROUTER_CANDIDATES];
	struct router_query query;
	struct sim_flight flight[SIM_FLIGHTS];
	unsigned flights; /* the first so many have been used */
	_Atomic uint64_t turn;
	uint64_t now_ns, seed;
	double rate; /* calls per second */
	/* seen: calls of users, of those that failed whatever was tried; time and money of the
	 * rest */
	uint64_t calls, lost, first_tries_failed;
	double seconds, usd;
};

static inline double sim_unit(struct sim *s)
{
	return ((double)(splitmix_next(&s->seed) >> 11) + 0.5) / 9007199254740992.0;
}

static inline double sim_normal(struct sim *s)
{
	double radius = sqrt(-2 * log(sim_unit(s)));

	return radius * cos(6.283185307179586 * sim_unit(s));
}

static inline struct layout_target *sim_row(struct sim *s, unsigned i)
{
	return &s->r->target[s->candidate[i].row];
}

static inline void sim_land(struct sim *s, struct sim_flight *f)
{
	struct target_sample sample = { f->input_tokens, f->first_ns,
		(uint64_t)(s->provider[f->to].gap_ms * 1e6) };
	struct breaker_report report = { f->ok ? BREAKER_OK : BREAKER_FAILED,
		f->ok ? f->first_ns : 0 };

	atomic_fetch_sub(&sim_row(s, f->to)->pending, 1);
	if (f->ok)
		target_learn(s->r, s->candidate[f->to].row, &sample, f->end_ns);
	breaker_record(s->r, &f->ticket, &report, f->end_ns, splitmix_next(&s->seed));
	f->used = false;
}

/* Everything that ends until then, in order. */
static inline void sim_until(struct sim *s, uint64_t ns)
{
	for (;;) {
		struct sim_flight *next = NULL;

		for (unsigned i = 0; i < s->flights; i++) {
			struct sim_flight *f = &s->flight[i];

			if (f->used && f->end_ns <= ns && (!next || f->end_ns < next->end_ns))
				next = f;
		}
		if (!next)
			break;
		sim_land(s, next);
	}
	s->now_ns = ns;
}

/* One try at one provider; returns how long it takes. */
static inline double sim_try(
	struct sim *s, unsigned to, double after_s, const struct breaker_ticket *ticket, bool *ok)
{
	struct sim_provider *p = &s->provider[to];
	double first_s = p->first_ms / 1000 * exp(p->sigma * sim_normal(s));
	double total_s = first_s + (double)s->query.output_tokens * p->gap_ms / 1000;

	*ok = sim_unit(s) >= p->fails;
	p->calls++;
	p->failures += !*ok;
	if (!*ok)
		total_s = p->fails_ms / 1000;
	target_tried(s->r, s->candidate[to].row, s->now_ns);
	atomic_fetch_add(&sim_row(s, to)->pending, 1);
	for (unsigned i = 0; i < SIM_FLIGHTS; i++) {
		if (s->flight[i].used)
			continue;
		s->flight[i] = (struct sim_flight){ .used = true,
			.to = to,
			.ok = *ok,
			.ticket = *ticket,
			.input_tokens = s->query.input_tokens,
			.first_ns = (uint64_t)(first_s * 1e9),
			.end_ns = s->now_ns + (uint64_t)((after_s + total_s) * 1e9) };
		s->flights = i < s->flights ? s->flights : i + 1;
		break;
	}
	return total_s;
}

/* One call of a user, now. Returns where it went first; -1: nowhere. */
static inline int sim_call(struct sim *s)
{
	struct router_decision d;
	double seconds = 0;
	int first = -1;

	s->query.random = splitmix_next(&s->seed);
	router_decide(s->r, &s->query, s->candidate, s->count, &s->turn, s->now_ns, &d);
	s->calls++;
	for (unsigned i = 0; i < d.usable; i++) {
		unsigned to = d.choice[i].candidate;
		struct breaker_ticket ticket = { s->candidate[to].row, BREAKER_NO_PROBE, 0 };
		uint64_t wait_ns;
		bool ok;

		if (d.choice[i].reason != ROUTER_PANIC &&
			breaker_allow(s->r, ticket.row, SIM_OWNER, s->now_ns,
				splitmix_next(&s->seed), &ticket, &wait_ns) == BREAKER_REJECT)
			continue;
		seconds += sim_try(s, to, seconds, &ticket, &ok);
		s->first_tries_failed += first < 0 && !ok;
		first = first < 0 ? (int)to : first;
		if (!ok)
			continue;
		s->seconds += seconds;
		s->usd += (double)d.choice[i].cost_nanousd / 1e9;
		return first;
	}
	s->lost++;
	return first;
}

/* n calls at the rate; count[i] += those that went to i first (may be NULL). */
static inline void sim_run(struct sim *s, unsigned n, uint64_t *count)
{
	for (unsigned i = 0; i < n; i++) {
		int to;

		sim_until(s, s->now_ns + (uint64_t)(-log(sim_unit(s)) / s->rate * 1e9));
		to = sim_call(s);
		if (count && to >= 0)
			count[to]++;
	}
}
