/* What the files of the cuda backend share: the device, an index as kernels see it, a batch of queries on its way.
 *
 * A search goes as on the CPU (kernels/cpu is the reading of the contract, and the bits are the same): search.cu cuts the
 * queries into batches, packs a batch into pinned memory, copies it in, runs the stages below on the batch's stream and
 * copies the answers out; two batches are under way at a time, so that copying and packing of one lie beside the kernels of the
 * other. No stage waits for the device: what sizes its work is known on the host, or is read by the kernels themselves.
 *
 * Memory: the slab holds pages, as everywhere (slab.h does the bookkeeping; its base is a device address that the host never
 * touches). Where the host lends memory for refine pages, a second slab holds those of tables with codes: pinned memory, at the same
 * address for both sides, which kernels read over the bus and the host fills where it lies. Lists and summaries lie beside
 * them. A batch works in a lane's arena, which grows between searches.
 *
 * Pages are addressed in units of 64 bytes from their slab's base (page_at, refine_at), so that a kernel divides by nothing.
 */
#ifndef PD_CUDA_H
#define PD_CUDA_H

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "simt.cuh"

extern "C" {
#include "backend.h"
#include "blocks.h"
#include "host.h"
#include "score.h"
#include "slab.h"
}

#define PD_NONE UINT32_MAX

/* ------------------------------------------------------------------------------------------ device memory --- */

/* Device memory of one batch: taken piece by piece, given back all at once, kept for the next batch. */
typedef struct pd_cuda_block {
    unsigned char *data;
    size_t bytes, used;
} pd_cuda_block;

#define PD_CUDA_BLOCKS 32u

typedef struct pd_cuda_arena {
    pd_cuda_block blocks[PD_CUDA_BLOCKS];
    uint32_t nblocks;
} pd_cuda_arena;

/* Pinned memory of the host, which grows; what it held is lost when it grows. */
typedef struct pd_cuda_pinned {
    unsigned char *data;
    size_t bytes;
} pd_cuda_pinned;

typedef enum pd_cuda_event {
    PD_EVENT_START,
    PD_EVENT_COARSE,
    PD_EVENT_SCAN,
    PD_EVENT_REFINE,
    PD_EVENT_DONE, /* the answers have arrived */
    PD_CUDA_EVENTS
} pd_cuda_event;

/* What one batch under way needs. */
typedef struct pd_cuda_lane {
    cudaStream_t stream;
    cudaEvent_t events[PD_CUDA_EVENTS];
    pd_cuda_arena arena;
    pd_cuda_pinned in, out;
} pd_cuda_lane;

#define PD_CUDA_LANES 2u

/* Which way lists are scanned: chosen by reuse, or forced through options.isa ("row", "tile") for tests and benchmarks. */
typedef enum pd_cuda_path { PD_PATH_BY_REUSE = 0, PD_PATH_ROW = 1, PD_PATH_TILE = 2 } pd_cuda_path;

typedef struct pd_cuda_device {
    pd_device base;
    int ordinal;
    pd_cuda_path path;
    char isa[16];       /* "sm_90" */
    int sms;            /* multiprocessors */
    size_t shared_most; /* bytes of shared memory a block may ask for */
    size_t l2;          /* bytes */
    char about[96];
    int lost;      /* a CUDA error that does not go away; read and written with __atomic */
    char why[160]; /* its name and where it showed */
    pd_slab slab;  /* base is a device address */
    pd_slab host;  /* of refine pages, in pinned memory; chunks 0: theirs is slab */
    pd_cuda_lane lanes[PD_CUDA_LANES];
    pd_cuda_lane gather; /* of gather, on the executor's thread */
    pd_cuda_lane side;   /* of exact searches and assign, on one other thread */
    /* Of changes, on the executor's thread (changes.cu): what goes in is packed into pinned memory and copied to the same places of
     * the device's, and what comes back lies behind it there. NULL without a slab. */
    pd_cuda_pinned change_in, change_out;
    unsigned char *change_memory;
    struct pd_cuda_assigner *assigner; /* assign.cu: the centroids of the last call; NULL: none */
} pd_cuda_device;

