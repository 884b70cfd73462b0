/* llmkit dump: every field of the control region, as text or JSON, with or without a daemon. */

#include <stdio.h>
#include <string.h>
#include "base/clock.h"
#include "base/paths.h"
#include "proto/json.h"
#include "shm/bucket_table.h"
#include "shm/counters.h"
#include "shm/layout.h"
#include "shm/participant.h"
#include "shm/region.h"
#include "tools/command.h"
#include "tools/dump_tables.h"
#include "tools/text.h"

static const char usage[] =
	"usage: llmkit dump [--json] [--region FILE] [--socket PATH]\n"
	"\n"
	"Prints every field of the control region: header, clock, limits, participants, counters,\n"
	"templates, holds, targets, breakers, latencies, routes, estimates,\n"
	"events.\n"
	"Needs no daemon: it reads the file, also the one a dead daemon left.\n"
	"\n"
	"      --json         one JSON object\n"
	"      --region FILE  the region's file (default: beside the socket)\n"
	"  -s, --socket PATH  the daemon's socket\n"
	"  -h, --help         this text\n"
	"\n"
	"The file belongs to the daemon's user: run as that user or as root.\n";

static uint64_t load(const shared_u64 *word)
{
	return atomic_load_explicit(word, memory_order_relaxed);
}

/* One list of the header's fields for both forms. */
struct field {
	const char *name;
	uint64_t value;
};

static size_t header_fields(const struct layout_header *h, struct field *out)
{
	const struct field fields[] = {
		{ "version", h->version },
		{ "compatible", h->compatible },
		{ "header_size", h->header_size },
		{ "total_size", h->total_size },
		{ "layout_hash", h->layout_hash },
		{ "features", h->features },
		{ "boot_id_high", h->boot_id[0] },
		{ "boot_id_low", h->boot_id[1] },
		{ "created_ns", h->created_ns },
		{ "section_count", h->section_count },
		{ "state", load(&h->state) },
		{ "generation", load(&h->generation) },
		{ "daemon_pid", load(&h->daemon_pid) },
		{ "daemon_start", load(&h->daemon_start) },
		{ "heartbeat_ns", load(&h->heartbeat_ns) },
		{ "adopted_ns", load(&h->adopted_ns) },
		{ "empty_since_ns", load(&h->empty_since_ns) },
		{ "events_head", load(&h->events_head) },
		{ "wall_offset_ns", load(&h->wall_offset_ns) },
		{ "timebase_sequence", load(&h->timebase.sequence) },
		{ "timebase_cycles0", load(&h->timebase.cycles0) },
		{ "timebase_ns0", load(&h->timebase.ns0) },
		{ "timebase_multiplier", load(&h->timebase.multiplier) },
		{ "timebase_validity", load(&h->timebase.validity) },
	};

	memcpy(out, fields, sizeof(fields));
	return ARRAY_SIZE(fields);
}

#define FIELDS_MAX 32

/* ---- text ---- */

static void text_header(const struct region *r)
{
	struct field fields[FIELDS_MAX];
	size_t count = header_fields(r->header, fields);

	puts("\nheader");
	for (size_t i = 0; i < count; i++)
		printf("  %-20s %llu\n", fields[i].name, (unsigned long long)fields[i].value);
	printf("  %-20s", "limits_in_use");
	for (size_t i = 0; i < ARRAY_SIZE(r->header->limits_in_use); i++)
		printf(" %llu", (unsigned long long)load(&r->header->limits_in_use[i]));
	putchar('\n');
	for (uint64_t i = 0; i < r->header->section_count && i < LAYOUT_SECTIONS; i++) {
		const struct layout_section *s = &r->header->section[i];

		printf("  section %-12llu offset %llu, %llu rows of %llu bytes\n",
			(unsigned long long)s->type, (unsigned long long)s->offset,
			(unsigned long long)s->rows, (unsigned long long)s->row_size);
	}
}

static void text_buckets(const struct region *r, uint64_t now_ns)
{
	struct bucket_view v;

	printf("\nlimits\n  %5s %-16s %-24s %-14s %14s %10s %10s %10s %9s %12s %12s\n", "row",
		"scope", "name", "resource", "limit", "per", "burst", "available", "held",
		"admitted", "rejected");
	for (uint32_t i = 0; i < r->buckets; i++) {
		if (!bucket_view(r, i, now_ns, &v))
			continue;
		text_clean(v.name);
		printf("  %5u %-16s %-24s %-14s %14llu %8.3fs %10llu %10llu %9llu %12llu %12llu\n",
			i, bucket_scope_name(v.scope), v.name, bucket_resource_name(v.resource),
			(unsigned long long)v.limit, (double)v.window_ns / 1e9,
			(unsigned long long)v.burst, (unsigned long long)v.available,
			(unsigned long long)v.held, (unsigned long long)v.admitted,
			(unsigned long long)v.rejected);
	}
}

static void text_participants(const struct region *r, uint64_t now_ns)
{
	struct participant_view v;

	printf("\nparticipants\n  %5s %-9s %10s %10s %12s %10s %12s\n", "row", "state", "pid",
		"uid", "start", "generation", "attached");
	for (uint32_t i = 0; i < r->participants; i++) {
		if (!participant_view(r, i, &v) || v.state == PARTICIPANT_FREE)
			continue;
		printf("  %5u %-9s %10llu %10llu %12llu %10llu %10.1fs\n", i,
			command_participant_state(v.state), (unsigned long long)v.pid,
			(unsigned long long)v.uid, (unsigned long long)v.start,
			(unsigned long long)v.generation,
			now_ns > v.attached_ns ? (double)(now_ns - v.attached_ns) / 1e9 : 0.0);
	}
}

