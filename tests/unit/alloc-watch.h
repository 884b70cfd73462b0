#pragma once

/*
 * Counts this program's allocations, those of shared libraries too, and can make the n-th one of
 * the calling thread fail. Include it in one file of a program. Sanitizers own the allocator:
 * there only counting works.
 */

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

struct alloc_watch {
	size_t bytes;
	size_t calls;
	size_t fail_at; /* 1: the next one; 0: none */
};

static struct alloc_watch alloc_watch;

#ifdef SANITIZED

#define ALLOC_WATCH_CAN_FAIL 0

int __sanitizer_install_malloc_and_free_hooks(
	void (*on_malloc)(const volatile void *, size_t), void (*on_free)(const volatile void *));

static void alloc_watch_malloc(const volatile void *p, size_t size)
{
	(void)p;
	alloc_watch.bytes += size;
	alloc_watch.calls++;
}

static void alloc_watch_free(const volatile void *p)
{
	(void)p;
}

static void __attribute__((__constructor__)) alloc_watch_install(void)
{
	__sanitizer_install_malloc_and_free_hooks(alloc_watch_malloc, alloc_watch_free);
}

#else

#define ALLOC_WATCH_CAN_FAIL 1

static _Thread_local int alloc_watch_here;

/* glibc's own names of what is interposed here. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t size);

static int alloc_watch_refuses(size_t size)
{
	alloc_watch.calls++;
	alloc_watch.bytes += size;
	if (!alloc_watch_here || alloc_watch.fail_at == 0 || --alloc_watch.fail_at > 0)
		return 0;
	errno = ENOMEM;
	return 1;
}

__attribute__((__visibility__("default"))) void *malloc(size_t size)
{
	return alloc_watch_refuses(size) ? NULL : __libc_malloc(size);
}

__attribute__((__visibility__("default"))) void *calloc(size_t n, size_t size)
{
	return alloc_watch_refuses(n * size) ? NULL : __libc_calloc(n, size);
}

__attribute__((__visibility__("default"))) void *realloc(void *p, size_t size)
{
	return alloc_watch_refuses(size) ? NULL : __libc_realloc(p, size);
}

#endif

/* Starts counting anew; fail_at 0: nothing fails. */
static inline void alloc_watch_begin(size_t fail_at)
{
	alloc_watch = (struct alloc_watch){ .fail_at = fail_at };
#if ALLOC_WATCH_CAN_FAIL
	alloc_watch_here = 1;
#endif
}

/* What was counted; nothing fails from here on. */
static inline struct alloc_watch alloc_watch_end(void)
{
	struct alloc_watch seen = alloc_watch;

	alloc_watch.fail_at = 0;
	return seen;
}
