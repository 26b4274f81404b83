/* Choosing lists on two levels (score.h, cpu/levels.c): groups are ranked as lists are on one level, and lists only where their group is
 * taken.
 *
 * A block a query sorts the groups and takes the best until they hold enough lists. Which queries take a group is then known
 * group by group (a counting sort, as of pairs), and a group's pages of centroids are read once for up to 32 of them. A query's lists lie
 * one behind the other in a row of its own, with their numbers; summaries of weights and filters have their say there, of these lists only, unless
 * queries share so few tables that all lists are cheaper.
 *
 * What sizes the rows is known on the host: the last group that is taken brings at most all of its own, lists without rows come on top,
 * and with a filter there is no telling. */
#include "coarse.cuh"
#include "scan.cuh"

#define GROUP_CHUNK  32u   /* groups whose lists are counted together */
#define KEYS_SHARED  4096u /* groups that are sorted in shared memory */
#define SUM_THREADS  1024u
#define DEAL_THREADS 128u

/* One round: some of the batch's queries. */
typedef struct levels_round {
    uint32_t first, n; /* queries */
    uint32_t room;     /* lists of a query, at most */
    uint32_t width;    /* queries that share a reading of a group's pages */
    pd_key *keys;      /* [n][ngroups] where they are too many for shared memory */
    uint32_t *taken;   /* [n][ngroups] the groups that a query takes, best first */
    uint32_t *at;      /* [n][ngroups] where the lists of each begin in its row */
    uint32_t *ntaken;  /* [n] */
    uint32_t *nlists;  /* [n] lists in its row */
    uint32_t *takers;  /* [ngroups + 1] queries that take a group; then where they begin in sorted */
    uint32_t *cursors; /* [ngroups] */
    uint32_t *items;   /* [ngroups + 1] tiles of the groups before */
    uint2 *sorted;     /* [n * ngroups] query of the round and place in its row, group by group */
    float *scores;     /* [n][room] */
    uint32_t *lists;   /* [n][room] */
} levels_round;

/* ------------------------------------------------------------------------------------------------ groups --- */

/* By a warp: lists of a group that have rows and can pass. */
static __device__ uint32_t live_lists(const pd_cuda_batch &batch, const pd_cuda_query &query, uint32_t group)
{
    const pd_cuda_view &view = batch.view;
    if (query.filter == PD_NONE || !batch.filters[query.filter].folds) return view.group_lists[group];
    uint32_t count = 0;
    for (uint32_t l = view.group_first[group] + pd_lane(); l < view.group_first[group + 1]; l += 32) {
        const unsigned char *page = view.coarse_pages + (size_t)(l / PD_PAGE_ROWS) * view.coarse.page_bytes;
        count += pd_row_term(view.coarse, page, l % PD_PAGE_ROWS) >= -FLT_MAX &&
                 pd_list_may(view, batch.filters[query.filter], l);
    }
    for (uint32_t by = 16; by > 0; by >>= 1)
        count += __shfl_xor_sync(PD_ALL_LANES, count, (int)by);
    return count;
}

/* A block a query. Dynamic shared memory: the keys, where they fit. */
static __global__ void take_groups(PD_GRID const pd_cuda_batch batch, PD_GRID const coarse_round ranks,
                                   PD_GRID const levels_round round)
{
    PD_SHARED uint32_t live[GROUP_CHUNK];
    PD_DYNAMIC(pd_key, memory);
    const pd_cuda_view &view = batch.view;
    uint32_t row = blockIdx.x, n = 0, lists = 0, ngroups = view.ngroups;
    const pd_cuda_query &query = batch.queries[round.first + row];
    const float *scores = ranks.scores + (size_t)row * ranks.pages * PD_PAGE_ROWS;
    pd_key *keys = ngroups <= KEYS_SHARED ? memory : round.keys + (size_t)row * ngroups;
    uint32_t *taken = round.taken + (size_t)row * ngroups, *at = round.at + (size_t)row * ngroups;
    unsigned long long wanted = (unsigned long long)PD_GROUP_REACH * query.npairs, held = 0;
    if (!query.chooses) ngroups = 0;
    for (uint32_t g = threadIdx.x; g < ngroups; g += blockDim.x)
        keys[g] = (pd_key)(uint32_t)~pd_ordered(scores[g]) << 32 | g;
    pd_block_sort(
        ngroups, [=](uint32_t i, uint32_t j) { return keys[i] > keys[j]; },
        [=](uint32_t i, uint32_t j) {
            pd_key kept = keys[i];
            keys[i] = keys[j];
            keys[j] = kept;
        });
    while (n < ngroups && (n < PD_LEAST_GROUPS || held < wanted)) {
        uint32_t first = n, some = ngroups - first < GROUP_CHUNK ? ngroups - first : GROUP_CHUNK;
        for (uint32_t i = pd_warp(); i < some; i += blockDim.x / 32) {
            uint32_t count = live_lists(batch, query, (uint32_t)keys[first + i]);
            if (pd_lane() == 0) live[i] = count;
        }
        __syncthreads();
        /* By every thread alike. */
        for (uint32_t i = 0; i < some && (n < PD_LEAST_GROUPS || held < wanted); i++, n++) {
            uint32_t group = (uint32_t)keys[n];
            if (threadIdx.x == 0) {
                taken[n] = group;
                at[n] = lists;
                atomicAdd(&round.takers[group], 1u);
            }
            held += live[i];
            lists += view.group_first[group + 1] - view.group_first[group];
        }
        __syncthreads();
    }
    if (threadIdx.x != 0) return;
    round.ntaken[row] = n;
    round.nlists[row] = lists;
}

