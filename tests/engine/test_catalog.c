/* The life of a table: pushed, served, staged, compared, published, rolled back, kept, corrupted, found again. */
#include "catalog_fixture.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "compare.h"

enum { N = 400, DIM = 16 };
#define PLAIN "table = { metric = \"l2\"; };"

static float *one, *two; /* [N][DIM], two sets of rows */

static int make_data(void **state)
{
    (void)state;
    one = make_rows(1, N, DIM);
    two = make_rows(2, N, DIM);
    return 0;
}

static int free_data(void **state)
{
    (void)state;
    free(one);
    free(two);
    return 0;
}

static push_plan plan(const float *rows)
{
    return (push_plan){.table = "t", .schema = PLAIN, .rows = rows, .n = N, .dim = DIM};
}

static void push_good(fixture *f, const float *rows, int publish_it, uint64_t want)
{
    push_plan p = plan(rows);
    pd_error err;
    uint64_t version;
    must(push(f, &p, publish_it, &version, &err), err);
    assert_int_equal(version, want);
}

/* Row i of these rows is found under its own id. */
static void assert_serves(fixture *f, const char *name, const float *rows)
{
    pd_error err;
    for (uint64_t i = 0; i < N; i += 57) {
        uint64_t id;
        must(nearest(f, name, rows + i * DIM, &id, &err), err);
        assert_int_equal(id, i);
    }
}

static int entries(const fixture *f, const char *below)
{
    char path[512];
    fixture_path(f, path, "%s", below);
    DIR *dir = opendir(path);
    assert_non_null(dir);
    int count = 0;
    while (readdir(dir))
        count++;
    closedir(dir);
    return count - 2;
}

static void test_a_pushed_table_is_built_served_and_found_again_after_a_restart(void **state)
{
    (void)state;
    fixture f;
    fixture_make(&f, 64);
    push_good(&f, one, 1, 1);
    assert_int_equal(serving(&f, "t"), 1);
    assert_string_equal(state_of(&f, "t", 1, NULL), "serving");
    assert_serves(&f, "t", one);
    assert_serves(&f, "t@1", one);
    assert_int_equal(entries(&f, "push"), 0);
    char why[200];
    assert_true(pd_catalog_ready(f.catalog, why, sizeof why));

    fixture_close(&f);
    fixture_open(&f);
    assert_int_equal(serving(&f, "t"), 1);
    assert_serves(&f, "t", one);
    pd_served *served;
    pd_error err;
    must(pd_catalog_hold(f.catalog, "t", &served, &err), err);
    assert_true(served->info->calibration->measured);
    assert_string_equal(served->info->calibration->source, "held-out rows");
    pd_catalog_release(served);
    fixture_remove(&f);
}

static void test_the_curves_are_known_as_soon_as_a_version_serves(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    fixture_make(&f, 64);
    push_plan p = plan(one);
    p.queries = two;
    p.nqueries = 100;
    must(push(&f, &p, 1, NULL, &err), err);
    pd_served *served;
    must(pd_catalog_hold(f.catalog, "t", &served, &err), err);
    const pd_calibration *calibration =
        pd_version_info_of(pd_resident_version(served->resident))->calibration;
    assert_true(calibration->measured);
    assert_string_equal(calibration->source, "file");
    assert_int_equal(calibration->queries, 100);
    pd_catalog_release(served);
    fixture_remove(&f);
}

static void test_rollback_serves_the_version_before_and_only_once(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    uint64_t version;
    fixture_make(&f, 64);
    push_good(&f, one, 1, 1);
    must_fail(rollback(&f, "t", NULL, &err), err, PD_FAILED_PRECONDITION,
              "\"t\" keeps no version that served before 1");
    push_good(&f, two, 1, 2);
    assert_serves(&f, "t", two);
    assert_string_equal(state_of(&f, "t", 1, NULL), "kept");
    must_fail(nearest(&f, "t@1", one, &version, &err), err, PD_FAILED_PRECONDITION, "on disk only");
    must(rollback(&f, "t", &version, &err), err);
    assert_int_equal(version, 1);
    assert_serves(&f, "t", one);
    assert_string_equal(state_of(&f, "t", 2, NULL), "kept");
    must_fail(rollback(&f, "t", NULL, &err), err, PD_FAILED_PRECONDITION,
              "keeps no version that served before");
    fixture_close(&f);
    fixture_open(&f);
    assert_serves(&f, "t", one);
    must(publish(&f, "t", 2, &err), err);
    assert_serves(&f, "t", two);
    fixture_remove(&f);
}

