/* Names, wrappers and reading back: what callers are refused, and by which words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tested.h"
#include "f16.h"
#include "world.h"

#define SLAB ((uint64_t)96 << 20)

static void test_backends_are_found_by_name(void **state)
{
    (void)state;
    const pd_backend *backend = NULL;
    pd_error err;
    assert_int_equal(pd_backend_find("reference", &backend, &err), PD_OK);
    assert_string_equal(backend->name, "reference");
    assert_int_equal(pd_backend_find("cpu", &backend, &err), PD_OK);
    assert_string_equal(backend->name, "cpu");
    assert_int_equal(pd_backend_find("auto", &backend, &err), PD_OK);
    assert_int_equal(pd_backend_find("abacus", &backend, &err), PD_NOT_FOUND);
    assert_non_null(strstr(err.message, "abacus"));
    pd_status cuda = pd_backend_find("cuda", &backend, &err);
    assert_true(cuda == PD_OK || cuda == PD_UNAVAILABLE);
    if (cuda == PD_UNAVAILABLE) assert_non_null(strstr(err.message, "CUDA"));
}

static void test_a_device_says_what_it_is(void **state)
{
    (void)state;
    pd_device *device = NULL;
    pd_device_options options = {.memory = SLAB, .threads = 2, .idle = 1, .isa = "portable"};
    assert_int_equal(pd_device_open("cpu", &options, &device, NULL), PD_OK);
    pd_device_info info;
    pd_device_info_of(device, &info);
    assert_string_equal(info.backend, "cpu");
    assert_string_equal(info.isa, "portable");
    assert_int_equal(info.threads, 2);
    assert_int_equal(info.memory, SLAB);
    assert_true(strlen(info.about) > 0);
    pd_device_close(device);
    pd_device_close(NULL);
    pd_index_close(NULL);
}

static void test_an_unknown_isa_is_refused_by_name(void **state)
{
    (void)state;
    static const char *const names[] = {TESTED, "reference"};
    for (size_t i = 0; i < 2; i++) {
        pd_device *device = NULL;
        pd_device_options options = {.isa = "altivec"};
        pd_error err;
        assert_int_equal(pd_device_open(names[i], &options, &device, &err), PD_INVALID_ARGUMENT);
        assert_non_null(strstr(err.message, "altivec"));
    }
}

/* A loaded world on one backend. */
typedef struct loaded {
    pd_device *device;
    pd_index *index;
    world *w;
} loaded;

static loaded load(const char *backend, pd_code code, pd_refine refine, uint32_t nlist)
{
    loaded l = {0};
    pd_error err = {0};
    pd_device_options options = {.memory = SLAB, .threads = 2};
    l.w = world_make(PD_L2, code, refine, 17, nlist);
    if (pd_device_open(backend, &options, &l.device, &err) != PD_OK ||
        world_load(l.w, l.device, 1.0f, &l.index, &err) != PD_OK)
        fail_msg("%s", err.message);
    return l;
}

static void unload(loaded *l)
{
    pd_index_close(l->index);
    pd_device_close(l->device);
    world_free(l->w);
}

static void refused(const loaded *l, pd_query query, const char *word)
{
    pd_hit hits[1];
    pd_answer answers[2] = {{.hits = hits}, {.hits = hits}};
    float zero[17] = {0};
    pd_query good = {.vector = zero, .similarity = 1, .nprobe = 1, .k = 1, .min_score = -INFINITY};
    pd_query queries[2] = {good, query};
    pd_error err = {0};
    assert_int_equal(pd_index_search(l->index, queries, 2, answers, NULL, &err), PD_INVALID_ARGUMENT);
    if (!strstr(err.message, "query 1") || !strstr(err.message, word))
        fail_msg("\"%s\" does not say \"%s\"", err.message, word);
}

