/* Codes of centroids, and groups of lists. */
#include "levels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void pd_coarse_live(const pd_layout *layout, unsigned char *pages, const float *terms, uint32_t i, int live)
{
    pd_page_term(layout, pages + i / PD_PAGE_ROWS * layout->page_bytes)[i % PD_PAGE_ROWS] =
        live ? terms[i] : -INFINITY;
}

pd_status pd_coarse_pages(const pd_coarse_view *view, const float *centroids, const uint32_t *rows,
                          uint32_t n, unsigned char **out, float **out_terms, pd_error *err)
{
    const pd_layout *layout = view->layout;
    uint32_t npages = pd_pages_for(n), dim = view->shape->dim;
    unsigned char *pages = aligned_alloc(64, (size_t)npages * layout->page_bytes);
    float *gap = malloc(dim * sizeof *gap), *terms = malloc(n * sizeof *terms);
    if (!pages || !gap || !terms) {
        free(pages);
        free(gap);
        free(terms);
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the codes of %u centroids", n);
    }
    /* Under l2 the query is moved by the mean as well, so that the mean query is at the origin. */
    pd_projection moved = view->projection ? *view->projection : (pd_projection){0};
    if (view->shape->metric == PD_L2) moved.mean = moved.mean_out = NULL;
    for (uint32_t p = 0; p < npages; p++)
        pd_page_clear(view->shape, layout, pages + p * layout->page_bytes);
    for (uint32_t i = 0; i < n; i++) {
        unsigned char *page = pages + i / PD_PAGE_ROWS * layout->page_bytes;
        for (uint32_t d = 0; d < dim; d++)
            gap[d] = centroids[(size_t)i * dim + d] - view->mean[d];
        pd_page_encode(view->shape, layout, view->projection ? &moved : NULL, NULL, gap, i % PD_PAGE_ROWS, 1,
                       page, NULL);
        terms[i] = pd_page_term(layout, page)[i % PD_PAGE_ROWS];
        pd_coarse_live(layout, pages, terms, i, rows[i] > 0);
    }
    free(gap);
    *out = pages;
    *out_terms = terms;
    return PD_OK;
}

/* ------------------------------------------------------------------------------------------------ groups --- */

/* out[i] = the mean of the values [n][apart] of lists from .. to - 1, column i, weighed by their rows. Where no list has any they
 * all count as much: a row may come to any of them. */
static void weighed_mean(const pd_lists *lists, uint32_t from, uint32_t to, const float *values, size_t apart,
                         uint32_t i, float *out)
{
    double sum = 0, rows = 0, plain = 0;
    for (uint32_t l = from; l < to; l++) {
        sum += (double)values[l * apart + i] * lists->rows[l];
        rows += lists->rows[l];
        plain += (double)values[l * apart + i];
    }
    *out = rows > 0 ? (float)(sum / rows) : to > from ? (float)(plain / (to - from)) : 0.0f;
}

static pd_status fill_codes(const pd_coarse_view *view, const pd_lists *lists, pd_level *level, pd_error *err)
{
    uint32_t dim = view->shape->dim;
    float *centroids = malloc((size_t)level->ngroups * dim * sizeof *centroids);
    if (!centroids)
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the centroids of %u groups",
                       level->ngroups);
    for (uint32_t g = 0; g < level->ngroups; g++)
        for (uint32_t d = 0; d < dim; d++)
            weighed_mean(lists, level->first[g], level->first[g + 1], lists->centroids, dim, d,
                         centroids + (size_t)g * dim + d);
    /* A group has rows where one of its lists has. */
    pd_status status =
        pd_coarse_pages(view, centroids, level->lists, level->ngroups, &level->pages, &level->terms, err);
    free(centroids);
    return status;
}

static void fill_counts(const pd_lists *lists, pd_level *level)
{
    for (uint32_t g = 0; g < level->ngroups; g++) {
        uint32_t size = level->first[g + 1] - level->first[g];
        level->most = size > level->most ? size : level->most;
        for (uint32_t l = level->first[g]; l < level->first[g + 1]; l++)
            level->lists[g] += lists->rows[l] > 0;
        level->live += level->lists[g];
    }
}

static void fill_blocks(const uint64_t *blocks, uint32_t columns, pd_level *level)
{
    for (uint32_t g = 0; g < level->ngroups; g++)
        for (uint32_t l = level->first[g]; l < level->first[g + 1]; l++)
            for (uint32_t c = 0; c < columns; c++)
                level->blocks[(size_t)g * columns + c] |= blocks[(size_t)l * columns + c];
}

pd_status pd_level_open(const pd_coarse_view *view, const pd_lists *lists, uint32_t nlist, uint32_t weights,
                        const uint64_t *blocks, uint32_t columns, pd_level *out, pd_error *err)
{
    uint32_t n = lists->ngroups;
    int summaries = lists->histograms && weights > 0;
    pd_level level = {.ngroups = n};
    level.first = malloc(((size_t)n + 1) * sizeof *level.first);
    level.lists = calloc(n, sizeof *level.lists);
    level.blocks = calloc((size_t)n * columns + 1, sizeof *level.blocks);
    if (summaries) level.histograms = malloc((size_t)weights * n * sizeof *level.histograms);
    pd_status status = PD_OK;
    if (!level.first || !level.lists || !level.blocks || (summaries && !level.histograms)) {
        status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for %u groups of lists", n);
        goto err_after_alloc;
    }
    memcpy(level.first, lists->group_first, ((size_t)n + 1) * sizeof *level.first);
    fill_counts(lists, &level);
    fill_blocks(blocks, columns, &level);
    for (uint32_t v = 0; summaries && v < weights; v++)
        for (uint32_t g = 0; g < n; g++)
            weighed_mean(lists, level.first[g], level.first[g + 1], lists->histograms + (size_t)v * nlist, 1,
                         0, level.histograms + (size_t)v * n + g);
    status = fill_codes(view, lists, &level, err);
    if (status != PD_OK) goto err_after_alloc;
    *out = level;
    return PD_OK;

err_after_alloc:
    pd_level_close(&level);
    return status;
}

void pd_level_close(pd_level *level)
{
    free(level->first);
    free(level->lists);
    free(level->pages);
    free(level->terms);
    free(level->histograms);
    free(level->blocks);
    memset(level, 0, sizeof *level);
}

uint32_t pd_level_group(const pd_level *level, uint32_t list)
{
    uint32_t low = 0, high = level->ngroups; /* first[low] <= list < first[high] */
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (level->first[middle] <= list)
            low = middle;
        else
            high = middle;
    }
    return low;
}

void pd_level_live(pd_level *level, const pd_layout *layout, uint32_t list, int live)
{
    if (level->ngroups == 0) return;
    uint32_t group = pd_level_group(level, list), had = level->lists[group];
    level->lists[group] = live ? had + 1 : had - 1;
    level->live = live ? level->live + 1 : level->live - 1;
    pd_coarse_live(layout, level->pages, level->terms, group, level->lists[group] > 0);
}

void pd_level_add(pd_level *level, const pd_blocks *blocks, uint32_t list, uint32_t page)
{
    if (level->ngroups == 0) return;
    uint64_t *own = level->blocks + (size_t)pd_level_group(level, list) * blocks->columns;
    for (uint32_t c = 0; c < blocks->columns; c++)
        own[c] |= blocks->pages[(size_t)page * blocks->columns + c];
}
