/* Bounded candidate buffers: the best `keep` of a stream under the total order (score descending, id ascending, slot
 * ascending). A buffer has room for more than it keeps; when it is full, a quickselect throws the worst away and the
 * last one kept becomes the bar that newcomers must reach. What is left at the end does not depend on the order of
 * arrival, since the bar never rises above the keep-th best seen. */
#ifndef PD_TOPK_H
#define PD_TOPK_H

#include "backend.h"

typedef struct pd_topk {
    pd_hit *items; /* [room] */
    uint32_t count, keep, room;
    float bar;       /* nothing under it can still be among the best; never -infinity or NaN */
    uint64_t bar_id; /* at the bar itself, ids over this one cannot */
} pd_topk;

/* Entries that a buffer for the best `keep` wants. */
static inline uint32_t pd_topk_room(uint32_t keep)
{
    return keep + (keep > 128 ? keep : 128);
}

static inline int pd_hit_before(const pd_hit *a, const pd_hit *b)
{
    if (a->score != b->score) return a->score > b->score;
    if (a->id != b->id) return a->id < b->id;
    return a->slot < b->slot;
}

/* items: [pd_topk_room(keep)]. least: scores under it are not taken (-infinity: any finite score is). */
void pd_topk_init(pd_topk *topk, pd_hit *items, uint32_t keep, float least);
/* Throws away all but the best keep and raises the bar. */
void pd_topk_shrink(pd_topk *topk);
/* Shrinks and sorts: items[0 .. count) are the answer. */
void pd_topk_sort(pd_topk *topk);

static inline void pd_topk_push(pd_topk *topk, float score, uint64_t id, uint32_t slot)
{
    if (!(score >= topk->bar) || (score == topk->bar && id > topk->bar_id)) return;
    topk->items[topk->count++] = (pd_hit){.id = id, .score = score, .slot = slot};
    if (topk->count == topk->room) pd_topk_shrink(topk);
}

/* Orders items so that the best n come first, in no order. */
void pd_hits_select(pd_hit *items, uint32_t count, uint32_t n);
void pd_hits_sort(pd_hit *items, uint32_t count);

#endif
