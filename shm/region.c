#include "shm/region.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include "base/aux.h"
#include "base/clock.h"
#include "base/error.h"
#include "shm/breaker.h"
#include "shm/bucket_table.h"
#include "shm/counters.h"
#include "shm/layout.h"
#include "shm/target.h"

#define ALIGNMENT 64
#define TOTAL_MAX (UINT64_C(1) << 30)
#define INTERRUPTED_MAX 16

/* What this build writes, and the least it needs of each table. */
static const struct {
	enum layout_section_type type;
	uint32_t row_size, rows, rows_min;
} section_table[LAYOUT_SECTIONS] = {
	{ LAYOUT_SECTION_BUCKETS, sizeof(struct layout_bucket), LAYOUT_BUCKETS, 1 },
	{ LAYOUT_SECTION_BUCKET_NAMES, sizeof(struct layout_bucket_name), LAYOUT_BUCKETS, 1 },
	{ LAYOUT_SECTION_PARTICIPANTS, sizeof(struct layout_participant), LAYOUT_PARTICIPANTS, 1 },
	{ LAYOUT_SECTION_COUNTERS, sizeof(shared_u64), LAYOUT_COUNTERS, COUNTERS },
	{ LAYOUT_SECTION_HOLDS, sizeof(struct layout_hold), LAYOUT_HOLDS, 1 },
	{ LAYOUT_SECTION_TEMPLATES, sizeof(struct layout_template), LAYOUT_TEMPLATES, 1 },
	{ LAYOUT_SECTION_TARGETS, sizeof(struct layout_target), LAYOUT_TARGETS, 1 },
	{ LAYOUT_SECTION_BREAKERS, sizeof(struct layout_breaker), LAYOUT_TARGETS, 1 },
	{ LAYOUT_SECTION_LATENCIES, sizeof(struct layout_latency), LAYOUT_TARGETS, 1 },
	{ LAYOUT_SECTION_ROUTES, sizeof(struct layout_route), LAYOUT_ROUTES, 1 },
	{ LAYOUT_SECTION_ESTIMATES, sizeof(struct layout_estimate), LAYOUT_ESTIMATES, 1 },
	{ LAYOUT_SECTION_EVENTS, sizeof(struct layout_event), LAYOUT_EVENTS, 1 },
};

/* How many rows a table gets in a new region. */
static uint32_t section_rows(size_t i, const struct region_sizes *sizes)
{
	uint32_t wanted = 0;

	if (!sizes)
		return section_table[i].rows;
	switch (section_table[i].type) {
	case LAYOUT_SECTION_BUCKETS:
	case LAYOUT_SECTION_BUCKET_NAMES:
		wanted = sizes->limits;
		break;
	case LAYOUT_SECTION_HOLDS:
		wanted = sizes->holds;
		break;
	case LAYOUT_SECTION_TARGETS:
	case LAYOUT_SECTION_BREAKERS:
	case LAYOUT_SECTION_LATENCIES:
		wanted = sizes->targets;
		break;
	default:
		break;
	}
	return wanted ? wanted : section_table[i].rows;
}

static bool sizes_are_valid(const struct region_sizes *sizes)
{
	return !sizes ||
		(sizes->limits <= REGION_ROWS_MAX && sizes->holds <= REGION_HOLDS_MAX &&
			sizes->targets <= REGION_ROWS_MAX);
}

static_assert(COUNTERS <= LAYOUT_COUNTERS, "raise LAYOUT_COUNTERS and LAYOUT_VERSION");
static_assert(offsetof(struct layout_header, state) % 8 == 0, "read by pread alone");

const char *region_outcome_text(enum region_outcome outcome)
{
	static const char *const text[REGION_OUTCOMES] = {
		[REGION_OK] = "the region is valid",
		[REGION_E_NOT_OURS] = "the file is not a control region",
		[REGION_E_VERSION] = "the region has a format that this build cannot read",
		[REGION_E_LAYOUT] = "the region was laid out by another build of the same version",
		[REGION_E_TRUNCATED] = "the file is shorter than its header says",
		[REGION_E_NOT_READY] = "the region is being created, or its creator died doing so",
		[REGION_E_OTHER_BOOT] = "the region was written before the last reboot",
		[REGION_E_CORRUPT] = "the region's header contradicts itself",
		[REGION_E_EMPTY] = "the file is empty",
	};

	return (size_t)outcome < REGION_OUTCOMES ? text[outcome] : "unknown outcome";
}

static uint64_t mix(uint64_t hash, uint64_t value)
{
	for (int i = 0; i < 8; i++)
		hash = (hash ^ (value >> (8 * i) & 0xff)) * UINT64_C(0x100000001b3);
	return hash;
}

uint64_t region_layout_hash(void)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

