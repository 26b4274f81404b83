/* Calibration: exact answers at every spread, then real searches at growing nprobe until they agree.
 *
 * The searches are the engine's own, with the k that is asked for: a search for 1,000 refines more candidates than one
 * for 10, so each band of k is measured by itself. Bands of large k use the first part of the sample only; what else
 * bounds the cost is told in calibrate_curve.c.
 *
 * A row taken from the table finds itself. Held-out rows therefore exclude themselves on both sides.
 */
#include "calibrate_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "consent.h"
#include "random.h"
#include "score.h"

#define WEIGHTS_BYTES (64u << 20)
#define SD_QUERIES    128u
#define SD_ROWS       1024u
#define SD_LISTS      48u
#define SD_IN_LIST    64u

/* Queries that a band is measured with. */
static const uint32_t band_queries[PD_BANDS] = {PD_CALIBRATION_QUERIES / 2, PD_CALIBRATION_QUERIES, 500, 200};

pd_status pd_calibrate_tick(pd_calibrating *r, pd_error *err)
{
    if (r->progress && r->progress(r->context, "calibrate", r->done, r->steps))
        return pd_fail(err, PD_CANCELLED, "the calibration was stopped");
    return PD_OK;
}

/* ------------------------------------------------------------------------------------------------ the sample --- */

/* One live slot from each of n equal parts of the rows, ascending. A built list fills its pages one after another. */
static void take_slots(const pd_version_info *info, uint32_t n, uint64_t seed, uint32_t *slots)
{
    uint64_t state = seed, before = 0; /* rows of the lists before this one */
    uint32_t list = 0, nlist = info->shape.nlist;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t from = (uint64_t)i * info->rows / n, to = (uint64_t)(i + 1) * info->rows / n;
        uint64_t rank = from + pd_random_below(&state, to - from);
        while (nlist && rank >= before + info->lists.rows[list])
            before += info->lists.rows[list++];
        uint32_t page = (uint32_t)((rank - before) / PD_PAGE_ROWS);
        if (nlist) page = info->lists.pages[info->lists.offsets[list] + page];
        slots[i] = page * PD_PAGE_ROWS + (uint32_t)((rank - before) % PD_PAGE_ROWS);
    }
}

static void shuffle(uint32_t *items, uint32_t n, uint64_t seed)
{
    uint64_t state = seed;
    for (uint32_t i = n; i > 1; i--) {
        uint32_t other = (uint32_t)pd_random_below(&state, i), held = items[i - 1];
        items[i - 1] = items[other];
        items[other] = held;
    }
}

/* Those of the slots whose rows may be queries; their ids into ids, from the pages on disk: the index belongs to the searching side. */
static pd_status keep_willing(const pd_version *v, uint32_t *slots, uint32_t *n, uint64_t *ids, pd_error *err)
{
    const pd_version_info *info = pd_version_info_of(v);
    pd_consent consent = pd_consent_of(info->schema);
    uint32_t nbytes = info->shape.nbytes, kept = 0;
    uint8_t *bytes = malloc((size_t)*n * nbytes + 1);
    if (!bytes) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the columns of %u rows", *n);
    pd_rows want = {.ids = ids, .bytes = bytes};
    pd_status status = pd_version_rows(v, slots, *n, &want, err);
    for (uint32_t i = 0; !status && i < *n; i++) {
        if (pd_consent_refused(&consent, bytes + (size_t)i * nbytes)) continue;
        slots[kept] = slots[i];
        ids[kept++] = ids[i];
    }
    if (!status) *n = kept;
    free(bytes);
    return status;
}