static void test_rollback_goes_to_what_served_before_not_to_the_newest(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    uint64_t version;
    fixture_make(&f, 64);
    push_good(&f, one, 1, 1);
    push_good(&f, two, 1, 2);
    must(rollback(&f, "t", &version, &err), err); /* 2 was bad */
    assert_int_equal(version, 1);
    push_good(&f, two, 0, 3); /* 3 and 4 are looked at and never let out */
    push_good(&f, two, 0, 4);
    push_good(&f, two, 1, 5);
    fixture_close(&f);
    fixture_open(&f); /* which way led here is on the disk */
    assert_int_equal(serving(&f, "t"), 5);
    must(rollback(&f, "t", &version, &err), err);
    assert_int_equal(version, 1);
    assert_serves(&f, "t", one);
    must_fail(rollback(&f, "t", NULL, &err), err, PD_FAILED_PRECONDITION, "served before 1");
    must(publish(&f, "t", 5, &err), err);
    must(publish(&f, "t", 4, &err), err);
    must(rollback(&f, "t", &version, &err), err);
    assert_int_equal(version, 5);
    must(rollback(&f, "t", &version, &err), err);
    assert_int_equal(version, 1);
    fixture_remove(&f);
}

static void test_a_start_falls_back_to_what_served_before(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    char path[512];
    fixture_make(&f, 64);
    push_good(&f, one, 1, 1);
    push_good(&f, two, 0, 2);
    push_good(&f, two, 1, 3);
    fixture_close(&f);
    fixture_path(&f, path, "tables/t/v00000003/lists.bin");
    assert_int_equal(truncate(path, 10), 0);
    fixture_open(&f);
    assert_int_equal(serving(&f, "t"), 1);
    assert_serves(&f, "t", one);
    must_fail(rollback(&f, "t", NULL, &err), err, PD_FAILED_PRECONDITION, "served before 1");
    fixture_remove(&f);
}

static void test_a_current_file_of_nonsense_and_stray_files_stop_nothing(void **state)
{
    (void)state;
    static const char *const nonsense[] = {
        "", "-1\n", "99999999999999999999999\n", "18446744073709551615\n", "2 x\n", "2x\n", "v2\n"};
    fixture f;
    char path[512];
    fixture_make(&f, 64);
    push_good(&f, one, 1, 1);
    push_good(&f, two, 1, 2);
    for (size_t i = 0; i < sizeof nonsense / sizeof *nonsense; i++) {
        fixture_close(&f);
        fixture_path(&f, path, "tables/t/CURRENT");
        FILE *file = fopen(path, "w");
        assert_non_null(file);
        fputs(nonsense[i], file);
        assert_int_equal(fclose(file), 0);
        static const char *const strays[] = {"tables/notes", "profiles/notes"};
        for (int j = 0; j < 2; j++) {
            fixture_path(&f, path, "%s", strays[j]);
            file = fopen(path, "w");
            assert_non_null(file);
            assert_int_equal(fclose(file), 0);
        }
        fixture_open(&f);
        assert_int_equal(serving(&f, "t"), 2);
    }
    push_good(&f, two, 1, 3);
    fixture_remove(&f);
}

static void test_a_staged_version_is_asked_and_compared_then_published(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    uint64_t id;
    fixture_make(&f, 64);
    push_good(&f, one, 1, 1);
    uint64_t *ids = malloc(N * sizeof *ids);
    for (uint64_t i = 0; i < N; i++)
        ids[i] = i + 100;
    push_plan p = plan(one);
    p.ids = ids;
    must(push(&f, &p, 0, &id, &err), err);
    assert_int_equal(id, 2);
    assert_string_equal(state_of(&f, "t", 2, NULL), "staged");
    assert_int_equal(serving(&f, "t"), 1);
    assert_serves(&f, "t", one);
    must(nearest(&f, "t@2", one + 3 * DIM, &id, &err), err);
    assert_int_equal(id, 103);
    pd_comparison c;
    must(pd_compare(f.catalog, "t", 2, 10, 200, &c, &err), err);
    assert_int_equal(c.queries, 200);
    assert_int_equal(c.only_serving, 100);
    assert_int_equal(c.only_version, 100);
    assert_true(c.serving_recall > 0.9f && c.version_recall > 0.9f);
    assert_true(c.overlap < 0.2f); /* the same vectors under other ids */
    must(publish(&f, "t", 2, &err), err);
    assert_int_equal(serving(&f, "t"), 2);
    assert_string_equal(state_of(&f, "t", 1, NULL), "kept");
    must(publish(&f, "t", 2, &err), err); /* the same again */
    fixture_remove(&f);
    free(ids);
}

