/* Choosing the lists to probe (score.h), and their list terms.
 *
 * Centroids lie in pages of i8 codes, so that choosing is the integer product of the scan. score_lists writes the settled score
 * of every list, and the best of each page of 32 lists. The want-th best of those bests is no better than the want-th best list,
 * so that choose_lists looks only at pages that reach it: some `want` pages instead of all. What is chosen is exact: the
 * want-th score is found among them, and lists that tie at it are taken by number.
 *
 * Queries go in rounds, as many as their scores take SCORE_BYTES.
 */
#include "coarse.cuh"
#include "tile.cuh"

#define RANGE_PAGES 64u

/* ------------------------------------------------------------------------------------------------ scores --- */

typedef struct list_query {
    float nf, a;
    const float *summary; /* NULL: nothing is promised */
    uint32_t filter;
} list_query;

/* What the summaries of weights and filters make of a list's nearness. */
static __device__ __forceinline__ float rank(const pd_cuda_batch &batch, const coarse_level &level,
                                             const list_query &query, float near, uint32_t list)
{
    float score = query.a * near + 0.0f;
    if (list >= level.n) return -FLT_MAX;
    if (query.summary) score = score + query.summary[list];
    if (query.filter != PD_NONE &&
        !pd_summary_may(batch.filters[query.filter], pd_level_bits(batch, level, list)))
        return -FLT_MAX;
    return pd_settle(score);
}

/* A block is a tile of queries (blockIdx.x) against RANGE_PAGES pages of centroids (blockIdx.y). */
template <int TILES>
static __global__ void score_lists(PD_GRID const pd_cuda_batch batch, PD_GRID const coarse_level level,
                                   PD_GRID const coarse_round round, PD_GRID const pd_tile tile)
{
    PD_SHARED list_query queries[8 * TILES];
    PD_DYNAMIC(unsigned char, memory);
    const pd_cuda_view &view = batch.view;
    uint2 *fragments = (uint2 *)memory;
    unsigned char *ring =
        memory + (size_t)tile.steps * TILES * 32 * sizeof(uint2) + (size_t)pd_warp() * PD_STAGES * tile.stage;
    uint32_t from = blockIdx.x * 8 * TILES, left = round.n - from, n = left < 8 * TILES ? left : 8 * TILES;
    if (threadIdx.x < n) {
        uint32_t q = round.first + from + threadIdx.x;
        const pd_cuda_query &query = batch.queries[q];
        list_query own = {batch.nf[q], query.a, NULL, query.filter};
        if (level.summaries && query.table != PD_NONE)
            own.summary = level.summaries + (size_t)query.table * level.n;
        queries[threadIdx.x] = own;
    }
    pd_tile_queries<TILES>(tile, n, fragments, [=](uint32_t i) {
        return batch.near_codes + (size_t)(round.first + from + i) * batch.code_bytes;
    });
    __syncthreads();
    uint32_t g = pd_lane() / 4, t = pd_lane() % 4;
    uint32_t begin = blockIdx.y * RANGE_PAGES + pd_warp();
    uint32_t end =
        round.pages - blockIdx.y * RANGE_PAGES < RANGE_PAGES ? round.pages : (blockIdx.y + 1) * RANGE_PAGES;
    uint32_t pages = begin < end ? (end - begin + PD_TILE_WARPS - 1) / PD_TILE_WARPS : 0;
    pd_tile_walk<TILES>(
        tile, view.coarse, level.pages, pages, fragments, (n + 7) / 8, ring,
        [=](uint32_t i) { return (begin + i * PD_TILE_WARPS) * (view.coarse.page_bytes / 64); },
        [&](uint32_t i, int(&sums)[2][TILES][4], const float *scales, const float *terms) {
            uint32_t page = begin + i * PD_TILE_WARPS, list = page * PD_PAGE_ROWS + 4 * g;
            float4 scale = *(const float4 *)(scales + 4 * g), term = *(const float4 *)(terms + 4 * g);
            PD_UNROLL
            for (int tq = 0; tq < TILES; tq++) {
                PD_UNROLL
                for (int j = 0; j < 2; j++) {
                    uint32_t at = (uint32_t)tq * 8 + 2 * t + (uint32_t)j;
                    list_query query = queries[at < n ? at : 0];
                    float4 score;
                    score.x = (0.0f + term.x) + (query.nf * scale.x) * (float)sums[0][tq][j];
                    score.y = (0.0f + term.y) + (query.nf * scale.y) * (float)sums[0][tq][2 + j];
                    score.z = (0.0f + term.z) + (query.nf * scale.z) * (float)sums[1][tq][j];
                    score.w = (0.0f + term.w) + (query.nf * scale.w) * (float)sums[1][tq][2 + j];
                    score.x = rank(batch, level, query, score.x, list);
                    score.y = rank(batch, level, query, score.y, list + 1);
                    score.z = rank(batch, level, query, score.z, list + 2);
                    score.w = rank(batch, level, query, score.w, list + 3);
                    float best = fmaxf(fmaxf(score.x, score.y), fmaxf(score.z, score.w));
                    for (uint32_t by = 4; by <= 16; by <<= 1)
                        best = fmaxf(best, __shfl_xor_sync(PD_ALL_LANES, best, by));
                    if (at >= n) continue;
                    size_t row = from + at;
                    *(float4 *)(round.scores + row * round.pages * PD_PAGE_ROWS + list) = score;
                    if (g == 0) round.bests[row * round.pages + page] = best;
                }
            }
        });
}

/* ------------------------------------------------------------------------------------------------ choosing --- */

