/* Rebuilding: a version from rows whose attributes are columns already is the version that the CSV gave. */
#include <math.h>

#include "store_files.h"
#include "version_impl.h"

enum { N = 900, DIM = 10, QUERIES = 12, K = 15 };
static const char *const shop =
    "table = { metric = \"%s\"; fallback = ( \"segment:kind\" ); attributes = ("
    " { name = \"kind\"; type = \"category\"; }, { name = \"price\"; type = \"number\"; },"
    " { name = \"zones\"; type = \"set\"; }, { name = \"brand\"; type = \"key\"; },"
    " { name = \"added\"; type = \"number\"; age = true; knots = ( 7.0, 30.0 ); },"
    " { name = \"liked\"; type = \"number\"; knots = ( 1.0, 4.0 ); feedback = { half_life_hours = 24.0; }; },"
    " { name = \"size\"; type = \"category\"; values = ( \"s\", \"m\", \"l\" ); } ); };";

/* All that a version holds of its rows, by row, as a stream of them brings it. */
typedef struct rows {
    uint64_t n;
    float *vectors;
    uint64_t *ids;
    uint8_t *bytes;
    float *floats;
    uint64_t *keys;
} rows;

typedef struct world {
    char folder[64], pushed[80], rebuilt[80];
    pd_device *device;
    rows rows;
} world;

static int up(void **state)
{
    world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    folder_make(w->folder);
    snprintf(w->pushed, sizeof w->pushed, "%s/pushed", w->folder);
    snprintf(w->rebuilt, sizeof w->rebuilt, "%s/rebuilt", w->folder);
    w->device = device_make("cpu", 32u << 20);
    *state = w;
    return 0;
}

static int down(void **state)
{
    world *w = *state;
    folder_drop(w->folder);
    pd_device_close(w->device);
    free(w->rows.vectors);
    free(w->rows.ids);
    free(w->rows.bytes);
    free(w->rows.floats);
    free(w->rows.keys);
    free(w);
    return 0;
}

static const pd_version_info *opened(const char *folder, pd_version **version)
{
    pd_error err;
    ok(pd_version_open(folder, version, &err), &err);
    return pd_version_info_of(*version);
}

/* Pushes rows with a CSV; one row in nine has no line. */
static void push(world *w, const char *metric)
{
    char text[2048];
    snprintf(text, sizeof text, shop, metric);
    FILE *csv = fopen(path_in(w->folder, "a.csv"), "w");
    assert_non_null(csv);
    fputs("id,kind,price,zones,brand,added,liked,size\n", csv);
    for (int i = 0; i < N; i++)
        if (i % 9)
            fprintf(csv, "%d,k%d,%d.25,z%d|z%d,%d,%d,%d.5,%s\n", 7 * i, i % 5, i % 60, i % 3, i % 11, i % 50,
                    (19900 + i % 99) * 86400, i % 8, i % 2 ? "m" : "");
    assert_int_equal(fclose(csv), 0);
    pd_schema *schema = schema_make(text);
    float *vectors = rows_make(N, DIM, 6, 2);
    uint64_t ids[N];
    for (uint64_t i = 0; i < N; i++)
        ids[i] = 7 * i;
    pd_build_input in = input_make(schema, vectors, N, DIM);
    in.ids = ids;
    in.attributes = path_in(w->folder, "a.csv");
    pd_error err;
    ok(pd_build(&in, w->pushed, w->device, NULL, NULL, &err), &err);
    free(vectors);
    pd_schema_free(schema);
}

static void room_for(rows *r, const pd_version_info *info)
{
    const pd_shape *s = &info->shape;
    r->vectors = malloc(info->rows * s->dim * sizeof *r->vectors);
    r->ids = malloc(info->rows * sizeof *r->ids);
    r->bytes = malloc(info->rows * s->nbytes + 1);
    r->floats = malloc((info->rows * s->nfloats + 1) * sizeof *r->floats);
    r->keys = malloc((info->rows * s->nkeys + 1) * sizeof *r->keys);
    assert_true(r->vectors && r->ids && r->bytes && r->floats && r->keys);
}

