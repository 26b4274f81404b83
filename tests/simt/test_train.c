/* Training on the device gives the centroids that ingest trains with the cpu backend, bit for bit: plain rows, more lists than there are
 * different rows, pieces of the sample that are not whole. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "train.h"

#define DIM   19u
#define ROWS  260u
#define LISTS 30u

static float sample[ROWS * DIM];

static void make_sample(uint32_t kinds)
{
    uint64_t state = 88172645463325252ull;
    for (uint32_t i = 0; i < ROWS * DIM; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        sample[i] = (float)(state >> 40) * 0x1p-24f - 0.5f + (float)(i / DIM % 7);
        if (kinds && i / DIM >= kinds) sample[i] = sample[i - kinds * DIM];
    }
}

static void check(uint64_t rows, uint32_t nlist, uint64_t seed, int spherical)
{
    static float want[LISTS * DIM], got[LISTS * DIM];
    pd_device_options options = {.threads = 2};
    pd_device *cpu = NULL, *cuda = NULL;
    pd_error err = {0};
    pd_pool *pool = NULL;
    assert_int_equal(pd_device_open("cpu", &options, &cpu, &err), PD_OK);
    assert_int_equal(pd_device_open("cuda", &options, &cuda, &err), PD_OK);
    assert_int_equal(pd_pool_open(2, 0, &pool, &err), PD_OK);
    pd_train_options train = {
        .nlist = nlist, .seed = seed, .spherical = spherical, .device = cpu, .pool = pool};
    if (pd_train_centroids(&train, rows, DIM, sample, want, &err) != PD_OK) fail_msg("%s", err.message);
    if (cuda->backend->train(cuda, sample, rows, DIM, nlist, seed, spherical, got, &err) != PD_OK)
        fail_msg("%s", err.message);
    assert_memory_equal(want, got, (size_t)nlist * DIM * sizeof *want);
    pd_pool_close(pool);
    pd_device_close(cpu);
    pd_device_close(cuda);
}

static void test_centroids_are_those_of_the_host(void **state)
{
    (void)state;
    make_sample(0);
    check(ROWS, LISTS, 1, 0);
    check(ROWS - 11, 7, 2, 1);
    check(33, 1, 3, 0);
}

static void test_lists_that_stay_empty_take_half_of_another(void **state)
{
    (void)state;
    make_sample(17);
    check(ROWS, LISTS, 4, 1);
    check(LISTS, LISTS, 5, 0);
}

static void test_more_lists_than_rows_are_refused(void **state)
{
    (void)state;
    pd_device_options options = {0};
    pd_device *cuda = NULL;
    pd_error err = {0};
    float centroids[2 * DIM];
    assert_int_equal(pd_device_open("cuda", &options, &cuda, &err), PD_OK);
    assert_int_equal(cuda->backend->train(cuda, sample, 1, DIM, 2, 1, 0, centroids, &err),
                     PD_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "2 centroids"));
    pd_device_close(cuda);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_centroids_are_those_of_the_host),
        cmocka_unit_test(test_lists_that_stay_empty_take_half_of_another),
        cmocka_unit_test(test_more_lists_than_rows_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
