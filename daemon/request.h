#pragma once

/*
 * One request, as plain data: what was asked, where it stands, how it ended. Only pipeline.c, for
 * what was delivered reply.c, and for its budgets attempt.c write it; only request_enter()
 * changes the step.
 */

#include <stdbool.h>
#include <stdint.h>
#include "base/buffer.h"
#include "base/list.h"
#include "daemon/admission.h"
#include "daemon/catalog.h"
#include "daemon/io/exchange.h"
#include "daemon/formats/format.h"
#include "daemon/formats/survey.h"
#include "daemon/io/loop.h"
#include "daemon/route.h"
#include "proto/feedback.h"
#include "proto/msg.h"

enum request_step {
	REQUEST_NEW,
	REQUEST_ROUTE,  /* which targets, in which order */
	REQUEST_ADMIT,  /* may it go to this target now */
	REQUEST_BUILD,  /* the provider's own form of it */
	REQUEST_SEND,   /* to the provider */
	REQUEST_ANSWER, /* frames to the client as they come */
	REQUEST_JUDGE,  /* over, or another target */
	REQUEST_SETTLE, /* the last frame, the counters */
};

/* How an attempt failed; status STATUS_OK: it did not. */
struct request_failure {
	enum status status;
	unsigned http_status;
	uint64_t retry_after_ns;
	char *message; /* owned; NULL: the status' own text */
	char *limit;   /* owned or NULL */
};

struct request {
	struct list node; /* in its client's list */
	struct list all;  /* in the pipeline's list */
	struct pipeline *pipeline;
	struct loop *loop;
	struct pipeline_client *client;
	uint64_t id;
	enum request_step step;

	char *frame; /* the SUBMIT body; ask's views point into it */
	size_t frame_size;
	struct msg_submit ask;
	char *model;              /* owned: of the body, where the envelope names none */
	struct survey survey;     /* of the body */
	uint64_t output_estimate; /* tokens */
	uint64_t arrived_ns;
	struct loop_timer deadline;

	struct catalog *catalog;
	struct route_target *target; /* the chain */
	unsigned target_count, attempt;
	struct admission_ticket ticket;
	uint64_t dispatched_ns;    /* of this attempt */
	uint64_t progressed;       /* output tokens settled while this attempt streams */
	struct feedback *feedback; /* owned: of a refusal, until its body has come */

	struct buffer body; /* the provider's request body, until it is sent */
	struct format_plan plan;
	struct format_decoder *decoder;
	struct exchange *exchange;
	unsigned http_status;
	struct buffer error_body; /* of an answer that is not 2xx */
	bool as_stream;           /* the answer is SSE */
	bool sent;                /* bytes of this attempt have left for its provider */
	bool delivered;           /* a frame has gone to the client */
	int pack_error;           /* why a frame could not be packed, or 0 */

	uint64_t first_token_ns, received;
	struct msg_usage usage;
	char finish_reason[32];
	struct request_failure failure;
	struct request_failure soonest; /* of attempts that were refused for a time: the least */
	unsigned soonest_attempt;
};

/* accessors; a target is there from ROUTE on */

static inline const struct route_target *request_target(const struct request *r)
{
	return &r->target[r->attempt];
}

static inline const struct catalog_provider *request_provider(const struct request *r)
{
	return &r->catalog->provider[request_target(r)->provider];
}

/* The provider whose answer this is, was or will be. Empty before there is a target. */
static inline struct str request_provider_name(const struct request *r)
{
	return r->target_count ? str_of(request_provider(r)->config->name) : STR_NULL;
}
