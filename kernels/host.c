/* Pages, lists and gather of the backends in host memory. A window is the slab itself, so that loading a version is
 * reading its file. */
#include "host.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "filter.h"

/* Only the terms: what else an empty page holds is never looked at, and a page that will be loaded is not written
 * twice. */
static void empty_pages(pd_host_index *index)
{
    for (uint32_t p = 0; p < index->base.npages; p++) {
        float *term = pd_page_term(&index->base.layout, pd_host_page(index, p));
        for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
            term[r] = -INFINITY;
    }
}

pd_status pd_host_index_open(const pd_backend *backend, pd_slab *slab, size_t bytes,
                             const pd_index_spec *spec, pd_index **out, pd_error *err)
{
    pd_layout layout;
    pd_status status = pd_layout_of(&spec->shape, &layout, err);
    if (status != PD_OK) return status;
    const char *name = spec->name ? spec->name : "the index";
    if (spec->shape.nlist == 0 && spec->shape.code == PD_CODE_I8)
        return pd_fail(err, PD_INVALID_ARGUMENT, "%s: i8 codes are residuals and need lists", name);
    uint64_t need = ((uint64_t)pd_run_chunks(layout.page_bytes, spec->npages) +
                     pd_run_chunks(layout.refine_bytes, spec->npages));
    char want[PD_SIZE_TEXT], have[PD_SIZE_TEXT], all[PD_SIZE_TEXT];
    if (need > slab->free)
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "%s needs %s of device memory, %s of %s is free", name,
                       pd_size_text(need * PD_CHUNK_BYTES, want),
                       pd_size_text((uint64_t)slab->free * PD_CHUNK_BYTES, have),
                       pd_size_text((uint64_t)slab->chunks * PD_CHUNK_BYTES, all));
    pd_host_index *index = calloc(1, bytes);
    if (!index) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "%s: no memory to open it", name);
    index->base =
        (pd_index){.backend = backend, .shape = spec->shape, .layout = layout, .npages = spec->npages};
    snprintf(index->name, sizeof index->name, "%s", name);
    status = pd_run_take(slab, &index->main, layout.page_bytes, spec->npages, err);
    if (status != PD_OK) goto err_after_alloc;
    status = pd_run_take(slab, &index->refine, layout.refine_bytes, spec->npages, err);
    if (status != PD_OK) goto err_after_main;
    status = pd_blocks_open(&index->blocks, &spec->shape, spec->npages, err);
    if (status != PD_OK) goto err_after_refine;
    pd_touch_start(&index->touch, &index->main, &index->refine);
    empty_pages(index);
    *out = &index->base;
    return PD_OK;

err_after_refine:
    pd_run_give(&index->refine);
err_after_main:
    pd_run_give(&index->main);
err_after_alloc:
    free(index);
    return status;
}

static void free_lists(pd_host_index *index)
{
    free(index->centroids);
    free(index->offsets);
    free(index->held);
    free(index->room);
    free(index->pages);
    free(index->rows);
    free(index->page_list);
    free(index->histograms);
    free(index->coarse_pages);
    free(index->terms);
    free(index->mean);
    pd_level_close(&index->upper);
    pd_projection_close(index->projection);
}

void pd_host_index_close(pd_index *base)
{
    pd_host_index *index = (pd_host_index *)base;
    pd_touch_end(&index->touch);
    pd_run_give(&index->refine);
    pd_run_give(&index->main);
    free_lists(index);
    pd_blocks_close(&index->blocks);
    free(index);
}

pd_status pd_host_page_window(pd_index *base, pd_page_kind kind, uint32_t first, uint32_t count,
                              void **memory, uint32_t *got, pd_error *err)
{
    pd_host_index *index = (pd_host_index *)base;
    pd_run *run = kind == PD_PAGES_REFINE ? &index->refine : &index->main;
    if (index->window_open)
        return pd_fail(err, PD_FAILED_PRECONDITION, "%s: a window of pages is already open", index->name);
    if (run->page_bytes == 0) return pd_fail(err, PD_INVALID_ARGUMENT, "%s has no refine rows", index->name);
    if (count == 0 || first >= run->npages || count > run->npages - first)
        return pd_fail(err, PD_OUT_OF_RANGE, "%s: pages %u to %u are asked for, it has %u", index->name,
                       first, first + count, run->npages);
    uint32_t left = run->pages_per_chunk - first % run->pages_per_chunk;
    *memory = pd_run_page(run, first);
    *got = count < left ? count : left;
    index->window_open = 1;
    index->window_kind = kind;
    index->window_first = first;
    index->window_count = *got;
    return PD_OK;
}

