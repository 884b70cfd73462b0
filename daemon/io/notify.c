#include "daemon/io/notify.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include "base/log.h"

#define LISTEN_FDS_FIRST 3
/* More would be a mistake, and each costs a system call. */
#define LISTEN_FDS_MAX 1024

static struct {
	bool loaded;
	struct sockaddr_un address;
	socklen_t address_size; /* 0: nobody listens */
	uint64_t watchdog_ns;
	int listen_fd;
} notify = { .listen_fd = -1 };

/* A decimal number; 0 for anything else. */
static uint64_t number_of(const char *text)
{
	char *end = NULL;
	unsigned long long n;

	if (!text || *text < '0' || *text > '9')
		return 0;
	errno = 0;
	n = strtoull(text, &end, 10);
	return errno || *end ? 0 : n;
}

/* PATH, or @NAME for an abstract socket. */
static void load_address(const char *name)
{
	size_t length = name ? strlen(name) : 0;

	if (!length)
		return;
	if ((name[0] != '/' && name[0] != '@') || length >= sizeof(notify.address.sun_path)) {
		log_warning("notify: NOTIFY_SOCKET is no usable address: %s", name);
		return;
	}
	notify.address.sun_family = AF_UNIX;
	memcpy(notify.address.sun_path, name, length);
	if (name[0] == '@')
		notify.address.sun_path[0] = '\0';
	notify.address_size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
}

static bool is_for_us(const char *pid)
{
	return number_of(pid) == (uint64_t)getpid();
}

static void load_watchdog(const char *usec, const char *pid)
{
	uint64_t n = number_of(usec);

	if (n && n < UINT64_MAX / NSEC_PER_USEC && (!pid || is_for_us(pid)))
		notify.watchdog_ns = n * NSEC_PER_USEC;
}

static void load_sockets(const char *count, const char *pid)
{
	uint64_t n = number_of(count);

	if (!n || n > LISTEN_FDS_MAX || !is_for_us(pid) || fcntl(LISTEN_FDS_FIRST, F_GETFD) < 0)
		return;
	fcntl(LISTEN_FDS_FIRST, F_SETFD, FD_CLOEXEC);
	notify.listen_fd = LISTEN_FDS_FIRST;
	if (n > 1)
		log_warning("notify: %llu sockets were passed, one is used", (unsigned long long)n);
	for (int fd = LISTEN_FDS_FIRST + 1; fd < LISTEN_FDS_FIRST + (int)n; fd++)
		close(fd);
}

static void load(void)
{
	static const char *const names[] = { "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID",
		"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES" };

	if (notify.loaded)
		return;
	notify.loaded = true;
	load_address(getenv("NOTIFY_SOCKET"));
	load_watchdog(getenv("WATCHDOG_USEC"), getenv("WATCHDOG_PID"));
	load_sockets(getenv("LISTEN_FDS"), getenv("LISTEN_PID"));
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		unsetenv(names[i]);
}

static void notify_send(const char *text)
{
	int fd aux_cleanup(closep) = -1;

	load();
	if (!notify.address_size)
		return;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 ||
		sendto(fd, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL,
			(struct sockaddr *)&notify.address, notify.address_size) < 0)
		log_warning(
			"notify: the service manager was not told %s: %s", text, strerror(errno));
}

int notify_listen_fd(void)
{
	load();
	return steal_fd(&notify.listen_fd);
}

void notify_ready(void)
{
	notify_send("READY=1");
}

void notify_reloading(void)
{
	struct timespec t = { 0 };
	char text[64];

	/* The manager compares with its own clock: this one has to be CLOCK_MONOTONIC. */
	clock_gettime(CLOCK_MONOTONIC, &t);
	snprintf(text, sizeof(text), "RELOADING=1\nMONOTONIC_USEC=%llu",
		(unsigned long long)t.tv_sec * 1000000 + (unsigned long long)t.tv_nsec / 1000);
	notify_send(text);
}

void notify_stopping(void)
{
	notify_send("STOPPING=1");
}

void notify_watchdog(void)
{
	notify_send("WATCHDOG=1");
}

uint64_t notify_watchdog_interval_ns(void)
{
	load();
	return notify.watchdog_ns / 2;
}
