/* Calibration: what it promises holds for queries that it did not see. */
#include <math.h>

#include "store_files.h"

enum { N = 1500, DIM = 12, UNSEEN = 600, K = 10 };
static const char *const shop = "table = { metric = \"cosine\"; attributes = ("
                                " { name = \"kind\"; type = \"category\"; },"
                                " { name = \"price\"; type = \"number\"; } ); };";

typedef struct world {
    char folder[64];
    pd_device *device;
    pd_version *version;
    pd_resident *resident;
} world;

static float *queries_make(uint32_t n, uint64_t seed)
{
    float *queries = rows_make(n, DIM, 40, seed);
    for (uint32_t q = 0; q < n; q++)
        assert_true(pd_normalise(queries + q * DIM, DIM));
    return queries;
}

static int up(void **state)
{
    world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    folder_make(w->folder);
    w->device = device_make("cpu", 64u << 20);
    float *rows = rows_make(N, DIM, 40, 2);
    uint64_t random = 8;
    FILE *csv = fopen(path_in(w->folder, "a.csv"), "w");
    assert_non_null(csv);
    fputs("id,kind,price\n", csv);
    for (uint32_t i = 0; i < N; i++) /* kinds follow the centres, prices follow nothing */
        fprintf(csv, "%u,k%u,%u\n", i, i % 40 % 8, (unsigned)pd_random_below(&random, 500));
    assert_int_equal(fclose(csv), 0);
    pd_schema *schema = schema_make(shop);
    pd_build_input in = input_make(schema, rows, N, DIM);
    in.attributes = path_in(w->folder, "a.csv");
    pd_error err;
    ok(pd_build(&in, path_in(w->folder, "v"), w->device, NULL, NULL, &err), &err);
    ok(pd_version_open(path_in(w->folder, "v"), &w->version, &err), &err);
    ok(pd_resident_open(w->version, w->device, 0, &w->resident, &err), &err);
    pd_schema_free(schema);
    free(rows);
    *state = w;
    return 0;
}

static int down(void **state)
{
    world *w = *state;
    pd_resident_close(w->resident);
    pd_version_close(w->version);
    pd_device_close(w->device);
    folder_drop(w->folder);
    free(w);
    return 0;
}

static pd_status through(void *context, const pd_query *queries, uint32_t count, pd_answer *answers,
                         pd_error *err)
{
    world *w = context;
    return pd_index_search(pd_resident_index(w->resident), queries, count, answers, NULL, err);
}

static void calibrate(world *w, const float *queries, uint32_t count, pd_calibration *out)
{
    pd_error err;
    pd_calibrate_input in = {.version = w->version,
                             .resident = w->resident,
                             .queries = queries,
                             .count = count,
                             .source = "file",
                             .device = w->device,
                             .search = through,
                             .search_context = w,
                             .seed = 11};
    ok(pd_calibrate(&in, out, NULL, NULL, &err), &err);
}

/* Mean recall@K of unseen queries at nprobe and depth, with weights of a spread. */
static double recall_at(world *w, const float *queries, float sd, uint32_t nprobe, uint32_t depth)
{
    static pd_query asked[UNSEEN];
    static pd_answer got[UNSEEN], right[UNSEEN];
    static pd_hit hits[UNSEEN][K], truth[UNSEEN][K];
    uint32_t table = pd_version_info_of(w->version)->layout.weights;
    float *weights = calloc((size_t)UNSEEN * table, sizeof *weights);
    assert_non_null(weights);
    for (uint32_t q = 0; q < UNSEEN; q++) {
        float *own = weights + (size_t)q * table;
        if (sd > 0) assert_int_equal(pd_random_weights(w->resident, 7000 + q, sd, own), 2);
        asked[q] = (pd_query){.vector = queries + q * DIM,
                              .similarity = 1,
                              .weights = own,
                              .nprobe = nprobe,
                              .k = K,
                              .depth = depth,
                              .min_score = -INFINITY};
        got[q] = (pd_answer){.hits = hits[q]};
        right[q] = (pd_answer){.hits = truth[q]};
    }
    pd_error err;
    ok(through(w, asked, UNSEEN, got, &err), &err);
    ok(pd_version_exact(w->version, w->device, asked, UNSEEN, right, NULL, NULL, &err), &err);
    uint32_t found = 0;
    for (uint32_t q = 0; q < UNSEEN; q++)
        for (uint32_t h = 0; h < got[q].count; h++)
            for (uint32_t t = 0; t < right[q].count; t++)
                found += hits[q][h].id == truth[q][t].id;
    free(weights);
    return (double)found / (UNSEEN * K);
}

