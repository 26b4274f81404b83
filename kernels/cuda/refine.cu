/* The end of a search: candidates are scored again from their refine rows where the table keeps them (half a warp a row, the
 * written sixteen lanes), their attributes are weighed again, and the best k are sorted. A block a query. */
#include "row.cuh"

#define REFINE_THREADS 128u

/* Bytes of a row that half a warp brings over the bus at once: a multiple of 16 values of any kind. */
#ifndef PART_BYTES
#define PART_BYTES 512u
#endif

/* pd_half_refined of a row in the host's memory, of a multiple of 16 bytes. What one instruction of a warp asks for side by side comes as
 * one piece, which value by value would be 32 bytes of f16: too short for the bus. So a row is read by 16 bytes a lane, into room
 * (of the half's own), and summed from there. */
static __device__ float half_refined_far(const pd_cuda_view &view, const float *vector,
                                         const unsigned char *row, uint32_t bytes, uint4 *room)
{
    uint32_t size = view.refine == PD_REFINE_F32 ? 4 : view.refine == PD_REFINE_F16 ? 2 : 1;
    float lane = 0.0f;
    for (uint32_t at = 0; at < bytes; at += PART_BYTES) {
        uint32_t part = bytes - at < PART_BYTES ? bytes - at : PART_BYTES, first = at / size;
        uint32_t values = part / size < view.dim - first ? part / size : view.dim - first;
        for (uint32_t i = pd_lane() & 15u; i < part / 16; i += 16)
            room[i] = ((const uint4 *)(row + at))[i];
        __syncwarp();
        lane = pd_lane_refined(lane, vector + first, (const unsigned char *)room, view.refine, values,
                               view.metric == PD_L2);
        __syncwarp();
    }
    float sum = pd_add_lanes(lane);
    return view.metric == PD_L2 ? -sum : sum;
}

/* By half a warp: the final score of one candidate, in every lane of the half. */
static __device__ float final_score(const pd_cuda_batch &batch, const pd_cuda_query &query,
                                    const float *vector, uint32_t slot)
{
    const pd_cuda_view &view = batch.view;
    uint32_t page = slot / PD_PAGE_ROWS, row = slot % PD_PAGE_ROWS;
    uint32_t bytes = view.layout.refine_bytes / PD_PAGE_ROWS;
    const unsigned char *at = pd_view_refine(view, page) + (size_t)row * bytes;
    PD_SHARED uint4 rooms[REFINE_THREADS / 16][PART_BYTES / 16];
    float sim = view.refine_slab != view.slab && bytes % 16 == 0
                    ? half_refined_far(view, vector, at, bytes, rooms[threadIdx.x / 16])
                    : pd_half_refined(vector, at, view.refine, view.dim, view.metric == PD_L2);
    return pd_row_weigh(batch, query, pd_view_page(view, page), row, query.a * sim + 0.0f);
}

/* Scores the candidates again in place. A warp takes two; all of its lanes go the same way. */
static __device__ void refine(const pd_cuda_batch &batch, const pd_cuda_query &query, uint32_t q,
                              uint32_t *scores, const uint32_t *slots, uint32_t count)
{
    const float *vector = batch.vectors + (size_t)q * batch.view.dim16;
    for (uint32_t first = 2 * pd_warp(); first < count; first += blockDim.x / 16) {
        uint32_t i = first + (pd_lane() >> 4), at = i < count ? i : first;
        float score = final_score(batch, query, vector, slots[at]);
        /* What is no number passes nothing: 0 lies under all. */
        if (i < count && (pd_lane() & 15u) == 0) scores[i] = score >= -FLT_MAX ? pd_ordered(score) : 0;
    }
    __syncthreads();
}

static __global__ void finish(PD_GRID const pd_cuda_batch batch)
{
    PD_SHARED pd_block_work work;
    const pd_cuda_view &view = batch.view;
    uint32_t q = blockIdx.x;
    const pd_cuda_query &query = batch.queries[q];
    uint32_t *scores = batch.cand_scores + query.kept, *slots = batch.cand_slots + query.kept;
    uint32_t count = batch.cand_counts[q], worst = 0;
    if (batch.refines && query.vector) refine(batch, query, q, scores, slots, count);
    uint32_t least = pd_ordered(query.min_score > -FLT_MAX ? query.min_score : -FLT_MAX);
    count = pd_block_keep(&work, scores, slots, NULL, count, [=](uint32_t i) { return scores[i] >= least; });
    count = pd_block_cut(&work, scores, slots, NULL, count, query.k, &worst,
                         [=](uint32_t i) { return (pd_key)pd_slot_id(view, slots[i]); });
    pd_hit *hits = batch.hits + query.hits;
    for (uint32_t i = threadIdx.x; i < count; i += blockDim.x) {
        hits[i].id = pd_slot_id(view, slots[i]);
        hits[i].score = pd_unordered(scores[i]);
        hits[i].slot = slots[i];
    }
    pd_sort_hits(hits, count);
    if (threadIdx.x == 0) batch.counts[q] = count;
}

pd_status pd_cuda_refine(pd_cuda_batch *batch, pd_error *err)
{
    return pd_cuda_check(batch->device, PD_LAUNCH(finish, batch->n, REFINE_THREADS, 0, batch->stream, *batch),
                         "refining", err);
}
