/* Weights, their bounds and quantised queries, of every table against the written score.
 *
 * What a bound turns away must never be a row that reaches the bar: bars are set to scores that rows really have, where a
 * bound that is a rounding too high shows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <stdio.h>

#include <cmocka.h>

#include "fmath.h"
#include "score.h"
#include "tables.h"

/* How the weights of a table are drawn. */
typedef enum draw {
    SMALL,
    HUGE_WEIGHTS,
    OVERFLOWING, /* a few columns stay under the largest float, with a similarity they pass it */
    LARGEST,
    MINUTE,
    SUBNORMAL,
    MIXED,
    NEGATIVE,
    SPARSE,
    CONSTANT,
    DRAWS
} draw;

static float weight_of(draw kind)
{
    static const float mixed[] = {0.0f, 1e30f, -1e-30f, 1.0f, -1e5f, 1e-5f};
    switch (kind) {
    case SMALL:
        return 0.3f * table_float();
    case HUGE_WEIGHTS:
        return 1e37f * table_float();
    case OVERFLOWING:
        return 0.4e38f * table_float();
    case LARGEST:
        return table_below(2) ? FLT_MAX : table_below(2) ? -FLT_MAX : 0.0f;
    case MINUTE:
        return 1e-37f * table_float();
    case SUBNORMAL:
        return (float)((int32_t)table_below(7) - 3) * 0x1p-149f;
    case MIXED:
        return mixed[table_below(6)] * table_float();
    case NEGATIVE:
        return -1.0f - table_float();
    case SPARSE:
        return table_below(20) == 0 ? 5.0f : 0.0f;
    default:
        return 0.25f;
    }
}

static float size_of(draw kind)
{
    static const float of[DRAWS] = {1.0f, 1e37f, 3.3e38f, 1e38f, 1e-37f, 0x1p-146f, 1.0f, 1.0f, 2.0f, 1.0f};
    return of[kind];
}

#define NKEYS 4u

/* A page of rows, a query's weights for them and what is prepared of both. */
typedef struct scale_pan {
    pd_shape shape;
    pd_layout layout;
    unsigned char *page;
    float *weights;
    pd_key_weight keys[NKEYS];
    pd_prepared prepared;
} scale_pan;

static const uint16_t column_sizes[] = {0, 1, 2, 31, 63, 64, 65, 127, 128, 129, 255, 256};
#define NCOLUMN_SIZES (sizeof column_sizes / sizeof *column_sizes)

static void pan_make(scale_pan *pan, pd_device *device, uint32_t columns, int cycle, draw kind,
                     uint32_t nkeys)
{
    memset(pan, 0, sizeof *pan);
    pan->shape = (pd_shape){.code = PD_CODE_F32, .dim = 1, .nbytes = columns, .nkeys = 1};
    for (uint32_t c = 0; c < columns; c++)
        pan->shape.sizes[c] = column_sizes[cycle >= 0 ? (uint32_t)cycle : c % NCOLUMN_SIZES];
    assert_int_equal(pd_layout_of(&pan->shape, &pan->layout, NULL), PD_OK);
    pan->page = aligned_alloc(64, pan->layout.page_bytes);
    pd_page_clear(&pan->shape, &pan->layout, pan->page);
    pan->weights = malloc(pan->layout.weights * sizeof(float) + 1);
    for (uint32_t i = 0; i < pan->layout.weights; i++)
        pan->weights[i] = weight_of(kind);
    for (uint32_t c = 0; c < columns; c++)
        for (uint32_t r = 0; r < PD_PAGE_ROWS; r++) {
            /* Values past the size of a column are there too: they weigh nothing. */
            uint32_t below = table_below(8) && pan->shape.sizes[c] ? pan->shape.sizes[c] : 256;
            pd_page_bytes(&pan->layout, pan->page, c)[r] = (uint8_t)table_below(below);
        }
    for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
        pd_page_keys(&pan->layout, pan->page, 0)[r] = table_below(6);
    for (uint32_t i = 0; i < NKEYS; i++)
        pan->keys[i] = (pd_key_weight){.value = i + 1, .weight = weight_of(kind)};
    pd_query queries[3] = {{.similarity = 1, .k = 1, .weights = pan->weights}};
    queries[0].key_weights = pan->keys;
    queries[0].nkey_weights = nkeys;
    queries[1] = queries[2] = queries[0]; /* the second takes the first one's weights over */
    float vector = 1;
    queries[1].vector = queries[2].vector = &vector;
    pd_error err;
    if (pd_prepare((pd_cpu_device *)device, &pan->shape, &pan->layout, NULL, queries, 3, &pan->prepared,
                   &err) != PD_OK)
        fail_msg("%s", err.message);
}