pd_status pd_host_page_commit(pd_index *base, pd_error *err)
{
    pd_host_index *index = (pd_host_index *)base;
    if (!index->window_open)
        return pd_fail(err, PD_FAILED_PRECONDITION, "%s: no window of pages is open", index->name);
    index->window_open = 0;
    if (index->window_kind != PD_PAGES_MAIN) return PD_OK;
    for (uint32_t p = index->window_first; p < index->window_first + index->window_count; p++) {
        pd_blocks_page(&index->blocks, &base->layout, p, pd_host_page(index, p));
        uint32_t list = index->page_list ? index->page_list[p] : PD_NO_LIST;
        if (list == PD_NO_LIST) continue;
        pd_blocks_add(&index->blocks, list, p);
        pd_level_add(&index->upper, &index->blocks, list, p);
    }
    return PD_OK;
}

static pd_status check_groups(const pd_host_index *index, const pd_lists *lists, pd_error *err)
{
    uint32_t nlist = index->base.shape.nlist, ngroups = lists->ngroups;
    if (ngroups == 0) return PD_OK;
    int whole = lists->group_first && ngroups <= nlist && lists->group_first[0] == 0 &&
                lists->group_first[ngroups] == nlist;
    for (uint32_t g = 0; whole && g < ngroups; g++)
        whole = lists->group_first[g] <= lists->group_first[g + 1];
    if (whole) return PD_OK;
    return pd_fail(err, PD_INVALID_ARGUMENT, "%s: %u groups do not cover its %u lists", index->name, ngroups,
                   nlist);
}

static pd_status check_lists(const pd_host_index *index, const pd_lists *lists, uint32_t *page_list,
                             pd_error *err)
{
    uint32_t nlist = index->base.shape.nlist;
    if (lists->offsets[0] != 0)
        return pd_fail(err, PD_INVALID_ARGUMENT, "%s: the first list begins at %u", index->name,
                       lists->offsets[0]);
    for (uint32_t p = 0; p < index->base.npages; p++)
        page_list[p] = PD_NO_LIST;
    for (uint32_t list = 0; list < nlist; list++) {
        uint32_t end = lists->offsets[list + 1];
        if (end < lists->offsets[list] || end > index->base.npages)
            return pd_fail(err, PD_INVALID_ARGUMENT, "%s: list %u ends at %u of %u pages", index->name, list,
                           end, index->base.npages);
        for (uint32_t i = lists->offsets[list]; i < end; i++) {
            uint32_t page = lists->pages[i];
            if (page >= index->base.npages)
                return pd_fail(err, PD_INVALID_ARGUMENT, "%s: list %u holds page %u of %u", index->name, list,
                               page, index->base.npages);
            if (page_list[page] != PD_NO_LIST)
                return pd_fail(err, PD_INVALID_ARGUMENT, "%s: page %u is in the lists %u and %u", index->name,
                               page, page_list[page], list);
            page_list[page] = list;
        }
    }
    return check_groups(index, lists, err);
}

static void *copy_of(const void *data, size_t bytes)
{
    void *copy = malloc(bytes ? bytes : 1);
    if (copy && bytes) memcpy(copy, data, bytes);
    return copy;
}

static float *padded_centroids(const float *centroids, uint32_t nlist, uint32_t dim)
{
    uint32_t dim16 = pd_dim16(dim);
    float *padded = aligned_alloc(64, (size_t)nlist * dim16 * sizeof *padded);
    if (!padded) return NULL;
    for (uint32_t list = 0; list < nlist; list++) {
        float *to = padded + (size_t)list * dim16;
        memcpy(to, centroids + (size_t)list * dim, dim * sizeof *to);
        memset(to + dim, 0, (dim16 - dim) * sizeof *to);
    }
    return padded;
}

/* Fills offsets, held, room and pages. Returns 0 where there is no memory. */
static int take_pages(const pd_host_index *index, const pd_lists *lists, pd_host_index *fresh)
{
    uint32_t nlist = index->base.shape.nlist;
    fresh->offsets = copy_of(lists->offsets, ((size_t)nlist + 1) * sizeof *lists->offsets);
    fresh->held = malloc(nlist * sizeof *fresh->held);
    fresh->pages = malloc(((size_t)index->base.npages * PD_LIST_ROOM + 1) * sizeof *fresh->pages);
    if (!fresh->offsets || !fresh->held || !fresh->pages) return 0;
    for (uint32_t list = 0; list < nlist; list++)
        fresh->held[list] = lists->offsets[list + 1] - lists->offsets[list];
    if (lists->offsets[nlist])
        memcpy(fresh->pages, lists->pages, lists->offsets[nlist] * sizeof *fresh->pages);
    fresh->room = copy_of(fresh->held, nlist * sizeof *fresh->held);
    return fresh->room != NULL;
}

