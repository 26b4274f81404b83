/* The rows of a build: read where they lie, and looked at once, value by value, before anything is made of them.
 *
 * Rows may be of four types and lie anywhere (usually in a mapped file). Under cosine they are normalised each time that they are
 * read, unless they come normalised.
 */
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "build_impl.h"
#include "f16.h"
#include "score.h"

/* Beyond this a square may not be finite in f32 once summed over the dimensions. */
#define LARGEST_VALUE 1e16f
#define LARGEST_F16   65504.0f
#define NORM_SLACK    1e-2 /* of the square of a norm: what f16 makes of rows of the norm 1 lies well within */
#define TASK_ROWS     512u
#define TICK_TASKS    64u /* tasks between two questions whether to go on */

uint64_t pd_builder_id(const pd_builder *b, uint64_t row)
{
    return b->in->ids ? b->in->ids[row] : row;
}

static void convert(const pd_builder *b, uint64_t row, float *out)
{
    size_t at = (size_t)row * b->dim;
    switch (b->in->dtype) {
    case PD_DTYPE_F16: {
        const unsigned char *from = (const unsigned char *)b->in->rows + at * 2;
        for (uint32_t d = 0; d < b->dim; d++) {
            pd_f16 half;
            memcpy(&half, from + (size_t)d * 2, 2);
            out[d] = pd_f16_to_f32(half);
        }
        break;
    }
    case PD_DTYPE_I8:
        for (uint32_t d = 0; d < b->dim; d++)
            out[d] = (float)((const int8_t *)b->in->rows)[at + d];
        break;
    case PD_DTYPE_U8:
        for (uint32_t d = 0; d < b->dim; d++)
            out[d] = (float)((const uint8_t *)b->in->rows)[at + d];
        break;
    default: /* f32; others were refused. Mapped bytes may begin anywhere, so no float pointer. */
        memcpy(out, (const unsigned char *)b->in->rows + at * 4, (size_t)b->dim * 4);
    }
}

void pd_builder_row(const pd_builder *b, uint64_t row, float *out)
{
    convert(b, row, out);
    if (b->shape.metric == PD_COSINE && !b->in->normalised) pd_normalise(out, b->dim);
}

typedef struct rows_job {
    const pd_builder *b;
    uint64_t first, n;
    const uint64_t *which;
    float *out;
} rows_job;

static void rows_task(void *context, uint32_t task, uint32_t worker)
{
    (void)worker;
    const rows_job *job = context;
    uint64_t end = (uint64_t)(task + 1) * TASK_ROWS;
    for (uint64_t i = (uint64_t)task * TASK_ROWS; i < end && i < job->n; i++)
        pd_builder_row(job->b, job->which ? job->which[i] : job->first + i, job->out + i * job->b->dim);
}

void pd_builder_rows(const pd_builder *b, uint64_t first, const uint64_t *which, uint64_t n, float *out)
{
    rows_job job = {.b = b, .first = first, .n = n, .which = which, .out = out};
    pd_pool_run(b->pool, (uint32_t)((n + TASK_ROWS - 1) / TASK_ROWS), rows_task, &job);
}

/* ------------------------------------------------------------------------------------------------ validate --- */

/* The first value that such whole numbers cannot keep; dim: there is none. */
static uint32_t not_whole(const float *values, uint32_t dim, pd_refine refine)
{
    float low = refine == PD_REFINE_I8 ? -128.0f : 0.0f, high = refine == PD_REFINE_I8 ? 127.0f : 255.0f;
    uint32_t d = 0;
    while (d < dim && values[d] == rintf(values[d]) && values[d] >= low && values[d] <= high)
        d++;
    return d;
}

static pd_status check_values(const pd_builder *b, uint64_t row, float most, float *values, pd_error *err)
{
    convert(b, row, values);
    float largest = 0.0f;
    int finite = 1;
    for (uint32_t d = 0; d < b->dim; d++) {
        float size = fabsf(values[d]);
        finite &= size <= most; /* false for a NaN */
        largest = size > largest ? size : largest;
    }
    if (!finite) {
        uint32_t d = 0;
        while (fabsf(values[d]) <= most)
            d++;
        const char *what = isnan(values[d])   ? "is not a number"
                           : isinf(values[d]) ? "is infinite"
                                              : "is too large for the precision that the table keeps";
        return pd_fail(err, PD_INVALID_ARGUMENT, "row %llu, column %u %s", (unsigned long long)row, d, what);
    }
    uint32_t d = b->refine == PD_REFINE_I8 || b->refine == PD_REFINE_U8 ? not_whole(values, b->dim, b->refine)
                                                                        : b->dim;
    if (d < b->dim)
        return pd_fail(err, PD_INVALID_ARGUMENT,
                       "row %llu, column %u is %g, no whole number from %d to %d as refine = \"%s\" keeps",
                       (unsigned long long)row, d, (double)values[d], b->refine == PD_REFINE_I8 ? -128 : 0,
                       b->refine == PD_REFINE_I8 ? 127 : 255, pd_refine_name(b->refine));
    if (b->schema->metric != PD_COSINE) return PD_OK;
    if (b->in->normalised && fabs((double)pd_dot(values, values, b->dim) - 1) > NORM_SLACK)
        return pd_fail(err, PD_INVALID_ARGUMENT, "row %llu is not normalised", (unsigned long long)row);
    if (largest == 0.0f || !pd_normalise(values, b->dim))
        return pd_fail(err, PD_INVALID_ARGUMENT, "row %llu is a zero vector, which has no cosine",
                       (unsigned long long)row);
    return PD_OK;
}

