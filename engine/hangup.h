/* Ending connections below nng, by the sockets themselves. */
#ifndef PD_HANGUP_H
#define PD_HANGUP_H

#include <netinet/in.h>

/* Shuts down this process's connections whose other end is peer. Returns how many. */
int pd_hang_up_peer(const struct sockaddr_storage *peer);
/* Shuts down every connection that was accepted at url ("tcp://HOST:PORT", "tls+tcp://HOST:PORT", "ipc://PATH"). */
int pd_hang_up_all(const char *url);

#endif
