/* The cpu backend against the written score (score.h), to the bit, on data made to break it.
 *
 * The reference computes in double and is held within rounding, so that a bound which turns away a row at the very end of
 * the best could pass for rounding. Here every row's score is the written sequence of f32 operations, from the bytes of its
 * page, sorted; the answer must be that on every instruction set, for every batch size and number of threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include <float.h>

#include "f16.h"
#include "host.h"
#include "queries.h"

static const char *const isas[] = {"portable", "avx2", "avx512", "amx"};
static const struct manner {
    uint32_t threads, batch;
} manners[] = {{1, NQUERIES}, {2, 7}, {4, NQUERIES}};

#define NISAS    (sizeof isas / sizeof *isas)
#define NMANNERS (sizeof manners / sizeof *manners)

static pd_device *devices[NISAS][5]; /* by isa and threads; NULL: not on this machine */

static int open_devices(void **state)
{
    (void)state;
    for (size_t i = 0; i < NISAS; i++) {
        for (size_t m = 0; m < NMANNERS; m++) {
            pd_device_options options = {
                .memory = (uint64_t)32 << 20, .isa = isas[i], .threads = manners[m].threads};
            if (devices[i][manners[m].threads]) continue;
            pd_status status = pd_device_open("cpu", &options, &devices[i][manners[m].threads], NULL);
            if (status != PD_OK && (i == 0 || status != PD_INVALID_ARGUMENT)) return -1;
        }
    }
    return 0;
}

static int close_devices(void **state)
{
    (void)state;
    for (size_t i = 0; i < NISAS; i++)
        for (size_t t = 0; t < 5; t++)
            pd_device_close(devices[i][t]);
    return 0;
}

/* ------------------------------------------------------------------------------------------ the written score --- */

static float with_weights(const world *w, const pd_query *query, uint32_t r, float score)
{
    for (uint32_t c = 0; query->weights && c < WORLD_BYTES; c++)
        if (w->bytes[r][c] < w->shape.sizes[c])
            score = score + query->weights[w->layout.weight_at[c] + w->bytes[r][c]];
    for (uint32_t i = 0; i < query->nkey_weights; i++)
        if (query->key_weights[i].value == w->keys[r]) score = score + query->key_weights[i].weight;
    return score;
}

static float refined(const world *w, const pd_query *query, uint32_t r)
{
    float row[PD_MAX_DIM];
    uint32_t dim = w->shape.dim;
    pd_page_decode(&w->shape, &w->layout, NULL, w->slot[r] % PD_PAGE_ROWS,
                   w->pages + w->slot[r] / PD_PAGE_ROWS * w->layout.page_bytes,
                   w->refines + w->slot[r] / PD_PAGE_ROWS * w->layout.refine_bytes, row);
    return w->shape.metric == PD_L2 ? -pd_l2(query->vector, row, dim) : pd_dot(query->vector, row, dim);
}

/* p(v) as score.h writes it, from the codes of the directions. */
static void projected(const pd_projection *p, const float *vector, float *out)
{
    int8_t codes[PD_MAX_DIM];
    float scale = pd_quantise_query(vector, p->dim, p->layout.dim4, codes);
    for (uint32_t j = 0; j < p->code_dim; j++) {
        unsigned char *page = p->pages + j / PD_PAGE_ROWS * p->layout.page_bytes;
        int32_t dot = 0;
        for (uint32_t d = 0; d < p->dim; d++)
            dot +=
                codes[d] *
                (int8_t)
                    page[p->layout.codes + ((size_t)(d / 4) * PD_PAGE_ROWS + j % PD_PAGE_ROWS) * 4 + d % 4];
        float factor = scale * pd_page_scale(&p->layout, page)[j % PD_PAGE_ROWS];
        float value = factor * (float)dot;
        out[j] = value + 0.0f;
    }
}

