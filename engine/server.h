/* The serving half of padosd: listeners, queues, the executor and the catalog, in the order that they start and stop. */
#ifndef PD_SERVER_H
#define PD_SERVER_H

#include <stddef.h>
#include <stdint.h>

#include "config.h"
#include "status.h"

#define PD_SERVER_NAME "padosd " PADOS_VERSION

typedef struct pd_server pd_server;

/* Starts everything, HTTP first, so that /readyz can say what is still loading; returns when searches are answered.
 * config must outlive the server and is pd_config_check'ed. */
pd_status pd_server_open(const pd_config *config, pd_server **out, pd_error *err);
/* Refuses new requests (UNAVAILABLE), finishes what is queued within stop_ms, closes everything. NULL is allowed. */
void pd_server_close(pd_server *server);
/* Reads the configuration again, as pd_config_load does, and takes over all of it or nothing: INVALID_ARGUMENT naming file, line and
 * key, FAILED_PRECONDITION naming the keys that cannot change while serving, or the bound that was reserved. Says in the log what
 * became of it. From one thread, between open and close. */
pd_status pd_server_reload(pd_server *server, const char *path, const char *const *sets, size_t nsets,
                           pd_error *err);
uint32_t pd_server_stop_ms(const pd_server *server); /* as configured now */
/* One line for the log: backend, isa, listeners, tables. */
void pd_server_about(pd_server *server, char *text, size_t room);

#endif
