/* Where the columns of a page lie. The order is the one layout.h draws; every column is a multiple of 32 bytes long, so
 * that alignment needs no padding between columns, only behind the last. */
#include "layout.h"

#include <math.h>
#include <string.h>

static pd_status check_shape(const pd_shape *shape, pd_error *err)
{
    if (shape->dim == 0 || shape->dim > PD_MAX_DIM)
        return pd_fail(err, PD_INVALID_ARGUMENT, "dim is %u, it must be 1 to %u", shape->dim, PD_MAX_DIM);
    if ((unsigned)shape->metric > PD_L2)
        return pd_fail(err, PD_INVALID_ARGUMENT, "metric %d is not known", (int)shape->metric);
    if ((unsigned)shape->code > PD_CODE_F32)
        return pd_fail(err, PD_INVALID_ARGUMENT, "code %d is not known", (int)shape->code);
    if ((unsigned)shape->refine > PD_REFINE_U8)
        return pd_fail(err, PD_INVALID_ARGUMENT, "refine %d is not known", (int)shape->refine);
    if (shape->code == PD_CODE_NONE && shape->refine == PD_REFINE_NONE)
        return pd_fail(err, PD_INVALID_ARGUMENT, "a table needs codes or refine rows, this one has neither");
    if (shape->code_dim > shape->dim)
        return pd_fail(err, PD_INVALID_ARGUMENT, "codes of %u dimensions for rows of %u", shape->code_dim,
                       shape->dim);
    if (shape->code_dim && shape->code_dim < shape->dim &&
        (shape->code != PD_CODE_I8 || shape->nlist == 0 || shape->refine == PD_REFINE_NONE))
        return pd_fail(err, PD_INVALID_ARGUMENT,
                       "codes of fewer dimensions than the rows need i8 codes, lists and refine rows");
    if (shape->nbytes > PD_MAX_BYTES)
        return pd_fail(err, PD_INVALID_ARGUMENT, "%u byte columns, at most %u are possible", shape->nbytes,
                       PD_MAX_BYTES);
    if (shape->nfloats > PD_MAX_FLOATS)
        return pd_fail(err, PD_INVALID_ARGUMENT, "%u float columns, at most %u are possible", shape->nfloats,
                       PD_MAX_FLOATS);
    if (shape->nkeys > PD_MAX_KEYS)
        return pd_fail(err, PD_INVALID_ARGUMENT, "%u key columns, at most %u are possible", shape->nkeys,
                       PD_MAX_KEYS);
    for (uint32_t c = 0; c < shape->nbytes; c++)
        if (shape->sizes[c] > 256)
            return pd_fail(err, PD_INVALID_ARGUMENT, "byte column %u has %u values, at most 256 are possible",
                           c, shape->sizes[c]);
    return PD_OK;
}

pd_status pd_layout_of(const pd_shape *shape, pd_layout *layout, pd_error *err)
{
    pd_status status = check_shape(shape, err);
    if (status != PD_OK) return status;
    memset(layout, 0, sizeof *layout);
    const size_t rows = PD_PAGE_ROWS;
    layout->code_dim = shape->code_dim ? shape->code_dim : shape->dim;
    layout->dim4 = (layout->code_dim + 3u) & ~3u;
    size_t codes = 0;
    if (shape->code == PD_CODE_I8) codes = layout->dim4 * rows;
    if (shape->code == PD_CODE_F16) codes = shape->dim * rows * sizeof(uint16_t);
    if (shape->code == PD_CODE_F32) codes = shape->dim * rows * sizeof(float);
    layout->codes = 0;
    layout->scale = layout->codes + codes;
    layout->term = layout->scale + rows * sizeof(float);
    layout->ids = layout->term + rows * sizeof(float);
    layout->bytes = layout->ids + rows * sizeof(uint64_t);
    layout->floats = layout->bytes + shape->nbytes * rows;
    layout->keys = layout->floats + shape->nfloats * rows * sizeof(float);
    size_t end = layout->keys + shape->nkeys * rows * sizeof(uint64_t);
    layout->page_bytes = (end + 63u) & ~(size_t)63u;
    if (shape->refine == PD_REFINE_F16) layout->refine_bytes = rows * shape->dim * sizeof(uint16_t);
    if (shape->refine == PD_REFINE_F32) layout->refine_bytes = rows * shape->dim * sizeof(float);
    if (shape->refine == PD_REFINE_I8 || shape->refine == PD_REFINE_U8)
        layout->refine_bytes = rows * ((shape->dim + 1u) & ~1u);
    for (uint32_t c = 0; c < shape->nbytes; c++) {
        layout->weight_at[c] = layout->weights;
        layout->weights += shape->sizes[c];
    }
    return PD_OK;
}

void pd_page_clear(const pd_shape *shape, const pd_layout *layout, void *page)
{
    memset(page, 0, layout->page_bytes);
    float *term = pd_page_term(layout, page);
    for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
        term[r] = -INFINITY;
    float *floats = pd_page_floats(layout, page, 0);
    for (size_t i = 0; i < (size_t)shape->nfloats * PD_PAGE_ROWS; i++)
        floats[i] = NAN;
}
