#include "shm/region.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include "shm/counters.h"
#include "shm/layout.h"
#include "shm/timebase.h"
#include "tests/unit/shm-fixture.h"
#include "tests/unit/splitmix.h"

static const uint64_t boot[2] = { 1, 2 };
static const uint64_t other_boot[2] = { 3, 2 };

static int attach(const struct fixture *f)
{
	struct region r = REGION_NULL;
	int e = region_attach(&r, f->fd, true, boot);

	region_detach(&r);
	return e;
}

static int adopt_at(const struct fixture *f, uint64_t now_ns)
{
	struct region r = REGION_NULL;
	int e = region_adopt(&r, f->fd, &fixture_owner, now_ns);

	region_detach(&r);
	return e;
}

/* One word of the header set, tried, and put back. */
static int attach_with(struct fixture *f, size_t offset, uint64_t value)
{
	uint64_t *word = (uint64_t *)(void *)((char *)f->r.map + offset), before = *word;
	int e;

	*word = value;
	e = attach(f);
	assert_true(adopt_at(f, FIXTURE_NOW) == e || e == 0);
	*word = before;
	return e;
}

#define HEADER(field_) offsetof(struct layout_header, field_)
#define SECTION(i_, field_) \
	(HEADER(section) + (i_) * sizeof(struct layout_section) + \
		offsetof(struct layout_section, field_))

static void table_covers_every_byte(void **state)
{
	size_t end = 0;

	(void)state;
#define LAYOUT_STRUCT(struct_, text_) end = 0;
#define LAYOUT_FIELD(struct_, field_, type_, text_) \
	assert_int_equal(offsetof(struct struct_, field_), end); \
	end += sizeof(((struct struct_ *)0)->field_); \
	assert_true(end <= sizeof(struct struct_));
#include "shm/tbl/layout.h"
#undef LAYOUT_STRUCT
#undef LAYOUT_FIELD
	/* And to the last byte: a field added to the struct alone would leave a rest. */
#define ENDS_WITH(struct_, field_) \
	assert_int_equal(sizeof(struct struct_), \
		offsetof(struct struct_, field_) + sizeof(((struct struct_ *)0)->field_))
	ENDS_WITH(layout_header, timebase);
	ENDS_WITH(layout_bucket, pause_ns);
	ENDS_WITH(layout_bucket_name, name);
	ENDS_WITH(layout_template, pad);
	ENDS_WITH(layout_hold, entry);
	ENDS_WITH(layout_target, label);
	ENDS_WITH(layout_breaker, pad);
	ENDS_WITH(layout_latency, pad);
	ENDS_WITH(layout_route, pad_name);
	ENDS_WITH(layout_estimate, pad);
	ENDS_WITH(layout_event, pad);
	ENDS_WITH(layout_participant, pad);
}

static void offsets_are_those_of_version_2(void **state)
{
	(void)state;
	assert_int_equal(LAYOUT_VERSION, 2);
	assert_int_equal(HEADER(version), 8);
	assert_int_equal(HEADER(total_size), 32);
	assert_int_equal(HEADER(boot_id), 56);
	assert_int_equal(HEADER(section), 128);
	assert_int_equal(HEADER(state), 640);
	assert_int_equal(HEADER(heartbeat_ns), 672);
	assert_int_equal(HEADER(empty_since_ns), 688);
	assert_int_equal(HEADER(timebase), 896);
	assert_int_equal(offsetof(struct layout_bucket, key), 48);
	assert_int_equal(region_total_size(NULL) % LAYOUT_PAGE, 0);
	/* Rows of 64 bytes: no two buckets share a cache line. */
	assert_int_equal(sizeof(struct layout_bucket), 64);
	assert_int_equal(sizeof(struct layout_hold) % 64, 0);
	assert_int_equal(sizeof(struct layout_target) % 64, 0);
	assert_true(sizeof(struct layout_breaker) <= 256);
}

