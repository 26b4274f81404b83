/* Codes of fewer dimensions: which directions, and how many.
 *
 * Directions are the principal ones of the training sample. How many are enough is measured, not guessed from variances: rows of
 * the sample are asked for their neighbours among the others, and of each query's PROBE_K nearest those are counted that are
 * still among the PROBE_DEPTH best when the residuals' products are taken in few dimensions (all else is exact, as in the
 * scan). Neighbours lie closer in the whole table than in the sample, so that the loss is taken to grow with the rows. The fewest dimensions that lose
 * little are taken, and none where more than half of them would be needed: the calibration then measures what they do to recall.
 */
#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "build_impl.h"
#include "principal.h"
#include "random.h"

#define LEAST_DIM     128u /* rows of fewer dimensions gain little */
#define STEP          32u  /* dimensions: a page of directions */
#define MOST_CODE_DIM 1024u
#define LEAST_ROWS    4096u
#define MOST_ROWS     32768u
#define FIT_ROWS      16384u /* covariance of so many is enough up to some thousand dimensions */
#define PROBE_QUERIES 256u
#define PROBE_K       10u
#define PROBE_DEPTH   19u
#define LOSS          0.02
#define BLOCK         4096u

/* What is measured. n rows and PROBE_QUERIES queries of the sample. */
typedef struct trial {
    pd_builder *b;
    const float *rows, *queries; /* [n][dim], [PROBE_QUERIES][dim] */
    uint64_t n;
    uint32_t most;           /* dimensions of codes at most */
    const float *directions; /* [most][dim] */
    float *mean;             /* [dim] of the centroids */
    float *gap;              /* [BLOCK][dim] residuals; and, before, queries less their mean */
    float *query_out;        /* [PROBE_QUERIES][most] */
    float *row_out;          /* [n][most] */
    float *exact;            /* [PROBE_QUERIES][n] similarities */
    float *
        rest; /* [PROBE_QUERIES][n] less the products of residuals, plus those in as many dimensions as were added */
    uint32_t *lists; /* [BLOCK] */
} trial;

/* out[i][j] = <a[i], b[j]> (+ out[i][j] where more is set) over dim dimensions from `from` on. */
static void products(const float *a, uint32_t na, size_t a_apart, const float *b, uint32_t nb, size_t b_apart,
                     uint32_t dim, float scale, int more, float *out, size_t apart)
{
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)na, (int)nb, (int)dim, scale, a, (int)a_apart,
                b, (int)b_apart, more ? 1.0f : 0.0f, out, (int)apart);
}

/* Similarities of a block of rows, and what is left of them without the residuals' products. */
static pd_status block_of(trial *t, uint64_t first, uint32_t count, const float *moved, pd_error *err)
{
    const pd_builder *b = t->b;
    uint32_t dim = b->dim;
    const float *rows = t->rows + first * dim;
    float factor = b->shape.metric == PD_L2 ? 2.0f : 1.0f;
    pd_status status = pd_device_assign(b->device, b->centroids, b->nlist, dim, rows, count, t->lists, err);
    if (status) return status;
    products(t->queries, PROBE_QUERIES, dim, rows, count, dim, dim, factor, 0, t->exact + first, t->n);
    for (uint32_t i = 0; i < count; i++) {
        const float *row = rows + (size_t)i * dim, *centroid = b->centroids + (size_t)t->lists[i] * dim;
        double square = 0;
        for (uint32_t d = 0; d < dim; d++) {
            t->gap[(size_t)i * dim + d] = row[d] - centroid[d];
            square += (double)row[d] * (double)row[d];
        }
        for (uint32_t q = 0; b->shape.metric == PD_L2 && q < PROBE_QUERIES; q++)
            t->exact[q * t->n + first + i] -= (float)square;
    }
    for (uint32_t q = 0; q < PROBE_QUERIES; q++)
        memcpy(t->rest + q * t->n + first, t->exact + q * t->n + first, count * sizeof *t->rest);
    products(moved, PROBE_QUERIES, dim, t->gap, count, dim, dim, -factor, 1, t->rest + first, t->n);
    products(t->gap, count, dim, t->directions, t->most, dim, dim, 1.0f, 0, t->row_out + first * t->most,
             t->most);
    return PD_OK;
}

static pd_status prepare(trial *t, pd_error *err)
{
    uint32_t dim = t->b->dim;
    float *moved = malloc((size_t)PROBE_QUERIES * dim * sizeof *moved);
    if (!moved) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to try codes of fewer dimensions");
    pd_centroid_mean(t->b->centroids, t->b->nlist, dim, t->mean);
    for (size_t i = 0; i < (size_t)PROBE_QUERIES * dim; i++)
        moved[i] = t->queries[i] - t->mean[i % dim];
    products(moved, PROBE_QUERIES, dim, t->directions, t->most, dim, dim, 1.0f, 0, t->query_out, t->most);
    pd_status status = PD_OK;
    for (uint64_t first = 0; !status && first < t->n; first += BLOCK)
        status = block_of(t, first, t->n - first < BLOCK ? (uint32_t)(t->n - first) : BLOCK, moved, err);
    free(moved);
    return status;
}

/* The PROBE_K best of n scores. */
static void best_of(const float *scores, uint64_t n, uint32_t *best)
{
    uint32_t count = 0;
    for (uint64_t i = 0; i < n; i++) {
        if (count == PROBE_K && scores[i] <= scores[best[PROBE_K - 1]]) continue;
        uint32_t at = count < PROBE_K ? count++ : PROBE_K - 1;
        for (; at > 0 && scores[best[at - 1]] < scores[i]; at--)
            best[at] = best[at - 1];
        best[at] = (uint32_t)i;
    }
}

