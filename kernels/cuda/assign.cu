/* The nearest centroid of each row, exactly: cpu/near.h tells how int8 codes bound what a distance can be, and why the answer
 * is that of full precision whatever the codes.
 *
 * Centroids lie in pages of codes, less their mean, as the coarse step's do; rows are the queries of tiles. A first kernel writes
 * the largest upper bound of each page for each row. A warp a row then measures the list of the largest bound, and those few
 * lists, in pages that still reach it, whose bounds say that they may be as near. What is no number is measured too.
 *
 * Rows come from the host in pieces, or are on the device already. Builds come with many blocks of rows for the same centroids: those of the
 * last call stay prepared, and are known again by their values.
 */
#include "build.cuh"
#include "tile.cuh"

#define PIECE_BYTES ((size_t)64 << 20) /* of bounds */
#ifndef MOST_ROWS                      /* the tests have fewer, so that there are several pieces */
#define MOST_ROWS 16384u
#endif
#define RANGE_PAGES  64u
#define SLICES       64u /* of centroids, for their mean */
#define WARP_THREADS 128u

/* What the kernels are given. */
typedef struct near_job {
    uint32_t nlist, pages, dim, code_bytes;
    float slack;
    pd_cuda_layout layout;          /* of the pages: codes, scale (twice the codes'), term (||e||^2) */
    const float *centroids;         /* [nlist][dim] */
    float *mean;                    /* [dim] */
    unsigned char *coded;           /* [pages][page_bytes] */
    uint32_t *loss;                 /* pd_ordered: the largest loss(e)^2 / ||e||^2 */
    uint32_t n;                     /* rows of this piece */
    const float *rows;              /* [n][dim] */
    int8_t *codes;                  /* [n][code_bytes] */
    float *scale, *reach, *squares; /* [n] */
    float *bests;                   /* [n][pages] */
    uint32_t *lists;                /* [n] */
} near_job;

/* --------------------------------------------------------------------------------------------- quantising --- */

typedef struct near_code {
    float scale;
    float whole, coded, lost; /* squared lengths of y, of what its code stands for, of what is lost */
} near_code;

static __device__ __forceinline__ float warp_sum(float value)
{
    for (uint32_t by = 16; by > 0; by >>= 1)
        value += __shfl_xor_sync(PD_ALL_LANES, value, (int)by);
    return value;
}

/* Codes of from - mean by a warp: code d goes to place(d), dimensions behind dim up to `width` are zeros. */
template <typename Place>
static __device__ near_code encode(const float *from, const float *mean, uint32_t dim, uint32_t width,
                                   Place place)
{
    float most = 0.0f;
    for (uint32_t d = pd_lane(); d < dim; d += 32)
        most = fmaxf(most, fabsf(from[d] - mean[d]));
    for (uint32_t by = 16; by > 0; by >>= 1)
        most = fmaxf(most, __shfl_xor_sync(PD_ALL_LANES, most, (int)by));
    float per = 127.0f / most;
    int some = per > 0.0f && per <= FLT_MAX;
    near_code out = {some ? most / 127.0f : 0.0f, 0.0f, 0.0f, 0.0f};
    for (uint32_t d = pd_lane(); d < width; d += 32) {
        float value = d < dim ? from[d] - mean[d] : 0.0f, code = 0.0f;
        if (some) code = pd_round(fminf(fmaxf(value * per, -127.0f), 127.0f));
        *place(d) = (int8_t)code;
        float stands = out.scale * code, gap = value - stands;
        out.whole += value * value;
        out.coded += stands * stands;
        out.lost += gap * gap;
    }
    out.whole = warp_sum(out.whole);
    out.coded = warp_sum(out.coded);
    out.lost = warp_sum(out.lost);
    return out;
}

/* Slice blockIdx.y of the lists. sums: [SLICES][dim] */
static __global__ void sum_centroids(near_job job, double *sums)
{
    uint32_t d = blockIdx.x * blockDim.x + threadIdx.x;
    if (d >= job.dim) return;
    double sum = 0;
    for (uint32_t l = blockIdx.y; l < job.nlist; l += SLICES)
        sum += (double)job.centroids[(size_t)l * job.dim + d];
    sums[(size_t)blockIdx.y * job.dim + d] = sum;
}

