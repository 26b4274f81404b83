/* Version files: they load to what was written, and nothing that is damaged or hostile passes. */
#include <dirent.h>
#include <math.h>

#include "files.h"
#include "manifest.h"
#include "store_files.h"

enum { N = 700, DIM = 9 };
static const char *const shop =
    "table = { metric = \"ip\"; fallback = ( \"segment:kind\" ); attributes = ("
    " { name = \"kind\"; type = \"category\"; }, { name = \"price\"; type = \"number\"; },"
    " { name = \"zones\"; type = \"set\"; }, { name = \"brand\"; type = \"key\"; } ); };";

typedef struct world {
    char folder[64], version[80];
    pd_device *device;
    float *rows;
} world;

static int up(void **state)
{
    world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    folder_make(w->folder);
    w->device = device_make("cpu", 16u << 20);
    w->rows = rows_make(N, DIM, 6, 2);
    FILE *csv = fopen(path_in(w->folder, "a.csv"), "w");
    assert_non_null(csv);
    fputs("id,kind,price,zones,brand\n", csv);
    for (int i = 0; i < N; i++)
        fprintf(csv, "%d,k%d,%d.5,z%d|z%d,%d\n", i, i % 5, i % 40, i % 3, i % 11, i % 50);
    assert_int_equal(fclose(csv), 0);
    pd_schema *schema = schema_make(shop);
    pd_build_input in = input_make(schema, w->rows, N, DIM);
    in.attributes = path_in(w->folder, "a.csv");
    pd_error err;
    snprintf(w->version, sizeof w->version, "%s/v", w->folder);
    ok(pd_build(&in, w->version, w->device, NULL, NULL, &err), &err);
    pd_calibration calibration = {.measured = 1, .queries = 9, .source = "file", .similarity_sd = 0.1f};
    calibration.curves[1][2].points = 2;
    calibration.curves[1][2].at[0].nprobe = 1;
    calibration.curves[1][2].at[0].recall = 0.7f;
    calibration.curves[1][2].at[0].lower = 0.6f;
    calibration.curves[1][2].at[1].nprobe = 9;
    calibration.curves[1][2].at[1].depth = 14;
    calibration.curves[1][2].at[1].recall = 0.95f;
    calibration.curves[1][2].at[1].lower = 0.9f;
    ok(pd_version_set_calibration(w->version, &calibration, &err), &err);
    pd_schema_free(schema);
    *state = w;
    return 0;
}

static int down(void **state)
{
    world *w = *state;
    folder_drop(w->folder);
    pd_device_close(w->device);
    free(w->rows);
    free(w);
    return 0;
}

typedef struct seen {
    const unsigned char *pages;
    size_t page_bytes;
    uint32_t next;
} seen;

static pd_status same_page(void *context, uint32_t page, const void *bytes, pd_error *err)
{
    seen *s = context;
    if (page != s->next++ || memcmp(bytes, s->pages + page * s->page_bytes, s->page_bytes) != 0)
        return pd_fail(err, PD_INTERNAL, "page %u is not what the file holds", page);
    return PD_OK;
}

static void test_a_version_loads_to_the_same_bits(void **state)
{
    world *w = *state;
    pd_error err;
    pd_version *version;
    pd_index *index;
    ok(pd_version_open(w->version, &version, &err), &err);
    const pd_version_info *info = pd_version_info_of(version);
    assert_string_equal(info->table, "things");
    assert_int_equal(info->version, 7);
    assert_true(info->created == TODAY);
    size_t length;
    void *pages = file_bytes(path_in(w->version, "pages.bin"), &length);
    assert_int_equal(length, info->npages * info->layout.page_bytes);
    seen s = {pages, info->layout.page_bytes, 0};
    pd_index_spec spec = {.shape = info->shape, .npages = info->npages + 3, .name = "things"};
    ok(pd_index_open(w->device, &spec, &index, &err), &err);
    ok(pd_version_load(version, index, same_page, &s, &err), &err);
    assert_int_equal(s.next, info->npages);
    pd_index_close(index);
    pd_version_close(version);
    free(pages);
}

static void test_a_calibration_comes_back_to_the_bit(void **state)
{
    world *w = *state;
    pd_error err;
    pd_version *version;
    ok(pd_version_open(w->version, &version, &err), &err);
    const pd_calibration *c = pd_version_info_of(version)->calibration;
    assert_true(c->measured && c->queries == 9 && !strcmp(c->source, "file") && c->similarity_sd == 0.1f);
    assert_int_equal(c->curves[1][2].points, 2);
    assert_true(c->curves[1][2].at[1].nprobe == 9 && c->curves[1][2].at[1].recall == 0.95f);
    assert_true(c->curves[1][2].at[0].lower == 0.6f && c->curves[0][0].points == 0);
    assert_true(c->curves[1][2].at[0].depth == 0 && c->curves[1][2].at[1].depth == 14);
    pd_version_close(version);
}