static void take_slot(rows *r, const pd_version_info *info, void *page, uint32_t place)
{
    const pd_shape *s = &info->shape;
    r->ids[r->n] = pd_page_ids(&info->layout, page)[place];
    for (uint32_t c = 0; c < s->nbytes; c++)
        r->bytes[r->n * s->nbytes + c] = pd_page_bytes(&info->layout, page, c)[place];
    for (uint32_t c = 0; c < s->nfloats; c++)
        r->floats[r->n * s->nfloats + c] = pd_page_floats(&info->layout, page, c)[place];
    for (uint32_t c = 0; c < s->nkeys; c++)
        r->keys[r->n * s->nkeys + c] = pd_page_keys(&info->layout, page, c)[place];
    r->n++;
}

/* The rows of a version in slot order, as a rebuild streams them. */
static void take_rows(world *w, const char *folder)
{
    pd_version *version;
    const pd_version_info *info = opened(folder, &version);
    rows *r = &w->rows;
    pd_error err;
    void *page = aligned_alloc(64, info->layout.page_bytes);
    assert_non_null(page);
    room_for(r, info);
    for (uint32_t p = 0; p < info->npages; p++) {
        ok(pd_page_file_read(&version->files[PD_FILE_PAGES], p, 1, page, &err), &err);
        for (uint32_t i = 0; i < PD_PAGE_ROWS; i++) {
            if (isinf(pd_page_term(&info->layout, page)[i])) continue;
            uint32_t slot = p * PD_PAGE_ROWS + i;
            ok(pd_version_source(version, &slot, 1, r->vectors + r->n * info->shape.dim, &err), &err);
            take_slot(r, info, page, i);
        }
    }
    assert_int_equal(r->n, info->rows);
    free(page);
    pd_version_close(version);
}

static int by_id(const void *left, const void *right)
{
    uint64_t l = **(uint64_t *const *)left, r = **(uint64_t *const *)right;
    return (l > r) - (l < r);
}

/* Puts the rows back into the order in which they were pushed, that of their ids. */
static void sort_rows(rows *r, const pd_version_info *info)
{
    const pd_shape *s = &info->shape;
    uint64_t **order = malloc(r->n * sizeof *order);
    assert_non_null(order);
    for (uint64_t i = 0; i < r->n; i++)
        order[i] = &r->ids[i];
    qsort(order, r->n, sizeof *order, by_id);
    rows sorted = {.n = r->n};
    room_for(&sorted, info);
    for (uint64_t i = 0; i < r->n; i++) {
        uint64_t from = (uint64_t)(order[i] - r->ids);
        sorted.ids[i] = r->ids[from];
        memcpy(sorted.vectors + i * s->dim, r->vectors + from * s->dim, s->dim * sizeof(float));
        memcpy(sorted.bytes + i * s->nbytes, r->bytes + from * s->nbytes, s->nbytes);
        memcpy(sorted.floats + i * s->nfloats, r->floats + from * s->nfloats, s->nfloats * sizeof(float));
        memcpy(sorted.keys + i * s->nkeys, r->keys + from * s->nkeys, s->nkeys * sizeof(uint64_t));
    }
    free(order);
    free(r->vectors);
    free(r->ids);
    free(r->bytes);
    free(r->floats);
    free(r->keys);
    *r = sorted;
}

/* The input of a rebuild of what the world's rows hold. info: of the version that they come from. */
static pd_build_input rebuild_of(const world *w, const pd_version_info *info)
{
    pd_build_input in = input_make(info->schema, w->rows.vectors, w->rows.n, info->shape.dim);
    in.ids = w->rows.ids;
    in.bytes = w->rows.bytes;
    in.floats = w->rows.floats;
    in.keys = w->rows.keys;
    in.normalised = 1;
    in.refine_was = info->shape.refine;
    return in;
}

static void rebuild(world *w)
{
    pd_version *version;
    pd_error err;
    pd_build_input in = rebuild_of(w, opened(w->pushed, &version));
    ok(pd_build(&in, w->rebuilt, w->device, NULL, NULL, &err), &err);
    pd_version_close(version);
}

