/* One nng REQ socket: everything of nng that libpados uses.
 *
 * Each call takes a lane, an nng context with its aio, from a free list, so that threads share one connection without
 * waiting for one another. A lane that failed is closed, not reused: whatever nng still knew of its request goes with it.
 *
 * Rejected: a REQ socket a thread (a connection each, and hellos to match); nng's blocking nng_sendmsg and nng_recvmsg
 * (no deadline a call); counting on nng to resend (see client_impl.h).
 */
#include "client_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <nng/nng.h>
#include <nng/protocol/reqrep0/req.h>
#include <nng/supplemental/tls/tls.h>

enum {
    RECONNECT_MIN_MS = 20,
    RECONNECT_MAX_MS = 1000,
    WHOLE_BYTES = 16 << 10, /* a request of no more than this goes into the system's buffer at once */
    REDIAL_MS = 3000,       /* without a connection, until a dialer is thought dead */
    FLUSH_MS = 1000,
    HANDSHAKE_MS = 200,
};

typedef struct lane {
    nng_ctx ctx;
    nng_aio *aio;
    struct lane *next;
} lane;

struct pd_link {
    nng_socket socket;
    nng_dialer dialer;
    uint64_t dialed_ms; /* when its connection was last seen to go, or it was made */
    bool redialing;
    char *url, *ca_file, *server_name; /* the last two NULL: none */
    bool tls;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int pipe;       /* nng's number of the connection that is up; 0: none */
    uint64_t epoch; /* connections so far */
    uint64_t half;  /* the connection over which a request may be half sent; 0: none */
    lane *free;
};

uint64_t pd_client_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void on_pipe(nng_pipe pipe, nng_pipe_ev event, void *context)
{
    pd_link *link = context;
    pthread_mutex_lock(&link->lock);
    if (event == NNG_PIPE_EV_ADD_POST) {
        link->pipe = nng_pipe_id(pipe);
        link->epoch++;
        pthread_cond_broadcast(&link->changed);
    } else if (link->pipe == nng_pipe_id(pipe)) {
        link->pipe = 0;
        link->dialed_ms = pd_client_now_ms();
    }
    pthread_mutex_unlock(&link->lock);
}

static uint64_t epoch_of(pd_link *link)
{
    pthread_mutex_lock(&link->lock);
    uint64_t epoch = link->epoch;
    pthread_mutex_unlock(&link->lock);
    return epoch;
}

/* A request learns that its connection is gone before on_pipe does: the next call must not take it for alive, or it would
 * go out over a new connection without that one's hello. */
static void note_loss(pd_link *link, uint64_t epoch)
{
    pthread_mutex_lock(&link->lock);
    if (link->epoch == epoch && link->pipe) {
        link->pipe = 0;
        link->dialed_ms = pd_client_now_ms();
    }
    pthread_mutex_unlock(&link->lock);
}

static void note_half_sent(pd_link *link, uint64_t epoch)
{
    pthread_mutex_lock(&link->lock);
    link->half = epoch;
    pthread_mutex_unlock(&link->lock);
}

/* A configuration of our own does not take the host from the URL by itself, and without a name no name is checked. */
static int set_server_name(nng_tls_config *config, const char *url, const char *name)
{
    if (name) return nng_tls_config_server_name(config, name);
    nng_url *parts;
    int rv = nng_url_parse(&parts, url);
    if (rv) return rv;
    rv = nng_tls_config_server_name(config, parts->u_hostname);
    nng_url_free(parts);
    return rv;
}

static pados_status configure_tls(nng_dialer dialer, const pd_link *link, pados_error *error)
{
    const char *url = link->url;
    if (!link->ca_file)
        return pd_client_fail(error, PD_INVALID_ARGUMENT,
                              "%s: a tls+tcp URL needs the certificate of its authority (a CA file)", url);
    nng_tls_config *config;
    int rv = nng_tls_config_alloc(&config, NNG_TLS_MODE_CLIENT);
    if (rv) return pd_client_fail(error, PD_INTERNAL, "TLS: %s", nng_strerror(rv));
    pados_status status = PD_OK;
    if ((rv = nng_tls_config_ca_file(config, link->ca_file)) != 0)
        status = pd_client_fail(error, PD_INVALID_ARGUMENT, "%s: no usable CA certificate: %s", link->ca_file,
                                nng_strerror(rv));
    else if ((rv = nng_tls_config_auth_mode(config, NNG_TLS_AUTH_MODE_REQUIRED)) != 0 ||
             (rv = set_server_name(config, url, link->server_name)) != 0 ||
             (rv = nng_dialer_set_ptr(dialer, NNG_OPT_TLS_CONFIG, config)) != 0)
        status = pd_client_fail(error, PD_INTERNAL, "%s: TLS: %s", url, nng_strerror(rv));
    nng_tls_config_free(config); /* the dialer holds it from here */
    return status;
}

