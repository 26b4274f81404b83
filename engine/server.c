/* Start and stop, in order.
 *
 *   start   device, executor, HTTP (not ready), catalog (loads the tables), workers, data and admin listeners
 *   stop    refuse new requests, write the changes that wait, drain the executor, the exact worker, decoding, administration, replies, the sends; close the
 *           listeners; then catalog, executor and device, which nobody uses any more
 */
#include "server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "log.h"
#include "pados.pb-c.h"
#include "server_impl.h"
#include "writer.h"
#include "writes.h"

static void observe_slice(void *context, uint32_t queries, int background)
{
    pd_server *server = context;
    pd_count(background ? &server->metrics.background_slices : &server->metrics.slices, 1);
    if (!background) pd_observe_size(&server->metrics.batches, queries);
}

static pd_status open_device(pd_server *server, pd_error *err)
{
    const pd_config *config = server->config;
    pd_device_options options = {.memory = config->memory,
                                 .host_memory = config->host_memory,
                                 .threads = config->threads,
                                 .isa = *config->isa ? config->isa : NULL};
    const pd_backend *cuda;
    pd_error why = {0};
    if (strcmp(config->backend, "auto") == 0 && pd_backend_find("cuda", &cuda, &why))
        pd_log(PD_LOG_INFO, "backend auto: the CPU serves, because CUDA cannot: %s", why.message);
    pd_status status = pd_device_open(config->backend, &options, &server->device, err);
    if (status) return pd_prefix(err, "backend %s", config->backend);
    pd_device_info info;
    pd_device_info_of(server->device, &info);
    if (config->host_memory && !info.host_memory)
        pd_log(PD_LOG_WARNING,
               "refine_host_mib: the %s backend keeps refine rows with all else in memory_mib", info.backend);
    snprintf(server->backend, sizeof server->backend, "%s %s", info.backend, info.isa);
    return PD_OK;
}

static pd_status open_http(pd_server *server, pd_error *err)
{
    const pd_listener_config *listener = &server->config->http;
    if (!*listener->url) return PD_OK;
    pd_http_source source = {
        .context = server, .ready = pd_pages_ready, .metrics = pd_pages_metrics, .page = pd_pages_page};
    return pd_http_open(listener, server->http_tokens, &source, &server->http, err);
}

static pd_status open_workers(pd_server *server, pd_error *err)
{
    const pd_config *config = server->config;
    /* Every call of the data listener may be waiting to be decoded or answered. */
    pd_status status =
        pd_workers_open("pd-admin", PD_ADMIN_THREADS, PD_ADMIN_WAITING, &server->admin_workers, err);
    if (!status)
        status = pd_workers_open("pd-decode", PD_DECODE_THREADS, config->queue_requests,
                                 &server->decode_workers, err);
    if (!status) status = pd_workers_open("pd-reply", 1, UINT32_MAX, &server->reply_workers, err);
    if (!status) status = pd_exact_open(config, server->executor, PD_EXACT_WAITING, &server->exact, err);
    if (!status) status = pd_writes_open(server, &server->writes, err);
    return status;
}

static pd_status open_net(pd_server *server, pd_port port, pd_net **out, pd_error *err)
{
    const pd_config *config = server->config;
    int data = port == PD_PORT_DATA;
    pd_door *door = data ? &server->data_door : &server->admin_door;
    *door = (pd_door){
        .server = server, .port = port, .tokens = data ? server->data_tokens : server->admin_tokens};

    pd_net_options options = {.name = data ? "data" : "admin",
                              .listener = data ? &config->data : &config->admin,
                              .config = config,
                              .on_request = pd_serve,
                              .on_gone = pd_serve_gone,
                              .context = door,
                              .metrics = &server->metrics,
                              .port = port};
    return pd_net_open(&options, out, err);
}

