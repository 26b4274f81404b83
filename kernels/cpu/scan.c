/* Scanning lists.
 *
 * The (query, list) pairs are sorted by list, and a list is read once: PD_GROUP queries at a time, whose codes are copied side by
 * side, go through its pages. What a page's dots become (scores, bounds of the weights in whole steps, the comparison with each
 * query's bar) is one pass over registers; only rows that pass cost more. Their exact weights wait for the end where bounds can
 * stand for them (shortlist.c).
 *
 * Many queries: each thread owns a share of them, sorts their pairs and scans their lists. Few: the lists are cut into
 * segments that any thread may take, each with candidates of its own for every query; refine.c joins them. Either way a query
 * ends with the same candidates, since the shortlists keep the best under a total order.
 *
 * A filter is held against the summaries of lists and pages first (blocks.h), so that those which cannot match cost a few
 * bits; where few of a group's queries have rows left in a page, only their dots are taken.
 *
 * Slots from postings are scored page by page as well: a row's code is strewn over half of the page's cache lines.
 */
#include <string.h>

#include "cpu.h"

#define SEGMENT_PAGES 256u

/* -------------------------------------------------------------------------------------------------- a group --- */

/* The group of queries that goes through some pages of a list together; those with a vector come first. */
typedef struct scan_group {
    const pd_batch *batch;
    pd_worker *worker;
    uint32_t n, nvectors;
    const pd_prep *preps[PD_GROUP];
    pd_shortlist *to[PD_GROUP];
    float least[PD_GROUP]; /* the bar under which not even the steps of a row's values help */
    pd_cpu_group codes;    /* of the queries with a vector */
    int weighs;            /* some of them weighs columns, and rows are i8 codes */
    uint32_t whole;        /* queries that weigh anything */
    uint32_t excludes;     /* queries that exclude ids */
    int filters;           /* some query has a filter */
    uint64_t seen;         /* rows that every query of the group has looked at */
    /* The filters as summaries see them; NULL: they say nothing. Neighbours that share a filter share it. */
    const pd_block_filter *blocks[PD_GROUP];
    pd_block_filter folded[PD_GROUP];
} scan_group;

/* The scores of query i come with the steps of its weights. */
static int in_steps(const scan_group *group, uint32_t i)
{
    return group->preps[i]->codes != NULL;
}

/* After the bar of query i rose. */
static void set_bars(scan_group *group, uint32_t i)
{
    const pd_cpu_weigh *weigh = &group->preps[i]->weigh;
    float bar = group->to[i]->bar;
    if (group->to[i]->weigh) {
        group->codes.bar[i] = group->to[i]->under;
        return;
    }
    int weighs = weigh->ncolumns + weigh->nkeys > 0;
    group->least[i] = weighs ? pd_cpu_under(weigh, bar, weigh->least) : bar;
    group->codes.bar[i] = !weighs              ? bar
                          : in_steps(group, i) ? group->least[i]
                                               : pd_cpu_under(weigh, bar, weigh->most);
}

static const pd_filter *filter_of(const scan_group *group, uint32_t i)
{
    return group->preps[i]->query->filter;
}

static void fold_filter(scan_group *group, uint32_t i)
{
    const pd_filter *filter = filter_of(group, i);
    group->blocks[i] = NULL;
    if (!filter) return;
    group->filters = 1;
    if (i > 0 && filter == filter_of(group, i - 1))
        group->blocks[i] = group->blocks[i - 1];
    else if (pd_block_filter_of(&group->batch->index->blocks, filter, &group->folded[i]))
        group->blocks[i] = &group->folded[i];
}

