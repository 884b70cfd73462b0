#pragma once

/*
 * What a provider's answer says of its limits (proto/feedback.h), applied to the limits of a call
 * that it speaks of: of those without a user, which are ours alone, the narrowest, that is those
 * with the model if there are any, else with the key, else the provider's. Wider ones add up what
 * the provider counts one by one: they would be bounded by the last model that answered.
 * Raise-only, lock-free, any process.
 */

#include "shm/bucket.h"

#define BUCKET_FOLLOW_UNSAID UINT64_MAX

/* A window of the answer, and the limits it is compared with: those of up to an hour with a
 * minute's, of up to a week with a day's, longer ones with a month's. */
enum bucket_span {
	BUCKET_SPAN_MINUTE,
	BUCKET_SPAN_DAY,
	BUCKET_SPAN_MONTH,
	BUCKET_SPANS,
};

/*
 * What the answer said of one resource: limit units per span, of which remaining are left; UNSAID
 * where it did not say. What is available here falls to what remains there, less what is in
 * flight; a limit that is named often enough is followed by the daemon (bucket_hear()).
 */
void bucket_follow(const struct region *r, const struct bucket_set *set,
	enum bucket_resource resource, enum bucket_span span, uint64_t limit, uint64_t remaining,
	uint64_t now_ns);

/* The same for all that one answer said: by span, then by resource, the first four. */
#define BUCKET_FOLLOW_RESOURCES 4
void bucket_follow_all(const struct region *r, const struct bucket_set *set,
	const uint64_t limit[BUCKET_SPANS][BUCKET_FOLLOW_RESOURCES],
	const uint64_t remaining[BUCKET_SPANS][BUCKET_FOLLOW_RESOURCES], uint64_t now_ns);

/* The provider refused: the limits of its model, else of its key, else of itself pause. */
void bucket_pause_set(
	const struct region *r, const struct bucket_set *set, uint64_t until_ns, uint64_t now_ns);