/* ------------------------------------------------------------------------------------------------- an index --- */

/* Offsets in a page, in bytes: pd_layout as kernels carry it. */
typedef struct pd_cuda_layout {
    uint32_t codes, scale, term, ids, bytes, floats, keys;
    uint32_t page_bytes, refine_bytes;
    uint32_t dim4; /* of the codes: a multiple of 4 */
} pd_cuda_layout;

/* An index as kernels see it; passed by value. Pointers are of the device. */
typedef struct pd_cuda_view {
    pd_metric metric;
    pd_code code;
    pd_refine refine;
    uint32_t dim, dim16; /* of vectors, centroids, refine rows */
    uint32_t width;      /* of codes */
    uint32_t nlist;      /* 1 for a look-up table */
    uint32_t listed;     /* 0: a look-up table, which has no lists and no centroids */
    uint32_t npages, nbytes, nfloats, nkeys, weights;
    pd_cuda_layout layout, coarse; /* coarse: of coarse_pages */
    const unsigned char *slab, *refine_slab;
    const uint32_t *page_at;   /* [npages] units of 64 bytes from slab */
    const uint32_t *refine_at; /* [npages] the same from refine_slab; NULL: no refine rows */
    const uint32_t *offsets;   /* [nlist + 1] into pages */
    const uint32_t *pages;     /* page numbers, list by list (a look-up table: 0 .. npages - 1) */
    const uint32_t *page_list; /* [npages], PD_NO_LIST (a look-up table: all 0) */
    const float *centroids;    /* [nlist][dim16] */
    const unsigned char
        *coarse_pages; /* [pages for nlist][coarse.page_bytes] i8 codes of the centroids (score.h) */
    const float *mean; /* [dim16] of the centroids */
    /* Where codes have fewer dimensions than rows (project.h): the pages of directions, which are i8 codes of dim dimensions
     * ([pages for width][projected.page_bytes]; NULL: codes have all dimensions), and p(m) [width]. */
    const unsigned char *projection;
    pd_cuda_layout projected;
    const float *mean_out;
    /* Groups of lists (levels.h); ngroups 0: one level, and the rest is NULL. */
    uint32_t ngroups, group_most, group_live; /* lists of the largest; lists with rows, of all */
    const uint32_t *group_first;              /* [ngroups + 1] */
    const uint32_t *group_lists;              /* [ngroups] lists with rows of each */
    const unsigned char *group_pages;         /* [pages for ngroups][coarse.page_bytes] */
    const float *group_histograms;            /* [weights][ngroups]; NULL: none */
    const uint64_t *group_blocks;             /* [ngroups][block_columns] */
    const float *histograms;                  /* [weights][nlist]; NULL: none */
    float beta;
    const uint8_t *tied;         /* [PD_MAX_BYTES] columns whose values follow the lists */
    const uint16_t *sizes;       /* [PD_MAX_BYTES] of shape.sizes */
    const uint32_t *weight_at;   /* [PD_MAX_BYTES] of layout.weight_at */
    uint32_t block_columns;      /* blocks.h */
    const uint64_t *block_pages; /* [npages][block_columns] */
    const uint64_t *block_lists; /* [nlist][block_columns]; NULL: a look-up table has none */
    const uint8_t *block_bytes;  /* [block_columns] the byte column that each summarises */
    const unsigned char *blank;  /* [page_bytes] an empty page */
} pd_cuda_view;

static __device__ __forceinline__ const unsigned char *pd_view_page(const pd_cuda_view &view, uint32_t page)
{
    return view.slab + (size_t)view.page_at[page] * 64;
}
static __device__ __forceinline__ const unsigned char *pd_view_refine(const pd_cuda_view &view, uint32_t page)
{
    return view.refine_slab + (size_t)view.refine_at[page] * 64;
}

