/* Scanning lists.
 *
 * The (query, list) pairs are sorted by list, each query's best list before all others, so that its bar is high when the
 * bulk comes. A list is then read once: page by page, PD_GROUP queries at a time. Many queries: each thread owns a share
 * of them, sorts their pairs and scans their lists. Few: the lists are cut into segments that any thread may take, each
 * with candidates of its own for every query; refine.c joins them. Either way a query ends with the same candidates,
 * since the buffers keep the best under a total order.
 *
 * Slots from postings are scored page by page as well: a row's code is strewn over half of the page's cache lines.
 */
#include <string.h>

#include "cpu.h"

#define SEGMENT_PAGES 256u

/* --------------------------------------------------------------------------------------------------- a page --- */

/* The group of queries that goes through a page together. */
typedef struct page_group {
    uint32_t n;
    const pd_prep *preps[PD_GROUP];
    pd_candidates *to[PD_GROUP];
    float lt[PD_GROUP];
    uint32_t pass[PD_GROUP]; /* rows that exist and pass the filter */
} page_group;

static const float *tile_of(const pd_batch *batch, uint32_t page, pd_worker *worker)
{
    const pd_shape *shape = &batch->index->base.shape;
    const void *rows = pd_host_refine(batch->index, page);
    if (shape->refine == PD_REFINE_F32)
        batch->device->ops->pad_f32(rows, PD_PAGE_ROWS, shape->dim, worker->tile);
    else
        batch->device->ops->pad_f16(rows, PD_PAGE_ROWS, shape->dim, worker->tile);
    return worker->tile;
}

/* Similarities of the queries at which[0 .. n) in the group. tile: the padded refine rows, for tables without codes. */
static void similarities(const pd_batch *batch, const page_group *group, const uint32_t *which, uint32_t n,
                         const unsigned char *page, const float *tile, float *sims)
{
    const pd_cpu_ops *ops = batch->device->ops;
    const pd_shape *shape = &batch->index->base.shape;
    const pd_layout *layout = &batch->index->base.layout;
    int l2 = shape->metric == PD_L2;
    if (shape->code == PD_CODE_I8) {
        const int16_t *codes[PD_GROUP];
        int32_t dots[PD_GROUP * PD_PAGE_ROWS];
        for (uint32_t i = 0; i < n; i++)
            codes[i] = group->preps[which[i]]->codes;
        ops->dots_i8((const int8_t *)(page + layout->codes), layout->dim4 / 4, codes, n, dots);
        for (uint32_t i = 0; i < n; i++)
            ops->sims_i8(dots + i * PD_PAGE_ROWS, (const float *)(page + layout->term),
                         (const float *)(page + layout->scale), group->lt[which[i]],
                         group->preps[which[i]]->qf, sims + i * PD_PAGE_ROWS);
        return;
    }
    const float *vectors[PD_GROUP];
    for (uint32_t i = 0; i < n; i++)
        vectors[i] = group->preps[which[i]]->vector;
    if (shape->code == PD_CODE_F32) {
        ops->sims_f32((const float *)(page + layout->codes), shape->dim, vectors, n, l2, sims);
    } else if (shape->code == PD_CODE_F16) {
        ops->sims_f16((const uint16_t *)(page + layout->codes), shape->dim, vectors, n, l2, sims);
    } else {
        ops->lanes(vectors, n, tile, PD_PAGE_ROWS, pd_dim16(shape->dim), l2, sims, PD_PAGE_ROWS);
        for (uint32_t i = 0; l2 && i < n * PD_PAGE_ROWS; i++)
            sims[i] = -sims[i];
    }
}

static void scan_group(const pd_batch *batch, const page_group *group, uint32_t number,
                       const unsigned char *page, const float *tile)
{
    const pd_layout *layout = &batch->index->base.layout;
    float sims[PD_GROUP * PD_PAGE_ROWS];
    uint32_t which[PD_GROUP], n = 0;
    for (uint32_t i = 0; i < group->n; i++)
        if (group->preps[i]->vector) which[n++] = i;
    if (n > 0) similarities(batch, group, which, n, page, tile, sims);
    /* Those without a vector need no similarities; their scores start at 0. */
    for (uint32_t i = 0; i < group->n; i++)
        if (!group->preps[i]->vector) which[n++] = i;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = which[i];
        float *scores = sims + i * PD_PAGE_ROWS;
        uint32_t mask = batch->device->ops->weigh(&group->preps[at]->weigh, layout, page, scores,
                                                  group->to[at]->topk.bar);
        pd_cpu_push(group->to[at], group->preps[at]->query, layout, page, number * PD_PAGE_ROWS, scores,
                    mask & group->pass[at]);
    }
}

