/* Lists: training on a seeded sample, assignment in blocks, the order of rows within a list, and how wide the
 * similarity spreads within one.
 */
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "build_impl.h"
#include "random.h"
#include "score.h"
#include "train.h"

#define SAMPLE_MOST   256u /* rows a list: FAISS's own most */
#define SAMPLE_ENOUGH 128u /* where the most would take long: docs/decisions/0007 */
#define SAMPLE_WORK                                                                                          \
    (1ull << 37)         /* multiplications of an iteration that are not long: about a second of a core */
#define SAMPLE_LEAST 39u /* rows a list, FAISS's own advice */
#define SAMPLE_BYTES (1ull << 30)
#define ASSIGN_BYTES (16u << 20)

/* ------------------------------------------------------------------------------------------------ training --- */

static uint64_t sample_size(const pd_builder *b)
{
    uint64_t want = (uint64_t)b->nlist * SAMPLE_MOST, enough = (uint64_t)b->nlist * SAMPLE_ENOUGH;
    uint64_t quick = SAMPLE_WORK / ((uint64_t)b->nlist * b->dim);
    if (want > quick) want = quick > enough ? quick : enough;
    uint64_t most = SAMPLE_BYTES / ((uint64_t)b->dim * 4), least = (uint64_t)b->nlist * SAMPLE_LEAST;
    if (want > most) want = most > least ? most : least;
    return want < b->count ? want : b->count;
}

/* One row from each of n equal parts of the table, so that a table in any order is covered evenly. */
static void choose_sample(const pd_builder *b, uint64_t n, uint64_t *which)
{
    uint64_t state = b->in->seed ^ 0x7472616e00000001ull;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t from = (uint64_t)((unsigned __int128)i * b->count / n);
        uint64_t to = (uint64_t)((unsigned __int128)(i + 1) * b->count / n);
        which[i] = from + (to > from ? pd_random_below(&state, to - from) : 0);
    }
}

static int train_progress(void *context, uint64_t done, uint64_t total)
{
    return pd_builder_tick(context, "train", done, total, NULL) != PD_OK;
}

static pd_status train_on(pd_builder *b, uint64_t n, const float *sample, pd_error *err)
{
    int spherical = b->shape.metric == PD_COSINE;
    if (b->device->backend->train)
        return b->device->backend->train(b->device, sample, n, b->dim, b->nlist, b->in->seed, spherical,
                                         b->centroids, err);
    pd_train_options options = {.nlist = b->nlist,
                                .seed = b->in->seed,
                                .spherical = spherical,
                                .device = b->device,
                                .pool = b->pool,
                                .progress = train_progress,
                                .context = b};
    return pd_train_centroids(&options, n, b->dim, sample, b->centroids, err);
}

static pd_status train(pd_builder *b, pd_error *err)
{
    uint64_t n = sample_size(b);
    pd_status status = pd_builder_tick(b, "train", 0, n, err);
    if (status) return status;
    float *sample = malloc((size_t)n * b->dim * sizeof *sample);
    uint64_t *which = malloc((size_t)n * sizeof *which);
    if (sample && which) {
        choose_sample(b, n, which);
        pd_builder_rows(b, 0, which, n, sample);
        status = train_on(b, n, sample, err);
        if (!status) status = pd_builder_groups(b, err);
        if (!status) status = pd_builder_project(b, sample, n, err);
    } else {
        status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for a training sample of %llu rows",
                         (unsigned long long)n);
    }
    free(which);
    free(sample);
    return status ? status : pd_builder_tick(b, "train", n, n, err);
}

/* ------------------------------------------------------------------------------------------------ assignment --- */

static pd_status assign(pd_builder *b, pd_error *err)
{
    uint64_t room = ASSIGN_BYTES / ((uint64_t)b->dim * 4) + 1;
    if (room > b->count) room = b->count;
    float *rows = malloc((size_t)room * b->dim * sizeof *rows);
    if (!rows)
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for a block of %llu rows",
                       (unsigned long long)room);
    pd_status status = PD_OK;
    for (uint64_t first = 0; !status && first < b->count; first += room) {
        uint64_t n = b->count - first < room ? b->count - first : room;
        pd_builder_rows(b, first, NULL, n, rows);
        status =
            pd_device_assign(b->device, b->centroids, b->nlist, b->dim, rows, n, b->list_of + first, err);
        for (uint64_t i = 0; !status && i < n; i++)
            b->list_rows[b->list_of[first + i]]++;
        if (!status) status = pd_builder_tick(b, "assign", first + n, b->count, err);
    }
    free(rows);
    return status;
}

