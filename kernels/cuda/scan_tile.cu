/* The scan where queries share lists: a list's pages are read once for up to 32 of the queries that probe it.
 *
 * Work is cut into items (a list, a tile of its queries, up to SEGMENT_PAGES of its pages), which blocks take from a common
 * counter until there are none. In a block each warp goes through pages of its own (tile.cuh); a page's dots become scores and
 * one comparison with each query's bar in registers. Rows that pass cost more: the bound of their own weights in whole
 * steps, then the weights, then the query's candidates.
 *
 * Candidates of a query are appended by every block, and the bar rises while they do: whoever's candidate completes a round
 * number of them counts how many of those already written reach which score. What has been reserved but not yet
 * written counts as nothing, so that the bar is never too high and nobody waits. Candidates for which there is no
 * room are counted and lost, and the row scan then does the query again from its bar on: it cuts as it goes and loses nothing.
 */
#include "tile.cuh"

#include "scan.cuh"

#define SEGMENT_PAGES 256u
#define ITEM_THREADS  256u
#define REFRESH_PAGES 4u /* of a warp, between two looks at the bars of others */

typedef struct tile_query {
    float lt, qf, a;
    uint32_t q;
} tile_query;

typedef struct tile_bars {
    float most, least; /* of the similarity's score; of the same with the steps of a row's values */
    float bar;         /* of the score */
    uint32_t seen;     /* the bar as it was read */
} tile_bars;

template <int TILES> struct tile_block {
    uint32_t item, list, first_pair, npairs, first_page, last_page;
    tile_query queries[8 * TILES];
    tile_bars bars[PD_TILE_WARPS][8 * TILES]; /* each warp's own, so that warps need not agree */
};

/* ---------------------------------------------------------------------------------------------------- items --- */

typedef struct tile_items {
    uint32_t *starts; /* [nlist + 1] items of the lists before */
    uint32_t *next;   /* the item that is taken next */
} tile_items;

static __global__ void count_items(PD_GRID const pd_cuda_batch batch, const tile_items items, uint32_t width)
{
    uint32_t list = blockIdx.x * blockDim.x + threadIdx.x;
    if (list >= batch.view.nlist) return;
    uint32_t pairs = batch.pair_starts[list + 1] - batch.pair_starts[list];
    uint32_t pages = batch.view.offsets[list + 1] - batch.view.offsets[list];
    items.starts[list] = (pairs + width - 1) / width * ((pages + SEGMENT_PAGES - 1) / SEGMENT_PAGES);
}

/* By the first warp. Returns 0 where no item is left. */
template <int TILES>
static __device__ int take_item(const pd_cuda_batch &batch, const tile_items &items, tile_block<TILES> *block)
{
    const pd_cuda_view &view = batch.view;
    uint32_t item = 0;
    if (pd_lane() == 0) item = atomicAdd(items.next, 1u);
    item = __shfl_sync(PD_ALL_LANES, item, 0);
    if (item >= items.starts[view.nlist]) return 0;
    uint32_t list = pd_owner_of(items.starts, view.nlist, item),
             pages = view.offsets[list + 1] - view.offsets[list];
    uint32_t segments = (pages + SEGMENT_PAGES - 1) / SEGMENT_PAGES, own = item - items.starts[list];
    uint32_t tile = own / segments, segment = own % segments;
    uint32_t first = batch.pair_starts[list] + tile * 8 * TILES, end = batch.pair_starts[list + 1];
    if (pd_lane() != 0) return 1;
    block->list = list;
    block->first_pair = first;
    block->npairs = end - first < 8 * TILES ? end - first : 8 * TILES;
    block->first_page = view.offsets[list] + segment * SEGMENT_PAGES;
    block->last_page = pages - segment * SEGMENT_PAGES < SEGMENT_PAGES ? view.offsets[list + 1]
                                                                       : block->first_page + SEGMENT_PAGES;
    return 1;
}

/* ------------------------------------------------------------------------------------------------------ bars --- */

/* By a warp, a lane a query: takes over what others have made of the bars. */
template <int TILES>
static __device__ void refresh_bars(const pd_cuda_batch &batch, const tile_block<TILES> *block,
                                    tile_bars *bars)
{
    __syncwarp();
    if (pd_lane() < block->npairs && block->queries[pd_lane()].q != PD_NONE) {
        uint32_t q = block->queries[pd_lane()].q, now = *(volatile const uint32_t *)&batch.bars[q];
        if (now != bars[pd_lane()].seen) {
            const pd_cuda_bound &bound = batch.bounds[q];
            tile_bars fresh;
            fresh.bar = pd_unordered(now);
            fresh.most = pd_under(bound, fresh.bar, bound.most);
            fresh.least = pd_under(bound, fresh.bar, bound.least);
            fresh.seen = now;
            bars[pd_lane()] = fresh;
        }
    }
    __syncwarp();
}

