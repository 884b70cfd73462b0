#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "base/process.h"
#include "libclient/internal.h"

/* The same file mapped the same way: what is mapped already goes on to be used. */
static bool mapping_is_same(const struct mapping *a, const struct mapping *b)
{
	return a && a->device == b->device && a->inode == b->inode &&
		a->region.size == b->region.size && a->region.writable == b->region.writable;
}

static const char *mapping_open(struct mapping *m, int fd, bool writable)
{
	uint64_t boot_id[2];
	struct stat st;
	int r;

	if (fd < 0)
		return "the daemon handed over no region";
	if (fstat(fd, &st) < 0)
		return strerrordesc_np(errno);
	m->device = st.st_dev;
	m->inode = st.st_ino;
	/* Without /proc it cannot be checked; a region from a live daemon is of this boot. */
	r = region_attach(&m->region, fd, writable, process_boot_id(boot_id) == 0 ? boot_id : NULL);
	if (r < 0)
		return strerrordesc_np(-r);
	return r == REGION_OK ? "" : region_outcome_text((enum region_outcome)r);
}

void mapping_switch(struct llmkit *kit, int fd, const struct msg_welcome *welcome)
{
	struct mapping *m = calloc(1, sizeof(*m));
	const char *text =
		m ? mapping_open(m, fd, welcome->role == MSG_ROLE_PARTICIPANT) : "out of memory";

	kit->role = welcome->role;
	atomic_store(&kit->region_text, text ? text : "the region could not be mapped");
	if (!text || *text) {
		free(m);
		atomic_store(&kit->mapping, NULL);
		return;
	}
	for (struct mapping *old = kit->mappings; old; old = old->older) {
		if (mapping_is_same(old, m)) {
			region_detach(&m->region);
			free(m);
			atomic_store(&old->owner, welcome->owner);
			atomic_store(&kit->mapping, old);
			return;
		}
	}
	atomic_store(&m->owner, welcome->owner);
	m->older = kit->mappings;
	kit->mappings = m;
	atomic_store(&kit->mapping, m);
}

void mapping_disown_all(struct llmkit *kit)
{
	for (struct mapping *m = kit->mappings; m; m = m->older)
		atomic_store(&m->owner, 0);
}

void mapping_free_all(struct llmkit *kit)
{
	struct mapping *m = kit->mappings;

	while (m) {
		struct mapping *older = m->older;

		region_detach(&m->region);
		free(m);
		m = older;
	}
}
