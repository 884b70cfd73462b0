#ifndef LLMKIT_H
#define LLMKIT_H

/*
 * libllmkit: language-model calls through the llmkitd daemon of this host, and rate budgets
 * shared by all its processes.
 *
 *   - llmkit_open() attaches to the daemon; it does not start one.
 *   - llmkit_submit() sends a request; llmkit_stream_next() reads its answer piece by piece.
 *   - llmkit_limits_open() finds the budgets of a (provider, model, user); llmkit_acquire() takes
 *     from all of them or from none, in shared memory, without a system call.
 *
 * Errors: functions return 0 or a negative LLMKIT_E_ code; llmkit_strerror() gives its text. Errors
 * of a request arrive as its last event, with a message that says what to do.
 *
 * Threads: every handle may be used by any number of threads, except that one stream or one
 * request is used by one thread at a time, and closing is last. No thread is ever started.
 *
 * fork(): a child may go on using a handle that was opened before the fork, also when other threads
 * of the parent were inside the library at that moment: its first call notices, and its first
 * submit, status or acquire attaches this process for itself (an acquire tries once; without a
 * daemon it goes on with the inherited budgets). Streams of the parent stay the parent's: the
 * child gets LLMKIT_E_FORKED and closes them to free the memory. Every descriptor is
 * close-on-exec.
 *
 * Reading: all streams share one connection. A handle with open streams that no thread uses for a
 * minute while answers wait (neither llmkit_stream_next() nor llmkit_dispatch()) is dropped by the
 * daemon; its streams end with LLMKIT_E_DAEMON_LOST.
 *
 * A daemon that ends or is killed: open streams end with LLMKIT_E_DAEMON_LOST after everything it
 * had sent was read; nothing is submitted twice by the library. The next submit attaches to the
 * next daemon: one try, at once; waiting between tries, with jitter, is the caller's. Budgets stay
 * valid in between, and a new region, should there be one, is moved to when attaching.
 *
 * Memory: streams share one connection, so what arrives for a stream that nobody reads is queued:
 * up to 64 MiB, then that stream ends with LLMKIT_E_TOO_LARGE, and no other is held up.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define LLMKIT_EXPORT __attribute__((visibility("default")))
#else
#define LLMKIT_EXPORT
#endif

#define LLMKIT_VERSION_STRING "0.1.0"

/* Codes from -1 to -99 are statuses of PROTOCOL.md, the rest are the library's own. */
enum llmkit_error {
	LLMKIT_OK = 0,
	LLMKIT_E_PROTOCOL = -1, /* daemon and library misunderstand each other */
	LLMKIT_E_VERSION = -2,  /* no protocol version in common */
	LLMKIT_E_REFUSED = -3,  /* the daemon's access list does not name this user */
	LLMKIT_E_BUSY = -4,     /* retry later */
	LLMKIT_E_BAD_REQUEST = -5,
	LLMKIT_E_UNKNOWN_MODEL = -6,
	LLMKIT_E_NO_KEY = -7,
	LLMKIT_E_TOO_LARGE = -8,
	LLMKIT_E_SHUTTING_DOWN = -9, /* retry later */
	LLMKIT_E_LIMITED = -10,      /* a budget is used up: retry after the given wait */
	LLMKIT_E_NEVER_FITS = -11,   /* the cost is above the budget's burst */
	LLMKIT_E_CANCELLED = -12,
	LLMKIT_E_DEADLINE = -13,
	LLMKIT_E_NO_MEMORY = -14,
	LLMKIT_E_INTERNAL = -15,
	LLMKIT_E_PROVIDER_LIMITED = -20, /* the provider's 429: retry after the given wait */
	LLMKIT_E_PROVIDER_QUOTA = -21,
	LLMKIT_E_PROVIDER_AUTH = -22,
	LLMKIT_E_PROVIDER_OVERLOADED = -23,
	LLMKIT_E_PROVIDER_ERROR = -24,
	LLMKIT_E_PROVIDER_REJECTED = -25,
	LLMKIT_E_CONTEXT_LENGTH = -26,
	LLMKIT_E_PROVIDER_NOT_FOUND = -27,
	LLMKIT_E_CONTENT_FILTER = -28,
	LLMKIT_E_DNS = -30,
	LLMKIT_E_CONNECT = -31,
	LLMKIT_E_TLS = -32,
	LLMKIT_E_TIMEOUT = -33,
	LLMKIT_E_STALLED = -34,
	LLMKIT_E_RESET = -35,
	LLMKIT_E_TRUNCATED = -36, /* the answer ended without its terminal event */
	LLMKIT_E_MALFORMED = -37,
	LLMKIT_E_REDIRECT = -38,
	LLMKIT_E_ANSWER_TOO_LARGE = -39,

