/* The sockets: listeners that REQ sockets of nng dial, answered from any thread. Nothing but net.c, conn.c and http.c knows nng.
 *
 * A connection is read on while it has fewer requests in flight than its limit; then reading stops, and the peer feels it, until
 * replies were sent. A reply that cannot be sent in time closes the connection. So a peer that sends and never reads costs
 * a bounded amount for a bounded time, and no others wait for it.
 */
#ifndef PD_NET_H
#define PD_NET_H

#include <stddef.h>
#include <stdint.h>

#include "config.h"
#include "metrics.h"
#include "status.h"

typedef struct pd_net pd_net;
typedef struct pd_call pd_call; /* one request that is not yet answered */

/* Who else is about when a request comes. */
typedef struct pd_crowd {
    uint32_t in_flight; /* requests of this connection that are not answered, this one included */
    uint32_t active;    /* connections that have any */
} pd_crowd;

/* On one of nng's threads: no disk, no search, no waiting. bytes live until the reply or pd_call_drop. Every request must be
 * ended once: by pd_call_send or pd_call_abandon. */
typedef void (*pd_on_request)(void *context, pd_call *call, const uint8_t *bytes, size_t length,
                              pd_crowd crowd);

typedef struct pd_net_options {
    const char *name;                   /* "data", "admin" */
    const pd_listener_config *listener; /* borrowed */
    const pd_config
        *config; /* for the call alone. max_message: a larger one is not read and closes its connection;
                                send_timeout_ms: a reply of which nothing can be sent for so long does; pipe_requests:
                                twice as many in flight from one connection stop its reading */
    pd_on_request on_request;
    void (*on_gone)(
        void *context); /* a connection with requests in flight has gone; quick. NULL is allowed */
    void *context;
    pd_metrics *metrics;
    pd_port port;
} pd_net_options;

/* Takes the address; nobody is served before pd_net_start. UNAVAILABLE naming the URL and why: it is taken, the certificate
 * is refused. */
pd_status pd_net_open(const pd_net_options *options, pd_net **out, pd_error *err);
void pd_net_start(pd_net *net);
/* Other bounds, for connections that are open too. Any thread. */
void pd_net_configure(pd_net *net, const pd_config *config);
/* As clients may dial it: with the port that was bound where the configuration said 0. */
const char *pd_net_url(const pd_net *net);
/* Waits, at most timeout_ms, until every request is answered and every reply sent. 1: so it is. */
int pd_net_drain(pd_net *net, uint32_t timeout_ms);
/* Closes every connection and frees everything. Every request must have been ended. NULL is allowed. */
void pd_net_close(pd_net *net);

/* 0: the connection has gone, nobody will read the reply. */
int pd_call_wanted(pd_call *call);
/* Frees the request's bytes early. */
void pd_call_drop(pd_call *call);
/* Room for a reply of length bytes; NULL: no memory. Filled by the caller, then sent by pd_call_send. */
uint8_t *pd_call_room(pd_call *call, size_t length);
void pd_call_send(pd_call *call);
/* Ends the call without a reply: its connection is closed (there was no memory to answer). */
void pd_call_abandon(pd_call *call);

/* For http.c: a server's TLS settings from certificate and key. Freed with nng_tls_config_free. */
struct nng_tls_config;
pd_status pd_net_tls(const pd_listener_config *listener, struct nng_tls_config **out, pd_error *err);

#endif
