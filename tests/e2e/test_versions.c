/* Versions: restart, rollback, staging, comparison, corruption. Each test has a server of its own. */
#include "admin.h"

#include <fcntl.h>
#include <unistd.h>

enum { ROWS = 1500, DIM = 16, K = 5 };

static float first[ROWS * DIM], second[ROWS * DIM];

static int rows(void **state)
{
    (void)state;
    make_rows(1, ROWS, DIM, 10, first);
    make_rows(2, ROWS, DIM, 10, second);
    return 0;
}

/* The rows that a version answers with for its own row 0. */
static void answer(pados_client *client, const char *table, const float *query, uint64_t *ids,
                   uint64_t *version)
{
    pados_search search = {.table = table, .count = 1, .k = K, .vectors = query, .dim = DIM, .recall = 0.99f};
    pados_result *r;
    pados_error error;
    must(pados_search_run(client, &search, &r, &error), error);
    assert_int_equal(r->hits, K);
    memcpy(ids, r->ids, K * sizeof *ids);
    if (version) *version = r->version;
    pados_result_free(r);
}

static void test_a_restart_serves_the_same_answers(void **state)
{
    (void)state;
    server host = {0};
    pados_error error;
    uint64_t before[K], after[K], version;
    server_start(&host, NULL);
    pados_client *client = server_client(&host);
    must(push_rows(client, "t", NULL, ROWS, DIM, first, NULL, NULL, false, NULL, &error), error);
    answer(client, "t", first, before, NULL);
    assert_int_equal(server_stop(&host), 0);
    server_start(&host, NULL);
    /* The same client finds the new process by itself. */
    answer(client, "t", first, after, &version);
    assert_memory_equal(before, after, sizeof before);
    assert_int_equal(version, 1);
    pados_close(client);
    assert_int_equal(server_stop(&host), 0);
    server_remove(&host);
}

static void test_a_killed_server_comes_back(void **state)
{
    (void)state;
    server host = {0};
    pados_error error;
    uint64_t before[K], after[K];
    server_start(&host, NULL);
    pados_client *client = server_client(&host);
    must(push_rows(client, "t", NULL, ROWS, DIM, first, NULL, NULL, false, NULL, &error), error);
    answer(client, "t", first, before, NULL);
    server_kill(&host);
    server_start(&host, NULL);
    answer(client, "t", first, after, NULL);
    assert_memory_equal(before, after, sizeof before);
    pados_close(client);
    assert_int_equal(server_stop(&host), 0);
    server_remove(&host);
}

static void test_rollback_serves_the_version_before(void **state)
{
    (void)state;
    server host = {0};
    pados_error error;
    uint64_t one[K], two[K], back[K], version;
    server_start(&host, NULL);
    pados_client *client = server_client(&host);
    must(push_rows(client, "t", NULL, ROWS, DIM, first, NULL, NULL, false, NULL, &error), error);
    answer(client, "t", first, one, NULL);
    must(push_rows(client, "t", NULL, ROWS, DIM, second, NULL, NULL, false, &version, &error), error);
    assert_int_equal(version, 2);
    answer(client, "t", first, two, &version);
    assert_int_equal(version, 2);
    must(rollback(client, "t", &error), error);
    answer(client, "t", first, back, &version);
    assert_int_equal(version, 1);
    assert_memory_equal(one, back, sizeof one);
    must_fail(rollback(client, "t", &error), error, FAILED_PRECONDITION, "t");
    must(publish(client, "t", 2, &error), error);
    assert_int_equal(serving(client, "t"), 2);
    pados_close(client);
    assert_int_equal(server_stop(&host), 0);
    server_start(&host, NULL);
    client = server_client(&host);
    assert_int_equal(serving(client, "t"), 2);
    pados_close(client);
    assert_int_equal(server_stop(&host), 0);
    server_remove(&host);
}

static void test_a_staged_version_is_asked_compared_and_published(void **state)
{
    (void)state;
    server host = {0};
    pados_error error;
    uint64_t staged, ids[K], version;
    server_start(&host, NULL);
    pados_client *client = server_client(&host);
    must(push_rows(client, "t", NULL, ROWS, DIM, first, NULL, NULL, false, NULL, &error), error);
    must(push_rows(client, "t", NULL, ROWS, DIM, second, NULL, NULL, true, &staged, &error), error);
    assert_int_equal(serving(client, "t"), 1);
    answer(client, "t@2", second, ids, &version);
    assert_int_equal(version, 2);
    assert_int_equal(ids[0], 0);
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    Pados__V1__Compare compare = PADOS__V1__COMPARE__INIT;
    compare.table = "t";
    compare.version = staged;
    compare.queries = 200;
    request.body_case = PADOS__V1__REQUEST__BODY_COMPARE;
    request.compare = &compare;
    Pados__V1__Reply *reply;
    must(pados_admin(client, &request, &reply, &error), error);
    assert_int_equal(reply->compare->serving, 1);
    assert_int_equal(reply->compare->version, 2);
    assert_true(reply->compare->overlap < 0.9f && reply->compare->overlap >= 0);
    assert_true(reply->compare->serving_recall > 0.9f && reply->compare->version_recall > 0.9f);
    pados_reply_free(reply);
    must(publish(client, "t", staged, &error), error);
    assert_int_equal(serving(client, "t"), 2);
    pados_close(client);
    assert_int_equal(server_stop(&host), 0);
    server_remove(&host);
}

