/* Gather: rows by slot.
 *
 * A kernel packs the rows asked for into pages of the same layout, row i at place i, and the host reads those as it reads any page
 * (pd_page_decode): what comes back is decoded by the same code as on the CPU. */
#include "row.cuh"

#define THREADS 128u

/* Rows that travel at once, at most. */
#define GATHER_ROWS 4096u

typedef struct gather_job {
    const uint32_t *slots; /* [n] */
    unsigned char *pages, *refines;
} gather_job;

/* A block a row. */
__global__ static void __launch_bounds__(THREADS) pack_rows(pd_cuda_view view, gather_job job)
{
    uint32_t slot = job.slots[blockIdx.x], row = slot % PD_PAGE_ROWS, place = blockIdx.x % PD_PAGE_ROWS;
    const unsigned char *from = pd_view_page(view, slot / PD_PAGE_ROWS);
    const pd_cuda_layout &l = view.layout;
    unsigned char *to = job.pages + (size_t)(blockIdx.x / PD_PAGE_ROWS) * l.page_bytes;
    pd_row_copy(view, from, row, to, place);
    if (!view.refine_at) return;
    uint32_t bytes = l.refine_bytes / PD_PAGE_ROWS; /* a row */
    const unsigned char *rows = pd_view_refine(view, slot / PD_PAGE_ROWS);
    unsigned char *out = job.refines + (size_t)(blockIdx.x / PD_PAGE_ROWS) * l.refine_bytes;
    for (uint32_t i = threadIdx.x; i < bytes; i += THREADS)
        out[(size_t)place * bytes + i] = rows[(size_t)row * bytes + i];
}

/* Row i of the packed pages into place at of the caller's arrays. */
static void read_columns(const pd_cuda_index *index, unsigned char *page, uint32_t row, size_t at,
                         const pd_rows *rows)
{
    const pd_shape *shape = &index->host.base.shape;
    const pd_layout *layout = &index->host.base.layout;
    if (rows->ids) rows->ids[at] = pd_page_ids(layout, page)[row];
    for (uint32_t c = 0; rows->bytes && c < shape->nbytes; c++)
        rows->bytes[at * shape->nbytes + c] = pd_page_bytes(layout, page, c)[row];
    for (uint32_t c = 0; rows->floats && c < shape->nfloats; c++)
        rows->floats[at * shape->nfloats + c] = pd_page_floats(layout, page, c)[row];
    for (uint32_t c = 0; rows->keys && c < shape->nkeys; c++)
        rows->keys[at * shape->nkeys + c] = pd_page_keys(layout, page, c)[row];
}

static pd_status read_rows(const pd_cuda_index *index, const uint32_t *slots, uint32_t n, size_t first,
                           unsigned char *pages, unsigned char *refines, const pd_rows *rows, pd_error *err)
{
    const pd_index *base = &index->host.base;
    const pd_layout *layout = &base->layout;
    for (uint32_t i = 0; i < n; i++) {
        unsigned char *page = pages + (size_t)(i / PD_PAGE_ROWS) * layout->page_bytes;
        const unsigned char *refine =
            refines ? refines + (size_t)(i / PD_PAGE_ROWS) * layout->refine_bytes : NULL;
        uint32_t row = i % PD_PAGE_ROWS, list = PD_NO_LIST;
        int there = pd_page_term(layout, page)[row] > -INFINITY;
        if (there && base->shape.nlist > 0) {
            list = index->host.page_list[slots[i] / PD_PAGE_ROWS];
            there = list != PD_NO_LIST;
        }
        if (!there)
            return pd_fail(err, PD_OUT_OF_RANGE, "%s: slot %u holds no row", index->host.name, slots[i]);
        read_columns(index, page, row, first + i, rows);
        if (rows->vectors)
            pd_page_decode(&base->shape, layout,
                           list == PD_NO_LIST ? NULL : pd_host_centroid(&index->host, list), row, page,
                           refine, rows->vectors + (first + i) * base->shape.dim);
    }
    return PD_OK;
}

/* At most GATHER_ROWS slots, the first of which is number `first` of the call. */
static pd_status gather_some(pd_cuda_index *index, const uint32_t *slots, uint32_t n, size_t first,
                             const pd_rows *rows, pd_error *err)
{
    pd_cuda_device *device = index->device;
    pd_cuda_lane *lane = &device->gather;
    const pd_layout *layout = &index->host.base.layout;
    size_t packed = (size_t)pd_pages_for(n) * layout->page_bytes,
           refined = (size_t)pd_pages_for(n) * layout->refine_bytes;
    gather_job job = {NULL, NULL, NULL};
    void *slots_in = NULL, *out = NULL;
    pd_status status = pd_cuda_arena_reset(device, &lane->arena, err);
    if (status == PD_OK)
        status = pd_cuda_take(device, &lane->arena, n, sizeof *slots, "slots", &slots_in, err);
    if (status == PD_OK) status = pd_cuda_take(device, &lane->arena, packed + refined, 1, "rows", &out, err);
    if (status == PD_OK) status = pd_cuda_pinned_need(device, &lane->out, packed + refined, "rows", err);
    if (status != PD_OK) return status;
    job.slots = (const uint32_t *)slots_in;
    job.pages = (unsigned char *)out;
    job.refines = job.pages + packed;
    cudaError_t error =
        cudaMemcpyAsync(slots_in, slots, n * sizeof *slots, cudaMemcpyHostToDevice, lane->stream);
    if (error == cudaSuccess) error = PD_LAUNCH(pack_rows, n, THREADS, 0, lane->stream, index->view, job);
    if (error == cudaSuccess)
        error = cudaMemcpyAsync(lane->out.data, out, packed + refined, cudaMemcpyDeviceToHost, lane->stream);
    if (error == cudaSuccess) error = cudaStreamSynchronize(lane->stream);
    status = pd_cuda_check(device, error, "gathering rows", err);
    if (status != PD_OK) return status;
    return read_rows(index, slots, n, first, lane->out.data, refined ? lane->out.data + packed : NULL, rows,
                     err);
}

pd_status pd_cuda_gather(pd_index *base, const uint32_t *slots, uint32_t n, const pd_rows *rows,
                         pd_error *err)
{
    pd_cuda_index *index = (pd_cuda_index *)base;
    pd_status status = pd_cuda_enter(index->device, err);
    if (status == PD_OK) status = pd_host_ready(&index->host, err);
    for (uint32_t i = 0; status == PD_OK && i < n; i++)
        if (slots[i] / PD_PAGE_ROWS >= base->npages)
            return pd_fail(err, PD_OUT_OF_RANGE, "%s: slot %u holds no row", index->host.name, slots[i]);
    if (status == PD_OK)
        status =
            pd_cuda_check(index->device, cudaStreamWaitEvent(index->device->gather.stream, index->written, 0),
                          "waiting for pages", err);
    for (uint32_t done = 0, some; status == PD_OK && done < n; done += some) {
        some = n - done < GATHER_ROWS ? n - done : GATHER_ROWS;
        status = gather_some(index, slots + done, some, done, rows, err);
    }
    return status;
}