static void pan_free(scale_pan *pan)
{
    pd_prepared_free(&pan->prepared);
    free(pan->page);
    free(pan->weights);
}

/* The written sum, from the raw columns. */
static float written(const scale_pan *pan, uint32_t nkeys, uint32_t row, float score)
{
    for (uint32_t c = 0; c < pan->shape.nbytes; c++) {
        uint8_t value = pd_page_bytes(&pan->layout, pan->page, c)[row];
        if (value < pan->shape.sizes[c]) score = score + pan->weights[pan->layout.weight_at[c] + value];
    }
    for (uint32_t i = 0; i < nkeys; i++)
        if (pd_page_keys(&pan->layout, pan->page, 0)[row] == pan->keys[i].value)
            score = score + pan->keys[i].weight;
    return score;
}

static void check_bounds(const scale_pan *pan, const pd_cpu_ops *ops, const pd_cpu_weigh *w,
                         const float *sims, const float *totals, float bar, const char *what)
{
    uint32_t reach = 0, far, near;
    for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
        reach |= (uint32_t)(totals[r] >= bar) << r;
    far = ops->at_least(sims, pd_cpu_under(w, bar, w->most));
    if (reach & ~far)
        fail_msg("%s: rows %08x reach %a and are turned away by the most", what, reach & ~far, (double)bar);
    near = far;
    if (w->ncolumns > 0)
        near = ops->steps(w, &pan->layout, pan->page, sims, pd_cpu_under(w, bar, w->least), far);
    if (near & ~far) fail_msg("%s: rows come back that were turned away", what);
    if (reach & ~near)
        fail_msg("%s: rows %08x reach %a and are turned away by steps", what, reach & ~near, (double)bar);
}

static void check_sums(const scale_pan *pan, const pd_cpu_ops *ops, const pd_cpu_weigh *w, const float *sims,
                       const float *totals, float bar, const char *what)
{
    float scores[PD_PAGE_ROWS];
    for (uint32_t trial = 0; trial < 4; trial++) {
        uint32_t mask = trial == 0 ? UINT32_MAX : trial == 1 ? 0x10040201u : table_below(UINT32_MAX);
        memcpy(scores, sims, sizeof scores);
        uint32_t reach = ops->add_weights(w, &pan->layout, pan->page, scores, mask, bar);
        for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
            if ((reach >> r & 1) != (mask >> r & (uint32_t)(totals[r] >= bar)))
                fail_msg("%s: row %u", what, r);
        for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
            if (mask >> r & 1 && !same_float(scores[r], totals[r]))
                fail_msg("%s: row %u sums to %a, not %a", what, r, (double)scores[r], (double)totals[r]);
    }
    memcpy(scores, sims, sizeof scores);
    uint32_t mask = ops->weigh(w, &pan->layout, pan->page, scores, bar);
    for (uint32_t r = 0; r < PD_PAGE_ROWS; r++) {
        if ((mask >> r & 1) != (uint32_t)(totals[r] >= bar)) fail_msg("%s: row %u", what, r);
        if (mask >> r & 1) assert_true(same_float(scores[r], totals[r]));
    }
}