static void test_the_promised_recall_holds_for_unseen_queries(void **state)
{
    world *w = *state;
    pd_calibration c;
    float *seen = queries_make(1600, 3), *unseen = queries_make(UNSEEN, 4);
    calibrate(w, seen, 1600, &c);
    assert_true(c.measured && c.queries == 1600 && c.similarity_sd > c.residual_sd && c.residual_sd > 0);
    uint32_t nlist = pd_version_info_of(w->version)->shape.nlist, last = 0;
    static const float spreads[] = {0, 0.2f, 1}, recalls[] = {0.8f, 0.9f, 0.95f, 0.98f};
    for (int s = 0; s < 3; s++) {
        last = 0;
        for (int r = 0; r < 4; r++) {
            int reached = 0;
            uint32_t nprobe = pd_calibrated_nprobe(&c, nlist, K, spreads[s], recalls[r], &reached);
            assert_true(reached && nprobe >= last && nprobe < nlist);
            last = nprobe;
            uint32_t depth = pd_calibrated_depth(&c, K, spreads[s], nprobe);
            assert_true(depth >= K && depth <= pd_refine_depth(K));
            double recall = recall_at(w, unseen, spreads[s] * c.similarity_sd, nprobe, depth);
            if (recall < (double)recalls[r] - 0.01)
                fail_msg("spread %g: recall %g was promised with %u probes and is %g", (double)spreads[s],
                         (double)recalls[r], nprobe, recall);
        }
    }
    free(seen);
    free(unseen);
}

static void test_depths_lose_little_of_what_is_missing(void **state)
{
    world *w = *state;
    pd_calibration c;
    float *seen = queries_make(1600, 3), *unseen = queries_make(UNSEEN, 4);
    calibrate(w, seen, 1600, &c);
    uint32_t nlist = pd_version_info_of(w->version)->shape.nlist;
    for (int b = 0; b < PD_BANDS; b++)
        for (int s = 0; s < PD_SPREADS; s++)
            for (uint32_t p = 0, before = pd_band_k[b]; p < c.curves[b][s].points; p++) {
                uint32_t depth = c.curves[b][s].at[p].depth;
                assert_true(depth >= before && depth <= pd_refine_depth(pd_band_k[b]));
                before = depth;
            }
    static const float spreads[] = {0, 0.3f, 1}, recalls[] = {0.8f, 0.95f, 0.99f};
    for (int s = 0; s < 3; s++) {
        for (int r = 0; r < 3; r++) {
            float sd = spreads[s] * c.similarity_sd;
            uint32_t nprobe = pd_calibrated_nprobe(&c, nlist, K, spreads[s], recalls[r], NULL);
            uint32_t depth = pd_calibrated_depth(&c, K, spreads[s], nprobe);
            double whole = recall_at(w, unseen, sd, nprobe, 0),
                   chosen = recall_at(w, unseen, sd, nprobe, depth);
            if (chosen < whole - 0.3 * (1 - whole) - 0.003)
                fail_msg("spread %g: depth %u has recall %g where %g is possible", (double)spreads[s], depth,
                         chosen, whole);
        }
    }
    free(seen);
    free(unseen);
}

