/* Candidate buffers against sorting everything. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "topk.h"
#include "world.h"

#define MOST 5000u

static int by_order(const void *a, const void *b)
{
    return pd_hit_before(a, b) ? -1 : pd_hit_before(b, a);
}

/* How a stream's scores are made: random, few different ones, rising, falling, all equal. */
enum { RANDOM, FEW, RISING, FALLING, EQUAL, KINDS };

static void make_stream(pd_hit *hits, uint32_t n, int kind)
{
    for (uint32_t i = 0; i < n; i++) {
        float score = world_normal();
        if (kind == FEW) score = (float)world_below(5);
        if (kind == RISING) score = (float)i;
        if (kind == FALLING) score = -(float)i;
        if (kind == EQUAL) score = 1.0f;
        hits[i] = (pd_hit){.id = (i * 2654435761u) % 1000003u, .score = score, .slot = i};
    }
}

static void test_the_best_are_kept_in_order_whatever_the_stream(void **state)
{
    (void)state;
    static pd_hit stream[MOST], sorted[MOST], room[MOST + MOST + 128];
    const uint32_t sizes[] = {0, 1, 5, 16, 17, 200, 1000, MOST};
    const uint32_t keeps[] = {1, 2, 10, 52, 300, 2032, MOST};
    for (int kind = 0; kind < KINDS; kind++) {
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            for (size_t k = 0; k < sizeof keeps / sizeof *keeps; k++) {
                uint32_t n = sizes[s], want = n < keeps[k] ? n : keeps[k];
                make_stream(stream, n, kind);
                memcpy(sorted, stream, n * sizeof *stream);
                qsort(sorted, n, sizeof *sorted, by_order);
                pd_topk topk;
                pd_topk_init(&topk, room, keeps[k], -INFINITY);
                for (uint32_t i = 0; i < n; i++)
                    pd_topk_push(&topk, stream[i].score, stream[i].id, stream[i].slot);
                pd_topk_sort(&topk);
                assert_int_equal(topk.count, want);
                for (uint32_t i = 0; i < want; i++)
                    assert_int_equal(topk.items[i].slot, sorted[i].slot);
            }
        }
    }
}

static void test_scores_under_the_least_or_not_numbers_are_not_taken(void **state)
{
    (void)state;
    pd_hit room[256];
    pd_topk topk;
    pd_topk_init(&topk, room, 10, 0.5f);
    pd_topk_push(&topk, 0.5f, 1, 1);
    pd_topk_push(&topk, 0.49f, 2, 2);
    pd_topk_push(&topk, NAN, 3, 3);
    pd_topk_push(&topk, INFINITY, 4, 4);
    pd_topk_sort(&topk);
    assert_int_equal(topk.count, 2);
    assert_int_equal(topk.items[0].id, 4);
    assert_int_equal(topk.items[1].id, 1);
    pd_topk_init(&topk, room, 10, -INFINITY);
    pd_topk_push(&topk, -INFINITY, 1, 1);
    pd_topk_push(&topk, NAN, 2, 2);
    assert_int_equal(topk.count, 0);
}

static void test_select_puts_the_best_first(void **state)
{
    (void)state;
    static pd_hit stream[MOST], sorted[MOST];
    for (int kind = 0; kind < KINDS; kind++) {
        for (uint32_t n = 1; n < MOST; n = n * 3 + 1) {
            make_stream(stream, MOST, kind);
            memcpy(sorted, stream, sizeof sorted);
            qsort(sorted, MOST, sizeof *sorted, by_order);
            pd_hits_select(stream, MOST, n);
            pd_hits_sort(stream, n);
            for (uint32_t i = 0; i < n; i++)
                assert_int_equal(stream[i].slot, sorted[i].slot);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_best_are_kept_in_order_whatever_the_stream),
        cmocka_unit_test(test_scores_under_the_least_or_not_numbers_are_not_taken),
        cmocka_unit_test(test_select_puts_the_best_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
