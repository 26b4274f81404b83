/* The life of a request between the socket and the queues.
 *
 * A message up to PD_INLINE_BYTES is decoded, checked, compiled and planned where nng delivers it (about 20 us); a larger
 * one by a thread of ours, so that a few thousand contexts or a megabyte of vectors never occupy the threads that carry
 * every connection. Replies are encoded by a thread of their own, so that neither the executor nor nng waits for it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "log.h"
#include "pados.pb-c.h"
#include "reply.h"
#include "server_impl.h"
#include "writes.h"

/* One request in progress. */
typedef struct serving {
    pd_work work;
    pd_door *door;
    pd_call *call;
    const uint8_t *bytes; /* while it waits to be decoded */
    size_t length;
    uint64_t id, born_ns, held;
    pd_wire *wire; /* of an administration request */
    pd_search *search;
    pd_status status;
    pd_error err;
} serving;

/* The id where it is the first field, as every client writes it: for refusals that do not decode. 0: not found. */
static uint64_t peek_id(const uint8_t *bytes, size_t length)
{
    uint64_t id = 0;
    if (length < 2 || bytes[0] != 0x08) return 0;
    for (unsigned i = 1, shift = 0; i < length && shift < 64; i++, shift += 7) {
        id |= (uint64_t)(bytes[i] & 0x7f) << shift;
        if (!(bytes[i] & 0x80)) return id;
    }
    return 0;
}

void pd_serve_count(pd_door *door, uint32_t status)
{
    pd_count(&door->server->metrics.requests[door->port][status < 17 ? status : PD_UNKNOWN], 1);
}

static void refuse(pd_door *door, pd_call *call, uint64_t id, pd_status status, const char *message)
{
    pd_serve_count(door, (uint32_t)status);
    pd_reply_error(call, id, status, message);
}

static void reject(pd_door *door, pd_reject reason)
{
    pd_count(&door->server->metrics.rejected[reason], 1);
}

/* ----------------------------------------------------------------------------------------------------- hello --- */

static void answer_hello(pd_door *door, pd_call *call, const Pados__V1__Request *request)
{
    pd_server *server = door->server;
    const pd_config *config = server->config;
    Pados__V1__Reply reply = PADOS__V1__REPLY__INIT;
    Pados__V1__HelloReply hello = PADOS__V1__HELLO_REPLY__INIT;
    int data = door->port == PD_PORT_DATA;
    const char *own = data ? pd_net_url(server->data_net) : pd_net_url(server->admin_net);
    hello.server = (char *)PD_SERVER_NAME;
    hello.protocol = PD_PROTOCOL;
    hello.max_message = config->max_message;
    hello.max_queries = config->max_queries;
    hello.max_k = PD_MAX_K;
    hello.max_hits = config->max_hits;
    hello.max_deadline_ms = config->max_deadline_ms;
    hello.data_url = (char *)(data ? own : door->other);
    hello.admin_url = (char *)(data ? door->other : own);
    hello.backend = server->backend;
    hello.max_chunk = config->max_chunk;
    reply.id = request->id;
    reply.body_case = PADOS__V1__REPLY__BODY_HELLO;
    reply.hello = &hello;
    pd_serve_count(door, PD_OK);
    pd_reply_send(call, &reply);
    if (request->hello && *request->hello->client)
        pd_log(PD_LOG_DEBUG, "hello from %.100s", request->hello->client);
}

/* -------------------------------------------------------------------------------------------- administration --- */

/* Statistics are what /metrics has, without histogram buckets. */
static pd_status stats_reply(pd_server *server, Pados__V1__Reply *reply, pd_error *err)
{
    pd_text text = {0};
    pd_pages_metrics(server, &text);
    size_t lines = 0;
    for (const char *at = text.bytes; at && *at; at++)
        lines += *at == '\n';
    Pados__V1__StatsReply *stats = malloc(sizeof *stats);
    char **names = calloc(lines + 1, sizeof *names);
    double *values = calloc(lines + 1, sizeof *values);
    size_t n = 0;
    int failed = text.failed || !stats || !names || !values;
    char *rest = text.bytes, *line;
    while (!failed && (line = strsep(&rest, "\n")) != NULL) {
        char *space = strrchr(line, ' ');
        if (*line == '#' || !space || strstr(line, "_bucket{")) continue;
        *space = 0;
        values[n] = strtod(space + 1, NULL);
        names[n] = strdup(line);
        failed = !names[n++];
    }
    free(text.bytes);
    if (failed) {
        for (size_t i = 0; i < n; i++)
            free(names[i]);
        free(stats);
        free(names);
        free(values);
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the statistics");
    }
    pados__v1__stats_reply__init(stats);
    stats->names = names;
    stats->n_names = stats->n_values = n;
    stats->values = values;
    reply->stats = stats;
    reply->body_case = PADOS__V1__REPLY__BODY_STATS;
    return PD_OK;
}

