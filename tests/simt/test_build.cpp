/* Tables whose rows are made on the device: the rows are those of pados-bench --generate, their lists, pages and exact answers those
 * that the host makes of the same rows, bit for bit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

extern "C" {
#include <cmocka.h>
}

#include "../gpu/law_source.cuh"

#define ROWS    700u
#define DIM     21u
#define LISTS   9u
#define QUERIES 6u
#define K       12u

typedef struct made {
    pd_device *device;
    law_source law;
    float rows[ROWS][DIM], centroids[LISTS][DIM];
    uint32_t lists[ROWS], slots[ROWS], counts[LISTS], offsets[LISTS + 1], pages[ROWS];
} made;

static void must(pd_status status, const pd_error *err)
{
    if (status != PD_OK) fail_msg("%s", err->message);
}

static pd_shape shape_of(pd_metric metric, pd_refine refine)
{
    pd_shape shape = {};
    shape.metric = metric;
    shape.code = PD_CODE_I8;
    shape.refine = refine;
    shape.dim = DIM;
    shape.nlist = LISTS;
    shape.nbytes = 2;
    shape.sizes[0] = 5;
    shape.sizes[1] = 200;
    return shape;
}

static int open_with(void **state, uint64_t host_memory)
{
    static made m;
    pd_device_options options = {};
    m = {};
    pd_error err;
    float noise[DIM];
    options.memory = (uint64_t)16 << 20;
    options.host_memory = host_memory;
    must(pd_backend_cuda.open(&options, &m.device, &err), &err);
    must(law_source_open((pd_cuda_device *)m.device, 7, DIM, ROWS, &m.law, &err), &err);
    for (uint32_t i = 0; i < ROWS; i++)
        law_row(&m.law.host, LAW_ROWS, i, noise, m.rows[i]);
    for (uint32_t l = 0; l < LISTS; l++)
        memcpy(m.centroids[l], m.rows[l * 77], sizeof m.centroids[l]);
    must(pd_cuda_assign_source((pd_cuda_device *)m.device, m.centroids[0], LISTS, &m.law.source, m.lists,
                               &err),
         &err);
    for (uint32_t i = 0; i < ROWS; i++)
        m.counts[m.lists[i]]++;
    for (uint32_t l = 0; l < LISTS; l++)
        m.offsets[l + 1] = m.offsets[l] + pd_pages_for(m.counts[l]);
    for (uint32_t p = 0; p < m.offsets[LISTS]; p++)
        m.pages[p] = m.offsets[LISTS] - 1 - p;
    uint32_t next[LISTS] = {};
    for (uint32_t i = 0; i < ROWS; i++) {
        uint32_t at = next[m.lists[i]]++;
        m.slots[i] = m.pages[m.offsets[m.lists[i]] + at / PD_PAGE_ROWS] * PD_PAGE_ROWS + at % PD_PAGE_ROWS;
    }
    *state = &m;
    return 0;
}

static int open_made(void **state)
{
    return open_with(state, 0);
}

static int open_hosted(void **state)
{
    return open_with(state, (uint64_t)16 << 20);
}

static int close_made(void **state)
{
    made *m = (made *)*state;
    law_source_close(&m->law);
    pd_device_close(m->device);
    return 0;
}

static void test_rows_have_the_lists_that_the_host_gives_them(void **state)
{
    const made *m = (const made *)*state;
    pd_device_options options = {};
    pd_device *cpu = NULL;
    pd_error err;
    uint32_t lists[ROWS];
    must(pd_device_open("cpu", &options, &cpu, &err), &err);
    must(pd_device_assign(cpu, m->centroids[0], LISTS, DIM, m->rows[0], ROWS, lists, &err), &err);
    for (uint32_t i = 0; i < ROWS; i++)
        assert_int_equal(m->lists[i], lists[i]);
    for (uint32_t l = 0; l < LISTS; l++)
        assert_true(m->counts[l] > 0 && m->counts[l] < ROWS / 2);
    pd_device_close(cpu);
}

static pd_index *open_index(const made *m, const pd_shape *shape)
{
    pd_index_spec spec = {*shape, m->offsets[LISTS], "made@1"};
    pd_index *index = NULL;
    pd_error err;
    pd_lists lists = {};
    lists.centroids = m->centroids[0];
    lists.offsets = m->offsets;
    lists.pages = m->pages;
    lists.rows = m->counts;
    must(pd_index_open(m->device, &spec, &index, &err), &err);
    must(pd_index_set_lists(index, &lists, &err), &err);
    return index;
}

/* The pages as the host makes them. */
static unsigned char *host_pages(const made *m, const pd_shape *shape, const pd_layout *layout, int refine)
{
    uint32_t n = m->offsets[LISTS];
    unsigned char *pages = (unsigned char *)calloc(n, layout->page_bytes);
    unsigned char *refines = (unsigned char *)calloc(n, layout->refine_bytes + 1);
    for (uint32_t p = 0; p < n; p++)
        pd_page_clear(shape, layout, pages + p * layout->page_bytes);
    for (uint32_t i = 0; i < ROWS; i++) {
        uint32_t page = m->slots[i] / PD_PAGE_ROWS, place = m->slots[i] % PD_PAGE_ROWS;
        unsigned char *at = pages + page * layout->page_bytes;
        pd_page_encode(shape, layout, NULL, m->centroids[m->lists[i]], m->rows[i], place, 1, at,
                       layout->refine_bytes ? refines + page * layout->refine_bytes : NULL);
        pd_page_ids(layout, at)[place] = i;
        for (uint32_t c = 0; c < shape->nbytes; c++)
            pd_page_bytes(layout, at, c)[place] = pd_made_value(i, c, shape->sizes[c]);
    }
    free(refine ? pages : refines);
    return refine ? refines : pages;
}

