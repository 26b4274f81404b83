/* Planning: which path a compiled context takes, and that what it promises to find is found. */
#include <math.h>

#include "../ingest/store_files.h"
#include "plan.h"

enum { N = 20000, DIM = 6 };
static const char *const shop =
    "table = { metric = \"cosine\"; attributes = ("
    " { name = \"kind\"; type = \"category\"; }, { name = \"zones\"; type = \"set\"; },"
    " { name = \"brand\"; type = \"key\"; }, { name = \"price\"; type = \"number\"; } ); };";

typedef struct world {
    char folder[64];
    pd_device *device;
    pd_version *version;
    pd_resident *resident;
    const pd_version_info *info;
    const pd_attribute *kind, *zones, *brand, *price;
    float *weights; /* [layout.weights], zeroed for each test */
} world;

/* Kind k9 is rare (100 rows), brand 7 has 40 rows, brand 8 has 50; zone z5 has 10,000. */
static int kind_of(uint32_t i)
{
    return i % 200 == 0 ? 9 : (int)(i % 5);
}
static uint32_t brand_of(uint32_t i)
{
    return i % 500 == 1 ? 7 : i % 400 == 2 ? 8 : 100 + i % 50;
}

static void calibrated(world *w)
{
    pd_calibration c = {.measured = 1, .queries = 2500, .source = "file", .similarity_sd = 0.4f};
    static const uint32_t depths[PD_BANDS] = {2, 13, 120, 1101};
    for (int b = 0; b < PD_BANDS; b++) {
        for (int s = 0; s < PD_SPREADS; s++) {
            c.curves[b][s].points = 2;
            c.curves[b][s].at[0].nprobe = 1;
            c.curves[b][s].at[0].recall = c.curves[b][s].at[0].lower = 0.5f;
            c.curves[b][s].at[1].nprobe = (10u << s) << (b > 1 ? b - 1 : 0);
            c.curves[b][s].at[0].depth = c.curves[b][s].at[1].depth = depths[b];
            c.curves[b][s].at[1].recall = c.curves[b][s].at[1].lower = 0.97f;
        }
    }
    pd_error err;
    ok(pd_version_set_calibration(path_in(w->folder, "v"), &c, &err), &err);
}

static void open_all(world *w)
{
    pd_error err;
    ok(pd_version_open(path_in(w->folder, "v"), &w->version, &err), &err);
    ok(pd_resident_open(w->version, w->device, 0, &w->resident, &err), &err);
    w->info = pd_version_info_of(w->version);
    w->kind = pd_schema_find(w->info->schema, "kind");
    w->zones = pd_schema_find(w->info->schema, "zones");
    w->brand = pd_schema_find(w->info->schema, "brand");
    w->price = pd_schema_find(w->info->schema, "price");
}

static int up(void **state)
{
    world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    folder_make(w->folder);
    w->device = device_make("cpu", 64u << 20);
    float *rows = rows_make(N, DIM, 50, 2);
    FILE *csv = fopen(path_in(w->folder, "a.csv"), "w");
    assert_non_null(csv);
    fputs("id,kind,zones,brand,price\n", csv);
    for (uint32_t i = 0; i < N; i++)
        fprintf(csv, "%u,k%d,z%u|z5,%u,%u\n", i, kind_of(i), i % 2 ? 5u : i % 4, brand_of(i), i % 100);
    assert_int_equal(fclose(csv), 0);
    pd_schema *schema = schema_make(shop);
    pd_build_input in = input_make(schema, rows, N, DIM);
    in.nlist = 200;
    in.attributes = path_in(w->folder, "a.csv");
    pd_error err;
    ok(pd_build(&in, path_in(w->folder, "v"), w->device, NULL, NULL, &err), &err);
    calibrated(w);
    open_all(w);
    w->weights = calloc(w->info->layout.weights, sizeof *w->weights);
    assert_non_null(w->weights);
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
    free(w->weights);
    free(w);
    return 0;
}

static uint32_t weight_of(const world *w, const char *kind)
{
    return w->info->layout.weight_at[w->kind->byte_column] + (uint32_t)pd_attribute_value(w->kind, kind);
}