static void test_a_version_compared_with_its_like_overlaps_wholly(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    pd_comparison c;
    fixture_make(&f, 64);
    push_good(&f, one, 1, 1);
    push_good(&f, one, 0, 2);
    must(pd_compare(f.catalog, "t", 2, 0, 0, &c, &err), err);
    assert_int_equal(c.k, 10);
    assert_int_equal(c.queries, N);
    assert_true(c.overlap == 1.0f);
    assert_int_equal(c.only_serving + c.only_version, 0);
    must_fail(pd_compare(f.catalog, "t", 9, 0, 0, &c, &err), err, PD_NOT_FOUND, "no version 9");
    must_fail(pd_compare(f.catalog, "u", 1, 0, 0, &c, &err), err, PD_NOT_FOUND, "\"u\"");
    must_fail(pd_compare(f.catalog, "t", 2, 5000, 0, &c, &err), err, PD_INVALID_ARGUMENT, "5000");
    fixture_remove(&f);
}

static void test_a_new_staged_version_takes_the_place_of_the_old_one(void **state)
{
    (void)state;
    fixture f;
    fixture_make(&f, 64);
    push_good(&f, one, 0, 1);
    assert_int_equal(serving(&f, "t"), 0);
    pd_error err;
    uint64_t id;
    must_fail(nearest(&f, "t", one, &id, &err), err, PD_FAILED_PRECONDITION,
              "no version of table \"t\" is published");
    push_good(&f, two, 0, 2);
    assert_string_equal(state_of(&f, "t", 1, NULL), "kept");
    assert_string_equal(state_of(&f, "t", 2, NULL), "staged");
    assert_serves(&f, "t@2", two);
    fixture_close(&f); /* what is staged is in memory only */
    fixture_open(&f);
    assert_string_equal(state_of(&f, "t", 2, NULL), "kept");
    must(publish(&f, "t", 2, &err), err);
    assert_serves(&f, "t", two);
    fixture_remove(&f);
}

static void test_a_corrupt_version_yields_to_the_one_before(void **state)
{
    (void)state;
    fixture f;
    char problem[480];
    pd_error err;
    uint64_t id;
    fixture_make(&f, 64);
    push_good(&f, one, 1, 1);
    push_good(&f, two, 1, 2);
    fixture_close(&f);
    fixture_flip(&f, "tables/t/v00000002/pages.bin", 100);
    fixture_open(&f);
    assert_int_equal(serving(&f, "t"), 1);
    assert_serves(&f, "t", one);
    assert_string_equal(state_of(&f, "t", 2, problem), "broken");
    assert_non_null(strstr(problem, "pages.bin"));
    must_fail(nearest(&f, "t@2", one, &id, &err), err, PD_FAILED_PRECONDITION, "broken");
    must_fail(publish(&f, "t", 2, &err), err, PD_DATA_LOSS, "pages.bin");
    assert_serves(&f, "t", one);
    push_good(&f, two, 1, 3); /* the broken one's number is not used again */
    assert_serves(&f, "t", two);
    fixture_remove(&f);
}

static void test_a_version_whose_folder_is_gone_is_named_and_the_one_before_serves(void **state)
{
    (void)state;
    fixture f;
    char from[512], to[512], problem[480];
    fixture_make(&f, 64);
    push_good(&f, one, 1, 1);
    push_good(&f, two, 1, 2);
    fixture_close(&f);
    fixture_path(&f, from, "tables/t/v00000002");
    snprintf(to, sizeof to, "%s/elsewhere", f.folder);
    assert_int_equal(rename(from, to), 0);
    fixture_open(&f);
    assert_serves(&f, "t", one);
    assert_string_equal(state_of(&f, "t", 2, problem), "broken");
    assert_non_null(strstr(problem, "v00000002"));
    fixture_remove(&f);
}