static void check_pages(const made *m, const pd_shape *shape)
{
    pd_index *index = open_index(m, shape);
    pd_layout layout = index->layout;
    pd_error err;
    uint32_t n = m->offsets[LISTS];
    must(pd_cuda_fill((pd_cuda_index *)index, &m->law.source, m->slots, &err), &err);
    for (int kind = 0; kind < (layout.refine_bytes ? 2 : 1); kind++) {
        size_t bytes = kind ? layout.refine_bytes : layout.page_bytes;
        unsigned char *want = host_pages(m, shape, &layout, kind), *got = (unsigned char *)malloc(n * bytes);
        must(pd_index_read_pages(index, (pd_page_kind)kind, 0, n, got, &err), &err);
        for (uint32_t p = 0; p < n; p++)
            if (memcmp(want + p * bytes, got + p * bytes, bytes) != 0)
                fail_msg("metric %d, refine %d: page %u of kind %d is not the host's", (int)shape->metric,
                         (int)shape->refine, p, kind);
        free(want);
        free(got);
    }
    /* Filters go by summaries of what was made. */
    pd_hit hits[K];
    pd_answer answer = {};
    pd_byte_test test = {1, {0, 1ull << 3, 0, 0}};
    pd_filter filter = {};
    pd_query query = {};
    filter.nbytes = 1;
    filter.bytes = &test;
    query.vector = m->rows[3];
    query.similarity = 1.0f;
    query.filter = &filter;
    query.nprobe = LISTS;
    query.k = K;
    query.min_score = -INFINITY;
    answer.hits = hits;
    must(pd_index_search(index, &query, 1, &answer, NULL, &err), &err);
    uint32_t pass = 0;
    for (uint32_t i = 0; i < ROWS; i++)
        pass += pd_made_value(i, 1, 200) == 67;
    assert_int_equal(answer.count, pass < K ? pass : K);
    assert_true(answer.count > 0);
    for (uint32_t i = 0; i < answer.count; i++)
        assert_int_equal(pd_made_value(hits[i].id, 1, 200), 67);
    pd_index_close(index);
}

static void test_pages_are_those_of_the_host(void **state)
{
    const made *m = (const made *)*state;
    for (int metric = PD_IP; metric <= PD_L2; metric += 2) {
        pd_shape shape = shape_of((pd_metric)metric, metric == PD_L2 ? PD_REFINE_F16 : PD_REFINE_F32);
        check_pages(m, &shape);
    }
    pd_shape plain = shape_of(PD_L2, PD_REFINE_NONE);
    check_pages(m, &plain);
}