static void tables_have_the_rows_asked_for(void **state)
{
	const struct region_sizes sizes = { .limits = 100000, .holds = 64, .targets = 7 };
	const struct region_sizes too_many[] = {
		{ .limits = REGION_ROWS_MAX + 1 },
		{ .holds = REGION_HOLDS_MAX + 1 },
		{ .targets = REGION_ROWS_MAX + 1 },
	};
	struct fixture f = fixture_open_sized(&sizes, false);
	struct region r = REGION_NULL;

	(void)state;
	assert_int_equal(region_attach(&r, f.fd, false, boot), 0);
	assert_int_equal(r.buckets, 100000);
	assert_int_equal(r.holds, 64);
	assert_int_equal(r.targets, 7);
	assert_int_equal(r.routes, LAYOUT_ROUTES);
	assert_int_equal((uintptr_t)r.breaker % 64, 0);
	assert_true(region_total_size(&sizes) > region_total_size(NULL));
	region_detach(&r);
	fixture_close(&f);
	for (size_t i = 0; i < ARRAY_SIZE(too_many); i++) {
		int fd = memfd_create("region", MFD_CLOEXEC);

		assert_int_equal(
			region_create(&r, fd, &fixture_owner, &too_many[i], FIXTURE_NOW, false),
			-ERANGE);
		close(fd);
	}
}

static void created_region_attaches(void **state)
{
	struct fixture f = fixture_open(false);
	struct region r = REGION_NULL;
	struct region_status status;
	struct stat file;

	(void)state;
	assert_int_equal(region_attach(&r, f.fd, false, boot), 0);
	assert_int_equal(r.buckets, LAYOUT_BUCKETS);
	assert_int_equal(r.participants, LAYOUT_PARTICIPANTS);
	assert_int_equal(r.counters, LAYOUT_COUNTERS);
	assert_false(r.writable);
	assert_int_equal((uintptr_t)r.bucket % 64, 0);
	region_status(&r, &status);
	assert_int_equal(status.generation, 1);
	assert_int_equal(status.daemon_pid, fixture_owner.pid);
	assert_int_equal(status.daemon_start, fixture_owner.start);
	assert_int_equal(status.created_ns, FIXTURE_NOW);
	assert_int_equal(status.heartbeat_ns, FIXTURE_NOW);
	assert_false(status.closed);
	assert_int_equal(region_empty_since(&r), 0);
	/* All memory was set aside: no store can raise SIGBUS later. */
	assert_int_equal(fstat(f.fd, &file), 0);
	assert_true((uint64_t)file.st_blocks * 512 >= region_total_size(NULL));
	region_detach(&r);
	region_detach(&r);
	fixture_close(&f);
}

static void create_wants_an_empty_file(void **state)
{
	struct fixture f = fixture_open(false);
	struct region r = REGION_NULL;

	(void)state;
	assert_int_equal(
		region_create(&r, f.fd, &fixture_owner, NULL, FIXTURE_NOW, false), -EEXIST);
	assert_null(r.map);
	assert_int_equal(attach(&f), 0);
	fixture_close(&f);
}

/* A file that can not grow: sealed memfd gives EPERM where a full tmpfs gives ENOSPC. */
static void create_without_room_is_an_error(void **state)
{
	int fd = memfd_create("full", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	struct region r = REGION_NULL;
	struct stat file;

	(void)state;
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW), 0);
	assert_int_equal(region_create(&r, fd, &fixture_owner, NULL, FIXTURE_NOW, false), -EPERM);
	assert_null(r.map);
	assert_int_equal(fstat(fd, &file), 0);
	assert_int_equal(file.st_size, 0);
	close(fd);
	assert_int_equal(region_create(&r, -1, &fixture_owner, NULL, FIXTURE_NOW, false), -EBADF);
	assert_int_equal(region_attach(&r, -1, false, boot), -EBADF);
}

