/* Choosing the lists to probe (score.h), and their list terms.
 *
 * Centroids lie in pages of i8 codes, so that choosing is the integer product of the scan. score_lists writes the settled score
 * of every list, and the best of each page of 32 lists. The want-th best of those bests is no better than the want-th best list,
 * so that choose_lists looks only at pages that reach it: some `want` pages instead of all. What is chosen is exact: the
 * want-th score is found among them, and lists that tie at it are taken by number.
 *
 * Queries go in rounds, as many as their scores take SCORE_BYTES.
 */
#include "tile.cuh"

#define SCORE_BYTES    ((size_t)256 << 20)
#define RANGE_PAGES    64u
#define CHOOSE_THREADS 256u

/* One round. */
typedef struct coarse_round {
    uint32_t first, n; /* queries */
    uint32_t pages;    /* of centroids */
    float *scores;     /* [n][pages * 32] */
    float *bests;      /* [n][pages] */
    uint32_t *some;    /* [n][pages] the pages that are looked at */
} coarse_round;

/* ------------------------------------------------------------------------------------------------ scores --- */

typedef struct list_query {
    float nf, a;
    const float *summary; /* NULL: nothing is promised */
    uint32_t filter;
} list_query;

/* What is no number, or under every number, comes last, with the lists that are empty. */
static __device__ __forceinline__ float settle(float score)
{
    return score >= -FLT_MAX ? score : -FLT_MAX;
}

/* What the summaries of weights and filters make of a list's nearness. */
static __device__ __forceinline__ float rank(const pd_cuda_batch &batch, const list_query &query, float near,
                                             uint32_t list)
{
    float score = query.a * near + 0.0f;
    if (list >= batch.view.nlist) return -FLT_MAX;
    if (query.summary) score = score + query.summary[list];
    if (query.filter != PD_NONE && !pd_list_may(batch.view, batch.filters[query.filter], list))
        return -FLT_MAX;
    return settle(score);
}

/* A block is a tile of queries (blockIdx.x) against RANGE_PAGES pages of centroids (blockIdx.y). */
template <int TILES>
static __global__ void score_lists(PD_GRID const pd_cuda_batch batch, PD_GRID const coarse_round round,
                                   PD_GRID const pd_tile tile)
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
        if (batch.summaries && query.table != PD_NONE)
            own.summary = batch.summaries + (size_t)query.table * view.nlist;
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
        tile, view.coarse, view.coarse_pages, pages, fragments, (n + 7) / 8, ring,
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
                    score.x = rank(batch, query, score.x, list);
                    score.y = rank(batch, query, score.y, list + 1);
                    score.z = rank(batch, query, score.z, list + 2);
                    score.w = rank(batch, query, score.w, list + 3);
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

/* The want best lists, ties by number, into pairs; their scores stand in lt. */
static __device__ void choose(pd_block_work *work, const pd_cuda_batch &batch, const coarse_round &round,
                              uint32_t row, uint32_t want, pd_cuda_pair *pairs)
{
    const float *scores = round.scores + (size_t)row * round.pages * PD_PAGE_ROWS;
    const uint32_t *some = round.some + (size_t)row * round.pages;
    uint32_t nlist = batch.view.nlist, before, equal, ties, count = 0;
    uint32_t n = some_pages(work, round, row, want) * PD_PAGE_ROWS;
    pd_key last = pd_block_kth(work, n, want, &before, &equal, [=](uint32_t i, pd_key *value) {
        uint32_t list = some[i / PD_PAGE_ROWS] * PD_PAGE_ROWS + i % PD_PAGE_ROWS;
        if (list >= nlist) return false;
        *value = (uint32_t)~pd_ordered(scores[list]);
        return true;
    });
    uint32_t bar = ~(uint32_t)last;
    pd_key last_list = ~(pd_key)0;
    if (before + equal > want)
        last_list = pd_block_kth(work, n, want - before, &before, &ties, [=](uint32_t i, pd_key *value) {
            *value = some[i / PD_PAGE_ROWS] * PD_PAGE_ROWS + i % PD_PAGE_ROWS;
            return *value < nlist && pd_ordered(scores[*value]) == bar;
        });
    for (uint32_t first = 0; first < n; first += blockDim.x) {
        uint32_t i = first + threadIdx.x, list = nlist, own = 0, total;
        if (i < n) list = some[i / PD_PAGE_ROWS] * PD_PAGE_ROWS + i % PD_PAGE_ROWS;
        if (list < nlist) {
            uint32_t score = pd_ordered(scores[list]);
            own = score > bar || (score == bar && list <= last_list);
        }
        uint32_t at = count + pd_block_sum(work, own, &total);
        if (own) {
            pairs[at].list = list;
            pairs[at].lt = scores[list];
        }
        count += total;
    }
    __syncthreads();
}