/* ------------------------------------------------------------------------------------------------ order --- */

typedef struct place {
    uint64_t lead, id;
    uint32_t row;
} place;

static int by_place(const void *left, const void *right)
{
    const place *l = left, *r = right;
    if (l->lead != r->lead) return l->lead < r->lead ? -1 : 1;
    return (l->id > r->id) - (l->id < r->id);
}

/* The attribute that rows of a list are ordered by, so that blocks have tight bounds. NULL: none. */
static const pd_attribute *leading(const pd_schema *schema)
{
    if (schema->order_by[0]) return pd_schema_find(schema, schema->order_by);
    for (uint32_t i = 0; i < schema->nattributes; i++)
        if (schema->attributes[i].type == PD_CATEGORY) return &schema->attributes[i];
    return NULL;
}

static uint64_t lead_of(const pd_builder *b, const pd_attribute *attribute, uint64_t row)
{
    if (!attribute) return 0;
    if (attribute->type == PD_KEY) return b->keys[(size_t)attribute->key_column * b->count + row];
    uint64_t lead = 0;
    for (uint32_t j = 0; j < (attribute->type == PD_SET ? 8u : 1u); j++)
        lead |= (uint64_t)b->bytes[(size_t)(attribute->byte_column + j) * b->count + row] << (8 * j);
    return lead;
}

typedef struct order_job {
    pd_builder *b;
    const pd_attribute *attribute;
    uint64_t *first;   /* [nlist + 1]: where a list's rows begin */
    atomic_int failed; /* there was no memory */
} order_job;

static void order_task(void *context, uint32_t list, uint32_t worker)
{
    (void)worker;
    order_job *job = context;
    const pd_builder *b = job->b;
    uint32_t *order = b->order + job->first[list], n = b->list_rows[list];
    place *places = malloc(((size_t)n + 1) * sizeof *places);
    if (!places) {
        atomic_store(&job->failed, 1);
        return;
    }
    for (uint32_t k = 0; k < n; k++)
        places[k] = (place){lead_of(b, job->attribute, order[k]), pd_builder_id(b, order[k]), order[k]};
    /* Ids are distinct, so the order is total and the sort's stability does not matter. */
    qsort(places, n, sizeof *places, by_place);
    for (uint32_t k = 0; k < n; k++)
        order[k] = places[k].row;
    free(places);
}

/* Counting sort by list (which keeps input order), then each list by itself. */
static pd_status order(pd_builder *b, pd_error *err)
{
    order_job job = {.b = b, .attribute = leading(b->schema)};
    uint64_t *at = malloc(((size_t)b->nlist + 1) * sizeof *at);
    job.first = malloc(((size_t)b->nlist + 1) * sizeof *job.first);
    if (at && job.first) {
        at[0] = job.first[0] = 0;
        for (uint32_t i = 0; i < b->nlist; i++)
            at[i + 1] = job.first[i + 1] = at[i] + b->list_rows[i];
        for (uint64_t row = 0; row < b->count; row++)
            b->order[at[b->list_of[row]]++] = (uint32_t)row;
        pd_pool_run(b->pool, b->nlist, order_task, &job);
    } else {
        atomic_store(&job.failed, 1);
    }
    free(at);
    free(job.first);
    if (!atomic_load(&job.failed)) return PD_OK;
    return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to order %llu rows", (unsigned long long)b->count);
}

/* ------------------------------------------------------------------------------------------------ spreads --- */

#define MEASURE_QUERIES 32u
#define MEASURE_ROWS    2048u
#define MEASURE_LISTS   48u
#define MEASURE_IN_LIST 64u

typedef struct spread {
    double sum[MEASURE_QUERIES], squares[MEASURE_QUERIES];
    uint32_t n;
} spread;

static void spread_add(const pd_builder *b, const float *queries, const float *row, spread *s)
{
    for (uint32_t q = 0; q < MEASURE_QUERIES; q++) {
        const float *query = queries + (size_t)q * b->dim;
        double sim = b->shape.metric == PD_L2 ? -(double)pd_l2(query, row, b->dim)
                                              : (double)pd_dot(query, row, b->dim);
        s->sum[q] += sim;
        s->squares[q] += sim * sim;
    }
    s->n++;
}

