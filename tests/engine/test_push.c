/* Uploads: chunks that come twice, late, broken or not at all. */
#include "catalog_fixture.h"

#include <signal.h>
#include <sys/resource.h>

enum { N = 64, DIM = 8, BYTES = N * DIM * 4 };

static float *rows;

static int make_data(void **state)
{
    (void)state;
    rows = make_rows(1, N, DIM);
    return 0;
}

static int free_data(void **state)
{
    (void)state;
    free(rows);
    return 0;
}

static push_plan plan(void)
{
    return (push_plan){.table = "t", .metric = "l2", .rows = rows, .n = N, .dim = DIM};
}

static uint64_t begin_plan(fixture *f, const push_plan *p, Pados__V1__PushBeginReply *out)
{
    pd_error err;
    Pados__V1__PushBegin body = plan_begin(p);
    must(begin(f, &body, out, &err), err);
    return out->push;
}

static const void *at(size_t offset)
{
    return (const char *)rows + offset;
}

static void test_a_chunk_that_does_not_match_its_checksum_is_refused(void **state)
{
    (void)state;
    fixture f;
    pd_error err = {0};
    uint64_t received = 77, job;
    fixture_make(&f, 16);
    push_plan p = plan();
    Pados__V1__PushBeginReply reply;
    uint64_t number = begin_plan(&f, &p, &reply);
    must_fail(pd_push_chunk(f.catalog, number, PD_PART_ROWS, 0, rows, 100, pd_sum_of(rows, 100) + 1,
                            &received, &err),
              err, PD_DATA_LOSS, "checksum");
    must_fail(commit(&f, number, 1, &job, &err), err, PD_FAILED_PRECONDITION, "rows miss bytes from 0 on");
    must(chunk(&f, number, PD_PART_ROWS, 0, rows, BYTES, &received, &err), err);
    assert_int_equal(received, BYTES);
    must(commit(&f, number, 1, &job, &err), err);
    must(wait_job(&f, job, NULL, &err), err);
    fixture_remove(&f);
}

static void test_a_push_begun_again_under_its_key_goes_on_where_it_was(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    uint64_t job, version;
    fixture_make(&f, 16);
    push_plan p = plan();
    p.key = "monday";
    Pados__V1__PushBeginReply first, second;
    begin_plan(&f, &p, &first);
    assert_int_equal(first.received_rows, 0);
    must(chunk(&f, first.push, PD_PART_ROWS, 0, rows, 1000, NULL, &err), err);
    begin_plan(&f, &p, &second);
    assert_int_equal(second.push, first.push);
    assert_int_equal(second.received_rows, 1000);
    must(chunk(&f, first.push, PD_PART_ROWS, 1000, at(1000), BYTES - 1000, NULL, &err), err);
    must(commit(&f, first.push, 1, &job, &err), err);
    must(wait_job(&f, job, &version, &err), err);
    assert_int_equal(version, 1);
    /* Even after the commit: nothing is sent or built again. */
    begin_plan(&f, &p, &second);
    assert_int_equal(second.push, first.push);
    assert_int_equal(second.received_rows, BYTES);
    /* Another key is another push; the same with other sizes is refused. */
    p.key = "tuesday";
    begin_plan(&f, &p, &second);
    assert_int_not_equal(second.push, first.push);
    p.n = 32;
    Pados__V1__PushBegin body = plan_begin(&p);
    must_fail(begin(&f, &body, &second, &err), err, PD_FAILED_PRECONDITION, "tuesday");
    fixture_remove(&f);
}

static void test_a_commit_that_comes_twice_is_one_job(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    uint64_t one, two, version;
    fixture_make(&f, 16);
    push_plan p = plan();
    Pados__V1__PushBeginReply reply;
    uint64_t number = begin_plan(&f, &p, &reply);
    must(chunk(&f, number, PD_PART_ROWS, 0, rows, BYTES, NULL, &err), err);
    must(commit(&f, number, 1, &one, &err), err);
    must(commit(&f, number, 1, &two, &err), err);
    assert_int_equal(one, two);
    must(wait_job(&f, one, &version, &err), err);
    must(commit(&f, number, 1, &two, &err), err);
    assert_int_equal(one, two);
    assert_int_equal(version, 1);
    assert_string_equal(state_of(&f, "t", 2, NULL), "");
    must_fail(chunk(&f, number, PD_PART_ROWS, 0, rows, 10, NULL, &err), err, PD_FAILED_PRECONDITION,
              "committed");
    fixture_remove(&f);
}