#define LAYOUT_STRUCT(struct_, text_) hash = mix(hash, sizeof(struct struct_));
#define LAYOUT_FIELD(struct_, field_, type_, text_) \
	hash = mix(hash, offsetof(struct struct_, field_)); \
	hash = mix(hash, sizeof(((struct struct_ *)0)->field_));
#include "shm/tbl/layout.h"
#undef LAYOUT_STRUCT
#undef LAYOUT_FIELD
	return hash;
}

static uint64_t section_size(size_t i, const struct region_sizes *sizes)
{
	return ALIGN_UP((uint64_t)section_table[i].row_size * section_rows(i, sizes), ALIGNMENT);
}

uint64_t region_total_size(const struct region_sizes *sizes)
{
	uint64_t size = LAYOUT_PAGE;

	for (size_t i = 0; i < LAYOUT_SECTIONS; i++)
		size += section_size(i, sizes);
	return ALIGN_UP(size, LAYOUT_PAGE);
}

/* ---- create ---- */

/* Sets the size and has the file system set the memory aside, so that no store can fail later. */
static int reserve(int fd, uint64_t size)
{
	int r = EINTR;

	if (ftruncate(fd, (off_t)size) < 0)
		return error_origin(-errno);
	for (int i = 0; i < INTERRUPTED_MAX && r == EINTR; i++)
		r = posix_fallocate(fd, 0, (off_t)size);
	if (r == 0)
		return 0;
	/* Give back what was reserved; if that fails too, the half file is refused by its state. */
	if (ftruncate(fd, 0) < 0)
		error_origin(-errno);
	return error_origin(-r);
}

static int map_region(struct region *r, int fd, uint64_t size, bool writable)
{
	void *map =
		mmap(NULL, size, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, 0);

	if (map == MAP_FAILED)
		return error_origin(-errno);
	*r = (struct region){ .map = map,
		.size = size,
		.writable = writable,
		.header = map,
		.clock_ns = clock_boottime_ns };
	return 0;
}

static void point_at(struct region *r, uint64_t type, uint64_t offset, uint32_t rows)
{
	void *at = (char *)r->map + offset;

	switch ((enum layout_section_type)type) {
	case LAYOUT_SECTION_BUCKETS:
		r->bucket = at;
		r->buckets = rows;
		break;
	case LAYOUT_SECTION_BUCKET_NAMES:
		r->bucket_name = at;
		break;
	case LAYOUT_SECTION_PARTICIPANTS:
		r->participant = at;
		r->participants = rows;
		break;
	case LAYOUT_SECTION_COUNTERS:
		r->counter = at;
		r->counters = rows;
		break;
	case LAYOUT_SECTION_HOLDS:
		r->hold = at;
		r->holds = rows;
		break;
	case LAYOUT_SECTION_TEMPLATES:
		r->template = at;
		r->templates = rows;
		break;
	case LAYOUT_SECTION_TARGETS:
		r->target = at;
		r->targets = rows;
		break;
	case LAYOUT_SECTION_BREAKERS:
		r->breaker = at;
		break;
	case LAYOUT_SECTION_LATENCIES:
		r->latency = at;
		break;
	case LAYOUT_SECTION_ROUTES:
		r->route = at;
		r->routes = rows;
		break;
	case LAYOUT_SECTION_ESTIMATES:
		r->estimate = at;
		r->estimates = rows;
		break;
	case LAYOUT_SECTION_EVENTS:
		r->event = at;
		r->events = rows;
		break;
	}
}

static void lay_out(struct region *r, const struct region_sizes *sizes)
{
	struct layout_header *h = r->header;
	uint64_t offset = LAYOUT_PAGE;

	for (size_t i = 0; i < LAYOUT_SECTIONS; i++) {
		h->section[i] = (struct layout_section){
			.type = section_table[i].type,
			.offset = offset,
			.row_size = section_table[i].row_size,
			.rows = section_rows(i, sizes),
		};
		point_at(r, section_table[i].type, offset, section_rows(i, sizes));
		offset += section_size(i, sizes);
	}
	h->section_count = LAYOUT_SECTIONS;
}

/* The owner's words. Between two of them a reader sees a mixture that names no living process. */
static void own(struct region *r, const struct region_owner *owner, uint64_t now_ns)
{
	struct layout_header *h = r->header;

	atomic_store_explicit(&h->heartbeat_ns, now_ns, memory_order_relaxed);
	atomic_store_explicit(&h->adopted_ns, now_ns, memory_order_relaxed);
	atomic_store_explicit(&h->daemon_pid, owner->pid, memory_order_relaxed);
	atomic_store_explicit(&h->daemon_start, owner->start, memory_order_relaxed);
	atomic_fetch_add_explicit(&h->generation, 1, memory_order_relaxed);
	atomic_store_explicit(&h->state, LAYOUT_STATE_READY, memory_order_release);
}

