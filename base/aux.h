#pragma once

/*
 * Small helpers every folder may use: ownership by cleanup attribute, array and alignment
 * arithmetic, and assertions on our own invariants. libc only.
 */

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#define aux_cleanup(fn_) __attribute__((__cleanup__(fn_)))
#define aux_printf(fmt_, args_) __attribute__((__format__(__printf__, fmt_, args_)))
#define aux_likely(x_) __builtin_expect(!!(x_), 1)
#define aux_unlikely(x_) __builtin_expect(!!(x_), 0)

#define ARRAY_SIZE(a_) (sizeof(a_) / sizeof((a_)[0]))
#define ALIGN_UP(n_, to_) (((n_) + ((to_)-1)) & ~((size_t)(to_)-1))
#define container_of(ptr_, type_, member_) \
	((type_ *)(void *)((char *)(ptr_)-offsetof(type_, member_)))

#define NSEC_PER_USEC UINT64_C(1000)
#define NSEC_PER_MSEC UINT64_C(1000000)
#define NSEC_PER_SEC UINT64_C(1000000000)
#define NSEC_PER_DAY (86400 * NSEC_PER_SEC)

/* Hands the pointer over: the variable becomes NULL, so its cleanup does nothing. */
#define steal_ptr(p_) \
	({ \
		__typeof__(p_) stolen_ = (p_); \
		(p_) = NULL; \
		stolen_; \
	})

static inline int steal_fd(int *fd)
{
	int stolen = *fd;

	*fd = -1;
	return stolen;
}

/* For aux_cleanup() on an owned descriptor; -1 means none. */
static inline void closep(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

/* For aux_cleanup() on an owned heap pointer of any type. */
static inline void freep(void *pp)
{
	free(*(void **)pp);
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}
