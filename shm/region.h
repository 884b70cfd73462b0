#pragma once

/*
 * The control region as a mapping: create, adopt, attach, verify, detach.
 *
 * The daemon calls region_adopt() with the descriptor of the file that an earlier daemon left;
 * where that has no usable region it makes a new file and calls region_create(). Clients and
 * tools call region_attach() with a descriptor from the socket or from open(2), read-write for
 * participants, read-only for observers. Every way that can fail has a name. Nothing here
 * opens a file or logs.
 *
 * The daemon's sequence, which leaves something usable wherever it is killed:
 *
 *     region_adopt(NAME) == 0: done
 *     make NAME.new anew; region_create(NAME.new, conservative: NAME existed)
 *     rename NAME.new to NAME
 *
 * So NAME never holds half a region, and processes that map the old bytes keep them.
 *
 * Trust: participants are trusted not to be hostile. Bytes of theirs that make no sense are an
 * error, never a fault; but whoever holds the file read-write can ftruncate(2) it, and then every
 * process that maps it gets SIGBUS. No seal prevents that: the next daemon has to find the file by
 * name and map it, and only a memfd, which has no name, can be sealed. Observers get a read-only
 * descriptor and can do no harm.
 *
 * A struct region may be read by any thread; attach and detach are the owner's.
 */

#include <stdbool.h>
#include <stdint.h>
#include "base/str.h"

struct layout_header;
struct layout_bucket;
struct layout_bucket_name;
struct layout_participant;
struct layout_hold;
struct layout_template;
struct layout_target;
struct layout_breaker;
struct layout_latency;
struct layout_route;
struct layout_estimate;
struct layout_event;

enum region_outcome {
	REGION_OK = 0,
	REGION_E_NOT_OURS,   /* magic missing or another: not a control region */
	REGION_E_VERSION,    /* a format this build cannot read, or unknown feature bits */
	REGION_E_LAYOUT,     /* same version, other sizes: two builds that disagree */
	REGION_E_TRUNCATED,  /* the file is shorter than the header says */
	REGION_E_NOT_READY,  /* its creator has not finished, or died creating it */
	REGION_E_OTHER_BOOT, /* written before the last reboot: its times mean nothing */
	REGION_E_CORRUPT,    /* a section lies outside the file or overlaps another */
	REGION_E_EMPTY,      /* no bytes at all */
	REGION_OUTCOMES,     /* how many there are */
};

struct region {
	void *map;
	size_t size;
	bool writable;
	struct layout_header *header;
	struct layout_bucket *bucket;
	struct layout_bucket_name *bucket_name;
	uint32_t buckets;
	struct layout_participant *participant;
	uint32_t participants;
	_Atomic uint64_t *counter;
	uint32_t counters;
	struct layout_hold *hold;
	uint32_t holds;
	struct layout_template *template;
	uint32_t templates;
	struct layout_target *target; /* breaker and latency have as many rows */
	struct layout_breaker *breaker;
	struct layout_latency *latency;
	uint32_t targets;
	struct layout_route *route;
	uint32_t routes;
	struct layout_estimate *estimate;
	uint32_t estimates;
	struct layout_event *event;
	uint32_t events;
	uint64_t (*clock_ns)(void); /* CLOCK_BOOTTIME, for what must know more than the caller's
	                             * now: see true_time() in bucket.c; tests set their own */
};

#define REGION_ROWS_MAX (1u << 19) /* of any table */
#define REGION_HOLDS_MAX (1u << 14)
#define REGION_NULL ((struct region){ 0 })

/* Identity of the owner, taken by the caller from /proc. */
struct region_owner {
	uint64_t pid;
	uint64_t start; /* field 22 of /proc/PID/stat */
	uint64_t boot_id[2];
};

/* Rows of the tables that grow with the configuration; 0: the default of shm/layout.h. */
struct region_sizes {
	uint32_t limits, holds, targets;
};

/*
 * Daemon: makes a region in an empty file (-EEXIST otherwise) and maps it. sizes NULL: all
 * defaults; -ERANGE: above REGION_ROWS_MAX. conservative: budgets of an earlier region were lost,
 * so limits configured start with an empty burst. 0, or -errno (ENOSPC: the file system has no
 * room; memory is reserved here, so a full file system raises no SIGBUS later).
 */
int region_create(struct region *r, int fd, const struct region_owner *owner,
	const struct region_sizes *sizes, uint64_t now_ns, bool conservative);

/*
 * Daemon: takes over the region in fd (read-write, other daemons locked out by the caller):
 * budgets, counters and participants are kept. Every bucket is range-checked against now_ns; what
 * is insane is clamped towards fewer admissions. 0, -errno, or the enum region_outcome that
 * says why it cannot be used; the file is then untouched.
 */
int region_adopt(struct region *r, int fd, const struct region_owner *owner, uint64_t now_ns);

/* Clients, tools: maps fd. 0, an enum region_outcome, or -errno. Other boots attach only with
 * boot_id NULL (tools that look at remains). */
int region_attach(struct region *r, int fd, bool writable, const uint64_t boot_id[2]);

/* Unmaps; idempotent. The file stays. */
void region_detach(struct region *r);

/* Daemon: the orderly end; budgets stay for the next daemon. */
void region_close(struct region *r);

/* Daemon: once a second. */
void region_heartbeat(struct region *r, uint64_t now_ns);

struct region_status {
	uint64_t generation, daemon_pid, daemon_start, heartbeat_ns, created_ns, adopted_ns;
	bool closed;
};
void region_status(const struct region *r, struct region_status *out);

/* Since when budgets of new limits count as used up; 0: new limits start with a full burst. */
uint64_t region_empty_since(const struct region *r);

/* One sentence per outcome, for logs and error texts. */
const char *region_outcome_text(enum region_outcome outcome);

/* The hash of all sizes and offsets of this build, and the size of a whole region. */
uint64_t region_layout_hash(void);
uint64_t region_total_size(const struct region_sizes *sizes);