static void test_impossible_queries_are_refused_naming_the_query(void **state)
{
    (void)state;
    loaded l = load(TESTED, PD_CODE_I8, PD_REFINE_NONE, WORLD_LISTS);
    float vector[17] = {0}, nan[17] = {0}, *weights = calloc(l.w->layout.weights, sizeof *weights);
    pd_query good = {.vector = vector, .similarity = 1, .nprobe = 1, .k = 1, .min_score = -INFINITY},
             bad = good;
    bad.k = 0;
    refused(&l, bad, "k is 0");
    bad.k = PD_MAX_DEPTH + 1;
    refused(&l, bad, "k is");
    bad = good;
    bad.similarity = -1;
    refused(&l, bad, "similarity");
    bad.similarity = NAN;
    refused(&l, bad, "similarity");
    bad = good;
    bad.min_score = NAN;
    refused(&l, bad, "min_score");
    bad = good;
    bad.vector = nan;
    nan[16] = NAN;
    refused(&l, bad, "vector");
    nan[16] = 0;
    nan[3] = -INFINITY;
    refused(&l, bad, "vector");
    bad = good;
    weights[l.w->layout.weights - 1] = NAN;
    bad.weights = weights;
    refused(&l, bad, "weights");
    bad = good;
    pd_key_weight key = {.column = 1};
    bad.key_weights = &key;
    bad.nkey_weights = 1;
    refused(&l, bad, "key column 1");
    bad = good;
    uint32_t number = WORLD_LISTS;
    bad.probes = &number;
    refused(&l, bad, "list 13");
    bad = good;
    number = l.w->npages * PD_PAGE_ROWS;
    bad.slots = &number;
    bad.nslots = 1;
    refused(&l, bad, "slot 2048");
    bad = good;
    pd_byte_test byte = {.column = WORLD_BYTES};
    pd_set_test set = {.column = 3};
    pd_range_test range = {.column = 2};
    pd_key_test keys = {.column = 1};
    pd_filter filters[] = {{.nbytes = 1, .bytes = &byte},
                           {.nsets = 1, .sets = &set},
                           {.nranges = 1, .ranges = &range},
                           {.nkeys = 1, .keys = &keys}};
    const char *const words[] = {"byte column 10", "byte column 3", "float column 2", "key column 1"};
    for (size_t i = 0; i < 4; i++) {
        bad.filter = &filters[i];
        refused(&l, bad, words[i]);
    }
    assert_int_equal(pd_index_search(l.index, &good, 0, NULL, NULL, NULL), PD_OK);
    free(weights);
    unload(&l);
}

static void test_gather_reads_rows_back(void **state)
{
    (void)state;
    static const char *const names[] = {"reference", TESTED};
    for (size_t b = 0; b < 2; b++) {
        for (int code = PD_CODE_NONE; code <= PD_CODE_F32; code++) {
            uint32_t nlist = code == PD_CODE_NONE ? 0 : WORLD_LISTS;
            loaded l =
                load(names[b], (pd_code)code, code == PD_CODE_NONE ? PD_REFINE_F16 : PD_REFINE_NONE, nlist);
            float vectors[2 * 17], floats[4];
            uint64_t ids[2], keys[2];
            uint8_t bytes[2 * WORLD_BYTES];
            pd_rows rows = {.vectors = vectors, .ids = ids, .bytes = bytes, .floats = floats, .keys = keys};
            for (uint32_t r = 0; r + 1 < WORLD_ROWS; r += 13) {
                if (l.w->deleted[r] || l.w->deleted[r + 1]) continue;
                uint32_t slots[2] = {l.w->slot[r + 1], l.w->slot[r]};
                assert_int_equal(pd_index_gather(l.index, slots, 2, &rows, NULL), PD_OK);
                for (uint32_t i = 0; i < 2; i++) {
                    uint32_t row = i ? r : r + 1;
                    assert_int_equal(ids[i], l.w->ids[row]);
                    assert_int_equal(keys[i], l.w->keys[row]);
                    assert_memory_equal(bytes + i * WORLD_BYTES, l.w->bytes[row], WORLD_BYTES);
                    assert_memory_equal(floats + 2 * i, l.w->floats[row], 2 * sizeof(float));
                    for (uint32_t d = 0; d < 17; d++) {
                        float raw = l.w->rows[row * 17 + d], gap = fabsf(vectors[i * 17 + d] - raw);
                        if (code == PD_CODE_F32) assert_true(gap == 0.0f);
                        if (code == PD_CODE_I8) assert_true(gap < 0.02f);
                        if (code == PD_CODE_F16 || code == PD_CODE_NONE)
                            assert_true(vectors[i * 17 + d] == pd_f16_to_f32(pd_f32_to_f16(raw)));
                    }
                }
            }
            pd_rows nothing = {0};
            assert_int_equal(pd_index_gather(l.index, &l.w->slot[1], l.w->deleted[1] ? 0 : 1, &nothing, NULL),
                             PD_OK);
            unload(&l);
        }
    }
}

