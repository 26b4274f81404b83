/* Integer dots of up to 8 * TILES queries with the rows of many pages, by matrix instructions: what choosing lists and scanning
 * them have in common.
 *
 * Every warp of a block goes through pages of its own, for the same queries. A page comes into the warp's ring in shared memory by
 * asynchronous copies, a chunk of up to 128 dimensions at a time, PD_STAGES - 1 chunks ahead, so that no warp waits for
 * another. The queries' codes lie beside the rings as the instruction wants them (columns of b), made once.
 *
 * A page's codes are [dim4 / 4][32 rows][4]: 128 bytes a group of four dimensions. With g = lane / 4 and t = lane % 4, one 16-byte
 * read of group t gives a lane the rows 4g .. 4g + 3, which are the rows g and g + 8 of two instructions: no row moves,
 * only their numbers, and a lane ends with four neighbouring rows of each of its two queries. So that eight lanes' reads
 * fall on all banks, 16-byte piece p of group i lies at place p ^ 2 (i % 4).
 */
#ifndef PD_CUDA_TILE_CUH
#define PD_CUDA_TILE_CUH

#include "row.cuh"

#define PD_TILE_WARPS   4u
#define PD_TILE_THREADS (32u * PD_TILE_WARPS)
#define PD_STAGES       3u
#define PD_GROUP_BYTES  128u /* four dimensions of a page's rows */

/* How dots are cut for codes of one width. Groups count four dimensions. */
typedef struct pd_tile {
    uint32_t groups; /* of a page */
    uint32_t chunk;  /* of a chunk, a multiple of 8 */
    uint32_t chunks; /* of a page */
    uint32_t steps;  /* of 32 dimensions: instructions a page, tile of queries and 16 rows */
    uint32_t stage;  /* bytes: a chunk, scales, terms */
    uint32_t tiles;  /* of 8 queries */
    uint32_t shared; /* bytes of fragments and rings */
} pd_tile;

static inline size_t pd_tile_fragments(const pd_tile *tile)
{
    return (size_t)tile->steps * tile->tiles * 32 * sizeof(uint2);
}

/* The widest tile (of 4, 2 or 1 times 8 queries) and the longest chunk for which `most` bytes of shared memory do. Returns 0
 * where none does. */
static inline int pd_tile_cut(uint32_t dim4, size_t most, pd_tile *out)
{
    pd_tile tile = {};
    tile.groups = dim4 / 4;
    tile.steps = (tile.groups + 7) / 8;
    for (tile.tiles = 4; tile.tiles > 0; tile.tiles /= 2) {
        if (tile.tiles > 1 && pd_tile_fragments(&tile) > ((size_t)64 << 10)) continue;
        for (tile.chunk = tile.steps < 4 ? 8 * tile.steps : 32; tile.chunk > 0; tile.chunk -= 8) {
            tile.chunks = (tile.groups + tile.chunk - 1) / tile.chunk;
            tile.stage = tile.chunk * PD_GROUP_BYTES + 2 * PD_PAGE_ROWS * sizeof(float);
            size_t shared = pd_tile_fragments(&tile) + (size_t)PD_TILE_WARPS * PD_STAGES * tile.stage;
            tile.shared = (uint32_t)shared;
            *out = tile;
            if (shared <= most) return 1;
        }
    }
    return 0;
}

/* By a block: the codes of n queries, each at codes(i), become the columns of b; those behind n are zeros.
 * fragments: [steps][TILES][32] */
template <int TILES, typename Codes>
static __device__ __forceinline__ void pd_tile_queries(const pd_tile &tile, uint32_t n, uint2 *fragments,
                                                       Codes codes)
{
    for (uint32_t i = threadIdx.x; i < tile.steps * TILES * 32; i += blockDim.x) {
        uint32_t lane = i % 32, query = i / 32 % TILES * 8 + lane / 4, step = i / 32 / TILES;
        uint2 words = make_uint2(0, 0);
        if (query < n) {
            const uint32_t *from = (const uint32_t *)codes(query) + step * 8 + lane % 4;
            words = make_uint2(from[0], from[4]);
        }
        fragments[i] = words;
    }
}

/* Where a warp is in its pages. */
typedef struct pd_tile_cursor {
    uint32_t page, chunk, stage;
} pd_tile_cursor;

static __device__ __forceinline__ void pd_tile_next(const pd_tile &tile, pd_tile_cursor *at)
{
    at->stage = at->stage + 1 == PD_STAGES ? 0 : at->stage + 1;
    if (++at->chunk < tile.chunks) return;
    at->chunk = 0;
    at->page++;
}

