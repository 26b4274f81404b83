/* The hot loops, compiled once for each instruction set: PD_OPS names the table, PD_OPS_ISA the set.
 *
 * Queries go through a page in blocks of BLOCK, so that codes are read (and widened) once for all of a block; BLOCK x
 * the vectors of a pass fill the registers. Sums of 16 lanes are cut the other way where a register is narrower than 16
 * floats: first lanes 0 .. VF - 1 of the whole row, then the next. A lane does not notice.
 */
#include "ops.h"

#include <stddef.h>

#include "fmath.h"
#include "vector.h"

#define INLINE static inline __attribute__((always_inline))
#define BLOCK  4u

/* ---------------------------------------------------------------------------------------------- i8 codes --- */

/* n queries, `wide` vectors of rows at a time. */
INLINE void dots_block(const int8_t *codes, uint32_t groups, const int16_t *const *queries, const uint32_t n,
                       const uint32_t wide, int32_t *out)
{
    for (uint32_t row = 0; row < PD_PAGE_ROWS; row += wide * VR) {
        vint sum[BLOCK][8];
#pragma GCC unroll 4
        for (uint32_t i = 0; i < n; i++)
#pragma GCC unroll 8
            for (uint32_t v = 0; v < wide; v++)
                sum[i][v] = (vint){0};
        const int8_t *at = codes + row * 4;
        for (uint32_t g = 0; g < groups; g++, at += PD_PAGE_ROWS * 4) {
            vshort code[8];
#pragma GCC unroll 8
            for (uint32_t v = 0; v < wide; v++)
                code[v] = v_widen(at + v * (VB / 2));
#pragma GCC unroll 4
            for (uint32_t i = 0; i < n; i++) {
                vshort query = v_splat4(queries[i] + 4 * g);
#pragma GCC unroll 8
                for (uint32_t v = 0; v < wide; v++)
                    sum[i][v] += v_pairs(code[v], query);
            }
        }
#pragma GCC unroll 4
        for (uint32_t i = 0; i < n; i++) {
            int32_t halves[8 * VF];
            memcpy(halves, sum[i], wide * VB);
            for (uint32_t r = 0; r < wide * VR; r++)
                out[i * PD_PAGE_ROWS + row + r] = halves[2 * r] + halves[2 * r + 1];
        }
    }
}

#if VB == 64
#define WIDE_BLOCK 4u
#define WIDE_ONE   4u
#elif VB == 32
#define WIDE_BLOCK 2u
#define WIDE_ONE   8u
#else
#define WIDE_BLOCK 2u
#define WIDE_ONE   8u
#endif

static void dots_i8(const int8_t *codes, uint32_t groups, const int16_t *const *queries, uint32_t n,
                    int32_t *out)
{
    uint32_t i = 0;
    for (; i + BLOCK <= n; i += BLOCK)
        dots_block(codes, groups, queries + i, BLOCK, WIDE_BLOCK, out + i * PD_PAGE_ROWS);
    if (n - i == 3) {
        dots_block(codes, groups, queries + i, 3, WIDE_BLOCK, out + i * PD_PAGE_ROWS);
    } else if (n - i == 2) {
        dots_block(codes, groups, queries + i, 2, WIDE_BLOCK, out + i * PD_PAGE_ROWS);
    } else if (n - i == 1) {
        dots_block(codes, groups, queries + i, 1, WIDE_ONE, out + i * PD_PAGE_ROWS);
    }
}

static void sims_i8(const int32_t *dots, const float *term, const float *scale, float lt, float qf,
                    float *sims)
{
    for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
        sims[r] = (lt + term[r]) + (qf * scale[r]) * (float)dots[r];
}

/* ------------------------------------------------------------------------------------- f32 and f16 codes --- */

/* Adds dims more dimensions, from `from` on, to out: n queries, `wide` vectors of rows at a time. */
INLINE void columns_block(const float *codes, uint32_t from, uint32_t dims, const float *const *queries,
                          const uint32_t n, const uint32_t wide, int l2, float *out)
{
    for (uint32_t row = 0; row < PD_PAGE_ROWS; row += wide * VF) {
        vfloat sum[2][8];
        for (uint32_t i = 0; i < n; i++)
            for (uint32_t v = 0; v < wide; v++)
                sum[i][v] = v_load(out + i * PD_PAGE_ROWS + row + v * VF);
        for (uint32_t d = 0; d < dims; d++) {
            const float *at = codes + (size_t)d * PD_PAGE_ROWS + row;
#pragma GCC unroll 2
            for (uint32_t i = 0; i < n; i++) {
                vfloat query = v_splat(queries[i][from + d]);
#pragma GCC unroll 8
                for (uint32_t v = 0; v < wide; v++) {
                    vfloat code = v_load(at + v * VF);
                    if (l2) {
                        vfloat gap = query - code;
                        sum[i][v] -= gap * gap;
                    } else {
                        sum[i][v] += query * code;
                    }
                }
            }
        }
        for (uint32_t i = 0; i < n; i++)
            for (uint32_t v = 0; v < wide; v++)
                v_store(out + i * PD_PAGE_ROWS + row + v * VF, sum[i][v]);
    }
}