static float of_code(const world *w, const pd_query *query, uint32_t r, float qs, const int8_t *qi)
{
    unsigned char *page = w->pages + w->slot[r] / PD_PAGE_ROWS * w->layout.page_bytes;
    uint32_t dim = w->shape.dim, place = w->slot[r] % PD_PAGE_ROWS;
    int l2 = w->shape.metric == PD_L2;
    const int8_t *codes = (const int8_t *)page + w->layout.codes;
    const float *centroid = w->centroids + (size_t)w->list[r] * dim;
    if (w->shape.code == PD_CODE_I8) {
        int32_t dot = 0;
        for (uint32_t d = 0; d < w->layout.code_dim; d++)
            dot += qi[d] * codes[((size_t)(d / 4) * PD_PAGE_ROWS + place) * 4 + d % 4];
        float lt = l2 ? -pd_l2(query->vector, centroid, dim) : pd_dot(query->vector, centroid, dim);
        float near = lt + pd_page_term(&w->layout, page)[place];
        float qf = (l2 ? 2.0f : 1.0f) * qs, factor = qf * pd_page_scale(&w->layout, page)[place];
        float far = factor * (float)dot;
        return near + far;
    }
    float sum = 0.0f;
    for (uint32_t d = 0; d < dim; d++) {
        size_t at = (size_t)d * PD_PAGE_ROWS + place;
        float x = w->shape.code == PD_CODE_F16 ? pd_f16_to_f32(((const pd_f16 *)(const void *)codes)[at])
                                               : ((const float *)(const void *)codes)[at];
        float gap = query->vector[d] - x, product = l2 ? gap * gap : query->vector[d] * x;
        sum = l2 ? sum - product : sum + product;
    }
    return sum;
}

/* Is the row in a probed list, or among the slots? */
static int is_asked(const world *w, const pd_query *query, const pd_answer *answer, uint32_t r)
{
    if (!query->vector || (w->shape.nlist == 0 && query->nprobe > 0)) return 1;
    for (uint32_t i = 0; i < answer->nprobe; i++)
        if (answer->probes[i] == w->list[r]) return 1;
    for (uint32_t i = 0; i < query->nslots; i++)
        if (query->slots[i] == w->slot[r]) return 1;
    return 0;
}

static uint32_t take(pd_hit *hits, uint32_t count, uint32_t most, float least)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < count; i++)
        if (hits[i].score >= -FLT_MAX && hits[i].score >= least) hits[kept++] = hits[i];
    qsort(hits, kept, sizeof *hits, by_hit);
    return kept < most ? kept : most;
}

/* hits: [WORLD_ROWS]. The lists are those that answer says were probed. */
static uint32_t truth_of(const world *w, const query_set *s, uint32_t q, const pd_answer *answer,
                         pd_hit *hits)
{
    const pd_query *query = &s->queries[q];
    int8_t qi[PD_MAX_DIM];
    float moved[PD_MAX_DIM], qs = 0.0f;
    if (query->vector && w->projection) projected(w->projection, query->vector, moved);
    if (query->vector)
        qs = pd_quantise_query(w->projection ? moved : query->vector, w->layout.code_dim, w->layout.dim4, qi);
    int refines = query->vector && w->shape.code != PD_CODE_NONE && w->shape.refine != PD_REFINE_NONE;
    uint32_t count = 0, row_of[WORLD_PAGES * PD_PAGE_ROWS];
    for (uint32_t r = 0; r < WORLD_ROWS; r++) {
        row_of[w->slot[r]] = r;
        if (!query_passes(s, w, q, r) || !is_asked(w, query, answer, r)) continue;
        float score = 0.0f;
        if (query->vector) {
            float sim = w->shape.code == PD_CODE_NONE ? refined(w, query, r) : of_code(w, query, r, qs, qi);
            score = query->similarity * sim;
            score = score + 0.0f;
        }
        hits[count++] =
            (pd_hit){.id = w->ids[r], .score = with_weights(w, query, r, score), .slot = w->slot[r]};
    }
    if (!refines) return take(hits, count, query->k, query->min_score);
    uint32_t depth = query->depth ? query->depth : pd_refine_depth(query->k);
    count = take(hits, count, depth > query->k ? depth : query->k, -INFINITY);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t r = row_of[hits[i].slot];
        float score = query->similarity * refined(w, query, r);
        hits[i].score = with_weights(w, query, r, score + 0.0f);
    }
    return take(hits, count, query->k, query->min_score);
}

