#ifndef LLMKIT_H
#define LLMKIT_H

/*
 * libllmkit: language-model calls through the llmkitd daemon of this host, and rate budgets shared
 * by all its processes.
 *
 *   - llmkit_open() attaches to the daemon; it does not start one.
 *   - llmkit_submit() sends a request; llmkit_stream_next() reads its answer piece by piece.
 *   - llmkit_limits_open() finds the budgets of a (provider, model, user, key); llmkit_acquire()
 *     takes requests from all of them or from none, in shared memory, without a system call;
 *     llmkit_lease_acquire() tokens, money and concurrency too.
 *   - llmkit_route() says which of several providers a call should go to. With these an
 *     application can keep its own HTTP client: route, allow, lease, send, feedback, report,
 *     settle.
 *
 * Errors: functions return 0 or a negative LLMKIT_E_ code; llmkit_strerror() gives its text. Errors
 * of a request arrive as its last event, with a message that says what to do.
 *
 * Threads: every handle may be used by any number of threads, except that one stream, request,
 * lease or ticket is used by one thread at a time, and closing is last. No thread is ever started.
 *
 * fork(): a child may go on using a handle that was opened before the fork, also when other threads
 * of the parent were inside the library at that moment: its first call notices, and its first
 * submit, status or acquire attaches this process for itself (an acquire tries once; without a
 * daemon it goes on with the inherited budgets). Streams, leases and tickets of the parent stay the
 * parent's: the child gets LLMKIT_E_FORKED, and closes streams to free the memory; what a lease of
 * the parent holds stays held for the parent. Every descriptor is close-on-exec.
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
	LLMKIT_E_CIRCUIT_OPEN = -16,     /* the target's breaker is open: call another, or later */
	LLMKIT_E_NO_TARGET = -17,        /* no target can serve the call */
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
	LLMKIT_E_FORKED = -104,       /* this stream, lease or ticket is the parent process's */
	LLMKIT_E_REGION = -105,       /* no usable shared region; see llmkit_region_text() */
	LLMKIT_E_NO_REGION = -106,    /* observers cannot take budgets themselves */
	LLMKIT_E_ENDED = -107,        /* the stream's last event was already read */
	LLMKIT_E_SYSTEM = -108,       /* a system call failed; errno says which way */
	LLMKIT_E_JSON = -109,         /* the text is not valid JSON of the expected kind */
	LLMKIT_E_LEASE = -110,        /* a limit applies that holds something while a call runs */
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

#define LLMKIT_LABEL_MAX 224
/* As a wait: no time ends it, only that something in flight settles, or an operator. */
#define LLMKIT_WAIT_SETTLEMENT UINT64_MAX

/* What a call is about: the limits of any of these, and of any two of them, apply to it. NULL or
 * empty: not known, limits of that sort do not apply, but that a key which is not named is the one
 * that the configuration has for the provider. Names are UTF-8, at most 256 bytes, without control
 * characters. */
struct llmkit_scope {
	size_t size; /* sizeof(struct llmkit_scope) */
	const char *provider, *model, *user;
	const char *key; /* the label of the provider's API key */
};

/* Of a refusal: which limit, and why. */
struct llmkit_verdict {
	uint64_t wait_ns; /* LIMITED: exact time until it would have been admitted, if nobody else
	                   * takes; LLMKIT_WAIT_SETTLEMENT; else 0 */
	uint64_t asked;   /* units of the blocking limit's resource: what the call asked for, */
	uint64_t used;    /* what is owed or, of a day's or month's money, spent, */
	uint64_t held;    /* what is in flight, */
	uint64_t burst;   /* and how much may be at once */
	char limit[LLMKIT_LABEL_MAX]; /* "SCOPE NAME RESOURCE" of the blocking limit, such as
	                               * "user+model alice@gpt-4o tokens"; "" when admitted */
};

