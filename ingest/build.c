/* Building a version, stage by stage:
 *
 *   validate   every value is looked at once, ids are put in a map that finds the second of a pair
 *   attributes the CSV is joined by id, values get their numbers, knots and representatives are chosen   build_columns.c
 *   train      centroids from a seeded sample                                                            build_lists.c
 *   assign     each row's nearest centroid, then order: by list, by the leading attribute, by id
 *   write      pages in slot order, sequentially, into FOLDER.tmp; sync, rename                          build_write.c
 *
 * The same input and seed give the same bytes: samples are drawn by a written generator, ties are broken by id, and no
 * stage depends on how many threads there are: what is shared out is either by itself for each row, or added up by one
 * thread in a fixed order. Rows are read where they lie (usually a mapped file) as often as they are needed; nothing of
 * the size of the vectors is held besides the training sample.
 */
#include "build.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "build_impl.h"
#include "f16.h"
#include "score.h"

/* Beyond this a square may not be finite in f32 once summed over the dimensions. */
#define LARGEST_VALUE 1e16f
#define LARGEST_F16   65504.0f
#define TASK_ROWS     512u
#define TICK_TASKS    64u /* tasks between two questions whether to go on */
#define MOST_THREADS  1024

uint32_t pd_auto_nlist(uint64_t rows)
{
    double want = 2.0 * sqrt((double)rows);
    double most = (double)rows / 39.0;
    uint32_t nlist = (uint32_t)(want < most ? want : most);
    if (nlist > 8) nlist -= nlist % 8;
    return nlist < 1 ? 1 : nlist;
}

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
    if (b->shape.metric == PD_COSINE) pd_normalise(out, b->dim);
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

pd_status pd_builder_tick(const pd_builder *b, const char *stage, uint64_t done, uint64_t total,
                          pd_error *err)
{
    if (b->progress && b->progress(b->context, stage, done, total))
        return pd_fail(err, PD_CANCELLED, "the build was stopped while it did \"%s\"", stage);
    return PD_OK;
}

/* ------------------------------------------------------------------------------------------------ validate --- */

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
    float low = b->refine == PD_REFINE_I8 ? -128.0f : 0.0f,
          high = b->refine == PD_REFINE_I8 ? 127.0f : 255.0f;
    for (uint32_t d = 0; (b->refine == PD_REFINE_I8 || b->refine == PD_REFINE_U8) && d < b->dim; d++)
        if (values[d] != rintf(values[d]) || values[d] < low || values[d] > high)
            return pd_fail(
                err, PD_INVALID_ARGUMENT,
                "row %llu, column %u is %g, no whole number from %g to %g as refine = \"%s\" keeps",
                (unsigned long long)row, d, (double)values[d], (double)low, (double)high,
                pd_refine_name(b->refine));
    if (b->schema->metric == PD_COSINE && (largest == 0.0f || !pd_normalise(values, b->dim)))
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

static pd_status validate(pd_builder *b, pd_error *err)
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

/* ------------------------------------------------------------------------------------------------ the whole --- */

static pd_status check_input(pd_builder *b, pd_error *err)
{
    const pd_build_input *in = b->in;
    pd_status status = pd_name_check("table", in->table, err);
    if (status) return status;
    if (in->dtype != PD_DTYPE_F32 && in->dtype != PD_DTYPE_F16 && in->dtype != PD_DTYPE_I8 &&
        in->dtype != PD_DTYPE_U8)
        return pd_fail(err, PD_INVALID_ARGUMENT, "rows of %s cannot be searched; f32, f16, i8 and u8 can",
                       pd_dtype_name(in->dtype));
    if (in->dim == 0 || in->dim > PD_MAX_DIM)
        return pd_fail(err, PD_INVALID_ARGUMENT, "the rows have %u columns; 1 to %u can be kept", in->dim,
                       PD_MAX_DIM);
    if (in->schema->dim && in->schema->dim != in->dim)
        return pd_fail(err, PD_INVALID_ARGUMENT,
                       "the rows have %u columns, the schema of \"%s\" says dim = %u", in->dim, in->table,
                       in->schema->dim);
    if (in->version > INT64_MAX || in->parent > INT64_MAX || in->sequence > INT64_MAX)
        return pd_fail(err, PD_INVALID_ARGUMENT, "version %llu, parent %llu, sequence %llu: one is too large",
                       (unsigned long long)in->version, (unsigned long long)in->parent,
                       (unsigned long long)in->sequence);
    uint32_t asked = in->nlist ? in->nlist : in->schema->nlist;
    uint32_t nlist = asked ? asked : pd_auto_nlist(in->count);
    if (in->schema->index && in->count && asked && (asked > in->count || asked > PD_MAX_NLIST))
        return pd_fail(err, PD_INVALID_ARGUMENT, "%u lists were asked for, but there are %llu rows", asked,
                       (unsigned long long)in->count);
    if (!in->schema->index) nlist = 0;
    if (in->schema->index && in->count == 0) nlist = 1;
    /* Slots are 32 bits; each list may leave a page partly empty. */
    if (in->count / PD_PAGE_ROWS + nlist + 1 > PD_MAX_PAGES)
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "%llu rows are more than a table can hold",
                       (unsigned long long)in->count);
    b->nlist = nlist;
    b->refine = in->schema->refine;
    /* Rows that come as small whole numbers are kept as those: nothing is lost, in half of the bytes. */
    if (!in->schema->refine_said && b->refine == PD_REFINE_F16 && in->schema->metric != PD_COSINE) {
        if (in->dtype == PD_DTYPE_I8) b->refine = PD_REFINE_I8;
        if (in->dtype == PD_DTYPE_U8) b->refine = PD_REFINE_U8;
    }
    b->count = in->count;
    b->dim = in->dim;
    b->now = in->now > 0 ? in->now : pd_days_now();
    return PD_OK;
}

