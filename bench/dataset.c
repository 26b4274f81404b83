/* The data of a benchmark: matrices read whole, the queries split into those that calibrate and those that measure. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench.h"
#include "calibrate.h"
#include "score.h"

double bench_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

int bench_compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_median(const double *values, uint32_t n)
{
    double sorted[BENCH_MAX_ROUNDS];
    if (n > BENCH_MAX_ROUNDS) n = BENCH_MAX_ROUNDS;
    memcpy(sorted, values, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, bench_compare_doubles);
    return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

/* A whole file as f32; at most limit rows (0: all). */
static pd_status matrix(const char *path, pd_format format, uint64_t limit, pd_dtype *dtype, float **out,
                        uint64_t *rows, uint32_t *dim, pd_error *err)
{
    pd_reader *reader;
    pd_status status = pd_reader_open(path, format, &reader, err);
    if (status) return status;
    pd_reader_info info;
    pd_reader_info_of(reader, &info);
    if (dtype) *dtype = info.dtype;
    uint64_t want = limit && limit < info.rows ? limit : info.rows, done = 0;
    float *all = malloc((want ? want : 1) * (size_t)info.dim * sizeof *all);
    if (!all) {
        status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "%s: no memory for %llu rows", path,
                         (unsigned long long)want);
        goto err_after_open;
    }
    while (done < want) {
        uint64_t got;
        status = pd_reader_read_f32(reader, want - done, all + done * info.dim, &got, err);
        if (!status && !got)
            status = pd_fail(err, PD_DATA_LOSS, "%s ends at row %llu", path, (unsigned long long)done);
        if (status) goto err_after_alloc;
        done += got;
    }
    pd_reader_close(reader);
    *out = all;
    *rows = want;
    *dim = info.dim;
    return PD_OK;
err_after_alloc:
    free(all);
err_after_open:
    pd_reader_close(reader);
    return status;
}

static pd_status normalise(const char *path, float *rows, uint64_t n, uint32_t dim, pd_error *err)
{
    for (uint64_t i = 0; i < n; i++)
        if (!pd_normalise(rows + i * dim, dim))
            return pd_fail(err, PD_INVALID_ARGUMENT, "%s: row %llu is a zero vector, which has no cosine",
                           path, (unsigned long long)i);
    return PD_OK;
}

/* Queries that calibrate are never measured: a file of their own, or the first of the query file. */
static pd_status split(const bench_options *o, bench_data *data, pd_error *err)
{
    if (o->calibration) {
        uint64_t rows;
        uint32_t dim;
        pd_status status =
            matrix(o->calibration, PD_FORMAT_AUTO, 0, NULL, &data->calibration, &rows, &dim, err);
        if (status) return status;
        if (dim != data->dim)
            return pd_fail(err, PD_INVALID_ARGUMENT, "%s has %u dimensions, the base %u", o->calibration, dim,
                           data->dim);
        data->ncalibration = (uint32_t)rows;
        snprintf(data->calibration_name, sizeof data->calibration_name, "%u queries of %.60s",
                 data->ncalibration, o->calibration);
        return PD_OK;
    }
    if (data->nqueries < 2 * PD_CALIBRATION_QUERIES) {
        snprintf(data->calibration_name, sizeof data->calibration_name,
                 "rows of the base, held out of their own search");
        return PD_OK;
    }
    size_t bytes = (size_t)PD_CALIBRATION_QUERIES * data->dim * sizeof(float);
    data->calibration = malloc(bytes);
    if (!data->calibration)
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the calibration queries");
    memcpy(data->calibration, data->queries, bytes);
    data->ncalibration = PD_CALIBRATION_QUERIES;
    data->nqueries -= PD_CALIBRATION_QUERIES;
    memmove(data->queries, data->queries + (size_t)PD_CALIBRATION_QUERIES * data->dim,
            (size_t)data->nqueries * data->dim * sizeof(float));
    snprintf(data->calibration_name, sizeof data->calibration_name,
             "the first %u queries, which are not measured", PD_CALIBRATION_QUERIES);
    return PD_OK;
}

