/* The scan where few queries share a list, bound by bytes, and every kind of code, filter and slot.
 *
 * A query's pages, list after list, are cut into as many pieces as blocks it gets; in a block every warp takes a page at a
 * time, finds its pages 32 at a time and asks for the next one while it scores one. i8 codes are read 16 bytes a lane, as they lie: four groups of four dimensions times 32 rows a load, dp4a against
 * the query's words in shared memory, and eight lanes' sums brought together at the end; a lane then stands for a row.
 *
 * What passes goes to the block's own candidates. When the room runs out between two rounds the block cuts them down to the
 * best under the total order, so that nothing is ever dropped, however many rows tie. This is the path that queries take whose
 * candidates overflowed in the tiles.
 */
#include "scan.cuh"

#define AHEAD_BYTES 8192u /* of a page that are asked for while the one before it is scored */

typedef struct row_block {
    pd_block_work work;
    uint32_t count;
    float bar, bar_most; /* no row under them is wanted: of the score, of the similarity's score */
    unsigned long long scanned;
} row_block;

/* What a block works on. */
typedef struct row_task {
    uint32_t q, part;
    uint32_t *scores, *slots; /* [scan.room] */
    const float *vector;      /* [dim16], or */
    const uint32_t *words;    /* [dim4 / 4] in shared memory */
} row_task;

/* ------------------------------------------------------------------------------------------ similarities --- */

/* The written sum over dimensions, ascending, with codes [dim][32]. */
template <pd_code CODE>
static __device__ __forceinline__ float page_sum(const unsigned char *codes, const float *vector,
                                                 uint32_t dim, uint32_t row, int l2)
{
    float sum = 0.0f;
    for (uint32_t d = 0; d < dim; d++) {
        size_t at = (size_t)d * PD_PAGE_ROWS + row;
        float value =
            CODE == PD_CODE_F32 ? ((const float *)codes)[at] : pd_f16_to_f32(((const pd_f16 *)codes)[at]);
        float gap = vector[d] - value;
        sum = l2 ? sum - gap * gap : sum + vector[d] * value;
    }
    return sum;
}

/* The refine formula for every row of a page: half a warp a row. */
static __device__ float page_refined(const pd_cuda_view &view, uint32_t page, const float *vector,
                                     uint32_t row)
{
    const unsigned char *rows = pd_view_refine(view, page);
    size_t bytes = view.layout.refine_bytes / PD_PAGE_ROWS;
    float own = 0.0f;
    for (uint32_t step = 0; step < 16; step++) {
        uint32_t of = step + (pd_lane() & 16u);
        float sum = pd_half_refined(vector, rows + of * bytes, view.refine, view.dim, view.metric == PD_L2);
        float low = __shfl_sync(PD_ALL_LANES, sum, 0), high = __shfl_sync(PD_ALL_LANES, sum, 16);
        if (row == step) own = low;
        if (row == step + 16) own = high;
    }
    return own;
}

/* The score of the similarity alone of the lane's row. */
template <pd_code CODE>
static __device__ __forceinline__ float page_score(const pd_cuda_batch &batch, const row_task &task, float lt,
                                                   uint32_t page, const unsigned char *at, uint32_t row,
                                                   float term)
{
    const pd_cuda_view &view = batch.view;
    const pd_cuda_query &query = batch.queries[task.q];
    if (!query.vector) return 0.0f;
    float sim;
    if (CODE == PD_CODE_I8) {
        int dot = pd_page_dot(at + view.layout.codes, task.words, view.layout.dim4 / 4);
        float scale = ((const float *)(at + view.layout.scale))[row];
        sim = (lt + term) + (batch.qf[task.q] * scale) * (float)dot;
    } else if (CODE == PD_CODE_NONE) {
        sim = page_refined(view, page, task.vector, row);
    } else {
        sim = page_sum<CODE>(at + view.layout.codes, task.vector, view.dim, row, view.metric == PD_L2);
    }
    return query.a * sim + 0.0f;
}

/* ---------------------------------------------------------------------------------------------------- a page --- */

