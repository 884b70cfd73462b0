#pragma once

/*
 * The assembled daemon: builds the parts in order, reloads, drains, takes them down. Knows
 * everybody, decides nothing.
 */

#include "base/buffer.h"
#include "daemon/config/config.h"

struct server;

enum server_outcome {
	SERVER_OK = 0,
	SERVER_E_HELD,  /* another daemon has the socket; logged with its pid */
	SERVER_E_SETUP, /* what it was told to use cannot be used; logged with what to do */
};

/* config_path as for config_load(): where SIGHUP reads again. keep_log_level: a reload does not
 * change it, the command line did. Takes over config. 0, an outcome, -errno. */
int server_new(
	struct server **out, struct config *config, const char *config_path, bool keep_log_level);
struct server *server_free(struct server *s);

/* Serves until SIGTERM or SIGINT has drained it; a second signal ends the drain. */
int server_run(struct server *s);