/*
 * The configured limits that apply to calls of this scope (NULL: none do), looked up once. No such
 * limit configured means not limited; one that is configured, changed or removed later is followed,
 * within a second. A limit that the configuration only has a template for (one for every user, say)
 * is made by the daemon, which is asked and waited for, connect_timeout_ms at most; without a
 * daemon this fails with LLMKIT_E_NO_DAEMON or LLMKIT_E_DAEMON_LOST, and never counts as not
 * limited. Other limits need no daemon while the region is attached. LLMKIT_E_NO_REGION for
 * observers, LLMKIT_E_REGION without a usable region, LLMKIT_E_BUSY (the region has no room for
 * another limit, or more than 16 apply), LLMKIT_E_ARGUMENT, LLMKIT_E_NO_MEMORY, and those of
 * llmkit_open() when it has to attach first. *out is the caller's, closed before the handle and
 * after its leases ended. Any number of threads may use it at once.
 */
LLMKIT_EXPORT int llmkit_limits_open(
	llmkit *kit, const struct llmkit_scope *scope, llmkit_limits **out);
LLMKIT_EXPORT void llmkit_limits_close(llmkit_limits *limits);

/* How many limits apply at present: 0 to 16. */
LLMKIT_EXPORT unsigned llmkit_limits_count(llmkit_limits *limits);

/* One limit as it is now. Units are requests, tokens, calls at a time, or nano-USD. */
struct llmkit_limit_view {
	char label[LLMKIT_LABEL_MAX]; /* as in llmkit_verdict */
	const char *resource;         /* "requests", "input_tokens", …; static */
	uint64_t limit, window_ns;    /* units per window; window_ns UINT64_MAX: a calendar month;
	                               * 0: at a time */
	uint64_t burst;
	uint64_t used, held;         /* as in llmkit_verdict */
	uint64_t available;          /* whole units that would be admitted; 0 while paused */
	uint64_t full_ns;            /* until all is available again, if nothing is taken */
	uint64_t paused_ns;          /* from now; 0: not paused */
	uint64_t admitted, rejected; /* units, attempts; since it was made */
};

/* The limit of this index, from 0 to llmkit_limits_count() - 1, in the order in which they are
 * asked. LLMKIT_E_ARGUMENT: no such index (any more), LLMKIT_E_REGION. */
LLMKIT_EXPORT int llmkit_limits_view(
	llmkit_limits *limits, unsigned index, struct llmkit_limit_view *out);

/* Requests that llmkit_acquire() would admit now, and that could be admitted at once at best: the
 * least of all limits of requests; UINT64_MAX: there are none. Other limits count as 0 available
 * while they are paused. */
LLMKIT_EXPORT uint64_t llmkit_limits_available(llmkit_limits *limits);
LLMKIT_EXPORT uint64_t llmkit_limits_capacity(llmkit_limits *limits);

/*
 * As if nothing were owed to any of the limits; what is in flight stays, a pause stays. The daemon
 * does it, for all processes: LLMKIT_E_NO_DAEMON, LLMKIT_E_REFUSED, and what llmkit_command()
 * answers. Meant for operators and tests.
 */
LLMKIT_EXPORT int llmkit_limits_reset(llmkit_limits *limits);

/*
 * Takes n requests from every limit of requests, or none; other limits are only asked whether they
 * are paused. Never blocks, no system call, but for: attaching in a forked child's first call, a
 * templated limit that has to be made (anew), and the clock where the cycle counter is not trusted.
 * LLMKIT_OK: admitted. LLMKIT_E_LIMITED with the exact wait. LLMKIT_E_NEVER_FITS: n is above a
 * burst. LLMKIT_E_ARGUMENT: n is 0. LLMKIT_E_LEASE: a limit of concurrency applies, which a call
 * holds while it runs: use llmkit_lease_acquire(). LLMKIT_E_REGION: the region's bytes make no
 * sense. When a templated limit has to be made, what llmkit_limits_open() says of it. verdict may
 * be NULL; it is filled in the first three cases.
 */
LLMKIT_EXPORT int llmkit_acquire(llmkit_limits *limits, uint64_t n, struct llmkit_verdict *verdict);

