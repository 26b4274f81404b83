/* K-means: the same seed gives the same bits, centroids find the clusters, errors are said. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "train.h"

#define COUNT 4000
#define DIM   24
#define NLIST 32

static float sample[COUNT * DIM];

/* NLIST clusters around points far from one another. */
static int make_sample(void **state)
{
    (void)state;
    uint64_t seed = 1;
    for (int i = 0; i < COUNT * DIM; i++) {
        seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
        int cluster = i / DIM % NLIST, axis = i % DIM;
        sample[i] = (float)(seed >> 40) / 0x1p24f + (cluster >> (axis % 5) & 1 ? 10.0f : 0.0f);
    }
    return 0;
}

static void train(pd_train_options options, uint64_t count, float *centroids)
{
    pd_error err = {0};
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

static void test_threads_do_not_change_the_answer(void **state)
{
    (void)state;
    static float one[NLIST * DIM], two[NLIST * DIM];
    pd_train_options options = {.nlist = NLIST, .seed = 7, .threads = 1};
    train(options, COUNT, one);
    options.threads = 2;
    train(options, COUNT, two);
    assert_memory_equal(one, two, sizeof one);
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
    const uint64_t counts[] = {COUNT, NLIST}; /* with as many rows as centroids FAISS only copies */
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

static void test_training_says_nothing_on_stderr(void **state)
{
    (void)state;
    static float centroids[NLIST * DIM];
    int pipes[2], kept = dup(2);
    assert_true(kept >= 0 && pipe(pipes) == 0);
    assert_true(dup2(pipes[1], 2) == 2 && close(pipes[1]) == 0);
    train((pd_train_options){.nlist = NLIST}, NLIST + 1, centroids); /* far fewer than FAISS would like */
    assert_true(dup2(kept, 2) == 2 && close(kept) == 0);
    char said[256];
    assert_int_equal(read(pipes[0], said, sizeof said), 0);
    close(pipes[0]);
}

static void assert_refused(pd_train_options options, uint64_t count, pd_status status, const char *words)
{
    static float centroids[NLIST * DIM];
    pd_error err = {0};
    assert_int_equal(pd_train_centroids(&options, count, DIM, sample, centroids, &err), status);
    assert_non_null(strstr(err.message, words));
}

static void test_what_cannot_be_trained_is_refused(void **state)
{
    (void)state;
    assert_refused((pd_train_options){.nlist = NLIST}, NLIST - 1, PD_INVALID_ARGUMENT,
                   "32 centroids need at least");
    assert_refused((pd_train_options){.nlist = 0}, COUNT, PD_INVALID_ARGUMENT, "cannot train 0 centroids");
    float kept = sample[100];
    sample[100] = NAN;
    assert_refused((pd_train_options){.nlist = NLIST}, COUNT, PD_INTERNAL, "NaN");
    sample[100] = kept;
}

static int enough(void *context)
{
    int *asked = context;
    return ++*asked >= 3;
}

static void test_training_ends_when_it_is_told_to(void **state)
{
    (void)state;
    static float centroids[NLIST * DIM];
    int asked = 0;
    /* A thousand iterations would ask a thousand times at least. */
    pd_train_options options = {.nlist = NLIST, .iterations = 1000, .stop = enough, .context = &asked};
    assert_refused(options, COUNT, PD_CANCELLED, "stopped");
    assert_true(asked >= 3 && asked < 10);
    int before = asked;
    train((pd_train_options){.nlist = NLIST}, COUNT, centroids); /* the next one is not concerned */
    assert_int_equal(asked, before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_seed_gives_one_answer_to_the_bit),
        cmocka_unit_test(test_threads_do_not_change_the_answer),
        cmocka_unit_test(test_rows_are_near_a_centroid),
        cmocka_unit_test(test_spherical_centroids_have_length_one),
        cmocka_unit_test(test_training_says_nothing_on_stderr),
        cmocka_unit_test(test_what_cannot_be_trained_is_refused),
        cmocka_unit_test(test_training_ends_when_it_is_told_to),
    };
    return cmocka_run_group_tests(tests, make_sample, NULL);
}
