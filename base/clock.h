#pragma once

/*
 * The clocks. Decisions take time as an argument; only loops, libraries' public calls and
 * tools read it, and they read it here. All times are nanoseconds of CLOCK_BOOTTIME, which
 * counts suspend (the provider's bucket refills while we sleep) and never jumps with the wall
 * clock.
 */

#include <stdint.h>
#include <time.h>
#if defined(__x86_64__)
#include <x86intrin.h>
#endif

static inline uint64_t clock_boottime_ns(void)
{
	struct timespec t = { 0 };

	clock_gettime(CLOCK_BOOTTIME, &t);
	return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

/* Wall clock, nanoseconds since 1970: only to compare with dates that a provider sent. */
static inline uint64_t clock_unix_ns(void)
{
	struct timespec t = { 0 };

	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

/* CPU cycle counter, 12 ns against 28 for clock_gettime on the reference machine; 0 where the
 * architecture gives none. Converted to CLOCK_BOOTTIME by shm/timebase.h. */
static inline uint64_t clock_cycles(void)
{
#if defined(__x86_64__)
	return __rdtsc();
#elif defined(__aarch64__)
	uint64_t v;

	__asm__ volatile("mrs %0, cntvct_el0" : "=r"(v));
	return v;
#else
	return 0;
#endif
}

/* Whether the kernel itself trusts the cycle counter as its clock (one read of sysfs). */
int clock_cycles_trusted(void);

/* Sleeps until the CLOCK_BOOTTIME instant; 0, or -EINTR when a signal came. */
int clock_sleep_until(uint64_t deadline_ns);
