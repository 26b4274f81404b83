/* Building: what is refused and how, what a version then holds. */
#include <dirent.h>
#include <math.h>

#include "files.h"
#include "store_files.h"

static const char *const plain = "table = { metric = \"cosine\"; };";
static const char *const shop =
    "table = { metric = \"l2\"; fallback = ( \"segment:kind\", \"attributes\" ); attributes = ("
    " { name = \"kind\"; type = \"category\"; }, { name = \"price\"; type = \"number\"; },"
    " { name = \"zones\"; type = \"set\"; }, { name = \"brand\"; type = \"key\"; },"
    " { name = \"added\"; type = \"number\"; age = true; knots = ( 7.0, 30.0 ); } ); };";

typedef struct world {
    char folder[64];
    pd_device *device;
} world;

static int up(void **state)
{
    world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    folder_make(w->folder);
    w->device = device_make("cpu", 64u << 20);
    *state = w;
    return 0;
}

static int down(void **state)
{
    world *w = *state;
    folder_drop(w->folder);
    pd_device_close(w->device);
    free(w);
    return 0;
}

static int entries(const char *folder)
{
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    int n = 0;
    while (readdir(dir))
        n++;
    closedir(dir);
    return n - 2;
}

/* A build that must fail: the message holds each of the words, and nothing is left behind. */
static void refused(world *w, const pd_build_input *in, pd_status status, const char *one, const char *two)
{
    pd_error err = {0};
    int before = entries(w->folder);
    assert_int_equal(pd_build(in, path_in(w->folder, "v"), w->device, NULL, NULL, &err), status);
    if (!strstr(err.message, one) || !strstr(err.message, two))
        fail_msg("\"%s\" does not say \"%s\" and \"%s\"", err.message, one, two);
    assert_int_equal(entries(w->folder), before);
}

static void test_a_value_that_is_not_a_number_is_named_by_row_and_column(void **state)
{
    world *w = *state;
    pd_schema *schema = schema_make(plain);
    float *rows = rows_make(50, 6, 3, 1);
    pd_build_input in = input_make(schema, rows, 50, 6);
    rows[17 * 6 + 4] = NAN;
    refused(w, &in, PD_INVALID_ARGUMENT, "row 17, column 4", "not a number");
    rows[17 * 6 + 4] = 1;
    rows[49 * 6] = -INFINITY;
    refused(w, &in, PD_INVALID_ARGUMENT, "row 49, column 0", "infinite");
    rows[49 * 6] = 1;
    memset(rows + 3 * 6, 0, 6 * sizeof *rows);
    refused(w, &in, PD_INVALID_ARGUMENT, "row 3 ", "zero vector");
    free(rows);
    pd_schema_free(schema);
}

static void test_a_duplicate_id_names_both_rows_and_the_one_that_means_none_is_refused(void **state)
{
    world *w = *state;
    pd_schema *schema = schema_make(plain);
    float *rows = rows_make(50, 6, 3, 1);
    uint64_t ids[50];
    for (uint32_t i = 0; i < 50; i++)
        ids[i] = 1000 - i;
    ids[41] = ids[12];
    pd_build_input in = input_make(schema, rows, 50, 6);
    in.ids = ids;
    refused(w, &in, PD_INVALID_ARGUMENT, "rows 12 and 41", "988");
    ids[41] = UINT64_MAX;
    refused(w, &in, PD_INVALID_ARGUMENT, "row 41 ", "18446744073709551615");
    free(rows);
    pd_schema_free(schema);
}

static void test_a_wrong_width_and_too_many_lists_are_refused(void **state)
{
    world *w = *state;
    pd_schema *schema = schema_make("table = { dim = 8; };");
    float *rows = rows_make(50, 6, 3, 1);
    pd_build_input in = input_make(schema, rows, 50, 6);
    refused(w, &in, PD_INVALID_ARGUMENT, "6 columns", "dim = 8");
    pd_schema_free(schema);
    in.schema = schema = schema_make(plain);
    in.nlist = 51;
    refused(w, &in, PD_INVALID_ARGUMENT, "51 lists", "50 rows");
    free(rows);
    pd_schema_free(schema);
}

