/* What the scan's files share: where a batch's candidates lie while lists are scanned.
 *
 * Each query has a span of candidates: first those of the tiles, which every block appends to, then one piece for each block
 * of the row scan, which only that block writes and which it can therefore cut down when it is full. Scores are pd_ordered. */
#ifndef PD_CUDA_SCAN_CUH
#define PD_CUDA_SCAN_CUH

#include "row.cuh"

typedef struct pd_scan {
    uint32_t parts, room;      /* of the row scan: blocks a query, and candidates of each */
    uint32_t tiled, tile_room; /* tiles are used; their candidates of each query */
    size_t span;               /* tile_room + parts * room */
    uint32_t *scores, *slots;  /* [n][span]; what no tile has written yet is 0 in scores */
    uint32_t *counts;          /* [n][parts] */
    uint32_t
        *tile_counts; /* [n] appended, over tile_room: some were lost and the row scan does the query again */
    uint32_t *page_at;    /* [npairs] pages of the query's pairs before this one */
    uint32_t *page_count; /* [n] pages of all its pairs */
} pd_scan;

/* Does the query's pairs' scan belong to the tiles? */
static __device__ __forceinline__ int pd_tiles(const pd_scan &scan, const pd_cuda_query &query)
{
    return scan.tiled && query.vector && query.filter == PD_NONE;
}

/* Rows that a block of the row scan may append between two looks at how many there are. */
#define PD_ROW_THREADS 256u
#define PD_ROW_ROUNDS  4u
#define PD_ROW_MARGIN  (PD_ROW_THREADS * PD_ROW_ROUNDS)

static inline uint32_t pd_row_room(uint32_t keep)
{
    return keep + (keep > 512 ? keep : 512) + PD_ROW_MARGIN;
}

/* counts[0 .. n) become where each begins, counts[n] the sum. cursors: NULL, or a copy of them. */
cudaError_t pd_sum_counts(pd_cuda_batch *batch, uint32_t *counts, uint32_t *cursors, uint32_t n);

pd_status pd_scan_rows(pd_cuda_batch *batch, const pd_scan *scan, pd_error *err);
pd_status pd_scan_tiles(pd_cuda_batch *batch, const pd_scan *scan, pd_error *err);
/* The best keep of every query's span into cand_scores, cand_slots and cand_counts. */
pd_status pd_select(pd_cuda_batch *batch, const pd_scan *scan, pd_error *err);

#endif
