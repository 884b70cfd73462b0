#include "proto/msg.h"

#include <errno.h>
#include <msgpack.h>
#include <string.h>
#include "base/aux.h"
#include "base/error.h"
#include "proto/bounds.h"
#include "proto/utf8.h"

/* Head of a msgpack string: one byte of type and at most four of length. */
#define STR_HEAD_MAX 5

/*
 * One table per body says what it holds; packing and unpacking both walk it. A key at its
 * default is not written.
 */
enum field_kind {
	FIELD_U32,
	FIELD_U64,
	FIELD_COUNT, /* int64_t; -1 when absent, never negative on the wire */
	FIELD_BOOL,
	FIELD_ROLE,
	FIELD_TEXT, /* struct str, UTF-8 */
	FIELD_NAME, /* struct str, UTF-8 without control characters, at most MSG_NAME_MAX */
	FIELD_JSON, /* struct str from str or bin; its JSON parser checks it */
};

#define WRONG_U32 "is not an integer from 0 to 4294967295"
#define WRONG_U64 "is not an integer from 0 to 2^64-1"
#define WRONG_COUNT "is not an integer from 0 to 2^63-1"
#define WRONG_BOOL "is not a boolean"
#define WRONG_ROLE "is not 0 (observer) or 1 (participant)"
#define WRONG_TEXT "is not a UTF-8 string"
#define WRONG_NAME "is not a UTF-8 string of at most 256 bytes without control characters"
#define WRONG_JSON "is neither a string nor bytes"

struct field {
	const char *key;
	enum field_kind kind;
	bool required;
	size_t offset;
	const char *missing, *wrong, *twice;
};

struct shape {
	const struct field *fields;
	size_t count;
	const char *not_map, *bad_key;
};

