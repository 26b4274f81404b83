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
#include "vector.h"

#define INLINE static inline __attribute__((always_inline))
#define BLOCK  4u

/* ---------------------------------------------------------------------------------------------- i8 codes --- */

static void scores_i8(const int32_t *dots, uint32_t n, const float *term, const float *scale,
                      pd_cpu_group *group, float *scores, size_t apart)
{
    vfloat terms[PD_PAGE_ROWS / VF], scales[PD_PAGE_ROWS / VF];
    memcpy(terms, term, sizeof terms);
    memcpy(scales, scale, sizeof scales);
    for (uint32_t i = 0; i < n; i++) {
        vfloat lt = v_splat(group->lt[i]), qf = v_splat(group->qf[i]), a = v_splat(group->a[i]);
        uint32_t pass = 0;
#pragma GCC unroll 8
        for (uint32_t v = 0; v < PD_PAGE_ROWS / VF; v++) {
            vint dot;
            memcpy(&dot, dots + i * PD_PAGE_ROWS + v * VF, sizeof dot);
            vfloat sim = (lt + terms[v]) + (qf * scales[v]) * __builtin_convertvector(dot, vfloat);
            vfloat score = a * sim + (vfloat){0};
            v_store(scores + i * apart + v * VF, score);
            pass |= v_at_least(score, group->bar[i]) << (v * VF);
        }
        group->pass[i] = pass;
    }
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

/* ------------------------------------------------------------------------------------------- candidates --- */

#if VB == 64
/* Compressed in a register and stored whole: compressing into memory is microcode on some machines. */
static uint32_t append(const float *scores, uint32_t slot, uint32_t mask, float *out_scores,
                       uint32_t *out_slots)
{
    const __m512i rows = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    uint32_t done = 0;
    for (uint32_t v = 0; v < 2; v++) {
        __mmask16 some = (__mmask16)(mask >> (16 * v));
        if (!some) continue;
        __m512i slots = _mm512_add_epi32(rows, _mm512_set1_epi32((int32_t)(slot + 16 * v)));
        _mm512_storeu_ps(out_scores + done, _mm512_maskz_compress_ps(some, _mm512_loadu_ps(scores + 16 * v)));
        _mm512_storeu_si512(out_slots + done, _mm512_maskz_compress_epi32(some, slots));
        done += (uint32_t)__builtin_popcount(some);
    }
    return done;
}

static uint32_t keep(float *scores, uint32_t *slots, uint32_t n, float t, int ties)
{
    const __m512 limit = _mm512_set1_ps(t);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n; i += 16) {
        __mmask16 there = n - i < 16 ? (__mmask16)((1u << (n - i)) - 1) : (__mmask16)0xffff;
        __m512 some = _mm512_maskz_loadu_ps(there, scores + i);
        __m512i at = _mm512_maskz_loadu_epi32(there, slots + i);
        __mmask16 pass = ties ? _mm512_mask_cmp_ps_mask(there, some, limit, _CMP_GE_OQ)
                              : _mm512_mask_cmp_ps_mask(there, some, limit, _CMP_GT_OQ);
        _mm512_storeu_ps(scores + kept, _mm512_maskz_compress_ps(pass, some));
        _mm512_storeu_si512(slots + kept, _mm512_maskz_compress_epi32(pass, at));
        kept += (uint32_t)__builtin_popcount(pass);
    }
    return kept;
}

/* The k-th largest of n <= 32, by taking the largest away. */
static float kth_of_few(const float *values, uint32_t n, uint32_t k)
{
    const __m512 none = _mm512_set1_ps(-INFINITY);
    uint32_t there = n < 32 ? (1u << n) - 1 : 0xffffffffu;
    __m512 low = _mm512_mask_loadu_ps(none, (__mmask16)there, values);
    __m512 high = _mm512_mask_loadu_ps(none, (__mmask16)(there >> 16), values + 16);
    for (;;) {
        float most = _mm512_reduce_max_ps(_mm512_max_ps(low, high));
        __m512 top = _mm512_set1_ps(most);
        __mmask16 in_low = _mm512_cmp_ps_mask(low, top, _CMP_EQ_OQ);
        __mmask16 in_high = _mm512_cmp_ps_mask(high, top, _CMP_EQ_OQ);
        uint32_t found = (uint32_t)(__builtin_popcount(in_low) + __builtin_popcount(in_high));
        if (k <= found) return most;
        k -= found;
        low = _mm512_mask_mov_ps(low, in_low, none);
        high = _mm512_mask_mov_ps(high, in_high, none);
    }
}

