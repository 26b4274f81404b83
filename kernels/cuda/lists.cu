/* The lists of an index on the device: what host.c makes of them is copied, so that both sides choose by the same numbers. Lists lie one
 * behind the other; where some grow, a kernel writes them anew into a second place, and the two change roles (changes.cu). */
#include "cuda.h"

static size_t up256(size_t bytes)
{
    return (bytes + 255) & ~(size_t)255;
}

pd_status pd_cuda_place(pd_cuda_device *device, cudaStream_t stream, const pd_cuda_piece *pieces, uint32_t n,
                        const char *what, void **memory, pd_error *err)
{
    size_t bytes = 256;
    for (uint32_t i = 0; i < n; i++)
        bytes += up256(pieces[i].bytes + pieces[i].behind);
    *memory = NULL;
    pd_status status = pd_cuda_check(device, cudaMalloc(memory, bytes), what, err);
    if (status != PD_OK) return status;
    unsigned char *at = (unsigned char *)*memory;
    for (uint32_t i = 0; status == PD_OK && i < n; i++) {
        if (pieces[i].bytes && pieces[i].from)
            status = pd_cuda_check(
                device, cudaMemcpyAsync(at, pieces[i].from, pieces[i].bytes, cudaMemcpyHostToDevice, stream),
                what, err);
        else if (pieces[i].bytes)
            status = pd_cuda_check(device, cudaMemsetAsync(at, 0, pieces[i].bytes, stream), what, err);
        *pieces[i].to = at;
        at += up256(pieces[i].bytes + pieces[i].behind);
    }
    if (status == PD_OK) status = pd_cuda_check(device, cudaStreamSynchronize(stream), what, err);
    if (status != PD_OK) {
        (void)cudaStreamSynchronize(stream);
        cudaFree(*memory);
        *memory = NULL;
    }
    return status;
}

pd_cuda_layout pd_cuda_layout_of(const pd_layout *layout)
{
    pd_cuda_layout out;
    out.codes = (uint32_t)layout->codes;
    out.scale = (uint32_t)layout->scale;
    out.term = (uint32_t)layout->term;
    out.ids = (uint32_t)layout->ids;
    out.bytes = (uint32_t)layout->bytes;
    out.floats = (uint32_t)layout->floats;
    out.keys = (uint32_t)layout->keys;
    out.page_bytes = (uint32_t)layout->page_bytes;
    out.refine_bytes = (uint32_t)layout->refine_bytes;
    out.dim4 = layout->dim4;
    return out;
}

/* What host.c makes of lists, in a host index of its own beside the one that serves. */
static pd_host_index *fresh_lists(const pd_cuda_index *index, const pd_lists *lists, pd_status *status,
                                  pd_error *err)
{
    pd_host_index *fresh = (pd_host_index *)calloc(1, sizeof *fresh);
    if (!fresh) {
        *status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "%s: no memory for lists", index->host.name);
        return NULL;
    }
    fresh->base = index->host.base;
    fresh->blocks = index->host.blocks;
    fresh->blocks.lists = NULL;
    memcpy(fresh->name, index->host.name, sizeof fresh->name);
    *status = pd_host_set_lists(&fresh->base, lists, err);
    return fresh;
}

/* Frees the lists of a host index that owns no pages and whose page summaries are another's. */
static void drop_lists(pd_host_index *host)
{
    if (!host) return;
    memset(&host->main, 0, sizeof host->main);
    memset(&host->refine, 0, sizeof host->refine);
    host->blocks.pages = NULL;
    pd_host_index_close(&host->base);
}

