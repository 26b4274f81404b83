/* The reference backend: the score and the search exactly as they are written down, one row at a time, in double, on one
 * thread. It is the oracle of every test, so it is kept too simple to be wrong and is slow.
 *
 * It shares pages, lists and gather with the cpu backend (host.h) and the order of hits (topk.h); it does not share any
 * arithmetic of the score.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backends.h"
#include "f16.h"
#include "filter.h"
#include "host.h"
#include "score.h"
#include "slab.h"
#include "topk.h"

typedef struct ref_device {
    pd_device base;
    pd_slab slab;
} ref_device;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static pd_status ref_open(const pd_device_options *options, pd_device **out, pd_error *err)
{
    if (options->isa && strcmp(options->isa, "double") != 0)
        return pd_fail(err, PD_INVALID_ARGUMENT,
                       "isa \"%s\" is not known to the reference backend; it has double", options->isa);
    ref_device *device = calloc(1, sizeof *device);
    if (!device) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for a device");
    pd_status status = pd_slab_open(&device->slab, options->memory, err);
    if (status != PD_OK) {
        free(device);
        return status;
    }
    device->base.backend = &pd_backend_reference;
    *out = &device->base;
    return PD_OK;
}

static void ref_close(pd_device *base)
{
    ref_device *device = (ref_device *)base;
    pd_slab_close(&device->slab);
    free(device);
}

static void ref_info(const pd_device *base, pd_device_info *info)
{
    const ref_device *device = (const ref_device *)base;
    info->backend = "reference";
    info->isa = "double";
    strcpy(info->about, "plain C in double, one thread");
    info->threads = 1;
    info->memory = (uint64_t)device->slab.chunks * PD_CHUNK_BYTES;
    info->used = (uint64_t)(device->slab.chunks - device->slab.free) * PD_CHUNK_BYTES;
}

static pd_status ref_index_open(pd_device *device, const pd_index_spec *spec, pd_index **out, pd_error *err)
{
    return pd_host_index_open(&pd_backend_reference, &((ref_device *)device)->slab, sizeof(pd_host_index),
                              spec, out, err);
}

/* -------------------------------------------------------------------------------------------- similarities --- */

static double similarity(pd_metric metric, const float *q, const float *x, uint32_t dim)
{
    double sum = 0;
    for (uint32_t d = 0; d < dim; d++) {
        double gap = (double)q[d] - (double)x[d];
        sum += metric == PD_L2 ? -gap * gap : (double)q[d] * (double)x[d];
    }
    return sum;
}

/* q's similarity to what a code stands for; i8 by the written formula, since the query is quantised too. */
static double code_similarity(const pd_host_index *index, const pd_query *query, float qs, const int8_t *qi,
                              double lt, uint32_t page, uint32_t row, float *decoded)
{
    const pd_shape *shape = &index->base.shape;
    const pd_layout *layout = &index->base.layout;
    unsigned char *base = pd_host_page(index, page);
    if (shape->code != PD_CODE_I8) {
        pd_page_decode(shape, layout, NULL, row, base,
                       shape->code == PD_CODE_NONE ? pd_host_refine(index, page) : NULL, decoded);
        return similarity(shape->metric, query->vector, decoded, shape->dim);
    }
    const int8_t *codes = (const int8_t *)(base + layout->codes);
    double dot = 0;
    for (uint32_t d = 0; d < layout->code_dim; d++)
        dot += (double)qi[d] * (double)codes[((size_t)(d / 4) * PD_PAGE_ROWS + row) * 4 + d % 4];
    double qf = shape->metric == PD_L2 ? 2.0 * (double)qs : (double)qs;
    return lt + (double)pd_page_term(layout, base)[row] + qf * (double)pd_page_scale(layout, base)[row] * dot;
}

