/* REP0 with many contexts, as an asynchronous state machine.
 *
 * What nng 1.5.2 does not do for us, and this file does:
 *   - NNG_OPT_RECVMAXSZ is unlimited unless set;
 *   - a peer that sends and never reads holds one context a request until the send is given up: so there is a send
 *     timeout, a count of what one pipe has in flight, and the pipe is closed when either is passed. When a pipe closes,
 *     nng drops the replies that wait for it;
 *   - a TLS listener without a certificate starts happily and fails every client: certificate and key are read here, and a
 *     listener that cannot take them does not start;
 *   - an aio's callback may run again, on another thread, before the callback that started the new operation has
 *     returned: a call must not be touched after it was handed on.
 */
#include "net.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <nng/nng.h>
#include <nng/protocol/reqrep0/rep.h>
#include <nng/supplemental/tls/tls.h>
#include <nng/supplemental/util/platform.h>
#include <nng/transport/tls/tls.h>

#include "clock.h"
#include "hangup.h"
#include "log.h"
#include "workers.h"

#define BUCKETS  1024u
#define CLOSE_MS 5000u
#define STILL_MS 1000u

typedef struct pipe_state {
    struct pipe_state *next;
    uint32_t id;
    uint32_t in_flight; /* requests taken in whose replies are not sent */
    int gone;
    int dismissed;     /* by us: nothing it says is heard any more */
    uint64_t heard_ns; /* its last request */
} pipe_state;

typedef enum call_state { CALL_RECEIVE, CALL_BUSY, CALL_SEND } call_state;

struct pd_call {
    pd_net *net;
    nng_ctx ctx;
    nng_aio *aio;
    nng_msg *request, *reply;
    nng_pipe pipe;
    pipe_state *state_of_pipe;
    call_state state;
    int opened;
};

struct pd_net {
    pd_net_options options;
    nng_socket socket;
    nng_listener listener;
    char url[160];
    pthread_mutex_t lock; /* pipes and busy */
    pthread_cond_t idle;
    pipe_state *pipes[BUCKETS];

    uint32_t active; /* pipes with in_flight > 0 */
    uint32_t busy;   /* calls between receive and the end of send */
    int closing, closed;
    pd_workers *closer;
    uint32_t ncalls;
    pd_call calls[];
};

/* ---------------------------------------------------------------------------------------------------- pipes --- */

static pipe_state **find_pipe(pd_net *net, uint32_t id)
{
    pipe_state **at = &net->pipes[id % BUCKETS];
    while (*at && (*at)->id != id)
        at = &(*at)->next;
    return at;
}

static void forget_pipe(pd_net *net, uint32_t id)
{
    pipe_state **at = find_pipe(net, id);
    pipe_state *pipe = *at;
    if (!pipe || !pipe->gone || pipe->in_flight) return;
    *at = pipe->next;
    free(pipe);
}

static void on_pipe(nng_pipe pipe, nng_pipe_ev event, void *context)
{
    pd_net *net = context;
    uint32_t id = (uint32_t)nng_pipe_id(pipe);
    int refuse = 0, missed = 0;
    pthread_mutex_lock(&net->lock);
    if (event == NNG_PIPE_EV_ADD_PRE) {
        pipe_state *state = calloc(1, sizeof *state);
        if (state) {
            *state = (pipe_state){.id = id, .next = net->pipes[id % BUCKETS]};
            net->pipes[id % BUCKETS] = state;
            atomic_fetch_add(&net->options.metrics->pipes[net->options.port], 1);
        }
        refuse = !state;
    } else {
        pipe_state *state = *find_pipe(net, id);
        if (state && !state->gone) {
            state->gone = 1;
            missed = state->in_flight > 0;
            atomic_fetch_sub(&net->options.metrics->pipes[net->options.port], 1);
            forget_pipe(net, id);
        }
    }
    pthread_mutex_unlock(&net->lock);
    if (refuse) nng_pipe_close(pipe);
    if (missed && net->options.on_gone) net->options.on_gone(net->options.context);
}

/* Ending a connection from this side is done by its socket (hangup.c says why), by a thread of ours, because that looks through
 * the descriptors. An ipc peer cannot be told from others by its address: it is closed through nng when it has been still for a
 * while, which is safe, and only ignored otherwise. */
typedef struct hang_up {
    pd_work work;
    nng_pipe pipe;
    int still;
} hang_up;

