#include "bench/path.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/aux.h"
#include "base/clock.h"

#define START_TRIES 2000 /* of 10 ms: certificates are made at the first start */

static struct path_host *started;

void path_die(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	fputs("path: ", stderr);
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
	va_end(arguments);
	exit(1);
}

void path_pin(int which)
{
	static cpu_set_t all;
	cpu_set_t one;

	if (CPU_COUNT(&all) == 0 && sched_getaffinity(0, sizeof(all), &all) < 0)
		return;
	which %= CPU_COUNT(&all);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &all) || which-- > 0)
			continue;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		sched_setaffinity(0, sizeof(one), &one);
		return;
	}
}

pid_t path_fork(int cpu)
{
	pid_t pid = fork();

	if (pid < 0)
		path_die("fork: %s", strerror(errno));
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		path_pin(cpu);
	}
	return pid;
}

/* ---- starting programs ---- */

static pid_t spawn(int cpu, const char *const *command)
{
	pid_t pid = path_fork(cpu);

	if (pid)
		return pid;
	execvp(command[0], (char *const *)(uintptr_t)command);
	fprintf(stderr, "path: %s: %s\n", command[0], strerror(errno));
	_exit(127);
}

/* A program of this build: the bench is in its bench/. */
static void built(char path[static 512], const char *name)
{
	ssize_t n = readlink("/proc/self/exe", path, 400);

	if (n < 0)
		path_die("/proc/self/exe: %s", strerror(errno));
	for (int i = 0; i < 2; i++)
		while (n > 0 && path[--n] != '/')
			;
	snprintf(path + n, 512 - (size_t)n, "/%s", name);
}

__attribute__((format(printf, 3, 4))) static void write_file(
	const struct path_host *h, const char *name, const char *format, ...)
{
	char path[128];
	va_list arguments;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", h->folder, name);
	f = fopen(path, "we");
	if (!f || fchmod(fileno(f), 0600) < 0)
		path_die("%s: %s", path, strerror(errno));
	va_start(arguments, format);
	vfprintf(f, format, arguments);
	va_end(arguments);
	if (fclose(f) != 0)
		path_die("%s: %s", path, strerror(errno));
}

static bool try_connect(const struct sockaddr *address, socklen_t size)
{
	int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool up = fd >= 0 && connect(fd, address, size) == 0;

	if (fd >= 0)
		close(fd);
	return up;
}

/* Until the process listens. */
static void await(const char *what, pid_t pid, const struct sockaddr *address, socklen_t size)
{
	for (int i = 0; i < START_TRIES; i++) {
		if (waitpid(pid, NULL, WNOHANG) == pid)
			path_die("%s ended at once", what);
		if (try_connect(address, size))
			return;
		usleep(10000);
	}
	path_die("%s did not start", what);
}

static struct sockaddr_in loopback(uint16_t port)
{
	return (struct sockaddr_in){
		.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
}

static void start_provider(struct path_host *h)
{
	char program[512], ports[128], ca[128];
	const char *const command[] = { program, "--quiet", "--ports-file", ports, "--tls-listen",
		"127.0.0.1:0", "--ca-dir", ca, NULL };
	FILE *f = NULL;

	built(program, "tests/fakeprovider/fakeprovider");
	snprintf(ports, sizeof(ports), "%s/ports", h->folder);
	snprintf(ca, sizeof(ca), "%s/ca", h->folder);
	h->provider = spawn(PATH_CPU_CLIENT, command);
	for (int i = 0; i < START_TRIES && !f; i++) {
		if (waitpid(h->provider, NULL, WNOHANG) == h->provider)
			path_die("%s ended at once", program);
		usleep(10000);
		f = fopen(ports, "re");
	}
	if (!f || fscanf(f, "plain %hu tls %hu", &h->plain_port, &h->tls_port) != 2)
		path_die("%s did not start", program);
	fclose(f);
}

void path_host_socket(const struct path_host *h, char path[static 108])
{
	snprintf(path, 108, "%s/llmkit.sock", h->folder);
}

static const char daemon_config[] =
	"socket: %s/llmkit.sock\n"
	"runtime: %s\n"
	"log: {level: error}\n"
	"providers:\n"
	"  - {name: plain, family: openai, base_url: 'http://127.0.0.1:%u/v1',\n"
	"     key: {file: %s/key}, connections: 1100}\n"
	"  - {name: tls, family: openai, base_url: 'https://localhost:%u/v1',\n"
	"     key: {file: %s/key}, ca_file: %s/ca/ca.pem, connections: 1100}\n"
	"limits:\n"
	"  - {provider: plain, requests: 1000000/s, burst: 1000000}\n"
	"  - {provider: tls, requests: 1000000/s, burst: 1000000}\n";

static void start_daemon(struct path_host *h)
{
	char program[512], config[128];
	const char *const command[] = { program, "--config", config, "--log-level", "error", NULL };
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	built(program, "daemon/llmkitd");
	snprintf(config, sizeof(config), "%s/llmkitd.yaml", h->folder);
	write_file(h, "key", "%s\n", PATH_KEY);
	write_file(h, "llmkitd.yaml", daemon_config, h->folder, h->folder, h->plain_port, h->folder,
		h->tls_port, h->folder, h->folder);
	/* Nothing of the caller's settings. */
	unsetenv("LLMKIT_SOCKET");
	unsetenv("http_proxy");
	unsetenv("all_proxy");
	unsetenv("ALL_PROXY");
	unsetenv("https_proxy");
	unsetenv("HTTPS_PROXY");
	h->daemon = spawn(PATH_CPU_MEASURED, command);
	path_host_socket(h, address.sun_path);
	await("llmkitd", h->daemon, (struct sockaddr *)&address, sizeof(address));
}

static const char proxy_config[] =
	"daemon off;\n"
	"master_process off;\n" /* the one worker */
	"pid %s/nginx.pid;\n"
	"error_log %s/nginx.log error;\n"
	"events { worker_connections 4096; }\n"
	"http {\n"
	"  access_log off;\n"
	"  client_body_temp_path %s/nginx-body;\n"
	"  proxy_temp_path %s/nginx-proxy;\n"
	"  fastcgi_temp_path %s/nginx-fastcgi;\n"
	"  uwsgi_temp_path %s/nginx-uwsgi;\n"
	"  scgi_temp_path %s/nginx-scgi;\n"
	"  keepalive_timeout 300s;\n"
	"  keepalive_requests 1000000000;\n"
	"  upstream provider { server 127.0.0.1:%u; keepalive 64; "
	"keepalive_requests 1000000000; }\n"
	"  server {\n"
	"    listen 127.0.0.1:%u;\n"
	"    proxy_http_version 1.1;\n"
	"    proxy_set_header Connection \"\";\n"
	"    location /v1/ { proxy_pass http://provider; }\n"
	"    location /stream/v1/ { proxy_buffering off; proxy_pass http://provider/v1/; }\n"
	"  }\n"
	"}\n";

/* nginx takes no port 0. */
static uint16_t free_port(void)
{
	struct sockaddr_in address = loopback(0);
	socklen_t size = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) < 0 ||
		getsockname(fd, (struct sockaddr *)&address, &size) < 0)
		path_die("no free port: %s", strerror(errno));
	close(fd);
	return ntohs(address.sin_port);
}