static void each_failure_has_its_outcome(void **state)
{
	struct fixture f = fixture_open(false);

	(void)state;
	assert_int_equal(attach_with(&f, HEADER(magic), 0x1234), REGION_E_NOT_OURS);
	assert_int_equal(attach_with(&f, HEADER(magic), 0), REGION_E_NOT_OURS);
	assert_int_equal(attach_with(&f, HEADER(version), 0), REGION_E_VERSION);
	assert_int_equal(attach_with(&f, HEADER(compatible), LAYOUT_VERSION + 1), REGION_E_VERSION);
	assert_int_equal(attach_with(&f, HEADER(features), 1), REGION_E_VERSION);
	assert_int_equal(attach_with(&f, HEADER(layout_hash), 7), REGION_E_LAYOUT);
	assert_int_equal(attach_with(&f, HEADER(header_size), 8), REGION_E_LAYOUT);
	assert_int_equal(attach_with(&f, HEADER(total_size), f.r.size + 1), REGION_E_TRUNCATED);
	assert_int_equal(attach_with(&f, HEADER(total_size), UINT64_MAX), REGION_E_CORRUPT);
	assert_int_equal(attach_with(&f, HEADER(total_size), 0), REGION_E_CORRUPT);
	assert_int_equal(attach_with(&f, HEADER(state), LAYOUT_STATE_NEW), REGION_E_NOT_READY);
	assert_int_equal(attach_with(&f, HEADER(state), 99), REGION_E_CORRUPT);
	assert_int_equal(attach_with(&f, HEADER(boot_id), 99), REGION_E_OTHER_BOOT);
	assert_int_equal(attach(&f), 0);
	fixture_close(&f);
}

static void sections_are_verified(void **state)
{
	struct fixture f = fixture_open(false);
	uint64_t names = f.r.header->section[1].offset;

	(void)state;
	for (size_t i = 0; i < LAYOUT_SECTIONS; i++) {
		assert_int_equal(attach_with(&f, SECTION(i, type), 77), REGION_E_CORRUPT);
		assert_int_equal(attach_with(&f, SECTION(i, offset), 0), REGION_E_CORRUPT);
		assert_int_equal(
			attach_with(&f, SECTION(i, offset), LAYOUT_PAGE + 8), REGION_E_CORRUPT);
		assert_int_equal(attach_with(&f, SECTION(i, offset), f.r.size), REGION_E_CORRUPT);
		assert_int_equal(
			attach_with(&f, SECTION(i, offset), UINT64_MAX - 63), REGION_E_CORRUPT);
		assert_int_equal(attach_with(&f, SECTION(i, row_size), 72), REGION_E_CORRUPT);
		assert_int_equal(attach_with(&f, SECTION(i, row_size), 0), REGION_E_CORRUPT);
		assert_int_equal(
			attach_with(&f, SECTION(i, row_size), UINT64_MAX / 2), REGION_E_CORRUPT);
		assert_int_equal(attach_with(&f, SECTION(i, rows), 0), REGION_E_CORRUPT);
		assert_int_equal(attach_with(&f, SECTION(i, rows), UINT64_MAX), REGION_E_CORRUPT);
		assert_int_equal(attach_with(&f, SECTION(i, rows), 65537), REGION_E_CORRUPT);
	}
	/* Overlap: the participants inside the names. */
	assert_int_equal(attach_with(&f, SECTION(2, offset), names + 64), REGION_E_CORRUPT);
	/* Two tables of one type. */
	assert_int_equal(
		attach_with(&f, SECTION(2, type), LAYOUT_SECTION_COUNTERS), REGION_E_CORRUPT);
	/* Fewer names than buckets; fewer counters than this build counts. */
	assert_int_equal(attach_with(&f, SECTION(1, rows), LAYOUT_BUCKETS - 1), REGION_E_CORRUPT);
	assert_int_equal(attach_with(&f, SECTION(3, rows), COUNTERS - 1), REGION_E_CORRUPT);
	assert_int_equal(attach_with(&f, SECTION(4, rows), REGION_HOLDS_MAX + 1), REGION_E_CORRUPT);
	/* Fewer breakers, fewer latencies than targets. */
	assert_int_equal(attach_with(&f, SECTION(7, rows), LAYOUT_TARGETS - 1), REGION_E_CORRUPT);
	assert_int_equal(attach_with(&f, SECTION(8, rows), LAYOUT_TARGETS - 1), REGION_E_CORRUPT);
	assert_int_equal(
		attach_with(&f, HEADER(section_count), LAYOUT_SECTIONS - 1), REGION_E_CORRUPT);
	assert_int_equal(attach_with(&f, HEADER(section_count), 17), REGION_E_CORRUPT);
	assert_int_equal(attach_with(&f, HEADER(section_count), UINT64_MAX), REGION_E_CORRUPT);
	assert_int_equal(attach(&f), 0);
	fixture_close(&f);
}

