/* The hot loops of assignment, compiled once for each instruction set: PD_NEAR names the table, PD_NEAR_ISA the set.
 *
 * With VNNI eight rows meet 48 centroids in 24 accumulators: three loads of codes and eight broadcasts feed 24
 * instructions of 64 products. Its left side is unsigned, so that the centroids' codes carry a bias of 128 and each
 * row's dots start at -128 times the sum of its own. Elsewhere codes are widened to i16 and multiplied in pairs.
 */
#include "near.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "fmath.h"
#include "vector.h"

#define INLINE static inline __attribute__((always_inline))

/* ------------------------------------------------------------------------------------------------ codes --- */

INLINE float sum_of(vfloat sum)
{
    float lanes[VF], all = 0.0f;
    memcpy(lanes, &sum, sizeof lanes);
    for (uint32_t j = 0; j < VF; j++)
        all += lanes[j];
    return all;
}

static float quantise(const float *row, const float *mean, uint32_t dim, uint32_t dim4, int8_t *codes,
                      float *sums)
{
    float most = 0.0f;
    for (uint32_t d = 0; d < dim; d++) {
        float size = fabsf(row[d] - mean[d]);
        most = size > most ? size : most;
    }
    float scale = most / 127.0f, up = scale > 0.0f ? 1.0f / scale : 0.0f;
    if (!(up <= FLT_MAX)) scale = up = 0.0f; /* a residual so small that it counts as lost */
    vfloat squares = {0}, kept = {0}, lost = {0};
    float gaps[64], sizes[64];
    for (uint32_t d = 0; d < dim4; d += 64) {
        uint32_t n = dim4 - d < 64 ? dim4 - d : 64, there = dim - d < 64 ? dim - d : 64;
        if (n < 64) {
            memset(gaps, 0, sizeof gaps);
            memset(sizes, 0, sizeof sizes);
        }
        for (uint32_t j = 0; j < there; j++) {
            float gap = row[d + j] - mean[d + j], code = gap * up;
            code = code > 127.0f ? 127.0f : code;
            code = code < -127.0f ? -127.0f : code;
            code = pd_round(code);
            gaps[j] = gap;
            sizes[j] = code;
        }
        for (uint32_t j = 0; j < n; j++)
            codes[d + j] = (int8_t)sizes[j];
        for (uint32_t j = 0; j < 64; j += VF) {
            vfloat gap = v_load(gaps + j), stands = v_load(sizes + j) * v_splat(scale), loss = gap - stands;
            squares += gap * gap;
            kept += stands * stands;
            lost += loss * loss;
        }
    }
    sums[0] = sum_of(squares);
    sums[1] = sum_of(kept);
    sums[2] = sum_of(lost);
    return scale;
}

static void prepare(const pd_near *near, const float *rows, uint32_t n, float *values, int16_t *codes,
                    pd_near_row *out)
{
    for (uint32_t i = 0; i < n; i++) {
        const float *row = rows + (size_t)i * near->dim;
        float *padded = values + (size_t)i * near->dim16;
        int16_t *wide = codes + (size_t)i * near->dim4;
        memcpy(padded, row, near->dim * sizeof *row);
        memset(padded + near->dim, 0, (near->dim16 - near->dim) * sizeof *row);
        /* i8 codes fill the second half of their room, so that they can be widened in place. */
        int8_t *narrow = (int8_t *)wide + near->dim4;
        float sums[3];
        out[i].values = padded;
        out[i].scale = quantise(row, near->mean, near->dim, near->dim4, narrow, sums);
        out[i].squares = sums[0];
        out[i].reach = (sqrtf(sums[2]) + sqrtf(sums[1]) * near->loss) * (1.0f + near->slack);
        out[i].start = 0;
#if defined(__AVX512VNNI__)
        for (uint32_t d = 0; d < near->dim4; d++)
            out[i].start -= 128 * narrow[d];
        out[i].codes = narrow;
#else
        for (uint32_t d = 0; d < near->dim4; d++)
            wide[d] = narrow[d];
        out[i].codes = wide;
#endif
    }
}

/* ------------------------------------------------------------------------------------------------ bounds --- */