	LLMKIT_E_ARGUMENT = -100,     /* a NULL, an empty or a contradictory argument */
	LLMKIT_E_NO_DAEMON = -101,    /* nothing listens on the socket */
	LLMKIT_E_DAEMON_LOST = -102,  /* the daemon ended; retry: another may have started */
	LLMKIT_E_WAIT_TIMEOUT = -103, /* nothing came within the caller's own timeout */
	LLMKIT_E_FORKED = -104,       /* this stream belongs to the parent process */
	LLMKIT_E_REGION = -105,       /* no usable shared region; see llmkit_region_text() */
	LLMKIT_E_NO_REGION = -106,    /* observers cannot take budgets themselves */
	LLMKIT_E_ENDED = -107,        /* the stream's last event was already read */
	LLMKIT_E_SYSTEM = -108,       /* a system call failed; errno says which way */
	LLMKIT_E_JSON = -109,         /* the text is not valid JSON of the expected kind */
};

/* One sentence, never NULL, static. Any thread. */
LLMKIT_EXPORT const char *llmkit_strerror(int error);
/* "LLMKIT_E_LIMITED"; never NULL, static. */
LLMKIT_EXPORT const char *llmkit_error_name(int error);
/* Whether the same call may succeed later without being changed. */
LLMKIT_EXPORT bool llmkit_is_retryable(int error);
LLMKIT_EXPORT const char *llmkit_version(void);

/* ---- the handle ---- */

typedef struct llmkit llmkit;

struct llmkit_options {
	size_t size;        /* sizeof(struct llmkit_options) */
	const char *socket; /* NULL: LLMKIT_SOCKET, $XDG_RUNTIME_DIR/llmkit/llmkit.sock, /run/… */
	const char *client; /* name/version for the daemon's log, at most 128 bytes; NULL: none */
	int connect_timeout_ms; /* for attaching, and for a daemon that reads nothing; 0: 5000 */
};

/*
 * Attaches to the daemon: connects, exchanges versions, maps the control region. options NULL:
 * all defaults. *out is the caller's, freed by llmkit_close(). A region that cannot be used does
 * not fail the call: requests work without it, and llmkit_region_text() says what is wrong.
 * LLMKIT_E_NO_DAEMON, _REFUSED, _VERSION, _BUSY, _WAIT_TIMEOUT, _DAEMON_LOST (it ended meanwhile),
 * _PROTOCOL, _ARGUMENT (a path above 107 bytes), _NO_MEMORY, _SYSTEM. Any thread.
 */
LLMKIT_EXPORT int llmkit_open(llmkit **out, const struct llmkit_options *options);

/* Frees the handle and its connection, which cancels what is open. Streams and limits opened from
 * it must be closed before. NULL does nothing. */
LLMKIT_EXPORT void llmkit_close(llmkit *kit);

/* Why the last attach to the region failed, in one sentence; "" when it did not. Static. */
LLMKIT_EXPORT const char *llmkit_region_text(llmkit *kit);

/* ---- event loops ---- */

/*
 * A descriptor that becomes readable when there is something for llmkit_dispatch(), or when
 * another thread read frames of the loop's streams. It stays the same until llmkit_close(), also
 * over lost daemons; a forked child asks again. Never read from it. -1 when it cannot be made.
 */
LLMKIT_EXPORT int llmkit_fd(llmkit *kit);

/*
 * Reads what has arrived and sorts it to the streams, without blocking. Then call
 * llmkit_stream_next(stream, 0, ...) on the loop's streams until LLMKIT_E_WAIT_TIMEOUT, whatever
 * was returned here. Number of frames read, or LLMKIT_E_DAEMON_LOST when not attached (any more);
 * the next submit attaches anew.
 */
LLMKIT_EXPORT int llmkit_dispatch(llmkit *kit);

/* ---- requests ---- */

typedef struct llmkit_request llmkit_request;