/* Two windows' worth of pinned memory: one is filled while the other travels. */
typedef struct pd_cuda_stage {
    unsigned char *data; /* pages, then their summaries */
    cudaEvent_t sent;
    int busy; /* sent is recorded and has not been waited for */
} pd_cuda_stage;

/* Where lists are written anew when some of them grow: as large as what they are read from. */
typedef struct pd_cuda_grown {
    uint32_t *offsets, *pages;
} pd_cuda_grown;

typedef struct pd_cuda_index {
    /* The lists as the host keeps them, made by host.c; its pages are addresses of the device. */
    pd_host_index host;
    pd_cuda_device *device;
    pd_cuda_view view;
    cudaStream_t stream; /* of windows */
    pd_cuda_stage stages[2];
    uint8_t *filled
        [2]; /* [npages] of each kind: the page has been committed, so that a window on it must bring it back */
    uint32_t *live;      /* [npages] a bit a row that exists, in lists or not */
    uint32_t stage;      /* the one that the open window fills */
    cudaEvent_t written; /* the last commit or set_lists: searches wait for it */
    void *tables;        /* one allocation: page_at, refine_at, block_pages, sizes, weight_at, tied */
    void *lists;         /* one allocation: everything that set_lists gives */
    pd_cuda_grown grown; /* part of it */
    uint32_t listed;     /* pages in lists */
    uint32_t dirty_low, dirty_high; /* lists [low, high) whose summaries have grown since they were copied */
} pd_cuda_index;

/* --------------------------------------------------------------------------------------------- a batch --- */

/* A filter: ranges of the batch's arrays, and what the summaries make of it. */
typedef struct pd_cuda_filter {
    uint32_t bytes, nbytes, ranges, nranges, sets, nsets, keys, nkeys; /* first and count */
    uint32_t folds;                                                    /* 0: the summaries say nothing */
    pd_block_filter fold;
} pd_cuda_filter;

typedef struct pd_cuda_key_test {
    uint32_t column, negate, first, count; /* into key_values, sorted */
} pd_cuda_key_test;

/* A query as kernels see it. Equal pointers of the caller become equal numbers here, so that queries which share their
 * weights, filter or excludes share them on the device too. */
typedef struct pd_cuda_query {
    float a, min_score;
    uint32_t vector;      /* 0: attributes alone; its row of vectors is zeros */
    uint32_t k, keep;     /* hits wanted; candidates kept by code score (pd_cuda_keep) */
    float least;          /* scores under it need not be kept as candidates (-infinity: any finite one is) */
    uint32_t table;       /* of tables; PD_NONE: no weights */
    uint32_t filter;      /* of filters; PD_NONE */
    uint32_t keys, nkeys; /* of key_weights: first and count */
    uint32_t exclude, nexclude;
    uint32_t slots, nslots;
    uint32_t pairs, npairs; /* where its pairs begin; lists it probes */
    uint32_t given;   /* of given: forced probes; PD_NONE: the coarse step chooses, or every list is probed */
    uint32_t chooses; /* the coarse step chooses npairs of nlist lists */
    uint32_t kept;    /* where its candidates begin in cand_scores and cand_slots: keep of them */
    uint32_t hits;    /* where its hits begin: k of them */
} pd_cuda_query;

/* A byte column that a table weighs. */
typedef struct pd_cuda_column {
    uint32_t column, size;
    uint32_t weights; /* where its weights begin in the table: [size] */
    uint32_t
        steps; /* where their bounds begin in the table's steps: [size + 1], the last for values past the size */
    float most;    /* the largest weight of any value */
    float nothing; /* of the summary: what values that weigh nothing promise */
} pd_cuda_column;

/* What a table's columns can give, as cpu/ops.h has it: weight <= least + step * steps. */
typedef struct pd_cuda_weigh {
    uint32_t ncolumns;
    float step;
    double most, least, size;
} pd_cuda_weigh;

