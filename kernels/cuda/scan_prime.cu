/* Bars before the scan: what the keep-th best of some rows of a query's nearest list reaches, its keep best rows reach at least.
 *
 * Without it all of a query's lists begin without a bar, and where they lie close (groups number them so) they are at work at the
 * same time: thousands of rows are appended before the first bar is known. Some 512 rows for each query are a twentieth of
 * what its lists hold, and leave a few hundred candidates of it (tests/simt/test_candidates.cpp prints the model). They are scored again by
 * the scan, so that nothing here touches candidates. */
#include "scan.cuh"

#define PRIME_THREADS 256u

typedef struct prime_block {
    pd_block_work work;
    uint32_t scores[PD_PRIME_MOST]; /* pd_ordered; 0: no row that can be an answer */
} prime_block;

/* The pair with the largest list term among those whose lists have pages; PD_NONE: there is none. By a block. */
static __device__ uint32_t nearest_pair(pd_block_work *work, const pd_cuda_batch &batch,
                                        const pd_cuda_query &query)
{
    const pd_cuda_pair *pairs = batch.pairs + query.pairs;
    const uint32_t *offsets = batch.view.offsets;
    pd_key low, high;
    pd_block_range(
        work, query.npairs,
        [=](uint32_t i, pd_key *value) {
            *value = (pd_key)(uint32_t)~pd_ordered(pairs[i].lt) << 32 | i;
            return offsets[pairs[i].list + 1] > offsets[pairs[i].list];
        },
        &low, &high);
    return low > high ? PD_NONE : (uint32_t)low;
}

/* By a warp: the scores of a page's rows. */
static __device__ void score_page(const pd_cuda_batch &batch, uint32_t q, const uint32_t *words, float lt,
                                  uint32_t number, uint32_t *scores)
{
    const pd_cuda_view &view = batch.view;
    const pd_cuda_query &query = batch.queries[q];
    const unsigned char *page = pd_view_page(view, number);
    uint32_t row = pd_lane_row();
    float term = pd_row_term(view.layout, page, row),
          scale = ((const float *)(page + view.layout.scale))[row];
    int dot = pd_page_dot(page + view.layout.codes, words, view.layout.dim4 / 4);
    float sim = (lt + term) + (batch.qf[q] * scale) * (float)dot;
    float score = query.a * sim + 0.0f;
    int counts = term >= -FLT_MAX;
    if (counts && query.filter != PD_NONE)
        counts = pd_row_passes(batch, batch.filters[query.filter], page, row);
    if (counts) {
        score = pd_row_weigh(batch, query, page, row, score);
        counts = score >= -FLT_MAX && !pd_row_excluded(batch, query, page, row);
    }
    scores[row] = counts ? pd_ordered(score) : 0;
}

/* A block a query. Dynamic shared memory: the query's codes. */
static __global__ void __launch_bounds__(PRIME_THREADS) prime_bars(PD_GRID const pd_cuda_batch batch)
{
    PD_SHARED prime_block block;
    PD_DYNAMIC(uint32_t, words);
    const pd_cuda_view &view = batch.view;
    const pd_cuda_query &query = batch.queries[blockIdx.x];
    const uint32_t *codes = (const uint32_t *)(batch.codes + (size_t)blockIdx.x * batch.code_bytes);
    if (!query.vector || query.npairs == 0) return;
    uint32_t at = nearest_pair(&block.work, batch, query);
    if (at == PD_NONE) return;
    for (uint32_t i = threadIdx.x; i < view.layout.dim4 / 4; i += blockDim.x)
        words[i] = codes[i];
    __syncthreads();
    const pd_cuda_pair &pair = batch.pairs[query.pairs + at];
    const uint32_t *pages = view.pages + view.offsets[pair.list];
    uint32_t npages = view.offsets[pair.list + 1] - view.offsets[pair.list],
             some = (pd_prime_rows(query.keep) + PD_PAGE_ROWS - 1) / PD_PAGE_ROWS, before, equal, there = 0;
    if (npages > some) npages = some;
    for (uint32_t i = pd_warp(); i < npages; i += blockDim.x / 32)
        score_page(batch, blockIdx.x, words, pair.lt, pages[i], block.scores + i * PD_PAGE_ROWS);
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < npages * PD_PAGE_ROWS; i += blockDim.x)
        there += block.scores[i] != 0;
    uint32_t total;
    pd_block_sum(&block.work, there, &total);
    if (total < query.keep) return;
    const uint32_t *scores = block.scores;
    pd_key bar = pd_block_kth(&block.work, npages * PD_PAGE_ROWS, query.keep, &before, &equal,
                              [=](uint32_t i, pd_key *value) {
                                  *value = (pd_key)(uint32_t)~scores[i];
                                  return scores[i] != 0;
                              });
    if (threadIdx.x == 0) atomicMax(&batch.bars[blockIdx.x], ~(uint32_t)bar);
}

pd_status pd_prime(pd_cuda_batch *batch, pd_error *err)
{
    if (!batch->codes) return PD_OK;
    return pd_cuda_check(
        batch->device,
        PD_LAUNCH(prime_bars, batch->n, PRIME_THREADS, batch->view.layout.dim4, batch->stream, *batch),
        "setting bars", err);
}
