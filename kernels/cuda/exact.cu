/* Exact search: every live row of the blocks against every query, from full-precision rows by the refine formula.
 *
 * Blocks come from the host a piece at a time: of the pages what is behind the codes (terms, ids, columns), and the rows.
 * A lane stands for a row of a page, and goes through it for two queries at a time with the sixteen lanes of the written sum in its
 * registers; the page's rows lie in shared memory, STRIP dimensions at a time, for all of the block's queries.
 *
 * A query's candidates have room for `k` and for every row of a piece, and are cut down between pieces, so that none is ever
 * lost. Ids are kept beside them, since the pages are gone when ties are settled.
 */
#include "build.cuh"
#include "row.cuh"

#define EXACT_WARPS   4u
#define EXACT_THREADS (32u * EXACT_WARPS)
#define EXACT_QUERIES (2u * EXACT_WARPS)
#define CUT_THREADS   256u
#define STRIP         64u /* dimensions, a multiple of 16 */
#define PIECE_PAGES   256u
#define PIECE_BYTES   ((size_t)32 << 20)

typedef struct exact_piece {
    const unsigned char *pages; /* [npages][page_bytes of the view's layout] */
    const unsigned char *rows;  /* [npages * 32][dim] */
    uint32_t npages, first_page;
    pd_refine dtype;
    uint32_t room;
    uint32_t *scores, *slots; /* [n][room] */
    pd_key *ids;              /* [n][room] */
    uint32_t *counts;         /* [n] */
} exact_piece;

typedef struct cuda_exact {
    pd_cuda_device *device;
    pd_cuda_lane lane;
    pd_cuda_batch batch;
    const pd_query *queries; /* the caller's, until the end */
    pd_layout layout;
    uint32_t piece_pages;
    size_t tail; /* bytes of a page behind its codes */
    unsigned char *pages, *rows;
    exact_piece piece;
    uint64_t scanned;
} cuda_exact;

/* --------------------------------------------------------------------------------------------- kernels --- */

/* STRIP dimensions of a page's rows, zeros behind dim. strip: [32][STRIP + 1], so that lanes fall on different banks. */
static __device__ void load_strip(const pd_cuda_view &view, const exact_piece &piece, uint32_t page,
                                  uint32_t from, float *strip)
{
    for (uint32_t i = threadIdx.x; i < PD_PAGE_ROWS * STRIP; i += blockDim.x) {
        uint32_t row = i / STRIP, d = from + i % STRIP;
        size_t at = ((size_t)page * PD_PAGE_ROWS + row) * view.dim + d;
        float value = 0.0f;
        if (d < view.dim)
            value = piece.dtype == PD_REFINE_F32 ? ((const float *)piece.rows)[at]
                                                 : pd_f16_to_f32(((const pd_f16 *)piece.rows)[at]);
        strip[row * (STRIP + 1) + i % STRIP] = value;
    }
}

/* The written halving of sixteen lanes in one thread's registers. */
static __device__ __forceinline__ float add_sixteen(float (&lane)[16])
{
    PD_UNROLL
    for (int j = 0; j < 8; j++)
        lane[j] = lane[j] + lane[j + 8];
    PD_UNROLL
    for (int j = 0; j < 4; j++)
        lane[j] = lane[j] + lane[j + 4];
    return (lane[0] + lane[2]) + (lane[1] + lane[3]);
}

/* The candidates of one query: a warp brings a page's rows. */
static __device__ void take_rows(const pd_cuda_batch &batch, const exact_piece &piece, uint32_t q,
                                 const unsigned char *page, uint32_t number, float sim)
{
    const pd_cuda_query &query = batch.queries[q];
    uint32_t row = pd_lane();
    float bar = pd_unordered(batch.bars[q]);
    int pass = pd_row_term(batch.view.layout, page, row) >= -FLT_MAX;
    float score = query.vector ? query.a * sim + 0.0f : 0.0f;
    pass = pass && score >= pd_under(batch.bounds[q], bar, batch.bounds[q].most);
    if (pass && query.filter != PD_NONE) pass = pd_row_passes(batch, batch.filters[query.filter], page, row);
    if (pass) {
        score = pd_row_weigh(batch, query, page, row, score);
        pass = score >= bar && !pd_row_excluded(batch, query, page, row);
    }
    uint32_t taken = __ballot_sync(PD_ALL_LANES, pass), first = 0;
    if (!taken) return;
    if (pd_lane() == 0) first = atomicAdd(&piece.counts[q], (uint32_t)__popc(taken));
    first = __shfl_sync(PD_ALL_LANES, first, 0);
    if (!pass) return;
    size_t at = (size_t)q * piece.room + first + (uint32_t)__popc(taken & ((1u << pd_lane()) - 1u));
    piece.scores[at] = pd_ordered(score);
    piece.slots[at] = number * PD_PAGE_ROWS + row;
    piece.ids[at] = pd_page_id(batch.view.layout, page, row);
}

