/* Quickselect and quicksort over hits, by a median of three; a range that keeps splitting badly goes to a heap sort. */
#include "topk.h"

#include <float.h>

static inline void swap(pd_hit *a, pd_hit *b)
{
    pd_hit kept = *a;
    *a = *b;
    *b = kept;
}

static void insertion_sort(pd_hit *items, uint32_t count)
{
    for (uint32_t i = 1; i < count; i++) {
        pd_hit item = items[i];
        uint32_t at = i;
        for (; at > 0 && pd_hit_before(&item, &items[at - 1]); at--)
            items[at] = items[at - 1];
        items[at] = item;
    }
}

/* A heap with the last hit on top. */
static void sift(pd_hit *items, uint32_t at, uint32_t count)
{
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= count) return;
        if (child + 1 < count && pd_hit_before(&items[child], &items[child + 1])) child++;
        if (!pd_hit_before(&items[at], &items[child])) return;
        swap(&items[at], &items[child]);
        at = child;
    }
}

static void heap_sort(pd_hit *items, uint32_t count)
{
    for (uint32_t i = count / 2; i > 0; i--)
        sift(items, i - 1, count);
    for (uint32_t end = count; end > 1; end--) {
        swap(&items[0], &items[end - 1]);
        sift(items, 0, end - 1);
    }
}

/* Hoare's partition: everything in [0, returned) comes before or equals everything behind. 0 < returned < count. */
static uint32_t partition(pd_hit *items, uint32_t count)
{
    uint32_t mid = count / 2, last = count - 1;
    if (pd_hit_before(&items[mid], &items[0])) swap(&items[mid], &items[0]);
    if (pd_hit_before(&items[last], &items[0])) swap(&items[last], &items[0]);
    if (pd_hit_before(&items[last], &items[mid])) swap(&items[last], &items[mid]);
    pd_hit pivot = items[mid];
    uint32_t i = 0, j = last;
    for (;;) {
        while (pd_hit_before(&items[i], &pivot))
            i++;
        while (pd_hit_before(&pivot, &items[j]))
            j--;
        if (i >= j) return j + 1 < count ? j + 1 : count - 1;
        swap(&items[i++], &items[j--]);
    }
}

static uint32_t patience(uint32_t count)
{
    uint32_t rounds = 8;
    for (; count > 0; count >>= 1)
        rounds += 2;
    return rounds;
}

void pd_hits_select(pd_hit *items, uint32_t count, uint32_t n)
{
    uint32_t rounds = patience(count);
    while (n > 0 && n < count) {
        if (count <= 16) {
            insertion_sort(items, count);
            return;
        }
        if (rounds-- == 0) {
            heap_sort(items, count);
            return;
        }
        uint32_t split = partition(items, count);
        if (n == split) return;
        if (n < split) {
            count = split;
        } else {
            items += split;
            count -= split;
            n -= split;
        }
    }
}

static void sort_within(pd_hit *items, uint32_t count, uint32_t rounds)
{
    while (count > 16) {
        if (rounds-- == 0) {
            heap_sort(items, count);
            return;
        }
        uint32_t split = partition(items, count);
        /* The smaller side by recursion, so that the stack stays logarithmic. */
        if (split < count - split) {
            sort_within(items, split, rounds);
            items += split;
            count -= split;
        } else {
            sort_within(items + split, count - split, rounds);
            count = split;
        }
    }
    insertion_sort(items, count);
}

void pd_hits_sort(pd_hit *items, uint32_t count)
{
    sort_within(items, count, patience(count));
}

void pd_topk_init(pd_topk *topk, pd_hit *items, uint32_t keep, float least)
{
    *topk = (pd_topk){.items = items, .keep = keep, .room = pd_topk_room(keep), .bar_id = UINT64_MAX};
    topk->bar = least > -FLT_MAX ? least : -FLT_MAX;
}

void pd_topk_shrink(pd_topk *topk)
{
    if (topk->count < topk->keep) return;
    pd_hits_select(topk->items, topk->count, topk->keep);
    topk->count = topk->keep;
    const pd_hit *worst = &topk->items[0];
    for (uint32_t i = 1; i < topk->count; i++)
        if (pd_hit_before(worst, &topk->items[i])) worst = &topk->items[i];
    topk->bar = worst->score;
    topk->bar_id = worst->id;
}

void pd_topk_sort(pd_topk *topk)
{
    pd_topk_shrink(topk);
    pd_hits_sort(topk->items, topk->count);
}