/* Fills projection, coarse, coarse_pages, terms, mean and upper. */
static pd_status coarse_codes(const pd_host_index *index, const pd_lists *lists, const uint64_t *blocks,
                              pd_host_index *fresh, pd_error *err)
{
    const pd_shape *of = &index->base.shape;
    uint32_t nlist = of->nlist, dim = of->dim;
    pd_shape shape = {.metric = of->metric,
                      .code = PD_CODE_I8,
                      .refine = of->refine,
                      .dim = dim,
                      .code_dim = of->code == PD_CODE_I8 ? of->code_dim : 0,
                      .nlist = 1};
    pd_status status = pd_layout_of(&shape, &fresh->coarse, err);
    if (status == PD_OK && fresh->coarse.code_dim < dim)
        status = pd_projection_open(lists->projection, fresh->coarse.code_dim, lists->centroids, nlist, dim,
                                    &fresh->projection, err);
    if (status != PD_OK) return status;
    fresh->mean = aligned_alloc(64, pd_dim16(dim) * sizeof *fresh->mean);
    if (!fresh->mean) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for a mean of %u lists", nlist);
    memset(fresh->mean, 0, pd_dim16(dim) * sizeof *fresh->mean);
    pd_centroid_mean(lists->centroids, nlist, dim, fresh->mean);
    pd_coarse_view view = {
        .shape = &shape, .layout = &fresh->coarse, .projection = fresh->projection, .mean = fresh->mean};
    status = pd_coarse_pages(&view, lists->centroids, lists->rows, nlist, &fresh->coarse_pages, &fresh->terms,
                             err);
    if (status == PD_OK && lists->ngroups)
        status = pd_level_open(&view, lists, nlist, index->base.layout.weights, blocks, index->blocks.columns,
                               &fresh->upper, err);
    return status;
}

/* Do the values of a column follow the lists? The mean distance between a list's shares and those of all rows (half the
 * sum of the gaps) is held against what lists of these sizes, filled by chance, would show: a binomial share p of n rows
 * lies sqrt(2 p (1 - p) / (pi n)) from its mean on average. Summaries of columns that follow nothing cost as much as
 * the dots and move no probe; a twentieth more than chance is little, but columns that follow the lists loosely and weigh
 * much need their say. */
static int is_tied(const pd_lists *lists, const float *histogram, uint32_t values, uint32_t nlist)
{
    double rows = 0, gap = 0, chance = 0;
    for (uint32_t l = 0; l < nlist; l++)
        rows += lists->rows[l];
    for (uint32_t v = 0; v < values; v++) {
        const float *share = histogram + (size_t)v * nlist;
        double mean = 0;
        for (uint32_t l = 0; l < nlist; l++)
            mean += (double)share[l] * lists->rows[l] / (rows > 0 ? rows : 1);
        double spread = mean < 1 ? sqrt(2 * mean * (1 - mean) / 3.14159265358979) : 0;
        for (uint32_t l = 0; l < nlist; l++) {
            gap += fabs((double)share[l] - mean) * lists->rows[l];
            chance += spread * sqrt((double)lists->rows[l]);
        }
    }
    return gap > 1.05 * chance;
}