static void test_an_attribute_error_names_file_line_and_column(void **state)
{
    world *w = *state;
    static const struct {
        const char *csv, *one, *two;
    } cases[] = {
        {"", "things.csv", "empty"},
        {"name,kind\n", "things.csv:1", "\"id\""},
        {"id,colour\n", "things.csv:1", "\"colour\""},
        {"id,kind,kind\n", "things.csv:1", "twice"},
        {"id,kind\n1,a\n77,b\n", "things.csv:3", "id 77"},
        {"id,kind\n1,a\n1,b\n", "things.csv:3", "id 1 is there twice"},
        {"id,kind\n1,a,b\n", "things.csv:2", "3 cells"},
        {"id,kind\nx,a\n", "things.csv:2", "\"x\""},
        {"id,price\n\n1,cheap\n", "things.csv:3", "\"price\""},
        {"id,brand\n1,-4\n", "things.csv:2", "\"brand\""},
        {"id,brand\n1,18446744073709551616\n", "things.csv:2", "\"brand\""},
        {"id,added\n1,yesterday\n", "things.csv:2", "\"added\""},
        {"id,kind\n1,\"a\n", "things.csv", ""},
        {"id,kind\n", "things.csv", "no line"},
    };
    pd_schema *schema = schema_make(shop);
    float *rows = rows_make(50, 6, 3, 1);
    pd_build_input in = input_make(schema, rows, 50, 6);
    in.attributes = path_in(w->folder, "upload");
    in.attributes_name = "things.csv";
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        file_write(path_in(w->folder, "upload"), cases[i].csv);
        in.attributes = path_in(w->folder, "upload");
        refused(w, &in, PD_INVALID_ARGUMENT, cases[i].one, cases[i].two);
    }
    free(rows);
    pd_schema_free(schema);
}

static int stop_at_write(void *context, const char *stage, uint64_t done, uint64_t total)
{
    (void)context;
    (void)done;
    (void)total;
    return !strcmp(stage, "write");
}

static void test_a_build_that_is_stopped_leaves_nothing_behind(void **state)
{
    world *w = *state;
    pd_schema *schema = schema_make(plain);
    float *rows = rows_make(300, 6, 3, 1);
    pd_build_input in = input_make(schema, rows, 300, 6);
    pd_error err;
    assert_int_equal(pd_build(&in, path_in(w->folder, "v"), w->device, stop_at_write, NULL, &err),
                     PD_CANCELLED);
    assert_int_equal(entries(w->folder), 0);
    /* What a crash left is taken away by the next build; a version that is there is not touched. */
    ok(pd_build(&in, path_in(w->folder, "v"), w->device, NULL, NULL, &err), &err);
    assert_int_equal(rename(path_in(w->folder, "v"), path_in(w->folder, "w.tmp")), 0);
    ok(pd_build(&in, path_in(w->folder, "w"), w->device, NULL, NULL, &err), &err);
    assert_int_equal(entries(w->folder), 1);
    assert_int_equal(pd_build(&in, path_in(w->folder, "w"), w->device, NULL, NULL, &err), PD_ALREADY_EXISTS);
    assert_int_equal(entries(w->folder), 1);
    free(rows);
    pd_schema_free(schema);
}

static void test_the_same_input_and_seed_give_the_same_bytes(void **state)
{
    world *w = *state;
    static const char *const files[] = {"manifest.json", "schema.conf", "pages.bin", "pages.sum",
                                        "refine.bin",    "source.bin",  "lists.bin", "segments.bin"};
    pd_schema *schema = schema_make(shop);
    schema->code_dim = 5; /* directions and projected codes too */
    float *rows = rows_make(2000, 12, 9, 1);
    file_write(path_in(w->folder, "a.csv"), "id,kind,price\n5,x,1.5\n3,y,2\n1999,x,7\n");
    pd_build_input in = input_make(schema, rows, 2000, 12);
    in.attributes = path_in(w->folder, "a.csv");
    pd_error err;
    ok(pd_build(&in, path_in(w->folder, "v1"), w->device, NULL, NULL, &err), &err);
    ok(pd_build(&in, path_in(w->folder, "v2"), w->device, NULL, NULL, &err), &err);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char one[128], two[128];
        snprintf(one, sizeof one, "%s/v1/%s", w->folder, files[i]);
        snprintf(two, sizeof two, "%s/v2/%s", w->folder, files[i]);
        size_t n1, n2;
        void *b1 = file_bytes(one, &n1), *b2 = file_bytes(two, &n2);
        assert_int_equal(n1, n2);
        assert_memory_equal(b1, b2, n1);
        free(b1);
        free(b2);
    }
    free(rows);
    pd_schema_free(schema);
}

