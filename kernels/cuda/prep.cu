/* Queries made ready: vectors quantised for the scan and for choosing lists, weight tables cut down to the columns that weigh
 * anything and given bounds in whole steps, what they promise of each list.
 *
 * Queries of one request share their table, and then also what is made of it: search.cu numbers them. Bounds are those of
 * cpu/prep.c; nothing of them reaches an answer, so that a looser one would only cost time. */
#include "coarse.cuh"

#define TABLE_THREADS 128u
#define QUERY_THREADS 128u

/* ------------------------------------------------------------------------------------------------ vectors --- */

/* The written quantisation of query - less (NULL: of query) by a warp. Returns qs. codes: [bytes], zeros behind dim */
static __device__ float quantise(const float *query, const float *less, uint32_t dim, uint32_t bytes,
                                 int8_t *codes)
{
    float most = 0.0f;
    for (uint32_t d = pd_lane(); d < dim; d += 32) {
        float size = fabsf(less ? query[d] - less[d] : query[d]);
        most = size > most ? size : most;
    }
    for (uint32_t by = 16; by > 0; by >>= 1) {
        float other = __shfl_xor_sync(PD_ALL_LANES, most, by);
        most = other > most ? other : most;
    }
    float per = 127.0f / most;
    int some = per > 0.0f && per <= FLT_MAX;
    for (uint32_t d = pd_lane(); d < bytes; d += 32) {
        float code = 0.0f;
        if (d < dim && some) {
            code = (less ? query[d] - less[d] : query[d]) * per;
            code = code > 127.0f ? 127.0f : code;
            code = code < -127.0f ? -127.0f : code;
            code = pd_round(code);
        }
        codes[d] = (int8_t)code;
    }
    return some ? most / 127.0f : 0.0f;
}

/* Codes for the scan and for choosing lists. from: what is quantised, mean: what it is moved by for choosing under l2 */
static __device__ void prepare_codes(const pd_cuda_batch &batch, uint32_t q, const float *from,
                                     const float *mean)
{
    const pd_cuda_view &view = batch.view;
    int l2 = view.metric == PD_L2;
    size_t at = (size_t)q * batch.code_bytes;
    if (batch.codes) {
        float qs = quantise(from, NULL, view.width, batch.code_bytes, batch.codes + at);
        if (pd_lane() == 0) batch.qf[q] = l2 ? 2.0f * qs : qs;
    }
    float nf = quantise(from, l2 ? mean : NULL, view.width, batch.code_bytes, batch.near_codes + at);
    if (pd_lane() == 0) batch.nf[q] = l2 ? 2.0f * nf : nf;
}

/* A warp a query. */
static __global__ void prepare_vectors(PD_GRID const pd_cuda_batch batch)
{
    uint32_t q = blockIdx.x * (blockDim.x / 32) + pd_warp();
    if (q >= batch.n) return;
    prepare_codes(batch, q, batch.vectors + (size_t)q * batch.view.dim16, batch.view.mean);
}

/* The same where codes have fewer dimensions than rows: p(q) of score.h first, by the dots of the scan with pages of directions.
 * projected: [n][width]; dynamic shared memory: a query's codes of all dimensions for each warp */
static __global__ void prepare_projected(PD_GRID const pd_cuda_batch batch, float *projected, uint32_t bytes)
{
    PD_DYNAMIC(int8_t, memory);
    const pd_cuda_view &view = batch.view;
    const pd_cuda_layout &layout = view.projected;
    uint32_t q = blockIdx.x * (blockDim.x / 32) + pd_warp();
    if (q >= batch.n) return;
    int8_t *codes = memory + (size_t)pd_warp() * bytes;
    float *out = projected + (size_t)q * view.width;
    float scale = quantise(batch.vectors + (size_t)q * view.dim16, NULL, view.dim, bytes, codes);
    __syncwarp();
    for (uint32_t first = 0; first < view.width; first += PD_PAGE_ROWS) {
        const unsigned char *page = view.projection + (size_t)(first / PD_PAGE_ROWS) * layout.page_bytes;
        int dot = pd_page_dot(page + layout.codes, (const uint32_t *)codes, layout.dim4 / 4);
        uint32_t j = first + pd_lane_row();
        float own = (scale * ((const float *)(page + layout.scale))[pd_lane_row()]) * (float)dot + 0.0f;
        if (j < view.width) out[j] = own;
    }
    __syncwarp();
    prepare_codes(batch, q, out, view.mean_out);
}

/* ------------------------------------------------------------------------------------------------ weights --- */

/* The least and the most that a column gives; values past its size weigh nothing and count too. Returns whether it weighs
 * anything. */
static __device__ int column_range(const float *weights, uint32_t size, float *least, float *most)
{
    int weighs = 0;
    *least = *most = size < 256 ? 0.0f : weights[0];
    for (uint32_t v = 0; v < size; v++) {
        weighs |= weights[v] != 0.0f;
        *most = weights[v] > *most ? weights[v] : *most;
        *least = weights[v] < *least ? weights[v] : *least;
    }
    return weighs;
}