static void check_pan(const scale_pan *pan, uint32_t nkeys, draw kind, const char *what)
{
    for (uint32_t trial = 0; trial < 6; trial++) {
        const pd_cpu_weigh *w = &pan->prepared.preps[1 + trial % 2].weigh;
        float sims[PD_PAGE_ROWS], totals[PD_PAGE_ROWS];
        float spread = trial == 0   ? 0.0f
                       : trial < 3  ? size_of(kind)
                       : trial == 3 ? 1e-3f * size_of(kind)
                                    : 1.0f;
        for (uint32_t r = 0; r < PD_PAGE_ROWS; r++) {
            sims[r] = spread * table_float() + 0.0f;
            totals[r] = written(pan, nkeys, r, sims[r]);
        }
        for (size_t t = 0; t < NTABLES; t++) {
            const pd_cpu_ops *ops = table_of(t);
            if (!ops) continue;
            check_bounds(pan, ops, w, sims, totals, -FLT_MAX, what);
            check_bounds(pan, ops, w, sims, totals, INFINITY, what);
            for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
                if (totals[r] >= -FLT_MAX) check_bounds(pan, ops, w, sims, totals, totals[r], what);
            check_sums(pan, ops, w, sims, totals, totals[trial] >= -FLT_MAX ? totals[trial] : 0.0f, what);
        }
    }
}

static void test_no_bound_turns_away_a_row_that_reaches_the_bar(void **state)
{
    pd_device *device = *state;
    static const uint32_t columns[] = {1, 2, 3, 8, 12, 40, 126, 127, 128, 129, 200, 256};
    for (int kind = 0; kind < DRAWS; kind++) {
        for (size_t c = 0; c < sizeof columns / sizeof *columns; c++) {
            for (uint32_t nkeys = 0; nkeys <= NKEYS; nkeys += NKEYS) {
                char what[80];
                snprintf(what, sizeof what, "weights %d, %u columns, %u keys", kind, columns[c], nkeys);
                scale_pan pan;
                pan_make(&pan, device, columns[c], -1, (draw)kind, nkeys);
                check_pan(&pan, nkeys, (draw)kind, what);
                pan_free(&pan);
            }
        }
    }
}

static void test_columns_of_every_size_are_bounded(void **state)
{
    pd_device *device = *state;
    for (int kind = 0; kind < DRAWS; kind++) {
        for (int cycle = 0; cycle < (int)NCOLUMN_SIZES; cycle++) {
            for (uint32_t columns = 1; columns <= 4; columns += 3) {
                char what[80];
                snprintf(what, sizeof what, "weights %d, %u columns of %u", kind, columns,
                         column_sizes[cycle]);
                scale_pan pan;
                pan_make(&pan, device, columns, cycle, (draw)kind, columns == 4 ? 2 : 0);
                check_pan(&pan, columns == 4 ? 2 : 0, (draw)kind, what);
                pan_free(&pan);
            }
        }
    }
}

/* Steps are of use: where weights decide, few rows are left to be looked at. */
static void test_steps_tell_rows_apart(void **state)
{
    pd_device *device = *state;
    scale_pan pan;
    pan_make(&pan, device, 4, 3, SMALL, 0);
    const pd_cpu_weigh *w = &pan.prepared.preps[1].weigh;
    assert_int_equal(w->ncolumns, 4);
    float sims[PD_PAGE_ROWS] = {0}, most = -FLT_MAX;
    for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
        most = fmaxf(most, written(&pan, 0, r, 0));
    for (size_t t = 0; t < NTABLES; t++) {
        const pd_cpu_ops *ops = table_of(t);
        if (!ops) continue;
        uint32_t left =
            ops->steps(w, &pan.layout, pan.page, sims, pd_cpu_under(w, most, w->least), UINT32_MAX);
        assert_true(left != 0 && __builtin_popcount(left) <= 4);
    }
    pan_free(&pan);
}