/* The same of a query, its keys included. */
typedef struct pd_cuda_bound {
    double most, least, size;
    uint32_t terms; /* columns and keys */
} pd_cuda_bound;

typedef struct pd_cuda_pair {
    uint32_t query, list;
    float lt; /* the list term (0 without a vector) */
} pd_cuda_pair;

typedef struct pd_cuda_batch {
    pd_cuda_device *device;
    const pd_cuda_index *index; /* NULL: an exact search */
    pd_cuda_lane *lane;
    cudaStream_t stream;
    pd_cuda_view view; /* of an exact search only the shape's part is filled */
    uint32_t n;
    /* Known on the host. */
    uint32_t npairs, nslots, nhits, nkept; /* sums over queries */
    uint32_t most_probes, most_keep, most_k, most_slots;
    uint32_t nchoosing; /* queries whose lists the coarse step chooses */
    uint32_t nvectors;  /* queries with a vector */
    uint32_t ntables, nfilters;
    int refines;     /* candidates are scored again from refine rows (queries with a vector) */
    int want_probes; /* some answer wants to know its probes */

    /* Copied in before the first stage (pd_cuda_upload). */
    const pd_cuda_query *queries; /* [n] */
    const float *vectors;         /* [n][dim16], zeros behind dim */
    const float *tables;          /* [ntables][view.weights] */
    const pd_key_weight *key_weights;
    const pd_cuda_filter *filters; /* [nfilters] */
    const pd_byte_test *byte_tests;
    const pd_range_test *range_tests;
    const pd_set_test *set_tests;
    const pd_cuda_key_test *key_tests;
    const uint64_t *key_values;
    const uint64_t *exclude;
    const uint32_t *slots;
    const uint32_t *given;
    uint32_t *pair_query; /* [npairs] the query of each pair, made on the device */

    /* prep.cu */
    int8_t *codes;       /* [n][code_bytes] of the scan; NULL without i8 codes */
    int8_t *near_codes;  /* [n][code_bytes] of choosing lists */
    uint32_t code_bytes; /* from one query to the next: width rounded up to 32, zeros behind */
    float *qf, *nf;      /* [n] factors of the dots with either */

    pd_cuda_weigh *weighs;   /* [ntables] */
    pd_cuda_column *columns; /* [ntables][nbytes] of them the first ncolumns are used */
    uint8_t *steps;          /* [ntables][step_bytes] */
    uint32_t step_bytes;
    pd_cuda_bound *bounds; /* [n] */
    float *powers;         /* [ntables][weights] of summaries; NULL: there are none */
    float *
        summaries; /* [ntables][nlist] what the weights promise of each list; NULL: it is made where it is needed */
    float *group_summaries; /* [ntables][ngroups] of each group; NULL: nothing */

    /* coarse.cu */
    pd_cuda_pair *pairs; /* [npairs] query by query, best first */

    /* pairs.cu */
    pd_cuda_pair *sorted;  /* [npairs] list by list */
    uint32_t *pair_starts; /* [nlist + 1] where each list's pairs begin in sorted */

    /* scan and select */
    uint32_t *bars;        /* [n] pd_ordered running threshold */
    uint32_t *cand_scores; /* [nkept] pd_ordered */
    uint32_t *cand_slots;  /* [nkept] */
    uint32_t *cand_counts; /* [n] */

    /* The answers, made by refine.cu and copied out after it. */
    pd_hit *hits;                /* [nhits]: score descending, id ascending */
    uint32_t *counts;            /* [n] */
    unsigned long long *scanned; /* [n]; zeros before the scan */
} pd_cuda_batch;

/* --------------------------------------------------------------------------------------------- the stages --- */

