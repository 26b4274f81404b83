/* Changes on their way: what rows and columns (changes.cu) and lists that grow (grow.cu) have in common. */
#ifndef PD_CUDA_CHANGES_CUH
#define PD_CUDA_CHANGES_CUH

#include "row.cuh"

/* A page and its refine page at least, and what tells of them. */
#define PD_CHANGE_BYTES (2 * (size_t)PD_CHUNK_BYTES + ((size_t)1 << 20))
#define PD_CHANGE_ROWS  2048u
#define PD_MANY_THREADS 256u

/* A list that got its first row or lost its last one, and its group. */
typedef struct pd_list_patch {
    uint32_t list, group, group_lists;
    float term, group_term;
} pd_list_patch;

/* What the kernels are given; arrays of the device. */
typedef struct pd_change_job {
    pd_cuda_view view;
    unsigned char *slab;
    uint32_t n;
    const uint32_t *slots;                /* [n] */
    const unsigned char *pages, *refines; /* rows as they come; NULL: rows are emptied */
    const uint32_t *cleared;              /* pages that are made empty first */
    const uint32_t *touched;              /* [ntouched] pages whose summaries are made anew */
    uint32_t ncleared, ntouched, npatches;
    const pd_list_patch *patches;
    unsigned long long *summaries; /* [ntouched][block_columns] */
} pd_change_job;

/* A piece on its way. */
typedef struct pd_piece {
    pd_cuda_index *index;
    pd_cuda_device *device;
    size_t used; /* of both memories */
    pd_change_job job;
    /* In pinned memory, to be filled; the same arrays of the device are the job's. */
    uint32_t *slots, *cleared, *touched;
    pd_list_patch *patches;
} pd_piece;

/* A piece of n rows or pages, at most pd_piece_rows. */
void pd_piece_open(pd_piece *piece, pd_cuda_index *index, uint32_t n);
uint32_t pd_piece_rows(const pd_cuda_index *index);
/* Room in both memories: what is written to the one is at *device in the other once it is sent. */
void *pd_piece_take(pd_piece *piece, size_t bytes, const void **device);
cudaError_t pd_piece_send(pd_piece *piece);
/* Behind the kernels that put something, whose error is given: summaries and patches. Waits for all of it. */
pd_status pd_piece_finish(pd_piece *piece, cudaError_t error, const char *doing, pd_error *err);
/* May the index change now? */
pd_status pd_changes_ready(pd_cuda_index *index, pd_error *err);

#endif