static void rewrite(const char *path, json_t *body)
{
    pd_error err;
    json_object_del(body, "xxh3"); /* the writer's */
    char *text;
    size_t length;
    ok(pd_sealed_text(body, &text, &length, &err), &err);
    ok(pd_file_replace(path, text, length, &err), &err);
    free(text);
}

static void test_a_calibration_of_before_points_had_depths_is_read(void **state)
{
    world *w = *state;
    pd_error err;
    pd_calibration c;
    json_t *body;
    char path[128];
    snprintf(path, sizeof path, "%s/calibration.json", w->version);
    ok(pd_sealed_read(path, 1u << 20, &body, &err), &err);
    json_t *whole = json_deep_copy(body);
    json_t *points = json_object_get(json_array_get(json_object_get(body, "curves"), 0), "points");
    for (size_t i = 0; i < json_array_size(points); i++)
        assert_int_equal(json_array_remove(json_array_get(points, i), 3), 0);
    rewrite(path, body);
    ok(pd_calibration_read(path, &c, &err), &err);
    assert_true(c.curves[1][2].points == 2 && c.curves[1][2].at[1].depth == 0);
    json_object_set_new(body, "depths", json_pack("[i, i, i, i]", 3, 14, 0, 2032));
    rewrite(path, body);
    ok(pd_calibration_read(path, &c, &err), &err);
    assert_true(c.curves[1][2].at[0].depth == 14 && c.curves[1][2].at[1].depth == 14);
    /* Fewer than the hits, or more than the kernels would: nothing that was measured. */
    static const int refused[][2] = {{1, 9}, {1, 53}, {3, 999}, {0, -1}};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        json_t *bad = json_deep_copy(body);
        json_array_set_new(json_object_get(bad, "depths"), (size_t)refused[i][0],
                           json_integer(refused[i][1]));
        rewrite(path, bad);
        assert_int_equal(pd_calibration_read(path, &c, &err), PD_DATA_LOSS);
        assert_non_null(strstr(err.message, "calibration.json"));
        json_decref(bad);
    }
    json_t *bad = json_deep_copy(whole);
    points = json_object_get(json_array_get(json_object_get(bad, "curves"), 0), "points");
    json_array_set_new(json_array_get(points, 1), 3, json_integer(53));
    rewrite(path, bad);
    assert_int_equal(pd_calibration_read(path, &c, &err), PD_DATA_LOSS);
    json_decref(bad);
    rewrite(path, whole);
    json_decref(whole);
    json_decref(body);
}

static void test_source_rows_come_back_by_slot(void **state)
{
    world *w = *state;
    pd_error err;
    pd_version *version;
    pd_resident *resident;
    ok(pd_version_open(w->version, &version, &err), &err);
    ok(pd_resident_open(version, w->device, 0, &resident, &err), &err);
    float row[DIM];
    for (uint64_t id = 0; id < N; id += 13) {
        uint32_t slot = pd_resident_slot(resident, id);
        ok(pd_version_source(version, &slot, 1, row, &err), &err);
        assert_memory_equal(row, w->rows + id * DIM, sizeof row);
    }
    uint32_t beyond = UINT32_MAX - 1;
    assert_int_equal(pd_version_source(version, &beyond, 1, row, &err), PD_OUT_OF_RANGE);
    pd_resident_close(resident);
    pd_version_close(version);
}

static void test_exact_search_over_the_files_is_brute_force(void **state)
{
    world *w = *state;
    pd_error err;
    pd_version *version;
    ok(pd_version_open(w->version, &version, &err), &err);
    float *queries = rows_make(20, DIM, 6, 77);
    for (uint32_t q = 0; q < 20; q++) {
        pd_hit hits[5];
        pd_query query = {.vector = queries + q * DIM, .similarity = 1, .k = 5, .min_score = -INFINITY};
        pd_answer answer = {.hits = hits};
        ok(pd_version_exact(version, w->device, &query, 1, &answer, NULL, NULL, &err), &err);
        assert_int_equal(answer.count, 5);
        uint32_t better[5] = {0};
        for (uint32_t i = 0; i < N; i++) {
            float score = pd_dot(query.vector, w->rows + i * DIM, DIM);
            for (uint32_t h = 0; h < 5; h++)
                better[h] += score > hits[h].score || (score == hits[h].score && i < hits[h].id);
        }
        for (uint32_t h = 0; h < 5; h++)
            assert_int_equal(better[h], h);
    }
    free(queries);
    pd_version_close(version);
}

