/* Batches as bytes: a record's body, made from a request or read from the log. See batch.h and docs/FILES.md.
 *
 *     u32 rows, u32 dim, u32 dtype, u32 bytes of the attributes
 *     u64 ids [rows]
 *     values [rows][dim] of dtype (upserts), f64 [rows] (counters), nothing (the others)
 *     an Update message of the wire with the attributes alone
 */
#include "batch.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pados.pb-c.h"
#include "reader.h"

#define DTYPE_F64   100u
#define ERASED_ONCE 1024u

typedef struct head {
    uint32_t n, dim, dtype, rest;
} head;

static pd_status no_memory(pd_error *err)
{
    return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the batch");
}

static uint32_t value_bytes(uint32_t dtype)
{
    switch (dtype) {
    case PADOS__V1__DTYPE__F32:
        return 4;
    case PADOS__V1__DTYPE__F16:
        return 2;
    case PADOS__V1__DTYPE__I8:
    case PADOS__V1__DTYPE__U8:
        return 1;
    case DTYPE_F64:
        return 8;
    default:
        return 0;
    }
}

void pd_batch_free(pd_batch *batch)
{
    if (!batch) return;
    pd_encoded_free(batch->encoded);
    if (batch->attributes) pados__v1__update__free_unpacked(batch->attributes, NULL);
    pd_arena_free(&batch->arena);
    free(batch->bytes);
    free((void *)(uintptr_t)batch->ids);
    free(batch);
}

/* -------------------------------------------------------------------------------------------- reading a body --- */

/* Looks at the bytes, which may lie anywhere, and fills what points into them. */
static pd_status read_body(pd_batch *b, pd_error *err)
{
    head h;
    if (b->length < sizeof h) return pd_fail(err, PD_DATA_LOSS, "%zu bytes are no batch", b->length);
    memcpy(&h, b->bytes, sizeof h);
    int has_values = b->kind == PD_BATCH_UPSERT || b->kind == PD_BATCH_COUNT;
    uint64_t each = has_values ? (uint64_t)h.dim * value_bytes(h.dtype) : 0;
    if (h.n == 0 || h.n > PD_CHANGE_ROWS || (has_values && (each == 0 || h.dim > PD_MAX_DIM)) ||
        b->length != sizeof h + (8 + each) * h.n + h.rest ||
        (b->kind == PD_BATCH_COUNT) != (h.dtype == DTYPE_F64))
        return pd_fail(err, PD_DATA_LOSS, "a batch of %u rows of %u values does not have %zu bytes", h.n,
                       h.dim, b->length);
    uint64_t *ids = malloc(h.n * sizeof *ids);
    if (!ids) return no_memory(err);
    memcpy(ids, b->bytes + sizeof h, h.n * sizeof *ids);
    b->n = h.n;
    b->ids = ids;
    b->dim = h.dim;
    b->dtype = h.dtype;
    b->vectors = b->bytes + sizeof h + 8ull * h.n;
    b->attributes = pados__v1__update__unpack(NULL, h.rest, b->bytes + b->length - h.rest);
    return b->attributes ? PD_OK : pd_fail(err, PD_DATA_LOSS, "a batch's attributes do not unpack");
}

static pd_status make_body(pd_batch *b, const uint64_t *ids, uint32_t n, const void *values, uint32_t dim,
                           uint32_t dtype, Pados__V1__AttributeValues **attributes, size_t nattributes,
                           pd_error *err)
{
    Pados__V1__Update names = PADOS__V1__UPDATE__INIT;
    names.attributes = attributes;
    names.n_attributes = nattributes;
    size_t rest = pados__v1__update__get_packed_size(&names);
    if (rest > UINT32_MAX) return pd_fail(err, PD_INVALID_ARGUMENT, "the attributes are too large");
    head h = {.n = n, .dim = dim, .dtype = dtype, .rest = (uint32_t)rest};
    size_t bytes = values ? (size_t)n * dim * value_bytes(dtype) : 0, at = sizeof h;
    b->length = sizeof h + 8ull * n + bytes + rest;
    b->bytes = malloc(b->length);
    if (!b->bytes) return no_memory(err);
    memcpy(b->bytes, &h, sizeof h);
    memcpy(b->bytes + at, ids, 8ull * n);
    at += 8ull * n;
    if (bytes) memcpy(b->bytes + at, values, bytes);
    pados__v1__update__pack(&names, b->bytes + at + bytes);
    return read_body(b, err);
}

