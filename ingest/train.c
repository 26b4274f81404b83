/* K-means: Lloyd's iterations from seeded rows of the sample, as FAISS does them (a list that stays empty takes half of a
 * large one's), with assignment by the device, which is exact and costs a byte a dimension.
 *
 * Nothing depends on the number of threads: assignment is exact, and each sum is added up by one thread in the order of
 * the rows; threads share out dimensions, a cache line of the sample at a time. Iterations end early when next to no row
 * changes its list any more.
 */
#include "train.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "random.h"
#include "score.h"

#define DEFAULT_ITERATIONS 10u
/* Multiplications between two questions whether to go on: well under a second of one core. */
#define BLOCK_WORK  (UINT64_C(1) << 34)
#define BLOCK_LEAST 1024u
/* Converged: fewer than one row in this many has another list than before. */
#define CHANGED_SHARE 1000u
#define SLICE         16u              /* dimensions of a task: 64 bytes of a row */
#define SPLIT         (1.0f / 1024.0f) /* FAISS's own */

typedef struct kmeans {
    const pd_train_options *options;
    uint64_t count;
    uint32_t nlist, dim;
    const float *sample;
    float *centroids;
    uint32_t *lists;  /* [count] */
    uint64_t *rows;   /* [nlist] rows of each list */
    double *sums;     /* [threads][nlist][SLICE] */
    uint64_t changed; /* rows whose list is another than before */
    uint64_t state;   /* of the random numbers */
} kmeans;

/* nlist different rows of the sample, each as likely: a partial shuffle of their numbers. */
static pd_status choose_first(kmeans *k, pd_error *err)
{
    uint32_t *numbers = malloc(k->count * sizeof *numbers);
    if (!numbers)
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to choose %" PRIu32 " centroids", k->nlist);
    for (uint64_t i = 0; i < k->count; i++)
        numbers[i] = (uint32_t)i;
    for (uint32_t l = 0; l < k->nlist; l++) {
        uint64_t other = l + pd_random_below(&k->state, k->count - l);
        uint32_t row = numbers[other];
        numbers[other] = numbers[l];
        memcpy(k->centroids + (size_t)l * k->dim, k->sample + (size_t)row * k->dim, k->dim * sizeof(float));
    }
    free(numbers);
    return PD_OK;
}

static pd_status tell(const kmeans *k, uint64_t done, uint32_t iterations, pd_error *err)
{
    const pd_train_options *o = k->options;
    if (!o->progress || !o->progress(o->context, done, iterations * k->count)) return PD_OK;
    return pd_fail(err, PD_CANCELLED, "the training was stopped");
}

static pd_status assign(kmeans *k, uint32_t iteration, uint32_t iterations, pd_error *err)
{
    uint64_t most = BLOCK_WORK / ((uint64_t)k->nlist * k->dim);
    if (most < BLOCK_LEAST) most = BLOCK_LEAST;
    if (most > k->count) most = k->count;
    uint32_t *fresh = malloc(most * sizeof *fresh);
    if (!fresh)
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the lists of %" PRIu64 " rows", most);
    memset(k->rows, 0, k->nlist * sizeof *k->rows);
    k->changed = 0;
    pd_status status = tell(k, iteration * k->count, iterations, err);
    for (uint64_t first = 0; !status && first < k->count; first += most) {
        uint64_t n = k->count - first < most ? k->count - first : most;
        status = pd_device_assign(k->options->device, k->centroids, k->nlist, k->dim,
                                  k->sample + first * k->dim, n, fresh, err);
        for (uint64_t i = 0; !status && i < n; i++) {
            k->changed += k->lists[first + i] != fresh[i];
            k->lists[first + i] = fresh[i];
            k->rows[fresh[i]]++;
        }
        if (!status) status = tell(k, iteration * k->count + first + n, iterations, err);
    }
    free(fresh);
    return status;
}