/* -------------------------------------------------------------------------------------------------- a list --- */

static void scan_page(const pd_batch *batch, const pd_segment *segment, uint32_t number,
                      pd_candidates *candidates, pd_worker *worker)
{
    const pd_layout *layout = &batch->index->base.layout;
    const unsigned char *page = pd_host_page(batch->index, number);
    uint32_t live = batch->device->ops->at_least((const float *)(page + layout->term), -FLT_MAX);
    if (live == 0) return;
    const float *tile = NULL;
    const pd_filter *filter = NULL;
    uint32_t pass = live, rows = (uint32_t)__builtin_popcount(live);
    page_group group = {.n = 0};
    for (uint32_t i = 0; i < segment->npairs; i++) {
        const pd_pair *pair = &segment->pairs[i];
        const pd_prep *prep = &batch->preps[pair->query];
        if (prep->query->filter != filter) {
            filter = prep->query->filter;
            pass = pd_filter_page(layout, filter, page, live);
        }
        if (pass != 0) {
            pd_candidates *to = &candidates[pair->query];
            to->scanned += rows;
            group.preps[group.n] = prep;
            group.to[group.n] = to;
            group.lt[group.n] = pair->lt;
            group.pass[group.n++] = pass;
        }
        if (group.n == PD_GROUP || (group.n > 0 && i + 1 == segment->npairs)) {
            if (!tile && batch->index->base.shape.code == PD_CODE_NONE) tile = tile_of(batch, number, worker);
            scan_group(batch, &group, number, page, tile);
            group.n = 0;
        }
    }
}

static void scan_segment(const pd_batch *batch, const pd_segment *segment, pd_candidates *candidates,
                         pd_worker *worker)
{
    uint32_t list = segment->pairs[0].list;
    for (uint32_t i = segment->first; i < segment->last; i++)
        scan_page(batch, segment, pd_host_list_page(batch->index, list, i), candidates, worker);
}

/* --------------------------------------------------------------------------------------------------- slots --- */

static void scan_slot_page(const pd_batch *batch, uint32_t q, uint32_t number, uint32_t rows, float lt,
                           pd_candidates *to, pd_worker *worker)
{
    const pd_layout *layout = &batch->index->base.layout;
    const unsigned char *page = pd_host_page(batch->index, number);
    uint32_t live = rows & batch->device->ops->at_least((const float *)(page + layout->term), -FLT_MAX);
    uint32_t pass = pd_filter_page(layout, batch->queries[q].filter, page, live);
    if (pass == 0) return;
    to->scanned += (uint32_t)__builtin_popcount(live);
    page_group group = {.n = 1, .preps = {&batch->preps[q]}, .to = {to}, .lt = {lt}, .pass = {pass}};
    const float *tile = batch->index->base.shape.code == PD_CODE_NONE ? tile_of(batch, number, worker) : NULL;
    scan_group(batch, &group, number, page, tile);
}

static float slot_list_term(const pd_batch *batch, uint32_t q, uint32_t list)
{
    const pd_shape *shape = &batch->index->base.shape;
    float lt = 0.0f;
    if (shape->nlist == 0) return lt;
    batch->device->ops->lanes(&batch->preps[q].vector, 1, pd_host_centroid(batch->index, list), 1,
                              pd_dim16(shape->dim), shape->metric == PD_L2, &lt, 1);
    return shape->metric == PD_L2 ? -lt : lt;
}

static void scan_slots(const pd_batch *batch, uint32_t q, pd_candidates *to, pd_worker *worker)
{
    const pd_query *query = &batch->queries[q];
    uint32_t nlist = batch->index->base.shape.nlist;
    const pd_pair *pairs = batch->pairs + batch->starts[q];
    uint32_t npairs = batch->starts[q + 1] - batch->starts[q];
    if (query->nslots == 0 || npairs == pd_host_nlist(batch->index)) return;
    for (uint32_t i = 0; i < npairs; i++)
        worker->mark[pairs[i].list] = 1;
    uint32_t known = PD_NO_LIST; /* slots are sorted: neighbours often share a list */
    float lt = 0.0f;
    for (uint32_t i = 0, next; i < query->nslots; i = next) {
        uint32_t page = query->slots[i] / PD_PAGE_ROWS, rows = 0;
        for (next = i; next < query->nslots && query->slots[next] / PD_PAGE_ROWS == page; next++)
            rows |= 1u << query->slots[next] % PD_PAGE_ROWS;
        uint32_t list = nlist > 0 ? batch->index->page_list[page] : 0;
        if (list == PD_NO_LIST || worker->mark[list]) continue;
        if (list != known) {
            lt = slot_list_term(batch, q, list);
            known = list;
        }
        scan_slot_page(batch, q, page, rows, lt, to, worker);
    }
    for (uint32_t i = 0; i < npairs; i++)
        worker->mark[pairs[i].list] = 0;
}