static void test_rows_that_cannot_be_made_are_refused(void **state)
{
    const made *m = (const made *)*state;
    pd_error err;
    pd_shape shape = shape_of(PD_L2, PD_REFINE_NONE);
    shape.nfloats = 1;
    pd_index *index = open_index(m, &shape);
    assert_int_equal(pd_cuda_fill((pd_cuda_index *)index, &m->law.source, m->slots, &err),
                     PD_INVALID_ARGUMENT);
    pd_index_close(index);
}

static void ask_exactly(const made *m, pd_device *device, const pd_shape *shape, const pd_query *queries,
                        pd_answer *answers)
{
    pd_exact *exact = NULL;
    pd_error err;
    pd_layout layout;
    must(pd_layout_of(shape, &layout, &err), &err);
    must(pd_exact_begin(device, shape, queries, QUERIES, &exact, &err), &err);
    if (device == m->device) {
        must(pd_cuda_exact_source(exact, &m->law.source, &err), &err);
    } else {
        uint32_t n = pd_pages_for(ROWS);
        unsigned char *pages = (unsigned char *)calloc(n, layout.page_bytes);
        float *rows = (float *)calloc((size_t)n * PD_PAGE_ROWS * DIM, sizeof *rows);
        memcpy(rows, m->rows, sizeof m->rows);
        for (uint32_t i = 0; i < n * PD_PAGE_ROWS; i++) {
            unsigned char *page = pages + i / PD_PAGE_ROWS * layout.page_bytes;
            pd_page_term(&layout, page)[i % PD_PAGE_ROWS] = i < ROWS ? 0.0f : -INFINITY;
            pd_page_ids(&layout, page)[i % PD_PAGE_ROWS] = i;
            for (uint32_t c = 0; c < shape->nbytes; c++)
                pd_page_bytes(&layout, page, c)[i % PD_PAGE_ROWS] = pd_made_value(i, c, shape->sizes[c]);
        }
        pd_block block = {n, pages, rows, PD_REFINE_F32, 0};
        must(pd_exact_block(device, exact, &block, &err), &err);
        free(pages);
        free(rows);
    }
    must(pd_exact_end(device, exact, answers, &err), &err);
}

static void test_the_exact_answers_are_those_of_the_cpu(void **state)
{
    const made *m = (const made *)*state;
    static pd_hit hits[2][QUERIES][K];
    pd_device_options options = {};
    pd_device *cpu = NULL;
    pd_error err;
    pd_shape shape = shape_of(PD_L2, PD_REFINE_F16);
    pd_query queries[QUERIES] = {};
    pd_answer answers[2][QUERIES] = {};
    float weights[205], noise[DIM], vectors[QUERIES][DIM];
    for (uint32_t v = 0; v < 205; v++)
        weights[v] = 0.01f * (float)(v % 17);
    for (uint32_t q = 0; q < QUERIES; q++) {
        law_row(&m->law.host, LAW_QUERIES, q, noise, vectors[q]);
        queries[q].vector = vectors[q];
        queries[q].similarity = 1.0f;
        queries[q].weights = q % 2 ? weights : NULL;
        queries[q].k = K;
        queries[q].min_score = -INFINITY;
        answers[0][q].hits = hits[0][q];
        answers[1][q].hits = hits[1][q];
    }
    must(pd_device_open("cpu", &options, &cpu, &err), &err);
    ask_exactly(m, cpu, &shape, queries, answers[0]);
    ask_exactly(m, m->device, &shape, queries, answers[1]);
    for (uint32_t q = 0; q < QUERIES; q++) {
        assert_int_equal(answers[0][q].count, K);
        assert_int_equal(answers[1][q].count, K);
        assert_int_equal(answers[0][q].scanned, answers[1][q].scanned);
        assert_memory_equal(hits[0][q], hits[1][q], sizeof hits[0][q]);
    }
    pd_device_close(cpu);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_have_the_lists_that_the_host_gives_them),
        cmocka_unit_test(test_pages_are_those_of_the_host),
        cmocka_unit_test(test_rows_that_cannot_be_made_are_refused),
        cmocka_unit_test(test_the_exact_answers_are_those_of_the_cpu),
    };
    /* The same pages where refine rows lie in the host's memory. */
    const struct CMUnitTest hosted[] = {cmocka_unit_test(test_pages_are_those_of_the_host)};
    int failed = cmocka_run_group_tests(tests, open_made, close_made);
    return failed + cmocka_run_group_tests(hosted, open_hosted, close_made);
}
