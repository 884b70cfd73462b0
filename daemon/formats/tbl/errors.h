/*
 * What provider errors mean: ERROR_RULE(family or NULL, HTTP status or 0 for any, FIELD, "text",
 * STATUS). The first row that matches counts, so the order is the precedence: overrides of one
 * family, then code, then type, then HTTP status, then words in the message. FIELD is CODE or
 * TYPE (equal), MESSAGE (contains; case is ignored) or ANY. What matches none is classed by the
 * hundreds of its status.
 */

/* Overrides. */
ERROR_RULE("scaleway", 429, ANY, "", PROVIDER_LIMITED) /* its "insufficient quota" is per minute */
ERROR_RULE("openrouter", 403, MESSAGE, "flagged", CONTENT_FILTER)

/* Codes. A request above a per-minute token limit never fits (Groq's 413). */
ERROR_RULE(NULL, 413, CODE, "rate_limit_exceeded", PROVIDER_REJECTED)
ERROR_RULE(NULL, 0, CODE, "insufficient_quota", PROVIDER_QUOTA)
ERROR_RULE(NULL, 0, CODE, "enforced_spend_limit_reached", PROVIDER_QUOTA)
ERROR_RULE(NULL, 0, CODE, "billing_hard_limit_reached", PROVIDER_QUOTA)
ERROR_RULE(NULL, 0, CODE, "billing_not_active", PROVIDER_QUOTA)
ERROR_RULE(NULL, 0, CODE, "rate_limit_exceeded", PROVIDER_LIMITED)
ERROR_RULE(NULL, 0, CODE, "RateLimitExceeded", PROVIDER_LIMITED)
ERROR_RULE(NULL, 0, CODE, "rate_limit_error", PROVIDER_LIMITED)
ERROR_RULE(NULL, 0, CODE, "context_length_exceeded", CONTEXT_LENGTH)
ERROR_RULE(NULL, 0, CODE, "content_filter", CONTENT_FILTER)
ERROR_RULE(NULL, 0, CODE, "content_policy_violation", CONTENT_FILTER)
ERROR_RULE(NULL, 0, CODE, "ResponsibleAIPolicyViolation", CONTENT_FILTER)
ERROR_RULE(NULL, 0, CODE, "data_inspection_failed", CONTENT_FILTER)
ERROR_RULE(NULL, 0, CODE, "invalid_api_key", PROVIDER_AUTH)
ERROR_RULE(NULL, 0, CODE, "account_deactivated", PROVIDER_AUTH)
ERROR_RULE(NULL, 0, CODE, "model_not_found", PROVIDER_NOT_FOUND)
ERROR_RULE(NULL, 0, CODE, "DeploymentNotFound", PROVIDER_NOT_FOUND)
ERROR_RULE(NULL, 0, CODE, "capacity_exceeded", PROVIDER_OVERLOADED)

/* Types. */
ERROR_RULE(NULL, 0, TYPE, "insufficient_quota", PROVIDER_QUOTA)
ERROR_RULE(NULL, 0, TYPE, "exceeded_current_quota_error", PROVIDER_QUOTA)
ERROR_RULE(NULL, 0, TYPE, "billing_error", PROVIDER_QUOTA)
ERROR_RULE(NULL, 0, TYPE, "rate_limit_error", PROVIDER_LIMITED)
ERROR_RULE(NULL, 0, TYPE, "rate_limit_reached_error", PROVIDER_LIMITED)
ERROR_RULE(NULL, 0, TYPE, "too_many_requests_error", PROVIDER_LIMITED)
ERROR_RULE(NULL, 0, TYPE, "RESOURCE_EXHAUSTED", PROVIDER_LIMITED)
ERROR_RULE(NULL, 0, TYPE, "overloaded_error", PROVIDER_OVERLOADED)
ERROR_RULE(NULL, 0, TYPE, "engine_overloaded_error", PROVIDER_OVERLOADED)
ERROR_RULE(NULL, 0, TYPE, "UNAVAILABLE", PROVIDER_OVERLOADED)
ERROR_RULE(NULL, 0, TYPE, "authentication_error", PROVIDER_AUTH)
ERROR_RULE(NULL, 0, TYPE, "invalid_authentication_error", PROVIDER_AUTH)
ERROR_RULE(NULL, 0, TYPE, "permission_error", PROVIDER_AUTH)
ERROR_RULE(NULL, 0, TYPE, "UNAUTHENTICATED", PROVIDER_AUTH)
ERROR_RULE(NULL, 0, TYPE, "PERMISSION_DENIED", PROVIDER_AUTH)
ERROR_RULE(NULL, 0, TYPE, "not_found_error", PROVIDER_NOT_FOUND)
ERROR_RULE(NULL, 0, TYPE, "NOT_FOUND", PROVIDER_NOT_FOUND)
ERROR_RULE(NULL, 0, TYPE, "request_too_large", PROVIDER_REJECTED)
ERROR_RULE(NULL, 0, TYPE, "timeout_error", TIMEOUT)
ERROR_RULE(NULL, 0, TYPE, "exceed_context_size_error", CONTEXT_LENGTH)

/* HTTP status. */
ERROR_RULE(NULL, 401, ANY, "", PROVIDER_AUTH)
ERROR_RULE(NULL, 402, ANY, "", PROVIDER_QUOTA)
ERROR_RULE(NULL, 403, ANY, "", PROVIDER_AUTH)
ERROR_RULE(NULL, 404, ANY, "", PROVIDER_NOT_FOUND)
ERROR_RULE(NULL, 408, ANY, "", TIMEOUT)
ERROR_RULE(NULL, 413, ANY, "", PROVIDER_REJECTED)
ERROR_RULE(NULL, 429, ANY, "", PROVIDER_LIMITED)
ERROR_RULE(NULL, 498, ANY, "", PROVIDER_OVERLOADED) /* Groq: flex capacity */
ERROR_RULE(NULL, 503, ANY, "", PROVIDER_OVERLOADED)
ERROR_RULE(NULL, 504, ANY, "", TIMEOUT)
ERROR_RULE(NULL, 524, ANY, "", TIMEOUT) /* Cloudflare in front of the provider */
ERROR_RULE(NULL, 529, ANY, "", PROVIDER_OVERLOADED)

/* Words, where the status says no more than "bad request" or "failed". */
ERROR_RULE(NULL, 0, MESSAGE, "maximum context length", CONTEXT_LENGTH)
ERROR_RULE(NULL, 0, MESSAGE, "prompt is too long", CONTEXT_LENGTH)
ERROR_RULE(NULL, 0, MESSAGE, "exceed context limit", CONTEXT_LENGTH)
ERROR_RULE(NULL, 0, MESSAGE, "exceeds the available context", CONTEXT_LENGTH)
ERROR_RULE(NULL, 0, MESSAGE, "specified API usage limits", PROVIDER_QUOTA)
ERROR_RULE(NULL, 0, MESSAGE, "credit balance is too low", PROVIDER_QUOTA)
ERROR_RULE(NULL, 0, MESSAGE, "insufficient balance", PROVIDER_QUOTA)
ERROR_RULE(NULL, 0, MESSAGE, "API key not valid", PROVIDER_AUTH)
ERROR_RULE(NULL, 0, MESSAGE, "incorrect API key", PROVIDER_AUTH)
ERROR_RULE(NULL, 0, MESSAGE, "content management policy", CONTENT_FILTER)
ERROR_RULE(NULL, 0, MESSAGE, "overloaded", PROVIDER_OVERLOADED)
ERROR_RULE(NULL, 0, MESSAGE, "rate limit", PROVIDER_LIMITED)
