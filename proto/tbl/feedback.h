/*
 * The headers that say something about limits, names in lower case; the first that fits counts, in
 * the order of this file.
 *
 * FEEDBACK_LEVEL(name, axis, window): the * of the name stands for limit, remaining, reset or
 * renewalperiod. UNSAID: the name tells no window.
 * FEEDBACK_FIELD(name, take): feedback.c's function for it.
 *
 * Left out on purpose: anthropic-priority-* (another pool than the one that refuses), Mistral's
 * query-cost (ours to count), windows of an hour (no bucket has one).
 */
/* OpenAI and its family, Groq, Azure, GitHub Models */
FEEDBACK_LEVEL("x-ratelimit-*-requests", REQUESTS, UNSAID)
FEEDBACK_LEVEL("x-ratelimit-*-tokens", TOKENS, UNSAID)
FEEDBACK_LEVEL("x-ratelimit-*-project-requests", REQUESTS, UNSAID)
FEEDBACK_LEVEL("x-ratelimit-*-project-tokens", TOKENS, UNSAID)
/* Anthropic */
FEEDBACK_LEVEL("anthropic-ratelimit-requests-*", REQUESTS, MINUTE)
FEEDBACK_LEVEL("anthropic-ratelimit-tokens-*", TOKENS, MINUTE)
FEEDBACK_LEVEL("anthropic-ratelimit-input-tokens-*", INPUT_TOKENS, MINUTE)
FEEDBACK_LEVEL("anthropic-ratelimit-output-tokens-*", OUTPUT_TOKENS, MINUTE)
/* Cerebras; Mistral's newer ones */
FEEDBACK_LEVEL("x-ratelimit-*-requests-minute", REQUESTS, MINUTE)
FEEDBACK_LEVEL("x-ratelimit-*-requests-day", REQUESTS, DAY)
FEEDBACK_LEVEL("x-ratelimit-*-tokens-minute", TOKENS, MINUTE)
FEEDBACK_LEVEL("x-ratelimit-*-tokens-day", TOKENS, DAY)
FEEDBACK_LEVEL("x-ratelimit-*-tokens-month", TOKENS, MONTH)
FEEDBACK_LEVEL("x-ratelimit-*-req-minute", REQUESTS, MINUTE)
/* Mistral: sized by tokens */
FEEDBACK_LEVEL("x-ratelimitbysize-*-minute", TOKENS, MINUTE)
FEEDBACK_LEVEL("x-ratelimitbysize-*-month", TOKENS, MONTH)
FEEDBACK_LEVEL("ratelimitbysize-*", TOKENS, UNSAID)
/* Fireworks */
FEEDBACK_LEVEL("x-ratelimit-*-tokens-prompt", INPUT_TOKENS, UNSAID)
FEEDBACK_LEVEL("x-ratelimit-*-tokens-generated", OUTPUT_TOKENS, UNSAID)
/* OpenRouter, Together */
FEEDBACK_LEVEL("x-ratelimit-*", REQUESTS, UNSAID)
FEEDBACK_LEVEL("x-tokenlimit-*", TOKENS, UNSAID)
/* The IETF draft: the separate headers of its early versions, the lists of the later ones */
FEEDBACK_FIELD("ratelimit-limit", take_first_limit)
FEEDBACK_LEVEL("ratelimit-*", REQUESTS, UNSAID)
FEEDBACK_FIELD("ratelimit", take_policies)
FEEDBACK_FIELD("ratelimit-policy", take_policies)
/* Anybody */
FEEDBACK_FIELD("retry-after-ms", take_retry_after_ms)
FEEDBACK_FIELD("x-ms-retry-after-ms", take_x_ms_retry_after_ms)
FEEDBACK_FIELD("retry-after", take_retry_after)
FEEDBACK_FIELD("x-should-retry", take_should_retry)
FEEDBACK_FIELD("date", take_date)
