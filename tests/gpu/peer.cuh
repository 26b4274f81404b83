/* What a machine without Pados has: every row multiplied with every query by cuBLAS, and the k best of each query's scores.
 *
 * Rows lie on the device as f16, or as i8 with one scale for all, with their squared lengths beside them. They go by in pieces:
 * cuBLAS writes the dots of all of the batch's queries with a piece (f32, or i32), and peer_select reads them once: a block has a query
 * and a slice of the piece, and lets through what beats the k-th best of the pieces before, which is next to nothing after the first
 * few. Where a query has several slices, peer_merge cuts their bests down. So the floor of an answer is the product's operations, the
 * rows once, and the dots written once and read once. What comes out is exactly the k best of the dots; of ties the smaller row number.
 *
 * Queries are on the device before, and answers stay there, in no order: what is timed has no copy and no sort in it. */
#ifndef PD_GPU_PEER_CUH
#define PD_GPU_PEER_CUH

#include <cublas_v2.h>

#include "block.cuh"
#include "build.cuh"
#include "f16.h"

#define PEER_THREADS 256u
#define PEER_EACH    8u /* dots of a thread between two barriers */
#define PEER_CHUNK   (PEER_THREADS * PEER_EACH)
#define PEER_ROOM    (PEER_CHUNK + 1024u) /* candidates of a block */
#define PEER_BLOCKS  16u                  /* for each multiprocessor, where queries are few */
#define PEER_EVEN    32u                  /* rows that are multiplied come in so many: i8 products want 4 */
#define PEER_ENCODES 65536u               /* rows that are made at a time */
#ifndef PEER_MOST
#define PEER_MOST (1u << 22) /* rows of a piece */
#endif

/* Vectors as cuBLAS takes them. */
typedef struct peer_vectors {
    void *data;   /* [n][ld] f16 or i8, zeros behind dim and behind the last */
    float *norms; /* [n] squared lengths of what data stands for */
    uint64_t n;
    float scale; /* of i8: a value is scale * its code. f16: 1 */
} peer_vectors;

typedef struct peer_search {
    pd_cuda_device *device;
    cudaStream_t stream;
    cublasHandle_t cublas;
    int whole; /* i8, else f16 */
    uint32_t dim, ld, k;
    peer_vectors rows, queries;
    void *dots;       /* [dot_bytes / 4] f32 or i32 */
    size_t dot_bytes; /* at most so many are used at a time */
    /* [batch][slices * k] pd_ordered; in front: the best of all pieces so far. Score 0: nothing, and no two slots are the same. */
    uint32_t *scores, *slots;
    uint32_t *bars;  /* [batch] pd_ordered: the k-th best so far */
    uint32_t stride; /* slices * k of the last batch */
    size_t places;   /* room in scores and slots */
} peer_search;

/* A piece as kernels see it. */
typedef struct peer_piece {
    const void *dots;   /* [batch][room] */
    const float *norms; /* [n] of the piece's rows */
    uint32_t first, n, room, slice, slices, k;
    float factor; /* of dots, so that the squared distance is the query's norm - (factor * dot - norm) */
    uint32_t *scores, *slots, *bars;
} peer_piece;

/* ------------------------------------------------------------------------------------------------- vectors --- */

/* A warp a vector. */
static __global__ void peer_encode(const float *from, uint32_t n, uint32_t dim, uint32_t ld, int whole,
                                   float scale, uint64_t first, void *to, float *norms)
{
    uint32_t i = blockIdx.x * (blockDim.x / 32) + pd_warp();
    if (i >= n) return;
    float norm = 0.0f;
    for (uint32_t d = pd_lane(); d < ld; d += 32) {
        float value = d < dim ? from[(size_t)i * dim + d] : 0.0f;
        size_t at = (first + i) * ld + d;
        if (whole) {
            float code = scale > 0.0f ? rintf(value / scale) : 0.0f;
            code = fminf(fmaxf(code, -127.0f), 127.0f);
            ((int8_t *)to)[at] = (int8_t)code;
            value = scale * code;
        } else {
            pd_f16 half = pd_f32_to_f16(value);
            ((pd_f16 *)to)[at] = half;
            value = pd_f16_to_f32(half);
        }
        norm += value * value;
    }
    for (uint32_t by = 16; by > 0; by >>= 1)
        norm += __shfl_xor_sync(PD_ALL_LANES, norm, (int)by);
    if (pd_lane() == 0) norms[first + i] = norm;
}

