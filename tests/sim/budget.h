#pragma once

/*
 * Budgets under faults: client processes with several calls in flight each, a provider that
 * counts requests when they are admitted and tokens at any instant of a call, and a daemon.
 * Clients die between any two operations, stop, and have old clocks; the daemon restarts, changes
 * limits, makes and evicts users' limits; the provider refuses now and then. Drawn from the seed:
 * limits, load, faults.
 *
 * With SIM_STEPS the sources of shm/ have a place to be interrupted and to die at before every
 * access to a shared word: then others act amid operations, too (tests/crash/hook.h).
 */

#include "shm/bucket_table.h"
#include "shm/region.h"
#include "tests/sim/meter.h"
#include "tests/sim/sim.h"

enum {
	CLIENTS_MAX = 8,
	FLIGHTS_MAX = 8, /* of one client */
	ACTORS_MAX = CLIENTS_MAX * FLIGHTS_MAX,
	USERS_MAX = 12,
	PARTS_MAX = 3,
};
#define REAP_NS (100 * NSEC_PER_MSEC)

enum budget_event {
	BUDGET_TRY,
	BUDGET_SEND,  /* what was booked ahead */
	BUDGET_COUNT, /* the provider counts, the client may settle that part */
	BUDGET_END,
	BUDGET_REAP,
	BUDGET_BIRTH,
	BUDGET_TICK,
	BUDGET_CHANGE,
	BUDGET_CHANGED, /* it is complete: only noted */
	BUDGET_RESTART,
	BUDGET_DIED, /* only noted, as are the rest */
	BUDGET_STOPPED,
	BUDGET_REFUSED,
	BUDGET_ADMITTED,
	BUDGET_PAUSED,
	BUDGET_CANCELLED,
	BUDGET_EVENTS,
};

/* One thread of a client: nothing, or a call. */
enum flight_state {
	FLIGHT_NONE,
	FLIGHT_ASKING,
	FLIGHT_BOOKED, /* not sent yet */
	FLIGHT_SENT,
	FLIGHT_LOST, /* its process is dead and not reaped: the provider may go on counting */
};

struct flight {
	enum flight_state state;
	uint32_t epoch;
	unsigned user;
	uint64_t change; /* how many changes of limits had begun when it asked */
	uint64_t mark, user_mark;
	struct bucket_set set;
	unsigned set_user;
	bool set_known;
	struct bucket_lease lease;
	struct bucket_cost cost, used;              /* used: counted and not settled */
	uint64_t estimate, usage, counted, settled; /* tokens */
	uint64_t end_ns;
	unsigned parts;
	bool progresses, late, cancels;
	bool at_provider; /* counts as in flight there */
};

struct client {
	bool alive;
	unsigned acting; /* operations going on */
	uint32_t row;
	uint64_t pid, owner, stopped_ns;
	struct flight flight[FLIGHTS_MAX];
};

/* What the seed says. */
struct budget_plan {
	unsigned clients, flights, users;
	uint64_t window_ns;
	uint64_t tokens, tokens_burst, requests, requests_burst, slots; /* per window */
	uint64_t user_tokens, user_tokens_burst, user_requests, user_requests_burst;
	uint64_t cost_most;                  /* tokens of one call, each way */
	uint64_t usage_least, usage_percent; /* of the estimate; at most */
	uint64_t call_ns;                    /* mean */
	uint64_t think_ns;                   /* mean */
	uint64_t period_ns;                  /* 0, or all begin together now and then */
	uint64_t stale_ns;                   /* most */
	uint64_t die, stop, change, restart, refuse, cancel, borrow; /* once in so many; 0: never */
	bool slow_interleaving; /* SIM_STEPS: time goes on while others act */
	bool stale_cancels;     /* only who cancels has an old clock: it must not matter */
	bool follows;           /* the provider's rate headers are applied */
};

struct budget_counts {
	uint64_t admitted, rejected, settled, cancelled, died_in_flight, deaths, stops, changes,
		restarts, refusals, promises, amid;
};

extern struct budget {
	struct budget_plan plan, base; /* with limits as they are now; as drawn */
	struct region r;
	int fd;
	struct client client[CLIENTS_MAX];
	struct meter requests, tokens, user_requests[USERS_MAX], user_tokens[USERS_MAX];
	uint64_t at_once, slots; /* in flight; how many may be */
	/* Of changes begun; in flight since before the last was complete. */
	uint64_t changes, old_flights;
	bool changing;      /* begun and not complete */
	uint64_t paused_ns; /* nobody sends before */
	bool daemon_acting, daemon_dead, winding_down;
	uint64_t next_pid;
	struct budget_counts *counts;
} budget;

/* One run: so many admissions, then everybody ends and everything must have come back. The hash. */
uint64_t budget_run(uint64_t seed, uint64_t admissions, struct budget_counts *counts);

/* ---- between the files of it ---- */

/* An operation of a client or (NULL) of the daemon. False: who did it died in it, and is dead. */
bool budget_do(void (*operation)(void *), void *argument, struct client *c);

void budget_handle(const struct sim_event *e);
void budget_plan_make(struct budget_plan *plan);

void client_event(const struct sim_event *e);
void client_die(struct client *c);
/* Everything that the provider still counts of a dead client's calls. */
void client_lost(struct client *c);
struct bucket_names client_names(unsigned user);

void daemon_event(const struct sim_event *e);
void daemon_configure(void);
void daemon_die(void);

static inline unsigned actor_of(const struct client *c, const struct flight *f)
{
	return (unsigned)((c - budget.client) * FLIGHTS_MAX + (f - c->flight));
}

static inline void budget_later(
	const struct client *c, const struct flight *f, uint64_t at_ns, enum budget_event kind)
{
	sim_push(at_ns, kind, actor_of(c, f), f->epoch);
}
