/* The hot loops, compiled once for each instruction set: PD_OPS names the table, PD_OPS_ISA the set.
 *
 * Queries go through a page in blocks of BLOCK, so that codes are read (and widened) once for all of a block; BLOCK x
 * the vectors of a pass fill the registers. Sums of 16 lanes are cut the other way where a register is narrower than 16
 * floats: first lanes 0 .. VF - 1 of the whole row, then the next. A lane does not notice.
 */
#include "ops.h"

#include <math.h>
#include <stddef.h>

#include "fmath.h"
#include "ops_select.h"
#include "ops_weigh.h"
#include "vector.h"

#define BLOCK 4u

/* ---------------------------------------------------------------------------------------------- i8 codes --- */

static uint32_t scores_i8(const int32_t *dots, uint32_t n, const float *term, const float *scale,
                          pd_cpu_group *group, float *scores, size_t apart)
{
    vfloat terms[PD_PAGE_ROWS / VF], scales[PD_PAGE_ROWS / VF];
    memcpy(terms, term, sizeof terms);
    memcpy(scales, scale, sizeof scales);
    uint32_t some = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t pass = 0;
#pragma GCC unroll 8
        for (uint32_t v = 0; v < PD_PAGE_ROWS / VF; v++) {
            vfloat score = code_scores(dots + i * PD_PAGE_ROWS + v * VF, group, i, terms[v], scales[v]);
            v_store(scores + i * apart + v * VF, score);
            pass |= v_at_least(score, group->bar[i]) << (v * VF);
        }
        group->pass[i] = pass;
        some |= (uint32_t)(pass != 0) << i;
    }
    return some;
}

static void settle(float *values, const float *more, uint32_t n)
{
    for (uint32_t i = 0; more && i < n; i++)
        values[i] = values[i] + more[i];
    for (uint32_t i = 0; i < n; i++)
        values[i] = values[i] >= -3.40282347e+38f ? values[i] : -3.40282347e+38f;
}

/* As pd_quantise_query() of query - less. */
INLINE float quantise_some(const float *query, const float *less, const int moved, uint32_t dim,
                           int8_t *codes)
{
    const vfloat low = v_splat(-127.0f), high = v_splat(127.0f), magic = v_splat(12582912.0f);
    vfloat lanes = {0};
    float lane[VF], most = 0.0f;
    uint32_t whole = dim - dim % VF;
    for (uint32_t d = 0; d < whole; d += VF) {
        vfloat value = moved ? v_load(query + d) - v_load(less + d) : v_load(query + d);
        lanes = v_max(v_max(value, -value), lanes);
    }
    v_store(lane, lanes);
    for (uint32_t d = whole; d < dim; d++) {
        float size = fabsf(moved ? query[d] - less[d] : query[d]);
        most = size > most ? size : most;
    }
    for (uint32_t j = 0; j < VF; j++)
        most = lane[j] > most ? lane[j] : most;
    float per = 127.0f / most;
    if (!(per > 0.0f && per <= 3.40282347e+38f)) return 0.0f;
    for (uint32_t d = 0; d < whole; d += VF) {
        vfloat value = moved ? v_load(query + d) - v_load(less + d) : v_load(query + d);
        /* Rounded as pd_round() does. */
        vfloat code = (v_max(v_min(value * v_splat(per), high), low) + magic) - magic;
        v_store_codes(codes + d, code);
    }
    for (uint32_t d = whole; d < dim; d++) {
        float code = (moved ? query[d] - less[d] : query[d]) * per;
        code = code > 127.0f ? 127.0f : code;
        code = code < -127.0f ? -127.0f : code;
        codes[d] = (int8_t)pd_round(code);
    }
    return most / 127.0f;
}

