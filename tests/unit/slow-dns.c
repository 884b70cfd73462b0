#include "tests/unit/slow-dns.h"

#include <dlfcn.h>
#include <netdb.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

/* However wrong a test goes, a lookup ends. */
#define SLOW_DNS_LONGEST_S 20

_Atomic int slow_dns_started, slow_dns_finished;
static pthread_mutex_t slow_dns_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t slow_dns_released = PTHREAD_COND_INITIALIZER;
static bool slow_dns_open;

static void slow_dns_set(bool open)
{
	pthread_mutex_lock(&slow_dns_mutex);
	slow_dns_open = open;
	pthread_cond_broadcast(&slow_dns_released);
	pthread_mutex_unlock(&slow_dns_mutex);
}

void slow_dns_release(void)
{
	slow_dns_set(true);
}

void slow_dns_hold(void)
{
	slow_dns_set(false);
}

static void slow_dns_wait(void)
{
	struct timespec deadline;

	clock_gettime(CLOCK_REALTIME, &deadline);
	deadline.tv_sec += SLOW_DNS_LONGEST_S;
	pthread_mutex_lock(&slow_dns_mutex);
	while (!slow_dns_open)
		if (pthread_cond_timedwait(&slow_dns_released, &slow_dns_mutex, &deadline) != 0)
			break;
	pthread_mutex_unlock(&slow_dns_mutex);
}

/* Defined in the program, it is what the shared libcurl finds first. */
__attribute__((visibility("default"))) int getaddrinfo(const char *restrict node,
	const char *restrict service, const struct addrinfo *restrict hints,
	struct addrinfo **restrict result)
{
	int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **) =
		dlsym(RTLD_NEXT, "getaddrinfo");
	bool slow = node && strstr(node, ".slow.test");
	int r;

	if (node && strstr(node, ".missing.test"))
		return EAI_NONAME;
	if (slow) {
		slow_dns_started++;
		slow_dns_wait();
	}
	r = real(slow ? "127.0.0.1" : node, service, hints, result);
	if (slow)
		slow_dns_finished++;
	return r;
}
