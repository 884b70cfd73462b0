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
#define LAYOUT_VERSION 2
#define LAYOUT_COMPATIBLE 2
#define LAYOUT_PAGE 4096

/* Rows of the tables that a region is made with unless region_sizes says otherwise. */
#define LAYOUT_BUCKETS 4096
#define LAYOUT_PARTICIPANTS 1024
#define LAYOUT_COUNTERS 64
#define LAYOUT_HOLDS 8192
#define LAYOUT_TARGETS 256
#define LAYOUT_ROUTES 256
#define LAYOUT_TEMPLATES 64
#define LAYOUT_ESTIMATES 1024
#define LAYOUT_EVENTS 1024

#define LAYOUT_NAME_MAX 160 /* of a limit: one or two names, joined by LAYOUT_NAME_JOIN */
#define LAYOUT_NAME_JOIN '\x1f'
#define LAYOUT_HOLD_ENTRIES 12
#define LAYOUT_PROBES 4
#define LAYOUT_SLICES 10
#define LAYOUT_PROMPT_CLASSES 6
#define LAYOUT_ROUTE_TARGETS 32
#define LAYOUT_LATENCY_ROWS 6
#define LAYOUT_LATENCY_CELLS 160
#define LAYOUT_LABEL_WORDS 18

typedef _Atomic uint64_t shared_u64;

enum layout_section_type {
	LAYOUT_SECTION_BUCKETS = 1,      /* struct layout_bucket */
	LAYOUT_SECTION_BUCKET_NAMES = 2, /* struct layout_bucket_name, row i names bucket i */
	LAYOUT_SECTION_PARTICIPANTS = 3, /* struct layout_participant */
	LAYOUT_SECTION_COUNTERS = 4,     /* shared_u64, order of shm/tbl/counters.h */
	LAYOUT_SECTION_HOLDS = 5,        /* struct layout_hold */
	LAYOUT_SECTION_TEMPLATES = 6,    /* struct layout_template */
	LAYOUT_SECTION_TARGETS = 7,      /* struct layout_target */
	LAYOUT_SECTION_BREAKERS = 8,     /* struct layout_breaker, row i is of target i */
	LAYOUT_SECTION_LATENCIES = 9,    /* struct layout_latency, row i is of target i */
	LAYOUT_SECTION_ROUTES = 10,      /* struct layout_route */
	LAYOUT_SECTION_ESTIMATES = 11,   /* struct layout_estimate */
	LAYOUT_SECTION_EVENTS = 12,      /* struct layout_event */
	LAYOUT_SECTIONS = 12,
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
	struct layout_section section[16];
	shared_u64 state;      /* enum layout_state; stored last */
	shared_u64 generation; /* daemons that have owned the region, this one included */
	shared_u64 daemon_pid;
	shared_u64 daemon_start;   /* clock ticks since boot, field 22 of /proc/PID/stat */
	shared_u64 heartbeat_ns;   /* CLOCK_BOOTTIME, every second */
	shared_u64 adopted_ns;     /* CLOCK_BOOTTIME when this daemon took the region */
	shared_u64 empty_since_ns; /* a limit made later starts as if its burst had been used up at
	                            * this time, because what was owed then is unknown; 0: no */
	shared_u64
		limits_in_use[16]; /* by scope mask: bit r says that a limit of resource r exists,
	                               * bit 8+r that a template does, 16+r that one of
	                               * tokens charged at submission does */
	shared_u64 events_head;    /* tickets given out; the next event goes to row head % rows */
	shared_u64 wall_offset_ns; /* CLOCK_REALTIME - CLOCK_BOOTTIME, every second */
	uint64_t pad1[7];
	struct layout_timebase timebase;
};

