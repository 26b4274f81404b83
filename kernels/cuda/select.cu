/* A query's best candidates out of what the scan's blocks left: the pieces are moved together and cut down to `keep` under the
 * total order, a block a query. */
#include "scan.cuh"

#define SELECT_THREADS 256u

/* Moves the pieces behind `count` candidates to them. Returns how many there are. */
static __device__ uint32_t join(const pd_scan &scan, uint32_t q, uint32_t count, uint32_t *scores,
                                uint32_t *slots)
{
    for (uint32_t part = 0; part < scan.parts; part++) {
        uint32_t own = scan.counts[(size_t)q * scan.parts + part];
        size_t from = scan.tile_room + (size_t)part * scan.room;
        for (uint32_t first = 0; first < own; first += blockDim.x) {
            uint32_t i = first + threadIdx.x, score = 0, slot = 0;
            if (i < own) {
                score = scores[from + i];
                slot = slots[from + i];
            }
            /* Where it goes to may be where others have yet to read. */
            __syncthreads();
            if (i < own) {
                scores[count + i] = score;
                slots[count + i] = slot;
            }
        }
        count += own;
    }
    __syncthreads();
    return count;
}

static __global__ void select_best(PD_GRID const pd_cuda_batch batch, PD_GRID const pd_scan scan)
{
    PD_SHARED pd_block_work work;
    const pd_cuda_view &view = batch.view;
    uint32_t q = blockIdx.x;
    const pd_cuda_query &query = batch.queries[q];
    uint32_t *scores = scan.scores + q * scan.span, *slots = scan.slots + q * scan.span;
    uint32_t count = 0, worst = 0;
    if (pd_tiles(scan, query)) count = scan.tile_counts[q] > scan.tile_room ? 0 : scan.tile_counts[q];
    count = join(scan, q, count, scores, slots);
    count = pd_block_cut(&work, scores, slots, NULL, count, query.keep, &worst,
                         [=](uint32_t i) { return (pd_key)pd_slot_id(view, slots[i]); });
    for (uint32_t i = threadIdx.x; i < count; i += blockDim.x) {
        batch.cand_scores[query.kept + i] = scores[i];
        batch.cand_slots[query.kept + i] = slots[i];
    }
    if (threadIdx.x == 0) batch.cand_counts[q] = count;
}

pd_status pd_select(pd_cuda_batch *batch, const pd_scan *scan, pd_error *err)
{
    return pd_cuda_check(batch->device,
                         PD_LAUNCH(select_best, batch->n, SELECT_THREADS, 0, batch->stream, *batch, *scan),
                         "selecting", err);
}
