/* Lists in groups: what a build makes of many lists, what comes back from disk, and that answers keep their recall. */
#include "store_files.h"

#include <math.h>

#include "lists_file.h"

enum { ROWS = 4000, DIM = 12, LISTS = 300, QUERIES = 200, K = 10 };

static const char plain[] = "table = { };";

typedef struct fixture {
    char folder[64];
    pd_device *device;
    pd_schema *schema;
    float *rows;
    pd_version *version;
} fixture;

static void fixture_open(fixture *f, const char *schema, uint32_t groups_from)
{
    pd_error err = {0};
    folder_make(f->folder);
    f->device = device_make("cpu", 64u << 20);
    f->schema = schema_make(schema);
    f->rows = rows_make(ROWS, DIM, 90, 1);
    pd_build_input in = input_make(f->schema, f->rows, ROWS, DIM);
    in.nlist = LISTS;
    in.groups_from = groups_from;
    ok(pd_build(&in, path_in(f->folder, "v"), f->device, NULL, NULL, &err), &err);
    ok(pd_version_open(path_in(f->folder, "v"), &f->version, &err), &err);
}

static void fixture_close(fixture *f)
{
    pd_version_close(f->version);
    free(f->rows);
    pd_schema_free(f->schema);
    pd_device_close(f->device);
    folder_drop(f->folder);
}

static void test_many_lists_are_numbered_group_by_group(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f, plain, LISTS);
    const pd_lists *lists = &pd_version_info_of(f.version)->lists;
    assert_true(lists->ngroups > 20 && lists->ngroups <= 34);
    assert_int_equal(lists->group_first[0], 0);
    assert_int_equal(lists->group_first[lists->ngroups], LISTS);
    /* Lists of a group lie closer to its middle than the lists of the table to theirs. */
    double inside = 0, whole = 0, middle[DIM] = {0};
    for (uint32_t l = 0; l < LISTS; l++)
        for (uint32_t d = 0; d < DIM; d++)
            middle[d] += (double)lists->centroids[l * DIM + d] / LISTS;
    for (uint32_t g = 0; g < lists->ngroups; g++) {
        uint32_t from = lists->group_first[g], to = lists->group_first[g + 1];
        assert_true(from < to);
        for (uint32_t d = 0; d < DIM; d++) {
            double mean = 0;
            for (uint32_t l = from; l < to; l++)
                mean += (double)lists->centroids[l * DIM + d] / (to - from);
            for (uint32_t l = from; l < to; l++) {
                inside += pow((double)lists->centroids[l * DIM + d] - mean, 2);
                whole += pow((double)lists->centroids[l * DIM + d] - middle[d], 2);
            }
        }
    }
    assert_true(inside < 0.5 * whole);
    fixture_close(&f);
}

static void test_few_lists_have_no_groups(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f, plain, LISTS + 1);
    assert_int_equal(pd_version_info_of(f.version)->lists.ngroups, 0);
    fixture_close(&f);
}

/* The share of the K nearest, by vectors of the same law, that nprobe lists find. */
static double recall_of(const fixture *f, uint32_t nprobe)
{
    pd_error err = {0};
    float *vectors = rows_make(QUERIES, DIM, 90, 2);
    pd_resident *resident = NULL;
    ok(pd_resident_open(f->version, f->device, 0, &resident, &err), &err);
    static pd_query queries[QUERIES];
    static pd_answer found[QUERIES], truth[QUERIES];
    static pd_hit hits[2][QUERIES][K];
    for (uint32_t q = 0; q < QUERIES; q++) {
        queries[q] = (pd_query){
            .vector = vectors + q * DIM, .similarity = 1, .nprobe = nprobe, .k = K, .min_score = -INFINITY};
        found[q].hits = hits[0][q];
        truth[q].hits = hits[1][q];
    }
    pd_index *index = pd_resident_index(resident);
    ok(pd_index_search(index, queries, QUERIES, found, NULL, &err), &err);
    for (uint32_t q = 0; q < QUERIES; q++)
        queries[q].nprobe = LISTS;
    ok(pd_index_search(index, queries, QUERIES, truth, NULL, &err), &err);
    uint32_t same = 0;
    for (uint32_t q = 0; q < QUERIES; q++)
        for (uint32_t i = 0; i < K; i++)
            for (uint32_t j = 0; j < found[q].count; j++)
                same += found[q].hits[j].id == truth[q].hits[i].id;
    pd_resident_close(resident);
    free(vectors);
    return (double)same / (QUERIES * K);
}

static void test_groups_lose_next_to_no_recall(void **state)
{
    (void)state;
    static const char *const schemas[] = {plain, "table = { metric = \"ip\"; };",
                                          "table = { metric = \"cosine\"; };"};
    for (int i = 0; i < 3; i++) {
        fixture with, without;
        fixture_open(&with, schemas[i], LISTS);
        fixture_open(&without, schemas[i], LISTS + 1);
        double plainly = recall_of(&without, 8), grouped = recall_of(&with, 8);
        assert_true(plainly > 0.7);
        if (grouped < plainly - 0.02) fail_msg("%s: recall %.3f of %.3f", schemas[i], grouped, plainly);
        fixture_close(&with);
        fixture_close(&without);
    }
}

static void test_groups_that_do_not_cover_the_lists_are_refused(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f, plain, LISTS);
    const pd_version_info *info = pd_version_info_of(f.version);
    uint32_t ngroups = info->lists.ngroups, *pages = malloc(info->npages * sizeof *pages);
    size_t length;
    unsigned char *bytes = file_bytes(path_in(f.folder, "v/lists.bin"), &length);
    uint32_t *first = (uint32_t *)(void *)(bytes + length) - (ngroups + 1);
    const struct {
        uint32_t at, value;
        pd_status status;
    } cases[] = {{1, first[1], PD_OK},
                 {0, 1, PD_DATA_LOSS},
                 {1, LISTS + 1, PD_DATA_LOSS},
                 {ngroups, LISTS - 1, PD_DATA_LOSS},
                 {2, first[1] - 1, PD_DATA_LOSS},
                 {ngroups, LISTS + 1, PD_DATA_LOSS}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t before = first[cases[i].at];
        pd_lists lists;
        pd_error err = {0};
        first[cases[i].at] = cases[i].value;
        assert_int_equal(pd_lists_parse("lists.bin", bytes, length, LISTS, DIM, 0, info->npages, 0, ROWS,
                                        &lists, pages, &err),
                         cases[i].status);
        if (cases[i].status) assert_non_null(strstr(err.message, "groups"));
        first[cases[i].at] = before;
    }
    /* One group less than the header says. */
    pd_lists lists;
    assert_int_equal(pd_lists_parse("lists.bin", bytes, length - 4, LISTS, DIM, 0, info->npages, 0, ROWS,
                                    &lists, pages, NULL),
                     PD_DATA_LOSS);
    free(bytes);
    free(pages);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_lists_are_numbered_group_by_group),
        cmocka_unit_test(test_few_lists_have_no_groups),
        cmocka_unit_test(test_groups_lose_next_to_no_recall),
        cmocka_unit_test(test_groups_that_do_not_cover_the_lists_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
