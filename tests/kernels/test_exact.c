/* Exact search and assignment: the cpu backend to the bit among its instruction sets, and against the reference. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "f16.h"
#include "queries.h"

static const char *const isas[] = {"portable", "avx2", "avx512", "amx"};
#define NISAS (sizeof isas / sizeof *isas)
static const uint32_t dims[] = {1, 3, 17, 100, 784};

static pd_device *open_device(const char *backend, const char *isa, uint32_t threads, int idle)
{
    pd_device *device = NULL;
    pd_error err;
    pd_device_options options = {.threads = threads, .isa = isa, .idle = idle};
    pd_status status = pd_device_open(backend, &options, &device, &err);
    if (status != PD_OK && status != PD_INVALID_ARGUMENT) fail_msg("%s", err.message);
    return device;
}

/* Every row of a world at its slot, in full precision. */
static void *rows_of(const world *w, pd_refine dtype)
{
    uint32_t dim = w->shape.dim;
    size_t width = dtype == PD_REFINE_F32 ? sizeof(float) : sizeof(pd_f16);
    unsigned char *rows = calloc((size_t)w->npages * PD_PAGE_ROWS * dim, width);
    for (uint32_t r = 0; r < WORLD_ROWS; r++) {
        for (uint32_t d = 0; d < dim; d++) {
            size_t at = (size_t)w->slot[r] * dim + d;
            float value = w->rows[(size_t)r * dim + d];
            if (dtype == PD_REFINE_F32)
                ((float *)rows)[at] = value;
            else
                ((pd_f16 *)rows)[at] = pd_f32_to_f16(value);
        }
    }
    return rows;
}

static void exact(const world *w, pd_device *device, const pd_query *queries, uint32_t n, pd_refine dtype,
                  uint32_t block_pages, answer_set *answers)
{
    unsigned char *rows = rows_of(w, dtype);
    size_t page_rows =
        (size_t)PD_PAGE_ROWS * w->shape.dim * (dtype == PD_REFINE_F32 ? sizeof(float) : sizeof(pd_f16));
    pd_exact *search = NULL;
    pd_error err;
    if (pd_exact_begin(device, &w->shape, queries, n, &search, &err) != PD_OK) fail_msg("%s", err.message);
    for (uint32_t p = 0; p < w->npages; p += block_pages) {
        pd_block block = {.npages = w->npages - p < block_pages ? w->npages - p : block_pages,
                          .pages = w->pages + p * w->layout.page_bytes,
                          .rows = rows + p * page_rows,
                          .dtype = dtype,
                          .first_page = p};
        if (pd_exact_block(device, search, &block, &err) != PD_OK) fail_msg("%s", err.message);
    }
    assert_int_equal(pd_exact_end(device, search, answers->answers, &err), PD_OK);
    free(rows);
}

static void same_bits(const answer_set *a, const answer_set *b, uint32_t n, const char *what)
{
    for (uint32_t q = 0; q < n; q++) {
        const pd_answer *x = &a->answers[q], *y = &b->answers[q];
        int same = x->count == y->count && x->scanned == y->scanned;
        for (uint32_t i = 0; same && i < x->count; i++)
            same = x->hits[i].id == y->hits[i].id && x->hits[i].slot == y->hits[i].slot &&
                   memcmp(&x->hits[i].score, &y->hits[i].score, sizeof(float)) == 0;
        if (!same) fail_msg("%s: query %u (%s) differs", what, q, query_cases[q % NCASES].what);
    }
}

static void near_truth(const world *w, const query_set *s, const answer_set *got, const answer_set *truth)
{
    for (uint32_t q = 0; q < NQUERIES; q++) {
        const pd_answer *x = &got->answers[q], *y = &truth->answers[q];
        uint32_t common = x->count < y->count ? x->count : y->count;
        const pd_answer *longer = x->count > y->count ? x : y;
        float slack = 4e-6f * (float)w->shape.dim + 1e-5f;
        for (uint32_t i = 0; i < common; i++)
            if (!(fabsf(x->hits[i].score - y->hits[i].score) <= slack + 2e-5f * fabsf(y->hits[i].score)))
                fail_msg("metric %d, dim %u, query %u (%s): hit %u scores %.8g and %.8g",
                         (int)w->shape.metric, w->shape.dim, q, s->cases[q]->what, i,
                         (double)x->hits[i].score, (double)y->hits[i].score);
        /* One of them may hold rows more whose scores lie at min_score itself. */
        for (uint32_t i = common; i < longer->count; i++)
            assert_true(fabsf(longer->hits[i].score - s->queries[q].min_score) <=
                        slack + 2e-5f * fabsf(longer->hits[i].score));
        assert_int_equal(x->scanned, y->scanned);
    }
}