static pd_plan make(world *w, const pd_compiled *compiled, pd_want want, int has_vector)
{
    pd_plan plan;
    pd_error err;
    ok(pd_plan_make(w->resident, compiled, &want, has_vector, &plan, &err), &err);
    for (uint32_t i = 1; i < plan.nslots; i++)
        assert_true(plan.slots[i] > plan.slots[i - 1]);
    return plan;
}

static void test_asks_that_make_no_sense_are_refused(void **state)
{
    world *w = *state;
    static const pd_want wants[] = {{.k = 0},
                                    {.k = PD_MAX_K + 1},
                                    {.k = 1, .recall = 1.1f},
                                    {.k = 1, .recall = -0.5f},
                                    {.k = 1, .recall = NAN},
                                    {.k = 1, .recall = 0.9f, .nprobe = 3}};
    pd_compiled nothing = {.similarity = 1};
    for (size_t i = 0; i < sizeof wants / sizeof *wants; i++) {
        pd_plan plan;
        pd_error err;
        assert_int_equal(pd_plan_make(w->resident, &nothing, &wants[i], 1, &plan, &err), PD_INVALID_ARGUMENT);
    }
}

static void test_the_plain_paths(void **state)
{
    world *w = *state;
    pd_compiled nothing = {.similarity = 1};
    assert_int_equal(make(w, &nothing, (pd_want){.k = 10}, 0).path, PD_PATH_ATTRIBUTES);
    assert_int_equal(make(w, &nothing, (pd_want){.k = 10, .exact = 1}, 1).path, PD_PATH_EXACT);
    pd_plan plan = make(w, &nothing, (pd_want){.k = 10, .nprobe = 17}, 1);
    assert_true(plan.path == PD_PATH_IVF && plan.nprobe == 17 && plan.recall == 0 && plan.spread == 0);
    plan = make(w, &nothing, (pd_want){.k = 10, .nprobe = 200}, 1);
    assert_true(plan.path == PD_PATH_ALL && plan.nprobe == 200);
    plan = make(w, &nothing, (pd_want){.k = 10, .recall = 0.97f}, 1);
    assert_true(plan.path == PD_PATH_IVF && plan.nprobe == 10 && plan.recall == 0.97f && !plan.note[0]);
    plan = make(w, &nothing, (pd_want){.k = 10}, 1); /* 0.95 */
    assert_true(plan.nprobe == 10 && plan.recall == 0.95f);
    plan = make(w, &nothing, (pd_want){.k = 10, .recall = 0.9f}, 1);
    assert_int_equal(plan.nprobe, 8);
    plan = make(w, &nothing, (pd_want){.k = 10, .recall = 0.99f}, 1);
    assert_true(plan.path == PD_PATH_ALL && plan.recall == 0);
    assert_non_null(strstr(plan.note, "not reached"));
    assert_string_equal(pd_path_name(PD_PATH_ROWS), "rows");
}

static void test_probed_lists_are_refined_as_deep_as_was_calibrated(void **state)
{
    world *w = *state;
    pd_compiled nothing = {.similarity = 1};
    pd_plan plan = make(w, &nothing, (pd_want){.k = 10}, 1);
    assert_true(plan.path == PD_PATH_IVF && plan.depth == 13);
    assert_int_equal(pd_plan_depth(w->resident, &plan, 100), 120); /* over-fetched for diversity */
    assert_int_equal(pd_plan_depth(w->resident, &plan, 4000), 4404);
    assert_int_equal(make(w, &nothing, (pd_want){.k = 10, .nprobe = 17}, 1).depth, 13);
    /* What looks at every row is to be as exact as the codes allow. */
    assert_int_equal(make(w, &nothing, (pd_want){.k = 10, .nprobe = 200}, 1).depth, 0);
    assert_int_equal(make(w, &nothing, (pd_want){.k = 10}, 0).depth, 0);
}