/* A block is a page (blockIdx.x) and EXACT_QUERIES queries (blockIdx.y), two a warp. */
template <int L2>
static __global__ void __launch_bounds__(EXACT_THREADS)
    score_exact(PD_GRID const pd_cuda_batch batch, PD_GRID const exact_piece piece)
{
    PD_SHARED float strip[PD_PAGE_ROWS * (STRIP + 1)];
    const pd_cuda_view &view = batch.view;
    uint32_t q = blockIdx.y * EXACT_QUERIES + 2 * pd_warp(), last = batch.n - 1;
    const float *one = batch.vectors + (size_t)(q < last ? q : last) * view.dim16;
    const float *two = batch.vectors + (size_t)(q + 1 < last ? q + 1 : last) * view.dim16;
    float sums[16], more[16];
    PD_UNROLL
    for (int j = 0; j < 16; j++)
        sums[j] = more[j] = 0.0f;
    for (uint32_t from = 0; from < view.dim16; from += STRIP) {
        __syncthreads();
        load_strip(view, piece, blockIdx.x, from, strip);
        __syncthreads();
        uint32_t dims = view.dim16 - from < STRIP ? view.dim16 - from : STRIP;
        const float *row = strip + pd_lane() * (STRIP + 1);
        for (uint32_t d = 0; d < dims; d += 16) {
            PD_UNROLL
            for (int j = 0; j < 16; j++) {
                float value = row[d + (uint32_t)j], a = one[from + d + (uint32_t)j],
                      b = two[from + d + (uint32_t)j];
                float gap_a = a - value, gap_b = b - value;
                sums[j] = sums[j] + (L2 ? gap_a * gap_a : a * value);
                more[j] = more[j] + (L2 ? gap_b * gap_b : b * value);
            }
        }
    }
    const unsigned char *page = piece.pages + (size_t)blockIdx.x * view.layout.page_bytes;
    uint32_t number = piece.first_page + blockIdx.x;
    float first = add_sixteen(sums), second = add_sixteen(more);
    if (q < batch.n) take_rows(batch, piece, q, page, number, L2 ? -first : first);
    if (q + 1 < batch.n) take_rows(batch, piece, q + 1, page, number, L2 ? -second : second);
}

/* A block a query. */
static __global__ void cut_exact(PD_GRID const pd_cuda_batch batch, PD_GRID const exact_piece piece)
{
    PD_SHARED pd_block_work work;
    uint32_t q = blockIdx.x, worst = 0;
    pd_key *ids = piece.ids + (size_t)q * piece.room;
    uint32_t count =
        pd_block_cut(&work, piece.scores + (size_t)q * piece.room, piece.slots + (size_t)q * piece.room, ids,
                     piece.counts[q], batch.queries[q].k, &worst, [=](uint32_t i) { return ids[i]; });
    __syncthreads();
    if (threadIdx.x != 0) return;
    piece.counts[q] = count;
    if (worst > batch.bars[q]) batch.bars[q] = worst;
}

static __global__ void sort_exact(PD_GRID const pd_cuda_batch batch, PD_GRID const exact_piece piece)
{
    uint32_t q = blockIdx.x, count = piece.counts[q];
    size_t at = (size_t)q * piece.room;
    pd_hit *hits = batch.hits + batch.queries[q].hits;
    for (uint32_t i = threadIdx.x; i < count; i += blockDim.x) {
        hits[i].id = piece.ids[at + i];
        hits[i].score = pd_unordered(piece.scores[at + i]);
        hits[i].slot = piece.slots[at + i];
    }
    pd_sort_hits(hits, count);
}

/* ------------------------------------------------------------------------------------------------- begin --- */

static void exact_free(cuda_exact *exact)
{
    pd_cuda_lane_close(&exact->lane);
    free(exact);
}