/* score = start + what the row's columns weigh. */
static double with_weights(const pd_shape *shape, const pd_layout *layout, const pd_query *query, void *page,
                           uint32_t row, double score)
{
    for (uint32_t c = 0; query->weights && c < shape->nbytes; c++) {
        uint8_t value = pd_page_bytes(layout, page, c)[row];
        if (value < shape->sizes[c]) score += (double)query->weights[layout->weight_at[c] + value];
    }
    for (uint32_t i = 0; i < query->nkey_weights; i++)
        if (pd_page_keys(layout, page, query->key_weights[i].column)[row] == query->key_weights[i].value)
            score += (double)query->key_weights[i].weight;
    return score;
}

/* --------------------------------------------------------------------------------------------------- coarse --- */

/* The summary of backend.h for one of n lists or groups; columns without any weight say nothing. */
static double summary(const pd_host_index *index, const pd_query *query, const float *histograms, uint32_t n,
                      uint32_t list)
{
    const pd_shape *shape = &index->base.shape;
    const pd_layout *layout = &index->base.layout;
    double total = 0;
    if (!histograms || !(index->beta > 0.0f) || !query->weights) return 0;
    for (uint32_t c = 0; c < shape->nbytes; c++) {
        const float *weights = query->weights + layout->weight_at[c];
        double mean = 0, most = shape->sizes[c] < 256 ? 0 : (double)weights[0], shares = 0;
        int weighed = 0;
        for (uint32_t v = 0; v < shape->sizes[c]; v++) {
            most = fmax(most, (double)weights[v]);
            weighed |= weights[v] != 0.0f;
        }
        if (!weighed || !index->tied[c]) continue;
        for (uint32_t v = 0; v < shape->sizes[c]; v++) {
            double power = fmin(60, fmax(-60, (double)index->beta * ((double)weights[v] - most)));
            double share = (double)histograms[((size_t)layout->weight_at[c] + v) * n + list];
            mean += weights[v] != 0.0f ? share * exp(power) : 0;
            shares += weights[v] != 0.0f ? share : 0;
        }
        if (most >= 0) mean += (1 - shares) * exp(fmin(60, fmax(-60, -(double)index->beta * most)));
        total += log(fmax(mean, 1e-4)) / (double)index->beta;
    }
    return total;
}

static double list_term(const pd_host_index *index, const pd_query *query, uint32_t list)
{
    if (!query->vector || !index->centroids) return 0;
    return similarity(index->base.shape.metric, query->vector, pd_host_centroid(index, list),
                      index->base.shape.dim);
}

/* What is quantised in a query's place where codes have fewer dimensions (score.h). Its f32 roundings decide codes, so that
 * they are taken as written. out: [code_dim] */
static void project(const pd_projection *p, const float *vector, float *out)
{
    int8_t codes[PD_MAX_DIM];
    float scale = pd_quantise_query(vector, p->dim, p->dim, codes);
    for (uint32_t j = 0; j < p->code_dim; j++) {
        unsigned char *page = p->pages + j / PD_PAGE_ROWS * p->layout.page_bytes;
        const int8_t *rows = (const int8_t *)(page + p->layout.codes);
        uint32_t row = j % PD_PAGE_ROWS;
        int64_t dot = 0;
        for (uint32_t d = 0; d < p->dim; d++)
            dot += codes[d] * rows[((size_t)(d / 4) * PD_PAGE_ROWS + row) * 4 + d % 4];
        float factor = scale * pd_page_scale(&p->layout, page)[row];
        out[j] = factor * (float)dot;
        out[j] = out[j] + 0.0f;
    }
}

/* How near each of n lists or groups is for choosing (score.h): by the i8 codes of the centroids, which stand for c - mean. */
static void nearness(const pd_host_index *index, const pd_query *query, unsigned char *pages, uint32_t n,
                     double *near)
{
    const pd_shape *shape = &index->base.shape;
    const pd_layout *layout = &index->coarse;
    float moved[PD_MAX_DIM];
    int8_t codes[PD_MAX_DIM];
    const float *mean = index->projection ? index->projection->mean_out : index->mean;
    if (index->projection)
        project(index->projection, query->vector, moved);
    else
        memcpy(moved, query->vector, shape->dim * sizeof *moved);
    for (uint32_t d = 0; shape->metric == PD_L2 && d < layout->code_dim; d++)
        moved[d] = moved[d] - mean[d];
    float qs = pd_quantise_query(moved, layout->code_dim, layout->dim4, codes);
    double factor = shape->metric == PD_L2 ? 2.0 * (double)qs : (double)qs;
    for (uint32_t list = 0; list < n; list++) {
        unsigned char *page = pages + list / PD_PAGE_ROWS * layout->page_bytes;
        const int8_t *rows = (const int8_t *)(page + layout->codes);
        uint32_t row = list % PD_PAGE_ROWS;
        double dot = 0;
        for (uint32_t d = 0; d < layout->code_dim; d++)
            dot += (double)codes[d] * (double)rows[((size_t)(d / 4) * PD_PAGE_ROWS + row) * 4 + d % 4];
        near[list] =
            (double)pd_page_term(layout, page)[row] + factor * (double)pd_page_scale(layout, page)[row] * dot;
    }
}

