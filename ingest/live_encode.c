/* Rows on their way into a table: whether they can be kept, the list of each, and their codes.
 *
 * Needs the version only, so that many batches can be encoded at once, before the one writer sees them. The limits are those of a
 * build, since the next version is built of these rows.
 */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "build.h"
#include "live_impl.h"
#include "project.h"

/* ------------------------------------------------------------------------------------------------ checks --- */

static pd_status check_column(const pd_version_info *info, const pd_change *change,
                              const pd_change_column *column, pd_error *err)
{
    const pd_attribute *a = &info->schema->attributes[column->attribute];
    const void *want = a->type == PD_CATEGORY ? (const void *)column->values
                       : a->type == PD_NUMBER ? (const void *)column->numbers
                                              : (const void *)column->words;
    if (change->kind == PD_CHANGE_COUNT) {
        if (a->type != PD_NUMBER || !a->counts)
            return pd_fail(err, PD_INVALID_ARGUMENT, "\"%s\" is no counter", a->name);
        want = column->counters;
    }
    if (!want) return pd_fail(err, PD_INVALID_ARGUMENT, "the values of \"%s\" are of another type", a->name);
    const uint16_t *sizes = info->shape.sizes + a->byte_column;
    for (uint32_t i = 0; a->type == PD_CATEGORY && i < change->n; i++)
        if (column->values[i] >= sizes[0])
            return pd_fail(err, PD_INVALID_ARGUMENT, "row %llu: \"%s\" has no value %u",
                           (unsigned long long)change->ids[i], a->name, column->values[i]);
    for (uint32_t i = 0; a->type == PD_SET && i < change->n; i++)
        for (uint32_t j = 0; j < 8; j++)
            if ((column->words[i] >> (8 * j) & 255) >= (sizes[j] ? sizes[j] : 1))
                return pd_fail(err, PD_INVALID_ARGUMENT, "row %llu: \"%s\" has %u members, not those of %llx",
                               (unsigned long long)change->ids[i], a->name, a->nvalues,
                               (unsigned long long)column->words[i]);
    return PD_OK;
}

pd_status pd_change_check(const pd_version_info *info, const pd_change *change, pd_error *err)
{
    if (change->n > PD_CHANGE_ROWS)
        return pd_fail(err, PD_INVALID_ARGUMENT, "a change of %u rows, %u are the most", change->n,
                       PD_CHANGE_ROWS);
    if (change->kind == PD_CHANGE_UPSERT && change->n && !change->vectors)
        return pd_fail(err, PD_INVALID_ARGUMENT, "rows without vectors");
    if (change->kind == PD_CHANGE_COUNT && change->ncolumns != 1)
        return pd_fail(err, PD_INVALID_ARGUMENT, "%u counters are counted at once, not one",
                       change->ncolumns);
    uint32_t seen = 0;
    pd_status status = PD_OK;
    for (uint32_t c = 0; !status && c < change->ncolumns; c++) {
        uint32_t attribute = change->columns[c].attribute;
        if (attribute >= info->schema->nattributes || seen >> attribute & 1)
            return pd_fail(err, PD_INVALID_ARGUMENT, "attribute %u is not there or there twice", attribute);
        seen |= 1u << attribute;
        status = check_column(info, change, &change->columns[c], err);
    }
    return status;
}

const pd_change_column *pd_change_column_of(const pd_change *change, uint32_t attribute)
{
    for (uint32_t c = 0; c < change->ncolumns; c++)
        if (change->columns[c].attribute == attribute) return &change->columns[c];
    return NULL;
}

pd_cell pd_change_cell(const pd_attribute *attribute, const pd_change_column *column, uint32_t row)
{
    pd_cell cell = {.number = NAN};
    if (!column) return cell;
    if (attribute->type == PD_CATEGORY) cell.word = column->values[row];
    if (attribute->type == PD_NUMBER) {
        cell.number = column->numbers[row];
        cell.word = pd_attribute_bucket(attribute, cell.number);
    }
    if (attribute->type == PD_SET || attribute->type == PD_KEY) cell.word = column->words[row];
    return cell;
}

static pd_status check_row(const pd_version_info *info, const pd_change *change, uint32_t row, float most,
                           pd_error *err)
{
    const float *values = change->vectors + (size_t)row * info->shape.dim;
    unsigned long long id = change->ids[row];
    double norm = 0;
    for (uint32_t d = 0; d < info->shape.dim; d++) {
        if (!(fabsf(values[d]) <= most))
            return pd_fail(err, PD_INVALID_ARGUMENT, "row %u (id %llu), column %u is %g, %s", row, id, d,
                           (double)values[d],
                           isfinite(values[d]) ? "too large for the precision that the table keeps"
                                               : "not a number");
        norm += (double)values[d] * (double)values[d];
    }
    if (norm > (double)FLT_MAX)
        return pd_fail(err, PD_INVALID_ARGUMENT, "row %u (id %llu) is too long: its norm is %g", row, id,
                       sqrt(norm));
    if (info->shape.refine != PD_REFINE_I8 && info->shape.refine != PD_REFINE_U8) return PD_OK;
    float low = info->shape.refine == PD_REFINE_I8 ? -128.0f : 0.0f, high = low + 255.0f;
    for (uint32_t d = 0; d < info->shape.dim; d++)
        if (values[d] != rintf(values[d]) || values[d] < low || values[d] > high)
            return pd_fail(err, PD_INVALID_ARGUMENT,
                           "row %u (id %llu), column %u is %g, no whole number from %g to %g as refine = "
                           "\"%s\" keeps",
                           row, id, d, (double)values[d], (double)low, (double)high,
                           pd_refine_name(info->shape.refine));
    return PD_OK;
}