/* --------------------------------------------------------------------------------------- a page and a group --- */

/* Queries that weigh the same columns, over a page of i8 codes whose values lie anywhere; rows that are gone hold rubbish. */
typedef struct fair {
    pd_host_index index;
    unsigned char *page;
    float *weights[PD_GROUP];
    pd_prepared prepared;
    int32_t dots[PD_GROUP * PD_PAGE_ROWS];
    pd_cpu_group group;
} fair;

static void fair_make(fair *f, pd_device *device, uint32_t columns, draw kind)
{
    memset(f, 0, sizeof *f);
    pd_shape *shape = &f->index.base.shape;
    pd_layout *layout = &f->index.base.layout;
    pd_query queries[PD_GROUP];
    *shape = (pd_shape){.code = PD_CODE_I8, .dim = 8, .nbytes = columns};
    for (uint32_t c = 0; c < columns; c++)
        shape->sizes[c] = (uint16_t)(2 + table_below(255));
    assert_int_equal(pd_layout_of(shape, layout, NULL), PD_OK);
    assert_int_equal(pd_blocks_open(&f->index.blocks, shape, 1, NULL), PD_OK);
    f->page = aligned_alloc(64, layout->page_bytes);
    pd_page_clear(shape, layout, f->page);
    for (uint32_t c = 0; c < columns; c++) {
        uint32_t first = table_below(256), some = 1 + table_below(table_below(2) ? 40 : 256 - first);
        some = first + some > 256 ? 256 - first : some;
        for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
            pd_page_bytes(layout, f->page, c)[r] = (uint8_t)(first + table_below(some));
    }
    for (uint32_t r = 0; r < PD_PAGE_ROWS; r++) {
        pd_page_scale(layout, f->page)[r] = 0.01f * (1 + table_float());
        if (table_below(8)) pd_page_term(layout, f->page)[r] = size_of(kind) * table_float();
    }
    pd_blocks_page(&f->index.blocks, layout, 0, f->page);
    for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
        for (uint32_t c = 0; c < columns && !(pd_page_term(layout, f->page)[r] >= -FLT_MAX); c++)
            pd_page_bytes(layout, f->page, c)[r] = (uint8_t)table_below(256);
    for (uint32_t i = 0; i < PD_GROUP; i++) {
        f->weights[i] = malloc(layout->weights * sizeof(float) + 1);
        for (uint32_t w = 0; w < layout->weights; w++)
            f->weights[i][w] = weight_of(kind);
        for (uint32_t c = 0; c < columns; c++)
            if (f->weights[i][layout->weight_at[c]] == 0.0f)
                f->weights[i][layout->weight_at[c]] = size_of(kind);
        queries[i] = (pd_query){.similarity = 1, .k = 1, .weights = f->weights[i]};
    }
    pd_error err;
    if (pd_prepare((pd_cpu_device *)device, shape, layout, &f->index, queries, PD_GROUP, &f->prepared,
                   &err) != PD_OK)
        fail_msg("%s", err.message);
    for (uint32_t i = 0; i < PD_GROUP * PD_PAGE_ROWS; i++)
        f->dots[i] = (int32_t)table_below(200001) - 100000;
    for (uint32_t i = 0; i < PD_GROUP; i++) {
        const pd_cpu_weigh *w = &f->prepared.preps[i].weigh;
        f->group.lt[i] = size_of(kind) * table_float();
        f->group.qf[i] = 1e-4f * size_of(kind) * table_float();
        f->group.a[i] = 1.0f + table_float();
        f->group.step[i] = w->step;
        f->group.steps[i] = w->steps;
    }
}

static void fair_free(fair *f)
{
    pd_prepared_free(&f->prepared);
    pd_blocks_close(&f->index.blocks);
    for (uint32_t i = 0; i < PD_GROUP; i++)
        free(f->weights[i]);
    free(f->page);
}

