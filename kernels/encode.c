/* Rows into pages and back. Encoding is the same plain C for every backend, so that a version's files do not depend on
 * the machine that built them. */
#include "layout.h"

#include <math.h>
#include <string.h>

#include "f16.h"
#include "fmath.h"

/* Byte of dimension d of a row in [dim4 / 4][32][4]. */
static inline size_t i8_at(uint32_t d, uint32_t row)
{
    return ((size_t)(d / 4) * PD_PAGE_ROWS + row) * 4 + d % 4;
}

static void encode_i8(const pd_shape *shape, const pd_layout *layout, const float *centroid, const float *row,
                      uint32_t place, void *page)
{
    int8_t *codes = (int8_t *)((unsigned char *)page + layout->codes);
    float most = 0.0f;
    for (uint32_t d = 0; d < shape->dim; d++) {
        float gap = fabsf(row[d] - (centroid ? centroid[d] : 0.0f));
        most = gap > most ? gap : most;
    }
    float scale = most / 127.0f;
    /* ||r||^2 = scale^2 * squares and <c, r> = scale * cross, both exact enough in double to round once. */
    double squares = 0, cross = 0;
    for (uint32_t d = 0; d < layout->dim4; d++) {
        float code = 0.0f;
        if (d < shape->dim && scale > 0.0f) {
            float mid = centroid ? centroid[d] : 0.0f;
            code = (row[d] - mid) / scale;
            code = code > 127.0f ? 127.0f : code;
            code = code < -127.0f ? -127.0f : code;
            code = pd_round(code);
            squares += (double)code * (double)code;
            cross += (double)mid * (double)code;
        }
        codes[i8_at(d, place)] = (int8_t)code;
    }
    pd_page_scale(layout, page)[place] = scale;
    double term = -((double)scale * (double)scale * squares + 2.0 * (double)scale * cross);
    pd_page_term(layout, page)[place] = shape->metric == PD_L2 ? (float)term + 0.0f : 0.0f;
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

static void encode_refine(const pd_shape *shape, const float *row, uint32_t place, void *refine)
{
    size_t at = (size_t)place * shape->dim;
    if (shape->refine == PD_REFINE_F32) memcpy((float *)refine + at, row, shape->dim * sizeof *row);
    if (shape->refine == PD_REFINE_F16)
        for (uint32_t d = 0; d < shape->dim; d++)
            ((pd_f16 *)refine)[at + d] = pd_f32_to_f16(row[d]);
}

void pd_page_encode(const pd_shape *shape, const pd_layout *layout, const float *centroid, const float *rows,
                    uint32_t place, uint32_t count, void *page, void *refine)
{
    for (uint32_t i = 0; i < count; i++) {
        const float *row = rows + (size_t)i * shape->dim;
        if (shape->code == PD_CODE_I8)
            encode_i8(shape, layout, centroid, row, place + i, page);
        else
            encode_whole(shape, layout, row, place + i, page);
        if (refine) encode_refine(shape, row, place + i, refine);
    }
}

void pd_page_decode(const pd_shape *shape, const pd_layout *layout, const float *centroid, uint32_t place,
                    const void *page, const void *refine, float *out)
{
    if (refine && shape->refine != PD_REFINE_NONE) {
        size_t at = (size_t)place * shape->dim;
        if (shape->refine == PD_REFINE_F32) memcpy(out, (const float *)refine + at, shape->dim * sizeof *out);
        if (shape->refine == PD_REFINE_F16)
            for (uint32_t d = 0; d < shape->dim; d++)
                out[d] = pd_f16_to_f32(((const pd_f16 *)refine)[at + d]);
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