static void newer_compatible_region_is_read_but_not_adopted(void **state)
{
	struct fixture f = fixture_open(false);

	(void)state;
	f.r.header->version = LAYOUT_VERSION + 1;
	f.r.header->layout_hash ^= 1;
	f.r.header->section[LAYOUT_SECTIONS] = (struct layout_section){
		.type = LAYOUT_SECTIONS + 5, .offset = LAYOUT_PAGE, .row_size = 64, .rows = 1
	};
	f.r.header->section_count = LAYOUT_SECTIONS + 1;
	/* Overlaps are refused among tables we do not know, too. */
	assert_int_equal(attach(&f), REGION_E_CORRUPT);
	f.r.header->section_count = LAYOUT_SECTIONS;
	assert_int_equal(attach(&f), 0);
	assert_int_equal(adopt_at(&f, FIXTURE_NOW), REGION_E_VERSION);
	fixture_close(&f);
}

static void short_files_never_fault(void **state)
{
	static const off_t lengths[] = { 0, 1, 7, 8, 384, 391, 392, 511, 512, 4095, 4096, 100000 };
	struct fixture f;

	(void)state;
	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		f = fixture_open(false);
		assert_int_equal(ftruncate(f.fd, lengths[i]), 0);
		assert_int_equal(attach(&f),
			lengths[i] == 0         ? REGION_E_EMPTY :
				lengths[i] >= 8 ? REGION_E_TRUNCATED :
						  REGION_E_NOT_OURS);
		assert_int_equal(adopt_at(&f, FIXTURE_NOW), attach(&f));
		fixture_close(&f);
	}
}

/* What was never a region is not called a broken one. */
static void short_files_of_others_are_not_ours(void **state)
{
	static const char text[4096] = "root:x:0:0:root:/root:/bin/sh";
	static const size_t lengths[] = { 1, 7, 8, 29, 384, 391, 392, 511, 512, 4096 };
	struct region r = REGION_NULL;

	(void)state;
	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		int fd = memfd_create("short", MFD_CLOEXEC);

		assert_int_equal(write(fd, text, lengths[i]), lengths[i]);
		assert_int_equal(region_attach(&r, fd, false, boot), REGION_E_NOT_OURS);
		assert_null(r.map);
		close(fd);
	}
}

static void other_boots_attach_only_on_request(void **state)
{
	struct fixture f = fixture_open(false);
	struct region r = REGION_NULL;

	(void)state;
	assert_int_equal(region_attach(&r, f.fd, false, other_boot), REGION_E_OTHER_BOOT);
	assert_int_equal(region_attach(&r, f.fd, false, NULL), 0);
	region_detach(&r);
	fixture_close(&f);
}

/* All values of one byte that matter for a number, in every byte of the header: whatever attach
 * says, what it maps can be read from end to end. */
