#include "daemon/reply.h"

#include "daemon/pipeline.h"

/* Longer texts, of answers that do not stream, become several frames. */
#define REPLY_TEXT_MAX (1u << 20)

static struct buffer *reply_output(struct request *r)
{
	r->delivered = true;
	return r->client->output(r->client);
}

static int reply_packed(struct request *r, int packed)
{
	r->pack_error = packed;
	r->client->flush(r->client);
	return packed;
}

static int reply_on_start(void *context, const struct msg_start *m)
{
	struct request *r = context;
	struct msg_start start = {
		.provider = request_provider_name(r),
		.model = m->model.length ? m->model : request_target(r)->upstream,
		.id = m->id,
	};

	return reply_packed(r, msg_pack_start(reply_output(r), r->id, &start));
}

static void reply_note_first_token(struct request *r)
{
	if (!r->first_token_ns)
		r->first_token_ns = loop_now(r->loop);
}

/* The head of a text, cut between two characters where it is longer than a frame should be. */
static struct str reply_piece(struct str text)
{
	size_t n = text.length;

	if (n > REPLY_TEXT_MAX)
		for (n = REPLY_TEXT_MAX; n > REPLY_TEXT_MAX - 4; n--)
			if (((unsigned char)text.data[n] & 0xc0) != 0x80)
				break;
	return str_make(text.data, n);
}

static int reply_on_text(void *context, enum frame_type type, struct str text)
{
	struct request *r = context;
	int packed = 0;

	reply_note_first_token(r);
	while (packed == 0 && text.length) {
		struct str piece = reply_piece(text);

		packed = msg_pack_text(reply_output(r), r->id, type, piece);
		text = str_make(text.data + piece.length, text.length - piece.length);
	}
	return reply_packed(r, packed);
}

static int reply_on_tool_call(void *context, const struct msg_tool_call *m)
{
	struct request *r = context;

	reply_note_first_token(r);
	return reply_packed(r, msg_pack_tool_call(reply_output(r), r->id, m));
}

struct format_sink reply_sink(struct request *r)
{
	return (struct format_sink){
		.start = reply_on_start,
		.text = reply_on_text,
		.tool_call = reply_on_tool_call,
		.context = r,
	};
}

/* ---- the last frame ---- */

static uint64_t reply_elapsed_us(const struct request *r, uint64_t at_ns)
{
	return at_ns > r->arrived_ns ? (at_ns - r->arrived_ns) / NSEC_PER_USEC : 0;
}

static int reply_end(struct request *r)
{
	struct buffer *out = r->client->output(r->client);
	const struct msg_end end = {
		.finish_reason = str_of(r->finish_reason),
		.first_token_us = r->first_token_ns ? reply_elapsed_us(r, r->first_token_ns) : 0,
		.total_us = reply_elapsed_us(r, loop_now(r->loop)),
	};
	int e = msg_pack_usage(out, r->id, &r->usage);

	return e < 0 ? e : msg_pack_end(out, r->id, &end);
}

static int reply_error(struct request *r)
{
	const struct request_failure *f = &r->failure;
	const struct msg_error error = {
		.status = f->status,
		.message = str_of(f->message ? f->message : status_text(f->status)),
		.provider = request_provider_name(r),
		.http_status = f->http_status,
		.retry_after_ns = f->retry_after_ns,
		.limit = str_of(f->limit),
		.received = r->received,
	};

	return msg_pack_error(r->client->output(r->client), r->id, &error);
}

void reply_last(struct request *r)
{
	int e = r->failure.status == STATUS_OK ? reply_end(r) : reply_error(r);

	if (e < 0)
		r->client->broken(r->client);
	else
		r->client->flush(r->client);
}
