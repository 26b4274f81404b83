/* Shapes, columns and the page: how a row lies in memory, on disk and on a device.
 *
 * Rows live in pages of PD_PAGE_ROWS rows. A page is a group of columns, each 32-byte aligned, the page 64-byte
 * aligned; the same bytes are a page of the version file, so that loading is reading. An inverted list is an array
 * of page numbers and a slot is page * PD_PAGE_ROWS + row: rows never move between rebuilds. A slot that holds no
 * row (never filled, or deleted) has the term minus infinity.
 *
 * Page of an i8 table, in order (docs/FILES.md draws it):
 *     codes   i8  [dim4 / 4][32][4]   four consecutive dimensions of a code side by side, as matrix units want them
 *     scale   f32 [32]                residual = scale * code
 *     term    f32 [32]                row term (l2: -(||r||^2 + 2<c,r>); ip and cosine: 0); -inf: no row
 *     ids     u64 [32]
 *     bytes   u8  [nbytes][32]        byte columns
 *     floats  f32 [nfloats][32]       number attributes as given, NaN unknown
 *     keys    u64 [nkeys][32]
 * f16 and f32 tables hold the row itself, not a residual: codes [dim][32]; scale is 1. A look-up table
 * (PD_CODE_NONE) has no codes. Refine rows lie in a page of their own beside it: [32][dim] f16 or f32, or
 * [32][dim rounded up to 2] i8 or u8, row-major.
 *
 * i8 codes may have fewer dimensions than the rows (code_dim < dim): residuals and queries are then projected (project.h), and
 * what is lost is made good by refine rows, which such a table must keep.
 *
 * The kernels know four kinds of column and nothing of festivals. The layers above map attributes to them:
 *     category   1 byte column (0: unknown)
 *     number     1 byte column (its bucket; 0: unknown) and 1 float column
 *     set        8 byte columns (the mask, plane j holds members 8j .. 8j+7)
 *     key        1 key column (0: unknown)
 */
#ifndef PD_LAYOUT_H
#define PD_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

#include "status.h"

#define PD_PAGE_ROWS   32u
#define PD_NO_SLOT     UINT32_MAX
#define PD_MAX_DIM     8192u
#define PD_MAX_BYTES   256u /* byte columns of a table */
#define PD_MAX_FLOATS  64u
#define PD_MAX_KEYS    16u
#define PD_MAX_K       1000u  /* what a caller may ask for */
#define PD_MAX_DEPTH   16384u /* what a backend must be able to return (diversity caps over-fetch) */
#define PD_MAX_QUERIES 4096u

typedef enum pd_metric { PD_IP = 0, PD_COSINE = 1, PD_L2 = 2 } pd_metric;
typedef enum pd_code { PD_CODE_NONE = 0, PD_CODE_I8 = 1, PD_CODE_F16 = 2, PD_CODE_F32 = 3 } pd_code;
/* i8 and u8 keep rows of whole numbers as they are, in a quarter of f32's bytes. */
typedef enum pd_refine {
    PD_REFINE_NONE = 0,
    PD_REFINE_F16 = 1,
    PD_REFINE_F32 = 2,
    PD_REFINE_I8 = 3, /* whole numbers from -128 to 127 */
    PD_REFINE_U8 = 4  /* from 0 to 255 */
} pd_refine;

typedef struct pd_shape {
    pd_metric metric;
    pd_code code;
    pd_refine refine;
    uint32_t dim;
    uint32_t code_dim; /* of an i8 code: at most dim, fewer where rows are projected; 0: dim */
    uint32_t nlist;    /* 0: a look-up table (index = none); its pages are in row order */
    uint32_t nbytes;
    uint32_t nfloats;
    uint32_t nkeys;
    /* Values that byte column c can take, so that a weight table has sizes[c] entries for it: 1..256 (0: the column
     * is stored but never weighed, as a set's planes without members). */
    uint16_t sizes[PD_MAX_BYTES];
} pd_shape;

