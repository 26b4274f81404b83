/* The written score's building blocks against what score.h says in words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "world.h"

/* score.h, word by word: sixteen lanes, then halves. volatile keeps every rounding where it is written. */
static float written(const float *a, const float *b, uint32_t dim, int l2)
{
    volatile float lane[PD_LANES] = {0};
    for (uint32_t d = 0; d < dim; d++) {
        volatile float gap = a[d] - b[d];
        volatile float product = l2 ? gap * gap : a[d] * b[d];
        lane[d % PD_LANES] = lane[d % PD_LANES] + product;
    }
    for (uint32_t half = 8; half >= 1; half /= 2)
        for (uint32_t j = 0; j < half; j++)
            lane[j] = lane[j] + lane[j + half];
    return lane[0];
}

static void test_dot_and_l2_are_the_written_sums_to_the_bit(void **state)
{
    (void)state;
    for (uint32_t dim = 1; dim <= 130; dim++) {
        float a[130], b[130];
        double dot = 0, l2 = 0;
        for (uint32_t d = 0; d < dim; d++) {
            a[d] = world_normal();
            b[d] = world_normal();
            dot += (double)a[d] * (double)b[d];
            l2 += ((double)a[d] - (double)b[d]) * ((double)a[d] - (double)b[d]);
        }
        assert_true(pd_dot(a, b, dim) == written(a, b, dim, 0));
        assert_true(pd_l2(a, b, dim) == written(a, b, dim, 1));
        assert_true(fabs((double)pd_dot(a, b, dim) - dot) < 1e-4);
        assert_true(fabs((double)pd_l2(a, b, dim) - l2) < 1e-4);
    }
}

static void test_normalising_gives_length_one_or_refuses(void **state)
{
    (void)state;
    float v[100];
    for (uint32_t d = 0; d < 100; d++)
        v[d] = world_normal() * 1e10f;
    assert_int_equal(pd_normalise(v, 100), 1);
    assert_true(fabsf(pd_dot(v, v, 100) - 1.0f) < 1e-6f);
    float zero[3] = {0, 0, 0}, nan[3] = {1, NAN, 2}, infinite[3] = {1, INFINITY, 2}, tiny[2] = {1e-30f, 0};
    assert_int_equal(pd_normalise(zero, 3), 0);
    assert_int_equal(pd_normalise(nan, 3), 0);
    assert_int_equal(pd_normalise(infinite, 3), 0);
    assert_true(infinite[0] == 1 && infinite[2] == 2);
    assert_int_equal(pd_normalise(tiny, 2), 1);
    assert_true(tiny[0] == 1.0f);
}

static void test_a_quantised_query_is_rounded_to_the_nearest_step(void **state)
{
    (void)state;
    for (uint32_t dim = 1; dim < 70; dim++) {
        float q[70];
        int8_t codes[72];
        for (uint32_t d = 0; d < dim; d++)
            q[d] = world_normal();
        uint32_t dim4 = (dim + 3) / 4 * 4;
        memset(codes, 99, sizeof codes);
        float qs = pd_quantise_query(q, dim, dim4, codes);
        int largest = 0;
        for (uint32_t d = 0; d < dim; d++) {
            assert_int_equal(codes[d], (int)rintf(q[d] / qs));
            largest = abs(codes[d]) > largest ? abs(codes[d]) : largest;
        }
        assert_int_equal(largest, 127);
        for (uint32_t d = dim; d < dim4; d++)
            assert_int_equal(codes[d], 0);
    }
    /* Ties go to the even code: 254 / 127 is a step of 2. */
    float ties[4] = {254.0f, 1.0f, 3.0f, -5.0f};
    int8_t codes[4];
    assert_true(pd_quantise_query(ties, 4, 4, codes) == 2.0f);
    assert_int_equal(codes[1], 0);
    assert_int_equal(codes[2], 2);
    assert_int_equal(codes[3], -2);
}

static void test_queries_of_zeros_and_of_almost_nothing_have_codes_in_range(void **state)
{
    (void)state;
    float zero[4] = {0, 0, 0, 0}, tiny[4] = {1e-44f, -1e-44f, 3e-45f, 0};
    int8_t codes[4];
    assert_true(pd_quantise_query(zero, 4, 4, codes) == 0.0f);
    for (int d = 0; d < 4; d++)
        assert_int_equal(codes[d], 0);
    pd_quantise_query(tiny, 4, 4, codes);
    for (int d = 0; d < 4; d++)
        assert_true(codes[d] >= -127);
}

static void test_exp_and_log_are_accurate(void **state)
{
    (void)state;
    for (int i = -59999; i < 60000; i++) {
        float x = (float)i * 1e-3f;
        double want = exp((double)x);
        assert_true(fabs((double)pd_exp(x) - want) <= 2e-6 * want);
    }
    assert_true(pd_exp(1e9f) == pd_exp(60.0f) && pd_exp(-1e9f) == pd_exp(-60.0f));
    assert_true(pd_exp(0.0f) == 1.0f);
    for (int exponent = -148; exponent < 128; exponent++) {
        for (int i = 0; i < 100; i++) {
            float x = ldexpf(1.0f + 0.01f * (float)i, exponent);
            double want = log((double)x);
            assert_true(fabs((double)pd_log(x) - want) <= 1e-6 * fabs(want) + 1e-7);
        }
    }
    assert_true(pd_log(1.0f) == 0.0f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dot_and_l2_are_the_written_sums_to_the_bit),
        cmocka_unit_test(test_normalising_gives_length_one_or_refuses),
        cmocka_unit_test(test_a_quantised_query_is_rounded_to_the_nearest_step),
        cmocka_unit_test(test_queries_of_zeros_and_of_almost_nothing_have_codes_in_range),
        cmocka_unit_test(test_exp_and_log_are_accurate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
