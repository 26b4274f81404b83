/* Queries made ready: vectors padded to 16 lanes and quantised, weights cut down to the columns that weigh anything and
 * given bounds in whole steps. Queries of one request share their weight table, and then also what is made of it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cpu.h"
#include "score.h"
#include "vector.h"

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
    pd_buffer_free(&prepared->parts);
    pd_buffer_free(&prepared->steps);
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
    uint32_t *column_at; /* [count + 1]: where each query's columns begin, and its parts */
    uint32_t *step_at;   /* [count + 1]: where its steps begin, in lines of 64 bytes */
    pd_cpu_column *columns;
    pd_cpu_part *parts;
    uint8_t *steps;
} prep_job;

/* ------------------------------------------------------------------------------------------------ weights --- */

static int weighs(const pd_shape *shape, const pd_layout *layout, const float *weights, uint32_t column)
{
    const float *at = weights + layout->weight_at[column];
    for (uint32_t v = 0; v < shape->sizes[column]; v++)
        if (at[v] != 0.0f) return 1;
    return 0;
}

/* The values of a byte column that rows may hold. Without an index (an exact search) nothing is known of them. */
static void values_of(const prep_job *job, uint32_t column, uint32_t *first, uint32_t *count)
{
    *first = 0;
    *count = 256;
    if (!job->index) return;
    uint32_t least = job->index->blocks.first[column], most = job->index->blocks.last[column];
    *first = least <= most ? least : 0;
    *count = least <= most ? most - least + 1 : 1;
}

/* Takes one more weighed column into the parts, of which there are n so far. The table of one that is full is closed. Returns
 * how many there are then. */
static uint32_t add_part(const prep_job *job, uint32_t column, pd_cpu_part *part, uint32_t n)
{
    uint32_t first, count;
    values_of(job, column, &first, &count);
    uint32_t room = (count + 15u) & ~15u, used = 0, at = 0;
    if (n > 0) {
        part += n - 1;
        uint32_t j = part->n - 1;
        used = part->offset[j] + ((part->count[j] + 15u) & ~15u);
        at = part->at + part->entries;
        if (part->n == PD_PART_COLUMNS || used + room > 128) {
            used = 0;
            part++;
        }
    }
    if (used == 0) {
        *part = (pd_cpu_part){.at = at};
        n++;
    }
    uint32_t j = part->n++;
    part->column[j] = (uint16_t)column;
    part->first[j] = (uint8_t)first;
    part->count[j] = (uint16_t)count;
    part->offset[j] = (uint8_t)used;
    /* The smallest tables are for first parts, which may be alone: two of one size are looked up together. */
    part->entries = part->at == 0 && used + room <= 64 ? 64 : used + room <= 128 ? 128 : 256;
    return n;
}

/* What a query's columns take: how many they are, and the lines of 64 bytes of their steps. */
static void count_columns(const prep_job *job, uint32_t q)
{
    const float *weights = job->queries[q].weights;
    pd_cpu_part parts[2];
    uint32_t n = 0, columns = 0;
    for (uint32_t c = 0; weights && c < job->shape->nbytes; c++) {
        if (!weighs(job->shape, job->layout, weights, c)) continue;
        columns++;
        n = add_part(job, c, parts, n);
        if (n < 2) continue;
        parts[0] = parts[1];
        n = 1;
    }
    job->column_at[q] = columns;
    job->step_at[q] = n ? (parts[0].at + parts[0].entries) / 64 : 0;
}

/* The least and the most of some weights. */
static void range_of(const float *weights, uint32_t n, float *least, float *most)
{
    uint32_t v = 0;
    if (n >= VF) {
        vfloat low = v_load(weights), high = low;
        for (; v + VF <= n; v += VF) {
            low = v_min(v_load(weights + v), low);
            high = v_max(v_load(weights + v), high);
        }
        for (uint32_t j = 0; j < VF; j++) {
            *least = low[j] < *least ? low[j] : *least;
            *most = high[j] > *most ? high[j] : *most;
        }
    }
    for (; v < n; v++) {
        *least = weights[v] < *least ? weights[v] : *least;
        *most = weights[v] > *most ? weights[v] : *most;
    }
}