/* Everything that reads every file: opening, loading, exact search. */
static pd_status use(world *w, pd_error *err)
{
    pd_version *version = NULL;
    pd_resident *resident = NULL;
    pd_status status = pd_version_open(w->version, &version, err);
    if (status) return status;
    status = pd_resident_open(version, w->device, 0, &resident, err);
    pd_hit hits[3];
    pd_query query = {.vector = w->rows, .similarity = 1, .k = 3, .min_score = -INFINITY};
    pd_answer answer = {.hits = hits};
    if (!status) status = pd_version_exact(version, w->device, &query, 1, &answer, NULL, NULL, err);
    pd_resident_close(resident);
    pd_version_close(version);
    return status;
}

static void put(const char *path, const void *bytes, size_t length)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
}

static void test_a_flipped_byte_in_any_file_is_data_loss_naming_it(void **state)
{
    world *w = *state;
    pd_error err;
    ok(use(w, &err), &err);
    DIR *dir = opendir(w->version);
    assert_non_null(dir);
    struct dirent *entry;
    int files = 0;
    uint64_t random = 4;
    while ((entry = readdir(dir))) {
        if (entry->d_name[0] == '.') continue;
        const char *path = path_in(w->version, entry->d_name);
        size_t length;
        unsigned char *bytes = file_bytes(path, &length);
        files++;
        for (int i = 0; i < 12; i++) {
            size_t at = i == 0 ? 0 : i == 1 ? length - 1 : (size_t)pd_random_below(&random, length);
            bytes[at] ^= 0x10;
            put(path, bytes, length);
            if (use(w, &err) != PD_DATA_LOSS || !strstr(err.message, entry->d_name))
                fail_msg("%s, byte %zu: %s", entry->d_name, at, err.message);
            if (!strcmp(entry->d_name, "pages.bin") && !strstr(err.message, "page "))
                fail_msg("no page is named: %s", err.message);
            bytes[at] ^= 0x10;
        }
        put(path, bytes, length - 1); /* cut short */
        assert_int_equal(use(w, &err), PD_DATA_LOSS);
        put(path, bytes, length);
        ok(use(w, &err), &err);
        if (strcmp(entry->d_name, "calibration.json") != 0) {
            assert_int_equal(unlink(path), 0);
            assert_int_equal(use(w, &err), PD_DATA_LOSS);
            assert_non_null(strstr(err.message, entry->d_name));
            put(path, bytes, length);
        }
        free(bytes);
    }
    closedir(dir);
    assert_int_equal(files, 11);
}

static void test_a_version_that_is_not_there_is_not_found(void **state)
{
    world *w = *state;
    pd_error err;
    pd_version *version;
    assert_int_equal(pd_version_open(path_in(w->folder, "none"), &version, &err), PD_NOT_FOUND);
    assert_null(version);
}

#define ABSENT INT64_MIN

/* Writes manifest.json again with one number changed, or gone, and a checksum that fits. */
static void forge(world *w, const char *key, json_int_t value)
{
    pd_error err;
    json_t *root = NULL;
    const char *path = path_in(w->version, "manifest.json");
    ok(pd_sealed_read(path, 1 << 20, &root, &err), &err);
    json_object_del(root, "xxh3");
    if (value == ABSENT)
        json_object_del(root, key);
    else
        json_object_set_new(root, key, json_integer(value));
    char *text;
    size_t length;
    ok(pd_sealed_text(root, &text, &length, &err), &err);
    put(path, text, length);
    free(text);
    json_decref(root);
}

static void test_a_forged_manifest_allocates_nothing_and_is_refused(void **state)
{
    world *w = *state;
    static const struct {
        const char *key;
        json_int_t values[4];
    } cases[] = {
        {"rows", {0, N + 1, 1ll << 36, INT64_MAX}},     {"npages", {0, 1, 134217727, INT64_MAX}},
        {"nlist", {0, 1, 16777216, INT64_MAX}},         {"dim", {0, 1, 8192, INT64_MAX}},
        {"page_bytes", {0, 64, 16777216, INT64_MAX}},   {"format", {0, 2, 3, INT64_MAX}},
        {"sequence", {-1, INT64_MIN + 1, -7, -2}},      {"parent", {-1, INT64_MIN + 1, -7, -2}},
        {"refine_bytes", {0, 64, 16777216, INT64_MAX}}, {"source_bytes", {0, 64, 16777216, -1}},
    };
    size_t length;
    void *whole = file_bytes(path_in(w->version, "manifest.json"), &length);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        for (int i = 0; i < 4; i++) {
            pd_error err;
            forge(w, cases[c].key, cases[c].values[i]);
            if (use(w, &err) != PD_DATA_LOSS)
                fail_msg("%s = %lld: %s", cases[c].key, (long long)cases[c].values[i], err.message);
            put(path_in(w->version, "manifest.json"), whole, length);
        }
    }
    free(whole);
}

