/* Codes of fewer dimensions than the rows.
 *
 * Embeddings of many hundred dimensions carry most of their variance in few directions. A projection keeps those: its rows are
 * orthonormal directions (PCA of the rows, ingest/principal.c), residuals and queries are projected before they are quantised, and the scan,
 * the choice of lists and the memory they read shrink by dim / code_dim. What is lost moves rows among the candidates, so that refine
 * rows decide (the idea of LeanVec, Tepper et al. 2023, https://arxiv.org/abs/2312.16335, here over residuals: the list
 * term, the row's norm and what the mean query would lose stay exact, and only the rest is estimated).
 *
 * The matrix lies in pages of i8 codes, as centroids do, so that projecting a query is the same integer product as scanning, and gives
 * the same bits everywhere (score.h has the written rule).
 */
#ifndef PD_PROJECT_H
#define PD_PROJECT_H

#include "layout.h"

struct pd_projection {
    uint32_t dim, code_dim;
    pd_layout layout;             /* of a table of dim dimensions without columns */
    unsigned char *pages;         /* [pages for code_dim][layout.page_bytes]: the matrix, a row a direction */
    const float *mean;            /* [dim] m of score.h; NULL: zeros */
    const float *mean_out;        /* [code_dim] p(m); NULL: zeros */
    float *memory;                /* behind both */
    const struct pd_cpu_i8 *dots; /* for one vector at a time */
};

/* matrix: [code_dim][dim], centroids: [nlist][dim]; both are copied from. Freed with pd_projection_close. RESOURCE_EXHAUSTED. */
pd_status pd_projection_open(const float *matrix, uint32_t code_dim, const float *centroids, uint32_t nlist,
                             uint32_t dim, pd_projection **out, pd_error *err);
void pd_projection_close(pd_projection *projection); /* NULL is allowed */

/* p(vector). vector: [dim], out: [code_dim] */
void pd_project(const pd_projection *projection, const float *vector, float *out);

/* Each dimension summed in double over the lists, rounded once. out: [dim] */
void pd_centroid_mean(const float *centroids, uint32_t nlist, uint32_t dim, float *out);

#endif
