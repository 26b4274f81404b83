/* K-means: the same seed gives the same bits, centroids find the clusters, errors are said. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "train.h"

#define COUNT 4000
#define DIM   24
#define NLIST 32

static float sample[COUNT * DIM];
static pd_device *device;
static pd_pool *pool;

static void open_threads(uint32_t threads, const char *isa)
{
    pd_error err = {0};
    pd_device_options options = {.threads = threads, .isa = isa};
    if (pd_device_open("cpu", &options, &device, &err) || pd_pool_open(threads, 0, &pool, &err))
        fail_msg("%s", err.message);
}

static void close_threads(void)
{
    pd_device_close(device);
    pd_pool_close(pool);
}

/* NLIST clusters around points far from one another. */
static int make_sample(void **state)
{
    (void)state;
    open_threads(2, NULL);
    uint64_t seed = 1;
    for (int i = 0; i < COUNT * DIM; i++) {
        seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
        int cluster = i / DIM % NLIST, axis = i % DIM;
        sample[i] = (float)(seed >> 40) / 0x1p24f + (cluster >> (axis % 5) & 1 ? 10.0f : 0.0f);
    }
    return 0;
}

static int drop(void **state)
{
    (void)state;
    close_threads();
    return 0;
}

static void train(pd_train_options options, uint64_t count, float *centroids)
{
    pd_error err = {0};
    options.device = device;
    options.pool = pool;
    if (pd_train_centroids(&options, count, DIM, sample, centroids, &err)) fail_msg("%s", err.message);
}

static void test_one_seed_gives_one_answer_to_the_bit(void **state)
{
    (void)state;
    static float first[NLIST * DIM], again[NLIST * DIM];
    for (int spherical = 0; spherical <= 1; spherical++) {
        pd_train_options options = {.nlist = NLIST, .seed = 42, .spherical = spherical};
        train(options, COUNT, first);
        train(options, COUNT, again);
        assert_memory_equal(first, again, sizeof first);
        options.seed = 42 + (UINT64_C(1) << 40);
        train(options, COUNT, again);
        assert_memory_not_equal(first, again, sizeof first);
    }
}

static void test_threads_and_instructions_do_not_change_the_answer(void **state)
{
    (void)state;
    static const char *const isas[] = {NULL, "avx2", "portable"};
    static float one[NLIST * DIM], other[NLIST * DIM];
    for (int spherical = 0; spherical <= 1; spherical++) {
        pd_train_options options = {.nlist = NLIST, .seed = 7, .spherical = spherical};
        train(options, COUNT, one);
        for (size_t isa = 0; isa < 3; isa++) {
            pd_device *trial = NULL;
            pd_device_options asked = {.threads = 1, .isa = isas[isa]};
            if (pd_device_open("cpu", &asked, &trial, NULL)) continue; /* not on this machine */
            pd_device_close(trial);
            for (uint32_t threads = 1; threads <= 3; threads += 2) {
                close_threads();
                open_threads(threads, isas[isa]);
                train(options, COUNT, other);
                assert_memory_equal(one, other, sizeof one);
            }
        }
        close_threads();
        open_threads(2, NULL);
    }
}

static void test_rows_are_near_a_centroid(void **state)
{
    (void)state;
    static float centroids[NLIST * DIM];
    pd_train_options options = {.nlist = NLIST, .seed = 3, .iterations = 20};
    train(options, COUNT, centroids);
    double sum = 0;
    for (int i = 0; i < COUNT; i++) {
        double best = INFINITY;
        for (int c = 0; c < NLIST; c++) {
            double distance = 0;
            for (int j = 0; j < DIM; j++) {
                double step = (double)sample[i * DIM + j] - (double)centroids[c * DIM + j];
                distance += step * step;
            }
            best = distance < best ? distance : best;
        }
        sum += best;
    }
    /* One centroid for all would leave 24 * 25, the noise alone is 24 / 12; a few clusters share one, by chance. */
    assert_true(sum / COUNT < 100);
}