static float quantise(const float *query, const float *less, uint32_t dim, uint32_t dim64, int8_t *codes)
{
    memset(codes, 0, dim64);
    return less ? quantise_some(query, less, 1, dim, codes) : quantise_some(query, NULL, 0, dim, codes);
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

/* VF values of a row from d on, and some values one by one. */
INLINE vfloat load_any(const void *row, const pd_refine kind, uint32_t d)
{
    switch (kind) {
    case PD_REFINE_F16:
        return v_load_half((const uint16_t *)row + d);
    case PD_REFINE_I8:
        return v_load_i8((const int8_t *)row + d);
    case PD_REFINE_U8:
        return v_load_u8((const uint8_t *)row + d);
    default:
        return v_load((const float *)row + d);
    }
}
INLINE void copy_any(const void *row, const pd_refine kind, uint32_t d, uint32_t n, float *out)
{
    if (kind == PD_REFINE_F16) v_halves((const uint16_t *)row + d, out, n);
    for (uint32_t i = 0; i < n; i++) {
        if (kind == PD_REFINE_F32) out[i] = ((const float *)row)[d + i];
        if (kind == PD_REFINE_I8) out[i] = (float)((const int8_t *)row)[d + i];
        if (kind == PD_REFINE_U8) out[i] = (float)((const uint8_t *)row)[d + i];
    }
}

/* Rows that lie anywhere, four at a time. Where dim is no multiple of 16 the last lanes are read from a padded copy. */
INLINE void rows_any(const float *query, const void *const *rows, const pd_refine kind, uint32_t n,
                     uint32_t dim, int l2, float *out)
{
    uint32_t whole = dim & ~15u;
    for (uint32_t first = 0; first < n; first += 4) {
        uint32_t count = n - first < 4 ? n - first : 4;
        const void *row[4];
        float tail[4][16] = {{0}}, lane[4][16];
        for (uint32_t r = 0; r < 4; r++)
            row[r] = rows[first + (r < count ? r : 0)];
        for (uint32_t r = 0; r < 4 && whole < dim; r++)
            copy_any(row[r], kind, whole, dim - whole, tail[r]);
        for (uint32_t part = 0; part < 16; part += VF) {
            vfloat sum[4];
#pragma GCC unroll 4
            for (uint32_t r = 0; r < 4; r++)
                sum[r] = (vfloat){0};
            for (uint32_t d = part; d < whole; d += 16) {
                vfloat values = v_load(query + d);
#pragma GCC unroll 4
                for (uint32_t r = 0; r < 4; r++) {
                    vfloat code = load_any(row[r], kind, d);
                    vfloat gap = values - code;
                    sum[r] += l2 ? gap * gap : values * code;
                }
            }
            if (whole < dim) {
                vfloat values = v_load(query + whole + part);
#pragma GCC unroll 4
                for (uint32_t r = 0; r < 4; r++) {
                    vfloat code = v_load(tail[r] + part);
                    vfloat gap = values - code;
                    sum[r] += l2 ? gap * gap : values * code;
                }
            }
#pragma GCC unroll 4
            for (uint32_t r = 0; r < 4; r++)
                v_store(lane[r] + part, sum[r]);
        }
        four_floats sums = add_four(lane[0], lane[1], lane[2], lane[3]);
        memcpy(out + first, &sums, count * sizeof *out);
    }
}

static void lanes_any(const float *query, const float *const *rows, uint32_t n, uint32_t dim16, int l2,
                      float *out)
{
    if (l2)
        rows_any(query, (const void *const *)rows, PD_REFINE_F32, n, dim16, 1, out);
    else
        rows_any(query, (const void *const *)rows, PD_REFINE_F32, n, dim16, 0, out);
}

/* One loop for each kind: what differs is known to the compiler. */
#define ROWS_OF(kind)                                                                                        \
    case kind:                                                                                               \
        if (l2)                                                                                              \
            rows_any(query, rows, kind, n, dim, 1, out);                                                     \
        else                                                                                                 \
            rows_any(query, rows, kind, n, dim, 0, out);                                                     \
        return

static void refine_rows(pd_refine kind, const float *query, const void *const *rows, uint32_t n, uint32_t dim,
                        int l2, float *out)
{
    switch (kind) {
        ROWS_OF(PD_REFINE_F32);
        ROWS_OF(PD_REFINE_F16);
        ROWS_OF(PD_REFINE_I8);
        ROWS_OF(PD_REFINE_U8);
    default:
        return;
    }
}

static void pad(pd_refine kind, const void *rows, size_t apart, uint32_t count, uint32_t dim, float *out)
{
    uint32_t dim16 = (dim + 15u) & ~15u;
    for (uint32_t r = 0; r < count; r++, out += dim16) {
        const unsigned char *row = (const unsigned char *)rows + r * apart;
        if (kind == PD_REFINE_F32)
            memcpy(out, row, dim * sizeof *out);
        else
            copy_any(row, kind, 0, dim, out);
        memset(out + dim, 0, (dim16 - dim) * sizeof *out);
    }
}

const pd_cpu_ops PD_OPS = {
    .isa = PD_OPS_ISA,
    .scores_i8 = scores_i8,
    .weighed_i8 = weighed_i8,
    .sims_f32 = sims_f32,
    .sims_f16 = sims_f16,
    .lanes = lanes,
    .lanes_any = lanes_any,
    .refine_rows = refine_rows,
    .pad = pad,
    .at_least = at_least,
    .weigh = weigh,
    .steps = steps,
    .add_weights = add_weights,
    .settle = settle,
    .append = append,
    .keep = keep,
    .kth = kth,
    .quantise = quantise,
    .powers = powers,
    .summary = summary,
    .logs = logs,
};