/* By a warp: the rows of a page, which may hold some that pass, that are in `rows`. */
template <pd_code CODE>
static __device__ void take_page(const pd_cuda_batch &batch, const row_task &task, row_block *block, float lt,
                                 uint32_t page, uint32_t rows, int counts)
{
    const pd_cuda_view &view = batch.view;
    const pd_cuda_query &query = batch.queries[task.q];
    int filtered = query.filter != PD_NONE;
    const unsigned char *at = pd_view_page(view, page);
    uint32_t row = pd_lane_row();
    float term = pd_row_term(view.layout, at, row);
    int live = (rows >> row & 1u) && term >= -FLT_MAX;
    uint32_t alive = __ballot_sync(PD_ALL_LANES, live);
    int pass = live;
    if (filtered) pass = live && pd_row_passes(batch, batch.filters[query.filter], at, row);
    if (!__any_sync(PD_ALL_LANES, pass)) return;
    if (counts && pd_lane() == 0) atomicAdd(&block->scanned, (unsigned long long)__popc(alive));
    float score = page_score<CODE>(batch, task, lt, page, at, row, term);
    pass = pass && score >= block->bar_most;
    if (pass) {
        score = pd_row_weigh(batch, query, at, row, score);
        pass = score >= block->bar && !pd_row_excluded(batch, query, at, row);
    }
    uint32_t taken = __ballot_sync(PD_ALL_LANES, pass), first = 0;
    if (!taken) return;
    if (pd_lane() == 0) first = atomicAdd(&block->count, (uint32_t)__popc(taken));
    first = __shfl_sync(PD_ALL_LANES, first, 0);
    if (!pass) return;
    first += (uint32_t)__popc(taken & ((1u << pd_lane()) - 1u));
    task.scores[first] = pd_ordered(score);
    task.slots[first] = page * PD_PAGE_ROWS + row;
}

/* ------------------------------------------------------------------------------------------------- a block --- */

/* By one thread. */
static __device__ void set_bars(const pd_cuda_batch &batch, const row_task &task, row_block *block)
{
    const pd_cuda_bound &bound = batch.bounds[task.q];
    uint32_t bar = *(volatile const uint32_t *)&batch.bars[task.q];
    block->bar = pd_unordered(bar);
    block->bar_most = pd_under(bound, block->bar, bound.most);
}

/* Cuts the candidates down to `keep`, and tells the others. */
static __device__ void cut_block(const pd_cuda_batch &batch, const row_task &task, row_block *block)
{
    const pd_cuda_view &view = batch.view;
    const uint32_t *slots = task.slots;
    uint32_t worst = 0, count = block->count;
    uint32_t left =
        pd_block_cut(&block->work, task.scores, task.slots, NULL, count, batch.queries[task.q].keep, &worst,
                     [=](uint32_t i) { return (pd_key)pd_slot_id(view, slots[i]); });
    __syncthreads();
    if (threadIdx.x == 0) {
        block->count = left;
        if (worst) atomicMax(&batch.bars[task.q], worst);
        set_bars(batch, task, block);
    }
    __syncthreads();
}

/* Between rounds, by all threads: is there room for the next ones? */
static __device__ void make_room(const pd_cuda_batch &batch, const pd_scan &scan, const row_task &task,
                                 row_block *block)
{
    __syncthreads();
    uint32_t count = block->count;
    __syncthreads();
    if (count + PD_ROW_MARGIN > scan.room) {
        cut_block(batch, task, block);
    } else {
        if (threadIdx.x == 0) set_bars(batch, task, block);
        __syncthreads();
    }
}

/* The last of the query's pairs whose pages begin at or before `page`. */
static __device__ uint32_t pair_of(const uint32_t *page_at, uint32_t npairs, uint32_t page)
{
    uint32_t low = 0, high = npairs;
    while (low + 1 < high) {
        uint32_t mid = low + (high - low) / 2;
        if (page_at[mid] <= page)
            low = mid;
        else
            high = mid;
    }
    return low;
}

/* What a warp will look at, a lane a round: finding a page is a chain of reads, which 32 pages share. */
typedef struct row_ahead {
    uint32_t page; /* PD_NONE: no page, or none of its rows can pass */
    float lt;
} row_ahead;

/* i: of the query's pages */
static __device__ row_ahead look_ahead(const pd_cuda_batch &batch, const pd_cuda_query &query,
                                       const uint32_t *page_at, uint32_t i, uint32_t last)
{
    const pd_cuda_view &view = batch.view;
    row_ahead ahead = {PD_NONE, 0.0f};
    if (i >= last) return ahead;
    uint32_t p = pair_of(page_at, query.npairs, i);
    pd_cuda_pair pair = batch.pairs[query.pairs + p];
    ahead.page = view.pages[view.offsets[pair.list] + (i - page_at[p])];
    ahead.lt = pair.lt;
    if (query.filter != PD_NONE && !pd_page_may(view, batch.filters[query.filter], ahead.page))
        ahead.page = PD_NONE;
    return ahead;
}

