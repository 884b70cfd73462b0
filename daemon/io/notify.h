#pragma once

/*
 * The service manager's side doors: readiness and watchdog messages (sd_notify(3)), and sockets it
 * passed (sd_listen_fds(3)), by hand. An I/O file. Without a service manager everything here does
 * nothing. The environment variables are read once, before threads are made, and removed, so that
 * children do not take them for theirs.
 *
 * Messages are one datagram each, never block and are not answered: what cannot be sent is logged.
 */

#include <stdint.h>
#include "base/aux.h"

/* The listening socket passed by socket activation; -1: none. Exactly one is expected; of more the
 * first is taken and the rest are closed. From the second call on: -1. */
int notify_listen_fd(void);

void notify_ready(void);
/* A reload begins; notify_ready() ends it. */
void notify_reloading(void);
void notify_stopping(void);
/* Sign of life. */
void notify_watchdog(void);
/* How often to give it: half of what the manager waits; 0: it does not watch us. */
uint64_t notify_watchdog_interval_ns(void);
