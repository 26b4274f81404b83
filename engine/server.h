/* The serving half of padosd: listeners, queues, the executor and the catalog, in the order that they start and stop. */
#ifndef PD_SERVER_H
#define PD_SERVER_H

#include <stddef.h>

#include "config.h"
#include "status.h"

#define PD_SERVER_NAME "padosd " PADOS_VERSION

typedef struct pd_server pd_server;

/* Starts everything, HTTP first, so that /readyz can say what is still loading; returns when searches are answered.
 * config must outlive the server and is pd_config_check'ed. */
pd_status pd_server_open(const pd_config *config, pd_server **out, pd_error *err);
/* Refuses new requests (UNAVAILABLE), finishes what is queued within stop_ms, closes everything. NULL is allowed. */
void pd_server_close(pd_server *server);
/* One line for the log: backend, isa, listeners, tables. */
void pd_server_about(pd_server *server, char *text, size_t room);

#endif