/* By a warp: asks for what is read first of a page, the codes where all rows are scored and the columns where few are. */
static __device__ void ask_for(const pd_cuda_view &view, uint32_t page, int filtered)
{
    const pd_cuda_layout &layout = view.layout;
    uint32_t from = filtered ? layout.scale : 0, end = filtered ? layout.page_bytes : layout.ids;
    const unsigned char *at = pd_view_page(view, page);
    if (end - from > AHEAD_BYTES) end = from + AHEAD_BYTES;
    for (uint32_t i = from + pd_lane() * 128; i < end; i += 32 * 128)
        pd_prefetch(at + i);
}

template <pd_code CODE>
static __device__ void scan_pairs(const pd_cuda_batch &batch, const pd_scan &scan, const row_task &task,
                                  row_block *block, int counts)
{
    const pd_cuda_query &query = batch.queries[task.q];
    uint32_t pages = scan.page_count[task.q], warps = blockDim.x / 32;
    uint32_t first = (uint32_t)((unsigned long long)pages * task.part / scan.parts);
    uint32_t last = (uint32_t)((unsigned long long)pages * (task.part + 1) / scan.parts);
    row_ahead ahead = {PD_NONE, 0.0f};
    for (uint32_t round = 0; first + round * warps < last; round++) {
        if (round % PD_ROW_ROUNDS == 0) make_room(batch, scan, task, block);
        uint32_t at = round % 32;
        if (at == 0)
            ahead = look_ahead(batch, query, scan.page_at + query.pairs,
                               first + (round + pd_lane()) * warps + pd_warp(), last);
        uint32_t page = __shfl_sync(PD_ALL_LANES, ahead.page, (int)at);
        uint32_t next = __shfl_sync(PD_ALL_LANES, ahead.page, (int)(at + 1) % 32);
        float lt = __shfl_sync(PD_ALL_LANES, ahead.lt, (int)at);
        if (at < 31 && next != PD_NONE) ask_for(batch.view, next, query.filter != PD_NONE);
        if (page != PD_NONE) take_page<CODE>(batch, task, block, lt, page, 0xffffffffu, counts);
    }
}

/* --------------------------------------------------------------------------------------------------- slots --- */

/* By a warp: does the query probe this list? */
static __device__ int probes_list(const pd_cuda_batch &batch, const pd_cuda_query &query, uint32_t list)
{
    int found = 0;
    for (uint32_t i = pd_lane(); i < query.npairs; i += 32)
        found |= batch.pairs[query.pairs + i].list == list;
    return __any_sync(PD_ALL_LANES, found);
}

/* By a warp: the slots that lie in one page, from the first of them on. */
template <pd_code CODE>
static __device__ void take_slots(const pd_cuda_batch &batch, const row_task &task, row_block *block,
                                  uint32_t first)
{
    const pd_cuda_view &view = batch.view;
    const pd_cuda_query &query = batch.queries[task.q];
    const uint32_t *slots = batch.slots + query.slots;
    uint32_t page = slots[first] / PD_PAGE_ROWS, rows = 0;
    if (first + pd_lane() < query.nslots && slots[first + pd_lane()] / PD_PAGE_ROWS == page)
        rows = 1u << slots[first + pd_lane()] % PD_PAGE_ROWS;
    for (uint32_t by = 16; by > 0; by >>= 1)
        rows |= __shfl_xor_sync(PD_ALL_LANES, rows, by);
    uint32_t list = view.page_list[page];
    if (list == PD_NO_LIST || probes_list(batch, query, list)) return;
    if (query.filter != PD_NONE && !pd_page_may(view, batch.filters[query.filter], page)) return;
    float lt = 0.0f;
    if (view.listed && query.vector)
        lt = pd_half_similarity(batch.vectors + (size_t)task.q * view.dim16,
                                view.centroids + (size_t)list * view.dim16, view.dim16, view.metric == PD_L2);
    take_page<CODE>(batch, task, block, lt, page, rows, 1);
}

