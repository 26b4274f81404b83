/* Exact search and assignment of the cuda backend, run on the CPU, held to the cpu backend bit for bit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "f16.h"
#include "queries.h"

static pd_device *cpu, *cuda;

static int open_devices(void **state)
{
    (void)state;
    pd_device_options options = {.threads = 1};
    pd_error err = {0};
    if (pd_device_open("cpu", &options, &cpu, &err) != PD_OK) return -1;
    return pd_device_open("cuda", &options, &cuda, &err) == PD_OK ? 0 : -1;
}

static int close_devices(void **state)
{
    (void)state;
    pd_device_close(cpu);
    pd_device_close(cuda);
    return 0;
}

/* Every row of a world at its slot, in full precision. */
static unsigned char *rows_of(const world *w, pd_refine dtype)
{
    uint32_t dim = w->shape.dim;
    size_t width = dtype == PD_REFINE_F32 ? sizeof(float) : sizeof(pd_f16);
    unsigned char *rows = calloc((size_t)w->npages * PD_PAGE_ROWS * dim, width);
    for (size_t i = 0; i < (size_t)WORLD_ROWS * dim; i++) {
        size_t at = (size_t)w->slot[i / dim] * dim + i % dim;
        if (dtype == PD_REFINE_F32)
            ((float *)rows)[at] = w->rows[i];
        else
            ((pd_f16 *)rows)[at] = pd_f32_to_f16(w->rows[i]);
    }
    return rows;
}

static void exact(const world *w, pd_device *device, const query_set *s, const unsigned char *rows,
                  pd_refine dtype, uint32_t block_pages, answer_set *answers)
{
    size_t page_rows = (size_t)PD_PAGE_ROWS * w->shape.dim * (dtype == PD_REFINE_F32 ? 4 : 2);
    pd_exact *search = NULL;
    pd_error err = {0};
    if (pd_exact_begin(device, &w->shape, s->queries, NQUERIES, &search, &err) != PD_OK)
        fail_msg("%s", err.message);
    for (uint32_t p = 0; p < w->npages; p += block_pages) {
        pd_block block = {.npages = w->npages - p < block_pages ? w->npages - p : block_pages,
                          .pages = w->pages + p * w->layout.page_bytes,
                          .rows = rows + p * page_rows,
                          .dtype = dtype,
                          .first_page = p};
        if (pd_exact_block(device, search, &block, &err) != PD_OK) fail_msg("%s", err.message);
    }
    if (pd_exact_end(device, search, answers->answers, &err) != PD_OK) fail_msg("%s", err.message);
}

static void same_bits(const world *w, const query_set *s, const answer_set *a, const answer_set *b)
{
    for (uint32_t q = 0; q < NQUERIES; q++) {
        const pd_answer *x = &a->answers[q], *y = &b->answers[q];
        int same = x->count == y->count && x->scanned == y->scanned;
        for (uint32_t i = 0; same && i < x->count; i++)
            same = x->hits[i].id == y->hits[i].id && x->hits[i].slot == y->hits[i].slot &&
                   memcmp(&x->hits[i].score, &y->hits[i].score, sizeof(float)) == 0;
        if (!same)
            fail_msg("metric %d, dim %u, query %u (%s): %u and %u hits, or other ones", (int)w->shape.metric,
                     w->shape.dim, q, s->cases[q]->what, x->count, y->count);
    }
}

static void test_exact_search_gives_the_same_bits(void **state)
{
    (void)state;
    static const struct {
        world_kind kind;
        pd_metric metric;
        uint32_t dim, block;
        pd_refine dtype;
    } cases[] = {
        {WORLD_PLAIN, PD_IP, 3, 64, PD_REFINE_F32},      {WORLD_EQUAL, PD_L2, 17, 5, PD_REFINE_F16},
        {WORLD_PLAIN, PD_COSINE, 64, 7, PD_REFINE_F32},  {WORLD_TIED, PD_L2, 100, 64, PD_REFINE_F32},
        {WORLD_FAR, PD_IP, 1, 64, PD_REFINE_F32},        {WORLD_SUBNORMAL, PD_L2, 33, 64, PD_REFINE_F32},
        {WORLD_TWO_VALUES, PD_IP, 16, 64, PD_REFINE_F16}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        world *w = world_make_of(cases[i].kind, cases[i].metric, PD_CODE_I8, PD_REFINE_NONE, cases[i].dim,
                                 WORLD_LISTS);
        query_set *s = queries_make(w);
        answer_set *want = answers_make(), *got = answers_make();
        unsigned char *rows = rows_of(w, cases[i].dtype);
        exact(w, cpu, s, rows, cases[i].dtype, 64, want);
        exact(w, cuda, s, rows, cases[i].dtype, cases[i].block, got);
        same_bits(w, s, want, got);
        free(rows);
        answers_free(want);
        answers_free(got);
        queries_free(s);
        world_free(w);
    }
}