static void mutated_headers_never_crash(void **state)
{
	static const unsigned char flips[] = { 0x01, 0x80, 0xff, 0x7f, 0x10 };
	struct fixture f = fixture_open(false);
	struct region r;
	unsigned attached = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(struct layout_header); i++) {
		for (size_t j = 0; j < sizeof(flips); j++) {
			((unsigned char *)f.r.map)[i] ^= flips[j];
			r = REGION_NULL;
			if (region_attach(&r, f.fd, false, boot) == 0) {
				struct bucket_view view;
				uint64_t ns;

				attached++;
				bucket_view(&r, r.buckets - 1, FIXTURE_NOW, &view);
				timebase_convert(&r, 1, &ns);
				assert_true(counter_read(&r, COUNTERS - 1) == 0);
				assert_true(
					r.bucket_name[r.buckets - 1].name[LAYOUT_NAME_MAX - 1] ==
					0);
				assert_true(r.participant[r.participants - 1].pid == 0);
			}
			region_detach(&r);
			((unsigned char *)f.r.map)[i] ^= flips[j];
		}
	}
	/* Bytes that say nothing about the form: padding, times, the owner. */
	assert_true(attached > 0);
	assert_int_equal(attach(&f), 0);
	fixture_close(&f);
}

static uint64_t debt_of(const struct region *r, const struct bucket_set *set, uint64_t now_ns)
{
	struct bucket_view view;

	assert_true(bucket_view(r, set->index[0], now_ns, &view));
	return view.tat > now_ns ? view.tat - now_ns : 0;
}

static void adoption_keeps_budgets(void **state)
{
	struct fixture f = fixture_open(false);
	struct region_owner next = { .pid = 5000, .start = 100, .boot_id = { 1, 2 } };
	struct region_status status;
	struct bucket_set set;
	struct region r = REGION_NULL;

	(void)state;
	fixture_limit(&f, BUCKET_SCOPE_USER, "alice", 10, 5);
	set = fixture_set(&f, "alice");
	for (int i = 0; i < 5; i++)
		assert_int_equal(bucket_acquire(&f.r, &set, 1, FIXTURE_NOW).outcome, BUCKET_OK);
	counter_add(&f.r, COUNTER_requests_started, 5);
	region_close(&f.r);
	region_status(&f.r, &status);
	assert_true(status.closed);

	assert_int_equal(region_adopt(&r, f.fd, &next, FIXTURE_NOW + 1), 0);
	region_status(&r, &status);
	assert_int_equal(status.generation, 2);
	assert_int_equal(status.daemon_pid, 5000);
	assert_int_equal(status.daemon_start, 100);
	assert_int_equal(status.created_ns, FIXTURE_NOW);
	assert_int_equal(status.adopted_ns, FIXTURE_NOW + 1);
	assert_int_equal(status.heartbeat_ns, FIXTURE_NOW + 1);
	assert_false(status.closed);
	assert_int_equal(counter_read(&r, COUNTER_requests_started), 5);
	assert_int_equal(debt_of(&r, &set, FIXTURE_NOW), FIXTURE_SECOND / 2);
	assert_int_equal(bucket_acquire(&r, &set, 1, FIXTURE_NOW + 1).outcome, BUCKET_E_WAIT);
	region_heartbeat(&r, FIXTURE_NOW + 2);
	region_status(&f.r, &status); /* who kept the old mapping sees the new owner */
	assert_int_equal(status.heartbeat_ns, FIXTURE_NOW + 2);
	region_detach(&r);
	fixture_close(&f);
}

static void adoption_clamps_insane_debt(void **state)
{
	struct fixture f = fixture_open(false);
	struct bucket_set set;

	(void)state;
	fixture_limit(&f, BUCKET_SCOPE_USER, "alice", 10, 5);
	set = fixture_set(&f, "alice");
	atomic_store(&f.r.bucket[set.index[0]].tat, UINT64_MAX);
	assert_int_equal(adopt_at(&f, FIXTURE_NOW), 0);
	assert_int_equal(debt_of(&f.r, &set, FIXTURE_NOW), FIXTURE_SECOND / 2);
	assert_int_equal(region_empty_since(&f.r), 0);
	fixture_close(&f);
}

