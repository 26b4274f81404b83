/* Tables and the memory that there is: refused, drained for one another, listed where they do not load. */
#include "catalog_fixture.h"

enum { SMALL = 100, DIM = 16 };

static float *small; /* [SMALL][DIM] */

static int make_data(void **state)
{
    (void)state;
    small = make_rows(1, SMALL, DIM);
    return 0;
}

static int free_data(void **state)
{
    (void)state;
    free(small);
    return 0;
}

static push_plan small_plan(void)
{
    return (push_plan){.table = "t", .metric = "l2", .rows = small, .n = SMALL, .dim = DIM};
}

static void push_small(fixture *f)
{
    push_plan p = small_plan();
    pd_error err;
    must(push(f, &p, 1, NULL, &err), err);
}

static void assert_small_serves(fixture *f)
{
    for (uint64_t i = 0; i < SMALL; i += 19) {
        uint64_t id;
        pd_error err;
        must(nearest(f, "t", small + i * DIM, &id, &err), err);
        assert_int_equal(id, i);
    }
}

/* Slabs are given out in steps of 4 MiB: this table takes two of them, a small one takes one. */
enum { BIG = 3000, WIDE = 256 };
#define WIDE_SCHEMA "code = \"f32\"; refine = \"f32\"; metric = \"l2\"; nlist = 8; "

static push_plan big_plan(const float *big, const char *table, const char *schema)
{
    return (push_plan){
        .table = table, .schema = schema, .rows = big, .n = BIG, .dim = WIDE, .queries = big, .nqueries = 20};
}

static void test_a_table_that_does_not_fit_is_refused_and_kept_on_disk(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    char problem[480];
    fixture_make(&f, 8);
    push_small(&f);
    float *big = make_rows(4, BIG, WIDE);
    push_plan p = big_plan(big, "t", "table = { " WIDE_SCHEMA "};");
    must_fail(push(&f, &p, 1, NULL, &err), err, PD_RESOURCE_EXHAUSTED, "t@2");
    assert_string_equal(state_of(&f, "t", 2, problem), "kept");
    assert_non_null(strstr(problem, "t@2"));
    assert_small_serves(&f);
    p.table = "u";
    must_fail(push(&f, &p, 1, NULL, &err), err, PD_RESOURCE_EXHAUSTED, "u@1");
    must_fail(nearest(&f, "u", small, &(uint64_t){0}, &err), err, PD_FAILED_PRECONDITION, "\"u\"");
    free(big);
    fixture_remove(&f);
}

static void test_a_table_that_drains_makes_room_and_one_that_does_not_is_refused(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    uint64_t id;
    fixture_make(&f, 12);
    float *big = make_rows(5, BIG, WIDE);
    push_plan p = big_plan(big, "t", "table = { " WIDE_SCHEMA "};");
    must(push(&f, &p, 1, NULL, &err), err);
    must_fail(push(&f, &p, 1, NULL, &err), err, PD_RESOURCE_EXHAUSTED, "t@2");
    assert_int_equal(serving(&f, "t"), 1);
    fixture_remove(&f);

    fixture_make(&f, 12);
    p.schema = "table = { " WIDE_SCHEMA "policy = \"drain\"; };";
    must(push(&f, &p, 1, NULL, &err), err);
    big[0] = 5; /* row 0 moves */
    must(push(&f, &p, 1, NULL, &err), err);
    assert_int_equal(serving(&f, "t"), 2);
    must(nearest(&f, "t", big, &id, &err), err);
    assert_int_equal(id, 0);
    /* Only staged is no reason to stop serving. */
    must_fail(push(&f, &p, 0, NULL, &err), err, PD_RESOURCE_EXHAUSTED, "t@3");
    assert_int_equal(serving(&f, "t"), 2);
    /* One that cannot be loaded after all: what served comes back. */
    fixture_flip(&f, "tables/t/v00000001/pages.bin", 300);
    must_fail(publish(&f, "t", 1, &err), err, PD_DATA_LOSS, "pages.bin");
    assert_int_equal(serving(&f, "t"), 2);
    must(nearest(&f, "t", big, &id, &err), err);
    assert_int_equal(id, 0);
    free(big);
    fixture_remove(&f);
}

static void test_a_drain_waits_for_the_holders_and_an_abort_cancels_what_waits_behind_it(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    uint64_t id, draining, behind;
    fixture_make(&f, 12);
    float *big = make_rows(5, BIG, WIDE);
    push_plan p = big_plan(big, "t", "table = { " WIDE_SCHEMA "policy = \"drain\"; };");
    must(push(&f, &p, 1, NULL, &err), err);
    pd_served *served;
    must(pd_catalog_hold(f.catalog, "t", &served, &err), err);
    draining = upload(&f, &p);
    pthread_mutex_lock(&f.catalog->mutex);
    while (!pd_table_find(f.catalog, "t")->swapping)
        pthread_cond_wait(&f.catalog->changed, &f.catalog->mutex);
    pthread_mutex_unlock(&f.catalog->mutex);
    char why[300];
    must_fail(nearest(&f, "t", big, &id, &err), err, PD_UNAVAILABLE, "being swapped");
    must_fail(nearest(&f, "t@1", big, &id, &err), err, PD_UNAVAILABLE, "being swapped");
    assert_false(pd_catalog_ready(f.catalog, why, sizeof why));
    assert_non_null(strstr(why, "\"t\""));
    push_plan other = small_plan();
    other.table = "u";
    behind = upload(&f, &other);
    pthread_mutex_lock(&f.catalog->mutex);
    uint64_t number = pd_job_find(f.catalog, behind)->push;
    pthread_mutex_unlock(&f.catalog->mutex);
    must(pd_push_abort(f.catalog, number, &err), err);
    pd_catalog_release(served);
    must(wait_job(&f, draining, NULL, &err), err);
    assert_int_equal(wait_job(&f, behind, NULL, &err), PD_CANCELLED);
    assert_int_equal(serving(&f, "t"), 2);
    assert_int_equal(serving(&f, "u"), 0);
    assert_true(pd_catalog_ready(f.catalog, why, sizeof why));
    free(big);
    fixture_remove(&f);
}

static void test_a_table_that_does_not_fit_at_start_is_listed_and_says_why(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    uint64_t id;
    char why[300];
    fixture_make(&f, 16);
    push_small(&f);
    float *big = make_rows(5, BIG, WIDE);
    push_plan p = big_plan(big, "u", "table = { " WIDE_SCHEMA "};");
    must(push(&f, &p, 1, NULL, &err), err);
    fixture_close(&f);
    fixture_device(&f, 8);
    fixture_open(&f);
    assert_small_serves(&f);
    must_fail(nearest(&f, "u", big, &id, &err), err, PD_FAILED_PRECONDITION, "u@1 needs");
    assert_string_equal(state_of(&f, "u", 1, NULL), "kept");
    assert_false(pd_catalog_ready(f.catalog, why, sizeof why));
    assert_non_null(strstr(why, "u@1 needs"));
    free(big);
    fixture_remove(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_table_that_does_not_fit_is_refused_and_kept_on_disk),
        cmocka_unit_test(test_a_table_that_drains_makes_room_and_one_that_does_not_is_refused),
        cmocka_unit_test(test_a_drain_waits_for_the_holders_and_an_abort_cancels_what_waits_behind_it),
        cmocka_unit_test(test_a_table_that_does_not_fit_at_start_is_listed_and_says_why),
    };
    return cmocka_run_group_tests(tests, make_data, free_data);
}
