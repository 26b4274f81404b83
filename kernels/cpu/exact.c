/* Exact search: every live row of the blocks against every query, from full-precision rows by the refine formula.
 *
 * A page's rows are padded into a tile that stays in cache, and PD_GROUP queries at a time go through it. Many queries:
 * a thread owns a share of them and sees every page. Few: threads take pages, each with candidates of its own, joined at
 * the end.
 */
#include <stdlib.h>
#include <string.h>

#include "cpu.h"

/* The candidates of one query, or of one query in one worker's hands. */
typedef struct exact_candidates {
    pd_topk topk;
} exact_candidates;

typedef struct cpu_exact {
    pd_cpu_device *device;
    pd_shape shape;
    pd_layout layout;
    const pd_query *queries;
    uint32_t count;
    uint32_t threads;
    int by_query;
    pd_prepared prepared;
    pd_buffer candidate_memory, hit_memory, tile_memory;
    exact_candidates *candidates; /* [copies][count] */
    uint64_t scanned;
    const pd_block *block; /* while one is worked on */
} cpu_exact;

static void exact_free(cpu_exact *exact)
{
    pd_prepared_free(&exact->prepared);
    pd_buffer_free(&exact->candidate_memory);
    pd_buffer_free(&exact->hit_memory);
    pd_buffer_free(&exact->tile_memory);
    free(exact);
}

static pd_status take_memory(cpu_exact *exact, pd_error *err)
{
    size_t copies = exact->by_query ? 1 : exact->threads;
    size_t room = 0, tile = (size_t)PD_PAGE_ROWS * pd_dim16(exact->shape.dim);
    for (uint32_t q = 0; q < exact->count; q++)
        room += pd_topk_room(exact->queries[q].k);
    const char *what = "an exact search";
    pd_status status =
        pd_buffer_need(&exact->candidate_memory, copies * exact->count * sizeof(exact_candidates), what, err);
    if (status == PD_OK)
        status = pd_buffer_need(&exact->hit_memory, copies * room * sizeof(pd_hit), what, err);
    if (status == PD_OK)
        status = pd_buffer_need(&exact->tile_memory, exact->threads * tile * sizeof(float), what, err);
    if (status != PD_OK) return status;
    exact->candidates = exact->candidate_memory.data;
    pd_hit *hits = exact->hit_memory.data;
    for (size_t c = 0; c < copies; c++) {
        for (uint32_t q = 0; q < exact->count; q++) {
            exact_candidates *candidates = &exact->candidates[c * exact->count + q];
            pd_topk_init(&candidates->topk, hits, exact->queries[q].k, exact->queries[q].min_score);
            hits += pd_topk_room(exact->queries[q].k);
        }
    }
    return PD_OK;
}

pd_status pd_cpu_exact_begin(pd_device *base, const pd_shape *shape, const pd_query *queries, uint32_t count,
                             pd_exact **out, pd_error *err)
{
    pd_cpu_device *device = (pd_cpu_device *)base;
    cpu_exact *exact = calloc(1, sizeof *exact);
    if (!exact) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for an exact search");
    exact->device = device;
    exact->shape = *shape;
    exact->queries = queries;
    exact->count = count;
    exact->threads = pd_pool_threads(device->pool);
    exact->by_query = exact->threads == 1 || count >= PD_GROUP * exact->threads;
    pd_status status = pd_layout_of(shape, &exact->layout, err);
    if (status == PD_OK)
        status = pd_prepare(device, shape, &exact->layout, NULL, queries, count, &exact->prepared, err);
    if (status == PD_OK) status = take_memory(exact, err);
    if (status != PD_OK)
        exact_free(exact);
    else
        *out = (pd_exact *)exact;
    return status;
}

/* Pushes the rows of mask; excluded ids do not pass. */
static void push(exact_candidates *to, const pd_query *query, const pd_layout *layout, const void *page,
                 uint32_t slot, const float *scores, uint32_t mask)
{
    const uint64_t *ids = (const uint64_t *)((const unsigned char *)page + layout->ids);
    for (; mask; mask &= mask - 1) {
        uint32_t row = (uint32_t)__builtin_ctz(mask);
        if (query->nexclude && pd_excluded(query->exclude, query->nexclude, ids[row])) continue;
        pd_topk_push(&to->topk, scores[row], ids[row], slot + row);
    }
}

/* A group of queries against a page: scores and pushes. */
static void score_group(const cpu_exact *exact, uint32_t number, const unsigned char *page, const float *tile,
                        const uint32_t *which, const uint32_t *pass, uint32_t n, uint32_t nvectors,
                        exact_candidates *candidates)
{
    const pd_cpu_ops *ops = exact->device->ops;
    int l2 = exact->shape.metric == PD_L2;
    float own[PD_GROUP * PD_PAGE_ROWS], sims[PD_GROUP * PD_PAGE_ROWS];
    const float *vectors[PD_GROUP];
    uint32_t from[PD_GROUP], distinct = 0;
    /* Neighbours that ask with the same vector (a calibration's spreads) share its similarities. */
    for (uint32_t i = 0; i < nvectors; i++) {
        if (i == 0 || exact->queries[which[i]].vector != exact->queries[which[i - 1]].vector)
            vectors[distinct++] = exact->prepared.preps[which[i]].vector;
        from[i] = distinct - 1;
    }
    if (distinct > 0)
        ops->lanes(vectors, distinct, tile, PD_PAGE_ROWS, pd_dim16(exact->shape.dim), l2, own, PD_PAGE_ROWS);
    for (uint32_t i = 0; l2 && i < distinct * PD_PAGE_ROWS; i++)
        own[i] = -own[i];
    for (uint32_t i = 0; i < nvectors; i++)
        memcpy(sims + i * PD_PAGE_ROWS, own + from[i] * PD_PAGE_ROWS, PD_PAGE_ROWS * sizeof *sims);
    for (uint32_t i = 0; i < n; i++) {
        const pd_prep *prep = &exact->prepared.preps[which[i]];
        exact_candidates *to = &candidates[which[i]];
        float *scores = sims + i * PD_PAGE_ROWS;
        uint32_t mask = ops->weigh(&prep->weigh, &exact->layout, page, scores, to->topk.bar);
        push(to, prep->query, &exact->layout, page, number * PD_PAGE_ROWS, scores, mask & pass[i]);
    }
}

