/* Room for rows that come: a table whose embeddings are all renewed, while it serves and nobody asks for a rebuild. */
#include "admin.h"

#include <pthread.h>
#include <stdatomic.h>

enum { ROWS = 4000, DIM = 16, BATCH = 250 };

static float rows[ROWS * DIM], renewed[ROWS * DIM];

static const char schema[] = "table = { metric = \"l2\"; dim = 16; nlist = 40; attributes = ("
                             " { name = \"price\"; type = \"number\"; knots = (1.0, 10.0, 100.0); } ); };";

static int setup(void **state)
{
    (void)state;
    make_rows(7, ROWS, DIM, 20, rows);
    /* All of them in a corner where no row was, so that the lists they leave are of no use to them. */
    make_rows(8, ROWS, DIM, 20, renewed);
    for (int i = 0; i < ROWS * DIM; i++)
        renewed[i] = 0.2f * renewed[i] + 50.0f;
    return 0;
}

static pados_client *open_shop(server *host, const char *const *sets)
{
    pados_error error;
    server_start(host, sets);
    pados_client *client = server_client(host);
    must(push_rows(client, "t", schema, ROWS, DIM, rows, NULL, NULL, false, NULL, &error), error);
    return client;
}

static pados_status renew_as(pados_client *client, uint64_t first, const char *key, pados_written *written,
                             pados_error *error)
{
    uint64_t ids[BATCH];
    for (uint32_t i = 0; i < BATCH; i++)
        ids[i] = first + i;
    pados_upsert upsert = {.table = "t",
                           .ids = ids,
                           .count = BATCH,
                           .vectors = renewed + first * DIM,
                           .dim = DIM,
                           .key = key,
                           .timeout_ms = 60000};
    return pados_upsert_run(client, &upsert, written, error);
}

static pados_status renew(pados_client *client, uint64_t first, pados_error *error)
{
    pados_written written;
    return renew_as(client, first, NULL, &written, error);
}

static void close_shop(server *host, pados_client *client)
{
    pados_close(client);
    assert_int_equal(server_stop(host), 0);
    server_remove(host);
}

static void test_without_rebuilds_a_table_is_full_one_day_and_says_so(void **state)
{
    (void)state;
    static const char *const sets[] = {"calibration_queries=100", "spare_percent=1", "rebuild_percent=0",
                                       NULL};
    server host = {0};
    pados_error error;
    pados_client *client = open_shop(&host, sets);
    pados_status status = 0;
    for (uint64_t first = 0; !status && first < ROWS; first += BATCH)
        status = renew(client, first, &error);
    assert_int_equal(status, 8);
    assert_non_null(strstr(error.message, "building it again makes room"));
    close_shop(&host, client);
}

/* Prices go on changing while upserts wait. */
typedef struct prices {
    pados_client *client;
    atomic_int stop;
    uint32_t done, failed;
} prices;

static void *change_prices(void *argument)
{
    prices *p = argument;
    for (uint64_t id = 0; !p->stop; id = (id + 1) % ROWS) {
        float price = (float)(id % 90);
        pados_values value = {.attribute = "price", .numbers = &price};
        pados_update update = {.table = "t", .ids = &id, .count = 1, .attributes = &value, .nattributes = 1};
        pados_written written;
        pados_error error;
        if (pados_update_run(p->client, &update, &written, &error))
            p->failed++;
        else
            p->done++;
    }
    return NULL;
}

static void renew_all(bool others)
{
    static const char *const sets[] = {"calibration_queries=100", "spare_percent=1", NULL};
    server host = {0};
    pados_error error;
    pados_client *client = open_shop(&host, sets);
    prices p = {.client = client};
    pthread_t thread;
    if (others) assert_int_equal(pthread_create(&thread, NULL, change_prices, &p), 0);
    for (uint64_t first = 0; first < ROWS; first += BATCH)
        must(renew(client, first, &error), error);
    p.stop = 1;
    if (others) pthread_join(thread, NULL);
    assert_int_equal(p.failed, 0);
    assert_true(p.done > 0 || !others);
    uint32_t found = 0;
    for (uint32_t at = 0; at < ROWS; at += 100) {
        pados_result *r;
        pados_search search = {.table = "t",
                               .count = 1,
                               .k = 1,
                               .vectors = renewed + (size_t)at * DIM,
                               .dim = DIM,
                               .exact = true};
        must(pados_search_run(client, &search, &r, &error), error);
        assert_true(r->version > 1);
        found += r->hits == 1 && r->ids[0] == at;
        pados_result_free(r);
    }
    assert_int_equal(found, ROWS / 100);
    close_shop(&host, client);
}

static void test_a_table_whose_rows_are_all_renewed_makes_room_by_itself(void **state)
{
    (void)state;
    renew_all(false);
}

static void test_prices_change_while_upserts_wait_for_room(void **state)
{
    (void)state;
    renew_all(true);
}

/* Sends what another client has sent, under the same keys. */
typedef struct echo {
    const server *host;
    pados_written written[ROWS / BATCH];
    char wrong[300];
} echo;

static void *send_again(void *argument)
{
    echo *e = argument;
    pados_client *client = server_client(e->host);
    pados_error error;
    char key[40];
    for (uint32_t i = 0; i < ROWS / BATCH && !*e->wrong; i++) {
        snprintf(key, sizeof key, "batch-%u", i);
        if (renew_as(client, (uint64_t)i * BATCH, key, &e->written[i], &error))
            snprintf(e->wrong, sizeof e->wrong, "%.290s", error.message);
    }
    pados_close(client);
    return NULL;
}

static void test_a_batch_that_is_sent_again_while_it_waits_is_done_once_and_answered_twice(void **state)
{
    (void)state;
    static const char *const sets[] = {"calibration_queries=100", "spare_percent=1", NULL};
    server host = {0};
    echo first = {.host = &host}, second = {.host = &host};
    pthread_t thread;
    pados_client *client = open_shop(&host, sets);
    assert_int_equal(pthread_create(&thread, NULL, send_again, &first), 0);
    send_again(&second);
    pthread_join(thread, NULL);
    assert_string_equal(first.wrong, "");
    assert_string_equal(second.wrong, "");
    for (uint32_t i = 0; i < ROWS / BATCH; i++) {
        assert_int_equal(first.written[i].sequence, second.written[i].sequence);
        assert_true(first.written[i].repeated != second.written[i].repeated);
    }
    close_shop(&host, client);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_rebuilds_a_table_is_full_one_day_and_says_so),
        cmocka_unit_test(test_a_table_whose_rows_are_all_renewed_makes_room_by_itself),
        cmocka_unit_test(test_prices_change_while_upserts_wait_for_room),
        cmocka_unit_test(test_a_batch_that_is_sent_again_while_it_waits_is_done_once_and_answered_twice),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