static __global__ void take_mean(near_job job, const double *sums)
{
    uint32_t d = blockIdx.x * blockDim.x + threadIdx.x;
    if (d >= job.dim) return;
    double sum = 0;
    for (uint32_t i = 0; i < SLICES; i++)
        sum += sums[(size_t)i * job.dim + d];
    job.mean[d] = (float)(sum / job.nlist);
}

/* A warp a centroid, those behind the last included. */
static __global__ void encode_centroids(PD_GRID const near_job job)
{
    uint32_t l = blockIdx.x * (blockDim.x / 32) + pd_warp(), row = l % PD_PAGE_ROWS;
    if (l >= job.pages * PD_PAGE_ROWS) return;
    unsigned char *page = job.coded + (size_t)(l / PD_PAGE_ROWS) * job.layout.page_bytes;
    int8_t *codes = (int8_t *)(page + job.layout.codes);
    uint32_t there = l < job.nlist ? l : 0;
    near_code code =
        encode(job.centroids + (size_t)there * job.dim, job.mean, job.dim, job.layout.dim4,
               [=](uint32_t d) { return codes + ((size_t)(d / 4) * PD_PAGE_ROWS + row) * 4 + d % 4; });
    if (pd_lane() != 0) return;
    ((float *)(page + job.layout.scale))[row] = 2.0f * code.scale;
    ((float *)(page + job.layout.term))[row] = l < job.nlist ? code.whole : FLT_MAX;
    if (l < job.nlist && code.whole > 0.0f) atomicMax(job.loss, pd_ordered(code.lost / code.whole));
}

/* A warp a row. */
static __global__ void encode_rows(PD_GRID const near_job job)
{
    uint32_t i = blockIdx.x * (blockDim.x / 32) + pd_warp();
    if (i >= job.n) return;
    int8_t *codes = job.codes + (size_t)i * job.code_bytes;
    near_code code = encode(job.rows + (size_t)i * job.dim, job.mean, job.dim, job.code_bytes,
                            [=](uint32_t d) { return codes + d; });
    if (pd_lane() != 0) return;
    float loss = sqrtf(pd_unordered(*job.loss)) * (1.0f + job.slack);
    job.scale[i] = code.scale;
    job.reach[i] = (sqrtf(code.lost) + sqrtf(code.coded) * loss) * (1.0f + job.slack);
    job.squares[i] = code.whole;
}

/* ------------------------------------------------------------------------------------------------- bounds --- */

/* The upper bound of 2 <y, e> - ||e||^2 from a dot. */
static __device__ __forceinline__ float upper(float slack, float scale, float reach, float page_scale,
                                              float squares, int dot)
{
    float length = 2.0f * sqrtf(squares) * (1.0f + slack);
    return ((float)dot * scale) * page_scale + (reach * length - squares * (1.0f - slack));
}

