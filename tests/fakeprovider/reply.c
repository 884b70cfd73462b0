#include "tests/fakeprovider/reply.h"

#include "tests/fakeprovider/put.h"

#define STORED_MAX 65535U

static uint32_t crc_update(uint32_t crc, struct str s)
{
	static uint32_t table[256];

	if (!table[1]) {
		for (uint32_t i = 0; i < 256; i++) {
			uint32_t c = i;

			for (int bit = 0; bit < 8; bit++)
				c = c & 1 ? 0xedb88320U ^ (c >> 1) : c >> 1;
			table[i] = c;
		}
	}
	for (size_t i = 0; i < s.length; i++)
		crc = table[(crc ^ (unsigned char)s.data[i]) & 0xff] ^ (crc >> 8);
	return crc;
}

static void put_le(struct buffer *b, uint32_t v, int bytes)
{
	for (int i = 0; i < bytes; i++)
		put(b, &(unsigned char){ (unsigned char)(v >> (8 * i)) }, 1);
}

void gzip_begin(struct gzip *g, struct buffer *out)
{
	static const unsigned char head[] = { 0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255 };

	*g = (struct gzip){ .crc = 0xffffffffU };
	put(out, head, sizeof(head));
}

static void put_stored(struct buffer *out, bool last, struct str s)
{
	put(out, &(unsigned char){ last }, 1);
	put_le(out, (uint32_t)s.length, 2);
	put_le(out, ~(uint32_t)s.length, 2);
	put_str(out, s);
}

void gzip_piece(struct gzip *g, struct buffer *out, struct str piece)
{
	g->crc = crc_update(g->crc, piece);
	g->size += (uint32_t)piece.length;
	while (piece.length) {
		size_t n = piece.length < STORED_MAX ? piece.length : STORED_MAX;

		put_stored(out, false, str_make(piece.data, n));
		piece = str_make(piece.data + n, piece.length - n);
	}
}

void gzip_end(struct gzip *g, struct buffer *out)
{
	put_stored(out, true, STR_NULL);
	put_le(out, ~g->crc, 4);
	put_le(out, g->size, 4);
}

void reply_deinit(struct reply *r)
{
	buffer_deinit(&r->scratch);
}

void reply_begin(struct reply *r, struct buffer *out, enum reply_framing framing, bool zipped,
	int64_t cut_bytes)
{
	r->out = out;
	r->framing = framing;
	r->cut = false;
	r->cut_left = cut_bytes;
	r->body_bytes = 0;
	r->zipped = zipped;
	r->scratch.begin = r->scratch.end = 0;
	if (zipped)
		gzip_begin(&r->gzip, &r->scratch);
}

static void put_chunk_size(struct buffer *b, size_t n)
{
	static const char hex[] = "0123456789abcdef";
	char text[18];
	size_t at = sizeof(text);

	text[--at] = '\n';
	text[--at] = '\r';
	do {
		text[--at] = hex[n & 15];
		n >>= 4;
	} while (n);
	put(b, text + at, sizeof(text) - at);
}

/* A cut leaves the chunk's full size announced: just what a dying server does. */
static void put_framed(struct reply *r, struct str piece)
{
	size_t n = piece.length;

	if (n == 0 || r->cut)
		return;
	if (r->cut_left >= 0 && (uint64_t)r->cut_left <= n) {
		n = (size_t)r->cut_left;
		r->cut = true;
	}
	if (r->framing == FRAMING_CHUNKED && n)
		put_chunk_size(r->out, piece.length);
	put(r->out, piece.data, n);
	r->body_bytes += n;
	if (r->cut)
		return;
	if (r->cut_left > 0)
		r->cut_left -= (int64_t)n;
	if (r->framing == FRAMING_CHUNKED)
		put_const(r->out, "\r\n");
}

static void put_scratch(struct reply *r)
{
	put_framed(r, buffer_str(&r->scratch));
	r->scratch.begin = r->scratch.end = 0;
}

void reply_body(struct reply *r, struct str piece)
{
	if (!r->zipped) {
		put_framed(r, piece);
		return;
	}
	gzip_piece(&r->gzip, &r->scratch, piece);
	put_scratch(r);
}

void reply_end(struct reply *r, const char *trailers)
{
	if (r->zipped) {
		gzip_end(&r->gzip, &r->scratch);
		put_scratch(r);
	}
	if (r->cut || r->framing != FRAMING_CHUNKED)
		return;
	put_const(r->out, "0\r\n");
	if (trailers)
		put_text(r->out, trailers);
	put_const(r->out, "\r\n");
}