static void add_query(scan_group *group, const pd_pair *pair, pd_shortlist *to)
{
    const pd_batch *batch = group->batch;
    uint32_t i = group->n++;
    const pd_prep *prep = group->preps[i] = &batch->preps[pair->query];
    group->to[i] = to;
    if (to->count == 0 && in_steps(group, i)) pd_shortlist_defer(to, &prep->weigh);
    group->whole |= (uint32_t)(prep->weigh.ncolumns + prep->weigh.nkeys > 0) << i;
    group->excludes |= (uint32_t)(prep->query->nexclude > 0) << i;
    fold_filter(group, i);
    set_bars(group, i);
    if (!prep->vector) return;
    group->nvectors++;
    group->codes.lt[i] = pair->lt;
    group->codes.qf[i] = prep->qf;
    group->codes.a[i] = prep->weigh.a;
    if (!prep->codes) return;
    group->codes.step[i] = prep->weigh.step;
    group->codes.steps[i] = prep->weigh.steps;
    group->weighs |= prep->weigh.ncolumns > 0;
    size_t packed = pd_packed_bytes(batch->device->i8, pd_dim64(batch->index->base.layout.code_dim));
    memcpy(group->worker->group + i * packed, prep->codes, packed);
}

/* The rows of mask, whose scores are those of the similarity alone: what passes goes into the shortlist of query i. */
static void take_rows(scan_group *group, uint32_t i, uint32_t number, const unsigned char *page,
                      float *scores, const float *bounds, uint32_t mask)
{
    const pd_batch *batch = group->batch;
    pd_shortlist *to = group->to[i];
    scores += i * PD_PAGE_ROWS;
    if (!to->weigh && (group->whole >> i & 1)) {
        const pd_cpu_weigh *weigh = &group->preps[i]->weigh;
        const pd_layout *layout = &batch->index->base.layout;
        const pd_cpu_ops *ops = batch->device->ops;
        if (weigh->ncolumns > 0 && !in_steps(group, i))
            mask = ops->steps(weigh, layout, page, scores, group->least[i], mask);
        if (mask) mask = ops->add_weights(weigh, layout, page, scores, mask, to->bar);
    }
    if (to->tied || (group->excludes >> i & 1))
        mask = pd_shortlist_strike(batch, to, group->preps[i]->query, page, scores, mask);
    if (mask && pd_shortlist_push(batch, to, number * PD_PAGE_ROWS, scores, bounds + i * PD_PAGE_ROWS, mask,
                                  group->worker))
        set_bars(group, i);
}

/* ---------------------------------------------------------------------------------------------------- a page --- */

static const float *tile_of(const pd_batch *batch, uint32_t page, pd_worker *worker)
{
    const pd_shape *shape = &batch->index->base.shape;
    const void *rows = pd_host_refine(batch->index, page);
    batch->device->ops->pad(shape->refine, rows, pd_refine_row(&batch->index->base.layout), PD_PAGE_ROWS,
                            shape->dim, worker->tile);
    return worker->tile;
}

/* Scores of the similarity alone where rows are not i8 codes, and the rows that exist. live: [32]. Returns the queries of which
 * rows may pass. */
static uint32_t whole_scores(scan_group *group, uint32_t number, const unsigned char *page, uint32_t live,
                             float *scores)
{
    const pd_batch *batch = group->batch;
    const pd_cpu_ops *ops = batch->device->ops;
    const pd_shape *shape = &batch->index->base.shape;
    const void *codes = page + batch->index->base.layout.codes;
    const float *vectors[PD_GROUP];
    int l2 = shape->metric == PD_L2;
    uint32_t n = group->nvectors;
    for (uint32_t i = 0; i < n; i++)
        vectors[i] = group->preps[i]->vector;
    if (shape->code == PD_CODE_F32) {
        ops->sims_f32(codes, shape->dim, vectors, n, l2, scores);
    } else if (shape->code == PD_CODE_F16) {
        ops->sims_f16(codes, shape->dim, vectors, n, l2, scores);
    } else if (n > 0) {
        const float *tile = tile_of(batch, number, group->worker);
        ops->lanes(vectors, n, tile, PD_PAGE_ROWS, pd_dim16(shape->dim), l2, scores, PD_PAGE_ROWS);
        for (uint32_t i = 0; l2 && i < n * PD_PAGE_ROWS; i++)
            scores[i] = -scores[i];
    }
    for (uint32_t i = 0; i < n; i++) {
        float *own = scores + i * PD_PAGE_ROWS;
        for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
            own[r] = group->codes.a[i] * own[r] + 0.0f;
        group->codes.pass[i] = live & ops->at_least(own, group->codes.bar[i]);
    }
    return UINT32_MAX;
}

