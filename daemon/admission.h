#pragma once

/*
 * May this request go to this target now, and what it gives back at its end: the breakers of target
 * and provider, the budgets of user, model, provider and key (all or none), the target's count of
 * requests in flight. A stage over shm/: no I/O, no clock.
 */

#include <stdbool.h>
#include <stdint.h>
#include "base/str.h"
#include "proto/feedback.h"
#include "shm/breaker.h"
#include "shm/bucket_table.h"
#include "shm/target.h"

/* What is asked, of which target. Rows are TARGET_NONE where the region has none. */
struct admission_ask {
	uint64_t owner; /* the daemon's, hold_owner() */
	struct bucket_names names;
	struct bucket_cost cost; /* estimates */
	uint32_t target, provider;
	uint64_t target_key, provider_key; /* as target_find() gave them */
	bool limits, breakers;             /* switched on */
	bool forced;                       /* its breaker is open, but so are all others' */
	uint64_t random;
};

enum admission_outcome {
	ADMISSION_OK = 0,
	ADMISSION_E_LIMITED, /* wait_ns, limit */
	ADMISSION_E_NEVER,   /* limit, burst: the cost can never fit */
	ADMISSION_E_OPEN,    /* a breaker; wait_ns, providers, by_hand */
	ADMISSION_E_PAUSED,  /* the provider asked for a pause; wait_ns */
	ADMISSION_E_NAME,    /* a limit applies to a name that is too long to have one */
	ADMISSION_E_FULL,    /* the tables have no room for another user, or request in flight */
};

struct admission_verdict {
	enum admission_outcome outcome;
	uint64_t wait_ns; /* BUCKET_WAIT_SETTLEMENT: until another request ends, or an operator
	                   * closes the breaker */
	bool providers;   /* it is the provider's breaker, not the target's */
	bool by_hand;     /* an operator opened it */
	char limit[BUCKET_LABEL_TEXT]; /* "SCOPE NAME RESOURCE" of the blocking limit */
	uint64_t burst, used, asked;   /* of the blocking limit, in its units */
};

/* What was taken. All zero: nothing. Not to be moved while taken. */
struct admission_ticket {
	bool taken;
	struct bucket_set set;
	struct bucket_lease lease;
	uint64_t owner;
	uint32_t target, provider, pending; /* pending: the hold that counts at the target */
	uint64_t target_key, provider_key;  /* rows that are another's by the end learn nothing */
	struct breaker_ticket target_probe, provider_probe;
	bool target_proved, provider_proved; /* the probe's first token came */
	bool judged;                         /* by the breakers */
};

void admission_acquire(struct region *region, const struct admission_ask *ask, uint64_t now_ns,
	struct admission_ticket *ticket, struct admission_verdict *verdict);

/* The limits that apply, for routing; rows of templates are made where they are missing. As
 * bucket_resolve(), but BUCKET_E_MISSING: a name that no row can have. */
enum bucket_outcome admission_resolve(struct region *region, const struct bucket_names *names,
	uint64_t now_ns, struct bucket_set *set);

/* While an answer streams: used since the last call. */
void admission_progress(const struct region *region, struct admission_ticket *ticket,
	const struct bucket_cost *used, uint64_t now_ns);

/* The first token of an answer is proof enough for a probe: one that streams for longer than the
 * probe's lease would count as lost. Does nothing for other attempts. */
void admission_first_token(const struct region *region, struct admission_ticket *ticket,
	uint64_t first_token_ns, uint64_t now_ns);

/* How the attempt went, for the breakers of target and provider, and what is learned of the target
 * when it went well. Once; without it, admission_end() counts it as neutral. */
struct admission_result {
	enum breaker_outcome outcome;
	uint64_t input_tokens, output_tokens;
	uint64_t first_token_ns; /* from the dispatch; 0: not known, or all came at once */
	uint64_t duration_ns;    /* from the dispatch; 0: not known */
};
void admission_judge(const struct region *region, struct admission_ticket *ticket,
	const struct admission_result *result, uint64_t now_ns, uint64_t random);

/* The end: used since the last progress is settled and the rest comes back. Idempotent. */
void admission_end(const struct region *region, struct admission_ticket *ticket,
	const struct bucket_cost *used, uint64_t now_ns);

/* The end of an attempt that never left: all of it comes back. Idempotent. */
void admission_cancel(
	const struct region *region, struct admission_ticket *ticket, uint64_t now_ns);

enum admission_answer {
	ADMISSION_ANSWER_GOOD,
	ADMISSION_ANSWER_LIMITED, /* 429; 503 and 529 with Retry-After */
	ADMISSION_ANSWER_FAILED,
};

/* What the provider's answer says of its limits. LIMITED: so long nobody sends there; else 0. */
uint64_t admission_feedback(const struct region *region, const struct admission_ticket *ticket,
	const struct feedback *feedback, enum admission_answer answer, uint64_t now_ns,
	uint64_t random);
