/* The slab: what an index takes, what it is refused, what comes back; windows and lists. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tested.h"
#include "slab.h"
#include "world.h"

#define MIB ((uint64_t)1 << 20)

static const char *const backends[] = {"reference", TESTED};

static pd_device *open_with(const char *backend, uint64_t memory, uint64_t host_memory)
{
    pd_device *device = NULL;
    pd_error err;
    pd_device_options options = {.memory = memory, .host_memory = host_memory, .threads = 2};
    if (pd_device_open(backend, &options, &device, &err) != PD_OK) fail_msg("%s", err.message);
    return device;
}

static pd_device *open_device(const char *backend, uint64_t memory)
{
    return open_with(backend, memory, 0);
}

static uint64_t used(const pd_device *device)
{
    pd_device_info info;
    pd_device_info_of(device, &info);
    return info.used;
}

static void test_an_index_takes_what_is_said_and_gives_it_back(void **state)
{
    (void)state;
    for (size_t b = 0; b < 2; b++) {
        pd_device *device = open_device(backends[b], 64 * MIB + 12345);
        pd_device_info info;
        pd_device_info_of(device, &info);
        assert_int_equal(info.memory, 64 * MIB);
        assert_int_equal(info.used, 0);
        world *w = world_make(PD_L2, PD_CODE_I8, PD_REFINE_F32, 100, WORLD_LISTS);
        pd_index_spec spec = {.shape = w->shape, .npages = 500, .name = "a@1"};
        uint64_t bytes = pd_index_bytes(&spec);
        uint64_t pages =
            (500 + PD_CHUNK_BYTES / w->layout.page_bytes - 1) / (PD_CHUNK_BYTES / w->layout.page_bytes);
        uint64_t refines =
            (500 + PD_CHUNK_BYTES / w->layout.refine_bytes - 1) / (PD_CHUNK_BYTES / w->layout.refine_bytes);
        assert_int_equal(bytes, (pages + refines) * PD_CHUNK_BYTES);
        pd_index *one = NULL, *two = NULL;
        assert_int_equal(pd_index_open(device, &spec, &one, NULL), PD_OK);
        assert_int_equal(used(device), bytes);
        assert_int_equal(pd_index_open(device, &spec, &two, NULL), PD_OK);
        assert_int_equal(used(device), 2 * bytes);
        pd_index_close(one);
        assert_int_equal(used(device), bytes);
        pd_index_close(two);
        assert_int_equal(used(device), 0);
        world_free(w);
        pd_device_close(device);
    }
}

static void test_freed_chunks_serve_any_index(void **state)
{
    (void)state;
    pd_device *device = open_device(TESTED, 16 * MIB);
    world *w = world_make(PD_L2, PD_CODE_F32, PD_REFINE_NONE, 100, WORLD_LISTS);
    uint32_t per_chunk = (uint32_t)(PD_CHUNK_BYTES / w->layout.page_bytes);
    pd_index *index[8] = {0};
    pd_index_spec one = {.shape = w->shape, .npages = per_chunk},
                  four = {.shape = w->shape, .npages = 4 * per_chunk};
    for (int i = 0; i < 8; i++)
        assert_int_equal(pd_index_open(device, &one, &index[i], NULL), PD_OK);
    for (int i = 0; i < 8; i += 2)
        pd_index_close(index[i]);
    /* Every second chunk is free; they lie apart and serve all the same. */
    pd_index *wide = NULL;
    assert_int_equal(pd_index_open(device, &four, &wide, NULL), PD_OK);
    pd_index_close(wide);
    for (int i = 1; i < 8; i += 2)
        pd_index_close(index[i]);
    assert_int_equal(used(device), 0);
    world_free(w);
    pd_device_close(device);
}