static void test_rollback_passes_over_a_broken_version(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    uint64_t version;
    fixture_make(&f, 64);
    push_good(&f, one, 1, 1);
    push_good(&f, two, 1, 2);
    push_good(&f, two, 1, 3);
    fixture_flip(&f, "tables/t/v00000002/pages.bin", 200);
    must(rollback(&f, "t", &version, &err), err);
    assert_int_equal(version, 1);
    assert_non_null(strstr(err.message, "version 2 is broken"));
    assert_serves(&f, "t", one);
    assert_string_equal(state_of(&f, "t", 2, NULL), "broken");
    fixture_remove(&f);
}

static void test_a_failed_push_leaves_what_serves_and_nothing_of_itself(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    uint64_t version;
    fixture_make(&f, 64);
    push_good(&f, one, 1, 1);
    float *bad = make_rows(3, N, DIM);
    bad[7 * DIM + 5] = __builtin_nanf("");
    push_plan p = plan(bad);
    must_fail(push(&f, &p, 1, NULL, &err), err, PD_INVALID_ARGUMENT, "row 7");
    assert_non_null(strstr(err.message, "column 5"));
    assert_serves(&f, "t", one);
    assert_string_equal(state_of(&f, "t", 2, NULL), "");
    assert_int_equal(entries(&f, "tables/t"), 2); /* v00000001, CURRENT */
    assert_int_equal(entries(&f, "push"), 0);
    p.table = "other";
    must_fail(push(&f, &p, 1, NULL, &err), err, PD_INVALID_ARGUMENT, "row 7");
    assert_false(fixture_exists(&f, "tables/other"));
    must_fail(nearest(&f, "other", one, &version, &err), err, PD_NOT_FOUND, "other");
    push_good(&f, two, 1, 2);
    free(bad);
    fixture_remove(&f);
}

static void test_older_versions_than_the_schema_keeps_are_removed(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    fixture_make(&f, 64);
    push_plan p = plan(one);
    p.schema = "table = { metric = \"l2\"; keep = 1; };";
    for (int i = 0; i < 4; i++)
        must(push(&f, &p, 1, NULL, &err), err);
    assert_int_equal(serving(&f, "t"), 4);
    assert_string_equal(state_of(&f, "t", 3, NULL), "kept");
    assert_string_equal(state_of(&f, "t", 2, NULL), "");
    assert_false(fixture_exists(&f, "tables/t/v00000002"));
    assert_true(fixture_exists(&f, "tables/t/v00000003"));
    must(rollback(&f, "t", NULL, &err), err);
    assert_int_equal(serving(&f, "t"), 3);
    must(push(&f, &p, 1, NULL, &err), err);
    assert_int_equal(serving(&f, "t"), 5);
    /* The one that served last is the way back, not the newest. */
    assert_string_equal(state_of(&f, "t", 3, NULL), "kept");
    assert_string_equal(state_of(&f, "t", 4, NULL), "");
    fixture_remove(&f);
}

static void test_a_schema_silent_about_keep_keeps_as_many_as_the_server_says(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    fixture_make(&f, 64);
    f.config->keep = 1;
    push_plan p = plan(one);
    p.schema = "table = { metric = \"l2\"; };";
    for (int i = 0; i < 3; i++) {
        must(push(&f, &p, 1, NULL, &err), err);
        p.schema = NULL; /* the table's own from now on */
    }
    assert_string_equal(state_of(&f, "t", 2, NULL), "kept");
    assert_string_equal(state_of(&f, "t", 1, NULL), "");
    f.config->keep = 0; /* it follows the configuration, not what that was once */
    must(push(&f, &p, 1, NULL, &err), err);
    assert_string_equal(state_of(&f, "t", 3, NULL), "");
    fixture_remove(&f);
}