static void test_weights_widen_the_probes_by_their_spread(void **state)
{
    world *w = *state;
    pd_compiled weighted = {.similarity = 1, .weights = w->weights};
    uint32_t last = 0;
    for (int i = 0; i < 6; i++) {
        w->weights[weight_of(w, "k1")] = 0.2f * (float)i; /* a fifth of the rows: sd is 0.4 of the weight */
        pd_plan plan = make(w, &weighted, (pd_want){.k = 10, .recall = 0.97f}, 1);
        assert_true(fabsf(plan.spread - 0.2f * (float)i) < 0.01f);
        assert_true(plan.nprobe > last && plan.nslots == 0);
        last = plan.nprobe;
        pd_plan_free(&plan);
    }
    /* The same weights beside twice the similarity spread half as far. */
    weighted.similarity = 2;
    pd_plan plan = make(w, &weighted, (pd_want){.k = 10, .recall = 0.97f}, 1);
    assert_true(fabsf(plan.spread - 0.5f) < 0.01f);
    weighted.similarity = 0.5f;
    plan = make(w, &weighted, (pd_want){.k = 10, .recall = 0.97f}, 1);
    assert_true(plan.spread > 1.9f && plan.recall == 0);
    weighted.similarity = 0;
    assert_int_equal(make(w, &weighted, (pd_want){.k = 10}, 1).path, PD_PATH_ALL);
    memset(w->weights, 0, w->info->layout.weights * sizeof(float));
}

static void test_a_rare_heavy_value_comes_from_postings_and_not_from_probes(void **state)
{
    world *w = *state;
    pd_compiled weighted = {.similarity = 1, .weights = w->weights};
    w->weights[weight_of(w, "k9")] = 2;
    pd_plan plan = make(w, &weighted, (pd_want){.k = 10}, 1);
    assert_int_equal(plan.nslots, 100);
    assert_true(plan.spread < 0.001f);
    for (uint32_t i = 0; i < N; i += 200) {
        uint32_t slot = pd_resident_slot(w->resident, i), found = 0;
        for (uint32_t s = 0; s < plan.nslots; s++)
            found += plan.slots[s] == slot;
        assert_int_equal(found, 1);
    }
    pd_plan_free(&plan);
    w->weights[weight_of(w, "k9")] = 0.2f; /* not heavy: left to the probes */
    plan = make(w, &weighted, (pd_want){.k = 10}, 1);
    assert_true(plan.nslots == 0 && plan.spread > 0.01f);
    memset(w->weights, 0, w->info->layout.weights * sizeof(float));
}

static void test_boosted_keys_bring_all_their_rows(void **state)
{
    world *w = *state;
    pd_key_weight keys[] = {{0, 7, 0.1f}, {0, 8, 0.3f}, {0, 9999, 0.5f}, {0, 101, -0.2f}};
    pd_compiled boosted = {.similarity = 1, .key_weights = keys, .nkey_weights = 4};
    pd_plan plan = make(w, &boosted, (pd_want){.k = 10}, 1);
    assert_int_equal(plan.nslots, 40 + 50);
    pd_plan_free(&plan);
    plan = make(w, &boosted, (pd_want){.k = 10, .nprobe = 200}, 1);
    assert_true(plan.path == PD_PATH_ALL && plan.nslots == 0);
}

static void test_a_selective_filter_is_answered_completely_from_postings(void **state)
{
    world *w = *state;
    pd_byte_test byte = {.column = w->kind->byte_column};
    int value = pd_attribute_value(w->kind, "k9");
    byte.allow[value / 64] = 1ull << (value % 64);
    uint64_t brands[] = {8, 101};
    pd_key_test key = {.column = 0, .count = 2, .values = brands};
    pd_compiled filtered = {.similarity = 1, .has_filter = 1, .filter = {.nbytes = 1, .bytes = &byte}};
    pd_plan plan = make(w, &filtered, (pd_want){.k = 10}, 1);
    assert_true(plan.path == PD_PATH_ROWS && plan.nslots == 100 && plan.recall == 1);
    pd_plan_free(&plan);
    filtered.filter = (pd_filter){.nkeys = 1, .keys = &key};
    plan = make(w, &filtered, (pd_want){.k = 10, .nprobe = 3}, 1);
    assert_int_equal(plan.path, PD_PATH_ROWS);
    uint32_t passing = 0;
    for (uint32_t i = 0; i < N; i++)
        passing += brand_of(i) == 8 || brand_of(i) == 101;
    assert_int_equal(plan.nslots, passing);
    /* The answer is the exact one. */
    float vector[DIM] = {1};
    pd_hit got[10], right[10];
    pd_query query = {.vector = vector,
                      .similarity = 1,
                      .filter = &filtered.filter,
                      .slots = plan.slots,
                      .nslots = plan.nslots,
                      .k = 10,
                      .min_score = -INFINITY};
    pd_answer found = {.hits = got}, exact = {.hits = right};
    pd_error err;
    ok(pd_index_search(pd_resident_index(w->resident), &query, 1, &found, NULL, &err), &err);
    ok(pd_version_exact(w->version, w->device, &query, 1, &exact, NULL, NULL, &err), &err);
    assert_int_equal(found.count, 10);
    for (int h = 0; h < 10; h++)
        assert_int_equal(got[h].id, right[h].id);
    pd_plan_free(&plan);
}

