/* Assignment: bounds from codes never lose the centroid that is nearest by pd_l2, whatever the data. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "score.h"
#include "world.h"

static const char *const isas[] = {"portable", "avx2", "avx512", "amx"};

/* The least pd_l2, ties to the smaller list. */
static void by_hand(const float *centroids, uint32_t nlist, uint32_t dim, const float *rows, uint32_t n,
                    uint32_t *lists)
{
    for (uint32_t r = 0; r < n; r++) {
        float least = INFINITY;
        for (uint32_t l = 0; l < nlist; l++) {
            float gap = pd_l2(rows + (size_t)r * dim, centroids + (size_t)l * dim, dim);
            if (gap >= least) continue;
            least = gap;
            lists[r] = l;
        }
    }
}

static void agrees(const float *centroids, uint32_t nlist, uint32_t dim, const float *rows, uint32_t n,
                   const char *what)
{
    uint32_t *want = calloc(n, sizeof *want), *got = calloc(n, sizeof *got);
    assert_true(want && got);
    by_hand(centroids, nlist, dim, rows, n, want);
    for (size_t isa = 0; isa < sizeof isas / sizeof *isas; isa++) {
        for (uint32_t threads = 1; threads <= 3; threads += 2) {
            pd_device *device = NULL;
            pd_error err;
            pd_device_options options = {.threads = threads, .isa = isas[isa]};
            if (pd_device_open("cpu", &options, &device, &err)) continue; /* not on this machine */
            memset(got, 0xff, n * sizeof *got);
            assert_int_equal(pd_device_assign(device, centroids, nlist, dim, rows, n, got, &err), PD_OK);
            for (uint32_t r = 0; r < n; r++)
                if (got[r] != want[r])
                    fail_msg("%s, %s, dim %u: row %u is given %u, nearest is %u", what, isas[isa], dim, r,
                             got[r], want[r]);
            pd_device_close(device);
        }
    }
    free(want);
    free(got);
}

/* Values base + width * normal; a row in three is a centroid, or very nearly. */
static void trial(uint32_t nlist, uint32_t dim, uint32_t n, float base, float width, const char *what)
{
    float *centroids = calloc((size_t)nlist * dim, sizeof *centroids);
    float *rows = calloc((size_t)n * dim, sizeof *rows);
    assert_true(centroids && rows);
    for (size_t i = 0; i < (size_t)nlist * dim; i++)
        centroids[i] = base + width * world_normal();
    for (size_t i = 0; i < (size_t)n * dim; i++) {
        uint32_t row = (uint32_t)(i / dim);
        float *like = centroids + (size_t)(row % nlist) * dim;
        rows[i] = row % 3 ? base + width * world_normal() : like[i % dim] + width * 1e-3f * world_normal();
        if (row % 9 == 0) rows[i] = like[i % dim];
    }
    agrees(centroids, nlist, dim, rows, n, what);
    free(centroids);
    free(rows);
}

static void test_rows_of_every_shape_find_their_nearest(void **state)
{
    (void)state;
    static const uint32_t dims[] = {1, 3, 4, 16, 63, 64, 65, 128, 200, 784},
                          lists[] = {1, 2, 31, 32, 33, 150};
    for (size_t d = 0; d < sizeof dims / sizeof *dims; d++)
        for (size_t l = 0; l < sizeof lists / sizeof *lists; l++)
            trial(lists[l], dims[d], 71, 0, 1, "round the origin");
    trial(20, PD_MAX_DIM, 9, 0, 1, "the widest");
}

static void test_hard_values_find_their_nearest_too(void **state)
{
    (void)state;
    trial(100, 48, 100, 1000.0f, 1, "far from the origin");
    trial(100, 48, 100, 1e6f, 1, "very far from the origin");
    trial(100, 48, 100, 0, 1e16f, "huge");
    trial(100, 48, 100, 0, 1e-16f, "tiny");
    trial(100, 48, 100, 0, 1e-22f, "squares without all their bits");
    trial(100, 48, 100, 0, 1e-42f, "squares of nothing");
    trial(100, 48, 100, 0, 0, "all the same");
}

static void test_a_long_centroid_among_short_ones_hides_nobody(void **state)
{
    (void)state;
    enum { LISTS = 90, ROWS = 90, DIM = 40 };
    static float centroids[LISTS * DIM], rows[ROWS * DIM];
    for (int i = 0; i < LISTS * DIM; i++)
        centroids[i] = world_normal() * (i / DIM == 7 ? 1e6f : i / DIM % 2 ? 1.0f : 1e-3f);
    for (int i = 0; i < ROWS * DIM; i++)
        rows[i] = world_normal() * (i / DIM % 3 ? 1.0f : 1e-3f) + (i / DIM == 11 ? 1e5f : 0.0f);
    agrees(centroids, LISTS, DIM, rows, ROWS, "one long");
    /* Values in a single dimension, which takes all of a code's range. */
    for (int i = 0; i < LISTS * DIM; i++)
        centroids[i] = i % DIM == 5 ? world_normal() * 100 : 0.01f * world_normal();
    for (int i = 0; i < ROWS * DIM; i++)
        rows[i] = i % DIM == 5 ? world_normal() * 100 : 0.01f * world_normal();
    agrees(centroids, LISTS, DIM, rows, ROWS, "one dimension");
}

static void test_equal_centroids_give_way_to_the_smaller_list(void **state)
{
    (void)state;
    enum { LISTS = 96, ROWS = 40, DIM = 20 };
    static float centroids[LISTS * DIM], rows[ROWS * DIM];
    for (int i = 0; i < LISTS * DIM; i++)
        centroids[i] = i < 24 * DIM ? world_normal() : centroids[i % (24 * DIM)];
    for (int i = 0; i < ROWS * DIM; i++)
        rows[i] = world_normal();
    agrees(centroids, LISTS, DIM, rows, ROWS, "four of each");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_of_every_shape_find_their_nearest),
        cmocka_unit_test(test_hard_values_find_their_nearest_too),
        cmocka_unit_test(test_a_long_centroid_among_short_ones_hides_nobody),
        cmocka_unit_test(test_equal_centroids_give_way_to_the_smaller_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