/* Those that weigh anything, in order, and the sums over them; by one thread. */
static __device__ void gather_columns(const pd_cuda_view &view, const float *least, const float *most,
                                      const uint8_t *weighs, pd_cuda_column *columns, pd_cuda_weigh *out)
{
    pd_cuda_weigh weigh = {};
    double range = 0;
    for (uint32_t c = 0; c < view.nbytes; c++) {
        if (!weighs[c]) continue;
        pd_cuda_column column = {c, view.sizes[c], view.weight_at[c], view.weight_at[c] + c, most[c], 0.0f};
        columns[weigh.ncolumns++] = column;
        weigh.most += (double)most[c];
        weigh.least += (double)least[c];
        range += (double)most[c] - (double)least[c];
        weigh.size += fmax(fabs((double)most[c]), fabs((double)least[c]));
    }
    /* With so many columns that whole steps say nothing, everything may reach everything; the same where the range is so
     * small that it cannot be cut. */
    int rooms = 255 - 2 * (int)weigh.ncolumns;
    weigh.step = rooms > 0 ? (float)(range / rooms) * 1.00001f : 0.0f;
    if (!(weigh.step >= 256 * FLT_MIN) || !(range <= (double)FLT_MAX)) {
        weigh.step = 0.0f;
        weigh.least = weigh.most;
    }
    *out = weigh;
}

/* A block a table. */
static __global__ void prepare_tables(PD_GRID const pd_cuda_batch batch)
{
    PD_SHARED float least[PD_MAX_BYTES], most[PD_MAX_BYTES];
    PD_SHARED uint8_t weighs[PD_MAX_BYTES];
    const pd_cuda_view &view = batch.view;
    uint32_t t = blockIdx.x;
    const float *table = batch.tables + (size_t)t * view.weights;
    pd_cuda_column *columns = batch.columns + (size_t)t * view.nbytes;
    uint8_t *steps = batch.steps + (size_t)t * batch.step_bytes;
    for (uint32_t c = threadIdx.x; c < view.nbytes; c += blockDim.x)
        weighs[c] = (uint8_t)(view.sizes[c] > 0 &&
                              column_range(table + view.weight_at[c], view.sizes[c], &least[c], &most[c]));
    __syncthreads();
    if (threadIdx.x == 0) gather_columns(view, least, most, weighs, columns, &batch.weighs[t]);
    __syncthreads();
    float step = batch.weighs[t].step;
    /* A step more than the quotient rounded down: never too small, whatever the rounding. */
    float per = step > 0.0f ? 1.000001f / step : 0.0f;
    for (uint32_t i = 0; i < batch.weighs[t].ncolumns; i++) {
        const pd_cuda_column &column = columns[i];
        float nothing = column.most < 0.0f ? 0.0f : pd_exp_inline(view.beta * (0.0f - column.most));
        for (uint32_t v = threadIdx.x; v <= column.size; v += blockDim.x) {
            float weight = v < column.size ? table[column.weights + v] : 0.0f;
            uint8_t some = (uint8_t)(int32_t)((weight - least[column.column]) * per + 1.0f);
            steps[column.steps + v] = step > 0.0f ? some : 0;
            if (batch.powers && v < column.size)
                batch.powers[(size_t)t * view.weights + column.weights + v] =
                    pd_exp_inline(view.beta * (weight - column.most)) - nothing;
        }
        if (threadIdx.x == 0) columns[i].nothing = nothing;
    }
}

/* What a query's weights can give. */
static __global__ void prepare_bounds(PD_GRID const pd_cuda_batch batch)
{
    uint32_t q = blockIdx.x * blockDim.x + threadIdx.x;
    if (q >= batch.n) return;
    const pd_cuda_query &query = batch.queries[q];
    pd_cuda_bound bound = {};
    if (query.table != PD_NONE) {
        const pd_cuda_weigh &weigh = batch.weighs[query.table];
        bound.most = weigh.most;
        bound.least = weigh.least;
        bound.size = weigh.size;
        bound.terms = weigh.ncolumns;
    }
    for (uint32_t i = query.keys; i < query.keys + query.nkeys; i++) {
        double weight = (double)batch.key_weights[i].weight;
        bound.size += fabs(weight);
        if (weight <= 0) continue;
        bound.most += weight;
        bound.least += weight;
    }
    bound.terms += query.nkeys;
    batch.bounds[q] = bound;
    batch.bars[q] = pd_ordered(query.least > -FLT_MAX ? query.least : -FLT_MAX);
}

/* ---------------------------------------------------------------------------------------------- summaries --- */

/* What each table's weights promise of n lists or groups; a thread a list, blockIdx.y: the table. */
static __global__ void prepare_summaries(PD_GRID const pd_cuda_batch batch, const float *shares, uint32_t n,
                                         float *summaries)
{
    uint32_t l = blockIdx.x * blockDim.x + threadIdx.x;
    if (l >= n) return;
    for (uint32_t t = blockIdx.y; t < batch.ntables; t += gridDim.y)
        summaries[(size_t)t * n + l] = pd_promise(batch, t, shares, n, l);
}

