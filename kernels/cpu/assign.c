/* Nearest centroids: makes the centroids ready, deals out blocks of rows. near.h says how the nearest is found. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cpu.h"
#include "near.h"

#define ROW_TASK 64u

/* The table for an instruction set of ops.h: VNNI where that set has it. */
static const pd_near_ops *near_ops(const char *isa)
{
#if defined(__x86_64__)
    if (strcmp(isa, "avx2") == 0) return &pd_near_ops_avx2;
    __builtin_cpu_init();
    if (strcmp(isa, "portable") != 0)
        return __builtin_cpu_supports("avx512vnni") ? &pd_near_ops_vnni : &pd_near_ops_avx512;
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
    float *values, *mean, *scale, *squares, *length, *losses; /* losses: [padded] loss(e)^2 / ||e||^2 */
    uint8_t *codes;
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

/* Sixteen centroids: values, codes in their block, and what the bounds need. */
static void prepare_block(void *context, uint32_t block, uint32_t worker)
{
    (void)worker;
    near_memory *m = context;
    const pd_near *near = &m->near;
    uint32_t dim = near->dim;
    int8_t codes[PD_MAX_DIM];
    uint8_t *out = m->codes + (size_t)block * 16 * near->dim4;
    memset(out, m->ops->bias, (size_t)16 * near->dim4);
    for (uint32_t l = block * 16; l < block * 16 + 16; l++) {
        m->scale[l] = m->length[l] = m->losses[l] = 0.0f;
        m->squares[l] = FLT_MAX;
        if (l >= near->nlist) continue;
        const float *centroid = m->centroids + (size_t)l * dim;
        float *values = m->values + (size_t)l * near->dim16, sums[3];
        memcpy(values, centroid, dim * sizeof *values);
        memset(values + dim, 0, (near->dim16 - dim) * sizeof *values);
        m->scale[l] = 2.0f * m->ops->quantise(centroid, m->mean, dim, near->dim4, codes, sums);
        m->squares[l] = sums[0] * (1.0f - near->slack);
        m->length[l] = 2.0f * sqrtf(sums[0]) * (1.0f + near->slack);
        m->losses[l] = sums[0] > 0.0f ? sums[2] / sums[0] : 0.0f;
        for (uint32_t d = 0; d < near->dim4; d++)
            out[((size_t)(d / 4) * 16 + l % 16) * 4 + d % 4] = (uint8_t)(codes[d] + m->ops->bias);
    }
}

static pd_status near_open(near_memory *m, pd_cpu_device *device, const float *centroids, uint32_t nlist,
                           uint32_t dim, pd_error *err)
{
    pd_near *near = &m->near;
    m->ops = near_ops(device->ops->isa);
    m->centroids = centroids;
    near->nlist = nlist;
    near->padded = (nlist + PD_NEAR_LISTS - 1) / PD_NEAR_LISTS * PD_NEAR_LISTS;
    near->dim = dim;
    near->dim16 = pd_dim16(dim);
    near->dim4 = (dim + 3) / 4 * 4;
    near->slack = (float)(8 + dim / 2) * FLT_EPSILON;
    /* Every part a multiple of 64 bytes. */
    size_t values = (size_t)nlist * near->dim16 * sizeof(float), codes = (size_t)near->padded * near->dim4;
    size_t column = near->padded * sizeof(float), mean = near->dim16 * sizeof(float);
    pd_status status = pd_buffer_need(&m->buffer, values + codes + 4 * column + mean + dim * sizeof(double),
                                      "centroids", err);
    if (status != PD_OK) return status;
    unsigned char *at = m->buffer.data;
    near->values = m->values = (float *)at;
    near->codes = m->codes = at + values;
    near->scale = m->scale = (float *)(at + values + codes);
    near->squares = m->squares = (float *)(at + values + codes + column);
    near->length = m->length = (float *)(at + values + codes + 2 * column);
    m->losses = (float *)(at + values + codes + 3 * column);
    near->mean = m->mean = (float *)(at + values + codes + 4 * column);
    take_mean(m, (double *)(at + values + codes + 4 * column + mean));
    pd_pool_run(device->pool, near->padded / 16, prepare_block, m);
    float loss = 0.0f;
    for (uint32_t l = 0; l < nlist; l++)
        loss = m->losses[l] > loss ? m->losses[l] : loss;
    near->loss = sqrtf(loss) * (1.0f + near->slack);
    return PD_OK;
}

/* ------------------------------------------------------------------------------------------------ rows --- */

typedef struct assign_job {
    const pd_near_ops *ops;
    const pd_near *near;
    const float *rows;
    uint64_t n;
    uint64_t base; /* first row of this run */
    uint32_t *lists;
    unsigned char *scratch; /* [threads][scratch_bytes] */
    size_t scratch_bytes;
} assign_job;

/* A worker's memory: values, codes, bounds of PD_NEAR_ROWS rows. */
static size_t scratch_of(const pd_near *near)
{
    size_t row = near->dim16 * sizeof(float) + near->dim4 * sizeof(int16_t) + near->padded * sizeof(float);
    return (PD_NEAR_ROWS * row + 63) / 64 * 64;
}

static void assign_task(void *context, uint32_t task, uint32_t worker)
{
    assign_job *job = context;
    const pd_near *near = job->near;
    float *values = (float *)(job->scratch + worker * job->scratch_bytes);
    float *bounds = values + (size_t)PD_NEAR_ROWS * near->dim16;
    int16_t *codes = (int16_t *)(bounds + (size_t)PD_NEAR_ROWS * near->padded);
    uint64_t first = job->base + (uint64_t)task * ROW_TASK;
    uint64_t end = job->n - first < ROW_TASK ? job->n : first + ROW_TASK;
    for (; first < end; first += PD_NEAR_ROWS) {
        uint32_t n = end - first < PD_NEAR_ROWS ? (uint32_t)(end - first) : PD_NEAR_ROWS;
        pd_near_row rows[PD_NEAR_ROWS];
        job->ops->prepare(near, job->rows + first * near->dim, n, values, codes, rows);
        job->ops->nearest(near, rows, n, bounds, job->lists + first);
    }
}

/* Tasks are counted in 32 bits; rows are not. */
#define RUN_ROWS ((uint64_t)ROW_TASK << 24)

pd_status pd_cpu_assign(pd_device *base, const float *centroids, uint32_t nlist, uint32_t dim,
                        const float *rows, uint64_t n, uint32_t *lists, pd_error *err)
{
    pd_cpu_device *device = (pd_cpu_device *)base;
    near_memory memory = {0};
    pd_buffer scratch = {0};
    pd_status status = near_open(&memory, device, centroids, nlist, dim, err);
    size_t scratch_bytes = scratch_of(&memory.near);
    if (status == PD_OK)
        status = pd_buffer_need(&scratch, pd_pool_threads(device->pool) * scratch_bytes, "rows", err);
    assign_job job = {.ops = memory.ops,
                      .near = &memory.near,
                      .rows = rows,
                      .n = n,
                      .lists = lists,
                      .scratch = scratch.data,
                      .scratch_bytes = scratch_bytes};
    for (; status == PD_OK && job.base < n; job.base += RUN_ROWS) {
        uint64_t left = n - job.base < RUN_ROWS ? n - job.base : RUN_ROWS;
        pd_pool_run(device->pool, (uint32_t)((left + ROW_TASK - 1) / ROW_TASK), assign_task, &job);
    }
    pd_buffer_free(&memory.buffer);
    pd_buffer_free(&scratch);
    return status;
}