/* *most: pd_ordered, the largest of |values|. */
static __global__ void peer_largest(const float *values, size_t n, uint32_t *most)
{
    float own = 0.0f;
    for (size_t i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (size_t)gridDim.x * blockDim.x)
        own = fmaxf(own, fabsf(values[i]));
    for (uint32_t by = 16; by > 0; by >>= 1)
        own = fmaxf(own, __shfl_xor_sync(PD_ALL_LANES, own, (int)by));
    if (pd_lane() == 0) atomicMax(most, pd_ordered(own));
}

/* ----------------------------------------------------------------------------------------------- selecting --- */

typedef struct peer_block {
    pd_block_work work;
    uint32_t scores[PEER_ROOM], slots[PEER_ROOM];
    uint32_t count;
} peer_block;

/* The best k of a block's candidates; *bar rises to the k-th. Returns how many are left. */
static __device__ uint32_t peer_cut(peer_block *block, uint32_t count, uint32_t k, uint32_t *bar)
{
    uint32_t *slots = block->slots, worst = 0;
    count = pd_block_cut(&block->work, block->scores, slots, NULL, count, k, &worst,
                         [=](uint32_t i) { return (pd_key)slots[i]; });
    *bar = worst > *bar ? worst : *bar;
    return count;
}

/* A block is a query (blockIdx.x: neighbours read the same norms at the same time) and a slice of the piece (blockIdx.y). Rows come in
 * the order of their numbers, so that one which ties with the bar is behind those that set it. */
template <typename Dot>
static __global__ void __launch_bounds__(PEER_THREADS) peer_select(PD_GRID const peer_piece piece)
{
    PD_SHARED peer_block block;
    uint32_t q = blockIdx.x, k = piece.k, count = 0, bar = piece.bars[q];
    uint32_t begin = blockIdx.y * piece.slice, behind = begin + piece.slice;
    uint32_t end = behind < piece.n ? behind : piece.n; /* a last piece may have no rows for some slices */
    size_t to = ((size_t)q * piece.slices + blockIdx.y) * k;
    const Dot *dots = (const Dot *)piece.dots + (size_t)q * piece.room;
    if (blockIdx.y == 0) {
        count = k;
        for (uint32_t i = threadIdx.x; i < k; i += blockDim.x) {
            block.scores[i] = piece.scores[to + i];
            block.slots[i] = block.scores[i] ? piece.slots[to + i] : ~i;
        }
    }
    if (threadIdx.x == 0) block.count = count;
    __syncthreads();
    for (uint32_t chunk = begin; chunk < end; chunk += PEER_CHUNK) {
        float least = bar ? pd_unordered(bar) : -INFINITY, score[PEER_EACH];
        int some = 0;
        PD_UNROLL
        for (uint32_t half = 0; half < PEER_EACH; half += 4) {
            uint32_t at = chunk + (half * PEER_THREADS) + 4 * threadIdx.x;
            PD_UNROLL
            for (uint32_t j = 0; j < 4; j++)
                score[half + j] = -INFINITY;
            if (at >= end) continue;
            Dot dot[4];
            float norm[4];
            *(uint4 *)dot = *(const uint4 *)(dots + at);
            *(float4 *)norm = *(const float4 *)(piece.norms + at);
            PD_UNROLL
            for (uint32_t j = 0; j < 4; j++)
                if (at + j < end) score[half + j] = (float)dot[j] * piece.factor - norm[j];
        }
        PD_UNROLL
        for (uint32_t j = 0; j < PEER_EACH; j++)
            some |= score[j] > least;
        if (!__syncthreads_or(some)) continue;
        PD_UNROLL
        for (uint32_t j = 0; j < PEER_EACH; j++) {
            if (!(score[j] > least)) continue;
            uint32_t place = atomicAdd(&block.count, 1u);
            block.scores[place] = pd_ordered(score[j]);
            block.slots[place] = piece.first + chunk + j / 4 * 4 * PEER_THREADS + 4 * threadIdx.x + j % 4;
        }
        __syncthreads();
        count = block.count;
        __syncthreads();
        if (count <= PEER_ROOM - PEER_CHUNK) continue;
        count = peer_cut(&block, count, k, &bar);
        if (threadIdx.x == 0) block.count = count;
        __syncthreads();
    }
    count = peer_cut(&block, block.count, k, &bar);
    for (uint32_t i = threadIdx.x; i < k; i += blockDim.x) {
        piece.scores[to + i] = i < count ? block.scores[i] : 0;
        piece.slots[to + i] = i < count ? block.slots[i] : ~(blockIdx.y * k + i);
    }
    if (piece.slices == 1 && threadIdx.x == 0) piece.bars[q] = bar;
}

