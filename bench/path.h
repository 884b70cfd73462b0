#pragma once

/*
 * Parts of the path bench: the processes under test, and what loads them. One thread; whatever
 * fails ends the bench with a message, and its processes with it.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* The CPU of what is measured; client and provider share the other one. */
enum { PATH_CPU_MEASURED = 0, PATH_CPU_CLIENT = 1 };

/* ---- path_host.c ---- */

struct path_host {
	char folder[64];
	uint16_t plain_port, tls_port, proxy_port;
	pid_t provider, daemon, proxy; /* proxy 0: there is no nginx here */
};

__attribute__((noreturn, format(printf, 1, 2))) void path_die(const char *format, ...);
/* On the which-th of the CPUs that the process was started with, modulo their number. */
void path_pin(int which);
/* A child that ends with its parent, pinned. */
pid_t path_fork(int cpu);
/* Starts all of it; *h is used until the process ends, which ends them and removes the folder. */
void path_host_start(struct path_host *h);
void path_host_socket(const struct path_host *h, char path[static 108]);

/* CPU time of all threads. */
uint64_t path_cpu_ns(pid_t pid);
/* A row of smaps_rollup, such as "Rss:". */
uint64_t path_memory_bytes(pid_t pid, const char *row);

/* ---- what is sent, the same by every client ---- */

struct path_load {
	const char *model; /* the fake provider's script is in its query part */
	bool stream;
	unsigned in_flight;
	unsigned requests;
	uint64_t stagger_ns; /* between the first requests, so that paced chunks come one by one */
};

#define PATH_PROMPT "Say something short about the weather in Lisbon."
#define PATH_KEY "sk-bench-0123456789abcdefghijklmnopqrstuvwxyz"

/* The body as JSON text; its length. */
size_t path_body(const struct path_load *load, char *text, size_t size);

/* ---- path_http.c: bare keep-alive connections, as many as there are in flight ---- */

struct path_http;
struct path_http *path_http_new(uint16_t port, const char *path, const struct path_load *load);
void path_http_run(struct path_http *c);
/* One request, in blocking mode: ns until the answer was read. Connection 0. */
uint64_t path_http_once(struct path_http *c);
struct path_http *path_http_free(struct path_http *c);

/* ---- path_kit.c: the library, as an event loop drives it ---- */

struct path_kit;
struct path_kit *path_kit_new(const char *socket, unsigned connections);
void path_kit_run(struct path_kit *k, const struct path_load *load);
uint64_t path_kit_once(struct path_kit *k, const struct path_load *load);
/* Opens load->in_flight streams and waits until each had its first text; they stay open. */
void path_kit_hold(struct path_kit *k, const struct path_load *load);
void path_kit_release(struct path_kit *k);
struct path_kit *path_kit_free(struct path_kit *k);

/* ---- path_peers.c ---- */

/* CPU per request of a process that uses libcurl's multi interface itself. */
double path_curl_us(uint16_t port, const struct path_load *load);
/* p50 of a bare round trip of 512 bytes over a Unix socket, between the two CPUs. */
double path_pingpong_us(unsigned rounds);
/* CPU of a process per byte block that it is woken for and answers, one each gap_ns: what every
 * relay of paced chunks pays to this kernel and hypervisor before it does anything. */
double path_wake_us(unsigned rounds, uint64_t gap_ns);
