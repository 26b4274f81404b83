/* Queries made ready: vectors padded to 16 lanes and quantised, weights cut down to the columns that weigh anything and
 * given bounds in whole steps. Queries of one request share their weight table, and then also what is made of it. */
#include <math.h>
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
    pd_buffer_free(&prepared->near);
    pd_buffer_free(&prepared->columns);
    pd_buffer_free(&prepared->counts);
    pd_buffer_free(&prepared->projected);
}

/* What a worker projects a task's queries with. */
typedef struct projecting {
    unsigned char *group; /* [PREP_TASK] packed codes of all dimensions */
    float *out;           /* [PREP_TASK][apart] */
    size_t apart;
} projecting;

#define PREP_TASK PD_GROUP

typedef struct prep_job {
    const pd_cpu_device *device;
    const pd_shape *shape;
    const pd_layout *layout;
    const pd_host_index *index;
    const pd_query *queries;
    uint32_t count;
    pd_prep *preps;
    float *vectors;
    unsigned char *codes, *near;
    size_t packed;       /* bytes from one query to the next */
    projecting *workers; /* [threads]; NULL: codes have all dimensions */
    uint32_t *column_at; /* [count + 1]: where each query's columns begin */
    pd_cpu_column *columns;
} prep_job;

/* ------------------------------------------------------------------------------------------------ weights --- */

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

/* least: the smallest weight of any value. */
static void fill_column(const pd_shape *shape, const float *weights, uint32_t column, pd_cpu_column *out,
                        float *least)
{
    uint32_t size = shape->sizes[column];
    out->column = column;
    out->size = size;
    out->table = weights;
    out->reach = size < 64 ? 64 : size < 128 ? 128 : 256;
    /* Values past the size weigh nothing; they count for the most and the least too. */
    out->most = size < 256 ? 0.0f : weights[0];
    *least = out->most;
    for (uint32_t v = 0; v < size; v++) {
        out->most = weights[v] > out->most ? weights[v] : out->most;
        *least = weights[v] < *least ? weights[v] : *least;
    }
}

/* A step more than the quotient rounded down: never too small, whatever the rounding. */
static void fill_steps(pd_cpu_column *column, float least, float step)
{
    if (step == 0.0f) {
        memset(column->steps, 0, column->reach);
        return;
    }
    float per = 1.000001f / step;
    for (uint32_t v = 0; v < column->size; v++)
        column->steps[v] = (uint8_t)(int32_t)((column->table[v] - least) * per + 1.0f);
    if (column->size < 256)
        memset(column->steps + column->size, (uint8_t)(int32_t)((0.0f - least) * per + 1.0f),
               column->reach - column->size);
}

/* Columns, bounds and steps of one weight table. The steps of all columns together stay within a byte: the whole range
 * is 255 steps less two a column, since each column rounds up. */
static void fill_weigh(const prep_job *job, const float *weights, pd_cpu_column *columns, pd_cpu_weigh *weigh)
{
    const pd_shape *shape = job->shape;
    float least[PD_MAX_BYTES];
    double range = 0;
    uint32_t used = 0;
    weigh->columns = columns;
    for (uint32_t c = 0; weigh->ncolumns && c < shape->nbytes; c++) {
        if (!weighs(shape, job->layout, weights, c)) continue;
        pd_cpu_column *column = &columns[used];
        fill_column(shape, weights + job->layout->weight_at[c], c, column, &least[used]);
        weigh->most += (double)column->most;
        weigh->least += (double)least[used];
        range += (double)column->most - (double)least[used];
        weigh->size += fmax(fabs((double)column->most), fabs((double)least[used]));
        used++;
    }
    /* With so many columns that whole steps say nothing, everything may reach everything; the same where the range is so
     * small that it cannot be cut. */
    int rooms = 255 - 2 * (int)used;
    weigh->step = rooms > 0 ? (float)(range / rooms) * 1.00001f : 0.0f;
    if (!(weigh->step >= 256 * FLT_MIN) || !(range <= (double)FLT_MAX)) {
        weigh->step = 0.0f;
        weigh->least = weigh->most;
    }
    for (uint32_t i = 0; i < used; i++)
        fill_steps(&columns[i], least[i], weigh->step);
}

static void add_keys(pd_cpu_weigh *weigh)
{
    for (uint32_t i = 0; i < weigh->nkeys; i++) {
        double weight = (double)weigh->keys[i].weight;
        weigh->size += fabs(weight);
        if (weight <= 0) continue;
        weigh->most += weight;
        weigh->least += weight;
    }
}

static int same_weights(const pd_query *queries, uint32_t q)
{
    return q > 0 && queries[q].weights == queries[q - 1].weights;
}