/* Each takes its memory from the batch's arena, launches on the batch's stream and returns without waiting. */
pd_status pd_cuda_prep(pd_cuda_batch *batch, pd_error *err);   /* codes, factors, what weights need */
pd_status pd_cuda_coarse(pd_cuda_batch *batch, pd_error *err); /* pairs */
pd_status pd_cuda_pairs(pd_cuda_batch *batch, pd_error *err);  /* sorted, pair_starts */
/* Candidates: the best keep of each query under (score descending, id ascending), exactly. scanned. */
pd_status pd_cuda_scan(pd_cuda_batch *batch, pd_error *err);
pd_status pd_cuda_refine(pd_cuda_batch *batch, pd_error *err); /* hits, counts */

/* Slots of the backend that need no lane of their own. */
pd_status pd_cuda_exact_begin(pd_device *device, const pd_shape *shape, const pd_query *queries,
                              uint32_t count, pd_exact **out, pd_error *err);
pd_status pd_cuda_exact_block(pd_exact *exact, const pd_block *block, pd_error *err);
pd_status pd_cuda_exact_end(pd_exact *exact, pd_answer *answers, pd_error *err);
pd_status pd_cuda_assign(pd_device *device, const float *centroids, uint32_t nlist, uint32_t dim,
                         const float *rows, uint64_t n, uint32_t *lists, pd_error *err);

void pd_cuda_assigner_close(pd_cuda_device *device);
/* Rows to be assigned: of the host, or made by kernels that make enqueues. take (NULL: nobody) gets them piece by piece, in order, while
 * they are on the device. rows: [n][dim] of the device, lists: [n] of the host */
typedef struct pd_cuda_rows {
    uint64_t n;
    const float *host; /* NULL: they are made */
    cudaError_t (*make)(void *context, uint64_t first, uint32_t n, float *rows, cudaStream_t stream);
    pd_status (*take)(void *context, const float *rows, const uint32_t *lists, uint32_t n,
                      cudaStream_t stream, pd_error *err);
    void *context;
} pd_cuda_rows;
pd_status pd_cuda_assign_all(pd_cuda_device *device, const float *centroids, uint32_t nlist, uint32_t dim,
                             const pd_cuda_rows *rows, uint32_t *lists, pd_error *err);
pd_status pd_cuda_train(pd_device *device, const float *sample, uint64_t n, uint32_t dim, uint32_t nlist,
                        uint64_t seed, int spherical, float *centroids, pd_error *err);

extern "C" const pd_backend pd_backend_cuda;

/* device.cu, index.cu, gather.cu, search.cu */
pd_status pd_cuda_open(const pd_device_options *options, pd_device **out, pd_error *err);
void pd_cuda_close(pd_device *device);
void pd_cuda_info(const pd_device *device, pd_device_info *info);
pd_status pd_cuda_index_open(pd_device *device, const pd_index_spec *spec, pd_index **out, pd_error *err);
void pd_cuda_index_close(pd_index *index);
pd_status pd_cuda_window(pd_index *index, pd_page_kind kind, uint32_t first, uint32_t count, void **memory,
                         uint32_t *got, pd_error *err);
pd_status pd_cuda_commit(pd_index *index, pd_error *err);
pd_status pd_cuda_set_lists(pd_index *index, const pd_lists *lists, pd_error *err);
pd_status pd_cuda_gather(pd_index *index, const uint32_t *slots, uint32_t n, const pd_rows *rows,
                         pd_error *err);
pd_status pd_cuda_search(pd_index *index, const pd_query *queries, uint32_t count, pd_answer *answers,
                         pd_timing *timing, pd_error *err);
pd_status pd_cuda_grow(pd_index *index, const uint32_t *lists, const uint32_t *pages, uint32_t n,
                       pd_error *err);
pd_status pd_cuda_write_rows(pd_index *index, const pd_row_writes *writes, pd_error *err);
pd_status pd_cuda_write_columns(pd_index *index, const uint32_t *slots, uint32_t n,
                                const pd_column_write *columns, uint32_t ncolumns, pd_error *err);
pd_status pd_cuda_empty_rows(pd_index *index, const uint32_t *slots, uint32_t n, pd_error *err);
pd_status pd_cuda_read_pages(pd_index *index, pd_page_kind kind, uint32_t first, uint32_t count, void *memory,
                             pd_error *err);
