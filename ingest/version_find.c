/* Rows of a version by id and by slot, from the disk: for who exports them, erases them, or draws from them.
 *
 * A version has no id map on the disk; a resident makes one while it loads. Here all pages are read, once for any number of ids.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "version_impl.h"

#define PIECE_BYTES (4u << 20)

typedef struct wanted {
    uint64_t id;
    uint32_t at; /* in the caller's ids */
} wanted;

static int by_id(const void *left, const void *right)
{
    const wanted *l = left, *r = right;
    if (l->id != r->id) return l->id < r->id ? -1 : 1;
    return (l->at > r->at) - (l->at < r->at);
}

/* The first of sorted that is not below id. */
static uint32_t first_of(const wanted *sorted, uint32_t n, uint64_t id)
{
    uint32_t low = 0, high = n;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (sorted[middle].id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void look(const pd_version *v, uint32_t number, void *page, const wanted *sorted, uint32_t n,
                 uint32_t *slots)
{
    const float *term = pd_page_term(&v->info.layout, page);
    const uint64_t *ids = pd_page_ids(&v->info.layout, page);
    for (uint32_t r = 0; r < PD_PAGE_ROWS; r++) {
        if (isinf(term[r]) || ids[r] < sorted[0].id || ids[r] > sorted[n - 1].id) continue;
        for (uint32_t i = first_of(sorted, n, ids[r]); i < n && sorted[i].id == ids[r]; i++)
            slots[sorted[i].at] = number * PD_PAGE_ROWS + r;
    }
}

static pd_status look_through(const pd_version *v, const wanted *sorted, uint32_t n, uint32_t *slots,
                              pd_error *err)
{
    size_t each = v->info.layout.page_bytes;
    uint32_t room = (uint32_t)(PIECE_BYTES / each) + 1;
    unsigned char *pages = aligned_alloc(64, room * each);
    if (!pages) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for a piece of %u pages", room);
    pd_status status = PD_OK;
    for (uint32_t first = 0; !status && first < v->info.npages; first += room) {
        uint32_t left = v->info.npages - first, count = left < room ? left : room;
        status = pd_version_read(v, first, count, pages, NULL, err);
        for (uint32_t i = 0; !status && i < count; i++)
            look(v, first + i, pages + i * each, sorted, n, slots);
    }
    free(pages);
    return status;
}

pd_status pd_version_find(const pd_version *v, const uint64_t *ids, uint32_t n, uint32_t *slots,
                          pd_error *err)
{
    if (!n) return PD_OK;
    wanted *sorted = malloc(n * sizeof *sorted);
    if (!sorted) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for %u ids", n);
    for (uint32_t i = 0; i < n; i++) {
        sorted[i] = (wanted){ids[i], i};
        slots[i] = PD_NO_SLOT;
    }
    qsort(sorted, n, sizeof *sorted, by_id);
    pd_status status = look_through(v, sorted, n, slots, err);
    free(sorted);
    return status;
}

/* ------------------------------------------------------------------------------------------------ by slot --- */

/* One page and its source rows at a time. */
typedef struct page_pair {
    void *page, *rows;
    uint32_t held; /* UINT32_MAX: none */
} page_pair;

static pd_status pair_open(const pd_version *v, int sources, page_pair *pair, pd_error *err)
{
    pair->held = UINT32_MAX;
    pair->page = aligned_alloc(64, v->info.layout.page_bytes);
    pair->rows = sources ? malloc((size_t)v->files[PD_FILE_SOURCE].page_bytes) : NULL;
    if (pair->page && (!sources || pair->rows)) return PD_OK;
    return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for a page");
}

static pd_status pair_hold(const pd_version *v, page_pair *pair, uint32_t number, pd_error *err)
{
    if (pair->held == number) return PD_OK;
    pair->held = UINT32_MAX;
    pd_status status = pd_version_read(v, number, 1, pair->page, pair->rows, err);
    if (!status) pair->held = number;
    return status;
}

static void pair_close(page_pair *pair)
{
    free(pair->page);
    free(pair->rows);
}

static int filled(const pd_version *v, const page_pair *pair, uint32_t place)
{
    return !isinf(pd_page_term(&v->info.layout, pair->page)[place]);
}

static void take_row(const pd_version *v, const page_pair *pair, uint32_t place, uint32_t i,
                     const pd_rows *out)
{
    const pd_shape *shape = &v->info.shape;
    const pd_layout *layout = &v->info.layout;
    if (out->ids) out->ids[i] = pd_page_ids(layout, pair->page)[place];
    for (uint32_t c = 0; out->bytes && c < shape->nbytes; c++)
        out->bytes[(size_t)i * shape->nbytes + c] = pd_page_bytes(layout, pair->page, c)[place];
    for (uint32_t c = 0; out->floats && c < shape->nfloats; c++)
        out->floats[(size_t)i * shape->nfloats + c] = pd_page_floats(layout, pair->page, c)[place];
    for (uint32_t c = 0; out->keys && c < shape->nkeys; c++)
        out->keys[(size_t)i * shape->nkeys + c] = pd_page_keys(layout, pair->page, c)[place];
    if (out->vectors) pd_source_row(v, pair->rows, place, out->vectors + (size_t)i * shape->dim);
}

pd_status pd_version_rows(const pd_version *v, const uint32_t *slots, uint32_t n, const pd_rows *rows,
                          pd_error *err)
{
    page_pair pair = {0};
    pd_status status = pair_open(v, rows->vectors != NULL, &pair, err);
    for (uint32_t i = 0; !status && i < n; i++) {
        uint32_t number = slots[i] / PD_PAGE_ROWS, place = slots[i] % PD_PAGE_ROWS;
        if (number < v->info.npages) status = pair_hold(v, &pair, number, err);
        if (status) break;
        if (number < v->info.npages && filled(v, &pair, place))
            take_row(v, &pair, place, i, rows);
        else
            status = pd_fail(err, PD_OUT_OF_RANGE, "slot %u of %s holds no row", slots[i], v->folder);
    }
    pair_close(&pair);
    return status;
}

pd_status pd_version_settle(const pd_version *v, uint32_t *slots, uint32_t n, pd_error *err)
{
    page_pair pair = {0};
    uint64_t all = (uint64_t)v->info.npages * PD_PAGE_ROWS;
    pd_status status = pair_open(v, 0, &pair, err);
    for (uint32_t i = 0; !status && i < n; i++) {
        uint64_t tried = 0;
        for (;; tried++) {
            uint32_t slot = (uint32_t)((slots[i] + tried) % (all ? all : 1));
            if (tried == all)
                status = pd_fail(err, PD_FAILED_PRECONDITION, "%s has no rows", v->folder);
            else
                status = pair_hold(v, &pair, slot / PD_PAGE_ROWS, err);
            if (!status && !filled(v, &pair, slot % PD_PAGE_ROWS)) continue;
            slots[i] = slot;
            break;
        }
    }
    pair_close(&pair);
    return status;
}