/* Every file of a version in one sum. */
static uint64_t sum_of_files(const char *folder)
{
    static const char *const files[] = {"manifest.json", "schema.conf", "pages.bin",
                                        "pages.sum",     "refine.bin",  "refine.sum",
                                        "source.bin",    "lists.bin",   "segments.bin"};
    uint64_t sum = 0;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[160];
        size_t length;
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        void *bytes = file_bytes(path, &length);
        sum = sum * 31 + pd_sum_of(bytes, length);
        free(bytes);
    }
    return sum;
}

static void test_the_bytes_depend_neither_on_threads_nor_on_instructions(void **state)
{
    world *w = *state;
    static const char *const isas[] = {NULL, "avx2", "portable"};
    enum { N = 6000, DIM = 37 };
    pd_schema *schema = schema_make(shop);
    schema->code_dim = 9;
    float *rows = rows_make(N, DIM, 9, 1);
    char *csv = malloc(32 * N);
    assert_non_null(csv);
    size_t at = (size_t)sprintf(csv, "id,kind,price\n");
    for (int i = 0; i < N; i++)
        at += (size_t)sprintf(csv + at, "%d,k%d,%d\n", i, i % 7, i % 90);
    file_write(path_in(w->folder, "a.csv"), csv);
    free(csv);
    pd_build_input in = input_make(schema, rows, N, DIM);
    char attributes[128];
    snprintf(attributes, sizeof attributes, "%s/a.csv", w->folder);
    in.attributes = attributes;
    uint64_t first = 0;
    for (size_t isa = 0; isa < 3; isa++) {
        for (uint32_t threads = 1; threads <= 3; threads++) {
            pd_device *device = NULL;
            pd_error err;
            pd_device_options options = {.threads = threads, .isa = isas[isa]};
            if (pd_device_open("cpu", &options, &device, &err)) continue; /* not on this machine */
            ok(pd_build(&in, path_in(w->folder, "v"), device, NULL, NULL, &err), &err);
            uint64_t sum = sum_of_files(path_in(w->folder, "v"));
            if (!first) first = sum;
            assert_true(sum == first);
            ok(pd_folder_remove(path_in(w->folder, "v"), &err), &err);
            pd_device_close(device);
        }
    }
    free(rows);
    pd_schema_free(schema);
}

static int stop_in_training(void *context, const char *stage, uint64_t done, uint64_t total)
{
    int *asked = context;
    if (strcmp(stage, "train") != 0) return 0;
    ++*asked;
    return done > 0 && done < total;
}

static void test_a_build_stops_in_the_middle_of_its_training(void **state)
{
    world *w = *state;
    pd_schema *schema = schema_make(plain);
    float *rows = rows_make(2000, 6, 3, 1);
    pd_build_input in = input_make(schema, rows, 2000, 6);
    pd_error err;
    int asked = 0;
    assert_int_equal(pd_build(&in, path_in(w->folder, "v"), w->device, stop_in_training, &asked, &err),
                     PD_CANCELLED);
    assert_true(asked >= 2);
    assert_int_equal(entries(w->folder), 0);
    free(rows);
    pd_schema_free(schema);
}