/* The queries of which a page may hold rows, as its summary has it. */
static uint32_t may_pass(const scan_group *group, uint32_t number)
{
    const pd_blocks *blocks = &group->batch->index->blocks;
    uint32_t may = 0;
    for (uint32_t i = 0; i < group->n; i++) {
        const pd_block_filter *filter = group->blocks[i];
        uint32_t bit = i > 0 && filter == group->blocks[i - 1]
                           ? may >> (i - 1) & 1
                           : (uint32_t)(!filter || pd_blocks_page_may(blocks, filter, number));
        may |= bit << i;
    }
    return may;
}

/* pass[i]: the rows of query i. Returns the queries that have any. */
static uint32_t filter_page(const scan_group *group, const unsigned char *page, uint32_t live, uint32_t may,
                            uint32_t *pass)
{
    const pd_layout *layout = &group->batch->index->base.layout;
    uint32_t some = 0;
    for (uint32_t i = 0; i < group->n; i++) {
        const pd_filter *filter = filter_of(group, i);
        if (!(may >> i & 1))
            pass[i] = 0;
        else if (i > 0 && filter == filter_of(group, i - 1))
            pass[i] = pass[i - 1];
        else
            pass[i] = pd_filter_page(layout, filter, page, live);
        some |= (uint32_t)(pass[i] != 0) << i;
    }
    return some;
}

/* Neighbours that weigh the same columns go together. */
static uint32_t weighed_scores(scan_group *group, const unsigned char *page, const int32_t *dots,
                               float *scores, float *bounds)
{
    const pd_batch *batch = group->batch;
    uint32_t some = 0;
    for (uint32_t i = 0, next; i < group->nvectors; i = next) {
        const pd_cpu_weigh *weigh = &group->preps[i]->weigh;
        for (next = i + 1; next < group->nvectors && group->preps[next]->weigh.set == weigh->set;)
            next++;
        some |=
            batch->device->ops->weighed_i8(dots, i, next, weigh->parts, weigh->nparts,
                                           &batch->index->base.layout, page, &group->codes, scores, bounds);
    }
    return some;
}

/* Scores of the similarity alone with i8 codes, of the queries in some. Returns those of which rows may pass. */
static uint32_t code_scores(scan_group *group, const unsigned char *page, uint32_t some, float *scores,
                            float *bounds)
{
    const pd_batch *batch = group->batch;
    const pd_layout *layout = &batch->index->base.layout;
    const pd_cpu_i8 *i8 = batch->device->i8;
    const int8_t *codes = (const int8_t *)(page + layout->codes);
    uint32_t n = group->nvectors, dim64 = pd_dim64(layout->code_dim);
    int32_t dots[PD_GROUP * PD_PAGE_ROWS] __attribute__((aligned(64)));
    if (n < PD_GROUP) some &= (1u << n) - 1;
    /* Without filters some is everybody, and nothing needs counting. */
    if (!group->filters || 2 * (uint32_t)__builtin_popcount(some) >= n) {
        i8->dots(codes, layout->dim4 / 4, dim64, group->worker->group, n, dots);
    } else {
        /* The rest of dots is never looked at, but scored below with everything else. */
        memset(dots, 0, n * PD_PAGE_ROWS * sizeof *dots);
        size_t packed = pd_packed_bytes(i8, dim64);
        for (uint32_t i; some; some &= some - 1) {
            i = (uint32_t)__builtin_ctz(some);
            i8->dots(codes, layout->dim4 / 4, dim64, group->worker->group + i * packed, 1,
                     dots + i * PD_PAGE_ROWS);
        }
    }
    if (group->weighs) return weighed_scores(group, page, dots, scores, bounds);
    return batch->device->ops->scores_i8(dots, n, (const float *)(page + layout->term),
                                         (const float *)(page + layout->scale), &group->codes, scores,
                                         PD_PAGE_ROWS);
}

