/* Choosing the lists to probe.
 *
 * Every centroid is scored by the written f32 sum of 16 lanes, so that the choice does not depend on the batch; the
 * lists' weight summaries are added and the best nprobe are kept, ties by list number. Lists without rows come last.
 * Many queries: a task is a block of queries against all centroids. Few: a task is a range of centroids for all
 * queries, and a second step chooses.
 */
#include <float.h>
#include <string.h>

#include "cpu.h"

#define LIST_TASK 256u /* centroids of a task when queries are few */

uint32_t pd_cpu_probes(const pd_host_index *index, const pd_query *query)
{
    uint32_t nlist = pd_host_nlist(index);
    if (!query->vector) return nlist;
    return query->nprobe < nlist ? query->nprobe : nlist;
}

static int must_choose(const pd_batch *batch, uint32_t q)
{
    const pd_query *query = &batch->queries[q];
    return query->vector && batch->index->base.shape.nlist > 0 && !query->probes && query->nprobe > 0;
}

static int blockwise(uint32_t threads, uint32_t n)
{
    return n >= PD_GROUP * threads || threads == 1;
}

uint32_t pd_coarse_rows(uint32_t threads, uint32_t n)
{
    return blockwise(threads, n) ? PD_GROUP * threads : n;
}

/* List terms of queries first .. first + n - 1 for a range of lists. terms: [n][nlist] */
static void list_terms(const pd_batch *batch, uint32_t first, uint32_t n, uint32_t list, uint32_t nlists,
                       float *terms)
{
    const pd_shape *shape = &batch->index->base.shape;
    const float *vectors[PD_GROUP];
    float *rows[PD_GROUP];
    uint32_t used = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (!must_choose(batch, first + i)) continue;
        vectors[used] = batch->preps[first + i].vector;
        rows[used++] = terms + (size_t)i * shape->nlist;
    }
    /* Rows of queries that choose lie at even distances only when all of the block do. */
    const float *centroids = pd_host_centroid(batch->index, list);
    uint32_t dim16 = pd_dim16(shape->dim);
    int l2 = shape->metric == PD_L2;
    if (used == n) {
        batch->device->ops->lanes(vectors, n, centroids, nlists, dim16, l2, terms + list, shape->nlist);
    } else {
        for (uint32_t i = 0; i < used; i++)
            batch->device->ops->lanes(vectors + i, 1, centroids, nlists, dim16, l2, rows[i] + list,
                                      shape->nlist);
    }
    for (uint32_t i = 0; l2 && i < used; i++)
        for (uint32_t l = list; l < list + nlists; l++)
            rows[i][l] = -rows[i][l];
}

/* summary[l]: what the weights promise of each list. Returns 0 where they promise nothing. */
static int summarise(const pd_batch *batch, const pd_prep *prep, pd_worker *worker)
{
    const pd_host_index *index = batch->index;
    const pd_layout *layout = &index->base.layout;
    uint32_t nlist = index->base.shape.nlist;
    if (!index->histograms || !(index->beta > 0.0f) || prep->weigh.ncolumns == 0) return 0;
    memset(worker->summary, 0, nlist * sizeof *worker->summary);
    for (uint32_t i = 0; i < prep->weigh.ncolumns; i++) {
        uint32_t c = prep->weigh.columns[i].column;
        batch->device->ops->summary(index->histograms + (size_t)layout->weight_at[c] * nlist,
                                    prep->weigh.columns[i].table, index->base.shape.sizes[c], nlist,
                                    index->beta, worker->sums, worker->summary);
    }
    return 1;
}

static void choose(const pd_batch *batch, uint32_t q, const float *terms, const float *summary,
                   pd_worker *worker)
{
    const pd_host_index *index = batch->index;
    uint32_t nlist = index->base.shape.nlist, want = pd_cpu_probes(index, &batch->queries[q]);
    float a = batch->queries[q].similarity;
    pd_topk best;
    pd_topk_init(&best, worker->hits, want, -FLT_MAX);
    for (uint32_t list = 0; list < nlist; list++) {
        float score = a * terms[list] + 0.0f;
        if (summary) score = score + summary[list];
        if (!(score >= -FLT_MAX) || index->rows[list] == 0) score = -FLT_MAX;
        pd_topk_push(&best, score, list, 0);
    }
    pd_topk_sort(&best);
    pd_pair *pairs = batch->pairs + batch->starts[q];
    for (uint32_t i = 0; i < best.count; i++) {
        uint32_t list = (uint32_t)best.items[i].id;
        pairs[i] = (pd_pair){.query = q, .list = list, .lt = terms[list], .rank = i};
    }
}

