/* The rows of pados-bench --generate, made by a kernel: bench/law.h on the device. */
#ifndef PD_GPU_LAW_SOURCE_CUH
#define PD_GPU_LAW_SOURCE_CUH

#include "build.cuh"

#define LAW_CALL static PD_HD inline
extern "C" {
#include "../../bench/law.h"
}

#define LAW_THREADS 128u

typedef struct law_source {
    law host, device; /* the second's arrays are the device's */
    void *memory;
    pd_cuda_source source;
} law_source;

/* A thread a row. */
__global__ static void make_law_rows(law l, uint64_t first, uint32_t n, float *rows)
{
    uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) law_row_twice(&l, LAW_ROWS, first + i, rows + (size_t)i * l.dim);
}

static cudaError_t law_source_rows(void *context, uint64_t first, uint32_t n, float *rows,
                                   cudaStream_t stream)
{
    const law_source *s = (const law_source *)context;
    return PD_LAUNCH(make_law_rows, pd_blocks_of(n, LAW_THREADS), LAW_THREADS, 0, stream, s->device, first, n,
                     rows);
}

static inline void law_source_close(law_source *s)
{
    if (s->memory) cudaFree(s->memory);
    law_close(&s->host);
    memset(s, 0, sizeof *s);
}

static inline pd_status law_source_open(pd_cuda_device *device, uint64_t seed, uint32_t dim, uint64_t rows,
                                        law_source *s, pd_error *err)
{
    memset(s, 0, sizeof *s);
    pd_status status = law_open(seed, dim, &s->host, err);
    if (status != PD_OK) return status;
    size_t clouds = (size_t)LAW_DEPARTMENTS * LAW_STYLES;
    s->device = s->host;
    const pd_cuda_piece pieces[] = {
        {s->host.spectrum, dim * sizeof(float), (const void **)&s->device.spectrum},
        {s->host.turns, LAW_DEPARTMENTS * dim * sizeof(float), (const void **)&s->device.turns},
        {s->host.centres, clouds * dim * sizeof(float), (const void **)&s->device.centres},
        {s->host.widths, clouds * sizeof(float), (const void **)&s->device.widths},
    };
    status = pd_cuda_enter(device, err);
    if (status == PD_OK)
        status =
            pd_cuda_place(device, device->side.stream, pieces, 4, "taking the law of rows", &s->memory, err);
    s->source.rows = law_source_rows;
    s->source.context = s;
    s->source.dim = dim;
    s->source.n = rows;
    if (status != PD_OK) law_source_close(s);
    return status;
}

#endif