static void test_a_version_says_which_changes_it_holds_and_what_it_was_made_of(void **state)
{
    world *w = *state;
    pd_schema *schema = schema_make("table = { index = \"none\"; };");
    pd_build_input in = input_make(schema, w->rows, 40, DIM);
    in.sequence = 123456789012345;
    in.parent = 6;
    pd_error err;
    pd_version *version;
    const char *folder = path_in(w->folder, "rebuilt");
    ok(pd_build(&in, folder, w->device, NULL, NULL, &err), &err);
    ok(pd_version_open(folder, &version, &err), &err);
    assert_true(pd_version_info_of(version)->sequence == 123456789012345);
    assert_int_equal(pd_version_info_of(version)->parent, 6);
    pd_version_close(version);
    in.sequence = (uint64_t)INT64_MAX + 1;
    assert_int_equal(pd_build(&in, path_in(w->folder, "not"), w->device, NULL, NULL, &err),
                     PD_INVALID_ARGUMENT);
    pd_schema_free(schema);
}

static void test_a_version_of_before_changes_holds_none(void **state)
{
    world *w = *state;
    pd_error err;
    pd_version *version;
    size_t length;
    void *whole = file_bytes(path_in(w->version, "manifest.json"), &length);
    forge(w, "sequence", ABSENT);
    forge(w, "parent", ABSENT);
    ok(pd_version_open(w->version, &version, &err), &err);
    assert_int_equal(pd_version_info_of(version)->sequence, 0);
    assert_int_equal(pd_version_info_of(version)->parent, 0);
    pd_version_close(version);
    put(path_in(w->version, "manifest.json"), whole, length);
    free(whole);
}

static void test_a_small_file_is_replaced_whole(void **state)
{
    world *w = *state;
    pd_error err;
    const char *path = path_in(w->folder, "CURRENT");
    ok(pd_file_replace(path, "1\n", 2, &err), &err);
    file_write(path_in(w->folder, "CURRENT.tmp"), "what a crash left");
    ok(pd_file_replace(path, "23\n", 3, &err), &err);
    size_t length;
    char *text = file_bytes(path, &length);
    assert_string_equal(text, "23\n");
    assert_int_not_equal(access(path_in(w->folder, "CURRENT.tmp"), F_OK), 0);
    free(text);
    assert_int_equal(pd_file_replace(path_in(w->folder, "none/CURRENT"), "1", 1, &err), PD_NOT_FOUND);
    assert_int_equal(pd_folder_remove(path_in(w->folder, "none"), &err), PD_NOT_FOUND);
    assert_non_null(strstr(err.message, "none"));
}

static void test_a_full_disk_is_told_by_name(void **state)
{
    (void)state;
    pd_error err;
    pd_out out;
    char folder[64];
    folder_make(folder);
    assert_int_equal(symlink("/dev/full", path_in(folder, "a.tmp")), 0);
    /* The writer wants a new file, so that it never follows what is there. */
    assert_int_equal(pd_out_open(&out, folder, "a.tmp", &err), PD_ALREADY_EXISTS);
    ok(pd_out_open(&out, folder, "b", &err), &err);
    FILE *full = fopen("/dev/full", "w");
    assert_non_null(full);
    assert_int_equal(dup2(fileno(full), out.fd), out.fd);
    fclose(full);
    ok(pd_out_write(&out, "abc", 3, &err), &err);
    assert_int_equal(pd_out_finish(&out, NULL, NULL, &err), PD_RESOURCE_EXHAUSTED);
    assert_non_null(strstr(err.message, "/b"));
    folder_drop(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_version_loads_to_the_same_bits),
        cmocka_unit_test(test_a_calibration_comes_back_to_the_bit),
        cmocka_unit_test(test_a_calibration_of_before_points_had_depths_is_read),
        cmocka_unit_test(test_source_rows_come_back_by_slot),
        cmocka_unit_test(test_exact_search_over_the_files_is_brute_force),
        cmocka_unit_test(test_a_flipped_byte_in_any_file_is_data_loss_naming_it),
        cmocka_unit_test(test_a_version_that_is_not_there_is_not_found),
        cmocka_unit_test(test_a_forged_manifest_allocates_nothing_and_is_refused),
        cmocka_unit_test(test_a_version_says_which_changes_it_holds_and_what_it_was_made_of),
        cmocka_unit_test(test_a_version_of_before_changes_holds_none),
        cmocka_unit_test(test_a_small_file_is_replaced_whole),
        cmocka_unit_test(test_a_full_disk_is_told_by_name),
    };
    return cmocka_run_group_tests(tests, up, down);
}
