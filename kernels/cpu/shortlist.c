/* Shortlists: the best `keep` of a stream of rows under the total order (score descending, id ascending).
 *
 * A shortlist holds scores and slots, not ids: an id costs a cache miss, and only ties and the final hits need one. Rows are
 * appended without a branch a row; when the room is full, the keep-th best score is found (ops->kth) and what is under it goes.
 * Ties at that score are settled by id. What is left at the end does not depend on the order of arrival, since the bar never
 * rises above the keep-th best seen. */
#include "cpu.h"

void pd_shortlist_init(pd_shortlist *list, float *scores, uint32_t *slots, uint32_t keep, float least)
{
    *list = (pd_shortlist){.scores = scores,
                           .slots = slots,
                           .keep = keep,
                           .room = pd_shortlist_room(keep),
                           .bar = least > -FLT_MAX ? least : -FLT_MAX};
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

void pd_shortlist_shrink(const pd_batch *batch, pd_shortlist *list, pd_worker *worker)
{
    if (list->count < list->keep) return;
    const pd_cpu_ops *ops = batch->device->ops;
    float t = ops->kth(list->scores, list->count, list->keep, worker->pick);
    if (t > list->bar) list->tied = 0;
    list->bar = t;
    list->count = ops->keep(list->scores, list->slots, list->count, t, 1);
    if (list->count == list->keep) return;
    uint32_t over = 0;
    for (uint32_t i = 0; i < list->count; i++)
        over += list->scores[i] > t;
    settle_ties(batch, list, over, worker);
}

/* Rows that may not be taken though their score allows it. */
static uint32_t strike(const pd_shortlist *list, const pd_query *query, const uint64_t *ids,
                       const float *scores, uint32_t mask)
{
    uint32_t left = mask;
    for (; mask; mask &= mask - 1) {
        uint32_t row = (uint32_t)__builtin_ctz(mask);
        if ((list->tied && scores[row] == list->bar && ids[row] > list->bar_id) ||
            (query->nexclude && pd_excluded(query->exclude, query->nexclude, ids[row])))
            left &= ~(1u << row);
    }
    return left;
}

int pd_shortlist_push(const pd_batch *batch, pd_shortlist *list, const pd_query *query,
                      const unsigned char *page, uint32_t slot, const float *scores, uint32_t mask,
                      pd_worker *worker)
{
    if (list->tied || query->nexclude)
        mask = strike(list, query, (const uint64_t *)(page + batch->index->base.layout.ids), scores, mask);
    if (mask == 0) return 0;
    list->count +=
        batch->device->ops->append(scores, slot, mask, list->scores + list->count, list->slots + list->count);
    if (list->count + PD_PAGE_ROWS <= list->room) return 0;
    pd_shortlist_shrink(batch, list, worker);
    return 1;
}