/* Of queries first .. last - 1: scores as scores_i8 has them; bounds that no whole score passes, and that lie no more over it than
 * is promised. Bars are what a row really has. */
static void check_fair(fair *f, const pd_cpu_ops *ops, uint32_t first, uint32_t last, const char *what)
{
    enum { ALL = PD_GROUP * PD_PAGE_ROWS };
    static float want[ALL], scores[ALL], bounds[ALL];
    const pd_layout *layout = &f->index.base.layout;
    const pd_cpu_weigh *shared = &f->prepared.preps[first].weigh;
    ops->scores_i8(f->dots, PD_GROUP, pd_page_term(layout, f->page), pd_page_scale(layout, f->page),
                   &f->group, want, PD_PAGE_ROWS);
    float bars[PD_GROUP];
    for (uint32_t i = first; i < last; i++) {
        const pd_cpu_weigh *w = &f->prepared.preps[i].weigh;
        assert_int_equal(w->set, shared->set);
        uint32_t row = table_below(PD_PAGE_ROWS);
        bars[i] = pd_cpu_weigh_row(w, layout, f->page, row, want[i * PD_PAGE_ROWS + row]);
        bars[i] = bars[i] >= -FLT_MAX ? bars[i] : -FLT_MAX;
        f->group.bar[i] = pd_cpu_under(w, bars[i], w->least);
    }
    uint32_t some = ops->weighed_i8(f->dots, first, last, shared->parts, shared->nparts, layout, f->page,
                                    &f->group, scores, bounds);
    for (uint32_t i = first; i < last; i++) {
        const pd_cpu_weigh *w = &f->prepared.preps[i].weigh;
        assert_int_equal(some >> i & 1, f->group.pass[i] != 0);
        for (uint32_t r = 0; r < PD_PAGE_ROWS; r++) {
            uint32_t at = i * PD_PAGE_ROWS + r, pass = f->group.pass[i] >> r & 1;
            if (!same_float(scores[at], want[at])) fail_msg("%s: query %u, row %u: score", what, i, r);
            float whole = pd_cpu_weigh_row(w, layout, f->page, r, want[at]);
            int there = pd_page_term(layout, f->page)[r] >= -FLT_MAX;
            if (there && whole >= bars[i] && !pass)
                fail_msg("%s: query %u, row %u reaches %a and is turned away", what, i, r, (double)bars[i]);
            assert_true(there || !pass);
            assert_int_equal(pass, bounds[at] >= f->group.bar[i]);
            if (there && w->step > 0.0f && whole >= -FLT_MAX && !(whole >= pd_cpu_over(w, bounds[at])))
                fail_msg("%s: query %u, row %u: %a is under %a", what, i, r, (double)whole,
                         (double)pd_cpu_over(w, bounds[at]));
        }
    }
}

static void test_a_page_is_scored_and_bounded_in_one_pass(void **state)
{
    static const uint32_t columns[] = {1, 2, 3, 4, 5, 8, 17, 255};
    for (int kind = 0; kind < DRAWS; kind++) {
        for (uint32_t trial = 0; trial < 24; trial++) {
            char what[80];
            uint32_t many = columns[trial % 8], first = table_below(PD_GROUP);
            fair f;
            fair_make(&f, *state, many, (draw)kind);
            for (size_t t = 0; t < NTABLES; t++) {
                const pd_cpu_ops *ops = table_of(t);
                if (!ops) continue;
                snprintf(what, sizeof what, "%s, weights %d, %u columns", table_names[t], kind, many);
                check_fair(&f, ops, 0, PD_GROUP, what);
                check_fair(&f, ops, first, first + 1 + table_below(PD_GROUP - first), what);
            }
            fair_free(&f);
        }
    }
}