static void run_admin(pd_work *work)
{
    serving *s = (serving *)work;
    pd_server *server = s->door->server;
    Pados__V1__Request *request = pd_wire_request(s->wire);
    pd_error err = {0};
    pd_status status = PD_OK;
    Pados__V1__Reply *reply = malloc(sizeof *reply);
    if (reply) pados__v1__reply__init(reply);
    uint32_t ms = request->deadline_ms ? request->deadline_ms : server->config->deadline_ms;
    if (!reply)
        status = pd_fail(&err, PD_RESOURCE_EXHAUSTED, "no memory for the reply");
    else if (pd_now_ns() - s->born_ns > ms * 1000000ull)
        status = pd_fail(&err, PD_DEADLINE_EXCEEDED, "the deadline passed while the request waited");
    else if (request->body_case == PADOS__V1__REQUEST__BODY_STATS)
        status = stats_reply(server, reply, &err);
    else
        status = pd_catalog_admin(atomic_load(&server->catalog), request, reply, &err);
    if (status) {
        refuse(s->door, s->call, s->id, status, err.message);
    } else {
        reply->id = s->id;
        for (size_t i = 0; i < reply->n_warnings; i++)
            pd_utf8_clean(reply->warnings[i]);
        pd_serve_count(s->door, PD_OK);
        pd_reply_send(s->call, reply);
    }
    if (reply) pados__v1__reply__free_unpacked(reply, NULL);
    pd_wire_free(s->wire);
    free(s);
}

/* ----------------------------------------------------------------------------------------------------- search --- */

static void observe(pd_server *server, const pd_search *s, uint64_t encode_us)
{
    pd_metrics *m = &server->metrics;
    pd_count(&m->queries, s->count);
    pd_count(&m->hits, s->nhits);
    pd_count(&m->scanned, s->scanned);
    uint64_t rungs[4] = {0};
    for (uint32_t q = 0; q < s->count; q++)
        rungs[s->one[q].rung & 3u]++;
    for (int r = 0; r < 4; r++)
        if (rungs[r]) pd_count(&m->rungs[r], rungs[r]);
    pd_observe_us(&m->stages[PD_STAGE_DECODE], pd_us_between(s->born_ns, s->decoded_ns));
    pd_observe_us(&m->stages[PD_STAGE_QUEUE], pd_us_between(s->task.enqueued_ns, s->task.taken_ns));
    pd_observe_us(&m->stages[PD_STAGE_RESOLVE], s->resolve_ns / 1000);
    pd_observe_us(&m->stages[PD_STAGE_COARSE], s->timing.coarse_ns / 1000);
    pd_observe_us(&m->stages[PD_STAGE_SCAN], s->timing.scan_ns / 1000);
    pd_observe_us(&m->stages[PD_STAGE_REFINE], s->timing.refine_ns / 1000);
    pd_observe_us(&m->stages[PD_STAGE_FINISH], s->finish_ns / 1000);
    pd_observe_us(&m->stages[PD_STAGE_ENCODE], encode_us);
    pd_observe_us(&m->stages[PD_STAGE_TOTAL], pd_us_between(s->born_ns, pd_now_ns()));
}

static void run_reply(pd_work *work)
{
    serving *s = (serving *)work;
    pd_server *server = s->door->server;
    Pados__V1__Reply *reply;
    uint64_t began = pd_now_ns();
    if (!s->status) s->status = pd_reply_search(s->search, s->id, server->backend, &reply, &s->err);
    if (s->status) {
        refuse(s->door, s->call, s->id, s->status, s->err.message);
    } else {
        pd_serve_count(s->door, PD_OK);
        pd_reply_send(s->call, reply);
        observe(server, s->search, pd_us_between(began, pd_now_ns()));
        pd_recall_offer(server->recall, s->search, atomic_load(&server->config)->recall_sample);
    }
    pd_search_free(s->search);
    atomic_fetch_sub(&server->held_bytes, s->held);
    free(s);
}

