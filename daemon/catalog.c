#include "daemon/catalog.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "base/error.h"

/* Bytes of an answer that is not a stream, or of a whole stream. */
#define CATALOG_BODY_MAX (UINT64_C(64) << 20)

/* Of a request's head without its fixed part; a key has at most 4096 bytes. */
#define CATALOG_HEAD_MAX 8192

/* All but configuration and keys. */
static void catalog_free_own(struct catalog *c)
{
	for (unsigned i = 0; c->provider && i < c->config->provider_count; i++) {
		free(c->provider[i].head[0]);
		free(c->provider[i].head[1]);
	}
	free(c->provider);
	free(c);
}

static void catalog_free(struct catalog *c)
{
	struct config *config = c->config;

	keys_free(c->keys);
	catalog_free_own(c);
	config_free(config);
}

/* "https://host:port/path" -> origin "https://host:port", host "host:port", path "/path". */
static int catalog_split_url(const char *url, char **origin, char **host, char **path)
{
	const char *begin = strstr(url, "://");
	const char *slash = begin ? strchr(begin + 3, '/') : NULL;
	size_t length = slash ? (size_t)(slash - url) : strlen(url);

	if (!begin)
		return error_origin(-EINVAL);
	*origin = strndup(url, length);
	*host = strndup(begin + 3, length - (size_t)(begin + 3 - url));
	*path = strdup(slash ? slash : "");
	return *origin && *host && *path ? 0 : -ENOMEM;
}

static struct exchange_lane_options catalog_lane_options(
	const struct config_provider *c, const char *origin)
{
	return (struct exchange_lane_options){
		.name = c->name,
		.target = {
			.url = origin,
			.ca_file = c->ca_file,
			.proxy = c->proxy,
			.connect_timeout_ns = c->connect_timeout_ns,
		},
		.max_connections = c->connections,
		.idle_ns = c->idle_ns,
		.max_age_ns = c->max_age_ns,
		.first_byte_timeout_ns = c->first_byte_timeout_ns,
		.stall_timeout_ns = c->stall_timeout_ns,
		.body_max = CATALOG_BODY_MAX,
	};
}

/* The same for all requests to a provider: made once. */
static int catalog_write_head(
	struct catalog_provider *p, bool stream, const char *prefix, const char *host)
{
	int n = asprintf(&p->head[stream],
		"POST %s%s HTTP/1.1\r\nHost: %s\r\nUser-Agent: llmkitd/" PROJECT_VERSION
		"\r\nAccept: %s\r\nContent-Type: application/json\r\n%sContent-Length: ",
		prefix, p->config->family->chat_path, host,
		stream ? "text/event-stream" : "application/json", p->format->headers);

	if (n < 0)
		p->head[stream] = NULL;
	return n < 0 ? -ENOMEM : 0;
}

static int catalog_prepare(struct catalog_provider *p, const struct config_provider *config,
	struct exchange_pool *pool)
{
	aux_cleanup(freep) char *origin = NULL, *host = NULL, *prefix = NULL;
	struct exchange_lane_options lane;
	size_t length;
	int r;

	p->config = config;
	p->format = format_find(config->family->format);
	r = catalog_split_url(config->base_url, &origin, &host, &prefix);
	if (r < 0)
		return r;
	for (length = strlen(prefix); length && prefix[length - 1] == '/'; length--)
		prefix[length - 1] = '\0';
	r = catalog_write_head(p, false, prefix, host);
	if (r == 0)
		r = catalog_write_head(p, true, prefix, host);
	if (r < 0)
		return r;
	lane = catalog_lane_options(config, origin);
	return exchange_lane_get(&p->lane, pool, &lane);
}

int catalog_new(
	struct catalog **out, struct config *config, struct keys *keys, struct exchange_pool *pool)
{
	struct catalog *c = calloc(1, sizeof(*c));
	int r = 0;

	if (!c)
		return -ENOMEM;
	*c = (struct catalog){ .references = 1, .config = config, .keys = keys };
	c->provider = calloc(config->provider_count + 1, sizeof(*c->provider));
	if (!c->provider)
		r = -ENOMEM;
	for (unsigned i = 0; r == 0 && i < config->provider_count; i++)
		r = catalog_prepare(&c->provider[i], &config->providers[i], pool);
	if (r < 0) {
		catalog_free_own(c);
		return error_trace(r);
	}
	*out = c;
	return 0;
}

void catalog_use(const struct catalog *c)
{
	for (unsigned i = 0; i < c->config->provider_count; i++) {
		const struct exchange_lane_options lane =
			catalog_lane_options(c->provider[i].config, NULL);

		exchange_lane_set(c->provider[i].lane, &lane);
	}
}

struct catalog *catalog_ref(struct catalog *c)
{
	c->references++;
	return c;
}

struct catalog *catalog_unref(struct catalog *c)
{
	if (c && --c->references == 0)
		catalog_free(c);
	return NULL;
}

int catalog_head(const struct catalog *c, unsigned provider, size_t body_length, bool stream,
	struct buffer *head)
{
	struct str fixed = str_of(c->provider[provider].head[stream]);
	/* Room for all of it at once: growing later would leave a copy of the key behind. */
	int r = buffer_reserve(head, CATALOG_HEAD_MAX + fixed.length);

	if (r < 0)
		return r;
	r = buffer_append_str(head, fixed);
	if (r == 0)
		r = buffer_printf(head, "%zu\r\n", body_length);
	if (r == 0)
		r = keys_append_header(c->keys, provider, head);
	if (r == 0)
		r = buffer_append(head, "\r\n", 2);
	return r;
}
