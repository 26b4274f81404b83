/* An index on the device: pages in the slab, written through windows; tables beside it (lists: lists.cu).
 *
 * The host keeps what it keeps for every backend (host.c): which chunks the pages take, the lists, the i8 codes of the centroids,
 * which columns follow the lists. Here that is copied, so that both sides choose by the same numbers. Pages exist on the device
 * only; their summaries (blocks.h) are made from the window as it is committed.
 *
 * A window is pinned memory. There are two, so that one is filled while the other travels: loading goes at the speed of the
 * slower of disk and bus. Copies run on the index's own stream; a search waits for them by an event. Refine pages that lie in the
 * host's memory need neither: there a window is the pages themselves, as on a CPU.
 */
#include "cuda.h"

/* ------------------------------------------------------------------------------------------------ opening --- */

void pd_cuda_view_of(const pd_shape *shape, const pd_layout *layout, pd_cuda_view *view)
{
    memset(view, 0, sizeof *view);
    view->metric = shape->metric;
    view->code = shape->code;
    view->refine = shape->refine;
    view->dim = shape->dim;
    view->dim16 = pd_dim16(shape->dim);
    view->width = layout->code_dim;
    view->nlist = shape->nlist ? shape->nlist : 1;
    view->listed = shape->nlist > 0;
    view->nbytes = shape->nbytes;
    view->nfloats = shape->nfloats;
    view->nkeys = shape->nkeys;
    view->weights = layout->weights;
    view->layout = pd_cuda_layout_of(layout);
}

/* Where the pages of a run lie, in units of 64 bytes. */
static void fill_page_at(const pd_run *run, uint32_t npages, uint32_t *at)
{
    for (uint32_t p = 0; p < npages && run->nchunks; p++) {
        uint32_t chunk = p / run->pages_per_chunk;
        size_t offset = (size_t)run->chunks[chunk] * PD_CHUNK_BYTES +
                        (size_t)(p - chunk * run->pages_per_chunk) * run->page_bytes;
        at[p] = (uint32_t)(offset / 64);
    }
}

static pd_status place_tables(pd_cuda_index *index, pd_error *err)
{
    const pd_index *base = &index->host.base;
    pd_cuda_view *view = &index->view;
    size_t npages = base->npages, words = npages * sizeof(uint32_t);
    int refine = index->host.refine.nchunks > 0, look_up = !view->listed;
    uint32_t *host = (uint32_t *)calloc(npages * 3 + 2, sizeof *host);
    unsigned char *blank = (unsigned char *)malloc(base->layout.page_bytes);
    uint8_t columns[PD_MAX_BYTES];
    if (!host || !blank) {
        free(host);
        free(blank);
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "%s: no memory to open it", index->host.name);
    }
    pd_page_clear(&base->shape, &base->layout, blank);
    for (uint32_t c = 0; c < base->shape.nbytes; c++)
        if (index->host.blocks.at[c] != PD_NO_BLOCK) columns[index->host.blocks.at[c]] = (uint8_t)c;
    uint32_t *page_at = host, *refine_at = host + npages, *pages = host + 2 * npages;
    uint32_t offsets[2] = {0, base->npages};
    fill_page_at(&index->host.main, base->npages, page_at);
    fill_page_at(&index->host.refine, base->npages, refine_at);
    for (uint32_t p = 0; p < base->npages; p++)
        pages[p] = p;
    size_t summaries = npages * index->host.blocks.columns * sizeof(uint64_t);
    const void *unused = NULL;
    const pd_cuda_piece pieces[] = {
        {page_at, words, (const void **)&view->page_at},
        {refine_at, refine ? words : 0, refine ? (const void **)&view->refine_at : &unused},
        {NULL, summaries, (const void **)&view->block_pages},
        {blank, base->layout.page_bytes, (const void **)&view->blank},
        {columns, index->host.blocks.columns, (const void **)&view->block_bytes},
        {base->shape.sizes, sizeof base->shape.sizes, (const void **)&view->sizes},
        {base->layout.weight_at, sizeof base->layout.weight_at, (const void **)&view->weight_at},
        /* A look-up table is one list that holds every page. */
        {offsets, look_up ? sizeof offsets : 0, look_up ? (const void **)&view->offsets : &unused},
        {pages, look_up ? words : 0, look_up ? (const void **)&view->pages : &unused},
        {NULL, look_up ? words : 0, look_up ? (const void **)&view->page_list : &unused},
    };
    pd_status status = pd_cuda_place(index->device, index->stream, pieces, sizeof pieces / sizeof *pieces,
                                     "taking the tables of an index", &index->tables, err);
    free(host);
    free(blank);
    return status == PD_OK ? status : pd_prefix(err, "%s", index->host.name);
}

