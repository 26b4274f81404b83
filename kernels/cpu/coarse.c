/* Choosing the lists to probe.
 *
 * The centroids lie in pages of i8 codes of their own (host.c), so that choosing is the same integer product as scanning; the
 * lists' weight summaries are added and the best nprobe are kept, ties by list number. Lists without rows come last. The
 * list terms of the chosen are then the written f32 sums. Lists in groups are chosen by levels.c, with what stands here. Many queries: a task is a block of queries against all
 * centroids. Few: a task is a range of centroids for all queries, and a second step chooses.
 */
#include <float.h>
#include <string.h>

#include "coarse.h"

#define PAGE_TASK 8u /* pages of centroids of a task when queries are few */

uint32_t pd_cpu_probes(const pd_host_index *index, const pd_query *query)
{
    uint32_t nlist = pd_host_nlist(index);
    if (!query->vector) return nlist;
    return query->nprobe < nlist ? query->nprobe : nlist;
}

int pd_coarse_chooses(const pd_batch *batch, uint32_t q)
{
    const pd_query *query = &batch->queries[q];
    return query->vector && batch->index->base.shape.nlist > 0 && !query->probes && query->nprobe > 0;
}

static int blockwise(uint32_t threads, uint32_t n)
{
    return n >= PD_GROUP * threads || threads == 1;
}

uint32_t pd_coarse_rows(const pd_host_index *index, uint32_t threads, uint32_t n)
{
    if (index->upper.ngroups > 0) return 0;
    return blockwise(threads, n) ? PD_GROUP * threads : n;
}

/* Floats between two queries' rows of list scores. */
static size_t terms_apart(const pd_batch *batch)
{
    return (size_t)pd_pages_for(batch->index->base.shape.nlist) * PD_PAGE_ROWS;
}

void pd_coarse_near(const pd_batch *batch, uint32_t first, uint32_t n, unsigned char *pages, uint32_t page,
                    uint32_t npages, float *out, size_t apart)
{
    const pd_layout *layout = &batch->index->coarse;
    const pd_cpu_device *device = batch->device;
    uint32_t dim64 = pd_dim64(layout->code_dim);
    pd_cpu_group group;
    int32_t dots[PD_GROUP * PD_PAGE_ROWS];
    /* Runs of queries that choose: their packed codes lie side by side. */
    for (uint32_t i = 0, end; i < n; i = end + 1) {
        for (end = i; end < n && pd_coarse_chooses(batch, first + end); end++) {
            group.lt[end - i] = 0.0f;
            group.a[end - i] = batch->queries[first + end].similarity;
            group.qf[end - i] = batch->preps[first + end].nf;
            group.bar[end - i] = 0.0f;
        }
        const unsigned char *near = end > i ? batch->preps[first + i].near : NULL;
        for (uint32_t p = page; end > i && p < page + npages; p++) {
            unsigned char *codes = pages + p * layout->page_bytes;
            device->i8->dots((const int8_t *)(codes + layout->codes), layout->dim4 / 4, dim64, near, end - i,
                             dots);
            device->ops->scores_i8(dots, end - i, pd_page_term(layout, codes), pd_page_scale(layout, codes),
                                   &group, out + i * apart + (size_t)p * PD_PAGE_ROWS, apart);
        }
    }
}

/* ---------------------------------------------------------------------------------------------- summaries --- */

uint32_t pd_promises_of(const pd_batch *batch, const pd_prep *prep, pd_worker *worker, pd_promises *out)
{
    const pd_host_index *index = batch->index;
    out->n = 0;
    if (!index->histograms || !(index->beta > 0.0f)) return 0;
    for (uint32_t i = 0; i < prep->weigh.ncolumns; i++) {
        const pd_cpu_column *column = &prep->weigh.columns[i];
        if (!index->tied[column->column]) continue;
        uint32_t at = index->base.layout.weight_at[column->column];
        /* Values that no row has are in no list: an open category has room for 256. */
        uint32_t used = index->blocks.last[column->column] + 1u;
        uint32_t size = used < column->size ? used : column->size, next = out->n++;
        out->columns[next].at = at;
        out->columns[next].size = size;
        out->columns[next].nothing =
            batch->device->ops->powers(column->table, size, column->most, index->beta, worker->power + at);
    }
    return out->n;
}

/* Columns whose factors are multiplied before their logarithm is taken: the product stays a normal number. */
#define FACTORS 8u

