/* Rows into pages and back. Encoding is the same plain C for every backend, so that a version's files do not depend on
 * the machine that built them: what is added up is either whole or has a written order (LANES). */
#include "layout.h"

#include <math.h>
#include <string.h>

#include "f16.h"
#include "fmath.h"
#include "project.h"

/* Byte of dimension d of a row in [dim4 / 4][32][4]. */
static inline size_t i8_at(uint32_t d, uint32_t row)
{
    return ((size_t)(d / 4) * PD_PAGE_ROWS + row) * 4 + d % 4;
}

/* Sums have sixteen lanes, lane j over the dimensions j, j + 16, ..., four to a vector; the compiler makes of the vectors
 * what the machine has, and the sums come out the same. */
#define LANES 16u
#define PARTS (LANES / 4)

typedef float four __attribute__((vector_size(16)));
typedef int32_t four_whole __attribute__((vector_size(16)));
typedef double four_long __attribute__((vector_size(32)));

static inline four load_four(const float *from)
{
    four out;
    memcpy(&out, from, sizeof out);
    return out;
}

static inline four_whole larger(four_whole a, four_whole b)
{
    four_whole more = a > b;
    return (a & more) | (b & ~more);
}

/* Sixteen sizes, raised to those of the gaps. Floats without a sign order as integers do. */
static inline void raise_sizes(const float *row, const float *mid, four_whole *sizes)
{
    for (uint32_t v = 0; v < PARTS; v++)
        sizes[v] =
            larger(sizes[v], (four_whole)(load_four(row + 4 * v) - load_four(mid + 4 * v)) & 0x7fffffff);
}

static float largest_of(const four_whole *sizes)
{
    int32_t all[LANES], most = 0;
    memcpy(all, sizes, sizeof all);
    for (uint32_t j = 0; j < LANES; j++)
        most = all[j] > most ? all[j] : most;
    float out;
    memcpy(&out, &most, sizeof out);
    return out;
}

/* Sixteen codes into their places, and what they add to each lane. Squares stay whole: the 512 of the largest row are under
 * 2^24. */
static inline void encode_lanes(const float *row, const float *mid, float scale, four *squares,
                                four_long *crosses, uint32_t *codes)
{
    const four magic = {12582912.0f, 12582912.0f, 12582912.0f, 12582912.0f}; /* pd_round */
    const four_whole top = (four_whole)(magic - magic + 127.0f),
                     sign = {INT32_MIN, INT32_MIN, INT32_MIN, INT32_MIN};
    for (uint32_t v = 0; v < PARTS; v++) {
        four middle = load_four(mid + 4 * v);
        four value = (load_four(row + 4 * v) - middle) / scale;
        /* Where the scale is subnormal the quotient can leave the range. */
        four_whole size = (four_whole)value & ~sign, over = size > top;
        value = (four)(((top & over) | (size & ~over)) | ((four_whole)value & sign));
        value = (value + magic) - magic;
        squares[v] += value * value;
        crosses[v] += __builtin_convertvector(middle, four_long) * __builtin_convertvector(value, four_long);
        four_whole whole = __builtin_convertvector(value, four_whole) & 0xff;
        codes[v] = (uint32_t)whole[0] | (uint32_t)whole[1] << 8 | (uint32_t)whole[2] << 16 |
                   (uint32_t)whole[3] << 24;
    }
}

_Static_assert(PD_MAX_DIM / 16 * 127 * 127 < 1 << 24, "a lane's squares are whole in f32");

/* A row and its centroid, sixteen dimensions at a time; those past the last whole sixteen lie padded beside them. */
typedef struct residual {
    const float *row, *mid; /* mid: NULL is the origin */
    uint32_t whole;         /* dimensions in whole sixteens */
    float last_row[LANES], last_mid[LANES];
} residual;

static inline const float *row_at(const residual *r, uint32_t d)
{
    return d < r->whole ? r->row + d : r->last_row;
}

static inline const float *mid_at(const residual *r, uint32_t d)
{
    static const float nowhere[LANES];
    return d >= r->whole ? r->last_mid : r->mid ? r->mid + d : nowhere;
}

/* -(||r||^2 + 2 <c, r>) of what the codes stand for: ||r||^2 = scale^2 * squares, <c, r> = scale * crosses. Squares are whole, and
 * crosses exact enough to round once. */