static int peer_of(nng_pipe pipe, struct sockaddr_storage *out)
{
    nng_sockaddr address;
    memset(out, 0, sizeof *out);
    if (nng_pipe_get_addr(pipe, NNG_OPT_REMADDR, &address)) return 0;
    if (address.s_family == NNG_AF_INET) {
        struct sockaddr_in *v4 = (void *)out;
        v4->sin_family = AF_INET;
        v4->sin_port = address.s_in.sa_port;
        v4->sin_addr.s_addr = address.s_in.sa_addr;
        return 1;
    }
    if (address.s_family == NNG_AF_INET6) {
        struct sockaddr_in6 *v6 = (void *)out;
        v6->sin6_family = AF_INET6;
        v6->sin6_port = address.s_in6.sa_port;
        memcpy(&v6->sin6_addr, address.s_in6.sa_addr, sizeof v6->sin6_addr);
        return 1;
    }
    return 0;
}

static void run_hang_up(pd_work *work)
{
    hang_up *h = (hang_up *)work;
    struct sockaddr_storage peer;
    int done = peer_of(h->pipe, &peer) && pd_hang_up_peer(&peer);
    if (!done && h->still) nng_pipe_close(h->pipe);
    free(h);
}

/* From now on its requests are dropped unread and its replies are not wanted. */
static void dismiss(pd_net *net, nng_pipe pipe, pipe_state *state, const char *why)
{
    pd_error err;
    pthread_mutex_lock(&net->lock);
    int first = !state->dismissed && !state->gone;
    int still = pd_now_ns() - state->heard_ns > STILL_MS * 1000000ull;
    state->dismissed = 1;
    pthread_mutex_unlock(&net->lock);
    if (!first) return;
    pd_count(&net->options.metrics->pipes_closed[net->options.port], 1);
    pd_log(PD_LOG_WARNING, "%s: connection %u is closed: %s", net->options.name, state->id, why);
    if (net->options.on_gone) net->options.on_gone(net->options.context);
    hang_up *h = malloc(sizeof *h);
    if (!h) return; /* ignored is enough */
    *h = (hang_up){.work.run = run_hang_up, .pipe = pipe, .still = still};
    if (pd_workers_add(net->closer, &h->work, &err)) free(h);
}

/* ---------------------------------------------------------------------------------------------------- calls --- */

static void receive(pd_call *call)
{
    call->state = CALL_RECEIVE;
    nng_aio_set_timeout(call->aio, NNG_DURATION_INFINITE);
    nng_ctx_recv(call->ctx, call->aio);
}

/* The call is over: it no longer counts for its pipe, and receives again. */
static void again(pd_call *call)
{
    pd_net *net = call->net;
    pd_call_drop(call);
    pthread_mutex_lock(&net->lock);
    if (call->state_of_pipe) {
        if (--call->state_of_pipe->in_flight == 0) net->active--;
        forget_pipe(net, call->state_of_pipe->id);
        call->state_of_pipe = NULL;
    }
    if (--net->busy == 0) pthread_cond_broadcast(&net->idle);
    int closing = net->closing;
    pthread_mutex_unlock(&net->lock);
    if (!closing) receive(call);
}

static void received(pd_call *call)
{
    pd_net *net = call->net;
    call->request = nng_aio_get_msg(call->aio);
    nng_aio_set_msg(call->aio, NULL);
    call->pipe = nng_msg_get_pipe(call->request);
    call->state = CALL_BUSY;
    pd_crowd crowd = {0};
    pthread_mutex_lock(&net->lock);
    net->busy++;
    call->state_of_pipe = *find_pipe(net, (uint32_t)nng_pipe_id(call->pipe));
    int ignored = !call->state_of_pipe || call->state_of_pipe->dismissed;
    if (call->state_of_pipe) {
        crowd.in_flight = ++call->state_of_pipe->in_flight;
        if (crowd.in_flight == 1) net->active++;
        call->state_of_pipe->heard_ns = pd_now_ns();
    }
    crowd.active = net->active;
    pthread_mutex_unlock(&net->lock);
    size_t length = nng_msg_len(call->request);
    pd_count(&net->options.metrics->bytes_in[net->options.port], length);
    if (ignored || crowd.in_flight > 2u * net->options.pipe_requests) {
        /* A context may receive again without having replied: nothing waits in nng for this peer. */
        if (!ignored && call->state_of_pipe)
            dismiss(net, call->pipe, call->state_of_pipe, "too many requests whose replies are not read");
        again(call);
        return;
    }
    net->options.on_request(net->options.context, call, nng_msg_body(call->request), length, crowd);
}

