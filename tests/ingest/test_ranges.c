/* Rows in the order of a number: a range brings every row in it, and few others. */
#include <math.h>

#include "ranges.h"
#include "store_files.h"

enum { N = 5000 };

static float value_of(uint32_t kind, uint32_t i, uint64_t *state)
{
    static const float odd[] = {-0.0f, 0.0f, INFINITY, -INFINITY, 1e-42f, -1e-42f, 3.4e38f};
    switch (kind) {
    case 0:
        return i % 9 ? 100.0f * pd_random_normal(state) : NAN;
    case 1:
        return (float)pd_random_below(state, 4); /* many equal ones */
    case 2:
        return odd[i % 7];
    default:
        return NAN;
    }
}

static void check_range(const pd_ranges *ranges, const float *values, float low, float high)
{
    static uint8_t there[N];
    const uint32_t *slots;
    uint64_t count, in = 0;
    memset(there, 0, sizeof there);
    pd_ranges_get(ranges, low, high, &slots, &count);
    for (uint64_t i = 0; i < count; i++) {
        assert_true(slots[i] < N && !there[slots[i]] && !isnan(values[slots[i]]));
        assert_true(i == 0 || values[slots[i]] >= values[slots[i - 1]]);
        there[slots[i]] = 1;
    }
    for (uint32_t i = 0; i < N; i++) {
        int inside = values[i] >= low && values[i] <= high;
        in += (uint64_t)inside;
        if (inside) assert_true(there[i]);
    }
    assert_true(count < in + 2 * PD_FENCE);
}

static void test_a_range_brings_all_its_rows_and_few_others(void **state)
{
    (void)state;
    for (uint32_t kind = 0; kind < 4; kind++) {
        pd_ranges ranges;
        pd_error err;
        uint64_t random = 3;
        float values[N];
        ok(pd_ranges_open(&ranges, N, &err), &err);
        for (uint32_t i = 0; i < N; i++)
            ranges.values[i] = values[i] = value_of(kind, i, &random);
        ok(pd_ranges_finish(&ranges, &err), &err);
        for (int i = 0; i < 200; i++) {
            float low = 100.0f * pd_random_normal(&random), high = low + 50.0f * pd_random_normal(&random);
            check_range(&ranges, values, low, high);
        }
        check_range(&ranges, values, -INFINITY, INFINITY);
        check_range(&ranges, values, 0.0f, 0.0f);
        check_range(&ranges, values, -0.0f, -0.0f);
        check_range(&ranges, values, 2.0f, 2.0f);
        check_range(&ranges, values, 1e30f, INFINITY);
        check_range(&ranges, values, -INFINITY, -1e30f);
        const uint32_t *slots;
        uint64_t count = 1;
        pd_ranges_get(&ranges, 5, 4, &slots, &count);
        assert_int_equal(count, 0);
        assert_true(pd_ranges_memory(&ranges) < ranges.count * 5 + 64);
        pd_ranges_close(&ranges);
    }
}

static void test_no_rows_have_no_range(void **state)
{
    (void)state;
    pd_ranges ranges;
    pd_error err;
    const uint32_t *slots;
    uint64_t count = 1;
    ok(pd_ranges_open(&ranges, 0, &err), &err);
    ok(pd_ranges_finish(&ranges, &err), &err);
    pd_ranges_get(&ranges, -INFINITY, INFINITY, &slots, &count);
    assert_int_equal(count, 0);
    pd_ranges_close(&ranges);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_range_brings_all_its_rows_and_few_others),
        cmocka_unit_test(test_no_rows_have_no_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
