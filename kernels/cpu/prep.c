/* Queries made ready: vectors padded to 16 lanes and quantised, weights cut down to the columns that weigh anything.
 * Queries of one request share their weight table, and then also what is made of it. */
#include <stdlib.h>
#include <string.h>

#include "cpu.h"
#include "score.h"

pd_status pd_buffer_need(pd_buffer *buffer, size_t bytes, const char *what, pd_error *err)
{
    if (bytes <= buffer->bytes) return PD_OK;
    size_t want = (bytes + bytes / 4 + 63) & ~(size_t)63;
    void *data = aligned_alloc(64, want);
    if (!data) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for %zu bytes of %s", want, what);
    free(buffer->data);
    buffer->data = data;
    buffer->bytes = want;
    return PD_OK;
}

void pd_buffer_free(pd_buffer *buffer)
{
    free(buffer->data);
    buffer->data = NULL;
    buffer->bytes = 0;
}

void pd_prepared_free(pd_prepared *prepared)
{
    pd_buffer_free(&prepared->prep_memory);
    pd_buffer_free(&prepared->vectors);
    pd_buffer_free(&prepared->codes);
    pd_buffer_free(&prepared->columns);
}

static int weighs(const pd_shape *shape, const pd_layout *layout, const float *weights, uint32_t column)
{
    const float *at = weights + layout->weight_at[column];
    for (uint32_t v = 0; v < shape->sizes[column]; v++)
        if (at[v] != 0.0f) return 1;
    return 0;
}

static uint32_t count_columns(const pd_shape *shape, const pd_layout *layout, const float *weights)
{
    uint32_t count = 0;
    for (uint32_t c = 0; weights && c < shape->nbytes; c++)
        count += (uint32_t)weighs(shape, layout, weights, c);
    return count;
}

static void fill_column(const pd_shape *shape, const float *weights, uint32_t column, pd_cpu_column *out)
{
    uint32_t size = shape->sizes[column];
    memset(out, 0, sizeof *out);
    out->column = column;
    memcpy(out->table, weights, size * sizeof *weights);
    /* Values past the size weigh nothing; they count for the most too. */
    for (uint32_t v = 0; v < 256; v++)
        out->most = v == 0 || out->table[v] > out->most ? out->table[v] : out->most;
}

static pd_status prepare_weights(const pd_shape *shape, const pd_layout *layout, const pd_query *queries,
                                 uint32_t count, pd_prepared *prepared, pd_error *err)
{
    size_t total = 0;
    for (uint32_t q = 0; q < count; q++) {
        pd_cpu_weigh *weigh = &prepared->preps[q].weigh;
        int same = q > 0 && queries[q].weights == queries[q - 1].weights;
        weigh->ncolumns =
            same ? prepared->preps[q - 1].weigh.ncolumns : count_columns(shape, layout, queries[q].weights);
        total += same ? 0 : weigh->ncolumns;
    }
    pd_status status = pd_buffer_need(&prepared->columns, total * sizeof(pd_cpu_column), "weights", err);
    if (status != PD_OK) return status;
    pd_cpu_column *columns = prepared->columns.data;
    for (uint32_t q = 0; q < count; q++) {
        pd_cpu_weigh *weigh = &prepared->preps[q].weigh;
        if (q > 0 && queries[q].weights == queries[q - 1].weights) {
            weigh->columns = prepared->preps[q - 1].weigh.columns;
            continue;
        }
        weigh->columns = columns;
        for (uint32_t c = 0; weigh->ncolumns && c < shape->nbytes; c++)
            if (weighs(shape, layout, queries[q].weights, c))
                fill_column(shape, queries[q].weights + layout->weight_at[c], c, columns++);
    }
    return PD_OK;
}

typedef struct prep_job {
    const pd_shape *shape;
    const pd_layout *layout;
    const pd_query *queries;
    uint32_t count;
    int quantise;
    pd_prep *preps;
    float *vectors;
    int16_t *codes;
} prep_job;

static void prepare_vector(const prep_job *job, uint32_t q)
{
    const pd_shape *shape = job->shape;
    uint32_t dim16 = pd_dim16(shape->dim), dim4 = job->layout->dim4;
    pd_prep *prep = &job->preps[q];
    if (!job->queries[q].vector) return;
    float *vector = job->vectors + (size_t)q * dim16;
    memcpy(vector, job->queries[q].vector, shape->dim * sizeof *vector);
    memset(vector + shape->dim, 0, (dim16 - shape->dim) * sizeof *vector);
    prep->vector = vector;
    if (!job->quantise) return;
    int16_t *codes = job->codes + (size_t)q * dim16;
    int8_t bytes[PD_MAX_DIM];
    float qs = pd_quantise_query(vector, shape->dim, dim4, bytes);
    for (uint32_t d = 0; d < dim4; d++)
        codes[d] = bytes[d];
    prep->codes = codes;
    prep->qf = shape->metric == PD_L2 ? 2.0f * qs : qs;
}

#define PREP_TASK 32u

static void prepare_some(void *context, uint32_t task, uint32_t worker)
{
    (void)worker;
    const prep_job *job = context;
    for (uint32_t q = task * PREP_TASK; q < job->count && q < (task + 1) * PREP_TASK; q++)
        prepare_vector(job, q);
}

pd_status pd_prepare(pd_pool *pool, const pd_shape *shape, const pd_layout *layout, int quantise,
                     const pd_query *queries, uint32_t count, pd_prepared *prepared, pd_error *err)
{
    size_t dim16 = pd_dim16(shape->dim);
    pd_status status = pd_buffer_need(&prepared->prep_memory, count * sizeof(pd_prep), "queries", err);
    if (status == PD_OK)
        status = pd_buffer_need(&prepared->vectors, count * dim16 * sizeof(float), "query vectors", err);
    if (status == PD_OK && quantise)
        status = pd_buffer_need(&prepared->codes, count * dim16 * sizeof(int16_t), "query codes", err);
    if (status != PD_OK) return status;
    pd_prep *preps = prepared->preps = prepared->prep_memory.data;
    for (uint32_t q = 0; q < count; q++) {
        preps[q] = (pd_prep){.query = &queries[q]};
        preps[q].weigh = (pd_cpu_weigh){.vector = queries[q].vector != NULL,
                                        .a = queries[q].similarity,
                                        .nkeys = queries[q].nkey_weights,
                                        .keys = queries[q].key_weights};
    }
    status = prepare_weights(shape, layout, queries, count, prepared, err);
    if (status != PD_OK) return status;
    prep_job job = {.shape = shape,
                    .layout = layout,
                    .queries = queries,
                    .count = count,
                    .quantise = quantise,
                    .preps = preps,
                    .vectors = prepared->vectors.data,
                    .codes = prepared->codes.data};
    pd_pool_run(pool, (count + PREP_TASK - 1) / PREP_TASK, prepare_some, &job);
    return PD_OK;
}
