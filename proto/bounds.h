#pragma once

/*
 * Walks a msgpack value and refuses it before anything is allocated for it: depth, element
 * count (never more than the bytes could hold), exactly one value and nothing after it. A 5-byte
 * array header that claims 67 million elements costs nothing here.
 */

#include <stddef.h>

#define BOUNDS_DEPTH_MAX 16
#define BOUNDS_ELEMENTS_MAX 4096

enum bounds_outcome {
	BOUNDS_OK = 0,
	BOUNDS_E_SHORT, /* the value needs more bytes than there are */
	BOUNDS_E_DEPTH,
	BOUNDS_E_ELEMENTS,
	BOUNDS_E_TRAILING, /* bytes after the value */
	BOUNDS_E_TYPE,     /* ext types and the never-used byte 0xc1 */
};

enum bounds_outcome bounds_check(const void *data, size_t size);
const char *bounds_outcome_text(enum bounds_outcome outcome);
