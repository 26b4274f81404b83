/* The backend interface: what a device must do to hold tables and search them.
 *
 * A backend is a table of functions; a device is one opened instance of it (a CPU with its pool of threads, one GPU).
 * Three exist by name: "reference" (plain C, double accumulation, one thread: the truth in tests), "cpu" and "cuda" (a
 * plug-in, opened when present). Callers use the pd_device_... wrappers below, which check arguments and supply
 * defaults; they never call the slots.
 *
 * Threads: one thread at a time may search and gather on a device (the executor owns it). Beside it a loader may open,
 * fill (window, commit, set_lists) and close indexes that nobody searches yet or any more, and exact searches and assign may run
 * from one other thread. Different devices are independent.
 * Changes (grow, write_rows, write_columns, empty_rows) and read_pages come from the thread that searches, between two searches.
 * Memory: a device takes its slab when it is opened and everything resident lives there; nothing is reallocated while
 * searching. After any failure the index is as it was before the call, unless the slot says otherwise.
 * UNAVAILABLE from any slot means the device is lost: nothing but close may follow.
 */
#ifndef PD_BACKEND_H
#define PD_BACKEND_H

#include <stddef.h>
#include <stdint.h>

#include "layout.h"
#include "status.h"

typedef struct pd_backend pd_backend;
typedef struct pd_device pd_device; /* opaque; a backend embeds its own state behind it */
typedef struct pd_index pd_index;   /* one resident version of one table */
typedef struct pd_exact pd_exact;   /* one exact search in progress */

/* ------------------------------------------------------------------------------------------------ devices --- */

typedef struct pd_device_options {
    uint64_t memory; /* bytes of the slab; 0: no table will be loaded (assign and exact still work) */
    /* Bytes of a second slab, in the host's memory, for the refine pages of tables with codes; a table must fit both. 0: they lie in
     * the slab. A table without codes is scanned by its refine rows, which lie in the slab in any case. Backends whose memory is the
     * host's do not look at it. */
    uint64_t host_memory;
    uint32_t threads; /* 0: as many as the machine has */
    int idle;         /* the threads run at idle priority (builders) */
    const char *isa;  /* NULL: the best; else one of info.isas, for tests */
} pd_device_options;

typedef struct pd_device_info {
    const char *backend;
    const char *isa; /* what was chosen */
    char about[96];  /* for people: model, threads or memory */
    uint32_t threads;
    int idle;        /* the threads run at idle priority */
    uint64_t memory; /* the slab, bytes */
    uint64_t used;
    uint64_t host_memory; /* the slab in the host's memory; 0: there is none */
    uint64_t host_used;
} pd_device_info;

/* ------------------------------------------------------------------------------------------------ indexes --- */

typedef struct pd_index_spec {
    pd_shape shape;
    uint32_t npages;  /* to reserve, spare ones included */
    const char *name; /* for messages: "products@7" */
} pd_index_spec;

/* The inverted lists of an index. Everything is copied. */
typedef struct pd_lists {
    const float *centroids;  /* [nlist][dim] */
    const uint32_t *offsets; /* [nlist + 1] into pages */
    const uint32_t *pages;   /* page numbers, list by list */
    const uint32_t *rows;    /* [nlist] live rows of each list */
    const float *projection; /* [code_dim][dim] where codes have fewer dimensions than rows, else NULL */
    /* Lists in groups that lie close: group g is the lists group_first[g] .. group_first[g + 1] - 1. Groups are chosen before
     * lists then (score.h). 0 and NULL: every list is looked at. */
    uint32_t ngroups;
    const uint32_t *group_first; /* [ngroups + 1], ascending, from 0 to nlist */
    /* Weight summaries: [layout.weights][nlist], the share of each list's rows that hold each value of each byte
     * column. NULL: none (no byte columns). */
    const float *histograms;
    float
        beta; /* sharpness of the summary (score units^-1), see pd_query.weights; 0: summaries are not used */
} pd_lists;

typedef enum pd_page_kind { PD_PAGES_MAIN = 0, PD_PAGES_REFINE = 1 } pd_page_kind;

/* ----------------------------------------------------------------------------------------------- searching --- */

typedef struct pd_key_weight {
    uint32_t column; /* key column */
    uint64_t value;
    float weight;
} pd_key_weight;