/* Only the terms: what else an empty page holds is never looked at. A thread a row. */
__global__ static void empty_pages(pd_cuda_view view, unsigned char *slab, uint32_t npages)
{
    uint64_t at = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
    uint32_t page = (uint32_t)(at / PD_PAGE_ROWS);
    if (page >= npages) return;
    float *term = (float *)(slab + (size_t)view.page_at[page] * 64 + view.layout.term);
    term[at % PD_PAGE_ROWS] = -INFINITY;
}

static pd_status fits(const pd_slab *slab, const char *name, uint64_t chunks, const char *what, pd_error *err)
{
    char want[PD_SIZE_TEXT], have[PD_SIZE_TEXT], all[PD_SIZE_TEXT];
    if (chunks <= slab->free) return PD_OK;
    return pd_fail(err, PD_RESOURCE_EXHAUSTED, "%s needs %s of %s, %s of %s is free", name,
                   pd_size_text(chunks * PD_CHUNK_BYTES, want), what,
                   pd_size_text((uint64_t)slab->free * PD_CHUNK_BYTES, have),
                   pd_size_text((uint64_t)slab->chunks * PD_CHUNK_BYTES, all));
}

static pd_status take_runs(pd_cuda_device *device, pd_cuda_index *index, const pd_index_spec *spec,
                           pd_error *err)
{
    const pd_layout *layout = &index->host.base.layout;
    uint64_t need = pd_run_chunks(layout->page_bytes, spec->npages),
             refine = pd_run_chunks(layout->refine_bytes, spec->npages);
    int hosted = refine > 0 && device->host.chunks > 0 && spec->shape.code != PD_CODE_NONE;
    pd_slab *of_refine = hosted ? &device->host : &device->slab;
    pd_status status =
        fits(&device->slab, index->host.name, hosted ? need : need + refine, "device memory", err);
    if (status == PD_OK && hosted)
        status = fits(of_refine, index->host.name, refine, "host memory for refine rows", err);
    if (status == PD_OK)
        status = pd_run_take(&device->slab, &index->host.main, layout->page_bytes, spec->npages, err);
    if (status == PD_OK)
        status = pd_run_take(of_refine, &index->host.refine, layout->refine_bytes, spec->npages, err);
    index->host.base.hosted = hosted;
    index->view.slab = device->slab.base;
    index->view.refine_slab = of_refine->base;
    return status;
}

/* What closing undoes; a half-opened index is closed by it too. */
void pd_cuda_index_close(pd_index *base)
{
    pd_cuda_index *index = (pd_cuda_index *)base;
    (void)cudaSetDevice(index->device->ordinal);
    if (index->stream) {
        (void)cudaStreamSynchronize(index->stream);
        cudaStreamDestroy(index->stream);
    }
    for (uint32_t i = 0; i < 2; i++) {
        if (index->stages[i].sent) cudaEventDestroy(index->stages[i].sent);
        if (index->stages[i].data) cudaFreeHost(index->stages[i].data);
    }
    if (index->written) cudaEventDestroy(index->written);
    if (index->tables) cudaFree(index->tables);
    if (index->lists) cudaFree(index->lists);
    free(index->filled[0]);
    free(index->filled[1]);
    free(index->live);
    pd_host_index_close(base); /* frees the struct */
}