static void assert_same_file(const world *w, const char *name)
{
    size_t length, same;
    char *a = file_bytes(path_in(w->pushed, name), &length),
         *b = file_bytes(path_in(w->rebuilt, name), &same);
    if (length != same || memcmp(a, b, length) != 0) fail_msg("%s is another", name);
    free(a);
    free(b);
}

static void test_the_same_rows_in_the_same_order_give_the_same_files(void **state)
{
    world *w = *state;
    static const char *const names[] = {"pages.bin",   "pages.sum",    "refine.bin", "refine.sum",
                                        "source.bin",  "source.sum",   "lists.bin",  "segments.bin",
                                        "schema.conf", "manifest.json"};
    push(w, "cosine");
    take_rows(w, w->pushed);
    pd_version *version;
    sort_rows(&w->rows, opened(w->pushed, &version));
    pd_version_close(version);
    rebuild(w);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        assert_same_file(w, names[i]);
}

/* The exact answers of a version to queries of its own kind. */
static void ask(const world *w, const char *folder, pd_hit *hits, uint32_t *counts)
{
    pd_version *version;
    pd_error err;
    const pd_version_info *info = opened(folder, &version);
    float *vectors = rows_make(QUERIES, DIM, 6, 77);
    float *weights = calloc(info->layout.weights + 1, sizeof *weights);
    assert_non_null(weights);
    weights[info->layout.weight_at[0] + 2] = 0.3f;
    pd_query queries[QUERIES];
    pd_answer answers[QUERIES];
    for (uint32_t q = 0; q < QUERIES; q++) {
        pd_normalise(vectors + q * DIM, DIM);
        queries[q] = (pd_query){
            .vector = vectors + q * DIM, .similarity = 1, .weights = weights, .k = K, .min_score = -INFINITY};
        answers[q] = (pd_answer){.hits = hits + q * K};
    }
    ok(pd_version_exact(version, w->device, queries, QUERIES, answers, NULL, NULL, &err), &err);
    for (uint32_t q = 0; q < QUERIES; q++)
        counts[q] = answers[q].count;
    free(weights);
    free(vectors);
    pd_version_close(version);
}

static void test_rows_as_they_lie_in_a_version_give_the_same_answers(void **state)
{
    world *w = *state;
    push(w, "cosine");
    take_rows(w, w->pushed);
    rebuild(w);
    static pd_hit before[QUERIES * K], after[QUERIES * K];
    uint32_t were[QUERIES], are[QUERIES];
    ask(w, w->pushed, before, were);
    ask(w, w->rebuilt, after, are);
    for (uint32_t q = 0; q < QUERIES; q++) {
        assert_int_equal(were[q], K);
        assert_int_equal(are[q], K);
        for (uint32_t i = 0; i < K; i++) {
            assert_int_equal(before[q * K + i].id, after[q * K + i].id);
            assert_memory_equal(&before[q * K + i].score, &after[q * K + i].score, sizeof(float));
        }
    }
    assert_same_file(w, "schema.conf");
}

static void test_rows_as_they_lie_in_a_version_give_the_same_histograms(void **state)
{
    world *w = *state;
    push(w, "ip");
    take_rows(w, w->pushed);
    rebuild(w);
    pd_version *versions[2];
    pd_resident *residents[2];
    pd_error err;
    const pd_version_info *info = opened(w->pushed, &versions[0]);
    opened(w->rebuilt, &versions[1]);
    for (int i = 0; i < 2; i++)
        ok(pd_resident_open(versions[i], w->device, 0, &residents[i], &err), &err);
    for (uint32_t c = 0; c < info->shape.nbytes; c++)
        assert_memory_equal(pd_resident_histogram(residents[0], c), pd_resident_histogram(residents[1], c),
                            info->shape.sizes[c] * sizeof(uint64_t));
    for (int i = 0; i < 2; i++) {
        pd_resident_close(residents[i]);
        pd_version_close(versions[i]);
    }
}

