#pragma once

/*
 * One answer, produced step by step: the bytes come when they are due, and the caller writes
 * them and waits. Knows no socket and no clock.
 */

#include "base/buffer.h"
#include "tests/fakeprovider/family.h"
#include "tests/fakeprovider/limiter.h"
#include "tests/fakeprovider/reply.h"
#include "tests/fakeprovider/request.h"
#include "tests/fakeprovider/script.h"
#include "tests/fakeprovider/text.h"

enum answer_verdict {
	ANSWER_MORE,  /* call again */
	ANSWER_WAIT,  /* call again after wait_ns */
	ANSWER_STALL, /* nothing more ever; the connection stays */
	ANSWER_CUT,   /* end the connection as script.cut says */
	ANSWER_END,
};

enum answer_step { STEP_FIRST, STEP_HEAD, STEP_BODY, STEP_TAIL, STEP_OVER };

struct answer {
	struct script script;
	const struct family *family;
	struct text text;
	struct reply reply;
	struct buffer prefix;       /* of a chunk: the same for the whole stream */
	struct buffer event, piece; /* scratch for one event and its text */
	struct buffer whole;        /* the body when it does not stream */
	enum answer_step step;
	bool streamed, started, malformed_done, half_sent, keep_alive, has_verdict, limited;
	bool tell_usage;
	const char *content_type;
	int status;
	int64_t position, pieces; /* chunks of reasoning, text and tool fragments */
	uint64_t n, created_s, input_tokens;
	struct str model, tool; /* views into the request */
	struct limiter_verdict verdict;
	size_t head_bytes; /* header bytes put by the last call */
};

struct answer_context {
	uint64_t n, created_s;
	const struct script *script;
	const struct limiter_verdict *verdict; /* NULL: no limiter */
};

void answer_init(struct answer *a);
void answer_deinit(struct answer *a);

/* The provider's answer to a request, as the script says; request must outlive the answer. */
void answer_begin(struct answer *a, const struct family *family, const struct request *request,
	const struct answer_context *context);

/* An error of the provider, of fault's type, code and message (NULL: the status's own). */
void answer_begin_error(struct answer *a, const struct family *family, bool keep_alive,
	const struct answer_context *context, int status, const struct fault *fault);

/* Any other JSON body. */
void answer_begin_json(struct answer *a, bool keep_alive, int status, struct str body);

/* Appends what is due to out. */
enum answer_verdict answer_next(struct answer *a, struct buffer *out, uint64_t *wait_ns);

/* What the provider charges for the answer as far as it came; nothing for a refusal. */
uint64_t answer_input_tokens(const struct answer *a);
uint64_t answer_output_tokens(const struct answer *a);

/* Whether the connection ends after this answer. */
bool answer_closes(const struct answer *a);
