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

/* Blocks of the row scan for one query, at most. */
#define PD_ROW_PARTS_MOST 2048u

/* Does the query's pairs' scan belong to the tiles? */
static __device__ __forceinline__ int pd_tiles(const pd_scan &scan, const pd_cuda_query &query)
{
    return scan.tiled && query.vector && query.filter == PD_NONE;
}

/* Candidates of a query in the tiles, and how many more of them there are each time that its bar is looked at.
 * tests/simt/test_candidates.cpp is a model of what that holds. */
static inline uint32_t pd_tile_room(uint32_t keep)
{
    uint32_t room = 2048;
    while (room < 8 * keep)
        room *= 2;
    return room;
}
static PD_HD inline uint32_t pd_tile_round(uint32_t keep)
{
    return keep > 128 ? keep : 128;
}

/* Rows of the nearest list that set a query's bar before anything is scanned. */
#define PD_PRIME_MOST 2048u
static PD_HD inline uint32_t pd_prime_rows(uint32_t keep)
{
    uint32_t rows = 8 * keep > 512 ? 8 * keep : 512;
    return rows < PD_PRIME_MOST ? rows : PD_PRIME_MOST;
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

/* Raises the bars of queries with i8 codes to what rows of their nearest list reach (scan_prime.cu). */
pd_status pd_prime(pd_cuda_batch *batch, pd_error *err);
pd_status pd_scan_rows(pd_cuda_batch *batch, const pd_scan *scan, pd_error *err);
pd_status pd_scan_tiles(pd_cuda_batch *batch, const pd_scan *scan, pd_error *err);
/* The best keep of every query's span into cand_scores, cand_slots and cand_counts. */
pd_status pd_select(pd_cuda_batch *batch, const pd_scan *scan, pd_error *err);

#endif