static void test_ages_move_on_with_the_day_of_the_rebuild(void **state)
{
    world *w = *state;
    push(w, "ip");
    take_rows(w, w->pushed);
    pd_version *version, *later;
    pd_error err;
    const pd_version_info *info = opened(w->pushed, &version);
    pd_build_input in = rebuild_of(w, info);
    in.now = TODAY + 10;
    ok(pd_build(&in, w->rebuilt, w->device, NULL, NULL, &err), &err);
    const pd_attribute *was = pd_schema_find(info->schema, "added");
    const pd_attribute *is = pd_schema_find(opened(w->rebuilt, &later)->schema, "added");
    assert_int_equal(is->nknots, 2);
    for (uint32_t i = 0; i < 2; i++)
        assert_true(is->knots[i] == was->knots[i] + 10);
    pd_version_close(version);
    pd_version_close(later);
}

static void test_columns_may_begin_at_any_byte(void **state)
{
    world *w = *state;
    push(w, "ip");
    take_rows(w, w->pushed);
    pd_version *version;
    pd_error err;
    const pd_version_info *info = opened(w->pushed, &version);
    sort_rows(&w->rows, info);
    pd_build_input in = rebuild_of(w, info);
    size_t floats = w->rows.n * info->shape.nfloats * sizeof(float), keys = w->rows.n * 8,
           vectors = w->rows.n * DIM * sizeof(float);
    unsigned char *odd = malloc(floats + keys + vectors + 1);
    assert_non_null(odd);
    memcpy(odd + 1, w->rows.floats, floats);
    memcpy(odd + 1 + floats, w->rows.keys, keys);
    memcpy(odd + 1 + floats + keys, w->rows.vectors, vectors);
    in.floats = (const void *)(odd + 1);
    in.keys = (const void *)(odd + 1 + floats);
    in.rows = odd + 1 + floats + keys;
    ok(pd_build(&in, w->rebuilt, w->device, NULL, NULL, &err), &err);
    assert_same_file(w, "pages.bin");
    assert_same_file(w, "source.bin");
    free(odd);
    pd_version_close(version);
}

/* The kind of refine rows of a rebuild of u8 rows, of which one value may be another. */
static pd_refine refine_of_rebuild(world *w, const char *text, const char *name, float value)
{
    pd_schema *schema = schema_make(text);
    uint8_t pixels[50 * 4];
    float vectors[50 * 4];
    uint64_t state = 4;
    for (int i = 0; i < 200; i++)
        vectors[i] = (float)(pixels[i] = (uint8_t)pd_random_below(&state, 256));
    pd_build_input in = input_make(schema, NULL, 50, 4);
    in.rows = pixels;
    in.dtype = PD_DTYPE_U8;
    pd_error err;
    const char *pushed = path_in(w->folder, name);
    ok(pd_build(&in, pushed, w->device, NULL, NULL, &err), &err);
    pd_version *version, *again;
    const pd_version_info *info = opened(pushed, &version);
    vectors[77] = value;
    in = input_make(info->schema, vectors, 50, 4);
    in.refine_was = info->shape.refine;
    in.parent = 7;
    char rebuilt[96];
    snprintf(rebuilt, sizeof rebuilt, "%s/%s-rebuilt", w->folder, name);
    ok(pd_build(&in, rebuilt, w->device, NULL, NULL, &err), &err);
    pd_refine refine = opened(rebuilt, &again)->shape.refine;
    pd_version_close(version);
    pd_version_close(again);
    pd_schema_free(schema);
    return refine;
}

static void test_rows_kept_as_bytes_stay_so_while_they_are_whole(void **state)
{
    world *w = *state;
    static const char *const plain = "table = { metric = \"l2\"; };";
    static const char *const said = "table = { metric = \"l2\"; refine = \"f32\"; };";
    assert_int_equal(refine_of_rebuild(w, plain, "a", 255), PD_REFINE_U8);
    assert_int_equal(refine_of_rebuild(w, plain, "b", 255.5f), PD_REFINE_F16);
    assert_int_equal(refine_of_rebuild(w, plain, "c", 256), PD_REFINE_F16);
    assert_int_equal(refine_of_rebuild(w, plain, "d", -1), PD_REFINE_F16);
    assert_int_equal(refine_of_rebuild(w, said, "e", 255), PD_REFINE_F32);
}