/* The columns' sizes, which an index would have on the device. */
static pd_status place_columns(cuda_exact *exact, const pd_shape *shape, pd_error *err)
{
    pd_cuda_batch *b = &exact->batch;
    uint16_t *sizes;
    uint32_t *weight_at;
    pd_status status = pd_take(b, PD_MAX_BYTES, "columns", &sizes, err);
    if (status == PD_OK) status = pd_take(b, PD_MAX_BYTES, "columns", &weight_at, err);
    if (status != PD_OK) return status;
    cudaError_t error =
        cudaMemcpyAsync(sizes, shape->sizes, sizeof shape->sizes, cudaMemcpyHostToDevice, b->stream);
    if (error == cudaSuccess)
        error = cudaMemcpyAsync(weight_at, exact->layout.weight_at, sizeof exact->layout.weight_at,
                                cudaMemcpyHostToDevice, b->stream);
    if (error == cudaSuccess) error = cudaStreamSynchronize(b->stream);
    b->view.sizes = sizes;
    b->view.weight_at = weight_at;
    return pd_cuda_check(b->device, error, "preparing an exact search", err);
}

/* Memory for one piece and for every query's candidates. */
static pd_status take_piece(cuda_exact *exact, pd_error *err)
{
    pd_cuda_batch *b = &exact->batch;
    exact_piece *piece = &exact->piece;
    size_t page = exact->tail + (size_t)PD_PAGE_ROWS * b->view.dim * sizeof(float);
    exact->piece_pages = PIECE_BYTES / page < PIECE_PAGES ? (uint32_t)(PIECE_BYTES / page) : PIECE_PAGES;
    if (exact->piece_pages == 0) exact->piece_pages = 1;
    /* Many queries: shorter pieces, since each has room for all of one. */
    while (exact->piece_pages > 32 && (size_t)exact->piece_pages * PD_PAGE_ROWS * b->n > ((size_t)16 << 20))
        exact->piece_pages /= 2;
    piece->room = b->most_k + exact->piece_pages * PD_PAGE_ROWS;
    size_t entries = (size_t)piece->room * b->n;
    pd_status status = pd_take(b, exact->piece_pages * exact->tail, "rows", &exact->pages, err);
    if (status == PD_OK)
        status = pd_take(b, (size_t)exact->piece_pages * PD_PAGE_ROWS * b->view.dim * sizeof(float), "rows",
                         &exact->rows, err);
    if (status == PD_OK) status = pd_take(b, entries, "candidates", &piece->scores, err);
    if (status == PD_OK) status = pd_take(b, entries, "candidates", &piece->slots, err);
    if (status == PD_OK) status = pd_take(b, entries, "candidates", &piece->ids, err);
    if (status == PD_OK) status = pd_take(b, b->n, "candidates", &piece->counts, err);
    if (status == PD_OK) status = pd_take(b, b->nhits, "hits", &b->hits, err);
    if (status != PD_OK) return status;
    piece->pages = exact->pages;
    piece->rows = exact->rows;
    cudaError_t error = cudaMemsetAsync(piece->counts, 0, b->n * sizeof *piece->counts, b->stream);
    /* The queries travel from the pinned memory that rows will travel from. */
    if (error == cudaSuccess) error = cudaStreamSynchronize(b->stream);
    return pd_cuda_check(b->device, error, "preparing an exact search", err);
}

/* What is behind the codes, as a layout of its own. */
static void cut_codes(cuda_exact *exact)
{
    pd_cuda_layout *layout = &exact->batch.view.layout;
    uint32_t codes = layout->term;
    layout->term -= codes;
    layout->ids -= codes;
    layout->bytes -= codes;
    layout->floats -= codes;
    layout->keys -= codes;
    layout->page_bytes -= codes;
    exact->tail = layout->page_bytes;
}