static void test_a_table_that_does_not_fit_is_refused_with_the_numbers(void **state)
{
    (void)state;
    for (size_t b = 0; b < 2; b++) {
        pd_device *device = open_device(backends[b], 8 * MIB);
        world *w = world_make(PD_L2, PD_CODE_F32, PD_REFINE_F32, 784, WORLD_LISTS);
        pd_index_spec spec = {.shape = w->shape, .npages = 64, .name = "products@7"};
        pd_index *index = NULL;
        pd_error err;
        assert_int_equal(pd_index_open(device, &spec, &index, &err), PD_RESOURCE_EXHAUSTED);
        assert_string_equal(err.message,
                            "products@7 needs 16.0 MiB of device memory, 8.0 MiB of 8.0 MiB is free");
        assert_null(index);
        assert_int_equal(used(device), 0);
        world_free(w);
        pd_device_close(device);
    }
}

/* Opens an index and says where its pages lie. */
static void takes(pd_device *device, const pd_index_spec *spec, uint64_t slab, uint64_t host)
{
    pd_index *index = NULL;
    pd_device_info info;
    assert_int_equal(pd_index_open(device, spec, &index, NULL), PD_OK);
    pd_device_info_of(device, &info);
    assert_int_equal(info.used, slab);
    assert_int_equal(info.host_used, host);
    assert_int_equal(index->hosted, host > 0);
    pd_index_close(index);
    pd_device_info_of(device, &info);
    assert_int_equal(info.used, 0);
    assert_int_equal(info.host_used, 0);
}

static void test_refine_rows_beside_codes_lie_in_the_hosts_memory_where_it_is_lent(void **state)
{
    (void)state;
    int lent = strcmp(TESTED, "cuda") == 0;
    pd_device *device = open_with(TESTED, 64 * MIB, 32 * MIB + 54321);
    pd_device_info info;
    pd_device_info_of(device, &info);
    assert_int_equal(info.memory, 64 * MIB);
    assert_int_equal(info.host_memory, lent ? 32 * MIB : 0);
    for (int code = PD_CODE_NONE; code <= PD_CODE_I8; code++) {
        world *w = world_make(PD_L2, (pd_code)code, PD_REFINE_F32, 100, WORLD_LISTS);
        pd_index_spec spec = {.shape = w->shape, .npages = 500, .name = "a@1"};
        uint64_t all = pd_index_bytes(&spec), refine = pd_index_refine_bytes(&spec);
        assert_true(refine > 0 && refine < all);
        uint64_t host = lent && code == PD_CODE_I8 ? refine : 0;
        takes(device, &spec, all - host, host);
        spec.shape.refine = code == PD_CODE_NONE ? PD_REFINE_F16 : PD_REFINE_NONE;
        takes(device, &spec, pd_index_bytes(&spec), 0);
        world_free(w);
    }
    pd_device_close(device);
}

static void test_a_table_that_does_not_fit_is_told_which_memory_it_wants(void **state)
{
    (void)state;
    if (strcmp(TESTED, "cuda") != 0) skip(); /* there is one memory */
    static const struct {
        uint64_t slab, host;
        const char *says;
    } devices[] = {
        {2, 16, "products@7 needs 4.0 MiB of device memory, 2.0 MiB of 2.0 MiB is free"},
        {8, 4, "products@7 needs 10.0 MiB of host memory for refine rows, 4.0 MiB of 4.0 MiB is free"},
        {4, 10, NULL}};
    world *w = world_make(PD_L2, PD_CODE_I8, PD_REFINE_F32, 784, WORLD_LISTS);
    pd_index_spec spec = {.shape = w->shape, .npages = 100, .name = "products@7"};
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++) {
        pd_device *device = open_with(TESTED, devices[i].slab * MIB, devices[i].host * MIB);
        pd_index *index = NULL;
        pd_error err = {0};
        pd_device_info info;
        pd_status status = pd_index_open(device, &spec, &index, &err);
        assert_int_equal(status, devices[i].says ? PD_RESOURCE_EXHAUSTED : PD_OK);
        if (devices[i].says) assert_string_equal(err.message, devices[i].says);
        pd_index_close(index);
        pd_device_info_of(device, &info);
        assert_int_equal(info.used + info.host_used, 0);
        pd_device_close(device);
    }
    world_free(w);
}