static void test_more_lists_than_rows_are_left_is_no_error_of_a_rebuild(void **state)
{
    world *w = *state;
    pd_schema *schema = schema_make("table = { metric = \"ip\"; nlist = 64; };");
    float *vectors = rows_make(50, 6, 3, 1);
    pd_build_input in = input_make(schema, vectors, 50, 6);
    pd_error err;
    assert_int_equal(pd_build(&in, w->rebuilt, w->device, NULL, NULL, &err), PD_INVALID_ARGUMENT);
    in.parent = 6;
    ok(pd_build(&in, w->rebuilt, w->device, NULL, NULL, &err), &err);
    pd_version *version;
    const pd_version_info *info = opened(w->rebuilt, &version);
    assert_int_equal(info->shape.nlist, 1);
    assert_int_equal(info->schema->nlist, 64); /* asked for still, when rows are enough again */
    pd_version_close(version);
    free(vectors);
    pd_schema_free(schema);
}

static void refused(world *w, const pd_build_input *in, const char *message)
{
    pd_error err = {0};
    assert_int_equal(pd_build(in, w->rebuilt, w->device, NULL, NULL, &err), PD_INVALID_ARGUMENT);
    assert_string_equal(err.message, message);
    assert_int_not_equal(access(w->rebuilt, F_OK), 0);
}

static void test_columns_that_the_schema_does_not_have_are_refused_by_row_and_name(void **state)
{
    world *w = *state;
    push(w, "cosine");
    take_rows(w, w->pushed);
    rows *r = &w->rows;
    pd_version *version;
    const pd_version_info *info = opened(w->pushed, &version);
    uint32_t nbytes = info->shape.nbytes, nfloats = info->shape.nfloats;
    uint32_t zones = pd_schema_find(info->schema, "zones")->byte_column;
    pd_build_input in = rebuild_of(w, info);
    in.attributes = path_in(w->folder, "a.csv");
    refused(w, &in, "attributes come as a CSV or as columns, not as both");
    in = rebuild_of(w, info);
    in.keys = NULL;
    refused(w, &in, "the schema of \"things\" has 13 byte, 3 float and 1 key columns, and not all are given");
    in = rebuild_of(w, info);
    uint8_t *kind = &r->bytes[40 * nbytes], was = *kind;
    *kind = 6; /* five kinds and the unknown */
    refused(w, &in, "row 40, attribute \"kind\": a value that has no name");
    *kind = was;
    r->bytes[899 * nbytes + zones + 1] |= 8; /* eleven zones: members 0 to 10 */
    refused(w, &in, "row 899, attribute \"zones\": a member that has no name");
    r->bytes[899 * nbytes + zones + 1] &= 7;
    r->floats[3 * nfloats] = -INFINITY;
    refused(w, &in, "row 3, attribute \"price\": an infinite number");
    r->floats[3 * nfloats] = NAN;
    r->floats[4 * nfloats + 2] = -0.5f;
    refused(w, &in, "row 4, attribute \"liked\": a counter below 0");
    r->floats[4 * nfloats + 2] = 0;
    for (uint32_t d = 0; d < DIM; d++)
        r->vectors[17 * DIM + d] *= 1.1f;
    refused(w, &in, "row 17 is not normalised");
    in.normalised = 0;
    pd_error err;
    ok(pd_build(&in, w->rebuilt, w->device, NULL, NULL, &err), &err);
    pd_version_close(version);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_the_same_rows_in_the_same_order_give_the_same_files, up, down),
        cmocka_unit_test_setup_teardown(test_rows_as_they_lie_in_a_version_give_the_same_answers, up, down),
        cmocka_unit_test_setup_teardown(test_rows_as_they_lie_in_a_version_give_the_same_histograms, up,
                                        down),
        cmocka_unit_test_setup_teardown(test_ages_move_on_with_the_day_of_the_rebuild, up, down),
        cmocka_unit_test_setup_teardown(test_columns_may_begin_at_any_byte, up, down),
        cmocka_unit_test_setup_teardown(test_rows_kept_as_bytes_stay_so_while_they_are_whole, up, down),
        cmocka_unit_test_setup_teardown(test_more_lists_than_rows_are_left_is_no_error_of_a_rebuild, up,
                                        down),
        cmocka_unit_test_setup_teardown(
            test_columns_that_the_schema_does_not_have_are_refused_by_row_and_name, up, down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