/*
 * As llmkit_acquire(), but sleeps to the exact time until admitted, and wakes earlier when a
 * settlement, an operator or a changed limit lets somebody in. LLMKIT_E_LIMITED when deadline_ns
 * (llmkit_now_ns() based, UINT64_MAX: none) has come, or at once, without sleeping in vain, when it
 * cannot be met and nothing is in flight that could settle for less. A signal handler's return ends
 * the wait with LLMKIT_E_SYSTEM and errno EINTR.
 */
LLMKIT_EXPORT int llmkit_acquire_until(
	llmkit_limits *limits, uint64_t n, uint64_t deadline_ns, struct llmkit_verdict *verdict);

/* ---- leases: what a call holds while it runs ---- */

/* What a call costs, estimated before it or used after. Total tokens and concurrency follow. */
struct llmkit_cost {
	size_t size;       /* sizeof(struct llmkit_cost) */
	uint64_t requests; /* usually 1 */
	uint64_t input_tokens, output_tokens;
	uint64_t nanousd;
};

/* Zero-initialised it is no lease yet: every call accepts it then, and does nothing. The caller's
 * memory, not to be copied; used by one thread at a time. */
typedef struct llmkit_lease {
	uint64_t opaque[24];
} llmkit_lease;

/*
 * Takes the cost from every limit that applies, or nothing from any. Until it ends, the lease holds
 * what cannot be known before: tokens and money count as in flight, concurrency as occupied. End it
 * by llmkit_settle() or llmkit_cancel(); what a killed process held comes back by itself. Blocks as
 * llmkit_acquire() does. As there, and: LLMKIT_E_ARGUMENT: all of the cost is 0, or the lease has
 * not ended. LLMKIT_E_BUSY: 8192 calls hold something already, or the daemon has no row for this
 * process, as for one in a PID namespace that it cannot see into. LLMKIT_E_NO_DAEMON,
 * LLMKIT_E_DAEMON_LOST: this process, a forked child, never attached, so nobody could tell that it
 * died holding something.
 */
LLMKIT_EXPORT int llmkit_lease_acquire(llmkit_limits *limits, const struct llmkit_cost *cost,
	llmkit_lease *lease, struct llmkit_verdict *verdict);

/* The same, sleeping as llmkit_acquire_until() does. */
LLMKIT_EXPORT int llmkit_lease_acquire_until(llmkit_limits *limits, const struct llmkit_cost *cost,
	uint64_t deadline_ns, llmkit_lease *lease, struct llmkit_verdict *verdict);

/* The verdict that llmkit_lease_acquire() would give, without taking anything: LLMKIT_OK,
 * LLMKIT_E_LIMITED, LLMKIT_E_NEVER_FITS, and the errors of llmkit_acquire(). */
LLMKIT_EXPORT int llmkit_peek(
	llmkit_limits *limits, const struct llmkit_cost *cost, struct llmkit_verdict *verdict);

/*
 * While the call runs: tokens and money used since the last time, not in all. They become debt, and
 * as much of what is held comes back; using more than was held is allowed and becomes debt.
 * requests is not looked at. LLMKIT_OK, also when the lease has ended; LLMKIT_E_ARGUMENT;
 * LLMKIT_E_FORKED: it is the parent's, and stays so.
 */
LLMKIT_EXPORT int llmkit_progress(llmkit_lease *lease, const struct llmkit_cost *used);

/* The end of a call that was sent: used as for llmkit_progress(), NULL: not known, all that was
 * asked for and not reported yet counts as used. Then all that is still held comes back. Does
 * nothing when the lease has ended. Errors as llmkit_progress(). */
LLMKIT_EXPORT int llmkit_settle(llmkit_lease *lease, const struct llmkit_cost *used);

/* The end of a call that was never sent: what was taken comes back, as far as that cannot admit too
 * much. Does nothing when the lease has ended. Errors as llmkit_progress(). */
LLMKIT_EXPORT int llmkit_cancel(llmkit_lease *lease);

/* ---- feedback: for applications with an HTTP client of their own ---- */

struct llmkit_header {
	const char *name, *value;
};

