/* A small made-up table for the kernels' tests: rows with attributes of every kind, laid out in lists with empty lists,
 * half-filled pages, equal rows, deleted rows and pages that no list owns. The raw rows are kept beside the pages, so
 * that a test can say what is right without reading a page. */
#ifndef PD_TEST_WORLD_H
#define PD_TEST_WORLD_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "backend.h"
#include "project.h"
#include "score.h"

#define WORLD_BYTES      10u /* a category, one column that is never weighed, a set's eight planes */
#define WORLD_SET        2u
#define WORLD_ROWS       700u
#define WORLD_LISTS      13u
#define WORLD_MOST_LISTS 70u
#define WORLD_PAGES      128u

/* What the rows are like. */
typedef enum world_kind {
    WORLD_PLAIN,
    WORLD_EQUAL,     /* every row is the same, attributes too */
    WORLD_FAR,       /* norms about 1e17 */
    WORLD_SUBNORMAL, /* every value is a subnormal number */
    WORLD_ONE_LIST,  /* all rows are in list 5, and the others are empty */
    WORLD_TWO_VALUES,
    WORLD_WHOLE, /* small whole numbers */
    WORLD_TIED,  /* attributes follow the lists, but for a quarter of the rows */
    WORLD_KINDS
} world_kind;

typedef struct world {
    pd_shape shape;
    pd_layout layout;
    uint32_t nlist; /* of the lists that rows were dealt to; 1 where the shape has none */
    float *centroids, *rows;
    float unit; /* about how far values lie apart */
    uint64_t ids[WORLD_ROWS];
    uint8_t bytes[WORLD_ROWS][WORLD_BYTES];
    float floats[WORLD_ROWS][2];
    uint64_t keys[WORLD_ROWS];
    uint32_t list[WORLD_ROWS], slot[WORLD_ROWS];
    uint8_t deleted[WORLD_ROWS];
    uint32_t npages;
    unsigned char *pages, *refines;
    uint32_t offsets[WORLD_MOST_LISTS + 1], page_numbers[WORLD_PAGES], counts[WORLD_MOST_LISTS];
    float *histograms;
    float *directions; /* [code_dim][dim], NULL: codes have all dimensions */
    uint32_t ngroups, group_first[WORLD_MOST_LISTS + 1]; /* see world_group */
    pd_projection *projection;
} world;

static uint64_t world_state = 1;

static inline uint64_t world_random(void)
{
    world_state ^= world_state << 13;
    world_state ^= world_state >> 7;
    world_state ^= world_state << 17;
    return world_state * 0x2545f4914f6cdd1dull;
}

static inline uint32_t world_below(uint32_t n)
{
    return (uint32_t)((world_random() >> 32) * n >> 32);
}

static inline float world_normal(void)
{
    float sum = 0;
    for (int i = 0; i < 4; i++)
        sum += (float)(world_random() >> 40) * 0x1p-24f - 0.5f;
    return sum * 1.7f;
}

static inline void world_columns(world *w)
{
    for (uint32_t r = 0; r < WORLD_ROWS; r++) {
        w->ids[r] = (uint64_t)((r * 7919u) % WORLD_ROWS) * 1000003u + 5u;
        w->bytes[r][0] = (uint8_t)world_below(5);
        w->bytes[r][1] = (uint8_t)world_below(256);
        uint64_t members = world_random() & world_random() & world_random();
        for (uint32_t j = 0; j < 8; j++)
            w->bytes[r][WORLD_SET + j] = (uint8_t)(members >> (8 * j));
        w->floats[r][0] = world_below(10) == 0 ? NAN : world_normal() * 10.0f;
        w->floats[r][1] = (float)world_below(4);
        w->keys[r] = world_below(7);
        w->deleted[r] = world_below(20) == 0;
    }
}

static inline float world_value(world_kind kind, float centroid)
{
    switch (kind) {
    case WORLD_FAR:
        return 1e17f * (centroid + 0.5f * world_normal());
    case WORLD_SUBNORMAL:
        return (float)(world_below(2001)) * 0x1p-149f - 1000.0f * 0x1p-149f;
    case WORLD_WHOLE:
        return (float)world_below(120) + rintf(2.0f * centroid);
    case WORLD_TWO_VALUES:
        return world_below(2) ? 1.0f : -1.0f;
    default:
        return centroid + 0.5f * world_normal();
    }
}

static inline void world_copy_row(world *w, uint32_t r, uint32_t from)
{
    uint32_t dim = w->shape.dim;
    memcpy(w->rows + (size_t)r * dim, w->rows + (size_t)from * dim, dim * sizeof *w->rows);
    w->list[r] = w->list[from];
    memcpy(w->bytes[r], w->bytes[from], WORLD_BYTES);
    w->keys[r] = w->keys[from];
}

