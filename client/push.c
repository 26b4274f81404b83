/* A push: begin, the chunks of each part in turn, commit, and the wait for the job.
 *
 * Every run of a push has a random key. When the connection breaks, PushBegin with the same key tells how much of each
 * part is there, and the push goes on from that byte: what was sent and not acknowledged is sent again, which the server
 * takes as the same chunk. A push is given up after ATTEMPTS breaks that brought it no further.
 */
#include "client_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { PARTS = 4, ATTEMPTS = 5 };

typedef struct part {
    const char *name;
    Pados__V1__PushChunk__Part number;
    const pados_source *source;
    uint64_t received; /* by the server, as it last said */
    uint64_t at;       /* where the source stands */
} part;

typedef struct sender {
    pados_client *client;
    const pados_push *push;
    char key[PD_CLIENT_KEY];
    uint64_t number; /* the server's, of this push */
    part parts[PARTS];
    uint8_t *chunk;
    uint64_t chunk_bytes;
    uint64_t start_ms, total;
} sender;

static pados_status check_push(const pados_push *p, pados_error *error)
{
    static const uint32_t sizes[] = {[PADOS_F32] = 4, [PADOS_F16] = 2, [PADOS_I8] = 1, [PADOS_U8] = 1};
    if (!p->table || !*p->table) return pd_client_fail(error, PD_INVALID_ARGUMENT, "table: no name is given");
    if (!p->dim) return pd_client_fail(error, PD_INVALID_ARGUMENT, "dim: must be at least 1");
    if (!p->rows) return pd_client_fail(error, PD_INVALID_ARGUMENT, "rows: a push of no rows");
    if ((unsigned)p->dtype >= sizeof sizes / sizeof *sizes)
        return pd_client_fail(error, PD_INVALID_ARGUMENT, "dtype: %d is not one", (int)p->dtype);
    uint64_t row = (uint64_t)p->dim * sizes[p->dtype], bytes;
    if (__builtin_mul_overflow(row, p->rows, &bytes) || bytes != p->vectors.bytes)
        return pd_client_fail(error, PD_INVALID_ARGUMENT,
                              "vectors: %" PRIu64 " bytes are not %" PRIu64 " rows of %" PRIu64,
                              p->vectors.bytes, p->rows, row);
    if (p->ids.bytes && p->ids.bytes / 8 != p->rows)
        return pd_client_fail(error, PD_INVALID_ARGUMENT, "ids: %" PRIu64 " for %" PRIu64 " rows",
                              p->ids.bytes / 8, p->rows);
    if (p->queries.bytes % ((uint64_t)p->dim * 4))
        return pd_client_fail(error, PD_INVALID_ARGUMENT, "queries: %" PRIu64 " bytes are not rows of %u f32",
                              p->queries.bytes, p->dim);
    return PD_OK;
}

static pados_status begin(sender *s, pados_error *error)
{
    const pados_push *p = s->push;
    Pados__V1__PushBegin body = PADOS__V1__PUSH_BEGIN__INIT;
    body.table = (char *)p->table;
    body.schema = (char *)(p->schema ? p->schema : "");
    body.metric = (char *)(p->metric ? p->metric : "");
    body.dtype = (Pados__V1__Dtype)p->dtype; /* the same numbers */
    body.dim = p->dim;
    body.rows = p->rows;
    body.ids_bytes = p->ids.bytes;
    body.attributes_bytes = p->attributes.bytes;
    body.attributes_name = (char *)(p->attributes_name ? p->attributes_name : "");
    body.queries_rows = p->queries.bytes / ((uint64_t)p->dim * 4);
    body.nlist = p->nlist;
    body.key = s->key;
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    request.body_case = PADOS__V1__REQUEST__BODY_PUSH_BEGIN;
    request.push_begin = &body;
    Pados__V1__Reply *reply;
    pados_status status =
        pd_client_admin_call(s->client, &request, PADOS__V1__REPLY__BODY_PUSH_BEGIN, &reply, error);
    if (status) return status;
    const Pados__V1__PushBeginReply *r = reply->push_begin;
    s->number = r->push;
    const uint64_t received[PARTS] = {r->received_rows, r->received_ids, r->received_attributes,
                                      r->received_queries};
    for (int i = 0; i < PARTS; i++)
        s->parts[i].received = received[i];
    pados_reply_free(reply);
    return PD_OK;
}