static void test_depths_follow_the_probes_and_the_larger_ratio_of_bands_and_spreads(void **state)
{
    (void)state;
    static const uint32_t depths[PD_BANDS] = {3, 14, 111, 1101};
    pd_calibration c = {.measured = 1};
    for (int b = 0; b < PD_BANDS; b++)
        for (int s = 0; s < PD_SPREADS; s++) {
            c.curves[b][s].points = 2;
            c.curves[b][s].at[0].nprobe = 4;
            c.curves[b][s].at[0].depth = pd_band_k[b];
            c.curves[b][s].at[1].nprobe = 9;
            c.curves[b][s].at[1].depth = depths[b];
        }
    assert_int_equal(pd_calibrated_depth(&c, 1, 0, 9), 3);
    assert_int_equal(pd_calibrated_depth(&c, 10, 0, 9), 14);
    assert_int_equal(pd_calibrated_depth(&c, 10, 0, 5), 14);
    assert_int_equal(pd_calibrated_depth(&c, 10, 0, 4), 10);
    assert_int_equal(pd_calibrated_depth(&c, 10, 0, 1), 10);
    assert_int_equal(pd_calibrated_depth(&c, 100, 0, 1000), 111);
    assert_int_equal(pd_calibrated_depth(&c, 4, 0, 9), 12);
    assert_int_equal(pd_calibrated_depth(&c, 50, 0, 9), 70);
    assert_int_equal(pd_calibrated_depth(&c, 64, 0, 9), 90); /* 89.6 */
    assert_int_equal(pd_calibrated_depth(&c, 500, 0, 9), 555);
    assert_int_equal(pd_calibrated_depth(&c, PD_MAX_DEPTH, 0, 9), 18039); /* over-fetched: 18038.8 */
    c.curves[1][3].at[1].depth = 20;                                      /* spread 0.5 */
    assert_int_equal(pd_calibrated_depth(&c, 10, 0.2f, 9), 14);
    assert_int_equal(pd_calibrated_depth(&c, 10, 0.4f, 9), 20);
    assert_int_equal(pd_calibrated_depth(&c, 10, 0.7f, 9), 20);
    assert_int_equal(pd_calibrated_depth(&c, 10, 5, 9), 20);
    c.curves[0][0].at[1].depth = 34; /* a ratio that would ask for more than the kernels do */
    assert_int_equal(pd_calibrated_depth(&c, 9, 0, 9), pd_refine_depth(9));
    /* A table of under 1,000 rows has no band for them. */
    for (int s = 0; s < PD_SPREADS; s++)
        c.curves[3][s].points = 0;
    assert_int_equal(pd_calibrated_depth(&c, 500, 0, 9), 555);
    /* Not measured, in a band or at all: the kernels choose. */
    c.curves[1][0].at[1].depth = 0;
    assert_int_equal(pd_calibrated_depth(&c, 10, 0, 9), 0);
    assert_int_equal(pd_calibrated_depth(&c, 50, 0, 9), 0);
    assert_int_equal(pd_calibrated_depth(&c, 100, 0, 9), 111);
    c.measured = 0;
    assert_int_equal(pd_calibrated_depth(&c, 100, 0, 9), 0);
}

static void test_held_out_rows_do_not_find_themselves(void **state)
{
    world *w = *state;
    pd_calibration c;
    calibrate(w, NULL, 0, &c);
    assert_string_equal(c.source, "held-out rows");
    /* If they did, one probe would always hold the nearest of all. */
    assert_true(c.curves[0][0].at[0].nprobe == 1 && c.curves[0][0].at[0].recall < 0.95f);
    for (uint32_t b = 0; b < PD_BANDS; b++)
        for (uint32_t s = 0; s < PD_SPREADS; s++)
            for (uint32_t i = 0; i < c.curves[b][s].points; i++)
                assert_true(c.curves[b][s].at[i].lower <= c.curves[b][s].at[i].recall);
    assert_true(c.curves[3][4].points > 3);
}

static int stop(void *context, const char *stage, uint64_t done, uint64_t total)
{
    (void)total;
    (*(int *)context)++;
    return !strcmp(stage, "calibrate") && done > 1;
}

static void test_a_calibration_can_be_stopped(void **state)
{
    world *w = *state;
    pd_error err;
    int calls = 0;
    pd_calibration c;
    pd_calibrate_input in = {.version = w->version,
                             .resident = w->resident,
                             .device = w->device,
                             .search = through,
                             .search_context = w};
    assert_int_equal(pd_calibrate(&in, &c, stop, &calls, &err), PD_CANCELLED);
    assert_true(calls > 1 && !c.measured);
}

static void test_random_weights_have_the_spread_that_was_asked_for(void **state)
{
    world *w = *state;
    uint32_t table = pd_version_info_of(w->version)->layout.weights;
    float *weights = malloc(table * sizeof *weights), *same = malloc(table * sizeof *same);
    assert_non_null(weights);
    assert_non_null(same);
    for (uint64_t seed = 0; seed < 20; seed++) {
        assert_int_equal(pd_random_weights(w->resident, seed, 0.25f, weights), 2);
        assert_true(fabsf(pd_weights_sd(w->resident, weights) - 0.25f) < 1e-4f);
        assert_true(weights[0] == 0.0f);
        pd_random_weights(w->resident, seed, 0.25f, same);
        assert_memory_equal(weights, same, table * sizeof *weights);
    }
    free(weights);
    free(same);
}

