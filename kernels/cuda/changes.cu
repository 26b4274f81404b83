/* Rows, columns and lists that change in place, between two searches.
 *
 * What the host must know for it, it knows without asking: which slots hold rows (pd_cuda_index.live), which list a page is in, how many
 * rows a list has (the books of host.c). So a change is looked at whole before anything is touched, and then goes over in pieces that
 * memory taken when the device was opened holds: packed into pinned memory, copied to the same places of the device's, put where
 * it belongs by kernels. The pages touched are then summarised anew, on the device, which takes what they can hold into their lists and
 * groups; the summaries of the pages come back, and the books take the same. Lists that get their first row or lose their last
 * are patched, with their groups. A call returns when the device has done it.
 */
#include "build.cuh"
#include "changes.cuh"

#define SUMMARY_BYTES ((size_t)1 << 20)
#define COLUMNS_MOST  256u
#define ROW_THREADS   128u

pd_status pd_cuda_changes_open(pd_cuda_device *device, pd_error *err)
{
    void *memory = NULL;
    pd_status status = pd_cuda_check(device, cudaMalloc(&memory, PD_CHANGE_BYTES + SUMMARY_BYTES),
                                     "taking memory for changes", err);
    device->change_memory = (unsigned char *)memory;
    if (status == PD_OK)
        status = pd_cuda_pinned_need(device, &device->change_in, PD_CHANGE_BYTES, "changes", err);
    if (status == PD_OK)
        status = pd_cuda_pinned_need(device, &device->change_out, SUMMARY_BYTES, "changes", err);
    return status;
}

/* ---------------------------------------------------------------------------------------------------- kernels --- */

static __device__ __forceinline__ unsigned char *page_of(const pd_change_job &job, uint32_t page)
{
    return job.slab + (size_t)job.view.page_at[page] * 64;
}
static __device__ __forceinline__ unsigned char *refine_of(const pd_change_job &job, uint32_t page)
{
    return (unsigned char *)pd_view_refine(job.view, page);
}

/* A block a page. */
static __global__ void clear_pages(PD_GRID const pd_change_job job)
{
    uint32_t page = job.cleared[blockIdx.x];
    uint32_t *to = (uint32_t *)page_of(job, page);
    for (uint32_t i = threadIdx.x; i < job.view.layout.page_bytes / 4; i += blockDim.x)
        to[i] = ((const uint32_t *)job.view.blank)[i];
    if (!job.view.refine_at) return;
    uint32_t *refine = (uint32_t *)refine_of(job, page);
    for (uint32_t i = threadIdx.x; i < job.view.layout.refine_bytes / 4; i += blockDim.x)
        refine[i] = 0;
}

/* A block a row. */
static __global__ void put_rows(PD_GRID const pd_change_job job)
{
    const pd_cuda_view &view = job.view;
    uint32_t i = blockIdx.x, slot = job.slots[i], row = slot % PD_PAGE_ROWS, place = i % PD_PAGE_ROWS;
    unsigned char *to = page_of(job, slot / PD_PAGE_ROWS);
    if (job.pages)
        pd_row_copy(view, job.pages + (size_t)(i / PD_PAGE_ROWS) * view.layout.page_bytes, place, to, row);
    else
        pd_row_copy(view, view.blank, 0, to, row);
    if (!view.refine_at) return;
    uint32_t bytes = view.layout.refine_bytes / PD_PAGE_ROWS;
    unsigned char *refine = refine_of(job, slot / PD_PAGE_ROWS) + (size_t)row * bytes;
    const unsigned char *from =
        job.refines + (size_t)(i / PD_PAGE_ROWS) * view.layout.refine_bytes + (size_t)place * bytes;
    for (uint32_t b = threadIdx.x; b < bytes; b += blockDim.x)
        refine[b] = job.pages ? from[b] : 0;
}

/* One column of n rows; at: its offset in a page. */
template <typename Value>
static __global__ void put_values(PD_GRID const pd_change_job job, const Value *values, uint32_t at)
{
    uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= job.n) return;
    uint32_t slot = job.slots[i];
    ((Value *)(page_of(job, slot / PD_PAGE_ROWS) + at))[slot % PD_PAGE_ROWS] = values[i];
}

/* The last i of starts with starts[i] <= x. */
static __device__ __forceinline__ uint32_t last_at_most(const uint32_t *starts, uint32_t n, uint32_t x)
{
    uint32_t low = 0, high = n;
    while (high - low > 1) {
        uint32_t mid = low + (high - low) / 2;
        if (starts[mid] <= x)
            low = mid;
        else
            high = mid;
    }
    return low;
}