/* The sample in random order, so that its first part is a sample as well. */
static pd_status take_queries(pd_calibrating *r, pd_error *err)
{
    const pd_calibrate_input *in = r->in;
    uint32_t dim = r->info->shape.dim;
    uint64_t there = in->queries ? in->count : r->info->rows;
    r->n = there < PD_CALIBRATION_QUERIES ? (uint32_t)there : PD_CALIBRATION_QUERIES;
    r->queries = malloc((size_t)r->n * dim * sizeof *r->queries);
    uint32_t *from = malloc((size_t)r->n * sizeof *from);
    pd_status status = PD_OK;
    if (!r->queries || !from) {
        status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for %u queries", r->n);
    } else if (in->queries) {
        uint64_t state = in->seed;
        for (uint32_t i = 0; i < r->n; i++) {
            uint64_t first = i * there / r->n, next = (i + 1) * there / r->n;
            from[i] = (uint32_t)(first + pd_random_below(&state, next - first));
        }
        shuffle(from, r->n, in->seed + 1);
        for (uint32_t i = 0; i < r->n; i++)
            memcpy(r->queries + (size_t)i * dim, in->queries + (size_t)from[i] * dim,
                   dim * sizeof *r->queries);
    } else {
        take_slots(r->info, r->n, in->seed, from);
        status = pd_version_settle(in->version, from, r->n, err);
        shuffle(from, r->n, in->seed + 1);
        r->exclude = malloc((size_t)r->n * sizeof *r->exclude);
        status = r->exclude ? keep_willing(in->version, from, &r->n, r->exclude, err)
                            : pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for %u queries", r->n);
        if (!status) status = pd_version_source(in->version, from, r->n, r->queries, err);
    }
    free(from);
    return status;
}

/* ------------------------------------------------------------------------------------------------ spreads --- */

/* Mean over queries of the standard deviation of their similarity to rows: [n][dim]. */
static double mean_sd(const pd_calibrating *r, uint32_t queries, const float *rows, uint32_t n)
{
    uint32_t dim = r->info->shape.dim;
    double total = 0;
    for (uint32_t q = 0; q < queries; q++) {
        const float *query = r->queries + (size_t)q * dim;
        double sum = 0, squares = 0;
        for (uint32_t i = 0; i < n; i++) {
            const float *row = rows + (size_t)i * dim;
            double sim = r->info->shape.metric == PD_L2 ? -(double)pd_l2(query, row, dim)
                                                        : (double)pd_dot(query, row, dim);
            sum += sim;
            squares += sim * sim;
        }
        double variance = n > 1 ? (squares - sum * sum / n) / (n - 1) : 0;
        total += variance > 0 ? sqrt(variance) : 0;
    }
    return queries ? total / queries : 0;
}

static double residual_sd(const pd_calibrating *r, uint32_t queries, const uint32_t *picks, uint32_t npicks,
                          float *rows, pd_status *status, pd_error *err)
{
    const pd_lists *lists = &r->info->lists;
    double total = 0;
    uint32_t used = 0;
    for (uint32_t i = 0; !*status && i < npicks; i++) {
        uint32_t list = r->info->page_list[picks[i] / PD_PAGE_ROWS], n = lists->rows[list], taken = 0;
        if (n < 4) continue;
        uint32_t slots[SD_IN_LIST + 1], step = n / SD_IN_LIST + 1;
        for (uint32_t k = 0; k < n; k += step)
            slots[taken++] =
                lists->pages[lists->offsets[list] + k / PD_PAGE_ROWS] * PD_PAGE_ROWS + k % PD_PAGE_ROWS;
        *status = pd_version_source(r->in->version, slots, taken, rows, err);
        if (*status) break;
        total += mean_sd(r, queries, rows, taken);
        used++;
    }
    return used ? total / used : 0;
}

static pd_status measure_spreads(pd_calibrating *r, pd_calibration *out, pd_error *err)
{
    uint32_t n = r->info->rows < SD_ROWS ? (uint32_t)r->info->rows : SD_ROWS;
    uint32_t queries = r->n < SD_QUERIES ? r->n : SD_QUERIES;
    uint32_t npicks = n < SD_LISTS ? n : SD_LISTS;
    float *rows = malloc((size_t)(n + SD_IN_LIST) * r->info->shape.dim * sizeof *rows);
    if (!rows) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for %u rows", n);
    uint32_t slots[SD_ROWS];
    take_slots(r->info, n, r->in->seed + 2, slots);
    pd_status status = pd_version_source(r->in->version, slots, n, rows, err);
    if (!status) {
        out->similarity_sd = (float)mean_sd(r, queries, rows, n);
        shuffle(slots, n, r->in->seed + 3);
        out->residual_sd = (float)residual_sd(r, queries, slots, npicks, rows, &status, err);
    }
    free(rows);
    return status;
}

/* ------------------------------------------------------------------------------------------------ truth --- */