static pd_status open_parts(pd_cuda_device *device, pd_cuda_index *index, const pd_index_spec *spec,
                            pd_error *err)
{
    pd_status status = take_runs(device, index, spec, err);
    for (uint32_t kind = 0; status == PD_OK && kind < 2; kind++) {
        index->filled[kind] = (uint8_t *)calloc((size_t)spec->npages + 1, 1);
        if (!index->filled[kind])
            status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "%s: no memory to open it", index->host.name);
    }
    index->live = (uint32_t *)calloc((size_t)spec->npages + 1, sizeof *index->live);
    if (status == PD_OK && !index->live)
        status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "%s: no memory to open it", index->host.name);
    if (status == PD_OK) status = pd_blocks_open(&index->host.blocks, &spec->shape, spec->npages, err);
    if (status == PD_OK)
        status = pd_cuda_check(device, cudaStreamCreateWithFlags(&index->stream, cudaStreamNonBlocking),
                               "making a stream", err);
    if (status == PD_OK)
        status = pd_cuda_check(device, cudaEventCreateWithFlags(&index->written, cudaEventDisableTiming),
                               "making an event", err);
    if (status != PD_OK) return status;
    index->view.npages = spec->npages;
    index->view.block_columns = index->host.blocks.columns;
    status = place_tables(index, err);
    if (status != PD_OK || spec->npages == 0) return status;
    status = pd_cuda_check(device,
                           PD_LAUNCH(empty_pages, pd_blocks_of((size_t)spec->npages * PD_PAGE_ROWS, 256), 256,
                                     0, index->stream, index->view, device->slab.base, spec->npages),
                           "emptying pages", err);
    if (status == PD_OK)
        status = pd_cuda_check(device, cudaStreamSynchronize(index->stream), "emptying pages", err);
    return status;
}

pd_status pd_cuda_index_open(pd_device *base, const pd_index_spec *spec, pd_index **out, pd_error *err)
{
    pd_cuda_device *device = (pd_cuda_device *)base;
    pd_layout layout;
    pd_status status = pd_cuda_enter(device, err);
    if (status == PD_OK) status = pd_layout_of(&spec->shape, &layout, err);
    if (status != PD_OK) return status;
    const char *name = spec->name ? spec->name : "the index";
    if (spec->shape.nlist == 0 && spec->shape.code == PD_CODE_I8)
        return pd_fail(err, PD_INVALID_ARGUMENT, "%s: i8 codes are residuals and need lists", name);
    pd_cuda_index *index = (pd_cuda_index *)calloc(1, sizeof *index);
    if (!index) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "%s: no memory to open it", name);
    index->device = device;
    index->host.base.backend = &pd_backend_cuda;
    index->host.base.shape = spec->shape;
    index->host.base.layout = layout;
    index->host.base.npages = spec->npages;
    snprintf(index->host.name, sizeof index->host.name, "%s", name);
    pd_cuda_view_of(&spec->shape, &layout, &index->view);
    status = open_parts(device, index, spec, err);
    if (status != PD_OK) {
        pd_cuda_index_close(&index->host.base);
        return status;
    }
    *out = &index->host.base;
    return PD_OK;
}

/* ------------------------------------------------------------------------------------------------- windows --- */

/* A window holds at most a chunk of pages. Behind it lie their summaries, 8 bytes a byte column where the page itself has 32, and
 * so never more than a quarter of a chunk. */
#define STAGE_BYTES (PD_CHUNK_BYTES + PD_CHUNK_BYTES / 4)

