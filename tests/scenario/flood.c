/*
 * Sends random and mutated frames to a daemon as fast as it takes them: valid frames of every
 * type, then with bits flipped, bytes put in or left out, lengths changed, or nothing but noise.
 * Repeatable: the seed decides everything. test_badinput.py looks at what the daemon makes of it.
 *
 *     flood SOCKET SEED FRAMES     prints {"frames":...,"connections":...,...}
 */

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "base/buffer.h"
#include "proto/msg.h"
#include "tests/unit/splitmix.h"

#define FRAMES_PER_CONNECTION 64
#define BODY_MAX_RANDOM 300

static uint64_t state;

static uint64_t dice(uint64_t sides)
{
	return splitmix_below(&state, sides);
}

/* ---- frames ---- */

static const char *const bodies[] = {
	"{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"stream\":true}",
	"{\"messages\":[]}",
	"{\"messages\":[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]}",
	"{\"messages\":[{\"role\":\"user\",\"content\":\"\\ud800\"}]}",
	"[]",
	"",
};
static const char *const models[] = { "openai/fake", "openai/", "nosuch/m", "openai", "", "\x01" };

static void put_hello(struct buffer *b)
{
	const struct msg_hello hello = {
		.version_min = 1, .version_max = 1, .client = str_of("flood/1")
	};

	msg_pack_hello(b, &hello);
}

static void put_submit(struct buffer *b)
{
	const struct msg_submit submit = {
		/* The last two end the connection. */
		.model = str_of(models[dice(ARRAY_SIZE(models) - (dice(32) ? 2 : 0))]),
		.user = str_of("flood"),
		.timeout_ms = 1 + dice(1000),
		.body = str_of(bodies[dice(ARRAY_SIZE(bodies))]),
	};

	msg_pack_submit(b, 1 + dice(1000000), &submit);
}

static void put_good(struct buffer *b)
{
	uint64_t kind = dice(64);

	if (kind == 0)
		put_hello(b); /* not allowed a second time */
	else if (kind < 6)
		msg_pack_status(b, dice(100));
	else if (kind < 32)
		msg_pack_cancel(b, dice(1000));
	else
		put_submit(b);
}

static void put_noise(struct buffer *b)
{
	struct frame_header h = { .type = (uint8_t)dice(256), .request_id = dice(5) };
	char bytes[FRAME_HEADER_SIZE + BODY_MAX_RANDOM];

	h.length = (uint32_t)dice(BODY_MAX_RANDOM);
	if (dice(3) == 0)
		h.type = (uint8_t)(1 + dice(4));
	frame_encode(&h, bytes);
	for (size_t i = dice(4) ? FRAME_HEADER_SIZE : 0; i < sizeof(bytes); i++)
		bytes[i] = (char)splitmix_next(&state);
	buffer_append(b, bytes, FRAME_HEADER_SIZE + h.length);
}

/* Counts the frame's own bytes from "from" on. */
static void mutate(struct buffer *b, size_t from)
{
	char *bytes = buffer_head(b) + from;
	size_t size = buffer_length(b) - from;
	/* The body far more often: a broken header ends everything behind it. */
	size_t at = dice(8) && size > FRAME_HEADER_SIZE ?
		FRAME_HEADER_SIZE + dice(size - FRAME_HEADER_SIZE) :
		dice(size);

	switch (dice(4)) {
	case 0:
		bytes[at] = (char)(bytes[at] ^ (1 << dice(8)));
		break;
	case 1:
		bytes[at] = (char)splitmix_next(&state);
		break;
	case 2: /* a byte less, the header still promises it */
		memmove(bytes + at, bytes + at + 1, size - at - 1);
		b->end--;
		break;
	default: /* a length or count of msgpack becomes huge */
		bytes[at] = (char)(0xdb + dice(5));
	}
}

static void put_frame(struct buffer *b)
{
	size_t from = buffer_length(b);
	unsigned kind = (unsigned)dice(64);

	if (kind == 0) {
		put_noise(b);
		return;
	}
	put_good(b);
	if (kind < 5)
		mutate(b, from);
}

/* ---- connections ---- */

static int connect_to(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const struct timeval limit = { .tv_sec = 20 };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		perror("flood: connect");
		exit(1);
	}
	return fd;
}

/* Reads until the daemon closes; false when it does neither for long. */
static bool read_to_end(int fd, uint64_t *bytes)
{
	char scratch[65536];
	ssize_t n;

	while ((n = recv(fd, scratch, sizeof(scratch), 0)) > 0)
		*bytes += (uint64_t)n;
	return n == 0 || errno == ECONNRESET;
}

int main(int argc, char **argv)
{
	uint64_t wanted = argc == 4 ? strtoull(argv[3], NULL, 10) : 0;
	uint64_t frames = 0, connections = 0, bytes = 0, hung = 0;
	struct buffer b = BUFFER_NULL;

	if (!wanted)
		return fputs("usage: flood SOCKET SEED FRAMES\n", stderr), 2;
	state = strtoull(argv[2], NULL, 10);
	while (frames < wanted && !hung) {
		unsigned count = (unsigned)(1 + dice(FRAMES_PER_CONNECTION));
		int fd = connect_to(argv[1]);

		buffer_reset(&b, SIZE_MAX);
		if (dice(16))
			put_hello(&b);
		for (unsigned i = 0; i < count; i++)
			put_frame(&b);
		/* An error is fine: the daemon closed after a bad frame before it read the rest. */
		(void)!send(fd, buffer_head(&b), buffer_length(&b), MSG_NOSIGNAL);
		shutdown(fd, SHUT_WR);
		if (!read_to_end(fd, &bytes)) {
			fprintf(stderr,
				"flood: connection %" PRIu64 " of %u frames neither ended "
				"nor went on\n",
				connections, count);
			hung++;
		}
		close(fd);
		frames += count;
		connections++;
	}
	printf("{\"frames\":%" PRIu64 ",\"connections\":%" PRIu64 ",\"answer_bytes\":%" PRIu64
	       ",\"hung\":%" PRIu64 "}\n",
		frames, connections, bytes, hung);
	buffer_deinit(&b);
	return hung ? 1 : 0;
}