/* By a warp: raises the bar of a query to the score that `keep` of its first `count` candidates reach, rounded down. */
static __device__ void raise_bar(const pd_cuda_batch &batch, const pd_scan &scan, uint32_t q, uint32_t count)
{
    const volatile uint32_t *scores = scan.scores + q * scan.span;
    uint32_t keep = batch.queries[q].keep, bar = 0;
    for (uint32_t bit = 1u << 31; bit >= 1u << 8; bit >>= 1) {
        uint32_t reach = 0;
        for (uint32_t i = pd_lane(); i < count; i += 32)
            reach += scores[i] >= (bar | bit);
        for (uint32_t by = 16; by > 0; by >>= 1)
            reach += __shfl_xor_sync(PD_ALL_LANES, reach, (int)by);
        if (reach >= keep) bar |= bit;
    }
    if (pd_lane() == 0) atomicMax(&batch.bars[q], bar);
}

/* -------------------------------------------------------------------------------------------------- survivors --- */

/* Can the row still reach the bar with the steps of its own values? */
static __device__ __forceinline__ int steps_reach(const pd_cuda_batch &batch, uint32_t table,
                                                  const unsigned char *page, uint32_t row, float score,
                                                  float bar)
{
    const pd_cuda_column *columns = batch.columns + (size_t)table * batch.view.nbytes;
    const uint8_t *steps = batch.steps + (size_t)table * batch.step_bytes;
    uint32_t sum = 0;
    for (uint32_t c = 0; c < batch.weighs[table].ncolumns; c++) {
        uint32_t value = page[batch.view.layout.bytes + (size_t)columns[c].column * PD_PAGE_ROWS + row];
        sum += steps[columns[c].steps + (value < columns[c].size ? value : columns[c].size)];
    }
    return score + batch.weighs[table].step * (float)sum >= bar;
}

/* A row that passed the first comparison: what is left of it goes to the query's candidates. Returns how many there are where
 * that is a number at which the bar is looked at, else 0. */
static __device__ uint32_t take_row(const pd_cuda_batch &batch, const pd_scan &scan, const tile_bars &bars,
                                    uint32_t q, uint32_t number, uint32_t row, float score)
{
    const pd_cuda_query &query = batch.queries[q];
    const unsigned char *page = pd_view_page(batch.view, number);
    if (query.table != PD_NONE && !steps_reach(batch, query.table, page, row, score, bars.least)) return 0;
    score = pd_row_weigh(batch, query, page, row, score);
    if (!(score >= bars.bar) || pd_row_excluded(batch, query, page, row)) return 0;
    uint32_t at = atomicAdd(&scan.tile_counts[q], 1u);
    if (at >= scan.tile_room) return 0;
    scan.slots[q * scan.span + at] = number * PD_PAGE_ROWS + row;
    *(volatile uint32_t *)&scan.scores[q * scan.span + at] = pd_ordered(score);
    at++;
    return at % pd_tile_round(query.keep) == 0 && at >= 2 * query.keep ? at : 0;
}

/* One of eight in registers. */
static __device__ __forceinline__ float pick(const float (&of)[8], uint32_t i)
{
    float a = i & 1 ? of[1] : of[0], b = i & 1 ? of[3] : of[2];
    float c = i & 1 ? of[5] : of[4], d = i & 1 ? of[7] : of[6];
    float low = i & 2 ? b : a, high = i & 2 ? d : c;
    return i & 4 ? high : low;
}

/* By a warp: the rows that passed in a page for one tile of 8 queries. scores[4 j + r]: of the lane's query j and row r. */
template <int TILES>
static __device__ void take_rows(const pd_cuda_batch &batch, const pd_scan &scan,
                                 const tile_block<TILES> *block, tile_bars *bars, uint32_t tile,
                                 uint32_t number, const float (&scores)[8], uint32_t pass)
{
    uint32_t first = tile * 8 + 2 * (pd_lane() % 4), round = 0, of = 0;
    for (; pass; pass &= pass - 1) {
        uint32_t bit = (uint32_t)__ffs((int)pass) - 1, at = first + bit / 4;
        uint32_t q = block->queries[at].q;
        uint32_t count =
            take_row(batch, scan, bars[at], q, number, 4 * (pd_lane() / 4) + bit % 4, pick(scores, bit));
        if (count) {
            round = count;
            of = q;
        }
    }
    __syncwarp();
    for (uint32_t some = __ballot_sync(PD_ALL_LANES, round != 0); some; some &= some - 1) {
        int lane = __ffs((int)some) - 1;
        raise_bar(batch, scan, __shfl_sync(PD_ALL_LANES, of, lane), __shfl_sync(PD_ALL_LANES, round, lane));
    }
    refresh_bars<TILES>(batch, block, bars);
}