static pd_status ready_stage(pd_cuda_index *index, pd_cuda_stage *stage, pd_error *err)
{
    pd_cuda_device *device = index->device;
    pd_status status = PD_OK;
    if (!stage->data) {
        void *data = NULL;
        status = pd_cuda_check(device, cudaMallocHost(&data, STAGE_BYTES), "taking pinned memory for windows",
                               err);
        stage->data = (unsigned char *)data;
    }
    if (status == PD_OK && !stage->sent)
        status = pd_cuda_check(device, cudaEventCreateWithFlags(&stage->sent, cudaEventDisableTiming),
                               "making an event", err);
    if (status == PD_OK && stage->busy) {
        status = pd_cuda_check(device, cudaEventSynchronize(stage->sent), "copying pages in", err);
        stage->busy = status != PD_OK;
    }
    return status;
}

/* A window shows what its pages hold, as a backend in host memory does. Loading fills every page for the first time, and reads
 * nothing back. */
static pd_status fill_stage(pd_cuda_index *index, unsigned char *data, pd_error *err)
{
    pd_host_index *host = &index->host;
    pd_cuda_device *device = index->device;
    int refine = host->window_kind == PD_PAGES_REFINE, filled = 0;
    const pd_run *run = refine ? &host->refine : &host->main;
    for (uint32_t i = 0; i < host->window_count; i++)
        filled |= index->filled[refine][host->window_first + i];
    if (filled) {
        pd_status status = pd_cuda_check(device,
                                         cudaMemcpyAsync(data, pd_run_page(run, host->window_first),
                                                         host->window_count * run->page_bytes,
                                                         cudaMemcpyDeviceToHost, index->stream),
                                         "copying pages out", err);
        if (status != PD_OK) return status;
        return pd_cuda_check(device, cudaStreamSynchronize(index->stream), "copying pages out", err);
    }
    for (uint32_t i = 0; !refine && i < host->window_count; i++) {
        float *term = pd_page_term(&host->base.layout, data + i * run->page_bytes);
        for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
            term[r] = -INFINITY;
    }
    return PD_OK;
}

/* Is the open window the pages themselves? */
static int is_pages(const pd_cuda_index *index)
{
    return index->host.window_kind == PD_PAGES_REFINE && index->host.base.hosted;
}

pd_status pd_cuda_window(pd_index *base, pd_page_kind kind, uint32_t first, uint32_t count, void **memory,
                         uint32_t *got, pd_error *err)
{
    pd_cuda_index *index = (pd_cuda_index *)base;
    pd_status status = pd_cuda_enter(index->device, err);
    if (status != PD_OK) return status;
    void *pages = NULL;
    status = pd_host_page_window(base, kind, first, count, &pages, got, err);
    if (status != PD_OK) return status;
    if (is_pages(index)) {
        *memory = pages;
        return PD_OK;
    }
    status = ready_stage(index, &index->stages[index->stage], err);
    if (status == PD_OK) status = fill_stage(index, index->stages[index->stage].data, err);
    if (status != PD_OK) {
        index->host.window_open = 0;
        return pd_prefix(err, "%s", index->host.name);
    }
    *memory = index->stages[index->stage].data;
    return PD_OK;
}

/* Which of a page's rows exist. */
static uint32_t live_rows(const pd_layout *layout, unsigned char *page)
{
    const float *term = pd_page_term(layout, page);
    uint32_t live = 0;
    for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
        live |= (uint32_t)(term[r] > -INFINITY) << r;
    return live;
}

/* Summaries of the window's pages, and of the lists that they belong to. Returns the bytes behind the pages. */
static size_t summarise(pd_cuda_index *index, unsigned char *data, size_t page_bytes)
{
    pd_host_index *host = &index->host;
    pd_blocks *blocks = &host->blocks;
    for (uint32_t i = 0; i < host->window_count; i++) {
        uint32_t page = host->window_first + i;
        index->live[page] = live_rows(&host->base.layout, data + i * page_bytes);
        pd_blocks_page(blocks, &host->base.layout, page, data + i * page_bytes);
        uint32_t list = host->page_list ? host->page_list[page] : PD_NO_LIST;
        if (list == PD_NO_LIST || blocks->columns == 0) continue;
        pd_blocks_add(blocks, list, page);
        pd_level_add(&host->upper, blocks, list, page);
        if (index->dirty_high == 0 || list < index->dirty_low) index->dirty_low = list;
        if (list >= index->dirty_high) index->dirty_high = list + 1;
    }
    size_t bytes = (size_t)host->window_count * blocks->columns * sizeof(uint64_t);
    memcpy(data + host->window_count * page_bytes,
           blocks->pages + (size_t)host->window_first * blocks->columns, bytes);
    return bytes;
}

