/*
 * One master opens the handle, forks, and every child goes on with it: submits, reads, takes
 * budgets. Prints what each used as a JSON line; test_prefork.py judges. For each process the
 * inode of its connected socket to the daemon is told: two that are equal are one socket.
 *
 *     prefork SOCKET MODEL CHILDREN
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include "libclient/llmkit.h"

#define CHILDREN_MAX 64
#define TEXT_MAX 65536
#define WAIT_MS 20000

struct child {
	int error; /* the first that was not LLMKIT_OK */
	char text[TEXT_MAX];
	size_t length;
	unsigned long inherited, own; /* inodes, 0: none */
	unsigned admitted;
	int forked; /* what the parent's stream answered */
};

static struct shared {
	_Atomic unsigned attached;
	_Atomic bool go_on;
	struct child children[CHILDREN_MAX];
} * shared;

static const char *socket_path;

/* The inode of this process' socket to the daemon; 0: there is none. */
static unsigned long socket_inode(void)
{
	unsigned long found = 0;

	for (int fd = 3; fd < 1024; fd++) {
		struct sockaddr_un peer = { 0 };
		socklen_t size = sizeof(peer);
		struct stat s;

		if (getpeername(fd, (struct sockaddr *)&peer, &size) == 0 &&
			peer.sun_family == AF_UNIX && strcmp(peer.sun_path, socket_path) == 0 &&
			fstat(fd, &s) == 0)
			found = s.st_ino;
	}
	return found;
}

static int read_answer(llmkit_stream *stream, struct child *out)
{
	struct llmkit_event e;
	int r;

	while ((r = llmkit_stream_next(stream, WAIT_MS, &e)) == 0) {
		if (e.type == LLMKIT_EVENT_TEXT && out->length + e.text.length < TEXT_MAX) {
			memcpy(out->text + out->length, e.text.data, e.text.length);
			out->length += e.text.length;
		} else if (e.type == LLMKIT_EVENT_ERROR) {
			return e.error.code;
		} else if (e.type == LLMKIT_EVENT_END) {
			return 0;
		}
	}
	return r;
}

/* All are attached at once before any of them ends, so that the daemon can be asked. */
static void meet(void)
{
	atomic_fetch_add(&shared->attached, 1);
	while (!atomic_load(&shared->go_on))
		usleep(1000);
}

static int child_work(llmkit *kit, llmkit_limits *limits, llmkit_stream *parents,
	const llmkit_request *request, struct child *out)
{
	llmkit_stream *stream = NULL;
	struct llmkit_event e;
	int r;

	out->inherited = socket_inode();
	out->forked = llmkit_stream_next(parents, 0, &e);
	llmkit_stream_close(parents);
	for (int i = 0; i < 5; i++)
		out->admitted += llmkit_acquire(limits, 1, NULL) == LLMKIT_OK;
	r = llmkit_submit(kit, request, &stream);
	if (r == 0)
		r = read_answer(stream, out);
	llmkit_stream_close(stream);
	out->own = socket_inode();
	meet();
	llmkit_limits_close(limits);
	llmkit_close(kit);
	return r;
}

static void print_child(const struct child *c, const char *who)
{
	printf("{\"who\":\"%s\",\"error\":\"%s\",\"inherited\":%lu,\"own\":%lu,\"admitted\":%u,"
	       "\"forked\":\"%s\",\"text\":\"",
		who, llmkit_error_name(c->error), c->inherited, c->own, c->admitted,
		llmkit_error_name(c->forked));
	for (size_t i = 0; i < c->length; i++)
		printf("\\u%04x", (unsigned char)c->text[i]);
	puts("\"}");
}

static int open_all(const char *model, llmkit **kit, llmkit_request **request,
	llmkit_limits **limits, llmkit_stream **stream)
{
	int r = llmkit_open(kit,
		&(struct llmkit_options){
			.size = sizeof(struct llmkit_options), .socket = socket_path });

	*request = llmkit_request_new(model);
	if (r == 0)
		r = llmkit_request_add_message(*request, "user", "hello");
	if (r == 0)
		r = llmkit_request_set_stream(*request, true);
	if (r == 0)
		r = llmkit_limits_open(*kit,
			&(struct llmkit_scope){
				.size = sizeof(struct llmkit_scope), .user = "forks" },
			limits);
	return r == 0 ? llmkit_submit(*kit, *request, stream) : r;
}

static void wait_until_attached(unsigned children)
{
	for (int i = 0; i < WAIT_MS && atomic_load(&shared->attached) < children; i++)
		usleep(1000);
}

static int parent_work(llmkit *kit, llmkit_stream *stream, unsigned children, const pid_t *pids)
{
	static struct child parent;
	char *status = NULL;
	int r;

	wait_until_attached(children);
	r = llmkit_status(kit, WAIT_MS, &status);
	printf("{\"who\":\"status\",\"error\":\"%s\",\"attached\":%u,\"status\":%s}\n",
		llmkit_error_name(r), atomic_load(&shared->attached), status ? status : "null");
	free(status);
	atomic_store(&shared->go_on, true);
	for (unsigned i = 0; i < children; i++)
		waitpid(pids[i], NULL, 0);
	parent.own = socket_inode();
	parent.error = read_answer(stream, &parent);
	for (unsigned i = 0; i < children; i++)
		print_child(&shared->children[i], "child");
	print_child(&parent, "parent");
	return parent.error;
}

int main(int argc, char **argv)
{
	unsigned children = argc == 4 ? (unsigned)strtoul(argv[3], NULL, 10) : 0;
	llmkit *kit = NULL;
	llmkit_request *request = NULL;
	llmkit_limits *limits = NULL;
	llmkit_stream *stream = NULL;
	pid_t pids[CHILDREN_MAX];
	int r;

	if (!children || children > CHILDREN_MAX)
		return fputs("usage: prefork SOCKET MODEL CHILDREN\n", stderr), 2;
	socket_path = argv[1];
	shared = mmap(
		NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		return perror("mmap"), 1;
	r = open_all(argv[2], &kit, &request, &limits, &stream);
	if (r != 0)
		return fprintf(stderr, "prefork: %s\n", llmkit_strerror(r)), 1;
	for (unsigned i = 0; i < children; i++) {
		pids[i] = fork();
		if (pids[i] == 0) {
			struct child *c = &shared->children[i];

			c->error = child_work(kit, limits, stream, request, c);
			_exit(c->error ? 1 : 0);
		}
	}
	r = parent_work(kit, stream, children, pids);
	llmkit_stream_close(stream);
	llmkit_limits_close(limits);
	llmkit_request_free(request);
	llmkit_close(kit);
	munmap(shared, sizeof(*shared));
	return r ? 1 : 0;
}