/* The schema of a version built under the schema text, with prices from low upwards. */
static pd_schema *built_schema(world *w, const char *name, const char *text, double low)
{
    enum { N = 64 };
    char csv[64 * N] = "id,price\n", file[32];
    for (int i = 0; i < N; i++)
        sprintf(csv + strlen(csv), "%d,%g\n", i, low + i);
    snprintf(file, sizeof file, "%s.csv", name);
    file_write(path_in(w->folder, file), csv);
    pd_schema *schema = schema_make(text), *complete;
    float *rows = rows_make(N, 6, 3, 1);
    pd_build_input in = input_make(schema, rows, N, 6);
    char attributes[128];
    snprintf(attributes, sizeof attributes, "%s/%s", w->folder, file);
    in.attributes = attributes;
    pd_error err;
    pd_version *version;
    ok(pd_build(&in, path_in(w->folder, name), w->device, NULL, NULL, &err), &err);
    ok(pd_version_open(path_in(w->folder, name), &version, &err), &err);
    ok(pd_schema_copy(pd_version_info_of(version)->schema, &complete, &err), &err);
    pd_version_close(version);
    free(rows);
    pd_schema_free(schema);
    return complete;
}

static void test_knots_that_were_chosen_are_chosen_again_for_the_next_version(void **state)
{
    world *w = *state;
    pd_error err;
    char *text;
    pd_schema *first = built_schema(w, "v1",
                                    "table = { metric = \"l2\"; attributes = ("
                                    " { name = \"price\"; type = \"number\"; } ); };",
                                    1);
    ok(pd_schema_text(first, &text, &err), &err);
    pd_schema *second = built_schema(w, "v2", text, 1000);
    const pd_attribute *was = &first->attributes[0], *is = &second->attributes[0];
    assert_true(was->nknots > 1 && was->knots[was->nknots - 1] < 100);
    assert_true(is->nknots > 1 && is->knots[0] >= 1000);
    pd_schema_free(second);
    free(text);
    /* Those that were declared stay. */
    second = built_schema(w, "v3",
                          "table = { metric = \"l2\"; attributes = ("
                          " { name = \"price\"; type = \"number\"; knots = ( 10.0, 20.0 ); } ); };",
                          1000);
    assert_int_equal(second->attributes[0].nknots, 2);
    assert_true(second->attributes[0].knots[1] == 20.0f && !second->attributes[0].chosen);
    pd_schema_free(second);
    pd_schema_free(first);
}

static void test_knots_that_were_ages_move_on_with_the_days(void **state)
{
    world *w = *state;
    pd_error err;
    char *text;
    pd_schema *first =
        built_schema(w, "v1",
                     "table = { metric = \"l2\"; attributes = ("
                     " { name = \"price\"; type = \"number\"; knots = ( 10.0 ); },"
                     " { name = \"added\"; type = \"number\"; age = true; knots = ( 7.0, 30.0 ); },"
                     " { name = \"since\"; type = \"number\"; age = true;"
                     "   knots = ( \"2024-01-01\" ); } ); };",
                     1);
    pd_attribute *added = &first->attributes[1], *since = &first->attributes[2];
    const double now = TODAY; /* as input_make says */
    assert_true(fabs((double)added->knots[0] - (now - 30)) < 0.1);
    assert_true(fabs((double)added->ages_on - now) < 0.1);
    assert_true(since->ages_on == 0);
    /* As if that version were a hundred days old. */
    added->ages_on -= 100;
    added->knots[0] -= 100;
    added->knots[1] -= 100;
    ok(pd_schema_text(first, &text, &err), &err);
    pd_schema *second = built_schema(w, "v2", text, 1);
    assert_true(fabs((double)second->attributes[1].knots[0] - (now - 30)) < 0.1);
    assert_true(fabs((double)second->attributes[1].knots[1] - (now - 7)) < 0.1);
    assert_true(second->attributes[2].knots[0] == since->knots[0]);
    free(text);
    pd_schema_free(second);
    pd_schema_free(first);
}