static void test_exact_search_agrees_everywhere(void **state)
{
    (void)state;
    pd_device *reference = open_device("reference", NULL, 1, 0);
    for (int metric = PD_IP; metric <= PD_L2; metric++) {
        for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
            world *w = world_make((pd_metric)metric, PD_CODE_I8, PD_REFINE_NONE, dims[i], WORLD_LISTS);
            query_set *s = queries_make(w);
            answer_set *truth = answers_make(), *first = answers_make(), *other = answers_make();
            for (int dtype = PD_REFINE_F16; dtype <= PD_REFINE_F32; dtype++) {
                pd_device *device = open_device("cpu", "portable", 1, 0);
                exact(w, device, s->queries, NQUERIES, (pd_refine)dtype, 64, first);
                pd_device_close(device);
                exact(w, reference, s->queries, NQUERIES, (pd_refine)dtype, 64, truth);
                near_truth(w, s, first, truth);
                for (size_t isa = 0; isa < NISAS; isa++) {
                    for (uint32_t threads = 1; threads <= 3; threads++) {
                        device = open_device("cpu", isas[isa], threads, threads == 2);
                        if (!device) continue;
                        exact(w, device, s->queries, NQUERIES, (pd_refine)dtype, 16 * threads, other);
                        same_bits(first, other, NQUERIES, isas[isa]);
                        /* Few queries go another way: threads share pages. */
                        exact(w, device, s->queries, 9, (pd_refine)dtype, 64, other);
                        same_bits(first, other, 9, isas[isa]);
                        pd_device_close(device);
                    }
                }
            }
            answers_free(truth);
            answers_free(first);
            answers_free(other);
            queries_free(s);
            world_free(w);
        }
    }
    pd_device_close(reference);
}

static void test_a_search_of_every_list_with_f32_codes_is_exact(void **state)
{
    (void)state;
    pd_device_options options = {.memory = (uint64_t)64 << 20, .threads = 2};
    pd_device *device = NULL;
    assert_int_equal(pd_device_open("cpu", &options, &device, NULL), PD_OK);
    world *w = world_make(PD_COSINE, PD_CODE_F32, PD_REFINE_F32, 100, WORLD_LISTS);
    query_set *s = queries_make(w);
    answer_set *truth = answers_make(), *got = answers_make();
    for (uint32_t q = 0; q < NQUERIES; q++)
        s->queries[q].nprobe = WORLD_LISTS;
    exact(w, device, s->queries, NQUERIES, PD_REFINE_F32, 64, truth);
    pd_index *index = NULL;
    assert_int_equal(world_load(w, device, 0, &index, NULL), PD_OK);
    assert_int_equal(pd_index_search(index, s->queries, NQUERIES, got->answers, NULL, NULL), PD_OK);
    for (uint32_t q = 0; q < NQUERIES; q++) {
        assert_int_equal(got->answers[q].count, truth->answers[q].count);
        for (uint32_t i = 0; i < got->answers[q].count; i++)
            assert_int_equal(got->answers[q].hits[i].id, truth->answers[q].hits[i].id);
    }
    pd_index_close(index);
    answers_free(truth);
    answers_free(got);
    queries_free(s);
    world_free(w);
    pd_device_close(device);
}

