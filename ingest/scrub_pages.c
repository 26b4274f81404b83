/* The pass over the pages: read, the rows that go emptied, the sums of what changed made anew, written.
 *
 * Every byte is read in any case, since the manifest holds a sum over each whole file; so pages are checked on the way, and a damaged
 * version is refused rather than copied.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "scrub_impl.h"

#define PIECE_BYTES (8u << 20)

static const char *const names[PD_PAGE_FILES][2] = {
    {"pages.bin", "pages.sum"}, {"refine.bin", "refine.sum"}, {"source.bin", "source.sum"}};

typedef struct pass {
    pd_scrubbing *s;
    pd_out out[PD_PAGE_FILES];
    unsigned char *bytes[PD_PAGE_FILES]; /* [room] pages of each file; NULL: the version has no such file */
    float *row;                          /* [dim] */
    uint32_t room;
    uint32_t next; /* of the slots that go: those before are done */
} pass;

static void clear_units(unsigned char *first, size_t unit, size_t stride, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        memset(first + i * stride, 0, unit);
}

/* The slot as pd_page_clear() leaves it. */
static void empty_row(const pd_shape *shape, const pd_layout *layout, uint32_t r, unsigned char *page)
{
    uint32_t groups = shape->code == PD_CODE_I8     ? layout->dim4 / 4
                      : shape->code == PD_CODE_NONE ? 0
                                                    : shape->dim;
    size_t unit = shape->code == PD_CODE_F16 ? 2 : 4; /* i8: four dimensions side by side */
    clear_units(page + layout->codes + r * unit, unit, unit * PD_PAGE_ROWS, groups);
    clear_units(page + layout->bytes + r, 1, PD_PAGE_ROWS, shape->nbytes);
    clear_units(page + layout->keys + r * 8, 8, 8 * PD_PAGE_ROWS, shape->nkeys);
    pd_page_scale(layout, page)[r] = 0;
    pd_page_ids(layout, page)[r] = 0;
    pd_page_term(layout, page)[r] = -INFINITY;
    for (uint32_t c = 0; c < shape->nfloats; c++)
        pd_page_floats(layout, page, c)[r] = NAN;
}

/* Rows around a centroid that moved. Refine rows do not know of centroids. */
static void encode_again(pass *p, uint32_t list, void *page, const void *source)
{
    const pd_version *v = p->s->v;
    const float *centroid = v->info.lists.centroids + (size_t)list * v->info.shape.dim;
    for (uint32_t r = 0; r < PD_PAGE_ROWS; r++) {
        if (isinf(pd_page_term(&v->info.layout, page)[r])) continue;
        pd_source_row(v, source, r, p->row);
        pd_page_encode(&v->info.shape, &v->info.layout, p->s->projection, centroid, p->row, r, 1, page, NULL);
    }
}

static void scrub_page(pass *p, uint32_t number, uint32_t at)
{
    pd_scrubbing *s = p->s;
    const pd_version *v = s->v;
    unsigned char *page[PD_PAGE_FILES];
    for (int i = 0; i < PD_PAGE_FILES; i++)
        page[i] = p->bytes[i] ? p->bytes[i] + at * v->files[i].page_bytes : NULL;
    int changed = 0;
    for (; p->next < s->n && s->slots[p->next] / PD_PAGE_ROWS == number; p->next++, changed = 1) {
        uint32_t r = s->slots[p->next] % PD_PAGE_ROWS;
        empty_row(&v->info.shape, &v->info.layout, r, page[PD_FILE_PAGES]);
        for (int i = PD_FILE_REFINE; i <= PD_FILE_SOURCE; i++) {
            size_t row = (size_t)v->files[i].page_bytes / PD_PAGE_ROWS;
            if (page[i]) memset(page[i] + r * row, 0, row);
        }
    }
    if (s->moved && s->moved[v->page_list[number]]) {
        encode_again(p, v->page_list[number], page[PD_FILE_PAGES], page[PD_FILE_SOURCE]);
        changed = 1;
    }
    pd_scrub_add(s, number, page[PD_FILE_PAGES], page[PD_FILE_SOURCE], p->row);
    for (int i = 0; changed && i < PD_PAGE_FILES; i++)
        if (page[i]) v->files[i].sums[number] = pd_sum_of(page[i], (size_t)v->files[i].page_bytes);
}

static pd_status scrub_piece(pass *p, uint32_t first, uint32_t count, pd_error *err)
{
    const pd_version *v = p->s->v;
    pd_status status =
        pd_version_read(v, first, count, p->bytes[PD_FILE_PAGES], p->bytes[PD_FILE_SOURCE], err);
    if (!status && p->bytes[PD_FILE_REFINE])
        status = pd_page_file_read(&v->files[PD_FILE_REFINE], first, count, p->bytes[PD_FILE_REFINE], err);
    for (uint32_t i = 0; !status && i < count; i++)
        scrub_page(p, first + i, i);
    for (int i = 0; !status && i < PD_PAGE_FILES; i++)
        if (p->bytes[i])
            status = pd_out_write(&p->out[i], p->bytes[i], count * (size_t)v->files[i].page_bytes, err);
    return status;
}

static pd_status open_pass(pass *p, pd_error *err)
{
    const pd_version *v = p->s->v;
    uint64_t each = 0;
    for (int i = 0; i < PD_PAGE_FILES; i++)
        each += v->files[i].page_bytes;
    p->room = (uint32_t)(PIECE_BYTES / each) + 1;
    p->row = malloc(v->info.shape.dim * sizeof *p->row);
    if (!p->row) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for a row");
    for (int i = 0; i < PD_PAGE_FILES; i++) {
        if (!v->files[i].page_bytes) continue;
        p->bytes[i] = aligned_alloc(64, (p->room * (size_t)v->files[i].page_bytes + 63) / 64 * 64);
        if (!p->bytes[i])
            return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for a piece of %u pages", p->room);
        pd_status status = pd_out_open(&p->out[i], p->s->fresh, names[i][0], err);
        if (status) return status;
    }
    return PD_OK;
}

static pd_status write_sums(pass *p, int file, pd_error *err)
{
    pd_status status = pd_scrub_finish(p->s, &p->out[file], names[file][0], err);
    if (!status) status = pd_out_open(&p->out[file], p->s->fresh, names[file][1], err);
    if (!status)
        status = pd_out_write(&p->out[file], p->s->v->files[file].sums,
                              p->s->v->info.npages * sizeof(uint64_t), err);
    return status ? status : pd_scrub_finish(p->s, &p->out[file], names[file][1], err);
}

pd_status pd_scrub_pages(pd_scrubbing *s, pd_error *err)
{
    pass p = {.s = s};
    uint32_t npages = s->v->info.npages;
    pd_status status = open_pass(&p, err);
    for (uint32_t first = 0; !status && first < npages; first += p.room)
        status = scrub_piece(&p, first, npages - first < p.room ? npages - first : p.room, err);
    for (int i = 0; i < PD_PAGE_FILES; i++) {
        if (!status && p.bytes[i]) status = write_sums(&p, i, err);
        pd_out_abandon(&p.out[i]);
        free(p.bytes[i]);
    }
    free(p.row);
    return status;
}