/* A warp a page: what it can hold now, which its list and its group can hold too. */
static __global__ void summarise_pages(PD_GRID const pd_change_job job)
{
    const pd_cuda_view &view = job.view;
    uint32_t i = blockIdx.x * (blockDim.x / 32) + pd_warp();
    if (i >= job.ntouched) return;
    uint32_t number = job.touched[i], list = view.page_list[number], group = 0;
    const unsigned char *page = pd_view_page(view, number);
    int there = pd_row_term(view.layout, page, pd_lane()) > -INFINITY;
    if (view.ngroups) group = last_at_most(view.group_first, view.ngroups, list);
    for (uint32_t c = 0; c < view.block_columns; c++) {
        uint32_t value = page[view.layout.bytes + (size_t)view.block_bytes[c] * PD_PAGE_ROWS + pd_lane()];
        unsigned long long bits = there ? 1ull << (value & 63u) : 0;
        for (uint32_t by = 16; by > 0; by >>= 1)
            bits |= __shfl_xor_sync(PD_ALL_LANES, bits, (int)by);
        if (pd_lane() != 0) continue;
        job.summaries[(size_t)i * view.block_columns + c] = bits;
        ((uint64_t *)view.block_pages)[(size_t)number * view.block_columns + c] = bits;
        if (!view.listed) continue;
        atomicOr((unsigned long long *)view.block_lists + (size_t)list * view.block_columns + c, bits);
        if (view.ngroups)
            atomicOr((unsigned long long *)view.group_blocks + (size_t)group * view.block_columns + c, bits);
    }
}

static __device__ __forceinline__ void put_term(const pd_cuda_layout &layout, const unsigned char *pages,
                                                uint32_t i, float term)
{
    unsigned char *page = (unsigned char *)pages + (size_t)(i / PD_PAGE_ROWS) * layout.page_bytes;
    ((float *)(page + layout.term))[i % PD_PAGE_ROWS] = term;
}

/* Patches of one group all say the same of it. */
static __global__ void patch_lists(PD_GRID const pd_change_job job)
{
    const pd_cuda_view &view = job.view;
    uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= job.npatches) return;
    pd_list_patch patch = job.patches[i];
    put_term(view.coarse, view.coarse_pages, patch.list, patch.term);
    if (!view.ngroups) return;
    put_term(view.coarse, view.group_pages, patch.group, patch.group_term);
    ((uint32_t *)view.group_lists)[patch.group] = patch.group_lists;
}

/* ---------------------------------------------------------------------------------------------------- a piece --- */

/* Room in both memories. */
void *pd_piece_take(pd_piece *p, size_t bytes, const void **device)
{
    void *pinned = p->device->change_in.data + p->used;
    *device = p->device->change_memory + p->used;
    p->used += (bytes + 63) & ~(size_t)63;
    return pinned;
}

/* n rows, at most PD_CHANGE_ROWS. */
void pd_piece_open(pd_piece *p, pd_cuda_index *index, uint32_t n)
{
    memset(p, 0, sizeof *p);
    p->index = index;
    p->device = index->device;
    p->job.view = index->view;
    p->job.slab = index->device->slab.base;
    p->job.n = n;
    p->slots = (uint32_t *)pd_piece_take(p, n * sizeof *p->slots, (const void **)&p->job.slots);
    p->cleared = (uint32_t *)pd_piece_take(p, n * sizeof *p->cleared, (const void **)&p->job.cleared);
    p->touched = (uint32_t *)pd_piece_take(p, n * sizeof *p->touched, (const void **)&p->job.touched);
    p->patches = (pd_list_patch *)pd_piece_take(p, n * sizeof *p->patches, (const void **)&p->job.patches);
    p->job.summaries = (unsigned long long *)(p->device->change_memory + PD_CHANGE_BYTES);
}

/* Rows of a piece, so that what comes back of their pages has room. */
uint32_t pd_piece_rows(const pd_cuda_index *index)
{
    uint32_t columns = index->host.blocks.columns;
    size_t fit = columns ? SUMMARY_BYTES / (columns * sizeof(uint64_t)) : PD_CHANGE_ROWS;
    return fit < PD_CHANGE_ROWS ? (uint32_t)fit & ~(PD_PAGE_ROWS - 1) : PD_CHANGE_ROWS;
}