/* A block a query: the slices' bests become the first k. */
static __global__ void __launch_bounds__(PEER_THREADS) peer_merge(PD_GRID const peer_piece piece)
{
    PD_SHARED pd_block_work work;
    uint32_t q = blockIdx.x, all = piece.slices * piece.k, bar = 0;
    uint32_t *scores = piece.scores + (size_t)q * all, *slots = piece.slots + (size_t)q * all;
    pd_block_cut(&work, scores, slots, NULL, all, piece.k, &bar,
                 [=](uint32_t i) { return (pd_key)slots[i]; });
    if (threadIdx.x == 0) piece.bars[q] = bar;
}

/* ------------------------------------------------------------------------------------------------- opening --- */

static inline pd_status peer_say(cublasStatus_t status, const char *doing, pd_error *err)
{
    if (status == CUBLAS_STATUS_SUCCESS) return PD_OK;
    return pd_fail(err, PD_UNAVAILABLE, "cuBLAS, %s: %s", doing, cublasGetStatusName(status));
}

static inline void peer_close(peer_search *p)
{
    if (p->stream) (void)cudaStreamSynchronize(p->stream);
    if (p->cublas) cublasDestroy(p->cublas);
    void *all[] = {p->rows.data, p->rows.norms, p->queries.data, p->queries.norms,
                   p->dots,      p->scores,     p->slots,        p->bars};
    for (void *memory : all)
        if (memory) cudaFree(memory);
    memset(p, 0, sizeof *p);
}

/* A source of vectors that the host has. */
typedef struct peer_host {
    const float *vectors; /* [n][dim] */
    uint32_t dim;
} peer_host;

static cudaError_t peer_host_rows(void *context, uint64_t first, uint32_t n, float *rows, cudaStream_t stream)
{
    const peer_host *host = (const peer_host *)context;
    return cudaMemcpyAsync(rows, host->vectors + first * host->dim, (size_t)n * host->dim * sizeof *rows,
                           cudaMemcpyHostToDevice, stream);
}

/* Takes the source's vectors in. room: [PEER_ENCODES][dim], most: one, both of the device */
static inline cudaError_t peer_take(peer_search *p, const pd_cuda_source *source, float *room, uint32_t *most,
                                    peer_vectors *out)
{
    size_t each = p->whole ? sizeof(int8_t) : sizeof(pd_f16);
    uint32_t order = 0, some;
    out->n = source->n;
    out->scale = 1.0f;
    size_t all = (size_t)source->n * p->ld * each, behind = (size_t)PEER_EVEN * p->ld * each;
    cudaError_t error = cudaMalloc(&out->data, all + behind);
    if (error == cudaSuccess) error = cudaMemsetAsync((char *)out->data + all, 0, behind, p->stream);
    if (error == cudaSuccess)
        error = cudaMalloc((void **)&out->norms, (source->n + PEER_EVEN) * sizeof(float));
    if (error == cudaSuccess) error = cudaMemsetAsync(most, 0, sizeof *most, p->stream);
    for (int pass = p->whole ? 0 : 1; pass < 2; pass++) {
        for (uint64_t done = 0; error == cudaSuccess && done < source->n; done += some) {
            some = source->n - done < PEER_ENCODES ? (uint32_t)(source->n - done) : PEER_ENCODES;
            error = source->rows(source->context, done, some, room, p->stream);
            if (error != cudaSuccess) break;
            if (pass == 0)
                error = PD_LAUNCH(peer_largest, 64, PEER_THREADS, 0, p->stream, room, (size_t)some * p->dim,
                                  most);
            else
                error =
                    PD_LAUNCH(peer_encode, pd_blocks_of(some, PEER_THREADS / 32), PEER_THREADS, 0, p->stream,
                              room, some, p->dim, p->ld, p->whole, out->scale, done, out->data, out->norms);
        }
        if (pass == 0 && error == cudaSuccess)
            error = cudaMemcpyAsync(&order, most, sizeof order, cudaMemcpyDeviceToHost, p->stream);
        if (error == cudaSuccess) error = cudaStreamSynchronize(p->stream);
        if (pass == 0 && error == cudaSuccess) out->scale = pd_unordered(order) / 127.0f;
    }
    return error;
}