/* A block is a tile of rows (blockIdx.x) against RANGE_PAGES pages of centroids (blockIdx.y). */
template <int TILES>
static __global__ void __launch_bounds__(PD_TILE_THREADS, 4)
    bound_pages(PD_GRID const near_job job, PD_GRID const pd_tile tile)
{
    PD_SHARED float2 rows[8 * TILES]; /* scale, reach */
    PD_DYNAMIC(unsigned char, memory);
    uint2 *fragments = (uint2 *)memory;
    unsigned char *ring =
        memory + (size_t)tile.steps * TILES * 32 * sizeof(uint2) + (size_t)pd_warp() * PD_STAGES * tile.stage;
    uint32_t from = blockIdx.x * 8 * TILES, left = job.n - from, n = left < 8 * TILES ? left : 8 * TILES;
    if (threadIdx.x < 8 * TILES)
        rows[threadIdx.x] = threadIdx.x < n
                                ? make_float2(job.scale[from + threadIdx.x], job.reach[from + threadIdx.x])
                                : make_float2(0.0f, 0.0f);
    pd_tile_queries<TILES>(tile, n, fragments,
                           [=](uint32_t i) { return job.codes + (size_t)(from + i) * job.code_bytes; });
    __syncthreads();
    uint32_t g = pd_lane() / 4, t = pd_lane() % 4;
    uint32_t begin = blockIdx.y * RANGE_PAGES + pd_warp();
    uint32_t end =
        job.pages - blockIdx.y * RANGE_PAGES < RANGE_PAGES ? job.pages : (blockIdx.y + 1) * RANGE_PAGES;
    uint32_t pages = begin < end ? (end - begin + PD_TILE_WARPS - 1) / PD_TILE_WARPS : 0;
    pd_tile_walk<TILES>(
        tile, job.layout, job.coded, pages, fragments, (n + 7) / 8, ring,
        [=](uint32_t i) { return (begin + i * PD_TILE_WARPS) * (job.layout.page_bytes / 64); },
        [&](uint32_t i, int(&sums)[2][TILES][4], const float *scales, const float *terms) {
            float4 scale = *(const float4 *)(scales + 4 * g), term = *(const float4 *)(terms + 4 * g);
            PD_UNROLL
            for (int tq = 0; tq < TILES; tq++) {
                PD_UNROLL
                for (int j = 0; j < 2; j++) {
                    uint32_t at = (uint32_t)tq * 8 + 2 * t + (uint32_t)j;
                    float2 row = rows[at];
                    float a = upper(job.slack, row.x, row.y, scale.x, term.x, sums[0][tq][j]);
                    float b = upper(job.slack, row.x, row.y, scale.y, term.y, sums[0][tq][2 + j]);
                    float c = upper(job.slack, row.x, row.y, scale.z, term.z, sums[1][tq][j]);
                    float d = upper(job.slack, row.x, row.y, scale.w, term.w, sums[1][tq][2 + j]);
                    /* fmaxf leaves out what is no number, which must be looked at instead. */
                    float best = a + b + c + d;
                    best = best == best ? fmaxf(fmaxf(a, b), fmaxf(c, d)) : INFINITY;
                    for (uint32_t by = 4; by <= 16; by <<= 1)
                        best = fmaxf(best, __shfl_xor_sync(PD_ALL_LANES, best, (int)by));
                    if (g == 0 && at < n)
                        job.bests[(size_t)(from + at) * job.pages + begin + i * PD_TILE_WARPS] = best;
                }
            }
        });
}

/* ------------------------------------------------------------------------------------------------- nearest --- */

typedef struct near_best {
    uint32_t list;
    float gap, bar;
} near_best;

/* By a warp, all lanes with the same list. */
static __device__ void measure(const near_job &job, uint32_t row, uint32_t list, near_best *best)
{
    if (list >= job.nlist) return;
    float gap = -pd_half_refined(job.rows + (size_t)row * job.dim,
                                 (const unsigned char *)(job.centroids + (size_t)list * job.dim),
                                 PD_REFINE_F32, job.dim, 1);
    if (!(gap <= best->gap) || (gap == best->gap && list > best->list)) return;
    best->list = list;
    best->gap = gap;
    float squares = job.squares[row];
    /* The last term is for squares that are lost as subnormal. */
    best->bar = (squares - gap) - job.slack * (squares + gap) - 1e-36f;
}

/* By a warp: measures the lists of a page whose bounds reach the bar; `only`: the one with the largest bound. */
static __device__ void measure_page(const near_job &job, uint32_t row, uint32_t page, int only,
                                    near_best *best)
{
    const unsigned char *at = job.coded + (size_t)page * job.layout.page_bytes;
    int dot = pd_page_dot(at + job.layout.codes, (const uint32_t *)(job.codes + (size_t)row * job.code_bytes),
                          job.layout.dim4 / 4);
    uint32_t own = pd_lane_row();
    float bound =
        upper(job.slack, job.scale[row], job.reach[row], ((const float *)(at + job.layout.scale))[own],
              ((const float *)(at + job.layout.term))[own], dot);
    float bar = best->bar;
    if (only) {
        bar = bound == bound ? bound : INFINITY;
        for (uint32_t by = 16; by > 0; by >>= 1)
            bar = fmaxf(bar, __shfl_xor_sync(PD_ALL_LANES, bar, (int)by));
    }
    uint32_t some = __ballot_sync(PD_ALL_LANES, !(bound < bar));
    for (; some; some &= some - 1) {
        int lane = __ffs((int)some) - 1;
        measure(job, row, page * PD_PAGE_ROWS + __shfl_sync(PD_ALL_LANES, own, lane), best);
        if (only) return;
    }
}

