/* What a device that fails gets: for every call of the CUDA runtime that the backend makes, that call fails. Memory that is not there
 * is RESOURCE_EXHAUSTED, and the device goes on; any other error loses the device, by name, and for every slot after it. Whatever
 * happened, closing gives everything back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#define NQUERIES 8u
#include "pull.h"
#include "queries.h"

#define SLAB ((uint64_t)8 << 20)

static world *small;
static query_set *asked;
static answer_set *truth;

/* Everything that a process does with a device, up to the first failure. */
typedef struct life {
    pd_device *device;
    pd_index *index;
    answer_set *answers;
    uint64_t host; /* bytes of the host's memory for refine rows */
    pd_error err;
} life;

static pd_status search(life *l)
{
    pd_timing timing;
    return pd_index_search(l->index, asked->queries, NQUERIES, l->answers->answers, &timing, &l->err);
}

static pd_status gather(life *l)
{
    uint64_t ids[2];
    float vectors[2 * 17];
    pd_rows rows = {.ids = ids, .vectors = vectors};
    uint32_t r = 0;
    while (small->deleted[r])
        r++;
    return pd_index_gather(l->index, &small->slot[r], 1, &rows, &l->err);
}

/* A page is read and written back, and the lists set once more. */
static pd_status rewrite(life *l)
{
    void *page;
    uint32_t got;
    pd_status status = pd_index_window(l->index, PD_PAGES_MAIN, 5, 1, &page, &got, &l->err);
    return status == PD_OK ? pd_index_commit(l->index, &l->err) : status;
}

/* A page joins a list; two rows are written into it, one of them over and one away; it is read back. */
static pd_status change(life *l)
{
    uint32_t page = 0, list = 3, slots[2];
    unsigned char *pages = aligned_alloc(64, small->layout.page_bytes),
                  *refine = calloc(1, small->layout.refine_bytes + 1);
    const uint8_t values[2] = {1, 2};
    const pd_column_write column = {PD_COLUMN_BYTE, 0, values};
    for (uint32_t i = 0; i < small->offsets[small->nlist]; i++)
        if (small->page_numbers[i] == page) page++, i = UINT32_MAX;
    memcpy(pages, small->pages + small->page_numbers[0] * small->layout.page_bytes, small->layout.page_bytes);
    slots[0] = page * PD_PAGE_ROWS + 3;
    slots[1] = page * PD_PAGE_ROWS + 30;
    pd_row_writes writes = {.n = 2, .slots = slots, .pages = pages, .refine = refine};
    pd_status status = pd_index_grow(l->index, &list, &page, 1, &l->err);
    if (status == PD_OK) status = pd_index_write_rows(l->index, &writes, &l->err);
    if (status == PD_OK) status = pd_index_write_columns(l->index, slots, 2, &column, 1, &l->err);
    if (status == PD_OK) status = pd_index_empty_rows(l->index, slots, 1, &l->err);
    if (status == PD_OK) status = pd_index_read_pages(l->index, PD_PAGES_MAIN, page, 1, pages, &l->err);
    if (status == PD_OK) status = pd_index_empty_rows(l->index, slots, 2, &l->err);
    free(pages);
    free(refine);
    return status;
}

/* Rows find their lists, twice from the same centroids and once from others. */
static pd_status assign(life *l)
{
    uint32_t lists[40];
    pd_status status = PD_OK;
    for (uint32_t i = 0; status == PD_OK && i < 3; i++)
        status = pd_device_assign(l->device, i < 2 ? small->centroids : small->rows, small->nlist, 17,
                                  small->rows, 40, lists, &l->err);
    for (uint32_t i = 0; status == PD_OK && i < small->nlist; i++)
        assert_true(memcmp(small->rows + lists[i] * 17, small->rows + i * 17, 17 * sizeof(float)) == 0);
    return status;
}

static pd_status live(life *l)
{
    pd_device_options options = {.memory = SLAB, .host_memory = l->host, .isa = "row"};
    pd_status status = pd_device_open("cuda", &options, &l->device, &l->err);
    if (status == PD_OK) status = world_load(small, l->device, 1.0f, &l->index, &l->err);
    if (status == PD_OK) status = gather(l);
    if (status == PD_OK) status = rewrite(l);
    if (status == PD_OK) status = change(l);
    if (status == PD_OK) status = assign(l);
    if (status == PD_OK) status = search(l);
    return status;
}

