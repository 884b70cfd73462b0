#pragma once

/*
 * Memory for request heads, which carry a key, while they wait: left out of core files and of
 * children, not swapped where that is allowed, wiped when given back. Cheap for heads of usual
 * size: slots that are used again. Main thread only.
 */

#include <stddef.h>

/* NULL: no memory. The caller's, until secret_free() with the same size. */
char *secret_new(size_t size);
/* Wipes. NULL does nothing. Returns NULL. */
char *secret_free(char *secret, size_t size);

/* Wipes the stack below the caller: TLS libraries leave pieces there of what they encrypt. */
void secret_burn_stack(void);