/*
 * One limit of one scope and one resource, one cache line. What the words mean depends on the kind
 * (enum bucket_kind), which is part of what key hashes, so that it never changes under a reader:
 *
 *   RATE    GCRA. tat is the theoretical arrival time: when the debt of all admissions so far will
 *           have leaked. debt = max(tat - now, 0). n units cost c = ceil(n * interval / 2^12) and
 *           conform iff max(tat, now) + c <= now + tolerance.
 *   HELD    the same with tat for what is settled, plus held for what is in flight and does not
 *           leak: n conform iff debt + cost(held + n) <= tolerance.
 *   GAUGE   n conform iff held + n <= tolerance. Concurrency.
 *   WINDOW  tat is epoch:12 | used:52; n conform iff used + late + held + n <= tolerance. The
 *           daemon alone begins the next, at interval (CLOCK_BOOTTIME). Money, in nano-USD.
 *
 * tat: participants and the daemon, by CAS only. held: value:32 | hold:14 | sequence:18, see
 * layout_hold; value all ones: closed, the row is being given to another limit. pause_ns: raised
 * by anybody (fetch-max), lowered by the daemon: nothing conforms before it. The rest: the daemon.
 *
 * basis and changed_ns (in the cold half) differ from interval only while a change is under way, or
 * where a daemon died in one: then interval and tolerance are the stricter of old and new, and
 * basis tells in which of the two the debt in tat is counted. changed_ns is UINT64_MAX until a
 * change is complete. A reader loads held, then late of a WINDOW, then tat (all acquire), then the
 * rest.
 *
 * key is LAYOUT_KEY_NEVER, LAYOUT_KEY_RETIRED, or the hash of scope, resource, kind and name. Rows
 * are found by probing from key % rows; NEVER ends a probe, RETIRED does not. A handle keeps the
 * key it was opened with and looks again when it differs.
 */
#define LAYOUT_KEY_NEVER 0
#define LAYOUT_KEY_RETIRED 1
#define LAYOUT_KEY_FIRST 2

struct layout_bucket {
	shared_u64 tat;       /* ns, CLOCK_BOOTTIME; or epoch and used */
	shared_u64 held;      /* units in flight, who wrote it last and his how-manieth */
	shared_u64 interval;  /* ns per unit, 52.12 fixed point, rounded up; or end of the window */
	shared_u64 tolerance; /* ns: burst * interval, rounded up; or units */
	shared_u64 admitted;  /* units, since creation */
	shared_u64 rejected;  /* attempts, since creation */
	shared_u64 key;       /* see above; in use from LAYOUT_KEY_FIRST up */
	shared_u64 pause_ns;  /* CLOCK_BOOTTIME until which nothing is admitted; 0: no pause */
};

/* The cold half of a bucket; the daemon writes it before key is stored (release), but for heard,
 * used_ns, the two words of waiting, ahead_ns and late. */
struct layout_bucket_name {
	shared_u64 scope;      /* mask of enum bucket_scope */
	shared_u64 resource;   /* enum bucket_resource */
	shared_u64 kind;       /* enum bucket_kind */
	shared_u64 origin;     /* enum bucket_origin */
	shared_u64 burst;      /* units, as configured */
	shared_u64 limit;      /* units per window, as configured */
	shared_u64 window_ns;  /* BUCKET_WINDOW_MONTH: a calendar month */
	shared_u64 most;       /* units: more is never owed, so a later tat is broken */
	shared_u64 basis;      /* the interval that the debt in tat is counted in */
	shared_u64 changed_ns; /* CLOCK_BOOTTIME of the last change of interval */
	shared_u64 used_ns;    /* when somebody last looked it up: what eviction goes by */
	shared_u64 heard;      /* the limit that the provider's answers name, and how often in a
	                        * row: limit:56 | times:8; whoever hears it */
	shared_u64 wake;       /* futex: counts what may let a waiter in (its low 32 bits) */
	shared_u64 waited_ns;  /* until when somebody may sleep on wake */
	shared_u64 ahead_ns;   /* RATE: the latest time anybody booked; raised before tat */
	shared_u64 late;       /* WINDOW: nano-USD used since its end: the daemon adds it to used of
	                        * the next one, then subtracts it here */
	char name[LAYOUT_NAME_MAX]; /* UTF-8, NUL-terminated */
};

/* A limit for every name of a scope that has none of its own. The daemon. */
struct layout_template {
	shared_u64 scope; /* 0: row not in use */
	shared_u64 resource;
	shared_u64 kind;
	shared_u64 limit;
	shared_u64 window_ns;
	shared_u64 burst;
	uint64_t pad[2];
};

