#pragma once

/*
 * Frame bodies: msgpack <-> plain structs. The only home of msgpack.h. Bodies are maps with
 * short string keys; unknown keys are skipped, absent keys have the stated default, so both
 * sides can grow. FRAME_TEXT and FRAME_REASONING are one bare string.
 *
 * msg_pack_*() append one whole frame, header included, to a buffer: 0, -ENOMEM, or -EMSGSIZE
 * when the body would be above FRAME_BODY_MAX (the buffer's contents are as before).
 * msg_unpack_*() read a body: every struct str they return is a view into it. They return 0,
 * -ENOMEM, or MSG_E_* with a sentence in *why (static text); *m is then not to be used.
 *
 * Strings are UTF-8; the names a client sends are also at most MSG_NAME_MAX bytes and hold no
 * control characters. A submit's body is passed on as bytes: its JSON parser
 * checks it. Packing checks nothing, but repairs what the daemon quotes: all strings in its maps.
 * msg_pack_text() relies on its caller.
 */

#include <stdbool.h>
#include <stdint.h>
#include "base/buffer.h"
#include "base/str.h"
#include "proto/frame.h"
#include "proto/status.h"

#define PROTOCOL_VERSION_MIN 1
#define PROTOCOL_VERSION_MAX 1
#define MSG_NAME_MAX 256

enum msg_outcome {
	MSG_OK = 0,
	MSG_E_BOUNDS, /* refused by proto/bounds.h */
	MSG_E_SHAPE,  /* not a map, a value of the wrong type, a required key missing */
};

struct msg_hello {
	uint32_t version_min, version_max; /* required */
	uint64_t pid;                      /* as the client sees itself; informative */
	struct str client;                 /* "name/version", informative */
	bool control;                      /* wants the control region's descriptor */
};

enum msg_role {
	MSG_ROLE_OBSERVER = 0,    /* region read-only */
	MSG_ROLE_PARTICIPANT = 1, /* region read-write */
};

struct msg_welcome {
	uint32_t version;
	enum msg_role role;
	uint64_t daemon_pid;
	uint64_t generation; /* of the region */
	uint32_t body_max;   /* largest body the daemon reads */
	struct str daemon;   /* "llmkitd/version" */
	bool control;        /* one descriptor came with this frame */
	uint64_t owner;      /* the word that marks this process's holds in the region; 0: none */
};

struct msg_submit {
	struct str model;    /* a model, "provider/model"; or empty when route is given */
	struct str route;    /* a route's name; or empty */
	struct str user;     /* for per-user limits; may be empty */
	struct str tag;      /* caller's label; may be empty */
	uint64_t timeout_ms; /* for the whole request, from arrival; 0: the daemon's default */
	struct str body;     /* required: JSON, OpenAI chat schema; its "stream" member decides */
};

/* The limits that apply to these names are to exist: templates make those that do not. Empty: not
 * known, limits of that scope do not apply. */
struct msg_resolve {
	struct str provider, model, user, key;
};

struct msg_command {
	struct str verb; /* required; PROTOCOL.md lists them */
	struct str name; /* what it acts on: a target, or a limit's label as in msg_error */
};

/* The answer to both. */
struct msg_done {
	uint32_t status;    /* STATUS_OK, or why not */
	struct str message; /* what, where, what to do */
};

struct msg_start {
	struct str provider, model, id;
};

struct msg_tool_call {
	uint32_t index;
	struct str id, name;  /* empty after the first fragment of an index */
	struct str arguments; /* fragment of JSON text */
};

/* -1: the provider did not say. input includes what came from its cache. */
struct msg_usage {
	int64_t input, output, cached_input, cache_write, reasoning;
};

struct msg_end {
	struct str finish_reason; /* stop, length, tool_calls, content_filter, or the provider's */
	uint64_t first_token_us;  /* from the request's arrival */
	uint64_t total_us;
};

struct msg_error {
	uint32_t status;         /* enum status */
	struct str message;      /* what, where, what to do */
	struct str provider;     /* empty when no provider was involved */
	uint32_t http_status;    /* 0 when there was none */
	uint64_t retry_after_ns; /* 0: not known */
	struct str limit;        /* "scope name resource" of the blocking limit, or empty */
	uint64_t received;       /* text bytes delivered before the error */
};

struct msg_status_reply {
	struct str json; /* an object; see PROTOCOL.md */
};

int msg_pack_hello(struct buffer *out, const struct msg_hello *m);
int msg_pack_welcome(struct buffer *out, const struct msg_welcome *m);
int msg_pack_submit(struct buffer *out, uint64_t id, const struct msg_submit *m);
int msg_pack_cancel(struct buffer *out, uint64_t id);
int msg_pack_status(struct buffer *out, uint64_t id);
int msg_pack_resolve(struct buffer *out, uint64_t id, const struct msg_resolve *m);
int msg_pack_command(struct buffer *out, uint64_t id, const struct msg_command *m);
int msg_pack_status_reply(struct buffer *out, uint64_t id, const struct msg_status_reply *m);
int msg_pack_done(struct buffer *out, uint64_t id, const struct msg_done *m);
int msg_pack_start(struct buffer *out, uint64_t id, const struct msg_start *m);
/* type is FRAME_TEXT or FRAME_REASONING */
int msg_pack_text(struct buffer *out, uint64_t id, enum frame_type type, struct str text);
int msg_pack_tool_call(struct buffer *out, uint64_t id, const struct msg_tool_call *m);
int msg_pack_usage(struct buffer *out, uint64_t id, const struct msg_usage *m);
int msg_pack_end(struct buffer *out, uint64_t id, const struct msg_end *m);
int msg_pack_error(struct buffer *out, uint64_t id, const struct msg_error *m);

int msg_unpack_hello(struct str body, struct msg_hello *m, const char **why);
int msg_unpack_welcome(struct str body, struct msg_welcome *m, const char **why);
int msg_unpack_submit(struct str body, struct msg_submit *m, const char **why);
/* CANCEL and STATUS carry an empty map. */
int msg_unpack_empty(struct str body, const char **why);
int msg_unpack_resolve(struct str body, struct msg_resolve *m, const char **why);
int msg_unpack_command(struct str body, struct msg_command *m, const char **why);
int msg_unpack_status_reply(struct str body, struct msg_status_reply *m, const char **why);
int msg_unpack_done(struct str body, struct msg_done *m, const char **why);
int msg_unpack_start(struct str body, struct msg_start *m, const char **why);
int msg_unpack_text(struct str body, struct str *text, const char **why);
int msg_unpack_tool_call(struct str body, struct msg_tool_call *m, const char **why);
int msg_unpack_usage(struct str body, struct msg_usage *m, const char **why);
int msg_unpack_end(struct str body, struct msg_end *m, const char **why);
int msg_unpack_error(struct str body, struct msg_error *m, const char **why);