static uint32_t everybody(const scan_group *group)
{
    return group->n < 32 ? (1u << group->n) - 1 : UINT32_MAX;
}

static void scan_page(scan_group *group, uint32_t number, uint32_t rows)
{
    const pd_batch *batch = group->batch;
    const pd_layout *layout = &batch->index->base.layout;
    unsigned char *page = pd_host_page(batch->index, number);
    uint32_t pass[PD_GROUP], may = group->filters ? may_pass(group, number) : 0, some = UINT32_MAX;
    if (group->filters && may == 0) return;
    uint32_t live = rows & batch->device->ops->at_least(pd_page_term(layout, page), -FLT_MAX);
    if (live == 0) return;
    if (group->filters && (some = filter_page(group, page, live, may, pass)) == 0) return;
    float scores[PD_GROUP * PD_PAGE_ROWS] __attribute__((aligned(64)));
    float bounds[PD_GROUP * PD_PAGE_ROWS] __attribute__((aligned(64)));
    uint32_t hit = batch->index->base.shape.code == PD_CODE_I8
                       ? code_scores(group, page, some, scores, bounds)
                       : whole_scores(group, number, page, live, scores);
    for (uint32_t i = group->nvectors; i < group->n; i++) {
        memset(scores + i * PD_PAGE_ROWS, 0, PD_PAGE_ROWS * sizeof *scores);
        group->codes.pass[i] = 0.0f >= group->codes.bar[i] ? live : 0;
        hit |= 1u << i;
    }
    uint32_t count = (uint32_t)__builtin_popcount(live);
    if (!group->filters) group->seen += count;
    for (uint32_t i = 0; group->filters && i < group->n; i++) {
        group->to[i]->scanned += some >> i & 1 ? count : 0;
        group->codes.pass[i] &= pass[i];
    }
    for (hit &= some & everybody(group); hit; hit &= hit - 1) {
        uint32_t i = (uint32_t)__builtin_ctz(hit), mask = group->codes.pass[i] & rows;
        if (mask) take_rows(group, i, number, page, scores, bounds, mask);
    }
}

/* ----------------------------------------------------------------------------------------------------- a list --- */

static void start_group(scan_group *group, const pd_batch *batch, pd_worker *worker)
{
    group->batch = batch;
    group->worker = worker;
    group->n = group->nvectors = 0;
    group->filters = group->weighs = 0;
    group->whole = group->excludes = 0;
    group->seen = 0;
}

static void end_group(scan_group *group)
{
    for (uint32_t i = 0; i < group->n; i++)
        group->to[i]->scanned += group->seen;
}

/* The next queries of a segment, at most a group, for whose filters the list holds rows. Returns how many. */
static uint32_t next_pairs(const pd_batch *batch, const pd_segment *segment, uint32_t *next, uint32_t *which)
{
    const pd_blocks *blocks = &batch->index->blocks;
    const pd_filter *folded = NULL;
    pd_block_filter fold;
    uint32_t n = 0;
    int may = 1;
    for (; *next < segment->npairs && n < PD_GROUP; ++*next) {
        const pd_filter *filter = batch->queries[segment->pairs[*next].query].filter;
        if (filter && filter != folded) {
            may = !pd_block_filter_of(blocks, filter, &fold) ||
                  pd_blocks_list_may(blocks, &fold, segment->pairs[0].list);
            folded = filter;
        }
        if (!filter || may) which[n++] = *next;
    }
    return n;
}