static void on_done(pd_search *search, pd_status status, const pd_error *err)
{
    serving *s = search->owner;
    pd_error full;
    s->status = status;
    if (status) s->err = *err;
    if (pd_workers_add(s->door->server->reply_workers, &s->work, &full)) run_reply(&s->work);
}

static int is_wanted(pd_search *search)
{
    const serving *s = search->owner;
    return pd_call_wanted(s->call);
}

static int admit_bytes(pd_server *server, uint64_t bytes)
{
    if (atomic_fetch_add(&server->held_bytes, bytes) + bytes <= PD_QUEUE_BYTES) return 1;
    atomic_fetch_sub(&server->held_bytes, bytes);
    return 0;
}

static void start_search(serving *s, pd_wire *wire)
{
    pd_server *server = s->door->server;
    pd_error err = {0};
    pd_search *search;
    pd_status status =
        pd_search_open(atomic_load(&server->catalog), server->config, wire, s->born_ns, &search, &err);
    if (status) {
        pd_wire_free(wire);
        goto refused;
    }
    s->held = search->held_bytes;
    if (!admit_bytes(server, s->held)) {
        reject(s->door, PD_REJECT_MEMORY);
        status = pd_fail(&err, PD_RESOURCE_EXHAUSTED,
                         "waiting searches hold %llu MiB, the most that is allowed", PD_QUEUE_BYTES >> 20);
        pd_search_free(search);
        goto refused;
    }
    s->search = search;
    s->work.run = run_reply;
    search->owner = s;
    search->done = on_done;
    search->wanted = is_wanted;
    search->exact_worker = server->exact;
    status = pd_executor_submit(server->executor, &search->task, &err);
    if (!status) return; /* s may be gone by now */
    if (status == PD_RESOURCE_EXHAUSTED) reject(s->door, PD_REJECT_QUEUE);
    atomic_fetch_sub(&server->held_bytes, s->held);
    pd_search_free(search);
refused:
    refuse(s->door, s->call, s->id, status, err.message);
    free(s);
}

/* ------------------------------------------------------------------------------------------------ the request --- */

static void start_admin(serving *s, pd_wire *wire)
{
    pd_error err;
    s->wire = wire;
    s->work.run = run_admin;
    pd_status status = pd_workers_add(s->door->server->admin_workers, &s->work, &err);
    if (!status) return;
    if (status == PD_RESOURCE_EXHAUSTED) reject(s->door, PD_REJECT_QUEUE);
    refuse(s->door, s->call, s->id, status, err.message);
    pd_wire_free(wire);
    free(s);
}

static void misdirected(serving *s, const Pados__V1__Request *request)
{
    char text[400];
    const char *what = pd_wire_body(request);
    int data = s->door->port == PD_PORT_DATA;
    if (*s->door->other)
        snprintf(text, sizeof text, "%s is not answered on the %s listener: use %s", what,
                 data ? "data" : "admin", s->door->other);
    else
        snprintf(text, sizeof text,
                 "%s is not answered on the data listener, and this server has no admin listener", what);
    refuse(s->door, s->call, s->id, PD_UNIMPLEMENTED, text);
}

/* Decoded and authorised: to its queue. Takes s and wire. */
static void dispatch(serving *s, pd_wire *wire)
{
    Pados__V1__Request *request = pd_wire_request(wire);
    int data = s->door->port == PD_PORT_DATA;
    if (request->body_case == PADOS__V1__REQUEST__BODY__NOT_SET) {
        refuse(s->door, s->call, s->id, PD_INVALID_ARGUMENT,
               "the request has no body that this server knows");
    } else if (request->body_case == PADOS__V1__REQUEST__BODY_HELLO) {
        answer_hello(s->door, s->call, request);
    } else if (request->body_case == PADOS__V1__REQUEST__BODY_SEARCH && data) {
        start_search(s, wire);
        return;
    } else if (request->body_case == PADOS__V1__REQUEST__BODY_SEARCH || data) {
        misdirected(s, request);
    } else if (pd_writes_wants(request)) {
        pd_writes_take(s->door, s->call, wire, s->born_ns);
        free(s);
        return;
    } else {
        start_admin(s, wire);
        return;
    }
    pd_wire_free(wire);
    free(s);
}