static float l2_term(float scale, const four *squares, const four_long *crosses)
{
    float square_lanes[LANES];
    double cross_lanes[LANES], square = 0;
    memcpy(square_lanes, squares, sizeof square_lanes);
    memcpy(cross_lanes, crosses, sizeof cross_lanes);
    for (uint32_t j = 0; j < LANES; j++)
        square += (double)square_lanes[j];
    for (uint32_t half = LANES / 2; half > 0; half /= 2)
        for (uint32_t j = 0; j < half; j++)
            cross_lanes[j] = cross_lanes[j] + cross_lanes[j + half];
    double term = -((double)scale * (double)scale * square + 2.0 * (double)scale * cross_lanes[0]);
    return (float)term + 0.0f;
}

/* What the row is apart from its code: [l2: -(||r||^2 + 2 <c,r>) + 2 *] (<m,r> - <p(m),r~>), r~ = scale * code. */
static float projected_term(const pd_shape *shape, const pd_projection *p, const float *centroid,
                            const float *gap, float scale, const int8_t *codes)
{
    double square = 0, cross = 0, lost = 0;
    for (uint32_t d = 0; d < shape->dim; d++) {
        double r = (double)gap[d];
        square += r * r;
        if (centroid) cross += (double)centroid[d] * r;
        if (p->mean) lost += (double)p->mean[d] * r;
    }
    for (uint32_t j = 0; p->mean_out && j < p->code_dim; j++)
        lost -= (double)p->mean_out[j] * ((double)scale * (double)codes[j]);
    return (float)(shape->metric == PD_L2 ? 2.0 * lost - (square + 2.0 * cross) : lost) + 0.0f;
}

static void encode_projected(const pd_shape *shape, const pd_layout *layout, const pd_projection *p,
                             const float *centroid, const float *row, uint32_t place, void *page)
{
    float gap[PD_MAX_DIM], out[PD_MAX_DIM], most = 0.0f;
    int8_t codes[PD_MAX_DIM];
    for (uint32_t d = 0; d < shape->dim; d++)
        gap[d] = row[d] - (centroid ? centroid[d] : 0.0f);
    pd_project(p, gap, out);
    for (uint32_t j = 0; j < p->code_dim; j++)
        most = fabsf(out[j]) > most ? fabsf(out[j]) : most;
    float scale = most / 127.0f;
    for (uint32_t j = 0; j < layout->dim4; j++) {
        float code = j < p->code_dim && scale > 0.0f ? out[j] / scale : 0.0f;
        code = code > 127.0f ? 127.0f : code < -127.0f ? -127.0f : code;
        codes[j] = (int8_t)pd_round(code);
        ((int8_t *)page + layout->codes)[i8_at(j, place)] = codes[j];
    }
    pd_page_scale(layout, page)[place] = scale;
    pd_page_term(layout, page)[place] = projected_term(shape, p, centroid, gap, scale, codes);
}

static void encode_i8(const pd_shape *shape, const pd_layout *layout, const float *centroid, const float *row,
                      uint32_t place, void *page)
{
    int8_t *out = (int8_t *)page + layout->codes;
    uint32_t dim = shape->dim;
    residual r = {.row = row, .mid = centroid, .whole = dim / LANES * LANES};
    memcpy(r.last_row, row + r.whole, (dim - r.whole) * sizeof *row);
    if (centroid) memcpy(r.last_mid, centroid + r.whole, (dim - r.whole) * sizeof *centroid);
    four_whole sizes[PARTS] = {0};
    for (uint32_t d = 0; d < dim; d += LANES)
        raise_sizes(row_at(&r, d), mid_at(&r, d), sizes);
    float scale = largest_of(sizes) / 127.0f;
    four squares[PARTS] = {0};
    four_long crosses[PARTS] = {0};
    for (uint32_t d = 0; d < layout->dim4; d += LANES) {
        uint32_t codes[PARTS] = {0};
        if (scale > 0.0f) encode_lanes(row_at(&r, d), mid_at(&r, d), scale, squares, crosses, codes);
        for (uint32_t v = 0; v < PARTS && d + 4 * v < layout->dim4; v++)
            memcpy(out + i8_at(d + 4 * v, place), &codes[v], 4);
    }
    pd_page_scale(layout, page)[place] = scale;
    pd_page_term(layout, page)[place] = shape->metric == PD_L2 ? l2_term(scale, squares, crosses) : 0.0f;
}

