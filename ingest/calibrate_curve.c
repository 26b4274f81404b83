/* Measuring recall: how deep the refine stage must look, and the curves of recall over probes.
 *
 * The depth comes first, because the curves are measured with it, so that what a curve promises includes what the depth
 * loses. It is chosen where probes lose next to nothing and codes are all that is left to lose: the least depth of a
 * few whose mean recall is within DEPTH_LOSS of the whole depth's on the same queries. Weights are exact in a code's
 * score too, so that similarity alone decides; the largest spread is looked at afterwards and may ask for more.
 *
 * What a point costs is bounded: points at which many lists are probed are asked of fewer queries, and so are points
 * of low recall, which nobody asks for, and there are fewer of those (a bound is computed with the number of queries
 * that were really asked, so that fewer queries make the promise more careful, not less true).
 */
#include <math.h>
#include <stdlib.h>

#include "calibrate_impl.h"

#define ENOUGH       0.9995 /* mean recall at which a curve ends */
#define FLAT_FROM    48u
#define FLAT_GAIN    0.001f
#define Z_95         1.6449 /* one-sided */
#define POINT_BUDGET 3e9    /* multiply-adds of one point of a curve */
#define POINT_LEAST  320u   /* queries of a point; twice that for k = 1 */
#define SUMMARY_COST 8.0    /* of an entry of the lists' weight summaries, in multiply-adds of codes */
#define LOW          0.7    /* mean recall under which few queries will do */
#define SPARSE                                                                                               \
    0.5 /* under which every other point of the grid is left out, and under half of it three of four */
/* A tenth of the half-width of a bound from the whole sample (0.003 to 0.005): it cannot be told from chance, and costs
 * a curve about one probe in a hundred where it saves up to three of four scattered reads. */
#define DEPTH_LOSS   0.0005
#define DEPTH_RECALL 0.99
#define DEPTH_TRIALS 20000u /* hits over which a loss is averaged: DEPTH_LOSS is ten of them */
#define DEPTHS       6

typedef struct point {
    double mean, sd;
} point;

/* The share of the right ids among an answer's. A hit that ties with the last right one is right. */
static double recall_of(const pd_truth *t, uint32_t i, const pd_answer *answer)
{
    uint32_t right = 0, n = t->count[i];
    const uint64_t *ids = t->ids + (size_t)i * t->k;
    for (uint32_t h = 0; h < answer->count; h++) {
        const pd_hit *hit = &answer->hits[h];
        right += hit->score == t->last[i] || bsearch(&hit->id, ids, n, sizeof *ids, pd_calibrate_by_id);
    }
    return n ? (double)(right < n ? right : n) / n : 1.0;
}

/* Mean recall of the first m queries of a band. */
static pd_status measure(pd_calibrating *r, uint32_t spread, const pd_truth *t, uint32_t nprobe,
                         uint32_t depth, uint32_t m, point *out, pd_error *err)
{
    double sum = 0, squares = 0;
    for (uint32_t first = 0; first < m; first += PD_CALIBRATE_BATCH) {
        uint32_t count = m - first < PD_CALIBRATE_BATCH ? m - first : PD_CALIBRATE_BATCH;
        for (uint32_t i = 0; i < count; i++) {
            pd_calibrate_query(r, i, first + i, spread, t->k, nprobe);
            r->asked[i].depth = depth;
            r->answers[i] = (pd_answer){.hits = r->hits + (size_t)i * t->k};
        }
        pd_status status = r->in->search(r->in->search_context, r->asked, count, r->answers, err);
        if (!status) status = pd_calibrate_tick(r, err);
        if (status) return status;
        for (uint32_t i = 0; i < count; i++) {
            double recall = recall_of(t, first + i, &r->answers[i]);
            sum += recall;
            squares += recall * recall;
        }
    }
    double mean = sum / m, variance = m > 1 ? (squares - sum * mean) / (m - 1) : 0;
    *out = (point){.mean = mean < 1 ? mean : 1, .sd = variance > 0 ? sqrt(variance) : 0};
    return PD_OK;
}

/* ------------------------------------------------------------------------------------------------ depth --- */

/* The depths that are tried for k, ascending; the last is the kernels' own. */
static uint32_t depth_at(uint32_t k, uint32_t step)
{
    const uint32_t depths[DEPTHS] = {k,         k + k / 10 + 1,    k + k / 4 + 2, k + k / 2 + 4,
                                     2 * k + 8, pd_refine_depth(k)};
    return depths[step];
}

/* Probes at which next to nothing is lost by them. */
static pd_status find_enough(pd_calibrating *r, uint32_t spread, const pd_truth *t, uint32_t *nprobe,
                             pd_error *err)
{
    uint32_t nlist = r->info->shape.nlist, m = t->queries < POINT_LEAST ? t->queries : POINT_LEAST;
    pd_status status = PD_OK;
    point at = {0};
    for (*nprobe = nlist / 32 > 8 ? nlist / 32 : 8; *nprobe < nlist; *nprobe *= 2) {
        status = measure(r, spread, t, *nprobe, 0, m, &at, err);
        if (status || at.mean >= DEPTH_RECALL) return status;
    }
    *nprobe = nlist;
    return PD_OK;
}