static void test_host_memory_that_the_machine_has_not_got_is_refused(void **state)
{
    (void)state;
    pd_device_options options = {.memory = 4 * MIB, .host_memory = (uint64_t)1 << 52};
    pd_device *device = NULL;
    pd_error err = {0};
    pd_status status = pd_device_open(TESTED, &options, &device, &err);
    if (strcmp(TESTED, "cuda") != 0) {
        assert_int_equal(status, PD_OK); /* nobody looks at it */
        pd_device_close(device);
        return;
    }
    assert_int_equal(status, PD_RESOURCE_EXHAUSTED);
    assert_non_null(strstr(err.message, "of host memory is asked for"));
    assert_non_null(strstr(err.message, "available"));
}

static void test_a_slab_larger_than_the_machine_is_refused(void **state)
{
    (void)state;
    for (size_t b = 0; b < 2; b++) {
        pd_device_options options = {.memory = (uint64_t)1 << 52};
        pd_device *device = NULL;
        pd_error err;
        assert_int_equal(pd_device_open(backends[b], &options, &device, &err), PD_RESOURCE_EXHAUSTED);
        assert_non_null(strstr(err.message, "available"));
    }
}

static void test_without_a_slab_nothing_is_loaded(void **state)
{
    (void)state;
    pd_device *device = open_device(TESTED, 0);
    world *w = world_make(PD_L2, PD_CODE_I8, PD_REFINE_NONE, 17, WORLD_LISTS);
    pd_index_spec spec = {.shape = w->shape, .npages = 1, .name = "a@1"};
    pd_index *index = NULL;
    assert_int_equal(pd_index_open(device, &spec, &index, NULL), PD_RESOURCE_EXHAUSTED);
    world_free(w);
    pd_device_close(device);
}

static void test_windows_come_one_at_a_time_and_within_the_pages(void **state)
{
    (void)state;
    pd_device *device = open_device(TESTED, 64 * MIB);
    world *w = world_make(PD_L2, PD_CODE_I8, PD_REFINE_NONE, 100, WORLD_LISTS);
    pd_index *index = NULL;
    pd_error err;
    void *memory;
    uint32_t got = 0, total = 0;
    pd_index_spec spec = {.shape = w->shape, .npages = 1000, .name = "a@1"};
    assert_int_equal(pd_index_open(device, &spec, &index, &err), PD_OK);
    assert_int_equal(pd_index_commit(index, &err), PD_FAILED_PRECONDITION);
    assert_int_equal(pd_index_window(index, PD_PAGES_MAIN, 1000, 1, &memory, &got, &err), PD_OUT_OF_RANGE);
    assert_int_equal(pd_index_window(index, PD_PAGES_MAIN, 999, 2, &memory, &got, &err), PD_OUT_OF_RANGE);
    assert_int_equal(pd_index_window(index, PD_PAGES_REFINE, 0, 1, &memory, &got, &err), PD_INVALID_ARGUMENT);
    uint32_t rounds = 0;
    for (uint32_t p = 0; p < 1000; p += got, rounds++) {
        assert_int_equal(pd_index_window(index, PD_PAGES_MAIN, p, 1000 - p, &memory, &got, &err), PD_OK);
        assert_true(got >= 1 && got <= 1000 - p);
        assert_int_equal(pd_index_window(index, PD_PAGES_MAIN, 0, 1, &memory, &got, &err),
                         PD_FAILED_PRECONDITION);
        memset(memory, 0, got * w->layout.page_bytes);
        assert_int_equal(pd_index_commit(index, &err), PD_OK);
        total += got;
    }
    assert_int_equal(total, 1000);
    assert_true(rounds > 1); /* the pages do not fit into one chunk */
    pd_index_close(index);
    world_free(w);
    pd_device_close(device);
}

static void search_fails(pd_index *index, const char *word)
{
    float zero[17] = {0};
    pd_hit hit;
    pd_error err;
    pd_query query = {.vector = zero, .similarity = 1, .nprobe = 1, .k = 1};
    pd_answer answer = {.hits = &hit};
    assert_int_equal(pd_index_search(index, &query, 1, &answer, NULL, &err), PD_FAILED_PRECONDITION);
    assert_non_null(strstr(err.message, word));
}