static void test_attributes_are_joined_by_id_in_any_order(void **state)
{
    world *w = *state;
    pd_schema *schema = schema_make(shop);
    float *rows = rows_make(100, 6, 3, 1);
    uint64_t ids[100];
    for (uint32_t i = 0; i < 100; i++)
        ids[i] = 500 + i * 3;
    file_write(path_in(w->folder, "a.csv"), "id,brand,kind,zones,price,added\n"
                                            "590,77,tea,west|north,2.5,2024-10-01\n"
                                            "503,,coffee,north,,\n"
                                            "500,18446744073709551615,tea,,-1,2024-10-03T12:00:00Z\n");
    pd_build_input in = input_make(schema, rows, 100, 6);
    uint64_t unlisted = 0;
    in.ids = ids;
    in.attributes = path_in(w->folder, "a.csv");
    in.unlisted = &unlisted;
    pd_error err;
    ok(pd_build(&in, path_in(w->folder, "v"), w->device, NULL, NULL, &err), &err);
    assert_int_equal(unlisted, 97); /* the rest is unknown in everything, and the caller may say so */
    pd_version *version;
    pd_resident *resident;
    ok(pd_version_open(path_in(w->folder, "v"), &version, &err), &err);
    ok(pd_resident_open(version, w->device, 2, &resident, &err), &err);
    const pd_schema *s = pd_version_info_of(version)->schema;
    const pd_attribute *kind = pd_schema_find(s, "kind"), *zones = pd_schema_find(s, "zones");
    const pd_attribute *price = pd_schema_find(s, "price"), *added = pd_schema_find(s, "added");
    assert_int_equal(pd_attribute_value(kind, "tea"), 1);
    assert_int_equal(pd_attribute_value(zones, "north"), 1);

    uint64_t asked[4] = {590, 503, 500, 506};
    uint32_t slots[4];
    for (int i = 0; i < 4; i++)
        slots[i] = pd_resident_slot(resident, asked[i]);
    uint64_t got[4], keys[4];
    uint8_t bytes[4 * 11];
    float floats[4 * 2];
    assert_int_equal(s->nbytes, 11);
    assert_int_equal(s->nfloats, 2);
    pd_rows out = {.ids = got, .bytes = bytes, .floats = floats, .keys = keys};
    ok(pd_index_gather(pd_resident_index(resident), slots, 4, &out, &err), &err);
    assert_memory_equal(got, asked, sizeof got);
    assert_int_equal(keys[0], 77);
    assert_true(keys[1] == 0 && keys[2] == UINT64_MAX && keys[3] == 0);
    const uint8_t *row = bytes;
    assert_int_equal(row[kind->byte_column], 1);
    assert_int_equal(row[zones->byte_column], 3); /* west and north */
    assert_true(row[price->byte_column] > 0 && row[added->byte_column] > 0);
    row += 11;
    assert_int_equal(row[kind->byte_column], 2);
    assert_int_equal(row[zones->byte_column], 2);
    assert_int_equal(row[price->byte_column], 0);
    row += 22; /* a row without a line */
    for (uint32_t c = 0; c < 11; c++)
        assert_int_equal(row[c], 0);
    assert_true(floats[0 * 2 + price->float_column] == 2.5f);
    assert_true(isnan(floats[1 * 2 + price->float_column]));
    assert_true(floats[2 * 2 + added->float_column] == 19999.5f);
    pd_resident_close(resident);
    pd_version_close(version);
    free(rows);
    pd_schema_free(schema);
}

