/* Rows made on the device become pages there (build.cuh). The code is pd_page_encode's: half a warp a row, lane j over the dimensions
 * j, j + 16, ..., so that sums have the written lanes; what is whole or has one rounding needs no order. */
#include "build.cuh"
#include "row.cuh"

#define FILL_ROWS    65536u
#define FILL_THREADS 128u

typedef struct fill_job {
    pd_cuda_view view;
    unsigned char *slab;
    uint64_t first;
    uint32_t n;
    const float *rows;     /* [n][dim] */
    const uint32_t *slots; /* [n] */
} fill_job;

/* By half a warp: the code of row - centroid. Lanes past the row's end write nothing. */
static __device__ void put_code(const fill_job &job, const float *row, const float *centroid, uint32_t slot,
                                int there)
{
    const pd_cuda_view &view = job.view;
    unsigned char *page = job.slab + (size_t)view.page_at[slot / PD_PAGE_ROWS] * 64;
    int8_t *codes = (int8_t *)(page + view.layout.codes);
    uint32_t place = slot % PD_PAGE_ROWS, lane = pd_lane() & 15u;
    float most = 0.0f;
    for (uint32_t d = lane; d < view.dim; d += 16)
        most = fmaxf(most, fabsf(row[d] - centroid[d]));
    for (uint32_t by = 8; by > 0; by >>= 1)
        most = fmaxf(most, __shfl_xor_sync(PD_ALL_LANES, most, (int)by));
    float scale = most / 127.0f, square = 0.0f;
    double cross = 0.0;
    for (uint32_t d = lane; d < view.layout.dim4; d += 16) {
        float code = 0.0f;
        if (scale > 0.0f && d < view.dim) {
            code = (row[d] - centroid[d]) / scale;
            code = code > 127.0f ? 127.0f : code < -127.0f ? -127.0f : code;
            code = pd_round(code);
            square += code * code;
            cross += (double)centroid[d] * (double)code;
        }
        if (there) codes[((size_t)(d / 4) * PD_PAGE_ROWS + place) * 4 + d % 4] = (int8_t)code;
    }
    double squares = (double)square;
    for (uint32_t by = 8; by > 0; by >>= 1) {
        squares += __shfl_xor_sync(PD_ALL_LANES, squares, (int)by);
        cross = cross + __shfl_xor_sync(PD_ALL_LANES, cross, (int)by);
    }
    if (!there || lane != 0) return;
    double term = -((double)scale * (double)scale * squares + 2.0 * (double)scale * cross);
    ((float *)(page + view.layout.scale))[place] = scale;
    ((float *)(page + view.layout.term))[place] = view.metric == PD_L2 ? (float)term + 0.0f : 0.0f;
}

static __device__ void put_refine(const fill_job &job, const float *row, uint32_t slot)
{
    const pd_cuda_view &view = job.view;
    unsigned char *at = (unsigned char *)pd_view_refine(view, slot / PD_PAGE_ROWS) +
                        (size_t)(slot % PD_PAGE_ROWS) * (view.layout.refine_bytes / PD_PAGE_ROWS);
    for (uint32_t d = pd_lane() & 15u; d < view.dim; d += 16) {
        if (view.refine == PD_REFINE_F32)
            ((float *)at)[d] = row[d];
        else
            ((pd_f16 *)at)[d] = pd_f32_to_f16(row[d]);
    }
}

/* Half a warp a row. */
static __global__ void __launch_bounds__(FILL_THREADS) fill_rows(PD_GRID const fill_job job)
{
    const pd_cuda_view &view = job.view;
    uint32_t i = (blockIdx.x * blockDim.x + threadIdx.x) / 16, at = i < job.n ? i : job.n - 1;
    uint32_t slot = job.slots[at], page = slot / PD_PAGE_ROWS, place = slot % PD_PAGE_ROWS;
    const float *row = job.rows + (size_t)at * view.dim;
    put_code(job, row, view.centroids + (size_t)view.page_list[page] * view.dim16, slot, i < job.n);
    if (i >= job.n) return;
    if (view.refine_at) put_refine(job, row, slot);
    unsigned char *to = job.slab + (size_t)view.page_at[page] * 64;
    if ((pd_lane() & 15u) == 0) ((uint64_t *)(to + view.layout.ids))[place] = job.first + at;
    for (uint32_t c = pd_lane() & 15u; c < view.nbytes; c += 16)
        to[view.layout.bytes + (size_t)c * PD_PAGE_ROWS + place] =
            pd_made_value(job.first + at, c, view.sizes[c]);
}