/* least, most: the smallest and the largest weight of any value that occurs. */
static void fill_column(const prep_job *job, const float *weights, uint32_t column, pd_cpu_column *out,
                        float *least, float *most)
{
    uint32_t size = job->shape->sizes[column], first, count;
    values_of(job, column, &first, &count);
    uint32_t some = first >= size ? 0 : first + count > size ? size - first : count;
    out->column = column;
    out->size = size;
    out->table = weights;
    /* Values past the size weigh nothing; they count for the most and the least too. */
    *most = *least = some == count ? weights[first] : 0.0f;
    range_of(weights + first, some, least, most);
    out->most = *most;
    if (!job->index || !job->index->histograms || !job->index->tied[column]) return;
    float low = 0.0f;
    out->most = size < 256 ? 0.0f : weights[0];
    range_of(weights, size, &low, &out->most);
}

/* The steps of one column of a part. A step more than the quotient rounded down: never too small, whatever the rounding. */
static void fill_steps(const pd_cpu_column *column, const pd_cpu_part *part, uint32_t j, float least,
                       float step, uint8_t *steps)
{
    if (step == 0.0f) return;
    uint32_t first = part->first[j], count = part->count[j];
    uint32_t some = first >= column->size ? 0 : first + count > column->size ? column->size - first : count;
    const float *table = column->table + first;
    float per = 1.000001f / step;
    for (uint32_t v = 0; v < some; v++)
        steps[v] = (uint8_t)(int32_t)((table[v] - least) * per + 1.0f);
    if (some < count) memset(steps + some, (uint8_t)(int32_t)((0.0f - least) * per + 1.0f), count - some);
}

/* Columns, bounds and steps of one weight table. The column of the widest range has 254 steps of it, and one for what rounding
 * adds. */
static void fill_weigh(const prep_job *job, const float *weights, pd_cpu_column *columns, pd_cpu_part *parts,
                       uint8_t *steps, pd_cpu_weigh *weigh)
{
    const pd_shape *shape = job->shape;
    float least[PD_MAX_BYTES];
    double range = 0, widest = 0;
    uint32_t used = 0;
    for (uint32_t c = 0; c < shape->nbytes && used < weigh->ncolumns; c++) {
        if (!weighs(shape, job->layout, weights, c)) continue;
        float most;
        fill_column(job, weights + job->layout->weight_at[c], c, &columns[used], &least[used], &most);
        weigh->nparts = add_part(job, c, parts, weigh->nparts);
        weigh->most += (double)most;
        weigh->least += (double)least[used];
        double own = (double)most - (double)least[used];
        range += own;
        widest = own > widest ? own : widest;
        weigh->size += fmax(fabs((double)most), fabs((double)least[used]));
        used++;
    }
    weigh->columns = columns;
    weigh->parts = parts;
    weigh->steps = steps;
    /* A range so small that it cannot be cut, or so large that sums may overflow, is not looked into. */
    weigh->step = (float)(widest / 253) * 1.00001f;
    if (!(weigh->step >= 256 * FLT_MIN) || !(range <= (double)FLT_MAX)) {
        weigh->step = 0.0f;
        weigh->least = weigh->most;
    }
    used = 0;
    for (uint32_t p = 0; p < weigh->nparts; p++) {
        memset(steps + parts[p].at, 0, parts[p].entries);
        for (uint32_t j = 0; j < parts[p].n; j++, used++)
            fill_steps(&columns[used], &parts[p], j, least[used], weigh->step,
                       steps + parts[p].at + parts[p].offset[j]);
    }
}