static inline void world_follow(world *w, uint32_t r)
{
    w->bytes[r][0] = (uint8_t)(w->list[r] % 5);
    for (uint32_t j = 0; j < 8; j++)
        w->bytes[r][WORLD_SET + j] = (uint8_t)(w->list[r] * 37u + j * 11u);
}

static inline void world_vectors(world *w, world_kind kind)
{
    uint32_t dim = w->shape.dim, lists = w->nlist > 1 ? w->nlist : WORLD_LISTS;
    w->centroids = calloc((size_t)lists * dim, sizeof(float));
    w->rows = calloc((size_t)WORLD_ROWS * dim, sizeof(float));
    for (size_t i = 0; i < (size_t)lists * dim; i++)
        w->centroids[i] = world_normal();
    for (uint32_t r = 0; r < WORLD_ROWS; r++) {
        /* Lists 3 and 12 stay empty. */
        uint32_t list = world_below(lists);
        w->list[r] = w->nlist == 1 ? 0 : list == 3 || list == 12 ? 0 : list;
        if (kind == WORLD_TIED && world_below(4)) world_follow(w, r);
        if (kind == WORLD_ONE_LIST) w->list[r] = w->nlist > 5 ? 5 : 0;
        float *row = w->rows + (size_t)r * dim;
        for (uint32_t d = 0; d < dim; d++)
            row[d] = world_value(kind, w->centroids[(size_t)list * dim + d]);
        if (w->shape.metric == PD_COSINE) pd_normalise(row, dim);
        /* Every tenth row is the one before it again, in the same list: a tie. */
        if (kind == WORLD_EQUAL && r > 0) world_copy_row(w, r, 0);
        if (r % 10 == 9) world_copy_row(w, r, r - 1);
    }
    for (size_t i = 0; i < (size_t)lists * dim; i++) {
        if (kind == WORLD_FAR) w->centroids[i] *= 1e17f;
        if (kind == WORLD_SUBNORMAL) w->centroids[i] = world_value(kind, 0);
    }
}

static inline void world_put(world *w, uint32_t r, uint32_t page, uint32_t place)
{
    const pd_layout *l = &w->layout;
    unsigned char *at = w->pages + page * l->page_bytes;
    unsigned char *refine = l->refine_bytes ? w->refines + page * l->refine_bytes : NULL;
    const float *centroid = w->shape.nlist ? w->centroids + (size_t)w->list[r] * w->shape.dim : NULL;
    pd_page_encode(&w->shape, l, w->projection, centroid, w->rows + (size_t)r * w->shape.dim, place, 1, at,
                   refine);
    pd_page_ids(l, at)[place] = w->ids[r];
    for (uint32_t c = 0; c < WORLD_BYTES; c++)
        pd_page_bytes(l, at, c)[place] = w->bytes[r][c];
    for (uint32_t c = 0; c < 2; c++)
        pd_page_floats(l, at, c)[place] = w->floats[r][c];
    pd_page_keys(l, at, 0)[place] = w->keys[r];
    if (w->deleted[r]) pd_page_term(l, at)[place] = -INFINITY;
    w->slot[r] = page * PD_PAGE_ROWS + place;
}

/* Pages are dealt out of order, with spare ones between; every list begins a page. */
static inline void world_pages(world *w)
{
    w->npages = w->nlist > WORLD_LISTS ? WORLD_PAGES : 64;
    w->pages = aligned_alloc(64, w->npages * w->layout.page_bytes);
    w->refines = w->layout.refine_bytes ? aligned_alloc(64, w->npages * w->layout.refine_bytes) : NULL;
    for (uint32_t p = 0; p < w->npages; p++)
        pd_page_clear(&w->shape, &w->layout, w->pages + p * w->layout.page_bytes);
    if (w->refines) memset(w->refines, 0, w->npages * w->layout.refine_bytes);
    uint32_t used = 0;
    for (uint32_t l = 0; l < w->nlist; l++) {
        uint32_t in_list = 0;
        for (uint32_t r = 0; r < WORLD_ROWS; r++) {
            if (w->list[r] != l) continue;
            if (in_list % PD_PAGE_ROWS == 0) {
                w->page_numbers[used] = w->shape.nlist ? (used * 37 + 5) % w->npages : used;
                used++;
            }
            world_put(w, r, w->page_numbers[used - 1], in_list % PD_PAGE_ROWS);
            in_list++;
            w->counts[l] += !w->deleted[r];
        }
        w->offsets[l + 1] = used;
    }
}

