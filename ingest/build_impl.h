/* A build in progress, shared by its stages: build.c (the whole), build_rows.c (validate), build_columns.c and build_given.c
 * (attributes), build_lists.c (train, assign, order), build_write.c (encode, write). */
#ifndef PD_BUILD_IMPL_H
#define PD_BUILD_IMPL_H

#include "build.h"
#include "cpu/pool.h"
#include "files.h"
#include "idmap.h"
#include "lists_file.h"
#include "manifest.h"
#include "project.h"

typedef struct pd_builder {
    const pd_build_input *in;
    pd_device *device;
    pd_pool *pool; /* what is not the device's work is shared out here; idle where the device is */
    uint32_t threads;
    pd_progress progress;
    void *context;
    double now; /* days */
    uint64_t count;
    uint32_t dim;
    pd_schema *schema; /* a copy that becomes complete */
    pd_refine refine;  /* the schema's, or the rows' own where it does not say */
    pd_shape shape;
    pd_layout layout;
    pd_idmap rows_of; /* id -> row; empty where ids are 0..count-1 */

    /* Attribute columns by input row. */
    uint8_t *bytes; /* [nbytes][count] */
    float *floats;  /* [nfloats][count] */
    uint64_t *keys; /* [nkeys][count] */

    /* Lists (nlist 0: one run of pages in row order). */
    uint32_t nlist;
    float *centroids;          /* [nlist][dim] */
    float *directions;         /* [at least code_dim][dim], best first; used where projection is set */
    pd_projection *projection; /* NULL: codes have all dimensions */
    uint32_t *list_of;         /* [count] by input row */
    uint32_t *order;           /* [count] input rows in slot order; NULL: row order */
    uint32_t *list_rows;       /* [nlist] */
    uint32_t *offsets;         /* [nlist + 1] in pages */
    uint32_t ngroups;          /* 0: lists are few */
    uint32_t *group_first;     /* [ngroups + 1] */
    uint32_t npages;
    float similarity_sd, residual_sd, beta;
} pd_builder;

/* The id and the values of an input row; values converted to f32 and, under cosine, normalised. The rows were validated. */
uint64_t pd_builder_id(const pd_builder *b, uint64_t row);
void pd_builder_row(const pd_builder *b, uint64_t row, float *out);
/* The values of n rows by the pool: row which(i), or first + i where which is NULL. out: [n][dim] */
void pd_builder_rows(const pd_builder *b, uint64_t first, const uint64_t *which, uint64_t n, float *out);
/* CANCELLED when the caller wants to stop. */
pd_status pd_builder_tick(const pd_builder *b, const char *stage, uint64_t done, uint64_t total,
                          pd_error *err);

/* build_rows.c: looks at every value and puts the ids into rows_of. */
pd_status pd_builder_validate(pd_builder *b, pd_error *err);
/* Turns refine into what the rows were kept in before, where that loses nothing. Before validate. */
pd_status pd_builder_refine(pd_builder *b, pd_error *err);

/* build_given.c: attributes that come as columns. */
int pd_builder_has_columns(const pd_build_input *in);
pd_status pd_builder_check_columns(const pd_build_input *in, pd_error *err);
pd_status pd_builder_given(pd_builder *b, pd_error *err);
/* Reads the CSV into columns, or takes those that are given, and completes the schema: dictionaries, knots, representatives. */
pd_status pd_builder_columns(pd_builder *b, pd_error *err);
/* Trains, assigns, orders, and measures the standard deviations. */
pd_status pd_builder_lists(pd_builder *b, pd_error *err);
/* Decides whether codes have fewer dimensions than rows, once the centroids are trained: shape, layout, directions, projection.
 * sample: [n][dim], left in another order */
pd_status pd_builder_project(pd_builder *b, float *sample, uint64_t n, pd_error *err);
/* Puts lists into groups and numbers them anew, once the centroids are trained, where they are many. */
pd_status pd_builder_groups(pd_builder *b, pd_error *err);
/* Writes every file into folder, which exists and is empty. */
pd_status pd_builder_write(pd_builder *b, const char *folder, pd_error *err);

#endif