static void test_searching_waits_for_lists_and_windows(void **state)
{
    (void)state;
    for (size_t b = 0; b < 2; b++) {
        pd_device *device = open_device(backends[b], 64 * MIB);
        world *w = world_make(PD_L2, PD_CODE_I8, PD_REFINE_NONE, 17, WORLD_LISTS);
        pd_index *index = NULL;
        pd_index_spec spec = {.shape = w->shape, .npages = w->npages, .name = "a@1"};
        void *memory;
        uint32_t got;
        assert_int_equal(pd_index_open(device, &spec, &index, NULL), PD_OK);
        search_fails(index, "lists");
        pd_index_close(index);
        assert_int_equal(world_load(w, device, 0, &index, NULL), PD_OK);
        assert_int_equal(pd_index_window(index, PD_PAGES_MAIN, 0, 1, &memory, &got, NULL), PD_OK);
        search_fails(index, "window");
        pd_index_close(index);
        world_free(w);
        pd_device_close(device);
    }
}

static void test_impossible_lists_are_refused_and_the_old_ones_stay(void **state)
{
    (void)state;
    pd_device *device = open_device(TESTED, 64 * MIB);
    world *w = world_make(PD_L2, PD_CODE_I8, PD_REFINE_NONE, 17, WORLD_LISTS);
    pd_index *index = NULL;
    pd_error err;
    assert_int_equal(world_load(w, device, 0, &index, &err), PD_OK);
    pd_lists lists = {
        .centroids = w->centroids, .offsets = w->offsets, .pages = w->page_numbers, .rows = w->counts};
    uint32_t pages[64], kept = w->page_numbers[0];
    memcpy(pages, w->page_numbers, sizeof pages);
    lists.pages = pages;
    pages[0] = w->npages;
    assert_int_equal(pd_index_set_lists(index, &lists, &err), PD_INVALID_ARGUMENT);
    pages[0] = pages[1];
    assert_int_equal(pd_index_set_lists(index, &lists, &err), PD_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "lists 0 and 0"));
    pages[0] = kept;
    uint32_t offsets[WORLD_LISTS + 1];
    memcpy(offsets, w->offsets, sizeof offsets);
    lists.offsets = offsets;
    offsets[4] = 1000;
    assert_int_equal(pd_index_set_lists(index, &lists, &err), PD_INVALID_ARGUMENT);
    lists.offsets = w->offsets;
    lists.beta = NAN;
    assert_int_equal(pd_index_set_lists(index, &lists, &err), PD_INVALID_ARGUMENT);
    uint32_t r = 0;
    while (w->deleted[r])
        r++;
    uint64_t id;
    pd_rows rows = {.ids = &id};
    assert_int_equal(pd_index_gather(index, &w->slot[r], 1, &rows, &err), PD_OK);
    assert_int_equal(id, w->ids[r]);
    pd_index_close(index);
    world_free(w);
    pd_device_close(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_index_takes_what_is_said_and_gives_it_back),
        cmocka_unit_test(test_freed_chunks_serve_any_index),
        cmocka_unit_test(test_a_table_that_does_not_fit_is_refused_with_the_numbers),
        cmocka_unit_test(test_refine_rows_beside_codes_lie_in_the_hosts_memory_where_it_is_lent),
        cmocka_unit_test(test_a_table_that_does_not_fit_is_told_which_memory_it_wants),
        cmocka_unit_test(test_host_memory_that_the_machine_has_not_got_is_refused),
        cmocka_unit_test(test_a_slab_larger_than_the_machine_is_refused),
        cmocka_unit_test(test_without_a_slab_nothing_is_loaded),
        cmocka_unit_test(test_windows_come_one_at_a_time_and_within_the_pages),
        cmocka_unit_test(test_searching_waits_for_lists_and_windows),
        cmocka_unit_test(test_impossible_lists_are_refused_and_the_old_ones_stay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