static inline void world_summaries(world *w)
{
    w->histograms = calloc((size_t)w->layout.weights * w->nlist + 1, sizeof(float));
    for (uint32_t r = 0; r < WORLD_ROWS; r++)
        for (uint32_t c = 0; !w->deleted[r] && c < WORLD_BYTES; c++)
            if (w->shape.sizes[c])
                w->histograms[(w->layout.weight_at[c] + w->bytes[r][c]) * (size_t)w->nlist + w->list[r]] +=
                    1.0f / (float)w->counts[w->list[r]];
}

static inline void world_free(world *w)
{
    if (!w) return;
    free(w->centroids);
    free(w->rows);
    free(w->pages);
    free(w->refines);
    free(w->histograms);
    free(w->directions);
    pd_projection_close(w->projection);
    free(w);
}

/* Directions that are nearly orthogonal by chance, of length 1. */
static inline int world_directions(world *w)
{
    uint32_t dim = w->shape.dim, code_dim = w->layout.code_dim;
    if (code_dim == dim) return 1;
    w->directions = malloc((size_t)code_dim * dim * sizeof *w->directions);
    for (uint32_t j = 0; j < code_dim; j++) {
        for (uint32_t d = 0; d < dim; d++)
            w->directions[(size_t)j * dim + d] = world_normal();
        pd_normalise(w->directions + (size_t)j * dim, dim);
    }
    return pd_projection_open(w->directions, code_dim, w->centroids, w->nlist, dim, &w->projection, NULL) ==
           PD_OK;
}

static inline world *world_make_projected(world_kind kind, pd_metric metric, pd_code code, pd_refine refine,
                                          uint32_t dim, uint32_t code_dim, uint32_t nlist)
{
    world *w = calloc(1, sizeof *w);
    world_state = 88172645463325252ull + dim;
    w->shape = (pd_shape){
        .metric = metric, .code = code, .refine = refine, .dim = dim, .code_dim = code_dim, .nlist = nlist};
    w->shape.nbytes = WORLD_BYTES;
    w->shape.nfloats = 2;
    w->shape.nkeys = 1;
    w->shape.sizes[0] = 5;
    for (uint32_t j = 0; j < 8; j++)
        w->shape.sizes[WORLD_SET + j] = 256;
    w->nlist = nlist ? nlist : 1;
    w->unit = kind == WORLD_FAR ? 1e17f : kind == WORLD_SUBNORMAL ? 1e-42f : 1.0f;
    if (pd_layout_of(&w->shape, &w->layout, NULL) != PD_OK) {
        free(w);
        return NULL;
    }
    world_columns(w);
    world_vectors(w, kind);
    if (!world_directions(w)) {
        world_free(w);
        return NULL;
    }
    world_pages(w);
    world_summaries(w);
    return w;
}

static inline world *world_make_of(world_kind kind, pd_metric metric, pd_code code, pd_refine refine,
                                   uint32_t dim, uint32_t nlist)
{
    return world_make_projected(kind, metric, code, refine, dim, 0, nlist);
}

static inline world *world_make(pd_metric metric, pd_code code, pd_refine refine, uint32_t dim,
                                uint32_t nlist)
{
    return world_make_of(WORLD_PLAIN, metric, code, refine, dim, nlist);
}

/* Puts the lists into n groups of about the same size, of which the second is empty where there are enough. */
static inline void world_group(world *w, uint32_t n)
{
    w->ngroups = n;
    for (uint32_t g = 0; n > 0 && g <= n; g++)
        w->group_first[g] = w->nlist * g / n;
    if (n > 2) w->group_first[1] = w->group_first[2];
}

/* Takes the world onto a device. */
static inline pd_status world_load(const world *w, pd_device *device, float beta, pd_index **out,
                                   pd_error *err)
{
    pd_index_spec spec = {.shape = w->shape, .npages = w->npages, .name = "world@1"};
    pd_status status = pd_index_open(device, &spec, out, err);
    for (int kind = 0; status == PD_OK && kind < (w->refines ? 2 : 1); kind++) {
        size_t bytes = kind ? w->layout.refine_bytes : w->layout.page_bytes;
        const unsigned char *from = kind ? w->refines : w->pages;
        for (uint32_t p = 0, got; status == PD_OK && p < w->npages; p += got) {
            void *window;
            status = pd_index_window(*out, (pd_page_kind)kind, p, w->npages - p, &window, &got, err);
            if (status != PD_OK) break;
            memcpy(window, from + p * bytes, got * bytes);
            status = pd_index_commit(*out, err);
        }
    }
    pd_lists lists = {.centroids = w->centroids,
                      .offsets = w->offsets,
                      .pages = w->page_numbers,
                      .rows = w->counts,
                      .histograms = w->histograms,
                      .projection = w->directions,
                      .ngroups = w->ngroups,
                      .group_first = w->ngroups ? w->group_first : NULL,
                      .beta = beta};
    if (status == PD_OK && w->shape.nlist) status = pd_index_set_lists(*out, &lists, err);
    return status;
}

#endif
