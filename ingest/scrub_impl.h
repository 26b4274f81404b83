/* A scrub in progress: scrub.c (the whole), scrub_pages.c (the pass over the pages), scrub_lists.c (what is summed up over rows). */
#ifndef PD_SCRUB_IMPL_H
#define PD_SCRUB_IMPL_H

#include "project.h"
#include "version_impl.h"

#define PD_NO_PLACE UINT32_MAX

typedef struct pd_scrubbing {
    const char *fresh; /* the folder that is written */
    /* The version as it is, opened for this alone: sums, lists and segments are changed in its memory and written from there. */
    pd_version *v;
    pd_manifest manifest; /* of the fresh folder */
    uint32_t n;
    uint32_t *slots; /* [n] that go, ascending, distinct */

    /* Lists that lose rows. */
    uint32_t *place;           /* [nlist] place in counts; PD_NO_PLACE: it keeps all */
    uint32_t touched;          /* how many do not */
    uint32_t *counts;          /* [touched][weights] rows by value, of those that stay */
    uint8_t *moved;            /* [nlist] it gets another centroid, and its rows other codes */
    pd_projection *projection; /* where rows are projected and a centroid moved */

    /* Segments that lose rows: their means are made anew from those that stay. */
    uint8_t *lost[PD_MAX_ATTRIBUTES]; /* [nvalues]; NULL: the attribute has no segments */
    double *sums[PD_MAX_ATTRIBUTES];  /* [nvalues][dim] */
    int segments;                     /* any of lost is set */
} pd_scrubbing;

/* scrub_lists.c. Finds out what the rows that go are part of, and moves centroids. */
pd_status pd_scrub_survey(pd_scrubbing *s, pd_error *err);
/* Adds the rows of a page that stay to what was found to need it. row: room for [dim]. */
void pd_scrub_add(pd_scrubbing *s, uint32_t page, void *bytes, const void *source, float *row);
/* Once all pages are added: shares of lists, means of segments. */
void pd_scrub_sum(pd_scrubbing *s);

/* scrub_pages.c. Writes the page files and their sums, adding each page on the way. */
pd_status pd_scrub_pages(pd_scrubbing *s, pd_error *err);

/* Notes a finished file's length and sum in the manifest, which has it by name. */
pd_status pd_scrub_finish(pd_scrubbing *s, pd_out *out, const char *name, pd_error *err);

#endif