static void encode_whole(const pd_shape *shape, const pd_layout *layout, const float *row, uint32_t place,
                         void *page)
{
    unsigned char *codes = (unsigned char *)page + layout->codes;
    for (uint32_t d = 0; d < shape->dim; d++) {
        size_t at = (size_t)d * PD_PAGE_ROWS + place;
        if (shape->code == PD_CODE_F16) ((pd_f16 *)codes)[at] = pd_f32_to_f16(row[d]);
        if (shape->code == PD_CODE_F32) ((float *)codes)[at] = row[d];
    }
    pd_page_scale(layout, page)[place] = 1.0f;
    pd_page_term(layout, page)[place] = 0.0f;
}

/* The nearest whole number in range. */
static int32_t whole(float value, float low, float high)
{
    value = value > low ? value : low;
    return (int32_t)pd_round(value < high ? value : high);
}

static void encode_refine(const pd_shape *shape, const pd_layout *layout, const float *row, uint32_t place,
                          void *refine)
{
    unsigned char *at = (unsigned char *)refine + place * pd_refine_row(layout);
    for (uint32_t d = 0; d < shape->dim; d++) {
        if (shape->refine == PD_REFINE_F32) ((float *)at)[d] = row[d];
        if (shape->refine == PD_REFINE_F16) ((pd_f16 *)at)[d] = pd_f32_to_f16(row[d]);
        if (shape->refine == PD_REFINE_I8) ((int8_t *)at)[d] = (int8_t)whole(row[d], -128.0f, 127.0f);
        if (shape->refine == PD_REFINE_U8) at[d] = (uint8_t)whole(row[d], 0.0f, 255.0f);
    }
}

static void decode_refine(const pd_shape *shape, const pd_layout *layout, uint32_t place, const void *refine,
                          float *out)
{
    const unsigned char *at = (const unsigned char *)refine + place * pd_refine_row(layout);
    for (uint32_t d = 0; d < shape->dim; d++) {
        if (shape->refine == PD_REFINE_F32) out[d] = ((const float *)at)[d];
        if (shape->refine == PD_REFINE_F16) out[d] = pd_f16_to_f32(((const pd_f16 *)at)[d]);
        if (shape->refine == PD_REFINE_I8) out[d] = (float)((const int8_t *)at)[d];
        if (shape->refine == PD_REFINE_U8) out[d] = (float)at[d];
    }
}

void pd_page_encode(const pd_shape *shape, const pd_layout *layout, const pd_projection *projection,
                    const float *centroid, const float *rows, uint32_t place, uint32_t count, void *page,
                    void *refine)
{
    for (uint32_t i = 0; i < count; i++) {
        const float *row = rows + (size_t)i * shape->dim;
        if (projection)
            encode_projected(shape, layout, projection, centroid, row, place + i, page);
        else if (shape->code == PD_CODE_I8)
            encode_i8(shape, layout, centroid, row, place + i, page);
        else
            encode_whole(shape, layout, row, place + i, page);
        if (refine) encode_refine(shape, layout, row, place + i, refine);
    }
}

void pd_page_decode(const pd_shape *shape, const pd_layout *layout, const float *centroid, uint32_t place,
                    const void *page, const void *refine, float *out)
{
    if (refine && shape->refine != PD_REFINE_NONE) {
        decode_refine(shape, layout, place, refine, out);
        return;
    }
    const unsigned char *codes = (const unsigned char *)page + layout->codes;
    float scale = ((const float *)((const unsigned char *)page + layout->scale))[place];
    for (uint32_t d = 0; d < shape->dim; d++) {
        size_t at = (size_t)d * PD_PAGE_ROWS + place;
        out[d] = 0.0f;
        if (shape->code == PD_CODE_I8)
            out[d] =
                (centroid ? centroid[d] : 0.0f) + scale * (float)((const int8_t *)codes)[i8_at(d, place)];
        if (shape->code == PD_CODE_F16) out[d] = pd_f16_to_f32(((const pd_f16 *)codes)[at]);
        if (shape->code == PD_CODE_F32) out[d] = ((const float *)codes)[at];
    }
}
