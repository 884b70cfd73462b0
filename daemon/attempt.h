#pragma once

/*
 * One attempt of a request at one target, seen from the budgets: what it asks for, what it used,
 * how it went, what the provider said of its limits. Between the pipeline, which decides when,
 * and admission, which takes and gives back; does no I/O and moves no step.
 */

#include "base/buffer.h"
#include "daemon/demand.h"
#include "daemon/request.h"

#define ATTEMPT_TEXT_MAX 768

/* What attempts share; the pipeline's. */
struct attempt_scene {
	struct region *region;
	uint64_t owner; /* of the daemon's holds */
	struct demand *demand;
};

/* Orders the chain by the route's strategy. As route_rank(). */
int attempt_rank(const struct attempt_scene *scene, struct request *r, struct route_chain *chain,
	uint64_t random, struct buffer *why);

/* Takes what the attempt needs; r->ticket holds it. */
void attempt_admit(const struct attempt_scene *scene, struct request *r, uint64_t random,
	struct admission_verdict *verdict);
/* The status and the sentence of a refusal. */
enum status attempt_explain(const struct request *r, const struct admission_verdict *verdict,
	char text[ATTEMPT_TEXT_MAX]);

/* While the answer streams: settles output tokens as they come. */
void attempt_progress(const struct attempt_scene *scene, struct request *r);

/* What the answer's head and, of a refusal, its body say of limits goes to the budgets. status:
 * its class. heard: all headers, not finished yet. Returns how long the provider asks not to be
 * asked again; 0: it does not. */
uint64_t attempt_hear(const struct attempt_scene *scene, struct request *r, struct feedback *heard,
	enum status status, uint64_t random);

/* The end of the attempt with r->failure.status: breakers, learning, budgets. Idempotent. */
void attempt_end(const struct attempt_scene *scene, struct request *r, uint64_t random);

/* Whether another target could do what this one could not. */
bool attempt_may_go_elsewhere(enum status status);