static void test_a_failed_push_leaves_what_serves(void **state)
{
    (void)state;
    server host = {0};
    pados_error error;
    uint64_t before[K], after[K], twice[ROWS];
    server_start(&host, NULL);
    pados_client *client = server_client(&host);
    must(push_rows(client, "t", NULL, ROWS, DIM, first, NULL, NULL, false, NULL, &error), error);
    answer(client, "t", first, before, NULL);
    float *bad = malloc(sizeof second);
    memcpy(bad, second, sizeof second);
    bad[3 * DIM + 7] = (float)(0.0 / 0.0);
    must_fail(push_rows(client, "t", NULL, ROWS, DIM, bad, NULL, NULL, false, NULL, &error), error,
              INVALID_ARGUMENT, "row 3");
    assert_non_null(strstr(error.message, "7"));
    memset(bad + 5 * DIM, 0, DIM * sizeof *bad);
    bad[3 * DIM + 7] = 1;
    must_fail(push_rows(client, "t", NULL, ROWS, DIM, bad, NULL, NULL, false, NULL, &error), error,
              INVALID_ARGUMENT, "row 5");
    free(bad);
    for (int i = 0; i < ROWS; i++)
        twice[i] = (uint64_t)(i == 20 ? 10 : i);
    must_fail(push_rows(client, "t", NULL, ROWS, DIM, second, twice, NULL, false, NULL, &error), error,
              INVALID_ARGUMENT, "10");
    must_fail(
        push_rows(client, "t", NULL, ROWS, DIM, second, NULL, "id,colour\n1,RED\n", false, NULL, &error),
        error, INVALID_ARGUMENT, "colour");
    answer(client, "t", first, after, NULL);
    assert_memory_equal(before, after, sizeof before);
    assert_int_equal(serving(client, "t"), 1);
    pados_close(client);
    assert_int_equal(server_stop(&host), 0);
    server_remove(&host);
}

static void test_a_corrupt_version_yields_to_the_one_before(void **state)
{
    (void)state;
    server host = {0};
    pados_error error;
    uint64_t one[K], back[K], version;
    server_start(&host, NULL);
    pados_client *client = server_client(&host);
    must(push_rows(client, "t", NULL, ROWS, DIM, first, NULL, NULL, false, NULL, &error), error);
    answer(client, "t", first, one, NULL);
    must(push_rows(client, "t", NULL, ROWS, DIM, second, NULL, NULL, false, NULL, &error), error);
    pados_close(client);
    assert_int_equal(server_stop(&host), 0);
    char path[256], byte;
    snprintf(path, sizeof path, "%s/data/tables/t/v00000002/pages.bin", host.folder);
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, 100), 1);
    byte ^= 1;
    assert_int_equal(pwrite(fd, &byte, 1, 100), 1);
    close(fd);
    server_start(&host, NULL);
    client = server_client(&host);
    answer(client, "t", first, back, &version);
    assert_int_equal(version, 1);
    assert_memory_equal(one, back, sizeof one);
    Pados__V1__Reply *reply;
    must(table_get(client, "t", &reply, &error), error);
    int broken = 0;
    for (size_t i = 0; i < reply->table->n_versions; i++)
        if (reply->table->versions[i]->version == 2) {
            assert_string_equal(reply->table->versions[i]->state, "broken");
            assert_non_null(strstr(reply->table->versions[i]->problem, "pages.bin"));
            broken = 1;
        }
    assert_true(broken);
    pados_reply_free(reply);
    pados_close(client);
    assert_int_equal(server_stop(&host), 0);
    server_remove(&host);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_restart_serves_the_same_answers),
        cmocka_unit_test(test_a_killed_server_comes_back),
        cmocka_unit_test(test_rollback_serves_the_version_before),
        cmocka_unit_test(test_a_staged_version_is_asked_compared_and_published),
        cmocka_unit_test(test_a_failed_push_leaves_what_serves),
        cmocka_unit_test(test_a_corrupt_version_yields_to_the_one_before),
    };
    return cmocka_run_group_tests(tests, rows, NULL);
}