/* The groups whose lists are looked at, as the rule of score.h says. Returns how many. order: [ngroups], near: to work in */
static uint32_t choose_groups(const pd_host_index *index, const pd_query *query, const pd_block_filter *fold,
                              pd_hit *order, double *near)
{
    const pd_level *level = &index->upper;
    nearness(index, query, level->pages, level->ngroups, near);
    for (uint32_t g = 0; g < level->ngroups; g++) {
        double score =
            (double)query->similarity * near[g] + summary(index, query, level->histograms, level->ngroups, g);
        if (level->lists[g] == 0 || (fold && !pd_level_may(level, &index->blocks, fold, g)))
            score = -INFINITY;
        order[g] = (pd_hit){.id = g, .score = (float)score};
    }
    pd_hits_sort(order, level->ngroups);
    uint32_t n = 0;
    for (uint64_t held = 0, wanted = (uint64_t)PD_GROUP_REACH * query->nprobe;
         n < level->ngroups && (n < PD_LEAST_GROUPS || held < wanted); n++)
        for (uint32_t l = level->first[order[n].id]; l < level->first[order[n].id + 1]; l++)
            held += index->rows[l] > 0 && (!fold || pd_blocks_list_may(&index->blocks, fold, l));
    return n;
}

/* The lists to scan, best first. Returns how many. order: [pd_host_nlist], near: the same, to work in */
static uint32_t choose(const pd_host_index *index, const pd_query *query, pd_hit *order, double *near)
{
    uint32_t nlist = pd_host_nlist(index);
    int lists = query->vector && index->base.shape.nlist > 0;
    if (lists && query->probes) {
        for (uint32_t i = 0; i < query->nprobe; i++)
            order[i] = (pd_hit){.id = query->probes[i]};
        return query->nprobe;
    }
    pd_block_filter folded, *fold = NULL;
    if (lists && query->filter && pd_block_filter_of(&index->blocks, query->filter, &folded)) fold = &folded;
    uint8_t *taken = lists && index->upper.ngroups ? calloc(nlist, 1) : NULL;
    if (lists && index->upper.ngroups) {
        if (!taken) return UINT32_MAX;
        uint32_t n = choose_groups(index, query, fold, order, near);
        for (uint32_t i = 0; i < n; i++) {
            const uint32_t *first = &index->upper.first[order[i].id];
            memset(taken + first[0], 1, first[1] - first[0]);
        }
    }
    memset(near, 0, nlist * sizeof *near);
    if (lists) nearness(index, query, index->coarse_pages, nlist, near);
    uint32_t n = 0;
    for (uint32_t list = 0; list < nlist; list++) {
        double score =
            (double)query->similarity * near[list] + summary(index, query, index->histograms, nlist, list);
        if (index->rows && index->rows[list] == 0) score = -INFINITY;
        if (fold && !pd_blocks_list_may(&index->blocks, fold, list)) score = -INFINITY;
        if (!taken || taken[list]) order[n++] = (pd_hit){.id = list, .score = (float)score};
    }
    free(taken);
    pd_hits_sort(order, n);
    if (!query->vector) return n;
    return query->nprobe < n ? query->nprobe : n;
}

/* -------------------------------------------------------------------------------------------------- search --- */

