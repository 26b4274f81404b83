/* What peers read: the same rows, queries, truth and weights that Pados is measured with, in formats that numpy reads.
 *
 *   base.fbin query.fbin calibration.fbin   u32 rows, u32 dim, f32 [rows][dim] (big-ann); calibration where there is any
 *   truth.npy                               i64 [queries][k] row numbers, -1 past the end
 *   bytes.npy                               u8 [rows][byte columns]: each row's attribute values
 *   weights_I.npy fused_I.npy               of context I: f32 [queries][weights], and its truth
 *   meta.json                               name, metric, k, where column c's weights start, the contexts' spreads
 *
 * Score of a row under a context: similarity + sum over columns c of weights[weight_at[c] + bytes[c]].
 */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "files.h"
#include "system_pados.h"

static pd_status write_fbin(const char *folder, const char *name, const float *rows, uint64_t n, uint32_t dim,
                            pd_error *err)
{
    char path[PD_PATH_ROOM];
    pd_status status = pd_path_join(path, folder, name, err);
    if (status) return status;
    FILE *file = fopen(path, "wb");
    if (!file) return pd_fail_errno(err, "write", path);
    uint32_t head[2] = {(uint32_t)n, dim};
    int bad =
        fwrite(head, sizeof head, 1, file) != 1 || fwrite(rows, (size_t)dim * sizeof *rows, n, file) != n;
    if (fclose(file) || bad) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "%s could not be written", path);
    return PD_OK;
}

static pd_status write_npy(const char *folder, const char *name, pd_dtype dtype, uint64_t rows, uint32_t dim,
                           const void *data, pd_error *err)
{
    char path[PD_PATH_ROOM];
    pd_status status = pd_path_join(path, folder, name, err);
    return status ? status : pd_write_npy(path, dtype, rows, dim, data, err);
}

static pd_status write_context(bench_pados *p, const char *folder, uint32_t i, pd_error *err)
{
    const bench_context *context = &p->contexts[i];
    const bench_data *d = p->data;
    uint32_t width = pd_version_info_of(p->version)->layout.weights;
    float *all = calloc((size_t)d->nqueries * width + 1, sizeof *all);
    if (!all) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the contexts' weights");
    for (uint32_t q = 0; q < d->nqueries; q++) {
        const pd_compiled *c = &context->compiled[context->ncompiled > 1 ? q : 0];
        if (c->weights) memcpy(all + (size_t)q * width, c->weights, width * sizeof *all);
    }
    char name[40];
    snprintf(name, sizeof name, "weights_%u.npy", i);
    pd_status status = write_npy(folder, name, PD_DTYPE_F32, d->nqueries, width, all, err);
    free(all);
    snprintf(name, sizeof name, "fused_%u.npy", i);
    if (!status) status = write_npy(folder, name, PD_DTYPE_I64, d->nqueries, d->k, context->truth, err);
    return status;
}

static pd_status write_meta(bench_pados *p, const char *folder, pd_error *err)
{
    const bench_data *d = p->data;
    const pd_version_info *info = pd_version_info_of(p->version);
    char path[PD_PATH_ROOM];
    pd_status status = pd_path_join(path, folder, "meta.json", err);
    if (status) return status;
    json_t *meta = json_object(), *at = json_array(), *spreads = json_array();
    for (uint32_t c = 0; c < info->shape.nbytes; c++)
        json_array_append_new(at, json_integer(info->layout.weight_at[c]));
    for (uint32_t i = 0; i < p->ncontexts; i++)
        json_array_append_new(spreads, json_real((double)p->contexts[i].spread));
    json_object_set_new(meta, "dataset", json_string(d->name));
    json_object_set_new(meta, "metric", json_string(pd_metric_name(d->metric)));
    json_object_set_new(meta, "k", json_integer(d->k));
    json_object_set_new(meta, "attributes", json_integer(p->options->fused_attributes));
    json_object_set_new(meta, "tie", json_real((double)p->options->fused_tie));
    json_object_set_new(meta, "weight_at", at);
    json_object_set_new(meta, "spreads", spreads);
    int bad = json_dump_file(meta, path, JSON_INDENT(1) | JSON_PRESERVE_ORDER);
    json_decref(meta);
    return bad ? pd_fail(err, PD_RESOURCE_EXHAUSTED, "%s could not be written", path) : PD_OK;
}

pd_status bench_pados_export(bench_pados *p, const char *folder, pd_error *err)
{
    const bench_data *d = p->data;
    if (p->profile)
        return pd_fail(err, PD_INVALID_ARGUMENT,
                       "--export: a profile's filters and keys have no column of weights; "
                       "only --fused contexts can be exported");
    if (mkdir(folder, 0777) && errno != EEXIST) return pd_fail_errno(err, "make", folder);
    pd_status status = write_fbin(folder, "base.fbin", d->base, d->rows, d->dim, err);
    if (!status) status = write_fbin(folder, "query.fbin", d->queries, d->nqueries, d->dim, err);
    if (!status && d->ncalibration)
        status = write_fbin(folder, "calibration.fbin", d->calibration, d->ncalibration, d->dim, err);
    if (!status) status = write_npy(folder, "truth.npy", PD_DTYPE_I64, d->nqueries, d->k, d->truth, err);
    if (!status && p->ncontexts) {
        uint8_t *bytes = NULL;
        status = bench_row_bytes(p, &bytes, err);
        if (!status)
            status = write_npy(folder, "bytes.npy", PD_DTYPE_U8, d->rows,
                               pd_version_info_of(p->version)->shape.nbytes, bytes, err);
        free(bytes);
    }
    for (uint32_t i = 0; !status && i < p->ncontexts; i++)
        status = write_context(p, folder, i, err);
    return status ? status : write_meta(p, folder, err);
}