pd_status pd_batch_of_record(const pd_record *record, pd_batch **out, pd_error *err)
{
    *out = NULL;
    pd_batch *b = calloc(1, sizeof *b);
    if (!b) return no_memory(err);
    b->kind = (pd_batch_kind)record->kind;
    b->sequence = record->sequence;
    b->time = record->time;
    memcpy(b->table, record->table, sizeof b->table);
    memcpy(b->key, record->key, sizeof b->key);
    b->length = record->length;
    b->bytes = malloc(record->length ? record->length : 1);
    pd_status status = b->bytes ? PD_OK : no_memory(err);
    if (!status) memcpy(b->bytes, record->bytes, record->length);
    if (!status && (b->kind < PD_BATCH_UPSERT || b->kind > PD_BATCH_ERASE))
        status = pd_fail(err, PD_DATA_LOSS, "a batch of kind %u is not known", record->kind);
    if (!status) status = read_body(b, err);
    if (status) {
        pd_batch_free(b);
        return pd_prefix(err, "change %" PRIu64 " of \"%s\"", record->sequence, record->table);
    }
    *out = b;
    return PD_OK;
}

pd_status pd_batch_of_counters(const char *table, const char *attribute, const uint64_t *ids,
                               const double *counters, uint32_t n, double time, pd_batch **out, pd_error *err)
{
    *out = NULL;
    pd_batch *b = calloc(1, sizeof *b);
    if (!b) return no_memory(err);
    Pados__V1__AttributeValues name = PADOS__V1__ATTRIBUTE_VALUES__INIT, *names = &name;
    name.attribute = (char *)(uintptr_t)attribute;
    b->kind = PD_BATCH_COUNT;
    b->time = time;
    memcpy(b->table, table, strlen(table) + 1);
    pd_status status = make_body(b, ids, n, counters, 1, DTYPE_F64, &names, 1, err);
    if (status)
        pd_batch_free(b);
    else
        *out = b;
    return status;
}

/* ---------------------------------------------------------------------------------------------- from requests --- */

typedef struct ask { /* what the kinds of request have in common */
    pd_batch_kind kind;
    const char *table, *key;
    const uint64_t *ids;
    size_t n;
    const Pados__V1__Matrix *vectors;
    Pados__V1__AttributeValues **attributes;
    size_t nattributes;
} ask;

static int read_ask(Pados__V1__Request *request, ask *a)
{
    switch (request->body_case) {
    case PADOS__V1__REQUEST__BODY_UPSERT: {
        const Pados__V1__Upsert *u = request->upsert;
        *a = (ask){PD_BATCH_UPSERT, u->table,   u->key,        u->ids,
                   u->n_ids,        u->vectors, u->attributes, u->n_attributes};
        return 1;
    }
    case PADOS__V1__REQUEST__BODY_UPDATE: {
        const Pados__V1__Update *u = request->update;
        *a = (ask){PD_BATCH_UPDATE, u->table, u->key, u->ids, u->n_ids, NULL, u->attributes, u->n_attributes};
        return 1;
    }
    case PADOS__V1__REQUEST__BODY_DELETE: {
        const Pados__V1__Delete *d = request->delete_;
        *a = (ask){.kind = PD_BATCH_DELETE, .table = d->table, .key = d->key, .ids = d->ids, .n = d->n_ids};
        return 1;
    }
    case PADOS__V1__REQUEST__BODY_FEEDBACK: {
        const Pados__V1__Feedback *f = request->feedback;
        *a = (ask){
            .kind = PD_BATCH_FEEDBACK, .table = f->table, .key = f->key, .ids = f->items, .n = f->n_items};
        return 1;
    }
    case PADOS__V1__REQUEST__BODY_ERASE: {
        const Pados__V1__Erase *e = request->erase;
        *a = (ask){.kind = PD_BATCH_ERASE, .table = e->table, .key = "", .ids = e->ids, .n = e->n_ids};
        return 1;
    }
    default:
        return 0;
    }
}

/* INVALID_ARGUMENT naming the first id that is there twice, and where. */
static pd_status check_distinct(const uint64_t *ids, uint32_t n, pd_error *err)
{
    uint32_t room = 16;
    while (room < 2 * n)
        room *= 2;
    uint32_t *places = calloc(room, sizeof *places); /* row + 1 */
    if (!places) return no_memory(err);
    pd_status status = PD_OK;
    for (uint32_t i = 0; !status && i < n; i++) {
        uint32_t at = (uint32_t)(ids[i] * 0x9e3779b97f4a7c15u >> 32) & (room - 1);
        for (; places[at] && ids[places[at] - 1] != ids[i]; at = (at + 1) & (room - 1)) {
        }
        if (places[at])
            status = pd_fail(err, PD_INVALID_ARGUMENT, "ids: %" PRIu64 " is there twice, in rows %u and %u",
                             ids[i], places[at] - 1, i);
        places[at] = i + 1;
    }
    free(places);
    return status;
}