typedef struct ref_search {
    pd_host_index *index;
    const pd_query *query;
    pd_topk topk;
    float qs;
    int8_t *qi;     /* [dim4] */
    float *decoded; /* [dim] */
    uint64_t scanned;
} ref_search;

/* Scores the rows of a page that are in mask. */
static void scan_page(ref_search *s, uint32_t page, double lt, uint32_t mask)
{
    const pd_query *query = s->query;
    const pd_layout *layout = &s->index->base.layout;
    unsigned char *base = pd_host_page(s->index, page);
    uint32_t live = pd_page_live(layout, base) & mask;
    uint32_t pass = pd_filter_page(layout, query->filter, base, live);
    if (pass == 0) return;
    s->scanned += (uint64_t)__builtin_popcount(live);
    for (uint32_t row = 0; row < PD_PAGE_ROWS; row++) {
        uint64_t id = pd_page_ids(layout, base)[row];
        if (!(pass >> row & 1u) || pd_excluded(query->exclude, query->nexclude, id)) continue;
        double score = 0;
        if (query->vector)
            score = (double)query->similarity *
                    code_similarity(s->index, query, s->qs, s->qi, lt, page, row, s->decoded);
        score = with_weights(&s->index->base.shape, layout, query, base, row, score);
        pd_topk_push(&s->topk, (float)score + 0.0f, id, page * PD_PAGE_ROWS + row);
    }
}

static void scan_slots(ref_search *s, const pd_hit *probes, uint32_t nprobe)
{
    const pd_shape *shape = &s->index->base.shape;
    const pd_query *query = s->query;
    for (uint32_t i = 0, next; i < query->nslots; i = next) {
        uint32_t page = query->slots[i] / PD_PAGE_ROWS, rows = 0;
        for (next = i; next < query->nslots && query->slots[next] / PD_PAGE_ROWS == page; next++)
            rows |= 1u << query->slots[next] % PD_PAGE_ROWS;
        uint32_t list = shape->nlist > 0 ? s->index->page_list[page] : 0;
        int scanned = list == PD_NO_LIST;
        for (uint32_t p = 0; p < nprobe; p++)
            scanned |= probes[p].id == list;
        if (!scanned) scan_page(s, page, list_term(s->index, query, list), rows);
    }
}

/* The candidates' scores again, from the refine rows. */
static void refine(ref_search *s, pd_topk *best)
{
    const pd_shape *shape = &s->index->base.shape;
    pd_topk_shrink(&s->topk);
    for (uint32_t i = 0; i < s->topk.count; i++) {
        const pd_hit *hit = &s->topk.items[i];
        uint32_t page = hit->slot / PD_PAGE_ROWS, row = hit->slot % PD_PAGE_ROWS;
        unsigned char *base = pd_host_page(s->index, page);
        pd_page_decode(shape, &s->index->base.layout, NULL, row, base, pd_host_refine(s->index, page),
                       s->decoded);
        double score = (double)s->query->similarity *
                       similarity(shape->metric, s->query->vector, s->decoded, shape->dim);
        score = with_weights(shape, &s->index->base.layout, s->query, base, row, score);
        pd_topk_push(best, (float)score + 0.0f, hit->id, hit->slot);
    }
}

static void give_answer(pd_topk *topk, pd_answer *answer)
{
    pd_topk_sort(topk);
    answer->count = topk->count;
    memcpy(answer->hits, topk->items, topk->count * sizeof *topk->items);
}