/* Where distributions put it, which is not in everybody's PATH. */
static const char *find_proxy(void)
{
	static const char *const places[] = { "/usr/sbin/nginx", "/usr/bin/nginx",
		"/usr/local/sbin/nginx" };

	for (size_t i = 0; i < ARRAY_SIZE(places); i++)
		if (access(places[i], X_OK) == 0)
			return places[i];
	return NULL;
}

static void start_proxy(struct path_host *h)
{
	char config[128];
	const char *program = find_proxy();
	const char *const command[] = { program, "-c", config, "-p", h->folder, NULL };
	const char *f = h->folder;
	struct sockaddr_in address;

	if (!program) {
		fprintf(stderr, "path: nginx is not installed: its rows are left out\n");
		return;
	}
	h->proxy_port = free_port();
	address = loopback(h->proxy_port);
	snprintf(config, sizeof(config), "%s/nginx.conf", f);
	write_file(
		h, "nginx.conf", proxy_config, f, f, f, f, f, f, f, h->plain_port, h->proxy_port);
	h->proxy = spawn(PATH_CPU_MEASURED, command);
	await("nginx", h->proxy, (struct sockaddr *)&address, sizeof(address));
}

/* ---- ending ---- */

static void stop(pid_t pid)
{
	if (pid <= 0)
		return;
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	(void)st;
	(void)kind;
	(void)at;
	remove(path);
	return 0;
}

static void stop_all(void)
{
	static bool stopped;

	if (stopped)
		return;
	stopped = true;
	stop(started->daemon);
	stop(started->proxy);
	stop(started->provider);
	nftw(started->folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

static void on_signal(int number)
{
	(void)number;
	exit(1); /* the bench holds no lock that exit() wants */
}

void path_host_start(struct path_host *h)
{
	/* A tmpfs, so that the region is a file in the folder and goes with it. */
	snprintf(h->folder, sizeof(h->folder), "%s/llmkit-path-XXXXXX",
		access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	if (!mkdtemp(h->folder))
		path_die("%s: %s", h->folder, strerror(errno));
	started = h;
	atexit(stop_all);
	signal(SIGINT, on_signal);
	signal(SIGTERM, on_signal);
	signal(SIGPIPE, SIG_IGN);
	start_provider(h);
	start_daemon(h);
	start_proxy(h);
}

/* ---- measuring ---- */

uint64_t path_cpu_ns(pid_t pid)
{
	char path[64];
	uint64_t sum = 0;
	DIR *tasks;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	tasks = opendir(path);
	if (!tasks)
		path_die("%s: %s", path, strerror(errno));
	for (struct dirent *e; (e = readdir(tasks));) {
		unsigned long long ns = 0;
		FILE *f;

		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%.20s/schedstat", pid, e->d_name);
		f = fopen(path, "re");
		if (f && fscanf(f, "%llu", &ns) == 1)
			sum += ns;
		if (f)
			fclose(f);
	}
	closedir(tasks);
	return sum;
}

uint64_t path_memory_bytes(pid_t pid, const char *row)
{
	char path[64], line[256];
	unsigned long long kib = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", pid);
	f = fopen(path, "re");
	if (!f)
		path_die("%s: %s", path, strerror(errno));
	while (fgets(line, sizeof(line), f))
		if (strncmp(line, row, strlen(row)) == 0)
			kib = strtoull(line + strlen(row), NULL, 10);
	fclose(f);
	return kib * 1024;
}
