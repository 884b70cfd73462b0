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
LAYOUT_FIELD(layout_header, section, "layout_section[16]", "where the tables are")
LAYOUT_FIELD(layout_header, state, "atomic u64", "0 being created, 1 ready, 2 closed; stored last")
LAYOUT_FIELD(layout_header, generation, "atomic u64", "daemons that have owned the region")
LAYOUT_FIELD(layout_header, daemon_pid, "atomic u64", "the owner")
LAYOUT_FIELD(layout_header, daemon_start, "atomic u64", "its start, clock ticks since boot")
LAYOUT_FIELD(layout_header, heartbeat_ns, "atomic u64", "stored every second by the owner")
LAYOUT_FIELD(layout_header, adopted_ns, "atomic u64", "when the owner took the region")
LAYOUT_FIELD(layout_header, empty_since_ns, "atomic u64",
	"new limits count as used up at this time; 0: they start full")
LAYOUT_FIELD(layout_header, limits_in_use, "atomic u64[16]",
	"by scope: bit r a limit of resource r exists, bit 8+r a template, "
	"16+r one of tokens charged at submission")
LAYOUT_FIELD(layout_header, events_head, "atomic u64", "tickets of events given out")
LAYOUT_FIELD(layout_header, wall_offset_ns, "atomic u64",
	"CLOCK_REALTIME - CLOCK_BOOTTIME, every second")
LAYOUT_FIELD(layout_header, pad1, "u64[7]", "0")
LAYOUT_FIELD(layout_header, timebase, "layout_timebase", "the fast clock")

LAYOUT_STRUCT(layout_section, "One table: an entry of the header's `section`.")
LAYOUT_FIELD(layout_section, type, "u64",
	"1 buckets, 2 bucket names, 3 participants, 4 counters (u64), 5 holds, "
	"6 templates, 7 targets, 8 breakers, 9 latencies, 10 routes, 11 estimates, 12 events")
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

LAYOUT_STRUCT(layout_bucket, "One limit of one scope and one resource.")
LAYOUT_FIELD(layout_bucket, tat, "atomic u64",
	"RATE, HELD: when the debt will have leaked, ns; WINDOW: epoch:12, used:52")
LAYOUT_FIELD(layout_bucket, held, "atomic u64", "units in flight: value:32, hold:14, sequence:18")
LAYOUT_FIELD(layout_bucket, interval, "atomic u64",
	"ns per unit, 52.12 fixed point; WINDOW: its end, ns")
LAYOUT_FIELD(layout_bucket, tolerance, "atomic u64", "the burst in ns; GAUGE, WINDOW: in units")
LAYOUT_FIELD(layout_bucket, admitted, "atomic u64", "units since creation")
LAYOUT_FIELD(layout_bucket, rejected, "atomic u64", "attempts since creation")
LAYOUT_FIELD(layout_bucket, key, "atomic u64",
	"hash of scope, resource, kind and name; 0 never used, 1 retired")
LAYOUT_FIELD(layout_bucket, pause_ns, "atomic u64", "nothing is admitted before; 0: no pause")

LAYOUT_STRUCT(layout_bucket_name, "The cold half of a bucket.")
LAYOUT_FIELD(layout_bucket_name, scope, "atomic u64",
	"bits: 1 user, 2 model, 4 provider, 8 key; one or two")
LAYOUT_FIELD(layout_bucket_name, resource, "atomic u64",
	"0 requests, 1 input tokens, 2 output tokens, 3 tokens, 4 concurrency, 5 money")
LAYOUT_FIELD(layout_bucket_name, kind, "atomic u64", "0 RATE, 1 HELD, 2 GAUGE, 3 WINDOW")
LAYOUT_FIELD(layout_bucket_name, origin, "atomic u64", "0 configured, 1 made from a template")
LAYOUT_FIELD(layout_bucket_name, burst, "atomic u64", "units at once")
LAYOUT_FIELD(layout_bucket_name, limit, "atomic u64", "units per window")
LAYOUT_FIELD(layout_bucket_name, window_ns, "atomic u64", "the window; 2^64-1: a calendar month")
LAYOUT_FIELD(layout_bucket_name, most, "atomic u64",
	"units: more is never owed, a later `tat` is broken")
LAYOUT_FIELD(layout_bucket_name, basis, "atomic u64", "the interval that the debt is counted in")
LAYOUT_FIELD(layout_bucket_name, changed_ns, "atomic u64",
	"last change of the interval; 2^64-1 while one is under way")
LAYOUT_FIELD(layout_bucket_name, used_ns, "atomic u64", "when it was last looked up")
LAYOUT_FIELD(layout_bucket_name, heard, "atomic u64",
	"the limit that answers name, limit:56, and how often in a row:8")
LAYOUT_FIELD(layout_bucket_name, wake, "atomic u64",
	"futex in its low 32 bits: counts what may let a waiter in")
