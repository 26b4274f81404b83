/* Codes of fewer dimensions: when a build chooses them, and what its searches then find. */
#include <math.h>

#include "files.h"
#include "principal.h"
#include "store_files.h"

enum { N = 6000, DIM = 160, RANK = 12, K = 10, QUERIES = 100 };

static const char *const plain = "table = { metric = \"l2\"; refine = \"f32\"; };";

/* Rows that vary along RANK directions, and by `noise` along all. */
static float *flat_rows(uint32_t n, float noise, uint64_t seed)
{
    float *rows = malloc((size_t)n * DIM * sizeof *rows), *axes = malloc((size_t)RANK * DIM * sizeof *axes);
    assert_true(rows && axes);
    uint64_t state = 4;
    for (uint32_t i = 0; i < RANK * DIM; i++)
        axes[i] = pd_random_normal(&state);
    state = seed;
    for (uint32_t i = 0; i < n; i++) {
        float *row = rows + (size_t)i * DIM;
        for (uint32_t d = 0; d < DIM; d++)
            row[d] = 3.0f + noise * pd_random_normal(&state);
        for (uint32_t a = 0; a < RANK; a++) {
            float along = pd_random_normal(&state);
            for (uint32_t d = 0; d < DIM; d++)
                row[d] += along * axes[a * DIM + d];
        }
    }
    free(axes);
    return rows;
}

static pd_version *built(const char *folder, const pd_build_input *in, pd_device *device)
{
    pd_error err = {0};
    pd_version *version = NULL;
    ok(pd_build(in, folder, device, NULL, NULL, &err), &err);
    ok(pd_version_open(folder, &version, &err), &err);
    return version;
}

static uint32_t code_dim_of(const char *folder, const pd_build_input *in, pd_device *device)
{
    pd_version *version = built(folder, in, device);
    uint32_t code_dim = pd_version_info_of(version)->layout.code_dim;
    pd_version_close(version);
    pd_error err = {0};
    ok(pd_folder_remove(folder, &err), &err);
    return code_dim;
}

static void test_a_build_takes_the_fewest_dimensions_that_lose_little(void **state)
{
    (void)state;
    static const char *const metrics[] = {"ip", "cosine", "l2"};
    char folder[64];
    folder_make(folder);
    pd_device *device = device_make("cpu", 0);
    float *flat = flat_rows(N, 0.02f, 1), *round = rows_make(N, DIM, 1, 1);
    for (int metric = 0; metric < 3; metric++) {
        char text[80];
        snprintf(text, sizeof text, "table = { metric = \"%s\"; };", metrics[metric]);
        pd_schema *schema = schema_make(text);
        pd_build_input in = input_make(schema, flat, N, DIM);
        assert_int_equal(code_dim_of(path_in(folder, "v"), &in, device), 32);
        in.rows = round;
        assert_int_equal(code_dim_of(path_in(folder, "v"), &in, device), DIM);
        in.rows = flat;
        in.count = 1000; /* too few to tell */
        assert_int_equal(code_dim_of(path_in(folder, "v"), &in, device), DIM);
        pd_schema_free(schema);
    }
    /* Codes alone must hold everything. */
    pd_schema *alone = schema_make("table = { metric = \"l2\"; refine = \"none\"; };");
    pd_build_input in = input_make(alone, flat, N, DIM);
    assert_int_equal(code_dim_of(path_in(folder, "v"), &in, device), DIM);
    pd_schema_free(alone);
    free(flat);
    free(round);
    pd_device_close(device);
    folder_drop(folder);
}

static void test_the_schema_may_say_how_many_dimensions(void **state)
{
    (void)state;
    char folder[64];
    folder_make(folder);
    pd_device *device = device_make("cpu", 0);
    float *rows = rows_make(500, 24, 7, 1);
    static const uint32_t counts[] = {500, 9, 1, 0};
    pd_schema *some = schema_make("table = { code_dim = 7; };"),
              *all = schema_make("table = { code_dim = 24; };"),
              *more = schema_make("table = { code_dim = 25; };");
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        pd_build_input in = input_make(some, rows, counts[i], 24);
        assert_int_equal(code_dim_of(path_in(folder, "v"), &in, device), 7);
        in.schema = all;
        assert_int_equal(code_dim_of(path_in(folder, "v"), &in, device), 24);
    }
    pd_build_input in = input_make(more, rows, 500, 24);
    pd_error err = {0};
    assert_int_equal(pd_build(&in, path_in(folder, "v"), device, NULL, NULL, &err), PD_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "codes of 25 dimensions for rows of 24"));
    pd_schema_free(some);
    pd_schema_free(all);
    pd_schema_free(more);
    free(rows);
    pd_device_close(device);
    folder_drop(folder);
}