pd_status pd_host_set_lists(pd_index *base, const pd_lists *lists, pd_error *err)
{
    pd_host_index *index = (pd_host_index *)base;
    const pd_shape *shape = &base->shape;
    uint32_t nlist = shape->nlist;
    if (nlist == 0)
        return pd_fail(err, PD_FAILED_PRECONDITION, "%s is a look-up table and has no lists", index->name);
    if (base->layout.code_dim < shape->dim && !lists->projection)
        return pd_fail(err, PD_INVALID_ARGUMENT,
                       "%s: codes of %u dimensions for rows of %u need a projection", index->name,
                       base->layout.code_dim, shape->dim);
    pd_host_index fresh = {0};
    pd_status status = PD_RESOURCE_EXHAUSTED;
    fresh.page_list = malloc((base->npages ? base->npages : 1) * sizeof *fresh.page_list);
    if (fresh.page_list) status = check_lists(index, lists, fresh.page_list, err);
    if (fresh.page_list && status != PD_OK) goto err_after_alloc;
    fresh.centroids = padded_centroids(lists->centroids, nlist, shape->dim);
    int listed = take_pages(index, lists, &fresh);
    fresh.rows = copy_of(lists->rows, nlist * sizeof *lists->rows);
    uint64_t *blocks =
        fresh.page_list ? pd_blocks_lists(&index->blocks, nlist, lists->offsets, lists->pages) : NULL;
    int summaries = lists->histograms && base->layout.weights > 0;
    if (summaries)
        fresh.histograms =
            copy_of(lists->histograms, (size_t)base->layout.weights * nlist * sizeof *lists->histograms);
    if (blocks) status = coarse_codes(index, lists, blocks, &fresh, err);
    if (status != PD_OK || !fresh.page_list || !fresh.centroids || !listed || !fresh.rows || !blocks ||
        (summaries && !fresh.histograms)) {
        if (status == PD_OK || !blocks)
            status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "%s: no memory for %u lists", index->name, nlist);
        free(blocks);
        goto err_after_alloc;
    }
    free_lists(index);
    index->centroids = fresh.centroids;
    index->offsets = fresh.offsets;
    index->held = fresh.held;
    index->room = fresh.room;
    index->pages = fresh.pages;
    index->rows = fresh.rows;
    index->page_list = fresh.page_list;
    free(index->blocks.lists);
    index->blocks.lists = blocks;
    index->histograms = fresh.histograms;
    index->beta = lists->beta;
    for (uint32_t c = 0; summaries && c < shape->nbytes; c++)
        index->tied[c] = (uint8_t)is_tied(
            lists, lists->histograms + (size_t)base->layout.weight_at[c] * nlist, shape->sizes[c], nlist);
    index->coarse = fresh.coarse;
    index->coarse_pages = fresh.coarse_pages;
    index->terms = fresh.terms;
    index->mean = fresh.mean;
    index->projection = fresh.projection;
    index->upper = fresh.upper;
    return PD_OK;

err_after_alloc:
    free_lists(&fresh);
    return status;
}

pd_status pd_host_ready(const pd_host_index *index, pd_error *err)
{
    if (index->window_open)
        return pd_fail(err, PD_FAILED_PRECONDITION, "%s: a window of pages is open", index->name);
    if (index->base.shape.nlist > 0 && !index->offsets)
        return pd_fail(err, PD_FAILED_PRECONDITION, "%s: its lists have not been set", index->name);
    return PD_OK;
}

static void gather_columns(const pd_host_index *index, uint32_t slot, uint32_t at, const pd_rows *rows)
{
    const pd_shape *shape = &index->base.shape;
    const pd_layout *layout = &index->base.layout;
    unsigned char *page = pd_host_page(index, slot / PD_PAGE_ROWS);
    uint32_t row = slot % PD_PAGE_ROWS;
    if (rows->ids) rows->ids[at] = pd_page_ids(layout, page)[row];
    for (uint32_t c = 0; rows->bytes && c < shape->nbytes; c++)
        rows->bytes[(size_t)at * shape->nbytes + c] = pd_page_bytes(layout, page, c)[row];
    for (uint32_t c = 0; rows->floats && c < shape->nfloats; c++)
        rows->floats[(size_t)at * shape->nfloats + c] = pd_page_floats(layout, page, c)[row];
    for (uint32_t c = 0; rows->keys && c < shape->nkeys; c++)
        rows->keys[(size_t)at * shape->nkeys + c] = pd_page_keys(layout, page, c)[row];
}

pd_status pd_host_gather(pd_index *base, const uint32_t *slots, uint32_t n, const pd_rows *rows,
                         pd_error *err)
{
    const pd_host_index *index = (const pd_host_index *)base;
    pd_status status = pd_host_ready(index, err);
    if (status != PD_OK) return status;
    const pd_shape *shape = &base->shape;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t page = slots[i] / PD_PAGE_ROWS, row = slots[i] % PD_PAGE_ROWS;
        uint32_t list = PD_NO_LIST;
        int there =
            page < base->npages && pd_page_term(&base->layout, pd_host_page(index, page))[row] > -INFINITY;
        if (there && shape->nlist > 0) {
            list = index->page_list[page];
            there = list != PD_NO_LIST;
        }
        if (!there) return pd_fail(err, PD_OUT_OF_RANGE, "%s: slot %u holds no row", index->name, slots[i]);
        gather_columns(index, slots[i], i, rows);
        if (rows->vectors)
            pd_page_decode(shape, &base->layout, list == PD_NO_LIST ? NULL : pd_host_centroid(index, list),
                           row, pd_host_page(index, page), pd_host_refine(index, page),
                           rows->vectors + (size_t)i * shape->dim);
    }
    return PD_OK;
}