LAYOUT_FIELD(layout_bucket_name, waited_ns, "atomic u64", "until when somebody may sleep on `wake`")
LAYOUT_FIELD(layout_bucket_name, ahead_ns, "atomic u64", "RATE: the latest time anybody booked")
LAYOUT_FIELD(layout_bucket_name, late, "atomic u64",
	"WINDOW: nano-USD used since its end, for the next one")
LAYOUT_FIELD(layout_bucket_name, name, "char[160]",
	"UTF-8, NUL-terminated; two names are joined by 0x1f")

LAYOUT_STRUCT(layout_template, "A limit for every name of a scope that has none of its own.")
LAYOUT_FIELD(layout_template, scope, "atomic u64", "as of a bucket; 0: not in use")
LAYOUT_FIELD(layout_template, resource, "atomic u64", "as of a bucket")
LAYOUT_FIELD(layout_template, kind, "atomic u64", "as of a bucket")
LAYOUT_FIELD(layout_template, limit, "atomic u64", "units per window")
LAYOUT_FIELD(layout_template, window_ns, "atomic u64", "the window")
LAYOUT_FIELD(layout_template, burst, "atomic u64", "units at once")
LAYOUT_FIELD(layout_template, pad, "u64[2]", "0")

LAYOUT_STRUCT(layout_participant, "One attached client process.")
LAYOUT_FIELD(layout_participant, word, "atomic u64",
	"state:8 (0 free, 1 attached, 2 orphan), generation:56; stored last")
LAYOUT_FIELD(layout_participant, pid, "atomic u64", "the process")
LAYOUT_FIELD(layout_participant, start, "atomic u64", "its start, clock ticks since boot")
LAYOUT_FIELD(layout_participant, uid, "atomic u64", "its user")
LAYOUT_FIELD(layout_participant, attached_ns, "atomic u64", "when it came")
LAYOUT_FIELD(layout_participant, pad, "u64[3]", "0")

LAYOUT_STRUCT(layout_hold, "What one request in flight holds of shared totals.")
LAYOUT_FIELD(layout_hold, owner, "atomic u64", "participant:16, generation:48; 0: free")
LAYOUT_FIELD(layout_hold, op, "atomic u64",
	"number:36, total:22, entry:4, state:2 (0 idle, 1 pending, 2 done)")
LAYOUT_FIELD(layout_hold, op_value, "atomic u64", "units of the entry after the operation")
LAYOUT_FIELD(layout_hold, taken_ns, "atomic u64", "when it was taken")
LAYOUT_FIELD(layout_hold, entry, "atomic u64[12]", "total:22, pad:10, units:32")

LAYOUT_STRUCT(layout_target, "One (provider, model), or a provider by itself.")
LAYOUT_FIELD(layout_target, key, "atomic u64", "hash of the name; 0 never used, 1 retired")
LAYOUT_FIELD(layout_target, provider, "atomic u64", "row of the provider's own target")
LAYOUT_FIELD(layout_target, available, "atomic u64", "0: not to be used")
LAYOUT_FIELD(layout_target, capabilities, "atomic u64",
	"bits: 1 tools, 2 vision, 4 JSON schema, 8 reasoning, 16 streaming")
LAYOUT_FIELD(layout_target, context, "atomic u64", "tokens; 0: not known")
LAYOUT_FIELD(layout_target, price_input, "atomic u64", "pico-USD per token; -1: not known")
LAYOUT_FIELD(layout_target, price_output, "atomic u64", "the same")
LAYOUT_FIELD(layout_target, pause_ns, "atomic u64", "nobody sends there before; 0: no pause")
LAYOUT_FIELD(layout_target, pending, "atomic u64",
	"requests in flight: value:32, hold:14, sequence:18")
LAYOUT_FIELD(layout_target, tried_ns, "atomic u64", "last dispatch")
LAYOUT_FIELD(layout_target, samples, "atomic u64", "first tokens seen")
LAYOUT_FIELD(layout_target, gap, "atomic u64",
	"EWMA of the time between tokens: ln(us) float32, ms:32")
LAYOUT_FIELD(layout_target, first_token, "atomic u64[6]",
	"EWMA of the time to the first token, by prompt size")
LAYOUT_FIELD(layout_target, price_cached, "atomic u64",
	"as price_input, for input from the cache")
LAYOUT_FIELD(layout_target, refused, "atomic u64", "429s in a row, one for each pause")
LAYOUT_FIELD(layout_target, traits, "atomic u64",
	"bits: 1 its model's name alone means it, 2 charges at submission")
LAYOUT_FIELD(layout_target, answer, "atomic u64", "a model's `max_tokens`; 0: not known")
LAYOUT_FIELD(layout_target, labels, "atomic u64", "changes of the label")
LAYOUT_FIELD(layout_target, pad, "u64[1]", "0")
LAYOUT_FIELD(layout_target, name, "char[160]", "`provider/model` or `provider`")
LAYOUT_FIELD(layout_target, label, "atomic u64[2][18]",
	"what limits call a provider's key: UTF-8, NUL-terminated; `labels % 2` is in force")