/* ------------------------------------------------------------------------------------------------ encoding --- */

static void put_columns(const pd_version_info *info, const pd_change *change, void *pages)
{
    const pd_layout *layout = &info->layout;
    for (uint32_t i = 0; i < info->schema->nattributes; i++) {
        const pd_attribute *a = &info->schema->attributes[i];
        const pd_change_column *column = pd_change_column_of(change, i);
        /* Cleared pages say unknown; counters come when the row is staged. */
        if (!column || (a->type == PD_NUMBER && a->counts)) continue;
        for (uint32_t row = 0; row < change->n; row++) {
            void *page = (unsigned char *)pages + row / PD_PAGE_ROWS * layout->page_bytes;
            uint32_t at = row % PD_PAGE_ROWS;
            pd_cell cell = pd_change_cell(a, column, row);
            if (a->type == PD_KEY) pd_page_keys(layout, page, a->key_column)[at] = cell.word;
            if (a->type == PD_NUMBER) pd_page_floats(layout, page, a->float_column)[at] = cell.number;
            if (a->type == PD_NUMBER || a->type == PD_CATEGORY)
                pd_page_bytes(layout, page, a->byte_column)[at] = (uint8_t)cell.word;
            for (uint32_t j = 0; a->type == PD_SET && j < 8; j++)
                pd_page_bytes(layout, page, a->byte_column + j)[at] = (uint8_t)(cell.word >> (8 * j));
        }
    }
}

static void put_rows(const pd_version *v, const pd_projection *projection, const pd_change *change,
                     pd_encoded *e)
{
    const pd_version_info *info = &v->info;
    const pd_layout *layout = &info->layout;
    uint32_t dim = info->shape.dim;
    for (uint32_t page = 0; page < pd_pages_for(change->n); page++)
        pd_page_clear(&info->shape, layout, (unsigned char *)e->pages + page * layout->page_bytes);
    for (uint32_t row = 0; row < change->n; row++) {
        uint32_t page = row / PD_PAGE_ROWS, at = row % PD_PAGE_ROWS;
        void *main = (unsigned char *)e->pages + page * layout->page_bytes;
        void *refine = e->refine ? (unsigned char *)e->refine + page * layout->refine_bytes : NULL;
        const float *centroid =
            info->shape.nlist ? info->lists.centroids + (size_t)e->lists[row] * dim : NULL;
        pd_page_encode(&info->shape, layout, projection, centroid, change->vectors + (size_t)row * dim, at, 1,
                       main, refine);
        pd_page_ids(layout, main)[at] = change->ids[row];
    }
    put_columns(info, change, e->pages);
}

static pd_status take_memory(const pd_layout *layout, uint32_t n, pd_encoded **out, pd_error *err)
{
    uint32_t npages = pd_pages_for(n);
    pd_encoded *e = calloc(1, sizeof *e);
    if (e) {
        e->n = n;
        e->lists = calloc((size_t)n + 1, sizeof *e->lists);
        /* Pages are multiples of 64 bytes, refine pages of 64 too: 32 rows of at least 2. */
        e->pages = aligned_alloc(64, npages * layout->page_bytes + 64);
        if (layout->refine_bytes) e->refine = aligned_alloc(64, npages * layout->refine_bytes + 64);
    }
    if (e && e->refine) memset(e->refine, 0, npages * layout->refine_bytes);
    *out = e;
    if (e && e->lists && e->pages && (e->refine || !layout->refine_bytes)) return PD_OK;
    return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for %u rows", n);
}

pd_status pd_change_encode(const pd_version *version, pd_device *device, const pd_change *change,
                           pd_encoded **out, pd_error *err)
{
    const pd_version_info *info = &version->info;
    pd_encoded *e = NULL;
    const pd_projection *projection = NULL;
    *out = NULL;
    if (change->kind != PD_CHANGE_UPSERT)
        return pd_fail(err, PD_INVALID_ARGUMENT, "rows are encoded, not other changes");
    pd_status status = pd_change_check(info, change, err);
    float most = pd_build_largest(info->schema, info->shape.refine);
    for (uint32_t row = 0; !status && row < change->n; row++)
        status = check_row(info, change, row, most, err);
    if (!status) status = take_memory(&info->layout, change->n, &e, err);
    if (!status && info->layout.code_dim < info->shape.dim && info->shape.code == PD_CODE_I8)
        status = pd_version_projection(version, &projection, err);
    if (!status && info->shape.nlist && change->n)
        status = pd_device_assign(device, info->lists.centroids, info->shape.nlist, info->shape.dim,
                                  change->vectors, change->n, e->lists, err);
    if (status) {
        pd_encoded_free(e);
        return status;
    }
    put_rows(version, projection, change, e);
    *out = e;
    return PD_OK;
}

void pd_encoded_free(pd_encoded *e)
{
    if (!e) return;
    free(e->lists);
    free(e->pages);
    free(e->refine);
    free(e);
}