static void on_aio(void *context)
{
    pd_call *call = context;
    int failed = nng_aio_result(call->aio);
    if (call->state == CALL_RECEIVE) {
        if (failed == NNG_ECLOSED || failed == NNG_ECANCELED) return;
        if (failed) {
            pd_log(PD_LOG_WARNING, "%s: receiving: %s", call->net->options.name, nng_strerror(failed));
            nng_msleep(1); /* out of memory, most likely: do not spin on it */
            receive(call);
            return;
        }
        received(call);
        return;
    }
    if (failed) {
        /* The message is ours again. */
        nng_msg *message = nng_aio_get_msg(call->aio);
        nng_aio_set_msg(call->aio, NULL);
        if (message) nng_msg_free(message);
        if (failed == NNG_ETIMEDOUT && call->state_of_pipe)
            dismiss(call->net, call->pipe, call->state_of_pipe, "its replies are not read");
    }
    again(call);
}

int pd_call_wanted(pd_call *call)
{
    pthread_mutex_lock(&call->net->lock);
    int wanted = call->state_of_pipe && !call->state_of_pipe->gone && !call->state_of_pipe->dismissed;
    pthread_mutex_unlock(&call->net->lock);
    return wanted;
}

void pd_call_drop(pd_call *call)
{
    if (!call->request) return;
    nng_msg_free(call->request);
    call->request = NULL;
}

uint8_t *pd_call_room(pd_call *call, size_t length)
{
    if (nng_msg_alloc(&call->reply, length)) {
        call->reply = NULL;
        return NULL;
    }
    return nng_msg_body(call->reply);
}

void pd_call_send(pd_call *call)
{
    pd_call_drop(call);
    pd_count(&call->net->options.metrics->bytes_out[call->net->options.port], nng_msg_len(call->reply));
    call->state = CALL_SEND;
    nng_aio_set_timeout(call->aio, (nng_duration)call->net->options.send_timeout_ms);
    nng_aio_set_msg(call->aio, call->reply);
    call->reply = NULL;
    nng_ctx_send(call->ctx, call->aio);
}

void pd_call_abandon(pd_call *call)
{
    if (call->reply) {
        nng_msg_free(call->reply);
        call->reply = NULL;
    }
    if (call->state_of_pipe) dismiss(call->net, call->pipe, call->state_of_pipe, "no memory to answer");
    again(call);
}

/* ------------------------------------------------------------------------------------------------ open, close --- */

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

static pd_status listen_on(pd_net *net, pd_error *err)
{
    const pd_listener_config *config = net->options.listener;
    nng_tls_config *tls = NULL;
    int failed = nng_listener_create(&net->listener, net->socket, config->url);
    if (failed) goto err_nng;
    failed = nng_listener_set_size(net->listener, NNG_OPT_RECVMAXSZ, net->options.max_message);
    if (failed) goto err_nng;
    if (strncmp(config->url, "tls+tcp://", 10) == 0) {
        pd_status status = pd_net_tls(config, &tls, err);
        if (status) return status;
        failed = nng_listener_set_ptr(net->listener, NNG_OPT_TLS_CONFIG, tls);
        nng_tls_config_free(tls);
        if (failed) goto err_nng;
    }
    failed = nng_listener_start(net->listener, 0);
    if (failed) goto err_nng;
    /* Port 0 asks for any: say which it became. */
    char *bound = NULL;
    snprintf(net->url, sizeof net->url, "%s", config->url);
    if (nng_listener_get_string(net->listener, NNG_OPT_URL, &bound) == 0) {
        snprintf(net->url, sizeof net->url, "%s", bound);
        nng_strfree(bound);
    }
    return PD_OK;
err_nng:
    return pd_fail(err, PD_UNAVAILABLE, "%s.url %s: %s", net->options.name, config->url,
                   nng_strerror(failed));
}

static pd_status open_calls(pd_net *net, pd_error *err)
{
    for (; net->ncalls < net->options.calls; net->ncalls++) {
        pd_call *call = &net->calls[net->ncalls];
        call->net = net;
        int failed = nng_aio_alloc(&call->aio, on_aio, call);
        if (failed)
            return pd_fail(err, PD_RESOURCE_EXHAUSTED, "%u calls: %s", net->options.calls,
                           nng_strerror(failed));
        failed = nng_ctx_open(&call->ctx, net->socket);
        if (failed) {
            nng_aio_free(call->aio);
            return pd_fail(err, PD_RESOURCE_EXHAUSTED, "%u calls: %s", net->options.calls,
                           nng_strerror(failed));
        }
    }
    return PD_OK;
}