static void test_versions_that_are_never_published_do_not_add_up(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    fixture_make(&f, 64);
    f.config->keep = 1;
    push_plan p = plan(one);
    p.schema = "table = { metric = \"l2\"; };";
    must(push(&f, &p, 1, NULL, &err), err);
    must(push(&f, &p, 1, NULL, &err), err);
    for (int i = 0; i < 4; i++)
        must(push(&f, &p, 0, NULL, &err), err);
    assert_int_equal(serving(&f, "t"), 2);
    assert_string_equal(state_of(&f, "t", 6, NULL), "staged");
    assert_string_equal(state_of(&f, "t", 5, NULL), "");
    assert_string_equal(state_of(&f, "t", 1, NULL), "kept"); /* the way back stays */
    assert_int_equal(entries(&f, "tables/t"), 4);
    fixture_remove(&f);
}

/* Who is killed between making a version and pruning leaves one more each time: the next start prunes. */
static void test_a_start_removes_what_is_kept_too_long(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    fixture_make(&f, 64);
    f.config->keep = 5;
    push_plan p = plan(one);
    p.schema = "table = { metric = \"l2\"; };";
    for (int i = 0; i < 4; i++)
        must(push(&f, &p, 1, NULL, &err), err);
    fixture_close(&f);
    f.config->keep = 1;
    fixture_open(&f);
    assert_int_equal(serving(&f, "t"), 4);
    assert_string_equal(state_of(&f, "t", 3, NULL), "kept");
    assert_string_equal(state_of(&f, "t", 2, NULL), "");
    assert_false(fixture_exists(&f, "tables/t/v00000001"));
    fixture_close(&f);
    /* Not while an older one must stand in: it may be all there is. */
    char path[512];
    f.config->keep = 0;
    fixture_path(&f, path, "tables/t/v00000004/lists.bin");
    assert_int_equal(truncate(path, 10), 0);
    fixture_open(&f);
    assert_int_equal(serving(&f, "t"), 3);
    assert_true(fixture_exists(&f, "tables/t/v00000004"));
    fixture_remove(&f);
}

/* One that asks without a pause while versions come and go. */
typedef struct asker {
    fixture *f;
    atomic_int stop;
    uint32_t asked, wrong;
    uint64_t last; /* the newest version seen */
} asker;

static void *ask_on(void *argument)
{
    asker *a = argument;
    while (!atomic_load(&a->stop)) {
        pd_served *served;
        pd_error err;
        pd_hit hit = {.id = UINT64_MAX};
        pd_answer answer = {.hits = &hit};
        a->asked++;
        if (pd_catalog_hold(a->f->catalog, "t", &served, &err) != PD_OK) {
            a->wrong++;
            continue;
        }
        /* Odd versions hold the rows of one, even ones those of two. */
        const float *rows = served->number % 2 ? one : two;
        pd_query query = {
            .vector = rows + 5 * DIM, .similarity = 1, .nprobe = 64, .k = 1, .min_score = -__builtin_inff()};
        pd_status status = pd_executor_background(a->f->executor, served->resident, &query, 1, &answer, &err);
        a->wrong += status != PD_OK || hit.id != 5 || served->number < a->last;
        a->last = served->number;
        pd_catalog_release(served);
    }
    return NULL;
}

static void test_searches_never_fail_while_versions_are_switched(void **state)
{
    (void)state;
    fixture f;
    fixture_make(&f, 64);
    push_good(&f, one, 1, 1);
    asker askers[2] = {{.f = &f}, {.f = &f}};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, ask_on, &askers[i]), 0);
    for (uint64_t version = 2; version <= 4; version++)
        push_good(&f, version % 2 ? one : two, 1, version);
    for (int i = 0; i < 2; i++) {
        atomic_store(&askers[i].stop, 1);
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(askers[i].wrong, 0);
        assert_true(askers[i].asked > 0);
    }
    fixture_remove(&f);
}

static void test_a_held_version_outlives_its_switch(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    fixture_make(&f, 64);
    push_good(&f, one, 1, 1);
    pd_served *served;
    must(pd_catalog_hold(f.catalog, "t", &served, &err), err);
    push_good(&f, two, 1, 2);
    pd_hit hit;
    pd_answer answer = {.hits = &hit};
    pd_query query = {.vector = one, .similarity = 1, .nprobe = 64, .k = 1, .min_score = -__builtin_inff()};
    must(pd_executor_background(f.executor, served->resident, &query, 1, &answer, &err), err);
    assert_int_equal(served->number, 1);
    assert_int_equal(hit.id, 0);
    pd_catalog_release(served);
    assert_serves(&f, "t", two);
    fixture_remove(&f);
}