static void test_an_exact_search_may_be_given_up(void **state)
{
    (void)state;
    world *w = world_make(PD_IP, PD_CODE_I8, PD_REFINE_NONE, 8, WORLD_LISTS);
    query_set *s = queries_make(w);
    pd_exact *search = NULL;
    assert_int_equal(pd_exact_begin(cuda, &w->shape, s->queries, NQUERIES, &search, NULL), PD_OK);
    assert_int_equal(pd_exact_end(cuda, search, NULL, NULL), PD_OK);
    queries_free(s);
    world_free(w);
}

/* ------------------------------------------------------------------------------------------- assignment --- */

static void check_lists(const float *centroids, uint32_t nlist, uint32_t dim, const float *rows, uint32_t n)
{
    uint32_t *want = calloc(n, sizeof *want), *got = calloc(n, sizeof *got);
    pd_error err = {0};
    assert_int_equal(pd_device_assign(cpu, centroids, nlist, dim, rows, n, want, NULL), PD_OK);
    if (pd_device_assign(cuda, centroids, nlist, dim, rows, n, got, &err) != PD_OK)
        fail_msg("%s", err.message);
    for (uint32_t i = 0; i < n; i++)
        if (want[i] != got[i])
            fail_msg("%u lists of %u dimensions: row %u goes to %u, not to %u", nlist, dim, i, got[i],
                     want[i]);
    free(want);
    free(got);
}

static void test_rows_go_to_their_nearest_centroid(void **state)
{
    (void)state;
    static const struct {
        uint32_t nlist, dim, n;
        float spread; /* of rows about their centroid; centroids lie about 1 apart a dimension */
    } cases[] = {
        {1, 5, 40, 1.0f}, {31, 1, 70, 1.0f}, {33, 16, 65, 0.3f}, {100, 100, 90, 0.5f}, {70, 129, 33, 0.0f}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        uint32_t nlist = cases[c].nlist, dim = cases[c].dim, n = cases[c].n;
        float *centroids = calloc((size_t)nlist * dim, sizeof *centroids);
        float *rows = calloc((size_t)n * dim, sizeof *rows);
        for (size_t i = 0; i < (size_t)nlist * dim; i++)
            centroids[i] = world_normal();
        /* The last centroid is the first again, so that rows tie. */
        memcpy(centroids + (size_t)(nlist - 1) * dim, centroids, dim * sizeof *centroids);
        for (uint32_t r = 0; r < n; r++)
            for (uint32_t d = 0; d < dim; d++)
                rows[(size_t)r * dim + d] =
                    centroids[(size_t)(r % nlist) * dim + d] + cases[c].spread * world_normal();
        check_lists(centroids, nlist, dim, rows, n);
        free(centroids);
        free(rows);
    }
}

static void test_equal_huge_and_subnormal_centroids_are_told_apart_as_on_the_cpu(void **state)
{
    (void)state;
    static const float units[] = {0.0f, 1e17f, 1e-42f};
    for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
        float centroids[40 * 7], rows[50 * 7];
        for (size_t i = 0; i < 40 * 7; i++)
            centroids[i] = 3.0f + units[u] * (float)world_below(5);
        for (size_t i = 0; i < 50 * 7; i++)
            rows[i] = 3.0f + units[u] * (float)world_below(5);
        check_lists(centroids, 40, 7, rows, 50);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exact_search_gives_the_same_bits),
        cmocka_unit_test(test_an_exact_search_may_be_given_up),
        cmocka_unit_test(test_rows_go_to_their_nearest_centroid),
        cmocka_unit_test(test_equal_huge_and_subnormal_centroids_are_told_apart_as_on_the_cpu),
    };
    return cmocka_run_group_tests(tests, open_devices, close_devices);
}