#define WIDE_COLUMNS (PD_PAGE_ROWS / VF < 4 ? PD_PAGE_ROWS / VF : 4)

INLINE void columns_all(const float *codes, uint32_t from, uint32_t dims, const float *const *queries,
                        uint32_t n, int l2, float *out)
{
    uint32_t i = 0;
    for (; i + 2 <= n; i += 2)
        columns_block(codes, from, dims, queries + i, 2, WIDE_COLUMNS, l2, out + i * PD_PAGE_ROWS);
    if (i < n) columns_block(codes, from, dims, queries + i, 1, WIDE_COLUMNS, l2, out + i * PD_PAGE_ROWS);
}

static void columns(const float *codes, uint32_t from, uint32_t dims, const float *const *queries, uint32_t n,
                    int l2, float *out)
{
    if (l2)
        columns_all(codes, from, dims, queries, n, 1, out);
    else
        columns_all(codes, from, dims, queries, n, 0, out);
}

static void sims_f32(const float *codes, uint32_t dim, const float *const *queries, uint32_t n, int l2,
                     float *out)
{
    memset(out, 0, (size_t)n * PD_PAGE_ROWS * sizeof *out);
    columns(codes, 0, dim, queries, n, l2, out);
}

static void sims_f16(const uint16_t *codes, uint32_t dim, const float *const *queries, uint32_t n, int l2,
                     float *out)
{
    /* Widened a strip at a time, once for all queries; a strip stays in the nearest cache. */
    enum { STRIP = 64 };
    float strip[STRIP * PD_PAGE_ROWS];
    memset(out, 0, (size_t)n * PD_PAGE_ROWS * sizeof *out);
    for (uint32_t d = 0; d < dim; d += STRIP) {
        uint32_t dims = dim - d < STRIP ? dim - d : STRIP;
        v_halves(codes + (size_t)d * PD_PAGE_ROWS, strip, dims * PD_PAGE_ROWS);
        columns(strip, d, dims, queries, n, l2, out);
    }
}

/* ------------------------------------------------------------------------------------------ sixteen lanes --- */

INLINE float add_lanes(const float *lane)
{
    float four[4];
    for (uint32_t j = 0; j < 4; j++)
        four[j] = (lane[j] + lane[j + 8]) + (lane[j + 4] + lane[j + 12]);
    return (four[0] + four[2]) + (four[1] + four[3]);
}

typedef float four_floats __attribute__((vector_size(16)));

/* The sixteen lanes of one sum down to four: the first two halvings. */
INLINE four_floats four_lanes(const float *lane)
{
    four_floats part[4];
    memcpy(part, lane, sizeof part);
    return (part[0] + part[2]) + (part[1] + part[3]);
}

/* add_lanes of four sums at once: the last two halvings across them. */
INLINE four_floats add_four(const float *a, const float *b, const float *c, const float *d)
{
    four_floats va = four_lanes(a), vb = four_lanes(b), vc = four_lanes(c), vd = four_lanes(d);
    four_floats ab =
        __builtin_shufflevector(va, vb, 0, 4, 1, 5) + __builtin_shufflevector(va, vb, 2, 6, 3, 7);
    four_floats cd =
        __builtin_shufflevector(vc, vd, 0, 4, 1, 5) + __builtin_shufflevector(vc, vd, 2, 6, 3, 7);
    return __builtin_shufflevector(ab, cd, 0, 1, 4, 5) + __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
}

#if VB == 64
#define LANE_ROWS 4u
#else
#define LANE_ROWS 2u
#endif