/* Rows of one page are mostly neighbours; one that is touched again is summarised again. */
static void touch(pd_piece *p, uint32_t page)
{
    if (p->job.ntouched == 0 || p->touched[p->job.ntouched - 1] != page) p->touched[p->job.ntouched++] = page;
}

static int has_row(const pd_cuda_index *index, uint32_t slot)
{
    uint32_t page = slot / PD_PAGE_ROWS;
    if (index->host.page_list && index->host.page_list[page] == PD_NO_LIST) return 0;
    return (int)(index->live[page] >> slot % PD_PAGE_ROWS & 1u);
}

/* Books: the slot has a row from now on, or none. */
static void set_row(pd_piece *p, uint32_t slot, int there)
{
    pd_host_index *host = &p->index->host;
    uint32_t page = slot / PD_PAGE_ROWS, bit = 1u << slot % PD_PAGE_ROWS;
    int had = (p->index->live[page] & bit) != 0;
    if (had == there) return;
    p->index->live[page] ^= bit;
    if (!host->page_list) return;
    uint32_t list = host->page_list[page];
    int was = host->rows[list] > 0;
    pd_host_list_rows(host, list, there - had);
    if (was != (host->rows[list] > 0)) p->patches[p->job.npatches++].list = list;
}

/* What patches say, once all rows are counted. */
static void fill_patches(pd_piece *p)
{
    pd_host_index *host = &p->index->host;
    const pd_level *upper = &host->upper;
    for (uint32_t i = 0; i < p->job.npatches; i++) {
        pd_list_patch *patch = &p->patches[i];
        uint32_t list = patch->list;
        patch->term = host->rows[list] > 0 ? host->terms[list] : -INFINITY;
        patch->group = patch->group_lists = 0;
        patch->group_term = 0.0f;
        if (upper->ngroups == 0) continue;
        patch->group = pd_level_group(upper, list);
        patch->group_lists = upper->lists[patch->group];
        patch->group_term = patch->group_lists ? upper->terms[patch->group] : -INFINITY;
    }
    p->index->view.group_live = upper->live;
}

cudaError_t pd_piece_send(pd_piece *p)
{
    fill_patches(p);
    return cudaMemcpyAsync(p->device->change_memory, p->device->change_in.data, p->used,
                           cudaMemcpyHostToDevice, p->index->stream);
}

/* Behind the kernels that put something: summaries and patches. Waits for all of it. */
pd_status pd_piece_finish(pd_piece *p, cudaError_t error, const char *doing, pd_error *err)
{
    cudaStream_t stream = p->index->stream;
    pd_host_index *host = &p->index->host;
    uint32_t columns = host->blocks.columns, ntouched = columns ? p->job.ntouched : 0;
    size_t bytes = (size_t)ntouched * columns * sizeof(uint64_t);
    if (error == cudaSuccess && ntouched)
        error = PD_LAUNCH(summarise_pages, pd_blocks_of(ntouched, PD_MANY_THREADS / 32), PD_MANY_THREADS, 0,
                          stream, p->job);
    if (error == cudaSuccess && p->job.npatches)
        error = PD_LAUNCH(patch_lists, pd_blocks_of(p->job.npatches, PD_MANY_THREADS), PD_MANY_THREADS, 0,
                          stream, p->job);
    if (error == cudaSuccess && bytes)
        error = cudaMemcpyAsync(p->device->change_out.data, p->job.summaries, bytes, cudaMemcpyDeviceToHost,
                                stream);
    if (error == cudaSuccess) error = cudaStreamSynchronize(stream);
    pd_status status = pd_cuda_check(p->device, error, doing, err);
    if (status != PD_OK) return pd_prefix(err, "%s", host->name);
    const uint64_t *from = (const uint64_t *)p->device->change_out.data;
    for (uint32_t i = 0; i < ntouched; i++, from += columns) {
        memcpy(host->blocks.pages + (size_t)p->touched[i] * columns, from, columns * sizeof *from);
        if (host->page_list) pd_host_list_widen(host, p->touched[i], 0, columns);
    }
    return PD_OK;
}

/* ------------------------------------------------------------------------------------------------------- rows --- */

