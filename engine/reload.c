/* A new configuration while serving: read, checked, compared and reserved for before the first thing changes, so that it is taken
 * over whole or not at all. What was read before stays until the end: requests under way finish with what they began with. */
#include <stdlib.h>

#include "log.h"
#include "server_impl.h"

typedef struct reload {
    pd_config *config;
    pd_tokens *data, *admin, *http;
    pd_old_config *kept;
} reload;

static void drop(reload *r)
{
    pd_config_free(r->config);
    pd_tokens_free(r->data);
    pd_tokens_free(r->admin);
    pd_tokens_free(r->http);
    free(r->kept);
}

/* Everything that can fail, but the executor's. */
static pd_status prepare(pd_server *server, const char *path, const char *const *sets, size_t nsets,
                         reload *r, pd_error *err)
{
    pd_status status = pd_config_load(path, sets, nsets, &r->config, err);
    if (!status) status = pd_config_check(r->config, err);
    if (!status) status = pd_config_change(atomic_load(&server->config), r->config, err);
    if (!status) status = pd_tokens_load(r->config->data.token_file, &r->data, err);
    if (!status) status = pd_tokens_load(r->config->admin.token_file, &r->admin, err);
    if (!status) status = pd_tokens_load(r->config->http.token_file, &r->http, err);
    if (status) return status;
    r->kept = malloc(sizeof *r->kept);
    return r->kept ? PD_OK : pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the configuration");
}

/* Nothing here fails. */
static void take_over(pd_server *server, reload *r)
{
    const pd_config *config = r->config;
    pd_workers_bound(server->decode_workers, config->queue_requests);
    pd_net_configure(server->data_net, config);
    if (server->admin_net) pd_net_configure(server->admin_net, config);
    pd_tokens_swap(server->data_tokens, r->data);
    pd_tokens_swap(server->admin_tokens, r->admin);
    pd_tokens_swap(server->http_tokens, r->http);
    pd_catalog_configure(atomic_load(&server->catalog), config);
    atomic_store(&server->config, config);
    pd_log_level(config->log_level);
    *r->kept = (pd_old_config){.config = r->config, .next = server->reloaded};
    server->reloaded = r->kept;
    r->kept = NULL;
    r->config = NULL;
}

pd_status pd_server_reload(pd_server *server, const char *path, const char *const *sets, size_t nsets,
                           pd_error *err)
{
    reload r = {0};
    pd_status status = prepare(server, path, sets, nsets, &r, err);
    if (!status) status = pd_executor_configure(server->executor, r.config, err);
    if (!status) take_over(server, &r);
    drop(&r);
    pd_count(&server->metrics.reloads[status ? PD_RELOAD_REFUSED : PD_RELOAD_DONE], 1);
    if (status)
        pd_log(PD_LOG_ERROR, "the configuration is not reloaded, what served goes on: %s", err->message);
    else
        pd_log(PD_LOG_INFO, "the configuration is reloaded from %s", path ? path : "the command line");
    return status;
}

uint32_t pd_server_stop_ms(const pd_server *server)
{
    return atomic_load(&server->config)->stop_ms;
}

void pd_reload_free(pd_server *server)
{
    while (server->reloaded) {
        pd_old_config *old = server->reloaded;
        server->reloaded = old->next;
        pd_config_free(old->config);
        free(old);
    }
}