int region_create(struct region *r, int fd, const struct region_owner *owner,
	const struct region_sizes *sizes, uint64_t now_ns, bool conservative)
{
	struct region made = REGION_NULL;
	struct layout_header *h;
	struct stat file;
	int e;

	if (!sizes_are_valid(sizes))
		return error_origin(-ERANGE);
	if (fstat(fd, &file) < 0)
		return error_origin(-errno);
	if (file.st_size != 0)
		return error_origin(-EEXIST);
	e = reserve(fd, region_total_size(sizes));
	if (e < 0)
		return error_trace(e);
	e = map_region(&made, fd, region_total_size(sizes), true);
	if (e < 0)
		return error_trace(e);
	h = made.header;
	h->magic = LAYOUT_MAGIC;
	h->version = LAYOUT_VERSION;
	h->compatible = LAYOUT_COMPATIBLE;
	h->header_size = sizeof(*h);
	h->total_size = made.size;
	h->layout_hash = region_layout_hash();
	memcpy(h->boot_id, owner->boot_id, sizeof(h->boot_id));
	h->created_ns = now_ns;
	lay_out(&made, sizes);
	atomic_store_explicit(
		&h->empty_since_ns, conservative ? max_u64(now_ns, 1) : 0, memory_order_relaxed);
	own(&made, owner, now_ns);
	*r = made;
	return 0;
}

/* ---- verify, attach ---- */

static bool sections_overlap(const struct layout_section *a, const struct layout_section *b)
{
	return a->offset < b->offset + b->row_size * b->rows &&
		b->offset < a->offset + a->row_size * a->rows;
}

/* In the file, aligned, not in the header. All products stay far below 2^64. */
static bool section_is_placed(const struct layout_header *h, const struct layout_section *s)
{
	return s->rows > 0 && s->rows <= REGION_ROWS_MAX && s->row_size > 0 &&
		s->row_size <= LAYOUT_PAGE && s->offset >= LAYOUT_PAGE &&
		s->offset % ALIGNMENT == 0 && s->offset <= h->total_size &&
		s->row_size * s->rows <= h->total_size - s->offset;
}

/* The entry of a type this build knows; NULL when there is none, or it has other rows. */
static const struct layout_section *section_find(const struct layout_header *h, size_t known)
{
	const struct layout_section *found = NULL;

	for (size_t i = 0; i < h->section_count; i++) {
		const struct layout_section *s = &h->section[i];

		if (s->type != section_table[known].type)
			continue;
		if (found || s->row_size != section_table[known].row_size ||
			s->rows < section_table[known].rows_min)
			return NULL;
		found = s;
	}
	return found;
}

/* Tables whose rows belong together; section_table has them in the order of their types. */
static bool section_rows_agree(const struct layout_section *const known[LAYOUT_SECTIONS])
{
	uint64_t targets = known[LAYOUT_SECTION_TARGETS - 1]->rows;

	return known[LAYOUT_SECTION_BUCKETS - 1]->rows ==
		known[LAYOUT_SECTION_BUCKET_NAMES - 1]->rows &&
		known[LAYOUT_SECTION_BREAKERS - 1]->rows == targets &&
		known[LAYOUT_SECTION_LATENCIES - 1]->rows == targets &&
		known[LAYOUT_SECTION_HOLDS - 1]->rows <= REGION_HOLDS_MAX;
}

static int verify_sections(const struct layout_header *h)
{
	const struct layout_section *known[LAYOUT_SECTIONS];

	if (h->section_count < LAYOUT_SECTIONS || h->section_count > ARRAY_SIZE(h->section))
		return REGION_E_CORRUPT;
	/* A newer format may have tables we do not know; our own may not. */
	if (h->version == LAYOUT_VERSION && h->section_count != LAYOUT_SECTIONS)
		return REGION_E_CORRUPT;
	for (size_t i = 0; i < h->section_count; i++) {
		if (!section_is_placed(h, &h->section[i]))
			return REGION_E_CORRUPT;
		for (size_t j = 0; j < i; j++)
			if (sections_overlap(&h->section[i], &h->section[j]))
				return REGION_E_CORRUPT;
	}
	for (size_t i = 0; i < LAYOUT_SECTIONS; i++) {
		known[i] = section_find(h, i);
		if (!known[i])
			return REGION_E_CORRUPT;
	}
	return section_rows_agree(known) ? REGION_OK : REGION_E_CORRUPT;
}