static void test_dictionaries_go_on_from_version_to_version(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    fixture_make(&f, 64);
    push_plan p = plan(one);
    p.schema = "table = { metric = \"l2\"; attributes = ( { name = \"colour\"; type = \"category\"; } ); };";
    p.attributes = "id,colour\n0,red\n1,blue\n";
    must(push(&f, &p, 1, NULL, &err), err);
    p.attributes = "id,colour\n0,green\n";
    must(push(&f, &p, 1, NULL, &err), err); /* the schema given again */
    p.schema = NULL;
    p.attributes = "id,colour\n0,black\n";
    must(push(&f, &p, 1, NULL, &err), err); /* the table's own */
    char unlisted[64];
    snprintf(unlisted, sizeof unlisted, "has no line for %u of %u rows", (unsigned)N - 1, (unsigned)N);
    assert_non_null(strstr(err.message, unlisted));
    pd_served *served;
    must(pd_catalog_hold(f.catalog, "t", &served, &err), err);
    assert_int_equal(served->number, 3);
    const pd_attribute *colour = pd_schema_find(served->info->schema, "colour");
    static const char *const names[] = {"red", "blue", "green", "black"};
    for (int i = 0; i < 4; i++)
        assert_true(pd_attribute_value(colour, names[i]) > 0);
    pd_catalog_release(served);
    fixture_remove(&f);
}

static void test_queries_come_from_the_declared_table(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    fixture_make(&f, 64);
    push_plan users = {.table = "users",
                       .schema = "table = { metric = \"l2\"; index = \"none\"; };",
                       .rows = two,
                       .n = N,
                       .dim = DIM};
    push_plan items = plan(one);
    items.schema = "table = { metric = \"l2\"; queries = \"users\"; };";
    must(push(&f, &items, 1, NULL, &err), err); /* before there are users */
    assert_non_null(strstr(err.message, "\"users\""));
    must(push(&f, &users, 1, NULL, &err), err);
    must(push(&f, &items, 1, NULL, &err), err);
    assert_string_equal(err.message, "");
    pd_served *served;
    must(pd_catalog_hold(f.catalog, "t", &served, &err), err);
    assert_string_equal(served->info->calibration->source, "users");
    pd_catalog_release(served);
    push_plan narrow = {.table = "users",
                        .schema = "table = { metric = \"l2\"; index = \"none\"; };",
                        .rows = two,
                        .n = N,
                        .dim = 8};
    must(push(&f, &narrow, 1, NULL, &err), err);
    must_fail(push(&f, &items, 1, NULL, &err), err, PD_INVALID_ARGUMENT, "8 dimensions");
    fixture_close(&f); /* look-up tables are loaded at start like others */
    fixture_open(&f);
    assert_int_equal(serving(&f, "users"), 2);
    fixture_remove(&f);
}

static void test_what_a_crash_left_is_removed_at_start(void **state)
{
    (void)state;
    fixture f;
    char path[512];
    fixture_make(&f, 64);
    push_good(&f, one, 1, 1);
    fixture_close(&f);
    static const char *const folders[] = {"tables/t/v00000002.tmp", "push/17", "tables/none"};
    for (int i = 0; i < 3; i++) {
        fixture_path(&f, path, "%s", folders[i]);
        assert_int_equal(mkdir(path, 0755), 0);
    }
    static const char *const files[] = {"tables/t/v00000002.tmp/pages.bin", "push/17/rows",
                                        "tables/t/CURRENT.tmp"};
    for (int i = 0; i < 3; i++) {
        fixture_path(&f, path, "%s", files[i]);
        int fd = open(path, O_WRONLY | O_CREAT, 0644);
        assert_true(fd >= 0);
        close(fd);
    }
    fixture_open(&f);
    assert_int_equal(entries(&f, "tables/t"), 2);
    assert_int_equal(entries(&f, "push"), 0);
    assert_serves(&f, "t", one);
    push_good(&f, two, 1, 2);
    fixture_remove(&f);
}

static void test_one_process_at_a_time_has_the_data_folder(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    pd_catalog *second = NULL;
    fixture_make(&f, 64);
    must_fail(pd_catalog_open(f.config, f.device, f.executor, &second, &err), err, PD_FAILED_PRECONDITION,
              "in use");
    assert_null(second);
    fixture_remove(&f);
}