/* By one block: counts of queries become where they begin, and tiles are counted. */
static __global__ void sum_takers(PD_GRID const pd_cuda_batch batch, PD_GRID const levels_round round)
{
    PD_SHARED pd_block_work work;
    uint32_t before = 0, items = 0, ngroups = batch.view.ngroups;
    for (uint32_t first = 0; first < ngroups + 1; first += blockDim.x) {
        uint32_t g = first + threadIdx.x, total, tiles;
        uint32_t own = g < ngroups ? round.takers[g] : 0;
        uint32_t at = before + pd_block_sum(&work, own, &total);
        uint32_t item = items + pd_block_sum(&work, (own + round.width - 1) / round.width, &tiles);
        if (g < ngroups + 1) {
            round.takers[g] = at;
            round.items[g] = item;
        }
        if (g < ngroups) round.cursors[g] = at;
        before += total;
        items += tiles;
    }
}

/* A block a query. */
static __global__ void deal_takers(PD_GRID const pd_cuda_batch batch, PD_GRID const levels_round round)
{
    uint32_t row = blockIdx.x;
    size_t own = (size_t)row * batch.view.ngroups;
    for (uint32_t i = threadIdx.x; i < round.ntaken[row]; i += blockDim.x)
        round.sorted[atomicAdd(&round.cursors[round.taken[own + i]], 1u)] =
            make_uint2(row, round.at[own + i]);
}

/* ------------------------------------------------------------------------------------------------ lists --- */

template <int TILES> struct levels_block {
    float nf[8 * TILES], a[8 * TILES];
    float *rows[8 * TILES]; /* where the group's lists begin in the query's row */
};

/* a * near + 0 of four lists, of which those in the group are written. */
static __device__ __forceinline__ void put_scores(float *to, uint32_t list, uint32_t from, uint32_t end,
                                                  const float (&scores)[4])
{
    PD_UNROLL
    for (uint32_t r = 0; r < 4; r++)
        if (list + r >= from && list + r < end) to[list + r - from] = scores[r];
}