void pd_calibrate_query(const pd_calibrating *r, uint32_t at, uint32_t i, uint32_t spread, uint32_t k,
                        uint32_t nprobe)
{
    size_t table = (size_t)spread * r->tables + i % r->tables;
    r->asked[at] = (pd_query){
        .vector = r->queries + (size_t)i * r->info->shape.dim,
        .similarity = 1.0f,
        .weights = spread ? r->weights + table * r->info->layout.weights : NULL,
        .exclude = r->exclude ? r->exclude + i : NULL,
        .nexclude = r->exclude != NULL,
        .nprobe = nprobe,
        .k = k,
        .min_score = -INFINITY,
    };
}

int pd_calibrate_by_id(const void *left, const void *right)
{
    uint64_t l = *(const uint64_t *)left, r = *(const uint64_t *)right;
    return (l > r) - (l < r);
}

/* How deep the exact answer of a query must be. */
static uint32_t depth_of(const pd_calibrating *r, uint32_t i)
{
    uint32_t k = 1;
    for (uint32_t b = 0; b < PD_BANDS; b++)
        if (i < r->truths[0][b].queries) k = r->truths[0][b].k;
    return k;
}

/* Which bands there are, and room for what is right. */
static pd_status open_truths(pd_calibrating *r, pd_error *err)
{
    for (uint32_t at = 0; at < r->spreads * PD_BANDS; at++) {
        uint32_t b = at % PD_BANDS;
        pd_truth *t = &r->truths[at / PD_BANDS][b];
        if (b > 0 && pd_band_k[b] > r->info->rows) continue;
        t->k = pd_band_k[b];
        t->queries = r->n < band_queries[b] ? r->n : band_queries[b];
        t->ids = malloc((size_t)t->queries * t->k * sizeof *t->ids);
        t->count = malloc((size_t)t->queries * sizeof *t->count);
        t->last = malloc((size_t)t->queries * sizeof *t->last);
        if (!t->ids || !t->count || !t->last)
            return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the exact answers of %u queries",
                           t->queries);
    }
    return PD_OK;
}

static void keep_truth(pd_calibrating *r, uint32_t i, uint32_t spread, const pd_answer *answer)
{
    for (uint32_t b = 0; b < PD_BANDS; b++) {
        pd_truth *t = &r->truths[spread][b];
        if (i >= t->queries) continue;
        uint32_t n = answer->count < t->k ? answer->count : t->k;
        uint64_t *ids = t->ids + (size_t)i * t->k;
        for (uint32_t h = 0; h < n; h++)
            ids[h] = answer->hits[h].id;
        qsort(ids, n, sizeof *ids, pd_calibrate_by_id);
        t->count[i] = n;
        t->last[i] = n ? answer->hits[n - 1].score : INFINITY;
    }
}

/* Exact answers of as many queries as one call takes, each at every spread: neighbours that share a vector share the
 * work of its similarities. */
static pd_status find_truths(pd_calibrating *r, pd_error *err)
{
    uint32_t most = PD_MAX_QUERIES / r->spreads;
    pd_status status = PD_OK;
    for (uint32_t first = 0; !status && first < r->n; first += most) {
        uint32_t n = r->n - first < most ? r->n - first : most, at = 0;
        size_t room = 0;
        for (uint32_t i = first; i < first + n; i++) {
            for (uint32_t s = 0; s < r->spreads; s++) {
                uint32_t k = depth_of(r, i);
                pd_calibrate_query(r, at, i, s, k, 0);
                r->answers[at++] = (pd_answer){.hits = r->hits + room};
                room += k;
            }
        }
        status = pd_version_exact(r->in->version, r->in->device, r->asked, at, r->answers, r->progress,
                                  r->context, err);
        for (uint32_t q = 0; !status && q < at; q++)
            keep_truth(r, first + q / r->spreads, q % r->spreads, &r->answers[q]);
    }
    return status;
}

/* ------------------------------------------------------------------------------------------------ the whole --- */

/* Weight tables of every spread. 0: the table has nothing that could be weighed. */
static int draw_weights(pd_calibrating *r, float similarity_sd)
{
    uint32_t columns = 0;
    for (uint32_t s = 1; s < PD_SPREADS; s++)
        for (uint32_t i = 0; i < r->tables; i++)
            columns |= pd_random_weights(r->in->resident, r->in->seed * 1000003u + i,
                                         pd_spread_at[s] * similarity_sd,
                                         r->weights + ((size_t)s * r->tables + i) * r->info->layout.weights);
    return columns != 0;
}

