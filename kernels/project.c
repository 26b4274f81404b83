/* Projecting one vector at a time, for builders; the cpu backend projects queries in groups (cpu/prep.c). */
#include "project.h"

#include <stdlib.h>
#include <string.h>

#include "cpu/ops.h"
#include "score.h"

void pd_centroid_mean(const float *centroids, uint32_t nlist, uint32_t dim, float *out)
{
    for (uint32_t d = 0; d < dim; d++) {
        double sum = 0;
        for (uint32_t list = 0; list < nlist; list++)
            sum += (double)centroids[(size_t)list * dim + d];
        out[d] = (float)(sum / nlist);
    }
}

/* Any table of integer dots gives the same sums; tiles are left to the scan, since they have to be given back. */
static const pd_cpu_i8 *dots_here(void)
{
    static const char *const isas[] = {"avx512", "avx2", "portable"};
    const pd_cpu_ops *ops;
    const pd_cpu_i8 *i8 = NULL;
    for (size_t i = 0; i < sizeof isas / sizeof *isas; i++)
        if (pd_cpu_ops_find(isas[i], &ops, &i8)) break;
    return i8;
}

void pd_project(const pd_projection *p, const float *vector, float *out)
{
    const pd_cpu_i8 *i8 = p->dots;
    uint32_t dim64 = pd_dim64(p->dim);
    int8_t codes[PD_MAX_DIM] __attribute__((aligned(64)));
    unsigned char packed[2 * PD_MAX_DIM + 64] __attribute__((aligned(64)));
    int32_t dots[PD_PAGE_ROWS];
    float scale = pd_quantise_query(vector, p->dim, dim64, codes);
    i8->pack(codes, dim64, packed);
    for (uint32_t j = 0; j < p->code_dim; j += PD_PAGE_ROWS) {
        unsigned char *page = p->pages + j / PD_PAGE_ROWS * p->layout.page_bytes;
        const float *scales = pd_page_scale(&p->layout, page);
        i8->dots((const int8_t *)(page + p->layout.codes), p->layout.dim4 / 4, dim64, packed, 1, dots);
        for (uint32_t r = 0; r < PD_PAGE_ROWS && j + r < p->code_dim; r++)
            out[j + r] = (scale * scales[r]) * (float)dots[r] + 0.0f;
    }
}

pd_status pd_projection_open(const float *matrix, uint32_t code_dim, const float *centroids, uint32_t nlist,
                             uint32_t dim, pd_projection **out, pd_error *err)
{
    pd_shape shape = {.metric = PD_IP, .code = PD_CODE_I8, .dim = dim, .nlist = 1};
    pd_projection *p = calloc(1, sizeof *p);
    if (!p) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for a projection");
    p->dim = dim;
    p->code_dim = code_dim;
    p->dots = dots_here();
    pd_status status = pd_layout_of(&shape, &p->layout, err);
    if (status != PD_OK) goto err_after_alloc;
    uint32_t npages = pd_pages_for(code_dim);
    p->pages = aligned_alloc(64, (size_t)npages * p->layout.page_bytes);
    p->memory = malloc(((size_t)dim + code_dim) * sizeof *p->memory);
    if (!p->pages || !p->memory) {
        status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for a projection of %u dimensions to %u", dim,
                         code_dim);
        goto err_after_alloc;
    }
    for (uint32_t page = 0; page < npages; page++) {
        unsigned char *at = p->pages + page * p->layout.page_bytes;
        uint32_t first = page * PD_PAGE_ROWS, left = code_dim - first;
        pd_page_clear(&shape, &p->layout, at);
        pd_page_encode(&shape, &p->layout, NULL, NULL, matrix + (size_t)first * dim, 0,
                       left < PD_PAGE_ROWS ? left : PD_PAGE_ROWS, at, NULL);
    }
    pd_centroid_mean(centroids, nlist, dim, p->memory);
    pd_project(p, p->memory, p->memory + dim);
    p->mean = p->memory;
    p->mean_out = p->memory + dim;
    *out = p;
    return PD_OK;

err_after_alloc:
    pd_projection_close(p);
    return status;
}

void pd_projection_close(pd_projection *p)
{
    if (!p) return;
    free(p->pages);
    free(p->memory);
    free(p);
}