static pd_status run(pd_builder *b, const char *folder, pd_error *err)
{
    pd_status status = validate(b, err);
    if (!status) status = pd_builder_columns(b, err);
    if (status) return status;
    pd_idmap_close(&b->rows_of);
    pd_schema_shape(b->schema, b->nlist, &b->shape);
    b->shape.refine = b->refine;
    status = pd_layout_of(&b->shape, &b->layout, err);
    if (!status) status = pd_builder_lists(b, err);
    if (!status) status = pd_builder_write(b, folder, err);
    return status;
}

/* As many threads as the device has; the whole machine where it does not say. */
static pd_status open_pool(pd_builder *b, pd_error *err)
{
    pd_device_info about;
    pd_device_info_of(b->device, &about);
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    b->threads = about.threads ? about.threads : 1;
    if (!about.threads && online > 0) b->threads = online < MOST_THREADS ? (uint32_t)online : MOST_THREADS;
    return pd_pool_open(b->threads, about.idle, &b->pool, err);
}

static void builder_close(pd_builder *b)
{
    if (b->pool) pd_pool_close(b->pool);
    pd_idmap_close(&b->rows_of);
    pd_schema_free(b->schema);
    free(b->bytes);
    free(b->floats);
    free(b->keys);
    free(b->centroids);
    free(b->directions);
    pd_projection_close(b->projection);
    free(b->list_of);
    free(b->order);
    free(b->list_rows);
    free(b->offsets);
    free(b->group_first);
}

/* FOLDER.tmp, new and empty. One that a crash left behind goes first. */
static pd_status make_folder(const char *folder, char *fresh, pd_error *err)
{
    struct stat about;
    int used = snprintf(fresh, PD_PATH_ROOM, "%s.tmp", folder);
    if (used < 0 || used >= PD_PATH_ROOM)
        return pd_fail(err, PD_INVALID_ARGUMENT, "the version's path is too long");
    if (lstat(folder, &about) == 0) return pd_fail(err, PD_ALREADY_EXISTS, "%s is already there", folder);
    if (lstat(fresh, &about) == 0) {
        pd_status status = pd_folder_remove(fresh, err);
        if (status) return status;
    }
    return mkdir(fresh, 0755) != 0 ? pd_fail_errno(err, "make the folder", fresh) : PD_OK;
}

pd_status pd_build(const pd_build_input *input, const char *folder, pd_device *device, pd_progress progress,
                   void *context, pd_error *err)
{
    pd_builder b = {.in = input, .device = device, .progress = progress, .context = context};
    char fresh[PD_PATH_ROOM];
    pd_status status = check_input(&b, err);
    if (status) return status;
    status = pd_schema_copy(input->schema, &b.schema, err);
    if (status) return status;
    b.schema->dim = b.dim;
    b.shape.metric = b.schema->metric;
    status = open_pool(&b, err);
    if (!status) status = make_folder(folder, fresh, err);
    if (status) goto err_after_schema;
    status = run(&b, fresh, err);
    if (!status) status = pd_folder_sync(fresh, err);
    if (!status && rename(fresh, folder) != 0) status = pd_fail_errno(err, "rename to", folder);
    if (status)
        pd_folder_remove(fresh, NULL);
    else
        status = pd_folder_sync_parent(folder, err);

err_after_schema:
    builder_close(&b);
    return status;
}