static void test_names_that_are_no_tables_are_refused(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    uint64_t id;
    fixture_make(&f, 64);
    push_good(&f, one, 1, 1);
    must_fail(nearest(&f, "nothing", one, &id, &err), err, PD_NOT_FOUND, "nothing");
    must_fail(nearest(&f, "t@7", one, &id, &err), err, PD_NOT_FOUND, "version 7");
    must_fail(nearest(&f, "t@x", one, &id, &err), err, PD_INVALID_ARGUMENT, "t@x");
    must_fail(nearest(&f, "t@", one, &id, &err), err, PD_INVALID_ARGUMENT, "t@");
    push_plan p = plan(one);
    p.table = "../t";
    must_fail(push(&f, &p, 1, NULL, &err), err, PD_INVALID_ARGUMENT, "../t");
    must_fail(publish(&f, "t", 9, &err), err, PD_NOT_FOUND, "version 9");
    must_fail(rollback(&f, "u", NULL, &err), err, PD_NOT_FOUND, "\"u\"");
    fixture_remove(&f);
}

static double gauge_seen;
static void see_gauge(void *context, const char *name, const char *labels, double value)
{
    char both[200];
    snprintf(both, sizeof both, "%s{%s}", name, labels);
    if (!strcmp(both, context)) gauge_seen = value;
}

static void test_gauges_tell_rows_and_versions(void **state)
{
    (void)state;
    fixture f;
    fixture_make(&f, 64);
    push_good(&f, one, 1, 1);
    push_good(&f, two, 1, 2);
    static const struct {
        const char *name;
        double value;
    } want[] = {{"pados_table_rows{table=\"t\"}", N},
                {"pados_table_version{table=\"t\"}", 2},
                {"pados_table_versions{table=\"t\",state=\"kept\"}", 1},
                {"pados_jobs{state=\"done\"}", 2},
                {"pados_pushes_open{}", 0}};
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        gauge_seen = -1;
        pd_catalog_gauges(f.catalog, see_gauge, (void *)want[i].name);
        assert_true(gauge_seen == want[i].value);
    }
    fixture_remove(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_pushed_table_is_built_served_and_found_again_after_a_restart),
        cmocka_unit_test(test_the_curves_are_known_as_soon_as_a_version_serves),
        cmocka_unit_test(test_rollback_serves_the_version_before_and_only_once),
        cmocka_unit_test(test_rollback_goes_to_what_served_before_not_to_the_newest),
        cmocka_unit_test(test_a_start_falls_back_to_what_served_before),
        cmocka_unit_test(test_a_current_file_of_nonsense_and_stray_files_stop_nothing),
        cmocka_unit_test(test_a_staged_version_is_asked_and_compared_then_published),
        cmocka_unit_test(test_a_version_compared_with_its_like_overlaps_wholly),
        cmocka_unit_test(test_a_new_staged_version_takes_the_place_of_the_old_one),
        cmocka_unit_test(test_a_corrupt_version_yields_to_the_one_before),
        cmocka_unit_test(test_a_version_whose_folder_is_gone_is_named_and_the_one_before_serves),
        cmocka_unit_test(test_rollback_passes_over_a_broken_version),
        cmocka_unit_test(test_a_failed_push_leaves_what_serves_and_nothing_of_itself),
        cmocka_unit_test(test_older_versions_than_the_schema_keeps_are_removed),
        cmocka_unit_test(test_versions_that_are_never_published_do_not_add_up),
        cmocka_unit_test(test_a_start_removes_what_is_kept_too_long),
        cmocka_unit_test(test_a_schema_silent_about_keep_keeps_as_many_as_the_server_says),
        cmocka_unit_test(test_searches_never_fail_while_versions_are_switched),
        cmocka_unit_test(test_a_held_version_outlives_its_switch),
        cmocka_unit_test(test_dictionaries_go_on_from_version_to_version),
        cmocka_unit_test(test_queries_come_from_the_declared_table),
        cmocka_unit_test(test_what_a_crash_left_is_removed_at_start),
        cmocka_unit_test(test_one_process_at_a_time_has_the_data_folder),
        cmocka_unit_test(test_names_that_are_no_tables_are_refused),
        cmocka_unit_test(test_gauges_tell_rows_and_versions),
    };
    return cmocka_run_group_tests(tests, make_data, free_data);
}