/*
 * What one request in flight holds of shared totals. owner and resource are one word, so there is
 * no instant at which a hold is neither free nor owned; whoever finds the owner dead gives
 * back what the entries say.
 *
 * A total (layout_bucket.held, layout_target.pending) changes by a recoverable compare-and-swap
 * (after Attiya, Ben-Baruch, Hendler, "Nesting-Safe Recoverable Linearizability", PODC 2018): the
 * total names the hold that wrote it last and the low bits of its operation's number. Before a
 * total: op says which entry and total (pending), op_value what the entry will be. After: entry is
 * stored, op is idle. Whoever overwrites a total first marks the operation it names as done in that
 * hold's op. So the reaper of a hold whose op is pending knows: done iff op is marked, or the
 * total still names this hold and number. Single writer at a time: the thread that has the lease.
 *
 * owner is participant:16 | generation:48, 0: free. op is number:36 | total:22 | entry:4 | state:2
 * (0 idle, 1 pending, 2 done). entry is total:22 | pad:10 | units:32; 0: not used. total: 0 none,
 * 1 + row of a bucket, or LAYOUT_TOTAL_TARGET + row of a target.
 */
#define LAYOUT_TOTAL_TARGET (UINT64_C(1) << 21)

struct layout_hold {
	shared_u64 owner;
	shared_u64 op;
	shared_u64 op_value; /* the entry's units after op */
	shared_u64 taken_ns; /* CLOCK_BOOTTIME */
	shared_u64 entry[LAYOUT_HOLD_ENTRIES];
};

/*
 * One (provider, model), or a provider by itself (name without a slash). Configured words: the
 * daemon, before key. Learned words: whoever reports, each by one CAS. An EWMA is
 * value:float32 | time:32 (ms, modular), value in ln(microseconds).
 *
 * The label of a provider's key may change while it is read: labels counts the changes, and
 * label[labels % 2] is the one in force. The daemon writes the other and then raises labels
 * (release); a reader takes what he copied if labels is still the same.
 */
struct layout_target {
	shared_u64 key;          /* hash of name; values as for buckets */
	shared_u64 provider;     /* row of the provider's own target; its own row for a provider */
	shared_u64 available;    /* 0: not to be used (no key), 1: usable */
	shared_u64 capabilities; /* enum target_capability bits */
	shared_u64 context;      /* tokens; 0: not known */
	shared_u64 price_input;  /* pico-USD per token, two's complement; -1: not known */
	shared_u64 price_output;
	shared_u64 pause_ns; /* CLOCK_BOOTTIME until which nobody sends there; 0: no pause */
	/* a second cache line: what calls change */
	shared_u64 pending;  /* requests in flight: value:32 | hold:14 | sequence:18 */
	shared_u64 tried_ns; /* CLOCK_BOOTTIME of the last dispatch */
	shared_u64 samples;  /* first tokens seen */
	shared_u64 gap;      /* EWMA of the time between tokens */
	shared_u64
		first_token[LAYOUT_PROMPT_CLASSES]; /* EWMA of time to first token by prompt size */
	shared_u64 price_cached;
	shared_u64 refused; /* 429s in a row, one for each pause */
	shared_u64 traits;  /* enum target_trait bits */
	shared_u64 answer;  /* a model's max_tokens, as configured; 0: not known */
	shared_u64 labels;
	uint64_t pad[1];
	char name[LAYOUT_NAME_MAX];              /* "provider/model" or "provider" */
	shared_u64 label[2][LAYOUT_LABEL_WORDS]; /* UTF-8, NUL-terminated */
};

/*
 * The breaker of the target of the same row. state is state:2 | generation:16 | ok:8 | pad:8 |
 * exponent:4 | deadline:26 (100 ms units, modular); state 3 is open by hand. Every transition
 * raises the generation by one. A probe ticket is participant generation:24 | participant:16 |
 * breaker generation:16 | nonce:8; one of another breaker generation is free, but only while state
 * is of one's own. slice is epoch:24 | ok:20 | bad:20; who replaces an old one first adds its
 * counts to requests and errors. unwell_ns is raised before what it tells of. Everybody by CAS;
 * settings and born: the daemon.
 */