static pados_status start_dialer(pd_link *link, pados_error *error)
{
    nng_dialer dialer;
    int rv = nng_dialer_create(&dialer, link->socket, link->url);
    if (rv)
        return pd_client_fail(
            error, PD_INVALID_ARGUMENT,
            "\"%s\" is not an address to connect to (tcp://HOST:PORT, tls+tcp://HOST:PORT or "
            "ipc:///PATH): %s",
            link->url, nng_strerror(rv));
    if (link->tls) {
        pados_status status = configure_tls(dialer, link, error);
        if (status) return status;
    }
    /* Notices a host that went away without a word; ipc has no such option, which is fine. */
    nng_dialer_set_bool(dialer, NNG_OPT_TCP_KEEPALIVE, true);
    rv = nng_dialer_start(dialer, NNG_FLAG_NONBLOCK);
    if (rv)
        return pd_client_fail(error, rv == NNG_ENOMEM ? PD_RESOURCE_EXHAUSTED : PD_INVALID_ARGUMENT, "%s: %s",
                              link->url, nng_strerror(rv));
    pthread_mutex_lock(&link->lock);
    link->dialer = dialer;
    link->dialed_ms = pd_client_now_ms();
    pthread_mutex_unlock(&link->lock);
    return PD_OK;
}

/* A dialer whose peer dies while the two shake hands gives up for good, without a word: another one takes its place. With
 * the lock held, which is let go of meanwhile. */
static void redial(pd_link *link)
{
    pados_error none;
    nng_dialer old = link->dialer;
    link->redialing = true;
    pthread_mutex_unlock(&link->lock);
    nng_dialer_close(old);
    pados_status status = start_dialer(link, &none);
    pthread_mutex_lock(&link->lock);
    if (status) link->dialed_ms = pd_client_now_ms(); /* it is tried again after the next wait */
    link->redialing = false;
}

static int init_condition(pthread_cond_t *condition)
{
    pthread_condattr_t attributes;
    int rv = pthread_condattr_init(&attributes);
    if (rv) return rv;
    if ((rv = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)) == 0)
        rv = pthread_cond_init(condition, &attributes);
    pthread_condattr_destroy(&attributes);
    return rv;
}

pados_status pd_link_open(const char *url, const pd_link_options *options, pd_link **out, pados_error *error)
{
    pados_status status = PD_RESOURCE_EXHAUSTED;
    pd_link *link = calloc(1, sizeof *link);
    if (!link) return pd_client_fail(error, status, "no memory for a connection");
    link->tls = strncmp(url, "tls+tcp", 7) == 0;
    link->url = strdup(url);
    link->ca_file = options->ca_file ? strdup(options->ca_file) : NULL;
    link->server_name = options->server_name ? strdup(options->server_name) : NULL;
    if (!link->url || !link->ca_file != !options->ca_file || !link->server_name != !options->server_name) {
        pd_client_fail(error, status, "no memory for a connection");
        goto err_after_url;
    }
    if (pthread_mutex_init(&link->lock, NULL)) {
        pd_client_fail(error, status, "no mutex for a connection");
        goto err_after_url;
    }
    if (init_condition(&link->changed)) {
        pd_client_fail(error, status, "no condition variable for a connection");
        goto err_after_mutex;
    }
    int rv = nng_req0_open(&link->socket);
    if (rv) {
        pd_client_fail(error, status, "no socket: %s", nng_strerror(rv));
        goto err_after_condition;
    }
    if ((rv = nng_socket_set_ms(link->socket, NNG_OPT_REQ_RESENDTIME, NNG_DURATION_INFINITE)) != 0 ||
        (rv = nng_socket_set_size(link->socket, NNG_OPT_RECVMAXSZ, PD_CLIENT_MAX_REPLY)) != 0 ||
        (rv = nng_socket_set_ms(link->socket, NNG_OPT_RECONNMINT, RECONNECT_MIN_MS)) != 0 ||
        (rv = nng_socket_set_ms(link->socket, NNG_OPT_RECONNMAXT, RECONNECT_MAX_MS)) != 0 ||
        (rv = nng_pipe_notify(link->socket, NNG_PIPE_EV_ADD_POST, on_pipe, link)) != 0 ||
        (rv = nng_pipe_notify(link->socket, NNG_PIPE_EV_REM_POST, on_pipe, link)) != 0) {
        status = pd_client_fail(error, PD_INTERNAL, "socket options: %s", nng_strerror(rv));
        goto err_after_socket;
    }
    if ((status = start_dialer(link, error)) != PD_OK) goto err_after_socket;
    *out = link;
    return PD_OK;

err_after_socket:
    nng_close(link->socket);
err_after_condition:
    pthread_cond_destroy(&link->changed);
err_after_mutex:
    pthread_mutex_destroy(&link->lock);
err_after_url:
    free(link->url);
    free(link->ca_file);
    free(link->server_name);
    free(link);
    return status;
}