static void put_curve(pd_curve *curve, uint32_t n, const uint32_t *nprobe, const float *lower)
{
    curve->points = n;
    for (uint32_t i = 0; i < n; i++) {
        curve->at[i].nprobe = nprobe[i];
        curve->at[i].lower = curve->at[i].recall = lower[i];
    }
}

static void test_an_nprobe_is_read_off_along_the_lower_bounds(void **state)
{
    (void)state;
    static const uint32_t few[] = {1, 4, 16}, many[] = {2, 8, 64};
    static const float low[] = {0.5f, 0.9f, 0.98f}, dip[] = {0.8f, 0.7f, 0.96f};
    pd_calibration c = {.measured = 1};
    for (int b = 0; b < PD_BANDS; b++)
        for (int s = 0; s < PD_SPREADS; s++)
            put_curve(&c.curves[b][s], 3, s ? many : few, s ? dip : low);
    int reached;
    assert_int_equal(pd_calibrated_nprobe(&c, 100, 10, 0, 0.4f, &reached), 1);
    assert_int_equal(pd_calibrated_nprobe(&c, 100, 10, 0, 0.9f, &reached), 4);
    assert_int_equal(pd_calibrated_nprobe(&c, 100, 10, 0, 0.94f, &reached), 8); /* half way, in log */
    assert_int_equal(pd_calibrated_nprobe(&c, 100, 10, 0, 0.98f, &reached), 16);
    assert_true(reached);
    /* A dip does not count: 0.88 lies half way from 0.8 at 2 to 0.96 at 64. */
    assert_int_equal(pd_calibrated_nprobe(&c, 100, 10, 0.3f, 0.88f, &reached), 12);
    /* Between spreads, linearly: 4 at 0 and 29 at 0.1. */
    uint32_t at_a_tenth = pd_calibrated_nprobe(&c, 100, 10, 0.1f, 0.9f, &reached);
    uint32_t between = pd_calibrated_nprobe(&c, 100, 10, 0.05f, 0.9f, &reached);
    assert_true(between > 4 && between < at_a_tenth);
    /* Over the last spread, with its square. */
    uint32_t at_one = pd_calibrated_nprobe(&c, 1000, 10, 1.0f, 0.96f, &reached);
    assert_int_equal(at_one, 64);
    assert_int_equal(pd_calibrated_nprobe(&c, 1000, 10, 2.0f, 0.96f, &reached), 256);
    assert_int_equal(pd_calibrated_nprobe(&c, 100, 10, 2.0f, 0.96f, &reached), 100);
    assert_int_equal(pd_calibrated_nprobe(&c, 100, 10, INFINITY, 0.96f, &reached), 100);
    /* Not reached: every list. */
    assert_int_equal(pd_calibrated_nprobe(&c, 100, 10, 0, 0.99f, &reached), 100);
    assert_false(reached);
    /* Between bands, the larger; over those measured, the last. */
    put_curve(&c.curves[2][0], 3, many, low);
    assert_int_equal(pd_calibrated_nprobe(&c, 100, 20, 0, 0.9f, &reached), 8);
    assert_int_equal(pd_calibrated_nprobe(&c, 100, 10, 0, 0.9f, &reached), 4);
    for (int s = 0; s < PD_SPREADS; s++)
        c.curves[3][s].points = 0;
    assert_int_equal(pd_calibrated_nprobe(&c, 100, 900, 0, 0.9f, &reached), 8);
    c.measured = 0;
    assert_int_equal(pd_calibrated_nprobe(&c, 100, 10, 0, 0.9f, &reached), 100);
    assert_false(reached);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_promised_recall_holds_for_unseen_queries),
        cmocka_unit_test(test_depths_lose_little_of_what_is_missing),
        cmocka_unit_test(test_depths_follow_the_probes_and_the_larger_ratio_of_bands_and_spreads),
        cmocka_unit_test(test_held_out_rows_do_not_find_themselves),
        cmocka_unit_test(test_a_calibration_can_be_stopped),
        cmocka_unit_test(test_random_weights_have_the_spread_that_was_asked_for),
        cmocka_unit_test(test_an_nprobe_is_read_off_along_the_lower_bounds),
    };
    return cmocka_run_group_tests(tests, up, down);
}