/* A value near the k-th largest, from 16 of them spread over the range. */
static float guess(const float *values, uint32_t n, uint32_t k)
{
    float some[16];
    for (uint32_t j = 0; j < 16; j++)
        some[j] = values[(uint64_t)n * j / 16];
    uint32_t rank = (uint32_t)(((uint64_t)k * 16 + n - 1) / n);
    return kth_of_few(some, 16, rank < 1 ? 1 : rank > 16 ? 16 : rank);
}

/* Quickselect whose partition is a compress to either side. */
static float kth(const float *values, uint32_t n, uint32_t k, float *scratch)
{
    float *over = scratch, *under = scratch + n + 32;
    while (n > 32) {
        const __m512 pivot = _mm512_set1_ps(guess(values, n, k));
        uint32_t nover = 0, nunder = 0;
        for (uint32_t i = 0; i < n; i += 16) {
            __mmask16 there = n - i < 16 ? (__mmask16)((1u << (n - i)) - 1) : (__mmask16)0xffff;
            __m512 some = _mm512_maskz_loadu_ps(there, values + i);
            __mmask16 up = _mm512_mask_cmp_ps_mask(there, some, pivot, _CMP_GT_OQ);
            __mmask16 down = _mm512_mask_cmp_ps_mask(there, some, pivot, _CMP_LT_OQ);
            _mm512_storeu_ps(over + nover, _mm512_maskz_compress_ps(up, some));
            _mm512_storeu_ps(under + nunder, _mm512_maskz_compress_ps(down, some));
            nover += (uint32_t)__builtin_popcount(up);
            nunder += (uint32_t)__builtin_popcount(down);
        }
        if (k > nover && k <= n - nunder) return _mm512_cvtss_f32(pivot);
        int up_there = k <= nover;
        /* The side that goes on may be narrowed where it lies: what is written never overtakes what is read. */
        if (!up_there) k -= n - nunder;
        values = up_there ? over : under;
        n = up_there ? nover : nunder;
    }
    return kth_of_few(values, n, k);
}
#else
static uint32_t append(const float *scores, uint32_t slot, uint32_t mask, float *out_scores,
                       uint32_t *out_slots)
{
    uint32_t done = 0;
    for (; mask; mask &= mask - 1) {
        uint32_t row = (uint32_t)__builtin_ctz(mask);
        out_scores[done] = scores[row];
        out_slots[done++] = slot + row;
    }
    return done;
}

/* Without a branch: what does not pass is written over by the next. */
static uint32_t keep(float *scores, uint32_t *slots, uint32_t n, float t, int ties)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n; i++) {
        float score = scores[i];
        uint32_t slot = slots[i];
        scores[kept] = score;
        slots[kept] = slot;
        kept += (uint32_t)(score > t) | (uint32_t)(ties && score == t);
    }
    return kept;
}

/* The middle one of three. */
INLINE float median(float a, float b, float c)
{
    float low = a < b ? a : b, high = a < b ? b : a;
    return c < low ? low : c > high ? high : c;
}