/* 10 hits of half of the rows lie as deep as 20 of all: from 10 probes for 10 to 20 for 100, in log k: 13.01. */
static void test_a_filter_that_is_blind_to_the_vectors_probes_as_deep_as_its_hits_lie(void **state)
{
    world *w = *state;
    pd_range_test range = {.column = w->price->float_column, .low = 50, .high = INFINITY};
    pd_compiled filtered = {.similarity = 1, .has_filter = 1, .filter = {.nranges = 1, .ranges = &range}};
    pd_plan plan = make(w, &filtered, (pd_want){.k = 10, .recall = 0.97f}, 1);
    assert_true(plan.path == PD_PATH_IVF && plan.nprobe == 14 && plan.recall == 0.97f);
    assert_non_null(strstr(plan.note, "widened from 10"));
    range.low = 93; /* 7 in a hundred: 143 of all */
    plan = make(w, &filtered, (pd_want){.k = 10, .recall = 0.97f}, 1);
    assert_true(plan.path == PD_PATH_IVF && plan.nprobe >= 22 && plan.nprobe <= 24 && plan.recall == 0.97f);
    plan = make(w, &filtered, (pd_want){.k = 10, .nprobe = 5}, 1);
    assert_true(plan.path == PD_PATH_IVF && plan.nprobe == 5 && plan.recall == 0);
    /* 200 hits lie as deep as 2,857, which was not calibrated: 40 probes for 1,000, in proportion. */
    plan = make(w, &filtered, (pd_want){.k = 200, .recall = 0.97f}, 1);
    assert_true(plan.path == PD_PATH_IVF && plan.nprobe >= 104 && plan.nprobe <= 116 && plan.recall == 0);
    assert_non_null(strstr(plan.note, "deeper than was calibrated"));
    /* All rows hold z5. */
    pd_set_test set = {.column = w->zones->byte_column, .any = 1ull << pd_attribute_value(w->zones, "z5")};
    filtered.filter = (pd_filter){.nsets = 1, .sets = &set};
    plan = make(w, &filtered, (pd_want){.k = 10, .recall = 0.97f}, 1);
    assert_true(plan.path == PD_PATH_IVF && plan.nprobe == 10 && plan.recall == 0.97f && !plan.note[0]);
    set.any = 0;
    set.none = ~0ull >> 4; /* nothing is left but what holds none of them: estimated, not proven */
    plan = make(w, &filtered, (pd_want){.k = 10, .recall = 0.97f}, 1);
    assert_int_equal(plan.path, PD_PATH_ALL);
}

static void test_a_filter_that_follows_the_vectors_probes_wider_and_promises_nothing(void **state)
{
    world *w = *state;
    int value = pd_attribute_value(w->kind, "k1"); /* ten of fifty centres */
    pd_byte_test byte = {.column = w->kind->byte_column};
    byte.allow[value / 64] = 1ull << (value % 64);
    pd_compiled filtered = {.similarity = 1, .has_filter = 1, .filter = {.nbytes = 1, .bytes = &byte}};
    pd_plan plan = make(w, &filtered, (pd_want){.k = 10, .recall = 0.97f}, 1);
    assert_true(plan.path == PD_PATH_IVF && plan.nprobe >= 49 && plan.nprobe <= 51 && plan.recall == 0);
    assert_non_null(strstr(plan.note, "follow the vectors"));
}

