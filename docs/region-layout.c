/*
 * Prints docs/region-layout.md: every field of the control region with the offset and size that
 * the compiler gave it. The test of the same name compares, so the page cannot drift.
 */

#include <stdio.h>
#include "shm/counters.h"
#include "shm/layout.h"
#include "shm/region.h"

#define LAYOUT_STRUCT(struct_, text_) \
	printf("\n## %s (%zu bytes)\n\n%s\n\n", #struct_, sizeof(struct struct_), text_); \
	printf("| offset | size | type | name | meaning |\n|---:|---:|---|---|---|\n");
#define LAYOUT_FIELD(struct_, field_, type_, text_) \
	printf("| %zu | %zu | %s | `%s` | %s |\n", offsetof(struct struct_, field_), \
		sizeof(((struct struct_ *)0)->field_), type_, #field_, text_);

static void print_counters(void)
{
	printf("\n## counters (u64 each)\n\n| row | name | unit | meaning |\n|---:|---|---|---|\n");
	for (int i = 0; i < COUNTERS; i++)
		printf("| %d | `%s` | %s | %s |\n", i, counter_name((enum counter)i),
			counter_unit((enum counter)i), counter_help((enum counter)i));
}

int main(void)
{
	printf("# The control region, version %d\n\n", LAYOUT_VERSION);
	printf("Made by `docs/region-layout.c` from `shm/tbl/layout.h`; do not edit. Words are "
	       "little-endian;\nwords called atomic are 64 bits wide and written while others "
	       "read. "
	       "Times are nanoseconds of\nCLOCK_BOOTTIME. Who writes what and how to read it: "
	       "`shm/layout.h`.\n\n");
	printf("A region that this build makes by default has %llu bytes: a page of header, %d\n"
	       "buckets and their names, %d participants, %d counters, %d holds, %d templates, "
	       "%d targets\nwith their breakers and latencies, %d routes, %d estimates, %d "
	       "events. The configuration's\n`tables` changes the numbers of buckets, holds "
	       "and targets.\n",
		(unsigned long long)region_total_size(NULL), LAYOUT_BUCKETS, LAYOUT_PARTICIPANTS,
		LAYOUT_COUNTERS, LAYOUT_HOLDS, LAYOUT_TEMPLATES, LAYOUT_TARGETS, LAYOUT_ROUTES,
		LAYOUT_ESTIMATES, LAYOUT_EVENTS);
#include "shm/tbl/layout.h"
	print_counters();
	return 0;
}