/* An empty request for "provider/model", a configured model or, with llmkit_request_set_route, a
 * route. model may be NULL when a route is set. NULL when out of memory. Owned by the caller until
 * llmkit_request_free(); may be submitted any number of times. */
LLMKIT_EXPORT llmkit_request *llmkit_request_new(const char *model);

/* A request whose body is the caller's JSON: an object of the OpenAI chat schema; unknown members
 * reach the provider untouched. "model" inside may be absent when model or a route is given.
 * LLMKIT_E_JSON, LLMKIT_E_NO_MEMORY. */
LLMKIT_EXPORT int llmkit_request_from_json(
	llmkit_request **out, const char *model, const char *json, size_t length);
LLMKIT_EXPORT void llmkit_request_free(llmkit_request *request);

/* All setters copy their strings, which must be UTF-8; names (route, user, tag, and the model) are
 * not empty, at most 256 bytes, without control characters. 0, LLMKIT_E_ARGUMENT,
 * LLMKIT_E_NO_MEMORY. */
LLMKIT_EXPORT int llmkit_request_set_route(llmkit_request *request, const char *route);
LLMKIT_EXPORT int llmkit_request_set_user(llmkit_request *request, const char *user);
LLMKIT_EXPORT int llmkit_request_set_tag(llmkit_request *request, const char *tag);
/* Whole request, from its arrival at the daemon; 0: the daemon's default. */
LLMKIT_EXPORT int llmkit_request_set_timeout_ms(llmkit_request *request, uint64_t timeout_ms);

/* The following build the body; LLMKIT_E_ARGUMENT on a request made from JSON. */
LLMKIT_EXPORT int llmkit_request_add_message(
	llmkit_request *request, const char *role, const char *content);
LLMKIT_EXPORT int llmkit_request_set_stream(llmkit_request *request, bool stream);
LLMKIT_EXPORT int llmkit_request_set_max_tokens(llmkit_request *request, uint32_t max_tokens);
LLMKIT_EXPORT int llmkit_request_set_temperature(llmkit_request *request, double temperature);
/* Any other member of the body but "messages": json is the member's value as JSON text; a member
 * that was set before is replaced. LLMKIT_E_JSON. */
LLMKIT_EXPORT int llmkit_request_set_member(
	llmkit_request *request, const char *name, const char *json);

/* ---- streams ---- */

typedef struct llmkit_stream llmkit_stream;

enum llmkit_event_type {
	LLMKIT_EVENT_START = 1, /* the provider accepted */
	LLMKIT_EVENT_TEXT,
	LLMKIT_EVENT_REASONING,
	LLMKIT_EVENT_TOOL_CALL,
	LLMKIT_EVENT_USAGE,
	LLMKIT_EVENT_END,   /* good end; last */
	LLMKIT_EVENT_ERROR, /* bad end; last */
};

/* One piece of an answer. Strings are NUL-terminated, UTF-8, never NULL, owned by the stream and
 * valid until its next llmkit_stream_next() or its close. */
struct llmkit_event {
	enum llmkit_event_type type;
	union {
		struct {
			const char *provider, *model, *id;
		} start;
		struct {
			const char *data;
			size_t length;
		} text; /* TEXT and REASONING */
		struct {
			uint32_t index;
			const char *id, *name; /* "" after the first fragment of an index */
			const char *arguments; /* fragment of JSON text */
		} tool_call;
		struct {
			/* tokens; -1: not told */
			int64_t input, output, cached_input, cache_write, reasoning;
		} usage;
		struct {
			/* stop, length, tool_calls, content_filter, or the provider's own */
			const char *finish_reason;
			/* from the request's arrival at the daemon */
			uint64_t first_token_us, total_us;
		} end;
		struct {
			int code;                /* LLMKIT_E_ */
			const char *message;     /* what, where, what to do */
			const char *provider;    /* "" when none was involved */
			unsigned http_status;    /* 0 when there was none */
			uint64_t retry_after_ns; /* 0: not known */
			const char *limit;       /* the blocking limit, or "" */
			uint64_t received;       /* text bytes delivered before */
		} error;
	};
};

/*
 * Sends the request. *out is the caller's, freed by llmkit_stream_close(). Attaches anew first
 * when the daemon was lost or the process forked: one try. Blocks only while attaching and while
 * the socket's buffer is full; a daemon that then reads nothing for connect_timeout_ms is lost.
 * LLMKIT_E_ARGUMENT (neither model nor route, no messages, a model that is no name), _NO_DAEMON,
 * _TOO_LARGE, and those of llmkit_open(). One request may be submitted by several threads at once.
 */