static pd_status write_some(pd_cuda_index *index, const pd_row_writes *writes, uint32_t first, uint32_t n,
                            pd_error *err)
{
    const pd_layout *layout = &index->host.base.layout;
    uint32_t npages = pd_pages_for(n), from = first / PD_PAGE_ROWS;
    pd_piece p;
    pd_piece_open(&p, index, n);
    unsigned char *pages =
        (unsigned char *)pd_piece_take(&p, npages * layout->page_bytes, (const void **)&p.job.pages);
    memcpy(pages, (const unsigned char *)writes->pages + from * layout->page_bytes,
           npages * layout->page_bytes);
    if (layout->refine_bytes)
        memcpy(pd_piece_take(&p, npages * layout->refine_bytes, (const void **)&p.job.refines),
               (const unsigned char *)writes->refine + from * layout->refine_bytes,
               npages * layout->refine_bytes);
    memcpy(p.slots, writes->slots + first, n * sizeof *p.slots);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t page = p.slots[i] / PD_PAGE_ROWS;
        const float *term = pd_page_term(layout, pages + i / PD_PAGE_ROWS * layout->page_bytes);
        /* The first row of a page: of what memory held before nothing must come out with its neighbours. */
        if (index->live[page] == 0) p.cleared[p.job.ncleared++] = page;
        touch(&p, page);
        set_row(&p, p.slots[i], term[i % PD_PAGE_ROWS] > -INFINITY);
        index->filled[PD_PAGES_MAIN][page] = index->filled[PD_PAGES_REFINE][page] = 1;
    }
    cudaError_t error = pd_piece_send(&p);
    if (error == cudaSuccess && p.job.ncleared)
        error = PD_LAUNCH(clear_pages, p.job.ncleared, ROW_THREADS, 0, index->stream, p.job);
    if (error == cudaSuccess) error = PD_LAUNCH(put_rows, n, ROW_THREADS, 0, index->stream, p.job);
    return pd_piece_finish(&p, error, "writing rows", err);
}

pd_status pd_changes_ready(pd_cuda_index *index, pd_error *err)
{
    pd_status status = pd_cuda_enter(index->device, err);
    return status == PD_OK ? pd_host_ready(&index->host, err) : status;
}

pd_status pd_cuda_write_rows(pd_index *base, const pd_row_writes *writes, pd_error *err)
{
    pd_cuda_index *index = (pd_cuda_index *)base;
    const uint32_t *page_list = index->host.page_list;
    pd_status status = pd_changes_ready(index, err);
    for (uint32_t i = 0; status == PD_OK && page_list && i < writes->n; i++)
        if (page_list[writes->slots[i] / PD_PAGE_ROWS] == PD_NO_LIST)
            status = pd_fail(err, PD_OUT_OF_RANGE, "%s: slot %u lies in a page that is in no list",
                             index->host.name, writes->slots[i]);
    size_t each = base->layout.page_bytes + base->layout.refine_bytes;
    size_t fit = 2 * (size_t)PD_CHUNK_BYTES / each * PD_PAGE_ROWS;
    uint32_t most = pd_piece_rows(index);
    if (fit < most) most = (uint32_t)fit;
    for (uint32_t done = 0, n; status == PD_OK && done < writes->n; done += n) {
        n = writes->n - done < most ? writes->n - done : most;
        status = write_some(index, writes, done, n, err);
    }
    return status;
}

pd_status pd_cuda_empty_rows(pd_index *base, const uint32_t *slots, uint32_t n, pd_error *err)
{
    pd_cuda_index *index = (pd_cuda_index *)base;
    uint32_t most = pd_piece_rows(index);
    pd_status status = pd_changes_ready(index, err);
    for (uint32_t done = 0; status == PD_OK && done < n;) {
        uint32_t some = n - done < most ? n - done : most, rows = 0;
        pd_piece p;
        pd_piece_open(&p, index, some);
        for (uint32_t i = done; i < done + some; i++) {
            if (!has_row(index, slots[i])) continue;
            p.slots[rows++] = slots[i];
            touch(&p, slots[i] / PD_PAGE_ROWS);
            set_row(&p, slots[i], 0);
        }
        done += some;
        if (rows == 0) continue;
        cudaError_t error = pd_piece_send(&p);
        if (error == cudaSuccess) error = PD_LAUNCH(put_rows, rows, ROW_THREADS, 0, index->stream, p.job);
        status = pd_piece_finish(&p, error, "emptying rows", err);
    }
    return status;
}