static pd_status search_one(pd_host_index *index, const pd_query *query, pd_answer *answer, pd_timing *timing,
                            pd_error *err)
{
    const pd_shape *shape = &index->base.shape;
    ref_search s = {.index = index, .query = query};
    int refines = query->vector && shape->code != PD_CODE_NONE && shape->refine != PD_REFINE_NONE;
    uint32_t depth = query->k;
    if (refines) depth = query->depth ? query->depth : pd_refine_depth(query->k);
    if (depth < query->k) depth = query->k;
    uint32_t nlist = pd_host_nlist(index);
    pd_hit *items = malloc((size_t)(pd_topk_room(depth) + pd_topk_room(query->k) + nlist) * sizeof *items);
    s.qi = malloc(index->base.layout.dim4);
    s.decoded = malloc(shape->dim * sizeof *s.decoded);
    double *near = malloc(nlist * sizeof *near);
    pd_status status = PD_OK;
    if (!items || !s.qi || !s.decoded || !near) {
        status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "%s: no memory to search", index->name);
        goto done;
    }
    uint64_t t0 = now_ns();
    pd_hit *order = items + pd_topk_room(depth) + pd_topk_room(query->k);
    pd_topk_init(&s.topk, items, depth, refines ? -INFINITY : query->min_score);
    const float *quantised = query->vector;
    if (query->vector && index->projection) {
        project(index->projection, query->vector, s.decoded);
        quantised = s.decoded;
    }
    if (query->vector)
        s.qs = pd_quantise_query(quantised, index->base.layout.code_dim, index->base.layout.dim4, s.qi);
    uint32_t nprobe = query->vector && query->nprobe == 0 ? 0 : choose(index, query, order, near);
    if (nprobe == UINT32_MAX) {
        status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "%s: no memory to choose lists", index->name);
        goto done;
    }
    uint64_t t1 = now_ns();
    for (uint32_t p = 0; p < nprobe; p++) {
        uint32_t list = (uint32_t)order[p].id;
        double lt = list_term(index, query, list);
        for (uint32_t i = 0; i < pd_host_list_pages(index, list); i++)
            scan_page(&s, pd_host_list_page(index, list, i), lt, UINT32_MAX);
    }
    scan_slots(&s, order, nprobe);
    uint64_t t2 = now_ns();
    pd_topk best = s.topk;
    if (refines) {
        pd_topk_init(&best, items + pd_topk_room(depth), query->k, query->min_score);
        refine(&s, &best);
    }
    give_answer(&best, answer);
    answer->nprobe = shape->nlist > 0 ? nprobe : 0;
    answer->scanned = s.scanned;
    for (uint32_t p = 0; answer->probes && p < answer->nprobe && query->vector; p++)
        answer->probes[p] = (uint32_t)order[p].id;
    timing->coarse_ns += t1 - t0;
    timing->scan_ns += t2 - t1;
    timing->refine_ns += now_ns() - t2;
done:
    free(items);
    free(s.qi);
    free(s.decoded);
    free(near);
    return status;
}

static pd_status ref_search_all(pd_index *index, const pd_query *queries, uint32_t count, pd_answer *answers,
                                pd_timing *timing, pd_error *err)
{
    pd_status status = pd_host_ready((pd_host_index *)index, err);
    for (uint32_t q = 0; status == PD_OK && q < count; q++)
        status = search_one((pd_host_index *)index, &queries[q], &answers[q], timing, err);
    return status;
}

/* ---------------------------------------------------------------------------------------- exact and assign --- */

typedef struct ref_exact {
    pd_shape shape;
    pd_layout layout;
    const pd_query *queries;
    uint32_t count;
    uint64_t scanned;
    pd_topk *topk; /* [count] */
    float *row;    /* [dim] */
} ref_exact;

static void exact_free(ref_exact *exact)
{
    for (uint32_t q = 0; exact->topk && q < exact->count; q++)
        free(exact->topk[q].items);
    free(exact->topk);
    free(exact->row);
    free(exact);
}

static pd_status ref_exact_begin(pd_device *device, const pd_shape *shape, const pd_query *queries,
                                 uint32_t count, pd_exact **out, pd_error *err)
{
    (void)device;
    ref_exact *exact = calloc(1, sizeof *exact);
    if (!exact) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for an exact search");
    exact->shape = *shape;
    exact->queries = queries;
    exact->count = count;
    exact->topk = calloc(count ? count : 1, sizeof *exact->topk);
    exact->row = malloc(shape->dim * sizeof *exact->row);
    pd_status status = pd_layout_of(shape, &exact->layout, err);
    int whole = exact->topk && exact->row;
    for (uint32_t q = 0; whole && q < count; q++) {
        pd_hit *items = malloc(pd_topk_room(queries[q].k) * sizeof *items);
        if (!items) whole = 0;
        pd_topk_init(&exact->topk[q], items, queries[q].k, queries[q].min_score);
    }
    if (!whole)
        status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for an exact search of %u queries", count);
    if (status != PD_OK)
        exact_free(exact);
    else
        *out = (pd_exact *)exact;
    return status;
}