/* Quickselect whose partition copies to either side, without a branch. */
static float kth(const float *values, uint32_t n, uint32_t k, float *scratch)
{
    float *one = scratch, *two = scratch + n + 32;
    for (;;) {
        float pivot = median(values[0], values[n / 2], values[n - 1]);
        uint32_t nover = 0, nunder = 0;
        /* Two passes, so that a side may be narrowed where it lies. */
        for (uint32_t i = 0; i < n; i++) {
            nover += (uint32_t)(values[i] > pivot);
            nunder += (uint32_t)(values[i] < pivot);
        }
        if (k > nover && k <= n - nunder) return pivot;
        float *to = values == one ? two : one;
        uint32_t kept = 0;
        int up = k <= nover;
        for (uint32_t i = 0; i < n; i++) {
            to[kept] = values[i];
            kept += (uint32_t)(up ? values[i] > pivot : values[i] < pivot);
        }
        if (!up) k -= n - nunder;
        values = to;
        n = kept;
    }
}
#endif

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

/* Rows that lie anywhere, four at a time. kind 0: f32 [dim], 1: f16 [dim]. Where dim is no multiple of 16 the last
 * lanes are read from a padded copy. */
INLINE void rows_any(const float *query, const void *const *rows, const int half, uint32_t n, uint32_t dim,
                     int l2, float *out)
{
    uint32_t whole = dim & ~15u;
    for (uint32_t first = 0; first < n; first += 4) {
        uint32_t count = n - first < 4 ? n - first : 4;
        const void *row[4];
        float tail[4][16] = {{0}}, lane[4][16];
        for (uint32_t r = 0; r < 4; r++)
            row[r] = rows[first + (r < count ? r : 0)];
        for (uint32_t r = 0; r < 4 && whole < dim; r++) {
            if (half)
                v_halves((const uint16_t *)row[r] + whole, tail[r], dim - whole);
            else
                memcpy(tail[r], (const float *)row[r] + whole, (dim - whole) * sizeof(float));
        }
        for (uint32_t part = 0; part < 16; part += VF) {
            vfloat sum[4];
#pragma GCC unroll 4
            for (uint32_t r = 0; r < 4; r++)
                sum[r] = (vfloat){0};
            for (uint32_t d = part; d < whole; d += 16) {
                vfloat values = v_load(query + d);
#pragma GCC unroll 4
                for (uint32_t r = 0; r < 4; r++) {
                    vfloat code =
                        half ? v_load_half((const uint16_t *)row[r] + d) : v_load((const float *)row[r] + d);
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
        rows_any(query, (const void *const *)rows, 0, n, dim16, 1, out);
    else
        rows_any(query, (const void *const *)rows, 0, n, dim16, 0, out);
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

/* Adds the weights of 32 values. */
#if VB == 64
static void add_column(const pd_cpu_column *column, const uint8_t *values, float *scores)
{
    uint32_t size = column->size < 64 ? column->size : 64;
    uint64_t there = size < 64 ? ((uint64_t)1 << size) - 1 : ~(uint64_t)0;
    __m512 part[4];
    for (uint32_t i = 0; i < 4; i++)
        part[i] = _mm512_maskz_loadu_ps((__mmask16)(there >> (16 * i)),
                                        column->table + (i * 16 < size ? i * 16 : 0));
    for (uint32_t r = 0; r < PD_PAGE_ROWS; r += 16) {
        __m512i at = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(values + r)));
        __mmask16 upper = _mm512_test_epi32_mask(at, _mm512_set1_epi32(32));
        __m512 weights = _mm512_permutex2var_ps(part[0], at, part[1]);
        weights = _mm512_mask_mov_ps(weights, upper, _mm512_permutex2var_ps(part[2], at, part[3]));
        if (column->size > 64) {
            __mmask16 far = _mm512_cmpge_epu32_mask(at, _mm512_set1_epi32(64));
            __mmask16 known = _mm512_cmplt_epu32_mask(at, _mm512_set1_epi32((int32_t)column->size));
            __m512 gathered =
                _mm512_mask_i32gather_ps(_mm512_setzero_ps(), far & known, at, column->table, 4);
            weights = _mm512_mask_mov_ps(weights, far, gathered);
        } else {
            /* A stray value is no index into these. */
            weights = _mm512_maskz_mov_ps(_mm512_cmplt_epu32_mask(at, _mm512_set1_epi32(64)), weights);
        }
        _mm512_storeu_ps(scores + r, _mm512_add_ps(_mm512_loadu_ps(scores + r), weights));
    }
}
#else
static void add_column(const pd_cpu_column *column, const uint8_t *values, float *scores)
{
    for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
        scores[r] += pd_cpu_weight(column, values[r]);
}
#endif

/* Few rows one at a time, many all together. */
static uint32_t add_weights(const pd_cpu_weigh *w, const pd_layout *layout, const void *page, float *scores,
                            uint32_t mask, float bar)
{
    const unsigned char *base = (const unsigned char *)page;
    if (__builtin_popcount(mask) <= 8) {
        uint32_t reach = 0;
        for (; mask; mask &= mask - 1) {
            uint32_t row = (uint32_t)__builtin_ctz(mask);
            scores[row] = pd_cpu_weigh_row(w, layout, base, row, scores[row]);
            reach |= (uint32_t)(scores[row] >= bar) << row;
        }
        return reach;
    }
    for (uint32_t c = 0; c < w->ncolumns; c++)
        add_column(&w->columns[c], base + layout->bytes + (size_t)w->columns[c].column * PD_PAGE_ROWS,
                   scores);
    for (uint32_t i = 0; i < w->nkeys; i++) {
        const uint64_t *keys =
            (const uint64_t *)(base + layout->keys) + (size_t)w->keys[i].column * PD_PAGE_ROWS;
        for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
            scores[r] = keys[r] == w->keys[i].value ? scores[r] + w->keys[i].weight : scores[r];
    }
    return mask & at_least(scores, bar);
}

static uint32_t weigh(const pd_cpu_weigh *w, const pd_layout *layout, const void *page, float *scores,
                      float bar)
{
    for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
        scores[r] = w->vector ? w->a * scores[r] + 0.0f : 0.0f;
    if (w->ncolumns + w->nkeys == 0) return at_least(scores, bar);
    if (!can_reach(w, scores, bar)) return 0;
    return add_weights(w, layout, page, scores, 0xffffffffu, bar);
}

/* The steps of 32 rows' values in one column. */
#if VB == 64
INLINE __m256i steps_of(const pd_cpu_column *column, const uint8_t *values)
{
    __m512i at = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)values));
    __m512i table = _mm512_loadu_si512(column->steps);
    if (column->reach == 64) {
        at = _mm512_min_epu8(at, _mm512_set1_epi8(63));
        return _mm512_castsi512_si256(_mm512_permutexvar_epi8(at, table));
    }
    __m512i next = _mm512_loadu_si512(column->steps + 64);
    if (column->reach == 128) {
        at = _mm512_min_epu8(at, _mm512_set1_epi8(127));
        return _mm512_castsi512_si256(_mm512_permutex2var_epi8(table, at, next));
    }
    __m512i low = _mm512_permutex2var_epi8(table, at, next);
    __m512i high = _mm512_permutex2var_epi8(_mm512_loadu_si512(column->steps + 128), at,
                                            _mm512_loadu_si512(column->steps + 192));
    return _mm512_castsi512_si256(_mm512_mask_mov_epi8(low, _mm512_movepi8_mask(at), high));
}
#elif VB == 32
INLINE __m256i steps_of(const pd_cpu_column *column, const uint8_t *values)
{
    __m256i at = _mm256_loadu_si256((const __m256i *)values), sum = _mm256_setzero_si256();
    at = _mm256_min_epu8(at, _mm256_set1_epi8((char)(column->reach - 1)));
    __m256i row = _mm256_and_si256(at, _mm256_set1_epi8((char)0xf0));
    __m256i in_row = _mm256_and_si256(at, _mm256_set1_epi8(0x0f));
    for (uint32_t v = 0; v < column->reach; v += 16) {
        __m256i table = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(column->steps + v)));
        __m256i here = _mm256_cmpeq_epi8(row, _mm256_set1_epi8((char)v));
        sum = _mm256_or_si256(sum, _mm256_and_si256(here, _mm256_shuffle_epi8(table, in_row)));
    }
    return sum;
}
#endif