#if defined(__AVX512VNNI__)
#define TILE_LISTS 48u
/* Eight rows (fewer: the last again) against 48 centroids. */
static void dots(const uint8_t *codes, uint32_t groups, const pd_near_row *rows, uint32_t n,
                 int32_t tile[PD_NEAR_ROWS][TILE_LISTS])
{
    const size_t block = (size_t)groups * 64;
    const int8_t *row[PD_NEAR_ROWS];
    __m512i sum[PD_NEAR_ROWS][3];
#pragma GCC unroll 8
    for (uint32_t i = 0; i < PD_NEAR_ROWS; i++) {
        const pd_near_row *from = &rows[i < n ? i : n - 1];
        row[i] = from->codes;
        sum[i][0] = sum[i][1] = sum[i][2] = _mm512_set1_epi32(from->start);
    }
    for (uint32_t g = 0; g < groups; g++, codes += 64) {
        __m512i a = _mm512_loadu_si512(codes);
        __m512i b = _mm512_loadu_si512(codes + block);
        __m512i c = _mm512_loadu_si512(codes + 2 * block);
#pragma GCC unroll 8
        for (uint32_t i = 0; i < PD_NEAR_ROWS; i++) {
            int32_t four;
            memcpy(&four, row[i] + 4 * g, sizeof four);
            __m512i all = _mm512_set1_epi32(four);
            sum[i][0] = _mm512_dpbusd_epi32(sum[i][0], a, all);
            sum[i][1] = _mm512_dpbusd_epi32(sum[i][1], b, all);
            sum[i][2] = _mm512_dpbusd_epi32(sum[i][2], c, all);
        }
    }
#pragma GCC unroll 8
    for (uint32_t i = 0; i < PD_NEAR_ROWS; i++)
        for (uint32_t v = 0; v < 3; v++)
            _mm512_storeu_si512(&tile[i][16 * v], sum[i][v]);
}
#else
#define TILE_LISTS 16u
#define TILE_PARTS (TILE_LISTS / VR)
INLINE void dots_of(const uint8_t *codes, uint32_t groups, const pd_near_row *rows, const uint32_t n,
                    int32_t (*tile)[TILE_LISTS])
{
    vint sum[4][TILE_PARTS];
#pragma GCC unroll 4
    for (uint32_t i = 0; i < n; i++)
#pragma GCC unroll 8
        for (uint32_t v = 0; v < TILE_PARTS; v++)
            sum[i][v] = (vint){0};
    for (uint32_t g = 0; g < groups; g++, codes += 64) {
        vshort code[TILE_PARTS];
#pragma GCC unroll 8
        for (uint32_t v = 0; v < TILE_PARTS; v++)
            code[v] = v_widen((const int8_t *)codes + v * (VB / 2));
#pragma GCC unroll 4
        for (uint32_t i = 0; i < n; i++) {
            vshort row = v_splat4((const int16_t *)rows[i].codes + 4 * g);
#pragma GCC unroll 8
            for (uint32_t v = 0; v < TILE_PARTS; v++)
                sum[i][v] += v_pairs(code[v], row);
        }
    }
#pragma GCC unroll 4
    for (uint32_t i = 0; i < n; i++) {
        int32_t halves[2 * TILE_LISTS];
        memcpy(halves, sum[i], sizeof halves);
        for (uint32_t l = 0; l < TILE_LISTS; l++)
            tile[i][l] = halves[2 * l] + halves[2 * l + 1];
    }
}

#if VB == 16
#define DOT_ROWS 1u
#else
#define DOT_ROWS 2u
#endif

static void dots(const uint8_t *codes, uint32_t groups, const pd_near_row *rows, uint32_t n,
                 int32_t tile[PD_NEAR_ROWS][TILE_LISTS])
{
    uint32_t i = 0;
    for (; i + DOT_ROWS <= n; i += DOT_ROWS)
        dots_of(codes, groups, rows + i, DOT_ROWS, tile + i);
    for (; i < n; i++)
        dots_of(codes, groups, rows + i, 1, tile + i);
}
#endif

INLINE vfloat larger(vfloat a, vfloat b)
{
#if VB == 64
    return (vfloat)_mm512_max_ps((__m512)a, (__m512)b);
#elif VB == 32
    return (vfloat)_mm256_max_ps((__m256)a, (__m256)b);
#else
    vint more = a > b;
    return (vfloat)(((vint)a & more) | ((vint)b & ~more));
#endif
}