typedef struct check_job {
    const pd_builder *b;
    uint64_t first, end;
    float most;
    float *values;            /* [threads][dim] */
    uint64_t bad[TICK_TASKS]; /* by task: the first row that is refused, UINT64_MAX */
} check_job;

static void check_task(void *context, uint32_t task, uint32_t worker)
{
    check_job *job = context;
    float *values = job->values + (size_t)worker * job->b->dim;
    uint64_t row = job->first + (uint64_t)task * TASK_ROWS, end = row + TASK_ROWS;
    if (end > job->end) end = job->end;
    while (row < end && !check_values(job->b, row, job->most, values, NULL))
        row++;
    job->bad[task] = row < end ? row : UINT64_MAX;
}

/* Rows from job->first on, as many as there are tasks for. */
static pd_status check_some(check_job *job, pd_error *err)
{
    uint32_t tasks = (uint32_t)((job->end - job->first + TASK_ROWS - 1) / TASK_ROWS);
    pd_pool_run(job->b->pool, tasks, check_task, job);
    for (uint32_t task = 0; task < tasks; task++)
        if (job->bad[task] != UINT64_MAX)
            return check_values(job->b, job->bad[task], job->most, job->values, err);
    return PD_OK;
}

static pd_status note_id(pd_builder *b, uint64_t row, pd_error *err)
{
    uint64_t id = b->in->ids[row];
    if (id == UINT64_MAX)
        return pd_fail(err, PD_INVALID_ARGUMENT,
                       "row %llu has the id %llu, which stands for no row in answers",
                       (unsigned long long)row, (unsigned long long)id);
    uint32_t before = pd_idmap_put(&b->rows_of, id, (uint32_t)row);
    if (before == PD_IDMAP_NONE) return PD_OK;
    return pd_fail(err, PD_INVALID_ARGUMENT, "rows %u and %llu have the same id %llu", before,
                   (unsigned long long)row, (unsigned long long)id);
}

float pd_build_largest(const pd_schema *s, pd_refine refine)
{
    if (s->metric == PD_COSINE) return 3e38f;
    int half = s->source == PD_REFINE_F16 || refine == PD_REFINE_F16 || s->code == PD_CODE_F16;
    return half ? LARGEST_F16 : LARGEST_VALUE;
}

pd_status pd_builder_validate(pd_builder *b, pd_error *err)
{
    check_job job = {.b = b, .most = pd_build_largest(b->schema, b->refine)};
    job.values = malloc((size_t)b->threads * b->dim * sizeof *job.values);
    if (!job.values) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for a row");
    pd_status status = b->in->ids ? pd_idmap_open(&b->rows_of, b->count, err) : PD_OK;
    for (; !status && job.first < b->count; job.first = job.end) {
        uint64_t most = (uint64_t)TICK_TASKS * TASK_ROWS;
        job.end = b->count - job.first < most ? b->count : job.first + most;
        status = pd_builder_tick(b, "validate", job.first, b->count, err);
        if (!status) status = check_some(&job, err);
        for (uint64_t row = job.first; !status && b->in->ids && row < job.end; row++)
            status = note_id(b, row, err);
    }
    free(job.values);
    return status;
}

/* ------------------------------------------------------------------------------------------------ whole numbers --- */

typedef struct whole_job {
    const pd_builder *b;
    uint64_t first, end;
    float *values; /* [threads][dim] */
    atomic_int lost;
} whole_job;

static void whole_task(void *context, uint32_t task, uint32_t worker)
{
    whole_job *job = context;
    const pd_builder *b = job->b;
    float *values = job->values + (size_t)worker * b->dim;
    uint64_t row = job->first + (uint64_t)task * TASK_ROWS, end = row + TASK_ROWS;
    for (; row < end && row < job->end && !atomic_load_explicit(&job->lost, memory_order_relaxed); row++) {
        convert(b, row, values);
        if (not_whole(values, b->dim, b->in->refine_was) < b->dim) atomic_store(&job->lost, 1);
    }
}

pd_status pd_builder_refine(pd_builder *b, pd_error *err)
{
    pd_refine was = b->in->refine_was;
    if (b->schema->refine_said || b->schema->metric == PD_COSINE || b->refine != PD_REFINE_F16) return PD_OK;
    if (was != PD_REFINE_I8 && was != PD_REFINE_U8) return PD_OK;
    whole_job job = {.b = b};
    job.values = malloc((size_t)b->threads * b->dim * sizeof *job.values);
    if (!job.values) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for a row");
    pd_status status = PD_OK;
    for (; !status && job.first < b->count && !atomic_load(&job.lost); job.first = job.end) {
        uint64_t most = (uint64_t)TICK_TASKS * TASK_ROWS;
        job.end = b->count - job.first < most ? b->count : job.first + most;
        status = pd_builder_tick(b, "validate", 0, b->count, err);
        if (!status)
            pd_pool_run(b->pool, (uint32_t)((job.end - job.first + TASK_ROWS - 1) / TASK_ROWS), whole_task,
                        &job);
    }
    if (!status && !atomic_load(&job.lost)) b->refine = was;
    free(job.values);
    return status;
}
