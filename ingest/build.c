/* Building a version, stage by stage:
 *
 *   validate   every value is looked at once, ids are put in a map that finds the second of a pair       build_rows.c
 *   attributes the CSV is joined by id, values get their numbers                                         build_columns.c
 *              or columns of numbers are taken as they come                                              build_given.c
 *              knots and representatives are chosen                                                      build_columns.c
 *   train      centroids from a seeded sample                                                            build_lists.c
 *   assign     each row's nearest centroid, then order: by list, by the leading attribute, by id
 *   write      pages in slot order, sequentially, into FOLDER.tmp; sync, rename                          build_write.c
 *
 * The same input and seed give the same bytes: samples are drawn by a written generator, ties are broken by id, and no
 * stage depends on how many threads there are: what is shared out is either by itself for each row, or added up by one
 * thread in a fixed order. Rows are read where they lie (usually a mapped file) as often as they are needed; nothing of
 * the size of the vectors is held besides the training sample.
 */
#include "build.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "build_impl.h"

#define MOST_THREADS 1024

uint32_t pd_auto_nlist(uint64_t rows)
{
    double want = 2.0 * sqrt((double)rows);
    double most = (double)rows / 39.0;
    uint32_t nlist = (uint32_t)(want < most ? want : most);
    if (nlist > 8) nlist -= nlist % 8;
    return nlist < 1 ? 1 : nlist;
}

pd_status pd_builder_tick(const pd_builder *b, const char *stage, uint64_t done, uint64_t total,
                          pd_error *err)
{
    if (b->progress && b->progress(b->context, stage, done, total))
        return pd_fail(err, PD_CANCELLED, "the build was stopped while it did \"%s\"", stage);
    return PD_OK;
}

static pd_status check_input(pd_builder *b, pd_error *err)
{
    const pd_build_input *in = b->in;
    pd_status status = pd_name_check("table", in->table, err);
    if (!status) status = pd_builder_check_columns(in, err);
    if (status) return status;
    if (in->dtype != PD_DTYPE_F32 && in->dtype != PD_DTYPE_F16 && in->dtype != PD_DTYPE_I8 &&
        in->dtype != PD_DTYPE_U8)
        return pd_fail(err, PD_INVALID_ARGUMENT, "rows of %s cannot be searched; f32, f16, i8 and u8 can",
                       pd_dtype_name(in->dtype));
    if (in->dim == 0 || in->dim > PD_MAX_DIM)
        return pd_fail(err, PD_INVALID_ARGUMENT, "the rows have %u columns; 1 to %u can be kept", in->dim,
                       PD_MAX_DIM);
    if (in->schema->dim && in->schema->dim != in->dim)
        return pd_fail(err, PD_INVALID_ARGUMENT,
                       "the rows have %u columns, the schema of \"%s\" says dim = %u", in->dim, in->table,
                       in->schema->dim);
    if (in->version > INT64_MAX || in->parent > INT64_MAX || in->sequence > INT64_MAX)
        return pd_fail(err, PD_INVALID_ARGUMENT, "version %llu, parent %llu, sequence %llu: one is too large",
                       (unsigned long long)in->version, (unsigned long long)in->parent,
                       (unsigned long long)in->sequence);
    uint32_t asked = in->nlist ? in->nlist : in->schema->nlist;
    if (in->parent && asked > in->count) asked = 0; /* rows went since the lists were asked for */
    uint32_t nlist = asked ? asked : pd_auto_nlist(in->count);
    if (in->schema->index && in->count && asked && (asked > in->count || asked > PD_MAX_NLIST))
        return pd_fail(err, PD_INVALID_ARGUMENT, "%u lists were asked for, but there are %llu rows", asked,
                       (unsigned long long)in->count);
    if (!in->schema->index) nlist = 0;
    if (in->schema->index && in->count == 0) nlist = 1;
    /* Slots are 32 bits; each list may leave a page partly empty. */
    if (in->count / PD_PAGE_ROWS + nlist + 1 > PD_MAX_PAGES)
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "%llu rows are more than a table can hold",
                       (unsigned long long)in->count);
    b->nlist = nlist;
    b->refine = in->schema->refine;
    /* Rows that come as small whole numbers are kept as those: nothing is lost, in half of the bytes. */
    if (!in->schema->refine_said && b->refine == PD_REFINE_F16 && in->schema->metric != PD_COSINE) {
        if (in->dtype == PD_DTYPE_I8) b->refine = PD_REFINE_I8;
        if (in->dtype == PD_DTYPE_U8) b->refine = PD_REFINE_U8;
    }
    b->count = in->count;
    b->dim = in->dim;
    b->now = in->now > 0 ? in->now : pd_days_now();
    return PD_OK;
}

