/* Projected codes: what a projection is near to, and what it keeps exact. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "host.h"
#include "world.h"

static void test_a_projection_is_the_product_with_its_directions(void **state)
{
    (void)state;
    static const uint32_t shapes[][2] = {{2, 1}, {33, 32}, {100, 33}, {784, 96}, {PD_MAX_DIM, 3}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        uint32_t dim = shapes[i][0], code_dim = shapes[i][1];
        world *w = world_make_projected(WORLD_PLAIN, PD_L2, PD_CODE_I8, PD_REFINE_F16, dim, code_dim, 1);
        assert_non_null(w);
        float *out = malloc(code_dim * sizeof *out);
        for (uint32_t r = 0; r < 20; r++) {
            const float *row = w->rows + (size_t)r * dim;
            double norm = sqrt((double)pd_dot(row, row, dim));
            pd_project(w->projection, row, out);
            for (uint32_t j = 0; j < code_dim; j++) {
                double want = (double)pd_dot(row, w->directions + (size_t)j * dim, dim);
                /* Both are quantised to 127 steps of their largest value. */
                assert_true(fabs((double)out[j] - want) <= 0.03 * norm);
            }
        }
        free(out);
        world_free(w);
    }
}

static void test_a_vector_of_zeros_projects_to_zeros(void **state)
{
    (void)state;
    world *w = world_make_projected(WORLD_PLAIN, PD_IP, PD_CODE_I8, PD_REFINE_F16, 40, 7, 1);
    float zeros[40] = {0}, out[7];
    pd_project(w->projection, zeros, out);
    for (uint32_t j = 0; j < 7; j++)
        assert_true(out[j] == 0.0f && !signbit(out[j]));
    world_free(w);
}

/* The estimate of <q, r> from few dimensions loses nothing for the query that is the mean of the centroids. */
static void test_the_mean_query_is_scored_exactly(void **state)
{
    (void)state;
    for (int metric = PD_IP; metric <= PD_L2; metric++) {
        uint32_t dim = 60, code_dim = 8;
        world *w = world_make_projected(WORLD_PLAIN, (pd_metric)metric, PD_CODE_I8, PD_REFINE_F16, dim,
                                        code_dim, WORLD_LISTS);
        const float *mean = w->projection->mean, *seen = w->projection->mean_out;
        double worst = 0;
        for (uint32_t r = 0; r < WORLD_ROWS; r++) {
            unsigned char *page = w->pages + w->slot[r] / PD_PAGE_ROWS * w->layout.page_bytes;
            const float *row = w->rows + (size_t)r * dim, *centroid = w->centroids + (size_t)w->list[r] * dim;
            uint32_t place = w->slot[r] % PD_PAGE_ROWS;
            if (w->deleted[r]) continue;
            double dot = 0, lost = 0;
            for (uint32_t j = 0; j < code_dim; j++)
                dot += (double)seen[j] * (double)pd_page_scale(&w->layout, page)[place] *
                       (double)(int8_t)page[w->layout.codes + (j / 4 * PD_PAGE_ROWS + place) * 4 + j % 4];
            for (uint32_t d = 0; d < dim; d++)
                lost += (double)mean[d] * (double)(row[d] - centroid[d]);
            int l2 = metric == PD_L2;
            double lt = l2 ? -(double)pd_l2(mean, centroid, dim) : (double)pd_dot(mean, centroid, dim);
            double want = l2 ? -(double)pd_l2(mean, row, dim) : (double)pd_dot(mean, row, dim);
            double got = lt + (double)pd_page_term(&w->layout, page)[place] + (l2 ? 2 : 1) * dot;
            assert_true(fabs(got - want) <= 1e-4 * (1 + fabs(want)));
            worst = fabs(dot - lost) > worst ? fabs(dot - lost) : worst;
        }
        assert_true(worst > 0.01); /* what the term made good */
        world_free(w);
    }
}

static void test_lists_without_their_projection_are_refused(void **state)
{
    (void)state;
    pd_device *device = NULL;
    pd_index *index = NULL;
    pd_device_options options = {.memory = (uint64_t)32 << 20, .threads = 1};
    pd_error err = {0};
    world *w = world_make_projected(WORLD_PLAIN, PD_L2, PD_CODE_I8, PD_REFINE_F16, 24, 9, WORLD_LISTS);
    assert_int_equal(pd_device_open("cpu", &options, &device, NULL), PD_OK);
    assert_int_equal(world_load(w, device, 0, &index, NULL), PD_OK);
    pd_lists lists = {.centroids = w->centroids,
                      .offsets = w->offsets,
                      .pages = w->page_numbers,
                      .rows = w->counts,
                      .histograms = w->histograms};
    assert_int_equal(pd_index_set_lists(index, &lists, &err), PD_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "projection"));
    pd_index_close(index);
    pd_device_close(device);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_projection_is_the_product_with_its_directions),
        cmocka_unit_test(test_a_vector_of_zeros_projects_to_zeros),
        cmocka_unit_test(test_the_mean_query_is_scored_exactly),
        cmocka_unit_test(test_lists_without_their_projection_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
