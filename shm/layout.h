#pragma once

/*
 * Every byte of the control region, and nothing else. The region is one file that the daemon and
 * any number of client processes map; all of it is declared here, with who writes each word and
 * how a reader reads it. Included directly by shm/, tools/cmd_dump.c, docs/ and tests only;
 * everyone else uses the accessors.
 *
 * Rules: little-endian; 64-bit words, atomic where more than one process may touch them; offsets,
 * never pointers; padding is declared; a process may die between any two stores.
 *
 *     offset 0        struct layout_header        one page
 *     + sections      described by header.section[], each aligned to 64 bytes
 *
 * Versions: LAYOUT_VERSION is raised by every change, LAYOUT_COMPATIBLE only when an old
 * reader would misread. layout_hash() mixes all sizes and offsets: two builds of one version
 * that disagree refuse each other.
 */

#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define LAYOUT_MAGIC UINT64_C(0x314c4f52544e4f43) /* "CONTROL1" as bytes */
#define LAYOUT_VERSION 1
#define LAYOUT_COMPATIBLE 1
#define LAYOUT_PAGE 4096

#define LAYOUT_BUCKETS 4096
#define LAYOUT_PARTICIPANTS 1024
#define LAYOUT_COUNTERS 64
#define LAYOUT_NAME_MAX 104

typedef _Atomic uint64_t shared_u64;

enum layout_section_type {
	LAYOUT_SECTION_BUCKETS = 1,      /* struct layout_bucket */
	LAYOUT_SECTION_BUCKET_NAMES = 2, /* struct layout_bucket_name, row i names bucket i */
	LAYOUT_SECTION_PARTICIPANTS = 3, /* struct layout_participant */
	LAYOUT_SECTION_COUNTERS = 4,     /* shared_u64, order of shm/tbl/counters.h */
	LAYOUT_SECTIONS = 4,
};

enum layout_state {
	LAYOUT_STATE_NEW = 0,    /* being created: do not attach */
	LAYOUT_STATE_READY = 1,  /* valid; the daemon may have died since: see heartbeat */
	LAYOUT_STATE_CLOSED = 2, /* the daemon ended in order; budgets stay valid */
};

struct layout_section {
	uint64_t type;   /* enum layout_section_type */
	uint64_t offset; /* from the start of the file */
	uint64_t row_size;
	uint64_t rows;
};

/*
 * How the CPU's cycle counter becomes CLOCK_BOOTTIME. Written by the daemon once a second,
 * read by everyone. A sequence lock:
 *
 *     s0 = sequence (acquire); odd: give up, use clock_gettime
 *     cycles0, ns0, multiplier, validity (acquire; stored with release: no fences, which
 *     thread sanitizers do not follow)
 *     s1 = sequence (relaxed); s0 != s1: give up, use clock_gettime
 *     ns = ns0 + ((cycles - cycles0) * multiplier >> 32)
 *
 * multiplier 0: the counter is not trusted on this machine. A reader that finds cycles outside
 * [cycles0, cycles0 + validity] uses clock_gettime, so a dead daemon or a suspend heals itself.
 */
struct layout_timebase {
	shared_u64 sequence;
	shared_u64 cycles0;
	shared_u64 ns0;
	shared_u64 multiplier; /* nanoseconds per cycle, 32.32 fixed point */
	shared_u64 validity;   /* cycles */
	uint64_t pad[3];
};

/* Written by the daemon; the plain fields before state is stored (release), once. */
struct layout_header {
	uint64_t magic;
	uint64_t version;
	uint64_t compatible; /* lowest version that can read this */
	uint64_t header_size;
	uint64_t total_size; /* of the file */
	uint64_t layout_hash;
	uint64_t features;   /* bits a reader must know; none defined */
	uint64_t boot_id[2]; /* of /proc/sys/kernel/random/boot_id */
	uint64_t created_ns; /* CLOCK_BOOTTIME */
	uint64_t section_count;
	uint64_t pad0[5];
	struct layout_section section[8];
	shared_u64 state;      /* enum layout_state; stored last */
	shared_u64 generation; /* daemons that have owned the region, this one included */
	shared_u64 daemon_pid;
	shared_u64 daemon_start;   /* clock ticks since boot, field 22 of /proc/PID/stat */
	shared_u64 heartbeat_ns;   /* CLOCK_BOOTTIME, every second */
	shared_u64 adopted_ns;     /* CLOCK_BOOTTIME when this daemon took the region */
	shared_u64 empty_since_ns; /* a limit made later starts as if its burst had been used up at
	                            * this time, because what was owed then is unknown; 0: no */
	uint64_t pad1[1];
	struct layout_timebase timebase;
};