/* One slice of dimensions of every centroid: the mean of its rows. */
static void mean_task(void *context, uint32_t task, uint32_t worker)
{
    kmeans *k = context;
    uint32_t from = task * SLICE, n = k->dim - from < SLICE ? k->dim - from : SLICE;
    double *sums = k->sums + (size_t)worker * k->nlist * SLICE;
    memset(sums, 0, (size_t)k->nlist * SLICE * sizeof *sums);
    for (uint64_t i = 0; i < k->count; i++) {
        const float *row = k->sample + i * k->dim + from;
        double *sum = sums + (size_t)k->lists[i] * SLICE;
        if (n == SLICE)
            for (uint32_t d = 0; d < SLICE; d++)
                sum[d] += (double)row[d];
        else
            for (uint32_t d = 0; d < n; d++)
                sum[d] += (double)row[d];
    }
    for (uint32_t l = 0; l < k->nlist; l++)
        for (uint32_t d = 0; k->rows[l] && d < n; d++)
            k->centroids[(size_t)l * k->dim + from + d] =
                (float)(sums[(size_t)l * SLICE + d] / (double)k->rows[l]);
}

/* An empty list and one drawn by its rows become two that lie a little apart. */
static void split_for(kmeans *k, uint32_t empty)
{
    uint64_t spare = 0; /* rows that lists could do without */
    for (uint32_t l = 0; l < k->nlist; l++)
        spare += k->rows[l] > 1 ? k->rows[l] - 1 : 0;
    if (spare == 0) return;
    uint64_t at = pd_random_below(&k->state, spare);
    uint32_t from = 0;
    for (; from < k->nlist; from++) {
        uint64_t own = k->rows[from] > 1 ? k->rows[from] - 1 : 0;
        if (at < own) break;
        at -= own;
    }
    float *one = k->centroids + (size_t)from * k->dim, *two = k->centroids + (size_t)empty * k->dim;
    for (uint32_t d = 0; d < k->dim; d++) {
        float up = d % 2 ? 1.0f - SPLIT : 1.0f + SPLIT, down = d % 2 ? 1.0f + SPLIT : 1.0f - SPLIT;
        two[d] = one[d] * up;
        one[d] = one[d] * down;
    }
    k->rows[empty] = k->rows[from] / 2;
    k->rows[from] -= k->rows[empty];
}

static void update(kmeans *k)
{
    pd_pool_run(k->options->pool, (k->dim + SLICE - 1) / SLICE, mean_task, k);
    for (uint32_t l = 0; l < k->nlist; l++)
        if (k->rows[l] == 0) split_for(k, l);
    for (uint32_t l = 0; k->options->spherical && l < k->nlist; l++)
        pd_normalise(k->centroids + (size_t)l * k->dim, k->dim);
}

static pd_status iterate(kmeans *k, pd_error *err)
{
    uint32_t iterations = k->options->iterations ? k->options->iterations : DEFAULT_ITERATIONS;
    memset(k->lists, 0xff, k->count * sizeof *k->lists);
    pd_status status = choose_first(k, err);
    for (uint32_t i = 0; !status && i < iterations; i++) {
        status = assign(k, i, iterations, err);
        if (status) break;
        update(k);
        if (k->changed <= k->count / CHANGED_SHARE) break;
    }
    return status;
}

static pd_status check(const pd_train_options *options, uint64_t count, uint32_t dim, pd_error *err)
{
    if (options->nlist == 0 || dim == 0 || dim > PD_MAX_DIM)
        return pd_fail(err, PD_INVALID_ARGUMENT, "cannot train %" PRIu32 " centroids of dim %" PRIu32,
                       options->nlist, dim);
    if (count < options->nlist || count > UINT32_MAX)
        return pd_fail(err, PD_INVALID_ARGUMENT,
                       "%" PRIu32 " centroids need at least as many rows to train on, and at most %" PRIu32
                       "; %" PRIu64 " are given",
                       options->nlist, UINT32_MAX, count);
    return PD_OK;
}

pd_status pd_train_centroids(const pd_train_options *options, uint64_t count, uint32_t dim,
                             const float *sample, float *centroids, pd_error *err)
{
    pd_status status = check(options, count, dim, err);
    if (status) return status;
    size_t sums = pd_pool_threads(options->pool) * (size_t)options->nlist * SLICE;
    kmeans k = {.options = options,
                .count = count,
                .nlist = options->nlist,
                .dim = dim,
                .sample = sample,
                .centroids = centroids,
                .state = options->seed ^ UINT64_C(0x6b6d65616e730003)};
    k.lists = malloc(count * sizeof *k.lists);
    k.rows = malloc(options->nlist * sizeof *k.rows);
    k.sums = malloc(sums * sizeof *k.sums);
    if (k.lists && k.rows && k.sums)
        status = iterate(&k, err);
    else
        status =
            pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to train %" PRIu32 " centroids", options->nlist);
    free(k.lists);
    free(k.rows);
    free(k.sums);
    return status;
}