/* A warp a row. */
static __global__ void find_nearest(PD_GRID const near_job job)
{
    uint32_t row = blockIdx.x * (blockDim.x / 32) + pd_warp();
    if (row >= job.n) return;
    const float *bests = job.bests + (size_t)row * job.pages;
    float largest = -FLT_MAX;
    uint32_t page = 0;
    for (uint32_t p = pd_lane(); p < job.pages; p += 32) {
        if (!(bests[p] > largest)) continue;
        largest = bests[p];
        page = p;
    }
    for (uint32_t by = 16; by > 0; by >>= 1) {
        float other = __shfl_xor_sync(PD_ALL_LANES, largest, (int)by);
        uint32_t its = __shfl_xor_sync(PD_ALL_LANES, page, (int)by);
        if (other > largest || (other == largest && its < page)) {
            largest = other;
            page = its;
        }
    }
    near_best best = {0, FLT_MAX, -FLT_MAX};
    measure_page(job, row, page, 1, &best);
    for (uint32_t first = 0; first < job.pages; first += 32) {
        uint32_t p = first + pd_lane();
        uint32_t some = __ballot_sync(PD_ALL_LANES, p < job.pages && !(bests[p] < best.bar));
        for (; some; some &= some - 1)
            measure_page(job, row, first + (uint32_t)__ffs((int)some) - 1, 0, &best);
    }
    if (pd_lane() == 0) job.lists[row] = best.list;
}

/* --------------------------------------------------------------------------------------------------- host --- */

typedef struct pd_cuda_assigner {
    float *known; /* [nlist][dim] the centroids, of the host */
    double *sums; /* [SLICES][dim] */
    pd_cuda_device *device;
    pd_cuda_lane lane;
    pd_cuda_batch memory; /* for pd_take: the lane's arena */
    near_job job;
    pd_tile tile;
    uint32_t piece; /* rows */
} pd_cuda_assigner;

/* Rows of a piece, of n in all. */
static uint32_t piece_of(uint32_t nlist, uint64_t n)
{
    size_t fit = PIECE_BYTES / (pd_pages_for(nlist) * sizeof(float));
    uint32_t most = fit < 32 ? 32 : fit < MOST_ROWS ? (uint32_t)fit : MOST_ROWS;
    return n < most ? (uint32_t)n : most;
}

static pd_status take_memory(pd_cuda_assigner *run, pd_error *err)
{
    near_job *job = &run->job;
    pd_cuda_batch *m = &run->memory;
    float *centroids, *rows;
    pd_status status = pd_take(m, (size_t)job->nlist * job->dim, "centroids", &centroids, err);
    if (status == PD_OK) status = pd_take(m, job->dim, "centroids", &job->mean, err);
    if (status == PD_OK) status = pd_take(m, (size_t)SLICES * job->dim, "centroids", &run->sums, err);
    if (status == PD_OK)
        status = pd_take(m, (size_t)job->pages * job->layout.page_bytes, "centroids", &job->coded, err);
    if (status == PD_OK) status = pd_take(m, 1, "centroids", &job->loss, err);
    if (status == PD_OK) status = pd_take(m, (size_t)run->piece * job->dim, "rows", &rows, err);
    if (status == PD_OK) status = pd_take(m, (size_t)run->piece * job->code_bytes, "rows", &job->codes, err);
    if (status == PD_OK) status = pd_take(m, run->piece, "rows", &job->scale, err);
    if (status == PD_OK) status = pd_take(m, run->piece, "rows", &job->reach, err);
    if (status == PD_OK) status = pd_take(m, run->piece, "rows", &job->squares, err);
    if (status == PD_OK) status = pd_take(m, (size_t)run->piece * job->pages, "bounds", &job->bests, err);
    if (status == PD_OK) status = pd_take(m, run->piece, "lists", &job->lists, err);
    if (status != PD_OK) return status;
    job->centroids = centroids;
    job->rows = rows;
    return PD_OK;
}