/* Rows and queries come from sources of p->dim dimensions; whole: as i8. A failure leaves nothing open. */
static inline pd_status peer_open(pd_cuda_device *device, const pd_cuda_source *rows,
                                  const pd_cuda_source *queries, int whole, uint32_t k, size_t dot_bytes,
                                  peer_search *p, pd_error *err)
{
    float *room = NULL;
    uint32_t *most = NULL;
    memset(p, 0, sizeof *p);
    p->device = device;
    p->stream = device->side.stream;
    p->whole = whole;
    p->dim = rows->dim;
    p->ld = whole ? (rows->dim + 15u) & ~15u : (rows->dim + 7u) & ~7u; /* 16 bytes: fast products want them */
    p->k = k;
    p->dot_bytes = dot_bytes;
    pd_status status = pd_cuda_enter(device, err);
    if (status == PD_OK) status = peer_say(cublasCreate(&p->cublas), "opening", err);
    if (status == PD_OK) status = peer_say(cublasSetStream(p->cublas, p->stream), "opening", err);
    if (status != PD_OK) {
        peer_close(p);
        return status;
    }
    p->places = (queries->n + PEER_BLOCKS * (size_t)device->sms + 1) * k; /* of any batch: peer_cut_up */
    cudaError_t error = cudaMalloc((void **)&room, (size_t)PEER_ENCODES * p->dim * sizeof *room);
    if (error == cudaSuccess) error = cudaMalloc((void **)&most, sizeof *most);
    if (error == cudaSuccess) error = cudaMalloc(&p->dots, dot_bytes);
    if (error == cudaSuccess) error = cudaMalloc((void **)&p->scores, p->places * sizeof *p->scores);
    if (error == cudaSuccess) error = cudaMalloc((void **)&p->slots, p->places * sizeof *p->slots);
    if (error == cudaSuccess) error = cudaMalloc((void **)&p->bars, queries->n * sizeof *p->bars);
    if (error == cudaSuccess) error = peer_take(p, rows, room, most, &p->rows);
    if (error == cudaSuccess) error = peer_take(p, queries, room, most, &p->queries);
    if (room) cudaFree(room);
    if (most) cudaFree(most);
    status = pd_cuda_check(device, error, "opening the peer", err);
    if (status != PD_OK) peer_close(p);
    return status;
}

/* ------------------------------------------------------------------------------------------------ answering --- */