/* Asks for one chunk; the last of a page brings scales and terms. */
static __device__ __forceinline__ void pd_tile_ask(const pd_tile &tile, const pd_cuda_layout &layout,
                                                   const unsigned char *page, uint32_t chunk,
                                                   unsigned char *stage)
{
    uint32_t first = chunk * tile.chunk, left = tile.groups - first;
    uint32_t pieces = (left < tile.chunk ? left : tile.chunk) * 8;
    const unsigned char *codes = page + layout.codes + (size_t)first * PD_GROUP_BYTES;
    for (uint32_t i = pd_lane(); i < pieces; i += 32) {
        uint32_t group = i / 8, piece = i % 8;
        pd_async_copy16(stage + group * PD_GROUP_BYTES + ((piece ^ (2 * (group % 4))) * 16),
                        codes + (size_t)i * 16);
    }
    if (chunk + 1 < tile.chunks || pd_lane() >= 16) return;
    uint32_t column = pd_lane() < 8 ? layout.scale : layout.term;
    pd_async_copy16(stage + tile.chunk * PD_GROUP_BYTES + pd_lane() * 16, page + column + pd_lane() % 8 * 16);
}

/* sums[h][i]: rows 4g + 2h, 4g + 2h + 1 and queries 8i + 2t, 8i + 2t + 1, as pd_mma_i8 lays out d. Only the first `used` of
 * the TILES have queries; the sums of others stay as they are. */
template <int TILES>
static __device__ __forceinline__ void pd_tile_dots(const pd_tile &tile, const unsigned char *stage,
                                                    uint32_t chunk, const uint2 *fragments, uint32_t used,
                                                    int (&sums)[2][TILES][4])
{
    uint32_t g = pd_lane() / 4, t = pd_lane() % 4, first = chunk * tile.chunk / 8;
    uint32_t steps = tile.steps - first < tile.chunk / 8 ? tile.steps - first : tile.chunk / 8;
    const unsigned char *at = stage + t * PD_GROUP_BYTES + ((g ^ (2 * t)) * 16);
    const uint2 *columns = fragments + (size_t)first * TILES * 32 + pd_lane();
    for (uint32_t step = 0; step < steps; step++) {
        uint4 low = *(const uint4 *)(at + step * 8 * PD_GROUP_BYTES);
        uint4 high = *(const uint4 *)(at + (step * 8 + 4) * PD_GROUP_BYTES);
        uint32_t upper[4] = {low.x, low.y, high.x, high.y}, lower[4] = {low.z, low.w, high.z, high.w};
        PD_UNROLL
        for (int i = 0; i < TILES; i++) {
            if ((uint32_t)i >= used) continue;
            uint2 words = columns[(step * TILES + i) * 32];
            uint32_t column[2] = {words.x, words.y};
            pd_mma_i8(sums[0][i], upper, column);
            pd_mma_i8(sums[1][i], lower, column);
        }
    }
}

/* By a warp: goes through npages pages. where(i): the i-th page in units of 64 bytes from base, asked by one lane for 32
 * of them at a time. done(i, sums, scales, terms): the page's dots are there; scales and terms: [32] in shared memory.
 * used: of the TILES, as many as have queries. ring: [PD_STAGES][stage] of this warp. */
template <int TILES, typename Where, typename Done>
static __device__ __forceinline__ void
pd_tile_walk(const pd_tile &tile, const pd_cuda_layout &layout, const unsigned char *base, uint32_t npages,
             const uint2 *fragments, uint32_t used, unsigned char *ring, Where where, Done done)
{
    pd_tile_cursor ask = {0, 0, 0}, take = {0, 0, 0};
    uint32_t places = 0;
    int sums[2][TILES][4];
    __syncwarp();
    for (uint32_t ahead = 0; take.page < npages; ahead++) {
        if (ask.page < npages) {
            if (ask.chunk == 0 && ask.page % 32 == 0) {
                uint32_t i = ask.page + pd_lane();
                places = i < npages ? where(i) : 0;
            }
            const unsigned char *page =
                base + (size_t)__shfl_sync(PD_ALL_LANES, places, (int)(ask.page % 32)) * 64;
            pd_tile_ask(tile, layout, page, ask.chunk, ring + ask.stage * tile.stage);
            pd_tile_next(tile, &ask);
        }
        pd_async_commit();
        if (ahead + 1 < PD_STAGES) continue;
        pd_async_wait<(int)PD_STAGES - 1>();
        __syncwarp();
        if (take.chunk == 0) {
            PD_UNROLL
            for (int i = 0; i < TILES; i++) {
                PD_UNROLL
                for (int j = 0; j < 4; j++)
                    sums[0][i][j] = sums[1][i][j] = 0;
            }
        }
        const unsigned char *stage = ring + take.stage * tile.stage;
        pd_tile_dots<TILES>(tile, stage, take.chunk, fragments, used, sums);
        if (take.chunk + 1 == tile.chunks) {
            const float *scales = (const float *)(stage + tile.chunk * PD_GROUP_BYTES);
            done(take.page, sums, scales, scales + PD_PAGE_ROWS);
        }
        pd_tile_next(tile, &take);
        /* The next chunk asked for goes where this one lay. */
        __syncwarp();
    }
    pd_async_wait<0>();
}

#endif