static void end(life *l)
{
    pd_index_close(l->index);
    pd_device_close(l->device);
    l->index = NULL;
    l->device = NULL;
    assert_int_equal(pd_simt_live(), 0);
}

static int same_hits(const answer_set *a, const answer_set *b)
{
    int same = 1;
    for (uint32_t q = 0; q < NQUERIES; q++) {
        same &= a->answers[q].count == b->answers[q].count;
        for (uint32_t i = 0; same && i < a->answers[q].count; i++)
            same = memcmp(&a->answers[q].hits[i], &b->answers[q].hits[i], sizeof(pd_hit)) == 0;
    }
    return same;
}

/* One life for every call, in which just that call fails. */
static void fail_each(int error, int sticky, uint64_t host, void (*after)(life *, pd_status))
{
    life l = {.answers = truth, .host = host};
    pd_simt_fail_at(0, 0, 0);
    assert_int_equal(live(&l), PD_OK);
    uint64_t calls = pd_simt_calls();
    end(&l);
    assert_true(calls > 50);
    for (uint64_t nth = 1; nth <= calls; nth++) {
        l = (life){.answers = answers_make(), .host = host};
        pd_simt_fail_at(nth, error, sticky);
        pd_status status = live(&l);
        after(&l, status);
        pd_simt_fail_at(0, 0, 0);
        answers_free(l.answers);
        l.answers = NULL;
        end(&l);
        pd_simt_recover();
    }
}

/* What failed for want of memory can be asked again. */
static void device_goes_on(life *l, pd_status status)
{
    /* Counting devices is not an allocation: whatever is wrong there, no device answers. Scratch memory that is not there in the
     * wished size is asked for once more in the size that is needed. */
    if (status == PD_UNAVAILABLE && !l->device) return;
    if (status == PD_OK) {
        assert_true(same_hits(l->answers, truth));
        return;
    }
    if (status != PD_RESOURCE_EXHAUSTED) fail_msg("%s: %s", pd_status_name(status), l->err.message);
    assert_non_null(strstr(l->err.message, "cudaErrorMemoryAllocation"));
    pd_simt_fail_at(0, 0, 0);
    if (!l->device) return;
    pd_index_close(l->index);
    l->index = NULL;
    if (world_load(small, l->device, 1.0f, &l->index, &l->err) != PD_OK || gather(l) != PD_OK ||
        search(l) != PD_OK)
        fail_msg("afterwards: %s", l->err.message);
    assert_true(same_hits(l->answers, truth));
}

static void test_memory_that_is_not_there_is_said_and_the_device_goes_on(void **state)
{
    (void)state;
    fail_each(PD_SIMT_NO_MEMORY, 0, 0, device_goes_on);
}

/* The slab in the host's memory is the one allocation whose failure shows what the host has. */
static void test_pinned_memory_that_is_not_there_is_said_with_what_the_host_has(void **state)
{
    (void)state;
    uint32_t said = 0;
    for (uint64_t nth = 1;; nth++) {
        pd_device_options options = {.memory = SLAB, .host_memory = SLAB, .isa = "row"};
        pd_device *device = NULL;
        pd_error err = {0};
        pd_simt_fail_at(nth, PD_SIMT_NO_MEMORY, 0);
        pd_status status = pd_device_open("cuda", &options, &device, &err);
        uint64_t calls = pd_simt_calls();
        pd_simt_fail_at(0, 0, 0);
        pd_device_close(device);
        assert_int_equal(pd_simt_live(), 0);
        pd_simt_recover();
        if (calls < nth) break; /* all of its calls have failed once */
        if (status == PD_OK || !strstr(err.message, "pinning 8.0 MiB of host memory")) continue;
        assert_int_equal(status, PD_RESOURCE_EXHAUSTED);
        assert_non_null(strstr(err.message, "cudaErrorMemoryAllocation, this machine has"));
        said++;
    }
    assert_int_equal(said, 1);
}

static void test_a_device_that_holds_refine_rows_in_the_hosts_memory_goes_on_as_well(void **state)
{
    (void)state;
    fail_each(PD_SIMT_NO_MEMORY, 0, SLAB, device_goes_on);
}