/* The share of the nearest that the estimates put behind the PROBE_DEPTH best. */
static double loss_of(const trial *t)
{
    uint64_t lost = 0;
    for (uint32_t q = 0; q < PROBE_QUERIES; q++) {
        const float *estimates = t->rest + q * t->n;
        uint32_t best[PROBE_K];
        best_of(t->exact + q * t->n, t->n, best);
        for (uint32_t i = 0; i < PROBE_K; i++) {
            uint32_t before = 0;
            for (uint64_t r = 0; r < t->n; r++)
                before += estimates[r] > estimates[best[i]];
            lost += before >= PROBE_DEPTH;
        }
    }
    return (double)lost / (PROBE_QUERIES * PROBE_K);
}

/* 0: none are few enough. */
static pd_status fewest(trial *t, uint32_t *code_dim, pd_error *err)
{
    float factor = t->b->shape.metric == PD_L2 ? 2.0f : 1.0f;
    double crowd = t->b->count > t->n ? (double)t->b->count / (double)t->n : 1.0;
    pd_status status = prepare(t, err);
    *code_dim = 0;
    for (uint32_t from = 0; !status && from < t->most && !*code_dim; from += STEP) {
        products(t->query_out + from, PROBE_QUERIES, t->most, t->row_out + from, (uint32_t)t->n, t->most,
                 STEP, factor, 1, t->rest, t->n);
        if (loss_of(t) * crowd <= LOSS) *code_dim = from + STEP;
    }
    return status;
}

static pd_status try_dims(pd_builder *b, const float *sample, uint64_t n, uint32_t most,
                          const float *directions, uint32_t *code_dim, pd_error *err)
{
    trial t = {.b = b, .queries = sample, .directions = directions, .most = most};
    t.rows = sample + (size_t)PROBE_QUERIES * b->dim;
    t.n = n - PROBE_QUERIES < MOST_ROWS ? n - PROBE_QUERIES : MOST_ROWS;
    t.mean = malloc(b->dim * sizeof *t.mean);
    t.gap = malloc((size_t)BLOCK * b->dim * sizeof *t.gap);
    t.query_out = malloc((size_t)PROBE_QUERIES * most * sizeof *t.query_out);
    t.row_out = malloc((size_t)t.n * most * sizeof *t.row_out);
    t.exact = malloc((size_t)PROBE_QUERIES * t.n * sizeof *t.exact);
    t.rest = malloc((size_t)PROBE_QUERIES * t.n * sizeof *t.rest);
    t.lists = malloc(BLOCK * sizeof *t.lists);
    pd_status status = PD_OK;
    if (t.mean && t.gap && t.query_out && t.row_out && t.exact && t.rest && t.lists)
        status = fewest(&t, code_dim, err);
    else
        status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to try codes of fewer dimensions");
    free(t.mean);
    free(t.gap);
    free(t.query_out);
    free(t.row_out);
    free(t.exact);
    free(t.rest);
    free(t.lists);
    return status;
}

/* The sample's rows in a seeded order, so that the first of them are a sample too. */
static pd_status shuffle(const pd_builder *b, float *sample, uint64_t n, pd_error *err)
{
    uint64_t state = b->in->seed ^ 0x70726f6a00000001ull;
    float *row = malloc(b->dim * sizeof *row);
    if (!row) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for a row");
    for (uint64_t i = 0; i + 1 < n; i++) {
        uint64_t other = i + pd_random_below(&state, n - i);
        memcpy(row, sample + i * b->dim, b->dim * sizeof *row);
        memmove(sample + i * b->dim, sample + other * b->dim, b->dim * sizeof *row);
        memcpy(sample + other * b->dim, row, b->dim * sizeof *row);
    }
    free(row);
    return PD_OK;
}

/* The directions of a table without rows: any will do. */
static void first_axes(const pd_builder *b, uint32_t code_dim)
{
    for (uint32_t j = 0; j < code_dim; j++)
        b->directions[(size_t)j * b->dim + j] = 1.0f;
}

pd_status pd_builder_project(pd_builder *b, float *sample, uint64_t n, pd_error *err)
{
    uint32_t declared = b->schema->code_dim, most = declared;
    if (b->shape.code != PD_CODE_I8 || b->shape.refine == PD_REFINE_NONE || declared >= b->dim) return PD_OK;
    if (!declared && (b->dim < LEAST_DIM || n < LEAST_ROWS + PROBE_QUERIES)) return PD_OK;
    if (!declared) most = b->dim / 2 < MOST_CODE_DIM ? b->dim / 2 / STEP * STEP : MOST_CODE_DIM;
    b->directions = calloc((size_t)most * b->dim, sizeof *b->directions);
    if (!b->directions)
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for %u directions of %u dimensions", most,
                       b->dim);
    pd_status status = n ? shuffle(b, sample, n, err) : PD_OK;
    uint64_t fit = n < FIT_ROWS ? n : FIT_ROWS;
    if (!status && n) status = pd_principal_directions(sample, fit, b->dim, most, b->directions, err);
    if (!n) first_axes(b, most);
    uint32_t code_dim = declared;
    if (!status && !declared) status = try_dims(b, sample, n, most, b->directions, &code_dim, err);
    if (status || !code_dim) return status;
    b->shape.code_dim = code_dim;
    status = pd_layout_of(&b->shape, &b->layout, err);
    if (status) return status;
    return pd_projection_open(b->directions, code_dim, b->centroids, b->nlist, b->dim, &b->projection, err);
}