/*
 * One limit of one scope: a GCRA in one word, one cache line.
 *
 * tat is the theoretical arrival time: when the debt of all admissions so far will have leaked.
 * debt = max(tat - now, 0). An admission of n costs c = ceil(n * interval / 2^12) and conforms
 * iff max(tat, now) + c <= now + tolerance. Writers: participants and the daemon, by CAS only.
 *
 * The other words: the daemon, when limits are configured. Two differ from interval and
 * tolerance only while a change is under way, or where a daemon died in one: then interval and
 * tolerance are the stricter of old and new, and basis tells in which of the two the debt in tat
 * is counted. changed_ns is UINT64_MAX until a change is complete. A reader loads tat (acquire)
 * first, then the rest.
 *
 * key is LAYOUT_KEY_NEVER, LAYOUT_KEY_RETIRED, or the hash of scope and name. Rows are found by
 * probing from key % rows; NEVER ends a probe, RETIRED does not. A handle keeps the key it was
 * opened with and looks again when it differs.
 */
#define LAYOUT_KEY_NEVER 0
#define LAYOUT_KEY_RETIRED 1
#define LAYOUT_KEY_FIRST 2

struct layout_bucket {
	shared_u64 tat;        /* ns, CLOCK_BOOTTIME */
	shared_u64 interval;   /* ns per unit, 52.12 fixed point, rounded up */
	shared_u64 tolerance;  /* ns: burst * interval, rounded up */
	shared_u64 admitted;   /* units, since creation */
	shared_u64 rejected;   /* attempts, since creation */
	shared_u64 key;        /* see above; in use from LAYOUT_KEY_FIRST up */
	shared_u64 basis;      /* the interval that the debt in tat is counted in */
	shared_u64 changed_ns; /* CLOCK_BOOTTIME of the last change of interval */
};

/* The cold half of a bucket; the daemon writes it before key is stored (release). */
struct layout_bucket_name {
	shared_u64 scope; /* enum bucket_scope of shm/bucket.h */
	shared_u64 burst; /* units, as configured */
	shared_u64 limit; /* units per window, as configured */
	shared_u64 window_ns;
	shared_u64 most;            /* units: more is never owed, so a later tat is broken */
	char name[LAYOUT_NAME_MAX]; /* UTF-8, NUL-terminated */
};

/*
 * One attached client process. Only the daemon writes it: it learns of a death from the socket
 * and the pidfd. word packs state:8 | generation:56 and is stored last.
 */
struct layout_participant {
	shared_u64 word;
	shared_u64 pid;
	shared_u64 start; /* clock ticks since boot, as for the daemon */
	shared_u64 uid;
	shared_u64 attached_ns; /* CLOCK_BOOTTIME */
	uint64_t pad[3];
};

static_assert(sizeof(shared_u64) == 8 && ATOMIC_LLONG_LOCK_FREE == 2, "64-bit lock-free words");
static_assert(sizeof(struct layout_section) == 32, "layout_section");
static_assert(sizeof(struct layout_timebase) == 64, "layout_timebase");
static_assert(offsetof(struct layout_header, section) == 128, "header.section");
static_assert(offsetof(struct layout_header, state) == 384, "header.state");
static_assert(offsetof(struct layout_header, timebase) == 448, "header.timebase");
static_assert(sizeof(struct layout_header) == 512, "layout_header");
static_assert(sizeof(struct layout_bucket) == 64, "layout_bucket");
static_assert(sizeof(struct layout_bucket_name) == 144, "layout_bucket_name");
static_assert(sizeof(struct layout_participant) == 64, "layout_participant");