#define FIELD(body_, key_, kind_, required_) \
	{ \
		.key = #key_, .kind = FIELD_##kind_, .required = (required_), \
		.offset = offsetof(struct msg_##body_, key_), \
		.missing = #body_ ": \"" #key_ "\" is missing", \
		.wrong = #body_ ": \"" #key_ "\" " WRONG_##kind_, \
		.twice = #body_ ": \"" #key_ "\" is there twice", \
	}
#define SHAPE(body_) \
	static const struct shape body_##_shape = { body_##_fields, ARRAY_SIZE(body_##_fields), \
		#body_ ": the body is not a map", #body_ ": a key is not a string" }

static const struct field hello_fields[] = {
	FIELD(hello, version_min, U32, true),
	FIELD(hello, version_max, U32, true),
	FIELD(hello, pid, U64, false),
	FIELD(hello, client, NAME, false),
	FIELD(hello, control, BOOL, false),
};
SHAPE(hello);

static const struct field welcome_fields[] = {
	FIELD(welcome, version, U32, true),
	FIELD(welcome, role, ROLE, false),
	FIELD(welcome, daemon_pid, U64, false),
	FIELD(welcome, generation, U64, false),
	FIELD(welcome, body_max, U32, true),
	FIELD(welcome, daemon, TEXT, false),
	FIELD(welcome, control, BOOL, false),
	FIELD(welcome, owner, U64, false),
};
SHAPE(welcome);

static const struct field submit_fields[] = {
	FIELD(submit, model, NAME, false),
	FIELD(submit, route, NAME, false),
	FIELD(submit, user, NAME, false),
	FIELD(submit, tag, NAME, false),
	FIELD(submit, timeout_ms, U64, false),
	FIELD(submit, body, JSON, true),
};
SHAPE(submit);

static const struct field resolve_fields[] = {
	FIELD(resolve, provider, NAME, false),
	FIELD(resolve, model, NAME, false),
	FIELD(resolve, user, NAME, false),
	FIELD(resolve, key, NAME, false),
};
SHAPE(resolve);

static const struct field command_fields[] = {
	FIELD(command, verb, NAME, true),
	FIELD(command, name, NAME, false),
};
SHAPE(command);

static const struct field done_fields[] = {
	FIELD(done, status, U32, true),
	FIELD(done, message, TEXT, false),
};
SHAPE(done);

static const struct shape empty_shape = { NULL, 0, "the body is not a map",
	"a key is not a string" };

static const struct field status_reply_fields[] = {
	FIELD(status_reply, json, TEXT, true),
};
SHAPE(status_reply);

static const struct field start_fields[] = {
	FIELD(start, provider, TEXT, false),
	FIELD(start, model, TEXT, false),
	FIELD(start, id, TEXT, false),
};
SHAPE(start);

static const struct field tool_call_fields[] = {
	FIELD(tool_call, index, U32, false),
	FIELD(tool_call, id, TEXT, false),
	FIELD(tool_call, name, TEXT, false),
	FIELD(tool_call, arguments, TEXT, false),
};
SHAPE(tool_call);

static const struct field usage_fields[] = {
	FIELD(usage, input, COUNT, false),
	FIELD(usage, output, COUNT, false),
	FIELD(usage, cached_input, COUNT, false),
	FIELD(usage, cache_write, COUNT, false),
	FIELD(usage, reasoning, COUNT, false),
};
SHAPE(usage);

static const struct field end_fields[] = {
	FIELD(end, finish_reason, TEXT, false),
	FIELD(end, first_token_us, U64, false),
	FIELD(end, total_us, U64, false),
};
SHAPE(end);

static const struct field error_fields[] = {
	FIELD(error, status, U32, true),
	FIELD(error, message, TEXT, false),
	FIELD(error, provider, TEXT, false),
	FIELD(error, http_status, U32, false),
	FIELD(error, retry_after_ns, U64, false),
	FIELD(error, limit, TEXT, false),
	FIELD(error, received, U64, false),
};
SHAPE(error);

/* ---- packing ---- */

/* A frame being appended: the header is written last, when the length is known. */
struct packing {
	msgpack_packer packer;
	struct buffer *out;
	size_t start; /* from the buffer's head, which growing moves */
};

static int packing_write(void *context, const char *data, size_t length)
{
	return buffer_append(context, data, length);
}

/* hint: bytes of body to expect, so that the buffer grows at most once. */
static int packing_begin(struct packing *p, struct buffer *out, size_t hint)
{
	int r;

	p->out = out;
	p->start = buffer_length(out);
	r = buffer_reserve(out, FRAME_HEADER_SIZE + hint);
	if (r < 0)
		return error_trace(r);
	out->end += FRAME_HEADER_SIZE;
	msgpack_packer_init(&p->packer, out, packing_write);
	return 0;
}

/* r: how writing the body went. On failure the buffer's contents are as they were. */
static int packing_end(struct packing *p, enum frame_type type, uint64_t id, int r)
{
	size_t length = buffer_length(p->out) - p->start - FRAME_HEADER_SIZE;

	if (r == 0 && length > FRAME_BODY_MAX)
		r = -EMSGSIZE;
	if (r < 0) {
		p->out->end = p->out->begin + p->start;
		return error_trace(r);
	}
	frame_encode(
		&(struct frame_header){
			.length = (uint32_t)length, .type = (uint8_t)type, .request_id = id },
		buffer_head(p->out) + p->start);
	return 0;
}

static int pack_str(struct packing *p, struct str s)
{
	int r;

	/* Also keeps the length inside what msgpack can say. */
	if (s.length > FRAME_BODY_MAX)
		return -EMSGSIZE;
	r = msgpack_pack_str(&p->packer, s.length);
	return r < 0 ? r : msgpack_pack_str_body(&p->packer, s.data, s.length);
}

/* May quote what a provider sent, cut anywhere: the peer would refuse what is not UTF-8. */
static int pack_text(struct packing *p, struct str s)
{
	int r = pack_str(p, s);

	if (r == 0 && !utf8_is_valid(s))
		utf8_repair(buffer_tail(p->out) - s.length, s.length);
	return r;
}

static const void *field_of(const struct field *f, const void *message)
{
	return (const char *)message + f->offset;
}

static bool field_is_str(const struct field *f)
{
	return f->kind == FIELD_TEXT || f->kind == FIELD_NAME || f->kind == FIELD_JSON;
}

/* A number field's value; 0 is its default, but for FIELD_COUNT, where it is above INT64_MAX. */
static uint64_t field_number(const struct field *f, const void *message)
{
	const void *at = field_of(f, message);

	switch (f->kind) {
	case FIELD_BOOL:
		return *(const bool *)at;
	case FIELD_U32:
		return *(const uint32_t *)at;
	case FIELD_ROLE:
		return (uint64_t) * (const enum msg_role *)at;
	case FIELD_COUNT:
		return (uint64_t) * (const int64_t *)at;
	default:
		return *(const uint64_t *)at;
	}
}

static bool field_is_written(const struct field *f, const void *message)
{
	if (f->required)
		return true;
	if (field_is_str(f))
		return ((const struct str *)field_of(f, message))->length > 0;
	if (f->kind == FIELD_COUNT)
		return field_number(f, message) <= INT64_MAX;
	return field_number(f, message) != 0;
}

static int pack_value(struct packing *p, const struct field *f, const void *message)
{
	uint64_t number;

	if (f->kind == FIELD_TEXT)
		return pack_text(p, *(const struct str *)field_of(f, message));
	if (field_is_str(f))
		return pack_str(p, *(const struct str *)field_of(f, message));
	number = field_number(f, message);
	if (f->kind == FIELD_BOOL)
		return number ? msgpack_pack_true(&p->packer) : msgpack_pack_false(&p->packer);
	return msgpack_pack_uint64(&p->packer, number);
}

static int pack_map(struct packing *p, const struct shape *shape, const void *message)
{
	size_t pairs = 0;
	int r;

	for (size_t i = 0; i < shape->count; i++)
		pairs += field_is_written(&shape->fields[i], message);
	r = msgpack_pack_map(&p->packer, pairs);
	for (size_t i = 0; r == 0 && i < shape->count; i++) {
		const struct field *f = &shape->fields[i];

		if (!field_is_written(f, message))
			continue;
		r = pack_str(p, str_of(f->key));
		if (r == 0)
			r = pack_value(p, f, message);
	}
	return r;
}

static int pack_body(struct buffer *out, enum frame_type type, uint64_t id,
	const struct shape *shape, const void *message)
{
	struct packing p;
	int r;

	r = packing_begin(&p, out, STR_HEAD_MAX);
	if (r < 0)
		return r;
	return packing_end(&p, type, id, pack_map(&p, shape, message));
}

int msg_pack_hello(struct buffer *out, const struct msg_hello *m)
{
	return pack_body(out, FRAME_HELLO, 0, &hello_shape, m);
}

int msg_pack_welcome(struct buffer *out, const struct msg_welcome *m)
{
	return pack_body(out, FRAME_WELCOME, 0, &welcome_shape, m);
}

int msg_pack_submit(struct buffer *out, uint64_t id, const struct msg_submit *m)
{
	return pack_body(out, FRAME_SUBMIT, id, &submit_shape, m);
}

int msg_pack_cancel(struct buffer *out, uint64_t id)
{
	return pack_body(out, FRAME_CANCEL, id, &empty_shape, NULL);
}

int msg_pack_status(struct buffer *out, uint64_t id)
{
	return pack_body(out, FRAME_STATUS, id, &empty_shape, NULL);
}

int msg_pack_resolve(struct buffer *out, uint64_t id, const struct msg_resolve *m)
{
	return pack_body(out, FRAME_RESOLVE, id, &resolve_shape, m);
}

int msg_pack_command(struct buffer *out, uint64_t id, const struct msg_command *m)
{
	return pack_body(out, FRAME_COMMAND, id, &command_shape, m);
}

int msg_pack_done(struct buffer *out, uint64_t id, const struct msg_done *m)
{
	return pack_body(out, FRAME_DONE, id, &done_shape, m);
}

int msg_pack_status_reply(struct buffer *out, uint64_t id, const struct msg_status_reply *m)
{
	return pack_body(out, FRAME_STATUS_REPLY, id, &status_reply_shape, m);
}

int msg_pack_start(struct buffer *out, uint64_t id, const struct msg_start *m)
{
	return pack_body(out, FRAME_START, id, &start_shape, m);
}

int msg_pack_text(struct buffer *out, uint64_t id, enum frame_type type, struct str text)
{
	struct packing p;
	int r;

	r = packing_begin(&p, out, STR_HEAD_MAX + text.length);
	if (r < 0)
		return r;
	return packing_end(&p, type, id, pack_str(&p, text));
}

int msg_pack_tool_call(struct buffer *out, uint64_t id, const struct msg_tool_call *m)
{
	return pack_body(out, FRAME_TOOL_CALL, id, &tool_call_shape, m);
}

int msg_pack_usage(struct buffer *out, uint64_t id, const struct msg_usage *m)
{
	return pack_body(out, FRAME_USAGE, id, &usage_shape, m);
}

int msg_pack_end(struct buffer *out, uint64_t id, const struct msg_end *m)
{
	return pack_body(out, FRAME_END, id, &end_shape, m);
}

int msg_pack_error(struct buffer *out, uint64_t id, const struct msg_error *m)
{
	return pack_body(out, FRAME_ERROR, id, &error_shape, m);
}

/* ---- unpacking ---- */

/* The body as one object in *result, which the caller destroys also after a refusal. */
static int unpack_object(struct str body, msgpack_unpacked *result, const char **why)
{
	enum bounds_outcome outcome = bounds_check(body.data, body.length);
	size_t at = 0;

	if (outcome != BOUNDS_OK) {
		*why = bounds_outcome_text(outcome);
		return MSG_E_BOUNDS;
	}
	switch (msgpack_unpack_next(result, body.data, body.length, &at)) {
	case MSGPACK_UNPACK_SUCCESS:
		return 0;
	case MSGPACK_UNPACK_NOMEM_ERROR:
		return error_origin(-ENOMEM);
	default:
		*why = "the body is not one msgpack value";
		return MSG_E_SHAPE;
	}
}

static bool take_str(const msgpack_object *o, enum field_kind kind, struct str *out)
{
	if (o->type == MSGPACK_OBJECT_BIN && kind == FIELD_JSON) {
		*out = str_make(o->via.bin.ptr, o->via.bin.size);
		return true;
	}
	if (o->type != MSGPACK_OBJECT_STR)
		return false;
	*out = str_make(o->via.str.ptr, o->via.str.size);
	if (kind == FIELD_NAME)
		return out->length <= MSG_NAME_MAX && utf8_is_name(*out);
	return kind == FIELD_JSON || utf8_is_valid(*out);
}

static bool take_number(const msgpack_object *o, enum field_kind kind, void *at)
{
	uint64_t number;

	if (o->type != MSGPACK_OBJECT_POSITIVE_INTEGER)
		return false;
	number = o->via.u64;
	switch (kind) {
	case FIELD_U32:
		*(uint32_t *)at = (uint32_t)number;
		return number <= UINT32_MAX;
	case FIELD_ROLE:
		*(enum msg_role *)at = (enum msg_role)number;
		return number <= MSG_ROLE_PARTICIPANT;
	case FIELD_COUNT:
		*(int64_t *)at = (int64_t)number;
		return number <= INT64_MAX;
	default:
		*(uint64_t *)at = number;
		return true;
	}
}

static bool take_value(const msgpack_object *o, const struct field *f, void *message)
{
	void *at = (char *)message + f->offset;

	if (field_is_str(f))
		return take_str(o, f->kind, at);
	if (f->kind != FIELD_BOOL)
		return take_number(o, f->kind, at);
	if (o->type != MSGPACK_OBJECT_BOOLEAN)
		return false;
	*(bool *)at = o->via.boolean;
	return true;
}

static int take_pair(const msgpack_object_kv *pair, const struct shape *shape, void *message,
	unsigned *seen, const char **why)
{
	const struct field *f = shape->fields;
	size_t i = 0;
	struct str key;

	if (!take_str(&pair->key, FIELD_TEXT, &key)) {
		*why = shape->bad_key;
		return MSG_E_SHAPE;
	}
	while (i < shape->count && !str_is(key, f[i].key))
		i++;
	if (i == shape->count)
		return 0;
	if (*seen & 1u << i) {
		*why = f[i].twice;
		return MSG_E_SHAPE;
	}
	*seen |= 1u << i;
	if (!take_value(&pair->val, &f[i], message)) {
		*why = f[i].wrong;
		return MSG_E_SHAPE;
	}
	return 0;
}

static int take_map(
	const msgpack_object *o, const struct shape *shape, void *message, const char **why)
{
	unsigned seen = 0;
	int r = 0;

	if (o->type != MSGPACK_OBJECT_MAP) {
		*why = shape->not_map;
		return MSG_E_SHAPE;
	}
	for (uint32_t i = 0; r == 0 && i < o->via.map.size; i++)
		r = take_pair(&o->via.map.ptr[i], shape, message, &seen, why);
	for (size_t i = 0; r == 0 && i < shape->count; i++) {
		if (!shape->fields[i].required || seen & 1u << i)
			continue;
		*why = shape->fields[i].missing;
		r = MSG_E_SHAPE;
	}
	return r;
}

static int unpack_map(struct str body, const struct shape *shape, void *message, const char **why)
{
	aux_cleanup(msgpack_unpacked_destroy) msgpack_unpacked unpacked;
	int r;

	msgpack_unpacked_init(&unpacked);
	r = unpack_object(body, &unpacked, why);
	return r ? r : take_map(&unpacked.data, shape, message, why);
}

int msg_unpack_hello(struct str body, struct msg_hello *m, const char **why)
{
	*m = (struct msg_hello){ 0 };
	return unpack_map(body, &hello_shape, m, why);
}

int msg_unpack_welcome(struct str body, struct msg_welcome *m, const char **why)
{
	*m = (struct msg_welcome){ 0 };
	return unpack_map(body, &welcome_shape, m, why);
}

int msg_unpack_submit(struct str body, struct msg_submit *m, const char **why)
{
	*m = (struct msg_submit){ 0 };
	return unpack_map(body, &submit_shape, m, why);
}

int msg_unpack_empty(struct str body, const char **why)
{
	return unpack_map(body, &empty_shape, NULL, why);
}

int msg_unpack_resolve(struct str body, struct msg_resolve *m, const char **why)
{
	*m = (struct msg_resolve){ 0 };
	return unpack_map(body, &resolve_shape, m, why);
}

int msg_unpack_command(struct str body, struct msg_command *m, const char **why)
{
	*m = (struct msg_command){ 0 };
	return unpack_map(body, &command_shape, m, why);
}

int msg_unpack_done(struct str body, struct msg_done *m, const char **why)
{
	*m = (struct msg_done){ 0 };
	return unpack_map(body, &done_shape, m, why);
}

int msg_unpack_status_reply(struct str body, struct msg_status_reply *m, const char **why)
{
	*m = (struct msg_status_reply){ 0 };
	return unpack_map(body, &status_reply_shape, m, why);
}

int msg_unpack_start(struct str body, struct msg_start *m, const char **why)
{
	*m = (struct msg_start){ 0 };
	return unpack_map(body, &start_shape, m, why);
}

int msg_unpack_text(struct str body, struct str *text, const char **why)
{
	aux_cleanup(msgpack_unpacked_destroy) msgpack_unpacked unpacked;
	int r;

	*text = STR_NULL;
	msgpack_unpacked_init(&unpacked);
	r = unpack_object(body, &unpacked, why);
	if (r != 0)
		return r;
	if (!take_str(&unpacked.data, FIELD_TEXT, text)) {
		*why = "text: the body is not a UTF-8 string";
		return MSG_E_SHAPE;
	}
	return 0;
}

int msg_unpack_tool_call(struct str body, struct msg_tool_call *m, const char **why)
{
	*m = (struct msg_tool_call){ 0 };
	return unpack_map(body, &tool_call_shape, m, why);
}

int msg_unpack_usage(struct str body, struct msg_usage *m, const char **why)
{
	*m = (struct msg_usage){ -1, -1, -1, -1, -1 };
	return unpack_map(body, &usage_shape, m, why);
}

int msg_unpack_end(struct str body, struct msg_end *m, const char **why)
{
	*m = (struct msg_end){ 0 };
	return unpack_map(body, &end_shape, m, why);
}

int msg_unpack_error(struct str body, struct msg_error *m, const char **why)
{
	*m = (struct msg_error){ 0 };
	return unpack_map(body, &error_shape, m, why);
}