enum { ROW_INTERVAL, ROW_TOLERANCE, ROW_BASIS, ROW_MOST, ROW_KEY, ROW_SCOPE, ROW_NAME, ROW_FAULTS };

static void break_row(struct region *r, uint32_t row, int fault)
{
	struct layout_bucket *b = &r->bucket[row];

	if (fault == ROW_INTERVAL)
		atomic_store(&b->interval, 0);
	else if (fault == ROW_TOLERANCE)
		atomic_store(&b->tolerance, UINT64_MAX);
	else if (fault == ROW_BASIS)
		atomic_store(&r->bucket_name[row].basis, 1);
	else if (fault == ROW_MOST)
		r->bucket_name[row].most = 0;
	else if (fault == ROW_KEY)
		atomic_fetch_xor(&b->key, 4);
	else if (fault == ROW_SCOPE)
		r->bucket_name[row].scope = 0;
	else
		memset(r->bucket_name[row].name, 'x', LAYOUT_NAME_MAX);
}

/* What a broken row had admitted is unknown: the limit comes back with an empty burst. */
static void adoption_retires_insane_rows(void **state)
{
	(void)state;
	for (int fault = 0; fault < ROW_FAULTS; fault++) {
		struct fixture f = fixture_open(false);
		struct bucket_set set, good;

		fixture_limit(&f, BUCKET_SCOPE_USER, "alice", 10, 5);
		fixture_limit(&f, BUCKET_SCOPE_USER, "bob", 10, 5);
		set = fixture_set(&f, "alice");
		good = fixture_set(&f, "bob");
		break_row(&f.r, set.index[0], fault);
		assert_int_equal(adopt_at(&f, FIXTURE_NOW), 0);
		assert_int_equal(bucket_acquire(&f.r, &set, 1, FIXTURE_NOW).outcome, BUCKET_E_GONE);
		assert_int_equal(bucket_acquire(&f.r, &good, 1, FIXTURE_NOW).outcome, BUCKET_OK);
		fixture_limit(&f, BUCKET_SCOPE_USER, "alice", 10, 5);
		set = fixture_set(&f, "alice");
		assert_int_equal(bucket_acquire(&f.r, &set, 1, FIXTURE_NOW).outcome, BUCKET_E_WAIT);
		assert_int_equal(debt_of(&f.r, &set, FIXTURE_NOW), FIXTURE_SECOND / 2);
		fixture_close(&f);
	}
}

static void recreated_region_starts_with_empty_bursts(void **state)
{
	struct fixture f = fixture_open(true);
	struct bucket_limit late = fixture_requests(BUCKET_SCOPE_USER, str_of("late"), 10, 5);
	struct bucket_set set;
	struct bucket_verdict v;

	(void)state;
	assert_int_equal(region_empty_since(&f.r), FIXTURE_NOW);
	fixture_limit(&f, BUCKET_SCOPE_USER, "alice", 10, 5);
	set = fixture_set(&f, "alice");
	v = bucket_acquire(&f.r, &set, 1, FIXTURE_NOW);
	assert_int_equal(v.outcome, BUCKET_E_WAIT);
	assert_int_equal(v.wait_ns, FIXTURE_SECOND / 10);
	/* Also after the next daemon took it over before it was configured. */
	assert_int_equal(adopt_at(&f, FIXTURE_NOW), 0);
	assert_int_equal(region_empty_since(&f.r), FIXTURE_NOW);
	/* Long after, nothing can be owed any more. */
	assert_true(bucket_configure(&f.r, &late, FIXTURE_NOW + FIXTURE_SECOND) >= 0);
	set = fixture_set(&f, "late");
	assert_int_equal(debt_of(&f.r, &set, FIXTURE_NOW + FIXTURE_SECOND), 0);
	fixture_close(&f);
}

/*
 * A daemon killed while it creates leaves a file with the stores so far. The stores are replayed
 * on an empty file, cut off after each: before the last one nobody attaches or adopts, but
 * everybody can tell why; after it the region is whole.
 */
