/* Listening: accepts connections and hands them to conn.c, which says why this is not nng's REP socket.
 *
 * What nng 1.5.2 does not do for us, and this file does: a TLS listener without a certificate starts happily and fails every client, so
 * certificate and key are read here, and a listener that cannot take them does not start.
 */
#include "net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <nng/nng.h>
#include <nng/supplemental/tls/tls.h>
#include <nng/supplemental/util/platform.h>

#include "clock.h"
#include "conn.h"
#include "log.h"

static pd_status read_file(const char *path, char **out, pd_error *err)
{
    FILE *file = fopen(path, "rb");
    if (!file) return pd_fail(err, PD_UNAVAILABLE, "\"%s\" cannot be read: %s", path, strerror(errno));
    char *text = calloc(1, (1u << 20) + 1);
    size_t got = text ? fread(text, 1, 1u << 20, file) : 0;
    int failed = !text || ferror(file) || got == 0;
    fclose(file);
    if (failed) {
        free(text);
        return pd_fail(err, PD_UNAVAILABLE, "\"%s\" cannot be read", path);
    }
    *out = text;
    return PD_OK;
}

pd_status pd_net_tls(const pd_listener_config *listener, struct nng_tls_config **out, pd_error *err)
{
    char *cert = NULL, *key = NULL;
    nng_tls_config *tls = NULL;
    pd_status status = read_file(listener->cert_file, &cert, err);
    if (!status) status = read_file(listener->key_file, &key, err);
    if (status) goto out;
    int failed = nng_tls_config_alloc(&tls, NNG_TLS_MODE_SERVER);
    if (!failed) failed = nng_tls_config_own_cert(tls, cert, key, NULL);
    if (failed) {
        status = pd_fail(err, PD_UNAVAILABLE, "certificate \"%s\" with key \"%s\": %s", listener->cert_file,
                         listener->key_file, nng_strerror(failed));
        if (tls) nng_tls_config_free(tls);
        goto out;
    }
    *out = tls;
out:
    free(cert);
    free(key);
    return status;
}

static void on_accept(void *context)
{
    pd_net *net = context;
    int failed = nng_aio_result(net->accept);
    if (failed == NNG_ECLOSED || failed == NNG_ECANCELED) return;
    if (failed) {
        pd_log(PD_LOG_WARNING, "%s: accepting: %s", net->options.name, nng_strerror(failed));
        nng_msleep(10); /* out of descriptors, most likely: do not spin on it */
    } else {
        pd_conn_start(net, nng_aio_get_output(net->accept, 0));
    }
    nng_stream_listener_accept(net->listener, net->accept);
}

/* Port 0 asks for any: the URL says which it became. */
static void name_port(pd_net *net)
{
    nng_sockaddr address;
    uint16_t port = 0;
    size_t host = (size_t)(strrchr(net->url, ':') - net->url);
    if (net->ipc || nng_stream_listener_get_addr(net->listener, NNG_OPT_LOCADDR, &address)) return;
    if (address.s_family == NNG_AF_INET) port = ntohs(address.s_in.sa_port);
    if (address.s_family == NNG_AF_INET6) port = ntohs(address.s_in6.sa_port);
    if (port) snprintf(net->url + host, sizeof net->url - host, ":%u", port);
}

static pd_status listen_on(pd_net *net, pd_error *err)
{
    const pd_listener_config *config = net->options.listener;
    int failed = nng_stream_listener_alloc(&net->listener, config->url);
    if (failed) goto err_nng;
    if (strncmp(config->url, "tls+tcp://", 10) == 0) {
        nng_tls_config *tls;
        pd_status status = pd_net_tls(config, &tls, err);
        if (status) return status;
        failed = nng_stream_listener_set_ptr(net->listener, NNG_OPT_TLS_CONFIG, tls);
        nng_tls_config_free(tls);
        if (failed) goto err_nng;
    }
    failed = nng_stream_listener_listen(net->listener);
    if (failed) goto err_nng;
    name_port(net);

    return PD_OK;
err_nng:
    return pd_fail(err, PD_UNAVAILABLE, "%s.url %s: %s", net->options.name, config->url,
                   nng_strerror(failed));
}

void pd_net_configure(pd_net *net, const pd_config *config)
{
    atomic_store(&net->max_message, config->max_message);
    atomic_store(&net->send_timeout_ms, config->send_timeout_ms);
    atomic_store(&net->pipe_requests, config->pipe_requests);
}

pd_status pd_net_open(const pd_net_options *options, pd_net **out, pd_error *err)
{
    pd_net *net = calloc(1, sizeof *net);
    if (!net) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the %s listener", options->name);
    net->options = *options;
    net->options.config = NULL;
    pd_net_configure(net, options->config);
    net->ipc = strncmp(options->listener->url, "ipc://", 6) == 0;
    snprintf(net->url, sizeof net->url, "%s", options->listener->url);
    pthread_mutex_init(&net->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&net->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pd_status status = pd_workers_open("pd-closer", 1, UINT32_MAX, &net->closer, err);
    if (!status && nng_aio_alloc(&net->accept, on_accept, net))
        status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the %s listener", options->name);
    if (!status) status = listen_on(net, err);
    if (status) {
        pd_net_close(net);
        return status;
    }
    *out = net;
    return PD_OK;
}

void pd_net_start(pd_net *net)
{
    nng_stream_listener_accept(net->listener, net->accept);
}

const char *pd_net_url(const pd_net *net)
{
    return net->url;
}

int pd_net_drain(pd_net *net, uint32_t timeout_ms)
{
    struct timespec until = pd_clock_at(pd_now_ns() + timeout_ms * 1000000ull);
    pthread_mutex_lock(&net->lock);
    while (net->calls && pthread_cond_timedwait(&net->changed, &net->lock, &until) == 0) {
    }
    int idle = net->calls == 0;
    pthread_mutex_unlock(&net->lock);
    return idle;
}

void pd_net_close(pd_net *net)
{
    if (!net) return;
    pthread_mutex_lock(&net->lock);
    net->closing = 1;
    pthread_mutex_unlock(&net->lock);
    if (net->listener) nng_stream_listener_close(net->listener);
    if (net->accept) {
        nng_aio_stop(net->accept);
        nng_aio_free(net->accept);
    }
    pd_conn_close_all(net);
    pthread_mutex_lock(&net->lock);
    while (net->nconns)
        pthread_cond_wait(&net->changed, &net->lock);
    pthread_mutex_unlock(&net->lock);
    pd_workers_close(net->closer);
    if (net->listener) nng_stream_listener_free(net->listener);
    pthread_cond_destroy(&net->changed);
    pthread_mutex_destroy(&net->lock);
    free(net);
}