static uint32_t steps(const pd_cpu_weigh *w, const pd_layout *layout, const void *page, const float *scores,
                      float bar, uint32_t mask)
{
    const uint8_t *bytes = (const uint8_t *)page + layout->bytes;
#if VB > 16
    __m256i sum = _mm256_setzero_si256();
    for (uint32_t c = 0; c < w->ncolumns; c++)
        sum = _mm256_add_epi8(sum,
                              steps_of(&w->columns[c], bytes + (size_t)w->columns[c].column * PD_PAGE_ROWS));
#endif
#if VB == 64
    const __m512 step = _mm512_set1_ps(w->step), limit = _mm512_set1_ps(bar);
    __m512 low = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm256_castsi256_si128(sum)));
    __m512 high = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm256_extracti128_si256(sum, 1)));
    low = _mm512_add_ps(_mm512_loadu_ps(scores), _mm512_mul_ps(step, low));
    high = _mm512_add_ps(_mm512_loadu_ps(scores + 16), _mm512_mul_ps(step, high));
    return mask & ((uint32_t)_mm512_cmp_ps_mask(low, limit, _CMP_GE_OQ) |
                   (uint32_t)_mm512_cmp_ps_mask(high, limit, _CMP_GE_OQ) << 16);
#else
    uint8_t sums[PD_PAGE_ROWS] = {0};
