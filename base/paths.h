#pragma once

/*
 * Where things are, for the daemon, the library and the tools alike. A user's paths follow XDG;
 * root's and system users' are /run/llmkit and /etc/llmkit. LLMKIT_SOCKET overrides the socket.
 */

#include <stddef.h>

#define PATHS_MAX 4096

/* The socket to use: explicit (may be NULL), LLMKIT_SOCKET, $XDG_RUNTIME_DIR/llmkit/llmkit.sock,
 * /run/llmkit/llmkit.sock. 0, or -ENAMETOOLONG. */
int paths_socket(const char *explicit_path, char *out, size_t size);

/* The control region beside a socket: ".sock" becomes ".control". */
int paths_region(const char *socket, char *out, size_t size);
