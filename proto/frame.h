#pragma once

/*
 * Frames: what travels over the Unix stream socket, both ways. A frame is a fixed header of 16
 * bytes, little-endian, and a body of one msgpack value:
 *
 *      0        4     5     6         8                16
 *     | length | type|flags|reserved | request id     | body ...
 *
 * length counts the body. The request id is chosen by the client, is not 0, and is unique among
 * the requests open on that connection; connection-level frames carry 0. reserved is 0.
 * No I/O, no allocation.
 */

#include <stdint.h>
#include <stddef.h>

#define FRAME_HEADER_SIZE 16
#define FRAME_BODY_MAX (UINT32_C(16) << 20)
/* Before HELLO nothing larger is read. */
#define FRAME_HELLO_MAX 4096

enum frame_type {
	/* client to daemon */
	FRAME_HELLO = 0x01,
	FRAME_SUBMIT = 0x02,
	FRAME_CANCEL = 0x03,
	FRAME_STATUS = 0x04,
	FRAME_RESOLVE = 0x05, /* limits that a template makes for these names */
	FRAME_COMMAND = 0x06,
	/* daemon to client */
	FRAME_WELCOME = 0x81, /* with one descriptor: the control region */
	FRAME_STATUS_REPLY = 0x84,
	FRAME_DONE = 0x85,  /* answer to RESOLVE and COMMAND */
	FRAME_START = 0x90, /* the provider accepted; first frame of a good stream */
	FRAME_TEXT = 0x91,
	FRAME_REASONING = 0x92,
	FRAME_TOOL_CALL = 0x93,
	FRAME_USAGE = 0x94,
	FRAME_END = 0x95,   /* exactly one of END and ERROR ends a request */
	FRAME_ERROR = 0x96, /* with request id 0: ends the connection */
};

struct frame_header {
	uint32_t length;
	uint8_t type;
	uint8_t flags;
	uint64_t request_id;
};

enum frame_outcome {
	FRAME_OK = 0,
	FRAME_E_MORE,      /* fewer bytes than a header: read on */
	FRAME_E_TOO_LARGE, /* length above the caller's maximum */
	FRAME_E_RESERVED,  /* reserved field or flags not 0: a newer or a broken peer */
};

/* Reads a header from size bytes at data. */
enum frame_outcome frame_decode(
	const void *data, size_t size, uint32_t body_max, struct frame_header *out);

/* Writes the header's 16 bytes. */
void frame_encode(const struct frame_header *h, void *out);

/* "SUBMIT" style name, "unknown" for others. */
const char *frame_type_name(uint8_t type);