/* Neighbours that weigh the same columns are known as such, wherever the columns lie and however they take turns. */
static void test_queries_with_the_same_columns_are_told(void **state)
{
    enum { COLUMNS = 6, N = 40 };
    pd_shape shape = {.code = PD_CODE_F32, .dim = 1, .nbytes = COLUMNS};
    for (uint32_t c = 0; c < COLUMNS; c++)
        shape.sizes[c] = 9;
    pd_layout layout;
    pd_prepared prepared = {0};
    pd_query queries[N];
    static float weights[N][COLUMNS * 9];
    uint32_t weighed[N];
    assert_int_equal(pd_layout_of(&shape, &layout, NULL), PD_OK);
    for (uint32_t q = 0; q < N; q++) {
        weighed[q] = q % 3 == 2 ? table_below(1u << COLUMNS) : q % 3 ? 0x15 : 0x2a;
        for (uint32_t i = 0; i < COLUMNS * 9; i++)
            weights[q][i] = weighed[q] >> (i / 9) & 1 ? 1.0f + table_float() : 0.0f;
        queries[q] = (pd_query){.similarity = 1, .k = 1, .weights = weights[q]};
    }
    assert_int_equal(pd_prepare(*state, &shape, &layout, NULL, queries, N, &prepared, NULL), PD_OK);
    for (uint32_t q = 0; q < N; q++) {
        assert_int_equal(prepared.preps[q].weigh.ncolumns, __builtin_popcount(weighed[q]));
        for (uint32_t other = 0; other < q; other++)
            if (prepared.preps[q].weigh.set == prepared.preps[other].weigh.set)
                assert_int_equal(weighed[q], weighed[other]);
        if (q >= 3 && q % 3 < 2)
            assert_int_equal(prepared.preps[q].weigh.set, prepared.preps[q - 3].weigh.set);
    }
    pd_prepared_free(&prepared);
}

/* ------------------------------------------------------------------------------------------------- queries --- */

static float query_value(int kind)
{
    switch (kind) {
    case 0:
        return table_float();
    case 1:
        return FLT_MAX * table_float();
    case 2:
        return (float)((int32_t)table_below(9) - 4) * 0x1p-149f;
    case 3:
        return table_below(2) ? FLT_MAX : -FLT_MAX;
    case 4:
        return 3e-37f * table_float();
    case 5:
        return table_below(3) ? 0.0f : 1e20f * table_float();
    default:
        return 0.0f;
    }
}

static void test_queries_are_quantised_as_written(void **state)
{
    (void)state;
    enum { MOST = 1030 };
    float query[MOST + 16], less[MOST + 16], moved[MOST];
    int8_t want[MOST + 64], got[MOST + 64];
    for (uint32_t dim = 1; dim <= MOST; dim += dim < 140 ? 1 : 89) {
        uint32_t dim64 = pd_dim64(dim);
        for (int kind = 0; kind < 7; kind++) {
            for (int with = 0; with < 2; with++) {
                for (uint32_t d = 0; d < dim; d++) {
                    query[d] = query_value(kind);
                    less[d] = with ? query_value(kind) : 0.0f;
                    moved[d] = with ? query[d] - less[d] : query[d];
                }
                float scale = pd_quantise_query(moved, dim, dim64, want);
                assert_true(isfinite(scale) && scale >= 0.0f);
                for (size_t t = 0; t < NTABLES; t++) {
                    const pd_cpu_ops *ops = table_of(t);
                    if (!ops) continue;
                    memset(got, 77, sizeof got);
                    float own = ops->quantise(query, with ? less : NULL, dim, dim64, got);
                    if (!same_float(own, scale) || memcmp(got, want, dim64) != 0)
                        fail_msg("%s: dim %u, kind %d, less %d: scale %a, not %a", table_names[t], dim, kind,
                                 with, (double)own, (double)scale);
                }
            }
        }
    }
}

/* ----------------------------------------------------------------------------------------------- summaries --- */