/* Once the first of each run of equal weight tables is made: the others take it over, and all add their keys. */
static void share_weights(const pd_query *queries, uint32_t count, pd_prep *preps)
{
    for (uint32_t q = 0; q < count; q++) {
        pd_cpu_weigh *weigh = &preps[q].weigh;
        if (!same_weights(queries, q)) continue;
        const pd_cpu_weigh *before = &preps[q - 1].weigh;
        weigh->ncolumns = before->ncolumns;
        weigh->columns = before->columns;
        weigh->step = before->step;
        weigh->most = before->most;
        weigh->least = before->least;
        weigh->size = before->size;
    }
    for (uint32_t q = 0; q < count; q++)
        add_keys(&preps[q].weigh);
}

/* ------------------------------------------------------------------------------------------------ vectors --- */

static void prepare_vector(const prep_job *job, uint32_t q)
{
    const pd_shape *shape = job->shape;
    uint32_t dim16 = pd_dim16(shape->dim);
    pd_prep *prep = &job->preps[q];
    if (!job->queries[q].vector) return;
    prep->vector = job->queries[q].vector;
    if (shape->dim != dim16) {
        float *vector = job->vectors + (size_t)q * dim16;
        memcpy(vector, job->queries[q].vector, shape->dim * sizeof *vector);
        memset(vector + shape->dim, 0, (dim16 - shape->dim) * sizeof *vector);
        prep->vector = vector;
    }
}

/* Codes of a query for the scan and for choosing lists. from: what is quantised, of dim values in 16 lanes */
static void prepare_codes(const prep_job *job, uint32_t q, const float *from, const float *mean)
{
    const pd_cpu_device *device = job->device;
    uint32_t dim = job->index->coarse.code_dim, dim64 = pd_dim64(dim);
    int l2 = job->shape->metric == PD_L2;
    pd_prep *prep = &job->preps[q];
    int8_t codes[PD_MAX_DIM] __attribute__((aligned(64)));
    float qs = device->ops->quantise(from, NULL, dim, dim64, codes);
    unsigned char *packed = job->codes + (size_t)q * job->packed;
    device->i8->pack(codes, dim64, packed);
    if (job->shape->code == PD_CODE_I8) prep->codes = packed;
    prep->near = packed;
    prep->qf = l2 ? 2.0f * qs : qs;
    prep->nf = qs;
    if (!l2) return;
    unsigned char *near = job->near + (size_t)q * job->packed;
    prep->nf = 2.0f * device->ops->quantise(from, mean, dim, dim64, codes);
    device->i8->pack(codes, dim64, near);
    prep->near = near;
}

/* p(q) of score.h for the n queries whose codes lie in the group: the scan's own product and scores, with pages of directions in the
 * place of rows. */
static void project(const prep_job *job, projecting *with, uint32_t n, pd_cpu_group *group)
{
    const pd_projection *p = job->index->projection;
    int32_t dots[PD_GROUP * PD_PAGE_ROWS];
    for (uint32_t j = 0; n > 0 && j < p->code_dim; j += PD_PAGE_ROWS) {
        unsigned char *page = p->pages + j / PD_PAGE_ROWS * p->layout.page_bytes;
        job->device->i8->dots((const int8_t *)(page + p->layout.codes), p->layout.dim4 / 4, pd_dim64(p->dim),
                              with->group, n, dots);
        job->device->ops->scores_i8(dots, n, pd_page_term(&p->layout, page), pd_page_scale(&p->layout, page),
                                    group, with->out + j, with->apart);
    }
}

/* The queries of a task together. */
static void prepare_projected(const prep_job *job, uint32_t first, uint32_t end, projecting *with)
{
    const pd_cpu_device *device = job->device;
    uint32_t dim = job->shape->dim, dim64 = pd_dim64(dim), n = 0, which[PREP_TASK];
    size_t packed = pd_packed_bytes(device->i8, dim64);
    pd_cpu_group group;
    int8_t codes[PD_MAX_DIM] __attribute__((aligned(64)));
    for (uint32_t q = first; q < end; q++) {
        if (!job->preps[q].vector) continue;
        group.lt[n] = group.bar[n] = 0.0f;
        group.a[n] = 1.0f;
        group.qf[n] = device->ops->quantise(job->preps[q].vector, NULL, dim, dim64, codes);
        device->i8->pack(codes, dim64, with->group + n * packed);
        which[n++] = q;
    }
    project(job, with, n, &group);
    for (uint32_t i = 0; i < n; i++)
        prepare_codes(job, which[i], with->out + i * with->apart, job->index->projection->mean_out);
}

static uint32_t task_end(const prep_job *job, uint32_t task)
{
    uint32_t end = (task + 1) * PREP_TASK;
    return end < job->count ? end : job->count;
}