static void test_a_key_whose_push_failed_may_try_again(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    uint64_t version;
    fixture_make(&f, 16);
    float *bad = make_rows(1, N, DIM);
    bad[9] = __builtin_inff();
    push_plan p = plan();
    p.key = "k";
    p.rows = bad;
    must_fail(push(&f, &p, 1, NULL, &err), err, PD_INVALID_ARGUMENT, "row 1");
    p.rows = rows;
    must(push(&f, &p, 1, &version, &err), err);
    assert_int_equal(version, 1);
    free(bad);
    fixture_remove(&f);
}

static void test_chunks_may_come_out_of_order_and_twice(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    uint64_t received, job, id;
    fixture_make(&f, 16);
    push_plan p = plan();
    Pados__V1__PushBeginReply reply;
    uint64_t number = begin_plan(&f, &p, &reply);
    must(chunk(&f, number, PD_PART_ROWS, 1500, at(1500), BYTES - 1500, &received, &err), err);
    assert_int_equal(received, 0);
    must(chunk(&f, number, PD_PART_ROWS, 0, rows, 600, &received, &err), err);
    assert_int_equal(received, 600);
    must(chunk(&f, number, PD_PART_ROWS, 1000, at(1000), 300, &received, &err), err);
    assert_int_equal(received, 600);
    must(chunk(&f, number, PD_PART_ROWS, 0, rows, 600, &received, &err), err);
    assert_int_equal(received, 600);
    must_fail(commit(&f, number, 1, &job, &err), err, PD_FAILED_PRECONDITION, "from 600 on");
    must(chunk(&f, number, PD_PART_ROWS, 500, at(500), 1100, &received, &err), err);
    assert_int_equal(received, BYTES);
    must(commit(&f, number, 1, &job, &err), err);
    must(wait_job(&f, job, NULL, &err), err);
    for (uint64_t i = 0; i < N; i += 9) {
        must(nearest(&f, "t", rows + i * DIM, &id, &err), err);
        assert_int_equal(id, i);
    }
    fixture_remove(&f);
}

static void test_a_chunk_out_of_place_is_refused(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    fixture_make(&f, 16);
    push_plan p = plan();
    Pados__V1__PushBeginReply reply;
    uint64_t number = begin_plan(&f, &p, &reply);
    must_fail(chunk(&f, number, PD_PART_ROWS, BYTES - 10, rows, 11, NULL, &err), err, PD_OUT_OF_RANGE,
              "rows");
    must_fail(chunk(&f, number, PD_PART_ROWS, UINT64_MAX - 3, rows, 8, NULL, &err), err, PD_OUT_OF_RANGE,
              "rows");
    must_fail(chunk(&f, number, PD_PART_IDS, 0, rows, 8, NULL, &err), err, PD_OUT_OF_RANGE, "ids");
    must_fail(chunk(&f, number, 9, 0, rows, 8, NULL, &err), err, PD_INVALID_ARGUMENT, "part 9");
    must_fail(chunk(&f, number, PD_PART_ROWS, 0, rows, 0, NULL, &err), err, PD_INVALID_ARGUMENT, "empty");
    must_fail(chunk(&f, number + 5, PD_PART_ROWS, 0, rows, 8, NULL, &err), err, PD_NOT_FOUND, "no push");
    f.config->max_chunk = 100;
    must_fail(chunk(&f, number, PD_PART_ROWS, 0, rows, 101, NULL, &err), err, PD_INVALID_ARGUMENT,
              "max_chunk (100)");
    fixture_remove(&f);
}