typedef struct pd_layout {
    size_t codes, scale, term, ids, bytes, floats, keys; /* offsets in a page, in bytes */
    size_t page_bytes;                                   /* a multiple of 64 */
    size_t refine_bytes;                                 /* of a refine page, 32 rows; 0 without refine */
    uint32_t code_dim;                                   /* dimensions of a code */
    uint32_t dim4;                                       /* code_dim rounded up to a multiple of 4 */
    uint32_t weights;                 /* floats in a query's weight table: the sum of sizes */
    uint32_t weight_at[PD_MAX_BYTES]; /* where column c's entries start in it */
} pd_layout;

/* INVALID_ARGUMENT naming what is wrong: dim 0 or over PD_MAX_DIM, too many columns, a size over 256,
 * neither codes nor refine, a code_dim over dim, or under it without i8 codes, lists and refine rows. */
pd_status pd_layout_of(const pd_shape *shape, pd_layout *layout, pd_error *err);

/* Pages that count rows need in a list or a look-up table. */
static inline uint32_t pd_pages_for(uint64_t rows)
{
    return (uint32_t)((rows + PD_PAGE_ROWS - 1) / PD_PAGE_ROWS);
}

/* Columns of a page. */
/* Bytes from one refine row to the next. */
static inline size_t pd_refine_row(const pd_layout *l)
{
    return l->refine_bytes / PD_PAGE_ROWS;
}
static inline float *pd_page_scale(const pd_layout *l, void *page)
{
    return (float *)((unsigned char *)page + l->scale);
}
static inline float *pd_page_term(const pd_layout *l, void *page)
{
    return (float *)((unsigned char *)page + l->term);
}
static inline uint64_t *pd_page_ids(const pd_layout *l, void *page)
{
    return (uint64_t *)((unsigned char *)page + l->ids);
}
static inline uint8_t *pd_page_bytes(const pd_layout *l, void *page, uint32_t column)
{
    return (uint8_t *)page + l->bytes + (size_t)column * PD_PAGE_ROWS;
}
static inline float *pd_page_floats(const pd_layout *l, void *page, uint32_t column)
{
    return (float *)((unsigned char *)page + l->floats) + (size_t)column * PD_PAGE_ROWS;
}
static inline uint64_t *pd_page_keys(const pd_layout *l, void *page, uint32_t column)
{
    return (uint64_t *)((unsigned char *)page + l->keys) + (size_t)column * PD_PAGE_ROWS;
}

/* Makes a page empty: every byte 0, every term -inf, every float NaN. */
void pd_page_clear(const pd_shape *shape, const pd_layout *layout, void *page);

typedef struct pd_projection pd_projection; /* project.h */

/* Encodes rows into a page: row i goes to place place + i.
 *   projection: where code_dim < dim, else NULL. centroid: [dim] (i8; ignored otherwise; NULL: zeros)
 *   rows: [count][dim] f32, place + count <= PD_PAGE_ROWS. refine: the refine page, NULL where the shape has none
 *   (i8 and u8: values are rounded and brought into range; whether that loses anything is the caller's to know).
 * Fills codes, scale, term and refine; ids and columns are the caller's. A residual of all zeros has scale 0. Symmetric
 * int8 with a per-row scale max|r| / 127; codes lie in [-127, 127]. The l2 term is computed from the decoded residual
 * (in double, rounded once), so that the score is the exact distance to what the code stands for. Of a projected residual the
 * term is that of the whole residual, and makes the score exact for the query that is the projection's mean (score.h). */
void pd_page_encode(const pd_shape *shape, const pd_layout *layout, const pd_projection *projection,
                    const float *centroid, const float *rows, uint32_t place, uint32_t count, void *page,
                    void *refine);

/* Decodes one row: from the refine page where there is one (refine may be NULL, but not where rows are projected), else from
 * the code. out: [dim]. */
void pd_page_decode(const pd_shape *shape, const pd_layout *layout, const float *centroid, uint32_t place,
                    const void *page, const void *refine, float *out);

#endif