/* ------------------------------------------------------------------------------------------------------ a page --- */

/* A page's scores and what passes. Returns how many of its rows exist. */
template <int TILES>
static __device__ __forceinline__ uint32_t take_page(const pd_cuda_batch &batch, const pd_scan &scan,
                                                     const tile_block<TILES> *block, tile_bars *bars,
                                                     uint32_t index, const int (&sums)[2][TILES][4],
                                                     const float *scales, const float *terms)
{
    uint32_t g = pd_lane() / 4, t = pd_lane() % 4;
    float4 scale = *(const float4 *)(scales + 4 * g), term = *(const float4 *)(terms + 4 * g);
    uint32_t live = __ballot_sync(PD_ALL_LANES, terms[pd_lane()] >= -FLT_MAX);
    PD_UNROLL
    for (int i = 0; i < TILES; i++) {
        if (8 * (uint32_t)i >= block->npairs) continue;
        float scores[8];
        uint32_t pass = 0;
        PD_UNROLL
        for (int j = 0; j < 2; j++) {
            uint32_t at = (uint32_t)i * 8 + 2 * t + (uint32_t)j;
            tile_query query = block->queries[at];
            float most = bars[at].most;
            float sim[4];
            sim[0] = (query.lt + term.x) + (query.qf * scale.x) * (float)sums[0][i][j];
            sim[1] = (query.lt + term.y) + (query.qf * scale.y) * (float)sums[0][i][2 + j];
            sim[2] = (query.lt + term.z) + (query.qf * scale.z) * (float)sums[1][i][j];
            sim[3] = (query.lt + term.w) + (query.qf * scale.w) * (float)sums[1][i][2 + j];
            PD_UNROLL
            for (int r = 0; r < 4; r++) {
                float score = query.a * sim[r] + 0.0f;
                scores[4 * j + r] = score;
                pass |= (uint32_t)(score >= most) << (4 * j + r);
            }
        }
        if (__any_sync(PD_ALL_LANES, pass != 0))
            take_rows<TILES>(batch, scan, block, bars, (uint32_t)i, batch.view.pages[index], scores, pass);
    }
    return (uint32_t)__popc(live);
}

/* ------------------------------------------------------------------------------------------------------ a block --- */

/* The item's queries: their codes, factors and bars. Places without a query of the tiles have a bar that nothing reaches. */
template <int TILES>
static __device__ void load_queries(const pd_cuda_batch &batch, const pd_scan &scan, const pd_tile &tile,
                                    tile_block<TILES> *block, uint2 *fragments)
{
    const pd_cuda_pair *pairs = batch.sorted + block->first_pair;
    uint32_t n = block->npairs;
    if (threadIdx.x < 8 * TILES) {
        tile_query own = {0.0f, 0.0f, 0.0f, PD_NONE};
        if (threadIdx.x < n) {
            pd_cuda_pair pair = pairs[threadIdx.x];
            const pd_cuda_query &query = batch.queries[pair.query];
            if (pd_tiles(scan, query)) {
                tile_query taken = {pair.lt, batch.qf[pair.query], query.a, pair.query};
                own = taken;
            }
        }
        block->queries[threadIdx.x] = own;
    }
    for (uint32_t i = threadIdx.x; i < PD_TILE_WARPS * 8 * TILES; i += blockDim.x) {
        tile_bars none = {INFINITY, INFINITY, INFINITY, 0};
        block->bars[i / (8 * TILES)][i % (8 * TILES)] = none;
    }
    pd_tile_queries<TILES>(tile, n, fragments, [=](uint32_t i) {
        return batch.codes + (size_t)pairs[i].query * batch.code_bytes;
    });
}