pd_status pd_cuda_exact_begin(pd_device *base, const pd_shape *shape, const pd_query *queries, uint32_t count,
                              pd_exact **out, pd_error *err)
{
    pd_cuda_device *device = (pd_cuda_device *)base;
    pd_status status = pd_cuda_enter(device, err);
    if (status != PD_OK) return status;
    cuda_exact *exact = (cuda_exact *)calloc(1, sizeof *exact);
    if (!exact) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for an exact search");
    pd_cuda_batch *b = &exact->batch;
    exact->device = b->device = device;
    b->lane = &exact->lane;
    exact->queries = queries;
    status = pd_layout_of(shape, &exact->layout, err);
    if (status == PD_OK) status = pd_cuda_lane_open(device, &exact->lane, err);
    if (status == PD_OK && count > 0) {
        b->stream = exact->lane.stream;
        pd_cuda_view_of(shape, &exact->layout, &b->view);
        cut_codes(exact);
        status = place_columns(exact, shape, err);
        if (status == PD_OK) status = pd_cuda_upload(b, queries, count, shape, err);
        if (status == PD_OK) status = pd_cuda_prep(b, err);
        if (status == PD_OK) status = take_piece(exact, err);
    }
    if (status != PD_OK)
        exact_free(exact);
    else
        *out = (pd_exact *)exact;
    return status;
}

/* ------------------------------------------------------------------------------------------------ blocks --- */

/* Copies one piece in. The pinned memory is free again when this returns. */
static pd_status bring(cuda_exact *exact, const pd_block *block, uint32_t first, uint32_t n, pd_error *err)
{
    pd_cuda_batch *b = &exact->batch;
    size_t row = b->view.dim * (block->dtype == PD_REFINE_F32 ? sizeof(float) : sizeof(uint16_t));
    size_t pages = n * exact->tail, rows = (size_t)n * PD_PAGE_ROWS * row;
    pd_status status = pd_cuda_pinned_need(exact->device, &exact->lane.in, pages + rows, "rows", err);
    if (status != PD_OK) return status;
    for (uint32_t p = 0; p < n; p++) {
        const unsigned char *page =
            (const unsigned char *)block->pages + (first + p) * exact->layout.page_bytes;
        const float *term = (const float *)(page + exact->layout.term);
        for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
            exact->scanned += term[r] >= -FLT_MAX;
        memcpy(exact->lane.in.data + p * exact->tail, page + exact->layout.term, exact->tail);
    }
    memcpy(exact->lane.in.data + pages,
           (const unsigned char *)block->rows + (size_t)first * PD_PAGE_ROWS * row, rows);
    cudaError_t error =
        cudaMemcpyAsync(exact->pages, exact->lane.in.data, pages, cudaMemcpyHostToDevice, b->stream);
    if (error == cudaSuccess)
        error = cudaMemcpyAsync(exact->rows, exact->lane.in.data + pages, rows, cudaMemcpyHostToDevice,
                                b->stream);
    return pd_cuda_check(exact->device, error, "copying rows in", err);
}

/* n pages of rows that are on the device or on their way there; waits until they have been looked at. */
static pd_status score_piece(cuda_exact *exact, uint32_t n, uint32_t first_page, pd_refine dtype,
                             pd_error *err)
{
    pd_cuda_batch *b = &exact->batch;
    exact->piece.npages = n;
    exact->piece.first_page = first_page;
    exact->piece.dtype = dtype;
    dim3 grid(n, pd_blocks_of(b->n, EXACT_QUERIES));
    cudaError_t error =
        b->view.metric == PD_L2
            ? PD_LAUNCH((score_exact<1>), grid, EXACT_THREADS, 0, b->stream, *b, exact->piece)
            : PD_LAUNCH((score_exact<0>), grid, EXACT_THREADS, 0, b->stream, *b, exact->piece);
    if (error == cudaSuccess) error = PD_LAUNCH(cut_exact, b->n, CUT_THREADS, 0, b->stream, *b, exact->piece);
    if (error == cudaSuccess) error = cudaStreamSynchronize(b->stream);
    return pd_cuda_check(exact->device, error, "searching exactly", err);
}

pd_status pd_cuda_exact_block(pd_exact *base, const pd_block *block, pd_error *err)
{
    cuda_exact *exact = (cuda_exact *)base;
    pd_status status = pd_cuda_enter(exact->device, err);
    if (exact->batch.n == 0) return status;
    for (uint32_t first = 0, n; status == PD_OK && first < block->npages; first += n) {
        n = block->npages - first < exact->piece_pages ? block->npages - first : exact->piece_pages;
        status = bring(exact, block, first, n, err);
        if (status == PD_OK) status = score_piece(exact, n, block->first_page + first, block->dtype, err);
    }
    return status;
}