/* A table of refine rows alone is scored by the formula of exact search, and is itself held to the written score. */
static void test_hard_rows_are_found_exactly_everywhere(void **state)
{
    (void)state;
    for (int kind = WORLD_PLAIN; kind < WORLD_KINDS; kind++) {
        uint32_t dim = kind % 2 ? 33 : 16;
        world *w = world_make_of((world_kind)kind, (pd_metric)(kind % 3), PD_CODE_NONE, PD_REFINE_F32, dim,
                                 WORLD_LISTS);
        query_set *s = queries_make(w);
        answer_set *truth = answers_make(), *got = answers_make();
        for (uint32_t q = 0; q < NQUERIES; q++)
            s->queries[q].nprobe = WORLD_LISTS;
        pd_device_options options = {.memory = (uint64_t)64 << 20, .threads = 1, .isa = "portable"};
        pd_device *device = NULL;
        pd_index *index = NULL;
        assert_int_equal(pd_device_open("cpu", &options, &device, NULL), PD_OK);
        assert_int_equal(world_load(w, device, 0, &index, NULL), PD_OK);
        assert_int_equal(pd_index_search(index, s->queries, NQUERIES, truth->answers, NULL, NULL), PD_OK);
        pd_index_close(index);
        pd_device_close(device);
        for (size_t i = 0; i < 2 * NISAS; i++) {
            device = open_device("cpu", isas[i / 2], 1 + 2 * (i % 2), 0);
            if (!device) continue;
            exact(w, device, s->queries, NQUERIES, PD_REFINE_F32, 17, got);
            for (uint32_t q = 0; q < NQUERIES; q++)
                truth->answers[q].scanned = got->answers[q].scanned;
            same_bits(truth, got, NQUERIES, isas[i / 2]);
            pd_device_close(device);
        }
        answers_free(truth);
        answers_free(got);
        queries_free(s);
        world_free(w);
    }
}

static void test_an_exact_search_may_be_given_up(void **state)
{
    (void)state;
    static const char *const names[] = {"reference", "cpu"};
    world *w = world_make(PD_IP, PD_CODE_I8, PD_REFINE_NONE, 17, WORLD_LISTS);
    query_set *s = queries_make(w);
    for (size_t b = 0; b < 2; b++) {
        pd_device *device = open_device(names[b], NULL, 2, 0);
        pd_exact *search = NULL;
        pd_error err;
        assert_int_equal(pd_exact_begin(device, &w->shape, s->queries, NQUERIES, &search, &err), PD_OK);
        assert_int_equal(pd_exact_end(device, search, NULL, &err), PD_OK);
        s->queries[5].k = 0;
        assert_int_equal(pd_exact_begin(device, &w->shape, s->queries, NQUERIES, &search, &err),
                         PD_INVALID_ARGUMENT);
        s->queries[5].k = 1;
        pd_device_close(device);
    }
    queries_free(s);
    world_free(w);
}

static void test_rows_are_assigned_to_their_nearest_centroid(void **state)
{
    (void)state;
    enum { ROWS = 333, LISTS = 150 };
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
        uint32_t dim = dims[i], first[ROWS], got[ROWS], truth[ROWS];
        float *centroids = calloc((size_t)LISTS * dim, sizeof(float)),
              *rows = calloc((size_t)ROWS * dim, sizeof(float));
        for (uint32_t c = 0; c < LISTS * dim; c++)
            centroids[c] = world_normal();
        /* The last centroid is the first again: the smaller list wins. */
        memcpy(centroids + (size_t)(LISTS - 1) * dim, centroids, dim * sizeof(float));
        for (uint32_t r = 0; r < ROWS * dim; r++)
            rows[r] = world_normal();
        memcpy(rows, centroids, dim * sizeof(float));
        pd_device *device = open_device("reference", NULL, 1, 0);
        assert_int_equal(pd_device_assign(device, centroids, LISTS, dim, rows, ROWS, truth, NULL), PD_OK);
        pd_device_close(device);
        assert_int_equal(truth[0], 0);
        for (size_t isa = 0; isa < NISAS; isa++) {
            for (uint32_t threads = 1; threads <= 3; threads++) {
                device = open_device("cpu", isas[isa], threads, 0);
                if (!device) continue;
                assert_int_equal(pd_device_assign(device, centroids, LISTS, dim, rows, ROWS, got, NULL),
                                 PD_OK);
                if (isa == 0 && threads == 1) memcpy(first, got, sizeof got);
                assert_memory_equal(first, got, sizeof got);
                pd_device_close(device);
            }
        }
        for (uint32_t r = 0; r < ROWS; r++) {
            assert_true(first[r] < LISTS - 1);
            float near = pd_l2(rows + (size_t)r * dim, centroids + (size_t)first[r] * dim, dim);
            float nearest = pd_l2(rows + (size_t)r * dim, centroids + (size_t)truth[r] * dim, dim);
            assert_true(near <= nearest + 1e-4f + 1e-5f * nearest);
        }
        free(centroids);
        free(rows);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exact_search_agrees_everywhere),
        cmocka_unit_test(test_a_search_of_every_list_with_f32_codes_is_exact),
        cmocka_unit_test(test_hard_rows_are_found_exactly_everywhere),
        cmocka_unit_test(test_an_exact_search_may_be_given_up),
        cmocka_unit_test(test_rows_are_assigned_to_their_nearest_centroid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