static void test_sizes_that_cannot_be_are_refused_before_a_byte_is_taken(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    Pados__V1__PushBeginReply reply;
    fixture_make(&f, 16);
    push_plan p = plan();
    Pados__V1__PushBegin good = plan_begin(&p), bad = good;
    bad.rows = 0;
    must_fail(begin(&f, &bad, &reply, &err), err, PD_INVALID_ARGUMENT, "no rows");
    bad = good;
    bad.dim = 0;
    must_fail(begin(&f, &bad, &reply, &err), err, PD_INVALID_ARGUMENT, "dim is 0");
    bad = good;
    bad.dim = PD_MAX_DIM + 1;
    must_fail(begin(&f, &bad, &reply, &err), err, PD_INVALID_ARGUMENT, "dim");
    bad = good;
    bad.rows = UINT64_MAX;
    must_fail(begin(&f, &bad, &reply, &err), err, PD_INVALID_ARGUMENT, "more than a table holds");
    bad = good;
    bad.ids_bytes = 12;
    must_fail(begin(&f, &bad, &reply, &err), err, PD_INVALID_ARGUMENT, "ids");
    bad = good;
    bad.metric = "manhattan";
    must_fail(begin(&f, &bad, &reply, &err), err, PD_INVALID_ARGUMENT, "manhattan");
    bad = good;
    bad.schema = "table = { colour = 1; };";
    must_fail(begin(&f, &bad, &reply, &err), err, PD_INVALID_ARGUMENT, "colour");
    bad = good;
    bad.schema = "table = { dim = 9; };";
    bad.metric = "";
    must_fail(begin(&f, &bad, &reply, &err), err, PD_INVALID_ARGUMENT, "8 dimensions");
    bad = good;
    bad.schema = "table = { metric = \"ip\"; };";
    must_fail(begin(&f, &bad, &reply, &err), err, PD_INVALID_ARGUMENT, "metric l2");
    bad = good;
    bad.attributes_bytes = UINT64_MAX - 5;
    must_fail(begin(&f, &bad, &reply, &err), err, PD_RESOURCE_EXHAUSTED, "max_push_mib");
    f.config->max_push_bytes = BYTES - 1;
    must_fail(begin(&f, &good, &reply, &err), err, PD_RESOURCE_EXHAUSTED, "max_push_mib");
    f.config->max_push_bytes = UINT64_MAX;
    bad = good;
    bad.rows = 4000000000u;
    bad.dim = PD_MAX_DIM;
    must_fail(begin(&f, &bad, &reply, &err), err, PD_RESOURCE_EXHAUSTED, "disk");
    fixture_remove(&f);
}

static void test_an_aborted_push_is_gone_and_its_place_is_free(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    Pados__V1__PushBeginReply reply;
    uint64_t open[PD_PUSHES_OPEN];
    fixture_make(&f, 16);
    push_plan p = plan();
    Pados__V1__PushBegin body = plan_begin(&p);
    for (uint32_t i = 0; i < PD_PUSHES_OPEN; i++)
        open[i] = begin_plan(&f, &p, &reply);
    must_fail(begin(&f, &body, &reply, &err), err, PD_RESOURCE_EXHAUSTED, "16 uploads");
    char below[64];
    snprintf(below, sizeof below, "push/%llu", (unsigned long long)open[3]);
    assert_true(fixture_exists(&f, below));
    must(pd_push_abort(f.catalog, open[3], &err), err);
    assert_false(fixture_exists(&f, below));
    must_fail(chunk(&f, open[3], PD_PART_ROWS, 0, rows, 8, NULL, &err), err, PD_NOT_FOUND, "no push");
    must(begin(&f, &body, &reply, &err), err);
    fixture_remove(&f);
}

static void test_an_upload_that_nobody_continues_is_dropped(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    Pados__V1__PushBeginReply old, fresh;
    fixture_make(&f, 16);
    push_plan p = plan();
    begin_plan(&f, &p, &old);
    pthread_mutex_lock(&f.catalog->mutex);
    pd_push_find(f.catalog, old.push)->touched_ms -= PD_PUSH_IDLE_MS + 1;
    pthread_mutex_unlock(&f.catalog->mutex);
    begin_plan(&f, &p, &fresh);
    must_fail(chunk(&f, old.push, PD_PART_ROWS, 0, rows, 8, NULL, &err), err, PD_NOT_FOUND, "idle");
    must(chunk(&f, fresh.push, PD_PART_ROWS, 0, rows, 8, NULL, &err), err);
    fixture_remove(&f);
}