/*
 * What the provider's answer says about its limits: a 429 (or a 503 or 529 with Retry-After) pauses
 * the scope's target (a provider's model; else the provider) and, of the scope's limits that are
 * not a user's, those of the model (else of the key, else of the provider), for as long as the
 * answer asks or, if it does not, for a time that doubles with every 429 in a row of that target,
 * whichever process sees it (without one: half a second to one). Headers of what is left raise the
 * debt of those limits, per resource and window (a minute's, a day's, a month's), until no more is
 * left here; those that name a limit are learned where the configuration wants that. Never loosens
 * anything. Call it for every answer, good ones too. error_body: NUL-terminated, as far as it
 * arrived; NULL: none. Headers of no interest are skipped. LLMKIT_OK, LLMKIT_E_ARGUMENT, and, when
 * a limit has to be made, what llmkit_limits_open() says. *wait_ns, which may be NULL: how long
 * nobody should send, 0: not asked
 * for.
 */
LLMKIT_EXPORT int llmkit_feedback(llmkit_limits *limits, unsigned http_status,
	const struct llmkit_header *headers, size_t count, const char *error_body,
	uint64_t *wait_ns);

/* Tokens of so many bytes of text that nobody has counted, on the high side. */
LLMKIT_EXPORT uint64_t llmkit_estimate_tokens(size_t bytes);

/* ---- targets: where a call may go ---- */

typedef struct llmkit_targets llmkit_targets;

#define LLMKIT_TARGETS_MAX 32

/*
 * The targets that name stands for: those of a configured route, else the configured model of that
 * name, else the one "provider/model"; of the one provider, if there is but one, also its model.
 * scope gives user and key for the targets' limits; its provider and model are not looked at; NULL:
 * no user, and the keys that are configured. A configuration that changes is followed within a
 * second. LLMKIT_E_UNKNOWN_MODEL, and those of llmkit_limits_open(), but that an observer may open
 * and route. *out is the caller's, closed before the handle and after its tickets and leases ended.
 * Any number of threads may use it at once.
 */
LLMKIT_EXPORT int llmkit_targets_open(
	llmkit *kit, const char *name, const struct llmkit_scope *scope, llmkit_targets **out);
LLMKIT_EXPORT void llmkit_targets_close(llmkit_targets *targets);

/* The limits that apply to calls of one target: owned by the targets. NULL: no such target, or an
 * observer's. */
LLMKIT_EXPORT llmkit_limits *llmkit_targets_limits(llmkit_targets *targets, unsigned target);

enum llmkit_strategy {
	LLMKIT_STRATEGY_DEFAULT, /* the route's; balanced where there is none */
	LLMKIT_STRATEGY_BALANCED,
	LLMKIT_STRATEGY_COST,
	LLMKIT_STRATEGY_LATENCY,
	LLMKIT_STRATEGY_RELIABILITY,
	LLMKIT_STRATEGY_ROUND_ROBIN, /* no learning */
	LLMKIT_STRATEGY_WEIGHTED,    /* no learning; the route's weights */
	LLMKIT_STRATEGY_ORDER,       /* as configured: the first that may */
};

enum llmkit_capability {
	LLMKIT_TOOLS = 1,
	LLMKIT_VISION = 2,
	LLMKIT_JSON = 4,
	LLMKIT_REASONING = 8,
	LLMKIT_STREAMING = 16,
};

/* What is known of a call before it is sent. All 0 is a good beginning. */
struct llmkit_query {
	size_t size; /* sizeof(struct llmkit_query) */
	enum llmkit_strategy strategy;
	uint16_t weight_cost, weight_latency, weight_reliability; /* parts of 1000, of BALANCED; all
	                                                           * 0: the route's, or equal */
	uint64_t input_tokens, cached_tokens;                     /* estimates */
	uint64_t output_tokens;     /* 0: the 95th percentile learned for model and tag */
	const char *tag;            /* the caller's label; NULL: none */
	uint64_t max_tokens;        /* bound on what was learned; 0: none */
	uint64_t capabilities;      /* that a target must have: enum llmkit_capability bits */
	uint64_t price_cap_nanousd; /* of the whole call; 0: the route's, if it has one */
	uint64_t patience_ns;       /* targets whose limits would have it wait longer are left out;
	                             * 0: the route's */
	bool look;                  /* nothing will be sent: a round robin's turn is not taken */
};