/* The written rank, where no weights have a say, of n lists or groups whose codes lie in pages. */
static void ranks_of(const pd_host_index *index, const pd_query *query, unsigned char *pages, uint32_t n,
                     pd_hit *order)
{
    const pd_shape *shape = &index->base.shape;
    const pd_layout *layout = &index->coarse;
    float moved[PD_MAX_DIM];
    int8_t qi[PD_MAX_DIM];
    const float *mean = index->projection ? index->projection->mean_out : index->mean;
    if (index->projection)
        projected(index->projection, query->vector, moved);
    else
        memcpy(moved, query->vector, shape->dim * sizeof *moved);
    for (uint32_t d = 0; shape->metric == PD_L2 && d < layout->code_dim; d++)
        moved[d] = moved[d] - mean[d];
    float qf =
        (shape->metric == PD_L2 ? 2.0f : 1.0f) * pd_quantise_query(moved, layout->code_dim, layout->dim4, qi);
    for (uint32_t i = 0; i < n; i++) {
        unsigned char *page = pages + i / PD_PAGE_ROWS * layout->page_bytes;
        uint32_t place = i % PD_PAGE_ROWS;
        int32_t dot = 0;
        for (uint32_t d = 0; d < layout->code_dim; d++)
            dot += qi[d] *
                   ((int8_t *)page)[layout->codes + ((size_t)(d / 4) * PD_PAGE_ROWS + place) * 4 + d % 4];
        float factor = qf * pd_page_scale(layout, page)[place], far = factor * (float)dot;
        float near = (0.0f + pd_page_term(layout, page)[place]) + far, rank = query->similarity * near;
        order[i] = (pd_hit){.id = i, .score = rank >= -FLT_MAX ? rank : -FLT_MAX};
    }
}

/* taken[l]: the rule of groups lets list l be chosen. */
static void take_groups(const pd_host_index *index, const pd_query *query, const pd_block_filter *fold,
                        uint8_t *taken)
{
    const pd_level *level = &index->upper;
    pd_hit order[WORLD_MOST_LISTS];
    memset(taken, level->ngroups == 0, WORLD_MOST_LISTS);
    if (level->ngroups == 0) return;
    ranks_of(index, query, level->pages, level->ngroups, order);
    for (uint32_t g = 0; g < level->ngroups; g++) {
        /* What any of its lists could let pass at all, test by test. */
        int may = !fold;
        uint64_t bits[PD_MAX_BYTES] = {0};
        for (uint32_t l = level->first[g]; fold && l < level->first[g + 1]; l++)
            for (uint32_t c = 0; c < index->blocks.columns; c++)
                bits[c] |= index->blocks.lists[(size_t)l * index->blocks.columns + c];
        if (fold) may = pd_block_may(fold, bits);
        if (!may) order[g].score = -FLT_MAX;
    }
    qsort(order, level->ngroups, sizeof *order, by_hit);
    uint32_t held = 0;
    for (uint32_t i = 0; i < level->ngroups; i++) {
        if (i >= PD_LEAST_GROUPS && held >= PD_GROUP_REACH * query->nprobe) break;
        for (uint32_t l = level->first[order[i].id]; l < level->first[order[i].id + 1]; l++) {
            taken[l] = 1;
            held += index->rows[l] > 0 && (!fold || pd_blocks_list_may(&index->blocks, fold, l));
        }
    }
}