static void test_a_push_number_of_an_earlier_life_is_unknown(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    Pados__V1__PushBeginReply old, fresh;
    fixture_make(&f, 16);
    push_plan p = plan();
    begin_plan(&f, &p, &old);
    fixture_close(&f);
    fixture_open(&f);
    begin_plan(&f, &p, &fresh);
    assert_int_not_equal(old.push, fresh.push);
    must_fail(chunk(&f, old.push, PD_PART_ROWS, 0, rows, 8, NULL, &err), err, PD_NOT_FOUND, "no push");
    fixture_remove(&f);
}

static void test_a_full_disk_is_told_and_the_push_goes_on_when_there_is_room(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    uint64_t received, job;
    fixture_make(&f, 16);
    push_plan p = plan();
    Pados__V1__PushBeginReply reply;
    uint64_t number = begin_plan(&f, &p, &reply);
    must(chunk(&f, number, PD_PART_ROWS, 0, rows, 512, NULL, &err), err);
    /* A limit on the length of files is the full disk that a test can have. */
    struct rlimit before, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = (struct rlimit){.rlim_cur = 512, .rlim_max = before.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    pd_status status = chunk(&f, number, PD_PART_ROWS, 512, at(512), BYTES - 512, NULL, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    must_fail(status, err, PD_RESOURCE_EXHAUSTED, "rows");
    must(chunk(&f, number, PD_PART_ROWS, 512, at(512), BYTES - 512, &received, &err), err);
    assert_int_equal(received, BYTES);
    must(commit(&f, number, 1, &job, &err), err);
    must(wait_job(&f, job, NULL, &err), err);
    fixture_remove(&f);
}

static void test_queries_of_the_upload_are_looked_at_before_the_build(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    fixture_make(&f, 16);
    float *queries = make_rows(2, 10, DIM);
    memset(queries + 4 * DIM, 0, DIM * sizeof *queries);
    push_plan p = plan();
    p.metric = "cosine";
    p.queries = queries;
    p.nqueries = 10;
    must_fail(push(&f, &p, 1, NULL, &err), err, PD_INVALID_ARGUMENT, "query row 4 is a zero vector");
    queries[4 * DIM + 2] = __builtin_nanf("");
    must_fail(push(&f, &p, 1, NULL, &err), err, PD_INVALID_ARGUMENT, "query row 4, column 2");
    free(queries);
    fixture_remove(&f);
}

static void test_a_table_keeps_its_shape_unless_a_schema_changes_it(void **state)
{
    (void)state;
    fixture f;
    pd_error err;
    uint64_t version;
    fixture_make(&f, 16);
    push_plan p = plan();
    must(push(&f, &p, 1, NULL, &err), err);
    p.metric = "cosine";
    must_fail(push(&f, &p, 1, NULL, &err), err, PD_INVALID_ARGUMENT, "metric cosine");
    p.metric = NULL;
    p.dim = 4;
    must_fail(push(&f, &p, 1, NULL, &err), err, PD_INVALID_ARGUMENT, "4 dimensions");
    p.schema = "table = { metric = \"cosine\"; };";
    must(push(&f, &p, 1, &version, &err), err);
    assert_int_equal(version, 2);
    fixture_remove(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_chunk_that_does_not_match_its_checksum_is_refused),
        cmocka_unit_test(test_a_push_begun_again_under_its_key_goes_on_where_it_was),
        cmocka_unit_test(test_a_commit_that_comes_twice_is_one_job),
        cmocka_unit_test(test_a_key_whose_push_failed_may_try_again),
        cmocka_unit_test(test_chunks_may_come_out_of_order_and_twice),
        cmocka_unit_test(test_a_chunk_out_of_place_is_refused),
        cmocka_unit_test(test_sizes_that_cannot_be_are_refused_before_a_byte_is_taken),
        cmocka_unit_test(test_an_aborted_push_is_gone_and_its_place_is_free),
        cmocka_unit_test(test_an_upload_that_nobody_continues_is_dropped),
        cmocka_unit_test(test_a_push_number_of_an_earlier_life_is_unknown),
        cmocka_unit_test(test_a_full_disk_is_told_and_the_push_goes_on_when_there_is_room),
        cmocka_unit_test(test_queries_of_the_upload_are_looked_at_before_the_build),
        cmocka_unit_test(test_a_table_keeps_its_shape_unless_a_schema_changes_it),
    };
    return cmocka_run_group_tests(tests, make_data, free_data);
}