static void test_spherical_centroids_have_length_one(void **state)
{
    (void)state;
    static float centroids[NLIST * DIM];
    const uint64_t counts[] = {COUNT, NLIST}; /* as many rows as centroids: each is one */
    for (int i = 0; i < 2; i++) {
        train((pd_train_options){.nlist = NLIST, .spherical = 1}, counts[i], centroids);
        for (int c = 0; c < NLIST; c++) {
            double sum = 0;
            for (int j = 0; j < DIM; j++)
                sum += (double)centroids[c * DIM + j] * (double)centroids[c * DIM + j];
            assert_true(fabs(sum - 1) < 1e-5);
        }
    }
}

static void test_equal_rows_leave_no_centroid_undefined(void **state)
{
    (void)state;
    static float rows[64 * DIM], centroids[NLIST * DIM];
    for (int i = 0; i < 64 * DIM; i++)
        rows[i] = i < 32 * DIM ? 1.0f : 2.0f;
    pd_error err = {0};
    pd_train_options options = {.nlist = NLIST, .device = device, .pool = pool};
    if (pd_train_centroids(&options, 64, DIM, rows, centroids, &err)) fail_msg("%s", err.message);
    for (int i = 0; i < NLIST * DIM; i++)
        assert_true(centroids[i] > 0.99f && centroids[i] < 2.01f);
}

static void assert_refused(pd_train_options options, uint64_t count, pd_status status, const char *words)
{
    static float centroids[NLIST * DIM];
    pd_error err = {0};
    options.device = device;
    options.pool = pool;
    assert_int_equal(pd_train_centroids(&options, count, DIM, sample, centroids, &err), status);
    assert_non_null(strstr(err.message, words));
}

static void test_what_cannot_be_trained_is_refused(void **state)
{
    (void)state;
    assert_refused((pd_train_options){.nlist = NLIST}, NLIST - 1, PD_INVALID_ARGUMENT,
                   "32 centroids need at least");
    assert_refused((pd_train_options){.nlist = 0}, COUNT, PD_INVALID_ARGUMENT, "cannot train 0 centroids");
}

typedef struct told {
    int times, stop_after;
    uint64_t last, total;
} told;

static int tell(void *context, uint64_t done, uint64_t total)
{
    told *t = context;
    assert_true(done >= t->last && done <= total && total > 0);
    assert_true(t->times == 0 || total == t->total);
    t->last = done;
    t->total = total;
    return ++t->times == t->stop_after;
}

static void test_training_says_how_far_it_is_and_ends_when_it_is_told_to(void **state)
{
    (void)state;
    static float centroids[NLIST * DIM];
    told whole = {.times = 0};
    pd_train_options options = {.nlist = NLIST, .iterations = 4, .progress = tell, .context = &whole};
    train(options, COUNT, centroids);
    assert_int_equal(whole.total, 4 * COUNT);
    assert_true(whole.times >= 4 && whole.last > 0);
    /* A thousand iterations would tell a thousand times at least. */
    told half = {.stop_after = 3};
    options.iterations = 1000;
    options.context = &half;
    assert_refused(options, COUNT, PD_CANCELLED, "stopped");
    assert_int_equal(half.times, 3);
    assert_true(half.last < half.total);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_seed_gives_one_answer_to_the_bit),
        cmocka_unit_test(test_threads_and_instructions_do_not_change_the_answer),
        cmocka_unit_test(test_rows_are_near_a_centroid),
        cmocka_unit_test(test_spherical_centroids_have_length_one),
        cmocka_unit_test(test_equal_rows_leave_no_centroid_undefined),
        cmocka_unit_test(test_what_cannot_be_trained_is_refused),
        cmocka_unit_test(test_training_says_how_far_it_is_and_ends_when_it_is_told_to),
    };
    return cmocka_run_group_tests(tests, make_sample, drop);
}