pd_status pd_net_open(const pd_net_options *options, pd_net **out, pd_error *err)
{
    pd_net *net = calloc(1, sizeof *net + options->calls * sizeof net->calls[0]);
    if (!net) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for %u calls", options->calls);
    net->options = *options;
    pthread_mutex_init(&net->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&net->idle, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pd_status status = pd_workers_open("pd-closer", 1, UINT32_MAX, &net->closer, err);
    int failed = status ? 0 : nng_rep0_open(&net->socket);
    if (failed) status = pd_fail(err, PD_UNAVAILABLE, "%s: %s", options->name, nng_strerror(failed));
    if (status) {
        pd_workers_close(net->closer);
        pthread_cond_destroy(&net->idle);
        pthread_mutex_destroy(&net->lock);
        free(net);
        return status;
    }
    failed = nng_socket_set_size(net->socket, NNG_OPT_RECVMAXSZ, options->max_message);
    if (!failed) failed = nng_pipe_notify(net->socket, NNG_PIPE_EV_ADD_PRE, on_pipe, net);
    if (!failed) failed = nng_pipe_notify(net->socket, NNG_PIPE_EV_REM_POST, on_pipe, net);
    if (failed) status = pd_fail(err, PD_UNAVAILABLE, "%s: %s", options->name, nng_strerror(failed));
    if (!status) status = open_calls(net, err);
    if (!status) {
        for (uint32_t i = 0; i < net->ncalls; i++)
            receive(&net->calls[i]);
        status = listen_on(net, err);
    }
    if (status) {
        pd_net_close(net);
        return status;
    }
    *out = net;
    return PD_OK;
}

const char *pd_net_url(const pd_net *net)
{
    return net->url;
}

int pd_net_drain(pd_net *net, uint32_t timeout_ms)
{
    struct timespec until = pd_clock_at(pd_now_ns() + timeout_ms * 1000000ull);
    pthread_mutex_lock(&net->lock);
    while (net->busy && pthread_cond_timedwait(&net->idle, &net->lock, &until) == 0) {
    }
    int idle = net->busy == 0;
    pthread_mutex_unlock(&net->lock);
    /* A reply counts as sent when nng's transport has it; the last bytes may still be on their way to the kernel. */
    if (idle) nng_msleep(50);
    return idle;
}

/* nng_close of 1.5.2 can wait for ever on a connection that was lost in the middle of things; so it waits in a thread of its own. */
static void *close_socket(void *context)
{
    pd_net *net = context;
    nng_listener_close(net->listener);
    for (int tries = 0; tries < 20 && pd_hang_up_all(net->url) > 0; tries++)
        nng_msleep(10);
    nng_close(net->socket);
    pthread_mutex_lock(&net->lock);
    net->closed = 1;
    pthread_cond_broadcast(&net->idle);
    pthread_mutex_unlock(&net->lock);
    return NULL;
}

int pd_net_close(pd_net *net)
{
    if (!net) return 1;
    pthread_t closer;
    pd_workers_close(net->closer);
    pthread_mutex_lock(&net->lock);
    net->closing = 1;
    pthread_mutex_unlock(&net->lock);
    if (pthread_create(&closer, NULL, close_socket, net)) {
        close_socket(net);
    } else {
        struct timespec until = pd_clock_at(pd_now_ns() + CLOSE_MS * 1000000ull);
        pthread_mutex_lock(&net->lock);
        while (!net->closed && pthread_cond_timedwait(&net->idle, &net->lock, &until) == 0) {
        }
        int closed = net->closed;
        pthread_mutex_unlock(&net->lock);
        if (!closed) {
            pthread_detach(closer);
            pd_log(PD_LOG_WARNING, "%s: nng does not close its connections; leaving them", net->options.name);
            return 0;
        }
        pthread_join(closer, NULL);
    }
    for (uint32_t i = 0; i < net->ncalls; i++)
        nng_aio_stop(net->calls[i].aio);
    for (uint32_t i = 0; i < net->ncalls; i++) {
        pd_call *call = &net->calls[i];
        nng_msg *left = nng_aio_get_msg(call->aio); /* an operation that never began leaves its message */
        if (left) nng_msg_free(left);
        nng_aio_free(call->aio);
        pd_call_drop(call);
        if (call->reply) nng_msg_free(call->reply);
    }
    for (uint32_t b = 0; b < BUCKETS; b++)
        for (pipe_state *pipe = net->pipes[b], *next; pipe; pipe = next) {
            next = pipe->next;
            free(pipe);
        }
    pthread_cond_destroy(&net->idle);
    pthread_mutex_destroy(&net->lock);
    free(net);
    return 1;
}
