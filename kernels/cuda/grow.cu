/* Lists that grow, and pages that are read back.
 *
 * Lists lie one behind the other. When some grow, all are written anew, into the second place that set_lists took: for 100M rows 13 MB that
 * the device reads and writes, for any number of pages at once. */
#include "changes.cuh"

/* ------------------------------------------------------------------------------------------------------ lists --- */

/* n pages that join lists, which ascend. */
typedef struct grow_job {
    pd_cuda_view view;
    pd_cuda_grown to;
    uint32_t n, listed;
    const uint32_t *lists, *pages;
} grow_job;

/* How many of ascending lists are under list. */
static __device__ __forceinline__ uint32_t count_under(const uint32_t *lists, uint32_t n, uint32_t list)
{
    uint32_t low = 0, high = n;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (lists[mid] < list)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* A thread a list, an entry that was there, and one that comes. */
static __global__ void grow_lists(PD_GRID const grow_job job)
{
    const pd_cuda_view &view = job.view;
    uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i <= view.nlist) job.to.offsets[i] = view.offsets[i] + count_under(job.lists, job.n, i);
    if (i < job.listed) {
        uint32_t page = view.pages[i];
        job.to.pages[i + count_under(job.lists, job.n, view.page_list[page])] = page;
    }
    if (i >= job.n) return;
    job.to.pages[view.offsets[job.lists[i] + 1] + i] = job.pages[i];
    ((uint32_t *)view.page_list)[job.pages[i]] = job.lists[i];
}

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* The books of one page that joins a list, with the rows that it has. */
static void join(pd_piece *p, uint32_t list, uint32_t page)
{
    pd_host_index *host = &p->index->host;
    int was = host->rows[list] > 0, live = __builtin_popcount(p->index->live[page]);
    pd_host_list_grow(host, list, page);
    if (live) pd_host_list_rows(host, list, live);
    if (was != (host->rows[list] > 0)) p->patches[p->job.npatches++].list = list;
    p->touched[p->job.ntouched++] = page;
}

/* At most as many pages as a piece has rows; they are marked. */
static pd_status grow_some(pd_cuda_index *index, const uint32_t *lists, const uint32_t *pages, uint32_t n,
                           pd_error *err)
{
    pd_piece p;
    grow_job job = {};
    uint64_t order[PD_CHANGE_ROWS];
    pd_piece_open(&p, index, n);
    uint32_t *grown = (uint32_t *)pd_piece_take(&p, n * sizeof *grown, (const void **)&job.lists);
    job.pages = p.job.slots;
    job.view = index->view;
    job.to = index->grown;
    job.n = n;
    job.listed = index->listed;
    for (uint32_t i = 0; i < n; i++)
        order[i] = (uint64_t)lists[i] << 32 | i;
    qsort(order, n, sizeof *order, by_number);
    for (uint32_t i = 0; i < n; i++) {
        grown[i] = (uint32_t)(order[i] >> 32);
        p.slots[i] = pages[(uint32_t)order[i]];
        join(&p, grown[i], p.slots[i]);
    }
    uint32_t most = index->listed > index->view.nlist ? index->listed : index->view.nlist;
    if (n > most) most = n;
    cudaError_t error = pd_piece_send(&p);
    if (error == cudaSuccess)
        error = PD_LAUNCH(grow_lists, pd_blocks_of((size_t)most + 1, PD_MANY_THREADS), PD_MANY_THREADS, 0,
                          index->stream, job);
    /* The two places change roles. */
    index->grown.offsets = (uint32_t *)index->view.offsets;
    index->grown.pages = (uint32_t *)index->view.pages;
    p.job.view.offsets = index->view.offsets = job.to.offsets;
    p.job.view.pages = index->view.pages = job.to.pages;
    index->listed += n;
    return pd_piece_finish(&p, error, "growing lists", err);
}

pd_status pd_cuda_grow(pd_index *base, const uint32_t *lists, const uint32_t *pages, uint32_t n,
                       pd_error *err)
{
    pd_cuda_index *index = (pd_cuda_index *)base;
    uint32_t most = pd_piece_rows(index);
    pd_status status = pd_changes_ready(index, err);
    if (status == PD_OK && base->shape.nlist == 0)
        status =
            pd_fail(err, PD_FAILED_PRECONDITION, "%s is a look-up table and has no lists", index->host.name);
    if (status == PD_OK) status = pd_host_list_mark(&index->host, lists, pages, n, err);
    for (uint32_t done = 0, some; status == PD_OK && done < n; done += some) {
        some = n - done < most ? n - done : most;
        status = grow_some(index, lists + done, pages + done, some, err);
    }
    return status;
}

/* ---------------------------------------------------------------------------------------------------- reading --- */

/* Pages from `first` on that lie side by side and have rows, as many as pinned memory holds; at least one. */
static uint32_t run_of(const pd_cuda_index *index, const pd_run *run, uint32_t first, uint32_t end)
{
    uint32_t left = run->pages_per_chunk - first % run->pages_per_chunk, n = 1;
    size_t fit = PD_CHANGE_BYTES / run->page_bytes;
    if (left > end - first) left = end - first;
    while (n < left && n < fit && index->live[first + n])
        n++;
    return n;
}

pd_status pd_cuda_read_pages(pd_index *base, pd_page_kind kind, uint32_t first, uint32_t count, void *memory,
                             pd_error *err)
{
    pd_cuda_index *index = (pd_cuda_index *)base;
    pd_cuda_device *device = index->device;
    const pd_run *run = kind == PD_PAGES_REFINE ? &index->host.refine : &index->host.main;
    pd_status status = pd_cuda_enter(device, err);
    if (status == PD_OK && index->host.window_open)
        status = pd_fail(err, PD_FAILED_PRECONDITION, "%s: a window of pages is open", index->host.name);
    for (uint32_t p = first, n = 1; status == PD_OK && p < first + count; p += n) {
        unsigned char *to = (unsigned char *)memory + (p - first) * run->page_bytes;
        n = 1;
        /* A page without rows need never have been written: it is as an empty page is, whatever memory held before. */
        if (index->live[p] == 0) {
            memset(to, 0, run->page_bytes);
            if (kind == PD_PAGES_MAIN) pd_page_clear(&base->shape, &base->layout, to);
            continue;
        }
        n = run_of(index, run, p, first + count);
        if (run->slab == &device->host) {
            /* Whoever wrote them has waited for it. */
            memcpy(to, pd_run_page(run, p), n * run->page_bytes);
            continue;
        }
        cudaError_t error = cudaMemcpyAsync(device->change_in.data, pd_run_page(run, p), n * run->page_bytes,
                                            cudaMemcpyDeviceToHost, index->stream);
        if (error == cudaSuccess) error = cudaStreamSynchronize(index->stream);
        status = pd_cuda_check(device, error, "reading pages", err);
        if (status == PD_OK) memcpy(to, device->change_in.data, n * run->page_bytes);
    }
    return status;
}
