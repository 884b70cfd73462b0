/*
 * The daemon's counters: one line each, COUNTER(name, "unit", "what it counts"). The order is the
 * order in the region: append only. Feeds the struct, `llmkit dump`, and docs/region-layout.md.
 */
COUNTER(connections_accepted, "connections", "clients accepted")
COUNTER(connections_refused, "connections", "clients refused by peer credentials or by a limit")
COUNTER(connections_open, "connections", "clients connected now")
COUNTER(frames_in, "frames", "frames read from clients")
COUNTER(frames_bad, "frames", "frames refused: malformed, oversize, unexpected")
COUNTER(requests_started, "requests", "requests accepted for processing")
COUNTER(requests_active, "requests", "requests in progress now")
COUNTER(requests_succeeded, "requests", "requests that ended with an end frame")
COUNTER(requests_failed, "requests", "requests that ended with an error frame")
COUNTER(requests_cancelled, "requests", "requests whose client cancelled or left")
COUNTER(requests_limited, "requests", "requests refused by a limit")
COUNTER(fallbacks, "attempts", "attempts at a later target of a route")
COUNTER(tokens_input, "tokens", "input tokens reported by providers")
COUNTER(tokens_output, "tokens", "output tokens reported by providers")
COUNTER(upstream_connects, "connections", "provider connections opened")
COUNTER(upstream_reuses, "exchanges", "exchanges on a kept-alive provider connection")
COUNTER(upstream_stale_retries, "exchanges",
	"exchanges repeated because a kept connection had died")
COUNTER(upstream_errors, "exchanges", "exchanges that failed below HTTP")
COUNTER(upstream_bytes_in, "bytes", "bytes read from providers")
COUNTER(upstream_bytes_out, "bytes", "bytes sent to providers")
