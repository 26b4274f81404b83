/* A connection speaks the wire of nng's REQ socket to the other side: the SP handshake, then messages, each a length, the request's
 * id (with those of the hops before it: words up to one with the top bit), and the body; a reply repeats the ids.
 *
 * nng's own REP socket would do this, and was used first. In 1.5.2 it cannot be made safe against a peer that pours requests in
 * and reads no replies: every request holds one context until its send is given up, there is no way to stop
 * reading from one peer, and when such a connection is closed, by either side, while a message comes in, its receive is
 * lost: nng's one thread that takes connections apart waits for it for ever, nothing is freed any more, and nng_close
 * does not return. Streams of the same library have none of this, and reading stops where it should.
 *
 * Locking: a connection's state is under its own lock, which is recursive because nng may complete an operation within
 * the call that starts it; counts of all connections are under the listener's. An operation is only started while the
 * connection is not closed, under its lock, and closing sets the flag under it: so none is started on a closed stream. A
 * connection lives while it has references: one for reading, one for sending, one for each call.
 */
#include "conn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "log.h"

typedef enum reading { READ_HELLO, READ_PREFIX, READ_BODY, READ_PAUSED } reading;

struct pd_call {
    pd_conn *conn;
    pd_call *next; /* in the queue of replies */
    uint8_t *message;
    size_t length;   /* of message, header included */
    uint32_t header; /* bytes of ids before the body */
    uint8_t ids[PD_MAX_HEADER];
    uint8_t *reply;
    size_t reply_length;
};

struct pd_conn {
    pd_work work; /* for the closer */
    pd_net *net;
    pd_conn *next, *previous;
    uint32_t number;
    nng_stream *stream;
    nng_aio *rx, *tx;
    pthread_mutex_t lock;
    atomic_int refs, closed;
    uint32_t in_flight;
    /* Reading. */
    reading reading;
    uint8_t prefix[PD_PREFIX_BYTES];
    uint8_t *message;
    size_t want, got; /* of the prefix or the message */
    /* Sending. */
    int greeted, sending;
    pd_call *replies, **last_reply;
    uint8_t head[PD_PREFIX_BYTES + PD_MAX_HEADER];
    size_t head_length, sent, total;
};

/* ----------------------------------------------------------------------------------------------- life and end --- */

static void bury(pd_work *work)
{
    pd_conn *conn = (pd_conn *)work;
    pd_net *net = conn->net;
    nng_aio_stop(conn->rx);
    nng_aio_stop(conn->tx);
    nng_aio_free(conn->rx);
    nng_aio_free(conn->tx);
    nng_stream_free(conn->stream);
    pthread_mutex_destroy(&conn->lock);
    free(conn);
    pthread_mutex_lock(&net->lock);
    net->nconns--;
    pthread_cond_broadcast(&net->changed);
    pthread_mutex_unlock(&net->lock);
}

/* Without the connection's lock. */
static void release(pd_conn *conn)
{
    pd_net *net = conn->net;
    pd_error err;
    if (atomic_fetch_sub(&conn->refs, 1) > 1) return;
    pthread_mutex_lock(&net->lock);
    if (conn->previous)
        conn->previous->next = conn->next;
    else
        net->conns = conn->next;
    if (conn->next) conn->next->previous = conn->previous;
    pthread_mutex_unlock(&net->lock);
    atomic_fetch_sub(&net->options.metrics->pipes[net->options.port], 1);
    conn->work.run = bury;
    pd_workers_add(net->closer, &conn->work,
                   &err); /* it has no bound, and closes after the last connection */
}

static void drop_message(pd_net *net, uint8_t **message, size_t length)
{
    if (!*message) return;
    free(*message);
    *message = NULL;
    pthread_mutex_lock(&net->lock);
    net->incoming -= length;
    pthread_mutex_unlock(&net->lock);
}

/* The call is over, sent or not. With the lock held, by somebody who has a reference besides the call's. */
static void end_call(pd_conn *conn, pd_call *call)
{
    pd_net *net = conn->net;
    pd_call_drop(call);
    free(call->reply);
    free(call);
    conn->in_flight--;
    pthread_mutex_lock(&net->lock);
    if (conn->in_flight == 0) net->active--;
    if (--net->calls == 0) pthread_cond_broadcast(&net->changed);
    pthread_mutex_unlock(&net->lock);
    atomic_fetch_sub(&conn->refs, 1);
}