static pd_status open_run(pd_cuda_assigner *run, const float *centroids, uint32_t nlist, uint32_t dim,
                          pd_error *err)
{
    near_job *job = &run->job;
    pd_shape shape = {};
    pd_layout layout;
    shape.metric = PD_L2;
    shape.code = PD_CODE_I8;
    shape.dim = dim;
    shape.nlist = 1;
    pd_status status = pd_layout_of(&shape, &layout, err);
    if (status != PD_OK) return status;
    pd_cuda_view view;
    pd_cuda_view_of(&shape, &layout, &view);
    job->layout = view.layout;
    job->nlist = nlist;
    job->pages = pd_pages_for(nlist);
    job->dim = dim;
    job->code_bytes = (dim + 31u) & ~31u;
    job->slack = (float)(8 + dim / 2) * FLT_EPSILON;
    if (!pd_tile_cut(job->layout.dim4, run->device->shared_most, &run->tile))
        return pd_fail(err, PD_UNAVAILABLE,
                       "this device has %zu bytes of shared memory a block, %u are needed",
                       run->device->shared_most, run->tile.shared);
    status = take_memory(run, err);
    if (status != PD_OK) return status;
    size_t bytes = (size_t)nlist * dim * sizeof(float);
    cudaStream_t stream = run->lane.stream;
    cudaError_t error =
        cudaMemcpyAsync((void *)job->centroids, centroids, bytes, cudaMemcpyHostToDevice, stream);
    /* 0 in order: pd_ordered of the least loss there is. */
    uint32_t none = pd_ordered(0.0f);
    if (error == cudaSuccess)
        error = cudaMemcpyAsync(job->loss, &none, sizeof none, cudaMemcpyHostToDevice, stream);
    if (error == cudaSuccess) error = cudaStreamSynchronize(stream);
    if (error == cudaSuccess)
        error = PD_LAUNCH(sum_centroids, dim3(pd_blocks_of(dim, WARP_THREADS), SLICES), WARP_THREADS, 0,
                          stream, *job, run->sums);
    if (error == cudaSuccess)
        error =
            PD_LAUNCH(take_mean, pd_blocks_of(dim, WARP_THREADS), WARP_THREADS, 0, stream, *job, run->sums);
    if (error == cudaSuccess)
        error =
            PD_LAUNCH(encode_centroids, pd_blocks_of((size_t)job->pages * PD_PAGE_ROWS, WARP_THREADS / 32),
                      WARP_THREADS, 0, stream, *job);
    return pd_cuda_check(run->device, error, "preparing centroids", err);
}

template <int TILES> static cudaError_t launch_bounds(pd_cuda_assigner *run)
{
    cudaError_t error = PD_ALLOW_SHARED((bound_pages<TILES>), run->tile.shared);
    if (error != cudaSuccess) return error;
    dim3 grid(pd_blocks_of(run->job.n, 8 * TILES), pd_blocks_of(run->job.pages, RANGE_PAGES));
    return PD_LAUNCH((bound_pages<TILES>), grid, PD_TILE_THREADS, run->tile.shared, run->lane.stream,
                     run->job, run->tile);
}

/* The lists of n rows of the piece, which are on the device or on their way there; waits for them. */
static pd_status find_lists(pd_cuda_assigner *run, uint32_t n, uint32_t *lists, pd_error *err)
{
    near_job *job = &run->job;
    size_t out = n * sizeof *lists;
    cudaStream_t stream = run->lane.stream;
    pd_status status = pd_cuda_pinned_need(run->device, &run->lane.out, out, "lists", err);
    if (status != PD_OK) return status;
    job->n = n;
    uint32_t blocks = pd_blocks_of(n, WARP_THREADS / 32);
    cudaError_t error = PD_LAUNCH(encode_rows, blocks, WARP_THREADS, 0, stream, *job);
    if (error == cudaSuccess)
        error = run->tile.tiles == 4   ? launch_bounds<4>(run)
                : run->tile.tiles == 2 ? launch_bounds<2>(run)
                                       : launch_bounds<1>(run);
    if (error == cudaSuccess) error = PD_LAUNCH(find_nearest, blocks, WARP_THREADS, 0, stream, *job);
    if (error == cudaSuccess)
        error = cudaMemcpyAsync(run->lane.out.data, job->lists, out, cudaMemcpyDeviceToHost, stream);
    if (error == cudaSuccess) error = cudaStreamSynchronize(stream);
    status = pd_cuda_check(run->device, error, "assigning rows", err);
    if (status == PD_OK) memcpy(lists, run->lane.out.data, out);
    return status;
}

