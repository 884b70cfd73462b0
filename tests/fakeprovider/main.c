/*
 * fakeprovider: an HTTP/1.1 server that speaks OpenAI's chat completions and Anthropic's
 * Messages, does to each request what a script says, and keeps a log of what arrived.
 */

#include "tests/fakeprovider/certs.h"
#include "tests/fakeprovider/put.h"
#include "tests/fakeprovider/server.h"
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>

struct options {
	const char *listen, *tls_listen, *ca_dir, *cert, *ports_file, *log, *script, *rate, *key;
	uint64_t burst;
	bool bodies, quiet;
};

static volatile bool stop;

static void on_signal(int number)
{
	(void)number;
	stop = true;
}

static const char usage_head[] =
	"Usage: fakeprovider [OPTION]...\n"
	"A fake LLM provider: POST .../chat/completions (OpenAI), POST .../v1/messages "
	"(Anthropic).\n\n"
	"  --listen ADDRESS:PORT      plain HTTP (default 127.0.0.1:0; the kernel chooses)\n"
	"  --tls-listen ADDRESS:PORT  HTTPS as well; needs --ca-dir\n"
	"  --ca-dir DIR               test CA and certificates, made when absent\n"
	"  --cert NAME                server (default), expired, wronghost or selfsigned\n"
	"  --ports-file FILE          written when ready: \"plain PORT\" and \"tls PORT\"\n"
	"  --log FILE                 arrival log, JSON lines; --log-bodies adds the bodies\n"
	"  --script FILE              lines \"SUBSTRING: key=value; ...\" by path or model, * for "
	"all\n"
	"  --rate N/s|N/min           exact limit per API key; --burst N (default: N of the rate)\n"
	"  --require-key KEY          401 for any other\n"
	"  --quiet                    no ports on stdout\n\n"
	"A request is scripted by --script, by its header \"x-fake: key=value; ...\", and by its "
	"model\n"
	"name, \"fake?chunks=50&delay_ms=20\"; the later of these overrides the earlier. GET\n"
	"/_fake/stats, POST /_fake/script (rules as in the file), POST /_fake/reset. The keys:\n\n";

static int usage(int status)
{
	FILE *f = status ? stderr : stdout;

	fputs(usage_head, f);
	script_help(f);
	return status;
}

enum option_id {
	OPTION_LISTEN = 256,
	OPTION_TLS_LISTEN,
	OPTION_CA_DIR,
	OPTION_CERT,
	OPTION_PORTS_FILE,
	OPTION_LOG,
	OPTION_LOG_BODIES,
	OPTION_SCRIPT,
	OPTION_RATE,
	OPTION_BURST,
	OPTION_KEY,
	OPTION_QUIET,
};

