#pragma once

/*
 * What the kill-point tests act in: a small region, client processes with requests in flight, one
 * daemon, and the provider's own exact buckets, which never over-admit. Virtual time; it stands
 * still while operations interleave, so that the provider sees them in order. Any failed check ends
 * the program.
 */

#include <stdbool.h>
#include <stdint.h>
#include "shm/breaker.h"
#include "shm/bucket_table.h"
#include "shm/hold.h"
#include "shm/participant.h"
#include "shm/region.h"
#include "tests/unit/splitmix.h"

enum {
	WORLD_ACTORS = 4,
	WORLD_FLIGHTS = 3, /* of one actor */
	WORLD_USERS = 5,
	WORLD_TARGETS = 2,
	WORLD_ROWS = 13, /* of limits: the configured ones, and not all users' */
	WORLD_HOLDS = 14,
	WORLD_PARTICIPANTS = 6,
	WORLD_TEMPLATES = 2,
};

/* The provider's own bucket: exact in 128 bits, one unit weighs window_ns, limit leaks each ns. */
struct meter {
	unsigned __int128 level;
	uint64_t limit, window_ns, burst, last_ns;
};

enum flight_state {
	FLIGHT_NONE,
	FLIGHT_ON,   /* sent, or to be sent */
	FLIGHT_LOST, /* its process is dead and not reaped: the provider may go on counting */
};

/* One request in flight, and what the provider counts of it: never more than was asked for. */
struct flight {
	enum flight_state state;
	struct bucket_set set;
	struct bucket_lease lease;
	unsigned user;
	bool sends;  /* or is cancelled */
	bool parts;  /* the provider counts as the answer goes on, else at the end */
	bool booked; /* its requests count at send_ns, which is still to come */
	uint64_t send_ns;
	struct bucket_cost left; /* to be counted by the provider */
	bool pending;            /* counted at the target */
	struct breaker_ticket ticket;
	bool ticketed;
};

struct actor {
	bool alive, acting;
	bool proven;  /* dead, and the daemon knows */
	uint32_t row; /* of a participant */
	uint64_t pid, owner;
	struct flight flight[WORLD_FLIGHTS];
};

struct world {
	struct region r;
	int fd;
	uint64_t now_ns, seed;
	bool daemon_acting, daemon_dead;
	struct actor actor[WORLD_ACTORS];
	struct meter user[WORLD_USERS], model, provider, tokens, output;
	uint64_t admitted;   /* leases */
	uint64_t spent, day; /* nano-USD, by the provider's clock */
};

extern struct world world;
/* For a failure's message: what is going on, and what went on before. */
extern const char *world_what;
void world_note(const char *what, unsigned actor, unsigned dies_at, bool lived);

_Noreturn void world_fail(const char *why);
static inline uint64_t world_random(uint64_t below)
{
	return splitmix_below(&world.seed, below);
}

/* Where leases are made: at the same address in every run, since where a free hold is looked for
 * depends on it. */
#define WORLD_LEASES ((struct bucket_lease *)(uintptr_t)0x210000000000)

void world_open(uint64_t seed);
void world_close(void);
/* Daemon: limits and templates; tight: half of everything. */
void world_configure(bool tight);
struct bucket_names world_names(unsigned user);

/* All that operations of clients and of the reaper change, but for statistics: saved, and as it
 * was. */
void world_save(void);
void world_restore(void);

/* Time goes on; what was booked for later is sent meanwhile. */
void world_advance(uint64_t ns);

/* The provider's side of a flight. */
void world_sent(struct flight *f);
/* It counts so much of what is left, in 16ths. */
void world_counts(struct flight *f, unsigned sixteenths);

/* Everybody's claims in one: no slot, probe or hold too many. */
void world_check_use(void);
/* Nothing is going on and nobody is dead and not reaped: all totals are what the holds say, and
 * every hold is a living flight's. */
void world_check_still(void);
/* What the limits would still admit, and what is in flight, fits into the provider's own buckets.
 * */
void world_check_room(void);
/* Nobody has anything in flight: nothing is held, and what is owed leaks to nothing. */
void world_check_empty(void);