static void vector_task(void *context, uint32_t task, uint32_t worker)
{
    const prep_job *job = context;
    int coded = job->index && job->shape->nlist > 0;
    for (uint32_t q = task * PREP_TASK; q < task_end(job, task); q++) {
        job->preps[q] = (pd_prep){.query = &job->queries[q]};
        job->column_at[q] = same_weights(job->queries, q)
                                ? 0
                                : count_columns(job->shape, job->layout, job->queries[q].weights);
        prepare_vector(job, q);
        if (coded && !job->workers && job->preps[q].vector)
            prepare_codes(job, q, job->preps[q].vector, job->index->mean);
    }
    if (coded && job->workers)
        prepare_projected(job, task * PREP_TASK, task_end(job, task), &job->workers[worker]);
}

/* Memory for each worker to project with. */
static pd_status take_projecting(prep_job *job, pd_prepared *prepared, pd_error *err)
{
    if (!job->index || !job->index->projection) return PD_OK;
    const pd_projection *p = job->index->projection;
    size_t threads = pd_pool_threads(job->device->pool),
           apart = (size_t)pd_pages_for(p->code_dim) * PD_PAGE_ROWS;
    size_t group = PREP_TASK * pd_packed_bytes(job->device->i8, pd_dim64(p->dim));
    size_t head = (threads * sizeof(projecting) + 63) & ~(size_t)63;
    size_t each = group + PREP_TASK * apart * sizeof(float);
    pd_status status = pd_buffer_need(&prepared->projected, head + threads * each, "projected queries", err);
    if (status != PD_OK) return status;
    job->workers = prepared->projected.data;
    for (size_t t = 0; t < threads; t++) {
        unsigned char *at = (unsigned char *)prepared->projected.data + head + t * each;
        job->workers[t] = (projecting){.group = at, .out = (float *)(void *)(at + group), .apart = apart};
    }
    return PD_OK;
}

static void weight_task(void *context, uint32_t task, uint32_t worker)
{
    (void)worker;
    const prep_job *job = context;
    for (uint32_t q = task * PREP_TASK; q < task_end(job, task); q++) {
        pd_cpu_weigh *weigh = &job->preps[q].weigh;
        weigh->vector = job->queries[q].vector != NULL;
        weigh->a = job->queries[q].similarity;
        weigh->nkeys = job->queries[q].nkey_weights;
        weigh->keys = job->queries[q].key_weights;
        weigh->ncolumns = job->column_at[q + 1] - job->column_at[q];
        if (weigh->ncolumns)
            fill_weigh(job, job->queries[q].weights, job->columns + job->column_at[q], weigh);
    }
}

pd_status pd_prepare(const pd_cpu_device *device, const pd_shape *shape, const pd_layout *layout,
                     const pd_host_index *index, const pd_query *queries, uint32_t count,
                     pd_prepared *prepared, pd_error *err)
{
    size_t dim16 = pd_dim16(shape->dim);
    size_t packed = pd_packed_bytes(device->i8, pd_dim64(index ? index->coarse.code_dim : shape->dim));
    int codes = index && shape->nlist > 0;
    pd_status status = pd_buffer_need(&prepared->prep_memory, count * sizeof(pd_prep), "queries", err);
    if (status == PD_OK && shape->dim != dim16)
        status = pd_buffer_need(&prepared->vectors, count * dim16 * sizeof(float), "query vectors", err);
    if (status == PD_OK)
        status = pd_buffer_need(&prepared->counts, ((size_t)count + 1) * sizeof(uint32_t), "weights", err);
    if (status == PD_OK && codes)
        status = pd_buffer_need(&prepared->codes, count * packed, "query codes", err);
    if (status == PD_OK && codes && shape->metric == PD_L2)
        status = pd_buffer_need(&prepared->near, count * packed, "query codes", err);
    if (status != PD_OK) return status;
    prepared->preps = prepared->prep_memory.data;
    prep_job job = {.device = device,
                    .shape = shape,
                    .layout = layout,
                    .index = index,
                    .queries = queries,
                    .count = count,
                    .preps = prepared->preps,
                    .vectors = prepared->vectors.data,
                    .codes = prepared->codes.data,
                    .near = prepared->near.data,
                    .packed = packed,
                    .column_at = prepared->counts.data};
    status = take_projecting(&job, prepared, err);
    if (status != PD_OK) return status;
    uint32_t tasks = (count + PREP_TASK - 1) / PREP_TASK;
    pd_pool_run(device->pool, tasks, vector_task, &job);
    uint32_t total = 0;
    for (uint32_t q = 0; q <= count; q++) {
        uint32_t own = q < count ? job.column_at[q] : 0;
        job.column_at[q] = total;
        total += own;
    }
    status = pd_buffer_need(&prepared->columns, total * sizeof(pd_cpu_column), "weights", err);
    if (status != PD_OK) return status;
    job.columns = prepared->columns.data;
    pd_pool_run(device->pool, tasks, weight_task, &job);
    share_weights(queries, count, job.preps);
    return PD_OK;
}