static const struct option long_options[] = {
	{ "listen", required_argument, NULL, OPTION_LISTEN },
	{ "tls-listen", required_argument, NULL, OPTION_TLS_LISTEN },
	{ "ca-dir", required_argument, NULL, OPTION_CA_DIR },
	{ "cert", required_argument, NULL, OPTION_CERT },
	{ "ports-file", required_argument, NULL, OPTION_PORTS_FILE },
	{ "log", required_argument, NULL, OPTION_LOG },
	{ "log-bodies", no_argument, NULL, OPTION_LOG_BODIES },
	{ "script", required_argument, NULL, OPTION_SCRIPT },
	{ "rate", required_argument, NULL, OPTION_RATE },
	{ "burst", required_argument, NULL, OPTION_BURST },
	{ "require-key", required_argument, NULL, OPTION_KEY },
	{ "quiet", no_argument, NULL, OPTION_QUIET },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

static int set_option(struct options *o, int id)
{
	const struct {
		int id;
		const char **value;
	} texts[] = {
		{ OPTION_LISTEN, &o->listen },
		{ OPTION_TLS_LISTEN, &o->tls_listen },
		{ OPTION_CA_DIR, &o->ca_dir },
		{ OPTION_CERT, &o->cert },
		{ OPTION_PORTS_FILE, &o->ports_file },
		{ OPTION_LOG, &o->log },
		{ OPTION_SCRIPT, &o->script },
		{ OPTION_RATE, &o->rate },
		{ OPTION_KEY, &o->key },
	};
	char *end;

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		if (texts[i].id == id)
			*texts[i].value = optarg;
	if (id == OPTION_LOG_BODIES)
		o->bodies = true;
	if (id == OPTION_QUIET)
		o->quiet = true;
	if (id == OPTION_BURST) {
		o->burst = strtoull(optarg, &end, 10);
		if (o->burst == 0 || o->burst > 1000000000 || *end)
			return -EINVAL;
	}
	return id == '?' ? -EINVAL : 0;
}

static int fail(const char *what, int r)
{
	fprintf(stderr, "fakeprovider: %s: %s\n", what, strerror(-r));
	return r;
}

/* A client that offers protocols gets HTTP/1.1 if that is among them. */
static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *size,
	const unsigned char *in, unsigned int n, void *arg)
{
	static const unsigned char ours[] = "\x08http/1.1";

	(void)ssl;
	(void)arg;
	if (SSL_select_next_proto((unsigned char **)(uintptr_t)out, size, ours, sizeof(ours) - 1,
		    in, n) == OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_OK;
	return SSL_TLSEXT_ERR_NOACK;
}

static int make_tls(const struct options *o, SSL_CTX **out)
{
	char certificate[4096], key[4096];
	SSL_CTX *tls;
	int r;

	if (!o->ca_dir)
		return fail("--tls-listen needs --ca-dir", -EINVAL);
	r = certs_make(o->ca_dir);
	if (r < 0)
		return fail(o->ca_dir, r);
	snprintf(certificate, sizeof(certificate), "%s/%s.pem", o->ca_dir, o->cert);
	snprintf(key, sizeof(key), "%s/%s.key", o->ca_dir, o->cert);
	tls = SSL_CTX_new(TLS_server_method());
	if (!tls || SSL_CTX_use_certificate_file(tls, certificate, SSL_FILETYPE_PEM) != 1 ||
		SSL_CTX_use_PrivateKey_file(tls, key, SSL_FILETYPE_PEM) != 1) {
		SSL_CTX_free(tls);
		return fail(certificate, -EINVAL);
	}
	SSL_CTX_set_min_proto_version(tls, TLS1_2_VERSION);
	SSL_CTX_set_session_id_context(tls, (const unsigned char *)"fake", 4);
	SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	/* One recv(2) per record instead of two; conn.c reads until OpenSSL holds nothing. */
	SSL_CTX_set_read_ahead(tls, 1);
	SSL_CTX_set_alpn_select_cb(tls, choose_protocol, NULL);
	*out = tls;
	return 0;
}

static int write_ports(const struct options *o, const char *text)
{
	char temporary[4096];
	FILE *f;

	snprintf(temporary, sizeof(temporary), "%s.%ld", o->ports_file, (long)getpid());
	f = fopen(temporary, "we");
	if (!f)
		return -errno;
	if (fputs(text, f) < 0 || fclose(f) != 0)
		return -EIO;
	return rename(temporary, o->ports_file) < 0 ? -errno : 0;
}

static int announce(const struct server *s, const struct options *o)
{
	aux_cleanup(buffer_deinit) struct buffer text = BUFFER_NULL;

	for (int i = 0; i < s->listener_count; i++)
		put_printf(&text, "%s %u\n", s->listeners[i].tls ? "tls" : "plain",
			s->listeners[i].port);
	put(&text, "", 1);
	if (!o->quiet) {
		fputs(buffer_head(&text), stdout);
		fflush(stdout);
	}
	return o->ports_file ? write_ports(o, buffer_head(&text)) : 0;
}

static int start(struct server *s, const struct options *o)
{
	SSL_CTX *tls = NULL;
	int r;

	s->provider.required_key = o->key;
	if (o->rate && limiter_init(&s->provider.limiter, o->rate, o->burst) < 0)
		return fail("--rate wants N/s or N/min", -EINVAL);
	if (o->script && provider_load_rules(&s->provider, o->script) < 0)
		return -EINVAL;
	r = arrival_open(&s->provider.log, o->log, o->bodies);
	if (r < 0)
		return fail(o->log, r);
	if (o->tls_listen && make_tls(o, &tls) < 0)
		return -EINVAL;
	r = server_init(s, tls);
	if (r == 0)
		r = server_listen(s, o->listen, false);
	if (r < 0)
		return fail(o->listen, r);
	r = o->tls_listen ? server_listen(s, o->tls_listen, true) : 0;
	if (r < 0)
		return fail(o->tls_listen, r);
	r = announce(s, o);
	return r < 0 ? fail(o->ports_file, r) : 0;
}

static void prepare_process(void)
{
	struct sigaction action = { .sa_handler = on_signal };
	struct rlimit files;
	sigset_t ours;

	sigemptyset(&ours);
	sigaddset(&ours, SIGTERM);
	sigaddset(&ours, SIGINT);
	sigprocmask(SIG_BLOCK, &ours, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
	/* Pauses are in milliseconds: the default slack of 50 us would show. */
	prctl(PR_SET_TIMERSLACK, 1000UL);
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
}

int main(int argc, char **argv)
{
	struct options o = { .listen = "127.0.0.1:0", .cert = "server" };
	static struct server server = { .epoll = -1, .provider.log.fd = -1 };
	int id, r;

	while ((id = getopt_long(argc, argv, "h", long_options, NULL)) != -1) {
		if (id == 'h')
			return usage(0);
		if (set_option(&o, id) < 0)
			return usage(2);
	}
	if (optind < argc)
		return usage(2);
	prepare_process();
	r = start(&server, &o);
	if (r == 0)
		r = server_run(&server, &stop);
	server_deinit(&server);
	return r < 0;
}