static void test_gather_refuses_slots_without_a_row(void **state)
{
    (void)state;
    loaded l = load(TESTED, PD_CODE_I8, PD_REFINE_F16, WORLD_LISTS);
    uint64_t id;
    pd_rows rows = {.ids = &id};
    pd_error err;
    uint32_t r = 0, beyond = l.w->npages * PD_PAGE_ROWS, none = PD_NO_SLOT;
    while (!l.w->deleted[r])
        r++;
    assert_int_equal(pd_index_gather(l.index, &l.w->slot[r], 1, &rows, &err), PD_OUT_OF_RANGE);
    assert_int_equal(pd_index_gather(l.index, &beyond, 1, &rows, &err), PD_OUT_OF_RANGE);
    assert_int_equal(pd_index_gather(l.index, &none, 1, &rows, &err), PD_OUT_OF_RANGE);
    assert_non_null(strstr(err.message, "slot 4294967295"));
    unload(&l);
}

static void test_a_page_written_again_answers_from_its_new_rows(void **state)
{
    (void)state;
    loaded l = load(TESTED, PD_CODE_I8, PD_REFINE_NONE, WORLD_LISTS);
    uint32_t r = 0, got;
    while (l.w->deleted[r])
        r++;
    void *memory;
    pd_hit hit[2];
    pd_query query = {.vector = l.w->rows + r * 17, .similarity = 1, .nprobe = WORLD_LISTS, .k = 2};
    query.min_score = -INFINITY;
    pd_answer answer = {.hits = hit};
    pd_timing timing;
    assert_int_equal(pd_index_search(l.index, &query, 1, &answer, &timing, NULL), PD_OK);
    assert_int_equal(hit[0].id, l.w->ids[r]);
    assert_true(timing.scan_ns > 0 && timing.coarse_ns > 0);
    /* A deleted row never comes back. */
    assert_int_equal(
        pd_index_window(l.index, PD_PAGES_MAIN, l.w->slot[r] / PD_PAGE_ROWS, 1, &memory, &got, NULL), PD_OK);
    pd_page_term(&l.w->layout, memory)[l.w->slot[r] % PD_PAGE_ROWS] = -INFINITY;
    assert_int_equal(pd_index_commit(l.index, NULL), PD_OK);
    assert_int_equal(pd_index_search(l.index, &query, 1, &answer, NULL, NULL), PD_OK);
    assert_true(answer.count == 2 && hit[0].id != l.w->ids[r] && hit[1].id != l.w->ids[r]);
    unload(&l);
}

static void test_i8_codes_without_lists_are_refused(void **state)
{
    (void)state;
    pd_device *device = NULL;
    pd_device_options options = {.memory = SLAB, .threads = 1};
    assert_int_equal(pd_device_open(TESTED, &options, &device, NULL), PD_OK);
    pd_index_spec spec = {.shape = {.code = PD_CODE_I8, .dim = 8}, .npages = 1, .name = "users@1"};
    pd_index *index = NULL;
    pd_error err;
    assert_int_equal(pd_index_open(device, &spec, &index, &err), PD_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "users@1"));
    pd_device_close(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_backends_are_found_by_name),
        cmocka_unit_test(test_a_device_says_what_it_is),
        cmocka_unit_test(test_an_unknown_isa_is_refused_by_name),
        cmocka_unit_test(test_impossible_queries_are_refused_naming_the_query),
        cmocka_unit_test(test_gather_reads_rows_back),
        cmocka_unit_test(test_gather_refuses_slots_without_a_row),
        cmocka_unit_test(test_a_page_written_again_answers_from_its_new_rows),
        cmocka_unit_test(test_i8_codes_without_lists_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
