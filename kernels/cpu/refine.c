/* The end of a search: join what the threads found, score the best candidates again from their refine rows where the
 * table keeps them, sort. A task is one query. */
#include <string.h>

#include "cpu.h"

/* Everything into the first set of candidates. */
static pd_candidates *join(pd_batch *batch, uint32_t q)
{
    pd_candidates *all = &batch->candidates[q];
    for (uint32_t part = 1; !batch->by_query && part < batch->parts; part++) {
        const pd_candidates *own = &batch->candidates[(size_t)part * batch->n + q];
        for (uint32_t i = 0; i < own->topk.count; i++)
            pd_topk_push(&all->topk, own->topk.items[i].score, own->topk.items[i].id,
                         own->topk.items[i].slot);
        all->scanned += own->scanned;
    }
    return all;
}

/* The written score of one row, from its similarity. */
static float weigh_row(const pd_cpu_weigh *weigh, const pd_layout *layout, const unsigned char *page,
                       uint32_t row, float sim)
{
    float score = weigh->a * sim + 0.0f;
    for (uint32_t c = 0; c < weigh->ncolumns; c++)
        score += weigh->columns[c]
                     .table[page[layout->bytes + (size_t)weigh->columns[c].column * PD_PAGE_ROWS + row]];
    for (uint32_t i = 0; i < weigh->nkeys; i++) {
        const uint64_t *keys =
            (const uint64_t *)(page + layout->keys) + (size_t)weigh->keys[i].column * PD_PAGE_ROWS;
        if (keys[row] == weigh->keys[i].value) score += weigh->keys[i].weight;
    }
    return score;
}

#define ROWS_AHEAD 32u

static void refine_rows(const pd_batch *batch, const pd_prep *prep, const pd_hit *hits, uint32_t n,
                        pd_topk *best)
{
    const pd_host_index *index = batch->index;
    const pd_shape *shape = &index->base.shape;
    size_t row_bytes = shape->dim * (shape->refine == PD_REFINE_F32 ? sizeof(float) : sizeof(uint16_t));
    int l2 = shape->metric == PD_L2;
    const void *rows[ROWS_AHEAD];
    float sims[ROWS_AHEAD];
    for (uint32_t i = 0; i < n; i++) {
        const unsigned char *row =
            pd_host_refine(index, hits[i].slot / PD_PAGE_ROWS) + (hits[i].slot % PD_PAGE_ROWS) * row_bytes;
        rows[i] = row;
        /* The first lines of each; the machine's own prefetcher follows them. */
        for (size_t byte = 0; byte < row_bytes && byte < 256; byte += 64)
            __builtin_prefetch(row + byte);
    }
    if (shape->refine == PD_REFINE_F32)
        batch->device->ops->rows_f32(prep->vector, (const float *const *)rows, n, shape->dim, l2, sims);
    else
        batch->device->ops->rows_f16(prep->vector, (const uint16_t *const *)rows, n, shape->dim, l2, sims);
    for (uint32_t i = 0; i < n; i++) {
        const unsigned char *page = pd_host_page(index, hits[i].slot / PD_PAGE_ROWS);
        float score = weigh_row(&prep->weigh, &index->base.layout, page, hits[i].slot % PD_PAGE_ROWS,
                                l2 ? -sims[i] : sims[i]);
        pd_topk_push(best, score, hits[i].id, hits[i].slot);
    }
}

static void finish(void *context, uint32_t q, uint32_t worker)
{
    pd_batch *batch = context;
    const pd_query *query = &batch->queries[q];
    pd_answer *answer = &batch->answers[q];
    pd_candidates *all = join(batch, q);
    pd_topk best = all->topk;
    if (batch->refines && query->vector) {
        pd_topk_shrink(&all->topk);
        pd_topk_init(&best, batch->workers[worker].hits, query->k, query->min_score);
        for (uint32_t i = 0; i < all->topk.count; i += ROWS_AHEAD) {
            uint32_t n = all->topk.count - i < ROWS_AHEAD ? all->topk.count - i : ROWS_AHEAD;
            refine_rows(batch, &batch->preps[q], all->topk.items + i, n, &best);
        }
    }
    pd_topk_sort(&best);
    memcpy(answer->hits, best.items, best.count * sizeof *best.items);
    answer->count = best.count;
    answer->scanned = all->scanned;
    answer->nprobe = batch->index->base.shape.nlist > 0 ? batch->starts[q + 1] - batch->starts[q] : 0;
    for (uint32_t i = 0; answer->probes && query->vector && i < answer->nprobe; i++)
        answer->probes[i] = batch->pairs[batch->starts[q] + i].list;
}

void pd_cpu_refine(pd_batch *batch)
{
    pd_pool_run(batch->device->pool, batch->n, finish, batch);
}
