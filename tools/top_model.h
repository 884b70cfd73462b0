#pragma once

/*
 * What llmkit top knows: the control region sampled into rows of plain numbers and texts, with
 * rates by the difference of two samples. Reads the region only. Names are clean (tools/text.h).
 * Times are CLOCK_BOOTTIME nanoseconds, rates per second. One owner, one thread; no terminal, no
 * clock.
 */

#include <stdbool.h>
#include <stdint.h>
#include "base/aux.h"
#include "shm/counters.h"
#include "shm/event.h"
#include "shm/region.h"
#include "tools/command.h"

#define TOP_HISTORY 30
#define TOP_EVENTS 2048 /* that are kept: more than a region keeps, so that none is lost here */
#define TOP_EVENTS_SHOWN 256 /* of them, the latest, on the screen */
#define TOP_LABEL BUCKET_LABEL_TEXT
#define TOP_EVENT_TEXT 384

struct top_limit {
	uint32_t row;
	char label[TOP_LABEL];
	struct bucket_view v;
	uint64_t paused_ns;        /* that are left */
	double admitted, rejected; /* units, attempts */
};

struct top_target {
	uint32_t row;
	struct command_target v; /* its name is what rows are called by */
	double requests, errors;
	uint64_t history[TOP_HISTORY]; /* us to the first token, the newest last; 0: no answer
	                                * began in that interval */
};

struct top_participant {
	uint32_t row;
	struct participant_view v;
	unsigned holds;
	uint64_t oldest_ns; /* age of the oldest of them */
	int64_t since_s;    /* CLOCK_REALTIME when it came */
};

/* text: what happened; kind 0: said by this program. */
struct top_event {
	uint64_t number; /* of this program, from 1 */
	uint64_t time_ns;
	int64_t wall_s; /* CLOCK_REALTIME */
	unsigned kind;
	struct event e;
	char text[TOP_EVENT_TEXT];
};

/* What the sample before had in a row of the region, to compare with. */
struct top_past {
	uint64_t identity; /* of the row's name; 0: none */
	uint64_t first, second;
	uint64_t samples;
	uint64_t learned[TARGET_PROMPT_CLASSES];
	uint64_t history[TOP_HISTORY];
};

struct top_model {
	uint64_t now_ns;
	int64_t wall_ns; /* CLOCK_REALTIME - CLOCK_BOOTTIME */
	double elapsed;  /* seconds since the sample before; 0: this is the first */
	enum command_daemon daemon;
	struct region_status status;
	uint64_t counter[COUNTERS];
	double rate[COUNTERS];
	uint64_t in_flight; /* at providers now, of all processes; the targets' sum */

	struct top_limit *limit;
	uint32_t limits, limit_rows;
	struct top_target *target;
	uint32_t targets, target_rows;
	struct top_participant *participant;
	uint32_t participants, participant_rows;

	struct top_event *event; /* TOP_EVENTS; number n is at n % TOP_EVENTS */
	uint64_t events;         /* that there ever were */
	uint64_t lost;           /* that could not be read, or not be kept until they were told */
	uint64_t told;           /* the last that top_model_tell() gave out */
	uint64_t ticket;
	bool has_ticket;

	struct top_past *limit_past, *target_past;
};

/* NULL: no memory. */
struct top_model *top_model_new(void);
struct top_model *top_model_free(struct top_model *m);

/* Takes a sample; wall_ns: CLOCK_REALTIME - CLOCK_BOOTTIME. 0 or -ENOMEM. */
int top_model_sample(struct top_model *m, const struct region *r, enum command_daemon daemon,
	uint64_t now_ns, int64_t wall_ns);
/* The next sample is of another region: nothing is compared with it; what happened stays. */
void top_model_restart(struct top_model *m);

/* Something that this program has to say, among the events; at the time of the last sample. */
void top_model_note(struct top_model *m, const char *format, ...) aux_printf(2, 3);
/* Reads what is new in the region's ring; by top_model_sample(). */
void top_model_read_events(struct top_model *m, const struct region *r);
/* CLOCK_REALTIME in seconds. */
int64_t top_model_wall_s(const struct top_model *m, uint64_t time_ns);
/* From which number on events were not told yet, up to the last: all of them are kept. Those that
 * came and went untold count as lost. */
uint64_t top_model_tell(struct top_model *m);
/* The event of a number, or NULL where it is not kept. */
const struct top_event *top_model_event(const struct top_model *m, uint64_t number);
/* "breaker", "pause", …; "note": said by this program. */
const char *top_event_kind(const struct top_event *e);