/* A warp looks at 32 slots at a time, which are at most as many rows as a page has. */
template <pd_code CODE>
static __device__ void scan_slots(const pd_cuda_batch &batch, const pd_scan &scan, const row_task &task,
                                  row_block *block)
{
    const pd_cuda_query &query = batch.queries[task.q];
    const uint32_t *slots = batch.slots + query.slots;
    if (query.nslots == 0 || query.npairs == batch.view.nlist) return;
    uint32_t windows = (query.nslots + 31) / 32, warps = blockDim.x / 32;
    uint32_t first = (uint32_t)((unsigned long long)windows * task.part / scan.parts);
    uint32_t last = (uint32_t)((unsigned long long)windows * (task.part + 1) / scan.parts);
    for (uint32_t round = 0; first + round * warps < last; round++) {
        if (round % PD_ROW_ROUNDS == 0) make_room(batch, scan, task, block);
        uint32_t window = first + round * warps + pd_warp(), i = window * 32 + pd_lane();
        if (window >= last) continue;
        int begins = i < query.nslots && (i == 0 || slots[i] / PD_PAGE_ROWS != slots[i - 1] / PD_PAGE_ROWS);
        for (uint32_t heads = __ballot_sync(PD_ALL_LANES, begins); heads; heads &= heads - 1)
            take_slots<CODE>(batch, task, block, window * 32 + (uint32_t)__ffs((int)heads) - 1);
    }
}

/* --------------------------------------------------------------------------------------------------- launch --- */

/* A block a query and part. Dynamic shared memory: the query's codes or its vector. */
template <pd_code CODE>
static __global__ void __launch_bounds__(PD_ROW_THREADS, 3)
    scan_rows(PD_GRID const pd_cuda_batch batch, PD_GRID const pd_scan scan)
{
    PD_SHARED row_block block;
    PD_DYNAMIC(unsigned char, memory);
    const pd_cuda_view &view = batch.view;
    row_task task = {};
    task.q = blockIdx.x / scan.parts;
    task.part = blockIdx.x % scan.parts;
    const pd_cuda_query &query = batch.queries[task.q];
    uint32_t *count = &scan.counts[(size_t)task.q * scan.parts + task.part];
    int tiles = pd_tiles(scan, query), again = tiles && scan.tile_counts[task.q] > scan.tile_room;
    int slots = query.nslots > 0 && query.npairs < view.nlist;
    if (tiles && !again && !slots) {
        if (threadIdx.x == 0) *count = 0;
        return;
    }
    size_t at = task.q * scan.span + scan.tile_room + (size_t)task.part * scan.room;
    task.scores = scan.scores + at;
    task.slots = scan.slots + at;
    uint32_t words = CODE == PD_CODE_I8 ? view.layout.dim4 / 4 : view.dim16;
    const uint32_t *from = CODE == PD_CODE_I8
                               ? (const uint32_t *)(batch.codes + (size_t)task.q * batch.code_bytes)
                               : (const uint32_t *)(batch.vectors + (size_t)task.q * view.dim16);
    for (uint32_t i = threadIdx.x; query.vector && i < words; i += blockDim.x)
        ((uint32_t *)memory)[i] = from[i];
    task.words = (const uint32_t *)memory;
    task.vector = (const float *)memory;
    if (threadIdx.x == 0) {
        block.count = 0;
        block.scanned = 0;
        set_bars(batch, task, &block);
    }
    __syncthreads();
    if (!tiles || again) scan_pairs<CODE>(batch, scan, task, &block, !tiles);
    if (slots) scan_slots<CODE>(batch, scan, task, &block);
    __syncthreads();
    cut_block(batch, task, &block);
    if (threadIdx.x != 0) return;
    *count = block.count;
    if (block.scanned) atomicAdd(&batch.scanned[task.q], block.scanned);
}

template <pd_code CODE> static cudaError_t launch(pd_cuda_batch *batch, const pd_scan *scan)
{
    const pd_cuda_view *view = &batch->view;
    size_t shared = CODE == PD_CODE_I8 ? view->layout.dim4 : view->dim16 * sizeof(float);
    return PD_LAUNCH((scan_rows<CODE>), batch->n * scan->parts, PD_ROW_THREADS, shared, batch->stream, *batch,
                     *scan);
}

pd_status pd_scan_rows(pd_cuda_batch *batch, const pd_scan *scan, pd_error *err)
{
    cudaError_t error = cudaSuccess;
    switch (batch->view.code) {
    case PD_CODE_I8:
        error = launch<PD_CODE_I8>(batch, scan);
        break;
    case PD_CODE_F16:
        error = launch<PD_CODE_F16>(batch, scan);
        break;
    case PD_CODE_F32:
        error = launch<PD_CODE_F32>(batch, scan);
        break;
    case PD_CODE_NONE:
        error = launch<PD_CODE_NONE>(batch, scan);
        break;
    }
    return pd_cuda_check(batch->device, error, "scanning", err);
}
