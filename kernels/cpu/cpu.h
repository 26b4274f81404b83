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

/* A query made ready. */
typedef struct pd_prep {
    const pd_query *query;
    const float *vector;  /* 16 lanes; NULL without a vector */
    const int16_t *codes; /* [dim4]; NULL without a vector or i8 codes */
    float qf;
    pd_cpu_weigh weigh;
} pd_prep;

typedef struct pd_prepared {
    pd_prep *preps; /* [count] */
    pd_buffer prep_memory, vectors, codes, columns;
} pd_prepared;

/* quantise: also make the i8 codes. What the queries point at is read until the next use. */
pd_status pd_prepare(pd_pool *pool, const pd_shape *shape, const pd_layout *layout, int quantise,
                     const pd_query *queries, uint32_t count, pd_prepared *prepared, pd_error *err);
void pd_prepared_free(pd_prepared *prepared);

/* The candidates of one query, or of one query in one worker's hands. */
typedef struct pd_candidates {
    pd_topk topk;
    uint64_t scanned;
} pd_candidates;

/* A (query, list) pair. */
typedef struct pd_pair {
    uint32_t query, list;
    float lt;      /* the list term */
    uint32_t rank; /* 0: the query's best list */
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
    PD_SCRATCH_COUNTS,   /* u32 [parts][2 * nlist + 1] */
    PD_SCRATCH_SEGMENTS, /* pd_segment */
    PD_SCRATCH_CANDIDATES,
    PD_SCRATCH_HITS,
    PD_SCRATCH_TERMS,  /* f32 [rows][nlist] list terms being chosen from */
    PD_SCRATCH_WORKER, /* per worker, see pd_worker */
    PD_SCRATCH_KINDS
} pd_scratch;

/* A worker's own memory during a search. */
typedef struct pd_worker {
    float *tile;    /* [32][dim16] */
    float *summary; /* [nlist] */
    float *sums;    /* [nlist] */
    pd_hit *hits;   /* [room for choosing lists or refining] */
    uint8_t *mark;  /* [nlist], zero between uses */
} pd_worker;

typedef struct pd_cpu_device {
    pd_device base;
    const pd_cpu_ops *ops;
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
    uint32_t *starts;     /* [n + 1]: where each query's pairs begin */
    pd_pair *pairs, *sorted;
    uint32_t *counts;
    float *terms;
    pd_candidates *candidates; /* [parts][n] */
    pd_worker *workers;        /* [threads] */
} pd_batch;

/* Lists that a query probes, known before they are chosen; a look-up table is one list. */
uint32_t pd_cpu_probes(const pd_host_index *index, const pd_query *query);
/* Candidates that a query keeps before refining. */
uint32_t pd_cpu_depth(const pd_query *query, int refines);
/* Rows of list terms that choosing lists for n queries needs. */
uint32_t pd_coarse_rows(uint32_t threads, uint32_t n);

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

/* Pushes the rows of mask; excluded ids do not pass. */
static inline void pd_cpu_push(pd_candidates *to, const pd_query *query, const pd_layout *layout,
                               const void *page, uint32_t slot, const float *scores, uint32_t mask)
{
    const uint64_t *ids = (const uint64_t *)((const unsigned char *)page + layout->ids);
    for (; mask; mask &= mask - 1) {
        uint32_t row = (uint32_t)__builtin_ctz(mask);
        if (query->nexclude && pd_excluded(query->exclude, query->nexclude, ids[row])) continue;
        pd_topk_push(&to->topk, scores[row], ids[row], slot + row);
    }
}

#endif