pd_status pd_changes_pages(pd_cuda_index *index, const uint32_t *pages, uint32_t n, int clear, pd_error *err)
{
    uint32_t most = pd_piece_rows(index);
    pd_status status = pd_changes_ready(index, err);
    for (uint32_t done = 0, some; status == PD_OK && done < n; done += some) {
        some = n - done < most ? n - done : most;
        pd_piece p;
        pd_piece_open(&p, index, some);
        memcpy(p.cleared, pages + done, some * sizeof *pages);
        memcpy(p.touched, pages + done, some * sizeof *pages);
        p.job.ncleared = clear ? some : 0;
        p.job.ntouched = clear ? 0 : some;
        cudaError_t error = pd_piece_send(&p);
        if (error == cudaSuccess && p.job.ncleared)
            error = PD_LAUNCH(clear_pages, p.job.ncleared, ROW_THREADS, 0, index->stream, p.job);
        status = pd_piece_finish(&p, error, "summarising pages", err);
    }
    return status;
}

/* ---------------------------------------------------------------------------------------------------- columns --- */

static cudaError_t put_column(const pd_piece *p, const pd_column_write *write, const void *values)
{
    const pd_cuda_layout *l = &p->job.view.layout;
    uint32_t blocks = pd_blocks_of(p->job.n, PD_MANY_THREADS), column = write->column * PD_PAGE_ROWS;
    cudaStream_t stream = p->index->stream;
    switch (write->kind) {
    case PD_COLUMN_BYTE:
        return PD_LAUNCH((put_values<uint8_t>), blocks, PD_MANY_THREADS, 0, stream, p->job,
                         (const uint8_t *)values, l->bytes + column);
    case PD_COLUMN_FLOAT:
        return PD_LAUNCH((put_values<float>), blocks, PD_MANY_THREADS, 0, stream, p->job,
                         (const float *)values, l->floats + 4 * column);
    default:
        return PD_LAUNCH((put_values<uint64_t>), blocks, PD_MANY_THREADS, 0, stream, p->job,
                         (const uint64_t *)values, l->keys + 8 * column);
    }
}

/* At most PD_CHANGE_ROWS rows and COLUMNS_MOST columns. */
static pd_status write_columns(pd_cuda_index *index, const uint32_t *slots, uint32_t first, uint32_t n,
                               const pd_column_write *columns, uint32_t ncolumns, pd_error *err)
{
    static const size_t sizes[] = {sizeof(uint8_t), sizeof(float), sizeof(uint64_t)};
    const void *values[COLUMNS_MOST];
    pd_piece p;
    int summarised = 0;
    pd_piece_open(&p, index, n);
    memcpy(p.slots, slots + first, n * sizeof *p.slots);
    for (uint32_t c = 0; c < ncolumns; c++) {
        size_t size = sizes[columns[c].kind];
        memcpy(pd_piece_take(&p, n * size, &values[c]),
               (const unsigned char *)columns[c].values + first * size, n * size);
        summarised |=
            columns[c].kind == PD_COLUMN_BYTE && index->host.blocks.at[columns[c].column] != PD_NO_BLOCK;
    }
    for (uint32_t i = 0; summarised && i < n; i++)
        touch(&p, p.slots[i] / PD_PAGE_ROWS);
    cudaError_t error = pd_piece_send(&p);
    for (uint32_t c = 0; error == cudaSuccess && c < ncolumns; c++)
        error = put_column(&p, &columns[c], values[c]);
    return pd_piece_finish(&p, error, "writing columns", err);
}

pd_status pd_cuda_write_columns(pd_index *base, const uint32_t *slots, uint32_t n,
                                const pd_column_write *columns, uint32_t ncolumns, pd_error *err)
{
    pd_cuda_index *index = (pd_cuda_index *)base;
    uint32_t most = pd_piece_rows(index);
    pd_status status = pd_changes_ready(index, err);
    for (uint32_t i = 0; status == PD_OK && i < n; i++)
        if (!has_row(index, slots[i]))
            status = pd_fail(err, PD_OUT_OF_RANGE, "%s: slot %u holds no row", index->host.name, slots[i]);
    for (uint32_t c = 0, of; c < ncolumns; c += of) {
        of = ncolumns - c < COLUMNS_MOST ? ncolumns - c : COLUMNS_MOST;
        for (uint32_t done = 0, some; status == PD_OK && done < n; done += some) {
            some = n - done < most ? n - done : most;
            status = write_columns(index, slots, done, some, columns + c, of, err);
        }
    }
    return status;
}