static void flush_replies(pd_conn *conn)
{
    while (conn->replies) {
        pd_call *call = conn->replies;
        conn->replies = call->next;
        end_call(conn, call);
    }
    conn->last_reply = &conn->replies;
}

/* With the lock held, by somebody who has a reference. Operations under way come back with an error and give theirs back. */
static void close_conn(pd_conn *conn, const char *why)
{
    pd_net *net = conn->net;
    if (atomic_exchange(&conn->closed, 1)) return;
    if (why) {
        pd_count(&net->options.metrics->pipes_closed[net->options.port], 1);
        pd_log(PD_LOG_WARNING, "%s: connection %u is closed: %s", net->options.name, conn->number, why);
    }
    nng_stream_close(conn->stream);
    if (!conn->sending) flush_replies(conn);
    if (conn->reading == READ_PAUSED)
        atomic_fetch_sub(&conn->refs, 1); /* no operation is under way that would */
    if (conn->in_flight && net->options.on_gone) net->options.on_gone(net->options.context);
}

void pd_conn_close_all(pd_net *net)
{
    for (;;) {
        pd_conn *conn;
        pthread_mutex_lock(&net->lock);
        for (conn = net->conns; conn; conn = conn->next) {
            int refs = atomic_load(&conn->refs);
            while (refs > 0 && !atomic_compare_exchange_weak(&conn->refs, &refs, refs + 1)) {
            }
            if (refs == 0) continue; /* it is leaving */
            if (!atomic_load(&conn->closed)) break;
            atomic_fetch_sub(&conn->refs, 1);
        }
        pthread_mutex_unlock(&net->lock);
        if (!conn) return;
        pthread_mutex_lock(&conn->lock);
        close_conn(conn, NULL);
        pthread_mutex_unlock(&conn->lock);
        release(conn);
    }
}

/* --------------------------------------------------------------------------------------------------- reading --- */

/* With the lock held: asks for the rest of what is wanted. */
static void read_more(pd_conn *conn)
{
    uint8_t *to = conn->message ? conn->message : conn->prefix;
    nng_iov iov = {.iov_buf = to + conn->got, .iov_len = conn->want - conn->got};
    /* Between messages a peer may be silent as long as it likes. */
    int waits = conn->reading == READ_PREFIX && conn->got == 0;
    nng_aio_set_timeout(conn->rx, waits ? NNG_DURATION_INFINITE : PD_PATIENCE_MS);
    nng_aio_set_iov(conn->rx, 1, &iov);
    nng_stream_recv(conn->stream, conn->rx);
}

static void read_prefix(pd_conn *conn)
{
    conn->reading = READ_PREFIX;
    conn->got = 0;
    conn->want = conn->net->ipc ? 9 : 8;
    read_more(conn);
}

/* The length has come: room for the message. NULL: fine; else why the connection must be closed. */
static const char *make_room(pd_conn *conn)
{
    pd_net *net = conn->net;
    const uint8_t *at = conn->prefix;
    if (net->ipc && *at++ != 1) return "what it sends is no message";
    uint64_t length = 0;
    for (int i = 0; i < 8; i++)
        length = length << 8 | at[i];
    if (length < 4) return "what it sends is no request";
    if (length > net->max_message + PD_MAX_HEADER) return "a message over max_message";
    pthread_mutex_lock(&net->lock);
    int fits = length <= PD_INCOMING_BYTES - net->incoming;
    if (fits) net->incoming += length;
    pthread_mutex_unlock(&net->lock);
    if (!fits) return "messages being read take too much memory";
    conn->message = malloc(length);
    if (!conn->message) {
        pthread_mutex_lock(&net->lock);
        net->incoming -= length;
        pthread_mutex_unlock(&net->lock);
        return "no memory for its message";
    }
    conn->reading = READ_BODY;
    conn->got = 0;
    conn->want = length;
    return NULL;
}

/* Bytes of ids before the body; 0: there is no end to them. */
static uint32_t header_of(const uint8_t *message, size_t length)
{
    for (uint32_t at = 0; at + 4 <= length && at + 4 <= PD_MAX_HEADER; at += 4)
        if (message[at] & 0x80) return at + 4;
    return 0;
}

