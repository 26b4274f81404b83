/* Tables whose rows are made on the device: nothing of them crosses the bus but numbers of lists and slots.
 *
 * For benchmarks of sizes that no file brings along; the rows come from a function that enqueues kernels. What is made of
 * them is what the host makes of the same rows: lists by assign.cu, pages byte for byte as pd_page_encode's, exact answers. */
#ifndef PD_CUDA_BUILD_CUH
#define PD_CUDA_BUILD_CUH

#include "cuda.h"

typedef struct pd_cuda_source {
    /* Enqueues what writes rows first .. first + n - 1: [n][dim] of device memory. */
    cudaError_t (*rows)(void *context, uint64_t first, uint32_t n, float *rows, cudaStream_t stream);
    void *context;
    uint32_t dim;
    uint64_t n;
} pd_cuda_source;

/* The value that row `row` holds in byte column c of `size` values. */
static PD_HD inline uint8_t pd_made_value(uint64_t row, uint32_t c, uint32_t size)
{
    uint64_t x = (row + 1) * 0x9e3779b97f4a7c15ull + c * 0xd1b54a32d192ed03ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return (uint8_t)(size ? (x >> 33) % size : 0);
}

/* pd_cuda_assign of the source's rows. lists: [n] of the host */
pd_status pd_cuda_assign_source(pd_cuda_device *device, const float *centroids, uint32_t nlist,
                                const pd_cuda_source *source, uint32_t *lists, pd_error *err);
/* Row i into slots[i] (of the host, distinct, in pages of the lists that rows belong to): code, refine row, the id i, byte columns
 * by pd_made_value. i8 codes that are not projected, no floats and no keys: else INVALID_ARGUMENT. */
pd_status pd_cuda_fill(pd_cuda_index *index, const pd_cuda_source *source, const uint32_t *slots,
                       pd_error *err);
/* Every row of the source, with ids and columns as above, into an exact search; slots of hits are numbers of rows. */
pd_status pd_cuda_exact_source(pd_exact *exact, const pd_cuda_source *source, pd_error *err);
/* Pages of lists, which are made empty first where `clear`, are summarised anew. */
pd_status pd_changes_pages(pd_cuda_index *index, const uint32_t *pages, uint32_t n, int clear, pd_error *err);

#endif
