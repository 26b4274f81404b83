/* Nearest centroids: makes the centroids ready, deals out blocks of rows. near.h says how the nearest is found. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cpu.h"
#include "near.h"

/* The table for an instruction set of ops.h. */
static const pd_near_ops *near_ops(const char *isa)
{
#if defined(__x86_64__)
    if (strcmp(isa, "avx512") == 0) return &pd_near_ops_avx512;
    if (strcmp(isa, "avx2") == 0) return &pd_near_ops_avx2;
#else
    (void)isa;
#endif
    return &pd_near_ops_portable;
}

/* ------------------------------------------------------------------------------------------------ centroids --- */

typedef struct near_memory {
    pd_near near;
    const pd_near_ops *ops;
    const float *centroids; /* [nlist][dim], the caller's */
    pd_buffer buffer;
    float *values, *mean, *scale, *squares, *length, *losses; /* losses: loss(e)^2 / ||e||^2 */
    int8_t *codes;
} near_memory;

static void take_mean(near_memory *m, double *sums)
{
    uint32_t nlist = m->near.nlist, dim = m->near.dim;
    memset(sums, 0, dim * sizeof *sums);
    for (uint32_t l = 0; l < nlist; l++)
        for (uint32_t d = 0; d < dim; d++)
            sums[d] += (double)m->centroids[(size_t)l * dim + d];
    for (uint32_t d = 0; d < dim; d++)
        m->mean[d] = (float)(sums[d] / nlist);
}

/* A page of centroids: values, codes, and what the bounds need. */
static void prepare_page(void *context, uint32_t page, uint32_t worker)
{
    (void)worker;
    near_memory *m = context;
    const pd_near *near = &m->near;
    uint32_t dim = near->dim, dim4 = near->groups * 4;
    int8_t codes[PD_MAX_DIM], *out = m->codes + (size_t)page * PD_PAGE_ROWS * dim4;
    memset(out, 0, (size_t)PD_PAGE_ROWS * dim4);
    for (uint32_t place = 0; place < PD_PAGE_ROWS; place++) {
        uint32_t l = page * PD_PAGE_ROWS + place;
        m->scale[l] = m->length[l] = m->losses[l] = 0.0f;
        m->squares[l] = FLT_MAX;
        if (l >= near->nlist) continue;
        const float *centroid = m->centroids + (size_t)l * dim;
        float *values = m->values + (size_t)l * near->dim16, sums[3];
        memcpy(values, centroid, dim * sizeof *values);
        memset(values + dim, 0, (near->dim16 - dim) * sizeof *values);
        m->scale[l] = 2.0f * m->ops->quantise(centroid, m->mean, dim, near->dim64, codes, sums);
        m->squares[l] = sums[0] * (1.0f - near->slack);
        m->length[l] = 2.0f * sqrtf(sums[0]) * (1.0f + near->slack);
        m->losses[l] = sums[0] > 0.0f ? sums[2] / sums[0] : 0.0f;
        for (uint32_t d = 0; d < dim4; d += 4)
            memcpy(out + ((size_t)d * PD_PAGE_ROWS + place * 4), codes + d, 4);
    }
}

static pd_status near_open(near_memory *m, pd_cpu_device *device, const float *centroids, uint32_t nlist,
                           uint32_t dim, pd_error *err)
{
    pd_near *near = &m->near;
    m->ops = near_ops(device->ops->isa);
    m->centroids = centroids;
    near->nlist = nlist;
    near->pages = pd_pages_for(nlist);
    near->dim = dim;
    near->dim16 = pd_dim16(dim);
    near->dim64 = (dim + 63) / 64 * 64;
    near->groups = (dim + 3) / 4;
    near->slack = (float)(8 + dim / 2) * FLT_EPSILON;
    /* Every part a multiple of 64 bytes. */
    size_t values = (size_t)nlist * near->dim16 * sizeof(float), mean = near->dim16 * sizeof(float);
    size_t codes = (size_t)near->pages * PD_PAGE_ROWS * near->groups * 4;
    size_t column = near->pages * PD_PAGE_ROWS * sizeof(float);
    pd_status status = pd_buffer_need(&m->buffer, values + codes + 4 * column + mean + dim * sizeof(double),
                                      "centroids", err);
    if (status != PD_OK) return status;
    unsigned char *at = m->buffer.data;
    near->values = m->values = (float *)at;
    near->codes = m->codes = (int8_t *)(at + values);
    near->scale = m->scale = (float *)(at + values + codes);
    near->squares = m->squares = (float *)(at + values + codes + column);
    near->length = m->length = (float *)(at + values + codes + 2 * column);
    m->losses = (float *)(at + values + codes + 3 * column);
    near->mean = m->mean = (float *)(at + values + codes + 4 * column);
    take_mean(m, (double *)(at + values + codes + 4 * column + mean));
    pd_pool_run(device->pool, near->pages, prepare_page, m);
    float loss = 0.0f;
    for (uint32_t l = 0; l < nlist; l++)
        loss = m->losses[l] > loss ? m->losses[l] : loss;
    near->loss = sqrtf(loss) * (1.0f + near->slack);
    return PD_OK;
}