/* A hard filter: a row must pass every test. */
typedef struct pd_byte_test {
    uint32_t column;
    uint64_t allow[4]; /* bit v: value v passes */
} pd_byte_test;
typedef struct pd_range_test {
    uint32_t column; /* float column; NaN never passes */
    float low, high; /* both inclusive; +-infinity: open */
} pd_range_test;
typedef struct pd_set_test {
    uint32_t column; /* the first of the set's 8 byte columns */
    uint64_t any;    /* 0: no such test; else at least one of these members */
    uint64_t all;    /* every one of these */
    uint64_t none;   /* not one of these */
} pd_set_test;
typedef struct pd_key_test {
    uint32_t column;
    int negate; /* 0: the key is one of values (0 never passes); 1: it is none of them (0 passes) */
    uint32_t count;
    const uint64_t *values; /* sorted, distinct */
} pd_key_test;
typedef struct pd_filter {
    uint32_t nbytes, nranges, nsets, nkeys;
    const pd_byte_test *bytes;
    const pd_range_test *ranges;
    const pd_set_test *sets;
    const pd_key_test *keys;
} pd_filter;

/* One query. Pointers are borrowed for the call; queries may share what they point at. */
typedef struct pd_query {
    const float
        *vector; /* [dim]; NULL: ordered by attributes alone (every row is looked at, probes are not used) */
    float similarity; /* a >= 0 */
    /* The weight table: [layout.weights], NULL: all zero. Where the lists have summaries, what the weights promise of a list
     * is added to its rank (score.h): the sum, over the byte columns whose values follow the lists, of
     * log(max(1e-4, sum_v p(v) exp(beta (W(v) - Wmax)))) / beta. */
    const float *weights;
    const pd_key_weight *key_weights; /* grouped by column ascending, values distinct */
    uint32_t nkey_weights;
    const pd_filter *filter; /* NULL: none */
    const uint64_t *exclude; /* row ids that must not come back, sorted */
    uint32_t nexclude;
    /* Slots scored besides the probed lists (from postings): sorted, distinct. A slot in a probed list is not scored
     * twice. */
    const uint32_t *slots;
    uint32_t nslots;
    uint32_t nprobe;        /* 0: only the slots above; >= nlist: every list */
    const uint32_t *probes; /* forces the lists to probe: [nprobe] distinct; NULL: the coarse step chooses */
    uint32_t k;             /* 1..PD_MAX_DEPTH */
    /* Candidates by code score that are scored again from refine rows, where the table keeps them: at least k are. 0:
     * pd_refine_depth(k). */
    uint32_t depth;
    float min_score; /* -infinity: none */
} pd_query;

typedef struct pd_hit {
    uint64_t id;
    float score;
    uint32_t slot;
} pd_hit;

/* One answer. hits and probes are the caller's. */
typedef struct pd_answer {
    pd_hit *hits;     /* [query.k]: score descending, id ascending */
    uint32_t count;   /* hits filled */
    uint32_t nprobe;  /* lists probed */
    uint32_t *probes; /* NULL, or [min(nprobe, nlist)]: receives the lists probed, best first */
    uint64_t scanned; /* rows whose code was looked at */
} pd_answer;

typedef struct pd_timing {
    uint64_t coarse_ns, scan_ns, refine_ns;
} pd_timing;

/* Candidates by code score that are re-scored from refine rows for k hits, where a query does not say how many. */
static inline uint32_t pd_refine_depth(uint32_t k)
{
    return 2 * k + 32;
}

/* Rows of full precision beside their pages, for exact search. */
typedef struct pd_block {
    uint32_t npages;
    const void
        *pages; /* [npages][layout.page_bytes]: terms (liveness), ids and columns are read, codes are not */
    const void *rows;    /* [npages * PD_PAGE_ROWS][dim], row-major */
    pd_refine dtype;     /* of rows: PD_REFINE_F32 or PD_REFINE_F16 */
    uint32_t first_page; /* page number of the first, for slots */
} pd_block;

/* What gather may return; NULL pointers are not filled. n slots, in the order given. */
typedef struct pd_rows {
    float *vectors; /* [n][dim] decoded */
    uint64_t *ids;  /* [n] */
    uint8_t *bytes; /* [n][nbytes] */
    float *floats;  /* [n][nfloats] */
    uint64_t *keys; /* [n][nkeys] */
} pd_rows;

/* ------------------------------------------------------------------------------------------------- changing --- */

/* Rows to be written whole, encoded by pd_page_encode() for the lists that their slots' pages are in, with ids and columns, in
 * pages of their own: row i lies at place i % PD_PAGE_ROWS of page i / PD_PAGE_ROWS. */
typedef struct pd_row_writes {
    uint32_t n;
    const uint32_t *slots; /* [n], distinct: where row i goes; a row that is there is overwritten */
    const void *pages;     /* [pd_pages_for(n)][layout.page_bytes] */
    const void *refine; /* [pd_pages_for(n)][layout.refine_bytes]; NULL where the table has no refine rows */
} pd_row_writes;