/* Queries whose lists are given: forced probes, or all of them. */
static void take_given(const pd_batch *batch, uint32_t q)
{
    const pd_shape *shape = &batch->index->base.shape;
    const pd_query *query = &batch->queries[q];
    pd_pair *pairs = batch->pairs + batch->starts[q];
    uint32_t count = batch->starts[q + 1] - batch->starts[q];
    int forced = query->vector && shape->nlist > 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t list = forced ? query->probes[i] : i;
        float lt = 0.0f;
        if (forced) {
            batch->device->ops->lanes(&batch->preps[q].vector, 1, pd_host_centroid(batch->index, list), 1,
                                      pd_dim16(shape->dim), shape->metric == PD_L2, &lt, 1);
            lt = shape->metric == PD_L2 ? -lt : lt;
        }
        pairs[i] = (pd_pair){.query = q, .list = list, .lt = lt, .rank = i};
    }
}

/* Queries of one request share their weights: the summary of the one before serves again. */
static void choose_some(const pd_batch *batch, uint32_t first, uint32_t n, const float *terms,
                        pd_worker *worker)
{
    const pd_cpu_column *columns = NULL;
    uint32_t ncolumns = UINT32_MAX;
    int some = 0;
    for (uint32_t i = 0; i < n; i++) {
        const pd_prep *prep = &batch->preps[first + i];
        if (!must_choose(batch, first + i)) {
            take_given(batch, first + i);
            continue;
        }
        if (prep->weigh.columns != columns || prep->weigh.ncolumns != ncolumns) {
            some = summarise(batch, prep, worker);
            columns = prep->weigh.columns;
            ncolumns = prep->weigh.ncolumns;
        }
        choose(batch, first + i, terms + (size_t)i * batch->index->base.shape.nlist,
               some ? worker->summary : NULL, worker);
    }
}

static void block_task(void *context, uint32_t task, uint32_t worker)
{
    pd_batch *batch = context;
    uint32_t nlist = batch->index->base.shape.nlist;
    uint32_t first = task * PD_GROUP;
    uint32_t n = batch->n - first < PD_GROUP ? batch->n - first : PD_GROUP;
    float *terms = batch->terms + (size_t)worker * PD_GROUP * nlist;
    if (nlist > 0) list_terms(batch, first, n, 0, nlist, terms);
    choose_some(batch, first, n, terms, &batch->workers[worker]);
}

static void range_task(void *context, uint32_t task, uint32_t worker)
{
    (void)worker;
    pd_batch *batch = context;
    uint32_t nlist = batch->index->base.shape.nlist;
    uint32_t list = task * LIST_TASK;
    uint32_t nlists = nlist - list < LIST_TASK ? nlist - list : LIST_TASK;
    for (uint32_t first = 0; first < batch->n; first += PD_GROUP) {
        uint32_t n = batch->n - first < PD_GROUP ? batch->n - first : PD_GROUP;
        list_terms(batch, first, n, list, nlists, batch->terms + (size_t)first * nlist);
    }
}

static void choose_task(void *context, uint32_t task, uint32_t worker)
{
    pd_batch *batch = context;
    choose_some(batch, task, 1, batch->terms + (size_t)task * batch->index->base.shape.nlist,
                &batch->workers[worker]);
}

void pd_cpu_coarse(pd_batch *batch)
{
    pd_pool *pool = batch->device->pool;
    uint32_t nlist = batch->index->base.shape.nlist;
    if (blockwise(pd_pool_threads(pool), batch->n)) {
        pd_pool_run(pool, (batch->n + PD_GROUP - 1) / PD_GROUP, block_task, batch);
        return;
    }
    pd_pool_run(pool, (nlist + LIST_TASK - 1) / LIST_TASK, range_task, batch);
    pd_pool_run(pool, batch->n, choose_task, batch);
}