/* The lists by their written rank, where no weights have a say. Returns how many lists the groups kept back. */
static uint32_t check_probes(const pd_host_index *index, const pd_query *query, const pd_answer *answer,
                             const char *what)
{
    const pd_shape *shape = &index->base.shape;
    if (!query->vector || query->weights || shape->nlist == 0 || query->nprobe == 0) return 0;
    pd_hit order[WORLD_MOST_LISTS];
    uint8_t taken[WORLD_MOST_LISTS];
    pd_block_filter fold;
    int filters = query->filter && pd_block_filter_of(&index->blocks, query->filter, &fold);
    ranks_of(index, query, index->coarse_pages, shape->nlist, order);
    take_groups(index, query, filters ? &fold : NULL, taken);
    uint32_t n = 0;
    for (uint32_t list = 0; list < shape->nlist; list++) {
        if (filters && !pd_blocks_list_may(&index->blocks, &fold, list)) order[list].score = -FLT_MAX;
        if (taken[list]) order[n++] = order[list];
    }
    qsort(order, n, sizeof *order, by_hit);
    assert_int_equal(answer->nprobe, query->nprobe < shape->nlist ? query->nprobe : shape->nlist);
    assert_true(n >= answer->nprobe);
    for (uint32_t i = 0; i < answer->nprobe; i++)
        if (answer->probes[i] != order[i].id)
            fail_msg("%s: probe %u is list %u, not %lu", what, i, answer->probes[i],
                     (unsigned long)order[i].id);
    return shape->nlist - n;
}

static uint64_t kept_back; /* lists that groups kept from being looked at, over all queries */

static void check_answer(const world *w, const query_set *s, uint32_t q, const pd_answer *answer,
                         const char *what)
{
    pd_hit hits[WORLD_ROWS];
    uint32_t count = truth_of(w, s, q, answer, hits), seen = 0;
    if (answer->count != count)
        fail_msg("%s, query %u (%s): %u hits, not %u", what, q, s->cases[q]->what, answer->count, count);
    for (uint32_t i = 0; i < count; i++)
        if (answer->hits[i].id != hits[i].id || answer->hits[i].slot != hits[i].slot ||
            memcmp(&answer->hits[i].score, &hits[i].score, sizeof(float)) != 0)
            fail_msg("%s, query %u (%s): hit %u is row %lu (%a), not %lu (%a)", what, q, s->cases[q]->what, i,
                     (unsigned long)answer->hits[i].id, (double)answer->hits[i].score,
                     (unsigned long)hits[i].id, (double)hits[i].score);
    for (uint32_t r = 0; r < WORLD_ROWS; r++)
        seen += !w->deleted[r] && is_asked(w, &s->queries[q], answer, r);
    if (!s->queries[q].filter) assert_int_equal(answer->scanned, seen);
}

static void same_answers(const pd_answer *x, const pd_answer *y, const pd_query *query, uint32_t q,
                         const char *what)
{
    int same = x->count == y->count && x->nprobe == y->nprobe && x->scanned == y->scanned;
    for (uint32_t i = 0; same && i < x->count; i++)
        same = x->hits[i].id == y->hits[i].id && x->hits[i].slot == y->hits[i].slot &&
               memcmp(&x->hits[i].score, &y->hits[i].score, sizeof(float)) == 0;
    for (uint32_t i = 0; same && query->vector && i < x->nprobe; i++)
        same = x->probes[i] == y->probes[i];
    if (!same) fail_msg("%s: query %u is not answered as by the first", what, q);
}

static answer_set *answers_of(uint32_t most)
{
    answer_set *a = calloc(1, sizeof *a);
    a->hits = calloc((size_t)NQUERIES * most, sizeof *a->hits);
    for (uint32_t q = 0; q < NQUERIES; q++)
        a->answers[q] = (pd_answer){.hits = a->hits + (size_t)q * most, .probes = a->probes[q]};
    return a;
}

/* first: NULL where this is the first, which is held to the truth. */
static void ask(const world *w, const query_set *s, pd_device *device, uint32_t batch, answer_set *got,
                const answer_set *first, const char *what)
{
    pd_error err = {0};
    pd_index *index = NULL;
    if (world_load(w, device, 2.0f, &index, &err) != PD_OK) fail_msg("%s", err.message);
    for (uint32_t q = 0; q < NQUERIES; q += batch) {
        uint32_t n = NQUERIES - q < batch ? NQUERIES - q : batch;
        if (pd_index_search(index, s->queries + q, n, got->answers + q, NULL, &err) != PD_OK)
            fail_msg("%s: %s", what, err.message);
    }
    for (uint32_t q = 0; q < NQUERIES; q++) {
        if (first) {
            same_answers(&got->answers[q], &first->answers[q], &s->queries[q], q, what);
            continue;
        }
        kept_back += check_probes((pd_host_index *)index, &s->queries[q], &got->answers[q], what);
        check_answer(w, s, q, &got->answers[q], what);
    }
    pd_index_close(index);
}