/* -------------------------------------------------------------------------------------------------- threads --- */

static uint32_t share(uint32_t n, uint32_t parts, uint32_t part)
{
    return (uint32_t)((uint64_t)n * part / parts);
}

/* Sorts the pairs of queries first .. last - 1 by (not the best list, list). counts: [2 * nlist + 1] */
static void sort_pairs(const pd_batch *batch, uint32_t first, uint32_t last, uint32_t *counts)
{
    uint32_t nlist = pd_host_nlist(batch->index);
    uint32_t begin = batch->starts[first], end = batch->starts[last];
    memset(counts, 0, (2 * (size_t)nlist + 1) * sizeof *counts);
    for (uint32_t i = begin; i < end; i++)
        counts[batch->pairs[i].list + (batch->pairs[i].rank ? nlist : 0) + 1]++;
    counts[0] = begin;
    for (uint32_t b = 0; b < 2 * nlist; b++)
        counts[b + 1] += counts[b];
    for (uint32_t i = begin; i < end; i++)
        batch->sorted[counts[batch->pairs[i].list + (batch->pairs[i].rank ? nlist : 0)]++] = batch->pairs[i];
}

/* The run of pairs with one list that begins at `at`. */
static pd_segment run_at(const pd_batch *batch, uint32_t at, uint32_t end)
{
    uint32_t list = batch->sorted[at].list, stop = at + 1;
    while (stop < end && batch->sorted[stop].list == list)
        stop++;
    return (pd_segment){
        .pairs = batch->sorted + at, .npairs = stop - at, .last = pd_host_list_pages(batch->index, list)};
}

static void part_task(void *context, uint32_t part, uint32_t worker)
{
    pd_batch *batch = context;
    uint32_t first = share(batch->n, batch->parts, part), last = share(batch->n, batch->parts, part + 1);
    sort_pairs(batch, first, last,
               batch->counts + (size_t)part * (2 * (size_t)pd_host_nlist(batch->index) + 1));
    for (uint32_t at = batch->starts[first]; at < batch->starts[last];) {
        pd_segment run = run_at(batch, at, batch->starts[last]);
        scan_segment(batch, &run, batch->candidates, &batch->workers[worker]);
        at += run.npairs;
    }
    for (uint32_t q = first; q < last; q++)
        scan_slots(batch, q, &batch->candidates[q], &batch->workers[worker]);
}

typedef struct segment_job {
    pd_batch *batch;
    pd_segment *segments;
    uint32_t count;
} segment_job;

static void segment_task(void *context, uint32_t task, uint32_t worker)
{
    segment_job *job = context;
    pd_batch *batch = job->batch;
    pd_candidates *own = batch->candidates + (size_t)worker * batch->n;
    if (task < job->count)
        scan_segment(batch, &job->segments[task], own, &batch->workers[worker]);
    else
        scan_slots(batch, task - job->count, &own[task - job->count], &batch->workers[worker]);
}

static pd_status scan_by_list(pd_batch *batch, pd_error *err)
{
    sort_pairs(batch, 0, batch->n, batch->counts);
    uint32_t pairs = batch->starts[batch->n], count = 0;
    segment_job job = {.batch = batch};
    for (uint32_t at = 0; at < pairs;) {
        pd_segment run = run_at(batch, at, pairs);
        count += (run.last + SEGMENT_PAGES - 1) / SEGMENT_PAGES;
        at += run.npairs;
    }
    pd_buffer *memory = &batch->device->scratch[PD_SCRATCH_SEGMENTS];
    pd_status status = pd_buffer_need(memory, count * sizeof *job.segments, "segments", err);
    if (status != PD_OK) return status;
    job.segments = memory->data;
    for (uint32_t at = 0; at < pairs;) {
        pd_segment run = run_at(batch, at, pairs);
        for (uint32_t page = 0; page < run.last; page += SEGMENT_PAGES) {
            pd_segment piece = run;
            piece.first = page;
            piece.last = run.last - page < SEGMENT_PAGES ? run.last : page + SEGMENT_PAGES;
            job.segments[job.count++] = piece;
        }
        at += run.npairs;
    }
    pd_pool_run(batch->device->pool, job.count + batch->n, segment_task, &job);
    return PD_OK;
}

pd_status pd_cpu_scan(pd_batch *batch, pd_error *err)
{
    if (!batch->by_query) return scan_by_list(batch, err);
    pd_pool_run(batch->device->pool, batch->parts, part_task, batch);
    return PD_OK;
}