static pd_status read_files(const bench_options *o, bench_data *data, pd_error *err)
{
    pd_format format = PD_FORMAT_AUTO;
    pd_status status = o->base_format ? pd_format_parse(o->base_format, &format, err) : PD_OK;
    if (!status) status = matrix(o->base, format, 0, &data->dtype, &data->base, &data->rows, &data->dim, err);
    if (status) return status;
    uint64_t rows, nids;
    uint32_t dim;
    if (o->ids) {
        if ((status = pd_read_ids(o->ids, &data->ids, &nids, err))) return status;
        if (nids != data->rows)
            return pd_fail(err, PD_INVALID_ARGUMENT, "%s holds %llu ids, %s %llu rows", o->ids,
                           (unsigned long long)nids, o->base, (unsigned long long)data->rows);
    }
    if ((status = matrix(o->query, PD_FORMAT_AUTO, 0, NULL, &data->queries, &rows, &dim, err))) return status;
    data->nqueries = (uint32_t)rows;
    if (dim != data->dim)
        return pd_fail(err, PD_INVALID_ARGUMENT, "%s has %u dimensions, %s has %u", o->query, dim, o->base,
                       data->dim);
    if ((status = split(o, data, err))) return status;
    if (o->queries && o->queries < data->nqueries) data->nqueries = o->queries;
    return data->nqueries ? PD_OK
                          : pd_fail(err, PD_INVALID_ARGUMENT, "%s has no queries to measure", o->query);
}

static pd_status normalise_all(const bench_options *o, bench_data *data, pd_error *err)
{
    pd_status status = normalise(o->base ? o->base : "the base", data->base, data->rows, data->dim, err);
    if (!status)
        status =
            normalise(o->query ? o->query : "the queries", data->queries, data->nqueries, data->dim, err);
    if (!status)
        status = normalise(o->calibration ? o->calibration : "the calibration queries", data->calibration,
                           data->ncalibration, data->dim, err);
    return status;
}

pd_status bench_data_open(const bench_options *o, bench_data *data, pd_error *err)
{
    *data = (bench_data){.metric = o->metric, .k = o->k};
    if (o->dataset) {
        snprintf(data->name, sizeof data->name, "%s", o->dataset);
    } else if (o->generate_rows) {
        snprintf(data->name, sizeof data->name, "synthetic-%llux%u", (unsigned long long)o->generate_rows,
                 o->generate_dim);
    } else {
        const char *slash = strrchr(o->base, '/');
        snprintf(data->name, sizeof data->name, "%s", slash ? slash + 1 : o->base);
    }
    pd_status status = o->generate_rows ? bench_generate(o, data, err) : read_files(o, data, err);
    if (!status && data->metric == PD_COSINE) status = normalise_all(o, data, err);
    if (data->k > data->rows) data->k = (uint32_t)data->rows;
    if (status) bench_data_close(data);
    return status;
}

pd_status bench_truth_read(const bench_options *o, bench_data *data, pd_error *err)
{
    if (!o->truth) return PD_OK;
    pd_reader *reader;
    pd_status status = pd_reader_open(o->truth, PD_FORMAT_AUTO, &reader, err);
    if (status) return status;
    pd_reader_info info;
    pd_reader_info_of(reader, &info);
    /* The calibration queries stood first in the query file, so their truth stands first here. */
    uint64_t skip = o->calibration ? 0 : data->ncalibration, all = skip + data->nqueries, done = 0;
    int64_t *rows = NULL;
    if (info.rows < all || info.dim < data->k) {
        status = pd_fail(err, PD_INVALID_ARGUMENT, "%s holds %llu x %u neighbours, %llu x %u are needed",
                         o->truth, (unsigned long long)info.rows, info.dim, (unsigned long long)all, data->k);
        goto done_after_open;
    }
    rows = malloc(all * info.dim * sizeof *rows);
    data->truth = malloc((size_t)data->nqueries * data->k * sizeof *data->truth);
    if (!rows || !data->truth) {
        status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for %s", o->truth);
        goto done_after_open;
    }
    for (uint64_t got; done < all; done += got) {
        status = pd_reader_read_i64(reader, all - done, rows + done * info.dim, &got, err);
        if (!status && !got)
            status = pd_fail(err, PD_DATA_LOSS, "%s ends at row %llu", o->truth, (unsigned long long)done);
        if (status) goto done_after_open;
    }
    for (uint32_t i = 0; i < data->nqueries; i++)
        memcpy(data->truth + (size_t)i * data->k, rows + (skip + i) * info.dim, data->k * sizeof *rows);
done_after_open:
    free(rows);
    pd_reader_close(reader);
    return status;
}

void bench_data_close(bench_data *data)
{
    free(data->base);
    free(data->ids);
    free(data->queries);
    free(data->calibration);
    free(data->truth);
    *data = (bench_data){0};
}

double bench_recall(const bench_data *data, const int64_t *truth, const int64_t *got, uint32_t k)
{
    uint64_t right = 0, wanted = 0;
    for (uint32_t q = 0; q < data->nqueries; q++)
        for (uint32_t i = 0; i < k; i++) {
            int64_t id = truth[(size_t)q * k + i];
            if (id < 0) continue;
            wanted++;
            for (uint32_t j = 0; j < k; j++)
                if (got[(size_t)q * k + j] == id) {
                    right++;
                    break;
                }
        }
    return wanted ? (double)right / (double)wanted : 1;
}
