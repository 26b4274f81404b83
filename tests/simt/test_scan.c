/* The two ways of scanning on the device, run on the CPU, where candidates are many more than there is room for: rows that all tie,
 * rows each better than the one before, terms of minus infinity, lists of very different sizes, k from 1 to thousands. Every
 * answer is the cpu backend's, bit for bit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "world.h"

#define ROWS    6000u
#define QUERIES 9u
#define DIM     20u

typedef enum shape_of_rows { ALL_EQUAL, EVER_BETTER, EVER_WORSE, RANDOM, FEW_KINDS } shape_of_rows;

typedef struct big {
    pd_shape shape;
    pd_layout layout;
    uint32_t nlist, npages;
    unsigned char *pages;
    float *centroids, *histograms;
    uint32_t *offsets, *page_numbers, *counts;
} big;

/* List 0 holds half of the rows, list 1 none, the others share the rest. */
static uint32_t list_of(const big *b, uint32_t r)
{
    return b->nlist < 3 || r % 2 == 0 ? 0 : 2 + r % (b->nlist - 2);
}

static float value_of(shape_of_rows kind, uint32_t r, uint32_t d)
{
    switch (kind) {
    case ALL_EQUAL:
        return 1.0f;
    case EVER_BETTER:
        return d == 0 ? (float)r : 1.0f;
    case EVER_WORSE:
        return d == 0 ? (float)(ROWS - r) : 1.0f;
    case FEW_KINDS:
        return (float)((r * 7 + d) % 3);
    default:
        return world_normal();
    }
}

static void put_row(big *b, shape_of_rows kind, uint32_t r, uint32_t page, uint32_t place)
{
    float row[DIM];
    unsigned char *at = b->pages + page * b->layout.page_bytes;
    for (uint32_t d = 0; d < DIM; d++)
        row[d] = value_of(kind, r, d);
    pd_page_encode(&b->shape, &b->layout, NULL, b->centroids + (size_t)list_of(b, r) * DIM, row, place, 1, at,
                   NULL);
    pd_page_ids(&b->layout, at)[place] = (uint64_t)((r * 4099u) % ROWS) << 33;
    pd_page_bytes(&b->layout, at, 0)[place] = (uint8_t)(r % 7);
    if (r % 13 == 5) pd_page_term(&b->layout, at)[place] = -INFINITY;
}

static big *big_make(shape_of_rows kind, pd_metric metric, uint32_t nlist)
{
    big *b = calloc(1, sizeof *b);
    world_state = 88172645463325252ull + (uint64_t)kind;
    b->shape = (pd_shape){.metric = metric, .code = PD_CODE_I8, .dim = DIM, .nlist = nlist, .nbytes = 1};
    b->shape.sizes[0] = 6; /* one value lies behind the size */
    assert_int_equal(pd_layout_of(&b->shape, &b->layout, NULL), PD_OK);
    b->nlist = nlist;
    b->npages = pd_pages_for(ROWS) + nlist;
    b->pages = aligned_alloc(64, b->npages * b->layout.page_bytes);
    b->centroids = calloc((size_t)nlist * DIM, sizeof(float));
    b->offsets = calloc(nlist + 1, sizeof(uint32_t));
    b->counts = calloc(nlist, sizeof(uint32_t));
    b->page_numbers = calloc(b->npages, sizeof(uint32_t));
    for (uint32_t p = 0; p < b->npages; p++)
        pd_page_clear(&b->shape, &b->layout, b->pages + p * b->layout.page_bytes);
    uint32_t used = 0;
    for (uint32_t l = 0; l < nlist; l++) {
        uint32_t n = 0;
        for (uint32_t r = 0; r < ROWS; r++) {
            if (list_of(b, r) != l) continue;
            if (n % PD_PAGE_ROWS == 0) {
                b->page_numbers[used] = b->npages - 1 - used;
                used++;
            }
            put_row(b, kind, r, b->page_numbers[used - 1], n++ % PD_PAGE_ROWS);
        }
        b->offsets[l + 1] = used;
        b->counts[l] = n;
    }
    return b;
}

static void big_free(big *b)
{
    free(b->pages);
    free(b->centroids);
    free(b->offsets);
    free(b->counts);
    free(b->page_numbers);
    free(b);
}

static pd_index *load(const big *b, pd_device *device)
{
    pd_index *index = NULL;
    pd_error err = {0};
    pd_index_spec spec = {.shape = b->shape, .npages = b->npages, .name = "big@1"};
    if (pd_index_open(device, &spec, &index, &err) != PD_OK) fail_msg("%s", err.message);
    for (uint32_t p = 0, got; p < b->npages; p += got) {
        void *window;
        assert_int_equal(pd_index_window(index, PD_PAGES_MAIN, p, b->npages - p, &window, &got, NULL), PD_OK);
        memcpy(window, b->pages + p * b->layout.page_bytes, got * b->layout.page_bytes);
        assert_int_equal(pd_index_commit(index, NULL), PD_OK);
    }
    pd_lists lists = {
        .centroids = b->centroids, .offsets = b->offsets, .pages = b->page_numbers, .rows = b->counts};
    if (pd_index_set_lists(index, &lists, &err) != PD_OK) fail_msg("%s", err.message);
    return index;
}

/* ------------------------------------------------------------------------------------------------ asking --- */