/* The message is there: a call of its own. With the lock held. */
static pd_call *make_call(pd_conn *conn, pd_crowd *crowd)
{
    pd_net *net = conn->net;
    pd_call *call = calloc(1, sizeof *call);
    uint32_t header = header_of(conn->message, conn->want);
    if (!call || !header) {
        free(call);
        return NULL;
    }
    call->conn = conn;
    call->message = conn->message;
    call->length = conn->want;
    call->header = header;
    memcpy(call->ids, conn->message, header);
    conn->message = NULL;
    conn->in_flight++;
    atomic_fetch_add(&conn->refs, 1);
    pthread_mutex_lock(&net->lock);
    net->calls++;
    if (conn->in_flight == 1) net->active++;
    *crowd = (pd_crowd){.in_flight = conn->in_flight, .active = net->active};
    pthread_mutex_unlock(&net->lock);
    return call;
}

static int has_greeted(const pd_conn *conn)
{
    static const uint8_t req[8] = {0, 'S', 'P', 0, 0, 0x30, 0, 0};
    return memcmp(conn->prefix, req, sizeof req) == 0;
}

static void on_message(pd_conn *conn)
{
    pd_net *net = conn->net;
    pd_crowd crowd;
    pd_call *call = make_call(conn, &crowd);
    if (!call) {
        close_conn(conn, "what it sends is no request");
        pthread_mutex_unlock(&conn->lock);
        release(conn);
        return;
    }
    pd_count(&net->options.metrics->bytes_in[net->options.port], call->length);
    if (conn->in_flight < 2u * net->pipe_requests)
        read_prefix(conn);
    else
        conn->reading = READ_PAUSED; /* until replies were sent: see sent_reply() */
    pthread_mutex_unlock(&conn->lock);
    net->options.on_request(net->options.context, call, call->message + call->header,
                            call->length - call->header, crowd);
}

static void on_read(void *context)
{
    pd_conn *conn = context;
    int failed = nng_aio_result(conn->rx);
    const char *why = NULL;
    pthread_mutex_lock(&conn->lock);
    if (!failed) conn->got += nng_aio_count(conn->rx);
    if (failed || atomic_load(&conn->closed)) goto end;
    if (conn->got < conn->want) {
        read_more(conn);
    } else if (conn->reading == READ_HELLO) {
        if (!has_greeted(conn)) {
            why = "it is no REQ socket";
            goto end;
        }
        read_prefix(conn);
    } else if (conn->reading == READ_PREFIX) {
        why = make_room(conn);
        if (why) goto end;
        read_more(conn);
    } else {
        on_message(conn); /* gives the lock back */
        return;
    }
    pthread_mutex_unlock(&conn->lock);
    return;
end:
    drop_message(conn->net, &conn->message, conn->want);
    close_conn(conn, why);
    pthread_mutex_unlock(&conn->lock);
    release(conn);
}

/* --------------------------------------------------------------------------------------------------- sending --- */

/* With the lock held: asks to send the rest of the greeting or of the first reply. */
static void send_more(pd_conn *conn)
{
    nng_iov iov[2];
    unsigned n = 0;
    if (conn->sent < conn->head_length)
        iov[n++] = (nng_iov){.iov_buf = conn->head + conn->sent, .iov_len = conn->head_length - conn->sent};
    if (conn->replies && conn->greeted) {
        size_t past = conn->sent > conn->head_length ? conn->sent - conn->head_length : 0;
        if (past < conn->replies->reply_length)
            iov[n++] = (nng_iov){.iov_buf = conn->replies->reply + past,
                                 .iov_len = conn->replies->reply_length - past};
    }
    conn->sending = 1;
    nng_aio_set_timeout(conn->tx, (nng_duration)conn->net->send_timeout_ms);
    nng_aio_set_iov(conn->tx, n, iov);
    nng_stream_send(conn->stream, conn->tx);
}

/* Starts the first reply of the queue; the sending has its reference already. */
static void send_reply(pd_conn *conn)
{
    const pd_call *call = conn->replies;
    uint64_t length = call->header + call->reply_length;
    uint8_t *at = conn->head;
    if (conn->net->ipc) *at++ = 1;
    for (int shift = 56; shift >= 0; shift -= 8)
        *at++ = (uint8_t)(length >> shift);
    memcpy(at, call->ids, call->header);
    conn->head_length = (size_t)(at - conn->head) + call->header;
    conn->sent = 0;
    conn->total = conn->head_length + call->reply_length;
    send_more(conn);
}

/* The first reply of the queue is with the peer's kernel. */
static void sent_reply(pd_conn *conn)
{
    pd_call *call = conn->replies;
    conn->replies = call->next;
    if (!conn->replies) conn->last_reply = &conn->replies;
    end_call(conn, call);
    if (conn->reading == READ_PAUSED && conn->in_flight <= conn->net->pipe_requests) read_prefix(conn);
}