static void test_knots_and_representatives_complete_the_schema(void **state)
{
    world *w = *state;
    pd_schema *schema = schema_make(shop);
    enum { N = 1000 };
    float *rows = rows_make(N, 6, 3, 1);
    FILE *csv = fopen(path_in(w->folder, "a.csv"), "w");
    assert_non_null(csv);
    fputs("id,price,added\n", csv);
    for (int i = 0; i < N; i++)
        fprintf(csv, "%d,%d,%d\n", i, i, (int)(86400 * (TODAY - i % 100)));
    assert_int_equal(fclose(csv), 0);
    pd_build_input in = input_make(schema, rows, N, 6);
    in.attributes = path_in(w->folder, "a.csv");
    pd_error err;
    pd_version *version;
    ok(pd_build(&in, path_in(w->folder, "v"), w->device, NULL, NULL, &err), &err);
    ok(pd_version_open(path_in(w->folder, "v"), &version, &err), &err);
    const pd_attribute *price = pd_schema_find(pd_version_info_of(version)->schema, "price");
    assert_int_equal(price->nknots, 31);
    for (uint32_t b = 2; b <= 31; b++) { /* 0..999 in equal parts: the mean is the middle */
        assert_true(price->representatives[b] >= price->knots[b - 2]);
        assert_true(price->representatives[b] < price->knots[b - 1]);
        assert_true(fabsf(price->knots[b - 1] - 31.25f * (float)b) < 2);
    }
    /* Ages of 7 and 30 days are days now, in rising order; a bucket stands for the mean of its days. */
    const pd_attribute *added = pd_schema_find(pd_version_info_of(version)->schema, "added");
    assert_int_equal(added->nknots, 2);
    assert_true(added->knots[0] == (float)TODAY - 30 && added->knots[1] == (float)TODAY - 7);
    assert_true(fabsf(added->representatives[3] - (float)(TODAY - 3.5)) < 0.01f);
    /* Built again from the complete schema fifty days later, they are ages of that day. */
    in.schema = pd_version_info_of(version)->schema;
    in.now = TODAY + 50;
    ok(pd_build(&in, path_in(w->folder, "again"), w->device, NULL, NULL, &err), &err);
    pd_version *again;
    ok(pd_version_open(path_in(w->folder, "again"), &again, &err), &err);
    const pd_attribute *same = pd_schema_find(pd_version_info_of(again)->schema, "added");
    assert_true(same->knots[0] == (float)TODAY + 20 && same->knots[1] == (float)TODAY + 43);
    pd_version_close(again);
    pd_version_close(version);
    free(rows);
    pd_schema_free(schema);
}

static void test_segments_are_means_by_value(void **state)
{
    world *w = *state;
    pd_schema *schema = schema_make(shop);
    float rows[4][2] = {{1, 2}, {3, 4}, {5, 6}, {7, 8}};
    file_write(path_in(w->folder, "a.csv"), "id,kind\n0,a\n1,b\n2,a\n");
    pd_build_input in = input_make(schema, rows[0], 4, 2);
    in.attributes = path_in(w->folder, "a.csv");
    pd_error err;
    pd_version *version;
    ok(pd_build(&in, path_in(w->folder, "v"), w->device, NULL, NULL, &err), &err);
    ok(pd_version_open(path_in(w->folder, "v"), &version, &err), &err);
    const pd_version_info *info = pd_version_info_of(version);
    assert_int_equal(info->shape.nlist, 1);
    float mean[2];
    assert_int_equal(pd_version_segment(version, 0, 0, mean), 1);
    assert_int_equal(pd_version_segment(version, 0, 1, mean), 2);
    assert_true(mean[0] == 3 && mean[1] == 4);
    assert_int_equal(pd_version_segment(version, 0, 2, mean), 1);
    assert_true(mean[0] == 3 && mean[1] == 4);
    assert_int_equal(pd_version_segment(version, 0, 3, mean), 0);
    assert_int_equal(pd_version_segment(version, 1, 0, mean), 0);
    pd_version_close(version);
    pd_schema_free(schema);
}

/* Inside a list: by the leading attribute, then by id. */
static pd_status check_order(void *context, uint32_t page, const void *bytes, pd_error *err)
{
    const pd_version_info *info = context;
    void *p = (void *)bytes;
    const uint64_t *ids = pd_page_ids(&info->layout, p);
    const uint8_t *kinds = pd_page_bytes(&info->layout, p, 0);
    for (uint32_t r = 1; r < PD_PAGE_ROWS && !isinf(pd_page_term(&info->layout, p)[r]); r++)
        if (kinds[r] < kinds[r - 1] || (kinds[r] == kinds[r - 1] && ids[r] <= ids[r - 1]))
            return pd_fail(err, PD_INTERNAL, "page %u, row %u is out of order", page, r);
    return PD_OK;
}