/* One column's values for some rows that are there. */
typedef enum pd_column_kind { PD_COLUMN_BYTE = 0, PD_COLUMN_FLOAT = 1, PD_COLUMN_KEY = 2 } pd_column_kind;
typedef struct pd_column_write {
    pd_column_kind kind;
    uint32_t column;
    const void *values; /* [n] u8, f32 or u64 */
} pd_column_write;

/* ------------------------------------------------------------------------------------------------ the slots --- */

struct pd_backend {
    const char *name;
    /* Mandatory. Takes the slab. RESOURCE_EXHAUSTED: the memory is not there, saying how much there is;
     * INVALID_ARGUMENT: unknown isa; UNAVAILABLE: no such device on this machine, saying why. */
    pd_status (*open)(const pd_device_options *options, pd_device **out, pd_error *err);
    void (*close)(pd_device *device);
    void (*info)(const pd_device *device, pd_device_info *info);

    /* Mandatory. Reserves pages, all empty. RESOURCE_EXHAUSTED before anything is touched, saying what it needs and
     * what is free. */
    pd_status (*index_open)(pd_device *device, const pd_index_spec *spec, pd_index **out, pd_error *err);
    void (*index_close)(pd_index *index);
    /* Mandatory. Page writes go through a window: *memory is host memory for *count <= count consecutive pages from
     * first (the slab itself where that is, pinned staging for memory of a GPU), filled by the caller, taken in by page_commit. One
     * window at a time. */
    pd_status (*page_window)(pd_index *index, pd_page_kind kind, uint32_t first, uint32_t count,
                             void **memory, uint32_t *got, pd_error *err);
    pd_status (*page_commit)(pd_index *index, pd_error *err);
    /* Mandatory where nlist > 0. May be called again: the new lists replace the old. */
    pd_status (*set_lists)(pd_index *index, const pd_lists *lists, pd_error *err);

    /* Mandatory. Answers every query or fails as a whole. */
    pd_status (*search)(pd_index *index, const pd_query *queries, uint32_t count, pd_answer *answers,
                        pd_timing *timing, pd_error *err);
    /* Mandatory. A slot without a row is OUT_OF_RANGE. */
    pd_status (*gather)(pd_index *index, const uint32_t *slots, uint32_t n, const pd_rows *rows,
                        pd_error *err);

    /* Mandatory: changes. None of them takes memory (set_lists and open have taken what growing needs), so that what the arguments
     * do not forbid fails only with the device. They are seen by the next search, filters' and bounds' summaries of pages and
     * lists included; shares of values (pd_lists.histograms) and centroids stay what set_lists was told.
     *   grow           page pages[i], which is in no list yet, becomes the last of list lists[i]. OUT_OF_RANGE,
     *                  FAILED_PRECONDITION (it is in a list). Not for look-up tables: all of their pages are searched.
     *   write_rows     see pd_row_writes. OUT_OF_RANGE: a slot whose page is in no list. A list without rows that gets one
     *                  can be chosen from then on. The first row of a page clears the page: of what memory held before nothing is left.
     *   write_columns  n distinct slots that hold rows, each of the columns. OUT_OF_RANGE: a slot without a row.
     *   empty_rows     n distinct slots hold no row any more: term minus infinity, and nothing of the row is left in the
     *                  page or its refine page. A slot without a row is left as it is.
     *   read_pages     copies pages as they are now into host memory: [count][page_bytes or refine_bytes]. A page without
     *                  rows, which need never have been written, reads as pd_page_clear leaves it (refine: zeros). */
    pd_status (*grow)(pd_index *index, const uint32_t *lists, const uint32_t *pages, uint32_t n,
                      pd_error *err);
    pd_status (*write_rows)(pd_index *index, const pd_row_writes *writes, pd_error *err);
    pd_status (*write_columns)(pd_index *index, const uint32_t *slots, uint32_t n,
                               const pd_column_write *columns, uint32_t ncolumns, pd_error *err);
    pd_status (*empty_rows)(pd_index *index, const uint32_t *slots, uint32_t n, pd_error *err);
    pd_status (*read_pages)(pd_index *index, pd_page_kind kind, uint32_t first, uint32_t count, void *memory,
                            pd_error *err);

