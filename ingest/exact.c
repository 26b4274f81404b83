/* Exact search from the disk: source rows stream past the device's exact slots, in bounded pieces.
 *
 * The main pages stream beside them, since ids, columns and whether a slot holds a row at all are there.
 */
#include <stdlib.h>
#include <string.h>

#include "version_impl.h"

#define PIECE_BYTES (16u << 20)

typedef struct piece {
    uint32_t room; /* pages */
    void *pages, *rows;
} piece;

static pd_status piece_open(const pd_version *v, piece *p, pd_error *err)
{
    uint64_t each = v->files[PD_FILE_PAGES].page_bytes + v->files[PD_FILE_SOURCE].page_bytes;
    p->room = (uint32_t)(PIECE_BYTES / each) + 1;
    p->pages = aligned_alloc(64, p->room * (size_t)v->files[PD_FILE_PAGES].page_bytes);
    /* A multiple of 64 in any case: 32 rows of at least 2 bytes. */
    p->rows = aligned_alloc(64, p->room * (size_t)v->files[PD_FILE_SOURCE].page_bytes);
    if (p->pages && p->rows) return PD_OK;
    return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for a piece of %u pages", p->room);
}

static pd_status stream(const pd_version *v, pd_device *device, pd_exact *exact, const piece *p,
                        pd_progress progress, void *context, pd_error *err)
{
    pd_status status = PD_OK;
    for (uint32_t first = 0; !status && first < v->info.npages; first += p->room) {
        uint32_t left = v->info.npages - first;
        pd_block block = {.npages = left < p->room ? left : p->room,
                          .pages = p->pages,
                          .rows = p->rows,
                          .dtype = v->schema->source,
                          .first_page = first};
        status = pd_version_read(v, first, block.npages, p->pages, p->rows, err);
        if (!status) status = pd_exact_block(device, exact, &block, err);
        if (!status && progress && progress(context, "exact", first + block.npages, v->info.npages))
            status = pd_fail(err, PD_CANCELLED, "the exact search was stopped");
    }
    return status;
}

pd_status pd_version_exact(const pd_version *v, pd_device *device, const pd_query *queries, uint32_t count,
                           pd_answer *answers, pd_progress progress, void *context, pd_error *err)
{
    piece p = {0};
    pd_status status = piece_open(v, &p, err);
    if (status) goto out;
    pd_exact *exact = NULL;
    status = pd_exact_begin(device, &v->info.shape, queries, count, &exact, err);
    if (status) goto out;
    status = stream(v, device, exact, &p, progress, context, err);
    if (status)
        pd_exact_end(device, exact, NULL, NULL);
    else
        status = pd_exact_end(device, exact, answers, err);
out:
    free(p.pages);
    free(p.rows);
    return status;
}