static void test_rows_of_a_list_are_ordered_by_the_leading_attribute(void **state)
{
    world *w = *state;
    pd_schema *schema = schema_make(shop);
    enum { N = 3000 };
    float *rows = rows_make(N, 6, 3, 1);
    FILE *csv = fopen(path_in(w->folder, "a.csv"), "w");
    assert_non_null(csv);
    fputs("id,kind\n", csv);
    for (int i = 0; i < N; i += 2)
        fprintf(csv, "%d,k%d\n", i, i * 7 % 11);
    assert_int_equal(fclose(csv), 0);
    pd_build_input in = input_make(schema, rows, N, 6);
    in.attributes = path_in(w->folder, "a.csv");
    in.nlist = 4;
    pd_error err;
    pd_version *version;
    pd_index *index;
    ok(pd_build(&in, path_in(w->folder, "v"), w->device, NULL, NULL, &err), &err);
    ok(pd_version_open(path_in(w->folder, "v"), &version, &err), &err);
    const pd_version_info *info = pd_version_info_of(version);
    pd_index_spec spec = {.shape = info->shape, .npages = info->npages, .name = "things"};
    ok(pd_index_open(w->device, &spec, &index, &err), &err);
    ok(pd_version_load(version, index, check_order, (void *)info, &err), &err);
    pd_index_close(index);
    pd_version_close(version);
    free(rows);
    pd_schema_free(schema);
}

static void test_tables_may_be_empty_small_or_without_lists(void **state)
{
    world *w = *state;
    static const char *const schemas[] = {plain, "table = { metric = \"ip\"; index = \"none\"; };",
                                          "table = { metric = \"l2\"; code = \"f32\"; refine = \"none\"; };",
                                          "table = { code = \"f16\"; source = \"f16\"; };"};
    static const uint32_t sizes[] = {0, 1, 31, 33, 400};
    pd_error err;
    for (size_t s = 0; s < sizeof schemas / sizeof *schemas; s++) {
        for (size_t n = 0; n < sizeof sizes / sizeof *sizes; n++) {
            pd_schema *schema = schema_make(schemas[s]);
            float *rows = rows_make(sizes[n], 5, 3, 1);
            pd_build_input in = input_make(schema, rows, sizes[n], 5);
            pd_version *version;
            pd_resident *resident;
            ok(pd_build(&in, path_in(w->folder, "v"), w->device, NULL, NULL, &err), &err);
            ok(pd_version_open(path_in(w->folder, "v"), &version, &err), &err);
            ok(pd_resident_open(version, w->device, 0, &resident, &err), &err);
            const pd_version_info *info = pd_version_info_of(version);
            assert_int_equal(info->rows, sizes[n]);
            assert_int_equal(info->schema->dim, 5);
            uint32_t nlist = schema->index ? (sizes[n] ? pd_auto_nlist(sizes[n]) : 1) : 0;
            assert_int_equal(info->shape.nlist, nlist);
            for (uint32_t i = 0; i < sizes[n]; i++) {
                uint32_t slot = pd_resident_slot(resident, i);
                assert_int_not_equal(slot, PD_NO_SLOT);
                if (!schema->index) assert_int_equal(slot, i);
            }
            assert_int_equal(pd_resident_slot(resident, sizes[n]), PD_NO_SLOT);
            pd_resident_close(resident);
            pd_version_close(version);
            ok(pd_folder_remove(path_in(w->folder, "v"), &err), &err);
            free(rows);
            pd_schema_free(schema);
        }
    }
}

