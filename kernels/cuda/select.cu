/* A query's best candidates out of what the scan's blocks left: the pieces are moved together and cut down to `keep` under the
 * total order, a block a query.
 *
 * A query that is alone has hundreds of pieces of a few candidates. They are numbered through, and moved in the order of their numbers, some
 * to a thread at a time: everyone reads before anyone writes, and what is read later lies behind what is written now. */
#include "scan.cuh"

#define SELECT_THREADS      256u
#define SELECT_THREADS_MOST 1024u /* of one block, where there are few */
#define AT_ONCE             4u    /* candidates of a thread */

typedef struct select_block {
    pd_block_work work;
    uint32_t starts[PD_ROW_PARTS_MOST + 1]; /* candidates of the pieces before */
} select_block;

/* Returns how many candidates the pieces have. */
static __device__ uint32_t count_pieces(const pd_scan &scan, uint32_t q, select_block *block)
{
    uint32_t before = 0;
    for (uint32_t first = 0; first < scan.parts; first += blockDim.x) {
        uint32_t part = first + threadIdx.x, total;
        uint32_t own = part < scan.parts ? scan.counts[(size_t)q * scan.parts + part] : 0;
        uint32_t at = before + pd_block_sum(&block->work, own, &total);
        if (part < scan.parts) block->starts[part] = at;
        before += total;
    }
    if (threadIdx.x == 0) block->starts[scan.parts] = before;
    __syncthreads();
    return before;
}

/* Where candidate i of all pieces lies. */
static __device__ __forceinline__ size_t place_of(const pd_scan &scan, const uint32_t *starts, uint32_t i)
{
    uint32_t low = 0, high = scan.parts; /* starts[low] <= i < starts[high] */
    while (high - low > 1) {
        uint32_t mid = low + (high - low) / 2;
        if (starts[mid] <= i)
            low = mid;
        else
            high = mid;
    }
    return scan.tile_room + (size_t)low * scan.room + (i - starts[low]);
}

/* Moves the pieces behind `count` candidates to them. Returns how many there are. */
static __device__ uint32_t join(const pd_scan &scan, uint32_t q, uint32_t count, select_block *block,
                                uint32_t *scores, uint32_t *slots)
{
    uint32_t all = count_pieces(scan, q, block);
    for (uint32_t first = 0; first < all; first += AT_ONCE * blockDim.x) {
        uint32_t score[AT_ONCE], slot[AT_ONCE];
        PD_UNROLL
        for (uint32_t j = 0; j < AT_ONCE; j++) {
            uint32_t i = first + j * blockDim.x + threadIdx.x;
            if (i >= all) continue;
            size_t from = place_of(scan, block->starts, i);
            score[j] = scores[from];
            slot[j] = slots[from];
        }
        __syncthreads();
        PD_UNROLL
        for (uint32_t j = 0; j < AT_ONCE; j++) {
            uint32_t i = first + j * blockDim.x + threadIdx.x;
            if (i >= all) continue;
            scores[count + i] = score[j];
            slots[count + i] = slot[j];
        }
        __syncthreads();
    }
    return count + all;
}

static __global__ void select_best(PD_GRID const pd_cuda_batch batch, PD_GRID const pd_scan scan)
{
    PD_SHARED select_block block;
    const pd_cuda_view &view = batch.view;
    uint32_t q = blockIdx.x;
    const pd_cuda_query &query = batch.queries[q];
    uint32_t *scores = scan.scores + q * scan.span, *slots = scan.slots + q * scan.span;
    uint32_t count = 0, worst = 0;
    if (pd_tiles(scan, query)) count = scan.tile_counts[q] > scan.tile_room ? 0 : scan.tile_counts[q];
    count = join(scan, q, count, &block, scores, slots);
    count = pd_block_cut(&block.work, scores, slots, NULL, count, query.keep, &worst,
                         [=](uint32_t i) { return (pd_key)pd_slot_id(view, slots[i]); });
    for (uint32_t i = threadIdx.x; i < count; i += blockDim.x) {
        batch.cand_scores[query.kept + i] = scores[i];
        batch.cand_slots[query.kept + i] = slots[i];
    }
    if (threadIdx.x == 0) batch.cand_counts[q] = count;
}

pd_status pd_select(pd_cuda_batch *batch, const pd_scan *scan, pd_error *err)
{
    uint32_t few = 2 * (uint32_t)(batch->device->sms > 0 ? batch->device->sms : 1);
    uint32_t threads = batch->n <= few && scan->parts > 1 ? SELECT_THREADS_MOST : SELECT_THREADS;
    return pd_cuda_check(batch->device,
                         PD_LAUNCH(select_best, batch->n, threads, 0, batch->stream, *batch, *scan),
                         "selecting", err);
}