/* The upper bounds of n rows, and the largest of each. */
static void bound(const pd_near *near, const pd_near_row *rows, uint32_t n, float *bounds, float *largest)
{
    vfloat most[PD_NEAR_ROWS];
    for (uint32_t i = 0; i < n; i++)
        most[i] = v_splat(-FLT_MAX);
    for (uint32_t list = 0; list < near->padded; list += TILE_LISTS) {
        int32_t tile[PD_NEAR_ROWS][TILE_LISTS];
        dots(near->codes + (size_t)list * near->dim4, near->dim4 / 4, rows, n, tile);
        for (uint32_t i = 0; i < n; i++) {
            float *out = bounds + (size_t)i * near->padded + list;
            vfloat scale = v_splat(rows[i].scale), reach = v_splat(rows[i].reach), best = most[i];
            for (uint32_t l = 0; l < TILE_LISTS; l += VF) {
                vint whole;
                memcpy(&whole, &tile[i][l], sizeof whole);
                vfloat dot = __builtin_convertvector(whole, vfloat);
                vfloat upper = (dot * scale) * v_load(near->scale + list + l) +
                               (reach * v_load(near->length + list + l) - v_load(near->squares + list + l));
                v_store(out + l, upper);
                best = larger(upper, best);
            }
            most[i] = best;
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        float lanes[VF];
        memcpy(lanes, &most[i], sizeof lanes);
        largest[i] = lanes[0];
        for (uint32_t j = 1; j < VF; j++)
            largest[i] = lanes[j] > largest[i] ? lanes[j] : largest[i];
    }
}

/* ------------------------------------------------------------------------------------------------ distances --- */

/* pd_l2 of rows of 16 lanes. */
static float distance(const float *a, const float *b, uint32_t dim16)
{
    vfloat sum[16 / VF];
#pragma GCC unroll 4
    for (uint32_t v = 0; v < 16 / VF; v++)
        sum[v] = (vfloat){0};
    for (uint32_t d = 0; d < dim16; d += 16) {
#pragma GCC unroll 4
        for (uint32_t v = 0; v < 16 / VF; v++) {
            vfloat gap = v_load(a + d + v * VF) - v_load(b + d + v * VF);
            sum[v] += gap * gap;
        }
    }
    float lane[16];
    memcpy(lane, sum, sizeof lane);
    for (uint32_t half = 8; half > 0; half /= 2)
        for (uint32_t j = 0; j < half; j++)
            lane[j] = lane[j] + lane[j + half];
    return lane[0];
}

/* What a bound must reach for its centroid to be at this distance or nearer. */
INLINE float bar_of(const pd_near *near, const pd_near_row *row, float nearest)
{
    /* The last term is for squares that are lost as subnormal. */
    return (row->squares - nearest) - near->slack * (row->squares + nearest) - 1e-36f;
}

static uint32_t nearest_of(const pd_near *near, const pd_near_row *row, const float *bounds, float largest,
                           uint64_t *measured)
{
    /* The centroid with the largest bound first: it is nearly always the nearest, and leaves few others. */
    uint32_t first = 0;
    for (uint32_t l = 0; l < near->padded; l += 16) {
        uint32_t mask = v_at_least16(bounds + l, largest);
        if (!mask) continue;
        first = l + (uint32_t)__builtin_ctz(mask);
        break;
    }
    if (first >= near->nlist) first = 0;
    uint32_t best = first;
    float nearest = distance(row->values, near->values + (size_t)first * near->dim16, near->dim16);
    float bar = bar_of(near, row, nearest);
    *measured += 1;
    for (uint32_t l = 0; l < near->padded; l += 16) {
        for (uint32_t mask = v_at_least16(bounds + l, bar); mask; mask &= mask - 1) {
            uint32_t at = l + (uint32_t)__builtin_ctz(mask);
            if (at == first || at >= near->nlist || !(bounds[at] >= bar)) continue;
            float gap = distance(row->values, near->values + (size_t)at * near->dim16, near->dim16);
            *measured += 1;
            if (gap > nearest || (gap == nearest && at > best)) continue;
            best = at;
            nearest = gap;
            bar = bar_of(near, row, nearest);
        }
    }
    return best;
}

static uint64_t nearest(const pd_near *near, const pd_near_row *rows, uint32_t n, float *bounds,
                        uint32_t *lists)
{
    float largest[PD_NEAR_ROWS];
    uint64_t measured = 0;
    bound(near, rows, n, bounds, largest);
    for (uint32_t i = 0; i < n; i++)
        lists[i] = nearest_of(near, &rows[i], bounds + (size_t)i * near->padded, largest[i], &measured);
    return measured;
}

const pd_near_ops PD_NEAR = {
    .isa = PD_NEAR_ISA,
#if defined(__AVX512VNNI__)
    .bias = 128,
#endif
    .quantise = quantise,
    .prepare = prepare,
    .nearest = nearest,
};