/* The queries of a set on every isa, in every manner. */
static void check_queries(const world *w, const query_set *s, const char *what)
{
    uint32_t most = 1;
    for (uint32_t q = 0; q < NQUERIES; q++)
        most = s->queries[q].k > most ? s->queries[q].k : most;
    answer_set *first = answers_of(most), *got = answers_of(most);
    for (size_t i = 0; i < NISAS * NMANNERS; i++) {
        const struct manner *manner = &manners[i % NMANNERS];
        pd_device *device = devices[i / NMANNERS][manner->threads];
        if (!device) continue;
        char where[160];
        snprintf(where, sizeof where,
                 "%s: metric %d, code %d of %u, refine %d, dim %u, nlist %u, %s, %u threads, batch %u", what,
                 (int)w->shape.metric, (int)w->shape.code, w->shape.code_dim, (int)w->shape.refine,
                 w->shape.dim, w->shape.nlist, isas[i / NMANNERS], manner->threads, manner->batch);
        ask(w, s, device, manner->batch, i == 0 ? first : got, i == 0 ? NULL : first, where);
    }
    answers_free(first);
    answers_free(got);
}

static void check_made(world *w, const char *what)
{
    assert_non_null(w);
    query_set *s = queries_make(w);
    check_queries(w, s, what);
    queries_free(s);
    world_free(w);
}

static void check_world(world_kind kind, pd_metric metric, pd_code code, pd_refine refine, uint32_t dim,
                        uint32_t nlist, const char *what)
{
    check_made(world_make_of(kind, metric, code, refine, dim, nlist), what);
}

/* ----------------------------------------------------------------------------------------------------- tables --- */

static const struct kept {
    pd_code code;
    pd_refine refine;
} kepts[] = {{PD_CODE_I8, PD_REFINE_NONE},  {PD_CODE_I8, PD_REFINE_F16},   {PD_CODE_I8, PD_REFINE_F32},
             {PD_CODE_F16, PD_REFINE_NONE}, {PD_CODE_F16, PD_REFINE_F32},  {PD_CODE_F32, PD_REFINE_NONE},
             {PD_CODE_NONE, PD_REFINE_F16}, {PD_CODE_NONE, PD_REFINE_F32}, {PD_CODE_I8, PD_REFINE_U8},
             {PD_CODE_I8, PD_REFINE_I8},    {PD_CODE_NONE, PD_REFINE_U8},  {PD_CODE_NONE, PD_REFINE_I8}};
#define NKEPTS (sizeof kepts / sizeof *kepts)

static void test_hard_tables_are_answered_to_the_bit(void **state)
{
    (void)state;
    static const char *const names[WORLD_KINDS] = {"plain",    "equal rows", "huge norms",    "subnormals",
                                                   "one list", "two values", "whole numbers", "tied values"};
    static const uint32_t dims[] = {3, 64, 70, 16, 33};
    uint32_t turn = 0;
    for (int kind = WORLD_PLAIN; kind < WORLD_KINDS; kind++)
        for (int metric = PD_IP; metric <= PD_L2; metric++)
            for (size_t i = 0; i < NKEPTS; i++)
                check_world((world_kind)kind, (pd_metric)metric, kepts[i].code, kepts[i].refine,
                            dims[turn++ % 5], WORLD_LISTS, names[kind]);
}

