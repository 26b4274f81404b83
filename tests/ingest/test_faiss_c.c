/* The part of FAISS's C API that we call, whether it is FAISS's own or ours: the peers of the bench stand on it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <faiss/c_api/AutoTune_c.h>
#include <faiss/c_api/IndexFlat_c.h>
#include <faiss/c_api/IndexIVF_c.h>
#include <faiss/c_api/Index_c.h>
#include <faiss/c_api/error_c.h>
#include <faiss/c_api/index_factory_c.h>
#include <faiss/c_api/index_io_c.h>

#define ROWS 1000
#define DIM  16
#define K    5

static float rows[ROWS * DIM];

static int make_rows(void **state)
{
    (void)state;
    uint32_t seed = 5;
    for (int i = 0; i < ROWS * DIM; i++) {
        seed = seed * 1664525u + 1013904223u;
        rows[i] = (float)(seed >> 8) / 0x1p24f;
    }
    return 0;
}

static void must(int failed)
{
    if (failed) fail_msg("%s", faiss_get_last_error());
}

static FaissIndex *built(const char *description, FaissMetricType metric)
{
    FaissIndex *index = NULL;
    must(faiss_index_factory(&index, DIM, description, metric));
    must(faiss_Index_train(index, ROWS, rows));
    must(faiss_Index_add(index, ROWS, rows));
    assert_true(faiss_Index_is_trained(index));
    assert_int_equal(faiss_Index_ntotal(index), ROWS);
    assert_int_equal(faiss_Index_d(index), DIM);
    assert_int_equal(faiss_Index_metric_type(index), metric);
    return index;
}

/* How many of the rows find themselves first. */
static int found_themselves(const FaissIndex *index)
{
    static float distances[ROWS * K];
    static idx_t labels[ROWS * K];
    must(faiss_Index_search(index, ROWS, rows, K, distances, labels));
    int found = 0;
    for (int i = 0; i < ROWS; i++)
        found += labels[i * K] == i;
    return found;
}

static void set(FaissIndex *index, const char *name, double value)
{
    FaissParameterSpace *space = NULL;
    must(faiss_ParameterSpace_new(&space));
    must(faiss_ParameterSpace_set_index_parameter(space, index, name, value));
    faiss_ParameterSpace_free(space);
}

static void test_the_peers_indexes_build_and_find(void **state)
{
    (void)state;
    FaissIndex *ivf = built("IVF16,Flat", METRIC_L2);
    assert_int_equal(faiss_IndexIVF_nlist(faiss_IndexIVF_cast(ivf)), 16);
    set(ivf, "nprobe", 16);
    assert_int_equal(faiss_IndexIVF_nprobe(faiss_IndexIVF_cast(ivf)), 16);
    assert_int_equal(found_themselves(ivf), ROWS);
    faiss_Index_free(ivf);

    FaissIndex *coded = built("IVF16,SQ8", METRIC_L2);
    set(coded, "nprobe", 16);
    assert_true(found_themselves(coded) > ROWS * 95 / 100);
    faiss_Index_free(coded);

    FaissIndex *graph = built("HNSW16", METRIC_L2);
    assert_null(faiss_IndexIVF_cast(graph));
    set(graph, "efSearch", 64);
    assert_true(found_themselves(graph) > ROWS * 95 / 100);
    faiss_Index_free(graph);
}

static void test_inner_product_orders_by_the_largest(void **state)
{
    (void)state;
    FaissIndexFlatIP *index = NULL;
    must(faiss_IndexFlatIP_new_with(&index, DIM));
    must(faiss_Index_add(index, ROWS, rows));
    float distances[K];
    idx_t labels[K];
    must(faiss_Index_search(index, 1, rows, K, distances, labels));
    for (int i = 1; i < K; i++)
        assert_true(distances[i] <= distances[i - 1]);
    float back[2 * DIM];
    must(faiss_Index_reconstruct_n(index, 7, 2, back));
    assert_memory_equal(back, rows + 7 * DIM, sizeof back);
    faiss_Index_free(index);
}

static void test_errors_are_codes_and_words_never_exceptions(void **state)
{
    (void)state;
    FaissIndex *index = NULL;
    assert_int_equal(faiss_index_factory(&index, DIM, "NoSuchThing", METRIC_L2), FAISS_EXCEPT);
    assert_non_null(strstr(faiss_get_last_error(), "NoSuchThing"));
    assert_int_not_equal(faiss_read_index_fname("/no/such.index", 0, &index), OK);
    assert_non_null(strstr(faiss_get_last_error(), "/no/such.index"));
    index = built("IVF16,Flat", METRIC_L2);
    float back[DIM];
    assert_int_not_equal(faiss_Index_reconstruct(index, 0, back), OK); /* without a direct map */
    must(faiss_IndexIVF_make_direct_map(faiss_IndexIVF_cast(index), 1));
    must(faiss_Index_reconstruct(index, 0, back));
    assert_memory_equal(back, rows, sizeof back);
    faiss_Index_free(index);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_peers_indexes_build_and_find),
        cmocka_unit_test(test_inner_product_orders_by_the_largest),
        cmocka_unit_test(test_errors_are_codes_and_words_never_exceptions),
    };
    return cmocka_run_group_tests(tests, make_rows, NULL);
}
