#pragma once

/*
 * Circuit breakers shared by processes; row i is of target i (shm/target.h), a (provider, model)
 * or a whole provider. One state word; probe tickets with owner and resource in one word. A row
 * that does not exist lets everything pass and learns nothing.
 *
 * Opens on any of:
 *
 *   failures in a row (Envoy, Finagle); one success ends the row
 *   a windowed error ratio with a least number of calls (resilience4j, Hystrix); exact counts in
 *   slices that expire by themselves; what was before the last close does not count again
 *   a CUSUM on the z-score of ln(time to first token) (Page 1954): C = max(0, C + z - k) > 12 with
 *   k = 1, |z| <= 4, sd >= 0.15, and the mean since C was last below 3 above twice the baseline +
 *   500 ms
 *
 * The baseline is the mean and variance of 50 successes, then follows with 1/500 of each clamped
 * deviation, and only while closed. Until it has 50, latency never opens. So:
 *
 *   100 calls of 100 ms, then one of 5 s or 60 s: stays closed, C is 3; the fifth in a row opens
 *   100 calls of 1000 to 1009 ms, then 1020 ms: stays closed, however many
 *   50 % errors: opens at the 20th call of 30 s; all failing: at the 5th (production)
 *
 * Open ends by itself: after min(base * 2^exponent, cap), half of it at random (equal jitter), the
 * next call is a probe. At most `probes` are out at a time, counted when they leave; `need`
 * successes close, one failure opens with the exponent raised. A probe that is not reported within
 * lease_ms opens, too. Each close, and each cap of health, takes one off the exponent. After
 * closing, 1, 2, 4, … may be in flight, twice as many by each success or second; unbounded after
 * 10 of them.
 *
 * Outcomes: OK; FAILED (5xx, 529, timeouts, resets, malformed, DNS, TLS); NEUTRAL (the client's
 * own 4xx, cancelled, content filter): returns a probe's ticket, else nothing; LIMITED (429):
 * nothing when closed, fails a probe. Those of calls from before a transition do not move the
 * state, but count in requests, errors and latencies.
 *
 * Lock-free, thread- and process-safe, bounded; shared bytes are range-checked. now_ns is
 * CLOCK_BOOTTIME. check: one load when closed.
 */

#include <stdbool.h>
#include <stdint.h>
#include "shm/region.h"

enum breaker_state { BREAKER_CLOSED, BREAKER_OPEN, BREAKER_HALF_OPEN };
const char *breaker_state_name(uint64_t state);

enum breaker_why {
	BREAKER_WHY_NONE,
	BREAKER_WHY_RUN,       /* failures in a row */
	BREAKER_WHY_RATIO,     /* windowed error ratio */
	BREAKER_WHY_LATENCY,   /* CUSUM */
	BREAKER_WHY_PROBE,     /* a probe failed */
	BREAKER_WHY_LEASE,     /* probes never reported */
	BREAKER_WHY_TIMER,     /* the deadline passed: half-open */
	BREAKER_WHY_RECOVERED, /* enough probes succeeded */
	BREAKER_WHY_HAND,      /* an operator */
	BREAKER_WHY_MISSED,    /* its writer died before telling */
};
const char *breaker_why_name(uint64_t why);

struct breaker_settings {
	uint8_t run;                        /* failures in a row that open; 0: off */
	uint8_t ratio_percent;              /* 0: off */
	uint16_t calls;                     /* least number in the window */
	uint16_t window_s;                  /* LAYOUT_SLICES slices */
	uint8_t probes;                     /* 1 to LAYOUT_PROBES at a time */
	uint8_t need;                       /* successes that close */
	uint32_t lease_ms, base_ms, cap_ms; /* lease of probes; backoff */
	uint16_t z_percent;                 /* deviation: k = z/2.5, 250 is "2.5"; 0: off */
};

enum breaker_preset {
	BREAKER_PRODUCTION,
	BREAKER_AGGRESSIVE,
	BREAKER_CONSERVATIVE,
	BREAKER_PRESETS
};
/* "production", …; NULL out of range. By the deviation that counts and the longest that a target
 * is left alone: production 2.5 and 60 s, aggressive 1.5 and 10 s, conservative 3.0 and 120 s. */
const char *breaker_preset_name(unsigned preset);
struct breaker_settings breaker_preset(enum breaker_preset preset);
/* The same, but nothing opens it by itself. */
struct breaker_settings breaker_never(struct breaker_settings settings);