static void text_counters(const struct region *r)
{
	puts("\ncounters");
	for (enum counter c = 0; c < COUNTERS && c < r->counters; c++)
		printf("  %-24s %14llu %-12s %s\n", counter_name(c),
			(unsigned long long)counter_read(r, c), counter_unit(c), counter_help(c));
}

static int print_text(const struct region *r, const char *path, uint64_t now_ns)
{
	char daemon[256];

	command_describe_daemon(r, command_daemon_of(r), now_ns, daemon, sizeof(daemon));
	printf("region  %s\ndaemon  %s\n", path, daemon);
	text_header(r);
	text_buckets(r, now_ns);
	text_participants(r, now_ns);
	text_counters(r);
	dump_tables_text(r);
	return COMMAND_OK;
}

/* ---- JSON ---- */

static void json_header(struct json *j, const struct region *r)
{
	struct field fields[FIELDS_MAX];
	size_t count = header_fields(r->header, fields);

	json_object_begin(j, "header");
	for (size_t i = 0; i < count; i++)
		json_uint(j, fields[i].name, fields[i].value);
	json_array_begin(j, "limits_in_use");
	for (size_t i = 0; i < ARRAY_SIZE(r->header->limits_in_use); i++)
		json_uint(j, NULL, load(&r->header->limits_in_use[i]));
	json_array_end(j);
	json_array_begin(j, "sections");
	for (uint64_t i = 0; i < r->header->section_count && i < LAYOUT_SECTIONS; i++) {
		json_object_begin(j, NULL);
		json_uint(j, "type", r->header->section[i].type);
		json_uint(j, "offset", r->header->section[i].offset);
		json_uint(j, "row_size", r->header->section[i].row_size);
		json_uint(j, "rows", r->header->section[i].rows);
		json_object_end(j);
	}
	json_array_end(j);
	json_object_end(j);
}

static void json_bucket(struct json *j, uint32_t row, const struct bucket_view *v, uint64_t now_ns)
{
	json_object_begin(j, NULL);
	command_limit_json(j, row, v, now_ns);
	json_uint(j, "tat_ns", v->tat);
	json_uint(j, "pause_ns", v->pause_ns);
	json_object_end(j);
}

static void json_tables(struct json *j, const struct region *r, uint64_t now_ns)
{
	struct participant_view p;
	struct bucket_view b;

	json_array_begin(j, "limits");
	for (uint32_t i = 0; i < r->buckets; i++)
		if (bucket_view(r, i, now_ns, &b))
			json_bucket(j, i, &b, now_ns);
	json_array_end(j);
	json_array_begin(j, "participants");
	for (uint32_t i = 0; i < r->participants; i++) {
		if (!participant_view(r, i, &p) || p.state == PARTICIPANT_FREE)
			continue;
		json_object_begin(j, NULL);
		json_uint(j, "row", i);
		json_str(j, "state", str_of(command_participant_state(p.state)));
		json_uint(j, "pid", p.pid);
		json_uint(j, "start", p.start);
		json_uint(j, "uid", p.uid);
		json_uint(j, "generation", p.generation);
		json_uint(j, "attached_ns", p.attached_ns);
		json_object_end(j);
	}
	json_array_end(j);
	json_object_begin(j, "counters");
	for (enum counter c = 0; c < COUNTERS && c < r->counters; c++)
		json_uint(j, counter_name(c), counter_read(r, c));
	json_object_end(j);
	dump_tables_json(j, r);
}

static int print_json(const struct region *r, const char *path, uint64_t now_ns)
{
	aux_cleanup(buffer_deinit) struct buffer out = BUFFER_NULL;
	aux_cleanup(json_freep) struct json *j = json_new();
	struct region_status s;

	if (!j)
		return COMMAND_FAILED;
	region_status(r, &s);
	json_object_begin(j, NULL);
	json_str(j, "region", str_of(path));
	json_bool(j, "daemon_alive", command_daemon_of(r) == COMMAND_DAEMON_RUNNING);
	json_bool(j, "closed", s.closed);
	json_uint(j, "now_ns", now_ns);
	json_header(j, r);
	json_tables(j, r, now_ns);
	json_object_end(j);
	if (json_finish(j, true, &out) < 0) {
		fputs("llmkit dump: the region holds a name that is not UTF-8\n", stderr);
		return COMMAND_FAILED;
	}
	printf("%.*s\n", STR_ARG(buffer_str(&out)));
	return COMMAND_OK;
}

/* ---- the command ---- */

int cmd_dump(int argc, char **argv)
{
	static const struct option options[] = {
		COMMAND_OPTION_JSON,
		COMMAND_OPTION_REGION,
		COMMAND_OPTION_SOCKET,
		COMMAND_OPTION_HELP,
		{ 0 },
	};
	struct command_common common = { 0 };
	struct region r = REGION_NULL;
	char path[PATHS_MAX];
	uint64_t now_ns;
	int code, option = command_next_option(argc, argv, "s:h", options, &common);

	if (option == 'h')
		return command_help(usage);
	if (option != -1)
		return command_usage(argv);
	if (command_has_rest(argc, argv))
		return COMMAND_USAGE;
	code = command_region_path(common.region, common.socket, path, sizeof(path), "dump");
	if (code == COMMAND_OK)
		code = command_attach(&r, "dump", path, NULL);
	now_ns = clock_boottime_ns();
	if (code == COMMAND_OK)
		code = common.json ? print_json(&r, path, now_ns) : print_text(&r, path, now_ns);
	region_detach(&r);
	return code;
}