/* One column, in double, from its definition: sum_v p(v) exp(beta (W(v) - most)). */
static double promise(const float *histogram, const float *weights, uint32_t values, float most,
                      uint32_t nlist, uint32_t list, float beta)
{
    double sum = 0, shares = 0;
    for (uint32_t v = 0; v < values; v++) {
        double power = (double)beta * ((double)weights[v] - (double)most);
        sum += (double)histogram[(size_t)v * nlist + list] * exp(power < -60 ? -60 : power);
        shares += (double)histogram[(size_t)v * nlist + list];
    }
    assert_true(fabs(shares - 1) < 1e-5);
    return sum > 1e-4 ? sum : 1e-4;
}

static void test_summaries_say_what_a_list_promises(void **state)
{
    (void)state;
    enum { LISTS = 45 };
    static const uint32_t of[] = {1, 2, 5, 255, 256};
    for (size_t s = 0; s < sizeof of / sizeof *of; s++) {
        uint32_t values = of[s];
        for (int trial = 0; trial < 8; trial++) {
            float *histogram = calloc((size_t)values * LISTS, sizeof *histogram), weights[256];
            float first[LISTS], own[LISTS], beta = trial < 4 ? 2.0f : 40.0f;
            /* Every value of a column of 256 may weigh less than nothing. */
            float most = values < 256 ? 0.0f : -FLT_MAX, down = trial % 4 == 3 && values == 256 ? 3.0f : 0.0f;
            for (uint32_t v = 0; v < values; v++) {
                weights[v] = trial % 2 && table_below(3) && down == 0.0f ? 0.0f : table_float() - down;
                most = weights[v] > most ? weights[v] : most;
            }
            for (uint32_t l = 0; l < LISTS; l++)
                for (uint32_t i = 0; i < 64; i++)
                    histogram[(size_t)table_below(1 + table_below(values)) * LISTS + l] += 1.0f / 64;
            for (size_t t = 0; t < NTABLES; t++) {
                const pd_cpu_ops *ops = table_of(t);
                if (!ops) continue;
                for (uint32_t l = 0; l < LISTS; l++)
                    own[l] = 1.0f;
                float power[256], nothing = ops->powers(weights, values, most, beta, power);
                ops->summary(histogram, LISTS, power, values, nothing, LISTS, own);
                if (t == 0) memcpy(first, own, sizeof own);
                assert_memory_equal(first, own, sizeof own);
            }
            for (uint32_t l = 0; l < LISTS; l++) {
                double want = promise(histogram, weights, values, most, LISTS, l, beta);
                if (fabs((double)first[l] - want) > 1e-5 * want + 2e-6)
                    fail_msg("%u values, trial %d, list %u: %g, not %g", values, trial, l, (double)first[l],
                             want);
            }
            for (size_t t = 0; t < NTABLES; t++) {
                const pd_cpu_ops *ops = table_of(t);
                if (!ops) continue;
                memcpy(own, first, sizeof own);
                ops->logs(own, LISTS, beta);
                for (uint32_t l = 0; l < LISTS; l++)
                    assert_true(same_float(own[l], pd_log(first[l]) / beta));
            }
            free(histogram);
        }
    }
}

static int open_device(void **state)
{
    pd_device *device = NULL;
    pd_device_options options = {.threads = 1};
    int status = pd_device_open("cpu", &options, &device, NULL);
    *state = device;
    return status;
}

static int close_device(void **state)
{
    pd_device_close(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_bound_turns_away_a_row_that_reaches_the_bar),
        cmocka_unit_test(test_columns_of_every_size_are_bounded),
        cmocka_unit_test(test_steps_tell_rows_apart),
        cmocka_unit_test(test_a_page_is_scored_and_bounded_in_one_pass),
        cmocka_unit_test(test_queries_with_the_same_columns_are_told),
        cmocka_unit_test(test_queries_are_quantised_as_written),
        cmocka_unit_test(test_summaries_say_what_a_list_promises),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