/* The first step from `step` on that loses little enough at a spread. */
static pd_status find_depth(pd_calibrating *r, uint32_t spread, const pd_truth *t, uint32_t *step,
                            pd_error *err)
{
    uint32_t nprobe, m = DEPTH_TRIALS / t->k + 1, low = *step, high = DEPTHS - 1;
    if (m < 2 * POINT_LEAST) m = 2 * POINT_LEAST;
    if (m > t->queries) m = t->queries;
    point whole, at;
    pd_status status = low < high ? find_enough(r, spread, t, &nprobe, err) : PD_OK;
    if (!status && low < high) status = measure(r, spread, t, nprobe, 0, m, &whole, err);
    /* Where the depth of the smaller spread does, as it mostly will, one look is enough. */
    for (uint32_t middle = spread ? low : (low + high) / 2; !status && low < high;
         middle = (low + high) / 2) {
        status = measure(r, spread, t, nprobe, depth_at(t->k, middle), m, &at, err);
        if (status) break;
        if (whole.mean - at.mean <= DEPTH_LOSS)
            high = middle;
        else
            low = middle + 1;
    }
    *step = low;
    return status;
}

pd_status pd_calibrate_depths(pd_calibrating *r, pd_error *err)
{
    const pd_shape *shape = &r->info->shape;
    pd_status status = PD_OK;
    if (shape->code == PD_CODE_NONE || shape->refine == PD_REFINE_NONE) return PD_OK;
    for (uint32_t b = 0; !status && b < PD_BANDS; b++) {
        uint32_t step = 0, last = r->spreads - 1;
        if (!r->truths[0][b].k) continue;
        status = find_depth(r, 0, &r->truths[0][b], &step, err);
        if (!status && last > 0) status = find_depth(r, last, &r->truths[last][b], &step, err);
        if (!status) r->depths[b] = depth_at(pd_band_k[b], step);
    }
    return status;
}

/* ------------------------------------------------------------------------------------------------ curves --- */

/* One-sided 95% bound of a mean recall: by the deviation between queries, and no better than Wilson's for that many
 * trials, which keeps a sample without a miss from promising perfection. */
static double lower_bound(const point *at, uint32_t n, uint32_t k)
{
    double normal = at->mean - Z_95 * at->sd / sqrt((double)n), mean = at->mean;
    double trials = (double)n * (double)k, z2 = Z_95 * Z_95 / trials;
    double wilson = (mean + z2 / 2 - sqrt(z2 * (mean * (1 - mean) + z2 / 4))) / (1 + z2);
    double low = normal < wilson ? normal : wilson;
    return low < 0 ? 0 : low < mean ? low : mean;
}

/* 1, 2, 3, 4, 6, 8, 12 ... 64, 128 ... nlist. */
static uint32_t make_grid(uint32_t nlist, uint32_t *grid)
{
    uint32_t n = 0;
    for (uint32_t p = 1; p < nlist && n < PD_CURVE_POINTS - 2; p *= 2) {
        grid[n++] = p;
        if (p > 1 && p < 64 && p + p / 2 < nlist) grid[n++] = p + p / 2;
    }
    grid[n++] = nlist;
    return n;
}

/* Four times the lists bring nothing more: what is missing is not a matter of probes (codes, or refine rows that round
 * near ties apart). */
static int is_flat(const pd_curve *curve)
{
    uint32_t last = curve->points - 1, nprobe = curve->at[last].nprobe;
    if (nprobe < FLAT_FROM) return 0;
    for (uint32_t i = last; i > 0; i--)
        if (curve->at[i - 1].nprobe * 4 <= nprobe)
            return curve->at[last].recall - curve->at[i - 1].recall < FLAT_GAIN;
    return 0;
}

static uint32_t least_of(const pd_truth *t)
{
    uint32_t least = t->k == 1 ? 2 * POINT_LEAST : POINT_LEAST;
    return t->queries < least ? t->queries : least;
}

/* Queries that a point is worth, recall aside. */
static uint32_t afford(const pd_calibrating *r, uint32_t spread, const pd_truth *t, uint32_t nprobe)
{
    const pd_shape *shape = &r->info->shape;
    double nlist = (double)shape->nlist, dim = (double)shape->dim;
    double each = (double)nprobe / nlist * (double)r->info->rows * dim + nlist * dim;
    if (spread) each += SUMMARY_COST * nlist * (double)r->info->layout.weights;
    double most = POINT_BUDGET / each;
    uint32_t m = most < (double)t->queries ? (uint32_t)most : t->queries, least = least_of(t);
    return m < least ? least : m;
}

pd_status pd_calibrate_curve(pd_calibrating *r, uint32_t spread, uint32_t band, pd_curve *curve,
                             pd_error *err)
{
    const pd_truth *t = &r->truths[spread][band];
    uint32_t grid[PD_CURVE_POINTS], n = make_grid(r->info->shape.nlist, grid), least = least_of(t);
    double before = 0;
    for (uint32_t g = 0; g < n; g++) {
        uint32_t last = curve->points ? curve->at[curve->points - 1].nprobe : 0;
        uint32_t apart = before < SPARSE / 2 ? 4 : before < SPARSE ? 2 : 1;
        if (last && g + 1 < n && grid[g] < last * apart) continue;
        uint32_t most = afford(r, spread, t, grid[g]), m = before < LOW ? least : most;
        point at;
        pd_status status = measure(r, spread, t, grid[g], r->depths[band], m, &at, err);
        if (!status && m < most && at.mean >= LOW)
            status = measure(r, spread, t, grid[g], r->depths[band], m = most, &at, err);
        if (status) return status;
        uint32_t p = curve->points++;
        curve->at[p].nprobe = grid[g];
        curve->at[p].recall = (float)at.mean;
        curve->at[p].lower = (float)lower_bound(&at, m, t->k);
        if (curve->at[p].lower > curve->at[p].recall) curve->at[p].lower = curve->at[p].recall;
        if (at.mean >= ENOUGH || is_flat(curve)) break;
        before = at.mean;
    }
    return PD_OK;
}
