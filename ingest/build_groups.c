/* Groups of lists: where lists are many, their centroids are clustered in turn, into 2 sqrt(lists) groups, and lists are
 * numbered group by group. A search then ranks groups before lists (kernels/levels.h; docs/decisions/0011 says how many). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "build_impl.h"
#include "score.h"
#include "train.h"

/* The centroids in the order of their groups; group_first begins each that has any. of: [nlist] */
static pd_status renumber(pd_builder *b, const uint32_t *of, uint32_t ngroups, pd_error *err)
{
    size_t row = b->dim * sizeof *b->centroids;
    float *old = malloc(b->nlist * row);
    uint32_t *at = calloc((size_t)ngroups + 1, sizeof *at);
    if (!old || !at) {
        free(old);
        free(at);
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to put %u lists into groups", b->nlist);
    }
    memcpy(old, b->centroids, b->nlist * row);
    for (uint32_t l = 0; l < b->nlist; l++)
        at[of[l] + 1]++;
    b->ngroups = 0;
    for (uint32_t g = 0; g < ngroups; g++) {
        if (at[g + 1]) b->group_first[b->ngroups++] = at[g];
        at[g + 1] += at[g];
    }
    b->group_first[b->ngroups] = b->nlist;
    for (uint32_t l = 0; l < b->nlist; l++)
        memcpy(b->centroids + (size_t)at[of[l]]++ * b->dim, old + (size_t)l * b->dim, row);
    free(old);
    free(at);
    return PD_OK;
}

static int tell(void *context, uint64_t done, uint64_t total)
{
    return pd_builder_tick(context, "train", done, total, NULL) != PD_OK;
}

pd_status pd_builder_groups(pd_builder *b, pd_error *err)
{
    if (b->nlist < (b->in->groups_from ? b->in->groups_from : PD_GROUPS_FROM)) return PD_OK;
    uint32_t n = (uint32_t)(2 * sqrt((double)b->nlist));
    if (n > b->nlist) n = b->nlist;
    float *centroids = malloc((size_t)n * b->dim * sizeof *centroids);
    uint32_t *of = malloc(b->nlist * sizeof *of);
    b->group_first = malloc(((size_t)n + 1) * sizeof *b->group_first);
    pd_train_options options = {.nlist = n,
                                .seed = b->in->seed ^ 0x67726f7570730004ull,
                                .spherical = b->shape.metric == PD_COSINE,
                                .device = b->device,
                                .pool = b->pool,
                                .progress = tell,
                                .context = b};
    pd_status status = PD_OK;
    if (!centroids || !of || !b->group_first)
        status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for %u groups of lists", n);
    if (!status) status = pd_train_centroids(&options, b->nlist, b->dim, b->centroids, centroids, err);
    if (!status) status = pd_device_assign(b->device, centroids, n, b->dim, b->centroids, b->nlist, of, err);
    if (!status) status = renumber(b, of, n, err);
    free(centroids);
    free(of);
    return status;
}
