/* The server's insides, shared by server.c (life), serve.c (requests) and pages.c (HTTP). */
#ifndef PD_SERVER_IMPL_H
#define PD_SERVER_IMPL_H

#include <stdatomic.h>

#include "catalog.h"
#include "exact.h"
#include "executor.h"
#include "http.h"
#include "metrics.h"
#include "net.h"
#include "recall.h"
#include "request.h"
#include "server.h"
#include "tokens.h"
#include "workers.h"

#define PD_ADMIN_THREADS  2u
#define PD_ADMIN_WAITING  64u
#define PD_DECODE_THREADS 2u
#define PD_INLINE_BYTES   (32u << 10) /* larger requests are decoded by threads of their own, not by nng's */
#define PD_EXACT_WAITING  64u
#define PD_QUEUE_BYTES    (1ull << 30) /* held by all searches that wait or run */
#define PD_PROTOCOL       1u

typedef struct pd_door { /* one listener, seen from serve.c */
    pd_server *server;
    pd_port port;
    pd_tokens *tokens;
    char other[200]; /* the URL of the listener that does the rest; "": there is none */
} pd_door;

typedef struct pd_old_config { /* what a reload took over: readers of the one before may still be at it */
    pd_config *config;
    struct pd_old_config *next;
} pd_old_config;

typedef struct pd_write_desk pd_write_desk; /* writes.h */

struct pd_server {
    _Atomic(const pd_config *)
        config;              /* what serves; a reload replaces it: read it once where one moment matters */
    pd_old_config *reloaded; /* all that reloads brought, freed at the end */
    pd_metrics metrics;
    pd_tokens *data_tokens, *admin_tokens, *http_tokens;
    pd_device *device;
    pd_executor *executor;
    _Atomic(pd_catalog *) catalog; /* NULL while it loads */
    pd_exact_worker *exact;
    pd_recall_book *recall_book; /* whether promises are kept: pd_recall_broken() */
    pd_recall *recall;
    pd_write_desk *writes;
    pd_workers *admin_workers, *decode_workers, *reply_workers;
    pd_net *data_net, *admin_net;
    pd_http *http;
    pd_door data_door, admin_door;
    char backend[64]; /* "cpu avx512", as the hello tells it */
    atomic_int stopping;
    atomic_uint handling; /* network callbacks inside pd_serve */
    atomic_uint_fast64_t held_bytes;
};

/* reload.c */
void pd_reload_free(pd_server *server);
/* serve.c */
void pd_serve(void *door, pd_call *call, const uint8_t *bytes, size_t length, pd_crowd crowd);
void pd_serve_gone(void *door);
void pd_serve_count(pd_door *door, uint32_t status); /* an answer goes out */
/* pages.c */
int pd_pages_ready(void *server, char *why, size_t room);
void pd_pages_metrics(void *server, pd_text *text);
void pd_pages_page(void *server, pd_text *text);

#endif
