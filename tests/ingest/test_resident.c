/* Residents: rows found by id, postings and histograms that agree with a scan, and how much they take. */
#include <math.h>

#include "idmap.h"
#include "store_files.h"

enum { N = 20000, DIM = 4 };
static const char *const shop =
    "table = { metric = \"l2\"; attributes = ("
    " { name = \"kind\"; type = \"category\"; }, { name = \"zones\"; type = \"set\"; },"
    " { name = \"brand\"; type = \"key\"; }, { name = \"price\"; type = \"number\"; } ); };";

typedef struct world {
    char folder[64];
    pd_device *device;
    pd_version *version;
    pd_resident *resident;
    uint64_t ids[N];
} world;

/* What row i holds. One row in two is "common", so that it is too frequent for a list; zone 0 likewise. */
static int kind_of(uint32_t i)
{
    return i % 2 ? 0 : 1 + (int)(i / 2 % 9);
}
static uint64_t brand_of(uint32_t i)
{
    return i % 3 ? 1000 + i % 700 : i % 6 ? 0 : 5;
}

static int up(void **state)
{
    world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    folder_make(w->folder);
    w->device = device_make("cpu", 64u << 20);
    float *rows = rows_make(N, DIM, 20, 2);
    FILE *csv = fopen(path_in(w->folder, "a.csv"), "w");
    assert_non_null(csv);
    fputs("id,kind,zones,brand,price\n", csv);
    for (uint32_t i = 0; i < N; i++) {
        w->ids[i] = (uint64_t)i * 0x9e3779b97f4a7c15ull;
        fprintf(csv, "%llu,k%d,z0|z%u,", (unsigned long long)w->ids[i], kind_of(i), i % 17);
        if (brand_of(i)) fprintf(csv, "%llu", (unsigned long long)brand_of(i));
        fprintf(csv, ",%u\n", i % 5);
    }
    assert_int_equal(fclose(csv), 0);
    pd_schema *schema = schema_make(shop);
    pd_build_input in = input_make(schema, rows, N, DIM);
    in.ids = w->ids;
    in.nlist = 50;
    in.attributes = path_in(w->folder, "a.csv");
    pd_error err;
    ok(pd_build(&in, path_in(w->folder, "v"), w->device, NULL, NULL, &err), &err);
    ok(pd_version_open(path_in(w->folder, "v"), &w->version, &err), &err);
    ok(pd_resident_open(w->version, w->device, 10, &w->resident, &err), &err);
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

static void test_every_row_is_found_by_its_id_and_no_other(void **state)
{
    world *w = *state;
    pd_error err;
    for (uint32_t i = 0; i < N; i += 7) {
        uint32_t slot = pd_resident_slot(w->resident, w->ids[i]);
        uint64_t id = 0;
        assert_int_not_equal(slot, PD_NO_SLOT);
        ok(pd_index_gather(pd_resident_index(w->resident), &slot, 1, &(pd_rows){.ids = &id}, &err), &err);
        assert_true(id == w->ids[i]);
        assert_int_equal(pd_resident_slot(w->resident, w->ids[i] + 1), PD_NO_SLOT);
    }
}

static void check_posting(const world *w, const pd_attribute *attribute, uint64_t value, const uint8_t *holds)
{
    pd_matches matches;
    uint64_t expected = 0;
    for (uint32_t i = 0; i < N; i++)
        expected += holds[i];
    pd_resident_posting(w->resident, attribute, value, &matches);
    assert_int_equal(matches.rows, expected);
    assert_int_equal(matches.listed, expected <= N / 8 + 1024);
    assert_int_equal(matches.nmore, 0);
    assert_int_equal(matches.nslots, matches.listed ? expected : 0);
    if (!matches.listed) return;
    const uint32_t *slots = matches.slots;
    uint8_t *found = calloc((N / 32 + 100) * 32, 1);
    assert_non_null(found);
    for (uint64_t i = 0; i < matches.nslots; i++) {
        assert_true(i == 0 || slots[i] > slots[i - 1]);
        found[slots[i]] = 1;
    }
    for (uint32_t i = 0; i < N; i++)
        if (holds[i]) assert_int_equal(found[pd_resident_slot(w->resident, w->ids[i])], 1);
    free(found);
}

static void test_postings_agree_with_a_scan(void **state)
{
    world *w = *state;
    const pd_schema *schema = pd_version_info_of(w->version)->schema;
    static uint8_t holds[N];
    const pd_attribute *kind = pd_schema_find(schema, "kind"), *zones = pd_schema_find(schema, "zones");
    const pd_attribute *brand = pd_schema_find(schema, "brand");
    char name[16];
    for (int k = 0; k < 10; k++) {
        for (uint32_t i = 0; i < N; i++)
            holds[i] = kind_of(i) == k;
        snprintf(name, sizeof name, "k%d", k);
        check_posting(w, kind, (uint64_t)pd_attribute_value(kind, name), holds);
    }
    for (uint32_t z = 0; z < 17; z++) {
        for (uint32_t i = 0; i < N; i++)
            holds[i] = z == 0 || i % 17 == z;
        snprintf(name, sizeof name, "z%u", z);
        check_posting(w, zones, (uint64_t)pd_attribute_value(zones, name), holds);
    }
    static const uint64_t brands[] = {5, 1000, 1001, 1699, 1700, 0, UINT64_MAX};
    for (size_t b = 0; b < sizeof brands / sizeof *brands; b++) {
        for (uint32_t i = 0; i < N; i++)
            holds[i] = brands[b] && brand_of(i) == brands[b];
        check_posting(w, brand, brands[b], holds);
    }
}

static void test_histograms_count_every_row_once(void **state)
{
    world *w = *state;
    const pd_schema *schema = pd_version_info_of(w->version)->schema;
    const pd_attribute *price = pd_schema_find(schema, "price"), *kind = pd_schema_find(schema, "kind");
    const uint64_t *prices = pd_resident_histogram(w->resident, price->byte_column);
    assert_int_equal(price->nknots, 4);
    assert_int_equal(prices[0], 0);
    for (uint32_t b = 1; b <= 5; b++)
        assert_int_equal(prices[b], N / 5);
    assert_int_equal(pd_resident_histogram(w->resident, kind->byte_column)[pd_attribute_value(kind, "k0")],
                     N / 2);
}

static void test_ids_take_at_most_24_bytes_a_row(void **state)
{
    (void)state;
    pd_error err;
    for (uint64_t rows = 100; rows < 3000000; rows = rows * 3 + 1) {
        pd_idmap map;
        ok(pd_idmap_open(&map, rows, &err), &err);
        assert_true(pd_idmap_memory(&map) <= rows * 24);
        pd_idmap_close(&map);
    }
}

/* Some count up, some are far apart. */
static uint64_t come_and_go_id(uint32_t i)
{
    return i % 2 ? i : (uint64_t)i * 0x9e3779b97f4a7c15ull;
}

/* Ids that come and go, in a map that is nearly full: what it says is what a plain array says. */
static void test_ids_come_and_go(void **state)
{
    (void)state;
    enum { IDS = 3000 };
    static uint32_t there[IDS];
    pd_idmap map, more;
    pd_error err;
    uint64_t random = 8, count = 0;
    for (uint32_t i = 0; i < IDS; i++)
        there[i] = PD_IDMAP_NONE;
    ok(pd_idmap_open(&map, 100, &err), &err);
    for (uint32_t step = 0; step < 200000; step++) {
        uint32_t i = (uint32_t)pd_random_below(&random, IDS),
                 value = (uint32_t)pd_random_below(&random, 1000);
        uint64_t id = come_and_go_id(i);
        if (pd_random_below(&random, 100) < (step / 20000 % 2 ? 70 : 40)) {
            pd_idmap_remove(&map, id);
            count -= there[i] != PD_IDMAP_NONE;
            there[i] = PD_IDMAP_NONE;
        } else {
            if (map.count == map.room) {
                ok(pd_idmap_copy(&map, map.count + 1, &more, &err), &err);
                assert_true(pd_idmap_memory(&more) <= more.count * 20 + 400);
                pd_idmap_close(&map);
                map = more;
            }
            pd_idmap_set(&map, id, value);
            count += there[i] == PD_IDMAP_NONE;
            there[i] = value;
        }
        assert_true(map.count == count);
        if (step % 1000) continue;
        for (uint32_t k = 0; k < IDS; k++)
            assert_int_equal(pd_idmap_get(&map, come_and_go_id(k)), there[k]);
    }
    pd_idmap_clear(&map);
    assert_int_equal(pd_idmap_get(&map, come_and_go_id(1)), PD_IDMAP_NONE);
    pd_idmap_close(&map);
}

static void test_a_version_that_does_not_fit_is_refused(void **state)
{
    world *w = *state;
    pd_error err;
    pd_resident *resident = NULL;
    pd_device *small = device_make("cpu", 1u << 16);
    assert_int_equal(pd_resident_open(w->version, small, 0, &resident, &err), PD_RESOURCE_EXHAUSTED);
    assert_null(resident);
    assert_int_equal(pd_resident_open(w->version, w->device, UINT32_MAX, &resident, &err),
                     PD_RESOURCE_EXHAUSTED);
    pd_device_close(small);
}

/* What the lists of 5 million rows leave of their last pages empty, measured on a hundredth of them with lists as long;
 * then what a slab needs for all, with what is left of its chunks. */
static void test_five_million_rows_take_little_more_than_their_codes(void **state)
{
    world *w = *state;
    enum { ROWS = 50000, WIDE = 128, TIMES = 100 };
    pd_error err;
    pd_schema *schema = schema_make("table = { metric = \"l2\"; refine = \"none\"; };");
    float *rows = rows_make(ROWS, WIDE, 300, 4);
    pd_build_input in = input_make(schema, rows, ROWS, WIDE);
    in.nlist = pd_auto_nlist((uint64_t)ROWS * TIMES) / TIMES;
    pd_version *version;
    ok(pd_build(&in, path_in(w->folder, "wide"), w->device, NULL, NULL, &err), &err);
    ok(pd_version_open(path_in(w->folder, "wide"), &version, &err), &err);
    const pd_version_info *info = pd_version_info_of(version);
    assert_int_equal(info->shape.code, PD_CODE_I8);
    pd_index_spec spec = {.shape = info->shape, .npages = info->npages * TIMES};
    double least = (double)ROWS * TIMES * (WIDE + 16), taken = (double)pd_index_bytes(&spec);
    assert_true(taken >= least);
    if (taken > 1.15 * least) fail_msg("%.3f times the codes and 16 bytes a row", taken / least);
    pd_version_close(version);
    free(rows);
    pd_schema_free(schema);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_row_is_found_by_its_id_and_no_other),
        cmocka_unit_test(test_postings_agree_with_a_scan),
        cmocka_unit_test(test_histograms_count_every_row_once),
        cmocka_unit_test(test_ids_take_at_most_24_bytes_a_row),
        cmocka_unit_test(test_ids_come_and_go),
        cmocka_unit_test(test_five_million_rows_take_little_more_than_their_codes),
        cmocka_unit_test(test_a_version_that_does_not_fit_is_refused),
    };
    return cmocka_run_group_tests(tests, up, down);
}
