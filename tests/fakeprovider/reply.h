#pragma once

/*
 * How the body of an answer becomes bytes on the wire: framing by length, chunks or the
 * connection's end, an optional gzip wrapping (stored blocks: valid, not smaller), and the cut
 * after so many body bytes.
 */

#include "base/buffer.h"

enum reply_framing { FRAMING_LENGTH, FRAMING_CHUNKED, FRAMING_CLOSE };

struct gzip {
	uint32_t crc, size;
};

struct reply {
	struct buffer *out;
	enum reply_framing framing;
	bool cut;            /* the cut has happened; nothing more may follow */
	int64_t cut_left;    /* negative: never */
	uint64_t body_bytes; /* as sent: gzipped, without the chunk framing */
	bool zipped;
	struct gzip gzip;
	struct buffer scratch;
};

void gzip_begin(struct gzip *g, struct buffer *out);
void gzip_piece(struct gzip *g, struct buffer *out, struct str piece);
void gzip_end(struct gzip *g, struct buffer *out);

void reply_deinit(struct reply *r);

/* A new answer into out; keeps the scratch memory. */
void reply_begin(struct reply *r, struct buffer *out, enum reply_framing framing, bool zipped,
	int64_t cut_bytes);

/* Appends one piece of body, its own chunk when framed by chunks. */
void reply_body(struct reply *r, struct str piece);

/* Ends the body; trailers (may be NULL) are complete header lines. */
void reply_end(struct reply *r, const char *trailers);