/* dots: [n][room], of n queries with m rows; both are even (PEER_EVEN). */
static inline cublasStatus_t peer_product(peer_search *p, const void *rows, const void *queries, uint32_t m,
                                          uint32_t n, uint32_t ld, uint32_t room)
{
    const float one = 1.0f, none = 0.0f;
    const int32_t whole_one = 1, whole_none = 0;
    cudaDataType_t in = p->whole ? CUDA_R_8I : CUDA_R_16F, out = p->whole ? CUDA_R_32I : CUDA_R_32F;
    return cublasGemmEx(p->cublas, CUBLAS_OP_T, CUBLAS_OP_N, (int)m, (int)n, (int)ld,
                        p->whole ? (const void *)&whole_one : (const void *)&one, rows, in, (int)ld, queries,
                        in, (int)ld, p->whole ? (const void *)&whole_none : (const void *)&none, p->dots, out,
                        (int)room, p->whole ? CUBLAS_COMPUTE_32I : CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
}

static inline void peer_cut_up(const peer_search *p, uint32_t batch, peer_piece *piece)
{
    uint32_t want = PEER_BLOCKS * (uint32_t)p->device->sms / batch + 1;
    uint32_t chunks = pd_blocks_of(piece->room, PEER_CHUNK), slices = want < chunks ? want : chunks;
    piece->slice = pd_blocks_of(chunks, slices) * PEER_CHUNK;
    piece->slices = pd_blocks_of(piece->room, piece->slice);
}

/* Enqueues the search of queries first .. first + batch - 1 among the first n rows, with dot_bytes of dots at a time. */
static inline pd_status peer_ask(peer_search *p, uint32_t first, uint32_t batch, uint64_t n, size_t dot_bytes,
                                 pd_error *err)
{
    size_t each = p->whole ? sizeof(int8_t) : sizeof(pd_f16), fit = dot_bytes / sizeof(float) / batch;
    peer_piece piece = {};
    fit = fit > PEER_MOST ? PEER_MOST : fit;
    piece.room = (uint32_t)(fit < PEER_EVEN ? PEER_EVEN : fit / PEER_EVEN * PEER_EVEN);
    if (piece.room > n) piece.room = (uint32_t)((n + PEER_EVEN - 1) / PEER_EVEN * PEER_EVEN);
    peer_cut_up(p, batch, &piece);
    if ((size_t)piece.room * batch * sizeof(float) > p->dot_bytes ||
        (size_t)batch * piece.slices * p->k > p->places || first + (uint64_t)batch > p->queries.n ||
        n > p->rows.n)
        return pd_fail(err, PD_INVALID_ARGUMENT, "the peer has no room for %u queries of %llu rows", batch,
                       (unsigned long long)n);
    piece.dots = p->dots;
    piece.k = p->k;
    piece.factor = 2.0f * p->rows.scale * p->queries.scale;
    piece.scores = p->scores;
    piece.slots = p->slots;
    piece.bars = p->bars;
    p->stride = piece.slices * p->k;
    const char *queries = (const char *)p->queries.data + (size_t)first * p->ld * each;
    cudaError_t error =
        cudaMemsetAsync(p->scores, 0, (size_t)batch * p->stride * sizeof *p->scores, p->stream);
    if (error == cudaSuccess) error = cudaMemsetAsync(p->bars, 0, batch * sizeof *p->bars, p->stream);
    pd_status status = PD_OK;
    for (uint64_t done = 0; status == PD_OK && error == cudaSuccess && done < n; done += piece.n) {
        piece.first = (uint32_t)done;
        piece.n = n - done < piece.room ? (uint32_t)(n - done) : piece.room;
        piece.norms = p->rows.norms + done;
        uint32_t even = (piece.n + PEER_EVEN - 1) / PEER_EVEN * PEER_EVEN;
        status = peer_say(peer_product(p, (const char *)p->rows.data + done * p->ld * each, queries, even,
                                       batch, p->ld, piece.room),
                          "multiplying", err);
        if (status != PD_OK) return status;
        dim3 grid(batch, piece.slices);
        error = p->whole ? PD_LAUNCH((peer_select<int32_t>), grid, PEER_THREADS, 0, p->stream, piece)
                         : PD_LAUNCH((peer_select<float>), grid, PEER_THREADS, 0, p->stream, piece);
        if (error == cudaSuccess && piece.slices > 1)
            error = PD_LAUNCH(peer_merge, batch, PEER_THREADS, 0, p->stream, piece);
    }
    return pd_cuda_check(p->device, error, "asking the peer", err);
}

/* Row numbers of the last batch's best, PD_NONE where there are fewer: rows [batch][k] of the host. */
static inline pd_status peer_read(peer_search *p, uint32_t batch, uint32_t *rows, pd_error *err)
{
    size_t all = (size_t)batch * p->stride;
    uint32_t *both = (uint32_t *)malloc(2 * all * sizeof *both);
    if (!both) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the peer's answers");
    cudaError_t error =
        cudaMemcpyAsync(both, p->scores, all * sizeof *both, cudaMemcpyDeviceToHost, p->stream);
    if (error == cudaSuccess)
        error = cudaMemcpyAsync(both + all, p->slots, all * sizeof *both, cudaMemcpyDeviceToHost, p->stream);
    if (error == cudaSuccess) error = cudaStreamSynchronize(p->stream);
    for (uint32_t q = 0; error == cudaSuccess && q < batch; q++)
        for (uint32_t i = 0; i < p->k; i++) {
            size_t at = (size_t)q * p->stride + i;
            rows[(size_t)q * p->k + i] = both[at] ? both[all + at] : PD_NONE;
        }
    free(both);
    return pd_cuda_check(p->device, error, "reading the peer's answers", err);
}

#endif