static pados_status report(const sender *s, pados_error *error)
{
    if (!s->push->progress) return PD_OK;
    pados_job job = {.total = s->total, .seconds = (double)(pd_client_now_ms() - s->start_ms) / 1000};
    snprintf(job.table, sizeof job.table, "%s", s->push->table);
    snprintf(job.stage, sizeof job.stage, "send");
    for (int i = 0; i < PARTS; i++)
        job.done += s->parts[i].received;
    if (s->push->progress(s->push->progress_context, &job))
        return pd_client_fail(error, PD_CANCELLED, "stopped");
    return PD_OK;
}

/* Fills the chunk from the part's source, onwards from what the server has. */
static pados_status fill_chunk(sender *s, part *p, size_t *length, pados_error *error)
{
    if (p->at != p->received) {
        if (!p->source->seek)
            return pd_client_fail(error, PD_UNAVAILABLE, "%s cannot be sent again from byte %" PRIu64,
                                  p->name, p->received);
        pados_status status = p->source->seek(p->source->context, p->received, error);
        if (status) return status;
        p->at = p->received;
    }
    uint64_t left = p->source->bytes - p->at;
    size_t want = (size_t)(left < s->chunk_bytes ? left : s->chunk_bytes);
    for (*length = 0; *length < want;) {
        size_t got = 0;
        pados_status status =
            p->source->read(p->source->context, s->chunk + *length, want - *length, &got, error);
        if (status) return status;
        if (!got)
            return pd_client_fail(error, PD_DATA_LOSS, "%s ended after %" PRIu64 " of %" PRIu64 " bytes",
                                  p->name, p->at + *length, p->source->bytes);
        *length += got;
    }
    p->at += *length;
    return PD_OK;
}

static pados_status send_chunk(sender *s, part *p, uint64_t offset, size_t length, pados_error *error)
{
    Pados__V1__PushChunk body = PADOS__V1__PUSH_CHUNK__INIT;
    body.push = s->number;
    body.part = p->number;
    body.offset = offset;
    body.data.data = s->chunk;
    body.data.len = length;
    body.checksum = XXH3_64bits(s->chunk, length);
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    request.body_case = PADOS__V1__REQUEST__BODY_PUSH_CHUNK;
    request.push_chunk = &body;
    Pados__V1__Reply *reply;
    pados_status status =
        pd_client_admin_call(s->client, &request, PADOS__V1__REPLY__BODY_PUSH_CHUNK, &reply, error);
    if (status) return status;
    uint64_t received = reply->push_chunk->received;
    pados_reply_free(reply);
    if (received != offset + length)
        return pd_client_fail(error, PD_INTERNAL,
                              "the server has %" PRIu64 " bytes of %s where %" PRIu64 " were sent", received,
                              p->name, offset + length);
    p->received = received;
    return PD_OK;
}

static bool is_break(pados_status status)
{
    return status == PD_UNAVAILABLE || status == PD_DEADLINE_EXCEEDED;
}

/* Sends what the server does not have of every part. from_source: the failure is not the connection's. */
static pados_status send_parts(sender *s, bool *from_source, pados_error *error)
{
    for (int i = 0; i < PARTS; i++) {
        part *p = &s->parts[i];
        if (p->received > p->source->bytes)
            return pd_client_fail(error, PD_INTERNAL,
                                  "the server has %" PRIu64 " bytes of %s, which has %" PRIu64, p->received,
                                  p->name, p->source->bytes);
        while (p->received < p->source->bytes) {
            size_t length = 0;
            uint64_t offset = p->received;
            *from_source = true;
            pados_status status = fill_chunk(s, p, &length, error);
            if (status) return status;
            *from_source = false;
            if ((status = send_chunk(s, p, offset, length, error)) != PD_OK) return status;
            *from_source = true;
            if ((status = report(s, error)) != PD_OK) return status;
            *from_source = false;
        }
    }
    return PD_OK;
}

