#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/paths.h"
#include "libclient/internal.h"

#define CONNECT_TIMEOUT_MS 5000
#define CLIENT_MAX 128
#define GUARD_SIZE 4096 /* the kernel rounds up to a page */

/* ---- time ---- */

uint64_t llmkit_now_ns(void)
{
	return clock_boottime_ns();
}

uint64_t kit_deadline(int timeout_ms)
{
	if (timeout_ms < 0)
		return DEADLINE_NEVER;
	return clock_boottime_ns() + (uint64_t)timeout_ms * NSEC_PER_MSEC;
}

uint64_t kit_remaining(uint64_t deadline_ns)
{
	uint64_t now = clock_boottime_ns();

	return deadline_ns > now ? deadline_ns - now : 0;
}

/* ---- fork ---- */

static int kit_guard_new(struct guard **out)
{
	struct guard *guard =
		mmap(NULL, GUARD_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (guard == MAP_FAILED)
		return LLMKIT_E_SYSTEM;
	if (madvise(guard, GUARD_SIZE, MADV_WIPEONFORK) < 0) {
		munmap(guard, GUARD_SIZE);
		return LLMKIT_E_SYSTEM;
	}
	atomic_store(&guard->state, GUARD_READY);
	*out = guard;
	return LLMKIT_OK;
}

static void kit_close_fd(int *fd)
{
	closep(fd);
	*fd = -1;
}

/* A lock that a thread of the parent held at the fork is made anew; whether it was free. */
static bool kit_reset_lock(pthread_mutex_t *lock)
{
	if (pthread_mutex_trylock(lock) == 0) {
		pthread_mutex_unlock(lock);
		return true;
	}
	pthread_mutex_init(lock, NULL);
	return false;
}

/*
 * The child has a copy of everything as it was at the fork. Where another thread held the lock
 * then, that thread is not here to finish its change: what it guarded is left behind, not
 * looked at. Mappings and limits are only ever pushed whole, so they can be used on.
 */
static void kit_reset(struct llmkit *kit)
{
	bool is_whole = kit_reset_lock(&kit->lock);
	int attaching = atomic_exchange(&kit->attaching_fd, -1);
	struct conn *conn = kit->conn;

	kit->conn = NULL;
	/* Closed, not shut down: the connection is the parent's. */
	closep(&attaching);
	if (conn) {
		kit_close_fd(&conn->fd);
		conn->references = 1; /* pollers and writers were threads of the parent */
		if (is_whole)
			conn_unref(conn);
	}
	kit_close_fd(&kit->epoll_fd);
	kit_close_fd(&kit->event_fd);
	if (!is_whole)
		kit->left_behind = kit->process;
	kit->process++;
	mapping_disown_all(kit);
	kit_reset_lock(&kit->sending);
}

void kit_after_fork(struct llmkit *kit)
{
	_Atomic uint32_t *state = &kit->guard->state;
	uint32_t expected = GUARD_FORKED;

	if (atomic_compare_exchange_strong(state, &expected, GUARD_RESETTING)) {
		kit_reset(kit);
		atomic_store(state, GUARD_DETACHED);
		return;
	}
	/* Another thread of this child is at it; it blocks on nothing. */
	while (atomic_load(state) == GUARD_RESETTING)
		sched_yield();
}

/* ---- attach ---- */

/* The daemon's socket joins the set llmkit_fd() stands for. lock is held. */
static void kit_watch(struct llmkit *kit)
{
	struct epoll_event event = { .events = EPOLLIN };

	if (kit->epoll_fd >= 0 && kit->conn)
		epoll_ctl(kit->epoll_fd, EPOLL_CTL_ADD, kit->conn->fd, &event);
}

int kit_attach(struct llmkit *kit)
{
	aux_cleanup(closep) int region_fd = -1;
	struct msg_welcome welcome = { 0 };
	struct conn *conn = NULL;
	bool is_attached;
	int r;

	pthread_mutex_lock(&kit->lock);
	is_attached = kit->conn != NULL;
	pthread_mutex_unlock(&kit->lock);
	if (is_attached)
		return LLMKIT_OK;
	r = conn_open(kit, &conn, &welcome, &region_fd);
	/* Tried is enough for budgets: the inherited region stays valid without a daemon. */
	atomic_store(&kit->guard->state, GUARD_READY);
	if (r < 0)
		return r;
	pthread_mutex_lock(&kit->lock);
	mapping_switch(kit, region_fd, &welcome);
	kit->conn = conn;
	kit_watch(kit);
	pthread_mutex_unlock(&kit->lock);
	return LLMKIT_OK;
}

int kit_attach_now(struct llmkit *kit)
{
	int r;

	pthread_mutex_lock(&kit->sending);
	r = kit_attach(kit);
	pthread_mutex_unlock(&kit->sending);
	return r;
}

void kit_enter_attached(struct llmkit *kit)
{
	kit_enter(kit);
	if (atomic_load(&kit->guard->state) == GUARD_READY)
		return;
	pthread_mutex_lock(&kit->sending);
	if (atomic_load(&kit->guard->state) == GUARD_DETACHED)
		kit_attach(kit);
	pthread_mutex_unlock(&kit->sending);
}

int kit_need_region(struct llmkit *kit)
{
	int r;

	kit_enter_attached(kit);
	if (!atomic_load(&kit->mapping)) {
		r = kit_attach_now(kit);
		if (r < 0)
			return r;
	}
	if (atomic_load(&kit->mapping))
		return LLMKIT_OK;
	return kit->role == MSG_ROLE_OBSERVER ? LLMKIT_E_NO_REGION : LLMKIT_E_REGION;
}

/* ---- open and close ---- */

static int kit_options(struct llmkit *kit, const struct llmkit_options *options)
{
	struct llmkit_options o = { 0 };
	char path[PATHS_MAX];

	/* A caller built against an older header knows fewer members. */
	if (options && options->size < sizeof(size_t))
		return LLMKIT_E_ARGUMENT;
	if (options)
		memcpy(&o, options, options->size < sizeof(o) ? options->size : sizeof(o));
	if (o.connect_timeout_ms < 0 || (o.client && strlen(o.client) > CLIENT_MAX))
		return LLMKIT_E_ARGUMENT;
	if (paths_socket(o.socket, path, sizeof(path)) < 0)
		return LLMKIT_E_ARGUMENT;
	kit->timeout_ns = NSEC_PER_MSEC *
		(uint64_t)(o.connect_timeout_ms ? o.connect_timeout_ms : CONNECT_TIMEOUT_MS);
	kit->socket = strdup(path);
	kit->client = strdup(o.client ? o.client : "");
	return kit->socket && kit->client ? LLMKIT_OK : LLMKIT_E_NO_MEMORY;
}

static int kit_new(struct llmkit **out)
{
	struct llmkit *kit = calloc(1, sizeof(*kit));
	int r;

	if (!kit)
		return LLMKIT_E_NO_MEMORY;
	r = kit_guard_new(&kit->guard);
	if (r < 0) {
		free(kit);
		return r;
	}
	kit->process = 1;
	kit->attaching_fd = kit->epoll_fd = kit->event_fd = -1;
	kit->region_text = "";
	pthread_mutex_init(&kit->lock, NULL);
	pthread_mutex_init(&kit->sending, NULL);
	*out = kit;
	return LLMKIT_OK;
}

static void kit_closep(struct llmkit **kit)
{
	llmkit_close(*kit);
}

int llmkit_open(llmkit **out, const struct llmkit_options *options)
{
	aux_cleanup(kit_closep) struct llmkit *kit = NULL;
	int r;

	if (!out)
		return LLMKIT_E_ARGUMENT;
	*out = NULL;
	r = kit_new(&kit);
	if (r == LLMKIT_OK)
		r = kit_options(kit, options);
	if (r == LLMKIT_OK)
		r = kit_attach(kit);
	if (r < 0)
		return r;
	*out = steal_ptr(kit);
	return LLMKIT_OK;
}

void llmkit_close(llmkit *kit)
{
	int error = errno;

	if (!kit)
		return;
	kit_enter(kit);
	conn_unref(kit->conn);
	mapping_free_all(kit);
	closep(&kit->epoll_fd);
	closep(&kit->event_fd);
	munmap(kit->guard, GUARD_SIZE);
	free(kit->socket);
	free(kit->client);
	free(kit);
	errno = error; /* why an open failed is still of interest */
}

const char *llmkit_region_text(llmkit *kit)
{
	if (!kit)
		return "";
	kit_enter(kit);
	return atomic_load(&kit->region_text);
}

/* ---- event loops ---- */

void kit_notify(struct llmkit *kit)
{
	if (kit->event_fd >= 0)
		eventfd_write(kit->event_fd, 1);
}

static int kit_make_fd(struct llmkit *kit)
{
	aux_cleanup(closep) int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	aux_cleanup(closep) int event_fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
	struct epoll_event event = { .events = EPOLLIN };

	if (epoll_fd < 0 || event_fd < 0)
		return -1;
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, event_fd, &event) < 0)
		return -1;
	kit->epoll_fd = steal_fd(&epoll_fd);
	kit->event_fd = steal_fd(&event_fd);
	kit_watch(kit);
	return kit->epoll_fd;
}

