#pragma once

/*
 * A fuzz target is LLVMFuzzerTestOneInput(), and may be fuzz_example() too. With clang and
 * -Dfuzzer=true it is a libFuzzer program; else fuzz-main.c drives it with seeded random and
 * mutated inputs, so that it runs in every build.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/buffer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Appends the n-th well-formed input, for the driver to mutate; false after the last. A target
 * need not have it. */
bool fuzz_example(unsigned n, struct buffer *out) __attribute__((__weak__));

/* As assert(), in every build. */
#define FUZZ_CHECK(what_) \
	do { \
		if (!(what_)) { \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what_); \
			abort(); \
		} \
	} while (0)