#if VB == 32
    _mm256_storeu_si256((__m256i *)sums, sum);
#else
    for (uint32_t c = 0; c < w->ncolumns; c++) {
        const uint8_t *values = bytes + (size_t)w->columns[c].column * PD_PAGE_ROWS;
        uint32_t last = w->columns[c].reach - 1;
        for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
            sums[r] = (uint8_t)(sums[r] + w->columns[c].steps[values[r] < last ? values[r] : last]);
    }
#endif
    float bound[PD_PAGE_ROWS];
    for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
        bound[r] = scores[r] + w->step * (float)sums[r];
    return mask & at_least(bound, bar);
#endif
}

static void summary(const float *histogram, const float *weights, uint32_t values, float most, uint32_t nlist,
                    float beta, float *sums, float *out)
{
    /* Most values weigh nothing, for most profiles: they are taken together, since the shares of a list add up to 1.
     * Where the most is negative there are none, and what they would promise drowns the rest. */
    float nothing = most < 0.0f ? 0.0f : pd_exp_inline(beta * (0.0f - most));
    for (uint32_t l = 0; l < nlist; l++)
        sums[l] = nothing;
    for (uint32_t v = 0; v < values; v++) {
        if (weights[v] == 0.0f) continue;
        float power = pd_exp_inline(beta * (weights[v] - most)) - nothing;
        const float *share = histogram + (size_t)v * nlist;
        for (uint32_t l = 0; l < nlist; l++)
            sums[l] += share[l] * power;
    }
    for (uint32_t l = 0; l < nlist; l++)
        out[l] *= sums[l] > 1e-4f ? sums[l] : 1e-4f;
}

static void logs(float *values, uint32_t n, float beta)
{
    for (uint32_t i = 0; i < n; i++)
        values[i] = pd_log_inline(values[i]) / beta;
}

const pd_cpu_ops PD_OPS = {
    .isa = PD_OPS_ISA,
    .scores_i8 = scores_i8,
    .sims_f32 = sims_f32,
    .sims_f16 = sims_f16,
    .lanes = lanes,
    .lanes_any = lanes_any,
    .rows_f32 = rows_f32,
    .rows_f16 = rows_f16,
    .pad_f32 = pad_f32,
    .pad_f16 = pad_f16,
    .at_least = at_least,
    .weigh = weigh,
    .steps = steps,
    .add_weights = add_weights,
    .settle = settle,
    .append = append,
    .keep = keep,
    .kth = kth,
    .quantise = quantise,
    .summary = summary,
    .logs = logs,
};
