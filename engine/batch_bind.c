/* A batch bound to a version: rows widened and encoded, names turned to numbers. See batch.h.
 *
 * A batch that comes from a client must fit the version that serves. One that is replayed on a newer version was made for an
 * older one: what that version has no attribute or value for is left out, and told to whoever replays.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "batch.h"
#include "f16.h"
#include "pados.pb-c.h"
#include "score.h"

typedef Pados__V1__AttributeValues cells_t;

typedef struct binding {
    pd_batch *batch;
    pd_version *version;
    const pd_version_info *info;
    pd_batch_losses *losses; /* NULL: nothing may be left out */
    int counted;             /* this batch is counted among the losses of attributes */
} binding;

static pd_status no_memory(pd_error *err)
{
    return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the batch");
}

/* ---------------------------------------------------------------------------------------------------- vectors --- */

static void widen(const unsigned char *from, uint32_t dtype, uint32_t n, float *out)
{
    if (dtype == PADOS__V1__DTYPE__F32) {
        memcpy(out, from, (size_t)n * sizeof *out);
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        if (dtype == PADOS__V1__DTYPE__F16) {
            pd_f16 half;
            memcpy(&half, from + 2ull * i, sizeof half);
            out[i] = pd_f16_to_f32(half);
        } else {
            out[i] = dtype == PADOS__V1__DTYPE__I8 ? (float)(int8_t)from[i] : (float)from[i];
        }
    }
}

static size_t row_bytes(uint32_t dtype, uint32_t dim)
{
    return (size_t)dim * (dtype == PADOS__V1__DTYPE__F32 ? 4 : dtype == PADOS__V1__DTYPE__F16 ? 2 : 1);
}

static pd_status read_row(const pd_batch *b, uint32_t row, pd_metric metric, float *out, pd_error *err)
{
    widen(b->vectors + row * row_bytes(b->dtype, b->dim), b->dtype, b->dim, out);
    for (uint32_t d = 0; d < b->dim; d++)
        if (!isfinite(out[d]))
            return pd_fail(err, PD_INVALID_ARGUMENT, "vectors: row %u (id %" PRIu64 "), dimension %u is %s",
                           row, b->ids[row], d, isnan(out[d]) ? "NaN" : "infinite");
    if (metric == PD_COSINE && !pd_normalise(out, b->dim))
        return pd_fail(err, PD_INVALID_ARGUMENT,
                       "vectors: row %u (id %" PRIu64
                       ") has no direction (its length is zero or overflows), which cosine needs",
                       row, b->ids[row]);
    return PD_OK;
}

static pd_status bind_vectors(const binding *x, pd_error *err)
{
    pd_batch *b = x->batch;
    if (b->dim != x->info->shape.dim)
        return pd_fail(err, x->losses ? PD_FAILED_PRECONDITION : PD_INVALID_ARGUMENT,
                       "the rows have %u dimensions, version %" PRIu64 " of table \"%s\" has %u", b->dim,
                       x->info->version, b->table, x->info->shape.dim);
    float *rows = pd_arena_take(&b->arena, (size_t)b->n * b->dim * sizeof *rows);
    if (!rows) return no_memory(err);
    pd_status status = PD_OK;
    for (uint32_t i = 0; !status && i < b->n; i++)
        status = read_row(b, i, x->info->shape.metric, rows + (size_t)i * b->dim, err);
    b->change.vectors = rows;
    return status;
}