void pd_promises_sum(const pd_batch *batch, const pd_promises *promises, const float *shares, size_t apart,
                     uint32_t first, uint32_t n, pd_worker *worker, float *out)
{
    const pd_cpu_ops *ops = batch->device->ops;
    float *factors = worker->factors;
    for (uint32_t done = 0; done < promises->n; done += FACTORS) {
        for (uint32_t l = 0; l < n; l++)
            factors[l] = 1.0f;
        for (uint32_t i = done; i < promises->n && i < done + FACTORS; i++) {
            uint32_t at = promises->columns[i].at;
            ops->summary(shares + at * apart + first, apart, worker->power + at, promises->columns[i].size,
                         promises->columns[i].nothing, n, factors);
        }
        ops->logs(factors, n, batch->index->beta);
        for (uint32_t l = 0; l < n; l++)
            out[l] = done ? out[l] + factors[l] : factors[l];
    }
}

/* ------------------------------------------------------------------------------------------------ choosing --- */

uint32_t pd_coarse_pick(const pd_batch *batch, const float *scores, uint32_t n, uint32_t want,
                        pd_worker *worker)
{
    const pd_cpu_ops *ops = batch->device->ops;
    uint32_t count = 0;
    float t = ops->kth(scores, n, want, worker->pick);
    for (uint32_t i = 0; i < n; i += PD_PAGE_ROWS) {
        uint32_t mask = ops->at_least(scores + i, t);
        for (; mask; mask &= mask - 1) {
            uint32_t at = i + (uint32_t)__builtin_ctz(mask);
            if (at < n) worker->lists[count++] = at;
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

void pd_coarse_take(const pd_batch *batch, uint32_t q, const uint32_t *lists, const float *scores, uint32_t n,
                    pd_worker *worker)
{
    pd_pair *pairs = batch->pairs + batch->starts[q];
    for (uint32_t i = 0; i < n; i++)
        pairs[i] = (pd_pair){.query = q, .list = lists[i]};
    list_terms(batch, q, pairs, n);
    uint32_t *probes = batch->answers[q].probes;
    if (!probes) return;
    /* Best first, for those who want to know. */
    for (uint32_t i = 0; i < n; i++)
        worker->hits[i] = (pd_hit){.id = lists[i], .score = scores[i]};
    pd_hits_sort(worker->hits, n);
    for (uint32_t i = 0; i < n; i++)
        probes[i] = (uint32_t)worker->hits[i].id;
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
    uint32_t count = pd_coarse_pick(batch, scores, nlist, want, worker);
    for (uint32_t i = 0; i < count; i++)
        worker->best[i] = scores[worker->lists[i]];
    pd_coarse_take(batch, q, worker->lists, worker->best, count, worker);
}

void pd_coarse_given(const pd_batch *batch, uint32_t q)
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
    const pd_host_index *index = batch->index;
    const pd_cpu_column *columns = NULL;
    uint32_t ncolumns = UINT32_MAX, nlist = index->base.shape.nlist;
    pd_promises promises = {.n = 0};
    for (uint32_t i = 0; i < n; i++) {
        const pd_prep *prep = &batch->preps[first + i];
        if (!pd_coarse_chooses(batch, first + i)) {
            pd_coarse_given(batch, first + i);
            continue;
        }
        if (prep->weigh.columns != columns || prep->weigh.ncolumns != ncolumns) {
            if (pd_promises_of(batch, prep, worker, &promises))
                pd_promises_sum(batch, &promises, index->histograms, nlist, 0, nlist, worker,
                                worker->summary);
            columns = prep->weigh.columns;
            ncolumns = prep->weigh.ncolumns;
        }
        choose(batch, first + i, terms + i * terms_apart(batch), promises.n ? worker->summary : NULL, worker);
    }
}

static void block_task(void *context, uint32_t task, uint32_t worker)
{
    pd_batch *batch = context;
    uint32_t nlist = batch->index->base.shape.nlist;
    uint32_t first = task * PD_GROUP;
    uint32_t n = batch->n - first < PD_GROUP ? batch->n - first : PD_GROUP;
    float *terms = batch->terms + worker * PD_GROUP * terms_apart(batch);
    if (nlist > 0)
        pd_coarse_near(batch, first, n, batch->index->coarse_pages, 0, pd_pages_for(nlist), terms,
                       terms_apart(batch));
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
        pd_coarse_near(batch, first, n, batch->index->coarse_pages, page, some,
                       batch->terms + first * terms_apart(batch), terms_apart(batch));
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
    if (batch->index->upper.ngroups > 0) {
        pd_levels_choose(batch);
        return;
    }
    if (blockwise(pd_pool_threads(pool), batch->n)) {
        pd_pool_run(pool, (batch->n + PD_GROUP - 1) / PD_GROUP, block_task, batch);
        return;
    }
    pd_pool_run(pool, (pd_pages_for(nlist) + PAGE_TASK - 1) / PAGE_TASK, range_task, batch);
    pd_pool_run(pool, batch->n, choose_task, batch);
}
