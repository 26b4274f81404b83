/* What the files of the cpu backend share.
 *
 * A search goes list by list, not query by query: prepare (prep.c), choose lists (coarse.c), sort the (query, list)
 * pairs by list and scan each list once for all of its queries (scan.c), score the candidates again from refine rows and
 * sort (refine.c). search.c strings them together and cuts batches to what scratch memory allows. Scratch grows between
 * searches and is kept by the device.
 */
#ifndef PD_CPU_H
#define PD_CPU_H

#include <float.h>

#include "backends.h"
#include "filter.h"
#include "host.h"
#include "ops.h"
#include "pool.h"
#include "slab.h"
#include "topk.h"

/* Memory that grows and is never given back before the end; what it held is lost when it grows. 64-byte aligned. */
typedef struct pd_buffer {
    void *data;
    size_t bytes;
} pd_buffer;

/* RESOURCE_EXHAUSTED, naming what it was for. */
pd_status pd_buffer_need(pd_buffer *buffer, size_t bytes, const char *what, pd_error *err);
void pd_buffer_free(pd_buffer *buffer);

/* A query made ready. Without a vector all pointers are NULL. */
typedef struct pd_prep {
    const pd_query *query;
    const float *vector; /* 16 lanes */
    const void *codes;   /* packed for the scan; NULL without i8 codes */
    const void *near;    /* packed for choosing lists (score.h) */
    float qf, nf;        /* the factors of the dots with either */
    pd_cpu_weigh weigh;
} pd_prep;

typedef struct pd_prepared {
    pd_prep *preps; /* [count] */
    pd_buffer prep_memory, vectors, codes, near, columns, parts, steps, counts, projected;
} pd_prepared;

struct pd_cpu_device;

/* index: what the queries will be asked of; NULL for an exact search, which needs no codes. What the queries point at is
 * read until the next use. */
pd_status pd_prepare(const struct pd_cpu_device *device, const pd_shape *shape, const pd_layout *layout,
                     const pd_host_index *index, const pd_query *queries, uint32_t count,
                     pd_prepared *prepared, pd_error *err);
void pd_prepared_free(pd_prepared *prepared);

/* The candidates of one query, or of one query in one worker's hands: shortlist.c. A line of cache. */
typedef struct pd_shortlist {
    float *scores;   /* [room + 16] */
    uint32_t *slots; /* [room + 16] */
    /* Weights of which only bounds are known yet: scores are those of the similarity alone, and bounds those and the steps of the
     * weights. NULL: scores are whole. */
    const pd_cpu_weigh *weigh;
    uint32_t count, keep, room;
    float bar;   /* nothing under it can still be among the best; never under -FLT_MAX or NaN */
    float under; /* of bounds: what is under it cannot reach the bar */
    int tied;    /* rows at the bar itself are many: those with ids over bar_id are not taken */
    uint64_t bar_id;
    uint64_t scanned;
} pd_shortlist;

/* A (query, list) pair. */
typedef struct pd_pair {
    uint32_t query, list;
    float lt; /* the list term */
} pd_pair;

/* Pages first .. last - 1 of a list and the queries that probe it. */
typedef struct pd_segment {
    const pd_pair *pairs;
    uint32_t npairs, first, last;
} pd_segment;

typedef enum pd_scratch {
    PD_SCRATCH_STARTS,   /* u32 [n + 1] */
    PD_SCRATCH_PAIRS,    /* pd_pair [pairs] query by query */
    PD_SCRATCH_SORTED,   /* pd_pair [pairs] list by list */
    PD_SCRATCH_COUNTS,   /* u32 [parts][nlist + 1] */
    PD_SCRATCH_SEGMENTS, /* pd_segment */
    PD_SCRATCH_CANDIDATES,
    PD_SCRATCH_ENTRIES, /* scores and slots of the candidates */
    PD_SCRATCH_TERMS,   /* f32 [rows][nlist rounded up to 32] lists being chosen from */
    PD_SCRATCH_LEVELS,  /* choosing on two levels, see levels.c */
    PD_SCRATCH_WORKER,  /* per worker, see pd_worker */
    PD_SCRATCH_KINDS
} pd_scratch;

/* A worker's own memory during a search. */
typedef struct pd_worker {
    float *tile;          /* [32][dim16] */
    unsigned char *group; /* [PD_GROUP][pd_packed_bytes] */
    float *summary;       /* [nlist] */
    float *factors;       /* [nlist] */
    float *pick;          /* [2 * (the most that is chosen from + 32)], for kth */
    uint32_t *lists;      /* [nlist] */
    float *best;          /* [nlist] the scores of those */
    float *power;         /* [layout.weights] */
    pd_hit *hits;         /* [pd_topk_room(the largest k), and a shortlist's room] */
    uint8_t *mark;        /* [nlist], zero between uses */
} pd_worker;

