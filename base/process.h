#pragma once

/*
 * Who a process is, beyond its reusable pid, and which boot this is: from /proc. And what a
 * process has to see to before it opens anything.
 */

#include <stdbool.h>
#include <stdint.h>

/* Start time in clock ticks since boot (field 22 of /proc/PID/stat). 0, -ESRCH (none, or dead
 * and not waited for), -errno. */
int process_start_ticks(uint64_t pid, uint64_t *start);

/* Whether the process that had this pid and start is certainly no more: only proof counts, so
 * that a folder /proc that cannot be read (no descriptors left, hidepid) kills nobody. start 0:
 * it was not known. */
bool process_is_gone(uint64_t pid, uint64_t start);

/* /proc/sys/kernel/random/boot_id as 128 bits. 0 or -errno. */
int process_boot_id(uint64_t out[2]);

/* First thing in main(): a program started with standard descriptors closed would get its sockets
 * there, and write its messages into them. Those that are closed become /dev/null, the wrong way
 * round, so that reading and writing fail as they did. 0 or -errno. */
int process_open_standard_fds(void);
