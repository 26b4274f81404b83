/* Samples of queries, as sample.h says. Rows are picked one from each of count equal stretches, at a place that a counter
 * hashes to: even, and the same each time.
 */
#include "sample.h"

#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PIECE_BYTES (4u << 20)

void pd_sample_free(pd_sample *sample)
{
    free(sample->vectors);
    free(sample->slots);
    memset(sample, 0, sizeof *sample);
}

/* splitmix64. */
static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* The row picked from stretch i of count (count <= rows). */
static uint64_t pick(uint64_t rows, uint32_t count, uint32_t i)
{
    uint64_t begin = (uint64_t)((unsigned __int128)rows * i / count);
    uint64_t end = (uint64_t)((unsigned __int128)rows * (i + 1) / count);
    return begin + mix(i) % (end - begin);
}

static pd_status make_room(pd_sample *sample, uint32_t count, uint32_t dim, int slots, pd_error *err)
{
    sample->vectors = malloc(((size_t)count * dim + 1) * sizeof *sample->vectors);
    sample->slots = slots ? malloc(((size_t)count + 1) * sizeof *sample->slots) : NULL;
    if (sample->vectors && (!slots || sample->slots)) return PD_OK;
    pd_sample_free(sample);
    return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for %u queries", count);
}

/* 0: the row is zero. */
static int normalise(float *row, uint32_t dim)
{
    double square = 0;
    for (uint32_t d = 0; d < dim; d++)
        square += (double)row[d] * row[d];
    if (square == 0) return 0;
    double scale = 1 / sqrt(square);
    for (uint32_t d = 0; d < dim; d++)
        row[d] = (float)(row[d] * scale);
    return 1;
}

/* Slots of the picked rows: lists fill their pages from the front, but for what was scrubbed. */
static void pick_slots(const pd_version_info *info, uint32_t count, uint32_t *slots)
{
    uint64_t before = 0; /* rows of the lists before this one */
    uint32_t list = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t row = pick(info->rows, count, i);
        if (!info->shape.nlist) {
            slots[i] = (uint32_t)row;
            continue;
        }
        while (list + 1 < info->shape.nlist && row >= before + info->lists.rows[list])
            before += info->lists.rows[list++];
        uint32_t in_list = (uint32_t)(row - before);
        uint32_t page = info->lists.pages[info->lists.offsets[list] + in_list / PD_PAGE_ROWS];
        slots[i] = page * PD_PAGE_ROWS + in_list % PD_PAGE_ROWS;
    }
}

pd_status pd_sample_version(const pd_version *version, uint32_t count, pd_metric metric, const char *source,
                            pd_sample *out, pd_error *err)
{
    memset(out, 0, sizeof *out);
    const pd_version_info *info = pd_version_info_of(version);
    uint32_t dim = info->shape.dim;
    if (count > info->rows) count = (uint32_t)info->rows;
    snprintf(out->source, sizeof out->source, "%s", source);
    pd_status status = make_room(out, count, dim, 1, err);
    if (status) return status;
    pick_slots(info, count, out->slots);
    if (count) status = pd_version_settle(version, out->slots, count, err);
    if (!status) status = pd_version_source(version, out->slots, count, out->vectors, err);
    if (status) {
        pd_sample_free(out);
        return status;
    }
    for (uint32_t i = 0; i < count; i++) {
        float *row = out->vectors + (size_t)out->count * dim;
        memmove(row, out->vectors + (size_t)i * dim, dim * sizeof *row);
        out->slots[out->count] = out->slots[i];
        if (metric != PD_COSINE || normalise(row, dim)) out->count++;
    }
    return PD_OK;
}

/* Looks at one row of an upload's queries. */
static pd_status check_query(const float *row, uint64_t number, uint32_t dim, pd_metric metric, pd_error *err)
{
    int zero = 1;
    for (uint32_t d = 0; d < dim; d++) {
        if (!isfinite(row[d]))
            return pd_fail(err, PD_INVALID_ARGUMENT,
                           "query row %" PRIu64 ", column %u is not a finite number", number, d);
        zero &= row[d] == 0.0f;
    }
    if (zero && metric == PD_COSINE)
        return pd_fail(err, PD_INVALID_ARGUMENT,
                       "query row %" PRIu64 " is a zero vector, which has no cosine", number);
    return PD_OK;
}

pd_status pd_sample_file(const char *path, uint64_t rows, uint32_t dim, uint32_t count, pd_metric metric,
                         pd_sample *out, pd_error *err)
{
    memset(out, 0, sizeof *out);
    if (count > rows) count = (uint32_t)rows;
    snprintf(out->source, sizeof out->source, "file");
    size_t width = dim * sizeof(float);
    uint64_t room = PIECE_BYTES / width + 1;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return pd_fail_errno(err, "open", path);
    float *piece = malloc(room * width);
    pd_status status = piece ? make_room(out, count, dim, 0, err)
                             : pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to read %s", path);
    uint64_t wanted = count ? pick(rows, count, 0) : UINT64_MAX;
    for (uint64_t first = 0; !status && first < rows; first += room) {
        uint64_t n = rows - first < room ? rows - first : room;
        status = pd_file_read_at(fd, path, first * width, n * width, piece, err);
        for (uint64_t i = 0; !status && i < n; i++) {
            const float *row = piece + i * dim;
            status = check_query(row, first + i, dim, metric, err);
            if (status || first + i != wanted) continue;
            float *into = out->vectors + (size_t)out->count * dim;
            memcpy(into, row, width);
            if (metric == PD_COSINE) normalise(into, dim);
            out->count++;
            wanted = out->count < count ? pick(rows, count, out->count) : UINT64_MAX;
        }
    }
    free(piece);
    close(fd);
    if (status) pd_sample_free(out);
    return status;
}

pd_status pd_sample_source(pd_catalog *catalog, const char *table, const pd_schema *schema, uint32_t dim,
                           pd_served **served, char *why, size_t room, pd_error *err)
{
    *served = NULL;
    why[0] = 0;
    if (!schema->queries[0] || !strcmp(schema->queries, table)) return PD_OK;
    pd_error missing;
    if (pd_catalog_hold(catalog, schema->queries, served, &missing) != PD_OK) {
        snprintf(why, room, "queries of table \"%s\" cannot be had (%.100s): held-out rows are used",
                 schema->queries, missing.message);
        return PD_OK;
    }
    const pd_version_info *info = (*served)->info;
    pd_status status = PD_OK;
    if (info->shape.dim != dim)
        status = pd_fail(
            err, PD_INVALID_ARGUMENT,
            "the schema of \"%s\" takes its queries from \"%s\", whose rows have %u dimensions, not %u",
            table, schema->queries, info->shape.dim, dim);
    else if (schema->space[0] && info->schema->space[0] && strcmp(schema->space, info->schema->space) != 0)
        status = pd_fail(
            err, PD_INVALID_ARGUMENT,
            "the schema of \"%s\" takes its queries from \"%s\", which is of space \"%s\", not \"%s\"", table,
            schema->queries, info->schema->space, schema->space);
    if (status) {
        pd_catalog_release(*served);
        *served = NULL;
    }
    return status;
}