static double recall_against_exact(const pd_version *version, pd_device *device, const float *vectors)
{
    pd_resident *resident = NULL;
    pd_error err = {0};
    ok(pd_resident_open(version, device, 0, &resident, &err), &err);
    pd_query queries[QUERIES];
    static pd_hit near[QUERIES][K], exact[QUERIES][K];
    pd_answer got[QUERIES], truth[QUERIES];
    for (uint32_t q = 0; q < QUERIES; q++) {
        queries[q] = (pd_query){.vector = vectors + (size_t)q * DIM,
                                .similarity = 1,
                                .k = K,
                                .nprobe = UINT32_MAX,
                                .min_score = -INFINITY};
        got[q] = (pd_answer){.hits = near[q]};
        truth[q] = (pd_answer){.hits = exact[q]};
    }
    ok(pd_index_search(pd_resident_index(resident), queries, QUERIES, got, NULL, &err), &err);
    ok(pd_version_exact(version, device, queries, QUERIES, truth, NULL, NULL, &err), &err);
    uint32_t found = 0;
    for (uint32_t q = 0; q < QUERIES; q++)
        for (uint32_t i = 0; i < K; i++)
            for (uint32_t j = 0; j < K; j++)
                if (near[q][i].id == exact[q][j].id) {
                    assert_true(near[q][i].score == exact[q][j].score);
                    found++;
                }
    pd_resident_close(resident);
    return (double)found / (QUERIES * K);
}

static void test_a_projected_version_comes_back_from_disk_and_finds_the_neighbours(void **state)
{
    (void)state;
    char folder[64];
    folder_make(folder);
    pd_device *device = device_make("cpu", 64u << 20);
    float *rows = flat_rows(N, 0.02f, 1), *vectors = flat_rows(QUERIES, 0.02f, 2);
    pd_schema *schema = schema_make(plain);
    pd_build_input in = input_make(schema, rows, N, DIM);
    pd_version *version = built(path_in(folder, "v"), &in, device);
    assert_int_equal(pd_version_info_of(version)->layout.code_dim, 32);
    assert_true(recall_against_exact(version, device, vectors) >= 0.99);
    pd_version_close(version);
    free(rows);
    free(vectors);
    pd_schema_free(schema);
    pd_device_close(device);
    folder_drop(folder);
}

static void test_directions_are_orthonormal_and_the_first_varies_most(void **state)
{
    (void)state;
    float *rows = flat_rows(3000, 0.1f, 3), *directions = malloc(20 * DIM * sizeof *directions);
    pd_error err = {0};
    ok(pd_principal_directions(rows, 3000, DIM, 20, directions, &err), &err);
    double before = INFINITY;
    for (uint32_t i = 0; i < 20; i++) {
        for (uint32_t j = 0; j <= i; j++) {
            double dot = (double)pd_dot(directions + i * DIM, directions + j * DIM, DIM);
            assert_true(fabs(dot - (i == j)) < 1e-5);
        }
        double sum = 0, squares = 0;
        for (uint32_t r = 0; r < 3000; r++) {
            double along = (double)pd_dot(rows + (size_t)r * DIM, directions + i * DIM, DIM);
            sum += along;
            squares += along * along;
        }
        double variance = squares / 3000 - sum / 3000 * (sum / 3000);
        assert_true(variance <= before * 1.0001);
        if (i < RANK) assert_true(variance > 10);
        if (i >= RANK) assert_true(variance < 0.1);
        before = variance;
    }
    free(rows);
    free(directions);
}

static void test_a_damaged_projection_is_named(void **state)
{
    (void)state;
    char folder[64];
    folder_make(folder);
    pd_device *device = device_make("cpu", 0);
    float *rows = rows_make(300, 24, 7, 1);
    pd_schema *schema = schema_make("table = { code_dim = 7; };");
    pd_build_input in = input_make(schema, rows, 300, 24);
    pd_error err = {0};
    ok(pd_build(&in, path_in(folder, "v"), device, NULL, NULL, &err), &err);
    size_t length;
    char *bytes = file_bytes(path_in(folder, "v/lists.bin"), &length);
    float broken = NAN;
    memcpy(bytes + length - 4, &broken, 4);
    FILE *file = fopen(path_in(folder, "v/lists.bin"), "wb");
    assert_int_equal(fwrite(bytes, 1, length, file), length);
    fclose(file);
    pd_version *version = NULL;
    assert_int_equal(pd_version_open(path_in(folder, "v"), &version, &err), PD_DATA_LOSS);
    assert_non_null(strstr(err.message, "lists.bin"));
    free(bytes);
    free(rows);
    pd_schema_free(schema);
    pd_device_close(device);
    folder_drop(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_build_takes_the_fewest_dimensions_that_lose_little),
        cmocka_unit_test(test_the_schema_may_say_how_many_dimensions),
        cmocka_unit_test(test_a_projected_version_comes_back_from_disk_and_finds_the_neighbours),
        cmocka_unit_test(test_directions_are_orthonormal_and_the_first_varies_most),
        cmocka_unit_test(test_a_damaged_projection_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
