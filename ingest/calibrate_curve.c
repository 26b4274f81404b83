/* Measuring recall: the curves of recall over probes, and how deep the refine stage must look at each of their points.
 *
 * What a depth loses is measured first, where probes lose next to nothing and codes are all that is left to lose. Each point of a
 * curve is then measured at the least depth whose loss is a small part of all that is missing there: where few probes lose a
 * twentieth of the neighbours, a few more lost to the codes cost less to make good by probes than by scattered reads, and where next to
 * nothing is missing the depth must lose nothing either. What a curve promises includes what its depths lose. Weights are exact in a
 * code's score too, so that the losses are those of similarity alone.
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
#define DEPTH_SHARE  0.3    /* of what is missing at a point, that its depth may lose */
#define DEPTH_LEAST  0.0005 /* a loss that cannot be told from chance: a tenth of the half-width of a bound */
#define DEPTH_RECALL 0.99
#define DEPTH_TRIALS 20000u /* hits over which a loss is averaged: DEPTH_LEAST is ten of them */

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
    const uint32_t depths[PD_DEPTHS] = {k,         k + k / 10 + 1, k + k / 4 + 2,     k + k / 2 + 4,
                                        2 * k + 4, 2 * k + 12,     pd_refine_depth(k)};
    return depths[step];
}

/* Probes at which next to nothing is lost by them. */
static pd_status find_enough(pd_calibrating *r, const pd_truth *t, uint32_t *nprobe, pd_error *err)
{
    uint32_t nlist = r->info->shape.nlist, m = t->queries < POINT_LEAST ? t->queries : POINT_LEAST;
    pd_status status = PD_OK;
    point at = {0};
    for (*nprobe = nlist / 32 > 8 ? nlist / 32 : 8; *nprobe < nlist; *nprobe *= 2) {
        status = measure(r, 0, t, *nprobe, 0, m, &at, err);
        if (status || at.mean >= DEPTH_RECALL) return status;
    }
    *nprobe = nlist;
    return PD_OK;
}

/* From the deepest on, until one loses too much for any point. */
static pd_status find_losses(pd_calibrating *r, const pd_truth *t, double *losses, pd_error *err)
{
    uint32_t nprobe, m = DEPTH_TRIALS / t->k + 1;
    if (m < 2 * POINT_LEAST) m = 2 * POINT_LEAST;
    if (m > t->queries) m = t->queries;
    point whole, at;
    pd_status status = find_enough(r, t, &nprobe, err);
    if (!status) status = measure(r, 0, t, nprobe, 0, m, &whole, err);
    for (uint32_t step = 0; step < PD_DEPTHS; step++)
        losses[step] = step + 1 < PD_DEPTHS ? 1 : 0;
    for (uint32_t step = PD_DEPTHS - 1; !status && step-- > 0;) {
        status = measure(r, 0, t, nprobe, depth_at(t->k, step), m, &at, err);
        if (status) break;
        losses[step] = whole.mean - at.mean;
        if (losses[step] < losses[step + 1]) losses[step] = losses[step + 1];
        if (losses[step] > DEPTH_SHARE * (1 - LOW)) break;
    }
    return status;
}

pd_status pd_calibrate_depths(pd_calibrating *r, pd_error *err)
{
    const pd_shape *shape = &r->info->shape;
    pd_status status = PD_OK;
    r->refines = shape->code != PD_CODE_NONE && shape->refine != PD_REFINE_NONE;
    for (uint32_t b = 0; !status && r->refines && b < PD_BANDS; b++)
        if (r->truths[0][b].k) status = find_losses(r, &r->truths[0][b], r->losses[b], err);
    return status;
}

/* The least step whose loss is a small part of what is missing at a recall. */
static uint32_t step_for(const pd_calibrating *r, uint32_t band, double recall)
{
    double most = DEPTH_SHARE * (1 - recall);
    uint32_t step = 0;
    while (step + 1 < PD_DEPTHS && r->losses[band][step] > (most > DEPTH_LEAST ? most : DEPTH_LEAST))
        step++;
    return step;
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

/* One point at a depth that suits its recall, with at least `least` queries and up to `most` where its recall is worth them. */
static pd_status measure_point(pd_calibrating *r, uint32_t spread, uint32_t band, uint32_t nprobe,
                               uint32_t most, double before, uint32_t *step, pd_curve *curve, pd_error *err)
{
    const pd_truth *t = &r->truths[spread][band];
    uint32_t m = before < LOW ? least_of(t) : most, depth, again;
    point at;
    do {
        depth = r->refines ? depth_at(t->k, *step) : 0;
        pd_status status = measure(r, spread, t, nprobe, depth, m, &at, err);
        if (status) return status;
        uint32_t want = r->refines ? step_for(r, band, at.mean) : 0;
        again = want > *step || (m < most && at.mean >= LOW);
        if (want > *step) *step = want;
        if (at.mean >= LOW) m = most;
    } while (again);
    uint32_t p = curve->points++;
    curve->at[p].nprobe = nprobe;
    curve->at[p].depth = depth;
    curve->at[p].recall = (float)at.mean;
    curve->at[p].lower = (float)lower_bound(&at, m, t->k);
    if (curve->at[p].lower > curve->at[p].recall) curve->at[p].lower = curve->at[p].recall;
    return PD_OK;
}

pd_status pd_calibrate_curve(pd_calibrating *r, uint32_t spread, uint32_t band, pd_curve *curve,
                             pd_error *err)
{
    const pd_truth *t = &r->truths[spread][band];
    uint32_t grid[PD_CURVE_POINTS], n = make_grid(r->info->shape.nlist, grid);
    uint32_t step = r->refines ? step_for(r, band, LOW) : 0;
    double before = 0;
    for (uint32_t g = 0; g < n; g++) {
        uint32_t last = curve->points ? curve->at[curve->points - 1].nprobe : 0;
        uint32_t apart = before < SPARSE / 2 ? 4 : before < SPARSE ? 2 : 1;
        if (last && g + 1 < n && grid[g] < last * apart) continue;
        pd_status status =
            measure_point(r, spread, band, grid[g], afford(r, spread, t, grid[g]), before, &step, curve, err);
        if (status) return status;
        before = (double)curve->at[curve->points - 1].recall;
        if (before >= ENOUGH || is_flat(curve)) break;
    }
    return PD_OK;
}