/* Asks for the weights of the query after q, which as a rule weighs the same columns. */
static void ask_for_next(const prep_job *job, uint32_t q)
{
    const pd_cpu_weigh *weigh = &job->preps[q].weigh;
    if (q + 1 == job->count || !job->queries[q + 1].weights) return;
    for (uint32_t p = 0; p < weigh->nparts; p++) {
        const pd_cpu_part *part = &weigh->parts[p];
        for (uint32_t j = 0; j < part->n; j++)
            for (uint32_t v = part->first[j]; v < job->shape->sizes[part->column[j]]; v += 16) {
                if (v >= (uint32_t)part->first[j] + part->count[j]) break;
                __builtin_prefetch(job->queries[q + 1].weights + job->layout->weight_at[part->column[j]] + v);
            }
    }
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

static int same_columns(const pd_cpu_weigh *a, const pd_cpu_weigh *b)
{
    if (a->ncolumns != b->ncolumns) return 0;
    for (uint32_t i = 0; i < a->ncolumns; i++)
        if (a->columns[i].column != b->columns[i].column) return 0;
    return 1;
}

/* The sets of columns met last, the latest first, each by a query that weighs them. */
#define SETS 4u
typedef struct known_sets {
    uint32_t n, query[SETS];
} known_sets;

/* A query that weighs the same columns as query q: one of the known, or q. */
static uint32_t set_of(const pd_prep *preps, uint32_t q, known_sets *known)
{
    uint32_t i = 0, query = q;
    while (i < known->n && !same_columns(&preps[q].weigh, &preps[known->query[i]].weigh))
        i++;
    if (i < known->n)
        query = known->query[i];
    else if (known->n < SETS)
        known->n++;
    else
        i = SETS - 1;
    for (; i > 0; i--)
        known->query[i] = known->query[i - 1];
    known->query[0] = query;
    return query;
}

/* Once the first of each run of equal weight tables is made: the others take it over, and all add their keys. */
static void share_weights(const pd_query *queries, uint32_t count, pd_prep *preps)
{
    known_sets known = {0};
    for (uint32_t q = 0; q < count; q++) {
        pd_cpu_weigh *weigh = &preps[q].weigh;
        if (!same_weights(queries, q)) {
            weigh->set = set_of(preps, q, &known);
            continue;
        }
        const pd_cpu_weigh *before = &preps[q - 1].weigh;
        weigh->ncolumns = before->ncolumns;
        weigh->columns = before->columns;
        weigh->nparts = before->nparts;
        weigh->parts = before->parts;
        weigh->steps = before->steps;
        weigh->set = before->set;
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
        job->column_at[q] = job->step_at[q] = 0;
        if (!same_weights(job->queries, q)) count_columns(job, q);
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
            fill_weigh(job, job->queries[q].weights, job->columns + job->column_at[q],
                       job->parts + job->column_at[q], job->steps + (size_t)job->step_at[q] * 64, weigh);
        ask_for_next(job, q);
    }
}

/* counts: [count + 1], of which the last is not looked at: each becomes the sum of those before it. Returns the sum of all. */
static uint32_t sum_up(uint32_t *counts, uint32_t count)
{
    uint32_t total = 0;
    for (uint32_t q = 0; q <= count; q++) {
        uint32_t own = q < count ? counts[q] : 0;
        counts[q] = total;
        total += own;
    }
    return total;
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
        status =
            pd_buffer_need(&prepared->counts, 2 * ((size_t)count + 1) * sizeof(uint32_t), "weights", err);
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
                    .column_at = prepared->counts.data,
                    .step_at = (uint32_t *)prepared->counts.data + count + 1};
    status = take_projecting(&job, prepared, err);
    if (status != PD_OK) return status;
    uint32_t tasks = (count + PREP_TASK - 1) / PREP_TASK;
    pd_pool_run(device->pool, tasks, vector_task, &job);
    uint32_t columns = sum_up(job.column_at, count), lines = sum_up(job.step_at, count);
    status = pd_buffer_need(&prepared->columns, columns * sizeof(pd_cpu_column), "weights", err);
    if (status == PD_OK)
        status = pd_buffer_need(&prepared->parts, columns * sizeof(pd_cpu_part), "weights", err);
    if (status == PD_OK) status = pd_buffer_need(&prepared->steps, (size_t)lines * 64, "weights", err);
    if (status != PD_OK) return status;
    job.columns = prepared->columns.data;
    job.parts = prepared->parts.data;
    job.steps = prepared->steps.data;
    pd_pool_run(device->pool, tasks, weight_task, &job);
    share_weights(queries, count, job.preps);
    return PD_OK;
}