static void on_sent(void *context)
{
    pd_conn *conn = context;
    int failed = nng_aio_result(conn->tx), idle = 0;
    pthread_mutex_lock(&conn->lock);
    if (!failed) conn->sent += nng_aio_count(conn->tx);
    if (failed || atomic_load(&conn->closed)) {
        conn->sending = 0;
        close_conn(conn, failed == NNG_ETIMEDOUT ? "its replies are not read" : NULL);
        flush_replies(conn);
        idle = 1;
    } else if (conn->sent < conn->total) {
        send_more(conn);
    } else {
        if (conn->greeted)
            sent_reply(conn);
        else
            conn->greeted = 1;
        if (conn->replies) {
            send_reply(conn);
        } else {
            conn->sending = 0;
            idle = 1;
        }
    }
    pthread_mutex_unlock(&conn->lock);
    if (idle) release(conn);
}

void pd_conn_start(pd_net *net, nng_stream *stream)
{
    static const uint8_t rep[8] = {0, 'S', 'P', 0, 0, 0x31, 0, 0};
    pd_conn *conn = calloc(1, sizeof *conn);
    if (conn) {
        conn->net = net;
        conn->stream = stream;
        if (nng_aio_alloc(&conn->rx, on_read, conn) || nng_aio_alloc(&conn->tx, on_sent, conn)) {
            nng_aio_free(conn->rx);
            free(conn);
            conn = NULL;
        }
    }
    if (!conn) {
        pd_log(PD_LOG_WARNING, "%s: no memory for another connection", net->options.name);
        nng_stream_close(stream);
        nng_stream_free(stream);
        return;
    }
    pthread_mutexattr_t recursive;
    pthread_mutexattr_init(&recursive);
    pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&conn->lock, &recursive);
    pthread_mutexattr_destroy(&recursive);
    conn->last_reply = &conn->replies;
    atomic_store(&conn->refs, 2); /* reading and sending */
    pthread_mutex_lock(&net->lock);
    conn->number = ++net->number;
    conn->next = net->conns;
    if (conn->next) conn->next->previous = conn;
    net->conns = conn;
    net->nconns++;
    int closing = net->closing;
    pthread_mutex_unlock(&net->lock);
    atomic_fetch_add(&net->options.metrics->pipes[net->options.port], 1);
    pthread_mutex_lock(&conn->lock);
    memcpy(conn->head, rep, sizeof rep);
    conn->head_length = conn->total = sizeof rep;
    conn->want = sizeof rep;
    if (closing) {
        close_conn(conn, NULL);
        pthread_mutex_unlock(&conn->lock);
        release(conn);
        release(conn);
        return;
    }
    send_more(conn);
    read_more(conn);
    pthread_mutex_unlock(&conn->lock);
}

/* ----------------------------------------------------------------------------------------------------- calls --- */

int pd_call_wanted(pd_call *call)
{
    return !atomic_load(&call->conn->closed);
}

void pd_call_drop(pd_call *call)
{
    drop_message(call->conn->net, &call->message, call->length);
}

uint8_t *pd_call_room(pd_call *call, size_t length)
{
    call->reply = malloc(length ? length : 1);
    call->reply_length = length;
    return call->reply;
}

void pd_call_send(pd_call *call)
{
    pd_conn *conn = call->conn;
    pd_net *net = conn->net;
    pd_call_drop(call);
    pd_count(&net->options.metrics->bytes_out[net->options.port], call->reply_length);
    pthread_mutex_lock(&conn->lock);
    atomic_fetch_add(&conn->refs, 1); /* keeps it past the unlocking; or becomes the sending's */
    if (atomic_load(&conn->closed)) {
        end_call(conn, call);
    } else {
        call->next = NULL;
        *conn->last_reply = call;
        conn->last_reply = &call->next;
        if (!conn->sending) {
            atomic_fetch_add(&conn->refs, 1);
            send_reply(conn);
        }
    }
    pthread_mutex_unlock(&conn->lock);
    release(conn);
}

void pd_call_abandon(pd_call *call)
{
    pd_conn *conn = call->conn;
    pthread_mutex_lock(&conn->lock);
    atomic_fetch_add(&conn->refs, 1);
    close_conn(conn, "no memory to answer");
    end_call(conn, call);
    pthread_mutex_unlock(&conn->lock);
    release(conn);
}
