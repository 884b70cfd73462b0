#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include "base/aux.h"

#define CLOCKSOURCE "/sys/devices/system/clocksource/clocksource0/current_clocksource"

int clock_cycles_trusted(void)
{
	aux_cleanup(closep) int fd = open(CLOCKSOURCE, O_RDONLY | O_CLOEXEC);
	char name[32] = { 0 };

	if (fd < 0 || read(fd, name, sizeof(name) - 1) <= 0)
		return 0;
	return strncmp(name, "tsc", 3) == 0 || strncmp(name, "arch_sys_counter", 16) == 0;
}

int clock_sleep_until(uint64_t deadline_ns)
{
	struct timespec at = {
		.tv_sec = (time_t)(deadline_ns / NSEC_PER_SEC),
		.tv_nsec = (long)(deadline_ns % NSEC_PER_SEC),
	};

	return -clock_nanosleep(CLOCK_BOOTTIME, TIMER_ABSTIME, &at, NULL);
}
