/* (query, list) pairs by list: counted, summed, dealt out. A counting sort, since the order within a list does not matter and
 * there are few lists for many pairs: each pair is read twice and written once, where a radix sort of 16-bit keys reads
 * and writes it twice. Where in its list a pair falls depends on the order of arrival; no answer does. */
#include "scan.cuh"

#define PAIR_THREADS 256u
#define SUM_THREADS  1024u

static __global__ void count_pairs(PD_GRID const pd_cuda_batch batch)
{
    uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < batch.npairs) atomicAdd(&batch.pair_starts[batch.pairs[i].list], 1u);
}

/* By one block: counts become starts, and cursors (NULL: none) are set to them. */
static __global__ void sum_counts(uint32_t *counts, uint32_t *cursors, uint32_t n)
{
    PD_SHARED pd_block_work work;
    uint32_t before = 0;
    for (uint32_t first = 0; first < n + 1; first += blockDim.x) {
        uint32_t i = first + threadIdx.x, total;
        uint32_t own = i < n ? counts[i] : 0;
        uint32_t at = before + pd_block_sum(&work, own, &total);
        if (i < n + 1) counts[i] = at;
        if (cursors && i < n) cursors[i] = at;
        before += total;
    }
}

static __global__ void deal_pairs(PD_GRID const pd_cuda_batch batch, uint32_t *cursors)
{
    uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= batch.npairs) return;
    pd_cuda_pair pair = batch.pairs[i];
    batch.sorted[atomicAdd(&cursors[pair.list], 1u)] = pair;
}

cudaError_t pd_sum_counts(pd_cuda_batch *batch, uint32_t *counts, uint32_t *cursors, uint32_t n)
{
    return PD_LAUNCH(sum_counts, 1, SUM_THREADS, 0, batch->stream, counts, cursors, n);
}

pd_status pd_cuda_pairs(pd_cuda_batch *batch, pd_error *err)
{
    uint32_t nlist = batch->view.nlist, *cursors;
    pd_status status = pd_take(batch, batch->npairs, "sorted pairs", &batch->sorted, err);
    if (status == PD_OK) status = pd_take(batch, (size_t)nlist + 1, "pairs", &batch->pair_starts, err);
    if (status == PD_OK) status = pd_take(batch, nlist, "pairs", &cursors, err);
    if (status != PD_OK) return status;
    uint32_t blocks = pd_blocks_of(batch->npairs, PAIR_THREADS);
    cudaError_t error =
        cudaMemsetAsync(batch->pair_starts, 0, ((size_t)nlist + 1) * sizeof(uint32_t), batch->stream);
    if (error == cudaSuccess && blocks > 0)
        error = PD_LAUNCH(count_pairs, blocks, PAIR_THREADS, 0, batch->stream, *batch);
    if (error == cudaSuccess) error = pd_sum_counts(batch, batch->pair_starts, cursors, nlist);
    if (error == cudaSuccess && blocks > 0)
        error = PD_LAUNCH(deal_pairs, blocks, PAIR_THREADS, 0, batch->stream, *batch, cursors);
    return pd_cuda_check(batch->device, error, "sorting pairs", err);
}
