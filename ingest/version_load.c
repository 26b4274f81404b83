/* Reading a version's pages: into an index's windows, and single source rows.
 *
 * A page's sum says that it is what was written. It does not say that what was written is sane (a hostile folder brings
 * sums that fit), so numbers that the kernels index by are looked at too: a byte column's values against its size.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "f16.h"
#include "version_impl.h"

pd_status pd_page_file_read(const pd_page_file *file, uint32_t first, uint32_t count, void *memory,
                            pd_error *err)
{
    size_t each = (size_t)file->page_bytes;
    pd_status status =
        pd_file_read_at(file->fd, file->path, (uint64_t)first * each, each * count, memory, err);
    for (uint32_t i = 0; !status && i < count; i++)
        if (pd_sum_of((unsigned char *)memory + i * each, each) != file->sums[first + i])
            status =
                pd_fail(err, PD_DATA_LOSS, "%s: page %u does not match its checksum", file->path, first + i);
    return status;
}

pd_status pd_page_check(const pd_version *v, uint32_t number, void *page, pd_error *err)
{
    const pd_shape *shape = &v->info.shape;
    const pd_layout *layout = &v->info.layout;
    for (uint32_t c = 0; c < shape->nbytes; c++) {
        const uint8_t *values = pd_page_bytes(layout, page, c);
        uint8_t most = 0;
        for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
            most = values[r] > most ? values[r] : most;
        if (most >= v->limits[c])
            return pd_fail(err, PD_DATA_LOSS,
                           "%s: page %u holds value %u in byte column %u, which has %u values",
                           v->files[PD_FILE_PAGES].path, number, most, c, v->limits[c]);
    }
    const float *scale = pd_page_scale(layout, page), *term = pd_page_term(layout, page);
    for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
        if (!isfinite(scale[r]) || isnan(term[r]) || term[r] == INFINITY)
            return pd_fail(err, PD_DATA_LOSS, "%s: page %u, row %u has a scale or term that is not a number",
                           v->files[PD_FILE_PAGES].path, number, r);
    return PD_OK;
}

static pd_status load_pages(const pd_version *v, pd_index *index, pd_page_kind kind, pd_page_visit each_page,
                            void *context, pd_error *err)
{
    const pd_page_file *file = &v->files[kind == PD_PAGES_MAIN ? PD_FILE_PAGES : PD_FILE_REFINE];
    uint32_t npages = v->info.npages;
    for (uint32_t first = 0; first < npages;) {
        void *memory = NULL;
        uint32_t got = 0;
        pd_status status = pd_index_window(index, kind, first, npages - first, &memory, &got, err);
        if (status) return status;
        /* In steps, so that a page is still in the cache when its sum is taken and it is looked at. */
        uint32_t step = (uint32_t)((1u << 20) / file->page_bytes) + 1;
        for (uint32_t at = 0; !status && at < got; at += step) {
            uint32_t count = got - at < step ? got - at : step;
            unsigned char *bytes = (unsigned char *)memory + (size_t)at * file->page_bytes;
            status = pd_page_file_read(file, first + at, count, bytes, err);
            for (uint32_t i = 0; !status && kind == PD_PAGES_MAIN && i < count; i++) {
                void *page = bytes + (size_t)i * file->page_bytes;
                status = pd_page_check(v, first + at + i, page, err);
                if (!status && each_page) status = each_page(context, first + at + i, page, err);
            }
        }
        if (status) return status;
        status = pd_index_commit(index, err);
        if (status) return status;
        first += got;
    }
    return PD_OK;
}

pd_status pd_version_load(const pd_version *v, pd_index *index, pd_page_visit each_page, void *context,
                          pd_error *err)
{
    pd_status status = load_pages(v, index, PD_PAGES_MAIN, each_page, context, err);
    if (!status && v->files[PD_FILE_REFINE].page_bytes)
        status = load_pages(v, index, PD_PAGES_REFINE, NULL, NULL, err);
    if (!status && v->info.shape.nlist) status = pd_index_set_lists(index, &v->info.lists, err);
    return status;
}

pd_status pd_version_source(const pd_version *v, const uint32_t *slots, uint32_t n, float *rows,
                            pd_error *err)
{
    const pd_page_file *file = &v->files[PD_FILE_SOURCE];
    uint32_t dim = v->info.shape.dim;
    void *page = malloc((size_t)file->page_bytes);
    if (!page) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for a page of source rows");
    pd_status status = PD_OK;
    uint32_t held = UINT32_MAX;
    for (uint32_t i = 0; !status && i < n; i++) {
        uint32_t number = slots[i] / PD_PAGE_ROWS;
        if (number >= v->info.npages) {
            status = pd_fail(err, PD_OUT_OF_RANGE, "slot %u is not in %s", slots[i], file->path);
            break;
        }
        if (number != held) status = pd_page_file_read(file, number, 1, page, err);
        if (status) break;
        held = number;
        size_t at = (size_t)(slots[i] % PD_PAGE_ROWS) * dim;
        float *out = rows + (size_t)i * dim;
        if (v->schema->source == PD_REFINE_F16)
            for (uint32_t d = 0; d < dim; d++)
                out[d] = pd_f16_to_f32(((const pd_f16 *)page)[at + d]);
        else
            memcpy(out, (const float *)page + at, (size_t)dim * sizeof *out);
    }
    free(page);
    return status;
}

pd_status pd_version_columns(const pd_version *v, const uint32_t *slots, uint32_t n, uint64_t *ids,
                             uint8_t *bytes, pd_error *err)
{
    const pd_page_file *file = &v->files[PD_FILE_PAGES];
    const pd_layout *layout = &v->info.layout;
    uint32_t nbytes = v->info.shape.nbytes, held = UINT32_MAX;
    void *page = aligned_alloc(64, (size_t)file->page_bytes);
    if (!page) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for a page");
    pd_status status = PD_OK;
    for (uint32_t i = 0; !status && i < n; i++) {
        uint32_t number = slots[i] / PD_PAGE_ROWS, row = slots[i] % PD_PAGE_ROWS;
        if (number >= v->info.npages) {
            status = pd_fail(err, PD_OUT_OF_RANGE, "slot %u is not in %s", slots[i], file->path);
            break;
        }
        if (number != held) status = pd_page_file_read(file, number, 1, page, err);
        if (status) break;
        held = number;
        if (ids) ids[i] = pd_page_ids(layout, page)[row];
        for (uint32_t c = 0; bytes && c < nbytes; c++)
            bytes[(size_t)i * nbytes + c] = pd_page_bytes(layout, page, c)[row];
    }
    free(page);
    return status;
}