/* An item is a group and a tile of the queries that take it; blocks take every gridDim.x-th. */
template <int TILES>
static __global__ void score_groups(PD_GRID const pd_cuda_batch batch, PD_GRID const levels_round round,
                                    PD_GRID const pd_tile tile)
{
    PD_SHARED levels_block<TILES> block;
    PD_DYNAMIC(unsigned char, memory);
    const pd_cuda_view &view = batch.view;
    uint2 *fragments = (uint2 *)memory;
    unsigned char *ring =
        memory + (size_t)tile.steps * TILES * 32 * sizeof(uint2) + (size_t)pd_warp() * PD_STAGES * tile.stage;
    uint32_t g = pd_lane() / 4, t = pd_lane() % 4;
    for (uint32_t item = blockIdx.x; item < round.items[view.ngroups]; item += gridDim.x) {
        uint32_t group = pd_owner_of(round.items, view.ngroups, item);
        uint32_t first = round.takers[group] + (item - round.items[group]) * 8 * TILES;
        uint32_t left = round.takers[group + 1] - first, n = left < 8 * TILES ? left : 8 * TILES;
        const uint2 *takers = round.sorted + first;
        if (threadIdx.x < n) {
            uint2 taker = takers[threadIdx.x];
            block.nf[threadIdx.x] = batch.nf[round.first + taker.x];
            block.a[threadIdx.x] = batch.queries[round.first + taker.x].a;
            block.rows[threadIdx.x] = round.scores + (size_t)taker.x * round.room + taker.y;
        }
        pd_tile_queries<TILES>(tile, n, fragments, [=](uint32_t i) {
            return batch.near_codes + (size_t)(round.first + takers[i].x) * batch.code_bytes;
        });
        __syncthreads();
        /* The pages at either end may begin or end with lists of the group's neighbours. */
        uint32_t from = view.group_first[group], end = view.group_first[group + 1];
        uint32_t begin = from / PD_PAGE_ROWS + pd_warp(), behind = (end + PD_PAGE_ROWS - 1) / PD_PAGE_ROWS;
        uint32_t pages =
            from < end && begin < behind ? (behind - begin + PD_TILE_WARPS - 1) / PD_TILE_WARPS : 0;
        pd_tile_walk<TILES>(
            tile, view.coarse, view.coarse_pages, pages, fragments, (n + 7) / 8, ring,
            [=](uint32_t i) { return (begin + i * PD_TILE_WARPS) * (view.coarse.page_bytes / 64); },
            [&](uint32_t i, int(&sums)[2][TILES][4], const float *scales, const float *terms) {
                uint32_t list = (begin + i * PD_TILE_WARPS) * PD_PAGE_ROWS + 4 * g;
                float4 scale = *(const float4 *)(scales + 4 * g), term = *(const float4 *)(terms + 4 * g);
                PD_UNROLL
                for (int tq = 0; tq < TILES; tq++) {
                    PD_UNROLL
                    for (int j = 0; j < 2; j++) {
                        uint32_t at = (uint32_t)tq * 8 + 2 * t + (uint32_t)j;
                        if (at >= n) continue;
                        float nf = block.nf[at], a = block.a[at], scores[4];
                        scores[0] = a * ((0.0f + term.x) + (nf * scale.x) * (float)sums[0][tq][j]) + 0.0f;
                        scores[1] = a * ((0.0f + term.y) + (nf * scale.y) * (float)sums[0][tq][2 + j]) + 0.0f;
                        scores[2] = a * ((0.0f + term.z) + (nf * scale.z) * (float)sums[1][tq][j]) + 0.0f;
                        scores[3] = a * ((0.0f + term.w) + (nf * scale.w) * (float)sums[1][tq][2 + j]) + 0.0f;
                        put_scores(block.rows[at], list, from, end, scores);
                    }
                }
            });
        __syncthreads();
    }
}

/* By a block: scores become ranks, and lists get their numbers. A warp a group. */
static __device__ void settle_lists(const pd_cuda_batch &batch, const levels_round &round,
                                    const pd_cuda_query &query, uint32_t row)
{
    const pd_cuda_view &view = batch.view;
    size_t own = (size_t)row * view.ngroups, to = (size_t)row * round.room;
    int promised = query.table != PD_NONE && batch.powers;
    for (uint32_t i = pd_warp(); i < round.ntaken[row]; i += blockDim.x / 32) {
        uint32_t group = round.taken[own + i], from = view.group_first[group];
        for (uint32_t l = from + pd_lane(); l < view.group_first[group + 1]; l += 32) {
            size_t at = to + round.at[own + i] + (l - from);
            float score = round.scores[at];
            if (promised && batch.summaries)
                score = score + batch.summaries[(size_t)query.table * view.nlist + l];
            else if (promised)
                score = score + pd_promise(batch, query.table, view.histograms, view.nlist, l);
            if (query.filter != PD_NONE && !pd_list_may(view, batch.filters[query.filter], l))
                score = -FLT_MAX;
            round.scores[at] = pd_settle(score);
            round.lists[at] = l;
        }
    }
    __syncthreads();
}

/* A block a query. */
static __global__ void choose_of_taken(PD_GRID const pd_cuda_batch batch, PD_GRID const levels_round round)
{
    PD_SHARED pd_block_work work;
    uint32_t row = blockIdx.x, q = round.first + row;
    const pd_cuda_query &query = batch.queries[q];
    if (query.npairs == 0) return;
    if (query.chooses) {
        settle_lists(batch, round, query, row);
        const float *scores = round.scores + (size_t)row * round.room;
        const uint32_t *lists = round.lists + (size_t)row * round.room;
        pd_choose(&work, batch, query, round.nlists[row], [=](uint32_t i, uint32_t *list, float *score) {
            *list = lists[i];
            *score = scores[i];
            return true;
        });
    } else {
        pd_take_given(batch, query);
    }
    __syncthreads();
    pd_list_terms(batch, q, query);
}

/* ------------------------------------------------------------------------------------------------- launch --- */

/* The most lists that any query's groups hold. */
static uint32_t most_lists(const pd_cuda_batch *batch)
{
    const pd_cuda_view *view = &batch->view;
    uint64_t most = (uint64_t)PD_GROUP_REACH * batch->most_probes +
                    (uint64_t)PD_LEAST_GROUPS * view->group_most + (view->nlist - view->group_live);
    return batch->nfilters == 0 && most < view->nlist ? (uint32_t)most : view->nlist;
}