LLMKIT_EXPORT int llmkit_submit(llmkit *kit, const llmkit_request *request, llmkit_stream **out);

/*
 * The next event. timeout_ms: 0 looks at what has arrived and returns at once, negative waits for
 * ever. 0 with *event filled, LLMKIT_E_WAIT_TIMEOUT, LLMKIT_E_ENDED after the last event,
 * LLMKIT_E_FORKED; *event is touched by 0 only. A lost daemon is an ERROR event with code
 * LLMKIT_E_DAEMON_LOST, after all events it had sent. Signals do not end the wait.
 */
LLMKIT_EXPORT int llmkit_stream_next(
	llmkit_stream *stream, int timeout_ms, struct llmkit_event *event);

/* Asks the daemon to stop the provider call; the stream then ends with LLMKIT_E_CANCELLED, or with
 * its END if that was already on the way. 0 also when it has ended; LLMKIT_E_FORKED. */
LLMKIT_EXPORT int llmkit_stream_cancel(llmkit_stream *stream);

/* Cancels if not ended, and frees. NULL does nothing. */
LLMKIT_EXPORT void llmkit_stream_close(llmkit_stream *stream);

/* ---- limits: shared budgets ---- */

typedef struct llmkit_limits llmkit_limits;

struct llmkit_verdict {
	uint64_t wait_ns; /* LIMITED: exact time until it would have been admitted; else 0 */
	char limit[160];  /* "scope name" of the blocking limit; "" when admitted */
};

/*
 * The configured budgets that apply to calls of this provider, model and user; each may be NULL.
 * No such limit configured means not limited at that level; one that is configured, changed or
 * removed later is followed, within a second. Needs no daemon while the region is attached.
 * LLMKIT_E_NO_REGION for observers, LLMKIT_E_REGION without a usable region, and those of
 * llmkit_open() when it has to attach first. *out is the caller's, closed before the handle. Any
 * number of threads may use it at once.
 */
LLMKIT_EXPORT int llmkit_limits_open(llmkit *kit, const char *provider, const char *model,
	const char *user, llmkit_limits **out);
LLMKIT_EXPORT void llmkit_limits_close(llmkit_limits *limits);

/* How many budgets apply at present: 0 to 3. */
LLMKIT_EXPORT unsigned llmkit_limits_count(llmkit_limits *limits);

/*
 * Takes n requests from every budget, or none. Never blocks, no system call (but for attaching, in
 * a forked child's first call, and reading the clock where the cycle counter is not trusted).
 * LLMKIT_OK: admitted. LLMKIT_E_LIMITED with the exact wait. LLMKIT_E_NEVER_FITS: n is above a
 * burst. LLMKIT_E_ARGUMENT: n is 0. LLMKIT_E_REGION: the region's bytes make no sense. verdict may
 * be NULL; it is filled in the first three cases.
 */
LLMKIT_EXPORT int llmkit_acquire(llmkit_limits *limits, uint64_t n, struct llmkit_verdict *verdict);

/*
 * As llmkit_acquire(), but sleeps to the exact time until admitted or until the deadline
 * (llmkit_now_ns() based, UINT64_MAX: none) cannot be met any more: then LLMKIT_E_LIMITED at once,
 * without sleeping in vain. A signal handler's return ends the wait with LLMKIT_E_SYSTEM and errno
 * EINTR.
 */
LLMKIT_EXPORT int llmkit_acquire_until(
	llmkit_limits *limits, uint64_t n, uint64_t deadline_ns, struct llmkit_verdict *verdict);

/* Nanoseconds of CLOCK_BOOTTIME. */
LLMKIT_EXPORT uint64_t llmkit_now_ns(void);

/* ---- the daemon ---- */

/* The daemon's status as a JSON object; *json is the caller's, freed by free(3). timeout_ms as for
 * llmkit_stream_next(). Attaches as llmkit_submit() does; LLMKIT_E_WAIT_TIMEOUT,
 * LLMKIT_E_DAEMON_LOST, and those of llmkit_open(). */
LLMKIT_EXPORT int llmkit_status(llmkit *kit, int timeout_ms, char **json);

#ifdef __cplusplus
}
#endif

#endif