typedef struct pd_cpu_device {
    pd_device base;
    const pd_cpu_ops *ops;
    const pd_cpu_i8 *i8;
    pd_pool *pool;
    pd_slab slab;
    pd_prepared prepared;
    pd_buffer scratch[PD_SCRATCH_KINDS];
} pd_cpu_device;

typedef struct pd_cpu_index {
    pd_host_index host;
    pd_cpu_device *device;
} pd_cpu_index;

/* Some queries of a search, as many as scratch memory allows at a time. */
typedef struct pd_batch {
    pd_cpu_device *device;
    const pd_host_index *index;
    const pd_query *queries; /* [n] */
    pd_answer *answers;      /* [n] */
    uint32_t n;
    const pd_prep *preps; /* [n] */
    int refines;          /* the candidates are scored again from refine rows */
    int by_query;         /* threads own queries; else they share lists and own candidates */
    uint32_t parts;       /* sets of candidates for each query */
    uint32_t room;        /* of the largest shortlist */
    uint32_t *starts;     /* [n + 1]: where each query's pairs begin */
    pd_pair *pairs, *sorted;
    uint32_t *counts;
    float *terms;
    pd_shortlist *candidates; /* [parts][n] */
    pd_worker *workers;       /* [threads] */
} pd_batch;

/* Lists that a query probes, known before they are chosen; a look-up table is one list. */
uint32_t pd_cpu_probes(const pd_host_index *index, const pd_query *query);
/* Candidates that a query keeps before refining. */
uint32_t pd_cpu_depth(const pd_query *query, int refines);
/* Rows of list terms that choosing lists for n queries on one level needs. */
uint32_t pd_coarse_rows(const pd_host_index *index, uint32_t threads, uint32_t n);

void pd_cpu_coarse(pd_batch *batch);
pd_status pd_cpu_scan(pd_batch *batch, pd_error *err);
void pd_cpu_refine(pd_batch *batch);

pd_status pd_cpu_search(pd_index *index, const pd_query *queries, uint32_t count, pd_answer *answers,
                        pd_timing *timing, pd_error *err);
pd_status pd_cpu_exact_begin(pd_device *device, const pd_shape *shape, const pd_query *queries,
                             uint32_t count, pd_exact **out, pd_error *err);
pd_status pd_cpu_exact_block(pd_exact *exact, const pd_block *block, pd_error *err);
pd_status pd_cpu_exact_end(pd_exact *exact, pd_answer *answers, pd_error *err);
pd_status pd_cpu_assign(pd_device *device, const float *centroids, uint32_t nlist, uint32_t dim,
                        const float *rows, uint64_t n, uint32_t *lists, pd_error *err);

/* Entries that a shortlist for the best `keep` wants. */
static inline uint32_t pd_shortlist_room(uint32_t keep)
{
    return (keep + (keep > 64 ? keep : 64) + PD_PAGE_ROWS + 15u) & ~15u;
}

/* Behind the scores and slots. */
static inline float *pd_shortlist_bounds(const pd_shortlist *list)
{
    return list->scores + 2 * ((size_t)list->room + 16);
}

/* memory: [3][room + 16]. least: scores under it are not taken (-infinity: any finite score is). */
void pd_shortlist_init(pd_shortlist *list, float *memory, uint32_t keep, float least);
/* Weights can be left to the end where bounds of theirs tell rows apart. Nothing may have been pushed. */
void pd_shortlist_defer(pd_shortlist *list, const pd_cpu_weigh *weigh);
/* Makes the scores whole. */
void pd_shortlist_settle(const pd_batch *batch, pd_shortlist *list);
/* Throws away all but the best keep (score descending, then id ascending) and raises the bar. */
void pd_shortlist_shrink(const pd_batch *batch, pd_shortlist *list, pd_worker *worker);
/* Of the rows of mask those that may be taken: excluded ids may not, nor may ties that come too late. */
uint32_t pd_shortlist_strike(const pd_batch *batch, const pd_shortlist *list, const pd_query *query,
                             const unsigned char *page, const float *scores, uint32_t mask);

/* Takes the rows of mask from a page whose first slot is given, with their bounds where weights are deferred. Returns 1 where the
 * bar rose. */
static inline int pd_shortlist_push(const pd_batch *batch, pd_shortlist *list, uint32_t slot,
                                    const float *scores, const float *bounds, uint32_t mask,
                                    pd_worker *worker)
{
    list->count += batch->device->ops->append(
        scores, list->weigh ? bounds : NULL, slot, mask, list->scores + list->count,
        pd_shortlist_bounds(list) + list->count, list->slots + list->count);
    if (list->count + PD_PAGE_ROWS <= list->room) return 0;
    pd_shortlist_shrink(batch, list, worker);
    return 1;
}

#endif
