#include "daemon/io/secret.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/aux.h"

/* Most heads have less than half of it. */
#define SECRET_SLOT 1024
/* Slots are mapped so many bytes at a time and kept; untouched ones cost no memory. */
#define SECRET_CHUNK (64u << 10)

/* OpenSSL's calls for one record take about 8 KiB. */
#define SECRET_STACK (16u << 10)

struct secret_slot {
	struct secret_slot *next;
};

static struct {
	struct secret_slot *unused; /* given back */
	char *fresh;                /* of the newest chunk: never used, so not yet real memory */
	size_t fresh_size;
} secrets;

static char *secret_map(size_t size)
{
	char *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (map == MAP_FAILED)
		return NULL;
	/* Where these are not to be had, keys.c has said so. */
	mlock2(map, size, MLOCK_ONFAULT);
	madvise(map, size, MADV_DONTDUMP);
	madvise(map, size, MADV_WIPEONFORK);
	return map;
}

static size_t secret_pages(size_t size)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	return ALIGN_UP(size, page);
}

static char *secret_carve(void)
{
	if (secrets.fresh_size == 0) {
		secrets.fresh = secret_map(SECRET_CHUNK);
		secrets.fresh_size = secrets.fresh ? SECRET_CHUNK : 0;
	}
	if (secrets.fresh_size == 0)
		return NULL;
	secrets.fresh_size -= SECRET_SLOT;
	return secrets.fresh + secrets.fresh_size;
}

char *secret_new(size_t size)
{
	struct secret_slot *slot = secrets.unused;

	if (size > SECRET_SLOT)
		return secret_map(secret_pages(size));
	if (!slot)
		return secret_carve();
	secrets.unused = slot->next;
	return (char *)slot;
}

char *secret_free(char *secret, size_t size)
{
	struct secret_slot *slot = (struct secret_slot *)secret;

	if (!secret)
		return NULL;
	explicit_bzero(secret, size);
	if (size > SECRET_SLOT) {
		munmap(secret, secret_pages(size));
		return NULL;
	}
	slot->next = secrets.unused;
	secrets.unused = slot;
	return NULL;
}

__attribute__((noinline)) void secret_burn_stack(void)
{
	char room[SECRET_STACK];

	explicit_bzero(room, sizeof(room));
}
