/* Nearest centroids: ||x - c||^2 is least where 2 <x, c> - ||c||^2 is most, so that a distance costs one dot. A task is
 * a block of rows against all centroids, a tile of centroids at a time. */
#include <stdlib.h>
#include <string.h>

#include "cpu.h"

#define ROW_TASK  64u
#define LIST_TILE 64u

typedef struct assign_job {
    const pd_cpu_ops *ops;
    const float *centroids; /* [nlist][dim16] */
    const float *squares;   /* [nlist] */
    const float *rows;
    uint64_t n;
    uint64_t base; /* first row of this run */
    uint32_t nlist, dim;
    uint32_t *lists;
    float *tiles; /* [threads][ROW_TASK][dim16] */
} assign_job;

static void assign_task(void *context, uint32_t task, uint32_t worker)
{
    assign_job *job = context;
    uint32_t dim16 = pd_dim16(job->dim);
    uint64_t first = job->base + (uint64_t)task * ROW_TASK;
    uint32_t n = job->n - first < ROW_TASK ? (uint32_t)(job->n - first) : ROW_TASK;
    float *tile = job->tiles + (size_t)worker * ROW_TASK * dim16;
    job->ops->pad_f32(job->rows + first * job->dim, n, job->dim, tile);
    const float *rows[ROW_TASK];
    float best[ROW_TASK], dots[ROW_TASK * LIST_TILE];
    uint32_t *lists = job->lists + first;
    for (uint32_t i = 0; i < n; i++) {
        rows[i] = tile + (size_t)i * dim16;
        best[i] = -FLT_MAX;
        lists[i] = 0;
    }
    for (uint32_t list = 0; list < job->nlist; list += LIST_TILE) {
        uint32_t nlists = job->nlist - list < LIST_TILE ? job->nlist - list : LIST_TILE;
        job->ops->lanes(rows, n, job->centroids + (size_t)list * dim16, nlists, dim16, 0, dots, LIST_TILE);
        for (uint32_t i = 0; i < n; i++) {
            for (uint32_t l = 0; l < nlists; l++) {
                float near = 2.0f * dots[i * LIST_TILE + l] - job->squares[list + l];
                if (near > best[i]) {
                    best[i] = near;
                    lists[i] = list + l;
                }
            }
        }
    }
}

/* Tasks are counted in 32 bits; rows are not. */
#define RUN_ROWS ((uint64_t)ROW_TASK << 24)

pd_status pd_cpu_assign(pd_device *base, const float *centroids, uint32_t nlist, uint32_t dim,
                        const float *rows, uint64_t n, uint32_t *lists, pd_error *err)
{
    pd_cpu_device *device = (pd_cpu_device *)base;
    size_t dim16 = pd_dim16(dim);
    pd_buffer padded = {0}, tiles = {0};
    size_t tile = pd_pool_threads(device->pool) * (size_t)ROW_TASK * dim16;
    pd_status status = pd_buffer_need(&padded, nlist * (dim16 + 1) * sizeof(float), "centroids", err);
    if (status == PD_OK) status = pd_buffer_need(&tiles, tile * sizeof(float), "rows", err);
    if (status != PD_OK) goto done;
    float *squares = (float *)padded.data + nlist * dim16;
    device->ops->pad_f32(centroids, nlist, dim, padded.data);
    for (uint32_t list = 0; list < nlist; list++) {
        const float *centroid = (const float *)padded.data + list * dim16;
        device->ops->lanes(&centroid, 1, centroid, 1, (uint32_t)dim16, 0, &squares[list], 1);
    }
    assign_job job = {.ops = device->ops,
                      .centroids = padded.data,
                      .squares = squares,
                      .rows = rows,
                      .n = n,
                      .nlist = nlist,
                      .dim = dim,
                      .lists = lists,
                      .tiles = tiles.data};
    for (; job.base < n; job.base += RUN_ROWS) {
        uint64_t left = n - job.base < RUN_ROWS ? n - job.base : RUN_ROWS;
        pd_pool_run(device->pool, (uint32_t)((left + ROW_TASK - 1) / ROW_TASK), assign_task, &job);
    }
done:
    pd_buffer_free(&padded);
    pd_buffer_free(&tiles);
    return status;
}
