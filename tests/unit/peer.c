#include "tests/unit/peer.h"
#include "tests/unit/cmocka-all.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>
#include "base/aux.h"

/* Above what tests allow themselves: it must not pass for an end. */
#define PEER_SILENCE_S 100

/*
 * Certificates.
 */

static void add_extension(X509 *certificate, int nid, const char *value)
{
	X509V3_CTX context;
	X509_EXTENSION *e;

	X509V3_set_ctx_nodb(&context);
	X509V3_set_ctx(&context, certificate, certificate, NULL, NULL, 0);
	e = X509V3_EXT_conf_nid(NULL, &context, nid, value);
	assert_non_null(e);
	X509_add_ext(certificate, e, -1);
	X509_EXTENSION_free(e);
}

static X509 *make_certificate(
	EVP_PKEY *key, const char *name, const char *alternative, bool expired)
{
	X509 *c = X509_new();
	X509_NAME *subject = X509_get_subject_name(c);

	X509_set_version(c, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(c), alternative ? 2 : 1);
	X509_gmtime_adj(X509_getm_notBefore(c), -7200);
	X509_gmtime_adj(X509_getm_notAfter(c), expired ? -3600 : 3600);
	X509_set_pubkey(c, key);
	X509_NAME_add_entry_by_txt(
		subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
	X509_set_issuer_name(c, subject);
	if (alternative)
		add_extension(c, NID_subject_alt_name, alternative);
	else
		add_extension(c, NID_basic_constraints, "critical,CA:TRUE");
	return c;
}

static void write_ca(struct peer *p, X509 *ca)
{
	FILE *f;
	int fd;

	snprintf(p->ca_file, sizeof(p->ca_file), "/tmp/test-ca-XXXXXX");
	fd = mkstemp(p->ca_file);
	assert_true(fd >= 0);
	f = fdopen(fd, "w");
	assert_non_null(f);
	assert_int_equal(PEM_write_X509(f, ca), 1);
	fclose(f);
}

static void peer_start_tls(struct peer *p)
{
	EVP_PKEY *ca_key = EVP_EC_gen("P-256"), *key = EVP_EC_gen("P-256");
	X509 *ca = make_certificate(ca_key, "test ca", NULL, false);
	X509 *c = make_certificate(key, "test server",
		p->kind == PEER_WRONG_HOST ? "DNS:elsewhere.test" : "DNS:localhost,IP:127.0.0.1",
		p->kind == PEER_EXPIRED);

	X509_sign(ca, ca_key, EVP_sha256());
	if (p->kind != PEER_SELF_SIGNED)
		X509_set_issuer_name(c, X509_get_subject_name(ca));
	X509_sign(c, p->kind == PEER_SELF_SIGNED ? key : ca_key, EVP_sha256());
	write_ca(p, ca);
	p->tls = SSL_CTX_new(TLS_server_method());
	SSL_CTX_use_certificate(p->tls, c);
	SSL_CTX_use_PrivateKey(p->tls, key);
	SSL_CTX_set_session_id_context(p->tls, (const unsigned char *)"t", 1);
	X509_free(ca);
	X509_free(c);
	EVP_PKEY_free(ca_key);
	EVP_PKEY_free(key);
}

/*
 * Bytes.
 */

size_t peer_read(struct peer_io *io, void *data, size_t size)
{
	ssize_t n = io->ssl ? SSL_read(io->ssl, data, (int)size) : recv(io->fd, data, size, 0);

	return n > 0 ? (size_t)n : 0;
}

void peer_write_bytes(struct peer_io *io, const void *data, size_t size)
{
	for (size_t at = 0; at < size;) {
		const char *from = (const char *)data + at;
		ssize_t n = io->ssl ? SSL_write(io->ssl, from, (int)(size - at)) :
				      send(io->fd, from, size - at, MSG_NOSIGNAL);

		if (n <= 0)
			return;
		at += (size_t)n;
	}
}

void peer_write(struct peer_io *io, const char *text)
{
	peer_write_bytes(io, text, strlen(text));
}

long peer_read_request(struct peer_io *io)
{
	char head[4096] = "", drop[65536];
	size_t n = 0, body = 0;
	const char *length;

	while (!strstr(head, "\r\n\r\n")) {
		if (n == sizeof(head) - 1 || peer_read(io, head + n, 1) == 0)
			return -1;
		head[++n] = '\0';
	}
	length = strcasestr(head, "content-length:");
	if (length)
		body = strtoul(length + strlen("content-length:"), NULL, 10);
	for (size_t left = body; left > 0;) {
		size_t got = peer_read(io, drop, left < sizeof(drop) ? left : sizeof(drop));

		if (got == 0)
			return -1;
		left -= got;
	}
	return (long)body;
}

void peer_await_end(struct peer_io *io)
{
	char drop[4096];
	ssize_t n;

	/* Below TLS: what counts is the FIN on the wire, not an alert before it. */
	do
		n = recv(io->fd, drop, sizeof(drop), 0);
	while (n > 0);
	if (n == 0)
		atomic_fetch_add(&io->peer->ended, 1);
}

void peer_reset(struct peer_io *io)
{
	struct linger linger = { .l_onoff = 1 };

	setsockopt(io->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

/*
 * Threads.
 */

static void *peer_connection(void *context)
{
	struct peer_io *io = context;
	struct peer *p = io->peer;
	char drop[100];

	if (p->kind == PEER_SILENT_TLS) {
		recv(io->fd, drop, sizeof(drop), 0);
	} else if (p->tls) {
		io->ssl = SSL_new(p->tls);
		SSL_set_fd(io->ssl, io->fd);
		if (SSL_accept(io->ssl) == 1) {
			if (SSL_session_reused(io->ssl))
				atomic_fetch_add(&p->resumed, 1);
			p->serve(io);
		}
		SSL_free(io->ssl);
	} else {
		p->serve(io);
	}
	close(io->fd);
	atomic_fetch_add(&p->closed, 1);
	free(io);
	return NULL;
}

static void *peer_listen(void *context)
{
	struct peer *p = context;
	sigset_t pipe;
	int fd;

	/* In these threads only: the code under test has to do without. */
	sigemptyset(&pipe);
	sigaddset(&pipe, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &pipe, NULL);
	while ((fd = accept(p->listener, NULL, NULL)) >= 0) {
		struct timeval silence = { .tv_sec = PEER_SILENCE_S };
		struct peer_io *io = calloc(1, sizeof(*io));

		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &silence, sizeof(silence));
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &silence, sizeof(silence));
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
		*io = (struct peer_io){ p, fd, NULL, atomic_fetch_add(&p->accepted, 1) };
		if (p->workers == (int)ARRAY_SIZE(p->worker) ||
			pthread_create(&p->worker[p->workers++], NULL, peer_connection, io) != 0)
			abort();
	}
	return NULL;
}

void peer_start(struct peer *p, enum peer_tls kind, void (*serve)(struct peer_io *io))
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(a);

	memset(p, 0, sizeof(*p));
	p->kind = kind;
	p->serve = serve;
	if (kind != PEER_PLAIN)
		peer_start_tls(p);
	p->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(p->listener, (struct sockaddr *)&a, size), 0);
	assert_int_equal(listen(p->listener, 512), 0);
	assert_int_equal(getsockname(p->listener, (struct sockaddr *)&a, &size), 0);
	p->port = ntohs(a.sin_port);
	snprintf(p->url, sizeof(p->url), "%s://127.0.0.1:%d", kind == PEER_PLAIN ? "http" : "https",
		p->port);
	assert_int_equal(pthread_create(&p->thread, NULL, peer_listen, p), 0);
}

void peer_stop(struct peer *p)
{
	shutdown(p->listener, SHUT_RDWR);
	pthread_join(p->thread, NULL);
	close(p->listener);
	for (int i = 0; i < p->workers; i++)
		pthread_join(p->worker[i], NULL);
	SSL_CTX_free(p->tls);
	if (p->ca_file[0])
		unlink(p->ca_file);
}