/* ------------------------------------------------------------------------------------------------ rows --- */

typedef struct assign_job {
    const pd_near_ops *ops;
    const pd_cpu_i8 *i8;
    const pd_near *near;
    const float *rows;
    uint64_t n;
    uint64_t base; /* first row of this run */
    uint32_t *lists;
    unsigned char *scratch; /* [threads][scratch_bytes] */
    size_t scratch_bytes;
} assign_job;

/* A worker's memory, for PD_GROUP rows: packed codes, bounds, values. Every part is a multiple of 64 bytes. */
static size_t scratch_of(const pd_near *near, const pd_cpu_i8 *i8)
{
    return PD_GROUP * (pd_packed_bytes(i8, near->dim64) +
                       (near->pages * (size_t)(PD_PAGE_ROWS / 2) + near->dim16) * sizeof(float));
}

static void assign_task(void *context, uint32_t task, uint32_t worker)
{
    assign_job *job = context;
    const pd_near *near = job->near;
    size_t packed_bytes = pd_packed_bytes(job->i8, near->dim64);
    unsigned char *packed = job->scratch + worker * job->scratch_bytes;
    float *bounds = (float *)(packed + PD_GROUP * packed_bytes);
    float *values = bounds + PD_GROUP * (size_t)near->pages * (PD_PAGE_ROWS / 2);
    uint64_t first = job->base + (uint64_t)task * PD_GROUP;
    uint32_t n = job->n - first < PD_GROUP ? (uint32_t)(job->n - first) : PD_GROUP;
    pd_near_row rows[PD_GROUP];
    for (uint32_t i = 0; i < n; i++) {
        const float *row = job->rows + (first + i) * near->dim;
        float *own = values + (size_t)i * near->dim16, sums[3];
        int8_t codes[PD_MAX_DIM];
        memcpy(own, row, near->dim * sizeof *row);
        memset(own + near->dim, 0, (near->dim16 - near->dim) * sizeof *row);
        rows[i].values = own;
        rows[i].scale = job->ops->quantise(row, near->mean, near->dim, near->dim64, codes, sums);
        rows[i].squares = sums[0];
        rows[i].reach = (sqrtf(sums[2]) + sqrtf(sums[1]) * near->loss) * (1.0f + near->slack);
        job->i8->pack(codes, near->dim64, packed + i * packed_bytes);
    }
    job->ops->nearest(near, job->i8, rows, packed, n, bounds, job->lists + first);
}

/* Tasks are counted in 32 bits; rows are not. */
#define RUN_ROWS ((uint64_t)PD_GROUP << 24)

pd_status pd_cpu_assign(pd_device *base, const float *centroids, uint32_t nlist, uint32_t dim,
                        const float *rows, uint64_t n, uint32_t *lists, pd_error *err)
{
    pd_cpu_device *device = (pd_cpu_device *)base;
    near_memory memory = {0};
    pd_buffer scratch = {0};
    pd_status status = near_open(&memory, device, centroids, nlist, dim, err);
    size_t scratch_bytes = scratch_of(&memory.near, device->i8);
    if (status == PD_OK)
        status = pd_buffer_need(&scratch, pd_pool_threads(device->pool) * scratch_bytes, "rows", err);
    assign_job job = {.ops = memory.ops,
                      .i8 = device->i8,
                      .near = &memory.near,
                      .rows = rows,
                      .n = n,
                      .lists = lists,
                      .scratch = scratch.data,
                      .scratch_bytes = scratch_bytes};
    for (; status == PD_OK && job.base < n; job.base += RUN_ROWS) {
        uint64_t left = n - job.base < RUN_ROWS ? n - job.base : RUN_ROWS;
        pd_pool_run(device->pool, (uint32_t)((left + PD_GROUP - 1) / PD_GROUP), assign_task, &job);
    }
    if (device->i8->rest) device->i8->rest();
    pd_buffer_free(&memory.buffer);
    pd_buffer_free(&scratch);
    return status;
}