static pd_status open_weights(pd_calibrating *r, float similarity_sd, pd_error *err)
{
    size_t table = PD_SPREADS * (size_t)r->info->layout.weights * sizeof(float);
    uint64_t tables = table ? WEIGHTS_BYTES / table : 1;
    r->tables = tables < r->n ? (uint32_t)(tables ? tables : 1) : r->n;
    r->weights = malloc((size_t)r->tables * table + 1);
    if (!r->weights) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for %u weight tables", r->tables);
    r->spreads = draw_weights(r, similarity_sd) ? PD_SPREADS : 1;
    r->steps = (uint64_t)r->spreads * PD_BANDS;
    return PD_OK;
}

static pd_status open_calls(pd_calibrating *r, pd_error *err)
{
    size_t exact = 0, search = 0;
    /* The deepest queries come first, so that the first exact call needs the most room. */
    for (uint32_t i = 0; i < r->n && i < PD_MAX_QUERIES / r->spreads; i++)
        exact += (size_t)r->spreads * depth_of(r, i);
    for (uint32_t b = 0; b < PD_BANDS; b++) {
        const pd_truth *t = &r->truths[0][b];
        size_t room = (size_t)(t->queries < PD_CALIBRATE_BATCH ? t->queries : PD_CALIBRATE_BATCH) * t->k;
        search = room > search ? room : search;
    }
    r->hits = malloc(((exact > search ? exact : search) + 1) * sizeof *r->hits);
    r->asked = malloc(PD_MAX_QUERIES * sizeof *r->asked);
    r->answers = malloc(PD_MAX_QUERIES * sizeof *r->answers);
    if (!r->hits || !r->asked || !r->answers)
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to calibrate with %u queries", r->n);
    return PD_OK;
}

static pd_status measure_curves(pd_calibrating *r, pd_calibration *out, pd_error *err)
{
    pd_status status = pd_calibrate_tick(r, err);
    if (!status) status = pd_calibrate_depths(r, err);
    for (uint32_t at = 0; !status && at < r->spreads * PD_BANDS; at++) {
        uint32_t s = at / PD_BANDS, b = at % PD_BANDS;
        if (r->truths[s][b].k) status = pd_calibrate_curve(r, s, b, &out->curves[b][s], err);
        r->done++;
    }
    /* Without byte columns a spread can only come from keys, which postings serve. */
    for (uint32_t s = r->spreads; s < PD_SPREADS; s++)
        for (uint32_t b = 0; b < PD_BANDS; b++)
            out->curves[b][s] = out->curves[b][0];
    return status;
}

static void close_run(pd_calibrating *r)
{
    for (uint32_t at = 0; at < PD_SPREADS * PD_BANDS; at++) {
        pd_truth *t = &r->truths[at / PD_BANDS][at % PD_BANDS];
        free(t->ids);
        free(t->count);
        free(t->last);
    }
    free(r->queries);
    free(r->exclude);
    free(r->weights);
    free(r->hits);
    free(r->asked);
    free(r->answers);
}

pd_status pd_calibrate(const pd_calibrate_input *input, pd_calibration *out, pd_progress progress,
                       void *context, pd_error *err)
{
    memset(out, 0, sizeof *out);
    const pd_version_info *info = pd_version_info_of(input->version);
    if (info->rows == 0 || info->shape.nlist == 0 || (input->queries && input->count == 0)) return PD_OK;
    pd_calibrating r = {.in = input, .info = info, .progress = progress, .context = context};
    pd_status status = take_queries(&r, err);
    if (!status && !r.n) {
        close_run(&r);
        return PD_OK; /* no row of the table may be asked with */
    }
    if (!status) status = measure_spreads(&r, out, err);
    if (!status) status = open_weights(&r, out->similarity_sd, err);
    if (!status) status = open_truths(&r, err);
    if (!status) status = open_calls(&r, err);
    if (!status) status = find_truths(&r, err);
    if (!status) status = measure_curves(&r, out, err);
    if (!status) {
        const char *source = input->queries ? (input->source ? input->source : "file") : "held-out rows";
        size_t length = strlen(source);
        if (length >= sizeof out->source) length = sizeof out->source - 1;
        memcpy(out->source, source, length);
        out->queries = r.n;
        out->measured = 1;
    }
    close_run(&r);
    return status;
}
