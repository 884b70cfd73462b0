#include "base/process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include "base/aux.h"

static int process_read(const char *path, char *out, size_t size)
{
	aux_cleanup(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, out, size - 1);
	if (n < 0)
		return -errno;
	out[n] = '\0';
	return 0;
}

int process_start_ticks(uint64_t pid, uint64_t *start)
{
	char path[64], text[1024];
	unsigned long threads = 0;
	char state;
	const char *at;
	int r;

	snprintf(path, sizeof(path), "/proc/%llu/stat", (unsigned long long)pid);
	r = process_read(path, text, sizeof(text));
	if (r < 0)
		return r == -ENOENT ? -ESRCH : r;
	/* The command name may hold spaces and parentheses: count from the last one. */
	at = strrchr(text, ')');
	at = at ? strchr(at, ' ') : NULL;
	if (!at)
		return -EIO;
	state = at[1];
	for (int field = 3; at && field < 22; field++) {
		at = strchr(at + 1, ' ');
		if (at && field == 19)
			threads = strtoul(at, NULL, 10);
	}
	if (!at)
		return -EIO;
	/* Dead, though not waited for yet. A first thread that ended before the others looks the
	 * same but for their number. */
	if ((state == 'Z' || state == 'X') && threads <= 1)
		return -ESRCH;
	*start = strtoull(at, NULL, 10);
	return 0;
}

/* A pidfd is readable once all threads have ended, waited for or not. */
static bool process_has_ended(uint64_t pid)
{
	aux_cleanup(closep) int fd = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
	struct pollfd p = { .fd = fd, .events = POLLIN };

	if (fd < 0)
		return kill((pid_t)pid, 0) < 0 && errno == ESRCH;
	return poll(&p, 1, 0) > 0;
}

bool process_is_gone(uint64_t pid, uint64_t start)
{
	uint64_t now_start;

	if (pid == 0 || pid > INT32_MAX)
		return true;
	if (process_start_ticks(pid, &now_start) == 0 && start != 0)
		return now_start != start;
	return process_has_ended(pid);
}

int process_boot_id(uint64_t out[2])
{
	char text[64], hex[33];
	size_t n = 0;
	int r = process_read("/proc/sys/kernel/random/boot_id", text, sizeof(text));

	if (r < 0)
		return r;
	for (const char *at = text; *at && n < 32; at++)
		if (*at != '-' && *at != '\n')
			hex[n++] = *at;
	if (n != 32)
		return -EIO;
	hex[32] = '\0';
	out[1] = strtoull(hex + 16, NULL, 16);
	hex[16] = '\0';
	out[0] = strtoull(hex, NULL, 16);
	return 0;
}

int process_open_standard_fds(void)
{
	/* The lowest free number is taken, so each lands where it is missing. */
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0 &&
			open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
			return -errno;
	return 0;
}