static void death_while_creating_leaves_nothing_usable(void **state)
{
	struct fixture whole = fixture_open(false);
	const unsigned char *bytes = whole.r.map;
	size_t state_at = HEADER(state);

	(void)state;
	for (size_t stored = 0; stored <= sizeof(struct layout_header); stored += 8) {
		struct fixture half = { .fd = memfd_create("half", MFD_CLOEXEC) };
		unsigned char header[sizeof(struct layout_header)] = { 0 };
		int e;

		memcpy(header, bytes, stored);
		memset(header + state_at, 0, 8); /* stored last */
		assert_int_equal(ftruncate(half.fd, (off_t)whole.r.size), 0);
		assert_int_equal(pwrite(half.fd, header, sizeof(header), 0), sizeof(header));
		e = attach(&half);
		assert_int_equal(e, REGION_E_NOT_READY);
		assert_int_equal(adopt_at(&half, FIXTURE_NOW), REGION_E_NOT_READY);
		close(half.fd);
	}
	fixture_close(&whole);
}

/* Every word that adoption stores, in order; a death after any prefix is adopted by the next. */
static void death_while_adopting_is_adopted_again(void **state)
{
	static const size_t words[] = { HEADER(heartbeat_ns), HEADER(adopted_ns),
		HEADER(daemon_pid), HEADER(daemon_start), HEADER(generation), HEADER(state) };
	static const uint64_t values[] = { FIXTURE_NOW + 9, FIXTURE_NOW + 9, 6000, 7, 2, 1 };
	struct region_owner next = { .pid = 7000, .start = 8, .boot_id = { 1, 2 } };

	(void)state;
	for (size_t prefix = 0; prefix <= sizeof(words) / sizeof(words[0]); prefix++) {
		struct fixture f = fixture_open(false);
		struct region r = REGION_NULL;
		struct region_status status;
		struct bucket_set set;

		fixture_limit(&f, BUCKET_SCOPE_USER, "alice", 1, 1);
		set = fixture_set(&f, "alice");
		assert_int_equal(bucket_acquire(&f.r, &set, 1, FIXTURE_NOW).outcome, BUCKET_OK);
		region_close(&f.r);
		for (size_t i = 0; i < prefix; i++)
			memcpy((char *)f.r.map + words[i], &values[i], 8);
		assert_int_equal(region_adopt(&r, f.fd, &next, FIXTURE_NOW + 10), 0);
		region_status(&r, &status);
		assert_int_equal(status.daemon_pid, 7000);
		assert_int_equal(status.daemon_start, 8);
		assert_true(status.generation >= 2);
		assert_int_equal(
			bucket_acquire(&r, &set, 1, FIXTURE_NOW + 10).outcome, BUCKET_E_WAIT);
		region_detach(&r);
		fixture_close(&f);
	}
}

/* For real: children create in a new file, or adopt, and are killed at some moment. */
static void kill_9_leaves_something_for_the_next(void **state)
{
	struct fixture f = fixture_open(false);
	uint64_t seed = 7;

	(void)state;
	for (int i = 0; i < 60; i++) {
		int fd = memfd_create("victim", MFD_CLOEXEC), e, status;
		struct region r = REGION_NULL;
		pid_t child = fork();

		assert_true(child >= 0);
		if (child == 0) {
			struct region own = REGION_NULL;

			region_create(&own, fd, &fixture_owner, NULL, FIXTURE_NOW, false);
			for (;;) {
				region_adopt(&own, f.fd, &fixture_owner, FIXTURE_NOW);
				region_detach(&own);
			}
		}
		usleep((useconds_t)splitmix_below(&seed, 2000));
		kill(child, SIGKILL);
		assert_int_equal(waitpid(child, &status, 0), child);
		e = region_attach(&r, fd, true, boot);
		assert_true(e == 0 || e == REGION_E_NOT_READY || e == REGION_E_EMPTY);
		region_detach(&r);
		assert_int_equal(adopt_at(&f, FIXTURE_NOW), 0);
		close(fd);
	}
	fixture_close(&f);
}

