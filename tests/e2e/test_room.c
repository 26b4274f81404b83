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

static pados_status renew(pados_client *client, uint64_t first, pados_error *error)
{
    uint64_t ids[BATCH];
    pados_written written;
    for (uint32_t i = 0; i < BATCH; i++)
        ids[i] = first + i;
    pados_upsert upsert = {.table = "t",
                           .ids = ids,
                           .count = BATCH,
                           .vectors = renewed + first * DIM,
                           .dim = DIM,
                           .timeout_ms = 60000};
    return pados_upsert_run(client, &upsert, &written, error);
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

static void test_a_table_whose_rows_are_all_renewed_makes_room_by_itself(void **state)
{
    (void)state;
    static const char *const sets[] = {"calibration_queries=100", "spare_percent=1", NULL};
    server host = {0};
    pados_error error;
    pados_client *client = open_shop(&host, sets);
    prices p = {.client = client};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, change_prices, &p), 0);
    for (uint64_t first = 0; first < ROWS; first += BATCH)
        must(renew(client, first, &error), error);
    p.stop = 1;
    pthread_join(thread, NULL);
    assert_int_equal(p.failed, 0);
    assert_true(p.done > 0);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_rebuilds_a_table_is_full_one_day_and_says_so),
        cmocka_unit_test(test_a_table_whose_rows_are_all_renewed_makes_room_by_itself),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