LAYOUT_STRUCT(layout_breaker, "The circuit breaker of the target of the same row.")
LAYOUT_FIELD(layout_breaker, state, "atomic u64",
	"state:2 (3: open by hand), generation:16, ok:8, pad:8, exponent:4, deadline:26")
LAYOUT_FIELD(layout_breaker, unwell_ns, "atomic u64", "from then no failure, pause or ramp counts")
LAYOUT_FIELD(layout_breaker, probe, "atomic u64[4]",
	"tickets: generation of participant:24, participant:16, "
	"breaker generation:16, nonce:8")
LAYOUT_FIELD(layout_breaker, baseline, "atomic u64",
	"mean and variance of ln(first token us), float32 each")
LAYOUT_FIELD(layout_breaker, cusum, "atomic u64", "cusum float32, generation:16, samples:16")
LAYOUT_FIELD(layout_breaker, run, "atomic u64", "generation:16, failures in a row:32")
LAYOUT_FIELD(layout_breaker, slice, "atomic u64[10]", "epoch:24, ok:20, bad:20")
LAYOUT_FIELD(layout_breaker, requests, "atomic u64", "since creation, without those in slice")
LAYOUT_FIELD(layout_breaker, errors, "atomic u64", "since creation, without those in slice")
LAYOUT_FIELD(layout_breaker, latency_us, "atomic u64", "sum over successes")
LAYOUT_FIELD(layout_breaker, told, "atomic u64", "transitions that are in the ring of events")
LAYOUT_FIELD(layout_breaker, born, "atomic u64", "told at creation")
LAYOUT_FIELD(layout_breaker, changed_ns, "atomic u64", "last transition")
LAYOUT_FIELD(layout_breaker, recent, "atomic u64",
	"mean float32, samples:32 of ln(first token us) since cusum is above 3")
LAYOUT_FIELD(layout_breaker, settings, "atomic u64[4]", "packed thresholds")
LAYOUT_FIELD(layout_breaker, untimed, "atomic u64", "successes that are not in latency_us")
LAYOUT_FIELD(layout_breaker, pad, "u64[1]", "0")

LAYOUT_STRUCT(layout_latency, "Histogram of the time to the first token, six rows of ten seconds.")
LAYOUT_FIELD(layout_latency, row, "struct[6]",
	"`epoch` (atomic u64) and 80 words `cell` of two 32-bit counts each")
LAYOUT_FIELD(layout_latency, pad, "u64[2]", "0")

LAYOUT_STRUCT(layout_route, "Targets that can stand in for each other.")
LAYOUT_FIELD(layout_route, key, "atomic u64", "hash of the name; 0 never used, 1 retired")
LAYOUT_FIELD(layout_route, sequence, "atomic u64", "odd while it changes")
LAYOUT_FIELD(layout_route, strategy, "atomic u64", "enum router_strategy")
LAYOUT_FIELD(layout_route, turn, "atomic u64", "of round robin")
LAYOUT_FIELD(layout_route, weights, "atomic u64",
	"cost:16, latency:16, reliability:16, parts of 1000")
LAYOUT_FIELD(layout_route, count, "atomic u64", "targets")
LAYOUT_FIELD(layout_route, price_cap, "atomic u64",
	"of a whole call in nano-USD, two's complement; negative: none")
LAYOUT_FIELD(layout_route, patience_ns, "atomic u64",
	"a target that has it wait longer is left out")
LAYOUT_FIELD(layout_route, target, "atomic u64[32]", "row:32, weight:32")
LAYOUT_FIELD(layout_route, name, "char[160]", "UTF-8, NUL-terminated")
LAYOUT_FIELD(layout_route, pad_name, "u64[4]", "0")

LAYOUT_STRUCT(layout_estimate, "The learned 95th percentile of output tokens of a (model, tag).")
LAYOUT_FIELD(layout_estimate, key, "atomic u64", "hash of model and tag; 0: free")
LAYOUT_FIELD(layout_estimate, value, "atomic u64", "ln(tokens) float32, samples:32")
LAYOUT_FIELD(layout_estimate, used_ns, "atomic u64", "when it was last used")
LAYOUT_FIELD(layout_estimate, pad, "u64[1]", "0")

LAYOUT_STRUCT(layout_event, "One event of the ring.")
LAYOUT_FIELD(layout_event, sequence, "atomic u64", "its ticket + 1; stored last")
LAYOUT_FIELD(layout_event, time_ns, "atomic u64", "when")
LAYOUT_FIELD(layout_event, what, "atomic u64", "kind:8, from:8, to:8, why:8, row:32")
LAYOUT_FIELD(layout_event, value, "atomic u64", "by kind")
LAYOUT_FIELD(layout_event, check, "atomic u64", "of the words before")
LAYOUT_FIELD(layout_event, pad, "u64[3]", "0")