static pd_status run(pd_builder *b, const char *folder, pd_error *err)
{
    pd_status status = pd_builder_refine(b, err);
    if (!status) status = pd_builder_validate(b, err);
    if (!status) status = pd_builder_columns(b, err);
    if (status) return status;
    pd_idmap_close(&b->rows_of);
    pd_schema_shape(b->schema, b->nlist, &b->shape);
    b->shape.refine = b->refine;
    status = pd_layout_of(&b->shape, &b->layout, err);
    if (!status) status = pd_builder_lists(b, err);
    if (!status) status = pd_builder_write(b, folder, err);
    return status;
}

/* As many threads as the device has; the whole machine where it does not say. */
static pd_status open_pool(pd_builder *b, pd_error *err)
{
    pd_device_info about;
    pd_device_info_of(b->device, &about);
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    b->threads = about.threads ? about.threads : 1;
    if (!about.threads && online > 0) b->threads = online < MOST_THREADS ? (uint32_t)online : MOST_THREADS;
    return pd_pool_open(b->threads, about.idle, &b->pool, err);
}

static void builder_close(pd_builder *b)
{
    if (b->pool) pd_pool_close(b->pool);
    pd_idmap_close(&b->rows_of);
    pd_schema_free(b->schema);
    free(b->bytes);
    free(b->floats);
    free(b->keys);
    free(b->centroids);
    free(b->directions);
    pd_projection_close(b->projection);
    free(b->list_of);
    free(b->order);
    free(b->list_rows);
    free(b->offsets);
    free(b->group_first);
}

/* FOLDER.tmp, new and empty. One that a crash left behind goes first. */
static pd_status make_folder(const char *folder, char *fresh, pd_error *err)
{
    struct stat about;
    int used = snprintf(fresh, PD_PATH_ROOM, "%s.tmp", folder);
    if (used < 0 || used >= PD_PATH_ROOM)
        return pd_fail(err, PD_INVALID_ARGUMENT, "the version's path is too long");
    if (lstat(folder, &about) == 0) return pd_fail(err, PD_ALREADY_EXISTS, "%s is already there", folder);
    if (lstat(fresh, &about) == 0) {
        pd_status status = pd_folder_remove(fresh, err);
        if (status) return status;
    }
    return mkdir(fresh, 0755) != 0 ? pd_fail_errno(err, "make the folder", fresh) : PD_OK;
}

pd_status pd_build(const pd_build_input *input, const char *folder, pd_device *device, pd_progress progress,
                   void *context, pd_error *err)
{
    pd_builder b = {.in = input, .device = device, .progress = progress, .context = context};
    char fresh[PD_PATH_ROOM];
    pd_status status = check_input(&b, err);
    if (status) return status;
    status = pd_schema_copy(input->schema, &b.schema, err);
    if (status) return status;
    b.schema->dim = b.dim;
    b.shape.metric = b.schema->metric;
    status = open_pool(&b, err);
    if (!status) status = make_folder(folder, fresh, err);
    if (status) goto err_after_schema;
    status = run(&b, fresh, err);
    if (!status) status = pd_folder_sync(fresh, err);
    if (!status && rename(fresh, folder) != 0) status = pd_fail_errno(err, "rename to", folder);
    if (status)
        pd_folder_remove(fresh, NULL);
    else
        status = pd_folder_sync_parent(folder, err);

err_after_schema:
    builder_close(&b);
    return status;
}
