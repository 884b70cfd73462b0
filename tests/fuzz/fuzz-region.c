/*
 * A control region whose bytes somebody else wrote. The input is a list of edits, 12 bytes each
 * (where, what), on a valid region with a few limits; the first byte may also cut the file.
 * Attach and adopt may refuse; what they accept must be usable by every function without a fault.
 */

#include "tests/fuzz/fuzz.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "shm/bucket.h"
#include "shm/counters.h"
#include "shm/layout.h"
#include "shm/participant.h"
#include "shm/timebase.h"

#define NOW (UINT64_C(1000) * 1000000000)
#define EDIT_SIZE 12

static const struct region_owner owner = { .pid = 1, .start = 2, .boot_id = { 3, 4 } };
static const char *const names[] = { "alice", "bob", "gpt-5", "anthropic" };

static uint64_t virtual_clock(void)
{
	return NOW;
}

static void configure(struct region *r, struct bucket_set *set)
{
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		enum bucket_scope scope = (enum bucket_scope)(BUCKET_SCOPE_USER + i % 3);
		struct bucket_limit limit = { scope, str_of(names[i]), 10 + i, NSEC_PER_SEC, 5 };

		bucket_configure(r, &limit, NOW);
		bucket_set_add(set, r, scope, limit.name);
	}
}

/* Half of the edits go where they hurt: the header, and the rows in use. */
static size_t place(const struct region *good, const struct bucket_set *set, uint32_t where)
{
	uint32_t row = set->index[where >> 4 & 3];
	const char *base = good->map;

	switch (where & 7) {
	case 0:
	case 1:
		return (where >> 4) % sizeof(struct layout_header);
	case 2:
	case 3:
		return (size_t)((const char *)&good->bucket[row] - base) + (where >> 8) % 64;
	case 4:
		return (size_t)((const char *)&good->bucket_name[row] - base) +
			(where >> 8) % sizeof(struct layout_bucket_name);
	default:
		return (where >> 4) % good->size;
	}
}

static void edit(struct region *r, const struct bucket_set *set, const uint8_t *data, size_t size)
{
	for (; size >= EDIT_SIZE; data += EDIT_SIZE, size -= EDIT_SIZE) {
		uint32_t where;
		size_t at;

		memcpy(&where, data, sizeof(where));
		at = place(r, set, where) & ~(size_t)7;
		memcpy((char *)r->map + at, data + sizeof(where), 8);
	}
}

static bool nobody_lives(uint64_t pid, uint64_t start)
{
	return (pid ^ start) & 1;
}

static void look(const struct region *r, const struct bucket_set *set)
{
	struct participant_view participant;
	struct region_status status;
	struct bucket_view view;
	uint64_t ns;

	region_status(r, &status);
	timebase_convert(r, NOW, &ns);
	for (uint32_t i = 0; i < set->count; i++)
		bucket_view(r, set->index[i], NOW, &view);
	participant_view(r, r->participants - 1, &participant);
	for (int i = 0; i < COUNTERS; i++)
		(void)counter_read(r, (enum counter)i);
	bucket_peek(r, set, 2, NOW);
}

static void use(struct region *r, const struct bucket_set *set)
{
	struct bucket_set fresh = { 0 };

	for (uint64_t i = 0; i < 8; i++) {
		struct bucket_verdict v = bucket_acquire(r, set, 1 + i, NOW + i);

		FUZZ_CHECK(v.outcome <= BUCKET_E_GONE);
		bucket_give_back(r, set, 1 + i, NOW + i, NOW + 2 * i);
	}
	r->clock_ns = virtual_clock;
	participant_adopt(r, nobody_lives);
	participant_claim(r, 5, 6, 7, NOW);
	configure(r, &fresh);
	look(r, &fresh);
	/* What the daemon configured anew holds again. */
	FUZZ_CHECK(fresh.count == ARRAY_SIZE(names));
	for (int i = 0; i < 5; i++)
		bucket_acquire(r, &fresh, 1, NOW);
	FUZZ_CHECK(bucket_acquire(r, &fresh, 1, NOW).outcome != BUCKET_OK);
}

/* One valid region and a copy of its bytes, made once: making it costs more than a run. */
struct original {
	int fd;
	struct region r;
	struct bucket_set set;
	char *bytes;
};

static struct original *original(void)
{
	static struct original o;

	if (o.bytes)
		return &o;
	o.fd = memfd_create("fuzz", MFD_CLOEXEC);
	o.bytes = malloc(region_total_size());
	FUZZ_CHECK(o.bytes && region_create(&o.r, o.fd, &owner, NOW, false) == 0);
	o.r.clock_ns = virtual_clock;
	configure(&o.r, &o.set);
	memcpy(o.bytes, o.r.map, o.r.size);
	return &o;
}

static void restore(struct original *o)
{
	FUZZ_CHECK(ftruncate(o->fd, (off_t)o->r.size) == 0);
	for (size_t at = 0; at < o->r.size; at += LAYOUT_PAGE)
		if (memcmp((char *)o->r.map + at, o->bytes + at, LAYOUT_PAGE) != 0)
			memcpy((char *)o->r.map + at, o->bytes + at, LAYOUT_PAGE);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct original *o = original();
	struct region r = REGION_NULL;

	if (size == 0)
		return 0;
	edit(&o->r, &o->set, data + 1, size - 1);
	if ((data[0] & 7) == 1)
		FUZZ_CHECK(ftruncate(o->fd, data[0] * LAYOUT_PAGE) == 0);
	if (region_attach(&r, o->fd, false, NULL) == 0)
		look(&r, &o->set);
	region_detach(&r);
	if (region_adopt(&r, o->fd, &owner, NOW) == 0)
		use(&r, &o->set);
	region_detach(&r);
	restore(o);
	return 0;
}

/* Zeros in each word of a bucket in use, and in each of the header. */
bool fuzz_example(unsigned n, struct buffer *out)
{
	uint32_t where = n < 8 ? n * 8 << 8 | 2 : (n - 8) * 8 << 4;
	uint8_t input[1 + EDIT_SIZE] = { 0 };

	memcpy(input + 1, &where, sizeof(where));
	return n < 8 + sizeof(struct layout_header) / 8 &&
		buffer_append(out, input, sizeof(input)) == 0;
}