/* ------------------------------------------------------------------------------------------------- launch --- */

#define MOST_TABLES_AT_ONCE 1024u

/* Lists in groups are mostly not looked at: their summaries are then made as they are met (levels.cu), unless so many queries share a
 * table that all lists are fewer. */
static int sums_all_lists(const pd_cuda_batch *batch)
{
    const pd_cuda_view *view = &batch->view;
    uint64_t met = (uint64_t)batch->nchoosing * PD_GROUP_REACH * batch->most_probes;
    return view->ngroups == 0 || (uint64_t)batch->ntables * view->nlist <= met;
}

static cudaError_t launch_summaries(pd_cuda_batch *batch, const float *shares, uint32_t n, float *summaries)
{
    dim3 grid(pd_blocks_of(n, QUERY_THREADS),
              batch->ntables < MOST_TABLES_AT_ONCE ? batch->ntables : MOST_TABLES_AT_ONCE);
    return PD_LAUNCH(prepare_summaries, grid, QUERY_THREADS, 0, batch->stream, *batch, shares, n, summaries);
}

static pd_status prepare_weights(pd_cuda_batch *batch, pd_error *err)
{
    const pd_cuda_view *view = &batch->view;
    int summaries = batch->nchoosing > 0 && view->histograms && view->beta > 0.0f;
    batch->powers = NULL;
    batch->summaries = batch->group_summaries = NULL;
    batch->step_bytes = view->weights + view->nbytes;
    pd_status status = pd_take(batch, batch->n, "weights", &batch->bounds, err);
    if (status == PD_OK) status = pd_take(batch, batch->n, "bars", &batch->bars, err);
    if (status == PD_OK) status = pd_take(batch, batch->ntables, "weights", &batch->weighs, err);
    if (status == PD_OK)
        status = pd_take(batch, (size_t)batch->ntables * view->nbytes, "weights", &batch->columns, err);
    if (status == PD_OK)
        status = pd_take(batch, (size_t)batch->ntables * batch->step_bytes, "weights", &batch->steps, err);
    if (status == PD_OK && summaries && batch->ntables > 0)
        status = pd_take(batch, (size_t)batch->ntables * view->weights, "weights", &batch->powers, err);
    if (status == PD_OK && summaries && batch->ntables > 0 && sums_all_lists(batch))
        status = pd_take(batch, (size_t)batch->ntables * view->nlist, "summaries", &batch->summaries, err);
    if (status == PD_OK && summaries && batch->ntables > 0 && view->ngroups > 0)
        status =
            pd_take(batch, (size_t)batch->ntables * view->ngroups, "summaries", &batch->group_summaries, err);
    if (status != PD_OK) return status;
    cudaError_t error = cudaSuccess;
    if (batch->ntables > 0)
        error = PD_LAUNCH(prepare_tables, batch->ntables, TABLE_THREADS, 0, batch->stream, *batch);
    if (error == cudaSuccess)
        error = PD_LAUNCH(prepare_bounds, pd_blocks_of(batch->n, QUERY_THREADS), QUERY_THREADS, 0,
                          batch->stream, *batch);
    if (error == cudaSuccess && batch->summaries)
        error = launch_summaries(batch, view->histograms, view->nlist, batch->summaries);
    if (error == cudaSuccess && batch->group_summaries)
        error = launch_summaries(batch, view->group_histograms, view->ngroups, batch->group_summaries);
    return pd_cuda_check(batch->device, error, "preparing weights", err);
}

pd_status pd_cuda_prep(pd_cuda_batch *batch, pd_error *err)
{
    const pd_cuda_view *view = &batch->view;
    pd_status status = prepare_weights(batch, err);
    if (status != PD_OK || !batch->index || !view->listed || batch->nvectors == 0) return status;
    batch->code_bytes = (view->width + 31u) & ~31u;
    size_t bytes = (size_t)batch->n * batch->code_bytes;
    batch->codes = NULL;
    if (view->code == PD_CODE_I8) status = pd_take(batch, bytes, "query codes", &batch->codes, err);
    if (status == PD_OK) status = pd_take(batch, bytes, "query codes", &batch->near_codes, err);
    if (status == PD_OK) status = pd_take(batch, batch->n, "factors", &batch->qf, err);
    if (status == PD_OK) status = pd_take(batch, batch->n, "factors", &batch->nf, err);
    if (status != PD_OK) return status;
    uint32_t blocks = pd_blocks_of(batch->n, QUERY_THREADS / 32);
    cudaError_t error;
    if (view->projection) {
        uint32_t all = (view->dim + 31u) & ~31u;
        float *projected = NULL;
        status = pd_take(batch, (size_t)batch->n * view->width, "projected queries", &projected, err);
        if (status != PD_OK) return status;
        error = PD_LAUNCH(prepare_projected, blocks, QUERY_THREADS, QUERY_THREADS / 32 * all, batch->stream,
                          *batch, projected, all);
    } else {
        error = PD_LAUNCH(prepare_vectors, blocks, QUERY_THREADS, 0, batch->stream, *batch);
    }
    return pd_cuda_check(batch->device, error, "preparing queries", err);
}