/* One target. Strings are never NULL, and valid until the targets are closed. */
struct llmkit_choice {
	unsigned target; /* for the calls below; stays the same while the targets are open */
	const char *provider, *model;
	const char *reason;                /* "chosen", "fallback", "out: breaker", … */
	uint64_t wait_ns;                  /* of its limits or its breaker; 0: now */
	uint64_t first_token_us, total_us; /* predicted; 0: nothing learned yet */
	int64_t cost_nanousd;              /* predicted; -1: price not known */
	uint64_t output_tokens;            /* what the prediction is for: to be leased */
	double score;                      /* lower is better; of one decision only */
};

struct llmkit_decision {
	unsigned usable;  /* in order: try the first, then the next */
	unsigned count;   /* from usable on: left out, and why */
	uint64_t wait_ns; /* nothing usable: the shortest wait after which something is; else 0 */
	struct llmkit_choice choice[LLMKIT_TARGETS_MAX];
};

/*
 * Decides where a call should go. Nothing is taken: that is what llmkit_allow() and
 * llmkit_lease_acquire() are for, at the first target; and if it will not, at the next. No system
 * call, but as for llmkit_acquire(). query NULL: all 0. LLMKIT_OK: at least one is usable.
 * LLMKIT_E_LIMITED: none, but one will be when wait_ns has passed (LLMKIT_WAIT_SETTLEMENT: when a
 * call has ended or an operator closed a breaker). LLMKIT_E_NO_TARGET: none, for reasons that time
 * does not change, such as a call that never fits; see each choice's. *out is filled in all three
 * cases. LLMKIT_E_ARGUMENT, LLMKIT_E_UNKNOWN_MODEL (no longer configured), LLMKIT_E_REGION, and
 * when a limit has to be made what llmkit_limits_open() says of it.
 */
LLMKIT_EXPORT int llmkit_route(
	llmkit_targets *targets, const struct llmkit_query *query, struct llmkit_decision *out);

/* Leave to call a target, until llmkit_report() or llmkit_give_up(). Zero-initialised it is none
 * yet. The caller's memory, not to be copied; used by one thread at a time. */
typedef struct llmkit_ticket {
	uint64_t opaque[24];
} llmkit_ticket;

/*
 * Asks the breakers of the target and its provider, and counts the call as in flight there.
 * LLMKIT_OK: call it, then llmkit_report() the outcome. LLMKIT_E_CIRCUIT_OPEN: not now, *wait_ns
 * (may be NULL) until it may be tried; LLMKIT_WAIT_SETTLEMENT: until a call in flight there ends or
 * an operator closes it. LLMKIT_E_PROVIDER_LIMITED: its provider asked for a pause, which ends
 * after *wait_ns. No breaker refuses the last one: when no other target of the name would be let
 * through (available, not paused, its limits leave room for a request), or llmkit_route() named
 * this one with the reason "panic" within the last second, only an operator's breaker refuses.
 * LLMKIT_E_NO_REGION for observers, LLMKIT_E_UNKNOWN_MODEL: no longer configured,
 * LLMKIT_E_ARGUMENT: no such target, or the ticket has not been reported.
 */
LLMKIT_EXPORT int llmkit_allow(
	llmkit_targets *targets, unsigned target, llmkit_ticket *ticket, uint64_t *wait_ns);

enum llmkit_outcome_class {
	LLMKIT_OUTCOME_BY_STATUS, /* 2xx: good. 429: limited. 408, 5xx, no status: failed. Else:
	                           * neutral */
	LLMKIT_OUTCOME_GOOD,
	LLMKIT_OUTCOME_FAILED,  /* the target's fault: errors, time-outs, resets, nonsense */
	LLMKIT_OUTCOME_NEUTRAL, /* nobody's, or the caller's: says nothing about the target */
	LLMKIT_OUTCOME_LIMITED, /* the provider's rate limit */
};