pd_status pd_server_open(const pd_config *config, pd_server **out, pd_error *err)
{
    pd_server *server = calloc(1, sizeof *server);
    if (!server) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the server");
    atomic_store(&server->config, config);
    pd_status status = pd_tokens_load(config->data.token_file, &server->data_tokens, err);
    if (!status) status = pd_tokens_load(config->admin.token_file, &server->admin_tokens, err);
    if (!status) status = pd_tokens_load(config->http.token_file, &server->http_tokens, err);
    if (!status) status = open_device(server, err);
    if (!status) status = pd_executor_open(config, server->device, &server->executor, err);
    if (!status) pd_executor_observe(server->executor, observe_slice, server);
    if (!status) status = open_http(server, err);
    pd_catalog *catalog = NULL;
    if (!status) status = pd_catalog_open(config, server->device, server->executor, &catalog, err);
    if (!status) status = open_workers(server, err);
    if (!status) status = pd_recall_book_open(&server->recall_book, err);
    if (!status) pd_catalog_listen(catalog, server->recall_book);
    if (!status)
        status = pd_recall_open(catalog, server->executor, server->exact, server->recall_book,
                                &server->recall, err);
    atomic_store(&server->catalog, catalog);
    /* Both addresses are taken before anybody is served: each hello names the other, with the port that it really got. */
    if (!status && *config->admin.url) status = open_net(server, PD_PORT_ADMIN, &server->admin_net, err);
    if (!status) status = open_net(server, PD_PORT_DATA, &server->data_net, err);
    if (status) {
        pd_server_close(server);
        return status;
    }
    snprintf(server->admin_door.other, sizeof server->admin_door.other, "%s", pd_net_url(server->data_net));
    if (server->admin_net) {
        snprintf(server->data_door.other, sizeof server->data_door.other, "%s",
                 pd_net_url(server->admin_net));
        pd_net_start(server->admin_net);
    }
    pd_net_start(server->data_net);
    *out = server;
    return PD_OK;
}

/* ------------------------------------------------------------------------------------------------------ stop --- */

static void stop_work(pd_server *server)
{
    atomic_store(&server->stopping, 1);
    /* Callbacks that passed the check above before it was set are still at work; each is over in microseconds. */
    while (atomic_load(&server->handling))
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    /* What was taken in is decoded first: it counts as queued. */
    pd_workers_close(server->decode_workers);
    pd_recall_stop(server->recall);
    /* Changes that were taken in are logged and applied, while there is an executor to apply them. */
    pd_writes_drain(server->writes);
    pd_catalog *catalog = atomic_load(&server->catalog);
    if (catalog) pd_writer_stop(pd_catalog_writer(catalog));
    if (server->executor) pd_executor_stop(server->executor);
    pd_exact_close(server->exact);
    pd_workers_close(server->admin_workers);
    pd_workers_close(server->reply_workers);
    pd_writes_close(server->writes);
}

void pd_server_close(pd_server *server)
{
    if (!server) return;
    stop_work(server);
    if (server->data_net) pd_net_drain(server->data_net, 1000);
    if (server->admin_net) pd_net_drain(server->admin_net, 1000);
    pd_net_close(server->data_net);
    pd_net_close(server->admin_net);
    pd_http_close(server->http);
    pd_recall_close(server->recall);
    pd_catalog *catalog = atomic_exchange(&server->catalog, NULL);
    if (catalog) pd_catalog_close(catalog);
    pd_recall_book_close(server->recall_book);
    pd_executor_close(server->executor);
    pd_device_close(server->device);
    pd_tokens_free(server->data_tokens);
    pd_tokens_free(server->admin_tokens);
    pd_tokens_free(server->http_tokens);
    pd_reload_free(server);
    free(server);
}

/* ----------------------------------------------------------------------------------------------------- about --- */

static void about_tables(pd_server *server, pd_text *text)
{
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    Pados__V1__TableList list = PADOS__V1__TABLE_LIST__INIT;
    Pados__V1__Reply *reply = malloc(sizeof *reply);
    pd_error err;
    if (!reply) return;
    pados__v1__reply__init(reply);
    request.body_case = PADOS__V1__REQUEST__BODY_TABLE_LIST;
    request.table_list = &list;
    if (pd_catalog_admin(atomic_load(&server->catalog), &request, reply, &err) == PD_OK) {
        pd_text_add(text, "%s", reply->table_list->n_tables ? "; tables" : "; no tables");
        for (size_t i = 0; i < reply->table_list->n_tables; i++) {
            const Pados__V1__TableInfo *t = reply->table_list->tables[i];
            pd_text_add(text, "%s %s@%llu (%llu rows)", i ? "," : "", t->table,
                        (unsigned long long)t->serving, (unsigned long long)t->rows);
        }
    }
    pados__v1__reply__free_unpacked(reply, NULL);
}

void pd_server_about(pd_server *server, char *out, size_t room)
{
    pd_device_info info;
    pd_text text = {0};
    pd_device_info_of(server->device, &info);
    pd_text_add(&text, "%s is ready: backend %s, isa %s (%s); data %s", PD_SERVER_NAME, info.backend,
                info.isa, info.about, pd_net_url(server->data_net));
    if (server->admin_net) pd_text_add(&text, ", admin %s", pd_net_url(server->admin_net));
    if (server->http) pd_text_add(&text, ", http %s", pd_http_url(server->http));
    about_tables(server, &text);
    snprintf(out, room, "%s", text.bytes ? text.bytes : "");
    free(text.bytes);
}
