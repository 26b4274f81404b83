/* Taking rows out of a logged batch, so that nothing is left of them but their ids. The others keep their places, which residents
 * remember; an upserted row becomes one that points along the first axis, which any table can hold, until the record of
 * its erasure takes it away again. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "batch.h"
#include "f16.h"
#include "pados.pb-c.h"

typedef Pados__V1__AttributeValues cells_t;

/* A text of protobuf-c's: "" where there is no memory for one is the shared default, which must not be freed. */
static int blank(char **text)
{
    if (!**text) return 1;
    char *empty = calloc(1, 1);
    if (!empty) return 0;
    free(*text);
    *text = empty;
    return 1;
}

static int forget_texts(cells_t *cells, uint32_t n, const uint8_t *gone)
{
    if (!cells->n_text_of) {
        for (uint32_t i = 0; i < n && i < cells->n_texts; i++)
            if (gone[i] && !blank(&cells->texts[i])) return 0;
        return 1;
    }
    uint8_t *used = calloc(cells->n_texts + 1, 1);
    char **more = used ? realloc(cells->texts, (cells->n_texts + 1) * sizeof *more) : NULL;
    if (more) cells->texts = more;
    char *empty = more ? calloc(1, 1) : NULL;
    if (!empty) {
        free(used);
        return 0;
    }
    uint32_t unknown = (uint32_t)cells->n_texts;
    cells->texts[cells->n_texts++] = empty;
    for (uint32_t i = 0; i < n && i < cells->n_text_of; i++) {
        if (gone[i])
            cells->text_of[i] = unknown;
        else if (cells->text_of[i] < unknown)
            used[cells->text_of[i]] = 1;
    }
    int whole = 1;
    for (uint32_t t = 0; t < unknown; t++) /* what only those rows held */
        if (!used[t]) whole = whole && blank(&cells->texts[t]);
    free(used);
    return whole;
}

static int forget_cells(Pados__V1__Update *attributes, uint32_t n, const uint8_t *gone)
{
    float unknown = NAN;
    for (size_t a = 0; a < attributes->n_attributes; a++) {
        cells_t *cells = attributes->attributes[a];
        for (uint32_t i = 0; i < n; i++) {
            if (!gone[i]) continue;
            if (cells->numbers.len >= (i + 1ull) * sizeof unknown)
                memcpy(cells->numbers.data + i * sizeof unknown, &unknown, sizeof unknown);
            if (i < cells->n_keys) cells->keys[i] = 0;
        }
        if (cells->n_texts && !forget_texts(cells, n, gone)) return 0;
    }
    return 1;
}

static void forget_values(const pd_batch *b, unsigned char *values, size_t each, const uint8_t *gone)
{
    float one = 1.0f;
    double nothing = -INFINITY;
    pd_f16 half = pd_f32_to_f16(one);
    for (uint32_t i = 0; i < b->n; i++) {
        if (!gone[i]) continue;
        unsigned char *row = values + i * each;
        memset(row, 0, each);
        if (b->kind == PD_BATCH_COUNT)
            memcpy(row, &nothing, sizeof nothing);
        else if (b->dtype == PADOS__V1__DTYPE__F32)
            memcpy(row, &one, sizeof one);
        else if (b->dtype == PADOS__V1__DTYPE__F16)
            memcpy(row, &half, sizeof half);
        else
            row[0] = 1;
    }
}

static int has(const uint64_t *ids, uint32_t n, uint64_t id)
{
    uint32_t low = 0, high = n;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (ids[middle] < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low < n && ids[low] == id;
}

pd_status pd_batch_forget(const pd_record *record, const uint64_t *ids, uint32_t n, void **bytes,
                          size_t *length, pd_error *err)
{
    pd_batch *b = NULL;
    *bytes = NULL;
    pd_status status = pd_batch_of_record(record, &b, err);
    if (status) return status;
    uint32_t found = 0;
    uint8_t *gone = calloc(b->n, 1);
    unsigned char *out = NULL;
    for (uint32_t i = 0; gone && i < b->n; i++)
        found += gone[i] = (uint8_t)has(ids, n, b->ids[i]);
    int carries = b->kind == PD_BATCH_UPSERT || b->kind == PD_BATCH_UPDATE || b->kind == PD_BATCH_COUNT;
    if (gone && (!found || !carries)) goto out;
    int whole = gone && forget_cells(b->attributes, b->n, gone);
    size_t values = (size_t)(b->vectors - b->bytes), rest = 0, before = 0;
    if (whole) {
        uint32_t was;
        memcpy(&was, b->bytes + 12, sizeof was); /* bytes of the attributes, in the body's head */
        before = b->length - was;
        rest = pados__v1__update__get_packed_size(b->attributes);
        out = malloc(before + rest + 1);
    }
    if (!out) {
        status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to take rows out of a batch");
        goto out;
    }
    uint32_t is = (uint32_t)rest;
    memcpy(out, b->bytes, before);
    memcpy(out + 12, &is, sizeof is);
    forget_values(b, out + values, before > values ? (before - values) / b->n : 0, gone);
    pados__v1__update__pack(b->attributes, out + before);
    *bytes = out;
    *length = before + rest;
out:
    free(gone);
    pd_batch_free(b);
    return status;
}
