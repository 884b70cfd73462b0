/*
 * Every field of shm/layout.h once more, as data: LAYOUT_STRUCT(name, "what one is") opens a
 * struct, LAYOUT_FIELD(struct, field, "type", "meaning") follows for each field in order. Feeds
 * region_layout_hash(), docs/region-layout.md and the test that nothing is missing here.
 */
LAYOUT_STRUCT(layout_header, "The start of the file, one per region.")
LAYOUT_FIELD(layout_header, magic, "u64", "`CONTROL1`")
LAYOUT_FIELD(layout_header, version, "u64", "raised by every change of the layout")
LAYOUT_FIELD(layout_header, compatible, "u64", "lowest version that can read this")
LAYOUT_FIELD(layout_header, header_size, "u64", "bytes of this struct")
LAYOUT_FIELD(layout_header, total_size, "u64", "bytes of the file")
LAYOUT_FIELD(layout_header, layout_hash, "u64", "hash of all sizes and offsets")
LAYOUT_FIELD(layout_header, features, "u64", "bits a reader must know; none defined")
LAYOUT_FIELD(layout_header, boot_id, "u64[2]", "`/proc/sys/kernel/random/boot_id`")
LAYOUT_FIELD(layout_header, created_ns, "u64", "when the region was made")
LAYOUT_FIELD(layout_header, section_count, "u64", "used entries of `section`")
LAYOUT_FIELD(layout_header, pad0, "u64[5]", "0")
LAYOUT_FIELD(layout_header, section, "layout_section[8]", "where the tables are")
LAYOUT_FIELD(layout_header, state, "atomic u64", "0 being created, 1 ready, 2 closed; stored last")
LAYOUT_FIELD(layout_header, generation, "atomic u64", "daemons that have owned the region")
LAYOUT_FIELD(layout_header, daemon_pid, "atomic u64", "the owner")
LAYOUT_FIELD(layout_header, daemon_start, "atomic u64", "its start, clock ticks since boot")
LAYOUT_FIELD(layout_header, heartbeat_ns, "atomic u64", "stored every second by the owner")
LAYOUT_FIELD(layout_header, adopted_ns, "atomic u64", "when the owner took the region")
LAYOUT_FIELD(layout_header, empty_since_ns, "atomic u64",
	"new limits count as used up at this time; 0: they start full")
LAYOUT_FIELD(layout_header, pad1, "u64[1]", "0")
LAYOUT_FIELD(layout_header, timebase, "layout_timebase", "the fast clock")

LAYOUT_STRUCT(layout_section, "One table: an entry of the header's `section`.")
LAYOUT_FIELD(layout_section, type, "u64",
	"1 buckets, 2 bucket names, 3 participants, 4 counters (u64)")
LAYOUT_FIELD(layout_section, offset, "u64", "from the start of the file, multiple of 64")
LAYOUT_FIELD(layout_section, row_size, "u64", "bytes")
LAYOUT_FIELD(layout_section, rows, "u64", "how many")

LAYOUT_STRUCT(layout_timebase, "Cycle counter to CLOCK_BOOTTIME, behind a sequence lock.")
LAYOUT_FIELD(layout_timebase, sequence, "atomic u64", "odd while being written")
LAYOUT_FIELD(layout_timebase, cycles0, "atomic u64", "counter at the point of reference")
LAYOUT_FIELD(layout_timebase, ns0, "atomic u64", "CLOCK_BOOTTIME at that point")
LAYOUT_FIELD(layout_timebase, multiplier, "atomic u64",
	"nanoseconds per cycle, 32.32 fixed point; 0: not trusted")
LAYOUT_FIELD(layout_timebase, validity, "atomic u64", "cycles after which the point is stale")
LAYOUT_FIELD(layout_timebase, pad, "u64[3]", "0")

LAYOUT_STRUCT(layout_bucket, "One limit of one scope: GCRA in one word.")
LAYOUT_FIELD(layout_bucket, tat, "atomic u64", "when the debt will have leaked, ns")
LAYOUT_FIELD(layout_bucket, interval, "atomic u64", "ns per unit, 52.12 fixed point")
LAYOUT_FIELD(layout_bucket, tolerance, "atomic u64", "the burst in ns")
LAYOUT_FIELD(layout_bucket, admitted, "atomic u64", "units since creation")
LAYOUT_FIELD(layout_bucket, rejected, "atomic u64", "attempts since creation")
LAYOUT_FIELD(layout_bucket, key, "atomic u64",
	"hash of scope and name; 0 never used, 1 retired")
LAYOUT_FIELD(layout_bucket, basis, "atomic u64", "the interval that the debt is counted in")
LAYOUT_FIELD(layout_bucket, changed_ns, "atomic u64",
	"last change of the interval; 2^64-1 while one is under way")

LAYOUT_STRUCT(layout_bucket_name, "The cold half of a bucket: as configured.")
LAYOUT_FIELD(layout_bucket_name, scope, "atomic u64", "1 user, 2 model, 3 provider")
LAYOUT_FIELD(layout_bucket_name, burst, "atomic u64", "units at once")
LAYOUT_FIELD(layout_bucket_name, limit, "atomic u64", "units per window")
LAYOUT_FIELD(layout_bucket_name, window_ns, "atomic u64", "the window")
LAYOUT_FIELD(layout_bucket_name, most, "atomic u64",
	"units: more is never owed, a later `tat` is broken")
LAYOUT_FIELD(layout_bucket_name, name, "char[104]", "UTF-8, NUL-terminated")

LAYOUT_STRUCT(layout_participant, "One attached client process.")
LAYOUT_FIELD(layout_participant, word, "atomic u64",
	"state:8 (0 free, 1 attached, 2 orphan), generation:56; stored last")
LAYOUT_FIELD(layout_participant, pid, "atomic u64", "the process")
LAYOUT_FIELD(layout_participant, start, "atomic u64", "its start, clock ticks since boot")
LAYOUT_FIELD(layout_participant, uid, "atomic u64", "its user")
LAYOUT_FIELD(layout_participant, attached_ns, "atomic u64", "when it came")
LAYOUT_FIELD(layout_participant, pad, "u64[3]", "0")
