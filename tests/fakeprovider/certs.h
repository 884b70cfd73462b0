#pragma once

/*
 * The test CA and the certificates a client must accept or refuse, made at run time in a
 * directory: ca.pem; server.pem (localhost, 127.0.0.1, ::1); expired.pem; wronghost.pem;
 * selfsigned.pem; each certificate with its NAME.key. The CA's own key is not kept.
 */

/* Makes what is missing. Safe against other processes doing the same. 0 or -errno. */
int certs_make(const char *directory);