/* All listed pages that rows go into, made empty before and summarised after. */
static pd_status all_pages(pd_cuda_index *index, int clear, pd_error *err)
{
    const pd_host_index *host = &index->host;
    uint32_t n = 0, *pages = (uint32_t *)malloc((size_t)host->base.npages * sizeof *pages + 1);
    if (!pages) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "%s: no memory to fill it", host->name);
    for (uint32_t p = 0; p < host->base.npages; p++)
        if (host->page_list[p] != PD_NO_LIST) pages[n++] = p;
    pd_status status = pd_changes_pages(index, pages, n, clear, err);
    free(pages);
    return status;
}

static pd_status check(const pd_cuda_index *index, const pd_cuda_source *source, pd_error *err)
{
    const pd_shape *shape = &index->host.base.shape;
    if (shape->code != PD_CODE_I8 || index->view.projection || shape->nfloats || shape->nkeys ||
        (shape->refine != PD_REFINE_NONE && shape->refine != PD_REFINE_F16 &&
         shape->refine != PD_REFINE_F32) ||
        shape->dim != source->dim || source->n >= UINT32_MAX)
        return pd_fail(err, PD_INVALID_ARGUMENT,
                       "%s: only i8 codes of %u dimensions with byte columns can be filled with these rows",
                       index->host.name, source->dim);
    return pd_host_ready(&index->host, err);
}

static pd_status fill_some(pd_cuda_lane *lane, fill_job *job, const pd_cuda_source *source,
                           const uint32_t *slots, pd_cuda_index *index, pd_error *err)
{
    cudaError_t error = cudaMemcpyAsync((void *)job->slots, slots + job->first, job->n * sizeof *slots,
                                        cudaMemcpyHostToDevice, lane->stream);
    if (error == cudaSuccess)
        error = source->rows(source->context, job->first, job->n, (float *)job->rows, lane->stream);
    if (error == cudaSuccess)
        error = PD_LAUNCH(fill_rows, pd_blocks_of((size_t)job->n * 16, FILL_THREADS), FILL_THREADS, 0,
                          lane->stream, *job);
    return pd_cuda_check(index->device, error, "filling pages", err);
}

pd_status pd_cuda_fill(pd_cuda_index *index, const pd_cuda_source *source, const uint32_t *slots,
                       pd_error *err)
{
    pd_cuda_device *device = index->device;
    pd_cuda_lane lane;
    pd_cuda_batch memory = {};
    fill_job job = {};
    float *rows = NULL;
    uint32_t *places = NULL;
    pd_status status = pd_cuda_enter(device, err);
    if (status == PD_OK) status = check(index, source, err);
    if (status == PD_OK) status = all_pages(index, 1, err);
    if (status != PD_OK) return status;
    status = pd_cuda_lane_open(device, &lane, err);
    memory.device = device;
    memory.lane = &lane;
    if (status == PD_OK) status = pd_take(&memory, (size_t)FILL_ROWS * source->dim, "rows", &rows, err);
    if (status == PD_OK) status = pd_take(&memory, FILL_ROWS, "rows", &places, err);
    job.view = index->view;
    job.slab = device->slab.base;
    job.rows = rows;
    job.slots = places;
    for (uint64_t done = 0; status == PD_OK && done < source->n; done += job.n) {
        job.first = done;
        job.n = source->n - done < FILL_ROWS ? (uint32_t)(source->n - done) : FILL_ROWS;
        status = fill_some(&lane, &job, source, slots, index, err);
    }
    if (status == PD_OK)
        status = pd_cuda_check(device, cudaStreamSynchronize(lane.stream), "filling pages", err);
    pd_cuda_lane_close(&lane);
    for (uint64_t i = 0; status == PD_OK && i < source->n; i++) {
        uint32_t page = slots[i] / PD_PAGE_ROWS;
        index->live[page] |= 1u << slots[i] % PD_PAGE_ROWS;
        index->filled[PD_PAGES_MAIN][page] = index->filled[PD_PAGES_REFINE][page] = 1;
    }
    return status == PD_OK ? all_pages(index, 0, err) : status;
}