static __device__ void sort_chosen(pd_cuda_pair *pairs, uint32_t n)
{
    pd_block_sort(
        n,
        [=](uint32_t i, uint32_t j) {
            if (pairs[i].lt != pairs[j].lt) return pairs[i].lt < pairs[j].lt;
            return pairs[i].list > pairs[j].list;
        },
        [=](uint32_t i, uint32_t j) {
            pd_cuda_pair kept = pairs[i];
            pairs[i] = pairs[j];
            pairs[j] = kept;
        });
}

/* The written list terms of a query's pairs; half a warp a pair. */
static __device__ void list_terms(const pd_cuda_batch &batch, uint32_t q, const pd_cuda_query &query,
                                  pd_cuda_pair *pairs)
{
    const pd_cuda_view &view = batch.view;
    const float *vector = batch.vectors + (size_t)q * view.dim16;
    int terms = view.listed && query.vector;
    for (uint32_t first = 2 * pd_warp(); first < query.npairs; first += blockDim.x / 16) {
        uint32_t i = first + (pd_lane() >> 4), at = i < query.npairs ? i : first;
        float lt = 0.0f;
        if (terms)
            lt = pd_half_similarity(vector, view.centroids + (size_t)pairs[at].list * view.dim16, view.dim16,
                                    view.metric == PD_L2);
        if (i >= query.npairs || (pd_lane() & 15u) != 0) continue;
        pairs[i].query = q;
        pairs[i].lt = lt;
    }
}

/* A block a query. */
static __global__ void choose_lists(PD_GRID const pd_cuda_batch batch, PD_GRID const coarse_round round)
{
    PD_SHARED pd_block_work work;
    uint32_t q = round.first + blockIdx.x;
    const pd_cuda_query &query = batch.queries[q];
    pd_cuda_pair *pairs = batch.pairs + query.pairs;
    if (query.npairs == 0) return;
    if (query.chooses) {
        choose(&work, batch, round, blockIdx.x, query.npairs, pairs);
        if (batch.want_probes) sort_chosen(pairs, query.npairs);
    } else {
        for (uint32_t i = threadIdx.x; i < query.npairs; i += blockDim.x)
            pairs[i].list = query.given == PD_NONE ? i : batch.given[query.given + i];
    }
    __syncthreads();
    list_terms(batch, q, query, pairs);
}

/* ------------------------------------------------------------------------------------------------- launch --- */

template <int TILES>
static cudaError_t launch_scores(pd_cuda_batch *batch, const coarse_round *round, const pd_tile *tile)
{
    cudaError_t error = PD_ALLOW_SHARED((score_lists<TILES>), tile->shared);
    if (error != cudaSuccess) return error;
    dim3 grid(pd_blocks_of(round->n, 8 * TILES), pd_blocks_of(round->pages, RANGE_PAGES));
    return PD_LAUNCH((score_lists<TILES>), grid, PD_TILE_THREADS, tile->shared, batch->stream, *batch, *round,
                     *tile);
}

static pd_status score(pd_cuda_batch *batch, const coarse_round *round, const pd_tile *tile, pd_error *err)
{
    cudaError_t error = tile->tiles == 4   ? launch_scores<4>(batch, round, tile)
                        : tile->tiles == 2 ? launch_scores<2>(batch, round, tile)
                                           : launch_scores<1>(batch, round, tile);
    return pd_cuda_check(batch->device, error, "scoring lists", err);
}

pd_status pd_cuda_coarse(pd_cuda_batch *batch, pd_error *err)
{
    const pd_cuda_view *view = &batch->view;
    pd_tile tile = {};
    coarse_round round = {};
    pd_status status = pd_take(batch, batch->npairs, "pairs", &batch->pairs, err);
    if (status != PD_OK) return status;
    uint32_t most = batch->n;
    if (batch->nchoosing > 0) {
        if (!pd_tile_cut(view->coarse.dim4, batch->device->shared_most, &tile))
            return pd_fail(err, PD_UNAVAILABLE,
                           "this device has %zu bytes of shared memory a block, %u are needed",
                           batch->device->shared_most, tile.shared);
        round.pages = pd_pages_for(view->nlist);
        size_t each = (size_t)round.pages * PD_PAGE_ROWS * sizeof(float);
        size_t fit = SCORE_BYTES / each;
        most = fit < 32 ? 32 : fit < most ? (uint32_t)fit & ~31u : most;
        if (most > batch->n) most = batch->n;
        status = pd_take(batch, (size_t)most * round.pages * PD_PAGE_ROWS, "list scores", &round.scores, err);
        if (status == PD_OK)
            status = pd_take(batch, (size_t)most * round.pages, "list scores", &round.bests, err);
        if (status == PD_OK)
            status = pd_take(batch, (size_t)most * round.pages, "list scores", &round.some, err);
    }
    for (; status == PD_OK && round.first < batch->n; round.first += round.n) {
        round.n = batch->n - round.first < most ? batch->n - round.first : most;
        if (batch->nchoosing > 0) status = score(batch, &round, &tile, err);
        if (status == PD_OK)
            status = pd_cuda_check(
                batch->device,
                PD_LAUNCH(choose_lists, round.n, CHOOSE_THREADS, 0, batch->stream, *batch, round),
                "choosing lists", err);
    }
    return status;
}