static pd_status place_lists(pd_cuda_index *index, const pd_lists *lists, const pd_host_index *fresh,
                             pd_cuda_view *view, pd_cuda_grown *grown, void **memory, pd_error *err)
{
    const pd_shape *shape = &fresh->base.shape;
    size_t nlist = shape->nlist, words = sizeof(uint32_t), dim16 = pd_dim16(shape->dim);
    size_t histograms = fresh->histograms ? fresh->base.layout.weights * nlist * sizeof(float) : 0;
    const pd_projection *p = fresh->projection;
    const pd_level *up = &fresh->upper;
    size_t n = up->ngroups;
    size_t shares = n && up->histograms ? fresh->base.layout.weights * n * sizeof(float) : 0;
    const void *unused = NULL;
    const pd_cuda_piece pieces[] = {
        {lists->offsets, (nlist + 1) * words, (const void **)&view->offsets},
        {lists->pages, lists->offsets[nlist] * words, (const void **)&view->pages,
         (fresh->base.npages - lists->offsets[nlist]) * words},
        {NULL, (nlist + 1) * words, (const void **)&grown->offsets},
        {NULL, fresh->base.npages * words, (const void **)&grown->pages},
        {fresh->page_list, fresh->base.npages * words, (const void **)&view->page_list},
        {fresh->centroids, nlist * dim16 * sizeof(float), (const void **)&view->centroids},
        {fresh->coarse_pages, (size_t)pd_pages_for(nlist) * fresh->coarse.page_bytes,
         (const void **)&view->coarse_pages},
        {fresh->mean, dim16 * sizeof(float), (const void **)&view->mean},
        {p ? p->pages : NULL, p ? (size_t)pd_pages_for(p->code_dim) * p->layout.page_bytes : 0,
         p ? (const void **)&view->projection : &unused},
        {p ? p->mean_out : NULL, p ? p->code_dim * sizeof(float) : 0,
         p ? (const void **)&view->mean_out : &unused},
        {fresh->histograms, histograms, histograms ? (const void **)&view->histograms : &unused},
        {fresh->blocks.lists, nlist * fresh->blocks.columns * sizeof(uint64_t),
         (const void **)&view->block_lists},
        {fresh->tied, sizeof fresh->tied, (const void **)&view->tied},
        {up->first, n ? (n + 1) * words : 0, n ? (const void **)&view->group_first : &unused},
        {up->lists, n * words, n ? (const void **)&view->group_lists : &unused},
        {up->pages, n ? (size_t)pd_pages_for(n) * fresh->coarse.page_bytes : 0,
         n ? (const void **)&view->group_pages : &unused},
        {up->histograms, shares, shares ? (const void **)&view->group_histograms : &unused},
        {up->blocks, n * fresh->blocks.columns * sizeof(uint64_t),
         n ? (const void **)&view->group_blocks : &unused},
    };
    view->histograms = NULL;
    view->beta = fresh->beta;
    view->ngroups = up->ngroups;
    view->group_most = up->most;
    view->group_live = up->live;
    view->group_first = view->group_lists = NULL;
    view->group_pages = NULL;
    view->group_histograms = NULL;
    view->group_blocks = NULL;
    view->coarse = pd_cuda_layout_of(&fresh->coarse);
    if (p) view->projected = pd_cuda_layout_of(&p->layout);
    return pd_cuda_place(index->device, index->stream, pieces, sizeof pieces / sizeof *pieces,
                         "taking the lists of an index", memory, err);
}

/* The lists change places: host keeps its pages and their summaries, and takes the lists of fresh; fresh takes the old ones. */
static void swap_lists(pd_host_index *host, pd_host_index *fresh)
{
    pd_host_index old = *host;
    *host = *fresh;
    host->main = old.main;
    host->refine = old.refine;
    host->window_open = old.window_open;
    host->window_kind = old.window_kind;
    host->window_first = old.window_first;
    host->window_count = old.window_count;
    *fresh = old;
}

pd_status pd_cuda_set_lists(pd_index *base, const pd_lists *lists, pd_error *err)
{
    pd_cuda_index *index = (pd_cuda_index *)base;
    pd_status status = pd_cuda_enter(index->device, err);
    if (status != PD_OK) return status;
    pd_host_index *fresh = fresh_lists(index, lists, &status, err);
    pd_cuda_view view = index->view;
    pd_cuda_grown grown = {};
    void *memory = NULL;
    if (status == PD_OK) status = place_lists(index, lists, fresh, &view, &grown, &memory, err);
    if (status == PD_OK) {
        swap_lists(&index->host, fresh);
        if (index->lists) cudaFree(index->lists);
        index->lists = memory;
        index->view = view;
        index->grown = grown;
        index->listed = lists->offsets[base->shape.nlist];
        index->dirty_low = index->dirty_high = 0;
        status = pd_cuda_check(index->device, cudaEventRecord(index->written, index->stream),
                               "copying lists in", err);
    }
    drop_lists(fresh);
    return status;
}