typedef struct asked {
    pd_query queries[QUERIES];
    float vectors[QUERIES][DIM], weights[6];
    uint64_t exclude[3];
} asked;

static void ask_for(asked *a, const big *b, uint32_t k)
{
    static const float weights[6] = {0.0f, 0.5f, -0.25f, 1.0f, 0.0f, 3.0f};
    memcpy(a->weights, weights, sizeof weights);
    for (uint32_t i = 0; i < 3; i++)
        a->exclude[i] = (uint64_t)i << 33;
    for (uint32_t q = 0; q < QUERIES; q++) {
        for (uint32_t d = 0; d < DIM; d++)
            a->vectors[q][d] = q == 0 || d == 0 ? 1.0f : world_normal();
        a->queries[q] = (pd_query){.vector = a->vectors[q],
                                   .similarity = q == 3 ? 0.0f : 1.0f,
                                   .weights = q % 3 == 1 ? a->weights : NULL,
                                   .exclude = a->exclude,
                                   .nexclude = q % 2 ? 3 : 0,
                                   .nprobe = q == 5 ? 1 : b->nlist,
                                   .k = q == 7 ? 1 : k,
                                   .min_score = -INFINITY};
    }
}

static void search(const big *b, pd_device *device, asked *a, pd_answer *answers, pd_hit *hits, uint32_t k)
{
    pd_error err = {0};
    pd_index *index = load(b, device);
    for (uint32_t q = 0; q < QUERIES; q++)
        answers[q] = (pd_answer){.hits = hits + (size_t)q * k};
    if (pd_index_search(index, a->queries, QUERIES, answers, NULL, &err) != PD_OK)
        fail_msg("%s", err.message);
    pd_index_close(index);
}

static pd_device *open_cuda(const char *path)
{
    pd_device_options options = {.memory = (uint64_t)16 << 20, .isa = path};
    pd_device *device = NULL;
    pd_error err = {0};
    if (pd_device_open("cuda", &options, &device, &err) != PD_OK) fail_msg("%s", err.message);
    return device;
}

static void check(shape_of_rows kind, pd_metric metric, uint32_t nlist, uint32_t k, const char *path)
{
    pd_device_options options = {.memory = (uint64_t)16 << 20, .threads = 1};
    pd_device *cpu = NULL, *cuda = open_cuda(path);
    assert_int_equal(pd_device_open("cpu", &options, &cpu, NULL), PD_OK);
    big *b = big_make(kind, metric, nlist);
    asked *a = calloc(1, sizeof *a);
    pd_hit *hits = calloc((size_t)2 * QUERIES * k, sizeof *hits);
    pd_answer want[QUERIES], got[QUERIES];
    ask_for(a, b, k);
    search(b, cpu, a, want, hits, k);
    search(b, cuda, a, got, hits + (size_t)QUERIES * k, k);
    for (uint32_t q = 0; q < QUERIES; q++) {
        int same = want[q].count == got[q].count && want[q].scanned == got[q].scanned;
        for (uint32_t i = 0; same && i < want[q].count; i++)
            same = want[q].hits[i].id == got[q].hits[i].id && want[q].hits[i].slot == got[q].hits[i].slot &&
                   memcmp(&want[q].hits[i].score, &got[q].hits[i].score, sizeof(float)) == 0;
        if (!same)
            fail_msg("rows %d, metric %d, %u lists, k %u, by %s: query %u differs: %u and %u hits, %lu and "
                     "%lu scanned",
                     (int)kind, (int)metric, nlist, k, path, q, want[q].count, got[q].count,
                     (unsigned long)want[q].scanned, (unsigned long)got[q].scanned);
    }
    free(a);
    free(hits);
    big_free(b);
    pd_device_close(cpu);
    pd_device_close(cuda);
}

static void test_rows_that_all_tie_go_by_id_though_they_overflow(void **state)
{
    (void)state;
    check(ALL_EQUAL, PD_IP, 5, 10, "tile");
    check(ALL_EQUAL, PD_IP, 5, 10, "row");
    check(FEW_KINDS, PD_L2, 1, 40, "tile");
}

static void test_rows_that_come_worst_first_overflow_and_none_is_lost(void **state)
{
    (void)state;
    check(EVER_BETTER, PD_IP, 5, 10, "tile");
    check(EVER_BETTER, PD_IP, 1, 200, "tile");
    check(EVER_BETTER, PD_IP, 5, 10, "row");
}

static void test_rows_that_come_best_first_are_few(void **state)
{
    (void)state;
    check(EVER_WORSE, PD_IP, 5, 10, "tile");
    check(EVER_WORSE, PD_L2, 5, 10, "row");
}

static void test_many_hits_come_whole_and_sorted(void **state)
{
    (void)state;
    check(RANDOM, PD_L2, 5, 3000, "tile");
    check(RANDOM, PD_L2, 5, 3000, "row");
    check(RANDOM, PD_COSINE, 7, PD_MAX_DEPTH, "tile");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_that_all_tie_go_by_id_though_they_overflow),
        cmocka_unit_test(test_rows_that_come_worst_first_overflow_and_none_is_lost),
        cmocka_unit_test(test_rows_that_come_best_first_are_few),
        cmocka_unit_test(test_many_hits_come_whole_and_sorted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