static void test_every_dimension_is_answered_to_the_bit(void **state)
{
    (void)state;
    for (uint32_t dim = 1; dim <= 70; dim++) {
        check_world(WORLD_PLAIN, (pd_metric)(dim % 3), PD_CODE_I8, kepts[dim % 3].refine, dim, WORLD_LISTS,
                    "dims");
        if (dim % 4 == 1)
            check_world(WORLD_PLAIN, (pd_metric)(dim / 4 % 3), PD_CODE_F16, PD_REFINE_NONE, dim, WORLD_LISTS,
                        "dims");
    }
    check_world(WORLD_TWO_VALUES, PD_L2, PD_CODE_I8, PD_REFINE_F16, 1030, WORLD_LISTS, "dims");
}

static void test_projected_tables_are_answered_to_the_bit(void **state)
{
    (void)state;
    static const uint32_t dims[][2] = {{2, 1}, {70, 31}, {64, 32}, {100, 33}, {37, 36}, {130, 65}};
    uint32_t turn = 0;
    for (int kind = WORLD_PLAIN; kind < WORLD_KINDS; kind++)
        for (int metric = PD_IP; metric <= PD_L2; metric++, turn++)
            check_made(world_make_projected((world_kind)kind, (pd_metric)metric, PD_CODE_I8,
                                            turn % 2 ? PD_REFINE_F32 : PD_REFINE_F16, dims[turn % 6][0],
                                            dims[turn % 6][1], turn % 5 ? WORLD_LISTS : 70),
                       "projected");
    check_made(world_make_projected(WORLD_PLAIN, PD_L2, PD_CODE_I8, PD_REFINE_F16, 784, 96, WORLD_LISTS),
               "projected");
}

static void test_any_number_of_lists_is_answered_to_the_bit(void **state)
{
    (void)state;
    static const uint32_t nlists[] = {1, 2, 31, 32, 33, 63, 64, 65, 70};
    for (size_t i = 0; i < sizeof nlists / sizeof *nlists; i++)
        for (int metric = PD_IP; metric <= PD_L2; metric++) {
            check_world(WORLD_PLAIN, (pd_metric)metric, PD_CODE_I8, PD_REFINE_NONE, 20, nlists[i], "lists");
            check_world(WORLD_EQUAL, (pd_metric)metric, PD_CODE_I8, PD_REFINE_F16, 7, nlists[i], "lists");
        }
    check_world(WORLD_PLAIN, PD_L2, PD_CODE_F32, PD_REFINE_NONE, 20, 0, "no lists");
    check_world(WORLD_EQUAL, PD_IP, PD_CODE_NONE, PD_REFINE_F16, 20, 0, "no lists");
}

static void test_lists_in_groups_are_answered_to_the_bit(void **state)
{
    (void)state;
    static const uint32_t nlists[] = {WORLD_LISTS, 33, 64, 70}, ngroups[] = {1, 2, 5, 9, 13, 33, 23};
    uint32_t turn = 0;
    kept_back = 0;
    for (int kind = WORLD_PLAIN; kind < WORLD_KINDS; kind++)
        for (int metric = PD_IP; metric <= PD_L2; metric++)
            for (size_t i = 0; i < sizeof nlists / sizeof *nlists; i++, turn++) {
                uint32_t n = ngroups[turn % 7] < nlists[i] ? ngroups[turn % 7] : nlists[i];
                world *w = turn % 4
                               ? world_make_of((world_kind)kind, (pd_metric)metric, PD_CODE_I8,
                                               turn % 2 ? PD_REFINE_F16 : PD_REFINE_NONE, 3 + turn, nlists[i])
                               : world_make_projected((world_kind)kind, (pd_metric)metric, PD_CODE_I8,
                                                      PD_REFINE_F16, 70 + turn, 33, nlists[i]);
                assert_non_null(w);
                world_group(w, n);
                query_set *s = queries_make(w);
                for (uint32_t q = 0; q < NQUERIES; q++)
                    s->queries[q].nprobe = q % 7 ? 1 + q % 3 : s->queries[q].nprobe;
                check_queries(w, s, "groups");
                queries_free(s);
                world_free(w);
            }
    assert_true(kept_back > 10000);
}

/* ---------------------------------------------------------------------------------------------------- queries --- */

