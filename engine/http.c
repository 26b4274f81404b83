/* /healthz and /readyz are answered in nng's callback: they touch nothing. /metrics and / go through a thread, because they ask
 * the catalog and read /proc, and nng's few threads also carry the searches. */
#include "http.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>

#include <nng/nng.h>
#include <nng/supplemental/http/http.h>
#include <nng/supplemental/tls/tls.h>

#include "net.h"
#include "workers.h"

#define WAITING 32u

struct pd_http {
    pd_tokens *tokens;
    pd_http_source source;
    nng_http_server *server;
    pd_workers *workers;
    char url[160];
    int started;
};

typedef struct http_work {
    pd_work work;
    pd_http *http;
    nng_aio *aio;
    int metrics; /* else the page */
} http_work;

static void answer(nng_aio *aio, uint16_t status, const char *type, const char *body, size_t length)
{
    nng_http_res *response = NULL;
    int failed = nng_http_res_alloc(&response);
    if (!failed) failed = nng_http_res_set_status(response, status);
    if (!failed) failed = nng_http_res_set_header(response, "Content-Type", type);
    if (!failed) failed = nng_http_res_set_header(response, "Cache-Control", "no-store");
    if (!failed && status == NNG_HTTP_STATUS_UNAUTHORIZED)
        failed = nng_http_res_set_header(response, "WWW-Authenticate", "Bearer");
    if (!failed) failed = nng_http_res_copy_data(response, body, length);
    if (failed) {
        if (response) nng_http_res_free(response);
        nng_aio_finish(aio, failed);
        return;
    }
    nng_aio_set_output(aio, 0, response);
    nng_aio_finish(aio, 0);
}

static void answer_text(nng_aio *aio, uint16_t status, const char *text)
{
    answer(aio, status, "text/plain; charset=utf-8", text, strlen(text));
}

/* The server asked, when the request may go on; NULL: it was answered already. */
static pd_http *admit(nng_aio *aio)
{
    nng_http_req *request = nng_aio_get_input(aio, 0);
    nng_http_handler *handler = nng_aio_get_input(aio, 1);
    pd_http *http = nng_http_handler_get_data(handler);
    const char *authorization = nng_http_req_get_header(request, "Authorization");
    const char *token = authorization && !strncmp(authorization, "Bearer ", 7) ? authorization + 7 : "";
    if (pd_tokens_match(http->tokens, token)) return http;
    answer_text(aio, NNG_HTTP_STATUS_UNAUTHORIZED, "a bearer token is wanted\n");
    return NULL;
}

static void on_health(nng_aio *aio)
{
    if (admit(aio)) answer_text(aio, NNG_HTTP_STATUS_OK, "alive\n");
}

static void on_ready(nng_aio *aio)
{
    char why[600] = "", text[640];
    pd_http *http = admit(aio);
    if (!http) return;
    if (http->source.ready(http->source.context, why, sizeof why)) {
        answer_text(aio, NNG_HTTP_STATUS_OK, "ready\n");
        return;
    }
    snprintf(text, sizeof text, "not ready: %s\n", why);
    answer_text(aio, NNG_HTTP_STATUS_SERVICE_UNAVAILABLE, text);
}

static void run(pd_work *work)
{
    http_work *w = (http_work *)work;
    pd_text text = {0};
    if (w->metrics)
        w->http->source.metrics(w->http->source.context, &text);
    else
        w->http->source.page(w->http->source.context, &text);
    if (text.failed || !text.bytes)
        answer_text(w->aio, NNG_HTTP_STATUS_SERVICE_UNAVAILABLE, "no memory\n");
    else
        answer(w->aio, NNG_HTTP_STATUS_OK,
               w->metrics ? "text/plain; version=0.0.4; charset=utf-8" : "text/html; charset=utf-8",
               text.bytes, text.length);
    free(text.bytes);
    free(w);
}