static pd_status bring_rows(pd_cuda_assigner *run, const float *rows, uint32_t n, pd_error *err)
{
    size_t bytes = (size_t)n * run->job.dim * sizeof(float);
    pd_status status = pd_cuda_pinned_need(run->device, &run->lane.in, bytes, "rows", err);
    if (status != PD_OK) return status;
    memcpy(run->lane.in.data, rows, bytes);
    return pd_cuda_check(run->device,
                         cudaMemcpyAsync((void *)run->job.rows, run->lane.in.data, bytes,
                                         cudaMemcpyHostToDevice, run->lane.stream),
                         "assigning rows", err);
}

void pd_cuda_assigner_close(pd_cuda_device *device)
{
    pd_cuda_assigner *run = device->assigner;
    if (!run) return;
    pd_cuda_lane_close(&run->lane);
    free(run->known);
    free(run);
    device->assigner = NULL;
}

/* Centroids made ready, unless they are those of the call before. */
static pd_status ready_run(pd_cuda_device *device, const float *centroids, uint32_t nlist, uint32_t dim,
                           uint64_t n, pd_error *err)
{
    pd_cuda_assigner *run = device->assigner;
    size_t bytes = (size_t)nlist * dim * sizeof(float);
    uint32_t piece = piece_of(nlist, n);
    if (run && run->job.nlist == nlist && run->job.dim == dim && run->piece >= piece &&
        memcmp(run->known, centroids, bytes) == 0)
        return PD_OK;
    if (!run) {
        run = device->assigner = (pd_cuda_assigner *)calloc(1, sizeof *run);
        if (!run) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to assign rows");
        run->device = device;
        run->memory.device = device;
        run->memory.lane = &run->lane;
        pd_status status = pd_cuda_lane_open(device, &run->lane, err);
        if (status != PD_OK) return status;
    }
    free(run->known);
    run->known = (float *)malloc(bytes);
    if (!run->known)
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the centroids of %u lists", nlist);
    memcpy(run->known, centroids, bytes);
    run->piece = piece;
    pd_status status = pd_cuda_arena_reset(device, &run->lane.arena, err);
    return status == PD_OK ? open_run(run, centroids, nlist, dim, err) : status;
}

pd_status pd_cuda_assign_all(pd_cuda_device *device, const float *centroids, uint32_t nlist, uint32_t dim,
                             const pd_cuda_rows *rows, uint32_t *lists, pd_error *err)
{
    pd_status status = pd_cuda_enter(device, err);
    if (status != PD_OK || rows->n == 0) return status;
    status = ready_run(device, centroids, nlist, dim, rows->n, err);
    pd_cuda_assigner *run = device->assigner;
    for (uint64_t done = 0; status == PD_OK && done < rows->n; done += run->piece) {
        uint32_t n = rows->n - done < run->piece ? (uint32_t)(rows->n - done) : run->piece;
        if (rows->host)
            status = bring_rows(run, rows->host + done * dim, n, err);
        else
            status = pd_cuda_check(
                device, rows->make(rows->context, done, n, (float *)run->job.rows, run->lane.stream),
                "making rows", err);
        if (status == PD_OK) status = find_lists(run, n, lists + done, err);
        if (status == PD_OK && rows->take)
            status = rows->take(rows->context, run->job.rows, lists + done, n, run->lane.stream, err);
    }
    if (status != PD_OK) pd_cuda_assigner_close(device);
    return status;
}

pd_status pd_cuda_assign(pd_device *base, const float *centroids, uint32_t nlist, uint32_t dim,
                         const float *rows, uint64_t n, uint32_t *lists, pd_error *err)
{
    pd_cuda_rows all = {};
    all.n = n;
    all.host = rows;
    return pd_cuda_assign_all((pd_cuda_device *)base, centroids, nlist, dim, &all, lists, err);
}

pd_status pd_cuda_assign_source(pd_cuda_device *device, const float *centroids, uint32_t nlist,
                                const pd_cuda_source *source, uint32_t *lists, pd_error *err)
{
    pd_cuda_rows all = {};
    all.n = source->n;
    all.make = source->rows;
    all.context = source->context;
    return pd_cuda_assign_all(device, centroids, nlist, source->dim, &all, lists, err);
}
