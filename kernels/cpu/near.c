/* The loops of assignment, compiled once for each instruction set: PD_NEAR names the table, PD_NEAR_ISA the set. */
#include "near.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "fmath.h"
#include "vector.h"

#define HALF (PD_PAGE_ROWS / 2) /* bounds kept of a page: the larger of each two that lie half a page apart */

/* ------------------------------------------------------------------------------------------------ codes --- */

INLINE float sum_of(vfloat sum)
{
    float lanes[VF], all = 0.0f;
    memcpy(lanes, &sum, sizeof lanes);
    for (uint32_t j = 0; j < VF; j++)
        all += lanes[j];
    return all;
}

static float quantise(const float *row, const float *mean, uint32_t dim, uint32_t dim64, int8_t *codes,
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
    for (uint32_t d = 0; d < dim64; d += 64) {
        uint32_t there = dim - d < 64 ? dim - d : 64;
        float gaps[64] = {0}, sizes[64] = {0};
        for (uint32_t j = 0; j < there; j++) {
            float gap = row[d + j] - mean[d + j], code = gap * up;
            code = code > 127.0f ? 127.0f : code;
            code = code < -127.0f ? -127.0f : code;
            gaps[j] = gap;
            sizes[j] = pd_round(code);
        }
        for (uint32_t j = 0; j < 64; j++)
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

/* ------------------------------------------------------------------------------------------------ bounds --- */

/* The upper bounds of VF centroids from their dots. */
INLINE vfloat upper(const pd_near *near, uint32_t list, const int32_t *dots, vfloat scale, vfloat reach)
{
    vint whole;
    memcpy(&whole, dots, sizeof whole);
    return (__builtin_convertvector(whole, vfloat) * scale) * v_load(near->scale + list) +
           (reach * v_load(near->length + list) - v_load(near->squares + list));
}

/* Half as many bounds as centroids for each of n rows, and the largest of each row. */
static void bound(const pd_near *near, const pd_cpu_i8 *i8, const pd_near_row *rows, const void *packed,
                  uint32_t n, float *bounds, float *largest)
{
    vfloat most[PD_GROUP];
    for (uint32_t i = 0; i < n; i++)
        most[i] = v_splat(-FLT_MAX);
    for (uint32_t page = 0; page < near->pages; page++) {
        int32_t dots[PD_GROUP * PD_PAGE_ROWS] __attribute__((aligned(64)));
        uint32_t list = page * PD_PAGE_ROWS;
        i8->dots(near->codes + (size_t)list * near->groups * 4, near->groups, near->dim64, packed, n, dots);
        for (uint32_t i = 0; i < n; i++) {
            float *out = bounds + ((size_t)i * near->pages + page) * HALF;
            const int32_t *own = dots + i * PD_PAGE_ROWS;
            vfloat scale = v_splat(rows[i].scale), reach = v_splat(rows[i].reach);
            for (uint32_t l = 0; l < HALF; l += VF) {
                vfloat both = v_max(upper(near, list + l, own + l, scale, reach),
                                    upper(near, list + HALF + l, own + HALF + l, scale, reach));
                v_store(out + l, both);
                most[i] = v_max(both, most[i]);
            }
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

/* The best centroid so far of one row. */
typedef struct best {
    uint32_t list;
    float gap, bar;
} best;

/* Measures the two centroids of a bound. */
INLINE void measure(const pd_near *near, const pd_near_row *row, uint32_t at, best *b)
{
    uint32_t list = at / HALF * PD_PAGE_ROWS + at % HALF;
    for (uint32_t end = list + PD_PAGE_ROWS; list < end; list += HALF) {
        if (list >= near->nlist) return;
        float gap = distance(row->values, near->values + (size_t)list * near->dim16, near->dim16);
        if (gap > b->gap || (gap == b->gap && list > b->list)) continue;
        b->list = list;
        b->gap = gap;
        b->bar = bar_of(near, row, gap);
    }
}

static uint32_t nearest_of(const pd_near *near, const pd_near_row *row, const float *bounds, float largest)
{
    uint32_t n = near->pages * HALF;
    best b = {.list = 0, .gap = FLT_MAX, .bar = -FLT_MAX};
    /* The largest bound first: it is nearly always that of the nearest, and leaves few others. */
    uint32_t first = n;
    for (uint32_t at = 0; at < n && first == n; at += 16) {
        uint32_t mask = v_at_least16(bounds + at, largest);
        if (mask) first = at + (uint32_t)__builtin_ctz(mask);
    }
    if (first < n) measure(near, row, first, &b);
    for (uint32_t at = 0; at < n; at += 16)
        for (uint32_t mask = v_at_least16(bounds + at, b.bar); mask; mask &= mask - 1) {
            uint32_t next = at + (uint32_t)__builtin_ctz(mask);
            if (next != first && bounds[next] >= b.bar) measure(near, row, next, &b);
        }
    return b.list;
}

static void nearest(const pd_near *near, const pd_cpu_i8 *i8, const pd_near_row *rows, const void *packed,
                    uint32_t n, float *bounds, uint32_t *lists)
{
    float largest[PD_GROUP];
    bound(near, i8, rows, packed, n, bounds, largest);
    for (uint32_t i = 0; i < n; i++)
        lists[i] = nearest_of(near, &rows[i], bounds + (size_t)i * near->pages * HALF, largest[i]);
}

const pd_near_ops PD_NEAR = {
    .isa = PD_NEAR_ISA,
    .quantise = quantise,
    .nearest = nearest,
};