/* Memory for changes, which take none; closing a device gives it back. */
pd_status pd_cuda_changes_open(pd_cuda_device *device, pd_error *err);

/* One of a number of arrays that live in one allocation. */
typedef struct pd_cuda_piece {
    const void *from; /* NULL: not copied, zeros */
    size_t bytes;
    const void **to;   /* receives the device's address */
    size_t behind = 0; /* bytes reserved behind it, not written */
} pd_cuda_piece;
/* Allocates and copies on the stream, and waits for it. */
pd_status pd_cuda_place(pd_cuda_device *device, cudaStream_t stream, const pd_cuda_piece *pieces, uint32_t n,
                        const char *what, void **memory, pd_error *err);
pd_cuda_layout pd_cuda_layout_of(const pd_layout *layout);
/* The shape's part of a view. */
void pd_cuda_view_of(const pd_shape *shape, const pd_layout *layout, pd_cuda_view *view);
/* The stream waits for what was written, and copies the summaries of lists that have grown. */
pd_status pd_cuda_settle(pd_cuda_index *index, cudaStream_t stream, pd_error *err);
/* Packs queries and copies them in: fills everything of the batch down to "prep.cu". device, lane, stream, view and
 * index of it are set. What the queries point at is not needed after it returns. */
pd_status pd_cuda_upload(pd_cuda_batch *batch, const pd_query *queries, uint32_t n, const pd_shape *shape,
                         pd_error *err);
/* Candidates that a query keeps before refining. */
/* Lists that a query probes, known before they are chosen. */
uint32_t pd_cuda_probes(const pd_cuda_view *view, const pd_query *query);
uint32_t pd_cuda_keep(const pd_query *query, int refines);

/* ------------------------------------------------------------------------------------- errors and memory --- */

/* Every call of the runtime goes through this. cudaSuccess: PD_OK. cudaErrorMemoryAllocation: RESOURCE_EXHAUSTED, and the
 * device lives. Everything else: UNAVAILABLE naming the error and what was being done, and the device is lost. */
pd_status pd_cuda_check(pd_cuda_device *device, cudaError_t error, const char *doing, pd_error *err);
/* UNAVAILABLE once the device is lost; else makes it this thread's device. Every slot begins with it. */
pd_status pd_cuda_enter(pd_cuda_device *device, pd_error *err);

/* count * size bytes from the arena, 256-byte aligned, not cleared; at least 256, so that an empty array has an address. */
pd_status pd_cuda_take(pd_cuda_device *device, pd_cuda_arena *arena, size_t count, size_t size,
                       const char *what, void **out, pd_error *err);
/* Everything taken is given back; nothing of it may be in use. Pieces become one, so that the next batch finds it whole. */
pd_status pd_cuda_arena_reset(pd_cuda_device *device, pd_cuda_arena *arena, pd_error *err);
void pd_cuda_arena_free(pd_cuda_arena *arena);
pd_status pd_cuda_pinned_need(pd_cuda_device *device, pd_cuda_pinned *pinned, size_t bytes, const char *what,
                              pd_error *err);
void pd_cuda_pinned_free(pd_cuda_pinned *pinned);
pd_status pd_cuda_lane_open(pd_cuda_device *device, pd_cuda_lane *lane, pd_error *err);
void pd_cuda_lane_close(pd_cuda_lane *lane);

/* The same, typed: status = pd_take(batch, n, "query codes", &batch->codes, err) */
template <typename T>
static inline pd_status pd_take(pd_cuda_batch *batch, size_t count, const char *what, T **out, pd_error *err)
{
    void *data = NULL;
    pd_status status = pd_cuda_take(batch->device, &batch->lane->arena, count, sizeof(T), what, &data, err);
    *out = (T *)data;
    return status;
}

static inline uint32_t pd_blocks_of(size_t items, uint32_t each)
{
    return (uint32_t)((items + each - 1) / each);
}

#endif
