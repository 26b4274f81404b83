/* How the coarse step sees lists: pages of i8 codes, and the level above them.
 *
 * Looking at every centroid costs as much as scanning as many rows, and more than the scan from some 16,000 lists on. Lists that
 * lie close then come in groups of consecutive numbers; a query ranks the groups first
 * and looks only at the lists of the best (score.h has the rule). A group is to its lists what a list is to its rows: a centroid,
 * shares of values, and what its pages can hold. All of it is made here from what the lists say, so that nothing of it is
 * kept on disk but where groups begin.
 */
#ifndef PD_LEVELS_H
#define PD_LEVELS_H

#include "backend.h"
#include "blocks.h"
#include "project.h"

typedef struct pd_level {
    uint32_t ngroups;
    uint32_t most;   /* lists of the largest group */
    uint32_t live;   /* lists with rows, of all groups */
    uint32_t *first; /* [ngroups + 1]: the lists of each group */
    uint32_t *lists; /* [ngroups] lists with rows of each */
    unsigned char
        *pages;        /* [pages for ngroups] codes of the groups' centroids, in the layout of the lists' */
    float *terms;      /* [ngroups] their terms, as those of lists (host.h) */
    float *histograms; /* [weights][ngroups], NULL: none */
    uint64_t *blocks;  /* [ngroups][columns] what their pages can hold, as pd_blocks.lists */
} pd_level;

/* What centroids become codes under: layout of shape, which has no columns; m and p of score.h. */
typedef struct pd_coarse_view {
    const pd_shape *shape;
    const pd_layout *layout;
    const pd_projection *projection; /* NULL: codes have all dimensions */
    const float *mean;               /* [dim] */
} pd_coarse_view;

/* The codes of n centroids; those without rows have the term minus infinity, and what it is with rows lies in terms.
 * centroids: [n][dim], rows: [n]. *pages is 64-byte aligned; it and *terms ([n]) are for free(). RESOURCE_EXHAUSTED. */
pd_status pd_coarse_pages(const pd_coarse_view *view, const float *centroids, const uint32_t *rows,
                          uint32_t n, unsigned char **pages, float **terms, pd_error *err);
/* Centroid i of such pages has rows from now on, or none. */
void pd_coarse_live(const pd_layout *layout, unsigned char *pages, const float *terms, uint32_t i, int live);

/* blocks: [nlist][columns] of the lists. RESOURCE_EXHAUSTED, and level is as it was. */
pd_status pd_level_open(const pd_coarse_view *view, const pd_lists *lists, uint32_t nlist, uint32_t weights,
                        const uint64_t *blocks, uint32_t columns, pd_level *level, pd_error *err);
void pd_level_close(pd_level *level); /* a zeroed one is allowed */
/* The group of a list; there are groups. */
uint32_t pd_level_group(const pd_level *level, uint32_t list);
/* A list that had no rows has some now (live), or the other way round. layout: of the pages. Nothing where there are no groups. */
void pd_level_live(pd_level *level, const pd_layout *layout, uint32_t list, int live);
/* Takes a written page of a list into its group's summary. */
void pd_level_add(pd_level *level, const pd_blocks *blocks, uint32_t list, uint32_t page);

static inline int pd_level_may(const pd_level *level, const pd_blocks *blocks, const pd_block_filter *filter,
                               uint32_t group)
{
    return pd_block_may(filter, level->blocks + (size_t)group * blocks->columns);
}

#endif