static void scan_segment(const pd_batch *batch, const pd_segment *segment, pd_shortlist *candidates,
                         pd_worker *worker)
{
    uint32_t list = segment->pairs[0].list, which[PD_GROUP], n;
    for (uint32_t next = 0; (n = next_pairs(batch, segment, &next, which)) > 0;) {
        scan_group group;
        start_group(&group, batch, worker);
        for (int vector = 1; vector >= 0; vector--) {
            for (uint32_t i = 0; i < n; i++) {
                const pd_pair *pair = &segment->pairs[which[i]];
                if ((batch->preps[pair->query].vector != NULL) == vector)
                    add_query(&group, pair, &candidates[pair->query]);
            }
        }
        for (uint32_t i = segment->first; i < segment->last; i++)
            scan_page(&group, pd_host_list_page(batch->index, list, i), 0xffffffffu);
        end_group(&group);
    }
}

/* --------------------------------------------------------------------------------------------------- slots --- */

static float slot_list_term(const pd_batch *batch, uint32_t q, uint32_t list)
{
    const pd_shape *shape = &batch->index->base.shape;
    float lt = 0.0f;
    if (shape->nlist == 0 || !batch->preps[q].vector) return lt;
    const float *centroid = pd_host_centroid(batch->index, list);
    batch->device->ops->lanes_any(batch->preps[q].vector, &centroid, 1, pd_dim16(shape->dim),
                                  shape->metric == PD_L2, &lt);
    return shape->metric == PD_L2 ? -lt : lt;
}

static void scan_slots(const pd_batch *batch, uint32_t q, pd_shortlist *to, pd_worker *worker)
{
    const pd_query *query = &batch->queries[q];
    uint32_t nlist = batch->index->base.shape.nlist;
    const pd_pair *pairs = batch->pairs + batch->starts[q];
    uint32_t npairs = batch->starts[q + 1] - batch->starts[q];
    if (query->nslots == 0 || npairs == pd_host_nlist(batch->index)) return;
    for (uint32_t i = 0; i < npairs; i++)
        worker->mark[pairs[i].list] = 1;
    scan_group group;
    start_group(&group, batch, worker);
    add_query(&group, &(pd_pair){.query = q}, to);
    uint32_t known = PD_NO_LIST; /* slots are sorted: neighbours often share a list */
    for (uint32_t i = 0, next; i < query->nslots; i = next) {
        uint32_t page = query->slots[i] / PD_PAGE_ROWS, rows = 0;
        for (next = i; next < query->nslots && query->slots[next] / PD_PAGE_ROWS == page; next++)
            rows |= 1u << query->slots[next] % PD_PAGE_ROWS;
        uint32_t list = nlist > 0 ? batch->index->page_list[page] : 0;
        if (list == PD_NO_LIST || worker->mark[list]) continue;
        if (list != known) {
            group.codes.lt[0] = slot_list_term(batch, q, list);
            known = list;
        }
        scan_page(&group, page, rows);
    }
    end_group(&group);
    for (uint32_t i = 0; i < npairs; i++)
        worker->mark[pairs[i].list] = 0;
}

/* -------------------------------------------------------------------------------------------------- threads --- */

static uint32_t share(uint32_t n, uint32_t parts, uint32_t part)
{
    return (uint32_t)((uint64_t)n * part / parts);
}

/* Sorts the pairs of queries first .. last - 1 by list. counts: [nlist + 1] */
static void sort_pairs(const pd_batch *batch, uint32_t first, uint32_t last, uint32_t *counts)
{
    uint32_t nlist = pd_host_nlist(batch->index);
    uint32_t begin = batch->starts[first], end = batch->starts[last];
    memset(counts, 0, ((size_t)nlist + 1) * sizeof *counts);
    for (uint32_t i = begin; i < end; i++)
        counts[batch->pairs[i].list + 1]++;
    counts[0] = begin;
    for (uint32_t list = 0; list < nlist; list++)
        counts[list + 1] += counts[list];
    for (uint32_t i = begin; i < end; i++)
        batch->sorted[counts[batch->pairs[i].list]++] = batch->pairs[i];
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
    sort_pairs(batch, first, last, batch->counts + (size_t)part * ((size_t)pd_host_nlist(batch->index) + 1));
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
    pd_shortlist *own = batch->candidates + (size_t)worker * batch->n;
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