static uint64_t received_of(const sender *s)
{
    uint64_t sum = 0;
    for (int i = 0; i < PARTS; i++)
        sum += s->parts[i].received;
    return sum;
}

static pados_status commit(sender *s, uint64_t *job, pados_error *error)
{
    Pados__V1__PushCommit body = PADOS__V1__PUSH_COMMIT__INIT;
    body.push = s->number;
    body.publish = !s->push->stage_only;
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    request.body_case = PADOS__V1__REQUEST__BODY_PUSH_COMMIT;
    request.push_commit = &body;
    Pados__V1__Reply *reply;
    pados_status status =
        pd_client_admin_call(s->client, &request, PADOS__V1__REPLY__BODY_JOB, &reply, error);
    if (status) return status;
    *job = reply->job->job;
    pados_reply_free(reply);
    return PD_OK;
}

static void abort_push(sender *s)
{
    Pados__V1__PushAbort body = PADOS__V1__PUSH_ABORT__INIT;
    body.push = s->number;
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    request.body_case = PADOS__V1__REQUEST__BODY_PUSH_ABORT;
    request.push_abort = &body;
    Pados__V1__Reply *reply;
    /* A courtesy: a push that is not aborted is dropped by the server in its own time. */
    if (pd_client_admin_call(s->client, &request, PADOS__V1__REPLY__BODY__NOT_SET, &reply, NULL) == PD_OK)
        pados_reply_free(reply);
}

/* Begins and sends, again after each break of the connection, until the server has it all and the job's number is known. */
static pados_status deliver(sender *s, uint64_t *job, pados_error *error)
{
    uint64_t furthest = 0;
    for (int attempt = 0;;) {
        bool from_source = false;
        pados_status status = begin(s, error);
        bool begun = !status;
        if (!status) status = send_parts(s, &from_source, error);
        if (!status) status = commit(s, job, error);
        if (!status) return PD_OK;
        if (from_source || !is_break(status)) {
            /* error tells why; an abort that fails as well has nothing to add. */
            if (begun) abort_push(s);
            return status;
        }
        if (received_of(s) > furthest) {
            furthest = received_of(s);
            attempt = 0;
        }
        if (++attempt >= ATTEMPTS) return status;
    }
}

pados_status pados_push_run(pados_client *client, const pados_push *push, uint64_t *version,
                            pados_error *error)
{
    pados_status status = check_push(push, error);
    if (status) return status;
    pados_limits limits;
    pados_limits_of(client, &limits);
    sender s = {
        .client = client,
        .push = push,
        .parts = {{.name = "vectors", .number = PADOS__V1__PUSH_CHUNK__PART__ROWS, .source = &push->vectors},
                  {.name = "ids", .number = PADOS__V1__PUSH_CHUNK__PART__IDS, .source = &push->ids},
                  {.name = "attributes",
                   .number = PADOS__V1__PUSH_CHUNK__PART__ATTRIBUTES,
                   .source = &push->attributes},
                  {.name = "queries",
                   .number = PADOS__V1__PUSH_CHUNK__PART__QUERIES,
                   .source = &push->queries}},
        .chunk_bytes = limits.max_chunk,
        .start_ms = pd_client_now_ms(),
        .total = push->vectors.bytes + push->ids.bytes + push->attributes.bytes + push->queries.bytes,
    };
    if (s.chunk_bytes > s.total) s.chunk_bytes = s.total;
    if ((status = pd_client_key(s.key, error)) != PD_OK) return status;
    if (!(s.chunk = malloc(s.chunk_bytes)))
        return pd_client_fail(error, PD_RESOURCE_EXHAUSTED, "no memory for a chunk of %" PRIu64 " bytes",
                              s.chunk_bytes);
    uint64_t job;
    status = deliver(&s, &job, error);
    free(s.chunk);
    if (status) return status;
    return pados_job_wait(client, job, push->progress, push->progress_context, version, error);
}