static void test_a_narrow_range_is_answered_from_the_order_of_its_number(void **state)
{
    world *w = *state;
    pd_range_test range = {.column = w->price->float_column, .low = 98.5f, .high = INFINITY};
    pd_compiled filtered = {.similarity = 1, .has_filter = 1, .filter = {.nranges = 1, .ranges = &range}};
    pd_plan plan = make(w, &filtered, (pd_want){.k = 10, .recall = 0.97f}, 1);
    assert_true(plan.path == PD_PATH_ROWS && plan.nprobe == 0 && plan.recall == 1 && !plan.note[0]);
    assert_true(plan.nslots >= 200 && plan.nslots < 200 + 128);
    for (uint32_t i = 99; i < N; i += 100) {
        uint32_t slot = pd_resident_slot(w->resident, i), found = 0;
        for (uint32_t s = 0; s < plan.nslots; s++)
            found += plan.slots[s] == slot;
        assert_int_equal(found, 1);
    }
    pd_plan_free(&plan);
}

static void test_caps_keep_the_first_of_each_value(void **state)
{
    world *w = *state;
    enum { HITS = 3000 };
    static pd_hit hits[HITS];
    static uint64_t keys[HITS];
    uint32_t nbytes = w->info->schema->nbytes;
    uint8_t *bytes = calloc(HITS, nbytes);
    assert_non_null(bytes);
    uint64_t state_ = 3;
    for (uint32_t i = 0; i < HITS; i++) {
        hits[i] = (pd_hit){.id = i, .score = -(float)i};
        keys[i] = pd_random_below(&state_, 1500); /* more values than counters: they share */
        bytes[i * nbytes + w->kind->byte_column] = (uint8_t)pd_random_below(&state_, 4);
    }
    pd_cap caps[] = {{w->brand, 2}, {w->kind, 200}};
    uint32_t n = pd_diversify(w->info->schema, caps, 2, bytes, keys, hits, HITS);
    /* The plain way. */
    static uint32_t brands[1500];
    uint32_t kinds[4] = {0}, left = 0;
    for (uint32_t i = 0; i < HITS; i++) {
        uint8_t kind = bytes[i * nbytes + w->kind->byte_column];
        if ((keys[i] && brands[keys[i]] == 2) || (kind && kinds[kind] == 200)) continue;
        brands[keys[i]]++;
        kinds[kind]++;
        assert_true(left < n);
        assert_int_equal(hits[left].id, i);
        left++;
    }
    assert_int_equal(left, n);
    assert_int_equal(pd_diversify(w->info->schema, NULL, 0, bytes, keys, hits, 17), 17);
    free(bytes);
}

/* Last: it takes the calibration away. */
static void test_an_uncalibrated_version_is_probed_with_a_warning(void **state)
{
    world *w = *state;
    pd_resident_close(w->resident);
    pd_version_close(w->version);
    assert_int_equal(unlink(path_in(w->folder, "v/calibration.json")), 0);
    open_all(w);
    pd_compiled nothing = {.similarity = 1};
    pd_plan plan = make(w, &nothing, (pd_want){.k = 10}, 1);
    assert_true(plan.path == PD_PATH_IVF && plan.nprobe == 200 / 16 && plan.recall == 0);
    assert_non_null(strstr(plan.note, "not calibrated"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_asks_that_make_no_sense_are_refused),
        cmocka_unit_test(test_the_plain_paths),
        cmocka_unit_test(test_probed_lists_are_refined_as_deep_as_was_calibrated),
        cmocka_unit_test(test_weights_widen_the_probes_by_their_spread),
        cmocka_unit_test(test_a_rare_heavy_value_comes_from_postings_and_not_from_probes),
        cmocka_unit_test(test_boosted_keys_bring_all_their_rows),
        cmocka_unit_test(test_a_selective_filter_is_answered_completely_from_postings),
        cmocka_unit_test(test_a_filter_that_is_blind_to_the_vectors_probes_as_deep_as_its_hits_lie),
        cmocka_unit_test(test_a_filter_that_follows_the_vectors_probes_wider_and_promises_nothing),
        cmocka_unit_test(test_a_narrow_range_is_answered_from_the_order_of_its_number),
        cmocka_unit_test(test_caps_keep_the_first_of_each_value),
        cmocka_unit_test(test_an_uncalibrated_version_is_probed_with_a_warning),
    };
    return cmocka_run_group_tests(tests, up, down);
}