static void device_is_lost(life *l, pd_status status)
{
    if (status != PD_UNAVAILABLE) /* PD_OK: a call failed, and nobody said so */
        fail_msg("%s: %s", pd_status_name(status), l->err.message);
    assert_non_null(strstr(l->err.message, "cudaErrorIllegalAddress"));
    if (!l->device) return;
    /* Nothing but close may follow, and everything else says why. */
    pd_index_spec spec = {.shape = small->shape, .npages = 1, .name = "another@1"};
    pd_index *another = NULL;
    assert_int_equal(pd_index_open(l->device, &spec, &another, &l->err), PD_UNAVAILABLE);
    assert_non_null(strstr(l->err.message, "cudaErrorIllegalAddress"));
    if (!l->index) return;
    assert_int_equal(search(l), PD_UNAVAILABLE);
    assert_int_equal(gather(l), PD_UNAVAILABLE);
}

static void test_a_device_that_is_lost_says_so_by_name_from_every_slot(void **state)
{
    (void)state;
    fail_each(PD_SIMT_ILLEGAL_ADDRESS, 1, SLAB, device_is_lost);
}

/* The runtime's error went away, but what the device holds cannot be trusted any more. */
static void test_an_error_that_shows_once_loses_the_device_as_well(void **state)
{
    (void)state;
    fail_each(PD_SIMT_ILLEGAL_ADDRESS, 0, 0, device_is_lost);
}

static void test_without_a_device_the_cpu_serves_and_cuda_says_why(void **state)
{
    (void)state;
    static const struct {
        int count, major;
        const char *says;
    } machines[] = {{0, 0, "cudaErrorNoDevice"}, {1, 7, "compute capability 7.5"}};
    for (size_t i = 0; i < 2; i++) {
        pd_device *device = NULL;
        const pd_backend *found;
        pd_device_info info;
        pd_error err;
        pd_device_options options = {.threads = 1};
        pd_simt_devices(machines[i].count, machines[i].major, 5);
        assert_int_equal(pd_backend_find("cuda", &found, &err), PD_UNAVAILABLE);
        assert_non_null(strstr(err.message, machines[i].says));
        assert_int_equal(pd_device_open("cuda", &options, &device, &err), PD_UNAVAILABLE);
        assert_int_equal(pd_device_open("auto", &options, &device, &err), PD_OK);
        pd_device_info_of(device, &info);
        assert_string_equal(info.backend, "cpu");
        pd_device_close(device);
        pd_simt_devices(1, 9, 0);
        pd_simt_recover();
        assert_int_equal(pd_device_open("auto", NULL, &device, &err), PD_OK);
        pd_device_info_of(device, &info);
        assert_string_equal(info.backend, "cuda");
        assert_string_equal(info.isa, "sm_90");
        pd_device_close(device);
        assert_int_equal(pd_simt_live(), 0);
    }
}

static void test_a_slab_larger_than_the_device_is_refused_with_figures(void **state)
{
    (void)state;
    pd_device_options options = {.memory = (uint64_t)2 << 30};
    pd_device *device = NULL;
    pd_error err;
    assert_int_equal(pd_device_open("cuda", &options, &device, &err), PD_RESOURCE_EXHAUSTED);
    assert_non_null(strstr(err.message, "a slab of 2.0 GiB is asked for"));
    assert_non_null(strstr(err.message, "of 1.0 GiB available"));
    assert_int_equal(pd_simt_live(), 0);
}

static int up(void **state)
{
    (void)state;
    small = world_make(PD_L2, PD_CODE_I8, PD_REFINE_F16, 17, WORLD_LISTS);
    if (!small) return -1;
    asked = queries_make(small);
    truth = answers_make();
    return asked && truth ? 0 : -1;
}

static int down(void **state)
{
    (void)state;
    answers_free(truth);
    queries_free(asked);
    world_free(small);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_that_is_not_there_is_said_and_the_device_goes_on),
        cmocka_unit_test(test_a_device_that_holds_refine_rows_in_the_hosts_memory_goes_on_as_well),
        cmocka_unit_test(test_pinned_memory_that_is_not_there_is_said_with_what_the_host_has),
        cmocka_unit_test(test_a_device_that_is_lost_says_so_by_name_from_every_slot),
        cmocka_unit_test(test_an_error_that_shows_once_loses_the_device_as_well),
        cmocka_unit_test(test_without_a_device_the_cpu_serves_and_cuda_says_why),
        cmocka_unit_test(test_a_slab_larger_than_the_device_is_refused_with_figures),
    };
    return cmocka_run_group_tests(tests, up, down);
}