static double spread_sd(const spread *s)
{
    if (s->n < 2) return 0;
    double mean = 0;
    for (uint32_t q = 0; q < MEASURE_QUERIES; q++) {
        double variance = (s->squares[q] - s->sum[q] * s->sum[q] / s->n) / (s->n - 1);
        mean += variance > 0 ? sqrt(variance) : 0;
    }
    return mean / MEASURE_QUERIES;
}

/* Standard deviations of the similarity, with rows as queries: over the table, and within lists (drawn by their rows). */
static pd_status measure(pd_builder *b, pd_error *err)
{
    float *queries = malloc((MEASURE_QUERIES + 1) * (size_t)b->dim * sizeof *queries);
    if (!queries) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to measure the lists");
    float *row = queries + (size_t)MEASURE_QUERIES * b->dim;
    uint64_t state = b->in->seed ^ 0x7372656164000002ull;
    for (uint32_t q = 0; q < MEASURE_QUERIES; q++)
        pd_builder_row(b, pd_random_below(&state, b->count), queries + (size_t)q * b->dim);
    spread whole = {.n = 0};
    for (uint32_t i = 0; i < MEASURE_ROWS; i++) {
        pd_builder_row(b, pd_random_below(&state, b->count), row);
        spread_add(b, queries, row, &whole);
    }
    b->similarity_sd = (float)spread_sd(&whole);
    double sum = 0;
    uint32_t lists = 0;
    for (uint32_t i = 0; b->nlist && i < MEASURE_LISTS; i++) {
        uint64_t at = pd_random_below(&state, b->count);
        uint32_t list = b->list_of[b->order[at]], n = b->list_rows[list];
        if (n < 4) continue;
        uint64_t first = at; /* back to the list's first row */
        while (first > 0 && b->list_of[b->order[first - 1]] == list)
            first--;
        uint32_t step = n / MEASURE_IN_LIST + 1;
        spread inside = {.n = 0};
        for (uint32_t k = 0; k < n; k += step) {
            pd_builder_row(b, b->order[first + k], row);
            spread_add(b, queries, row, &inside);
        }
        sum += spread_sd(&inside);
        lists++;
    }
    b->residual_sd = lists ? (float)(sum / lists) : b->similarity_sd;
    /* The factor was measured: docs/decisions/0005-how-sharp-weight-summaries-are.md. */
    b->beta = b->residual_sd > 0 ? 2.0f / b->residual_sd : 0.0f;
    free(queries);
    return PD_OK;
}

/* ------------------------------------------------------------------------------------------------ the stage --- */

static pd_status reserve(pd_builder *b, pd_error *err)
{
    b->centroids = calloc((size_t)b->nlist * b->dim + 1, sizeof *b->centroids);
    b->list_rows = calloc((size_t)b->nlist + 1, sizeof *b->list_rows);
    b->offsets = calloc((size_t)b->nlist + 1, sizeof *b->offsets);
    b->list_of = b->nlist ? malloc(((size_t)b->count + 1) * sizeof *b->list_of) : NULL;
    b->order = b->nlist ? malloc(((size_t)b->count + 1) * sizeof *b->order) : NULL;
    if (b->centroids && b->list_rows && b->offsets && (!b->nlist || (b->list_of && b->order))) return PD_OK;
    return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for %u lists of %llu rows", b->nlist,
                   (unsigned long long)b->count);
}

pd_status pd_builder_lists(pd_builder *b, pd_error *err)
{
    pd_status status = reserve(b, err);
    b->npages = pd_pages_for(b->count);
    if (!status && b->nlist && b->count) {
        status = train(b, err);
        if (!status) status = assign(b, err);
        if (!status) status = order(b, err);
    }
    if (!status && b->nlist && !b->count) status = pd_builder_project(b, NULL, 0, err);
    for (uint32_t i = 0; !status && i < b->nlist; i++)
        b->offsets[i + 1] = b->offsets[i] + pd_pages_for(b->list_rows[i]);
    if (!status && b->nlist) b->npages = b->offsets[b->nlist];
    if (!status && b->count) status = measure(b, err);
    return status;
}