/* The pages whose best list may be among the `want` best. Returns how many. */
static __device__ uint32_t some_pages(pd_block_work *work, const coarse_round &round, uint32_t row,
                                      uint32_t want)
{
    const float *bests = round.bests + (size_t)row * round.pages;
    uint32_t *some = round.some + (size_t)row * round.pages, count = 0, before, equal;
    uint32_t bar = 0;
    if (want < round.pages)
        bar =
            ~(uint32_t)pd_block_kth(work, round.pages, want, &before, &equal, [=](uint32_t i, pd_key *value) {
                *value = (uint32_t)~pd_ordered(bests[i]);
                return true;
            });
    for (uint32_t first = 0; first < round.pages; first += blockDim.x) {
        uint32_t i = first + threadIdx.x, total;
        uint32_t own = i < round.pages && pd_ordered(bests[i]) >= bar;
        uint32_t at = count + pd_block_sum(work, own, &total);
        if (own) some[at] = i;
        count += total;
    }
    __syncthreads();
    return count;
}

/* A block a query. */
static __global__ void choose_lists(PD_GRID const pd_cuda_batch batch, PD_GRID const coarse_round round)
{
    PD_SHARED pd_block_work work;
    uint32_t q = round.first + blockIdx.x, nlist = batch.view.nlist;
    const pd_cuda_query &query = batch.queries[q];
    if (query.npairs == 0) return;
    if (query.chooses) {
        const float *scores = round.scores + (size_t)blockIdx.x * round.pages * PD_PAGE_ROWS;
        const uint32_t *some = round.some + (size_t)blockIdx.x * round.pages;
        uint32_t n = some_pages(&work, round, blockIdx.x, query.npairs) * PD_PAGE_ROWS;
        pd_choose(&work, batch, query, n, [=](uint32_t i, uint32_t *list, float *score) {
            *list = some[i / PD_PAGE_ROWS] * PD_PAGE_ROWS + i % PD_PAGE_ROWS;
            if (*list >= nlist) return false;
            *score = scores[*list];
            return true;
        });
    } else {
        pd_take_given(batch, query);
    }
    __syncthreads();
    pd_list_terms(batch, q, query);
}

/* ------------------------------------------------------------------------------------------------- launch --- */

template <int TILES>
static cudaError_t launch_scores(pd_cuda_batch *batch, const coarse_level *level, const coarse_round *round,
                                 const pd_tile *tile)
{
    cudaError_t error = PD_ALLOW_SHARED((score_lists<TILES>), tile->shared);
    if (error != cudaSuccess) return error;
    dim3 grid(pd_blocks_of(round->n, 8 * TILES), pd_blocks_of(round->pages, RANGE_PAGES));
    return PD_LAUNCH((score_lists<TILES>), grid, PD_TILE_THREADS, tile->shared, batch->stream, *batch, *level,
                     *round, *tile);
}

cudaError_t pd_score_level(pd_cuda_batch *batch, const coarse_level *level, const coarse_round *round,
                           const pd_tile *tile)
{
    return tile->tiles == 4   ? launch_scores<4>(batch, level, round, tile)
           : tile->tiles == 2 ? launch_scores<2>(batch, level, round, tile)
                              : launch_scores<1>(batch, level, round, tile);
}

pd_status pd_level_rows(pd_cuda_batch *batch, uint32_t n, uint32_t most, coarse_round *round, pd_error *err)
{
    round->pages = pd_pages_for(n);
    pd_status status =
        pd_take(batch, (size_t)most * round->pages * PD_PAGE_ROWS, "list scores", &round->scores, err);
    if (status == PD_OK)
        status = pd_take(batch, (size_t)most * round->pages, "list scores", &round->bests, err);
    if (status == PD_OK)
        status = pd_take(batch, (size_t)most * round->pages, "list scores", &round->some, err);
    return status;
}

/* All lists are looked at. */
static pd_status choose_of_all(pd_cuda_batch *batch, const pd_tile *tile, pd_error *err)
{
    const pd_cuda_view *view = &batch->view;
    const coarse_level level = {view->nlist, view->coarse_pages, view->block_lists, batch->summaries};
    coarse_round round = {};
    uint32_t most = pd_round_queries(batch, (size_t)pd_pages_for(view->nlist) * PD_PAGE_ROWS * sizeof(float));
    pd_status status = PD_OK;
    if (batch->nchoosing > 0) status = pd_level_rows(batch, view->nlist, most, &round, err);
    for (; status == PD_OK && round.first < batch->n; round.first += round.n) {
        round.n = batch->n - round.first < most ? batch->n - round.first : most;
        cudaError_t error = cudaSuccess;
        if (batch->nchoosing > 0) error = pd_score_level(batch, &level, &round, tile);
        if (error == cudaSuccess)
            error = PD_LAUNCH(choose_lists, round.n, PD_CHOOSE_THREADS, 0, batch->stream, *batch, round);
        status = pd_cuda_check(batch->device, error, "choosing lists", err);
    }
    return status;
}

pd_status pd_cuda_coarse(pd_cuda_batch *batch, pd_error *err)
{
    pd_tile tile = {};
    pd_status status = pd_take(batch, batch->npairs, "pairs", &batch->pairs, err);
    if (status != PD_OK) return status;
    if (batch->nchoosing > 0 && !pd_tile_cut(batch->view.coarse.dim4, batch->device->shared_most, &tile))
        return pd_fail(err, PD_UNAVAILABLE,
                       "this device has %zu bytes of shared memory a block, %u are needed",
                       batch->device->shared_most, tile.shared);
    if (batch->nchoosing > 0 && batch->view.ngroups > 0) return pd_choose_of_groups(batch, &tile, err);
    return choose_of_all(batch, &tile, err);
}
