/* Half floats against arithmetic: every half, and every boundary between two of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <math.h>

#include "f16.h"

static double meaning(uint32_t half)
{
    double sign = half & 0x8000u ? -1.0 : 1.0;
    uint32_t exponent = half >> 10 & 0x1fu, mantissa = half & 0x3ffu;
    if (exponent == 31) return mantissa ? NAN : sign * INFINITY;
    if (exponent == 0) return sign * ldexp(mantissa, -24);
    return sign * ldexp(1024 + mantissa, (int)exponent - 25);
}

static void test_every_half_means_what_its_bits_say(void **state)
{
    (void)state;
    for (uint32_t half = 0; half < 0x10000; half++) {
        double want = meaning(half), got = (double)pd_f16_to_f32((pd_f16)half);
        if (isnan(want)) {
            assert_true(isnan(got));
        } else {
            assert_true(want == got && signbit(want) == signbit(got));
        }
    }
}

static void test_every_half_survives_the_round_trip(void **state)
{
    (void)state;
    for (uint32_t half = 0; half < 0x10000; half++) {
        if (isnan(meaning(half))) continue;
        assert_int_equal(pd_f32_to_f16(pd_f16_to_f32((pd_f16)half)), half);
    }
}

static void test_between_two_halves_the_nearer_wins_and_the_even_one_on_a_tie(void **state)
{
    (void)state;
    for (uint32_t half = 0; half < 0x7bff; half++) {
        float low = (float)meaning(half), high = (float)meaning(half + 1);
        float mid = low + (high - low) / 2;
        assert_int_equal(pd_f32_to_f16(mid), half % 2 ? half + 1 : half);
        assert_int_equal(pd_f32_to_f16(nextafterf(mid, -INFINITY)), half);
        assert_int_equal(pd_f32_to_f16(nextafterf(mid, INFINITY)), half + 1);
        assert_int_equal(pd_f32_to_f16(-mid), 0x8000u | (half % 2 ? half + 1 : half));
    }
}

static void test_what_is_too_large_becomes_infinite_and_a_nan_stays_one(void **state)
{
    (void)state;
    assert_int_equal(pd_f32_to_f16(65504.0f), 0x7bff);
    assert_int_equal(pd_f32_to_f16(65519.996f), 0x7bff);
    assert_int_equal(pd_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(pd_f32_to_f16(-1e30f), 0xfc00);
    assert_int_equal(pd_f32_to_f16(INFINITY), 0x7c00);
    assert_true(isnan(pd_f16_to_f32(pd_f32_to_f16(NAN))));
    assert_int_equal(pd_f32_to_f16(1e-30f), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_half_means_what_its_bits_say),
        cmocka_unit_test(test_every_half_survives_the_round_trip),
        cmocka_unit_test(test_between_two_halves_the_nearer_wins_and_the_even_one_on_a_tie),
        cmocka_unit_test(test_what_is_too_large_becomes_infinite_and_a_nan_stays_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