static void recreation_leaves_old_mappings_alone(void **state)
{
	char path[] = "/tmp/test-region-XXXXXX", next_path[64];
	int fd = mkstemp(path), next;
	struct region old = REGION_NULL, now = REGION_NULL;
	struct bucket_set set = { 0 };
	struct bucket_limit limit = fixture_requests(BUCKET_SCOPE_USER, str_of("alice"), 1, 1);

	(void)state;
	assert_true(fd >= 0);
	snprintf(next_path, sizeof(next_path), "%s.new", path);
	assert_int_equal(region_create(&old, fd, &fixture_owner, NULL, FIXTURE_NOW, false), 0);
	assert_true(bucket_configure(&old, &limit, FIXTURE_NOW) >= 0);
	assert_true(bucket_set_add(&set, &old, BUCKET_SCOPE_USER, BUCKET_REQUESTS, limit.name));
	old.header->layout_hash ^= 1;
	assert_int_equal(region_adopt(&now, fd, &fixture_owner, FIXTURE_NOW), REGION_E_LAYOUT);
	next = open(next_path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	assert_true(next >= 0);
	assert_int_equal(region_create(&now, next, &fixture_owner, NULL, FIXTURE_NOW, true), 0);
	assert_int_equal(rename(next_path, path), 0);
	assert_int_equal(bucket_acquire(&old, &set, 1, FIXTURE_NOW).outcome, BUCKET_OK);
	assert_int_equal(bucket_acquire(&now, &set, 1, FIXTURE_NOW).outcome, BUCKET_E_GONE);
	region_detach(&old);
	region_detach(&now);
	close(fd);
	close(next);
	unlink(path);
}

static void outcomes_have_texts(void **state)
{
	(void)state;
	for (int i = 0; i < REGION_OUTCOMES; i++) {
		assert_non_null(region_outcome_text((enum region_outcome)i));
		for (int j = 0; j < i; j++)
			assert_string_not_equal(region_outcome_text((enum region_outcome)i),
				region_outcome_text((enum region_outcome)j));
	}
	assert_string_equal(region_outcome_text((enum region_outcome)1000), "unknown outcome");
	for (int i = 0; i < COUNTERS; i++)
		assert_non_null(counter_help((enum counter)i));
	assert_string_equal(counter_name(COUNTER_requests_active), "requests_active");
	assert_string_equal(counter_unit(COUNTER_upstream_bytes_in), "bytes");
	assert_null(counter_name(COUNTERS));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(table_covers_every_byte),
		cmocka_unit_test(offsets_are_those_of_version_2),
		cmocka_unit_test(tables_have_the_rows_asked_for),
		cmocka_unit_test(created_region_attaches),
		cmocka_unit_test(create_wants_an_empty_file),
		cmocka_unit_test(create_without_room_is_an_error),
		cmocka_unit_test(each_failure_has_its_outcome),
		cmocka_unit_test(sections_are_verified),
		cmocka_unit_test(newer_compatible_region_is_read_but_not_adopted),
		cmocka_unit_test(short_files_never_fault),
		cmocka_unit_test(short_files_of_others_are_not_ours),
		cmocka_unit_test(other_boots_attach_only_on_request),
		cmocka_unit_test(mutated_headers_never_crash),
		cmocka_unit_test(adoption_keeps_budgets),
		cmocka_unit_test(adoption_clamps_insane_debt),
		cmocka_unit_test(adoption_retires_insane_rows),
		cmocka_unit_test(recreated_region_starts_with_empty_bursts),
		cmocka_unit_test(death_while_creating_leaves_nothing_usable),
		cmocka_unit_test(death_while_adopting_is_adopted_again),
		cmocka_unit_test(kill_9_leaves_something_for_the_next),
		cmocka_unit_test(recreation_leaves_old_mappings_alone),
		cmocka_unit_test(outcomes_have_texts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