template <int TILES>
static __global__ void __launch_bounds__(PD_TILE_THREADS, 4)
    scan_tiles(PD_GRID const pd_cuda_batch batch, PD_GRID const pd_scan scan, PD_GRID const pd_tile tile,
               PD_GRID const tile_items items)
{
    PD_SHARED tile_block<TILES> block;
    PD_DYNAMIC(unsigned char, memory);
    const pd_cuda_view &view = batch.view;
    uint2 *fragments = (uint2 *)memory;
    unsigned char *ring =
        memory + (size_t)tile.steps * TILES * 32 * sizeof(uint2) + (size_t)pd_warp() * PD_STAGES * tile.stage;
    for (;;) {
        if (pd_warp() == 0) {
            int some = take_item<TILES>(batch, items, &block);
            if (pd_lane() == 0) block.item = (uint32_t)some;
        }
        __syncthreads();
        if (!block.item) return;
        load_queries<TILES>(batch, scan, tile, &block, fragments);
        __syncthreads();
        uint32_t used = (block.npairs + 7) / 8;
        tile_bars *bars = block.bars[pd_warp()];
        refresh_bars<TILES>(batch, &block, bars);
        uint32_t begin = block.first_page + pd_warp(), end = block.last_page, seen = 0;
        uint32_t pages = begin < end ? (end - begin + PD_TILE_WARPS - 1) / PD_TILE_WARPS : 0;
        pd_tile_walk<TILES>(
            tile, view.layout, view.slab, pages, fragments, used, ring,
            [&](uint32_t i) { return view.page_at[view.pages[begin + i * PD_TILE_WARPS]]; },
            [&](uint32_t i, int(&sums)[2][TILES][4], const float *scales, const float *terms) {
                if (i % REFRESH_PAGES == REFRESH_PAGES - 1) refresh_bars<TILES>(batch, &block, bars);
                seen += take_page<TILES>(batch, scan, &block, bars, begin + i * PD_TILE_WARPS, sums, scales,
                                         terms);
            });
        if (pd_lane() < 8 * TILES && block.queries[pd_lane()].q != PD_NONE && seen)
            atomicAdd(&batch.scanned[block.queries[pd_lane()].q], (unsigned long long)seen);
        __syncthreads();
    }
}

/* ------------------------------------------------------------------------------------------------------ launch --- */

template <int TILES>
static cudaError_t launch(pd_cuda_batch *batch, const pd_scan *scan, const pd_tile *tile,
                          const tile_items *items)
{
    cudaError_t error = PD_ALLOW_SHARED((scan_tiles<TILES>), tile->shared);
    if (error != cudaSuccess) return error;
    /* As many blocks as can be at work; each takes items until there are none. */
    uint32_t blocks = (uint32_t)(batch->device->sms > 0 ? batch->device->sms : 1) * 4;
    return PD_LAUNCH((scan_tiles<TILES>), blocks, PD_TILE_THREADS, tile->shared, batch->stream, *batch, *scan,
                     *tile, *items);
}

pd_status pd_scan_tiles(pd_cuda_batch *batch, const pd_scan *scan, pd_error *err)
{
    const pd_cuda_view *view = &batch->view;
    pd_tile tile = {};
    tile_items items = {};
    pd_tile_cut(view->layout.dim4, batch->device->shared_most, &tile);
    pd_status status = pd_take(batch, (size_t)view->nlist + 1, "items", &items.starts, err);
    if (status == PD_OK) status = pd_take(batch, 1, "items", &items.next, err);
    if (status != PD_OK) return status;
    cudaError_t error =
        cudaMemsetAsync(scan->scores, 0, batch->n * scan->span * sizeof(uint32_t), batch->stream);
    if (error == cudaSuccess)
        error = cudaMemsetAsync(scan->tile_counts, 0, batch->n * sizeof(uint32_t), batch->stream);
    if (error == cudaSuccess) error = cudaMemsetAsync(items.next, 0, sizeof(uint32_t), batch->stream);
    if (error == cudaSuccess)
        error = PD_LAUNCH(count_items, pd_blocks_of(view->nlist, ITEM_THREADS), ITEM_THREADS, 0,
                          batch->stream, *batch, items, 8 * tile.tiles);
    if (error == cudaSuccess) error = pd_sum_counts(batch, items.starts, NULL, view->nlist);
    if (error == cudaSuccess)
        error = tile.tiles == 4   ? launch<4>(batch, scan, &tile, &items)
                : tile.tiles == 2 ? launch<2>(batch, scan, &tile, &items)
                                  : launch<1>(batch, scan, &tile, &items);
    return pd_cuda_check(batch->device, error, "scanning tiles", err);
}