static void lane_close(lane *one)
{
    nng_ctx_close(one->ctx);
    nng_aio_free(one->aio);
    free(one);
}

static pados_status lane_take(pd_link *link, lane **out, pados_error *error)
{
    pthread_mutex_lock(&link->lock);
    lane *one = link->free;
    if (one) link->free = one->next;
    pthread_mutex_unlock(&link->lock);
    if (!one) {
        if (!(one = calloc(1, sizeof *one)))
            return pd_client_fail(error, PD_RESOURCE_EXHAUSTED, "no memory for a call");
        int rv = nng_ctx_open(&one->ctx, link->socket);
        if (rv) {
            free(one);
            return pd_client_fail(error, PD_RESOURCE_EXHAUSTED, "no context for a call: %s",
                                  nng_strerror(rv));
        }
        if ((rv = nng_aio_alloc(&one->aio, NULL, NULL)) != 0) {
            nng_ctx_close(one->ctx);
            free(one);
            return pd_client_fail(error, PD_RESOURCE_EXHAUSTED, "no memory for a call: %s", nng_strerror(rv));
        }
    }
    one->next = NULL;
    *out = one;
    return PD_OK;
}

static void lane_give(pd_link *link, lane *one)
{
    pthread_mutex_lock(&link->lock);
    one->next = link->free;
    link->free = one;
    pthread_mutex_unlock(&link->lock);
}

pados_status pd_link_wait(pd_link *link, uint64_t deadline_ms, uint64_t *epoch, pados_error *error)
{
    pthread_mutex_lock(&link->lock);
    for (uint64_t now; !link->pipe && (now = pd_client_now_ms()) < deadline_ms;) {
        uint64_t wake = link->redialing ? now + REDIAL_MS : link->dialed_ms + REDIAL_MS;
        if (wake <= now) {
            redial(link);
            continue;
        }
        if (wake > deadline_ms) wake = deadline_ms;
        struct timespec until = {.tv_sec = (time_t)(wake / 1000), .tv_nsec = (long)(wake % 1000) * 1000000};
        pthread_cond_timedwait(&link->changed, &link->lock, &until);
    }
    bool up = link->pipe != 0;
    if (up && epoch) *epoch = link->epoch;
    pthread_mutex_unlock(&link->lock);
    if (up) return PD_OK;
    return pd_client_fail(error, PD_UNAVAILABLE, "%s does not answer: no connection in the time given%s",
                          link->url,
                          link->tls ? " (or its certificate is not one that the CA file vouches for)" : "");
}

static nng_duration remaining(uint64_t deadline_ms)
{
    uint64_t now = pd_client_now_ms();
    uint64_t left = deadline_ms > now ? deadline_ms - now : 1;
    return (nng_duration)(left < INT32_MAX ? left : INT32_MAX);
}

static pados_status send_request(pd_link *link, lane *one, const Pados__V1__Request *request,
                                 uint64_t deadline_ms, pados_error *error)
{
    nng_msg *message;
    int rv = nng_msg_alloc(&message, pados__v1__request__get_packed_size(request));
    if (rv)
        return pd_client_fail(error, PD_RESOURCE_EXHAUSTED, "no memory for the request: %s",
                              nng_strerror(rv));
    pados__v1__request__pack(request, nng_msg_body(message));
    nng_aio_set_timeout(one->aio, remaining(deadline_ms));
    nng_aio_set_msg(one->aio, message);
    nng_ctx_send(one->ctx, one->aio);
    nng_aio_wait(one->aio);
    if ((rv = nng_aio_result(one->aio)) == 0) return PD_OK;
    nng_msg_free(message);
    nng_aio_set_msg(one->aio, NULL);
    return pd_client_fail(error, PD_UNAVAILABLE, "%s: the request was not sent: %s", link->url,
                          nng_strerror(rv));
}

static pados_status receive_reply(pd_link *link, lane *one, uint64_t deadline_ms, uint64_t epoch,
                                  nng_msg **message, pados_error *error)
{
    nng_aio_set_timeout(one->aio, remaining(deadline_ms));
    nng_ctx_recv(one->ctx, one->aio);
    nng_aio_wait(one->aio);
    int rv = nng_aio_result(one->aio);
    if (rv == 0) {
        *message = nng_aio_get_msg(one->aio);
        nng_aio_set_msg(one->aio, NULL);
        return PD_OK;
    }
    if (rv == NNG_ETIMEDOUT)
        return pd_client_fail(error, PD_DEADLINE_EXCEEDED, "%s: no reply before the deadline", link->url);
    note_loss(link, epoch);
    return pd_client_fail(error, PD_UNAVAILABLE, "%s: the connection was lost before the reply: %s",
                          link->url, nng_strerror(rv));
}