INLINE void lanes_block(const float *const *queries, const uint32_t n, const float *rows,
                        const uint32_t nrows, uint32_t dim16, int l2, float *out, size_t stride)
{
    float lane[BLOCK][LANE_ROWS][16];
    for (uint32_t part = 0; part < 16; part += VF) {
        vfloat sum[BLOCK][LANE_ROWS];
#pragma GCC unroll 4
        for (uint32_t i = 0; i < n; i++)
#pragma GCC unroll 4
            for (uint32_t r = 0; r < nrows; r++)
                sum[i][r] = (vfloat){0};
        for (uint32_t d = part; d < dim16; d += 16) {
            vfloat row[LANE_ROWS];
#pragma GCC unroll 4
            for (uint32_t r = 0; r < nrows; r++)
                row[r] = v_load(rows + (size_t)r * dim16 + d);
#pragma GCC unroll 4
            for (uint32_t i = 0; i < n; i++) {
                vfloat query = v_load(queries[i] + d);
#pragma GCC unroll 4
                for (uint32_t r = 0; r < nrows; r++) {
                    vfloat gap = query - row[r];
                    sum[i][r] += l2 ? gap * gap : query * row[r];
                }
            }
        }
#pragma GCC unroll 4
        for (uint32_t i = 0; i < n; i++)
#pragma GCC unroll 4
            for (uint32_t r = 0; r < nrows; r++)
                v_store(lane[i][r] + part, sum[i][r]);
    }
    if (n * nrows < 4) {
        for (uint32_t i = 0; i < n; i++)
            for (uint32_t r = 0; r < nrows; r++)
                out[i * stride + r] = add_lanes(lane[i][r]);
        return;
    }
    /* Four sums at a time: a query's four rows, or two queries' two. */
    const uint32_t step = 4 / nrows;
    for (uint32_t i = 0; i < n; i += step) {
        const float *at = (const float *)lane + (size_t)i * LANE_ROWS * 16;
        four_floats sums = add_four(at, at + 16, at + 32, at + 48);
        for (uint32_t j = 0; j < step; j++)
            memcpy(out + (i + j) * stride, (const float *)&sums + j * nrows, nrows * sizeof *out);
    }
}

INLINE void lanes_all(const float *const *queries, uint32_t n, const float *rows, uint32_t nrows,
                      uint32_t dim16, int l2, float *out, size_t stride)
{
    uint32_t r = 0;
    for (; r + LANE_ROWS <= nrows; r += LANE_ROWS) {
        const float *at = rows + (size_t)r * dim16;
        uint32_t i = 0;
        for (; i + BLOCK <= n; i += BLOCK)
            lanes_block(queries + i, BLOCK, at, LANE_ROWS, dim16, l2, out + i * stride + r, stride);
        for (; i < n; i++)
            lanes_block(queries + i, 1, at, LANE_ROWS, dim16, l2, out + i * stride + r, stride);
    }
    for (; r < nrows; r++)
        for (uint32_t i = 0; i < n; i++)
            lanes_block(queries + i, 1, rows + (size_t)r * dim16, 1, dim16, l2, out + i * stride + r, stride);
}

static void lanes(const float *const *queries, uint32_t n, const float *rows, uint32_t nrows, uint32_t dim16,
                  int l2, float *out, size_t stride)
{
    if (l2)
        lanes_all(queries, n, rows, nrows, dim16, 1, out, stride);
    else
        lanes_all(queries, n, rows, nrows, dim16, 0, out, stride);
}

/* Candidates lie anywhere: they are padded into a tile, a strip of dimensions at a time, four rows together. */
#define TILE_ROWS 4u
#define TILE_DIMS 256u

INLINE void rows_any(const float *query, const void *const *rows, int half, uint32_t n, uint32_t dim, int l2,
                     float *out)
{
    float tile[TILE_ROWS][TILE_DIMS];
    for (uint32_t first = 0; first < n; first += TILE_ROWS) {
        uint32_t count = n - first < TILE_ROWS ? n - first : TILE_ROWS;
        float lane[TILE_ROWS][16] = {{0}};
        for (uint32_t d = 0; d < dim; d += TILE_DIMS) {
            uint32_t dims = dim - d < TILE_DIMS ? dim - d : TILE_DIMS;
            uint32_t dims16 = (dims + 15u) & ~15u;
            for (uint32_t r = 0; r < TILE_ROWS; r++) {
                const void *row = rows[first + (r < count ? r : 0)];
                if (half)
                    v_halves((const uint16_t *)row + d, tile[r], dims);
                else
                    memcpy(tile[r], (const float *)row + d, dims * sizeof(float));
                memset(tile[r] + dims, 0, (dims16 - dims) * sizeof(float));
            }
            for (uint32_t part = 0; part < 16; part += VF) {
                vfloat sum[TILE_ROWS];
#pragma GCC unroll 4
                for (uint32_t r = 0; r < TILE_ROWS; r++)
                    sum[r] = v_load(lane[r] + part);
                for (uint32_t at = part; at < dims16; at += 16) {
                    vfloat values = v_load(query + d + at);
#pragma GCC unroll 4
                    for (uint32_t r = 0; r < TILE_ROWS; r++) {
                        vfloat code = v_load(tile[r] + at);
                        vfloat gap = values - code;
                        sum[r] += l2 ? gap * gap : values * code;
                    }
                }
#pragma GCC unroll 4
                for (uint32_t r = 0; r < TILE_ROWS; r++)
                    v_store(lane[r] + part, sum[r]);
            }
        }
        for (uint32_t r = 0; r < count; r++)
            out[first + r] = add_lanes(lane[r]);
    }
}