int llmkit_fd(llmkit *kit)
{
	int fd;

	if (!kit)
		return -1;
	kit_enter(kit);
	pthread_mutex_lock(&kit->lock);
	fd = kit->epoll_fd >= 0 ? kit->epoll_fd : kit_make_fd(kit);
	pthread_mutex_unlock(&kit->lock);
	return fd;
}

int llmkit_dispatch(llmkit *kit)
{
	struct conn *conn;
	eventfd_t count;
	int r;

	if (!kit)
		return LLMKIT_E_ARGUMENT;
	kit_enter(kit);
	pthread_mutex_lock(&kit->lock);
	conn = kit->conn;
	if (kit->event_fd >= 0)
		eventfd_read(kit->event_fd, &count);
	if (!conn)
		r = LLMKIT_E_DAEMON_LOST;
	else
		r = conn->reading ? 0 : wire_read(kit, conn); /* a reader is awake as well */
	if (r == 0 && kit->conn != conn)
		r = LLMKIT_E_DAEMON_LOST;
	pthread_mutex_unlock(&kit->lock);
	return r;
}

/* ---- status ---- */

static int kit_pack_status(struct buffer *out, uint64_t id, const void *nothing)
{
	(void)nothing;
	return msg_pack_status(out, id);
}

static int kit_read_status(struct item *item, char **json)
{
	struct str body = str_make(item->body, item->header.length);
	struct msg_status_reply reply;
	struct msg_error error;
	const char *why;

	if (item->header.type == FRAME_ERROR && msg_unpack_error(body, &error, &why) == MSG_OK)
		return error_of_status(error.status);
	if (item->header.type != FRAME_STATUS_REPLY ||
		msg_unpack_status_reply(body, &reply, &why) != MSG_OK)
		return LLMKIT_E_PROTOCOL;
	*json = str_dup(reply.json);
	return *json ? LLMKIT_OK : LLMKIT_E_NO_MEMORY;
}

int llmkit_status(llmkit *kit, int timeout_ms, char **json)
{
	uint64_t deadline = kit_deadline(timeout_ms);
	struct llmkit_stream *stream = NULL;
	int r;

	if (!kit || !json)
		return LLMKIT_E_ARGUMENT;
	*json = NULL;
	kit_enter(kit);
	r = stream_open(kit, kit_pack_status, NULL, &stream);
	if (r < 0)
		return r;
	r = stream_take(stream, deadline);
	if (r == LLMKIT_OK)
		r = kit_read_status(stream->current, json);
	llmkit_stream_close(stream);
	return r;
}