static void exact_row(ref_exact *exact, void *page, uint32_t r, uint32_t slot)
{
    uint64_t id = pd_page_ids(&exact->layout, page)[r];
    for (uint32_t q = 0; q < exact->count; q++) {
        const pd_query *query = &exact->queries[q];
        if (!pd_filter_page(&exact->layout, query->filter, page, 1u << r) ||
            pd_excluded(query->exclude, query->nexclude, id))
            continue;
        double score = 0;
        if (query->vector)
            score = (double)query->similarity *
                    similarity(exact->shape.metric, query->vector, exact->row, exact->shape.dim);
        score = with_weights(&exact->shape, &exact->layout, query, page, r, score);
        pd_topk_push(&exact->topk[q], (float)score + 0.0f, id, slot);
    }
}

static pd_status ref_exact_block(pd_exact *base, const pd_block *block, pd_error *err)
{
    (void)err;
    ref_exact *exact = (ref_exact *)base;
    uint32_t dim = exact->shape.dim;
    for (uint32_t p = 0; p < block->npages; p++) {
        unsigned char *page = (unsigned char *)(uintptr_t)block->pages + (size_t)p * exact->layout.page_bytes;
        uint32_t live = pd_page_live(&exact->layout, page);
        for (uint32_t r = 0; r < PD_PAGE_ROWS; r++) {
            if (!(live >> r & 1u)) continue;
            size_t at = ((size_t)p * PD_PAGE_ROWS + r) * dim;
            for (uint32_t d = 0; d < dim; d++)
                exact->row[d] = block->dtype == PD_REFINE_F32
                                    ? ((const float *)block->rows)[at + d]
                                    : pd_f16_to_f32(((const pd_f16 *)block->rows)[at + d]);
            exact->scanned++;
            exact_row(exact, page, r, (block->first_page + p) * PD_PAGE_ROWS + r);
        }
    }
    return PD_OK;
}

static pd_status ref_exact_end(pd_exact *base, pd_answer *answers, pd_error *err)
{
    (void)err;
    ref_exact *exact = (ref_exact *)base;
    for (uint32_t q = 0; answers && q < exact->count; q++) {
        give_answer(&exact->topk[q], &answers[q]);
        answers[q].nprobe = 0;
        answers[q].scanned = exact->scanned;
    }
    exact_free(exact);
    return PD_OK;
}

static pd_status ref_assign(pd_device *device, const float *centroids, uint32_t nlist, uint32_t dim,
                            const float *rows, uint64_t n, uint32_t *lists, pd_error *err)
{
    (void)device;
    (void)err;
    for (uint64_t i = 0; i < n; i++) {
        double best = -INFINITY;
        lists[i] = 0;
        for (uint32_t list = 0; list < nlist; list++) {
            double score = similarity(PD_L2, rows + i * dim, centroids + (size_t)list * dim, dim);
            if (score > best) {
                best = score;
                lists[i] = list;
            }
        }
    }
    return PD_OK;
}

const pd_backend pd_backend_reference = {
    .name = "reference",
    .open = ref_open,
    .close = ref_close,
    .info = ref_info,
    .index_open = ref_index_open,
    .index_close = pd_host_index_close,
    .page_window = pd_host_page_window,
    .page_commit = pd_host_page_commit,
    .set_lists = pd_host_set_lists,
    .search = ref_search_all,
    .gather = pd_host_gather,
    .grow = pd_host_grow,
    .write_rows = pd_host_write_rows,
    .write_columns = pd_host_write_columns,
    .empty_rows = pd_host_empty_rows,
    .read_pages = pd_host_read_pages,
    .exact_begin = ref_exact_begin,
    .exact_block = ref_exact_block,
    .exact_end = ref_exact_end,
    .assign = ref_assign,
    .train = NULL,
};