/* state was read before the rest, so READY means that the rest is complete. */
static int verify(const struct layout_header *h, uint64_t state, uint64_t file_size,
	const uint64_t boot_id[2])
{
	if (h->magic != LAYOUT_MAGIC)
		return h->magic == 0 && state == LAYOUT_STATE_NEW ? REGION_E_NOT_READY :
								    REGION_E_NOT_OURS;
	if (state == LAYOUT_STATE_NEW)
		return REGION_E_NOT_READY;
	if (h->version < LAYOUT_COMPATIBLE || h->compatible > LAYOUT_VERSION || h->features != 0)
		return REGION_E_VERSION;
	if (h->version == LAYOUT_VERSION &&
		(h->header_size != sizeof(*h) || h->layout_hash != region_layout_hash()))
		return REGION_E_LAYOUT;
	if (h->total_size > TOTAL_MAX || h->total_size < LAYOUT_PAGE || state > LAYOUT_STATE_CLOSED)
		return REGION_E_CORRUPT;
	if (h->total_size > file_size)
		return REGION_E_TRUNCATED;
	if (boot_id && memcmp(h->boot_id, boot_id, sizeof(h->boot_id)) != 0)
		return REGION_E_OTHER_BOOT;
	return verify_sections(h);
}

/* A private copy of the header, by read and not by mapping, so that a file that is too short
 * cannot raise SIGBUS. The state comes first: what it promises was stored before it. */
static int read_header(int fd, struct layout_header *h, uint64_t *state, uint64_t *file_size)
{
	struct stat file;
	ssize_t n;

	if (fstat(fd, &file) < 0)
		return error_origin(-errno);
	*file_size = (uint64_t)file.st_size;
	if (file.st_size == 0)
		return REGION_E_EMPTY;
	n = pread(fd, state, sizeof(*state), offsetof(struct layout_header, state));
	if (n < 0)
		return error_origin(-errno);
	if (n < (ssize_t)sizeof(*state))
		*state = LAYOUT_STATE_NEW;
	n = pread(fd, h, sizeof(*h), 0);
	if (n < 0)
		return error_origin(-errno);
	if (n == (ssize_t)sizeof(*h))
		return 0;
	return n >= (ssize_t)sizeof(h->magic) && h->magic == LAYOUT_MAGIC ? REGION_E_TRUNCATED :
									    REGION_E_NOT_OURS;
}

int region_attach(struct region *r, int fd, bool writable, const uint64_t boot_id[2])
{
	struct region made = REGION_NULL;
	struct layout_header h;
	uint64_t state = 0, file_size = 0;
	int e;

	e = read_header(fd, &h, &state, &file_size);
	if (e != 0)
		return error_trace(e);
	e = verify(&h, state, file_size, boot_id);
	if (e != REGION_OK)
		return e;
	e = map_region(&made, fd, h.total_size, writable);
	if (e < 0)
		return error_trace(e);
	for (size_t i = 0; i < h.section_count; i++)
		point_at(
			&made, h.section[i].type, h.section[i].offset, (uint32_t)h.section[i].rows);
	*r = made;
	return 0;
}

int region_adopt(struct region *r, int fd, const struct region_owner *owner, uint64_t now_ns)
{
	struct region made = REGION_NULL;
	int e;

	e = region_attach(&made, fd, true, owner->boot_id);
	if (e != 0)
		return error_trace(e);
	/* Older and newer formats can be read, but only our own is kept up. */
	if (made.header->version != LAYOUT_VERSION) {
		region_detach(&made);
		return REGION_E_VERSION;
	}
	bucket_adopt(&made, now_ns);
	target_adopt(&made, now_ns);
	breaker_adopt(&made, now_ns);
	own(&made, owner, now_ns);
	*r = made;
	return 0;
}

void region_detach(struct region *r)
{
	if (r->map)
		munmap(r->map, r->size);
	*r = REGION_NULL;
}

/* ---- owner ---- */

void region_close(struct region *r)
{
	atomic_store_explicit(&r->header->state, LAYOUT_STATE_CLOSED, memory_order_release);
}

void region_heartbeat(struct region *r, uint64_t now_ns)
{
	atomic_store_explicit(&r->header->heartbeat_ns, now_ns, memory_order_relaxed);
}

void region_status(const struct region *r, struct region_status *out)
{
	struct layout_header *h = r->header;

	*out = (struct region_status){
		.closed = atomic_load_explicit(&h->state, memory_order_acquire) ==
			LAYOUT_STATE_CLOSED,
		.generation = atomic_load_explicit(&h->generation, memory_order_relaxed),
		.daemon_pid = atomic_load_explicit(&h->daemon_pid, memory_order_relaxed),
		.daemon_start = atomic_load_explicit(&h->daemon_start, memory_order_relaxed),
		.heartbeat_ns = atomic_load_explicit(&h->heartbeat_ns, memory_order_relaxed),
		.created_ns = h->created_ns,
		.adopted_ns = atomic_load_explicit(&h->adopted_ns, memory_order_relaxed),
	};
}

uint64_t region_empty_since(const struct region *r)
{
	return atomic_load_explicit(&r->header->empty_since_ns, memory_order_relaxed);
}