static void hand_over(nng_aio *aio, int metrics)
{
    pd_error err;
    pd_http *http = admit(aio);
    if (!http) return;
    http_work *w = malloc(sizeof *w);
    if (w) {
        *w = (http_work){.work.run = run, .http = http, .aio = aio, .metrics = metrics};
        if (pd_workers_add(http->workers, &w->work, &err) == PD_OK) return;
        free(w);
    }
    answer_text(aio, NNG_HTTP_STATUS_SERVICE_UNAVAILABLE, "too many requests wait\n");
}

static void on_metrics(nng_aio *aio)
{
    hand_over(aio, 1);
}

static void on_page(nng_aio *aio)
{
    hand_over(aio, 0);
}

static int add_handlers(pd_http *http)
{
    static const struct {
        const char *path;
        void (*on)(nng_aio *);
    } pages[] = {{"/healthz", on_health}, {"/readyz", on_ready}, {"/metrics", on_metrics}, {"/", on_page}};
    for (size_t i = 0; i < sizeof pages / sizeof pages[0]; i++) {
        nng_http_handler *handler;
        int failed = nng_http_handler_alloc(&handler, pages[i].path, pages[i].on);
        if (failed) return failed;
        failed = nng_http_handler_set_data(handler, http, NULL);
        if (!failed) failed = nng_http_handler_collect_body(handler, true, 0);
        if (!failed) failed = nng_http_server_add_handler(http->server, handler);
        if (failed) {
            nng_http_handler_free(handler);
            return failed;
        }
    }
    return 0;
}

/* Port 0 asks for any: the URL says which it became. */
static void name_port(pd_http *http, const nng_url *url)
{
    nng_sockaddr address;
    uint16_t port = 0;
    if (nng_http_server_get_addr(http->server, &address)) return;
    if (address.s_family == NNG_AF_INET) port = ntohs(address.s_in.sa_port);
    if (address.s_family == NNG_AF_INET6) port = ntohs(address.s_in6.sa_port);
    if (port) snprintf(http->url, sizeof http->url, "%s://%s:%u", url->u_scheme, url->u_hostname, port);
}

pd_status pd_http_open(const pd_listener_config *listener, pd_tokens *tokens, const pd_http_source *source,
                       pd_http **out, pd_error *err)
{
    pd_http *http = calloc(1, sizeof *http);
    if (!http) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the HTTP server");
    http->tokens = tokens;
    http->source = *source;
    snprintf(http->url, sizeof http->url, "%s", listener->url);
    nng_url *url = NULL;
    pd_status status = pd_workers_open("pd-http", 1, WAITING, &http->workers, err);
    if (status) goto err_after_alloc;
    int failed = nng_url_parse(&url, listener->url);
    if (!failed) failed = nng_http_server_hold(&http->server, url);
    if (failed) goto err_nng;
    if (strncmp(listener->url, "https://", 8) == 0) {
        nng_tls_config *tls;
        status = pd_net_tls(listener, &tls, err);
        if (status) goto err_after_alloc;
        failed = nng_http_server_set_tls(http->server, tls);
        nng_tls_config_free(tls);
        if (failed) goto err_nng;
    }
    failed = add_handlers(http);
    if (!failed) failed = nng_http_server_start(http->server);
    if (failed) goto err_nng;
    http->started = 1;
    name_port(http, url);
    nng_url_free(url);
    *out = http;
    return PD_OK;
err_nng:
    status = pd_fail(err, PD_UNAVAILABLE, "http.url %s: %s", listener->url, nng_strerror(failed));
err_after_alloc:
    if (url) nng_url_free(url);
    pd_http_close(http);
    return status;
}

const char *pd_http_url(const pd_http *http)
{
    return http->url;
}

void pd_http_close(pd_http *http)
{
    if (!http) return;
    if (http->started) nng_http_server_stop(http->server);
    pd_workers_close(http->workers);
    if (http->server) nng_http_server_release(http->server);
    free(http);
}