static void decode(serving *s)
{
    pd_error err;
    pd_wire *wire;
    pd_status status = pd_wire_decode(s->bytes, s->length, &wire, &err);
    if (status) {
        reject(s->door, PD_REJECT_MALFORMED);
        s->id = peek_id(s->bytes, s->length);
        refuse(s->door, s->call, s->id, status, err.message);
        free(s);
        return;
    }
    Pados__V1__Request *request = pd_wire_request(wire);
    s->id = request->id;
    pd_call_drop(s->call); /* the message is copied: do not hold it while the request waits */
    if (!pd_tokens_match(s->door->tokens, request->token)) {
        reject(s->door, PD_REJECT_TOKEN);
        refuse(s->door, s->call, s->id, PD_UNAUTHENTICATED,
               *request->token ? "the token is not one of this listener's" : "this listener wants a token");
        pd_wire_free(wire);
        free(s);
        return;
    }
    dispatch(s, wire);
}

static void run_decode(pd_work *work)
{
    decode((serving *)work);
}

/* Why this connection must wait its turn; "" when it need not. Besides its limit, it has a fair share of the queue once an eighth
 * of that is taken: else a few that pour requests in would have it all, and the others find it full. Shares come to half
 * the queue, so that with what was there before they never fill it. */
static void turn_away(pd_server *server, pd_crowd crowd, char *text, size_t room)
{
    const pd_config *config = server->config;
    text[0] = 0;
    if (crowd.in_flight > config->pipe_requests) {
        snprintf(text, room, "%u requests of this connection are in flight; %u are allowed (pipe_requests)",
                 crowd.in_flight, config->pipe_requests);
        return;
    }
    if (crowd.in_flight < 2 || crowd.active < 2) return;
    pd_executor_stats stats;
    pd_executor_stats_of(server->executor, &stats);
    uint32_t share = config->queue_requests / 2 / crowd.active;
    if (share < 2) share = 2; /* the last reply of a client that asks again may still be on its way out */
    if (crowd.in_flight > share && stats.requests >= config->queue_requests / 8)
        snprintf(
            text, room,
            "%u requests of this connection are in flight, more than its share of a crowded queue: %u of %u "
            "(queue_requests)",
            crowd.in_flight, share, config->queue_requests);
}

static void handle(pd_door *door, pd_call *call, const uint8_t *bytes, size_t length, pd_crowd crowd)
{
    pd_server *server = door->server;
    char text[200];
    if (atomic_load(&server->stopping)) {
        reject(door, PD_REJECT_STOPPING);
        refuse(door, call, peek_id(bytes, length), PD_UNAVAILABLE, "stopping");
        return;
    }
    turn_away(server, crowd, text, sizeof text);
    if (text[0]) {
        reject(door, PD_REJECT_PIPE);
        refuse(door, call, peek_id(bytes, length), PD_RESOURCE_EXHAUSTED, text);
        return;
    }
    serving *s = calloc(1, sizeof *s);
    if (!s) {
        refuse(door, call, peek_id(bytes, length), PD_RESOURCE_EXHAUSTED, "no memory for the request");
        return;
    }
    s->door = door;
    s->call = call;
    s->bytes = bytes;
    s->length = length;
    s->born_ns = pd_now_ns();
    if (length <= PD_INLINE_BYTES) {
        decode(s);
        return;
    }
    pd_error err;
    s->work.run = run_decode;
    pd_status status = pd_workers_add(server->decode_workers, &s->work, &err);
    if (!status) return;
    reject(door, PD_REJECT_QUEUE);
    refuse(door, call, peek_id(bytes, length), status, err.message);
    free(s);
}

void pd_serve(void *context, pd_call *call, const uint8_t *bytes, size_t length, pd_crowd crowd)
{
    pd_door *door = context;
    atomic_fetch_add(&door->server->handling, 1);
    handle(door, call, bytes, length, crowd);
    atomic_fetch_sub(&door->server->handling, 1);
}

void pd_serve_gone(void *context)
{
    pd_door *door = context;
    if (door->port == PD_PORT_DATA) pd_executor_sweep(door->server->executor);
}