pd_status pd_record_row(const pd_record *record, uint32_t row, pd_metric metric, uint32_t dim, float *vector,
                        pd_error *err)
{
    uint32_t head[4]; /* as batch.c writes it */
    memcpy(head, record->bytes, record->length < sizeof head ? 0 : sizeof head);
    if (record->length < sizeof head || record->kind != PD_BATCH_UPSERT || row >= head[0] || head[1] != dim ||
        record->length < sizeof head + head[0] * (8ull + row_bytes(head[2], dim)))
        return pd_fail(err, PD_DATA_LOSS, "change %" PRIu64 " of \"%s\" has no row %u of %u dimensions",
                       record->sequence, record->table, row, dim);
    const unsigned char *values = (const unsigned char *)record->bytes + sizeof head + 8ull * head[0];
    widen(values + row * row_bytes(head[2], dim), head[2], dim, vector);
    if (metric == PD_COSINE && !pd_normalise(vector, dim))
        return pd_fail(err, PD_DATA_LOSS, "change %" PRIu64 " of \"%s\": row %u has no direction",
                       record->sequence, record->table, row);
    return PD_OK;
}

/* ------------------------------------------------------------------------------------------------- attributes --- */

static void lose(binding *x, uint64_t *count, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void lose(binding *x, uint64_t *count, const char *format, ...)
{
    if (!x->losses->attributes && !x->losses->values) {
        va_list args;
        va_start(args, format);
        vsnprintf(x->losses->first, sizeof x->losses->first, format, args);
        va_end(args);
    }
    ++*count;
}

/* A set's members, joined by |. */
static pd_status read_members(const binding *x, uint32_t attribute, const char *text, uint64_t *word,
                              pd_error *err)
{
    char member[PD_MAX_VALUE + 1];
    for (const char *at = text; *at;) {
        size_t length = strcspn(at, "|");
        uint32_t number = 0;
        if (length >= sizeof member)
            return pd_fail(err, PD_INVALID_ARGUMENT, "attribute \"%s\": a member's name is too long",
                           x->info->schema->attributes[attribute].name);
        memcpy(member, at, length);
        member[length] = 0;
        pd_status status = length ? pd_version_name(x->version, attribute, member, &number, err) : PD_OK;
        if (status) return status;
        if (length) *word |= 1ull << number;
        at += length + (at[length] == '|');
    }
    return PD_OK;
}

/* A cell's text becomes a value; unknown where it is lost. */
static pd_status read_text(binding *x, uint32_t attribute, const char *text, uint8_t *value, float *number,
                           uint64_t *word, pd_error *err)
{
    const pd_attribute *a = &x->info->schema->attributes[attribute];
    pd_status status = PD_OK;
    if (!*text) return PD_OK;
    if (a->type == PD_CATEGORY) {
        uint32_t named = 0;
        status = pd_version_name(x->version, attribute, text, &named, err);
        if (!status) *value = (uint8_t)named;
    } else if (a->type == PD_NUMBER) {
        status = pd_attribute_number(a, text, number, err);
    } else if (a->type == PD_KEY) {
        char *end = NULL;
        errno = 0;
        *word = strtoull(text, &end, 10);
        if (*end || errno || *text < '0' || *text > '9')
            status = pd_fail(err, PD_INVALID_ARGUMENT,
                             "attribute \"%s\": \"%.64s\" is not a key: a whole number", a->name, text);
    } else {
        status = read_members(x, attribute, text, word, err);
    }
    if (!status || !x->losses || (status != PD_INVALID_ARGUMENT && status != PD_RESOURCE_EXHAUSTED))
        return status;
    lose(x, &x->losses->values, "%.150s", err->message);
    return PD_OK;
}

/* Texts of a column: each distinct one is read once. */
static pd_status read_texts(binding *x, const cells_t *in, pd_change_column *out, uint8_t *values,
                            float *numbers, uint64_t *words, pd_error *err)
{
    pd_batch *b = x->batch;
    const char *name = in->attribute;
    size_t rows = in->n_text_of ? in->n_text_of : in->n_texts;
    if (rows != b->n)
        return pd_fail(err, PD_INVALID_ARGUMENT, "attribute \"%.64s\": %zu texts for %u rows", name, rows,
                       b->n);
    uint8_t *value_of = pd_arena_take(&b->arena, in->n_texts * sizeof *value_of);
    float *number_of = pd_arena_take(&b->arena, in->n_texts * sizeof *number_of);
    uint64_t *word_of = pd_arena_take(&b->arena, in->n_texts * sizeof *word_of);
    if (!value_of || !number_of || !word_of) return no_memory(err);
    for (size_t t = 0; t < in->n_texts; t++) {
        number_of[t] = NAN;
        pd_status status =
            read_text(x, out->attribute, in->texts[t], &value_of[t], &number_of[t], &word_of[t], err);
        if (status) return status;
    }
    for (uint32_t i = 0; i < b->n; i++) {
        uint32_t t = in->n_text_of ? in->text_of[i] : i;
        if (t >= in->n_texts)
            return pd_fail(err, PD_INVALID_ARGUMENT, "attribute \"%.64s\": row %u names text %u of %zu", name,
                           i, t, in->n_texts);
        values[i] = value_of[t];
        numbers[i] = number_of[t];
        words[i] = word_of[t];
    }
    return PD_OK;
}

static pd_status read_numbers(const binding *x, const cells_t *in, const pd_attribute *a, float *numbers,
                              pd_error *err)
{
    const pd_batch *b = x->batch;
    if (a->type != PD_NUMBER)
        return pd_fail(err, PD_INVALID_ARGUMENT, "attribute \"%s\" is not a number", a->name);
    if (in->numbers.len != (size_t)b->n * sizeof *numbers)
        return pd_fail(err, PD_INVALID_ARGUMENT,
                       "attribute \"%s\": %zu bytes of numbers for %u rows, not %zu", a->name,
                       in->numbers.len, b->n, (size_t)b->n * sizeof *numbers);
    memcpy(numbers, in->numbers.data, in->numbers.len);
    for (uint32_t i = 0; i < b->n; i++)
        if (isinf(numbers[i]))
            return pd_fail(err, PD_INVALID_ARGUMENT, "attribute \"%s\": row %u (id %" PRIu64 ") is infinite",
                           a->name, i, b->ids[i]);
    return PD_OK;
}

static pd_status read_column(binding *x, const cells_t *in, pd_change_column *out, pd_error *err)
{
    pd_batch *b = x->batch;
    const pd_attribute *a = &x->info->schema->attributes[out->attribute];
    int forms = (in->numbers.len != 0) + (in->n_keys != 0) + (in->n_texts != 0);
    if (forms != 1)
        return pd_fail(err, PD_INVALID_ARGUMENT,
                       "attribute \"%s\": its values are to be numbers, keys or texts, and one of these",
                       a->name);
    uint8_t *values = pd_arena_take(&b->arena, b->n * sizeof *values);
    float *numbers = pd_arena_take(&b->arena, b->n * sizeof *numbers);
    uint64_t *words = pd_arena_take(&b->arena, b->n * sizeof *words);
    if (!values || !numbers || !words) return no_memory(err);
    pd_status status = PD_OK;
    if (in->n_texts) {
        status = read_texts(x, in, out, values, numbers, words, err);
    } else if (in->n_keys) {
        if (a->type != PD_KEY)
            status = pd_fail(err, PD_INVALID_ARGUMENT, "attribute \"%s\" is not a key", a->name);
        else if (in->n_keys != b->n)
            status = pd_fail(err, PD_INVALID_ARGUMENT, "attribute \"%s\": %zu keys for %u rows", a->name,
                             in->n_keys, b->n);
        else
            memcpy(words, in->keys, (size_t)b->n * sizeof *words);
    } else {
        status = read_numbers(x, in, a, numbers, err);
    }
    if (a->type == PD_CATEGORY) out->values = values;
    if (a->type == PD_NUMBER) out->numbers = numbers;
    if (a->type == PD_SET || a->type == PD_KEY) out->words = words;
    return status;
}

/* Which attribute is it? 0: the version has none, and that is no error. */
static pd_status find_attribute(binding *x, const cells_t *in, uint32_t *number, int *found, pd_error *err)
{
    const pd_schema *schema = x->info->schema;
    const pd_attribute *a = pd_schema_find(schema, in->attribute);
    *found = a != NULL;
    if (a) *number = (uint32_t)(a - schema->attributes);
    if (!a && !x->losses)
        return pd_fail(err, PD_INVALID_ARGUMENT, "table \"%s\" has no attribute \"%.64s\"", x->batch->table,
                       in->attribute);
    int counter = a && a->counts, count = x->batch->kind == PD_BATCH_COUNT;
    if (a && !x->losses && counter && !count)
        return pd_fail(err, PD_INVALID_ARGUMENT, "attribute \"%s\" is a counter: feedback moves it", a->name);
    if (a && counter != count) *found = 0;
    if (*found) return PD_OK;
    if (!x->counted)
        lose(x, &x->losses->attributes, "change %" PRIu64 " names attribute \"%.64s\", which is not there",
             x->batch->sequence, in->attribute);
    x->counted = 1;
    return PD_OK;
}

static pd_status bind_attributes(binding *x, pd_error *err)
{
    pd_batch *b = x->batch;
    size_t n = b->attributes->n_attributes;
    if (n > PD_MAX_ATTRIBUTES)
        return pd_fail(err, PD_INVALID_ARGUMENT, "%zu attributes are more than a table has", n);
    b->columns = pd_arena_take(&b->arena, (n + 1) * sizeof *b->columns);
    if (!b->columns) return no_memory(err);
    for (size_t i = 0; i < n; i++) {
        const cells_t *in = b->attributes->attributes[i];
        pd_change_column *out = &b->columns[b->change.ncolumns];
        int found;
        pd_status status = find_attribute(x, in, &out->attribute, &found, err);
        if (status) return status;
        if (!found) continue;
        for (uint32_t j = 0; j < b->change.ncolumns; j++)
            if (b->columns[j].attribute == out->attribute)
                return pd_fail(err, PD_INVALID_ARGUMENT, "attribute \"%.64s\" is there twice", in->attribute);
        if (b->kind == PD_BATCH_COUNT) {
            double *counters = pd_arena_take(&b->arena, b->n * sizeof *counters);
            if (!counters) return no_memory(err);
            memcpy(counters, b->vectors, b->n * sizeof *counters);
            out->counters = counters;
        } else {
            status = read_column(x, in, out, err);
            if (status) return status;
        }
        b->change.ncolumns++;
    }
    b->change.columns = b->columns;
    return PD_OK;
}

/* --------------------------------------------------------------------------------------------------- feedback --- */

static pd_status find_counter(binding *x, pd_error *err)
{
    pd_batch *b = x->batch;
    const pd_schema *schema = x->info->schema;
    uint32_t found = 0;
    for (uint32_t i = 0; i < schema->nattributes; i++) {
        if (!schema->attributes[i].counts || (*b->counter && strcmp(b->counter, schema->attributes[i].name)))
            continue;
        b->counts = i;
        found++;
    }
    if (found == 1) return PD_OK;
    if (*b->counter)
        return pd_fail(err, PD_INVALID_ARGUMENT, "table \"%s\" has no attribute \"%s\" with feedback",
                       b->table, b->counter);
    if (found)
        return pd_fail(err, PD_INVALID_ARGUMENT, "table \"%s\" has %u attributes with feedback: say which",
                       b->table, found);
    return pd_fail(err, PD_FAILED_PRECONDITION, "table \"%s\" has no attribute with feedback", b->table);
}

static pd_status event_weight(const pd_attribute *a, const char *event, double *weight, pd_error *err)
{
    *weight = 1;
    if (!a->nevents) return PD_OK;
    for (uint32_t i = 0; i < a->nevents; i++)
        if (!strcmp(a->events[i].name, event)) {
            *weight = a->events[i].weight;
            return PD_OK;
        }
    return pd_fail(err, PD_INVALID_ARGUMENT, "attribute \"%s\" knows no event \"%.64s\"", a->name, event);
}

static int by_item(const void *left, const void *right)
{
    const pd_raise *l = left, *r = right;
    return (l->item > r->item) - (l->item < r->item);
}

static pd_status bind_feedback(binding *x, pd_error *err)
{
    pd_batch *b = x->batch;
    const Pados__V1__Feedback *f = b->events->feedback;
    size_t n = f->n_items;
    pd_status status = find_counter(x, err);
    if (status) return status;
    const pd_attribute *a = &x->info->schema->attributes[b->counts];
    if ((f->n_users && f->n_users != n) || (f->n_weights && f->n_weights != n) ||
        (f->n_event_of && f->n_event_of != n))
        return pd_fail(err, PD_INVALID_ARGUMENT,
                       "users, event_of and weights are to be as many as items (%zu) or none", n);
    if (!f->n_event_of && (f->n_events > 1 || (a->nevents && !f->n_events)))
        return pd_fail(err, PD_INVALID_ARGUMENT, "event_of has to say which event each item's is");
    double *weight_of = pd_arena_take(&b->arena, (f->n_events + 1) * sizeof *weight_of);
    b->event = pd_arena_take(&b->arena, n * sizeof *b->event);
    if (!weight_of || !b->event) return no_memory(err);
    weight_of[0] = 1;
    for (size_t e = 0; !status && e < f->n_events; e++)
        status = event_weight(a, f->events[e], &weight_of[e], err);
    for (size_t i = 0; !status && i < n; i++) {
        uint32_t e = f->n_event_of ? f->event_of[i] : 0;
        if (f->n_event_of && e >= f->n_events)
            return pd_fail(err, PD_INVALID_ARGUMENT, "event_of[%zu] is %u of %zu events", i, e, f->n_events);
        double weight = f->n_weights ? (double)f->weights[i] : 1;
        if (!(weight >= 0 && isfinite(weight)))
            return pd_fail(err, PD_INVALID_ARGUMENT, "weights[%zu] is %g, it must be finite and not negative",
                           i, (double)weight);
        b->event[i] = (pd_raise){.item = f->items[i], .weight = weight * weight_of[e]};
    }
    if (status) return status;
    /* An item's events are added at once. */
    qsort(b->event, n, sizeof *b->event, by_item);
    b->nevents = 0;
    for (size_t i = 0; i < n; i++) {
        if (b->nevents && b->event[b->nevents - 1].item == b->event[i].item)
            b->event[b->nevents - 1].weight += b->event[i].weight;
        else
            b->event[b->nevents++] = b->event[i];
    }
    return PD_OK;
}

/* ------------------------------------------------------------------------------------------------------ whole --- */

static void unbind(pd_batch *b)
{
    pd_encoded_free(b->encoded);
    pd_arena_free(&b->arena);
    b->encoded = NULL;
    b->columns = NULL;
    b->event = NULL;
    b->nevents = 0;
    b->change = (pd_change){0};
}

pd_status pd_batch_bind(pd_batch *b, pd_version *version, pd_device *device, pd_batch_losses *losses,
                        pd_error *err)
{
    binding x = {.batch = b, .version = version, .info = pd_version_info_of(version), .losses = losses};
    unbind(b);
    if (b->kind == PD_BATCH_FEEDBACK) return bind_feedback(&x, err);
    pd_change_kind kind = b->kind == PD_BATCH_UPSERT   ? PD_CHANGE_UPSERT
                          : b->kind == PD_BATCH_UPDATE ? PD_CHANGE_UPDATE
                          : b->kind == PD_BATCH_COUNT  ? PD_CHANGE_COUNT
                                                       : PD_CHANGE_DELETE;
    b->change = (pd_change){.kind = kind, .sequence = b->sequence, .time = b->time, .n = b->n, .ids = b->ids};
    pd_status status = b->kind == PD_BATCH_UPSERT ? bind_vectors(&x, err) : PD_OK;
    if (!status) status = bind_attributes(&x, err);
    if (!status && b->kind == PD_BATCH_UPSERT)
        status = pd_change_encode(version, device, &b->change, &b->encoded, err);
    return status;
}
