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

#include "consent.h"

#define PIECE_BYTES (4u << 20)
#define ROUNDS      8u /* rows of a stretch that are tried before it gives none */

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

/* The row picked from stretch i of count (count <= rows); round: the one after it, and so on, once around the stretch. */
static uint64_t pick(uint64_t rows, uint32_t count, uint32_t i, uint32_t round)
{
    uint64_t begin = (uint64_t)((unsigned __int128)rows * i / count);
    uint64_t end = (uint64_t)((unsigned __int128)rows * (i + 1) / count);
    return begin + (mix(i) % (end - begin) + round) % (end - begin);
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
static void pick_slots(const pd_version_info *info, uint32_t count, uint32_t round, uint32_t *slots)
{
    uint64_t before = 0; /* rows of the lists before this one */
    uint32_t list = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t row = pick(info->rows, count, i, round);
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

/* Takes the slots of open stretches (PD_NO_SLOT) whose rows of this round do not refuse. tries: [2 * count] of scratch. */
static pd_status fill_open(const pd_version *version, const pd_consent *consent, uint32_t count,
                           uint32_t round, uint32_t *slots, uint32_t *tries, uint8_t *bytes, pd_error *err)
{
    const pd_version_info *info = pd_version_info_of(version);
    uint32_t *stretch = tries + count, n = 0;
    pick_slots(info, count, round, tries);
    for (uint32_t i = 0; i < count; i++) {
        if (slots[i] != PD_NO_SLOT) continue;
        tries[n] = tries[i];
        stretch[n++] = i;
    }
    pd_rows want = {.bytes = bytes};
    pd_status status = n ? pd_version_settle(version, tries, n, err) : PD_OK;
    if (!status) status = pd_version_rows(version, tries, n, &want, err);
    for (uint32_t i = 0; !status && i < n; i++)
        if (!pd_consent_refused(consent, bytes + (size_t)i * info->shape.nbytes))
            slots[stretch[i]] = tries[i];
    return status;
}

/* Slots of rows that may be asked with, *count of them at most; a stretch where many refuse may give none. */
static pd_status pick_willing(const pd_version *version, uint32_t *count, uint32_t *slots, pd_error *err)
{
    const pd_version_info *info = pd_version_info_of(version);
    pd_consent consent = pd_consent_of(info->schema);
    if (!consent.no) {
        pick_slots(info, *count, 0, slots);
        return *count ? pd_version_settle(version, slots, *count, err) : PD_OK;
    }
    uint32_t *tries = malloc(2 * ((size_t)*count + 1) * sizeof *tries), kept = 0;
    uint8_t *bytes = malloc((size_t)*count * info->shape.nbytes + 1);
    pd_status status = tries && bytes ? PD_OK : pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for a sample");
    for (uint32_t i = 0; i < *count; i++)
        slots[i] = PD_NO_SLOT;
    for (uint32_t round = 0; !status && round < ROUNDS; round++)
        status = fill_open(version, &consent, *count, round, slots, tries, bytes, err);
    for (uint32_t i = 0; i < *count; i++)
        if (slots[i] != PD_NO_SLOT) slots[kept++] = slots[i];
    *count = kept;
    free(tries);
    free(bytes);
    return status;
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
    status = pick_willing(version, &count, out->slots, err);
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

/* ------------------------------------------------------------------------------------- as the table is now --- */

typedef struct looking {
    const pd_served *served;
    const uint64_t *ids;
    uint32_t n, *slots; /* slots: where they are now; PD_NO_SLOT: gone, or it refuses */
    uint8_t *bytes;
} looking;

/* On the executor, so that no row moves between the looking up and the gathering. */
static pd_status look(void *argument, pd_error *err)
{
    looking *l = argument;
    const pd_version_info *info = l->served->info;
    pd_consent consent = pd_consent_of(info->schema);
    uint32_t there = 0, at = 0;
    for (uint32_t i = 0; i < l->n; i++) {
        uint32_t slot = pd_resident_slot(l->served->resident, l->ids[i]);
        if (slot != PD_NO_SLOT) l->slots[l->n + there++] = slot;
        l->slots[i] = slot;
    }
    if (!consent.no || !there) return PD_OK;
    pd_rows want = {.bytes = l->bytes};
    pd_status status =
        pd_index_gather(pd_resident_index(l->served->resident), l->slots + l->n, there, &want, err);
    for (uint32_t i = 0; !status && i < l->n; i++) {
        if (l->slots[i] == PD_NO_SLOT) continue;
        if (pd_consent_refused(&consent, l->bytes + (size_t)at++ * info->shape.nbytes))
            l->slots[i] = PD_NO_SLOT;
    }
    return status;
}

static pd_status keep_present(pd_executor *executor, const pd_served *served, pd_sample *sample,
                              pd_error *err)
{
    uint32_t n = sample->count, dim = served->info->shape.dim;
    uint64_t *ids = malloc(((size_t)n + 1) * sizeof *ids);
    looking l = {.served = served, .ids = ids, .n = n};
    l.slots = malloc((2 * (size_t)n + 1) * sizeof *l.slots);
    l.bytes = malloc((size_t)n * served->info->shape.nbytes + 1);
    pd_status status =
        ids && l.slots && l.bytes ? PD_OK : pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for a sample");
    pd_rows want = {.ids = ids};
    if (!status) status = pd_version_rows(served->version, sample->slots, n, &want, err);
    if (!status && n) status = pd_executor_call(executor, look, &l, err);
    sample->count = 0;
    for (uint32_t i = 0; !status && i < n; i++) {
        if (l.slots[i] == PD_NO_SLOT) continue;
        memmove(sample->vectors + (size_t)sample->count * dim, sample->vectors + (size_t)i * dim,
                dim * sizeof *sample->vectors);
        sample->slots[sample->count++] = sample->slots[i];
    }
    free(ids);
    free(l.slots);
    free(l.bytes);
    return status;
}

pd_status pd_sample_served(pd_executor *executor, const pd_served *served, uint32_t count, pd_metric metric,
                           pd_sample *out, pd_error *err)
{
    pd_status status = pd_sample_version(served->version, count, metric, served->table, out, err);
    if (status) return status;
    status = keep_present(executor, served, out, err);
    if (status) pd_sample_free(out);
    return status;
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
    uint64_t wanted = count ? pick(rows, count, 0, 0) : UINT64_MAX;
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
            wanted = out->count < count ? pick(rows, count, out->count, 0) : UINT64_MAX;
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
