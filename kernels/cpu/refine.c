/* The end of a search: join what the threads found, score the best candidates again from their refine rows where the
 * table keeps them, sort. A task is one query. */
#include <string.h>

#include "cpu.h"

static int refines(const pd_batch *batch, uint32_t q)
{
    return batch->refines && batch->queries[q].vector;
}

/* The best are known, if not how good they are, and they will be scored again. */
static int chosen(const pd_batch *batch, const pd_shortlist *list, uint32_t q)
{
    return batch->by_query && refines(batch, q) && list->count <= list->keep;
}

/* Everything into the first set of candidates, the best of them alone. */
static pd_shortlist *join(pd_batch *batch, uint32_t q, pd_worker *worker)
{
    pd_shortlist *all = &batch->candidates[q];
    if (chosen(batch, all, q)) return all;
    pd_shortlist_settle(batch, all);
    for (uint32_t part = 1; !batch->by_query && part < batch->parts; part++) {
        pd_shortlist *own = &batch->candidates[(size_t)part * batch->n + q];
        pd_shortlist_settle(batch, own);
        all->scanned += own->scanned;
        for (uint32_t i = 0; i < own->count;) {
            uint32_t room = all->room - all->count, some = own->count - i < room ? own->count - i : room;
            memcpy(all->scores + all->count, own->scores + i, some * sizeof *all->scores);
            memcpy(all->slots + all->count, own->slots + i, some * sizeof *all->slots);
            all->count += some;
            i += some;
            if (all->count == all->room) pd_shortlist_shrink(batch, all, worker);
        }
    }
    if (all->count > all->keep) pd_shortlist_shrink(batch, all, worker);
    return all;
}

#define ROWS_AHEAD 32u

static const unsigned char *refine_row(const pd_host_index *index, uint32_t slot)
{
    return pd_host_refine(index, slot / PD_PAGE_ROWS) +
           slot % PD_PAGE_ROWS * pd_refine_row(&index->base.layout);
}

static void push(const pd_host_index *index, uint32_t slot, float score, pd_topk *best)
{
    const uint64_t *ids = pd_page_ids(&index->base.layout, pd_host_page(index, slot / PD_PAGE_ROWS));
    pd_topk_push(best, score, ids[slot % PD_PAGE_ROWS], slot);
}

static void refine_rows(const pd_batch *batch, const pd_prep *prep, const uint32_t *slots, uint32_t n,
                        pd_topk *best)
{
    const pd_host_index *index = batch->index;
    const pd_shape *shape = &index->base.shape;
    int l2 = shape->metric == PD_L2;
    const void *rows[ROWS_AHEAD];
    float sims[ROWS_AHEAD];
    for (uint32_t i = 0; i < n; i++)
        rows[i] = refine_row(index, slots[i]);
    batch->device->ops->refine_rows(shape->refine, prep->vector, rows, n, shape->dim, l2, sims);
    for (uint32_t i = 0; i < n; i++) {
        float score = prep->weigh.a * (l2 ? -sims[i] : sims[i]) + 0.0f;
        push(index, slots[i],
             pd_cpu_weigh_row(&prep->weigh, &index->base.layout, pd_host_page(index, slots[i] / PD_PAGE_ROWS),
                              slots[i] % PD_PAGE_ROWS, score),
             best);
    }
}

/* Where weights are deferred, leaves the rows whose bounds say that they may be among the best, and asks for what their weights
 * are found by: rows lie anywhere in memory. */
static void ask_for_weights(pd_batch *batch, uint32_t q, pd_worker *worker)
{
    const pd_host_index *index = batch->index;
    const pd_layout *layout = &index->base.layout;
    for (uint32_t part = 0; part < (batch->by_query ? 1 : batch->parts); part++) {
        pd_shortlist *list = &batch->candidates[(size_t)part * batch->n + q];
        if (!list->weigh) continue;
        if (list->count > list->keep) pd_shortlist_shrink(batch, list, worker);
        const pd_cpu_weigh *weigh = &batch->preps[q].weigh;
        for (uint32_t p = 0; p < weigh->nparts; p++)
            for (uint32_t j = 0; j < weigh->parts[p].n; j++)
                for (uint32_t v = 0; v < weigh->parts[p].count[j]; v += 16)
                    __builtin_prefetch(batch->queries[q].weights +
                                       layout->weight_at[weigh->parts[p].column[j]] +
                                       weigh->parts[p].first[j] + v);
        for (uint32_t i = 0; i < list->count; i++) {
            unsigned char *page = pd_host_page(index, list->slots[i] / PD_PAGE_ROWS);
            for (uint32_t c = 0; c < weigh->ncolumns; c += 2)
                __builtin_prefetch(pd_page_bytes(layout, page, weigh->columns[c].column));
        }
    }
}

/* Cuts the shortlist down to what is refined, and asks for what will be read: rows lie anywhere in memory. */
static void cut_down(pd_batch *batch, uint32_t q, pd_worker *worker)
{
    const pd_shortlist *list = join(batch, q, worker);
    const pd_host_index *index = batch->index;
    size_t bytes = pd_refine_row(&index->base.layout);
    for (uint32_t i = 0; i < list->count; i++) {
        uint32_t slot = list->slots[i];
        __builtin_prefetch(
            &pd_page_ids(&index->base.layout, pd_host_page(index, slot / PD_PAGE_ROWS))[slot % PD_PAGE_ROWS]);
        const unsigned char *row = refines(batch, q) ? refine_row(index, slot) : NULL;
        for (size_t byte = 0; row && byte < bytes; byte += 64)
            __builtin_prefetch(row + byte, 0, 2);
    }
}

static void finish(pd_batch *batch, uint32_t q, pd_worker *worker)
{
    const pd_query *query = &batch->queries[q];
    pd_answer *answer = &batch->answers[q];
    const pd_shortlist *list = &batch->candidates[q];
    pd_topk best;
    pd_topk_init(&best, worker->hits, query->k, query->min_score);
    for (uint32_t i = 0; i < list->count; i += ROWS_AHEAD) {
        uint32_t n = list->count - i < ROWS_AHEAD ? list->count - i : ROWS_AHEAD;
        if (refines(batch, q))
            refine_rows(batch, &batch->preps[q], list->slots + i, n, &best);
        else
            for (uint32_t j = i; j < i + n; j++)
                push(batch->index, list->slots[j], list->scores[j], &best);
    }
    pd_topk_sort(&best);
    memcpy(answer->hits, best.items, best.count * sizeof *best.items);
    answer->count = best.count;
    answer->scanned = list->scanned;
    answer->nprobe = batch->index->base.shape.nlist > 0 ? batch->starts[q + 1] - batch->starts[q] : 0;
}

#define REFINE_TASK 8u

/* The rows of the next query are on their way while those of one are scored. */
static void refine_task(void *context, uint32_t task, uint32_t number)
{
    pd_batch *batch = context;
    pd_worker *worker = &batch->workers[number];
    uint32_t first = task * REFINE_TASK;
    uint32_t last = batch->n - first < REFINE_TASK ? batch->n : first + REFINE_TASK;
    for (uint32_t q = first; q <= last + 1; q++) {
        if (q < last) ask_for_weights(batch, q, worker);
        if (q > first && q <= last) cut_down(batch, q - 1, worker);
        if (q > first + 1) finish(batch, q - 2, worker);
    }
}

void pd_cpu_refine(pd_batch *batch)
{
    pd_pool_run(batch->device->pool, (batch->n + REFINE_TASK - 1) / REFINE_TASK, refine_task, batch);
}