static pd_status check_matrix(const ask *a, pd_error *err)
{
    const Pados__V1__Matrix *m = a->vectors;
    if (!m || m->dim == 0) return pd_fail(err, PD_INVALID_ARGUMENT, "vectors: an upsert needs them");
    if (value_bytes(m->dtype) == 0 || m->dtype > PADOS__V1__DTYPE__U8)
        return pd_fail(err, PD_INVALID_ARGUMENT, "vectors.dtype %d is none of F32, F16, I8, U8",
                       (int)m->dtype);
    if (m->dim > PD_MAX_DIM)
        return pd_fail(err, PD_INVALID_ARGUMENT, "vectors.dim is %u, more than %u", m->dim, PD_MAX_DIM);
    if (m->rows != a->n)
        return pd_fail(err, PD_INVALID_ARGUMENT, "vectors has %u rows, ids has %zu", m->rows, a->n);
    uint64_t bytes = (uint64_t)m->rows * m->dim * value_bytes(m->dtype);
    if (m->data.len != bytes)
        return pd_fail(err, PD_INVALID_ARGUMENT,
                       "vectors.data has %zu bytes, %u rows of %u values need %" PRIu64, m->data.len, m->rows,
                       m->dim, bytes);
    return PD_OK;
}

static pd_status check_ask(const ask *a, pd_error *err)
{
    uint32_t most = a->kind == PD_BATCH_ERASE ? ERASED_ONCE : PD_CHANGE_ROWS;
    const char *field = a->kind == PD_BATCH_FEEDBACK ? "items" : "ids";
    pd_status status = pd_name_check("table", a->table, err);
    if (status) return status;
    if (strlen(a->key) > PD_BATCH_KEY)
        return pd_fail(err, PD_INVALID_ARGUMENT, "key is longer than %u bytes", PD_BATCH_KEY);
    if (a->n == 0) return pd_fail(err, PD_INVALID_ARGUMENT, "%s: there are none", field);
    if (a->n > most)
        return pd_fail(err, PD_INVALID_ARGUMENT, "%s: %zu are more than a batch may have, %u", field, a->n,
                       most);
    if (a->kind == PD_BATCH_UPDATE && !a->nattributes)
        return pd_fail(err, PD_INVALID_ARGUMENT, "attributes: an update needs some");
    if (a->kind == PD_BATCH_UPSERT) status = check_matrix(a, err);
    if (!status && a->kind != PD_BATCH_FEEDBACK) status = check_distinct(a->ids, (uint32_t)a->n, err);
    for (size_t i = 0; !status && a->kind == PD_BATCH_UPSERT && i < a->n; i++)
        if (a->ids[i] == UINT64_MAX)
            status = pd_fail(err, PD_INVALID_ARGUMENT,
                             "ids: row %zu has the id %" PRIu64 ", which stands for no row in answers", i,
                             a->ids[i]);
    return status;
}

static pd_status take_ask(pd_batch *b, Pados__V1__Request *request, const ask *a, pd_error *err)
{
    b->kind = a->kind;
    b->time = pd_days_now();
    memcpy(b->table, a->table, strlen(a->table) + 1);
    if (*a->key) snprintf(b->key, sizeof b->key, "%s/%s", a->table, a->key);
    if (a->kind == PD_BATCH_FEEDBACK) {
        const char *counter = request->feedback->attribute;
        if (strlen(counter) >= sizeof b->counter)
            return pd_fail(err, PD_INVALID_ARGUMENT, "attribute: \"%.40s...\" is too long", counter);
        memcpy(b->counter, counter, strlen(counter) + 1);
        b->events = request;
        return PD_OK;
    }
    int has = a->vectors != NULL && a->kind == PD_BATCH_UPSERT;
    return make_body(b, a->ids, (uint32_t)a->n, has ? a->vectors->data.data : NULL, has ? a->vectors->dim : 0,
                     has ? (uint32_t)a->vectors->dtype : 0, a->attributes, a->nattributes, err);
}

pd_status pd_batch_of_request(Pados__V1__Request *request, pd_batch **out, pd_error *err)
{
    ask a;
    *out = NULL;
    if (!read_ask(request, &a)) return pd_fail(err, PD_INTERNAL, "the request is no change");
    pd_status status = check_ask(&a, err);
    if (status) return status;
    pd_batch *b = calloc(1, sizeof *b);
    if (!b) return no_memory(err);
    status = take_ask(b, request, &a, err);
    if (status)
        pd_batch_free(b);
    else
        *out = b;
    return status;
}