/* Queries first .. last - 1 against page p of the block. */
static void score_page(const cpu_exact *exact, uint32_t p, uint32_t first, uint32_t last, float *tile,
                       exact_candidates *candidates)
{
    const pd_cpu_ops *ops = exact->device->ops;
    const pd_block *block = exact->block;
    uint32_t dim = exact->shape.dim;
    const unsigned char *page = (const unsigned char *)block->pages + (size_t)p * exact->layout.page_bytes;
    uint32_t live = ops->at_least((const float *)(page + exact->layout.term), -FLT_MAX);
    if (live == 0) return;
    int padded = 0;
    const pd_filter *filter = NULL;
    uint32_t allowed = live;
    for (uint32_t begin = first; begin < last; begin += PD_GROUP) {
        uint32_t end = last - begin < PD_GROUP ? last : begin + PD_GROUP;
        uint32_t which[PD_GROUP], pass[PD_GROUP], n = 0, nvectors = 0;
        /* Those with vectors first. */
        for (int vector = 1; vector >= 0; vector--) {
            for (uint32_t q = begin; q < end; q++) {
                if ((exact->queries[q].vector != NULL) != vector) continue;
                if (exact->queries[q].filter != filter) {
                    filter = exact->queries[q].filter;
                    allowed = pd_filter_page(&exact->layout, filter, page, live);
                }
                if (allowed == 0) continue;
                which[n] = q;
                pass[n++] = allowed;
            }
            if (vector) nvectors = n;
        }
        if (nvectors > 0 && !padded) {
            size_t apart = dim * (block->dtype == PD_REFINE_F32 ? sizeof(float) : sizeof(uint16_t));
            const unsigned char *rows = (const unsigned char *)block->rows + (size_t)p * PD_PAGE_ROWS * apart;
            ops->pad(block->dtype, rows, apart, PD_PAGE_ROWS, dim, tile);
            padded = 1;
        }
        score_group(exact, block->first_page + p, page, tile, which, pass, n, nvectors, candidates);
    }
}

#define PAGE_TASK 16u

static void exact_task(void *context, uint32_t task, uint32_t worker)
{
    cpu_exact *exact = context;
    float *tile =
        (float *)exact->tile_memory.data + (size_t)worker * PD_PAGE_ROWS * pd_dim16(exact->shape.dim);
    if (exact->by_query) {
        uint32_t first = (uint32_t)((uint64_t)exact->count * task / exact->threads);
        uint32_t last = (uint32_t)((uint64_t)exact->count * (task + 1) / exact->threads);
        for (uint32_t p = 0; p < exact->block->npages; p++)
            score_page(exact, p, first, last, tile, exact->candidates);
        return;
    }
    for (uint32_t p = task * PAGE_TASK; p < exact->block->npages && p < (task + 1) * PAGE_TASK; p++)
        score_page(exact, p, 0, exact->count, tile, exact->candidates + (size_t)worker * exact->count);
}

pd_status pd_cpu_exact_block(pd_exact *base, const pd_block *block, pd_error *err)
{
    (void)err;
    cpu_exact *exact = (cpu_exact *)base;
    exact->block = block;
    for (uint32_t p = 0; p < block->npages; p++) {
        const unsigned char *page =
            (const unsigned char *)block->pages + (size_t)p * exact->layout.page_bytes;
        exact->scanned += (uint32_t)__builtin_popcount(
            exact->device->ops->at_least((const float *)(page + exact->layout.term), -FLT_MAX));
    }
    uint32_t tasks = exact->by_query ? exact->threads : (block->npages + PAGE_TASK - 1) / PAGE_TASK;
    pd_pool_run(exact->device->pool, tasks, exact_task, exact);
    exact->block = NULL;
    return PD_OK;
}

pd_status pd_cpu_exact_end(pd_exact *base, pd_answer *answers, pd_error *err)
{
    (void)err;
    cpu_exact *exact = (cpu_exact *)base;
    uint32_t copies = exact->by_query ? 1 : exact->threads;
    for (uint32_t q = 0; answers && q < exact->count; q++) {
        pd_topk *all = &exact->candidates[q].topk;
        for (uint32_t c = 1; c < copies; c++) {
            const pd_topk *own = &exact->candidates[(size_t)c * exact->count + q].topk;
            for (uint32_t i = 0; i < own->count; i++)
                pd_topk_push(all, own->items[i].score, own->items[i].id, own->items[i].slot);
        }
        pd_topk_sort(all);
        memcpy(answers[q].hits, all->items, all->count * sizeof *all->items);
        answers[q].count = all->count;
        answers[q].nprobe = 0;
        answers[q].scanned = exact->scanned;
    }
    exact_free(exact);
    return PD_OK;
}
