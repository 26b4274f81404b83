/* Choosing the lists to probe.
 *
 * The centroids lie in pages of i8 codes of their own (host.c), so that choosing is the same integer product as scanning; the
 * lists' weight summaries are added and the best nprobe are kept, ties by list number. Lists without rows come last. The
 * list terms of the chosen are then the written f32 sums. Many queries: a task is a block of queries against all
 * centroids. Few: a task is a range of centroids for all queries, and a second step chooses.
 */
#include <float.h>
#include <string.h>

#include "cpu.h"

#define PAGE_TASK 8u /* pages of centroids of a task when queries are few */

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

/* Floats between two queries' rows of list scores. */
static size_t terms_apart(const pd_batch *batch)
{
    return (size_t)pd_pages_for(batch->index->base.shape.nlist) * PD_PAGE_ROWS;
}

/* Scores of queries first .. first + n - 1 for the lists of some pages. terms: [n][terms_apart] */
static void list_scores(const pd_batch *batch, uint32_t first, uint32_t n, uint32_t page, uint32_t npages,
                        float *terms)
{
    const pd_host_index *index = batch->index;
    const pd_cpu_device *device = batch->device;
    uint32_t dim64 = pd_dim64(index->coarse.code_dim);
    pd_cpu_group group;
    int32_t dots[PD_GROUP * PD_PAGE_ROWS];
    /* Runs of queries that choose: their packed codes lie side by side. */
    for (uint32_t i = 0, end; i < n; i = end + 1) {
        for (end = i; end < n && must_choose(batch, first + end); end++) {
            group.lt[end - i] = 0.0f;
            group.a[end - i] = batch->queries[first + end].similarity;
            group.qf[end - i] = batch->preps[first + end].nf;
            group.bar[end - i] = 0.0f;
        }
        const unsigned char *near = end > i ? batch->preps[first + i].near : NULL;
        for (uint32_t p = page; end > i && p < page + npages; p++) {
            unsigned char *codes = index->coarse_pages + p * index->coarse.page_bytes;
            device->i8->dots((const int8_t *)(codes + index->coarse.codes), index->coarse.dim4 / 4, dim64,
                             near, end - i, dots);
            device->ops->scores_i8(
                dots, end - i, pd_page_term(&index->coarse, codes), pd_page_scale(&index->coarse, codes),
                &group, terms + i * terms_apart(batch) + (size_t)p * PD_PAGE_ROWS, terms_apart(batch));
        }
    }
}

static void add_summary(pd_worker *worker, uint32_t nlist, uint32_t done)
{
    for (uint32_t l = 0; l < nlist; l++)
        worker->summary[l] = done ? worker->summary[l] + worker->factors[l] : worker->factors[l];
}

/* Columns whose factors are multiplied before their logarithm is taken: the product stays a normal number. */
#define FACTORS 8u

/* summary[l]: what the weights promise of each list. Returns 0 where they promise nothing. */
static int summarise(const pd_batch *batch, const pd_prep *prep, pd_worker *worker)
{
    const pd_host_index *index = batch->index;
    const pd_layout *layout = &index->base.layout;
    const pd_cpu_ops *ops = batch->device->ops;
    uint32_t nlist = index->base.shape.nlist, factors = 0, done = 0;
    if (!index->histograms || !(index->beta > 0.0f)) return 0;
    for (uint32_t i = 0; i < prep->weigh.ncolumns; i++) {
        const pd_cpu_column *column = &prep->weigh.columns[i];
        if (!index->tied[column->column]) continue;
        for (uint32_t l = 0; factors == 0 && l < nlist; l++)
            worker->factors[l] = 1.0f;
        ops->summary(index->histograms + (size_t)layout->weight_at[column->column] * nlist, column->table,
                     column->size, column->most, nlist, index->beta, worker->sums, worker->factors);
        if (++factors < FACTORS) continue;
        ops->logs(worker->factors, nlist, index->beta);
        add_summary(worker, nlist, done);
        done += factors;
        factors = 0;
    }
    if (factors > 0) {
        ops->logs(worker->factors, nlist, index->beta);
        add_summary(worker, nlist, done);
    }
    return done + factors > 0;
}

/* The lists whose score is among the `want` best, ties by number, in ascending order. */
static uint32_t pick(const pd_batch *batch, const float *scores, uint32_t want, pd_worker *worker)
{
    const pd_cpu_ops *ops = batch->device->ops;
    uint32_t nlist = batch->index->base.shape.nlist, count = 0;
    float t = ops->kth(scores, nlist, want, worker->pick);
    for (uint32_t list = 0; list < nlist; list += PD_PAGE_ROWS) {
        uint32_t mask = ops->at_least(scores + list, t);
        for (; mask; mask &= mask - 1) {
            uint32_t at = list + (uint32_t)__builtin_ctz(mask);
            if (at < nlist) worker->lists[count++] = at;
        }
    }
    /* Of those at t the last are too many. */
    uint32_t kept = count;
    for (uint32_t i = count; kept > want; i--) {
        if (scores[worker->lists[i - 1]] != t) continue;
        memmove(&worker->lists[i - 1], &worker->lists[i], (count - i) * sizeof *worker->lists);
        count--;
        kept--;
    }
    return kept;
}

#define TERMS_AHEAD 32u