    /* Mandatory. Exact search: begin, any number of blocks, end (which also frees; answers NULL: just free). Slots,
     * nprobe and probes of the queries are ignored; every live row of the blocks is scored from its full-precision
     * row by the refine formula. queries and what they point at live until end. */
    pd_status (*exact_begin)(pd_device *device, const pd_shape *shape, const pd_query *queries,
                             uint32_t count, pd_exact **out, pd_error *err);
    pd_status (*exact_block)(pd_exact *exact, const pd_block *block, pd_error *err);
    pd_status (*exact_end)(pd_exact *exact, pd_answer *answers, pd_error *err);

    /* Mandatory. The nearest centroid by l2 of each row, whatever the metric (ties: the smaller list).
     * centroids: [nlist][dim], rows: [n][dim], lists: [n]. */
    pd_status (*assign)(pd_device *device, const float *centroids, uint32_t nlist, uint32_t dim,
                        const float *rows, uint64_t n, uint32_t *lists, pd_error *err);
    /* Optional (NULL: the host trains over assign, to the same bits). sample: [n][dim], n >= nlist, centroids: [nlist][dim]. spherical: they
     * are normalised after each iteration (cosine). */
    pd_status (*train)(pd_device *device, const float *sample, uint64_t n, uint32_t dim, uint32_t nlist,
                       uint64_t seed, int spherical, float *centroids, pd_error *err);
};

/* ----------------------------------------------------------------------------------------------- for callers --- */

/* "reference", "cpu", "cuda" or "auto" (cuda where a device answers, else cpu). NOT_FOUND: the name is none of these;
 * UNAVAILABLE: it is known but cannot be had here, saying why. */
pd_status pd_backend_find(const char *name, const pd_backend **out, pd_error *err);

/* Every pd_device and pd_index begins with the backend it belongs to. */
struct pd_device {
    const pd_backend *backend;
};
struct pd_index {
    const pd_backend *backend;
    pd_shape shape;
    pd_layout layout;
    uint32_t npages; /* reserved */
    int hosted;      /* the refine pages lie in the host's memory (pd_device_options.host_memory) */
};

pd_status pd_device_open(const char *backend, const pd_device_options *options, pd_device **out,
                         pd_error *err);
void pd_device_close(pd_device *device); /* NULL is allowed */
void pd_device_info_of(const pd_device *device, pd_device_info *info);
/* Bytes of slabs that an index of this spec takes, and how many of them are its refine pages'. */
uint64_t pd_index_bytes(const pd_index_spec *spec);
uint64_t pd_index_refine_bytes(const pd_index_spec *spec);
pd_status pd_index_open(pd_device *device, const pd_index_spec *spec, pd_index **out, pd_error *err);
void pd_index_close(pd_index *index); /* NULL is allowed */
pd_status pd_index_window(pd_index *index, pd_page_kind kind, uint32_t first, uint32_t count, void **memory,
                          uint32_t *got, pd_error *err);
pd_status pd_index_commit(pd_index *index, pd_error *err);
pd_status pd_index_set_lists(pd_index *index, const pd_lists *lists, pd_error *err);
/* INVALID_ARGUMENT naming the query and what is wrong with it: k, a negative or NaN similarity, a vector with NaN.
 * timing may be NULL. */
pd_status pd_index_search(pd_index *index, const pd_query *queries, uint32_t count, pd_answer *answers,
                          pd_timing *timing, pd_error *err);
pd_status pd_index_gather(pd_index *index, const uint32_t *slots, uint32_t n, const pd_rows *rows,
                          pd_error *err);
pd_status pd_index_grow(pd_index *index, const uint32_t *lists, const uint32_t *pages, uint32_t n,
                        pd_error *err);
pd_status pd_index_write_rows(pd_index *index, const pd_row_writes *writes, pd_error *err);
pd_status pd_index_write_columns(pd_index *index, const uint32_t *slots, uint32_t n,
                                 const pd_column_write *columns, uint32_t ncolumns, pd_error *err);
pd_status pd_index_empty_rows(pd_index *index, const uint32_t *slots, uint32_t n, pd_error *err);
pd_status pd_index_read_pages(pd_index *index, pd_page_kind kind, uint32_t first, uint32_t count,
                              void *memory, pd_error *err);
pd_status pd_exact_begin(pd_device *device, const pd_shape *shape, const pd_query *queries, uint32_t count,
                         pd_exact **out, pd_error *err);
pd_status pd_exact_block(pd_device *device, pd_exact *exact, const pd_block *block, pd_error *err);
pd_status pd_exact_end(pd_device *device, pd_exact *exact, pd_answer *answers, pd_error *err);
pd_status pd_device_assign(pd_device *device, const float *centroids, uint32_t nlist, uint32_t dim,
                           const float *rows, uint64_t n, uint32_t *lists, pd_error *err);

#endif
