/* What choosing lists on one level (coarse.c) and on two (levels.c) have in common. */
#ifndef PD_CPU_COARSE_H
#define PD_CPU_COARSE_H

#include "cpu.h"

/* The columns of a query that tell lists apart, ready to be summed over any lists. */
typedef struct pd_promises {
    uint32_t n;
    struct {
        uint32_t at, size; /* of its values in the weight table */
        float nothing;     /* what a value without weight promises */
    } columns[PD_MAX_BYTES];
} pd_promises;

/* Whether lists are chosen for query q: else they are given, or there are none. */
int pd_coarse_chooses(const pd_batch *batch, uint32_t q);
/* Fills the pairs of a query whose lists are given. */
void pd_coarse_given(const pd_batch *batch, uint32_t q);

/* Near (score.h) of queries first .. first + n - 1, those that choose, for the centroids of pages page .. page + npages - 1 of `pages`.
 * out: [n][apart], from page 0 on */
void pd_coarse_near(const pd_batch *batch, uint32_t first, uint32_t n, unsigned char *pages, uint32_t page,
                    uint32_t npages, float *out, size_t apart);

/* Makes worker->power and out ready. Returns out->n: 0 where the weights promise nothing of any list. */
uint32_t pd_promises_of(const pd_batch *batch, const pd_prep *prep, pd_worker *worker, pd_promises *out);
/* out[i]: what the weights promise of list (or group) first + i. shares: [layout.weights][apart], out: [n] */
void pd_promises_sum(const pd_batch *batch, const pd_promises *promises, const float *shares, size_t apart,
                     uint32_t first, uint32_t n, pd_worker *worker, float *out);

/* The places of the `want` best of n scores, ties by place, ascending, in worker->lists. scores: [n + 32] may be read */
uint32_t pd_coarse_pick(const pd_batch *batch, const float *scores, uint32_t n, uint32_t want,
                        pd_worker *worker);
/* Fills the pairs and probes of query q with lists[0 .. n), which have these scores. */
void pd_coarse_take(const pd_batch *batch, uint32_t q, const uint32_t *lists, const float *scores, uint32_t n,
                    pd_worker *worker);

/* Two levels: levels.c. Memory for it, and the choice for every query of the batch. */
pd_status pd_levels_memory(pd_batch *batch, pd_error *err);
void pd_levels_choose(pd_batch *batch);

#endif
