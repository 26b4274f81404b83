/* The client: opening it, the hello and its limits, and the envelope that every call shares.
 *
 * Limits belong to a connection, not to the client: a server that comes back may have been configured anew. So the first
 * call over a new connection says hello again. Strings of earlier hellos are kept until the client is closed, because a
 * caller may still hold them.
 */
#include "client_impl.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *pados_status_name(pados_status status)
{
    switch (status) {
#define PD_CLIENT_CASE(name, number)                                                                         \
    case number:                                                                                             \
        return #name;
        PD_STATUS_LIST(PD_CLIENT_CASE)
#undef PD_CLIENT_CASE
    }
    return "UNKNOWN";
}

pados_status pd_client_fail(pados_error *error, pados_status status, const char *format, ...)
{
    if (!error) return status;
    error->status = status;
    va_list args;
    va_start(args, format);
    vsnprintf(error->message, sizeof error->message, format, args);
    va_end(args);
    for (char *c = error->message; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
    return status;
}

/* ------------------------------------------------------------------------------------------------- hello --- */

/* Copies text where the client can find and free it; the same text is kept once. */
static const char *keep(pados_client *client, const char *text)
{
    for (pd_client_string *s = client->strings; s; s = s->next)
        if (strcmp(s->text, text) == 0) return s->text;
    size_t length = strlen(text) + 1;
    pd_client_string *s = malloc(sizeof *s + length);
    if (!s) return NULL;
    memcpy(s->text, text, length);
    s->next = client->strings;
    client->strings = s;
    return s->text;
}

static pados_status take_limits(pados_client *client, const Pados__V1__HelloReply *hello, uint64_t epoch,
                                pados_error *error)
{
    if (hello->protocol != 1)
        return pd_client_fail(error, PD_UNIMPLEMENTED, "%s speaks protocol %u of Pados, this client 1",
                              client->url, hello->protocol);
    pados_limits limits = {
        .max_message = hello->max_message,
        .max_hits = hello->max_hits,
        .max_chunk = hello->max_chunk ? hello->max_chunk : PD_CLIENT_MAX_CHUNK,
        .max_queries = hello->max_queries,
        .max_k = hello->max_k,
        .max_deadline_ms = hello->max_deadline_ms,
        .server = keep(client, hello->server),
        .backend = keep(client, hello->backend),
        .data_url = keep(client, hello->data_url),
        .admin_url = keep(client, hello->admin_url),
    };
    if (!limits.server || !limits.backend || !limits.data_url || !limits.admin_url)
        return pd_client_fail(error, PD_RESOURCE_EXHAUSTED, "no memory for the server's hello");
    client->limits = limits;
    client->hello_epoch = epoch;
    return PD_OK;
}

static pados_status say_hello(pados_client *client, uint64_t deadline_ms, uint64_t epoch, pados_error *error)
{
    Pados__V1__Hello hello = PADOS__V1__HELLO__INIT;
    hello.client = client->name;
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    request.body_case = PADOS__V1__REQUEST__BODY_HELLO;
    request.hello = &hello;
    Pados__V1__Reply *reply;
    pados_status status = pd_client_call(client, client->data, &request, deadline_ms,
                                         PADOS__V1__REPLY__BODY_HELLO, &reply, error);
    if (status) return status;
    pthread_mutex_lock(&client->lock);
    status = take_limits(client, reply->hello, epoch, error);
    pthread_mutex_unlock(&client->lock);
    pados__v1__reply__free_unpacked(reply, NULL);
    return status;
}

pados_status pd_client_ready(pados_client *client, uint64_t deadline_ms, pados_limits *limits,
                             pados_error *error)
{
    uint64_t epoch;
    pados_status status = pd_link_wait(client->data, deadline_ms, &epoch, error);
    if (status) return status;
    pthread_mutex_lock(&client->lock);
    bool known = client->hello_epoch == epoch;
    pthread_mutex_unlock(&client->lock);
    /* Two threads may both say it: harmless, and no thread waits for another's hello. */
    if (!known && (status = say_hello(client, deadline_ms, epoch, error)) != PD_OK) return status;
    pados_limits_of(client, limits);
    return PD_OK;
}

void pados_limits_of(const pados_client *client, pados_limits *limits)
{
    pthread_mutex_t *lock = (pthread_mutex_t *)&client->lock;
    pthread_mutex_lock(lock);
    *limits = client->limits;
    pthread_mutex_unlock(lock);
}

/* ------------------------------------------------------------------------------------------------- calls --- */

static pados_status check_reply(pd_link *link, const Pados__V1__Request *request,
                                const Pados__V1__Reply *reply, int want, pados_error *error)
{
    (void)link;
    if (reply->id != request->id)
        return pd_client_fail(error, PD_INTERNAL, "the reply is to request %llu, not to %llu",
                              (unsigned long long)reply->id, (unsigned long long)request->id);
    if (reply->status) {
        pados_status status = reply->status <= PD_UNAUTHENTICATED ? (pados_status)reply->status : PD_UNKNOWN;
        return pd_client_fail(error, status, "%s",
                              reply->message && *reply->message ? reply->message
                                                                : "the server gave no reason");
    }
    if ((int)reply->body_case != want)
        return pd_client_fail(error, PD_INTERNAL, "the reply is of another kind (%d, not %d)",
                              (int)reply->body_case, want);
    return PD_OK;
}

pados_status pd_client_call(pados_client *client, pd_link *link, Pados__V1__Request *request,
                            uint64_t deadline_ms, int want, Pados__V1__Reply **reply, pados_error *error)
{
    pados_status status = pd_link_wait(link, deadline_ms, NULL, error);
    if (status) return status;
    pthread_mutex_lock(&client->lock);
    request->id = ++client->next_id;
    uint64_t max_message = client->limits.max_message;
    uint32_t max_deadline = client->limits.max_deadline_ms;
    pthread_mutex_unlock(&client->lock);
    uint64_t now = pd_client_now_ms();
    uint64_t left = deadline_ms > now ? deadline_ms - now : 0;
    if (!left)
        return pd_client_fail(error, PD_DEADLINE_EXCEEDED, "the deadline passed before the request was sent");
    if (left > UINT32_MAX) left = UINT32_MAX;
    request->deadline_ms = max_deadline && left > max_deadline ? max_deadline : (uint32_t)left;
    request->token = client->token ? client->token : (char *)"";
    size_t bytes = pados__v1__request__get_packed_size(request);
    if (max_message && bytes > max_message)
        return pd_client_fail(
            error, PD_INVALID_ARGUMENT,
            "the request has %zu bytes, more than the %llu that the server reads: send it in parts", bytes,
            (unsigned long long)max_message);
    Pados__V1__Reply *got;
    status = pd_link_exchange(link, request, deadline_ms, &got, error);
    if (status) return status;
    status = check_reply(link, request, got, want, error);
    if (status) {
        pados__v1__reply__free_unpacked(got, NULL);
        return status;
    }
    *reply = got;
    return PD_OK;
}

/* ------------------------------------------------------------------------------------------------ opening --- */

static pados_status copy_text(char **to, const char *from)
{
    if (!from) return PD_OK;
    *to = strdup(from);
    return *to ? PD_OK : PD_RESOURCE_EXHAUSTED;
}

static void free_client(pados_client *client)
{
    pd_link_close(client->admin);
    pd_link_close(client->data);
    while (client->strings) {
        pd_client_string *s = client->strings;
        client->strings = s->next;
        free(s);
    }
    pthread_mutex_destroy(&client->lock);
    free(client->url);
    free(client->token);
    free(client->name);
    free(client->ca_file);
    free(client->server_name);
    free(client->admin_url);
    free(client);
}

pados_status pados_open(const char *url, const pados_options *options, pados_client **out, pados_error *error)
{
    static const pados_options none;
    const pados_options *o = options ? options : &none;
    if (!url || !*url) return pd_client_fail(error, PD_INVALID_ARGUMENT, "no URL to connect to");
    pados_client *client = calloc(1, sizeof *client);
    if (!client) return pd_client_fail(error, PD_RESOURCE_EXHAUSTED, "no memory for a client");
    if (pthread_mutex_init(&client->lock, NULL)) {
        free(client);
        return pd_client_fail(error, PD_RESOURCE_EXHAUSTED, "no mutex for a client");
    }
    client->timeout_ms = o->timeout_ms ? o->timeout_ms : PD_CLIENT_TIMEOUT_MS;
    client->connect_ms = o->connect_ms ? o->connect_ms : PD_CLIENT_CONNECT_MS;
    client->limits = (pados_limits){.server = "", .backend = "", .data_url = "", .admin_url = ""};
    pados_status status = PD_OK;
    if (copy_text(&client->url, url) || copy_text(&client->token, o->token) ||
        copy_text(&client->name, o->name ? o->name : "libpados 0.1.0") ||
        copy_text(&client->ca_file, o->ca_file) || copy_text(&client->server_name, o->server_name) ||
        copy_text(&client->admin_url, o->admin_url)) {
        status = pd_client_fail(error, PD_RESOURCE_EXHAUSTED, "no memory for a client");
        goto err_after_client;
    }
    pd_link_options tls = {.ca_file = client->ca_file, .server_name = client->server_name};
    if ((status = pd_link_open(url, &tls, &client->data, error)) != PD_OK) goto err_after_client;
    pados_limits limits;
    status = pd_client_ready(client, pd_client_now_ms() + client->connect_ms, &limits, error);
    if (status == PD_DEADLINE_EXCEEDED) {
        /* Something took the connection and does not talk: to the caller it is as if nobody were there. */
        pd_client_fail(error, PD_UNAVAILABLE, "%s took the connection but did not answer the hello in %u ms",
                       url, client->connect_ms);
        status = PD_UNAVAILABLE;
    }
    if (status) goto err_after_client;
    *out = client;
    return PD_OK;

err_after_client:
    free_client(client);
    return status;
}

void pados_close(pados_client *client)
{
    if (client) free_client(client);
}