static void test_weights_of_every_size_are_answered_to_the_bit(void **state)
{
    (void)state;
    static const float sizes[] = {1e38f, 1e37f, 1e30f, 1e10f, 30.0f, -30.0f, 1e-5f, 1e-30f, 1e-38f, 1e-44f};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        world *w = world_make((pd_metric)(i % 3), PD_CODE_I8, i % 2 ? PD_REFINE_F32 : PD_REFINE_NONE, 24,
                              WORLD_LISTS);
        query_set *s = queries_make(w);
        for (uint32_t v = 0; v < w->layout.weights; v++)
            for (int t = 0; t < 2; t++)
                s->weights[t][v] *= sizes[i];
        for (uint32_t key = 0; key < 3; key++)
            s->key_weights[key].weight *= sizes[i];
        check_queries(w, s, "weights");
        queries_free(s);
        world_free(w);
    }
}

static void test_every_depth_is_answered_to_the_bit(void **state)
{
    (void)state;
    static const uint32_t depths[] = {0,  1,  2,   10,  31,  32,  33,  63,   64,
                                      65, 96, 127, 128, 500, 700, 701, 32800};
    static const uint32_t ks[] = {1, 2, 10, 31, 63, 64, 65, 128, 500, 1000};
    for (int metric = PD_IP; metric <= PD_L2; metric++) {
        world *w = world_make_of(metric == PD_IP ? WORLD_TWO_VALUES : WORLD_PLAIN, (pd_metric)metric,
                                 PD_CODE_I8, PD_REFINE_F16, 12, WORLD_LISTS);
        query_set *s = queries_make(w);
        for (uint32_t q = 0; q < NQUERIES; q++) {
            s->queries[q].depth = depths[q % 17];
            s->queries[q].k = ks[q % 10];
            s->queries[q].nprobe = WORLD_LISTS - q % 4;
        }
        check_queries(w, s, "depth");
        for (uint32_t q = 0; q < NQUERIES; q += 8)
            s->queries[q].k = PD_MAX_DEPTH;
        check_queries(w, s, "deepest");
        queries_free(s);
        world_free(w);
    }
}

static void test_odd_scores_are_answered_to_the_bit(void **state)
{
    (void)state;
    static const float similarities[] = {0.0f, 1e-45f, 1e-38f, 1.0f, 1e30f, FLT_MAX};
    static const float least[] = {-INFINITY, -FLT_MAX, -1.0f, 0.0f, 1.0f, FLT_MAX, INFINITY};
    for (int kind = WORLD_PLAIN; kind <= WORLD_SUBNORMAL; kind++)
        for (int metric = PD_IP; metric <= PD_L2; metric++) {
            world *w = world_make_of((world_kind)kind, (pd_metric)metric, PD_CODE_I8,
                                     metric == PD_L2 ? PD_REFINE_F32 : PD_REFINE_NONE, 18, WORLD_LISTS);
            query_set *s = queries_make(w);
            for (uint32_t q = 0; q < NQUERIES; q++) {
                s->queries[q].similarity = similarities[q % 6];
                s->queries[q].min_score = least[q % 7];
                for (uint32_t d = 0; q % 5 == 1 && d < w->shape.dim; d++)
                    s->vectors[(size_t)q * w->shape.dim + d] = q % 2 ? 0.0f : d % 3 ? FLT_MAX : -FLT_MAX;
            }
            check_queries(w, s, "odd");
            queries_free(s);
            world_free(w);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hard_tables_are_answered_to_the_bit),
        cmocka_unit_test(test_every_dimension_is_answered_to_the_bit),
        cmocka_unit_test(test_projected_tables_are_answered_to_the_bit),
        cmocka_unit_test(test_any_number_of_lists_is_answered_to_the_bit),
        cmocka_unit_test(test_lists_in_groups_are_answered_to_the_bit),
        cmocka_unit_test(test_weights_of_every_size_are_answered_to_the_bit),
        cmocka_unit_test(test_every_depth_is_answered_to_the_bit),
        cmocka_unit_test(test_odd_scores_are_answered_to_the_bit),
    };
    return cmocka_run_group_tests(tests, open_devices, close_devices);
}
