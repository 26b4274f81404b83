/* Shortlists: the best `keep` of a stream of rows under the total order (score descending, id ascending).
 *
 * A shortlist holds scores and slots, not ids: an id costs a cache miss, and only ties and the final hits need one. Rows are
 * appended without a branch a row; when the room is full, the keep-th best score is found (ops->kth) and what is under it goes.
 * Ties at that score are settled by id. What is left at the end does not depend on the order of arrival, since the bar never
 * rises above the keep-th best seen.
 *
 * Weights wait where they can: rows come with the score of the similarity alone and an upper bound of the whole, the keep-th best
 * bound less what bounds may exceed gives the bar, and whole scores are made of what is left at the end. Where a cut by bounds
 * leaves too many, whole scores are made at once and the list goes by them from there on. */
#include "cpu.h"

void pd_shortlist_init(pd_shortlist *list, float *memory, uint32_t keep, float least)
{
    uint32_t room = pd_shortlist_room(keep);
    *list = (pd_shortlist){.scores = memory,
                           .slots = (uint32_t *)(void *)(memory + room + 16),
                           .keep = keep,
                           .room = room,
                           .bar = least > -FLT_MAX ? least : -FLT_MAX};
}

void pd_shortlist_defer(pd_shortlist *list, const pd_cpu_weigh *weigh)
{
    /* Weights of keys are in no bound. Under 2^100 no weight makes an infinite sum of a finite similarity. */
    int bounded = weigh->ncolumns > 0 && weigh->nkeys == 0 && weigh->step > 0.0f && weigh->size < 0x1p100;
    list->weigh = bounded ? weigh : NULL;
    if (list->weigh) list->under = pd_cpu_under(weigh, list->bar, weigh->least);
}

static uint64_t id_at(const pd_batch *batch, uint32_t slot)
{
    return pd_page_ids(&batch->index->base.layout,
                       pd_host_page(batch->index, slot / PD_PAGE_ROWS))[slot % PD_PAGE_ROWS];
}

/* Keeps the `left` smallest ids of those at the bar, behind the `over` that are over it. */
static void settle_ties(const pd_batch *batch, pd_shortlist *list, uint32_t over, pd_worker *worker)
{
    uint32_t ties = 0, left = list->keep - over, kept = 0;
    for (uint32_t i = 0; i < list->count; i++) {
        if (list->scores[i] == list->bar)
            worker->hits[ties++] =
                (pd_hit){.id = id_at(batch, list->slots[i]), .score = list->bar, .slot = list->slots[i]};
        else {
            list->scores[kept] = list->scores[i];
            list->slots[kept++] = list->slots[i];
        }
    }
    pd_hits_select(worker->hits, ties, left);
    list->bar_id = 0;
    for (uint32_t i = 0; i < left; i++) {
        list->scores[kept] = list->bar;
        list->slots[kept++] = worker->hits[i].slot;
        if (worker->hits[i].id > list->bar_id) list->bar_id = worker->hits[i].id;
    }
    list->count = kept;
    list->tied = 1;
}

/* Of rows whose weights are deferred: those that can still be among the best stay. The keep-th best bound is that of a row whose
 * whole score is a few steps less at most, and what cannot reach that has no place. */
static void shrink_bounds(const pd_batch *batch, pd_shortlist *list, pd_worker *worker)
{
    const pd_cpu_ops *ops = batch->device->ops;
    float bar =
        pd_cpu_over(list->weigh, ops->kth(pd_shortlist_bounds(list), list->count, list->keep, worker->pick));
    if (bar > list->bar) list->bar = bar;
    list->under = pd_cpu_under(list->weigh, list->bar, list->weigh->least);
    list->count =
        ops->keep(pd_shortlist_bounds(list), list->scores, list->slots, list->count, list->under, 1);
}

void pd_shortlist_settle(const pd_batch *batch, pd_shortlist *list)
{
    if (!list->weigh) return;
    const pd_layout *layout = &batch->index->base.layout;
    for (uint32_t i = 0; i < list->count; i++) {
        uint32_t slot = list->slots[i];
        list->scores[i] =
            pd_cpu_weigh_row(list->weigh, layout, pd_host_page(batch->index, slot / PD_PAGE_ROWS),
                             slot % PD_PAGE_ROWS, list->scores[i]);
    }
    list->weigh = NULL;
    list->count = batch->device->ops->keep(list->scores, NULL, list->slots, list->count, list->bar, 1);
}

void pd_shortlist_shrink(const pd_batch *batch, pd_shortlist *list, pd_worker *worker)
{
    if (list->count < list->keep) return;
    const pd_cpu_ops *ops = batch->device->ops;
    if (list->weigh) {
        shrink_bounds(batch, list, worker);
        /* Where bounds leave too many (most rows weigh alike), they are given up for good. */
        if (list->count <= list->keep + (list->room - PD_PAGE_ROWS - list->keep) / 2) return;
        pd_shortlist_settle(batch, list);
        if (list->count < list->keep) return;
    }
    float t = ops->kth(list->scores, list->count, list->keep, worker->pick);
    if (t > list->bar) list->tied = 0;
    list->bar = t;
    list->count = ops->keep(list->scores, NULL, list->slots, list->count, t, 1);
    if (list->count == list->keep) return;
    uint32_t over = 0;
    for (uint32_t i = 0; i < list->count; i++)
        over += list->scores[i] > t;
    settle_ties(batch, list, over, worker);
}

uint32_t pd_shortlist_strike(const pd_batch *batch, const pd_shortlist *list, const pd_query *query,
                             const unsigned char *page, const float *scores, uint32_t mask)
{
    const uint64_t *ids = (const uint64_t *)(page + batch->index->base.layout.ids);
    uint32_t left = mask;
    for (; mask; mask &= mask - 1) {
        uint32_t row = (uint32_t)__builtin_ctz(mask);
        if ((list->tied && scores[row] == list->bar && ids[row] > list->bar_id) ||
            (query->nexclude && pd_excluded(query->exclude, query->nexclude, ids[row])))
            left &= ~(1u << row);
    }
    return left;
}