/* What is behind the codes of pages whose rows are made on the device. A thread a row. */
static __global__ void make_tails(pd_cuda_view view, unsigned char *pages, uint64_t first, uint32_t n)
{
    uint32_t i = blockIdx.x * blockDim.x + threadIdx.x, row = i % PD_PAGE_ROWS;
    unsigned char *page = pages + (size_t)(i / PD_PAGE_ROWS) * view.layout.page_bytes;
    if (i >= (n + PD_PAGE_ROWS - 1) / PD_PAGE_ROWS * PD_PAGE_ROWS) return;
    ((float *)(page + view.layout.term))[row] = i < n ? 0.0f : -INFINITY;
    ((uint64_t *)(page + view.layout.ids))[row] = first + i;
    for (uint32_t c = 0; c < view.nbytes; c++)
        page[view.layout.bytes + (size_t)c * PD_PAGE_ROWS + row] = pd_made_value(first + i, c, view.sizes[c]);
}

pd_status pd_cuda_exact_source(pd_exact *base, const pd_cuda_source *source, pd_error *err)
{
    cuda_exact *exact = (cuda_exact *)base;
    pd_cuda_batch *b = &exact->batch;
    pd_status status = pd_cuda_enter(exact->device, err);
    if (status == PD_OK && (b->view.nfloats || b->view.nkeys || b->view.dim != source->dim))
        status = pd_fail(err, PD_INVALID_ARGUMENT,
                         "rows of %u dimensions with byte columns alone can be made", source->dim);
    if (status != PD_OK || b->n == 0) return status;
    uint32_t most = exact->piece_pages * PD_PAGE_ROWS;
    for (uint64_t done = 0; status == PD_OK && done < source->n; done += most) {
        uint32_t n = source->n - done < most ? (uint32_t)(source->n - done) : most, npages = pd_pages_for(n);
        cudaError_t error = PD_LAUNCH(make_tails, pd_blocks_of((size_t)npages * PD_PAGE_ROWS, CUT_THREADS),
                                      CUT_THREADS, 0, b->stream, b->view, exact->pages, done, n);
        if (error == cudaSuccess)
            error = source->rows(source->context, done, n, (float *)exact->rows, b->stream);
        status = pd_cuda_check(exact->device, error, "making rows", err);
        if (status == PD_OK)
            status = score_piece(exact, npages, (uint32_t)(done / PD_PAGE_ROWS), PD_REFINE_F32, err);
        exact->scanned += n;
    }
    return status;
}

/* --------------------------------------------------------------------------------------------------- end --- */

static pd_status read_hits(cuda_exact *exact, pd_answer *answers, pd_error *err)
{
    pd_cuda_batch *b = &exact->batch;
    size_t hits = b->nhits * sizeof(pd_hit), counts = b->n * sizeof(uint32_t);
    cudaError_t error = PD_LAUNCH(sort_exact, b->n, CUT_THREADS, 0, b->stream, *b, exact->piece);
    pd_status status = pd_cuda_check(exact->device, error, "sorting hits", err);
    if (status == PD_OK)
        status = pd_cuda_pinned_need(exact->device, &exact->lane.out, hits + counts, "answers", err);
    if (status != PD_OK) return status;
    unsigned char *to = exact->lane.out.data;
    error = cudaMemcpyAsync(to, b->hits, hits, cudaMemcpyDeviceToHost, b->stream);
    if (error == cudaSuccess)
        error = cudaMemcpyAsync(to + hits, exact->piece.counts, counts, cudaMemcpyDeviceToHost, b->stream);
    if (error == cudaSuccess) error = cudaStreamSynchronize(b->stream);
    status = pd_cuda_check(exact->device, error, "copying answers out", err);
    const pd_hit *from = (const pd_hit *)to;
    for (uint32_t q = 0; status == PD_OK && q < b->n; q++) {
        pd_answer *answer = &answers[q];
        answer->count = ((const uint32_t *)(to + hits))[q];
        answer->nprobe = 0;
        answer->scanned = exact->scanned;
        memcpy(answer->hits, from, answer->count * sizeof *from);
        from += exact->queries[q].k;
    }
    return status;
}

pd_status pd_cuda_exact_end(pd_exact *base, pd_answer *answers, pd_error *err)
{
    cuda_exact *exact = (cuda_exact *)base;
    pd_status status = PD_OK;
    if (answers) status = pd_cuda_enter(exact->device, err);
    if (status == PD_OK && answers && exact->batch.n > 0) status = read_hits(exact, answers, err);
    exact_free(exact);
    return status;
}