/* Daemon only: a row's settings; state and statistics stay. */
void breaker_configure(struct region *r, uint32_t row, const struct breaker_settings *settings);
/* Daemon only: a row that another target takes over: closed, nothing learned. */
void breaker_init(struct region *r, uint32_t row, const struct breaker_settings *settings);

enum breaker_verdict {
	BREAKER_PASS,
	BREAKER_PROBE,  /* pass, with the ticket: report it, or give it back */
	BREAKER_REJECT, /* *wait_ns: until it may be tried again */
};

#define BREAKER_NO_PROBE 4 /* LAYOUT_PROBES */

/* The wait for one that is open by hand; may be added to any now. */
#define BREAKER_WAIT_FOREVER (UINT64_MAX / 4)

struct breaker_ticket {
	uint32_t row;
	uint32_t slot; /* BREAKER_NO_PROBE: passed without one */
	uint64_t word;
};

/* May a call go to this target now. owner: hold_owner() of the process, 0 for one without a row
 * (it gets no probe). jitter: any random bits. The ticket is filled whatever the verdict, so that
 * who calls all the same (all targets are open) can report. */
enum breaker_verdict breaker_allow(const struct region *r, uint32_t row, uint64_t owner,
	uint64_t now_ns, uint64_t jitter, struct breaker_ticket *ticket, uint64_t *wait_ns);

/* As breaker_allow() would say, without taking a probe: for routing. Where probes are overdue,
 * PROBE: breaker_allow() then sees to it. */
enum breaker_verdict breaker_check(
	const struct region *r, uint32_t row, uint64_t now_ns, uint64_t *wait_ns);

/* How many may be in flight at the target: the ramp after closing; UINT32_MAX: no bound, or not
 * closed (then tickets bound it). */
uint32_t breaker_ramp(const struct region *r, uint32_t row, uint64_t now_ns);

enum breaker_outcome { BREAKER_OK, BREAKER_FAILED, BREAKER_NEUTRAL, BREAKER_LIMITED };

struct breaker_report {
	enum breaker_outcome outcome;
	uint64_t first_token_ns; /* time to first token; 0: not known */
};

/* The outcome of a call; ticket as filled when it was allowed. A second report of a probe counts
 * for nothing. Where the breaker was not asked: slot BREAKER_NO_PROBE, word 0. */
void breaker_record(const struct region *r, const struct breaker_ticket *ticket,
	const struct breaker_report *report, uint64_t now_ns, uint64_t jitter);

/* An operator's: open until closed by hand; close; forget all that was learned and close. Counts
 * since creation stay. */
void breaker_force_open(const struct region *r, uint32_t row, uint64_t now_ns);
void breaker_force_close(const struct region *r, uint32_t row, uint64_t now_ns);
void breaker_reset(const struct region *r, uint32_t row, uint64_t now_ns);

/* Daemon: the dead owner's tickets come back, once. Returns how many. */
uint32_t breaker_reap(struct region *r, uint64_t owner);
/* Daemon, about once a second: tells of transitions whose writer died before it did. One that was
 * stopped meanwhile tells again. */
void breaker_tell(struct region *r, uint64_t now_ns);
/* Daemon: makes sense of whatever is there. */
void breaker_adopt(struct region *r, uint64_t now_ns);

/* Health, readable by anyone; false: no such row. */
struct breaker_view {
	enum breaker_state state;
	bool forced;
	unsigned probes_out, exponent;
	uint64_t retry_ns; /* until it may half-open; 0: now, or not open by itself */
	uint64_t requests, errors, transitions, changed_ns;
	uint64_t window_ok, window_bad; /* of the last window_s */
	double error_ratio;             /* of the window */
	uint64_t mean_us, p50_us,
		p99_us; /* time to first token; the last minute's, mean since creation */
	double baseline_us, deviation; /* what the CUSUM compares with: exp(mean), sd of ln */
	double cusum;
	struct breaker_settings settings;
};
bool breaker_view(const struct region *r, uint32_t row, uint64_t now_ns, struct breaker_view *out);

/* Errors of the row's window, for routing: the ratio with a prior of one success; 0 when quiet. */
float breaker_error_ratio(const struct region *r, uint32_t row, uint64_t now_ns);
