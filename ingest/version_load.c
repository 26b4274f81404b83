/* Reading a version's pages: into an index's windows, and single source rows.
 *
 * A load is one pass over pages.bin and refine.bin side by side, read and checked ahead by threads of their own (ahead.h); the
 * thread that loads copies them into windows and shows the main ones to whoever keeps ids and postings.
 *
 * A page's sum says that it is what was written. It does not say that what was written is sane (a hostile folder brings
 * sums that fit), so numbers that the kernels index by are looked at too: a byte column's values against its size.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ahead.h"
#include "f16.h"
#include "version_impl.h"

pd_status pd_page_sums_check(const pd_page_file *file, uint32_t first, uint32_t count, const void *memory,
                             pd_error *err)
{
    size_t each = (size_t)file->page_bytes;
    for (uint32_t i = 0; i < count; i++)
        if (pd_sum_of((const unsigned char *)memory + i * each, each) != file->sums[first + i])
            return pd_fail(err, PD_DATA_LOSS, "%s: page %u does not match its checksum", file->path,
                           first + i);
    return PD_OK;
}

pd_status pd_page_file_read_held(const pd_page_file *file, uint32_t first, uint32_t count, void *memory,
                                 pd_error *err)
{
    size_t each = (size_t)file->page_bytes;
    pd_status status =
        pd_file_read_at(file->fd, file->path, (uint64_t)first * each, each * count, memory, err);
    return status ? status : pd_page_sums_check(file, first, count, memory, err);
}

pd_status pd_page_file_read(const pd_page_file *file, uint32_t first, uint32_t count, void *memory,
                            pd_error *err)
{
    pthread_rwlock_rdlock(file->lock);
    pd_status status = pd_page_file_read_held(file, first, count, memory, err);
    pthread_rwlock_unlock(file->lock);
    return status;
}

pd_status pd_version_read(const pd_version *v, uint32_t first, uint32_t count, void *pages, void *rows,
                          pd_error *err)
{
    const pd_page_file *main = &v->files[PD_FILE_PAGES], *source = &v->files[PD_FILE_SOURCE];
    pthread_rwlock_rdlock(main->lock);
    pd_status status = pd_page_file_read_held(main, first, count, pages, err);
    if (!status && rows) status = pd_page_file_read_held(source, first, count, rows, err);
    pthread_rwlock_unlock(main->lock);
    for (uint32_t i = 0; !status && i < count; i++)
        status = pd_page_check(v, first + i, (unsigned char *)pages + i * main->page_bytes, err);
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

/* A piece's pages of one kind, through as many windows as it takes. */
static pd_status take_in(pd_index *index, pd_page_kind kind, const pd_piece *piece,
                         const unsigned char *pages, size_t each, pd_error *err)
{
    for (uint32_t at = 0; at < piece->count;) {
        void *memory = NULL;
        uint32_t got = 0;
        pd_status status =
            pd_index_window(index, kind, piece->first + at, piece->count - at, &memory, &got, err);
        if (status) return status;
        memcpy(memory, pages + at * each, got * each);
        status = pd_index_commit(index, err);
        if (status) return status;
        at += got;
    }
    return PD_OK;
}

static pd_status load_pages(const pd_version *v, pd_index *index, pd_page_visit each_page, void *context,
                            pd_error *err)
{
    size_t each = (size_t)v->files[PD_FILE_PAGES].page_bytes;
    pd_ahead *ahead = NULL;
    pd_piece piece;
    pd_status status = pd_ahead_open(v, 1u << PD_FILE_PAGES | 1u << PD_FILE_REFINE, &ahead, err);
    if (status) return status;
    while (!(status = pd_ahead_next(ahead, &piece, err)) && piece.count) {
        const unsigned char *pages = piece.pages[PD_FILE_PAGES], *refine = piece.pages[PD_FILE_REFINE];
        status = take_in(index, PD_PAGES_MAIN, &piece, pages, each, err);
        if (!status && refine)
            status = take_in(index, PD_PAGES_REFINE, &piece, refine,
                             (size_t)v->files[PD_FILE_REFINE].page_bytes, err);
        for (uint32_t i = 0; !status && each_page && i < piece.count; i++)
            status = each_page(context, piece.first + i, pages + i * each, err);
        if (status) break;
    }
    pd_ahead_close(ahead);
    return status;
}

pd_status pd_version_load(const pd_version *v, pd_index *index, pd_page_visit each_page, void *context,
                          pd_error *err)
{
    pthread_rwlock_t *lock = v->files[PD_FILE_PAGES].lock;
    pthread_rwlock_rdlock(lock);
    pd_status status = PD_OK;
    if (v->scrubbed)
        status = pd_fail(err, PD_FAILED_PRECONDITION, "%s was scrubbed since it was opened: open it again",
                         v->folder);
    if (!status) status = load_pages(v, index, each_page, context, err);
    pthread_rwlock_unlock(lock);
    if (!status && v->info.shape.nlist) status = pd_index_set_lists(index, &v->info.lists, err);
    return status;
}

void pd_source_row(const pd_version *v, const void *page, uint32_t place, float *out)
{
    uint32_t dim = v->info.shape.dim;
    size_t at = (size_t)place * dim;
    if (v->schema->source == PD_REFINE_F16)
        for (uint32_t d = 0; d < dim; d++)
            out[d] = pd_f16_to_f32(((const pd_f16 *)page)[at + d]);
    else
        memcpy(out, (const float *)page + at, (size_t)dim * sizeof *out);
}

pd_status pd_version_verify(const pd_version *v, pd_error *err)
{
    pthread_rwlock_rdlock(v->files[PD_FILE_PAGES].lock);
    pd_ahead *ahead = NULL;
    pd_piece piece = {.count = 1};
    pd_status status = pd_ahead_open(v, ~0u, &ahead, err);
    while (!status && piece.count)
        status = pd_ahead_next(ahead, &piece, err);
    pd_ahead_close(ahead);
    pthread_rwlock_unlock(v->files[PD_FILE_PAGES].lock);
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
        pd_source_row(v, page, slots[i] % PD_PAGE_ROWS, rows + (size_t)i * dim);
    }
    free(page);
    return status;
}