pd_status pd_cuda_commit(pd_index *base, pd_error *err)
{
    pd_cuda_index *index = (pd_cuda_index *)base;
    pd_cuda_device *device = index->device;
    pd_host_index *host = &index->host;
    if (!host->window_open)
        return pd_fail(err, PD_FAILED_PRECONDITION, "%s: no window of pages is open", host->name);
    host->window_open = 0;
    pd_status status = pd_cuda_enter(device, err);
    if (status != PD_OK || is_pages(index)) return status;
    const pd_run *run = host->window_kind == PD_PAGES_REFINE ? &host->refine : &host->main;
    pd_cuda_stage *stage = &index->stages[index->stage];
    size_t bytes = host->window_count * run->page_bytes;
    /* A window never crosses a chunk, so that its pages lie side by side on the device as well. */
    status = pd_cuda_check(device,
                           cudaMemcpyAsync(pd_run_page(run, host->window_first), stage->data, bytes,
                                           cudaMemcpyHostToDevice, index->stream),
                           "copying pages in", err);
    memset(index->filled[host->window_kind == PD_PAGES_REFINE] + host->window_first, 1, host->window_count);
    if (status == PD_OK && host->window_kind == PD_PAGES_MAIN) {
        size_t more = summarise(index, stage->data, run->page_bytes);
        uint64_t *to =
            (uint64_t *)index->view.block_pages + (size_t)host->window_first * host->blocks.columns;
        if (more)
            status = pd_cuda_check(
                device, cudaMemcpyAsync(to, stage->data + bytes, more, cudaMemcpyHostToDevice, index->stream),
                "copying summaries in", err);
    }
    if (status == PD_OK)
        status = pd_cuda_check(device, cudaEventRecord(stage->sent, index->stream), "copying pages in", err);
    if (status == PD_OK)
        status =
            pd_cuda_check(device, cudaEventRecord(index->written, index->stream), "copying pages in", err);
    stage->busy = status == PD_OK;
    index->stage ^= 1;
    return status;
}

/* Lists whose summaries have grown since they were copied, before a search relies on them: by the index's own stream, so that
 * every lane of a search waits for them and not only the one that was the first to come. */
pd_status pd_cuda_settle(pd_cuda_index *index, cudaStream_t stream, pd_error *err)
{
    pd_cuda_device *device = index->device;
    uint32_t columns = index->host.blocks.columns;
    pd_status status = PD_OK;
    if (index->dirty_high > 0) {
        size_t first = (size_t)index->dirty_low * columns,
               words = (size_t)(index->dirty_high - index->dirty_low) * columns;
        const pd_level *upper = &index->host.upper;
        cudaError_t error =
            cudaMemcpyAsync((uint64_t *)index->view.block_lists + first, index->host.blocks.lists + first,
                            words * sizeof(uint64_t), cudaMemcpyHostToDevice, index->stream);
        /* Groups are few: theirs go whole. */
        if (error == cudaSuccess && upper->ngroups)
            error = cudaMemcpyAsync((uint64_t *)index->view.group_blocks, upper->blocks,
                                    (size_t)upper->ngroups * columns * sizeof(uint64_t),
                                    cudaMemcpyHostToDevice, index->stream);
        if (error == cudaSuccess) error = cudaEventRecord(index->written, index->stream);
        status = pd_cuda_check(device, error, "copying summaries in", err);
        if (status == PD_OK) index->dirty_low = index->dirty_high = 0;
    }
    if (status != PD_OK) return status;
    return pd_cuda_check(device, cudaStreamWaitEvent(stream, index->written, 0), "waiting for pages", err);
}