static void rows_f32(const float *query, const float *const *rows, uint32_t n, uint32_t dim, int l2,
                     float *out)
{
    if (l2)
        rows_any(query, (const void *const *)rows, 0, n, dim, 1, out);
    else
        rows_any(query, (const void *const *)rows, 0, n, dim, 0, out);
}

static void rows_f16(const float *query, const uint16_t *const *rows, uint32_t n, uint32_t dim, int l2,
                     float *out)
{
    if (l2)
        rows_any(query, (const void *const *)rows, 1, n, dim, 1, out);
    else
        rows_any(query, (const void *const *)rows, 1, n, dim, 0, out);
}

static void pad_f32(const float *rows, uint32_t count, uint32_t dim, float *out)
{
    uint32_t dim16 = (dim + 15u) & ~15u;
    for (uint32_t r = 0; r < count; r++, out += dim16) {
        memcpy(out, rows + (size_t)r * dim, dim * sizeof *out);
        memset(out + dim, 0, (dim16 - dim) * sizeof *out);
    }
}

static void pad_f16(const uint16_t *rows, uint32_t count, uint32_t dim, float *out)
{
    uint32_t dim16 = (dim + 15u) & ~15u;
    for (uint32_t r = 0; r < count; r++, out += dim16) {
        v_halves(rows + (size_t)r * dim, out, dim);
        memset(out + dim, 0, (dim16 - dim) * sizeof *out);
    }
}

/* ------------------------------------------------------------------------------------------------- weights --- */

static uint32_t at_least(const float *values, float bar)
{
    return v_at_least16(values, bar) | v_at_least16(values + 16, bar) << 16;
}

/* Can any row still reach the bar, collecting the most of every column? Rounding is monotonic, so that the same
 * additions in the same order, each of at least as much, give at least as much. */
static uint32_t can_reach(const pd_cpu_weigh *w, const float *scores, float bar)
{
    float most[PD_PAGE_ROWS];
    memcpy(most, scores, sizeof most);
    for (uint32_t c = 0; c < w->ncolumns; c++)
        for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
            most[r] += w->columns[c].most;
    for (uint32_t i = 0; i < w->nkeys; i++)
        for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
            most[r] += w->keys[i].weight > 0.0f ? w->keys[i].weight : 0.0f;
    return at_least(most, bar);
}

static uint32_t weigh(const pd_cpu_weigh *w, const pd_layout *layout, const void *page, float *scores,
                      float bar)
{
    const unsigned char *base = (const unsigned char *)page;
    for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
        scores[r] = w->vector ? w->a * scores[r] + 0.0f : 0.0f;
    if (w->ncolumns + w->nkeys == 0) return at_least(scores, bar);
    if (!can_reach(w, scores, bar)) return 0;
    for (uint32_t c = 0; c < w->ncolumns; c++) {
        const uint8_t *values = base + layout->bytes + (size_t)w->columns[c].column * PD_PAGE_ROWS;
        const float *table = w->columns[c].table;
        for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
            scores[r] += table[values[r]];
    }
    for (uint32_t i = 0; i < w->nkeys; i++) {
        const uint64_t *keys =
            (const uint64_t *)(base + layout->keys) + (size_t)w->keys[i].column * PD_PAGE_ROWS;
        for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
            scores[r] = keys[r] == w->keys[i].value ? scores[r] + w->keys[i].weight : scores[r];
    }
    return at_least(scores, bar);
}

static void summary(const float *histogram, const float *weights, uint32_t values, uint32_t nlist, float beta,
                    float *sums, float *out)
{
    for (uint32_t l = 0; l < nlist; l++)
        sums[l] = 1.0f;
    for (uint32_t v = 0; v < values; v++) {
        if (weights[v] == 0.0f) continue; /* most values, for most profiles */
        float power = pd_exp_inline(beta * weights[v]) - 1.0f;
        const float *share = histogram + (size_t)v * nlist;
        for (uint32_t l = 0; l < nlist; l++)
            sums[l] += share[l] * power;
    }
    for (uint32_t l = 0; l < nlist; l++)
        out[l] += pd_log_inline(sums[l] > 1e-30f ? sums[l] : 1e-30f) / beta;
}

const pd_cpu_ops PD_OPS = {
    .isa = PD_OPS_ISA,
    .dots_i8 = dots_i8,
    .sims_i8 = sims_i8,
    .sims_f32 = sims_f32,
    .sims_f16 = sims_f16,
    .lanes = lanes,
    .rows_f32 = rows_f32,
    .rows_f16 = rows_f16,
    .pad_f32 = pad_f32,
    .pad_f16 = pad_f16,
    .at_least = at_least,
    .weigh = weigh,
    .summary = summary,
};
