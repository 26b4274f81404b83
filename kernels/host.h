/* What the backends that live in host memory have in common: an index's pages in the slab, its lists, and reading rows
 * back. The oracle shares this with the cpu backend on purpose: it is bookkeeping; what the oracle must not share is the
 * arithmetic of search, exact and assign. */
#ifndef PD_HOST_H
#define PD_HOST_H

#include "backend.h"
#include "blocks.h"
#include "levels.h"
#include "project.h"
#include "slab.h"

/* The floats between rows that are read in 16 lanes: dim rounded up to a multiple of 16, zeros behind dim. */
static inline uint32_t pd_dim16(uint32_t dim)
{
    return (dim + 15u) & ~15u;
}

#define PD_NO_LIST UINT32_MAX

/* Places for page numbers, by pages of the index: what lists take that double whenever they are full. A list of c pages has lain in
 * places of e, 2e, 4e ... m pages; either m = c and it never moved, or it moved from m / 2 < c, so that m < 2c. All of them together
 * are under 2m, less than 4c, and the lists' pages are npages at most. What a list left behind need not be used again. */
#define PD_LIST_ROOM 4u

typedef struct pd_host_index {
    pd_index base;
    pd_run main, refine;
    pd_touch touch;  /* of both, from open on */
    int window_open; /* over window_count pages of window_kind from window_first */
    pd_page_kind window_kind;
    uint32_t window_first, window_count;
    pd_blocks blocks; /* what pages and lists can hold, kept as pages are committed and lists are set */
    char name[96];
    /* The lists; all NULL before set_lists. */
    float *centroids; /* [nlist][dim16], 64-byte aligned */
    /* List l's pages are pages[offsets[l]] and the held[l] - 1 behind it. A list that has no place left for one more moves to
     * where there is twice as much (pd_host_list_grow); offsets[nlist] is where nothing lies yet. */
    uint32_t *offsets;   /* [nlist + 1] */
    uint32_t *held;      /* [nlist] */
    uint32_t *room;      /* [nlist] places of each list, at least held */
    uint32_t *pages;     /* [PD_LIST_ROOM * npages] */
    uint32_t *rows;      /* [nlist] live rows */
    uint32_t *page_list; /* [npages]: the list a page belongs to, PD_NO_LIST */
    float *histograms;   /* [layout.weights][nlist], NULL: none */
    float beta;
    uint8_t tied
        [PD_MAX_BYTES]; /* byte columns whose values follow the lists, so that summaries tell lists apart */
    /* The centroids as the coarse step sees them (score.h): i8 codes of what lies between them and their mean, in pages
     * of a table without columns. */
    pd_layout coarse;
    unsigned char *coarse_pages; /* [pages for nlist][coarse.page_bytes] */
    float *terms;              /* [nlist] their terms, which lists without rows do not have in their pages */
    float *mean;               /* [dim16] */
    pd_projection *projection; /* NULL: codes have all dimensions */
    pd_level upper;            /* groups of lists; ngroups 0: one level */
} pd_host_index;

/* Slots of a backend. bytes: of the backend's own index, which begins with a pd_host_index. */
pd_status pd_host_index_open(const pd_backend *backend, pd_slab *slab, size_t bytes,
                             const pd_index_spec *spec, pd_index **out, pd_error *err);
void pd_host_index_close(pd_index *index);
pd_status pd_host_page_window(pd_index *index, pd_page_kind kind, uint32_t first, uint32_t count,
                              void **memory, uint32_t *got, pd_error *err);
pd_status pd_host_page_commit(pd_index *index, pd_error *err);
pd_status pd_host_set_lists(pd_index *index, const pd_lists *lists, pd_error *err);
pd_status pd_host_gather(pd_index *index, const uint32_t *slots, uint32_t n, const pd_rows *rows,
                         pd_error *err);

/* The slots for changes (changes.c). */
pd_status pd_host_grow(pd_index *index, const uint32_t *lists, const uint32_t *pages, uint32_t n,
                       pd_error *err);
pd_status pd_host_write_rows(pd_index *index, const pd_row_writes *writes, pd_error *err);
pd_status pd_host_write_columns(pd_index *index, const uint32_t *slots, uint32_t n,
                                const pd_column_write *columns, uint32_t ncolumns, pd_error *err);
pd_status pd_host_empty_rows(pd_index *index, const uint32_t *slots, uint32_t n, pd_error *err);
pd_status pd_host_read_pages(pd_index *index, pd_page_kind kind, uint32_t first, uint32_t count, void *memory,
                             pd_error *err);

/* Books that changes keep; index has lists. All of them are kept here, so that a backend whose pages are elsewhere can use them. */
/* Marks pages[i], which is in no list, as list lists[i]'s, all or none. FAILED_PRECONDITION: it is in a list, or twice in pages. */
pd_status pd_host_list_mark(pd_host_index *index, const uint32_t *lists, const uint32_t *pages, uint32_t n,
                            pd_error *err);
/* A page that was marked becomes the list's last, and what it can hold the list's and its group's. */
void pd_host_list_grow(pd_host_index *index, uint32_t list, uint32_t page);
/* The list has so many rows more, or fewer. It and its group are choosable while there are any. */
void pd_host_list_rows(pd_host_index *index, uint32_t list, int32_t more);
/* Takes what a page was found to hold (pd_blocks.pages), in the words first .. first + count - 1, into its list's summary. */
void pd_host_list_widen(pd_host_index *index, uint32_t page, uint32_t first, uint32_t count);

/* FAILED_PRECONDITION: a window is open, or the lists have not been set. */
pd_status pd_host_ready(const pd_host_index *index, pd_error *err);

static inline unsigned char *pd_host_page(const pd_host_index *index, uint32_t page)
{
    return pd_run_page(&index->main, page);
}
/* NULL where the table has no refine rows. */
static inline unsigned char *pd_host_refine(const pd_host_index *index, uint32_t page)
{
    return index->refine.nchunks ? pd_run_page(&index->refine, page) : NULL;
}
/* The lists as a search sees them: a look-up table is one list that holds every page. */
static inline uint32_t pd_host_nlist(const pd_host_index *index)
{
    return index->base.shape.nlist ? index->base.shape.nlist : 1;
}
static inline uint32_t pd_host_list_pages(const pd_host_index *index, uint32_t list)
{
    return index->base.shape.nlist ? index->held[list] : index->base.npages;
}
static inline uint32_t pd_host_list_page(const pd_host_index *index, uint32_t list, uint32_t i)
{
    return index->base.shape.nlist ? index->pages[index->offsets[list] + i] : i;
}
/* NULL for a look-up table. */
static inline const float *pd_host_centroid(const pd_host_index *index, uint32_t list)
{
    return index->centroids ? index->centroids + (size_t)list * pd_dim16(index->base.shape.dim) : NULL;
}

#endif