/* protobuf-c turns two bytes of an empty sub-message into some forty of heap. A budget of what an honest reply can need
 * keeps a hostile one from taking all there is. Frees are not counted back. */
typedef struct budget {
    size_t left;
} budget;

static void *budget_alloc(void *context, size_t size)
{
    budget *have = context;
    if (size > have->left) return NULL;
    have->left -= size;
    return malloc(size ? size : 1);
}

static void budget_free(void *context, void *memory)
{
    (void)context;
    free(memory);
}

static pados_status unpack(pd_link *link, const uint8_t *bytes, size_t length, Pados__V1__Reply **reply,
                           pados_error *error)
{
    budget have = {.left = ((size_t)8 << 20) + 16 * length};
    ProtobufCAllocator allocator = {.alloc = budget_alloc, .free = budget_free, .allocator_data = &have};
    *reply = pados__v1__reply__unpack(&allocator, length, bytes);
    if (*reply) return PD_OK;
    return pd_client_fail(error, PD_INTERNAL, "%s: the reply (%zu bytes) is not one that can be read",
                          link->url, length);
}

pados_status pd_link_exchange(pd_link *link, const Pados__V1__Request *request, uint64_t deadline_ms,
                              Pados__V1__Reply **reply, pados_error *error)
{
    lane *one = NULL;
    pados_status status = lane_take(link, &one, error);
    if (status) return status;
    nng_msg *message = NULL;
    const uint64_t epoch = epoch_of(link);
    status = send_request(link, one, request, deadline_ms, error);
    if (!status) status = receive_reply(link, one, deadline_ms, epoch, &message, error);
    if (status == PD_DEADLINE_EXCEEDED && pados__v1__request__get_packed_size(request) > WHOLE_BYTES)
        note_half_sent(link, epoch);
    if (status) {
        lane_close(one);
        return status;
    }
    lane_give(link, one);
    status = unpack(link, nng_msg_body(message), nng_msg_len(message), reply, error);
    nng_msg_free(message);
    return status;
}

/* In nng 1.5.2 nng_close may wait for ever: a pipe that is closed between two writes of one message never hears of the
 * second one's end, and the thread that takes pipes down, the only one of the process, waits for it. So a message that
 * a call left half sent at its deadline is let go out first: behind it goes a hello, which nng begins to send when the one
 * before is whole, and whose answer says that it arrived. A server that reads nothing any more makes no write end,
 * and is left after FLUSH_MS; what is not met is one that still reads, but so slowly that this was not enough. */
static void flush_half_sent(pd_link *link)
{
    pthread_mutex_lock(&link->lock);
    bool half = link->pipe && link->half == link->epoch;
    pthread_mutex_unlock(&link->lock);
    lane *one = NULL;
    if (!half || lane_take(link, &one, NULL)) return;
    uint64_t deadline = pd_client_now_ms() + FLUSH_MS;
    Pados__V1__Hello hello = PADOS__V1__HELLO__INIT;
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    request.body_case = PADOS__V1__REQUEST__BODY_HELLO;
    request.hello = &hello;
    request.deadline_ms = FLUSH_MS;
    nng_msg *answer;
    if (!send_request(link, one, &request, deadline, NULL) &&
        !receive_reply(link, one, deadline, 0, &answer, NULL))
        nng_msg_free(answer);
    lane_close(one);
}

/* nng 1.5.2 never frees a connection whose handshake ends while its dialer is being closed (4 KiB, in a ring that nothing
 * points to): one that was dialled just now is waited for. */
static void await_handshake(pd_link *link)
{
    pthread_mutex_lock(&link->lock);
    uint64_t until_ms = link->dialed_ms + HANDSHAKE_MS;
    while (!link->pipe && pd_client_now_ms() < until_ms) {
        struct timespec until = {.tv_sec = (time_t)(until_ms / 1000),
                                 .tv_nsec = (long)(until_ms % 1000) * 1000000};
        pthread_cond_timedwait(&link->changed, &link->lock, &until);
    }
    pthread_mutex_unlock(&link->lock);
}

void pd_link_close(pd_link *link)
{
    if (!link) return;
    await_handshake(link);
    flush_half_sent(link);
    while (link->free) {
        lane *one = link->free;
        link->free = one->next;
        lane_close(one);
    }
    nng_close(link->socket);
    pthread_cond_destroy(&link->changed);
    pthread_mutex_destroy(&link->lock);
    free(link->url);
    free(link->ca_file);
    free(link->server_name);
    free(link);
}