/* The written list terms of pairs[0 .. n). */
static void list_terms(const pd_batch *batch, uint32_t q, pd_pair *pairs, uint32_t n)
{
    const pd_shape *shape = &batch->index->base.shape;
    int l2 = shape->metric == PD_L2;
    for (uint32_t first = 0; first < n; first += TERMS_AHEAD) {
        uint32_t count = n - first < TERMS_AHEAD ? n - first : TERMS_AHEAD;
        const float *rows[TERMS_AHEAD];
        float terms[TERMS_AHEAD];
        for (uint32_t i = 0; i < count; i++)
            rows[i] = pd_host_centroid(batch->index, pairs[first + i].list);
        batch->device->ops->lanes_any(batch->preps[q].vector, rows, count, pd_dim16(shape->dim), l2, terms);
        for (uint32_t i = 0; i < count; i++)
            pairs[first + i].lt = l2 ? -terms[i] : terms[i];
    }
}

/* Lists without a row that can pass the filter come last, with the empty ones. */
static void pass_over(const pd_batch *batch, const pd_filter *filter, float *scores)
{
    const pd_blocks *blocks = &batch->index->blocks;
    pd_block_filter fold;
    if (!filter || !pd_block_filter_of(blocks, filter, &fold)) return;
    for (uint32_t list = 0; list < batch->index->base.shape.nlist; list++)
        if (!pd_blocks_list_may(blocks, &fold, list)) scores[list] = -FLT_MAX;
}

/* scores: [terms_apart], spoilt. */
static void choose(const pd_batch *batch, uint32_t q, float *scores, const float *summary, pd_worker *worker)
{
    uint32_t nlist = batch->index->base.shape.nlist, want = pd_cpu_probes(batch->index, &batch->queries[q]);
    batch->device->ops->settle(scores, summary, nlist);
    pass_over(batch, batch->queries[q].filter, scores);
    uint32_t count = pick(batch, scores, want, worker);
    pd_pair *pairs = batch->pairs + batch->starts[q];
    for (uint32_t i = 0; i < count; i++)
        pairs[i] = (pd_pair){.query = q, .list = worker->lists[i]};
    list_terms(batch, q, pairs, count);
    uint32_t *probes = batch->answers[q].probes;
    if (!probes) return;
    /* Best first, for those who want to know. */
    for (uint32_t i = 0; i < count; i++)
        worker->hits[i] = (pd_hit){.id = worker->lists[i], .score = scores[worker->lists[i]]};
    pd_hits_sort(worker->hits, count);
    for (uint32_t i = 0; i < count; i++)
        probes[i] = (uint32_t)worker->hits[i].id;
}

/* Queries whose lists are given: forced probes, or all of them. */
static void take_given(const pd_batch *batch, uint32_t q)
{
    const pd_shape *shape = &batch->index->base.shape;
    const pd_query *query = &batch->queries[q];
    pd_pair *pairs = batch->pairs + batch->starts[q];
    uint32_t count = batch->starts[q + 1] - batch->starts[q];
    int forced = query->vector && shape->nlist > 0;
    for (uint32_t i = 0; i < count; i++)
        pairs[i] = (pd_pair){.query = q, .list = forced ? query->probes[i] : i};
    if (!forced) return;
    list_terms(batch, q, pairs, count);
    for (uint32_t i = 0; batch->answers[q].probes && i < count; i++)
        batch->answers[q].probes[i] = query->probes[i];
}

/* Queries of one request share their weights: the summary of the one before serves again. */
static void choose_some(const pd_batch *batch, uint32_t first, uint32_t n, float *terms, pd_worker *worker)
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
        choose(batch, first + i, terms + i * terms_apart(batch), some ? worker->summary : NULL, worker);
    }
}

static void block_task(void *context, uint32_t task, uint32_t worker)
{
    pd_batch *batch = context;
    uint32_t nlist = batch->index->base.shape.nlist;
    uint32_t first = task * PD_GROUP;
    uint32_t n = batch->n - first < PD_GROUP ? batch->n - first : PD_GROUP;
    float *terms = batch->terms + worker * PD_GROUP * terms_apart(batch);
    if (nlist > 0) list_scores(batch, first, n, 0, pd_pages_for(nlist), terms);
    choose_some(batch, first, n, terms, &batch->workers[worker]);
}

static void range_task(void *context, uint32_t task, uint32_t worker)
{
    (void)worker;
    pd_batch *batch = context;
    uint32_t nlist = batch->index->base.shape.nlist;
    uint32_t npages = pd_pages_for(nlist), page = task * PAGE_TASK;
    uint32_t some = npages - page < PAGE_TASK ? npages - page : PAGE_TASK;
    for (uint32_t first = 0; first < batch->n; first += PD_GROUP) {
        uint32_t n = batch->n - first < PD_GROUP ? batch->n - first : PD_GROUP;
        list_scores(batch, first, n, page, some, batch->terms + first * terms_apart(batch));
    }
}

static void choose_task(void *context, uint32_t task, uint32_t worker)
{
    pd_batch *batch = context;
    choose_some(batch, task, 1, batch->terms + task * terms_apart(batch), &batch->workers[worker]);
}

void pd_cpu_coarse(pd_batch *batch)
{
    pd_pool *pool = batch->device->pool;
    uint32_t nlist = batch->index->base.shape.nlist;
    if (blockwise(pd_pool_threads(pool), batch->n)) {
        pd_pool_run(pool, (batch->n + PD_GROUP - 1) / PD_GROUP, block_task, batch);
        return;
    }
    pd_pool_run(pool, (pd_pages_for(nlist) + PAGE_TASK - 1) / PAGE_TASK, range_task, batch);
    pd_pool_run(pool, batch->n, choose_task, batch);
}
