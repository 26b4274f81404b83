/* What choosing lists on one level (coarse.cu) and on two (levels.cu) have in common. */
#ifndef PD_CUDA_COARSE_CUH
#define PD_CUDA_COARSE_CUH

#include "row.cuh"
#include "tile.cuh"

#define PD_CHOOSE_THREADS 256u

/* Scores of a round take about so much, but a round has some queries. (The tests have smaller rounds.) */
#ifndef SCORE_BYTES
#define SCORE_BYTES ((size_t)256 << 20)
#endif
#ifndef ROUND_LEAST
#define ROUND_LEAST 32u
#endif

/* What is ranked: lists, or groups of them. */
typedef struct coarse_level {
    uint32_t n;
    const unsigned char *pages; /* codes of centroids */
    const uint64_t *blocks;     /* [n][view.block_columns] */
    const float *summaries;     /* [ntables][n] what the weights promise of each; NULL: nothing */
} coarse_level;

/* Some of the batch's queries. */
typedef struct coarse_round {
    uint32_t first, n; /* queries */
    uint32_t pages;    /* of centroids */
    float *scores;     /* [n][pages * 32] */
    float *bests;      /* [n][pages] */
    uint32_t *some;    /* [n][pages] the pages that are looked at */
} coarse_round;

/* Queries of a round, each of which takes so many bytes. */
static inline uint32_t pd_round_queries(const pd_cuda_batch *batch, size_t each)
{
    size_t fit = SCORE_BYTES / each;
    fit = fit < ROUND_LEAST ? ROUND_LEAST : fit;
    return fit < batch->n ? (uint32_t)fit : batch->n;
}

static __device__ __forceinline__ const uint64_t *pd_level_bits(const pd_cuda_batch &batch,
                                                                const coarse_level &level, uint32_t i)
{
    return level.blocks ? level.blocks + (size_t)i * batch.view.block_columns : NULL;
}

/* What is no number, or under every number, comes last, with the lists that are empty. */
static __device__ __forceinline__ float pd_settle(float score)
{
    return score >= -FLT_MAX ? score : -FLT_MAX;
}

/* Columns whose factors are multiplied before their logarithm is taken: the product stays a normal number. */
#define PD_FACTORS 8u

/* What a table's weights promise of list l, as cpu/coarse.c adds it up. shares: [weights][n] */
static __device__ inline float pd_promise(const pd_cuda_batch &batch, uint32_t t, const float *shares,
                                          uint32_t n, uint32_t l)
{
    const pd_cuda_view &view = batch.view;
    const float *table = batch.tables + (size_t)t * view.weights;
    const float *powers = batch.powers + (size_t)t * view.weights;
    const pd_cuda_column *columns = batch.columns + (size_t)t * view.nbytes;
    float summary = 0.0f, product = 1.0f;
    uint32_t factors = 0, done = 0;
    for (uint32_t i = 0; i < batch.weighs[t].ncolumns; i++) {
        const pd_cuda_column &column = columns[i];
        if (!view.tied[column.column]) continue;
        float sum = column.nothing;
        for (uint32_t v = column.weights; v < column.weights + column.size; v++)
            if (table[v] != 0.0f) sum = sum + shares[(size_t)v * n + l] * powers[v];
        product = product * (sum > 1e-4f ? sum : 1e-4f);
        if (++factors < PD_FACTORS) continue;
        float own = pd_log_inline(product) / view.beta;
        summary = done ? summary + own : own;
        done += factors;
        factors = 0;
        product = 1.0f;
    }
    if (factors > 0) {
        float own = pd_log_inline(product) / view.beta;
        summary = done ? summary + own : own;
    }
    return summary;
}

/* ------------------------------------------------------------------------------------------------ choosing --- */

/* By a block: the query's npairs best of n items, ties by list number, into its pairs; their scores stand in lt. item(i, &list, &score) says
 * whether item i is a list. */
template <typename Item>
static __device__ void pd_choose(pd_block_work *work, const pd_cuda_batch &batch, const pd_cuda_query &query,
                                 uint32_t n, Item item)
{
    pd_cuda_pair *pairs = batch.pairs + query.pairs;
    uint32_t want = query.npairs, before, equal, ties, count = 0;
    pd_key last = pd_block_kth(work, n, want, &before, &equal, [=](uint32_t i, pd_key *value) {
        uint32_t list;
        float score;
        if (!item(i, &list, &score)) return false;
        *value = (uint32_t)~pd_ordered(score);
        return true;
    });
    uint32_t bar = ~(uint32_t)last;
    pd_key last_list = ~(pd_key)0;
    if (before + equal > want)
        last_list = pd_block_kth(work, n, want - before, &before, &ties, [=](uint32_t i, pd_key *value) {
            uint32_t list;
            float score;
            if (!item(i, &list, &score)) return false;
            *value = list;
            return pd_ordered(score) == bar;
        });
    for (uint32_t first = 0; first < n; first += blockDim.x) {
        uint32_t i = first + threadIdx.x, list = 0, own = 0, total;
        float score = 0.0f;
        if (i < n && item(i, &list, &score)) {
            uint32_t order = pd_ordered(score);
            own = order > bar || (order == bar && list <= last_list);
        }
        uint32_t at = count + pd_block_sum(work, own, &total);
        if (own) {
            pairs[at].list = list;
            pairs[at].lt = score;
        }
        count += total;
    }
    if (!batch.want_probes) return;
    pd_block_sort(
        want,
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

/* The pairs of a query whose lists are forced, or all. */
static __device__ inline void pd_take_given(const pd_cuda_batch &batch, const pd_cuda_query &query)
{
    for (uint32_t i = threadIdx.x; i < query.npairs; i += blockDim.x)
        batch.pairs[query.pairs + i].list = query.given == PD_NONE ? i : batch.given[query.given + i];
}

/* The written list terms of a query's pairs; half a warp a pair. */
static __device__ inline void pd_list_terms(const pd_cuda_batch &batch, uint32_t q,
                                            const pd_cuda_query &query)
{
    const pd_cuda_view &view = batch.view;
    pd_cuda_pair *pairs = batch.pairs + query.pairs;
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

/* Scores and the bests of pages of a round's queries at all of a level. */
cudaError_t pd_score_level(pd_cuda_batch *batch, const coarse_level *level, const coarse_round *round,
                           const pd_tile *tile);
/* Memory for them: n of the level, at most so many queries. */
pd_status pd_level_rows(pd_cuda_batch *batch, uint32_t n, uint32_t most, coarse_round *round, pd_error *err);
pd_status pd_choose_of_groups(pd_cuda_batch *batch, const pd_tile *tile, pd_error *err);

#endif