struct layout_breaker {
	shared_u64 state;
	shared_u64 unwell_ns; /* CLOCK_BOOTTIME: from then no failure, pause or ramp counts */
	shared_u64 probe[LAYOUT_PROBES];
	shared_u64 baseline; /* mean:float32 | variance:float32 of ln(first token us) */
	shared_u64 cusum;    /* cusum:float32 | generation:16 | samples:16 */
	shared_u64 run;      /* generation:16 | failures in a row:32 */
	shared_u64 slice[LAYOUT_SLICES];
	shared_u64 requests; /* since creation, without those in slice; neutral ones not counted */
	shared_u64 errors;
	shared_u64 latency_us; /* sum over successes */
	shared_u64 told; /* transitions in the ring of events; low 16 bits as of a generation */
	shared_u64 born; /* told at creation */
	shared_u64 changed_ns;  /* CLOCK_BOOTTIME of the last transition */
	shared_u64 recent;      /* mean:float32 | samples:32 of ln since cusum is above 3 */
	shared_u64 settings[4]; /* packed by breaker.c */
	shared_u64 untimed;     /* successes that are not in latency_us */
	uint64_t pad[1];
};

/* Time to first token, log-linear: cell (octave * 8 + eighth) from 1024 us up; row = (now / 10 s) %
 * rows, valid while its epoch is that of now. Two 32-bit counts per word. */
struct layout_latency {
	struct {
		shared_u64 epoch;
		shared_u64 cell[LAYOUT_LATENCY_CELLS / 2];
	} row[LAYOUT_LATENCY_ROWS];
	uint64_t pad[2];
};

/* Targets that can stand in for each other. The daemon; sequence: odd while it changes. */
struct layout_route {
	shared_u64 key;
	shared_u64 sequence;
	shared_u64 strategy; /* enum router_strategy */
	shared_u64 turn;     /* of round robin; whoever routes */
	shared_u64 weights;  /* cost:16 | latency:16 | reliability:16, parts of 1000 */
	shared_u64 count;
	shared_u64 price_cap; /* of a whole call in nano-USD, two's complement; negative: none */
	shared_u64 patience_ns;
	shared_u64 target[LAYOUT_ROUTE_TARGETS]; /* row:32 | weight:32 */
	char name[LAYOUT_NAME_MAX];
	uint64_t pad_name[4];
};

/* The learned 95th percentile of output tokens of one (model, caller's tag). By CAS. */
struct layout_estimate {
	shared_u64 key;
	shared_u64 value; /* float32 ln(tokens) | samples:32 */
	shared_u64 used_ns;
	uint64_t pad[1];
};

/* One event; sequence is its ticket + 1, stored last (release), 0 while it is written. */
struct layout_event {
	shared_u64 sequence;
	shared_u64 time_ns; /* CLOCK_BOOTTIME */
	shared_u64 what;    /* kind:8 | from:8 | to:8 | why:8 | row:32 */
	shared_u64 value;   /* by kind */
	shared_u64 check;   /* of the four words before, against two writers in one row */
	uint64_t pad[3];
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
static_assert(offsetof(struct layout_header, state) == 640, "header.state");
static_assert(offsetof(struct layout_header, timebase) == 896, "header.timebase");
static_assert(sizeof(struct layout_header) == 960, "layout_header");
static_assert(sizeof(struct layout_bucket) == 64, "layout_bucket");
static_assert(sizeof(struct layout_bucket_name) == 288, "layout_bucket_name");
static_assert(sizeof(struct layout_template) == 64, "layout_template");
static_assert(sizeof(struct layout_hold) == 128, "layout_hold");
static_assert(sizeof(struct layout_target) == 640, "layout_target");
static_assert(sizeof(struct layout_breaker) == 256, "layout_breaker");
static_assert(sizeof(struct layout_latency) == 3904, "layout_latency");
static_assert(sizeof(struct layout_route) == 512, "layout_route");
static_assert(sizeof(struct layout_estimate) == 32, "layout_estimate");
static_assert(sizeof(struct layout_event) == 64, "layout_event");
static_assert(sizeof(struct layout_participant) == 64, "layout_participant");
