/* One connection: net.c accepts them, conn.c reads requests and sends replies. */
#ifndef PD_CONN_H
#define PD_CONN_H

#include <pthread.h>
#include <stdatomic.h>

#include <nng/nng.h>

#include "net.h"
#include "workers.h"

#define PD_INCOMING_BYTES                                                                                    \
    (1ull << 30)              /* of messages being read or not yet dropped, all connections of a listener */
#define PD_PATIENCE_MS  30000 /* for the handshake, and for the rest of a message that has begun */
#define PD_PREFIX_BYTES 9u    /* ipc: 1, then the length; tcp: the length */
#define PD_MAX_HEADER   36u   /* request ids of up to 8 hops and the sender */

typedef struct pd_conn pd_conn;

struct pd_net {
    pd_net_options options;
    atomic_uint_fast64_t max_message; /* these three from the configuration */
    atomic_uint send_timeout_ms, pipe_requests;
    nng_stream_listener *listener;
    nng_aio *accept;
    int ipc;
    char url[160];
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pd_conn *conns;
    uint32_t nconns, active, calls; /* calls: not answered, or their reply not sent */
    uint64_t incoming;              /* bytes */
    uint32_t number;                /* of connections so far, for the log */
    int closing;
    pd_workers *closer; /* frees dead connections: nng's own threads must not wait for themselves */
};

/* Takes over the stream: handshake, then requests. */
void pd_conn_start(pd_net *net, nng_stream *stream);
void pd_conn_close_all(pd_net *net);

#endif