struct llmkit_outcome {
	size_t size; /* sizeof(struct llmkit_outcome) */
	enum llmkit_outcome_class outcome;
	unsigned http_status;                 /* 0: none came */
	uint64_t first_token_ns;              /* from sending; 0: not known, or all came at once */
	uint64_t duration_ns;                 /* from sending to the end; 0: not known */
	uint64_t input_tokens, output_tokens; /* as the provider counted; 0: not known */
	const char *tag;                      /* as in the query */
};

/* What became of the call: breakers, latencies and the learned length of answers follow. Does
 * nothing when the ticket was reported. LLMKIT_E_FORKED: it is the parent's. */
LLMKIT_EXPORT int llmkit_report(llmkit_ticket *ticket, const struct llmkit_outcome *outcome);

/* The call was not made after all. Errors as llmkit_report(). */
LLMKIT_EXPORT int llmkit_give_up(llmkit_ticket *ticket);

/* What such a call costs at a target, in nano-USD, rounded up: cached tokens are part of the input.
 * -1: price not known, or no such target. */
LLMKIT_EXPORT int64_t llmkit_price(llmkit_targets *targets, unsigned target, uint64_t input_tokens,
	uint64_t cached_tokens, uint64_t output_tokens);

struct llmkit_health {
	const char *provider, *model; /* as in llmkit_choice */
	const char *state;            /* of its breaker: "closed", "open", "half-open"; static */
	const char *provider_state;   /* of the provider's */
	bool forced;                  /* by an operator */
	uint64_t retry_ns;            /* from now until it may be probed; 0 */
	uint64_t requests, errors;    /* since it was made; neutral outcomes do not count */
	double error_rate;            /* of the breaker's window, 0 to 1 */
	uint64_t mean_us, p50_us, p99_us; /* time to first token: ever, and of the last minute */
	uint64_t gap_us;                  /* learned time between tokens; 0: nothing learned */
	uint64_t pending;                 /* calls in flight, of all processes */
	uint64_t samples;                 /* first tokens learned from */
};

/* LLMKIT_E_ARGUMENT: no such target; LLMKIT_E_UNKNOWN_MODEL: no longer configured. */
LLMKIT_EXPORT int llmkit_health(
	llmkit_targets *targets, unsigned target, struct llmkit_health *out);

/* ---- time ---- */

/* Nanoseconds of CLOCK_BOOTTIME. */
LLMKIT_EXPORT uint64_t llmkit_now_ns(void);

/* ---- the daemon ---- */

/* The daemon's status as a JSON object; *json is the caller's, freed by free(3). timeout_ms as for
 * llmkit_stream_next(). Attaches as llmkit_submit() does; LLMKIT_E_WAIT_TIMEOUT,
 * LLMKIT_E_DAEMON_LOST, and those of llmkit_open(). */
LLMKIT_EXPORT int llmkit_status(llmkit *kit, int timeout_ms, char **json);

/*
 * Has the daemon do something: "reload", "breaker-open", "breaker-close" and "breaker-reset" with
 * the name of a target ("provider/model") or a provider, "limit-reset" and "limit-resume" with a
 * limit's label. name NULL: none. timeout_ms as for llmkit_stream_next(). *message (may be NULL) is
 * the daemon's sentence about it, the caller's, freed by free(3); NULL when there is none.
 * LLMKIT_E_REFUSED for observers, LLMKIT_E_BAD_REQUEST: no such verb or limit,
 * LLMKIT_E_UNKNOWN_MODEL: no such target, LLMKIT_E_INTERNAL: the configuration has an error, and
 * stays as it was. LLMKIT_E_ARGUMENT, LLMKIT_E_WAIT_TIMEOUT, LLMKIT_E_DAEMON_LOST (it may have been
 * done), and those of llmkit_open().
 */
LLMKIT_EXPORT int llmkit_command(
	llmkit *kit, const char *verb, const char *name, int timeout_ms, char **message);

#ifdef __cplusplus
}
#endif

#endif