static pd_status take_rows(pd_cuda_batch *batch, uint32_t most, coarse_round *ranks, levels_round *round,
                           pd_error *err)
{
    size_t ngroups = batch->view.ngroups, all = (size_t)most * ngroups;
    const char *what = "groups of lists";
    pd_status status = pd_level_rows(batch, batch->view.ngroups, most, ranks, err);
    if (status == PD_OK) status = pd_take(batch, ngroups <= KEYS_SHARED ? 0 : all, what, &round->keys, err);
    if (status == PD_OK) status = pd_take(batch, all, what, &round->taken, err);
    if (status == PD_OK) status = pd_take(batch, all, what, &round->at, err);
    if (status == PD_OK) status = pd_take(batch, all, what, &round->sorted, err);
    if (status == PD_OK) status = pd_take(batch, most, what, &round->ntaken, err);
    if (status == PD_OK) status = pd_take(batch, most, what, &round->nlists, err);
    if (status == PD_OK) status = pd_take(batch, ngroups + 1, what, &round->takers, err);
    if (status == PD_OK) status = pd_take(batch, ngroups, what, &round->cursors, err);
    if (status == PD_OK) status = pd_take(batch, ngroups + 1, what, &round->items, err);
    if (status == PD_OK) status = pd_take(batch, (size_t)most * round->room, what, &round->scores, err);
    if (status == PD_OK) status = pd_take(batch, (size_t)most * round->room, what, &round->lists, err);
    return status;
}

template <int TILES>
static cudaError_t launch_groups(pd_cuda_batch *batch, const levels_round *round, const pd_tile *tile)
{
    cudaError_t error = PD_ALLOW_SHARED((score_groups<TILES>), tile->shared);
    if (error != cudaSuccess) return error;
    uint32_t blocks = (uint32_t)(batch->device->sms > 0 ? batch->device->sms : 1) * 4;
    return PD_LAUNCH((score_groups<TILES>), blocks, PD_TILE_THREADS, tile->shared, batch->stream, *batch,
                     *round, *tile);
}

static cudaError_t run_round(pd_cuda_batch *batch, const coarse_round *ranks, const levels_round *round,
                             const pd_tile *tile)
{
    const pd_cuda_view *view = &batch->view;
    const coarse_level level = {view->ngroups, view->group_pages, view->group_blocks, batch->group_summaries};
    size_t keys = view->ngroups <= KEYS_SHARED ? view->ngroups * sizeof(pd_key) : 0;
    cudaError_t error = pd_score_level(batch, &level, ranks, tile);
    if (error == cudaSuccess)
        error =
            cudaMemsetAsync(round->takers, 0, ((size_t)view->ngroups + 1) * sizeof(uint32_t), batch->stream);
    if (error == cudaSuccess)
        error =
            PD_LAUNCH(take_groups, round->n, PD_CHOOSE_THREADS, keys, batch->stream, *batch, *ranks, *round);
    if (error == cudaSuccess) error = PD_LAUNCH(sum_takers, 1, SUM_THREADS, 0, batch->stream, *batch, *round);
    if (error == cudaSuccess)
        error = PD_LAUNCH(deal_takers, round->n, DEAL_THREADS, 0, batch->stream, *batch, *round);
    if (error == cudaSuccess)
        error = tile->tiles == 4   ? launch_groups<4>(batch, round, tile)
                : tile->tiles == 2 ? launch_groups<2>(batch, round, tile)
                                   : launch_groups<1>(batch, round, tile);
    if (error == cudaSuccess)
        error = PD_LAUNCH(choose_of_taken, round->n, PD_CHOOSE_THREADS, 0, batch->stream, *batch, *round);
    return error;
}

pd_status pd_choose_of_groups(pd_cuda_batch *batch, const pd_tile *tile, pd_error *err)
{
    coarse_round ranks = {};
    levels_round round = {};
    round.room = most_lists(batch);
    round.width = 8 * tile->tiles;
    size_t each = (size_t)pd_pages_for(batch->view.ngroups) * PD_PAGE_ROWS * sizeof(float) +
                  (size_t)batch->view.ngroups * (2 * sizeof(uint32_t) + sizeof(uint2)) +
                  (size_t)round.room * (sizeof(float) + sizeof(uint32_t));
    uint32_t most = pd_round_queries(batch, each);
    pd_status status = take_rows(batch, most, &ranks, &round, err);
    for (; status == PD_OK && round.first < batch->n; round.first += round.n) {
        round.n = batch->n - round.first < most ? batch->n - round.first : most;
        ranks.first = round.first;
        ranks.n = round.n;
        status = pd_cuda_check(batch->device, run_round(batch, &ranks, &round, tile),
                               "choosing lists of groups", err);
    }
    return status;
}
