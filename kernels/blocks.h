/* What pages and lists can hold, so that a filter skips those that cannot match without looking at a row.
 *
 * A summary keeps, for each byte column that can be told apart by value, 64 bits for a page: bit v % 64 is set where some
 * live row holds v. A list's summary is the union of its pages'. Folding values over 63 onto the first 64 can only make a
 * page look fuller than it is, so what a summary excludes is excluded for certain; what it does not exclude is decided
 * row by row (filter.h). A row that is deleted or changed takes its bits out of its page's summary, and leaves them in its list's
 * until lists are set again: which of a list's other pages have them is not kept.
 *
 * It costs 8 bytes a page and column, a quarter of a byte a row: exact masks of 256 bits would cost as much as the
 * column itself and tell little more, as columns of over 64 values are mostly sets' planes, where the folded members are
 * two of eight. Columns of one value, or none, are left out.
 */
#ifndef PD_BLOCKS_H
#define PD_BLOCKS_H

#include "backend.h"

typedef struct pd_blocks {
    /* The least and the greatest value that any row was ever seen to hold, of the summarised columns (first > last: none yet);
     * 0 and 255 of the others. */
    uint8_t first[PD_MAX_BYTES], last[PD_MAX_BYTES];
    uint32_t nbytes;           /* byte columns of the table */
    uint32_t columns;          /* summarised */
    uint16_t at[PD_MAX_BYTES]; /* the place of each byte column's bits; PD_NO_BLOCK: not summarised */
    uint64_t *pages;           /* [npages][columns] */
    uint64_t *lists;           /* [nlist][columns]; NULL before the lists are known */
} pd_blocks;

#define PD_NO_BLOCK UINT16_MAX

/* All pages empty. RESOURCE_EXHAUSTED. */
pd_status pd_blocks_open(pd_blocks *blocks, const pd_shape *shape, uint32_t npages, pd_error *err);
void pd_blocks_close(pd_blocks *blocks); /* a zeroed one is allowed */
/* Sees a page that was written, or one column of it, which must be summarised. */
void pd_blocks_page(pd_blocks *blocks, const pd_layout *layout, uint32_t number, const void *page);
void pd_blocks_column(pd_blocks *blocks, const pd_layout *layout, uint32_t number, const void *page,
                      uint32_t column);
/* The unions of the lists' pages, where lists have been set: a fresh array for blocks->lists. Freed with free(); NULL where
 * there is no memory. offsets: [nlist + 1] into pages. */
uint64_t *pd_blocks_lists(const pd_blocks *blocks, uint32_t nlist, const uint32_t *offsets,
                          const uint32_t *pages);
/* Takes a written page into its list's summary. */
void pd_blocks_add(pd_blocks *blocks, uint32_t list, uint32_t page);

/* A filter as summaries see it: every test must find a bit, and of each group of alternatives one. Tests that summaries know
 * nothing of are left out, and so are those for which there is no room: what is left is weaker, never wrong. */
#define PD_BLOCK_TESTS  8u
#define PD_BLOCK_GROUPS 2u
typedef struct pd_block_test {
    uint32_t at;
    uint64_t allow;
} pd_block_test;
typedef struct pd_block_filter {
    uint32_t ntests, ngroups;
    pd_block_test tests[PD_BLOCK_TESTS];
    struct {
        uint32_t n;
        pd_block_test any[8]; /* a set's planes */
    } groups[PD_BLOCK_GROUPS];
} pd_block_filter;

/* Returns 0 where summaries say nothing of this filter (out passes everything). */
int pd_block_filter_of(const pd_blocks *blocks, const pd_filter *filter, pd_block_filter *out);

/* Can some row of a page or list pass? bits: [columns] of it. */
static inline int pd_block_may(const pd_block_filter *filter, const uint64_t *bits)
{
    for (uint32_t i = 0; i < filter->ntests; i++)
        if (!(bits[filter->tests[i].at] & filter->tests[i].allow)) return 0;
    for (uint32_t g = 0; g < filter->ngroups; g++) {
        uint64_t some = 0;
        for (uint32_t i = 0; i < filter->groups[g].n; i++)
            some |= bits[filter->groups[g].any[i].at] & filter->groups[g].any[i].allow;
        if (!some) return 0;
    }
    return 1;
}
static inline int pd_blocks_page_may(const pd_blocks *blocks, const pd_block_filter *filter, uint32_t page)
{
    return pd_block_may(filter, blocks->pages + (size_t)page * blocks->columns);
}
static inline int pd_blocks_list_may(const pd_blocks *blocks, const pd_block_filter *filter, uint32_t list)
{
    return !blocks->lists || pd_block_may(filter, blocks->lists + (size_t)list * blocks->columns);
}

#endif