static void test_rows_of_whole_numbers_are_kept_as_they_come(void **state)
{
    world *w = *state;
    uint8_t small[40 * 6];
    for (uint32_t i = 0; i < 40 * 6; i++)
        small[i] = (uint8_t)(i * 41);
    static const struct {
        const char *schema;
        pd_dtype dtype;
        pd_refine refine;
    } cases[] = {{"table = { metric = \"l2\"; };", PD_DTYPE_U8, PD_REFINE_U8},
                 {"table = { metric = \"ip\"; };", PD_DTYPE_I8, PD_REFINE_I8},
                 {"table = { metric = \"cosine\"; };", PD_DTYPE_U8, PD_REFINE_F16},
                 {"table = { metric = \"l2\"; refine = \"f16\"; };", PD_DTYPE_U8, PD_REFINE_F16},
                 {"table = { metric = \"l2\"; code = \"f32\"; };", PD_DTYPE_U8, PD_REFINE_NONE}};
    pd_error err = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pd_schema *schema = schema_make(cases[i].schema);
        pd_build_input in = input_make(schema, (const float *)(const void *)small, 40, 6);
        in.dtype = cases[i].dtype;
        pd_version *version = NULL;
        ok(pd_build(&in, path_in(w->folder, "v"), w->device, NULL, NULL, &err), &err);
        ok(pd_version_open(path_in(w->folder, "v"), &version, &err), &err);
        assert_int_equal(pd_version_info_of(version)->shape.refine, cases[i].refine);
        assert_int_equal(pd_version_info_of(version)->schema->refine_said,
                         strstr(cases[i].schema, "refine") != NULL);
        pd_version_close(version);
        ok(pd_folder_remove(path_in(w->folder, "v"), &err), &err);
        pd_schema_free(schema);
    }
    pd_schema *schema = schema_make("table = { metric = \"l2\"; refine = \"u8\"; };");
    float rows[40 * 6];
    for (uint32_t i = 0; i < 40 * 6; i++)
        rows[i] = (float)small[i];
    pd_build_input in = input_make(schema, rows, 40, 6);
    ok(pd_build(&in, path_in(w->folder, "v"), w->device, NULL, NULL, &err), &err);
    ok(pd_folder_remove(path_in(w->folder, "v"), &err), &err);
    rows[3 * 6 + 2] = 7.5f;
    refused(w, &in, PD_INVALID_ARGUMENT, "row 3, column 2 is 7.5", "u8");
    rows[3 * 6 + 2] = -1;
    refused(w, &in, PD_INVALID_ARGUMENT, "row 3, column 2 is -1", "from 0 to 255");
    pd_schema_free(schema);
}

static void test_the_number_of_lists_follows_the_rows(void **state)
{
    (void)state;
    assert_int_equal(pd_auto_nlist(0), 1);
    assert_int_equal(pd_auto_nlist(10), 1);
    assert_int_equal(pd_auto_nlist(400), 8);
    assert_int_equal(pd_auto_nlist(60000), 488);
    assert_int_equal(pd_auto_nlist(1000000), 2000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_value_that_is_not_a_number_is_named_by_row_and_column, up,
                                        down),
        cmocka_unit_test_setup_teardown(
            test_a_duplicate_id_names_both_rows_and_the_one_that_means_none_is_refused, up, down),
        cmocka_unit_test_setup_teardown(test_a_wrong_width_and_too_many_lists_are_refused, up, down),
        cmocka_unit_test_setup_teardown(test_an_attribute_error_names_file_line_and_column, up, down),
        cmocka_unit_test_setup_teardown(test_a_build_that_is_stopped_leaves_nothing_behind, up, down),
        cmocka_unit_test_setup_teardown(test_the_same_input_and_seed_give_the_same_bytes, up, down),
        cmocka_unit_test_setup_teardown(test_the_bytes_depend_neither_on_threads_nor_on_instructions, up,
                                        down),
        cmocka_unit_test_setup_teardown(test_a_build_stops_in_the_middle_of_its_training, up, down),
        cmocka_unit_test_setup_teardown(test_knots_that_were_chosen_are_chosen_again_for_the_next_version, up,
                                        down),
        cmocka_unit_test_setup_teardown(test_knots_that_were_ages_move_on_with_the_days, up, down),
        cmocka_unit_test_setup_teardown(test_attributes_are_joined_by_id_in_any_order, up, down),
        cmocka_unit_test_setup_teardown(test_knots_and_representatives_complete_the_schema, up, down),
        cmocka_unit_test_setup_teardown(test_segments_are_means_by_value, up, down),
        cmocka_unit_test_setup_teardown(test_rows_of_a_list_are_ordered_by_the_leading_attribute, up, down),
        cmocka_unit_test_setup_teardown(test_tables_may_be_empty_small_or_without_lists, up, down),
        cmocka_unit_test_setup_teardown(test_rows_of_whole_numbers_are_kept_as_they_come, up, down),
        cmocka_unit_test(test_the_number_of_lists_follows_the_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
